//synod:core

package wire

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed says that bytes are not what they should be.
var ErrMalformed = errors.New("wire: malformed")

// Reader takes fields off the front of a byte string.
type Reader struct {
	b      []byte
	failed bool
}

// NewReader returns a reader of b, which it never changes.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Fail makes the reader one that has failed: for what only its caller knows to be wrong.
func (r *Reader) Fail() { r.b, r.failed = nil, true }

// Failed reports whether a field was missing or malformed.
func (r *Reader) Failed() bool { return r.failed }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// Rest returns what is left, and takes nothing.
func (r *Reader) Rest() []byte { return r.b }

// Uvarint takes a number in its variable-length form.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Varint takes a number in its variable-length form, that may be negative.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Uint64 takes a number of eight bytes, big-endian.
func (r *Reader) Uint64() uint64 {
	if len(r.b) < 8 {
		r.Fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// Byte takes a byte of at most limit.
func (r *Reader) Byte(limit byte) byte {
	if len(r.b) == 0 || r.b[0] > limit {
		r.Fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// Bytes takes a byte string of at most limit bytes, with its length in front. It is a part of what the reader was
// made of; nil if it is empty.
func (r *Reader) Bytes(limit int) []byte {
	n := r.Uvarint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.Fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Count takes the length of a list whose elements have at least size bytes each, and fails if what is left can't
// hold as many: so nobody allocates for what is not there.
func (r *Reader) Count(size int) int {
	n := r.Uvarint()
	if n > uint64(len(r.b)/max(size, 1)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// End returns ErrMalformed if a field was, or if something is left.
func (r *Reader) End() error {
	if r.failed || len(r.b) != 0 {
		return ErrMalformed
	}
	return nil
}

// AppendBytes appends a byte string with its length in front.
func AppendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}
