//synod:core

package paxoscommit

import (
	"encoding/binary"
	"slices"

	"github.com/synod-go/synod/internal/probe"
)

// Step is what a group is to be asked next on behalf of a transaction.
type Step uint8

// The steps. Each is a command in the group's log, and may be repeated as often as it takes to have an answer.
const (
	Nothing Step = iota // not now, or never
	Prepare             // for its vote
	Close               // to vote no if it has not voted
	Resolve             // to take in the outcome
	Finish              // to note that all have
)

// String returns the step's name.
func (s Step) String() string {
	return name(int(s), "nothing", "prepare", "close", "resolve", "finish")
}

// Coordinator is who drives a transaction: the client that has begun it, or anybody who finds it unfinished. There
// may be many at a time, and each may vanish at any point: what it knows is in the groups. It is plain data: its user
// asks Step what to propose, and tells it what came of it.
type Coordinator struct {
	id      ID
	closing bool
	finish  bool
	parts   []part
}

type part struct {
	group     uint32
	vote      Vote
	timestamp uint64
	committed bool // it says so
	resolved  bool
	finished  bool
}

// NewCoordinator returns one that asks the groups, ascending, for their votes.
func NewCoordinator(id ID, groups []uint32) *Coordinator {
	c := &Coordinator{id: id, parts: make([]part, len(groups))}
	for i, g := range groups {
		c.parts[i].group = g
	}
	return c
}

// NewRecoverer returns one that ends what somebody else has begun: it closes the votes that are missing. Where all have
// the outcome it says so to all.
func NewRecoverer(id ID, groups []uint32) *Coordinator {
	c := NewCoordinator(id, groups)
	c.closing, c.finish = true, true
	return c
}

// ID returns the transaction.
func (c *Coordinator) ID() ID { return c.id }

// Groups returns all that take part, ascending.
func (c *Coordinator) Groups() []uint32 {
	list := make([]uint32, len(c.parts))
	for i := range c.parts {
		list[i] = c.parts[i].group
	}
	return list
}

// GiveUp makes it close the votes that are missing, instead of asking for them. What has been proposed may still win.
func (c *Coordinator) GiveUp() { c.closing = true }

// Outcome returns how the transaction ends, as soon as that is certain: committed when all groups have voted yes, at the
// highest of their timestamps, which nothing can change any more.
func (c *Coordinator) Outcome() (Outcome, uint64) {
	timestamp, missing := uint64(0), 0
	for i := range c.parts {
		if c.parts[i].committed {
			return Committed, c.parts[i].timestamp
		}
	}
	for i := range c.parts {
		switch c.parts[i].vote {
		case No:
			return Aborted, 0
		case None:
			missing++
		}
		if probe.Bug("paxoscommit: commit at the timestamp of the last vote") {
			timestamp = 0
		}
		timestamp = max(timestamp, c.parts[i].timestamp)
	}
	if missing > 0 && c.finish && probe.Bug("paxoscommit: a recoverer presumes an abort") {
		return Aborted, 0
	}
	if missing == len(c.parts) || missing > 0 && !probe.Bug("paxoscommit: commit without all votes") {
		return Unknown, 0
	}
	return Committed, timestamp
}

func (c *Coordinator) part(group uint32) *part {
	if len(c.parts) <= 8 { // nearly always
		for i := range c.parts {
			if c.parts[i].group == group {
				return &c.parts[i]
			}
		}
		return nil
	}
	i, found := slices.BinarySearchFunc(c.parts, group, func(p part, g uint32) int { return int(int64(p.group) - int64(g)) })
	if !found {
		return nil
	}
	return &c.parts[i]
}

// Step returns what the group is to be asked now.
func (c *Coordinator) Step(group uint32) Step {
	p := c.part(group)
	outcome, _ := c.Outcome()
	switch {
	case p == nil:
		return Nothing
	case outcome != Unknown && !p.resolved:
		return Resolve
	case outcome != Unknown && c.finish && !p.finished && (c.allResolved() || probe.Bug("paxoscommit: finish before all know")):
		return Finish
	case outcome != Unknown || p.vote != None:
		return Nothing
	case c.closing:
		return Close
	}
	return Prepare
}

func (c *Coordinator) allResolved() bool {
	return !slices.ContainsFunc(c.parts, func(p part) bool { return !p.resolved })
}

// Voted takes in what a group's register has: the answer to Prepare or Close.
func (c *Coordinator) Voted(group uint32, record Record, standing Standing) {
	p := c.part(group)
	if p == nil || p.vote != None {
		return
	}
	switch standing {
	case Voted:
		p.vote, p.timestamp = record.Vote, record.Timestamp
		if record.Outcome == Aborted {
			p.vote = No // whatever it had voted
		}
		p.resolved, p.committed = p.resolved || record.Outcome != Unknown, record.Outcome == Committed
	case Over, Expired:
		if probe.Bug("paxoscommit: wait for who has forgotten") {
			return
		}
		// It has not voted and never will; or all know the outcome already: then nothing that is said now counts.
		p.vote, p.resolved = No, true
	}
}

// Resolved takes in that a group knows the outcome.
func (c *Coordinator) Resolved(group uint32) {
	if p := c.part(group); p != nil {
		p.resolved = true
	}
}

// Finished takes in that a group knows that all do.
func (c *Coordinator) Finished(group uint32) {
	if p := c.part(group); p != nil {
		p.finished = true
	}
}

// Done reports whether nothing is left to do.
func (c *Coordinator) Done() bool {
	outcome, _ := c.Outcome()
	return outcome != Unknown && !slices.ContainsFunc(c.parts, func(p part) bool { return c.Step(p.group) != Nothing })
}

// Clone returns a copy.
func (c *Coordinator) Clone() *Coordinator {
	d := *c
	d.parts = slices.Clone(c.parts)
	return &d
}

// Append appends all of it, the same bytes for the same state.
func (c *Coordinator) Append(b []byte) []byte {
	b = AppendID(b, c.id)
	b = append(b, bits(c.closing, c.finish))
	for i := range c.parts {
		p := &c.parts[i]
		b = binary.AppendUvarint(b, uint64(p.group))
		b = append(b, byte(p.vote), bits(p.resolved, p.finished, p.committed))
		b = binary.AppendUvarint(b, p.timestamp)
	}
	return b
}

func bits(list ...bool) (b byte) {
	for i, set := range list {
		if set {
			b |= 1 << i
		}
	}
	return b
}
