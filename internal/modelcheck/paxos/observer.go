package paxos

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
)

// Facts.
type (
	// voted: a value that was accepted in a slot and ballot is durable.
	voted struct {
		Node uint64
		place
		Value string
	}
	// proposed: an accept leaves.
	proposed struct {
		place
		Value string
	}
	// taken: the leader of a ballot takes all up to a slot for decided.
	taken struct {
		Ballot multipaxos.Ballot
		Slot   uint64
	}
	// handedOut: a value is given to a state machine as decided.
	handedOut struct {
		Node, Slot  uint64
		Value       string
		Term, Fence uint64
	}
)

// place is where a value may be chosen.
type place struct {
	Slot   uint64
	Ballot multipaxos.Ballot
}

func (p place) compare(o place) int {
	if c := cmp.Compare(p.Slot, o.Slot); c != 0 {
		return c
	}
	return p.Ballot.Compare(o.Ballot)
}

// proposal is what was proposed in a place, and who has voted for it.
type proposal struct {
	place
	value  string
	voters uint64 // bit i: node i+1
}

// decision is the value that is chosen in a slot.
type decision struct {
	place // the ballot is the lowest in which it is
	value string
	term  uint64 // 0: nobody has it
}

// observer holds a run against what Paxos promises. Its slices are replaced, and never changed.
type observer struct {
	m         *Model
	proposals []proposal // ascending
	chosen    []decision // ascending
	lost      []string   // values that were said to be lost, ascending
	decided   uint64     // the highest slot that anybody has taken for decided
}

var _ network.Observer = (*observer)(nil)

// Clone implements network.Observer.
func (o *observer) Clone() network.Observer {
	c := *o
	return &c
}

func appendBallot(b []byte, x multipaxos.Ballot) []byte {
	b = binary.AppendUvarint(b, x.Round)
	return binary.AppendUvarint(append(b, x.Priority), x.Node)
}

// Fingerprint implements network.Observer.
func (o *observer) Fingerprint(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(o.proposals)))
	for i := range o.proposals {
		p := &o.proposals[i]
		b = appendBallot(binary.AppendUvarint(b, p.Slot), p.Ballot)
		b = replica.AppendBytes(binary.AppendUvarint(b, p.voters), []byte(p.value))
	}
	b = binary.AppendUvarint(b, uint64(len(o.chosen)))
	for i := range o.chosen {
		d := &o.chosen[i]
		b = appendBallot(binary.AppendUvarint(b, d.Slot), d.Ballot)
		b = replica.AppendBytes(binary.AppendUvarint(b, d.term), []byte(d.value))
	}
	b = binary.AppendUvarint(b, uint64(len(o.lost)))
	for _, l := range o.lost {
		b = replica.AppendBytes(b, []byte(l))
	}
	return binary.AppendUvarint(b, o.decided)
}

func (o *observer) find(slot uint64) (i int, ok bool) {
	return sort.Find(len(o.chosen), func(i int) int { return cmp.Compare(slot, o.chosen[i].Slot) })
}

// choose takes in a decision.
func (o *observer) choose(d decision) {
	o.chosen = slices.Clone(o.chosen)
	if i, ok := o.find(d.Slot); ok {
		o.chosen[i] = d
	} else {
		o.chosen = slices.Insert(o.chosen, i, d)
	}
}

// Observe implements network.Observer.
func (o *observer) Observe(fact any) error {
	switch f := fact.(type) {
	case voted:
		return o.propose(f.place, f.Value, 1<<(f.Node-1))
	case proposed:
		return o.propose(f.place, f.Value, 0)
	case taken:
		for slot := uint64(2); slot <= f.Slot; slot++ {
			if _, ok := o.find(slot); !ok {
				return fmt.Errorf("the leader of ballot %v takes slot %d for decided, and nothing is chosen there", f.Ballot, slot)
			}
		}
	case handedOut:
		i, ok := o.find(f.Slot)
		if !ok {
			return fmt.Errorf("node %d hands out %s in slot %d, and nothing is chosen there", f.Node, f.Value, f.Slot)
		}
		d := o.chosen[i]
		switch {
		case d.value != f.Value:
			return fmt.Errorf("node %d hands out %s in slot %d, and %s is chosen there", f.Node, f.Value, f.Slot, d.value)
		case d.term != 0 && d.term != f.Term:
			return fmt.Errorf("node %d hands out slot %d with term %d, and another one has done so with term %d", f.Node, f.Slot, f.Term, d.term)
		case d.term == 0:
			d.term = f.Term
			o.choose(d)
		}
	}
	return nil
}

// propose takes in that a value was proposed, or voted for.
func (o *observer) propose(at place, value string, voter uint64) error {
	i, found := slices.BinarySearchFunc(o.proposals, at, func(p proposal, at place) int { return p.compare(at) })
	if found && o.proposals[i].value != value {
		return fmt.Errorf("%s and %s are proposed in slot %d and ballot %v", o.proposals[i].value, value, at.Slot, at.Ballot)
	}
	if found && o.proposals[i].voters&voter == voter {
		return nil
	}
	c, decided := o.find(at.Slot)
	if decided {
		if d := o.chosen[c]; d.value != value && d.Ballot.Less(at.Ballot) {
			return fmt.Errorf("%s is proposed in slot %d and ballot %v, and %s was chosen there in ballot %v", value, at.Slot, at.Ballot, d.value, d.Ballot)
		}
	}
	o.proposals = slices.Clone(o.proposals)
	if !found {
		o.proposals = slices.Insert(o.proposals, i, proposal{place: at, value: value})
	}
	o.proposals[i].voters |= voter
	if !o.m.quorum(o.proposals[i].voters) {
		return nil
	}
	switch {
	case !decided:
		o.choose(decision{place: at, value: value})
	case o.chosen[c].value != value:
		return fmt.Errorf("%s is chosen in slot %d and ballot %v, and %s is in ballot %v", value, at.Slot, at.Ballot, o.chosen[c].value, o.chosen[c].Ballot)
	case at.Ballot.Less(o.chosen[c].Ballot):
		d := o.chosen[c]
		d.place = at
		o.choose(d)
	}
	for _, p := range o.proposals {
		if p.Slot == at.Slot && at.Ballot.Less(p.Ballot) && p.value != value {
			return fmt.Errorf("%s is chosen in slot %d and ballot %v, and %s was proposed in ballot %v", value, at.Slot, at.Ballot, p.value, p.Ballot)
		}
	}
	return nil
}
