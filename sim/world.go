package sim

import (
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// epoch is when virtual time begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one simulated cluster and its time. It is used by the function that Run was
// given and by the tasks that come from it, and by nothing that runs beside them.
type World struct {
	config  Config
	random  *rand.Rand // what happens without faults, and everything that is asked for
	now     time.Duration
	heap    events
	seq     uint64
	ready   []*task
	current *task
	waiters []*task // wait with a context that can end
	taskID  uint64
	tasks   map[uint64]*task // the world's own
	trace   trace
	events  uint64
	nodes   map[uint64]*Node
	order   []*Node
	links   map[[2]uint64]*Link
	checks  []check
	failure error
	failed  string // by what
	ended   bool

	recent  []record // a ring: the last events
	lines   []line   // the last lines of the log
	healed  bool
	plan    []*injection
	rates   []string // of the kinds of faults, as the seed drew them
	faults  map[string]int
	effects map[string]int
	own     map[string]int // sites of the application
	sites   map[string]int // of the library
	bugs    map[string]bool
	buggify map[string]*branch
	watch   func(node uint64, what any)
}

// trace is a hash of all that happens: a multiplication and a fold for every word.
type trace uint64

func (t *trace) word(x uint64) {
	hi, lo := bits.Mul64(uint64(*t)^x^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	*t = trace(hi ^ lo)
}

func (t *trace) bytes(b []byte) {
	t.word(uint64(len(b)))
	for len(b) >= 8 {
		t.word(uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56)
		b = b[8:]
	}
	var rest uint64
	for i, x := range b {
		rest |= uint64(x) << (8 * i)
	}
	t.word(rest)
}

// newRandom returns a source that depends on the seed and on what it is for, so that
// one does not disturb the other.
func newRandom(seed uint64, purpose string) *rand.Rand {
	var t trace
	t.bytes([]byte(purpose))
	return rand.New(rand.NewPCG(seed, uint64(t)))
}

type check struct {
	name string
	fn   func() error
}

type eventKind uint8

const (
	eventTask eventKind = iota + 1
	eventTimer
	eventMessage
	eventSync
	eventFault
)

var eventNames = [...]string{"", "task", "timer", "message", "sync", "fault"}

// event is something that will happen. What a and b are depends on the kind: sender
// and receiver, or a node.
type event struct {
	at   time.Duration
	seq  uint64
	kind eventKind
	a, b uint64
	fn   func()
}

// record is an event as the end of the trace shows it.
type record struct {
	at   time.Duration
	kind eventKind
	a, b uint64
}

type line struct {
	at   time.Duration
	text string
}

// events is a heap by time, and for one time by order of creation.
type events []event

func (h events) less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *events) push(e event) {
	*h = append(*h, e)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 4
		if !s.less(i, parent) {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *events) pop() event {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0] = s[last]
	s[last] = event{}
	s = s[:last]
	*h = s
	for i := 0; ; {
		least := i
		for child := 4*i + 1; child <= 4*i+4 && child < last; child++ {
			if s.less(child, least) {
				least = child
			}
		}
		if least == i {
			return top
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}

// after lets something happen d from now.
func (w *World) after(d time.Duration, kind eventKind, a, b uint64, fn func()) {
	w.seq++
	w.heap.push(event{at: w.now + max(d, 0), seq: w.seq, kind: kind, a: a, b: b, fn: fn})
}

// note feeds the trace.
func (w *World) note(kind eventKind, a, b uint64) {
	w.trace.word(uint64(w.now)<<4 | uint64(kind))
	w.trace.word(a<<32 ^ b)
	if kind != eventTask {
		w.recent[w.events%uint64(len(w.recent))] = record{w.now, kind, a, b}
		w.events++
	}
}

// Logf adds a line to the trace. The end of it is shown when the run fails.
func (w *World) Logf(format string, args ...any) {
	w.print(fmt.Sprintf(format, args...))
}

func (w *World) print(text string) {
	w.trace.bytes([]byte(text))
	w.lines = append(w.lines, line{w.now, text})
	if keep := w.config.TraceLines; len(w.lines) > 2*keep {
		w.lines = append(w.lines[:0], w.lines[len(w.lines)-keep:]...)
	}
	if w.config.Log != nil {
		fmt.Fprintf(w.config.Log, "%12.6fs  %s\n", w.now.Seconds(), text)
	}
}

// Seed returns the seed of this run, for what depends on it beyond Rand.
func (w *World) Seed() uint64 { return w.config.Seed }

// Now returns how much virtual time has passed.
func (w *World) Now() time.Duration { return w.now }

// Rand returns a random source that depends on the seed alone.
func (w *World) Rand() *rand.Rand { return w.random }

// Context returns the context of a task of the world, which belongs to no node.
func (w *World) Context() context.Context {
	return executor.With(context.Background(), &sandbox{world: w})
}

// Go runs fn as a task of the world: a client, say, that no crash of a node ends. Its
// context serves the library's blocking calls. What it returns waits for its end; one
// task may.
func (w *World) Go(fn func(ctx context.Context)) (join func(ctx context.Context) error) {
	ctx, over := w.Context(), executor.NewEvent()
	w.spawn(nil, func() {
		defer over.Set()
		fn(ctx)
	})
	return func(ctx context.Context) error { return executor.From(ctx, nil).Wait(ctx, over) }
}

// Check adds an invariant: fn runs after every event, and its error fails the run. It
// must not wait.
func (w *World) Check(name string, fn func() error) {
	w.checks = append(w.checks, check{name, fn})
}

// Fail ends the run as failed. The first failure counts. It returns: what must not go on
// returns, too.
func (w *World) Fail(err error) { w.fail("", err) }

// Failf is Fail with the name of what was broken, so that a failure can be told from
// another: an invariant is known by it in reports and to Shrink.
func (w *World) Failf(name, format string, args ...any) {
	w.fail(name, fmt.Errorf(format, args...))
}

// Failed reports whether the run has failed. A task that goes on for ever asks.
func (w *World) Failed() bool { return w.failure != nil }

func (w *World) fail(name string, err error) {
	if w.failure == nil {
		if w.failed = name; name != "" {
			err = fmt.Errorf("%s: %w", name, err)
		}
		w.failure = err
		text, _, _ := strings.Cut(err.Error(), "\n") // what follows is a stack, with addresses
		w.Logf("FAILED: %s", text)
	}
	w.ended = true
}

// some returns a random duration below d.
func some(r *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(d)))
}

// run runs main and everything that comes from it.
func (w *World) run(main func(w *World)) {
	defer func() {
		if v := recover(); v != nil {
			w.fail("panic", panicError(v))
		}
	}()
	done := false
	w.spawn(nil, func() {
		main(w)
		done = true
	})
	for !done && !w.ended {
		w.drain()
		if done || w.ended {
			break
		}
		if len(w.heap) == 0 {
			w.fail("stuck", fmt.Errorf("sim: everything waits, and nothing will happen"))
			break
		}
		e := w.heap.pop()
		if e.at > w.config.MaxTime || w.events > w.config.MaxEvents {
			w.fail("endless", fmt.Errorf("sim: not done after %v and %d events: see Config.MaxTime and MaxEvents", w.now, w.events))
			break
		}
		w.now = e.at
		w.note(e.kind, e.a, e.b)
		e.fn()
	}
	w.ended = true
}

// drain runs tasks until all wait.
func (w *World) drain() {
	for !w.ended {
		// A context may have ended without an event of ours: somebody cancelled it.
		waiters := w.waiters[:0]
		for _, t := range w.waiters {
			switch {
			case t.ctx == nil || t.done:
				t.listed = false
			case t.ctx.Err() != nil:
				t.listed = false
				w.wake(t)
			default:
				waiters = append(waiters, t)
			}
		}
		clear(w.waiters[len(waiters):])
		w.waiters = waiters
		if len(w.ready) == 0 {
			break
		}
		// Any order is possible on a real machine: the seed picks one.
		i := 0
		if len(w.ready) > 1 {
			i = w.random.IntN(len(w.ready))
		}
		t := w.ready[i]
		w.ready = slices.Delete(w.ready, i, i+1)
		if n := t.owner(); n != nil && n.paused {
			t.ready = false
			n.backlog = append(n.backlog, func() { w.wake(t) })
			continue
		}
		w.resume(t)
	}
	for _, c := range w.checks {
		if w.ended {
			return
		}
		if err := c.fn(); err != nil {
			w.fail(c.name, err)
		}
	}
}
