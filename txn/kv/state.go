//synod:core

package kv

import (
	"bytes"
	"math"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/wire"
)

// version is what a key had from a timestamp on.
type version struct {
	timestamp uint64
	voted     uint64 // the timestamp of this group's vote: at or below
	value     []byte
	deleted   bool
}

// item is a key with its versions. One of an earlier epoch than the state's belongs to a snapshot, too, and is replaced where others are changed.
// Of one of the state's epoch there is no other.
type item struct {
	key      string
	versions []version // ascending
	epoch    uint64
}

// gone is the epoch of an item that has been collected.
const gone = math.MaxUint64

// prepared is a transaction that this group has voted yes for, and whose outcome it does not know. It holds locks on all that
// it has read and all that it writes.
type prepared struct {
	id        paxoscommit.ID
	age       uint64
	groups    []uint32
	timestamp uint64
	reads     []string
	ranges    []keyRange
	writes    []write
	size      int // of the command that brings it to a snapshot
}

func (t *prepared) chain() chain { return chain{t.age, t.id.Session.Random} }

// part is what a snapshot has of it.
func (t *prepared) part() *prepare {
	return &prepare{id: t.id, age: t.age, groups: t.groups, reads: t.reads, ranges: t.ranges, writes: t.writes}
}

// keyLock is who holds a key.
type keyLock struct {
	writer  *prepared
	readers []*prepared
}

// state is what a machine has: a function of the commands alone.
type state struct {
	items btree.Map[string, *item] // for ranges
	index map[string]*item         // the same, for single keys
	epoch uint64                   // counts snapshots
	// clock is at or above all timestamps that were given out here, for votes, for commits, and for reads: each vote
	// gets a higher one. So nothing is committed any more at or below it, but for what is prepared.
	clock     uint64
	collected uint64 // versions that were replaced at or below are gone: nobody reads below it any more

	registers *paxoscommit.Registers
	prepared  map[paxoscommit.ID]*prepared
	held      int // bytes of keys and values in prepared; what they have found is there without them, too
	locks     map[string]keyLock
	locked    []*prepared // those that have read ranges, in the order in which they were prepared

	reserved map[string]chain
	chains   map[chain]*reservation

	garbage []garbage // a heap: what is to be collected, by time
	wrong   uint64    // outcomes that contradict what stands here
	groups  []uint32  // of the last command that asked for a vote
}

// reservation is the keys that are kept for a transaction that has lost too often.
type reservation struct {
	expires uint64
	keys    []string
}

// Limits of a group.
const (
	maxReserved    = 1 << 16 // keys; what exceeds them is not kept
	collectAtATime = 1 << 12 // versions that one command collects
	maxHeld        = 1 << 28 // bytes of what is prepared; who comes then waits
)

func newState() *state {
	return &state{
		index: make(map[string]*item), locks: make(map[string]keyLock), registers: paxoscommit.NewRegisters(), prepared: make(map[paxoscommit.ID]*prepared),
		reserved: make(map[string]chain), chains: make(map[chain]*reservation),
	}
}

// apply executes a command.
func (s *state) apply(command []byte) answer {
	a := s.execute(command)
	a.clock = s.clock
	return a
}

func (s *state) execute(command []byte) answer {
	malformed := answer{kind: answerMalformed}
	if len(command) == 0 {
		return malformed
	}
	r := wire.NewReader(command[1:])
	switch command[0] {
	case opPrepare:
		p, err := readPrepare(&r, s.groups)
		if err != nil {
			return malformed
		}
		s.groups = p.groups
		return s.prepare(&p)
	case opClose:
		id, groups, now := paxoscommit.ReadID(&r), paxoscommit.ReadGroups(&r, s.groups), r.Uvarint()
		if r.End() != nil || len(groups) == 0 {
			return malformed
		}
		return s.close(id, groups, now)
	case opResolve:
		session, floor, now := paxoscommit.Session{Opened: r.Uint64(), Random: r.Uint64()}, r.Uvarint(), r.Uvarint()
		list := readResolutions(&r, s.groups)
		if r.End() != nil {
			return malformed
		}
		for _, x := range list {
			s.resolve(x)
		}
		s.registers.Touch(session, floor, max(now, s.clock))
		return answer{kind: answerDone}
	case opFinish:
		list := make([]paxoscommit.ID, 0, r.Count(24))
		for range cap(list) {
			list = append(list, paxoscommit.ReadID(&r))
		}
		if r.End() != nil {
			return malformed
		}
		for _, id := range list {
			s.registers.Finish(id)
		}
		return answer{kind: answerDone}
	case opReserve:
		c, now, expires := chain{r.Uvarint(), r.Uvarint()}, r.Uvarint(), r.Uvarint()
		if now > maxTimestamp {
			r.Fail()
		}
		keys := make([]string, 0, r.Count(1))
		for range cap(keys) {
			keys = append(keys, string(r.Bytes(maxKeyBytes)))
		}
		if r.End() != nil {
			return malformed
		}
		s.clock = max(s.clock, now)
		return s.reserve(c, expires, keys)
	case opAdvance:
		to := r.Uvarint()
		if r.End() != nil || to > maxTimestamp {
			return malformed
		}
		s.clock = max(s.clock, to)
		return answer{kind: answerDone}
	case opCollect:
		versions, sessions := r.Uvarint(), r.Uvarint()
		if r.End() != nil {
			return malformed
		}
		s.collect(versions)
		s.registers.Expire(sessions)
		return answer{kind: answerDone}
	}
	return malformed
}

