package pebble_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
)

var errDisk = errors.New("the disk is on fire")

// faultyDisk is a file system in memory that can fail and crash.
type faultyDisk struct {
	*errorfs.FS
	mem *vfs.MemFS
	// fault is asked before every operation, possibly concurrently.
	fault atomic.Pointer[func(errorfs.Op) error]
}

// recycling is a MemFS without its ReuseForWrite, which takes a read lock twice: a CrashClone in between, from another
// goroutine, waits for the first and holds up the second.
type recycling struct{ vfs.FS }

func (r recycling) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := r.Rename(from, to); err != nil {
		return nil, err
	}
	return r.OpenReadWrite(to, category)
}

func newFaultyDisk() *faultyDisk {
	d := &faultyDisk{mem: vfs.NewCrashableMem()}
	d.FS = errorfs.Wrap(recycling{d.mem}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f := d.fault.Load(); f != nil {
			return (*f)(op)
		}
		return nil
	}))
	return d
}

func (d *faultyDisk) fail(f func(errorfs.Op) error) { d.fault.Store(&f) }

func (d *faultyDisk) heal() { d.fault.Store(nil) }

func isLog(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }

func isTable(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".sst") }

// isSync reports whether the operation makes something durable.
func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
}

// A failed sync: nobody gets a false yes, nothing is tried again, the process
// lives, and what was acknowledged is there.
func TestFailedSync(t *testing.T) {
	disk := newFaultyDisk()
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	require.NoError(t, s.Commit(set("before", "1")))

	var attempts atomic.Int32
	disk.fail(func(op errorfs.Op) error {
		if isLog(op) && isSync(op) {
			attempts.Add(1)
			return errDisk
		}
		return nil
	})
	results := make(chan error, 10)
	for i := range cap(results) {
		s.CommitAsync(set(fmt.Sprintf("during%d", i), "1"), func(err error) { results <- err })
	}
	for range cap(results) {
		err := <-results
		require.ErrorIs(t, err, storage.ErrFailed)
		require.ErrorIs(t, err, errDisk)
	}
	require.EqualValues(t, 1, attempts.Load())

	disk.heal() // too late
	for range 3 {
		err := s.Commit(set("after", "1"))
		require.ErrorIs(t, err, storage.ErrFailed)
		require.ErrorIs(t, err, errDisk)
		require.ErrorContains(t, err, ".log")
	}
	require.ErrorIs(t, s.Commit(new(storage.Batch)), storage.ErrFailed)
	v, err := s.Get([]byte("before"))
	require.NoError(t, err, "reads go on")
	require.Equal(t, "1", string(v))

	crashed := disk.mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	require.EqualValues(t, 1, attempts.Load())
	s = open(t, pebble.Config{Dir: "data", FS: crashed})
	_, err = s.Get([]byte("before"))
	require.NoError(t, err)
	_, err = s.Get([]byte("after"))
	require.ErrorIs(t, err, storage.ErrNotFound)
}

// TestFailureAnywhere fails the n-th operation that changes the disk, for every
// n, once or from then on, under a load that changes logs, flushes and compacts.
// Whatever it hits, the process lives, later commits fail or work, none is
// acknowledged that a crash loses, and the directory can be opened.
func TestFailureAnywhere(t *testing.T) {
	t.Parallel()
	counting := newFaultyDisk()
	var total atomic.Int64
	counting.fail(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			total.Add(1)
		}
		return nil
	})
	acknowledged, failed := load(t, counting)
	require.NoError(t, failed)
	require.NotEmpty(t, acknowledged)
	checkAcknowledged(t, counting.mem, acknowledged)

	runs := 2 * total.Load() // once, and from then on
	random := rand.New(rand.NewPCG(uint64(total.Load()), 1))
	hits := map[string]int{}
	for run := range runs {
		n, once := 1+run/2, run%2 == 0
		disk := newFaultyDisk()
		var count atomic.Int64
		var hit string
		disk.fail(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpLock {
				return nil
			}
			c := count.Add(1)
			if c == n {
				hit = fmt.Sprintf("%d %s", op.Kind, filepath.Ext(op.Path))
			}
			if c == n || c > n && !once {
				return errDisk
			}
			return nil
		})
		acknowledged, failed := load(t, disk)
		if failed != nil {
			require.ErrorIs(t, failed, errDisk, "run %d: operation %d, %s", run, n, hit)
		}
		disk.heal()
		for _, c := range []vfs.CrashCloneCfg{{}, {UnsyncedDataPercent: 50, RNG: random}, {UnsyncedDataPercent: 100, RNG: random}} {
			checkAcknowledged(t, disk.mem.CrashClone(c), acknowledged)
		}
		if failed != nil {
			hits[hit]++
		}
	}
	t.Logf("%d operations, %d runs with a failure; those that failed the store, by kind: %v", total.Load(), runs, hits)
	require.Greater(t, len(hits), 5, "the faults hit too little: %v", hits)
}

