package twophase

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// settled runs a world until nothing is to be done, without checks.
func (w *world) drain() {
	for len(w.queue) > 0 || len(w.net) > 0 {
		if len(w.queue) > 0 {
			w.act(0)
		} else {
			w.deliver(0)
		}
	}
}

func TestARestartWithASmallerLimitKeepsItsMarks(t *testing.T) {
	w := newWorld(2, false, false)
	w.open()
	n := w.nodes[2]
	step := func(m Message) {
		m.From, m.To, m.Resource = 1, 2, "a"
		n.core.Step(m)
		n.work()
		w.drain()
	}
	readOnly := ID{1, 7, 2000}
	n.resources["a"].votes[readOnly] = VoteReadOnly
	step(Message{Kind: KindPrepare, ID: readOnly, MayLeave: true, Branches: branchesOf(2, 1)})
	for i := range uint64(10) {
		step(Message{Kind: KindOutcome, ID: ID{1, 7, 2001 + i}, Outcome: OutcomeAborted})
	}
	n.core.Flush()
	n.work()
	w.drain()
	w.cfg.MaxFinished = 3
	n.crash()
	n.start()
	w.drain()
	h := n.core.horizons[origin{1, 7}]
	require.GreaterOrEqual(t, h.floor, uint64(2007), "what was forgotten to keep the limit is below the floor")
	require.EqualValues(t, 2000+readOnlyBlock, h.doubtful, "and that it may have voted read-only is still known")
}

// until works off what is to be done, loses some messages, and stops in time.
func (w *world) until(done func() bool, lose func(m Message) bool) {
	for !done() && (len(w.queue) > 0 || len(w.net) > 0) {
		switch {
		case len(w.queue) > 0:
			w.act(0)
		case lose(w.net[0]):
			w.net = w.net[1:]
		default:
			w.deliver(0)
		}
	}
}

// Pitfall 31: in doubt, a participant keeps what it has locked, asks the coordinator, then the others.
func TestInDoubtAsksCoordinatorThenOthers(t *testing.T) {
	for _, other := range []struct {
		name    string
		outcome Outcome
	}{{"that has committed", OutcomeCommitted}, {"that has not voted", OutcomeAborted}} {
		t.Run("another one "+other.name, func(t *testing.T) {
			w := newWorld(3, false, false)
			w.open()
			id := w.begin(1, branchesOf(2, 3)...)
			w.commit(id)
			if other.outcome == OutcomeCommitted {
				// The outcome is lost on its way to node 2.
				w.until(func() bool { return w.nodes[3].resources["a"].committed[id] > 0 },
					func(m Message) bool { return m.To == 2 && m.Kind == KindOutcome })
			} else {
				// Node 3 never hears of the transaction.
				w.until(func() bool { return w.sent[KindVote] > 0 }, func(m Message) bool { return m.To == 3 })
			}
			w.queue = nil
			w.net = nil
			w.gone[1] = true
			w.nodes[1].crash()
			for range w.cfg.InquireTicks {
				w.tick()
			}
			require.True(t, w.nodes[2].resources["a"].prepared[id], "it keeps its locks")
			w.drain()
			require.Zero(t, w.sent[KindAnswer])
			for range w.cfg.PeerTicks + w.cfg.InquireTicks {
				w.tick()
				w.drain()
			}
			require.False(t, w.nodes[2].resources["a"].prepared[id], "it is over, without the coordinator")
			require.Equal(t, other.outcome == OutcomeCommitted, w.nodes[2].resources["a"].committed[id] == 1)
			// Whatever comes late does not change that.
			v := latePrepareAt(w, 3, id)
			require.NotEqual(t, VoteYes, v)
		})
	}
}

func latePrepareAt(w *world, at uint64, id ID) Vote {
	n := w.nodes[at]
	w.net = nil
	n.core.Step(Message{Kind: KindPrepare, From: id.Node, To: at, ID: id, Resource: "a", Branches: branchesOf(2, 3), MayLeave: true})
	n.work()
	for len(w.queue) > 0 {
		w.act(0)
	}
	for _, m := range w.net {
		if m.Kind == KindVote && m.From == at {
			return m.Vote
		}
	}
	return 0
}

