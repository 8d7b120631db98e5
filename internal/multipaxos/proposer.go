package multipaxos

//synod:core

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// proposer is what a candidate or leader does in its own ballot.
type proposer struct {
	ballot     Ballot      // the last one of this node
	authority  Ballot      // of the leader that ordered this ballot
	announced  bool        // the ballot is durable, and others were asked
	from       uint64      // phase 1 asks for slots from here on
	promises   []promise   // ascending by node
	recovered  []recovered // what they reported, ascending by slot, the highest ballot of each
	fenceBelow Ballot      // the highest origin of a fresh value in the slots that are decided and maybe not here

	base       uint64 // slots up to here were decided when this node became the leader
	unaided    int    // ticks since somebody was heard who knows what is decided and not here
	next       uint64 // the next slot to be proposed in
	fenced     bool   // all that was reported is proposed
	fenceSlot  uint64 // of the first fresh value
	fenceAbove Ballot // the highest origin of a fresh value that was proposed again
	window     uint64 // the slot of a configuration that is not in effect: nothing is proposed beyond; 0: there is none
	covered    bool   // phase 1 is done for the configuration in effect, and all later slots

	votes      []vote // of the slots from decided+1 on
	ownCounted uint64 // in all of them up to here, this node's own vote is
	waiting    []value
	bytes      int // of waiting and of what is not decided

	peers      []peer
	beat       uint64 // the number of the last heartbeat
	beaten     bool   // one is to be sent
	ticks      int    // since the last
	transferee uint64
	transfer   int    // ticks since Transfer
	invited    bool   // the transferee was asked to take over
	handedOver uint64 // the last round in which Transfer was called
	leaving    bool   // this node is not a voter any more
}

// promise is what one acceptor has promised.
type promise struct {
	node     uint64
	next     uint64 // the slot from which on the next piece is
	complete bool
	decided  uint64
	conf     uint64
	fence    Ballot // the highest origin of a fresh value up to decided
	lost     Ballot
	unknown  []slots
}

// recovered is a value that was reported.
type recovered struct {
	slot   uint64
	ballot Ballot
	value  value
}

// vote is who accepted a slot's value, in this ballot, durably.
type vote struct {
	mask uint64
	size int
}

// peer is another member, as the leader sees it.
type peer struct {
	node     uint64
	match    uint64  // has accepted all slots up to here
	counted  uint64  // in all slots that are not decided, up to here, its vote is counted
	ranges   []slots // and these
	number   uint64  // the newest heartbeat that it has answered
	silent   int     // ticks since it was heard; it saturates
	next     uint64  // the slot from which on nothing was sent
	inflight []sent
	bytes    int    // of inflight
	highest  uint64 // the last slot that it has acknowledged
	told     uint64
	snapshot bool // one is on its way
}

// sent is an accept that was not answered.
type sent struct {
	first, last uint64
	bytes       int
	age         int // ticks
	passed      int // answers to later ones
}

const (
	pauseTicks  = 3   // of silence, after which nothing but heartbeats is sent
	resendTicks = 3   // after which an accept is sent again
	overtaken   = 2   // answers to later ones, after which it is, too
	maxInflight = 256 // accepts to one member
)

// rewind lets everything that was not acknowledged be sent again.
func (p *peer) rewind() {
	p.inflight, p.bytes = nil, 0
	p.next = p.match + 1
}

// has reports whether a slot is acknowledged, and up to where those after it are.
func (p *peer) has(slot uint64) (last uint64, ok bool) {
	if slot <= p.match {
		return p.match, true
	}
	for _, r := range p.ranges {
		if slot >= r.first && slot <= r.last {
			return r.last, true
		}
	}
	return 0, false
}

func (c *Core) peer(node uint64) *peer {
	i, ok := slices.BinarySearchFunc(c.peers, node, func(p peer, node uint64) int { return cmp.Compare(p.node, node) })
	if !ok {
		return nil
	}
	return &c.peers[i]
}

