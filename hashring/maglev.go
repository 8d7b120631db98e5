package hashring

import (
	"fmt"
)

// Maglev is the look-up table of Google's load balancer: the fastest look-up, shares
// within a slot or so of the weights, at the price of some movement beyond the need: a
// change also moves a few keys between nodes that it does not concern.
type Maglev struct {
	// Slots is the size of the table, a prime. Default 65,537, which takes 128 KiB.
	// Rule of thumb: 100 times the number of nodes, so that shares differ by 1 % at
	// most. At most 4,194,301.
	Slots int
}

const (
	defaultSlots = 65537
	maxSlots     = 1 << 22
)

func (m Maglev) slots() int {
	if m.Slots == 0 {
		return defaultSlots
	}
	return m.Slots
}

func (m Maglev) check() error {
	if s := m.slots(); s < 2 || s > maxSlots || !prime(s) {
		return &ConfigError{"Maglev.Slots", fmt.Sprintf("%d: a prime up to %d, or 0 for %d", m.Slots, maxSlots, defaultSlots)}
	}
	return nil
}

func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

func (m Maglev) filled() Algorithm         { return Maglev{Slots: m.slots()} }
func (m Maglev) code() byte                { return 4 }
func (m Maglev) params() []uint64          { return []uint64{uint64(m.slots())} }
func (m Maglev) cost(int, float64) float64 { return 2 * float64(m.slots()) }

type maglev struct {
	slots
	config Maglev
}

// place lets the members take turns: each takes the first slot that is free in an
// order of its own. A member of less weight than the heaviest sits out some turns.
func (m Maglev) place(list []member) (placement, error) {
	size := uint32(m.slots())
	type player struct {
		at, skip    uint32
		owner       uint16
		turns, gain float64
	}
	players := make([]player, 0, len(list))
	heaviest := 0.0
	for i := range list {
		heaviest = max(heaviest, list[i].takes())
	}
	for i := range list {
		if list[i].takes() == 0 {
			continue
		}
		if i > maxSpread || len(players) == int(size) {
			return nil, fmt.Errorf("%w: %d nodes in a table of %d slots: raise Maglev.Slots, up to 65,535 nodes", ErrTooLarge, len(list), size)
		}
		h := mix(list[i].seed, k2)
		players = append(players, player{
			at:    uint32(slotOf(h, uint64(size))),
			skip:  uint32(slotOf(mix(h, k3), uint64(size-1))) + 1,
			owner: uint16(i),
			// What is left of a turn is kept, so that in the end each has had its share
			// of turns, to within one or so.
			turns: 0.5,
			gain:  list[i].takes() / heaviest,
		})
	}
	table := make([]uint16, size)
	taken := make([]uint64, size/64+1)
	for left := size; left > 0; {
		for p := range players {
			pl := &players[p]
			if pl.turns += pl.gain; pl.turns < 1 {
				continue
			}
			pl.turns--
			at, skip := pl.at, pl.skip
			for taken[at/64]&(1<<(at%64)) != 0 {
				// Without a branch: where it would go is anybody's guess.
				at += skip
				over := at - size
				at = over + size&uint32(int32(over)>>31)
			}
			taken[at/64] |= 1 << (at % 64)
			table[at] = pl.owner
			pl.at = at
			if left--; left == 0 {
				break
			}
		}
	}
	return &maglev{slots{table}, m}, nil
}

func (t *maglev) change(c *change) (placement, error) { return t.config.place(c.now) }
func (t *maglev) appendState(b []byte) []byte         { return b }
