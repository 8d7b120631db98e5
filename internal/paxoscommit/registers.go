//synod:core

package paxoscommit

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/wire"
)

// Limits of a group's registers.
const (
	MaxSessions = 1 << 16 // sessions at a time; more are refused
	MaxRecords  = 1 << 20 // transactions at a time, of all sessions; more are refused
)

// session is what a group knows of a client.
type session struct {
	id      Session
	floor   uint64 // transactions below are over: all groups know their outcome
	used    uint64 // the timestamp of its last command
	records map[uint64]*Record
}

// Registers are a group's votes, one register a transaction: the replicated half of commitment. It is a part of the
// state of the group's state machine, and changes by its commands alone.
type Registers struct {
	sessions map[Session]*session
	latest   *session // of the last command that had one, or nil: the next one often is of the same
	horizon  uint64   // sessions that were opened below are refused, unless they are known
	records  int
}

// NewRegisters returns registers in which nobody has voted.
func NewRegisters() *Registers { return &Registers{sessions: make(map[Session]*session)} }

// Standing says how a transaction stands with a group.
type Standing uint8

// The standings.
const (
	Open     Standing = iota // the group has not voted, and may
	Voted                    // it has: there is a record
	Over                     // all groups know the outcome, and this one has forgotten it
	Expired                  // the group has not voted and never will: it has forgotten the session, or never knew it
	Overfull                 // a limit is reached: it has not voted, and may later
)

// String returns the standing's name.
func (s Standing) String() string {
	return name(int(s), "open", "voted", "over", "expired", "overfull")
}

// Look says how a transaction stands. The record is to be read only.
func (r *Registers) Look(id ID) (Record, Standing) {
	s := r.session(id.Session)
	switch {
	case s == nil && id.Session.Opened < r.horizon:
		return Record{}, Expired
	case s == nil && len(r.sessions) >= MaxSessions:
		return Record{}, Overfull
	case s == nil:
		return Record{}, Open
	}
	if record := s.records[id.Counter]; record != nil {
		return *record, Voted
	}
	if id.Counter < s.floor && !probe.Bug("paxoscommit: what is over is open") {
		return Record{}, Over
	}
	if r.records >= MaxRecords {
		return Record{}, Overfull
	}
	return Record{}, Open
}

// session returns what is known of a client, or nil.
func (r *Registers) session(id Session) *session {
	if s := r.latest; s != nil && s.id == id {
		return s
	}
	return r.sessions[id]
}

// Write writes the vote of a transaction that Look has said to be open. now is the group's time.
func (r *Registers) Write(id ID, record Record, now uint64) {
	s := r.touch(id.Session, now)
	if s.records[id.Counter] == nil {
		r.records++
	}
	s.records[id.Counter] = &record
}

// Touch notes that a session is in use, and that its transactions below floor are over. It opens no session.
func (r *Registers) Touch(id Session, floor, now uint64) {
	s := r.session(id)
	if s == nil {
		return
	}
	r.latest = s
	s.used = max(s.used, now)
	if floor <= s.floor {
		return
	}
	forget := func(counter uint64) {
		// What the client says to be over has an outcome here, or the client is wrong: then it stays, to be finished.
		if record := s.records[counter]; record != nil && (record.Outcome != Unknown || probe.Bug("paxoscommit: forget a vote without an outcome")) {
			delete(s.records, counter)
			r.records--
			probe.Sometimes("paxoscommit: a transaction that is over is forgotten", true)
		}
	}
	if floor-s.floor > uint64(len(s.records)) {
		for _, counter := range slices.Sorted(maps.Keys(s.records)) { //synod:ordered sorted
			if counter < floor {
				forget(counter)
			}
		}
	} else {
		for counter := s.floor; counter < floor; counter++ {
			forget(counter)
		}
	}
	s.floor = floor
}

func (r *Registers) touch(id Session, now uint64) *session {
	s := r.session(id)
	if s == nil {
		s = &session{id: id, floor: 1, records: make(map[uint64]*Record)}
		r.sessions[id] = s
	}
	s.used = max(s.used, now)
	return s
}

// Close writes No for a group that has not voted, so that it never will, and returns what stands there: what somebody
// calls who wants to know how an unfinished transaction ends.
// groups are all that take part.
func (r *Registers) Close(id ID, groups []uint32, now uint64) (Record, Standing) {
	record, standing := r.Look(id)
	if standing != Open {
		return record, standing
	}
	probe.Sometimes("paxoscommit: a vote is closed", true)
	record = Record{Vote: No, Outcome: Aborted, Groups: groups}
	if !probe.Bug("paxoscommit: closing leaves no record") {
		r.Write(id, record, now)
	}
	return record, Voted
}

// Resolve takes in the outcome of a transaction, and the timestamp of a commit. It returns the record as it was, and whether
// this is new. A group that was never asked and hears of an abort remembers it: a late request for its vote must be
// refused. groups are all that take part. wrong: the group hears of a commit, and has voted no or knows that it was aborted; it stays as it is.
func (r *Registers) Resolve(id ID, outcome Outcome, timestamp uint64, groups []uint32, now uint64) (before Record, isNew, wrong bool) {
	var stored *Record
	if s := r.session(id.Session); s != nil {
		stored = s.records[id.Counter]
	}
	if stored == nil {
		_, standing := r.Look(id)
		if standing == Open && outcome == Aborted && !probe.Bug("paxoscommit: an abort of what has no vote leaves no record") {
			r.Write(id, Record{Vote: No, Outcome: Aborted, Groups: groups}, now)
			return Record{}, true, false
		}
		return Record{}, false, false
	}
	before = *stored
	if before.Outcome != Unknown && !probe.Bug("paxoscommit: an outcome is overwritten") {
		// Whoever closes the votes of a transaction that is over elsewhere, and forgotten there, takes it for aborted: an
		// old claim, of which nothing follows. Nobody takes one for committed that was not.
		return before, false, outcome == Committed && before.Outcome != Committed
	}
	if outcome == Committed && before.Vote != Yes {
		return before, false, true
	}
	stored.Outcome = outcome
	if outcome == Committed && !probe.Bug("paxoscommit: a commit keeps the timestamp of the vote") {
		stored.Timestamp = timestamp
	}
	return before, true, false
}

