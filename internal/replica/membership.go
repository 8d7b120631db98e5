package replica

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// How members change
//
// A change stands in the log, as the target of the configuration. Whoever leads works
// on it, one step at a time, each an entry of its own, until the configuration is the
// target; a leader that comes later goes on where its predecessor stopped. The steps:
//
//  1. new nodes are greeted, and admitted under the incarnation that they answer with;
//  2. members that come back under another incarnation leave, with all that they promised;
//  3. new nodes become learners, one after the other, and catch up;
//  4. a leader that is not to vote any more hands over, if one of those who stay can take over;
//  5. old and new voters decide together, and then the new ones alone. Where a leader leaves
//     and nobody stayed who could take over before, it hands over in between;
//  6. the new ones decide once more, that the change is done. Only now the old ones may go:
//     most of the new voters have stored that they decide alone, with the record of this entry.
//     Before, one that crashes might need them again to find that out.
//
// Whatever is proposed and does not happen is proposed again: the configuration says
// what is to be done, and nothing else is remembered.

// change is a call of SetMembers on this node.
type change struct {
	id     uint64
	target []synod.Member
	calls  []*call
	term   uint64 // in which it was put into the log; 0: it was not yet
	ticks  uint64 // at which it came
}

// driver is what a leader remembers of its work on a change. All of it may be lost.
type driver struct {
	again     uint64 // no step is proposed before this tick
	handover  uint64 // no transfer is tried before this tick
	handovers int
	rounds    map[uint64]round
	asked     uint64 // the tick at which others were asked whether this replica is a member
}

// round is what a learner has to catch up with: what was decided when the round began.
type round struct {
	target, began uint64
	done          bool
}

// maxHandovers is how often a leader that leaves tries to hand over before it just goes.
const maxHandovers = 5

func (n *Node) electionTicks() uint64 { return uint64(n.cfg.ElectionTimeout / n.cfg.HeartbeatInterval) }

// SetMembers makes the group's members the given ones, and waits until they are.
func (g *Group) SetMembers(ctx context.Context, members []synod.Member) error {
	fail := func(err error) error { return fmt.Errorf("group %d: set members: %w", g.id, err) }
	target, err := checkMembers(g.node.cfg.Package, members)
	if err != nil {
		return fail(err)
	}
	// A leader that was deposed must not say that what it knows is so.
	if err := g.Barrier(ctx); err != nil {
		return err
	}
	c := g.node.newCall(g, callMembers)
	c.members = target
	if err := g.submit(c); err != nil {
		return err
	}
	_, err = c.wait(ctx)
	return err
}

// setMembers takes up a call of SetMembers.
func (l *loop) setMembers(g *Group, c *call) {
	refuse := func(err error) { c.answer(nil, fmt.Errorf("group %d: set members: %w", g.id, err)) }
	l.dropAbandoned(g)
	switch {
	case !g.leading:
		c.answer(nil, g.notLeader())
		return
	case g.conf.Target == nil && g.change == nil && g.conf.Is(c.members):
		c.answer(nil, nil)
		return
	case g.change != nil && l.sameMembers(g, g.wanted(), c.members):
		g.change.calls = append(g.change.calls, c) // the same again
		return
	case g.change == nil && g.conf.Target != nil && l.sameMembers(g, g.conf.Target, c.members):
		// The last leader began it.
		g.change = &change{id: g.conf.Change, target: c.members, calls: []*call{c}, term: g.term, ticks: g.ticks}
		return
	}
	if g.conf.Target != nil && (g.conf.Joint() || !sameVoters(g.conf, c.members)) {
		refuse(synod.ErrChanging)
		return
	}
	next := g.conf.Clone()
	next.Target = c.members
	if err := g.core.Check(next.Append(nil)); err != nil {
		refuse(err) // before anybody is waited for
		return
	}
	if g.change != nil {
		if !sameVoters(g.conf, c.members) {
			refuse(synod.ErrChanging) // also while it is in the log and not decided
			return
		}
		l.endChange(g, synod.ErrSuperseded)
	}
	g.change = &change{id: l.node.ex.Uint64() | 1, target: c.members, calls: []*call{c}, ticks: g.ticks}
	for _, m := range c.members {
		if p, old := g.conf.Find(m.Node); !old || m.Incarnation != 0 && m.Incarnation != l.incarnationIn(g, p) {
			l.node.listenFor(m.Node)
		}
	}
	l.drive(g)
}

