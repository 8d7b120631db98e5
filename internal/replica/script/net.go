package script

import (
	"fmt"
	"slices"
	"strings"
)

// Message is one that is on its way.
type Message struct {
	From, To uint64
	Body     []byte
	state    *state // of a snapshot
}

// Selector returns the shortest filter found that picks just this one of the messages on their way.
func (r *Runner) Selector(at int) string {
	m := r.net[at]
	filter := fmt.Sprintf("from=%d to=%d type=%s", m.From, m.To, r.Kind(m))
	c, _ := ParseCommand("deliver " + filter)
	same := r.match(&c)
	if len(same) == 1 {
		return filter
	}
	return fmt.Sprintf("%s nth=%d", filter, slices.Index(same, at)+1)
}

// Kind returns the type of a message, the first word of its description.
func (r *Runner) Kind(m Message) string {
	kind, _, _ := strings.Cut(r.engine.Message(m.From, m.To, m.Body), " ")
	return kind
}

// match returns the places in the net of the messages that a command picks.
func (r *Runner) match(c *Command) []int {
	var picked []int
	for i, m := range r.net {
		words := strings.Fields(r.engine.Message(m.From, m.To, m.Body))
		if !slices.ContainsFunc(c.Args, func(a Arg) bool { return !fits(c, a, m, words) }) {
			picked = append(picked, i)
		}
	}
	if nth := c.Number("nth", 0); nth > 0 {
		if nth > uint64(len(picked)) {
			return nil
		}
		picked = picked[nth-1 : nth]
	}
	return picked[:min(uint64(len(picked)), c.Number("n", 1<<20))]
}

// fits reports whether a message has what one argument asks for.
func fits(c *Command, a Arg, m Message, words []string) bool {
	switch a.Name {
	case "from":
		return m.From == c.Number("from", 0)
	case "to":
		return m.To == c.Number("to", 0)
	case "n", "nth":
		return true
	case "type":
		return len(words) > 0 && words[0] == a.Values[0]
	case "slot":
		return slices.ContainsFunc(words, func(w string) bool { return holds(w, a.Values[0]) })
	}
	if a.Values == nil {
		return slices.Contains(words, a.Name)
	}
	return slices.Contains(words, a.Name+"="+strings.Join(a.Values, ","))
}

// holds reports whether a word of a description says what a slot holds.
func holds(word, slot string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(word, "["), slot)
	return ok && len(rest) > 0 && (rest[0] == ':' || rest[0] == '/')
}

// each takes the messages that the command names off the network, in order.
func (r *Runner) each(fn func(Message)) {
	picked := r.match(&r.command)
	var chosen, rest []Message
	for i, m := range r.net {
		if slices.Contains(picked, i) {
			chosen = append(chosen, m)
		} else {
			rest = append(rest, m)
		}
	}
	r.net = rest
	for _, m := range chosen {
		fn(m)
	}
	if len(chosen) == 0 {
		r.printf("nothing")
	}
}

func (r *Runner) describe(m Message) string {
	return fmt.Sprintf("%d to %d: %s", m.From, m.To, r.engine.Message(m.From, m.To, m.Body))
}

// deliver gives a message to its receiver.
func (r *Runner) deliver(m Message) {
	if !r.engine.Manual {
		r.indent += "  "
		defer func() { r.indent = strings.TrimSuffix(r.indent, "  ") }()
	}
	to := r.nodes[m.To]
	if to == nil || to.core == nil {
		r.printf("nobody is there")
		r.lose(m)
		return
	}
	if m.state != nil {
		to.incoming = m.state.clone()
		if from := r.nodes[m.From]; from.core != nil {
			from.input(func() { from.core.SnapshotSent(m.To, true) })
		}
	}
	to.input(func() {
		if err := to.core.Step(m.From, slices.Clone(m.Body), len(m.Body)); err != nil {
			r.printf("refused: %v", err)
		}
	})
}

// lose tells the sender of a snapshot that it did not arrive.
func (r *Runner) lose(m Message) {
	if from := r.nodes[m.From]; m.state != nil && from.core != nil {
		from.input(func() { from.core.SnapshotSent(m.To, false) })
	}
}

// settle works off all that some nodes have to do.
func (r *Runner) settle() {
	c := &r.command
	var nodes []*node
	for _, word := range c.words("loud", "keep") {
		n := r.node(c.parse(word))
		n.mustRun()
		nodes = append(nodes, n)
	}
	r.quiet = !c.Has("loud")
	for round := range c.Number("ticks", 0) + 1 {
		if round > 0 {
			for _, n := range nodes {
				r.about(n, func() { n.input(n.core.Tick) })
			}
		}
		if !r.work(nodes, c.Has("keep")) {
			r.quiet = false
			r.printf("it does not settle")
			return
		}
	}
	r.quiet = false
	for _, n := range nodes {
		n.status()
	}
}

// about prints what a node does under its name.
func (r *Runner) about(n *node, fn func()) {
	if n.core == nil {
		return
	}
	if r.engine.Manual {
		fn()
		return
	}
	before := r.out.Len()
	r.indent = "  "
	fn()
	r.indent = ""
	if text := r.out.String(); len(text) > before {
		r.out.Reset()
		fmt.Fprintf(&r.out, "%snode %d\n%s", text[:before], n.id, text[before:])
	}
}

// work lets nodes persist and receive until nothing is left; false: there is no end.
func (r *Runner) work(nodes []*node, keep bool) bool {
	for range 1000 {
		busy := false
		for _, n := range nodes {
			r.about(n, func() {
				n.attempt(func() {
					if n.ready() {
						busy = true
					}
					if len(n.batches) > 0 {
						busy = true
						n.persist(len(n.batches))
					}
					if n.wanted && !r.engine.Manual && n.state.Index > 0 {
						busy = true
						n.snapshot()
					}
					if len(n.queue) > 0 {
						busy = true
						n.applied(1 << 62)
					}
				})
			})
		}
		net := r.net
		r.net = nil
		var kept []Message
		for _, m := range net {
			switch {
			case slices.Contains(nodes, r.nodes[m.From]) && slices.Contains(nodes, r.nodes[m.To]):
				busy = true
				if !r.engine.Manual {
					r.printf("%s", r.describe(m))
				}
				r.deliver(m)
			case keep:
				kept = append(kept, m)
			default:
				busy = true
				r.lose(m)
			}
		}
		r.net = append(kept, r.net...)
		if !busy {
			return true
		}
	}
	return false
}
