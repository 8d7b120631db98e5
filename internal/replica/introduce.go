package replica

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// A node whose disk was wiped has forgotten what it promised, and the others refuse it
// because they remember its first incarnation. They must have met that one, all of
// them: a member that had not would take the wiped node for a new one, and the two
// could make a majority that lacks what was acknowledged. So a new group takes no part
// in anything, no vote and no acknowledgement, until each of its members has said that
// it remembers this node's incarnation, durably. Until then it greets them, every tick.
// The price is that all members must be up for a while when a group begins.
//
// What a member may have forgotten since then, an old copy of its disk, the others know as
// far as they have heard of it (identity.go). So a replica that is opened again greets
// them too, and gives no vote before they have answered, or have been silent for
// trustTimeouts.

const (
	// reminder is how many ticks pass between two reports of a group that can't begin.
	reminder = 50

	// trustTimeouts is how many election timeouts a replica that was opened again waits for
	// the other members' answers.
	trustTimeouts = 2
)

// strangers greets the voters that have not said that they know this run of the node, and
// returns them. Of a group that has no other member, as far as the replica knows, it takes all
// nodes that this one has ever met: the disk may be a copy from before they became members.
func (l *loop) strangers(g *Group) []uint64 {
	asked := g.conf.Nodes(func(p Participant) bool { return p.Node != l.node.cfg.Node && (p.Voter || p.Outgoing) })
	if len(asked) == 0 && g.introduced {
		asked = l.node.acquaintances()
	}
	return slices.DeleteFunc(asked, func(node uint64) bool {
		if l.node.met(node) {
			return true
		}
		l.node.greet(node, frameHello)
		return false
	})
}

// acquaintances returns the nodes that this one has met, ascending.
func (n *Node) acquaintances() []uint64 {
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	return slices.Sorted(maps.Keys(n.current))
}

// introduce lets a new group begin once all its members know this node, and it them.
func (l *loop) introduce(g *Group) {
	defer l.recover(g)
	missing := l.strangers(g)
	founders := make(map[uint64]uint64)
	var record []byte
	for _, p := range g.conf.Members {
		founders[p.Node] = l.node.incarnationOf(p.Node)
		if founders[p.Node] == 0 && len(missing) == 0 {
			missing = append(missing, p.Node) // it is durable with the next commit
		}
		record = binary.LittleEndian.AppendUint64(record, p.Node)
		record = binary.LittleEndian.AppendUint64(record, founders[p.Node])
	}
	if len(missing) > 0 && !probe.Bug("a new group does not wait for its members") && !probe.Bug("a wiped node is trusted") {
		if g.ticks%reminder == reminder-1 {
			l.node.cfg.Logger.Warn("a new group begins once all its members have met: some have not answered", "group", g.id, "nodes", missing)
		}
		return
	}
	g.introduced, g.founders = true, founders
	key := g.keys.key(tagIntroduced)
	l.pending.batch.Set(key, storage.AppendRecord(nil, key, record))
	l.node.cfg.Logger.Info("all members have met: the group begins", "group", g.id)
	l.trust(g)
	l.mark(g)
}

// trust lets a replica that was opened again vote, once all members listen to it or have
// been silent for long enough.
func (l *loop) trust(g *Group) {
	if g.trusted || l.node.rolledBack.Load() != nil {
		return
	}
	missing := l.strangers(g)
	if len(missing) > 0 && g.ticks < trustTimeouts*l.node.electionTicks() {
		return
	}
	probe.Sometimes("replica: a node votes though some have not answered", len(missing) > 0)
	g.trusted = true
	defer l.recover(g)
	g.core.Trust()
	l.mark(g)
	l.campaignAlone(g)
}

// readIntroduced reads whether the group has begun in an earlier run, and with whom.
func (g *Group) readIntroduced() error {
	key := g.keys.key(tagIntroduced)
	payload, found, err := getRecord(g.node.cfg.Store, key, g.id)
	if err != nil || !found {
		return err
	}
	g.introduced = true
	g.founders = make(map[uint64]uint64)
	r := NewReader(payload)
	for r.Len() > 0 && r.err == nil {
		node, incarnation := r.Uint64(), r.Uint64()
		if incarnation != 0 {
			g.founders[node] = incarnation
		}
	}
	if r.Err() != nil {
		return &storage.CorruptError{Group: g.id, Key: key, Reason: "the record of whether the group has begun is malformed"}
	}
	return nil
}

