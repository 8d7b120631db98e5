package multipaxos

//synod:core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/synod-go/synod/internal/replica"
)

// messageKind says what a message is. Sender and receiver stand in the frame around it.
type messageKind uint8

const (
	kindCanvass   messageKind = iota + 1 // would you promise, if I asked?
	kindCanvassed                        // the answer: yes, or whom I follow
	kindPrepare                          // phase 1a: promise, and tell what you accepted from a slot on
	kindPromise                          // phase 1b: one piece of it
	kindAccept                           // phase 2a: a run
	kindHeartbeat                        // an accept without values
	kindAccepted                         // phase 2b: what is accepted and durable; the answer to both
	kindRefused                          // I have promised a higher ballot
	kindLearn                            // tell me what is chosen, from a slot on
	kindLearned                          // some of it
	kindRead                             // a read's question to the leader
	kindReadIndex                        // its answer
	kindLook                             // a read's question to everybody, while nobody leads
	kindLooked                           // the answer
	kindTakeOver                         // the leader asks for a successor
	kindSnapshot                         // a snapshot was received: begin after it
	messageKinds
)

func (k messageKind) String() string {
	names := [...]string{"none", "canvass", "canvassed", "prepare", "promise", "accept", "heartbeat", "accepted", "refused",
		"learn", "learned", "read", "read index", "look", "looked", "take over", "snapshot"}
	if int(k) >= len(names) {
		k = 0
	}
	return names[k]
}

// slots is a range of slots. Ballot, in a promise, is up to which the sender does not know what
// it accepted there.
type slots struct {
	first, last uint64
	ballot      Ballot
}

// message is any message. A kind uses the fields that fields names.
type message struct {
	kind     messageKind
	flag     bool           // canvassed: yes; promise: this was the last piece; prepare: by order of the leader (authority)
	ballot   Ballot         // prepare, promise, accept, heartbeat, accepted, take over: the leader's or candidate's; canvassed, refused: what was promised
	fence    Ballot         // promise: the highest origin of a fresh value up to decided
	other    Ballot         // prepare: authority; promise: what is lost up to; canvassed: that of whom I follow
	quorums  uint32         // the hash of them
	number   uint64         // canvass: attempt; heartbeat, accept, accepted: round of heartbeats
	from     uint64         // prepare, promise, learn: first slot asked for
	next     uint64         // promise: go on from here
	decided  uint64         // all slots up to here are chosen, and can be fetched from the sender (accept, heartbeat: are chosen)
	conf     uint64         // promise: the slot of the configuration at decided
	through  uint64         // accepted: all slots up to here are chosen or accepted in ballot; heartbeat: the receiver has said so of these; looked: the last accepted one
	ranges   []slots        // accepted: more of them; promise: unknown slots
	id       replica.ReadID // read, read index, look, looked
	position replica.Position
	config   []byte
	runs     []*run // accept, learned: one or none; promise: some
}

const (
	hasBallot = 1 << iota
	hasOther
	hasQuorums
	hasNumber
	hasFrom
	hasNext
	hasDecided
	hasConf
	hasThrough
	hasRanges
	hasBallots // in the ranges
	hasID
	hasPosition
	hasRuns
	hasRun // one, as the rest of the message
	hasFence
)

// fields says which fields a kind has, in the order of the constants.
func (k messageKind) fields() int {
	switch k {
	case kindCanvass:
		return hasQuorums | hasNumber
	case kindCanvassed:
		return hasBallot | hasOther | hasNumber | hasDecided
	case kindPrepare:
		return hasBallot | hasOther | hasQuorums | hasFrom
	case kindPromise:
		return hasBallot | hasFence | hasOther | hasFrom | hasNext | hasDecided | hasConf | hasRanges | hasBallots | hasRuns
	case kindAccept:
		return hasBallot | hasQuorums | hasNumber | hasDecided | hasRun
	case kindHeartbeat:
		return hasBallot | hasQuorums | hasNumber | hasDecided | hasThrough
	case kindAccepted:
		return hasBallot | hasNumber | hasDecided | hasThrough | hasRanges
	case kindRefused, kindTakeOver:
		return hasBallot
	case kindLearn:
		return hasFrom
	case kindLearned:
		return hasFrom | hasDecided | hasRun
	case kindRead, kindLook:
		return hasID
	case kindReadIndex:
		return hasID | hasThrough
	case kindLooked:
		return hasID | hasDecided | hasThrough
	case kindSnapshot:
		return hasPosition
	}
	return 0
}

