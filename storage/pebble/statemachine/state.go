package statemachine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/storage"
)

// Keys of Pebble's: the index, and below data the application's.
var indexKey = []byte{0, 'i', 'n', 'd', 'e', 'x'}

const (
	data     = 1
	dataEnds = data + 1
)

// appendKey appends the key under which the application's key is stored.
func appendKey(dst, key []byte) []byte { return append(append(dst, data), key...) }

// bounds returns the range of stored keys for one of the application's, where an
// empty to means no upper bound.
func bounds(from, to []byte) (lower, upper []byte) {
	lower = appendKey(make([]byte, 0, 1+len(from)), from)
	if len(to) == 0 {
		return lower, []byte{dataEnds}
	}
	return lower, appendKey(make([]byte, 0, 1+len(to)), to)
}

// state is one directory with a Pebble in it: the machine's current one, or one that a
// snapshot has replaced and that somebody still reads.
type state struct {
	fs   vfs.FS
	dir  string
	disk *disk
	db   *engine.DB
	log  *slog.Logger

	compacted chan struct{} // gets a value, if it has none, when a flush or a compaction ends

	mu       sync.Mutex
	refs     int                      // of the machine, of calls, of views and iterators
	open     map[invalidator]struct{} // views and iterators
	shut     bool                     // no views and iterators any more
	obsolete bool                     // the directory goes with the last reference
	closed   chan struct{}            // closed after the last reference is gone

	flushMu   sync.Mutex
	applied   uint64 // the last index in Pebble
	requested uint64 // a flush was begun of everything up to here
	unflushed int64  // bytes applied since then
	flushes   []<-chan struct{}
}

// invalidator is what becomes invalid with the state.
type invalidator interface{ invalidate() error }

// openState opens, or creates, a Pebble in a directory that is there.
func openState(c *Config, dir string, create bool) (*state, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	s := &state{fs: c.FS, dir: dir, log: c.Logger, disk: newDisk(c, dir), compacted: make(chan struct{}, 1),
		refs: 1, open: make(map[invalidator]struct{}), closed: make(chan struct{})}
	logger := &engineLogger{log: c.Logger, disk: s.disk}
	o.FS, o.Lock, o.Logger, o.LoggerAndTracer = s.disk, nil, logger, nil
	o.ErrorIfExists, o.ErrorIfNotExists = create, !create
	progress := func() {
		select {
		case s.compacted <- struct{}{}:
		default:
		}
	}
	listener := engine.EventListener{
		BackgroundError: logger.backgroundError,
		DataCorruption:  logger.corruption,
		DiskSlow:        func(i engine.DiskSlowInfo) { c.Logger.Warn("disk is slow", "event", i.String()) },
		CompactionEnd:   func(engine.CompactionInfo) { progress() },
	}
	if o.EventListener != nil {
		listener = engine.TeeEventListener(listener, *o.EventListener)
	}
	o.EventListener = &listener
	if !create {
		if err := checkManifest(c.FS, dir); err != nil {
			return nil, err
		}
	}
	s.db, err = func() (db *engine.DB, err error) {
		defer recovered(&err)
		return engine.Open(dir, o)
	}()
	if f := s.disk.err(); f != nil {
		if s.db != nil {
			_ = s.closeEngine()
		}
		return nil, unusable(dir, "it can't be written", f)
	}
	if err != nil {
		return nil, engineError(dir, "open", err)
	}
	s.disk.opening.Store(false)
	if create {
		err = s.create()
	}
	if err == nil {
		s.applied, err = s.index(s.db, nil)
	}
	if err != nil {
		if closed := s.closeEngine(); s.disk.err() == nil {
			err = errors.Join(err, closed)
		}
		return nil, err
	}
	s.disk.starting.Store(false)
	s.requested = s.applied // no write-ahead log: what was opened is durable
	return s, nil
}

