package memory

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/synod-go/synod/storage"
)

// Config configures a [Store]. The zero Config is good.
type Config struct {
	// Capacity is the number of bytes, of all keys and values together, that a
	// commit must not leave visible, lest it be refused with an error that wraps
	// storage.ErrNoSpace. 0: no limit.
	Capacity int64
}

// Store is a storage.Store in memory. All methods may be called concurrently.
type Store struct {
	config Config

	mu        sync.Mutex
	cond      sync.Cond // a completion was delivered
	visible   *node     // what readers see
	durable   *node     // what a crash leaves
	size      int64     // bytes in visible
	synced    int64     // bytes in durable
	held      bool
	full      bool
	closed    bool
	failed    error        // what every later commit gets
	refused   error        // what CommitAsync gets, until a done is called with it
	write     fault        // the next FailCommit
	sync      fault        // the next FailSync
	waiting   []completion // visible, not durable
	ready     []completion // to be delivered, in order
	delivery  bool         // somebody is calling the functions in ready
	commits   int
	syncCalls int
}

// completion is a done function, with its argument once that is known.
type completion struct {
	done func(error)
	err  error
}

// fault is an error that is due after some more operations; 0: none.
type fault struct {
	in  int
	err error
}

// due counts one operation, and returns the error if it is the one to fail.
func (f *fault) due() error {
	if f.in == 0 {
		return nil
	}
	f.in--
	if f.in > 0 {
		return nil
	}
	return f.err
}

var (
	_ storage.Store          = (*Store)(nil)
	_ storage.AsyncCommitter = (*Store)(nil)
	_ storage.Snapshotter    = (*Store)(nil)
)

// Open returns an empty store.
func Open(c Config) *Store {
	s := &Store{config: c}
	s.cond.L = &s.mu
	return s
}

// Crash ends the store as the end of its process would, and returns a new one
// with what was durable: what a process finds that opens it afterwards. After
// Close that is everything. Completions that are still due are never called;
// blocked calls and later ones return an error that wraps storage.ErrClosed. The
// new store has the Config of the old one, and none of its faults.
func (s *Store) Crash() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.waiting, s.ready = nil, nil
	s.cond.Broadcast()
	n := Open(s.config)
	n.visible, n.durable = s.durable, s.durable
	n.size, n.synced = s.synced, s.synced
	return n
}

// HoldSync makes later commits visible, but not durable, until ReleaseSync.
func (s *Store) HoldSync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

// ReleaseSync ends HoldSync: one sync makes everything durable, and the
// completions that are due are called before ReleaseSync returns.
func (s *Store) ReleaseSync() {
	s.mu.Lock()
	s.held = false
	s.syncLocked()
	s.deliver()
}

// FailCommit makes the n-th commit from now, counted from one, fail with an
// error that wraps storage.ErrFailed and err. Nothing of it becomes visible.
// Every later commit fails alike.
func (s *Store) FailCommit(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write = fault{n, err}
}

// FailSync makes the n-th sync from now, counted from one, fail. The commits
// that wait for it, and all later ones, fail with an error that wraps
// storage.ErrFailed and err. Their operations stay visible, and are lost in a
// crash. A commit causes one sync of its own, unless syncs are held: then
// ReleaseSync causes one for all that wait.
func (s *Store) FailSync(n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sync = fault{n, err}
}

// SetFull sets whether commits are refused with storage.ErrNoSpace.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// Counts returns how many commits took effect so far, and how many syncs there
// were.
func (s *Store) Counts() (commits, syncs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits, s.syncCalls
}

// Get implements storage.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, storage.ErrClosed
	}
	return value(s.visible, key)
}

func value(root *node, key []byte) ([]byte, error) {
	n := get(root, key)
	if n == nil {
		return nil, storage.ErrNotFound
	}
	return append([]byte{}, n.value...), nil
}

// Scan implements storage.Store.
func (s *Store) Scan(from, to []byte) (storage.Iterator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, storage.ErrClosed
	}
	return s.scan(s.visible, from, to), nil
}

func (s *Store) scan(root *node, from, to []byte) *iterator {
	return &iterator{store: s, cursor: newCursor(root, from), to: bytes.Clone(to)}
}

// Commit implements storage.Store. While syncs are held, it blocks.
func (s *Store) Commit(b *storage.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.apply(b); err != nil {
		return err
	}
	if !s.held {
		return s.syncLocked()
	}
	var result error
	over := false
	s.waiting = append(s.waiting, completion{done: func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		result, over = err, true
		s.cond.Broadcast()
	}})
	for !over {
		if s.closed && !s.pending() {
			return fmt.Errorf("%w: the store crashed during the commit", storage.ErrClosed)
		}
		s.cond.Wait()
	}
	return result
}

// CommitAsync implements storage.AsyncCommitter. Unless syncs are held, the
// batch is durable and done was called when it returns, but for a call from
// within a done, or concurrent with one.
func (s *Store) CommitAsync(b *storage.Batch, done func(error)) {
	s.mu.Lock()
	// An error, too, waits for its turn; until its done is called, nothing that
	// may depend on b is taken either.
	err := s.refused
	if err == nil {
		err = s.apply(b)
		s.refused = err
	}
	s.waiting = append(s.waiting, completion{done, err})
	if !s.held {
		s.syncLocked()
	}
	s.deliver()
}

