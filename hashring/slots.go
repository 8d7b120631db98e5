package hashring

import (
	"math/bits"
)

// slots is a table of equal ranges of hashes, each with its owner.
type slots struct {
	owner []uint16
}

// slotOf returns the slot that a hash is in: the i-th of m slots begins at the hash
// i·2^64/m, rounded up.
func slotOf(hash, m uint64) uint64 {
	i, _ := bits.Mul64(hash, m)
	return i
}

func (s *slots) locate(hash uint64) uint32 {
	i, _ := bits.Mul64(hash, uint64(len(s.owner)))
	return uint32(s.owner[i])
}

// next walks along the table.
func (s *slots) next(hash uint64, at cursor) (uint32, cursor) {
	if at.a == 0 {
		at.b = slotOf(hash, uint64(len(s.owner)))
	}
	if at.a >= uint64(len(s.owner)) {
		return none, at
	}
	owner := uint32(s.owner[at.b])
	at.a++
	if at.b++; at.b == uint64(len(s.owner)) {
		at.b = 0
	}
	return owner, at
}

func (s *slots) size() int { return 2 * len(s.owner) }

func (s *slots) nextRange(at uint64) (last uint64, owner uint32, next uint64) {
	return lastOf(int(at), len(s.owner)), uint32(s.owner[at]), at + 1
}

// lastOf returns the last hash of the i-th of m slots: one before the first hash of
// the next, which is (i+1)·2^64/m rounded up.
func lastOf(i, m int) uint64 {
	if i == m-1 {
		return ^uint64(0)
	}
	quotient, remainder := bits.Div64(uint64(i+1), 0, uint64(m))
	if remainder == 0 {
		quotient--
	}
	return quotient
}

// remapped returns a copy in new numbers; what is gone has no owner yet, and is
// listed.
func (s *slots) remapped(toNew []uint32) (owner []uint16, lost []int) {
	owner = make([]uint16, len(s.owner))
	for i, o := range s.owner {
		if n := toNew[o]; n != none {
			owner[i] = uint16(n)
		} else {
			lost = append(lost, i)
		}
	}
	return owner, lost
}
