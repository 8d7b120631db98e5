package hashring

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Jump is the jump consistent hash of Lamping and Veach: no memory to speak of, and
// even shares, for nodes of equal weight. Where the last node in its order leaves,
// movement is minimal; where another one does, the last takes its place, which moves
// up to twice the need. The order depends on history and is part of the encoding: New
// sorts by name, and what is added comes last.
type Jump struct{}

func (Jump) check() error                        { return nil }
func (Jump) filled() Algorithm                   { return Jump{} }
func (Jump) code() byte                          { return 2 }
func (Jump) params() []uint64                    { return nil }
func (Jump) cost(members int, _ float64) float64 { return 4 * float64(members) }

// jump is a placement of Jump.
type jump struct {
	order []uint32 // the members that take keys, by bucket
}

// jumpHash is the published function.
func jumpHash(key uint64, buckets int) int {
	b, j := int64(-1), int64(0)
	for j < int64(buckets) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64((key>>33)+1)))
	}
	return int(b)
}

func (j *jump) locate(hash uint64) uint32 { return j.order[jumpHash(hash, len(j.order))] }

// next hashes anew for each further member. It gives up when that finds nobody new
// for long.
func (j *jump) next(hash uint64, at cursor) (uint32, cursor) {
	if at.a > 8*uint64(len(j.order))+64 {
		return none, at
	}
	if at.a > 0 {
		hash = mix(hash, at.a)
	}
	at.a++
	return j.locate(hash), at
}

func (j *jump) size() int { return 4 * len(j.order) }

func equalOnly(list []member, algorithm string) error {
	if equalWeights(list) {
		return nil
	}
	for i := range list {
		if t := list[i].takes(); t != 0 && t != 1 {
			return &NodeError{Node: list[i].name, Err: ErrWeight, Reason: algorithm + " takes nodes of equal weight only: Asura, Rendezvous and Maglev take any"}
		}
	}
	return nil
}

func (Jump) place(list []member) (placement, error) {
	if err := equalOnly(list, "Jump"); err != nil {
		return nil, err
	}
	j := &jump{}
	for i := range list {
		if list[i].takes() != 0 {
			j.order = append(j.order, uint32(i))
		}
	}
	return j, nil
}

func (j *jump) change(c *change) (placement, error) {
	if err := equalOnly(c.now, "Jump"); err != nil {
		return nil, err
	}
	now := &jump{order: make([]uint32, len(j.order), len(j.order)+1)}
	for i, old := range j.order {
		now.order[i] = c.toNew[old]
		if n := c.toNew[old]; n != none && c.now[n].takes() == 0 {
			now.order[i] = none
		}
	}
	for i := range c.now {
		if c.before(i) == 0 && c.now[i].takes() != 0 {
			if gap := slices.Index(now.order, none); gap >= 0 {
				now.order[gap] = uint32(i)
			} else {
				now.order = append(now.order, uint32(i))
			}
		}
	}
	// The last ones fill the gaps that are left.
	for {
		last := len(now.order) - 1
		if last >= 0 && now.order[last] == none {
			now.order = now.order[:last]
			continue
		}
		gap := slices.Index(now.order, none)
		if gap < 0 {
			return now, nil
		}
		now.order[gap] = now.order[last]
		now.order = now.order[:last]
	}
}

func (j *jump) appendState(b []byte) []byte {
	for _, m := range j.order {
		b = binary.AppendUvarint(b, uint64(m))
	}
	return b
}

// restoreJump reads what appendState wrote.
func restoreJump(d *decoder, list []member) (placement, error) {
	j := &jump{}
	seen := make([]bool, len(list))
	for i := range list {
		if list[i].takes() == 0 {
			continue
		}
		m := d.uvarint("bucket")
		if d.err == nil && (m >= uint64(len(list)) || seen[m] || list[m].takes() == 0) {
			d.fail(fmt.Sprintf("bucket %d belongs to no node of its own", len(j.order)))
		}
		if d.err != nil {
			return nil, d.err
		}
		seen[m] = true
		j.order = append(j.order, uint32(m))
	}
	return j, nil
}
