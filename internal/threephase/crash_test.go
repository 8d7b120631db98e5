package threephase

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// scenario is a run whose every crash is tried.
type scenario struct {
	name    string
	nodes   int
	down    int // ticks that a node is down
	prepare func(w *world) ID
}

func scenarios() []scenario {
	return []scenario{
		{"two remote participants", 3, 6, func(w *world) ID { return w.begin(1, on(2, 3)...) }},
		{"two participants, one beside the coordinator", 2, 6, func(w *world) ID { return w.begin(1, on(1, 2)...) }},
		{"three participants, one beside the coordinator", 3, 6, func(w *world) ID { return w.begin(1, on(1, 2, 3)...) }},
		{"three remote participants", 4, 6, func(w *world) ID { return w.begin(1, on(2, 3, 4)...) }},
		{"two remote participants, long outages", 3, 60, func(w *world) ID { return w.begin(1, on(2, 3)...) }},
		{"three participants, long outages", 3, 60, func(w *world) ID { return w.begin(1, on(1, 2, 3)...) }},
		{"three remote participants, long outages", 4, 60, func(w *world) ID { return w.begin(1, on(2, 3, 4)...) }},
		{"two resources of one node", 3, 40, func(w *world) ID {
			p := on(2, 3, 2)
			p[2].Resource = "b"
			return w.begin(1, p...)
		}},
		{"weights", 4, 40, func(w *world) ID {
			p := on(2, 3, 4)
			p[1].Weight = 3
			return w.begin(1, p...)
		}},
		{"one says no", 3, 40, func(w *world) ID {
			id := w.begin(1, on(1, 2, 3)...)
			w.nodes[2].resources["a"].votes[id] = twophase.VoteNo
			return id
		}},
		{"one is read-only", 4, 40, func(w *world) ID {
			id := w.begin(1, on(2, 3, 4)...)
			w.nodes[3].resources["a"].votes[id] = twophase.VoteReadOnly
			return id
		}},
		{"two are read-only, and stay", 3, 40, func(w *world) ID {
			p := on(1, 2, 3)
			p[0].Work = []byte("work")
			id := w.begin(1, p...)
			for _, n := range []uint64{2, 3} {
				w.nodes[n].resources["a"].votes[id] = twophase.VoteReadOnly
			}
			return id
		}},
		{"all are read-only", 4, 40, func(w *world) ID {
			id := w.begin(1, on(2, 3, 4)...)
			for _, n := range []uint64{2, 3, 4} {
				w.nodes[n].resources["a"].votes[id] = twophase.VoteReadOnly
			}
			return id
		}},
		{"a single participant", 2, 40, func(w *world) ID { return w.begin(1, on(2)...) }},
		{"a single participant beside the coordinator", 1, 6, func(w *world) ID { return w.begin(1, on(1)...) }},
	}
}

// play runs a scenario with crashes, and returns the number of actions.
func (s scenario) play(p Protocol, crashes []crash, loud bool) (points int, w *world) {
	w = newWorld(s.nodes, p)
	w.downFor, w.crashes, w.loud = s.down, crashes, loud
	w.open()
	w.finish() // nothing is to be done
	w.points = 0
	id := s.prepare(w)
	w.commit(id)
	w.finish()
	return w.points, w
}

func (s scenario) fail(t *testing.T, p Protocol, crashes []crash) bool {
	_, w := s.play(p, crashes, false)
	if len(w.broken) == 0 {
		return false
	}
	if t != nil {
		_, w = s.play(p, crashes, true)
		t.Errorf("%s: crashes %v:\n%s\n%s", s.name, crashes, strings.Join(w.broken, "\n"), strings.Join(w.trace, "\n"))
	}
	return true
}

// A crash before and after every write, message and call of every node, alone and with every other one that follows: nothing is
// split, and everything ends. Skeen's protocol passes the same: nodes only crash, nothing is lost, and no time passes while messages are
// under way, so that whoever is silent has crashed. It is tried with single crashes.
func TestEveryCrash(t *testing.T) {
	total := 0
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			single, pairs := 0, 0
			points, w := s.play(Enhanced, nil, false)
			require.Empty(t, w.broken)
			for i := range 2 * points {
				first := crash{i / 2, i%2 == 1}
				if single++; s.fail(t, Enhanced, []crash{first}) {
					return
				}
				if testing.Short() || racing {
					continue
				}
				after, _ := s.play(Enhanced, []crash{first}, false)
				for j := 2 * (first.at + 1); j < 2*after; j++ {
					if pairs++; s.fail(t, Enhanced, []crash{first, {j / 2, j%2 == 1}}) {
						return
					}
				}
			}
			points, w = s.play(Skeen, nil, false)
			require.Empty(t, w.broken)
			for i := range 2 * points {
				if single++; s.fail(t, Skeen, []crash{{i / 2, i%2 == 1}}) {
					return
				}
			}
			total += single + pairs
			t.Logf("%d actions, %d single crashes, %d pairs", points, single, pairs)
		})
	}
	t.Logf("%d runs", total)
}

