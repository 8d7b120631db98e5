package multipaxos

//synod:core

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/replica"
	"github.com/synod-go/synod/storage"
)

// What a model checker needs of a core.

// Clone returns a copy that shares nothing that changes, and reads from another store, which holds
// the same.
func (c *Core) Clone(store storage.Store) *Core {
	d := *c
	d.log = c.log.clone(store)
	d.grants = slices.Clone(c.grants)
	d.applying = slices.Clone(c.applying)
	d.offers = slices.Clone(c.offers)
	d.guests = slices.Clone(c.guests)
	d.promises = slices.Clone(c.promises)
	for i := range d.promises {
		d.promises[i].unknown = slices.Clone(d.promises[i].unknown)
	}
	d.recovered = slices.Clone(c.recovered)
	d.votes = slices.Clone(c.votes)
	d.waiting = slices.Clone(c.waiting)
	d.peers = slices.Clone(c.peers)
	for i := range d.peers {
		d.peers[i].ranges = slices.Clone(d.peers[i].ranges)
		d.peers[i].inflight = slices.Clone(d.peers[i].inflight)
	}
	d.asks = slices.Clone(c.asks)
	d.answers = slices.Clone(c.answers)
	d.rounds = slices.Clone(c.rounds)
	d.queue = slices.Clone(c.queue)
	d.batch = storage.Batch{}
	d.batch.Append(&c.batch)
	d.writes = slices.Clone(c.writes)
	d.head = nil
	if c.restored != nil {
		at := *c.restored
		d.restored = &at
	}
	return &d
}

func (l *valueLog) clone(store storage.Store) *valueLog {
	d := *l
	d.store = store
	copies := make(map[*record]*record, len(l.spans))
	same := func(r *record) *record {
		n := copies[r]
		if n == nil {
			n = new(record)
			*n = *r
			copies[r] = n
		}
		return n
	}
	d.spans = slices.Clone(l.spans)
	for i := range d.spans {
		d.spans[i].rec = same(d.spans[i].rec)
	}
	d.garbage = slices.Clone(l.garbage)
	for i := range d.garbage {
		d.garbage[i] = same(d.garbage[i])
	}
	d.cached = slices.Clone(l.cached)
	for i := range d.cached {
		d.cached[i] = same(d.cached[i])
	}
	d.fences = slices.Clone(l.fences)
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
		if f {
			p.b = append(p.b, 1)
		} else {
			p.b = append(p.b, 0)
		}
	}
}

func (p *printer) ballots(list ...Ballot) {
	for _, b := range list {
		p.b = b.append(p.b)
	}
}

func (p *printer) ranges(list []slots) {
	p.numbers(uint64(len(list)))
	for _, s := range list {
		p.numbers(s.first, s.last)
		p.ballots(s.ballot)
	}
}

func (p *printer) value(v *value) {
	p.ballots(v.origin)
	p.b = append(p.b, byte(v.kind))
	p.b = replica.AppendBytes(p.b, v.data)
}