// Limits of a message.
const (
	maxRanges = 8   // of an accepted
	maxRuns   = 256 // of a promise

	// maxOpen is how far beyond what is decided somebody may have accepted something. Leaders are kept far
	// below by what their peers, and undecided values, may take in memory; what is beyond would have to be
	// filled by the next leader, slot by slot.
	maxOpen = 1 << 26

	// maxSlot is further than any log gets, so that there is a slot after each that is named.
	maxSlot = 1 << 62
)

var errMessage = errors.New("paxos: malformed message")

// append encodes a message, but for the run of an accept, which follows. Ready pads one that no run
// follows with zeros, to replica.MinMessage.
func (m *message) append(dst []byte) []byte {
	var flag byte
	if m.flag {
		flag = 1
	}
	dst = append(dst, byte(m.kind), flag)
	has := m.kind.fields()
	if has&hasBallot != 0 {
		dst = m.ballot.append(dst)
	}
	if has&hasFence != 0 {
		dst = m.fence.append(dst)
	}
	if has&hasOther != 0 {
		dst = m.other.append(dst)
	}
	if has&hasQuorums != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.quorums))
	}
	for _, f := range [...]struct {
		bit   int
		value uint64
	}{{hasNumber, m.number}, {hasFrom, m.from}, {hasNext, m.next}, {hasDecided, m.decided}, {hasConf, m.conf}, {hasThrough, m.through}} {
		if has&f.bit != 0 {
			dst = binary.AppendUvarint(dst, f.value)
		}
	}
	if has&hasRanges != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.ranges)))
		for _, r := range m.ranges {
			dst = binary.AppendUvarint(dst, r.first)
			dst = binary.AppendUvarint(dst, r.last-r.first)
			if has&hasBallots != 0 {
				dst = r.ballot.append(dst)
			}
		}
	}
	if has&hasID != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, m.id.Boot)
		dst = binary.AppendUvarint(dst, m.id.Attempt)
	}
	if has&hasPosition != 0 {
		dst = appendPosition(dst, m.position)
		dst = replica.AppendBytes(dst, m.config)
	}
	if has&hasRuns != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.runs)))
		for _, r := range m.runs {
			dst = replica.AppendBytes(dst, r.bytes)
		}
	}
	return dst
}

// holdsRun reports whether a message looks like one whose values are kept.
func holdsRun(b []byte) bool {
	return len(b) > runHeader && (messageKind(b[0]) == kindAccept || messageKind(b[0]) == kindLearned || messageKind(b[0]) == kindPromise)
}

