package system

import (
	"context"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/paxos"
)

// paxosEngine is package paxos.
type paxosEngine struct {
	quorums    paxos.Quorums
	priorities []uint8 // by node
}

var _ engine = (*paxosEngine)(nil)

// paxosNode makes a node of package paxos one of any engine's.
type paxosNode struct{ *paxos.Node }

var _ node = paxosNode{}

// start implements engine.
func (e *paxosEngine) start(ctx context.Context, s replica.Settings) (node, error) {
	n, err := paxos.Start(ctx, paxos.Config{Cluster: s.Cluster, Node: s.Node, Transport: s.Transport, Store: s.Store, Logger: s.Logger, Loops: s.Loops,
		HeartbeatInterval: s.HeartbeatInterval, ElectionTimeout: s.ElectionTimeout, MaxClockDrift: s.MaxClockDrift, MaxBatchBytes: s.MaxBatchBytes, CacheBytes: s.CacheBytes,
		Quorums: e.quorums})
	if err != nil {
		return nil, err
	}
	return paxosNode{n}, nil
}

// StartGroup implements node.
func (n paxosNode) StartGroup(ctx context.Context, cfg replica.GroupConfig) (group, error) {
	g, err := n.Node.StartGroup(ctx, paxos.GroupConfig(cfg))
	if err != nil {
		return nil, err
	}
	return g, nil
}

// rules implements engine.
func (e *paxosEngine) rules(v *invariants) rules {
	return newPaxosRules(v, multipaxos.Quorums(e.quorums))
}
