package statemachine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/storage/pebble/statemachine"
	"github.com/synod-go/synod/transport/inproc"
)

// cluster is nodes with one group, whose machines are on disks in memory.
type cluster struct {
	t       *testing.T
	ctx     context.Context
	network *inproc.Network
	config  raft.GroupConfig
	replica map[uint64]*replica
	machine statemachine.Config
	store   func(id uint64) storage.Store // nil: in memory
}

type replica struct {
	disk      vfs.FS
	store     storage.Store
	transport *inproc.Node
	node      *raft.Node
	group     *raft.Group
	machine   *statemachine.Machine
	first     atomic.Uint64 // the first index that was applied since the start
}

func newCluster(t *testing.T) *cluster { return newClusterFor(t, 5*time.Minute) }

// newClusterFor returns a cluster whose calls fail after some time.
func newClusterFor(t *testing.T, limit time.Duration) *cluster {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	network, err := inproc.New(ctx, inproc.Config{})
	require.NoError(t, err)
	c := &cluster{t: t, ctx: ctx, network: network, replica: make(map[uint64]*replica),
		config:  raft.GroupConfig{ID: 1, SnapshotEntries: 100, RetainEntries: 10},
		machine: statemachine.Config{Dir: "data", Apply: apply, MemTableBytes: 64 << 10}}
	t.Cleanup(func() {
		for id := range c.replica {
			c.stop(id)
		}
	})
	return c
}

// start starts a node. Nodes that are there from the beginning bootstrap the group;
// others join it.
func (c *cluster) start(id uint64, members ...uint64) *replica {
	c.t.Helper()
	r := c.replica[id]
	fresh := r == nil
	if fresh {
		r = &replica{disk: vfs.NewCrashableMem(), store: memory.Open(memory.Config{})}
		if c.store != nil {
			r.store = c.store(id)
			r.disk = nil
		}
		c.replica[id] = r
	}
	machine := c.machine
	if r.disk != nil {
		machine.FS = r.disk
	} else {
		machine.Dir = fmt.Sprintf("%s/%d", c.machine.Dir, id)
	}
	r.first.Store(0)
	machine.Apply = func(tx *statemachine.Tx, index uint64, command []byte) []byte {
		r.first.CompareAndSwap(0, index)
		return c.machine.Apply(tx, index, command)
	}
	var err error
	r.machine, err = statemachine.Open(machine)
	require.NoError(c.t, err)
	r.transport, err = c.network.Open(id)
	require.NoError(c.t, err)
	r.node, err = raft.Start(c.ctx, raft.Config{Cluster: "test", Node: id, Transport: r.transport, Store: r.store,
		HeartbeatInterval: 20 * time.Millisecond, ElectionTimeout: 200 * time.Millisecond})
	require.NoError(c.t, err)
	switch {
	case fresh && len(members) > 0:
		require.NoError(c.t, r.node.Bootstrap(c.ctx, 1, members))
	case fresh:
		require.NoError(c.t, r.node.Join(c.ctx, 1))
	}
	config := c.config
	config.StateMachine = r.machine
	r.group, err = r.node.StartGroup(c.ctx, config)
	require.NoError(c.t, err)
	return r
}

// replayed reports whether a node that knew so many commands, or fewer, at its start was
// given the others one by one. Without that, it was restored from a snapshot.
func (r *replica) replayed(known uint64) bool {
	first := r.first.Load() // 0: the snapshot held everything
	return first > 0 && first <= known
}

// stop ends a node, but not its disks.
func (c *cluster) stop(id uint64) {
	r := c.replica[id]
	if r.node == nil {
		return
	}
	require.NoError(c.t, r.node.Close())
	require.NoError(c.t, r.transport.Close())
	require.NoError(c.t, r.machine.Close())
	r.node = nil
}

// crash ends a node as a power failure does: what was not synced is lost.
func (c *cluster) crash(id uint64) {
	r := c.replica[id]
	store := r.store.(*memory.Store).Crash()
	disk := r.disk.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	c.stop(id)
	r.store, r.disk = store, disk
}

