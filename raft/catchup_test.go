package raft_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
)

// tally counts commands.
type tally uint64

func (t *tally) Apply(index uint64, _ []byte) []byte {
	*t = tally(index)
	return nil
}

func (t *tally) Snapshot() (io.WriterTo, error) { return frozen(*t), nil }

func (t *tally) Restore(r io.Reader) error { return binary.Read(r, binary.LittleEndian, t) }

type frozen uint64

func (f frozen) WriteTo(w io.Writer) (int64, error) {
	return 8, binary.Write(w, binary.LittleEndian, uint64(f))
}

// The log is cut faster than a snapshot reaches a follower: if the entries that follow the
// snapshot were not kept for it, it would get one after the other, and never catch up.
func TestAFollowerCatchesUpWhileTheLogIsCutQuickly(t *testing.T) {
	sim.Run(t, 1, func(w *sim.World) {
		groups := make(map[uint64]*raft.Group)
		for id := uint64(1); id <= 3; id++ {
			w.AddNode(id, func(ctx context.Context, env *sim.Env) (func(), error) {
				node, err := raft.Start(ctx, raft.Config{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store})
				if err != nil {
					return nil, err
				}
				if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil && !errors.Is(err, raft.ErrBootstrapped) {
					return nil, err
				}
				groups[env.ID], err = node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: new(tally), SnapshotEntries: 100, RetainEntries: 1})
				return func() { _ = node.Close() }, err
			})
		}
		ctx := w.Context()
		leader := uint64(0)
		for leader == 0 {
			_ = sim.Sleep(ctx, 100*time.Millisecond)
			for id := uint64(1); id <= 3; id++ {
				if g := groups[id]; g != nil && g.Status().Leader == id {
					leader = id
				}
			}
		}
		behind := leader%3 + 1
		over := false
		join := w.Go(func(ctx context.Context) {
			for !over {
				_, _ = groups[leader].Propose(ctx, []byte("x"))
			}
		})
		node := w.Node(behind)
		node.Crash()
		_ = sim.Sleep(ctx, 5*time.Second)
		w.Link(leader, behind).Slow, w.Link(behind, leader).Slow = 150*time.Millisecond, 150*time.Millisecond
		node.Start()
		until := w.Now() + 30*time.Second
		for {
			_ = sim.Sleep(ctx, 100*time.Millisecond)
			state := ""
			for _, p := range groups[leader].Status().Peers {
				if p.Node == behind {
					state = p.State
				}
			}
			if g := groups[behind]; state == "replicate" && g != nil && g.Status().Commands > 0 {
				break
			}
			if w.Now() > until {
				w.Failf("progress", "node %d is still in state %q", behind, state)
				return
			}
		}
		over = true
		_ = join(ctx)
	})
}
