package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// errKilled unwinds a task whose node has crashed.
var errKilled = errors.New("sim: the task's node has crashed")

// panicError makes an error of what somebody panicked with.
func panicError(v any) error {
	if p, ok := v.(*taskPanic); ok {
		return fmt.Errorf("%v\n%s", p.value, p.stack)
	}
	return fmt.Errorf("%v\n%s", v, debug.Stack())
}

// taskPanic keeps where a task panicked: the world hears of it on another stack.
type taskPanic struct {
	value any
	stack []byte
}

// task is a coroutine: it runs until it waits, and then gives the thread back.
type task struct {
	id       uint64
	node     *process // nil: the world's
	siblings map[uint64]*task
	next     func() (struct{}, bool)
	yield    func(struct{}) bool
	ready    bool // in the world's queue
	done     bool
	killed   bool
	ctx      context.Context // what it waits with, if that can end
	listed   bool            // among the world's waiters
	failed   *taskPanic      // what ended it
}

func (w *World) spawn(p *process, fn func()) {
	w.taskID++
	t := &task{id: w.taskID, node: p}
	t.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if v := recover(); v != nil && v != any(errKilled) {
				t.failed = &taskPanic{v, debug.Stack()}
			}
		}()
		if !t.killed {
			fn()
		}
	})
	t.siblings = w.tasks
	if p != nil {
		t.siblings = p.tasks
	}
	t.siblings[t.id] = t
	w.wake(t)
}

// owner returns the node whose process the task belongs to, while that lives.
func (t *task) owner() *Node {
	if t.node == nil || t.node.dead {
		return nil
	}
	return t.node.node
}

func (w *World) wake(t *task) {
	if !t.ready && !t.done {
		t.ready = true
		w.ready = append(w.ready, t)
	}
}

func (w *World) resume(t *task) {
	t.ready = false
	if t.done {
		return
	}
	w.note(eventTask, t.id, 0)
	before := w.current
	w.current = t
	_, more := t.next()
	w.current = before
	if !more {
		t.done = true
		delete(t.siblings, t.id)
		if t.failed != nil {
			panic(t.failed)
		}
	}
}

// kill unwinds a task. The one that runs now is unwound when it next waits.
func (w *World) kill(t *task) {
	t.killed = true
	if !t.done && t != w.current {
		w.resume(t)
	}
}

// process is one run of a node.
type process struct {
	world *World
	node  *Node
	dead  bool
	tasks map[uint64]*task
}

// sandbox is the executor of a process, or of the world.
type sandbox struct {
	world   *World
	process *process
}

var (
	_ executor.Executor  = (*sandbox)(nil)
	_ executor.WallClock = (*sandbox)(nil)
)

func (s *sandbox) dead() bool { return s.process != nil && s.process.dead }

// Now implements executor.Executor: the monotonic clock, which began somewhere and runs
// at another speed than that of others, but never jumps.
func (s *sandbox) Now() time.Time {
	if s.process == nil {
		return epoch.Add(s.world.now)
	}
	return epoch.Add(s.process.node.clock.at(s.world.now))
}

// Wall implements executor.WallClock.
func (s *sandbox) Wall() time.Time {
	if s.process == nil {
		return s.Now()
	}
	return epoch.Add(s.world.now + s.process.node.clock.jumped)
}

// Uint64 implements executor.Executor.
func (s *sandbox) Uint64() uint64 { return s.world.random.Uint64() }

// Go implements executor.Executor.
func (s *sandbox) Go(fn func()) {
	if !s.dead() {
		s.world.spawn(s.process, fn)
	}
}

// Yield implements executor.Executor.
func (s *sandbox) Yield() {
	t := s.running()
	s.world.wake(t)
	s.park(t)
}

// running returns the task that runs now.
func (s *sandbox) running() *task {
	t := s.world.current
	if t == nil {
		panic("sim: a call that waits was made outside of a task, in a check or a handler of messages say: start one with World.Go or sim.Go")
	}
	return t
}

func (s *sandbox) park(t *task) {
	if t.killed || !t.yield(struct{}{}) || t.killed {
		panic(errKilled)
	}
}

// Wait implements executor.Executor.
func (s *sandbox) Wait(ctx context.Context, e *executor.Event) error {
	t := s.running()
	if at, ok := ctx.Deadline(); ok && at.Sub(epoch) > 20*365*24*time.Hour {
		s.world.fail("real time", errors.New("sim: a task waits with a context that ends on real time, as those of context.WithTimeout and "+
			"context.WithDeadline do: use sim.WithTimeout"))
	}
	defer e.OnSet(nil)
	for {
		if t.killed {
			panic(errKilled)
		}
		if e.TryWait() {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		e.OnSet(func() { s.world.wake(t) })
		if ctx.Done() != nil {
			t.ctx = ctx
			if !t.listed {
				t.listed = true
				s.world.waiters = append(s.world.waiters, t)
			}
		}
		s.park(t)
		t.ctx = nil
	}
}

// timer is executor.Timer in virtual time, on the clock of its node.
type timer struct {
	sandbox *sandbox
	fn      func()
	version uint64 // of the pending call; others are void
	pending bool
}

// AfterFunc implements executor.Executor.
func (s *sandbox) AfterFunc(d time.Duration, fn func()) executor.Timer {
	t := &timer{sandbox: s, fn: fn}
	t.Reset(d)
	return t
}

// Stop implements executor.Timer.
func (t *timer) Stop() bool {
	was := t.pending
	t.pending = false
	t.version++
	return was
}

// Reset implements executor.Timer.
func (t *timer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.pending = true
	version := t.version
	fire := func() {
		if t.version == version && !t.sandbox.dead() {
			t.pending = false
			t.fn()
		}
	}
	p, id := t.sandbox.process, uint64(0)
	if p != nil {
		id = p.node.ID
		d = p.node.clock.takes(t.sandbox.world.now, d)
	}
	t.sandbox.world.after(d, eventTimer, id, 0, func() {
		if p != nil && !p.dead && p.node.paused {
			p.node.backlog = append(p.node.backlog, fire)
			return
		}
		fire()
	})
	return was
}

// deadline is a context that ends in virtual time.
type deadline struct {
	context.Context
	at    time.Time
	done  chan struct{}
	err   error
	after []*func()
}

// AfterFunc is what package context asks of contexts that are not its own: without it, context.WithCancel would have a goroutine
// wait for the end, which runs whenever it likes.
func (d *deadline) AfterFunc(fn func()) (stop func() bool) {
	if d.Err() != nil {
		fn()
		return func() bool { return false }
	}
	p := &fn
	d.after = append(d.after, p)
	return func() bool {
		i := slices.Index(d.after, p)
		if i >= 0 {
			d.after = slices.Delete(d.after, i, i+1)
		}
		return i >= 0
	}
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }
func (d *deadline) Done() <-chan struct{}       { return d.done }

func (d *deadline) Err() error {
	if d.err == nil {
		if err := d.Context.Err(); err != nil {
			d.end(err)
		}
	}
	return d.err
}

func (d *deadline) end(err error) {
	if d.err == nil {
		d.err = err
		close(d.done)
		after := d.after
		d.after = nil
		for _, fn := range after {
			(*fn)()
		}
	}
}