// standing translates what there is of a transaction into an answer; nil: the group may vote.
func standing(record paxoscommit.Record, st paxoscommit.Standing) *answer {
	switch st {
	case paxoscommit.Voted:
		return &answer{kind: answerVote, record: record}
	case paxoscommit.Over:
		return &answer{kind: answerOver}
	case paxoscommit.Expired:
		return &answer{kind: answerExpired}
	case paxoscommit.Overfull:
		return &answer{kind: answerOverfull}
	}
	return nil
}

// prepare votes: yes, if what the transaction has read is as it was and nobody else holds what it needs.
func (s *state) prepare(p *prepare) answer {
	for _, x := range p.told {
		s.resolve(x)
	}
	p.told = nil
	s.registers.Touch(p.id.Session, p.floor, s.clock)
	if a := standing(s.registers.Look(p.id)); a != nil && (a.kind != answerVote || !probe.Bug("kv: a group votes twice")) {
		return *a
	}
	no := func(why refusal, key string, by *prepared) answer {
		record := paxoscommit.Record{Vote: paxoscommit.No, Outcome: paxoscommit.Aborted, Groups: p.groups}
		s.registers.Write(p.id, record, s.clock)
		a := answer{kind: answerVote, record: record, refused: why, key: key}
		if by != nil {
			a.by, a.byAge, a.byGroups = by.id, by.age, by.groups
		}
		return a
	}
	alone := len(p.groups) == 1
	if p.readAt < s.collected && p.hasRead() && !probe.Bug("kv: read what is collected") {
		return no(refusedTooOld, "", nil)
	}
	if key, changed := s.changed(p); changed {
		probe.Sometimes("kv: what was read has changed when the group votes", true)
		return no(refusedConflict, key, nil)
	}
	if key, by := s.blocker(p); by != nil {
		if !alone && by.chain().older(p.chain()) {
			// It may hold what the older one needs in another group: waiting here, both would wait for ever.
			probe.Sometimes("kv: a transaction over several groups gives way to an older one", true)
			return no(refusedBlocked, key, by)
		}
		return answer{kind: answerBlocked, key: key, by: by.id, byAge: by.age, byGroups: by.groups}
	}
	if key, by, kept := s.keeper(p); kept {
		probe.Sometimes("kv: a transaction waits for one that has lost too often", true)
		if !alone {
			return no(refusedBlocked, key, &prepared{age: by.age})
		}
		return answer{kind: answerBlocked, key: key, byAge: by.age}
	}
	for _, e := range p.expected {
		if !s.matches(e) {
			return no(refusedMismatch, e.key, nil)
		}
	}
	if !alone && s.held > maxHeld {
		return answer{kind: answerOverfull}
	}
	s.release(p)
	timestamp := max(s.clock+1, p.now)
	if probe.Bug("kv: a vote below the clock") {
		timestamp = p.now
	}
	s.clock = max(s.clock, timestamp)
	record := paxoscommit.Record{Vote: paxoscommit.Yes, Timestamp: timestamp, Groups: p.groups}
	if alone {
		record.Outcome = paxoscommit.Committed
		p.own()
		for i := range p.writes {
			s.install(&p.writes[i], timestamp, timestamp)
		}
	} else {
		s.lock(newPrepared(p, timestamp))
	}
	s.registers.Write(p.id, record, s.clock)
	return answer{kind: answerVote, record: record}
}

// newest returns the newest version of a key; its timestamp is 0 if there is none.
func (s *state) newest(key string) version {
	versions := s.find(key)
	if len(versions) == 0 {
		return version{deleted: true}
	}
	return versions[len(versions)-1]
}

