package replica

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod"
)

// Configuration says who is in a group as of one index, and what it is on the way to. It
// stands in the log, in the records of where a log begins, and in snapshots. A value is
// never changed once it is in use.
type Configuration struct {
	Members []Participant  // ascending by node
	Change  uint64         // names the last change that was begun; 0: there was none
	Target  []synod.Member // who is in the group when the change is done, ascending; nil: it is
}

// Participant is a member of a group, with its part in it.
//
// While voters change, two sets of them decide together (joint consensus: Ongaro and
// Ousterhout, section 6): the members with Voter and those with Outgoing. A member that
// only has Outgoing leaves the group; one that is a Learner besides stays as that.
type Participant struct {
	synod.Member
	Voter    bool // votes in the only set of voters, or in the one that is to be the only one
	Outgoing bool // votes in the set that is given up
}

// Limits of a configuration.
const (
	maxMembers      = 1024
	maxAddressBytes = 255
)

// NewConfiguration returns the configuration of a new group.
func NewConfiguration(members []synod.Member) Configuration {
	var c Configuration
	for _, m := range members {
		c.Members = append(c.Members, Participant{Member: m, Voter: !m.Learner})
	}
	c.sort()
	return c
}

func (c *Configuration) sort() {
	slices.SortFunc(c.Members, func(a, b Participant) int { return cmp.Compare(a.Node, b.Node) })
}

// Clone returns a copy that shares nothing.
func (c Configuration) Clone() Configuration {
	c.Members, c.Target = slices.Clone(c.Members), slices.Clone(c.Target)
	return c
}

// Joint reports whether two sets of voters decide together.
func (c Configuration) Joint() bool {
	return slices.ContainsFunc(c.Members, func(p Participant) bool { return p.Outgoing })
}

// Find returns the part that a node has.
func (c Configuration) Find(node uint64) (Participant, bool) {
	i, ok := slices.BinarySearchFunc(c.Members, node, func(p Participant, node uint64) int { return cmp.Compare(p.Node, node) })
	if !ok {
		return Participant{}, false
	}
	return c.Members[i], true
}

// Nodes returns those for which a condition holds, ascending.
func (c Configuration) Nodes(which func(Participant) bool) []uint64 {
	var nodes []uint64
	for _, p := range c.Members {
		if which(p) {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes
}

// String shows the configuration to people.
func (c Configuration) String() string {
	var parts []string
	part := func(name string, which func(Participant) bool) {
		if nodes := c.Nodes(which); len(nodes) > 0 {
			parts = append(parts, name+strings.Trim(strings.Join(strings.Fields(fmt.Sprint(nodes)), ","), "[]"))
		}
	}
	part("voters=", func(p Participant) bool { return p.Voter })
	part("outgoing=", func(p Participant) bool { return p.Outgoing })
	part("learners=", func(p Participant) bool { return !p.Voter && !p.Outgoing })
	if parts == nil {
		return "nobody"
	}
	return strings.Join(parts, " ")
}

// Current returns the members as a user sees them: a member that leaves is still one.
func (c Configuration) Current() []synod.Member {
	members := make([]synod.Member, 0, len(c.Members))
	for _, p := range c.Members {
		m := p.Member
		m.Learner = !p.Voter && !p.Outgoing
		members = append(members, m)
	}
	return members
}

// Is reports whether the configuration is a list of members and nothing else, which
// must ascend. An incarnation that is 0 in the list is any.
func (c Configuration) Is(members []synod.Member) bool {
	return !c.Joint() && slices.EqualFunc(c.Members, members, func(p Participant, m synod.Member) bool {
		return p.Node == m.Node && p.Learner == m.Learner && p.Address == m.Address && (m.Incarnation == 0 || m.Incarnation == p.Incarnation)
	})
}

const (
	flagVoter    = 1
	flagOutgoing = 2
	flagLearner  = 4
)

func appendMember(b []byte, m synod.Member, flags byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, m.Node)
	b = binary.LittleEndian.AppendUint64(b, m.Incarnation)
	b = append(b, flags)
	return AppendBytes(b, []byte(m.Address))
}

// Append appends the encoded form. Equal configurations have equal forms.
func (c Configuration) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(c.Members)))
	for _, p := range c.Members {
		var flags byte
		if p.Voter {
			flags |= flagVoter
		}
		if p.Outgoing {
			flags |= flagOutgoing
		}
		if p.Learner {
			flags |= flagLearner
		}
		b = appendMember(b, p.Member, flags)
	}
	b = binary.LittleEndian.AppendUint64(b, c.Change)
	b = binary.AppendUvarint(b, uint64(len(c.Target)))
	for _, m := range c.Target {
		flags := byte(flagVoter)
		if m.Learner {
			flags = flagLearner
		}
		b = appendMember(b, m, flags)
	}
	return b
}

