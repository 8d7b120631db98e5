package threephase

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/threephase"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/storage"
)

// resource is the name of the one resource that each node has.
const resource = "r"

// transaction is the one that node 1 coordinates.
var transaction = core.ID{Node: 1, Incarnation: 1, Counter: 1}

// node is a machine: its core, its disk, its resource.
type node struct {
	m     *Model
	id    uint64
	core  *core.Core
	queue []batch // handed out, not durable, the oldest first

	// What survives a crash.
	keys, values [][]byte // of the disk, ascending
	prepared     bool     // the resource
	did          twophase.Outcome
	restarted    bool

	told bool // the caller has its answer
}

// batch is what becomes durable at once.
type batch struct {
	batch *storage.Batch
	token uint64
}

var (
	_ network.Node    = (*node)(nil)
	_ network.Running = (*node)(nil)
	_ network.Deaf    = (*node)(nil)
)

// start makes a core of what the disk has.
func (n *node) start() error {
	cfg := core.Config{Protocol: n.m.Protocol, Node: n.id, Incarnation: n.id, Base: 1, Resources: []string{resource},
		PrepareTicks: 1, ResendTicks: 1, InquireTicks: 1, PeerTicks: 1, MaxTransactions: 8, MaxBranches: 8, MaxParticipants: 8, MaxFinished: 8}
	if n.restarted {
		cfg.Base = 2
	}
	n.core = core.New(cfg)
	if err := n.core.Load(n.keys, n.values); err != nil {
		return err
	}
	if n.prepared {
		n.core.Orphan(transaction, resource)
	}
	return nil
}

// Clone implements network.Node.
func (n *node) Clone() network.Node {
	c := *n
	c.core = n.core.Clone()
	c.queue = slices.Clone(n.queue)
	c.keys, c.values = slices.Clone(n.keys), slices.Clone(n.values)
	return &c
}

// Fingerprint implements network.Node.
func (n *node) Fingerprint(b []byte) []byte {
	b = n.FingerprintRunning(b)
	for i := range n.keys {
		b = wire.AppendBytes(wire.AppendBytes(b, n.keys[i]), n.values[i])
	}
	return twophase.AppendFlags(b, n.restarted)
}

// FingerprintRunning implements network.Running.
func (n *node) FingerprintRunning(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(n.queue)))
	b = twophase.AppendFlags(b, n.prepared, n.told)
	return n.core.Fingerprint(append(b, byte(n.did)), true)
}

// What may happen to a node, beside messages.
const (
	crash   = iota
	stand   // a branch in doubt stands for election
	expire  // the coordinator's patience ends
	suspect // a leader takes those who are silent for crashed
	inquire // a branch in doubt asks the coordinator
	conclude
)

var verbs = []string{crash: "crash", stand: "stand", expire: "expire", suspect: "suspect", inquire: "inquire", conclude: "close"}

// Inputs implements network.Node.
func (n *node) Inputs() (list []network.Input) {
	add := func(kind int, costs ...int) {
		in := network.Input{Kind: kind, Costs: costs}
		list = append(list, in)
		if kind != crash && n.mayCrash() {
			in.Late, in.Costs = true, append(slices.Clone(costs), crashes)
			list = append(list, in)
		}
	}
	if n.mayCrash() {
		add(crash, crashes)
	}
	t, here := n.core.Coordinating(transaction)
	if n.id == 1 && here && !t.Closing {
		add(expire, expiries)
	}
	e, part := n.core.Participating(transaction, resource)
	if part && e.InDoubt {
		if n.m.Standing == nil || slices.Contains(n.m.Standing, n.id) {
			add(stand, elections)
		}
		if n.m.Inquiries {
			add(inquire)
		}
	}
	if n.m.Protocol == core.Skeen && !n.m.Patient && (here && t.Leading && !t.Impatient || part && e.Leading && !e.Impatient) {
		add(suspect)
	}
	if n.m.Closing && part && e.Closing {
		add(conclude)
	}
	return list
}

func (n *node) mayCrash() bool {
	return n.m.Crashes > 0 && (n.m.Crashing == nil || slices.Contains(n.m.Crashing, n.id))
}

// Take implements network.Node.
func (n *node) Take(in network.Input, _ int, out *network.Output) {
	n.take(in.Kind, out)
	n.end(in.Late, out)
}

func (n *node) take(kind int, out *network.Output) {
	if kind == crash {
		n.crash(out)
		return
	}
	note(out, "%s %d", verbs[kind], n.id)
	switch kind {
	case stand:
		_ = n.core.Terminate(transaction, resource) // an error: it is not in doubt, and nothing happens
	case expire:
		n.core.Expire(transaction)
	case suspect:
		if v, here := n.core.Coordinating(transaction); here && v.Leading {
			n.core.Suspect(transaction, "")
		} else {
			n.core.Suspect(transaction, resource)
		}
	case inquire:
		n.core.Inquire(transaction, resource)
	case conclude:
		n.core.Close(transaction, resource)
	}
	n.gather(out)
}

// Deliver implements network.Node.
func (n *node) Deliver(from int, body []byte, late bool, out *network.Output) {
	n.deliver(uint64(from+1), body, out)
	n.end(late, out)
}

func (n *node) deliver(from uint64, body []byte, out *network.Output) {
	m, err := core.DecodeMessage(body)
	if err != nil {
		out.Violation = err
		return
	}
	m.From, m.To = from, n.id
	n.core.Step(m)
	n.gather(out)
}

