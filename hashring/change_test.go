package hashring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Random rings and changes: nobody moves that need not, nothing panics, places are
// distinct, the order of changes is of no consequence where that is promised, ranges
// agree with look-ups, shares and differences add up, weights are kept to, and what
// was encoded is what is decoded. -rings sets how many changes of each algorithm.
func TestPropertyRandomRings(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		t.Parallel()
		changes, seed := 0, uint64(0)
		for changes < *rings {
			seed++
			changes += randomRing(t, a, rand.New(rand.NewPCG(seed, uint64(a.code()))), fmt.Sprintf("%T, seed %d", a, seed))
			if t.Failed() {
				return
			}
		}
		t.Logf("%d rings, %d changes", seed, changes)
	})
}

func randomRing(t *testing.T, a Algorithm, rng *rand.Rand, what string) (changes int) {
	weight := func() float64 {
		if !weighty(a) {
			return 1
		}
		return []float64{1, 1, 1, 0.5, 2, 3.25, 0.1}[rng.IntN(7)]
	}
	nodes := make([]Node[string], 1+rng.IntN(30))
	for i := range nodes {
		nodes[i] = Node[string]{ID: fmt.Sprintf("n%d", rng.IntN(1000)*40+i), Weight: weight()}
	}
	r, err := New(Config{Algorithm: a}, nodes...)
	require.NoError(t, err, what)
	fresh := true // nothing was taken away since New: Allocated keeps to its tolerance
	for range 1 + rng.IntN(12) {
		next := r
		concerned := make(map[string]bool)
		members := r.Nodes()
		some := func() (list []string) {
			for range 1 + rng.IntN(3) {
				id := members[rng.IntN(len(members))].ID
				if !concerned[id] {
					list = append(list, id)
				}
				concerned[id] = true
			}
			return list
		}
		gain, lose := false, false
		switch kind := rng.IntN(7); kind {
		case 0, 1, 2:
			var more []Node[string]
			for range 1 + rng.IntN(3) {
				id := fmt.Sprintf("m%d", rng.Uint32())
				more = append(more, Node[string]{ID: id, Weight: weight()})
				concerned[id] = true
			}
			next, err = r.Add(more...)
			gain = true
		case 3:
			next, err = r.Remove(some()...)
			lose = true
		case 4:
			next, err = r.Drain(some()...)
			lose = true
		case 5:
			next, err = r.Undrain(some()...)
			gain = true
		case 6:
			if !weighty(a) {
				continue
			}
			id := some()[0]
			concerned = map[string]bool{id: true}
			next, err = r.Reweight(id, weight())
			gain, lose = true, true
		}
		if err != nil {
			require.ErrorIs(t, err, ErrNoNodes, what)
			continue
		}
		changes++
		fresh = fresh && !lose
		holds(t, a, r, next, concerned, gain, lose, rng, what)
		if _, ok := a.(Allocated); ok {
			keepsToTolerance(t, next, fresh, what)
		}
		r = next
	}
	if memoryless(a) {
		again := r.Nodes()
		rng.Shuffle(len(again), func(i, k int) { again[i], again[k] = again[k], again[i] })
		rebuilt, err := New(Config{Algorithm: a}, again...)
		require.NoError(t, err, what)
		require.Equal(t, rebuilt.Fingerprint(), r.Fingerprint(), what)
		samePlaces(t, rebuilt, r, what+": the order of changes matters")
	}
	decoded, err := Decode(encode(t, r), DecodeConfig[string]{})
	require.NoError(t, err, what)
	require.Equal(t, r.list, decoded.list, what)
	samePlaces(t, r, decoded, what)
	return changes
}

// holds checks one change.
func holds(t *testing.T, a Algorithm, r, next *Ring[string], concerned map[string]bool, gain, lose bool, rng *rand.Rand, what string) {
	probes := []uint64{rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()}
	probes = append(append(probes, edges(r, 20)...), edges(next, 20)...)
	var diff *Difference[string]
	if _, ok := rangesOf(r.placed); ok {
		var err error
		diff, err = Diff(r, next)
		require.NoError(t, err, what)
		sums(t, r, next, diff, what)
	}
	for _, h := range probes {
		from, to := r.OwnerHash(h), next.OwnerHash(h)
		if node, ok := next.Node(to); !ok || node.Draining {
			require.Fail(t, "a key of a node that takes none", what)
		}
		if from != to && minimal(a) {
			if !(gain && concerned[to] || lose && concerned[from]) {
				require.Fail(t, "moved between nodes that the change does not concern", "%s: %s to %s", what, from, to)
			}
		}
		if diff != nil {
			i, _ := slices.BinarySearchFunc(diff.Moves, h, func(m Move[string], h uint64) int {
				if m.Last < h {
					return -1
				}
				return 1
			})
			inside := i < len(diff.Moves) && diff.Moves[i].First <= h
			if inside != (from != to) || inside && (diff.Moves[i].From != from || diff.Moves[i].To != to) {
				require.Fail(t, "the difference disagrees with look-ups", "%s: at %x", what, h)
			}
		}
	}
	if p, ok := next.placed.(*points); ok {
		require.True(t, distinct(p.tokens()), what)
	}
	if diff != nil && minimal(a) {
		require.Equal(t, diff.Bound, diff.Moved, what)
	}
}

