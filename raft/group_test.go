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

func (engine) Start(ctx context.Context, s replica.Settings) (grouptest.Node, error) {
	n, err := raft.Start(ctx, raft.Config(s))
	if err != nil {
		return nil, err
	}
	return node{n}, nil
}

func (engine) Recover(ctx context.Context, c replica.RecoverConfig) error {
	return raft.Recover(ctx, raft.RecoverConfig(c))
}

func (engine) Inspect(ctx context.Context, store storage.Store) ([]replica.Remains, error) {
	return raft.Inspect(ctx, store)
}

type node struct{ *raft.Node }

func (n node) StartGroup(ctx context.Context, c replica.GroupConfig) (grouptest.Group, error) {
	g, err := n.Node.StartGroup(ctx, raft.GroupConfig(c))
	if err != nil {
		return nil, err // not a nil *raft.Group in an interface
	}
	return g, nil
}
