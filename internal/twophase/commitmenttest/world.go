package commitmenttest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// answered is the part of a core that takes the answers of resources.
type answered interface {
	Voted(id twophase.ID, resource string, v twophase.Vote, reason string)
	Done(id twophase.ID, resource string, heuristic twophase.Outcome, failure string)
}

// Core is the core of a protocol. M are its messages, and P the participants of its transactions.
type Core[M, P any] interface {
	comparable
	answered
	Open(id twophase.ID) error
	Commit(id twophase.ID, participants []P) error
	Orphan(id twophase.ID, resource string)
	Step(m M)
	Tick()
	Persisted(token uint64)
	Busy() bool
	Err() error
	Damages() []twophase.Report
}

// Ready is what a core wants done, as far as all of them do.
type Ready[M any] struct {
	Messages []M
	Results  []twophase.Result
	Batch    *storage.Batch // nil: nothing
	Token    uint64
	Calls    []twophase.Call
}

// Protocol is what the protocols differ in. All but DoneOne are needed.
type Protocol[C Core[M, P], M, P fmt.Stringer] struct {
	// Start makes a core of a node that starts, with what is in its store. All of the node's identity is Node.ID, Incarnation times that,
	// and Node.Base, the first counter of its run.
	Start func(n *Node[C, M, P], keys, values [][]byte) (C, error)
	// Ready takes over what a core wants done. What only this protocol knows it gives to act, which queues it after the batch.
	Ready func(n *Node[C, M, P], act func(order, what string, do func())) Ready[M]
	// DoneOne answers a call of a resource that commits in one phase. Nil where there are none.
	DoneOne func(c C, id twophase.ID, resource string, o twophase.Outcome, reason string)
	// Carry encodes a message and decodes it, for the way from node to node.
	Carry func(m M) (M, error)
	// Envelope returns from which node a message is, to which it goes, and its kind.
	Envelope func(m M) (from, to uint64, kind fmt.Stringer)
	// Branch returns what names a participant.
	Branch func(p P) twophase.Branch
	// Describe returns the operations of a batch as scripts have them.
	Describe func(b *storage.Batch) []string
	// Stuck says what a core that does not end has under way.
	Stuck func(c C) []string
	// Patience is how many ticks a transaction may take to end.
	Patience int
}

// Incarnation times its ID is the incarnation of a node.
const Incarnation = 7

// Action is something that a node does.
type Action[C Core[M, P], M, P fmt.Stringer] struct {
	Node  *Node[C, M, P]
	Order string // those with the same one happen in their order; "": none
	What  string
	do    func()
}

// Node is a machine: a core that crashes, and a disk that stays.
type Node[C Core[M, P], M, P fmt.Stringer] struct {
	World     *World[C, M, P]
	ID        uint64
	Core      C      // nil: it is down
	Run       int    // how often it has started
	Base      uint64 // the first counter of this run
	Store     map[string][]byte
	Resources map[string]*Resource
	Down      int // ticks until it starts again
	Forced    int // writes that somebody waited for

	next    uint64
	stopped error
}

// Crash says that the node that does an action crashes before it, or after.
type Crash struct {
	At    int
	After bool
}

// World is nodes, and the messages between them.
type World[C Core[M, P], M, P fmt.Stringer] struct {
	Nodes   map[uint64]*Node[C, M, P]
	Order   []uint64 // of the nodes
	Queue   []Action[C, M, P]
	Net     []M
	Results map[twophase.ID]twophase.Result
	Asked   map[twophase.ID][]P
	Broken  []string // what must not be
	Trace   []string
	Loud    bool // Trace is kept
	Script  bool // a person reads it

	Points  int   // actions so far
	Sends   []int // those of them that were messages
	Crashes []Crash
	Lose    map[int]bool // messages that are lost, by the number of their action
	Repeat  map[int]bool // messages that come again when everything is over: they are put into Again
	Again   []M
	DownFor int            // ticks that a node stays down
	Side    map[uint64]int // of a partition: nodes of different sides do not reach each other

	Random *rand.Rand           // for Chaos
	Sent   map[fmt.Stringer]int // messages, by kind
	Stable bool                 // no crashes and losses any more
	Gone   map[uint64]bool      // nodes that never come back

	protocol Protocol[C, M, P]
}

