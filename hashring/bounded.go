package hashring

import (
	"fmt"
	"math"
	"slices"
	"sync"
)

// Bounded assigns keys to nodes so that none ever holds more than its bound: Factor
// times its fair part of the keys that are assigned, rounded up, ⌈c·m/n⌉ for n nodes
// of equal weight and m keys. A key goes to the first node with room in the order in
// which its hash prefers them. It keeps the keys, so that it is for things that are
// assigned and released: connections, partitions, sessions. All methods may be called
// concurrently. It is made by [NewBounded].
type Bounded[N any] struct {
	mu     sync.Mutex
	factor float64
	ring   *Ring[N]
	total  float64 // weight of the nodes that take keys

	index   map[string]uint32 // where in keys
	keys    []assigned        // in no order
	held    [][]uint32        // by node: its keys, in no order
	bounds  []int             // by node
	classes []class
}

type assigned struct {
	key  string
	hash uint64
	node uint32
	at   uint32 // where in held[node]
}

// class is the nodes of one weight: they have one bound.
type class struct {
	weight float64
	bound  int
	nodes  []uint32
}

// Relocation is a key that another node holds now.
type Relocation[N any] struct {
	Key      string
	From, To N
}

// NewBounded returns an assignment of no keys to the nodes of a ring. factor is the c
// of the bound: 1 or more, 0 for 1.25; the nearer to 1, the evener, and the further
// keys get from the node that they prefer. It returns a [ConfigError] for another.
func NewBounded[N any](ring *Ring[N], factor float64) (*Bounded[N], error) {
	if factor == 0 {
		factor = 1.25
	}
	if !(factor >= 1 && factor <= 1e6) {
		return nil, &ConfigError{"NewBounded.factor", fmt.Sprintf("%v: between 1 and 1,000,000, or 0 for 1.25", factor)}
	}
	b := &Bounded[N]{factor: factor, index: make(map[string]uint32)}
	b.enter(ring)
	return b, nil
}

// enter makes a ring the present one. The keys are not looked at.
func (b *Bounded[N]) enter(ring *Ring[N]) {
	b.ring, b.total = ring, totalWeight(ring.list)
	b.held, b.bounds, b.classes = make([][]uint32, len(ring.list)), make([]int, len(ring.list)), nil
	of := make(map[float64]int)
	for i := range ring.list {
		w := ring.list[i].takes()
		if w == 0 {
			continue
		}
		k, ok := of[w]
		if !ok {
			k = len(b.classes)
			of[w] = k
			b.classes = append(b.classes, class{weight: w, bound: -1})
		}
		b.classes[k].nodes = append(b.classes[k].nodes, uint32(i))
	}
}

// limit sets the bounds for so many keys, and reports whether one got lower.
func (b *Bounded[N]) limit(keys int) (lower bool) {
	for i := range b.classes {
		c := &b.classes[i]
		bound := int(math.Ceil(b.factor * float64(keys) * c.weight / b.total))
		if bound == c.bound {
			continue
		}
		lower = lower || bound < c.bound
		c.bound = bound
		for _, n := range c.nodes {
			b.bounds[n] = bound
		}
	}
	return lower
}

// choose returns the first node with room in the order that a hash prefers. There is
// one: the bounds make up for all keys together.
func (b *Bounded[N]) choose(hash uint64) uint32 {
	at := cursor{}
	var m uint32
	// A node that comes again has no more room than before.
	for {
		if m, at = b.ring.placed.next(hash, at); m == none {
			break
		}
		if len(b.held[m]) < b.bounds[m] {
			return m
		}
	}
	for i := range b.held {
		if len(b.held[i]) < b.bounds[i] {
			return uint32(i)
		}
	}
	return 0
}

func (b *Bounded[N]) put(k, node uint32) {
	b.keys[k].node, b.keys[k].at = node, uint32(len(b.held[node]))
	b.held[node] = append(b.held[node], k)
}

func (b *Bounded[N]) take(k uint32) {
	node, at := b.keys[k].node, b.keys[k].at
	list := b.held[node]
	last := list[len(list)-1]
	list[at] = last
	b.keys[last].at = at
	b.held[node] = list[:len(list)-1]
}

