package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/synod-go/synod/transport"
)

// peer is a node at an address. When the address changes, another peer takes its
// place.
type peer struct {
	id      uint64
	address string
	lanes   [lanes]sendLane
}

func newPeer(t *Transport, id uint64, address string) *peer {
	p := &peer{id: id, address: address}
	for i := range p.lanes {
		l := &p.lanes[i]
		*l = sendLane{transport: t, peer: p, lane: lane(i), wake: make(chan struct{}, 1)}
		l.ctx, l.cancel = context.WithCancel(t.ctx)
	}
	return p
}

func (p *peer) close() {
	for i := range p.lanes {
		l := &p.lanes[i]
		l.cancel()
		l.mu.Lock()
		l.closed = true
		if l.conn != nil {
			_ = l.conn.Close()
		}
		l.mu.Unlock()
	}
}

type laneState uint8

const (
	idle       laneState = iota // no connection, and nobody makes one
	connecting                  // a writer makes one; messages wait for it
	connected
	resting // the last attempt failed: messages are refused until the pause is over
)

// sendLane is one connection to a peer: a queue, and a writer while there is a
// connection or one is being made.
type sendLane struct {
	transport *Transport
	peer      *peer
	lane      lane
	ctx       context.Context
	cancel    context.CancelFunc
	wake      chan struct{}

	mu       sync.Mutex
	state    laneState
	queue    [][]byte
	bytes    int // in the queue, or taken by the writer and not written yet
	conn     net.Conn
	closed   bool
	failures int
	until    time.Time // the end of the pause
	lastErr  error

	sent, dropped, refused, connects uint64
}

func (l *sendLane) send(payload []byte) error {
	c := &l.transport.config
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		l.refused++
		return fmt.Errorf("tcp: to node %d at %s: %w", l.peer.id, l.peer.address, transport.ErrUnreachable)
	case l.state == resting && time.Now().Before(l.until):
		l.refused++
		return fmt.Errorf("tcp: to node %d at %s: %w: %w", l.peer.id, l.peer.address, transport.ErrUnreachable, l.lastErr)
	case len(l.queue) >= c.QueueMessages || l.bytes+len(payload) > c.QueueBytes && l.bytes > 0:
		l.refused++
		return fmt.Errorf("tcp: to node %d at %s: %w", l.peer.id, l.peer.address, transport.ErrQueueFull)
	}
	l.queue = append(l.queue, payload)
	l.bytes += len(payload)
	switch {
	case l.state != connected && l.state != connecting:
		l.state = connecting
		l.transport.tasks.Go(l.run)
	case len(l.queue) == 1:
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// run makes a connection and writes to it until it breaks. It ends with the lane
// idle or resting; the next message starts it anew.
func (l *sendLane) run() {
	conn, raw, err := l.dial()
	if err == nil {
		l.mu.Lock()
		if l.closed {
			err = transport.ErrClosed
			_ = raw.Close()
		} else {
			l.state, l.conn, l.failures = connected, raw, 0
			l.connects++
		}
		l.mu.Unlock()
	}
	dialled := err == nil
	if dialled {
		gone := make(chan struct{})
		l.transport.tasks.Go(func() {
			// The peer sends nothing here: whatever comes, the connection has ended. Without
			// this, the first messages after a peer's restart would go nowhere.
			var b [1]byte
			_, _ = conn.Read(b[:])
			_ = raw.Close()
			close(gone)
		})
		err = l.write(conn, raw, gone)
		_ = raw.Close()
		<-gone
	}
	l.mu.Lock()
	lost := len(l.queue)
	l.dropped += uint64(lost)
	l.queue, l.bytes, l.conn = nil, 0, nil
	if dialled {
		l.state = idle
	} else {
		l.state = resting
		l.lastErr = err
		pause := l.transport.config.MinBackoff << min(l.failures, 20)
		if pause > l.transport.config.MaxBackoff || pause <= 0 {
			pause = l.transport.config.MaxBackoff
		}
		l.failures++
		l.until = time.Now().Add(pause/2 + rand.N(pause/2+1))
	}
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return
	}
	l.transport.config.Logger.Info("connection lost or not made", "to", l.peer.id, "address", l.peer.address, "lost", lost, "error", err)
	l.transport.report(l.peer.id, fmt.Errorf("tcp: to node %d at %s: %w: %w", l.peer.id, l.peer.address, transport.ErrUnreachable, err))
}

