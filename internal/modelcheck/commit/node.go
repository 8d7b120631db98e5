package commit

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/storage"
)

// node is a machine: its core, what is durable there, and what a runtime keeps in between.
type node struct {
	m        *Model
	id       uint64
	core     *twophase.Core // nil: it waits for the decision log
	run      uint64         // of one that coordinates: how often it was started
	next     uint64         // counter of the next transaction that begins here
	disk     *disk
	register register // its own decision log
	branches []branch // of its resources, ascending
	writes   []write  // not durable, the oldest first
	calls    []twophase.Call
	asked    []twophase.ID // proposals to a shared log that were not answered
	lost     int           // how often its store was lost
}

// incarnation is that of the node's store.
func (n *node) incarnation() uint64 { return n.id + 16*uint64(n.lost+1) }

// branch is what a resource has of a transaction.
type branch struct {
	id       twophase.ID
	resource string
	status   status // durable
	staying  bool   // it has voted read-only, and keeps its locks until it is told; gone with a crash
}

type write struct {
	batch *storage.Batch
	token uint64
}

var (
	_ network.Node = (*node)(nil)
	_ network.Deaf = (*node)(nil)
)

// What may happen to a node, beside messages.
const (
	begin = iota
	persist
	crash
	tick
	call    // Arg: which one, and what the resource answers
	timeout // Arg: which proposal to the decision log fails
	force   // Arg: which branch, and how
	lose    // the store is lost, and the node starts with an empty one
)

// Answers of resources to calls.
const (
	answerYes = iota // for a commit in one phase: it has committed
	answerReadOnly
	answerNo
	answerDone
	answerFails
	answers
)

// Clone implements network.Node.
func (n *node) Clone() network.Node {
	c := *n
	if n.core != nil {
		c.core = n.core.Clone()
	}
	c.branches = slices.Clone(n.branches)
	c.writes = slices.Clone(n.writes)
	c.calls = slices.Clone(n.calls)
	c.asked = slices.Clone(n.asked)
	return &c
}

// Fingerprint implements network.Node.
func (n *node) Fingerprint(b []byte) []byte {
	if n.core != nil {
		b = n.core.Fingerprint(append(b, 1))
	}
	b = append(b, 0)
	b = binary.AppendUvarint(b, n.run)
	b = binary.AppendUvarint(b, n.next)
	b = append(b, byte(n.lost))
	b = append(b, n.disk.sum[:]...)
	b = appendBytes(b, n.register)
	b = binary.AppendUvarint(b, uint64(len(n.branches)))
	for _, x := range n.branches {
		b = appendBytes(twophase.AppendID(b, x.id), []byte(x.resource))
		b = append(b, byte(x.status))
		if x.staying {
			b = append(b, 1)
		}
		b = append(b, 0xff)
	}
	b = binary.AppendUvarint(b, uint64(len(n.writes)))
	for _, w := range n.writes {
		for _, op := range w.batch.Ops() {
			b = append(b, byte(op.Kind))
			b = appendBytes(appendBytes(b, op.Key), op.Value)
		}
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(n.calls)))
	for _, c := range n.calls {
		b = appendBytes(twophase.AppendID(append(b, byte(c.Kind)), c.ID), []byte(c.Resource))
		if c.MayLeave {
			b = append(b, 1)
		}
		b = append(b, 0xff)
	}
	for _, id := range n.asked {
		b = twophase.AppendID(b, id)
	}
	return b
}

// first reports whether a call is the first one of its branch: they keep their order.
func (n *node) first(i int) bool {
	return !slices.ContainsFunc(n.calls[:i], func(c twophase.Call) bool { return c.ID == n.calls[i].ID && c.Resource == n.calls[i].Resource })
}

