package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod/transport"
)

// bulkIdle is how long a bulk connection that nothing is sent over is kept.
const bulkIdle = time.Minute

// errIdle ends a connection that is not needed any more.
var errIdle = errors.New("idle")

// lane is one of the two ways to a peer: a queue, and a task that connects and
// writes.
//
//	connecting ──▶ connected ──▶ connecting …
//	    │  ▲                         messages queue up
//	    ▼  │
//	  resting: the last attempt failed, messages are refused
type lane struct {
	t    *Transport
	node uint64
	kind laneKind
	log  *slog.Logger

	wake  chan struct{} // something was queued
	retry chan struct{} // the pause between two attempts may end
	probe chan struct{} // the peer asks for a sign of life
	ctx   context.Context
	stop  context.CancelFunc
	full  error // made once, since what it says comes in numbers

	mu       sync.Mutex
	address  string
	attempt  context.CancelFunc // ends the current connection or attempt
	moved    bool               // it was ended for the sake of another one
	instance uint64             // of the peer that is connected; 0: none
	queue    [][]byte
	spare    [][]byte // an empty slice, to be the next queue
	messages int      // queued, or being written
	bytes    int
	limit    int   // largest message that the peer takes
	refusal  error // why messages are refused, or nil
	ended    error // why the lane has ended, or nil

	sent, dropped, refused, connects uint64
}

func newLane(t *Transport, node uint64, kind laneKind, address string) *lane {
	l := &lane{
		t:       t,
		node:    node,
		kind:    kind,
		log:     t.logger(node, kind),
		wake:    make(chan struct{}, 1),
		retry:   make(chan struct{}, 1),
		probe:   make(chan struct{}, 1),
		address: address,
		limit:   t.config.MaxMessageBytes,
		full: fmt.Errorf("tcp: to node %d: %w: at most %d messages and %d bytes wait (Config.QueueMessages, Config.QueueBytes)",
			node, transport.ErrQueueFull, t.config.QueueMessages, t.config.QueueBytes),
	}
	l.ctx, l.stop = context.WithCancel(t.ctx)
	return l
}

// signal sets a flag that a task waits for.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push queues a message.
func (l *lane) push(payload []byte) error {
	c := &l.t.config
	l.mu.Lock()
	var err error
	switch {
	case l.ended != nil:
		err = l.ended
	case len(payload) > l.limit:
		err = fmt.Errorf("tcp: to node %d: %w: %d bytes, at most %d (Config.MaxMessageBytes, here or there)", l.node, transport.ErrTooLarge, len(payload), l.limit)
	case l.refusal != nil:
		err = l.refusal
	case l.messages >= c.QueueMessages || l.messages > 0 && l.bytes+len(payload) > c.QueueBytes:
		err = l.full
	}
	if err != nil {
		l.refused++
		l.mu.Unlock()
		return err
	}
	l.queue = append(l.queue, payload)
	l.messages++
	l.bytes += len(payload)
	first := len(l.queue) == 1
	l.mu.Unlock()
	if first {
		signal(l.wake)
	}
	return nil
}

// take returns what is queued, for written to take back.
func (l *lane) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	batch := l.queue
	l.queue, l.spare = l.spare, nil
	return batch
}

// written takes a batch off the books, of which the first n messages were sent.
func (l *lane) written(batch [][]byte, n int) {
	size := 0
	for _, p := range batch {
		size += len(p)
	}
	total := len(batch)
	clear(batch)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages -= total
	l.bytes -= size
	l.sent += uint64(n)
	l.dropped += uint64(total - n)
	l.spare = batch[:0]
}

// reject drops what is queued, has further messages refused, and reports why.
func (l *lane) reject(cause error) {
	err := fmt.Errorf("tcp: to node %d: %w: %w", l.node, transport.ErrUnreachable, cause)
	l.mu.Lock()
	if l.ended == nil {
		l.refusal = err
	}
	l.dropQueue()
	l.mu.Unlock()
	l.t.report(l.node, err)
}

func (l *lane) dropQueue() {
	for _, p := range l.queue {
		l.bytes -= len(p)
	}
	l.messages -= len(l.queue)
	l.dropped += uint64(len(l.queue))
	clear(l.queue)
	l.queue = l.queue[:0]
}

// end ends the lane for good.
func (l *lane) end(why error) {
	l.mu.Lock()
	if l.ended == nil {
		l.ended = why
	}
	l.dropQueue()
	l.mu.Unlock()
	l.stop()
}

// move goes on at another address.
func (l *lane) move(address string) {
	l.mu.Lock()
	if l.address == address {
		l.mu.Unlock()
		return
	}
	l.address = address
	l.restart()
	l.mu.Unlock()
	signal(l.retry)
}

