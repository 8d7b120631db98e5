package storage_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/storagetest"
)

// neighbors are keys around every prefix of the test below. They must neither
// be seen nor touched through the prefix.
var neighbors = []string{"\x00", "o", "p", "p/", "p0", "q", "\xfe", "\xfe\xff", "\xfe\xff\xff", "\xff", "\xff\xff"}

// TestPrefix has the whole suite run over stores under prefixes.
func TestPrefix(t *testing.T) {
	for _, prefix := range []string{"p", "p/", "\xfe\xff\xff", "\xff\xff", "\x00"} {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			var stranger storage.Batch
			var strangers []string
			for _, k := range neighbors {
				if k == prefix || !bytes.HasPrefix([]byte(k), []byte(prefix)) {
					stranger.Set([]byte(k), []byte("stranger"))
					strangers = append(strangers, k)
				}
			}
			shelf := map[string]*memory.Store{}
			open := func(t *testing.T, dir string) storage.Store {
				below, ok := shelf[dir]
				if !ok {
					below = memory.Open(memory.Config{})
					require.NoError(t, below.Commit(&stranger))
				} else {
					below = below.Crash()
				}
				shelf[dir] = below
				t.Cleanup(func() {
					for _, k := range strangers {
						v, err := below.Crash().Get([]byte(k))
						require.NoError(t, err, "key %q", k)
						require.Equal(t, "stranger", string(v))
					}
				})
				return storage.Prefix(below, []byte(prefix))
			}
			storagetest.Run(t, open, storagetest.WithCrash(func(_ *testing.T, _ storage.Store, dir string) {
				shelf[dir] = shelf[dir].Crash()
			}))
		})
	}
}

// TestPrefixOfNothing covers the empty prefix, under which all keys are.
func TestPrefixOfNothing(t *testing.T) {
	shelf := map[string]*memory.Store{}
	storagetest.Run(t, func(_ *testing.T, dir string) storage.Store {
		below, ok := shelf[dir]
		if !ok {
			below = memory.Open(memory.Config{})
		} else {
			below = below.Crash()
		}
		shelf[dir] = below
		return storage.Prefix(below, nil)
	})
}

type (
	bare struct{ storage.Store }

	asyncOnly struct {
		storage.Store
		storage.AsyncCommitter
	}
	snapOnly struct {
		storage.Store
		storage.Snapshotter
	}
)

// A prefixed store has the powers of the one below, and no others.
func TestPrefixTellsTheTruth(t *testing.T) {
	m := memory.Open(memory.Config{})
	for _, c := range []struct {
		store       storage.Store
		async, snap bool
	}{
		{m, true, true},
		{bare{m}, false, false},
		{asyncOnly{m, m}, true, false},
		{snapOnly{m, m}, false, true},
	} {
		p := storage.Prefix(c.store, []byte("p"))
		_, async := p.(storage.AsyncCommitter)
		_, snap := p.(storage.Snapshotter)
		require.Equal(t, c.async, async)
		require.Equal(t, c.snap, snap)
		p = storage.Prefix(p, []byte("q"))
		_, async = p.(storage.AsyncCommitter)
		_, snap = p.(storage.Snapshotter)
		require.Equal(t, c.async, async)
		require.Equal(t, c.snap, snap)

		var b storage.Batch
		b.Set([]byte("k"), []byte("v"))
		done := make(chan error, 1)
		storage.CommitAsync(p, &b, func(err error) { done <- err })
		require.NoError(t, <-done)
		v, err := m.Get([]byte("pqk"))
		require.NoError(t, err)
		require.Equal(t, "v", string(v))
	}
}

func TestPrefixCloseLeavesTheStoreOpen(t *testing.T) {
	m := memory.Open(memory.Config{})
	a, b := storage.Prefix(m, []byte("a")), storage.Prefix(m, []byte("b"))
	var batch storage.Batch
	batch.Set([]byte("k"), []byte("v"))
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.Commit(&batch), storage.ErrClosed)
	require.NoError(t, b.Commit(&batch))
	require.NoError(t, m.Commit(&batch))
}

// Close waits for what was begun through the prefix.
func TestPrefixCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory.Open(memory.Config{})
		m.HoldSync()
		p := storage.Prefix(m, []byte("p"))
		var b storage.Batch
		b.Set([]byte("k"), []byte("v"))
		done, closed := false, false
		storage.CommitAsync(p, &b, func(err error) { done = err == nil })
		go func() {
			require.NoError(t, p.Close())
			closed = true
		}()
		synctest.Wait()
		require.False(t, closed)
		m.ReleaseSync()
		require.True(t, done)
		synctest.Wait()
		require.True(t, closed)
	})
}

// Committing through a prefix costs no allocation of its own.
func TestPrefixAllocations(t *testing.T) {
	below := sink{}
	p := storage.Prefix(below, []byte("prefix"))
	var b storage.Batch
	for i := range 10 {
		b.Set(fmt.Appendf(nil, "key-%d", i), make([]byte, 100))
	}
	b.DeleteRange([]byte("a"), nil)
	done := func(error) {}
	allocs := testing.AllocsPerRun(200, func() { storage.CommitAsync(p, &b, done) })
	if !raceEnabled { // under the race detector, a pool drops things at random
		require.LessOrEqual(t, allocs, 0.1)
	}
}

// sink takes everything and keeps nothing.
type sink struct{ storage.Store }

func (sink) CommitAsync(_ *storage.Batch, done func(error)) { done(nil) }

func ExamplePrefix() {
	store := memory.Open(memory.Config{})
	fruit, tree := storage.Prefix(store, []byte("fruit/")), storage.Prefix(store, []byte("tree/"))

	var b storage.Batch
	b.Set([]byte("apple"), []byte("red"))
	fmt.Println(fruit.Commit(&b))
	_, err := tree.Get([]byte("apple"))
	fmt.Println(err)
	v, err := store.Get([]byte("fruit/apple"))
	fmt.Printf("%s %v\n", v, err)
	// Output:
	// <nil>
	// storage: key not found
	// red <nil>
}

func ExampleBatch() {
	store := memory.Open(memory.Config{})
	var b storage.Batch
	b.Set([]byte("a"), []byte("1"))
	b.Set([]byte("b"), []byte("2"))
	b.Set([]byte("c"), []byte("3"))
	b.DeleteRange([]byte("b"), nil)
	fmt.Println(b.Len(), "operations,", b.Size(), "bytes:", store.Commit(&b))

	it, err := store.Scan(nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, values, err := storage.Collect(it)
	fmt.Printf("%s %s %v\n", keys, values, err)
	// Output:
	// 4 operations, 7 bytes: <nil>
	// [a] [1] <nil>
}
