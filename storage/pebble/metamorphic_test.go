package pebble_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	engine "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/pebble"
)

// TestMetamorphic does the same random operations on stores of several kinds,
// and wants equal answers from all, across reopening and crashes.
func TestMetamorphic(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { metamorphic(t, seed, 600) })
	}
}

// subject is one of the stores that are compared.
type subject struct {
	name   string
	store  storage.Store
	reopen func(t *testing.T, crash bool) storage.Store
	views  []storage.View
	its    []storage.Iterator
}

func subjects(t *testing.T) []*subject {
	inMemory := memory.Open(memory.Config{})
	all := []*subject{{name: "memory", store: inMemory, reopen: func(t *testing.T, crash bool) storage.Store {
		if !crash {
			require.NoError(t, inMemory.Close())
		}
		inMemory = inMemory.Crash()
		return inMemory
	}}}
	for _, kind := range []string{"pebble", "small tables", "prefix"} {
		disk := vfs.NewCrashableMem()
		var below *pebble.Store
		start := func(t *testing.T) storage.Store {
			c := pebble.Config{Dir: "data", FS: disk}
			if kind == "small tables" {
				c.Options = func(o *engine.Options) {
					o.MemTableSize = 16 << 10
					o.L0CompactionThreshold = 1
				}
			}
			below = open(t, c)
			if kind == "prefix" {
				return storage.Prefix(below, []byte("\xff\xff"))
			}
			return below
		}
		all = append(all, &subject{name: kind, store: start(t), reopen: func(t *testing.T, crash bool) storage.Store {
			if crash {
				disk = disk.CrashClone(vfs.CrashCloneCfg{})
			} else {
				require.NoError(t, below.Close())
			}
			return start(t)
		}})
	}
	return all
}

func metamorphic(t *testing.T, seed uint64, steps int) {
	random := rand.New(rand.NewPCG(seed, 99))
	all := subjects(t)
	alphabet := []byte{0, 1, 'a', 'b', 0xfe, 0xff}
	key := func() []byte {
		k := make([]byte, 1+random.IntN(4))
		for i := range k {
			k[i] = alphabet[random.IntN(len(alphabet))]
		}
		return k
	}
	bound := func() []byte {
		if random.IntN(5) == 0 {
			return nil
		}
		return key()
	}
	value := func() []byte {
		v := make([]byte, random.IntN(40))
		if random.IntN(10) == 0 {
			v = make([]byte, random.IntN(3000))
		}
		for i := range v {
			v[i] = byte(random.Uint32())
		}
		return v
	}
	var log []string
	// same does something on every store, and compares what they say.
	same := func(what string, do func(s *subject) string) {
		t.Helper()
		log = append(log, what)
		want := do(all[0])
		for _, s := range all[1:] {
			got := do(s)
			if want != got {
				require.Equal(t, want, got, "%s differs from %s after\n%s", s.name, all[0].name, log[max(0, len(log)-20):])
			}
		}
	}
	type reader interface {
		Get(key []byte) ([]byte, error)
		Scan(from, to []byte) (storage.Iterator, error)
	}
	get := func(r reader, k []byte) string {
		v, err := r.Get(k)
		return fmt.Sprintf("%x %v", v, err)
	}
	next := func(it storage.Iterator) string {
		k, v, err := it.Next()
		return fmt.Sprintf("%x=%x %v", k, v, err)
	}
	scan := func(r reader, from, to []byte) string {
		it, err := r.Scan(from, to)
		require.NoError(t, err)
		defer it.Close()
		var out string
		for {
			k, v, err := it.Next()
			if errors.Is(err, io.EOF) {
				return out
			}
			require.NoError(t, err)
			out += fmt.Sprintf("%x=%x\n", k, v)
		}
	}
	for range steps {
		switch n := random.IntN(100); {
		case n < 55:
			b := new(storage.Batch)
			var words string
			for range random.IntN(6) {
				switch random.IntN(8) {
				default:
					k, v := key(), value()
					b.Set(k, v)
					words += fmt.Sprintf(" set %x", k)
				case 0, 1:
					k := key()
					b.Delete(k)
					words += fmt.Sprintf(" delete %x", k)
				case 2:
					from, to := bound(), bound()
					b.DeleteRange(from, to)
					words += fmt.Sprintf(" delete %x to %x", from, to)
				}
			}
			async := random.IntN(2) == 0
			same("commit"+words, func(s *subject) string {
				if !async {
					return fmt.Sprint(s.store.Commit(b))
				}
				done := make(chan error, 1)
				storage.CommitAsync(s.store, b, func(err error) { done <- err })
				return fmt.Sprint(<-done)
			})
		case n < 70:
			k := key()
			same(fmt.Sprintf("get %x", k), func(s *subject) string { return get(s.store, k) })
		case n < 80:
			from, to := bound(), bound()
			same(fmt.Sprintf("scan %x to %x", from, to), func(s *subject) string { return scan(s.store, from, to) })
		case n < 83:
			from, to := bound(), bound()
			same(fmt.Sprintf("iterator %x to %x", from, to), func(s *subject) string {
				it, err := s.store.Scan(from, to)
				s.its = append(s.its, it)
				return fmt.Sprint(err)
			})
		case n < 90 && len(all[0].its) > 0:
			i := random.IntN(len(all[0].its))
			same(fmt.Sprint("next of iterator ", i), func(s *subject) string { return next(s.its[i]) })
		case n < 92:
			same("snapshot", func(s *subject) string {
				v, err := s.store.(storage.Snapshotter).Snapshot()
				s.views = append(s.views, v)
				return fmt.Sprint(err)
			})
		case n < 97 && len(all[0].views) > 0:
			i, k, from, to := random.IntN(len(all[0].views)), key(), bound(), bound()
			same(fmt.Sprint("view ", i), func(s *subject) string { return get(s.views[i], k) + scan(s.views[i], from, to) })
		case n >= 98:
			crash := random.IntN(2) == 0
			same(fmt.Sprint("reopen, crash ", crash), func(s *subject) string {
				for _, it := range s.its {
					require.NoError(t, it.Close())
				}
				for _, v := range s.views {
					require.NoError(t, v.Close())
				}
				s.its, s.views = nil, nil
				s.store = s.reopen(t, crash)
				return scan(s.store, nil, nil)
			})
		}
	}
}
