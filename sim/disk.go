package sim

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
)

// Disk is what a node's store stands on. It survives a crash; what is not durable then
// may not. What the fields say holds from the next commit on; faults come on top of it
// and leave them alone.
type Disk struct {
	Slow  time.Duration // how much longer a sync takes; as much again is random
	Stuck bool          // no sync ends
	Full  bool          // commits are refused: storage.ErrNoSpace

	world      *World
	node       *Node
	durable    table
	visible    table
	pending    []*write // visible and not durable, in order
	syncing    int      // how many of them the sync under way covers
	faults     []*Disk
	generation int
	failAt     int // the so manieth sync from now fails, and with it the store
	failed     error
}

// write is a commit on its way.
type write struct {
	ops  []storage.Op
	done func(error)
}

// table is a map with its keys in order. Values are replaced and never changed.
type table struct {
	values map[string][]byte
	keys   []string
}

func (t *table) apply(ops []storage.Op) {
	if t.values == nil {
		t.values = make(map[string][]byte)
	}
	for _, op := range ops {
		switch op.Kind {
		case storage.KindSet:
			if _, ok := t.values[string(op.Key)]; !ok {
				i, _ := slices.BinarySearch(t.keys, string(op.Key))
				t.keys = slices.Insert(t.keys, i, string(op.Key))
			}
			t.values[string(op.Key)] = op.Value
		case storage.KindDelete:
			if i, ok := slices.BinarySearch(t.keys, string(op.Key)); ok {
				delete(t.values, t.keys[i])
				t.keys = slices.Delete(t.keys, i, i+1)
			}
		case storage.KindDeleteRange:
			from, to := t.span(op.Key, op.End)
			for _, k := range t.keys[from:to] {
				delete(t.values, k)
			}
			t.keys = slices.Delete(t.keys, from, to)
		}
	}
}

// span returns where the keys of a range stand.
func (t *table) span(from, to []byte) (first, end int) {
	first, _ = slices.BinarySearch(t.keys, string(from))
	if end = len(t.keys); len(to) > 0 {
		end, _ = slices.BinarySearch(t.keys, string(to))
	}
	return first, max(first, end)
}

func (t *table) clone() table { return table{maps.Clone(t.values), slices.Clone(t.keys)} }

func (t *table) get(key []byte) ([]byte, error) {
	v, ok := t.values[string(key)]
	if !ok {
		return nil, fmt.Errorf("sim: key %x: %w", key, storage.ErrNotFound)
	}
	return bytes.Clone(v), nil
}

func (t *table) scan(from, to []byte) storage.Iterator {
	first, end := t.span(from, to)
	it := &iterator{keys: slices.Clone(t.keys[first:end]), values: make([][]byte, 0, end-first)}
	for _, k := range it.keys {
		it.values = append(it.values, t.values[k])
	}
	return it
}

type iterator struct {
	keys   []string
	values [][]byte
	key    []byte
}

func (i *iterator) Next() ([]byte, []byte, error) {
	if len(i.keys) == 0 {
		return nil, nil, io.EOF
	}
	i.key = append(i.key[:0], i.keys[0]...)
	v := i.values[0]
	i.keys, i.values = i.keys[1:], i.values[1:]
	return i.key, v, nil
}

func (i *iterator) Close() error {
	i.keys = nil
	return nil
}

// store is one process's view of its disk.
type store struct {
	disk    *Disk
	process *process
	closed  bool
}

var (
	_ storage.Store          = (*store)(nil)
	_ storage.AsyncCommitter = (*store)(nil)
	_ storage.Snapshotter    = (*store)(nil)
)

func (s *store) check() error {
	if s.closed || s.process.dead {
		return fmt.Errorf("sim: %w", storage.ErrClosed)
	}
	s.process.node.operation()
	return nil
}

// Get implements storage.Store.
func (s *store) Get(key []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.disk.visible.get(key)
}

