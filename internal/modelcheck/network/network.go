package network

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/synod-go/synod/internal/modelcheck/explore"
)

// Node is one participant: a core, and what a shell keeps around it. It is changed by Take and Deliver only,
// as a deterministic function of what it is and what it is given.
type Node interface {
	// Clone returns a copy that shares nothing that changes.
	Clone() Node

	// Fingerprint appends an encoding of all that the node will do from here on depends on.
	Fingerprint(dst []byte) []byte

	// Inputs returns what may happen to the node now, beside messages.
	Inputs() []Input

	// Take lets an input happen. used is how much of its budget was used before, by all nodes.
	Take(in Input, used int, out *Output)

	// Deliver brings a message. The node may keep the bytes, and doesn't change them. late says that what the
	// node has to write is not durable yet when it goes on.
	Deliver(from int, body []byte, late bool, out *Output)
}

// Running is an optional power of a Node whose restarts are bounded by a budget.
type Running interface {
	// FingerprintRunning appends an encoding of all that the node will do from here on depends on, if it never
	// restarts any more.
	FingerprintRunning(dst []byte) []byte
}

// Deaf is an optional power of a Node: it says which messages can't change it any more, so that they are
// no part of a state. It is asked about messages that do not change it now.
type Deaf interface {
	Deaf(from int, body []byte) Deafness
}

// Deafness says for how long a message will have no effect.
type Deafness uint8

// Kinds of deafness.
const (
	Hears            Deafness = iota // it may have one later
	DeafUntilRestart                 // none, unless a node restarts
	DeafForever
)

// Input is something that may happen to a node, beside messages.
type Input struct {
	Kind, Arg int // as the node likes

	// Late says that what the node has to write is not durable yet when it goes on.
	Late bool

	// Costs are the numbers of the budgets that it takes one from, if it has an effect.
	Costs []int

	// Numbered says that what happens depends on how much of the first of them was used before.
	Numbered bool
}

// Output is what a node does in a step.
type Output struct {
	Messages  []Message
	Facts     []any // comparable: what the observer is to know, in this order
	Violation error // something is wrong, as the node alone can see
	Beyond    error // the step leads beyond the bounds of the model: it is not taken
	Idle      bool  // the step is the same as another one: it is not taken

	// Did are the lines of a script that tells of the step, but for one that says which message is
	// delivered. They are wanted if Script is set.
	Script bool
	Did    []string
}

// Message goes from one node to another. Nodes are numbered from 0 on.
type Message struct {
	To   int
	Body []byte
}

// Waiting is a message on its way.
type Waiting struct {
	From, To int
	Body     []byte
}

// Observer keeps what must be remembered of a run to say whether it is right. It is a deterministic
// function of the facts that it was told.
type Observer interface {
	Clone() Observer
	Fingerprint(dst []byte) []byte
	Observe(fact any) error // the error says what is violated
}

// Budget bounds how often something happens in a run.
type Budget struct {
	Name  string
	Limit int
	Free  bool // nothing depends on how much of it was used, but how much is left
}

// Config is a model.
type Config struct {
	Nodes    []Node
	Observer Observer
	Waiting  []Waiting // what is on its way at first
	Budgets  []Budget
	Restarts []int // the numbers of the budgets of what restarts a node
	// Restarting says whether a node ever does; nil: all do.
	Restarting func(node int) bool

	Late int // the number of the budget of messages that are delivered late; -1: none are

	// Describe says what a message is, for errors.
	Describe func(from, to int, body []byte) string

	// Check, if it is set, looks at all nodes of a state, and what was observed on the way there; the error says what is
	// wrong with it. It is asked about one in Sample of those that differ in nodes or observer; 0: about all. It may be asked
	// by several goroutines at a time, and changes nothing.
	Check  func(nodes []Node, o Observer) error
	Sample uint64

	// Planted says that a mistake is planted. Then what the nodes say of deafness is not held against what
	// they do: a counterexample is one anyway.
	Planted bool
}

