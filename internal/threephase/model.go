//synod:core

package threephase

import (
	"encoding/binary"
	"slices"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/storage"
)

// What a model checker needs of a core.

// Clone returns a copy that shares nothing that changes.
func (c *Core) Clone() *Core {
	d := *c
	d.batch = new(storage.Batch)
	d.batch.Append(c.batch)
	d.ready = Ready{Messages: slices.Clone(c.ready.Messages), Calls: slices.Clone(c.ready.Calls), Results: slices.Clone(c.ready.Results), Damages: slices.Clone(c.ready.Damages)}
	d.local = slices.Clone(c.local)
	d.heldMessages, d.heldCalls = slices.Clone(c.heldMessages), slices.Clone(c.heldCalls)
	d.damages = slices.Clone(c.damages)
	d.transactions = slices.Clone(c.transactions)
	for i, t := range c.transactions {
		t = clone(t)
		t.votes, t.done, t.lead = slices.Clone(t.votes), slices.Clone(t.done), t.lead.clone()
		d.transactions[i] = t
	}
	d.entries = slices.Clone(c.entries)
	for i, e := range c.entries {
		e = clone(e)
		e.lead, e.over, e.tellers = e.lead.clone(), slices.Clone(e.over), slices.Clone(e.tellers)
		d.entries[i] = e
	}
	d.horizons = slices.Clone(c.horizons)
	for i, h := range c.horizons {
		h = clone(h)
		h.finished = slices.Clone(h.finished)
		d.horizons[i] = h
	}
	return &d
}

// printer appends plain data.
type printer struct{ b []byte }

func (p *printer) numbers(list ...uint64) {
	for _, n := range list {
		p.b = binary.AppendUvarint(p.b, n)
	}
}

func (p *printer) flags(list ...bool) {
	for _, f := range list {
		p.b = twophase.AppendFlags(p.b, f)
	}
}

func (p *printer) key(k key) { p.b = wire.AppendBytes(twophase.AppendID(p.b, k.id), k.resource) }

func (p *printer) ballots(list ...Ballot) {
	for _, b := range list {
		p.b = appendBallot(p.b, b)
	}
}

func (p *printer) messages(list []Message) {
	p.numbers(uint64(len(list)))
	for _, m := range list {
		p.numbers(m.To)
		p.b = wire.AppendBytes(p.b, AppendMessage(nil, m))
	}
}

func (p *printer) lead(l *lead, timeless bool) {
	p.flags(l != nil)
	if l == nil {
		return
	}
	p.ballots(l.ballot)
	p.numbers(uint64(l.attempt))
	p.flags(l.impatient)
	for i, r := range l.reports {
		p.flags(l.acked[i], l.asked[i])
		if l.attempt == unknown { // afterwards nobody looks at them
			p.flags(r.heard, r.recovered)
			p.numbers(uint64(r.state))
			p.ballots(r.attempt)
		}
	}
	if !timeless {
		p.numbers(uint64(l.timer), uint64(max(0, l.patience)))
	}
}

// Fingerprint appends an encoding of all that the core will do from here on depends on, but for what it was
// configured with. Equal cores have equal ones. timeless says that no time will pass: then nothing that only Tick looks at
// is part of it.
func (c *Core) Fingerprint(dst []byte, timeless bool) []byte {
	p := &printer{dst}
	p.flags(c.err != nil, c.forced)
	p.numbers(c.upcoming, uint64(c.batch.Len()))
	for _, op := range c.batch.Ops() {
		p.b = append(p.b, byte(op.Kind))
		p.b = wire.AppendBytes(wire.AppendBytes(p.b, op.Key), op.Value)
	}
	ahead := func(token uint64) { // how many batches have to become durable first
		if token > c.durable {
			p.numbers(1 + c.next - token)
		} else {
			p.numbers(0)
		}
	}
	p.messages(c.ready.Messages)
	p.messages(c.local)
	p.numbers(uint64(len(c.ready.Calls)), uint64(len(c.ready.Results)), uint64(len(c.damages)), uint64(len(c.heldMessages)), uint64(len(c.heldCalls)))
	for _, h := range c.heldMessages {
		ahead(h.token)
		p.messages([]Message{h.what})
	}
	for _, h := range c.heldCalls {
		ahead(h.token)
		p.key(key{h.what.ID, h.what.Resource})
		p.numbers(uint64(h.what.Kind))
	}
	p.numbers(uint64(len(c.transactions)))
	for _, t := range c.transactions {
		p.key(key{id: t.id})
		p.numbers(uint64(t.phase), uint64(len(t.parts)), uint64(t.outcome), t.highest)
		p.flags(t.mayLeave, t.answered)
		if t.phase == phaseAlone {
			p.numbers(uint64(t.tries))
		}
		for _, v := range t.votes {
			p.numbers(uint64(v))
		}
		p.flags(t.done...)
		p.lead(t.lead, timeless)
		if !timeless {
			p.numbers(uint64(max(0, t.timer)), uint64(max(0, t.deadline)))
		}
	}
	p.numbers(uint64(len(c.entries)))
	for _, e := range c.entries {
		p.key(e.key)
		p.numbers(uint64(e.rank), uint64(e.state), uint64(e.vote), uint64(e.damage), e.highest, uint64(len(e.tellers)), uint64(len(e.parts)))
		p.ballots(e.elected, e.attempt)
		ahead(e.token)
		p.flags(e.token == 0 && !e.recovered, e.done, e.preparing, e.calling, e.released, e.mayLeave, e.early, e.recovered && c.cfg.Protocol == Skeen, e.failure != "", e.closing, e.over != nil)
		for _, t := range e.tellers {
			p.numbers(t.node, uint64(t.rank))
		}
		p.flags(e.over...)
		p.lead(e.lead, timeless)
		if !timeless {
			p.numbers(uint64(max(0, e.timer)), uint64(e.age), uint64(e.silent))
		}
	}
	p.numbers(uint64(len(c.horizons)))
	for _, h := range c.horizons {
		p.numbers(h.origin.node, h.origin.incarnation, h.floor, uint64(len(h.finished)))
		for _, f := range h.finished {
			p.key(f.key)
			p.numbers(uint64(f.outcome))
			p.flags(f.readOnly)
			ahead(f.token)
		}
	}
	return p.b
}
