package statemachine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/storage/pebble/statemachine"
)

// Whatever commands do, the machine holds what a map would, also after it was opened
// again, and after flushes and compactions.
func TestCommands(t *testing.T) {
	const commands = 1500
	h := newHistory(2000, commands)
	fs := vfs.NewMem()
	config := statemachine.Config{FS: fs, MemTableBytes: 128 << 10}
	m := open(t, config)
	require.Zero(t, m.Index())
	h.check(t, m)
	for to := uint64(100); to <= commands; to += 100 {
		h.apply(t, m, to)
		h.check(t, m)
		if to%500 == 0 {
			require.NoError(t, m.Close())
			m = open(t, config)
			require.Equal(t, to, m.Index(), "Close makes everything durable")
			durable, err := m.DurableIndex()
			require.NoError(t, err)
			require.Equal(t, to, durable)
			h.check(t, m)
		}
	}
}

// Apply is a batch of one.
func TestApply(t *testing.T) {
	h := newHistory(10, 20)
	m := open(t, statemachine.Config{FS: vfs.NewMem()})
	for i := uint64(1); i <= 20; i++ {
		require.Equal(t, h.results[i], string(m.Apply(i, make([]byte, 10))))
		require.Equal(t, i, m.Index())
		h.check(t, m)
	}
}

func TestTx(t *testing.T) {
	var tx *statemachine.Tx
	step := func(*statemachine.Tx) {}
	m := open(t, statemachine.Config{FS: vfs.NewMem(), Apply: func(x *statemachine.Tx, _ uint64, _ []byte) []byte {
		tx = x
		step(x)
		return nil
	}})
	index := uint64(0)
	do := func(fn func(*statemachine.Tx)) {
		index++
		step = fn
		m.Apply(index, nil)
	}
	do(func(tx *statemachine.Tx) {
		for _, k := range []string{"", "a", "a\x00", "b", "\xff", "\xff\xff"} {
			require.False(t, tx.Has([]byte(k)))
			tx.Set([]byte(k), []byte("v"+k))
			require.True(t, tx.Has([]byte(k)))
		}
	})
	all := func(from, to string) (keys []string) {
		for k := range tx.Scan([]byte(from), []byte(to)) {
			keys = append(keys, string(k))
		}
		return keys
	}
	do(func(tx *statemachine.Tx) {
		require.Equal(t, []string{"", "a", "a\x00", "b", "\xff", "\xff\xff"}, all("", ""))
		require.Equal(t, []string{"a", "a\x00"}, all("a", "b"))
		require.Equal(t, []string{"\xff", "\xff\xff"}, all("c", ""))
		require.Empty(t, all("b", "a"))
		require.Empty(t, all("a", "a"))

		// A loop sees what was there when it began, and may stop.
		n := 0
		for k := range tx.Scan(nil, nil) {
			tx.Delete(k)
			tx.Set([]byte("later"), nil)
			if n++; n == 3 {
				break
			}
		}
		require.Equal(t, []string{"b", "later", "\xff", "\xff\xff"}, all("", ""))

		value, found := tx.Get([]byte("b"))
		require.True(t, found)
		value[0] = 'x' // it belongs to the caller
		value, _ = tx.Get([]byte("b"))
		require.Equal(t, "vb", string(value))
		value, found = tx.Get([]byte("later"))
		require.True(t, found)
		require.Empty(t, value)

		key := []byte("key")
		tx.Set(key, key)
		key[0] = 'x' // it was copied
		require.True(t, tx.Has([]byte("key")))

		tx.DeleteRange([]byte("x"), []byte("a"))
		tx.DeleteRange([]byte("b"), []byte("\xff"))
		require.Equal(t, []string{"\xff", "\xff\xff"}, all("", ""))
		tx.DeleteRange([]byte("\xff\xff"), nil)
		require.Equal(t, []string{"\xff"}, all("", ""))
		tx.DeleteRange(nil, nil)
		require.Empty(t, all("", ""))
	})
	require.EqualValues(t, 2, m.Index(), "the index is none of the keys")
	v, err := m.View()
	require.NoError(t, err)
	require.EqualValues(t, 2, v.Index())
	require.NoError(t, v.Close())

	big := make([]byte, 1<<20)
	do(func(tx *statemachine.Tx) {
		tx.Set(big, big[:1])
		tx.Set(big[:1], big)
		require.True(t, tx.Has(big))
	})
	require.NoError(t, m.Flush(t.Context()))
	do(func(tx *statemachine.Tx) {
		require.True(t, tx.Has(big))
		value, _ := tx.Get(big[:1])
		require.Len(t, value, len(big))
	})

	// Too much is refused, without a trace.
	m.SetLimits(64<<20, 1000)
	err = panics(t, func() {
		do(func(tx *statemachine.Tx) {
			tx.Set([]byte("k"), big[:700])
			tx.Set([]byte("k"), big[:700])
		})
	})
	require.ErrorIs(t, err, statemachine.ErrTooLarge)
	index--
	do(func(tx *statemachine.Tx) {
		require.False(t, tx.Has([]byte("k")))
		tx.Set([]byte("k"), big[:700])
	})
}

