package replica

import (
	"sync/atomic"
	"time"

	"github.com/synod-go/synod/internal/probe"
)

// A lease is the time in which a leader knows, without asking anyone, that no other node
// leads, so that it may answer reads from what it has. It comes from the read attempts:
// one that was begun at t0, and that a majority has confirmed, is a lease until
//
//	t0 + (ElectionTicks - 1) * HeartbeatInterval - MaxClockDrift
//
// on the leader's monotonic clock, for these reasons.
//
//  1. Each member of that majority heard from the leader after t0, for nothing of the
//     attempt was sent before. From then on it helps nobody to be elected until its
//     core has been given ElectionTicks ticks, not even after a restart: Core.Read has
//     it so. Any other leader needs the vote of one of them.
//  2. The first of these ticks may follow at once. Between two of them lies at least one
//     HeartbeatInterval of that member's clock: the loop sets its timer anew when it
//     handles a tick, timers do not fire early, and ticks that the loop has missed are
//     not made up for. A loop, or a process, that is held up ticks late, never early. So
//     ElectionTicks ticks take (ElectionTicks - 1) heartbeats at least.
//  3. While that member's clock goes on by so much, the leader's goes on by no more than
//     MaxClockDrift less. That is the one assumption about time.
//
// The lease is counted from t0 and not from the answer, which may be long under way.
//
// It ends before its time when the leader's own promises end: when it does not lead any
// more, before its vote for another one leaves; once it has asked another member to
// take over, and then for the rest of its term, for that message may arrive late and makes
// that member stand for election at once, with everybody's help (Output.HandedOver);
// and when the configuration changes, for the majority was one of the old (revokeLease).
//
// A read under a lease is answered as of a moment in which the leader's clock was read,
// after the read began. That the process stands still for a while then, as under
// SIGSTOP, is no harm: the clock goes on, and whatever others decide meanwhile they
// decide while the read is under way. What does harm is a machine that is suspended
// together with its clock: that is drift beyond any bound.
type lease struct {
	until time.Time
	renew time.Time // from here on, if there are reads, another attempt is made
}

// leases is the leases of one group.
type leases struct {
	length time.Duration // of a lease, from the beginning of an attempt; 0: there are none

	// The loop's.
	begun  time.Time // when the attempt under way was begun
	term   uint64    // in which this node led then; 0: the attempt brings no lease
	barred bool      // for the rest of the term

	held    atomic.Pointer[lease] // nil: none
	decided atomic.Uint64         // everything up to here is; nobody was told of more
	wanted  atomic.Bool           // a read has used the lease since the last tick
}

// begin notes that an attempt begins. It is called before the core hears of it.
func (s *leases) begin(g *Group) {
	if s.term = 0; s.length == 0 || !g.leading {
		return
	}
	s.begun, s.term = g.node.ex.Now(), g.term
}

// confirmed makes a lease of an attempt that a majority has confirmed.
func (s *leases) confirmed(g *Group) {
	if s.term == 0 || s.term != g.term || !g.leading || s.barred {
		return
	}
	from := s.begun
	if probe.Bug("a lease is counted from the answer") {
		from = g.node.ex.Now()
	}
	length := s.length
	if probe.Bug("a lease counts on the random part of the election timeout") {
		length = 2 * g.node.cfg.ElectionTimeout
	}
	s.term = 0
	s.held.Store(&lease{until: from.Add(length), renew: from.Add(length / 2)})
}

// leased reports whether all that was acknowledged before this call is decided up to the
// index, and so is in the state machine once that has applied so much. It may be called
// from anywhere.
//
// The clock is read between two looks at the lease: so the lease was held, and had time
// left, in one and the same moment. The index is read after it.
func (s *leases) leased(g *Group) (index uint64, ok bool) {
	held := s.held.Load()
	if held == nil {
		return 0, false
	}
	now := g.node.ex.Now()
	if !now.Before(held.until) {
		return 0, false
	}
	if index = s.decided.Load(); s.held.Load() != held {
		return 0, false
	}
	if !now.Before(held.renew) && !s.wanted.Load() {
		s.wanted.Store(true)
	}
	return index, true
}

// readLeased reports whether a read that begins now can be answered at once, without the
// loop.
func (g *Group) readLeased() bool {
	if g.leases.length == 0 {
		return false
	}
	index, ok := g.leases.leased(g)
	ok = ok && g.applied.Load() >= index
	probe.Sometimes("replica: a read is answered by the lease", ok)
	return ok
}

// leaseReads answers the reads that wait for an attempt, if there is a lease: once the
// state machine has got there, as they would have been answered already if it had.
func (l *loop) leaseReads(g *Group) {
	r := &g.reads
	if len(r.queued) == 0 || g.leases.length == 0 {
		return
	}
	index, ok := g.leases.leased(g)
	if !ok {
		return
	}
	probe.Sometimes("replica: a read under a lease waits for the state machine", g.applied.Load() < index)
	r.confirmed(r.queued, index)
	clear(r.queued)
	r.queued = r.queued[:0]
}

// keepLease is called for every Output, before anything of it is carried out: so the
// lease is gone before a promise leaves that ends it, and nobody hears of a decision
// that a lease does not count in.
func (l *loop) keepLease(g *Group, out *Output) {
	s := &g.leases
	if s.length == 0 {
		return
	}
	s.decided.Store(out.Decided)
	s.barred = out.HandedOver && !probe.Bug("a lease survives a transfer")
	if !out.Leading || s.barred {
		revokeLease(g)
	}
}

// revokeLease ends a group's lease, and lets the attempt under way bring none. It is
// called by the loop: also when a change of the configuration takes effect on this node,
// in the same round.
func revokeLease(g *Group) {
	if g.leases.held.Load() != nil {
		g.leases.held.Store(nil)
	}
	g.leases.term = 0
}

// renewLease asks for an attempt if the lease is used and half over. A group whose lease
// nobody uses sends nothing.
func (l *loop) renewLease(g *Group) {
	s := &g.leases
	if s.length != 0 && s.wanted.Load() {
		s.wanted.Store(false)
		probe.Sometimes("replica: a lease is renewed", true)
		g.reads.renew = s.held.Load() != nil
	}
}
