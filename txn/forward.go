package txn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/transport"
)

// ForwarderConfig says how a Forwarder works. Log and Transport are required.
type ForwarderConfig struct {
	// Log is this node's replica of the group.
	Log synod.Log

	// Node is this node's ID, above 0, as the group has it.
	Node uint64

	// Transport reaches the other members, under the node IDs that the group has. The forwarder sets its handler, and uses it until
	// Close: hand in a channel of a transport.Mux.
	Transport transport.Transport

	// RequestTimeout is how long a request to the leader may take until its outcome is unknown. Default: 5 s.
	RequestTimeout time.Duration

	// RetryInterval is how long a proposal waits that no leader has taken, or whose leader has not said yet which process it is. Default: 50 ms.
	RetryInterval time.Duration

	// MaxServed limits the requests of others that are under way here; what exceeds them is refused. Default: 4,096.
	MaxServed int

	// MaxCommandBytes is the largest command that is passed on. Default: 1 MiB.
	MaxCommandBytes int
}

// Forwarder is a synod.Log that takes proposals on every member of a group, and passes them on to the leader: a ReplicatedLog
// over one works on any node. It must run on all members. A request whose answer does not come is synod.ErrUnknownOutcome, and
// is served at most once, though the transport repeats it; nor does a process serve what was asked of an earlier one on its node: the first request after a restart of the leader
// has an unknown outcome. While there is no leader Propose waits, until its context ends. All methods may be called concurrently.
type Forwarder struct {
	cfg ForwarderConfig
	ex  executor.Executor
	ctx context.Context

	// incarnation is random: a request names the one of the process that may serve it. What it has sent to one that is gone, and comes again to
	// the next one, may have had an effect, of which that one knows nothing.
	incarnation uint64

	mu      sync.Mutex
	cancel  context.CancelFunc
	known   map[uint64]uint64 // the incarnations of others, as they have said last
	next    uint64
	calls   map[uint64]*forwarded
	served  int
	heard   map[uint64][]*run // by member, the newest last
	closed  bool
	waiting []*executor.Event // in Close, for what is served
}

var _ synod.Log = (*Forwarder)(nil)

// forwarded is a request that waits for its answer.
type forwarded struct {
	to   uint64
	done *executor.Event
	kind byte
	body []byte
}

// run is which requests of a member have come: transports repeat messages, and what was refused must not be taken up later. A member
// numbers its requests from a random number on; after a restart, or another 2^32 requests at a time, it is another run.
type run struct {
	last uint64              // the highest number
	seen [window / 64]uint64 // of the numbers up to last, by their lowest bits
}

const (
	window   = 1 << 14 // numbers; what comes later than as many others is taken for a repetition
	maxRuns  = 4       // of a member
	maxHeard = 1 << 12 // members
)

// first reports whether a number of this run is there for the first time; same: it is of this run.
func (r *run) first(number uint64) (first, same bool) {
	ahead := number - r.last
	switch {
	case ahead == 0:
		return false, true
	case ahead < 1<<32:
		for n := number - min(ahead, window) + 1; n != number; n++ {
			r.seen[n%window/64] &^= 1 << (n % 64)
		}
		r.last = number
	case -ahead >= 1<<32:
		return false, false
	case -ahead >= window:
		return false, true
	case r.seen[number%window/64]&(1<<(number%64)) != 0:
		return false, true
	}
	r.seen[number%window/64] |= 1 << (number % 64)
	return true, true
}

// fresh reports whether a member's request has not come before.
func (f *Forwarder) fresh(from, number uint64) bool {
	runs := f.heard[from]
	for _, r := range runs {
		if first, same := r.first(number); same {
			return first
		}
	}
	if runs == nil && len(f.heard) >= maxHeard {
		return false
	}
	r := &run{last: number}
	r.seen[number%window/64] |= 1 << (number % 64)
	f.heard[from] = append(runs[max(0, len(runs)-maxRuns+1):], r)
	return true
}

// The kinds of a forwarder's messages. Behind the kind are the request's number and an incarnation, eight bytes each, and the rest. A
// request names the incarnation that may serve it, and an answer that of who answers.
const (
	forwardRequest   = 'q' // the command
	forwardResult    = 'r' // the result
	forwardNotLeader = 'n'
	forwardUnknown   = 'u' // why
	forwardRefused   = 'e' // why: it has no effect
	forwardTooLarge  = 'l' // why: the same
	forwardStranger  = 's' // the request is for another incarnation: this one does nothing with it
)

const forwardHead = 4 + 1 + 8 + 8

