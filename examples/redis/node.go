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
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport"
	"github.com/synod-go/synod/transport/tcp"
)

// The group that all of this is about, and the channels that share the transport.
const (
	group          = 1
	channelRaft    = 1
	channelForward = 2
)

// engine is what this program needs of a consensus engine: a line of newEngine names it.
type engine interface {
	synod.Log
	SetMembers(ctx context.Context, members []synod.Member) error
	TransferLeader(ctx context.Context, to uint64) error
	Status() synod.GroupStatus
	Err() error
}

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
	address     string
	incarnation uint64
	store       *store
	log         engine
	forward     *forwarder
	close       func() error
}

// start opens a node's data and takes part.
func start(ctx context.Context, c config) (_ *node, err error) {
	n := &node{id: c.id, address: c.peers[c.id], store: newStore()}
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
	member, err := raft.Start(ctx, raft.Config{Cluster: "redis", Node: c.id, Transport: mux.Channel(channelRaft), Store: disk, Logger: c.log,
		SetAddress: func(node uint64, address string) {
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
	if err != nil && !errors.Is(err, raft.ErrBootstrapped) {
		return nil, err
	}
	g, err := member.StartGroup(ctx, raft.GroupConfig{ID: group, StateMachine: n.store})
	if err != nil {
		return nil, err
	}
	n.log = g
	n.forward = newForwarder(n, mux.Channel(channelForward))
	return n, nil
}

// propose has the leader put a command into the log, wherever it is, and returns the reply. Where
// there is no leader it waits for one, up to patience.
func (n *node) propose(ctx context.Context, kind byte, payload []byte) ([]byte, error) {
	until := time.Now().Add(patience)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		result, err := n.execute(ctx, kind, payload)
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) && elsewhere.Leader != 0 && elsewhere.Leader != n.id {
			result, err = n.forward.ask(ctx, elsewhere.Leader, kind, payload)
		}
		// What was certainly not executed may be tried again.
		if err == nil || errors.Is(err, synod.ErrUnknownOutcome) || !errors.As(err, &elsewhere) && !errors.Is(err, synod.ErrOverloaded) || time.Now().After(until) {
			return result, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// Kinds of what is asked of a leader.
const (
	kindPropose byte = iota + 1
	kindMembers
	kindTransfer
)

// execute does what is asked of a leader, if this node is it.
func (n *node) execute(ctx context.Context, kind byte, payload []byte) ([]byte, error) {
	switch kind {
	case kindPropose:
		return n.log.Propose(ctx, payload)
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
	m := synod.Member{Node: binary.LittleEndian.Uint64(payload), Incarnation: binary.LittleEndian.Uint64(payload[8:]), Address: string(payload[16:])}
	if err := n.log.Barrier(ctx); err != nil {
		return nil, err
	}
	members := n.log.Status().Configuration
	at := slices.IndexFunc(members, func(o synod.Member) bool { return o.Node == m.Node })
	switch {
	case m.Address == "" && at < 0:
		return nil, fmt.Errorf("%w: node %d is none", errMember, m.Node)
	case m.Address == "":
		members = slices.Delete(members, at, at+1)
	case at >= 0 && members[at].Incarnation != m.Incarnation:
		return nil, fmt.Errorf("%w: the ID %d is taken: remove that node first, if it is gone for good, or take another ID", errMember, m.Node)
	case at >= 0:
		members[at].Address = m.Address
	default:
		members = append(members, m)
	}
	if err := n.log.SetMembers(ctx, members); err != nil {
		return nil, err
	}
	return appendOK(nil), nil
}

// errMember is what a change of members is refused with.
var errMember = errors.New("MEMBER")

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
	outcomeRefused
)

var errForward = errors.New("ERR malformed request from another node")

// Limits of what is passed on.
const (
	maxForwarded = 1 << 14 // requests of this node without an answer
	maxServed    = 1 << 12 // requests of others at one time
	patience     = 3 * time.Second
	callTimeout  = 5 * time.Second
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
	if err := f.channel.Send(to, encodeFrame(frameRequest, kind, number, payload)); err != nil {
		// It may be on its way all the same.
		return nil, fmt.Errorf("%w: %w", synod.ErrUnknownOutcome, err)
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
		}
		return nil, errors.New(string(b[1:]))
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
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
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
	default:
		outcome, result = outcomeRefused, []byte(err.Error())
	}
	// An answer that is lost leaves the other side with an unknown outcome.
	_ = f.channel.Send(from, encodeFrame(frameAnswer, outcome, number, result))
}
