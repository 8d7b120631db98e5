package txntest

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/txn"
)

// Opener opens the decision log that is kept under a name, and fails t if it can't. It is called again with the same name
// after close was: the log must hold what was decided then. Each rule has a name of its own.
type Opener func(t *testing.T, name string) (log txn.DecisionLog, close func())

// patience is how long a single call may take.
const patience = 30 * time.Second

type env struct {
	*testing.T
	ctx  context.Context
	open Opener
	name string
}

// Run tests the logs that open returns. The subtests run one after the other.
func Run(t *testing.T, open Opener) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			timer := executor.Real().AfterFunc(patience, cancel)
			defer timer.Stop()
			defer cancel()
			r.test(&env{t, ctx, open, t.TempDir()})
		})
	}
}

func (e *env) start() txn.DecisionLog {
	e.Helper()
	log, end := e.open(e.T, e.name)
	e.Cleanup(end)
	return log
}

func id(counter uint64) txn.ID { return txn.ID{Node: 3, Incarnation: 77, Counter: counter} }

func decision(counter uint64, o txn.Outcome) txn.Decision {
	return txn.Decision{ID: id(counter), Outcome: o, Participants: []txn.Participant{{Node: 1, Resource: "orders"}, {Node: 2, Resource: "stock"}}}
}

func progress(upcoming uint64, open ...uint64) txn.Progress {
	return txn.Progress{Node: 3, Incarnation: 77, Upcoming: upcoming, Open: open}
}

func (e *env) decide(log txn.DecisionLog, d txn.Decision) txn.Decision {
	e.Helper()
	winner, err := log.Decide(e.ctx, d)
	require.NoError(e, err)
	return winner
}

func (e *env) forgotten(log txn.DecisionLog, counter uint64) {
	e.Helper()
	for _, o := range []txn.Outcome{txn.Committed, txn.Aborted} {
		_, err := log.Decide(e.ctx, decision(counter, o))
		require.ErrorIs(e, err, txn.ErrForgotten)
	}
}

func (e *env) recover(log txn.DecisionLog, p txn.Progress) []txn.Decision {
	e.Helper()
	list, err := log.Recover(e.ctx, p)
	require.NoError(e, err)
	return list
}

