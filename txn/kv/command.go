//synod:core

package kv

import (
	"encoding/binary"
	"slices"

	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/wire"
)

// Limits of what a command may have, whoever makes it. Config has lower ones for this node's transactions.
const (
	maxKeyBytes   = 1 << 16
	maxValueBytes = 1 << 26
	maxItems      = 1 << 20 // of each list of a command
	maxTimestamp  = 1 << 63 // so that what is counted on from one does not overflow
)

// The commands of a machine.
const (
	opPrepare = 'p'
	opClose   = 'c'
	opResolve = 'r'
	opFinish  = 'f'
	opReserve = 's'
	opAdvance = 'a'
	opCollect = 'g'
)

// keyRange is all keys from from on, below to; to "": without an end. Its bounds may be a byte longer than a key: just behind one.
type keyRange struct{ from, to string }

func (r keyRange) has(key string) bool { return key >= r.from && (r.to == "" || key < r.to) }

type write struct {
	key     string
	value   []byte
	deleted bool
	read    bool // the key is as if it were among reads, too

	item *item // where the state has found the key when the group voted, if it looked: to be used if it is of the state's epoch
}

// expectation is what a key must have when the group votes.
type expectation struct {
	key    string
	value  []byte
	absent bool
}

// chain is all attempts of one transaction: the older goes first.
type chain struct{ age, random uint64 }

func (c chain) older(other chain) bool {
	return c.age < other.age || c.age == other.age && c.random < other.random
}

// prepare asks a group for its vote.
type prepare struct {
	id     paxoscommit.ID
	floor  uint64 // of the session
	age    uint64
	now    uint64 // the client's time
	readAt uint64 // its reads saw the group as of then
	groups []uint32

	reads    []string
	exact    []exactRead // keys that are not among reads
	ranges   []keyRange
	expected []expectation
	writes   []write // ascending by key

	told []resolution // outcomes of others, which the group is to learn before it votes
}

// exactRead is a key of which a version was read before the group had it: its transaction was certain to be committed.
type exactRead struct {
	key       string
	timestamp uint64 // the version's
}

func (p *prepare) chain() chain { return chain{p.age, p.id.Session.Random} }

// hasRead reports whether it has read something as of readAt.
func (p *prepare) hasRead() bool {
	return len(p.reads)+len(p.ranges) > 0 || slices.ContainsFunc(p.writes, func(w write) bool { return w.read })
}

// appendPrepare makes the command that asks for a vote. With those that the transaction has read ahead of its group it tells more outcomes.
func appendPrepare(b []byte, p *prepare, more ...told) []byte {
	b = append(b, opPrepare)
	b = paxoscommit.AppendID(b, p.id)
	for _, v := range [...]uint64{p.floor, p.age, p.now, p.readAt} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendPart(paxoscommit.AppendGroups(b, p.groups), p)
	b = binary.AppendUvarint(b, uint64(len(p.exact)))
	for _, e := range p.exact {
		b = binary.AppendUvarint(wire.AppendBytes(b, e.key), e.timestamp)
	}
	n := len(p.told)
	for i := range more {
		if !p.tells(more[i].id) {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i := range p.told {
		b = appendResolution(b, &p.told[i])
	}
	for i := range more {
		if !p.tells(more[i].id) {
			b = appendResolution(b, &more[i].resolution)
		}
	}
	return b
}

// tells reports whether it tells the outcome of a transaction, as what was read ahead of the group.
func (p *prepare) tells(id paxoscommit.ID) bool {
	return len(p.told) > 0 && slices.ContainsFunc(p.told, func(x resolution) bool { return x.id == id })
}

// size is about how many bytes appendPrepare appends, and not less.
func (p *prepare) size() int {
	n := 96 + 5*len(p.groups)
	for _, k := range p.reads {
		n += 5 + len(k)
	}
	for _, e := range p.exact {
		n += 15 + len(e.key)
	}
	for i := range p.told {
		n += p.told[i].size()
	}
	for _, r := range p.ranges {
		n += 10 + len(r.from) + len(r.to)
	}
	for _, e := range p.expected {
		n += 11 + len(e.key) + len(e.value)
	}
	for i := range p.writes {
		n += 12 + len(p.writes[i].key) + len(p.writes[i].value)
	}
	return n
}

func appendPart(b []byte, p *prepare) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.reads)))
	for _, k := range p.reads {
		b = wire.AppendBytes(b, k)
	}
	b = binary.AppendUvarint(b, uint64(len(p.ranges)))
	for _, r := range p.ranges {
		b = wire.AppendBytes(wire.AppendBytes(b, r.from), r.to)
	}
	b = binary.AppendUvarint(b, uint64(len(p.expected)))
	for _, e := range p.expected {
		b = appendFlagged(wire.AppendBytes(b, e.key), e.absent, e.value)
	}
	b = binary.AppendUvarint(b, uint64(len(p.writes)))
	for _, w := range p.writes {
		b = wire.AppendBytes(b, w.key)
		flags := byte(0)
		if w.deleted {
			flags |= writeDeletes
		}
		if w.read {
			flags |= writeReads
		}
		if b = append(b, flags); !w.deleted {
			b = wire.AppendBytes(b, w.value)
		}
	}
	return b
}