// changed returns a key that the transaction has read and that has another version since.
func (s *state) changed(p *prepare) (string, bool) {
	if !probe.Bug("kv: reads are not validated") {
		for _, k := range p.reads {
			if s.newest(k).timestamp > p.readAt {
				return k, true
			}
		}
		for i := range p.writes {
			w := &p.writes[i]
			if !w.read {
				continue
			}
			if w.item = s.index[w.key]; w.item != nil && w.item.versions[len(w.item.versions)-1].timestamp > p.readAt {
				return w.key, true
			}
		}
	}
	for _, e := range p.exact {
		if s.newest(e.key).timestamp != e.timestamp && !probe.Bug("kv: what was read ahead is not validated") {
			return e.key, true
		}
	}
	if probe.Bug("kv: ranges are not validated") {
		return "", false
	}
	for _, r := range p.ranges {
		found, key := false, ""
		s.items.Ascend(r.from, func(k string, it *item) bool {
			if !r.has(k) {
				return false
			}
			if versions := it.versions; versions[len(versions)-1].timestamp > p.readAt {
				found, key = true, k
				return false
			}
			return true
		})
		if found {
			return key, true
		}
	}
	return "", false
}

// blocker returns a prepared transaction that holds what p needs.
func (s *state) blocker(p *prepare) (string, *prepared) {
	if len(s.prepared) == 0 {
		return "", nil
	}
	writer := func(key string) *prepared {
		return s.locks[key].writer
	}
	for _, k := range p.reads {
		if by := writer(k); by != nil && !probe.Bug("kv: read what is being written") {
			return k, by
		}
	}
	for _, e := range p.exact {
		if by := writer(e.key); by != nil {
			return e.key, by
		}
	}
	for _, e := range p.expected {
		if by := writer(e.key); by != nil {
			return e.key, by
		}
	}
	for _, r := range p.ranges {
		if k, by := s.writerIn(r); by != nil && !probe.Bug("kv: scan what is being written") {
			return k, by
		}
	}
	for _, w := range p.writes {
		l := s.locks[w.key]
		if l.writer != nil && !probe.Bug("kv: write what is being written") {
			return w.key, l.writer
		}
		if len(l.readers) > 0 && !probe.Bug("kv: write what is read") {
			return w.key, l.readers[0]
		}
		for _, other := range s.locked {
			if probe.Bug("kv: write into a range that is read") {
				break
			}
			for _, r := range other.ranges {
				if r.has(w.key) {
					return w.key, other
				}
			}
		}
	}
	return "", nil
}

// writerIn returns a prepared transaction that writes into a range: that of the first key. There are as many locks as is under way.
func (s *state) writerIn(r keyRange) (key string, by *prepared) {
	for k, l := range s.locks { //synod:ordered the first key is the same in any order
		if l.writer != nil && r.has(k) && (by == nil || k < key) {
			key, by = k, l.writer
		}
	}
	return key, by
}

func (s *state) matches(e expectation) bool {
	v := s.newest(e.key)
	return v.deleted == e.absent && (e.absent || bytes.Equal(v.value, e.value))
}

// lock keeps what a transaction has read and will write until its outcome is known. Whoever writes a key need not be among its readers, too.
func (s *state) lock(t *prepared) {
	s.prepared[t.id] = t
	s.held += t.size
	for i := range t.writes {
		s.change(t.writes[i].key, func(l *keyLock) bool {
			l.writer = t
			return true
		})
	}
	for _, k := range t.reads {
		s.change(k, func(l *keyLock) bool {
			if l.writer == t {
				return false
			}
			l.readers = append(slices.Clip(l.readers), t)
			return true
		})
	}
	if len(t.ranges) > 0 {
		s.locked = append(s.locked, t)
	}
}

// newPrepared makes a prepared transaction of a command, which is not to be used any more. What was expected has been found, and is like
// what was read from now on.
func newPrepared(p *prepare, timestamp uint64) *prepared {
	p.own()
	t := &prepared{id: p.id, age: p.age, groups: p.groups, timestamp: timestamp, reads: p.reads, ranges: p.ranges, writes: p.writes}
	for _, e := range p.exact {
		t.reads = append(t.reads, e.key)
	}
	for _, e := range p.expected {
		if probe.Bug("kv: what was expected is not locked") {
			break
		}
		t.reads = append(t.reads, e.key)
	}
	t.size = t.part().size()
	return t
}

// own makes the values that are to be written the state's: the bytes of a command belong to whoever hands it in.
func (p *prepare) own() {
	for i := range p.writes {
		p.writes[i].value = bytes.Clone(p.writes[i].value)
	}
}

