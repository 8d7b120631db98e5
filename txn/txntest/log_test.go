package txntest_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/txntest"
)

// shelf keeps what directories would.
type shelf map[string]*memory.Store

func (s shelf) open(name string) *memory.Store {
	if old, ok := s[name]; ok {
		s[name] = old.Crash()
	} else {
		s[name] = memory.Open(memory.Config{})
	}
	return s[name]
}

func local(t *testing.T, s storage.Store) (txn.DecisionLog, func()) {
	log, err := txn.OpenLocalLog(t.Context(), s)
	require.NoError(t, err)
	return log, func() { s.Close() }
}

func TestLocalLog(t *testing.T) {
	s := shelf{}
	txntest.Run(t, func(t *testing.T, name string) (txn.DecisionLog, func()) { return local(t, s.open(name)) })
}

// plain is a store without a pipeline.
type plain struct{ storage.Store }

func TestLocalLogWithAPlainStore(t *testing.T) {
	s := shelf{}
	txntest.Run(t, func(t *testing.T, name string) (txn.DecisionLog, func()) { return local(t, plain{s.open(name)}) })
}

func TestLocalLogOnDisk(t *testing.T) {
	txntest.Run(t, func(t *testing.T, name string) (txn.DecisionLog, func()) {
		s, err := pebble.Open(pebble.Config{Dir: name})
		require.NoError(t, err)
		return local(t, s)
	})
}

// patient asks again until there is a leader.
type patient struct{ synod.Log }

func (p patient) Propose(ctx context.Context, command []byte) ([]byte, error) {
	for {
		result, err := p.Log.Propose(ctx, command)
		var elsewhere *synod.NotLeaderError
		if !errors.As(err, &elsewhere) {
			return result, err
		}
		if err := p.Barrier(ctx); err != nil {
			return nil, err
		}
	}
}

// replicated opens a group of one member.
func replicated(t *testing.T, s shelf, name string, start func(ctx context.Context, n *inproc.Node, s storage.Store) (synod.Log, func(), error)) (txn.DecisionLog, func()) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	n, err := network.Open(1)
	require.NoError(t, err)
	store := s.open(name)
	log, end, err := start(ctx, n, store)
	require.NoError(t, err)
	return txn.NewReplicatedLog(patient{log}), func() {
		end()
		store.Close()
		n.Close()
		cancel()
	}
}

func TestReplicatedLogByRaft(t *testing.T) {
	s := shelf{}
	txntest.Run(t, func(t *testing.T, name string) (txn.DecisionLog, func()) {
		_, again := s[name]
		return replicated(t, s, name, func(ctx context.Context, n *inproc.Node, store storage.Store) (synod.Log, func(), error) {
			node, err := raft.Start(ctx, raft.Config{Cluster: "decisions", Node: 1, Transport: n, Store: store, HeartbeatInterval: 5 * time.Millisecond})
			if err != nil {
				return nil, nil, err
			}
			if !again {
				if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
					return nil, nil, err
				}
			}
			g, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
			return g, func() { node.Close() }, err
		})
	})
}

func TestReplicatedLogByPaxos(t *testing.T) {
	s := shelf{}
	txntest.Run(t, func(t *testing.T, name string) (txn.DecisionLog, func()) {
		_, again := s[name]
		return replicated(t, s, name, func(ctx context.Context, n *inproc.Node, store storage.Store) (synod.Log, func(), error) {
			node, err := paxos.Start(ctx, paxos.Config{Cluster: "decisions", Node: 1, Transport: n, Store: store, HeartbeatInterval: 5 * time.Millisecond})
			if err != nil {
				return nil, nil, err
			}
			if !again {
				if err := node.Bootstrap(ctx, 1, []uint64{1}); err != nil {
					return nil, nil, err
				}
			}
			g, err := node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: new(txn.DecisionMachine)})
			return g, func() { node.Close() }, err
		})
	})
}

// A log that lives in one snapshot after the other.
type snapshots struct {
	machine *txn.DecisionMachine
	index   uint64
}

func (s *snapshots) Propose(_ context.Context, command []byte) ([]byte, error) {
	image, err := s.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	if _, err := image.WriteTo(&text); err != nil {
		return nil, err
	}
	s.machine = new(txn.DecisionMachine)
	if err := s.machine.Restore(strings.NewReader(text.String())); err != nil {
		return nil, err
	}
	s.index++
	return s.machine.Apply(s.index, command), nil
}

func (s *snapshots) Barrier(context.Context) error { return nil }