// wanted returns what the change under way wants, with the incarnations that it was begun with.
func (g *Group) wanted() []synod.Member {
	if g.conf.Target != nil && g.conf.Change == g.change.id {
		return g.conf.Target
	}
	return g.change.target
}

// sameMembers reports whether a call asks for the target of a change. An incarnation that is 0 in the call is
// any; in the target, that of the member which is there.
func (l *loop) sameMembers(g *Group, target, members []synod.Member) bool {
	return slices.EqualFunc(target, members, func(t, m synod.Member) bool {
		if p, is := g.conf.Find(t.Node); is && t.Incarnation == 0 {
			t.Incarnation = l.incarnationIn(g, p)
		}
		return t.Node == m.Node && t.Address == m.Address && t.Learner == m.Learner && (m.Incarnation == 0 || m.Incarnation == t.Incarnation)
	})
}

// sameVoters reports whether the voters of a configuration are those of a list: that is
// what takes a change back.
func sameVoters(c Configuration, members []synod.Member) bool {
	var voters []uint64
	for _, m := range members {
		if !m.Learner {
			voters = append(voters, m.Node)
		}
	}
	return slices.Equal(voters, c.Nodes(func(p Participant) bool { return p.Voter }))
}

// endChange answers those who wait for a change.
func (l *loop) endChange(g *Group, err error) {
	ch := g.change
	if ch == nil {
		return
	}
	g.change = nil
	for _, c := range ch.calls {
		if err == nil {
			c.answer(nil, nil)
		} else {
			c.answer(nil, fmt.Errorf("group %d: set members: %w", g.id, err))
		}
	}
}

// configured takes in that a configuration is in effect. index is that of its entry, or of a
// snapshot, which hides those before it.
func (l *loop) configured(g *Group, index uint64, encoded []byte, snapshot bool) {
	conf, err := DecodeConfiguration(encoded)
	if err != nil {
		panic(err) // the core has read it before
	}
	old := g.conf
	err = g.unadmitted(conf)
	if err == nil && len(old.Members) == 0 {
		err = g.forgetful(conf)
	}
	if err != nil {
		panic(err) // before anything leaves that depends on it
	}
	g.conf, g.confIndex = conf, index
	revokeLease(g)
	g.driver.again = 0
	maps.DeleteFunc(g.driver.rounds, func(node uint64, _ round) bool {
		_, is := conf.Find(node)
		return !is // should it come again, it begins anew
	})
	if probe.Active() {
		shown := probe.Configured{Group: g.id, Index: index, Joint: conf.Joint()}
		for _, p := range conf.Members {
			shown.Members = append(shown.Members, probe.ConfiguredMember{Node: p.Node, Incarnation: p.Incarnation, Voter: p.Voter, Outgoing: p.Outgoing})
		}
		probe.Observe(shown)
	}
	if ch := g.change; ch != nil {
		switch {
		case conf.Change == ch.id && conf.Target == nil:
			l.endChange(g, nil)
		case conf.Change != ch.id && ch.term != 0 && snapshot:
			l.endMembers(g, errInstalled) // it may have been made, and followed by another one
		case conf.Change != ch.id && ch.term != 0 && old.Change == ch.id:
			l.endChange(g, synod.ErrSuperseded)
		}
	}
	l.tellMembers(g)
	_, was := old.Find(l.node.cfg.Node)
	self, is := conf.Find(l.node.cfg.Node)
	g.removed = (was || g.removed) && !is || is && self.Incarnation != 0 && self.Incarnation != l.node.incarnation
	probe.Sometimes("replica: a member is removed", g.removed)
	l.node.cfg.Logger.Info("members changed", "group", g.id, "index", index, "members", conf.Current(), "target", conf.Target)
	e := synod.Event{Kind: synod.EventMembershipChanged, Group: g.id, Index: index, Configuration: conf.Current()}
	e.Members = conf.Nodes(func(p Participant) bool { return p.Voter || p.Outgoing })
	l.node.emit(e)
}

