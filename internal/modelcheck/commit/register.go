package commit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/txn"
)

// register is a decision log, by the state machine that ships: all that a decision log does is done by it, wherever its
// records are. This one is durable as soon as it has changed. It is not changed, but replaced.
type register []byte // its snapshot

// direct is a log with one replica, at which a command is applied at once.
type direct struct{ machine *txn.DecisionMachine }

// Propose implements synod.Log.
func (d direct) Propose(_ context.Context, command []byte) ([]byte, error) {
	return d.machine.Apply(0, command), nil
}

// Barrier implements synod.Log.
func (direct) Barrier(context.Context) error { return nil }

// change lets fn change the register.
func (r *register) change(fn func(txn.DecisionLog)) error {
	machine := new(txn.DecisionMachine)
	if *r != nil {
		if err := machine.Restore(bytes.NewReader(*r)); err != nil {
			return err
		}
	}
	fn(txn.NewReplicatedLog(direct{machine}))
	image, err := machine.Snapshot()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	_, err = image.WriteTo(&b)
	*r = b.Bytes()
	return err
}

// decisions returns what stands in the register.
func (r register) decisions() (list []twophase.Decision) {
	if len(r) == 0 {
		return nil
	}
	count, n := binary.Uvarint(r)
	b := r[n:]
	for range count {
		size, n := binary.Uvarint(b)
		d, err := twophase.DecodeDecision(b[n : n+int(size)])
		if err != nil {
			panic(err)
		}
		list, b = append(list, d), b[n+int(size):]
	}
	return list
}

func outside(d twophase.Decision) txn.Decision {
	o := txn.Decision{ID: txn.ID(d.ID), Outcome: txn.Outcome(d.Outcome)}
	for _, b := range d.Branches {
		o.Participants = append(o.Participants, txn.Participant(b))
	}
	return o
}

func inside(d txn.Decision) twophase.Decision {
	c := twophase.Decision{ID: twophase.ID(d.ID), Outcome: twophase.Outcome(d.Outcome)}
	for _, p := range d.Participants {
		c.Branches = append(c.Branches, twophase.Branch(p))
	}
	return c
}

// decide proposes a decision.
func (r *register) decide(d twophase.Decision, out *network.Output) (v twophase.Verdict) {
	fail(out, r.change(func(log txn.DecisionLog) {
		winner, err := log.Decide(context.Background(), outside(d))
		switch {
		case errors.Is(err, txn.ErrForgotten):
			v = twophase.VerdictForgotten
		case err != nil:
			fail(out, err)
		case winner.Outcome == txn.Committed:
			v = twophase.VerdictCommitted
		default:
			v = twophase.VerdictAborted
		}
		if err == nil {
			out.Facts = append(out.Facts, decided{d.ID, twophase.Outcome(winner.Outcome)})
		}
	}))
	return v
}

// recover ends what earlier runs of a coordinator have begun.
func (r *register) recover(p twophase.Progress, out *network.Output) (stay []twophase.Decision, ok bool) {
	fail(out, r.change(func(log txn.DecisionLog) {
		list, err := log.Recover(context.Background(), txn.Progress(p))
		if ok = !errors.Is(err, txn.ErrRolledBack); !ok {
			return
		}
		fail(out, err)
		for _, d := range list {
			stay = append(stay, inside(d))
		}
	}))
	return stay, ok
}

// forget removes the decisions of what is over.
func (r *register) forget(p twophase.Progress, out *network.Output) {
	before := r.decisions()
	fail(out, r.change(func(log txn.DecisionLog) { fail(out, log.Forget(context.Background(), txn.Progress(p))) }))
	after := r.decisions()
	for _, d := range before {
		gone := true
		for _, o := range after {
			gone = gone && o.ID != d.ID
		}
		if gone {
			out.Facts = append(out.Facts, forgot{d.ID})
		}
	}
}

func fail(out *network.Output, err error) {
	if err != nil && out.Violation == nil {
		out.Violation = err
	}
}

