//synod:core

package threephase

import (
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
	"github.com/synod-go/synod/internal/twophase"
)

// entry is a branch that is not over for all.
//
//	                  ┌──────────────────────────────┐
//	(asked) ──▶ wait ─┼▶ pre-committed ──▶ committed │──▶ done ──▶ over for all: remembered as finished
//	    │       │  │  │      ▲ │                     │      ▲
//	    │       │  └──┼▶ pre-aborted ────▶ aborted   │      │
//	    └──▶ initial ─┘  (elected by others before   ┘      │
//	         it has voted: it never will)                   │
//	    a no ───────────────────────────────────────────────┘
type entry struct {
	key
	parts   []Participant
	rank    int // its own among them, from 1 on; 0: it was never told who takes part
	state   State
	vote    Vote   // yes or read-only; 0: it has not voted
	elected Ballot // the last election that it took part in
	attempt Ballot // and the last attempt
	done    bool   // the resource has done what the state says

	token     uint64 // of the record that says so
	since     int64  // when it voted
	preparing bool   // the resource is asked to
	calling   bool   // a call of it is under way
	released  bool   // it is not asked any more: it had nothing to commit
	mayLeave  bool   // if it is read-only
	early     bool   // nobody was ever asked to pre-commit: nobody needs to know it when it is over here
	recovered bool   // this node has crashed since it voted
	damage    Damage // that this node knows of
	failure   string // what the resource said last

	timer   int
	age     int // ticks in doubt, in this run
	silent  int // ticks since a leader was heard
	heard   bool
	said    Knowledge // by the coordinator, last
	highest uint64    // the number of the last election that it has heard of
	lead    *lead     // if it was elected, or wants to be
	tellers []teller  // who wants to hear when it is done
	closing bool      // it has others tell whether they are done
	over    []bool    // who has; nil: nobody
}

// teller is who has told the outcome.
type teller struct {
	node uint64
	rank uint32
}

// inDoubt reports whether the branch waits for an outcome.
func (e *entry) inDoubt() bool { return !e.preparing && e.state.final() == unknown }

func (e *entry) seat() seat {
	return seat{id: e.id, parts: e.parts, rank: e.rank, token: e.token}
}

func (c *Core) findEntry(k key) (int, bool) {
	return slices.BinarySearchFunc(c.entries, k, func(e *entry, k key) int { return e.compare(k) })
}

func (c *Core) entry(k key) *entry {
	if i, found := c.findEntry(k); found {
		return c.entries[i]
	}
	return nil
}

func (c *Core) addEntry(e *entry) {
	i, _ := c.findEntry(e.key)
	c.entries = slices.Insert(c.entries, i, e)
}

func (c *Core) removeEntry(e *entry) {
	if i, found := c.findEntry(e.key); found {
		c.entries = slices.Delete(c.entries, i, i+1)
	}
}

// leader returns the branch of this node that has a rank in a transaction.
func (c *Core) leader(id ID, rank int) *entry {
	i, _ := c.findEntry(key{id: id})
	for ; i < len(c.entries) && c.entries[i].id == id; i++ {
		if c.entries[i].rank == rank {
			return c.entries[i]
		}
	}
	return nil
}

// resume goes on with a branch that the store has.
func (c *Core) resume(e *entry) {
	e.recovered, e.timer = true, 1
	e.released = e.vote == twophase.VoteReadOnly
	e.early = len(e.parts) == 1
	e.highest = e.elected.Number
	switch {
	case e.done:
		e.timer = c.cfg.PeerTicks + e.rank*c.cfg.ResendTicks
	case e.state.final() != unknown:
		c.resolve(e)
	}
}

// Orphan takes in that a resource is in doubt about a transaction, when it starts.
func (c *Core) Orphan(id ID, resource string) {
	k := key{id, resource}
	if c.err != nil || c.entry(k) != nil {
		return
	}
	e := &entry{key: k, state: StateAborted, early: true} // it never voted: the record of that comes before the vote
	if f, ok := c.finished(k); ok {
		e.state = stateOf(f.outcome)
		e.vote = twophase.VoteYes
	}
	c.addEntry(e)
	c.resolve(e)
	c.settle()
}

func (c *Core) call(e *entry, call Call) {
	call.ID, call.Resource = e.id, e.resource
	e.calling = true
	c.callAfter(e.token, call)
}

