package twophase_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

var (
	seeds = flag.Uint64("seeds", 600, "how many random runs")
	first = flag.Uint64("first", 1, "the first seed")
	show  = flag.Bool("show", false, "print what happens in a run that fails")
)

// odds are those of all random runs here. The network is never cut.
var odds = commitmenttest.Odds{Of: 100, Begin: 4, Crash: 5, Cut: 5, Tick: 15, Repeat: 18, Act: 60}

// random runs many transactions under all kinds of trouble.
func random(seed uint64, loud bool) (w *world) {
	r := rand.New(rand.NewPCG(seed, 1))
	w = newWorld(2+int(seed%3), seed%2 == 0, seed%5 < 2)
	w.Random, w.Loud = r, loud
	if seed%7 == 0 {
		w.cfg.MaxFinished = 4
	}
	if seed%11 == 0 {
		w.cfg.MaxBranches = 2
	}
	for _, n := range w.Nodes {
		n.Resources["b"].Cannot = false
	}
	w.Guard(func() {
		w.Open()
		w.Chaos(1500, odds, func() {
			at := w.Order[r.IntN(len(w.Order))]
			n := w.Nodes[at]
			if n.Core == nil {
				return
			}
			if transactions, _ := n.Core.Pending(); transactions > 20 {
				return
			}
			var branches []Branch
			last := r.IntN(4) == 0
			for _, i := range r.Perm(2 * len(w.Order))[:1+r.IntN(2*len(w.Order))] {
				b := Branch{Node: w.Order[i/2], Resource: []string{"a", "b"}[i%2]}
				if last && len(branches) == 0 {
					b.LastAgent = true
				}
				if r.IntN(5) == 0 {
					b.Work = []byte("work")
				}
				branches = append(branches, b)
			}
			id := w.Begin(at, branches...)
			w.Logf("node %d commits %v by %v", at, id, branches)
			for _, b := range branches {
				res := w.Nodes[b.Node].Resources[b.Resource]
				switch r.IntN(12) {
				case 0:
					res.Votes[id] = VoteNo
				case 1, 2:
					if !res.OnePhase || len(branches) > 1 && !b.LastAgent {
						res.Votes[id] = VoteReadOnly
					}
				case 3:
					res.Fails[CallCommit] = 2
				case 4:
					res.Fails[CallAbort] = 2
				}
			}
			w.Commit(id)
		})
		w.Finish()
	})
	return w
}

// A failed seed, with all that happens: -seeds 1 -first N -show.
func TestRandom(t *testing.T) {
	count := *seeds
	if racing || testing.Short() {
		count = min(count, 100)
	}
	commitmenttest.Random(t, *first, count, func(seed uint64) *simulated { return random(seed, *show).simulated })
}
