package tcp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/transport"
)

// Transport connects one node to the others. Its methods may be called
// concurrently.
type Transport struct {
	config   Config
	listener net.Listener
	instance uint64
	ctx      context.Context // done once Close begins
	cancel   context.CancelFunc
	tasks    sync.WaitGroup

	handler atomic.Pointer[func(from uint64, payload []byte)]
	onLost  atomic.Pointer[func(to uint64, err error)]

	mu      sync.RWMutex
	peers   map[uint64]*peer
	sources map[uint64]*source
	conns   map[net.Conn]struct{} // accepted, to be closed by Close
	closed  bool
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Bulker    = (*Transport)(nil)
	_ transport.Reporter  = (*Transport)(nil)
)

// Listen opens a node's transport and begins to accept connections. A bad
// configuration is refused with a *synod.ConfigError. The first message to a peer
// makes the connection to it.
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
		instance: rand.Uint64(),
		peers:    make(map[uint64]*peer),
		sources:  make(map[uint64]*source),
		conns:    make(map[net.Conn]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for id, address := range c.Peers { //synod:ordered
		t.peers[id] = newPeer(t, id, address)
	}
	t.tasks.Go(t.accept)
	return t, nil
}

// Addr returns the address that is listened on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// SetPeer tells where a node listens, from now on. A connection to an earlier
// address is closed; what was on its way is lost.
func (t *Transport) SetPeer(id uint64, address string) error {
	if id == 0 || address == "" {
		return &synod.ConfigError{Package: "tcp", Field: "Peers", Reason: fmt.Sprintf("node %d at %q: a peer has an ID above 0 and an address", id, address)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("tcp: %w", transport.ErrClosed)
	}
	old := t.peers[id]
	if old != nil && old.address == address {
		return nil
	}
	t.peers[id] = newPeer(t, id, address)
	if old != nil {
		old.close()
	}
	return nil
}

// RemovePeer forgets a node. Its own connections to this one are not affected.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	old := t.peers[id]
	delete(t.peers, id)
	t.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// Send implements transport.Transport. A node does not send to itself:
// transport.ErrUnknownNode.
func (t *Transport) Send(to uint64, payload []byte) error { return t.send(to, payload, laneMessages) }

// SendBulk implements transport.Bulker.
func (t *Transport) SendBulk(to uint64, payload []byte) error { return t.send(to, payload, laneBulk) }

func (t *Transport) send(to uint64, payload []byte, l lane) error {
	t.mu.RLock()
	p, closed := t.peers[to], t.closed
	t.mu.RUnlock()
	switch {
	case closed:
		return fmt.Errorf("tcp: to node %d: %w", to, transport.ErrClosed)
	case p == nil || to == t.config.Node:
		return fmt.Errorf("tcp: to node %d: %w: tell its address by SetPeer", to, transport.ErrUnknownNode)
	case len(payload) > t.config.MaxMessageBytes:
		return fmt.Errorf("tcp: to node %d: %w: %d bytes, at most %d", to, transport.ErrTooLarge, len(payload), t.config.MaxMessageBytes)
	}
	return p.lanes[l].send(payload)
}

// Handle implements transport.Transport.
func (t *Transport) Handle(fn func(from uint64, payload []byte)) { t.handler.Store(&fn) }

// HandleUnreachable implements transport.Reporter.
func (t *Transport) HandleUnreachable(fn func(to uint64, err error)) { t.onLost.Store(&fn) }

func (t *Transport) report(to uint64, err error) {
	if fn := t.onLost.Load(); fn != nil && *fn != nil && t.ctx.Err() == nil {
		(*fn)(to, err)
	}
}

// refused reports a connection that was refused or broken off.
func (t *Transport) refused(remote net.Addr, err error) {
	t.config.Logger.Warn("connection refused", "remote", remote, "error", err)
	if t.config.OnRefused != nil {
		t.config.OnRefused(remote.String(), err)
	}
}

// Close implements transport.Transport.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.tasks.Wait()
		return nil
	}
	t.closed = true
	t.cancel()
	for _, p := range t.peers { //synod:ordered
		p.close()
	}
	for c := range t.conns { //synod:ordered
		_ = c.Close()
	}
	t.mu.Unlock()
	err := t.listener.Close()
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
	Queued    int    // messages that wait
	Sent      uint64 // messages handed to the system
	Dropped   uint64 // accepted, but lost before that
	Refused   uint64 // not accepted: queue full, or unreachable
	Connects  uint64 // connections made
}

// Stats returns the figures of every peer, in no order.
func (t *Transport) Stats() []Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Stats, 0, len(t.peers))
	for id, p := range t.peers { //synod:ordered
		s := Stats{Node: id, Address: p.address}
		for i := range p.lanes {
			l := &p.lanes[i]
			l.mu.Lock()
			s.Queued += len(l.queue)
			s.Sent, s.Dropped, s.Refused, s.Connects = s.Sent+l.sent, s.Dropped+l.dropped, s.Refused+l.refused, s.Connects+l.connects
			if lane(i) == laneMessages {
				s.Connected = l.state == connected
			}
			l.mu.Unlock()
		}
		all = append(all, s)
	}
	return all
}

