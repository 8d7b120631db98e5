//synod:core

package threephase

import (
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
)

// phase is how far a transaction is, for its coordinator:
//
//	open ──▶ preparing ──▶ attempting ──▶ closing ──▶ over
//	  │          └──▶ over (a no, out of time, all read-only)
//	  └──▶ alone ──────────────────────────────────▶ over (a single participant decides)
//
// A coordinator that hears no quorum, or of an election, goes on as one of those that can be elected.
type phase uint8

const (
	phaseOpen phase = iota
	phasePreparing
	phaseAlone
	phaseAttempting
	phaseClosing
)

func (p phase) String() string {
	return name(int(p), "open", "preparing", "alone", "attempting", "closing")
}

// transaction is one that was begun on this node.
type transaction struct {
	id       ID
	phase    phase
	parts    []Participant
	votes    []Vote
	done     []bool
	outcome  Outcome
	lead     *lead
	highest  uint64 // the number of the last election that it has heard of
	timer    int    // ticks until what is missing is asked for again
	deadline int    // ticks until it is given up, or stands for election
	tries    int    // elections that it has held
	mayLeave bool
	answered bool // the caller was told
}

func (t *transaction) seat() seat { return seat{id: t.id, parts: withoutWork(t.parts)} }

func (c *Core) findTransaction(id ID) (int, bool) {
	return slices.BinarySearchFunc(c.transactions, id, func(t *transaction, id ID) int { return t.id.Compare(id) })
}

func (c *Core) transaction(id ID) *transaction {
	if i, found := c.findTransaction(id); found {
		return c.transactions[i]
	}
	return nil
}

// end removes a transaction: it is over for its coordinator.
func (c *Core) end(t *transaction) {
	if i, found := c.findTransaction(t.id); found {
		c.transactions = slices.Delete(c.transactions, i, i+1)
	}
}

// Open takes in that an ID was given: those of a core ascend.
func (c *Core) Open(id ID) error {
	if c.err != nil {
		return c.err
	}
	if len(c.transactions) >= c.cfg.MaxTransactions {
		return ErrOverloaded
	}
	if id.Node != c.cfg.Node || id.Incarnation != c.cfg.Incarnation || id.Counter < c.upcoming {
		return fmt.Errorf("%w: ID %v is not a new one of this node", ErrInvalid, id)
	}
	c.upcoming = id.Counter + 1
	c.transactions = append(c.transactions, &transaction{id: id, deadline: c.cfg.OpenTicks})
	return nil
}

// Commit begins to commit an open transaction. Its end is a Result. All participants have a voice in quorums, those that have nothing
// to commit, too.
func (c *Core) Commit(id ID, participants []Participant) error {
	if c.err != nil {
		return c.err
	}
	t := c.transaction(id)
	if t == nil || t.phase != phaseOpen {
		return fmt.Errorf("%w: transaction %v is not open", ErrInvalid, id)
	}
	if err := c.validate(participants); err != nil {
		return err
	}
	t.parts, t.mayLeave = slices.Clone(participants), true
	for _, p := range participants {
		// A participant that is given work with the request takes locks then: whoever has nothing to commit must keep
		// his until all have theirs, or the transaction is not two-phase in what it locks.
		if len(p.Work) > 0 && len(participants) > 1 {
			t.mayLeave = false
		}
	}
	t.votes, t.done = make([]Vote, len(participants)), make([]bool, len(participants))
	t.phase, t.deadline = phasePreparing, c.cfg.PrepareTicks
	if len(participants) == 1 {
		t.phase = phaseAlone
	}
	c.askVotes(t)
	c.settle()
	return nil
}

func (c *Core) validate(list []Participant) error {
	if len(list) == 0 || len(list) > c.cfg.MaxParticipants {
		return fmt.Errorf("%w: %d participants: 1 to %d", ErrInvalid, len(list), c.cfg.MaxParticipants)
	}
	for i, p := range list {
		switch {
		case p.Node == 0 || p.Resource == "" || len(p.Resource) > twophase.MaxResourceBytes:
			return fmt.Errorf("%w: participant %d: a node and a resource's name of 1 to %d bytes are needed", ErrInvalid, i, twophase.MaxResourceBytes)
		case find(list[:i], p.Node, p.Resource) > 0:
			return fmt.Errorf("%w: resource %q of node %d takes part twice", ErrInvalid, p.Resource, p.Node)
		case p.LastAgent:
			return fmt.Errorf("%w: resource %q of node %d is a last agent: in three phases all participants prepare", ErrInvalid, p.Resource, p.Node)
		}
	}
	return nil
}

// Abandon aborts a transaction that is open, and tells these participants; one that is being decided goes its way.
func (c *Core) Abandon(id ID, participants []Participant) {
	t := c.transaction(id)
	if c.err != nil || t == nil || t.phase != phaseOpen {
		return
	}
	t.parts, t.votes = slices.Clone(participants), make([]Vote, len(participants))
	c.abort(t, "abandoned by its client", 0)
	c.settle()
}

