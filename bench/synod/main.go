// Command synod measures this library: raft over transport/tcp and storage/pebble,
// all with default settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/bench/work"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/tcp"
)

func main() {
	work.Main([]string{"github.com/synod-go/synod"}, func(string) string {
		return "raft, transport/tcp (plaintext), storage/pebble; default settings; reads: Barrier, then the leader's map"
	}, open)
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
	groups  []*raft.Group
	leader  *raft.Group
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
		node, err := raft.Start(ctx, raft.Config{Cluster: "bench", Node: uint64(i + 1), Transport: t, Store: store})
		if err != nil {
			return nil, err
		}
		c.closers = append(c.closers, store, node)
		if err := node.Bootstrap(ctx, 1, []uint64{1, 2, 3}); err != nil {
			return nil, err
		}
		state := work.NewState()
		group, err := node.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: machine{state}})
		if err != nil {
			return nil, err
		}
		c.groups, states = append(c.groups, group), append(states, state)
	}
	if err := c.groups[0].Barrier(ctx); err != nil {
		return nil, err
	}
	leader := c.groups[0].Status().Leader
	if leader == 0 {
		return nil, errors.New("no leader after a barrier")
	}
	c.leader, c.state = c.groups[leader-1], states[leader-1]
	return c, nil
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