// Limits of a model.
const (
	MaxNodes   = 5
	MaxBudgets = 16
)

// Network is an explore.System.
type Network struct {
	c      Config
	costs  [MaxBudgets][]explore.Hash // of having used some of a budget
	start  *State
	locals struct {
		sync.RWMutex
		byHash map[explore.Hash]uint32
	}
	local    arena[local]
	messages struct {
		sync.RWMutex
		byContent map[string]uint32
	}
	message   arena[message]
	observers struct {
		sync.RWMutex
		byHash map[explore.Hash]uint32
	}
	observer arena[observer]
	facts    struct {
		sync.RWMutex
		byFact map[any]uint32
	}
	fact    arena[any]
	checked struct {
		sync.RWMutex
		by map[explore.Hash]error
	}
}

var _ explore.System[*State] = (*Network)(nil)

// State is one of all nodes, and of the network between them.
type State struct {
	nodes    [MaxNodes]place
	observer uint32
	used     [MaxBudgets]uint8
}

// place is a node in a state.
type place struct {
	local uint32
	inbox []uint32        // messages that were ever sent to it, in the order in which they first were
	heard [2]explore.Hash // the sum of those that may have an effect: if no node restarts any more; otherwise
}

// local is a state of one node.
type local struct {
	node      Node
	hash      [2]explore.Hash // if no node restarts any more; otherwise
	inputs    []Input
	taken     memo // by input, and what was used of its budget
	delivered memo // by message
	late      memo // by message
}

type message struct {
	from, to int
	body     []byte
	hash     explore.Hash
}

type observer struct {
	observer Observer
	hash     explore.Hash
	told     memo // by fact
}

// result is what becomes of a node by a step, or of the observer by a fact.
type result struct {
	next      uint32
	idle      bool
	sent      []uint32 // messages
	facts     []uint32
	violation error
	beyond    bool
	code      code
}

// New makes a system of nodes that have not sent anything yet.
func New(c Config) (*Network, error) {
	if len(c.Nodes) == 0 || len(c.Nodes) > MaxNodes || len(c.Budgets) > MaxBudgets || c.Observer == nil {
		return nil, fmt.Errorf("network: %d nodes and %d budgets: at least one node, at most %d, and %d budgets, and an observer", len(c.Nodes), len(c.Budgets), MaxNodes, MaxBudgets)
	}
	n := &Network{c: c}
	n.locals.byHash = make(map[explore.Hash]uint32)
	n.messages.byContent = make(map[string]uint32)
	n.observers.byHash = make(map[explore.Hash]uint32)
	n.facts.byFact = make(map[any]uint32)
	n.checked.by = make(map[explore.Hash]error)
	for i, b := range c.Budgets {
		if b.Limit < 0 || b.Limit > 255 {
			return nil, fmt.Errorf("network: budget %q is %d: at most 255", b.Name, b.Limit)
		}
		for used := range b.Limit + 1 {
			n.costs[i] = append(n.costs[i], digest('b', binary.BigEndian.AppendUint64(nil, uint64(i)<<32|uint64(used))))
		}
	}
	s := &State{}
	for i, node := range c.Nodes {
		s.nodes[i].local = n.internLocal(i, node)
	}
	s.observer = n.internObserver(c.Observer)
	var touched [MaxNodes]bool
	for _, w := range c.Waiting {
		n.post(s, &State{}, []uint32{n.internMessage(w.From, w.To, w.Body)}, &touched)
	}
	for i := range c.Nodes {
		touched[i] = true
	}
	n.settle(s, &State{}, &touched)
	n.start = s
	return n, nil
}

func digest(kind byte, b []byte) explore.Hash {
	h := sha256.New()
	h.Write([]byte{kind})
	h.Write(b)
	sum := h.Sum(nil)
	return explore.Hash{binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])}
}

