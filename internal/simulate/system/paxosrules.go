package system

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/replica"
)

// paxosRules are what must hold of Multi-Paxos (Lamport, "Paxos Made Simple", section 2.2, and 3 of its
// configurations), held against what the cores show of themselves and what is on their disks.
//
// A vote counts from when it is durable and told, or found on a disk after a crash; a value is chosen once
// those who voted for it in one ballot are a quorum of phase 2 of the configuration that governs its slot,
// whether anybody has noticed or not.
type paxosRules struct {
	*invariants
	quorums quorums
	keys    replica.Keys
	members map[uint64]*paxosMember
	slots   map[uint64]*paxosSlot
	confs   []paxosConfiguration          // ascending by slot
	promise map[multipaxos.Ballot]nodeSet // who has promised it and told all that it had accepted
}

var _ rules = (*paxosRules)(nil)

// nodeSet is a set of nodes: bit i is node i.
type nodeSet uint64

func setOf(nodes []uint64) (s nodeSet) {
	for _, n := range nodes {
		s |= 1 << n
	}
	return s
}

// quorums are those that the nodes were started with.
type quorums struct{ multipaxos.Quorums }

// flexible reports whether they are something else than majorities.
func (q quorums) flexible() bool { return q.Phase1 > 0 || q.Phase2 > 0 || len(q.Sets1) > 0 }

// size returns how many of so many voters are a quorum of a phase, where quorums have sizes.
func (q quorums) size(phase, voters int) int {
	own, other := min(q.Phase1, voters), min(q.Phase2, voters)
	if phase == 2 {
		own, other = other, own
	}
	switch {
	case own > 0:
		return own
	case other > 0:
		return voters + 1 - other
	}
	return voters/2 + 1
}

// fit reports whether sizes go with so many voters.
func (q quorums) fit(voters int) bool {
	return voters > 0 && q.size(1, voters)+q.size(2, voters) > voters
}

// has reports whether some of a set of voters are a quorum of a phase.
func (q quorums) has(phase int, voters, some nodeSet) bool {
	some &= voters
	if len(q.Sets1) == 0 {
		return bits.OnesCount64(uint64(some)) >= q.size(phase, bits.OnesCount64(uint64(voters)))
	}
	sets := q.Sets1
	if phase == 2 {
		sets = q.Sets2
	}
	return slices.ContainsFunc(sets, func(nodes []uint64) bool {
		set := setOf(nodes)
		return set&voters == set && set&some == set
	})
}

// paxosConfiguration is who votes in the slots after one.
type paxosConfiguration struct {
	slot uint64
	sets []nodeSet
}

// paxosSlot is what is known of a slot.
type paxosSlot struct {
	ballots []paxosBallot // ascending
	chosen  bool
	in      multipaxos.Ballot // the lowest ballot that has chosen
	hash    uint64            // of the value
}

// paxosBallot is what a ballot has brought a slot.
type paxosBallot struct {
	multipaxos.Ballot
	hash     uint64
	proposed bool
	votes    nodeSet
}

// paxosMember is what is known of one node: what it is, and what it has promised, which its disk must
// remember.
type paxosMember struct {
	ballot   multipaxos.Ballot // what it has promised, in this run, told or not
	leads    bool
	decided  uint64
	held     uint64 // all slots up to here are decided, in this run
	applied  uint64 // what the state machine had at the start
	member   bool   // it was told who votes; before, nobody counts on it
	config   uint64 // the slot of a configuration that it has proposed in this ballot
	of       multipaxos.Ballot
	through  uint64                       // what was told in the ballot of
	promised multipaxos.Ballot            // the highest ballot that it spoke in as a promise
	led      multipaxos.Ballot            // the last in which it led, in this run
	begun    multipaxos.Ballot            // the last of its own that it has begun in this run
	own      multipaxos.Ballot            // the highest of its own that others were asked about
	told     map[uint64]multipaxos.Ballot // accepted and durable, as it said, by slot; up to it:
	toldHeld uint64                       // decided and durable
}

