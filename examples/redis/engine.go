package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/paxos"
	"github.com/synod-go/synod/raft"
	"github.com/synod-go/synod/storage"
	"github.com/synod-go/synod/transport"
)

// engines are those that -engine chooses from: one for all nodes of a cluster, and for good. They are of one
// shape, so that each takes a line here, and some at the end of this file, which differ in the package's name.
var engines = map[string]func(ctx context.Context, c engineConfig) (member, error){
	"paxos": startPaxos,
	"raft":  startRaft,
}

// engineNames are for a message.
func engineNames() string { return strings.Join(slices.Sorted(maps.Keys(engines)), " or ") }

// engineConfig is what an engine is told.
type engineConfig struct {
	node       uint64
	transport  transport.Transport
	store      storage.Store
	setAddress func(node uint64, address string)
	log        *slog.Logger
}

// member is what this program needs of an engine's node, and replica of its group.
type member interface {
	Join(ctx context.Context, group uint64) error
	BootstrapMembers(ctx context.Context, group uint64, members []synod.Member) error
	Status() synod.NodeStatus
	Close() error
	startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error)
}

type replica interface {
	synod.SessionLog
	SetMembers(ctx context.Context, members []synod.Member) error
	TransferLeader(ctx context.Context, to uint64) error
	Status() synod.GroupStatus
	Err() error
}

// What all engines have in common: it is the same in each.
var (
	newSession      = raft.NewSession
	errBootstrapped = raft.ErrBootstrapped
	errIncarnation  = raft.ErrIncarnation
)

type session = raft.Session

// checkEngine says which engines there are.
func checkEngine(name string) error {
	if engines[name] == nil {
		return fmt.Errorf("-engine: there is no %q in this release: use %s", name, engineNames())
	}
	return nil
}

type raftMember struct{ *raft.Node }

func startRaft(ctx context.Context, c engineConfig) (member, error) {
	n, err := raft.Start(ctx, raft.Config{Cluster: "redis", Node: c.node, Transport: c.transport, Store: c.store, Logger: c.log, SetAddress: c.setAddress})
	if err != nil {
		return nil, err
	}
	return raftMember{n}, nil
}

func (m raftMember) startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
	g, err := m.StartGroup(ctx, raft.GroupConfig{ID: group, StateMachine: machine})
	if err != nil {
		return nil, err
	}
	return g, nil
}

type paxosMember struct{ *paxos.Node }

func startPaxos(ctx context.Context, c engineConfig) (member, error) {
	n, err := paxos.Start(ctx, paxos.Config{Cluster: "redis", Node: c.node, Transport: c.transport, Store: c.store, Logger: c.log, SetAddress: c.setAddress})
	if err != nil {
		return nil, err
	}
	return paxosMember{n}, nil
}

func (m paxosMember) startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
	g, err := m.StartGroup(ctx, paxos.GroupConfig{ID: group, StateMachine: machine})
	if err != nil {
		return nil, err
	}
	return g, nil
}