// tellMembers tells the transport where the members are, and the node who they are.
func (l *loop) tellMembers(g *Group) {
	for _, p := range g.conf.Members {
		l.node.admit(p.Node, p.Incarnation)
		l.node.setAddress(p.Node, p.Address)
		if p.Node == l.node.cfg.Node && p.Address != "" {
			l.node.addressMu.Lock()
			l.node.ownAddress = p.Address
			l.node.addressMu.Unlock()
		}
	}
	for _, m := range g.conf.Target {
		l.node.setAddress(m.Node, m.Address)
	}
}

// setAddress tells the transport of an address, unless it knows.
func (n *Node) setAddress(node uint64, address string) {
	if n.cfg.SetAddress == nil || address == "" || node == n.cfg.Node {
		return
	}
	n.addressMu.Lock()
	defer n.addressMu.Unlock()
	if n.addresses[node] == address {
		return
	}
	n.addresses[node] = address
	n.cfg.SetAddress(node, address)
}

// fenced takes in the term of an entry that was decided: a change that was proposed in an
// earlier term, and is not in the configuration by now, never will be.
func (l *loop) fenced(g *Group, fence uint64) {
	if ch := g.change; ch != nil && ch.term != 0 && ch.term < fence && g.conf.Change != ch.id {
		g.change = nil
		for _, c := range ch.calls {
			c.answer(nil, g.notLeader())
		}
	}
}

// driveMembers is the work of one tick on changes of members.
func (l *loop) driveMembers(g *Group) {
	l.dropAbandoned(g)
	l.drive(g)
	l.askMembership(g)
}

// dropAbandoned forgets the calls of SetMembers for which nobody waits any more.
func (l *loop) dropAbandoned(g *Group) {
	if g.change == nil {
		return
	}
	g.change.calls = slices.DeleteFunc(g.change.calls, func(c *call) bool {
		if c.state.Load() != callAbandoned {
			return false
		}
		c.answer(nil, nil) // nobody waits: it is recycled
		return true
	})
	if len(g.change.calls) == 0 && (g.change.term == 0 || g.conf.Change == g.change.id) {
		g.change = nil // it was not begun, or goes on without
	}
}

// drive does what the leader can do now about a change.
func (l *loop) drive(g *Group) {
	if !g.leading {
		if g.change != nil && g.change.term == 0 {
			ch := g.change
			g.change = nil
			for _, c := range ch.calls {
				c.answer(nil, g.notLeader())
			}
		}
		return
	}
	if g.conf.Target != nil {
		// A new member does not know where the others are, and could not answer.
		for _, p := range g.conf.Members {
			if p.Node != l.node.cfg.Node && !l.node.met(p.Node) {
				l.node.greet(p.Node, frameHello)
			}
		}
	}
	switch {
	case g.conf.Joint():
		l.leaveJoint(g)
	case g.change != nil && g.conf.Change != g.change.id:
		l.beginChange(g)
	case g.conf.Target != nil:
		l.approach(g)
	default:
		g.driver = driver{again: g.driver.again, asked: g.driver.asked}
	}
}

// reconfigure proposes a step, unless one was just proposed.
func (l *loop) reconfigure(g *Group, next Configuration) bool {
	if g.ticks < g.driver.again || g.applied.Load() < g.confIndex {
		return false
	}
	g.driver.again = g.ticks + max(2, l.node.electionTicks()/2)
	defer l.recover(g)
	switch err := g.core.Reconfigure(next.Append(nil)); {
	case errors.Is(err, ErrNotLeading):
		return false
	case err != nil && g.change != nil && next.Change == g.change.id && g.conf.Change != next.Change:
		l.endChange(g, err) // it was not begun
		return false
	case err != nil:
		l.node.cfg.Logger.Warn("a step of a change of members is refused", "group", g.id, "members", next.Current(), "target", next.Target, "error", err)
		return false
	}
	l.mark(g)
	return true
}

