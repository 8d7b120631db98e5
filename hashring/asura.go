package hashring

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Asura lets a hash draw slots until it draws one that is taken. A node has a slot
// for each unit of its weight, and the rest of its weight is a slot that turns away
// in proportion. It is as even as chance for any weights, minimal at any change, and
// needs a few bytes a node. Where a key is depends on who holds which slot, not on the
// order in which others left. Which slot a newcomer gets, the lowest free one, does
// depend on history, and is part of the encoding: rings that were decoded from one
// another agree, as do rings that removed the same nodes in any order; New sorts by
// name.
//
// A look-up draws about as often as there are slots for each unit of weight: once in
// a full ring, twice when half of the nodes left. A ring that shrank or grew much for
// good is rebuilt with New. Weights far below Config.WeightUnit cost draws in the same
// way.
type Asura struct{}

const (
	asuraLevels = 16      // sets of slots that a ring grows by
	asuraSlots  = 1 << 20 // slots in all
	asuraDraws  = 255     // of one level, before all nodes are asked instead
)

func (Asura) check() error      { return nil }
func (Asura) filled() Algorithm { return Asura{} }
func (Asura) code() byte        { return 6 }
func (Asura) params() []uint64  { return nil }
func (Asura) cost(members int, weight float64) float64 {
	return 8*2*(float64(members)+weight) + 20*float64(members)
}

// asura is a placement of Asura. Slots come in levels: level 0 are those that New
// needed, and each further level is what the ring grew by when they were all given
// away. Each level has a sequence of draws of its own. A draw of a level is a number
// below upTo[level]: a slot of the level, or, in proportion, one of those below, and
// then the next draw of the level below counts. So a further level puts draws between
// the others and changes none of them.
type asura struct {
	upTo    []uint32 // the slots of each level and those below it
	owner   []uint32 // of each slot; none: free
	accept  []uint32 // of 1<<32, how often a slot is accepted; always: every time. nil: all are
	members []member
	last    *rendezvous // asked where nothing was drawn for long
}

const always = ^uint32(0)

// nth is the word that decides the draws of a number, for all levels.
func nth(hash, i uint64) uint64 {
	if i == 0 {
		return hash
	}
	return fold(hash^i*k3, k0)
}

// levelKey are odd numbers, one a level, so that levels draw independently.
func levelKey(k int) uint64 { return k1 + uint64(k)*(k2<<1) }

// accepts reports whether a draw of a slot counts.
func (a *asura) accepts(slot, chance uint64) bool {
	return a.owner[slot] != none && (a.accept == nil || a.accept[slot] == always || uint32(chance>>32) < a.accept[slot])
}

func (a *asura) locate(hash uint64) uint32 {
	if len(a.upTo) > 1 {
		owner, _ := a.next(hash, cursor{})
		return owner
	}
	// One level: its draws, one after the other.
	slot, chance := bits.Mul64(hash, uint64(len(a.owner)))
	if a.accept == nil {
		if o := a.owner[slot]; o != none {
			return o
		}
		for i := uint64(1); i < asuraDraws; i++ {
			slot, _ = bits.Mul64(fold(hash^i*k3, k0), uint64(len(a.owner)))
			if o := a.owner[slot]; o != none {
				return o
			}
		}
	} else {
		for i := uint64(1); i <= asuraDraws; i++ {
			if a.accepts(slot, chance) {
				return a.owner[slot]
			}
			slot, chance = bits.Mul64(fold(hash^i*k3, k0), uint64(len(a.owner)))
		}
	}
	return a.last.locate(hash)
}

// next draws on: c and d count the draws of each level, 8 bits each; a tells that the
// draws are over and members are tried in the order of rendezvous hashing, where b
// tells whether the walk has begun or ended, and c the last one.
func (a *asura) next(hash uint64, at cursor) (uint32, cursor) {
	if at.a == 1 {
		return a.rest(hash, at)
	}
	top := len(a.upTo) - 1
	k := top
	for {
		counts := &at.c
		if k >= 8 {
			counts = &at.d
		}
		shift := uint(k%8) * 8
		i := *counts >> shift & 0xff
		if i == asuraDraws {
			return a.rest(hash, cursor{a: 1})
		}
		*counts += 1 << shift
		word := nth(hash, i)
		if k > 0 {
			key := levelKey(k)
			word = fold(word^key, key)
		}
		slot, chance := bits.Mul64(word, uint64(a.upTo[k]))
		if k > 0 && slot < uint64(a.upTo[k-1]) {
			k--
			continue
		}
		if a.accepts(slot, chance) {
			return a.owner[slot], at
		}
		k = top
	}
}

func (a *asura) rest(hash uint64, at cursor) (uint32, cursor) {
	if at.c == 0 && at.b == 1 {
		return none, at
	}
	inner := cursor{}
	if at.b != 0 {
		inner = a.last.at(hash, a.last.number(int(at.c-1)))
	}
	m, inner := a.last.next(hash, inner)
	if m == none {
		return none, cursor{a: 1, b: 1}
	}
	return m, cursor{a: 1, b: 2, c: inner.b + 1}
}

func (a *asura) size() int { return 4*len(a.upTo) + 4*len(a.owner) + 4*len(a.accept) + a.last.size() }

// wants returns how many slots a weight takes, and how often the last is accepted.
func wants(weight float64) (count int, last uint32) {
	count = int(math.Ceil(weight))
	part := weight - float64(count-1)
	if part >= 1 {
		return count, always
	}
	return count, max(1, uint32(part*(1<<32)))
}

