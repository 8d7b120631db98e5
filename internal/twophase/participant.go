//synod:core

package twophase

import (
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/probe"
)

// state is how far a branch is, for its node:
//
//	preparing ──▶ prepared ──▶ ending ──▶ over
//	    │  └──▶ staying ────────▲ ▲ ▲
//	    ├──▶ over (read-only)     │ │
//	    └──▶ a no ────────────────┘ │
//	starting ──▶ (one phase) ───────┘
//
// An operator may have decided a prepared one: it stays so, with heuristic set, until the outcome is known.
type state uint8

const (
	statePreparing state = iota // the resource is asked
	statePrepared               // it has voted yes: in doubt
	stateStaying                // it has voted read-only, and must stay
	stateStarting               // the resource is asked to commit in one phase
	stateEnding                 // the outcome is known, the resource is told
)

// readOnlyBlock is for how many transactions ahead a node writes that it may have voted read-only.
const readOnlyBlock = 1 << 16

// entry is a branch that is not over.
type entry struct {
	key
	state     state
	stage     stage // what its record says; 0: there is none
	token     uint64
	outcome   Outcome // where it is ending
	heuristic Outcome // what an operator decided
	damage    Damage  // that this node knows of
	peers     []Branch
	fixed     bool  // nobody may propose to abort
	mayLeave  bool  // if it is read-only
	one       bool  // the participant decides
	doomed    bool  // it is aborted while the resource prepares
	told      bool  // the outcome is what others have decided
	calling   bool  // a call of the resource is under way
	unclear   bool  // the resource cannot tell what it did
	since     int64 // when it voted
	age       int   // ticks in doubt, in this run
	timer     int
	heard     bool
	silent    Knowledge // what the coordinator said last
	proposed  bool
	failure   string // what the resource said last
}

// inDoubt reports whether the branch waits for an outcome that others decide.
func (e *entry) inDoubt() bool { return e.state == statePrepared || e.state == stateStaying }

func (c *Core) addEntry(e *entry) {
	c.entries = append(c.entries, e)
	c.byKey[e.key] = e
}

func (c *Core) removeEntry(e *entry) {
	delete(c.byKey, e.key)
	c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
}

// resume goes on with a branch that the store has.
func (c *Core) resume(e *entry) {
	switch e.stage {
	case stagePrepared:
		e.state, e.timer = statePrepared, 1
		if e.heuristic != OutcomeUnknown {
			c.resolveHeuristic(e)
		}
	case stageStarted:
		// Whether it was done only the resource knows.
		e.state, e.one = stateStarting, true
		c.call(e, Call{Kind: CallOutcome})
	case stageCommitted:
		e.one = true
		c.resolve(e, OutcomeCommitted)
	}
}

// Orphan takes in that a resource is in doubt about a transaction, when it starts.
func (c *Core) Orphan(id ID, resource string) {
	if c.err != nil {
		return
	}
	k := key{id, resource}
	if c.byKey[k] != nil {
		return
	}
	outcome := OutcomeAborted // it never voted: the record of that comes before the vote
	if f, ok := c.finished[k]; ok && f.outcome != OutcomeUnknown {
		outcome = f.outcome
	}
	e := &entry{key: k}
	c.addEntry(e)
	c.resolve(e, outcome)
	c.settle()
}

func (c *Core) call(e *entry, call Call) {
	call.ID, call.Resource = e.id, e.resource
	e.calling = true
	c.callAfter(e.token, call)
}

func (c *Core) stepParticipant(m Message) {
	k := key{m.ID, m.Resource}
	switch m.Kind {
	case KindPrepare:
		c.onPrepare(k, m)
	case KindOutcome:
		c.onOutcome(k, m)
	case KindCommitOne:
		c.onCommitOne(k, m)
	}
}

func (c *Core) vote(k key, token uint64, v Vote, reason string) {
	if len(reason) > MaxReasonBytes {
		reason = reason[:MaxReasonBytes]
	}
	c.sendAfter(token, Message{Kind: KindVote, To: k.id.Node, ID: k.id, Resource: k.resource, Vote: v, Reason: reason})
}

