package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/tcp"
)

// The group that all of this is about, and the channels that share the transport.
const (
	group          = 1
	channelEngine  = 1
	channelForward = 2
)

// config says how a node runs.
type config struct {
	engine   string
	id       uint64
	peers    map[uint64]string // the first members, this one too; with join: this one
	join     bool              // it joins a cluster that exists
	listen   string            // where the others' connections arrive; empty: at its address among the peers
	dir      string
	identity *tcp.Identity // nil: plaintext
	log      *slog.Logger
}

// node is one replica, with all that it stands on.
type node struct {
	id          uint64
	engine      string
	address     string
	incarnation uint64
	store       *store
	log         replica
	forward     *forwarder
	changing    sync.Mutex // held while this node changes the members
	sessions    sync.Mutex // held while one is opened
	session     *session   // in which this node passes writes on; nil: none is open
	close       func() error
}

// start opens a node's data and takes part.
func start(ctx context.Context, c config) (_ *node, err error) {
	if err := checkEngine(c.engine); err != nil {
		return nil, err
	}
	n := &node{id: c.id, engine: c.engine, address: c.peers[c.id], store: newStore()}
	var closers []func() error
	n.close = func() error {
		var errs []error
		for _, fn := range slices.Backward(closers) {
			errs = append(errs, fn())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	listen := c.listen
	if listen == "" {
		listen = n.address
	}
	wire, err := tcp.Listen(tcp.Config{Cluster: "redis", Node: c.id, Address: listen, Peers: c.peers, Identity: c.identity, Insecure: c.identity == nil, Logger: c.log})
	if err != nil {
		return nil, err
	}
	closers = append(closers, wire.Close)
	disk, err := pebble.Open(pebble.Config{Dir: c.dir, Logger: c.log})
	if err != nil {
		return nil, err
	}
	closers = append(closers, disk.Close)
	mux := transport.NewMux(wire)
	member, err := engines[c.engine](ctx, engineConfig{node: c.id, transport: mux.Channel(channelEngine), store: disk, log: c.log,
		setAddress: func(node uint64, address string) {
			if err := wire.SetPeer(node, address); err != nil {
				c.log.Error("the address of a member is no good", "node", node, "address", address, "error", err)
			}
		}})
	if err != nil {
		return nil, err
	}
	closers = append(closers, member.Close)
	n.incarnation = member.Status().Incarnation
	if c.join {
		err = member.Join(ctx, group)
	} else {
		// This program takes an empty directory for a member of a new cluster. If it is empty
		// because a disk was lost, the others will not listen: it has to -join.
		var members []synod.Member
		for id, address := range c.peers {
			members = append(members, synod.Member{Node: id, Address: address})
		}
		err = member.BootstrapMembers(ctx, group, members)
	}
	if err != nil && !errors.Is(err, errBootstrapped) {
		return nil, err
	}
	if n.log, err = member.startGroup(ctx, group, n.store); err != nil {
		return nil, err
	}
	n.forward = newForwarder(n, mux.Channel(channelForward))
	return n, nil
}

// propose has a command put into the log, wherever the leader is, and returns the reply. Where there is
// no leader it waits for one.
//
// A command that is passed on is one of a session: if the leader goes before it has answered, its successor
// is asked for the same, and it is executed once.
func (n *node) propose(ctx context.Context, command []byte) ([]byte, error) {
	result, err := n.log.Propose(ctx, command)
	if !errors.As(err, new(*synod.NotLeaderError)) {
		return result, err
	}
	began, maybe := time.Now(), false
	for range 3 {
		var s *session
		if s, err = n.openSession(ctx); err != nil {
			return nil, err
		}
		result, err = s.Do(ctx, func(ctx context.Context, r synod.Request) ([]byte, error) {
			one, cancel := context.WithTimeout(ctx, attemptTimeout) // there may be another leader by then
			defer cancel()
			result, err := n.attempt(one, kindOnce, append(encodeRequest(r), command...))
			if maybe = maybe || errors.Is(err, synod.ErrUnknownOutcome); !maybe && tryAgain(err) && time.Since(began) > patience {
				err = replyError(explain(err))
			}
			return result, err
		})
		if !errors.Is(err, synod.ErrSessionExpired) || errors.Is(err, synod.ErrUnknownOutcome) {
			break
		}
		n.sessions.Lock() // nobody has used it for long; nothing was executed in it
		if n.session == s {
			n.session = nil
		}
		n.sessions.Unlock()
	}
	return result, err
}

// tryAgain reports whether something was not executed, and may be a moment later.
func tryAgain(err error) bool {
	return errors.As(err, new(*synod.NotLeaderError)) || errors.Is(err, synod.ErrOverloaded)
}

// openSession returns the session in which this node passes commands on.
func (n *node) openSession(ctx context.Context) (*session, error) {
	n.sessions.Lock()
	defer n.sessions.Unlock()
	if n.session == nil {
		one, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		id, err := n.ask(one, kindOpen, nil)
		if err != nil { // which leaves nothing of the command
			return nil, replyError("TRYAGAIN not executed: no session was opened: " + err.Error())
		}
		n.session = newSession(binary.LittleEndian.Uint64(id), 0)
	}
	return n.session, nil
}

// attempt asks the leader once, wherever it is.
func (n *node) attempt(ctx context.Context, kind byte, payload []byte) ([]byte, error) {
	result, err := n.execute(ctx, kind, payload)
	var elsewhere *synod.NotLeaderError
	switch {
	case errors.As(err, &elsewhere) && elsewhere.Leader != 0 && elsewhere.Leader != n.id:
		return n.forward.ask(ctx, elsewhere.Leader, kind, payload)
	case err != nil && ctx.Err() != nil && !errors.Is(err, synod.ErrUnknownOutcome): // its turn did not come
		return nil, &synod.NotLeaderError{Group: group}
	}
	return result, err
}

// ask asks the leader until it has done it, or not, or may have.
func (n *node) ask(ctx context.Context, kind byte, payload []byte) ([]byte, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		result, err := n.attempt(ctx, kind, payload)
		if !tryAgain(err) {
			return result, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

func encodeRequest(r synod.Request) []byte {
	b := binary.LittleEndian.AppendUint64(nil, r.Session)
	b = binary.LittleEndian.AppendUint64(b, r.Sequence)
	return binary.LittleEndian.AppendUint64(b, r.Floor)
}

// Kinds of what is asked of a leader.
const (
	kindOnce byte = iota + 1
	kindOpen
	kindMembers
	kindTransfer
)

// execute does what is asked of a leader, if this node is it.
func (n *node) execute(ctx context.Context, kind byte, payload []byte) ([]byte, error) {
	switch kind {
	case kindOnce:
		if len(payload) < 24 {
			return nil, errForward
		}
		of := func(at int) uint64 { return binary.LittleEndian.Uint64(payload[at:]) }
		return n.log.ProposeOnce(ctx, synod.Request{Session: of(0), Sequence: of(8), Floor: of(16)}, payload[24:])
	case kindOpen:
		id, err := n.log.OpenSession(ctx, 0)
		return binary.LittleEndian.AppendUint64(nil, id), err
	case kindTransfer:
		if len(payload) != 8 {
			return nil, errForward
		}
		return appendOK(nil), n.log.TransferLeader(ctx, binary.LittleEndian.Uint64(payload))
	case kindMembers:
		return n.changeMembers(ctx, payload)
	}
	return nil, errForward
}

// changeMembers adds a member, or removes one whose address is empty.
func (n *node) changeMembers(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) < 16 {
		return nil, errForward
	}
	// One after the other: what a change makes of the members depends on the one before.
	n.changing.Lock()
	defer n.changing.Unlock()
	m := synod.Member{Node: binary.LittleEndian.Uint64(payload), Incarnation: binary.LittleEndian.Uint64(payload[8:]), Address: string(payload[16:])}
	if err := n.log.Barrier(ctx); err != nil {
		return nil, err
	}
	members := n.log.Status().Configuration
	at := slices.IndexFunc(members, func(o synod.Member) bool { return o.Node == m.Node })
	switch {
	case m.Address == "" && at < 0:
		return nil, replyError(fmt.Sprintf("MEMBER node %d is none", m.Node))
	case m.Address == "":
		members = slices.Delete(members, at, at+1)
	case at >= 0 && members[at].Incarnation != m.Incarnation:
		return nil, replyError(fmt.Sprintf("MEMBER the ID %d is taken: remove that node first, if it is gone for good, or take another ID", m.Node))
	case at >= 0: // it may still be on its way to what it asked for before
		members[at].Address, members[at].Learner = m.Address, false
	default:
		members = append(members, m)
	}
	if err := n.log.SetMembers(ctx, members); err != nil {
		return nil, err
	}
	return appendOK(nil), nil
}

// A node that does not lead passes requests on to the one that does:
//
//	request   1, kind, number (8 bytes), payload
//	answer    2, outcome, number (8 bytes), reply or text
const (
	frameRequest = 1
	frameAnswer  = 2
)

// Outcomes of a request that was passed on.
const (
	outcomeDone byte = iota
	outcomeElsewhere
	outcomeOverloaded
	outcomeUnknown
	outcomeExpired
	outcomeLost
	outcomeRefused
)

const errForward = replyError("ERR malformed request from another node")

// Limits of what is passed on.
const (
	maxForwarded = 1 << 14 // requests of this node without an answer
	maxServed    = 1 << 12 // requests of others at one time

	patience       = 3 * time.Second // without a leader
	callTimeout    = 5 * time.Second
	attemptTimeout = time.Second
	changeTimeout  = time.Minute // of the members, who may have to catch up
)

type forwarder struct {
	node     *node
	channel  transport.Transport
	served   chan struct{}
	mu       sync.Mutex
	next     uint64
	awaiting map[uint64]chan []byte
}

func newForwarder(n *node, channel transport.Transport) *forwarder {
	f := &forwarder{node: n, channel: channel, served: make(chan struct{}, maxServed), awaiting: make(map[uint64]chan []byte)}
	// Numbers of an earlier process must not be taken for those of this one.
	var b [8]byte
	_, _ = rand.Read(b[:])
	f.next = binary.LittleEndian.Uint64(b[:])
	channel.Handle(f.handle)
	return f
}

func encodeFrame(frame, kind byte, number uint64, payload []byte) []byte {
	b := make([]byte, 0, 10+len(payload)+transport.Overhead)
	b = binary.LittleEndian.AppendUint64(append(b, frame, kind), number)
	return append(b, payload...)
}

// ask passes a request on. An error for which errors.Is(err, synod.ErrUnknownOutcome) does
// not hold says that it was certainly not executed.
func (f *forwarder) ask(ctx context.Context, to uint64, kind byte, payload []byte) ([]byte, error) {
	answer := make(chan []byte, 1)
	f.mu.Lock()
	if len(f.awaiting) >= maxForwarded {
		f.mu.Unlock()
		return nil, synod.ErrOverloaded
	}
	f.next++
	number := f.next
	f.awaiting[number] = answer
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.awaiting, number)
	}()
	switch err := f.channel.Send(to, encodeFrame(frameRequest, kind, number, payload)); {
	case errors.Is(err, transport.ErrTooLarge):
		return nil, replyError("ERR " + err.Error())
	case err != nil: // it certainly does not arrive
		return nil, &synod.NotLeaderError{Group: group}
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: node %d does not answer: %w", synod.ErrUnknownOutcome, to, ctx.Err())
	case b := <-answer:
		switch b[0] {
		case outcomeDone:
			return b[1:], nil
		case outcomeElsewhere:
			return nil, &synod.NotLeaderError{Group: group}
		case outcomeOverloaded:
			return nil, synod.ErrOverloaded
		case outcomeUnknown:
			return nil, fmt.Errorf("%w: %s", synod.ErrUnknownOutcome, b[1:])
		case outcomeExpired:
			return nil, synod.ErrSessionExpired
		case outcomeLost:
			return nil, synod.ErrResultLost
		}
		return nil, replyError(b[1:])
	}
}

// handle receives requests and answers. It must not block.
func (f *forwarder) handle(from uint64, b []byte) {
	if len(b) < 10 {
		return
	}
	frame, kind, number, payload := b[0], b[1], binary.LittleEndian.Uint64(b[2:]), b[10:]
	switch frame {
	case frameAnswer:
		f.mu.Lock()
		answer := f.awaiting[number]
		delete(f.awaiting, number)
		f.mu.Unlock()
		if answer != nil {
			answer <- append([]byte{kind}, payload...)
		}
	case frameRequest:
		select {
		case f.served <- struct{}{}:
			go f.serve(from, kind, number, payload)
		default:
			_ = f.channel.Send(from, encodeFrame(frameAnswer, outcomeOverloaded, number, nil))
		}
	}
}

func (f *forwarder) serve(from uint64, kind byte, number uint64, payload []byte) {
	defer func() { <-f.served }()
	limit := callTimeout
	if kind == kindMembers {
		limit = changeTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	result, err := f.node.execute(ctx, kind, payload)
	outcome := outcomeDone
	switch {
	case err == nil:
	case errors.Is(err, synod.ErrUnknownOutcome):
		outcome, result = outcomeUnknown, []byte(err.Error())
	case errors.As(err, new(*synod.NotLeaderError)), errors.Is(err, synod.ErrClosed), errors.As(err, new(*synod.FailedError)):
		outcome, result = outcomeElsewhere, nil
	case errors.Is(err, synod.ErrOverloaded), errors.Is(err, synod.ErrChanging):
		outcome, result = outcomeOverloaded, nil
	case errors.Is(err, synod.ErrSessionExpired):
		outcome, result = outcomeExpired, nil
	case errors.Is(err, synod.ErrResultLost):
		outcome, result = outcomeLost, nil
	default:
		outcome, result = outcomeRefused, []byte(explain(err))
	}
	// An answer that is lost leaves the other side with an unknown outcome.
	_ = f.channel.Send(from, encodeFrame(frameAnswer, outcome, number, result))
}
