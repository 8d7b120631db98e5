package commit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// Model is what is explored, and within which bounds.
type Model struct {
	Name string
	For  string // what is looked at

	Nodes        int
	Shared       bool                       // the decision log outlives all nodes, and participants may propose to abort
	Transactions []Transaction              // that begin, in this order
	Votes        map[uint64][]twophase.Vote // what a node's resources may vote; default: yes
	OnePhase     []uint64                   // nodes whose resources commit in one phase
	Forgetful    bool                       // no branch that is over is remembered

	// How often something may happen in a run.
	Crashes  int // a node loses what is not durable, and starts again
	Ticks    int // a node's time passes by one unit, which is as long as anybody waits for anything
	Timeouts int // a proposal to the shared log fails, for who made it
	Failures int // a resource does not commit or abort, and is to be asked again
	Forces   int // an operator decides a branch that is in doubt
	Losses   int // a coordinator's store is lost: participants may be in doubt for ever then

	// Who may do so; nil: all.
	Crashing []uint64
	Ticking  []uint64

	// Sample is of how many states it is checked for one that everything ends, once nothing fails any more; default: for all.
	Sample uint64

	// Before is a script that has happened before.
	Before []string

	coordinators []uint64 // of a script, which does not know the transactions yet
	done         int      // transactions that have begun before
}

// Transaction is one that a node is asked to commit.
type Transaction struct {
	At       uint64
	Branches []twophase.Branch
}

// Numbers of the budgets.
const (
	transactions = iota
	crashes
	ticks
	timeouts
	failures
	forces
	losses
)

func (m *Model) budgets() []network.Budget {
	return []network.Budget{
		transactions: {Name: "transactions", Limit: len(m.Transactions) - m.done}, // it says which one is next
		crashes:      {Name: "crashes", Limit: m.Crashes, Free: true},
		ticks:        {Name: "ticks", Limit: m.Ticks, Free: true},
		timeouts:     {Name: "timeouts", Limit: m.Timeouts, Free: true},
		failures:     {Name: "failures", Limit: m.Failures, Free: true},
		forces:       {Name: "forces", Limit: m.Forces, Free: true},
		losses:       {Name: "losses", Limit: m.Losses, Free: true},
	}
}

// may reports whether a node is one of those who may do something.
func may(who []uint64, node uint64) bool { return who == nil || slices.Contains(who, node) }

// crashing reports whether a node may lose what is not durable.
func (m *Model) crashing(node uint64) bool { return m.Crashes > 0 && may(m.Crashing, node) }

// coordinates reports whether transactions begin on a node.
func (m *Model) coordinates(node uint64) bool {
	return slices.Contains(m.coordinators, node) || slices.ContainsFunc(m.Transactions, func(t Transaction) bool { return t.At == node })
}

func (m *Model) votes(node uint64) []twophase.Vote {
	if v := m.Votes[node]; v != nil {
		return v
	}
	return []twophase.Vote{twophase.VoteYes}
}

// resources are those of each node.
var resources = []string{"a", "b"}

// config is that of a core. Everybody waits for one tick, for whatever it is: so what happens at a tick may happen at any
// time.
func (m *Model) config(node uint64) twophase.Config {
	cfg := twophase.Config{Node: node, OnePhase: map[string]bool{}, OpenTicks: 1, PrepareTicks: 1, ResendTicks: 1, InquireTicks: 1, PeerTicks: 1,
		MaxTransactions: 16, MaxBranches: 16, MaxParticipants: 16, MaxFinished: 1 << 10}
	for _, name := range resources {
		cfg.OnePhase[name] = slices.Contains(m.OnePhase, node)
	}
	if m.Shared {
		cfg.TakeOverTicks = 1
	}
	if m.Forgetful {
		cfg.MaxFinished = 0
	}
	return cfg
}

// listBranches shows branches as scripts have them: * is a last agent, + one with work.
func listBranches(branches []twophase.Branch) string {
	var words []string
	for _, b := range branches {
		s := b.String()
		if len(b.Work) > 0 {
			s += "+"
		}
		words = append(words, s)
	}
	return "(" + strings.Join(words, ",") + ")"
}

