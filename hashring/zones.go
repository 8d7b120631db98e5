package hashring

import (
	"cmp"
	"slices"
	"strings"
)

// zones is the tree of failure domains.
type zones struct {
	active   int      // members that take keys
	feasible int      // replicas that can be had
	top      []uint32 // the outermost domain of each member; nil: no zones
	leaf     []uint32 // the innermost domain of each member; nil: no zones
	domains  []domain // 0 is the root; parents come before their children
	tops     int      // outermost domains with members that take keys
}

type domain struct {
	parent   uint32
	seed     uint64 // hash of its path
	active   int    // members that take keys, here and below; in an outermost one, MaxPerZone at most
	children []uint32
}

func makeZones(list []member, maxPerZone int) *zones {
	z := &zones{}
	for i := range list {
		if list[i].takes() != 0 {
			z.active++
		}
	}
	z.feasible = z.active
	if list[0].zone == "" {
		return z
	}
	z.domains = []domain{{}}
	byPath := make(map[string]uint32)
	var enter func(path string) uint32
	enter = func(path string) uint32 {
		if d, ok := byPath[path]; ok {
			return d
		}
		parent := uint32(0)
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			parent = enter(path[:i])
		}
		d := uint32(len(z.domains))
		z.domains = append(z.domains, domain{parent: parent, seed: HashString(path)})
		z.domains[parent].children = append(z.domains[parent].children, d)
		byPath[path] = d
		return d
	}
	for i := range list {
		enter(list[i].zone)
	}
	z.top, z.leaf = make([]uint32, len(list)), make([]uint32, len(list))
	for i := range list {
		d := byPath[list[i].zone]
		if len(z.domains[d].children) > 0 {
			// Members beside inner domains are in one of their own.
			d = enter(list[i].zone + "/")
		}
		z.leaf[i] = d
		for z.domains[d].parent != 0 {
			d = z.domains[d].parent
		}
		z.top[i] = d
		if list[i].takes() != 0 {
			for d := z.leaf[i]; d != 0; d = z.domains[d].parent {
				z.domains[d].active++
			}
		}
	}
	z.feasible = 0
	for _, d := range z.domains[0].children {
		top := &z.domains[d]
		top.active = min(top.active, maxPerZone)
		z.feasible += top.active
		if top.active > 0 {
			z.tops++
		}
	}
	return z
}

// quick is for how many replicas Owners keeps its books on the stack.
const quick = 16

// Owners returns the n nodes that hold the replicas of a key, the owner first, or, if
// the ring has zones, as far apart as can be: spread evenly over the outermost
// failure domains, those of each domain over the ones inside it, and so on. One
// change of the ring replaces at most one of them, with the algorithms of which the
// package comment says so. Errors: [InfeasibleError].
//
// It allocates nothing for up to 8 replicas if the result does not escape from the
// caller, and with no more replicas than zones; [Ring.AppendOwners] takes a buffer.
func (r *Ring[N]) Owners(key string, n int) ([]N, error) {
	return r.ownersOf(make([]N, 0, 8), key, n) // one call, or it is not inlined, and the result escapes
}

// OwnersBytes is [Ring.Owners] for bytes.
func (r *Ring[N]) OwnersBytes(key []byte, n int) ([]N, error) {
	return r.ownersOfBytes(make([]N, 0, 8), key, n)
}

// OwnersHash is [Ring.Owners] for a hash.
func (r *Ring[N]) OwnersHash(hash uint64, n int) ([]N, error) {
	return r.AppendOwners(make([]N, 0, 8), hash, n)
}

func (r *Ring[N]) ownersOf(dst []N, key string, n int) ([]N, error) {
	return r.AppendOwners(dst, HashString(key), n)
}

func (r *Ring[N]) ownersOfBytes(dst []N, key []byte, n int) ([]N, error) {
	return r.AppendOwners(dst, HashBytes(key), n)
}

// AppendOwners appends what [Ring.Owners] returns to dst; after an error, nothing.
func (r *Ring[N]) AppendOwners(dst []N, hash uint64, n int) ([]N, error) {
	z := r.zones
	if n < 1 || n > z.feasible {
		return dst, r.infeasible(n)
	}
	if n <= quick && (z.top == nil || n <= z.tops) {
		var chosen [quick]uint32
		if r.first(hash, chosen[:n]) {
			for _, m := range chosen[:n] {
				dst = append(dst, r.ids[m])
			}
			return dst, nil
		}
	}
	for _, m := range r.spread(r.placed, hash, n) {
		dst = append(dst, r.ids[m])
	}
	return dst, nil
}