// answersTo returns what a resource may answer to a call.
func (n *node) answersTo(c twophase.Call) (list []int) {
	switch c.Kind {
	case twophase.CallPrepare, twophase.CallOne:
		votes := n.m.votes(n.id)
		if slices.ContainsFunc(n.branches, func(b branch) bool { return b.id == c.ID && b.resource == c.Resource && b.status == readOnly }) {
			votes = []twophase.Vote{twophase.VoteReadOnly} // who has nothing to commit has nothing later, either
		}
		for _, v := range votes {
			switch {
			case v == twophase.VoteYes:
				list = append(list, answerYes)
			case v == twophase.VoteNo:
				list = append(list, answerNo)
			case c.Kind == twophase.CallPrepare:
				list = append(list, answerReadOnly)
			}
		}
		return list
	}
	return []int{answerDone}
}

// Inputs implements network.Node.
func (n *node) Inputs() (list []network.Input) {
	add := func(kind, arg int, costs ...int) {
		list = append(list, network.Input{Kind: kind, Arg: arg, Costs: costs})
	}
	if may(n.m.Crashing, n.id) && n.m.Crashes > 0 && n.marked() {
		add(crash, 0, crashes)
	}
	if n.m.Losses > 0 && n.m.coordinates(n.id) && n.marked() {
		add(lose, 0, losses)
	}
	if n.core == nil {
		return list
	}
	if slices.ContainsFunc(n.m.Transactions, func(t Transaction) bool { return t.At == n.id }) {
		list = append(list, network.Input{Kind: begin, Costs: []int{transactions}, Numbered: true})
	}
	if len(n.writes) > 0 {
		add(persist, 0)
	}
	for i, c := range n.calls {
		if !n.first(i) {
			continue
		}
		for _, a := range n.answersTo(c) {
			add(call, i*answers+a)
		}
		if n.m.Failures > 0 && (c.Kind == twophase.CallCommit || c.Kind == twophase.CallAbort || c.Kind == twophase.CallOutcome) {
			add(call, i*answers+answerFails, failures)
		}
	}
	if n.m.Ticks > 0 && may(n.m.Ticking, n.id) && (n.core.Busy() || len(n.writes) > 0) {
		add(tick, 0, ticks)
	}
	for i := range n.asked {
		add(timeout, i, timeouts)
	}
	if n.m.Forces > 0 {
		for i := range n.core.InDoubt() {
			add(force, 2*i, forces)
			add(force, 2*i+1, forces)
		}
	}
	return list
}

// marked reports whether the node is another one than when it began: otherwise a crash is none.
func (n *node) marked() bool {
	return n.core == nil || n.core.Busy() || len(n.disk.keys) > 0 || len(n.branches) > 0 || len(n.writes) > 0 || n.next != n.run*perRun
}

// perRun is how many transactions a run of a node may begin.
const perRun = 10

// Take implements network.Node.
func (n *node) Take(in network.Input, used int, out *network.Output) {
	n.attempt(out, func() {
		switch in.Kind {
		case begin:
			if t := n.m.Transactions[n.m.done+used]; t.At == n.id {
				n.begin(n.m.done+used, out)
			} else {
				out.Idle = true
			}
		case persist:
			n.persist(out)
		case crash:
			n.crash(out)
		case tick:
			n.tick(out)
		case call:
			n.call(in.Arg/answers, in.Arg%answers, out)
		case timeout:
			n.timeout(n.asked[in.Arg], out)
		case lose:
			n.lose(out)
		case force:
			d := n.core.InDoubt()[in.Arg/2]
			n.force(d.ID, d.Resource, twophase.OutcomeCommitted+twophase.Outcome(in.Arg%2), out)
		}
	})
}

// attempt takes a step. A panic is a violation.
func (n *node) attempt(out *network.Output, step func()) {
	defer func() {
		if v := recover(); v != nil {
			out.Violation = fmt.Errorf("node %d panics: %v\n%s", n.id, v, debug.Stack())
		}
	}()
	step()
}