// The hash of a state is the sum of those of its parts, so that the order of messages is no part of it.
func add(a, b explore.Hash) explore.Hash {
	lo, carry := bits.Add64(a[0], b[0], 0)
	hi, _ := bits.Add64(a[1], b[1], carry)
	return explore.Hash{lo, hi}
}

func (n *Network) internLocal(i int, node Node) uint32 {
	return n.internLocalPrint(node, node.Fingerprint([]byte{byte(i)}))
}

func (n *Network) internLocalPrint(node Node, print []byte) uint32 {
	h := digest('n', print)
	n.locals.RLock()
	id, ok := n.locals.byHash[h]
	n.locals.RUnlock()
	if ok {
		return id
	}
	n.locals.Lock()
	defer n.locals.Unlock()
	if id, ok := n.locals.byHash[h]; ok {
		return id
	}
	n.local.mu.Lock()
	id = n.local.add(local{})
	n.local.mu.Unlock()
	l := n.local.at(id)
	l.node, l.inputs = node, node.Inputs()
	l.hash = [2]explore.Hash{h, h}
	if r, ok := node.(Running); ok {
		l.hash[0] = digest('r', r.FingerprintRunning([]byte{print[0]}))
	}
	n.locals.byHash[h] = id
	return id
}

func (n *Network) internObserver(o Observer) uint32 {
	h := digest('o', o.Fingerprint(nil))
	n.observers.Lock()
	defer n.observers.Unlock()
	if id, ok := n.observers.byHash[h]; ok {
		return id
	}
	n.observer.mu.Lock()
	id := n.observer.add(observer{})
	n.observer.mu.Unlock()
	x := n.observer.at(id)
	x.observer, x.hash = o, h
	n.observers.byHash[h] = id
	return id
}

func (n *Network) internMessage(from, to int, body []byte) uint32 {
	key := string(append([]byte{byte(from), byte(to)}, body...))
	n.messages.Lock()
	defer n.messages.Unlock()
	if id, ok := n.messages.byContent[key]; ok {
		return id
	}
	n.message.mu.Lock()
	id := n.message.add(message{from, to, bytes.Clone(body), digest('m', []byte(key))})
	n.message.mu.Unlock()
	n.messages.byContent[key] = id
	return id
}

func (n *Network) internFact(fact any) uint32 {
	n.facts.Lock()
	defer n.facts.Unlock()
	if id, ok := n.facts.byFact[fact]; ok {
		return id
	}
	n.fact.mu.Lock()
	id := n.fact.add(fact)
	n.fact.mu.Unlock()
	n.facts.byFact[fact] = id
	return id
}

// Start implements explore.System.
func (n *Network) Start() (*State, explore.Hash) { return n.start, n.hash(n.start, &n.start.used) }

// Steps implements explore.System.
func (n *Network) Steps(s *State, v *explore.Visit[*State]) { n.steps(s, v, nil) }

// left reports whether there is something left of all budgets that a step takes from.
func (n *Network) left(s *State, costs []int) bool {
	for _, b := range costs {
		if int(s.used[b]) >= n.c.Budgets[b].Limit {
			return false
		}
	}
	return true
}

// steps tells v, or tell, all steps, until that returns false.
func (n *Network) steps(s *State, v *explore.Visit[*State], tell func(event, *result) bool) {
	late := []int{n.c.Late}
	mayLate := n.c.Late >= 0 && n.left(s, late)
	for i := range n.c.Nodes {
		l := n.local.at(s.nodes[i].local)
		for k := range l.inputs {
			in := &l.inputs[k]
			if !n.left(s, in.Costs) {
				continue
			}
			used := 0
			if in.Numbered {
				used = int(s.used[in.Costs[0]])
			}
			r := n.take(i, l, k, in, used)
			if tell == nil {
				n.visit(s, i, in.Costs, r, v)
			} else if !r.idle && !r.beyond && !tell(event{node: i, input: *in, used: used}, r) {
				return
			}
		}
		for _, id := range s.nodes[i].inbox {
			if tell == nil && l.delivered.code(id)&codeIdle != 0 {
				v.Idle()
				continue
			}
			r := n.deliver(i, l, id, false)
			if tell == nil {
				n.visit(s, i, nil, r, v)
			} else if !r.idle && !r.beyond && !tell(event{node: i, deliver: true, message: id}, r) {
				return
			}
			if r.idle || !mayLate {
				continue
			}
			r = n.deliver(i, l, id, true)
			if tell == nil {
				n.visit(s, i, late, r, v)
			} else if !r.idle && !r.beyond && !tell(event{node: i, deliver: true, late: true, message: id}, r) {
				return
			}
		}
	}
}

