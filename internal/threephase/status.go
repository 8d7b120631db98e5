//synod:core

package threephase

import (
	"slices"

	"github.com/synod-go/synod/internal/twophase"
)

// Doubt is a branch that waits for an outcome.
type Doubt struct {
	ID       ID
	Resource string
	Since    int64 // nanoseconds since 1970
	State    State
	Heard    bool      // the coordinator has answered in this run, and said Answer
	Answer   Knowledge // what it said last
	Leading  bool      // this branch stands for election, or was elected
	Peers    []twophase.Branch
	Missing  []twophase.Branch // if it leads: whose answer it waits for
}

func branches(list []Participant, want func(i int) bool) (out []twophase.Branch) {
	for i, p := range list {
		if want(i) {
			p.Work = nil
			out = append(out, p.Branch)
		}
	}
	return out
}

// missing reports whether a leader waits for the answer of a participant.
func (l *lead) missing(i int) bool {
	if l.attempt == unknown {
		return !l.reports[i].heard
	}
	return l.asked[i] && !l.acked[i]
}

// InDoubt returns the branches that are in doubt, by their transactions' IDs.
func (c *Core) InDoubt() []Doubt {
	var list []Doubt
	for _, e := range c.entries {
		if !e.inDoubt() {
			continue
		}
		d := Doubt{ID: e.id, Resource: e.resource, Since: e.since, State: e.state, Heard: e.heard, Answer: e.said, Leading: e.lead != nil,
			Peers: branches(e.parts, func(i int) bool { return i+1 != e.rank })}
		if e.lead != nil {
			d.Missing = branches(e.parts, e.lead.missing)
		}
		list = append(list, d)
	}
	return list
}

// Stuck returns the branches whose resources have failed, and are asked again.
func (c *Core) Stuck() []twophase.Stuck {
	var list []twophase.Stuck
	for _, e := range c.entries {
		if e.failure != "" {
			list = append(list, twophase.Stuck{ID: e.id, Resource: e.resource, Outcome: e.state.final(), Failure: e.failure})
		}
	}
	return list
}

// Transactions returns the transactions of this node that are not over, ascending.
func (c *Core) Transactions() []twophase.Waiting {
	var list []twophase.Waiting
	for _, t := range c.transactions {
		w := twophase.Waiting{ID: t.id, Phase: t.phase.String()}
		w.Missing = branches(t.parts, func(i int) bool {
			switch {
			case t.lead != nil:
				return t.lead.missing(i)
			case t.phase == phasePreparing || t.phase == phaseAlone:
				return t.votes[i] == 0
			case t.phase == phaseClosing:
				return !t.done[i]
			}
			return false
		})
		list = append(list, w)
	}
	return list
}

// Unfinished returns the branches of this node that are done and not known to be so everywhere, by their transactions' IDs, with
// those that are waited for: until then others may have to be told.
func (c *Core) Unfinished() []twophase.Waiting {
	var list []twophase.Waiting
	for _, e := range c.entries {
		if e.done {
			list = append(list, twophase.Waiting{ID: e.id, Phase: e.state.String(),
				Missing: branches(e.parts, func(i int) bool { return i+1 != e.rank && (e.over == nil || !e.over[i]) })})
		}
	}
	return list
}

// Busy reports whether time has to pass for something to go on.
func (c *Core) Busy() bool {
	return c.err == nil && (len(c.transactions) > 0 || len(c.entries) > 0 || c.batch.Len() > 0)
}

// Terminate has a branch that is in doubt stand for election at once, as it does by itself when it has heard nobody
// for long enough.
func (c *Core) Terminate(id ID, resource string) error {
	if c.err != nil {
		return c.err
	}
	e := c.entry(key{id, resource})
	if e == nil || !e.inDoubt() {
		return ErrNotInDoubt
	}
	c.stand(e)
	c.settle()
	return nil
}

// Expire has the coordinator of a transaction give up waiting, as it does by itself: it aborts, if nobody was asked to
// pre-commit, or stands for election.
func (c *Core) Expire(id ID) {
	if t := c.transaction(id); c.err == nil && t != nil {
		c.expire(t)
		c.settle()
	}
}

// Suspect has a leader take those for crashed that have not answered, as it does by itself in Skeen's protocol: the branch of a
// resource, or, if none is named, the coordinator.
func (c *Core) Suspect(id ID, resource string) {
	if c.err != nil {
		return
	}
	if t := c.transaction(id); resource == "" && t != nil && t.lead != nil {
		if o := c.lapse(t.seat(), t.lead); o != unknown {
			c.decided(t, o)
		}
	} else if e := c.entry(key{id, resource}); e != nil && e.lead != nil {
		if o := c.lapse(e.seat(), e.lead); o != unknown {
			c.conclude(e, o)
		}
	}
	c.settle()
}

// Inquire has a branch that is in doubt ask the coordinator, as it does by itself now and then.
func (c *Core) Inquire(id ID, resource string) {
	if e := c.entry(key{id, resource}); c.err == nil && e != nil && e.inDoubt() {
		c.send(Message{Kind: KindInquire, To: id.Node, ID: id, Resource: resource})
		c.settle()
	}
}

// View is what a checker looks at.
type View struct {
	Preparing bool   // a coordinator waits for votes
	InDoubt   bool   // a branch waits for an outcome
	Closing   bool   // it knows the outcome, or has done it, and waits for the others
	Leading   bool   // it leads
	Electing  bool   // and is not elected yet
	Impatient bool   // and takes those that are silent for crashed
	Ballot    Ballot // of the attempt that it leads, or has led last
	Highest   uint64 // the number of the last election that it knows of
}

func (v *View) leading(l *lead) {
	if l != nil {
		v.Leading, v.Electing, v.Impatient, v.Ballot = true, l.attempt == unknown, l.impatient, l.ballot
	}
}

// Coordinating returns what the coordinator of a transaction does; false: it is over, or unknown.
func (c *Core) Coordinating(id ID) (v View, ok bool) {
	t := c.transaction(id)
	if t == nil {
		return v, false
	}
	v.Preparing, v.Closing, v.Highest = t.phase <= phaseAlone, t.phase == phaseClosing, t.highest
	v.leading(t.lead)
	return v, true
}

// Participating returns what a branch does; false: it is over, or unknown.
func (c *Core) Participating(id ID, resource string) (v View, ok bool) {
	e := c.entry(key{id, resource})
	if e == nil {
		return v, false
	}
	v.InDoubt, v.Closing, v.Ballot, v.Highest = e.inDoubt(), e.done, e.elected, max(e.highest, e.elected.Number)
	v.leading(e.lead)
	return v, true
}

// Close has a branch that is done tell the others, as it does by itself after a time.
func (c *Core) Close(id ID, resource string) {
	if e := c.entry(key{id, resource}); c.err == nil && e != nil && e.done {
		c.close(e)
		c.settle()
	}
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (l *lead) clone() *lead {
	d := clone(l)
	if d != nil {
		d.reports, d.acked, d.asked = slices.Clone(l.reports), slices.Clone(l.acked), slices.Clone(l.asked)
	}
	return d
}
