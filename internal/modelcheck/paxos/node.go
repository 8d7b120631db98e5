package paxos

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

const group = 1

var keys = replica.GroupKeys(group)

// node is a replica: its core, its disk, and what a runtime keeps in between.
type node struct {
	m     *Model
	id    uint64
	disk  *disk
	core  *multipaxos.Core // nil: it does not run
	queue []batch          // handed out, not durable, the oldest first

	applied  replica.Position
	config   []byte               // the configuration there
	kept     replica.SnapshotMeta // durable
	offered  replica.SnapshotMeta // to peers; the same, but where the state machine is durable by itself
	incoming replica.SnapshotMeta // received, not installed
	asked    []uint64             // reads of this run that wait, by number

	// What it is held against.
	vowed   multipaxos.Ballot // the highest ballot that it has promised, or accepted in, durably
	taken   uint64            // what it last took for decided as a leader, as its core knows, too; 0: it does not lead
	heard   int               // ticks since a leader was heard, up to ElectionTicks
	running int               // ticks since it was opened, up to ElectionTicks
	before  multipaxos.Ballot // promised before it was opened
}

// batch is what becomes durable at once.
type batch struct {
	batch   storage.Batch
	token   uint64
	restore *replica.SnapshotMeta
}

var (
	_ network.Node    = (*node)(nil)
	_ network.Deaf    = (*node)(nil)
	_ network.Running = (*node)(nil)
)

