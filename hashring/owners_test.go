package hashring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stable are the algorithms with which a change replaces at most one member of a set
// of replicas.
func stable(a Algorithm) bool {
	switch a.(type) {
	case Maglev, Jump:
		return false
	}
	return true
}

// Random rings in nested zones, of unequal sizes, one change at a time: replicas are
// as far apart as can be, and one change replaces at most one.
func TestPropertyReplicas(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(uint64(a.code()), 7))
		for changes := 0; changes < *rings/4; {
			maxPerZone := 1 + rng.IntN(6)
			zone := func() string {
				switch rng.IntN(5) {
				case 0:
					return fmt.Sprintf("z%d", rng.IntN(2)) // beside inner domains
				case 1:
					return "z9/r0/s0"
				}
				return fmt.Sprintf("z%d/r%d", rng.IntN(4), rng.IntN(3))
			}
			if rng.IntN(4) == 0 {
				zone = func() string { return "" }
			}
			weight := func() float64 {
				if !weighty(a) {
					return 1
				}
				return []float64{1, 1, 2, 0.3}[rng.IntN(4)]
			}
			nodes := make([]Node[string], 2+rng.IntN(16))
			for i := range nodes {
				nodes[i] = Node[string]{ID: fmt.Sprintf("n%d", i), Weight: weight(), Zone: zone()}
			}
			r, err := New(Config{Algorithm: a, MaxPerZone: maxPerZone}, nodes...)
			require.NoError(t, err)
			for range 6 {
				keys := hashes(rng.Uint64(), 6)
				next := r
				members := r.Nodes()
				victim := members[rng.IntN(len(members))].ID
				switch rng.IntN(5) {
				case 0, 1:
					next, err = r.Add(Node[string]{ID: fmt.Sprintf("m%d", rng.Uint32()), Weight: weight(), Zone: zone()})
				case 2:
					next, err = r.Remove(victim)
				case 3:
					next, err = r.Drain(victim)
				case 4:
					if !weighty(a) {
						continue
					}
					next, err = r.Reweight(victim, weight())
				}
				if err != nil {
					require.ErrorIs(t, err, ErrNoNodes)
					continue
				}
				changes++
				for _, h := range keys {
					for n := 1; n <= r.zones.feasible; n++ {
						before := apart(t, r, h, n)
						if n > next.zones.feasible || !stable(a) {
							continue
						}
						after := apart(t, next, h, n)
						lost := 0
						for _, id := range before {
							if !slices.Contains(after, id) {
								lost++
							}
						}
						require.LessOrEqual(t, lost, 1, "%v to %v", before, after)
					}
					_, err := r.OwnersHash(h, r.zones.feasible+1)
					require.ErrorIs(t, err, ErrInfeasible)
				}
				r = next
			}
		}
	})
}

// apart returns the replicas of a key, after checking that they are distinct, take
// keys, and are spread evenly at every level of zones.
func apart(t *testing.T, r *Ring[string], h uint64, n int) []string {
	owners, err := r.OwnersHash(h, n)
	require.NoError(t, err)
	require.Len(t, owners, n)
	require.Equal(t, r.OwnerHash(h), owners[0])
	sorted := slices.Sorted(slices.Values(owners))
	require.Len(t, slices.Compact(sorted), n, "distinct")
	held := make(map[string]int)
	for _, id := range owners {
		node, _ := r.Node(id)
		require.False(t, node.Draining)
		for _, d := range domainsOf(r, node.Zone) {
			held[d]++
		}
	}
	if r.zones.top == nil {
		return owners
	}
	room := make(map[string]int)
	parts := make(map[string][]string)
	for _, node := range r.Nodes() {
		if node.Draining {
			continue
		}
		parent := ""
		for _, d := range domainsOf(r, node.Zone) {
			room[d]++
			if !slices.Contains(parts[parent], d) {
				parts[parent] = append(parts[parent], d)
			}
			parent = d
		}
	}
	for parent, list := range parts {
		for _, d := range list {
			if parent == "" {
				room[d] = min(room[d], r.config.MaxPerZone)
				require.LessOrEqual(t, held[d], r.config.MaxPerZone)
			}
			// Nobody holds two more than another that has room.
			for _, e := range list {
				if held[e]+1 < held[d] {
					require.Equal(t, room[e], held[e], "%s has %d, %s has %d", d, held[d], e, held[e])
				}
			}
		}
	}
	return owners
}

