package hashring

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// The figures that the package comment states. All look-ups include the hash of a
// string key of about 16 bytes.

var benchKeys = func() []string {
	keys := make([]string, 1<<13)
	for i := range keys {
		keys[i] = fmt.Sprintf("user:%011d", uint64(i)*0x9e3779b97f4a7c15>>28)
	}
	return keys
}()

func numbered(n int) []Node[string] {
	nodes := make([]Node[string], n)
	for i := range nodes {
		nodes[i] = Node[string]{ID: fmt.Sprintf("node-%04d", i), Weight: 1}
	}
	return nodes
}

func inZones(n, zones int) []Node[string] {
	nodes := numbered(n)
	for i := range nodes {
		nodes[i].Zone = fmt.Sprintf("zone-%d/rack-%d", i%zones, i/zones%7)
	}
	return nodes
}

func mustNew(tb testing.TB, a Algorithm, nodes []Node[string]) *Ring[string] {
	tb.Helper()
	r, err := New(Config{Algorithm: a}, nodes...)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func benchOwner(b *testing.B, r *Ring[string]) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		sink = r.Owner(benchKeys[i&(len(benchKeys)-1)])
		i++
	}
	b.ReportMetric(float64(r.TableBytes())/1024, "KiB")
}

var sink string

var algorithms = []struct {
	name string
	a    Algorithm
}{
	{"Maglev", Maglev{}},
	{"Asura", Asura{}},
	{"RendezvousTable", RendezvousTable{}},
	{"Points", Points{}},
	{"Allocated", Allocated{}},
	{"Jump", Jump{}},
	{"MultiProbe", MultiProbe{}},
	{"Rendezvous", Rendezvous{}},
}

func BenchmarkOwner(b *testing.B) {
	for _, a := range algorithms {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/N=%d", a.name, n), func(b *testing.B) {
				benchOwner(b, mustNew(b, a.a, numbered(n)))
			})
		}
	}
}

// Half of the nodes are gone.
func BenchmarkOwnerHalfRemoved(b *testing.B) {
	for _, a := range []Algorithm{Asura{}, RendezvousTable{}} {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%T/N=%d", a, n), func(b *testing.B) {
				r := mustNew(b, a, numbered(n))
				var gone []string
				for i := range n / 2 {
					gone = append(gone, fmt.Sprintf("node-%04d", i*7919%n))
				}
				r, err := r.Remove(gone...)
				if err != nil {
					b.Fatal(err)
				}
				benchOwner(b, r)
			})
		}
	}
}

func BenchmarkOwnerWeighted(b *testing.B) {
	for _, a := range []Algorithm{Maglev{}, Asura{}, RendezvousTable{}, Points{}, Allocated{}, Rendezvous{}} {
		nodes := numbered(1000)
		for i := range nodes {
			nodes[i].Weight = []float64{0.5, 1, 2.25}[i%3]
		}
		b.Run(fmt.Sprintf("%T/N=1000", a), func(b *testing.B) { benchOwner(b, mustNew(b, a, nodes)) })
	}
}

func BenchmarkNew(b *testing.B) {
	for _, a := range algorithms {
		nodes := numbered(1000)
		b.Run(a.name+"/N=1000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, a.a, nodes)
			}
		})
	}
}

// One node more, and one less.
// The cost of one change at a smaller size.
func BenchmarkChangeSmall(b *testing.B) {
	r := mustNew(b, Points{}, numbered(100))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Add(Node[string]{ID: "node-0050b", Weight: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChange(b *testing.B) {
	for _, a := range algorithms {
		r := mustNew(b, a.a, numbered(1000))
		b.Run(a.name+"/add/N=1000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Add(Node[string]{ID: "node-0500b", Weight: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(a.name+"/remove/N=1000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Remove("node-0500"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Three replicas over three zones.
func BenchmarkOwners(b *testing.B) {
	for _, a := range algorithms {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/N=%d", a.name, n), func(b *testing.B) {
				r := mustNew(b, a.a, inZones(n, 3))
				b.ReportAllocs()
				// Not b.Loop, which keeps the result, so that it escapes.
				for i := range b.N {
					owners, err := r.Owners(benchKeys[i&(len(benchKeys)-1)], 3)
					if err != nil {
						b.Fatal(err)
					}
					sink = owners[2]
				}
			})
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	r := mustNew(b, Points{}, numbered(1000))
	next, err := r.Add(Node[string]{ID: "node-0500b", Weight: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := Diff(r, next)
		if err != nil {
			b.Fatal(err)
		}
		if d.Moved != d.Bound {
			b.Fatal("moved more than the bound")
		}
	}
}

// A node joins 1,000 that hold a hundred keys each: what moves, as a multiple of what
// it needs to have its fair part.
func BenchmarkBoundedAdd(b *testing.B) {
	r := mustNew(b, Points{}, numbered(1000))
	next, err := r.Add(Node[string]{ID: "node-0500b", Weight: 1})
	if err != nil {
		b.Fatal(err)
	}
	const keys = 100_000
	for b.Loop() {
		bounded, err := NewBounded(r, 1.25)
		if err != nil {
			b.Fatal(err)
		}
		for i := range keys {
			bounded.Assign(fmt.Sprintf("key-%d", i))
		}
		moved := bounded.SetRing(next)
		b.ReportMetric(float64(len(moved))*1001/keys, "moved/need")
	}
}

// Look-ups while another goroutine makes 1,000 changes a second, and without one: the
// mean of the one over that of the other is the figure.
func BenchmarkReaders(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		for _, rate := range []int{0, 1000} {
			b.Run(fmt.Sprintf("N=%d/changes=%d", n, rate), func(b *testing.B) {
				live := NewLive(mustNew(b, Points{}, numbered(n)))
				stop, done := make(chan struct{}), make(chan int)
				go func() {
					changes := 0
					defer func() { done <- changes }()
					wait := ticker(rate)
					for {
						select {
						case <-stop:
							return
						case <-wait:
						}
						_, err := live.Update(func(r *Ring[string]) (*Ring[string], error) {
							if changes%2 == 0 {
								return r.Remove("node-0005")
							}
							return r.Add(Node[string]{ID: "node-0005", Weight: 1})
						})
						if err != nil {
							panic(err)
						}
						changes++
					}
				}()
				runtime.Gosched()
				i := 0
				for b.Loop() {
					sink = live.Owner(benchKeys[i&(len(benchKeys)-1)])
					i++
				}
				close(stop)
				b.ReportMetric(float64(<-done)/b.Elapsed().Seconds(), "changes/s")
			})
		}
	}
}

var hashed atomic.Uint64

func BenchmarkHash(b *testing.B) {
	for _, n := range []int{4, 8, 16, 32, 64, 256} {
		key := string(make([]byte, n))
		b.Run(fmt.Sprintf("%d bytes", n), func(b *testing.B) {
			sum := uint64(0)
			for b.Loop() {
				sum += HashString(key)
			}
			hashed.Store(sum)
		})
	}
}

func ticker(rate int) <-chan time.Time {
	if rate == 0 {
		return nil
	}
	return time.Tick(time.Second / time.Duration(rate))
}
