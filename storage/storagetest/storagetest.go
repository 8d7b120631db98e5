package storagetest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
)

// Opener opens the store that is kept in dir, and fails t if it can't. dir is an
// empty directory when it is first passed, one for each rule. When it is passed
// again, after Close or after a crash, the store must hold what was durable. A
// store that doesn't live in files takes dir as a name.
type Opener func(t *testing.T, dir string) storage.Store

// Option changes what Run does.
type Option func(*suite)

// WithCrash has crashes tested as well. crash ends the store in dir as a loss of
// power would: without Close, all that was not durable gone. The store is not
// used afterwards, but for a Close. A later call of the Opener with the same dir
// finds what was left.
func WithCrash(crash func(t *testing.T, s storage.Store, dir string)) Option {
	return func(s *suite) { s.crash = crash }
}

type suite struct {
	open  Opener
	crash func(t *testing.T, s storage.Store, dir string)
}

// Run tests the stores that open returns, a subtest a rule. The subtests run one
// after the other; each closes what it opened.
func Run(t *testing.T, open Opener, options ...Option) {
	s := &suite{open: open}
	for _, o := range options {
		o(s)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			r.test(&env{T: t, suite: s, dir: t.TempDir()})
		})
	}
}

// env is what a rule's test works with.
type env struct {
	*testing.T
	suite *suite
	dir   string
}

// open opens the store, and has it closed at the end of the test.
func (e *env) open() storage.Store {
	e.Helper()
	s := e.suite.open(e.T, e.dir)
	require.NotNil(e, s)
	e.Cleanup(func() { s.Close() })
	return s
}

// reopen closes s and opens it again.
func (e *env) reopen(s storage.Store) storage.Store {
	e.Helper()
	require.NoError(e, s.Close())
	return e.open()
}

func (e *env) async(s storage.Store) storage.AsyncCommitter {
	a, ok := s.(storage.AsyncCommitter)
	if !ok {
		e.Skip("the store is not an AsyncCommitter")
	}
	return a
}

func (e *env) snapshot(s storage.Store) storage.View {
	e.Helper()
	p, ok := s.(storage.Snapshotter)
	if !ok {
		e.Skip("the store is not a Snapshotter")
	}
	v, err := p.Snapshot()
	require.NoError(e, err)
	e.Cleanup(func() { v.Close() })
	return v
}

// reader is what a Store and a View have in common.
type reader interface {
	Get(key []byte) ([]byte, error)
	Scan(from, to []byte) (storage.Iterator, error)
}

// dump returns the range as "key=value" words.
func (e *env) dump(r reader, from, to string) string {
	e.Helper()
	it, err := r.Scan([]byte(from), []byte(to))
	require.NoError(e, err)
	keys, values, err := storage.Collect(it)
	require.NoError(e, err)
	words := make([]string, len(keys))
	for i := range keys {
		words[i] = string(keys[i]) + "=" + string(values[i])
	}
	return strings.Join(words, " ")
}

// commit commits a batch given in words: "k=v" sets, "-k" deletes, "a..b"
// deletes the range from a to b.
func (e *env) commit(s storage.Store, words string) {
	e.Helper()
	require.NoError(e, s.Commit(batch(words)))
}

func batch(words string) *storage.Batch {
	b := new(storage.Batch)
	for _, w := range strings.Fields(words) {
		if from, to, ok := strings.Cut(w, ".."); ok {
			b.DeleteRange([]byte(from), []byte(to))
		} else if k, ok := strings.CutPrefix(w, "-"); ok {
			b.Delete([]byte(k))
		} else {
			k, v, _ := strings.Cut(w, "=")
			b.Set([]byte(k), []byte(v))
		}
	}
	return b
}

func (e *env) missing(r reader, key string) {
	e.Helper()
	_, err := r.Get([]byte(key))
	require.ErrorIs(e, err, storage.ErrNotFound)
	require.NotErrorIs(e, err, storage.ErrCorrupt)
}

