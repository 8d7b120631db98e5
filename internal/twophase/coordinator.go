//synod:core

package twophase

import (
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
)

// phase is how far a transaction is, for its coordinator:
//
//	open ──▶ preparing ──▶ deciding ──▶ committing ──▶ over
//	  │          │  └──▶ delegated ─┘ (the last agent is asked)
//	  │          └──▶ over (a no, all read-only, out of time)
//	  └──▶ alone ──▶ over (a single participant)
type phase uint8

const (
	phaseOpen phase = iota
	phasePreparing
	phaseDelegated
	phaseDeciding
	phaseCommitting
	phaseAlone
	phaseClosing
)

func (p phase) String() string {
	return name(int(p), "open", "preparing", "delegated", "deciding", "committing", "alone", "closing")
}

type part struct {
	Branch
	vote  Vote
	acked bool
}

// transaction is one that was begun on this node.
type transaction struct {
	id       ID
	phase    phase
	parts    []part
	last     int // the last agent; -1: none
	timer    int // ticks until what is missing is asked for again
	deadline int // ticks until it is given up
	mayLeave bool
	recorded bool   // there is a record of the delegation
	only     bool   // the last agent is not to begin any more
	unclear  bool   // the last agent cannot tell
	answered bool   // the caller was told
	proposed bool   // the decision log was asked and has not answered
	decided  bool   // the decision log has a record, to be forgotten
	token    uint64 // where the record of the delegation is erased
}

func partsOf(branches []Branch, vote Vote) []part {
	parts := make([]part, len(branches))
	for i, b := range branches {
		parts[i] = part{Branch: b, vote: vote}
	}
	return parts
}

// branches returns the parts for which a condition holds, without their work.
func (t *transaction) branches(want func(i int, p *part) bool) []Branch {
	var list []Branch
	for i := range t.parts {
		if want(i, &t.parts[i]) {
			list = append(list, t.parts[i].Branch)
		}
	}
	return withoutWork(list)
}

func (c *Core) addTransaction(t *transaction) {
	c.byID[t.id] = t
	i, _ := slices.BinarySearchFunc(c.transactions, t.id, func(t *transaction, id ID) int { return t.id.Compare(id) })
	c.transactions = slices.Insert(c.transactions, i, t)
}

// undelegate erases the record that the last agent was asked. Until that is durable the transaction is not over: the last
// agent must still know what it did, if it is asked after a crash.
func (c *Core) undelegate(t *transaction) {
	if t.recorded {
		c.erase(delegatedKey(t.id))
		c.forced = true
		t.token, t.recorded = c.next, false
	}
}

