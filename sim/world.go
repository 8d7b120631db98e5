package sim

import (
	"container/heap"
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// epoch is when every world begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// World is one simulated run. Its methods are called from its tasks.
type World struct {
	seed    uint64
	options Options
	random  *rand.Rand
	now     time.Duration
	heap    events
	seq     uint64
	ready   []*task
	current *task
	waiters []*task // wait with a context that can end
	taskID  uint64
	trace   hash.Hash64
	events  uint64
	log     []line
	nodes   map[uint64]*Node
	order   []*Node
	network network
	checks  []check
	failure error
	ended   bool
	faults  map[string]int
	era     uint64 // how often everything has healed
}

// Options tune a run. The zero value is good.
type Options struct {
	// MaxTime is how much virtual time may pass. Default: one hour.
	MaxTime time.Duration
	// MaxEvents is how many events may happen. Default: 50 million.
	MaxEvents uint64
	// Delay and Jitter are those of a message in quiet times, one way. Default: 200
	// and 100 µs.
	Delay, Jitter time.Duration
	// Sync is how long a disk takes to make a commit durable, in quiet times; half of
	// it is random. Default: 300 µs.
	Sync time.Duration
	// TraceLines is how many lines of the end of the trace a failure shows. Default:
	// 60.
	TraceLines int
}

func (o *Options) setDefaults() {
	if o.MaxTime == 0 {
		o.MaxTime = time.Hour
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 50_000_000
	}
	if o.Delay == 0 {
		o.Delay, o.Jitter = 200*time.Microsecond, 100*time.Microsecond
	}
	if o.Sync == 0 {
		o.Sync = 300 * time.Microsecond
	}
	if o.TraceLines == 0 {
		o.TraceLines = 60
	}
}

type check struct {
	name string
	fn   func() error
}

type line struct {
	at   time.Duration
	text string
}

type eventKind uint8

const (
	eventTask eventKind = iota + 1
	eventTimer
	eventMessage
	eventSync
	eventFault
	eventLog
)

type event struct {
	at   time.Duration
	seq  uint64
	kind eventKind
	fn   func()
}

type events []*event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(*event)) }
func (h *events) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// after schedules fn.
func (w *World) after(d time.Duration, kind eventKind, fn func()) {
	w.seq++
	heap.Push(&w.heap, &event{at: w.now + max(d, 0), seq: w.seq, kind: kind, fn: fn})
}

// note feeds the trace hash.
func (w *World) note(kind eventKind, what uint64) {
	w.events++
	var b [17]byte
	b[0] = byte(kind)
	binary.LittleEndian.PutUint64(b[1:], uint64(w.now))
	binary.LittleEndian.PutUint64(b[9:], what)
	w.trace.Write(b[:])
}

// Logf adds a line to the trace, which a failure shows the end of.
func (w *World) Logf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.note(eventLog, uint64(len(text)))
	w.trace.Write([]byte(text))
	w.log = append(w.log, line{w.now, text})
	if keep := 4 * w.options.TraceLines; len(w.log) > 2*keep {
		w.log = slices.Clone(w.log[len(w.log)-keep:])
	}
}

// Now returns the virtual time since the world began.
func (w *World) Now() time.Duration { return w.now }

// Rand returns the world's source of randomness, a function of the seed.
func (w *World) Rand() *rand.Rand { return w.random }

// Go runs fn as a task that belongs to no node, and so survives every crash: a
// client, say.
func (w *World) Go(fn func(ctx context.Context)) {
	s := &sandbox{world: w}
	ctx := executor.With(context.Background(), s)
	w.spawn(nil, func() { fn(ctx) })
}

// Sleep lets virtual time pass. It returns early, with the context's error, if ctx
// is done.
func (w *World) Sleep(ctx context.Context, d time.Duration) error {
	e := executor.NewEvent()
	w.after(d, eventTimer, e.Set)
	return executor.From(ctx, nil).Wait(ctx, e)
}

// WithTimeout is context.WithTimeout in virtual time.
func (w *World) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &deadline{Context: ctx, world: w, at: w.now + d, done: make(chan struct{})}
	w.after(d, eventTimer, func() { c.end(context.DeadlineExceeded) })
	return c, func() { c.end(context.Canceled) }
}

// Check has fn called after every event from now on. The first error ends the run.
func (w *World) Check(name string, fn func() error) {
	w.checks = append(w.checks, check{name, fn})
}

// Fail ends the run as failed.
func (w *World) Fail(err error) {
	if w.failure == nil {
		w.failure = err
		w.Logf("FAILED: %v", err)
	}
	w.ended = true
}

// run drives the world until main has returned.
func (w *World) run(main func(w *World)) {
	defer func() {
		if v := recover(); v != nil {
			w.Fail(fmt.Errorf("panic: %v", v))
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
			w.Fail(fmt.Errorf("sim: everything waits, and nothing will happen"))
			break
		}
		e := heap.Pop(&w.heap).(*event)
		if e.at > w.options.MaxTime || w.events > w.options.MaxEvents {
			w.Fail(fmt.Errorf("sim: not done after %v and %d events", w.now, w.events))
			break
		}
		w.now = e.at
		w.note(e.kind, e.seq)
		e.fn()
	}
	w.ended = true
}

// drain runs the tasks that are ready, those that they wake too, and the checks.
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
		i := w.random.IntN(len(w.ready))
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
			w.Fail(fmt.Errorf("%s: %w", c.name, err))
		}
	}
}

// Seed returns the seed of the run.
func (w *World) Seed() uint64 { return w.seed }

// Context returns a context whose blocking calls wait in this world. It is for the
// function that Run calls; other tasks get one of their own.
func (w *World) Context() context.Context {
	return executor.With(context.Background(), &sandbox{world: w})
}

// Wait waits until ctx is done.
func (w *World) Wait(ctx context.Context) {
	_ = executor.From(ctx, nil).Wait(ctx, executor.NewEvent())
}
