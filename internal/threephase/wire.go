//synod:core

package threephase

import (
	"encoding/binary"
	"fmt"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/storage"
)

// ErrMalformed says that a message or a record is none.
var ErrMalformed = twophase.ErrMalformed

func appendBallot(b []byte, x Ballot) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, x.Number), uint64(x.Rank))
}

func readBallot(r *twophase.Reader) Ballot {
	x := Ballot{Number: r.Uvarint()}
	rank := r.Uvarint()
	if rank > twophase.MaxParticipants {
		r.Fail()
	}
	x.Rank = uint32(rank)
	return x
}

func appendParticipants(b []byte, list []Participant) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = binary.AppendUvarint(b, list[i].Node)
		b = wire.AppendBytes(b, list[i].Resource)
		b = binary.AppendUvarint(b, uint64(list[i].Weight))
	}
	return b
}

func readParticipants(r *twophase.Reader) (list []Participant) {
	n := r.Uvarint()
	if n > twophase.MaxParticipants {
		r.Fail()
	}
	for i := uint64(0); i < n && !r.Failed(); i++ {
		p := Participant{Branch: twophase.Branch{Node: r.Uvarint(), Resource: string(r.Bytes(twophase.MaxResourceBytes))}}
		weight := r.Uvarint()
		if weight >= 1<<32 {
			r.Fail()
		}
		p.Weight = uint32(weight)
		list = append(list, p)
	}
	return list
}

// AppendMessage appends the encoding of a message, without From and To, which the frame has.
func AppendMessage(b []byte, m Message) []byte {
	b = append(b, byte(m.Kind))
	b = twophase.AppendID(b, m.ID)
	b = wire.AppendBytes(b, m.Resource)
	b = binary.AppendUvarint(b, m.Floor)
	b = append(b, byte(m.Vote), byte(m.Outcome), byte(m.Knowledge), byte(m.State), byte(m.Damage))
	b = twophase.AppendFlags(b, m.Early, m.Recovered, m.MayLeave)
	b = appendBallot(appendBallot(appendBallot(b, m.Ballot), m.Elected), m.Attempt)
	b = appendParticipants(b, m.Participants)
	b = wire.AppendBytes(b, m.Reason)
	return wire.AppendBytes(b, m.Work)
}

// DecodeMessage reads a message. Work aliases b.
func DecodeMessage(b []byte) (Message, error) {
	r := twophase.NewReader(b)
	m := Message{Kind: Kind(r.Byte(byte(KindAnswer)))}
	m.ID = r.ID()
	m.Resource = string(r.Bytes(twophase.MaxResourceBytes))
	m.Floor = r.Uvarint()
	m.Vote, m.Outcome = Vote(r.Byte(byte(twophase.VoteNo))), Outcome(r.Byte(byte(aborted)))
	m.Knowledge, m.State = Knowledge(r.Byte(byte(twophase.Lost))), State(r.Byte(byte(StateAborted)))
	m.Damage = Damage(r.Byte(byte(twophase.Forgotten)))
	f := r.Byte(7)
	m.Early, m.Recovered, m.MayLeave = f&1 != 0, f&2 != 0, f&4 != 0
	m.Ballot, m.Elected, m.Attempt = readBallot(r), readBallot(r), readBallot(r)
	m.Participants = readParticipants(r)
	m.Reason = string(r.Bytes(twophase.MaxReasonBytes))
	m.Work = r.Bytes(len(b))
	if m.Kind == 0 {
		r.Fail()
	}
	return m, r.End("message")
}

// Tags of the keys of a core in its store. Each is followed by what it is about.
const (
	TagBranch   = 'b' // ID, resource: a branch that is not over for all
	TagFinished = 'f' // ID, resource: one that is
	TagHorizon  = 'h' // node, incarnation: of a coordinator
	TagDamage   = 'd' // ID, node, resource
)

func branchKey(tag byte, k key) []byte {
	return append(twophase.AppendID([]byte{tag}, k.id), k.resource...)
}

func horizonKey(o origin) []byte {
	b := binary.BigEndian.AppendUint64([]byte{TagHorizon}, o.node)
	return binary.BigEndian.AppendUint64(b, o.incarnation)
}

func damageKey(r Report) []byte {
	b := twophase.AppendID([]byte{TagDamage}, r.ID)
	return append(binary.BigEndian.AppendUint64(b, r.Node), r.Resource...)
}

func encodeBranch(e *entry) []byte {
	b := []byte{byte(e.state), byte(e.vote)}
	b = twophase.AppendFlags(b, e.done)
	b = appendBallot(appendBallot(b, e.elected), e.attempt)
	b = binary.AppendUvarint(b, uint64(e.since))
	return appendParticipants(b, e.parts)
}

func decodeBranch(node uint64, k key, b []byte) (*entry, error) {
	r := twophase.NewReader(b)
	e := &entry{key: k, state: State(r.Byte(byte(StateAborted))), vote: Vote(r.Byte(byte(twophase.VoteReadOnly)))}
	e.done = r.Byte(1) == 1
	e.elected, e.attempt = readBallot(r), readBallot(r)
	e.since = int64(r.Uvarint())
	e.parts = readParticipants(r)
	e.rank = find(e.parts, node, k.resource)
	if e.rank == 0 || e.elected.less(e.attempt) || e.done && e.state.final() == unknown {
		r.Fail()
	}
	return e, r.End("record of a branch")
}

// describe says what a record is.
func describe(k, payload []byte) string {
	r, v := twophase.NewReader(k[1:]), twophase.NewReader(payload)
	switch k[0] {
	case TagBranch:
		id, resource := r.ID(), string(r.Rest())
		state, vote := State(v.Byte(255)), Vote(v.Byte(255))
		done := v.Byte(255) == 1
		elected, attempt := readBallot(v), readBallot(v)
		s := fmt.Sprintf("branch %s %s %s", short(id), resource, state)
		if vote == twophase.VoteReadOnly {
			s += " read-only"
		}
		if state.final() == unknown {
			s += fmt.Sprintf(" elected=%v attempt=%v", elected, attempt)
		}
		if done {
			s += " done"
		}
		return s
	case TagFinished:
		id := r.ID()
		return fmt.Sprintf("finished %s %s %s", short(id), r.Rest(), Outcome(v.Byte(255)))
	case TagHorizon:
		return fmt.Sprintf("horizon of %d: floor=%d", r.Uint64(), v.Uvarint())
	default:
		return fmt.Sprintf("damage %s %d/%s %s", short(r.ID()), r.Uint64(), r.Rest(), Damage(v.Byte(255)))
	}
}

// DescribeBatch says what a batch of a core does, an operation a line.
func DescribeBatch(b *storage.Batch) (list []string) {
	for _, op := range b.Ops() {
		switch op.Kind {
		case storage.KindSet:
			payload, err := storage.OpenRecord(op.Key, op.Value)
			if err != nil {
				list = append(list, err.Error())
				continue
			}
			list = append(list, "write "+describe(op.Key, payload))
		case storage.KindDelete:
			r := twophase.NewReader(op.Key[1:])
			list = append(list, fmt.Sprintf("delete %c %s %s", op.Key[0], short(r.ID()), r.Rest()))
		}
	}
	return list
}