// restart needs the lock.
func (l *lane) restart() {
	if l.attempt != nil {
		l.moved = true
		l.attempt()
	}
}

// met is called when the peer has connected to this node: then it can be reached,
// and if it is another process than before, this lane's connection is a dead one.
func (l *lane) met(instance uint64) {
	l.mu.Lock()
	if l.instance != 0 && l.instance != instance {
		l.restart()
	}
	l.mu.Unlock()
	signal(l.retry)
}

func (l *lane) addTo(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Address = l.address
	s.Queued += l.messages
	s.Bytes += l.bytes
	s.Sent += l.sent
	s.Dropped += l.dropped
	s.Refused += l.refused
	s.Connects += l.connects
	if l.kind == messageLane {
		s.Connected = l.instance != 0
	}
}

// run connects and writes until the lane is ended.
func (l *lane) run() {
	failures := 0
	last := "" // the last error that was logged, so that a peer that stays away is logged once
	for l.needed() {
		ctx, cancel := context.WithCancel(l.ctx)
		l.mu.Lock()
		address := l.address
		l.attempt, l.moved, l.refusal = cancel, false, nil
		l.mu.Unlock()
		began := time.Now()
		conn, peer, err := l.connect(ctx, address)
		connected := err == nil
		if connected {
			l.established(peer)
			l.log.Info("connected", "address", address)
			began, last = time.Now(), ""
			err = l.serve(ctx, conn)
		}
		l.mu.Lock()
		moved := l.moved
		l.attempt, l.instance = nil, 0
		l.mu.Unlock()
		cancel()
		switch {
		case l.ctx.Err() != nil:
		case errors.Is(err, errIdle):
			l.log.Debug("disconnected: idle", "address", address)
		case moved:
			failures = 0
			l.log.Info("connecting anew", "address", address)
		case connected && time.Since(began) > l.t.config.MaxBackoff:
			// It went well for a while, so the next attempt is made at once, and what
			// is queued may wait for it.
			failures = 0
			l.log.Warn("connection lost", "address", address, "error", err)
			l.t.report(l.node, fmt.Errorf("tcp: to node %d: %w: %w", l.node, transport.ErrUnreachable, err))
		default:
			if text := err.Error(); text != last {
				last = text
				l.log.Warn("can't connect, will go on trying", "address", address, "error", err)
			}
			if connected && failures == 0 {
				// A single short connection is no sign of trouble: a peer that restarts.
				l.t.report(l.node, fmt.Errorf("tcp: to node %d: %w: %w", l.node, transport.ErrUnreachable, err))
			} else {
				l.reject(err)
				l.rest(failures)
			}
			failures++
		}
	}
}

// established notes who the peer is, and drops what is too large for it.
func (l *lane) established(peer answer) {
	l.mu.Lock()
	l.instance, l.limit, l.refusal = peer.instance, min(l.t.config.MaxMessageBytes, int(peer.maxMessage)), nil
	l.connects++
	before := len(l.queue)
	l.queue = slices.DeleteFunc(l.queue, func(p []byte) bool {
		if len(p) <= l.limit {
			return false
		}
		l.bytes -= len(p)
		return true
	})
	large := before - len(l.queue)
	l.messages -= large
	l.dropped += uint64(large)
	l.mu.Unlock()
	if large > 0 {
		l.t.report(l.node, fmt.Errorf("tcp: to node %d: %w: its Config.MaxMessageBytes is %d", l.node, transport.ErrTooLarge, peer.maxMessage))
	}
}

// needed waits until a connection is needed, and reports false when the lane has
// ended. Messages may come any time, so that theirs always is; bulk is rare.
func (l *lane) needed() bool {
	for l.ctx.Err() == nil {
		if l.kind == messageLane {
			return true
		}
		l.mu.Lock()
		l.refusal = nil
		waiting := len(l.queue) > 0
		l.mu.Unlock()
		if waiting {
			return true
		}
		select {
		case <-l.wake:
		case <-l.ctx.Done():
		}
	}
	return false
}

