package hashring

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryWayToAskAgrees(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		r := mustNew(t, a, numbered(20))
		for i := range 500 {
			key := strings.Repeat("k", i%40) + fmt.Sprint(i)
			owner := r.Owner(key)
			require.Equal(t, owner, r.OwnerBytes([]byte(key)))
			require.Equal(t, owner, r.OwnerHash(HashString(key)))
			owners, err := r.Owners(key, 3)
			require.NoError(t, err)
			require.Equal(t, owner, owners[0])
			byBytes, err := r.OwnersBytes([]byte(key), 3)
			require.NoError(t, err)
			require.Equal(t, owners, byBytes)
			byHash, err := r.OwnersHash(HashString(key), 3)
			require.NoError(t, err)
			require.Equal(t, owners, byHash)
		}
	})
}

func TestLookUpsAllocateNothing(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		for _, nodes := range [][]Node[string]{numbered(50), inZones(50, 5)} {
			r := mustNew(t, a, nodes)
			live := NewLive(r)
			key, bytes := "some key", []byte("some key")
			buffer := make([]string, 0, 5)
			load := func(string) float64 { return 1 }
			length := 0
			for what, ask := range map[string]func(){
				"Owner":       func() { length += len(r.Owner(key)) },
				"OwnerBytes":  func() { length += len(r.OwnerBytes(bytes)) },
				"OwnerHash":   func() { length += len(r.OwnerHash(77)) },
				"Live.Owner":  func() { length += len(live.Owner(key)) },
				"Owners":      func() { o, _ := r.Owners(key, 3); length += len(o) },
				"OwnersBytes": func() { o, _ := r.OwnersBytes(bytes, 5); length += len(o) },
				"OwnersHash":  func() { o, _ := r.OwnersHash(77, 5); length += len(o) },
				"AppendOwners": func() {
					o, _ := r.AppendOwners(buffer, 77, 5)
					length += len(o)
				},
				"Choose": func() { length += len(r.Choose(77, 2, load)) },
			} {
				require.Zero(t, testing.AllocsPerRun(50, ask), what)
			}
			require.NotZero(t, length)
		}
	})
}

func TestOrderOfNodesIsOfNoConsequence(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		nodes := inZones(17, 3)
		r := mustNew(t, a, nodes)
		slices.Reverse(nodes)
		again := mustNew(t, a, nodes)
		require.Equal(t, encode(t, r), encode(t, again))
		require.Equal(t, r.Fingerprint(), again.Fingerprint())
	})
}

func TestVersions(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		r := mustNew(t, a, numbered(5))
		before := encode(t, r)
		require.EqualValues(t, 1, r.Version())
		next, err := r.Add(Node[string]{ID: "x", Weight: 1})
		require.NoError(t, err)
		require.EqualValues(t, 2, next.Version())
		require.Equal(t, 6, next.Len())
		require.NotEqual(t, r.Fingerprint(), next.Fingerprint())
		next, err = next.Drain("x", "node-0001")
		require.NoError(t, err)
		require.Equal(t, 6, next.Len())
		node, ok := next.Node("x")
		require.True(t, ok)
		require.Equal(t, Node[string]{ID: "x", Weight: 1, Draining: true}, node)
		next, err = next.Undrain("node-0001")
		require.NoError(t, err)
		next, err = next.Remove("x")
		require.NoError(t, err)
		require.EqualValues(t, 5, next.Version())
		_, ok = next.Node("x")
		require.False(t, ok)
		if memoryless(a) {
			require.Equal(t, r.Fingerprint(), next.Fingerprint(), "the same members, the same ring")
		}
		require.Equal(t, before, encode(t, r), "a ring never changes")
		next, err = next.Rebalance()
		require.NoError(t, err)
		require.EqualValues(t, 6, next.Version())
	})
}

