package pebble_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/storage/storagetest"
)

func open(t *testing.T, c pebble.Config) *pebble.Store {
	t.Helper()
	s, err := pebble.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func set(key, value string) *storage.Batch {
	b := new(storage.Batch)
	b.Set([]byte(key), []byte(value))
	return b
}

// TestStore runs the conformance suite on the disk.
func TestStore(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
		return open(t, pebble.Config{Dir: dir})
	})
}

// crashableDisks are file systems in memory, by directory. A crash leaves what
// was synced.
type crashableDisks map[string]*vfs.MemFS

func (d crashableDisks) fs(dir string) vfs.FS {
	if d[dir] == nil {
		d[dir] = vfs.NewCrashableMem()
	}
	return d[dir]
}

func (d crashableDisks) crash(_ *testing.T, _ storage.Store, dir string) {
	d[dir] = d[dir].CrashClone(vfs.CrashCloneCfg{})
}

// TestStoreCrash runs the suite on a disk that can lose what was not synced.
func TestStoreCrash(t *testing.T) {
	t.Parallel()
	disks := crashableDisks{}
	storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
		return open(t, pebble.Config{Dir: "data", FS: disks.fs(dir), MemTableBytes: 1 << 20})
	}, storagetest.WithCrash(disks.crash))
}

// TestStorePrefix runs the suite on two floors of prefixes above the disk.
func TestStorePrefix(t *testing.T) {
	t.Parallel()
	disks := crashableDisks{}
	storagetest.Run(t, func(t *testing.T, dir string) storage.Store {
		s := open(t, pebble.Config{Dir: "data", FS: disks.fs(dir)})
		return &closer{storage.Prefix(storage.Prefix(s, []byte("\xff")), []byte("p/")).(powers), s}
	}, storagetest.WithCrash(disks.crash))
}

type powers interface {
	storage.Store
	storage.AsyncCommitter
	storage.Snapshotter
}

// closer closes the store below with the prefixed one.
type closer struct {
	powers
	below storage.Store
}

func (c *closer) Close() error {
	if err := c.powers.Close(); err != nil {
		return err
	}
	return c.below.Close()
}

func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	store, err := pebble.Open(pebble.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	var b storage.Batch
	b.Set([]byte("log/1"), []byte("first"))
	b.Set([]byte("log/2"), []byte("second"))
	fmt.Println(store.Commit(&b))

	durable := make(chan error)
	b.Reset()
	b.DeleteRange([]byte("log/"), []byte("log/2"))
	store.CommitAsync(&b, func(err error) { durable <- err })
	fmt.Println(<-durable)

	it, err := store.Scan([]byte("log/"), []byte("log0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, values, err := storage.Collect(it)
	fmt.Printf("%s %s %v\n", keys, values, err)
	// Output:
	// <nil>
	// <nil>
	// [log/2] [second] <nil>
}

// A directory that can't be used says why, and what to do.
func ExampleDirError() {
	fs := vfs.NewMem()
	store, err := pebble.Open(pebble.Config{Dir: "data", FS: fs})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	_, err = pebble.Open(pebble.Config{Dir: "data", FS: fs})
	var dirError *pebble.DirError
	fmt.Println(errors.As(err, &dirError), errors.Is(err, storage.ErrLocked))
	fmt.Println(dirError.Dir + ": " + dirError.Problem)
	// Output:
	// true true
	// data: it is in use: close the store, or stop the process, that has it open, or name another directory
}
