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

// votes is what the resources of nodes may vote.
type votes = map[uint64][]twophase.Vote

// models returns all of them. The first is the one that is meant by "the protocol is right": the others each look at
// something that it leaves out.
func models() []*Model {
	beside, remote := by("1/a", "2/a"), by("2/a", "3/a")
	return []*Model{
		{
			Name: "base", For: "two participants, one of them beside the coordinator: crashes that lose what is not durable, and time-outs, at any time",
			Nodes: 2, Transactions: []Transaction{{1, beside}}, Crashes: 2, Ticks: 5,
			Votes: votes{1: {yes, no}, 2: {yes, no}},
		},
		{
			Name: "remote", For: "two participants, that ask each other when the coordinator does not answer",
			Nodes: 3, Transactions: []Transaction{{1, remote}}, Crashes: 2, Ticks: 2,
			Votes: votes{3: {yes, no}},
		},
		{
			Name: "three", For: "three participants",
			Nodes: 3, Transactions: []Transaction{{1, by("1/a", "2/a", "3/a")}}, Crashes: 1, Ticks: 1,
			Votes: votes{3: {yes, no}},
		},
		{
			Name: "read-only", For: "participants that have nothing to commit, and leave",
			Nodes: 3, Transactions: []Transaction{{1, remote}}, Crashes: 1, Ticks: 2,
			Votes: votes{2: {yes, ro}, 3: {yes, ro}},
		},
		{
			Name: "staying", For: "participants that have nothing to commit, and keep their locks until they are told",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a+", "2/a")}}, Crashes: 2, Ticks: 2,
			Votes: votes{1: {yes, ro, no}, 2: {yes, ro}},
		},
		{
			Name: "alone", For: "a single participant, that prepares",
			Nodes: 2, Transactions: []Transaction{{1, by("2/a")}, {1, by("2/a")}}, Crashes: 1, Ticks: 1,
			Votes: votes{2: {yes, ro, no}},
		},
		{
			Name: "one-phase", For: "a single participant, that commits in one phase",
			Nodes: 2, Transactions: []Transaction{{1, by("2/a")}, {1, by("2/a")}}, Crashes: 1, Ticks: 1, OnePhase: []uint64{2}, Failures: 1,
			Votes: votes{2: {yes, no}},
		},
		{
			Name: "last-agent", For: "a last agent, that can't prepare",
			Nodes: 3, Transactions: []Transaction{{1, by("1/a", "2/a", "3/a*")}}, Crashes: 1, Ticks: 1, OnePhase: []uint64{3},
			Votes: votes{2: {yes, ro}, 3: {yes, no}},
		},
		{
			Name: "agent", For: "a last agent, with more crashes and time",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a*")}}, Crashes: 3, Ticks: 3, OnePhase: []uint64{2},
			Votes: votes{1: {yes, ro}, 2: {yes, no}},
		},
		{
			Name: "takeover", For: "a decision log that outlives the nodes: participants do not wait for the coordinator",
			Nodes: 3, Transactions: []Transaction{{1, remote}}, Shared: true, Crashes: 1, Ticks: 2,
		},
		{
			Name: "slow-log", For: "a shared decision log that does not answer in time",
			Nodes: 2, Transactions: []Transaction{{1, beside}}, Shared: true, Crashes: 1, Ticks: 2, Timeouts: 1,
			Votes: votes{2: {yes, no}},
		},
		{
			Name: "progress", For: "what is said to a shared log late: that an earlier transaction may be forgotten, and a decision of an earlier run",
			Nodes: 2, Transactions: []Transaction{{1, beside}, {1, beside}}, Shared: true, Crashes: 1, Ticks: 1, Crashing: []uint64{1},
			Before: []string{"commit 1 by=(1/a,2/a)", "settle", "tick 2", "settle", "tick 1"},
		},
		{
			Name: "floor", For: "two transactions of a coordinator, the first of which is forgotten, and comes late",
			Nodes: 2, Transactions: []Transaction{{1, beside}, {1, by("2/a")}}, Crashes: 1, Ticks: 1,
		},
		{
			Name: "forgetful", For: "no room for how transactions end: the floor passes one that is prepared",
			Nodes: 2, Transactions: []Transaction{{1, beside}, {1, beside}}, Crashes: 1, Ticks: 1, Forgetful: true, Crashing: []uint64{2},
			Votes:  votes{2: {yes, ro}},
			Before: []string{"commit 1 by=(1/a,2/a)", "deliver from=1 to=2 type=prepare", "call 2 prepare 1.10 a yes", "persist 2"},
		},
		{
			Name: "coordinators", For: "two coordinators, that are each other's participants",
			Nodes: 2, Transactions: []Transaction{{1, beside}, {2, beside}}, Crashes: 1,
		},
		{
			Name: "failures", For: "resources that fail, and are asked again",
			Nodes: 2, Transactions: []Transaction{{1, beside}}, Crashes: 2, Ticks: 3, Failures: 2,
		},
		{
			Name: "operator", For: "an operator decides what is in doubt: where that is wrong there is a record of it",
			Nodes: 2, Transactions: []Transaction{{1, beside}}, Crashes: 1, Ticks: 2, Forces: 1,
		},
		{
			Name: "lost", For: "a coordinator whose store is lost: it presumes nothing",
			Nodes: 3, Transactions: []Transaction{{1, remote}}, Ticks: 2, Losses: 1,
		},
	}
}