// Scan implements storage.Store.
func (s *store) Scan(from, to []byte) (storage.Iterator, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.disk.visible.scan(from, to), nil
}

// Snapshot implements storage.Snapshotter.
func (s *store) Snapshot() (storage.View, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return &view{s, s.disk.visible.clone(), false}, nil
}

type view struct {
	store  *store
	table  table
	closed bool
}

func (v *view) check() error {
	if v.closed {
		return fmt.Errorf("sim: view: %w", storage.ErrClosed)
	}
	return v.store.check()
}

func (v *view) Get(key []byte) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	return v.table.get(key)
}

func (v *view) Scan(from, to []byte) (storage.Iterator, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	return v.table.scan(from, to), nil
}

func (v *view) Close() error {
	v.closed = true
	return nil
}

// Commit implements storage.Store.
func (s *store) Commit(b *storage.Batch) error {
	done, result := executor.NewEvent(), error(nil)
	s.CommitAsync(b, func(err error) {
		result = err
		done.Set()
	})
	// A crash ends this task here.
	box := &sandbox{world: s.disk.world, process: s.process}
	if err := box.Wait(s.disk.world.Context(), done); err != nil {
		return err
	}
	return result
}

// CommitAsync implements storage.AsyncCommitter.
func (s *store) CommitAsync(b *storage.Batch, done func(error)) {
	d, w := s.disk, s.disk.world
	if err := s.check(); err != nil {
		done(err)
		return
	}
	if d.failed != nil {
		done(d.failed)
		return
	}
	if d.effective().Full {
		w.effect("commit refused, disk full")
		done(fmt.Errorf("sim: %w", storage.ErrNoSpace))
		return
	}
	c := &write{ops: make([]storage.Op, 0, b.Len()), done: done}
	for _, op := range b.Ops() {
		w.trace.word(uint64(op.Kind))
		w.trace.bytes(op.Key)
		w.trace.bytes(op.Value)
		c.ops = append(c.ops, storage.Op{Kind: op.Kind, Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value), End: bytes.Clone(op.End)})
	}
	d.visible.apply(c.ops)
	d.pending = append(d.pending, c)
	d.sync(s.process)
}

// Close implements storage.Store.
func (s *store) Close() error {
	s.closed = true
	return nil
}

// effective returns what the fields and the faults come to.
func (d *Disk) effective() Disk {
	e := Disk{Slow: d.Slow, Stuck: d.Stuck, Full: d.Full}
	for _, f := range d.faults {
		e.Slow, e.Stuck, e.Full = max(e.Slow, f.Slow), e.Stuck || f.Stuck, e.Full || f.Full
	}
	return e
}

// suffer puts a fault on the disk until the function that is returned is called.
func (d *Disk) suffer(f *Disk) (end func()) {
	d.faults = append(d.faults, f)
	return func() {
		d.faults = slices.DeleteFunc(d.faults, func(o *Disk) bool { return o == f })
	}
}

// sync makes what is pending durable, unless that is under way.
func (d *Disk) sync(p *process) {
	if d.syncing > 0 || len(d.pending) == 0 {
		return
	}
	d.syncing = len(d.pending)
	w, slow := d.world, d.effective().Slow
	w.after(w.config.Sync/2+some(w.random, w.config.Sync)+slow+some(w.random, slow), eventSync, d.node.ID, 0, func() { d.synced(p) })
}

func (d *Disk) synced(p *process) {
	if p.dead {
		return
	}
	if p.node.paused || d.effective().Stuck {
		d.world.after(5*time.Millisecond, eventSync, d.node.ID, 0, func() { d.synced(p) })
		return
	}
	if d.failAt > 0 {
		if d.failAt--; d.failAt == 0 {
			d.world.effect("sync failed")
			d.failed = fmt.Errorf("sim: sync: %w", storage.ErrFailed)
		}
	}
	n := d.syncing
	d.syncing = 0
	if d.failed != nil {
		n = len(d.pending) // nothing more will be written
	}
	over := d.pending[:n]
	d.pending = slices.Clone(d.pending[n:])
	for _, c := range over {
		if d.failed == nil {
			d.durable.apply(c.ops)
		}
	}
	for _, c := range over {
		c.done(d.failed)
	}
	d.sync(p)
}

