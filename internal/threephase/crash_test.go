package threephase

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// scenarios are runs whose every crash is tried.
func scenarios(p Protocol) (list []scenario) {
	for _, s := range []struct {
		name    string
		nodes   int
		down    int // ticks that a node is down
		prepare func(w *simulated) ID
	}{
		{"two remote participants", 3, 6, func(w *simulated) ID { return w.Begin(1, on(2, 3)...) }},
		{"two participants, one beside the coordinator", 2, 6, func(w *simulated) ID { return w.Begin(1, on(1, 2)...) }},
		{"three participants, one beside the coordinator", 3, 6, func(w *simulated) ID { return w.Begin(1, on(1, 2, 3)...) }},
		{"three remote participants", 4, 6, func(w *simulated) ID { return w.Begin(1, on(2, 3, 4)...) }},
		{"two remote participants, long outages", 3, 60, func(w *simulated) ID { return w.Begin(1, on(2, 3)...) }},
		{"three participants, long outages", 3, 60, func(w *simulated) ID { return w.Begin(1, on(1, 2, 3)...) }},
		{"three remote participants, long outages", 4, 60, func(w *simulated) ID { return w.Begin(1, on(2, 3, 4)...) }},
		{"two resources of one node", 3, 40, func(w *simulated) ID {
			p := on(2, 3, 2)
			p[2].Resource = "b"
			return w.Begin(1, p...)
		}},
		{"weights", 4, 40, func(w *simulated) ID {
			p := on(2, 3, 4)
			p[1].Weight = 3
			return w.Begin(1, p...)
		}},
		{"one says no", 3, 40, func(w *simulated) ID {
			id := w.Begin(1, on(1, 2, 3)...)
			w.Nodes[2].Resources["a"].Votes[id] = twophase.VoteNo
			return id
		}},
		{"one is read-only", 4, 40, func(w *simulated) ID {
			id := w.Begin(1, on(2, 3, 4)...)
			w.Nodes[3].Resources["a"].Votes[id] = twophase.VoteReadOnly
			return id
		}},
		{"two are read-only, and stay", 3, 40, func(w *simulated) ID {
			p := on(1, 2, 3)
			p[0].Work = []byte("work")
			id := w.Begin(1, p...)
			for _, n := range []uint64{2, 3} {
				w.Nodes[n].Resources["a"].Votes[id] = twophase.VoteReadOnly
			}
			return id
		}},
		{"all are read-only", 4, 40, func(w *simulated) ID {
			id := w.Begin(1, on(2, 3, 4)...)
			for _, n := range []uint64{2, 3, 4} {
				w.Nodes[n].Resources["a"].Votes[id] = twophase.VoteReadOnly
			}
			return id
		}},
		{"a single participant", 2, 40, func(w *simulated) ID { return w.Begin(1, on(2)...) }},
		{"a single participant beside the coordinator", 1, 6, func(w *simulated) ID { return w.Begin(1, on(1)...) }},
	} {
		list = append(list, scenario{Name: s.name, Down: s.down, Prepare: s.prepare, World: func() *simulated { return newWorld(s.nodes, p).simulated }})
	}
	return list
}

// A crash before and after every write, message and call of every node, alone and with every other one that follows: nothing is
// split, and everything ends. Skeen's protocol passes the same: nodes only crash, nothing is lost, and no time passes while messages are
// under way, so that whoever is silent has crashed. It is tried with single crashes.
func TestEveryCrash(t *testing.T) {
	total := 0
	skeen := scenarios(Skeen)
	for i, s := range scenarios(Enhanced) {
		t.Run(s.Name, func(t *testing.T) {
			runs := s.EveryCrash(t, !testing.Short() && !racing)
			more := skeen[i].EveryCrash(t, false)
			total += runs.Single + runs.Pairs + more.Single
			t.Logf("%d actions, %d single crashes, %d pairs", more.Actions, runs.Single+more.Single, runs.Pairs)
		})
	}
	t.Logf("%d runs", total)
}

// Every message is lost once, or comes again when all is over; alone, and with every crash of every node.
func TestEveryMessageLostOrRepeated(t *testing.T) {
	total := 0
	for _, s := range scenarios(Enhanced) {
		total += s.EveryMessage(t, !testing.Short() && !racing)
	}
	t.Logf("%d runs", total)
}

