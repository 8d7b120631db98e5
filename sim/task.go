package sim

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/synod-go/synod/internal/executor"
)

// errKilled unwinds a task whose node has crashed.
var errKilled = errors.New("sim: the task's node has crashed")

// task is a coroutine: it runs until it waits, and goes on when what it waited for
// has happened.
type task struct {
	id     uint64
	node   *process // nil: the world's
	next   func() (struct{}, bool)
	yield  func(struct{}) bool
	ready  bool // in the world's queue
	done   bool
	killed bool
	ctx    context.Context // what it waits with, if that can end
	listed bool            // among the world's waiters
	failed any             // the panic that ended it
}

// spawn makes a task that will run fn.
func (w *World) spawn(p *process, fn func()) {
	w.taskID++
	t := &task{id: w.taskID, node: p}
	t.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if v := recover(); v != nil && v != any(errKilled) {
				t.failed = v
			}
		}()
		if !t.killed {
			fn()
		}
	})
	if p != nil {
		p.tasks = append(p.tasks, t)
	}
	w.wake(t)
}

// owner returns the node whose process the task belongs to, or nil.
func (t *task) owner() *Node {
	if t.node == nil || t.node.dead {
		return nil
	}
	return t.node.node
}

// wake puts a task into the queue of those that run next.
func (w *World) wake(t *task) {
	if !t.ready && !t.done {
		t.ready = true
		w.ready = append(w.ready, t)
	}
}

// resume runs a task until it waits or ends.
func (w *World) resume(t *task) {
	t.ready = false
	if t.done {
		return
	}
	w.note(eventTask, t.id)
	before := w.current
	w.current = t
	_, more := t.next()
	w.current = before
	if !more {
		t.done = true
		if t.failed != nil {
			panic(t.failed)
		}
	}
}

// kill ends a task at the place where it waits.
func (w *World) kill(t *task) {
	t.killed = true
	if !t.done && t != w.current {
		w.resume(t)
	}
}

// process is one run of a node: between a start and a crash or stop.
type process struct {
	world *World
	node  *Node
	dead  bool
	tasks []*task
}

// sandbox is the executor of a process, or of the world's own tasks.
type sandbox struct {
	world   *World
	process *process
}

var _ executor.Executor = (*sandbox)(nil)

func (s *sandbox) dead() bool { return s.process != nil && s.process.dead }

func (s *sandbox) Now() time.Time { return epoch.Add(s.world.now) }

func (s *sandbox) Uint64() uint64 { return s.world.random.Uint64() }

func (s *sandbox) Go(fn func()) {
	if !s.dead() {
		s.world.spawn(s.process, fn)
	}
}

// Yield lets the tasks that are ready run first.
func (s *sandbox) Yield() {
	t := s.world.current
	s.world.wake(t)
	s.park(t)
}

func (s *sandbox) park(t *task) {
	if t.killed || !t.yield(struct{}{}) || t.killed {
		panic(errKilled)
	}
}

func (s *sandbox) Wait(ctx context.Context, e *executor.Event) error {
	t := s.world.current
	if t == nil {
		panic("sim: a call that blocks was made outside a task: start one with World.Go")
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

type timer struct {
	sandbox *sandbox
	fn      func()
	version uint64 // of the pending call; others are void
	pending bool
}

func (s *sandbox) AfterFunc(d time.Duration, fn func()) executor.Timer {
	t := &timer{sandbox: s, fn: fn}
	t.Reset(d)
	return t
}

func (t *timer) Stop() bool {
	was := t.pending
	t.pending = false
	t.version++
	return was
}

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
	t.sandbox.world.after(d, eventTimer, func() {
		if p := t.sandbox.process; p != nil && !p.dead && p.node.paused {
			p.node.backlog = append(p.node.backlog, fire)
			return
		}
		fire()
	})
	return was
}

// deadline is a context that ends at a moment of virtual time.
type deadline struct {
	context.Context
	world *World
	at    time.Duration
	done  chan struct{}
	err   error
}

func (d *deadline) Deadline() (time.Time, bool) { return epoch.Add(d.at), true }
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
	}
}