// NewForwarder begins to serve the other members. ctx carries the executor; it does not bound the forwarder's life. The error is a
// *synod.ConfigError.
func NewForwarder(ctx context.Context, cfg ForwarderConfig) (*Forwarder, error) {
	bad := func(field, reason string) error {
		return &synod.ConfigError{Package: "txn", Field: field, Reason: reason}
	}
	switch {
	case cfg.Log == nil:
		return nil, bad("Log", "missing: a *raft.Group, or a *paxos.Group")
	case cfg.Node == 0:
		return nil, bad("Node", "missing: the ID that the group has for this node")
	case cfg.Transport == nil:
		return nil, bad("Transport", "missing: a channel of a transport.Mux")
	case cfg.RequestTimeout < 0 || cfg.RetryInterval < 0:
		return nil, bad("RequestTimeout", "neither it nor RetryInterval may be below 0")
	case cfg.MaxServed < 0 || cfg.MaxCommandBytes < 0:
		return nil, bad("MaxServed", "neither it nor MaxCommandBytes may be below 0")
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = 5 * time.Second
	}
	if cfg.RetryInterval == 0 {
		cfg.RetryInterval = 50 * time.Millisecond
	}
	if cfg.MaxServed == 0 {
		cfg.MaxServed = 4096
	}
	if cfg.MaxCommandBytes == 0 {
		cfg.MaxCommandBytes = 1 << 20
	}
	ex := executor.From(ctx, executor.Real())
	f := &Forwarder{cfg: cfg, ex: ex, incarnation: 1 + ex.Uint64()>>1, calls: make(map[uint64]*forwarded), known: make(map[uint64]uint64), heard: make(map[uint64][]*run)}
	f.ctx, f.cancel = context.WithCancel(executor.With(context.WithoutCancel(ctx), ex))
	f.next = ex.Uint64() // an answer to an earlier run is not taken for one to this
	cfg.Transport.Handle(f.handle)
	return f, nil
}

// Propose implements synod.Log.
func (f *Forwarder) Propose(ctx context.Context, command []byte) ([]byte, error) {
	for {
		result, err := f.cfg.Log.Propose(ctx, command)
		if err == nil {
			return result, nil
		}
		leader, elsewhere := leaderOf(err)
		if !elsewhere {
			return nil, err
		}
		if leader != 0 && leader != f.cfg.Node {
			if len(command) > f.cfg.MaxCommandBytes {
				return nil, fmt.Errorf("txn: forwarder: %w: %d bytes, ForwarderConfig.MaxCommandBytes is %d", synod.ErrTooLarge, len(command), f.cfg.MaxCommandBytes)
			}
			result, again, err := f.ask(ctx, leader, command)
			if !again {
				return result, err
			}
		}
		if err := f.pause(ctx); err != nil {
			return nil, fmt.Errorf("txn: forwarder: no leader takes the command, which had no effect: %w", err)
		}
	}
}

// leaderOf says who leads, 0 if that is not known, where an error says that this node does not.
func leaderOf(err error) (leader uint64, elsewhere bool) {
	var e *synod.NotLeaderError
	if errors.As(err, &e) {
		return e.Leader, true
	}
	return 0, false
}

// Barrier implements synod.Log.
func (f *Forwarder) Barrier(ctx context.Context) error { return f.cfg.Log.Barrier(ctx) }

func (f *Forwarder) pause(ctx context.Context) error {
	e := executor.NewEvent()
	timer := f.ex.AfterFunc(f.cfg.RetryInterval, e.Set)
	defer timer.Stop()
	return executor.From(ctx, f.ex).Wait(ctx, e)
}

func forwardFrame(kind byte, number, incarnation uint64, body []byte) []byte {
	b := make([]byte, 4, forwardHead+len(body)+transport.Overhead)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, incarnation)
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// ask sends the command to the leader. again: it certainly had no effect.
func (f *Forwarder) ask(ctx context.Context, leader uint64, command []byte) (result []byte, again bool, err error) {
	incarnation := f.incarnationOf(leader)
	if incarnation == 0 {
		// Nobody serves a request for this one: the answer says which one there is.
		if _, again, err := f.request(ctx, leader, 0, nil); !again {
			return nil, false, err
		}
		if incarnation = f.incarnationOf(leader); incarnation == 0 {
			return nil, true, nil
		}
	}
	return f.request(ctx, leader, incarnation, command)
}

// incarnationOf returns 0 where the member has not been heard of.
func (f *Forwarder) incarnationOf(member uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known[member]
}

