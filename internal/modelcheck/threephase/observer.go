package threephase

import (
	"fmt"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// Facts.
type (
	// done: the resource of a node has committed, or aborted. Those that vote no or read-only have nothing to abort.
	done struct {
		Node uint64
		What twophase.Outcome
	}
	// answered: whoever asked for the commit is told the outcome.
	answered struct{ What twophase.Outcome }
)

// observer holds a run against what atomic commitment promises: all that do something do the same, and as the caller is told; and
// nobody commits unless all have voted to.
type observer struct {
	m       *Model
	outcome twophase.Outcome
}

var _ network.Observer = (*observer)(nil)

// Clone implements network.Observer.
func (o *observer) Clone() network.Observer {
	c := *o
	return &c
}

// Fingerprint implements network.Observer.
func (o *observer) Fingerprint(b []byte) []byte { return append(b, byte(o.outcome)) }

// Observe implements network.Observer.
func (o *observer) Observe(fact any) error {
	var what twophase.Outcome
	who := "the caller is told"
	switch f := fact.(type) {
	case done:
		what, who = f.What, fmt.Sprintf("node %d has", f.Node)
	case answered:
		what = f.What
	}
	if what == twophase.OutcomeCommitted && len(o.m.No) > 0 {
		return fmt.Errorf("%s committed, and node %d votes no", who, o.m.No[0])
	}
	if o.outcome != twophase.OutcomeUnknown && o.outcome != what {
		return fmt.Errorf("split: %s %v, others %v", who, what, o.outcome)
	}
	o.outcome = what
	return nil
}
