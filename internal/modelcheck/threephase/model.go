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

// Model is what is explored, and within which bounds. It implements network.Model.
type Model struct {
	Name, For string
	Protocol  core.Protocol

	Nodes        int
	Participants []uint64 // nodes; node 1 coordinates
	Weights      []uint32 // of theirs; nil: all the same
	No, ReadOnly []uint64 // who votes so

	Elections int // in which a participant stands
	Expiries  int // how often the coordinator gives up waiting
	Crashes   int
	Crashing  []uint64 // who may; nil: all
	Standing  []uint64 // and who may stand for election
	Inquiries bool     // participants in doubt ask the coordinator
	Patient   bool     // nobody takes others for crashed
	Closing   bool     // it is looked at how the transaction is forgotten

	Lost   []string // kinds of messages that are always lost
	Before []string // a script with which it begins; what is not delivered in it is still on its way
}

var _ network.Model = (*Model)(nil)

// Numbers of the budgets.
const (
	elections = iota
	expiries
	crashes
)

func (m *Model) budgets() []network.Budget {
	return []network.Budget{
		elections: {Name: "elections", Limit: m.Elections, Free: true},
		expiries:  {Name: "expiries", Limit: m.Expiries, Free: true},
		crashes:   {Name: "crashes", Limit: m.Crashes, Free: true},
	}
}

func (m *Model) vote(id uint64) twophase.Vote {
	switch {
	case slices.Contains(m.No, id):
		return twophase.VoteNo
	case slices.Contains(m.ReadOnly, id):
		return twophase.VoteReadOnly
	}
	return twophase.VoteYes
}

// Label implements network.Model.
func (m *Model) Label() string { return m.Name }

// About implements network.Model.
func (m *Model) About() string { return m.For }

// Bounds implements network.Model.
func (m *Model) Bounds() string {
	words := []string{fmt.Sprintf("coordinator on node 1, participants on %s", network.List(m.Participants))}
	for i, w := range m.Weights {
		words = append(words, fmt.Sprintf("weight of %d: %d", m.Participants[i], w))
	}
	for _, b := range m.budgets() {
		if b.Limit > 0 {
			words = append(words, fmt.Sprintf("%d %s", b.Limit, b.Name))
		}
	}
	for _, who := range []struct {
		what string
		list []uint64
	}{{"crashing", m.Crashing}, {"standing", m.Standing}, {"no by", m.No}, {"read-only", m.ReadOnly}} {
		if len(who.list) > 0 {
			words = append(words, who.what+" "+network.List(who.list))
		}
	}
	if m.Inquiries {
		words = append(words, "inquiries")
	}
	if m.Patient {
		words = append(words, "patient")
	}
	if m.Closing {
		words = append(words, "closing")
	}
	if len(m.Before) > 0 {
		words = append(words, fmt.Sprintf("%d commands before", len(m.Before)))
	}
	if len(m.Lost) > 0 {
		words = append(words, "without "+strings.Join(m.Lost, ", "))
	}
	return strings.Join(words, ", ")
}

// Begin implements network.Model.
func (m *Model) Begin() []string {
	line := fmt.Sprintf("commit nodes=%d protocol=%v participants=(%s)", m.Nodes, m.Protocol, network.List(m.Participants))
	if len(m.Weights) > 0 {
		line += fmt.Sprintf(" weights=(%s)", network.List(m.Weights))
	}
	if len(m.No) > 0 {
		line += fmt.Sprintf(" no=(%s)", network.List(m.No))
	}
	if len(m.ReadOnly) > 0 {
		line += fmt.Sprintf(" read-only=(%s)", network.List(m.ReadOnly))
	}
	return append([]string{line}, m.Before...)
}

// Describe implements network.Model.
func (m *Model) Describe(from, to int, body []byte) string {
	x, err := core.DecodeMessage(body)
	if err != nil {
		return err.Error()
	}
	x.Floor = 0
	return x.String()
}

// New implements network.Model.
func (m *Model) New(planted bool) (*network.Network, error) {
	var p Player
	if err := p.start(m); err != nil {
		return nil, fmt.Errorf("threephase: model %s: %w", m.Name, err)
	}
	for _, line := range m.Before {
		if _, violation, err := p.Exec(line); violation != nil || err != nil {
			return nil, fmt.Errorf("threephase: model %s: %q: %w", m.Name, line, errors.Join(violation, err))
		}
	}
	c := network.Config{Observer: p.observer, Waiting: p.stage.Waiting, Budgets: m.budgets(), Restarts: []int{crashes}, Late: crashes, Planted: planted, Describe: m.Describe,
		Restarting: func(i int) bool { return p.nodes[i].mayCrash() }}
	for _, n := range p.nodes {
		c.Nodes = append(c.Nodes, n)
	}
	return network.New(c)
}