var errConfiguration = errors.New("replica: malformed configuration")

// DecodeConfiguration reads what Append wrote. One without a voter is malformed, but for
// the empty one, which is that of a node that has joined and was told nothing yet.
func DecodeConfiguration(b []byte) (Configuration, error) {
	var c Configuration
	r := NewReader(b)
	bad := false
	member := func(before uint64) (m synod.Member, flags byte) {
		m.Node, m.Incarnation, flags = r.Uint64(), r.Uint64(), r.Byte()
		m.Address = string(r.Bytes())
		m.Learner = flags&flagLearner != 0
		bad = bad || m.Node <= before || len(m.Address) > maxAddressBytes
		return m, flags
	}
	const minMember = 8 + 8 + 1 + 1
	var before uint64
	voters, outgoing := 0, 0
	if n := r.Count(minMember); n > 0 {
		c.Members = make([]Participant, 0, n)
		for range n {
			m, flags := member(before)
			p := Participant{Member: m, Voter: flags&flagVoter != 0, Outgoing: flags&flagOutgoing != 0}
			switch flags {
			case flagVoter, flagOutgoing, flagVoter | flagOutgoing, flagLearner, flagLearner | flagOutgoing:
			default:
				bad = true
			}
			if p.Voter {
				voters++
			}
			if p.Outgoing {
				outgoing++
			}
			c.Members = append(c.Members, p)
			before = m.Node
		}
	}
	c.Change = r.Uint64()
	before = 0
	targets := 0
	if n := r.Count(minMember); n > 0 {
		c.Target = make([]synod.Member, 0, n)
		for range n {
			m, flags := member(before)
			switch flags {
			case flagVoter:
				targets++
			case flagLearner:
			default:
				bad = true
			}
			c.Target = append(c.Target, m)
			before = m.Node
		}
	}
	if err := r.Err(); err != nil {
		return Configuration{}, fmt.Errorf("%w: %w", errConfiguration, err)
	}
	if bad || len(c.Members) > maxMembers || len(c.Target) > maxMembers || c.Target != nil && targets == 0 ||
		voters == 0 && (len(c.Members) > 0 || c.Target != nil) {
		return Configuration{}, errConfiguration
	}
	return c, nil
}

// checkMembers checks what a user wants a group's members to be, and returns it ascending.
func checkMembers(pkg string, members []synod.Member) ([]synod.Member, error) {
	bad := func(format string, args ...any) ([]synod.Member, error) {
		return nil, &synod.ConfigError{Package: pkg, Field: "Members", Reason: fmt.Sprintf(format, args...)}
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b synod.Member) int { return cmp.Compare(a.Node, b.Node) })
	voters := 0
	for i, m := range members {
		switch {
		case m.Node == 0:
			return bad("nodes have IDs above 0")
		case i > 0 && members[i-1].Node == m.Node:
			return bad("node %d is named twice", m.Node)
		case len(m.Address) > maxAddressBytes:
			return bad("the address of node %d has %d bytes: at most %d", m.Node, len(m.Address), maxAddressBytes)
		}
		if !m.Learner {
			voters++
		}
		if m.Address == "" {
			continue
		}
		if at := slices.IndexFunc(members[:i], func(o synod.Member) bool { return o.Address == m.Address }); at >= 0 {
			return bad("nodes %d and %d have the same address %s", members[at].Node, m.Node, m.Address)
		}
	}
	switch {
	case len(members) == 0:
		return bad("a group needs at least one member")
	case voters == 0:
		return bad("a group needs at least one member that votes")
	case len(members) > maxMembers:
		return bad("%d members: at most %d", len(members), maxMembers)
	}
	return members, nil
}
