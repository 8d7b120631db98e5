package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
)

// Config configures a [Store]. The zero value of a field that is not required
// is a good default.
type Config struct {
	// Dir is the directory that holds the data; it is made if it does not exist.
	// Required. It belongs to one open store at a time.
	Dir string

	// FS is the file system that holds Dir. nil: the operating system's. It is
	// meant for tests, which pass Pebble's vfs.NewMem or errorfs.Wrap.
	FS vfs.FS

	// Logger receives what happens in the background, Pebble's own messages at
	// level Debug. nil: discarded.
	Logger *slog.Logger

	// CacheBytes is the size of the cache of blocks that were read. 0: 8 MiB,
	// which is enough for logs. A state machine that reads much from the store
	// wants more.
	CacheBytes int64

	// MemTableBytes is the size at which the table in memory is written to disk,
	// and the write-ahead log changed, from 1 MiB to 1 GiB. 0: 64 MiB. The larger,
	// the more of a log is cut before it ever reaches another file. Up to four of
	// them are in memory when the disk is slow.
	MemTableBytes int64

	// MaxCompactions is the number of compactions that may run at once. 0: one
	// less than GOMAXPROCS, from 1 to 3.
	MaxCompactions int

	// MaxPendingBytes bounds the bytes of the commits that CommitAsync has begun
	// and whose done has not been called; when they are reached, CommitAsync
	// waits. 0: 128 MiB. Rule of thumb: throughput times the longest sync that
	// should go unnoticed.
	MaxPendingBytes int64

	// MinFreeBytes is the room on the disk below which commits are refused with
	// storage.ErrNoSpace. 0: four times MemTableBytes, so that everything that is
	// in memory can still be written. Negative: not checked.
	MinFreeBytes int64

	// DontFillLogs leaves out the zeros that are written ahead into write-ahead
	// logs. Set it on a copy-on-write file system (btrfs, ZFS), where they only
	// cost.
	DontFillLogs bool

	// Options, if not nil, may change what was derived from the fields above,
	// before Pebble is opened. FS, Lock, Logger and LoggerAndTracer are not taken
	// from it; DisableWAL, ReadOnly and WALFailover are refused.
	Options func(*engine.Options)
}

// DirError says that a directory can't be used for a store, and what to do. It
// wraps storage.ErrLocked if another store has it open, or else the error of
// the file system.
type DirError struct {
	Dir     string
	Problem string // what is wrong, and the remedy
	Err     error
}

// Error implements error.
func (e *DirError) Error() string {
	return fmt.Sprintf("storage/pebble: directory %s: %s: %v", e.Dir, e.Problem, e.Err)
}

// Unwrap returns the cause.
func (e *DirError) Unwrap() error { return e.Err }