func (n *node) violated(out *network.Output, format string, args ...any) {
	fail(out, fmt.Errorf("node %d "+format, append([]any{n.id}, args...)...))
}

// did notes a line of a script.
func (n *node) did(out *network.Output, format string, args ...any) {
	if out.Script {
		out.Did = append(out.Did, fmt.Sprintf(format, args...))
	}
}

// begin begins to commit a transaction of the model.
func (n *node) begin(number int, out *network.Output) {
	t := n.m.Transactions[number]
	n.did(out, "commit %d by=%s", n.id, listBranches(t.Branches))
	id := twophase.ID{Node: n.id, Incarnation: n.incarnation(), Counter: n.next}
	n.next++
	out.Facts = append(out.Facts, begun{id, number})
	if err := n.core.Open(id); err != nil {
		n.violated(out, "refuses to open: %v", err)
		return
	}
	if err := n.core.Commit(id, t.Branches); err != nil {
		n.violated(out, "refuses to commit: %v", err)
		return
	}
	n.ready(out)
}

func (n *node) persist(out *network.Output) {
	n.did(out, "persist %d", n.id)
	w := n.writes[0]
	n.writes = slices.Clone(n.writes[1:])
	n.durable(w, out)
	n.ready(out)
}

func (n *node) durable(w write, out *network.Output) {
	d, err := n.disk.commit(w.batch)
	if fail(out, err); err == nil {
		n.disk = d
		n.core.Persisted(w.token)
	}
}

func (n *node) tick(out *network.Output) {
	n.did(out, "tick %d", n.id)
	n.core.Tick()
	n.ready(out)
}

// timeout has a proposal to the decision log fail: whether it wins nobody knows.
func (n *node) timeout(id twophase.ID, out *network.Output) {
	n.did(out, "timeout %d %s", n.id, shorten(id))
	n.answeredBy(id, twophase.VerdictUnknown)
	n.ready(out)
}

func (n *node) answeredBy(id twophase.ID, v twophase.Verdict) {
	i := slices.Index(n.asked, id)
	if i < 0 {
		return
	}
	n.asked = slices.Delete(n.asked, i, i+1)
	n.core.Decided(id, v)
}

func (n *node) force(id twophase.ID, resource string, outcome twophase.Outcome, out *network.Output) {
	n.did(out, "force %d %s %s %s", n.id, shorten(id), resource, outcome)
	if n.core.Force(id, resource, outcome) != nil {
		return
	}
	out.Facts = append(out.Facts, forced{id, n.id, resource})
	n.ready(out)
}

// crash loses what is not durable, and starts the node again.
func (n *node) crash(out *network.Output) {
	n.did(out, "crash %d", n.id)
	n.core, n.writes, n.calls, n.asked = nil, nil, nil, nil
	for i := range n.branches {
		n.branches[i].staying = false
	}
	n.branches = slices.DeleteFunc(n.branches, func(b branch) bool { return b.status == untouched })
	n.start(out)
}

// lose loses the store: what was promised nobody knows. The node starts with an empty one, which has another incarnation.
func (n *node) lose(out *network.Output) {
	n.did(out, "lose %d", n.id)
	n.lost++
	n.disk, n.register, n.branches = newDisk(), nil, nil
	n.core, n.writes, n.calls, n.asked = nil, nil, nil, nil
	n.start(out)
}

// start ends in the decision log what earlier runs have begun, and goes on with what it says.
func (n *node) start(out *network.Output) {
	if !n.m.coordinates(n.id) {
		n.load(nil, out)
		return
	}
	n.run++
	n.next = n.run * perRun
	p := twophase.Progress{Node: n.id, Incarnation: n.incarnation(), Upcoming: n.next, Open: twophase.Delegated(n.id, n.incarnation(), n.disk.keys)}
	if n.m.Shared {
		out.Messages = append(out.Messages, network.Message{To: n.m.Nodes, Body: appendProgress(binary.AppendUvarint([]byte{opRecover}, n.run), p)})
		return
	}
	stay, ok := n.register.recover(p, out)
	if !ok {
		n.violated(out, "is refused by its own decision log")
	}
	n.load(stay, out)
}

