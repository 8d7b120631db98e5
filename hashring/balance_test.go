package hashring

import (
	"fmt"
	"math"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
)

// deviation returns the standard deviation and the maximum of the shares of equal
// nodes, as parts of their mean.
func deviation(shares []NodeShare[string]) (sigma, most float64) {
	n := float64(len(shares))
	sum := 0.0
	for _, s := range shares {
		x := s.Share.Float64() * n
		sum += (x - 1) * (x - 1)
		most = max(most, x)
	}
	return math.Sqrt(sum / n), most
}

// The standard deviation of n samples' standard deviation is about sigma/√(2n), so
// that 99 % of them lie within 2.58 times that.
func within99(t *testing.T, want, got float64, samples int, what string) {
	t.Helper()
	require.InDelta(t, want, got, 2.58*want/math.Sqrt(2*float64(samples)), what)
}

// Lamping and Veach, their table of standard errors: the standard deviation of a ring's
// shares with 1, 10, 100 and 1,000 points a node.
func TestPublishedRing(t *testing.T) {
	for _, c := range []struct {
		points    int
		published float64
	}{{1, 0.9979060}, {10, 0.3151810}, {100, 0.0996996}, {1000, 0.0315723}} {
		shares, exact := mustNew(t, Points{PerNode: c.points}, numbered(1000)).Shares()
		require.True(t, exact)
		sigma, _ := deviation(shares)
		// With one point a node, shares are distributed exponentially, whose deviation
		// varies more than that of a normal distribution.
		if c.points == 1 {
			require.InDelta(t, c.published, sigma, 0.15)
			continue
		}
		within99(t, c.published, sigma, 1000, fmt.Sprintf("%d points", c.points))
	}
}

// Lamping and Veach publish a standard error of 7.64e-9 for jump hash, the one of
// 1,000 buckets that 2^64 keys fall into at random: √((n-1)/2^64) = 7.36e-9, within
// the confidence of a deviation measured on 1,000 buckets. Our counts for fewer keys
// must follow the same formula, √((n-1)/keys).
func TestPublishedJump(t *testing.T) {
	within99(t, math.Sqrt(999)/(1<<32), 7.64e-9, 1000, "the published figure")
	r := mustNew(t, Jump{}, numbered(1000))
	const keys = 500_000
	counts := make(map[string]float64)
	for i := range keys {
		counts[r.OwnerHash(HashUint64(uint64(i)))]++
	}
	sum := 0.0
	for _, n := range counts {
		x := n * 1000 / keys
		sum += (x - 1) * (x - 1)
	}
	within99(t, math.Sqrt(999.0/keys), math.Sqrt(sum/1000), 1000, "jump")
}

// The published function works with 31-bit fractions, so that its shares are not
// quite even: counted out, they are off by 2.4e-7 for 1,000 buckets.
func TestJumpSharesCountedOut(t *testing.T) {
	const buckets = 1000
	visited, share := make([]float64, buckets), make([]float64, buckets)
	visited[0] = 1
	for b := range buckets {
		atLeast := func(j int) float64 { return float64((int64(b+1)<<31)/int64(j)) / (1 << 31) }
		share[b] = visited[b] * atLeast(buckets)
		for j := b + 1; j < buckets; j++ {
			visited[j] += visited[b] * (atLeast(j) - atLeast(j+1))
		}
	}
	sum := 0.0
	for _, s := range share {
		sum += (s*buckets - 1) * (s*buckets - 1)
	}
	require.InDelta(t, 2.44e-7, math.Sqrt(sum/buckets), 1e-9)
}

// What other implementations of the published function return.
func TestJumpReferenceValues(t *testing.T) {
	for _, c := range []struct {
		key     uint64
		buckets int
		want    int
	}{{1, 1, 0}, {42, 57, 43}, {0xDEAD10CC, 1, 0}, {0xDEAD10CC, 666, 361}, {256, 1024, 520}, {0, 60, 0}} {
		require.Equal(t, c.want, jumpHash(c.key, c.buckets), "%d of %d", c.key, c.buckets)
	}
}

// Eisenbud et al., section 5.3: with a table of more than 100 times as many slots as
// nodes, no node is more than 1 % from the mean.
func TestPublishedMaglev(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 655} {
		shares, exact := mustNew(t, Maglev{}, numbered(n)).Shares()
		require.True(t, exact)
		for _, s := range shares {
			require.InDelta(t, 1, s.Share.Float64()*float64(n), 0.0101)
		}
	}
	_, most := deviation(must(mustNew(t, Maglev{}, numbered(1000)).Shares()))
	require.LessOrEqual(t, most, 1.0075, "66 slots of 65.5")
}

