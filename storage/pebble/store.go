package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	engine "github.com/cockroachdb/pebble/v2"

	"github.com/synod-go/synod/storage"
)

// Store is a storage.Store on disk, made by Open. All methods may be called
// concurrently. Besides the errors of package storage, methods return those of
// the file system, wrapped.
type Store struct {
	dir   string
	db    *engine.DB
	lock  io.Closer
	log   *slog.Logger
	guard *guard
	space *space
	queue *queue
	ended chan struct{} // closed when the goroutine that calls the dones is gone

	// mu is held for reading by every call that is in Pebble, which must not be
	// called once it is closed.
	mu     sync.RWMutex
	closed bool
	wedged bool // Pebble panicked and can't be closed; under openMu

	closeMu sync.Mutex // serializes Close

	openMu sync.Mutex
	open   map[invalidator]struct{} // iterators and views
}

// invalidator is what becomes invalid with the store.
type invalidator interface{ invalidate() error }

var (
	_ storage.Store          = (*Store)(nil)
	_ storage.AsyncCommitter = (*Store)(nil)
	_ storage.Snapshotter    = (*Store)(nil)
)

// Get implements storage.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return s.get(s.db, key)
}

// readable returns why the store can't be read, or nil. mu is held.
func (s *Store) readable() error {
	if s.closed {
		return storage.ErrClosed
	}
	if s.guard.broken.Load() {
		return s.guard.err()
	}
	return nil
}

func (s *Store) get(r engine.Reader, key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, storage.ErrNotFound
	}
	v, closer, err := r.Get(key)
	if err != nil {
		return nil, s.readError(key, err)
	}
	value := append([]byte{}, v...)
	if err := closer.Close(); err != nil {
		return nil, s.readError(key, err)
	}
	return value, nil
}

// readError translates an error of Pebble. key may be nil.
func (s *Store) readError(key []byte, err error) error {
	if errors.Is(err, engine.ErrNotFound) {
		return storage.ErrNotFound
	}
	if c := corruptError(s.dir, err); c != nil {
		c.Key = bytes.Clone(key)
		return c
	}
	return fmt.Errorf("storage/pebble: %s: read: %w", s.dir, err)
}

// Scan implements storage.Store.
func (s *Store) Scan(from, to []byte) (storage.Iterator, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	return s.scan(s.db, from, to)
}

// Snapshot implements storage.Snapshotter.
func (s *Store) Snapshot() (storage.View, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.readable(); err != nil {
		return nil, err
	}
	v := &view{store: s, snapshot: s.db.NewSnapshot()}
	s.track(v)
	return v, nil
}

func (s *Store) track(i invalidator) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.open[i] = struct{}{}
}

func (s *Store) forget(i invalidator) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	delete(s.open, i)
}

// Commit implements storage.Store.
func (s *Store) Commit(b *storage.Batch) error {
	if err := validate(b); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	batch, err := s.begin(b)
	if err != nil || batch == nil {
		return err
	}
	return s.finish(batch)
}

// commitOverhead is what a commit costs in memory besides its bytes.
const commitOverhead = 256

// CommitAsync implements storage.AsyncCommitter. It waits while the commits
// under way hold Config.MaxPendingBytes, and where Pebble stalls. An error that
// the store survives, storage.ErrNoSpace or storage.ErrInvalidBatch, is passed to
// done before CommitAsync returns: whoever commits in a pipeline knows of it
// before it commits what depends on it.
func (s *Store) CommitAsync(b *storage.Batch, done func(error)) {
	c := commit{done: done, size: int64(b.Size()) + commitOverhead}
	s.queue.reserve(c.size)
	if c.err = validate(b); c.err == nil {
		s.mu.RLock()
		c.batch, c.err = s.begin(b)
		s.mu.RUnlock()
	}
	if c.err != nil && !errors.Is(c.err, storage.ErrClosed) && !errors.Is(c.err, storage.ErrFailed) {
		c.over = make(chan struct{})
	}
	if !s.queue.push(c) {
		// The store is closed, and every done before this one has been called.
		s.queue.release(c.size)
		done(c.err)
		return
	}
	if c.over != nil {
		<-c.over
	}
}

// complete calls the dones.
func (s *Store) complete() {
	defer close(s.ended)
	var commits []commit
	for {
		commits = s.queue.take(commits)
		if len(commits) == 0 {
			return
		}
		for i := range commits {
			c := &commits[i]
			if c.batch != nil {
				c.err = s.finish(c.batch)
			} else if c.err == nil {
				c.err = s.guard.err()
			}
			s.queue.release(c.size)
			c.done(c.err)
			if c.over != nil {
				close(c.over)
			}
		}
	}
}

// highest is above all keys: those that are not below it are refused. Pebble has
// no range without an upper bound.
var highest = bytes.Repeat([]byte{0xff}, 256)

// lowest is the lowest key, since keys are not empty.
var lowest = []byte{0}

