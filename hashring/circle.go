package hashring

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"
)

// token is one place on the circle, and whose it is.
type token struct {
	place uint64
	owner uint32
}

func byPlace(a, b token) int {
	if c := cmp.Compare(a.place, b.place); c != 0 {
		return c
	}
	return cmp.Compare(a.owner, b.owner)
}

// circle is a sorted set of places. A place owns the hashes from the one after the
// place before it up to itself.
//
// Invariants:
//  1. places is strictly ascending over the first n.
//  2. places[n] is the highest hash and owners[n] is owners[0]: what lies above the
//     last place belongs to the first one, and a search needs no bound.
//  3. first[b] is the first place whose highest bits are b or more.
type circle struct {
	n      int
	places []uint64
	owners []uint32
	first  []uint32
	shift  uint8
	dense  bool // some bucket of first is so full that it is better bisected
}

// scan is how many places of one bucket are looked at one by one.
const scan = 16

func makeCircle(n int) *circle {
	return &circle{n: n, places: make([]uint64, n+1), owners: make([]uint32, n+1)}
}

// seal closes the circle.
func (c *circle) seal() { c.places[c.n], c.owners[c.n] = ^uint64(0), c.owners[0] }

// finish completes a circle whose first n places are there.
func (c *circle) finish() *circle {
	c.seal()
	width := bits.Len(uint(c.n))
	c.shift = uint8(64 - width)
	c.first = make([]uint32, 1<<width+1)
	for _, p := range c.places[:c.n] {
		c.first[p>>c.shift+1]++
	}
	sum := uint32(0)
	for b, count := range c.first {
		c.dense = c.dense || count > scan
		sum += count
		c.first[b] = sum
	}
	return c
}

// find returns the index of the place that owns a hash; n stands for the first.
func (c *circle) find(hash uint64) int {
	b := hash >> c.shift
	i := int(c.first[b])
	if c.dense {
		if k := int(c.first[b+1]); k-i > scan {
			return i + sort.Search(k-i, func(j int) bool { return c.places[i+j] >= hash })
		}
	}
	for c.places[i] < hash {
		i++
	}
	return i
}

func (c *circle) locate(hash uint64) uint32 { return c.owners[c.find(hash)] }

// next walks along the circle: a counts the steps from the place that find returned,
// which b holds.
func (c *circle) next(hash uint64, at cursor) (uint32, cursor) {
	if at.a == 0 {
		i := c.find(hash)
		if i == c.n {
			i = 0
		}
		at.b = uint64(i)
	}
	if at.a >= uint64(c.n) {
		return none, at
	}
	owner := c.owners[at.b]
	at.a++
	if at.b++; at.b == uint64(c.n) {
		at.b = 0
	}
	return owner, at
}

func (c *circle) size() int { return 8*len(c.places) + 4*len(c.owners) + 4*len(c.first) }

func (c *circle) nextRange(at uint64) (last uint64, owner uint32, next uint64) {
	return c.places[at], c.owners[at], at + 1
}

// tokens returns the places as a list of its own.
func (c *circle) tokens() []token {
	list := make([]token, c.n)
	for i := range list {
		list[i] = token{c.places[i], c.owners[i]}
	}
	return list
}

// circleOf makes a circle of sorted tokens with distinct places.
func circleOf(list []token) *circle {
	c := makeCircle(len(list))
	for i, t := range list {
		c.places[i], c.owners[i] = t.place, t.owner
	}
	return c.finish()
}

func distinct(list []token) bool {
	for i := 1; i < len(list); i++ {
		if list[i].place == list[i-1].place {
			return false
		}
	}
	return true
}

// sortTokens sorts tokens whose places are spread evenly: into buckets first, then
// by insertion, which is several times as fast as a comparison sort.
func sortTokens(list []token) []token {
	if len(list) < 64 {
		slices.SortFunc(list, byPlace)
		return list
	}
	width := bits.Len(uint(len(list)))
	shift := 64 - width
	start := make([]uint32, 1<<width+1)
	for _, t := range list {
		start[t.place>>shift+1]++
	}
	for b := 1; b < len(start); b++ {
		start[b] += start[b-1]
	}
	sorted := make([]token, len(list))
	for _, t := range list {
		b := t.place >> shift
		sorted[start[b]] = t
		start[b]++
	}
	// start[b] is the end of bucket b now.
	from := uint32(0)
	for _, to := range start[:1<<width] {
		if bucket := sorted[from:to]; len(bucket) > scan {
			slices.SortFunc(bucket, byPlace)
		} else {
			for i := 1; i < len(bucket); i++ {
				for k := i; k > 0 && byPlace(bucket[k], bucket[k-1]) < 0; k-- {
					bucket[k], bucket[k-1] = bucket[k-1], bucket[k]
				}
			}
		}
		from = to
	}
	return sorted
}