// The first bytes of messages to a decision log that is shared, and of its answers. Those among nodes begin with a
// twophase.Kind.
const (
	opPropose   = 'd' // run, decision
	opRecover   = 'r' // run, progress
	opForget    = 'f' // progress
	opVerdict   = 'D' // run, ID, verdict
	opRecovered = 'R' // run, decisions
)

// log is a decision log that outlives all nodes: a write-once register for each transaction, that changes at once. What is
// proposed to it, and what it answers, is lost, repeated, and late.
type log struct {
	at       int
	register register
}

var _ network.Node = (*log)(nil)

// Clone implements network.Node.
func (l *log) Clone() network.Node {
	c := *l
	return &c
}

// Fingerprint implements network.Node.
func (l *log) Fingerprint(b []byte) []byte { return append(b, l.register...) }

// Inputs implements network.Node.
func (l *log) Inputs() []network.Input { return nil }

// Take implements network.Node.
func (l *log) Take(network.Input, int, *network.Output) {}

// Deliver implements network.Node.
func (l *log) Deliver(from int, body []byte, _ bool, out *network.Output) {
	r := &reader{b: body[1:]}
	answer := func(b []byte) { out.Messages = append(out.Messages, network.Message{To: from, Body: b}) }
	switch body[0] {
	case opPropose:
		run := r.number()
		d, err := twophase.DecodeDecision(r.b)
		fail(out, err)
		if out.Violation == nil {
			v := l.register.decide(d, out)
			answer(append(twophase.AppendID(binary.AppendUvarint([]byte{opVerdict}, run), d.ID), byte(v)))
		}
	case opRecover:
		run, p := r.number(), r.progress()
		stay, ok := l.register.recover(p, out)
		if !ok {
			return // it was applied before, and answered
		}
		b := binary.AppendUvarint([]byte{opRecovered}, run)
		for _, d := range stay {
			b = appendBytes(b, twophase.AppendDecision(nil, d))
		}
		answer(b)
	case opForget:
		l.register.forget(r.progress(), out)
	}
}

// reader takes what this package has written off the front of a byte string.
type reader struct{ b []byte }

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.number()
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) progress() twophase.Progress {
	p := twophase.Progress{Node: r.number(), Incarnation: r.number(), Upcoming: r.number()}
	for len(r.b) > 0 {
		p.Open = append(p.Open, r.number())
	}
	return p
}

func appendProgress(b []byte, p twophase.Progress) []byte {
	for _, n := range append([]uint64{p.Node, p.Incarnation, p.Upcoming}, p.Open...) {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// describe shows a message to people. Its first word is its type.
func describe(from, to uint64, body []byte) string {
	r := &reader{b: body[1:]}
	switch body[0] {
	case opPropose:
		r.number()
		d, err := twophase.DecodeDecision(r.b)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("propose %s %s", shorten(d.ID), d.Outcome)
	case opRecover:
		return fmt.Sprintf("recover run=%d", r.number())
	case opForget:
		p := r.progress()
		return fmt.Sprintf("forget below %d but for %v", p.Upcoming, p.Open)
	case opVerdict:
		r.number()
		id, err := twophase.DecodeID(r.b[:idBytes])
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("verdict %s %s", shorten(id), verdictName(twophase.Verdict(r.b[idBytes])))
	case opRecovered:
		s := fmt.Sprintf("recovered run=%d", r.number())
		for len(r.b) > 0 {
			d, err := twophase.DecodeDecision(r.bytes())
			if err != nil {
				return err.Error()
			}
			s += fmt.Sprintf(" %s %s", shorten(d.ID), d.Outcome)
		}
		return s
	}
	m, err := twophase.DecodeMessage(body)
	if err != nil {
		return err.Error()
	}
	m.From, m.To = from, to
	return m.String()
}

// idBytes is the size of an ID in a message.
const idBytes = 24

func shorten(id twophase.ID) string { return fmt.Sprintf("%d.%d", id.Node, id.Counter) }

func verdictName(v twophase.Verdict) string {
	return [...]string{"unknown", "committed", "aborted", "forgotten"}[v]
}
