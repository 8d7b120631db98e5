package multipaxos

//synod:core

import (
	"fmt"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
)

// acceptor is the part that promises and accepts.
type acceptor struct {
	promised Ballot  // nothing below it is accepted, or promised, any more
	durable  Ballot  // the same, as the store has it
	lost     Ballot  // what was accepted up to this ballot may be forgotten, in any slot that is not decided; zero: nothing is
	trusted  bool    // the store is not an old one
	quiet    int     // ticks for which a leader may hold a lease that was forgotten
	grants   []grant // promises to be told once they are durable

	number  uint64 // of the newest heartbeat of the leader that is followed
	owed    bool   // an accepted is to be sent
	through uint64 // all slots up to here are durable: decided, or accepted in throughOf
	of      Ballot
	present uint64 // all slots up to here have values
}

// grant is a promise that waits for its record.
type grant struct {
	to     uint64
	ballot Ballot
	from   uint64
}

// seen notes a round that is in use somewhere.
func (c *Core) seen(b Ballot) {
	if b.Round <= maxRound {
		c.round = max(c.round, b.Round)
	}
}

// promise raises what is promised. The record of it is part of the next Output.
func (c *Core) promise(b Ballot) {
	c.promised, c.log.promised = b, b
	c.seen(b)
	c.unwritten = true
	c.leader, c.number = Ballot{}, 0
	if c.role != follower && b != c.ballot {
		c.follow()
	}
}

// sticky reports whether a leader may count on this node not to promise to others: where there are
// leases, for ElectionTicks after it was heard, or while it leads itself, unless it has asked for that.
func (c *Core) sticky(m *message) bool {
	if !c.leases || probe.Bug("a lease binds nobody") {
		return false
	}
	if c.quiet > 0 && !c.alone() {
		return true
	}
	current := c.leader
	if c.role == leading {
		current = c.ballot
	} else if c.silence >= c.electionTicks {
		return false
	}
	return !current.IsZero() && !(m.flag && m.other == current)
}

// onPrepare promises, and tells what was accepted.
func (c *Core) onPrepare(from uint64, m *message) {
	switch {
	case !c.trusted:
	case m.ballot.Less(c.promised):
		if probe.Bug("a promise is forgotten") {
			c.send(from, *c.piece(m.ballot, m.from))
			return
		}
		c.send(from, message{kind: kindRefused, ballot: c.promised})
	case m.ballot == c.promised:
		// A later piece, or the answer was lost.
		if c.durable == m.ballot {
			c.send(from, *c.piece(m.ballot, m.from))
		}
	case c.sticky(m):
		probe.Sometimes("paxos: a promise is refused for a lease", true)
		c.send(from, message{kind: kindRefused, ballot: c.promised})
	default:
		probe.Sometimes("paxos: a leader promises to another one", c.role == leading)
		c.promise(m.ballot)
		c.elapsed = 0
		if probe.Bug("a promise leaves before it is durable") {
			c.send(from, *c.piece(m.ballot, m.from))
			return
		}
		c.grants = append(c.grants, grant{from, m.ballot, m.from})
	}
}

// grantPromises tells the promises that have become durable and still hold.
func (c *Core) grantPromises() {
	n := 0
	for _, g := range c.grants {
		switch {
		case g.ballot != c.promised: // overtaken
		case g.ballot != c.durable:
			c.grants[n] = g
			n++
		default:
			c.send(g.to, *c.piece(g.ballot, g.from))
		}
	}
	if c.grants = c.grants[:n]; n == 0 {
		c.grants = nil
	}
}

// piece makes one piece of a promise: what is accepted from a slot on, and what is not known any
// more. Slots up to held are chosen: whoever asks fetches them, they are never "empty".
func (c *Core) piece(ballot Ballot, from uint64) *message {
	m := &message{kind: kindPromise, flag: true, ballot: ballot, from: from, decided: c.held, conf: c.confSlot, fence: c.log.fence(c.held), other: c.lost}
	if probe.Bug("a trimmed acceptor says empty") {
		m.decided, m.conf = 0, 0
	}
	size := 0
	next := max(from, c.held+1)
	for i := c.log.search(next); i < len(c.log.spans); i++ {
		s := c.log.spans[i]
		first := max(s.first, next)
		if size > 0 && size+c.log.size(s) > c.messageBytes || len(m.runs) == maxRuns || len(m.ranges) == maxRuns {
			probe.Sometimes("paxos: a promise comes in pieces", true)
			m.flag, m.next = false, first
			break
		}
		r := c.log.load(s.rec)
		if r == nil {
			probe.Sometimes("paxos: an acceptor does not know what it accepted", true)
			m.ranges = append(m.ranges, slots{first, s.last, s.rec.upTo})
			continue
		}
		if first != r.first || s.last != r.last() {
			r = encodeRun(c.group, r.ballot, first, r.values[first-r.first:s.last-r.first+1])
		}
		m.runs = append(m.runs, r)
		size += len(r.bytes)
	}
	return m
}

