package main

import (
	"context"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/sim"
)

// engine starts nodes of raft or paxos.
type engine struct {
	name  string
	start func(ctx context.Context, env *sim.Env, quorum int) (node, error)
}

// quorums returns the sizes of phase 2's quorum that are tried; 0: a majority.
func (e engine) quorums() []int {
	if e.name == "paxos" {
		return []int{0, 2}
	}
	return []int{0}
}

// node is what both engines' nodes have.
type node interface {
	Bootstrap(ctx context.Context, group uint64, members []uint64) error
	Join(ctx context.Context, group uint64) error
	Close() error
	open(ctx context.Context, sm synod.StateMachine) (group, error)
}

// group is what both engines' groups have.
type group interface {
	synod.Log
	SetMembers(ctx context.Context, members []synod.Member) error
	TransferLeader(ctx context.Context, to uint64) error
	Status() synod.GroupStatus
}

func engines() []engine { return []engine{{"raft", startRaft}, {"paxos", startPaxos}} }

// The log is cut early, so that a member that was away may need a snapshot.
const retain = 2000

type raftNode struct{ *raft.Node }

func startRaft(ctx context.Context, env *sim.Env, _ int) (node, error) {
	n, err := raft.Start(ctx, raft.Config{Cluster: "experiment", Node: env.ID, Transport: env.Transport, Store: env.Store, Logger: env.Logger, Loops: 1,
		HeartbeatInterval: heartbeat, ElectionTimeout: election})
	return raftNode{n}, err
}

func (n raftNode) open(ctx context.Context, sm synod.StateMachine) (group, error) {
	return n.StartGroup(ctx, raft.GroupConfig{ID: 1, StateMachine: sm, SnapshotEntries: retain, RetainEntries: retain})
}

type paxosNode struct{ *paxos.Node }

func startPaxos(ctx context.Context, env *sim.Env, quorum int) (node, error) {
	c := paxos.Config{Cluster: "experiment", Node: env.ID, Transport: env.Transport, Store: env.Store, Logger: env.Logger, Loops: 1,
		HeartbeatInterval: heartbeat, ElectionTimeout: election}
	if quorum != 0 {
		c.Quorums = paxos.Quorums{Phase1: 6 - quorum, Phase2: quorum} // of five
	}
	n, err := paxos.Start(ctx, c)
	return paxosNode{n}, err
}

func (n paxosNode) open(ctx context.Context, sm synod.StateMachine) (group, error) {
	return n.StartGroup(ctx, paxos.GroupConfig{ID: 1, StateMachine: sm, SnapshotEntries: retain, RetainEntries: retain})
}
