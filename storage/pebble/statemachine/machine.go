package statemachine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	engine "github.com/cockroachdb/pebble/v2"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

// Machine is a state machine that keeps its state on disk, made by [Open]. It is given
// to one group, whose calls it answers; View, Index, Flush, DurableIndex and Close may be called
// concurrently with them and with each other.
//
// Where the disk fails, Apply, which has no error to return, panics with one, and so
// stops this replica of the group: it wraps storage.ErrFailed, storage.ErrCorrupt or
// storage.ErrClosed.
type Machine struct {
	cfg  Config
	lock io.Closer

	closing chan struct{} // closed when Close begins

	maxBatch, maxCommand int // bytes: the constants, but for tests

	// work is held by whatever the group calls, one at a time, and by the end of Close.
	work sync.Mutex

	applied atomic.Uint64 // index of the last command

	mu        sync.Mutex
	current   *state
	states    uint64 // the highest number of a state so far
	retired   map[*state]struct{}
	closed    bool
	snapshots map[*snapshot]struct{}
	captured  uint64 // number of the last snapshot
	timer     *time.Timer
}

var (
	_ synod.StateMachine = (*Machine)(nil)
	_ synod.BatchApplier = (*Machine)(nil)
	_ synod.DurableIndex = (*Machine)(nil)
	_ io.Closer          = (*Machine)(nil)
)

// Open opens the state in Config.Dir, and creates an empty one if there never was one.
// The errors are *synod.ConfigError; *pebble.DirError, which wraps storage.ErrLocked
// if the directory is in use; *storage.CorruptError; and others of the file system. A
// state that can't be believed is neither repaired nor replaced by an empty one.
func Open(c Config) (*Machine, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := c.makeDir(); err != nil {
		return nil, err
	}
	lock, err := engine.LockDirectory(c.Dir, c.FS)
	if err != nil {
		return nil, lockError(c.Dir, err)
	}
	m := &Machine{cfg: c, lock: lock, closing: make(chan struct{}), maxBatch: maxBatch, maxCommand: maxCommand, retired: make(map[*state]struct{}), snapshots: make(map[*snapshot]struct{})}
	if err := m.start(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	m.timer = time.AfterFunc(time.Hour, m.flushNow)
	m.timer.Stop()
	return m, nil
}

// use returns the current state with a reference for a call.
func (m *Machine) use() (*state, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, storage.ErrClosed
	}
	m.current.use()
	return m.current, nil
}

// maxBatch is the size in bytes from which on what was applied goes into Pebble, at the
// next end of a command; maxCommand that which the writes of one command must be
// below. Pebble panics beyond 4 GiB.
const (
	maxBatch   = 64 << 20
	maxCommand = 1 << 30
)

// Apply implements synod.StateMachine.
func (m *Machine) Apply(index uint64, command []byte) (result []byte) {
	entries := [1]synod.Entry{{Index: index, Command: command}}
	m.ApplyBatch(entries[:])
	return entries[0].Result
}

// ApplyBatch implements synod.BatchApplier. All commands take effect at once, together
// with the index of the last one; where they write more than 64 MiB, in parts, each of
// whole commands with its index. What was applied is visible to views, but not yet
// durable. ApplyBatch waits while the disk can't keep up or is full.
func (m *Machine) ApplyBatch(entries []synod.Entry) {
	m.work.Lock()
	defer m.work.Unlock()
	s, err := m.use()
	if err != nil {
		panic(fmt.Errorf("%s: apply: %w", packageName, err))
	}
	defer s.release()
	for len(entries) > 0 {
		if err := s.admit(m.cfg.MemTableBytes, m.closing); err != nil {
			panic(fmt.Errorf("%s: apply: %w", packageName, err))
		}
		entries = entries[m.applySome(s, entries):]
	}
}

