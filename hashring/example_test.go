package hashring_test

import (
	"errors"
	"fmt"
	"slices"

	"github.com/synod-go/synod/hashring"
)

func Example() {
	ring, err := hashring.New(hashring.Config{}, hashring.Nodes("cache-a", "cache-b", "cache-c")...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ring.Owner("user:17"))

	// A change makes another ring; the first one stays as it is.
	next, err := ring.Remove("cache-b")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ring.Version(), ring.Len(), "then", next.Version(), next.Len())
	// Output:
	// cache-b
	// 1 3 then 2 2
}

func ExampleNew() {
	ring, err := hashring.New(hashring.Config{Algorithm: hashring.Allocated{}},
		hashring.Node[string]{ID: "small", Weight: 1},
		hashring.Node[string]{ID: "large", Weight: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	shares, exact := ring.Shares()
	for _, s := range shares {
		fmt.Println(s.Node, s.Share)
	}
	fmt.Println(exact)
	// Output:
	// large 75.0000 %
	// small 25.0000 %
	// true
}

func ExampleRing_Owners() {
	ring, _ := hashring.New(hashring.Config{},
		hashring.Node[string]{ID: "a", Weight: 1, Zone: "eu-west/1"},
		hashring.Node[string]{ID: "b", Weight: 1, Zone: "eu-west/2"},
		hashring.Node[string]{ID: "c", Weight: 1, Zone: "eu-north/1"},
		hashring.Node[string]{ID: "d", Weight: 1, Zone: "us-east/1"})
	owners, err := ring.Owners("user:17", 3)
	fmt.Println(owners, err)
	_, err = ring.Owners("user:17", 4)
	fmt.Println(err)
	// Output:
	// [b d c] <nil>
	// hashring: infeasible: 4 replicas over 3 zones with 1 in each at most make 3: add zones or raise Config.MaxPerZone
}

func ExampleRing_Drain() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "c")...)
	ring, _ = ring.Drain("b")
	node, member := ring.Node("b")
	fmt.Println(node.Draining, member)
	for _, key := range []string{"x", "y", "z", "user:17"} {
		if ring.Owner(key) == "b" {
			fmt.Println("b still has", key)
		}
	}
	// Output:
	// true true
}

func ExampleRing_Choose() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Asura{}}, hashring.Nodes(1, 2, 3, 4)...)
	load := map[int]float64{1: 70, 2: 80, 3: 10, 4: 90}
	hash := hashring.HashString("session 5")
	fmt.Println(ring.OwnerHash(hash), "or the less loaded of two:", ring.Choose(hash, 2, func(n int) float64 { return load[n] }))
	// Output:
	// 1 or the less loaded of two: 3
}

func ExampleDiff() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Points{PerNode: 3}}, hashring.Nodes("a", "b")...)
	next, _ := ring.Add(hashring.Nodes("c")...)
	diff, err := hashring.Diff(ring, next)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range diff.Moves {
		fmt.Printf("%016x to %016x: %s to %s, %v\n", m.First, m.Last, m.From, m.To, m.Share())
	}
	fmt.Println("moved", diff.Moved, "of which needed", diff.Bound)
	// Output:
	// 5b26749a361aa425 to 9c297c18595a6e76: a to c, 25.3952 %
	// moved 25.3952 % of which needed 25.3952 %
}

func ExampleShare() {
	share := hashring.Whole()
	fmt.Println(share, share.Sub(share).Float64())
	// Output:
	// 100.0000 % 0
}

func ExampleLive() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "c")...)
	live := hashring.NewLive(ring)
	_, err := live.Update(func(r *hashring.Ring[string]) (*hashring.Ring[string], error) {
		return r.Add(hashring.Nodes("d")...)
	})
	fmt.Println(live.Load().Version(), err)
	fmt.Println(errors.Is(live.Store(ring), hashring.ErrStale))
	// Output:
	// 2 <nil>
	// true
}

func ExampleBounded() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "c")...)
	sessions, err := hashring.NewBounded(ring, 1.25)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 12 {
		sessions.Assign(fmt.Sprint("session ", i))
	}
	for _, n := range []string{"a", "b", "c"} {
		keys, bound := sessions.Load(n)
		fmt.Println(n, keys, "of", bound)
	}
	ring, _ = ring.Add(hashring.Nodes("d")...)
	for _, m := range sessions.SetRing(ring) {
		fmt.Println(m.Key, "moves from", m.From, "to", m.To)
	}
	// Output:
	// a 4 of 5
	// b 3 of 5
	// c 5 of 5
	// session 6 moves from a to d
	// session 9 moves from c to a
}

func ExampleRing_Subset() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "c", "d", "e", "f", "g", "h")...)
	nodes, _ := ring.Subset("tenant 5", 3)
	fmt.Println(nodes)
	fmt.Printf("another tenant has all three with probability %.4f\n", hashring.OverlapProbability(8, 3, 3))
	own, _ := ring.Tenant("tenant 5", 3)
	fmt.Println(slices.Contains(nodes, own.Owner("some key")))
	// Output:
	// [f a b]
	// another tenant has all three with probability 0.0179
	// true
}