// record writes what a branch promises. What depends on it waits for e.token.
func (c *Core) record(e *entry, forced bool) {
	e.token = c.write(branchKey(TagBranch, e.key), encodeBranch(e), forced)
}

func (c *Core) vote(k key, token uint64, v Vote, reason string) {
	if len(reason) > twophase.MaxReasonBytes {
		reason = reason[:twophase.MaxReasonBytes]
	}
	c.sendAfter(token, Message{Kind: KindVote, To: k.id.Node, ID: k.id, Resource: k.resource, Vote: v, Reason: reason})
}

// admit says why a branch may not begin here; "": it may.
func (c *Core) admit(k key) string {
	switch {
	case c.below(k.id) && !probe.Bug("3pc: a prepare of a transaction that is over is accepted"):
		probe.Sometimes("3pc: a prepare below the floor is refused", true)
		return "requests that old are refused"
	case !slices.Contains(c.cfg.Resources, k.resource):
		return fmt.Sprintf("there is no resource %q", k.resource)
	case len(c.entries) >= c.cfg.MaxBranches:
		return fmt.Sprintf("%d branches are under way, which is the limit", len(c.entries))
	}
	return ""
}

func (c *Core) onPrepare(k key, m Message) {
	if e := c.entry(k); e != nil {
		switch {
		case e.preparing:
		case e.state == StateWait && e.vote != 0:
			c.vote(k, e.token, e.vote, "")
		case e.state == StateInitial:
			c.vote(k, e.token, twophase.VoteNo, "it has taken part in an election before it was asked")
		case e.state.final() != unknown:
			c.tellState(e, Ballot{}, k.id.Node)
		}
		return
	}
	if f, ok := c.finished(k); ok && !probe.Bug("3pc: a tombstone is not looked at") {
		probe.Sometimes("3pc: a prepare meets its tombstone", true)
		if f.outcome == aborted {
			c.vote(k, f.token, twophase.VoteNo, "it was aborted here")
		} else {
			c.tellFinished(f, Ballot{}, k.id.Node)
		}
		return
	}
	rank := find(m.Participants, c.cfg.Node, k.resource)
	if rank == 0 {
		return
	}
	if c.below(k.id) && len(m.Participants) == 1 {
		// It may have been committed here, and forgotten as there was too much to remember.
		c.sendForced(c.newest(), Message{Kind: KindOver, To: m.From, ID: k.id, Resource: k.resource})
		return
	}
	if reason := c.admit(k); reason != "" {
		c.vote(k, 0, twophase.VoteNo, reason)
		if !c.below(k.id) {
			c.giveUp(k) // below the floor it may have been committed, long ago
		}
		return
	}
	e := &entry{key: k, parts: withoutWork(m.Participants), rank: rank, preparing: true, mayLeave: m.MayLeave}
	c.addEntry(e)
	c.call(e, Call{Kind: twophase.CallPrepare, Work: m.Work, MayLeave: m.MayLeave})
}

// giveUp has the resource take back what it may have done for a transaction that was not prepared.
func (c *Core) giveUp(k key) {
	if slices.Contains(c.cfg.Resources, k.resource) && c.entry(k) == nil && len(c.entries) < 2*c.cfg.MaxBranches {
		e := &entry{key: k, state: StateAborted, early: true}
		c.addEntry(e)
		c.resolve(e)
	}
}

// Voted takes in what a resource answers to CallPrepare. reason says why it is a no.
func (c *Core) Voted(id ID, resource string, v Vote, reason string) {
	e := c.entry(key{id, resource})
	if c.err != nil || e == nil || !e.preparing {
		return
	}
	e.preparing, e.calling = false, false
	e.timer = c.cfg.InquireTicks
	alone := len(e.parts) == 1
	switch {
	case e.state.final() != unknown:
		c.resolve(e) // whatever it says: one that is read-only may keep its locks until it is told
	case e.elected != Ballot{}:
		// It takes part in an election as one that has not voted. It is told what comes of it.
	case v == twophase.VoteNo || v == 0:
		c.vote(e.key, 0, twophase.VoteNo, reason)
		e.state, e.early = StateAborted, true
		c.resolve(e)
	case alone:
		// It is a quorum, and has just decided.
		e.vote, e.state, e.early, e.since = v, StateCommitted, true, c.now
		e.released = v == twophase.VoteReadOnly && e.mayLeave
		c.record(e, true)
		c.tellState(e, Ballot{}, id.Node)
		c.resolve(e)
	default:
		// Whoever has nothing to commit still has a voice: what it says in an election must be what it has said before.
		e.vote, e.state, e.since = v, StateWait, c.now
		e.released = v == twophase.VoteReadOnly && e.mayLeave
		c.record(e, true)
		token := e.token
		if probe.Bug("3pc: the vote leaves before its record is durable") {
			token = 0
		}
		c.vote(e.key, token, v, "")
	}
	c.settle()
}