// With a log that all share, a coordinator that never comes back blocks nobody.
func TestACoordinatorThatIsGoneBlocksNobody(t *testing.T) {
	s := scenario{nodes: 4, shared: true, down: 1 << 30}
	for _, participants := range []int{2, 3} {
		first := 0
		for {
			w := newWorld(s.nodes, false, true)
			w.downFor = s.down
			w.open()
			w.finish()
			w.points = 0
			w.crashes = []crash{{first / 2, first%2 == 1}}
			id := w.begin(1, branchesOf(2, 3, 4)[:participants]...)
			before := w.nodes[1].run
			w.commit(id)
			for range 100 {
				w.settle()
				if w.nodes[1].core == nil {
					w.gone[1] = true
				}
				w.tick()
			}
			for i := uint64(2); i <= 4; i++ {
				if w.nodes[i].core == nil {
					w.gone[1] = false // it is another one that crashed
				}
			}
			if w.gone[1] {
				w.finish()
				require.Empty(t, w.broken, fmt.Sprint(first))
			}
			require.Equal(t, before, w.nodes[1].run)
			if first/2 > w.points {
				break
			}
			first++
		}
		require.Greater(t, first, 20)
	}
}

// Pitfall 32: a commit that comes again, or to whom the branch is over; a commit after an abort; a commit of what is
// forgotten.
func TestEveryLateMessageHasOneAnswer(t *testing.T) {
	type step struct {
		send Message
		want string
	}
	id, other := ID{1, 7, 1000}, ID{1, 7, 1001}
	prepare := Message{Kind: KindPrepare, ID: id, Branches: branchesOf(2, 3), MayLeave: true}
	commit := Message{Kind: KindOutcome, ID: id, Outcome: OutcomeCommitted}
	abort := Message{Kind: KindOutcome, ID: id, Outcome: OutcomeAborted}
	for name, steps := range map[string][]step{
		"a prepare that is repeated": {{prepare, "vote 1.1000 a yes"}, {prepare, "vote 1.1000 a yes"}},
		"a commit that is repeated":  {{prepare, "vote 1.1000 a yes"}, {commit, "ack 1.1000 a"}, {commit, "ack 1.1000 a"}},
		"a prepare after the commit": {{prepare, "vote 1.1000 a yes"}, {commit, "ack 1.1000 a"}, {prepare, ""}},
		"a prepare after the abort":  {{prepare, "vote 1.1000 a yes"}, {abort, ""}, {prepare, "vote 1.1000 a no (it was aborted here)"}},
		"an abort before the prepare": {{abort, ""}, {prepare, "vote 1.1000 a no (it was aborted here)"},
			{commit, "ack 1.1000 a damage=aborted"}},
		"an abort that is repeated":             {{prepare, "vote 1.1000 a yes"}, {abort, ""}, {abort, ""}},
		"an abort after the commit":             {{prepare, "vote 1.1000 a yes"}, {commit, "ack 1.1000 a"}, {abort, ""}},
		"a commit of what it knows nothing of":  {{commit, "ack 1.1000 a damage=forgotten"}},
		"a commit of what is over for everyone": {{Message{Kind: KindOutcome, ID: other, Outcome: OutcomeAborted, Floor: 1001}, ""}, {commit, "ack 1.1000 a"}},
		"a prepare of what is over for everyone": {{Message{Kind: KindOutcome, ID: other, Outcome: OutcomeAborted, Floor: 1001}, ""},
			{prepare, "vote 1.1000 a no (transactions of node 1 below 1001 are over)"}},
		"a prepare for a resource that is not here": {{Message{Kind: KindPrepare, ID: id, Resource: "x"}, `vote 1.1000 x no (there is no resource "x")`}},
		"a commit alone, repeated": {{Message{Kind: KindCommitOne, ID: id, Branches: branchesOf(2)}, "result 1.1000 a committed"},
			{Message{Kind: KindCommitOne, ID: id, Branches: branchesOf(2)}, "result 1.1000 a committed"}},
		"a commit alone that comes after it was given up": {{Message{Kind: KindCommitOne, ID: id, Only: true}, "result 1.1000 a aborted (it had not begun in time)"},
			{Message{Kind: KindCommitOne, ID: id}, "result 1.1000 a aborted (it was aborted here)"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				w := newWorld(3, false, false)
				w.open()
				n := w.nodes[2]
				for _, s := range steps {
					m := s.send
					m.From, m.To = 1, 2
					if m.Resource == "" {
						m.Resource = "a"
					}
					n.core.Step(m)
					n.work()
					for range 3 {
						for len(w.queue) > 0 {
							w.act(0)
						}
						n.core.Flush()
						n.work()
					}
					got := ""
					for _, m := range w.net {
						if m.To == 1 && m.Kind != KindInquire {
							got = m.String()
						}
					}
					require.Equal(t, s.want, got)
					w.net = nil
					if restart && m.Floor == 0 { // the floor itself is not worth a write: it comes again
						n.crash()
						n.start()
						w.queue, w.net = nil, nil
					}
				}
			}
		})
	}
}