// Fingerprint appends an encoding of all that the core will do from here on depends on, but for its store,
// and for what was set when it was opened. Equal cores have equal ones. timeless says that no time will pass:
// then nothing that only Tick looks at is part of it, and no number that only tells attempts to be elected apart. fixed says
// that no time will pass, and that no configuration and no snapshot will come, either: then what a leader was promised
// is no part of it any more when it has proposed all that was reported.
func (c *Core) Fingerprint(dst []byte, timeless, fixed bool) []byte {
	p := &printer{dst}
	d := *c // what is kept only to be found faster is brought up to date
	through, _ := d.accepted(d.of)
	present := d.presentThrough()
	p.ballots(c.promised, c.durable, c.lost, c.of, c.leader, c.hint, c.authority, c.fenceBelow, c.fenceAbove)
	p.flags(c.trusted, c.owed, c.damaged, c.wanted, c.unwritten, c.flushed, c.shown, c.announced, c.fenced, c.covered, c.beaten, c.invited, c.leaving, c.hinted, c.mayLook)
	p.numbers(uint64(c.quiet), c.number, through, present, c.held, c.decided, c.opened, c.handed, c.floor, c.confSlot, uint64(c.applyingBytes),
		c.source, c.sourceEnd, uint64(c.asked), c.snap.Index, uint64(c.role), c.round, uint64(c.silence), c.yes,
		c.from, c.base, c.next, c.fenceSlot, c.window, uint64(c.bytes), c.beat, c.transferee, c.handedOver, c.lostLast, c.ownCounted, c.begun, c.heard)
	if c.role != follower { // until it stands for election again nothing depends on its last ballot
		p.ballots(c.ballot)
	}
	if !timeless {
		p.numbers(uint64(c.elapsed), uint64(c.timeout), c.attempt, uint64(c.ticks), uint64(c.transfer), uint64(c.unaided))
	}
	p.b = replica.AppendBytes(p.b, c.config)
	p.numbers(uint64(len(c.grants)))
	for _, g := range c.grants {
		p.numbers(g.to, g.from)
		p.ballots(g.ballot)
	}
	p.numbers(uint64(len(c.applying)))
	for _, a := range c.applying {
		p.numbers(a.index, uint64(a.bytes))
	}
	for _, g := range c.guests {
		p.numbers(g)
	}
	restored, restoring := c.restored != nil, uint64(0)
	if c.restoring != 0 {
		restoring = c.lastToken + 2 - c.restoring
	}
	p.flags(restored)
	promises := c.promises
	if fixed && c.role == leading && c.fenced && c.covered {
		promises = nil // phase 1 is done
	}
	p.numbers(restoring, uint64(len(promises)))
	for i := range promises {
		m := &promises[i]
		p.numbers(m.node, m.next, m.decided, m.conf)
		p.flags(m.complete)
		p.ballots(m.lost, m.fence)
		p.ranges(m.unknown)
	}
	p.numbers(uint64(len(c.recovered)))
	for i := range c.recovered {
		r := &c.recovered[i]
		p.numbers(r.slot)
		p.ballots(r.ballot)
		p.value(&r.value)
	}
	p.numbers(uint64(len(c.votes)))
	for _, v := range c.votes {
		p.numbers(v.mask, uint64(v.size))
	}
	p.numbers(uint64(len(c.waiting)))
	for i := range c.waiting {
		p.value(&c.waiting[i])
	}
	p.numbers(uint64(len(c.peers)))
	for i := range c.peers {
		o := &c.peers[i]
		p.numbers(o.node, o.match, o.counted, o.number, uint64(o.silent), o.next, o.told, o.highest)
		p.flags(o.snapshot)
		p.ranges(o.ranges)
		p.numbers(uint64(len(o.inflight)))
		for _, s := range o.inflight {
			p.numbers(s.first, s.last, uint64(s.age), uint64(s.passed))
		}
	}
	read := func(id replica.ReadID) { p.numbers(id.Boot, id.Attempt) }
	asks := func(list []ask) {
		p.numbers(uint64(len(list)))
		for _, a := range list {
			p.numbers(a.from)
			read(a.id)
		}
	}
	asks(c.asks)
	p.numbers(uint64(len(c.rounds)))
	for _, r := range c.rounds {
		p.numbers(r.number, r.index)
		asks(r.asks)
	}
	read(c.look.id)
	p.numbers(c.look.mask, c.look.last, uint64(len(c.answers)))
	p.flags(c.look.done)
	for _, a := range c.answers {
		read(a.ID)
		p.numbers(a.Index)
	}
	p.numbers(uint64(len(c.queue)))
	for i := range c.queue {
		p.numbers(c.queue[i].to)
		p.b = c.queue[i].m.append(p.b)
		p.b = replica.AppendBytes(p.b, c.queue[i].tail)
	}
	p.numbers(uint64(len(c.writes)))
	for _, w := range c.writes {
		p.numbers(c.lastToken-w.token, w.start)
		p.ballots(w.promised)
	}
	l := c.log
	p.numbers(l.start.Index, l.start.Term, l.start.Commands, l.runs, l.digest, uint64(len(l.spans)))
	p.ballots(fenceAt(l.start.Position))
	for _, s := range l.spans {
		pending := uint64(0)
		if s.rec.token > c.persisted {
			pending = c.lastToken + 2 - s.rec.token
		}
		p.numbers(s.first, s.last, s.rec.first, s.rec.last, pending)
		p.ballots(s.rec.ballot, s.rec.upTo)
		p.flags(s.rec.bad, s.rec.run != nil)
		if r := l.load(s.rec); r != nil {
			p.numbers(uint64(replica.Checksum(r.bytes)))
		}
	}
	for _, f := range l.fences {
		p.numbers(f.slot)
		p.ballots(f.ballot)
	}
	p.numbers(uint64(len(l.garbage)))
	return p.b
}

// View is what invariants look at.
type View struct {
	Role     string
	Leader   Ballot   // who is followed
	Complete []uint64 // whose promises are complete, of those that were counted in Ballot
	Fenced   bool     // it leads, and all that was reported is proposed
	Ballot   Ballot   // the last one of this node
	Promised Ballot   // maybe not durable yet
	Durable  Ballot
	Held     uint64 // all slots up to here are decided and here
	Decided  uint64 // all slots up to here are known to be decided
	Voters   []uint64
	Config   []byte     // the configuration in effect after Held, encoded
	ConfSlot uint64     // the slot that it stands in
	Accepted []Accepted // the slots after Start that have a value, ascending
	Start    uint64
	Members  []Heard // the others, as a leader sees them
}