// standIn is the voice of a branch that is forgotten, or that was never asked and never will be. Whatever else it was, if
// somebody is in doubt it has not pre-committed: then it would be remembered until nobody is. So neither has anybody else, or ever will:
// all elections come to the same, and nothing of this one needs to be remembered.
func (c *Core) standIn(k key, m Message) {
	if find(m.Participants, c.cfg.Node, k.resource) == 0 {
		return
	}
	probe.Sometimes("3pc: what is forgotten still has a voice", true)
	a := Message{To: m.From, ID: k.id, Resource: k.resource, Ballot: m.Ballot}
	switch {
	case m.Ballot.Rank == 0:
		// The coordinator keeps its floor below what it does not know: it was forgotten since there was too much to remember.
		a.Kind, a.Ballot = KindOver, Ballot{}
	case m.Kind == KindElect:
		a.Kind, a.State, a.Elected = KindState, StateInitial, m.Ballot
	case m.Kind == KindPreAbort:
		a.Kind = KindAck
	default:
		return // it comes late
	}
	c.sendForced(c.newest(), a)
}

// witness makes a branch that has a voice, and nothing else: it has not voted, and never will. It is what a node is
// in a transaction that it has not heard of, in an election that others hold.
func (c *Core) witness(k key, m Message) *entry {
	rank := find(m.Participants, c.cfg.Node, k.resource)
	if rank == 0 || len(c.entries) >= 2*c.cfg.MaxBranches {
		return nil
	}
	probe.Sometimes("3pc: a participant that has not voted takes part in an election", true)
	e := &entry{key: k, parts: withoutWork(m.Participants), rank: rank, since: c.now, timer: c.cfg.InquireTicks}
	c.addEntry(e)
	return e
}

// maxNumber is how high elections are numbered: nobody gets there by counting.
const maxNumber = 1 << 62

// onAttempt takes part in an election, or in an attempt, unless it has taken part in a later one.
func (c *Core) onAttempt(k key, m Message) {
	if m.Ballot.Number == 0 || m.Ballot.Number > maxNumber || int(m.Ballot.Rank) > len(m.Participants) || m.From != leaderNode(m.ID, m.Participants, m.Ballot.Rank) {
		return
	}
	e := c.entry(k)
	if e == nil {
		if f, ok := c.finished(k); ok {
			c.tellFinished(f, m.Ballot, m.From)
			return
		}
		if c.below(k.id) {
			c.standIn(k, m)
			return
		}
		if e = c.witness(k, m); e == nil {
			return
		}
	}
	if e.rank == 0 || e.state.final() != unknown {
		c.tellState(e, m.Ballot, m.From)
		return
	}
	e.highest = max(e.highest, m.Ballot.Number)
	if m.Ballot.less(e.elected) && !probe.Bug("3pc: an attempt of an older election is taken part in") {
		probe.Sometimes("3pc: an older election is refused", true)
		c.tellState(e, m.Ballot, m.From)
		return
	}
	e.silent = 0
	changed := e.elected != m.Ballot
	e.elected = m.Ballot
	if e.lead != nil && e.lead.ballot.less(m.Ballot) {
		e.lead = nil
	}
	if m.Kind == KindElect {
		if changed {
			c.record(e, true)
		}
		if probe.Bug("3pc: a participant's election is not durable") && e.lead == nil {
			e.token = 0
		}
		c.tellState(e, m.Ballot, m.From)
		return
	}
	state := StatePreCommitted
	if m.Kind == KindPreAbort {
		state = StatePreAborted
	}
	if changed || e.attempt != m.Ballot || e.state != state {
		e.attempt, e.state = m.Ballot, state
		if probe.Bug("3pc: an attempt does not count as one") && m.Ballot != base {
			e.attempt = base
		}
		c.record(e, true)
	}
	token := e.token
	if probe.Bug("3pc: an attempt is acknowledged before it is durable") {
		token = 0
	}
	c.sendAfter(token, Message{Kind: KindAck, To: m.From, ID: k.id, Resource: k.resource, Ballot: m.Ballot})
}

