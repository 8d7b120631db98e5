package replica

//synod:core

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/synod-go/synod"
)

// sessionTable is what a group remembers of its sessions: which commands of each
// were applied, and the results that may be asked for again. It is a part of the
// replicated state: it changes by entries of the log alone, and is equal on all
// replicas at equal positions, but for the results. Those are a courtesy: which of
// them are kept depends on restarts, where a state machine has a disk of its own, and
// decides nothing.
//
// Time is what leaders have seen pass between two entries of theirs. A gap between
// two leaders does not count. So no clock needs to be right, and a session that is in
// use does not expire because another node's clock is ahead; one that is not may live
// longer than it asked for.
type sessionTable struct {
	time     uint64 // in milliseconds
	boot     uint64 // which run of which leader it was last taken from
	clock    uint64 // what that one's clock showed
	limit    uint64 // bytes of results
	sessions map[uint64]*sessionState
	expiry   sessionHeap

	results        map[resultKey]*keptResult
	oldest, newest *keptResult // in the order in which they were applied
	bytes          uint64
}

// sessionState is one session. Of each number from floor to floor+SessionWindow it
// says whether the command was applied.
type sessionState struct {
	id       uint64
	ttl      uint64 // in milliseconds
	last     uint64 // the time of its last use
	floor    uint64 // no number below is accepted any more
	applied  [synod.SessionWindow / 64]uint64
	deadline uint64 // when to look whether it has expired: not after it has
	at       int    // in the heap
}

type resultKey struct{ session, sequence uint64 }

// keptResult is the result of a command that was applied.
type keptResult struct {
	resultKey
	of            *sessionState
	result        []byte
	waiting       bool // for the state machine, which has the command
	dropped       bool
	before, after *keptResult
}

const (
	// resultOverhead is what a kept result counts for beside its bytes: about what it takes.
	resultOverhead = 128

	defaultSessions     = 1 << 16
	maxSessions         = 1 << 20
	defaultSessionBytes = 64 << 20
	maxSessionBytes     = 1 << 30

	defaultSessionMillis = 60 * 60 * 1000
	maxSessionMillis     = 100 * 365 * 24 * 60 * 60 * 1000
)

func newSessionTable() *sessionTable {
	return &sessionTable{sessions: make(map[uint64]*sessionState), results: make(map[resultKey]*keptResult)}
}

// unused reports whether the log has never had anything to do with sessions.
func (t *sessionTable) unused() bool {
	return t.boot == 0 && t.clock == 0 && t.time == 0 && len(t.sessions) == 0
}

// advance takes in the clock of a leader, and removes the sessions that have expired.
// It returns how many.
func (t *sessionTable) advance(boot, clock uint64) (expired int) {
	if boot == t.boot && clock > t.clock {
		t.time += min(clock-t.clock, math.MaxUint64/2-t.time)
	}
	if boot != t.boot || clock > t.clock {
		t.boot, t.clock = boot, clock
	}
	for len(t.expiry) > 0 && t.expiry[0].deadline < t.time {
		s := t.expiry[0]
		// It may have been used since its deadline was set.
		if s.deadline = s.last + s.ttl; s.deadline < t.time {
			t.remove(s)
			expired++
		} else {
			heap.Fix(&t.expiry, 0)
		}
	}
	return expired
}

// open adds a session and returns its ID: the one that was asked for, if it is free;
// 0 if there are too many.
func (t *sessionTable) open(id, ttl, sessions, resultBytes uint64) uint64 {
	t.limit = resultBytes
	t.evict()
	if uint64(len(t.sessions)) >= sessions {
		return 0
	}
	for id == 0 || t.sessions[id] != nil {
		id++
	}
	t.add(&sessionState{id: id, ttl: ttl, last: t.time, floor: 1})
	return id
}

func (t *sessionTable) add(s *sessionState) {
	s.deadline = s.last + s.ttl
	t.sessions[s.id] = s
	heap.Push(&t.expiry, s)
}

func (t *sessionTable) close(id uint64) {
	if s := t.sessions[id]; s != nil {
		t.remove(s)
	}
}