// sums checks that shares and differences add up, exactly.
func sums(t *testing.T, r, next *Ring[string], d *Difference[string], what string) {
	before, exact := r.Shares()
	require.True(t, exact)
	total, have := Share{}, make(map[string]Share)
	for _, s := range before {
		total = total.Add(s.Share)
		have[s.Node] = s.Share
	}
	require.Equal(t, Whole(), total, what)
	moved := Share{}
	for i, m := range d.Moves {
		require.LessOrEqual(t, m.First, m.Last)
		require.True(t, i == 0 || d.Moves[i-1].Last < m.First)
		moved = moved.Add(m.Share())
		have[m.To] = have[m.To].Add(m.Share())
	}
	for _, m := range d.Moves {
		have[m.From] = have[m.From].Sub(m.Share())
	}
	require.Equal(t, d.Moved, moved, what)
	require.LessOrEqual(t, d.Bound.Cmp(d.Moved), 0, what)
	for _, s := range must(next.Shares()) {
		require.Equal(t, s.Share, have[s.Node], what)
		delete(have, s.Node)
	}
	for id, s := range have {
		require.Equal(t, Share{}, s, "%s: %s is gone and has something", what, id)
	}
}

// keepsToTolerance checks an Allocated ring: at once where only additions were made,
// after Rebalance else.
func keepsToTolerance(t *testing.T, r *Ring[string], fresh bool, what string) {
	if !fresh {
		next, err := r.Rebalance()
		require.NoError(t, err, what)
		r = next
	}
	for _, s := range must(r.Shares()) {
		if s.Fair > 0 {
			require.InEpsilon(t, s.Fair, s.Share.Float64(), 0.01, "%s: %s", what, s.Node)
		}
	}
}

// Removal in any order gives the same answers, and moves only what was on the removed
// nodes: moved over needed is 1 exactly.
func TestArbitraryRemoval(t *testing.T) {
	for _, a := range []Algorithm{Asura{}, RendezvousTable{}, Points{PerNode: 40}, Rendezvous{}, MultiProbe{}} {
		t.Run(name(a), func(t *testing.T) {
			full := mustNew(t, a, numbered(200))
			rng := rand.New(rand.NewPCG(1, 2))
			gone := rng.Perm(200)[:100]
			r, order := full, []string{}
			for _, i := range gone {
				order = append(order, fmt.Sprintf("node-%04d", i))
			}
			keys := hashes(1, 800)
			moved, needed := 0, 0
			for _, id := range order {
				next, err := r.Remove(id)
				require.NoError(t, err)
				for _, h := range keys {
					from := r.OwnerHash(h)
					if from == id {
						needed++
					}
					if next.OwnerHash(h) != from {
						moved++
					}
				}
				r = next
			}
			require.Equal(t, needed, moved)
			slices.Reverse(order)
			once, err := full.Remove(order...)
			require.NoError(t, err)
			require.Equal(t, once.Fingerprint(), r.Fingerprint())
			samePlaces(t, once, r, "another order")
		})
	}
}

// What the others move beyond the need, so that the table of the package comment is
// true.
func TestMovementBeyondTheNeed(t *testing.T) {
	excess := func(a Algorithm, id string) float64 {
		r := mustNew(t, a, numbered(100))
		next, err := r.Remove(id)
		require.NoError(t, err)
		moved, needed := 0.0, 0.0
		for _, h := range hashes(2, 60_000) {
			from := r.OwnerHash(h)
			if from == id {
				needed++
			}
			if next.OwnerHash(h) != from {
				moved++
			}
		}
		return moved / needed
	}
	require.Equal(t, 1.0, excess(Jump{}, "node-0099"), "the last one")
	require.InDelta(t, 2, excess(Jump{}, "node-0050"), 0.1)
	maglev := excess(Maglev{}, "node-0050")
	t.Logf("Maglev moves %.2f times the need", maglev)
	require.Less(t, maglev, 2.2)
	require.Greater(t, maglev, 1.0)
}