// leaderNode is the node of whoever has a rank.
func leaderNode(id ID, list []Participant, rank uint32) uint64 {
	if rank == 0 {
		return id.Node
	}
	return list[rank-1].Node
}

// tellState tells a leader how far a branch is, once that is durable. An outcome that others have decided is true
// anyway.
func (c *Core) tellState(e *entry, b Ballot, to uint64) {
	m := Message{Kind: KindState, To: to, ID: e.id, Resource: e.resource, Ballot: b, State: e.state}
	if e.state.final() == unknown {
		m.Elected, m.Attempt, m.Recovered = e.elected, e.attempt, e.recovered
	} else if e.early && len(e.parts) != 1 {
		// What it has decided alone, by a no, is told when that is durable.
		e.tellers = addTeller(e.tellers, teller{to, b.Rank})
		return
	}
	c.sendAfter(e.token, m)
}

func (c *Core) tellFinished(f finish, b Ballot, to uint64) {
	token := f.token
	if probe.Bug("3pc: a no is told to others before it is durable") {
		token = 0
	}
	c.sendForced(token, Message{Kind: KindState, To: to, ID: f.id, Resource: f.resource, Ballot: b, State: stateOf(f.outcome)})
}

func addTeller(list []teller, t teller) []teller {
	if slices.Contains(list, t) || len(list) >= 16 {
		return list
	}
	return append(slices.Clone(list), t)
}

func (c *Core) onOutcome(k key, m Message) {
	if m.Outcome == unknown {
		return
	}
	done := Message{Kind: KindDone, To: m.From, ID: k.id, Resource: k.resource, Ballot: Ballot{Rank: m.Ballot.Rank}, Outcome: m.Outcome}
	if e := c.entry(k); e != nil {
		if int(m.Ballot.Rank) > len(e.parts) || e.rank > 0 && m.From != leaderNode(k.id, e.parts, m.Ballot.Rank) {
			return
		}
		if !m.Early {
			e.tellers = addTeller(e.tellers, teller{m.From, m.Ballot.Rank})
		}
		c.learn(e, m.Outcome, m.Early)
		c.tellDone(e)
		return
	}
	f, over := c.finished(k)
	switch {
	case m.Early && !over && !c.below(k.id) && m.Outcome == aborted:
		c.giveUp(k) // afterwards there is a tombstone
	case m.Early:
	case over:
		if !f.readOnly {
			done.Damage = damageOf(f.outcome, m.Outcome)
		}
		c.sendForced(f.token, done)
	case m.Outcome == aborted && !c.below(k.id):
		// It has not voted, and after this never will.
		c.giveUp(k)
		if e := c.entry(k); e != nil {
			e.tellers = addTeller(e.tellers, teller{m.From, m.Ballot.Rank})
		}
	default:
		// It is over here: whoever tells it has not heard that. What was written about that may not be durable yet.
		c.sendForced(c.newest(), done)
	}
}

// newest returns the token after which everything that was written so far is durable.
func (c *Core) newest() uint64 {
	if c.batch.Len() > 0 {
		return c.next
	}
	return c.next - 1
}

// damageOf is what is wrong with a participant that has done one thing where another was decided.
func damageOf(did, decided Outcome) Damage {
	switch {
	case did == decided:
		return twophase.NoDamage
	case did == committed:
		return twophase.Committed
	}
	return twophase.Aborted
}

// learn takes in the outcome of a branch that is here.
func (c *Core) learn(e *entry, outcome Outcome, early bool) {
	if o := e.state.final(); o != unknown {
		if d := damageOf(o, outcome); d != twophase.NoDamage && e.damage == twophase.NoDamage && e.vote != twophase.VoteReadOnly {
			// Skeen's protocol has split.
			e.damage = d
			e.token = max(e.token, c.damage(Report{ID: e.id, Node: c.cfg.Node, Resource: e.resource, Damage: d}))
		}
		return
	}
	if outcome == unknown {
		return
	}
	e.lead = nil
	e.state = stateOf(outcome)
	e.early = early
	if !e.preparing {
		c.resolve(e)
	}
}

