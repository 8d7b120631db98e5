package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/transport"
)

// A frame is what one node sends to another in one round, for all groups of an
// event loop together:
//
//	version       1 byte
//	kind          1 byte: what the messages are
//	cluster       8 bytes: hash of the names of the cluster and of the protocol
//	from, to      8 bytes each
//	incarnation   8 bytes: the sender's
//	expected      8 bytes: the receiver's, as the sender durably remembers it; 0: it does not
//	run           8 bytes each: number and name of the sender's run, the commits before it
//	progress      8 bytes: the sender's commits
//	expected run  8 bytes: number of the receiver's run, as the sender durably remembers it
//	messages      each: group, length, bytes
//	checksum      4 bytes: CRC32C of all that
//
// The sender stands in the frame although the transport names it too, and the
// checksum although TCP has one: a transport may be a user's own, and a message
// that strays must not count anywhere. The messages of two protocols can look alike: a
// node that was given the wrong one is a stranger, like one of another cluster.
const (
	frameVersion = 1
	frameHeader  = 2 + 10*8
	frameTrailer = 4

	// frameTarget is the size from which on a frame is sent before its round is over.
	frameTarget = 1 << 20
)

type frameKind uint8

const (
	frameCore frameKind = iota + 1 // messages of cores
	frameChunk
	frameChunkAck
	frameHello // asks whether the receiver remembers the sender's incarnation
	frameMet   // says so, as the header of any frame does
	frameStale // says that a run of the receiver is not listened to
	frameLost  // asks whether the sender still is a member of groups
	frameGone  // says that the receiver is no member of a group any more
	frameNeed  // asks for what a damaged log lacks
	frameGive  // answers that
)

// Errors of a frame that is refused.
var (
	errFrame       = errors.New("replica: malformed frame")
	ErrStray       = errors.New("replica: frame of another cluster, of another engine or for another node")
	ErrIncarnation = errors.New("replica: node has another incarnation than before: its disk was wiped or replaced, or two nodes run under one ID")
)

func clusterHash(name, protocol string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write([]byte(protocol))
	return h.Sum64()
}

type frameAddress struct {
	cluster     uint64
	from, to    uint64
	incarnation uint64
	expected    uint64
	run         run
	progress    uint64
	expectedRun uint64
}

// expectedIs reports whether the sender does not mean another incarnation.
func (a frameAddress) expectedIs(incarnation uint64) bool {
	return a.expected == 0 || a.expected == incarnation
}

func appendFrameHeader(dst []byte, kind frameKind, a frameAddress) []byte {
	dst = append(dst, frameVersion, byte(kind))
	for _, v := range [...]uint64{a.cluster, a.from, a.to, a.incarnation, a.expected, a.run.number, a.run.name, a.run.base, a.progress, a.expectedRun} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// appendFrameMessage adds one message, which is head followed by tail.
func appendFrameMessage(dst []byte, group uint64, head, tail []byte) []byte {
	return append(appendMessageHead(dst, group, head, tail), tail...)
}

// appendMessageHead adds what stands in front of the tail.
func appendMessageHead(dst []byte, group uint64, head, tail []byte) []byte {
	dst = binary.AppendUvarint(dst, group)
	dst = binary.AppendUvarint(dst, uint64(len(head)+len(tail)))
	return append(dst, head...)
}

func sealFrame(dst []byte) []byte {
	return binary.LittleEndian.AppendUint32(dst, Checksum(dst))
}

// frameCapacity is what to allocate for a frame with so many bytes of messages.
func frameCapacity(messages int) int {
	return frameHeader + messages + frameTrailer + transport.Overhead
}

// openFrame checks a frame and returns its messages, which are still to be split.
func openFrame(b []byte) (kind frameKind, a frameAddress, messages []byte, err error) {
	if len(b) < frameHeader+frameTrailer {
		return 0, a, nil, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	}
	body, trailer := b[:len(b)-frameTrailer], b[len(b)-frameTrailer:]
	if Checksum(body) != binary.LittleEndian.Uint32(trailer) && !probe.Bug("frames are not checked") {
		probe.Sometimes("replica: an altered frame is refused", true)
		return 0, a, nil, fmt.Errorf("%w: wrong checksum", errFrame)
	}
	if body[0] != frameVersion {
		return 0, a, nil, fmt.Errorf("%w: version %d, this node speaks %d", errFrame, body[0], frameVersion)
	}
	kind = frameKind(body[1])
	if kind < frameCore || kind > frameGive {
		return 0, a, nil, fmt.Errorf("%w: kind %d", errFrame, kind)
	}
	for i, v := range [...]*uint64{&a.cluster, &a.from, &a.to, &a.incarnation, &a.expected, &a.run.number, &a.run.name, &a.run.base, &a.progress, &a.expectedRun} {
		*v = binary.LittleEndian.Uint64(body[2+8*i:])
	}
	return kind, a, body[frameHeader:], nil
}

// frameMessage is one message of a frame that was received.
type frameMessage struct {
	group uint64
	body  []byte
}

// MinMessage is the size of the shortest message that a core or a transfer sends.
// Shorter ones are refused, or a frame of them would take many times its size.
const MinMessage = 8

// messageCost is what a message is counted for beyond its bytes.
const messageCost = 32

// nextFrameMessage takes the next message off a frame's messages.
func nextFrameMessage(b []byte) (m frameMessage, rest []byte, err error) {
	r := Reader{b: b}
	m.group = r.Uvarint()
	m.body = r.Bytes()
	if r.err != nil || len(m.body) < MinMessage {
		return m, nil, errFrame
	}
	return m, r.b, nil
}
