package sim

import (
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/synod-go/synod/internal/probe"
)

// T is the part of testing.TB that Run uses.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Config describes a run. The zero value is a good one, but for the seed.
type Config struct {
	// Seed is what everything follows from. 0 is one like any other.
	Seed uint64

	// MaxTime is how much virtual time may pass. Default: one hour.
	MaxTime time.Duration
	// MaxEvents is how many events may happen. Default: 50 million.
	MaxEvents uint64

	// Delay and Jitter are those of a message without faults, one way: Delay, and up to
	// Jitter more. Default: 200 and 100 µs, a rack's.
	Delay, Jitter time.Duration
	// Sync is how long a disk takes to make commits durable, without faults: half of it,
	// and up to all of it more. Default: 300 µs, that of a good disk.
	Sync time.Duration

	// Keep are the numbers of the faults that are injected, of those that the seed plans.
	// nil: all; empty: none. Shrink finds the few that a failure needs.
	Keep []int

	// TraceLines is how many lines of the end of the trace a failure shows. Default: 60.
	TraceLines int
	// Log gets all lines of the trace while they come. nil: nobody.
	Log io.Writer

	// Bugs are the mistakes that are put back into the library's code, by their names in
	// internal/probe: to see whether a simulation finds them.
	Bugs []string

	// Calm says that no branch of a Buggify is taken: for what measures, or counts.
	Calm bool

	// Observer is shown what protocol cores do, each on which node; the values are those
	// of internal/probe.Observe. nil: nobody.
	Observer func(node uint64, what any)
}

func (c *Config) setDefaults() error {
	for field, wrong := range map[string]bool{
		"MaxTime":    c.MaxTime < 0,
		"Delay":      c.Delay < 0,
		"Jitter":     c.Jitter < 0,
		"Sync":       c.Sync < 0,
		"TraceLines": c.TraceLines < 0,
	} {
		if wrong {
			return fmt.Errorf("sim: Config.%s is below 0", field)
		}
	}
	if c.MaxTime == 0 {
		c.MaxTime = time.Hour
	}
	if c.MaxEvents == 0 {
		c.MaxEvents = 50_000_000
	}
	if c.Delay == 0 {
		c.Delay, c.Jitter = 200*time.Microsecond, 100*time.Microsecond
	}
	if c.Sync == 0 {
		c.Sync = 300 * time.Microsecond
	}
	if c.TraceLines == 0 {
		c.TraceLines = 60
	}
	return nil
}

// Result describes what happened in a run.
type Result struct {
	Config  Config        // with its defaults
	Time    time.Duration // virtual
	Events  uint64
	Hash    uint64         // of the trace: the same seed gives the same
	Plan    int            // how many faults were planned
	Planned []string       // their kinds, and the rates that the seed drew
	Faults  map[string]int // injected, by kind
	Effects map[string]int // what they brought about: messages lost, commits torn, …
	Sites   map[string]int // of Sometimes: how often each was reached, 0 too
	Library map[string]int // the same of the library's own places
	Forced  map[string]int // of Buggify: how often each was taken, 0 too
	Err     error          // why the run failed; nil: it did not
	Check   string         // the invariant that was broken, where it has a name
	Trace   []string       // the last lines and events
}

// running keeps simulations of one process apart: they replace crypto/rand.Reader, and
// are the process's one probe.
var running sync.Mutex

// Run runs fn in a world made from the seed, and fails t if the run fails: with the
// seed, what was planned, the end of the trace, the faults that the failure needs, and
// how to see it again. For that it runs fn again with fewer faults, so that fn must begin
// from nothing each time. It is not called beside other tests that run in parallel.
//
// Where the environment has SYNOD_SIM, with a seed and faults as a report prints them,
// these take the place of the seed.
func Run(t T, seed uint64, fn func(w *World)) Result {
	t.Helper()
	c := Config{Seed: seed}
	replay, replaying, err := fromEnvironment()
	if err != nil {
		t.Fatalf("%v", err)
		return Result{}
	}
	if replaying {
		c = replay
	}
	r := Execute(c, fn)
	if r.Err == nil {
		return r
	}
	if !replaying {
		r, _ = Shrink(r, shrinkRuns, fn)
	}
	command := "go test -count=1"
	if named, ok := t.(interface{ Name() string }); ok {
		var parts []string
		for part := range strings.SplitSeq(named.Name(), "/") {
			parts = append(parts, "^"+part+"$")
		}
		command += " -run '" + strings.Join(parts, "/") + "'"
	}
	t.Fatalf("%s\nto see it again:\n  SYNOD_SIM='%s' %s", r.Report(), r.Config.replay(), command)
	return r
}

// shrinkRuns is how often Run runs a failure again to find a smaller one.
const shrinkRuns = 60

// Seeds returns count seeds from first on, for a test to range over. Where the
// environment has SYNOD_SIM, it is the one seed there.
func Seeds(first, count uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if c, replaying, err := fromEnvironment(); replaying && err == nil {
			yield(c.Seed)
			return
		}
		for seed := first; seed-first < count; seed++ {
			if !yield(seed) {
				return
			}
		}
	}
}

// replay is the part of a configuration that SYNOD_SIM holds.
func (c Config) replay() string {
	text := fmt.Sprintf("seed=%d", c.Seed)
	if c.Keep != nil {
		text += " keep="
		for i, k := range c.Keep {
			if i > 0 {
				text += ","
			}
			text += strconv.Itoa(k)
		}
	}
	return text
}

