package threephase

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// resource is what a participant has: what is prepared, committed and aborted survives crashes.
type resource struct {
	votes     map[ID]Vote               // what it answers; otherwise yes
	prepared  map[ID]bool               // durable
	committed map[ID]int                // durable: how often it was really done
	aborted   map[ID]bool               // durable
	fails     map[twophase.CallKind]int // so many calls fail
	heuristic map[ID]Outcome            // decided on its own
	staying   map[ID]bool               // it voted read-only, and keeps its read locks until it is told; gone with a crash
	broken    func(text string)         // says what must not be
}

func newResource() *resource {
	return &resource{votes: map[ID]Vote{}, prepared: map[ID]bool{}, committed: map[ID]int{}, aborted: map[ID]bool{},
		fails: map[twophase.CallKind]int{}, heuristic: map[ID]Outcome{}, staying: map[ID]bool{}}
}

// action is something that a node does.
type action struct {
	node  *node
	order string // those with the same one happen in their order; "": none
	what  string
	do    func()
}

// node is a machine: a core that crashes, and a disk that stays.
type node struct {
	w         *world
	id        uint64
	core      *Core // nil: it is down
	store     map[string][]byte
	resources map[string]*resource
	base      uint64
	next      uint64
	down      int // ticks until it starts again
	forced    int // writes that somebody waited for
	stopped   error
}

// crash says that the node that does an action crashes before it, or after.
type crash struct {
	at    int
	after bool
}

type world struct {
	cfg     Config
	nodes   map[uint64]*node
	order   []uint64
	queue   []action
	net     []Message
	results map[ID]Result
	asked   map[ID][]Participant
	broken  []string
	trace   []string
	loud    bool
	script  bool // a person reads it

	points  int   // actions so far
	sends   []int // those of them that were messages
	crashes []crash
	lose    map[int]bool // messages that are lost, by the number of their action
	repeat  map[int]bool // messages that come again when everything is over
	again   []Message
	downFor int
	side    map[uint64]int // of a partition: nodes of different sides do not reach each other

	random *rand.Rand // nil: messages arrive in their order, once
	sent   map[Kind]int
	stable bool // no crashes and losses any more
	gone   map[uint64]bool
}

func newWorld(count int, p Protocol) *world {
	w := &world{cfg: Config{Protocol: p, Incarnation: 7, PrepareTicks: 12, ResendTicks: 3, InquireTicks: 4, PeerTicks: 8,
		MaxTransactions: 50, MaxBranches: 50, MaxParticipants: 10, MaxFinished: 1000},
		nodes: map[uint64]*node{}, results: map[ID]Result{}, asked: map[ID][]Participant{}, downFor: 6, sent: map[Kind]int{}, gone: map[uint64]bool{}, side: map[uint64]int{}}
	for id := uint64(1); id <= uint64(count); id++ {
		n := &node{w: w, id: id, store: map[string][]byte{}, resources: map[string]*resource{}}
		for _, name := range []string{"a", "b"} {
			r := newResource()
			r.broken = func(text string) { w.violation("resource %s of node %d: %s", name, id, text) }
			n.resources[name] = r
		}
		w.nodes[id] = n
		w.order = append(w.order, id)
	}
	return w
}

func (w *world) open() {
	for _, id := range w.order {
		w.nodes[id].start()
	}
}

func (w *world) violation(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *world) logf(format string, args ...any) {
	if w.loud {
		w.trace = append(w.trace, fmt.Sprintf(format, args...))
	}
}

