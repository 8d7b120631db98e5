package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

var worldContext = context.Background()

// Env is what one run of a node has of the world.
type Env struct {
	ID        uint64
	Transport transport.Transport
	Store     storage.Store
	World     *World
}

// Node is a machine: a disk, and at most one process.
type Node struct {
	ID   uint64
	Disk *Disk

	world    *World
	start    func(ctx context.Context, env *Env) (stop func(), err error)
	process  *process
	endpoint *endpoint
	stop     func()
	paused   bool
	backlog  []func() // what happened to a paused process
	failed   error    // why the last start failed
}

// AddNode adds a node and starts it. start runs on a task of the node, now and after
// every crash, and returns what ends the run in an orderly way, or nil.
func (w *World) AddNode(id uint64, start func(ctx context.Context, env *Env) (stop func(), err error)) *Node {
	if id == 0 || w.nodes[id] != nil {
		panic(fmt.Sprintf("sim: node %d is there already, or 0", id))
	}
	n := &Node{ID: id, world: w, start: start, Disk: newDisk(w)}
	w.nodes[id] = n
	w.order = append(w.order, n)
	n.Start()
	return n
}

// Nodes returns all nodes in the order in which they were added.
func (w *World) Nodes() []*Node { return w.order }

// Running reports whether the node has a process that is not paused.
func (n *Node) Running() bool { return n.process != nil && !n.paused }

// Err returns why the last start failed, or nil.
func (n *Node) Err() error { return n.failed }

// Start gives the node a process, unless it has one.
func (n *Node) Start() {
	if n.process != nil {
		return
	}
	w := n.world
	p := &process{world: w, node: n}
	n.process, n.failed, n.stop = p, nil, nil
	n.endpoint = &endpoint{process: p}
	env := &Env{ID: n.ID, Transport: n.endpoint, Store: &store{disk: n.Disk, process: p}, World: w}
	w.Logf("node %d starts", n.ID)
	ctx := executor.With(context.Background(), &sandbox{world: w, process: p})
	w.spawn(p, func() {
		stop, err := n.start(ctx, env)
		if err != nil {
			w.Logf("node %d did not start: %v", n.ID, err)
			n.failed = err
			return
		}
		n.stop = stop
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
	n.process, n.paused, n.backlog = nil, false, nil
	for _, t := range p.tasks {
		w.kill(t)
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
// later as if no time had passed.
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
	n.world.after(d, eventFault, n.Start)
}
