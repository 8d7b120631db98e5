package tcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Hello and answer travel in an envelope that stays the same in all versions:
//
//	magic     8 bytes
//	version   2 bytes
//	length    2 bytes, of the body
//	body
//	checksum  4 bytes, CRC32C of all that precedes
const (
	magic        = "synod\r\n\x00"
	version      = 1
	prefixBytes  = len(magic) + 4
	maxBodyBytes = 512
	sumBytes     = 4
)

// laneKind tells the two connections between a pair of nodes apart.
type laneKind uint8

const (
	messageLane laneKind = iota
	bulkLane
	lanes
)

func (k laneKind) String() string {
	if k == bulkLane {
		return "bulk"
	}
	return "messages"
}

// hello is the dialler's first word.
type hello struct {
	lane     laneKind
	sender   uint64
	receiver uint64 // the node that the dialler believes it has reached
	instance uint64 // drawn at random by the sender's Transport
	timeout  time.Duration
	cluster  string
}

// answer is the acceptor's.
type answer struct {
	code       code
	node       uint64 // who answers
	instance   uint64
	maxMessage uint32
}

// code says what became of a connection.
type code uint8

const (
	codeAccepted code = iota
	codeVersion
	codeCluster
	codeNode
	codeCertificate
	codeDuplicate
	codeBusy
)

// reasons gives the error of each code but codeAccepted.
var reasons = map[code]error{
	codeVersion:     ErrVersion,
	codeCluster:     ErrCluster,
	codeNode:        ErrNode,
	codeCertificate: ErrCertificate,
	codeDuplicate:   ErrDuplicateNode,
	codeBusy:        ErrTooManyConnections,
}

// codeOf returns the code that tells a peer of err, and whether there is one.
func codeOf(err error) (code, bool) {
	for c := codeVersion; c <= codeBusy; c++ {
		if errors.Is(err, reasons[c]) {
			return c, true
		}
	}
	return 0, false
}

func appendEnvelope(b []byte, body []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, body...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// readEnvelope reads one envelope and not a byte more. It fails with ErrVersion
// only if the envelope is valid otherwise.
func readEnvelope(r io.Reader) (body []byte, err error) {
	var space [prefixBytes + maxBodyBytes + sumBytes]byte
	prefix := space[:prefixBytes]
	if n, err := io.ReadFull(r, prefix); err != nil {
		if n > 0 && string(prefix[:min(n, len(magic))]) != magic[:min(n, len(magic))] {
			return nil, foreign(prefix[:n])
		}
		return nil, err
	}
	if string(prefix[:len(magic)]) != magic {
		return nil, foreign(prefix)
	}
	n := int(binary.LittleEndian.Uint16(prefix[len(magic)+2:]))
	if n > maxBodyBytes {
		return nil, fmt.Errorf("%w: it claims %d bytes, at most %d", ErrHandshake, n, maxBodyBytes)
	}
	all := space[:prefixBytes+n+sumBytes]
	if _, err := io.ReadFull(r, all[prefixBytes:]); err != nil {
		return nil, unexpected(err)
	}
	sum := crc32.Checksum(all[:prefixBytes+n], castagnoli)
	if want := binary.LittleEndian.Uint32(all[prefixBytes+n:]); sum != want {
		return nil, fmt.Errorf("%w: checksum %08x, not %08x", ErrHandshake, sum, want)
	}
	if v := binary.LittleEndian.Uint16(prefix[len(magic):]); v != version {
		return nil, fmt.Errorf("%w: the peer's is %d, this node's %d", ErrVersion, v, version)
	}
	return all[prefixBytes : prefixBytes+n], nil
}

// foreign describes bytes that no Synod node has sent, or none that speaks
// plaintext.
func foreign(b []byte) error {
	// The types of TLS records that begin a conversation, and the version that all
	// of them carry.
	if len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3 {
		return fmt.Errorf("%w: the peer speaks TLS, this node plaintext: Config.Identity and Config.Insecure must be the same on all nodes", ErrHandshake)
	}
	return fmt.Errorf("%w: not a Synod node: it began with %q", ErrHandshake, b)
}

func (h *hello) append(b []byte) []byte {
	body := make([]byte, 0, maxBodyBytes)
	body = append(body, byte(h.lane))
	body = binary.LittleEndian.AppendUint64(body, h.sender)
	body = binary.LittleEndian.AppendUint64(body, h.receiver)
	body = binary.LittleEndian.AppendUint64(body, h.instance)
	body = binary.LittleEndian.AppendUint32(body, uint32(h.timeout.Milliseconds()))
	body = append(body, byte(len(h.cluster)))
	body = append(body, h.cluster...)
	return appendEnvelope(b, body)
}

func readHello(r io.Reader) (hello, error) {
	body, err := readEnvelope(r)
	if err != nil {
		return hello{}, err
	}
	const fixed = 1 + 8 + 8 + 8 + 4 + 1
	if len(body) < fixed || len(body) != fixed+int(body[fixed-1]) {
		return hello{}, fmt.Errorf("%w: a greeting of %d bytes", ErrHandshake, len(body))
	}
	h := hello{
		lane:     laneKind(body[0]),
		sender:   binary.LittleEndian.Uint64(body[1:]),
		receiver: binary.LittleEndian.Uint64(body[9:]),
		instance: binary.LittleEndian.Uint64(body[17:]),
		timeout:  time.Duration(binary.LittleEndian.Uint32(body[25:])) * time.Millisecond,
		cluster:  string(body[fixed:]),
	}
	switch {
	case h.lane >= lanes:
		return hello{}, fmt.Errorf("%w: lane %d", ErrHandshake, h.lane)
	case h.sender == 0:
		return hello{}, fmt.Errorf("%w: it claims to be node 0", ErrHandshake)
	case h.cluster == "":
		return hello{}, fmt.Errorf("%w: no cluster", ErrHandshake)
	case h.timeout < minPeerTimeout || h.timeout > maxPeerTimeout:
		return hello{}, fmt.Errorf("%w: a timeout of %v", ErrHandshake, h.timeout)
	}
	return h, nil
}

func (a *answer) append(b []byte) []byte {
	body := make([]byte, 0, maxBodyBytes)
	body = append(body, byte(a.code))
	body = binary.LittleEndian.AppendUint64(body, a.node)
	body = binary.LittleEndian.AppendUint64(body, a.instance)
	body = binary.LittleEndian.AppendUint32(body, a.maxMessage)
	return appendEnvelope(b, body)
}

func readAnswer(r io.Reader) (answer, error) {
	body, err := readEnvelope(r)
	if err != nil {
		return answer{}, err
	}
	if len(body) != 1+8+8+4 {
		return answer{}, fmt.Errorf("%w: an answer of %d bytes", ErrHandshake, len(body))
	}
	a := answer{
		code:       code(body[0]),
		node:       binary.LittleEndian.Uint64(body[1:]),
		instance:   binary.LittleEndian.Uint64(body[9:]),
		maxMessage: binary.LittleEndian.Uint32(body[17:]),
	}
	switch {
	case a.code > codeBusy:
		return answer{}, fmt.Errorf("%w: answer %d", ErrHandshake, a.code)
	case a.maxMessage > maxMessageBytes:
		return answer{}, fmt.Errorf("%w: messages of up to %d bytes", ErrHandshake, a.maxMessage)
	}
	return a, nil
}
