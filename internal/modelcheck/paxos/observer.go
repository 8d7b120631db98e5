package paxos

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"

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
	// proposed: a leader proposes, and has a configuration in effect, which stands in slot Since. Where
	// configurations do not change Config is empty.
	proposed struct {
		place
		Value  string
		Config string
		Since  uint64
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
	// installed: a snapshot takes the place of the log up to a slot.
	installed struct{ Node, Slot uint64 }
	// asked: a read begins, and answered: it is to see all up to a slot.
	asked    struct{ Attempt uint64 }
	answered struct{ Attempt, Slot uint64 }
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
	config string
	since  uint64
	voters uint64 // bit i: node i+1; everybody, once they are enough
}

const everybody = 1<<64 - 1

// decision is the value that is chosen in a slot.
type decision struct {
	place // the ballot is the lowest in which it is
	value string
	term  uint64 // 0: nobody has it
}

// observer holds a run against what Paxos promises. Its slices are replaced, and never changed.
type observer struct {
	m         *Model
	proposals []proposal // ascending, but for those that their slot's decision settles
	chosen    []decision // ascending
	lost      []string   // values that were said to be lost, ascending
	decided   uint64     // the highest slot that anybody has taken for decided, if there are reads
	reads     []pending  // ascending
}

// pending is a read that waits, and the least slot that it has to see.
type pending struct{ attempt, least uint64 }

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
		b = replica.AppendBytes(binary.AppendUvarint(b, p.since), []byte(p.config))
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
	for _, r := range o.reads {
		b = binary.AppendUvarint(binary.AppendUvarint(b, r.attempt), r.least)
	}
	return binary.AppendUvarint(b, o.decided)
}

func (o *observer) find(slot uint64) (i int, ok bool) {
	return sort.Find(len(o.chosen), func(i int) int { return cmp.Compare(slot, o.chosen[i].Slot) })
}

// behind holds a proposal against the configurations that are chosen in lower slots: one that was chosen in its ballot,
// or in a lower one, governs it.
func (o *observer) behind(p *proposal) error {
	for _, d := range o.chosen {
		if strings.HasPrefix(d.value, "config") && p.since < d.Slot && d.Slot < p.Slot && p.since > 0 && !p.Ballot.Less(d.Ballot) {
			return fmt.Errorf("%s is proposed in slot %d and ballot %v, under the configuration of slot %d, and there is one in slot %d", p.value, p.Slot, p.Ballot, p.since, d.Slot)
		}
	}
	return nil
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
		return o.propose(f.place, f.Value, "", 0, 1<<(f.Node-1))
	case proposed:
		return o.propose(f.place, f.Value, f.Config, f.Since, 0)
	case taken:
		for slot := uint64(firstSlot); slot <= f.Slot; slot++ {
			if _, ok := o.find(slot); !ok {
				return fmt.Errorf("the leader of ballot %v takes slot %d for decided, and nothing is chosen there", f.Ballot, slot)
			}
		}
		o.know(f.Slot)
	case handedOut:
		return o.handOut(f)
	case installed:
		for slot := uint64(firstSlot); slot <= f.Slot; slot++ {
			if _, ok := o.find(slot); !ok {
				return fmt.Errorf("node %d installs a snapshot up to slot %d, and nothing is chosen in slot %d", f.Node, f.Slot, slot)
			}
		}
	case asked:
		o.reads = append(slices.Clone(o.reads), pending{f.Attempt, o.decided})
	case answered:
		i := slices.IndexFunc(o.reads, func(p pending) bool { return p.attempt == f.Attempt })
		if f.Slot < o.reads[i].least {
			return fmt.Errorf("read %d is to see all up to slot %d, and slot %d was decided before it began", f.Attempt, f.Slot, o.reads[i].least)
		}
		o.reads = slices.Delete(slices.Clone(o.reads), i, i+1)
	}
	return nil
}

// firstSlot is the first slot of a group: the one before stands for its founders' configuration.
const firstSlot = 2

// know takes in that somebody knows all up to a slot to be decided.
func (o *observer) know(slot uint64) {
	if o.m.Reads > 0 {
		o.decided = max(o.decided, slot)
	}
}

// handOut takes in that a value is handed out.
func (o *observer) handOut(f handedOut) error {
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
	o.know(f.Slot)

	// The fence says that of what the node has proposed in a lower round, nothing is chosen but in slots up to here.
	given := func(value string) bool {
		var what string
		var origin multipaxos.Ballot
		return command(value, &what, &origin) && origin.Node == f.Node && origin.Round < f.Fence
	}
	for _, d := range o.chosen {
		if d.Slot > f.Slot && given(d.value) {
			return fmt.Errorf("node %d is told in slot %d that %s is lost, and it is chosen in slot %d", f.Node, f.Slot, d.value, d.Slot)
		}
	}
	for _, p := range o.proposals {
		if !given(p.value) || slices.ContainsFunc(o.chosen, func(d decision) bool { return d.value == p.value }) {
			continue
		}
		if k, found := slices.BinarySearch(o.lost, p.value); !found {
			o.lost = slices.Insert(slices.Clone(o.lost), k, p.value)
		}
	}
	return nil
}