// resolve has the resource do what was decided.
func (c *Core) resolve(e *entry) {
	switch {
	case e.state == StateAborted && !e.released:
		c.call(e, Call{Kind: twophase.CallAbort})
	case e.state == StateCommitted && !e.released && e.vote != 0:
		c.call(e, Call{Kind: twophase.CallCommit})
	default:
		c.finish(e)
	}
}

// Done takes in how CallCommit or CallAbort ended. failure: not at all, ask again. A heuristic outcome is what the
// resource has done of its own accord before.
func (c *Core) Done(id ID, resource string, heuristic Outcome, failure string) {
	e := c.entry(key{id, resource})
	if c.err != nil || e == nil || !e.calling || e.preparing {
		return
	}
	e.calling, e.failure = false, failure
	if failure != "" {
		e.timer = c.cfg.ResendTicks
		c.settle()
		return
	}
	if heuristic != unknown && heuristic != e.state.final() {
		e.damage = damageOf(heuristic, e.state.final())
		e.token = max(e.token, c.damage(Report{ID: id, Node: c.cfg.Node, Resource: resource, Damage: e.damage}))
	}
	c.finish(e)
	c.settle()
}

// finish goes on when the resource has done what was decided. That it has is written with whatever is written next.
func (c *Core) finish(e *entry) {
	e.done = true
	if e.early {
		c.over(e)
		return
	}
	c.record(e, false)
	e.timer = 2*c.cfg.PeerTicks + e.rank*c.cfg.ResendTicks
	if e.closing {
		e.timer = c.cfg.ResendTicks
		c.closed(e)
	}
	if probe.Bug("3pc: what is over for one is forgotten") {
		c.tellDone(e)
		c.over(e)
		return
	}
	c.tellDone(e)
}

// tellDone tells those who want to know that a branch is done, once that is durable.
func (c *Core) tellDone(e *entry) {
	if !e.done {
		return
	}
	token := e.token
	if probe.Bug("3pc: it is said to be done before that is durable") {
		token = 0
	}
	for _, t := range e.tellers {
		c.sendAfter(token, Message{Kind: KindDone, To: t.node, ID: e.id, Resource: e.resource, Ballot: Ballot{Rank: t.rank}, Outcome: e.state.final(), Damage: e.damage})
	}
	e.tellers = nil
}

// over forgets a branch: all have done the same, or none was ever asked to pre-commit. What remains says so to whoever asks, and
// that nothing is to be prepared.
func (c *Core) over(e *entry) {
	if e.token > 0 || e.recovered {
		c.batch.Delete(branchKey(TagBranch, e.key))
	}
	token, readOnly := c.next, e.vote == twophase.VoteReadOnly
	if !c.below(e.id) {
		c.write(branchKey(TagFinished, e.key), twophase.AppendFlags([]byte{byte(e.state.final())}, readOnly), false)
	} else {
		c.writeHorizon(c.horizon(originOf(e.id)))
	}
	f := finish{e.key, e.state.final(), readOnly, token}
	c.remember(f)
	c.removeEntry(e)
	for _, t := range e.tellers {
		if e.state == StateAborted {
			c.sendForced(token, Message{Kind: KindDone, To: t.node, ID: e.id, Resource: e.resource, Ballot: Ballot{Rank: t.rank}, Outcome: aborted, Damage: e.damage})
		}
		c.tellFinished(f, Ballot{Rank: t.rank}, t.node)
	}
}

// closed ends a branch if all have done what was decided, and tells them.
func (c *Core) closed(e *entry) {
	for i := range e.parts {
		if !e.done || i+1 != e.rank && (e.over == nil || !e.over[i]) {
			return
		}
	}
	for i, p := range e.parts {
		if i+1 != e.rank {
			c.sendForced(e.token, Message{Kind: KindOver, To: p.Node, ID: e.id, Resource: p.Resource, Ballot: Ballot{Rank: uint32(e.rank)}})
		}
	}
	c.over(e)
}