func must[T, U any](v T, _ U) T { return v }

// Appleton and O'Reilly: with 21 probes, the largest share is 1.05 times
// the mean. The formula is held against a count, too.
func TestPublishedMultiProbe(t *testing.T) {
	largest := 0.0
	for set := range 10 {
		nodes := make([]Node[string], 1000)
		for i := range nodes {
			nodes[i] = Node[string]{ID: fmt.Sprintf("set-%d-node-%d", set, i), Weight: 1}
		}
		shares, exact := mustNew(t, MultiProbe{}, nodes).Shares()
		require.False(t, exact)
		_, most := deviation(shares)
		largest += most / 10
		sum := 0.0
		for _, s := range shares {
			sum += s.Share.Float64()
		}
		require.InDelta(t, 1, sum, 1e-9)
	}
	// Between sets of 1,000 names it varies by 0.006; the mean of ten by a third of that.
	require.InDelta(t, 1.05, largest, 0.005)
	for _, probes := range []int{1, 2, 21} {
		nodes := numbered(8)
		for i := range nodes {
			nodes[i].Weight = 5 // equal weights of any size
		}
		r := mustNew(t, MultiProbe{Probes: probes}, nodes)
		require.Equal(t, 8, r.placed.(*multiProbe).n)
		const keys = 100_000
		counts := make(map[string]float64)
		for i := range keys {
			counts[r.OwnerHash(HashUint64(uint64(i)))]++
		}
		for id, s := range sharesOf(r) {
			p := s.Share.Float64()
			require.InDelta(t, p, counts[id]/keys, 4.5*math.Sqrt(p*(1-p)/keys), "%d probes: %s", probes, id)
		}
	}
}

// Lambov, and the issues that led to it: with allocated tokens, 16 a node, the
// largest share was 1.03 times the mean. Ours is exact at first, and stays within the
// tolerance while nodes are added, one after the other.
func TestAllocatedTokens(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		_, most := deviation(must(mustNew(t, Allocated{}, numbered(n)).Shares()))
		require.InDelta(t, 1, most, 1e-6)
	}
	r := mustNew(t, Allocated{PerNode: 16, Tolerance: 0.03}, numbered(2))
	var err error
	for i := range 200 {
		r, err = r.Add(Node[string]{ID: fmt.Sprintf("later-%03d", i), Weight: 1})
		require.NoError(t, err)
		if i%20 == 0 {
			_, most := deviation(must(r.Shares()))
			require.LessOrEqual(t, most, 1.03)
		}
	}
	perNode := float64(r.placed.(*allocated).n) / 202
	require.Less(t, perNode, 24.0, "points a node after 200 additions")
	t.Logf("%.1f points a node", perNode)
}

// Weights within 1 %, of every algorithm that promises it, also when they are low.
func TestWeightsWithinOnePercent(t *testing.T) {
	nodes := numbered(40)
	for i := range nodes {
		nodes[i].Weight = []float64{1, 2.5, 0.4, 0.05, 7}[i%5]
	}
	fairly := func(t *testing.T, a Algorithm) *Ring[string] {
		r := mustNew(t, a, nodes)
		shares, _ := r.Shares()
		for _, s := range shares {
			require.InEpsilon(t, s.Fair, s.Share.Float64(), 0.01, s.Node)
		}
		return r
	}
	t.Run("Allocated", func(t *testing.T) { fairly(t, Allocated{}) })
	t.Run("Maglev", func(t *testing.T) {
		for _, s := range must(mustNew(t, Maglev{}, nodes).Shares()) {
			require.InDelta(t, s.Fair*65537, s.Share.Float64()*65537, 1.1, "to within a slot or so: %s", s.Node)
		}
	})
	// These draw by the key: their counts are to be as chance would have them.
	for _, a := range []Algorithm{Asura{}, Rendezvous{}} {
		t.Run(name(a), func(t *testing.T) {
			r := fairly(t, a)
			const keys = 400_000
			counts := make(map[string]float64)
			for i := range keys {
				counts[r.OwnerHash(HashUint64(uint64(i)))]++
			}
			chi := 0.0
			for _, s := range must(r.Shares()) {
				d := counts[s.Node] - s.Fair*keys
				chi += d * d / (s.Fair * keys)
			}
			require.Less(t, chi, chiSquare(39))
		})
	}
	// And the slots of a table are drawn as keys are.
	r := mustNew(t, RendezvousTable{Slots: 400_000}, nodes)
	chi := 0.0
	for _, s := range must(r.Shares()) {
		d := (s.Share.Float64() - s.Fair) * 400_000
		chi += d * d / (s.Fair * 400_000)
	}
	require.Less(t, chi, chiSquare(39))
}

