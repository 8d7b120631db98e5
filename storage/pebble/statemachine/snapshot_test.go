package statemachine_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble/statemachine"
)

// A snapshot holds the state as it was, writes the same bytes whenever it is asked, and
// makes another machine the same.
func TestSnapshot(t *testing.T) {
	h := newHistory(3000, 600)
	fs := vfs.NewMem()
	m := open(t, statemachine.Config{FS: fs, MemTableBytes: 64 << 10})
	other := open(t, statemachine.Config{Dir: "other", FS: fs})
	for _, at := range []uint64{0, 150, 300} {
		h.apply(t, m, at)
		s, err := m.Snapshot()
		require.NoError(t, err)
		var first, second bytes.Buffer
		_, err = s.WriteTo(&first)
		require.NoError(t, err)
		h.apply(t, m, at+150) // it is compacted meanwhile, too
		n, err := s.WriteTo(&second)
		require.NoError(t, err)
		require.EqualValues(t, second.Len(), n)
		require.True(t, bytes.Equal(first.Bytes(), second.Bytes()), "the second time it writes something else")

		require.NoError(t, other.Restore(iotest.OneByteReader(&first)))
		require.Equal(t, at, other.Index())
		h.check(t, other)
		durable, err := other.DurableIndex()
		require.NoError(t, err)
		require.Equal(t, at, durable)
		h.apply(t, other, at+20)
		h.check(t, other)

		require.Len(t, list(t, fs, "data", "snapshot-"), 1)
		require.NoError(t, s.(io.Closer).Close())
		require.NoError(t, s.(io.Closer).Close())
		require.Empty(t, list(t, fs, "data", "snapshot-"))
		_, err = s.WriteTo(io.Discard)
		require.ErrorIs(t, err, storage.ErrClosed)
	}
	require.Len(t, list(t, fs, "other", "state-"), 1)
	require.NoError(t, other.Close())
	h.check(t, open(t, statemachine.Config{Dir: "other", FS: fs}))
}

// A snapshot is a link for each file: nothing is copied.
func TestSnapshotIsCheap(t *testing.T) {
	h := newHistory(60000, 300)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk, MemTableBytes: 1 << 20})
	h.apply(t, m, 300)
	require.NoError(t, m.Flush(t.Context()))
	var links, copies atomic.Int32
	disk.fail(func(op errorfs.Op) error {
		switch {
		case op.Kind == errorfs.OpLink: // it names the old file
			links.Add(1)
		case isTable(op) && isWrite(op) && strings.Contains(op.Path, "snapshot-"):
			copies.Add(1)
		}
		return nil
	})
	s, err := m.Snapshot()
	require.NoError(t, err)
	disk.heal()
	require.Positive(t, links.Load())
	require.Zero(t, copies.Load())
	require.NoError(t, s.(io.Closer).Close())
}

// A snapshot that is closed while it is read ends when it was read.
func TestCloseOfASnapshotThatIsRead(t *testing.T) {
	h := newHistory(1000, 60)
	fs := vfs.NewMem()
	m := open(t, statemachine.Config{FS: fs})
	h.apply(t, m, 50)
	s, err := m.Snapshot()
	require.NoError(t, err)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := s.WriteTo(w)
		w.CloseWithError(err)
		done <- err
	}()
	first := make([]byte, 1)
	_, err = io.ReadFull(r, first)
	require.NoError(t, err)
	require.NoError(t, s.(io.Closer).Close())
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.Empty(t, list(t, fs, "data", "snapshot-"))
	h.apply(t, m, 60)
	require.NoError(t, m.Restore(bytes.NewReader(append(first, rest...))))
	require.EqualValues(t, 50, m.Index())
	h.check(t, m)
}

