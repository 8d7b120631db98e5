package pebble

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// Pebble's Fatalf returns here, and nothing is believed afterwards.
func TestFatalf(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Open(Config{Dir: "data", FS: mem})
	require.NoError(t, err)
	var b storage.Batch
	b.Set([]byte("a"), []byte("1"))
	require.NoError(t, s.Commit(&b))

	(&engineLogger{log: slog.New(slog.DiscardHandler), guard: s.guard}).Fatalf("impossible: %d", 7)
	require.ErrorIs(t, s.Commit(&b), storage.ErrFailed)
	require.ErrorContains(t, s.Commit(&b), "impossible: 7")
	_, err = s.Get([]byte("a"))
	require.ErrorIs(t, err, storage.ErrFailed)
	_, err = s.Scan(nil, nil)
	require.ErrorIs(t, err, storage.ErrFailed)
	_, err = s.Snapshot()
	require.ErrorIs(t, err, storage.ErrFailed)
	require.NoError(t, s.Close())
}

// After a failure, nothing on the disk changes, whatever is called.
func TestGuardFreezes(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	g := newGuard(vfs.Default, slog.New(slog.DiscardHandler), true)
	g.opening.Store(false)
	var files []vfs.File
	for _, name := range []string{"1.log", "MANIFEST-1", "marker.manifest.1.MANIFEST-1", "2.sst"} {
		f, err := g.Create(path(name), "")
		require.NoError(t, err)
		_, err = f.Write([]byte("before"))
		require.NoError(t, err)
		files = append(files, f)
	}
	before := state(t, dir)
	g.fail("sync", "1.log", os.ErrDeadlineExceeded)

	for _, f := range files[:3] {
		n, err := f.Write([]byte("after"))
		require.NoError(t, err)
		require.Equal(t, 5, n)
		_, err = f.WriteAt([]byte("after"), 0)
		require.NoError(t, err)
		require.NoError(t, f.SyncData())
		require.NoError(t, f.Preallocate(0, 1<<20))
	}
	_, err := files[3].Write([]byte("after"))
	require.ErrorIs(t, err, storage.ErrFailed, "Pebble would believe what it wrote to the table")
	require.ErrorIs(t, files[3].Sync(), storage.ErrFailed)

	f, err := g.Create(path("3.sst"), flushCategory)
	require.NoError(t, err)
	_, err = f.Write([]byte("in memory"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	f, err = g.Open(path("3.sst"))
	require.NoError(t, err)
	content := make([]byte, 9)
	_, err = f.ReadAt(content, 0)
	require.NoError(t, err)
	require.Equal(t, "in memory", string(content))
	_, err = g.Stat(path("3.sst"))
	require.NoError(t, err)

	_, err = g.ReuseForWrite(path("1.log"), path("4.log"), "")
	require.NoError(t, err)
	_, err = g.OpenReadWrite(path("1.log"), "")
	require.NoError(t, err)
	require.NoError(t, g.Rename(path("2.sst"), path("5.sst")))
	require.NoError(t, g.Remove(path("2.sst")))
	require.NoError(t, g.Remove(path("marker.manifest.1.MANIFEST-1")))
	require.NoError(t, g.RemoveAll(dir))
	require.ErrorIs(t, g.Link(path("2.sst"), path("6.sst")), storage.ErrFailed)
	close(g.closing)
	_, err = g.Create(path("7.sst"), "pebble-compaction")
	require.ErrorIs(t, err, storage.ErrFailed)
	for _, f := range files {
		require.NoError(t, f.Close())
	}
	require.Equal(t, before, state(t, dir))
}

func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	m := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		m[e.Name()] = string(content)
	}
	return m
}

// Zeros are written behind the data, never over it, and not where an older log
// is reused.
func TestFillAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "1.log")
	g := newGuard(vfs.Default, slog.New(slog.DiscardHandler), true)
	f, err := g.Create(path, "")
	require.NoError(t, err)
	var want []byte
	write := func(f vfs.File, n int) {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(len(want)) | 1
		}
		want = append(want, p...)
		_, err := f.Write(p)
		require.NoError(t, err)
		require.NoError(t, f.SyncData())
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, content[:len(want)])
		require.Empty(t, bytes.Trim(content[len(want):], "\x00"))
	}
	write(f, 100)
	info, err := os.Stat(path)
	require.NoError(t, err)
	length := info.Size()
	require.Equal(t, int64(100+minFill), length)
	for range 20 {
		write(f, 10_000)
	}
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, length, info.Size(), "grown where there was room")
	write(f, 60_000)
	info, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, length+32*60_000, info.Size(), "as much as 32 such syncs write")
	require.NoError(t, f.Close())

	reused := filepath.Join(filepath.Dir(path), "2.log")
	f, err = g.ReuseForWrite(path, reused, "")
	require.NoError(t, err)
	before := info.Size()
	_, err = f.Write([]byte("new"))
	require.NoError(t, err)
	require.NoError(t, f.SyncData())
	info, err = os.Stat(reused)
	require.NoError(t, err)
	require.Equal(t, before, info.Size())
	require.NoError(t, f.Close())
	require.NoError(t, g.err())
}
