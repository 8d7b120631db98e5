package inproc

import (
	"context"
	"fmt"
	"sync"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/transport"
)

// Config sets a network's limits. The zero value is good.
type Config struct {
	// QueueMessages and QueueBytes limit what waits to be handled, for each ordered
	// pair of nodes and lane. What exceeds them is refused with
	// transport.ErrQueueFull; a single message fits an empty queue in any case.
	// Default: 4,096 messages and 64 MiB.
	QueueMessages int
	QueueBytes    int

	// MaxMessageBytes is the largest message. Default: 64 MiB.
	MaxMessageBytes int
}

func (c *Config) setDefaults() error {
	for _, f := range []struct {
		name     string
		value    *int
		standard int
	}{
		{"QueueMessages", &c.QueueMessages, 4096},
		{"QueueBytes", &c.QueueBytes, 64 << 20},
		{"MaxMessageBytes", &c.MaxMessageBytes, 64 << 20},
	} {
		if *f.value < 0 {
			return &synod.ConfigError{Package: "inproc", Field: f.name, Reason: fmt.Sprintf("%d: must not be negative", *f.value)}
		}
		if *f.value == 0 {
			*f.value = f.standard
		}
	}
	return nil
}

// Network connects the nodes of one process. Its methods may be called
// concurrently.
type Network struct {
	config Config
	ex     executor.Executor

	mu    sync.Mutex
	nodes map[uint64]*Node
	cut   map[[2]uint64]bool
}

// New returns a network without nodes. It fails with a *synod.ConfigError.
func New(ctx context.Context, c Config) (*Network, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	return &Network{
		config: c,
		ex:     executor.From(ctx, executor.Real()),
		nodes:  make(map[uint64]*Node),
		cut:    make(map[[2]uint64]bool),
	}, nil
}

// Open adds a node. An ID that is open already is refused; one that was closed can
// be opened again, as a restarted node does.
func (n *Network) Open(id uint64) (*Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == 0 {
		return nil, fmt.Errorf("inproc: node 0: nodes have IDs above 0")
	}
	if n.nodes[id] != nil {
		return nil, fmt.Errorf("inproc: node %d is open already", id)
	}
	node := &Node{network: n, id: id, queues: make(map[link]*queue)}
	n.nodes[id] = node
	return node, nil
}

// Cut makes the link from one node to another lose everything, silently, until it
// is healed. The other direction stays as it is.
func (n *Network) Cut(from, to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]uint64{from, to}] = true
}

// Heal undoes Cut.
func (n *Network) Heal(from, to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]uint64{from, to})
}

func (n *Network) node(id uint64) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[id]
}

// whole reports whether the link from one node to another is not cut.
func (n *Network) whole(from, to uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[[2]uint64{from, to}]
}

// Node is one node's transport.
type Node struct {
	network *Network
	id      uint64

	mu      sync.Mutex
	handler func(from uint64, payload []byte)
	onLost  func(to uint64, err error)
	queues  map[link]*queue // of messages to this node
	running int             // tasks that deliver, each a queue's
	closed  bool
	idle    []*executor.Event // set when the last of them ends, one for each Close that waits
}

var (
	_ transport.Transport = (*Node)(nil)
	_ transport.Bulker    = (*Node)(nil)
	_ transport.Reporter  = (*Node)(nil)
)

// link is where messages come from, and their lane.
type link struct {
	from uint64
	bulk bool
}

// queue holds messages that wait for the receiver's handler. A task delivers them
// while there are any.
type queue struct {
	messages [][]byte // without those that the task has taken out and not handed over yet
	waiting  int      // with those
	bytes    int      // of what is waiting
	running  bool
}

// Send implements transport.Transport. A node does not send to itself:
// transport.ErrUnknownNode.
func (s *Node) Send(to uint64, payload []byte) error { return s.send(to, payload, false) }

// SendBulk implements transport.Bulker.
func (s *Node) SendBulk(to uint64, payload []byte) error { return s.send(to, payload, true) }

func (s *Node) send(to uint64, payload []byte, bulk bool) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("inproc: node %d: %w", s.id, transport.ErrClosed)
	}
	if size, limit := len(payload), s.network.config.MaxMessageBytes; size > limit {
		return fmt.Errorf("inproc: to node %d: %w: %d bytes, at most %d", to, transport.ErrTooLarge, size, limit)
	}
	r := s.network.node(to)
	if r == nil || to == s.id {
		return fmt.Errorf("inproc: to node %d: %w", to, transport.ErrUnknownNode)
	}
	if !s.network.whole(s.id, to) {
		return nil // lost
	}
	return r.enqueue(link{s.id, bulk}, payload)
}

func (s *Node) enqueue(from link, payload []byte) error {
	c := &s.network.config
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("inproc: to node %d: %w", s.id, transport.ErrUnreachable)
	}
	q := s.queues[from]
	if q == nil {
		q = &queue{}
		s.queues[from] = q
	}
	if q.waiting >= c.QueueMessages || q.waiting > 0 && q.bytes+len(payload) > c.QueueBytes {
		return fmt.Errorf("inproc: to node %d: %w", s.id, transport.ErrQueueFull)
	}
	q.messages = append(q.messages, payload)
	q.waiting++
	q.bytes += len(payload)
	if !q.running {
		q.running = true
		s.running++
		s.network.ex.Go(func() { s.deliver(from, q) })
	}
	return nil
}

// deliver hands over what is in a queue and ends when it is empty.
func (s *Node) deliver(from link, q *queue) {
	for {
		s.mu.Lock()
		if s.closed || len(q.messages) == 0 {
			q.running = false
			lost := len(q.messages) > 0
			q.messages, q.waiting, q.bytes = nil, 0, 0
			if s.running--; s.running == 0 {
				for _, e := range s.idle {
					e.Set()
				}
				s.idle = nil
			}
			s.mu.Unlock()
			if lost {
				s.lost(from.from)
			}
			return
		}
		messages, handler := q.messages, s.handler
		q.messages = nil
		s.mu.Unlock()
		for i, m := range messages {
			messages[i] = nil
			s.mu.Lock()
			q.waiting--
			q.bytes -= len(m)
			closed := s.closed
			s.mu.Unlock()
			if closed {
				s.lost(from.from)
				break
			}
			if handler != nil {
				handler(from.from, m)
			}
		}
	}
}

// lost reports to a sender that messages to this node were dropped.
func (s *Node) lost(sender uint64) {
	from := s.network.node(sender)
	if from == nil {
		return
	}
	from.mu.Lock()
	fn := from.onLost
	if from.closed {
		fn = nil
	}
	from.mu.Unlock()
	if fn != nil {
		fn(s.id, fmt.Errorf("inproc: to node %d: closed: %w", s.id, transport.ErrUnreachable))
	}
}

// Handle implements transport.Transport.
func (s *Node) Handle(fn func(from uint64, payload []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = fn
}

// HandleUnreachable implements transport.Reporter.
func (s *Node) HandleUnreachable(fn func(to uint64, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onLost = fn
}

// Close implements transport.Transport.
func (s *Node) Close() error {
	s.network.mu.Lock()
	if s.network.nodes[s.id] == s {
		delete(s.network.nodes, s.id)
	}
	s.network.mu.Unlock()
	s.mu.Lock()
	s.closed = true
	var wait *executor.Event
	if s.running > 0 {
		wait = executor.NewEvent()
		s.idle = append(s.idle, wait)
	}
	s.mu.Unlock()
	if wait != nil {
		// The handlers are about to return: this can't last, so there is nothing to
		// bound it by.
		_ = s.network.ex.Wait(context.Background(), wait)
	}
	return nil
}