// Whoever reads keeps what was there, while snapshots are restored.
func TestViewsOutliveRestore(t *testing.T) {
	h := newHistory(1000, 60)
	fs := vfs.NewMem()
	m := open(t, statemachine.Config{FS: fs})
	h.apply(t, m, 20)
	early := capture(t, m)
	var views []*statemachine.View
	see := func() {
		v, err := m.View()
		require.NoError(t, err)
		views = append(views, v)
	}
	see()
	h.apply(t, m, 40)
	see()
	it, err := views[1].Scan(nil, nil)
	require.NoError(t, err)
	require.NoError(t, m.Restore(bytes.NewReader(early)))
	see()
	h.apply(t, m, 60)
	see()
	require.NoError(t, m.Restore(bytes.NewReader(early)))
	see()
	for i, index := range []uint64{20, 40, 20, 60, 20} {
		require.Equal(t, index, views[i].Index())
		h.checkView(t, views[i])
	}
	require.Len(t, list(t, fs, "data", "state-"), 3)
	require.NoError(t, views[0].Close())
	require.NoError(t, views[1].Close())
	require.Len(t, list(t, fs, "data", "state-"), 3, "the iterator still needs it")
	keys, _, err := storage.Collect(it)
	require.NoError(t, err)
	require.Len(t, keys, len(h.states[40]))
	require.Len(t, list(t, fs, "data", "state-"), 2)
	h.checkView(t, views[3])
	require.NoError(t, views[2].Close())
	require.NoError(t, views[3].Close())
	require.Len(t, list(t, fs, "data", "state-"), 1)
	h.checkView(t, views[4])

	// Close of the machine ends those of states that were replaced, too.
	require.NoError(t, m.Restore(bytes.NewReader(early)))
	require.NoError(t, m.Close())
	_, err = views[4].Get(nil)
	require.ErrorIs(t, err, storage.ErrClosed)
	require.Len(t, list(t, fs, "data", "state-"), 1)
}

