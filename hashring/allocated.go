package hashring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Allocated is a ring whose points are put where they even out the shares. New
// divides the circle exactly. A node that is added cuts pieces from those that have
// the most for their weight, as few as keep every node within the tolerance.
//
// A node that leaves hands its ranges to the next points, as in every ring, so that
// sets of replicas change by one member; that takes the others past the tolerance by
// and by. Additions make up for it, and [Ring.Rebalance] does at once. Where the
// points are depends on the history of additions, and is part of the encoding.
type Allocated struct {
	// PerNode is the number of points of each node in a ring made by New. A node that
	// is added later gets as many as it needs: about 1/(2·Tolerance). Default 64, at
	// least 2, at most 65,536.
	PerNode int

	// Tolerance is how far a share may be from the node's weight: 0.01 is 1 %. Default
	// 0.01, between 0.0001 and 0.5. Half of it takes twice the points.
	Tolerance float64
}

func (a Allocated) perNode() int {
	if a.PerNode == 0 {
		return 64
	}
	return a.PerNode
}

func (a Allocated) tolerance() float64 {
	if a.Tolerance == 0 {
		return 0.01
	}
	return a.Tolerance
}

func (a Allocated) check() error {
	if n := a.perNode(); n < 2 || n > 1<<16 {
		return &ConfigError{"Allocated.PerNode", fmt.Sprintf("%d: between 2 and 65,536, or 0 for 64", a.PerNode)}
	}
	if t := a.tolerance(); !(t >= 0.0001 && t <= 0.5) {
		return &ConfigError{"Allocated.Tolerance", fmt.Sprintf("%v: between 0.0001 and 0.5, or 0 for 0.01", a.Tolerance)}
	}
	return nil
}

func (a Allocated) filled() Algorithm {
	return Allocated{PerNode: a.perNode(), Tolerance: a.tolerance()}
}

func (a Allocated) code() byte { return 8 }

func (a Allocated) params() []uint64 {
	return []uint64{uint64(a.perNode()), math.Float64bits(a.tolerance())}
}

func (a Allocated) cost(members int, _ float64) float64 {
	return 20 * float64(members) * float64(a.perNode())
}

type allocated struct {
	*circle
	config Allocated
}

// place divides the circle into PerNode rounds, in which each member has one piece,
// in an order that chance decides: so that neighbours differ.
func (a Allocated) place(list []member) (placement, error) {
	rounds := a.perNode()
	shares := fair(list)
	var order []int
	for i := range list {
		if shares[i] > 0 {
			order = append(order, i)
		}
	}
	if len(order)*rounds > maxPoints {
		return nil, fmt.Errorf("%w: more than %d points: lower Allocated.PerNode", ErrTooLarge, maxPoints)
	}
	// Rounds begin at the multiples of 2^64/rounds.
	tokens := make([]token, 0, len(order)*rounds)
	start := uint64(0)
	luck := make([]uint64, len(list))
	for r := range rounds {
		end := ^uint64(0)
		if r < rounds-1 {
			end, _ = bits.Div64(uint64(r+1), 0, uint64(rounds))
			end--
		}
		for _, i := range order {
			luck[i] = mix(list[i].seed, ^uint64(r))
		}
		slices.SortFunc(order, func(i, k int) int { return cmp.Compare(luck[i], luck[k]) })
		width := float64(end - start)
		sum := 0.0
		for n, i := range order {
			sum += shares[i]
			place := start + uint64(min(float64(width*sum), width))
			if n == len(order)-1 || place > end {
				place = end
			}
			tokens = append(tokens, token{place, uint32(i)})
		}
		start = end + 1
	}
	if !distinct(tokens) {
		return nil, fmt.Errorf("%w: pieces too small: lower Allocated.PerNode", ErrTooLarge)
	}
	return &allocated{circleOf(tokens), a}, nil
}

// ledger is who has how much, while points are handed about. Shares are parts of the
// whole.
type ledger struct {
	tokens []token
	have   []float64
	want   []float64
	band   float64 // a share is between want·(1-band) and want·(1+band)
}

func newLedger(tokens []token, want []float64, tolerance float64) *ledger {
	// A hair's breadth inside, so that rounding can't take a share out.
	l := &ledger{tokens: tokens, want: want, band: tolerance * 0.999}
	l.count()
	return l
}

