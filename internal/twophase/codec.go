//synod:core

package twophase

// Reader takes fields off the front of a byte string, for other cores that write what this one writes. After the first
// failure it returns zeros; End says whether there was one.
type Reader struct{ r reader }

// NewReader returns a reader of b. What Bytes and Rest return aliases it.
func NewReader(b []byte) *Reader { return &Reader{reader{b: b}} }

// Fail makes the reader fail.
func (r *Reader) Fail() { r.r.fail() }

// Number reads a number of variable length.
func (r *Reader) Number() uint64 { return r.r.number() }

// Fixed reads a number of eight bytes.
func (r *Reader) Fixed() uint64 { return r.r.fixed() }

// Byte reads one byte, which may not exceed limit.
func (r *Reader) Byte(limit byte) byte { return r.r.byte(limit) }

// Bytes reads a byte string behind its length, which may not exceed limit.
func (r *Reader) Bytes(limit int) []byte { return r.r.bytes(limit) }

// ID reads the ID of a transaction.
func (r *Reader) ID() ID { return r.r.id() }

// Failed reports whether something could not be read.
func (r *Reader) Failed() bool { return r.r.failed }

// Rest returns what was not read yet.
func (r *Reader) Rest() []byte { return r.r.b }

// End returns an error that wraps ErrMalformed if something could not be read, or is left over. what names it.
func (r *Reader) End(what string) error { return r.r.end(what) }

// AppendBytes appends a byte string behind its length.
func AppendBytes[T string | []byte](b []byte, v T) []byte { return appendBytes(b, v) }

// AppendFlags appends up to eight flags, the first as the lowest bit.
func AppendFlags(b []byte, list ...bool) []byte { return append(b, flags(list...)) }