// newNode makes a replica that has just started.
func newNode(m *Model, id uint64) (*node, error) {
	n := &node{m: m, id: id, disk: newDisk()}
	var b storage.Batch
	var err error
	if id <= uint64(m.Voters) {
		err = m.protocol().Bootstrap(keys, m.founders().encode(), &b)
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
	n.running = m.electionTicks() // it never promised anything to anybody
	if out.Violation != nil || len(out.Messages) > 0 || len(out.Facts) > 0 {
		return nil, fmt.Errorf("paxos: node %d has something to say when it starts: %+v", id, out)
	}
	return n, nil
}

func (m *Model) electionTicks() int { return max(m.ElectionTicks, 1) }

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

// FingerprintRunning implements network.Running. What is only read when the core is opened is no part of it; what
// is durably accepted is, since what the node says is held against that.
func (n *node) FingerprintRunning(b []byte) []byte {
	if n.core != nil {
		b = n.core.Fingerprint(append(b, 1), n.m.timeless(), n.m.fixed())
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
	b = binary.AppendUvarint(b, n.applied.Index)
	b = binary.AppendUvarint(b, n.applied.Term)
	b = binary.AppendUvarint(b, n.applied.Commands)
	b = append(binary.AppendUvarint(b, n.applied.Leader), n.applied.Priority)
	b = replica.AppendBytes(b, n.config)
	b = n.offered.Append(b)
	b = n.incoming.Append(b)
	b = binary.AppendUvarint(b, uint64(len(n.asked)))
	for _, attempt := range n.asked {
		b = binary.AppendUvarint(b, attempt)
	}
	b = appendBallot(b, n.vowed)
	if n.m.Leases {
		b = append(b, byte(n.heard), byte(n.running))
		b = appendBallot(b, n.before)
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
	read
	transfer    // Arg: to whom
	trim        // a snapshot, and what it holds is cut from the log
	damage      // Arg: which record, twice; and one for one that is missing
	rejoin      // the replica is removed, and joins anew
	reconfigure // Arg: which change
)

// Inputs implements network.Node.
func (n *node) Inputs() []network.Input {
	var list []network.Input
	late := crashes
	if n.m.Lags > 0 {
		late = lags
	}
	add := func(in network.Input) {
		list = append(list, in)
		if in.Kind != persist && in.Kind != crash && in.Kind != damage && in.Kind != rejoin && n.mayBeLate() {
			in.Late, in.Costs = true, append(slices.Clone(in.Costs), late)
			list = append(list, in)
		}
	}
	if may(n.m.Crashing, n.id) {
		add(network.Input{Kind: crash, Costs: []int{crashes}})
		if n.m.Damages > 0 {
			for i := range n.disk.content.runs() {
				add(network.Input{Kind: damage, Arg: 2 * i, Costs: []int{damages}})
				add(network.Input{Kind: damage, Arg: 2*i + 1, Costs: []int{damages}})
			}
		}
		add(network.Input{Kind: rejoin, Costs: []int{rejoins}})
	}
	if n.core == nil {
		return list
	}
	v := n.core.View()
	if may(n.m.Candidates, n.id) {
		add(network.Input{Kind: campaign, Costs: []int{ballots}})
	}
	if v.Role == "leading" {
		add(network.Input{Kind: propose, Costs: []int{values}, Numbered: true})
		for i := range n.m.Changes {
			if string(n.m.Changes[i].From.encode()) == string(v.Config) {
				add(network.Input{Kind: reconfigure, Arg: i, Costs: []int{changes}})
			}
		}
		if n.m.Transfers > 0 {
			for to := range n.m.Voters + n.m.Spares {
				if uint64(to+1) != n.id {
					add(network.Input{Kind: transfer, Arg: to + 1, Costs: []int{transfers}})
				}
			}
		}
	}
	if n.m.Lags > 0 && len(n.queue) > 0 {
		add(network.Input{Kind: persist})
	}
	if n.m.Ticks > 0 {
		add(network.Input{Kind: tick, Costs: []int{ticks}})
	}
	if n.m.Reads > 0 && may(n.m.Readers, n.id) {
		add(network.Input{Kind: read, Costs: []int{reads}, Numbered: true})
	}
	if n.m.Trims > 0 && n.applied.Index > max(n.offered.Index, 1) {
		add(network.Input{Kind: trim, Costs: []int{trims}})
	}
	return list
}

// mayBeLate reports whether what the node writes may be not durable when it goes on: where there are no lags, it crashes then.
func (n *node) mayBeLate() bool { return n.m.Lags > 0 || may(n.m.Crashing, n.id) }

// Take implements network.Node.
func (n *node) Take(in network.Input, used int, out *network.Output) {
	n.attempt(out, func() {
		switch in.Kind {
		case campaign:
			n.campaign(out)
		case propose:
			n.propose(string(rune('a'+used)), out)
		case persist:
			n.persist(1, out)
			return
		case crash:
			n.crash(out)
		case tick:
			n.tick(out)
		case read:
			n.read(uint64(used+1), out)
		case transfer:
			n.transfer(uint64(in.Arg), out)
		case trim:
			n.trim(out)
		case damage:
			n.damage(in.Arg/2, in.Arg%2 == 1, out)
			n.crash(out)
		case rejoin:
			n.leave(out)
			n.join(out)
		case reconfigure:
			n.reconfigure(n.m.Changes[in.Arg].To, out)
		}
		n.end(in.Late, out)
	})
}

// Deliver implements network.Node.
func (n *node) Deliver(from int, body []byte, late bool, out *network.Output) {
	if n.core == nil || n.tooLate(uint64(from+1), body) {
		return
	}
	var before []byte
	if len(n.queue) > 0 {
		before = n.FingerprintRunning(nil)
	}
	n.attempt(out, func() {
		n.deliver(uint64(from+1), body, out)
		if before != nil && out.Violation == nil && len(out.Messages)+len(out.Facts) == 0 && bytes.Equal(before, n.FingerprintRunning(nil)) {
			return // what waits becomes durable by itself, not by a message that nobody takes
		}
		n.end(late, out)
	})
}

// tooLate reports whether a message is a promise to a leader that has proposed all that was reported. Where it would only tell
// that leader what its sender knows to be decided, the model loses it.
func (n *node) tooLate(from uint64, body []byte) bool {
	if !n.m.fixed() {
		return false
	}
	_, message := unpack(body)
	s, err := multipaxos.Read(group, from, message)
	if err != nil || s.Kind != "promise" {
		return false
	}
	v := n.core.View()
	return v.Fenced && v.Ballot == s.Ballot
}

// attempt takes a step. By a panic a core says what its protocol excludes: the runtime stops the group on its node
// then. That is a violation, unless a disk was damaged.
func (n *node) attempt(out *network.Output, step func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err, _ := v.(error)
		if n.m.Damages > 0 && (errors.Is(err, storage.ErrCorrupt) || errors.Is(err, synod.ErrRolledBack)) {
			did(out, "# node %d stops: %v", n.id, err)
			n.core, n.queue = nil, nil
			return
		}
		out.Violation = fmt.Errorf("node %d panics: %v", n.id, v)
		if err == nil {
			out.Violation = fmt.Errorf("%w\n%s", out.Violation, debug.Stack())
		}
	}()
	step()
}

// did notes a line of a script.
func did(out *network.Output, format string, args ...any) {
	if out.Script {
		out.Did = append(out.Did, fmt.Sprintf(format, args...))
	}
}

// end makes everything durable, or does not.
func (n *node) end(late bool, out *network.Output) {
	if late {
		switch {
		case out.Violation != nil:
		case len(n.queue) == 0 || !n.mayBeLate():
			out.Idle = true // it is the same as if it were not late, or it does not happen
		case n.m.Lags == 0:
			n.crash(out)
			n.end(false, out)
		}
		return
	}
	for len(n.queue) > 0 && out.Violation == nil && out.Beyond == nil && n.core != nil {
		n.persist(len(n.queue), out)
	}
}

func (n *node) campaign(out *network.Output) {
	did(out, "campaign %d", n.id)
	n.stands(out, n.core.Campaign)
	n.ready(out)
}

func (n *node) propose(value string, out *network.Output) {
	did(out, "propose %d %s", n.id, value)
	if err := n.core.Propose([]byte(value)); err != nil && !errors.Is(err, replica.ErrNotLeading) {
		out.Violation = err
		return
	}
	n.ready(out)
}

func (n *node) tick(out *network.Output) {
	did(out, "tick %d", n.id)
	n.heard, n.running = min(n.heard+1, n.m.electionTicks()), min(n.running+1, n.m.electionTicks())
	n.stands(out, n.core.Tick)
	n.ready(out)
}

func (n *node) read(attempt uint64, out *network.Output) {
	did(out, "read %d %d", n.id, attempt)
	n.asked = append(n.asked, attempt)
	out.Facts = append(out.Facts, asked{attempt})
	n.core.Read(replica.ReadID{Boot: n.id, Attempt: attempt})
	n.ready(out)
}

func (n *node) transfer(to uint64, out *network.Output) {
	did(out, "transfer %d to=%d", n.id, to)
	n.core.Transfer(to)
	n.ready(out)
}

func (n *node) reconfigure(to Configuration, out *network.Output) {
	did(out, "reconfigure %d %v", n.id, to)
	if err := n.core.Reconfigure(to.encode()); err != nil && !errors.Is(err, replica.ErrNotLeading) {
		out.Violation = err
		return
	}
	n.ready(out)
}

// meta describes what is applied.
func (n *node) meta() replica.SnapshotMeta {
	return replica.SnapshotMeta{Position: n.applied, Config: n.config, Held: n.applied.Commands}
}

// snapshot makes one of what is applied, which is durable at once.
func (n *node) snapshot(out *network.Output) {
	did(out, "snapshot %d", n.id)
	n.kept = n.meta()
	n.offered = n.kept
	n.core.SnapshotAvailable(n.offered)
	n.ready(out)
}

func (n *node) compact(out *network.Output) {
	did(out, "compact %d %d", n.id, n.offered.Index)
	var q batch
	n.core.Compact(n.offered.Position, n.offered.Config, &q.batch)
	n.queue = append(n.queue, q)
	n.ready(out)
}

func (n *node) trim(out *network.Output) {
	n.snapshot(out)
	n.compact(out)
}

// crash loses what is not durable, and starts the replica again.
func (n *node) crash(out *network.Output) {
	did(out, "crash %d", n.id)
	n.open(out)
}

// damage flips a bit of a run of values on the disk, or removes it.
func (n *node) damage(which int, missing bool, out *network.Output) {
	c := n.disk.content
	i := c.runs()[which]
	key, value := c.keys[i], slices.Clone(c.values[i])
	slot := firstOf(key)
	var b storage.Batch
	if missing {
		did(out, "damage %d slot=%d missing", n.id, slot)
		b.Delete(key)
	} else {
		did(out, "damage %d slot=%d", n.id, slot)
		end := len(value) - 1
		for value[end] == 0 { // padding
			end--
		}
		value[end] ^= 2
		b.Set(key, value)
	}
	if err := n.disk.Commit(&b); err != nil {
		out.Violation = err
	}
}

// firstOf returns the first slot of a run, by its key.
func firstOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-5*8:]) }

