package commit

import (
	"errors"
	"fmt"
	"slices"
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
	stage    network.Stage
}

// start makes the nodes of a model.
func (p *Player) start(m *Model) error {
	o := &observer{m: m}
	*p = Player{model: m, observer: o, stage: network.Stage{Describe: m.Describe, Observer: o}}
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
	return network.Exec("commit", line, p.exec)
}

func (p *Player) exec(c *network.Command, text *strings.Builder) (violation, err error) {
	if c.Word(0) == "nodes" {
		m := &Model{Nodes: int(min(c.WordNumber(1), network.MaxNodes+1)), Shared: c.Has("shared"), coordinators: c.Numbers("coordinators"), Crashes: 1, Crashing: c.Numbers("crashing"),
			OnePhase: c.Numbers("one"), Forgetful: c.Has("forgetful")}
		if m.Crashing == nil {
			m.Crashes = 0
		}
		if c.Has("operator") {
			m.Forces = 1
		}
		if m.Nodes < 1 || m.Nodes > network.MaxNodes {
			return nil, fmt.Errorf("there are 1 to %d nodes", network.MaxNodes)
		}
		return nil, p.start(m)
	}
	if p.model == nil {
		return nil, errors.New("it begins with nodes")
	}
	var out network.Output
	known, violation, err := p.stage.Carry(c, func(x network.Waiting) error { return p.deliver(x, text) })
	if known {
		return violation, err
	}
	if c.Word(0) == "settle" {
		return p.settle(text)
	}
	id := c.WordNumber(1)
	if id == 0 || id > uint64(len(p.nodes)) {
		return nil, errors.New("no such node")
	}
	n := p.nodes[id-1]
	if n.core == nil && c.Word(0) != "crash" && c.Word(0) != "lose" {
		return nil, fmt.Errorf("node %d waits for the decision log", id)
	}
	n.attempt(&out, func() { err = p.take(n, c, &out) })
	if err != nil {
		return nil, err
	}
	return p.carryOut(int(id-1), &out, text), nil
}

// take carries out a command that is about one node.
func (p *Player) take(n *node, command *network.Command, out *network.Output) error {
	switch command.Word(0) {
	case "commit":
		m := p.model
		t := Transaction{n.id, by(command.Values("by")...)}
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
			return c.Kind.String() == command.Word(2) && shorten(c.ID) == command.Word(3) && c.Resource == command.Word(4)
		})
		answer := -1
		for a := range answers {
			if answerName(a) == command.Word(5) {
				answer = a
			}
		}
		if i < 0 || answer < 0 {
			return fmt.Errorf("there is no such call")
		}
		n.call(i, answer, out)
	case "timeout":
		i := slices.IndexFunc(n.asked, func(id twophase.ID) bool { return shorten(id) == command.Word(2) })
		if i < 0 {
			return fmt.Errorf("there is no such proposal")
		}
		n.timeout(n.asked[i], out)
	case "force":
		for _, d := range n.core.InDoubt() {
			if shorten(d.ID) == command.Word(2) && d.Resource == command.Word(3) {
				outcome := twophase.OutcomeAborted
				if command.Word(4) == twophase.OutcomeCommitted.String() {
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
func (p *Player) deliver(x network.Waiting, text *strings.Builder) error {
	var out network.Output
	fmt.Fprintf(text, "%s\n", x.Show(p.model.Describe))
	p.all()[x.To].Deliver(x.From, x.Body, false, &out)
	return p.carryOut(x.To, &out, text)
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
		if len(p.stage.Waiting) > 0 {
			busy = true
			x := p.stage.Waiting[0]
			p.stage.Waiting = p.stage.Waiting[1:]
			if violation := p.deliver(x, text); violation != nil {
				return violation, nil
			}
		}
		if !busy {
			return nil, nil
		}
	}
	return nil, errors.New("it does not settle")
}

// tell prints what a node has done.
func tell(text *strings.Builder, m *Model, at int, out *network.Output) {
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
	network.PrintSent(text, m.Describe, at, out.Messages)
}

// carryOut prints what a node has done, and brings its messages on their way.
func (p *Player) carryOut(at int, out *network.Output, text *strings.Builder) (violation error) {
	tell(text, p.model, at, out)
	if at < len(p.nodes) {
		for _, c := range p.nodes[at].calls {
			fmt.Fprintf(text, "waits: call %v\n", c)
		}
		for _, w := range p.nodes[at].writes {
			fmt.Fprintf(text, "waits: %s\n", strings.Join(twophase.DescribeBatch(w.batch), ", "))
		}
	}
	return p.stage.Take(at, out, text)
}

// Play implements network.Model. At the end it is looked whether everything ends, once nothing fails any more.
func (m *Model) Play(lines []string) (string, error) {
	var p Player
	return network.Play(lines, p.Exec, func(text *strings.Builder) error { return p.model.healsAloud(p.all(), p.observer, text) })
}