func newPaxosRules(v *invariants, q quorums) *paxosRules {
	return &paxosRules{
		invariants: v,
		quorums:    q,
		keys:       replica.GroupKeys(1),
		members:    make(map[uint64]*paxosMember),
		slots:      map[uint64]*paxosSlot{1: {chosen: true}}, // where a new group begins
		promise:    make(map[multipaxos.Ballot]nodeSet),
	}
}

// observe implements rules.
func (v *paxosRules) observe(node uint64, what any) {
	m := v.members[node]
	if m == nil {
		m = &paxosMember{told: make(map[uint64]multipaxos.Ballot)}
		v.members[node] = m
	}
	switch x := what.(type) {
	case probe.PaxosOpened:
		v.opened(node, m, x)
	case probe.PaxosConfigured:
		v.configuredAt(node, m, x)
	case probe.PaxosState:
		v.state(node, m, x)
	case probe.PaxosPrepared:
		if b := multipaxos.Ballot(x.Ballot); !m.own.Less(b) || b.Node != node {
			v.w.Failf("a ballot is used once", "node %d begins ballot %v, and has asked others about ballot %v", node, b, m.own)
		}
		m.begun = multipaxos.Ballot(x.Ballot)
	case probe.PaxosPromised:
		b := multipaxos.Ballot(x.Ballot)
		v.promises(node)
		v.promised(node, m, b)
		if b.Node == node {
			m.own = b
		}
		if x.All && !x.Lost {
			v.promise[b] |= 1 << node
		}
	case probe.PaxosProposed:
		v.proposed(node, m, x)
	case probe.PaxosStored:
		v.stored(node, m, x)
	case probe.PaxosAccepted:
		v.accepted(node, m, x)
	case probe.PaxosDecided:
		for slot := x.First; slot <= x.Last; slot++ {
			v.decided(node, slot, multipaxos.Ballot(x.Ballot))
		}
	case probe.PaxosLearned:
		v.learned(node, m, x)
	case probe.PaxosSnapshot:
		if x.Slot <= m.held {
			v.w.Failf("decided never regresses", "node %d: a snapshot up to slot %d takes the place of a log that is decided up to %d", node, x.Slot, m.held)
		}
		if !v.slot(x.Slot).chosen {
			v.w.Failf("only what is chosen is learned", "node %d takes in a snapshot up to slot %d, in which nothing is chosen", node, x.Slot)
		}
		m.held, m.toldHeld = x.Slot, min(m.toldHeld, x.Slot)
		maps.DeleteFunc(m.told, func(slot uint64, _ multipaxos.Ballot) bool { return slot <= x.Slot })
	}
}

// leader implements rules.
func (v *paxosRules) leader() (leader uint64) {
	var ballot multipaxos.Ballot
	for _, n := range v.w.Nodes() {
		if m := v.members[n.ID]; m != nil && m.leads && ballot.Less(m.ballot) {
			leader, ballot = n.ID, m.ballot
		}
	}
	return leader
}

// left implements rules. What was promised stays.
func (v *paxosRules) left(node uint64) {
	if m := v.members[node]; m != nil {
		m.forgetLog()
	}
}

func (m *paxosMember) forgetLog() { m.told, m.toldHeld = make(map[uint64]multipaxos.Ballot), 0 }

// standing implements rules.
func (v *paxosRules) standing(node uint64) bool {
	m := v.members[node]
	return m != nil && m.ballot == m.begun && m.own.Less(m.begun)
}

// elected implements rules.
func (v *paxosRules) elected(node uint64) bool {
	m := v.members[node]
	return m != nil && m.led != m.begun && len(v.confs) > 0 && v.quorum(1, v.confs[len(v.confs)-1], v.promise[m.begun])
}

// alone implements rules: whatever one node has accepted others can do without.
func (v *paxosRules) alone(uint64) bool { return false }

func (v *paxosRules) slot(slot uint64) *paxosSlot {
	s := v.slots[slot]
	if s == nil {
		s = &paxosSlot{}
		v.slots[slot] = s
	}
	return s
}

// in returns what a ballot has brought the slot.
func (s *paxosSlot) ballot(b multipaxos.Ballot) *paxosBallot {
	i, ok := slices.BinarySearchFunc(s.ballots, b, func(p paxosBallot, b multipaxos.Ballot) int { return p.Compare(b) })
	if !ok {
		s.ballots = slices.Insert(s.ballots, i, paxosBallot{Ballot: b})
	}
	return &s.ballots[i]
}