// TestCrashAnywhere crashes before the n-th operation on the disk, for every n,
// under the same load, and while the store is opened again. Of what was not synced, a part is kept.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	disk := newFaultyDisk()
	type crash struct {
		disk         *vfs.MemFS
		acknowledged int
		before       string
	}
	var mu sync.Mutex
	var crashes []crash
	var operations, acknowledged int
	var unsynced, disorder string
	var marker bool // the last operation that was not on a log was on a marker
	random := rand.New(rand.NewPCG(5, 6))
	disk.fail(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		operations++
		// That a removal may be kept, and the creation before it not, is beyond this
		// disk: so look at the order.
		switch {
		case op.Kind == errorfs.OpFileSync && op.Path == "data":
			unsynced = ""
		case op.Kind == errorfs.OpCreate:
			unsynced = op.Path
		case op.Kind == errorfs.OpRemove && strings.Contains(op.Path, "marker.") && strings.Contains(unsynced, "marker."):
			disorder = fmt.Sprintf("%s is removed before %s is durable", op.Path, unsynced)
		}
		clones := 2
		if op.Kind == errorfs.OpFileSync && op.Path == "data" && marker {
			// What a moved marker names, and the old one, may be kept or not.
			clones = 6
		}
		for i := range clones {
			c := vfs.CrashCloneCfg{UnsyncedDataPercent: []int{50, 0, 90, 100}[(operations+i)%4], RNG: random}
			if clones > 1 {
				c.UnsyncedDataPercent = 50
			}
			crashes = append(crashes, crash{disk.mem.CrashClone(c), acknowledged, fmt.Sprintf("%d: %d %s", operations, op.Kind, op.Path)})
		}
		if !isLog(op) {
			marker = strings.Contains(op.Path, "marker.")
		}
		return nil
	})
	_, failed := loadAnd(t, disk, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		acknowledged = n
	})
	require.NoError(t, failed)
	// Once more, on a store that has something to lose.
	mu.Lock()
	operations = 0
	mu.Unlock()
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	require.NoError(t, s.Commit(set("z", "1")))
	require.NoError(t, s.Close())
	disk.heal()
	require.Empty(t, disorder)
	t.Logf("%d crashes, two before every operation, six where a marker moves", len(crashes))
	var before string
	defer func() {
		if t.Failed() {
			t.Log("crash before operation", before)
		}
	}()
	for _, c := range crashes {
		before = c.before
		numbers := make([]int, c.acknowledged)
		for i := range numbers {
			numbers[i] = i
		}
		checkAcknowledged(t, c.disk, numbers)
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

func (d lyingDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return lie(d.FS.OpenReadWrite(name, c, o...))
}

func (d lyingDisk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return lie(d.FS.ReuseForWrite(from, to, c))
}

// The crashes of these tests lose what was not synced: on a disk that lies about it,
// acknowledged batches are gone.
func TestCrashesLoseWhatWasNotSynced(t *testing.T) {
	for name, disk := range map[string]func(*vfs.MemFS) vfs.FS{
		"honest": func(m *vfs.MemFS) vfs.FS { return m },
		"lying":  func(m *vfs.MemFS) vfs.FS { return lyingDisk{m} },
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			s := open(t, pebble.Config{Dir: "data", FS: disk(mem)})
			require.NoError(t, s.Commit(set("key", "value")))
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			require.NoError(t, s.Close())
			lost := false
			if s, err := pebble.Open(pebble.Config{Dir: "data", FS: crashed}); err != nil {
				lost = true // not even the directory can be read
			} else {
				_, err = s.Get([]byte("key"))
				lost = err != nil
				require.NoError(t, s.Close())
			}
			require.Equal(t, name == "lying", lost)
		})
	}
}

// load works on the disk, with many flushes, and returns the numbers of the
// batches that were acknowledged, and the error that stopped it.
func load(t *testing.T, disk *faultyDisk) (acknowledged []int, failed error) {
	t.Helper()
	return loadAnd(t, disk, func(int) {})
}