func (e *env) has(r reader, key, value string) {
	e.Helper()
	got, err := r.Get([]byte(key))
	require.NoError(e, err, "key %q", key)
	require.Equal(e, value, string(got), "key %q", key)
}

type rule struct {
	name string
	test func(e *env)
}

var rules = []rule{
	{"a key that was set is found, one that was not is ErrNotFound", func(e *env) {
		s := e.open()
		e.missing(s, "a")
		e.commit(s, "a=1 c=3")
		e.has(s, "a", "1")
		e.missing(s, "b")
		e.has(s, "c", "3")
		e.commit(s, "a=2")
		e.has(s, "a", "2")
		e.commit(s, "-a -never")
		e.missing(s, "a")
	}},
	{"an empty value is a value", func(e *env) {
		s := e.open()
		b := new(storage.Batch)
		b.Set([]byte("nil"), nil)
		b.Set([]byte("empty"), []byte{})
		require.NoError(e, s.Commit(b))
		e.has(s, "nil", "")
		e.has(s, "empty", "")
		s = e.reopen(s)
		e.has(s, "nil", "")
		require.Equal(e, "empty= nil=", e.dump(s, "", ""))
	}},
	{"keys and values are any bytes, keys in the order of bytes.Compare", func(e *env) {
		s := e.open()
		keys := [][]byte{{0}, {0, 0}, {0, 1}, {1}, []byte("a"), []byte("a\x00"), []byte("a\x00b"), []byte("a\xff"),
			[]byte("b"), {0x7f}, {0x80}, {0xfe, 0xff}, {0xff}, {0xff, 0}, {0xff, 0xff}, {0xff, 0xff, 0xff}}
		require.True(e, slices.IsSortedFunc(keys, bytes.Compare))
		b := new(storage.Batch)
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(keys)) {
			b.Set(keys[i], append([]byte{0, 0xff}, keys[i]...))
		}
		require.NoError(e, s.Commit(b))
		for range 2 {
			it, err := s.Scan(nil, nil)
			require.NoError(e, err)
			got, values, err := storage.Collect(it)
			require.NoError(e, err)
			require.Equal(e, keys, got)
			for i, k := range keys {
				require.Equal(e, append([]byte{0, 0xff}, k...), values[i])
				v, err := s.Get(k)
				require.NoError(e, err)
				require.Equal(e, values[i], v)
			}
			s = e.reopen(s)
		}
	}},
	{"values of megabytes are kept", func(e *env) {
		s := e.open()
		random := rand.NewChaCha8([32]byte{1})
		values := map[string][]byte{}
		for _, n := range []int{1, 4095, 4096, 32<<10 - 11, 32 << 10, 100 << 10, 1 << 20, 5<<20 + 1} {
			v := make([]byte, n)
			random.Read(v)
			values[fmt.Sprint(n)] = v
		}
		all := new(storage.Batch)
		for k, v := range values {
			b := new(storage.Batch)
			b.Set([]byte("one/"+k), v)
			all.Set([]byte("all/"+k), v)
			require.NoError(e, s.Commit(b))
		}
		require.NoError(e, s.Commit(all))
		for range 2 {
			for k, v := range values {
				for _, prefix := range []string{"one/", "all/"} {
					got, err := s.Get([]byte(prefix + k))
					require.NoError(e, err)
					require.True(e, bytes.Equal(v, got), "key %s%s", prefix, k)
				}
			}
			s = e.reopen(s)
		}
	}},
	{"the operations of a batch take effect in their order", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 a=2 b=1 -b c=1 -c c=2")
		require.Equal(e, "a=2 c=2", e.dump(s, "", ""))
		e.commit(s, "k1=x k2=x k3=x k1..k3 k2=y")
		require.Equal(e, "k2=y k3=x", e.dump(s, "k", "l"))
		e.commit(s, "k4=x -k4 k4=z k9=1 k5..k9 k..k3")
		require.Equal(e, "k3=x k4=z k9=1", e.dump(s, "k", "l"))
		s = e.reopen(s)
		require.Equal(e, "a=2 c=2 k3=x k4=z k9=1", e.dump(s, "", ""))
	}},
	{"commits take effect in their order", func(e *env) {
		s := e.open()
		for i := range 50 {
			e.commit(s, fmt.Sprintf("k=%d k%03d=1 k..k%03d", i, i, i))
		}
		require.Equal(e, "k049=1", e.dump(s, "", ""))
	}},
	{"DeleteRange removes what is in [from, to) and nothing else", func(e *env) {
		for _, c := range []struct{ from, to, left string }{
			{"b", "d", "a=1 d=1 e=1"},
			{"b", "b", "a=1 b=1 c=1 d=1 e=1"},
			{"d", "b", "a=1 b=1 c=1 d=1 e=1"},
			{"", "c", "c=1 d=1 e=1"},
			{"c", "", "a=1 b=1"},
			{"", "", ""},
			{"bb", "cc", "a=1 b=1 d=1 e=1"},
			{"b\x00", "c\x00", "a=1 b=1 d=1 e=1"},
			{"f", "", "a=1 b=1 c=1 d=1 e=1"},
		} {
			e.Run(fmt.Sprintf("%q to %q", c.from, c.to), func(t *testing.T) {
				e := &env{T: t, suite: e.suite, dir: t.TempDir()}
				s := e.open()
				e.commit(s, "a=1 b=1 c=1 d=1 e=1")
				b := new(storage.Batch)
				b.DeleteRange([]byte(c.from), []byte(c.to))
				require.NoError(e, s.Commit(b))
				require.Equal(e, c.left, e.dump(s, "", ""))
				s = e.reopen(s)
				require.Equal(e, c.left, e.dump(s, "", ""))
				e.commit(s, "b=2 c=2")
				e.has(s, "b", "2")
				e.has(s, "c", "2")
			})
		}
	}},
	{"DeleteRange without an upper bound removes the highest keys", func(e *env) {
		s := e.open()
		b := new(storage.Batch)
		for _, k := range []string{"\xfe", "\xff", "\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
			b.Set([]byte(k), []byte("v"))
		}
		b.DeleteRange([]byte("\xff"), nil)
		b.Set([]byte("\xff\xff\x00"), []byte("after"))
		require.NoError(e, s.Commit(b))
		require.Equal(e, "\xfe=v \xff\xff\x00=after", e.dump(s, "", ""))
		b.Reset()
		b.DeleteRange([]byte("\xff"), nil)
		require.NoError(e, s.Commit(b))
		require.Equal(e, "\xfe=v", e.dump(s, "", ""))
	}},
	{"a log that is appended at its end and cut from its front stays whole", func(e *env) {
		s := e.open()
		key := func(i int) []byte { return fmt.Appendf(nil, "log/%06d", i) }
		first, last := 0, 0
		for round := range 60 {
			b := new(storage.Batch)
			for range 10 {
				b.Set(key(last), bytes.Repeat([]byte{byte(last)}, 100))
				last++
			}
			if round%5 == 4 {
				first = last - 15
				b.DeleteRange([]byte("log/"), key(first))
			}
			if round%7 == 6 { // a suffix is replaced
				b.DeleteRange(key(last-3), []byte("log0"))
				last -= 3
			}
			require.NoError(e, s.Commit(b))
			if round%20 == 19 {
				s = e.reopen(s)
			}
			it, err := s.Scan([]byte("log/"), []byte("log0"))
			require.NoError(e, err)
			keys, values, err := storage.Collect(it)
			require.NoError(e, err)
			require.Len(e, keys, last-first)
			for i := range keys {
				require.Equal(e, string(key(first+i)), string(keys[i]))
				require.Equal(e, bytes.Repeat([]byte{byte(first + i)}, 100), values[i])
			}
		}
	}},
	{"Scan sees [from, to), an empty bound is none", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=2 c=3 d=4")
		for _, c := range [][3]string{
			{"", "", "a=1 b=2 c=3 d=4"},
			{"b", "", "b=2 c=3 d=4"},
			{"", "c", "a=1 b=2"},
			{"b", "d", "b=2 c=3"},
			{"b", "b", ""},
			{"d", "b", ""},
			{"aa", "cc", "b=2 c=3"},
			{"x", "", ""},
			{"", "a", ""},
		} {
			require.Equal(e, c[2], e.dump(s, c[0], c[1]), "from %q to %q", c[0], c[1])
		}
	}},
	{"after the last key, Next returns io.EOF again and again", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=2")
		for _, from := range []string{"", "x"} {
			it, err := s.Scan([]byte(from), nil)
			require.NoError(e, err)
			for {
				_, _, err = it.Next()
				if err != nil {
					break
				}
			}
			for range 3 {
				_, _, err = it.Next()
				require.ErrorIs(e, err, io.EOF)
			}
			require.NoError(e, it.Close())
			require.NoError(e, it.Close(), "calls after the first return nil")
		}
	}},
	{"an iterator sees the store as it was when Scan was called", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=1 c=1 d=1")
		it, err := s.Scan(nil, nil)
		require.NoError(e, err)
		e.commit(s, "aa=2 b=2 -c d..e x=2")
		k, v, err := it.Next()
		require.NoError(e, err)
		require.Equal(e, "a=1", string(k)+"="+string(v))
		e.commit(s, "..")
		keys, values, err := storage.Collect(it)
		require.NoError(e, err)
		require.Equal(e, "b c d", string(bytes.Join(keys, []byte(" "))))
		require.Equal(e, "1 1 1", string(bytes.Join(values, []byte(" "))))
		require.Empty(e, e.dump(s, "", ""))
	}},
	{"Scan keeps neither bound, Get does not keep the key", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=2 c=3 d=4")
		from, to := []byte("b"), []byte("d")
		it, err := s.Scan(from, to)
		require.NoError(e, err)
		from[0], to[0] = 'a', 'z'
		keys, _, err := storage.Collect(it)
		require.NoError(e, err)
		require.Equal(e, "b c", string(bytes.Join(keys, []byte(" "))))

		key := []byte("b")
		v, err := s.Get(key)
		require.NoError(e, err)
		key[0] = 'c'
		require.Equal(e, "2", string(v))
	}},
	{"what Get returned belongs to the caller", func(e *env) {
		s := e.open()
		e.commit(s, "a=one")
		v, err := s.Get([]byte("a"))
		require.NoError(e, err)
		copy(v, "xxx")
		e.has(s, "a", "one")
		e.commit(s, "a=two b=two")
		require.Equal(e, "xxx", string(v))
		_ = append(v, "grown into somebody else's bytes"...)
		e.has(s, "a", "two")
		e.has(s, "b", "two")
	}},
	{"after Commit, the batch's bytes may be used again", func(e *env) {
		s := e.open()
		key, value, from, to := []byte("key"), []byte("value"), []byte("m"), []byte("n")
		e.commit(s, "m=1")
		b := new(storage.Batch)
		b.Set(key, value)
		b.DeleteRange(from, to)
		require.NoError(e, s.Commit(b))
		for _, x := range [][]byte{key, value, from, to} {
			copy(x, "zzzzzz")
		}
		b.Reset()
		require.Equal(e, "key=value", e.dump(s, "", ""))
		s = e.reopen(s)
		require.Equal(e, "key=value", e.dump(s, "", ""))
	}},
	{"Commit changes nothing in the batch, which can be committed again", func(e *env) {
		s := e.open()
		b := batch("a=1 b=2 -b c..d e=")
		want := slices.Clone(b.Ops())
		for i := range want {
			want[i].Key, want[i].Value, want[i].End = bytes.Clone(want[i].Key), bytes.Clone(want[i].Value), bytes.Clone(want[i].End)
		}
		for range 2 {
			require.NoError(e, s.Commit(b))
			require.Equal(e, want, b.Ops())
			done := make(chan error, 1)
			storage.CommitAsync(s, b, func(err error) { done <- err })
			require.NoError(e, <-done)
			require.Equal(e, want, b.Ops())
			e.commit(s, "a=other")
		}
		require.NoError(e, s.Commit(b))
		require.Equal(e, "a=1 e=", e.dump(s, "", ""))
	}},
	{"an empty batch commits", func(e *env) {
		s := e.open()
		require.NoError(e, s.Commit(new(storage.Batch)))
		done := make(chan error, 1)
		storage.CommitAsync(s, new(storage.Batch), func(err error) { done <- err })
		require.NoError(e, <-done)
		require.Empty(e, e.dump(s, "", ""))
	}},
	{"a batch with an empty key is refused whole, and the store works on", func(e *env) {
		s := e.open()
		e.commit(s, "a=1")
		for _, words := range []string{"a=2 =1", "a=2 -"} {
			require.ErrorIs(e, s.Commit(batch(words)), storage.ErrInvalidBatch)
			done := make(chan error, 1)
			storage.CommitAsync(s, batch(words), func(err error) { done <- err })
			require.ErrorIs(e, <-done, storage.ErrInvalidBatch)
		}
		e.missing(s, "")
		require.Equal(e, "a=1", e.dump(s, "", ""))
		e.commit(s, "a=3")
		e.has(s, "a", "3")
	}},
	{"what was committed is there after Close and Open", func(e *env) {
		s := e.open()
		want := []string{}
		for i := range 5 {
			e.commit(s, fmt.Sprintf("k%d=%d tmp%d=x", i, i, i))
			e.commit(s, fmt.Sprintf("-tmp%d", i))
			done := make(chan error, 1)
			storage.CommitAsync(s, batch(fmt.Sprintf("l%d=%d", i, i)), func(err error) { done <- err })
			require.NoError(e, <-done)
			want = append(want, fmt.Sprintf("k%d=%d", i, i), fmt.Sprintf("l%d=%d", i, i))
			slices.Sort(want)
			s = e.reopen(s)
			require.Equal(e, strings.Join(want, " "), e.dump(s, "", ""))
		}
	}},
	{"what was acknowledged survives a crash, whole batches only, and a prefix of them", testCrash},
	{"a batch is seen whole or not at all", testAtomic},
	{"any number of goroutines read and commit", testConcurrent},
	{"after Close, every method returns ErrClosed, and Close returns nil", func(e *env) {
		s := e.open()
		e.commit(s, "a=1")
		require.NoError(e, s.Close())
		for range 2 {
			_, err := s.Get([]byte("a"))
			require.ErrorIs(e, err, storage.ErrClosed)
			require.NotErrorIs(e, err, storage.ErrNotFound)
			_, err = s.Scan(nil, nil)
			require.ErrorIs(e, err, storage.ErrClosed)
			require.ErrorIs(e, s.Commit(batch("a=2")), storage.ErrClosed)
			calls := make(chan error, 2)
			storage.CommitAsync(s, batch("a=2"), func(err error) { calls <- err })
			require.ErrorIs(e, <-calls, storage.ErrClosed)
			if p, ok := s.(storage.Snapshotter); ok {
				_, err = p.Snapshot()
				require.ErrorIs(e, err, storage.ErrClosed)
			}
			require.NoError(e, s.Close())
		}
		s = e.open()
		require.Equal(e, "a=1", e.dump(s, "", ""))
	}},
	{"Close makes open iterators and views invalid, and they may be closed after it", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=2")
		it, err := s.Scan(nil, nil)
		require.NoError(e, err)
		_, _, err = it.Next()
		require.NoError(e, err)
		var v storage.View
		var vit storage.Iterator
		if p, ok := s.(storage.Snapshotter); ok {
			v, err = p.Snapshot()
			require.NoError(e, err)
			vit, err = v.Scan(nil, nil)
			require.NoError(e, err)
		}
		require.NoError(e, s.Close())
		_, _, err = it.Next()
		require.Error(e, err)
		require.NotErrorIs(e, err, io.EOF)
		require.NoError(e, it.Close())
		if v != nil {
			_, err = v.Get([]byte("a"))
			require.Error(e, err)
			require.NotErrorIs(e, err, storage.ErrNotFound)
			_, _, err = vit.Next()
			require.Error(e, err)
			require.NotErrorIs(e, err, io.EOF)
			require.NoError(e, vit.Close())
			require.NoError(e, v.Close())
		}
		require.Equal(e, "a=1 b=2", e.dump(e.open(), "", ""))
	}},
	{"Close waits for commits that are under way", func(e *env) {
		s := e.open()
		const n = 100
		var mu sync.Mutex
		results := map[int]error{}
		for i := range n {
			storage.CommitAsync(s, batch(fmt.Sprintf("k%03d=1", i)), func(err error) {
				mu.Lock()
				defer mu.Unlock()
				results[i] = err
			})
		}
		require.NoError(e, s.Close())
		mu.Lock()
		defer mu.Unlock()
		require.Len(e, results, n)
		for i := range n {
			require.NoError(e, results[i])
		}
		s = e.open()
		require.Len(e, strings.Fields(e.dump(s, "", "")), n)
	}},
	{"Close may be called while others use the store", testCloseRace},
	{"CommitAsync calls every done once, in the order of one goroutine's calls", testAsyncOrder},
	{"what CommitAsync was given takes effect in the order of the calls", func(e *env) {
		s := e.open()
		a := e.async(s)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Add(1)
			a.CommitAsync(batch(fmt.Sprintf("k=%d a%d=1 a%d..a%d", i, i%3, (i+1)%3, (i+1)%3+1)), func(error) { wg.Done() })
		}
		e.commit(s, "last=1")
		wg.Wait()
		require.Equal(e, "a0=1 a1=1 k=199 last=1", e.dump(s, "", ""))
	}},
	{"after done, the batch of CommitAsync may be used again", func(e *env) {
		s := e.open()
		a := e.async(s)
		b := new(storage.Batch)
		key, value := []byte("key-000"), []byte("value-000")
		for i := range 100 {
			copy(key[4:], fmt.Sprintf("%03d", i))
			copy(value[6:], fmt.Sprintf("%03d", i))
			b.Reset()
			b.Set(key, value)
			done := make(chan error, 1)
			a.CommitAsync(b, func(err error) { done <- err })
			require.NoError(e, <-done)
		}
		copy(key, "zzzzzzz")
		copy(value, "zzzzzzzzz")
		for i := range 100 {
			e.has(s, fmt.Sprintf("key-%03d", i), fmt.Sprintf("value-%03d", i))
		}
	}},
	{"a view sees the store at one moment", func(e *env) {
		s := e.open()
		e.commit(s, "a=1 b=1 c=1")
		v := e.snapshot(s)
		e.commit(s, "a=2 -b c..d x=2")
		v2 := e.snapshot(s)
		e.commit(s, "..")
		e.has(v, "a", "1")
		e.has(v, "b", "1")
		e.missing(v, "x")
		require.Equal(e, "a=1 b=1 c=1", e.dump(v, "", ""))
		require.Equal(e, "b=1", e.dump(v, "b", "c"))
		require.Equal(e, "a=2 x=2", e.dump(v2, "", ""))
		require.NoError(e, v.Close())
		require.NoError(e, v.Close(), "calls after the first return nil")
		require.Equal(e, "a=2 x=2", e.dump(v2, "", ""))
		_, err := v.Get([]byte("a"))
		require.ErrorIs(e, err, storage.ErrClosed)
		_, err = v.Scan(nil, nil)
		require.ErrorIs(e, err, storage.ErrClosed)
		require.Empty(e, e.dump(s, "", ""))
	}},
}

