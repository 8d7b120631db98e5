package paxos

import "github.com/synod-go/synod/internal/modelcheck/network"

// System returns the models of Multi-Paxos, and the mistakes that they find.
func System() network.System {
	s := network.System{Bugs: bugs}
	for _, m := range models() {
		s.Models = append(s.Models, m)
	}
	return s
}

// models returns all of them. The first is the one that is meant by "the protocol is right": the others each look at
// something that it leaves out, within smaller bounds.
func models() []*Model {
	heartbeats := []string{"heartbeat"}
	return []*Model{
		{
			Name: "base", For: "elections, proposals, crashes that lose what is not durable, in any order, with any loss and repetition",
			Voters: 3, Slots: 2, Ballots: 3, Values: 2, Crashes: 1, Lost: heartbeats,
		},
		{
			Name: "slots", For: "more slots than ballots, with gaps between them",
			Voters: 3, Slots: 4, Ballots: 2, Values: 2, Lost: heartbeats,
		},
		{
			Name: "pipeline", For: "writes that become durable late, while other messages come and go",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1, Crashes: 1, Lags: 1, Lost: heartbeats,
		},
		{
			Name: "heartbeats", For: "heartbeats, that tell what is decided and what must be there",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1,
		},
		{
			Name: "ticks", For: "elections by time: members are asked first, leaders that hear nobody step down, messages are sent again",
			Voters: 3, Slots: 1, Ballots: 1, Values: 0, Ticks: 3,
		},
		{
			Name: "reads", For: "reads at leaders, at followers, and without a leader",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1, Reads: 1,
		},
		{
			Name: "leases", For: "members on whom a leader counts",
			Voters: 3, Slots: 1, Ballots: 2, Crashes: 1, Ticks: 3, Leases: true, ElectionTicks: 2,
		},
		{
			Name: "pieces", For: "promises that come in pieces",
			Voters: 3, Slots: 3, Ballots: 2, Values: 2, MessageBytes: 1, Lost: heartbeats,
		},
		{
			Name: "trim", For: "snapshots, logs that begin late",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1, Trims: 1, Crashes: 1, Lost: heartbeats,
		},
		{
			Name: "damage", For: "disks that lose records, or alter them",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1, Damages: 1, Lost: heartbeats,
		},
	}
}