// crash drops what is not durable, or keeps a part of it: whole commits, in their
// order. The one that was being written is found torn by any store that keeps its
// promise of atomic batches, and is as if it had never been.
func (d *Disk) crash() {
	if n := len(d.pending); n > 0 {
		kept := d.world.random.IntN(n + 1)
		d.world.effect("unsynced commits lost")
		if kept > 0 {
			d.world.effect("unsynced commits kept in part")
		}
		if kept < n && d.world.random.IntN(2) == 0 {
			d.world.effect("commit torn")
		}
		for _, c := range d.pending[:kept] {
			d.durable.apply(c.ops)
		}
		d.pending = nil
	}
	d.syncing = 0
	d.visible = d.durable.clone()
	d.failAt, d.failed = 0, nil
}

// Copy is a disk's content at one moment.
type Copy struct{ table table }

// Copy returns what is durable now.
func (d *Disk) Copy() *Copy { return &Copy{d.durable.clone()} }

// Durable returns a store that reads what is durable at the time of reading, whether the node runs or not:
// for invariants. It takes no commit.
func (d *Disk) Durable() storage.Store { return durable{d} }

type durable struct{ disk *Disk }

var _ storage.Store = durable{}

// Get implements storage.Store.
func (d durable) Get(key []byte) ([]byte, error) { return d.disk.durable.get(key) }

// Scan implements storage.Store.
func (d durable) Scan(from, to []byte) (storage.Iterator, error) {
	return d.disk.durable.scan(from, to), nil
}

// Commit implements storage.Store.
func (d durable) Commit(*storage.Batch) error {
	return fmt.Errorf("sim: Disk.Durable: %w: it is there to be read", storage.ErrClosed)
}

// Close implements storage.Store.
func (d durable) Close() error { return nil }

// Restore puts a copy in the place of the content: an old one, or that of another node.
// The node must not run.
func (d *Disk) Restore(c *Copy) {
	d.stopped("Restore")
	d.generation++
	d.durable = c.table.clone()
	d.crash()
}

// Generation returns how often the disk was lost or replaced.
func (d *Disk) Generation() int { return d.generation }

// Lose empties the disk, as a new one is. The node must not run.
func (d *Disk) Lose() { d.Restore(&Copy{}) }

func (d *Disk) stopped(what string) {
	if d.node.process != nil {
		panic(fmt.Sprintf("sim: Disk.%s: node %d runs: crash it first", what, d.node.ID))
	}
}

// Flip flips one bit of a durable value, and returns its key; ok is false if there is no
// value.
func (d *Disk) Flip(r *rand.Rand) (key string, ok bool) {
	var full []string
	for _, k := range d.durable.keys {
		if len(d.durable.values[k]) > 0 {
			full = append(full, k)
		}
	}
	if len(full) == 0 {
		return "", false
	}
	key = full[r.IntN(len(full))]
	v := bytes.Clone(d.durable.values[key])
	at, bit := r.IntN(len(v)), byte(1)<<r.IntN(8)
	v[at] ^= bit
	d.durable.values[key] = v
	// What has been written since is read from elsewhere.
	if seen, ok := d.visible.values[key]; ok && len(seen) == len(v) && seen[at]^bit == v[at] {
		d.visible.values[key] = v
	}
	return key, true
}

// Write changes what is durable, as somebody does who works on the disk of a node that
// does not run.
func (d *Disk) Write(b *storage.Batch) {
	d.stopped("Write")
	var ops []storage.Op
	for _, op := range b.Ops() {
		ops = append(ops, storage.Op{Kind: op.Kind, Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value), End: bytes.Clone(op.End)})
	}
	d.durable.apply(ops)
	d.visible = d.durable.clone()
}
