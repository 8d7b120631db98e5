package multipaxos

//synod:core

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/replica"
)

// MaxVoters is how many members of a set of voters a group may have.
const MaxVoters = 64

// Quorums says which sets of voters decide (Howard, Malkhi and Spiegelman, "Flexible Paxos",
// 2016). The zero value is a majority for both phases. All nodes of a group must have the
// same: those with others refuse each other.
type Quorums struct {
	// Phase1 is how many voters a node needs to become the leader, and Phase2 how many
	// have to accept a value; all, where there are fewer. If one of them is 0 it is as small as
	// the other allows: the two together are one more than there are voters. If both are 0 they
	// are a majority.
	Phase1, Phase2 int

	// Sets1 and Sets2 name the quorums one by one, by nodes, in the place of Phase1 and
	// Phase2: any of the sets is a quorum, and so is what contains one. Both or none.
	Sets1, Sets2 [][]uint64
}

// clone returns a copy that shares nothing, with all sets in order.
func (q Quorums) clone() Quorums {
	sets := func(s [][]uint64) [][]uint64 {
		s = slices.Clone(s)
		for i := range s {
			s[i] = slices.Sorted(slices.Values(s[i]))
		}
		slices.SortFunc(s, slices.Compare)
		return s
	}
	q.Sets1, q.Sets2 = sets(q.Sets1), sets(q.Sets2)
	return q
}

// hash tells quorums from others, in messages.
func (q Quorums) hash() uint32 {
	if q.Phase1 == 0 && q.Phase2 == 0 && len(q.Sets1) == 0 {
		return 0
	}
	b := binary.AppendUvarint(nil, uint64(q.Phase1))
	b = binary.AppendUvarint(b, uint64(q.Phase2))
	for _, sets := range [][][]uint64{q.Sets1, q.Sets2} {
		b = binary.AppendUvarint(b, uint64(len(sets)))
		for _, set := range sets {
			b = binary.AppendUvarint(b, uint64(len(set)))
			for _, n := range set {
				b = binary.AppendUvarint(b, n)
			}
		}
	}
	return replica.Checksum(b) | 1
}

// mark is what a store keeps of the quorums by which it was written, above 0. With others, a new leader could
// miss what was decided by these.
func (q Quorums) mark() uint64 { return uint64(q.hash()) + 1 }