func TestReweightMovesOnlyToOrFromTheNode(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		if !weighty(a) {
			_, err := mustNew(t, a, numbered(5)).Reweight("node-0001", 2)
			require.ErrorIs(t, err, ErrWeight)
			return
		}
		r := mustNew(t, a, numbered(12))
		for _, w := range []float64{2.5, 0.25, 1, 7, 3.75, 3.5, 0.01} {
			next, err := r.Reweight("node-0003", w)
			require.NoError(t, err)
			was, _ := r.Node("node-0003")
			moved := 0
			for _, h := range append(hashes(3, 3000), edges(next, 300)...) {
				from, to := r.OwnerHash(h), next.OwnerHash(h)
				if from == to {
					continue
				}
				moved++
				if minimal(a) && w > was.Weight {
					require.Equal(t, "node-0003", to)
				} else if minimal(a) {
					require.Equal(t, "node-0003", from)
				}
			}
			require.NotZero(t, moved)
			r = next
		}
	})
}

// Draining takes the keys away as removing would.
func TestDrainIsRemoveThatRemembers(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		r := mustNew(t, a, numbered(9))
		drained, err := r.Drain("node-0004", "node-0007")
		require.NoError(t, err)
		removed, err := r.Remove("node-0004", "node-0007")
		require.NoError(t, err)
		for _, h := range hashes(4, 2000) {
			require.Equal(t, removed.OwnerHash(h), drained.OwnerHash(h))
		}
		for i, s := range sharesOf(drained) {
			require.Equal(t, i == "node-0004" || i == "node-0007", s.Share == Share{}, i)
		}
		back, err := drained.Undrain("node-0007", "node-0004")
		require.NoError(t, err)
		if memoryless(a) {
			require.Equal(t, r.Fingerprint(), back.Fingerprint())
		}
	})
}

func sharesOf(r *Ring[string]) map[string]NodeShare[string] {
	m := make(map[string]NodeShare[string])
	shares, _ := r.Shares()
	for _, s := range shares {
		m[s.Node] = s
	}
	return m
}

func TestWalkBringsEveryNodeOnce(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		r, err := mustNew(t, a, numbered(30)).Drain("node-0003", "node-0011")
		require.NoError(t, err)
		for _, h := range hashes(5, 50) {
			var walk []string
			for id := range r.Walk(h) {
				walk = append(walk, id)
			}
			require.Equal(t, r.OwnerHash(h), walk[0])
			slices.Sort(walk)
			require.Len(t, slices.Compact(walk), 28)
		}
		for range r.Walk(1) {
			break
		}
	})
}

func TestChoose(t *testing.T) {
	forEvery(t, func(t *testing.T, a Algorithm) {
		r := mustNew(t, a, numbered(12))
		for _, h := range hashes(6, 100) {
			var walk []string
			for id := range r.Walk(h) {
				walk = append(walk, id)
			}
			for _, d := range []int{-1, 0, 1, 2, 3, 8, 9, 12, 100} {
				asked := 0
				best := r.Choose(h, d, func(id string) float64 {
					asked++
					return -float64(slices.Index(walk, id)) // the last one has least
				})
				most := min(max(d, 1), 12)
				require.Equal(t, walk[most-1], best)
				require.GreaterOrEqual(t, asked, most)
			}
			require.Equal(t, walk[0], r.Choose(h, 3, func(string) float64 { return 5 }), "of equal ones, the first")
			require.Equal(t, walk[0], r.Choose(h, 3, func(string) float64 { return math.NaN() }))
		}
	})
}

// With two choices, the fullest bin is far less full than with one.
func TestTwoChoicesAreBetterThanOne(t *testing.T) {
	r := mustNew(t, Rendezvous{}, numbered(100))
	fullest := func(d int) float64 {
		load := make(map[string]float64)
		most := 0.0
		for _, h := range hashes(7, 10_000) {
			id := r.Choose(h, d, func(id string) float64 { return load[id] })
			load[id]++
			most = max(most, load[id])
		}
		return most
	}
	require.Greater(t, fullest(1), 120.0)
	require.Less(t, fullest(2), 105.0)
}

type server struct{ name string }

