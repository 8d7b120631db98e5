package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/synod-go/synod/transport"
)

// network carries messages between nodes.
type network struct {
	world *World
	links map[[2]uint64]*Link
}

// Link is what happens to messages from one node to another.
type Link struct {
	Cut     bool          // everything is lost
	Loss    float64       // probability that a message is lost
	Repeat  float64       // probability that it arrives twice
	Reorder float64       // probability that it is overtaken by what is sent within Late
	Corrupt float64       // probability that a bit of it flips
	Slow    time.Duration // what it takes longer
	Late    time.Duration // how much later a message comes that is overtaken
	clogged time.Duration // nothing arrives before
	last    time.Duration // when the newest message arrives
}

// Link returns the link from one node to another, to be changed.
func (w *World) Link(from, to uint64) *Link {
	key := [2]uint64{from, to}
	l := w.network.links[key]
	if l == nil {
		l = &Link{}
		w.network.links[key] = l
	}
	return l
}

// endpoint is one process's transport.
type endpoint struct {
	process *process
	handler func(from uint64, payload []byte)
	closed  bool
}

var _ transport.Transport = (*endpoint)(nil)

func (e *endpoint) Send(to uint64, payload []byte) error {
	if e.closed || e.process.dead {
		return fmt.Errorf("sim: %w", transport.ErrClosed)
	}
	w, from := e.process.world, e.process.node.ID
	if w.nodes[to] == nil || to == from {
		return fmt.Errorf("sim: to node %d: %w", to, transport.ErrUnknownNode)
	}
	l := w.Link(from, to)
	if l.Cut || w.random.Float64() < l.Loss {
		w.hit("message lost")
		return nil
	}
	if l.Corrupt > 0 && w.random.Float64() < l.Corrupt && len(payload) > 0 {
		w.hit("message corrupted")
		payload = slices.Clone(payload)
		payload[w.random.IntN(len(payload))] ^= 1 << w.random.IntN(8)
	}
	at := w.now + w.options.Delay + w.some(w.options.Jitter) + l.Slow + w.some(l.Slow)
	switch {
	case l.Reorder > 0 && w.random.Float64() < l.Reorder:
		w.hit("message overtaken")
		at += w.some(l.Late)
	default:
		// Without that, a link keeps the order, as a connection does.
		at = max(at, l.last, l.clogged)
		l.last = at
	}
	w.deliver(from, to, payload, at)
	if l.Repeat > 0 && w.random.Float64() < l.Repeat {
		w.hit("message repeated")
		w.deliver(from, to, slices.Clone(payload), at+w.some(l.Late+time.Millisecond))
	}
	return nil
}

// some returns a random part of d.
func (w *World) some(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(w.random.Int64N(int64(d)))
}

func (w *World) deliver(from, to uint64, payload []byte, at time.Duration) {
	w.after(at-w.now, eventMessage, func() {
		n := w.nodes[to]
		if n.process == nil || n.process.dead || n.paused || n.endpoint.closed || n.endpoint.handler == nil {
			if n.paused && n.process != nil {
				// The system keeps what arrives for a stopped process.
				n.backlog = append(n.backlog, func() { n.receive(from, payload) })
			}
			return
		}
		n.receive(from, payload)
	})
}

func (n *Node) receive(from uint64, payload []byte) {
	if n.process != nil && !n.process.dead && n.endpoint.handler != nil && !n.endpoint.closed {
		n.endpoint.handler(from, payload)
	}
}

func (e *endpoint) Handle(fn func(from uint64, payload []byte)) { e.handler = fn }

func (e *endpoint) Close() error {
	e.closed = true
	return nil
}
