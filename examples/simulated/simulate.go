package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
)

// cluster is three nodes that sell tickets, and what their customers know.
type cluster struct {
	w       *sim.World
	machine func() synod.StateMachine
	groups  map[uint64]*raft.Group
	states  map[uint64]string // after each command, on the node that was first
	sold    map[int]string    // tickets that somebody certainly holds
	sales   int
}

// watched is a node's machine, whose state is compared with that of the others.
type watched struct {
	synod.StateMachine
	node    uint64
	cluster *cluster
}

// Apply executes a command. After it, all nodes have the same state.
func (m watched) Apply(index uint64, command []byte) []byte {
	result := m.StateMachine.Apply(index, command)
	state := fmt.Sprint(m.StateMachine)
	if first, known := m.cluster.states[index]; known && first != state {
		m.cluster.w.Failf("replicas agree", "after command %d, %q, node %d has %.80s…, another one %.80s…", index, command, m.node, state, first)
	}
	m.cluster.states[index] = state
	return result
}

// simulate is one run, the same for the same seed: customers buy tickets and give some
// back, through everything that may happen to three machines. All replicas must agree, and no
// two customers hold the same ticket.
func simulate(w *sim.World, machine func() synod.StateMachine) {
	c := &cluster{w: w, machine: machine, groups: make(map[uint64]*raft.Group), states: make(map[uint64]string), sold: make(map[int]string)}
	for id := uint64(1); id <= 3; id++ {
		w.AddNode(id, c.start)
	}
	for i := range 3 {
		w.Go(func(ctx context.Context) { c.customer(ctx, fmt.Sprintf("customer-%d", i)) })
	}
	// A quarter of a minute of crashes, partitions, slow disks, … A disk that is lost for good
	// would leave too few nodes in some runs: that is for the operator, not for this test.
	w.Trouble(w.Context(), 15*time.Second, sim.Atlas{Damaged: -1})

	// Everything is whole again: tickets are sold.
	before, healed := c.sales, w.Now()
	for c.sales < before+10 {
		_ = sim.Sleep(w.Context(), 100*time.Millisecond)
		if w.Now() > healed+20*time.Second {
			w.Failf("progress", "no ten tickets are sold within %v after everything healed", w.Now()-healed)
			return
		}
	}
}

// start is what each node runs, now and after every crash: the shipping code.
func (c *cluster) start(ctx context.Context, env *sim.Env) (stop func(), err error) {
	node, err := raft.Start(ctx, raft.Config{Cluster: "tickets", Node: env.ID, Transport: env.Transport, Store: env.Store, Logger: env.Logger})
	if err != nil {
		return nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil && !errors.Is(err, raft.ErrBootstrapped) {
		return nil, err
	}
	// Snapshots come often, so that restarts begin from one.
	machine := watched{c.machine(), env.ID, c}
	c.groups[env.ID], err = node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine, SnapshotEntries: 20})
	return func() { _ = node.Close() }, err
}

// customer buys tickets, and gives every other one back.
func (c *cluster) customer(ctx context.Context, name string) {
	at := uint64(1)
	for n := 1; ; n++ {
		_ = sim.Sleep(ctx, 50*time.Millisecond)
		result, err := c.propose(ctx, &at, "sell "+name)
		if err != nil {
			continue // not sold, or nobody knows to whom
		}
		ticket, err := strconv.Atoi(result)
		if err != nil {
			c.w.Failf("tickets have numbers", "%q", result)
			return
		}
		if owner, taken := c.sold[ticket]; taken {
			c.w.Failf("no ticket is sold twice", "ticket %d is sold to %s and held by %s", ticket, name, owner)
			return
		}
		c.sold[ticket] = name
		c.sales++
		if n%2 == 0 {
			delete(c.sold, ticket) // from now on somebody else may get it
			result, err := c.propose(ctx, &at, fmt.Sprintf("return %d", ticket))
			sim.Sometimes("nobody knows whether a ticket was given back", errors.Is(err, synod.ErrUnknownOutcome))
			if err == nil && result != "thanks" {
				c.w.Failf("owners can give back", "ticket %d of %s: %s", ticket, name, result)
				return
			}
		}
	}
}

// propose asks one node, and turns to another one if that does not lead.
func (c *cluster) propose(ctx context.Context, at *uint64, command string) (string, error) {
	group := c.groups[*at]
	if group == nil {
		*at = *at%3 + 1
		return "", synod.ErrClosed
	}
	short, cancel := sim.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	result, err := group.Propose(short, []byte(command))
	var elsewhere *synod.NotLeaderError
	switch {
	case errors.As(err, &elsewhere) && elsewhere.Leader != 0:
		*at = elsewhere.Leader
	case err != nil:
		*at = *at%3 + 1
	}
	return string(result), err
}
