package paxos

import (
	"errors"
	"fmt"
	"slices"
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
	stage    network.Stage
}

// Exec plays a command and returns what is printed. violation says what is violated; err, that the command can't be
// carried out.
func (p *Player) Exec(line string) (printed string, violation, err error) {
	return network.Exec("paxos", line, p.exec)
}

func (p *Player) exec(c *network.Command, text *strings.Builder) (violation, err error) {
	if c.Word(0) == "bootstrap" {
		return nil, p.bootstrap(c)
	}
	if p.model == nil {
		return nil, errors.New("it begins with bootstrap")
	}
	var out network.Output
	known, violation, err := p.stage.Carry(c, func(x network.Waiting) error { return p.deliver(x, text) })
	if known {
		return violation, err
	}
	if c.Word(0) == "settle" {
		return p.settle(c, text)
	}
	id := c.WordNumber(1)
	if id == 0 || id > uint64(len(p.nodes)) {
		return nil, errors.New("no such node")
	}
	n := p.nodes[id-1]
	if n.core == nil && !slices.Contains([]string{"crash", "join", "damage"}, c.Word(0)) {
		return nil, fmt.Errorf("node %d does not run", id)
	}
	n.attempt(&out, func() { err = p.take(n, c, &out) })
	if err != nil {
		return nil, err
	}
	return p.carryOut(n, &out, text), nil
}

// deliver brings a message to its receiver.
func (p *Player) deliver(x network.Waiting, text *strings.Builder) (violation error) {
	var out network.Output
	fmt.Fprintf(text, "%s\n", x.Show(p.model.Describe))
	n := p.nodes[x.To]
	if n.core == nil {
		return nil
	}
	n.attempt(&out, func() { n.deliver(uint64(x.From+1), x.Body, &out) })
	return p.carryOut(n, &out, text)
}

// settle works off what some nodes have to do.
func (p *Player) settle(c *network.Command, text *strings.Builder) (violation, err error) {
	var nodes []*node
	for i := range c.Len() {
		if id := c.WordNumber(i); id > 0 && id <= uint64(len(p.nodes)) {
			nodes = append(nodes, p.nodes[id-1])
		}
	}
	keep := c.Has("keep")
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
		net := p.stage.Waiting
		p.stage.Waiting = nil
		var kept []network.Waiting
		for _, x := range net {
			switch {
			case slices.Contains(nodes, p.nodes[x.From]) && slices.Contains(nodes, p.nodes[x.To]):
				busy = true
				if violation := p.deliver(x, text); violation != nil {
					return violation, nil
				}
			case keep:
				kept = append(kept, x)
			}
		}
		if p.stage.Waiting = append(kept, p.stage.Waiting...); !busy {
			return nil, nil
		}
	}
	return nil, errors.New("it does not settle")
}

// bootstrap makes the nodes.
func (p *Player) bootstrap(c *network.Command) error {
	return p.start(&Model{Voters: c.Int("voters"), Spares: c.Int("spare"), ElectionTicks: c.Int("election"),
		Leases: c.Has("leases"), Durable: c.Has("durable"), MessageBytes: c.Int("message"), Phase1: c.Int("phase1"), Phase2: c.Int("phase2"), Slots: 1 << 20,
		Reads: 1, Changes: make([]Change, 1), Damages: 1, Ticks: 1})
}

// start makes the nodes of a model.
func (p *Player) start(m *Model) error {
	m.founded = string(m.founders().encode())
	o := &observer{m: m}
	*p = Player{model: m, observer: o, stage: network.Stage{Describe: m.Describe, Observer: o}}
	for i := range m.Voters + m.Spares {
		n, err := newNode(m, uint64(i+1))
		if err != nil {
			return err
		}
		p.nodes = append(p.nodes, n)
	}
	return nil
}

// take carries out a command that is about one node.
func (p *Player) take(n *node, c *network.Command, out *network.Output) error {
	switch c.Word(0) {
	case "campaign":
		n.campaign(out)
	case "propose":
		if c.Len() < 3 {
			return fmt.Errorf("a value is missing")
		}
		n.propose(c.Word(2), out)
	case "persist":
		count := len(n.queue)
		if k := c.Int("n"); k > 0 {
			count = min(count, k)
		}
		n.persist(count, out)
	case "crash":
		n.crash(out)
	case "tick":
		n.tick(out)
	case "read":
		n.read(c.WordNumber(2), out)
	case "transfer":
		n.transfer(c.Number("to"), out)
	case "reconfigure":
		n.reconfigure(Configuration{c.Numbers("voters"), c.Numbers("outgoing"), c.Numbers("learners")}, out)
	case "snapshot":
		n.snapshot(out)
	case "compact":
		if c.WordNumber(2) != n.offered.Index {
			return fmt.Errorf("there is no snapshot at %d", c.WordNumber(2))
		}
		n.compact(out)
	case "damage":
		for i, at := range n.disk.content.runs() {
			if firstOf(n.disk.content.keys[at]) == c.Number("slot") {
				n.damage(i, c.Has("missing"), out)
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
	network.PrintSent(text, p.model.Describe, int(n.id-1), out.Messages)
	return p.stage.Take(int(n.id-1), out, text)
}

// Play implements network.Model.
func (m *Model) Play(lines []string) (string, error) {
	var p Player
	return network.Play(lines, p.Exec, nil)
}
