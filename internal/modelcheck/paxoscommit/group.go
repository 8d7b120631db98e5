package paxoscommit

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
)

// group is a replicated state machine, which never crashes: its registers, and what txn/kv keeps beside them.
type group struct {
	m         *Model
	number    uint32
	clock     uint64
	registers *core.Registers
	prepared  map[core.ID]uint64 // those that hold locks, with the timestamp of the vote
	full      bool               // it takes in no session that it does not know
	asked     uint8              // for the votes of which transactions it was asked
}

// perGroup is by how much the clocks of groups differ at first: that of the last one is behind the others.
const perGroup = 10

func newGroup(m *Model, number uint32) *group {
	return &group{m: m, number: number, clock: perGroup * uint64(m.Groups-int(number)+1), registers: core.NewRegisters(), prepared: map[core.ID]uint64{}}
}

// Clone implements network.Node.
func (g *group) Clone() network.Node { return g.clone() }

func (g *group) clone() *group {
	c := *g
	c.registers, c.prepared = g.registers.Clone(), maps.Clone(g.prepared)
	return &c
}

// Fingerprint implements network.Node.
func (g *group) Fingerprint(b []byte) []byte {
	b = g.registers.Append(append(b, 'g', g.asked, bit(g.full)))
	b = binary.AppendUvarint(b, g.clock)
	for _, id := range g.holding() {
		b = binary.AppendUvarint(core.AppendID(b, id), g.prepared[id])
	}
	return b
}

// holding returns the transactions that hold locks, ascending.
func (g *group) holding() []core.ID { return slices.SortedFunc(maps.Keys(g.prepared), core.ID.Compare) }

// What may happen to a group.
const (
	expire = iota // sessions that were used last before Arg are forgotten
	fill          // there is no room for more sessions
	empty         // there is again
)

// Inputs implements network.Node.
func (g *group) Inputs() (list []network.Input) {
	if g.m.Expirations > 0 && g.registers.Sessions() > 0 {
		for _, before := range g.m.times() {
			list = append(list, network.Input{Kind: expire, Arg: int(before), Costs: []int{expirations}})
		}
	}
	switch {
	case g.full:
		list = append(list, network.Input{Kind: empty})
	case g.m.Full > 0:
		list = append(list, network.Input{Kind: fill, Costs: []int{full}})
	}
	return list
}

// Take implements network.Node.
func (g *group) Take(in network.Input, _ int, out *network.Output) {
	line := ""
	switch in.Kind {
	case expire:
		line = fmt.Sprintf("expire %d before=%d", g.number, in.Arg)
		g.expire(uint64(in.Arg), out)
	case fill, empty:
		line = fmt.Sprintf("%s %d", [...]string{fill: "fill", empty: "empty"}[in.Kind], g.number)
		g.full = in.Kind == fill
	}
	if out.Script {
		out.Did = append(out.Did, line)
	}
}

// overfull reports whether a command is about a session that the group does not know, and has no room for. It stands for the limit that Registers
// have, which is too high to be reached here.
func (g *group) overfull(id core.ID) bool {
	_, standing := g.registers.Look(id)
	return g.full && standing == core.Open && !g.m.knows(g.registers, id.Session)
}

func (g *group) expire(before uint64, out *network.Output) {
	g.watch(out, func() { g.registers.Expire(before) })
}

// used is when a session was used last, as the group has it: always the same, so that some sessions may be forgotten, and others not.
func used(s core.Session) uint64 { return s.Random }

// Deliver implements network.Node: a command is applied.
func (g *group) Deliver(from int, body []byte, _ bool, out *network.Output) {
	m := decode(body)
	answer := message{kind: vote, id: m.id}
	g.watch(out, func() {
		switch m.kind {
		case prepare:
			answer.asked, answer.first = prepare, !g.wasAsked(m.id)
			answer.record, answer.standing = g.prepare(&m)
		case closing:
			answer.asked = closing
			if g.overfull(m.id) {
				answer.standing = core.Overfull
				break
			}
			answer.record, answer.standing = g.registers.Close(m.id, m.groups, used(m.id.Session))
		case resolve:
			answer.kind = resolved
			g.resolve(&m, out)
		case finish:
			answer.kind = finished
			g.registers.Finish(m.id)
		}
	})
	if answer.kind == vote && answer.standing == core.Voted {
		answer.record.Groups = nil // whoever asks has them
		answer.record.Finished = false
	}
	answer.to(from, out)
}

