package twophase_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

func TestARestartWithASmallerLimitKeepsItsMarks(t *testing.T) {
	w := newWorld(2, false, false)
	w.Open()
	n := w.Nodes[2]
	step := func(m Message) {
		m.From, m.To, m.Resource = 1, 2, "a"
		n.Core.Step(m)
		n.Work()
		w.Settle()
	}
	readOnly := ID{1, 7, 2000}
	n.Resources["a"].Votes[readOnly] = VoteReadOnly
	step(Message{Kind: KindPrepare, ID: readOnly, MayLeave: true, Branches: branchesOf(2, 1)})
	for i := range uint64(10) {
		step(Message{Kind: KindOutcome, ID: ID{1, 7, 2001 + i}, Outcome: OutcomeAborted})
	}
	n.Core.Flush()
	n.Work()
	w.Settle()
	w.cfg.MaxFinished = 3
	n.Crash()
	n.Start()
	w.Settle()
	floor, doubtful := n.Core.Marks(readOnly)
	require.GreaterOrEqual(t, floor, uint64(2007), "what was forgotten to keep the limit is below the floor")
	require.EqualValues(t, 2000+ReadOnlyBlock, doubtful, "and that it may have voted read-only is still known")
}

// until works off what is to be done, loses some messages, and stops in time.
func (w *world) until(done func() bool, lose func(m Message) bool) {
	for !done() && (len(w.Queue) > 0 || len(w.Net) > 0) {
		switch {
		case len(w.Queue) > 0:
			w.Act(0)
		case lose(w.Net[0]):
			w.Net = w.Net[1:]
		default:
			w.Deliver(0)
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
			w.Open()
			id := w.Begin(1, branchesOf(2, 3)...)
			w.Commit(id)
			if other.outcome == OutcomeCommitted {
				// The outcome is lost on its way to node 2.
				w.until(func() bool { return w.Nodes[3].Resources["a"].Committed[id] > 0 },
					func(m Message) bool { return m.To == 2 && m.Kind == KindOutcome })
			} else {
				// Node 3 never hears of the transaction.
				w.until(func() bool { return w.Sent[KindVote] > 0 }, func(m Message) bool { return m.To == 3 })
			}
			w.Queue = nil
			w.Net = nil
			w.Gone[1] = true
			w.Nodes[1].Crash()
			for range w.cfg.InquireTicks {
				w.Tick()
			}
			require.True(t, w.Nodes[2].Resources["a"].Prepared[id], "it keeps its locks")
			w.Settle()
			require.Zero(t, w.Sent[KindAnswer])
			for range w.cfg.PeerTicks + w.cfg.InquireTicks {
				w.Tick()
				w.Settle()
			}
			require.False(t, w.Nodes[2].Resources["a"].Prepared[id], "it is over, without the coordinator")
			require.Equal(t, other.outcome == OutcomeCommitted, w.Nodes[2].Resources["a"].Committed[id] == 1)
			// Whatever comes late does not change that.
			v := latePrepareAt(w, 3, id)
			require.NotEqual(t, VoteYes, v)
		})
	}
}

func latePrepareAt(w *world, at uint64, id ID) Vote {
	n := w.Nodes[at]
	w.Net = nil
	n.Core.Step(Message{Kind: KindPrepare, From: id.Node, To: at, ID: id, Resource: "a", Branches: branchesOf(2, 3), MayLeave: true})
	n.Work()
	for len(w.Queue) > 0 {
		w.Act(0)
	}
	for _, m := range w.Net {
		if m.Kind == KindVote && m.From == at {
			return m.Vote
		}
	}
	return 0
}

// With a log that all share, a coordinator that never comes back blocks nobody.
func TestACoordinatorThatIsGoneBlocksNobody(t *testing.T) {
	for _, participants := range []int{2, 3} {
		first := 0
		for {
			w := newWorld(4, false, true)
			w.DownFor = 1 << 30
			w.Open()
			w.Finish()
			w.Points = 0
			w.Crashes = []commitmenttest.Crash{{At: first / 2, After: first%2 == 1}}
			id := w.Begin(1, branchesOf(2, 3, 4)[:participants]...)
			before := w.Nodes[1].Run
			w.Commit(id)
			for range 100 {
				w.Settle()
				if w.Nodes[1].Core == nil {
					w.Gone[1] = true
				}
				w.Tick()
			}
			for i := uint64(2); i <= 4; i++ {
				if w.Nodes[i].Core == nil {
					w.Gone[1] = false // it is another one that crashed
				}
			}
			if w.Gone[1] {
				w.Finish()
				require.Empty(t, w.Broken, fmt.Sprint(first))
			}
			require.Equal(t, before, w.Nodes[1].Run)
			if first/2 > w.Points {
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
				w.Open()
				n := w.Nodes[2]
				for _, s := range steps {
					m := s.send
					m.From, m.To = 1, 2
					if m.Resource == "" {
						m.Resource = "a"
					}
					n.Core.Step(m)
					n.Work()
					for range 3 {
						for len(w.Queue) > 0 {
							w.Act(0)
						}
						n.Core.Flush()
						n.Work()
					}
					got := ""
					for _, m := range w.Net {
						if m.To == 1 && m.Kind != KindInquire {
							got = m.String()
						}
					}
					require.Equal(t, s.want, got)
					w.Net = nil
					if restart && m.Floor == 0 { // the floor itself is not worth a write: it comes again
						n.Crash()
						n.Start()
						w.Queue, w.Net = nil, nil
					}
				}
			}
		})
	}
}