// governs returns the configuration that governs a slot.
func (v *paxosRules) governs(slot uint64) (c paxosConfiguration) {
	for i := len(v.confs) - 1; i >= 0; i-- {
		if v.confs[i].slot < slot {
			return v.confs[i]
		}
	}
	return c
}

// quorum reports whether some nodes are a quorum of a phase under a configuration: of each set of voters.
func (v *paxosRules) quorum(phase int, c paxosConfiguration, some nodeSet) bool {
	for _, voters := range c.sets {
		if !v.quorums.has(phase, voters, some) {
			return false
		}
	}
	return len(c.sets) > 0
}

// configuredAt checks that nodes agree on who votes.
func (v *paxosRules) configuredAt(node uint64, m *paxosMember, x probe.PaxosConfigured) {
	if m.member = len(x.Sets) > 0; !m.member {
		return
	}
	c := paxosConfiguration{slot: x.Slot}
	for _, set := range x.Sets {
		c.sets = append(c.sets, setOf(set))
	}
	i, known := slices.BinarySearchFunc(v.confs, x.Slot, func(c paxosConfiguration, slot uint64) int { return int(c.slot) - int(slot) })
	switch {
	case known && !slices.Equal(v.confs[i].sets, c.sets):
		v.w.Failf("equal configurations at equal slot", "node %d: as of slot %d %b vote, and %b for another node", node, x.Slot, c.sets, v.confs[i].sets)
	case !known:
		v.confs = slices.Insert(v.confs, i, c)
	}
}

// opened checks that a node's disk remembers what the node has promised.
func (v *paxosRules) opened(node uint64, m *paxosMember, x probe.PaxosOpened) {
	if v.replaced(node) {
		m.promised, m.own = multipaxos.Ballot{}, multipaxos.Ballot{}
		m.forgetLog()
	}
	found := multipaxos.Ballot(x.Promised)
	if found.Less(m.promised) {
		v.w.Failf("promises are kept", "node %d has promised ballot %v, and remembers %v", node, m.promised, found)
	}
	begin := max(x.Start, x.Applied) // what is up to there is decided, and the state machine has it
	for _, slot := range slices.Sorted(maps.Keys(m.told)) {
		if slot <= begin {
			delete(m.told, slot)
			continue
		}
		if b, _ := x.Accepted(slot); multipaxos.Ballot(b).Less(m.told[slot]) && !x.Lost {
			v.w.Failf("promises are kept", "node %d has said that it has accepted a value in slot %d durably, in ballot %v, and has one of ballot %v", node, slot, m.told[slot], multipaxos.Ballot(b))
		}
	}
	for slot := begin + 1; slot <= m.toldHeld && !x.Lost; slot++ {
		if b, _ := x.Accepted(slot); multipaxos.Ballot(b).IsZero() {
			v.w.Failf("promises are kept", "node %d has said that it has all values up to slot %d, and has none in slot %d", node, m.toldHeld, slot)
		}
	}
	// What it has accepted and not told is durable, too.
	for slot := x.Start + 1; slot <= x.Last; slot++ {
		if b, known := x.Accepted(slot); known && b != (probe.PaxosBallot{}) && !found.Less(multipaxos.Ballot(b)) {
			v.vote(node, slot, multipaxos.Ballot(b))
		}
	}
	*m = paxosMember{ballot: found, held: x.Start, decided: x.Start, applied: x.Applied, promised: found, own: m.own, told: m.told, toldHeld: m.toldHeld}
}

func (v *paxosRules) state(node uint64, m *paxosMember, x probe.PaxosState) {
	b := multipaxos.Ballot(x.Ballot)
	if b.Less(m.ballot) {
		v.w.Failf("promises never regress", "node %d had promised ballot %v and has promised %v", node, m.ballot, b)
	}
	if x.Leading && b.Node != node {
		v.w.Failf("a leader leads in its own ballot", "node %d leads in ballot %v", node, b)
	}
	if x.Leading && m.leads && b == m.ballot && x.Decided < m.decided || x.Decided < m.held {
		v.w.Failf("decided never regresses", "node %d knew that all up to slot %d are decided, has those up to %d, and knows %d", node, m.decided, m.held, x.Decided)
	}
	if b != m.ballot || !x.Leading {
		m.config = 0
	}
	m.ballot, m.leads, m.decided = b, x.Leading, x.Decided
	if x.Leading {
		m.led = b
	}
}

