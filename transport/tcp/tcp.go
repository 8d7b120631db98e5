package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod/transport"
)

// Transport connects one node to the others. Its methods may be called
// concurrently.
type Transport struct {
	config   Config
	listener net.Listener
	instance uint64          // tells this process from another under the same ID
	ctx      context.Context // done once Close begins
	cancel   context.CancelFunc
	tasks    sync.WaitGroup

	handler atomic.Pointer[func(from uint64, payload []byte)]
	onLost  atomic.Pointer[func(to uint64, err error)]
	peers   atomic.Pointer[map[uint64]*peer] // a new map for each change, so that Send takes no lock
	closed  atomic.Bool

	mu      sync.Mutex // for changes of peers, and what follows
	inbound map[source]*inbound
	shaking int // connections whose other side is not known yet

	refusals     atomic.Uint64
	refusalsNote sync.Mutex // what follows limits the log
	noteSecond   int64
	noted        int
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Bulker    = (*Transport)(nil)
	_ transport.Reporter  = (*Transport)(nil)
)

// peer is a node that messages are sent to.
type peer struct {
	lanes [lanes]*lane
}

// Listen opens a node's transport: it accepts connections, and makes those to the
// peers, at once and in the background. A bad configuration is refused with a
// *synod.ConfigError.
func Listen(c Config) (*Transport, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	listener := c.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", c.Address); err != nil {
			return nil, fmt.Errorf("tcp: listen on %s: %w", c.Address, err)
		}
	}
	t := &Transport{
		config:   c,
		listener: listener,
		instance: rand.Uint64() | 1, // not 0
		inbound:  make(map[source]*inbound),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers.Store(&map[uint64]*peer{})
	for id, address := range c.Peers { //synod:ordered each on its own
		if id != c.Node {
			t.addPeer(id, address)
		}
	}
	t.tasks.Go(t.accept)
	return t, nil
}