// leave removes the replica from its node.
func (n *node) leave(out *network.Output) {
	did(out, "leave %d", n.id)
	n.rewrite(out, func(b *storage.Batch) error { return n.m.protocol().Leave(keys, n.disk, b) })
	n.core, n.kept, n.offered = nil, replica.SnapshotMeta{}, replica.SnapshotMeta{}
}

// join makes a replica that knows nothing of its group.
func (n *node) join(out *network.Output) {
	did(out, "join %d", n.id)
	n.rewrite(out, func(b *storage.Batch) error { return n.m.protocol().Join(keys, n.disk, b) })
	n.open(out)
}

func (n *node) rewrite(out *network.Output, write func(*storage.Batch) error) {
	var b storage.Batch
	err := write(&b)
	if err == nil {
		err = n.disk.Commit(&b)
	}
	if err != nil {
		out.Violation = err
	}
}

func (n *node) deliver(from uint64, body []byte, out *network.Output) {
	meta, message := unpack(body)
	if meta != nil {
		n.incoming = *meta
	}
	var err error
	n.stands(out, func() { err = n.core.Step(from, message, len(message)) })
	if err != nil {
		out.Violation = fmt.Errorf("node %d refuses a message: %w", n.id, err)
		return
	}
	if n.m.Leases {
		if s, err := multipaxos.Read(group, from, message); err == nil && (s.Kind == "accept" || s.Kind == "heartbeat") && n.core.View().Leader == s.Ballot {
			n.heard = 0
		}
	}
	n.ready(out)
}