// Pitfall 40.
func TestACoordinatorWhoseStoreIsAnOldCopyStops(t *testing.T) {
	w := newWorld(2, false, false)
	w.Open()
	n := w.Nodes[1]
	n.Core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{1, 7, 123456}, Resource: "a"})
	require.ErrorIs(t, n.Core.Err(), ErrRolledBack)
	require.Empty(t, n.Core.Ready().Messages, "and says nothing any more")
	require.Equal(t, Lost, lostIncarnation(), "what was begun in another incarnation, nobody presumes anything of")
}

// Pitfall 42.
func TestABranchThatFailsDoesNotBlockOthers(t *testing.T) {
	w := newWorld(3, false, false)
	w.Open()
	stuck := w.Begin(1, branchesOf(2, 3)...)
	w.Nodes[2].Resources["a"].Fails[CallCommit] = 1 << 30
	w.Commit(stuck)
	w.Settle()
	require.Equal(t, OutcomeCommitted, w.Results[stuck].Outcome, "it is decided")
	w.Nodes[2].Crash()
	w.Nodes[2].Start() // one that can't be resolved does not block a start
	w.Settle()
	other := w.Begin(1, branchesOf(2, 3)...)
	w.Nodes[2].Resources["a"].Votes[other] = VoteReadOnly
	w.Commit(other)
	for range 5 {
		w.Settle()
		w.Tick()
	}
	require.Equal(t, OutcomeCommitted, w.Results[other].Outcome)
	w.Nodes[2].Resources["a"].Fails[CallCommit] = 0
	w.Finish()
	require.Empty(t, w.Broken)
}

func TestAnOperatorDecides(t *testing.T) {
	for _, right := range []bool{true, false} {
		for _, real := range []Outcome{OutcomeCommitted, OutcomeAborted} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprint(real, " right=", right, " restart=", restart), func(t *testing.T) {
					w := newWorld(3, false, false)
					w.Open()
					id := w.Begin(1, branchesOf(2, 3)...)
					if real == OutcomeAborted {
						w.Nodes[3].Resources["a"].Votes[id] = VoteNo
					}
					w.Commit(id)
					// Node 2 votes, and then hears nothing.
					for w.Results[id].Outcome == 0 {
						if len(w.Queue) > 0 {
							w.Act(0)
						} else {
							w.Deliver(0)
						}
					}
					for range 10 {
						if len(w.Queue) > 0 {
							w.Act(0)
						}
					}
					w.Net, w.Queue = nil, nil
					forced := real
					if !right {
						forced = OutcomeCommitted + OutcomeAborted - real
					}
					n := w.Nodes[2]
					require.True(t, n.Resources["a"].Prepared[id])
					require.NoError(t, n.Core.Force(id, "a", forced))
					require.ErrorIs(t, n.Core.Force(id, "a", forced), ErrNotInDoubt, "once")
					n.Work()
					for len(w.Queue) > 0 {
						w.Act(0)
					}
					require.Equal(t, forced == OutcomeCommitted, n.Resources["a"].Committed[id] == 1)
					if restart {
						n.Crash()
						n.Start()
					}
					// The test's resource does not like to be told the contrary; it is not.
					for range 60 {
						w.Settle()
						w.Tick()
					}
					_, branches := n.Core.Pending()
					require.Zero(t, branches)
					require.Equal(t, real, w.Results[id].Outcome)
					want := 0
					if !right {
						want = 1
					}
					require.Len(t, n.Core.Damages(), want)
					if real == OutcomeCommitted {
						require.Len(t, w.Nodes[1].Core.Damages(), want, "the coordinator is told")
					}
					// It is remembered, until somebody has dealt with it.
					n.Crash()
					n.Start()
					require.Len(t, n.Core.Damages(), want)
					require.Equal(t, want == 1, n.Core.ClearDamage(id))
					n.Work()
					w.Settle()
					n.Crash()
					n.Start()
					require.Empty(t, n.Core.Damages())
				})
			}
		}
	}
}