func (t *sessionTable) remove(s *sessionState) {
	t.raise(s, s.floor+synod.SessionWindow)
	delete(t.sessions, s.id)
	heap.Remove(&t.expiry, s.at)
}

// verdict is what becomes of a request.
type verdict uint8

const (
	requestNew verdict = iota // it is to be applied
	requestRepeated
	requestLost // repeated, and its result is not kept
	requestStale
	requestExpired
)

// request takes in a request. Of one that is new it notes that it is applied: hand the
// result, which is returned, to keep, or to drop.
func (t *sessionTable) request(r synod.Request) (verdict, *keptResult) {
	s := t.sessions[r.Session]
	if s == nil {
		return requestExpired, nil
	}
	s.last = t.time
	t.raise(s, r.Floor)
	if r.Sequence < s.floor {
		return requestStale, nil
	}
	key := resultKey{r.Session, r.Sequence}
	if s.has(r.Sequence) {
		if k := t.results[key]; k != nil {
			return requestRepeated, k
		}
		return requestLost, nil
	}
	s.applied[r.Sequence%synod.SessionWindow/64] |= 1 << (r.Sequence % 64)
	k := &keptResult{resultKey: key, of: s, waiting: true}
	t.link(k)
	return requestNew, k
}

func (s *sessionState) has(sequence uint64) bool {
	return s.applied[sequence%synod.SessionWindow/64]&(1<<(sequence%64)) != 0
}

// raise forgets what is below a floor.
func (t *sessionTable) raise(s *sessionState, floor uint64) {
	for n := s.floor; n < min(floor, s.floor+synod.SessionWindow); n++ {
		if s.has(n) {
			s.applied[n%synod.SessionWindow/64] &^= 1 << (n % 64)
			if k := t.results[resultKey{s.id, n}]; k != nil {
				t.drop(k)
			}
		}
	}
	s.floor = max(s.floor, floor)
}

// link adds a result that the state machine will give.
func (t *sessionTable) link(k *keptResult) {
	t.results[k.resultKey] = k
	if k.before = t.newest; k.before != nil {
		k.before.after = k
	} else {
		t.oldest = k
	}
	t.newest = k
}

// keep sets the result of a command, of which it makes a copy.
func (t *sessionTable) keep(k *keptResult, result []byte) {
	if k.dropped {
		return // its session, or its client, has no use for it any more
	}
	k.result, k.waiting = slices.Clone(result), false
	t.bytes += resultOverhead + uint64(len(result))
	t.evict()
}

// evict drops the oldest results until those that are left are within the limit.
func (t *sessionTable) evict() {
	for t.bytes > t.limit && t.oldest != nil && !t.oldest.waiting {
		t.drop(t.oldest)
	}
}

func (t *sessionTable) drop(k *keptResult) {
	if !k.waiting {
		t.bytes -= resultOverhead + uint64(len(k.result))
	}
	k.dropped = true
	delete(t.results, k.resultKey)
	if k.before != nil {
		k.before.after = k.after
	} else {
		t.oldest = k.after
	}
	if k.after != nil {
		k.after.before = k.before
	} else {
		t.newest = k.before
	}
	k.before, k.after = nil, nil
}

// The encoded form of a table, the same for equal tables; that of one that was never used
// is empty:
//
//	version   1 byte
//	time, boot (8 bytes), clock, limit
//	count, and so many sessions in the order of their IDs:
//	  ID (8 bytes), time to live, time since its last use, floor,
//	  which numbers from the floor on were applied: bits, without zero bytes at the end
//	count, and so many results in the order in which they were applied:
//	  session (8 bytes), number above the floor, 1 + length (0: nil) and the bytes
const tableVersion = 1

