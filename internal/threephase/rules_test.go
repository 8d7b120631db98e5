package threephase

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// tell brings messages to node 2, makes what they lead to durable, and returns what it says.
func tell(w *world, messages ...Message) (said []Message) {
	n := w.Nodes[2]
	for _, m := range messages {
		m.To = 2
		if m.From == 0 {
			m.From = 1
		}
		if m.Resource == "" {
			m.Resource = "a"
		}
		n.Core.Step(m)
		n.Work()
		for len(w.Queue) > 0 {
			w.Act(0)
		}
	}
	n.Core.Tick()
	n.Work()
	for len(w.Queue) > 0 {
		w.Act(0)
	}
	said, w.Net = w.Net, nil
	return said
}

func restart(n *node) {
	stable := n.World.Stable
	n.World.Stable = true
	n.Crash()
	n.Start()
	n.World.Stable = stable
}

// A request to prepare that comes after the abort is refused, also after a crash, after the tombstone was collected, and after
// both.
func TestAPrepareAfterTheAbortIsRefused(t *testing.T) {
	for _, collected := range []bool{false, true} {
		w := newWorld(3, Enhanced)
		w.Open()
		id := ID{Node: 1, Incarnation: 7, Counter: 1000}
		require.Empty(t, tell(w, Message{Kind: KindOutcome, ID: id, Outcome: aborted, Early: true}))
		if collected {
			tell(w, Message{Kind: KindAnswer, ID: ID{Node: 1, Incarnation: 7, Counter: 1005}, Floor: 1002})
			require.NotContains(t, w.Nodes[2].Store, string(branchKey(TagFinished, key{id, "a"})))
		}
		for range 2 {
			said := tell(w, Message{Kind: KindPrepare, ID: id, Participants: on(2, 3)})
			require.Len(t, said, 1)
			require.Equal(t, KindVote, said[0].Kind)
			require.Equal(t, twophase.VoteNo, said[0].Vote)
			require.Empty(t, w.Nodes[2].Resources["a"].Prepared)
			restart(w.Nodes[2])
			w.Settle()
			w.Net = nil
		}
	}
}

// What comes late, or again, has one answer.
func TestWhatComesLateHasOneAnswer(t *testing.T) {
	w := newWorld(3, Enhanced)
	w.Open()
	w.Finish()
	w.Begin(1, on(2, 3)...) // it stays open, and the floor below it
	id := w.Begin(1, on(2, 3)...)
	w.Commit(id)
	var seen []Message
	for len(w.Queue) > 0 || len(w.Net) > 0 {
		if len(w.Queue) > 0 {
			w.Act(0)
			continue
		}
		if w.Net[0].To == 2 {
			seen = append(seen, w.Net[0])
		}
		w.Deliver(0)
	}
	for range 5 {
		w.Tick()
		w.Settle()
	}
	require.Empty(t, w.Nodes[2].Core.entries)
	require.Equal(t, committed, w.Results[id].Outcome)
	before := w.Nodes[2].Resources["a"].Committed[id]
	for range 2 {
		for _, m := range seen {
			for _, answer := range tell(w, m) {
				switch answer.Kind {
				case KindState:
					require.Equal(t, StateCommitted, answer.State)
				case KindDone:
					require.Equal(t, committed, answer.Outcome)
					require.Equal(t, twophase.NoDamage, answer.Damage)
				default:
					t.Errorf("%v is answered by %v", m, answer)
				}
			}
		}
		// Others that are in doubt, and hold an election.
		said := tell(w, Message{Kind: KindElect, From: 3, ID: id, Ballot: Ballot{9, 2}, Participants: on(2, 3)})
		require.Len(t, said, 1)
		require.Equal(t, StateCommitted, said[0].State)
		restart(w.Nodes[2])
		w.Settle()
	}
	require.Equal(t, before, w.Nodes[2].Resources["a"].Committed[id])

	// An outcome that is the contrary is no matter of E3PC: it is reported, and not believed.
	said := tell(w, Message{Kind: KindOutcome, ID: id, Outcome: aborted})
	require.Equal(t, twophase.Committed, said[0].Damage)
	require.Empty(t, w.Nodes[2].Resources["a"].Aborted)
}

// Strangers are not listened to: who is no participant, or leads under another's rank.
func TestStrangersAreNotListenedTo(t *testing.T) {
	w := newWorld(4, Enhanced)
	w.Open()
	w.Finish()
	id := w.Begin(1, on(2, 3)...)
	w.Commit(id)
	for len(w.Nodes[2].Core.InDoubt()) == 0 {
		if len(w.Queue) > 0 {
			w.Act(0)
		} else {
			w.Deliver(0)
		}
	}
	w.Queue, w.Net = nil, nil
	b := Ballot{5, 2}
	for _, m := range []Message{
		{Kind: KindElect, From: 4, Ballot: b, Participants: on(2, 3)},
		{Kind: KindPreAbort, From: 4, Ballot: b, Participants: on(2, 3)},
		{Kind: KindPreAbort, From: 3, Ballot: Ballot{5, 9}, Participants: on(2, 3)},
		{Kind: KindPreAbort, From: 3, Ballot: Ballot{}, Participants: on(2, 3)},
		{Kind: KindOutcome, From: 4, Ballot: Ballot{Rank: 2}, Outcome: aborted},
		{Kind: KindOver, From: 4, Ballot: Ballot{Rank: 2}},
		{Kind: KindAnswer, From: 3, Outcome: aborted},
		{Kind: KindPrepare, From: 3, Participants: on(2, 3)},
	} {
		m.ID = id
		said := slices.DeleteFunc(tell(w, m), func(m Message) bool { return m.Kind == KindInquire })
		require.Empty(t, said, "%v", m)
	}
	require.Equal(t, StateWait, w.Nodes[2].Core.InDoubt()[0].State)
}