// source is what is known of the connections from one node.
type source struct {
	handling [lanes]sync.Mutex // one message of a sender and lane is handled at a time

	mu       sync.Mutex
	latest   uint64         // the instance that connected last
	live     map[uint64]int // connections by instance
	reported bool           // that two instances are alive
}

func (t *Transport) source(id uint64) *source {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sources[id]
	if s == nil {
		s = &source{live: make(map[uint64]int)}
		t.sources[id] = s
	}
	return s
}

func (s *source) open(instance uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = instance
	s.live[instance]++
}

func (s *source) close(instance uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[instance]--; s.live[instance] == 0 {
		delete(s.live, instance)
	}
	if len(s.live) < 2 {
		s.reported = false
	}
}

// duplicate reports, once, whether a message of this instance shows that two
// processes run under one ID: it comes from one that is not the latest, which so
// has not taken its place.
func (s *source) duplicate(instance uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if instance == s.latest || len(s.live) < 2 || s.reported {
		return false
	}
	s.reported = true
	return true
}

func (t *Transport) accept() {
	slots := make(chan struct{}, t.config.MaxHandshakes)
	pause := t.config.MinBackoff
	for {
		select {
		case slots <- struct{}{}:
		case <-t.ctx.Done():
			return
		}
		conn, err := t.listener.Accept()
		if err != nil {
			<-slots
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or the like: it may pass.
			t.config.Logger.Error("accept failed", "error", err)
			sleep(t.ctx, pause)
			pause = min(2*pause, t.config.MaxBackoff)
			continue
		}
		pause = t.config.MinBackoff
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			_ = conn.Close()
			return
		}
		t.conns[conn] = struct{}{}
		t.tasks.Go(func() {
			t.serve(conn, func() { <-slots })
			_ = conn.Close()
			t.mu.Lock()
			delete(t.conns, conn)
			t.mu.Unlock()
		})
		t.mu.Unlock()
	}
}

// serve shakes hands and then receives. greeted is called when the former is over.
func (t *Transport) serve(raw net.Conn, greeted func()) {
	conn, h, err := t.greet(raw)
	greeted()
	if err != nil {
		if t.ctx.Err() == nil {
			t.refused(raw.RemoteAddr(), err)
		}
		return
	}
	s := t.source(h.from)
	s.open(h.instance)
	defer s.close(h.instance)
	err = t.receive(conn, h, s)
	if err != nil && t.ctx.Err() == nil {
		if errors.Is(err, ErrFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.refused(raw.RemoteAddr(), fmt.Errorf("from node %d: %w", h.from, err))
		} else {
			t.config.Logger.Debug("connection ended", "from", h.from, "error", err)
		}
	}
}

func (t *Transport) greet(raw net.Conn) (net.Conn, hello, error) {
	_ = raw.SetDeadline(time.Now().Add(t.config.HandshakeTimeout))
	conn := raw
	if t.config.Identity != nil {
		secure := tls.Server(raw, t.config.Identity.server())
		if err := secure.HandshakeContext(t.ctx); err != nil {
			kind := ErrCertificate
			var record tls.RecordHeaderError
			if errors.As(err, &record) || errors.Is(err, io.EOF) {
				kind = ErrHandshake
			}
			return nil, hello{}, fmt.Errorf("%w: %w", kind, err)
		}
		conn = secure
	}
	h, err := readHello(conn)
	v := accepted
	switch {
	case errors.Is(err, ErrVersion):
		v = refusedVersion
	case err != nil:
		return nil, h, err
	case h.cluster != t.config.Cluster:
		v = refusedCluster
		err = fmt.Errorf("%w: node %d of cluster %q, this is cluster %q", ErrCluster, h.from, h.cluster, t.config.Cluster)
	case h.to != t.config.Node:
		v = refusedNode
		err = fmt.Errorf("%w: node %d means to reach node %d, this is node %d", ErrNode, h.from, h.to, t.config.Node)
	case h.from == t.config.Node:
		v = refusedNode
		err = fmt.Errorf("%w: another process runs as node %d too", ErrDuplicateNode, h.from)
	case t.config.Identity != nil:
		leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		if err = certifies(leaf, h.cluster, h.from); err != nil {
			v = refusedIdentity
		}
	}
	if _, writeErr := conn.Write(reply{version, v, t.config.Node}.append(nil)); err == nil {
		err = writeErr
	}
	if err != nil {
		return nil, h, err
	}
	_ = raw.SetDeadline(time.Time{})
	keepAlive(raw)
	return conn, h, nil
}

// keepAlive finds out, within some ten seconds, that the machine at the other end
// is gone.
func keepAlive(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	}
}

const readBuffer = 256 << 10

func (t *Transport) receive(conn net.Conn, h hello, s *source) error {
	r := bufio.NewReaderSize(conn, readBuffer)
	for {
		payload, err := readFrame(r, t.config.MaxMessageBytes)
		if err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if s.duplicate(h.instance) {
			t.refused(conn.RemoteAddr(), fmt.Errorf("%w: node %d", ErrDuplicateNode, h.from))
		}
		s.handling[h.lane].Lock()
		if fn := t.handler.Load(); fn != nil && *fn != nil && t.ctx.Err() == nil {
			(*fn)(h.from, payload)
		}
		s.handling[h.lane].Unlock()
	}
}

// sleep waits, or not as long if ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
