package pebble_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
)

func TestConfigErrors(t *testing.T) {
	with := func(change func(*pebble.Config)) pebble.Config {
		c := pebble.Config{Dir: "data", FS: vfs.NewMem()}
		change(&c)
		return c
	}
	for field, configs := range map[string][]pebble.Config{
		"Dir":             {with(func(c *pebble.Config) { c.Dir = "" })},
		"CacheBytes":      {with(func(c *pebble.Config) { c.CacheBytes = -1 })},
		"MemTableBytes":   {with(func(c *pebble.Config) { c.MemTableBytes = 1000 }), with(func(c *pebble.Config) { c.MemTableBytes = 2 << 30 })},
		"MaxCompactions":  {with(func(c *pebble.Config) { c.MaxCompactions = -1 })},
		"MaxPendingBytes": {with(func(c *pebble.Config) { c.MaxPendingBytes = -1 })},
		"Options": {
			with(func(c *pebble.Config) { c.Options = func(o *engine.Options) { o.DisableWAL = true } }),
			with(func(c *pebble.Config) { c.Options = func(o *engine.Options) { o.ReadOnly = true } }),
			with(func(c *pebble.Config) {
				c.Options = func(o *engine.Options) { o.WALFailover = new(engine.WALFailoverOptions) }
			}),
		},
	} {
		for _, c := range configs {
			_, err := pebble.Open(c)
			var configError *synod.ConfigError
			require.ErrorAs(t, err, &configError, field)
			require.Equal(t, field, configError.Field)
			require.Equal(t, "storage/pebble", configError.Package)
			require.NotEmpty(t, configError.Reason)
		}
	}
}

// refused opens the directory, which must fail with a DirError that wraps cause
// and says what the remedy is.
func refused(t *testing.T, c pebble.Config, cause error, remedy string) {
	t.Helper()
	_, err := pebble.Open(c)
	var dirError *pebble.DirError
	require.ErrorAs(t, err, &dirError)
	require.ErrorIs(t, err, cause)
	require.NotEmpty(t, dirError.Dir)
	require.Contains(t, err.Error(), dirError.Dir)
	require.Contains(t, err.Error(), remedy)
}

func TestDirErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	refused(t, pebble.Config{Dir: file}, syscall.ENOTDIR, "it is a file")
	refused(t, pebble.Config{Dir: filepath.Join(file, "below")}, syscall.ENOTDIR, "a part of its path is a file")

	for kind, cause := range map[errorfs.OpKind]error{errorfs.OpMkdirAll: syscall.EACCES, errorfs.OpLock: syscall.EROFS, errorfs.OpCreate: syscall.EACCES} {
		disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == kind {
				return &fs.PathError{Op: "open", Path: op.Path, Err: cause}
			}
			return nil
		}))
		remedy := "give this process the right to write there"
		if cause == syscall.EROFS {
			remedy = "mounted read-only"
		}
		refused(t, pebble.Config{Dir: "data", FS: disk}, cause, remedy)
	}
}

func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, pebble.Config{Dir: dir})
	refused(t, pebble.Config{Dir: dir}, storage.ErrLocked, "in use")

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	refused(t, pebble.Config{Dir: link}, storage.ErrLocked, "in use")
	t.Chdir(dir)
	refused(t, pebble.Config{Dir: "."}, storage.ErrLocked, "in use")
	require.NoError(t, s.Commit(set("undisturbed", "1")))

	out, err := openInOtherProcess(t, dir)
	require.Error(t, err)
	require.Contains(t, out, "storage: in use by another process")
	require.NoError(t, s.Commit(set("undisturbed", "2")))
	require.NoError(t, s.Close())
	out, err = openInOtherProcess(t, dir)
	require.NoError(t, err, out)
	open(t, pebble.Config{Dir: dir})
}

const otherProcess = "SYNOD_TEST_OPEN_DIR"