func ExampleDecode() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Asura{}}, hashring.Nodes(1, 2, 3)...)
	data, _ := ring.MarshalBinary()
	same, err := hashring.Decode(data, hashring.DecodeConfig[int]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(data), "bytes", same.Fingerprint() == ring.Fingerprint(), same.Owner("k") == ring.Owner("k"))
	_, err = hashring.Decode(data[:20], hashring.DecodeConfig[int]{})
	fmt.Println(err)
	// Output:
	// 43 bytes true true
	// hashring: corrupt encoding: at byte 12: the checksum does not match: truncated or damaged
}

// A member that is more than a name.
type Server struct {
	Name    string
	Address string
}

func (s *Server) HashringName() string { return s.Name }

func ExampleNamed() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes(
		&Server{"a", "10.0.0.1:80"}, &Server{"b", "10.0.0.2:80"})...)
	fmt.Println(ring.Owner("user:17").Address)
	// Output:
	// 10.0.0.2:80
}

func ExampleNodeError() {
	_, err := hashring.New(hashring.Config{}, hashring.Nodes("a", "b", "a")...)
	var bad *hashring.NodeError
	fmt.Println(errors.As(err, &bad), bad.Node, errors.Is(err, hashring.ErrDuplicate))
	fmt.Println(err)
	// Output:
	// true a true
	// hashring: node "a": duplicate node: named twice: give every node a name of its own
}

func ExampleConfigError() {
	_, err := hashring.New(hashring.Config{Algorithm: hashring.Maglev{Slots: 1000}}, hashring.Nodes("a")...)
	fmt.Println(err)
	// Output:
	// hashring: Maglev.Slots: 1000: a prime up to 4194304, or 0 for 65537
}

// Each algorithm on the same nodes: what a ring of ten nodes takes, and how even it
// is.
func ExampleAlgorithm() {
	nodes := hashring.Nodes(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	for _, a := range []hashring.Algorithm{
		hashring.Points{}, hashring.Allocated{}, hashring.Maglev{}, hashring.Asura{},
		hashring.RendezvousTable{}, hashring.Rendezvous{}, hashring.Jump{}, hashring.MultiProbe{},
	} {
		ring, err := hashring.New(hashring.Config{Algorithm: a}, nodes...)
		if err != nil {
			fmt.Println(err)
			return
		}
		most := 0.0
		shares, exact := ring.Shares()
		for _, s := range shares {
			most = max(most, 10*s.Share.Float64())
		}
		fmt.Printf("%-25T %6d bytes, largest share %.3f of the mean, exact %t\n", a, ring.TableBytes(), most, exact)
	}
	// Output:
	// hashring.Points            27432 bytes, largest share 1.185 of the mean, exact true
	// hashring.Allocated         11792 bytes, largest share 1.000 of the mean, exact true
	// hashring.Maglev           131074 bytes, largest share 1.000 of the mean, exact true
	// hashring.Asura               124 bytes, largest share 1.000 of the mean, exact false
	// hashring.RendezvousTable  131152 bytes, largest share 1.018 of the mean, exact true
	// hashring.Rendezvous           80 bytes, largest share 1.000 of the mean, exact false
	// hashring.Jump                 40 bytes, largest share 1.000 of the mean, exact false
	// hashring.MultiProbe          200 bytes, largest share 1.000 of the mean, exact false
}

func ExampleConfig() {
	// Weights are gigabytes, and two replicas may be in one zone.
	ring, err := hashring.New(hashring.Config{WeightUnit: 500, MaxPerZone: 2},
		hashring.Node[string]{ID: "a", Weight: 500, Zone: "east"},
		hashring.Node[string]{ID: "b", Weight: 1000, Zone: "east"},
		hashring.Node[string]{ID: "c", Weight: 750, Zone: "west"})
	if err != nil {
		fmt.Println(err)
		return
	}
	owners, err := ring.Owners("user:17", 3)
	fmt.Println(owners, err)
	// Output:
	// [b a c] <nil>
}

func ExampleNode() {
	ring, err := hashring.New(hashring.Config{},
		hashring.Node[int]{ID: 1, Weight: 1},
		hashring.Node[int]{ID: 2, Weight: 0})
	fmt.Println(ring == nil, errors.Is(err, hashring.ErrWeight))
	// Output:
	// true true
}

func ExampleNodeShare() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Points{PerNode: 16}}, hashring.Nodes("a", "b")...)
	shares, _ := ring.Shares()
	for _, s := range shares {
		fmt.Printf("%s has %v and should have %.0f %%\n", s.Node, s.Share, 100*s.Fair)
	}
	// Output:
	// a has 42.1696 % and should have 50 %
	// b has 57.8304 % and should have 50 %
}

func ExampleMove() {
	half := hashring.Move[string]{First: 0, Last: 1<<63 - 1, From: "a", To: "b"}
	fmt.Println(half.Share())
	// Output:
	// 50.0000 %
}