// create writes the index of an empty state: one that is missing is a loss.
func (s *state) create() error {
	if err := s.db.Set(indexKey, binary.BigEndian.AppendUint64(nil, 0), engine.NoSync); err != nil {
		return engineError(s.dir, "create", err)
	}
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return engineError(s.dir, "create", err)
	}
	select {
	case <-flushed:
	case <-s.disk.failed:
	}
	if err := s.disk.err(); err != nil {
		return unusable(s.dir, "it can't be written", err)
	}
	return nil
}

// recovered turns a panic of Pebble's into an error.
func recovered(err *error) {
	switch v := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("panic: %w", v)
	default:
		*err = fmt.Errorf("panic: %v", v)
	}
}

func (s *state) closeEngine() (err error) {
	defer recovered(&err)
	close(s.disk.closing)
	if s.disk.wedged.Load() {
		return s.disk.err()
	}
	return s.db.Close()
}

// index reads the index of the last command, as r sees it.
func (s *state) index(r engine.Reader, options *engine.IterOptions) (index uint64, err error) {
	it, err := r.NewIter(options)
	if err != nil {
		return 0, engineError(s.dir, "read the index", err)
	}
	defer func() {
		if closed := it.Close(); closed != nil && err == nil {
			err = engineError(s.dir, "read the index", closed)
		}
	}()
	if !it.SeekGE(indexKey) || string(it.Key()) != string(indexKey) {
		if err := it.Error(); err != nil {
			return 0, engineError(s.dir, "read the index", err)
		}
		return 0, corrupt(s.dir, "the index of the last command is missing")
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, engineError(s.dir, "read the index", err)
	}
	if len(value) != 8 {
		return 0, corrupt(s.dir, "the index of the last command has %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// durable returns the index that survives a crash now.
func (s *state) durable() (uint64, error) {
	if failed := s.disk.err(); failed != nil {
		return 0, failed
	}
	// This iterator sees tables only. Their files, and the manifest that names them, are
	// synced before it does, in the order of what was applied.
	index, err := s.index(s.db, &engine.IterOptions{OnlyReadGuaranteedDurable: true})
	// After a failure Pebble believes in syncs that never were, so look afterwards.
	if failed := s.disk.err(); failed != nil {
		return 0, failed
	}
	return index, err
}

// readable returns why the state can't be read, or nil.
func (s *state) readable() error {
	if s.disk.broken.Load() {
		return s.disk.err()
	}
	return nil
}

// acquire takes a reference for a view or an iterator, which is made under it.
func (s *state) acquire(i invalidator) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return storage.ErrClosed
	}
	if err := s.readable(); err != nil {
		return err
	}
	s.refs++
	s.open[i] = struct{}{}
	return nil
}

// forget gives back what acquire took. It may be called again.
func (s *state) forget(i invalidator) error {
	s.mu.Lock()
	_, held := s.open[i]
	delete(s.open, i)
	s.mu.Unlock()
	if !held {
		return nil
	}
	return s.release()
}

// use takes a reference for a call. The caller has one, or the machine's is still held.
func (s *state) use() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs++
}

// release gives a reference back. With the last one the state is closed, and removed
// if it is obsolete.
func (s *state) release() error {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	obsolete := s.obsolete
	s.mu.Unlock()
	if !last {
		return nil
	}
	defer close(s.closed)
	err := s.closeEngine()
	if s.disk.err() != nil {
		err = nil // everybody has been told, and what follows from it tells nothing
	}
	if err != nil {
		err = engineError(s.dir, "close", err)
	}
	if obsolete {
		if removed := s.fs.RemoveAll(s.dir); removed != nil {
			s.log.Warn("a state that was replaced could not be removed; the next start removes it", "dir", s.dir, "error", removed)
		}
	}
	return err
}

// retire drops the machine's reference to a state that was replaced.
func (s *state) retire() error {
	s.mu.Lock()
	s.obsolete = true
	s.mu.Unlock()
	return s.release()
}

// invalidateAll ends all views and iterators, and refuses new ones.
func (s *state) invalidateAll() (err error) {
	s.mu.Lock()
	s.shut = true
	left := make([]invalidator, 0, len(s.open))
	for i := range s.open {
		left = append(left, i)
	}
	s.mu.Unlock()
	for _, i := range left {
		err = errors.Join(err, i.invalidate(), s.forget(i))
	}
	return err
}