// visit tells of one step.
func (n *Network) visit(s *State, node int, costs []int, r *result, v *explore.Visit[*State]) {
	switch {
	case r.idle:
		v.Idle()
		return
	case r.beyond:
		v.Beyond()
		return
	case r.violation != nil:
		v.Fail(r.violation)
		return
	}
	watching := s.observer
	for _, fact := range r.facts {
		o := n.tell(watching, fact)
		if o.violation != nil {
			v.Fail(o.violation)
			return
		}
		watching = o.next
	}
	next := *s
	next.nodes[node].local, next.observer = r.next, watching
	for _, b := range costs {
		next.used[b]++
	}
	if !n.c.Planted && r.next != s.nodes[node].local {
		restarted := slices.ContainsFunc(costs, func(b int) bool { return slices.Contains(n.c.Restarts, b) })
		if err := n.deaf(s, node, r.next, restarted); err != nil {
			v.Fail(err)
			return
		}
	}
	var touched [MaxNodes]bool
	touched[node] = true
	n.post(&next, s, r.sent, &touched)
	n.settle(&next, s, &touched)
	if err := n.check(&next); err != nil {
		v.Fail(err)
		return
	}
	var within [maxWithin]explore.Hash
	if !v.Step(n.hash(&next, &next.used), n.within(&next, within[:0])...) {
		return
	}
	v.Add(&next)
}

// ErrDeaf says that a message has an effect on a node that was said to be deaf for it.
var ErrDeaf = errors.New("network: a message has an effect on a node that was said to be deaf for it: states were taken for equal that are not")

// deaf holds what a node has said of its deafness against what it is now.
func (n *Network) deaf(s *State, node int, next uint32, restarted bool) error {
	before, after := n.local.at(s.nodes[node].local), n.local.at(next)
	for _, id := range s.nodes[node].inbox {
		was := before.delivered.code(id)
		if was&codeIdle == 0 || was&codeHears != 0 || was&codeRestarted != 0 && restarted {
			continue
		}
		is := after.delivered.code(id)
		if is == 0 {
			is = n.deliver(node, after, id, false).code
		}
		if is&codeIdle == 0 || is&codeHears != 0 || is&codeRestarted != 0 && was&codeRestarted == 0 {
			m := n.message.at(id)
			what := "a message"
			if n.c.Describe != nil {
				what = n.c.Describe(m.from, m.to, m.body)
			}
			return fmt.Errorf("%w: node %d, from node %d: %s", ErrDeaf, node, m.from, what)
		}
	}
	return nil
}

// check asks Config.Check about a state, unless it was asked before.
func (n *Network) check(s *State) error {
	if n.c.Check == nil {
		return nil
	}
	h := n.observer.at(s.observer).hash
	for i := range n.c.Nodes {
		h = add(h, n.local.at(s.nodes[i].local).hash[1])
	}
	if n.c.Sample > 1 && h[0]%n.c.Sample != 0 {
		return nil
	}
	n.checked.RLock()
	err, known := n.checked.by[h]
	n.checked.RUnlock()
	if known {
		return err
	}
	nodes := make([]Node, len(n.c.Nodes))
	for i := range nodes {
		nodes[i] = n.local.at(s.nodes[i].local).node
	}
	err = n.c.Check(nodes, n.observer.at(s.observer).observer)
	n.checked.Lock()
	defer n.checked.Unlock()
	if first, known := n.checked.by[h]; known {
		return first
	}
	n.checked.by[h] = err
	return err
}

