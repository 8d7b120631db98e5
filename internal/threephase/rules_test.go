package threephase

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// tell brings messages to node 2, makes what they lead to durable, and returns what it says.
func tell(w *world, messages ...Message) (said []Message) {
	n := w.nodes[2]
	for _, m := range messages {
		m.To = 2
		if m.From == 0 {
			m.From = 1
		}
		if m.Resource == "" {
			m.Resource = "a"
		}
		n.core.Step(m)
		n.work()
		for len(w.queue) > 0 {
			w.act(0)
		}
	}
	n.core.Tick()
	n.work()
	for len(w.queue) > 0 {
		w.act(0)
	}
	said, w.net = w.net, nil
	return said
}

func restart(n *node) {
	stable := n.w.stable
	n.w.stable = true
	n.crash()
	n.start()
	n.w.stable = stable
}

// A request to prepare that comes after the abort is refused, also after a crash, after the tombstone was collected, and after
// both.
func TestAPrepareAfterTheAbortIsRefused(t *testing.T) {
	for _, collected := range []bool{false, true} {
		w := newWorld(3, Enhanced)
		w.open()
		id := ID{Node: 1, Incarnation: 7, Counter: 1000}
		require.Empty(t, tell(w, Message{Kind: KindOutcome, ID: id, Outcome: aborted, Early: true}))
		if collected {
			tell(w, Message{Kind: KindAnswer, ID: ID{Node: 1, Incarnation: 7, Counter: 1005}, Floor: 1002})
			require.NotContains(t, w.nodes[2].store, string(branchKey(TagFinished, key{id, "a"})))
		}
		for range 2 {
			said := tell(w, Message{Kind: KindPrepare, ID: id, Participants: on(2, 3)})
			require.Len(t, said, 1)
			require.Equal(t, KindVote, said[0].Kind)
			require.Equal(t, twophase.VoteNo, said[0].Vote)
			require.Empty(t, w.nodes[2].resources["a"].prepared)
			restart(w.nodes[2])
			w.settle()
			w.net = nil
		}
	}
}

// What comes late, or again, has one answer.
func TestWhatComesLateHasOneAnswer(t *testing.T) {
	w := newWorld(3, Enhanced)
	w.open()
	w.finish()
	w.begin(1, on(2, 3)...) // it stays open, and the floor below it
	id := w.begin(1, on(2, 3)...)
	w.commit(id)
	var seen []Message
	for len(w.queue) > 0 || len(w.net) > 0 {
		if len(w.queue) > 0 {
			w.act(0)
			continue
		}
		if w.net[0].To == 2 {
			seen = append(seen, w.net[0])
		}
		w.deliver(0)
	}
	for range 5 {
		w.tick()
		w.settle()
	}
	require.Empty(t, w.nodes[2].core.entries)
	require.Equal(t, committed, w.results[id].Outcome)
	before := w.nodes[2].resources["a"].committed[id]
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
		restart(w.nodes[2])
		w.settle()
	}
	require.Equal(t, before, w.nodes[2].resources["a"].committed[id])

	// An outcome that is the contrary is no matter of E3PC: it is reported, and not believed.
	said := tell(w, Message{Kind: KindOutcome, ID: id, Outcome: aborted})
	require.Equal(t, twophase.Committed, said[0].Damage)
	require.Empty(t, w.nodes[2].resources["a"].aborted)
}

// Strangers are not listened to: who is no participant, or leads under another's rank.
func TestStrangersAreNotListenedTo(t *testing.T) {
	w := newWorld(4, Enhanced)
	w.open()
	w.finish()
	id := w.begin(1, on(2, 3)...)
	w.commit(id)
	for len(w.nodes[2].core.InDoubt()) == 0 {
		if len(w.queue) > 0 {
			w.act(0)
		} else {
			w.deliver(0)
		}
	}
	w.queue, w.net = nil, nil
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
	require.Equal(t, StateWait, w.nodes[2].core.InDoubt()[0].State)
}

// What is invalid, or too much, is refused.
func TestLimits(t *testing.T) {
	w := newWorld(2, Enhanced)
	w.cfg.MaxBranches, w.cfg.MaxTransactions, w.cfg.MaxParticipants, w.cfg.MaxFinished = 2, 3, 3, 4
	w.open()
	c := w.nodes[1].core
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
	for k := range w.nodes[2].store {
		if k[0] == TagFinished {
			n++
		}
	}
	require.LessOrEqual(t, n, 6) // and that of the branch that was refused
	said := tell(w, Message{Kind: KindPrepare, ID: ID{Node: 1, Incarnation: 9, Counter: 3}, Participants: on(1, 2)})
	require.Equal(t, twophase.VoteNo, said[0].Vote)

	// A message about what this node has not begun: its store is an old copy.
	w.nodes[1].core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{Node: 1, Incarnation: 7, Counter: 5000}, Resource: "a"})
	require.ErrorIs(t, w.nodes[1].core.Err(), ErrRolledBack)
}

// What a resource decided by itself, and a resource that fails, are shown.
func TestResourcesThatFail(t *testing.T) {
	w := newWorld(3, Enhanced)
	w.open()
	w.finish()
	id := w.begin(1, on(2, 3)...)
	w.nodes[2].resources["a"].fails[twophase.CallCommit] = 3
	w.commit(id)
	w.settle()
	stuck := w.nodes[2].core.Stuck()
	require.Equal(t, []twophase.Stuck{{ID: id, Resource: "a", Outcome: committed, Failure: "out of reach"}}, stuck)
	require.Len(t, w.nodes[3].core.Transactions(), 0)
	require.Equal(t, "closing", w.nodes[1].core.Transactions()[0].Phase)
	w.finish()
	require.Empty(t, w.broken)

	id = w.begin(1, on(2, 3)...)
	w.nodes[2].resources["a"].heuristic[id] = aborted
	w.commit(id)
	for range 10 {
		w.settle()
		w.tick()
	}
	want := []Report{{ID: id, Node: 2, Resource: "a", Damage: twophase.Aborted}}
	require.Equal(t, want, w.nodes[2].core.Damages())
	require.Equal(t, want, w.nodes[1].core.Damages())
	restart(w.nodes[2])
	require.Equal(t, want, w.nodes[2].core.Damages())
	require.True(t, w.nodes[2].core.ClearDamage(id))
	require.False(t, w.nodes[2].core.ClearDamage(id))
}

// A copy shares nothing with its original, and equal cores have equal fingerprints.
func TestClones(t *testing.T) {
	w := newWorld(4, Enhanced)
	w.open()
	id := w.begin(1, on(1, 2, 3)...)
	w.commit(id)
	for i := 0; len(w.queue) > 0 || len(w.net) > 0; i++ {
		for _, n := range w.nodes {
			before := n.core.Fingerprint(nil, false)
			c := n.core.Clone()
			require.Equal(t, before, c.Fingerprint(nil, false))
			for range 30 {
				c.Tick()
				if r := c.Ready(); r.Batch != nil {
					c.Persisted(r.Token)
				}
			}
			for _, m := range slices.Clone(w.net) {
				if m.To == n.id {
					c.Step(m)
				}
			}
			require.Equal(t, before, n.core.Fingerprint(nil, false))
		}
		if len(w.queue) > 0 {
			w.act(0)
		} else {
			w.deliver(0)
		}
	}
}
