package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/synod-go/synod/transport"
)

// Link is the way from one node to another. What the fields say holds from the next
// message on; faults come on top of it and leave them alone.
type Link struct {
	Cut     bool          // everything is lost
	Loss    float64       // probability that a message is lost
	Repeat  float64       // probability that it arrives twice
	Reorder float64       // probability that it is overtaken by what is sent within Late
	Corrupt float64       // probability that a bit of it flips
	Slow    time.Duration // how much longer a message takes; as much again is random
	Late    time.Duration // how much later a message comes that is overtaken, at most

	clogged time.Duration // nothing arrives before
	faults  []*Link
	last    [2]time.Duration // when the newest message of a lane arrives
}

// effective returns what the fields and the faults come to.
func (l *Link) effective() Link {
	e := Link{Cut: l.Cut, Loss: l.Loss, Repeat: l.Repeat, Reorder: l.Reorder, Corrupt: l.Corrupt, Slow: l.Slow, Late: l.Late, clogged: l.clogged}
	for _, f := range l.faults {
		e.Cut = e.Cut || f.Cut
		e.Loss, e.Repeat, e.Reorder, e.Corrupt = max(e.Loss, f.Loss), max(e.Repeat, f.Repeat), max(e.Reorder, f.Reorder), max(e.Corrupt, f.Corrupt)
		e.Slow, e.Late = max(e.Slow, f.Slow), max(e.Late, f.Late)
		e.clogged = max(e.clogged, f.clogged)
	}
	return e
}

// Broken reports whether everything that is sent now is lost, by a fault or otherwise.
func (l *Link) Broken() bool { return l.effective().Cut }

// suffer puts a fault on the link until the function that is returned is called.
func (l *Link) suffer(f *Link) (end func()) {
	l.faults = append(l.faults, f)
	return func() {
		l.faults = slices.DeleteFunc(l.faults, func(o *Link) bool { return o == f })
	}
}

// Link returns the way from one node to another, which need not exist yet.
func (w *World) Link(from, to uint64) *Link {
	key := [2]uint64{from, to}
	l := w.links[key]
	if l == nil {
		l = &Link{}
		w.links[key] = l
	}
	return l
}

// endpoint is a process's transport.
type endpoint struct {
	process     *process
	handler     func(from uint64, payload []byte)
	unreachable func(to uint64, err error)
	closed      bool
}

var (
	_ transport.Transport = (*endpoint)(nil)
	_ transport.Bulker    = (*endpoint)(nil)
	_ transport.Reporter  = (*endpoint)(nil)
)

// Send implements transport.Transport.
func (e *endpoint) Send(to uint64, payload []byte) error { return e.send(to, payload, 0) }

// SendBulk implements transport.Bulker.
func (e *endpoint) SendBulk(to uint64, payload []byte) error { return e.send(to, payload, 1) }

func (e *endpoint) send(to uint64, payload []byte, lane int) error {
	if e.closed || e.process.dead {
		return fmt.Errorf("sim: %w", transport.ErrClosed)
	}
	w, from := e.process.world, e.process.node.ID
	if w.nodes[to] == nil || to == from {
		return fmt.Errorf("sim: to node %d: %w", to, transport.ErrUnknownNode)
	}
	e.process.node.operation()
	r := w.random
	w.trace.bytes(payload)
	link := w.Link(from, to)
	l := link
	if len(l.faults) > 0 {
		sum := link.effective()
		l = &sum
	}
	if l.Cut || l.Loss > 0 && r.Float64() < l.Loss {
		w.effect("message lost")
		e.report(to, r)
		return nil
	}
	if l.Corrupt > 0 && len(payload) > 0 && r.Float64() < l.Corrupt {
		w.effect("message corrupted")
		payload = slices.Clone(payload)
		payload[r.IntN(len(payload))] ^= 1 << r.IntN(8)
	}
	at := w.now + w.config.Delay + some(r, w.config.Jitter) + l.Slow + some(r, l.Slow)
	if l.Reorder > 0 && r.Float64() < l.Reorder {
		w.effect("message overtaken")
		at += some(r, l.Late)
	} else {
		// Without that, a link keeps the order, as a connection does.
		at = max(at, link.last[lane], l.clogged)
		link.last[lane] = at
	}
	w.deliver(e, to, payload, at)
	if l.Repeat > 0 && r.Float64() < l.Repeat {
		w.effect("message repeated")
		w.deliver(e, to, slices.Clone(payload), at+some(r, l.Late+time.Millisecond))
	}
	return nil
}

var errLost = errors.New("sim: the connection broke")

// report tells the sender of a loss, as a transport does that notices: half of the time.
func (e *endpoint) report(to uint64, r *rand.Rand) {
	if e.unreachable == nil || r.IntN(2) == 0 {
		return
	}
	w, n := e.process.world, e.process.node
	w.after(w.config.Delay+some(r, 10*w.config.Delay), eventMessage, to, n.ID, func() {
		n.whenRunning(e.process, func() {
			if !e.closed {
				e.unreachable(to, errLost)
			}
		})
	})
}

func (w *World) deliver(from *endpoint, to uint64, payload []byte, at time.Duration) {
	sender := from.process.node.ID
	w.after(at-w.now, eventMessage, sender, to, func() {
		n := w.nodes[to]
		if n.process == nil || n.endpoint.closed || n.endpoint.handler == nil {
			w.effect("message to nobody")
			if !from.process.dead {
				from.report(to, w.random)
			}
			return
		}
		n.whenRunning(n.process, func() {
			if n.endpoint.handler != nil && !n.endpoint.closed {
				n.endpoint.handler(sender, payload)
			}
		})
	})
}

// Handle implements transport.Transport.
func (e *endpoint) Handle(fn func(from uint64, payload []byte)) { e.handler = fn }

// HandleUnreachable implements transport.Reporter.
func (e *endpoint) HandleUnreachable(fn func(to uint64, err error)) { e.unreachable = fn }

// Close implements transport.Transport.
func (e *endpoint) Close() error {
	e.closed = true
	return nil
}