// Open opens the store in Config.Dir, and creates it if there is none. The
// errors are *synod.ConfigError, *DirError, *storage.CorruptError, errors that
// wrap storage.ErrNoSpace, and others of the file system.
func Open(c Config) (*Store, error) {
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
	s, err := c.open(lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// complete fills the defaults in.
func (c *Config) complete() error {
	wrong := func(field, reason string) error {
		return &synod.ConfigError{Package: "storage/pebble", Field: field, Reason: reason}
	}
	if c.Dir == "" {
		return wrong("Dir", "is missing: name a directory for the data")
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.CacheBytes < 0 {
		return wrong("CacheBytes", fmt.Sprintf("is %d: it must not be negative", c.CacheBytes))
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 8 << 20
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = 64 << 20
	}
	if c.MemTableBytes < 1<<20 || c.MemTableBytes > 1<<30 {
		return wrong("MemTableBytes", fmt.Sprintf("is %d: it must be from 1 MiB to 1 GiB", c.MemTableBytes))
	}
	if c.MaxCompactions < 0 {
		return wrong("MaxCompactions", fmt.Sprintf("is %d: it must not be negative", c.MaxCompactions))
	}
	if c.MaxCompactions == 0 {
		c.MaxCompactions = min(max(runtime.GOMAXPROCS(0)-1, 1), 3)
	}
	if c.MaxPendingBytes < 0 {
		return wrong("MaxPendingBytes", fmt.Sprintf("is %d: it must not be negative", c.MaxPendingBytes))
	}
	if c.MaxPendingBytes == 0 {
		c.MaxPendingBytes = 128 << 20
	}
	switch {
	case c.MinFreeBytes == 0:
		c.MinFreeBytes = memTables * c.MemTableBytes
	case c.MinFreeBytes < 0:
		c.MinFreeBytes = 0
	}
	return nil
}

// makeDir makes the directory, and finds its one true name: Pebble's lock does
// not see that two names mean the same directory.
func (c *Config) makeDir() error {
	if info, err := c.FS.Stat(c.Dir); err == nil && !info.IsDir() {
		return &DirError{c.Dir, "it is a file: name a directory", syscall.ENOTDIR}
	}
	if err := c.FS.MkdirAll(c.Dir, 0o755); err != nil {
		return unusable(c.Dir, "it can't be made", err)
	}
	if vfs.Root(c.FS) == vfs.Default {
		dir, err := filepath.Abs(c.Dir)
		if err == nil {
			dir, err = filepath.EvalSymlinks(dir)
		}
		if err != nil {
			return unusable(c.Dir, "it can't be reached", err)
		}
		c.Dir = dir
	}
	return nil
}

func unusable(dir, problem string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		problem += ": give this process the right to write there, or name another directory"
	case errors.Is(err, syscall.EROFS):
		problem += ": its file system is mounted read-only: mount it for writing, or name another directory"
	case errors.Is(err, syscall.ENOTDIR):
		problem += ": a part of its path is a file: name another directory"
	case isNoSpace(err):
		return &DirError{dir, problem + ": make room on the disk", fmt.Errorf("%w: %w", storage.ErrNoSpace, err)}
	}
	return &DirError{dir, problem, err}
}

func lockError(dir string, err error) error {
	// The lock call itself fails with a bare error number, or with words for a
	// lock of this process; everything else is about the file.
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.EAGAIN || errno == syscall.EACCES && !errors.As(err, new(*fs.PathError))) ||
		strings.Contains(err.Error(), "lock held by current process") {
		return &DirError{dir, "it is in use: close the store, or stop the process, that has it open, or name another directory",
			fmt.Errorf("%w: %w", storage.ErrLocked, err)}
	}
	return unusable(dir, "it can't be written", err)
}

// memTables is how many tables in memory may wait to be written, before commits
// stall.
const memTables = 4

func (c *Config) options() *engine.Options {
	o := &engine.Options{
		FormatMajorVersion: engine.FormatNewest,
		CacheSize:          c.CacheBytes,

		// Commits should hardly ever stall: files in level 0 cost reads, of which
		// logs see few, and while a compaction catches up, memory is bounded by the
		// number of tables.
		MemTableSize:                uint64(c.MemTableBytes),
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       4,
		L0CompactionFileThreshold:   200,
		L0StopWritesThreshold:       256,
		LBaseMaxBytes:               max(64<<20, c.MemTableBytes),

		CompactionConcurrencyRange: func() (lower, upper int) { return 1, c.MaxCompactions },
		MaxConcurrentDownloads:     func() int { return 1 },
	}
	// What was cut from a log's front should go in whole files, without being
	// read: a file is dropped once a deleted range covers it, or its part.
	o.Experimental.EnableDeleteOnlyCompactionExcises = func() bool { return true }
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 16 << 20
	}
	// Level 0 is short-lived: to compress it is a waste.
	o.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	for i := 1; i < len(o.Levels); i++ {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	return o
}

// open opens the engine in the directory, which is locked.
func (c *Config) open(lock *engine.Lock) (*Store, error) {
	o := c.options()
	if c.Options != nil {
		c.Options(o)
	}
	for _, bad := range []struct {
		set  bool
		name string
	}{{o.DisableWAL, "DisableWAL"}, {o.ReadOnly, "ReadOnly"}, {o.WALFailover != nil, "WALFailover"}} {
		if bad.set {
			return nil, &synod.ConfigError{Package: "storage/pebble", Field: "Options", Reason: "sets " + bad.name + ", which this store does not support"}
		}
	}
	if err := c.format(o, lock); err != nil {
		return nil, err
	}
	db, g, err := c.openEngine(o, lock)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir:   c.Dir,
		db:    db,
		lock:  lock,
		log:   c.Logger,
		guard: g,
		space: &space{fs: c.FS, dir: c.Dir, min: c.MinFreeBytes, guard: g, log: c.Logger, start: time.Now()},
		queue: newQueue(c.MaxPendingBytes),
		ended: make(chan struct{}),
		open:  map[invalidator]struct{}{},
	}
	s.space.written.Store(lookBytes) // the first commit looks
	go s.complete()
	return s, nil
}

