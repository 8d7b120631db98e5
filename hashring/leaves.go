package hashring

import (
	"math/bits"
	"slices"
	"sort"
)

// leaves is a sorted set of places in small pieces, so that a change copies the few
// that it touches and shares the others with the version before. A place owns the
// hashes from the one after the place before it up to itself.
//
// Invariants:
//  1. leaf b holds the places whose highest bits are b, strictly ascending.
//  2. after of a leaf is whose the first place above it is, round the end.
//  3. Owners are known by an ID that does not change; numbers says which member it is
//     now, since numbers of members do change.
type leaves struct {
	n       int
	width   uint8 // bits that choose the leaf
	list    []*leaf
	numbers []uint32 // by ID; none: free
}

type leaf struct {
	places []uint64
	owners []uint32 // IDs
	after  uint32   // ID
}

// Places a leaf, on average.
const (
	leafBest  = 24
	leafLeast = 8
	leafMost  = 64
)

// leavesOf makes leaves of sorted tokens with distinct places, of so many members.
func leavesOf(tokens []token, members int) *leaves {
	l := &leaves{n: len(tokens), width: uint8(bits.Len(uint(len(tokens) / leafBest)))}
	l.numbers = make([]uint32, members)
	for i := range l.numbers {
		l.numbers[i] = uint32(i)
	}
	l.list = make([]*leaf, 1<<l.width)
	places, owners := make([]uint64, len(tokens)), make([]uint32, len(tokens))
	for i, t := range tokens {
		places[i], owners[i] = t.place, t.owner
	}
	i := 0
	for b := range l.list {
		from := i
		for i < len(tokens) && l.leaf(places[i]) == b {
			i++
		}
		l.list[b] = &leaf{places: places[from:i:i], owners: owners[from:i:i]}
	}
	l.close()
	return l
}

func (l *leaves) leaf(place uint64) int { return int(place >> (64 - l.width)) }

// close sets what comes after each leaf.
func (l *leaves) close() {
	after := none
	for range 2 { // the second time round, what comes after the last is known
		for b := len(l.list) - 1; b >= 0; b-- {
			f := l.list[b]
			if f.after != after && after != none {
				c := *f
				c.after = after
				l.list[b] = &c
			}
			if len(f.owners) > 0 {
				after = f.owners[0]
			}
		}
	}
}

// find returns the index of the first place of a leaf at or above a hash; the places
// are spread evenly, so that it is near where it would be if they were spread exactly.
func (l *leaves) find(f *leaf, hash uint64) int {
	n := len(f.places)
	if n > leafMost {
		return sort.Search(n, func(i int) bool { return f.places[i] >= hash })
	}
	guess, _ := bits.Mul64(hash<<l.width, uint64(n))
	i := int(guess)
	for i > 0 && f.places[i-1] >= hash {
		i--
	}
	for i < n && f.places[i] < hash {
		i++
	}
	return i
}

func (l *leaves) locate(hash uint64) uint32 {
	f := l.list[hash>>(64-l.width)]
	if i := l.find(f, hash); i < len(f.owners) {
		return l.numbers[f.owners[i]]
	}
	return l.numbers[f.after]
}

// next walks along the circle: a counts the steps; b is the leaf and c the index of the
// next place.
func (l *leaves) next(hash uint64, at cursor) (uint32, cursor) {
	if at.a == 0 {
		at.b = hash >> (64 - l.width)
		at.c = uint64(l.find(l.list[at.b], hash))
	}
	if at.a >= uint64(l.n) {
		return none, at
	}
	f := l.list[at.b]
	for at.c >= uint64(len(f.owners)) {
		if at.b++; at.b == uint64(len(l.list)) {
			at.b = 0
		}
		f, at.c = l.list[at.b], 0
	}
	owner := l.numbers[f.owners[at.c]]
	at.a++
	at.c++
	return owner, at
}

