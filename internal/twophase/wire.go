//synod:core

package twophase

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/storage"
)

// Limits of what is decoded.
const (
	MaxResourceBytes = 255     // of a resource's name
	MaxReasonBytes   = 1 << 10 // of a reason that is sent
	MaxParticipants  = 1 << 10 // of a transaction
)

// ErrMalformed says that a message or a record is none.
var ErrMalformed = errors.New("twophase: malformed")

func (r *Reader) branches() []Branch {
	n := r.Uvarint()
	if n > MaxParticipants {
		r.Fail()
	}
	var list []Branch
	for i := uint64(0); i < n && !r.Failed(); i++ {
		list = append(list, Branch{Node: r.Uvarint(), Resource: string(r.Bytes(MaxResourceBytes)), LastAgent: r.Byte(1) == 1})
	}
	return list
}

func appendID(b []byte, id ID) []byte {
	b = binary.BigEndian.AppendUint64(b, id.Node)
	b = binary.BigEndian.AppendUint64(b, id.Incarnation)
	return binary.BigEndian.AppendUint64(b, id.Counter)
}

func appendBranches(b []byte, branches []Branch) []byte {
	b = binary.AppendUvarint(b, uint64(len(branches)))
	for _, p := range branches {
		b = binary.AppendUvarint(b, p.Node)
		b = wire.AppendBytes(b, p.Resource)
		b = append(b, flags(p.LastAgent))
	}
	return b
}

func flags(list ...bool) (b byte) {
	for i, f := range list {
		if f {
			b |= 1 << i
		}
	}
	return b
}

// AppendMessage appends the encoding of a message, without From and To, which the frame has.
func AppendMessage(b []byte, m Message) []byte {
	b = append(b, byte(m.Kind))
	b = appendID(b, m.ID)
	b = wire.AppendBytes(b, m.Resource)
	b = binary.AppendUvarint(b, m.Floor)
	b = append(b, byte(m.Vote), byte(m.Outcome), byte(m.Knowledge), byte(m.Damage), flags(m.MayLeave, m.Fixed, m.Only))
	b = wire.AppendBytes(b, m.Peer)
	b = appendBranches(b, m.Branches)
	b = wire.AppendBytes(b, m.Reason)
	return wire.AppendBytes(b, m.Work)
}

// DecodeMessage reads a message. Work aliases b.
func DecodeMessage(b []byte) (Message, error) {
	r := NewReader(b)
	m := Message{Kind: Kind(r.Byte(byte(KindResult)))}
	m.ID = r.ID()
	m.Resource = string(r.Bytes(MaxResourceBytes))
	m.Floor = r.Uvarint()
	m.Vote, m.Outcome = Vote(r.Byte(byte(VoteNo))), Outcome(r.Byte(byte(OutcomeAborted)))
	m.Knowledge, m.Damage = Knowledge(r.Byte(byte(Lost))), Damage(r.Byte(byte(Forgotten)))
	f := r.Byte(7)
	m.MayLeave, m.Fixed, m.Only = f&1 != 0, f&2 != 0, f&4 != 0
	m.Peer = string(r.Bytes(MaxResourceBytes))
	m.Branches = r.branches()
	m.Reason = string(r.Bytes(MaxReasonBytes))
	m.Work = r.Bytes(r.Len())
	if m.Kind == 0 {
		r.Fail()
	}
	return m, r.End("message")
}

// AppendDecision appends the encoding of a decision.
func AppendDecision(b []byte, d Decision) []byte {
	b = appendID(b, d.ID)
	b = append(b, byte(d.Outcome))
	return appendBranches(b, d.Branches)
}

// DecodeDecision reads a decision.
func DecodeDecision(b []byte) (Decision, error) {
	r := NewReader(b)
	d := Decision{ID: r.ID(), Outcome: Outcome(r.Byte(byte(OutcomeAborted)))}
	d.Branches = r.branches()
	if d.Outcome == OutcomeUnknown {
		r.Fail()
	}
	return d, r.End("decision")
}

