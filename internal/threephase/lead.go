//synod:core

package threephase

import (
	"github.com/synod-go/synod/internal/probe"
)

// lead is an attempt that this node leads: as the coordinator, or as a participant that was elected.
//
//	electing ──▶ committing ──▶ decided
//	    │  └───▶ aborting ────────▲
//	    └─────────────────────────┘ (somebody knows the outcome)
type lead struct {
	ballot    Ballot
	attempt   Outcome // unknown: it is electing
	reports   []report
	acked     []bool
	asked     []bool // who is asked to take part in the attempt
	timer     int    // ticks until it asks again
	patience  int    // ticks until it takes those who are silent for crashed
	impatient bool
}

// report is what a participant has said of itself.
type report struct {
	heard     bool
	state     State
	attempt   Ballot
	recovered bool
}

// seat is who leads.
type seat struct {
	id    ID
	parts []Participant
	rank  int
	token uint64 // of the record of the election
}

func (c *Core) newLead(s seat, number uint64) *lead {
	n := len(s.parts)
	return &lead{ballot: Ballot{number, uint32(s.rank)}, reports: make([]report, n), acked: make([]bool, n), asked: make([]bool, n),
		timer: c.cfg.ResendTicks, patience: 2 * c.cfg.ResendTicks}
}

// ask sends what the leader asks for to those who have not answered.
func (c *Core) ask(s seat, l *lead) {
	l.timer = c.cfg.ResendTicks
	for i, p := range s.parts {
		m := Message{To: p.Node, ID: s.id, Resource: p.Resource, Ballot: l.ballot, Participants: s.parts}
		switch l.attempt {
		case unknown:
			if l.reports[i].heard {
				continue
			}
			m.Kind = KindElect
		case committed:
			m.Kind = KindPreCommit
		default:
			m.Kind = KindPreAbort
		}
		if l.attempt != unknown && (!l.asked[i] || l.acked[i]) {
			continue
		}
		c.sendAfter(s.token, m)
	}
}

// verdict is what a leader does next.
type verdict struct {
	decide  Outcome // it is decided
	attempt Outcome // try
}

// judge is the termination rule, where nobody is heard that knows the outcome.
func (c *Core) judge(s seat, l *lead) (v verdict) {
	if c.cfg.Protocol == Skeen {
		return c.judgeSkeen(s, l)
	}
	if !quorum(s.parts, func(i int) bool { return l.reports[i].heard }) {
		return v
	}
	// Is the last attempt one to commit? If so, it may have succeeded, and if not, no earlier one has. All that take part
	// in one attempt are in the same state, since each has a ballot of its own.
	var last Ballot
	committable := false
	for _, r := range l.reports {
		switch {
		case !r.heard || r.attempt == (Ballot{}):
		case last.less(r.attempt):
			last, committable = r.attempt, r.state == StatePreCommitted
		}
		if r.heard && r.state == StatePreCommitted && probe.Bug("3pc: any pre-commit is taken for the last attempt") {
			last, committable = Ballot{Number: 1 << 62}, true
		}
	}
	probe.Sometimes("3pc: an attempt to abort comes after one to commit", last.Number > 1 && !committable)
	if committable {
		return verdict{attempt: committed}
	}
	return verdict{attempt: aborted}
}

// judgeSkeen is the rule where sites only crash: those who have not crashed since they voted decide, or all together if none is
// left that has not.
func (c *Core) judgeSkeen(s seat, l *lead) (v verdict) {
	all, some, pre := true, false, false
	for _, r := range l.reports {
		all = all && r.heard
	}
	if !all && !l.impatient {
		return v
	}
	for _, r := range l.reports {
		if r.heard && (all || !r.recovered) {
			some = true
			pre = pre || r.state == StatePreCommitted
		}
	}
	switch {
	case !some:
		return v
	case pre:
		return verdict{attempt: committed}
	}
	return verdict{decide: aborted}
}

// proceed goes on with an attempt after an answer, or when it has lost its patience. It returns the outcome, if that is decided.
func (c *Core) proceed(s seat, l *lead) Outcome {
	if l.attempt == unknown {
		v := c.judge(s, l)
		if v.decide != unknown || v.attempt == unknown {
			return v.decide
		}
		l.attempt = v.attempt
		l.patience, l.impatient = 2*c.cfg.ResendTicks, false
		for i := range l.asked {
			l.asked[i] = c.cfg.Protocol == Enhanced || l.reports[i].heard
		}
		c.ask(s, l)
		return unknown
	}
	if c.cfg.Protocol == Enhanced {
		if !quorum(s.parts, func(i int) bool { return l.acked[i] }) && !probe.Bug("3pc: one acknowledgement is enough") {
			return unknown
		}
		return l.attempt
	}
	for i := range l.asked {
		if l.asked[i] && !l.acked[i] && !l.impatient {
			return unknown
		}
	}
	return l.attempt
}

// hear takes in an answer to a leader. It returns the outcome, if that is decided or known.
func (c *Core) hear(s seat, l *lead, i int, m Message) Outcome {
	switch m.Kind {
	case KindState:
		if o := m.State.final(); o != unknown {
			return o
		}
		if m.Ballot != l.ballot && !probe.Bug("3pc: what was said in another election counts") || l.attempt != unknown {
			return unknown
		}
		if m.Elected != l.ballot && !probe.Bug("3pc: what was said in another election counts") {
			return unknown
		}
		l.reports[i] = report{true, m.State, m.Attempt, m.Recovered}
	case KindAck:
		if m.Ballot != l.ballot && !probe.Bug("3pc: acknowledgements of another attempt count") || l.attempt == unknown {
			return unknown
		}
		l.acked[i] = true
	}
	return c.proceed(s, l)
}

// higher returns the number of an election that has left this one behind; 0: none has.
func higher(l *lead, m Message) uint64 {
	if m.Kind == KindState && m.State.final() == unknown && l.ballot.less(m.Elected) {
		return m.Elected.Number
	}
	return 0
}

// tickLead lets time pass for a leader. It returns the outcome, if that is decided.
func (c *Core) tickLead(s seat, l *lead) Outcome {
	if l.patience--; l.patience == 0 {
		if o := c.lapse(s, l); o != unknown {
			return o
		}
	}
	if l.timer--; l.timer <= 0 {
		c.ask(s, l)
	}
	return unknown
}

// lapse takes those who are silent for crashed. Only Skeen's protocol does.
func (c *Core) lapse(s seat, l *lead) Outcome {
	if c.cfg.Protocol != Skeen {
		return unknown
	}
	l.impatient = true
	return c.proceed(s, l)
}
