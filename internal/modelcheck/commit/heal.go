package commit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// rounds is after how many ticks without a failure everything must be over.
const rounds = 40

// heals reports whether everything ends, from a state on, once nothing fails any more: all that was on its way is lost, what
// is sent from here on arrives, once and in its order, all nodes run, time passes everywhere, resources do what they are asked, and
// new work says yes if it can. In the end nobody is in doubt, no resource holds anything, and no local log remembers a commit (a
// shared one does, if it was told to forget it before, and that was lost: the runtime repeats it); and on the way there all must
// be right that must be right always. Where the log is shared all but the last is asked without the coordinator, too.
func (m *Model) heals(nodes []network.Node, o network.Observer) error {
	return m.healsAloud(nodes, o, nil)
}

// healsAloud prints what happens, if text is not nil.
func (m *Model) healsAloud(nodes []network.Node, o network.Observer, text *strings.Builder) error {
	err := m.healing(nodes, o, text, nil).run()
	if err != nil {
		return fmt.Errorf("healed: %w", err)
	}
	// With a shared log nobody waits for a coordinator, either.
	gone := m.away()
	if len(gone) == 0 {
		return nil
	}
	if text != nil {
		text.Reset()
		fmt.Fprintf(text, "(nodes (%s) never run again)\n", network.List(gone))
	}
	if err := m.healing(nodes, o, text, gone).run(); err != nil {
		return fmt.Errorf("healed without the coordinator: %w", err)
	}
	return nil
}

// away returns the nodes without which everything must end: coordinators, where the decision log is shared, that have no part
// in a transaction themselves.
func (m *Model) away() (gone []uint64) {
	for node := range uint64(m.Nodes) {
		part := slices.ContainsFunc(m.Transactions, func(t Transaction) bool {
			return slices.ContainsFunc(t.Branches, func(b twophase.Branch) bool { return b.Node == node+1 })
		})
		if m.Shared && !part && m.coordinates(node+1) {
			gone = append(gone, node+1)
		}
	}
	return gone
}

func (m *Model) healing(nodes []network.Node, o network.Observer, text *strings.Builder, gone []uint64) *healing {
	h := &healing{m: m, observer: o.Clone(), text: text, gone: gone}
	for i := range nodes {
		if n, ok := nodes[i].Clone().(*node); ok {
			h.nodes = append(h.nodes, n)
		} else {
			h.log = nodes[i].Clone()
		}
	}
	return h
}

type healing struct {
	m        *Model
	nodes    []*node
	log      network.Node
	observer network.Observer
	net      []network.Waiting
	text     *strings.Builder
	gone     []uint64 // these never run again
}

func (h *healing) runs(n *node) bool { return !slices.Contains(h.gone, n.id) }

// step takes a step of a node, and takes over what comes of it.
func (h *healing) step(from int, fn func(out *network.Output)) error {
	var out network.Output
	if from < len(h.nodes) {
		h.nodes[from].attempt(&out, func() { fn(&out) })
	} else {
		fn(&out)
	}
	if h.text != nil {
		tell(h.text, h.m, from, &out)
	}
	for _, f := range out.Facts {
		if err := h.observer.Observe(f); err != nil {
			return err
		}
	}
	for _, x := range out.Messages {
		h.net = append(h.net, network.Waiting{From: from, To: x.To, Body: x.Body})
	}
	return out.Violation
}

func (h *healing) run() error {
	for i, n := range h.nodes {
		if !h.runs(n) {
			continue
		}
		err := h.step(i, func(out *network.Output) {
			if n.core == nil {
				n.start(out) // it asks the decision log again, as a later run
				return
			}
			for len(n.asked) > 0 {
				n.timeout(n.asked[0], out)
			}
		})
		if err != nil {
			return err
		}
	}
	lost := false
	for _, n := range h.nodes {
		lost = lost || n.lost > 0
	}
	for range rounds {
		if err := h.settle(); err != nil {
			return err
		}
		if h.idle() && !lost {
			return h.over()
		}
		if h.text != nil {
			h.text.WriteString("tick\n")
		}
		for i, n := range h.nodes {
			if n.core == nil || !h.runs(n) {
				continue
			}
			if err := h.step(i, n.tick); err != nil {
				return err
			}
		}
	}
	if lost {
		return nil // that nobody is wrong is all that can be asked for
	}
	return h.stuck()
}