// close tells the outcome to those who are not known to have done it.
func (c *Core) close(e *entry) {
	e.closing, e.timer = true, c.cfg.ResendTicks
	for i, p := range e.parts {
		if i+1 != e.rank && (e.over == nil || !e.over[i]) {
			c.send(Message{Kind: KindOutcome, To: p.Node, ID: e.id, Resource: p.Resource, Ballot: Ballot{Rank: uint32(e.rank)}, Outcome: e.state.final()})
		}
	}
	c.closed(e)
}

func (c *Core) onOver(k key, m Message) {
	e := c.entry(k)
	if e == nil || !e.done || int(m.Ballot.Rank) > len(e.parts) || m.From != leaderNode(k.id, e.parts, m.Ballot.Rank) {
		return
	}
	c.over(e)
}

// stepLeader takes in an answer to a branch that leads, or that closes the transaction.
func (c *Core) stepLeader(e *entry, m Message) {
	i := find(e.parts, m.From, m.Resource) - 1
	if i < 0 {
		return
	}
	o := m.State.final()
	switch {
	case m.Kind == KindDone:
		if e.state.final() == unknown {
			return
		}
		if e.over == nil {
			e.over = make([]bool, len(e.parts))
		}
		e.over[i] = true
		if m.Damage != twophase.NoDamage {
			c.damage(Report{ID: e.id, Node: m.From, Resource: m.Resource, Damage: m.Damage})
		}
		if e.closing && e.done {
			c.closed(e)
		}
		return
	case e.preparing || e.state.final() != unknown:
		return
	case m.Kind == KindState && o != unknown:
	case e.lead == nil:
		return
	default:
		if n := higher(e.lead, m); n > 0 {
			e.highest, e.lead, e.silent = max(e.highest, n), nil, 0
			return
		}
		o = c.hear(e.seat(), e.lead, i, m)
	}
	if o != unknown {
		c.conclude(e, o)
	}
}

// conclude is for a leader that knows the outcome: it tells all others.
func (c *Core) conclude(e *entry, o Outcome) {
	c.learn(e, o, false)
	if c.entry(e.key) == e {
		c.close(e)
	}
}

// stand has a branch be elected, if a quorum agrees. The number of the election is durable before anybody hears of it: after
// a crash it is not used for another one.
func (c *Core) stand(e *entry) {
	e.highest = max(e.highest, e.elected.Number, base.Number) + 1
	e.lead = c.newLead(e.seat(), e.highest)
	e.elected, e.silent = e.lead.ballot, 0
	if !probe.Bug("3pc: an election is not durable before it is held") {
		c.record(e, true)
	}
	c.ask(e.seat(), e.lead)
}

func (c *Core) tickEntry(e *entry) {
	e.timer--
	switch {
	case e.preparing || e.calling:
	case e.inDoubt():
		c.tickDoubt(e)
	case e.timer > 0:
	case !e.done:
		c.resolve(e)
	default:
		c.close(e)
	}
}

func (c *Core) tickDoubt(e *entry) {
	e.age++
	e.silent++
	if probe.Bug("3pc: a participant in doubt aborts alone") && e.age > 2*c.cfg.PeerTicks {
		c.learn(e, aborted, false)
		return
	}
	if e.lead != nil {
		if o := c.tickLead(e.seat(), e.lead); o != unknown {
			c.conclude(e, o)
		}
		return
	}
	if e.timer <= 0 {
		e.timer = c.cfg.InquireTicks
		c.send(Message{Kind: KindInquire, To: e.id.Node, ID: e.id, Resource: e.resource})
	}
	if e.silent >= c.cfg.PeerTicks+e.rank*c.cfg.ResendTicks {
		c.stand(e)
	}
}

func (c *Core) onAnswer(k key, m Message) {
	e := c.entry(k)
	if e == nil || !e.inDoubt() {
		return
	}
	e.heard, e.said = true, m.Knowledge
	switch {
	case m.Knowledge == twophase.Undecided:
		// It is there. But it may not get on, where others would.
		if e.age < 4*c.cfg.PeerTicks {
			e.silent = 0
		}
	case m.Knowledge == twophase.Decided && m.Early:
		if e.state != StatePreCommitted {
			c.learn(e, m.Outcome, true)
		}
	case m.Knowledge == twophase.Decided:
		c.learn(e, m.Outcome, false)
	case e.lead == nil && e.silent < c.cfg.PeerTicks:
		e.silent = c.cfg.PeerTicks // it can't help
	}
}
