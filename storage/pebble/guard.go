package pebble

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

// guard stands between Pebble and the files. Pebble's own answers to a failed
// write of its log or its manifest are Fatalf and panic. So it is never told of
// one: the guard remembers the failure, and from then on
//
//   - nothing on the disk is changed any more, in particular nothing is removed,
//     which Pebble does once it believes that something newer is durable;
//   - what Pebble writes to files that it had open goes nowhere;
//   - new files are in memory. They are read back, so that reads of the store
//     still work. Compactions are held up until the store is closed, or they
//     would copy the disk into memory; what is flushed was in memory before.
//
// The failure is recorded before the call that failed returns to Pebble. So
// whoever looks at it after a batch's sync, as the store does, sees it, and no
// commit is acknowledged that should not be.
//
// Table files are different: Pebble handles failures to write them, by writing
// another file from data that it still has. It is left to do so where the disk is
// full; other failures freeze the store, too.
type guard struct {
	vfs.FS         // the real one
	log            *slog.Logger
	opening        atomic.Bool // Open has not returned
	failure        atomic.Pointer[failure]
	broken         atomic.Bool   // Pebble has called Fatalf: don't even read
	full           atomic.Bool   // a table file could not be written for lack of space
	retries        atomic.Int32  // such failures in a row
	closing        chan struct{} // closed when the store is being closed
	mirage         *vfs.MemFS    // holds the files that were created after the failure
	fillLogs       bool
	maxTableErrors int32
}

type failure struct{ err error }

func newGuard(fs vfs.FS, log *slog.Logger, fillLogs bool) *guard {
	g := &guard{FS: fs, log: log, closing: make(chan struct{}), mirage: vfs.NewMem(), fillLogs: fillLogs, maxTableErrors: 10}
	g.opening.Store(true)
	return g
}

// err returns the error that commits get since the first failure, or nil.
func (g *guard) err() error {
	if f := g.failure.Load(); f != nil {
		return f.err
	}
	return nil
}

func (g *guard) failed() bool { return g.failure.Load() != nil }

// fail records a failure, of which the first counts.
func (g *guard) fail(op, name string, cause error) {
	f := &failure{fmt.Errorf("%w: storage/pebble: %s %s: %w", storage.ErrFailed, op, name, cause)}
	if g.failure.CompareAndSwap(nil, f) {
		g.log.Error("store failed, nothing is written any more; check the disk, then open the store again",
			"operation", op, "file", name, "error", cause)
	}
}

// breakDown records that Pebble found its own state to be impossible.
func (g *guard) breakDown(message string) {
	g.broken.Store(true)
	g.fail("engine", "", errors.New(message))
}