// maxBatch is the size that a batch must be below, in bytes. Pebble panics
// beyond 4 GiB.
const maxBatch = 1 << 30

func validate(b *storage.Batch) error {
	if err := storage.Validate(b); err != nil {
		return err
	}
	if b.Size() >= maxBatch {
		return fmt.Errorf("%w: it has %d bytes, the limit is %d: commit it in parts", storage.ErrInvalidBatch, b.Size(), maxBatch)
	}
	for i, op := range b.Ops() {
		if len(op.Key) >= len(highest) && op.Kind == storage.KindSet && bytes.Compare(op.Key, highest) >= 0 {
			return fmt.Errorf("%w: the key of operation %d begins with %d bytes of 0xff", storage.ErrInvalidBatch, i, len(highest))
		}
	}
	return nil
}

// begin applies b to the table in memory and queues it for the log. It returns a
// nil batch if there is nothing to do. mu is held.
func (s *Store) begin(b *storage.Batch) (*engine.Batch, error) {
	if s.closed {
		return nil, storage.ErrClosed
	}
	if err := s.guard.err(); err != nil {
		return nil, err
	}
	if b.Len() == 0 {
		return nil, nil
	}
	if err := s.space.admit(b); err != nil {
		return nil, err
	}
	batch := s.db.NewBatchWithSize(repSize(b))
	if err := translate(batch, b); err != nil {
		batch.Close()
		return nil, fmt.Errorf("storage/pebble: %w", err)
	}
	if batch.Empty() {
		batch.Close()
		return nil, nil
	}
	if err := s.apply(batch); err != nil {
		return nil, err
	}
	return batch, nil
}

// repSize returns an upper bound of what b takes in Pebble's encoding: a header,
// and for each operation a byte and two lengths.
func repSize(b *storage.Batch) int {
	n := 12 + b.Size() + 11*b.Len()
	for _, op := range b.Ops() {
		if op.Kind == storage.KindDeleteRange {
			n += len(highest) + 1
		}
	}
	return n
}

func translate(batch *engine.Batch, b *storage.Batch) error {
	for _, op := range b.Ops() {
		var err error
		switch op.Kind {
		case storage.KindSet:
			err = batch.Set(op.Key, op.Value, nil)
		case storage.KindDelete:
			err = batch.Delete(op.Key, nil)
		case storage.KindDeleteRange:
			from, to := op.Key, op.End
			if len(from) == 0 {
				from = lowest
			}
			if len(to) == 0 {
				to = highest
			}
			if bytes.Compare(from, to) < 0 {
				err = batch.DeleteRange(from, to, nil)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// apply commits the batch without waiting for the sync. The guard keeps failures
// of the disk from Pebble; should it panic nevertheless, the store has failed.
func (s *Store) apply(batch *engine.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.wedge(r)
			err = s.guard.err()
		}
	}()
	if err := s.db.ApplyNoSyncWait(batch, engine.Sync); err != nil {
		s.guard.fail("commit", "", err)
		return s.guard.err()
	}
	return nil
}

// wedge records that Pebble panicked, possibly with its mutexes held: it must not
// be entered again.
func (s *Store) wedge(reason any) {
	s.openMu.Lock()
	s.wedged = true
	s.openMu.Unlock()
	s.guard.breakDown(fmt.Sprintf("panic: %v", reason))
}

// finish waits for the sync of a batch, and returns what became of it.
func (s *Store) finish(batch *engine.Batch) error {
	if err := batch.SyncWait(); err != nil {
		s.guard.fail("sync", "", err)
	}
	if err := s.guard.err(); err != nil {
		return err
	}
	batch.Close() // makes it available again
	return nil
}

// Close implements storage.Store. Of a store that has failed it returns nil:
// whoever committed has been told.
func (s *Store) Close() error {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.guard.full.Load() {
		// A commit may be stalled until there is room, which may be never. What
		// it waits for is then done in memory, and it fails.
		s.guard.fail("close", s.dir, errors.New("closed while the disk was full"))
	}
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.queue.close()
	<-s.ended

	s.openMu.Lock()
	wedged := s.wedged
	left := make([]invalidator, 0, len(s.open))
	for i := range s.open {
		left = append(left, i)
	}
	s.openMu.Unlock()
	var err error
	if !wedged {
		// Views after the iterators that came from them is not necessary: an
		// iterator holds what it needs.
		for _, i := range left {
			err = errors.Join(err, i.invalidate())
		}
	}
	close(s.guard.closing)
	if !wedged {
		err = errors.Join(err, closeEngine(s.db))
	}
	err = errors.Join(err, s.lock.Close())
	if f := s.guard.err(); f != nil {
		// Who commits has been told, and errors that follow from it tell nothing.
		return nil
	}
	if err != nil {
		return fmt.Errorf("storage/pebble: close %s: %w", s.dir, err)
	}
	return nil
}

func closeEngine(db *engine.DB) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return db.Close()
}