func (n *node) start() {
	cfg := n.w.cfg
	n.base += 1000
	n.next = n.base
	cfg.Node, cfg.Base = n.id, n.base
	cfg.Incarnation = n.w.cfg.Incarnation * n.id
	cfg.Resources = slices.Sorted(maps.Keys(n.resources))
	var keys, values [][]byte
	for _, k := range slices.Sorted(maps.Keys(n.store)) {
		keys, values = append(keys, []byte(k)), append(values, n.store[k])
	}
	n.core = New(cfg)
	if err := n.core.Load(keys, values); err != nil {
		n.w.violation("node %d does not start: %v", n.id, err)
	}
	for _, name := range slices.Sorted(maps.Keys(n.resources)) {
		for _, id := range slices.SortedFunc(maps.Keys(n.resources[name].prepared), ID.Compare) {
			n.core.Orphan(id, name)
		}
	}
	n.w.logf("node %d starts", n.id)
	n.work()
}

func (n *node) crash() {
	n.w.logf("node %d crashes", n.id)
	n.core = nil
	n.down = n.w.downFor
	for _, r := range n.resources {
		clear(r.staying)
	}
	n.w.queue = slices.DeleteFunc(n.w.queue, func(a action) bool { return a.node == n })
}

// work takes over what the core wants done.
func (n *node) work() {
	if n.core == nil {
		return
	}
	if err := n.core.Err(); err != nil && n.stopped == nil {
		n.stopped = err
	}
	r := n.core.Ready()
	act := func(order, what string, do func()) { n.w.queue = append(n.w.queue, action{n, order, what, do}) }
	for _, m := range r.Messages {
		act("", fmt.Sprintf("send to %d: %v", m.To, m), func() {
			n.w.sent[m.Kind]++
			b, err := DecodeMessage(AppendMessage(nil, m))
			if err != nil {
				panic(err)
			}
			b.From, b.To = m.From, m.To
			n.w.net = append(n.w.net, b)
		})
	}
	for _, res := range r.Results {
		if old, there := n.w.results[res.ID]; there {
			n.w.violation("transaction %v has two results: %v and %v", res.ID, old, res)
		}
		n.w.results[res.ID] = res
		n.w.logf("result of %v: %v %s", short(res.ID), res.Outcome, res.Reason)
	}
	if r.Batch != nil {
		act("write", "write "+strings.Join(DescribeBatch(r.Batch), ", "), func() {
			for _, op := range r.Batch.Ops() {
				if op.Kind == storage.KindSet {
					n.store[string(op.Key)] = op.Value
				} else {
					delete(n.store, string(op.Key))
				}
			}
			n.forced++
			n.core.Persisted(r.Token)
		})
	}
	for _, call := range r.Calls {
		act(fmt.Sprint(call.ID, call.Resource), call.String(), func() { n.call(call) })
	}
}

func (n *node) call(call Call) {
	r := n.resources[call.Resource]
	if r.fails[call.Kind] > 0 {
		r.fails[call.Kind]--
		if call.Kind != twophase.CallPrepare {
			n.core.Done(call.ID, call.Resource, unknown, "out of reach")
			return
		}
	}
	id := call.ID
	switch call.Kind {
	case twophase.CallPrepare:
		v := r.votes[id]
		if v == 0 {
			v = twophase.VoteYes
		}
		if v == twophase.VoteYes {
			if r.committed[id] > 0 {
				r.broken(fmt.Sprintf("%v is prepared again after it was committed", id))
			}
			r.prepared[id] = true
			delete(r.aborted, id)
		}
		if v == twophase.VoteReadOnly && !call.MayLeave {
			r.staying[id] = true
		}
		n.core.Voted(id, call.Resource, v, "not today")
	case twophase.CallCommit:
		delete(r.staying, id)
		if h := r.heuristic[id]; h != 0 {
			n.core.Done(id, call.Resource, h, "")
			return
		}
		if r.prepared[id] {
			r.committed[id]++
			delete(r.prepared, id)
		} else if r.committed[id] == 0 && r.votes[id] != twophase.VoteReadOnly {
			r.broken(fmt.Sprintf("commit of %v, which is not prepared", id))
		}
		n.core.Done(id, call.Resource, unknown, "")
	case twophase.CallAbort:
		delete(r.staying, id)
		if r.committed[id] > 0 {
			r.broken(fmt.Sprintf("abort of %v, which was committed", id))
		}
		if r.prepared[id] {
			r.aborted[id] = true
			delete(r.prepared, id)
		}
		n.core.Done(id, call.Resource, unknown, "")
	}
}

