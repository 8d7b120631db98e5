package raft_test

import (
	"context"
	"testing"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/internal/replica/grouptest"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
)

// TestGroup holds Raft to what every engine promises.
func TestGroup(t *testing.T) { grouptest.Run(t, engine{}) }

// engine is package raft, as the suite sees it.
type engine struct{}

func (engine) Name() string { return "raft" }

func (engine) Start(ctx context.Context, c replica.Config) (grouptest.Node, error) {
	n, err := raft.Start(ctx, raft.Config{
		Cluster:           c.Cluster,
		Node:              c.Node,
		Transport:         c.Transport,
		Store:             c.Store,
		Logger:            c.Logger,
		Metrics:           c.Metrics,
		SetAddress:        c.SetAddress,
		HeartbeatInterval: c.HeartbeatInterval,
		ElectionTimeout:   c.ElectionTimeout,
		MaxClockDrift:     c.MaxClockDrift,
		Loops:             c.Loops,
		MaxCommandBytes:   c.MaxCommandBytes,
		MaxBatchBytes:     c.MaxBatchBytes,
		MaxPending:        c.MaxPending,
		MaxPendingBytes:   c.MaxPendingBytes,
		MaxInflightBytes:  c.MaxInflightBytes,
		MaxInboxBytes:     c.MaxInboxBytes,
		MaxUnwrittenBytes: c.MaxUnwrittenBytes,
		MaxApplyBytes:     c.MaxApplyBytes,
		CacheBytes:        c.CacheBytes,

		SnapshotBytesPerSecond: c.SnapshotBytesPerSecond,
	})
	if err != nil {
		return nil, err
	}
	return node{n}, nil
}

func (engine) Recover(ctx context.Context, c replica.RecoverConfig) error {
	return raft.Recover(ctx, raft.RecoverConfig{Cluster: c.Cluster, Node: c.Node, Group: c.Group, Store: c.Store, AcceptLoss: c.AcceptLoss, Logger: c.Logger})
}

func (engine) Inspect(ctx context.Context, store storage.Store) ([]replica.Remains, error) {
	return raft.Inspect(ctx, store)
}

type node struct{ *raft.Node }

func (n node) StartGroup(ctx context.Context, c replica.GroupConfig) (grouptest.Group, error) {
	g, err := n.Node.StartGroup(ctx, raft.GroupConfig{
		ID:              c.ID,
		StateMachine:    c.StateMachine,
		SnapshotEntries: c.SnapshotEntries,
		SnapshotBytes:   c.SnapshotBytes,
		RetainEntries:   c.RetainEntries,
		RetainBytes:     c.RetainBytes,
		MaxSessions:     c.MaxSessions,
		MaxSessionBytes: c.MaxSessionBytes,
	})
	if err != nil {
		return nil, err // not a nil *raft.Group in an interface
	}
	return g, nil
}
