//synod:core

package twophase

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/synod-go/synod/internal/wire"
	"github.com/synod-go/synod/storage"
)

// What a model checker needs of a core.

// Clone returns a copy that shares nothing that changes.
func (c *Core) Clone() *Core {
	d := *c
	d.batch = new(storage.Batch)
	d.batch.Append(c.batch)
	d.ready = c.ready.clone()
	d.local = slices.Clone(c.local)
	d.heldMessages = slices.Clone(c.heldMessages)
	d.heldCalls = slices.Clone(c.heldCalls)
	d.heldLastAgent = slices.Clone(c.heldLastAgent)
	d.transactions = slices.Clone(c.transactions)
	d.byID = make(map[ID]*transaction, len(c.byID))
	for i, t := range c.transactions {
		n := *t
		n.parts = slices.Clone(t.parts)
		d.transactions[i] = &n
		d.byID[n.id] = &n
	}
	d.over = slices.Clone(c.over)
	d.entries = slices.Clone(c.entries)
	d.byKey = make(map[key]*entry, len(c.byKey))
	for i, e := range c.entries {
		n := *e
		d.entries[i] = &n
		d.byKey[n.key] = &n
	}
	d.finished = maps.Clone(c.finished)
	d.horizons = make(map[origin]*horizon, len(c.horizons))
	for o, h := range c.horizons { //synod:ordered each on its own
		n := *h
		n.finished = slices.Clone(h.finished)
		d.horizons[o] = &n
	}
	d.damages = slices.Clone(c.damages)
	return &d
}

func (r *Ready) clone() Ready {
	d := *r
	d.Messages = slices.Clone(r.Messages)
	if r.Batch != nil {
		d.Batch = new(storage.Batch)
		d.Batch.Append(r.Batch)
	}
	d.Calls = slices.Clone(r.Calls)
	d.Decide = slices.Clone(r.Decide)
	d.Results = slices.Clone(r.Results)
	d.Damages = slices.Clone(r.Damages)
	d.Over = slices.Clone(r.Over)
	for i := range d.Over {
		d.Over[i].Open = slices.Clone(d.Over[i].Open)
	}
	return d
}

// printer appends plain data.
type printer struct {
	b []byte
	c *Core
}

func (p *printer) numbers(list ...uint64) {
	for _, n := range list {
		p.b = binary.AppendUvarint(p.b, n)
	}
}

func (p *printer) flags(list ...bool) {
	for _, f := range list {
		p.b = append(p.b, flags(f))
	}
}

func (p *printer) text(s string)  { p.b = wire.AppendBytes(p.b, s) }
func (p *printer) bytes(s []byte) { p.b = wire.AppendBytes(p.b, s) }
func (p *printer) id(id ID)       { p.b = appendID(p.b, id) }

func (p *printer) key(k key) {
	p.id(k.id)
	p.text(k.resource)
}

// token appends how far a token is from being durable: that is all that matters of it.
func (p *printer) token(token uint64) {
	if token <= p.c.durable {
		token = p.c.durable
	}
	p.numbers(token - p.c.durable)
}

// timer appends how many ticks are left until something happens: with one it happens at the next, and with fewer, too.
func (p *printer) timer(ticks int) { p.b = binary.AppendVarint(p.b, int64(max(ticks, 1))) }

func (p *printer) message(m Message) {
	p.numbers(m.From, m.To)
	p.bytes(AppendMessage(nil, m))
}

func (p *printer) call(c Call) {
	p.numbers(uint64(c.Kind))
	p.key(key{c.ID, c.Resource})
	p.bytes(c.Work)
	p.flags(c.MayLeave)
}

func (p *printer) report(r Report) {
	p.key(key{r.ID, r.Resource})
	p.numbers(r.Node, uint64(r.Damage))
}

func (p *printer) batch(b *storage.Batch) {
	p.flags(b != nil)
	if b == nil {
		return
	}
	p.numbers(uint64(b.Len()))
	for _, op := range b.Ops() {
		p.numbers(uint64(op.Kind))
		p.bytes(op.Key)
		p.bytes(op.Value)
		p.bytes(op.End)
	}
}