// NewWorld returns a world of nodes 1 to count, each with resources a and b, that have not started.
func NewWorld[C Core[M, P], M, P fmt.Stringer](count int, p Protocol[C, M, P]) *World[C, M, P] {
	w := &World[C, M, P]{
		Nodes: make(map[uint64]*Node[C, M, P]), Results: make(map[twophase.ID]twophase.Result), Asked: make(map[twophase.ID][]P),
		DownFor: 6, Side: make(map[uint64]int), Sent: make(map[fmt.Stringer]int), Gone: make(map[uint64]bool), protocol: p,
	}
	for id := uint64(1); id <= uint64(count); id++ {
		n := &Node[C, M, P]{World: w, ID: id, Store: make(map[string][]byte), Resources: make(map[string]*Resource)}
		for _, name := range []string{"a", "b"} {
			n.Resources[name] = newResource(func(text string) { w.Violation("resource %s of node %d: %s", name, id, text) })
		}
		w.Nodes[id] = n
		w.Order = append(w.Order, id)
	}
	return w
}

// Open starts all nodes.
func (w *World[C, M, P]) Open() {
	for _, id := range w.Order {
		w.Nodes[id].Start()
	}
}

// Violation notes what must not be.
func (w *World[C, M, P]) Violation(format string, args ...any) {
	w.Broken = append(w.Broken, fmt.Sprintf(format, args...))
}

// Logf adds a line to the trace.
func (w *World[C, M, P]) Logf(format string, args ...any) {
	if w.Loud {
		w.Trace = append(w.Trace, fmt.Sprintf(format, args...))
	}
}

// Up reports whether the node runs.
func (n *Node[C, M, P]) Up() bool {
	var none C
	return n.Core != none
}

// Start starts the node, with a new core and what is in its store.
func (n *Node[C, M, P]) Start() {
	w := n.World
	n.Run++
	n.Base += 1000
	n.next = n.Base
	var keys, values [][]byte
	for _, k := range slices.Sorted(maps.Keys(n.Store)) {
		keys, values = append(keys, []byte(k)), append(values, n.Store[k])
	}
	core, err := w.protocol.Start(n, keys, values)
	n.Core = core
	if err != nil {
		w.Violation("node %d does not start: %v", n.ID, err)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Resources)) {
		for _, id := range slices.SortedFunc(maps.Keys(n.Resources[name].Prepared), twophase.ID.Compare) {
			n.Core.Orphan(id, name)
		}
	}
	w.Logf("node %d starts", n.ID)
	n.Work()
}

// Crash stops the node. What it has not done is lost.
func (n *Node[C, M, P]) Crash() {
	n.World.Logf("node %d crashes", n.ID)
	var none C
	n.Core = none
	n.Down = n.World.DownFor
	for _, r := range n.Resources {
		clear(r.staying)
	}
	n.World.Queue = slices.DeleteFunc(n.World.Queue, func(a Action[C, M, P]) bool { return a.Node == n })
}