func (s *state) unlock(t *prepared) {
	if probe.Bug("kv: locks stay") {
		return
	}
	delete(s.prepared, t.id)
	s.held -= t.size
	other := func(o *prepared) bool { return o == t }
	for _, k := range t.reads {
		s.change(k, func(l *keyLock) bool {
			if l.writer == t {
				return false
			}
			l.readers = slices.DeleteFunc(slices.Clone(l.readers), other)
			return true
		})
	}
	for i := range t.writes {
		s.change(t.writes[i].key, func(l *keyLock) bool {
			if l.writer == t {
				l.writer = nil
			}
			return true
		})
	}
	if len(t.ranges) > 0 {
		s.locked = slices.DeleteFunc(slices.Clone(s.locked), other)
	}
}

// change changes who holds a key, if fn says that it has changed something.
func (s *state) change(key string, fn func(*keyLock) bool) {
	l := s.locks[key]
	switch {
	case !fn(&l):
	case l.writer != nil || len(l.readers) > 0:
		s.locks[key] = l
	default:
		delete(s.locks, key)
	}
}

// find returns the versions of a key, nil if it has none.
func (s *state) find(key string) []version {
	if it := s.index[key]; it != nil {
		return it.versions
	}
	return nil
}

// keep replaces the versions of a key.
func (s *state) keep(key string, versions []version) {
	if it := s.index[key]; it != nil && it.epoch == s.epoch {
		it.versions = versions
		return
	}
	it := &item{key, versions, s.epoch}
	s.index[key] = it
	s.items.Set(key, it)
}

// install makes a version of a key, of a value that is the state's own.
func (s *state) install(w *write, timestamp, voted uint64) {
	it := w.item
	if it == nil || it.epoch != s.epoch {
		it = s.index[w.key]
	}
	if w.deleted && (it == nil || it.versions[len(it.versions)-1].deleted) {
		return // the same whether or not what was there has been collected
	}
	v := version{timestamp, voted, w.value, w.deleted}
	if it == nil {
		key := strings.Clone(w.key)
		s.keep(key, []version{v})
		if w.deleted {
			s.discard(garbage{timestamp, key})
		}
		return
	}
	// A snapshot may share what is below; it does not look beyond its length.
	if versions := append(it.versions, v); it.epoch == s.epoch {
		it.versions = versions
	} else {
		s.keep(it.key, versions)
	}
	s.discard(garbage{timestamp, it.key})
}

// close answers somebody who wants an end.
func (s *state) close(id paxoscommit.ID, groups []uint32, now uint64) answer {
	record, st := s.registers.Close(id, groups, max(now, s.clock))
	if a := standing(record, st); a != nil {
		return *a
	}
	return answer{kind: answerOverfull}
}

// resolve takes in the outcome of a transaction.
func (s *state) resolve(x resolution) {
	if x.outcome == paxoscommit.Unknown {
		return
	}
	t := s.prepared[x.id]
	if t != nil && x.outcome == paxoscommit.Committed && x.timestamp < t.timestamp {
		s.wrong++ // nobody who has read this group's vote says that
		return
	}
	_, isNew, wrong := s.registers.Resolve(x.id, x.outcome, x.timestamp, x.groups, s.clock)
	if wrong {
		s.wrong++
	}
	if !isNew || t == nil {
		return
	}
	if x.outcome == paxoscommit.Committed {
		timestamp := x.timestamp
		if probe.Bug("kv: commit at this group's own timestamp") {
			timestamp = t.timestamp
		}
		for i := range t.writes {
			s.install(&t.writes[i], timestamp, t.timestamp)
		}
		if !probe.Bug("kv: the clock stays behind a commit") {
			s.clock = max(s.clock, timestamp)
		}
	}
	s.unlock(t)
}

// reserve keeps keys for a chain of attempts: whoever is younger waits, and loses what was kept for him.
func (s *state) reserve(c chain, expires uint64, keys []string) answer {
	for _, k := range keys {
		if by, there := s.reserved[k]; there && by != c && by.older(c) && s.chains[by].expires > s.clock {
			return answer{kind: answerBlocked, key: k, byAge: by.age}
		}
	}
	s.drop(c)
	kept := &reservation{expires: expires}
	for _, k := range keys {
		by, there := s.reserved[k]
		if there && by != c {
			s.drop(by) // it is younger, or late
		}
		if len(s.reserved) >= maxReserved {
			break
		}
		s.reserved[k] = c
		kept.keys = append(kept.keys, k)
	}
	if len(kept.keys) > 0 {
		s.chains[c] = kept
	}
	return answer{kind: answerDone}
}