func (l *ledger) length(i int) uint64 {
	if i == 0 {
		return l.tokens[0].place - l.tokens[len(l.tokens)-1].place
	}
	return l.tokens[i].place - l.tokens[i-1].place
}

func (l *ledger) count() {
	l.have = make([]float64, len(l.want))
	for i, t := range l.tokens {
		l.have[t.owner] += float64(l.length(i)) / (1 << 64)
	}
	if len(l.tokens) == 1 {
		l.have[l.tokens[0].owner] = 1
	}
}

// over returns how full a member is: 1 is what it should have.
func (l *ledger) over(i int) float64 { return l.have[i] / l.want[i] }

// grow lets a member take so much from others: first from those that have more than
// they may, then deeper from the same, then from the fullest of the rest; from none
// more than leaves it what it must have.
func (l *ledger) grow(to int, need float64) {
	var donors []int
	for i, w := range l.want {
		if i != to && w > 0 && l.have[i] > w*(1-l.band) {
			donors = append(donors, i)
		}
	}
	slices.SortStableFunc(donors, func(i, k int) int { return cmp.Compare(l.over(k), l.over(i)) })
	give := make([]float64, len(l.want))
	for _, i := range donors {
		give[i] = min(need, max(0, l.have[i]-l.want[i]*(1+l.band)))
		need -= give[i]
	}
	for _, i := range donors {
		more := min(need, l.have[i]-l.want[i]*(1-l.band)-give[i])
		give[i] += more
		need -= more
	}
	l.cut(to, give)
}

// cut puts points of a member before those of others, in their longest ranges, so
// that it takes so much from each. Points are only added: whoever preferred others
// before still prefers them in the same order.
func (l *ledger) cut(to int, give []float64) {
	pieces := make([][]int, len(give))
	for i, t := range l.tokens {
		if give[t.owner] > 0 {
			pieces[t.owner] = append(pieces[t.owner], i)
		}
	}
	var in []token
	for from, list := range pieces {
		if len(list) == 0 {
			continue
		}
		slices.SortStableFunc(list, func(i, k int) int { return cmp.Compare(l.length(k), l.length(i)) })
		sum, n := 0.0, 0
		for n < len(list) && sum < 1.1*give[from] {
			sum += float64(l.length(list[n])) / (1 << 64)
			n++
		}
		if len(l.tokens) == 1 {
			sum = 1
		}
		part := min(give[from]/sum, 0.999)
		for _, i := range list[:n] {
			length := l.length(i)
			piece := uint64(part * float64(length))
			if len(l.tokens) == 1 {
				piece = uint64(part * (1 << 64))
			}
			if piece == 0 || piece == length {
				continue
			}
			in = append(in, token{l.tokens[i].place - length + piece, uint32(to)})
		}
	}
	// Merged from behind: the list has room for both.
	slices.SortFunc(in, byPlace)
	i := len(l.tokens) - 1
	l.tokens = append(l.tokens, in...)
	for k := len(l.tokens) - 1; len(in) > 0; k-- {
		if last := in[len(in)-1]; i < 0 || l.tokens[i].place < last.place {
			l.tokens[k], in = last, in[:len(in)-1]
		} else {
			l.tokens[k] = l.tokens[i]
			i--
		}
	}
	l.count()
}

// shrink moves a member's points back, so that those that come next get so much,
// first those that have the least for their weight.
func (l *ledger) shrink(from int, excess float64) {
	var mine []int
	n := len(l.tokens)
	for i, t := range l.tokens {
		if int(t.owner) == from && int(l.tokens[(i+1)%n].owner) != from {
			mine = append(mine, i)
		}
	}
	after := func(i int) int { return int(l.tokens[(i+1)%n].owner) }
	slices.SortStableFunc(mine, func(i, k int) int { return cmp.Compare(l.over(after(i)), l.over(after(k))) })
	lengths := make([]float64, n)
	for _, i := range mine {
		lengths[i] = float64(l.length(i))
	}
	// Twice: first as far as the next ones have room, then as far as it takes.
	for pass := range 2 {
		for _, i := range mine {
			next := after(i)
			room := math.Inf(1)
			if pass == 0 {
				room = max(0, l.want[next]*(1+l.band)-l.have[next])
			}
			// Some of each range stays, so that the places stay in order.
			part := min(excess, room, lengths[i]*0.9/(1<<64))
			if part <= 0 {
				continue
			}
			l.tokens[i].place -= uint64(part * (1 << 64))
			lengths[i] -= part * (1 << 64)
			l.have[from] -= part
			l.have[next] += part
			excess -= part
		}
	}
	// The first may have gone round to the end.
	if first := l.tokens[0]; n > 1 && first.place > l.tokens[1].place {
		copy(l.tokens, l.tokens[1:])
		l.tokens[n-1] = first
	}
	l.count()
}