// What is too much for one batch goes into several, each with its index.
func TestLargeBatches(t *testing.T) {
	h := newHistory(1000, 300)
	m := open(t, statemachine.Config{FS: vfs.NewMem(), MemTableBytes: 64 << 10})
	m.SetLimits(5000, 1<<20)
	m.ApplyBatch(h.batch(1, 100))
	h.check(t, m)
	m.ApplyBatch(h.batch(101, 300))
	h.check(t, m)
}

// A batch is visible as a whole, and so is its index; a panic of a command leaves
// nothing of the batch.
func TestBatchIsAtomic(t *testing.T) {
	fail := true
	m := open(t, statemachine.Config{FS: vfs.NewMem(), Apply: func(tx *statemachine.Tx, index uint64, _ []byte) []byte {
		if index == 5 && fail {
			panic(errDisk)
		}
		tx.Set(fmt.Appendf(nil, "%d", index), nil)
		return nil
	}})
	h := newHistory(0, 0)
	m.ApplyBatch(h.batch(1, 3))
	require.ErrorIs(t, panics(t, func() { m.ApplyBatch(h.batch(4, 6)) }), errDisk)
	require.EqualValues(t, 3, m.Index())
	v, err := m.View()
	require.NoError(t, err)
	require.EqualValues(t, 3, v.Index())
	require.Equal(t, model{"1": "", "2": "", "3": ""}, contents(t, v))
	require.NoError(t, v.Close())
	fail = false
	m.ApplyBatch(h.batch(4, 6))
	require.EqualValues(t, 6, m.Index())
}

// Views under way see whole batches, while others are applied.
func TestViewsSeeWholeBatches(t *testing.T) {
	m := open(t, statemachine.Config{FS: vfs.NewMem(), MemTableBytes: 64 << 10, Apply: func(tx *statemachine.Tx, index uint64, _ []byte) []byte {
		tx.Set(fmt.Appendf(nil, "%d", index%10), fmt.Append(nil, index))
		return nil
	}})
	h := newHistory(0, 0)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				v, err := m.View()
				if err != nil {
					t.Error(err)
					return
				}
				if v.Index()%10 != 0 {
					t.Errorf("a view in the midst of a batch, at %d", v.Index())
				}
				it, err := v.Scan(nil, nil)
				if err == nil {
					var values [][]byte
					_, values, err = storage.Collect(it)
					for i, value := range values {
						if want := fmt.Sprint(v.Index() - uint64((10-i)%10)); string(value) != want {
							t.Errorf("at %d: %s, not %s", v.Index(), value, want)
						}
					}
				}
				if err := errors.Join(err, v.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := uint64(1); i <= 3000; i += 10 {
		m.ApplyBatch(h.batch(i, i+9))
	}
	stop.Store(true)
	wg.Wait()
}

func TestOutOfOrder(t *testing.T) {
	h := newHistory(10, 10)
	m := open(t, statemachine.Config{FS: vfs.NewMem()})
	h.apply(t, m, 5)
	for _, index := range []uint64{0, 4, 5, 7} {
		require.ErrorIs(t, panics(t, func() { m.Apply(index, nil) }), statemachine.ErrOutOfOrder)
	}
	h.apply(t, m, 10)
	h.check(t, m)
}

// What was only applied is not called durable, and to ask makes it so.
func TestDurableIndex(t *testing.T) {
	h := newHistory(100, 30)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk})
	durable, err := m.DurableIndex()
	require.NoError(t, err)
	require.Zero(t, durable)

	h.apply(t, m, 10)
	durable, err = m.DurableIndex()
	require.NoError(t, err)
	require.Zero(t, durable, "nothing was flushed, or it had no time to be")
	require.NoError(t, m.Flush(t.Context())) // waits for the flush that was begun
	durable, err = m.DurableIndex()
	require.NoError(t, err)
	require.EqualValues(t, 10, durable)
	h.apply(t, m, 20)
	h.check(t, m)

	crashed := open(t, statemachine.Config{FS: disk.crash(0, nil)})
	require.EqualValues(t, 10, crashed.Index())
	h.check(t, crashed)
	h.apply(t, crashed, 30)
	h.check(t, crashed)
}

