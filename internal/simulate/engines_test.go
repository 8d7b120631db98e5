package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
)

// A node that is given the wrong engine: all but the engine is as it should be.

// tally counts commands.
type tally uint64

func (t *tally) Apply(uint64, []byte) []byte { *t++; return nil }

func (t *tally) Snapshot() (io.WriterTo, error) { return counted(*t), nil }

func (t *tally) Restore(r io.Reader) error { return binary.Read(r, binary.LittleEndian, t) }

type counted uint64

func (c counted) WriteTo(w io.Writer) (int64, error) {
	return 8, binary.Write(w, binary.LittleEndian, uint64(c))
}

type engineNode interface {
	Bootstrap(ctx context.Context, group uint64, members []uint64) error
	Join(ctx context.Context, group uint64) error
	Leave(ctx context.Context, group uint64) error
	Events(ctx context.Context) iter.Seq[synod.Event]
	Close() error
}

type engineGroup interface {
	synod.Log
	Status() synod.GroupStatus
}

// engineChoice starts a node, and a group, of an engine.
type engineChoice struct {
	name  string
	start func(ctx context.Context, env *sim.Env) (engineNode, error)
	group func(ctx context.Context, n engineNode, t *tally) (engineGroup, error)
}

var choices = []engineChoice{
	{"raft", func(ctx context.Context, env *sim.Env) (engineNode, error) {
		return raft.Start(ctx, raft.Config{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store})
	}, func(ctx context.Context, n engineNode, t *tally) (engineGroup, error) {
		return n.(*raft.Node).StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: t})
	}},
	{"paxos", func(ctx context.Context, env *sim.Env) (engineNode, error) {
		return paxos.Start(ctx, paxos.Config{Cluster: "sim", Node: env.ID, Transport: env.Transport, Store: env.Store})
	}, func(ctx context.Context, n engineNode, t *tally) (engineGroup, error) {
		return n.(*paxos.Node).StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: t})
	}},
}

// engineCluster is nodes, each of the engine that it is given.
type engineCluster struct {
	w      *sim.World
	chosen map[uint64]engineChoice
	nodes  map[uint64]engineNode
	groups map[uint64]engineGroup
	states map[uint64]*tally
	errs   map[uint64][]error         // of the last start: of Bootstrap, and of StartGroup
	stray  map[uint64]map[uint64]bool // of whom each node has refused messages as stray
	first  map[uint64][]uint64        // the members that each node bootstraps
}

func newEngineCluster(w *sim.World, first map[uint64][]uint64, chosen map[uint64]engineChoice) *engineCluster {
	c := &engineCluster{w: w, chosen: chosen, first: first, nodes: make(map[uint64]engineNode), groups: make(map[uint64]engineGroup),
		states: make(map[uint64]*tally), errs: make(map[uint64][]error), stray: make(map[uint64]map[uint64]bool)}
	for id := uint64(1); id <= uint64(len(chosen)); id++ {
		c.stray[id] = make(map[uint64]bool)
		w.AddNode(id, c.open)
	}
	return c
}

// open starts a node and its group. An error of either is noted, and the node goes on.
func (c *engineCluster) open(ctx context.Context, env *sim.Env) (func(), error) {
	id, choice := env.ID, c.chosen[env.ID]
	delete(c.groups, id)
	n, err := choice.start(ctx, env)
	if err != nil {
		return nil, err
	}
	c.nodes[id] = n
	c.w.Go(func(context.Context) {
		for e := range n.Events(ctx) {
			if e.Kind == synod.EventPeerRefused && (errors.Is(e.Err, raft.ErrStray)) {
				c.stray[id][e.Peer] = true
			}
		}
	})
	founded := n.Bootstrap(ctx, 1, c.first[id])
	state := new(tally)
	g, err := choice.group(ctx, n, state)
	c.errs[id] = []error{founded, err}
	if err == nil {
		c.groups[id], c.states[id] = g, state
	}
	return func() { _ = n.Close() }, nil
}

