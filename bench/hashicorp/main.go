// Command hashicorp measures hashicorp/raft on raft-wal over its TCP transport,
// with default settings, or tuned.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/synod-go/synod/bench/work"
)

func main() {
	work.Main([]string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-wal"}, func(system string) string {
		if system == "hashicorp-tuned" {
			return "MaxAppendEntries 1024, LogCache 65536, BatchApplyCh and a BatchingFSM; reads: VerifyLeader, then the leader's map, which is weaker than linearizable"
		}
		return "default settings; reads: VerifyLeader, then the leader's map, which is weaker than linearizable"
	}, open)
}

type machine struct{ state *work.State }

func (m *machine) Apply(l *raft.Log) any {
	m.state.Apply(l.Data)
	return nil
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("not needed here") }
func (m *machine) Restore(io.ReadCloser) error         { return nil }

type batchingMachine struct{ machine }

func (m *batchingMachine) ApplyBatch(logs []*raft.Log) []any {
	m.state.ApplyAll(func(yield func([]byte) bool) {
		for _, l := range logs {
			if l.Type == raft.LogCommand && !yield(l.Data) {
				return
			}
		}
	})
	return make([]any, len(logs))
}

type cluster struct {
	nodes  []*raft.Raft
	leader *raft.Raft
	state  *work.State
}

func open(ctx context.Context, job work.Job) (work.System, error) {
	tuned := job.System == "hashicorp-tuned"
	c := &cluster{}
	var servers []raft.Server
	var states []*work.State
	for i := range 3 {
		dir := filepath.Join(job.Dir, fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		store, err := wal.Open(dir)
		if err != nil {
			return nil, err
		}
		transport, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			return nil, err
		}
		config := raft.DefaultConfig()
		config.LocalID = raft.ServerID(fmt.Sprint(i))
		config.Logger = hclog.NewNullLogger()
		config.SnapshotThreshold = 1 << 40 // the work is measured, not snapshots
		state := work.NewState()
		var logs raft.LogStore = store
		var fsm raft.FSM = &machine{state}
		if tuned {
			config.MaxAppendEntries = 1024
			config.BatchApplyCh = true
			if logs, err = raft.NewLogCache(1<<16, store); err != nil {
				return nil, err
			}
			fsm = &batchingMachine{machine{state}}
		}
		node, err := raft.NewRaft(config, fsm, logs, store, raft.NewDiscardSnapshotStore(), transport)
		if err != nil {
			return nil, err
		}
		c.nodes, states = append(c.nodes, node), append(states, state)
		servers = append(servers, raft.Server{ID: config.LocalID, Address: transport.LocalAddr()})
	}
	if err := c.nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, err
	}
	for ; ; time.Sleep(10 * time.Millisecond) {
		for i, n := range c.nodes {
			if n.State() == raft.Leader {
				c.leader, c.state = n, states[i]
				return c, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (c *cluster) Write(_ context.Context, command []byte) error {
	// Apply keeps the command. A limit on its wait would cost a timer for each write.
	return c.leader.Apply(append([]byte(nil), command...), 0).Error()
}

func (c *cluster) Read(_ context.Context, key uint64) (int, error) {
	if err := c.leader.VerifyLeader().Error(); err != nil {
		return 0, err
	}
	return c.state.Get(key), nil
}

func (c *cluster) Close() {}