// Checked says how many states Config.Check was asked about.
func (n *Network) Checked() int {
	n.checked.RLock()
	defer n.checked.RUnlock()
	return len(n.checked.by)
}

const maxWithin = 16

// within returns the hashes of those states that are the same, but that less was used of budgets in them.
func (n *Network) within(s *State, list []explore.Hash) []explore.Hash {
	used := s.used
	for {
		i := 0
		for ; i < len(n.c.Budgets); i++ {
			if n.c.Budgets[i].Free && used[i] > 0 {
				used[i]--
				break
			}
			used[i] = s.used[i]
		}
		if i == len(n.c.Budgets) || len(list) == maxWithin {
			return list
		}
		list = append(list, n.hash(s, &used))
	}
}

// restarts reports whether a node may still restart.
func (n *Network) restarts(used *[MaxBudgets]uint8) int {
	for _, b := range n.c.Restarts {
		if int(used[b]) < n.c.Budgets[b].Limit {
			return 1
		}
	}
	return 0
}

// post brings messages to the inboxes. Those that are the same as before are shared.
func (n *Network) post(s, before *State, sent []uint32, touched *[MaxNodes]bool) {
	for _, id := range sent {
		to := n.message.at(id).to
		p := &s.nodes[to]
		if slices.Contains(p.inbox, id) {
			continue
		}
		if len(p.inbox) == len(before.nodes[to].inbox) {
			p.inbox = slices.Clone(p.inbox)
		}
		p.inbox = append(p.inbox, id)
		touched[to] = true
	}
}

// settle lets all nodes listen to which something has come.
func (n *Network) settle(s, before *State, touched *[MaxNodes]bool) {
	for again := true; again; {
		again = false
		for i := range n.c.Nodes {
			if touched[i] {
				again = true
				n.listen(s, before, i, touched)
			}
		}
	}
}

// listen finds out which messages to a node may have an effect, and lets it send what it would send without
// becoming another one: that changes nothing but what may be delivered, so that it may as well happen now.
func (n *Network) listen(s, before *State, i int, touched *[MaxNodes]bool) {
	touched[i] = false
	p := &s.nodes[i]
	l := n.local.at(p.local)
	p.heard = [2]explore.Hash{}
	for _, id := range p.inbox {
		code := l.delivered.code(id)
		if code == 0 {
			code = n.deliver(i, l, id, false).code
		}
		if code&codeIdle == 0 || code&(codeHears|codeRestarted) != 0 {
			h := n.message.at(id).hash
			p.heard[1] = add(p.heard[1], h)
			if code&codeRestarted == 0 {
				p.heard[0] = add(p.heard[0], h)
			}
		}
		if code&codeEcho != 0 {
			if r := n.deliver(i, l, id, false); n.knows(s.observer, r.facts) {
				n.post(s, before, r.sent, touched)
			}
		}
	}
}

// hash returns the hash of a state, as it were with so much of its budgets used.
func (n *Network) hash(s *State, used *[MaxBudgets]uint8) explore.Hash {
	h := n.observer.at(s.observer).hash
	left := n.restarts(used)
	for i := range n.c.Budgets {
		h = add(h, n.costs[i][used[i]])
	}
	for i := range n.c.Nodes {
		restarts := left
		if n.c.Restarting != nil && !n.c.Restarting(i) {
			restarts = 0
		}
		h = add(h, add(n.local.at(s.nodes[i].local).hash[restarts], s.nodes[i].heard[restarts]))
	}
	return h
}

// knows reports whether facts are no news.
func (n *Network) knows(watching uint32, facts []uint32) bool {
	for _, f := range facts {
		if r := n.tell(watching, f); r.violation != nil || r.next != watching {
			return false
		}
	}
	return true
}

