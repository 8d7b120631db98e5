package hashring

import (
	"fmt"
	"math"
)

// Points is the classic ring: every node has points at random places, and a hash
// belongs to the first point at or above it. The ring follows from its members alone,
// in whatever order they came.
type Points struct {
	// PerNode is the number of points of a node for each unit of its weight, rounded,
	// one at least. Default 160. The shares of equal nodes differ by a standard
	// deviation of 1/√PerNode: 8 % with 160, 3.2 % with 1,000. At most 65,536.
	PerNode int
}

const defaultPoints = 160

func (p Points) perNode() int {
	if p.PerNode == 0 {
		return defaultPoints
	}
	return p.PerNode
}

func (p Points) check() error {
	if p.PerNode < 0 || p.PerNode > 1<<16 {
		return &ConfigError{"Points.PerNode", fmt.Sprintf("%d: between 1 and 65,536, or 0 for %d", p.PerNode, defaultPoints)}
	}
	return nil
}

func (p Points) filled() Algorithm { return Points{PerNode: p.perNode()} }
func (p Points) code() byte        { return 1 }
func (p Points) params() []uint64  { return []uint64{uint64(p.perNode())} }

func (p Points) cost(members int, weight float64) float64 {
	return 20 * (float64(members) + weight*float64(p.perNode()))
}

// count returns how many points a member of so much weight has.
func (p Points) count(weight float64) int {
	if weight == 0 {
		return 0
	}
	return max(1, int(math.Round(weight*float64(p.perNode()))))
}

// points is a placement of Points.
type points struct {
	*leaves
	config Points
	shared bool // two members want one place: see place
}

// placeOf returns the place of a member's i-th point.
func placeOf(seed uint64, i int) uint64 { return mix(seed, uint64(i)+1) }

// Where two members want one place, the first in the order of names has it, and the
// other has it back when the first one goes. That hardly ever happens with 64 bits;
// a ring where it did is placed from scratch at each change.
func (p Points) place(list []member) (placement, error) {
	total := 0
	for i := range list {
		if total += p.count(list[i].takes()); total > maxPoints {
			return nil, fmt.Errorf("%w: more than %d points: lower Points.PerNode or raise Config.WeightUnit", ErrTooLarge, maxPoints)
		}
	}
	tokens := make([]token, 0, total)
	for i := range list {
		for k := range p.count(list[i].takes()) {
			tokens = append(tokens, token{placeOf(list[i].seed, k), uint32(i)})
		}
	}
	tokens, shared := unshare(sortTokens(tokens))
	return &points{leavesOf(tokens, len(list)), p, shared}, nil
}

// unshare keeps the first of the tokens that have one place.
func unshare(sorted []token) (list []token, shared bool) {
	if distinct(sorted) {
		return sorted, false
	}
	for _, t := range sorted {
		if len(list) == 0 || list[len(list)-1].place != t.place {
			list = append(list, t)
		}
	}
	return list, true
}

func (r *points) change(c *change) (placement, error) {
	if r.shared {
		return r.config.place(c.now)
	}
	var out, in []token
	total := r.n
	for i := range c.old {
		if c.toNew[i] == none {
			for k := range r.config.count(c.old[i].takes()) {
				out = append(out, token{placeOf(c.old[i].seed, k), none})
			}
		}
	}
	for i := range c.now {
		seed, before, after := c.now[i].seed, r.config.count(c.before(i)), r.config.count(c.now[i].takes())
		for k := after; k < before; k++ {
			out = append(out, token{placeOf(seed, k), uint32(i)})
		}
		if total += after - before; total > maxPoints {
			return nil, fmt.Errorf("%w: more than %d points: lower Points.PerNode or raise Config.WeightUnit", ErrTooLarge, maxPoints)
		}
		for k := before; k < after; k++ {
			in = append(in, token{placeOf(seed, k), uint32(i)})
		}
	}
	merged, ok := r.merge(c.toNew, len(c.now), sortTokens(out), sortTokens(in))
	if !ok {
		return r.config.place(c.now)
	}
	return &points{merged, r.config, false}, nil
}

func (r *points) appendState(b []byte) []byte { return b }