// by reads what listBranches shows, without the parentheses.
func by(words ...string) (list []twophase.Branch) {
	for _, w := range words {
		var b twophase.Branch
		if w = strings.TrimSpace(w); strings.HasSuffix(w, "+") {
			w, b.Work = strings.TrimSuffix(w, "+"), []byte("work")
		}
		w, b.LastAgent = strings.CutSuffix(w, "*")
		node, resource, _ := strings.Cut(w, "/")
		b.Node, _ = strconv.ParseUint(node, 10, 64)
		b.Resource = resource
		list = append(list, b)
	}
	return list
}

// Bounds says within which bounds the model is explored.
func (m *Model) Bounds() string {
	words := []string{fmt.Sprintf("%d nodes", m.Nodes)}
	if m.Shared {
		words = append(words, "a shared decision log")
	}
	for _, t := range m.Transactions {
		words = append(words, fmt.Sprintf("%d commits %s", t.At, listBranches(t.Branches)))
	}
	for _, b := range m.budgets() {
		if b.Limit > 0 && b.Name != "transactions" {
			words = append(words, fmt.Sprintf("%d %s", b.Limit, b.Name))
		}
	}
	for n := range uint64(m.Nodes) {
		var votes []string
		for _, v := range m.Votes[n+1] {
			votes = append(votes, v.String())
		}
		if len(votes) > 0 {
			words = append(words, fmt.Sprintf("%d votes %s", n+1, strings.Join(votes, " or ")))
		}
	}
	for _, who := range []struct {
		what  string
		nodes []uint64
	}{{"one phase", m.OnePhase}, {"crashing", m.Crashing}, {"ticking", m.Ticking}} {
		if who.nodes != nil {
			words = append(words, who.what+" "+network.List(who.nodes))
		}
	}
	if m.Forgetful {
		words = append(words, "nothing remembered")
	}
	if len(m.Before) > 0 {
		words = append(words, fmt.Sprintf("%d commands before", len(m.Before)))
	}
	if m.Sample > 1 {
		words = append(words, fmt.Sprintf("one of %d healed", m.Sample))
	} else {
		words = append(words, "all healed")
	}
	return strings.Join(words, ", ")
}

// first is the first line of a script: all that its nodes depend on.
func (m *Model) first() string {
	line := fmt.Sprintf("nodes %d", m.Nodes)
	if m.Shared {
		line += " shared"
	}
	var who []uint64
	for n := range uint64(m.Nodes) {
		if m.coordinates(n + 1) {
			who = append(who, n+1)
		}
	}
	line += fmt.Sprintf(" coordinators=(%s)", network.List(who))
	who = nil
	for n := range uint64(m.Nodes) {
		if m.crashing(n + 1) {
			who = append(who, n+1)
		}
	}
	if len(who) > 0 {
		line += fmt.Sprintf(" crashing=(%s)", network.List(who))
	}
	if len(m.OnePhase) > 0 {
		line += fmt.Sprintf(" one=(%s)", network.List(m.OnePhase))
	}
	if m.Forgetful {
		line += " forgetful"
	}
	if m.Forces > 0 {
		line += " operator"
	}
	return line
}

// Label implements network.Model.
func (m *Model) Label() string { return m.Name }

// About implements network.Model.
func (m *Model) About() string { return m.For }

// Begin implements network.Model.
func (m *Model) Begin() []string { return append([]string{m.first()}, m.Before...) }

// Describe implements network.Model.
func (m *Model) Describe(from, to int, body []byte) string {
	return describe(uint64(from+1), uint64(to+1), body)
}

// New implements network.Model.
func (m *Model) New(planted bool) (*network.Network, error) {
	var p Player
	err := p.start(m)
	for _, line := range m.Before {
		if err != nil {
			break
		}
		var violation error
		_, violation, err = p.Exec(line)
		if err == nil {
			err = violation
		}
	}
	m.done = len(p.observer.history)
	if err != nil {
		return nil, fmt.Errorf("commit: model %s: %w", m.Name, err)
	}
	c := network.Config{Nodes: p.all(), Observer: p.observer, Waiting: p.stage.Waiting, Budgets: m.budgets(), Restarts: []int{crashes, losses}, Late: -1, Planted: planted, Describe: m.Describe,
		Restarting: func(node int) bool { return m.crashing(uint64(node+1)) || m.Losses > 0 }, Check: m.heals, Sample: m.Sample}
	return network.New(c)
}
