package hashring

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// inBounds checks that no node is above ⌈c·m·w/W⌉, and that the books agree.
func inBounds(t *testing.T, b *Bounded[string], where map[string]string) {
	t.Helper()
	require.Equal(t, len(where), b.Len())
	count := make(map[string]int)
	for key, node := range where {
		owner, ok := b.Owner(key)
		require.True(t, ok)
		require.Equal(t, node, owner, key)
		count[node]++
	}
	total := totalWeight(b.ring.list)
	for _, n := range b.ring.Nodes() {
		load, bound := b.Load(n.ID)
		require.Equal(t, count[n.ID], load)
		if n.Draining {
			require.Zero(t, load)
			continue
		}
		require.Equal(t, int(math.Ceil(b.factor*float64(len(where))*n.Weight/total)), bound)
		require.LessOrEqual(t, load, bound, n.ID)
		delete(count, n.ID)
	}
	require.Empty(t, count, "keys at nodes that are none")
}

// Random assignments, releases and changes of the ring: the bound always holds, and
// every key that moved was reported, once.
func TestPropertyBounded(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(3, uint64(a.code())))
		for range max(1, *rings/50) {
			factor := []float64{1, 1.001, 1.25, 2, 10}[rng.IntN(5)]
			r := mustNew(t, a, numbered(1+rng.IntN(12)))
			b, err := NewBounded(r, factor)
			require.NoError(t, err)
			where := make(map[string]string)
			var keys []string
			apply := func(moved []Relocation[string]) {
				for _, m := range moved {
					require.Equal(t, m.From, where[m.Key])
					require.NotEqual(t, m.From, m.To)
					where[m.Key] = m.To
				}
			}
			for range 150 {
				switch x := rng.IntN(10); {
				case x < 5:
					for range rng.IntN(20) {
						key := fmt.Sprint(rng.IntN(2000))
						node := b.Assign(key)
						if was, ok := where[key]; ok {
							require.Equal(t, was, node)
						} else {
							keys = append(keys, key)
						}
						where[key] = node
					}
				case x < 8:
					for range min(len(keys), rng.IntN(15)) {
						i := rng.IntN(len(keys))
						key := keys[i]
						keys[i] = keys[len(keys)-1]
						keys = keys[:len(keys)-1]
						moved, ok := b.Release(key)
						require.True(t, ok)
						delete(where, key)
						apply(moved)
					}
				default:
					nodes := r.Nodes()
					victim := nodes[rng.IntN(len(nodes))].ID
					next := r
					switch rng.IntN(4) {
					case 0:
						next, err = r.Add(Nodes(fmt.Sprint("later-", rng.Uint32()))...)
					case 1:
						next, err = r.Remove(victim)
					case 2:
						next, err = r.Drain(victim)
					case 3:
						next, err = r.Reweight(victim, []float64{0.5, 1, 3}[rng.IntN(3)])
					}
					if errors.Is(err, ErrNoNodes) || errors.Is(err, ErrWeight) {
						continue
					}
					require.NoError(t, err)
					r = next
					apply(b.SetRing(r))
				}
				inBounds(t, b, where)
			}
		}
	})
}

// A node more or less among many moves little more than what it must have.
func TestBoundedMovesLittle(t *testing.T) {
	for _, n := range []int{10, 100, 300} {
		r := mustNew(t, Points{}, numbered(n))
		b, err := NewBounded(r, 1.25)
		require.NoError(t, err)
		keys := n * 100
		for i := range keys {
			b.Assign(fmt.Sprint(i))
		}
		next, err := r.Add(Nodes("node-0003b")...)
		require.NoError(t, err)
		moved := len(b.SetRing(next))
		require.Less(t, float64(moved), 2*float64(keys)/float64(n+1))
		require.Greater(t, float64(moved), 0.5*float64(keys)/float64(n+1))
		held, _ := b.Load("node-0003b")
		back := len(b.SetRing(r))
		require.Less(t, back, 2*held)
		for i := range keys / 2 {
			b.Release(fmt.Sprint(i))
		}
		require.Equal(t, keys/2, b.Len())
	}
}

func TestBoundedBadInput(t *testing.T) {
	r := mustNew(t, Points{}, numbered(3))
	for _, factor := range []float64{-1, 0.99, math.NaN(), math.Inf(1), 1e7} {
		_, err := NewBounded(r, factor)
		var bad *ConfigError
		require.ErrorAs(t, err, &bad)
	}
	b, err := NewBounded(r, 0)
	require.NoError(t, err)
	_, ok := b.Owner("k")
	require.False(t, ok)
	_, ok = b.Release("k")
	require.False(t, ok)
	require.Empty(t, b.SetRing(r))
	keys, bound := b.Load("nobody")
	require.Zero(t, keys+bound)
}

func TestBoundedConcurrently(t *testing.T) {
	r := mustNew(t, Points{PerNode: 10}, numbered(5))
	smaller, err := r.Remove("node-0002")
	require.NoError(t, err)
	b, err := NewBounded(r, 1.1)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				key := fmt.Sprint(w, i)
				b.Assign(key)
				b.Owner(key)
				b.Load("node-0001")
				switch i % 10 {
				case 3:
					b.SetRing(smaller)
				case 5:
					b.SetRing(r)
				case 7:
					b.Release(key)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 4*180, b.Len())
}