func (a *allocated) change(c *change) (placement, error) {
	tokens := make([]token, 0, a.n+a.config.perNode())
	for _, t := range a.tokens() {
		if n := c.toNew[t.owner]; n != none && c.now[n].takes() != 0 {
			tokens = append(tokens, token{t.place, n})
		}
	}
	if len(tokens) == 0 {
		return a.config.place(c.now) // nobody is left that was there before
	}
	l := newLedger(tokens, fair(c.now), a.config.tolerance())
	for i := range c.now {
		if after := c.now[i].takes(); after > 0 && after < c.before(i) && l.have[i] > l.want[i] {
			l.shrink(i, l.have[i]-l.want[i])
		}
	}
	for i := range c.now {
		if c.now[i].takes() > c.before(i) && l.have[i] < l.want[i] {
			l.grow(i, l.want[i]-l.have[i])
		}
	}
	return a.allot(l)
}

// allot makes a circle of what is in the ledger.
func (a *allocated) allot(l *ledger) (placement, error) {
	if len(l.tokens) > maxPoints {
		return nil, fmt.Errorf("%w: more than %d points: raise Allocated.Tolerance, or make the ring anew", ErrTooLarge, maxPoints)
	}
	if !distinct(l.tokens) {
		return nil, fmt.Errorf("%w: pieces too small: make the ring anew", ErrTooLarge)
	}
	return &allocated{circleOf(l.tokens), a.config}, nil
}

// rebalance brings every share back within the tolerance, by moving as little as
// that takes.
func (a *allocated) rebalance(list []member) (placement, error) {
	l := newLedger(a.tokens(), fair(list), a.config.tolerance())
	// Each round satisfies one member for good, but for what rounding leaves.
	for range 2 * len(list) {
		lowest, highest := -1, -1
		for i, w := range l.want {
			if w > 0 && (lowest < 0 || l.over(i) < l.over(lowest)) {
				lowest = i
			}
			if w > 0 && (highest < 0 || l.over(i) > l.over(highest)) {
				highest = i
			}
		}
		switch {
		case l.over(lowest) < 1-l.band:
			// Half way up into the band, so that it is not the next one to fall out.
			l.grow(lowest, l.want[lowest]*(1-l.band/2)-l.have[lowest])
		case l.over(highest) > 1+l.band:
			give := make([]float64, len(l.want))
			give[highest] = min(l.have[highest]-l.want[highest]*(1+l.band/2), l.want[lowest]*(1+l.band)-l.have[lowest])
			l.cut(lowest, give)
		default:
			return a.allot(l)
		}
	}
	return a.allot(l)
}

// appendState writes the points as distances from one to the next, and their owners.
func (a *allocated) appendState(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(a.n))
	before := uint64(0)
	for i, p := range a.places[:a.n] {
		b = binary.AppendUvarint(b, p-before)
		b = binary.AppendUvarint(b, uint64(a.owners[i]))
		before = p
	}
	return b
}

// restoreAllocated reads what appendState wrote.
func restoreAllocated(d *decoder, list []member, config Allocated) (placement, error) {
	n := d.uvarint("number of points")
	if d.err == nil && (n == 0 || n > uint64(d.left())/2 || n > maxPoints) {
		d.fail("as many points as do not fit")
	}
	if d.err != nil {
		return nil, d.err
	}
	tokens := make([]token, n)
	has := make([]bool, len(list))
	place := uint64(0)
	for i := range tokens {
		step, owner := d.uvarint("place"), d.uvarint("owner")
		switch {
		case d.err != nil:
		case i > 0 && (step == 0 || place+step < place):
			d.fail("places out of order")
		case owner >= uint64(len(list)) || list[owner].takes() == 0:
			d.fail("a point of a node that takes no keys")
		}
		if d.err != nil {
			return nil, d.err
		}
		place += step
		tokens[i] = token{place, uint32(owner)}
		has[owner] = true
	}
	for i := range list {
		if list[i].takes() != 0 && !has[i] {
			d.fail("a node without a point")
			return nil, d.err
		}
	}
	return &allocated{circleOf(tokens), config}, nil
}