// Pitfall 40.
func TestACoordinatorWhoseStoreIsAnOldCopyStops(t *testing.T) {
	w := newWorld(2, false, false)
	w.open()
	n := w.nodes[1]
	n.core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{1, 7, 123456}, Resource: "a"})
	require.ErrorIs(t, n.core.Err(), ErrRolledBack)
	require.Empty(t, n.core.Ready().Messages, "and says nothing any more")
	require.Equal(t, Lost, lostIncarnation(), "what was begun in another incarnation, nobody presumes anything of")
}

// Pitfall 42.
func TestABranchThatFailsDoesNotBlockOthers(t *testing.T) {
	w := newWorld(3, false, false)
	w.open()
	stuck := w.begin(1, branchesOf(2, 3)...)
	w.nodes[2].resources["a"].fails[CallCommit] = 1 << 30
	w.commit(stuck)
	w.drain()
	require.Equal(t, OutcomeCommitted, w.results[stuck].Outcome, "it is decided")
	w.nodes[2].crash()
	w.nodes[2].start() // one that can't be resolved does not block a start
	w.drain()
	other := w.begin(1, branchesOf(2, 3)...)
	w.nodes[2].resources["a"].votes[other] = VoteReadOnly
	w.commit(other)
	for range 5 {
		w.drain()
		w.tick()
	}
	require.Equal(t, OutcomeCommitted, w.results[other].Outcome)
	w.nodes[2].resources["a"].fails[CallCommit] = 0
	w.finish()
	require.Empty(t, w.broken)
}