// flush begins to write what was applied to disk, if something was.
func (s *state) flush() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if s.requested >= s.applied {
		return nil
	}
	if err := s.disk.err(); err != nil {
		return err
	}
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return engineError(s.dir, "flush", err)
	}
	s.requested, s.unflushed = s.applied, 0
	s.flushes = append(s.flushes, flushed)
	return nil
}

// A machine waits before it applies more while so much is not on disk, or while
// compactions are so far behind, in levels that a read looks at.
const (
	maxFlushes = 2
	maxLevels  = 24
)

// pending returns the oldest of the last flushes, if there are more than so many.
func (s *state) pending(limit int) <-chan struct{} {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	for len(s.flushes) > 0 {
		select {
		case <-s.flushes[0]:
			s.flushes = s.flushes[1:]
			continue
		default:
		}
		break
	}
	if len(s.flushes) <= limit {
		return nil
	}
	return s.flushes[0]
}

// await waits until no more than so many flushes are under way.
func (s *state) await(ctx context.Context, limit int, closing <-chan struct{}) error {
	for {
		flushed := s.pending(limit)
		if err := s.disk.err(); err != nil {
			return err
		}
		if flushed == nil {
			return nil
		}
		select {
		case <-flushed:
		case <-s.disk.failed:
		case <-closing:
			return storage.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit waits until there is room for more, and begins a flush when it is time.
func (s *state) admit(limit int64, closing <-chan struct{}) error {
	if err := s.disk.err(); err != nil {
		return err
	}
	s.flushMu.Lock()
	due := s.unflushed >= limit
	s.flushMu.Unlock()
	if due {
		if err := s.flush(); err != nil {
			return err
		}
		for s.db.Metrics().Levels[0].Sublevels >= maxLevels {
			select {
			case <-s.compacted:
			case <-s.disk.failed:
				return s.disk.err()
			case <-closing:
				return storage.ErrClosed
			}
		}
	}
	return s.await(context.Background(), maxFlushes, closing)
}

// overhead is what an operation costs in memory besides its bytes.
const overhead = 64

// commit applies a batch. It reports whether it is the first since the last flush.
func (s *state) commit(b *engine.Batch, index uint64) (first bool, err error) {
	size := int64(b.Len()) + overhead*int64(b.Count())
	err = func() (err error) {
		defer func() {
			if v := recover(); v != nil {
				s.disk.wedged.Store(true)
				s.disk.breakDown(fmt.Sprintf("panic: %v", v))
				err = s.disk.err()
			}
		}()
		return s.db.Apply(b, engine.NoSync)
	}()
	if err != nil {
		s.disk.fail("apply", s.dir, err)
	}
	if err := s.disk.err(); err != nil {
		return false, err
	}
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	first = s.requested == s.applied
	s.applied = index
	s.unflushed += size
	return first, nil
}

// engineLogger passes Pebble's messages on. Pebble expects Fatalf not to return; here
// it does, after the disk was frozen, so that nothing that Pebble does from then on
// matters.
type engineLogger struct {
	log  *slog.Logger
	disk *disk
}

// Infof implements Pebble's Logger.
func (l *engineLogger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

// Errorf implements Pebble's Logger.
func (l *engineLogger) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }

// Fatalf implements Pebble's Logger.
func (l *engineLogger) Fatalf(format string, args ...any) {
	l.disk.breakDown(fmt.Sprintf(format, args...))
}

func (l *engineLogger) backgroundError(err error) {
	if l.disk.err() == nil { // what follows from a failure is noise
		l.log.Error("work in the background failed, and will be tried again", "error", err)
	}
}

func (l *engineLogger) corruption(info engine.DataCorruptionInfo) {
	l.log.Error("corrupt file: the replica has to be restored from another one", "file", info.Path, "error", info.Details)
}

var _ engine.Logger = (*engineLogger)(nil)