// wasAsked reports whether the group was asked for a vote before, and notes that it is. That matters only where answers may be
// that a session is forgotten.
func (g *group) wasAsked(id core.ID) bool {
	bit := uint8(1) << g.m.index(id)
	was := g.asked&bit != 0
	if g.m.Expirations > 0 {
		g.asked |= bit
	}
	return was
}

// prepare votes.
func (g *group) prepare(m *message) (core.Record, core.Standing) {
	g.registers.Touch(m.id.Session, m.floor, used(m.id.Session))
	if g.overfull(m.id) {
		return core.Record{}, core.Overfull
	}
	if record, standing := g.registers.Look(m.id); standing != core.Open {
		return record, standing
	}
	record := core.Record{Vote: core.No, Outcome: core.Aborted, Groups: m.groups}
	if m.vote == core.Yes {
		g.clock++
		record = core.Record{Vote: core.Yes, Timestamp: g.clock, Groups: m.groups}
		if len(m.groups) == 1 {
			record.Outcome = core.Committed
		} else {
			g.prepared[m.id] = g.clock
		}
	}
	g.registers.Write(m.id, record, used(m.id.Session))
	return record, core.Voted
}

// resolve takes in an outcome.
func (g *group) resolve(m *message, out *network.Output) {
	if g.overfull(m.id) {
		return
	}
	voted, held := g.prepared[m.id]
	if held && m.outcome == core.Committed && m.timestamp < voted {
		out.Facts = append(out.Facts, contradicted{m.id, g.number, m.outcome})
	} else {
		_, isNew, wrong := g.registers.Resolve(m.id, m.outcome, m.timestamp, m.groups, used(m.id.Session))
		if wrong {
			out.Facts = append(out.Facts, contradicted{m.id, g.number, m.outcome})
		}
		if isNew && held {
			if m.outcome == core.Committed {
				g.clock = max(g.clock, m.timestamp)
			}
			delete(g.prepared, m.id)
		}
	}
	if m.floor > 0 { // it is from the client
		g.registers.Touch(m.id.Session, m.floor, used(m.id.Session))
	}
}

// watch reports what becomes of the registers.
func (g *group) watch(out *network.Output, fn func()) {
	ids := g.m.ids()
	type look struct {
		record   core.Record
		standing core.Standing
	}
	before := make([]look, len(ids))
	for i, id := range ids {
		before[i].record, before[i].standing = g.registers.Look(id)
	}
	fn()
	for i, id := range ids {
		record, standing := g.registers.Look(id)
		was := before[i]
		switch {
		case was.standing != core.Voted && standing == core.Voted:
			timestamp, held := g.prepared[id]
			if !held {
				timestamp = record.Timestamp
			}
			out.Facts = append(out.Facts, wrote{id, g.number, record.Vote, timestamp})
			for r := range g.m.Recoverers {
				if len(record.Groups) > 1 && (g.m.Seen == 0 || i < g.m.Seen) {
					(&message{kind: found, id: id, groups: record.Groups}).to(g.m.Groups+1+r, out)
				}
			}
		case was.standing == core.Voted && standing != core.Voted:
			out.Facts = append(out.Facts, forgot{id, g.number})
		case was.standing == core.Voted && was.record.Vote != record.Vote:
			out.Violation = fmt.Errorf("transaction %s: group %d votes %s, and has voted %s", shorten(id), g.number, record.Vote, was.record.Vote)
		}
		if standing == core.Voted && record.Outcome != core.Unknown && (was.standing != core.Voted || was.record.Outcome != record.Outcome || was.record.Timestamp != record.Timestamp) {
			out.Facts = append(out.Facts, learned{id, g.number, record.Outcome, record.Timestamp})
		}
		if standing == core.Voted && record.Finished && !was.record.Finished {
			out.Facts = append(out.Facts, told{id, g.number})
		}
		_, held := g.prepared[id]
		if in := standing == core.Voted && record.Vote == core.Yes && record.Outcome == core.Unknown; held != in && out.Violation == nil {
			out.Violation = fmt.Errorf("transaction %s: group %d holds its locks: %v; it has voted yes and knows no outcome: %v", shorten(id), g.number, held, in)
		}
	}
}

// knows reports whether registers have a session: they say so by what they make of a transaction that was never begun.
func (m *Model) knows(r *core.Registers, session core.Session) bool {
	c := r.Clone()
	c.Touch(session, 1<<32, 0)
	_, standing := c.Look(core.ID{Session: session, Counter: 1<<32 - 1})
	return standing == core.Over
}
