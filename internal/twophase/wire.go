//synod:core

package twophase

import (
	"encoding/binary"
	"errors"
	"fmt"

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

// reader takes fields off the front of a byte string. After the first failure it returns zeros.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) fail() {
	r.b, r.failed = nil, true
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) byte(limit byte) byte {
	if len(r.b) == 0 || r.b[0] > limit {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes(limit int) []byte {
	n := r.number()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) id() ID { return ID{r.fixed(), r.fixed(), r.fixed()} }

func (r *reader) branches() []Branch {
	n := r.number()
	if n > MaxParticipants {
		r.fail()
	}
	var list []Branch
	for i := uint64(0); i < n && !r.failed; i++ {
		list = append(list, Branch{Node: r.number(), Resource: string(r.bytes(MaxResourceBytes)), LastAgent: r.byte(1) == 1})
	}
	return list
}

func (r *reader) end(what string) error {
	if r.failed || len(r.b) != 0 {
		return fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	return nil
}

func appendID(b []byte, id ID) []byte {
	b = binary.BigEndian.AppendUint64(b, id.Node)
	b = binary.BigEndian.AppendUint64(b, id.Incarnation)
	return binary.BigEndian.AppendUint64(b, id.Counter)
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendBranches(b []byte, branches []Branch) []byte {
	b = binary.AppendUvarint(b, uint64(len(branches)))
	for _, p := range branches {
		b = binary.AppendUvarint(b, p.Node)
		b = appendBytes(b, p.Resource)
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
	b = appendBytes(b, m.Resource)
	b = binary.AppendUvarint(b, m.Floor)
	b = append(b, byte(m.Vote), byte(m.Outcome), byte(m.Knowledge), byte(m.Damage), flags(m.MayLeave, m.Fixed, m.Only))
	b = appendBytes(b, m.Peer)
	b = appendBranches(b, m.Branches)
	b = appendBytes(b, m.Reason)
	return appendBytes(b, m.Work)
}

// DecodeMessage reads a message. Work aliases b.
func DecodeMessage(b []byte) (Message, error) {
	r := &reader{b: b}
	m := Message{Kind: Kind(r.byte(byte(KindResult)))}
	m.ID = r.id()
	m.Resource = string(r.bytes(MaxResourceBytes))
	m.Floor = r.number()
	m.Vote, m.Outcome = Vote(r.byte(byte(VoteNo))), Outcome(r.byte(byte(OutcomeAborted)))
	m.Knowledge, m.Damage = Knowledge(r.byte(byte(Lost))), Damage(r.byte(byte(Forgotten)))
	f := r.byte(7)
	m.MayLeave, m.Fixed, m.Only = f&1 != 0, f&2 != 0, f&4 != 0
	m.Peer = string(r.bytes(MaxResourceBytes))
	m.Branches = r.branches()
	m.Reason = string(r.bytes(MaxReasonBytes))
	m.Work = r.bytes(len(r.b))
	if m.Kind == 0 {
		r.fail()
	}
	return m, r.end("message")
}

// AppendDecision appends the encoding of a decision.
func AppendDecision(b []byte, d Decision) []byte {
	b = appendID(b, d.ID)
	b = append(b, byte(d.Outcome))
	return appendBranches(b, d.Branches)
}

// DecodeDecision reads a decision.
func DecodeDecision(b []byte) (Decision, error) {
	r := &reader{b: b}
	d := Decision{ID: r.id(), Outcome: Outcome(r.byte(byte(OutcomeAborted)))}
	d.Branches = r.branches()
	if d.Outcome == OutcomeUnknown {
		r.fail()
	}
	return d, r.end("decision")
}

// AppendID appends an ID in 24 bytes, which sort as IDs do.
func AppendID(b []byte, id ID) []byte { return appendID(b, id) }

// DecodeID reads what AppendID wrote.
func DecodeID(b []byte) (ID, error) {
	r := &reader{b: b}
	id := r.id()
	return id, r.end("ID")
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
	r := &reader{b: b}
	e := &entry{key: k, stage: stage(r.byte(byte(stageCommitted))), heuristic: Outcome(r.byte(byte(OutcomeAborted))), fixed: r.byte(1) == 1}
	since, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
	} else {
		r.b = r.b[n:]
	}
	e.since = since
	e.peers = r.branches()
	if e.stage == 0 {
		r.fail()
	}
	return e, r.end("record of a branch")
}

// Record is what a record of the store says, for whoever looks at it.
func describe(k, payload []byte) string {
	switch k[0] {
	case TagBranch, TagFinished:
		r := &reader{b: k[1:]}
		id := r.id()
		if k[0] == TagFinished && len(payload) == 2 {
			return fmt.Sprintf("finished %s %s %s", shorten(id), r.b, Outcome(payload[0]))
		}
		e, err := decodeBranch(key{id, string(r.b)}, payload)
		if err != nil {
			return err.Error()
		}
		s := fmt.Sprintf("branch %s %s %s", shorten(id), e.resource, e.stage)
		if e.heuristic != OutcomeUnknown {
			s += " heuristic=" + e.heuristic.String()
		}
		return s
	case TagHorizon:
		r := &reader{b: k[1:]}
		node := r.fixed()
		v := &reader{b: payload}
		return fmt.Sprintf("horizon of %d: over=%d floor=%d read-only=%d", node, v.number(), v.number(), v.number())
	case TagDelegated:
		r := &reader{b: k[1:]}
		return "delegated " + shorten(r.id())
	default:
		r := &reader{b: k[1:]}
		return fmt.Sprintf("damage %s %d/%s %s", shorten(r.id()), r.fixed(), r.b, Damage(payload[0]))
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
			r := &reader{b: op.Key[1:]}
			list = append(list, fmt.Sprintf("delete %c %s %s", op.Key[0], shorten(r.id()), r.b))
		}
	}
	return list
}
