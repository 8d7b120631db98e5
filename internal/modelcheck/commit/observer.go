package commit

import (
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// Facts.
type (
	// begun: a transaction of the model is to be committed.
	begun struct {
		ID     twophase.ID
		Number int
	}
	// did: a resource has done something for a transaction, durably.
	did struct {
		ID       twophase.ID
		Node     uint64
		Resource string
		What     status
	}
	// left: a resource that has nothing to commit has let go of what it had locked.
	left struct {
		ID       twophase.ID
		Node     uint64
		Resource string
	}
	// forced: an operator decides.
	forced struct {
		ID       twophase.ID
		Node     uint64
		Resource string
	}
	// decided: a decision stands in the register of a transaction.
	decided struct {
		ID      twophase.ID
		Outcome twophase.Outcome
	}
	// forgot: the register of a transaction is gone.
	forgot struct{ ID twophase.ID }
	// answered: whoever has asked for a commit is told.
	answered struct {
		ID      twophase.ID
		Outcome twophase.Outcome
	}
	// said: a node tells another one of an outcome.
	said struct {
		ID       twophase.ID
		Node     uint64
		Outcome  twophase.Outcome
		To       uint64
		Resource string // of the participant that is told
	}
)

// status is what a resource has done for a transaction last.
type status uint8

const (
	untouched status = iota
	prepared
	committed
	aborted
	readOnly
)

func (s status) String() string {
	return [...]string{"nothing", "prepared", "committed", "aborted", "read-only"}[s]
}

// history is what is known of a transaction.
type history struct {
	id        twophase.ID
	number    int
	branches  []status
	forced    []bool
	winner    twophase.Outcome
	answer    twophase.Outcome
	answered  bool
	committed bool // somebody was told so
	aborted   bool
}

// observer knows what all nodes have done, durably or for others to see.
type observer struct {
	m       *Model
	history []*history // in the order in which they began
}

var _ network.Observer = (*observer)(nil)

// Clone implements network.Observer.
func (o *observer) Clone() network.Observer {
	c := &observer{m: o.m}
	for _, h := range o.history {
		n := *h
		n.branches = slices.Clone(h.branches)
		n.forced = slices.Clone(h.forced)
		c.history = append(c.history, &n)
	}
	return c
}

// Fingerprint implements network.Observer.
func (o *observer) Fingerprint(b []byte) []byte {
	flag := func(f bool) byte {
		if f {
			return 1
		}
		return 0
	}
	for _, h := range o.history {
		b = twophase.AppendID(b, h.id)
		b = append(b, byte(h.number), byte(h.winner), byte(h.answer), flag(h.answered), flag(h.committed), flag(h.aborted))
		for i, s := range h.branches {
			b = append(b, byte(s), flag(h.forced[i]))
		}
	}
	return b
}

func (o *observer) of(id twophase.ID) *history {
	i := slices.IndexFunc(o.history, func(h *history) bool { return h.id == id })
	if i < 0 {
		return nil
	}
	return o.history[i]
}

// parts returns the branches that a transaction was begun with.
func (o *observer) parts(h *history) []twophase.Branch { return o.m.Transactions[h.number].Branches }

// decides returns the branch whose resource decides: the only one, or the last agent; -1: none.
func (o *observer) decides(h *history) int {
	parts := o.parts(h)
	if len(parts) == 1 {
		return 0
	}
	return slices.IndexFunc(parts, func(b twophase.Branch) bool { return b.LastAgent })
}

// which returns a branch for which a condition holds, as text; "": none. Those that an operator has decided do not count.
func (o *observer) which(h *history, is func(i int, s status) bool) string {
	for i, b := range o.parts(h) {
		if !h.forced[i] && is(i, h.branches[i]) {
			return b.String()
		}
	}
	return ""
}

// mayCommit says why a transaction can't be committed yet; "": it can. Those that can prepare have, and nobody has aborted.
func (o *observer) mayCommit(h *history, but int) string {
	if who := o.which(h, func(i int, s status) bool { return i != but && s != prepared && s != committed && s != readOnly }); who != "" {
		return fmt.Sprintf("%s has not prepared", who)
	}
	return ""
}

// isCommitted says why a transaction is not committed yet; "": it is, and always will be.
func (o *observer) isCommitted(h *history) string {
	if why := o.mayCommit(h, -1); why != "" {
		return why
	}
	agent := o.decides(h)
	yes := o.which(h, func(_ int, s status) bool { return s != readOnly })
	switch {
	case h.winner == twophase.OutcomeCommitted:
	case agent >= 0: // it has prepared or committed, says mayCommit
	case yes != "":
		return fmt.Sprintf("it is not decided, and %s has prepared", yes)
	}
	return ""
}

// notAborted says why a transaction was not aborted; "": it was, or can be.
func (o *observer) notAborted(h *history) string {
	switch who := o.which(h, func(_ int, s status) bool { return s == committed }); {
	case who != "":
		return fmt.Sprintf("%s has committed it", who)
	case h.winner == twophase.OutcomeCommitted:
		return "it is decided that it is committed"
	case h.answer == twophase.OutcomeCommitted:
		return "the answer was that it is committed"
	case h.committed:
		return "somebody was told that it is committed"
	}
	return ""
}

// notCommitted says why a transaction was not committed; "": it was, or can be.
func (o *observer) notCommitted(h *history) string {
	switch who := o.which(h, func(_ int, s status) bool { return s == aborted }); {
	case who != "":
		return fmt.Sprintf("%s has aborted it", who)
	case h.winner == twophase.OutcomeAborted:
		return "it is decided that it is aborted"
	case h.answer == twophase.OutcomeAborted:
		return "the answer was that it is aborted"
	case h.aborted:
		return "somebody was told that it is aborted"
	}
	return ""
}

// held returns what is wrong with an outcome; "": nothing.
func (o *observer) held(h *history, outcome twophase.Outcome) string {
	switch outcome {
	case twophase.OutcomeCommitted:
		if why := o.notCommitted(h); why != "" {
			return why
		}
		return o.isCommitted(h)
	case twophase.OutcomeAborted:
		return o.notAborted(h)
	}
	return ""
}

// Observe implements network.Observer.
func (o *observer) Observe(fact any) error {
	violated := func(id twophase.ID, format string, args ...any) error {
		return fmt.Errorf("transaction %s: "+format, append([]any{shorten(id)}, args...)...)
	}
	switch f := fact.(type) {
	case begun:
		n := len(o.m.Transactions[f.Number].Branches)
		o.history = append(o.history, &history{id: f.ID, number: f.Number, branches: make([]status, n), forced: make([]bool, n)})
	case forced:
		if h, i := o.branch(f.ID, f.Node, f.Resource); h != nil {
			h.forced[i] = true
		}
	case left:
		h, i := o.branch(f.ID, f.Node, f.Resource)
		if h == nil {
			break
		}
		// Whoever is given work takes locks: nobody lets go before all have theirs.
		taking := o.which(h, func(k int, s status) bool { return k != i && s == untouched && len(o.parts(h)[k].Work) > 0 })
		if taking != "" {
			return violated(f.ID, "%s releases its locks, and %s still takes some", o.parts(h)[i], taking)
		}
	case did:
		h, i := o.branch(f.ID, f.Node, f.Resource)
		if h == nil {
			return violated(f.ID, "node %d has %s it with %q, which has no part in it", f.Node, f.What, f.Resource)
		}
		h.branches[i] = f.What
		if h.forced[i] {
			return nil
		}
		name := o.parts(h)[i].String()
		switch f.What {
		case committed:
			agent := o.decides(h)
			if why := o.notCommitted(h); why != "" {
				return violated(f.ID, "%s commits it, and %s", name, why)
			}
			if why := o.mayCommit(h, i); why != "" {
				return violated(f.ID, "%s commits it, and %s", name, why)
			}
			h.branches[i] = prepared // so it was before
			why := o.isCommitted(h)
			if h.branches[i] = committed; i != agent && why != "" {
				return violated(f.ID, "%s commits it, and %s", name, why)
			}
		case aborted:
			if why := o.notAborted(h); why != "" {
				return violated(f.ID, "%s aborts it, and %s", name, why)
			}
		}
	case decided:
		h := o.of(f.ID)
		if h == nil {
			return violated(f.ID, "it is decided, and was never begun")
		}
		if h.winner != twophase.OutcomeUnknown && h.winner != f.Outcome {
			return violated(f.ID, "it is decided that it is %s, and it was that it is %s", f.Outcome, h.winner)
		}
		h.winner = f.Outcome
		if why := o.held(h, f.Outcome); why != "" {
			return violated(f.ID, "it is decided that it is %s, and %s", f.Outcome, why)
		}
	case forgot:
		h := o.of(f.ID)
		if h == nil || h.winner != twophase.OutcomeCommitted {
			return nil
		}
		if who := o.which(h, func(_ int, s status) bool { return s != committed && s != readOnly }); who != "" {
			return violated(f.ID, "it was decided that it is committed, and that is forgotten before %s has committed it", who)
		}
	case answered:
		h := o.of(f.ID)
		if h == nil || h.answered {
			return violated(f.ID, "it is answered twice, or was never begun")
		}
		h.answered = true
		if why := o.held(h, f.Outcome); why != "" {
			return violated(f.ID, "the answer is that it is %s, and %s", f.Outcome, why)
		}
		h.answer = f.Outcome
	case said:
		h := o.of(f.ID)
		if h == nil {
			return violated(f.ID, "node %d says that it is %s, and it was never begun", f.Node, f.Outcome)
		}
		if o.which(h, func(_ int, s status) bool { return s != readOnly }) == "" {
			return nil // nobody has anything to commit: it is all the same
		}
		if x, i := o.branch(f.ID, f.To, f.Resource); x != nil && (h.branches[i] == committed || h.branches[i] == readOnly || h.forced[i]) {
			// It is over there, and what was asked comes late, or it has nothing to commit: who knows nothing any more
			// presumes an abort.
			return nil
		}
		if why := o.held(h, f.Outcome); why != "" {
			return violated(f.ID, "node %d says that it is %s, and %s", f.Node, f.Outcome, why)
		}
		switch f.Outcome {
		case twophase.OutcomeCommitted:
			h.committed = true
		case twophase.OutcomeAborted:
			h.aborted = true
		}
	}
	return nil
}

// branch returns a transaction and which of its branches one is.
func (o *observer) branch(id twophase.ID, node uint64, resource string) (*history, int) {
	h := o.of(id)
	if h == nil {
		return nil, 0
	}
	i := slices.IndexFunc(o.parts(h), func(b twophase.Branch) bool { return b.Node == node && b.Resource == resource })
	if i < 0 {
		return nil, 0
	}
	return h, i
}
