package statemachine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/storage"
)

// snapshot is a checkpoint: a directory of links to the files of a state.
type snapshot struct {
	machine *Machine
	dir     string
	index   uint64
	files   []snapshotFile

	mu      sync.Mutex
	readers int
	closed  bool
}

type snapshotFile struct {
	name string
	size int64
}

var (
	_ io.WriterTo = (*snapshot)(nil)
	_ io.Closer   = (*snapshot)(nil)
)

// Snapshot implements synod.StateMachine. It writes what is in memory to disk, no more
// than a few times Config.MemTableBytes, and makes a checkpoint, a link for each of
// Pebble's files: its cost does not depend on how much the state holds. The links keep the files
// on disk until the value, which is an io.Closer, is closed.
//
// WriteTo streams the files and needs a constant amount of memory. Before a table is
// sent, the checksums of its blocks are verified, so that a flipped bit does not reach
// other replicas: the error is then a *storage.CorruptError. It may be called more than
// once and concurrently; after Close, or Close of the machine, it returns
// storage.ErrClosed.
func (m *Machine) Snapshot() (io.WriterTo, error) {
	m.work.Lock()
	defer m.work.Unlock()
	s, err := m.use()
	if err != nil {
		return nil, fmt.Errorf("%s: snapshot: %w", packageName, err)
	}
	defer s.release()
	snap, err := m.capture(s)
	if err != nil {
		return nil, fmt.Errorf("%s: snapshot: %w", packageName, err)
	}
	return snap, nil
}

func (m *Machine) capture(s *state) (*snapshot, error) {
	if err := s.flush(); err != nil {
		return nil, err
	}
	if err := s.await(context.Background(), 0, m.closing); err != nil {
		return nil, err
	}
	m.captured++
	snap := &snapshot{machine: m, index: m.applied.Load(), dir: m.cfg.FS.PathJoin(m.cfg.Dir, fmt.Sprintf("%s%d", snapshotPrefix, m.captured))}
	err := func() (err error) {
		defer recovered(&err) // it panics where a directory can't be synced, with no lock held
		return s.db.Checkpoint(snap.dir)
	}()
	// After a failure Pebble believes in a manifest that is not there.
	if failed := s.disk.err(); failed != nil {
		err = failed
	}
	if err == nil {
		err = snap.list()
	}
	if err != nil {
		_ = m.cfg.FS.RemoveAll(snap.dir)
		return nil, engineError(s.dir, "checkpoint", err)
	}
	m.mu.Lock()
	m.snapshots[snap] = struct{}{}
	m.mu.Unlock()
	return snap, nil
}

// list finds the files of a checkpoint. Pebble's write-ahead log is left out: it is not
// used.
func (s *snapshot) list() error {
	fs := s.machine.cfg.FS
	names, err := fs.List(s.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if !streamName.MatchString(n) {
			continue
		}
		info, err := fs.Stat(fs.PathJoin(s.dir, n))
		if err != nil {
			return err
		}
		s.files = append(s.files, snapshotFile{n, info.Size()})
	}
	return nil
}

// WriteTo implements io.WriterTo.
func (s *snapshot) WriteTo(w io.Writer) (int64, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, fmt.Errorf("%s: write a snapshot: %w", packageName, storage.ErrClosed)
	}
	s.readers++
	s.mu.Unlock()
	out := &streamWriter{w: w}
	err := s.stream(out)
	s.mu.Lock()
	s.readers--
	remove := s.closed && s.readers == 0
	s.mu.Unlock()
	if remove {
		_ = s.remove()
	}
	if err != nil {
		err = fmt.Errorf("%s: write a snapshot: %w", packageName, err)
	}
	return out.n, err
}

func (s *snapshot) stream(out *streamWriter) error {
	if err := out.begin(s.index, len(s.files)); err != nil {
		return err
	}
	for _, f := range s.files {
		select {
		case <-s.machine.closing:
			return storage.ErrClosed
		default:
		}
		if err := s.streamFile(out, f); err != nil {
			return err
		}
	}
	return out.end()
}

func (s *snapshot) streamFile(out *streamWriter, f snapshotFile) error {
	fs := s.machine.cfg.FS
	path := fs.PathJoin(s.dir, f.name)
	if isTable(f.name) {
		if err := verifyTable(&s.machine.cfg, path); err != nil {
			return err
		}
	}
	file, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return engineError(s.dir, "open "+f.name, err)
	}
	defer file.Close()
	err = out.file(f.name, f.size, file)
	var local *fileError
	if errors.As(err, &local) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return corrupt(path, "it has lost its end")
		}
		return engineError(s.dir, "read "+f.name, local.err)
	}
	return err
}

