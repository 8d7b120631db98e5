package commitmenttest

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
)

// Odds says what chaos does in a step, by a number drawn below Of: what is below Begin begins a transaction, what is below Crash and not
// below Begin lets a node crash, and so on. The rest delivers, loses or repeats a message.
type Odds struct {
	Of     int
	Begin  int
	Crash  int
	Cut    int // cuts the network in two, or heals it
	Tick   int
	Repeat int // of a message of any time
	Act    int
}

// pick returns an action that may be next.
func (w *World[C, M, P]) pick() int {
	a := w.Queue[w.Random.IntN(len(w.Queue))]
	return slices.IndexFunc(w.Queue, func(b Action[C, M, P]) bool {
		return b.Node == a.Node && b.Order == a.Order && (a.Order != "" || b.What == a.What)
	})
}

// Chaos does steps in any order, loses and repeats messages, lets nodes crash, and cuts the network in two and heals it. Then no trouble is
// made any more, but for messages that still come again.
func (w *World[C, M, P]) Chaos(steps int, o Odds, begin func()) {
	var old []M
	for range steps {
		switch x := w.Random.IntN(o.Of); {
		case x < o.Begin:
			begin()
		case x < o.Crash:
			if n := w.Nodes[w.Order[w.Random.IntN(len(w.Order))]]; n.Up() {
				n.Crash()
				n.Down = 1 + w.Random.IntN(30)
			}
		case x < o.Cut:
			clear(w.Side)
			if w.Random.IntN(2) == 0 {
				for _, id := range w.Order {
					w.Side[id] = w.Random.IntN(2)
				}
				w.Logf("cut: %v", w.Side)
			}
		case x < o.Tick:
			w.Tick()
		case x < o.Repeat && len(old) > 0:
			w.Net = append(w.Net, old[w.Random.IntN(len(old))])
		case x < o.Act && len(w.Queue) > 0:
			w.Act(w.pick())
		case len(w.Net) > 0:
			i := w.Random.IntN(len(w.Net))
			m := w.Net[i]
			switch w.Random.IntN(12) {
			case 0:
				w.Net = slices.Delete(w.Net, i, i+1)
			case 1:
				w.Net = append(w.Net, m)
			default:
				w.Deliver(i)
			}
			if len(old) < 200 {
				old = append(old, m)
			} else {
				old[w.Random.IntN(200)] = m
			}
		}
	}
	for _, m := range old {
		if w.Random.IntN(3) == 0 {
			w.Net = append(w.Net, m)
		}
	}
	w.Stable = true
	clear(w.Side)
}

// Guard notes a panic of what it runs.
func (w *World[C, M, P]) Guard(run func()) {
	defer func() {
		if v := recover(); v != nil {
			w.Violation("panic: %v\n%s", v, debug.Stack())
		}
	}()
	run()
}

// Random runs seeds from first on, and fails at the first with which something is broken. Where there are many it also fails if not all that
// the code marks with probe.Sometimes was reached, or if all transactions ended in one way.
func Random[C Core[M, P], M, P fmt.Stringer](t *testing.T, first, count uint64, run func(seed uint64) *World[C, M, P]) {
	p := newPlanted("")
	defer probe.Install(p)()
	outcomes := make(map[twophase.Outcome]int)
	for seed := first; seed < first+count; seed++ {
		w := run(seed)
		if len(w.Broken) > 0 {
			t.Fatalf("seed %d:\n%s\n%s", seed, strings.Join(w.Broken, "\n"), strings.Join(w.Trace, "\n"))
		}
		for _, r := range w.Results {
			outcomes[r.Outcome]++
		}
	}
	t.Logf("%v", outcomes)
	if count < 500 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.reached)) {
		if !p.reached[name] {
			t.Errorf("never reached: %s", name)
		}
	}
	if outcomes[twophase.OutcomeCommitted] == 0 || outcomes[twophase.OutcomeAborted] == 0 {
		t.Errorf("one-sided: %v", outcomes)
	}
}
