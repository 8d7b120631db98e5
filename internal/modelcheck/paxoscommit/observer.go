package paxoscommit

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
)

// Facts.
type (
	// wrote: a group has voted.
	wrote struct {
		ID        core.ID
		Group     uint32
		Vote      core.Vote
		Timestamp uint64
	}
	// learned: a group knows an outcome, and has let go of what was locked.
	learned struct {
		ID        core.ID
		Group     uint32
		Outcome   core.Outcome
		Timestamp uint64
	}
	// told: a group was told that all know the outcome.
	told struct {
		ID    core.ID
		Group uint32
	}
	// forgot: a group has no record any more.
	forgot struct {
		ID    core.ID
		Group uint32
	}
	// answered: whoever has asked for a commit is told.
	answered struct {
		ID        core.ID
		Outcome   core.Outcome
		Timestamp uint64
	}
	// contradicted: a group has heard of an outcome that is not the one that it knows, or can't be, and reports that.
	contradicted struct {
		ID      core.ID
		Group   uint32
		Outcome core.Outcome
	}
)

// history is what is known of a transaction.
type history struct {
	votes     []core.Vote // by group of the model
	voted     []uint64    // at which timestamp
	outcomes  []core.Outcome
	over      bool // a group was told that all know the outcome, or has forgotten it
	answer    core.Outcome
	timestamp uint64 // of the commit, as somebody knows it
}

// observer knows what all groups have done.
type observer struct {
	m       *Model
	history []history // by transaction of the model
}

func newObserver(m *Model) *observer { return &observer{m: m} }

// Clone implements network.Observer.
func (o *observer) Clone() network.Observer {
	c := &observer{m: o.m, history: slices.Clone(o.history)}
	for i := range c.history {
		h := &c.history[i]
		h.votes, h.voted, h.outcomes = slices.Clone(h.votes), slices.Clone(h.voted), slices.Clone(h.outcomes)
	}
	return c
}

// Fingerprint implements network.Observer.
func (o *observer) Fingerprint(b []byte) []byte {
	for i := range o.history {
		h := &o.history[i]
		for g := range h.votes {
			b = binary.AppendUvarint(append(b, byte(h.votes[g]), byte(h.outcomes[g])), h.voted[g])
		}
		b = binary.AppendUvarint(append(b, bit(h.over), byte(h.answer)), h.timestamp)
	}
	return b
}

func (o *observer) of(id core.ID) *history {
	i := o.m.index(id)
	for len(o.history) <= i {
		n := o.m.Groups
		o.history = append(o.history, history{votes: make([]core.Vote, n), voted: make([]uint64, n), outcomes: make([]core.Outcome, n)})
	}
	return &o.history[i]
}

// unresolved returns a group that has voted yes and does not know the outcome; 0: there is none.
func (h *history) unresolved() uint32 {
	for g, v := range h.votes {
		if v == core.Yes && h.outcomes[g] == core.Unknown {
			return uint32(g + 1)
		}
	}
	return 0
}

// needed returns a group that has voted yes and needs to be told the outcome by somebody who knows it; 0: there is none. Where a group may be
// full it may not have been able to remember an abort, and vote yes later: whoever meets that is told of an abort by those who have forgotten it,
// as they would be of nothing else.
func (o *observer) needed(id core.ID, h *history) uint32 {
	if yes, _ := o.all(id, h); !yes && o.m.Full > 0 {
		return 0
	}
	return h.unresolved()
}

// all returns whether all groups have voted yes, and the timestamp at which they commit.
func (o *observer) all(id core.ID, h *history) (yes bool, timestamp uint64) {
	for _, g := range o.m.Transactions[o.m.index(id)].Groups {
		if h.votes[g-1] != core.Yes {
			return false, 0
		}
		timestamp = max(timestamp, h.voted[g-1])
	}
	return true, timestamp
}

// held says what is wrong with what is known of a transaction.
func (o *observer) held(id core.ID, h *history) error {
	yes, timestamp := o.all(id, h)
	is := func(outcome core.Outcome) bool { return h.answer == outcome || slices.Contains(h.outcomes, outcome) }
	switch {
	case is(core.Committed) && is(core.Aborted):
		return fmt.Errorf("transaction %s: it is committed, and aborted", shorten(id))
	case is(core.Committed) && !yes:
		return fmt.Errorf("transaction %s: it is committed, and not all have voted yes", shorten(id))
	case is(core.Aborted) && yes:
		return fmt.Errorf("transaction %s: it is aborted, and all have voted yes", shorten(id))
	case h.timestamp != 0 && h.timestamp != timestamp:
		return fmt.Errorf("transaction %s: it is committed at %d, and the highest vote is at %d", shorten(id), h.timestamp, timestamp)
	}
	return nil
}

// commit takes in the timestamp of a commit.
func (h *history) commit(id core.ID, outcome core.Outcome, timestamp uint64) error {
	if outcome != core.Committed {
		return nil
	}
	if h.timestamp != 0 && h.timestamp != timestamp {
		return fmt.Errorf("transaction %s: it is committed at %d, and was at %d", shorten(id), timestamp, h.timestamp)
	}
	h.timestamp = timestamp
	return nil
}

// Observe implements network.Observer.
func (o *observer) Observe(fact any) error {
	switch f := fact.(type) {
	case wrote:
		h := o.of(f.ID)
		switch {
		case h.votes[f.Group-1] != core.None:
			return fmt.Errorf("transaction %s: group %d votes %s, and had voted %s before it forgot that", shorten(f.ID), f.Group, f.Vote, h.votes[f.Group-1])
		case h.over && f.Vote == core.Yes && o.m.Full == 0: // see needed
			return fmt.Errorf("transaction %s: group %d votes yes, and it is over", shorten(f.ID), f.Group)
		}
		h.votes[f.Group-1], h.voted[f.Group-1] = f.Vote, f.Timestamp
		return o.held(f.ID, h)
	case learned:
		h := o.of(f.ID)
		if was := h.outcomes[f.Group-1]; was != core.Unknown && was != f.Outcome {
			return fmt.Errorf("transaction %s: group %d learns that it is %s, and knew that it is %s", shorten(f.ID), f.Group, f.Outcome, was)
		}
		h.outcomes[f.Group-1] = f.Outcome
		if err := h.commit(f.ID, f.Outcome, f.Timestamp); err != nil {
			return err
		}
		return o.held(f.ID, h)
	case told:
		h := o.of(f.ID)
		if g := o.needed(f.ID, h); g != 0 {
			return fmt.Errorf("transaction %s: group %d is told that all know the outcome, and group %d does not", shorten(f.ID), f.Group, g)
		}
		h.over = true
	case forgot:
		h := o.of(f.ID)
		if g := o.needed(f.ID, h); g != 0 {
			return fmt.Errorf("transaction %s: group %d forgets it, and group %d has voted yes and does not know the outcome", shorten(f.ID), f.Group, g)
		}
		h.over = true
	case answered:
		h := o.of(f.ID)
		h.answer = f.Outcome
		if err := h.commit(f.ID, f.Outcome, f.Timestamp); err != nil {
			return err
		}
		return o.held(f.ID, h)
	case contradicted:
		return fmt.Errorf("transaction %s: group %d reports a contradiction, since it hears that it is %s", shorten(f.ID), f.Group, f.Outcome)
	}
	return nil
}