// sendPrepares asks those for a promise, or for the next piece of it, who have not told all.
func (c *Core) sendPrepares() {
	for _, m := range c.conf.Members {
		if m.Node == c.node || c.role == preparing && c.voters.bit(m.Node) == 0 {
			continue
		}
		from := c.from
		if p := c.promiseOf(m.Node); p != nil {
			switch {
			case !p.complete:
				from = p.next
			case p.lost.IsZero():
				continue
			} // or it may know again what it had lost: see takePiece
		}
		c.sendPrepare(m.Node, from)
	}
}

func (c *Core) sendPrepare(to, from uint64) {
	c.send(to, message{kind: kindPrepare, flag: !c.authority.IsZero(), ballot: c.ballot, other: c.authority, quorums: c.quorumsHash, from: from})
}

func (c *Core) promiseOf(node uint64) *promise {
	for i := range c.promises {
		if c.promises[i].node == node {
			return &c.promises[i]
		}
	}
	return nil
}

// promiseSelf takes in this node's own promise, which is durable now, and asks the others.
func (c *Core) promiseSelf() {
	c.announced = true
	for from := c.from; ; {
		m := c.piece(c.ballot, from)
		if probe.Active() {
			c.observePromise(m)
		}
		c.takePiece(c.node, m)
		if m.flag {
			break
		}
		from = m.next
	}
	c.sendPrepares()
	c.recover()
}

// onPromise takes in a piece of a promise.
func (c *Core) onPromise(from uint64, m *message) {
	if c.role != preparing && c.role != leading || m.ballot != c.ballot || !c.announced {
		return
	}
	if _, member := c.conf.Find(from); !member {
		return
	}
	if !c.takePiece(from, m) {
		return
	}
	c.elapsed = 0 // it goes on
	if !m.flag {
		c.sendPrepare(from, m.next)
	}
	c.hearsOf(from, m.decided)
	c.recover()
}

// takePiece takes in the next piece of a node's promise; false if it is another one. A node that had
// lost something, and has not any more, begins anew.
func (c *Core) takePiece(from uint64, m *message) bool {
	p := c.promiseOf(from)
	if p == nil {
		if m.from != c.from {
			return false
		}
		i, _ := slices.BinarySearchFunc(c.promises, from, func(p promise, node uint64) int { return cmp.Compare(p.node, node) })
		c.promises = slices.Insert(c.promises, i, promise{node: from, next: c.from})
		p = &c.promises[i]
	}
	if p.complete && !p.lost.IsZero() && m.other.IsZero() && m.from == c.from {
		probe.Sometimes("paxos: a node promises again, since it knows all now", true)
		*p = promise{node: from, next: c.from}
	}
	if m.from != p.next || p.complete {
		return false
	}
	p.next, p.complete = m.next, m.flag
	if probe.Bug("a partial promise counts") {
		p.complete = true
	}
	p.decided, p.conf = max(p.decided, m.decided), max(p.conf, m.conf)
	p.lost = maxBallot(p.lost, m.other)
	p.unknown = append(p.unknown, m.ranges...)
	p.fence = maxBallot(p.fence, m.fence)
	if c.role == leading && c.fenced {
		return true // phase 1 of all slots in which a value may have been chosen is done
	}
	for _, r := range m.runs {
		for i := range r.values {
			c.report(r.first+uint64(i), r.ballot, &r.values[i])
		}
	}
	return true
}

// report takes in that an acceptor has accepted a value.
func (c *Core) report(slot uint64, ballot Ballot, v *value) {
	if slot <= c.held || c.role == leading && slot < c.next {
		return
	}
	i, ok := slices.BinarySearchFunc(c.recovered, slot, func(r recovered, slot uint64) int { return cmp.Compare(r.slot, slot) })
	switch {
	case !ok:
		c.recovered = slices.Insert(c.recovered, i, recovered{slot, ballot, *v})
	case c.recovered[i].ballot.Less(ballot) != probe.Bug("the lowest ballot's value taken"):
		c.recovered[i] = recovered{slot, ballot, *v}
	}
}

