package multipaxos

//synod:core

import (
	"fmt"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// learner is the part that finds out what is chosen, and hands it out in order.
type learner struct {
	// held is up to where all slots are decided and their values here. decided is up to where
	// they are known to be: for a leader that may be more, elsewhere it is the same.
	held, decided uint64
	opened        uint64 // what the state machine had when the core was opened
	handed        uint64 // what was handed out
	damaged       bool   // values that were accepted can't be read, since the core was opened
	floor         uint64 // slots up to here can't be served to others, though the log has them

	conf     replica.Configuration // the one in effect after held
	config   []byte                // the same, encoded
	confSlot uint64                // the slot that it stands in
	voters   electorate

	applying      []applying
	applyingBytes int

	restored  *replica.Position // for the next Output
	restoring uint64            // the token of a snapshot that takes the log's place; nothing is handed out before

	source    uint64 // a node that can tell what is chosen, up to sourceEnd
	sourceEnd uint64
	asked     int // ticks that are left for it to answer

	snap   replica.SnapshotMeta  // offered to those who are too far behind
	known  replica.Configuration // the one that it has
	wanted bool                  // one is needed and there is none
	offers []replica.SnapshotRequest
	guests []uint64 // nodes that asked to be told, and get a snapshot now
}

// applying is what the state machine was given last.
type applying struct {
	index uint64
	bytes int
}

const learnTicks = 3

// openLearner finds out what is decided, from the log.
func (c *Core) openLearner(o replica.OpenOptions, hard hardRecord) error {
	c.opened, c.handed = o.Start.Index, o.Start.Index
	c.held = c.log.start.Index
	if err := c.configure(c.log.start.config, c.log.start.Index); err != nil {
		return err
	}
	for _, s := range c.log.spans {
		if s.rec.bad {
			c.damaged = true
			if s.first <= o.Start.Index {
				c.floor = min(s.last, o.Start.Index)
			}
		}
	}
	if c.lost.IsZero() && c.floor == 0 {
		c.advance(min(o.Start.Index, hard.decided), nil)
	}
	if c.held < o.Start.Index {
		// The state machine has what the log may not have, since a value may be applied before its
		// record here is durable. What the log has up to there may be something else, that was never
		// chosen: it is dropped, and the log begins after the state machine's last slot.
		c.held = o.Start.Index
		if err := c.configure(o.Config, o.Start.Index); err != nil {
			return err
		}
		c.log.begin(startRecord{o.Start, o.Config}, &c.batch)
		c.unwritten = true
	}
	if c.lost.IsZero() {
		c.advance(hard.decided, nil)
	}
	c.decided = c.held
	return nil
}

// configure puts a configuration into effect.
func (c *Core) configure(encoded []byte, slot uint64) error {
	conf, err := replica.DecodeConfiguration(encoded)
	if err != nil {
		return &storage.CorruptError{Group: c.group, Index: slot, Reason: err.Error()}
	}
	voters, err := newElectorate(c.quorums, conf)
	if err != nil {
		return err
	}
	c.conf, c.config, c.confSlot, c.voters = conf, encoded, slot, voters
	if probe.Active() {
		c.observeConfiguration()
	}
	return nil
}

// mark takes in that the leader of a ballot knows all slots up to one to be chosen. That says which
// value is only where the value was accepted in that ballot.
func (c *Core) mark(decided uint64, ballot Ballot) {
	c.advance(decided, func(r *record) bool { return r.ballot == ballot || r.ballot.isChosen() })
	if c.role != leading {
		c.decided = c.held
	}
}

// advance goes on to hold decided values, up to a slot, as long as may says that what is here is
// what is chosen.
func (c *Core) advance(to uint64, may func(*record) bool) {
	for c.held < to {
		s := c.log.find(c.held + 1)
		if s == nil || s.rec.bad || may != nil && !may(s.rec) && !probe.Bug("decided marks slots of other ballots") {
			return
		}
		r := c.log.load(s.rec)
		if r == nil {
			c.damaged = true
			return
		}
		for last := min(s.last, to); c.held < last; {
			slot := c.held + 1
			v := &r.values[slot-r.first]
			c.log.held(slot, v)
			c.held = slot
			if probe.Active() {
				probe.Observe(probe.PaxosLearned{Group: c.group, Slot: slot, Hash: v.hash()})
			}
			if c.role != follower && c.ballot.Less(v.origin) {
				// Whoever proposed it has taken over.
				c.follow()
			}
			if v.kind == valueConfig {
				c.reconfigured(v.data, slot)
			}
		}
		c.findLost()
	}
}

// findLost takes in that what was lost does not matter any more: all slots in which it may have been are
// decided; or a fresh value of a higher ballot is chosen, so that whatever was accepted up to the lost ballot,
// and is not decided yet, never will be.
func (c *Core) findLost() {
	if c.lost.IsZero() || c.held < c.lostLast && !c.lost.Less(c.log.fence(c.held)) {
		return
	}
	probe.Sometimes("paxos: what was lost does not matter any more", true)
	c.lost, c.lostLast = Ballot{}, 0
	c.unwritten = true
	if p := c.promiseOf(c.node); p != nil { // others are asked again
		p.lost = Ballot{}
		if c.role == leading {
			c.cover()
		}
	}
}

// reconfigured puts a configuration into effect that is decided.
func (c *Core) reconfigured(encoded []byte, slot uint64) {
	if err := c.configure(encoded, slot); err != nil {
		panic(fmt.Errorf("paxos: group %d: slot %d: %w", c.group, slot, err))
	}
	probe.Sometimes("paxos: two sets of voters decide together", c.conf.Joint())
	c.look.id = replica.ReadID{} // its quorum was one of the old
	if c.role == leading {
		c.reelect()
	}
}

// handOut gives decided values to the state machine.
func (c *Core) handOut(out *replica.Output) {
	if c.restoring != 0 {
		return
	}
	for c.handed < c.held && c.applyingBytes < max(c.applyLimit, 1) {
		s := c.log.find(c.handed + 1)
		var r *run
		if s != nil {
			r = c.log.load(s.rec)
		}
		if r == nil {
			panic(&storage.CorruptError{Group: c.group, Index: c.handed + 1, Key: c.log.keys.Protocol(tagRun), Reason: "a decided value can't be read any more"})
		}
		size := 0
		last := min(s.last, c.held)
		for c.handed < last && c.applyingBytes+size < max(c.applyLimit, 1) {
			c.handed++
			v := &r.values[c.handed-r.first]
			size += valueSize(v)
			out.Committed = append(out.Committed, c.entry(c.handed, v))
		}
		c.applyingBytes += size
		c.applying = append(c.applying, applying{c.handed, size})
	}
	probe.Sometimes("paxos: what is decided waits for the state machine", c.handed < c.held)
}

// entry makes an entry of a decided value.
//
// Its fence: a fresh value shows that phase 1 of its origin found nothing in its slot, nor in any
// later one. What was proposed in a lower round, and is not chosen in a lower slot, never will be: see void.
func (c *Core) entry(slot uint64, v *value) replica.Entry {
	fence := c.log.fence(slot)
	e := replica.Entry{Index: slot, Term: fence.Round, Priority: fence.Priority, Leader: fence.Node, Data: v.data}
	switch v.kind {
	case valueCommand:
		e.Kind = replica.EntryCommand
	case valueConfig:
		e.Kind = replica.EntryConfig
	}
	if v.fresh() || probe.Bug("a filled gap is a fence") {
		e.Fence = v.origin.Round
		if probe.Bug("a fence is about its own round, too") {
			e.Fence++
		}
	}
	return e
}

// Applied implements replica.Core.
func (c *Core) Applied(index uint64) {
	n := 0
	for ; n < len(c.applying) && c.applying[n].index <= index; n++ {
		c.applyingBytes -= c.applying[n].bytes
	}
	if c.applying = c.applying[n:]; len(c.applying) == 0 {
		c.applying = nil
	}
}

// hearsOf notes that a node can tell what is chosen up to a slot.
func (c *Core) hearsOf(node, decided uint64) {
	if decided > c.held {
		c.unaided = 0
	}
	if decided > c.held && (c.source == 0 || decided > c.sourceEnd || node == c.source) {
		c.source, c.sourceEnd = node, decided
	}
}

// fetch asks for what is chosen and not here, unless a leader that is heard will send it.
func (c *Core) fetch() {
	if c.source == 0 || c.asked > 0 || c.restoring != 0 {
		return
	}
	if c.sourceEnd <= c.held {
		c.source = 0
		return
	}
	if c.role == follower && !c.leader.IsZero() && c.silence < c.electionTicks || c.role == leading && c.held == c.decided {
		return
	}
	probe.Sometimes("paxos: values are fetched from another member", true)
	c.asked = learnTicks
	c.send(c.source, message{kind: kindLearn, from: c.held + 1})
}

func (c *Core) tickLearner() {
	if c.asked > 0 {
		if c.asked--; c.asked == 0 {
			c.source = 0 // another one, maybe
		}
	}
}

// onLearn tells what is chosen.
func (c *Core) onLearn(from uint64, m *message) {
	if c.restoring != 0 || !c.trusted {
		return
	}
	if m.from <= max(c.log.start.Index, c.floor) {
		for _, g := range c.guests {
			if g == from {
				return
			}
		}
		if c.offer(from) {
			c.guests = append(c.guests, from)
		}
		return
	}
	answer := message{kind: kindLearned, from: m.from, decided: c.held}
	if r := c.collectRun(m.from, c.held, chosen()); r != nil {
		c.sendRun(from, answer, r)
		return
	}
	c.send(from, answer)
}

// collectRun makes a run, in a ballot, of the values from one slot to another, as far as the limit
// of a message goes and they can be read; nil if there is none.
func (c *Core) collectRun(from, to uint64, ballot Ballot) *run {
	var values []value
	size := 0
	for next := from; next <= to && (size == 0 || size < c.messageBytes); {
		s := c.log.find(next)
		if s == nil {
			break
		}
		r := c.log.load(s.rec)
		if r == nil {
			break
		}
		for ; next <= min(s.last, to) && (size == 0 || size < c.messageBytes); next++ {
			v := r.values[next-r.first]
			values = append(values, v)
			size += valueSize(&v)
		}
	}
	if len(values) == 0 {
		return nil
	}
	return encodeRun(c.group, ballot, from, values)
}

// onLearned takes in what another member knows to be chosen.
func (c *Core) onLearned(from uint64, m *message) {
	if m.from != c.held+1 || c.restoring != 0 {
		return
	}
	c.asked = 0
	if len(m.runs) == 0 {
		if from == c.source {
			c.source = 0
		}
		return
	}
	r := m.runs[0]
	if c.role == leading && r.last() > c.decided {
		// What others know beyond this leader's own count may be from a higher ballot. Then what it has proposed
		// there, and behind, counts for nothing, whoever has accepted it.
		probe.Sometimes("paxos: others know more to be decided than the leader", true)
		if r.first > c.decided {
			return
		}
		r = encodeRun(c.group, r.ballot, r.first, r.values[:c.decided+1-r.first])
	}
	c.log.put(r, c.token(), &c.batch)
	if probe.Active() {
		c.observeRun(r)
	}
	c.elapsed = 0 // a candidate that makes progress goes on
	c.mark(r.last(), chosen())
	if c.role == leading {
		c.mark(c.decided, c.ballot)
		if c.held >= c.base {
			c.fetched()
		}
	}
	c.hearsOf(from, m.decided)
	c.recover()
}

// offer begins to bring a snapshot to a node, or asks for one to be made.
func (c *Core) offer(to uint64) bool {
	if c.snap.Index < max(c.log.start.Index, c.floor, 1) || c.snap.Index > c.held || !c.introduces(to) {
		c.wanted = true
		return false
	}
	m := message{kind: kindSnapshot, position: c.snap.Position, config: c.snap.Config}
	setFence(&m.position, c.log.fence(c.snap.Index))
	c.offers = append(c.offers, replica.SnapshotRequest{To: to, Index: c.snap.Index, Message: m.append(nil)})
	return true
}

// introduces reports whether the snapshot knows a node as the member that it is. One that came later, or
// comes back under another incarnation, would not find itself in the group that an older one describes; and one
// that left and came back as a learner would find itself a voter, which has forgotten what it accepted.
func (c *Core) introduces(node uint64) bool {
	now, is := c.conf.Find(node)
	then, was := c.known.Find(node)
	votes := func(p replica.Participant) bool { return p.Voter || p.Outgoing }
	return !is || was && then.Incarnation == now.Incarnation && (votes(now) || !votes(then))
}

// SnapshotAvailable implements replica.Core.
func (c *Core) SnapshotAvailable(meta replica.SnapshotMeta) {
	known, err := replica.DecodeConfiguration(meta.Config)
	if err != nil {
		panic(fmt.Errorf("paxos: group %d: configuration of the snapshot at slot %d: %w", c.group, meta.Index, err))
	}
	c.snap, c.known = meta, known
}

// SnapshotSent implements replica.Core.
func (c *Core) SnapshotSent(node uint64, _ bool) {
	for i, g := range c.guests {
		if g == node {
			c.guests = append(c.guests[:i:i], c.guests[i+1:]...)
			break
		}
	}
	if p := c.peer(node); p != nil && p.snapshot {
		p.snapshot = false
		// The next sign of life says what it has now: it is gone on from there, or tried again.
		p.silent = max(p.silent, pauseTicks)
	}
}

// onSnapshot takes in that a snapshot was received, which takes the place of the log up to there.
// What is accepted beyond stays, and nothing that was promised changes.
func (c *Core) onSnapshot(m *message) {
	at := m.position
	if at.Index <= c.held || c.restoring != 0 {
		return
	}
	probe.Sometimes("paxos: a snapshot takes the place of the log", true)
	if probe.Active() {
		probe.Observe(probe.PaxosSnapshot{Group: c.group, Slot: at.Index})
	}
	if c.role == leading && at.Index > c.decided {
		c.follow() // as in onLearned; but the snapshot is here
	}
	c.held, c.handed = at.Index, at.Index
	c.applying, c.applyingBytes = nil, 0
	c.log.begin(startRecord{at, m.config}, &c.batch)
	c.flushed = true
	c.restored, c.restoring = &at, c.token()
	c.floor = 0
	c.findLost()
	if c.role == leading {
		c.fetched()
	} else {
		c.decided = c.held
	}
	c.reconfigured(m.config, at.Index)
	if c.role == preparing {
		c.recover()
	}
	c.owed = true
}