// request sends the command to an incarnation of the leader.
func (f *Forwarder) request(ctx context.Context, leader, incarnation uint64, command []byte) (result []byte, again bool, err error) {
	call := &forwarded{to: leader, done: executor.NewEvent()}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, false, fmt.Errorf("txn: forwarder: %w", synod.ErrClosed)
	}
	f.next++
	number := f.next
	f.calls[number] = call
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.calls, number)
		f.mu.Unlock()
	}()
	if err := f.cfg.Transport.Send(leader, forwardFrame(forwardRequest, number, incarnation, command)); errors.Is(err, transport.ErrTooLarge) {
		return nil, false, fmt.Errorf("txn: forwarder: %w: %d bytes: %w", synod.ErrTooLarge, len(command), err)
	} else if err != nil {
		return nil, true, nil
	}
	timeout := f.cfg.RequestTimeout
	if incarnation == 0 {
		timeout = f.cfg.RetryInterval // a greeting does nothing: it may be sent again
	}
	timer := f.ex.AfterFunc(timeout, call.done.Set)
	defer timer.Stop()
	if err := executor.From(ctx, f.ex).Wait(ctx, call.done); err != nil && incarnation != 0 {
		return nil, false, fmt.Errorf("txn: forwarder: %w: %w", synod.ErrUnknownOutcome, err)
	}
	f.mu.Lock()
	kind, body := call.kind, call.body
	f.mu.Unlock()
	switch kind {
	case forwardResult:
		return body, false, nil
	case forwardNotLeader:
		return nil, true, nil
	case forwardRefused:
		return nil, false, fmt.Errorf("txn: forwarder: node %d refused the command: %s: %w", leader, body, synod.ErrOverloaded)
	case forwardTooLarge:
		return nil, false, fmt.Errorf("txn: forwarder: node %d refused the command: %w: %s", leader, synod.ErrTooLarge, body)
	case forwardUnknown:
		return nil, false, fmt.Errorf("txn: forwarder: %w: node %d: %s", synod.ErrUnknownOutcome, leader, body)
	}
	if incarnation == 0 {
		return nil, true, nil
	}
	if kind == forwardStranger {
		return nil, false, fmt.Errorf("txn: forwarder: %w: node %d has begun anew since it was last heard of", synod.ErrUnknownOutcome, leader)
	}
	return nil, false, fmt.Errorf("txn: forwarder: %w: node %d does not answer", synod.ErrUnknownOutcome, leader)
}

func (f *Forwarder) handle(from uint64, payload []byte) {
	if len(payload) < forwardHead || binary.BigEndian.Uint32(payload) != crc32.Checksum(payload[4:], castagnoli) {
		return // whoever sent it asks again, or does not know
	}
	kind, number, incarnation, body := payload[4], binary.BigEndian.Uint64(payload[5:]), binary.BigEndian.Uint64(payload[13:]), payload[forwardHead:]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if kind != forwardRequest {
		if call := f.calls[number]; call != nil && call.to == from && call.kind == 0 {
			call.kind, call.body = kind, body
			f.known[from] = incarnation
			call.done.Set()
		} else if call == nil && kind == forwardStranger && f.known[from] == 0 && len(f.known) < maxHeard {
			f.known[from] = incarnation // to a greeting that has not been waited for any more
		}
		return
	}
	if incarnation != f.incarnation && (incarnation == 0 || !probe.Bug("forwarder: serve what was asked of an earlier process")) {
		probe.Sometimes("forwarder: a request is for an earlier process", incarnation != 0)
		_ = f.cfg.Transport.Send(from, forwardFrame(forwardStranger, number, f.incarnation, nil))
		return
	}
	if !f.fresh(from, number) {
		return // it was answered, or will be
	}
	if f.served >= f.cfg.MaxServed {
		_ = f.cfg.Transport.Send(from, forwardFrame(forwardRefused, number, f.incarnation, []byte("too many requests")))
		return
	}
	f.served++
	f.ex.Go(func() { f.serve(from, number, body) })
}

// serve proposes what another member asks for.
func (f *Forwarder) serve(from, number uint64, command []byte) {
	defer f.done()
	kind := byte(forwardResult)
	body, err := f.cfg.Log.Propose(f.ctx, command)
	_, elsewhere := leaderOf(err)
	switch {
	case err == nil:
	case elsewhere:
		kind, body = forwardNotLeader, nil
	case errors.Is(err, synod.ErrUnknownOutcome):
		kind, body = forwardUnknown, []byte(err.Error())
	case errors.Is(err, synod.ErrTooLarge):
		kind, body = forwardTooLarge, []byte(err.Error())
	default:
		kind, body = forwardRefused, []byte(err.Error())
	}
	_ = f.cfg.Transport.Send(from, forwardFrame(kind, number, f.incarnation, body)) // lost: the outcome is unknown there
}

func (f *Forwarder) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served--
	if f.served == 0 {
		for _, e := range f.waiting {
			e.Set()
		}
		f.waiting = nil
	}
}

// Close ends the forwarder: calls that wait for a leader's answer return, and what is served is waited for. It leaves
// Log and Transport open. Calls after the first return nil.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	f.closed = true
	f.cancel()
	for _, number := range slices.Sorted(maps.Keys(f.calls)) { //synod:ordered sorted: who waits goes on in this order
		f.calls[number].done.Set()
	}
	if f.served == 0 {
		f.mu.Unlock()
		return nil
	}
	e := executor.NewEvent()
	f.waiting = append(f.waiting, e)
	f.mu.Unlock()
	return f.ex.Wait(context.WithoutCancel(f.ctx), e)
}