// beginChange puts a change into the log, once the nodes that are new have been met.
func (l *loop) beginChange(g *Group) {
	ch := g.change
	target := slices.Clone(ch.target)
	var missing []uint64
	for i := range target {
		m := &target[i]
		if p, old := g.conf.Find(m.Node); old && (m.Incarnation == 0 || m.Incarnation == l.incarnationIn(g, p)) {
			m.Incarnation = l.incarnationIn(g, p)
			continue
		}
		l.node.setAddress(m.Node, m.Address)
		heard, stranger := l.node.heardOf(m.Node)
		switch named := m.Incarnation; {
		case named == 0 && heard == 0 && stranger != 0:
			l.endChange(g, fmt.Errorf("node %d, with incarnation %d: %w: if it is to take the place of its predecessor, name its incarnation",
				m.Node, stranger, ErrIncarnation))
			return
		case named == 0 && heard != 0:
			m.Incarnation = heard
		case named != 0 && (named == heard || named == stranger):
		case named != 0 && cmp.Or(heard, stranger) != 0:
			l.endChange(g, fmt.Errorf("node %d: %w: it has incarnation %d, and not %d, which was named", m.Node, ErrIncarnation, cmp.Or(heard, stranger), named))
			return
		default:
			missing = append(missing, m.Node)
			l.node.greet(m.Node, frameHello)
		}
	}
	if len(missing) > 0 {
		if (g.ticks-ch.ticks)%reminder == reminder-1 {
			l.node.cfg.Logger.Warn("a change of members begins once the new ones have answered", "group", g.id, "nodes", missing)
		}
		return
	}
	next := g.conf.Clone()
	for i, p := range next.Members {
		next.Members[i].Incarnation = l.incarnationIn(g, p)
	}
	next.Change, next.Target = ch.id, target
	if l.reconfigure(g, next) {
		ch.term = g.term
	}
}

// incarnationIn returns the incarnation of a member, from the configuration or from when
// the group was new.
func (l *loop) incarnationIn(g *Group, p Participant) uint64 {
	if p.Incarnation != 0 {
		return p.Incarnation
	}
	return g.founders[p.Node]
}

// approach takes the next step towards the target.
func (l *loop) approach(g *Group) {
	next := g.conf.Clone()
	switch {
	case next.Is(next.Target):
		next.Target = nil
	case !l.nextStep(g, &next):
		return
	}
	l.reconfigure(g, next)
}

// nextStep changes a configuration, which is not joint, by one step towards its target; false
// if something has to happen before.
func (l *loop) nextStep(g *Group, c *Configuration) bool {
	find := func(node uint64) (synod.Member, bool) {
		i, ok := slices.BinarySearchFunc(c.Target, node, func(m synod.Member, node uint64) int { return cmp.Compare(m.Node, node) })
		if !ok {
			return synod.Member{}, false
		}
		return c.Target[i], true
	}
	// Addresses first: they may be what keeps a member from catching up.
	for i, p := range c.Members {
		if m, ok := find(p.Node); ok && m.Address != p.Address && (m.Incarnation == p.Incarnation || m.Incarnation == 0) {
			c.Members[i].Address = m.Address
			return true
		}
	}
	// Those that come back under another incarnation leave before.
	for i, p := range c.Members {
		if m, ok := find(p.Node); ok && m.Incarnation != 0 && m.Incarnation != p.Incarnation {
			if probe.Bug("a wiped node takes the place of its predecessor") {
				c.Members[i].Incarnation = m.Incarnation
				return true
			}
			if p.Learner {
				c.Members = slices.Delete(c.Members, i, i+1)
				return true
			}
			if len(c.Nodes(func(p Participant) bool { return p.Voter })) == 1 {
				return c.addLearner() // the only voter: another one first, or never
			}
			if p.Node == l.node.cfg.Node && !l.handOver(g, func(o Participant) bool { return o.Voter }) {
				return false
			}
			c.exchange(func(o *Participant) { o.Voter = o.Voter && o.Node != p.Node })
			return l.reachable(g, c)
		}
	}
	if c.addLearner() {
		return true
	}
	for _, p := range c.Members {
		if m, ok := find(p.Node); ok && p.Learner && !m.Learner && !l.caughtUp(g, p.Node) {
			return false
		}
	}
	voters := false
	for _, p := range c.Members {
		m, ok := find(p.Node)
		voters = voters || p.Voter != (ok && !m.Learner)
	}
	if voters {
		if m, ok := find(l.node.cfg.Node); (!ok || m.Learner) &&
			!l.handOver(g, func(o Participant) bool { m, ok := find(o.Node); return o.Voter && ok && !m.Learner }) {
			return false
		}
		c.exchange(func(p *Participant) {
			m, ok := find(p.Node)
			switch {
			case !ok && p.Learner: // goes in a step of its own
			case !ok:
				p.Voter = false
			default:
				p.Voter, p.Learner = !m.Learner, m.Learner
			}
		})
		return l.reachable(g, c)
	}
	for i, p := range c.Members {
		if _, ok := find(p.Node); !ok && p.Learner {
			c.Members = slices.Delete(c.Members, i, i+1)
			return true
		}
	}
	return false
}

