// Command synod measures this library: raft, or paxos, over transport/tcp and
// storage/pebble, all with default settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/bench/work"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/tcp"
)

func main() {
	work.Main([]string{"github.com/synod-go/synod"}, func(system string) string {
		engine := "raft"
		if system == paxosSystem {
			engine = "paxos"
		}
		return engine + ", transport/tcp (plaintext), storage/pebble; default settings; reads: Barrier, then the leader's map"
	}, open)
}

// paxosSystem is the variant that runs on package paxos.
const paxosSystem = "synod-paxos"

// group is what both engines' groups are.
type group interface {
	synod.Log
	Status() synod.GroupStatus
}

type machine struct{ state *work.State }

func (m machine) Apply(_ uint64, command []byte) []byte {
	m.state.Apply(command)
	return nil
}

func (m machine) ApplyBatch(entries []synod.Entry) {
	m.state.ApplyAll(func(yield func([]byte) bool) {
		for i := range entries {
			if !yield(entries[i].Command) {
				return
			}
		}
	})
}

// Snapshot writes nothing. The peers take no snapshots at all here; this one cuts its
// log by default, and goes on doing so, but is not to pay alone for copying the map.
func (m machine) Snapshot() (io.WriterTo, error) { return empty{}, nil }
func (m machine) Restore(io.Reader) error        { return nil }

type empty struct{}

func (empty) WriteTo(io.Writer) (int64, error) { return 0, nil }

type cluster struct {
	groups  []group
	leader  group
	state   *work.State
	closers []io.Closer
}

func open(ctx context.Context, job work.Job) (work.System, error) {
	c := &cluster{}
	var transports []*tcp.Transport
	for id := uint64(1); id <= 3; id++ {
		t, err := tcp.Listen(tcp.Config{Cluster: "bench", Node: id, Address: "127.0.0.1:0", Insecure: true})
		if err != nil {
			return nil, err
		}
		transports = append(transports, t)
		c.closers = append(c.closers, t)
	}
	var states []*work.State
	for i, t := range transports {
		for j, peer := range transports {
			if i != j {
				if err := t.SetPeer(uint64(j+1), peer.Addr().String()); err != nil {
					return nil, err
				}
			}
		}
		store, err := pebble.Open(pebble.Config{Dir: filepath.Join(job.Dir, fmt.Sprint(i+1))})
		if err != nil {
			return nil, err
		}
		c.closers = append(c.closers, store)
		state := work.NewState()
		start := startRaft
		if job.System == paxosSystem {
			start = startPaxos
		}
		node, group, err := start(ctx, uint64(i+1), t, store, machine{state})
		if err != nil {
			return nil, err
		}
		c.closers = append(c.closers, node)
		c.groups, states = append(c.groups, group), append(states, state)
	}
	leader, err := c.elected(ctx)
	if err != nil {
		return nil, err
	}
	c.leader, c.state = c.groups[leader], states[leader]
	return c, nil
}

// elected waits until one of the groups leads, and has said so in a decision.
func (c *cluster) elected(ctx context.Context) (int, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for i, g := range c.groups {
			var elsewhere *synod.NotLeaderError
			switch _, err := g.Propose(ctx, make([]byte, 8)); {
			case err == nil:
				return i, nil
			case !errors.As(err, &elsewhere):
				return 0, err
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

func startRaft(ctx context.Context, id uint64, t *tcp.Transport, store *pebble.Store, m machine) (io.Closer, group, error) {
	node, err := raft.Start(ctx, raft.Config{Cluster: "bench", Node: id, Transport: t, Store: store})
	if err != nil {
		return nil, nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	g, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: m})
	if err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	return node, g, nil
}

func startPaxos(ctx context.Context, id uint64, t *tcp.Transport, store *pebble.Store, m machine) (io.Closer, group, error) {
	node, err := paxos.Start(ctx, paxos.Config{Cluster: "bench", Node: id, Transport: t, Store: store})
	if err != nil {
		return nil, nil, err
	}
	if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	g, err := node.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: m})
	if err != nil {
		return nil, nil, errors.Join(err, node.Close())
	}
	return node, g, nil
}

func (c *cluster) Write(ctx context.Context, command []byte) error {
	_, err := c.leader.Propose(ctx, command)
	return err
}

func (c *cluster) Read(ctx context.Context, key uint64) (int, error) {
	if err := c.leader.Barrier(ctx); err != nil {
		return 0, err
	}
	return c.state.Get(key), nil
}

func (c *cluster) Close() {
	for i := len(c.closers) - 1; i >= 0; i-- {
		_ = c.closers[i].Close()
	}
}