// loadAnd is load, and calls fn with the number of acknowledged batches whenever
// that rises.
func loadAnd(t *testing.T, disk *faultyDisk, fn func(int)) (acknowledged []int, failed error) {
	t.Helper()
	config := pebble.Config{Dir: "data", FS: disk, Options: func(o *engine.Options) {
		o.MemTableSize = 128 << 10
		o.L0CompactionThreshold = 2
		o.MaxManifestFileSize = 1 << 10 // changes of the manifest, too
	}}
	s, err := pebble.Open(config)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 120 {
		b := new(storage.Batch)
		if i%10 == 9 {
			b.DeleteRange([]byte("k"), fmt.Appendf(nil, "k%04d", i-5))
		}
		b.Set(fmt.Appendf(nil, "k%04d", i), value(i)[:5<<10])
		b.Set(fmt.Appendf(nil, "n%04d", i), nil)
		wg.Add(1)
		s.CommitAsync(b, func(err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				if failed != nil {
					failed = fmt.Errorf("batch %d was acknowledged after %w", i, failed)
				}
				acknowledged = append(acknowledged, i)
				fn(len(acknowledged))
			} else if failed == nil {
				failed = err
			}
		})
		if i%4 == 3 {
			wg.Wait()
		}
	}
	wg.Wait()
	require.NoError(t, s.Close())
	if failed != nil {
		require.ErrorIs(t, failed, storage.ErrFailed)
		require.NotContains(t, failed.Error(), "was acknowledged after")
	}
	return acknowledged, failed
}

// value returns bytes that don't compress.
func value(i int) []byte {
	v := noise[17*i:]
	return v[:40<<10]
}

var noise = func() []byte {
	n := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(n)
	return n
}()

func checkAcknowledged(t *testing.T, disk vfs.FS, acknowledged []int) {
	t.Helper()
	s, err := pebble.Open(pebble.Config{Dir: "data", FS: disk})
	require.NoError(t, err)
	defer s.Close()
	for i, n := range acknowledged {
		require.Equal(t, i, n)
	}
	it, err := s.Scan([]byte("n"), []byte("o"))
	require.NoError(t, err)
	there, _, err := storage.Collect(it)
	require.NoError(t, err)
	for i := range there {
		require.Equal(t, fmt.Sprintf("n%04d", i), string(there[i]), "a hole")
	}
	require.GreaterOrEqual(t, len(there), len(acknowledged), "an acknowledged batch is lost")
	last := len(there) - 1
	if last < 0 {
		return
	}
	first := max(0, (last+1)/10*10-1-5)
	for i := max(0, first-5); i <= last; i++ {
		v, err := s.Get(fmt.Appendf(nil, "k%04d", i))
		if i < first {
			require.ErrorIs(t, err, storage.ErrNotFound, "key %d of %d", i, last)
		} else {
			require.NoError(t, err, "key %d of %d", i, last)
			require.True(t, bytes.Equal(value(i)[:5<<10], v), "key %d of %d", i, last)
		}
	}
}

// While the disk is nearly full, commits are refused, and nothing is written.
func TestNoSpace(t *testing.T) {
	mem := vfs.NewMem()
	room := func(bytes uint64) {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40})
	}
	room(1000)
	s := open(t, pebble.Config{Dir: "data", FS: mem, MinFreeBytes: 1000})
	require.NoError(t, s.Commit(set("a", "1")))

	room(999)
	require.NoError(t, s.Commit(set("a", "2")), "nobody looks for every small commit")
	// A megabyte makes it look.
	require.ErrorIs(t, s.Commit(set("big", strings.Repeat("x", 1<<20))), storage.ErrNoSpace)
	err := s.Commit(set("a", "3"))
	require.ErrorIs(t, err, storage.ErrNoSpace)
	require.NotErrorIs(t, err, storage.ErrFailed)
	require.ErrorContains(t, err, "MinFreeBytes")
	v, err := s.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "2", string(v))

	// The refusal is known before CommitAsync returns, and after what came before.
	var got error
	s.CommitAsync(set("a", "3"), func(err error) { got = err })
	require.ErrorIs(t, got, storage.ErrNoSpace)

	deletes := new(storage.Batch)
	deletes.DeleteRange([]byte("a"), []byte("b"))
	require.NoError(t, s.Commit(deletes), "to delete makes room")
	room(249)
	require.ErrorIs(t, s.Commit(deletes), storage.ErrNoSpace, "down to a quarter")

	room(1000)
	require.NoError(t, s.Commit(set("a", "4")), "there is room again")
}

