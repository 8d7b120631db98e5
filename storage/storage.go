package storage

import (
	"errors"
	"fmt"
	"io"
)

// Store keeps ordered keys. Keys and values are byte strings; keys are compared
// as bytes.Compare does and are not empty. All methods may be called
// concurrently. A method that is called after Close returns ErrClosed.
type Store interface {
	// Get returns the value of key, or an error that wraps ErrNotFound if there
	// is none, or ErrCorrupt if there is one that can't be read. The value
	// belongs to the caller.
	Get(key []byte) ([]byte, error)

	// Scan returns an iterator over the keys in [from, to), ascending; an empty
	// to means no upper bound. It sees the store as it was when Scan was called.
	// Scan keeps neither from nor to.
	Scan(from, to []byte) (Iterator, error)

	// Commit applies the operations of b in their order, all or none. When it
	// returns nil they are durable, visible, and survive a crash. After an error
	// nothing is known: a store whose write or sync failed refuses every later
	// Commit with an error that wraps ErrFailed, and does not retry; an error that
	// wraps ErrNoSpace says that nothing was written and the store still works.
	// Commits that are under way at once may be made durable together. Commit
	// keeps nothing of b after it returns, and changes nothing in it.
	Commit(b *Batch) error

	// Close waits for what is under way and releases everything. Open iterators
	// become invalid. Calls after the first return nil.
	Close() error
}

// Iterator walks through a range. It is used by one goroutine at a time.
type Iterator interface {
	// Next returns the next key and value, or io.EOF after the last. Both stay
	// valid until the following call of Next or Close and must not be changed.
	Next() (key, value []byte, err error)
	// Close releases the iterator. Calls after the first return nil.
	Close() error
}

// AsyncCommitter is an optional power of a [Store]: commits that are pipelined.
// Use it through [CommitAsync].
type AsyncCommitter interface {
	// CommitAsync is like Commit but returns before b is durable. done is called
	// exactly once, with what Commit would have returned, possibly before
	// CommitAsync returns and on any goroutine; it must return quickly. b and the
	// bytes that it refers to must not change until then. The operations take
	// effect, and the dones are called, in the order of the CommitAsync calls
	// of one goroutine; once one of them fails, all later ones do. Refusals that the
	// store survives (ErrNoSpace) are excepted: they are told before CommitAsync
	// returns, so that whoever pipelines leaves no gap. done must not commit itself.
	CommitAsync(b *Batch, done func(error))
}

// Snapshotter is an optional power of a [Store]: a consistent view that later
// commits do not change.
type Snapshotter interface {
	// Snapshot returns a view of the store as it is now. It costs little, but
	// holds resources until it is closed.
	Snapshot() (View, error)
}

// View is a [Store] at one moment, to be read.
type View interface {
	Get(key []byte) ([]byte, error)
	Scan(from, to []byte) (Iterator, error)
	Close() error
}

// Errors of a store, to be tested with errors.Is.
var (
	ErrNotFound = errors.New("storage: key not found")
	ErrCorrupt  = errors.New("storage: corrupt record")
	ErrClosed   = errors.New("storage: closed")
	ErrFailed   = errors.New("storage: store failed")
	ErrNoSpace  = errors.New("storage: no space left")
	ErrLocked   = errors.New("storage: in use by another process")
)

// CorruptError says which record can't be believed. It matches ErrCorrupt.
type CorruptError struct {
	Group  uint64 // the group concerned; 0: none
	Index  uint64 // the log index or chunk concerned; 0: none
	File   string // the file, or the store's directory, where known
	Key    []byte // the key concerned, where known
	Reason string
}

// Error implements error.
func (e *CorruptError) Error() string {
	s := "storage: corrupt record"
	if e.Group != 0 {
		s += fmt.Sprintf(", group %d", e.Group)
	}
	if e.Index != 0 {
		s += fmt.Sprintf(", index %d", e.Index)
	}
	if len(e.Key) != 0 {
		s += fmt.Sprintf(", key %x", e.Key)
	}
	if e.File != "" {
		s += ", in " + e.File
	}
	return s + ": " + e.Reason
}

// Is makes the error match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// CommitAsync commits b through s's own pipeline where it has one. Otherwise it
// blocks until b is durable and calls done before it returns.
func CommitAsync(s Store, b *Batch, done func(error)) {
	if a, ok := s.(AsyncCommitter); ok {
		a.CommitAsync(b, done)
		return
	}
	done(s.Commit(b))
}

// Kind says what an [Op] does.
type Kind uint8

// The kinds of operations.
const (
	KindSet         Kind = iota + 1 // set Key to Value
	KindDelete                      // remove Key, if it is there
	KindDeleteRange                 // remove all keys in [Key, End); an empty End means no upper bound
)

// Op is one operation of a [Batch].
type Op struct {
	Kind  Kind
	Key   []byte
	Value []byte // for KindSet
	End   []byte // for KindDeleteRange
}

// Batch is a list of operations that take effect together, as plain data: it can
// be inspected, and batches of several groups merged into one commit. The zero
// Batch is empty and ready to use. A batch refers to the bytes that it was given
// and copies nothing: they must not change until the commit is over. It is used
// by one goroutine at a time.
type Batch struct {
	ops  []Op
	size int
}

// Set adds an operation that sets key to value.
func (b *Batch) Set(key, value []byte) { b.add(Op{Kind: KindSet, Key: key, Value: value}) }

// Delete adds an operation that removes key.
func (b *Batch) Delete(key []byte) { b.add(Op{Kind: KindDelete, Key: key}) }

// DeleteRange adds an operation that removes all keys in [from, to); an empty to
// means no upper bound.
func (b *Batch) DeleteRange(from, to []byte) {
	b.add(Op{Kind: KindDeleteRange, Key: from, End: to})
}

// Append adds all operations of other, which is left as it is.
func (b *Batch) Append(other *Batch) {
	b.ops = append(b.ops, other.ops...)
	b.size += other.size
}

func (b *Batch) add(op Op) {
	b.ops = append(b.ops, op)
	b.size += len(op.Key) + len(op.Value) + len(op.End)
}

// Ops returns the operations in order. The slice belongs to the batch and is
// valid until the next call of one of its methods.
func (b *Batch) Ops() []Op { return b.ops }

// Len returns the number of operations.
func (b *Batch) Len() int { return len(b.ops) }

// Size returns the number of bytes in keys and values.
func (b *Batch) Size() int { return b.size }

// Reset empties the batch and keeps its memory for the next use.
func (b *Batch) Reset() {
	clear(b.ops)
	b.ops, b.size = b.ops[:0], 0
}

// Collect reads an iterator to its end, closes it, and returns copies of what it
// saw. It is for small ranges.
func Collect(it Iterator) (keys, values [][]byte, err error) {
	for {
		k, v, err := it.Next()
		if errors.Is(err, io.EOF) {
			return keys, values, it.Close()
		}
		if err != nil {
			it.Close()
			return nil, nil, err
		}
		keys = append(keys, append([]byte(nil), k...))
		values = append(values, append([]byte(nil), v...))
	}
}
