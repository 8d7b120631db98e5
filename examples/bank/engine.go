package main

import (
	"context"
	"fmt"
	"iter"
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
// shape: each takes a line here, and some at the end of this file. A program that needs no choice uses one of
// them directly, and changes an import to use the other.
var engines = map[string]func(ctx context.Context, node uint64, t transport.Transport, s storage.Store, log *slog.Logger) (host, error){
	"paxos": startPaxos,
	"raft":  startRaft,
}

// engineNames are for a message.
func engineNames() string { return strings.Join(slices.Sorted(maps.Keys(engines)), " or ") }

// errBootstrapped is the same error of all engines.
var errBootstrapped = raft.ErrBootstrapped

// host is what this program needs of an engine's node.
type host interface {
	Bootstrap(ctx context.Context, group uint64, members []uint64) error
	Events(ctx context.Context) iter.Seq[synod.Event]
	Close() error
	startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error)
}

// replica is what it needs of a group.
type replica interface {
	synod.Log
	Status() synod.GroupStatus
}

// checkEngine says which engines there are.
func checkEngine(name string) error {
	if engines[name] == nil {
		return fmt.Errorf("-engine: there is no %q in this release: use %s", name, engineNames())
	}
	return nil
}

type raftHost struct{ *raft.Node }

func startRaft(ctx context.Context, node uint64, t transport.Transport, s storage.Store, log *slog.Logger) (host, error) {
	n, err := raft.Start(ctx, raft.Config{Cluster: "bank", Node: node, Transport: t, Store: s, Logger: log})
	if err != nil {
		return nil, err
	}
	return raftHost{n}, nil
}

func (m raftHost) startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
	g, err := m.StartGroup(ctx, raft.GroupConfig{ID: group, StateMachine: machine})
	if err != nil {
		return nil, err
	}
	return g, nil
}

type paxosHost struct{ *paxos.Node }

func startPaxos(ctx context.Context, node uint64, t transport.Transport, s storage.Store, log *slog.Logger) (host, error) {
	n, err := paxos.Start(ctx, paxos.Config{Cluster: "bank", Node: node, Transport: t, Store: s, Logger: log})
	if err != nil {
		return nil, err
	}
	return paxosHost{n}, nil
}

func (m paxosHost) startGroup(ctx context.Context, group uint64, machine synod.StateMachine) (replica, error) {
	g, err := m.StartGroup(ctx, paxos.GroupConfig{ID: group, StateMachine: machine})
	if err != nil {
		return nil, err
	}
	return g, nil
}