// What a write's flags say.
const (
	writeDeletes = 1 << iota
	writeReads
)

// appendFlagged appends a value that may be missing.
func appendFlagged(b []byte, missing bool, value []byte) []byte {
	if missing {
		return append(b, 1)
	}
	return wire.AppendBytes(append(b, 0), value)
}

func readFlagged(r *wire.Reader) (value []byte, missing bool) {
	if r.Byte(1) == 1 {
		return nil, true
	}
	return r.Bytes(maxValueBytes), false
}

// readPrepare reads what appendPrepare has written, behind the op. Values are parts of what the reader was made of, and groups may be those of like.
func readPrepare(r *wire.Reader, like []uint32) (p prepare, err error) {
	p.id = paxoscommit.ReadID(r)
	p.floor, p.age, p.now, p.readAt = r.Uvarint(), r.Uvarint(), r.Uvarint(), r.Uvarint()
	p.groups = paxoscommit.ReadGroups(r, like)
	if len(p.groups) == 0 || p.id.Counter == 0 || p.floor > p.id.Counter || p.now > maxTimestamp {
		r.Fail()
	}
	readPart(r, &p)
	for i := 1; i < len(p.writes); i++ {
		if p.writes[i].key <= p.writes[i-1].key {
			r.Fail()
		}
	}
	if n := countItems(r, 2); n > 0 {
		p.exact = make([]exactRead, 0, n)
		for range n {
			p.exact = append(p.exact, exactRead{string(r.Bytes(maxKeyBytes)), r.Uvarint()})
		}
	}
	p.told = readResolutions(r, p.groups)
	return p, r.End()
}

// countItems reads how many items of at least size bytes follow.
func countItems(r *wire.Reader, size int) int {
	n := r.Count(size)
	if n > maxItems {
		r.Fail()
		return 0
	}
	return n
}

func readPart(r *wire.Reader, p *prepare) {
	if n := countItems(r, 1); n > 0 {
		p.reads = make([]string, 0, n)
		for range n {
			p.reads = append(p.reads, string(r.Bytes(maxKeyBytes)))
		}
	}
	for range countItems(r, 2) {
		p.ranges = append(p.ranges, keyRange{string(r.Bytes(maxKeyBytes + 1)), string(r.Bytes(maxKeyBytes + 1))})
	}
	for range countItems(r, 2) {
		e := expectation{key: string(r.Bytes(maxKeyBytes))}
		e.value, e.absent = readFlagged(r)
		p.expected = append(p.expected, e)
	}
	if n := countItems(r, 2); n > 0 {
		p.writes = make([]write, 0, n)
		for range n {
			w := write{key: string(r.Bytes(maxKeyBytes))}
			flags := r.Byte(writeDeletes | writeReads)
			if w.deleted, w.read = flags&writeDeletes != 0, flags&writeReads != 0; !w.deleted {
				w.value = r.Bytes(maxValueBytes)
			}
			p.writes = append(p.writes, w)
		}
	}
}

// resolution is the outcome of a transaction, for a group that takes part.
type resolution struct {
	id        paxoscommit.ID
	outcome   paxoscommit.Outcome
	timestamp uint64 // of a commit
	groups    []uint32
}

// size is how many bytes it has in a command at most.
func (x *resolution) size() int { return 40 + 5*len(x.groups) }

func appendResolutions(b []byte, list []resolution) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = appendResolution(b, &list[i])
	}
	return b
}

func appendResolution(b []byte, x *resolution) []byte {
	b = append(paxoscommit.AppendID(b, x.id), byte(x.outcome))
	b = binary.AppendUvarint(b, x.timestamp)
	return paxoscommit.AppendGroups(b, x.groups)
}

func readResolutions(r *wire.Reader, like []uint32) []resolution {
	n := r.Count(27)
	if n == 0 {
		return nil
	}
	list := make([]resolution, 0, n)
	for range n {
		x := resolution{paxoscommit.ReadID(r), paxoscommit.Outcome(r.Byte(byte(paxoscommit.Aborted))), r.Uvarint(), paxoscommit.ReadGroups(r, like)}
		if x.timestamp > maxTimestamp || len(x.groups) == 0 {
			r.Fail()
		}
		list = append(list, x)
	}
	return list
}

