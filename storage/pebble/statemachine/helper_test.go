package statemachine_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/pebble/statemachine"
)

// keys is what a command works on: the machine's, or a model's.
type keys interface {
	Get(key []byte) (value []byte, found bool)
	Has(key []byte) bool
	Set(key, value []byte)
	Delete(key []byte)
	DeleteRange(from, to []byte)
	Scan(from, to []byte) iter.Seq2[[]byte, []byte]
}

var _ keys = (*statemachine.Tx)(nil)

// model is the obvious way to keep keys.
type model map[string]string

func (m model) Get(key []byte) ([]byte, bool) {
	v, ok := m[string(key)]
	return []byte(v), ok
}

func (m model) Has(key []byte) bool {
	_, ok := m[string(key)]
	return ok
}

func (m model) Set(key, value []byte) { m[string(key)] = string(value) }

func (m model) Delete(key []byte) { delete(m, string(key)) }

func (m model) DeleteRange(from, to []byte) {
	maps.DeleteFunc(m, func(k, _ string) bool { return k >= string(from) && (len(to) == 0 || k < string(to)) })
}

func (m model) Scan(from, to []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if k >= string(from) && (len(to) == 0 || k < string(to)) && !yield([]byte(k), []byte(m[k])) {
				return
			}
		}
	}
}

// execute is a command: what it does depends on its index, on its own length, and on
// what it reads.
func execute(k keys, index uint64, command []byte) []byte {
	r := rand.New(rand.NewPCG(index, uint64(len(command))))
	key := func() []byte { return fmt.Appendf(nil, "%02d", r.IntN(50)) }
	var result bytes.Buffer
	for range 1 + r.IntN(4) {
		switch r.IntN(10) {
		default:
			key := key()
			old, found := k.Get(key)
			fmt.Fprintf(&result, "%s %t %t %d;", key, found, k.Has(key), len(old))
			k.Set(key, append(fmt.Appendf(nil, "%d:", index), noise[r.IntN(1000):][:r.IntN(len(command)+1)]...))
			if got, _ := k.Get(key); len(got) < 2 {
				panic("it does not read what it wrote")
			}
		case 0:
			k.Delete(key())
		case 1:
			from := key()
			k.DeleteRange(from, append(from, '5'))
		case 2:
			n := 0
			for key, value := range k.Scan(key(), key()) {
				n += len(key) + len(value)
				k.Set([]byte("last"), key)
			}
			fmt.Fprint(&result, n, ";")
		case 3:
			k.Set(nil, []byte("the empty key"))
		}
	}
	return result.Bytes()
}

func apply(tx *statemachine.Tx, index uint64, command []byte) []byte {
	return execute(tx, index, command)
}

// noise does not compress.
var noise = func() []byte {
	n := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(n)
	return n
}()

// history is what commands of a length do, by index.
type history struct {
	size    int
	states  []model
	results []string
}

func newHistory(size, commands int) *history {
	h := &history{size: size, states: []model{{}}, results: []string{""}}
	now := model{}
	for i := range commands {
		h.results = append(h.results, string(execute(now, uint64(i+1), make([]byte, size))))
		h.states = append(h.states, maps.Clone(now))
	}
	return h
}

// batch returns the commands from one index up to another.
func (h *history) batch(from, to uint64) []synod.Entry {
	var entries []synod.Entry
	for i := from; i <= to; i++ {
		entries = append(entries, synod.Entry{Index: i, Command: make([]byte, h.size)})
	}
	return entries
}

// apply applies the commands from the next one up to an index, in batches of different
// sizes, and checks the results.
func (h *history) apply(t *testing.T, m *statemachine.Machine, to uint64) {
	for m.Index() < to {
		from := m.Index() + 1
		entries := h.batch(from, min(to, from+from%7))
		m.ApplyBatch(entries)
		for _, e := range entries {
			require.Equal(t, h.results[e.Index], string(e.Result), "result of command %d", e.Index)
		}
	}
}