func (s *server) HashringName() string { return s.name }

type port struct {
	Host string
	Port uint16
}

func TestMembersOfEveryKind(t *testing.T) {
	byName := mustNew(t, Points{}, Nodes("1", "2", "300"))
	numbers, err := New(Config{}, Nodes(1, 2, 300)...)
	require.NoError(t, err)
	require.Equal(t, byName.Fingerprint(), numbers.Fingerprint(), "a number's name is the number")
	servers, err := New(Config{}, Nodes(&server{"1"}, &server{"2"}, &server{"300"})...)
	require.NoError(t, err)
	require.Equal(t, byName.Fingerprint(), servers.Fingerprint())
	require.Equal(t, byName.Owner("k"), servers.Owner("k").name)
	type zoneID string
	named, err := New(Config{}, Nodes[zoneID]("1", "2", "300")...)
	require.NoError(t, err)
	require.Equal(t, byName.Fingerprint(), named.Fingerprint())
	small, err := New(Config{}, Nodes[uint8](1, 2, 30)...)
	require.NoError(t, err)
	_, ok := small.Node(30)
	require.True(t, ok)

	ports, err := New(Config{}, Nodes(port{"a", 1}, port{"a", 2}, port{"1:a", 1})...)
	require.NoError(t, err)
	_, ok = ports.Node(port{"a", 2})
	require.True(t, ok)
	require.Equal(t, "1:a1:2", ports.list[1].name)
	arrays, err := New(Config{}, Nodes([2]bool{true, false}, [2]bool{false, true})...)
	require.NoError(t, err)
	require.Equal(t, 2, arrays.Len())

	_, err = New(Config{}, Nodes(&port{}, &port{})...)
	require.ErrorIs(t, err, ErrName, "an address in memory is no name")
	_, err = New(Config{}, Nodes(1.5)...)
	require.ErrorIs(t, err, ErrName)
	_, err = New(Config{}, Nodes[*server](nil)...)
	require.ErrorIs(t, err, ErrName)
	_, err = New(Config{}, Nodes[any](nil)...)
	require.ErrorIs(t, err, ErrName)
	_, err = New(Config{}, Nodes(netip.MustParseAddr("10.0.0.1"))...)
	require.ErrorIs(t, err, ErrName, "it holds a pointer")
	_, err = New(Config{}, Nodes([]any{nil})...)
	require.ErrorIs(t, err, ErrName)
}

