package paxos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

const group = 1

// node is a replica: its core, its disk, and what a runtime keeps in between.
type node struct {
	m     *Model
	id    uint64
	disk  *disk
	core  *multipaxos.Core  // nil: it does not run
	queue []batch           // handed out, not durable, the oldest first
	vowed multipaxos.Ballot // the highest promise that was ever durable

	applied  replica.Position
	config   []byte               // the configuration there
	kept     replica.SnapshotMeta // durable
	incoming replica.SnapshotMeta // received, not installed
	asked    []replica.ReadID     // reads of this run that wait
	decided  uint64               // what it last took for decided as a leader, which its core knows, too; 0: it does not lead
}

// batch is what becomes durable at once.
type batch struct {
	batch   storage.Batch
	token   uint64
	restore *replica.SnapshotMeta
}

var (
	_ network.Node = (*node)(nil)
	_ network.Deaf = (*node)(nil)
)

var keys = replica.GroupKeys(group)

// newNode makes a replica that has just started.
func newNode(m *Model, id uint64) (*node, error) {
	n := &node{m: m, id: id, disk: newDisk()}
	var b storage.Batch
	var err error
	if id <= uint64(m.Voters) {
		err = m.protocol().Bootstrap(keys, m.founders(), &b)
	} else {
		err = m.protocol().Join(keys, n.disk, &b)
	}
	if err == nil {
		err = n.disk.Commit(&b)
	}
	if err != nil {
		return nil, err
	}
	var out network.Output
	n.open(&out)
	if out.Violation != nil || len(out.Messages) > 0 || len(out.Facts) > 0 {
		return nil, fmt.Errorf("paxos: node %d has something to say when it starts: %+v", id, out)
	}
	return n, nil
}

// Clone implements network.Node.
func (n *node) Clone() network.Node {
	c := *n
	c.disk = n.disk.clone()
	if n.core != nil {
		c.core = n.core.Clone(c.disk)
	}
	c.queue = slices.Clone(n.queue)
	c.asked = slices.Clone(n.asked)
	return &c
}

// Fingerprint implements network.Node.
func (n *node) Fingerprint(b []byte) []byte {
	b = n.FingerprintRunning(b)
	b = append(b, n.disk.content.sum[:]...)
	return n.kept.Append(b)
}

// FingerprintRunning implements network.Running. What is only read when the core is opened is no part of it; what is
// accepted durably is, since what the node says is held against that.
func (n *node) FingerprintRunning(b []byte) []byte {
	if n.core != nil {
		b = n.core.Fingerprint(append(b, 1), n.m.Ticks == 0)
	} else {
		b = append(b, 0)
	}
	c := n.disk.content
	b = appendBallot(b, c.promised)
	b = binary.AppendUvarint(b, uint64(len(c.accepted)))
	for i := range c.accepted {
		a := &c.accepted[i]
		b = appendBallot(binary.AppendUvarint(b, a.Slot), a.Ballot)
		b = replica.AppendBytes(b, []byte(a.Value))
	}
	b = binary.AppendUvarint(b, uint64(len(n.queue)))
	for i := range n.queue {
		q := &n.queue[i]
		ops := q.batch.Ops()
		b = binary.AppendUvarint(b, uint64(len(ops)))
		for _, op := range ops {
			b = append(b, byte(op.Kind))
			b = replica.AppendBytes(b, op.Key)
			b = replica.AppendBytes(b, op.Value)
			b = replica.AppendBytes(b, op.End)
		}
		if q.token != 0 {
			b = append(b, 1)
		}
		if q.restore != nil {
			b = q.restore.Append(append(b, 2))
		}
		b = append(b, 0)
	}
	b = appendBallot(b, n.vowed)
	b = binary.AppendUvarint(b, n.applied.Index)
	b = binary.AppendUvarint(b, n.applied.Term)
	b = binary.AppendUvarint(b, n.applied.Commands)
	b = replica.AppendBytes(b, n.config)
	b = n.incoming.Append(b)
	b = binary.AppendUvarint(b, uint64(len(n.asked)))
	for _, id := range n.asked {
		b = binary.AppendUvarint(b, id.Attempt)
	}
	return b
}

// What may happen to a node, beside messages.
const (
	campaign = iota
	propose
	persist
	crash
	tick
)

