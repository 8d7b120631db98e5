package commit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// Player plays a script, step by step: it does not explore.
//
//	nodes COUNT [shared] coordinators=(…) [crashing=(…)] [one=(…)] [forgetful] [operator]
//	commit NODE by=(NODE/RESOURCE,…)       * marks a last agent, + a branch with work
//	persist NODE                           the oldest batch becomes durable
//	call NODE KIND TX RESOURCE ANSWER      a resource does what it is asked: yes, no, read-only, done, fails
//	tick NODE
//	crash NODE                             it starts again at once
//	lose NODE                              its store is lost, and it starts with an empty one
//	timeout NODE TX                        a proposal to the decision log fails
//	force NODE TX RESOURCE OUTCOME         an operator decides
//	deliver from=N to=N type=WORD [nth=K]
//	duplicate from=N to=N type=WORD [nth=K]
//	drop [from=N] [to=N] [type=WORD]       all such messages
//	settle                                 writes become durable, resources say yes, messages arrive, until nothing is to be done
//
// Each command prints what is sent, what is decided and what resources do; and what is violated. A node that does not crash
// makes everything durable at once. The shared decision log is the node behind the last.
type Player struct {
	model    *Model
	nodes    []*node
	log      *log
	observer *observer
	net      []packet
}

// packet is a message on its way; nodes are counted from 0 on.
type packet struct {
	from, to int
	body     []byte
}

func (p *packet) describe() string { return describe(uint64(p.from+1), uint64(p.to+1), p.body) }

func (p *packet) String() string { return fmt.Sprintf("%d to %d: %s", p.from+1, p.to+1, p.describe()) }

// words is a command: bare words, and names with values.
type words struct {
	bare  []string
	named map[string][]string
}

func parse(line string) words {
	w := words{named: map[string][]string{}}
	for _, word := range strings.Fields(line) {
		if name, value, ok := strings.Cut(word, "="); ok {
			w.named[name] = strings.Split(strings.Trim(value, "()"), ",")
		} else {
			w.bare = append(w.bare, word)
		}
	}
	return w
}

func number(word string) uint64 {
	n, _ := strconv.ParseUint(word, 10, 64)
	return n
}

func (w *words) numbers(name string) (list []uint64) {
	for _, v := range w.named[name] {
		list = append(list, number(v))
	}
	return list
}

// at returns a bare word; "": there is none.
func (w *words) at(i int) string {
	if i >= len(w.bare) {
		return ""
	}
	return w.bare[i]
}

// start makes the nodes of a model.
func (p *Player) start(m *Model) error {
	*p = Player{model: m, observer: &observer{m: m}}
	var out network.Output
	if m.Shared {
		p.log = &log{at: m.Nodes}
	}
	for i := range m.Nodes {
		n := &node{m: m, id: uint64(i + 1), disk: newDisk()}
		p.nodes = append(p.nodes, n)
		if !m.Shared || !m.coordinates(n.id) {
			n.start(&out)
			continue
		}
		// The first run asks the log before anything else happens.
		n.run, n.next = 1, perRun
		stay, _ := p.log.register.recover(twophase.Progress{Node: n.id, Incarnation: n.incarnation(), Upcoming: n.next}, &out)
		n.load(stay, &out)
	}
	if out.Violation == nil && len(out.Messages)+len(out.Facts) > 0 {
		return fmt.Errorf("commit: a node has something to say when it starts: %+v", out)
	}
	return out.Violation
}

// all returns what takes part.
func (p *Player) all() (list []network.Node) {
	for _, n := range p.nodes {
		list = append(list, n)
	}
	if p.log != nil {
		list = append(list, p.log)
	}
	return list
}

