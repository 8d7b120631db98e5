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

// draw implements engine.
func (raftEngine) draw(*run) {}

// damaged implements engine: a minority.
func (raftEngine) damaged(*run) int { return 0 }

// fits implements engine.
func (raftEngine) fits(voters []uint64) bool { return len(voters) > 0 }

// decides implements engine: a majority does.
func (raftEngine) decides(voters []uint64, which func(uint64) bool) bool {
	n := 0
	for _, v := range voters {
		if which(v) {
			n++
		}
	}
	return 2*n > len(voters)
}

// more implements engine.
func (raftEngine) more() bool { return false }

// start implements engine.
func (raftEngine) start(ctx context.Context, s replica.Settings) (node, error) {
	n, err := raft.Start(ctx, raft.Config(s))
	if err != nil {
		return nil, err
	}
	return raftNode{n}, nil
}

// StartGroup implements node.
func (n raftNode) StartGroup(ctx context.Context, cfg replica.GroupConfig) (group, error) {
	g, err := n.Node.StartGroup(ctx, raft.GroupConfig(cfg))
	if err != nil {
		return nil, err
	}
	return g, nil
}

// rules implements engine.
func (raftEngine) rules(v *invariants) rules { return newRaftRules(v) }
