package threephase

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

var (
	seeds = flag.Uint64("seeds", 200, "how many random runs")
	first = flag.Uint64("first", 1, "the first seed")
	show  = flag.Bool("show", false, "print what happens in a run that fails")
)

// odds are those of all random runs here.
var odds = commitmenttest.Odds{Of: 1000, Begin: 18, Crash: 48, Cut: 58, Tick: 150, Repeat: 180, Act: 600}

// random runs many transactions under all kinds of trouble: crashes, loss, repetition, reordering, and partitions that come and go.
func random(seed uint64, loud bool) (w *world) {
	r := rand.New(rand.NewPCG(seed, 1))
	w = newWorld(2+int(seed%4), Enhanced)
	w.Random, w.Loud = r, loud
	if seed%7 == 0 {
		w.cfg.MaxFinished = 4
	}
	if seed%11 == 0 {
		w.cfg.MaxBranches = 2
	}
	if seed%2 == 0 {
		w.cfg.PeerTicks, w.cfg.InquireTicks, w.cfg.ResendTicks = 1, 3, 1 // elections all the time
	}
	w.Guard(func() {
		w.Open()
		w.Chaos(1500, odds, func() {
			at := w.Order[r.IntN(len(w.Order))]
			n := w.Nodes[at]
			if n.Core == nil || len(n.Core.transactions) > 20 {
				return
			}
			var list []Participant
			for _, i := range r.Perm(2 * len(w.Order))[:1+r.IntN(min(5, 2*len(w.Order)))] {
				p := Participant{Branch: twophase.Branch{Node: w.Order[i/2], Resource: []string{"a", "b"}[i%2]}}
				if r.IntN(5) == 0 {
					p.Work = []byte("work")
				}
				if r.IntN(5) == 0 {
					p.Weight = uint32(r.IntN(4))
				}
				list = append(list, p)
			}
			id := w.Begin(at, list...)
			w.Logf("node %d commits %v by %v", at, id, list)
			for _, p := range list {
				res := w.Nodes[p.Node].Resources[p.Resource]
				switch r.IntN(12) {
				case 0:
					res.Votes[id] = twophase.VoteNo
				case 1, 2:
					res.Votes[id] = twophase.VoteReadOnly
				case 3:
					res.Fails[twophase.CallCommit] = 2
				case 4:
					res.Fails[twophase.CallAbort] = 2
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
		w.Random = r
		w.cfg.PeerTicks = 1 + r.IntN(8)
		w.Open()
		var nodes []uint64
		for i := range uint64(count) {
			nodes = append(nodes, i+2)
		}
		w.Chaos(800, odds, func() {
			if n := w.Nodes[1]; n.Core != nil && len(n.Core.transactions) < 5 {
				w.Commit(w.Begin(1, on(nodes...)...))
			}
		})
		// The coordinator goes, and as many as can.
		w.Net = nil
		w.DownFor = 1 << 30
		r.Shuffle(count, func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		for _, id := range append([]uint64{1}, nodes[:(count-1)/2]...) {
			if n := w.Nodes[id]; n.Core != nil {
				n.Crash()
			}
			w.Nodes[id].Down = 1 << 30
		}
		doubts := func() (n int) {
			for _, id := range nodes {
				if c := w.Nodes[id].Core; c != nil {
					n += len(c.InDoubt())
				}
			}
			return n
		}
		for range 40 {
			w.Settle()
			w.Tick() // those who were down start
		}
		ended += doubts()
		for range 300 {
			w.Settle()
			w.Tick()
		}
		if n := doubts(); n > 0 {
			w.Stuck()
			t.Fatalf("seed %d: %d branches are blocked:\n%s", seed, n, strings.Join(w.Broken, "\n"))
		}
		for id := range w.Asked {
			if did, not := w.Outcomes(id, true); len(did) > 0 && len(not) > 0 {
				t.Fatalf("seed %d: %v is split: %v, %v", seed, id, did, not)
			}
		}
		for _, n := range w.Nodes {
			if n.Core == nil {
				n.Start()
			}
		}
		w.Finish()
		if len(w.Broken) > 0 {
			t.Fatalf("seed %d: %s", seed, strings.Join(w.Broken, "\n"))
		}
	}
	t.Logf("%d branches were still in doubt after 40 ticks", ended)
}