// apply makes b visible, or returns why it does not.
func (s *Store) apply(b *storage.Batch) error {
	if s.closed {
		return storage.ErrClosed
	}
	if err := storage.Validate(b); err != nil {
		return err
	}
	if s.failed != nil {
		return s.failed
	}
	if s.full {
		return fmt.Errorf("%w: SetFull was called", storage.ErrNoSpace)
	}
	if err := s.write.due(); err != nil {
		s.failed = fmt.Errorf("%w: write: %w", storage.ErrFailed, err)
		return s.failed
	}
	root, added := s.visible, int64(0)
	counting := s.config.Capacity > 0
	for _, op := range b.Ops() {
		switch op.Kind {
		case storage.KindSet:
			n := &node{key: bytes.Clone(op.Key), value: bytes.Clone(op.Value), priority: priorityOf(op.Key)}
			if counting {
				added += n.size() - get(root, op.Key).size()
			}
			root = set(root, n)
		case storage.KindDelete:
			if n := get(root, op.Key); n != nil {
				if counting {
					added -= n.size()
				}
				root = remove(root, op.Key)
			}
		case storage.KindDeleteRange:
			if counting {
				for c := newCursor(root, op.Key); ; {
					n := c.next()
					if n == nil || len(op.End) > 0 && bytes.Compare(n.key, op.End) >= 0 {
						break
					}
					added -= n.size()
				}
			}
			root = removeRange(root, op.Key, op.End)
		}
	}
	if c := s.config.Capacity; counting && added > 0 && s.size+added > c {
		return fmt.Errorf("%w: %d bytes would be over the capacity of %d", storage.ErrNoSpace, s.size+added, c)
	}
	s.visible = root
	s.size += added
	s.commits++
	return nil
}

func (n *node) size() int64 {
	if n == nil {
		return 0
	}
	return int64(len(n.key) + len(n.value))
}

// syncLocked makes everything durable, and moves all that waits to ready. It
// costs a sync if there is anything to make durable.
func (s *Store) syncLocked() error {
	err := s.failed
	if err == nil && s.visible != s.durable {
		s.syncCalls++
		if cause := s.sync.due(); cause != nil {
			s.failed = fmt.Errorf("%w: sync: %w", storage.ErrFailed, cause)
			err = s.failed
		}
	}
	if err == nil {
		s.durable, s.synced = s.visible, s.size
	}
	for _, c := range s.waiting {
		if c.err == nil {
			c.err = err
		}
		s.ready = append(s.ready, c)
	}
	s.waiting = s.waiting[:0]
	return err
}

// deliver calls the functions in ready, in order, unless somebody is at it
// already, who will see what was added. It gives the mutex up.
func (s *Store) deliver() {
	if s.delivery {
		s.mu.Unlock()
		return
	}
	s.delivery = true
	for len(s.ready) > 0 {
		c := s.ready[0]
		s.ready[0] = completion{}
		s.ready = s.ready[1:]
		if c.err != nil {
			s.refused = nil
		}
		s.mu.Unlock()
		c.done(c.err)
		s.mu.Lock()
	}
	s.ready = nil
	s.delivery = false
	s.cond.Broadcast()
	s.mu.Unlock()
}

// pending reports whether there are completions that will be called.
func (s *Store) pending() bool {
	return len(s.waiting) > 0 || len(s.ready) > 0 || s.delivery
}

// Snapshot implements storage.Snapshotter.
func (s *Store) Snapshot() (storage.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, storage.ErrClosed
	}
	return &view{store: s, root: s.visible}, nil
}

// Close implements storage.Store. It releases held syncs first. It must not be
// called from within a done.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.held = false
		s.syncLocked()
	}
	s.deliver()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending() {
		s.cond.Wait()
	}
	return nil
}

// isClosed reports whether iterators and views have become invalid.
func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

type view struct {
	store *Store
	mu    sync.Mutex
	root  *node
	ended bool
}

func (v *view) current() (*node, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended || v.store.isClosed() {
		return nil, storage.ErrClosed
	}
	return v.root, nil
}

func (v *view) Get(key []byte) ([]byte, error) {
	root, err := v.current()
	if err != nil {
		return nil, err
	}
	return value(root, key)
}

func (v *view) Scan(from, to []byte) (storage.Iterator, error) {
	root, err := v.current()
	if err != nil {
		return nil, err
	}
	return v.store.scan(root, from, to), nil
}

func (v *view) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.root, v.ended = nil, true
	return nil
}

type iterator struct {
	store      *Store
	cursor     cursor
	to         []byte
	key, value []byte // what Next returned
	closed     bool
}

func (i *iterator) Next() (key, value []byte, err error) {
	const poison = 0xdb
	for _, b := range [...][]byte{i.key, i.value} {
		for j := range b {
			b[j] = poison
		}
	}
	i.key, i.value = i.key[:0], i.value[:0]
	if i.closed || i.store.isClosed() {
		return nil, nil, storage.ErrClosed
	}
	n := i.cursor.next()
	if n == nil || len(i.to) > 0 && bytes.Compare(n.key, i.to) >= 0 {
		i.cursor = cursor{}
		return nil, nil, io.EOF
	}
	i.key = append(i.key, n.key...)
	i.value = append(i.value, n.value...)
	return i.key, i.value, nil
}

func (i *iterator) Close() error {
	i.closed = true
	i.cursor = cursor{}
	return nil
}
