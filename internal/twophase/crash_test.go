package twophase_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/synod-go/synod/internal/twophase"
)

// scenarios are runs whose every crash is tried.
func scenarios() (list []scenario) {
	for _, s := range []struct {
		name    string
		nodes   int
		one     bool // resources commit in one phase
		shared  bool // one decision log for all nodes
		down    int  // ticks that a node is down
		prepare func(w *simulated) ID
	}{
		{"two remote participants", 3, false, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(2, 3)...) }},
		{"two participants, one beside the coordinator", 2, false, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(1, 2)...) }},
		{"three participants, one beside the coordinator", 3, false, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(1, 2, 3)...) }},
		{"three remote participants", 4, false, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(2, 3, 4)...) }},
		{"two remote participants, long outages", 3, false, false, 40, func(w *simulated) ID { return w.Begin(1, branchesOf(2, 3)...) }},
		{"three remote participants, long outages", 4, false, false, 40, func(w *simulated) ID { return w.Begin(1, branchesOf(2, 3, 4)...) }},
		{"a shared decision log", 3, false, true, 40, func(w *simulated) ID { return w.Begin(1, branchesOf(1, 2, 3)...) }},
		{"a shared decision log, remote", 3, false, true, 40, func(w *simulated) ID { return w.Begin(1, branchesOf(2, 3)...) }},
		{"one says no", 3, false, false, 6, func(w *simulated) ID {
			id := w.Begin(1, branchesOf(1, 2, 3)...)
			w.Nodes[2].Resources["a"].Votes[id] = VoteNo
			return id
		}},
		{"one is read-only", 4, false, false, 40, func(w *simulated) ID {
			id := w.Begin(1, branchesOf(2, 3, 4)...)
			w.Nodes[3].Resources["a"].Votes[id] = VoteReadOnly
			return id
		}},
		{"one is read-only and stays", 3, false, false, 40, func(w *simulated) ID {
			b := branchesOf(1, 2, 3)
			b[0].Work = []byte("work")
			id := w.Begin(1, b...)
			w.Nodes[3].Resources["a"].Votes[id] = VoteReadOnly
			return id
		}},
		{"a single participant", 2, false, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(2)...) }},
		{"a single participant in one phase", 2, true, false, 6, func(w *simulated) ID { return w.Begin(1, branchesOf(2)...) }},
		{"a last agent", 3, true, false, 6, func(w *simulated) ID {
			b := branchesOf(1, 2, 3)
			b[1].LastAgent = true
			return w.Begin(1, b...)
		}},
		{"a last agent, remote, long outages", 3, true, false, 40, func(w *simulated) ID {
			b := branchesOf(2, 3)
			b[1].LastAgent = true
			return w.Begin(1, b...)
		}},
		{"a last agent, a shared log", 3, true, true, 40, func(w *simulated) ID {
			b := branchesOf(2, 3)
			b[1].LastAgent = true
			return w.Begin(1, b...)
		}},
		{"a last agent that says no", 3, true, false, 6, func(w *simulated) ID {
			b := branchesOf(1, 2, 3)
			b[2].LastAgent = true
			id := w.Begin(1, b...)
			w.Nodes[3].Resources["a"].Votes[id] = VoteNo
			return id
		}},
		{"a last agent that prepares, read-only", 3, false, false, 6, func(w *simulated) ID {
			b := branchesOf(1, 2, 3)
			b[2].LastAgent = true
			id := w.Begin(1, b...)
			w.Nodes[3].Resources["a"].Votes[id] = VoteReadOnly
			return id
		}},
		{"a last agent among read-only ones", 3, true, false, 6, func(w *simulated) ID {
			b := branchesOf(2, 3)
			b[1].LastAgent = true
			id := w.Begin(1, b...)
			w.Nodes[2].Resources["a"].Votes[id] = VoteReadOnly
			return id
		}},
	} {
		list = append(list, scenario{Name: s.name, Down: s.down, Prepare: s.prepare, World: func() *simulated { return newWorld(s.nodes, s.one, s.shared).simulated }})
	}
	return list
}

// A crash before and after every write, message, decision and call of every node, alone and with every other one
// that follows: nothing is split, and everything ends.
func TestEveryCrash(t *testing.T) {
	total := 0
	for _, s := range scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			runs := s.EveryCrash(t, !testing.Short() && !racing)
			total += runs.Single + runs.Pairs
			t.Logf("%d actions, %d single crashes, %d pairs", runs.Actions, runs.Single, runs.Pairs)
		})
	}
	t.Logf("%d runs", total)
}

// Every message is lost once, or comes again when all is over; alone, and with every crash of every node.
func TestEveryMessageLostOrRepeated(t *testing.T) {
	total := 0
	for _, s := range scenarios() {
		total += s.EveryMessage(t, !testing.Short() && !racing)
	}
	t.Logf("%d runs", total)
}