func (n *node) load(decisions []twophase.Decision, out *network.Output) {
	if out.Violation != nil {
		return
	}
	cfg := n.m.config(n.id)
	cfg.Incarnation = n.incarnation()
	if cfg.Base = 1; n.m.coordinates(n.id) {
		cfg.Base = n.next
	}
	n.core = twophase.New(cfg)
	if err := n.core.Load(n.disk.keys, n.disk.values, decisions); err != nil {
		n.violated(out, "does not start: %v", err)
		return
	}
	for _, b := range n.branches {
		if b.status == prepared {
			n.core.Orphan(b.id, b.resource)
		}
	}
	n.ready(out)
}

// Deliver implements network.Node.
func (n *node) Deliver(from int, body []byte, _ bool, out *network.Output) {
	n.attempt(out, func() { n.deliver(uint64(from+1), body, out) })
}

func (n *node) deliver(from uint64, body []byte, out *network.Output) {
	r := &reader{body[1:]}
	switch {
	case body[0] == opRecovered:
		if run := r.number(); run != n.run || n.core != nil {
			return // the call of another run, or one that was answered
		}
		var stay []twophase.Decision
		for len(r.b) > 0 {
			d, err := twophase.DecodeDecision(r.bytes())
			fail(out, err)
			stay = append(stay, d)
		}
		n.load(stay, out)
	case n.core == nil:
	case body[0] == opVerdict:
		if run := r.number(); run != n.run {
			return
		}
		id, err := twophase.DecodeID(r.b[:idBytes])
		fail(out, err)
		n.answeredBy(id, twophase.Verdict(r.b[idBytes]))
		n.ready(out)
	default:
		m, err := twophase.DecodeMessage(body)
		if err != nil {
			n.violated(out, "refuses a message: %v", err)
			return
		}
		m.From, m.To = from, n.id
		n.core.Step(m)
		n.ready(out)
	}
}

// Deaf implements network.Deaf.
func (n *node) Deaf(from int, body []byte) network.Deafness {
	r := &reader{body[1:]}
	switch body[0] {
	case opRecovered:
		if run := r.number(); run < n.run || n.core != nil {
			return network.DeafForever
		}
		return network.Hears
	case opVerdict:
		if r.number() < n.run {
			return network.DeafForever
		}
		return network.Hears
	}
	if n.core == nil {
		return network.Hears
	}
	m, err := twophase.DecodeMessage(body)
	if err != nil || uint64(from+1) == m.ID.Node && n.news(m) {
		return network.Hears
	}
	switch m.Kind {
	case twophase.KindVote, twophase.KindAck, twophase.KindResult:
		// What is over comes back with a restart at most.
		if m.ID.Node == n.id && !n.core.Coordinates(m.ID) {
			return network.DeafUntilRestart
		}
	case twophase.KindOutcome:
		// A commit is acknowledged whenever it comes.
		if m.Outcome == twophase.OutcomeAborted && n.core.Standing(m.ID, m.Resource) == twophase.StandingOver {
			return network.DeafUntilRestart
		}
	case twophase.KindAnswer:
		if s := n.core.Standing(m.ID, m.Resource); s == twophase.StandingOver || s == twophase.StandingEnding {
			return network.DeafUntilRestart
		}
	}
	return network.Hears
}

// news reports whether what a coordinator says of others is not known yet.
func (n *node) news(m twophase.Message) bool { return m.Floor > n.core.Over(m.ID) }

