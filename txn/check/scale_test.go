package check

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// ring is a cycle through all transactions, and the only one: each one comes before the
// next, by what link has them do.
func ring(n int, link func(i int, from, to *Transaction)) History {
	h := History{Transactions: make([]Transaction, n)}
	for i := range h.Transactions {
		h.Transactions[i].Outcome = Committed
	}
	for i := range n {
		link(i, &h.Transactions[i], &h.Transactions[(i+1)%n])
	}
	return h
}

func appends(t *Transaction, key string, value int64) {
	t.Operations = append(t.Operations, Operation{Kind: Append, Key: key, Value: value})
}

func sees(t *Transaction, key string, seen ...int64) {
	t.Operations = append(t.Operations, Operation{Kind: Read, Key: key, Seen: seen})
}

// A cycle may be as long as the history. It is found without recursion, and the search for a shorter
// one ends.
func TestLongCycles(t *testing.T) {
	const n = 10_000 / scale
	readFrom := func(i int, from, to *Transaction) {
		appends(from, fmt.Sprint(i), 1)
		sees(to, fmt.Sprint(i), 1)
	}
	overwrote := func(i int, from, to *Transaction) {
		sees(from, fmt.Sprint(i))
		appends(to, fmt.Sprint(i), 1)
	}
	alternate := func(i int, from, to *Transaction) {
		if i%2 == 0 {
			readFrom(i, from, to)
		} else {
			overwrote(i, from, to)
		}
	}
	once := func(i int, from, to *Transaction) {
		if i > 0 {
			readFrom(i, from, to)
		} else {
			overwrote(i, from, to)
		}
	}
	for kind, link := range map[Kind]func(i int, from, to *Transaction){G1c: readFrom, GSingle: once, GNonadjacent: alternate, G2Item: overwrote} {
		h := ring(n, link)
		r, err := h.Check(Config{})
		require.NoError(t, err)
		require.Equal(t, []Kind{kind}, r.kinds())
		require.Len(t, r.Anomalies, 1)
		require.Len(t, r.Anomalies[0].Cycle, n)
		if kind == GSingle {
			require.True(t, r.Anomalies[0].Shortest, "it has one anti-dependency, and so there is one place to begin at")
		}
		h.Transactions[n/2].Outcome = Aborted
		r, err = h.Check(Config{Model: SnapshotIsolation})
		require.NoError(t, err)
		require.NotContains(t, r.kinds(), kind)
	}
}

// The graph is linear in what was recorded, also where each of many comes before each of
// many others.
func TestGraphIsLinear(t *testing.T) {
	const n = 3000 / scale
	for name, fill := range map[string]func(i int, t *Transaction){
		"reads of a list, and appends that nobody has read": func(i int, t *Transaction) {
			if i%2 == 0 {
				sees(t, "x")
			} else {
				appends(t, "x", int64(i))
			}
		},
		"reads of a register that holds nothing, and writes": func(i int, t *Transaction) {
			if i%2 == 0 {
				sees(t, "x")
			} else {
				t.Operations = append(t.Operations, Operation{Kind: Write, Key: "x", Value: int64(i)})
			}
		},
		"updates of one version": func(i int, t *Transaction) {
			sees(t, "x")
			t.Operations = append(t.Operations, Operation{Kind: Write, Key: "x", Value: int64(i)})
		},
		"appends to one version": func(i int, t *Transaction) {
			sees(t, "x")
			appends(t, "x", int64(i))
		},
		"scans, and keys that they did not find": func(i int, t *Transaction) {
			if i%2 == 0 {
				t.Operations = append(t.Operations, Operation{Kind: Scan, Key: "a"})
			} else {
				appends(t, fmt.Sprintf("x%d", i), 1)
			}
		},
		"scans, and keys that they do not find before they append to them": func(i int, t *Transaction) {
			t.Operations = append(t.Operations, Operation{Kind: Scan, Key: "a"})
			appends(t, fmt.Sprintf("x%d", i), 1)
		},
		"all at one time, then all at another": func(i int, t *Transaction) {
			t.Begin, t.End = int64(1+i%2*2), int64(2+i%2*2)
			sees(t, "x")
		},
		"writes at all times": func(i int, t *Transaction) {
			t.Begin, t.End = int64(1+2*i), int64(2+2*i)
			t.Operations = append(t.Operations, Operation{Kind: Write, Key: "x", Value: int64(i)})
		},
		"one process": func(i int, t *Transaction) {
			t.Process = 1
			t.Operations = append(t.Operations, Operation{Kind: Write, Key: "x", Value: int64(i)})
		},
	} {
		h := History{Transactions: make([]Transaction, n)}
		for i := range h.Transactions {
			h.Transactions[i].Outcome = Committed
			fill(i, &h.Transactions[i])
		}
		c, err := h.check(Config{MaxPerKind: 1})
		require.NoError(t, err, name)
		verify(t, h, c.report)
		t.Logf("%s: %d nodes, %d edges, %v", name, c.graph.nodes, len(c.graph.edges), c.report.Found)
		require.Less(t, len(c.graph.edges), 40*n, name)
		require.Less(t, int(c.graph.nodes), 10*n, name)
	}
}

// A search is the same, in whatever way the edges were made: direct, or through junctions.
func TestFan(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	for range 300 {
		n := 1 + rng.IntN(20)
		g := newGraph(2 * n)
		targets := make([]target, n)
		for i := range targets {
			targets[i] = target{int32(rng.IntN(2 * n)), 7, int32(i)}
		}
		f := newFan(g, fromData, targets)
		at := f.places()
		from := int32(rng.IntN(2 * n))
		lo := rng.IntN(n)
		hi := lo + rng.IntN(n-lo+1)
		s := source{from, edge{kind: ww, key: 7, a: 3, b: -1}, rng.IntN(n+1) - 1}
		f.reach(from, s.edge, lo, hi, f.skip(at, s)...)
		g.seal()

		want := map[int32]int{}
		for i := lo; i < hi; i++ {
			if targets[i].node != from && i != s.without {
				want[int32(i)]++
			}
		}
		got := map[int32]int{}
		var walk func(node int32, top bool)
		walk = func(node int32, top bool) {
			for _, e := range g.edges[g.first[node]:g.first[node+1]] {
				require.Equal(t, top, e.kind == ww)
				if e.b >= 0 {
					require.Equal(t, targets[e.b].node, e.to)
					got[e.b]++
				} else {
					walk(e.to, false)
				}
			}
		}
		walk(from, true)
		require.Equal(t, want, got)
	}
}