// Finish notes that all groups know the outcome of a transaction: nobody will ask for it. Its record stays as long as
// its session, so that nothing that comes late is taken for new.
func (r *Registers) Finish(id ID) {
	if s := r.sessions[id.Session]; s != nil {
		if record := s.records[id.Counter]; record != nil && record.Outcome != Unknown {
			record.Finished = true
		}
	}
}

// Expire forgets the sessions that were used last before a timestamp, and returns how many. Those stay of which a
// transaction may be unfinished in another group, where somebody may ask for this one's vote.
func (r *Registers) Expire(before uint64) (expired int) {
	r.latest = nil
	for _, id := range slices.SortedFunc(maps.Keys(r.sessions), Session.compare) { //synod:ordered sorted
		s := r.sessions[id]
		if s.used >= before || !probe.Bug("paxoscommit: expire what is unfinished") && s.unfinished() {
			continue
		}
		r.records -= len(s.records)
		delete(r.sessions, id)
		if !probe.Bug("paxoscommit: expire without a horizon") {
			r.horizon = max(r.horizon, id.Opened+1)
		}
		expired++
		probe.Sometimes("paxoscommit: a session is forgotten", true)
	}
	return expired
}

func (s *session) unfinished() bool {
	for _, record := range s.records { //synod:ordered whether there is one
		if !record.Finished && len(record.Groups) != 1 {
			return true
		}
	}
	return false
}

// Sessions returns how many sessions there are, and Len how many records.
func (r *Registers) Sessions() int { return len(r.sessions) }

// Len returns how many transactions have a record.
func (r *Registers) Len() int { return r.records }

// Idle reports whether a session was used last before a timestamp.
func (r *Registers) Idle(before uint64) bool {
	for _, s := range r.sessions { //synod:ordered whether there is one
		if s.used < before {
			return true
		}
	}
	return false
}

// Unfinished returns the transactions of sessions that were used last before a timestamp, of which other groups may not know
// the outcome, ascending.
func (r *Registers) Unfinished(before uint64) (list []ID) {
	for _, s := range r.sessions { //synod:ordered sorted below
		if s.used >= before {
			continue
		}
		for counter, record := range s.records { //synod:ordered sorted below
			if !record.Finished && len(record.Groups) != 1 {
				list = append(list, ID{s.id, counter})
			}
		}
	}
	slices.SortFunc(list, ID.Compare)
	return list
}

// Clone returns a copy that shares nothing that changes.
func (r *Registers) Clone() *Registers {
	c := &Registers{sessions: make(map[Session]*session, len(r.sessions)), horizon: r.horizon, records: r.records}
	for id, s := range r.sessions { //synod:ordered copied
		t := &session{id: s.id, floor: s.floor, used: s.used, records: make(map[uint64]*Record, len(s.records))}
		for counter, record := range s.records { //synod:ordered copied
			copied := *record
			t.records[counter] = &copied
		}
		c.sessions[id] = t
	}
	return c
}

// Append appends all of it, the same bytes for the same state: what a snapshot has of it, and its fingerprint.
func (r *Registers) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, r.horizon)
	b = binary.AppendUvarint(b, uint64(len(r.sessions)))
	for _, id := range slices.SortedFunc(maps.Keys(r.sessions), Session.compare) { //synod:ordered sorted
		s := r.sessions[id]
		b = binary.BigEndian.AppendUint64(b, id.Opened)
		b = binary.BigEndian.AppendUint64(b, id.Random)
		b = binary.AppendUvarint(b, s.floor)
		b = binary.AppendUvarint(b, s.used)
		b = binary.AppendUvarint(b, uint64(len(s.records)))
		for _, counter := range slices.Sorted(maps.Keys(s.records)) { //synod:ordered sorted
			record := s.records[counter]
			b = binary.AppendUvarint(b, counter)
			finished := byte(0)
			if record.Finished {
				finished = 1
			}
			b = append(b, byte(record.Vote), byte(record.Outcome), finished)
			b = binary.AppendUvarint(b, record.Timestamp)
			b = AppendGroups(b, record.Groups)
		}
	}
	return b
}

// Read takes registers from what Append has made.
func Read(r *wire.Reader) *Registers {
	g := NewRegisters()
	var groups []uint32 // of the last record
	g.horizon = r.Uvarint()
	for range r.Count(19) {
		id := Session{r.Uint64(), r.Uint64()}
		s := &session{id: id, floor: r.Uvarint(), used: r.Uvarint(), records: make(map[uint64]*Record)}
		for range r.Count(6) {
			counter := r.Uvarint()
			record := &Record{Vote: Vote(r.Byte(byte(No))), Outcome: Outcome(r.Byte(byte(Aborted))), Finished: r.Byte(1) == 1}
			record.Timestamp = r.Uvarint()
			record.Groups = ReadGroups(r, groups)
			groups = record.Groups
			if s.records[counter] != nil {
				r.Fail()
			}
			s.records[counter] = record
			g.records++
		}
		if g.sessions[id] != nil {
			r.Fail()
		}
		if r.Failed() {
			return NewRegisters()
		}
		g.sessions[id] = s
	}
	return g
}