// Work takes over what the core wants done.
func (n *Node[C, M, P]) Work() {
	if !n.Up() {
		return
	}
	if err := n.Core.Err(); err != nil && n.stopped == nil {
		n.stopped = err
	}
	w := n.World
	var own []Action[C, M, P]
	r := w.protocol.Ready(n, func(order, what string, do func()) { own = append(own, Action[C, M, P]{n, order, what, do}) })
	act := func(order, what string, do func()) { w.Queue = append(w.Queue, Action[C, M, P]{n, order, what, do}) }
	for _, m := range r.Messages {
		_, to, kind := w.protocol.Envelope(m)
		act("", fmt.Sprintf("send to %d: %v", to, m), func() {
			w.Sent[kind]++
			carried, err := w.protocol.Carry(m)
			if err != nil {
				w.Violation("a message is not decoded as it was sent: %v: %v", m, err)
				return
			}
			w.Net = append(w.Net, carried)
		})
	}
	for _, res := range r.Results {
		if old, there := w.Results[res.ID]; there {
			w.Violation("transaction %v has two results: %v and %v", res.ID, old, res)
		}
		w.Results[res.ID] = res
		w.Logf("result of %s: %v %s", Short(res.ID), res.Outcome, res.Reason)
	}
	if r.Batch != nil {
		act("write", "write "+strings.Join(w.protocol.Describe(r.Batch), ", "), func() {
			for _, op := range r.Batch.Ops() {
				if op.Kind == storage.KindSet {
					n.Store[string(op.Key)] = op.Value
				} else {
					delete(n.Store, string(op.Key))
				}
			}
			n.Forced++
			n.Core.Persisted(r.Token)
		})
	}
	w.Queue = append(w.Queue, own...)
	for _, call := range r.Calls {
		act(fmt.Sprint(call.ID, call.Resource), call.String(), func() {
			n.Resources[call.Resource].call(n.Core, func(o twophase.Outcome, reason string) {
				w.protocol.DoneOne(n.Core, call.ID, call.Resource, o, reason)
			}, call)
		})
	}
}

// Begin begins a transaction on a node, for Commit.
func (w *World[C, M, P]) Begin(at uint64, participants ...P) twophase.ID {
	n := w.Nodes[at]
	id := twophase.ID{Node: at, Incarnation: Incarnation * at, Counter: n.next}
	n.next++
	if err := n.Core.Open(id); err != nil {
		w.Violation("%v", err)
	}
	w.Asked[id] = participants
	return id
}

// Commit has a transaction committed.
func (w *World[C, M, P]) Commit(id twophase.ID) {
	n := w.Nodes[id.Node]
	if err := n.Core.Commit(id, w.Asked[id]); err != nil {
		w.Violation("%v", err)
	}
	n.Work()
}

// Act does one action of the queue, with the crashes that are planned for it.
func (w *World[C, M, P]) Act(i int) {
	a := w.Queue[i]
	w.Queue = slices.Delete(w.Queue, i, i+1)
	point := w.Points
	w.Points++
	planned := func(after bool) bool { return !w.Stable && slices.Contains(w.Crashes, Crash{point, after}) }
	if planned(false) {
		a.Node.Crash()
		return
	}
	if w.Script {
		w.Logf("node %d: %s", a.Node.ID, a.What)
	} else {
		w.Logf("%d: node %d: %s", point, a.Node.ID, a.What)
	}
	isSend := strings.HasPrefix(a.What, "send")
	if isSend {
		w.Sends = append(w.Sends, point)
	}
	if !isSend || w.Stable || !w.Lose[point] {
		a.do()
		if isSend && w.Repeat[point] {
			w.Again = append(w.Again, w.Net[len(w.Net)-1])
		}
	}
	if planned(true) {
		a.Node.Crash()
		return
	}
	a.Node.Work()
}

// First does the first action of which something is so, and reports whether there was one.
func (w *World[C, M, P]) First(so func(a Action[C, M, P]) bool) bool {
	i := slices.IndexFunc(w.Queue, so)
	if i >= 0 {
		w.Act(i)
	}
	return i >= 0
}

// reaches reports whether a message arrives.
func (w *World[C, M, P]) reaches(m M) bool {
	from, to, _ := w.protocol.Envelope(m)
	return w.Nodes[to].Up() && w.Side[from] == w.Side[to]
}

// Deliver brings a message of the net where it goes.
func (w *World[C, M, P]) Deliver(i int) {
	m := w.Net[i]
	w.Net = slices.Delete(w.Net, i, i+1)
	if !w.reaches(m) {
		return
	}
	from, to, _ := w.protocol.Envelope(m)
	w.Logf("node %d gets from %d: %v", to, from, m)
	n := w.Nodes[to]
	n.Core.Step(m)
	n.Work()
}