// Deaf implements network.Deaf: an answer to an attempt that its leader has left behind changes nothing any more.
func (n *node) Deaf(_ int, body []byte) network.Deafness {
	m, err := core.DecodeMessage(body)
	if err != nil || m.Kind != core.KindVote && m.Kind != core.KindState && m.Kind != core.KindAck {
		return network.Hears
	}
	v, here := n.core.Coordinating(transaction)
	lost := func(kind string) bool { return slices.Contains(n.m.Lost, kind) }
	if m.Kind == core.KindVote {
		if !lost("outcome") || !lost("answer") {
			return network.Hears // it may be answered later
		}
		if here && v.Preparing {
			return network.DeafUntilRestart
		}
		return network.DeafForever
	}
	coordinator := m.Ballot.Rank == 0
	if !coordinator {
		v, here = n.core.Participating(transaction, resource)
	}
	switch {
	case coordinator && (!here || v.Closing):
		return network.DeafForever
	case !here || !v.InDoubt && !coordinator:
		return network.DeafUntilRestart
	case m.State == core.StateCommitted || m.State == core.StateAborted:
		return network.Hears
	case m.Elected.Number > v.Highest:
		return network.Hears
	case m.Ballot.Compare(v.Ballot) < 0, m.Ballot == v.Ballot && (m.Kind == core.KindAck || !v.Electing):
		return network.DeafUntilRestart
	}
	return network.Hears
}

// note notes a line of a script.
func note(out *network.Output, format string, args ...any) {
	if out.Script {
		out.Did = append(out.Did, fmt.Sprintf(format, args...))
	}
}

// end makes everything durable, or does not: then the node crashes.
func (n *node) end(late bool, out *network.Output) {
	if late && out.Violation == nil {
		if len(n.queue) == 0 {
			out.Idle = true // it is the same as if it were not late
			return
		}
		n.crash(out)
	}
	for len(n.queue) > 0 && out.Violation == nil {
		n.persist(out)
	}
}

func (n *node) crash(out *network.Output) {
	note(out, "crash %d", n.id)
	n.queue, n.restarted = nil, true
	if err := n.start(); err != nil {
		out.Violation = fmt.Errorf("node %d does not start: %w", n.id, err)
		return
	}
	n.gather(out)
}

// persist makes everything durable that was handed out.
func (n *node) persist(out *network.Output) {
	note(out, "persist %d", n.id)
	queue := n.queue
	n.queue = nil
	for _, q := range queue {
		for _, op := range q.batch.Ops() {
			i := sort.Search(len(n.keys), func(i int) bool { return string(n.keys[i]) >= string(op.Key) })
			found := i < len(n.keys) && string(n.keys[i]) == string(op.Key)
			switch {
			case op.Kind == storage.KindSet && found:
				n.values[i] = op.Value
			case op.Kind == storage.KindSet:
				n.keys, n.values = slices.Insert(n.keys, i, op.Key), slices.Insert(n.values, i, op.Value)
			case found:
				n.keys, n.values = slices.Delete(n.keys, i, i+1), slices.Delete(n.values, i, i+1)
			}
		}
		n.core.Persisted(q.token)
	}
	n.gather(out)
}

// gather does what the core wants done, but for what is to be made durable.
func (n *node) gather(out *network.Output) {
	for out.Violation == nil {
		n.core.Flush()
		r := n.core.Ready()
		if err := n.core.Err(); err != nil {
			out.Violation = err
			return
		}
		if r.Empty() {
			return
		}
		for _, m := range r.Messages {
			if !slices.Contains(n.m.Lost, m.Kind.String()) {
				out.Messages = append(out.Messages, network.Message{To: int(m.To - 1), Body: core.AppendMessage(nil, m)})
			}
		}
		if r.Batch != nil {
			n.queue = append(n.queue, batch{r.Batch, r.Token})
		}
		for _, res := range r.Results {
			n.told = true
			if res.Outcome != twophase.OutcomeUnknown {
				out.Facts = append(out.Facts, answered{res.Outcome})
			}
		}
		for _, d := range r.Damages {
			out.Violation = fmt.Errorf("node %d reports that resource %q of node %d has %v, and the transaction was not", n.id, d.Resource, d.Node, d.Damage)
			if n.m.Protocol == core.Skeen {
				out.Violation = nil // it says so itself
			}
		}
		for _, call := range r.Calls {
			n.call(call, out)
		}
	}
}

// call has the resource do something, durably.
func (n *node) call(call core.Call, out *network.Output) {
	switch call.Kind {
	case twophase.CallPrepare:
		v := n.m.vote(n.id)
		if n.did == twophase.OutcomeCommitted {
			out.Violation = fmt.Errorf("the resource of node %d is prepared again after it was committed", n.id)
			return
		}
		n.prepared = v == twophase.VoteYes
		n.core.Voted(call.ID, call.Resource, v, "not today")
		return
	case twophase.CallCommit:
		if !n.prepared && n.did != twophase.OutcomeCommitted && n.m.vote(n.id) == twophase.VoteYes {
			out.Violation = fmt.Errorf("the resource of node %d commits what is not prepared", n.id)
			return
		}
		n.do(twophase.OutcomeCommitted, out)
	case twophase.CallAbort:
		n.do(twophase.OutcomeAborted, out)
	}
	n.core.Done(call.ID, call.Resource, twophase.OutcomeUnknown, "")
}

func (n *node) do(o twophase.Outcome, out *network.Output) {
	n.prepared = false
	if n.m.vote(n.id) == twophase.VoteYes || o == twophase.OutcomeCommitted {
		n.did = o
		out.Facts = append(out.Facts, done{n.id, o})
	}
}