// domainsOf returns the domains that a zone is in, the outermost first; nodes beside
// inner domains have one of their own.
func domainsOf(r *Ring[string], zone string) (list []string) {
	if zone == "" {
		return nil
	}
	parts := strings.Split(zone, "/")
	for i := range parts {
		list = append(list, strings.Join(parts[:i+1], "/"))
	}
	if slices.ContainsFunc(r.Nodes(), func(n Node[string]) bool { return strings.HasPrefix(n.Zone, zone+"/") }) {
		list = append(list, zone+"/")
	}
	return list
}

// More replicas than are kept on the stack.
func TestManyReplicas(t *testing.T) {
	r := mustNew(t, Points{PerNode: 10}, numbered(50))
	owners, err := r.Owners("k", 40)
	require.NoError(t, err)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(owners))), 40)
	var walk []string
	for id := range r.Walk(HashString("k")) {
		walk = append(walk, id)
	}
	require.Equal(t, walk[:40], owners)
	zoned, err := New(Config{MaxPerZone: 20}, inZones(60, 3)...)
	require.NoError(t, err)
	owners, err = zoned.Owners("k", 60)
	require.NoError(t, err)
	require.Len(t, owners, 60)
}

// A zone of which only one node is left still gets its replica.
func TestLopsidedZones(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		nodes := numbered(60)
		for i := range nodes {
			nodes[i].Zone = "large"
		}
		nodes[17].Zone, nodes[18].Zone = "small", "medium"
		r := mustNew(t, a, nodes)
		for _, h := range hashes(3, 200) {
			owners, err := r.OwnersHash(h, 3)
			require.NoError(t, err)
			require.Contains(t, owners, "node-0017")
			require.Contains(t, owners, "node-0018")
		}
	})
}

func TestSubset(t *testing.T) {
	r := mustNew(t, Points{PerNode: 10}, inZones(30, 3))
	sizes := make(map[string]int)
	for i := range 200 {
		tenant := fmt.Sprint("tenant-", i)
		nodes, err := r.Subset(tenant, 6)
		require.NoError(t, err)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(nodes))), 6)
		zones := make(map[string]int)
		for _, id := range nodes {
			n, _ := r.Node(id)
			zones[n.Zone[:6]]++
			sizes[id]++
		}
		require.Equal(t, map[string]int{"zone-0": 2, "zone-1": 2, "zone-2": 2}, zones)
		ring, err := r.Tenant(tenant, 6)
		require.NoError(t, err)
		require.Equal(t, slices.Sorted(slices.Values(nodes)), ids(ring))
		require.Equal(t, r.Version(), ring.Version())
		// One node less: the others stay.
		next, err := r.Remove(nodes[2])
		require.NoError(t, err)
		after, err := next.Subset(tenant, 6)
		require.NoError(t, err)
		kept := 0
		for _, id := range nodes {
			if slices.Contains(after, id) {
				kept++
			}
		}
		require.Equal(t, 5, kept)
	}
	require.Len(t, sizes, 30)
	all, err := r.Subset("t", 30)
	require.NoError(t, err)
	require.Len(t, all, 30)
	_, err = r.Subset("t", 31)
	require.ErrorIs(t, err, ErrInfeasible)
}

// The probability that is stated is the one that is observed.
func TestOverlap(t *testing.T) {
	require.InDelta(t, 1, OverlapProbability(10, 3, 0), 0)
	require.InDelta(t, 1.0/120, OverlapProbability(10, 3, 3), 1e-12)
	require.InDelta(t, 1-35.0/120, OverlapProbability(10, 3, 1), 1e-12)
	require.InDelta(t, 1, OverlapProbability(5, 5, 5), 1e-12)
	require.InDelta(t, 1, OverlapProbability(5, 4, 3), 1e-12, "they can't avoid each other")
	require.Zero(t, OverlapProbability(10, 3, 4))
	for _, bad := range [][3]int{{0, 0, 0}, {3, 4, 1}, {3, -1, 1}, {-1, -2, 0}} {
		require.NotEqual(t, OverlapProbability(bad[0], bad[1], bad[2]), OverlapProbability(bad[0], bad[1], bad[2]), "NaN")
	}
	r := mustNew(t, Points{PerNode: 10}, numbered(10))
	const tenants = 300
	subsets := make([][]string, tenants)
	for i := range subsets {
		var err error
		subsets[i], err = r.Subset(fmt.Sprint(i), 3)
		require.NoError(t, err)
	}
	var counts [4]float64
	pairs := 0.0
	for i := range subsets {
		for k := range i {
			common := 0
			for _, id := range subsets[i] {
				if slices.Contains(subsets[k], id) {
					common++
				}
			}
			counts[common]++
			pairs++
		}
	}
	for j := range 4 {
		want := OverlapProbability(10, 3, j) - OverlapProbability(10, 3, j+1)
		require.InDelta(t, want, counts[j]/pairs, 0.02, "%d in common", j)
	}
}
