package paxos

import (
	"math/bits"

	"github.com/synod-go/synod"
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/multipaxos"
	"github.com/synod-go/synod/internal/replica"
)

// Model is what is explored, and within which bounds.
type Model struct {
	Name   string
	Voters int
	Spares int
	Slots  int

	Ballots, Values, Crashes, Ticks int

	MessageBytes uint64
	Lags         int
	Pipelined    bool
	Lose         string
}

// Budgets.
const (
	ballots = iota
	values
	crashes
	ticks
	lags
)

func (m *Model) protocol() multipaxos.Protocol { return multipaxos.Protocol{} }

func (m *Model) founders() []byte {
	var list []synod.Member
	for i := range m.Voters {
		list = append(list, synod.Member{Node: uint64(i + 1)})
	}
	return replica.NewConfiguration(list).Append(nil)
}

func (m *Model) quorum(voters uint64) bool { return 2*bits.OnesCount64(voters) > m.Voters }

// New makes the system of a model.
func New(m *Model) (*network.Network, error) {
	c := network.Config{Observer: &observer{m: m}, Budgets: []network.Budget{{Name: "ballots", Limit: m.Ballots, Free: true}, {Name: "values", Limit: m.Values}, {Name: "crashes", Limit: m.Crashes, Free: true}, {Name: "ticks", Limit: m.Ticks, Free: true}, {Name: "lags", Limit: m.Lags, Free: true}}, Restarts: crashes, Late: lags}
	if !m.Pipelined {
		c.Late = crashes
	}

	for i := range m.Voters + m.Spares {
		n, err := newNode(m, uint64(i+1))
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return network.New(c)
}