// applySome applies commands from the first on, and returns how many.
func (m *Machine) applySome(s *state, entries []synod.Entry) (n int) {
	batch := s.db.NewIndexedBatch()
	tx := &Tx{state: s, batch: batch, limit: m.maxCommand}
	committed := false
	defer func() {
		tx.batch = nil
		if !committed {
			batch.Close() // Config.Apply has panicked: nothing of it counts
		}
	}()
	index := m.applied.Load()
	for n < len(entries) && batch.Len() < m.maxBatch {
		e := &entries[n]
		if e.Index != index+1 {
			panic(fmt.Errorf("%w: %d follows %d: open the machine again before it is given to a group again", ErrOutOfOrder, e.Index, index))
		}
		index = e.Index
		tx.index, tx.start = index, batch.Len()
		e.Result = m.cfg.Apply(tx, index, e.Command)
		n++
	}
	var value [8]byte
	binary.BigEndian.PutUint64(value[:], index)
	if err := batch.Set(indexKey, value[:], nil); err != nil {
		panic(fmt.Errorf("%s: apply: %w", packageName, err))
	}
	committed = true
	first, err := s.commit(batch, index)
	if err != nil {
		panic(fmt.Errorf("%s: apply: %w", packageName, err))
	}
	batch.Close() // makes it available again
	m.applied.Store(index)
	if first && m.cfg.FlushInterval > 0 {
		m.mu.Lock()
		if !m.closed {
			m.timer.Reset(m.cfg.FlushInterval)
		}
		m.mu.Unlock()
	}
	return n
}

// flushNow begins to write to disk what is in memory.
func (m *Machine) flushNow() {
	s, err := m.use()
	if err != nil {
		return
	}
	defer s.release()
	if err := s.flush(); err != nil && s.disk.err() == nil {
		m.cfg.Logger.Error("state machine can't flush", "dir", s.dir, "error", err)
	}
}

// Index returns the index of the last command that was applied; 0 for an empty state.
func (m *Machine) Index() uint64 { return m.applied.Load() }

// DurableIndex implements synod.DurableIndex. What lies above it is in memory; to ask
// begins to write that to disk, so that the next answer is higher. After a failure of
// the disk it returns an error that wraps storage.ErrFailed, after Close
// storage.ErrClosed.
func (m *Machine) DurableIndex() (uint64, error) {
	s, err := m.use()
	if err != nil {
		return 0, err
	}
	defer s.release()
	index, err := s.durable()
	if err != nil {
		return 0, err
	}
	if s.pending(0) != nil {
		return index, nil // under way
	}
	return index, s.flush()
}

// Flush writes what was applied before the call to disk, and returns when that is
// durable. ctx bounds the wait; the errors are its own, storage.ErrFailed and
// storage.ErrClosed.
func (m *Machine) Flush(ctx context.Context) error {
	s, err := m.use()
	if err != nil {
		return err
	}
	defer s.release()
	if err := s.flush(); err != nil {
		return err
	}
	return s.await(ctx, 0, m.closing)
}

// Close writes what was applied to disk and releases everything. Views and iterators
// become invalid, and snapshots that are still open. Close the group or its node
// before. The first call returns an error if something could not be written or closed,
// for lack of space one that wraps storage.ErrNoSpace, after a failure of the disk one that
// wraps storage.ErrFailed: the log still has what is missing. Later calls return nil.
func (m *Machine) Close() error {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.mu.Unlock()
	if was {
		return nil
	}
	m.timer.Stop()
	close(m.closing)
	m.work.Lock()
	defer m.work.Unlock()
	s := m.current
	err := m.flushLast(s)
	m.mu.Lock()
	states := []*state{s}
	for r := range m.retired {
		states = append(states, r)
	}
	var snapshots []*snapshot
	for snap := range m.snapshots {
		snapshots = append(snapshots, snap)
	}
	m.mu.Unlock()
	for _, s := range states {
		err = errors.Join(err, s.invalidateAll())
	}
	err = errors.Join(err, s.release())
	for _, s := range states {
		<-s.closed
	}
	for _, snap := range snapshots {
		err = errors.Join(err, snap.Close())
	}
	return errors.Join(err, m.lock.Close())
}

// flushLast makes everything durable before the state is closed, where that works.
func (m *Machine) flushLast(s *state) error {
	if err := s.disk.err(); err != nil {
		return err // maybe nobody has been told yet
	}
	err := s.flush()
	for err == nil {
		flushed := s.pending(0)
		if flushed == nil {
			return nil
		}
		if s.disk.full.Load() {
			return fmt.Errorf("%w: %s: %s: close: what was applied last is missing there, and is replayed", storage.ErrNoSpace, packageName, s.dir)
		}
		// Whether the disk is full is found out by the flush itself.
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-flushed:
		case <-s.disk.failed:
		case <-t.C:
		}
		t.Stop()
		err = s.disk.err()
	}
	return err
}