// check compares what the machine holds with what it should.
func (h *history) check(t *testing.T, m *statemachine.Machine) {
	t.Helper()
	v, err := m.View()
	require.NoError(t, err)
	defer v.Close()
	require.Equal(t, m.Index(), v.Index())
	h.checkView(t, v)
}

func (h *history) checkView(t *testing.T, v *statemachine.View) {
	t.Helper()
	want := h.states[v.Index()]
	require.Equal(t, dump(want), dump(contents(t, v)), "at index %d", v.Index())
	for i := range 50 {
		key := fmt.Sprintf("%02d", i)
		value, err := v.Get([]byte(key))
		if there, ok := want[key]; ok {
			require.NoError(t, err)
			require.Equal(t, there, string(value))
		} else {
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
	}
}

// dump is for comparing, and for a difference that can be read.
func dump(m model) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%d %s\n", k, len(m[k]), hex.EncodeToString([]byte(m[k][:min(len(m[k]), 8)])))
	}
	return b.String()
}

func contents(t *testing.T, v *statemachine.View) model {
	t.Helper()
	it, err := v.Scan(nil, nil)
	require.NoError(t, err)
	keys, values, err := storage.Collect(it)
	require.NoError(t, err)
	m := model{}
	for i := range keys {
		m[string(keys[i])] = string(values[i])
	}
	return m
}

func open(t *testing.T, c statemachine.Config) *statemachine.Machine {
	t.Helper()
	if c.Dir == "" {
		c.Dir = "data"
	}
	if c.Apply == nil {
		c.Apply = apply
	}
	m, err := statemachine.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// capture returns the bytes of a snapshot of the machine as it is.
func capture(t *testing.T, m *statemachine.Machine) []byte {
	t.Helper()
	s, err := m.Snapshot()
	require.NoError(t, err)
	defer func() { require.NoError(t, s.(io.Closer).Close()) }()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	return b.Bytes()
}

// panics returns the error that fn panics with.
func panics(t *testing.T, fn func()) (err error) {
	t.Helper()
	defer func() {
		v := recover()
		require.NotNil(t, v, "no panic")
		err, _ = v.(error)
		require.Error(t, err, "panicked with %v", v)
	}()
	fn()
	return nil
}

var errDisk = errors.New("the disk is on fire")

// faultyDisk is a file system in memory that can fail and crash.
type faultyDisk struct {
	*errorfs.FS
	mem   *vfs.MemFS
	fault atomic.Pointer[func(errorfs.Op) error] // asked before every operation, possibly concurrently

	// MemFS takes its lock twice to link and to lock, and must not be cloned in between.
	twice sync.RWMutex
}

func newFaultyDisk() *faultyDisk {
	d := &faultyDisk{mem: vfs.NewCrashableMem()}
	d.FS = errorfs.Wrap(twice{d.mem, &d.twice}, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if f := d.fault.Load(); f != nil {
			return (*f)(op)
		}
		return nil
	}))
	return d
}

type twice struct {
	vfs.FS
	mu *sync.RWMutex
}

func (f twice) Link(oldname, newname string) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.FS.Link(oldname, newname)
}

func (f twice) Lock(name string) (io.Closer, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.FS.Lock(name)
}

func (d *faultyDisk) fail(f func(errorfs.Op) error) { d.fault.Store(&f) }

func (d *faultyDisk) heal() { d.fault.Store(nil) }

// crash returns what a crash leaves now: all that was synced, and so many percent of
// the rest.
func (d *faultyDisk) crash(percent int, r *rand.Rand) *vfs.MemFS {
	d.twice.Lock()
	defer d.twice.Unlock()
	return d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: r})
}

func isTable(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".sst") }

func isWrite(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite }

// list returns the names in a directory that begin so.
func list(t *testing.T, fs vfs.FS, dir, prefix string) (names []string) {
	t.Helper()
	all, err := fs.List(dir)
	require.NoError(t, err)
	for _, n := range all {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}