// failTable handles a failure to write a table file, and returns what Pebble is
// to see.
func (g *guard) failTable(op, name string, cause error) error {
	n := g.retries.Add(1)
	space := isNoSpace(cause)
	if space {
		g.full.Store(true)
	}
	// A file that can't be created may be for lack of descriptors, which passes.
	if g.opening.Load() || !space && (op != "create" || n >= g.maxTableErrors) {
		g.fail(op, name, cause)
	}
	return cause
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// awaitTable holds up a goroutine that wants to create a table file, after
// failures for a while, since Pebble tries again at once and for ever.
func (g *guard) awaitTable(category vfs.DiskWriteCategory) error {
	const maxPause = time.Second
	if n := g.retries.Load(); n > 0 && !g.failed() {
		t := time.NewTimer(min(10*time.Millisecond<<min(n, 10), maxPause))
		defer t.Stop()
		select {
		case <-t.C:
		case <-g.closing:
		}
	}
	if g.failed() && category != flushCategory {
		<-g.closing
		return g.err()
	}
	return nil
}

// flushCategory is what Pebble calls its writes of tables that were in memory.
const flushCategory = "pebble-memtable-flush"

type fileKind uint8

const (
	otherFile fileKind = iota // manifest, markers, options, directories
	logFile
	tableFile
)

func kindOf(name string) fileKind {
	switch {
	case strings.HasSuffix(name, ".log"):
		return logFile
	case strings.HasSuffix(name, ".sst"), strings.HasSuffix(name, ".blob"):
		return tableFile
	}
	return otherFile
}

// inMirage creates a file in memory.
func (g *guard) inMirage(name string) (vfs.File, error) {
	if err := g.mirage.MkdirAll(g.PathDir(name), 0o755); err != nil {
		return nil, err
	}
	return g.mirage.Create(name, vfs.WriteCategoryUnspecified)
}

func (g *guard) wrap(f vfs.File, name string, kind fileKind) *guardedFile {
	w := &guardedFile{File: f, guard: g, name: name, kind: kind}
	w.fill = kind == logFile && g.fillLogs && f.Fd() != vfs.InvalidFd
	return w
}

// Create implements vfs.FS.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	kind := kindOf(name)
	if kind == tableFile {
		if err := g.awaitTable(category); err != nil {
			return nil, err
		}
	}
	if g.isMarker(name) {
		g.syncDir(name)
	}
	if g.failed() {
		return g.inMirage(name)
	}
	f, err := g.FS.Create(name, category)
	switch {
	case err == nil:
		return g.wrap(f, name, kind), nil
	case kind == tableFile:
		return nil, g.failTable("create", name, err)
	}
	g.fail("create", name, err)
	return g.inMirage(name)
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if g.failed() {
		return g.inMirage(newname)
	}
	f, err := g.FS.ReuseForWrite(oldname, newname, category)
	if err == nil {
		w := g.wrap(f, newname, kindOf(newname))
		if info, err := f.Stat(); err == nil {
			w.filled = info.Size()
		}
		return w, nil
	}
	g.fail("reuse", oldname, err)
	return g.inMirage(newname)
}

// OpenReadWrite implements vfs.FS.
func (g *guard) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if g.failed() {
		return g.inMirage(name)
	}
	f, err := g.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	w := g.wrap(f, name, kindOf(name))
	w.fill = false
	return w, nil
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return g.wrap(f, name, otherFile), nil
}

// Open implements vfs.FS.
func (g *guard) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if g.failed() {
		if f, err := g.mirage.Open(name, opts...); err == nil {
			return f, nil
		}
	}
	return g.FS.Open(name, opts...)
}

// Stat implements vfs.FS.
func (g *guard) Stat(name string) (vfs.FileInfo, error) {
	if g.failed() {
		if info, err := g.mirage.Stat(name); err == nil {
			return info, nil
		}
	}
	return g.FS.Stat(name)
}

// isMarker reports whether the file is one whose name says which manifest, or
// which format, is current. Pebble moves a marker in this order: it creates the
// manifest, and the marker that names it, removes the old marker, and then syncs
// the directory. A file system may keep any part of this in a crash: a marker
// without its manifest, or no marker, which Pebble takes for no store. So the
// directory is synced before each step.
func (g *guard) isMarker(name string) bool {
	return strings.HasPrefix(g.PathBase(name), "marker.")
}

// syncDir syncs the directory of a file.
func (g *guard) syncDir(name string) {
	dir := g.PathDir(name)
	f, err := g.OpenDir(dir)
	if err != nil {
		g.fail("open", dir, err)
		return
	}
	_ = f.Sync() // a guarded file, which records failures itself
	_ = f.Close()
}