// delays runs without failures, all messages that are under way arriving together, and returns how many message delays pass
// until the caller is answered, and until all have committed.
func delays(w *world, id ID) (answered, committed int) {
	w.Commit(id)
	answered, committed = -1, -1
	for n := 0; ; n++ {
		for len(w.Queue) > 0 {
			w.Act(0)
		}
		if _, there := w.Results[id]; there && answered < 0 {
			answered = n
		}
		if did, _ := w.Outcomes(id, false); len(did) == len(w.Asked[id]) && committed < 0 {
			committed = n
		}
		if len(w.Net) == 0 {
			return answered, committed
		}
		for range len(w.Net) {
			w.Deliver(0)
		}
	}
}

// Exact costs without failures: messages, writes that somebody waits for, and message delays. What forgets the transaction afterwards is
// counted apart: it goes with the next write, or tick.
func TestCosts(t *testing.T) {
	for _, tc := range []struct {
		participants int
		beside       bool // one of them is beside the coordinator
		messages     int
		closing      int // messages
		forced       int
		answered     int // message delays
		committed    int
	}{
		{1, true, 0, 0, 1, 0, 0},
		{1, false, 2, 1, 1, 2, 1},
		{2, true, 5, 2, 4, 4, 5},
		{2, false, 10, 4, 4, 4, 5},
		{3, true, 10, 4, 6, 4, 5},
		{3, false, 15, 6, 6, 4, 5},
		{5, true, 20, 8, 10, 4, 5},
		{5, false, 25, 10, 10, 4, 5},
	} {
		for _, p := range []Protocol{Enhanced, Skeen} {
			n := tc.participants
			name := fmt.Sprintf("%v, %d participants, beside %v", p, n, tc.beside)
			w := newWorld(n+1, p)
			w.Open()
			var list []Participant
			for i := range uint64(n) {
				if tc.beside {
					list = append(list, on(i+1)...)
				} else {
					list = append(list, on(i+2)...)
				}
			}
			w.Finish()
			id := w.Begin(1, list...)
			answered, done := delays(w, id)
			messages, forced := 0, 0
			for k, count := range w.Sent {
				if k != KindOver {
					messages += count
				}
			}
			for _, n := range w.Nodes {
				forced += n.Forced
			}
			require.Equal(t, committed, w.Results[id].Outcome, name)
			require.Equal(t, tc.messages, messages, name)
			require.Equal(t, tc.forced, forced, name)
			require.Equal(t, tc.answered, answered, name)
			require.Equal(t, tc.committed, done, name)
			if n > 1 {
				require.Equal(t, 2*n, forced, "each its vote and its part in the attempt; the coordinator keeps no records")
			}
			before := messages
			w.Finish()
			require.Empty(t, w.Broken)
			messages = 0
			for _, count := range w.Sent {
				messages += count
			}
			require.Equal(t, tc.closing, messages-before, name)
			for _, n := range w.Nodes {
				require.Empty(t, n.Core.entries)
			}
		}
	}
}

// What else happens without failures, with three remote participants.
func TestCostsOfOtherOutcomes(t *testing.T) {
	for name, tc := range map[string]struct {
		votes    map[uint64]Vote
		outcome  Outcome
		messages int
		closing  int
		forced   int
	}{
		"all vote yes":     {nil, committed, 15, 6, 6},
		"one is read-only": {map[uint64]Vote{3: twophase.VoteReadOnly}, committed, 13, 6, 5},
		"two are":          {map[uint64]Vote{2: twophase.VoteReadOnly, 3: twophase.VoteReadOnly}, committed, 15, 6, 6}, // they are needed for a quorum
		"all read-only":    {map[uint64]Vote{2: twophase.VoteReadOnly, 3: twophase.VoteReadOnly, 4: twophase.VoteReadOnly}, committed, 9, 0, 3},
		"the last says no": {map[uint64]Vote{4: twophase.VoteNo}, aborted, 8, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(4, Enhanced)
			w.Open()
			w.Finish()
			id := w.Begin(1, on(2, 3, 4)...)
			for node, v := range tc.votes {
				w.Nodes[node].Resources["a"].Votes[id] = v
			}
			w.Commit(id)
			w.Settle()
			forced, messages := 0, 0
			for _, n := range w.Nodes {
				forced += n.Forced
			}
			for _, count := range w.Sent {
				messages += count
			}
			require.Equal(t, tc.outcome, w.Results[id].Outcome)
			require.Equal(t, tc.messages, messages-w.Sent[KindDone]-w.Sent[KindOver])
			require.Equal(t, tc.forced, forced)
			w.Finish()
			require.Empty(t, w.Broken)
			require.Equal(t, tc.closing, w.Sent[KindDone]+w.Sent[KindOver])
		})
	}
}
