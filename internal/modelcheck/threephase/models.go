package threephase

import (
	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/threephase"
)

// Enhanced returns the models of E3PC, and the mistakes that they find.
func Enhanced() network.System {
	s := network.System{Bugs: bugs}
	for _, m := range models() {
		if m.Protocol == core.Enhanced {
			s.Models = append(s.Models, m)
		}
	}
	return s
}

// Skeen returns the models of Skeen's protocol.
func Skeen() network.System {
	var s network.System
	for _, m := range models() {
		if m.Protocol == core.Skeen {
			s.Models = append(s.Models, m)
		}
	}
	return s
}

var closing = []string{"outcome", "done", "over", "inquire", "answer"}

// voted is how a transaction begins whose three participants vote yes: the coordinator's attempt to commit is on its way.
var voted = []string{
	"deliver from=1 to=2 type=prepare", "persist 2",
	"deliver from=1 to=3 type=prepare", "persist 3",
	"deliver from=2 to=1 type=vote",
	"deliver from=3 to=1 type=vote", "persist 1",
}

func models() []*Model {
	return []*Model{
		{
			Name: "t0", For: "", Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 2, Lost: closing, Before: voted,
		},
		{
			Name: "t1", For: "", Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 2, Crashes:1,Crashing: []uint64{2}, Lost: closing, Before: voted,
		},
		{
			Name: "t2", For: "", Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 3, Lost: closing, Before: voted,
		},
		{
			Name: "t3", For: "", Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "base", For: "elections, attempts, crashes that lose what is not durable, in any order, with any loss and repetition",
			Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 2, Expiries: 0, Crashes: 1, Lost: closing,
		},
		{
			Name: "partition", For: "what is silent is taken for crashed, and is not",
			Protocol: core.Skeen, Nodes: 3, Participants: []uint64{1, 2, 3}, Elections: 1, Expiries: 1, Lost: closing,
		},
	}
}

var bugs []network.Bug
