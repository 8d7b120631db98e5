package multipaxos

//synod:core

import (
	"fmt"

	"github.com/synod-go/synod/internal/probe"
)

// role is what a node is in the ballot that it has promised.
type role uint8

const (
	follower   role = iota
	canvassing      // asks who would promise
	preparing       // phase 1
	leading         // phase 2
)

func (r role) String() string {
	return [...]string{"follower", "canvassing", "preparing", "leading"}[r]
}

// election is the part that decides when to lead.
//
// A leader is followed as long as it is heard. A node that hears none for a while, at random
// between one and two times ElectionTicks, canvasses: without any record, it asks the voters whether
// they would promise, and those who hear a leader say no, and what they know. So a node that
// is cut off from the leader alone does not disturb it, and learns what is chosen from those who are
// not. With a yes from enough voters for phase 1, and an answer from enough for phase 2, the node begins a
// ballot. Since a leader steps down that does not hear enough voters for phase 2, one of which is in every
// quorum of phase 1, somebody gets that wherever one node reaches as many. One that only reaches enough for
// phase 1 could not decide anything, and would but take the office from somebody who can.
type election struct {
	role    role
	round   uint64 // the highest that was seen
	leader  Ballot // who is followed; zero: nobody was heard in the promised ballot
	hint    Ballot // who leads, as others say while this node canvasses
	hinted  bool   // they have said so in this attempt
	silence int    // ticks since the leader was heard; it saturates
	elapsed int    // ticks since then, or since this node tried to lead
	timeout int    // of elapsed
	attempt uint64
	yes     uint64 // voters that would promise
	heard   uint64 // voters that have answered, whatever they said
}

// randomTimeout returns a timeout, different for each node, group and attempt.
func (c *Core) randomTimeout() int {
	x := c.node*0x9e3779b97f4a7c15 ^ c.group*0xbf58476d1ce4e5b9 ^ (c.attempt+c.promised.Round<<20)*0x94d049bb133111eb
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return c.electionTicks + int(x%uint64(c.electionTicks))
}

// alone reports whether this node is the only voter, and has accepted nothing that may have taken in others.
func (c *Core) alone() bool {
	return len(c.voters.members) == 1 && c.voters.members[0] == c.node && c.conf.Target == nil &&
		(!c.log.mayChange(c.held) || probe.Bug("a node that may not be the only voter leads at once"))
}

// mayCampaign reports whether this node may stand for election now.
func (c *Core) mayCampaign() bool {
	return c.trusted && c.restoring == 0 && c.voters.bit(c.node) != 0 && (c.quiet == 0 || c.alone())
}

// leads returns who leads, as far as this node knows; 0: nobody.
func (c *Core) leads() uint64 {
	switch {
	case c.role == leading:
		return c.node
	case c.role == follower:
		return c.leader.Node
	}
	return c.hint.Node
}

func (c *Core) tickElection() {
	if c.quiet > 0 {
		c.quiet--
	}
	c.silence = min(c.silence+1, 4*c.electionTicks)
	if c.role == leading {
		return
	}
	c.elapsed = min(c.elapsed+1, 4*c.electionTicks)
	if !c.trusted || c.restoring != 0 || len(c.voters.members) == 0 {
		return
	}
	switch {
	case c.elapsed >= c.timeout: // also one that may not lead: it finds out whether it missed something
		c.canvass()
	case c.elapsed%c.heartbeatTicks != 0:
	case c.role == canvassing:
		c.askVoters()
	case c.role == preparing && c.announced:
		c.sendPrepares()
	}
}

// canvass asks the voters whether they would promise.
func (c *Core) canvass() {
	probe.Sometimes("paxos: a candidate tries again", c.role == preparing)
	hint := c.hint
	if !c.hinted {
		hint = Ballot{}
	}
	c.follow()
	c.role = canvassing
	c.hint, c.hinted = hint, false // until this attempt tells
	c.leader = Ballot{}
	c.attempt++
	c.elapsed, c.timeout = 0, c.randomTimeout()
	c.yes = c.voters.bit(c.node)
	c.heard = c.yes
	c.askVoters()
	c.counted()
}