// sections cuts a snapshot into its parts: the head, and name, size and bytes of files.
func sections(t *testing.T, b []byte) iter.Seq2[string, []byte] {
	t.Helper()
	return func(yield func(string, []byte) bool) {
		files := binary.BigEndian.Uint32(b[17:])
		b = b[25:]
		for range files {
			n := int(b[0])
			name := string(b[1 : 1+n])
			size := binary.BigEndian.Uint64(b[1+n:])
			b = b[1+n+8+4:]
			if !yield(name, b[:size]) {
				return
			}
			b = b[size+4:]
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type file struct {
	name string
	data []byte
}

// forge writes a snapshot with right checksums.
func forge(index uint64, files ...file) []byte {
	return forgeCount(index, uint32(len(files)), files...)
}

func forgeCount(index uint64, count uint32, files ...file) []byte {
	var b []byte
	sum := uint32(0)
	seal := func(from int) {
		sum = crc32.Update(sum, castagnoli, b[from:])
		b = binary.BigEndian.AppendUint32(b, sum)
	}
	b = append(b, "synodPSM\x01"...)
	b = binary.BigEndian.AppendUint64(b, index)
	b = binary.BigEndian.AppendUint32(b, count)
	seal(0)
	for _, f := range files {
		from := len(b)
		b = append(b, byte(len(f.name)))
		b = append(b, f.name...)
		b = binary.BigEndian.AppendUint64(b, uint64(len(f.data)))
		seal(from)
		b = append(b, f.data...)
		own := binary.BigEndian.AppendUint32(nil, crc32.Checksum(f.data, castagnoli))
		sum = crc32.Update(sum, castagnoli, own)
		b = append(b, own...)
	}
	return binary.BigEndian.AppendUint32(b, sum)
}

func parts(t *testing.T, snapshot []byte) (files []file) {
	t.Helper()
	for name, data := range sections(t, snapshot) {
		files = append(files, file{name, data})
	}
	return files
}

func TestFormat(t *testing.T) {
	h := newHistory(100, 20)
	m := open(t, statemachine.Config{FS: vfs.NewMem()})
	h.apply(t, m, 20)
	s := capture(t, m)
	files := parts(t, s)
	require.Greater(t, len(files), 4)
	require.True(t, bytes.Equal(s, forge(20, files...)), "the test knows another format")
}

// What can't be believed is refused, and the machine goes on with what it has.
func TestBadSnapshots(t *testing.T) {
	h := newHistory(100, 30)
	fs := vfs.NewMem()
	source := open(t, statemachine.Config{Dir: "source", FS: fs})
	h.apply(t, source, 10)
	good := capture(t, source)
	files := parts(t, good)
	with := func(change func([]file) []file) []byte {
		return forge(10, change(append([]file(nil), files...))...)
	}
	renamed := func(name string) []byte {
		return with(func(f []file) []file { return append([]file{{name, []byte("x")}}, f...) })
	}
	without := func(prefix string) []byte {
		return with(func(f []file) (kept []file) {
			for _, f := range f {
				if !strings.HasPrefix(f.name, prefix) {
					kept = append(kept, f)
				}
			}
			return kept
		})
	}
	altered := func(suffix string) []byte {
		return with(func(f []file) []file {
			for i := range f {
				if len(f[i].data) > 9 && (strings.HasPrefix(f[i].name, suffix) || strings.HasSuffix(f[i].name, suffix)) {
					f[i].data = bytes.Clone(f[i].data)
					f[i].data[len(f[i].data)-9] ^= 1
				}
			}
			return f
		})
	}
	m := open(t, statemachine.Config{FS: fs})
	h.apply(t, m, 20)
	for name, c := range map[string]struct {
		snapshot []byte
		want     string
	}{
		"nothing":           {nil, "cut off"},
		"another thing":     {[]byte(strings.Repeat("something else", 10)), "not a snapshot"},
		"newer":             {append([]byte("synodPSM\x02"), good[9:]...), "altered"},
		"too many files":    {forgeCount(10, 1<<20+1), "1048577 files"},
		"fewer files":       {forgeCount(10, uint32(len(files)-1), files...), ""},
		"more files":        {forgeCount(10, uint32(len(files)+1), files...), ""},
		"no files":          {forge(10), ""},
		"a path upwards":    {renamed("../000001.sst"), "not the name"},
		"an absolute path":  {renamed("/000001.sst"), "not the name"},
		"a path downwards":  {renamed("a/000001.sst"), "not the name"},
		"a path, hidden":    {renamed("000001.sst/../../CURRENT"), "not the name"},
		"a null byte":       {renamed("000001.sst\x00"), "not the name"},
		"a line":            {renamed("000001.sst\n"), "not the name"},
		"a lock":            {renamed("LOCK"), "not the name"},
		"a log":             {renamed("000001.log"), "not the name"},
		"no name":           {renamed(""), "name of a file has 0 bytes"},
		"a long name":       {renamed(strings.Repeat("0", 61) + ".sst"), "name of a file has 65 bytes"},
		"a file twice":      {with(func(f []file) []file { return append(f[:1:1], f...) }), "twice"},
		"out of order":      {with(func(f []file) []file { f[0], f[1] = f[1], f[0]; return f }), "out of order"},
		"no manifest":       {without("MANIFEST"), ""},
		"no table":          {without("0"), ""},
		"no marker":         {without("marker.manifest"), ""},
		"no format":         {without("marker.format"), ""},
		"a bad manifest":    {altered("MANIFEST-000001"), ""},
		"a bad table":       {altered(".sst"), ""},
		"another index":     {forge(11, files...), "after command 11, and holds the state after 10"},
		"something follows": {append(bytes.Clone(good), 0), "follows its end"},
	} {
		t.Run(name, func(t *testing.T) {
			err := m.Restore(bytes.NewReader(c.snapshot))
			var bad *storage.CorruptError
			require.ErrorAs(t, err, &bad)
			require.ErrorIs(t, err, storage.ErrCorrupt)
			require.ErrorContains(t, err, c.want)
			require.Len(t, list(t, fs, "data", "state-"), 1)
			h.check(t, m)
		})
	}
	// An error of the reader is passed on.
	for n := range good {
		err := m.Restore(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(errDisk)))
		require.ErrorIs(t, err, errDisk, "after %d bytes", n)
	}
	require.ErrorIs(t, m.Restore(io.MultiReader(bytes.NewReader(good), iotest.ErrReader(errDisk))), errDisk)
	// Each byte, and each length.
	for i := 0; i < len(good); i++ {
		if raceEnabled {
			i += 9
		}
		if i >= len(good) {
			break
		}
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		require.ErrorIs(t, m.Restore(bytes.NewReader(bad)), storage.ErrCorrupt, "byte %d", i)
		require.ErrorIs(t, m.Restore(bytes.NewReader(good[:i])), storage.ErrCorrupt, "%d bytes", i)
	}
	require.Len(t, list(t, fs, "data", "state-"), 1)
	require.EqualValues(t, 20, m.Index())
	h.apply(t, m, 30)
	h.check(t, m)
	require.NoError(t, m.Restore(bytes.NewReader(good)))
	require.EqualValues(t, 10, m.Index())
	h.check(t, m)
}

// FuzzRestore restores from bytes that nobody wrote: the error is typed, and the old
// state is there. A forged head makes more of them get past the checksums.
func FuzzRestore(f *testing.F) {
	fs := vfs.NewMem()
	m, err := statemachine.Open(statemachine.Config{Dir: "data", FS: fs, Apply: apply})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	m.Apply(1, nil)
	s, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	good := b.Bytes()
	f.Add(good, "", []byte(nil))
	f.Add(good[:100], "", []byte(nil))
	f.Add([]byte(nil), "000004.sst", []byte("table"))
	f.Add([]byte(nil), "../000004.sst", []byte("table"))
	f.Add([]byte(nil), "MANIFEST-000001", []byte("manifest"))
	f.Add([]byte(nil), "OPTIONS-000001", []byte("[Version]\n  pebble_version=0.1\n"))
	f.Add([]byte(nil), "marker.manifest.000001.MANIFEST-000001", []byte(nil))
	f.Fuzz(func(t *testing.T, snapshot []byte, name string, data []byte) {
		if name != "" {
			if len(name) > 255 {
				return
			}
			files := []file{{name, data}}
			for _, f := range parts(t, good) {
				if f.name != name {
					files = append(files, f)
				}
			}
			if len(data)%2 == 0 {
				files[0], files[len(files)-1] = files[len(files)-1], files[0]
			}
			snapshot = forge(1, files...)
		}
		if err := m.Restore(bytes.NewReader(snapshot)); err != nil && !errors.Is(err, storage.ErrCorrupt) {
			// What Pebble says of files with right checksums may be anything but a crash.
			if name == "" {
				t.Fatal(err)
			}
		}
		if names, err := fs.List("data"); err != nil || len(names) > 4 {
			t.Fatal(names, err)
		}
		if _, err := m.DurableIndex(); err != nil {
			t.Fatal(err)
		}
	})
}

// Local errors leave the old state, too.
func TestRestoreOnAFullDisk(t *testing.T) {
	h := newHistory(1000, 30)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk})
	h.apply(t, m, 10)
	snapshot := capture(t, m)
	h.apply(t, m, 20)
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpMkdirAll, errorfs.OpFileSync} {
		disk.fail(func(op errorfs.Op) error {
			if op.Kind == kind && !strings.Contains(op.Path, "state-1") {
				return syscall.ENOSPC
			}
			return nil
		})
		require.ErrorIs(t, m.Restore(bytes.NewReader(snapshot)), storage.ErrNoSpace)
		require.Len(t, list(t, disk.mem, "data", "state-"), 1)
	}
	disk.heal()
	h.check(t, m)
	h.apply(t, m, 30)
	require.NoError(t, m.Restore(bytes.NewReader(snapshot)))
	h.check(t, m)
}