// The index reaches the disk with the effects of its command, also where Pebble writes a
// batch by itself since it is large.
func TestIndexIsInTheBatch(t *testing.T) {
	h := newHistory(3000, 200)
	disk := newFaultyDisk()
	flushed := make(chan *vfs.MemFS, 100)
	m := open(t, statemachine.Config{FS: disk, MemTableBytes: 64 << 10, FlushInterval: -1, Options: func(o *engine.Options) {
		o.EventListener = &engine.EventListener{FlushEnd: func(engine.FlushInfo) { flushed <- disk.crash(0, nil) }}
	}})
	<-flushed // the creation
	m.ApplyBatch(h.batch(1, 3))
	m.ApplyBatch(h.batch(4, 200))
	crashed := open(t, statemachine.Config{FS: <-flushed})
	require.Positive(t, crashed.Index())
	h.check(t, crashed)
}

// What was applied is written to disk after a while, without being asked for.
func TestFlushInterval(t *testing.T) {
	flushed := make(chan struct{}, 100)
	m := open(t, statemachine.Config{FS: vfs.NewMem(), FlushInterval: time.Millisecond, Options: func(o *engine.Options) {
		o.EventListener = &engine.EventListener{FlushEnd: func(engine.FlushInfo) { flushed <- struct{}{} }}
	}})
	<-flushed // the creation
	h := newHistory(100, 2)
	for i := uint64(1); i <= 2; i++ {
		h.apply(t, m, i)
		<-flushed
		durable, err := m.DurableIndex()
		require.NoError(t, err)
		require.Equal(t, i, durable)
	}
	require.Empty(t, flushed, "an idle machine does nothing")
}