// settle does all that can be done without time.
func (h *healing) settle() error {
	for {
		busy := false
		for i, n := range h.nodes {
			for n.core != nil && h.runs(n) && len(n.writes)+len(n.calls) > 0 {
				busy = true
				err := h.step(i, func(out *network.Output) {
					if len(n.writes) > 0 {
						n.persist(out)
					} else {
						n.call(0, n.answersTo(n.calls[0])[0], out)
					}
				})
				if err != nil {
					return err
				}
			}
		}
		if len(h.net) == 0 {
			if !busy {
				return nil
			}
			continue
		}
		x := h.net[0]
		h.net = h.net[1:]
		if h.text != nil {
			fmt.Fprintf(h.text, "%s\n", x.Show(h.m.Describe))
		}
		if x.To < len(h.nodes) && !h.runs(h.nodes[x.To]) {
			continue
		}
		err := h.step(x.To, func(out *network.Output) {
			if x.To < len(h.nodes) {
				h.nodes[x.To].deliver(uint64(x.From+1), x.Body, out)
			} else {
				h.log.Deliver(x.From, x.Body, false, out)
			}
		})
		if err != nil {
			return err
		}
	}
}

func (h *healing) idle() bool {
	for _, n := range h.nodes {
		if h.runs(n) && (n.core == nil || n.core.Busy() || len(n.asked) > 0) {
			return false
		}
	}
	return true
}

// over looks whether everything is.
func (h *healing) over() error {
	for _, n := range h.nodes {
		for _, b := range n.branches {
			if b.status == prepared || b.staying {
				return fmt.Errorf("all is over, and %d/%s still holds what transaction %s has locked", n.id, b.resource, shorten(b.id))
			}
		}
		if err := h.remembers(n.register); err != nil {
			return fmt.Errorf("node %d %w", n.id, err)
		}
	}
	return h.observer.(*observer).over(h.nodes)
}

func (h *healing) remembers(r register) error {
	for _, d := range r.decisions() {
		if d.Outcome == twophase.OutcomeCommitted {
			return fmt.Errorf("remembers transaction %s, which is over", shorten(d.ID))
		}
	}
	return nil
}

// stuck says what does not end.
func (h *healing) stuck() error {
	for _, n := range h.nodes {
		if !h.runs(n) {
			continue
		}
		if n.core == nil {
			return fmt.Errorf("node %d does not start", n.id)
		}
		for _, d := range n.core.InDoubt() {
			return fmt.Errorf("node %d is in doubt about transaction %s, %s, for ever", n.id, shorten(d.ID), d.Resource)
		}
		for _, t := range n.core.Transactions() {
			return fmt.Errorf("node %d: transaction %s is %s for ever", n.id, shorten(t.ID), t.Phase)
		}
	}
	return fmt.Errorf("it does not end")
}

// over checks what an operator has decided: where that is not what was decided there is a record of it.
func (o *observer) over(nodes []*node) error {
	for _, h := range o.history {
		for i, b := range o.parts(h) {
			if !h.forced[i] {
				continue
			}
			wrong := h.branches[i] == committed && o.isCommitted(h) != "" || h.branches[i] == aborted && o.isCommitted(h) == "" && h.winner == twophase.OutcomeCommitted
			found := false
			for _, d := range nodes[b.Node-1].core.Damages() {
				found = found || d.ID == h.id && d.Resource == b.Resource
			}
			if found != wrong {
				return fmt.Errorf("an operator has %s transaction %s with %s: damage is %v, and reported: %v", h.branches[i], shorten(h.id), b, wrong, found)
			}
		}
	}
	return nil
}