// decodeMessage decodes what append and a run make up. The message aliases b. Only what a
// correct peer may say is let through.
func decodeMessage(group, sender uint64, b []byte) (*message, error) {
	r := replica.NewReader(b)
	m := &message{kind: messageKind(r.Byte())}
	flag := r.Byte()
	m.flag = flag == 1
	has := m.kind.fields()
	bad := func(format string, args ...any) (*message, error) {
		return nil, fmt.Errorf("%w: %v: %s", errMessage, m.kind, fmt.Sprintf(format, args...))
	}
	if m.kind == 0 || m.kind >= messageKinds || flag > 1 {
		return bad("kind %d, flag %d", m.kind, flag)
	}
	if has&hasBallot != 0 {
		m.ballot = readBallot(r)
	}
	if has&hasFence != 0 {
		m.fence = readBallot(r)
	}
	if has&hasOther != 0 {
		m.other = readBallot(r)
	}
	if has&hasQuorums != 0 {
		q := r.Uvarint()
		if q > 1<<32-1 {
			return bad("quorums %x", q)
		}
		m.quorums = uint32(q)
	}
	for _, f := range [...]struct {
		bit   int
		value *uint64
	}{{hasNumber, &m.number}, {hasFrom, &m.from}, {hasNext, &m.next}, {hasDecided, &m.decided}, {hasConf, &m.conf}, {hasThrough, &m.through}} {
		if has&f.bit != 0 {
			*f.value = r.Uvarint()
		}
	}
	if has&hasRanges != 0 {
		n := r.Count(2)
		if n > maxRanges && m.kind != kindPromise {
			return bad("%d ranges", n)
		}
		var before uint64
		for range n {
			s := slots{first: r.Uvarint()}
			s.last = s.first + r.Uvarint()
			if has&hasBallots != 0 {
				s.ballot = readBallot(r)
			}
			if s.first <= before || s.last < s.first {
				return bad("slots %d to %d after %d", s.first, s.last, before)
			}
			m.ranges, before = append(m.ranges, s), s.last
		}
	}
	if has&hasID != 0 {
		m.id = replica.ReadID{Boot: r.Uint64(), Attempt: r.Uvarint()}
	}
	if has&hasPosition != 0 {
		m.position = readPosition(r)
		m.config = append([]byte(nil), r.Bytes()...)
	}
	var encoded [][]byte
	if has&hasRuns != 0 {
		n := r.Count(runHeader)
		if n > maxRuns {
			return bad("%d runs", n)
		}
		for range n {
			encoded = append(encoded, r.Bytes())
		}
	}
	if r.Len() > 0 && len(b) == replica.MinMessage { // too short for a run
		if !allZero(r.Rest()) {
			return bad("its padding is not empty")
		}
	} else if has&hasRun != 0 && r.Len() > 0 {
		encoded = append(encoded, r.Rest())
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("%w: %v: %w", errMessage, m.kind, err)
	}
	for _, e := range encoded {
		run, err := openRun(group, e)
		if err != nil {
			return nil, fmt.Errorf("%w: %v: %w", errMessage, m.kind, err)
		}
		m.runs = append(m.runs, run)
	}
	for _, slot := range [...]uint64{m.from, m.next, m.decided, m.conf, m.through, m.position.Index} {
		if slot > maxSlot {
			return bad("slot %d", slot)
		}
	}
	if n := len(m.ranges); n > 0 && m.ranges[n-1].last > maxSlot {
		return bad("slot %d", m.ranges[n-1].last)
	}
	for _, run := range m.runs {
		if run.last() > maxSlot {
			return bad("slot %d", run.last())
		}
	}
	open := func(slot uint64) bool { return slot > m.decided && slot-m.decided > maxOpen }
	for _, ballot := range [...]Ballot{m.ballot, m.other, m.fence, fenceAt(m.position)} {
		if ballot.Round > maxRound || ballot.Round == 0 && !ballot.IsZero() {
			return bad("ballot %v", ballot)
		}
	}
	switch m.kind {
	case kindPrepare, kindAccept, kindHeartbeat, kindTakeOver:
		if m.ballot.Node != sender || m.ballot.Round == 0 {
			return bad("ballot %v of node %d", m.ballot, sender)
		}
	}
	if m.flag && m.kind != kindCanvassed && m.kind != kindPrepare && m.kind != kindPromise {
		return bad("flag")
	}
	switch m.kind {
	case kindPrepare, kindPromise, kindLearn:
		if m.from == 0 {
			return bad("no slot")
		}
	case kindAccept:
		if len(m.runs) != 1 || m.runs[0].ballot != m.ballot || open(m.runs[0].last()) {
			return bad("not one run in its ballot, or far beyond what is decided")
		}
	case kindLearned:
		if len(m.runs) > 0 && (!m.runs[0].ballot.isChosen() || m.runs[0].first != m.from || m.runs[0].last() > m.decided) {
			return bad("its run is not what was asked for")
		}
	case kindSnapshot:
		c, err := replica.DecodeConfiguration(m.config)
		if err != nil || len(c.Members) == 0 || m.position.Index == 0 {
			return bad("its description can't be read")
		}
	}
	if m.kind == kindPromise {
		if !m.flag && m.next <= m.from {
			return bad("piece from slot %d to %d", m.from, m.next)
		}
		next := m.from
		for _, run := range m.runs {
			if run.first < next || !m.flag && run.last() >= m.next || !run.ballot.isChosen() && m.ballot.Less(run.ballot) || open(run.last()) {
				return bad("run from slot %d on, in ballot %v", run.first, run.ballot)
			}
			next = run.last() + 1
		}
		if n := len(m.ranges); n > 0 && open(m.ranges[n-1].last) {
			return bad("it does not know slot %d", m.ranges[n-1].last)
		}
	}
	return m, nil
}