// ready does what a runtime does after an input: what is to be written waits, and so do calls of resources.
func (n *node) ready(out *network.Output) {
	for out.Violation == nil && n.core != nil {
		if err := n.core.Err(); err != nil {
			n.violated(out, "has stopped: %v", err)
			return
		}
		r := n.core.Ready()
		if r.Empty() {
			if len(n.writes) == 0 || n.m.crashing(n.id) {
				return
			}
			// When it does not crash it does not matter when something becomes durable, but for the order of what comes.
			w := n.writes[0]
			n.writes = slices.Clone(n.writes[1:])
			n.durable(w, out)
			continue
		}
		for _, m := range r.Messages {
			n.say(m, out)
		}
		if r.Batch != nil {
			n.writes = append(n.writes, write{r.Batch, r.Token})
		}
		for _, c := range r.Calls {
			if (c.Kind == twophase.CallPrepare || c.Kind == twophase.CallOne) && n.disk.records.Over(c.ID, c.Resource) {
				n.violated(out, "begins transaction %s with %s, and its disk says that it is over", shorten(c.ID), c.Resource)
			}
		}
		n.calls = append(n.calls, r.Calls...)
		for _, res := range r.Results {
			out.Facts = append(out.Facts, answered{res.ID, res.Outcome})
		}
		for _, d := range r.Damages {
			if n.m.Forces == 0 {
				n.violated(out, "reports damage, where there is none: transaction %s, %d/%s: %s", shorten(d.ID), d.Node, d.Resource, d.Damage)
			}
		}
		for _, d := range r.Decide {
			n.propose(d, out)
		}
		for _, p := range r.Over {
			if n.m.Shared {
				out.Messages = append(out.Messages, network.Message{To: n.m.Nodes, Body: appendProgress([]byte{opForget}, p)})
			} else {
				n.register.forget(p, out)
			}
		}
	}
}

func (n *node) propose(d twophase.Decision, out *network.Output) {
	if !n.m.Shared {
		if d.ID.Node != n.id {
			n.violated(out, "proposes a decision of another node's transaction %s to its own log", shorten(d.ID))
			return
		}
		n.core.Decided(d.ID, n.register.decide(d, out))
		return
	}
	if !slices.Contains(n.asked, d.ID) {
		n.asked = append(n.asked, d.ID)
	}
	out.Messages = append(out.Messages, network.Message{To: n.m.Nodes, Body: append(binary.AppendUvarint([]byte{opPropose}, n.run), twophase.AppendDecision(nil, d)...)})
}

// say holds a message against what is durable, and sends it.
func (n *node) say(m twophase.Message, out *network.Output) {
	stage := n.disk.records.Stage(m.ID, m.Resource)
	outcome := m.Outcome
	switch m.Kind {
	case twophase.KindVote:
		if m.Vote == twophase.VoteYes && stage != "prepared" {
			n.violated(out, "votes yes for transaction %s, and its disk does not say so", shorten(m.ID))
		}
	case twophase.KindAck:
		if stage != "" {
			n.violated(out, "says that it is done with transaction %s, and its disk says that the branch is %s", shorten(m.ID), stage)
		}
	case twophase.KindAnswer:
		if m.Knowledge != twophase.Decided {
			outcome = twophase.OutcomeUnknown
		}
	}
	if outcome != twophase.OutcomeUnknown {
		out.Facts = append(out.Facts, said{m.ID, n.id, outcome, m.To, m.Resource})
	}
	out.Messages = append(out.Messages, network.Message{To: int(m.To - 1), Body: twophase.AppendMessage(nil, m)})
}

// at returns what a resource has of a transaction.
func (n *node) at(id twophase.ID, resource string) *branch {
	i, found := slices.BinarySearchFunc(n.branches, branch{id: id, resource: resource}, func(a, b branch) int {
		if c := a.id.Compare(b.id); c != 0 {
			return c
		}
		switch {
		case a.resource < b.resource:
			return -1
		case a.resource > b.resource:
			return 1
		}
		return 0
	})
	if !found {
		n.branches = slices.Insert(n.branches, i, branch{id: id, resource: resource})
	}
	return &n.branches[i]
}

