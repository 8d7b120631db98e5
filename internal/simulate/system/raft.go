package system

import (
	"context"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/raft"
)

// raftEngine is package raft.
type raftEngine struct{}

var _ engine = raftEngine{}

// raftNode makes a node of package raft one of any engine's.
type raftNode struct{ *raft.Node }

var _ node = raftNode{}

// start implements engine.
func (raftEngine) start(ctx context.Context, cfg replica.Config) (node, error) {
	n, err := raft.Start(ctx, raft.Config{Cluster: cfg.Cluster, Node: cfg.Node, Transport: cfg.Transport, Store: cfg.Store, Logger: cfg.Logger, Loops: cfg.Loops,
		HeartbeatInterval: cfg.HeartbeatInterval, ElectionTimeout: cfg.ElectionTimeout, MaxClockDrift: cfg.MaxClockDrift, MaxBatchBytes: cfg.MaxBatchBytes, CacheBytes: cfg.CacheBytes})
	if err != nil {
		return nil, err
	}
	return raftNode{n}, nil
}

// StartGroup implements node.
func (n raftNode) StartGroup(ctx context.Context, cfg replica.GroupConfig) (group, error) {
	g, err := n.Node.StartGroup(ctx, raft.GroupConfig{ID: cfg.ID, StateMachine: cfg.StateMachine, SnapshotEntries: cfg.SnapshotEntries, SnapshotBytes: cfg.SnapshotBytes,
		RetainEntries: cfg.RetainEntries, RetainBytes: cfg.RetainBytes, MaxSessions: cfg.MaxSessions, MaxSessionBytes: cfg.MaxSessionBytes})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// rules implements engine.
func (raftEngine) rules(v *invariants) rules { return newRaftRules(v) }
