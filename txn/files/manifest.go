package files

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/txn"
)

// Change is what a transaction does to one file.
type Change struct {
	Path   string // relative to Config.Dir, with slashes
	Data   []byte // the new content
	Remove bool   // there is to be no such file: Data is nothing
}

// What a change does.
const (
	opWrite  = 0
	opRemove = 1
)

// Work encodes changes as the work of a participant, txn.Participant.Work, for a resource on another node or this one. It
// keeps nothing of its arguments.
func Work(changes ...Change) []byte {
	b := binary.AppendUvarint([]byte{}, uint64(len(changes)))
	for _, c := range changes {
		op := byte(opWrite)
		if c.Remove {
			op, c.Data = opRemove, nil
		}
		b = append(b, op)
		b = binary.AppendUvarint(b, uint64(len(c.Path)))
		b = append(b, c.Path...)
		b = binary.AppendUvarint(b, uint64(len(c.Data)))
		b = append(b, c.Data...)
	}
	return b
}

// reader takes fields off a slice. What is malformed sets bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// parseWork reads what Work returns. Data are parts of b.
func parseWork(b []byte, most int) ([]Change, error) {
	r := &reader{b: b}
	n := r.uvarint()
	if n > uint64(most) {
		return nil, fmt.Errorf("%w: %d changes, Config.MaxChanges is %d", ErrLimit, n, most)
	}
	var changes []Change
	for range n {
		op := r.byte()
		c := Change{Path: string(r.bytes(r.uvarint())), Remove: op == opRemove}
		c.Data = r.bytes(r.uvarint())
		if r.bad || op > opRemove || c.Remove && len(c.Data) > 0 {
			break
		}
		changes = append(changes, c)
	}
	if r.bad || len(r.b) > 0 || uint64(len(changes)) != n {
		return nil, fmt.Errorf("%w: it is not what files.Work returns", ErrWork)
	}
	return changes, nil
}

// change is a change that is staged: its content is in the file of its number.
type change struct {
	path   string
	remove bool
	number uint64
	size   int64
	sum    uint32 // CRC32C
}

// maxManifestBytes is more than the largest manifest has: changes with paths.
const maxManifestBytes = 256 << 20

// encodeManifest seals what a transaction is to do, for its ID alone.
func encodeManifest(id txn.ID, one bool, changes []change) []byte {
	b := storage.BeginRecord(nil)
	b = append(b, flag(one))
	b = binary.AppendUvarint(b, uint64(len(changes)))
	for _, c := range changes {
		b = append(b, flag(c.remove))
		b = binary.AppendUvarint(b, uint64(len(c.path)))
		b = append(b, c.path...)
		b = binary.AppendUvarint(b, c.number)
		b = binary.AppendUvarint(b, uint64(c.size))
		b = binary.LittleEndian.AppendUint32(b, c.sum)
	}
	storage.SealRecord(b, []byte(id.String()))
	return b
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func decodeManifest(id txn.ID, b []byte) (one bool, changes []change, err error) {
	key := []byte(id.String())
	payload, err := storage.OpenRecord(key, b)
	if err != nil {
		return false, nil, err
	}
	r := &reader{b: payload}
	head := r.byte()
	n := r.uvarint()
	for i := uint64(0); i < n && !r.bad; i++ {
		op := r.byte()
		c := change{path: string(r.bytes(r.uvarint())), remove: op == opRemove, number: r.uvarint(), size: int64(r.uvarint())}
		if sum := r.bytes(4); sum != nil {
			c.sum = binary.LittleEndian.Uint32(sum)
		}
		if op > opRemove || c.size < 0 || checkPath(c.path) != nil {
			r.bad = true
		}
		changes = append(changes, c)
	}
	if r.bad || head > 1 || len(r.b) > 0 {
		return false, nil, &storage.CorruptError{Key: key, Reason: "the manifest is sealed, and malformed"}
	}
	return head == 1, changes, nil
}

// maxPathBytes is how long a path may be.
const maxPathBytes = 1024

// checkPath says what is wrong with a path of the application.
func checkPath(name string) error {
	first, _, _ := strings.Cut(name, "/")
	switch {
	case len(name) > maxPathBytes:
		return fmt.Errorf("%w: %d bytes long, at most %d", ErrPath, len(name), maxPathBytes)
	case !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00"):
		return fmt.Errorf("%w: %q: it is relative to Config.Dir, with slashes, and has no empty part, no dot or dot-dot, and no backslash", ErrPath, name)
	case strings.EqualFold(first, home):
		return fmt.Errorf("%w: %q: %s is the resource's own", ErrPath, name, home)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) >= len(temporary) && strings.EqualFold(part[:len(temporary)], temporary) {
			return fmt.Errorf("%w: %q: names that begin with %s are the resource's own", ErrPath, name, temporary)
		}
		if len(part) > 255 {
			return fmt.Errorf("%w: %q: a part of it has more than 255 bytes", ErrPath, name)
		}
	}
	return nil
}