// testCrash commits numbered batches, waits for some, and crashes.
func testCrash(e *env) {
	if e.suite.crash == nil {
		e.Skip("no WithCrash")
	}
	const batches, keys = 60, 5
	for acknowledged := 0; acknowledged < batches; acknowledged += 13 {
		e.Run(fmt.Sprintf("%d of %d acknowledged", acknowledged, batches), func(t *testing.T) {
			e := &env{T: t, suite: e.suite, dir: t.TempDir()}
			s := e.open()
			reached := make(chan struct{})
			if acknowledged == 0 {
				close(reached)
			}
			for i := range batches {
				b := new(storage.Batch)
				b.DeleteRange([]byte("k"), []byte("l"))
				for k := range keys {
					b.Set(fmt.Appendf(nil, "k%d", k), fmt.Appendf(nil, "%03d", i))
				}
				b.Set(fmt.Appendf(nil, "n%03d", i), []byte("1"))
				storage.CommitAsync(s, b, func(err error) {
					if err == nil && i == acknowledged-1 {
						close(reached)
					}
				})
			}
			<-reached
			e.suite.crash(t, s, e.dir)

			s = e.open()
			numbers := strings.Fields(e.dump(s, "n", "o"))
			for i, n := range numbers {
				require.Equal(t, fmt.Sprintf("n%03d=1", i), n, "a batch is there, and one before it is not")
			}
			require.GreaterOrEqual(t, len(numbers), acknowledged, "an acknowledged batch is lost")
			var want []string
			for k := range keys {
				if len(numbers) > 0 {
					want = append(want, fmt.Sprintf("k%d=%03d", k, len(numbers)-1))
				}
			}
			require.Equal(t, strings.Join(want, " "), e.dump(s, "k", "l"), "half a batch")
			e.commit(s, "works=1")
			require.Equal(t, "works=1", e.dump(e.reopen(s), "w", ""))
		})
	}
}