func (Asura) place(list []member) (placement, error) {
	a := &asura{members: list}
	return a.assign(nil)
}

// assign gives slots to all members, those in held first, and lists by member what
// they hold already.
func (a *asura) assign(held [][]uint32) (placement, error) {
	need := 0
	for i := range a.members {
		if t := a.members[i].takes(); t != 0 {
			count, _ := wants(t)
			need += count
		}
	}
	if need > asuraSlots {
		return nil, fmt.Errorf("%w: %d slots of %d: Asura takes a slot for each unit of weight: raise Config.WeightUnit", ErrTooLarge, need, asuraSlots)
	}
	if have := len(a.owner); need > have {
		// A quarter more, so that the next ones find room; later levels are larger, so
		// that levels last.
		if have > 0 {
			grow := have / 4
			if len(a.upTo) > asuraLevels/2 {
				grow = have
			}
			need = min(max(need, have+grow), asuraSlots)
		}
		if len(a.upTo) == asuraLevels {
			return nil, fmt.Errorf("%w: the ring has grown %d times: make it anew", ErrTooLarge, asuraLevels-1)
		}
		a.upTo = append(slices.Clip(a.upTo), uint32(need))
		for len(a.owner) < need {
			a.owner = append(a.owner, none)
		}
	}
	accept := make([]uint32, len(a.owner))
	partly := false
	free := 0
	for i := range a.members {
		t := a.members[i].takes()
		if t == 0 {
			continue
		}
		count, last := wants(t)
		for k := range count {
			var slot uint32
			if held != nil && k < len(held[i]) {
				slot = held[i][k]
			} else {
				for a.owner[free] != none {
					free++
				}
				slot = uint32(free)
				a.owner[slot] = uint32(i)
			}
			accept[slot] = always
			if k == count-1 && last != always {
				accept[slot], partly = last, true
			}
		}
	}
	if partly {
		a.accept = accept
	}
	a.last = makeRendezvous(a.members)
	return a, nil
}

// held returns the slots of each member, in the order in which they were given: the
// lowest first, but the one that is accepted in part last.
func (a *asura) held() [][]uint32 {
	held := make([][]uint32, len(a.members))
	for s, o := range a.owner {
		if o != none {
			held[o] = append(held[o], uint32(s))
		}
	}
	if a.accept != nil {
		for _, list := range held {
			for i, s := range list {
				if a.accept[s] != always {
					copy(list[i:], list[i+1:])
					list[len(list)-1] = s
					break
				}
			}
		}
	}
	return held
}

func (a *asura) change(c *change) (placement, error) {
	now := &asura{upTo: a.upTo, owner: make([]uint32, len(a.owner)), members: c.now}
	for s := range now.owner {
		now.owner[s] = none
	}
	held := make([][]uint32, len(c.now))
	for old, list := range a.held() {
		n := c.toNew[old]
		if n == none || c.now[n].takes() == 0 {
			continue
		}
		count, _ := wants(c.now[n].takes())
		held[n] = list[:min(count, len(list))]
		for _, s := range held[n] {
			now.owner[s] = n
		}
	}
	return now.assign(held)
}

// appendState writes the number of levels and the slots of each, then the slots of
// each member: ascending, but the one that is accepted in part comes last.
func (a *asura) appendState(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(a.upTo)))
	below := uint32(0)
	for _, n := range a.upTo {
		b = binary.AppendUvarint(b, uint64(n-below))
		below = n
	}
	for i, list := range a.held() {
		if a.members[i].takes() == 0 {
			continue
		}
		for _, s := range list {
			b = binary.AppendUvarint(b, uint64(s))
		}
	}
	return b
}

// restoreAsura reads what appendState wrote.
func restoreAsura(d *decoder, list []member) (placement, error) {
	levels := d.count("levels", asuraLevels, 1)
	if d.err == nil && levels == 0 {
		d.fail("no levels")
	}
	a := &asura{members: list}
	total := uint64(0)
	for range levels {
		n := d.uvarint("level")
		if total += n; n == 0 || n > asuraSlots || total > asuraSlots {
			d.fail("a level without slots, or with more than there may be")
		}
		a.upTo = append(a.upTo, uint32(total))
	}
	need := 0
	for i := range list {
		if t := list[i].takes(); t != 0 {
			count, _ := wants(t)
			need += count
		}
	}
	if d.err == nil && (need > d.left() || uint64(need) > total) {
		d.fail("fewer slots than the weights need")
	}
	// A ring keeps the slots that its nodes left, so that there may be more than its
	// nodes need.
	if d.err == nil && 8*total > uint64(d.tables) {
		return nil, fmt.Errorf("%w: %d slots: DecodeConfig.MaxTableBytes is %d", ErrTooLarge, total, d.tables)
	}
	if d.err != nil {
		return nil, d.err
	}
	a.owner = slices.Repeat([]uint32{none}, int(total))
	held := make([][]uint32, len(list))
	for i := range list {
		t := list[i].takes()
		if t == 0 {
			continue
		}
		count, last := wants(t)
		for k := range count {
			s := d.uvarint("slot")
			if d.err == nil && (s >= uint64(len(a.owner)) || a.owner[s] != none) {
				d.fail(fmt.Sprintf("slot %d is not there, or is given twice", s))
			}
			full := count
			if last != always {
				full--
			}
			if d.err == nil && k > 0 && k < full && uint32(s) < held[i][k-1] {
				d.fail("slots out of order")
			}
			if d.err != nil {
				return nil, d.err
			}
			a.owner[s] = uint32(i)
			held[i] = append(held[i], uint32(s))
		}
	}
	return a.assign(held)
}