func (r *Ring[N]) infeasible(n int) error {
	e := &InfeasibleError{Replicas: n, Nodes: r.zones.active, Feasible: r.zones.feasible}
	if r.zones.top != nil {
		e.Zones, e.MaxPerZone = r.zones.tops, r.config.MaxPerZone
	}
	return e
}

// first fills chosen with the first members that a hash prefers of as many different
// zones, or of none. It reports false if the walk ends before.
func (r *Ring[N]) first(hash uint64, chosen []uint32) bool {
	at := cursor{}
	var m uint32
	if r.zones.top == nil {
		for n := 0; n < len(chosen); {
			if m, at = r.placed.next(hash, at); m == none {
				return false
			}
			if !slices.Contains(chosen[:n], m) {
				chosen[n] = m
				n++
			}
		}
		return true
	}
	var seen [quick]uint32
	if p, ok := r.placed.(*points); ok {
		return p.firstOf(hash, r.zones.top, chosen, seen[:len(chosen)])
	}
	for n := 0; n < len(chosen); {
		if m, at = r.placed.next(hash, at); m == none {
			return false
		}
		if top := r.zones.top[m]; !slices.Contains(seen[:n], top) {
			chosen[n], seen[n] = m, top
			n++
		}
	}
	return true
}

// spread chooses replicas from nested domains, in the order in which a placement
// prefers them for a hash.
//
// A domain that is to hold no more replicas than it has parts gives one to each of
// the parts that come first. One that is to hold more divides them evenly: how many
// each part gets follows from the sizes of the parts, and where it does not come out
// even, from a hash of part and key. So a change of one member changes how many
// replicas a part gets only if it holds all of its members or comes in first, and
// the replicas by one.
func (r *Ring[N]) spread(placed placement, hash uint64, n int) []uint32 {
	z := r.zones
	chosen := make([]uint32, 0, n)
	seen := make([]uint64, (len(r.ids)+63)/64)
	b := books{z: z, hash: hash}
	if z.top != nil {
		b.quota, b.used, b.even = make([]int, len(z.domains)), make([]int, len(z.domains)), make([]bool, len(z.domains))
		b.open(0, n)
	}
	take := func(m uint32) {
		if seen[m/64]&(1<<(m%64)) == 0 && (z.top == nil || b.admit(z.leaf[m])) {
			seen[m/64] |= 1 << (m % 64)
			chosen = append(chosen, m)
		}
	}
	at := cursor{}
	var m uint32
	for len(chosen) < n {
		if m, at = placed.next(hash, at); m == none {
			break
		}
		take(m)
	}
	for i := 0; len(chosen) < n && i < len(r.list); i++ {
		if r.list[i].takes() != 0 {
			take(uint32(i))
		}
	}
	return chosen
}

// books is how many replicas each domain holds and may hold.
type books struct {
	z           *zones
	hash        uint64
	quota, used []int
	even        []bool // the domain's replicas are divided over all its parts
}

// open gives a domain its quota, and divides it.
func (b *books) open(d uint32, quota int) {
	b.quota[d] = quota
	var parts []uint32
	for _, c := range b.z.domains[d].children {
		if b.z.domains[c].active > 0 {
			parts = append(parts, c)
		}
	}
	if quota <= len(parts) || len(parts) == 0 {
		return
	}
	b.even[d] = true
	slices.SortFunc(parts, func(x, y uint32) int {
		return cmp.Compare(mix(b.z.domains[x].seed, b.hash), mix(b.z.domains[y].seed, b.hash))
	})
	share := make([]int, len(parts))
	for left := quota; left > 0; {
		for i, c := range parts {
			if left > 0 && share[i] < b.z.domains[c].active {
				share[i]++
				left--
			}
		}
	}
	for i, c := range parts {
		b.open(c, share[i])
	}
}

// admit takes a member of a domain in, if it and those around it have room.
func (b *books) admit(leaf uint32) bool {
	for d := leaf; d != 0; d = b.z.domains[d].parent {
		if (b.used[d] > 0 || b.even[b.z.domains[d].parent]) && b.used[d] >= b.quota[d] {
			return false
		}
	}
	if b.used[0] >= b.quota[0] {
		return false
	}
	for d := leaf; ; d = b.z.domains[d].parent {
		if b.used[d] == 0 && b.quota[d] == 0 {
			b.quota[d] = 1
		}
		b.used[d]++
		if d == 0 {
			return true
		}
	}
}
