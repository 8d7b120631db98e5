package system

import (
	"context"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
)

// paxosEngine is package paxos.
type paxosEngine struct{ quorums multipaxos.Quorums }

var _ engine = (*paxosEngine)(nil)

type paxosNode struct{ *replica.Node }

func (n paxosNode) Bootstrap(ctx context.Context, group uint64, members []uint64) error {
	var list []synod.Member
	for _, m := range members {
		list = append(list, synod.Member{Node: m})
	}
	return n.Node.Bootstrap(ctx, group, list)
}

// start implements engine.
func (e *paxosEngine) start(ctx context.Context, s replica.Settings) (node, error) {
	n, err := replica.Start(ctx, replica.Config{Protocol: multipaxos.Protocol{Quorums: e.quorums}, Package: "paxos", Settings: s})
	if err != nil {
		return nil, err
	}
	return paxosNode{n}, nil
}

// StartGroup implements node.
func (n paxosNode) StartGroup(ctx context.Context, cfg replica.GroupConfig) (group, error) {
	g, err := n.Node.StartGroup(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// rules implements engine.
func (e *paxosEngine) rules(v *invariants) rules { return newPaxosRules(v, e.quorums) }
