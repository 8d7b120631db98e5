package threephase

import (
	"fmt"
	"maps"
	"slices"

	"github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

type (
	simulated = commitmenttest.World[*Core, Message, Participant]
	node      = commitmenttest.Node[*Core, Message, Participant]
	action    = commitmenttest.Action[*Core, Message, Participant]
	scenario  = commitmenttest.Scenario[*Core, Message, Participant]
)

// world is nodes whose cores have a configuration, which counts when they start.
type world struct {
	*simulated
	cfg Config
}

func newWorld(count int, p Protocol) *world {
	w := &world{cfg: Config{Protocol: p, Incarnation: commitmenttest.Incarnation, PrepareTicks: 12, ResendTicks: 3, InquireTicks: 4, PeerTicks: 8,
		MaxTransactions: 50, MaxBranches: 50, MaxParticipants: 10, MaxFinished: 1000}}
	w.simulated = commitmenttest.NewWorld(count, commitmenttest.Protocol[*Core, Message, Participant]{
		Start: func(n *node, keys, values [][]byte) (*Core, error) {
			cfg := w.cfg
			cfg.Node, cfg.Base, cfg.Incarnation = n.ID, n.Base, commitmenttest.Incarnation*n.ID
			cfg.Resources = slices.Sorted(maps.Keys(n.Resources))
			c := New(cfg)
			return c, c.Load(keys, values)
		},
		Ready: func(n *node, _ func(order, what string, do func())) commitmenttest.Ready[Message] {
			r := n.Core.Ready()
			return commitmenttest.Ready[Message]{Messages: r.Messages, Results: r.Results, Batch: r.Batch, Token: r.Token, Calls: r.Calls}
		},
		Carry: func(m Message) (Message, error) {
			carried, err := DecodeMessage(AppendMessage(nil, m))
			carried.From, carried.To = m.From, m.To
			return carried, err
		},
		Envelope: func(m Message) (from, to uint64, kind fmt.Stringer) { return m.From, m.To, m.Kind },
		Branch:   func(p Participant) twophase.Branch { return p.Branch },
		Describe: DescribeBatch,
		Stuck: func(c *Core) (list []string) {
			for _, t := range c.transactions {
				list = append(list, fmt.Sprintf("transaction %v is %v for ever", t.id, t.phase))
			}
			for _, e := range c.entries {
				list = append(list, fmt.Sprintf("branch %v %s is %v for ever, elected %v, attempt %v, done %v", e.id, e.resource, e.state, e.elected, e.attempt, e.done))
			}
			return list
		},
		Patience: 600,
	})
	return w
}

// on returns participants, one on each node.
func on(nodes ...uint64) (list []Participant) {
	for _, n := range nodes {
		list = append(list, Participant{Branch: twophase.Branch{Node: n, Resource: "a"}})
	}
	return list
}