func (s *state) drop(c chain) {
	if kept := s.chains[c]; kept != nil {
		for _, k := range kept.keys {
			if s.reserved[k] == c {
				delete(s.reserved, k)
			}
		}
		delete(s.chains, c)
	}
}

// keeper returns an older chain for which a key is kept that p needs. The client's time counts, too: while all wait, nothing else moves
// the group's clock.
func (s *state) keeper(p *prepare) (key string, by chain, kept bool) {
	if len(s.reserved) == 0 {
		return "", chain{}, false
	}
	me, now := p.chain(), max(s.clock, p.now)
	p.eachKey(func(k string) bool {
		c, there := s.reserved[k]
		if there && c != me && c.older(me) && s.chains[c].expires > now {
			key, by, kept = k, c, true
		}
		return !kept
	})
	return key, by, kept
}

// release gives up what is kept for p, and wounds the younger ones in its way.
func (s *state) release(p *prepare) {
	if len(s.reserved) == 0 {
		return
	}
	s.drop(p.chain())
	p.eachKey(func(k string) bool {
		if c, there := s.reserved[k]; there {
			s.drop(c)
		}
		return true
	})
}

func (p *prepare) eachKey(fn func(key string) bool) {
	for _, k := range p.reads {
		if !fn(k) {
			return
		}
	}
	for _, e := range p.exact {
		if !fn(e.key) {
			return
		}
	}
	for _, e := range p.expected {
		if !fn(e.key) {
			return
		}
	}
	for i := range p.writes {
		if !fn(p.writes[i].key) {
			return
		}
	}
}

// garbage is a key that had a version replaced at a timestamp, or was deleted then.
type garbage struct {
	timestamp uint64
	key       string
}

func (g garbage) before(other garbage) bool {
	return g.timestamp < other.timestamp || g.timestamp == other.timestamp && g.key < other.key
}

// discard puts into the heap.
func (s *state) discard(g garbage) {
	h := append(s.garbage, g)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	s.garbage = h
}

// undiscard takes the first from the heap.
func (s *state) undiscard() garbage {
	h := s.garbage
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = garbage{}
	h = h[:last]
	for i := 0; ; {
		least := i
		for _, down := range [...]int{2*i + 1, 2*i + 2} {
			if down < len(h) && h[down].before(h[least]) {
				least = down
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	s.garbage = h
	return first
}

// collect removes versions that were replaced at or below a timestamp. What is in the heap and removes nothing does not count: a replica
// that has restored a snapshot has an entry again for a tombstone that was looked at before, and must remove what the others do.
func (s *state) collect(before uint64) {
	before = min(before, s.clock)
	s.collected = max(s.collected, before)
	for n := 0; n < collectAtATime && len(s.garbage) > 0 && s.garbage[0].timestamp <= s.collected; {
		g := s.undiscard()
		probe.Sometimes("kv: versions are collected", true)
		versions := s.find(g.key)
		if versions == nil {
			continue
		}
		// All of the key's at a time, so that what stands for its others finds nothing to do: a key may have very many.
		first := 0
		for first+1 < len(versions) && versions[first+1].timestamp <= s.collected {
			first++
		}
		switch {
		case first == len(versions)-1 && versions[first].deleted && versions[first].timestamp <= s.collected:
			s.items.Delete(g.key)
			if it := s.index[g.key]; it.epoch == s.epoch {
				it.epoch = gone // a transaction that writes the key may have found it
			}
			delete(s.index, g.key)
			n++
		case first > 0:
			s.keep(g.key, slices.Clone(versions[first:])) // the rest belongs to snapshots, or to nobody
			n++
		}
	}
	for _, c := range s.lateChains() {
		s.drop(c)
	}
}

func (s *state) lateChains() (list []chain) {
	for c, kept := range s.chains { //synod:ordered each is dropped, in any order
		if kept.expires <= s.clock {
			list = append(list, c)
		}
	}
	return list
}

// overtaken reports whether a key has a version above a timestamp that was voted for at or below it: its transaction may
// have been committed before somebody asked for what there was at the timestamp.
func overtaken(versions []version, timestamp uint64) bool {
	for i := len(versions) - 1; i >= 0 && versions[i].timestamp > timestamp; i-- {
		if versions[i].voted <= timestamp {
			return true
		}
	}
	return false
}

// valueAt returns what a key had at a timestamp.
func valueAt(versions []version, timestamp uint64) (value []byte, found bool) {
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].timestamp <= timestamp {
			return versions[i].value, !versions[i].deleted
		}
	}
	return nil, false
}
