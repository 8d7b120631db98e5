package explore

// Hash stands for a state: equal states have equal ones, and different ones, with all likelihood,
// have not. Of n states two have the same with a probability of n²/2¹²⁹.
type Hash [2]uint64

const (
	shardBits  = 6
	shards     = 1 << shardBits
	indexBits  = 32 - shardBits
	blockBits  = 12
	blockSize  = 1 << blockBits
	entryBytes = 24
)

// ref names a state that was found: a shard, and a place in it.
type ref uint32

// entry is all that is kept of a state: what it was first reached from, and by which step.
type entry struct {
	hash   Hash
	parent ref
	step   uint32
}

// shard is a part of the set of states that were found. Reading it and changing it do not overlap.
type shard struct {
	blocks []*[blockSize]entry
	count  uint32
	slots  []uint32 // open addressing: a place in blocks, plus one
}

// visited is the set of all states that were found.
type visited struct{ shards [shards]shard }

func (h Hash) shard() int { return int(h[1] >> (64 - shardBits)) }

func (v *visited) at(r ref) *entry {
	return v.shards[r>>indexBits].at(uint32(r) & (1<<indexBits - 1))
}

func (s *shard) at(i uint32) *entry { return &s.blocks[i>>blockBits][i&(blockSize-1)] }

func (v *visited) has(h Hash) bool {
	_, ok := v.shards[h.shard()].find(h)
	return ok
}

// find returns the slot that a state is in, or belongs in.
func (s *shard) find(h Hash) (slot uint64, ok bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(s.slots) - 1)
	for slot = h[0] & mask; s.slots[slot] != 0; slot = (slot + 1) & mask {
		if s.at(s.slots[slot]-1).hash == h {
			return slot, true
		}
	}
	return slot, false
}

// insert takes a state in, and returns false if it is there already, or if there is no room.
func (v *visited) insert(e entry) (r ref, isNew, full bool) {
	n := e.hash.shard()
	s := &v.shards[n]
	slot, found := s.find(e.hash)
	if found {
		return 0, false, false
	}
	if s.count == 1<<indexBits {
		return 0, false, true
	}
	if 4*uint64(s.count+1) > 3*uint64(len(s.slots)) {
		s.grow()
		slot, _ = s.find(e.hash)
	}
	if s.count&(blockSize-1) == 0 {
		s.blocks = append(s.blocks, new([blockSize]entry))
	}
	*s.at(s.count) = e
	s.slots[slot] = s.count + 1
	s.count++
	return ref(n)<<indexBits | ref(s.count-1), true, false
}

func (s *shard) grow() {
	s.slots = make([]uint32, max(1024, 2*len(s.slots)))
	mask := uint64(len(s.slots) - 1)
	for i := range s.count {
		slot := s.at(i).hash[0] & mask
		for s.slots[slot] != 0 {
			slot = (slot + 1) & mask
		}
		s.slots[slot] = i + 1
	}
}

// states returns how many there are, and the bytes that they take.
func (v *visited) states() (n, bytes uint64) {
	for i := range v.shards {
		s := &v.shards[i]
		n += uint64(s.count)
		bytes += uint64(len(s.blocks))*blockSize*entryBytes + 4*uint64(len(s.slots))
	}
	return n, bytes
}