// dial returns a connection after the handshake, and the TCP connection below it.
func (l *sendLane) dial() (conn, raw net.Conn, err error) {
	c := &l.transport.config
	ctx, cancel := context.WithTimeout(l.ctx, c.DialTimeout)
	defer cancel()
	raw, err = (&net.Dialer{}).DialContext(ctx, "tcp", l.peer.address)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = raw.Close()
		}
	}()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn = raw
	if c.Identity != nil {
		secure := tls.Client(raw, c.Identity.client(c.Cluster, l.peer.id))
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, nil, err
		}
		conn = secure
	}
	h := hello{version: version, lane: l.lane, from: c.Node, to: l.peer.id, instance: l.transport.instance, cluster: c.Cluster}
	if _, err := conn.Write(h.append(nil)); err != nil {
		return nil, nil, err
	}
	p, err := readReply(conn)
	switch {
	case err != nil:
		return nil, nil, err
	case p.verdict != accepted:
		err = p.verdict.err()
		if p.verdict == refusedNode {
			err = fmt.Errorf("%w: node %d answers there", err, p.node)
		}
	case p.version != version:
		err = fmt.Errorf("%w: %d, this node speaks %d", ErrVersion, p.version, version)
	case p.node != l.peer.id:
		err = fmt.Errorf("%w: node %d answers there", ErrNode, p.node)
	}
	if err != nil {
		l.transport.refused(raw.RemoteAddr(), fmt.Errorf("to node %d: %w", l.peer.id, err))
		return nil, nil, err
	}
	if !stop() {
		return nil, nil, context.Cause(ctx)
	}
	_ = raw.SetDeadline(time.Time{})
	keepAlive(raw)
	return conn, raw, nil
}

var errPeerClosed = errors.New("the peer closed the connection")

const (
	// smallMessage is the size up to which a payload is copied behind its header:
	// cheaper than another vector of the system call.
	smallMessage = 2 << 10
	// scratchBytes is the size from which on the buffer for that is not kept.
	scratchBytes = 1 << 20
)

// write sends what is queued until the connection breaks or the lane is closed.
func (l *sendLane) write(conn, raw net.Conn, gone <-chan struct{}) error {
	c := &l.transport.config
	secure := conn != raw
	var (
		batch    [][]byte
		scratch  []byte
		vectors  net.Buffers
		deadline time.Time
	)
	for {
		l.mu.Lock()
		batch, l.queue = l.queue, batch[:0]
		l.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-l.wake:
				continue
			case <-gone:
				return errPeerClosed
			case <-l.ctx.Done():
				return transport.ErrClosed
			}
		}
		need := 0
		for _, m := range batch {
			need += frameHeader
			if secure || len(m) <= smallMessage {
				need += len(m)
			}
		}
		// The vectors alias scratch, which so must not move while it is filled.
		if cap(scratch) < need {
			scratch = make([]byte, 0, max(need, 64<<10))
		}
		scratch, vectors = scratch[:0], vectors[:0]
		start, written := 0, 0
		for i, m := range batch {
			at := len(scratch)
			scratch = scratch[:at+frameHeader]
			putFrameHeader(scratch[at:], m)
			if secure || len(m) <= smallMessage {
				scratch = append(scratch, m...)
			} else {
				vectors = append(vectors, scratch[start:len(scratch):len(scratch)], m)
				start = len(scratch)
			}
			written += len(m)
			batch[i] = nil
		}
		if len(scratch) > start {
			vectors = append(vectors, scratch[start:])
		}
		if now := time.Now(); deadline.Sub(now) < c.WriteTimeout/2 {
			deadline = now.Add(c.WriteTimeout)
			_ = raw.SetWriteDeadline(deadline)
		}
		var err error
		if len(vectors) == 1 {
			_, err = conn.Write(vectors[0])
		} else {
			v := vectors // WriteTo consumes it
			_, err = v.WriteTo(conn)
		}
		clear(vectors)
		if cap(scratch) > scratchBytes {
			scratch = nil
		}
		l.mu.Lock()
		l.bytes -= written
		if err == nil {
			l.sent += uint64(len(batch))
		} else {
			l.dropped += uint64(len(batch))
		}
		l.mu.Unlock()
		if err != nil {
			select {
			case <-gone:
				err = fmt.Errorf("%w: %w", errPeerClosed, err)
			default:
			}
			return err
		}
	}
}
