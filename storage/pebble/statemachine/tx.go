package statemachine

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	engine "github.com/cockroachdb/pebble/v2"
)

// Tx is what a command reads and writes: the state as the commands before it left it,
// those of the same batch included, and its own writes. It is valid until Config.Apply
// returns, and used by one goroutine.
//
// Keys are byte strings, compared as bytes.Compare does; the empty one is a key like
// others. Tx copies what it is given. It has no errors to return, since a command whose
// outcome depended on one would leave replicas with different states: where the disk
// can't be read, it panics with an error that wraps storage.ErrCorrupt where that
// applies, through Config.Apply, which must not recover it, and this replica stops.
type Tx struct {
	state *state
	batch *engine.Batch
	index uint64
	start int    // length of the batch before this command
	limit int    // how much longer the command may make it
	key   []byte // for reuse
}

// fail stops the replica.
func (tx *Tx) fail(doing string, err error) {
	panic(engineError(tx.state.dir, fmt.Sprintf("command %d: %s", tx.index, doing), err))
}

func (tx *Tx) stored(key []byte) []byte {
	tx.key = appendKey(tx.key[:0], key)
	return tx.key
}

// Get returns the value of key, which belongs to the caller, and whether there is one.
func (tx *Tx) Get(key []byte) (value []byte, found bool) {
	v, closer, err := tx.batch.Get(tx.stored(key))
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false
	}
	if err != nil {
		tx.fail("get", err)
	}
	value = append([]byte{}, v...)
	if err := closer.Close(); err != nil {
		tx.fail("get", err)
	}
	return value, true
}

// Has reports whether there is a value of key.
func (tx *Tx) Has(key []byte) bool {
	_, closer, err := tx.batch.Get(tx.stored(key))
	if errors.Is(err, engine.ErrNotFound) {
		return false
	}
	if err == nil {
		err = closer.Close()
	}
	if err != nil {
		tx.fail("get", err)
	}
	return true
}

// Set sets key to value.
func (tx *Tx) Set(key, value []byte) {
	tx.grow(len(key) + len(value))
	if err := tx.batch.Set(tx.stored(key), value, nil); err != nil {
		tx.fail("set", err)
	}
}

// Delete removes key, if it is there.
func (tx *Tx) Delete(key []byte) {
	tx.grow(len(key))
	if err := tx.batch.Delete(tx.stored(key), nil); err != nil {
		tx.fail("delete", err)
	}
}

// DeleteRange removes all keys in [from, to); an empty to means no upper bound. It
// costs the same for few keys and for many.
func (tx *Tx) DeleteRange(from, to []byte) {
	lower, upper := bounds(from, to)
	if bytes.Compare(lower, upper) >= 0 {
		return
	}
	tx.grow(len(from) + len(to))
	if err := tx.batch.DeleteRange(lower, upper, nil); err != nil {
		tx.fail("delete range", err)
	}
}

// grow holds what one command writes to a limit.
func (tx *Tx) grow(n int) {
	if tx.batch.Len()-tx.start+n+overhead > tx.limit {
		panic(fmt.Errorf("%w: command %d, more than %d bytes", ErrTooLarge, tx.index, tx.limit))
	}
}

// Scan returns the keys in [from, to) and their values, ascending; an empty to means no
// upper bound. It sees the state as it is when the loop begins, not what the loop
// writes. Key and value are valid until the loop goes on, and must not be changed.
func (tx *Tx) Scan(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		lower, upper := bounds(from, to)
		it, err := tx.batch.NewIter(&engine.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			tx.fail("scan", err)
		}
		over := false
		defer func() { // the loop may panic
			if err := it.Close(); err != nil && over {
				tx.fail("scan", err)
			}
		}()
		for ok := it.First(); ok; ok = it.Next() {
			value, err := it.ValueAndErr()
			if err != nil {
				tx.fail("scan", err)
			}
			if !yield(it.Key()[1:], value) {
				over = true
				return
			}
		}
		if err := it.Error(); err != nil {
			tx.fail("scan", err)
		}
		over = true
	}
}
