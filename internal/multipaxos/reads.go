package multipaxos

//synod:core

import (
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// reads is the part that finds out how far a replica must have applied to answer a read.
//
// A leader knows, once a round of heartbeats, begun after the read came, is answered by a quorum of
// phase 2: no higher ballot had a quorum of phase 1 before, so everything that was acknowledged until
// then was decided by it, or stands below its first fresh value. Others ask the leader.
//
// Where no leader is heard, a node looks itself (Charapko, Ailijiang and Demirbas, "Linearizable
// Quorum Reads in Paxos", 2019): every quorum of phase 1 has a member that has accepted the last value
// that was acknowledged. Up to the last slot that any of them has accepted something in all has to be
// decided here, by a second look, or a later one. It looks once a tick at most: whoever reads again and again
// until there is a leader is not to keep everybody busy meanwhile.
type reads struct {
	asks    []ask
	rounds  []readRound
	look    look
	mayLook bool // this node has not begun to look since the last tick
	answers []replica.ReadResult
}

// ask is a read that waits for its round.
type ask struct {
	from uint64
	id   replica.ReadID
}

// readRound is the reads that wait for the answers to a heartbeat.
type readRound struct {
	number uint64
	index  uint64
	asks   []ask
}

// look is a read without a leader.
type look struct {
	id   replica.ReadID
	mask uint64
	last uint64 // the highest slot in which something is accepted
	done bool   // enough have answered
}

// Read implements replica.Core.
func (c *Core) Read(id replica.ReadID) { c.ask(ask{c.node, id}) }

// ask takes in a read. Of each node it keeps the newest.
func (c *Core) ask(a ask) {
	c.asks = slices.DeleteFunc(c.asks, func(o ask) bool { return o.from == a.from })
	c.asks = append(c.asks, a)
}

// onRead takes in the question of another node.
func (c *Core) onRead(from uint64, m *message) {
	if _, member := c.conf.Find(from); member && c.role == leading {
		c.ask(ask{from, m.id})
	}
}

// onReadIndex takes in the leader's answer.
func (c *Core) onReadIndex(from uint64, m *message) {
	c.answers = append(c.answers, replica.ReadResult{ID: m.id, Index: m.through})
}

// dropReads forgets the reads that this node has taken up as the leader.
func (c *Core) dropReads() { c.asks, c.rounds = nil, nil }

// takeReads takes up the reads that came.
func (c *Core) takeReads(out *replica.Output) {
	out.Reads = append(out.Reads, c.answers...)
	c.answers = nil
	if c.role == leading {
		c.confirm(out)
	}
	if len(c.asks) == 0 {
		return
	}
	switch {
	case c.role == leading:
		if (!c.fenced || c.decided < c.fenceSlot) && !probe.Bug("a new leader answers reads at once") {
			probe.Sometimes("paxos: a read waits for what a new leader found", true)
			return
		}
		c.beaten = true
		c.rounds = append(c.rounds, readRound{c.beat + 1, c.decided, c.asks})
		c.asks = nil
		c.confirm(out)
	case c.role == follower && !c.leader.IsZero() && c.silence < c.electionTicks:
		for _, a := range c.asks {
			c.send(c.leader.Node, message{kind: kindRead, id: a.id})
		}
		c.asks = nil
	case c.mayLook:
		c.mayLook = false
		for _, a := range c.asks {
			c.begin(a.id)
		}
		c.asks = nil
	}
}

// confirm answers the reads whose heartbeat was answered by enough.
func (c *Core) confirm(out *replica.Output) {
	for len(c.rounds) > 0 {
		r := c.rounds[0]
		mask := c.voters.bit(c.node)
		for i := range c.peers {
			if c.peers[i].number >= r.number {
				mask |= c.voters.bit(c.peers[i].node)
			}
		}
		if !c.voters.phase2(mask) && !probe.Bug("a leader answers reads without asking") {
			return
		}
		c.rounds = c.rounds[1:]
		for _, a := range r.asks {
			if a.from == c.node {
				out.Reads = append(out.Reads, replica.ReadResult{ID: a.id, Index: r.index})
			} else {
				c.send(a.from, message{kind: kindReadIndex, id: a.id, through: r.index})
			}
		}
	}
	c.rounds = nil
}

// begin looks for what is accepted, without a leader.
func (c *Core) begin(id replica.ReadID) {
	if len(c.voters.members) == 0 {
		return
	}
	c.look = look{id: id}
	for _, node := range c.voters.members {
		c.send(node, message{kind: kindLook, id: id})
	}
	if c.remembers() && c.voters.bit(c.node) != 0 {
		c.looked(c.node, max(c.log.last(), c.held))
	}
}

// remembers reports whether this node knows all that it ever accepted.
func (c *Core) remembers() bool { return c.trusted && c.lost.IsZero() && !c.damaged }

// onLook tells the last slot in which something is accepted.
func (c *Core) onLook(from uint64, m *message) {
	if c.remembers() {
		c.send(from, message{kind: kindLooked, id: m.id, decided: c.held, through: max(c.log.last(), c.held)})
	}
}

// onLooked counts an answer.
func (c *Core) onLooked(from uint64, m *message) {
	if m.id != c.look.id {
		return
	}
	c.hearsOf(from, m.decided)
	c.looked(from, m.through)
}

func (c *Core) looked(from, last uint64) {
	c.look.mask |= c.voters.bit(from)
	c.look.last = max(c.look.last, last)
	c.look.done = c.voters.phase1(c.look.mask) || probe.Bug("a read looks at one member only")
}

// lookAgain answers a read without a leader once everything up to the last slot is decided here.
func (c *Core) lookAgain(out *replica.Output) {
	if !c.look.done || c.look.id == (replica.ReadID{}) {
		return
	}
	index := c.look.last
	if c.held < index {
		probe.Sometimes("paxos: a read waits for the second look", true)
		if !probe.Bug("a read takes what is accepted for decided") {
			return
		}
		index = c.held
	}
	probe.Sometimes("paxos: a read is answered without a leader", true)
	out.Reads = append(out.Reads, replica.ReadResult{ID: c.look.id, Index: index})
	c.look = look{}
}