var rules = []struct {
	name string
	test func(e *env)
}{
	{"the first proposal wins, and stays: a timeout's abort and a commit have one winner, told to both", func(e *env) {
		log := e.start()
		require.Equal(e, decision(1, txn.Committed), e.decide(log, decision(1, txn.Committed)))
		require.Equal(e, decision(1, txn.Committed), e.decide(log, decision(1, txn.Aborted)))
		require.Equal(e, decision(2, txn.Aborted), e.decide(log, decision(2, txn.Aborted)))
		require.Equal(e, decision(2, txn.Aborted), e.decide(log, decision(2, txn.Committed)))
		require.Equal(e, decision(2, txn.Aborted), e.decide(log, decision(2, txn.Aborted)))
	}},
	{"a decision belongs to one transaction of one incarnation of one node", func(e *env) {
		log := e.start()
		e.decide(log, decision(1, txn.Committed))
		for _, other := range []txn.ID{{Node: 3, Incarnation: 77, Counter: 2}, {Node: 3, Incarnation: 78, Counter: 1}, {Node: 4, Incarnation: 77, Counter: 1}} {
			d := txn.Decision{ID: other, Outcome: txn.Aborted}
			require.Equal(e, d, e.decide(log, d))
		}
	}},
	{"of proposals that are made at once one wins, and all are told the same", func(e *env) {
		log := e.start()
		ex := executor.Real()
		for round := uint64(1); round <= 10; round++ {
			const proposers = 8
			winners, errs := make([]txn.Decision, proposers), make([]error, proposers)
			var done []*executor.Event
			for i := range proposers {
				event := executor.NewEvent()
				done = append(done, event)
				ex.Go(func() {
					defer event.Set()
					o := txn.Committed
					if i%2 == 1 {
						o = txn.Aborted
					}
					d := decision(round, o)
					d.Participants = d.Participants[:i%3]
					winners[i], errs[i] = log.Decide(e.ctx, d)
				})
			}
			for i, event := range done {
				require.NoError(e, ex.Wait(e.ctx, event))
				require.NoError(e, errs[i])
				require.Equal(e, winners[0].Outcome, winners[i].Outcome)
				require.Len(e, winners[i].Participants, len(winners[0].Participants))
			}
		}
	}},
	{"the log keeps nothing of what it is given, and shares nothing of what it returns", func(e *env) {
		log := e.start()
		d := decision(1, txn.Committed)
		winner := e.decide(log, d)
		d.Participants[0].Node, winner.Participants[1].Resource = 99, "elsewhere"
		require.Equal(e, decision(1, txn.Committed), e.decide(log, decision(1, txn.Aborted)))
	}},
	{"what means nothing is refused", func(e *env) {
		log := e.start()
		for _, d := range []txn.Decision{
			{ID: id(1)}, {ID: id(1), Outcome: 9}, {ID: id(1), Outcome: txn.Committed, Participants: make([]txn.Participant, 1025)},
			{ID: id(1), Outcome: txn.Committed, Participants: []txn.Participant{{Node: 1, Resource: string(make([]byte, 256))}}},
		} {
			_, err := log.Decide(e.ctx, d)
			require.ErrorIs(e, err, txn.ErrInvalid)
		}
		require.ErrorIs(e, log.Forget(e.ctx, progress(9, 3, 2)), txn.ErrInvalid)
		_, err := log.Recover(e.ctx, progress(9, 3, 2))
		require.ErrorIs(e, err, txn.ErrInvalid)
	}},
	{"decisions survive", func(e *env) {
		log, end := e.open(e.T, e.name)
		e.decide(log, decision(1, txn.Committed))
		e.decide(log, decision(2, txn.Aborted))
		end()
		log = e.start()
		require.Equal(e, decision(1, txn.Committed), e.decide(log, decision(1, txn.Aborted)))
		require.Equal(e, decision(2, txn.Aborted), e.decide(log, decision(2, txn.Committed)))
	}},
	{"a transaction that is over has no register any more: no late proposal makes one", func(e *env) {
		log, end := e.open(e.T, e.name)
		for c := uint64(1); c <= 6; c++ {
			if c != 4 {
				e.decide(log, decision(c, []txn.Outcome{txn.Aborted, txn.Committed}[c%2]))
			}
		}
		require.NoError(e, log.Forget(e.ctx, progress(6, 3, 5)))
		for range 2 {
			for _, c := range []uint64{1, 2, 4} { // 4 never had one: it was aborted, without a word
				e.forgotten(log, c)
			}
			for _, c := range []uint64{3, 5} {
				require.Equal(e, txn.Committed, e.decide(log, decision(c, txn.Aborted)).Outcome)
			}
			require.Equal(e, txn.Aborted, e.decide(log, decision(6, txn.Committed)).Outcome)
			require.Equal(e, txn.Committed, e.decide(log, decision(7, txn.Committed)).Outcome)
			end()
			log, end = e.open(e.T, e.name)
		}
		end()
	}},
	{"an open transaction may be decided, however old it is", func(e *env) {
		log := e.start()
		require.NoError(e, log.Forget(e.ctx, progress(100, 4)))
		require.Equal(e, txn.Committed, e.decide(log, decision(4, txn.Committed)).Outcome)
	}},
	{"what is over stays so, whatever an older progress says", func(e *env) {
		log := e.start()
		require.NoError(e, log.Forget(e.ctx, progress(10, 8)))
		require.NoError(e, log.Forget(e.ctx, progress(6, 2, 4)))
		require.NoError(e, log.Forget(e.ctx, progress(12, 2, 8, 11)))
		for _, c := range []uint64{1, 2, 4, 9, 10} {
			e.forgotten(log, c)
		}
		for _, c := range []uint64{8, 11, 12} {
			require.Equal(e, txn.Committed, e.decide(log, decision(c, txn.Committed)).Outcome)
		}
	}},
	{"a coordinator that starts learns what it has decided, and nothing else of its earlier runs is decided any more", func(e *env) {
		log := e.start()
		require.Empty(e, e.recover(log, progress(1)))
		e.decide(log, decision(1, txn.Committed))
		e.decide(log, decision(2, txn.Aborted))
		other := txn.Decision{ID: txn.ID{Node: 4, Incarnation: 77, Counter: 1}, Outcome: txn.Committed}
		e.decide(log, other)
		want := []txn.Decision{decision(1, txn.Committed), decision(2, txn.Aborted)}
		require.Equal(e, want, e.recover(log, progress(100, 50)))
		require.Equal(e, txn.Committed, e.decide(log, decision(1, txn.Aborted)).Outcome, "it stays")
		e.forgotten(log, 3) // its proposal was on its way for long
		e.forgotten(log, 99)
		require.Equal(e, txn.Committed, e.decide(log, decision(50, txn.Committed)).Outcome, "it is still to be decided")
		require.Equal(e, txn.Committed, e.decide(log, decision(100, txn.Committed)).Outcome, "it is one of the new run")
		require.Equal(e, txn.Committed, e.decide(log, other).Outcome)
		require.Equal(e, txn.Aborted, e.decide(log, txn.Decision{ID: txn.ID{Node: 4, Incarnation: 77, Counter: 2}, Outcome: txn.Aborted}).Outcome, "another coordinator is not touched")
	}},
	{"a coordinator with a new store learns what its node has decided before, and ends the rest", func(e *env) {
		log := e.start()
		e.recover(log, progress(1))
		e.decide(log, decision(5, txn.Committed))
		fresh := txn.Progress{Node: 3, Incarnation: 99, Upcoming: 1}
		require.Equal(e, []txn.Decision{decision(5, txn.Committed)}, e.recover(log, fresh))
		e.forgotten(log, 6)
		e.forgotten(log, 1<<60)
		require.NoError(e, log.Forget(e.ctx, progress(math.MaxUint64)))
		e.forgotten(log, 5)
	}},
	{"a coordinator whose store is an old copy is told so", func(e *env) {
		log := e.start()
		e.recover(log, progress(1000))
		for _, upcoming := range []uint64{1, 999, 1000} {
			_, err := log.Recover(e.ctx, progress(upcoming))
			require.ErrorIs(e, err, txn.ErrRolledBack)
		}
		require.NoError(e, log.Forget(e.ctx, progress(2000)))
		_, err := log.Recover(e.ctx, progress(2000))
		require.ErrorIs(e, err, txn.ErrRolledBack)
		e.recover(log, progress(2001))
	}},
	{"a progress survives with many exceptions", func(e *env) {
		log, end := e.open(e.T, e.name)
		var open []uint64
		for c := uint64(2); c < 2000; c += 2 {
			open = append(open, c)
		}
		require.NoError(e, log.Forget(e.ctx, progress(2000, open...)))
		end()
		log = e.start()
		e.forgotten(log, 1001)
		require.Equal(e, txn.Aborted, e.decide(log, decision(1000, txn.Aborted)).Outcome)
		require.True(e, slices.IsSorted(open))
	}},
	{"a call whose context is done returns", func(e *env) {
		log := e.start()
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		if _, err := log.Decide(ctx, decision(1, txn.Committed)); err == nil {
			return // it was quicker
		}
		winner := e.decide(log, decision(1, txn.Aborted))
		require.Equal(e, winner, e.decide(log, decision(1, txn.Committed)), "it is one of the two")
	}},
}
