package threephase

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/threephase"
	"github.com/synod-go/synod/internal/twophase"
)

// Player plays a script, step by step: it does not explore.
//
//	commit nodes=N protocol=enhanced|skeen participants=(…) [weights=(…)] [no=(…)] [read-only=(…)]
//	deliver from=N to=N type=WORD [nth=K]
//	duplicate from=N to=N type=WORD [nth=K]
//	persist NODE
//	crash NODE                                 and starts again
//	stand, expire, suspect, inquire, close NODE
//
// Each command prints what is sent, and what is done; and what is violated.
type Player struct {
	model    *Model
	nodes    []*node
	observer *observer
	net      []packet
}

type packet struct {
	from, to uint64
	body     []byte
}

// start makes the nodes of a model, and begins the transaction.
func (p *Player) start(m *Model) error {
	*p = Player{model: m, observer: &observer{m: m}}
	for i := range m.Nodes {
		n := &node{m: m, id: uint64(i + 1)}
		if err := n.start(); err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
	}
	var list []core.Participant
	for i, id := range m.Participants {
		x := core.Participant{Branch: twophase.Branch{Node: id, Resource: resource}}
		if len(m.Weights) > 0 {
			x.Weight = m.Weights[i]
		}
		list = append(list, x)
	}
	first := p.nodes[0]
	if err := first.core.Open(transaction); err != nil {
		return err
	}
	if err := first.core.Commit(transaction, list); err != nil {
		return err
	}
	var out network.Output
	first.gather(&out)
	first.end(false, &out)
	var text strings.Builder
	return p.carryOut(first, &out, &text)
}

// words is a command: bare words, and names with values.
type words struct {
	bare  []string
	named map[string]string
}

func parse(line string) words {
	w := words{named: map[string]string{}}
	for word := range strings.FieldsSeq(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			w.named[name] = strings.Trim(value, "()")
		} else {
			w.bare = append(w.bare, word)
		}
	}
	return w
}

func (w *words) numbers(name string) (list []uint64) {
	for v := range strings.SplitSeq(w.named[name], ",") {
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			list = append(list, n)
		}
	}
	return list
}

func (w *words) number(name string) uint64 {
	if list := w.numbers(name); len(list) > 0 {
		return list[0]
	}
	return 0
}

// exec plays a command. violation says what is violated; err, that the command can't be carried out.
func (p *Player) exec(line string, text *strings.Builder) (violation, err error) {
	w := parse(line)
	fail := func(format string, args ...any) (error, error) {
		return nil, fmt.Errorf("threephase: %q: %s", line, fmt.Sprintf(format, args...))
	}
	if len(w.bare) == 0 {
		return fail("a command is missing")
	}
	if w.bare[0] == "commit" {
		m := &Model{Nodes: int(w.number("nodes")), Participants: w.numbers("participants"), No: w.numbers("no"), ReadOnly: w.numbers("read-only")}
		for _, x := range w.numbers("weights") {
			m.Weights = append(m.Weights, uint32(x))
		}
		if w.named["protocol"] == core.Skeen.String() {
			m.Protocol = core.Skeen
		}
		if p.model != nil {
			m.Lost = p.model.Lost
		}
		if m.Nodes < 1 || m.Nodes > network.MaxNodes || slices.ContainsFunc(m.Participants, func(id uint64) bool { return id > uint64(m.Nodes) }) {
			return fail("1 to %d nodes, and participants on them", network.MaxNodes)
		}
		return nil, p.start(m)
	}
	if p.nodes == nil {
		return fail("it begins with commit")
	}
	var out network.Output
	if w.bare[0] == "deliver" || w.bare[0] == "duplicate" {
		i, ok := p.pick(&w)
		if !ok {
			return fail("no such message is on its way")
		}
		x := p.net[i]
		if w.bare[0] == "duplicate" {
			p.net = append(p.net, x)
			return nil, nil
		}
		p.net = slices.Delete(p.net, i, i+1)
		fmt.Fprintf(text, "%s\n", p.describe(x))
		n := p.nodes[x.to-1]
		n.deliver(x.from, x.body, &out)
		return p.carryOut(n, &out, text), nil
	}
	var id uint64
	if len(w.bare) > 1 {
		id, _ = strconv.ParseUint(w.bare[1], 10, 64)
	}
	kind := slices.Index(verbs, w.bare[0])
	if id == 0 || id > uint64(len(p.nodes)) || kind < 0 && w.bare[0] != "persist" {
		return fail("unknown command, or no such node")
	}
	n := p.nodes[id-1]
	if kind < 0 {
		n.persist(&out)
	} else {
		n.take(kind, &out)
	}
	return p.carryOut(n, &out, text), nil
}

func (p *Player) describe(x packet) string {
	return fmt.Sprintf("%d to %d: %s", x.from, x.to, p.model.Describe(int(x.from-1), int(x.to-1), x.body))
}

// pick returns the place of the message that a command names.
func (p *Player) pick(w *words) (int, bool) {
	nth := max(w.number("nth"), 1)
	for i, x := range p.net {
		kind, _, _ := strings.Cut(p.model.Describe(int(x.from-1), int(x.to-1), x.body), " ")
		if x.from == w.number("from") && x.to == w.number("to") && kind == w.named["type"] {
			if nth--; nth == 0 {
				return i, true
			}
		}
	}
	return 0, false
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(n *node, out *network.Output, text *strings.Builder) (violation error) {
	for _, fact := range out.Facts {
		switch f := fact.(type) {
		case done:
			fmt.Fprintf(text, "node %d has %v\n", f.Node, f.What)
		case answered:
			fmt.Fprintf(text, "the caller is told: %v\n", f.What)
		}
	}
	for _, m := range out.Messages {
		x := packet{n.id, uint64(m.To + 1), m.Body}
		p.net = append(p.net, x)
		fmt.Fprintf(text, "send %s\n", p.describe(x))
	}
	violation = out.Violation
	for _, fact := range out.Facts {
		if violation == nil {
			violation = p.observer.Observe(fact)
		}
	}
	if violation != nil {
		first, _, _ := strings.Cut(violation.Error(), "\n")
		fmt.Fprintf(text, "VIOLATION: %s\n", first)
	}
	return violation
}

// Play implements network.Model.
func (m *Model) Play(lines []string) (string, error) {
	p := Player{model: m}
	var text strings.Builder
	for _, line := range lines {
		if strings.HasPrefix(line, "#") {
			fmt.Fprintf(&text, "%s\n", line)
			continue
		}
		var printed strings.Builder
		violation, err := p.exec(line, &printed)
		if err != nil {
			return text.String(), err
		}
		fmt.Fprintf(&text, "%s\n----\n%s\n", line, &printed)
		if violation != nil {
			break
		}
	}
	return strings.TrimRight(text.String(), "\n") + "\n", nil
}
