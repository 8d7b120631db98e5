package storage

import (
	"bytes"
	"sync"
)

// Prefix returns a store that keeps all its keys in s, under p. Stores with
// different prefixes, neither of which begins with the other, don't see each
// other, and share the commits and syncs of s. An upper bound that is empty
// means the end of the prefix. The result is an [AsyncCommitter] or a
// [Snapshotter] exactly if s is one. Closing it waits for what was begun through
// it, and leaves s open. Its errors are those of s, and may name the key as it
// is in s. p is copied.
func Prefix(s Store, p []byte) Store {
	x := &prefixed{store: s, prefix: bytes.Clone(p), end: prefixEnd(p)}
	x.idle.L = &x.mu
	async, isAsync := s.(AsyncCommitter)
	snap, isSnap := s.(Snapshotter)
	switch {
	case isAsync && isSnap:
		return &struct {
			*prefixed
			prefixedAsync
			prefixedSnap
		}{x, prefixedAsync{x, async}, prefixedSnap{x, snap}}
	case isAsync:
		return &struct {
			*prefixed
			prefixedAsync
		}{x, prefixedAsync{x, async}}
	case isSnap:
		return &struct {
			*prefixed
			prefixedSnap
		}{x, prefixedSnap{x, snap}}
	}
	return x
}

// prefixEnd returns the lowest key above all that begin with p, or nil if there
// is none, because p is empty or all 0xff.
func prefixEnd(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			end := bytes.Clone(p[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

type prefixed struct {
	store       Store
	prefix, end []byte

	mu      sync.Mutex
	idle    sync.Cond // pending has become 0
	pending int       // commits under way
	closed  bool
}

// enter begins a commit, leave ends it, so that Close can wait for it.
func (x *prefixed) enter() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	x.pending++
	return nil
}

func (x *prefixed) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pending--
	if x.pending == 0 {
		x.idle.Broadcast()
	}
}

func (x *prefixed) check() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	return nil
}

// appendKey appends the key under the prefix.
func (x *prefixed) appendKey(dst, key []byte) []byte {
	return append(append(dst, x.prefix...), key...)
}

// appendFrom appends a lower bound. The prefix itself is not a key below the
// prefix, since keys are not empty: the lowest one has a zero byte behind it.
func (x *prefixed) appendFrom(dst, from []byte) []byte {
	dst = x.appendKey(dst, from)
	if len(from) == 0 {
		dst = append(dst, 0)
	}
	return dst
}

// appendTo appends an upper bound.
func (x *prefixed) appendTo(dst, to []byte) []byte {
	if len(to) == 0 {
		return append(dst, x.end...)
	}
	return x.appendKey(dst, to)
}

func (x *prefixed) Get(key []byte) ([]byte, error) {
	if err := x.check(); err != nil {
		return nil, err
	}
	return prefixedGet(x, x.store, key)
}

func (x *prefixed) Scan(from, to []byte) (Iterator, error) {
	if err := x.check(); err != nil {
		return nil, err
	}
	return prefixedScan(x, x.store, from, to)
}

func (x *prefixed) Commit(b *Batch) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	if err := Validate(b); err != nil {
		return err
	}
	c := x.rewrite(b)
	defer c.release()
	return x.store.Commit(&c.batch)
}

func (x *prefixed) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	for x.pending > 0 {
		x.idle.Wait()
	}
	return nil
}

// prefixedCommit is a batch as the store below sees it. It is pooled, together
// with the function that completes it.
type prefixedCommit struct {
	batch    Batch
	arena    []byte // holds all rewritten keys
	store    *prefixed
	done     func(error)
	complete func(error)
}

var prefixedCommits sync.Pool

// A batch that needed more than this is left to the garbage collector, so that
// one large batch doesn't hold its memory for ever.
const (
	maxPooledArena = 64 << 10
	maxPooledOps   = 1 << 10
)

