package multipaxos

//synod:core

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/synod-go/synod/internal/probe"
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

func (c *Core) observeRun(r *run) {
	probe.Observe(probe.PaxosStored{Group: c.group, Ballot: r.ballot.shown(), Chosen: r.ballot.isChosen(), First: r.first, Hashes: r.hashes()})
}

func (c *Core) observeProposal(r *run) {
	probe.Observe(probe.PaxosProposed{Group: c.group, Ballot: r.ballot.shown(), First: r.first, Hashes: r.hashes()})
	c.observeRun(r)
}

func (c *Core) observeDecided(first, last uint64) {
	probe.Observe(probe.PaxosDecided{Group: c.group, Ballot: c.ballot.shown(), First: first, Last: last})
}

func (c *Core) observeMessage(q *outgoing) {
	switch q.m.kind {
	case kindPromise, kindPrepare:
		probe.Observe(probe.PaxosPromised{Group: c.group, Ballot: q.m.ballot.shown()})
	case kindAccepted:
		probe.Observe(probe.PaxosAccepted{Group: c.group, Ballot: q.m.ballot.shown(), Through: q.m.through})
	}
}