// recover goes on with what promises, and values that were fetched, allow.
func (c *Core) recover() {
	switch c.role {
	case leading:
		if !c.fenced && slices.ContainsFunc(c.promises, func(p promise) bool { return p.complete && p.decided >= c.next }) {
			// Somebody knows more to be decided than those who made this node the leader, in slots in
			// which it has proposed nothing yet: it fetches that first.
			probe.Sometimes("paxos: a late promise knows more", true)
			c.follow()
			c.elapsed = c.timeout
			return
		}
		c.cover()
		c.propose()
	case preparing:
		decided := c.held
		for i := range c.promises {
			p := &c.promises[i]
			if !p.complete {
				continue
			}
			decided = max(decided, p.decided)
			if p.conf > c.confSlot && p.decided > c.held {
				// Others know a configuration that this node does not: it has to fetch it.
				probe.Sometimes("paxos: a candidate lacks a configuration", true)
				c.source, c.sourceEnd = p.node, p.decided
				return
			}
		}
		if c.announced && c.phase1(c.promisers()) {
			c.lead(decided)
		}
	}
}

// promisers returns who has told all, but for those who may have forgotten what they accepted.
func (c *Core) promisers() (mask uint64) {
	for i := range c.promises {
		if p := &c.promises[i]; p.complete && p.lost.IsZero() {
			mask |= c.voters.bit(p.node)
		}
	}
	return mask
}

// cover finds out whether phase 1 is done for the configuration in effect.
func (c *Core) cover() { c.covered = c.phase1(c.promisers()) }

// phase1 reports whether the nodes of a mask are enough for phase 1 under the configuration in effect.
func (c *Core) phase1(mask uint64) bool {
	if c.role == leading && c.confSlot > c.base && probe.Bug("phase 1 of the old configuration only") {
		return true
	}
	return c.voters.phase1(mask)
}

// knows reports whether enough acceptors have told what they accepted in a slot. One that does not
// know, but that it accepted nothing there above a ballot, has told enough if somebody reported a value
// that was accepted in that ballot or in a higher one.
func (c *Core) knows(slot uint64, ballot Ballot) bool {
	var mask uint64
	for i := range c.promises {
		p := &c.promises[i]
		if !p.complete || p.decided >= slot || ballot.Less(p.lost) ||
			slices.ContainsFunc(p.unknown, func(s slots) bool { return slot >= s.first && slot <= s.last && ballot.Less(s.ballot) }) && !probe.Bug("an unknown slot taken for an empty one") {
			continue
		}
		mask |= c.voters.bit(p.node)
	}
	return c.phase1(mask)
}

// lead makes this node the leader. Slots up to decided are chosen, and here or to be fetched.
func (c *Core) lead(decided uint64) {
	probe.Sometimes("paxos: a leader lacks decided values", decided > c.held)
	c.role = leading
	c.hint, c.silence = Ballot{}, 0
	c.base, c.decided = decided, decided
	c.next = decided + 1
	c.fenceBelow = c.log.fence(c.held)
	for i := range c.promises {
		if p := &c.promises[i]; p.complete && p.decided <= decided {
			c.fenceBelow = maxBallot(c.fenceBelow, p.fence)
		}
	}
	c.recovered = slices.DeleteFunc(c.recovered, func(r recovered) bool { return r.slot <= decided })
	c.votes, c.waiting, c.bytes = nil, nil, 0
	c.reelect()
	c.beaten = true
	c.propose()
}

// reelect takes in that another configuration is in effect.
func (c *Core) reelect() {
	if c.window != 0 && c.confSlot >= c.window {
		c.window = 0
	}
	var peers []peer
	for _, m := range c.conf.Members {
		if m.Node == c.node {
			continue
		}
		if p := c.peer(m.Node); p != nil {
			peers = append(peers, *p)
		} else {
			peers = append(peers, peer{node: m.Node, next: c.next})
		}
	}
	for _, p := range c.peers { // they are told once more, so that they know
		if _, still := c.conf.Find(p.node); !still {
			c.send(p.node, c.heartbeat(&p))
		}
	}
	c.peers = peers
	for i := range c.votes { // bits have another meaning: all will say again what they have accepted
		c.votes[i].mask = 0
	}
	c.ownCounted = 0
	for i := range c.peers {
		c.peers[i].counted = 0
	}
	c.cover()
	c.leaving = c.voters.bit(c.node) == 0
	c.beaten = true
	c.sendPrepares()
}