// end removes a transaction: it is over for its coordinator.
func (c *Core) end(t *transaction) {
	if t.token > c.durable {
		t.phase = phaseClosing
		return
	}
	if t.decided {
		c.overNow(t.id)
	}
	delete(c.byID, t.id)
	i, found := slices.BinarySearchFunc(c.transactions, t.id, func(t *transaction, id ID) int { return t.id.Compare(id) })
	if found {
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
	c.addTransaction(&transaction{id: id, last: -1, deadline: c.cfg.OpenTicks})
	return nil
}

// Commit begins to commit an open transaction. Its end is a Result.
func (c *Core) Commit(id ID, branches []Branch) error {
	if c.err != nil {
		return c.err
	}
	t := c.byID[id]
	if t == nil || t.phase != phaseOpen {
		return fmt.Errorf("%w: transaction %v is not open", ErrInvalid, id)
	}
	if err := c.validate(branches); err != nil {
		return err
	}
	t.parts, t.mayLeave = partsOf(branches, 0), true
	for i, b := range branches {
		if b.LastAgent {
			t.last = i
		}
		// A participant that is given work with the request takes locks then: whoever has nothing to commit must keep
		// his until all have theirs, or the transaction is not two-phase in what it locks.
		if len(b.Work) > 0 && len(branches) > 1 {
			t.mayLeave = false
		}
	}
	if probe.Bug("2pc: read-only participants leave while locks are taken") {
		t.mayLeave = true
	}
	t.deadline = c.cfg.PrepareTicks
	if len(branches) == 1 {
		t.phase, t.last = phaseAlone, 0
		c.askLastAgent(t)
	} else {
		t.phase = phasePreparing
		c.askVotes(t)
	}
	c.settle()
	return nil
}

func (c *Core) validate(branches []Branch) error {
	if len(branches) == 0 || len(branches) > c.cfg.MaxParticipants {
		return fmt.Errorf("%w: %d participants: 1 to %d", ErrInvalid, len(branches), c.cfg.MaxParticipants)
	}
	agents := 0
	for i, b := range branches {
		switch {
		case b.Node == 0 || b.Resource == "" || len(b.Resource) > MaxResourceBytes:
			return fmt.Errorf("%w: participant %d: a node and a resource's name of 1 to %d bytes are needed", ErrInvalid, i, MaxResourceBytes)
		case slices.ContainsFunc(branches[:i], func(o Branch) bool { return o.Node == b.Node && o.Resource == b.Resource }):
			return fmt.Errorf("%w: resource %q of node %d takes part twice", ErrInvalid, b.Resource, b.Node)
		}
		if b.LastAgent {
			agents++
		}
	}
	if agents > 1 {
		return fmt.Errorf("%w: %d last agents: at most one participant can be unable to prepare", ErrInvalid, agents)
	}
	return nil
}

// Abandon aborts a transaction that is open, and tells these branches; one that is being decided goes its way.
func (c *Core) Abandon(id ID, branches []Branch) {
	t := c.byID[id]
	if c.err != nil || t == nil || t.phase != phaseOpen {
		return
	}
	t.parts = partsOf(branches, 0)
	c.abort(t, "abandoned by its client", 0)
	c.settle()
}

// askVotes sends the request to prepare to those who have not voted.
func (c *Core) askVotes(t *transaction) {
	t.timer = c.cfg.ResendTicks
	all := t.branches(func(int, *part) bool { return true })
	for i, p := range t.parts {
		if i == t.last || p.vote != 0 {
			continue
		}
		c.send(Message{Kind: KindPrepare, To: p.Node, ID: t.id, Resource: p.Resource, Branches: all, Work: p.Work, MayLeave: t.mayLeave, Fixed: t.last >= 0})
	}
}

func (c *Core) askLastAgent(t *transaction) {
	t.timer = c.cfg.ResendTicks
	p := &t.parts[t.last]
	c.send(Message{Kind: KindCommitOne, To: p.Node, ID: t.id, Resource: p.Resource, Work: p.Work, Only: t.only,
		Branches: t.branches(func(i int, p *part) bool { return true })})
}

func (c *Core) askLastAgentAfter(token uint64, id ID) {
	if token > c.durable {
		c.heldLastAgent = append(c.heldLastAgent, held[ID]{token, id})
		return
	}
	if t := c.byID[id]; t != nil && t.phase == phaseDelegated {
		c.askLastAgent(t)
	}
}

// tell sends the outcome to those that need it.
func (c *Core) tell(t *transaction, outcome Outcome) {
	t.timer = c.cfg.ResendTicks
	for i := range t.parts {
		p := &t.parts[i]
		stays := p.vote == VoteReadOnly && !t.mayLeave
		if p.acked || p.vote == VoteNo || p.vote == VoteReadOnly && !stays || outcome == OutcomeCommitted && i == t.last {
			continue
		}
		if outcome == OutcomeAborted && i == t.last && t.phase == phaseDelegated {
			continue // it has said so itself
		}
		c.send(Message{Kind: KindOutcome, To: p.Node, ID: t.id, Resource: p.Resource, Outcome: outcome})
		p.acked = p.acked || stays // nothing depends on it: it is said once
	}
}

func (c *Core) answer(t *transaction, outcome Outcome, reason string, node uint64) {
	if !t.answered {
		t.answered = true
		c.ready.Results = append(c.ready.Results, Result{ID: t.id, Outcome: outcome, Reason: reason, Node: node})
	}
}

// abort ends a transaction that is not committed and never will be. No record says so: what a coordinator
// knows nothing of was aborted.
func (c *Core) abort(t *transaction, reason string, node uint64) {
	c.answer(t, OutcomeAborted, reason, node)
	c.undelegate(t)
	c.tell(t, OutcomeAborted)
	c.end(t)
}

// committed ends the first half of a transaction: it is decided.
func (c *Core) committed(t *transaction) {
	c.answer(t, OutcomeCommitted, "", 0)
	c.undelegate(t)
	t.phase, t.decided = phaseCommitting, true
	c.tell(t, OutcomeCommitted)
	c.whenAcknowledged(t)
}

func (c *Core) whenAcknowledged(t *transaction) {
	for i, p := range t.parts {
		if p.vote == VoteYes && !p.acked && i != t.last {
			return
		}
	}
	c.end(t)
}

// count decides if all have voted.
func (c *Core) count(t *transaction) {
	writers := false
	for i, p := range t.parts {
		if i == t.last {
			continue
		}
		if p.vote == 0 {
			return
		}
		writers = writers || p.vote == VoteYes
	}
	switch {
	case t.last >= 0 && !writers:
		// Nobody is in doubt: the last agent alone decides, and a coordinator that forgets loses nothing.
		t.phase = phaseDelegated
		c.askLastAgent(t)
	case t.last >= 0:
		t.phase, t.recorded = phaseDelegated, true
		d := Decision{ID: t.id, Outcome: OutcomeCommitted, Branches: t.branches(func(i int, p *part) bool { return i == t.last || p.vote == VoteYes })}
		token := c.write(delegatedKey(t.id), AppendDecision(nil, d), true)
		t.timer = c.cfg.ResendTicks
		if probe.Bug("2pc: the last agent is asked before the record of it is durable") {
			token = 0
		}
		c.askLastAgentAfter(token, t.id)
	case !writers:
		c.answer(t, OutcomeCommitted, "", 0)
		c.tell(t, OutcomeCommitted)
		c.end(t)
	default:
		c.propose(t)
	}
}

// propose asks the decision log to let the transaction be committed. Until it answers nobody knows.
func (c *Core) propose(t *transaction) {
	t.phase, t.timer, t.proposed = phaseDeciding, c.cfg.ResendTicks, true
	d := Decision{ID: t.id, Outcome: OutcomeCommitted, Branches: t.branches(func(i int, p *part) bool { return p.vote == VoteYes && i != t.last })}
	c.ready.Decide = append(c.ready.Decide, d)
	if probe.Bug("2pc: the commit is told before it is durable") {
		c.tell(t, OutcomeCommitted)
	}
}

// Verdict is what became of a proposal to the decision log.
type Verdict uint8

// The verdicts.
const (
	VerdictUnknown   Verdict = iota // it failed: ask again
	VerdictCommitted                // the winner
	VerdictAborted                  // the winner
	VerdictForgotten                // the transaction is over, for all that were in doubt and said so
)

// Decided takes in what the decision log says of a proposal.
func (c *Core) Decided(id ID, v Verdict) {
	if c.err != nil {
		return
	}
	if t := c.byID[id]; t != nil && t.phase == phaseDeciding {
		t.proposed = false
		switch v {
		case VerdictCommitted:
			c.committed(t)
		case VerdictAborted:
			probe.Sometimes("2pc: a coordinator is fenced", true)
			t.decided = true
			c.abort(t, "aborted by a participant that had waited too long", 0)
		case VerdictForgotten:
			c.answer(t, OutcomeUnknown, "", 0)
			c.fail(fmt.Errorf("%w: transaction %v", ErrSuperseded, id))
		}
	}
	for _, e := range slices.Clone(c.entries) {
		if e.id == id && e.inDoubt() {
			c.verdict(e, v)
		}
	}
	c.settle()
}

func (c *Core) stepCoordinator(m Message) {
	t := c.byID[m.ID]
	if t == nil {
		if m.Kind == KindVote && m.Vote == VoteYes {
			c.onInquire(m) // it is in doubt about what is over
		}
		return
	}
	i := slices.IndexFunc(t.parts, func(p part) bool { return p.Node == m.From && p.Resource == m.Resource })
	if i < 0 {
		return
	}
	p := &t.parts[i]
	switch {
	case m.Kind == KindVote && t.phase == phasePreparing && i != t.last && p.vote == 0 && m.Vote != 0:
		p.vote = m.Vote
		if m.Vote == VoteNo && !probe.Bug("2pc: a no is not counted") {
			c.abort(t, m.Reason, m.From)
			return
		}
		c.count(t)
	case m.Kind == KindVote && t.phase == phaseCommitting && m.Vote == VoteYes && !p.acked:
		c.send(Message{Kind: KindOutcome, To: m.From, ID: t.id, Resource: m.Resource, Outcome: OutcomeCommitted})
	case m.Kind == KindAck && t.phase == phaseCommitting && p.vote == VoteYes && !p.acked:
		p.acked = true
		if m.Damage != NoDamage {
			c.damage(Report{ID: t.id, Node: m.From, Resource: m.Resource, Damage: m.Damage})
		}
		c.whenAcknowledged(t)
	case m.Kind == KindResult && i == t.last && t.phase == phaseAlone:
		switch m.Outcome {
		case OutcomeUnknown:
			c.answer(t, OutcomeUnknown, m.Reason, m.From)
			t.unclear = true
		case OutcomeAborted:
			c.answer(t, OutcomeAborted, m.Reason, m.From)
			c.end(t)
		default:
			c.answer(t, OutcomeCommitted, "", 0)
			c.end(t)
		}
	case m.Kind == KindResult && i == t.last && t.phase == phaseDelegated:
		c.lastAgentSays(t, m.Outcome, m.Reason, m.From)
	}
}

// lastAgentSays goes on with what the last agent did.
func (c *Core) lastAgentSays(t *transaction, outcome Outcome, reason string, from uint64) {
	switch outcome {
	case OutcomeUnknown:
		// Nobody can tell but who looks: the others stay in doubt until then.
		t.unclear = true
		c.answer(t, OutcomeUnknown, reason, from)
	case OutcomeAborted:
		c.abort(t, reason, from)
	case OutcomeCommitted:
		if !t.recorded { // all others were read-only
			c.answer(t, OutcomeCommitted, "", 0)
			c.tell(t, OutcomeCommitted)
			c.end(t)
			return
		}
		c.propose(t)
	}
}

// Settle is an operator's word on what a last agent did that cannot tell itself.
func (c *Core) Settle(id ID, outcome Outcome) error {
	if c.err != nil {
		return c.err
	}
	t := c.byID[id]
	if t == nil || !t.unclear || outcome == OutcomeUnknown {
		return fmt.Errorf("%w: transaction %v waits for no last agent that can't tell", ErrNotInDoubt, id)
	}
	t.unclear = false
	if t.phase == phaseAlone {
		c.end(t)
	} else {
		c.lastAgentSays(t, outcome, "an operator says that the last agent has aborted", 0)
	}
	c.settle()
	return nil
}

func (c *Core) tickTransaction(t *transaction) {
	if t.phase == phaseClosing {
		return
	}
	if t.phase == phaseOpen {
		// Nobody was asked to prepare: whoever did something for it has to end that by himself.
		if t.deadline--; t.deadline == 0 {
			c.end(t)
		}
		return
	}
	t.timer--
	t.deadline--
	switch {
	case t.phase == phasePreparing && t.deadline <= 0:
		i := slices.IndexFunc(t.parts, func(p part) bool { return p.vote == 0 })
		c.abort(t, fmt.Sprintf("no vote of resource %q", t.parts[i].Resource), t.parts[i].Node)
	case t.timer > 0:
	case t.phase == phasePreparing:
		c.askVotes(t)
	case t.phase == phaseDeciding && !t.proposed:
		c.propose(t)
	case t.phase == phaseCommitting:
		c.tell(t, OutcomeCommitted)
	case t.phase == phaseAlone, t.phase == phaseDelegated:
		if t.phase == phaseDelegated && slices.ContainsFunc(c.heldLastAgent, func(h held[ID]) bool { return h.what == t.id }) {
			return
		}
		// Who has not answered by now is asked to leave it, unless it is done.
		t.only = t.only || t.deadline <= 0
		c.askLastAgent(t)
	}
}

// onInquire answers a participant in doubt.
func (c *Core) onInquire(m Message) {
	a := Message{Kind: KindAnswer, To: m.From, ID: m.ID, Resource: m.Resource}
	t := c.byID[m.ID]
	switch {
	case t != nil && (t.phase == phaseCommitting || t.phase == phaseClosing && t.decided):
		a.Outcome = OutcomeCommitted
	case t != nil && t.phase != phaseClosing:
		a.Knowledge = Undecided
	case m.ID.Incarnation != c.cfg.Incarnation && !probe.Bug("2pc: a coordinator presumes what it has lost"):
		// What an earlier incarnation decided was in a store that is gone.
		a.Knowledge = Lost
	default:
		if !c.known(m.ID) {
			return
		}
		a.Outcome = OutcomeAborted
		if probe.Bug("2pc: a coordinator presumes commit") {
			a.Outcome = OutcomeCommitted
		}
	}
	c.send(a)
}
