package system

import (
	"context"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

// engine is what differs between the engines that are simulated.
type engine interface {
	// draw draws what only this engine's clusters have.
	draw(s *run)
	// damaged is how many nodes may have their disk damaged for good: see sim.Atlas.
	damaged(s *run) int
	// fits reports whether some nodes can be a set of voters.
	fits(voters []uint64) bool
	// decides reports whether those of a set of voters for whom a condition holds can elect a leader and
	// decide by themselves.
	decides(voters []uint64, which func(node uint64) bool) bool
	// more reports whether runs have what came after those of raft were what they are: leaders that
	// succeed each other before what they propose is decided, records that vanish, and progress that is demanded
	// wherever one voter reaches enough others, both ways.
	more() bool
	// start starts a node.
	start(ctx context.Context, s replica.Settings) (node, error)
	// rules returns what must hold of the engine's protocol.
	rules(v *invariants) rules
}

// node is a node of an engine.
type node interface {
	Bootstrap(ctx context.Context, group uint64, members []uint64) error
	Join(ctx context.Context, group uint64) error
	Leave(ctx context.Context, group uint64) error
	StartGroup(ctx context.Context, cfg replica.GroupConfig) (group, error)
	Status() synod.NodeStatus
	Close() error
}

// group is a group of a [node].
type group interface {
	synod.SessionLog
	TransferLeader(ctx context.Context, to uint64) error
	SetMembers(ctx context.Context, members []synod.Member) error
	Status() synod.GroupStatus
	Err() error
}
