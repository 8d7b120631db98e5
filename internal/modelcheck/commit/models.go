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
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}}, Crashes: 2, Ticks: 3,
			Votes: map[uint64][]twophase.Vote{2: {yes, no}},
		},
		{
			Name: "remote", For: "two participants, that may ask each other",
			Nodes: 3, Transactions: []Transaction{{1, by("2/a", "3/a")}}, Crashes: 1, Ticks: 2,
			Votes: map[uint64][]twophase.Vote{3: {yes, no}},
		},
		{
			Name: "three", For: "three participants",
			Nodes: 3, Transactions: []Transaction{{1, by("1/a", "2/a", "3/a")}}, Crashes: 1, Ticks: 1,
			Votes: map[uint64][]twophase.Vote{3: {yes, no}},
		},
		{
			Name: "read-only", For: "participants that have nothing to commit, and leave",
			Nodes: 3, Transactions: []Transaction{{1, by("2/a", "3/a")}}, Crashes: 1, Ticks: 1,
			Votes: map[uint64][]twophase.Vote{2: {yes, ro}, 3: {yes, ro}},
		},
		{
			Name: "staying", For: "participants that have nothing to commit, and keep their locks",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a+", "2/a")}}, Crashes: 1, Ticks: 2,
			Votes: map[uint64][]twophase.Vote{1: {yes, ro, no}, 2: {yes, ro}},
		},
		{
			Name: "alone", For: "a single participant, that prepares",
			Nodes: 2, Transactions: []Transaction{{1, by("2/a")}}, Crashes: 2, Ticks: 2,
			Votes: map[uint64][]twophase.Vote{2: {yes, ro, no}},
		},
		{
			Name: "one-phase", For: "a single participant, that commits in one phase",
			Nodes: 2, Transactions: []Transaction{{1, by("2/a")}}, Crashes: 2, Ticks: 2, OnePhase: []uint64{2},
			Votes: map[uint64][]twophase.Vote{2: {yes, no}},
		},
		{
			Name: "last-agent", For: "a last agent, that can't prepare",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a*")}}, Crashes: 2, Ticks: 2, OnePhase: []uint64{2},
			Votes: map[uint64][]twophase.Vote{1: {yes, ro}, 2: {yes, no}},
		},
		{
			Name: "takeover", For: "a decision log that outlives the nodes: participants do not wait for the coordinator",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}}, Shared: true, Crashes: 1, Ticks: 1, Timeouts: 1,
		},
		{
			Name: "floor", For: "two transactions of a coordinator: what is over is forgotten",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}, {1, by("2/a")}}, Crashes: 1, Ticks: 1,
		},
		{
			Name: "coordinators", For: "two coordinators",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}, {2, by("1/a", "2/a")}}, Crashes: 1, Ticks: 0,
		},
		{
			Name: "remember", For: "two transactions, and room for the end of one",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}, {1, by("1/a", "2/a")}}, Crashes: 1, Ticks: 1, Remember: 1,
		},
		{
			Name: "operator", For: "an operator decides what is in doubt",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}}, Crashes: 1, Ticks: 2, Forces: 1,
		},
		{
			Name: "failures", For: "resources that fail, and are asked again",
			Nodes: 2, Transactions: []Transaction{{1, by("1/a", "2/a")}}, Crashes: 1, Ticks: 2, Failures: 1,
		},
	}
}
