package raft_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
	"github.com/synod-go/synod/storage/memory"
	"github.com/synod-go/synod/transport/inproc"
)

// newest is a state machine that holds the last number that was written.
type newest struct{ number uint64 }

func (n *newest) Apply(_ uint64, command []byte) []byte {
	n.number = binary.LittleEndian.Uint64(command)
	return nil
}

func (n *newest) Snapshot() (io.WriterTo, error) { return nil, errors.New("not needed") }

func (n *newest) Restore(io.Reader) error { return errors.New("not needed") }

// cutOffs cuts off a leader with a lease, again and again, while its clock is slow and
// those of the others fast, by a fraction each. It returns how many reads the old leaders
// answered after they were cut off, and how many of these lacked what was acknowledged
// before. pauses stop the old leader in between, too.
func cutOffs(t *testing.T, seed uint64, drift float64, most time.Duration, pauses bool) (answered, stale int) {
	const election, nodes = time.Second, 3
	r := sim.Execute(sim.Config{Seed: seed}, func(w *sim.World) {
		ctx := w.Context()
		groups, machines := make(map[uint64]*raft.Group), make(map[uint64]*newest)
		for id := uint64(1); id <= nodes; id++ {
			w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
				node, err := raft.Start(ctx, raft.Config{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store, Loops: 1,
					HeartbeatInterval: election / 10, ElectionTimeout: election, MaxClockDrift: most})
				if err != nil {
					return nil, err
				}
				if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
					return nil, err
				}
				m := &newest{}
				g, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: m})
				groups[env.ID], machines[env.ID] = g, m
				return func() { _ = node.Close() }, err
			})
		}
		var last, acknowledged uint64
		try := func(id uint64) bool { // to write
			short, cancel := sim.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			last++
			number := last
			_, err := groups[id].Propose(short, binary.LittleEndian.AppendUint64(nil, number))
			if err == nil {
				acknowledged = max(acknowledged, number)
			}
			return err == nil
		}
		read := func(id uint64) bool {
			short, cancel := sim.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			return groups[id].Barrier(short) == nil
		}
		for range 6 {
			leader := uint64(0)
			for leader == 0 {
				_ = sim.Sleep(ctx, 10*time.Millisecond)
				for id := uint64(1); id <= nodes; id++ {
					if groups[id] != nil && try(id) {
						leader = id
					}
				}
			}
			links := func(cut bool) {
				for id := uint64(1); id <= nodes; id++ {
					w.Link(leader, id).Cut, w.Link(id, leader).Cut = cut, cut
					w.Node(id).SetDrift(drift)
				}
				w.Node(leader).SetDrift(-drift)
			}
			links(false)
			for end := w.Now() + election + time.Duration(w.Rand().Int64N(int64(election))); w.Now() < end; {
				_ = sim.Sleep(ctx, 20*time.Millisecond)
				read(leader)
			}
			links(true)
			over := false
			join := w.Go(func(ctx context.Context) {
				for !over {
					_ = sim.Sleep(ctx, 5*time.Millisecond)
					try(leader%nodes + 1)
					try((leader+1)%nodes + 1)
				}
			})
			for end := w.Now() + 3*election; w.Now() < end; {
				_ = sim.Sleep(ctx, 3*time.Millisecond)
				if pauses && w.Rand().IntN(100) == 0 {
					w.Node(leader).Pause()
					_ = sim.Sleep(ctx, time.Duration(w.Rand().Int64N(int64(2*election))))
					w.Node(leader).Resume()
				}
				if before := acknowledged; read(leader) {
					if answered++; machines[leader].number < before {
						stale++
					}
				}
			}
			over = true
			_ = join(ctx)
			links(false)
		}
	})
	require.NoError(t, r.Err)
	return answered, stale
}

// Clocks may come apart by Config.MaxClockDrift within an election timeout, and processes
// may be stopped: then no read is stale. If they come apart by more, some are.
func TestLeaseAndClocks(t *testing.T) {
	apart := func(drift float64) time.Duration {
		return time.Duration(2 * drift / (1 - drift) * float64(time.Second))
	}
	seeds := uint64(5)
	if testing.Short() || racing {
		seeds = 1
	}
	for _, c := range []struct {
		drift  float64
		most   time.Duration
		pauses bool
		stale  bool
	}{
		{0, time.Nanosecond, false, false},
		{0, time.Nanosecond, true, false},
		{0.02, apart(0.02), false, false},
		{0.05, apart(0.05), true, false},
		{0.25, apart(0.25), false, false},
		{0.25, apart(0.02), false, true},
	} {
		t.Run(fmt.Sprintf("clocks drift by %v, at most %v is expected, pauses: %v", c.drift, c.most, c.pauses), func(t *testing.T) {
			answered, stale := 0, 0
			for seed := range seeds {
				a, s := cutOffs(t, seed, c.drift, c.most, c.pauses)
				answered, stale = answered+a, stale+s
			}
			require.NotZero(t, answered, "no lease was used")
			require.Equal(t, c.stale, stale > 0, "%d of %d reads were stale", stale, answered)
		})
	}
}

// nothing is a state machine without state.
type nothing struct{}

func (nothing) Apply(uint64, []byte) []byte    { return nil }
func (nothing) Snapshot() (io.WriterTo, error) { return nil, errors.New("not needed") }
func (nothing) Restore(io.Reader) error        { return nil }

// BenchmarkBarrier reads on the leader of three nodes in one process, 64 clients at a time.
func BenchmarkBarrier(b *testing.B) {
	for _, drift := range []time.Duration{0, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("drift=%v", drift), func(b *testing.B) {
			ctx := b.Context()
			network, err := inproc.New(ctx, inproc.Config{})
			require.NoError(b, err)
			var leader *raft.Group
			groups := make([]*raft.Group, 4)
			for id := uint64(1); id <= 3; id++ {
				tr, err := network.Open(id)
				require.NoError(b, err)
				defer tr.Close()
				n, err := raft.Start(ctx, raft.Config{Cluster: "bench", Node: id, Transport: tr, Store: memory.Open(memory.Config{}), MaxClockDrift: drift})
				require.NoError(b, err)
				defer n.Close()
				require.NoError(b, n.Bootstrap(ctx, 1, []uint64{1, 2, 3}))
				groups[id], err = n.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: nothing{}})
				require.NoError(b, err)
			}
			require.NoError(b, groups[1].Barrier(ctx))
			leader = groups[groups[1].Status().Leader]
			b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := leader.Barrier(ctx); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
