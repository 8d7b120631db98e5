package statemachine

import (
	"bytes"
	"errors"
	"io"
	"sync"

	engine "github.com/cockroachdb/pebble/v2"

	"github.com/synod-go/synod/storage"
)

// View is the state between two batches, to be read. It is made by [Machine.View]. All
// methods may be called concurrently. Later commands do not change it, and neither does
// a snapshot that is restored: the state that is replaced stays on disk until its last
// view is closed. After Close, of the view or of the machine, methods return
// storage.ErrClosed.
type View struct {
	state *state

	mu       sync.RWMutex
	snapshot *engine.Snapshot // nil once closed
	index    uint64
}

var _ storage.View = (*View)(nil)

// View returns a view of the state as it is now. It costs little, but keeps what it
// sees on disk until it is closed. After a Barrier of the group, what is read from it is
// linearizable. The errors are storage.ErrClosed, storage.ErrFailed and those of a read.
func (m *Machine) View() (*View, error) {
	s, err := m.use()
	if err != nil {
		return nil, err
	}
	defer s.release()
	v := &View{state: s}
	v.mu.Lock() // Close of the machine waits until there is something to close
	defer v.mu.Unlock()
	if err := s.acquire(v); err != nil {
		return nil, err
	}
	v.snapshot = s.db.NewSnapshot()
	if v.index, err = s.index(v.snapshot, nil); err != nil {
		_ = v.snapshot.Close()
		v.snapshot = nil
		_ = s.forget(v)
		return nil, err
	}
	return v, nil
}

// Index returns the index of the last command that the view sees.
func (v *View) Index() uint64 { return v.index }

// Get returns the value of key, which belongs to the caller, or storage.ErrNotFound.
// What can't be read is a *storage.CorruptError, or an error of the file system.
func (v *View) Get(key []byte) ([]byte, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.readable(); err != nil {
		return nil, err
	}
	value, closer, err := v.snapshot.Get(appendKey(nil, key))
	if err != nil {
		return nil, v.state.readError(key, err)
	}
	value = append([]byte{}, value...)
	if err := closer.Close(); err != nil {
		return nil, v.state.readError(key, err)
	}
	return value, nil
}

// Scan returns an iterator over the keys in [from, to), ascending; an empty to means no
// upper bound. It outlives the view's Close.
func (v *View) Scan(from, to []byte) (storage.Iterator, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.readable(); err != nil {
		return nil, err
	}
	i := &iterator{state: v.state}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := v.state.acquire(i); err != nil {
		return nil, err
	}
	lower, upper := bounds(from, to)
	it, err := v.snapshot.NewIter(&engine.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		_ = v.state.forget(i)
		return nil, v.state.readError(from, err)
	}
	i.it = it
	return i, nil
}

func (v *View) readable() error {
	if v.snapshot == nil {
		return storage.ErrClosed
	}
	return v.state.readable()
}

// Close releases the view, and with the last one a state that was replaced. Calls after
// the first return nil.
func (v *View) Close() error {
	return errors.Join(v.invalidate(), v.state.forget(v))
}

func (v *View) invalidate() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snapshot == nil {
		return nil
	}
	err := v.snapshot.Close()
	v.snapshot = nil
	return err
}

// readError translates an error of Pebble. key may be nil.
func (s *state) readError(key []byte, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return storage.ErrNotFound
	}
	err = engineError(s.dir, "read", err)
	var c *storage.CorruptError
	if errors.As(err, &c) {
		c.Key = bytes.Clone(key)
	}
	return err
}

// iterator is a storage.Iterator. Its mutex is for Close of the machine, which may come
// from another goroutine.
type iterator struct {
	state *state

	mu      sync.Mutex
	it      *engine.Iterator // nil once closed
	started bool
}

// Next implements storage.Iterator.
func (i *iterator) Next() (key, value []byte, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return nil, nil, storage.ErrClosed
	}
	if err := i.state.readable(); err != nil {
		return nil, nil, err
	}
	valid := false
	if !i.started {
		i.started = true
		valid = i.it.First()
	} else if i.it.Valid() { // at the end, it stays there
		valid = i.it.Next()
	}
	if !valid {
		if err := i.it.Error(); err != nil {
			return nil, nil, i.state.readError(nil, err)
		}
		return nil, nil, io.EOF
	}
	key = i.it.Key()[1:]
	value, err = i.it.ValueAndErr()
	if err != nil {
		return nil, nil, i.state.readError(key, err)
	}
	return key, value, nil
}

// Close implements storage.Iterator.
func (i *iterator) Close() error {
	return errors.Join(i.invalidate(), i.state.forget(i))
}

func (i *iterator) invalidate() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return nil
	}
	err := i.it.Close()
	i.it = nil
	if err != nil {
		return i.state.readError(nil, err)
	}
	return nil
}