func TestBadInput(t *testing.T) {
	node := func(id string, weight float64, zone string) Node[string] {
		return Node[string]{ID: id, Weight: weight, Zone: zone}
	}
	forEvery(t, func(t *testing.T, a Algorithm) {
		for _, c := range []struct {
			what  string
			nodes []Node[string]
			want  error
		}{
			{"no nodes", nil, ErrNoNodes},
			{"all draining", []Node[string]{{ID: "a", Weight: 1, Draining: true}}, ErrNoNodes},
			{"duplicate", Nodes("a", "b", "a"), ErrDuplicate},
			{"empty name", Nodes(""), ErrName},
			{"long name", Nodes(strings.Repeat("x", 1025)), ErrName},
			{"zero weight", []Node[string]{node("a", 0, "")}, ErrWeight},
			{"negative weight", []Node[string]{node("a", -1, "")}, ErrWeight},
			{"NaN", []Node[string]{node("a", math.NaN(), "")}, ErrWeight},
			{"infinite weight", []Node[string]{node("a", math.Inf(1), "")}, ErrWeight},
			{"huge weight", []Node[string]{node("a", 1e300, "")}, ErrWeight},
			{"tiny weight", []Node[string]{node("a", 1e-300, "")}, ErrWeight},
			{"empty zone part", []Node[string]{node("a", 1, "x//y")}, ErrZone},
			{"slash at the end", []Node[string]{node("a", 1, "x/")}, ErrZone},
			{"deep zone", []Node[string]{node("a", 1, strings.Repeat("x/", 8)+"x")}, ErrZone},
			{"long zone", []Node[string]{node("a", 1, strings.Repeat("x", 1025))}, ErrZone},
			{"a node without a zone", []Node[string]{node("a", 1, "x"), node("b", 1, "")}, ErrZone},
			{"first node without a zone", []Node[string]{node("a", 1, ""), node("b", 1, "x")}, ErrZone},
		} {
			r, err := New(Config{Algorithm: a}, c.nodes...)
			require.ErrorIs(t, err, c.want, c.what)
			require.Nil(t, r)
			if c.nodes == nil {
				continue
			}
			var typed *NodeError
			require.Equal(t, c.want != ErrNoNodes, errors.As(err, &typed), c.what)
			if c.want != ErrNoNodes && c.what != "first node without a zone" {
				good := node("good", 1, c.nodes[0].Zone)
				if c.want == ErrZone && c.what != "a node without a zone" {
					good.Zone = "fine"
				}
				_, err = mustNew(t, a, []Node[string]{good}).Add(c.nodes...)
				require.ErrorIs(t, err, c.want, c.what)
			}
		}
		r := mustNew(t, a, Nodes("a", "b"))
		_, err := r.Add(Nodes("b")...)
		require.ErrorIs(t, err, ErrDuplicate)
		_, err = r.Remove("c")
		require.ErrorIs(t, err, ErrUnknownNode)
		_, err = r.Remove("a", "b")
		require.ErrorIs(t, err, ErrNoNodes)
		_, err = r.Drain("a", "b")
		require.ErrorIs(t, err, ErrNoNodes)
		_, err = r.Undrain("c")
		require.ErrorIs(t, err, ErrUnknownNode)
		_, err = r.Reweight("c", 1)
		require.ErrorIs(t, err, ErrUnknownNode)
		for _, w := range []float64{0, -1, math.NaN(), math.Inf(1), math.Inf(-1), 1e300} {
			_, err = r.Reweight("a", w)
			require.ErrorIs(t, err, ErrWeight)
		}
		for _, n := range []int{-1, 0, 3, 1 << 40} {
			owners, err := r.Owners("k", n)
			require.ErrorIs(t, err, ErrInfeasible)
			require.Empty(t, owners)
		}
		_, err = r.Subset("t", 3)
		require.ErrorIs(t, err, ErrInfeasible)
		_, err = r.Tenant("t", 0)
		require.ErrorIs(t, err, ErrInfeasible)
	})
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		config Config
		field  string
	}{
		{Config{WeightUnit: -1}, "Config.WeightUnit"},
		{Config{WeightUnit: math.NaN()}, "Config.WeightUnit"},
		{Config{WeightUnit: math.Inf(1)}, "Config.WeightUnit"},
		{Config{MaxPerZone: -1}, "Config.MaxPerZone"},
		{Config{Algorithm: Points{PerNode: -1}}, "Points.PerNode"},
		{Config{Algorithm: Points{PerNode: 1<<16 + 1}}, "Points.PerNode"},
		{Config{Algorithm: Allocated{PerNode: 1}}, "Allocated.PerNode"},
		{Config{Algorithm: Allocated{Tolerance: math.NaN()}}, "Allocated.Tolerance"},
		{Config{Algorithm: Allocated{Tolerance: 0.6}}, "Allocated.Tolerance"},
		{Config{Algorithm: Maglev{Slots: 65536}}, "Maglev.Slots"},
		{Config{Algorithm: Maglev{Slots: 1 << 30}}, "Maglev.Slots"},
		{Config{Algorithm: Maglev{Slots: -7}}, "Maglev.Slots"},
		{Config{Algorithm: RendezvousTable{Slots: -1}}, "RendezvousTable.Slots"},
		{Config{Algorithm: RendezvousTable{Slots: 1<<22 + 1}}, "RendezvousTable.Slots"},
		{Config{Algorithm: MultiProbe{Probes: -1}}, "MultiProbe.Probes"},
		{Config{Algorithm: MultiProbe{Probes: 1025}}, "MultiProbe.Probes"},
	} {
		_, err := New(c.config, Nodes("a")...)
		var typed *ConfigError
		require.ErrorAs(t, err, &typed, c.field)
		require.Equal(t, c.field, typed.Field)
		require.Contains(t, err.Error(), "hashring: "+c.field)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := New(Config{Algorithm: Points{PerNode: 1 << 16}}, Node[string]{ID: "a", Weight: 1000})
	require.ErrorIs(t, err, ErrTooLarge)
	many := make([]Node[int], 3000)
	for i := range many {
		many[i] = Node[int]{ID: i, Weight: 1000}
	}
	_, err = New(Config{Algorithm: Asura{}}, many...)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = New(Config{Algorithm: Maglev{Slots: 1009}}, many...)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = New(Config{Algorithm: Allocated{PerNode: 1 << 16}}, many...)
	require.ErrorIs(t, err, ErrTooLarge)
	r, err := New(Config{Algorithm: Asura{}, WeightUnit: 1000}, many...)
	require.NoError(t, err)
	require.Equal(t, 3000, r.Len())
}