// reachable reports whether a majority of the new voters is heard. With fewer, the group could
// decide nothing once both sets have to agree, though the old one alone still can; as it
// is, the change waits, and may be taken back.
func (l *loop) reachable(g *Group, c *Configuration) bool {
	peers := g.core.Status().Peers
	voters, heard := 0, 0
	for _, p := range c.Members {
		if !p.Voter {
			continue
		}
		voters++
		if p.Node == l.node.cfg.Node || slices.ContainsFunc(peers, func(o synod.PeerStatus) bool { return o.Node == p.Node && o.Active }) {
			heard++
		}
	}
	probe.Sometimes("replica: a change waits for its voters", heard <= voters/2)
	return heard > voters/2
}

// addLearner adds the first node of the target that is not there, as a learner.
func (c *Configuration) addLearner() bool {
	for _, m := range c.Target {
		if _, there := c.Find(m.Node); !there {
			m.Learner = true
			c.Members = append(c.Members, Participant{Member: m})
			c.sort()
			return true
		}
	}
	return false
}

// exchange makes a configuration joint: those that vote now vote in the old set, and what
// fn makes of each member is the new one.
func (c *Configuration) exchange(fn func(*Participant)) {
	for i := range c.Members {
		p := &c.Members[i]
		p.Outgoing = p.Voter
		fn(p)
	}
}

// leave ends the time of two sets of voters.
func (c *Configuration) leave() {
	for i := range c.Members {
		c.Members[i].Outgoing = false
	}
	c.Members = slices.DeleteFunc(c.Members, func(p Participant) bool { return !p.Voter && !p.Learner })
}

// leaveJoint leaves the old voters behind, and this node first if it is one of those.
func (l *loop) leaveJoint(g *Group) {
	if self, ok := g.conf.Find(l.node.cfg.Node); ok && !self.Voter &&
		!l.handOver(g, func(p Participant) bool { return p.Voter }) {
		return
	}
	next := g.conf.Clone()
	next.leave()
	l.reconfigure(g, next)
}

// caughtUp reports whether a learner has what it needs to vote without holding up the group:
// it has received, within an election timeout, what was decided when that began (Ongaro's
// thesis, section 4.2.1).
func (l *loop) caughtUp(g *Group, node uint64) bool {
	status := g.core.Status()
	at := slices.IndexFunc(status.Peers, func(p synod.PeerStatus) bool { return p.Node == node })
	if at < 0 || !status.Peers[at].Active {
		return false
	}
	if g.driver.rounds == nil {
		g.driver.rounds = make(map[uint64]round)
	}
	r, ok := g.driver.rounds[node]
	switch match := status.Peers[at].Match; {
	case r.done:
	case !ok:
		r = round{target: status.Commit, began: g.ticks}
	case match >= r.target && g.ticks-r.began <= l.node.electionTicks():
		r.done = true
	case match >= r.target:
		r = round{target: status.Commit, began: g.ticks}
	}
	g.driver.rounds[node] = r
	return r.done
}

// handOver tries to have a member lead that may, and reports whether there is no need to wait
// for that any more: nobody can, or it was tried often enough.
func (l *loop) handOver(g *Group, may func(Participant) bool) bool {
	status := g.core.Status()
	best, to := uint64(0), uint64(0)
	for _, p := range status.Peers {
		if m, ok := g.conf.Find(p.Node); ok && may(m) && p.Active && p.Match >= g.confIndex && p.Match > best {
			best, to = p.Match, p.Node
		}
	}
	candidates := g.conf.Nodes(func(p Participant) bool { return may(p) && p.Node != l.node.cfg.Node })
	if len(candidates) == 0 || g.driver.handovers >= maxHandovers {
		return true
	}
	if g.ticks < g.driver.handover {
		return false
	}
	g.driver.handover = g.ticks + l.node.electionTicks()
	g.driver.handovers++
	if to != 0 {
		probe.Sometimes("replica: a leader that leaves hands over", true)
		defer l.recover(g)
		g.core.Transfer(to)
		l.mark(g)
	}
	return false
}

