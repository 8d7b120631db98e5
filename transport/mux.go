package transport

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// Overhead is how much capacity beyond its length a payload should have when it
// is sent through a channel of a [Mux]: then the channel's mark fits in without a
// copy.
const Overhead = binary.MaxVarintLen32 + 1

// Mux lets several users share one transport: each gets a channel, which is a
// Transport of its own. Both ends must use the same IDs. Its methods may be called
// concurrently.
//
// A message carries the ID of its channel as its last bytes, so that nothing needs
// to be moved to add or to remove it.
type Mux struct {
	under   Transport
	dropped atomic.Uint64

	mu       sync.RWMutex
	channels map[uint32]*channel
	reports  bool
	closed   bool
}

// NewMux takes over a transport, of which it sets the handlers.
func NewMux(t Transport) *Mux {
	m := &Mux{under: t, channels: make(map[uint32]*channel)}
	m.reports = HandleUnreachable(t, m.unreachable)
	t.Handle(m.receive)
	return m
}

// Channel returns the channel with the given ID, always the same one until it is
// closed. It passes on what the transport below can do beyond Transport: it is a
// Bulker always (without a lane below, bulk goes with the other messages), and a
// Reporter where the transport below is one.
//
// Closing a channel closes it alone; what arrives for it afterwards is dropped.
func (m *Mux) Channel(id uint32) Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.channels[id]
	if c == nil {
		c = &channel{mux: m, id: id}
		c.closed.Store(m.closed)
		m.channels[id] = c
	}
	if m.reports {
		return reportingChannel{c}
	}
	return c
}

// Dropped returns the number of messages that arrived for no channel, or for one
// without a handler.
func (m *Mux) Dropped() uint64 { return m.dropped.Load() }

// Close closes all channels and the transport below.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	channels := make([]*channel, 0, len(m.channels))
	for _, c := range m.channels { //synod:ordered closing has no order
		channels = append(channels, c)
	}
	m.mu.Unlock()
	err := m.under.Close()
	for _, c := range channels {
		_ = c.Close() // never fails
	}
	return err
}

// The mark is the channel's ID as 7-bit groups, lowest first, and their number.
// Channels below 128 so cost two bytes.
func appendMark(payload []byte, id uint32) []byte {
	start := len(payload)
	payload = binary.AppendUvarint(payload, uint64(id))
	return append(payload, byte(len(payload)-start))
}

// splitMark takes the mark off; false if there is none.
func splitMark(payload []byte) (id uint32, rest []byte, ok bool) {
	if len(payload) < 2 {
		return 0, nil, false
	}
	n := int(payload[len(payload)-1])
	end := len(payload) - 1
	if n == 0 || n > binary.MaxVarintLen32 || n > end {
		return 0, nil, false
	}
	v, read := binary.Uvarint(payload[end-n : end])
	if read != n || v > 1<<32-1 {
		return 0, nil, false
	}
	return uint32(v), payload[: end-n : end-n], true
}

func (m *Mux) receive(from uint64, payload []byte) {
	id, rest, ok := splitMark(payload)
	if !ok {
		m.dropped.Add(1)
		return
	}
	m.mu.RLock()
	c := m.channels[id]
	m.mu.RUnlock()
	if c == nil || !c.receive(from, rest) {
		m.dropped.Add(1)
	}
}

func (m *Mux) unreachable(to uint64, err error) {
	m.mu.Lock()
	channels := make([]*channel, 0, len(m.channels))
	for _, c := range m.channels { //synod:ordered each is told on its own
		channels = append(channels, c)
	}
	m.mu.Unlock()
	for _, c := range channels {
		c.report(to, err)
	}
}

// channel is one user's part of a Mux.
type channel struct {
	mux *Mux
	id  uint32

	closed  atomic.Bool    // changed under the lock
	running sync.WaitGroup // handlers; a lock held while they run would not let them nest

	mu      sync.RWMutex
	handler func(from uint64, payload []byte)
	onLost  func(to uint64, err error)
}

// reportingChannel is a channel of a Mux whose transport reports.
type reportingChannel struct{ *channel }

var (
	_ Transport = (*channel)(nil)
	_ Bulker    = (*channel)(nil)
	_ Transport = reportingChannel{}
	_ Bulker    = reportingChannel{}
	_ Reporter  = reportingChannel{}
)

func (c *channel) Send(to uint64, payload []byte) error {
	if err := c.open(); err != nil {
		return err
	}
	return c.mux.under.Send(to, appendMark(payload, c.id))
}

func (c *channel) SendBulk(to uint64, payload []byte) error {
	if err := c.open(); err != nil {
		return err
	}
	return SendBulk(c.mux.under, to, appendMark(payload, c.id))
}

func (c *channel) open() error {
	if c.closed.Load() {
		return fmt.Errorf("channel %d: %w", c.id, ErrClosed)
	}
	return nil
}

func (c *channel) Handle(fn func(from uint64, payload []byte)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = fn
}

// enter returns the handlers and has Close wait until leave is called, or returns
// false when the channel is closed.
func (c *channel) enter() (handler func(from uint64, payload []byte), onLost func(to uint64, err error), ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed.Load() {
		return nil, nil, false
	}
	c.running.Add(1)
	return c.handler, c.onLost, true
}

func (c *channel) leave() { c.running.Done() }

func (c *channel) receive(from uint64, payload []byte) bool {
	handler, _, ok := c.enter()
	if !ok {
		return false
	}
	defer c.leave()
	if handler == nil {
		return false
	}
	handler(from, payload)
	return true
}

func (c *channel) report(to uint64, err error) {
	_, onLost, ok := c.enter()
	if !ok {
		return
	}
	defer c.leave()
	if onLost != nil {
		onLost(to, err)
	}
}

func (c *channel) Close() error {
	c.mux.mu.Lock()
	if c.mux.channels[c.id] == c {
		delete(c.mux.channels, c.id)
	}
	c.mux.mu.Unlock()
	c.mu.Lock()
	c.closed.Store(true)
	c.handler, c.onLost = nil, nil
	c.mu.Unlock()
	c.running.Wait()
	return nil
}

// HandleUnreachable implements Reporter.
func (c reportingChannel) HandleUnreachable(fn func(to uint64, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onLost = fn
}