func (c *Core) askVoters() {
	for _, node := range c.voters.members {
		if c.yes&c.voters.bit(node) == 0 {
			c.send(node, message{kind: kindCanvass, number: c.attempt, quorums: c.quorumsHash})
		}
	}
}

// onCanvass answers whether this node would promise.
func (c *Core) onCanvass(from uint64, m *message) {
	if !c.trusted {
		return
	}
	followed := c.leader
	if c.role == leading {
		followed = c.ballot
	} else if c.silence >= c.electionTicks {
		followed = Ballot{}
	}
	if followed.Node == from {
		followed = Ballot{} // it does not lead any more
	}
	yes := followed.IsZero() && (c.quiet == 0 || c.alone())
	c.send(from, message{kind: kindCanvassed, flag: yes, ballot: c.promised, other: followed, number: m.number, decided: c.held})
}

// onCanvassed counts an answer.
func (c *Core) onCanvassed(from uint64, m *message) {
	if c.role != canvassing || m.number != c.attempt {
		return
	}
	c.hearsOf(from, m.decided)
	c.heard |= c.voters.bit(from)
	switch {
	case m.flag:
		c.yes |= c.voters.bit(from)
	case !m.other.IsZero():
		probe.Sometimes("paxos: a member that hears a leader says no", true)
		c.hint, c.hinted = m.other, true
	}
	c.counted()
}

func (c *Core) counted() {
	if c.role != canvassing || !c.voters.phase1(c.yes) || !c.mayCampaign() {
		return
	}
	probe.Sometimes("paxos: a node that could not decide does not stand for election", !c.voters.phase2(c.heard))
	if c.voters.phase2(c.heard) {
		c.prepare(Ballot{})
	}
}

// Campaign implements replica.Core. Where there are leases, a node that hears a leader does not stand for
// election: it may be one of those on whom the leader counts.
func (c *Core) Campaign() {
	heard := c.role == follower && !c.leader.IsZero() && c.silence < c.electionTicks
	if c.leases && heard && !probe.Bug("a node that hears a leader stands for election") {
		return
	}
	if c.mayCampaign() && (c.role == follower || c.role == canvassing) {
		c.prepare(Ballot{})
	}
}

// onTakeOver stands for election since the leader wants it.
func (c *Core) onTakeOver(m *message) {
	if m.ballot == c.promised && m.ballot == c.leader && c.role == follower && c.mayCampaign() {
		probe.Sometimes("paxos: a member takes over", true)
		c.prepare(m.ballot)
	}
}

// prepare begins a ballot. Its round is durable, as this node's own promise, before anybody is asked.
func (c *Core) prepare(authority Ballot) {
	round := max(c.round, c.promised.Round) + 1
	if round > maxRound {
		panic(fmt.Errorf("paxos: group %d: no round is left after %d", c.group, maxRound))
	}
	c.ballot = Ballot{round, c.priority, c.node}
	if probe.Bug("a round is used twice") && c.promised.Node == c.node {
		c.ballot = c.promised
	}
	if probe.Active() {
		probe.Observe(probe.PaxosPrepared{Group: c.group, Ballot: c.ballot.shown()})
	}
	c.follow()
	c.role = preparing
	c.promise(c.ballot)
	c.attempt++
	c.elapsed, c.timeout = 0, c.randomTimeout()
	c.authority = authority
	c.from = c.held + 1
	if probe.Bug("the round is not durable before the prepare") {
		c.announced = true
		c.sendPrepares()
		c.announced = false
	}
}

// onRefused steps down for a higher ballot.
func (c *Core) onRefused(m *message) {
	if (c.role == leading || c.role == preparing) && c.ballot.Less(m.ballot) {
		probe.Sometimes("paxos: a leader is told of a higher ballot", c.role == leading)
		c.follow()
		c.elapsed, c.timeout = 0, c.randomTimeout()
	}
}

// follow gives up what this node does as a candidate or leader.
func (c *Core) follow() {
	if c.role == leading {
		c.leader = Ballot{}
		c.silence = c.electionTicks
	}
	c.role = follower
	c.proposer = proposer{ballot: c.ballot, handedOver: c.handedOver}
	c.dropReads()
	c.decided = c.held
	c.hint = Ballot{}
}
