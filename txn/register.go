//synod:core

package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
)

// maxOpen is how many exceptions a progress may have.
const maxOpen = 1 << 20

// coordinator is an incarnation of one.
type coordinator struct{ node, incarnation uint64 }

// registers are the registers of a decision log, in memory. They are the same whether they stand in a store or are the state of
// a replicated log.
type registers struct {
	decided map[ID]Decision
	over    map[coordinator]Progress
}

func newRegisters() *registers {
	return &registers{decided: make(map[ID]Decision), over: make(map[coordinator]Progress)}
}

// decide returns the winner; fresh says that it was not there before.
func (r *registers) decide(d Decision) (winner Decision, fresh bool, err error) {
	if old, there := r.decided[d.ID]; there && !probe.Bug("2pc: a register is written twice") {
		return old, false, nil
	}
	if r.over[coordinator{d.ID.Node, d.ID.Incarnation}].Over(d.ID.Counter) && !probe.Bug("2pc: a register that was collected is made again") {
		return Decision{}, false, fmt.Errorf("%w: %v", ErrForgotten, d.ID)
	}
	r.decided[d.ID] = d
	return d, true, nil
}

// merge adds what a progress says to what is known, and returns the sum.
func (r *registers) merge(p Progress) Progress {
	old, there := r.over[coordinator{p.Node, p.Incarnation}]
	if !there || probe.Bug("2pc: an old progress takes the place of a newer one") {
		return p
	}
	sum := Progress{Node: p.Node, Incarnation: p.Incarnation, Upcoming: max(old.Upcoming, p.Upcoming)}
	for _, c := range p.Open {
		if !old.Over(c) {
			sum.Open = append(sum.Open, c)
		}
	}
	for _, c := range old.Open {
		if c >= p.Upcoming {
			sum.Open = append(sum.Open, c)
		}
	}
	slices.Sort(sum.Open)
	sum.Open = slices.Compact(sum.Open)
	return sum
}

// forget takes in a progress, and returns it with what was known before, and the decisions that are gone.
func (r *registers) forget(p Progress) (sum Progress, gone []ID) {
	sum = r.merge(p)
	r.over[coordinator{p.Node, p.Incarnation}] = sum
	for id := range r.decided { //synod:ordered they are sorted below
		if id.Node == p.Node && id.Incarnation == p.Incarnation && sum.Over(id.Counter) {
			gone = append(gone, id)
			delete(r.decided, id)
		}
	}
	slices.SortFunc(gone, ID.Compare)
	return sum, gone
}

// recover does what DecisionLog.Recover does, and returns what has changed.
func (r *registers) recover(p Progress) (stay []Decision, changed []Progress, err error) {
	if old, there := r.over[coordinator{p.Node, p.Incarnation}]; there && p.Upcoming <= old.Upcoming {
		return nil, nil, fmt.Errorf("%w: node %d begins at transaction %d, and the decision log knows of it up to %d", ErrRolledBack, p.Node, p.Upcoming, old.Upcoming)
	}
	ended := map[coordinator]Progress{{p.Node, p.Incarnation}: p}
	for c := range r.over { //synod:ordered each on its own
		if c.node == p.Node && c.incarnation != p.Incarnation {
			ended[c] = Progress{Node: c.node, Incarnation: c.incarnation, Upcoming: math.MaxUint64}
		}
	}
	for id := range r.decided { //synod:ordered each on its own
		c := coordinator{id.Node, id.Incarnation}
		if id.Node == p.Node && c.incarnation != p.Incarnation {
			ended[c] = Progress{Node: c.node, Incarnation: c.incarnation, Upcoming: math.MaxUint64}
		}
	}
	for id, d := range r.decided { //synod:ordered they are sorted below
		c := coordinator{id.Node, id.Incarnation}
		if e, mine := ended[c]; mine {
			e.Open = append(slices.Clone(e.Open), id.Counter)
			ended[c] = e
			stay = append(stay, d)
		}
	}
	slices.SortFunc(stay, func(a, b Decision) int { return a.ID.Compare(b.ID) })
	keys := slices.SortedFunc(maps.Keys(ended), coordinator.compare)
	for _, c := range keys {
		e := ended[c]
		slices.Sort(e.Open)
		e.Open = slices.Compact(e.Open)
		sum := r.merge(e)
		r.over[c] = sum
		changed = append(changed, sum)
	}
	return stay, changed, nil
}