// Fingerprint appends an encoding of all that the core will do from here on depends on, but for its Config. Equal cores
// have equal ones, and so have those that differ in what does not matter: how many batches were written, by how much
// a timer has passed, how long somebody has waited beyond the longest time that anything waits for, how often a message is held that waits for
// the same batch (but where there are as many as are held at all), and what only reports say.
func (c *Core) Fingerprint(dst []byte) []byte {
	p := &printer{dst, c}
	p.flags(c.err != nil, c.forced)
	if c.err != nil {
		p.text(c.err.Error())
	}
	p.numbers(uint64(c.now)) // it is in records
	p.token(c.next)
	p.batch(c.batch)
	p.ready(&c.ready)
	p.numbers(uint64(len(c.local)))
	for _, m := range c.local {
		p.message(m)
	}
	var held []string // those that are the same are sent once, for all that it matters
	for _, h := range c.heldMessages {
		q := &printer{c: c}
		q.token(h.token)
		q.message(h.what)
		if !slices.Contains(held, string(q.b)) {
			held = append(held, string(q.b))
		}
	}
	p.numbers(uint64(len(held)))
	for _, h := range held {
		p.text(h)
	}
	p.numbers(uint64(len(c.heldCalls)))
	for _, h := range c.heldCalls {
		p.token(h.token)
		p.call(h.what)
	}
	p.numbers(uint64(len(c.heldLastAgent)))
	for _, h := range c.heldLastAgent {
		p.token(h.token)
		p.id(h.what)
	}
	p.numbers(c.upcoming, uint64(len(c.transactions)))
	for _, t := range c.transactions {
		p.transaction(t)
	}
	p.numbers(uint64(len(c.over)))
	p.numbers(c.over...)
	p.numbers(uint64(len(c.entries)))
	for _, e := range c.entries {
		p.entry(e)
	}
	// Which keys a horizon has, and how many of them decided, follows from these.
	p.numbers(uint64(len(c.finished)))
	for _, k := range slices.SortedFunc(maps.Keys(c.finished), key.compare) {
		f := c.finished[k]
		p.key(k)
		p.numbers(uint64(f.outcome))
		p.flags(f.one, f.readOnly, f.told)
		p.token(f.token)
	}
	for _, o := range slices.SortedFunc(maps.Keys(c.horizons), origin.compare) {
		h := c.horizons[o]
		if h.over|h.floor|h.readOnly|h.doubtful == 0 {
			continue // as if it were not there
		}
		p.numbers(1, o.node, o.incarnation, h.over, h.floor, h.readOnly, h.doubtful)
		p.token(h.token)
	}
	p.numbers(0, uint64(len(c.damages)))
	for _, r := range c.damages {
		p.report(r)
	}
	return p.b
}

func (p *printer) ready(r *Ready) {
	p.numbers(uint64(len(r.Messages)))
	for _, m := range r.Messages {
		p.message(m)
	}
	p.batch(r.Batch)
	p.token(r.Token)
	p.flags(r.Forced)
	p.numbers(uint64(len(r.Calls)))
	for _, c := range r.Calls {
		p.call(c)
	}
	p.numbers(uint64(len(r.Decide)))
	for _, d := range r.Decide {
		p.bytes(AppendDecision(nil, d))
	}
	p.numbers(uint64(len(r.Results)))
	for _, res := range r.Results {
		p.id(res.ID)
		p.numbers(uint64(res.Outcome), res.Node)
		p.text(res.Reason)
	}
	p.numbers(uint64(len(r.Damages)))
	for _, d := range r.Damages {
		p.report(d)
	}
	p.numbers(uint64(len(r.Over)))
	for _, o := range r.Over {
		p.numbers(o.Node, o.Incarnation, o.Upcoming, uint64(len(o.Open)))
		p.numbers(o.Open...)
	}
}

func (p *printer) transaction(t *transaction) {
	p.id(t.id)
	p.numbers(uint64(t.phase), uint64(len(t.parts)), uint64(t.last+1))
	for i := range t.parts {
		x := &t.parts[i]
		p.numbers(x.Node, uint64(x.vote))
		p.text(x.Resource)
		p.flags(x.LastAgent, x.acked)
		p.bytes(x.Work)
	}
	if t.phase == phaseOpen {
		p.b = binary.AppendVarint(p.b, int64(t.deadline)) // 0: never
	} else {
		p.timer(t.deadline)
	}
	p.timer(t.timer)
	p.flags(t.mayLeave, t.recorded, t.only, t.unclear, t.answered, t.proposed, t.decided)
	p.token(t.token)
}

