package system

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/paxos"
)

// paxosEngine is package paxos.
type paxosEngine struct {
	quorums    quorums
	priorities map[uint64]uint8 // of nodes
	applyBytes int
}

var _ engine = (*paxosEngine)(nil)

// paxosNode makes a node of package paxos one of any engine's.
type paxosNode struct{ *paxos.Node }

var _ node = paxosNode{}

// draw implements engine: some clusters have other quorums than majorities, or priorities.
func (e *paxosEngine) draw(s *run) {
	r, n := s.w.Rand(), int(s.options.founders)
	switch r.IntN(6) {
	case 0: // one size, in whatever configuration
		if size := 1 + r.IntN(n); r.IntN(3) == 0 {
			e.quorums.Phase1 = size
		} else {
			e.quorums.Phase2 = size
		}
	case 1:
		if s.options.operator {
			break // sizes and sets are those of all configurations
		}
		if r.IntN(2) == 0 {
			e.quorums.Phase2 = 1 + r.IntN(n)
			e.quorums.Phase1 = n + 1 - e.quorums.Phase2 + r.IntN(e.quorums.Phase2)
		} else {
			e.quorums.Quorums = sets(r, n)
		}
	}
	if r.IntN(4) == 0 {
		e.priorities = make(map[uint64]uint8)
		for id := uint64(1); id <= s.options.nodes; id++ {
			e.priorities[id] = uint8(r.IntN(3))
		}
	}
	if r.IntN(2) == 0 {
		e.applyBytes = 64 << r.IntN(8)
	}
	s.w.Logf("quorums: %+v, priorities: %v, apply bytes: %d", e.quorums, e.priorities, e.applyBytes)
}

// sets draws some sets of nodes that decide, and names all that have a node in common with each.
func sets(r *rand.Rand, n int) (q multipaxos.Quorums) {
	nodes := func(mask int) (list []uint64) {
		for i := range n {
			if mask&(1<<i) != 0 {
				list = append(list, uint64(i+1))
			}
		}
		return list
	}
	var deciding, electing []int
	for range 1 + r.IntN(4) {
		deciding = append(deciding, 1+r.IntN(1<<n-1))
	}
	for mask := 1; mask < 1<<n; mask++ {
		meets := !slices.ContainsFunc(deciding, func(d int) bool { return d&mask == 0 })
		if meets && !slices.ContainsFunc(electing, func(e int) bool { return e&mask == e }) {
			electing = append(electing, mask)
		}
	}
	for _, mask := range deciding {
		q.Sets2 = append(q.Sets2, nodes(mask))
	}
	for _, mask := range electing {
		q.Sets1 = append(q.Sets1, nodes(mask))
	}
	return q
}

// damaged implements engine: as many as the founders can do without, whichever they are.
func (e *paxosEngine) damaged(s *run) int {
	if !e.quorums.flexible() {
		return 0
	}
	n, limit := int(s.options.founders), int(s.options.founders)
	var voters []uint64
	for id := uint64(1); id <= s.options.founders; id++ {
		voters = append(voters, id)
	}
	for mask := range 1 << n {
		if lost := bits.OnesCount(uint(mask)); lost < limit && !e.decides(voters, func(node uint64) bool { return mask&(1<<(node-1)) == 0 }) {
			limit = lost
		}
	}
	if limit--; limit == 0 {
		return -1 // none
	}
	return limit
}

// fits implements engine.
func (e *paxosEngine) fits(voters []uint64) bool { return e.quorums.fit(len(voters)) }

// decides implements engine.
func (e *paxosEngine) decides(voters []uint64, which func(uint64) bool) bool {
	some := setOf(slices.DeleteFunc(slices.Clone(voters), func(node uint64) bool { return !which(node) }))
	return e.quorums.has(1, setOf(voters), some) && e.quorums.has(2, setOf(voters), some)
}

// more implements engine.
func (e *paxosEngine) more() bool { return true }

// start implements engine.
func (e *paxosEngine) start(ctx context.Context, s replica.Settings) (node, error) {
	n, err := paxos.Start(ctx, paxos.Config{Cluster: s.Cluster, Node: s.Node, Transport: s.Transport, Store: s.Store, Logger: s.Logger, Loops: s.Loops,
		HeartbeatInterval: s.HeartbeatInterval, ElectionTimeout: s.ElectionTimeout, MaxClockDrift: s.MaxClockDrift, MaxBatchBytes: s.MaxBatchBytes, CacheBytes: s.CacheBytes,
		MaxApplyBytes: e.applyBytes, Quorums: paxos.Quorums(e.quorums.Quorums), Priority: e.priorities[s.Node]})
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
	return newPaxosRules(v, e.quorums)
}