// size returns about how many bytes the values of a span take.
func (l *valueLog) size(s span) int {
	if s.rec.run != nil {
		return len(s.rec.run.bytes)
	}
	return 1
}

// onAccept takes in an accept or a heartbeat. An accept raises the promise.
func (c *Core) onAccept(from uint64, m *message) {
	if m.ballot.Less(c.promised) && !probe.Bug("an accept of a lower ballot is taken") {
		c.send(from, message{kind: kindRefused, ballot: c.promised})
		return
	}
	if c.promised.Less(m.ballot) && !probe.Bug("an accept does not raise the promise") {
		c.promise(m.ballot)
	}
	if c.leader != m.ballot {
		c.leader, c.number = m.ballot, 0
	}
	if c.role != follower {
		c.follow()
	}
	c.silence, c.elapsed, c.hint = 0, 0, Ballot{}
	if m.kind == kindHeartbeat && m.through > c.presentThrough() && c.lost.IsZero() && !c.damaged {
		// It says no more than this node has acknowledged, in the same ballot.
		panic(fmt.Errorf("%w: the leader knows that this node had all values up to slot %d, and some after slot %d are missing", synod.ErrRolledBack, m.through, c.present))
	}
	c.number = max(c.number, m.number)
	fresh := false
	for _, r := range m.runs {
		fresh = c.log.put(r, c.token(), &c.batch)
		if fresh && probe.Active() {
			c.observeRun(r)
		}
	}
	c.mark(m.decided, m.ballot)
	if !fresh {
		c.owed = true // of what is new the record tells
	}
	if fresh && probe.Bug("an accept is acknowledged before it is durable") {
		c.persisted = c.token()
		c.owed = true
	}
}

// presentThrough returns up to where all slots have values.
func (c *Core) presentThrough() uint64 {
	c.present = max(c.present, c.log.start.Index, c.opened)
	for i := c.log.search(c.present + 1); i < len(c.log.spans) && c.log.spans[i].first <= c.present+1; i++ {
		c.present = c.log.spans[i].last
	}
	return c.present
}

// acknowledge tells the leader what is accepted and durable.
func (c *Core) acknowledge() {
	if !c.owed {
		return
	}
	c.owed = false
	if c.leader.IsZero() || c.role != follower || !c.trusted || c.restoring != 0 || c.durable.Less(c.leader) {
		return // what is missing brings this back
	}
	m := message{kind: kindAccepted, ballot: c.leader, number: c.number, decided: c.held}
	m.through, m.ranges = c.accepted(c.leader)
	c.send(c.leader.Node, m)
}

// accepted returns up to where all slots are durable and either decided or accepted in a ballot,
// and some ranges beyond.
func (c *Core) accepted(ballot Ballot) (through uint64, ranges []slots) {
	if c.of != ballot {
		c.of, c.through = ballot, 0
	}
	t := max(c.through, c.log.start.Index, c.opened)
	i := c.log.search(t + 1)
	for ; i < len(c.log.spans); i++ {
		s := &c.log.spans[i]
		if s.first > t+1 || s.rec.bad || s.rec.token > c.persisted {
			break
		}
		if s.rec.ballot == ballot || s.rec.ballot.isChosen() {
			t = s.last
			continue
		}
		t = max(t, min(s.last, c.held))
		if t < s.last {
			break
		}
	}
	c.through = t
	for ; i < len(c.log.spans) && len(ranges) < maxRanges; i++ {
		s := &c.log.spans[i]
		if s.rec.bad || s.rec.token > c.persisted || s.rec.ballot != ballot {
			continue
		}
		first := max(s.first, t+1)
		if n := len(ranges); n > 0 && ranges[n-1].last+1 == first {
			ranges[n-1].last = s.last
		} else {
			ranges = append(ranges, slots{first: first, last: s.last})
		}
	}
	return t, ranges
}
