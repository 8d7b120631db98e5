package multipaxos

//synod:core

import (
	"encoding/binary"
	"fmt"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// A run is the values of some consecutive slots, all accepted in one ballot, encoded once: the
// same bytes are a record in the store and the end of an accept message.
//
//	checksum  4 bytes: CRC32C of all that follows
//	version   1 byte
//	group     8 bytes
//	ballot    in which the values are accepted
//	first     the first slot
//	count
//	values    each: kind (1 byte, with a bit for an origin of its own), origin, length, data
//	padding   zeros, if the values are shorter than minValueBytes each
//
// Group and slot stand in it so that a run that turns up in the wrong place is recognised.
const (
	runVersion = 1
	runHeader  = 4 + 1 + 8

	// minValueBytes is what a value takes in a run at least, on average, so that whoever
	// opens one does not have to allocate many times what was received.
	minValueBytes = 16

	// ownOrigin is set in a value's kind if its origin is not the run's ballot.
	ownOrigin = 0x80
)

// valueKind says what a value is.
type valueKind uint8

const (
	valueGap     valueKind = iota // fills a slot for which a new leader found nothing
	valueFence                    // the first fresh value of a leader, empty
	valueCommand                  // a batch of commands
	valueConfig                   // a configuration
	valueKinds
)

// value is what is accepted, and maybe chosen, in a slot. Its identity is (slot, origin).
type value struct {
	origin Ballot // in which it was first proposed
	kind   valueKind
	data   []byte // read only; part of a run
}

// fresh reports whether the value shows where its origin began to propose values of its own:
// everything that a lower ballot may have chosen stands in lower slots.
func (v *value) fresh() bool { return v.kind != valueGap }

// valueSize is what a value counts for in the limits.
func valueSize(v *value) int { return len(v.data) + 32 }

// run is a decoded run.
type run struct {
	ballot Ballot
	first  uint64
	values []value
	bytes  []byte
}

func (r *run) last() uint64 { return r.first + uint64(len(r.values)) - 1 }

func appendRun(dst []byte, group uint64, ballot Ballot, first uint64, values []value) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, runVersion)
	dst = binary.LittleEndian.AppendUint64(dst, group)
	dst = ballot.append(dst)
	dst = binary.AppendUvarint(dst, first)
	dst = binary.AppendUvarint(dst, uint64(len(values)))
	body := len(dst)
	for i := range values {
		v := &values[i]
		if v.origin == ballot {
			dst = append(dst, byte(v.kind))
		} else {
			dst = append(dst, byte(v.kind)|ownOrigin)
			dst = v.origin.append(dst)
		}
		dst = replica.AppendBytes(dst, v.data)
	}
	for len(dst) < body+minValueBytes*len(values) {
		dst = append(dst, 0)
	}
	binary.LittleEndian.PutUint32(dst[start:], replica.Checksum(dst[start+4:]))
	return dst
}

func runSize(values []value) int {
	n := runHeader + 6*binary.MaxVarintLen64
	for i := range values {
		n += max(1+2*binary.MaxVarintLen64+1+5+len(values[i].data), minValueBytes)
	}
	return n
}

// encodeRun makes a run of values, which alias its bytes from then on.
func encodeRun(group uint64, ballot Ballot, first uint64, values []value) *run {
	b := appendRun(make([]byte, 0, runSize(values)), group, ballot, first, values)
	r, err := openRun(group, b)
	if err != nil {
		panic(fmt.Errorf("multipaxos: group %d: a run that was just made: %w", group, err))
	}
	return r
}

// openRun decodes a run. The values' data alias it.
func openRun(group uint64, b []byte) (*run, error) {
	bad := func(format string, args ...any) (*run, error) {
		return nil, &storage.CorruptError{Group: group, Reason: "run of values: " + fmt.Sprintf(format, args...)}
	}
	if len(b) < runHeader {
		return bad("%d bytes", len(b))
	}
	if replica.Checksum(b[4:]) != binary.LittleEndian.Uint32(b) && !probe.Bug("records are not checked") {
		probe.Sometimes("paxos: altered values are refused", true)
		return bad("wrong checksum")
	}
	if b[4] != runVersion {
		return bad("version %d, this release knows %d", b[4], runVersion)
	}
	if g := binary.LittleEndian.Uint64(b[5:]); g != group {
		return bad("it belongs to group %d", g)
	}
	r := replica.NewReader(b[runHeader:])
	out := &run{ballot: readBallot(r), first: r.Uvarint(), bytes: b}
	count := r.Count(minValueBytes)
	body := r.Len()
	out.values = make([]value, count)
	for i := range count {
		v := &out.values[i]
		k := r.Byte()
		v.kind, v.origin = valueKind(k&^ownOrigin), out.ballot
		if k&ownOrigin != 0 {
			v.origin = readBallot(r)
		}
		if v.data = r.Bytes(); len(v.data) == 0 {
			v.data = nil
		}
		if v.kind >= valueKinds || v.origin.IsZero() || v.origin.isChosen() || out.ballot.Less(v.origin) {
			return bad("slot %d: kind %d, origin %v", out.first+uint64(i), v.kind, v.origin)
		}
	}
	padding := r.Rest()
	if err := r.Err(); err != nil {
		return bad("%v", err)
	}
	if len(padding) > 0 && (body != count*minValueBytes || !allZero(padding)) {
		return bad("%d bytes too many", len(padding))
	}
	if count == 0 || out.first == 0 || out.first+uint64(count) < out.first || out.ballot.IsZero() {
		return bad("%d values from slot %d on, in ballot %v", count, out.first, out.ballot)
	}
	return out, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