// lastReported returns the last slot that an acceptor reported, or may have forgotten.
func (c *Core) lastReported() (last uint64) {
	if n := len(c.recovered); n > 0 {
		last = c.recovered[n-1].slot
	}
	for i := range c.promises {
		for _, s := range c.promises[i].unknown {
			last = max(last, s.last)
		}
	}
	return last
}

// propose puts values into slots, as far as it may.
func (c *Core) propose() {
	if c.role != leading || c.leaving {
		return
	}
	for c.window == 0 {
		first := c.next
		var batch []value
		size := 0
		for size < c.messageBytes && c.window == 0 {
			v, ok := c.nextValue(first + uint64(len(batch)))
			if !ok {
				break
			}
			if v.kind == valueConfig && !probe.Bug("the window open behind a configuration") {
				c.window = first + uint64(len(batch))
			}
			batch = append(batch, v)
			size += valueSize(&v)
		}
		if len(batch) == 0 {
			return
		}
		c.next += uint64(len(batch))
		r := encodeRun(c.group, c.ballot, first, batch)
		if probe.Active() {
			c.observeProposal(r)
		}
		for i := range r.values {
			c.votes = append(c.votes, vote{size: valueSize(&r.values[i])})
		}
		c.log.put(r, c.token(), &c.batch)
		if probe.Bug("a leader counts its accept before it is durable") {
			for i := range r.values {
				c.votes[first-c.decided-1+uint64(i)].mask |= c.voters.bit(c.node)
			}
		}
	}
}

// nextValue returns the value for the next slot: first what others reported, or nothing where
// nobody did; then a fresh one that tells where that ends; then what was proposed.
func (c *Core) nextValue(slot uint64) (v value, ok bool) {
	if c.fenced {
		if !c.covered || len(c.waiting) == 0 {
			return v, false
		}
		v = c.waiting[0]
		if c.waiting = c.waiting[1:]; len(c.waiting) == 0 {
			c.waiting = nil
		}
		return v, true
	}
	if !c.covered {
		return v, false
	}
	if slot > c.lastReported() {
		c.fenced, c.fenceSlot = true, slot
		c.recovered = nil
		v = value{origin: c.ballot, kind: valueFence}
		c.bytes += valueSize(&v)
		return v, true
	}
	for len(c.recovered) > 0 && c.recovered[0].slot < slot {
		c.recovered = c.recovered[1:]
	}
	var ballot Ballot
	v = value{origin: c.ballot, kind: valueGap}
	if len(c.recovered) > 0 && c.recovered[0].slot == slot {
		ballot = c.recovered[0].ballot
		if !probe.Bug("a gap is filled where there is a value") {
			v = c.recovered[0].value
		}
	}
	if !c.knows(slot, ballot) {
		probe.Sometimes("paxos: a leader waits for somebody who knows a slot", true)
		return value{}, false
	}
	if c.bytes > 0 && c.bytes+valueSize(&v) > max(c.pendingLimit, c.messageBytes) {
		return value{}, false // when there is less that is not decided
	}
	// Where a fresh value of a higher round stands in a lower slot, phase 1 of that has found that
	// nothing can be chosen here in a lower one, and somebody may have been told so. What they are told
	// (replica.Entry.Fence) speaks of terms, which are rounds: two ballots of one round give nothing of each other up.
	if v.fresh() && c.void(v.origin) {
		probe.Sometimes("paxos: a value that was given up is not proposed again", true)
		v = value{origin: c.ballot, kind: valueGap}
	}
	if v.fresh() {
		c.fenceAbove = maxBallot(c.fenceAbove, v.origin)
	}
	probe.Sometimes("paxos: a gap is filled", !v.fresh())
	c.bytes += valueSize(&v)
	return v, true
}

// void reports whether a fresh value of this origin is to be given up. Of two leaders of one round neither need give up
// anything of the other: it would be safe, since positions name the whole ballot of a fence, but wins nothing.
func (c *Core) void(origin Ballot) bool {
	return origin.Round < maxBallot(c.fenceBelow, c.fenceAbove).Round
}

// Propose implements replica.Core.
func (c *Core) Propose(data []byte) error {
	if !c.shown || c.role != leading || c.transferee != 0 || c.leaving {
		return replica.ErrNotLeading
	}
	v := value{origin: c.ballot, kind: valueCommand, data: bytes.Clone(data)}
	size := valueSize(&v)
	if c.bytes > 0 && c.bytes+size > c.pendingLimit {
		return replica.ErrBudget
	}
	c.bytes += size
	c.waiting = append(c.waiting, v)
	return nil
}