func (c coordinator) compare(other coordinator) int {
	return ID{Node: c.node, Incarnation: c.incarnation}.Compare(ID{Node: other.node, Incarnation: other.incarnation})
}

// check says what is wrong with a decision that is proposed.
func (d Decision) check() error {
	if d.Outcome != Committed && d.Outcome != Aborted {
		return fmt.Errorf("%w: %v is nothing to decide", ErrInvalid, d.Outcome)
	}
	if len(d.Participants) > twophase.MaxParticipants {
		return fmt.Errorf("%w: %d participants: at most %d", ErrInvalid, len(d.Participants), twophase.MaxParticipants)
	}
	for _, p := range d.Participants {
		if len(p.Resource) > twophase.MaxResourceBytes {
			return fmt.Errorf("%w: the name of a resource has %d bytes: at most %d", ErrInvalid, len(p.Resource), twophase.MaxResourceBytes)
		}
	}
	return nil
}

func (p Progress) check() error {
	if len(p.Open) > maxOpen || !slices.IsSorted(p.Open) {
		return fmt.Errorf("%w: a progress has at most %d open transactions, ascending", ErrInvalid, maxOpen)
	}
	return nil
}

func branchesOf(participants []Participant) []twophase.Branch {
	list := make([]twophase.Branch, len(participants))
	for i, p := range participants {
		list[i] = twophase.Branch(p)
	}
	return list
}

func participantsOf(branches []twophase.Branch) []Participant {
	var list []Participant
	for _, b := range branches {
		list = append(list, Participant{Node: b.Node, Resource: b.Resource})
	}
	return list
}

func (d Decision) core() twophase.Decision {
	return twophase.Decision{ID: twophase.ID(d.ID), Outcome: twophase.Outcome(d.Outcome), Branches: branchesOf(participantsOf(branchesOf(d.Participants)))}
}

func decisionOf(d twophase.Decision) Decision {
	return Decision{ID: ID(d.ID), Outcome: Outcome(d.Outcome), Participants: participantsOf(d.Branches)}
}

func appendDecision(b []byte, d Decision) []byte { return twophase.AppendDecision(b, d.core()) }

func decodeDecision(b []byte) (Decision, error) {
	d, err := twophase.DecodeDecision(b)
	return decisionOf(d), err
}

// appendProgress writes the open ones as differences: they are close to each other.
func appendProgress(b []byte, p Progress) []byte {
	b = binary.BigEndian.AppendUint64(b, p.Node)
	b = binary.BigEndian.AppendUint64(b, p.Incarnation)
	b = binary.BigEndian.AppendUint64(b, p.Upcoming)
	b = binary.AppendUvarint(b, uint64(len(p.Open)))
	last := uint64(0)
	for _, c := range p.Open {
		b = binary.AppendUvarint(b, c-last)
		last = c
	}
	return b
}

var errProgress = errors.New("txn: malformed progress")

func decodeProgress(b []byte) (p Progress, err error) {
	if len(b) < 24 {
		return p, errProgress
	}
	p.Node, p.Incarnation, p.Upcoming = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	b = b[24:]
	count, n := binary.Uvarint(b)
	if n <= 0 || count > maxOpen || count > uint64(len(b)) {
		return p, errProgress
	}
	b = b[n:]
	last := uint64(0)
	for range count {
		d, n := binary.Uvarint(b)
		if n <= 0 || last+d < last {
			return p, errProgress
		}
		b, last = b[n:], last+d
		p.Open = append(p.Open, last)
	}
	if len(b) != 0 {
		return p, errProgress
	}
	return p, nil
}