// Points that want one place: the first by name has it, and the other has it back.
// It takes planted points, since it would not happen in a lifetime.
func TestNoTwoNodesHaveOnePlace(t *testing.T) {
	list, shared := unshare([]token{{1, 3}, {5, 0}, {5, 2}, {5, 7}, {9, 1}})
	require.True(t, shared)
	require.Equal(t, []token{{1, 3}, {5, 0}, {9, 1}}, list)
	_, shared = unshare([]token{{1, 3}, {5, 0}})
	require.False(t, shared)

	l := leavesOf([]token{{10, 0}, {20, 1}, {30, 0}}, 2)
	same := []uint32{0, 1}
	_, ok := l.merge(same, 2, nil, []token{{20, 0}})
	require.False(t, ok, "the place is taken")
	_, ok = l.merge(same, 2, nil, []token{{25, 0}, {25, 1}})
	require.False(t, ok)
	_, ok = l.merge(same, 2, []token{{21, 0}}, nil)
	require.False(t, ok, "what goes must be there")
	_, ok = l.merge(same, 2, []token{{1, 0}, {2, 0}, {3, 0}, {4, 0}}, nil)
	require.False(t, ok)
	m, ok := l.merge(same, 2, []token{{20, 0}}, []token{{25, 1}})
	require.True(t, ok)
	require.Equal(t, []token{{10, 0}, {25, 1}, {30, 0}}, m.tokens())
	require.Equal(t, []token{{10, 0}, {20, 1}, {30, 0}}, l.tokens())

	for _, a := range everyAlgorithm {
		r := mustNew(t, a, numbered(300))
		if p, ok := r.placed.(*allocated); ok {
			require.True(t, distinct(p.tokens()))
		}
		if p, ok := r.placed.(*points); ok {
			require.True(t, distinct(p.tokens()))
			require.Len(t, p.tokens(), 300*40)
		}
	}
	require.ErrorIs(t, checkSeeds([]member{{name: "a", seed: 7}, {name: "b", seed: 7}}, []int{1}), ErrDuplicate)
	long := make([]member, 30)
	for i := range long {
		long[i] = member{name: fmt.Sprint(i), seed: uint64(i % 29)}
	}
	require.ErrorIs(t, checkSeeds(long, make([]int, 30)), ErrDuplicate)
}

// A point that gave way to another's is back when the other one goes.
func TestSharedPlacesComeBack(t *testing.T) {
	r := mustNew(t, Points{PerNode: 5}, numbered(4))
	whole := r.placed.(*points)
	tokens := whole.tokens()
	lost := tokens[7] // as if another point had its place
	r.placed = &points{leavesOf(slices.Delete(slices.Clone(tokens), 7, 8), 4), whole.config, true}
	other := fmt.Sprintf("node-%04d", (lost.owner+1)%4)
	next, err := r.Drain(other)
	require.NoError(t, err)
	require.Contains(t, next.placed.(*points).tokens(), lost)
}

