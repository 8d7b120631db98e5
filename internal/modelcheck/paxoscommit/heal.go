package paxoscommit

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
)

// heals reports whether everything ends, from a state on, once nothing fails any more: all that was on its way is lost, and all
// clients and recoverers but one have crashed. It is asked twice. Once nobody is left but a recoverer that begins then. Once the client
// is, which gives up what it waits for: it must end all that it has begun, and the recoverer comes after it. In the end no group holds anything,
// and each can forget all sessions; and on the way there all must be right that must be right always.
func (m *Model) heals(nodes []network.Node, o network.Observer) error {
	return m.healsAloud(nodes, o, nil)
}

// healsAloud prints what happens, if text is not nil.
func (m *Model) healsAloud(nodes []network.Node, o network.Observer, text *strings.Builder) error {
	if err := m.healing(nodes, o, text).recover(); err != nil {
		return fmt.Errorf("healed by a recoverer: %w", err)
	}
	if text != nil {
		text.Reset()
		text.WriteString("(the client runs)\n")
	}
	h := m.healing(nodes, o, text)
	if err := h.client(nodes[m.Groups].(*client).clone()); err != nil {
		return fmt.Errorf("healed by the client: %w", err)
	}
	if err := h.recover(); err != nil {
		return fmt.Errorf("healed by the client and a recoverer: %w", err)
	}
	return nil
}

func (m *Model) healing(nodes []network.Node, o network.Observer, text *strings.Builder) *healing {
	h := &healing{m: m, observer: o.Clone(), text: text}
	for _, n := range nodes[:m.Groups] {
		g := n.(*group).clone()
		g.full = false
		h.groups = append(h.groups, g)
	}
	return h
}

type healing struct {
	m        *Model
	groups   []*group
	observer network.Observer
	text     *strings.Builder
}

// take takes over what has come of a step.
func (h *healing) take(from int, out *network.Output) error {
	if h.text != nil {
		tell(h.text, h.m, from, out)
	}
	if out.Violation != nil {
		return out.Violation
	}
	for _, f := range out.Facts {
		if err := h.observer.Observe(f); err != nil {
			return err
		}
	}
	return nil
}

// ask has a group apply what it is sent, and returns its answers to whoever sends.
func (h *healing) ask(from int, sent []network.Message, hear func(group int, body []byte) error) error {
	for _, x := range sent {
		if x.To >= h.m.Groups {
			continue
		}
		var out network.Output
		h.groups[x.To].Deliver(from, x.Body, false, &out)
		if err := h.take(x.To, &out); err != nil {
			return err
		}
		for _, y := range out.Messages {
			if y.To != from {
				continue
			}
			if err := hear(x.To, y.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

// client lets the client end all that it has begun.
func (h *healing) client(c *client) error {
	at := h.m.Groups
	var hear func(group int, body []byte) error
	step := func(fn func(out *network.Output)) error {
		var out network.Output
		fn(&out)
		if err := h.take(at, &out); err != nil {
			return err
		}
		return h.ask(at, out.Messages, hear)
	}
	hear = func(group int, body []byte) error {
		return step(func(out *network.Output) { c.Deliver(group, body, false, out) })
	}
	for _, a := range c.attempts {
		if a.c == nil {
			continue
		}
		err := step(func(out *network.Output) {
			clear(a.sent)
			if a.answered {
				c.goOn(a, out)
			} else {
				c.giveUp(a, out)
			}
		})
		if err != nil {
			return err
		}
		if a.c != nil {
			return fmt.Errorf("the client does not end transaction %s", shorten(a.c.ID()))
		}
	}
	return nil
}

// recover ends all that is unfinished in any group, as somebody who begins now.
func (h *healing) recover() error {
	for _, g := range h.groups {
		for _, id := range g.registers.Unfinished(math.MaxUint64) {
			record, _ := g.registers.Look(id)
			if err := h.drive(id, record.Groups); err != nil {
				return err
			}
		}
	}
	for _, g := range h.groups {
		for _, id := range g.holding() {
			return fmt.Errorf("all is over, and group %d holds what transaction %s has locked", g.number, shorten(id))
		}
		if left := g.registers.Unfinished(math.MaxUint64); len(left) > 0 {
			return fmt.Errorf("all is over, and group %d does not know that of transaction %s", g.number, shorten(left[0]))
		}
	}
	for _, g := range h.groups {
		var out network.Output
		g.expire(math.MaxUint64, &out)
		if err := h.take(int(g.number)-1, &out); err != nil {
			return err
		}
		if g.registers.Sessions() > 0 || g.registers.Len() > 0 {
			return fmt.Errorf("all is over, and group %d can't forget it", g.number)
		}
	}
	return nil
}

// drive has a recoverer end a transaction.
func (h *healing) drive(id core.ID, groups []uint32) error {
	const nobody = network.MaxNodes // answers go there
	d := newDrive(core.NewRecoverer(id, slices.Clone(groups)))
	for range 4 { // close, resolve, finish
		var out network.Output
		d.send(0, &out)
		err := h.ask(nobody, out.Messages, func(group int, body []byte) error {
			m := decode(body)
			d.hear(uint32(group+1), &m)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !d.c.Done() {
		return fmt.Errorf("a recoverer does not end transaction %s", shorten(id))
	}
	return nil
}
