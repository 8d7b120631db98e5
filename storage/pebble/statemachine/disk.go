package statemachine

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod/storage"
)

// disk stands between Pebble and the files of one state. Pebble's answers to a
// failed write of its manifest are Fatalf and panic, so it is never told of one: the
// disk remembers the first failure, and from then on nothing in the state's
// directory is changed any more, in particular nothing is removed, which Pebble does
// once it believes that something newer is durable.
//
// The failure is recorded before the call that failed returns to Pebble. So whoever
// looks for it after Pebble says that something is durable, as DurableIndex does, is
// not deceived.
//
// Table files are different. Pebble writes another one where one could not be
// written, from data that it still has in memory. It is left to do so where the disk
// is full; other failures freeze the state, too. There is no write-ahead log here.
//
// What is outside of the directory, checkpoints, is not the state: failures there
// pass through.
type disk struct {
	vfs.FS
	dir   string
	log   *slog.Logger
	pause time.Duration

	opening     atomic.Bool // Pebble's Open has not returned
	starting    atomic.Bool // nothing has been applied: a full disk is an error like others
	failure     atomic.Pointer[failure]
	failed      chan struct{} // closed at the failure
	broken      atomic.Bool   // Pebble has called Fatalf: don't even read
	wedged      atomic.Bool   // Pebble has panicked, maybe with its locks held: don't even close it
	full        atomic.Bool   // a table file could not be written for lack of space
	tableErrors atomic.Int32  // in a row
	closing     chan struct{} // closed when the state is being closed
}

type failure struct{ err error }

func newDisk(c *Config, dir string) *disk {
	d := &disk{FS: c.FS, dir: dir, log: c.Logger, pause: c.pause, failed: make(chan struct{}), closing: make(chan struct{})}
	d.opening.Store(true)
	d.starting.Store(true)
	return d
}

// err returns what everybody gets since the first failure, or nil.
func (d *disk) err() error {
	if f := d.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

// fail records a failure, of which the first counts.
func (d *disk) fail(op, name string, cause error) {
	f := &failure{fmt.Errorf("%w: storage/pebble/statemachine: %s %s: %w", storage.ErrFailed, op, name, cause)}
	if d.failure.CompareAndSwap(nil, f) {
		close(d.failed)
		d.log.Error("state machine failed, nothing is written any more; check the disk, then open it again",
			"operation", op, "file", name, "error", cause)
	}
}

// breakDown records that Pebble found its own state to be impossible.
func (d *disk) breakDown(message string) {
	d.broken.Store(true)
	d.fail("engine", d.dir, errors.New(message))
}

// maxTableErrors is how often in a row a table file may not be created, for lack of
// descriptors for example, before that is a failure.
const maxTableErrors = 10

// failTable handles a failure to write a table file, and returns what Pebble is to see.
func (d *disk) failTable(op, name string, cause error) error {
	n := d.tableErrors.Add(1)
	space := isNoSpace(cause)
	if space && !d.starting.Load() && !d.full.Swap(true) {
		d.log.Warn("the disk is full: commands wait until there is room", "dir", d.dir)
	}
	if d.starting.Load() || !space && (op != "create" || n >= maxTableErrors) {
		d.fail(op, name, cause)
	}
	return cause
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// awaitTable holds up a goroutine of Pebble's that wants to create a table file:
// after errors for a while, since Pebble tries again at once and for ever, and after a
// failure until the state is closed.
func (d *disk) awaitTable() error {
	const maxPause = time.Second
	if n := d.tableErrors.Load(); n > 0 && d.err() == nil {
		t := time.NewTimer(min(d.pause<<min(n, 10), maxPause))
		defer t.Stop()
		select {
		case <-t.C:
		case <-d.failed:
		case <-d.closing:
		}
	}
	if d.err() != nil && !d.opening.Load() {
		<-d.closing
	}
	return d.err()
}

// guards reports whether the file belongs to the state.
func (d *disk) guards(name string) bool { return name == d.dir || d.PathDir(name) == d.dir }

func isTable(name string) bool { return strings.HasSuffix(name, ".sst") }

// isMarker reports whether the file is one whose name says which manifest, or which
// format, is current. Pebble moves a marker in this order: it creates the manifest,
// and the marker that names it, removes the old marker, and then syncs the directory.
// A crash may keep any part of this, a marker without its manifest, or no marker, so
// the directory is synced before each step.
func (d *disk) isMarker(name string) bool {
	return strings.HasPrefix(d.PathBase(name), "marker.")
}

func (d *disk) syncDir() {
	f, err := d.OpenDir(d.dir)
	if err != nil {
		d.fail("open", d.dir, err)
		return
	}
	_ = f.Sync() // a guarded file, which records failures itself
	_ = f.Close()
}

// Create implements vfs.FS.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !d.guards(name) {
		return d.FS.Create(name, category)
	}
	table := isTable(name)
	if table {
		if err := d.awaitTable(); err != nil {
			return nil, err
		}
	}
	if d.isMarker(name) {
		d.syncDir()
	}
	if d.err() != nil {
		return nowhere(), nil
	}
	f, err := d.FS.Create(name, category)
	switch {
	case err == nil:
		return &guardedFile{f, d, name, table}, nil
	case table:
		return nil, d.failTable("create", name, err)
	}
	d.fail("create", name, err)
	return nowhere(), nil
}