// append appends the encoded form, with or without the results.
func (t *sessionTable) append(b []byte, results bool) []byte {
	if t.unused() {
		return b
	}
	n := len(t.results)
	if results {
		b = slices.Grow(b, 32*len(t.sessions)+12*n+max(0, int(t.bytes)-n*resultOverhead))
	}
	b = append(b, tableVersion)
	b = binary.AppendUvarint(b, t.time)
	b = binary.LittleEndian.AppendUint64(b, t.boot)
	b = binary.AppendUvarint(b, t.clock)
	b = binary.AppendUvarint(b, t.limit)
	b = binary.AppendUvarint(b, uint64(len(t.sessions)))
	for _, id := range slices.Sorted(maps.Keys(t.sessions)) {
		s := t.sessions[id]
		b = binary.LittleEndian.AppendUint64(b, id)
		b = binary.AppendUvarint(b, s.ttl)
		b = binary.AppendUvarint(b, t.time-s.last)
		b = binary.AppendUvarint(b, s.floor)
		b = AppendBytes(b, s.bitmap(make([]byte, 0, synod.SessionWindow/8)))
	}
	if !results {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(n))
	for k := t.oldest; k != nil; k = k.after {
		b = binary.LittleEndian.AppendUint64(b, k.session)
		b = binary.AppendUvarint(b, k.sequence-k.of.floor)
		if k.result == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, 1+uint64(len(k.result)))
		b = append(b, k.result...)
	}
	return b
}

func (s *sessionState) bitmap(b []byte) []byte {
	for i := range uint64(synod.SessionWindow / 64) {
		// 64 numbers from n on lie in two words.
		n := s.floor + 64*i
		low, high := s.applied[n%synod.SessionWindow/64], s.applied[(n+64)%synod.SessionWindow/64]
		b = binary.LittleEndian.AppendUint64(b, low>>(n%64)|high<<(64-n%64))
	}
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// decodeSessionTable reads what append wrote. It copies what it keeps.
func decodeSessionTable(b []byte) (*sessionTable, error) {
	t := newSessionTable()
	if len(b) == 0 {
		return t, nil
	}
	r := NewReader(b)
	if r.Byte() != tableVersion {
		r.fail()
	}
	t.time, t.boot, t.clock, t.limit = r.Uvarint(), r.Uint64(), r.Uvarint(), r.Uvarint()
	bad := t.unused() || t.time > math.MaxUint64/2
	var before uint64
	for range r.Count(8 + 1 + 1 + 1 + 1) {
		s := &sessionState{id: r.Uint64(), ttl: r.Uvarint()}
		age := r.Uvarint()
		s.floor = r.Uvarint()
		bitmap := r.Bytes()
		bad = bad || s.id <= before || s.ttl > maxSessionMillis || age > t.time || s.floor == 0 || s.floor > maxSequence ||
			len(bitmap) > synod.SessionWindow/8 || len(bitmap) > 0 && bitmap[len(bitmap)-1] == 0
		if r.err != nil || bad {
			break
		}
		before = s.id
		s.last = t.time - age
		for i, x := range bitmap {
			for ; x != 0; x &= x - 1 {
				n := s.floor + 8*uint64(i) + uint64(bits.TrailingZeros8(x))
				s.applied[n%synod.SessionWindow/64] |= 1 << (n % 64)
			}
		}
		t.add(s)
	}
	if bad {
		r.fail()
	}
	for range r.Count(8 + 1 + 1) {
		key := resultKey{session: r.Uint64()}
		above, length := r.Uvarint(), r.Uvarint()
		s := t.sessions[key.session]
		if s == nil || above >= synod.SessionWindow || !s.has(s.floor+above) {
			r.fail()
			break
		}
		key.sequence = s.floor + above
		if t.results[key] != nil || length > uint64(r.Len())+1 {
			r.fail()
			break
		}
		k := &keptResult{resultKey: key, of: s}
		if length > 0 {
			k.result = make([]byte, length-1)
			copy(k.result, r.take(length-1))
		}
		t.link(k)
		t.bytes += resultOverhead + uint64(len(k.result))
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("session table: %w", err)
	}
	return t, nil
}

// sessionHeap has the sessions by their deadlines. It implements heap.Interface.
type sessionHeap []*sessionState

// Len implements sort.Interface.
func (h sessionHeap) Len() int { return len(h) }

// Less implements sort.Interface.
func (h sessionHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }

// Swap implements sort.Interface.
func (h sessionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *sessionHeap) Push(x any) {
	s := x.(*sessionState)
	s.at = len(*h)
	*h = append(*h, s)
}

// Pop implements heap.Interface.
func (h *sessionHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
