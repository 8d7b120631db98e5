package grouptest

import (
	"context"
	"io"
	"iter"
	"sync"
	"testing"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// Engine starts nodes of one protocol.
type Engine interface {
	// Name is the engine's package, as it stands in its errors.
	Name() string

	// Start starts a node.
	Start(ctx context.Context, cfg replica.Settings) (Node, error)

	// Recover makes a node the only voter of a group, in its store; Inspect says what a
	// store has.
	Recover(ctx context.Context, cfg replica.RecoverConfig) error
	Inspect(ctx context.Context, store storage.Store) ([]replica.Remains, error)
}

// Node is a node of an engine.
type Node interface {
	Bootstrap(ctx context.Context, group uint64, members []uint64) error
	Join(ctx context.Context, group uint64) error
	Leave(ctx context.Context, group uint64) error
	Import(ctx context.Context, group uint64, members []synod.Member, r io.Reader) error
	StartGroup(ctx context.Context, cfg replica.GroupConfig) (Group, error)
	Status() synod.NodeStatus
	Events(ctx context.Context) iter.Seq[synod.Event]
	Close() error
}

// Group is a group of a [Node].
type Group interface {
	synod.SessionLog
	ID() uint64
	TransferLeader(ctx context.Context, to uint64) error
	SetMembers(ctx context.Context, members []synod.Member) error
	Export(ctx context.Context, w io.Writer) error
	Status() synod.GroupStatus
	Err() error
	Close() error
}

// atOnce is how many rules are tested at once. They wait for elections and timeouts
// most of the time, so that these are more than there are processors.
const atOnce = 6

// Run tests an engine, a subtest a rule.
func Run(t *testing.T, engine Engine) {
	for _, r := range alone {
		t.Run(r.name, func(t *testing.T) { r.test(t, engine) })
	}
	rules := make(chan rule)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for r := range rules {
				t.Run(r.name, func(t *testing.T) { r.test(t, engine) })
			}
		})
	}
	for _, list := range [][]rule{durabilityRules, corruptionRules, repairRules, groupRules, snapshotRules, transferRules, linkRules, identityRules, memberRules, recoveryRules,
		commandRules, sessionRules, leaderRules, readRules, leaseRules, faultRules, reportRules} {
		for _, r := range list {
			rules <- r
		}
	}
	close(rules)
	workers.Wait()
}

// rule is what must hold, in words, and the test of it.
type rule struct {
	name string
	test func(t *testing.T, engine Engine)
}