func appendClose(b []byte, id paxoscommit.ID, groups []uint32, now uint64) []byte {
	b = paxoscommit.AppendGroups(paxoscommit.AppendID(append(b, opClose), id), groups)
	return binary.AppendUvarint(b, now)
}

// appendResolve makes the command that tells a group outcomes. floor is the session's of whoever tells them; 0: he has none.
func appendResolve(b []byte, session paxoscommit.Session, floor, now uint64, list []resolution) []byte {
	b = append(b, opResolve)
	b = binary.BigEndian.AppendUint64(b, session.Opened)
	b = binary.BigEndian.AppendUint64(b, session.Random)
	b = binary.AppendUvarint(b, floor)
	b = binary.AppendUvarint(b, now)
	return appendResolutions(b, list)
}

func appendFinish(b []byte, ids ...paxoscommit.ID) []byte {
	b = binary.AppendUvarint(append(b, opFinish), uint64(len(ids)))
	for _, id := range ids {
		b = paxoscommit.AppendID(b, id)
	}
	return b
}

// appendReserve makes the command that keeps keys for a chain of attempts until a timestamp; without keys, it gives up what is kept.
func appendReserve(b []byte, c chain, now, expires uint64, keys []string) []byte {
	b = append(b, opReserve)
	for _, v := range [...]uint64{c.age, c.random, now, expires, uint64(len(keys))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, k := range keys {
		b = wire.AppendBytes(b, k)
	}
	return b
}

func appendAdvance(b []byte, to uint64) []byte {
	return binary.AppendUvarint(append(b, opAdvance), to)
}

// appendCollect makes the command that removes versions that were replaced before a timestamp, and sessions that were used
// last before another one.
func appendCollect(b []byte, versions, sessions uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, opCollect), versions), sessions)
}

// The kinds of answers.
type answerKind byte

const (
	answerDone      answerKind = 'd'
	answerVote      answerKind = 'v' // the register has a vote: record
	answerBlocked   answerKind = 'b' // there is no vote: another transaction is in the way
	answerOver      answerKind = 'o' // all groups know the outcome, and this one has forgotten it
	answerExpired   answerKind = 'e' // this group has forgotten the session
	answerOverfull  answerKind = 'l' // a limit is reached
	answerMalformed answerKind = 'm'
)

// refusal says why a group has voted no.
type refusal byte

const (
	refusedNot      refusal = iota
	refusedConflict         // what was read has changed since
	refusedTooOld           // what was read may have changed: versions of then are collected
	refusedBlocked          // an older transaction is in the way: by
	refusedMismatch         // a key does not have what was expected: key
)

// answer is what a machine says of a command.
type answer struct {
	kind    answerKind
	clock   uint64 // the group's, when the command was applied
	record  paxoscommit.Record
	refused refusal
	key     string // that was in the way, or had changed

	// Of another transaction that is in the way. It has voted yes; or has only reserved a key: then the ID is none.
	by       paxoscommit.ID
	byAge    uint64
	byGroups []uint32
}

func (a answer) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, byte(a.kind)), a.clock)
	switch a.kind {
	case answerVote:
		b = append(b, byte(a.record.Vote), byte(a.record.Outcome), byte(a.refused))
		b = binary.AppendUvarint(b, a.record.Timestamp)
		b = paxoscommit.AppendGroups(b, a.record.Groups)
		if a.refused == refusedNot {
			return b
		}
	case answerBlocked:
	default:
		return b
	}
	b = wire.AppendBytes(b, a.key)
	b = paxoscommit.AppendID(b, a.by)
	b = binary.AppendUvarint(b, a.byAge)
	return paxoscommit.AppendGroups(b, a.byGroups)
}

func readAnswer(b []byte) (a answer, err error) {
	r := wire.NewReader(b)
	a.kind, a.clock = answerKind(r.Byte(255)), r.Uvarint()
	switch a.kind {
	case answerVote:
		a.record.Vote, a.record.Outcome = paxoscommit.Vote(r.Byte(byte(paxoscommit.No))), paxoscommit.Outcome(r.Byte(byte(paxoscommit.Aborted)))
		a.refused = refusal(r.Byte(byte(refusedMismatch)))
		a.record.Timestamp = r.Uvarint()
		a.record.Groups = paxoscommit.ReadGroups(&r, nil)
		if a.refused == refusedNot {
			return a, r.End()
		}
	case answerBlocked:
	case answerDone, answerOver, answerExpired, answerOverfull, answerMalformed:
		return a, r.End()
	default:
		r.Fail()
	}
	a.key = string(r.Bytes(maxKeyBytes))
	a.by = paxoscommit.ReadID(&r)
	a.byAge = r.Uvarint()
	a.byGroups = paxoscommit.ReadGroups(&r, nil)
	return a, r.End()
}