func TestAnOperatorDecides(t *testing.T) {
	for _, right := range []bool{true, false} {
		for _, real := range []Outcome{OutcomeCommitted, OutcomeAborted} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprint(real, " right=", right, " restart=", restart), func(t *testing.T) {
					w := newWorld(3, false, false)
					w.open()
					id := w.begin(1, branchesOf(2, 3)...)
					if real == OutcomeAborted {
						w.nodes[3].resources["a"].votes[id] = VoteNo
					}
					w.commit(id)
					// Node 2 votes, and then hears nothing.
					for w.results[id].Outcome == 0 {
						if len(w.queue) > 0 {
							w.act(0)
						} else {
							w.deliver(0)
						}
					}
					for range 10 {
						if len(w.queue) > 0 {
							w.act(0)
						}
					}
					w.net, w.queue = nil, nil
					forced := real
					if !right {
						forced = OutcomeCommitted + OutcomeAborted - real
					}
					n := w.nodes[2]
					require.True(t, n.resources["a"].prepared[id])
					require.NoError(t, n.core.Force(id, "a", forced))
					require.ErrorIs(t, n.core.Force(id, "a", forced), ErrNotInDoubt, "once")
					n.work()
					for len(w.queue) > 0 {
						w.act(0)
					}
					require.Equal(t, forced == OutcomeCommitted, n.resources["a"].committed[id] == 1)
					if restart {
						n.crash()
						n.start()
					}
					// The test's resource does not like to be told the contrary; it is not.
					for range 60 {
						w.drain()
						w.tick()
					}
					require.Empty(t, n.core.entries)
					require.Equal(t, real, w.results[id].Outcome)
					want := 0
					if !right {
						want = 1
					}
					require.Len(t, n.core.Damages(), want)
					if real == OutcomeCommitted {
						require.Len(t, w.nodes[1].core.Damages(), want, "the coordinator is told")
					}
					// It is remembered, until somebody has dealt with it.
					n.crash()
					n.start()
					require.Len(t, n.core.Damages(), want)
					require.Equal(t, want == 1, n.core.ClearDamage(id))
					n.work()
					w.drain()
					n.crash()
					n.start()
					require.Empty(t, n.core.Damages())
				})
			}
		}
	}
}

func TestAResourceThatDecidedByItselfIsDamage(t *testing.T) {
	w := newWorld(3, false, false)
	w.open()
	id := w.begin(1, branchesOf(2, 3)...)
	w.nodes[2].resources["a"].heuristic[id] = OutcomeAborted
	w.commit(id)
	for range 10 {
		w.drain()
		w.tick()
	}
	want := []Report{{ID: id, Node: 2, Resource: "a", Damage: Aborted}}
	require.Equal(t, want, w.nodes[2].core.Damages())
	require.Equal(t, want, w.nodes[1].core.Damages())
	require.Equal(t, OutcomeCommitted, w.results[id].Outcome)
}

// The window of a last agent: it cannot tell what it did, and only somebody who looks can.
func TestALastAgentThatCannotTell(t *testing.T) {
	w := newWorld(3, true, false)
	w.open()
	b := branchesOf(2, 3)
	b[1].LastAgent = true
	id := w.begin(1, b...)
	w.nodes[3].resources["a"].cannot = true
	w.commit(id)
	for w.nodes[3].resources["a"].committed[id] == 0 {
		if len(w.queue) > 0 {
			w.act(0)
		} else {
			w.deliver(0)
		}
	}
	w.queue, w.net = nil, nil
	w.nodes[3].crash()
	for range 40 {
		w.drain()
		w.tick()
	}
	require.Equal(t, OutcomeUnknown, w.results[id].Outcome)
	require.Contains(t, w.results, id)
	require.True(t, w.nodes[2].resources["a"].prepared[id], "the others stay in doubt")
	require.NoError(t, w.nodes[1].core.Settle(id, OutcomeCommitted))
	w.nodes[1].work()
	w.drain()
	require.Equal(t, 1, w.nodes[2].resources["a"].committed[id])
	require.ErrorIs(t, w.nodes[1].core.Settle(id, OutcomeCommitted), ErrNotInDoubt)
	w.nodes[3].resources["a"].cannot = false
	for range 20 {
		w.drain()
		w.tick()
	}
	require.Empty(t, w.broken)
}

func TestLimits(t *testing.T) {
	w := newWorld(2, false, false)
	w.cfg.MaxTransactions, w.cfg.MaxBranches = 2, 1
	w.open()
	c := w.nodes[1].core
	a, b := w.begin(1, branchesOf(2)...), w.begin(1, branchesOf(2)...)
	require.ErrorIs(t, c.Open(ID{1, 7, 1 << 20}), ErrOverloaded)
	require.ErrorIs(t, c.Open(a), ErrOverloaded)
	for _, branches := range [][]Branch{
		nil, make([]Branch, 11), branchesOf(2, 2), {{Node: 2}}, {{Resource: "a"}},
		{{Node: 1, Resource: "a", LastAgent: true}, {Node: 2, Resource: "a", LastAgent: true}},
	} {
		require.ErrorIs(t, c.Commit(a, branches), ErrInvalid)
	}
	require.ErrorIs(t, c.Commit(ID{1, 7, 1 << 20}, branchesOf(2)), ErrInvalid)
	w.asked[b] = []Branch{{Node: 2, Resource: "a"}, {Node: 2, Resource: "b"}}
	w.commit(b)
	w.drain()
	require.Equal(t, OutcomeAborted, w.results[b].Outcome, "one of the two is one too many")
	w.commit(a)
	w.finish()
	require.Equal(t, OutcomeCommitted, w.results[a].Outcome)
	require.Empty(t, w.broken)
}