// OpenReadWrite implements vfs.FS.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if !d.guards(name) {
		return d.FS.OpenReadWrite(name, category, opts...)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	return &guardedFile{f, d, name, isTable(name)}, nil
}

// ReuseForWrite implements vfs.FS. Only write-ahead logs are used again.
func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, fmt.Errorf("storage/pebble/statemachine: %s: used again as %s", oldname, newname)
}

// OpenDir implements vfs.FS.
func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil || !d.guards(name) {
		return f, err
	}
	return &guardedFile{f, d, name, false}, nil
}

// Remove implements vfs.FS.
func (d *disk) Remove(name string) error {
	if !d.guards(name) {
		return d.FS.Remove(name)
	}
	if d.isMarker(name) {
		d.syncDir()
	}
	if d.err() != nil {
		return nil
	}
	return d.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (d *disk) RemoveAll(name string) error {
	if d.guards(name) && d.err() != nil {
		return nil
	}
	return d.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (d *disk) Rename(oldname, newname string) error {
	if !d.guards(newname) {
		return d.FS.Rename(oldname, newname)
	}
	if d.err() == nil {
		if err := d.FS.Rename(oldname, newname); err != nil {
			d.fail("rename", oldname, err)
		}
	}
	return nil
}

// Unwrap implements vfs.FS.
func (d *disk) Unwrap() vfs.FS { return d.FS }

// guardedFile is a file of the state that Pebble writes, or its directory.
type guardedFile struct {
	vfs.File
	disk  *disk
	name  string
	table bool
}

// change changes the file, unless nothing is changed any more, and returns what
// Pebble is to see.
func (f *guardedFile) change(op string, fn func() error) error {
	if err := f.disk.err(); err != nil {
		if f.table {
			return err // it writes another one, which has to wait
		}
		return nil
	}
	err := fn()
	switch {
	case err == nil:
		return nil
	case f.table:
		return f.disk.failTable(op, f.name, err)
	}
	f.disk.fail(op, f.name, err)
	return nil
}

// Write implements vfs.File.
func (f *guardedFile) Write(p []byte) (int, error) {
	return len(p), f.change("write", func() error {
		_, err := f.File.Write(p)
		return err
	})
}

// WriteAt implements vfs.File.
func (f *guardedFile) WriteAt(p []byte, offset int64) (int, error) {
	return len(p), f.change("write", func() error {
		_, err := f.File.WriteAt(p, offset)
		return err
	})
}

// Sync implements vfs.File.
func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardedFile) sync(fn func() error) error {
	err := f.change("sync", fn)
	if err == nil && f.table {
		f.disk.tableErrors.Store(0)
		if f.disk.full.Swap(false) {
			f.disk.log.Info("there is room on the disk again", "dir", f.disk.dir)
		}
	}
	return err
}

// SyncTo implements vfs.File.
func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	err = f.change("sync", func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Preallocate implements vfs.File.
func (f *guardedFile) Preallocate(offset, length int64) error {
	if f.disk.err() != nil {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Close implements vfs.File.
func (f *guardedFile) Close() error {
	err := f.File.Close()
	if f.disk.err() != nil {
		return nil
	}
	return f.change("close", func() error { return err })
}

// nowhere returns a file that takes everything and keeps nothing. Pebble does not read
// back what it writes to files other than tables.
func nowhere() vfs.File { return nowhereFile{vfs.NewMemFile(nil)} }

type nowhereFile struct{ vfs.File }

func (nowhereFile) Write(p []byte) (int, error)            { return len(p), nil }
func (nowhereFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhereFile) Preallocate(_, _ int64) error           { return nil }
func (nowhereFile) Sync() error                            { return nil }
func (nowhereFile) SyncData() error                        { return nil }
func (nowhereFile) SyncTo(int64) (bool, error)             { return true, nil }
