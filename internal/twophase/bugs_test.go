package twophase

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/probe"
)

// named are the mistakes that a test of their own finds: what they break is no split.
var named = map[string]func(t *testing.T) (broken bool){
	"2pc: a coordinator presumes what it has lost": func(*testing.T) bool { return lostIncarnation() != Lost },
	"2pc: a prepare of a transaction that is over is accepted": func(*testing.T) bool {
		return latePrepare(true) != VoteNo
	},
	"2pc: a no is told that comes after a forgotten read-only vote": func(*testing.T) bool { return len(noAfterReadOnly().broken) > 0 },
	"2pc: a tombstone is not looked at":                             func(*testing.T) bool { return latePrepare(false) != VoteNo },
	"2pc: what is below the floor is acknowledged at once":          func(*testing.T) bool { return acknowledgesEarly() },
	"2pc: an abort that is not durable is told to others":           func(*testing.T) bool { return tellsEarly() },
	"2pc: what is refused is not given up": func(*testing.T) bool {
		w := newWorld(2, false, false)
		w.open()
		c := w.nodes[2].core
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
	var bugs []string
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		source, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			if !slices.Contains(bugs, m[1]) {
				bugs = append(bugs, m[1])
			}
		}
	}
	require.GreaterOrEqual(t, len(bugs), 15)
	for _, bug := range bugs {
		t.Run(bug, func(t *testing.T) {
			p := &planted{bug: bug, reached: map[string]bool{}}
			defer probe.Install(p)()
			if find := named[bug]; find != nil {
				require.True(t, find(t), "not found")
				require.True(t, p.made)
				return
			}
			for _, s := range scenarios() {
				points, w := s.play(nil, false)
				if len(w.broken) > 0 {
					t.Logf("found by: %s, without a crash", s.name)
					return
				}
				for i := range 2 * points {
					if s.fail(nil, []crash{{i / 2, i%2 == 1}}) {
						t.Logf("found by: %s, crash %d", s.name, i/2)
						return
					}
				}
			}
			if racing || testing.Short() {
				return // it takes a random run
			}
			for seed := uint64(1); seed <= 3000; seed++ {
				if len(random(seed, false).broken) > 0 {
					t.Logf("found by: seed %d", seed)
					return
				}
			}
			t.Errorf("not found, made: %v", p.made)
		})
	}
}

func branchesOf(nodes ...uint64) []Branch {
	var list []Branch
	for _, n := range nodes {
		list = append(list, Branch{Node: n, Resource: "a"})
	}
	return list
}

// lostIncarnation asks a coordinator about a transaction of an earlier incarnation of its node.
func lostIncarnation() Knowledge {
	w := newWorld(2, false, false)
	w.open()
	n := w.nodes[1]
	n.core.Step(Message{Kind: KindInquire, From: 2, To: 1, ID: ID{1, 99, 5}, Resource: "a"})
	return n.core.Ready().Messages[0].Knowledge
}

// latePrepare returns what a participant votes if a request to prepare comes after the abort, and after what it
// remembered of it was collected.
func latePrepare(collected bool) Vote {
	w := newWorld(2, false, false)
	w.open()
	n := w.nodes[2]
	id := ID{1, 7, 1000}
	deliver := func(m Message) {
		m.From, m.To, m.Resource = 1, 2, "a"
		n.core.Step(m)
		n.work()
		for len(w.queue) > 0 {
			w.act(0)
		}
	}
	deliver(Message{Kind: KindOutcome, ID: id, Outcome: OutcomeAborted})
	n.core.Tick()
	n.work()
	if collected {
		deliver(Message{Kind: KindOutcome, ID: ID{1, 7, 1002}, Outcome: OutcomeAborted, Floor: 1002})
		n.core.Tick()
		n.work()
	}
	for len(w.queue) > 0 {
		w.act(0)
	}
	n.crash() // all of it is durable
	w.stable = true
	n.start()
	w.net = nil
	deliver(Message{Kind: KindPrepare, ID: id, Branches: branchesOf(2), MayLeave: true})
	for _, m := range w.net {
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
	w.open()
	b := branchesOf(2, 3)
	b[1].Work = []byte("work")
	id := w.begin(1, b...)
	if err := w.nodes[1].core.Commit(id, b); err != nil {
		return true
	}
	return slices.ContainsFunc(w.nodes[1].core.Ready().Messages, func(m Message) bool { return m.MayLeave })
}

// says has node 2 take in messages, without making anything durable, and reports whether a kind of message left it.
func says(n *node, kind Kind, messages ...Message) bool {
	for _, m := range messages {
		m.To = 2
		n.core.Step(m)
		n.work()
		for {
			i := slices.IndexFunc(n.w.queue, func(a action) bool { return a.order != "write" })
			if i < 0 {
				break
			}
			n.w.act(i)
		}
	}
	return slices.ContainsFunc(n.w.net, func(m Message) bool { return m.Kind == kind })
}

// acknowledgesEarly reports whether a commit is acknowledged though a crash would bring the branch back as one that is in
// doubt.
func acknowledgesEarly() bool {
	w := newWorld(3, false, false)
	w.open()
	n := w.nodes[2]
	id := ID{1, 7, 1000}
	says(n, 0, Message{Kind: KindPrepare, From: 1, ID: id, Resource: "a", Branches: branchesOf(2, 3)})
	w.drain()
	// The floor passes it, as when too much is remembered. What is known of the branch is its record, and then nothing.
	n.core.raise(n.core.horizon(originOf(id)), 1001)
	commit := Message{Kind: KindOutcome, From: 1, ID: id, Resource: "a", Outcome: OutcomeCommitted}
	return says(n, KindAck, commit, commit)
}

// tellsEarly reports whether a participant relies on a no that a crash would undo.
func tellsEarly() bool {
	w := newWorld(3, false, false)
	w.open()
	n := w.nodes[2]
	id := ID{1, 7, 1000}
	n.resources["a"].votes[id] = VoteNo
	return says(n, KindAnswer, Message{Kind: KindPrepare, From: 1, ID: id, Resource: "a", Branches: branchesOf(2, 3)},
		Message{Kind: KindInquire, From: 3, ID: id, Resource: "a", Peer: "a"})
}

func TestNothingIsSaidEarly(t *testing.T) {
	require.False(t, acknowledgesEarly())
	require.False(t, tellsEarly())
}