// testAtomic writes the same number to many keys in each batch, while readers
// look for two that differ.
func testAtomic(e *env) {
	s := e.open()
	const keys = 20
	write := func(i int) error {
		b := new(storage.Batch)
		if i%3 == 0 {
			b.DeleteRange([]byte("k"), []byte("l"))
		}
		for k := range keys {
			b.Set(fmt.Appendf(nil, "k%02d", k), fmt.Append(nil, i))
		}
		return s.Commit(b)
	}
	require.NoError(e, write(0))
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	var scans atomic.Int64
	failures := make(chan string, 4)
	for range 2 {
		readers.Go(func() {
			for ; ; scans.Add(1) {
				select {
				case <-stop:
					return
				default:
				}
				it, err := s.Scan([]byte("k"), []byte("l"))
				if err != nil {
					failures <- err.Error()
					return
				}
				_, values, err := storage.Collect(it)
				if err != nil || len(values) != keys {
					failures <- fmt.Sprintf("%d keys, error %v", len(values), err)
					return
				}
				for _, v := range values {
					if !bytes.Equal(v, values[0]) {
						failures <- fmt.Sprintf("%s and %s in one scan", values[0], v)
						return
					}
				}
			}
		})
	}
	for w := range 2 {
		writers.Go(func() {
			// Until the readers had their chance: on a busy machine they come late.
			for i := 0; i < 50 || scans.Load() < 100 && len(failures) == 0; i++ {
				if err := write(2*i + w); err != nil {
					failures <- err.Error()
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	select {
	case f := <-failures:
		require.Fail(e, f)
	default:
	}
}