// A circle where all points crowd into one bucket is still searched quickly, and
// rightly.
func TestDenseCircle(t *testing.T) {
	var tokens []token
	for i := range 5000 {
		tokens = append(tokens, token{uint64(i)*3 + 7, uint32(i % 3)})
	}
	c := circleOf(tokens)
	require.True(t, c.dense)
	for h := uint64(0); h < 15_100; h++ {
		i := c.find(h)
		require.True(t, i == 0 || c.places[i-1] < h)
		require.True(t, i == c.n || c.places[i] >= h)
	}
	l := leavesOf(tokens, 3)
	for h := uint64(0); h < 15_100; h++ {
		require.Equal(t, c.locate(h), l.locate(h))
	}
}

func TestSortTokens(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 1000, 20_000} {
		var list []token
		for i, h := range hashes(uint64(n), n) {
			list = append(list, token{h >> (i % 3 * 20), uint32(i)})
		}
		want := slices.Clone(list)
		slices.SortFunc(want, byPlace)
		require.Equal(t, want, sortTokens(list))
	}
}

func TestLive(t *testing.T) {
	first := mustNew(t, Points{}, numbered(3))
	live := NewLive(first)
	require.Equal(t, first.Owner("k"), live.Owner("k"))
	second, err := live.Update(func(r *Ring[string]) (*Ring[string], error) { return r.Remove("node-0001") })
	require.NoError(t, err)
	require.Same(t, second, live.Load())
	require.ErrorIs(t, live.Store(first), ErrStale)
	require.Same(t, second, live.Load())
	require.NoError(t, live.Store(second))
	other, err := first.Remove("node-0002")
	require.NoError(t, err)
	require.ErrorIs(t, live.Store(other), ErrStale, "another ring of the same version")
	decoded, err := Decode(encode(t, second), DecodeConfig[string]{})
	require.NoError(t, err)
	require.NoError(t, live.Store(decoded), "the same ring once more")
	_, err = live.Update(func(r *Ring[string]) (*Ring[string], error) { return r.Remove("nobody") })
	require.ErrorIs(t, err, ErrUnknownNode)
	third, err := second.Add(Nodes("x")...)
	require.NoError(t, err)
	require.NoError(t, live.Store(third))
	require.Same(t, third, live.Load())
}

// Readers and writers together: for the race detector, and nothing is lost.
func TestLiveConcurrently(t *testing.T) {
	live := NewLive(mustNew(t, Points{PerNode: 10}, numbered(3)))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				_, err := live.Update(func(r *Ring[string]) (*Ring[string], error) {
					return r.Add(Node[string]{ID: fmt.Sprintf("w%d-%d", w, i), Weight: 1})
				})
				if err != nil {
					t.Error(err)
				}
				for k := range 20 {
					r := live.Load()
					if _, ok := r.Node(r.OwnerHash(uint64(k) << 58)); !ok {
						t.Error("a key of nobody")
					}
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 103, live.Load().Len())
	require.EqualValues(t, 101, live.Load().Version())
}

func TestErrorsSayWhatToDo(t *testing.T) {
	r := mustNew(t, Points{}, inZones(6, 2))
	_, err := r.Owners("k", 3)
	require.EqualError(t, err, "hashring: infeasible: 3 replicas over 2 zones with 1 in each at most make 2: add zones or raise Config.MaxPerZone")
	_, err = r.Owners("k", 7)
	require.EqualError(t, err, "hashring: infeasible: 7 replicas on 6 nodes: add nodes")
	_, err = r.Owners("k", 0)
	require.EqualError(t, err, "hashring: infeasible: 0 replicas: ask for one or more")
	var infeasible *InfeasibleError
	require.ErrorAs(t, err, &infeasible)
	_, err = r.Remove("gone")
	require.EqualError(t, err, `hashring: node "gone": unknown node: it is not a member of this version`)
}
