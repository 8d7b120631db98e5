package statemachine_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble/statemachine"
)

// work is a life of a machine: commands, flushes, compactions, snapshots, and one that
// is restored. The history is that of the snapshot, too: to be at an index is to have
// one state.
type work struct {
	history  *history
	snapshot []byte // of the state at restored
	restored uint64

	mu       sync.Mutex
	promised uint64 // the highest index that was called durable
}

const workCommands = 100

func newWork(t *testing.T) *work {
	w := &work{history: newHistory(3000, workCommands), restored: 60}
	m := open(t, statemachine.Config{FS: vfs.NewMem(), MemTableBytes: 64 << 10})
	w.history.apply(t, m, w.restored)
	w.snapshot = capture(t, m)
	require.NoError(t, m.Close())
	return w
}

// again returns the work, undone.
func (w *work) again() *work {
	return &work{history: w.history, snapshot: w.snapshot, restored: w.restored}
}

// promise records what is durable from now on.
func (w *work) promise(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.promised = max(w.promised, index)
}

// promises returns the highest index that must survive a crash now.
func (w *work) promises() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.promised
}

// durable asks the machine.
func (w *work) durable(m *statemachine.Machine) error {
	index, err := m.DurableIndex()
	if err == nil {
		w.promise(index)
	}
	return err
}

// do works until something fails.
func (w *work) do(t *testing.T, fs vfs.FS) (err error) {
	t.Helper()
	m, err := statemachine.Open(statemachine.Impatient(statemachine.Config{Dir: "data", FS: fs, Apply: apply, MemTableBytes: 64 << 10, FlushInterval: -1, Options: func(o *engine.Options) {
		o.MaxManifestFileSize = 1 << 10 // changes of the manifest, too
	}}))
	if err != nil {
		return err
	}
	defer func() {
		if v := recover(); v != nil {
			err, _ = v.(error)
			require.Error(t, err, "%v", v)
		}
		if closed := m.Close(); err == nil && closed == nil {
			w.promise(m.Index())
		}
	}()
	err = w.durable(m)
	to := func(index uint64) {
		for m.Index() < index && err == nil {
			w.history.apply(t, m, min(index, m.Index()+4))
			err = w.durable(m)
		}
	}
	to(40)
	if err == nil {
		err = w.snapshots(m)
	}
	if err == nil {
		if err = m.Restore(bytes.NewReader(w.snapshot)); err == nil {
			w.promise(w.restored)
		}
	}
	to(80)
	if err == nil {
		err = m.Flush(t.Context())
	}
	if err == nil {
		w.promise(80)
	}
	to(workCommands)
	return err
}

// snapshots takes one, and is not impressed if that fails.
func (w *work) snapshots(m *statemachine.Machine) error {
	s, err := m.Snapshot()
	if err == nil {
		_, err = s.WriteTo(io.Discard)
		_ = s.(io.Closer).Close()
	}
	if _, failed := m.DurableIndex(); failed == nil {
		return nil // the checkpoint failed, not the machine
	}
	return err
}

// check looks at what a crash has left: a whole state, and none before what was promised.
func (w *work) check(t *testing.T, fs vfs.FS, promised uint64) {
	t.Helper()
	m, err := statemachine.Open(statemachine.Config{Dir: "data", FS: fs, Apply: apply})
	require.NoError(t, err)
	defer m.Close()
	require.GreaterOrEqual(t, m.Index(), promised, "what was called durable is lost")
	w.history.check(t, m)
	durable, err := m.DurableIndex()
	require.NoError(t, err)
	require.Equal(t, m.Index(), durable)
	require.Len(t, list(t, fs, "data", "state-"), 1, "something is left over")
	require.Empty(t, list(t, fs, "data", "snapshot-"))
	require.Empty(t, list(t, fs, "data", "CURRENT.new"))
}

// TestCrashAnywhere crashes before each operation that changes the disk, from the
// creation of the directory on. Of what was not synced, a part is kept.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	w := newWork(t)
	disk := newFaultyDisk()
	type crash struct {
		disk     *vfs.MemFS
		promised uint64
		before   string
	}
	var mu sync.Mutex
	var crashes []crash
	operations := 0
	random := rand.New(rand.NewPCG(5, 6))
	disk.fail(func(op errorfs.Op) error {
		if !isWrite(op) || op.Kind == errorfs.OpLink {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		operations++
		for i := range 2 {
			promised := w.promises() // before the clone, as it may be more right after
			crashes = append(crashes, crash{disk.crash([]int{50, 0, 90, 100}[(operations+i)%4], random), promised,
				fmt.Sprintf("%d: %d %s", operations, op.Kind, op.Path)})
		}
		return nil
	})
	require.NoError(t, w.do(t, disk))
	require.EqualValues(t, workCommands, w.promises())
	// Once more, on a state that has something to lose.
	m := open(t, statemachine.Config{FS: disk})
	require.NoError(t, m.Close())
	disk.heal()
	t.Logf("%d crashes before %d operations", len(crashes), operations)
	require.Greater(t, operations, 150)
	var before string
	defer func() {
		if t.Failed() {
			t.Log("crash before operation", before)
		}
	}()
	for i, c := range crashes {
		if raceEnabled && i%7 != 0 {
			continue // it takes long
		}
		before = c.before
		w.check(t, c.disk, c.promised)
	}
}