// Reconfigure implements replica.Core.
func (c *Core) Reconfigure(config []byte) error {
	if c.role != leading || c.leaving {
		return replica.ErrNotLeading
	}
	conf, err := replica.DecodeConfiguration(config)
	if err != nil {
		return err
	}
	next, err := c.check(conf)
	if err != nil {
		return err
	}
	if !c.fenced || !c.covered || c.window != 0 || c.held < c.decided || !c.reaches(&next) || slices.ContainsFunc(c.waiting, func(v value) bool { return v.kind == valueConfig }) {
		return nil // dropped: it is proposed again
	}
	v := value{origin: c.ballot, kind: valueConfig, data: bytes.Clone(config)}
	c.bytes += valueSize(&v)
	c.waiting = append(c.waiting, v)
	return nil
}

// Check implements replica.Core.
func (c *Core) Check(config []byte) error {
	conf, err := replica.DecodeConfiguration(config)
	if err == nil {
		_, err = c.check(conf)
	}
	return err
}

// check returns those who decide under a configuration, if it can be taken up.
func (c *Core) check(conf replica.Configuration) (electorate, error) {
	next, err := newElectorate(c.quorums, conf)
	if err == nil {
		err = c.quorums.checkTarget(conf)
	}
	return next, err
}

// reaches reports whether enough of an electorate are heard to decide under it, and have promised or can. With
// fewer, the group could decide nothing once it is in effect, though the present one still can. Who has joined and
// was told nothing yet can't: it would promise nothing to a leader after this one, which could tell it nothing.
func (c *Core) reaches(e *electorate) bool {
	mask := e.bit(c.node)
	for i := range c.peers {
		if p := &c.peers[i]; p.silent < c.electionTicks && p.number > 0 && p.match > 0 {
			mask |= e.bit(p.node)
		}
	}
	promised := mask
	for i := range c.promises {
		if p := &c.promises[i]; p.complete && p.lost.IsZero() {
			promised |= e.bit(p.node)
		}
	}
	heard := e.phase1(promised) && e.phase2(mask)
	probe.Sometimes("paxos: a change waits for those who are to decide", !heard)
	return heard
}

// acceptedSelf counts what this node has accepted durably.
func (c *Core) acceptedSelf() {
	through, ranges := c.accepted(c.ballot)
	if probe.Active() {
		c.observeAccepted(c.ballot, through, ranges)
	}
	c.count(c.voters.bit(c.node), &c.ownCounted, through, ranges)
}

// count notes who has accepted what, and finds out what that decides. What was counted before is not gone
// through again: many slots may be under way.
func (c *Core) count(bit uint64, counted *uint64, through uint64, ranges []slots) {
	set := func(first, last uint64) {
		first, last = max(first, c.decided+1), min(last, c.decided+uint64(len(c.votes)))
		for s := first; s <= last; s++ {
			v := &c.votes[s-c.decided-1]
			if probe.Active() && !c.voters.phase2(v.mask) && c.voters.phase2(v.mask|bit) {
				probe.Observe(probe.PaxosChosen{Group: c.group, Ballot: c.ballot.shown(), Slot: s})
			}
			v.mask |= bit
		}
	}
	set(*counted+1, through)
	*counted = max(*counted, min(through, c.decided+uint64(len(c.votes))))
	for _, r := range ranges {
		probe.Sometimes("paxos: a value is accepted out of order", true)
		set(r.first, r.last)
	}
	c.decide()
}

// decide takes what enough have accepted for decided.
func (c *Core) decide() {
	before := c.decided
	n := 0
	for n < len(c.votes) && (c.voters.phase2(c.votes[n].mask) || probe.Bug("a quorum of one half decides") && c.voters.halves[0].has(c.votes[n].mask, c.voters.halves[0].phase2, c.voters.halves[0].sets2)) {
		c.bytes -= c.votes[n].size
		n++
	}
	if n == 0 {
		return
	}
	c.votes = c.votes[n:]
	if len(c.votes) == 0 {
		c.votes = nil
	}
	c.decided += uint64(n)
	if probe.Active() {
		c.observeDecided(before+1, c.decided)
	}
	c.mark(c.decided, c.ballot)
	c.propose()
}