func ExampleDifference() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Maglev{}}, hashring.Nodes(1, 2, 3, 4)...)
	next, _ := ring.Remove(2)
	diff, _ := hashring.Diff(ring, next)
	fmt.Printf("from %d to %d: %v moves, needed are %v\n", diff.Old, diff.New, diff.Moved, diff.Bound)
	// Output:
	// from 1 to 2: 25.1568 % moves, needed are 24.9996 %
}

func ExampleRelocation() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b")...)
	connections, _ := hashring.NewBounded(ring, 1)
	for _, key := range []string{"1", "2", "3", "4"} {
		connections.Assign(key)
	}
	ring, _ = ring.Remove("b")
	moved := connections.SetRing(ring)
	for _, m := range moved {
		fmt.Println(m.From, "to", m.To)
	}
	// Output:
	// b to a
	// b to a
}

func ExamplePoints() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Points{PerNode: 1000}}, hashring.Nodes("a", "b", "c")...)
	fmt.Println(ring.Owner("user:17"), ring.Config().Algorithm)
	// Output:
	// b {1000}
}

func ExampleAllocated() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Allocated{Tolerance: 0.02}}, hashring.Nodes(1, 2, 3, 4, 5, 6, 7, 8)...)
	largest := func(r *hashring.Ring[int]) float64 {
		most := 0.0
		shares, _ := r.Shares()
		for _, s := range shares {
			most = max(most, s.Share.Float64()/s.Fair)
		}
		return most
	}
	fmt.Printf("new: %.3f of the mean\n", largest(ring))
	ring, _ = ring.Remove(3, 5)
	fmt.Printf("two have left: %.3f\n", largest(ring))
	ring, _ = ring.Rebalance()
	fmt.Printf("rebalanced: %.3f\n", largest(ring))
	// Output:
	// new: 1.000 of the mean
	// two have left: 1.055
	// rebalanced: 1.020
}

func ExampleMaglev() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Maglev{}}, hashring.Nodes("a", "b", "c")...)
	fmt.Println(ring.Owner("user:17"), ring.TableBytes())
	// Output:
	// a 131074
}

func ExampleAsura() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Asura{}}, hashring.Nodes("a", "b", "c", "d")...)
	one, _ := ring.Remove("b", "d")
	other, _ := ring.Remove("d", "b")
	fmt.Println(one.Fingerprint() == other.Fingerprint(), "in whatever order")
	// Output:
	// true in whatever order
}

func ExampleRendezvous() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Rendezvous{}}, hashring.Nodes("a", "b", "c", "d")...)
	fmt.Println(slices.Collect(ring.Walk(hashring.HashString("user:17"))))
	// Output:
	// [b c d a]
}

func ExampleRendezvousTable() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.RendezvousTable{Slots: 4096}}, hashring.Nodes("a", "b", "c", "d")...)
	next, _ := ring.Add(hashring.Nodes("e")...)
	diff, _ := hashring.Diff(ring, next)
	fmt.Println(diff.Moved == diff.Bound)
	// Output:
	// true
}

func ExampleJump() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.Jump{}}, hashring.Nodes("a", "b", "c")...)
	fmt.Println(ring.Owner("user:17"), ring.TableBytes(), "bytes")
	// Output:
	// b 12 bytes
}

func ExampleMultiProbe() {
	ring, _ := hashring.New(hashring.Config{Algorithm: hashring.MultiProbe{}}, hashring.Nodes("a", "b", "c")...)
	fmt.Println(ring.Owner("user:17"), ring.TableBytes(), "bytes")
	// Output:
	// a 68 bytes
}

func ExampleInfeasibleError() {
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes("a", "b")...)
	_, err := ring.Owners("user:17", 3)
	var infeasible *hashring.InfeasibleError
	if errors.As(err, &infeasible) {
		fmt.Println(infeasible.Feasible, "of", infeasible.Replicas)
	}
	// Output:
	// 2 of 3
}

func ExampleDecodeConfig() {
	servers := map[string]*Server{"a": {"a", "10.0.0.1:80"}, "b": {"b", "10.0.0.2:80"}}
	ring, _ := hashring.New(hashring.Config{}, hashring.Nodes(servers["a"], servers["b"])...)
	data, _ := ring.MarshalBinary()
	same, err := hashring.Decode(data, hashring.DecodeConfig[*Server]{
		Parse: func(name string) (*Server, error) {
			if s, ok := servers[name]; ok {
				return s, nil
			}
			return nil, fmt.Errorf("server %q is unknown", name)
		},
	})
	fmt.Println(same.Owner("user:17") == ring.Owner("user:17"), err)
	// Output:
	// true <nil>
}

func ExampleDecodeError() {
	_, err := hashring.Decode([]byte("no ring"), hashring.DecodeConfig[string]{})
	var damaged *hashring.DecodeError
	fmt.Println(errors.As(err, &damaged), errors.Is(err, hashring.ErrCorrupt), err)
	// Output:
	// true true hashring: corrupt encoding: at byte 0: not the encoding of a ring
}
