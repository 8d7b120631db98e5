package memory_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/storagetest"
)

// shelf keeps what a directory would: the store that was last opened there.
type shelf map[string]*memory.Store

func (s shelf) open(_ *testing.T, dir string) storage.Store {
	if old, ok := s[dir]; ok {
		s[dir] = old.Crash()
	} else {
		s[dir] = memory.Open(memory.Config{})
	}
	return s[dir]
}

func TestStore(t *testing.T) {
	s := shelf{}
	storagetest.Run(t, s.open, storagetest.WithCrash(func(_ *testing.T, _ storage.Store, dir string) {
		s[dir] = s[dir].Crash()
	}))
}

func set(key, value string) *storage.Batch {
	b := new(storage.Batch)
	b.Set([]byte(key), []byte(value))
	return b
}

// results collects what dones were called with, by name.
type results []string

func (r *results) done(name string) func(error) {
	return func(err error) { *r = append(*r, fmt.Sprint(name, " ", err)) }
}

func TestHoldSync(t *testing.T) {
	s := memory.Open(memory.Config{})
	require.NoError(t, s.Commit(set("a", "0")))
	s.HoldSync()
	var r results
	s.CommitAsync(set("a", "1"), r.done("first"))
	s.CommitAsync(set("b", "1"), r.done("second"))
	v, err := s.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v), "visible before durable")
	require.Empty(t, r)
	_, syncs := s.Counts()

	s.ReleaseSync()
	require.Equal(t, results{"first <nil>", "second <nil>"}, r)
	_, after := s.Counts()
	require.Equal(t, syncs+1, after, "one sync for all that wait")
}

func TestCrashLosesWhatWasNotSynced(t *testing.T) {
	s := memory.Open(memory.Config{})
	require.NoError(t, s.Commit(set("a", "0")))
	s.HoldSync()
	var r results
	s.CommitAsync(set("a", "1"), r.done("lost"))
	blocked := make(chan error)
	go func() { blocked <- s.Commit(set("b", "1")) }()
	require.Eventually(t, func() bool { commits, _ := s.Counts(); return commits == 3 }, waitFor, tick)

	n := s.Crash()
	require.ErrorIs(t, <-blocked, storage.ErrClosed)
	s.ReleaseSync()
	require.Empty(t, r, "nobody is left to be told")
	require.ErrorIs(t, s.Commit(set("c", "1")), storage.ErrClosed)
	v, err := n.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "0", string(v))
	_, err = n.Get([]byte("b"))
	require.ErrorIs(t, err, storage.ErrNotFound)
}

func TestCommitBlocksWhileSyncsAreHeld(t *testing.T) {
	s := memory.Open(memory.Config{})
	s.HoldSync()
	over := make(chan error, 1)
	go func() { over <- s.Commit(set("a", "1")) }()
	require.Eventually(t, func() bool { commits, _ := s.Counts(); return commits == 1 }, waitFor, tick)
	select {
	case <-over:
		require.Fail(t, "Commit returned before the sync")
	default:
	}
	s.ReleaseSync()
	require.NoError(t, <-over)
}

func TestFailCommit(t *testing.T) {
	cause := errors.New("torn cable")
	s := memory.Open(memory.Config{})
	s.FailCommit(2, cause)
	require.NoError(t, s.Commit(set("a", "1")))
	for range 3 {
		err := s.Commit(set("a", "2"))
		require.ErrorIs(t, err, storage.ErrFailed)
		require.ErrorIs(t, err, cause)
	}
	v, err := s.Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
}

func TestFailSync(t *testing.T) {
	cause := errors.New("torn cable")
	s := memory.Open(memory.Config{})
	var r results
	s.FailSync(2, cause)
	s.CommitAsync(set("a", "1"), r.done("first"))
	s.HoldSync()
	s.CommitAsync(set("a", "2"), r.done("second"))
	s.CommitAsync(set("a", "3"), r.done("third"))
	s.ReleaseSync()
	s.CommitAsync(set("a", "4"), r.done("fourth"))
	const failed = "storage: store failed: sync: torn cable"
	require.Equal(t, results{"first <nil>", "second " + failed, "third " + failed, "fourth " + failed}, r)
	require.ErrorIs(t, s.Commit(set("a", "5")), cause)
	v, err := s.Crash().Get([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
}

func TestNoSpace(t *testing.T) {
	s := memory.Open(memory.Config{Capacity: 10})
	require.NoError(t, s.Commit(set("12345", "67890")))
	require.ErrorIs(t, s.Commit(set("x", "")), storage.ErrNoSpace)
	require.ErrorIs(t, s.Commit(set("12345", "678901")), storage.ErrNoSpace)
	require.NoError(t, s.Commit(set("12345", "6789")), "less than before")
	require.NoError(t, s.Commit(set("x", "")))
	require.ErrorIs(t, s.Commit(set("y", "")), storage.ErrNoSpace)
	b := new(storage.Batch)
	b.DeleteRange([]byte("1"), []byte("2"))
	b.Set([]byte("y"), []byte("12345678"))
	require.NoError(t, s.Commit(b))

	s.SetFull(true)
	require.ErrorIs(t, s.Commit(set("y", "")), storage.ErrNoSpace)
	s.SetFull(false)
	require.NoError(t, s.Commit(set("y", "")), "an error of this kind does not stay")
}

// What comes after a commit that was refused is refused, too, until that is known.
func TestRefusalInAPipeline(t *testing.T) {
	s := memory.Open(memory.Config{})
	var r results
	s.HoldSync()
	s.CommitAsync(set("a", "1"), r.done("first"))
	s.SetFull(true)
	s.CommitAsync(set("b", "1"), r.done("second"))
	s.SetFull(false)
	s.CommitAsync(set("c", "1"), r.done("third"))
	s.ReleaseSync()
	const full = "storage: no space left: SetFull was called"
	require.Equal(t, results{"first <nil>", "second " + full, "third " + full}, r)
	s.CommitAsync(set("d", "1"), r.done("fourth"))
	require.Equal(t, "fourth <nil>", r[3])
}

// A done that commits again is not called within the call that it makes: stacks
// stay flat, and the order holds.
func TestDoneCommits(t *testing.T) {
	s := memory.Open(memory.Config{})
	var r results
	s.CommitAsync(set("a", "1"), func(err error) {
		s.CommitAsync(set("b", "1"), r.done("inner"))
		r.done("outer")(err)
	})
	require.Equal(t, results{"outer <nil>", "inner <nil>"}, r)
}

// An iterator takes back what it returned, so that a test fails where somebody
// keeps it.
func TestIteratorOverwrites(t *testing.T) {
	s := memory.Open(memory.Config{})
	require.NoError(t, s.Commit(set("a", "1")))
	it, err := s.Scan(nil, nil)
	require.NoError(t, err)
	k, v, err := it.Next()
	require.NoError(t, err)
	_, _, err = it.Next()
	require.Error(t, err)
	require.NotEqual(t, "a", string(k))
	require.NotEqual(t, "1", string(v))
}

func Example() {
	store := memory.Open(memory.Config{})
	store.HoldSync()
	var b storage.Batch
	b.Set([]byte("vote"), []byte("yes"))
	store.CommitAsync(&b, func(err error) { fmt.Println("durable:", err == nil) })
	v, _ := store.Get([]byte("vote"))
	fmt.Printf("visible: %s\n", v)

	crashed := store.Crash()
	_, err := crashed.Get([]byte("vote"))
	fmt.Println("after the crash:", err)
	// Output:
	// visible: yes
	// after the crash: storage: key not found
}