func (n *Network) take(i int, l *local, k int, in *Input, used int) *result {
	key := uint32(k)<<8 | uint32(used)
	if r := l.taken.get(key); r != nil {
		return r
	}
	return l.taken.put(key, n.run(i, l, func(node Node, out *Output) { node.Take(*in, used, out) }))
}

func (n *Network) deliver(i int, l *local, id uint32, late bool) *result {
	memo := &l.delivered
	if late {
		memo = &l.late
	}
	if r := memo.get(id); r != nil {
		return r
	}
	m := n.message.at(id)
	r := n.run(i, l, func(node Node, out *Output) { node.Deliver(m.from, m.body, late, out) })
	r.code = codeKnown
	switch {
	case r.idle:
		r.code |= codeIdle
		deaf := Hears
		if d, ok := l.node.(Deaf); ok {
			deaf = d.Deaf(m.from, m.body)
		}
		switch deaf {
		case Hears:
			r.code |= codeHears
		case DeafUntilRestart:
			r.code |= codeRestarted
		}
	case r.violation == nil && !r.beyond && n.local.at(r.next) == l:
		r.code |= codeEcho
	}
	return memo.put(id, r)
}

func (n *Network) tell(watching, fact uint32) *result {
	o := n.observer.at(watching)
	if r := o.told.get(fact); r != nil {
		return r
	}
	next := o.observer.Clone()
	r := &result{}
	if r.violation = next.Observe(*n.fact.at(fact)); r.violation == nil {
		r.next = n.internObserver(next)
	}
	return o.told.put(fact, r)
}

// run takes a step of a node, twice: it must have the same outcome, and leave the state that
// it begins with as it is.
func (n *Network) run(i int, l *local, step func(Node, *Output)) *result {
	before := l.node.Fingerprint([]byte{byte(i)})
	var prints [2][]byte
	var outs [2]Output
	var nodes [2]Node
	for k := range 2 {
		nodes[k] = l.node.Clone()
		attempt(nodes[k], &outs[k], step)
		if outs[k].Violation == nil && outs[k].Beyond == nil && !outs[k].Idle {
			prints[k] = nodes[k].Fingerprint([]byte{byte(i)})
		}
	}
	r := &result{violation: outs[0].Violation, beyond: outs[0].Beyond != nil, idle: outs[0].Idle}
	switch {
	case !bytes.Equal(prints[0], prints[1]) || !sameOutput(&outs[0], &outs[1]):
		r.violation = fmt.Errorf("%w: node %d", explore.ErrNondeterministic, i)
	case !bytes.Equal(before, l.node.Fingerprint([]byte{byte(i)})):
		r.violation = fmt.Errorf("%w: node %d: a step of a clone has changed the original", explore.ErrNondeterministic, i)
	}
	if r.violation != nil || r.beyond || r.idle {
		return r
	}
	r.next = n.internLocalPrint(nodes[0], prints[0])
	for _, m := range outs[0].Messages {
		r.sent = append(r.sent, n.internMessage(i, m.To, m.Body))
	}
	for _, f := range outs[0].Facts {
		r.facts = append(r.facts, n.internFact(f))
	}
	r.idle = n.local.at(r.next) == l && len(r.sent) == 0 && len(r.facts) == 0
	return r
}

// attempt takes a step. A panic is a violation.
func attempt(node Node, out *Output, step func(Node, *Output)) {
	defer func() {
		if v := recover(); v != nil {
			out.Violation = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	step(node, out)
}

func sameOutput(a, b *Output) bool {
	return slices.EqualFunc(a.Messages, b.Messages, func(x, y Message) bool { return x.To == y.To && bytes.Equal(x.Body, y.Body) }) && slices.Equal(a.Facts, b.Facts) &&
		(a.Beyond == nil) == (b.Beyond == nil) && (a.Violation == nil) == (b.Violation == nil)
}

// Sizes says how many different states of single nodes, messages, and histories a network has come across.
func (n *Network) Sizes() (locals, messages, observers int) {
	return n.local.len(), n.message.len(), n.observer.len()
}
