package paxos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
)

// Player plays a script, step by step: it does not explore. The language is that of the scripts of package script of
// internal/replica, as far as counterexamples need it.
//
//	bootstrap voters=3 [spare=1] [election=TICKS] [heartbeat=1] [leases] [message=BYTES] [phase1=N phase2=N]
//	campaign NODE
//	propose NODE VALUE
//	persist NODE [n=COUNT]
//	deliver from=N to=N type=WORD [nth=K]
//	duplicate from=N to=N type=WORD [nth=K]
//	drop [from=N] [to=N] [type=WORD]       all such messages
//	settle NODE… [keep]                    what is on its way between these nodes, and what comes of it; other
//	                                       messages are lost, or kept
//	crash NODE
//	tick NODE
//	read NODE NUMBER
//	transfer NODE to=NODE
//	reconfigure NODE voters=(…) [outgoing=(…)] [learners=(…)]
//	snapshot NODE
//	compact NODE INDEX
//	damage NODE slot=N [missing]
//	leave NODE
//	join NODE
//
// Each command prints what is sent, what is durably accepted and what is handed out; and what is violated.
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

func (p *packet) String() string {
	return fmt.Sprintf("%d to %d: %s", p.from, p.to, describe(p.from, p.body))
}

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

// number returns a named number, or 0.
func (w *words) number(name string) uint64 {
	if list := w.numbers(name); len(list) > 0 {
		return list[0]
	}
	return 0
}

func (w *words) numbers(name string) (list []uint64) {
	for _, v := range w.named[name] {
		n, _ := strconv.ParseUint(v, 10, 64)
		list = append(list, n)
	}
	return list
}

// at returns a bare number, or 0.
func (w *words) at(i int) uint64 {
	if i >= len(w.bare) {
		return 0
	}
	n, _ := strconv.ParseUint(w.bare[i], 10, 64)
	return n
}

// Exec plays a command and returns what is printed. violation says what is violated; err, that the command can't be
// carried out.
func (p *Player) Exec(line string) (printed string, violation, err error) {
	w := parse(line)
	if len(w.bare) == 0 {
		return "", nil, fmt.Errorf("paxos: a command is missing")
	}
	fail := func(format string, args ...any) (string, error, error) {
		return "", nil, fmt.Errorf("paxos: %q: %s", line, fmt.Sprintf(format, args...))
	}
	if w.bare[0] == "bootstrap" {
		return "", nil, p.bootstrap(&w)
	}
	if p.model == nil {
		return fail("it begins with bootstrap")
	}
	var out network.Output
	var text strings.Builder
	var n *node
	switch w.bare[0] {
	case "settle":
		violation, err = p.settle(&w, &text)
		return text.String(), violation, err
	case "drop":
		p.net = slices.DeleteFunc(p.net, func(x packet) bool { return x.fits(&w) })
		return "", nil, nil
	case "deliver", "duplicate":
		i, err := p.pick(&w)
		if err != nil {
			return fail("%v", err)
		}
		x := p.net[i]
		if w.bare[0] == "duplicate" {
			p.net = append(p.net, x)
			return "", nil, nil
		}
		p.net = slices.Delete(p.net, i, i+1)
		violation := p.deliver(x, &text)
		return text.String(), violation, nil
	default:
		id := w.at(1)
		if id == 0 || id > uint64(len(p.nodes)) {
			return fail("no such node")
		}
		n = p.nodes[id-1]
		if n.core == nil && !slices.Contains([]string{"crash", "join", "damage"}, w.bare[0]) {
			return fail("node %d does not run", id)
		}
		var err error
		n.attempt(&out, func() { err = p.take(n, &w, &out) })
		if err != nil {
			return fail("%v", err)
		}
	}
	violation = p.carryOut(n, &out, &text)
	return text.String(), violation, nil
}

// deliver brings a message to its receiver.
func (p *Player) deliver(x packet, text *strings.Builder) (violation error) {
	var out network.Output
	fmt.Fprintf(text, "%v\n", &x)
	n := p.nodes[x.to-1]
	if n.core == nil {
		return nil
	}
	n.attempt(&out, func() { n.deliver(x.from, x.body, &out) })
	return p.carryOut(n, &out, text)
}

