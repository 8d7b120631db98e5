package threephase

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
	"github.com/synod-go/synod/internal/twophase"
)

var (
	seeds = flag.Uint64("seeds", 200, "how many random runs")
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

// random runs many transactions under all kinds of trouble: crashes, loss, repetition, reordering, and partitions that come and go.
func random(seed uint64, loud bool) (w *world) {
	r := rand.New(rand.NewPCG(seed, 1))
	w = newWorld(2+int(seed%4), Enhanced)
	w.random, w.loud = r, loud
	if seed%7 == 0 {
		w.cfg.MaxFinished = 4
	}
	if seed%11 == 0 {
		w.cfg.MaxBranches = 2
	}
	if seed%2 == 0 {
		w.cfg.PeerTicks, w.cfg.InquireTicks, w.cfg.ResendTicks = 1, 3, 1 // elections all the time
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
		var list []Participant
		for _, i := range r.Perm(2 * len(w.order))[:1+r.IntN(min(5, 2*len(w.order)))] {
			p := Participant{Branch: twophase.Branch{Node: w.order[i/2], Resource: []string{"a", "b"}[i%2]}}
			if r.IntN(5) == 0 {
				p.Work = []byte("work")
			}
			if r.IntN(5) == 0 {
				p.Weight = uint32(r.IntN(4))
			}
			list = append(list, p)
		}
		id := w.begin(at, list...)
		w.logf("node %d commits %v by %v", at, id, list)
		for _, p := range list {
			res := w.nodes[p.Node].resources[p.Resource]
			switch r.IntN(12) {
			case 0:
				res.votes[id] = twophase.VoteNo
			case 1, 2:
				res.votes[id] = twophase.VoteReadOnly
			case 3:
				res.fails[twophase.CallCommit] = 2
			case 4:
				res.fails[twophase.CallAbort] = 2
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
	outcomes := map[twophase.Outcome]int{}
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
	if outcomes[committed] == 0 || outcomes[aborted] == 0 {
		t.Error(fmt.Sprint("one-sided: ", outcomes))
	}
}

// After any trouble, whatever was elected and lost again in it: those who are a quorum, and reach each other, end all transactions, though the
// coordinator and the others never come back. When they do they hear of it.
func TestAConnectedQuorumNeverBlocks(t *testing.T) {
	runs := *seeds
	if racing || testing.Short() {
		runs = min(runs, 100)
	}
	ended := 0
	for seed := *first; seed < *first+runs; seed++ {
		r := rand.New(rand.NewPCG(seed, 2))
		count := 3 + r.IntN(3)
		w := newWorld(count+1, Enhanced)
		w.random = r
		w.cfg.PeerTicks = 1 + r.IntN(8)
		w.open()
		var nodes []uint64
		for i := range uint64(count) {
			nodes = append(nodes, i+2)
		}
		w.chaos(800, func() {
			if n := w.nodes[1]; n.core != nil && len(n.core.transactions) < 5 {
				w.commit(w.begin(1, on(nodes...)...))
			}
		})
		// The coordinator goes, and as many as can.
		w.net = nil
		w.downFor = 1 << 30
		r.Shuffle(count, func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		for _, id := range append([]uint64{1}, nodes[:(count-1)/2]...) {
			if n := w.nodes[id]; n.core != nil {
				n.crash()
			}
			w.nodes[id].down = 1 << 30
		}
		doubts := func() (n int) {
			for _, id := range nodes {
				if c := w.nodes[id].core; c != nil {
					n += len(c.InDoubt())
				}
			}
			return n
		}
		for range 40 {
			w.settle()
			w.tick() // those who were down start
		}
		ended += doubts()
		for range 300 {
			w.settle()
			w.tick()
		}
		if n := doubts(); n > 0 {
			w.stuck()
			t.Fatalf("seed %d: %d branches are blocked:\n%s", seed, n, strings.Join(w.broken, "\n"))
		}
		for id := range w.asked {
			if did, not := w.outcomes(id, true); len(did) > 0 && len(not) > 0 {
				t.Fatalf("seed %d: %v is split: %v, %v", seed, id, did, not)
			}
		}
		for _, n := range w.nodes {
			if n.core == nil {
				n.start()
			}
		}
		w.finish()
		if len(w.broken) > 0 {
			t.Fatalf("seed %d: %s", seed, strings.Join(w.broken, "\n"))
		}
	}
	t.Logf("%d branches were still in doubt after 40 ticks", ended)
}