// call has a resource do what it is asked, durably, and hands its answer to the core.
func (n *node) call(i, answer int, out *network.Output) {
	c := n.calls[i]
	n.did(out, "call %d %s %s %s %s", n.id, c.Kind, shorten(c.ID), c.Resource, answerName(answer))
	n.calls = slices.Delete(slices.Clone(n.calls), i, i+1)
	b := n.at(c.ID, c.Resource)
	if answer == answerFails {
		if c.Kind == twophase.CallOutcome {
			n.core.DoneOne(c.ID, c.Resource, twophase.OutcomeUnknown, "out of reach")
		} else {
			n.core.Done(c.ID, c.Resource, twophase.OutcomeUnknown, "out of reach")
		}
		n.ready(out)
		return
	}
	becomes := func(s status) {
		b.status = s
		out.Facts = append(out.Facts, did{c.ID, n.id, c.Resource, s})
	}
	switch c.Kind {
	case twophase.CallPrepare:
		vote := twophase.VoteYes
		if b.status == committed {
			n.violated(out, "prepares transaction %s with %s, which has committed it", shorten(c.ID), c.Resource)
			return
		}
		switch answer {
		case answerYes:
			becomes(prepared)
		case answerReadOnly:
			vote = twophase.VoteReadOnly
			b.staying = !c.MayLeave
			becomes(readOnly)
			if c.MayLeave {
				out.Facts = append(out.Facts, left{c.ID, n.id, c.Resource})
			}
		case answerNo:
			vote = twophase.VoteNo
		}
		n.core.Voted(c.ID, c.Resource, vote, "")
	case twophase.CallCommit:
		b.staying = false
		switch b.status {
		case prepared:
			becomes(committed)
		case committed, readOnly:
		case aborted:
			if n.m.Forces > 0 { // an operator did not know that it was over
				n.core.Done(c.ID, c.Resource, twophase.OutcomeAborted, "")
				n.ready(out)
				return
			}
			fallthrough
		default:
			n.violated(out, "commits transaction %s with %s, which has not prepared it, but: %s", shorten(c.ID), c.Resource, b.status)
			return
		}
		n.core.Done(c.ID, c.Resource, twophase.OutcomeUnknown, "")
	case twophase.CallAbort:
		b.staying = false
		switch b.status {
		case prepared:
			becomes(aborted)
		case committed:
			if n.m.Forces > 0 {
				n.core.Done(c.ID, c.Resource, twophase.OutcomeCommitted, "")
				n.ready(out)
				return
			}
			n.violated(out, "aborts transaction %s with %s, which has committed it", shorten(c.ID), c.Resource)
			return
		}
		n.core.Done(c.ID, c.Resource, twophase.OutcomeUnknown, "")
	case twophase.CallOne:
		if b.status == committed || b.status == aborted {
			n.violated(out, "commits transaction %s with %s in one phase again", shorten(c.ID), c.Resource)
			return
		}
		outcome := twophase.OutcomeCommitted
		if answer == answerNo {
			outcome = twophase.OutcomeAborted
			becomes(aborted)
		} else {
			becomes(committed)
		}
		n.core.DoneOne(c.ID, c.Resource, outcome, "")
	case twophase.CallOutcome:
		outcome := twophase.OutcomeAborted
		if b.status == committed {
			outcome = twophase.OutcomeCommitted
		} else if b.status != aborted {
			becomes(aborted) // it never will
		}
		n.core.DoneOne(c.ID, c.Resource, outcome, "")
	}
	n.tidy()
	n.ready(out)
}

// tidy removes what resources know nothing of.
func (n *node) tidy() {
	n.branches = slices.DeleteFunc(n.branches, func(b branch) bool { return b.status == untouched && !b.staying })
}

func answerName(answer int) string {
	return [...]string{"yes", "read-only", "no", "done", "fails"}[answer]
}
