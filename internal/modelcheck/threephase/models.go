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
	three := []uint64{1, 2, 3}
	return []*Model{
		{
			Name: "base", For: "two elections beside the coordinator's attempt, a crash that loses what is not durable, in any order, with any loss and repetition",
			Nodes: 3, Participants: three, Elections: 2, Crashes: 1, Crashing: []uint64{2}, Lost: closing, Before: voted,
		},
		{
			Name: "elections", For: "two elections beside the coordinator's attempt",
			Nodes: 3, Participants: three, Elections: 2, Lost: closing, Before: voted,
		},
		{
			Name: "duel", For: "three elections beside the coordinator's attempt",
			Nodes: 3, Participants: three, Elections: 3, Standing: []uint64{2, 3}, Lost: closing, Before: voted,
		},
		{
			Name: "votes", For: "elections while votes are missing, crashes of any node",
			Nodes: 3, Participants: three, Elections: 1, Expiries: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "coordinator", For: "a coordinator that stands for election itself",
			Nodes: 4, Participants: []uint64{2, 3, 4}, Elections: 1, Expiries: 1, Lost: closing,
			Before: []string{
				"deliver from=1 to=2 type=prepare", "persist 2",
				"deliver from=1 to=3 type=prepare", "persist 3",
				"deliver from=1 to=4 type=prepare", "persist 4",
				"deliver from=2 to=1 type=vote",
				"deliver from=3 to=1 type=vote",
				"deliver from=4 to=1 type=vote",
			},
		},
		{
			Name: "two", For: "two participants, away from the coordinator, crashes of any node",
			Nodes: 3, Participants: []uint64{2, 3}, Elections: 2, Expiries: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "no", For: "a participant that votes no",
			Nodes: 3, Participants: three, No: []uint64{2}, Elections: 1, Expiries: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "read-only", For: "a participant that has nothing to commit",
			Nodes: 3, Participants: three, ReadOnly: []uint64{2}, Elections: 1, Expiries: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "weights", For: "a participant that is a quorum",
			Nodes: 3, Participants: three, Weights: []uint32{1, 1, 3}, Elections: 1, Expiries: 1, Crashes: 1, Lost: closing,
		},
		{
			Name: "inquiries", For: "participants that ask the coordinator, and what it presumes",
			Nodes: 3, Participants: three, Elections: 1, Crashes: 1, Crashing: []uint64{1}, Inquiries: true, Lost: []string{"outcome", "done", "over"}, Before: voted,
		},
		{
			Name: "closing", For: "outcomes that are told, acknowledged and forgotten",
			Nodes: 2, Participants: []uint64{1, 2}, Elections: 1, Expiries: 1, Crashes: 1, Closing: true, Lost: []string{"inquire", "answer"},
		},
		{
			Name: "forgetting", For: "outcomes that are forgotten, by three participants",
			Nodes: 3, Participants: three, Elections: 1, Standing: []uint64{2}, Closing: true, Lost: []string{"inquire", "answer"}, Before: voted,
		},
		{
			Name: "alone", For: "a single participant",
			Nodes: 2, Participants: []uint64{2}, Expiries: 2, Crashes: 2, Closing: true, Inquiries: true,
		},
		{
			Name: "partition", For: "what is silent is taken for crashed, and is not",
			Protocol: core.Skeen, Nodes: 3, Participants: three, Elections: 1, Expiries: 1, Lost: closing, Before: voted,
		},
		{
			Name: "patient", For: "elections where nobody is taken for crashed",
			Protocol: core.Skeen, Nodes: 3, Participants: three, Elections: 1, Expiries: 1, Lost: closing, Patient: true,
		},
	}
}

// bugs are the mistakes that can be put into the core, and the models that find them, the fastest first. Missing are those after which
// a transaction never ends, which no model sees, and "a no is told to others before it is durable", as resources always vote the same
// here: tests of the core find them.
var bugs = []network.Bug{
	{Name: "3pc: half of all is a quorum", Models: []string{"two"}},
	{Name: "3pc: any pre-commit is taken for the last attempt", Models: []string{"elections"}},
	{Name: "3pc: one acknowledgement is enough", Models: []string{"votes"}},
	{Name: "3pc: what was said in another election counts", Models: []string{"duel"}},
	{Name: "3pc: acknowledgements of another attempt count", Models: []string{"coordinator"}},
	{Name: "3pc: a commit is told without a pre-commit", Models: []string{"votes"}},
	{Name: "3pc: a no is not counted", Models: []string{"no"}},
	{Name: "3pc: a coordinator presumes what an earlier run has attempted", Models: []string{"inquiries"}},
	{Name: "3pc: a prepare of a transaction that is over is accepted", Models: []string{"closing"}},
	{Name: "3pc: a tombstone is not looked at", Models: []string{"closing"}},
	{Name: "3pc: the vote leaves before its record is durable", Models: []string{"votes"}},
	{Name: "3pc: an attempt of an older election is taken part in", Models: []string{"elections"}},
	{Name: "3pc: a participant's election is not durable", Models: []string{"base"}},
	{Name: "3pc: an attempt does not count as one", Models: []string{"elections"}},
	{Name: "3pc: an attempt is acknowledged before it is durable", Models: []string{"votes"}},
	{Name: "3pc: an election is not durable before it is held", Models: []string{"base"}},
}