func openInOtherProcess(t *testing.T, dir string) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$")
	cmd.Env = append(os.Environ(), otherProcess+"="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestOtherProcess is not a test of its own: TestLocked runs it as another
// process.
func TestOtherProcess(t *testing.T) {
	dir := os.Getenv(otherProcess)
	if dir == "" {
		t.Skip("not started by TestLocked")
	}
	s, err := pebble.Open(pebble.Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// A failed Open leaves nothing behind: the next one works.
func TestOpenAgain(t *testing.T) {
	disk := newFaultyDisk()
	for n := range 60 {
		left := n
		var mu sync.Mutex
		disk.fail(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind == errorfs.OpRemove {
				return nil // Pebble tries those again
			}
			if left--; left < 0 {
				return errDisk
			}
			return nil
		})
		s, err := pebble.Open(pebble.Config{Dir: "data", FS: disk})
		if err == nil {
			require.NoError(t, s.Close())
		} else {
			require.ErrorIs(t, err, errDisk)
		}
		disk.heal()
	}
	s := open(t, pebble.Config{Dir: "data", FS: disk})
	require.NoError(t, s.Commit(set("a", "1")))
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	require.NoError(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, offset)
	require.NoError(t, err)
}

// copyDir copies a directory of a store that is open: what a kill would leave.
// Files that Pebble removes meanwhile are not needed any more.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, e.Name()), content, 0o600))
	}
	return to
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names[len(names)-1]
}

// A flipped bit in a log is not a torn tail: what stands behind it was
// acknowledged, and must not vanish. Already in the first log of a store.
func TestCorruptLog(t *testing.T) {
	for _, dont := range []bool{false, true} {
		dir := t.TempDir()
		s := open(t, pebble.Config{Dir: dir, DontFillLogs: dont})
		for i := range 20 {
			require.NoError(t, s.Commit(set(fmt.Sprintf("k%02d", i), strings.Repeat("v", 10_000))))
		}
		dir = copyDir(t, dir)
		require.NoError(t, s.Close())
		log := one(t, filepath.Join(dir, "*.log"))
		content, err := os.ReadFile(log)
		require.NoError(t, err)
		at := bytes.Index(content, []byte("k07"))
		require.Positive(t, at)
		flip(t, log, int64(at)+1)

		_, err = pebble.Open(pebble.Config{Dir: dir})
		var corrupt *storage.CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.ErrorIs(t, err, storage.ErrCorrupt)
		require.Equal(t, log, corrupt.File)

		flip(t, log, int64(at)+1)
		s = open(t, pebble.Config{Dir: dir})
		_, err = s.Get([]byte("k19"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
}

// A log that a crash cut off is taken as it is, however often, although it ends
// in zeros.
func TestCutLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, pebble.Config{Dir: dir})
	require.NoError(t, s.Commit(set("a", "1")))
	log := one(t, filepath.Join(dir, "*.log"))
	info, err := os.Stat(log)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(100<<10), "zeros were written ahead")
	for range 3 {
		dir = copyDir(t, dir) // the store is open: nothing ends its log
		s = open(t, pebble.Config{Dir: dir})
		v, err := s.Get([]byte("a"))
		require.NoError(t, err)
		require.Equal(t, "1", string(v))
	}
	require.NoError(t, s.Commit(set("b", "1")))
	dir = copyDir(t, dir)

	// All that a crash left of this log is its length.
	log = one(t, filepath.Join(dir, "*.log"))
	info, err = os.Stat(log)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(log, make([]byte, info.Size()), 0o600))
	for range 3 {
		dir = copyDir(t, dir)
		s = open(t, pebble.Config{Dir: dir})
		_, err = s.Get([]byte("a"))
		require.NoError(t, err)
		_, err = s.Get([]byte("b"))
		require.ErrorIs(t, err, storage.ErrNotFound)
	}
}