// incarnationOf returns the incarnation of a member that the group listens to; 0: it is
// not known, which is so for nodes that are no members as far as this replica knows.
func (g *Group) incarnationOf(node uint64) uint64 {
	if p, ok := g.conf.Find(node); ok && p.Incarnation != 0 {
		return p.Incarnation
	}
	return g.founders[node]
}

// unadmitted returns an error if a replica that was joined finds itself in a group whose
// configuration does not say who its members are: nobody has called SetMembers for it. It
// would not know a member that was wiped again.
func (g *Group) unadmitted(c Configuration) error {
	if len(g.founders) > 0 || !slices.ContainsFunc(c.Members, func(p Participant) bool { return p.Incarnation == 0 }) {
		return nil
	}
	return fmt.Errorf("%w: this replica was joined, and the group has not admitted it: Leave, Join, and have the leader call SetMembers", ErrIncarnation)
}

// forgetful returns an error if the first configuration that a replica hears of has it as a voter: it
// was one before, and has left, or lost, what it had acknowledged. Who is new is a learner first.
func (g *Group) forgetful(c Configuration) error {
	if p, is := c.Find(g.node.cfg.Node); !is || !p.Voter && !p.Outgoing {
		return nil
	}
	return fmt.Errorf("%w: this replica has left while the group counted on it: have the leader remove it by SetMembers, then Leave, Join, and have it added", ErrIncarnation)
}

// admits reports whether the group listens to an incarnation of a node.
func (l *loop) admits(g *Group, peer, incarnation uint64) bool {
	if slices.Contains(g.banned, pinKey{peer, incarnation}) {
		l.node.refuse(peer, g.id, fmt.Errorf("%w: the group has been recovered without it", ErrIncarnation))
		return false
	}
	known := g.incarnationOf(peer)
	if known == 0 || known == incarnation || probe.Bug("a wiped node is trusted") {
		return true
	}
	probe.Sometimes("replica: a group refuses an incarnation that it has not admitted", true)
	l.node.refuse(peer, g.id, fmt.Errorf("%w: the group has not admitted it", ErrIncarnation))
	return false
}

// greet sends a frame of which the header says all, but for this node's address. Whoever is greeted
// answers at once, so that once in a heartbeat is enough, whatever number of groups asks.
func (n *Node) greet(peer uint64, kind frameKind) {
	if kind == frameHello && n.often(n.greeted, peer) {
		return
	}
	frame := appendFrameHeader(make([]byte, 0, frameCapacity(maxAddressBytes+32)), kind, n.address(peer))
	n.addressMu.Lock()
	own := n.ownAddress
	n.addressMu.Unlock()
	if own != "" { // whoever does not know it could not answer
		body := binary.LittleEndian.AppendUint64(nil, uint64(len(own)))
		frame = appendFrameMessage(frame, 0, append(body, own...), nil)
	}
	n.sendNow(peer, frame)
}

// learnAddress takes in where a peer that greets is to be answered, unless a configuration
// has said so.
func (n *Node) learnAddress(peer uint64, messages []byte) {
	m, _, err := nextFrameMessage(messages)
	if err != nil || len(m.body) > 8+maxAddressBytes || binary.LittleEndian.Uint64(m.body) != uint64(len(m.body)-8) {
		return
	}
	n.addressMu.Lock()
	known := n.addresses[peer] != ""
	n.addressMu.Unlock()
	if !known {
		n.setAddress(peer, string(m.body[8:]))
	}
}

// sendNow sends a frame that nothing depends on.
func (n *Node) sendNow(peer uint64, frame []byte) {
	if n.silent.Load() {
		return
	}
	if err := n.cfg.Transport.Send(peer, sealFrame(frame)); err != nil {
		n.count(metricSendFailures, 0, 1)
	}
}

// often reports whether something was done for a peer less than a heartbeat ago, or notes
// that it is now.
func (n *Node) often(last map[uint64]time.Time, peer uint64) bool {
	now := n.ex.Now()
	n.refusalMu.Lock()
	defer n.refusalMu.Unlock()
	if at, ok := last[peer]; ok && now.Sub(at) < n.cfg.HeartbeatInterval/2 {
		return true
	}
	if len(last) >= maxMembers {
		clear(last)
	}
	last[peer] = now
	return false
}
