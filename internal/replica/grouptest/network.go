package grouptest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/synod-go/synod/transport"
)

// network connects the nodes of a test. Nodes have the IDs 1 to size. Links are
// cut, and the fate of each message decided, as the test says.
type network struct {
	size uint64

	mu        sync.Mutex
	endpoints map[uint64][]*endpoint // several: nodes that claim to be one
	cuts      map[link]bool
	rule      func(p packet) fate
	held      []heldPacket
	sent      map[link]int64 // bytes, whatever became of them
	last      map[link][]byte
	tracked   bool
	live      atomic.Int64 // bytes of tracked messages that somebody still keeps
}

// track counts in live what arrives from now on.
func (n *network) track() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracked = true
}

// link is one direction between two nodes.
type link struct{ from, to uint64 }

// packet is a message on its way.
type packet struct {
	link
	bulk    bool
	payload []byte
}

// fate is what becomes of a packet.
type fate struct {
	drop   bool
	copies int    // that arrive beside the packet itself
	hold   bool   // until release is called
	after  int    // hold until so many more packets have been sent
	also   uint64 // another node that gets a copy, as if it were the receiver
}

type heldPacket struct {
	packet
	after int // 0: until release
}

func newNetwork(size uint64) *network {
	return &network{
		size:      size,
		endpoints: make(map[uint64][]*endpoint),
		cuts:      make(map[link]bool),
		sent:      make(map[link]int64),
		last:      make(map[link][]byte),
	}
}

// open adds a node, or another one that claims to be the same.
func (n *network) open(id uint64) *endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := &endpoint{network: n, id: id, lanes: make(map[lane]*queue)}
	e.done.L = &e.mu
	n.endpoints[id] = append(n.endpoints[id], e)
	return e
}

// cut makes a link lose everything, silently.
func (n *network) cut(from, to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[link{from, to}] = true
}

func (n *network) heal(from, to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cuts, link{from, to})
}

// isolate cuts a node off from all others, both ways.
func (n *network) isolate(id uint64) {
	for other := uint64(1); other <= n.size; other++ {
		n.cut(id, other)
		n.cut(other, id)
	}
}

// connect makes the given pairs the only links that are whole, both ways.
func (n *network) connect(pairs ...[2]uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := uint64(1); a <= n.size; a++ {
		for b := uint64(1); b <= n.size; b++ {
			n.cuts[link{a, b}] = true
		}
	}
	for _, p := range pairs {
		delete(n.cuts, link{p[0], p[1]})
		delete(n.cuts, link{p[1], p[0]})
	}
}

// healAll makes all links whole and ends the rule. What is held stays held.
func (n *network) healAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	n.rule = nil
}

// setRule decides the fate of each packet from now on; nil: all arrive. The rule is
// called with the network's lock held.
func (n *network) setRule(rule func(p packet) fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rule = rule
}

// release delivers what is held, the last first if reverse.
func (n *network) release(reverse bool) {
	n.mu.Lock()
	held := n.held
	n.held = nil
	n.mu.Unlock()
	for i := range held {
		p := held[i].packet
		if reverse {
			p = held[len(held)-1-i].packet
		}
		n.deliver(p, p.to)
	}
}

// releaseOneByOne delivers what is held, and calls then after each message has been
// handled.
func (n *network) releaseOneByOne(then func()) {
	n.mu.Lock()
	held := n.held
	n.held = nil
	n.mu.Unlock()
	for _, h := range held {
		n.deliver(h.packet, h.to)
		n.mu.Lock()
		receivers := append([]*endpoint(nil), n.endpoints[h.to]...)
		n.mu.Unlock()
		for _, e := range receivers {
			e.idle()
		}
		then()
	}
}

// drain delivers what is held and waits until all that was sent has been handled.
func (n *network) drain() {
	n.release(false)
	n.mu.Lock()
	var all []*endpoint
	for _, list := range n.endpoints {
		all = append(all, list...)
	}
	n.mu.Unlock()
	for _, e := range all {
		e.idle()
	}
}

// bytesSent returns how many bytes were sent from one node to another, whether they
// arrived or not.
func (n *network) bytesSent(from, to uint64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[link{from, to}]
}

// lastFrame returns a copy of the last message from one node to another.
func (n *network) lastFrame(from, to uint64) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.last[link{from, to}])
}

// inject delivers a message that nobody sent.
func (n *network) inject(from, to uint64, payload []byte) {
	n.deliver(packet{link: link{from, to}, payload: bytes.Clone(payload)}, to)
}

func (n *network) deliver(p packet, to uint64) {
	n.mu.Lock()
	receivers := append([]*endpoint(nil), n.endpoints[to]...)
	tracked := n.tracked
	n.mu.Unlock()
	for i, e := range receivers {
		payload := p.payload
		if i < len(receivers)-1 || tracked {
			payload = bytes.Clone(payload)
		}
		if tracked {
			size := int64(len(payload))
			n.live.Add(size)
			runtime.AddCleanup(&payload[0], func(size int64) { n.live.Add(-size) }, size)
		}
		e.enqueue(lane{p.from, p.bulk}, payload)
	}
}

// chaos is a rule that loses, repeats, delays and reorders one in so many packets.
func chaos(seed uint64, oneIn int) func(packet) fate {
	r := rand.New(rand.NewPCG(seed, seed))
	return func(packet) fate {
		if r.IntN(oneIn) != 0 {
			return fate{}
		}
		switch r.IntN(3) {
		case 0:
			return fate{drop: true}
		case 1:
			return fate{copies: 1}
		default:
			return fate{after: 1 + r.IntN(20)}
		}
	}
}