// A snapshot goes over the network as one message, with what the receiver stores of it.
const snapshotMark = 0xff

func pack(meta *replica.SnapshotMeta, message []byte) []byte {
	described, err := json.Marshal(meta)
	if err != nil {
		panic(err)
	}
	return append(replica.AppendBytes([]byte{snapshotMark}, described), message...)
}

func unpack(body []byte) (*replica.SnapshotMeta, []byte) {
	if len(body) == 0 || body[0] != snapshotMark {
		return nil, body
	}
	r := replica.NewReader(body[1:])
	meta := new(replica.SnapshotMeta)
	if err := json.Unmarshal(r.Bytes(), meta); err != nil {
		panic(err)
	}
	return meta, r.Rest()
}

// describe shows a message to people.
func describe(from uint64, body []byte) string {
	_, message := unpack(body)
	return multipaxos.Describe(group, from, message)
}

// open starts the replica from what is durable.
func (n *node) open(out *network.Output) {
	if out.Violation != nil {
		return
	}
	n.core, n.queue, n.asked, n.incoming, n.taken = nil, nil, nil, replica.SnapshotMeta{}, 0
	n.heard, n.running, n.before = n.m.electionTicks(), 0, n.disk.content.promised
	p := n.m.protocol()
	start, config, err := p.Start(keys, n.disk)
	if err == nil && n.kept.Index > 0 && n.kept.Index >= start.Index {
		start, config = n.kept.Position, n.kept.Config
	}
	var core replica.Core
	if err == nil {
		core, err = p.Open(replica.OpenOptions{Node: n.id, Keys: keys, Store: n.disk, Start: start, Config: config, Logger: slog.New(slog.DiscardHandler),
			ElectionTicks: n.m.electionTicks(), HeartbeatTicks: 1, Leases: n.m.Leases, MessageBytes: messageBytes(n.m),
			InflightBytes: 1 << 20, PendingBytes: 1 << 20, ApplyBytes: 1 << 20, CacheBytes: 1 << 20})
	}
	if err != nil {
		if n.m.Damages > 0 && errors.Is(err, storage.ErrCorrupt) {
			return // it stays down
		}
		out.Violation = fmt.Errorf("node %d can't be opened: %w", n.id, err)
		return
	}
	n.core = core.(*multipaxos.Core)
	n.applied, n.config = start, config
	if n.offered = n.kept; n.kept.Index > 0 {
		n.core.SnapshotAvailable(n.offered)
	}
	n.ready(out)
}