// A disk on which tables can't be written for lack of space does not fail the
// store: it goes on when there is room.
func TestFlushWithoutSpace(t *testing.T) {
	disk := newFaultyDisk()
	s := open(t, pebble.Config{Dir: "data", FS: disk, MemTableBytes: 1 << 20})
	refused := make(chan struct{})
	var once sync.Once
	disk.fail(func(op errorfs.Op) error {
		if isTable(op) && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			once.Do(func() { close(refused) })
			return syscall.ENOSPC
		}
		return nil
	})
	for i := range 60 {
		require.NoError(t, s.Commit(set(fmt.Sprintf("k%02d", i), string(value(i)))))
	}
	<-refused
	disk.heal()
	for i := range 60 {
		require.NoError(t, s.Commit(set(fmt.Sprintf("l%02d", i), string(value(i)))))
	}
	for i := range 60 {
		v, err := s.Get(fmt.Appendf(nil, "k%02d", i))
		require.NoError(t, err)
		require.Equal(t, value(i), v)
	}
	require.NoError(t, s.Close())
	require.NotEmpty(t, tables(t, disk))
}

// Close ends a commit that is stalled because the disk is full, and loses
// nothing.
func TestCloseWhileStalled(t *testing.T) {
	t.Parallel()
	disk := newFaultyDisk()
	stalled := make(chan struct{})
	var once sync.Once
	s := open(t, pebble.Config{Dir: "data", FS: disk, MemTableBytes: 1 << 20, Options: func(o *engine.Options) {
		o.EventListener = &engine.EventListener{WriteStallBegin: func(engine.WriteStallBeginInfo) { once.Do(func() { close(stalled) }) }}
	}})
	disk.fail(func(op errorfs.Op) error {
		if isTable(op) && op.Kind == errorfs.OpFileWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	acknowledged := 0
	ended := make(chan error)
	go func() {
		for i := 0; ; i++ {
			if err := s.Commit(set(fmt.Sprintf("k%04d", i), string(value(i)))); err != nil {
				ended <- err
				return
			}
			acknowledged++
		}
	}()
	<-stalled
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-ended, storage.ErrFailed)

	disk.heal()
	s = open(t, pebble.Config{Dir: "data", FS: disk.mem.CrashClone(vfs.CrashCloneCfg{})})
	for i := range acknowledged {
		v, err := s.Get(fmt.Appendf(nil, "k%04d", i))
		require.NoError(t, err)
		require.Equal(t, value(i), v)
	}
}

// A disk that is full when the store is opened is an error, not a loop.
func TestOpenWithoutSpace(t *testing.T) {
	disk := newFaultyDisk()
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	require.NoError(t, s.Commit(set("a", "1")))
	require.NoError(t, s.Close())
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite} {
		disk.fail(func(op errorfs.Op) error {
			if op.Kind == kind && !strings.HasSuffix(op.Path, "LOCK") {
				return syscall.ENOSPC
			}
			return nil
		})
		_, err := pebble.Open(pebble.Config{Dir: "data", FS: disk})
		require.ErrorIs(t, err, storage.ErrNoSpace)
		var dirError *pebble.DirError
		require.ErrorAs(t, err, &dirError)
		require.Equal(t, "data", dirError.Dir)
	}
	disk.heal()
	s = open(t, pebble.Config{Dir: "data", FS: disk})
	v, err := s.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
}

// tables returns the paths of the table files.
func tables(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("data")
	require.NoError(t, err)
	var paths []string
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			paths = append(paths, fs.PathJoin("data", n))
		}
	}
	return paths
}

// A panic inside Pebble fails the store, and Close still returns.
func TestPanic(t *testing.T) {
	s := open(t, pebble.Config{Dir: "data", FS: vfs.NewMem(), MemTableBytes: 1 << 20, Options: func(o *engine.Options) {
		o.DisableAutomaticCompactions = true
		o.L0CompactionThreshold, o.L0StopWritesThreshold = 1, 1
		o.EventListener = &engine.EventListener{WriteStallBegin: func(engine.WriteStallBeginInfo) { panic("a bug") }}
	}})
	var err error
	for i := 0; err == nil; i++ {
		err = s.Commit(set(fmt.Sprintf("k%04d", i), string(value(i))))
	}
	require.ErrorIs(t, err, storage.ErrFailed)
	require.ErrorContains(t, err, "a bug")
	require.ErrorIs(t, s.Commit(set("a", "1")), storage.ErrFailed)
	_, err = s.Get([]byte("k0000"))
	require.ErrorIs(t, err, storage.ErrFailed, "what Pebble holds is not to be believed any more")
	require.NoError(t, s.Close())
}