// Assign assigns a key, or returns the node that holds it already. No other key
// moves.
func (b *Bounded[N]) Assign(key string) N {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, ok := b.index[key]; ok {
		return b.ring.ids[b.keys[k].node]
	}
	k := uint32(len(b.keys))
	b.limit(len(b.keys) + 1)
	hash := HashString(key)
	node := b.choose(hash)
	b.keys = append(b.keys, assigned{key: key, hash: hash})
	b.index[key] = k
	b.put(k, node)
	return b.ring.ids[node]
}

// Release takes a key out. As the bound falls with the number of keys, nodes that
// were full may have to hand one on each; those are returned. It reports whether the
// key was assigned.
func (b *Bounded[N]) Release(key string) (moved []Relocation[N], ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.index[key]
	if !ok {
		return nil, false
	}
	b.take(k)
	delete(b.index, key)
	last := uint32(len(b.keys) - 1)
	if k != last {
		b.keys[k] = b.keys[last]
		b.index[b.keys[k].key] = k
		b.held[b.keys[k].node][b.keys[k].at] = k
	}
	b.keys[last] = assigned{}
	b.keys = b.keys[:last]
	if b.limit(len(b.keys)) {
		b.shed(func(k uint32, from N) {
			moved = append(moved, Relocation[N]{b.keys[k].key, from, b.ring.ids[b.keys[k].node]})
		})
	}
	return moved, true
}

// shed takes from nodes above their bound what is too much.
func (b *Bounded[N]) shed(moved func(k uint32, from N)) {
	for n := range b.held {
		for len(b.held[n]) > b.bounds[n] {
			k := b.held[n][len(b.held[n])-1]
			b.take(k)
			b.put(k, b.choose(b.keys[k].hash))
			moved(k, b.ring.ids[n])
		}
	}
}

// SetRing goes over to another version of the ring, and returns the keys that move:
// those of nodes that no longer take keys; those that prefer a node that is new or
// has more weight to the one they are at, while it has room; and what is too much
// where a bound got lower.
func (b *Bounded[N]) SetRing(ring *Ring[N]) []Relocation[N] {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.ring
	c := compare(old.list, ring.list)
	gains := make([]bool, len(ring.list))
	gain := false
	for i := range ring.list {
		gains[i] = ring.list[i].takes() > c.before(i)
		gain = gain || gains[i]
	}
	b.enter(ring)
	b.limit(len(b.keys))
	from := make([]uint32, len(b.keys)) // in the old ring
	var homeless []uint32
	for k := range b.keys {
		from[k] = b.keys[k].node
		if n := c.toNew[from[k]]; n != none && ring.list[n].takes() != 0 {
			b.put(uint32(k), n)
		} else {
			homeless = append(homeless, uint32(k))
		}
	}
	// What is too much goes last: what prefers a gaining node makes room first.
	if gain {
		for k := range b.keys {
			if n := c.toNew[from[k]]; n != none && ring.list[n].takes() != 0 {
				if to := b.prefers(b.keys[k].hash, n, gains); to != none {
					b.take(uint32(k))
					b.put(uint32(k), to)
				}
			}
		}
	}
	for _, k := range homeless {
		b.put(k, b.choose(b.keys[k].hash))
	}
	b.shed(func(uint32, N) {})
	var moved []Relocation[N]
	for k := range b.keys {
		if c.toNew[from[k]] != b.keys[k].node {
			moved = append(moved, Relocation[N]{b.keys[k].key, old.ids[from[k]], ring.ids[b.keys[k].node]})
		}
	}
	return slices.Clip(moved)
}

// prefers returns the first node that gains, has room, and comes before another one.
func (b *Bounded[N]) prefers(hash uint64, to uint32, gains []bool) uint32 {
	at := cursor{}
	var m uint32
	for {
		if m, at = b.ring.placed.next(hash, at); m == none || m == to {
			return none
		}
		if gains[m] && len(b.held[m]) < b.bounds[m] {
			return m
		}
	}
}

// Owner returns the node that holds a key.
func (b *Bounded[N]) Owner(key string) (node N, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.index[key]
	if !ok {
		return node, false
	}
	return b.ring.ids[b.keys[k].node], true
}

// Len returns how many keys are assigned.
func (b *Bounded[N]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.keys)
}

// Load returns how many keys a node holds, and how many it may hold now. Of a node
// that is no member, both are 0.
func (b *Bounded[N]) Load(node N) (keys, bound int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name, err := nameOf(node)
	if err != nil {
		return 0, 0
	}
	i, ok := find(b.ring.list, name)
	if !ok {
		return 0, 0
	}
	return len(b.held[i]), b.bounds[i]
}