// AppendID appends an ID in 24 bytes, which sort as IDs do.
func AppendID(b []byte, id ID) []byte { return appendID(b, id) }

// DecodeID reads what AppendID wrote.
func DecodeID(b []byte) (ID, error) {
	r := NewReader(b)
	id := r.ID()
	return id, r.End("ID")
}

// Tags of the keys of a core in its store. Each is followed by what it is about.
const (
	TagBranch    = 'b' // ID, resource: a branch that is not over
	TagFinished  = 'f' // ID, resource: one that is
	TagHorizon   = 'h' // node, incarnation: of a coordinator
	TagDelegated = 'l' // ID: a transaction whose last agent was asked
	TagDamage    = 'd' // ID, node, resource
)

func branchKey(tag byte, k key) []byte { return append(appendID([]byte{tag}, k.id), k.resource...) }

func horizonKey(o origin) []byte {
	b := binary.BigEndian.AppendUint64([]byte{TagHorizon}, o.node)
	return binary.BigEndian.AppendUint64(b, o.incarnation)
}

func delegatedKey(id ID) []byte { return appendID([]byte{TagDelegated}, id) }

func damageKey(r Report) []byte {
	b := appendID([]byte{TagDamage}, r.ID)
	return append(binary.BigEndian.AppendUint64(b, r.Node), r.Resource...)
}

// stage is what the record of a branch says.
type stage uint8

const (
	stagePrepared  stage = iota + 1
	stageStarted         // the resource was asked to commit in one phase
	stageCommitted       // it is to commit: it was the only one, and has prepared
)

func (s stage) String() string { return name(int(s), "unknown", "prepared", "started", "committed") }

func encodeBranch(e *entry) []byte {
	b := []byte{byte(e.stage), byte(e.heuristic), flags(e.fixed)}
	b = binary.AppendVarint(b, e.since)
	return appendBranches(b, e.peers)
}

func decodeBranch(k key, b []byte) (*entry, error) {
	r := NewReader(b)
	e := &entry{key: k, stage: stage(r.Byte(byte(stageCommitted))), heuristic: Outcome(r.Byte(byte(OutcomeAborted))), fixed: r.Byte(1) == 1}
	e.since = r.Varint()
	e.peers = r.branches()
	if e.stage == 0 {
		r.Fail()
	}
	return e, r.End("record of a branch")
}

// Record is what a record of the store says, for whoever looks at it.
func describe(k, payload []byte) string {
	switch k[0] {
	case TagBranch, TagFinished:
		r := NewReader(k[1:])
		id := r.ID()
		if k[0] == TagFinished && len(payload) == 2 {
			return fmt.Sprintf("finished %s %s %s", shorten(id), r.Rest(), Outcome(payload[0]))
		}
		e, err := decodeBranch(key{id, string(r.Rest())}, payload)
		if err != nil {
			return err.Error()
		}
		s := fmt.Sprintf("branch %s %s %s", shorten(id), e.resource, e.stage)
		if e.heuristic != OutcomeUnknown {
			s += " heuristic=" + e.heuristic.String()
		}
		return s
	case TagHorizon:
		r := NewReader(k[1:])
		node := r.Uint64()
		v := NewReader(payload)
		return fmt.Sprintf("horizon of %d: over=%d floor=%d read-only=%d", node, v.Uvarint(), v.Uvarint(), v.Uvarint())
	case TagDelegated:
		r := NewReader(k[1:])
		return "delegated " + shorten(r.ID())
	default:
		r := NewReader(k[1:])
		return fmt.Sprintf("damage %s %d/%s %s", shorten(r.ID()), r.Uint64(), r.Rest(), Damage(payload[0]))
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
			r := NewReader(op.Key[1:])
			list = append(list, fmt.Sprintf("delete %c %s %s", op.Key[0], shorten(r.ID()), r.Rest()))
		}
	}
	return list
}
