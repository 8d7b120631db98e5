package sim

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// Env is what one run of a node has of the world.
type Env struct {
	ID        uint64
	Transport transport.Transport // with the optional powers of one
	Store     storage.Store       // with the optional powers of one
	Logger    *slog.Logger        // its records become lines of the trace
	World     *World
}

// Node is a machine: a disk, a clock, and at most one process.
type Node struct {
	ID   uint64
	Disk *Disk

	world    *World
	start    func(ctx context.Context, env *Env) (stop func(), err error)
	process  *process
	endpoint *endpoint
	clock    clock
	stop     func()
	paused   bool
	backlog  []func() // what happened to a paused process
	failed   error    // why the last start failed
	damage   string   // what its disk has suffered for good
	crashAt  int      // the so manieth operation from now: a read or write of the store, a message
}

// AddNode adds a node and starts it. start runs on a task of the node, now and after
// every crash, and returns what ends the run in an orderly way, or nil. A start that
// fails is repeated a second later.
func (w *World) AddNode(id uint64, start func(ctx context.Context, env *Env) (stop func(), err error)) *Node {
	if id == 0 || w.nodes[id] != nil {
		panic(fmt.Sprintf("sim: node %d is there already, or 0", id))
	}
	n := &Node{ID: id, world: w, start: start, Disk: &Disk{world: w}}
	n.Disk.node = n
	w.nodes[id] = n
	w.order = append(w.order, n)
	n.Start()
	return n
}

// Nodes returns all nodes in the order in which they were added.
func (w *World) Nodes() []*Node { return w.order }

// Node returns one node, or nil.
func (w *World) Node(id uint64) *Node { return w.nodes[id] }

// Running reports whether the node has a process that is not paused.
func (n *Node) Running() bool { return n.process != nil && !n.paused }

// Err returns why the last start failed, or nil.
func (n *Node) Err() error { return n.failed }

// Damaged returns what has happened to the node's disk that does not heal: [Flipped],
// [Lost] or [Replaced]. "" if nothing has.
func (n *Node) Damaged() string { return n.damage }

// retryStart is how long the world waits before it repeats a start that failed: about
// what supervisors of processes do.
const retryStart = time.Second

// Start gives the node a process, unless it has one.
func (n *Node) Start() {
	if n.process != nil {
		return
	}
	w := n.world
	p := &process{world: w, node: n, tasks: make(map[uint64]*task)}
	n.process, n.failed, n.stop = p, nil, nil
	// Monotonic clocks begin anywhere, after every start.
	n.clock.setDrift(w.now, n.clock.drift)
	n.clock.base += some(w.random, 24*time.Hour)
	n.endpoint = &endpoint{process: p}
	env := &Env{ID: n.ID, Transport: n.endpoint, Store: &store{disk: n.Disk, process: p}, Logger: slog.New(&logHandler{world: w, node: n.ID}), World: w}
	w.Logf("node %d starts", n.ID)
	ctx := executor.With(context.Background(), &sandbox{world: w, process: p})
	w.spawn(p, func() {
		stop, err := n.start(ctx, env)
		if err == nil {
			n.stop = stop
			return
		}
		w.Logf("node %d did not start: %v", n.ID, err)
		n.failed = err
		w.after(retryStart, eventFault, n.ID, 0, func() {
			if n.process == p && n.failed != nil {
				n.Crash()
				n.Start()
			}
		})
	})
}

// Crash ends the node's process at once. Its disk loses what is not durable.
func (n *Node) Crash() {
	if n.process == nil {
		return
	}
	w := n.world
	w.Logf("node %d crashes", n.ID)
	p := n.process
	p.dead = true
	n.process, n.paused, n.backlog, n.crashAt = nil, false, nil, 0
	for len(p.tasks) > 0 {
		// In the order in which they began; one may begin another while it is unwound.
		var first *task
		for _, t := range p.tasks {
			if !t.killed && (first == nil || t.id < first.id) {
				first = t
			}
		}
		if first == nil {
			break // the one that crashes the node is its own
		}
		w.kill(first)
	}
	n.Disk.crash()
}

// Stop ends the node's process in an orderly way. It is called from a task, and
// waits.
func (n *Node) Stop() {
	if n.process == nil {
		return
	}
	if n.stop != nil {
		n.stop()
	}
	n.Crash()
}

// Pause stops the node's process as SIGSTOP does: it does nothing, and goes on
// later as if no time had passed, while its clock went on.
func (n *Node) Pause() {
	if n.process != nil && !n.paused {
		n.world.Logf("node %d pauses", n.ID)
		n.paused = true
	}
}

// Resume lets a paused process go on.
func (n *Node) Resume() {
	if !n.paused {
		return
	}
	n.world.Logf("node %d goes on", n.ID)
	n.paused = false
	backlog := n.backlog
	n.backlog = nil
	for _, fn := range backlog {
		fn()
	}
}

// CrashFor crashes the node and starts it again after a while.
func (n *Node) CrashFor(d time.Duration) {
	n.Crash()
	n.world.after(d, eventFault, n.ID, 0, n.Start)
}

// SetDrift lets the node's clock run so much faster from now on: 0.01 is a hundredth,
// below zero is slower. Timers that are set already keep their time.
func (n *Node) SetDrift(drift float64) { n.clock.setDrift(n.world.now, drift) }

// SetClock moves the clock on the node's wall, see [Now], by d. Timers take no notice.
func (n *Node) SetClock(d time.Duration) { n.clock.jumped += d }

// whenRunning runs fn in a process: now, or once it is resumed; a system keeps what
// arrives for a stopped process.
func (n *Node) whenRunning(p *process, fn func()) {
	switch {
	case n.process != p:
	case n.paused:
		n.backlog = append(n.backlog, func() {
			if n.process == p {
				fn()
			}
		})
	default:
		fn()
	}
}

// operation counts towards a crash at the n-th one.
func (n *Node) operation() {
	if n.crashAt == 0 {
		return
	}
	if n.crashAt--; n.crashAt == 0 {
		w, p := n.world, n.process
		w.effect("crash at an operation")
		w.after(0, eventFault, n.ID, 0, func() {
			if n.process == p && !w.healed { // else nobody would start it again
				n.Crash()
			}
		})
	}
}

// logHandler makes lines of the trace out of log records.
type logHandler struct {
	world *World
	node  uint64
	text  string
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	text := fmt.Sprintf("node %d: %s%s", h.node, r.Message, h.text)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "stack" { // addresses differ from run to run
			text += " " + a.String()
		}
		return true
	})
	h.world.print(text)
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	for _, a := range attrs {
		if a.Key != "stack" {
			with.text += " " + a.String()
		}
	}
	return &with
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.text += " " + name + ":"
	return &with
}