// A checkpoint that fails does no harm.
func TestSnapshotOnAFullDisk(t *testing.T) {
	h := newHistory(1000, 30)
	disk := newFaultyDisk()
	m := open(t, statemachine.Config{FS: disk})
	h.apply(t, m, 20)
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpMkdirAll, errorfs.OpFileSync} {
		disk.fail(func(op errorfs.Op) error {
			if op.Kind == kind && strings.Contains(op.Path, "snapshot-") {
				return syscall.ENOSPC
			}
			return nil
		})
		_, err := m.Snapshot()
		require.ErrorIs(t, err, storage.ErrNoSpace)
		require.Empty(t, list(t, disk.mem, "data", "snapshot-"))
	}
	disk.heal()
	h.apply(t, m, 30)
	h.check(t, m)
	capture(t, m)
}

// flip changes a bit in a file.
func flip(t *testing.T, fs vfs.FS, path string, offset func(size int64) int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	var b [1]byte
	at := offset(info.Size())
	_, err = f.ReadAt(b[:], at)
	require.NoError(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b[:], at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// A flipped bit in a table is found when it is read, and before it is sent.
func TestFlippedBitInATable(t *testing.T) {
	h := newHistory(1000, 100)
	fs := vfs.NewMem()
	m := open(t, statemachine.Config{FS: fs})
	h.apply(t, m, 100)
	require.NoError(t, m.Close())
	var table string
	for _, n := range list(t, fs, "data/state-1", "") {
		if strings.HasSuffix(n, ".sst") {
			table = n // the last is that with the keys
		}
	}
	flip(t, fs, "data/state-1/"+table, func(size int64) int64 { return size / 3 })
	m = open(t, statemachine.Config{FS: fs, Apply: func(tx *statemachine.Tx, _ uint64, _ []byte) []byte {
		for range tx.Scan(nil, nil) {
		}
		return nil
	}})
	v, err := m.View()
	if err == nil {
		it, err := v.Scan(nil, nil)
		require.NoError(t, err)
		_, _, err = storage.Collect(it)
		require.ErrorIs(t, err, storage.ErrCorrupt)
		require.NoError(t, v.Close())
	} else {
		require.ErrorIs(t, err, storage.ErrCorrupt)
	}
	s, err := m.Snapshot()
	require.NoError(t, err)
	_, err = s.WriteTo(io.Discard)
	var bad *storage.CorruptError
	require.ErrorAs(t, err, &bad)
	require.Contains(t, bad.File, table)
	require.NoError(t, s.(io.Closer).Close())
	// A command that reads it stops the replica.
	require.ErrorIs(t, panics(t, func() { m.Apply(101, nil) }), storage.ErrCorrupt)
}

// A manifest is believed up to a record that a crash may have cut off, and no further.
func TestDamagedManifest(t *testing.T) {
	h := newHistory(300, 2000)
	made := vfs.NewCrashableMem()
	m := open(t, statemachine.Config{FS: made})
	h.apply(t, m, 20)
	manifest := func() (path string, info vfs.FileInfo) {
		manifests := list(t, made, "data/state-1", "MANIFEST")
		require.Len(t, manifests, 1)
		path = "data/state-1/" + manifests[0]
		info, err := made.Stat(path)
		require.NoError(t, err)
		return path, info
	}
	// Until a record lies across blocks: how soon depends on how often tables were merged meanwhile.
	for grown := int64(0); grown <= 33<<10; {
		require.Less(t, m.Index(), uint64(1998))
		require.NoError(t, m.Flush(t.Context()))
		h.apply(t, m, m.Index()+2)
		_, info := manifest()
		grown = info.Size()
	}
	require.NoError(t, m.Close())
	path, info := manifest()
	r := rand.New(rand.NewPCG(1, 2))
	refused, step := 0, int64(200)
	if raceEnabled {
		step *= 10
	}
	for at := int64(0); at < info.Size(); at += 1 + r.Int64N(step) {
		fs := made.CrashClone(vfs.CrashCloneCfg{})
		flip(t, fs, path, func(int64) int64 { return at })
		m, err := statemachine.Open(statemachine.Config{Dir: "data", FS: fs, Apply: apply})
		if err == nil {
			// The last record, without which the last flush is missing.
			require.Greater(t, at, info.Size()-400)
			h.check(t, m)
			require.NoError(t, m.Close())
			continue
		}
		refused++
		require.ErrorIs(t, err, storage.ErrCorrupt, "byte %d", at)
	}
	require.Greater(t, refused, int(60_000/step))
}

// What lies in the directory is believed or refused, never guessed.
func TestDamagedDirectory(t *testing.T) {
	h := newHistory(100, 20)
	made := vfs.NewCrashableMem()
	m := open(t, statemachine.Config{FS: made})
	h.apply(t, m, 20)
	require.NoError(t, m.Close())
	all := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct {
		damage func(fs vfs.FS) error
		want   string
	}{
		"CURRENT is gone":     {func(fs vfs.FS) error { return fs.Remove("data/CURRENT") }, "CURRENT"},
		"CURRENT has changed": {func(fs vfs.FS) error { flip(t, fs, "data/CURRENT", func(n int64) int64 { return n - 2 }); return nil }, "CURRENT"},
		"CURRENT is empty": {func(fs vfs.FS) error {
			f, _ := fs.Create("data/CURRENT", vfs.WriteCategoryUnspecified)
			return f.Close()
		}, "CURRENT"},
		"the state is gone":    {func(fs vfs.FS) error { return fs.RemoveAll("data/state-1") }, "state-1"},
		"a table is gone":      {func(fs vfs.FS) error { return removeSome(t, fs, ".sst") }, ""},
		"the manifest is gone": {func(fs vfs.FS) error { return removeSome(t, fs, "MANIFEST-000001") }, ""},
		"a marker is gone":     {func(fs vfs.FS) error { return removeSome(t, fs, ".MANIFEST-000001") }, ""},
		"the manifest changed": {func(fs vfs.FS) error {
			for _, n := range list(t, fs, "data/state-1", "MANIFEST") {
				flip(t, fs, "data/state-1/"+n, func(n int64) int64 { return n / 3 })
			}
			return nil
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fs := made.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: all})
			require.NoError(t, c.damage(fs))
			_, err := statemachine.Open(statemachine.Config{Dir: "data", FS: fs, Apply: apply})
			var bad *storage.CorruptError
			require.ErrorAs(t, err, &bad)
			require.Contains(t, bad.File, c.want)
		})
	}
	// What a crash left over goes; what is not ours stays.
	fs := made.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: all})
	for _, dir := range []string{"state-7", "snapshot-3", "mine"} {
		require.NoError(t, fs.MkdirAll("data/"+dir, 0o755))
	}
	m = open(t, statemachine.Config{FS: fs})
	h.check(t, m)
	require.Equal(t, []string{"CURRENT", "LOCK", "mine", "state-1"}, list(t, fs, "data", ""))
	snapshot := capture(t, m)
	require.NoError(t, m.Restore(bytes.NewReader(snapshot)))
	require.Equal(t, []string{"CURRENT", "LOCK", "mine", "state-8"}, list(t, fs, "data", ""))
}

func removeSome(t *testing.T, fs vfs.FS, suffix string) error {
	t.Helper()
	n := 0
	for _, name := range list(t, fs, "data/state-1", "") {
		if strings.HasSuffix(name, suffix) {
			require.NoError(t, fs.Remove("data/state-1/"+name))
			n++
		}
	}
	require.Positive(t, n)
	return nil
}
