package threephase

import (
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
