package paxoscommit

import (
	"encoding/binary"
	"fmt"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/wire"
)

// kind is what a message is.
type kind uint8

// Kinds of messages. The first four are commands, which a group applies.
const (
	prepare  kind = iota // vote, yes or no, where nobody has
	closing              // vote no, where nobody has
	resolve              // take in the outcome
	finish               // note that all have
	vote                 // the answer to the first two
	resolved             // to resolve
	finished             // to finish
	found                // somebody may see that the group has a record
	kinds
)

func (k kind) String() string {
	return [...]string{"prepare", "close", "resolve", "finish", "vote", "resolved", "finished", "found"}[k]
}

// message is what is on its way. Fields that its kind does not have are zero.
type message struct {
	kind      kind
	id        core.ID
	groups    []uint32
	vote      core.Vote // what a group is to vote, if it may: this is how the model chooses
	floor     uint64    // of the client's session
	outcome   core.Outcome
	timestamp uint64
	record    core.Record
	standing  core.Standing
	asked     kind // prepare or closing
	first     bool // no earlier prepare was applied in the group
}

func (m *message) encode() []byte {
	b := []byte{byte(m.kind), byte(m.vote), byte(m.outcome), byte(m.record.Vote), byte(m.record.Outcome), byte(m.standing), byte(m.asked), bit(m.first), bit(m.record.Finished)}
	b = core.AppendID(b, m.id)
	b = core.AppendGroups(b, m.groups)
	b = binary.AppendUvarint(b, m.floor)
	b = binary.AppendUvarint(b, m.timestamp)
	return binary.AppendUvarint(b, m.record.Timestamp)
}

func decode(b []byte) (m message) {
	r := wire.NewReader(b)
	m.kind, m.vote, m.outcome = kind(r.Byte(byte(kinds))), core.Vote(r.Byte(2)), core.Outcome(r.Byte(2))
	m.record.Vote, m.record.Outcome, m.standing = core.Vote(r.Byte(2)), core.Outcome(r.Byte(2)), core.Standing(r.Byte(4))
	m.asked, m.first, m.record.Finished = kind(r.Byte(byte(kinds))), r.Byte(1) == 1, r.Byte(1) == 1
	m.id, m.groups = core.ReadID(&r), core.ReadGroups(&r, nil)
	m.floor, m.timestamp, m.record.Timestamp = r.Uvarint(), r.Uvarint(), r.Uvarint()
	if r.End() != nil {
		panic("a message can't be read")
	}
	return m
}

func bit(f bool) byte {
	if f {
		return 1
	}
	return 0
}

// shorten is a transaction as scripts have it: its session and its counter.
func shorten(id core.ID) string { return fmt.Sprintf("%d.%d", id.Session.Opened, id.Counter) }

// describe shows a message; the first word is its kind.
func describe(body []byte) string {
	m := decode(body)
	s := fmt.Sprintf("%s %s", m.kind, shorten(m.id))
	switch m.kind {
	case prepare:
		s += fmt.Sprintf(" %s floor=%d", m.vote, m.floor)
	case resolve:
		s += " " + m.outcome.String()
		if m.outcome == core.Committed {
			s += fmt.Sprintf(" at %d", m.timestamp)
		}
		if m.floor > 0 {
			s += fmt.Sprintf(" floor=%d", m.floor)
		}
	case vote:
		s += fmt.Sprintf(" %s", m.standing)
		if m.standing == core.Voted {
			s += " " + m.record.String()
		}
		if m.asked == prepare && !m.first {
			s += ", asked again"
		}
	}
	return s
}

func (m *message) to(node int, out *network.Output) {
	out.Messages = append(out.Messages, network.Message{To: node, Body: m.encode()})
}
