package threephase

import (
	"errors"
	"fmt"
	"slices"
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
//	drop [from=N] [to=N] [type=WORD]           all such messages
//	persist NODE
//	crash NODE                                 and starts again
//	stand, expire, suspect, inquire, close NODE
//
// Each command prints what is sent, and what is done; and what is violated.
type Player struct {
	model    *Model
	nodes    []*node
	observer *observer
	stage    network.Stage
}

// start makes the nodes of a model, and begins the transaction.
func (p *Player) start(m *Model) error {
	o := &observer{m: m}
	*p = Player{model: m, observer: o, stage: network.Stage{Describe: m.Describe, Observer: o}}
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

// Exec plays a command and returns what is printed. violation says what is violated; err, that the command can't be
// carried out.
func (p *Player) Exec(line string) (printed string, violation, err error) {
	return network.Exec("threephase", line, p.exec)
}

func (p *Player) exec(c *network.Command, text *strings.Builder) (violation, err error) {
	if c.Word(0) == "commit" {
		m := &Model{Nodes: c.Int("nodes"), Participants: c.Numbers("participants"), No: c.Numbers("no"), ReadOnly: c.Numbers("read-only")}
		for _, x := range c.Numbers("weights") {
			m.Weights = append(m.Weights, uint32(x))
		}
		if slices.Equal(c.Values("protocol"), []string{core.Skeen.String()}) {
			m.Protocol = core.Skeen
		}
		if p.model != nil {
			m.Lost = p.model.Lost
		}
		if m.Nodes < 1 || m.Nodes > network.MaxNodes || slices.ContainsFunc(m.Participants, func(id uint64) bool { return id < 1 || id > uint64(m.Nodes) }) {
			return nil, fmt.Errorf("1 to %d nodes, and participants on them", network.MaxNodes)
		}
		if len(m.Weights) > 0 && len(m.Weights) != len(m.Participants) {
			return nil, errors.New("a weight for each participant, or none")
		}
		return nil, p.start(m)
	}
	if p.nodes == nil {
		return nil, errors.New("it begins with commit")
	}
	var out network.Output
	known, violation, err := p.stage.Carry(c, func(x network.Waiting) error {
		fmt.Fprintf(text, "%s\n", x.Show(p.model.Describe))
		n := p.nodes[x.To]
		n.deliver(uint64(x.From+1), x.Body, &out)
		return p.carryOut(n, &out, text)
	})
	if known {
		return violation, err
	}
	id := c.WordNumber(1)
	kind := slices.Index(verbs, c.Word(0))
	if id == 0 || id > uint64(len(p.nodes)) || kind < 0 && c.Word(0) != "persist" {
		return nil, errors.New("unknown command, or no such node")
	}
	n := p.nodes[id-1]
	if kind < 0 {
		n.persist(&out)
	} else {
		n.take(kind, &out)
	}
	return p.carryOut(n, &out, text), nil
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
	network.PrintSent(text, p.model.Describe, int(n.id-1), out.Messages)
	return p.stage.Take(int(n.id-1), out, text)
}

// Play implements network.Model.
func (m *Model) Play(lines []string) (string, error) {
	p := Player{model: m}
	return network.Play(lines, p.Exec, nil)
}
