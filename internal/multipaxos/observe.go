package multipaxos

//synod:core

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// What a simulation is shown.

func (b Ballot) shown() probe.PaxosBallot { return probe.PaxosBallot(b) }

// hash tells a value from others.
func (v *value) hash() uint64 {
	h := fnv.New64a()
	b := append(v.origin.append(nil), byte(v.kind))
	_, _ = h.Write(binary.AppendUvarint(b, uint64(len(v.data))))
	_, _ = h.Write(v.data)
	return h.Sum64()
}

func (r *run) hashes() []uint64 {
	list := make([]uint64, len(r.values))
	for i := range r.values {
		list[i] = r.values[i].hash()
	}
	return list
}

func (c *Core) observeOpened(applied uint64, lost bool) {
	probe.Observe(probe.PaxosOpened{Group: c.group, Promised: c.promised.shown(), Start: c.log.start.Index, Applied: applied, Last: c.log.last(), Lost: lost,
		Accepted: func(slot uint64) (probe.PaxosBallot, bool) {
			s := c.log.find(slot)
			switch {
			case s == nil:
				return probe.PaxosBallot{}, true
			case s.rec.bad:
				return s.rec.upTo.shown(), false
			}
			return s.rec.ballot.shown(), true
		}})
}

func (c *Core) observeConfiguration() {
	shown := probe.PaxosConfigured{Group: c.group, Slot: c.confSlot}
	for _, votes := range []func(replica.Participant) bool{
		func(p replica.Participant) bool { return p.Voter },
		func(p replica.Participant) bool { return p.Outgoing },
	} {
		if set := c.conf.Nodes(votes); len(set) > 0 {
			shown.Sets = append(shown.Sets, set)
		}
	}
	probe.Observe(shown)
}

func (c *Core) observeRun(r *run) {
	probe.Observe(probe.PaxosStored{Group: c.group, Ballot: r.ballot.shown(), Chosen: r.ballot.isChosen(), First: r.first, Hashes: r.hashes()})
}

func (c *Core) observeProposal(r *run) {
	shown := probe.PaxosProposed{Group: c.group, Ballot: r.ballot.shown(), First: r.first, Hashes: r.hashes()}
	for i := range r.values {
		if r.values[i].kind == valueConfig {
			shown.Config = r.first + uint64(i)
		}
	}
	probe.Observe(shown)
	c.observeRun(r)
}

func (c *Core) observeDecided(first, last uint64) {
	probe.Observe(probe.PaxosDecided{Group: c.group, Ballot: c.ballot.shown(), First: first, Last: last})
}

func (c *Core) observePromise(m *message) {
	probe.Observe(probe.PaxosPromised{Group: c.group, Ballot: m.ballot.shown(), All: m.kind == kindPromise && m.flag, Lost: m.kind == kindPromise && !m.other.IsZero()})
}

func (c *Core) observeAccepted(ballot Ballot, through uint64, ranges []slots) {
	shown := probe.PaxosAccepted{Group: c.group, Ballot: ballot.shown(), Through: through}
	for _, r := range ranges {
		shown.Ranges = append(shown.Ranges, probe.PaxosSlots{First: r.first, Last: r.last})
	}
	probe.Observe(shown)
}

func (c *Core) observeMessage(q *outgoing) {
	switch q.m.kind {
	case kindPromise, kindPrepare:
		c.observePromise(&q.m)
	case kindAccepted:
		c.observeAccepted(q.m.ballot, q.m.through, q.m.ranges)
	}
}