// A member that was removed may never hear of it, since nobody sends it anything any more; and
// if it has, it must stay until the change is done, and does not know whether it has been added again
// since. So such a replica, and one that has had no leader for long, asks the others, and they say so
// when it may go.

// askMembership asks.
func (l *loop) askMembership(g *Group) {
	if !g.removed && (g.leader.Load() != 0 || len(g.conf.Members) == 0) {
		g.driver.asked = g.ticks
		return
	}
	if since := g.ticks - g.driver.asked; since < l.node.electionTicks() || !g.removed && since < 2*l.node.electionTicks() {
		return
	}
	g.driver.asked = g.ticks
	message := binary.LittleEndian.AppendUint64(nil, g.confIndex)
	message = binary.LittleEndian.AppendUint64(message, g.boot)
	for _, p := range g.conf.Members {
		if p.Node != l.node.cfg.Node {
			l.sendControl(g, p.Node, frameLost, message)
		}
	}
}

func (l *loop) sendControl(g *Group, to uint64, kind frameKind, message []byte) {
	frame := appendFrameHeader(make([]byte, 0, frameCapacity(len(message)+32)), kind, l.node.address(to))
	l.node.sendNow(to, appendFrameMessage(frame, g.id, message, nil))
}

// receiveLost answers a replica that has no leader, and is no member.
func (l *loop) receiveLost(g *Group, from, incarnation uint64, body []byte) {
	r := NewReader(body)
	index, run := r.Uint64(), r.Uint64()
	if err := r.Err(); err != nil {
		l.node.refuse(from, g.id, fmt.Errorf("question about a member: %w", errFrame))
		return
	}
	p, is := g.conf.Find(from)
	if is && (p.Incarnation == 0 || p.Incarnation == incarnation) || g.confIndex < index || g.conf.Target != nil || g.conf.Joint() {
		return
	}
	message := binary.LittleEndian.AppendUint64(nil, g.confIndex)
	message = binary.LittleEndian.AppendUint64(message, run)
	l.sendControl(g, from, frameGone, append(message, g.conf.Append(nil)...))
}

// receiveGone takes the answer in. A configuration that is newer than all that was applied
// here counts, for it is decided: this replica belongs to a member that was removed. So does the newest
// that is known here, if it is this node's removal: the others know of no later one. What an earlier run of the
// replica has asked says nothing of this one, which may have been started again to be added again.
func (l *loop) receiveGone(g *Group, from uint64, body []byte) {
	r := NewReader(body)
	index, run := r.Uint64(), r.Uint64()
	conf, err := DecodeConfiguration(r.Rest())
	if err != nil || r.Err() != nil {
		l.node.refuse(from, g.id, fmt.Errorf("answer about a member: %w", errFrame))
		return
	}
	if run != g.boot {
		return
	}
	if _, is := g.conf.Find(l.node.cfg.Node); !is && !g.removed {
		return // it has not been told yet that it is one
	}
	if index < g.confIndex || index == g.confIndex && !g.removed || index > g.confIndex && index <= g.applied.Load() {
		return // it knows more
	}
	if p, is := conf.Find(l.node.cfg.Node); is && (p.Incarnation == 0 || p.Incarnation == l.node.incarnation) {
		return
	}
	probe.Sometimes("replica: a member that was removed is told so", true)
	if ch := g.change; ch != nil && conf.Change == ch.id && conf.Target == nil {
		l.endChange(g, nil)
	}
	key := g.keys.key(tagRemoved)
	l.pending.batch.Set(key, storage.AppendRecord(nil, key, nil))
	l.pending.urgent = true
	l.fail(g, synod.ErrRemoved)
}

// endMembers answers those who wait for a change when the group ends here.
func (l *loop) endMembers(g *Group, err error) {
	ch := g.change
	if ch == nil {
		return
	}
	if ch.term != 0 {
		err = unknown(g.id, err)
	}
	g.change = nil
	for _, c := range ch.calls {
		c.answer(nil, err)
	}
}