// Heard is what a leader knows of another member.
type Heard struct {
	Node   uint64
	Number uint64 // the newest heartbeat that it has answered
	Match  uint64 // it has accepted all slots up to here
}

// Accepted is a value that an acceptor has accepted.
type Accepted struct {
	Slot    uint64
	Ballot  Ballot
	Chosen  bool // it is known to be chosen; Ballot says nothing
	Durable bool
	Hash    uint64 // of the value and its origin
	Shown   string // the same for people
	Value   string // kind, data and origin: equal for equal values only
}

// name names a value, different from all others.
func (v *value) name() string {
	what := [...]string{"gap", "fence", "", "config"}[v.kind]
	switch {
	case v.kind == valueConfig:
		what = nameConfig(v.data)
	case v.kind == valueCommand && len(v.data) > 40:
		what = fmt.Sprintf("%x", v.hash())
	case v.kind == valueCommand:
		what = fmt.Sprintf("%q", v.data)
	}
	return what + "/" + v.origin.String()
}

// nameConfig names a configuration by its members.
func nameConfig(data []byte) string {
	conf, err := replica.DecodeConfiguration(data)
	if err != nil {
		return fmt.Sprintf("config(%x)", data)
	}
	var s strings.Builder
	for _, p := range conf.Members {
		fmt.Fprintf(&s, " %d", p.Node)
		for _, f := range []struct {
			set  bool
			mark string
		}{{p.Voter, "v"}, {p.Outgoing, "o"}, {p.Learner, "l"}} {
			if f.set {
				s.WriteString(f.mark)
			}
		}
	}
	return "config(" + strings.TrimPrefix(s.String(), " ") + ")"
}

// View describes the core.
func (c *Core) View() View {
	v := View{Role: c.role.String(), Leader: c.leader, Ballot: c.ballot, Promised: c.promised, Durable: c.durable, Held: c.held, Decided: c.decided,
		Voters: slices.Clone(c.voters.members), Config: c.config, ConfSlot: c.confSlot, Start: c.log.start.Index}
	for i := range c.peers {
		v.Members = append(v.Members, Heard{c.peers[i].node, c.peers[i].number, c.peers[i].match})
	}
	v.Fenced = c.role == leading && c.fenced && c.covered
	for i := range c.promises {
		if c.promises[i].complete {
			v.Complete = append(v.Complete, c.promises[i].node)
		}
	}
	for _, s := range c.log.spans {
		r := c.log.load(s.rec)
		if r == nil {
			continue
		}
		for slot := s.first; slot <= s.last; slot++ {
			val := &r.values[slot-r.first]
			v.Accepted = append(v.Accepted, Accepted{Slot: slot, Ballot: r.ballot, Chosen: r.ballot.isChosen(), Durable: s.rec.token <= c.persisted,
				Hash: val.hash(), Shown: describeValue(r.ballot, val), Value: val.name()})
		}
	}
	return v
}

// ReadRecords decodes what a store holds of a group, as a core would find it: the promised ballot and
// the accepted values.
func ReadRecords(keys replica.Keys, store storage.Store) (Ballot, []Accepted, error) {
	log, hard, _, err := openLog(keys, store, 1<<62)
	if err != nil {
		return Ballot{}, nil, err
	}
	c := &Core{log: log}
	return hard.promised, c.View().Accepted, nil
}

// Said is what a message says, as far as an invariant looks at it.
type Said struct {
	Kind             string // as Describe shows it
	Ballot           Ballot
	Number           uint64
	Decided, Through uint64
	Ranges           [][2]uint64
	Values           []Accepted // of its runs
}

// Read decodes a message.
func Read(group, sender uint64, b []byte) (Said, error) {
	m, err := decodeMessage(group, sender, b)
	if err != nil {
		return Said{}, err
	}
	s := Said{Kind: m.kind.String(), Ballot: m.ballot, Number: m.number, Decided: m.decided, Through: m.through}
	for _, r := range m.ranges {
		s.Ranges = append(s.Ranges, [2]uint64{r.first, r.last})
	}
	for _, r := range m.runs {
		for i := range r.values {
			v := &r.values[i]
			s.Values = append(s.Values, Accepted{Slot: r.first + uint64(i), Ballot: r.ballot, Chosen: r.ballot.isChosen(), Hash: v.hash(), Shown: describeValue(r.ballot, v), Value: v.name()})
		}
	}
	return s, nil
}
