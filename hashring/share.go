package hashring

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
)

// Share is a part of the hash space, exact: a number of the 2^64 hashes. The zero
// value is nothing. Shares can be compared with ==.
type Share struct{ high, low uint64 }

// Whole is the share of a node that owns everything.
func Whole() Share { return Share{high: 1} }

// rangeShare is the share of the hashes from first to last, both included.
func rangeShare(first, last uint64) Share {
	return Share{low: last - first}.Add(Share{low: 1})
}

// Add returns the sum.
func (s Share) Add(t Share) Share {
	low, carry := bits.Add64(s.low, t.low, 0)
	return Share{s.high + t.high + carry, low}
}

// Sub returns the difference, or nothing if t is more than s.
func (s Share) Sub(t Share) Share {
	if s.Cmp(t) < 0 {
		return Share{}
	}
	low, borrow := bits.Sub64(s.low, t.low, 0)
	return Share{s.high - t.high - borrow, low}
}

// Cmp compares: -1 if s is less than t, 0 if they are equal, 1 if it is more.
func (s Share) Cmp(t Share) int {
	if c := cmp.Compare(s.high, t.high); c != 0 {
		return c
	}
	return cmp.Compare(s.low, t.low)
}

// Float64 returns the share as a part of 1, rounded.
func (s Share) Float64() float64 { return float64(s.high) + math.Ldexp(float64(s.low), -64) }

// String returns the share in percent, to four digits behind the point.
func (s Share) String() string { return fmt.Sprintf("%.4f %%", 100*s.Float64()) }

// shareOf returns a share that is given as a part of 1.
func shareOf(x float64) Share {
	if x >= 1 {
		return Whole()
	}
	return Share{low: uint64(math.Ldexp(max(0, x), 64))}
}

// NodeShare is how much of the hash space a node owns.
type NodeShare[N any] struct {
	Node  N
	Share Share
	Fair  float64 // the node's part of the weight of all that take keys: 0 if it is draining
}

// Shares returns what each node owns, by name. They are counted out, and exact, for
// the algorithms that make ranges of hashes: [Points], [Allocated], [Maglev] and
// [RendezvousTable]. For the others, exact is false, and they are the probabilities
// with which an evenly spread hash belongs to the nodes, rounded down.
func (r *Ring[N]) Shares() (shares []NodeShare[N], exact bool) {
	fair := fair(r.list)
	owned, exact := r.owned(fair)
	shares = make([]NodeShare[N], len(r.ids))
	for i := range shares {
		shares[i] = NodeShare[N]{r.ids[i], owned[i], fair[i]}
	}
	return shares, exact
}

func (r *Ring[N]) owned(fair []float64) (owned []Share, exact bool) {
	owned = make([]Share, len(r.list))
	switch p := r.placed.(type) {
	case *multiProbe:
		for i, x := range p.expected(len(owned)) {
			owned[i] = shareOf(x)
		}
		return owned, false
	case ranged:
		for first, at := uint64(0), uint64(0); ; {
			last, owner, next := p.nextRange(at)
			owned[owner] = owned[owner].Add(rangeShare(first, last))
			if last == ^uint64(0) {
				return owned, true
			}
			first, at = last+1, next
		}
	}
	for i, x := range fair {
		owned[i] = shareOf(x)
	}
	return owned, false
}

// Move is a range of hashes that changes hands.
type Move[N any] struct {
	First, Last uint64 // both included
	From, To    N
}

// Share returns how much of the hash space it is.
func (m Move[N]) Share() Share { return rangeShare(m.First, m.Last) }

// Difference is what changes hands between two versions.
type Difference[N any] struct {
	Old, New uint64    // the versions
	Moves    []Move[N] // ascending, without overlap; neighbours differ in From or To
	Moved    Share     // the sum of the shares of the moves

	// Bound is what anything that goes from the one's shares to the other's must move:
	// the sum of what nodes have gained. Moved is never less, and equal if nothing
	// moves between nodes that the change does not concern.
	Bound Share

	// Fair is what anything must move that gives each node its part of the weights,
	// exactly, before and after: as [LowerBound] returns it.
	Fair float64
}

// Diff returns the ranges of hashes that another node owns in one ring than in
// another. The rings may be of any two versions, and of different algorithms. It
// returns [ErrNoRanges] if one of them is not of an algorithm that makes ranges; and
// for such rings, [LowerBound] still says what must move.
func Diff[N any](old, new *Ring[N]) (*Difference[N], error) {
	a, ok := rangesOf(old.placed)
	b, ok2 := rangesOf(new.placed)
	if !ok || !ok2 {
		return nil, ErrNoRanges
	}
	// Owners are compared by their numbers in the new ring.
	toNew := compare(old.list, new.list).toNew
	gained := make([]Share, len(new.list))
	lost := make([]Share, len(new.list))
	d := &Difference[N]{Old: old.version, New: new.version, Fair: LowerBound(old, new)}
	lastA, ownerA, atA := a.nextRange(0)
	lastB, ownerB, atB := b.nextRange(0)
	first := uint64(0)
	before, behind := none, none // the old and the new owner of the last move
	for {
		last := min(lastA, lastB)
		if from := toNew[ownerA]; from != ownerB {
			n := len(d.Moves)
			if n > 0 && d.Moves[n-1].Last+1 == first && before == ownerA && behind == ownerB {
				d.Moves[n-1].Last = last
			} else {
				d.Moves = append(d.Moves, Move[N]{first, last, old.ids[ownerA], new.ids[ownerB]})
			}
			before, behind = ownerA, ownerB
			share := rangeShare(first, last)
			d.Moved = d.Moved.Add(share)
			gained[ownerB] = gained[ownerB].Add(share)
			if from != none {
				lost[from] = lost[from].Add(share)
			}
		}
		if last == ^uint64(0) {
			break
		}
		first = last + 1
		if lastA == last {
			lastA, ownerA, atA = a.nextRange(atA)
		}
		if lastB == last {
			lastB, ownerB, atB = b.nextRange(atB)
		}
	}
	for n := range gained {
		d.Bound = d.Bound.Add(gained[n].Sub(lost[n]))
	}
	return d, nil
}

// rangesOf returns a placement as ranges, if its ranges are whose hashes they seem.
func rangesOf(p placement) (ranged, bool) {
	if _, ok := p.(*multiProbe); ok {
		return nil, false
	}
	r, ok := p.(ranged)
	return r, ok
}

// LowerBound returns the part of all keys that any algorithm must move from one ring
// to another if it gives each node its part of the weights: the sum of what the
// nodes' parts grow by.
func LowerBound[N any](old, new *Ring[N]) float64 {
	before, after := fair(old.list), fair(new.list)
	sum := 0.0
	for i, k := range compare(old.list, new.list).toOld {
		if k == none {
			sum += after[i]
		} else {
			sum += max(0, after[i]-before[k])
		}
	}
	return sum
}