// An Asura ring that grew: nothing moves but to the new node, over many levels.
func TestAsuraGrows(t *testing.T) {
	r := mustNew(t, Asura{}, numbered(1))
	keys := hashes(8, 500)
	for i := range 300 {
		id := fmt.Sprintf("later-%d", i)
		next, err := r.Add(Node[string]{ID: id, Weight: 1})
		require.NoError(t, err)
		for _, h := range keys {
			if to := next.OwnerHash(h); to != r.OwnerHash(h) {
				require.Equal(t, id, to)
			}
		}
		r = next
	}
	require.Greater(t, len(r.placed.(*asura).upTo), 8)
	decoded, err := Decode(encode(t, r), DecodeConfig[string]{})
	require.NoError(t, err)
	require.Equal(t, r.placed, decoded.placed)
}

// Few nodes left of many: the draws are over before they hit, and rendezvous decides;
// nothing moves that need not.
func TestAsuraShrinks(t *testing.T) {
	r := mustNew(t, Asura{}, numbered(2000))
	var gone []string
	for i := range 1998 {
		gone = append(gone, fmt.Sprintf("node-%04d", i))
	}
	three, err := r.Remove(gone[1:]...)
	require.NoError(t, err)
	two, err := three.Remove(gone[0])
	require.NoError(t, err)
	counts := make(map[string]float64)
	for _, h := range hashes(9, 3000) {
		owner := three.OwnerHash(h)
		counts[owner]++
		if to := two.OwnerHash(h); to != owner {
			require.Equal(t, gone[0], owner)
		}
		owners, err := three.OwnersHash(h, 3)
		require.NoError(t, err)
		require.Equal(t, owner, owners[0])
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(owners))), 3)
	}
	for id, n := range counts {
		require.InDelta(t, 1000, n, 120, id)
	}
}

func TestDiffBetweenAnyTwoRings(t *testing.T) {
	a := mustNew(t, Points{PerNode: 20}, numbered(7))
	b := mustNew(t, Maglev{Slots: 1009}, numbered(9))
	d, err := Diff(a, b)
	require.NoError(t, err)
	sums(t, a, b, d, "Points to Maglev")
	require.InDelta(t, 2.0/9, d.Fair, 1e-12)
	none, err := Diff(a, a)
	require.NoError(t, err)
	require.Empty(t, none.Moves)
	require.Equal(t, Share{}, none.Moved)
	one := mustNew(t, Points{}, Nodes("a"))
	other := mustNew(t, Points{}, Nodes("b"))
	all, err := Diff(one, other)
	require.NoError(t, err)
	require.Equal(t, []Move[string]{{0, ^uint64(0), "a", "b"}}, all.Moves)
	require.Equal(t, Whole(), all.Moved)
	require.Equal(t, 1.0, all.Fair)
	for _, a := range []Algorithm{Jump{}, Rendezvous{}, Asura{}, MultiProbe{}} {
		r := mustNew(t, a, numbered(4))
		_, err := Diff(r, r)
		require.ErrorIs(t, err, ErrNoRanges)
		require.Zero(t, LowerBound(r, r))
	}
}

func TestShare(t *testing.T) {
	half := Share{low: 1 << 63}
	require.Equal(t, Whole(), half.Add(half))
	require.Equal(t, half, Whole().Sub(half))
	require.Equal(t, Share{}, half.Sub(Whole()))
	require.Equal(t, 0.5, half.Float64())
	require.Equal(t, 1.0, Whole().Float64())
	require.Equal(t, "50.0000 %", half.String())
	require.Equal(t, Whole(), rangeShare(0, ^uint64(0)))
	require.Equal(t, Share{low: 1}, rangeShare(7, 7))
	require.Equal(t, Whole(), shareOf(1))
	require.Equal(t, Share{}, shareOf(-1))
	require.Equal(t, 1, Whole().Cmp(half))
}

// The slots of a table tile the hash space without gap or overlap.
func TestSlotsTile(t *testing.T) {
	for _, m := range []int{1, 2, 3, 1000, 1009, 65536, 65537} {
		first := uint64(0)
		for i := range m {
			last := lastOf(i, m)
			require.EqualValues(t, i, slotOf(first, uint64(m)))
			require.EqualValues(t, i, slotOf(last, uint64(m)))
			first = last + 1
		}
		require.Zero(t, first)
	}
}
