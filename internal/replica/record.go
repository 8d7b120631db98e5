package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/synod-go/synod/storage"
)

// Keys of a node in its store:
//
//	n                          the node's identity
//	p <peer> <incarnation>     what is known of a peer that was met, or admitted
//	q <loop>                   how many commits an event loop has made
//	r                          the node's last run
//	g <group> m                which protocol keeps the group
//	g <group> v                which did, before the node left it
//	g <group> w                the group is being imported: what there is of it is void
//	g <group> a                how much of a snapshot has been received
//	g <group> b                members that were given up in a recovery
//	g <group> i                that the group has begun: its members have met; their incarnations
//	g <group> s                the group's newest snapshot
//	g <group> k                the checkpoint of the sessions: see sessions.go
//	g <group> c <id> <number>  a chunk of a snapshot
//	g <group> x <…>            the protocol's own records
//
// Numbers are 8 bytes, big-endian, so that they sort.
const (
	tagNode       = 'n'
	tagPeer       = 'p'
	tagCount      = 'q'
	tagRun        = 'r'
	tagGroup      = 'g'
	tagMeta       = 'm'
	tagLeft       = 'v'
	tagImport     = 'w'
	tagPartial    = 'a'
	tagBanned     = 'b'
	tagIntroduced = 'i'
	tagSnapshot   = 's'
	tagChunk      = 'c'
	tagCheckpoint = 'k'
	tagProtocol   = 'x'
)

// IdentityKey returns the key of the record that says which node of which cluster the
// store belongs to.
func IdentityKey() []byte { return []byte{tagNode} }

// Keys makes the keys of one group.
type Keys struct{ group uint64 }

// GroupKeys returns the keys of a group.
func GroupKeys(group uint64) Keys { return Keys{group} }

// Group returns the group's ID.
func (k Keys) Group() uint64 { return k.group }

func (k Keys) key(tag byte, numbers ...uint64) []byte {
	key := make([]byte, 0, 10+8*len(numbers))
	key = append(key, tagGroup)
	key = binary.BigEndian.AppendUint64(key, k.group)
	key = append(key, tag)
	for _, n := range numbers {
		key = binary.BigEndian.AppendUint64(key, n)
	}
	return key
}

// Protocol returns the key of one of the protocol's own records: a tag and
// numbers that sort.
func (k Keys) Protocol(tag byte, numbers ...uint64) []byte {
	key := make([]byte, 0, 11+8*len(numbers))
	key = append(key, tagGroup)
	key = binary.BigEndian.AppendUint64(key, k.group)
	key = append(key, tagProtocol, tag)
	for _, n := range numbers {
		key = binary.BigEndian.AppendUint64(key, n)
	}
	return key
}

// ProtocolRange returns the bounds of all keys that Protocol makes with this tag.
func (k Keys) ProtocolRange(tag byte) (from, to []byte) {
	return k.Protocol(tag), k.Protocol(tag + 1)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C that all records and frames carry.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// ChecksumUpdate extends a checksum by more bytes.
func ChecksumUpdate(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// errRecord is what the decoding of any record's fields fails with.
var errRecord = errors.New("replica: malformed record")

// Reader takes fields off the front of a byte string. After the first failure it
// returns zeros and Err is set, so that a decoder checks once, at its end.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a Reader of b, whose slices alias b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

func (r *Reader) fail() {
	r.b = nil
	if r.err == nil {
		r.err = errRecord
	}
}

// Uvarint reads a variable-length number.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Uint64 reads 8 bytes, little-endian.
func (r *Reader) Uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// Bytes reads a length and as many bytes, without copying them.
func (r *Reader) Bytes() []byte { return r.take(r.Uvarint()) }

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Count reads a number of items that take at least size bytes each, so that
// nothing is allocated for items that can't be there.
func (r *Reader) Count(size int) int {
	n := r.Uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

// Rest reads all that is left.
func (r *Reader) Rest() []byte {
	v := r.b
	r.b = nil
	return v
}

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// Err returns what went wrong; bytes that are left over are an error too.
func (r *Reader) Err() error {
	if r.err == nil && len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errRecord, len(r.b))
	}
	return r.err
}

// AppendBytes appends what Reader.Bytes reads.
func AppendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// getRecord reads and opens a sealed record. found is false if there is none.
func getRecord(store storage.Store, key []byte, group uint64) (payload []byte, found bool, err error) {
	value, err := store.Get(key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	payload, err = storage.OpenRecord(key, value)
	if err != nil {
		return nil, false, Corrupt(err, group, 0)
	}
	return payload, true, nil
}

// GetRecord reads a sealed record of a protocol; nil if there is none.
func GetRecord(store storage.Store, key []byte, group uint64) ([]byte, error) {
	payload, _, err := getRecord(store, key, group)
	return payload, err
}

// absent returns an error unless there is nothing of a group whose first record is
// not there. A record that was lost must not make a group new: it would forget what
// it promised.
func absent(store storage.Store, keys Keys) error {
	it, err := store.Scan(keys.key(0), keys.key(^byte(0)))
	if err != nil {
		return err
	}
	defer it.Close()
	key, _, err := it.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return &storage.CorruptError{Group: keys.group, Key: keys.key(tagMeta),
		Reason: fmt.Sprintf("the group's first record is missing, but there is data of it (key %x)", key)}
}

// Corrupt names the group and the index in an error that says that a record is
// corrupt; other errors stay as they are.
func Corrupt(err error, group, index uint64) error {
	var c *storage.CorruptError
	if errors.As(err, &c) {
		named := *c
		named.Group, named.Index = group, index
		return &named
	}
	return err
}

// identity is the node's own record.
type identity struct {
	cluster     string
	node        uint64
	incarnation uint64
}

func (id identity) encode() []byte {
	b := AppendBytes(nil, []byte(id.cluster))
	b = binary.AppendUvarint(b, id.node)
	return binary.LittleEndian.AppendUint64(b, id.incarnation)
}

func decodeIdentity(b []byte) (identity, error) {
	r := NewReader(b)
	id := identity{cluster: string(r.Bytes()), node: r.Uvarint(), incarnation: r.Uint64()}
	return id, r.Err()
}

// SnapshotMeta describes a snapshot. A stored one lies in the store as chunks
// under its ID.
type SnapshotMeta struct {
	Position
	Held   uint64 // commands in the state: those up to Position, or more if it was ahead of the log
	Config []byte // the configuration at Position, in the core's encoding
	ID     uint64 // drawn at random by the node that stored it
	Size   uint64 // bytes of state
	Chunks uint64
	Sum    uint32 // CRC32C of all bytes of state
}

// Append appends the encoded form.
func (m SnapshotMeta) Append(b []byte) []byte {
	b = appendPosition(b, m.Position)
	b = binary.AppendUvarint(b, m.Held)
	b = AppendBytes(b, m.Config)
	b = binary.LittleEndian.AppendUint64(b, m.ID)
	b = binary.AppendUvarint(b, m.Size)
	b = binary.AppendUvarint(b, m.Chunks)
	return binary.AppendUvarint(b, uint64(m.Sum))
}

// Read sets m to what Append wrote.
func (m *SnapshotMeta) Read(r *Reader) {
	m.Position, m.Held = r.position(), r.Uvarint()
	if m.Held < m.Commands {
		r.fail()
	}
	m.Config = append([]byte(nil), r.Bytes()...)
	m.ID, m.Size, m.Chunks, m.Sum = r.Uint64(), r.Uvarint(), r.Uvarint(), uint32(r.Uvarint())
}
