package hashring

import (
	"fmt"
	"math"
	"slices"
)

// Rendezvous is highest-random-weight hashing: each node draws a number for each
// hash, and the best one has it. It is as even as chance, minimal at any change,
// exact in its weights, depends on the members alone, and takes time in proportion to
// their number: about 1 ns a node. For more nodes, [Asura] or [RendezvousTable] do
// the same in constant time.
type Rendezvous struct{}

func (Rendezvous) check() error                        { return nil }
func (Rendezvous) filled() Algorithm                   { return Rendezvous{} }
func (Rendezvous) code() byte                          { return 3 }
func (Rendezvous) params() []uint64                    { return nil }
func (Rendezvous) cost(members int, _ float64) float64 { return 20 * float64(members) }

// rendezvous is a placement of Rendezvous. The member that draws the smallest number
// wins: x for equal weights, -ln(1-x)/weight else, which is in the same order for
// equal ones.
type rendezvous struct {
	seeds   []uint64 // of those that take keys
	members []uint32 // their numbers; nil: i for the i-th
	inverse []float64
}

func makeRendezvous(list []member) *rendezvous {
	r := &rendezvous{}
	for i := range list {
		if w := list[i].takes(); w != 0 {
			r.seeds = append(r.seeds, list[i].seed)
			r.members = append(r.members, uint32(i))
			r.inverse = append(r.inverse, 1/w)
		}
	}
	if len(r.members) == len(list) {
		r.members = nil
	}
	if equalWeights(list) {
		r.inverse = nil
	}
	return r
}

func (Rendezvous) place(list []member) (placement, error) { return makeRendezvous(list), nil }

func (r *rendezvous) change(c *change) (placement, error) { return makeRendezvous(c.now), nil }

// draw is the number that a member draws for a hash.
func draw(hash, seed uint64) uint64 { return fold(hash^seed, seed^k1) }

// late returns when a member of weight 1 that drew x arrives: exponentially
// distributed.
func late(x uint64) float64 {
	return -ln(1 - unit(x))
}

// unit returns x as a number between 0 and 1.
func unit(x uint64) float64 { return (float64(int64(x>>11)) + 0.5) * (1.0 / (1 << 53)) }

func (r *rendezvous) number(i int) uint32 {
	if r.members == nil {
		return uint32(i)
	}
	return r.members[i]
}

func (r *rendezvous) locate(hash uint64) uint32 {
	if r.inverse != nil {
		return r.number(r.weighted(hash))
	}
	best, least := 0, ^uint64(0)
	for i, seed := range r.seeds {
		if x := draw(hash, seed); x < least {
			best, least = i, x
		}
	}
	return r.number(best)
}

// weighted finds the winner. The logarithm is only taken where it may matter: it is
// never smaller than x.
func (r *rendezvous) weighted(hash uint64) int {
	inverse := r.inverse[:len(r.seeds)]
	best, least, drawn := 0, math.Inf(1), uint64(0)
	for i, seed := range r.seeds {
		x := draw(hash, seed)
		if unit(x)*inverse[i] > least {
			continue
		}
		if t := late(x) * inverse[i]; t < least || t == least && x < drawn {
			best, least, drawn = i, t, x
		}
	}
	return best
}

// next finds the best after the last: a is that one's draw, b its index, c whether
// there is one, d the time of its arrival.
func (r *rendezvous) next(hash uint64, at cursor) (uint32, cursor) {
	after := math.Float64frombits(at.d)
	best, least, drawn := -1, math.Inf(1), uint64(0)
	for i, seed := range r.seeds {
		x := draw(hash, seed)
		t := 0.0
		if r.inverse != nil {
			t = late(x) * r.inverse[i]
		}
		if at.c != 0 && !later(t, x, i, after, at.a, int(at.b)) {
			continue
		}
		if best < 0 || later(least, drawn, best, t, x, i) {
			best, least, drawn = i, t, x
		}
	}
	if best < 0 {
		return none, at
	}
	return r.number(best), cursor{drawn, uint64(best), 1, math.Float64bits(least)}
}

// at returns the cursor that stands at a member.
func (r *rendezvous) at(hash uint64, m uint32) cursor {
	i := int(m)
	if r.members != nil {
		i, _ = slices.BinarySearch(r.members, m)
	}
	x := draw(hash, r.seeds[i])
	t := 0.0
	if r.inverse != nil {
		t = late(x) * r.inverse[i]
	}
	return cursor{x, uint64(i), 1, math.Float64bits(t)}
}

// later compares arrivals: by time, by what was drawn, by index.
func later(t float64, x uint64, i int, t2 float64, x2 uint64, i2 int) bool {
	if t != t2 {
		return t > t2
	}
	if x != x2 {
		return x > x2
	}
	return i > i2
}