// rest pauses after a failed attempt.
func (l *lane) rest(failures int) {
	c := &l.t.config
	pause := c.MaxBackoff
	if shift := min(failures, 30); c.MinBackoff<<shift>>shift == c.MinBackoff {
		pause = min(pause, c.MinBackoff<<shift)
	}
	timer := time.NewTimer(pause - rand.N(pause/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.retry:
	case <-l.ctx.Done():
	}
}

// connect makes a connection. Messages that wait for it too long are dropped.
func (l *lane) connect(ctx context.Context, address string) (net.Conn, answer, error) {
	type result struct {
		conn net.Conn
		peer answer
		err  error
	}
	done := make(chan result, 1)
	l.t.tasks.Go(func() {
		conn, peer, err := l.dial(ctx, address)
		done <- result{conn, peer, err}
	})
	stale := time.NewTimer(l.t.config.StaleAfter)
	defer stale.Stop()
	for {
		select {
		case r := <-done:
			return r.conn, r.peer, r.err
		case <-stale.C:
			l.reject(fmt.Errorf("no connection to %s within %v", address, l.t.config.StaleAfter))
		}
	}
}

// dial does the dialler's part of the handshake.
func (l *lane) dial(ctx context.Context, address string) (conn net.Conn, peer answer, err error) {
	c := &l.t.config
	raw, err := (&net.Dialer{Timeout: c.DialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	_ = raw.SetDeadline(time.Now().Add(c.HandshakeTimeout))
	peer, conn, err = l.greet(ctx, raw)
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, answer{}, ctx.Err()
		}
		refusal := &RefusedError{Remote: address, Node: l.node, ByPeer: peer.code != codeAccepted, Err: err}
		if !unfinished(err) {
			l.t.refused(refusal)
		}
		return nil, answer{}, refusal
	}
	_ = raw.SetDeadline(time.Time{})
	return conn, peer, nil
}

func (l *lane) greet(ctx context.Context, raw net.Conn) (answer, net.Conn, error) {
	c := &l.t.config
	conn := raw
	if c.Identity != nil {
		secure := tls.Client(raw, c.Identity.client(c.Cluster, l.node))
		if err := secure.HandshakeContext(ctx); err != nil {
			return answer{}, nil, tlsError(err)
		}
		conn = secure
	}
	h := hello{lane: l.kind, sender: c.Node, receiver: l.node, instance: l.t.instance, timeout: c.PeerTimeout, cluster: c.Cluster}
	if _, err := conn.Write(h.append(nil)); err != nil {
		return answer{}, nil, tlsError(err)
	}
	a, err := readAnswer(conn)
	switch {
	case err != nil:
		return answer{}, nil, tlsError(err)
	case a.code == codeNode:
		return a, nil, fmt.Errorf("%w: node %d answers there", ErrNode, a.node)
	case a.code != codeAccepted:
		return a, nil, reasons[a.code]
	case a.node != l.node:
		return a, nil, fmt.Errorf("%w: node %d answers there", ErrNode, a.node)
	}
	return a, conn, nil
}

// serve writes what is queued until the connection breaks or is not needed.
func (l *lane) serve(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	defer stop()
	timeout := l.t.config.PeerTimeout
	broken := make(chan struct{})
	var cause error
	l.t.tasks.Go(func() {
		cause = l.listen(conn, timeout)
		hangUp(conn) // ends a write that is under way
		close(broken)
	})
	defer func() {
		hangUp(conn)
		<-broken
	}()
	w := newFrameWriter(conn)
	tick := time.NewTicker(timeout / 4)
	defer tick.Stop()
	wrote, lastWrite := false, time.Now()
	for {
		if batch := l.take(); batch != nil {
			n, err := w.write(batch)
			l.written(batch, n)
			if err != nil {
				hangUp(conn)
				<-broken
				return l.lost(cause, err)
			}
			wrote = true
			continue
		}
		ping := false
		select {
		case <-l.wake:
		case <-broken:
			return l.lost(cause, nil)
		case <-l.probe:
			ping = true
		case now := <-tick.C:
			if ping = !wrote; wrote {
				wrote, lastWrite = false, now
			} else if l.kind == bulkLane && now.Sub(lastWrite) > bulkIdle {
				return errIdle
			}
		}
		if ping {
			if err := w.ping(); err != nil {
				hangUp(conn)
				<-broken
				return l.lost(cause, err)
			}
		}
	}
}

// lost names the reason for which a connection broke.
func (l *lane) lost(cause, write error) error {
	var timeout net.Error
	switch {
	case errors.As(cause, &timeout) && timeout.Timeout():
		return fmt.Errorf("the peer was silent for %v", l.t.config.PeerTimeout)
	case errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF):
		return errors.New("the peer closed the connection")
	case write != nil && errors.Is(cause, net.ErrClosed):
		return write
	}
	return cause
}

// listen reads the peer's signs of life until the connection breaks.
func (l *lane) listen(conn net.Conn, timeout time.Duration) error {
	var signs [64]byte
	for {
		_ = conn.SetReadDeadline(time.Now().Add(timeout))
		n, err := conn.Read(signs[:])
		if err != nil {
			return err
		}
		for _, s := range signs[:n] {
			if s == signProbe {
				signal(l.probe)
			}
		}
	}
}
