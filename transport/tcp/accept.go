package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// source is where a connection comes from.
type source struct {
	node uint64
	lane laneKind
}

// inbound is an accepted connection whose other side is known.
type inbound struct {
	conn     net.Conn
	source   source
	instance uint64
	timeout  time.Duration // as the dialler has it
	done     chan struct{} // closed when nothing of it will be handled any more
	reads    atomic.Uint64 // how often something has arrived
	lastSign time.Time     // when the dialler was last told so
}

// What an acceptor says to a dialler after the handshake, a byte each.
const (
	signRead  = 'r' // I have read something since I last said so
	signProbe = 'p' // are you alive? Send something
)

// tlsAlert is a whole TLS record: a fatal alert, unexpected message.
const tlsAlert = "\x15\x03\x03\x00\x02\x02\x0a"

func (t *Transport) accept() {
	pause := t.config.MinBackoff
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or the like: it may pass.
			t.config.Logger.Error("accept failed", "error", err)
			select {
			case <-time.After(pause):
			case <-t.ctx.Done():
				return
			}
			pause = min(2*pause, t.config.MaxBackoff)
			continue
		}
		pause = t.config.MinBackoff
		t.mu.Lock()
		busy := t.shaking >= t.config.MaxHandshakes
		if !busy {
			t.shaking++
		}
		t.mu.Unlock()
		if busy {
			remote := conn.RemoteAddr().String()
			_ = conn.Close()
			t.refused(&RefusedError{Remote: remote, Err: fmt.Errorf("%w: %d are in a handshake (Config.MaxHandshakes)", ErrTooManyConnections, t.config.MaxHandshakes)})
			continue
		}
		t.tasks.Go(func() { t.serve(conn) })
	}
}

// serve shakes hands with whoever has connected, and then receives.
func (t *Transport) serve(raw net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { _ = raw.Close() })
	defer stop()
	in, err := t.greet(raw)
	if err != nil {
		// The slot is kept while the reason travels, or refusing would cost nothing.
		refusal := &RefusedError{Remote: raw.RemoteAddr().String(), Err: err}
		if in != nil {
			refusal.Node = in.source.node
		}
		t.refused(refusal)
		discard(raw)
	}
	t.mu.Lock()
	t.shaking--
	t.mu.Unlock()
	if err != nil {
		return
	}
	log := t.logger(in.source.node, in.source.lane)
	log.Debug("peer connected", "remote", raw.RemoteAddr().String())
	if in.source.lane == messageLane {
		if p := (*t.peers.Load())[in.source.node]; p != nil {
			for _, l := range p.lanes {
				l.met(in.instance)
			}
		}
	}
	err = t.receive(in)
	_ = raw.Close()
	t.unclaim(in)
	if errors.Is(err, ErrFrame) {
		t.refused(&RefusedError{Remote: raw.RemoteAddr().String(), Node: in.source.node, Err: err})
	} else {
		log.Debug("peer disconnected", "error", err)
	}
}

// greet does the acceptor's part of the handshake. With an error, what it returns
// besides is only for telling about it, and may be nil.
func (t *Transport) greet(raw net.Conn) (*inbound, error) {
	deadline := time.Now().Add(t.config.HandshakeTimeout)
	_ = raw.SetDeadline(deadline)
	conn := raw
	if t.config.Identity != nil {
		secure := tls.Server(raw, t.config.Identity.server())
		if err := secure.HandshakeContext(t.ctx); err != nil {
			if record := (tls.RecordHeaderError{}); errors.As(err, &record) && record.Conn != nil {
				// So that a dialler in plaintext learns why.
				_, _ = raw.Write([]byte(tlsAlert))
			}
			return nil, tlsError(err)
		}
		conn = secure
	}
	h, err := readHello(conn)
	in := &inbound{
		conn:     conn,
		source:   source{h.sender, h.lane},
		instance: h.instance,
		timeout:  h.timeout,
		done:     make(chan struct{}),
	}
	switch {
	case errors.Is(err, ErrVersion):
	case err != nil:
		return nil, silence(err)
	default:
		if err = t.admit(h, conn); err == nil {
			// Some of the time is left for the answer.
			err = t.claim(in, deadline.Add(-t.config.HandshakeTimeout/4))
		}
	}
	a := answer{code: codeAccepted, node: t.config.Node, instance: t.instance, maxMessage: uint32(t.config.MaxMessageBytes)}
	if err != nil {
		var told bool
		if a.code, told = codeOf(err); !told {
			return in, err
		}
	}
	if _, writeErr := conn.Write(a.append(nil)); writeErr != nil && err == nil {
		t.unclaim(in)
		return in, fmt.Errorf("%w: %w", ErrHandshake, writeErr)
	}
	if err != nil {
		return in, err
	}
	in.lastSign = time.Now()
	_ = raw.SetDeadline(time.Time{})
	_ = raw.SetReadDeadline(in.lastSign.Add(in.timeout))
	return in, nil
}