// Inputs implements network.Node.
func (n *node) Inputs() []network.Input {
	if n.core == nil {
		return nil
	}
	var list []network.Input
	add := func(kind int, numbered bool, costs ...int) {
		list = append(list, network.Input{Kind: kind, Numbered: numbered, Costs: costs})
		if kind != persist && kind != crash {
			late := crashes
			if n.m.Pipelined {
				late = lags
			}
			list = append(list, network.Input{Kind: kind, Arg: 1, Numbered: numbered, Costs: append(slices.Clone(costs), late)})
		}
	}
	add(campaign, false, ballots)
	if n.core.View().Role == "leading" {
		add(propose, true, values)
	}
	if len(n.queue) > 0 {
		add(persist, false)
	}
	if n.m.Crashes > 0 {
		add(crash, false, crashes)
	}
	if n.m.Ticks > 0 {
		add(tick, false, ticks)
	}
	return list
}

// Take implements network.Node.
func (n *node) Take(in network.Input, used int, out *network.Output) {
	switch in.Kind {
	case campaign:
		n.core.Campaign()
	case propose:
		if err := n.core.Propose([]byte{'a' + byte(used)}); err != nil && !errors.Is(err, replica.ErrNotLeading) {
			out.Violation = err
			return
		}
	case persist:
		n.persist(out)
		n.ready(out)
		return
	case crash:
		n.open(out)
		return
	case tick:
		n.core.Tick()
	}
	n.ready(out)
	n.end(in.Arg == 1, out)
}

// Deliver implements network.Node.
func (n *node) Deliver(from int, body []byte, late bool, out *network.Output) {
	if n.core == nil {
		return
	}
	if err := n.core.Step(uint64(from+1), body, len(body)); err != nil {
		out.Violation = fmt.Errorf("node %d refuses a message: %w", n.id, err)
		return
	}
	n.ready(out)
	n.end(late, out)
}

// end makes everything durable, or not.
func (n *node) end(late bool, out *network.Output) {
	if late {
		out.Idle = out.Violation == nil && len(n.queue) == 0
		if !n.m.Pipelined && !out.Idle && out.Violation == nil {
			n.open(out)
		}
		return
	}
	for len(n.queue) > 0 && out.Violation == nil && out.Beyond == nil {
		n.persist(out)
		n.ready(out)
	}
}

// open starts a replica from what is durable.
func (n *node) open(out *network.Output) {
	n.core, n.queue, n.asked, n.incoming, n.decided = nil, nil, nil, replica.SnapshotMeta{}, 0
	p := n.m.protocol()
	start, config, err := p.Start(keys, n.disk)
	if err != nil {
		out.Violation = err
		return
	}
	if n.kept.Index >= start.Index && n.kept.Index > 0 {
		start, config = n.kept.Position, n.kept.Config
	}
	core, err := p.Open(replica.OpenOptions{Node: n.id, Keys: keys, Store: n.disk, Start: start, Config: config, Logger: slog.New(slog.DiscardHandler),
		ElectionTicks: 1, HeartbeatTicks: 1, MessageBytes: n.m.MessageBytes, InflightBytes: 1 << 20, PendingBytes: 1 << 20, ApplyBytes: 1 << 20, CacheBytes: 1 << 20})
	if err != nil {
		out.Violation = err
		return
	}
	n.core = core.(*multipaxos.Core)
	n.applied, n.config = start, config
	if n.kept.Index > 0 {
		n.core.SnapshotAvailable(n.kept)
	}
	n.ready(out)
}

// ready does what a runtime does after an input.
func (n *node) ready(out *network.Output) {
	for out.Violation == nil {
		var o replica.Output
		var q batch
		o.Batch = &q.batch
		if !n.core.Ready(&o) {
			break
		}
		q.token = o.Token
		if q.batch.Len() > 0 || q.token != 0 {
			n.queue = append(n.queue, q)
		}
		n.handOut(&o, out)
		for _, m := range o.Messages {
			body := slices.Concat(m.Head, m.Tail)
			s, err := multipaxos.Read(group, n.id, body)
			if err != nil {
				out.Violation = fmt.Errorf("node %d says what nobody understands: %w", n.id, err)
				return
			}
			n.say(&s, out)
			if !strings.Contains(n.m.Lose, s.Kind+",") {
				out.Messages = append(out.Messages, network.Message{To: int(m.To - 1), Body: body})
			}
		}
	}
	if out.Violation != nil {
		return
	}
	v := n.core.View()
	switch {
	case v.Role != "leading":
		n.decided = 0
	case v.Decided > n.decided:
		n.decided = v.Decided
		out.Facts = append(out.Facts, taken{v.Ballot, v.Decided})
	}
	for _, a := range v.Accepted {
		if a.Slot > uint64(1+n.m.Slots) {
			out.Beyond = fmt.Errorf("slot %d", a.Slot)
		}
	}
}

