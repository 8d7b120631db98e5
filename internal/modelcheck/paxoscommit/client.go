package paxoscommit

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
	"github.com/synod-go/synod/internal/probe"
)

// drive is a coordinator, and what it has asked last, by group.
type drive struct {
	c    *core.Coordinator
	sent []core.Step
}

func newDrive(c *core.Coordinator) drive { return drive{c, make([]core.Step, len(c.Groups()))} }

func (d drive) clone() drive {
	if d.c == nil {
		return d
	}
	return drive{d.c.Clone(), slices.Clone(d.sent)}
}

func (d *drive) fingerprint(b []byte) []byte {
	if d.c == nil {
		return append(b, 0)
	}
	b = d.c.Append(append(b, 1))
	for _, s := range d.sent {
		b = append(b, byte(s))
	}
	return b
}

// send sends each group what it is to be asked now. A message that was sent may come as often as one likes: nothing is repeated.
func (d *drive) send(floor uint64, out *network.Output) {
	outcome, timestamp := d.c.Outcome()
	for i, g := range d.c.Groups() {
		step := d.c.Step(g)
		if step == d.sent[i] {
			continue
		}
		d.sent[i] = step
		m := message{id: d.c.ID(), groups: d.c.Groups()}
		switch step {
		case core.Close:
			m.kind = closing
		case core.Resolve:
			m.kind, m.outcome, m.timestamp, m.floor = resolve, outcome, timestamp, floor
		case core.Finish:
			m.kind, m.groups = finish, nil
		default:
			continue // prepare is sent at first
		}
		m.to(int(g)-1, out)
	}
}

// hear takes in an answer.
func (d *drive) hear(group uint32, m *message) {
	switch m.kind {
	case vote:
		d.c.Voted(group, m.record, m.standing)
	case resolved:
		d.c.Resolved(group)
	case finished:
		d.c.Finished(group)
	}
}

// client begins transactions, as txn/kv does. It may crash at any time: that is to say that it hears nothing any more.
type client struct {
	m        *Model
	attempts []*attempt // in the order in which they began
	sessions []numbers
}

type attempt struct {
	drive         // gone when it is over
	session  int  // place of its session
	answered bool // whoever waits knows
	gaveUp   bool // and has been told that the outcome is not known
}

// numbers are those of a session's transactions.
type numbers struct {
	next, floor uint64
	over        uint8 // a bit each
}

// What may happen to a client.
const (
	begin      = iota
	beginShort // one group, the last, is not asked, for certain: it is given up at once
	giveUp     // Arg: which one
)

func newClient(m *Model) *client { return &client{m: m} }

// Clone implements network.Node.
func (c *client) Clone() network.Node { return c.clone() }

func (c *client) clone() *client {
	d := &client{m: c.m, sessions: slices.Clone(c.sessions)}
	for _, a := range c.attempts {
		b := *a
		b.drive = a.drive.clone()
		d.attempts = append(d.attempts, &b)
	}
	return d
}

// Fingerprint implements network.Node.
func (c *client) Fingerprint(b []byte) []byte {
	b = append(b, 'c', byte(len(c.attempts)))
	for _, a := range c.attempts {
		b = a.fingerprint(append(b, bit(a.answered), bit(a.gaveUp)))
	}
	for _, s := range c.sessions {
		b = append(binary.AppendUvarint(binary.AppendUvarint(b, s.next), s.floor), s.over)
	}
	return b
}

// Inputs implements network.Node.
func (c *client) Inputs() (list []network.Input) {
	list = append(list, network.Input{Kind: begin, Costs: []int{transactions}, Numbered: true})
	if c.m.Short {
		list = append(list, network.Input{Kind: beginShort, Costs: []int{transactions}, Numbered: true})
	}
	for i, a := range c.attempts {
		if a.c != nil && !a.answered && !c.m.Patient {
			list = append(list, network.Input{Kind: giveUp, Arg: i})
		}
	}
	return list
}

// Take implements network.Node.
func (c *client) Take(in network.Input, _ int, out *network.Output) {
	switch in.Kind {
	case begin, beginShort:
		n := len(c.attempts)
		if n == len(c.m.Transactions) {
			out.Idle = true
			return
		}
		if out.Script {
			t := c.m.Transactions[n]
			line := fmt.Sprintf("begin by=(%s) session=%d", network.List(t.Groups), t.Session)
			if in.Kind == beginShort {
				line += " short"
			}
			out.Did = append(out.Did, line)
		}
		c.begin(in.Kind == beginShort, out)
	case giveUp:
		a := c.attempts[in.Arg]
		if out.Script {
			out.Did = append(out.Did, "give-up "+shorten(a.c.ID()))
		}
		c.giveUp(a, out)
	}
}