// Exec plays a command and returns what is printed. violation says what is violated; err, that the command can't be
// carried out.
func (p *Player) Exec(line string) (printed string, violation, err error) {
	w := parse(line)
	fail := func(format string, args ...any) (string, error, error) {
		return "", nil, fmt.Errorf("commit: %q: %s", line, fmt.Sprintf(format, args...))
	}
	var out network.Output
	var text strings.Builder
	switch w.at(0) {
	case "nodes":
		m := &Model{Nodes: int(number(w.at(1))), Shared: slices.Contains(w.bare, "shared"), coordinators: w.numbers("coordinators"), Crashes: 1, Crashing: w.numbers("crashing"),
			OnePhase: w.numbers("one")}
		if m.Crashing == nil {
			m.Crashes = 0
		}
		if slices.Contains(w.bare, "operator") {
			m.Forces = 1
		}
		m.Forgetful = slices.Contains(w.bare, "forgetful")
		if m.Nodes < 1 || m.Nodes > network.MaxNodes {
			return fail("there are 1 to %d nodes", network.MaxNodes)
		}
		return "", nil, p.start(m)
	case "drop", "deliver", "duplicate", "settle":
		if p.model == nil {
			return fail("it begins with nodes")
		}
	}
	switch w.at(0) {
	case "drop":
		p.net = slices.DeleteFunc(p.net, func(x packet) bool { return x.fits(&w) })
		return "", nil, nil
	case "settle":
		violation, err := p.settle(&text)
		return text.String(), violation, err
	case "deliver", "duplicate":
		i, err := p.pick(&w)
		if err != nil {
			return fail("%v", err)
		}
		x := p.net[i]
		if w.at(0) == "duplicate" {
			p.net = append(p.net, x)
			return "", nil, nil
		}
		p.net = slices.Delete(p.net, i, i+1)
		violation := p.deliver(x, &text)
		return text.String(), violation, nil
	}
	id := number(w.at(1))
	if p.model == nil || id == 0 || id > uint64(len(p.nodes)) {
		return fail("no such node")
	}
	n := p.nodes[id-1]
	if n.core == nil && w.at(0) != "crash" && w.at(0) != "lose" {
		return fail("node %d waits for the decision log", id)
	}
	n.attempt(&out, func() { err = p.take(n, &w, &out) })
	if err != nil {
		return fail("%v", err)
	}
	violation = p.carryOut(int(id-1), &out, &text)
	return text.String(), violation, nil
}

