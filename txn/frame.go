package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
)

// A frame is what one node sends to another at a time: a head, and messages, each behind its length.
//
//	4 bytes CRC32C of all that follows · 1 version and protocol · 8 cluster · 8 from · 8 its incarnation · 8 to · messages
const (
	frameVersion = 1 // with the protocol above it, in the upper four bits
	frameHead    = 4 + 1 + 4*8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errFrame says that a frame is none of ours.
var errFrame = errors.New("txn: malformed frame")

type address struct {
	protocol                       Protocol
	cluster, from, incarnation, to uint64
}

func clusterHash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("txn/" + name)) // never fails
	return h.Sum64()
}

func beginFrame(a address) []byte {
	b := make([]byte, 4, 256)
	b = append(b, frameVersion|byte(a.protocol)<<4)
	for _, n := range []uint64{a.cluster, a.from, a.incarnation, a.to} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func appendBody(b, body []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func sealFrame(b []byte) []byte {
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

// openFrame reads a frame. The messages alias b.
func openFrame(b []byte) (a address, bodies [][]byte, err error) {
	if len(b) < frameHead {
		return a, nil, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	if binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return a, nil, fmt.Errorf("%w: checksum mismatch", errFrame)
	}
	if b[4]&15 != frameVersion || Protocol(b[4]>>4) > SkeenThreePhase {
		return a, nil, fmt.Errorf("%w: version %d, this library reads version %d", errFrame, b[4], frameVersion)
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(b[5+8*i:]) }
	a = address{Protocol(b[4] >> 4), n(0), n(1), n(2), n(3)}
	for b = b[frameHead:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return a, nil, fmt.Errorf("%w: a message is cut", errFrame)
		}
		bodies = append(bodies, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return a, bodies, nil
}
