// Command dragonboat measures dragonboat v4 with its Pebble log, or with tan.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
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
		return log + ", RTTMillisecond 5, ElectionRTT 100, HeartbeatRTT 10, CheckQuorum, PreVote, concurrent state machine, no snapshots; SyncPropose without session, SyncRead"
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

type cluster struct {
	leader *dragonboat.NodeHost

	// Sessions may be shared, but proposals are spread over locks by their session.
	sessions [64]*client.Session
}

const shard = 1

func open(ctx context.Context, job work.Job) (work.System, error) {
	for _, name := range []string{"raft", "rsm", "transport", "grpc", "dragonboat", "logdb", "raftpb", "config", "tan", "settings", "registry", "pebblekv"} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
	free, err := work.FreeAddresses(3)
	if err != nil {
		return nil, err
	}
	members := make(map[uint64]string)
	for i := uint64(1); i <= 3; i++ {
		members[i] = free[i-1]
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
		}, config.Config{ReplicaID: i, ShardID: shard, ElectionRTT: 100, HeartbeatRTT: 10, CheckQuorum: true, PreVote: true})
		if err != nil {
			return nil, err
		}
	}
	for ; ; time.Sleep(10 * time.Millisecond) {
		if leader := agreed(hosts); leader != 0 {
			c := &cluster{leader: hosts[leader-1]}
			for i := range c.sessions {
				c.sessions[i] = c.leader.GetNoOPSession(shard)
			}
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// agreed returns the leader that all replicas know of in the same term, or 0.
func agreed(hosts []*dragonboat.NodeHost) uint64 {
	var leader, term uint64
	for i, host := range hosts {
		l, t, known, err := host.GetLeaderID(shard)
		if err != nil || !known || i > 0 && (l != leader || t != term) {
			return 0
		}
		leader, term = l, t
	}
	return leader
}

// limited has the deadline that dragonboat asks each call for, and keeps itself,
// without a timer for each.
type limited struct{ context.Context }

func (limited) Deadline() (time.Time, bool) { return time.Now().Add(10 * time.Second), true }

func (c *cluster) Write(ctx context.Context, command []byte) error {
	session := c.sessions[binary.LittleEndian.Uint64(command)%uint64(len(c.sessions))]
	_, err := c.leader.SyncPropose(limited{ctx}, session, command)
	return err
}

func (c *cluster) Read(ctx context.Context, key uint64) (int, error) {
	length, err := c.leader.SyncRead(limited{ctx}, shard, key)
	if err != nil {
		return 0, err
	}
	return length.(int), nil
}

func (c *cluster) Close() {}