// Exact costs. Gray and Lamport ("Consensus on Transaction Commit", 2006) count for N resource managers, the first of which
// begins the commit: 3N-1 messages, 3N-3 where the coordinator is beside it, and N+1 stable writes. They leave the
// acknowledgements out, with which decisions can be forgotten.
func TestCosts(t *testing.T) {
	for _, tc := range []struct {
		participants int
		beside       bool // one of them is beside the coordinator
		messages     int  // without acknowledgements
		acks         int
		forced       int
	}{
		{1, true, 0, 0, 1},
		{1, false, 2, 0, 1},
		{2, true, 3, 1, 3},
		{2, false, 6, 2, 3},
		{3, true, 6, 2, 4},
		{3, false, 9, 3, 4},
		{5, true, 12, 4, 6},
		{5, false, 15, 5, 6},
	} {
		n := tc.participants
		name := fmt.Sprintf("%d participants, beside %v", n, tc.beside)
		for _, one := range []bool{false, true} {
			w := newWorld(n+1, one, false)
			w.Open()
			var branches []Branch
			for i := range uint64(n) {
				node := i + 2
				if tc.beside {
					node = i + 1
				}
				branches = append(branches, Branch{Node: node, Resource: "a"})
			}
			w.Finish()
			id := w.Begin(1, branches...)
			w.Commit(id)
			w.Settle() // without time: what has not happened by then is not waited for
			forced := 0
			for _, n := range w.Nodes {
				forced += n.Forced + w.decisions[n.ID].writes
			}
			acks := w.Sent[KindAck]
			messages := -acks
			for _, count := range w.Sent {
				messages += count
			}
			require.Equal(t, OutcomeCommitted, w.Results[id].Outcome, name)
			require.Equal(t, tc.messages, messages, name)
			require.Equal(t, tc.forced, forced, name)
			require.Zero(t, acks, name) // they go with the next write, or tick
			if n > 1 {
				require.Equal(t, n+1, forced, "the formula: N+1 stable writes")
				if tc.beside {
					require.Equal(t, 3*n-3, messages, "the formula: 3N-3 messages, with the coordinator beside the first")
				} else {
					require.Equal(t, 3*n-1, messages-1, "the formula: 3N-1 messages, of which one, from the first to the coordinator, is a call here, and two more since the first is remote as well")
				}
			}
			w.Finish()
			require.Empty(t, w.Broken)
			require.Equal(t, tc.acks, w.Sent[KindAck], name)
			for _, n := range w.Nodes {
				require.Empty(t, w.decisions[n.ID].decided, "every decision is forgotten")
			}
		}
	}
}

// What the optimisations save, and what an abort costs, of three remote participants.
func TestCostsOfOptimisations(t *testing.T) {
	for name, tc := range map[string]struct {
		branches []Branch
		votes    map[uint64]Vote
		one      bool
		outcome  Outcome
		messages int // without acknowledgements
		acks     int
		forced   int
	}{
		"all vote yes":     {branchesOf(2, 3, 4), nil, false, OutcomeCommitted, 9, 3, 4},
		"one is read-only": {branchesOf(2, 3, 4), map[uint64]Vote{3: VoteReadOnly}, false, OutcomeCommitted, 8, 2, 3},
		"all read-only":    {branchesOf(2, 3, 4), map[uint64]Vote{2: VoteReadOnly, 3: VoteReadOnly, 4: VoteReadOnly}, false, OutcomeCommitted, 6, 0, 0},
		// Two have voted, and are told.
		"the last says no": {branchesOf(2, 3, 4), map[uint64]Vote{4: VoteNo}, false, OutcomeAborted, 8, 0, 2},
		// Two prepared, that the agent was asked, that it began, and the decision.
		"a last agent": {[]Branch{{Node: 2, Resource: "a"}, {Node: 3, Resource: "a"}, {Node: 4, Resource: "a", LastAgent: true}}, nil, true, OutcomeCommitted, 8, 2, 5},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(4, tc.one, false)
			w.Open()
			// The block of transactions in which there may be read-only votes is there already.
			warm := w.Begin(1, branchesOf(2, 3, 4)...)
			for i := uint64(2); i <= 4; i++ {
				w.Nodes[i].Resources["a"].Votes[warm] = VoteReadOnly
			}
			w.Commit(warm)
			w.Finish()
			clear(w.Sent)
			for _, n := range w.Nodes {
				n.Forced, w.decisions[n.ID].writes = 0, 0
			}
			id := w.Begin(1, tc.branches...)
			for node, v := range tc.votes {
				w.Nodes[node].Resources["a"].Votes[id] = v
			}
			w.Commit(id)
			w.Settle()
			forced, messages := 0, 0
			for _, n := range w.Nodes {
				forced += n.Forced + w.decisions[n.ID].writes
			}
			for _, count := range w.Sent {
				messages += count
			}
			if tc.branches[2].LastAgent {
				forced-- // that the record of the last agent is erased: nobody waits for it but the floor
			}
			require.Equal(t, tc.outcome, w.Results[id].Outcome)
			require.Equal(t, tc.messages, messages)
			require.Equal(t, tc.forced, forced)
			w.Finish()
			require.Empty(t, w.Broken)
			require.Equal(t, tc.acks, w.Sent[KindAck])
		})
	}
}
