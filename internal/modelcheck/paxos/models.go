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
			Voters: 3, Slots: 2, Ballots: 3, Values: 2, Crashes: 1, Lost: []string{"heartbeat", "refused"},
		},
		{
			Name: "refused", For: "candidates and leaders that are told of a higher ballot",
			Voters: 3, Slots: 2, Ballots: 3, Values: 2, Crashes: 1, Candidates: []uint64{1, 2}, Lost: heartbeats,
		},
		{
			Name: "slots", For: "more slots, with gaps between them",
			Voters: 3, Slots: 3, Ballots: 2, Values: 1, Lost: heartbeats,
		},
		{
			Name: "gaps", For: "slots that a leader has left open before one that others have, and what it is told of them",
			Voters: 3, Slots: 4, Ballots: 2, Candidates: []uint64{2, 3}, Lost: []string{"refused"},
			Before: []string{
				"campaign 1",
				"persist 1",
				"deliver from=1 to=2 type=prepare",
				"persist 2",
				"deliver from=2 to=1 type=promise",
				"persist 1",
				"propose 1 x",
				"persist 1",
				"deliver from=1 to=2 type=accept nth=2",
				"persist 2",
				"drop",
			},
		},
		{
			Name: "pipeline", For: "writes that become durable late, while other messages come and go",
			Voters: 3, Slots: 2, Ballots: 2, Crashes: 1, Lags: 1, Candidates: []uint64{2, 3}, Lost: heartbeats,
		},
		{
			Name: "heartbeats", For: "heartbeats, that tell what is decided and what must be there",
			Voters: 3, Slots: 2, Ballots: 2,
		},
		{
			Name: "ticks", For: "elections by time: members are asked first, leaders that hear nobody step down, messages are sent again",
			Voters: 3, Slots: 1, Ballots: 1, Ticks: 2,
		},
		{
			Name: "reads", For: "reads that leaders answer",
			Voters: 3, Slots: 2, Ballots: 2, Reads: 1, Candidates: []uint64{1, 2},
		},
		{
			Name: "looks", For: "reads without a leader",
			Voters: 3, Slots: 1, Ballots: 1, Reads: 1, Ticks: 1, ElectionTicks: 8, Candidates: []uint64{1}, Readers: []uint64{3},
		},
		{
			Name: "leases", For: "members on whom a leader counts",
			Voters: 3, Slots: 1, Ballots: 2, Crashes: 1, Ticks: 1, Leases: true, ElectionTicks: 2, Crashing: []uint64{2, 3}, Candidates: []uint64{2, 3},
			Before: []string{"tick 1", "tick 1", "tick 2", "tick 2", "tick 3", "tick 3", "drop"},
		},
		{
			Name: "alone", For: "leases, where a node was the only voter and can't know whether it still is",
			Voters: 1, Spares: 1, Slots: 6, Ballots: 2, Crashes: 1, Ticks: 3, Leases: true, ElectionTicks: 2,
			Before: []string{
				"campaign 1",
				"settle 1",
				"reconfigure 1 voters=(1) learners=(2)",
				"settle 1",
				"reconfigure 1 voters=(1,2) outgoing=(1)",
				"settle 1",
				"crash 1",
			},
		},
		{
			Name: "pieces", For: "promises that come in pieces",
			Voters: 3, Slots: 3, Ballots: 2, Values: 1, MessageBytes: 1, Candidates: []uint64{2, 3}, Lost: []string{"heartbeat", "refused"},
		},
		{
			Name: "trim", For: "snapshots, logs that begin late",
			Voters: 3, Slots: 2, Ballots: 2, Trims: 1, Crashes: 1, Lost: heartbeats,
		},
		{
			Name: "damage", For: "disks that lose records, or alter them",
			Voters: 3, Slots: 2, Ballots: 2, Damages: 1, Lost: heartbeats,
		},
		{
			Name: "durable", For: "state machines that are ahead of the log after a crash, and two ballots of one round",
			Voters: 3, Slots: 4, Ballots: 2, Crashes: 1, Durable: true, Candidates: []uint64{2, 3}, Lost: heartbeats,
			Before: []string{
				"campaign 2",
				"campaign 3",
				"persist 2",
				"persist 3",
				"deliver from=2 to=1 type=prepare",
				"persist 1",
				"deliver from=1 to=2 type=promise",
				"persist 2",
				"propose 2 x",
				"persist 2",
				"drop from=2",
				"deliver from=3 to=1 type=prepare",
				"persist 1",
				"deliver from=1 to=3 type=promise",
				"deliver from=3 to=1 type=accept",
				"persist 1",
				"persist 3",
				"deliver from=1 to=3 type=accepted",
				"deliver from=3 to=2 type=accept",
				"deliver from=3 to=2 type=heartbeat nth=2",
				"crash 2",
				"drop",
			},
		},
		{
			Name: "reconfigure", For: "a change of the voters, by way of both sets",
			Voters: 3, Slots: 4, Ballots: 2, Values: 1, Lost: heartbeats,
			Changes: []Change{
				{Configuration{Voters: []uint64{1, 2, 3}}, Configuration{Voters: []uint64{1}, Outgoing: []uint64{1, 2, 3}}},
				{Configuration{Voters: []uint64{1}, Outgoing: []uint64{1, 2, 3}}, Configuration{Voters: []uint64{1}}},
			},
		},
		{
			Name: "twice", For: "two quick changes of the voters, and members that know of none",
			Voters: 5, Slots: 8, Ballots: 1, Values: 1, Candidates: []uint64{3}, Lost: heartbeats,
			Before: []string{
				"campaign 5",
				"settle 1 2 3 4 5",
				"reconfigure 5 voters=(3,4,5) outgoing=(1,2,3,4,5)",
				"persist 5",
				"deliver from=5 to=1 type=accept",
				"deliver from=5 to=2 type=accept",
				"persist 1",
				"persist 2",
				"drop from=5",
				"deliver from=1 to=5 type=accepted",
				"deliver from=2 to=5 type=accepted",
				"drop",
				"reconfigure 5 voters=(3,4,5)",
				"persist 5",
				"deliver from=5 to=3 type=accept",
				"deliver from=5 to=4 type=accept",
				"persist 3",
				"persist 4",
				"drop from=5",
				"deliver from=3 to=5 type=accepted",
				"deliver from=4 to=5 type=accepted",
				"drop",
				"propose 5 x",
				"persist 5",
				"deliver from=5 to=4 type=accept",
				"persist 4",
				"deliver from=4 to=5 type=accepted",
				"drop",
			},
		},
		{
			Name: "leave", For: "a replica that is removed from its node and joins again, and a member that knows of no change",
			Voters: 3, Slots: 8, Ballots: 1, Values: 1, Rejoins: 1, ElectionTicks: 3, Candidates: []uint64{2}, Crashing: []uint64{3}, Lost: heartbeats,
			Before: []string{
				"campaign 1",
				"settle 1 2 3",
				"snapshot 2",
				"compact 2 2",
				"persist 2",
				"crash 3",
				"tick 3",
				"tick 3",
				"tick 3",
				"tick 3",
				"tick 3",
				"deliver from=3 to=2 type=canvass",
				"deliver from=2 to=3 type=canvassed",
				"deliver from=3 to=2 type=learn",
				"drop type=canvass",
				"drop type=canvassed",
				"drop type=accepted",
				"propose 1 x",
				"drop from=1 to=2",
				"settle 1 3 keep",
				"reconfigure 1 voters=(1) outgoing=(1,2,3)",
				"drop from=1 to=2",
				"settle 1 3 keep",
				"reconfigure 1 voters=(1)",
				"drop from=1 to=2",
				"settle 1 3 keep",
				"drop from=1 to=2",
			},
		},
		{
			Name: "quorums", For: "quorums that are no majorities",
			Voters: 3, Slots: 2, Ballots: 2, Values: 1, Crashes: 1, Phase1: 3, Phase2: 1, Lost: heartbeats,
		},
		{
			Name: "disjoint", For: "quorums that need not have a member in common: they are refused",
			Voters: 3, Slots: 2, Ballots: 2, Phase1: 2, Phase2: 1, Refused: true, Lost: heartbeats,
		},
	}
}
