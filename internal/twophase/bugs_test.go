package twophase_test

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

// named are the mistakes that a test of their own finds: what they break is no split.
var named = map[string]func(t *testing.T) (broken bool){
	"2pc: a coordinator presumes what it has lost": func(*testing.T) bool { return lostIncarnation() != Lost },
	"2pc: a prepare of a transaction that is over is accepted": func(*testing.T) bool {
		return latePrepare(true) != VoteNo
	},
	"2pc: a no is told that comes after a forgotten read-only vote": func(*testing.T) bool { return len(noAfterReadOnly().Broken) > 0 },
	"2pc: a tombstone is not looked at":                             func(*testing.T) bool { return latePrepare(false) != VoteNo },
	"2pc: what is below the floor is acknowledged at once":          func(*testing.T) bool { return acknowledgesEarly() },
	"2pc: an abort that is not durable is told to others":           func(*testing.T) bool { return tellsEarly() },
	"2pc: what is refused is not given up": func(*testing.T) bool {
		w := newWorld(2, false, false)
		w.Open()
		c := w.Nodes[2].Core
		c.Step(Message{Kind: KindOutcome, From: 1, To: 2, ID: ID{1, 7, 1000}, Resource: "a", Outcome: OutcomeAborted})
		return len(c.Ready().Calls) == 0
	},
	"2pc: read-only participants leave while locks are taken": func(*testing.T) bool {
		return leavesEarly()
	},
}

// Each mistake that the code can be told to make is found: by a crash, alone or in a pair, by a random run, or by the
// test that is named.
func TestPlantedBugs(t *testing.T) {
	hunt := commitmenttest.Hunt[*Core, Message, Branch]{
		Named: named, Scenarios: scenarios(), Seeds: 3000,
		Random: func(seed uint64) *simulated { return random(seed, false).simulated },
	}
	if racing || testing.Short() {
		hunt.Seeds = 0
	}
	hunt.Run(t, os.DirFS("."), 15)
}

// lostIncarnation asks a coordinator about a transaction of an earlier incarnation of its node.
func lostIncarnation() Knowledge {
	w := newWorld(2, false, false)
	w.Open()
	n := w.Nodes[1]
	n.Core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{1, 99, 5}, Resource: "a"})
	return n.Core.Ready().Messages[0].Knowledge
}

// latePrepare returns what a participant votes if a request to prepare comes after the abort, and after what it
// remembered of it was collected.
func latePrepare(collected bool) Vote {
	w := newWorld(2, false, false)
	w.Open()
	n := w.Nodes[2]
	id := ID{1, 7, 1000}
	deliver := func(m Message) {
		m.From, m.To, m.Resource = 1, 2, "a"
		n.Core.Step(m)
		n.Work()
		for len(w.Queue) > 0 {
			w.Act(0)
		}
	}
	deliver(Message{Kind: KindOutcome, ID: id, Outcome: OutcomeAborted})
	n.Core.Tick()
	n.Work()
	if collected {
		deliver(Message{Kind: KindOutcome, ID: ID{1, 7, 1002}, Outcome: OutcomeAborted, Floor: 1002})
		n.Core.Tick()
		n.Work()
	}
	for len(w.Queue) > 0 {
		w.Act(0)
	}
	n.Crash() // all of it is durable
	w.Stable = true
	n.Start()
	w.Net = nil
	deliver(Message{Kind: KindPrepare, ID: id, Branches: branchesOf(2), MayLeave: true})
	for _, m := range w.Net {
		if m.Kind == KindVote {
			return m.Vote
		}
	}
	return 0
}

// leavesEarly reports whether a participant that has nothing to commit is let go while another one is still given
// work, for which it takes locks.
func leavesEarly() bool {
	w := newWorld(3, false, false)
	w.Open()
	b := branchesOf(2, 3)
	b[1].Work = []byte("work")
	id := w.Begin(1, b...)
	if err := w.Nodes[1].Core.Commit(id, b); err != nil {
		return true
	}
	return slices.ContainsFunc(w.Nodes[1].Core.Ready().Messages, func(m Message) bool { return m.MayLeave })
}

// says has node 2 take in messages, without making anything durable, and reports whether a kind of message left it.
func says(n *node, kind Kind, messages ...Message) bool {
	for _, m := range messages {
		m.To = 2
		n.Core.Step(m)
		n.Work()
		for n.World.First(func(a action) bool { return a.Order != "write" }) {
		}
	}
	return slices.ContainsFunc(n.World.Net, func(m Message) bool { return m.Kind == kind })
}

// acknowledgesEarly reports whether a commit is acknowledged though a crash would bring the branch back as one that is in
// doubt.
func acknowledgesEarly() bool {
	w := newWorld(3, false, false)
	w.Open()
	n := w.Nodes[2]
	id := ID{1, 7, 1000}
	says(n, 0, Message{Kind: KindPrepare, From: 1, ID: id, Resource: "a", Branches: branchesOf(2, 3)})
	w.Settle()
	// The floor passes it, as when too much is remembered. What is known of the branch is its record, and then nothing.
	n.Core.Raise(id, 1001)
	commit := Message{Kind: KindOutcome, From: 1, ID: id, Resource: "a", Outcome: OutcomeCommitted}
	return says(n, KindAck, commit, commit)
}

// tellsEarly reports whether a participant relies on a no that a crash would undo.
func tellsEarly() bool {
	w := newWorld(3, false, false)
	w.Open()
	n := w.Nodes[2]
	id := ID{1, 7, 1000}
	n.Resources["a"].Votes[id] = VoteNo
	return says(n, KindAnswer, Message{Kind: KindPrepare, From: 1, ID: id, Resource: "a", Branches: branchesOf(2, 3)},
		Message{Kind: KindInquire, From: 3, ID: id, Resource: "a", Peer: "a"})
}

func TestNothingIsSaidEarly(t *testing.T) {
	require.False(t, acknowledgesEarly())
	require.False(t, tellsEarly())
}