// propose has the leader apply commands, and returns how many there are in all.
func (c *cluster) propose(n int, command func(i int) []byte) uint64 {
	c.t.Helper()
	for i := 0; i < n; {
		_, err := c.leader().group.Propose(c.ctx, command(i))
		var elsewhere *synod.NotLeaderError
		if errors.As(err, &elsewhere) {
			continue
		}
		require.NoError(c.t, err)
		i++
	}
	return c.leader().group.Status().Commands
}

// leader waits for one.
func (c *cluster) leader() *replica {
	for {
		for id, r := range c.replica {
			if r.node == nil {
				continue
			}
			if r.group.Status().Leader == id {
				return r
			}
		}
		require.NoError(c.t, c.ctx.Err())
		for _, r := range c.replica {
			if r.node != nil {
				_ = r.group.Barrier(c.ctx)
			}
		}
	}
}

// same waits until all nodes have applied so many commands, and compares them.
func (c *cluster) same(h *history, commands uint64) {
	c.t.Helper()
	for id, r := range c.replica {
		if r.node == nil {
			continue
		}
		require.Eventually(c.t, func() bool { return r.machine.Index() >= commands || r.group.Err() != nil }, time.Minute, 5*time.Millisecond)
		require.NoError(c.t, r.group.Err(), "node %d", id)
		h.check(c.t, r.machine)
	}
}

// Three nodes keep the same state on their disks, while one crashes and replays what it
// had not on disk, one is away until the log has no more of what it lacks, and one is new.
func TestGroup(t *testing.T) {
	t.Parallel()
	const size = 500
	h := newHistory(size, 2000)
	c := newCluster(t)
	command := func(int) []byte { return make([]byte, size) }
	for id := uint64(1); id <= 3; id++ {
		c.start(id, 1, 2, 3)
	}
	c.same(h, c.propose(50, command))

	// What is on disk is not replayed, and what is not is.
	for id := uint64(1); id <= 3; id++ {
		require.NoError(t, c.replica[id].machine.Flush(t.Context()))
	}
	c.same(h, c.propose(30, command))
	held, err := c.replica[2].machine.DurableIndex()
	require.NoError(t, err)
	require.EqualValues(t, 50, held, "the rest is in memory")
	c.crash(2)
	r := c.start(2)
	require.Contains(t, []uint64{50, 80}, r.machine.Index()-r.machine.Index()%10) // 80 if the flush of the question came in time
	first := r.machine.Index() + 1
	commands := c.propose(10, command)
	c.same(h, commands)
	if got := r.first.Load(); got != first {
		require.EqualValues(t, 51, got, "commands that it had were replayed, or some were left out")
	}

	// It is away for too long.
	c.stop(3)
	for c.leader().group.Status().First <= commands+50 {
		c.propose(20, command)
	}
	r = c.start(3)
	commands = c.propose(10, command)
	c.same(h, commands)
	require.False(t, r.replayed(100), "it had no snapshot")

	// A new one has nothing.
	r = c.start(4)
	leader := c.leader()
	require.NoError(t, leader.group.SetMembers(c.ctx, []synod.Member{{Node: 1}, {Node: 2}, {Node: 3}, {Node: 4}}))
	commands = c.propose(10, command)
	c.same(h, commands)
	require.False(t, r.replayed(100), "it had no snapshot")

	// One loses its directory, and gets its state from another member.
	c.stop(2)
	c.replica[2].disk = vfs.NewCrashableMem()
	c.start(2)
	commands = c.propose(10, command)
	c.same(h, commands)

	// Everybody loses power.
	for id := range c.replica {
		c.crash(id)
	}
	for id := range c.replica {
		c.start(id)
	}
	c.same(h, max(commands, c.propose(20, command)))
	for id, r := range c.replica {
		durable, err := r.machine.DurableIndex()
		require.NoError(t, err)
		require.Positive(t, durable, "node %d", id)
		require.Empty(t, list(t, r.disk, "data", "snapshot-"), "a snapshot was left open")
	}
}