// settle works off what some nodes have to do.
func (p *Player) settle(w *words, text *strings.Builder) (violation, err error) {
	var nodes []*node
	for i := range w.bare {
		if id := w.at(i); id > 0 && id <= uint64(len(p.nodes)) {
			nodes = append(nodes, p.nodes[id-1])
		}
	}
	keep := slices.Contains(w.bare, "keep")
	for range 1000 {
		busy := false
		for _, n := range nodes {
			if n.core == nil || len(n.queue) == 0 {
				continue
			}
			busy = true
			var out network.Output
			n.attempt(&out, func() { n.persist(len(n.queue), &out) })
			if violation := p.carryOut(n, &out, text); violation != nil {
				return violation, nil
			}
		}
		net := p.net
		p.net = nil
		var kept []packet
		for _, x := range net {
			switch {
			case slices.Contains(nodes, p.nodes[x.from-1]) && slices.Contains(nodes, p.nodes[x.to-1]):
				busy = true
				if violation := p.deliver(x, text); violation != nil {
					return violation, nil
				}
			case keep:
				kept = append(kept, x)
			}
		}
		if p.net = append(kept, p.net...); !busy {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("paxos: it does not settle")
}

// bootstrap makes the nodes.
func (p *Player) bootstrap(w *words) error {
	return p.start(&Model{Voters: int(w.number("voters")), Spares: int(w.number("spare")), ElectionTicks: int(w.number("election")),
		Leases: slices.Contains(w.bare, "leases"), Durable: slices.Contains(w.bare, "durable"), MessageBytes: int(w.number("message")), Phase1: int(w.number("phase1")), Phase2: int(w.number("phase2")), Slots: 1 << 20,
		Reads: 1, Changes: make([]Change, 1), Damages: 1, Ticks: 1})
}

// start makes the nodes of a model.
func (p *Player) start(m *Model) error {
	m.founded = string(m.founders().encode())
	*p = Player{model: m, observer: &observer{m: m}}
	for i := range m.Voters + m.Spares {
		n, err := newNode(m, uint64(i+1))
		if err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
	}
	return nil
}

// pick returns the place of the message that a command names.
func (p *Player) pick(w *words) (int, error) {
	nth := max(w.number("nth"), 1)
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
	kind, _, _ := strings.Cut(describe(p.from, p.body), " ")
	is := func(name, value string) bool { return w.named[name] == nil || slices.Contains(w.named[name], value) }
	return is("from", strconv.FormatUint(p.from, 10)) && is("to", strconv.FormatUint(p.to, 10)) && is("type", kind)
}

// take carries out a command that is about one node.
func (p *Player) take(n *node, w *words, out *network.Output) error {
	switch w.bare[0] {
	case "campaign":
		n.campaign(out)
	case "propose":
		if len(w.bare) < 3 {
			return fmt.Errorf("a value is missing")
		}
		n.propose(w.bare[2], out)
	case "persist":
		count := len(n.queue)
		if k := w.number("n"); k > 0 {
			count = min(count, int(k))
		}
		n.persist(count, out)
	case "crash":
		n.crash(out)
	case "tick":
		n.tick(out)
	case "read":
		n.read(w.at(2), out)
	case "transfer":
		n.transfer(w.number("to"), out)
	case "reconfigure":
		n.reconfigure(Configuration{w.numbers("voters"), w.numbers("outgoing"), w.numbers("learners")}, out)
	case "snapshot":
		n.snapshot(out)
	case "compact":
		if w.at(2) != n.offered.Index {
			return fmt.Errorf("there is no snapshot at %d", w.at(2))
		}
		n.compact(out)
	case "damage":
		for i, at := range n.disk.content.runs() {
			if firstOf(n.disk.content.keys[at]) == w.number("slot") {
				n.damage(i, slices.Contains(w.bare, "missing"), out)
				return nil
			}
		}
		return fmt.Errorf("no record begins with this slot")
	case "leave":
		n.leave(out)
	case "join":
		n.join(out)
	default:
		return fmt.Errorf("unknown command")
	}
	return nil
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(n *node, out *network.Output, text *strings.Builder) (violation error) {
	for _, fact := range out.Facts {
		switch f := fact.(type) {
		case voted:
			fmt.Fprintf(text, "node %d has accepted %s in slot %d and ballot %v\n", f.Node, f.Value, f.Slot, f.Ballot)
		case taken:
			fmt.Fprintf(text, "node %d leads in ballot %v, and takes all up to slot %d for decided\n", f.Ballot.Node, f.Ballot, f.Slot)
		case handedOut:
			fmt.Fprintf(text, "node %d hands out %s in slot %d, term %d\n", f.Node, f.Value, f.Slot, f.Term)
		case installed:
			fmt.Fprintf(text, "node %d installs a snapshot up to slot %d\n", f.Node, f.Slot)
		case answered:
			fmt.Fprintf(text, "read %d is to see all up to slot %d\n", f.Attempt, f.Slot)
		}
	}
	for _, m := range out.Messages {
		x := packet{n.id, uint64(m.To + 1), m.Body}
		p.net = append(p.net, x)
		fmt.Fprintf(text, "send %v\n", &x)
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
	var p Player
	var text strings.Builder
	for _, line := range lines {
		if strings.HasPrefix(line, "#") {
			fmt.Fprintf(&text, "%s\n", line)
			continue
		}
		printed, violation, err := p.Exec(line)
		if err != nil {
			return text.String(), err
		}
		fmt.Fprintf(&text, "%s\n----\n%s\n", line, printed)
		if violation != nil {
			break
		}
	}
	return strings.TrimRight(text.String(), "\n") + "\n", nil
}