func TestFlush(t *testing.T) {
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk})
	h := newHistory(100, 10)
	require.NoError(t, m.Flush(t.Context()), "there is nothing to do")
	h.apply(t, m, 10)
	held := make(chan struct{})
	disk.fail(func(op errorfs.Op) error {
		if isTable(op) && op.Kind == errorfs.OpFileWrite {
			<-held
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, m.Flush(ctx), context.Canceled)
	close(held)
	require.NoError(t, m.Flush(t.Context()))
	durable, err := m.DurableIndex()
	require.NoError(t, err)
	require.EqualValues(t, 10, durable)
}

func TestConfig(t *testing.T) {
	ok := func() statemachine.Config {
		return statemachine.Config{Dir: "data", Apply: apply, FS: vfs.NewMem()}
	}
	for name, c := range map[string]struct {
		field  string
		change func(*statemachine.Config)
	}{
		"no directory":         {"Dir", func(c *statemachine.Config) { c.Dir = "" }},
		"no Apply":             {"Apply", func(c *statemachine.Config) { c.Apply = nil }},
		"negative cache":       {"CacheBytes", func(c *statemachine.Config) { c.CacheBytes = -1 }},
		"small tables":         {"MemTableBytes", func(c *statemachine.Config) { c.MemTableBytes = 64<<10 - 1 }},
		"large tables":         {"MemTableBytes", func(c *statemachine.Config) { c.MemTableBytes = 1 << 30 }},
		"negative compactions": {"MaxCompactions", func(c *statemachine.Config) { c.MaxCompactions = -1 }},
		"reads only":           {"Options", func(c *statemachine.Config) { c.Options = func(o *engine.Options) { o.ReadOnly = true } }},
		"failover": {"Options", func(c *statemachine.Config) {
			c.Options = func(o *engine.Options) { o.WALFailover = &engine.WALFailoverOptions{} }
		}},
		"another order of keys": {"Options", func(c *statemachine.Config) {
			c.Options = func(o *engine.Options) { o.Comparer = &engine.Comparer{Name: "mine"} }
		}},
		"another merger": {"Options", func(c *statemachine.Config) {
			c.Options = func(o *engine.Options) { o.Merger = &engine.Merger{Name: "mine"} }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := ok()
			c.change(&config)
			_, err := statemachine.Open(config)
			var bad *synod.ConfigError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, "storage/pebble/statemachine", bad.Package)
			require.Equal(t, c.field, bad.Field)
		})
	}
	m, err := statemachine.Open(ok())
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

func TestDirectoryInUse(t *testing.T) {
	for name, c := range map[string]statemachine.Config{
		"in memory": {Dir: "data", FS: vfs.NewMem(), Apply: apply},
		"on disk":   {Dir: t.TempDir(), Apply: apply},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, c)
			other := c
			if c.FS == nil {
				other.Dir += "/../" + c.Dir[len(c.Dir)-3:] // the same by another name
			}
			_, err := statemachine.Open(other)
			require.ErrorIs(t, err, storage.ErrLocked)
			var dir *pebble.DirError
			require.ErrorAs(t, err, &dir)
			require.NoError(t, m.Close())
			open(t, other)
		})
	}
}

func TestUnusableDirectory(t *testing.T) {
	fs := vfs.NewMem()
	f, err := fs.Create("file", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = statemachine.Open(statemachine.Config{Dir: "file", FS: fs, Apply: apply})
	require.ErrorIs(t, err, syscall.ENOTDIR)

	store, err := pebble.Open(pebble.Config{Dir: "store", FS: fs})
	require.NoError(t, err)
	require.NoError(t, store.Close())
	_, err = statemachine.Open(statemachine.Config{Dir: "store", FS: fs, Apply: apply})
	require.ErrorContains(t, err, "it holds a store")

	disk := newFaultyDisk()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpMkdirAll} {
		disk.fail(func(op errorfs.Op) error {
			if op.Kind == kind && op.Path != "data/LOCK" {
				return syscall.ENOSPC
			}
			return nil
		})
		_, err := statemachine.Open(statemachine.Config{Dir: "data", FS: disk, Apply: apply})
		require.ErrorIs(t, err, storage.ErrNoSpace)
		var dir *pebble.DirError
		require.ErrorAs(t, err, &dir)
	}
	disk.heal()
	open(t, statemachine.Config{FS: disk})
}

// After Close everything says so.
func TestClose(t *testing.T) {
	h := newHistory(100, 10)
	fs := vfs.NewMem()
	m := open(t, statemachine.Config{FS: fs})
	h.apply(t, m, 10)
	v, err := m.View()
	require.NoError(t, err)
	it, err := v.Scan(nil, nil)
	require.NoError(t, err)
	_, _, err = it.Next()
	require.NoError(t, err)
	s, err := m.Snapshot()
	require.NoError(t, err)
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())

	_, _, err = it.Next()
	require.ErrorIs(t, err, storage.ErrClosed)
	require.NoError(t, it.Close())
	_, err = v.Get([]byte("a"))
	require.ErrorIs(t, err, storage.ErrClosed)
	_, err = v.Scan(nil, nil)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.NoError(t, v.Close())
	_, err = m.View()
	require.ErrorIs(t, err, storage.ErrClosed)
	_, err = m.DurableIndex()
	require.ErrorIs(t, err, storage.ErrClosed)
	require.ErrorIs(t, m.Flush(t.Context()), storage.ErrClosed)
	_, err = m.Snapshot()
	require.ErrorIs(t, err, storage.ErrClosed)
	require.ErrorIs(t, m.Restore(nil), storage.ErrClosed)
	require.ErrorIs(t, panics(t, func() { m.Apply(11, nil) }), storage.ErrClosed)
	_, err = s.WriteTo(io.Discard)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.NoError(t, s.(io.Closer).Close())
	require.Empty(t, list(t, fs, "data", "snapshot-"))
	require.EqualValues(t, 10, m.Index())
}