func (r *rendezvous) appendState(b []byte) []byte { return b }

func (r *rendezvous) size() int { return 8*len(r.seeds) + 4*len(r.members) + 8*len(r.inverse) }

// RendezvousTable is Rendezvous over a table: each of its slots goes to the node that
// wins it, and a look-up reads the slot. It is the one that is fast, minimal at any
// change and depends on the members alone; the price is balance: a node's share
// differs from its weight by a standard deviation of √(nodes/Slots), and a table for
// many nodes takes time to build: about 1 ns for each slot and node.
type RendezvousTable struct {
	// Slots is the size of the table. Default 65,536, which takes 128 KiB. Rule of
	// thumb: 1,000 times the number of nodes for a deviation of 3 %. At most 4,194,304.
	Slots int
}

func (r RendezvousTable) slots() int {
	if r.Slots == 0 {
		return 1 << 16
	}
	return r.Slots
}

func (r RendezvousTable) check() error {
	if r.Slots < 0 || r.Slots > maxSlots {
		return &ConfigError{"RendezvousTable.Slots", fmt.Sprintf("%d: between 1 and %d, or 0 for 65,536", r.Slots, maxSlots)}
	}
	return nil
}

func (r RendezvousTable) filled() Algorithm         { return RendezvousTable{Slots: r.slots()} }
func (r RendezvousTable) code() byte                { return 5 }
func (r RendezvousTable) params() []uint64          { return []uint64{uint64(r.slots())} }
func (r RendezvousTable) cost(int, float64) float64 { return 2 * float64(r.slots()) }

type rendezvousTable struct {
	slots
	config RendezvousTable
	draws  *rendezvous // who drew what for a slot: for the order of replicas
}

// next goes on from the owner of the slot to those who come after it in the draw for
// the slot. It asks all members each time, so that replicas take as long as with
// Rendezvous; in exchange, they are as stable.
func (t *rendezvousTable) next(hash uint64, at cursor) (uint32, cursor) {
	slot := slotOf(hash, uint64(len(t.owner)))
	hash = slotHash(int(slot))
	if at.c != 0 {
		return t.draws.next(hash, at)
	}
	owner := uint32(t.owner[slot])
	return owner, t.draws.at(hash, owner)
}

func (t *rendezvousTable) size() int { return t.slots.size() + t.draws.size() }

// slotHash is the hash for which members draw for a slot.
func slotHash(i int) uint64 { return mix(uint64(i), k2) }

func (r RendezvousTable) place(list []member) (placement, error) {
	if len(list) > maxSpread {
		return nil, fmt.Errorf("%w: %d nodes, RendezvousTable takes 65,535", ErrTooLarge, len(list))
	}
	draws := makeRendezvous(list)
	t := &rendezvousTable{slots{make([]uint16, r.slots())}, r, draws}
	for i := range t.owner {
		t.owner[i] = uint16(draws.locate(slotHash(i)))
	}
	return t, nil
}

// change lets a member that is new or heavier draw against the owner of each slot;
// the slots of one that is gone or lighter are drawn anew by all.
func (t *rendezvousTable) change(c *change) (placement, error) {
	if len(c.now) > maxSpread {
		return nil, fmt.Errorf("%w: %d nodes, RendezvousTable takes 65,535", ErrTooLarge, len(c.now))
	}
	owner, lost := t.remapped(c.toNew)
	draws := makeRendezvous(c.now)
	lighter := make([]bool, len(c.now))
	var heavier []int
	for i := range c.now {
		before, after := c.before(i), c.now[i].takes()
		lighter[i] = after < before
		if after > before {
			heavier = append(heavier, i)
		}
	}
	again := lost
	for i, o := range t.owner {
		if n := c.toNew[o]; n != none && lighter[n] {
			again = append(again, i)
		}
	}
	for _, i := range again {
		owner[i] = uint16(draws.locate(slotHash(i)))
	}
	if len(heavier) > 0 {
		for i := range owner {
			hash := slotHash(i)
			o := int(owner[i])
			x := draw(hash, c.now[o].seed)
			least := late(x) * (1 / c.now[o].takes())
			for _, k := range heavier {
				if k == o {
					continue
				}
				y := draw(hash, c.now[k].seed)
				inverse := 1 / c.now[k].takes()
				if unit(y)*inverse > least {
					continue
				}
				if t := late(y) * inverse; later(least, x, o, t, y, k) {
					o, x, least = k, y, t
				}
			}
			owner[i] = uint16(o)
		}
	}
	return &rendezvousTable{slots{owner}, t.config, draws}, nil
}

func (t *rendezvousTable) appendState(b []byte) []byte { return b }
