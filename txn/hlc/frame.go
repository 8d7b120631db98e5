package hlc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/transport"
)

// A frame asks a peer for its time, or answers:
//
//	4 bytes CRC32C of all that follows · 1 version · 1 kind · 8 number of the question · of an answer, 8 nanoseconds since 1970
type frame struct {
	kind   byte
	number uint64
	time   int64 // of an answer: what the clock on the wall of whoever answers shows
}

const (
	frameVersion   = 1
	frameBytes     = 4 + 1 + 1 + 8
	kindQuestion   = 'q'
	kindAnswer     = 'a'
	answerBytes    = frameBytes + 8
	frameSumOffset = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFrame says that a frame is none of ours.
var errFrame = errors.New("hlc: malformed frame")

func (f frame) encode() []byte {
	b := make([]byte, frameSumOffset, answerBytes+transport.Overhead)
	b = append(b, frameVersion, f.kind)
	b = binary.BigEndian.AppendUint64(b, f.number)
	if f.kind == kindAnswer {
		b = binary.BigEndian.AppendUint64(b, uint64(f.time))
	}
	return seal(b)
}

func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[frameSumOffset:], castagnoli))
	return b
}

func decode(b []byte) (f frame, err error) {
	if len(b) < frameBytes {
		return f, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	if binary.BigEndian.Uint32(b) != crc32.Checksum(b[frameSumOffset:], castagnoli) && !probe.Bug("hlc: a damaged frame is believed") {
		return f, fmt.Errorf("%w: checksum mismatch", errFrame)
	}
	if b[4] != frameVersion {
		return f, fmt.Errorf("%w: version %d, this library reads version %d", errFrame, b[4], frameVersion)
	}
	f = frame{kind: b[5], number: binary.BigEndian.Uint64(b[6:])}
	switch {
	case f.kind == kindQuestion && len(b) == frameBytes:
		return f, nil
	case f.kind == kindAnswer && len(b) == answerBytes:
		if t := binary.BigEndian.Uint64(b[frameBytes:]); t <= maxTime {
			f.time = int64(t)
			return f, nil
		}
		return f, fmt.Errorf("%w: a time after 2116", errFrame)
	}
	return f, fmt.Errorf("%w: kind %d, %d bytes", errFrame, f.kind, len(b))
}