// admit checks that the other side is who it says and means this node.
func (t *Transport) admit(h hello, conn net.Conn) error {
	switch {
	case h.cluster != t.config.Cluster:
		return fmt.Errorf("%w: the peer belongs to %q, this node to %q", ErrCluster, h.cluster, t.config.Cluster)
	case h.sender == t.config.Node && h.instance == t.instance:
		return fmt.Errorf("%w: this node has dialled itself, at the address that it has for node %d", ErrNode, h.receiver)
	case h.receiver != t.config.Node:
		return fmt.Errorf("%w: the peer means to reach node %d, this is node %d", ErrNode, h.receiver, t.config.Node)
	case h.sender == t.config.Node:
		return fmt.Errorf("%w: the peer runs as node %d, as this one does", ErrDuplicateNode, h.sender)
	}
	if secure, ok := conn.(*tls.Conn); ok {
		return certifies(secure.ConnectionState().PeerCertificates[0], h.cluster, h.sender)
	}
	return nil
}

// claim makes a connection the one of its source. An older one gives way if it is
// of the same process, or gives no sign of life.
func (t *Transport) claim(in *inbound, deadline time.Time) error {
	limit := time.NewTimer(time.Until(deadline))
	defer limit.Stop()
	for {
		t.mu.Lock()
		old := t.inbound[in.source]
		full := old == nil && len(t.inbound) >= t.config.MaxConnections
		if old == nil && !full {
			t.inbound[in.source] = in
		}
		t.mu.Unlock()
		switch {
		case full:
			return fmt.Errorf("%w: there are %d (Config.MaxConnections)", ErrTooManyConnections, t.config.MaxConnections)
		case old == nil:
			return nil
		case old.instance != in.instance && t.alive(old, deadline):
			return fmt.Errorf("%w: node %d is connected from %v already, by another process, and that one is alive", ErrDuplicateNode, in.source.node, old.conn.RemoteAddr())
		}
		hangUp(old.conn)
		select {
		case <-old.done: // its last message has been handled
		case <-limit.C:
			return fmt.Errorf("%w: a message of node %d's previous connection is still being handled", ErrHandshake, in.source.node)
		}
	}
}

func (t *Transport) unclaim(in *inbound) {
	t.mu.Lock()
	delete(t.inbound, in.source)
	t.mu.Unlock()
	close(in.done)
}

// alive asks the other side of a connection for a sign of life and waits for it,
// for half of the time after which a connection is given up, but not beyond the
// deadline.
func (t *Transport) alive(in *inbound, deadline time.Time) bool {
	before := in.reads.Load()
	wait := max(min(in.timeout/2, time.Until(deadline)), time.Millisecond)
	_ = in.conn.SetWriteDeadline(time.Now().Add(wait))
	if _, err := in.conn.Write([]byte{signProbe}); err != nil {
		return false
	}
	const looks = 50
	tick := time.NewTicker(wait / looks)
	defer tick.Stop()
	for range looks {
		select {
		case <-in.done:
			return false
		case <-t.ctx.Done():
			return false
		case <-tick.C:
			if in.reads.Load() != before {
				return true
			}
		}
	}
	return false
}

// Read reads from the connection, and tells the dialler now and then that it did.
// It is for the frame reader.
func (in *inbound) Read(p []byte) (int, error) {
	n, err := in.conn.Read(p)
	if n > 0 {
		in.reads.Add(1)
		if now := time.Now(); now.Sub(in.lastSign) >= in.timeout/8 {
			in.lastSign = now
			_ = in.conn.SetReadDeadline(now.Add(in.timeout))
			_ = in.conn.SetWriteDeadline(now.Add(in.timeout))
			// A single byte fits the system's buffer unless the dialler has not read for
			// thousands of them, which no dialler does.
			if _, err := in.conn.Write([]byte{signRead}); err != nil {
				return n, err
			}
		}
	}
	return n, err
}

// receive hands over messages until the connection ends.
func (t *Transport) receive(in *inbound) error {
	r := newFrameReader(in, t.config.MaxMessageBytes)
	for {
		payload, ping, err := r.next()
		switch {
		case err != nil:
			return err
		case ping:
		default:
			if fn := t.handler.Load(); fn != nil && *fn != nil && !t.closed.Load() {
				(*fn)(in.source.node, payload)
			}
		}
	}
}

// silence names the error of a side that said nothing, or too little.
func silence(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, ErrHandshake), errors.Is(err, ErrVersion):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: nothing more was said in time: %w", ErrHandshake, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the other side hung up before it was over: %w", ErrHandshake, err)
	}
	return fmt.Errorf("%w: %w", ErrHandshake, err)
}

// unfinished reports whether a handshake ended because the other side was gone or
// silent, as when it is being restarted, and not for anything that it said.
func unfinished(err error) bool {
	var network net.Error
	return !errors.Is(err, ErrCertificate) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network))
}

// hangUp closes a connection without a word: TLS would say goodbye first, and wait
// for that to be written.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}

// tlsError tells a bad certificate from a side that doesn't speak TLS.
func tlsError(err error) error {
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.Is(err, ErrCertificate):
		return err
	case errors.As(err, &record):
		return fmt.Errorf("%w: the other side does not speak TLS: Config.Identity and Config.Insecure must be the same on all nodes: %w", ErrHandshake, err)
	case errors.As(err, &verify), err.Error() == "tls: client didn't provide a certificate":
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w by the other side: %w", ErrCertificate, err)
	}
	return silence(err)
}