func messageBytes(m *Model) uint64 {
	if m.MessageBytes > 0 {
		return uint64(m.MessageBytes)
	}
	return 1 << 20
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
		if o.Restore != nil {
			if n.incoming.Position != *o.Restore {
				out.Violation = fmt.Errorf("node %d installs a snapshot at slot %d that was not received", n.id, o.Restore.Index)
				return
			}
			meta := n.incoming
			q.restore = &meta
			out.Facts = append(out.Facts, installed{n.id, meta.Index})
		}
		if q.batch.Len() > 0 || q.token != 0 {
			n.queue = append(n.queue, q)
		}
		n.handOut(&o, out)
		for _, m := range o.Messages {
			n.say(m.To, slices.Concat(m.Head, m.Tail), out)
		}
		for _, s := range o.Snapshots {
			ok := s.Index == n.offered.Index
			if ok {
				n.post(s.To, "snapshot", pack(&n.offered, s.Message), out)
			}
			n.core.SnapshotSent(s.To, ok) // what becomes of it is the network's matter
		}
		for _, a := range o.Reads {
			if i := slices.Index(n.asked, a.ID.Attempt); i >= 0 && a.ID.Boot == n.id {
				n.asked = slices.Delete(n.asked, i, i+1)
				out.Facts = append(out.Facts, answered{a.ID.Attempt, a.Index})
			}
		}
	}
	if out.Violation != nil {
		return
	}
	v := n.core.View()
	switch {
	case v.Role != "leading":
		n.taken = 0
	case v.Decided > n.taken:
		n.taken = v.Decided
		out.Facts = append(out.Facts, taken{v.Ballot, v.Decided})
	}
	if k := len(v.Accepted); k > 0 && v.Accepted[k-1].Slot > uint64(1+n.m.Slots) {
		out.Beyond = fmt.Errorf("slot %d", v.Accepted[k-1].Slot)
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
		n.applied = e.Position(n.applied.Commands + 1)
	}
	if n.m.Durable {
		n.kept = n.meta()
	}
	n.core.Applied(n.applied.Index)
}

// say holds a message against what is durable, and sends it.
func (n *node) say(to uint64, body []byte, out *network.Output) {
	s, err := multipaxos.Read(group, n.id, body)
	if err != nil {
		out.Violation = fmt.Errorf("node %d says what nobody understands: %w", n.id, err)
		return
	}
	c := n.disk.content
	violated := func(format string, args ...any) {
		if out.Violation == nil {
			out.Violation = fmt.Errorf("node %d "+format, append([]any{n.id}, args...)...)
		}
	}
	switch s.Kind {
	case "prepare", "promise":
		switch {
		case c.promised.Less(s.Ballot):
			violated("sends a %s in ballot %v, and its disk has only promised %v", s.Kind, s.Ballot, c.promised)
		case s.Kind == "promise" && s.Ballot.Less(n.vowed):
			violated("promises %v, and it has promised %v before", s.Ballot, n.vowed)
		}
		n.checkLease(s.Kind, s.Ballot, violated)
	case "accept":
		v := n.core.View()
		for _, a := range s.Values {
			out.Facts = append(out.Facts, proposed{place{a.Slot, a.Ballot}, a.Value, n.underConfig(&v), n.since(&v)})
		}
	case "accepted":
		has := func(slot uint64) bool {
			return slot <= n.applied.Index || slices.ContainsFunc(c.accepted, func(a multipaxos.Accepted) bool { return a.Slot == slot && (a.Chosen || a.Ballot == s.Ballot) })
		}
		for _, r := range append(s.Ranges, [2]uint64{1, s.Through}) {
			for slot := r[0]; slot <= r[1]; slot++ {
				if !has(slot) {
					violated("says that it has accepted slot %d in ballot %v, and its disk does not have it", slot, s.Ballot)
				}
			}
		}
	}
	n.post(to, s.Kind, body, out)
}

// post sends a message, unless it is of a kind that the model loses.
func (n *node) post(to uint64, kind string, body []byte, out *network.Output) {
	if !slices.Contains(n.m.Lost, kind) {
		out.Messages = append(out.Messages, network.Message{To: int(to - 1), Body: body})
	}
}

// underConfig returns the configuration that a proposal is made under, if that may change.
func (n *node) underConfig(v *multipaxos.View) string {
	if !n.m.changing() {
		return ""
	}
	return string(v.Config)
}

func (n *node) since(v *multipaxos.View) uint64 {
	if !n.m.changing() {
		return 1
	}
	return v.ConfSlot
}

// checkLease holds a promise against the leases that leaders may count on: whoever has heard a leader, or may have
// forgotten that, does not help to elect another one for ElectionTicks.
func (n *node) checkLease(what string, ballot multipaxos.Ballot, violated func(string, ...any)) {
	v := n.core.View()
	if !n.m.Leases || n.before == ballot || v.Leader == ballot || n.m.Transfers > 0 {
		return
	}
	alone := slices.Equal(v.Voters, []uint64{n.id}) && !slices.ContainsFunc(v.Accepted, func(a multipaxos.Accepted) bool {
		return a.Slot > v.Held && strings.HasPrefix(a.Value, "config")
	})
	switch {
	case alone:
	case n.running < n.m.electionTicks():
		violated("helps with a %s in ballot %v %d ticks after it was opened: it may have forgotten a lease", what, ballot, n.running)
	case n.heard < n.m.electionTicks():
		violated("helps with a %s in ballot %v %d ticks after it has heard a leader", what, ballot, n.heard)
	}
}

