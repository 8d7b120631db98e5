//synod:core

package twophase

// Doubt is a branch that waits for an outcome.
type Doubt struct {
	ID        ID
	Resource  string
	Since     int64 // nanoseconds since 1970
	Heard     bool  // the coordinator has answered in this run, and said Answer
	Answer    Knowledge
	Peers     []Branch
	Heuristic Outcome // what an operator decided
	Staying   bool    // it is read-only, and only keeps its locks
}

// InDoubt returns the branches that are in doubt, in the order in which they came.
func (c *Core) InDoubt() []Doubt {
	var list []Doubt
	for _, e := range c.entries {
		if e.inDoubt() {
			list = append(list, Doubt{ID: e.id, Resource: e.resource, Since: e.since, Heard: e.heard, Answer: e.silent,
				Peers: withoutWork(e.peers), Heuristic: e.heuristic, Staying: e.state == stateStaying})
		}
	}
	return list
}

// Stuck is a branch whose resource does not do what it is asked.
type Stuck struct {
	ID       ID
	Resource string
	Outcome  Outcome // unknown: it does not say how a commit in one phase ended
	Failure  string
}

// Stuck returns the branches whose resources have failed, and are asked again.
func (c *Core) Stuck() []Stuck {
	var list []Stuck
	for _, e := range c.entries {
		if e.failure != "" || e.unclear {
			o := e.outcome
			if e.heuristic != OutcomeUnknown {
				o = e.heuristic
			}
			list = append(list, Stuck{e.id, e.resource, o, e.failure})
		}
	}
	return list
}

// Waiting is a transaction of this node that is not over.
type Waiting struct {
	ID      ID
	Phase   string
	Missing []Branch // who has not voted, or not acknowledged
	Unclear bool     // the last agent cannot tell: it waits for an operator
}

// Transactions returns the transactions of this node that are not over, ascending.
func (c *Core) Transactions() []Waiting {
	var list []Waiting
	for _, t := range c.transactions {
		w := Waiting{ID: t.id, Phase: t.phase.String(), Unclear: t.unclear}
		w.Missing = t.branches(func(i int, p *part) bool {
			switch t.phase {
			case phasePreparing:
				return p.vote == 0 && i != t.last
			case phaseCommitting:
				return p.vote == VoteYes && !p.acked && i != t.last
			case phaseDelegated, phaseAlone:
				return i == t.last
			}
			return false
		})
		list = append(list, w)
	}
	return list
}

// Busy reports whether time has to pass for something to go on.
func (c *Core) Busy() bool {
	return c.err == nil && (len(c.transactions) > 0 || len(c.entries) > 0 || c.batch.Len() > 0 || len(c.over) > 0)
}