// askVotes sends the request to prepare to those who have not voted.
func (c *Core) askVotes(t *transaction) {
	t.timer = c.cfg.ResendTicks
	all := withoutWork(t.parts)
	for i, p := range t.parts {
		if t.votes[i] == 0 {
			c.send(Message{Kind: KindPrepare, To: p.Node, ID: t.id, Resource: p.Resource, Participants: all, Work: p.Work, MayLeave: t.mayLeave})
		}
	}
}

func (c *Core) answer(t *transaction, outcome Outcome, reason string, node uint64) {
	if !t.answered {
		t.answered = true
		c.ready.Results = append(c.ready.Results, Result{ID: t.id, Outcome: outcome, Reason: reason, Node: node})
	}
}

// abort ends a transaction of which nobody was asked to pre-commit, and nobody will be: it cannot be committed by
// anyone, so that nobody needs to remember it.
func (c *Core) abort(t *transaction, reason string, node uint64) {
	c.answer(t, aborted, reason, node)
	for i, p := range t.parts {
		if t.votes[i] != twophase.VoteNo {
			c.send(Message{Kind: KindOutcome, To: p.Node, ID: t.id, Resource: p.Resource, Outcome: aborted, Early: true})
		}
	}
	c.end(t)
}

// count makes the attempt to commit if all have voted.
func (c *Core) count(t *transaction) {
	writers := false
	for _, v := range t.votes {
		if v == 0 {
			return
		}
		writers = writers || v == twophase.VoteYes
	}
	if !writers {
		// Nobody has anything to commit: it does not matter who hears what.
		c.answer(t, committed, "", 0)
		for _, p := range t.parts {
			c.send(Message{Kind: KindOutcome, To: p.Node, ID: t.id, Resource: p.Resource, Outcome: committed, Early: true})
		}
		c.end(t)
		return
	}
	s := t.seat()
	t.phase, t.deadline = phaseAttempting, c.cfg.PrepareTicks
	t.lead = c.newLead(s, base.Number)
	t.lead.attempt = committed
	yes := func(i int) bool { return t.votes[i] == twophase.VoteYes }
	enough := quorum(t.parts, yes)
	for i := range t.parts {
		t.lead.asked[i] = yes(i) || !enough
	}
	if probe.Bug("3pc: a commit is told without a pre-commit") {
		c.decided(t, committed)
		return
	}
	c.ask(s, t.lead)
}

// decided goes on with an outcome.
func (c *Core) decided(t *transaction, outcome Outcome) {
	reason := ""
	if outcome == aborted {
		reason = "aborted by participants that did not hear the coordinator in time"
		probe.Sometimes("3pc: a coordinator is left behind by an election", true)
	}
	c.answer(t, outcome, reason, 0)
	if len(t.parts) == 1 && t.done[0] {
		c.send(Message{Kind: KindOver, To: t.parts[0].Node, ID: t.id, Resource: t.parts[0].Resource})
		c.end(t)
		return
	}
	t.phase, t.outcome, t.lead = phaseClosing, outcome, nil
	c.tell(t)
}

// tell sends the outcome to those that have not done it yet.
func (c *Core) tell(t *transaction) {
	t.timer = c.cfg.ResendTicks
	for i, p := range t.parts {
		if !t.done[i] {
			c.send(Message{Kind: KindOutcome, To: p.Node, ID: t.id, Resource: p.Resource, Outcome: t.outcome})
		}
	}
}

func (c *Core) stepCoordinator(m Message) {
	t := c.transaction(m.ID)
	if m.Kind == KindInquire || m.Kind == KindVote && m.Vote == twophase.VoteYes && t == nil {
		c.onInquire(t, m)
		return
	}
	if t == nil || t.phase == phaseOpen {
		return
	}
	i := find(t.parts, m.From, m.Resource) - 1
	if i < 0 {
		return
	}
	switch {
	case m.Kind == KindVote && t.phase == phasePreparing && t.votes[i] == 0 && m.Vote != 0:
		t.votes[i] = m.Vote
		if m.Vote == twophase.VoteNo && !probe.Bug("3pc: a no is not counted") {
			c.abort(t, m.Reason, m.From)
			return
		}
		c.count(t)
	case m.Kind == KindVote && t.phase == phaseAlone && m.Vote == twophase.VoteNo:
		t.votes[i] = m.Vote
		c.abort(t, m.Reason, m.From)
	case m.Kind == KindVote && t.phase == phaseClosing && m.Vote == twophase.VoteYes && !t.done[i]:
		c.send(Message{Kind: KindOutcome, To: m.From, ID: t.id, Resource: m.Resource, Outcome: t.outcome})
	case m.Kind == KindDone && t.phase == phaseClosing && !t.done[i]:
		t.done[i] = true
		if m.Damage != twophase.NoDamage {
			c.damage(Report{ID: t.id, Node: m.From, Resource: m.Resource, Damage: m.Damage})
		}
		if !slices.Contains(t.done, false) {
			for _, p := range t.parts {
				c.send(Message{Kind: KindOver, To: p.Node, ID: t.id, Resource: p.Resource})
			}
			c.end(t)
		}
	case (m.Kind == KindState || m.Kind == KindAck) && (t.phase == phaseAttempting || t.phase == phaseAlone):
		c.coordinatorHears(t, i, m)
	case m.Kind == KindState && t.phase == phasePreparing && m.State == StateAborted:
		c.abort(t, "it was aborted there", m.From)
	}
}

