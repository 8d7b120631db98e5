package replica

import (
	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/storage"
)

// A node whose disk was wiped has forgotten what it promised, and the others refuse it
// because they remember its first incarnation. They must have met that one, all of
// them: a member that had not would take the wiped node for a new one, and the two
// could make a majority that lacks what was acknowledged. So a new group takes no part
// in anything, no vote and no acknowledgement, until each of its members has said that
// it remembers this node's incarnation, durably. Until then it greets them, every tick.
//
// The price is that all members must be up for a while when a group begins.

// reminder is how many ticks pass between two reports of a group that can't begin.
const reminder = 50

// introduce greets the members that have not said that they know this node, and lets the
// group begin once there are none.
func (l *loop) introduce(g *Group) {
	defer l.recover(g)
	var missing []uint64
	for _, peer := range g.core.Status().Members {
		if peer != l.node.cfg.Node && !l.node.met(peer) {
			missing = append(missing, peer)
			l.node.greet(peer, frameHello)
		}
	}
	if len(missing) > 0 && !probe.Bug("a new group does not wait for its members") && !probe.Bug("a wiped node is trusted") {
		if g.ticks%reminder == reminder-1 {
			l.node.cfg.Logger.Warn("a new group begins once all its members have met: some have not answered", "group", g.id, "nodes", missing)
		}
		return
	}
	g.introduced = true
	key := g.keys.key(tagIntroduced)
	l.pending.batch.Set(key, storage.AppendRecord(nil, key, []byte{1}))
	l.node.cfg.Logger.Info("all members have met: the group begins", "group", g.id)
	l.mark(g)
}

// readIntroduced reads whether the group has begun in an earlier run.
func (g *Group) readIntroduced() error {
	key := g.keys.key(tagIntroduced)
	payload, found, err := getRecord(g.node.cfg.Store, key, g.id)
	if err != nil || !found {
		return err
	}
	if len(payload) != 1 || payload[0] != 1 {
		return &storage.CorruptError{Group: g.id, Key: key, Reason: "the record of whether the group has begun is malformed"}
	}
	g.introduced = true
	return nil
}

// greet sends a frame without messages: what its header says is all.
func (n *Node) greet(peer uint64, kind frameKind) {
	frame := appendFrameHeader(make([]byte, 0, frameCapacity(0)), kind, n.address(peer))
	if err := n.cfg.Transport.Send(peer, sealFrame(frame)); err != nil {
		n.count(metricSendFailures, 0, 1)
	}
}

// met reports whether a peer has said that it remembers this node's incarnation.
func (n *Node) met(peer uint64) bool {
	n.pinMu.Lock()
	defer n.pinMu.Unlock()
	return n.pins[peer].met
}