// verifyTable checks all blocks of a table.
func verifyTable(c *Config, path string) (err error) {
	o, err := c.options()
	if err != nil {
		return err
	}
	f, err := c.FS.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return engineError(path, "open", err)
	}
	err = func() (err error) {
		defer recovered(&err)
		readable, err := sstable.NewSimpleReadable(f)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
		if err != nil {
			return errors.Join(err, readable.Close())
		}
		return errors.Join(r.ValidateBlockChecksums(), r.Close())
	}()
	if err == nil {
		return nil
	}
	var bad *storage.CorruptError
	if err = engineError(path, "verify", err); errors.As(err, &bad) {
		bad.File = path
	}
	return err
}

// Close removes the checkpoint. Calls after the first return nil.
func (s *snapshot) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	remove := s.readers == 0
	s.mu.Unlock()
	if was || !remove {
		return nil // whoever reads removes it
	}
	return s.remove()
}

func (s *snapshot) remove() error {
	m := s.machine
	m.mu.Lock()
	_, there := m.snapshots[s]
	delete(m.snapshots, s)
	m.mu.Unlock()
	if !there {
		return nil
	}
	if err := m.cfg.FS.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("%s: remove a snapshot: %w", packageName, err)
	}
	return nil
}

// Restore implements synod.StateMachine. It needs a constant amount of memory, and room
// for both states on disk. The old state stays until the new one is complete, verified
// and durable; a file that is replaced in one step then says which of the two counts, so that a
// crash leaves one or the other. After an error the old state is still there, and the
// machine goes on with it, unless the error came from that very step and wraps
// storage.ErrFailed. Bytes that can't be believed are a *storage.CorruptError; a full
// disk is an error that wraps storage.ErrNoSpace.
func (m *Machine) Restore(r io.Reader) error {
	m.work.Lock()
	defer m.work.Unlock()
	s, err := m.use()
	if err != nil {
		return fmt.Errorf("%s: restore: %w", packageName, err)
	}
	defer s.release()
	if err := s.disk.err(); err != nil {
		return fmt.Errorf("%s: restore: %w", packageName, err)
	}
	if err := m.restore(s, r); err != nil {
		return fmt.Errorf("%s: restore: %w", packageName, err)
	}
	return nil
}

func (m *Machine) restore(old *state, r io.Reader) (err error) {
	fs := m.cfg.FS
	m.states++
	number := m.states
	dir := m.statePath(number)
	defer func() {
		if err != nil && old.disk.err() == nil {
			if removed := fs.RemoveAll(dir); removed != nil {
				m.cfg.Logger.Warn("an unfinished state can't be removed; the next start removes it", "dir", dir, "error", removed)
			}
		}
	}()
	in := &streamReader{r: r}
	if err := m.receive(in, dir); err != nil {
		return err
	}
	next, err := openState(&m.cfg, dir, false)
	if err != nil {
		return err
	}
	if next.applied != in.index {
		_ = next.release()
		return corrupt(streamFile, "it says that it was taken after command %d, and holds the state after %d", in.index, next.applied)
	}
	if unsure, err := writeCurrent(fs, m.cfg.Dir, current{number: number}); err != nil {
		if !unsure {
			_ = next.release()
			return engineError(m.cfg.Dir, "replace "+currentFile, err)
		}
		// Both states are kept, and a start finds out which one counts.
		old.disk.fail("replace", fs.PathJoin(m.cfg.Dir, currentFile), err)
		_ = next.release()
		return old.disk.err()
	}
	m.mu.Lock()
	for s := range m.retired {
		select {
		case <-s.closed:
			delete(m.retired, s)
		default:
		}
	}
	m.retired[old] = struct{}{}
	m.current = next
	m.mu.Unlock()
	m.applied.Store(next.applied)
	if err := old.retire(); err != nil {
		m.cfg.Logger.Warn("a state that was replaced can't be closed", "dir", old.dir, "error", err)
	}
	return nil
}

// receive writes the files of a snapshot to a new directory and makes them durable.
func (m *Machine) receive(in *streamReader, dir string) error {
	fs := m.cfg.FS
	if err := in.begin(); err != nil {
		return err
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return engineError(dir, "make", err)
	}
	for in.files > 0 {
		err := in.next(func(name string, _ int64) (io.WriteCloser, error) {
			select {
			case <-m.closing:
				return nil, storage.ErrClosed
			default:
			}
			f, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
			if err != nil {
				return nil, engineError(dir, "create "+name, err)
			}
			return &receivedFile{vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: bytesPerSync}), dir, name}, nil
		})
		if err != nil {
			return err
		}
	}
	if err := in.end(); err != nil {
		return err
	}
	for _, d := range []string{dir, m.cfg.Dir} {
		if err := syncDir(fs, d); err != nil {
			return engineError(d, "sync", err)
		}
	}
	return nil
}

// receivedFile is a file of a new state, durable once it is closed.
type receivedFile struct {
	vfs.File
	dir, name string
}

// Write implements io.Writer.
func (f *receivedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil {
		return n, engineError(f.dir, "write "+f.name, err)
	}
	return n, nil
}

// Close syncs and closes the file.
func (f *receivedFile) Close() error {
	err := f.File.Sync()
	if closed := f.File.Close(); err == nil {
		err = closed
	}
	return engineError(f.dir, "sync "+f.name, err)
}