// handOut gives decided values to the state machine.
func (n *node) handOut(o *replica.Output, out *network.Output) {
	if len(o.Committed) == 0 {
		return
	}
	accepted := n.core.View().Accepted
	for _, e := range o.Committed {
		if e.Index != n.applied.Index+1 {
			out.Violation = fmt.Errorf("node %d hands out slot %d after slot %d", n.id, e.Index, n.applied.Index)
			return
		}
		i, ok := slices.BinarySearchFunc(accepted, e.Index, func(a multipaxos.Accepted, slot uint64) int { return int(a.Slot) - int(slot) })
		if !ok {
			out.Violation = fmt.Errorf("node %d hands out slot %d, which is not in its log", n.id, e.Index)
			return
		}
		out.Facts = append(out.Facts, handedOut{Node: n.id, Slot: e.Index, Value: accepted[i].Value, Term: e.Term, Fence: e.Fence})
		if e.Kind == replica.EntryConfig {
			n.config = e.Data
		}
		n.applied = replica.Position{Index: e.Index, Term: e.Term, Commands: n.applied.Commands + 1}
	}
	n.core.Applied(n.applied.Index)
}

// say holds a message against what is durable, before it leaves.
func (n *node) say(s *multipaxos.Said, out *network.Output) {
	switch s.Kind {
	case "prepare", "promise":
		if promised := n.disk.content.promised; promised.Less(s.Ballot) {
			out.Violation = fmt.Errorf("node %d sends a %s in ballot %v, and its disk has only promised %v", n.id, s.Kind, s.Ballot, promised)
		}
	case "accept":
		for _, a := range s.Values {
			out.Facts = append(out.Facts, proposed{place{a.Slot, a.Ballot}, a.Value})
		}
	case "accepted":
		has := func(slot uint64) bool {
			return slot <= n.applied.Index || slices.ContainsFunc(n.disk.content.accepted, func(a multipaxos.Accepted) bool { return a.Slot == slot && (a.Chosen || a.Ballot == s.Ballot) })
		}
		for _, r := range append(s.Ranges, [2]uint64{1, s.Through}) {
			for slot := r[0]; slot <= r[1]; slot++ {
				if !has(slot) {
					out.Violation = fmt.Errorf("node %d says that it has accepted slot %d in ballot %v, and its disk does not have it", n.id, slot, s.Ballot)
				}
			}
		}
	}
}

// persist makes the oldest batch durable.
func (n *node) persist(out *network.Output) {
	q := n.queue[0]
	n.queue = slices.Clone(n.queue[1:])
	before := n.disk.content
	if err := n.disk.Commit(&q.batch); err != nil {
		out.Violation = err
		return
	}
	after := n.disk.content
	for _, a := range after.accepted {
		if a.Chosen || slices.ContainsFunc(before.accepted, func(b multipaxos.Accepted) bool {
			return a.Slot == b.Slot && a.Ballot == b.Ballot && a.Value == b.Value
		}) {
			continue
		}
		if a.Ballot.Less(n.vowed) {
			out.Violation = fmt.Errorf("node %d accepts %s in slot %d and ballot %v, and it has promised %v before", n.id, a.Value, a.Slot, a.Ballot, n.vowed)
			return
		}
		out.Facts = append(out.Facts, voted{n.id, place{a.Slot, a.Ballot}, a.Value})
	}
	if n.vowed.Less(after.promised) {
		n.vowed = after.promised
	}
	if q.restore != nil {
		n.kept = *q.restore
		n.applied, n.config = n.kept.Position, n.kept.Config
	}
	if q.token != 0 {
		n.core.Persisted(q.token)
		if q.restore != nil {
			n.core.Applied(n.applied.Index)
		}
	}
}

// Deaf implements network.Deaf.
func (n *node) Deaf(from int, body []byte) network.Deafness {
	if n.core == nil {
		return network.Hears
	}
	s, err := multipaxos.Read(group, uint64(from+1), body)
	if err != nil {
		return network.Hears
	}
	v := n.core.View()
	switch s.Kind {
	case "prepare":
		if s.Ballot.Less(n.vowed) {
			return network.DeafForever
		}
	case "accept", "heartbeat":
		switch {
		case s.Ballot.Less(n.vowed):
			return network.DeafForever
		case s.Ballot == v.Promised && s.Decided <= v.Held:
			return network.DeafUntilRestart
		}
	case "promise", "accepted":
		return network.DeafForever // in its office it has counted this; out of it it does not
	}
	return network.Hears
}