// Check reports what is wrong with the quorums themselves, as a *synod.ConfigError.
func (q Quorums) Check(pkg string) error {
	bad := func(format string, args ...any) error {
		return &synod.ConfigError{Package: pkg, Field: "Quorums", Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case q.Phase1 < 0 || q.Phase2 < 0:
		return bad("a quorum has %d voters: sizes are above 0, or 0 for the default", min(q.Phase1, q.Phase2))
	case (len(q.Sets1) == 0) != (len(q.Sets2) == 0):
		return bad("sets are named for one phase only: name those of both")
	case len(q.Sets1) > 0 && (q.Phase1 > 0 || q.Phase2 > 0):
		return bad("both sizes and sets are given: one of them decides")
	}
	for _, sets := range [][][]uint64{q.Sets1, q.Sets2} {
		for _, set := range sets {
			if len(set) == 0 {
				return bad("a set is empty: a quorum has at least one voter")
			}
			sorted := slices.Sorted(slices.Values(set))
			if sorted[0] == 0 || len(slices.Compact(sorted)) < len(set) {
				return bad("a set names node 0, or a node twice: %v", set)
			}
		}
	}
	for _, a := range q.Sets1 {
		for _, b := range q.Sets2 {
			if !slices.ContainsFunc(a, func(n uint64) bool { return slices.Contains(b, n) }) {
				return bad("the sets %v of phase 1 and %v of phase 2 have no node in common: a new leader could miss what was chosen", a, b)
			}
		}
	}
	return nil
}

// half is one set of voters, and what is a quorum of it.
type half struct {
	voters         uint64 // bits, as electorate numbers the members
	phase1, phase2 int
	sets1, sets2   []uint64
}

// electorate is who decides under a configuration: one set of voters, or two while they are
// exchanged. A set of nodes is a mask: bit i is the voter members[i].
type electorate struct {
	members []uint64 // who votes in any of the sets, ascending
	halves  []half
}

// newElectorate makes the electorate of a configuration. The error says why the quorums
// do not go with it; it names the field of Config.
func newElectorate(q Quorums, c replica.Configuration) (electorate, error) {
	e := electorate{members: c.Nodes(func(p replica.Participant) bool { return p.Voter || p.Outgoing })}
	if len(e.members) == 0 {
		return e, nil // a node that was told nothing yet
	}
	sets := [][]uint64{c.Nodes(func(p replica.Participant) bool { return p.Voter })}
	if c.Joint() {
		sets = append(sets, c.Nodes(func(p replica.Participant) bool { return p.Outgoing }))
	}
	for _, voters := range sets {
		h, err := e.half(q, voters)
		if err != nil {
			return e, &synod.ConfigError{Package: "paxos", Field: "Quorums", Reason: err.Error()}
		}
		e.halves = append(e.halves, h)
	}
	return e, nil
}

// checkTarget reports whether the quorums go with the configurations that a change goes through: both sets of
// voters together, the new one alone, and where voters leave to come back under another incarnation, the rest.
func (q Quorums) checkTarget(c replica.Configuration) error {
	if c.Target == nil {
		return nil
	}
	old := c.Nodes(func(p replica.Participant) bool { return p.Voter })
	var both replica.Configuration
	add := func(nodes []uint64, mark func(*replica.Participant)) {
		for _, node := range nodes {
			i, ok := slices.BinarySearchFunc(both.Members, node, func(p replica.Participant, node uint64) int { return cmp.Compare(p.Node, node) })
			if !ok {
				both.Members = slices.Insert(both.Members, i, replica.Participant{Member: synod.Member{Node: node}})
			}
			mark(&both.Members[i])
		}
	}
	var next []uint64
	for _, m := range c.Target {
		if !m.Learner {
			next = append(next, m.Node)
		}
		if p, is := c.Find(m.Node); is && p.Voter && m.Incarnation != 0 && m.Incarnation != p.Incarnation && len(old) > 1 {
			rest := replica.Configuration{Members: slices.DeleteFunc(c.Clone().Members, func(o replica.Participant) bool { return !o.Voter || o.Node == p.Node })}
			if _, err := newElectorate(q, rest); err != nil {
				return err
			}
		}
	}
	add(old, func(p *replica.Participant) { p.Outgoing = true })
	add(next, func(p *replica.Participant) { p.Voter = true })
	_, err := newElectorate(q, both)
	return err
}

func (e *electorate) half(q Quorums, voters []uint64) (half, error) {
	n := len(voters)
	h := half{voters: e.mask(voters), phase1: min(q.Phase1, n), phase2: min(q.Phase2, n)}
	if n > MaxVoters || len(e.members) > MaxVoters {
		return h, fmt.Errorf("%d voters, at most %d", len(e.members), MaxVoters)
	}
	if len(q.Sets1) > 0 {
		for i, sets := range [][][]uint64{q.Sets1, q.Sets2} {
			var masks []uint64
			for _, set := range sets {
				if !slices.ContainsFunc(set, func(node uint64) bool { return !slices.Contains(voters, node) }) {
					masks = append(masks, e.mask(set))
				}
			}
			if len(masks) == 0 {
				return h, fmt.Errorf("no set of phase %d consists of voters %v: name some that do, on all nodes, before the members change", i+1, voters)
			}
			if i == 0 {
				h.sets1 = masks
			} else {
				h.sets2 = masks
			}
		}
		return h, nil
	}
	switch {
	case h.phase1 == 0 && h.phase2 == 0:
		h.phase1, h.phase2 = n/2+1, n/2+1
	case h.phase1 == 0:
		h.phase1 = n + 1 - h.phase2
	case h.phase2 == 0:
		h.phase2 = n + 1 - h.phase1
	}
	switch {
	case n == 0:
		return h, errors.New("nobody votes")
	case h.phase1+h.phase2 <= n:
		return h, fmt.Errorf("quorums of %d voters in phase 1 and %d in phase 2, of %d, may have none in common: they must be more than there are voters, together", h.phase1, h.phase2, n)
	}
	return h, nil
}

// bit returns the mask of one node; 0 if it does not vote.
func (e *electorate) bit(node uint64) uint64 {
	i, ok := slices.BinarySearch(e.members, node)
	if !ok || i >= MaxVoters {
		return 0
	}
	return 1 << i
}

func (e *electorate) mask(nodes []uint64) (mask uint64) {
	for _, n := range nodes {
		mask |= e.bit(n)
	}
	return mask
}

func (h *half) has(mask uint64, size int, sets []uint64) bool {
	mask &= h.voters
	if len(sets) > 0 {
		return slices.ContainsFunc(sets, func(s uint64) bool { return s&mask == s })
	}
	return bits.OnesCount64(mask) >= size
}

// phase1 reports whether the nodes of a mask may make one of them the leader.
func (e *electorate) phase1(mask uint64) bool {
	for i := range e.halves {
		if h := &e.halves[i]; !h.has(mask, h.phase1, h.sets1) {
			return false
		}
	}
	return len(e.halves) > 0
}

// phase2 reports whether what the nodes of a mask have accepted is chosen.
func (e *electorate) phase2(mask uint64) bool {
	for i := range e.halves {
		if h := &e.halves[i]; !h.has(mask, h.phase2, h.sets2) {
			return false
		}
	}
	return len(e.halves) > 0
}