// begin has a transaction committed on a node.
func (w *world) begin(at uint64, participants ...Participant) ID {
	n := w.nodes[at]
	id := ID{Node: at, Incarnation: w.cfg.Incarnation * at, Counter: n.next}
	n.next++
	if err := n.core.Open(id); err != nil {
		w.violation("%v", err)
	}
	w.asked[id] = participants
	return id
}

func (w *world) commit(id ID) {
	n := w.nodes[id.Node]
	if err := n.core.Commit(id, w.asked[id]); err != nil {
		w.violation("%v", err)
	}
	n.work()
}

// act does one action, with the crashes that are planned for it.
func (w *world) act(i int) {
	a := w.queue[i]
	w.queue = slices.Delete(w.queue, i, i+1)
	point := w.points
	w.points++
	planned := func(after bool) bool { return !w.stable && slices.Contains(w.crashes, crash{point, after}) }
	if planned(false) {
		a.node.crash()
		return
	}
	if w.script {
		w.logf("node %d: %s", a.node.id, a.what)
	} else {
		w.logf("%d: node %d: %s", point, a.node.id, a.what)
	}
	isSend := strings.HasPrefix(a.what, "send")
	if isSend {
		w.sends = append(w.sends, point)
	}
	if !isSend || w.stable || !w.lose[point] {
		a.do()
		if isSend && w.repeat[point] {
			w.again = append(w.again, w.net[len(w.net)-1])
		}
	}
	if planned(true) {
		a.node.crash()
		return
	}
	a.node.work()
}

func (w *world) deliver(i int) {
	m := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	n := w.nodes[m.To]
	if n.core == nil || w.side[m.From] != w.side[m.To] {
		return
	}
	w.logf("node %d gets from %d: %v", m.To, m.From, m)
	n.core.Step(m)
	n.work()
}

func (w *world) tick() {
	w.logf("tick")
	for _, id := range w.order {
		n := w.nodes[id]
		if n.core == nil {
			if w.gone[id] {
				continue
			}
			if n.down--; n.down <= 0 {
				n.start()
			}
			continue
		}
		n.core.Tick()
		n.work()
	}
}

// settle works off everything that can be done without time.
func (w *world) settle() {
	for len(w.queue) > 0 || len(w.net) > 0 {
		if len(w.queue) > 0 {
			w.act(0)
		} else {
			w.deliver(0)
		}
	}
}

func (w *world) idle() bool {
	if len(w.queue) > 0 || len(w.net) > 0 {
		return false
	}
	for _, n := range w.nodes {
		if w.gone[n.id] {
			continue
		}
		if n.core == nil || n.core.Busy() {
			return false
		}
	}
	return true
}

// finish lets time pass until everything is over.
func (w *world) finish() {
	for i := 0; ; i++ {
		w.settle()
		if w.idle() {
			break
		}
		if i > 600 {
			w.stuck()
			w.violation("it does not end")
			break
		}
		w.tick()
	}
	w.check()
}

// stuck says what is under way.
func (w *world) stuck() {
	for _, id := range w.order {
		n := w.nodes[id]
		if n.core == nil {
			continue
		}
		for _, t := range n.core.transactions {
			w.violation("node %d: transaction %v is %v for ever", id, t.id, t.phase)
		}
		for _, e := range n.core.entries {
			w.violation("node %d: branch %v %s is %v for ever, elected %v, attempt %v, done %v", id, e.id, e.resource, e.state, e.elected, e.attempt, e.done)
		}
	}
}