// endpoint is one node's transport.
type endpoint struct {
	network *network
	id      uint64

	mu       sync.Mutex
	handler  func(from uint64, payload []byte)
	onLost   func(to uint64, err error)
	lanes    map[lane]*queue
	active   int       // lanes that are handled
	done     sync.Cond // one less
	detached bool      // the process is gone, though it does not know
	closed   bool
	unused   func(what string) // complains of a use after the node was closed
}

// lane is where messages come from: those of one lane are handled one at a time.
type lane struct {
	from uint64
	bulk bool
}

type queue struct {
	messages [][]byte
	running  bool
}

// laneMessages is how many messages may wait in one lane.
const laneMessages = 1 << 12

var (
	_ transport.Transport = (*endpoint)(nil)
	_ transport.Bulker    = (*endpoint)(nil)
	_ transport.Reporter  = (*endpoint)(nil)
)

// Send implements transport.Transport.
func (e *endpoint) Send(to uint64, payload []byte) error { return e.send(to, payload, false) }

// SendBulk implements transport.Bulker.
func (e *endpoint) SendBulk(to uint64, payload []byte) error { return e.send(to, payload, true) }

func (e *endpoint) send(to uint64, payload []byte, bulk bool) error {
	n := e.network
	e.mu.Lock()
	closed, detached, onLost, unused := e.closed, e.detached, e.onLost, e.unused
	e.mu.Unlock()
	switch {
	case unused != nil:
		unused("Send")
		return nil
	case closed:
		return fmt.Errorf("node %d: %w", e.id, transport.ErrClosed)
	case to == 0 || to > n.size || to == e.id:
		return fmt.Errorf("to node %d: %w", to, transport.ErrUnknownNode)
	case detached:
		return nil
	}
	p := packet{link: link{e.id, to}, bulk: bulk, payload: payload}
	n.mu.Lock()
	n.sent[p.link] += int64(len(payload))
	n.last[p.link] = bytes.Clone(payload)
	var f fate
	if n.rule != nil {
		f = n.rule(p)
	}
	f.drop = f.drop || n.cuts[p.link]
	gone := len(n.endpoints[to]) == 0
	var due []packet
	rest := n.held[:0]
	for _, h := range n.held {
		if h.after == 1 {
			due = append(due, h.packet)
			continue
		}
		h.after = max(0, h.after-1)
		rest = append(rest, h)
	}
	n.held = rest
	if !f.drop && (f.hold || f.after > 0) {
		n.held = append(n.held, heldPacket{p, f.after})
	}
	n.mu.Unlock()
	if !f.drop {
		if f.also != 0 {
			n.deliver(packet{link: p.link, bulk: bulk, payload: bytes.Clone(payload)}, f.also)
		}
		for range f.copies {
			n.deliver(packet{link: p.link, bulk: bulk, payload: bytes.Clone(payload)}, to)
		}
		if !f.hold && f.after == 0 {
			if gone && onLost != nil {
				onLost(to, fmt.Errorf("node %d: %w", to, transport.ErrUnreachable))
			}
			n.deliver(p, to)
		}
	}
	for _, p := range due {
		n.deliver(p, p.to)
	}
	return nil
}

func (e *endpoint) enqueue(from lane, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.detached {
		return
	}
	q := e.lanes[from]
	if q == nil {
		q = &queue{}
		e.lanes[from] = q
	}
	if len(q.messages) >= laneMessages {
		return
	}
	q.messages = append(q.messages, payload)
	if !q.running {
		q.running = true
		e.active++
		go e.run(from.from, q)
	}
}

func (e *endpoint) run(from uint64, q *queue) {
	for {
		e.mu.Lock()
		if len(q.messages) == 0 || e.closed || e.detached {
			q.messages, q.running = nil, false
			e.active--
			e.done.Broadcast()
			e.mu.Unlock()
			return
		}
		m := q.messages[0]
		q.messages[0] = nil
		q.messages = q.messages[1:]
		handler := e.handler
		e.mu.Unlock()
		if handler != nil {
			handler(from, m)
		}
	}
}

// idle waits until nothing is being handled.
func (e *endpoint) idle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.active > 0 {
		e.done.Wait()
	}
}

// Handle implements transport.Transport.
func (e *endpoint) Handle(fn func(from uint64, payload []byte)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handler = fn
}

// HandleUnreachable implements transport.Reporter: a node that is not open is
// reported, a link that is cut is not.
func (e *endpoint) HandleUnreachable(fn func(to uint64, err error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onLost = fn
}

// detach makes the node disappear for the others, while it goes on unaware.
func (e *endpoint) detach() {
	e.mu.Lock()
	e.detached = true
	e.mu.Unlock()
	e.leave()
}

func (e *endpoint) leave() {
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, o := range n.endpoints[e.id] {
		if o == e {
			n.endpoints[e.id] = append(n.endpoints[e.id][:i:i], n.endpoints[e.id][i+1:]...)
			return
		}
	}
}

// complain makes every later use an error of the test.
func (e *endpoint) complain(fn func(what string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unused = fn
}

// Close implements transport.Transport.
func (e *endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.leave()
	e.idle()
	return nil
}
