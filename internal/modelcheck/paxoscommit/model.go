package paxoscommit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/paxoscommit"
)

// Model is what is explored, and within which bounds.
type Model struct {
	Name string
	For  string // what is looked at

	Groups       int           // numbered from 1 on
	Transactions []Transaction // that the client begins, in this order, each at any time
	Refusing     []uint32      // groups that may vote no; others vote yes if they vote
	Recoverers   int           // each ends each transaction once, if it comes across it
	Seen         int           // only so many transactions, the first ones, are come across; 0: all
	Patient      bool          // the client does not give up what it waits for: it crashes, at most
	Short        bool          // the last group of a transaction may not be asked at all, for certain
	Expirations  int           // how often a group forgets sessions
	Full         int           // how often a group is full, and takes in no session that it does not know, for some time

	Before []string // a script that has happened before
	done   int      // transactions that have begun before
}

// Transaction is one that the client begins.
type Transaction struct {
	Session int // from 1 on: they were opened in this order, and were used last in the contrary one
	Groups  []uint32
}

// Numbers of the budgets.
const (
	transactions = iota
	expirations
	full
)

func (m *Model) budgets() []network.Budget {
	return []network.Budget{
		transactions: {Name: "transactions", Limit: len(m.Transactions) - m.done}, // it says which one is next
		expirations:  {Name: "expirations", Limit: m.Expirations, Free: true},
		full:         {Name: "full", Limit: m.Full, Free: true},
	}
}

// session returns the ID of a session.
func (m *Model) session(number int) core.Session {
	return core.Session{Opened: uint64(number), Random: uint64(MaxSessions - number + 1)}
}

// MaxSessions and MaxTransactions are how many there are at most in a model.
const (
	MaxSessions     = 3
	MaxTransactions = 6
)

// ids returns the IDs of the transactions, in the order in which they begin.
func (m *Model) ids() []core.ID {
	list := make([]core.ID, len(m.Transactions))
	var next [MaxSessions + 1]uint64
	for i, t := range m.Transactions {
		next[t.Session]++
		list[i] = core.ID{Session: m.session(t.Session), Counter: next[t.Session]}
	}
	return list
}

func (m *Model) index(id core.ID) int { return slices.Index(m.ids(), id) }

// times are before which sessions may be forgotten.
func (m *Model) times() (list []uint64) {
	for _, t := range m.Transactions {
		list = append(list, used(m.session(t.Session))+1)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Bounds says within which bounds the model is explored.
func (m *Model) Bounds() string {
	words := []string{fmt.Sprintf("%d groups, a client, %d recoverers", m.Groups, m.Recoverers)}
	for _, t := range m.Transactions {
		words = append(words, fmt.Sprintf("a transaction over (%s) in session %d", network.List(t.Groups), t.Session))
	}
	if len(m.Refusing) > 0 {
		words = append(words, fmt.Sprintf("%s may vote no", network.List(m.Refusing)))
	}
	if m.Seen > 0 {
		words = append(words, fmt.Sprintf("they come across %d transactions", m.Seen))
	}
	if m.Patient {
		words = append(words, "the client does not give up")
	}
	if m.Short {
		words = append(words, "the last group may not be asked")
	}
	if m.Expirations > 0 {
		words = append(words, fmt.Sprintf("%d expirations", m.Expirations))
	}
	if m.Full > 0 {
		words = append(words, fmt.Sprintf("%d times full", m.Full))
	}
	if len(m.Before) > 0 {
		words = append(words, fmt.Sprintf("%d commands before", len(m.Before)))
	}
	return strings.Join(append(words, "all healed"), ", ")
}

// first is the first line of a script: all that its nodes depend on.
func (m *Model) first() string {
	line := fmt.Sprintf("groups %d recoverers=%d", m.Groups, m.Recoverers)
	if len(m.Refusing) > 0 {
		line += fmt.Sprintf(" refusing=(%s)", network.List(m.Refusing))
	}
	if m.Seen > 0 {
		line += fmt.Sprintf(" seen=%d", m.Seen)
	}
	if m.Expirations > 0 {
		line += " expiring"
	}
	if m.Full > 0 {
		line += " filling"
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
func (m *Model) Describe(_, _ int, body []byte) string { return describe(body) }

// New implements network.Model.
func (m *Model) New(planted bool) (*network.Network, error) {
	var p Player
	p.start(m)
	for _, line := range m.Before {
		if _, violation, err := p.Exec(line); violation != nil || err != nil {
			return nil, fmt.Errorf("paxoscommit: model %s: %q: %v, %w", m.Name, line, violation, err)
		}
	}
	m.done = len(p.client().attempts)
	c := network.Config{Nodes: p.nodes, Observer: p.observer, Waiting: p.stage.Waiting, Budgets: m.budgets(), Late: -1, Planted: planted, Describe: m.Describe, Check: m.heals}
	return network.New(c)
}