// Remove implements vfs.FS.
func (g *guard) Remove(name string) error {
	if g.isMarker(name) {
		g.syncDir(name)
	}
	if g.failed() {
		_ = g.mirage.Remove(name) // may never have been there
		return nil
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	if g.failed() {
		_ = g.mirage.RemoveAll(name)
		return nil
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g *guard) Rename(oldname, newname string) error {
	if !g.failed() {
		err := g.FS.Rename(oldname, newname)
		if err == nil {
			return nil
		}
		g.fail("rename", oldname, err)
	}
	_ = g.mirage.Rename(oldname, newname)
	return nil
}

// Link implements vfs.FS.
func (g *guard) Link(oldname, newname string) error {
	if g.failed() {
		return g.err()
	}
	return g.FS.Link(oldname, newname)
}

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// guardedFile is a file that Pebble writes to, or a directory that it syncs.
// Pebble does neither concurrently for one file.
type guardedFile struct {
	vfs.File
	guard *guard
	name  string
	kind  fileKind

	// The rest is for log files.
	fill    bool  // write zeros ahead
	written int64 // bytes written so far
	synced  int64 // bytes written at the last sync
	filled  int64 // the file's length: zeros, or an older log, from written on
}

// handle turns the result of an operation on the file into what Pebble sees.
func (f *guardedFile) handle(op string, err error) error {
	if err == nil {
		return nil
	}
	if f.kind == tableFile {
		return f.guard.failTable(op, f.name, err)
	}
	f.guard.fail(op, f.name, err)
	return nil
}

// frozen reports whether the file must not be changed any more, and what Pebble
// is to see if so.
func (f *guardedFile) frozen() (bool, error) {
	if !f.guard.failed() {
		return false, nil
	}
	if f.kind == tableFile {
		return true, f.guard.err() // Pebble then writes another one, in memory
	}
	return true, nil
}

// Write implements vfs.File.
func (f *guardedFile) Write(p []byte) (int, error) {
	if frozen, err := f.frozen(); frozen {
		return len(p), err
	}
	if _, err := f.File.Write(p); err != nil {
		return len(p), f.handle("write", err)
	}
	f.written += int64(len(p))
	return len(p), nil
}

// WriteAt implements vfs.File.
func (f *guardedFile) WriteAt(p []byte, offset int64) (int, error) {
	if frozen, err := f.frozen(); frozen {
		return len(p), err
	}
	_, err := f.File.WriteAt(p, offset)
	return len(p), f.handle("write", err)
}

// Sync implements vfs.File.
func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardedFile) SyncData() error {
	if f.fill && !f.guard.failed() {
		f.fillAhead()
	}
	return f.sync(f.File.SyncData)
}

func (f *guardedFile) sync(sync func() error) error {
	if frozen, err := f.frozen(); frozen {
		return err
	}
	err := sync()
	if err == nil && f.kind == tableFile {
		f.guard.retries.Store(0)
	}
	// Another file's sync may have failed meanwhile: if this one is a log, its
	// commits fail, too, as they must, since the order of commits is one.
	return f.handle("sync", err)
}

// SyncTo implements vfs.File.
func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	if frozen, err := f.frozen(); frozen {
		return true, err
	}
	full, err = f.File.SyncTo(length)
	return full, f.handle("sync", err)
}

// Preallocate implements vfs.File. Blocks that are allocated but were never
// written make a sync as costly as growth does, so a log that is filled with
// zeros is not preallocated.
func (f *guardedFile) Preallocate(offset, length int64) error {
	if f.fill || f.guard.failed() {
		return nil
	}
	return f.File.Preallocate(offset, length)
}

// Close implements vfs.File.
func (f *guardedFile) Close() error {
	err := f.File.Close()
	if frozen, _ := f.frozen(); frozen {
		return nil
	}
	return f.handle("close", err)
}

// Zeros are written in pieces: each makes one sync slower, and many faster. A
// piece holds what some tens of syncs will write.
const (
	minFill = 256 << 10
	maxFill = 2 << 20
)

var zeros [maxFill]byte

// fillAhead writes zeros behind the end of what was written, if little is left
// of those that are there. The sync that follows takes them along.
func (f *guardedFile) fillAhead() {
	each := f.written - f.synced
	f.synced = f.written
	if f.written+each < f.filled || each > maxFill/8 {
		return // there is enough left, or so much to write that growth hardly counts
	}
	n := min(max(32*each, minFill), maxFill)
	from := max(f.written, f.filled)
	if _, err := f.File.WriteAt(zeros[:n], from); err != nil {
		// It would have been faster, no more. If the disk is in trouble, the data
		// will tell.
		f.fill = false
		return
	}
	f.filled = from + n
}