func (c *client) begin(short bool, out *network.Output) {
	t := c.m.Transactions[len(c.attempts)]
	for len(c.sessions) < t.Session {
		c.sessions = append(c.sessions, numbers{next: 1, floor: 1})
	}
	s := &c.sessions[t.Session-1]
	id := core.ID{Session: c.m.session(t.Session), Counter: s.next}
	s.next++
	a := &attempt{drive: newDrive(core.NewCoordinator(id, t.Groups)), session: t.Session - 1}
	c.attempts = append(c.attempts, a)
	for i, g := range t.Groups {
		a.sent[i] = core.Prepare
		if short && i == len(t.Groups)-1 {
			continue
		}
		m := message{kind: prepare, id: id, groups: t.Groups, floor: s.floor, vote: core.Yes}
		m.to(int(g)-1, out)
		if slices.Contains(c.m.Refusing, g) {
			m.vote = core.No
			m.to(int(g)-1, out)
		}
	}
	if short {
		a.c.Voted(t.Groups[len(t.Groups)-1], core.Record{Vote: core.No}, core.Voted)
	}
	c.goOn(a, out)
}

// giveUp: the caller is told that the outcome is not known, and the votes that are missing are closed.
func (c *client) giveUp(a *attempt, out *network.Output) {
	a.answered, a.gaveUp = true, true
	a.c.GiveUp()
	c.goOn(a, out)
}

// goOn goes on with an attempt.
func (c *client) goOn(a *attempt, out *network.Output) {
	s := &c.sessions[a.session]
	outcome, timestamp := a.c.Outcome()
	if outcome != core.Unknown && !a.answered {
		a.answered = true
		out.Facts = append(out.Facts, answered{a.c.ID(), outcome, timestamp})
	}
	a.send(s.floor, out)
	if !a.c.Done() {
		return
	}
	s.over |= 1 << a.c.ID().Counter
	a.drive = drive{}
	for s.over&(1<<s.floor) != 0 {
		s.floor++
	}
	if probe.Bug("kv: the floor passes what is open") {
		s.floor = s.next
	}
}

// of returns the attempt that an answer is for, if it is not over.
func (c *client) of(id core.ID) *attempt {
	for _, a := range c.attempts {
		if a.c != nil && a.c.ID() == id {
			return a
		}
	}
	return nil
}

// Deliver implements network.Node.
func (c *client) Deliver(from int, body []byte, _ bool, out *network.Output) {
	m := decode(body)
	a := c.of(m.id)
	if a == nil {
		return
	}
	if m.kind == vote && m.asked == prepare {
		switch {
		case a.gaveUp:
			return // nobody waits for it
		case m.standing == core.Voted, m.standing == core.Expired && m.first:
		default:
			return // what an earlier request has done is not known any more: it will be given up
		}
	}
	a.hear(uint32(from+1), &m)
	c.goOn(a, out)
}

// Deaf implements network.Deaf: an answer that says nothing new never will.
func (c *client) Deaf(int, []byte) network.Deafness { return network.DeafForever }

// recoverer ends what it finds unfinished, each transaction once. It may crash, as the client.
type recoverer struct {
	m    *Model
	runs []recovery // by transaction
}

type recovery struct {
	drive // gone when it is over
	began bool
}

func newRecoverer(m *Model) *recoverer { return &recoverer{m: m, runs: make([]recovery, len(m.ids()))} }

// Clone implements network.Node.
func (r *recoverer) Clone() network.Node {
	c := &recoverer{m: r.m, runs: slices.Clone(r.runs)}
	for i := range c.runs {
		c.runs[i].drive = r.runs[i].drive.clone()
	}
	return c
}

// Fingerprint implements network.Node.
func (r *recoverer) Fingerprint(b []byte) []byte {
	b = append(b, 'r')
	for i := range r.runs {
		b = r.runs[i].fingerprint(append(b, bit(r.runs[i].began)))
	}
	return b
}

// Inputs implements network.Node.
func (r *recoverer) Inputs() []network.Input { return nil }

// Take implements network.Node.
func (r *recoverer) Take(network.Input, int, *network.Output) {}

// Deliver implements network.Node.
func (r *recoverer) Deliver(from int, body []byte, _ bool, out *network.Output) {
	m := decode(body)
	at := r.m.index(m.id)
	for len(r.runs) <= at {
		r.runs = append(r.runs, recovery{})
	}
	d := &r.runs[at]
	switch {
	case m.kind == found && !d.began:
		d.began, d.drive = true, newDrive(core.NewRecoverer(m.id, m.groups))
	case m.kind == found || d.c == nil:
		return
	default:
		d.hear(uint32(from+1), &m)
	}
	d.send(0, out)
	if d.c.Done() {
		d.drive = drive{}
	}
}

// Deaf implements network.Deaf.
func (r *recoverer) Deaf(int, []byte) network.Deafness { return network.DeafForever }