// Every message is lost once, or comes again when all is over; alone, and with every crash of every node.
func TestEveryMessageLostOrRepeated(t *testing.T) {
	total := 0
	for _, s := range scenarios() {
		run := func(lose, repeat int, crashes []crash) (points int, w *world) {
			w = newWorld(s.nodes, Enhanced)
			w.downFor, w.crashes = s.down, crashes
			w.open()
			w.finish()
			w.points, w.sends = 0, nil
			w.lose, w.repeat = map[int]bool{lose: true}, map[int]bool{repeat: true}
			id := s.prepare(w)
			w.commit(id)
			w.finish()
			points = w.points
			w.net = append(w.net, w.again...)
			w.finish()
			total++
			require.Empty(t, w.broken, "%s: message %d is lost, %d comes again, crashes %v", s.name, lose, repeat, crashes)
			return points, w
		}
		_, w := run(-1, -1, nil)
		for _, m := range w.sends {
			for _, lost := range []bool{true, false} {
				lose, repeat := m, -1
				if !lost {
					lose, repeat = -1, m
				}
				points, _ := run(lose, repeat, nil)
				if testing.Short() || racing {
					continue
				}
				for i := range 2 * points {
					run(lose, repeat, []crash{{i / 2, i%2 == 1}})
				}
			}
		}
	}
	t.Logf("%d runs", total)
}

// delays runs without failures, all messages that are under way arriving together, and returns how many message delays pass
// until the caller is answered, and until all have committed.
func delays(w *world, id ID) (answered, committed int) {
	w.commit(id)
	answered, committed = -1, -1
	for n := 0; ; n++ {
		for len(w.queue) > 0 {
			w.act(0)
		}
		if _, there := w.results[id]; there && answered < 0 {
			answered = n
		}
		if did, _ := w.outcomes(id, false); len(did) == len(w.asked[id]) && committed < 0 {
			committed = n
		}
		if len(w.net) == 0 {
			return answered, committed
		}
		for range len(w.net) {
			w.deliver(0)
		}
	}
}

// Exact costs without failures: messages, writes that somebody waits for, and message delays. What forgets the transaction afterwards is
// counted apart: it goes with the next write, or tick.
func TestCosts(t *testing.T) {
	for _, tc := range []struct {
		participants int
		beside       bool // one of them is beside the coordinator
		messages     int
		closing      int // messages
		forced       int
		answered     int // message delays
		committed    int
	}{
		{1, true, 0, 0, 1, 0, 0},
		{1, false, 2, 1, 1, 2, 1},
		{2, true, 5, 2, 4, 4, 5},
		{2, false, 10, 4, 4, 4, 5},
		{3, true, 10, 4, 6, 4, 5},
		{3, false, 15, 6, 6, 4, 5},
		{5, true, 20, 8, 10, 4, 5},
		{5, false, 25, 10, 10, 4, 5},
	} {
		for _, p := range []Protocol{Enhanced, Skeen} {
			n := tc.participants
			name := fmt.Sprintf("%v, %d participants, beside %v", p, n, tc.beside)
			w := newWorld(n+1, p)
			w.open()
			var list []Participant
			for i := range uint64(n) {
				if tc.beside {
					list = append(list, on(i+1)...)
				} else {
					list = append(list, on(i+2)...)
				}
			}
			w.finish()
			id := w.begin(1, list...)
			answered, done := delays(w, id)
			messages, forced := 0, 0
			for k, count := range w.sent {
				if k != KindOver {
					messages += count
				}
			}
			for _, n := range w.nodes {
				forced += n.forced
			}
			require.Equal(t, committed, w.results[id].Outcome, name)
			require.Equal(t, tc.messages, messages, name)
			require.Equal(t, tc.forced, forced, name)
			require.Equal(t, tc.answered, answered, name)
			require.Equal(t, tc.committed, done, name)
			if n > 1 {
				require.Equal(t, 2*n, forced, "each its vote and its part in the attempt; the coordinator keeps no records")
			}
			before := messages
			w.finish()
			require.Empty(t, w.broken)
			messages = 0
			for _, count := range w.sent {
				messages += count
			}
			require.Equal(t, tc.closing, messages-before, name)
			for _, n := range w.nodes {
				require.Empty(t, n.core.entries)
			}
		}
	}
}

// What else happens without failures, with three remote participants.
func TestCostsOfOtherOutcomes(t *testing.T) {
	for name, tc := range map[string]struct {
		votes    map[uint64]Vote
		outcome  Outcome
		messages int
		closing  int
		forced   int
	}{
		"all vote yes":     {nil, committed, 15, 6, 6},
		"one is read-only": {map[uint64]Vote{3: twophase.VoteReadOnly}, committed, 13, 6, 5},
		"two are":          {map[uint64]Vote{2: twophase.VoteReadOnly, 3: twophase.VoteReadOnly}, committed, 15, 6, 6}, // they are needed for a quorum
		"all read-only":    {map[uint64]Vote{2: twophase.VoteReadOnly, 3: twophase.VoteReadOnly, 4: twophase.VoteReadOnly}, committed, 9, 0, 3},
		"the last says no": {map[uint64]Vote{4: twophase.VoteNo}, aborted, 8, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(4, Enhanced)
			w.open()
			w.finish()
			id := w.begin(1, on(2, 3, 4)...)
			for node, v := range tc.votes {
				w.nodes[node].resources["a"].votes[id] = v
			}
			w.commit(id)
			w.settle()
			forced, messages := 0, 0
			for _, n := range w.nodes {
				forced += n.forced
			}
			for _, count := range w.sent {
				messages += count
			}
			require.Equal(t, tc.outcome, w.results[id].Outcome)
			require.Equal(t, tc.messages, messages-w.sent[KindDone]-w.sent[KindOver])
			require.Equal(t, tc.forced, forced)
			w.finish()
			require.Empty(t, w.broken)
			require.Equal(t, tc.closing, w.sent[KindDone]+w.sent[KindOver])
		})
	}
}
