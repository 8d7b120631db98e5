package statemachine

import (
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage/pebble"
)

// packageName is what errors begin with.
const packageName = "storage/pebble/statemachine"

// Config configures a [Machine]. The zero value of a field that is not required is a
// good default.
type Config struct {
	// Dir is the directory that holds the state; it is made if it does not exist.
	// Required. It belongs to one open machine at a time, and to one replica of one
	// group for ever: it must not be the directory of a store.
	Dir string

	// Apply executes one command and returns its result, see synod.StateMachine:
	// deterministic, from what tx reads and the command alone. It is called by one
	// goroutine at a time. It must retain neither command nor tx; the result passes to
	// the caller. Required.
	Apply func(tx *Tx, index uint64, command []byte) (result []byte)

	// FS is the file system that holds Dir. nil: the operating system's. It is meant
	// for tests, which pass Pebble's vfs.NewMem or errorfs.Wrap.
	FS vfs.FS

	// Logger receives what happens in the background, Pebble's own messages at level
	// Debug. nil: discarded.
	Logger *slog.Logger

	// CacheBytes is the size of the cache of blocks that were read. 0: 32 MiB.
	CacheBytes int64

	// MemTableBytes is how much may be applied before it is written to disk in the
	// background, from 64 KiB to 512 MiB. 0: 16 MiB. After a crash so much, and what was
	// being written, is replayed from the log; Snapshot waits until so much is written.
	// Up to three times as much is in memory when the disk is slow; then Apply waits.
	MemTableBytes int64

	// FlushInterval is how long what was applied stays in memory alone. 0: one minute.
	// Negative: until MemTableBytes are full, or DurableIndex is asked for.
	FlushInterval time.Duration

	// MaxCompactions is the number of compactions that may run at once. 0: one less
	// than GOMAXPROCS, from 1 to 3.
	MaxCompactions int

	// Options, if not nil, may change what was derived from the fields above, before
	// Pebble is opened. It is called for each state that is opened, first in Open. FS,
	// Lock, Logger and LoggerAndTracer are not taken from it, nor the thresholds at
	// which Pebble stalls; ReadOnly, WALFailover and another Comparer or Merger are
	// refused.
	Options func(*engine.Options)

	pause time.Duration // before a table is tried again, the first time
}

func wrong(field, reason string) error {
	return &synod.ConfigError{Package: packageName, Field: field, Reason: reason}
}

// complete fills the defaults in.
func (c *Config) complete() error {
	if c.Dir == "" {
		return wrong("Dir", "is missing: name a directory for the state")
	}
	if c.Apply == nil {
		return wrong("Apply", "is missing: say what a command does")
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
		c.CacheBytes = 32 << 20
	}
	if c.MemTableBytes == 0 {
		c.MemTableBytes = 16 << 20
	}
	if c.MemTableBytes < 64<<10 || c.MemTableBytes > 512<<20 {
		return wrong("MemTableBytes", fmt.Sprintf("is %d: it must be from 64 KiB to 512 MiB", c.MemTableBytes))
	}
	if c.FlushInterval == 0 {
		c.FlushInterval = time.Minute
	}
	if c.MaxCompactions < 0 {
		return wrong("MaxCompactions", fmt.Sprintf("is %d: it must not be negative", c.MaxCompactions))
	}
	if c.MaxCompactions == 0 {
		c.MaxCompactions = min(max(runtime.GOMAXPROCS(0)-1, 1), 3)
	}
	if c.pause == 0 {
		c.pause = 10 * time.Millisecond
	}
	_, err := c.options()
	return err
}

// options returns those of Pebble.
func (c *Config) options() (*engine.Options, error) {
	o := &engine.Options{
		// A snapshot is opened by other nodes, which may run an older version of this
		// library: a newer format has to be chosen, and does not come by itself.
		FormatMajorVersion: engine.FormatValueSeparation,
		CacheSize:          c.CacheBytes,

		// The log of the group is the write-ahead log.
		DisableWAL: true,

		// Twice what is applied between two flushes, which are counted by the caller.
		MemTableSize:              uint64(2 * c.MemTableBytes),
		L0CompactionThreshold:     2,
		L0CompactionFileThreshold: 100,
		LBaseMaxBytes:             64 << 20,
		BytesPerSync:              bytesPerSync,

		CompactionConcurrencyRange: func() (lower, upper int) { return 1, c.MaxCompactions },
		MaxConcurrentDownloads:     func() int { return 1 },
	}
	// Large files: a checkpoint is a link for each.
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = int64(min(4<<20<<i, 64<<20))
	}
	o.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	for i := range o.Levels {
		// A command that looks for a key that is not there reads no table for it.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	for i := 1; i < len(o.Levels); i++ {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	if c.Options != nil {
		c.Options(o)
	}
	for _, bad := range []struct {
		set  bool
		name string
	}{
		{o.ReadOnly, "ReadOnly"},
		{o.WALFailover != nil, "WALFailover"},
		{o.Comparer != nil && o.Comparer.Name != engine.DefaultComparer.Name, "Comparer"},
		{o.Merger != nil && o.Merger.Name != engine.DefaultMerger.Name, "Merger"},
	} {
		if bad.set {
			return nil, wrong("Options", "sets "+bad.name+", which a state machine does not support")
		}
	}
	o.DisableWAL = true
	// Pebble can't be woken from a stall, by Close for example: who applies waits
	// before Pebble would.
	o.L0StopWritesThreshold, o.MemTableStopWritesThreshold = math.MaxInt32, math.MaxInt32
	return o, nil
}

// bytesPerSync is how much of a file is written before it is passed on to the disk in
// the background, so that a sync at the end does not hold up everybody else's.
const bytesPerSync = 1 << 20

// makeDir makes the directory, and finds its one true name: the lock does not see that
// two names mean the same directory.
func (c *Config) makeDir() error {
	if info, err := c.FS.Stat(c.Dir); err == nil && !info.IsDir() {
		return &pebble.DirError{Dir: c.Dir, Problem: "it is a file: name a directory", Err: syscall.ENOTDIR}
	}
	// What is new has to be durable, or the state is lost with its directory.
	parents, made := []string{c.FS.PathDir(c.Dir)}, false
	for d := c.Dir; ; d = c.FS.PathDir(d) {
		if _, err := c.FS.Stat(d); err == nil || c.FS.PathDir(d) == d {
			break
		}
		if made {
			parents = append(parents, c.FS.PathDir(d))
		}
		made = true
	}
	if err := c.FS.MkdirAll(c.Dir, 0o755); err != nil {
		return unusable(c.Dir, "it can't be made", err)
	}
	for _, d := range parents {
		// Whoever made it in advance may have kept what is above to themselves.
		if err := syncDir(c.FS, d); err != nil && made {
			return unusable(c.Dir, "it can't be made durable in "+d, err)
		}
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