// coordinatorHears takes in an answer to the attempt that the coordinator leads.
func (c *Core) coordinatorHears(t *transaction, i int, m Message) {
	o := m.State.final()
	if m.Kind == KindAck {
		o = unknown
	}
	if o == unknown && t.lead != nil {
		if n := higher(t.lead, m); n > 0 {
			// Somebody else was elected. It asks on, to hear what comes of that; and stands for election itself if nothing does.
			t.highest = max(t.highest, n)
			return
		}
		o = c.hear(t.seat(), t.lead, i, m)
	}
	if o != unknown {
		t.done[i] = m.State.final() != unknown && len(t.parts) == 1 // it has decided by itself
		c.decided(t, o)
	}
}

// standCoordinator has the coordinator be elected, if a quorum agrees.
func (c *Core) standCoordinator(t *transaction) {
	s := t.seat()
	number := t.highest
	if t.lead != nil {
		number = max(number, t.lead.ballot.Number)
	}
	t.highest = max(number, base.Number) + 1
	t.lead = c.newLead(s, t.highest)
	t.deadline = c.cfg.PrepareTicks
	t.tries++
	c.ask(s, t.lead)
}

// expire gives up: before anybody was asked to pre-commit the transaction is aborted; then it is terminated.
func (c *Core) expire(t *transaction) {
	switch t.phase {
	case phaseOpen:
		// Nobody was asked to prepare: whoever did something for it has to end that by himself.
		c.end(t)
	case phasePreparing:
		i := slices.Index(t.votes, 0)
		c.abort(t, fmt.Sprintf("no vote of resource %q", t.parts[i].Resource), t.parts[i].Node)
	case phaseAlone:
		if t.tries == maxTries {
			// The participant decides, and does not answer. Nothing hangs on it but the caller.
			c.answer(t, unknown, fmt.Sprintf("no answer of resource %q", t.parts[0].Resource), t.parts[0].Node)
			c.end(t)
			return
		}
		c.standCoordinator(t)
	case phaseAttempting:
		c.standCoordinator(t)
	}
}

// forgotten is for a coordinator that has waited for so long that a participant had to forget the transaction: then all have
// done what was decided, and nobody waits for it but its caller.
func (c *Core) forgotten(t *transaction, m Message) {
	if (t.phase == phaseAlone || t.phase == phaseAttempting) && find(t.parts, m.From, m.Resource) > 0 {
		c.answer(t, unknown, fmt.Sprintf("resource %q has had to forget it", m.Resource), m.From)
		c.end(t)
	}
}

// maxTries is how often a single participant is asked to abort, by an election, before its coordinator says that it does not know
// what became of the transaction.
const maxTries = 8

func (c *Core) tickTransaction(t *transaction) {
	t.timer--
	if t.phase != phaseClosing {
		if t.deadline--; t.deadline == 0 {
			c.expire(t)
			return
		}
	}
	switch {
	case t.lead != nil:
		if o := c.tickLead(t.seat(), t.lead); o != unknown {
			c.decided(t, o)
		}
	case t.timer > 0:
	case t.phase == phasePreparing, t.phase == phaseAlone:
		c.askVotes(t)
	case t.phase == phaseClosing:
		c.tell(t)
	}
}

// onInquire answers a participant in doubt.
func (c *Core) onInquire(t *transaction, m Message) {
	a := Message{Kind: KindAnswer, To: m.From, ID: m.ID, Resource: m.Resource}
	switch {
	case t != nil && t.phase == phaseClosing:
		a.Outcome = t.outcome
	case t != nil:
		a.Knowledge = twophase.Undecided
	case m.ID.Incarnation != c.cfg.Incarnation:
		a.Knowledge = twophase.Lost
	case m.ID.Counter < c.cfg.Base && !probe.Bug("3pc: a coordinator presumes what an earlier run has attempted"):
		// A coordinator keeps no records: what an earlier run of it has attempted the participants know.
		a.Knowledge = twophase.Ignorant
	default:
		// Only what was never attempted is forgotten before all participants have done it.
		a.Outcome, a.Early = aborted, true
	}
	c.send(a)
}
