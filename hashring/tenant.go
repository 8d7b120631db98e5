package hashring

import (
	"fmt"
	"math"
)

// Subset returns the size nodes that serve a tenant, spread over zones as replicas
// are. Each tenant draws its own, by weighted rendezvous hashing whatever the ring's
// algorithm, so that a tenant that brings its nodes down takes few others along: see
// [OverlapProbability]. One change of the ring replaces at most one of them. Errors:
// [InfeasibleError].
func (r *Ring[N]) Subset(tenant string, size int) ([]N, error) {
	chosen, err := r.subset(tenant, size)
	if err != nil {
		return nil, err
	}
	ids := make([]N, len(chosen))
	for i, m := range chosen {
		ids[i] = r.ids[m]
	}
	return ids, nil
}

func (r *Ring[N]) subset(tenant string, size int) ([]uint32, error) {
	z := *r.zones
	if z.top != nil {
		// A subset may have any number of nodes in a zone: it is no set of replicas.
		z = *makeZones(r.list, len(r.list))
	}
	if size < 1 || size > z.active {
		return nil, &InfeasibleError{Replicas: size, Nodes: z.active, Feasible: z.active}
	}
	all := &Ring[N]{ids: r.ids, list: r.list, zones: &z}
	return all.spread(makeRendezvous(r.list), mix(HashString(tenant), k3), size), nil
}

// Tenant returns a ring of a tenant's subset, of the same configuration and version,
// for keys of that tenant. It is made anew at each call: keep it as long as the ring.
// Errors: as [Ring.Subset].
func (r *Ring[N]) Tenant(tenant string, size int) (*Ring[N], error) {
	chosen, err := r.subset(tenant, size)
	if err != nil {
		return nil, err
	}
	nodes := make([]Node[N], len(chosen))
	for i, m := range chosen {
		nodes[i] = r.node(int(m))
	}
	ring, err := New(r.config, nodes...)
	if err != nil {
		return nil, fmt.Errorf("hashring: tenant %q: %w", tenant, err)
	}
	ring.version = r.version
	return ring, nil
}

// OverlapProbability returns the probability that the subsets of two tenants, of size
// out of so many nodes of equal weight without zones, have shared or more nodes in
// common: the tail of the hypergeometric distribution. With shared equal to size, it
// is the probability that one tenant can take all nodes of another along. Arguments
// that make no sense, a subset of more than all nodes above all, give NaN.
func OverlapProbability(nodes, size, shared int) float64 {
	if size < 0 || size > nodes || nodes < 1 {
		return math.NaN()
	}
	if shared <= 0 {
		return 1
	}
	sum := 0.0
	for i := shared; i <= size; i++ {
		sum += math.Exp(choose(size, i) + choose(nodes-size, size-i) - choose(nodes, size))
	}
	return min(sum, 1)
}

// choose returns the logarithm of the number of ways to choose k of n: of zero, if k
// is more.
func choose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}