// admit says why a branch may not begin here; "": it may.
func (c *Core) admit(k key) string {
	_, here := c.cfg.OnePhase[k.resource]
	h := c.horizons[originOf(k.id)]
	switch {
	case h != nil && k.id.Counter < h.floor && !probe.Bug("2pc: a prepare of a transaction that is over is accepted"):
		probe.Sometimes("2pc: a prepare below the floor is refused", true)
		return fmt.Sprintf("transactions of node %d below %d are over", k.id.Node, h.floor)
	case !here:
		return fmt.Sprintf("there is no resource %q", k.resource)
	case len(c.entries) >= c.cfg.MaxBranches:
		return fmt.Sprintf("%d branches are under way, which is the limit", len(c.entries))
	}
	return ""
}

func (c *Core) onPrepare(k key, m Message) {
	if e := c.byKey[k]; e != nil {
		switch {
		case e.state == statePrepared && e.heuristic == OutcomeUnknown:
			c.vote(k, e.token, VoteYes, "")
		case e.state == stateStaying:
			c.vote(k, e.token, VoteReadOnly, "")
		case e.state == stateEnding && e.outcome == OutcomeAborted:
			c.vote(k, e.token, VoteNo, "it was aborted here")
		}
		return
	}
	if f, ok := c.finished[k]; ok && !probe.Bug("2pc: a tombstone is not looked at") {
		switch {
		case f.readOnly:
			c.vote(k, f.token, VoteReadOnly, "")
		case f.outcome == OutcomeAborted:
			probe.Sometimes("2pc: a prepare meets its tombstone", true)
			c.vote(k, f.token, VoteNo, "it was aborted here")
		}
		return
	}
	if reason := c.admit(k); reason != "" {
		c.vote(k, 0, VoteNo, reason)
		if h := c.horizons[originOf(k.id)]; h == nil || k.id.Counter >= h.floor {
			c.giveUp(&entry{key: k}) // below the floor it may have been committed, long ago
		}
		return
	}
	e := &entry{key: k, fixed: m.Fixed, mayLeave: m.MayLeave}
	e.peers = c.others(k, m.Branches)
	c.addEntry(e)
	c.call(e, Call{Kind: CallPrepare, Work: m.Work, MayLeave: m.MayLeave})
}

// others returns the participants of a transaction but for one of this node.
func (c *Core) others(k key, branches []Branch) []Branch {
	return slices.DeleteFunc(withoutWork(branches), func(b Branch) bool { return b.Node == c.cfg.Node && b.Resource == k.resource })
}

// Voted takes in what a resource answers to CallPrepare. reason says why it is a no.
func (c *Core) Voted(id ID, resource string, v Vote, reason string) {
	e := c.byKey[key{id, resource}]
	if c.err != nil || e == nil || e.state != statePreparing {
		return
	}
	e.calling = false
	switch {
	case e.doomed:
		// Whatever it says: one that is read-only may keep its locks until it is told.
		if v == VoteReadOnly && probe.Bug("2pc: a read-only participant is not told of an abort") {
			c.finish(e, OutcomeAborted, false)
			break
		}
		c.resolve(e, OutcomeAborted)
	case v == VoteReadOnly && e.one:
		// For others that is what decides.
		c.finish(e, OutcomeCommitted, len(e.peers) > 0)
		c.result(e.key, c.finished[e.key].token, OutcomeCommitted, "")
	case v == VoteReadOnly:
		e.token = c.reserveReadOnly(e.id)
		if e.mayLeave {
			c.remember(e.key, finish{readOnly: true, token: e.token})
			c.removeEntry(e)
		} else {
			e.state, e.timer, e.since = stateStaying, c.cfg.InquireTicks, c.now
		}
		c.vote(e.key, e.token, VoteReadOnly, "")
	case v == VoteYes && e.one:
		// It is the only one that decides, and has just done so.
		c.record(e, stageCommitted)
		c.result(e.key, e.token, OutcomeCommitted, "")
		c.resolve(e, OutcomeCommitted)
	case v == VoteYes:
		e.state, e.timer, e.since = statePrepared, c.cfg.InquireTicks, c.now
		if !probe.Bug("2pc: the vote leaves before its record is durable") {
			c.record(e, stagePrepared)
		} else {
			e.stage = stagePrepared
			c.write(branchKey(TagBranch, e.key), encodeBranch(e), false)
		}
		c.vote(e.key, e.token, VoteYes, "")
	default:
		if e.one {
			// It decides: the same request, should it come again after a crash, must find that.
			c.result(e.key, c.refuse(e.key, true), OutcomeAborted, reason)
		} else {
			c.vote(e.key, 0, VoteNo, reason)
		}
		c.resolve(e, OutcomeAborted)
	}
	c.settle()
}

