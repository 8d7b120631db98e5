package commit

import (
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/twophase"
)

// System returns the models of two-phase commit, and the mistakes that they find.
func System() network.System {
	s := network.System{Bugs: bugs}
	for _, m := range models() {
		s.Models = append(s.Models, m)
	}
	return s
}

const (
	yes = twophase.VoteYes
	no  = twophase.VoteNo
	ro  = twophase.VoteReadOnly
)

// models returns all of them.
func models() []*Model {
	return []*Model{
		{
			Name: "base", For: "two participants, one of them beside the coordinator",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}}, Crashes: 2, Ticks: 2,
			Votes: map[uint64][]twophase.Vote{2: {yes, no}},
		},
	}
}