// promised checks that a promise, in a ballot, that leaves is durable, and takes none back.
func (v *paxosRules) promised(node uint64, m *paxosMember, b multipaxos.Ballot) {
	if b.Less(m.promised) {
		v.w.Failf("a promise is not taken back", "node %d promises ballot %v, and has promised %v", node, b, m.promised)
	}
	if b == m.promised {
		return
	}
	m.promised = b
	durable, err := multipaxos.ReadPromised(v.keys, v.w.Node(node).Disk.Durable())
	if err == nil && durable.Less(b) { // a bit that flips is another matter
		v.w.Failf("durable before told", "node %d promises ballot %v, and has %v on its disk", node, b, durable)
	}
}

// proposed checks what is proposed: in phase 2 of a ballot whose phase 1 is done, under the
// configuration that governs the slot, and what is chosen there if something is.
func (v *paxosRules) proposed(node uint64, m *paxosMember, x probe.PaxosProposed) {
	b := multipaxos.Ballot(x.Ballot)
	if c := v.governs(x.First); !v.quorum(1, c, v.promise[b]) {
		v.w.Failf("phase 1 before phase 2", "node %d proposes in slot %d and ballot %v, which %b have promised; as of slot %d %b vote", node, x.First, b, v.promise[b], c.slot, c.sets)
	}
	if m.config != 0 && m.held < m.config {
		v.w.Failf("nothing is proposed beyond a new configuration", "node %d proposes in slot %d, and the configuration in slot %d is not decided", node, x.First, m.config)
	}
	if m.config = max(m.config, x.Config); x.Config != 0 && x.Config != x.First+uint64(len(x.Hashes))-1 {
		v.w.Failf("nothing is proposed beyond a new configuration", "node %d proposes a configuration in slot %d, and more with it, up to slot %d", node, x.Config, x.First+uint64(len(x.Hashes))-1)
	}
	for i, hash := range x.Hashes {
		slot := x.First + uint64(i)
		s := v.slot(slot)
		p := s.ballot(b)
		if p.proposed && p.hash != hash {
			v.w.Failf("one value a ballot and slot", "node %d proposes another value in slot %d and ballot %v than before", node, slot, b)
		}
		p.proposed, p.hash = true, hash
		if s.chosen && s.in.Less(b) && s.hash != hash {
			v.w.Failf("what is chosen is proposed in every higher ballot", "node %d proposes another value in slot %d and ballot %v than ballot %v has chosen there", node, slot, b, s.in)
		}
	}
}

// stored checks what a node accepts, or takes for chosen.
func (v *paxosRules) stored(node uint64, m *paxosMember, x probe.PaxosStored) {
	b := multipaxos.Ballot(x.Ballot)
	if !x.Chosen && b.Less(m.promised) {
		v.w.Failf("a vote keeps the promise", "node %d accepts in ballot %v, and has promised %v", node, b, m.promised)
	}
	for i, hash := range x.Hashes {
		slot := x.First + uint64(i)
		s := v.slot(slot)
		if x.Chosen {
			if !s.chosen || s.hash != hash {
				v.w.Failf("only what is chosen is learned", "node %d takes a value for the chosen one of slot %d that is not", node, slot)
			}
			continue
		}
		p := s.ballot(b)
		if !p.proposed && s.chosen { // a leader sends what is chosen in its ballot, too
			p.proposed, p.hash = true, s.hash
		}
		if !p.proposed || p.hash != hash {
			v.w.Failf("only what is proposed is accepted", "node %d accepts a value in slot %d and ballot %v that was not proposed there", node, slot, b)
		}
	}
}