// While the disk is full, Apply waits; when there is room, it goes on.
func TestFullDisk(t *testing.T) {
	h := newHistory(4000, 1000)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk, MemTableBytes: 64 << 10})
	full := make(chan struct{})
	var tries atomic.Int32
	disk.fail(func(op errorfs.Op) error {
		if isTable(op) && op.Kind == errorfs.OpFileWrite {
			if tries.Add(1) == 3 {
				close(full)
			}
			return syscall.ENOSPC
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.apply(t, m, 1000)
	}()
	<-full
	require.Less(t, m.Index(), uint64(1000))
	durable, err := m.DurableIndex()
	require.NoError(t, err)
	require.Zero(t, durable)
	disk.heal()
	<-done
	h.check(t, m)
}

// Close ends an Apply that waits, and loses nothing that is on disk.
func TestCloseOnAFullDisk(t *testing.T) {
	h := newHistory(4000, 1000)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk, MemTableBytes: 64 << 10})
	h.apply(t, m, 20)
	require.NoError(t, m.Flush(t.Context()))
	full := make(chan struct{})
	var once sync.Once
	disk.fail(func(op errorfs.Op) error {
		if isTable(op) && op.Kind == errorfs.OpFileWrite {
			once.Do(func() { close(full) })
			return syscall.ENOSPC
		}
		return nil
	})
	ended := make(chan error)
	go func() {
		ended <- panics(t, func() { h.apply(t, m, 1000) })
	}()
	<-full
	require.ErrorIs(t, m.Close(), storage.ErrNoSpace)
	require.ErrorIs(t, <-ended, storage.ErrClosed)
	disk.heal()
	m = open(t, statemachine.Config{FS: disk.crash(100, rand.New(rand.NewPCG(1, 1)))})
	require.GreaterOrEqual(t, m.Index(), uint64(20))
	h.check(t, m)
}

// A panic inside Pebble stops the replica, and Close still returns.
func TestPanicOfPebble(t *testing.T) {
	var armed atomic.Bool
	m := open(t, statemachine.Config{FS: vfs.NewMem(), Options: func(o *engine.Options) {
		comparer := *engine.DefaultComparer
		comparer.Compare = func(a, b []byte) int {
			if armed.Load() && strings.Contains(string(debug.Stack()), "commitPipeline") {
				panic("a bug")
			}
			return bytes.Compare(a, b)
		}
		o.Comparer = &comparer
	}})
	h := newHistory(10, 3)
	h.apply(t, m, 2)
	armed.Store(true)
	err := panics(t, func() { m.Apply(3, nil) })
	require.ErrorIs(t, err, storage.ErrFailed)
	require.ErrorContains(t, err, "a bug")
	require.ErrorIs(t, panics(t, func() { m.Apply(3, nil) }), storage.ErrFailed)
	_, err = m.View()
	require.ErrorIs(t, err, storage.ErrFailed, "what Pebble holds is not to be believed any more")
	_, err = m.DurableIndex()
	require.ErrorIs(t, err, storage.ErrFailed)
	_, err = m.Snapshot()
	require.ErrorIs(t, err, storage.ErrFailed)
	require.ErrorIs(t, m.Restore(strings.NewReader("")), storage.ErrFailed)
	require.ErrorIs(t, m.Close(), storage.ErrFailed, "what was applied last is not on disk")
}
