package hashring

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// For the long run: go test ./hashring -run Property -rings 1000000 -timeout 0
var rings = flag.Int("rings", 120, "random rings and changes of the property tests")

// everyAlgorithm are those that rings are made of in tests, small where that is quicker.
var everyAlgorithm = []Algorithm{
	Points{PerNode: 40}, Allocated{PerNode: 16}, Jump{}, Rendezvous{}, Maglev{Slots: 1009}, RendezvousTable{Slots: 1000}, Asura{}, MultiProbe{},
}

func name(a Algorithm) string { return fmt.Sprintf("%T", a)[len("hashring."):] }

// minimal are the algorithms that move nothing between nodes that a change does not
// concern.
func minimal(a Algorithm) bool {
	switch a.(type) {
	case Maglev, Jump:
		return false
	}
	return true
}

// weighty are the algorithms that take weights.
func weighty(a Algorithm) bool {
	switch a.(type) {
	case Jump, MultiProbe:
		return false
	}
	return true
}

// memoryless are the algorithms whose rings follow from their members alone.
func memoryless(a Algorithm) bool {
	switch a.(type) {
	case Allocated, Jump, Asura:
		return false
	}
	return true
}

func forEvery(t *testing.T, test func(t *testing.T, a Algorithm)) {
	for _, a := range everyAlgorithm {
		t.Run(name(a), func(t *testing.T) { test(t, a) })
	}
}

func hashes(seed uint64, n int) []uint64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	list := make([]uint64, n)
	for i := range list {
		list[i] = rng.Uint64()
	}
	return list
}

// edges are the hashes next to the ends of the ranges of a ring, where mistakes by
// one would be.
func edges[N any](r *Ring[N], most int) []uint64 {
	list := []uint64{0, 1, ^uint64(0), ^uint64(0) - 1}
	if p, ok := rangesOf(r.placed); ok {
		var ends []uint64
		for at := uint64(0); ; {
			last, _, next := p.nextRange(at)
			ends = append(ends, last)
			if last == ^uint64(0) {
				break
			}
			at = next
		}
		for i := 0; i < len(ends); i += max(1, len(ends)/most) {
			list = append(list, ends[i]-1, ends[i], ends[i]+1)
		}
	}
	return list
}

func ids(r *Ring[string]) []string {
	var list []string
	for _, n := range r.Nodes() {
		list = append(list, n.ID)
	}
	return list
}

func encode[N any](t *testing.T, r *Ring[N]) []byte {
	b, err := r.MarshalBinary()
	require.NoError(t, err)
	return b
}

// samePlaces checks that two rings have placed the same members in the same places.
func samePlaces(t *testing.T, want, got *Ring[string], what string) {
	t.Helper()
	if p, ok := want.placed.(*points); ok {
		require.Equal(t, p.tokens(), got.placed.(*points).tokens(), what)
		return
	}
	require.Equal(t, want.placed, got.placed, what)
}