// accepted takes in votes that are told.
func (v *paxosRules) accepted(node uint64, m *paxosMember, x probe.PaxosAccepted) {
	b := multipaxos.Ballot(x.Ballot)
	if m.member && (x.Through > 0 || len(x.Ranges) > 0) { // else it says that it is there, and learns
		v.promises(node)
	}
	v.promised(node, m, b)
	held := min(x.Through, max(m.held, m.applied))
	m.toldHeld = max(m.toldHeld, held)
	first := held + 1
	if m.of == b {
		first = max(first, m.through+1)
	}
	m.of, m.through = b, x.Through
	tell := func(first, last uint64) {
		for slot := first; slot <= last; slot++ {
			if m.told[slot] == b {
				continue
			}
			if !v.onDisk(node, slot, b) {
				v.w.Failf("durable before told", "node %d says that it has accepted a value in slot %d and ballot %v, and its disk has none", node, slot, b)
			}
			m.told[slot] = b
			v.vote(node, slot, b)
		}
	}
	tell(first, x.Through)
	for _, r := range x.Ranges {
		tell(max(r.First, m.held+1, m.applied+1), r.Last)
	}
}

// onDisk reports whether a node's disk has a value in a slot that was accepted in a ballot, or in a
// higher one.
func (v *paxosRules) onDisk(node, slot uint64, b multipaxos.Ballot) (found bool) {
	_ = multipaxos.EachRun(v.keys, v.w.Node(node).Disk.Durable(), func(first, last uint64, in multipaxos.Ballot, chosen bool) bool {
		found = first <= slot && slot <= last && (chosen || !in.Less(b))
		return !found
	})
	return found
}

// vote counts a vote, and finds out whether it is the one that chooses.
func (v *paxosRules) vote(node, slot uint64, b multipaxos.Ballot) {
	s := v.slot(slot)
	p := s.ballot(b)
	if p.votes&(1<<node) != 0 {
		return
	}
	p.votes |= 1 << node
	if p.proposed && v.quorum(2, v.governs(slot), p.votes) {
		v.choose(slot, s, *p)
	}
}

func (v *paxosRules) choose(slot uint64, s *paxosSlot, p paxosBallot) {
	if s.chosen && s.hash != p.hash {
		v.w.Failf("one value is chosen", "slot %d: ballots %v and %v have chosen different values", slot, s.in, p.Ballot)
	}
	if s.chosen && !p.Ballot.Less(s.in) {
		return
	}
	s.chosen, s.in, s.hash = true, p.Ballot, p.hash
	for _, o := range s.ballots {
		if o.proposed && p.Ballot.Less(o.Ballot) && o.hash != p.hash {
			v.w.Failf("what is chosen is proposed in every higher ballot", "slot %d: ballot %v has chosen another value than was proposed in ballot %v", slot, p.Ballot, o.Ballot)
		}
	}
}

// decided checks that what a leader takes for decided is chosen, in its ballot.
func (v *paxosRules) decided(node, slot uint64, b multipaxos.Ballot) {
	s := v.slot(slot)
	p := *s.ballot(b)
	for id, m := range v.members {
		if m.toldHeld >= slot {
			p.votes |= 1 << id // it knows, or knew, what is chosen
		}
	}
	if c := v.governs(slot); !p.proposed || !v.quorum(2, c, p.votes) {
		v.w.Failf("a quorum decides", "node %d takes slot %d for decided in ballot %v, with the votes of %b; as of slot %d %b vote", node, slot, b, p.votes, c.slot, c.sets)
	}
	v.choose(slot, s, p)
}

// learned checks that what a node takes for decided is.
func (v *paxosRules) learned(node uint64, m *paxosMember, x probe.PaxosLearned) {
	if x.Slot != m.held+1 && (m.held >= m.applied || x.Slot != m.applied+1) {
		v.w.Failf("learned in order", "node %d: slot %d follows %d", node, x.Slot, m.held)
	}
	if s := v.slot(x.Slot); !s.chosen || s.hash != x.Hash {
		v.w.Failf("only what is chosen is learned", "node %d takes a value for the chosen one of slot %d that is not", node, x.Slot)
	}
	m.held = x.Slot
	delete(m.told, x.Slot) // from here on it must have what is chosen
}
