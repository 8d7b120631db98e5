// Command dragonboat measures dragonboat v4 with its Pebble log, or with tan.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/synod-go/synod/bench/work"
)

func main() {
	work.Main([]string{"github.com/lni/dragonboat/v4"}, func(system string) string {
		log := "Pebble log"
		if system == "dragonboat-tan" {
			log = "tan log"
		}
		return log + ", RTTMillisecond 5, ElectionRTT 20, HeartbeatRTT 2, concurrent state machine, no snapshots; SyncPropose without session, SyncRead"
	}, open)
}

type machine struct{ state *work.State }

func (m *machine) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	m.state.ApplyAll(func(yield func([]byte) bool) {
		for i := range entries {
			if !yield(entries[i].Cmd) {
				return
			}
		}
	})
	for i := range entries {
		entries[i].Result = statemachine.Result{Value: 1}
	}
	return entries, nil
}

func (m *machine) Lookup(key any) (any, error)   { return m.state.Get(key.(uint64)), nil }
func (m *machine) PrepareSnapshot() (any, error) { return nil, errors.New("not needed here") }
func (m *machine) SaveSnapshot(any, io.Writer, statemachine.ISnapshotFileCollection, <-chan struct{}) error {
	return errors.New("not needed here")
}
func (m *machine) RecoverFromSnapshot(io.Reader, []statemachine.SnapshotFile, <-chan struct{}) error {
	return errors.New("not needed here")
}
func (m *machine) Close() error { return nil }

type cluster struct{ leader *dragonboat.NodeHost }

const shard = 1

func open(ctx context.Context, job work.Job) (work.System, error) {
	for _, name := range []string{"raft", "rsm", "transport", "grpc", "dragonboat", "logdb", "raftpb", "config", "tan", "settings", "registry", "pebblekv"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	members := make(map[uint64]string)
	for i := uint64(1); i <= 3; i++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		members[i] = l.Addr().String()
		_ = l.Close()
	}
	var hosts []*dragonboat.NodeHost
	for i := uint64(1); i <= 3; i++ {
		dir := filepath.Join(job.Dir, fmt.Sprint(i))
		c := config.NodeHostConfig{WALDir: dir, NodeHostDir: dir, RTTMillisecond: 5, RaftAddress: members[i]}
		if job.System == "dragonboat-tan" {
			c.Expert.LogDBFactory = tan.Factory
		}
		host, err := dragonboat.NewNodeHost(c)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, host)
		err = host.StartConcurrentReplica(members, false, func(uint64, uint64) statemachine.IConcurrentStateMachine {
			return &machine{work.NewState()}
		}, config.Config{ReplicaID: i, ShardID: shard, ElectionRTT: 20, HeartbeatRTT: 2, CheckQuorum: true, PreVote: true})
		if err != nil {
			return nil, err
		}
	}
	for ; ; time.Sleep(10 * time.Millisecond) {
		leader, _, known, err := hosts[0].GetLeaderID(shard)
		if err == nil && known {
			return &cluster{hosts[leader-1]}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (c *cluster) Write(ctx context.Context, command []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := c.leader.SyncPropose(ctx, c.leader.GetNoOPSession(shard), command)
	return err
}

func (c *cluster) Read(ctx context.Context, key uint64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	length, err := c.leader.SyncRead(ctx, shard, key)
	if err != nil {
		return 0, err
	}
	return length.(int), nil
}

func (c *cluster) Close() {}