// format creates the store, or brings it to the newest format, and closes it
// again. Pebble begins a log in the old format before it changes to the new one,
// and only the new one tells a flipped bit from the log's end.
func (c *Config) format(o *engine.Options, lock *engine.Lock) error {
	d, err := engine.Peek(c.Dir, c.FS)
	if err == nil && d.Exists && d.FormatMajorVersion >= o.FormatMajorVersion {
		return nil
	}
	db, g, err := c.openEngine(o, lock)
	if err != nil {
		return err
	}
	close(g.closing)
	err = closeEngine(db)
	if f := g.err(); f != nil {
		err = f
	}
	if err != nil {
		return fmt.Errorf("storage/pebble: create %s: %w", c.Dir, err)
	}
	return nil
}

// openEngine opens Pebble behind a guard.
func (c *Config) openEngine(o *engine.Options, lock *engine.Lock) (_ *engine.DB, _ *guard, err error) {
	g := newGuard(c.FS, c.Logger, !c.DontFillLogs)
	logger := &engineLogger{log: c.Logger, guard: g}
	o = o.Clone()
	o.FS, o.Lock, o.Logger, o.LoggerAndTracer = g, lock, logger, nil
	listener := engine.EventListener{
		BackgroundError: logger.backgroundError,
		DataCorruption:  logger.corruption,
		DiskSlow:        func(i engine.DiskSlowInfo) { c.Logger.Warn("disk is slow", "event", i.String()) },
		WriteStallBegin: func(i engine.WriteStallBeginInfo) { c.Logger.Warn("commits stall", "reason", i.Reason) },
		WriteStallEnd:   func() { c.Logger.Info("commits go on") },
	}
	if o.EventListener != nil {
		listener = engine.TeeEventListener(listener, *o.EventListener)
	}
	o.EventListener = &listener

	db, err := func() (db *engine.DB, err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		return engine.Open(c.Dir, o)
	}()
	if f := g.err(); f != nil {
		if db != nil {
			close(g.closing)
			_ = closeEngine(db) // it had nothing real to close
		}
		return nil, nil, unusable(c.Dir, "it can't be written", f)
	}
	if err != nil {
		if corrupt := corruptError(c.Dir, err); corrupt != nil {
			return nil, nil, corrupt
		}
		return nil, nil, fmt.Errorf("storage/pebble: open %s: %w", c.Dir, err)
	}
	g.opening.Store(false)
	return db, g, nil
}

var (
	_ io.Closer     = (*engine.Lock)(nil)
	_ engine.Logger = (*engineLogger)(nil)
)

// corruptError translates an error of Pebble that is about corruption, and
// returns nil for others.
func corruptError(dir string, err error) *storage.CorruptError {
	if !engine.IsCorruptionError(err) {
		return nil
	}
	c := &storage.CorruptError{File: dir, Reason: err.Error()}
	if info := engine.ExtractDataCorruptionInfo(err); info != nil && info.Path != "" {
		c.File = info.Path
	} else if name := fileName.FindString(fmt.Sprintf("%+v", err)); name != "" {
		c.File = filepath.Join(dir, name) // it is among the details, which are verbose
	}
	return c
}

// fileName finds the name of one of Pebble's files in a message.
var fileName = regexp.MustCompile(`\b(\d{6,}\.(sst|blob|log)|MANIFEST-\d{6,}|OPTIONS-\d{6,})\b`)

// engineLogger passes Pebble's messages on. Pebble expects Fatalf not to return;
// here it does, after the disk was frozen, so that nothing that Pebble does from
// then on matters.
type engineLogger struct {
	log   *slog.Logger
	guard *guard
}

func (l *engineLogger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

func (l *engineLogger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...))
}

func (l *engineLogger) Fatalf(format string, args ...any) {
	l.guard.breakDown(fmt.Sprintf(format, args...))
}

func (l *engineLogger) backgroundError(err error) {
	if !l.guard.failed() { // what follows from a failure is noise
		l.log.Error("work in the background failed, and will be tried again", "error", err)
	}
}

func (l *engineLogger) corruption(info engine.DataCorruptionInfo) {
	l.log.Error("corrupt file: restore it, or have the data fetched from elsewhere", "file", info.Path, "error", info.Details)
}
