package kv

import (
	"math"
	"slices"
	"sync"

	"github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
)

// underway is the transactions over several groups of which some group does not know the outcome, and the outcomes of those that have one: so
// that those of the same DB need not wait until the groups have been told.
type underway struct {
	mu       sync.Mutex
	outcomes map[paxoscommit.ID]*resolution // nil: not yet
}

func (u *underway) begin(id paxoscommit.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.outcomes == nil {
		u.outcomes = make(map[paxoscommit.ID]*resolution)
	}
	u.outcomes[id] = nil
}

func (u *underway) decide(x resolution) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.outcomes[x.id] = &x
}

func (u *underway) end(id paxoscommit.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.outcomes, id)
}

// find returns a transaction's outcome, nil if it has none; mine: it is, or was a moment ago, under way.
func (u *underway) find(id paxoscommit.ID) (x *resolution, mine bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	x, mine = u.outcomes[id]
	return x, mine
}

// see reads a key in an Update. It returns who is to be waited for; ahead: the version was read ahead of its group, and is among those that are
// read exactly; late: the transaction can't commit any more, whatever it reads.
//
// What a run sees of a group is the group at one moment: as of readAt; or, once something was read ahead, as of now, all that was read before being
// the same as it was.
func (tx *Tx) see(p *txPart, s *state, key string) (value []byte, found, ahead, late bool, by *prepared) {
	if value, found, ahead = p.readExactly(s, key); ahead {
		return value, found, true, false, nil
	}
	writer := s.locks[key].writer
	if writer != nil && p.follows() && !slices.Contains(p.prepare.reads, key) {
		outcome, mine := tx.db.underway.find(writer.id)
		switch {
		case outcome != nil && outcome.outcome == paxoscommit.Aborted:
			p.tell(*outcome)
			writer = nil
		case mine && tx.eager && (outcome == nil || tx.behind) && p.before(s, writer.timestamp):
			tx.behind = true // it finds out what it writes, and will be run again when it is its turn
			writer = nil
		case outcome != nil && !tx.behind && !writer.deletes(key): // a deletion may make no version
			if !p.steady(s) {
				return nil, false, false, true, nil
			}
			probe.Sometimes("kv: a transaction reads what is certain ahead of its group", true)
			p.tell(*outcome)
			p.exact, p.ahead = append(p.exact, exactRead{key, outcome.timestamp}), append(p.ahead, writer)
			return writer.valueOf(key), true, true, false, nil
		}
	}
	current := p.follows() && !tx.behind
	if writer.holds(p.readAt) || current && writer.holds(math.MaxUint64) {
		return nil, false, false, false, writer
	}
	versions := s.find(key)
	if n := len(versions); current && n > 0 && versions[n-1].timestamp > p.readAt {
		if p.refresh(s); versions[n-1].timestamp > p.readAt {
			return nil, false, false, true, nil
		}
	}
	value, found = valueAt(versions, p.readAt)
	return value, found, false, false, nil
}

// readExactly returns what a key has that was read ahead of its group before.
func (p *txPart) readExactly(s *state, key string) (value []byte, found, done bool) {
	i := slices.IndexFunc(p.exact, func(e exactRead) bool { return e.key == key })
	if i < 0 {
		return nil, false, false
	}
	if p.pending(s, i) {
		return p.ahead[i].valueOf(key), true, true
	}
	value, found = valueAt(s.find(key), p.exact[i].timestamp)
	return value, found, true
}

// pending reports whether the group does not know yet that what was read ahead of it is committed.
func (p *txPart) pending(s *state, i int) bool {
	w := s.locks[p.exact[i].key].writer
	return w != nil && w.id == p.ahead[i].id
}

// follows reports whether what was read of a part is compared with what is there now, at each read that needs that: when little was read, or something
// ahead of the group.
func (p *txPart) follows() bool {
	return len(p.exact) > 0 || len(p.prepare.reads)+len(p.ranges) < 64
}

// steady reports whether all that was read of a part is the same now, and held by nobody.
func (p *txPart) steady(s *state) bool {
	if p.readAt < s.collected {
		return false // what has changed since may be gone, with its timestamp
	}
	seen := prepare{readAt: p.readAt, reads: p.prepare.reads, ranges: p.ranges}
	if _, changed := s.changed(&seen); changed {
		return false
	}
	if _, by := s.blocker(&seen); by != nil {
		return false
	}
	for i, e := range p.exact {
		if s.newest(e.key).timestamp != e.timestamp && !p.pending(s, i) {
			return false
		}
	}
	return true
}

// refresh makes a part one that is read as of now, if all that was read of it is the same now: what was waited for has a
// timestamp above that of before, and would be a conflict.
func (p *txPart) refresh(s *state) {
	if p.steady(s) {
		p.readAt = s.clock
	}
}

// before makes a part one that is read as of before a vote, if all that was read of it was the same then.
func (p *txPart) before(s *state, vote uint64) bool {
	if p.readAt < vote {
		return true
	}
	seen := prepare{readAt: vote - 1, reads: p.prepare.reads}
	if _, changed := s.changed(&seen); changed || len(p.exact)+len(p.ranges) > 0 || vote <= s.collected {
		return false
	}
	p.readAt = vote - 1
	return true
}

// seeRange prepares a part from which something was read ahead for a scan: it returns who has to be waited for, and late where the transaction can't commit any
// more.
func (p *txPart) seeRange(s *state, r keyRange) (late bool, by *prepared) {
	if len(p.exact) == 0 {
		return false, nil
	}
	if by := s.holderIn(r, math.MaxUint64); by != nil {
		return false, by
	}
	if !p.steady(s) {
		return true, nil
	}
	p.readAt = s.clock
	return false, nil
}

// tell has the group told an outcome before it votes.
func (p *txPart) tell(x resolution) {
	if !p.tells(x.id) {
		p.told = append(p.told, x)
	}
}

// valueOf returns what a transaction writes into a key.
func (t *prepared) valueOf(key string) []byte {
	if i := sortedFrom(t.writes, key); i < len(t.writes) && t.writes[i].key == key {
		return t.writes[i].value
	}
	return nil
}

func (t *prepared) deletes(key string) bool {
	i := sortedFrom(t.writes, key)
	return i == len(t.writes) || t.writes[i].key != key || t.writes[i].deleted
}
