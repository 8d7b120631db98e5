package pebble

import (
	"io"
	"sync"

	engine "github.com/cockroachdb/pebble/v2"

	"github.com/synod-go/synod/storage"
)

// scan opens an iterator. The store's mu is held.
func (s *Store) scan(r engine.Reader, from, to []byte) (storage.Iterator, error) {
	var options engine.IterOptions
	if len(from) > 0 {
		options.LowerBound = from
	}
	if len(to) > 0 {
		options.UpperBound = to
	}
	it, err := r.NewIter(&options)
	if err != nil {
		return nil, s.readError(from, err)
	}
	i := &iterator{store: s, it: it}
	s.track(i)
	return i, nil
}

// iterator is a storage.Iterator. Its mutex is for Close of the store, which may
// come from another goroutine.
type iterator struct {
	store *Store

	mu      sync.Mutex
	it      *engine.Iterator // nil once closed
	started bool
}

func (i *iterator) Next() (key, value []byte, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return nil, nil, storage.ErrClosed
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
			return nil, nil, i.store.readError(nil, err)
		}
		return nil, nil, io.EOF
	}
	key = i.it.Key()
	value, err = i.it.ValueAndErr()
	if err != nil {
		return nil, nil, i.store.readError(key, err)
	}
	return key, value, nil
}

func (i *iterator) Close() error {
	i.store.forget(i)
	if err := i.invalidate(); err != nil {
		return i.store.readError(nil, err)
	}
	return nil
}

func (i *iterator) invalidate() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.it == nil {
		return nil
	}
	err := i.it.Close()
	i.it = nil
	return err
}

// view is a storage.View.
type view struct {
	store *Store

	mu       sync.RWMutex
	snapshot *engine.Snapshot // nil once closed
}

func (v *view) Get(key []byte) ([]byte, error) {
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.readable(); err != nil {
		return nil, err
	}
	return v.store.get(v.snapshot, key)
}

func (v *view) Scan(from, to []byte) (storage.Iterator, error) {
	v.store.mu.RLock()
	defer v.store.mu.RUnlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	if err := v.readable(); err != nil {
		return nil, err
	}
	return v.store.scan(v.snapshot, from, to)
}

func (v *view) readable() error {
	if v.snapshot == nil {
		return storage.ErrClosed
	}
	return v.store.readable()
}

func (v *view) Close() error {
	v.store.forget(v)
	return v.invalidate()
}

func (v *view) invalidate() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snapshot == nil {
		return nil
	}
	err := v.snapshot.Close()
	v.snapshot = nil
	return err
}
