package replica

//synod:core

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/synod-go/synod"
)

// A batch in which somebody uses a session has a version of its own. It carries the
// clock of the leader that proposed it, by which sessions expire, and says of each
// item what it is. Commands that use no session may be among them, so that a round is
// one batch whoever comes in it.
//
//	version  1 byte
//	boot     8 bytes
//	first
//	count
//	clock    milliseconds since the leader opened the group
//	items, each a kind (1 byte), and
//	  a command without session: its length and bytes
//	  a command of a session: session (8 bytes), sequence, sequence minus floor, its length and bytes
//	  an opening: session (8 bytes), time to live in milliseconds, most sessions, most bytes of results
//	  a closing: session (8 bytes)
const sessionBatchVersion = 2

// itemOverhead is an upper bound of the bytes of an item beside a command and its
// length.
const itemOverhead = 1 + 8 + 3*binary.MaxVarintLen64

type itemKind uint8

const (
	itemPlain itemKind = iota
	itemOnce
	itemOpen
	itemClose
)

// item says what a call wants done with its command.
type item struct {
	kind    itemKind
	request synod.Request // a closing and an opening: the session
	millis  uint64        // of an opening: its time to live
}

// maxSequence is the highest number of a command, so that sums do not overflow.
const maxSequence = math.MaxUint64 / 2

// checkRequest holds a request against what a batch can carry, and completes it.
func checkRequest(r *synod.Request) error {
	if r.Floor == 0 {
		r.Floor = 1
	}
	switch {
	case r.Session == 0:
		return fmt.Errorf("%w: Session is 0: open one with OpenSession", synod.ErrInvalidRequest)
	case r.Sequence == 0 || r.Sequence > maxSequence:
		return fmt.Errorf("%w: Sequence is %d: number the commands from 1 on", synod.ErrInvalidRequest, r.Sequence)
	case r.Floor > r.Sequence:
		return fmt.Errorf("%w: Floor %d is above Sequence %d: this command has no answer yet", synod.ErrInvalidRequest, r.Floor, r.Sequence)
	case r.Sequence-r.Floor >= synod.SessionWindow:
		return fmt.Errorf("%w: Sequence %d is %d or more above Floor %d: wait for answers, and raise Floor", synod.ErrInvalidRequest,
			r.Sequence, synod.SessionWindow, r.Floor)
	}
	return nil
}

func appendSessionBatchHeader(dst []byte, boot, first uint64, count int, clock uint64) []byte {
	dst = append(dst, sessionBatchVersion)
	dst = binary.LittleEndian.AppendUint64(dst, boot)
	dst = binary.AppendUvarint(dst, first)
	dst = binary.AppendUvarint(dst, uint64(count))
	return binary.AppendUvarint(dst, clock)
}

// readSessionBatchHeader takes the header off b; the items are left in the reader.
func readSessionBatchHeader(r *Reader) (h batchHeader, clock uint64, err error) {
	if v := r.Byte(); v != sessionBatchVersion {
		r.fail()
		return h, 0, r.err
	}
	h = batchHeader{boot: r.Uint64(), first: r.Uvarint()}
	h.count = r.Count(2)
	clock = r.Uvarint()
	return h, clock, r.err
}

// sessionItem is an item as it stands in a batch.
type sessionItem struct {
	item
	command               []byte
	sessions, resultBytes uint64 // of an opening: limits
}

func (i *sessionItem) append(dst []byte) []byte {
	dst = append(dst, byte(i.kind))
	if i.kind != itemPlain {
		dst = binary.LittleEndian.AppendUint64(dst, i.request.Session)
	}
	switch i.kind {
	case itemOnce:
		dst = binary.AppendUvarint(dst, i.request.Sequence)
		dst = binary.AppendUvarint(dst, i.request.Sequence-i.request.Floor)
	case itemOpen:
		dst = binary.AppendUvarint(dst, i.millis)
		dst = binary.AppendUvarint(dst, i.sessions)
		return binary.AppendUvarint(dst, i.resultBytes)
	case itemClose:
		return dst
	}
	return AppendBytes(dst, i.command)
}

// readSessionItem reads an item; its command aliases the reader's bytes.
func readSessionItem(r *Reader) (i sessionItem) {
	i.kind = itemKind(r.Byte())
	if i.kind != itemPlain {
		i.request.Session = r.Uint64()
	}
	switch i.kind {
	case itemPlain:
		i.command = r.Bytes()
	case itemOnce:
		i.request.Sequence = r.Uvarint()
		i.request.Floor = i.request.Sequence - r.Uvarint()
		i.command = r.Bytes()
		// A floor of 0 is never written.
		if floor := i.request.Floor; checkRequest(&i.request) != nil || floor == 0 {
			r.fail()
		}
	case itemOpen:
		i.millis, i.sessions, i.resultBytes = r.Uvarint(), r.Uvarint(), r.Uvarint()
		if i.millis > maxSessionMillis || i.sessions > maxSessions || i.resultBytes > maxSessionBytes {
			r.fail()
		}
	case itemClose:
	default:
		r.fail()
	}
	return i
}
