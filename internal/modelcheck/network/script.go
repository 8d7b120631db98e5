package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/explore"
)

// System is what the command explores: some models of one protocol.
type System struct {
	Models []Model // the first one is explored if none is asked for
	Bugs   []Bug   // mistakes that can be put into the code
}

// Model is a protocol within bounds.
type Model interface {
	Label() string  // a word
	About() string  // what is looked at
	Bounds() string // in a line
	New(planted bool) (*Network, error)

	// Begin is how a script begins, and Describe says what a message is: its first word is its type.
	Begin() []string
	Describe(from, to int, body []byte) string

	// Play plays a script and returns it with what happens.
	Play(lines []string) (string, error)
}

// Bug is a mistake that can be put into the code, by its name for probe.Bug, and the models
// that find it.
type Bug struct {
	Name   string
	Models []string
}

// ErrRefused says that a model can't be explored, since the protocol refuses it, as it must.
var ErrRefused = errors.New("network: refused, as it must be")

// Lines returns the lines of a script, without what is printed there.
func Lines(text string) (lines []string) {
	printed := false
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "":
			printed = false
		case line == "----":
			printed = true
		case !printed:
			lines = append(lines, line)
		}
	}
	return lines
}

// event is a step of a script.
type event struct {
	node    int
	input   Input
	used    int
	message uint32
	deliver bool
	late    bool
	sent    []uint32
}

// Script tells of the steps of a path as a script. Messages that nodes send again without becoming others,
// which is no step of a path, are in it where they are needed.
func (n *Network) Script(m Model, path []int) ([]string, error) {
	states, err := explore.Replay(n, path)
	if len(states) < len(path) {
		return nil, err
	}
	type cause struct {
		at    int // behind this step
		rank  int
		event event
	}
	echoes := make(map[uint32]*cause)
	steps := make([]event, len(path))
	for t, number := range path {
		e, ok := n.event(states[t], number)
		if !ok {
			return nil, errors.New("network: no step has this number")
		}
		steps[t] = e
		if t+1 < len(states) {
			rank := 0
			n.echoes(states[t], states[t+1], e, func(id uint32, e event) {
				rank++
				echoes[id] = &cause{t, rank, e}
			})
		}
	}
	// Which of the echoes are needed.
	var needed []*cause
	var need func(id uint32)
	need = func(id uint32) {
		c := echoes[id]
		if c == nil || slices.Contains(needed, c) {
			return
		}
		needed = append(needed, c)
		need(c.event.message)
	}
	for _, e := range steps {
		if e.deliver {
			need(e.message)
		}
	}
	var events []event
	for t, e := range steps {
		events = append(events, e)
		var behind []*cause
		for _, c := range needed {
			if c.at == t && !slices.ContainsFunc(behind, func(o *cause) bool { return o.event.message == c.event.message && o.event.node == c.event.node }) {
				behind = append(behind, c)
			}
		}
		slices.SortFunc(behind, func(a, b *cause) int { return a.rank - b.rank })
		for _, c := range behind {
			events = append(events, c.event)
		}
	}
	return n.lines(m, states[0], events), nil
}

// event returns what the step with a number is.
func (n *Network) event(s *State, number int) (e event, ok bool) {
	n.steps(s, nil, func(b event, r *result) bool {
		if number--; number >= 0 {
			return true
		}
		e, ok = b, true
		e.sent = r.sent
		return false
	})
	return e, ok
}

// echoes calls fn for each message that is under way after a step, though it was not sent in it: with its cause.
func (n *Network) echoes(before, after *State, e event, fn func(id uint32, e event)) {
	known := make(map[uint32]bool)
	for i := range n.c.Nodes {
		for _, id := range before.nodes[i].inbox {
			known[id] = true
		}
	}
	for _, id := range e.sent {
		known[id] = true
	}
	for again := true; again; {
		again = false
		for i := range n.c.Nodes {
			l := n.local.at(after.nodes[i].local)
			for _, id := range after.nodes[i].inbox {
				if !known[id] {
					continue
				}
				r := n.deliver(i, l, id, false)
				if r.code&codeEcho == 0 {
					continue
				}
				for _, sent := range r.sent {
					if !known[sent] {
						known[sent], again = true, true
						fn(sent, event{node: i, message: id, deliver: true, sent: r.sent})
					}
				}
			}
		}
	}
}

// lines tells of events as a script.
func (n *Network) lines(m Model, start *State, events []event) []string {
	lines := m.Begin()
	nodes := make([]Node, len(n.c.Nodes))
	for i := range nodes {
		nodes[i] = n.local.at(start.nodes[i].local).node.Clone()
	}
	var net []uint32 // on their way
	for _, w := range n.c.Waiting {
		net = append(net, n.internMessage(w.From, w.To, w.Body))
	}
	kind := func(id uint32) string {
		x := n.message.at(id)
		word, _, _ := strings.Cut(m.Describe(x.from, x.to, x.body), " ")
		return fmt.Sprintf("from=%d to=%d type=%s", x.from+1, x.to+1, word)
	}
	filter := func(id uint32) string {
		text := kind(id)
		nth, count := 0, 0
		for _, o := range net {
			if kind(o) == text {
				if count++; o == id && nth == 0 {
					nth = count
				}
			}
		}
		if count > 1 {
			text += fmt.Sprintf(" nth=%d", nth)
		}
		return text
	}
	for t, e := range events {
		out := Output{Script: true}
		if e.deliver {
			again := slices.ContainsFunc(events[t+1:], func(o event) bool { return o.deliver && o.message == e.message })
			at := slices.Index(net, e.message)
			if again && !slices.Contains(net[at+1:], e.message) {
				lines = append(lines, "duplicate "+filter(e.message))
				net = append(net, e.message)
			}
			lines = append(lines, "deliver "+filter(e.message))
			net = slices.Delete(net, at, at+1)
			x := n.message.at(e.message)
			attempt(nodes[e.node], &out, func(node Node, out *Output) { node.Deliver(x.from, x.body, e.late, out) })
		} else {
			attempt(nodes[e.node], &out, func(node Node, out *Output) { node.Take(e.input, e.used, out) })
		}
		lines = append(lines, out.Did...)
		for _, x := range out.Messages {
			net = append(net, n.internMessage(e.node, x.To, x.Body))
		}
	}
	return lines
}