func (p *printer) entry(e *entry) {
	p.key(e.key)
	p.numbers(uint64(e.state), uint64(e.stage), uint64(e.outcome), uint64(e.heuristic), uint64(e.damage))
	p.token(e.token)
	p.b = appendBranches(p.b, e.peers)
	p.flags(e.fixed, e.mayLeave, e.one, e.doomed, e.told, e.calling, e.unclear, e.proposed, e.failure != "")
	p.numbers(uint64(e.since))
	cfg := &p.c.cfg
	p.numbers(uint64(min(e.age, max(cfg.PeerTicks, cfg.TakeOverTicks))))
	if e.calling && !e.inDoubt() {
		p.timer(1) // it is set when the call returns, if it matters
	} else {
		p.timer(e.timer)
	}
}

// Coordinates reports whether a transaction that was begun here is not over, for all that the core knows.
func (c *Core) Coordinates(id ID) bool { return c.byID[id] != nil }

// Over returns below which counter all transactions of a coordinator's incarnation are over, as it has said.
func (c *Core) Over(id ID) uint64 {
	if h := c.horizons[originOf(id)]; h != nil {
		return h.over
	}
	return 0
}

// Standing says how far a branch is here.
type Standing uint8

// How far a branch is.
const (
	StandingUnknown Standing = iota // nothing is known of it
	StandingUnderWay
	StandingInDoubt
	StandingEnding
	StandingOver // it never will be anything else, in this run
)

// Standing returns how far a branch of this node is.
func (c *Core) Standing(id ID, resource string) Standing {
	k := key{id, resource}
	e := c.byKey[k]
	_, over := c.finished[k]
	h := c.horizons[originOf(id)]
	switch {
	case e == nil && (over || h != nil && id.Counter < h.floor):
		return StandingOver
	case e == nil:
		return StandingUnknown
	case e.inDoubt():
		return StandingInDoubt
	case e.state == stateEnding:
		return StandingEnding
	}
	return StandingUnderWay
}

// Records is what a store holds, as a core would find it.
type Records struct {
	Branches []BranchRecord // those that are not over
	Finished []FinishedRecord
	Floors   []Floor
}

// BranchRecord says that a branch is not over.
type BranchRecord struct {
	ID       ID
	Resource string
	Stage    string // prepared, started, committed
}

// FinishedRecord says how a branch ended.
type FinishedRecord struct {
	ID       ID
	Resource string
	Outcome  Outcome
}

// Floor says that no transaction of a coordinator's incarnation is prepared below a counter.
type Floor struct {
	Node, Incarnation uint64
	Counter           uint64
}

// Over reports whether the records say that a branch never will be prepared again.
func (r *Records) Over(id ID, resource string) bool {
	return slices.ContainsFunc(r.Finished, func(f FinishedRecord) bool { return f.ID == id && f.Resource == resource }) ||
		slices.ContainsFunc(r.Floors, func(f Floor) bool { return originOf(id) == (origin{f.Node, f.Incarnation}) && id.Counter < f.Counter })
}

// Stage returns what the record of a branch says; "": there is none.
func (r *Records) Stage(id ID, resource string) string {
	for _, b := range r.Branches {
		if b.ID == id && b.Resource == resource {
			return b.Stage
		}
	}
	return ""
}

// ReadRecords decodes what a store holds of a core.
func ReadRecords(keys, values [][]byte) (*Records, error) {
	c := New(Config{MaxFinished: 1 << 30})
	var delegated []Decision
	for i, k := range keys {
		payload, err := storage.OpenRecord(k, values[i])
		if err == nil {
			err = c.load(k, payload, &delegated)
		}
		if err != nil {
			return nil, err
		}
	}
	r := new(Records)
	for _, e := range c.entries {
		r.Branches = append(r.Branches, BranchRecord{e.id, e.resource, e.stage.String()})
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.finished), key.compare) {
		r.Finished = append(r.Finished, FinishedRecord{k.id, k.resource, c.finished[k].outcome})
	}
	for _, o := range slices.SortedFunc(maps.Keys(c.horizons), origin.compare) {
		if h := c.horizons[o]; h.floor > 0 {
			r.Floors = append(r.Floors, Floor{o.node, o.incarnation, h.floor})
		}
	}
	return r, nil
}
