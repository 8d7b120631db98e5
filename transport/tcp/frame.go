package tcp

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
)

// A frame is
//
//	length    4 bytes, of the payload
//	checksum  4 bytes, CRC32C of the length's bytes and the payload
//	payload
//
// A length of pingLength marks a frame without payload that is no message.
const (
	headerBytes = 8
	pingLength  = 1<<32 - 1
)

const (
	readBufferBytes = 64 << 10
	slabBytes       = 64 << 10
	inlineBytes     = 2 << 10 // a payload up to this size is copied behind its header
	maxVectors      = 256
	firstBytes      = 1 << 20 // what is allocated for a frame before its payload arrives
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendHeader(b []byte, payload []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, payload)
	return binary.LittleEndian.AppendUint32(b, sum)
}

func appendPing(b []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, pingLength)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// frameWriter writes batches of frames. What it needs for that it allocates once.
type frameWriter struct {
	conn  net.Conn
	bytes *bufio.Writer // where vectored writes are of no use: TLS
	slab  []byte        // headers and small payloads; never grows, since vectors point into it
	vec   [][]byte
	rest  net.Buffers // what is left of vec during a write
}

func newFrameWriter(conn net.Conn) *frameWriter {
	w := &frameWriter{conn: conn}
	if _, ok := conn.(*net.TCPConn); ok {
		w.slab = make([]byte, 0, slabBytes)
		w.vec = make([][]byte, 0, maxVectors)
	} else {
		w.bytes = bufio.NewWriterSize(conn, slabBytes)
	}
	return w
}

// write writes the frames of all payloads, and returns how many were certainly
// passed to the system as a whole.
func (w *frameWriter) write(payloads [][]byte) (written int, err error) {
	if w.bytes != nil {
		return w.writeBuffered(payloads)
	}
	for written < len(payloads) {
		slab, vec, start, n := w.slab[:0], w.vec[:0], 0, 0
		for _, p := range payloads[written:] {
			need := headerBytes
			if len(p) <= inlineBytes {
				need += len(p)
			}
			// An empty slab and an empty vector always have room for one.
			if len(slab)+need > cap(slab) || len(vec)+3 > maxVectors {
				break
			}
			slab = appendHeader(slab, p)
			if len(p) <= inlineBytes {
				slab = append(slab, p...)
			} else {
				vec = append(vec, slab[start:], p)
				start = len(slab)
			}
			n++
		}
		if start < len(slab) {
			vec = append(vec, slab[start:])
		}
		w.rest = vec
		_, err := w.rest.WriteTo(w.conn)
		clear(vec) // the payloads are not kept alive until the next batch
		w.rest = nil
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

func (w *frameWriter) writeBuffered(payloads [][]byte) (written int, err error) {
	var header [headerBytes]byte
	for _, p := range payloads {
		_, _ = w.bytes.Write(appendHeader(header[:0], p)) // errors stick, Flush returns them
		_, _ = w.bytes.Write(p)
	}
	if err := w.bytes.Flush(); err != nil {
		return 0, err
	}
	return len(payloads), nil
}

func (w *frameWriter) ping() error {
	_, err := w.conn.Write(appendPing(make([]byte, 0, headerBytes)))
	return err
}

// frameReader reads frames.
type frameReader struct {
	source     io.Reader
	max        int // largest payload
	buf        []byte
	start, end int // of what is buffered
}

func newFrameReader(source io.Reader, limit int) *frameReader {
	return &frameReader{source: source, max: limit, buf: make([]byte, readBufferBytes)}
}

// next returns the next frame's payload, which belongs to the caller, or that
// there was a ping. The error is io.EOF if there are no more frames, wraps ErrFrame
// if the frame is invalid, and is the source's otherwise.
func (r *frameReader) next() (payload []byte, ping bool, err error) {
	if err := r.fill(headerBytes); err != nil {
		return nil, false, err
	}
	header := r.buf[r.start : r.start+headerBytes]
	length := binary.LittleEndian.Uint32(header)
	want := binary.LittleEndian.Uint32(header[4:])
	sum := crc32.Checksum(header[:4], castagnoli)
	r.start += headerBytes
	switch {
	case length == pingLength:
		if sum != want {
			return nil, false, fmt.Errorf("%w: checksum %08x, not %08x", ErrFrame, sum, want)
		}
		return nil, true, nil
	case uint64(length) > uint64(r.max):
		return nil, false, fmt.Errorf("%w: it claims %d bytes, at most %d (Config.MaxMessageBytes)", ErrFrame, length, r.max)
	}
	n := int(length)
	if n <= len(r.buf) {
		if err := r.fill(n); err != nil {
			return nil, false, unexpected(err)
		}
		payload = append([]byte{}, r.buf[r.start:r.start+n]...)
		r.start += n
	} else if payload, err = r.large(n); err != nil {
		return nil, false, unexpected(err)
	}
	if sum = crc32.Update(sum, castagnoli, payload); sum != want {
		return nil, false, fmt.Errorf("%w: checksum %08x of %d bytes, not %08x", ErrFrame, sum, n, want)
	}
	return payload, false, nil
}

// fill has at least n bytes buffered, n being at most the buffer's size.
func (r *frameReader) fill(n int) error {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.start+n > len(r.buf) {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	for r.end-r.start < n {
		m, err := r.source.Read(r.buf[r.end:])
		r.end += m
		if err != nil && r.end-r.start < n {
			if r.end > r.start {
				return unexpected(err)
			}
			return err
		}
	}
	return nil
}

// large reads a payload that is larger than the buffer. Memory is allocated as
// bytes arrive: a claim alone costs little.
func (r *frameReader) large(n int) ([]byte, error) {
	payload := append(make([]byte, 0, min(n, firstBytes)), r.buf[r.start:r.end]...)
	r.start, r.end = 0, 0
	for {
		m, err := io.ReadFull(r.source, payload[len(payload):cap(payload)])
		payload = payload[:len(payload)+m]
		if err != nil {
			return nil, err
		}
		if len(payload) == n {
			return payload, nil
		}
		payload = append(make([]byte, 0, min(n, 4*cap(payload))), payload...)
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