// firstOf fills chosen with the first members of as many different zones: what
// Ring.first does, without a call for each step.
func (l *leaves) firstOf(hash uint64, top, chosen, seen []uint32) bool {
	b := hash >> (64 - l.width)
	f := l.list[b]
	i := l.find(f, hash)
	n := 0
	for range l.n {
		for i >= len(f.owners) {
			if b++; b == uint64(len(l.list)) {
				b = 0
			}
			f, i = l.list[b], 0
		}
		m := l.numbers[f.owners[i]]
		i++
		if zone := top[m]; !slices.Contains(seen[:n], zone) {
			chosen[n], seen[n] = m, zone
			if n++; n == len(chosen) {
				return true
			}
		}
	}
	return false
}

func (l *leaves) nextRange(at uint64) (last uint64, owner uint32, next uint64) {
	b, i := at>>32, at&(1<<32-1)
	for ; b < uint64(len(l.list)); b, i = b+1, 0 {
		if f := l.list[b]; i < uint64(len(f.places)) {
			return f.places[i], l.numbers[f.owners[i]], b<<32 | (i + 1)
		}
	}
	return ^uint64(0), l.numbers[l.list[len(l.list)-1].after], at
}

func (l *leaves) size() int { return 12*l.n + (8+56)*len(l.list) + 4*len(l.numbers) }

// tokens returns the places as a list of its own.
func (l *leaves) tokens() []token {
	list := make([]token, 0, l.n)
	for _, f := range l.list {
		for i, p := range f.places {
			list = append(list, token{p, l.numbers[f.owners[i]]})
		}
	}
	return list
}

// merge returns the leaves with some tokens taken out and others put in, both sorted
// and in the numbers of so many new members. It reports false where two tokens have
// one place, or one that is to go is not there, or leaves would get too large or too
// small: the caller then begins from scratch.
func (l *leaves) merge(toNew []uint32, members int, out, in []token) (*leaves, bool) {
	m := &leaves{n: l.n - len(out) + len(in), width: l.width, list: slices.Clone(l.list), numbers: slices.Clone(l.numbers)}
	if average := m.n >> m.width; !distinct(in) || average > leafMost || average < leafLeast && m.width > 0 {
		return nil, false
	}
	id := make([]uint32, members) // by new number
	for i := range id {
		id[i] = none
	}
	var free []uint32
	for i, n := range m.numbers {
		if n != none {
			m.numbers[i] = toNew[n]
		}
		if n = m.numbers[i]; n != none {
			id[n] = uint32(i)
		} else {
			free = append(free, uint32(i))
		}
	}
	for n := range id {
		if id[n] != none {
			continue
		}
		if len(free) == 0 {
			free = append(free, uint32(len(m.numbers)))
			m.numbers = append(m.numbers, none)
		}
		id[n], free = free[0], free[1:]
		m.numbers[id[n]] = uint32(n)
	}
	for len(out) > 0 || len(in) > 0 {
		// The leaf of what comes first, and all that happens to it.
		b := len(l.list)
		if len(out) > 0 {
			b = l.leaf(out[0].place)
		}
		if len(in) > 0 {
			b = min(b, l.leaf(in[0].place))
		}
		gone, come := 0, 0
		for gone < len(out) && l.leaf(out[gone].place) == b {
			gone++
		}
		for come < len(in) && l.leaf(in[come].place) == b {
			come++
		}
		old := l.list[b]
		size := len(old.places) - gone + come
		if size < 0 {
			return nil, false
		}
		f := &leaf{places: make([]uint64, 0, size), owners: make([]uint32, 0, size), after: old.after}
		put := func(place uint64, owner uint32) {
			f.places, f.owners = append(f.places, place), append(f.owners, owner)
		}
		removed, added := out[:gone], in[:come]
		out, in = out[gone:], in[come:]
		for i, p := range old.places {
			for len(added) > 0 && added[0].place < p {
				put(added[0].place, id[added[0].owner])
				added = added[1:]
			}
			if len(added) > 0 && added[0].place == p {
				return nil, false
			}
			if len(removed) > 0 && removed[0].place == p {
				removed = removed[1:]
				continue
			}
			put(p, old.owners[i])
		}
		for _, t := range added {
			put(t.place, id[t.owner])
		}
		if len(removed) > 0 {
			return nil, false
		}
		m.list[b] = f
	}
	m.close()
	return m, true
}