// reserveReadOnly makes it possible to vote read-only. Of such a vote there is no record; but whoever has given
// one may not answer another participant in doubt as if it had not voted at all. So a block of transactions in which
// there may be such votes is written, now and then.
func (c *Core) reserveReadOnly(id ID) (token uint64) {
	h := c.horizon(originOf(id))
	if id.Counter >= h.readOnly && !probe.Bug("2pc: read-only votes are forgotten in a crash") {
		h.readOnly = id.Counter + readOnlyBlock
		h.token = c.writeHorizon(h, true)
	}
	return h.token
}

// record writes what a branch promises. What depends on it waits for e.token.
func (c *Core) record(e *entry, s stage) {
	e.stage = s
	e.token = c.write(branchKey(TagBranch, e.key), encodeBranch(e), true)
}

func (c *Core) result(k key, token uint64, outcome Outcome, reason string) {
	if len(reason) > MaxReasonBytes {
		reason = reason[:MaxReasonBytes]
	}
	if outcome == OutcomeCommitted {
		reason = ""
	}
	c.sendAfter(token, Message{Kind: KindResult, To: k.id.Node, ID: k.id, Resource: k.resource, Outcome: outcome, Reason: reason})
}

// onCommitOne is for the only participant of a transaction, or for its last agent.
func (c *Core) onCommitOne(k key, m Message) {
	if e := c.byKey[k]; e != nil {
		switch {
		case e.unclear && !e.calling:
			c.call(e, Call{Kind: CallOutcome})
		case e.state == stateEnding && (e.outcome == OutcomeCommitted || c.finished[k].outcome == OutcomeAborted):
			c.result(k, max(e.token, c.finished[k].token), e.outcome, "it was aborted here")
		}
		return
	}
	h := c.horizons[originOf(k.id)]
	f, over := c.finished[k]
	switch {
	case over && f.readOnly:
		c.result(k, f.token, OutcomeCommitted, "")
	case over:
		c.result(k, f.token, f.outcome, "it was aborted here")
	case h != nil && k.id.Counter < h.over:
		// A request that comes late: nobody waits for it.
	case c.ones >= c.cfg.MaxFinished && m.Floor != k.id.Counter:
		// What is begun has to be remembered. The request comes again, and by then there may be room: the oldest
		// transaction of a coordinator always has some, and when it is over, the floor rises.
	case m.Only:
		c.result(k, c.refuse(k, true), OutcomeAborted, "it had not begun in time")
	default:
		if reason := c.admit(k); reason != "" {
			// Nothing has begun, and what is refused must stay so, whenever the request comes again.
			c.result(k, c.refuse(k, true), OutcomeAborted, reason)
			return
		}
		e := &entry{key: k, one: true, mayLeave: true}
		e.peers = c.others(k, m.Branches)
		c.addEntry(e)
		if !c.cfg.OnePhase[k.resource] {
			c.call(e, Call{Kind: CallPrepare, Work: m.Work, MayLeave: true})
			return
		}
		e.state = stateStarting
		c.record(e, stageStarted)
		if probe.Bug("2pc: one phase begins without a record") {
			e.token = 0
		}
		c.call(e, Call{Kind: CallOne, Work: m.Work})
	}
}