func TestADecisionMachineIsItsSnapshot(t *testing.T) {
	s := &snapshots{machine: new(txn.DecisionMachine)}
	log := txn.NewReplicatedLog(s)
	ctx := t.Context()
	for c := uint64(1); c < 50; c++ {
		d := txn.Decision{ID: txn.ID{Node: c % 3, Incarnation: 5, Counter: c}, Outcome: []txn.Outcome{txn.Committed, txn.Aborted}[c%2], Participants: []txn.Participant{{Node: c, Resource: "r"}}}
		winner, err := log.Decide(ctx, d)
		require.NoError(t, err)
		require.Equal(t, d, winner)
	}
	require.NoError(t, log.Forget(ctx, txn.Progress{Node: 1, Incarnation: 5, Upcoming: 40, Open: []uint64{7}}))
	list, err := log.Recover(ctx, txn.Progress{Node: 1, Incarnation: 5, Upcoming: 100})
	require.NoError(t, err)
	require.Len(t, list, 5, "7, 40, 43, 46, 49")
	for _, bad := range []string{"", "x", "d", "dxxxx", "r", "f123", "d" + strings.Repeat("\x00", 26)} {
		require.Len(t, s.machine.Apply(1, []byte(bad)), 1, bad)
	}
	require.Error(t, s.machine.Restore(strings.NewReader("nonsense")))
}

// A mistake in the registers breaks rules of the suite, which are played here by hand: a suite can't fail a test that
// is to pass.
func TestPlantedBugs(t *testing.T) {
	ctx := t.Context()
	id := func(c uint64) txn.ID { return txn.ID{Node: 3, Incarnation: 77, Counter: c} }
	decide := func(log txn.DecisionLog, c uint64, o txn.Outcome) (txn.Outcome, error) {
		d, err := log.Decide(ctx, txn.Decision{ID: id(c), Outcome: o})
		return d.Outcome, err
	}
	bugs := map[string]func(log txn.DecisionLog) bool{
		"2pc: a register is written twice": func(log txn.DecisionLog) bool {
			a, _ := decide(log, 1, txn.Committed)
			b, _ := decide(log, 1, txn.Aborted)
			return a == b
		},
		"2pc: a register that was collected is made again": func(log txn.DecisionLog) bool {
			_ = log.Forget(ctx, txn.Progress{Node: 3, Incarnation: 77, Upcoming: 5})
			_, err := decide(log, 1, txn.Aborted)
			return errors.Is(err, txn.ErrForgotten)
		},
		"2pc: an old progress takes the place of a newer one": func(log txn.DecisionLog) bool {
			_ = log.Forget(ctx, txn.Progress{Node: 3, Incarnation: 77, Upcoming: 5})
			_ = log.Forget(ctx, txn.Progress{Node: 3, Incarnation: 77, Upcoming: 3})
			_, err := decide(log, 4, txn.Aborted)
			return errors.Is(err, txn.ErrForgotten)
		},
	}
	for _, bug := range slices.Sorted(maps.Keys(bugs)) {
		open := func() txn.DecisionLog {
			log, _ := local(t, memory.Open(memory.Config{}))
			return log
		}
		require.True(t, bugs[bug](open()))
		remove := probe.Plant(bug)
		require.False(t, bugs[bug](open()), bug)
		remove()
	}
}

func TestALogWhoseStoreFailsSaysNothingMore(t *testing.T) {
	store := memory.Open(memory.Config{})
	log, _ := local(t, store)
	store.SetFull(true)
	d := txn.Decision{ID: txn.ID{Node: 1, Incarnation: 1, Counter: 1}, Outcome: txn.Committed}
	_, err := log.Decide(t.Context(), d)
	require.ErrorIs(t, err, storage.ErrNoSpace)
	store.SetFull(false)
	d.Outcome = txn.Aborted
	winner, err := log.Decide(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, txn.Aborted, winner.Outcome, "nothing of the first one was written")
	store.FailSync(1, errors.New("broken disk"))
	d.ID.Counter = 2
	_, err = log.Decide(t.Context(), d)
	require.ErrorIs(t, err, storage.ErrFailed)
	_, err = log.Decide(t.Context(), d)
	require.ErrorIs(t, err, storage.ErrFailed)
	_, err = txn.OpenLocalLog(t.Context(), store.Crash())
	require.NoError(t, err)
}

func TestACorruptLogIsNotOpened(t *testing.T) {
	store := memory.Open(memory.Config{})
	log, _ := local(t, store)
	_, err := log.Decide(t.Context(), txn.Decision{ID: txn.ID{Node: 1, Incarnation: 1, Counter: 1}, Outcome: txn.Committed})
	require.NoError(t, err)
	it, err := store.Scan([]byte{0}, nil)
	require.NoError(t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(t, err)
	values[0][len(values[0])-1] ^= 1
	b := new(storage.Batch)
	b.Set(keys[0], values[0])
	require.NoError(t, store.Commit(b))
	_, err = txn.OpenLocalLog(t.Context(), store)
	require.ErrorIs(t, err, storage.ErrCorrupt)
}
