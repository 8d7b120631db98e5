package sim

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/executor"
	"github.com/synod-go/synod/storage"
)

// Disk is a node's disk: it survives the node's crashes, but for what was not
// durable.
type Disk struct {
	world   *World
	durable map[string][]byte
	visible map[string][]byte
	keys    []string // of visible, sorted
	pending []*write // visible and not durable, in order
	syncing int      // how many of them the sync under way covers

	Slow   time.Duration // what a sync takes longer
	Stuck  bool          // no sync ends
	Full   bool          // commits are refused: storage.ErrNoSpace
	FailAt int           // the so manieth sync from now fails, and with it the store; 0: none
	CutAt  int           // the node crashes at the so manieth commit from now; 0: never
	failed error
}

// write is a commit on its way.
type write struct {
	ops  []storage.Op
	done func(error)
}

func newDisk(w *World) *Disk {
	return &Disk{world: w, durable: make(map[string][]byte), visible: make(map[string][]byte)}
}

// store is one process's view of the disk.
type store struct {
	disk    *Disk
	process *process
	closed  bool
}

var (
	_ storage.Store          = (*store)(nil)
	_ storage.AsyncCommitter = (*store)(nil)
)

func (s *store) check() error {
	if s.closed || s.process.dead {
		return fmt.Errorf("sim: %w", storage.ErrClosed)
	}
	return nil
}

func (s *store) Get(key []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	v, ok := s.disk.visible[string(key)]
	if !ok {
		return nil, fmt.Errorf("sim: key %x: %w", key, storage.ErrNotFound)
	}
	return bytes.Clone(v), nil
}

func (s *store) Scan(from, to []byte) (storage.Iterator, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	it := &iterator{}
	d := s.disk
	start, _ := slices.BinarySearch(d.keys, string(from))
	for _, k := range d.keys[start:] {
		if len(to) > 0 && k >= string(to) {
			break
		}
		it.keys = append(it.keys, k)
		it.values = append(it.values, d.visible[k]) // replaced, never changed
	}
	return it, nil
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

func (s *store) Commit(b *storage.Batch) error {
	done, result := executor.NewEvent(), error(nil)
	s.CommitAsync(b, func(err error) {
		result = err
		done.Set()
	})
	// A crash ends this task here.
	box := &sandbox{world: s.disk.world, process: s.process}
	if err := box.Wait(worldContext, done); err != nil {
		return err
	}
	return result
}

func (s *store) CommitAsync(b *storage.Batch, done func(error)) {
	d, w := s.disk, s.disk.world
	switch err := s.check(); {
	case err != nil:
		done(err)
		return
	case d.failed != nil:
		done(d.failed)
		return
	case d.Full:
		w.hit("disk full")
		done(fmt.Errorf("sim: %w", storage.ErrNoSpace))
		return
	}
	if d.CutAt > 0 {
		if d.CutAt--; d.CutAt == 0 {
			w.hit("crash at a commit")
			n := s.process.node
			w.after(0, eventFault, func() {
				if n.process == s.process {
					n.Crash()
				}
			})
		}
	}
	c := &write{ops: make([]storage.Op, 0, b.Len()), done: done}
	for _, op := range b.Ops() {
		c.ops = append(c.ops, storage.Op{Kind: op.Kind, Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value), End: bytes.Clone(op.End)})
	}
	d.apply(d.visible, c.ops, true)
	d.pending = append(d.pending, c)
	d.sync(s.process)
}

// sync begins to make everything that is pending durable, unless that is under way:
// then what came later waits for the next one.
func (d *Disk) sync(p *process) {
	if d.syncing > 0 || len(d.pending) == 0 {
		return
	}
	d.syncing = len(d.pending)
	w := d.world
	w.after(w.options.Sync/2+w.some(w.options.Sync)+d.Slow+w.some(d.Slow), eventSync, func() { d.synced(p) })
}

// synced ends a sync.
func (d *Disk) synced(p *process) {
	if p.dead {
		return
	}
	if p.node.paused || d.Stuck {
		d.world.after(time.Millisecond, eventSync, func() { d.synced(p) })
		return
	}
	if d.FailAt > 0 {
		if d.FailAt--; d.FailAt == 0 {
			d.world.hit("sync failed")
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
			d.apply(d.durable, c.ops, false)
		}
	}
	for _, c := range over {
		c.done(d.failed)
	}
	d.sync(p)
}

func (d *Disk) apply(m map[string][]byte, ops []storage.Op, index bool) {
	for _, op := range ops {
		switch op.Kind {
		case storage.KindSet:
			if _, ok := m[string(op.Key)]; !ok && index {
				i, _ := slices.BinarySearch(d.keys, string(op.Key))
				d.keys = slices.Insert(d.keys, i, string(op.Key))
			}
			m[string(op.Key)] = op.Value
		case storage.KindDelete, storage.KindDeleteRange:
			in := func(k string) bool {
				if op.Kind == storage.KindDelete {
					return k == string(op.Key)
				}
				return k >= string(op.Key) && (len(op.End) == 0 || k < string(op.End))
			}
			if index {
				d.keys = slices.DeleteFunc(d.keys, in)
			}
			maps.DeleteFunc(m, func(k string, _ []byte) bool { return in(k) })
		}
	}
}

// crash loses what is not durable, but for the first few commits, as the seed
// decides: a disk may have written what it had not been asked to.
func (d *Disk) crash() {
	if n := len(d.pending); n > 0 {
		kept := d.world.random.IntN(n + 1)
		d.world.hit("unsynced commits lost")
		if kept > 0 {
			d.world.hit("unsynced commits kept in part")
		}
		for _, c := range d.pending[:kept] {
			d.apply(d.durable, c.ops, false)
		}
		d.pending = nil
	}
	d.syncing = 0
	d.visible = maps.Clone(d.durable)
	d.keys = slices.Sorted(maps.Keys(d.visible))
	d.CutAt, d.FailAt, d.failed = 0, 0, nil
}

// Lose makes the disk empty, as a new one in its place would be.
func (d *Disk) Lose() {
	d.world.hit("disk lost")
	d.durable = make(map[string][]byte)
	d.pending, d.syncing = nil, 0
	d.crash()
}

func (s *store) Close() error {
	s.closed = true
	return nil
}