// take carries out a command that is about one node.
func (p *Player) take(n *node, w *words, out *network.Output) error {
	switch w.at(0) {
	case "commit":
		m := p.model
		t := Transaction{n.id, by(w.named["by"]...)}
		if len(t.Branches) == 0 {
			return fmt.Errorf("nobody takes part")
		}
		if len(p.observer.history) == len(m.Transactions) {
			m.Transactions = append(m.Transactions, t)
		}
		n.begin(len(p.observer.history), out)
	case "persist":
		if len(n.writes) == 0 {
			return fmt.Errorf("there is nothing to write")
		}
		n.persist(out)
	case "crash":
		n.crash(out)
	case "lose":
		n.lose(out)
	case "tick":
		n.tick(out)
	case "call":
		i := slices.IndexFunc(n.calls, func(c twophase.Call) bool {
			return c.Kind.String() == w.at(2) && shorten(c.ID) == w.at(3) && c.Resource == w.at(4)
		})
		answer := -1
		for a := range answers {
			if answerName(a) == w.at(5) {
				answer = a
			}
		}
		if i < 0 || answer < 0 {
			return fmt.Errorf("there is no such call")
		}
		n.call(i, answer, out)
	case "timeout":
		i := slices.IndexFunc(n.asked, func(id twophase.ID) bool { return shorten(id) == w.at(2) })
		if i < 0 {
			return fmt.Errorf("there is no such proposal")
		}
		n.timeout(n.asked[i], out)
	case "force":
		for _, d := range n.core.InDoubt() {
			if shorten(d.ID) == w.at(2) && d.Resource == w.at(3) {
				outcome := twophase.OutcomeAborted
				if w.at(4) == twophase.OutcomeCommitted.String() {
					outcome = twophase.OutcomeCommitted
				}
				n.force(d.ID, d.Resource, outcome, out)
				return nil
			}
		}
		return fmt.Errorf("it is not in doubt")
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

// deliver brings a message to its receiver.
func (p *Player) deliver(x packet, text *strings.Builder) error {
	var out network.Output
	fmt.Fprintf(text, "%v\n", &x)
	p.all()[x.to].Deliver(x.from, x.body, false, &out)
	return p.carryOut(x.to, &out, text)
}

// settle does what is to be done.
func (p *Player) settle(text *strings.Builder) (violation, err error) {
	for range 1000 {
		busy := false
		for i, n := range p.nodes {
			for n.core != nil && len(n.writes)+len(n.calls) > 0 {
				busy = true
				var out network.Output
				n.attempt(&out, func() {
					if len(n.writes) > 0 {
						n.persist(&out)
					} else {
						n.call(0, n.answersTo(n.calls[0])[0], &out)
					}
				})
				if violation := p.carryOut(i, &out, text); violation != nil {
					return violation, nil
				}
			}
		}
		if len(p.net) > 0 {
			busy = true
			x := p.net[0]
			p.net = p.net[1:]
			if violation := p.deliver(x, text); violation != nil {
				return violation, nil
			}
		}
		if !busy {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("commit: it does not settle")
}

// pick returns the place of the message that a command names.
func (p *Player) pick(w *words) (int, error) {
	nth := uint64(1)
	for _, n := range w.numbers("nth") {
		nth = n
	}
	for i := range p.net {
		if p.net[i].fits(w) {
			if nth--; nth == 0 {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("no such message is on its way")
}

// fits reports whether a message is one of those that a command names.
func (p *packet) fits(w *words) bool {
	kind, _, _ := strings.Cut(p.describe(), " ")
	is := func(name, value string) bool { return w.named[name] == nil || slices.Contains(w.named[name], value) }
	return is("from", strconv.Itoa(p.from+1)) && is("to", strconv.Itoa(p.to+1)) && is("type", kind)
}

// tell prints what a node has done.
func tell(text *strings.Builder, at int, out *network.Output) {
	for _, fact := range out.Facts {
		switch f := fact.(type) {
		case did:
			fmt.Fprintf(text, "%d/%s: %s %s\n", f.Node, f.Resource, shorten(f.ID), f.What)
		case decided:
			fmt.Fprintf(text, "decided: %s %s\n", shorten(f.ID), f.Outcome)
		case forgot:
			fmt.Fprintf(text, "forgotten: %s\n", shorten(f.ID))
		case answered:
			fmt.Fprintf(text, "answer: %s %s\n", shorten(f.ID), f.Outcome)
		}
	}
	for _, m := range out.Messages {
		fmt.Fprintf(text, "send %v\n", &packet{at, m.To, m.Body})
	}
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(at int, out *network.Output, text *strings.Builder) (violation error) {
	tell(text, at, out)
	for _, m := range out.Messages {
		p.net = append(p.net, packet{at, m.To, m.Body})
	}
	if at < len(p.nodes) {
		for _, c := range p.nodes[at].calls {
			fmt.Fprintf(text, "waits: call %v\n", c)
		}
		for _, w := range p.nodes[at].writes {
			fmt.Fprintf(text, "waits: %s\n", strings.Join(twophase.DescribeBatch(w.batch), ", "))
		}
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

// Play implements network.Model. At the end it is looked whether everything ends, once nothing fails any more.
func (m *Model) Play(lines []string) (string, error) {
	var p Player
	var text strings.Builder
	for i, line := range lines {
		if strings.HasPrefix(line, "#") {
			fmt.Fprintf(&text, "%s\n", line)
			continue
		}
		printed, violation, err := p.Exec(line)
		if err != nil {
			return text.String(), err
		}
		fmt.Fprintf(&text, "%s\n----\n%s", line, printed)
		if violation == nil && i == len(lines)-1 {
			var end strings.Builder
			if violation = p.model.healsAloud(p.all(), p.observer, &end); violation != nil {
				first, _, _ := strings.Cut(violation.Error(), "\n")
				fmt.Fprintf(&text, "From here on nothing fails:\n%sVIOLATION: %s\n", &end, first)
			}
		}
		text.WriteString("\n")
		if violation != nil {
			break
		}
	}
	return strings.TrimRight(text.String(), "\n") + "\n", nil
}