// chiSquare returns what a sum of so many squares exceeds once in 10,000 times.
func chiSquare(degrees float64) float64 {
	return degrees * math.Pow(1-2/(9*degrees)+3.719*math.Sqrt(2/(9*degrees)), 3)
}

// Equal weights: also after growth and removals, where slots are in several levels
// and half empty; and not the owner alone, but the second and the third choice, too.
func TestEveryChoiceIsEven(t *testing.T) {
	for _, a := range []Algorithm{Asura{}, Rendezvous{}, RendezvousTable{Slots: 1 << 16}} {
		r := mustNew(t, a, numbered(9))
		for i := range 20 {
			next, err := r.Add(Node[string]{ID: fmt.Sprintf("later-%d", i), Weight: 1})
			require.NoError(t, err)
			r = next
		}
		r, err := r.Remove("node-0001", "node-0004", "node-0005", "later-0", "later-3", "later-9", "later-19", "later-18", "later-17")
		require.NoError(t, err)
		const keys = 60_000
		often := 1.0
		if _, table := a.(RendezvousTable); table {
			often += keys / float64(1<<16) // keys of one slot have one order: they count more than once
		}
		counts := make([]map[string]float64, 3)
		pairs := make(map[[2]string]float64)
		for k := range counts {
			counts[k] = make(map[string]float64)
		}
		for _, h := range hashes(11, keys) {
			owners, err := r.OwnersHash(h, 3)
			require.NoError(t, err)
			for k, id := range owners {
				counts[k][id]++
			}
			pairs[[2]string{owners[0], owners[1]}]++
		}
		for k := range counts {
			chi := 0.0
			for _, id := range ids(r) {
				d := counts[k][id] - keys/20
				chi += d * d / (keys / 20)
			}
			chi /= often
			require.Less(t, chi, chiSquare(19), "%T: choice %d", a, k)
		}
		chi := 0.0
		for _, x := range ids(r) {
			for _, y := range ids(r) {
				if x != y {
					d := pairs[[2]string{x, y}] - keys/380.0
					chi += d * d / (keys / 380.0)
				}
			}
		}
		require.Less(t, chi/often, chiSquare(379), "%T: pairs", a)
	}
}

// The hash: every bit of a key of every length changes every bit of the hash half of
// the time, and keys that differ little fill buckets as chance would.
func TestHashQuality(t *testing.T) {
	for _, length := range []int{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 100} {
		var flips [64]int
		trials := 0
		for i := range 40 {
			key := make([]byte, length)
			for k := range key {
				key[k] = byte(HashUint64(uint64(i*1000 + k)))
			}
			before := HashBytes(key)
			for bit := range min(length*8, 256) {
				key[bit/8] ^= 1 << (bit % 8)
				after := HashBytes(key)
				key[bit/8] ^= 1 << (bit % 8)
				require.NotEqual(t, before, after)
				for d := before ^ after; d != 0; d &= d - 1 {
					flips[bits.TrailingZeros64(d)]++
				}
				trials++
			}
		}
		for bit, n := range flips {
			require.InDelta(t, 0.5, float64(n)/float64(trials), 5*0.5/math.Sqrt(float64(trials)), "length %d, bit %d", length, bit)
		}
	}
	for _, format := range []string{"%d", "user:%08d", "key-%d-value-of-some-length", "%032d"} {
		const keys, buckets = 100_000, 1000
		var high, low [buckets]float64
		for i := range keys {
			h := HashString(fmt.Sprintf(format, i))
			high[slotOf(h, buckets)]++
			low[h%buckets]++
		}
		for _, counts := range [][buckets]float64{high, low} {
			chi := 0.0
			for _, n := range counts {
				chi += (n - keys/buckets) * (n - keys/buckets) / (keys / buckets)
			}
			require.Less(t, chi, chiSquare(buckets-1), format)
		}
	}
	seen := make(map[uint64]bool)
	for i := range 100_000 {
		seen[HashUint64(uint64(i))] = true
	}
	require.Len(t, seen, 100_000)
	require.Equal(t, HashString(""), HashBytes(nil))
}

func TestLogarithm(t *testing.T) {
	for _, x := range []float64{1, 0.5, 0.7071, 0.70711, 0.99, 1e-9, 1 - 1e-9, math.Nextafter(1, 0), 0x1p-54, 0.3} {
		if want := math.Log(x); want == 0 {
			require.Zero(t, ln(x))
		} else {
			require.InEpsilon(t, want, ln(x), 1e-13, x)
		}
	}
}
