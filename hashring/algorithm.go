package hashring

// Algorithm decides which member owns which hash. [Points], [Allocated], [Jump],
// [Rendezvous], [RendezvousTable], [Maglev], [Asura] and [MultiProbe] are the ones
// that there are; the package comment says which to take. The zero value of each is
// a good default.
type Algorithm interface {
	// check refuses parameters that are out of bounds.
	check() error

	// filled returns the algorithm with its defaults filled in.
	filled() Algorithm

	// place places members for the first time.
	place(list []member) (placement, error)

	// cost returns how many bytes of tables the placement of so many members, of so
	// many units of weight together, takes at most.
	cost(members int, weight float64) float64

	// code is the algorithm's number in the encoding, params its parameters there.
	code() byte
	params() []uint64
}

// placement is an algorithm with its members placed. It is immutable.
type placement interface {
	// locate returns the member that owns a hash.
	locate(hash uint64) uint32

	// next walks through the members in the order in which a hash prefers them. It
	// begins with the zero cursor and the member that locate returns. It may return
	// a member more than once, and returns none after the last, not necessarily
	// after all.
	next(hash uint64, at cursor) (uint32, cursor)

	// change places the members anew after a change, moving as little as the
	// algorithm can.
	change(c *change) (placement, error)

	// appendState appends what does not follow from the members and the parameters.
	appendState(b []byte) []byte

	// size returns the bytes of the tables.
	size() int
}

// ranged is a placement that divides the hash space into ranges.
type ranged interface {
	placement

	// nextRange returns the last hash of the range at a position, its owner, and the
	// position of the next range. The first one is at position 0; the last one ends at
	// the highest hash.
	nextRange(at uint64) (last uint64, owner uint32, next uint64)
}

// cursor is how far a walk through the preferences of a hash has come: plain values,
// so that a walk allocates nothing. What they mean is the placement's own business.
type cursor struct{ a, b, c, d uint64 }

// change is a change of the members.
type change struct {
	old, now []member
	toNew    []uint32 // the new number of each old member; none: it is gone
	toOld    []uint32 // the old number of each new member; none: it is new
}

func compare(old, now []member) *change {
	c := &change{old: old, now: now, toNew: make([]uint32, len(old)), toOld: make([]uint32, len(now))}
	i, k := 0, 0
	for i < len(old) || k < len(now) {
		switch {
		case k == len(now) || i < len(old) && old[i].name < now[k].name:
			c.toNew[i] = none
			i++
		case i == len(old) || now[k].name < old[i].name:
			c.toOld[k] = none
			k++
		default:
			c.toNew[i], c.toOld[k] = uint32(k), uint32(i)
			i, k = i+1, k+1
		}
	}
	return c
}

// before returns the weight with which a new member took keys before.
func (c *change) before(now int) float64 {
	if old := c.toOld[now]; old != none {
		return c.old[old].takes()
	}
	return 0
}
