package twophase

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/synod-go/synod/internal/probe"
)

var (
	seeds = flag.Uint64("seeds", 600, "how many random runs")
	first = flag.Uint64("first", 1, "the first seed")
	show  = flag.Bool("show", false, "print what happens in a run that fails")
)

// planted is a probe that switches on one mistake, and counts what is reached.
type planted struct {
	bug     string
	made    bool
	reached map[string]bool
}

func (p *planted) Sometimes(name string, condition bool) {
	p.reached[name] = p.reached[name] || condition
}
func (p *planted) Buggify(string) bool { return false }
func (p *planted) Bug(name string) bool {
	p.made = p.made || name == p.bug
	return name == p.bug
}
func (p *planted) Observe(any) {}

// random runs many transactions under all kinds of trouble.
func random(seed uint64, loud bool) (w *world) {
	r := rand.New(rand.NewPCG(seed, 1))
	w = newWorld(2+int(seed%3), seed%2 == 0, seed%5 < 2)
	w.random, w.loud = r, loud
	if seed%7 == 0 {
		w.cfg.MaxFinished = 4
	}
	if seed%11 == 0 {
		w.cfg.MaxBranches = 2
	}
	for _, n := range w.nodes {
		n.resources["b"].cannot = false
	}
	defer func() {
		if v := recover(); v != nil {
			w.violation("panic: %v\n%s", v, debug.Stack())
		}
	}()
	w.open()
	w.chaos(1500, func() {
		at := w.order[r.IntN(len(w.order))]
		n := w.nodes[at]
		if n.core == nil || len(n.core.transactions) > 20 {
			return
		}
		var branches []Branch
		last := r.IntN(4) == 0
		for _, i := range r.Perm(2 * len(w.order))[:1+r.IntN(2*len(w.order))] {
			b := Branch{Node: w.order[i/2], Resource: []string{"a", "b"}[i%2]}
			if last && len(branches) == 0 {
				b.LastAgent = true
			}
			if r.IntN(5) == 0 {
				b.Work = []byte("work")
			}
			branches = append(branches, b)
		}
		id := w.begin(at, branches...)
		w.logf("node %d commits %v by %v", at, id, branches)
		for _, b := range branches {
			res := w.nodes[b.Node].resources[b.Resource]
			switch r.IntN(12) {
			case 0:
				res.votes[id] = VoteNo
			case 1, 2:
				if !res.onePhase || len(branches) > 1 && !b.LastAgent {
					res.votes[id] = VoteReadOnly
				}
			case 3:
				res.fails[CallCommit] = 2
			case 4:
				res.fails[CallAbort] = 2
			}
		}
		w.commit(id)
	})
	w.finish()
	return w
}

// A failed seed, with all that happens: -seeds 1 -first N -show.
func TestRandom(t *testing.T) {
	p := &planted{reached: map[string]bool{}}
	defer probe.Install(p)()
	committed, aborted := 0, 0
	count := *seeds
	if racing || testing.Short() {
		count = min(count, 100)
	}
	for seed := *first; seed < *first+count; seed++ {
		w := random(seed, *show)
		if len(w.broken) > 0 {
			t.Fatalf("seed %d:\n%s\n%s", seed, strings.Join(w.broken, "\n"), strings.Join(w.trace, "\n"))
		}
		for _, r := range w.results {
			if r.Outcome == OutcomeCommitted {
				committed++
			} else {
				aborted++
			}
		}
	}
	t.Logf("%d committed, %d aborted", committed, aborted)
	if count < 500 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.reached)) {
		if !p.reached[name] {
			t.Errorf("never reached: %s", name)
		}
	}
	if committed == 0 || aborted == 0 {
		t.Error(fmt.Sprint("one-sided: ", committed, " committed, ", aborted, " aborted"))
	}
}