// command takes the name of a command apart; false: it names something else.
func command(name string, what *string, origin *multipaxos.Ballot) bool {
	if !strings.HasPrefix(name, "\"") {
		return false
	}
	n, err := fmt.Sscanf(name, "%q/%d.%d", what, &origin.Round, &origin.Node)
	return err == nil && n == 3
}

// propose takes in that a value was proposed, or voted for.
func (o *observer) propose(at place, value, config string, since, voter uint64) error {
	i, found := slices.BinarySearchFunc(o.proposals, at, func(p proposal, at place) int { return p.compare(at) })
	if found && o.proposals[i].value != value {
		return fmt.Errorf("%s and %s are proposed in slot %d and ballot %v", o.proposals[i].value, value, at.Slot, at.Ballot)
	}
	if found && o.proposals[i].voters&voter == voter {
		return nil
	}
	c, decided := o.find(at.Slot)
	p := proposal{place: at, value: value, config: config, since: since}
	if found {
		p = o.proposals[i]
	}
	if err := o.behind(&p); err != nil {
		return err
	}
	if p.since >= at.Slot && (!decided || o.chosen[c].value != value) {
		// Only what is decided is proposed again under a later configuration, to somebody who lacks it.
		return fmt.Errorf("%s is proposed in slot %d and ballot %v, as if it were decided, and it is not", value, at.Slot, at.Ballot)
	}
	if decided {
		if err := o.chosen[c].against(&p); err != nil {
			return err
		}
		if o.chosen[c].settles(&p) {
			return nil
		}
	}
	if p.voters |= voter; p.since < at.Slot && o.m.quorum(p.voters, p.config) {
		p.voters = everybody
	}
	o.proposals = slices.Clone(o.proposals)
	if found {
		o.proposals[i] = p
	} else {
		o.proposals = slices.Insert(o.proposals, i, p)
	}
	if p.voters != everybody {
		return nil
	}
	return o.decide()
}

// against holds a proposal against the decision in its slot.
func (d *decision) against(p *proposal) error {
	if p.value == d.value || p.Ballot.Less(d.Ballot) {
		return nil
	}
	return fmt.Errorf("%s is proposed in slot %d and ballot %v, and %s is chosen there in ballot %v", p.value, p.Slot, p.Ballot, d.value, d.Ballot)
}

// settles reports whether nothing that becomes of a proposal in the slot of a decision is of interest any more.
func (d *decision) settles(p *proposal) bool { return p.value == d.value && !p.Ballot.Less(d.Ballot) }

// decide finds out what is chosen. A value that enough have accepted is, if one is in each slot before, in the same ballot
// or in a lower one. A leader takes for decided what is accepted in its ballot behind what it knew to be decided, without a
// gap: that is chosen then. Behind an open slot even what all have accepted may be given up, see package multipaxos.
func (o *observer) decide() error {
	var ballot multipaxos.Ballot // the one in which the slot before is decided
	for slot := uint64(firstSlot); ; slot++ {
		c, decided := o.find(slot)
		for i := range o.proposals {
			p := &o.proposals[i]
			if p.Slot != slot || p.voters != everybody || p.Ballot.Less(ballot) {
				continue
			}
			if decided && o.chosen[c].value != p.value {
				d := o.chosen[c]
				return fmt.Errorf("%s is chosen in slot %d and ballot %v, and %s is in ballot %v", p.value, slot, p.Ballot, d.value, d.Ballot)
			}
			d := decision{place: p.place, value: p.value}
			if decided {
				d.term = o.chosen[c].term
			} else if _, lost := slices.BinarySearch(o.lost, p.value); lost {
				return fmt.Errorf("%s is chosen in slot %d, and the node that had proposed it was told that it is lost", p.value, slot)
			}
			o.choose(d)
			decided = true
			break // the lowest ballot
		}
		if !decided {
			return nil
		}
		c, _ = o.find(slot)
		d := o.chosen[c]
		ballot = d.Ballot
		for i := range o.proposals {
			p := &o.proposals[i]
			if err := o.behind(p); err != nil {
				return err
			}
			if p.Slot == slot {
				if err := d.against(p); err != nil {
					return err
				}
			}
		}
		o.proposals = slices.DeleteFunc(slices.Clone(o.proposals), func(p proposal) bool { return p.Slot == slot && d.settles(&p) })
	}
}