// onAccepted takes in what a member has accepted.
func (c *Core) onAccepted(from uint64, m *message) {
	if c.role != leading || m.ballot != c.ballot && !probe.Bug("accepts of another ballot counted") {
		return
	}
	p := c.peer(from)
	if p == nil || m.number > c.beat {
		return
	}
	paused := p.silent >= pauseTicks || p.number == 0
	p.silent = 0
	switch {
	case m.number > p.number:
		if m.through < p.match {
			probe.Sometimes("paxos: a member has forgotten what it accepted", true)
			p.match = m.through
			p.rewind()
		}
		p.number, p.match, p.ranges = m.number, m.through, m.ranges
	case m.number == p.number && m.through >= p.match:
		p.match, p.ranges = m.through, m.ranges
	}
	p.answered()
	missing := p.match + 1
	lacking := missing > c.held && missing <= c.base // this node can't send it yet
	if paused || p.next <= p.match || missing < p.next && !lacking && !p.sends(missing) {
		p.rewind() // what it had acknowledged may be gone again, from a damaged disk
	}
	c.hearsOf(from, m.decided)
	c.count(c.voters.bit(from), &p.counted, m.through, m.ranges)
	if c.role == leading {
		c.invite()
	}
}

// sends reports whether a slot is on its way.
func (p *peer) sends(slot uint64) bool {
	return slices.ContainsFunc(p.inflight, func(s sent) bool { return slot >= s.first && slot <= s.last })
}

// answered takes what is acknowledged out of what is on its way.
func (p *peer) answered() {
	last := p.match
	if n := len(p.ranges); n > 0 {
		last = p.ranges[n-1].last
	}
	news := last > p.highest
	p.highest = max(p.highest, last)
	n := 0
	for _, s := range p.inflight {
		if end, ok := p.has(s.first); ok && end >= s.last {
			p.bytes -= s.bytes
			continue
		}
		if news && s.last < last {
			s.passed++
		}
		p.inflight[n] = s
		n++
	}
	p.inflight = p.inflight[:n]
}

// heartbeat makes one for a member.
func (c *Core) heartbeat(p *peer) message {
	return message{kind: kindHeartbeat, ballot: c.ballot, quorums: c.quorumsHash, number: c.beat, decided: c.decided, through: p.match}
}

func (c *Core) tickLeader() {
	mask := c.voters.bit(c.node)
	for i := range c.peers {
		p := &c.peers[i]
		p.silent = min(p.silent+1, 4*c.electionTicks)
		if p.silent < c.electionTicks {
			mask |= c.voters.bit(p.node)
		}
		for j := range p.inflight {
			p.inflight[j].age = min(p.inflight[j].age+1, resendTicks)
		}
	}
	if !c.voters.phase2(mask) && !c.leaving {
		probe.Sometimes("paxos: a leader that hears too few steps down", true)
		c.follow()
		c.elapsed, c.timeout = 0, c.randomTimeout()
		return
	}
	if c.unaided++; c.held >= c.base {
		c.unaided = 0
	} else if c.unaided >= 2*c.electionTicks {
		// Who has said that these slots are decided is gone, and those who are left may have accepted the
		// values, but can't know. Phase 1 without its promise finds them.
		probe.Sometimes("paxos: a leader finds nobody who knows what is decided", true)
		c.follow()
		c.elapsed, c.timeout = 0, c.randomTimeout()
		return
	}
	if c.transferee != 0 {
		c.invited = false
		if c.transfer++; c.transfer >= c.electionTicks {
			c.transferee = 0
		} else {
			c.invite()
		}
	}
	if c.ticks++; c.ticks >= c.heartbeatTicks {
		c.ticks = 0
		c.beaten = true
		c.sendPrepares()
	}
}