func (x *prefixed) rewrite(b *Batch) *prefixedCommit {
	c, ok := prefixedCommits.Get().(*prefixedCommit)
	if !ok {
		c = new(prefixedCommit)
		c.complete = c.finish
	}
	c.store = x
	need := 0
	for i := range b.ops {
		need += len(x.prefix) + len(b.ops[i].Key)
		if b.ops[i].Kind == KindDeleteRange {
			need += len(x.prefix) + len(b.ops[i].End) + 1
		}
	}
	if cap(c.arena) < need {
		c.arena = make([]byte, 0, need)
	}
	// The arena never grows below, so the keys cut from it stay where they are.
	arena := c.arena
	for i := range b.ops {
		op := &b.ops[i]
		start := len(arena)
		if op.Kind != KindDeleteRange {
			arena = x.appendKey(arena, op.Key)
			c.batch.add(Op{Kind: op.Kind, Key: arena[start:len(arena):len(arena)], Value: op.Value})
			continue
		}
		arena = x.appendFrom(arena, op.Key)
		middle := len(arena)
		arena = x.appendTo(arena, op.End)
		c.batch.DeleteRange(arena[start:middle:middle], arena[middle:len(arena):len(arena)])
	}
	return c
}

func (c *prefixedCommit) release() {
	if cap(c.arena) > maxPooledArena || cap(c.batch.ops) > maxPooledOps {
		return
	}
	c.batch.Reset()
	c.store, c.done = nil, nil
	prefixedCommits.Put(c)
}

func (c *prefixedCommit) finish(err error) {
	x, done := c.store, c.done
	c.release()
	done(err)
	x.leave()
}

type prefixedAsync struct {
	x     *prefixed
	async AsyncCommitter
}

func (a prefixedAsync) CommitAsync(b *Batch, done func(error)) {
	if err := a.x.enter(); err != nil {
		done(err)
		return
	}
	if err := Validate(b); err != nil {
		done(err)
		a.x.leave()
		return
	}
	c := a.x.rewrite(b)
	c.done = done
	a.async.CommitAsync(&c.batch, c.complete)
}

type prefixedSnap struct {
	x    *prefixed
	snap Snapshotter
}

func (s prefixedSnap) Snapshot() (View, error) {
	if err := s.x.check(); err != nil {
		return nil, err
	}
	v, err := s.snap.Snapshot()
	if err != nil {
		return nil, err
	}
	return &prefixedView{x: s.x, view: v}, nil
}

type prefixedView struct {
	x    *prefixed
	view View
}

func (v *prefixedView) Get(key []byte) ([]byte, error) {
	if err := v.x.check(); err != nil {
		return nil, err
	}
	return prefixedGet(v.x, v.view, key)
}

func (v *prefixedView) Scan(from, to []byte) (Iterator, error) {
	if err := v.x.check(); err != nil {
		return nil, err
	}
	return prefixedScan(v.x, v.view, from, to)
}

func (v *prefixedView) Close() error { return v.view.Close() }

// reader is what a Store and a View have in common.
type reader interface {
	Get(key []byte) ([]byte, error)
	Scan(from, to []byte) (Iterator, error)
}

func prefixedGet(x *prefixed, r reader, key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, ErrNotFound
	}
	return r.Get(x.appendKey(make([]byte, 0, len(x.prefix)+len(key)), key))
}

func prefixedScan(x *prefixed, r reader, from, to []byte) (Iterator, error) {
	bounds := make([]byte, 0, 2*len(x.prefix)+len(from)+len(to)+1)
	bounds = x.appendFrom(bounds, from)
	middle := len(bounds)
	bounds = x.appendTo(bounds, to)
	it, err := r.Scan(bounds[:middle:middle], bounds[middle:])
	if err != nil {
		return nil, err
	}
	return &prefixedIterator{x: x, it: it}, nil
}

type prefixedIterator struct {
	x  *prefixed
	it Iterator
}

func (i *prefixedIterator) Next() (key, value []byte, err error) {
	if err := i.x.check(); err != nil {
		return nil, nil, err
	}
	key, value, err = i.it.Next()
	if err != nil {
		return nil, nil, err
	}
	if !bytes.HasPrefix(key, i.x.prefix) {
		return nil, nil, &CorruptError{Key: bytes.Clone(key), Reason: "the store returned a key outside of the range that was asked for"}
	}
	return key[len(i.x.prefix):], value, nil
}

func (i *prefixedIterator) Close() error { return i.it.Close() }