// TestLargeState moves a state of SYNOD_STATE_MIB, 32 by default, to a node that lags.
// Memory grows by no more than Pebble's indexes of its tables, and the group goes on meanwhile.
func TestLargeState(t *testing.T) {
	if testing.Short() {
		t.Skip("writes hundreds of MiB")
	}
	mib := 32
	if raceEnabled {
		mib = 8
	}
	if s := os.Getenv("SYNOD_STATE_MIB"); s != "" {
		var err error
		mib, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	const piece = 256 << 10
	dir := t.TempDir()
	c := newClusterFor(t, 5*time.Minute+time.Duration(mib)*time.Second)
	c.config.SnapshotEntries, c.config.SnapshotBytes, c.config.RetainBytes = 50, 4<<20, 1<<20
	c.machine.Dir, c.machine.MemTableBytes, c.machine.CacheBytes = dir, 2<<20, 1<<20
	c.machine.Apply = func(tx *statemachine.Tx, index uint64, command []byte) []byte {
		tx.Set(command[:8], command[8:])
		return nil
	}
	c.store = func(id uint64) storage.Store {
		s, err := pebble.Open(pebble.Config{Dir: fmt.Sprintf("%s/store%d", dir, id), MemTableBytes: 1 << 20, CacheBytes: 1 << 20, MinFreeBytes: -1})
		require.NoError(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	random := rand.NewChaCha8([32]byte{})
	command := func(i int) []byte {
		b := make([]byte, 8+piece)
		random.Read(b)
		binary.BigEndian.PutUint64(b, uint64(i))
		return b
	}
	for id := uint64(1); id <= 3; id++ {
		c.start(id, 1, 2, 3)
	}
	c.propose(1, command)
	// What it has in its log alone it would apply after its start, snapshot or not.
	require.NoError(t, c.replica[3].group.Barrier(c.ctx))
	require.NoError(t, c.replica[3].machine.Flush(c.ctx))
	c.stop(3)
	commands := c.propose(mib<<20/piece, command)
	leader := c.leader()
	for leader.group.Status().First < 10 { // asked once a while
		require.NoError(t, leader.machine.Flush(t.Context()))
		commands = c.propose(50, command)
	}

	peak := watchHeap(t)
	c.start(3)
	r := c.replica[3]
	var during atomic.Int64
	for i := 0; r.machine.Index() < commands; i++ {
		small := make([]byte, 9)
		binary.BigEndian.PutUint64(small, 1<<40)
		began := time.Now()
		c.propose(1, func(int) []byte { return small })
		during.Store(max(during.Load(), int64(time.Since(began))))
		require.NoError(t, r.group.Err())
	}
	require.False(t, r.replayed(9), "it had no snapshot")
	before, most := peak()
	t.Logf("a state of %d MiB was moved: %d MiB of heap were in use in the whole cluster, and %d at most, the slowest of the commands meanwhile took %v",
		mib, before>>20, most>>20, time.Duration(during.Load()))
	if !raceEnabled { // it needs memory of its own
		require.Less(t, most-before, int64(16<<20+mib<<20/64), "memory grows with the state")
	}
}

// watchHeap looks at the heap until the function that it returns is called, which
// returns what it was before, and at most. Meanwhile garbage is collected early: it is what is
// in use that counts.
func watchHeap(t *testing.T) func() (before, most int64) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}} // what the last collection found to be in use
	heap := func() int64 {
		metrics.Read(live)
		return int64(live[0].Value.Uint64())
	}
	percent := debug.SetGCPercent(10)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	debug.FreeOSMemory()
	begin := heap()
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		peak := begin
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, heap())
			case <-stop:
				done <- peak
				return
			}
		}
	}()
	t.Cleanup(func() {
		select {
		case <-stop:
		default:
			close(stop)
			<-done
		}
	})
	return func() (before, most int64) {
		close(stop)
		return begin, <-done
	}
}