// fill sends what is to be sent.
func (c *Core) fill() {
	if c.beaten {
		c.beaten = false
		c.beat++
		for i := range c.peers {
			p := &c.peers[i]
			p.told = c.decided
			c.send(p.node, c.heartbeat(p))
		}
	}
	for i := range c.peers {
		p := &c.peers[i]
		if !p.snapshot && p.silent < pauseTicks {
			c.resend(p)
			c.fillPeer(p)
		}
		if p.told < c.decided && p.silent < pauseTicks {
			p.told = c.decided
			c.send(p.node, c.heartbeat(p))
		}
	}
}

// resend repeats what seems to be lost.
func (c *Core) resend(p *peer) {
	for i := range p.inflight {
		s := &p.inflight[i]
		if s.age < resendTicks && s.passed < overtaken {
			continue
		}
		if s.first <= max(c.log.start.Index, c.floor) {
			p.rewind() // it is not in the log any more
			return
		}
		probe.Sometimes("paxos: an accept is sent again", true)
		s.age, s.passed = 0, 0
		for next := s.first; next <= s.last; {
			r := c.outRun(next, s.last)
			if r == nil {
				p.rewind()
				return
			}
			c.sendAccept(p, r)
			next = r.last() + 1
		}
	}
}

func (c *Core) sendAccept(p *peer, r *run) {
	p.told = max(p.told, c.decided)
	c.sendRun(p.node, message{kind: kindAccept, ballot: c.ballot, quorums: c.quorumsHash, number: c.beat, decided: c.decided}, r)
}

// fillPeer sends accepts that were not sent, within the limits.
func (c *Core) fillPeer(p *peer) {
	for p.bytes < max(c.inflightBytes, 1) && len(p.inflight) < maxInflight {
		if last, ok := p.has(p.next); ok {
			p.next = last + 1
			continue
		}
		switch {
		case p.next >= c.next:
			return
		case p.next <= max(c.log.start.Index, c.floor):
			if p.snapshot = c.offer(p.node); !p.snapshot {
				p.silent = max(p.silent, pauseTicks) // until the next sign of life
			}
			return
		case p.next > c.held && p.next <= c.base:
			p.next = c.base + 1 // not here: it comes later, see fetched
			continue
		}
		r := c.outRun(p.next, c.next-1)
		if r == nil && p.next > c.held {
			return // what this node has proposed can't be read: that ends this office when enough do not answer
		}
		if r == nil {
			c.floor = max(c.floor, p.next) // it can't be read: a snapshot helps
			continue
		}
		c.sendAccept(p, r)
		p.inflight = append(p.inflight, sent{first: r.first, last: r.last(), bytes: len(r.bytes)})
		p.bytes += len(r.bytes)
		p.next = r.last() + 1
	}
}

// outRun returns a run in this ballot of the values from one slot to another at most: those that
// were proposed in it, or that are decided. It is one that is there already, unless that is small and more
// follow, as when a member is behind.
func (c *Core) outRun(from, to uint64) *run {
	s := c.log.find(from)
	if s == nil {
		return nil
	}
	if s.rec.ballot == c.ballot && s.rec.first == from && s.rec.last <= to {
		if r := c.log.load(s.rec); r != nil && (s.rec.last == to || len(r.bytes) >= c.messageBytes/2) {
			return r
		}
	}
	if from <= c.held {
		to = min(to, c.held)
	}
	return c.collectRun(from, to, c.ballot)
}

// fetched lets members be sent what was not here.
func (c *Core) fetched() {
	for i := range c.peers {
		c.peers[i].rewind()
	}
}

// retire ends the office of a leader that is not a voter any more.
func (c *Core) retire() {
	if c.leaving {
		c.follow()
	}
}

// Transfer implements replica.Core.
func (c *Core) Transfer(to uint64) {
	if c.role != leading || to == c.node || c.voters.bit(to) == 0 {
		return
	}
	c.transferee, c.transfer, c.invited = to, 0, false
	c.handedOver = c.ballot.Round
	c.invite()
}

// invite asks the transferee to take over, once it has all there is.
func (c *Core) invite() {
	if c.transferee == 0 || c.invited || len(c.waiting) > 0 {
		return
	}
	if p := c.peer(c.transferee); p != nil && p.match >= c.next-1 {
		c.invited = true
		c.send(c.transferee, message{kind: kindTakeOver, ballot: c.ballot})
	}
}