const variable = "SYNOD_SIM"

func fromEnvironment() (c Config, found bool, err error) {
	text := os.Getenv(variable)
	if text == "" {
		return c, false, nil
	}
	for field := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "seed":
			c.Seed, err = strconv.ParseUint(value, 10, 64)
		case "keep":
			c.Keep = []int{}
			for number := range strings.SplitSeq(value, ",") {
				if number == "" {
					continue
				}
				var k int
				if k, err = strconv.Atoi(number); err != nil {
					break
				}
				c.Keep = append(c.Keep, k)
			}
		default:
			err = errors.New("want seed=NUMBER and keep=NUMBER,…")
		}
		if err != nil {
			return c, false, fmt.Errorf("sim: %s: %q: %w", variable, field, err)
		}
	}
	return c, true, nil
}

// Report says in words how a run failed.
func (r Result) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "simulation with seed %d failed after %v and %d events: %v\n", r.Config.Seed, r.Time, r.Events, r.Err)
	c := r.Config
	fmt.Fprintf(&b, "messages take %v to %v, a sync %v to %v\n", c.Delay, c.Delay+c.Jitter, c.Sync/2, c.Sync/2+c.Sync)
	if len(r.Planned) > 0 {
		fmt.Fprintf(&b, "planned faults:\n")
		for _, p := range r.Planned {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	if c.Keep != nil {
		fmt.Fprintf(&b, "injected are only those with the numbers %v\n", c.Keep)
	}
	counts := func(title string, m map[string]int) {
		if len(m) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s:", title)
		for i, name := range slices.Sorted(maps.Keys(m)) {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s %d", name, m[name])
		}
		b.WriteByte('\n')
	}
	counts("injected", r.Faults)
	counts("effects", r.Effects)
	counts("rare branches taken", r.Forced)
	b.WriteString("the end of the trace:\n")
	for _, l := range r.Trace {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	return b.String()
}

// Execute is Run without a test: it reports and judges nothing.
func Execute(c Config, fn func(w *World)) Result {
	if err := c.setDefaults(); err != nil {
		return Result{Config: c, Err: err}
	}
	running.Lock()
	defer running.Unlock()
	w := newWorld(c)
	before := cryptorand.Reader
	cryptorand.Reader = reader{newRandom(c.Seed, "crypto")}
	remove := probe.Install((*worldProbe)(w))
	defer func() {
		cryptorand.Reader = before
		remove()
	}()
	w.run(fn)
	hash := uint64(w.trace)
	r := Result{Config: c, Time: w.now, Events: w.events, Plan: len(w.plan), Planned: w.rates, Err: w.failure, Check: w.failed}
	if w.failure != nil {
		r.Trace = w.ending()
	}
	r.Faults, r.Effects, r.Sites, r.Forced = maps.Clone(w.faults), maps.Clone(w.effects), w.own, make(map[string]int)
	r.Library = w.sites
	for name, b := range w.buggify {
		r.Forced[name] = b.taken
	}
	r.Hash = hash
	w.config.Log, w.watch = nil, nil
	w.unwind()
	return r
}

// unwind ends all tasks, so that nothing of the run remains.
func (w *World) unwind() {
	try := func(fn func()) {
		defer func() { _ = recover() }() // the run is over: nobody wants to know
		fn()
	}
	for _, n := range w.order {
		for n.process != nil {
			try(n.Crash)
		}
	}
	for len(w.tasks) > 0 {
		for _, t := range w.tasks {
			try(func() { w.kill(t) })
			delete(w.tasks, t.id)
		}
	}
}

func newWorld(c Config) *World {
	w := &World{
		config:  c,
		random:  newRandom(c.Seed, "world"),
		tasks:   make(map[uint64]*task),
		nodes:   make(map[uint64]*Node),
		links:   make(map[[2]uint64]*Link),
		recent:  make([]record, c.TraceLines),
		faults:  make(map[string]int),
		effects: make(map[string]int),
		own:     make(map[string]int),
		sites:   make(map[string]int),
		bugs:    make(map[string]bool),
		buggify: make(map[string]*branch),
		watch:   c.Observer,
	}
	for _, b := range c.Bugs {
		w.bugs[b] = true
	}
	return w
}

// ending returns the last lines of the trace, with the last events between them.
func (w *World) ending() []string {
	lines := w.lines
	if keep := w.config.TraceLines; len(lines) > keep {
		lines = lines[len(lines)-keep:]
	}
	var out []string
	show := func(at time.Duration, text string) { out = append(out, fmt.Sprintf("%12.6fs  %s", at.Seconds(), text)) }
	n := uint64(len(w.recent))
	first := w.events - min(w.events, n)
	for i := first; i < w.events; i++ {
		e := w.recent[i%n]
		for len(lines) > 0 && lines[0].at <= e.at {
			show(lines[0].at, lines[0].text)
			lines = lines[1:]
		}
		switch {
		case e.kind == eventMessage:
			show(e.at, fmt.Sprintf("· message from node %d to node %d", e.a, e.b))
		case e.kind != eventFault && e.a != 0:
			show(e.at, fmt.Sprintf("· %s of node %d", eventNames[e.kind], e.a))
		}
	}
	for _, l := range lines {
		show(l.at, l.text)
	}
	return out
}

// reader makes a random source an io.Reader.
type reader struct{ random *rand.Rand }

var _ io.Reader = reader{}

func (r reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.random.Uint32())
	}
	return len(p), nil
}