// stands checks, in a model with leases, whether an input has made the node stand for election when it must not.
func (n *node) stands(out *network.Output, input func()) {
	before := n.core.View()
	input()
	if !n.m.Leases || n.core == nil || out.Violation != nil {
		return
	}
	if v := n.core.View(); v.Ballot != before.Ballot && v.Role != "follower" {
		n.checkLease("candidacy", v.Ballot, func(format string, args ...any) {
			out.Violation = fmt.Errorf("node %d "+format, append([]any{n.id}, args...)...)
		})
	}
}

// persist makes the oldest batches durable.
func (n *node) persist(count int, out *network.Output) {
	if count < len(n.queue) {
		did(out, "persist %d n=%d", n.id, count)
	} else {
		did(out, "persist %d", n.id)
	}
	for _, q := range n.queue[:count] {
		if n.durable(&q, out); out.Violation != nil {
			return
		}
	}
	n.queue = slices.Clone(n.queue[count:])
	n.ready(out)
}

// durable takes in that a batch is.
func (n *node) durable(q *batch, out *network.Output) {
	before := n.disk.content
	if err := n.disk.Commit(&q.batch); err != nil {
		out.Violation = err
		return
	}
	after := n.disk.content
	v := n.core.View()
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
		if a.Ballot.Node == n.id {
			out.Facts = append(out.Facts, proposed{place{a.Slot, a.Ballot}, a.Value, n.underConfig(&v), n.since(&v)})
		}
		out.Facts = append(out.Facts, voted{n.id, place{a.Slot, a.Ballot}, a.Value})
	}
	for _, a := range after.accepted {
		if !a.Chosen && n.vowed.Less(a.Ballot) {
			n.vowed = a.Ballot
		}
	}
	if n.vowed.Less(after.promised) {
		n.vowed = after.promised
	}
	if q.restore != nil {
		n.kept, n.offered = *q.restore, *q.restore
		n.applied, n.config = n.kept.Position, n.kept.Config
	}
	if q.token != 0 {
		n.core.Persisted(q.token)
		if q.restore != nil {
			n.core.Applied(n.applied.Index)
		}
	}
}

// below returns for how long a ballot stays below what is promised.
func below(b multipaxos.Ballot, v *multipaxos.View) network.Deafness {
	if b.Less(v.Durable) {
		return network.DeafForever
	}
	return network.DeafUntilRestart
}

// Deaf implements network.Deaf.
func (n *node) Deaf(from int, body []byte) network.Deafness {
	if n.core == nil {
		return network.Hears
	}
	_, message := unpack(body)
	s, err := multipaxos.Read(group, uint64(from+1), message)
	if err != nil {
		return network.Hears
	}
	v := n.core.View()
	inOffice := v.Ballot == s.Ballot && (v.Role == "leading" || v.Role == "preparing")
	switch s.Kind {
	case "prepare":
		if s.Ballot.Less(v.Promised) {
			return below(s.Ballot, &v)
		}
	case "accept", "heartbeat":
		if s.Ballot.Less(v.Promised) {
			return below(s.Ballot, &v)
		}
		// It has done all that it says, and does not do it again before a restart.
		if len(n.queue) == 0 && n.m.timeless() && s.Ballot == v.Promised && s.Decided <= v.Held {
			return network.DeafUntilRestart
		}
	case "refused":
		// The next ballot will be higher than this one, unless the node forgets it.
		if n.m.timeless() {
			return network.DeafUntilRestart
		}
	case "promise":
		// A promise counts once, and no ballot is used twice.
		if !inOffice || slices.Contains(v.Complete, uint64(from+1)) || n.m.fixed() && v.Fenced {
			return network.DeafForever
		}
	case "accepted":
		if !inOffice {
			return network.DeafForever
		}
		// A member has said more since then, and it is fetched from nobody.
		i := slices.IndexFunc(v.Members, func(h multipaxos.Heard) bool { return h.Node == uint64(from+1) })
		if n.m.timeless() && !n.m.changing() && s.Decided <= v.Held && i >= 0 {
			if h := v.Members[i]; s.Number < h.Number || s.Number == h.Number && s.Through < h.Match {
				return network.DeafForever
			}
		}
	}
	return network.Hears
}