// refuse aborts a branch that has not begun: it never will. The token is that of the record.
func (c *Core) refuse(k key, one bool) uint64 {
	token := c.write(branchKey(TagFinished, k), []byte{byte(OutcomeAborted), flags(one)}, true)
	c.remember(k, finish{outcome: OutcomeAborted, one: one, token: token})
	c.giveUp(&entry{key: k, one: one})
	return token
}

// giveUp has the resource take back what it may have done for a transaction that was not prepared.
func (c *Core) giveUp(e *entry) {
	_, here := c.cfg.OnePhase[e.resource]
	if here && c.byKey[e.key] == nil && len(c.entries) < 2*c.cfg.MaxBranches && !probe.Bug("2pc: what is refused is not given up") {
		c.addEntry(e)
		c.resolve(e, OutcomeAborted)
	}
}

// DoneOne takes in what a resource answers to CallOne or CallOutcome.
func (c *Core) DoneOne(id ID, resource string, outcome Outcome, reason string) {
	e := c.byKey[key{id, resource}]
	if c.err != nil || e == nil || e.state != stateStarting {
		return
	}
	e.calling, e.unclear, e.failure = false, outcome == OutcomeUnknown, reason
	c.result(e.key, 0, outcome, reason)
	if outcome == OutcomeUnknown {
		e.timer = c.cfg.ResendTicks
	} else {
		c.finish(e, outcome, false)
	}
	c.settle()
}

func (c *Core) onOutcome(k key, m Message) {
	e := c.byKey[k]
	if e != nil {
		c.learn(e, m.Outcome)
		return
	}
	f, over := c.finished[k]
	h := c.horizons[originOf(k.id)]
	below := h != nil && k.id.Counter < h.floor
	switch {
	case m.Outcome == OutcomeCommitted:
		ack := Message{Kind: KindAck, To: m.From, ID: k.id, Resource: k.resource}
		switch {
		case over && f.outcome == OutcomeAborted:
			ack.Damage = Aborted
		case !over && !below:
			// It has voted yes, says the coordinator, and the record of that is gone.
			ack.Damage = Forgotten
		}
		token := f.token
		if !over {
			// That it is over may stand in no record of its own, if the floor was raised over it; but the deletion of
			// the one that says that it is not must be durable.
			token = c.newest()
			if probe.Bug("2pc: what is below the floor is acknowledged at once") {
				token = 0
			}
		}
		c.sendAfter(token, ack)
	case m.Outcome == OutcomeAborted && !over && !below:
		// Afterwards there is a tombstone.
		c.giveUp(&entry{key: k, told: true})
	}
}

// learn takes in the outcome of a branch that is here.
func (c *Core) learn(e *entry, outcome Outcome) {
	if !e.one && outcome != OutcomeUnknown {
		e.told = true
	}
	switch {
	case outcome == OutcomeUnknown || e.one:
	case e.state == statePreparing:
		e.doomed = e.doomed || outcome == OutcomeAborted
	case e.state == stateStaying:
		c.resolve(e, outcome)
	case e.state == statePrepared && e.heuristic == OutcomeUnknown:
		c.resolve(e, outcome)
	case e.state == statePrepared && !e.calling:
		// An operator has decided before.
		if e.heuristic != outcome {
			d := Aborted
			if outcome == OutcomeAborted {
				d = Committed
			}
			c.hurt(e, d)
		}
		c.finish(e, outcome, true)
	}
}

// hurt records that this branch did not do what was decided. The record is durable before anybody is told.
func (c *Core) hurt(e *entry, d Damage) {
	probe.Sometimes("2pc: damage is recorded", true)
	e.damage = d
	e.token = max(e.token, c.damage(Report{ID: e.id, Node: c.cfg.Node, Resource: e.resource, Damage: d}))
}