// Addr returns the address that is listened on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// SetPeer tells where a node listens, as host:port, from now on. A connection to
// an earlier address is closed: what is just being written is lost, what is queued goes to the new
// address. This node's own ID is ignored.
func (t *Transport) SetPeer(id uint64, address string) error {
	if id == 0 {
		return badConfig("Peers", "node 0: nodes have IDs above 0")
	}
	if err := checkAddress(address); err != nil {
		return badConfig("Peers", "node %d: %v", id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p := (*t.peers.Load())[id]; {
	case t.closed.Load():
		return fmt.Errorf("tcp: %w", transport.ErrClosed)
	case id == t.config.Node:
	case p == nil:
		t.addPeer(id, address)
	default:
		for _, l := range p.lanes {
			l.move(address)
		}
	}
	return nil
}

// addPeer needs the lock, or a Transport that nobody has yet.
func (t *Transport) addPeer(id uint64, address string) {
	p := &peer{}
	for kind := range lanes {
		p.lanes[kind] = newLane(t, id, kind, address)
		t.tasks.Go(p.lanes[kind].run)
	}
	peers := maps.Clone(*t.peers.Load())
	peers[id] = p
	t.peers.Store(&peers)
}

// RemovePeer forgets a node. What is queued for it is dropped. Its own connections
// to this node are not affected.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := maps.Clone(*t.peers.Load())
	p := peers[id]
	if p == nil {
		return
	}
	delete(peers, id)
	t.peers.Store(&peers)
	for _, l := range p.lanes {
		l.end(fmt.Errorf("tcp: node %d: %w: it was removed", id, transport.ErrUnknownNode))
	}
}

// Send implements transport.Transport. A node does not send to itself:
// transport.ErrUnknownNode.
func (t *Transport) Send(to uint64, payload []byte) error {
	return t.send(to, payload, messageLane)
}

// SendBulk implements transport.Bulker.
func (t *Transport) SendBulk(to uint64, payload []byte) error {
	return t.send(to, payload, bulkLane)
}

func (t *Transport) send(to uint64, payload []byte, kind laneKind) error {
	p := (*t.peers.Load())[to]
	switch {
	case t.closed.Load():
		return fmt.Errorf("tcp: to node %d: %w", to, transport.ErrClosed)
	case p == nil:
		return fmt.Errorf("tcp: to node %d: %w: tell its address by SetPeer", to, transport.ErrUnknownNode)
	}
	return p.lanes[kind].push(payload)
}

// Handle implements transport.Transport.
func (t *Transport) Handle(fn func(from uint64, payload []byte)) { t.handler.Store(&fn) }

// HandleUnreachable implements transport.Reporter.
func (t *Transport) HandleUnreachable(fn func(to uint64, err error)) { t.onLost.Store(&fn) }

func (t *Transport) report(to uint64, err error) {
	if fn := t.onLost.Load(); fn != nil && *fn != nil && !t.closed.Load() {
		(*fn)(to, err)
	}
}

// refused counts, logs and reports a connection that was refused.
func (t *Transport) refused(err *RefusedError) {
	if t.ctx.Err() != nil {
		return // it is our own closing that looks like a fault of the other side
	}
	t.refusals.Add(1)
	if t.mayNote() {
		t.config.Logger.Warn("connection refused", "remote", err.Remote, "node", err.Node, "by_peer", err.ByPeer, "reason", err.Err)
	}
	if t.config.OnRefused != nil {
		t.config.OnRefused(err.Remote, err)
	}
}

// mayNote lets ten refusals a second into the log: a port scan must not fill a disk.
func (t *Transport) mayNote() bool {
	const perSecond = 10
	t.refusalsNote.Lock()
	defer t.refusalsNote.Unlock()
	if now := time.Now().Unix(); now != t.noteSecond {
		if t.noted > perSecond {
			t.config.Logger.Warn("more connections were refused than were logged", "not_logged", t.noted-perSecond)
		}
		t.noteSecond, t.noted = now, 0
	}
	t.noted++
	return t.noted <= perSecond
}

// Close implements transport.Transport. What is queued is dropped.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := t.closed.CompareAndSwap(false, true)
	t.mu.Unlock()
	var err error
	if first {
		// The listener first: a peer whose connection ends dials again at once.
		err = t.listener.Close()
		t.cancel()                          // closes all connections
		for _, p := range *t.peers.Load() { //synod:ordered closing has no order
			for _, l := range p.lanes {
				l.end(fmt.Errorf("tcp: to node %d: %w", l.node, transport.ErrClosed))
			}
		}
	}
	t.tasks.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("tcp: close: %w", err)
	}
	return nil
}

// Stats is what has become of the messages to one peer, both lanes together.
type Stats struct {
	Node      uint64
	Address   string
	Connected bool   // the lane for messages is
	Queued    int    // messages that wait or are being written
	Bytes     int    // of these
	Sent      uint64 // messages handed to the system
	Dropped   uint64 // accepted, but lost before that
	Refused   uint64 // not accepted: queue full, too large, or unreachable
	Connects  uint64 // connections made
}

// Stats returns the figures of every peer, ascending by node.
func (t *Transport) Stats() []Stats {
	peers := *t.peers.Load()
	all := make([]Stats, 0, len(peers))
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		s := Stats{Node: id}
		for _, l := range peers[id].lanes {
			l.addTo(&s)
		}
		all = append(all, s)
	}
	return all
}

// Refusals returns how many connections were refused, by this node or by a peer.
func (t *Transport) Refusals() uint64 { return t.refusals.Load() }

// discard closes a connection that the other side has yet to learn the reason of:
// it reads for a moment, since a connection that is closed with unread data is
// reset, and then the reason may not arrive.
func discard(conn net.Conn) {
	if half, ok := conn.(*net.TCPConn); ok {
		_ = half.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
		var b [1 << 10]byte
		for range lingerReads {
			if _, err := conn.Read(b[:]); err != nil {
				break
			}
		}
	}
	_ = conn.Close()
}

const (
	lingerTime  = 250 * time.Millisecond
	lingerReads = 64
)

func (t *Transport) logger(node uint64, kind laneKind) *slog.Logger {
	return t.config.Logger.With("node", node, "lane", kind.String())
}
