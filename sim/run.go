package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// T is the part of testing.TB that Run uses.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Result describes a run.
type Result struct {
	Seed   uint64
	Time   time.Duration // virtual
	Events uint64
	Hash   uint64 // of the trace
	Faults map[string]int
	Err    error
	Trace  []string // the last lines
}

// running keeps simulations of one process apart: they replace crypto/rand.Reader.
var running sync.Mutex

// Run runs fn in a world made from the seed, and fails t if the run fails, with the
// seed and the end of the trace.
func Run(t T, seed uint64, fn func(w *World)) Result {
	t.Helper()
	r := Execute(seed, Options{}, fn)
	if r.Err != nil {
		t.Fatalf("%s", r.Report())
	}
	return r
}

// Report says in words how a run failed.
func (r Result) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "simulation with seed %d failed after %v and %d events: %v\n", r.Seed, r.Time, r.Events, r.Err)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, "  %s: %d\n", name, r.Faults[name])
	}
	for _, l := range r.Trace {
		fmt.Fprintln(&b, l)
	}
	return b.String()
}

// Execute is Run without a test.
func Execute(seed uint64, o Options, fn func(w *World)) Result {
	running.Lock()
	defer running.Unlock()
	o.setDefaults()
	w := &World{
		seed:    seed,
		options: o,
		random:  rand.New(rand.NewPCG(seed, 0x5eed)),
		trace:   fnv.New64a(),
		nodes:   make(map[uint64]*Node),
		faults:  make(map[string]int),
	}
	w.network = network{world: w, links: make(map[[2]uint64]*Link)}
	before := cryptorand.Reader
	cryptorand.Reader = reader{rand.New(rand.NewPCG(seed, 0xc0de))}
	defer func() { cryptorand.Reader = before }()
	w.run(fn)
	for _, n := range w.order {
		n.Crash() // ends its tasks
	}
	r := Result{Seed: seed, Time: w.now, Events: w.events, Hash: w.trace.Sum64(), Faults: w.faults, Err: w.failure}
	log := w.log
	if len(log) > o.TraceLines {
		log = log[len(log)-o.TraceLines:]
	}
	for _, l := range log {
		r.Trace = append(r.Trace, fmt.Sprintf("%12.6fs  %s", l.at.Seconds(), l.text))
	}
	return r
}

// hit counts a fault.
func (w *World) hit(name string) { w.faults[name]++ }

// reader makes a random source an io.Reader.
type reader struct{ random *rand.Rand }

var _ io.Reader = reader{}

func (r reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.random.Uint32())
	}
	return len(p), nil
}