// resolve has the resource do what was decided.
func (c *Core) resolve(e *entry, outcome Outcome) {
	e.state, e.outcome = stateEnding, outcome
	kind := CallCommit
	if outcome == OutcomeAborted {
		kind = CallAbort
	}
	c.call(e, Call{Kind: kind})
}

// Done takes in how CallCommit or CallAbort ended. failure: not at all, ask again. A heuristic outcome is what the
// resource has done of its own accord before.
func (c *Core) Done(id ID, resource string, heuristic Outcome, failure string) {
	e := c.byKey[key{id, resource}]
	if c.err != nil || e == nil || !e.calling {
		return
	}
	e.calling, e.failure = false, failure
	switch {
	case failure != "":
		e.timer = c.cfg.ResendTicks
	case e.state == statePrepared && e.heuristic != OutcomeUnknown:
		// What an operator decided is done. The outcome is still to come.
		if heuristic != OutcomeUnknown {
			e.heuristic = heuristic
		}
	case e.state == stateEnding:
		if heuristic != OutcomeUnknown && heuristic != e.outcome {
			d := Aborted
			if heuristic == OutcomeCommitted {
				d = Committed
			}
			c.hurt(e, d)
		}
		c.finish(e, e.outcome, false)
	}
	c.settle()
}

// finish ends a branch whose resource is done with it. That it is, is written with whatever is written next:
// until then a crash only has it asked again.
func (c *Core) finish(e *entry, outcome Outcome, forced bool) {
	if e.stage != 0 {
		c.erase(branchKey(TagBranch, e.key))
	}
	token := e.token
	if c.remembers(c.horizons[originOf(e.id)], e.key, e.one) {
		token = c.write(branchKey(TagFinished, e.key), []byte{byte(outcome), flags(e.one, e.told)}, forced || e.damage != NoDamage)
	} else if e.stage != 0 {
		// With the record of the branch goes all that is known of it but the floor.
		token = c.next
		if !probe.Bug("2pc: a floor that stands for a record is not written") {
			c.writeHorizon(c.horizon(originOf(e.id)), false)
		}
	}
	c.remember(e.key, finish{outcome: outcome, one: e.one, told: e.told, token: token})
	c.removeEntry(e)
	if outcome == OutcomeCommitted && !e.one {
		if probe.Bug("2pc: the acknowledgement leaves before its record is durable") {
			token = 0
		}
		c.sendAfter(token, Message{Kind: KindAck, To: e.id.Node, ID: e.id, Resource: e.resource, Damage: e.damage})
	}
}

func (c *Core) tickEntry(e *entry) {
	if e.inDoubt() {
		e.age++
	}
	e.timer--
	if e.timer > 0 || e.calling {
		return
	}
	switch e.state {
	case statePrepared, stateStaying:
		e.timer = c.cfg.InquireTicks
		if e.heuristic != OutcomeUnknown && e.failure != "" {
			c.resolveHeuristic(e)
			return
		}
		if probe.Bug("2pc: a participant in doubt aborts alone") && e.age >= c.cfg.PeerTicks {
			c.learn(e, OutcomeAborted)
			return
		}
		c.send(Message{Kind: KindInquire, To: e.id.Node, ID: e.id, Resource: e.resource})
		if e.age >= c.cfg.PeerTicks {
			for _, p := range e.peers {
				c.send(Message{Kind: KindInquire, To: p.Node, ID: e.id, Resource: e.resource, Peer: p.Resource})
			}
		}
		if c.cfg.TakeOverTicks > 0 && e.age >= c.cfg.TakeOverTicks && !e.fixed && !e.proposed && e.state == statePrepared {
			e.proposed = true
			all := append([]Branch{{Node: c.cfg.Node, Resource: e.resource}}, e.peers...)
			c.ready.Decide = append(c.ready.Decide, Decision{ID: e.id, Outcome: OutcomeAborted, Branches: all})
		}
	case stateStarting:
		// A resource that cannot tell is asked again: it may have been out of reach.
		c.call(e, Call{Kind: CallOutcome})
	case stateEnding:
		c.resolve(e, e.outcome)
	}
}