// outcomes returns who has committed a transaction, and who has not; only those that have aborted if the others may still be in doubt.
func (w *world) outcomes(id ID, only bool) (committed, not []string) {
	for _, b := range w.asked[id] {
		r := w.nodes[b.Node].resources[b.Resource]
		switch {
		case r.committed[id] > 0:
			committed = append(committed, b.String())
		case only && !r.aborted[id]:
		case r.votes[id] != twophase.VoteReadOnly && !w.gone[b.Node]:
			not = append(not, b.String())
		}
	}
	return committed, not
}

// check looks for splits.
func (w *world) check() {
	for _, id := range w.order {
		n := w.nodes[id]
		if n.stopped != nil {
			w.violation("node %d stopped: %v", id, n.stopped)
		}
		for name, r := range n.resources {
			if len(r.staying) > 0 && !w.gone[id] {
				w.violation("node %d: resource %s keeps read locks of %v", id, name, slices.Collect(maps.Keys(r.staying)))
			}
			if len(r.prepared) > 0 && !w.gone[id] {
				w.violation("node %d: resource %s is still prepared for %v", id, name, slices.Collect(maps.Keys(r.prepared)))
			}
			for id, times := range r.committed {
				if times > 1 {
					w.violation("node %d: resource %s has committed %v %d times", n.id, name, id, times)
				}
			}
		}
		if n.core != nil {
			for _, d := range n.core.Damages() {
				w.violation("node %d reports damage: %v", id, d)
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(w.asked), ID.Compare) {
		committed, not := w.outcomes(id, false)
		if len(committed) > 0 && len(not) > 0 {
			w.violation("transaction %v is split: committed by %v, not by %v", id, committed, not)
		}
		switch res := w.results[id]; {
		case res.Outcome == twophase.OutcomeCommitted && len(not) > 0:
			w.violation("transaction %v: the client was told that it is committed, and it is not by %v", id, not)
		case res.Outcome == twophase.OutcomeAborted && len(committed) > 0:
			w.violation("transaction %v: the client was told that it is aborted, and it is not by %v", id, committed)
		}
	}
}

// pick returns an action that may be next.
func (w *world) pick() int {
	a := w.queue[w.random.IntN(len(w.queue))]
	return slices.IndexFunc(w.queue, func(b action) bool {
		return b.node == a.node && b.order == a.order && (a.order != "" || b.what == a.what)
	})
}

// chaos does steps in any order, loses and repeats messages, lets nodes crash, and cuts the network in two and heals it.
func (w *world) chaos(steps int, begin func()) {
	var old []Message
	for range steps {
		switch x := w.random.IntN(1000); {
		case x < 18:
			begin()
		case x < 48:
			if n := w.nodes[w.order[w.random.IntN(len(w.order))]]; n.core != nil {
				n.crash()
				n.down = 1 + w.random.IntN(30)
			}
		case x < 58:
			clear(w.side)
			if w.random.IntN(2) == 0 {
				for _, id := range w.order {
					w.side[id] = w.random.IntN(2)
				}
				w.logf("cut: %v", w.side)
			}
		case x < 150:
			w.tick()
		case x < 180 && len(old) > 0:
			w.net = append(w.net, old[w.random.IntN(len(old))])
		case x < 600 && len(w.queue) > 0:
			w.act(w.pick())
		case len(w.net) > 0:
			i := w.random.IntN(len(w.net))
			m := w.net[i]
			switch w.random.IntN(12) {
			case 0:
				w.net = slices.Delete(w.net, i, i+1)
			case 1:
				w.net = append(w.net, m)
			default:
				w.deliver(i)
			}
			if len(old) < 200 {
				old = append(old, m)
			} else {
				old[w.random.IntN(200)] = m
			}
		}
	}
	for _, m := range old {
		if w.random.IntN(3) == 0 {
			w.net = append(w.net, m)
		}
	}
	w.stable = true
	clear(w.side)
}

// on returns participants, one on each node.
func on(nodes ...uint64) (list []Participant) {
	for _, n := range nodes {
		list = append(list, Participant{Branch: twophase.Branch{Node: n, Resource: "a"}})
	}
	return list
}
