package twophase_test

import (
	"fmt"
	"slices"

	. "github.com/synod-go/synod/internal/twophase"
	"github.com/synod-go/synod/internal/twophase/commitmenttest"
)

type (
	simulated = commitmenttest.World[*Core, Message, Branch]
	node      = commitmenttest.Node[*Core, Message, Branch]
	action    = commitmenttest.Action[*Core, Message, Branch]
	scenario  = commitmenttest.Scenario[*Core, Message, Branch]
)

// register is a decision log.
type register struct {
	decided map[ID]Decision
	over    map[ID]Progress // by incarnation
	writes  int
}

func newRegister() *register { return &register{map[ID]Decision{}, map[ID]Progress{}, 0} }

// incarnation names that of a transaction.
func incarnation(id ID) ID { return ID{Node: id.Node, Incarnation: id.Incarnation} }

func (r *register) decide(d Decision) Verdict {
	if old, there := r.decided[d.ID]; there {
		if old.Outcome == OutcomeCommitted {
			return VerdictCommitted
		}
		return VerdictAborted
	}
	if p := r.over[incarnation(d.ID)]; p.Over(d.ID.Counter) {
		return VerdictForgotten
	}
	r.writes++
	r.decided[d.ID] = d
	if d.Outcome == OutcomeCommitted {
		return VerdictCommitted
	}
	return VerdictAborted
}

func (r *register) forget(p Progress) {
	of := ID{Node: p.Node, Incarnation: p.Incarnation}
	r.over[of] = p
	for id := range r.decided {
		if incarnation(id) == of && p.Over(id.Counter) {
			delete(r.decided, id)
		}
	}
}

// recover ends what an earlier run has begun, but for what is decided, or delegated.
func (r *register) recover(p Progress) []Decision {
	var list []Decision
	for _, d := range r.decided {
		if incarnation(d.ID) == (ID{Node: p.Node, Incarnation: p.Incarnation}) {
			list = append(list, d)
			p.Open = append(p.Open, d.ID.Counter)
		}
	}
	slices.Sort(p.Open)
	r.forget(p)
	slices.SortFunc(list, func(a, b Decision) int { return a.ID.Compare(b.ID) })
	return list
}

// world is nodes whose cores have a configuration, which counts when they start, and their decision logs.
type world struct {
	*simulated
	cfg       Config
	decisions map[uint64]*register // by node
}

func newWorld(count int, onePhase bool, shared bool) *world {
	w := &world{decisions: map[uint64]*register{}, cfg: Config{PrepareTicks: 12, ResendTicks: 3, InquireTicks: 4, PeerTicks: 8,
		MaxTransactions: 50, MaxBranches: 50, MaxParticipants: 10, MaxFinished: 1000}}
	w.simulated = commitmenttest.NewWorld(count, commitmenttest.Protocol[*Core, Message, Branch]{
		Start:   w.start,
		Ready:   w.ready,
		DoneOne: (*Core).DoneOne,
		Carry: func(m Message) (Message, error) {
			carried, err := DecodeMessage(AppendMessage(nil, m))
			carried.From, carried.To = m.From, m.To
			return carried, err
		},
		Envelope: func(m Message) (from, to uint64, kind fmt.Stringer) { return m.From, m.To, m.Kind },
		Branch:   func(b Branch) Branch { return b },
		Describe: DescribeBatch,
		Stuck:    (*Core).ForEver,
		Patience: 400,
	})
	if shared {
		w.cfg.TakeOverTicks = 16
	}
	common := newRegister()
	for id, n := range w.Nodes {
		w.decisions[id] = common
		if !shared {
			w.decisions[id] = newRegister()
		}
		for _, r := range n.Resources {
			r.OnePhase = onePhase
		}
	}
	return w
}

func (w *world) start(n *node, keys, values [][]byte) (*Core, error) {
	cfg := w.cfg
	cfg.Node, cfg.Base, cfg.Incarnation = n.ID, n.Base, commitmenttest.Incarnation*n.ID
	cfg.OnePhase = map[string]bool{}
	for name, r := range n.Resources {
		cfg.OnePhase[name] = r.OnePhase
	}
	decisions := w.decisions[n.ID].recover(Progress{Node: n.ID, Incarnation: cfg.Incarnation, Upcoming: n.Base, Open: Delegated(n.ID, cfg.Incarnation, keys)})
	c := New(cfg)
	return c, c.Load(keys, values, decisions)
}

func (w *world) ready(n *node, act func(order, what string, do func())) commitmenttest.Ready[Message] {
	r := n.Core.Ready()
	log := w.decisions[n.ID]
	for _, d := range r.Decide {
		act("", fmt.Sprintf("decide %v %v", d.ID, d.Outcome), func() { n.Core.Decided(d.ID, log.decide(d)) })
	}
	for _, p := range r.Over {
		act("over", fmt.Sprintf("over below %d but for %v", p.Upcoming, p.Open), func() { log.forget(p) })
	}
	return commitmenttest.Ready[Message]{Messages: r.Messages, Results: r.Results, Batch: r.Batch, Token: r.Token, Calls: r.Calls}
}

func branchesOf(nodes ...uint64) []Branch {
	var list []Branch
	for _, n := range nodes {
		list = append(list, Branch{Node: n, Resource: "a"})
	}
	return list
}