// What is remembered of commits in one phase is limited; the oldest transaction, which holds the limit up, goes on.
func TestALimitOfOnePhaseDoesNotStopTheOldest(t *testing.T) {
	w := newWorld(2, true, false)
	w.cfg.MaxFinished = 2
	w.open()
	oldest := w.begin(1, branchesOf(2)...)
	for range 6 {
		id := w.begin(1, branchesOf(2)...)
		w.commit(id)
		w.drain()
	}
	w.commit(oldest)
	w.finish()
	require.Empty(t, w.broken)
	require.Len(t, w.results, 7)
	require.Equal(t, OutcomeCommitted, w.results[oldest].Outcome)
}

// Pitfall 34: what was done for a transaction and never prepared is given up, whoever refuses it, and why.
func TestWhatIsRefusedIsAborted(t *testing.T) {
	id := ID{1, 7, 1000}
	prepare := Message{Kind: KindPrepare, ID: id, Branches: branchesOf(2, 3), MayLeave: true}
	for name, tc := range map[string]struct {
		before  []Message
		limit   int
		message Message
	}{
		"too many branches":             {limit: 1, before: []Message{{Kind: KindPrepare, ID: ID{1, 7, 1001}, Branches: branchesOf(2, 3)}}, message: prepare},
		"too many branches, alone":      {limit: 1, before: []Message{{Kind: KindPrepare, ID: ID{1, 7, 1001}, Branches: branchesOf(2, 3)}}, message: Message{Kind: KindCommitOne, ID: id}},
		"given up by its coordinator":   {message: Message{Kind: KindCommitOne, ID: id, Only: true}},
		"aborted by its coordinator":    {message: Message{Kind: KindOutcome, ID: id, Outcome: OutcomeAborted}},
		"given up for another in doubt": {message: Message{Kind: KindInquire, ID: id, Peer: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3, false, false)
			if tc.limit > 0 {
				w.cfg.MaxBranches = tc.limit
			}
			w.loud = true
			w.open()
			n := w.nodes[2]
			for _, m := range append(tc.before, tc.message) {
				m.From, m.To, m.Resource = 1, 2, "a"
				if m.Kind == KindInquire {
					m.From = 3
				}
				n.core.Step(m)
				n.work()
				for len(w.queue) > 0 {
					w.act(0)
				}
			}
			aborted := 0
			for _, line := range w.trace {
				if strings.HasSuffix(line, "node 2: abort 1.1000 a") {
					aborted++
				}
			}
			require.Equal(t, 1, aborted, strings.Join(w.trace, "\n"))
			// And it stays so.
			for range 3 {
				n.core.Flush()
				n.work()
				for len(w.queue) > 0 {
					w.act(0)
				}
			}
			n.crash()
			n.start()
			v := latePrepareAt(w, 2, id)
			require.Equal(t, VoteNo, v)
		})
	}
}

// Pitfall 39.
func TestALatePrepareIsRefused(t *testing.T) {
	require.Equal(t, VoteNo, latePrepare(false), "by its tombstone")
	require.Equal(t, VoteNo, latePrepare(true), "after that was collected")
}

// Pitfall 48.
func TestReadOnlyParticipantsStayWhileLocksAreTaken(t *testing.T) { require.False(t, leavesEarly()) }