// Tick lets time pass for all nodes. Those that were down for long enough start.
func (w *World[C, M, P]) Tick() {
	w.Logf("tick")
	for _, id := range w.Order {
		n := w.Nodes[id]
		if !n.Up() {
			if w.Gone[id] {
				continue
			}
			if n.Down--; n.Down <= 0 {
				n.Start()
			}
			continue
		}
		n.Core.Tick()
		n.Work()
	}
}

// Next does the first action, or else delivers the first message, and reports whether there was one.
func (w *World[C, M, P]) Next() bool {
	switch {
	case len(w.Queue) > 0:
		w.Act(0)
	case len(w.Net) > 0:
		w.Deliver(0)
	default:
		return false
	}
	return true
}

// Settle works off everything that can be done without time.
func (w *World[C, M, P]) Settle() {
	for w.Next() {
	}
}

func (w *World[C, M, P]) idle() bool {
	if len(w.Queue) > 0 || len(w.Net) > 0 {
		return false
	}
	for _, n := range w.Nodes {
		if !w.Gone[n.ID] && (!n.Up() || n.Core.Busy()) {
			return false
		}
	}
	return true
}

// Finish lets time pass until everything is over, and looks for what must not be.
func (w *World[C, M, P]) Finish() {
	for i := 0; ; i++ {
		w.Settle()
		if w.idle() {
			break
		}
		if i > w.protocol.Patience {
			w.Stuck()
			w.Violation("it does not end")
			break
		}
		w.Tick()
	}
	w.check()
}

// Stuck notes what is under way, which should not be.
func (w *World[C, M, P]) Stuck() {
	for _, id := range w.Order {
		n := w.Nodes[id]
		if !n.Up() {
			continue
		}
		for _, text := range w.protocol.Stuck(n.Core) {
			w.Violation("node %d: %s", id, text)
		}
	}
}

// Outcomes returns who has committed a transaction, and who has not; only those that have aborted if the others may still be in doubt.
func (w *World[C, M, P]) Outcomes(id twophase.ID, only bool) (committed, not []string) {
	for _, p := range w.Asked[id] {
		b := w.protocol.Branch(p)
		r := w.Nodes[b.Node].Resources[b.Resource]
		switch {
		case r.Committed[id] > 0:
			committed = append(committed, b.String())
		case only && !r.Aborted[id]:
		case r.Votes[id] != twophase.VoteReadOnly && !w.Gone[b.Node]:
			not = append(not, b.String())
		}
	}
	return committed, not
}

// check looks for splits.
func (w *World[C, M, P]) check() {
	for _, id := range w.Order {
		n := w.Nodes[id]
		if n.stopped != nil {
			w.Violation("node %d stopped: %v", id, n.stopped)
		}
		for name, r := range n.Resources {
			if len(r.staying) > 0 && !w.Gone[id] {
				w.Violation("node %d: resource %s keeps read locks of %v", id, name, slices.Collect(maps.Keys(r.staying)))
			}
			if len(r.Prepared) > 0 && !w.Gone[id] {
				w.Violation("node %d: resource %s is still prepared for %v", id, name, slices.Collect(maps.Keys(r.Prepared)))
			}
			for id, times := range r.Committed {
				if times > 1 {
					w.Violation("node %d: resource %s has committed %v %d times", n.ID, name, id, times)
				}
			}
		}
		if n.Up() {
			for _, d := range n.Core.Damages() {
				w.Violation("node %d reports damage: %v", id, d)
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.Asked), twophase.ID.Compare) {
		committed, not := w.Outcomes(id, false)
		if len(committed) > 0 && len(not) > 0 {
			w.Violation("transaction %v is split: committed by %v, not by %v", id, committed, not)
		}
		switch res := w.Results[id]; {
		case res.Outcome == twophase.OutcomeCommitted && len(not) > 0:
			w.Violation("transaction %v: the client was told that it is committed, and it is not by %v", id, not)
		case res.Outcome == twophase.OutcomeAborted && len(committed) > 0:
			w.Violation("transaction %v: the client was told that it is aborted, and it is not by %v", id, committed)
		}
	}
}

// Short returns node and counter of a transaction, as scripts have it.
func Short(id twophase.ID) string { return fmt.Sprintf("%d.%d", id.Node, id.Counter) }