func TestAResourceThatDecidedByItselfIsDamage(t *testing.T) {
	w := newWorld(3, false, false)
	w.Open()
	id := w.Begin(1, branchesOf(2, 3)...)
	w.Nodes[2].Resources["a"].Heuristic[id] = OutcomeAborted
	w.Commit(id)
	for range 10 {
		w.Settle()
		w.Tick()
	}
	want := []Report{{ID: id, Node: 2, Resource: "a", Damage: Aborted}}
	require.Equal(t, want, w.Nodes[2].Core.Damages())
	require.Equal(t, want, w.Nodes[1].Core.Damages())
	require.Equal(t, OutcomeCommitted, w.Results[id].Outcome)
}

// The window of a last agent: it cannot tell what it did, and only somebody who looks can.
func TestALastAgentThatCannotTell(t *testing.T) {
	w := newWorld(3, true, false)
	w.Open()
	b := branchesOf(2, 3)
	b[1].LastAgent = true
	id := w.Begin(1, b...)
	w.Nodes[3].Resources["a"].Cannot = true
	w.Commit(id)
	for w.Nodes[3].Resources["a"].Committed[id] == 0 {
		if len(w.Queue) > 0 {
			w.Act(0)
		} else {
			w.Deliver(0)
		}
	}
	w.Queue, w.Net = nil, nil
	w.Nodes[3].Crash()
	for range 40 {
		w.Settle()
		w.Tick()
	}
	require.Equal(t, OutcomeUnknown, w.Results[id].Outcome)
	require.Contains(t, w.Results, id)
	require.True(t, w.Nodes[2].Resources["a"].Prepared[id], "the others stay in doubt")
	require.NoError(t, w.Nodes[1].Core.Settle(id, OutcomeCommitted))
	w.Nodes[1].Work()
	w.Settle()
	require.Equal(t, 1, w.Nodes[2].Resources["a"].Committed[id])
	require.ErrorIs(t, w.Nodes[1].Core.Settle(id, OutcomeCommitted), ErrNotInDoubt)
	w.Nodes[3].Resources["a"].Cannot = false
	for range 20 {
		w.Settle()
		w.Tick()
	}
	require.Empty(t, w.Broken)
}

func TestLimits(t *testing.T) {
	w := newWorld(2, false, false)
	w.cfg.MaxTransactions, w.cfg.MaxBranches = 2, 1
	w.Open()
	c := w.Nodes[1].Core
	a, b := w.Begin(1, branchesOf(2)...), w.Begin(1, branchesOf(2)...)
	require.ErrorIs(t, c.Open(ID{1, 7, 1 << 20}), ErrOverloaded)
	require.ErrorIs(t, c.Open(a), ErrOverloaded)
	for _, branches := range [][]Branch{
		nil, make([]Branch, 11), branchesOf(2, 2), {{Node: 2}}, {{Resource: "a"}},
		{{Node: 1, Resource: "a", LastAgent: true}, {Node: 2, Resource: "a", LastAgent: true}},
	} {
		require.ErrorIs(t, c.Commit(a, branches), ErrInvalid)
	}
	require.ErrorIs(t, c.Commit(ID{1, 7, 1 << 20}, branchesOf(2)), ErrInvalid)
	w.Asked[b] = []Branch{{Node: 2, Resource: "a"}, {Node: 2, Resource: "b"}}
	w.Commit(b)
	w.Settle()
	require.Equal(t, OutcomeAborted, w.Results[b].Outcome, "one of the two is one too many")
	w.Commit(a)
	w.Finish()
	require.Equal(t, OutcomeCommitted, w.Results[a].Outcome)
	require.Empty(t, w.Broken)
}

// What is remembered of commits in one phase is limited; the oldest transaction, which holds the limit up, goes on.
func TestALimitOfOnePhaseDoesNotStopTheOldest(t *testing.T) {
	w := newWorld(2, true, false)
	w.cfg.MaxFinished = 2
	w.Open()
	oldest := w.Begin(1, branchesOf(2)...)
	for range 6 {
		id := w.Begin(1, branchesOf(2)...)
		w.Commit(id)
		w.Settle()
	}
	w.Commit(oldest)
	w.Finish()
	require.Empty(t, w.Broken)
	require.Len(t, w.Results, 7)
	require.Equal(t, OutcomeCommitted, w.Results[oldest].Outcome)
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
			w.Loud = true
			w.Open()
			n := w.Nodes[2]
			for _, m := range append(tc.before, tc.message) {
				m.From, m.To, m.Resource = 1, 2, "a"
				if m.Kind == KindInquire {
					m.From = 3
				}
				n.Core.Step(m)
				n.Work()
				for len(w.Queue) > 0 {
					w.Act(0)
				}
			}
			aborted := 0
			for _, line := range w.Trace {
				if strings.HasSuffix(line, "node 2: abort 1.1000 a") {
					aborted++
				}
			}
			require.Equal(t, 1, aborted, strings.Join(w.Trace, "\n"))
			// And it stays so.
			for range 3 {
				n.Core.Flush()
				n.Work()
				for len(w.Queue) > 0 {
					w.Act(0)
				}
			}
			n.Crash()
			n.Start()
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