// TestFailureAnywhere fails the n-th operation that changes the disk, for every n, once
// or from then on. The process lives, nobody waits for ever, what was called durable
// survives, and the directory can be opened.
func TestFailureAnywhere(t *testing.T) {
	t.Parallel()
	first := newWork(t)
	counting := newFaultyDisk()
	var total atomic.Int64
	counting.fail(func(op errorfs.Op) error {
		if isWrite(op) {
			total.Add(1)
		}
		return nil
	})
	require.NoError(t, first.do(t, counting))
	random := rand.New(rand.NewPCG(uint64(total.Load()), 1))
	hits := map[string]int{}
	step := int64(1)
	if raceEnabled {
		step = 19 // it takes long
	}
	for run := int64(0); run < 2*total.Load(); run += step {
		n, once := 1+run/2, run%2 == 0
		w, disk := first.again(), newFaultyDisk()
		var count atomic.Int64
		var hit atomic.Pointer[string]
		disk.fail(func(op errorfs.Op) error {
			if !isWrite(op) || op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpRemoveAll || op.Kind == errorfs.OpLock {
				return nil
			}
			c := count.Add(1)
			if c == n {
				s := fmt.Sprintf("%d %s", op.Kind, filepath.Ext(op.Path))
				hit.Store(&s)
			}
			if c == n || c > n && !once {
				return errDisk
			}
			return nil
		})
		failed := w.do(t, disk)
		if failed != nil {
			require.ErrorIs(t, failed, errDisk, "run %d: operation %d, %v", run, n, hit.Load())
			hits[*hit.Load()]++
		}
		disk.heal()
		for _, percent := range []int{0, 50, 100} {
			w.check(t, disk.crash(percent, random), w.promises())
		}
	}
	t.Logf("%d operations; failures that stopped the machine, by kind: %v", total.Load(), hits)
	require.Greater(t, len(hits), 4, "the faults hit too little: %v", hits)
}

// After the first failure nothing more is tried, and nothing called durable.
func TestFailedSync(t *testing.T) {
	h := newHistory(100, 20)
	for _, what := range []string{"MANIFEST", ".sst"} {
		t.Run(what, func(t *testing.T) {
			disk := newFaultyDisk()
			m := open(t, statemachine.Config{FS: disk})
			h.apply(t, m, 10)
			var attempts atomic.Int32
			disk.fail(func(op errorfs.Op) error {
				if strings.Contains(op.Path, what) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
					attempts.Add(1)
					return errDisk
				}
				return nil
			})
			require.ErrorIs(t, m.Flush(t.Context()), errDisk)
			disk.heal() // too late
			writes := func(op errorfs.Op) error {
				if isWrite(op) && op.Kind != errorfs.OpRemoveAll {
					t.Errorf("after the failure: %v", op)
				}
				return nil
			}
			disk.fail(writes)
			for range 3 {
				err := panics(t, func() { m.Apply(11, nil) })
				require.ErrorIs(t, err, storage.ErrFailed)
				require.ErrorIs(t, err, errDisk)
				require.ErrorContains(t, err, what)
				_, err = m.DurableIndex()
				require.ErrorIs(t, err, storage.ErrFailed)
				require.ErrorIs(t, m.Flush(t.Context()), storage.ErrFailed)
				_, err = m.Snapshot()
				require.ErrorIs(t, err, storage.ErrFailed)
				require.ErrorIs(t, m.Restore(strings.NewReader("")), storage.ErrFailed)
			}
			require.EqualValues(t, 1, attempts.Load())
			h.check(t, m) // reads go on
			require.ErrorIs(t, m.Close(), storage.ErrFailed)
			require.EqualValues(t, 1, attempts.Load())
			disk.heal()
			m = open(t, statemachine.Config{FS: disk.crash(0, nil)})
			h.check(t, m)
		})
	}
}

// lyingDisk says that everything is synced, and syncs nothing.
type lyingDisk struct{ vfs.FS }

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error                     { return nil }
func (lyingFile) SyncData() error                 { return nil }
func (lyingFile) SyncTo(int64) (bool, error)      { return true, nil }
func lie(f vfs.File, err error) (vfs.File, error) { return lyingFile{f}, err }

func (d lyingDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return lie(d.FS.Create(name, c))
}

// The crashes of these tests lose what was not synced: on a disk that lies about it,
// what was called durable is gone.
func TestCrashesLoseWhatWasNotSynced(t *testing.T) {
	for name, disk := range map[string]func(*vfs.MemFS) vfs.FS{
		"honest": func(m *vfs.MemFS) vfs.FS { return m },
		"lying":  func(m *vfs.MemFS) vfs.FS { return lyingDisk{m} },
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			m := open(t, statemachine.Config{FS: disk(mem)})
			newHistory(100, 10).apply(t, m, 10)
			require.NoError(t, m.Flush(t.Context()))
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			lost := false
			if m, err := statemachine.Open(statemachine.Config{Dir: "data", FS: crashed, Apply: apply}); err != nil {
				lost = true
			} else {
				lost = m.Index() < 10
				require.NoError(t, m.Close())
			}
			require.Equal(t, name == "lying", lost)
		})
	}
}