// A corrupt table file makes reads of its keys fail, with the file's name, and no
// others. Nothing is reported as missing that was there.
func TestCorruptTable(t *testing.T) {
	dir := t.TempDir()
	var logged syncBuffer
	config := pebble.Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil)), Options: func(o *engine.Options) {
		o.DisableAutomaticCompactions = true
	}}
	s := open(t, config)
	for i := range 100 {
		require.NoError(t, s.Commit(set(fmt.Sprintf("a%02d", i), string(value(i))[:1000])))
	}
	require.NoError(t, s.Close())
	s = open(t, config) // writes a table of what is in the log
	require.NoError(t, s.Commit(set("b", "1")))
	require.NoError(t, s.Close())
	table := one(t, filepath.Join(dir, "*.sst"))
	flip(t, table, 2000)

	s = open(t, config)
	bad := 0
	for i := range 100 {
		key := fmt.Appendf(nil, "a%02d", i)
		v, err := s.Get(key)
		if err == nil {
			require.Equal(t, value(i)[:1000], v)
			continue
		}
		bad++
		require.ErrorIs(t, err, storage.ErrCorrupt)
		require.NotErrorIs(t, err, storage.ErrNotFound)
		var corrupt *storage.CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, filepath.Base(table), filepath.Base(corrupt.File))
		require.Equal(t, key, corrupt.Key)
	}
	require.Positive(t, bad)
	require.Less(t, bad, 100)
	it, err := s.Scan([]byte("a"), []byte("b"))
	require.NoError(t, err)
	_, _, err = storage.Collect(it)
	require.ErrorIs(t, err, storage.ErrCorrupt)
	v, err := s.Get([]byte("b"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
	require.NoError(t, s.Commit(set("c", "1")), "the store goes on")
	require.Contains(t, logged.String(), filepath.Base(table))
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A store whose table is gone says so, too.
func TestMissingTable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, pebble.Config{Dir: dir})
	require.NoError(t, s.Commit(set("a", "1")))
	require.NoError(t, s.Close())
	s = open(t, pebble.Config{Dir: dir})
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(one(t, filepath.Join(dir, "*.sst"))))
	s, err := pebble.Open(pebble.Config{Dir: dir})
	if err == nil {
		defer s.Close()
		_, err = s.Get([]byte("a"))
	}
	require.Error(t, err)
	require.False(t, errors.Is(err, storage.ErrNotFound))
}

func TestInvalidBatches(t *testing.T) {
	s := open(t, pebble.Config{Dir: "data", FS: vfs.NewMem()})
	high := strings.Repeat("\xff", 256)
	require.ErrorIs(t, s.Commit(set(high, "1")), storage.ErrInvalidBatch)
	require.ErrorIs(t, s.Commit(set(high+"x", "1")), storage.ErrInvalidBatch)
	require.NoError(t, s.Commit(set(high[1:], "1")))
	require.NoError(t, s.Commit(set(high[1:]+"\xfe", "1")))
	all := new(storage.Batch)
	all.DeleteRange(nil, nil)
	require.NoError(t, s.Commit(all))
	_, err := s.Get([]byte(high[1:] + "\xfe"))
	require.ErrorIs(t, err, storage.ErrNotFound)

	large := make([]byte, 16<<20)
	for range 64 {
		all.Set([]byte("k"), large)
	}
	require.ErrorIs(t, s.Commit(all), storage.ErrInvalidBatch)
	require.NoError(t, s.Commit(set("a", "1")))
}

// The options that are handed through are used.
func TestOptions(t *testing.T) {
	var logs int
	s := open(t, pebble.Config{Dir: "data", FS: vfs.NewMem(), Options: func(o *engine.Options) {
		require.Equal(t, uint64(64<<20), o.MemTableSize)
		o.EventListener = &engine.EventListener{WALCreated: func(engine.WALCreateInfo) { logs++ }}
	}})
	require.NoError(t, s.Close())
	require.Positive(t, logs)
}

// Commits under way are bounded: CommitAsync waits, and goes on.
func TestMaxPendingBytes(t *testing.T) {
	disk := newFaultyDisk()
	s := open(t, pebble.Config{Dir: "data", FS: disk, MaxPendingBytes: 10_000})
	syncing, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	disk.fail(func(op errorfs.Op) error {
		if isLog(op) && isSync(op) {
			once.Do(func() { close(syncing) })
			<-release
		}
		return nil
	})
	const n = 10
	results := make(chan error, n)
	returned := make(chan int, n)
	go func() {
		for i := range n {
			s.CommitAsync(set(fmt.Sprintf("k%d", i), strings.Repeat("x", 3000)), func(err error) { results <- err })
			returned <- i
		}
	}()
	<-syncing
	for range 3 {
		<-returned
	}
	select {
	case i := <-returned:
		require.Fail(t, "too many commits under way", "%d", i)
	case <-results:
		require.Fail(t, "a commit is done, and its sync is not")
	default:
	}
	close(release)
	for range n {
		require.NoError(t, <-results)
	}
}
