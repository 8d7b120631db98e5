package grouptest

import (
	"context"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
)

// disk is a node's store. Beside what memory.Store can do, it tells how many commits
// are under way, and ends them when it crashes, so that a node whose process is
// meant to be gone can be closed.
type disk struct {
	*memory.Store

	mu      sync.Mutex
	due     map[uint64]func(error)
	next    uint64
	gates   map[string]*gate // what a call of that name passes, before it does anything
	holds   int              // the number of the commit, from now, from which on syncs are held; 0: none
	changed chan struct{}
	crashed bool
	limit   int // the largest batch that is taken, as other stores have one; 0: none
	largest int // the largest batch that was to be committed
}

var _ storage.AsyncCommitter = (*disk)(nil)

var errCrashed = fmt.Errorf("%w: crashed", storage.ErrClosed)

func newDisk(s *memory.Store) *disk {
	return &disk{Store: s, due: make(map[uint64]func(error)), changed: make(chan struct{})}
}

// Get implements storage.Store.
func (d *disk) Get(key []byte) ([]byte, error) {
	d.pass("Get")
	return d.Store.Get(key)
}

// Commit implements storage.Store.
func (d *disk) Commit(b *storage.Batch) error {
	d.pass("Commit")
	return d.Store.Commit(b)
}

// block makes the calls of a method, CommitAsync apart, pass a gate; nil: none.
func (d *disk) block(method string, g *gate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gates == nil {
		d.gates = make(map[string]*gate)
	}
	d.gates[method] = g
}

func (d *disk) pass(method string) {
	d.mu.Lock()
	g := d.gates[method]
	d.mu.Unlock()
	if g != nil {
		g.pass()
	}
}

// CommitAsync implements storage.AsyncCommitter.
func (d *disk) CommitAsync(b *storage.Batch, done func(error)) {
	d.mu.Lock()
	if d.crashed {
		d.mu.Unlock()
		done(errCrashed)
		return
	}
	d.largest = max(d.largest, b.Size())
	if d.limit > 0 && b.Size() > d.limit {
		d.mu.Unlock()
		done(fmt.Errorf("%w: it has %d bytes, the limit is %d", storage.ErrInvalidBatch, b.Size(), d.limit))
		return
	}
	if d.holds > 0 {
		if d.holds--; d.holds == 0 {
			d.HoldSync()
		}
	}
	id := d.next
	d.next++
	d.due[id] = done
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	d.Store.CommitAsync(b, func(err error) {
		d.mu.Lock()
		fn := d.due[id]
		delete(d.due, id)
		d.mu.Unlock()
		if fn != nil {
			fn(err)
		}
	})
}

// setLimit bounds the batches from now on, and returns the size of the largest so far.
func (d *disk) setLimit(limit int) (largest int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	largest, d.limit, d.largest = d.largest, limit, 0
	return largest
}

// holdFrom is HoldSync from the n-th commit on, counted from one.
func (d *disk) holdFrom(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds = n
}

// awaitHeld waits until a commit is under way.
func (d *disk) awaitHeld(ctx context.Context) error {
	for {
		d.mu.Lock()
		n, changed := len(d.due), d.changed
		d.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no commit is under way: %w", ctx.Err())
		}
	}
}

// crash returns a disk with what was durable. Commits that were not fail.
func (d *disk) crash() *disk {
	rest := newDisk(d.Store.Crash())
	d.mu.Lock()
	due := d.due
	d.due = make(map[uint64]func(error))
	d.crashed = true
	d.mu.Unlock()
	for _, done := range due {
		done(errCrashed)
	}
	return rest
}

// record is one key and value of a store.
type record struct{ key, value []byte }

func (d *disk) records() ([]record, error) {
	it, err := d.Scan(nil, nil)
	if err != nil {
		return nil, err
	}
	keys, values, err := storage.Collect(it)
	if err != nil {
		return nil, err
	}
	records := make([]record, len(keys))
	for i := range keys {
		records[i] = record{keys[i], values[i]}
	}
	return records, nil
}

// diskOf makes a disk of records.
func diskOf(records []record) (*disk, error) {
	d := newDisk(memory.Open(memory.Config{}))
	var b storage.Batch
	for _, r := range records {
		b.Set(r.key, r.value)
	}
	return d, d.Commit(&b)
}

// mustGet returns the value of a key.
func (d *disk) mustGet(c *cluster, key []byte) []byte {
	c.Helper()
	value, err := d.Get(key)
	require.NoError(c, err)
	return value
}
