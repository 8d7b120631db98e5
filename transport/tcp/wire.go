package tcp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	magic   = "SYND"
	version = 1

	// helloBytes is the fixed part of a dialler's handshake, replyBytes all of the answer.
	helloBytes = 4 + 1 + 1 + 8 + 8 + 8 + 1
	replyBytes = 4 + 1 + 1 + 8

	frameHeader = 8

	// growBytes is how much memory is given to a frame that has not arrived yet.
	growBytes = 1 << 20
)

type lane uint8

const (
	laneMessages lane = iota
	laneBulk
	lanes
)

// verdict is what an acceptor says to a handshake.
type verdict uint8

const (
	accepted verdict = iota
	refusedVersion
	refusedCluster
	refusedNode
	refusedIdentity
)

func (v verdict) err() error {
	switch v {
	case accepted:
		return nil
	case refusedVersion:
		return ErrVersion
	case refusedCluster:
		return ErrCluster
	case refusedNode:
		return ErrNode
	case refusedIdentity:
		return ErrCertificate
	}
	return ErrHandshake
}

// hello opens a connection.
type hello struct {
	version  byte
	lane     lane
	from, to uint64
	instance uint64 // drawn by the sending process
	cluster  string
}

func (h hello) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, h.version, byte(h.lane))
	b = binary.LittleEndian.AppendUint64(b, h.from)
	b = binary.LittleEndian.AppendUint64(b, h.to)
	b = binary.LittleEndian.AppendUint64(b, h.instance)
	b = append(b, byte(len(h.cluster)))
	return append(b, h.cluster...)
}

// readHello reads what append wrote. It reads no byte more.
func readHello(r io.Reader) (hello, error) {
	var b [helloBytes]byte
	var h hello
	// The magic number first: whoever speaks another protocol may be waiting for us.
	if _, err := io.ReadFull(r, b[:len(magic)+1]); err != nil {
		return h, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if string(b[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: it begins with %q", ErrHandshake, b[:len(magic)])
	}
	if h.version = b[4]; h.version != version {
		return h, fmt.Errorf("%w: %d, this node speaks %d", ErrVersion, h.version, version)
	}
	if _, err := io.ReadFull(r, b[len(magic)+1:]); err != nil {
		return h, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	h.lane = lane(b[5])
	h.from = binary.LittleEndian.Uint64(b[6:])
	h.to = binary.LittleEndian.Uint64(b[14:])
	h.instance = binary.LittleEndian.Uint64(b[22:])
	cluster := make([]byte, b[30])
	if _, err := io.ReadFull(r, cluster); err != nil {
		return h, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	h.cluster = string(cluster)
	if h.lane >= lanes || h.from == 0 || h.cluster == "" {
		return h, fmt.Errorf("%w: lane %d, from node %d, cluster %q", ErrHandshake, h.lane, h.from, h.cluster)
	}
	return h, nil
}

// reply answers a hello.
type reply struct {
	version byte
	verdict verdict
	node    uint64
}

func (p reply) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, p.version, byte(p.verdict))
	return binary.LittleEndian.AppendUint64(b, p.node)
}

func readReply(r io.Reader) (reply, error) {
	var b [replyBytes]byte
	var p reply
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return p, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if string(b[:len(magic)]) != magic {
		return p, fmt.Errorf("%w: the answer begins with %q", ErrHandshake, b[:len(magic)])
	}
	return reply{b[4], verdict(b[5]), binary.LittleEndian.Uint64(b[6:])}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func putFrameHeader(b []byte, payload []byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(payload, castagnoli))
}

// readFrame reads one frame. io.EOF says that there is no further one.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("%w: it ends in a header", ErrFrame)
		}
		return nil, err
	}
	size, sum := binary.LittleEndian.Uint32(header[:]), binary.LittleEndian.Uint32(header[4:])
	if uint64(size) > uint64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d (Config.MaxMessageBytes)", ErrFrame, size, limit)
	}
	payload := make([]byte, min(int(size), growBytes))
	for read := 0; ; {
		n, err := io.ReadFull(r, payload[read:])
		if read += n; err != nil {
			return nil, fmt.Errorf("%w: it ends after %d of %d bytes: %w", ErrFrame, read, size, err)
		}
		if read == int(size) {
			break
		}
		// What is claimed and has not arrived gets no memory beyond what has.
		more := make([]byte, min(int(size), 2*len(payload)))
		copy(more, payload)
		payload = more
	}
	if crc32.Checksum(payload, castagnoli) != sum {
		return nil, fmt.Errorf("%w: wrong checksum", ErrFrame)
	}
	return payload, nil
}
