package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/synod-go/synod/internal/probe"
)

// RecordOverhead is the number of bytes that a record is longer than its payload.
const RecordOverhead = 5

// recordVersion is the only layout so far: four bytes of CRC32C, little endian,
// over all that follows and over the key; one byte of version; the payload.
const recordVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendRecord appends to dst a record that holds payload, sealed for key: it
// opens under that key alone. It keeps nothing of its arguments.
func AppendRecord(dst, key, payload []byte) []byte {
	start := len(dst)
	dst = BeginRecord(dst)
	dst = append(dst, payload...)
	SealRecord(dst[start:], key)
	return dst
}

// BeginRecord appends the head of a record to dst. The caller appends the
// payload, and then calls SealRecord with the record, from its head on. This is
// AppendRecord for a payload that is encoded in place.
func BeginRecord(dst []byte) []byte {
	return append(dst, 0, 0, 0, 0, recordVersion)
}

// SealRecord completes a record that BeginRecord began. It panics if record is
// shorter than RecordOverhead.
func SealRecord(record, key []byte) {
	binary.LittleEndian.PutUint32(record[:4], recordSum(record[4:], key))
}

// OpenRecord returns the payload of the record that is stored under key. It is
// a part of value, which must hold exactly one record. If it can't be believed,
// because bits changed, because it is cut or too long, or because it was sealed
// for another key, the error is a *CorruptError with Key and Reason, to which
// the caller adds what it knows.
func OpenRecord(key, value []byte) (payload []byte, err error) {
	if len(value) < RecordOverhead {
		return nil, corruptRecord(key, fmt.Sprintf("record of %d bytes is shorter than its head", len(value)))
	}
	if binary.LittleEndian.Uint32(value) != recordSum(value[4:], key) && !probe.Bug("records are not checked") {
		probe.Sometimes("storage: an altered record is refused", true)
		return nil, corruptRecord(key, "checksum mismatch: the record was altered, or belongs under another key")
	}
	if v := value[4]; v != recordVersion {
		return nil, corruptRecord(key, fmt.Sprintf("record has version %d, this library reads version %d", v, recordVersion))
	}
	return value[RecordOverhead:], nil
}

// recordSum covers the key's length too, or a byte could wander from the key's
// end to the payload's beginning unnoticed.
func recordSum(body, key []byte) uint32 {
	sum := crc32.Update(uint32(len(key)), castagnoli, key)
	return crc32.Update(sum, castagnoli, body)
}

func corruptRecord(key []byte, reason string) error {
	return &CorruptError{Key: append([]byte(nil), key...), Reason: reason}
}