// Describe shows a message to people, in one line.
func Describe(group, sender uint64, b []byte) string {
	m, err := decodeMessage(group, sender, b)
	if err != nil {
		return err.Error()
	}
	return m.String()
}

func (m *message) String() string {
	var s strings.Builder
	s.WriteString(strings.ReplaceAll(m.kind.String(), " ", "-"))
	has := m.kind.fields()
	add := func(bit int, format string, args ...any) {
		if has&bit != 0 {
			fmt.Fprintf(&s, " "+format, args...)
		}
	}
	if m.flag {
		s.WriteString(map[messageKind]string{kindCanvassed: " yes", kindPrepare: " by-order", kindPromise: " last"}[m.kind])
	}
	add(hasBallot, "ballot=%v", m.ballot)
	if !m.other.IsZero() {
		add(hasOther, "other=%v", m.other)
	}
	if m.quorums != 0 {
		add(hasQuorums, "quorums=%x", m.quorums)
	}
	add(hasNumber, "number=%d", m.number)
	add(hasFrom, "from=%d", m.from)
	if m.next != 0 {
		add(hasNext, "next=%d", m.next)
	}
	add(hasDecided, "decided=%d", m.decided)
	if m.conf != 0 {
		add(hasConf, "conf=%d", m.conf)
	}
	if !m.fence.IsZero() {
		add(hasFence, "fence=%v", m.fence)
	}
	add(hasThrough, "through=%d", m.through)
	for _, r := range m.ranges {
		add(hasRanges, "%d-%d", r.first, r.last)
		add(hasBallots, "unknown-up-to=%v", r.ballot)
	}
	add(hasID, "id=%d", m.id.Attempt)
	add(hasPosition, "index=%d fence=%v", m.position.Index, fenceAt(m.position))
	for _, r := range m.runs {
		for i := range r.values {
			fmt.Fprintf(&s, " %d:%v", r.first+uint64(i), describeValue(r.ballot, &r.values[i]))
		}
	}
	return s.String()
}

// describeValue shows a value as kind or data, with the ballot in which it is accepted and its
// origin where that is another. It is one word.
func describeValue(ballot Ballot, v *value) string {
	what := [...]string{"gap", "fence", "", "config"}[v.kind]
	if v.kind == valueCommand {
		what = strings.ReplaceAll(fmt.Sprintf("%q", v.data), " ", "_")
	}
	if len(what) > 40 {
		what = what[:37] + "..."
	}
	if v.kind == valueConfig {
		what += "(?)"
		if conf, err := replica.DecodeConfiguration(v.data); err == nil {
			what = "config(" + strings.ReplaceAll(conf.String(), " ", ";") + ")"
		}
	}
	what += "@" + ballot.String()
	if v.origin != ballot {
		what += "/" + v.origin.String()
	}
	return what
}