// What is invalid, or too much, is refused.
func TestLimits(t *testing.T) {
	w := newWorld(2, Enhanced)
	w.cfg.MaxBranches, w.cfg.MaxTransactions, w.cfg.MaxParticipants, w.cfg.MaxFinished = 2, 3, 3, 4
	w.Open()
	c := w.Nodes[1].Core
	id := ID{Node: 1, Incarnation: 7, Counter: 1000}
	require.NoError(t, c.Open(id))
	require.ErrorIs(t, c.Open(id), ErrInvalid, "it was given before")
	agent := on(1, 2)
	agent[1].LastAgent = true
	for _, list := range [][]Participant{nil, on(1, 2, 3, 4), on(1, 1), on(0, 1), {{}}, agent} {
		require.ErrorIs(t, c.Commit(id, list), ErrInvalid)
	}
	require.ErrorIs(t, c.Commit(ID{}, on(1)), ErrInvalid)
	require.NoError(t, c.Open(ID{Node: 1, Incarnation: 7, Counter: 1001}))
	require.NoError(t, c.Open(ID{Node: 1, Incarnation: 7, Counter: 1003}))
	require.ErrorIs(t, c.Open(ID{Node: 1, Incarnation: 7, Counter: 1004}), ErrOverloaded)
	require.ErrorIs(t, c.Terminate(id, "a"), ErrNotInDoubt)

	// Branches that are in doubt.
	for i := range uint64(3) {
		said := tell(w, Message{Kind: KindPrepare, ID: ID{Node: 1, Incarnation: 7, Counter: 2000 + i}, Participants: on(1, 2)})
		require.Equal(t, i == 2, said[0].Vote == twophase.VoteNo, said[0].String())
	}
	// Tombstones: the oldest give way, and what is older than they is refused.
	for i := range uint64(20) {
		tell(w, Message{Kind: KindOutcome, ID: ID{Node: 1, Incarnation: 9, Counter: 1 + i}, Outcome: aborted, Early: true})
	}
	n := 0
	for k := range w.Nodes[2].Store {
		if k[0] == TagFinished {
			n++
		}
	}
	require.LessOrEqual(t, n, 6) // and that of the branch that was refused
	said := tell(w, Message{Kind: KindPrepare, ID: ID{Node: 1, Incarnation: 9, Counter: 3}, Participants: on(1, 2)})
	require.Equal(t, twophase.VoteNo, said[0].Vote)

	// A message about what this node has not begun: its store is an old copy.
	w.Nodes[1].Core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{Node: 1, Incarnation: 7, Counter: 5000}, Resource: "a"})
	require.ErrorIs(t, w.Nodes[1].Core.Err(), ErrRolledBack)
}

// What a resource decided by itself, and a resource that fails, are shown.
func TestResourcesThatFail(t *testing.T) {
	w := newWorld(3, Enhanced)
	w.Open()
	w.Finish()
	id := w.Begin(1, on(2, 3)...)
	w.Nodes[2].Resources["a"].Fails[twophase.CallCommit] = 3
	w.Commit(id)
	w.Settle()
	stuck := w.Nodes[2].Core.Stuck()
	require.Equal(t, []twophase.Stuck{{ID: id, Resource: "a", Outcome: committed, Failure: "out of reach"}}, stuck)
	require.Len(t, w.Nodes[3].Core.Transactions(), 0)
	require.Equal(t, "closing", w.Nodes[1].Core.Transactions()[0].Phase)
	w.Finish()
	require.Empty(t, w.Broken)

	id = w.Begin(1, on(2, 3)...)
	w.Nodes[2].Resources["a"].Heuristic[id] = aborted
	w.Commit(id)
	for range 10 {
		w.Settle()
		w.Tick()
	}
	want := []Report{{ID: id, Node: 2, Resource: "a", Damage: twophase.Aborted}}
	require.Equal(t, want, w.Nodes[2].Core.Damages())
	require.Equal(t, want, w.Nodes[1].Core.Damages())
	restart(w.Nodes[2])
	require.Equal(t, want, w.Nodes[2].Core.Damages())
	require.True(t, w.Nodes[2].Core.ClearDamage(id))
	require.False(t, w.Nodes[2].Core.ClearDamage(id))
}

// A copy shares nothing with its original, and equal cores have equal fingerprints.
func TestClones(t *testing.T) {
	w := newWorld(4, Enhanced)
	w.Open()
	id := w.Begin(1, on(1, 2, 3)...)
	w.Commit(id)
	for i := 0; len(w.Queue) > 0 || len(w.Net) > 0; i++ {
		for _, n := range w.Nodes {
			before := n.Core.Fingerprint(nil, false)
			c := n.Core.Clone()
			require.Equal(t, before, c.Fingerprint(nil, false))
			for range 30 {
				c.Tick()
				if r := c.Ready(); r.Batch != nil {
					c.Persisted(r.Token)
				}
			}
			for _, m := range slices.Clone(w.Net) {
				if m.To == n.ID {
					c.Step(m)
				}
			}
			require.Equal(t, before, n.Core.Fingerprint(nil, false))
		}
		if len(w.Queue) > 0 {
			w.Act(0)
		} else {
			w.Deliver(0)
		}
	}
}