// verdict takes in what the decision log says to a participant that is in doubt.
func (c *Core) verdict(e *entry, v Verdict) {
	e.proposed = false
	switch v {
	case VerdictCommitted:
		c.learn(e, OutcomeCommitted)
	case VerdictAborted:
		c.learn(e, OutcomeAborted)
	case VerdictForgotten:
		// A commit is forgotten only after every acknowledgement, and this branch has not sent its own.
		c.learn(e, OutcomeAborted)
	}
}

func (c *Core) onAnswer(m Message) {
	e := c.byKey[key{m.ID, m.Resource}]
	if e == nil || !e.inDoubt() {
		return
	}
	if m.Peer == "" {
		if m.From != m.ID.Node {
			return
		}
		e.heard, e.silent = true, m.Knowledge
	} else if !slices.ContainsFunc(e.peers, func(b Branch) bool { return b.Node == m.From && b.Resource == m.Peer }) {
		return
	}
	if m.Knowledge == Decided && m.Outcome != OutcomeUnknown {
		probe.Sometimes("2pc: another participant knows the outcome", m.Peer != "")
		c.learn(e, m.Outcome)
	}
}

// onPeerInquire answers another participant that is in doubt.
func (c *Core) onPeerInquire(m Message) {
	k := key{m.ID, m.Peer}
	a := Message{Kind: KindAnswer, To: m.From, ID: m.ID, Resource: m.Resource, Peer: m.Peer}
	h := c.horizons[originOf(m.ID)]
	var token uint64
	e := c.byKey[k]
	f, over := c.finished[k]
	switch {
	case e != nil && e.state == stateEnding && (e.told || e.outcome == OutcomeCommitted):
		a.Outcome, token = e.outcome, e.token
	case e != nil:
		a.Knowledge = Undecided
	case over && f.readOnly:
		a.Knowledge = Ignorant
	case over && f.outcome == OutcomeAborted && !f.told && h != nil && m.ID.Counter < h.doubtful && !probe.Bug("2pc: a no is told that comes after a forgotten read-only vote"):
		// An earlier run may have voted read-only, and the others been committed since: then the request came again, and this run
		// said no, which nobody counted.
		a.Knowledge = Ignorant
	case over:
		// What it has decided alone must be durable before another one relies on it.
		a.Outcome, token = f.outcome, f.token
		if token == c.next && !probe.Bug("2pc: an abort that is not durable is told to others") {
			c.forced = true
		} else if token == c.next {
			token = 0
		}
	case h != nil && (m.ID.Counter < h.floor || m.ID.Counter < h.doubtful) && !probe.Bug("2pc: ignorance is taken for a no"):
		a.Knowledge = Ignorant
	default:
		// It has not voted, and now it never will.
		probe.Sometimes("2pc: a participant that has not voted lets another one abort", true)
		a.Outcome, token = OutcomeAborted, c.refuse(k, false)
	}
	c.sendAfter(token, a)
}

// Force is an operator's decision of a branch that is in doubt. If it turns out to be wrong, that is recorded.
func (c *Core) Force(id ID, resource string, outcome Outcome) error {
	if c.err != nil {
		return c.err
	}
	e := c.byKey[key{id, resource}]
	if e == nil || e.state != statePrepared || e.heuristic != OutcomeUnknown || outcome == OutcomeUnknown {
		return fmt.Errorf("%w: resource %q has no prepared branch of transaction %v that waits", ErrNotInDoubt, resource, id)
	}
	e.heuristic = outcome
	c.record(e, stagePrepared)
	c.resolveHeuristic(e)
	return nil
}

func (c *Core) resolveHeuristic(e *entry) {
	kind := CallCommit
	if e.heuristic == OutcomeAborted {
		kind = CallAbort
	}
	c.call(e, Call{Kind: kind})
}