// write has a command decided by whichever node leads.
func (c *engineCluster) write(t *testing.T, ids ...uint64) {
	for until := c.w.Now() + time.Minute; c.w.Now() < until; _ = sim.Sleep(c.w.Context(), 100*time.Millisecond) {
		for _, id := range ids {
			if g := c.groups[id]; g != nil {
				if _, err := g.Propose(c.w.Context(), []byte("x")); err == nil {
					return
				}
			}
		}
	}
	require.Fail(t, "nothing is decided")
}

func bothWays(t *testing.T, test func(t *testing.T, w *sim.World, right, wrong engineChoice)) {
	for i, right := range choices {
		t.Run(right.name, func(t *testing.T) {
			sim.Run(t, 1, func(w *sim.World) { test(t, w, right, choices[1-i]) })
		})
	}
}

// A store that one engine has written is refused by the other, and is not changed by that.
func TestStoreOfAnotherEngine(t *testing.T) {
	bothWays(t, func(t *testing.T, w *sim.World, right, wrong engineChoice) {
		all := []uint64{1, 2, 3}
		c := newEngineCluster(w, map[uint64][]uint64{1: all, 2: all, 3: all}, map[uint64]engineChoice{1: right, 2: right, 3: right})
		for range 5 {
			c.write(t, all...)
		}
		c.chosen[3] = wrong
		w.Node(3).Crash()
		w.Node(3).Start()
		_ = sim.Sleep(w.Context(), time.Second)
		require.Len(t, c.errs[3], 2)
		for _, err := range append(c.errs[3], c.nodes[3].Join(w.Context(), 1), c.nodes[3].Leave(w.Context(), 1)) {
			require.ErrorIs(t, err, raft.ErrForeignStore)
			require.ErrorIs(t, err, paxos.ErrForeignStore)
			require.NotErrorIs(t, err, raft.ErrBootstrapped)
			require.ErrorContains(t, err, "the group is kept by "+right.name+", not by "+wrong.name)
		}
		c.write(t, 1, 2)
		c.chosen[3] = right
		w.Node(3).Crash()
		w.Node(3).Start()
		for until := w.Now() + time.Minute; w.Now() < until; _ = sim.Sleep(w.Context(), 100*time.Millisecond) {
			if g := c.groups[3]; g != nil && g.Barrier(w.Context()) == nil {
				require.GreaterOrEqual(t, *c.states[3], tally(6))
				return
			}
		}
		require.Fail(t, "its own engine does not serve it any more")
	})
}

// A node that founds a group with the wrong engine is not listened to, nor does it listen: the messages of one are
// never taken for those of the other. Its group does not begin without it.
func TestGroupOfTwoEngines(t *testing.T) {
	bothWays(t, func(t *testing.T, w *sim.World, right, wrong engineChoice) {
		all := []uint64{1, 2, 3}
		c := newEngineCluster(w, map[uint64][]uint64{1: all, 2: all, 3: all}, map[uint64]engineChoice{1: right, 2: right, 3: wrong})
		_ = sim.Sleep(w.Context(), 30*time.Second)
		for _, id := range all {
			require.Zero(t, c.groups[id].Status().Leader, "node %d", id)
		}
		require.True(t, c.stray[1][3] && c.stray[2][3], "%v", c.stray)
		require.True(t, c.stray[3][1] && c.stray[3][2], "%v", c.stray)
		require.False(t, c.stray[1][2] || c.stray[2][1], "%v", c.stray)
	})
}

// A stranger that takes itself for a member of a group that another engine keeps does it no harm.
func TestStrangerOfAnotherEngine(t *testing.T) {
	bothWays(t, func(t *testing.T, w *sim.World, right, wrong engineChoice) {
		all := []uint64{1, 2, 3}
		c := newEngineCluster(w, map[uint64][]uint64{1: all, 2: all, 3: all, 4: {1, 2, 4}}, map[uint64]engineChoice{1: right, 2: right, 3: right, 4: wrong})
		for range 20 {
			c.write(t, all...)
			_ = sim.Sleep(w.Context(), time.Second)
		}
		require.True(t, c.stray[1][4] && c.stray[2][4], "%v", c.stray)
		require.Zero(t, c.groups[4].Status().Leader)
		require.Zero(t, *c.states[4])
	})
}
