package threephase

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/twophase"
)

// partitioned cuts the network in two while the coordinator's attempt to commit is on its way: one participant has got it, and is with the
// coordinator; the two others have not, and hear nobody but each other.
func partitioned(p Protocol) (w *world, id ID) {
	w = newWorld(4, p)
	w.Open()
	w.Finish()
	id = w.Begin(1, on(2, 3, 4)...)
	w.Side = map[uint64]int{3: 1, 4: 1}
	cut := func() {
		for len(w.Queue) > 0 || len(w.Net) > 0 {
			if len(w.Queue) > 0 {
				w.Act(0)
				continue
			}
			if k := w.Net[0].Kind; k == KindPrepare || k == KindVote {
				side := w.Side
				w.Side = map[uint64]int{}
				w.Deliver(0)
				w.Side = side
				continue
			}
			w.Deliver(0) // lost, if it is to the other side
		}
	}
	w.Commit(id)
	cut()
	for range 60 {
		w.Settle()
		w.Tick()
	}
	w.Settle()
	return w, id
}

// Skeen's protocol takes those who are silent for crashed. In a partition they are not: each side terminates by itself, and
// the transaction is split. When the partition heals that is reported as damage: it can't be mended.
func TestSkeenSplitsUnderAPartition(t *testing.T) {
	w, id := partitioned(Skeen)
	did, not := w.Outcomes(id, true)
	require.Equal(t, []string{"2/a"}, did)
	require.Equal(t, []string{"3/a", "4/a"}, not)
	require.Equal(t, committed, w.Results[id].Outcome)

	clear(w.Side)
	for range 100 {
		w.Settle()
		w.Tick()
	}
	damages := 0
	for _, n := range w.Nodes {
		damages += len(n.Core.Damages())
	}
	require.Positive(t, damages)
}

// The same schedule does not split E3PC: the side that has a quorum decides, the other one waits, and does the same when it hears of
// it.
func TestEnhancedDoesNotSplitUnderTheSamePartition(t *testing.T) {
	w, id := partitioned(Enhanced)
	did, not := w.Outcomes(id, true)
	require.Empty(t, did)
	require.Equal(t, []string{"3/a", "4/a"}, not, "a connected quorum never blocks")
	require.Equal(t, unknown, w.Results[id].Outcome, "the coordinator's side has no quorum")
	doubts := w.Nodes[2].Core.InDoubt()
	require.Len(t, doubts, 1)
	require.Equal(t, StatePreCommitted, doubts[0].State)
	require.Equal(t, twophase.Undecided, doubts[0].Answer)
	require.Len(t, w.Nodes[1].Core.Transactions()[0].Missing, 2)

	clear(w.Side)
	w.Finish()
	require.Empty(t, w.Broken)
	require.Equal(t, aborted, w.Results[id].Outcome)
}

// cascade has whoever leads crash while it does, one after the other, and those who have crashed come back alone: a quorum is
// connected again and again, and lost again. Each time something else was attempted. The last quorum decides.
func cascade(t *testing.T, p Protocol) (w *world, id ID) {
	w = newWorld(4, p)
	w.Open()
	w.Finish()
	id = w.Begin(1, on(2, 3, 4)...)
	w.DownFor = 1 << 30
	w.Commit(id)
	for len(w.Queue) > 0 || len(w.Net) > 0 {
		switch {
		case len(w.Queue) > 0:
			w.Act(0)
		case w.Net[0].Kind == KindPreCommit && w.Net[0].To != 2:
			w.Net = w.Net[1:]
		default:
			w.Deliver(0)
		}
	}
	// Node 2 has pre-committed. The coordinator and node 2 crash.
	w.Nodes[1].Crash()
	w.Nodes[2].Crash()
	// Node 3 is elected by 3 and 4, and attempts to abort; it crashes when it has pre-aborted alone.
	until(t, w, func() bool {
		c := w.Nodes[3].Core
		return c.entries[0].state == StatePreAborted && c.entries[0].token <= c.durable
	})
	w.Queue = slices.DeleteFunc(w.Queue, func(a action) bool { return true })
	w.Nodes[3].Crash()
	w.Net = nil
	return w, id
}

// until lets time pass until something is so, and no action is done after that.
func until(t *testing.T, w *world, so func() bool) {
	t.Helper()
	for range 300 {
		for len(w.Queue) > 0 || len(w.Net) > 0 {
			if so() {
				return
			}
			if len(w.Queue) > 0 {
				w.Act(0)
			} else {
				w.Deliver(0)
			}
		}
		if so() {
			return
		}
		w.Tick()
	}
	t.Fatal("it does not happen")
}

// Cascading failures of those who terminate. With the quorum-based protocol from which E3PC comes the quorum {2, 4} would block here: one has
// pre-committed, and another, which is away, has pre-aborted.
func TestCascadingFailuresOfThoseWhoTerminate(t *testing.T) {
	w, id := cascade(t, Enhanced)
	w.Nodes[2].Start() // pre-committed, in the coordinator's attempt
	until(t, w, func() bool { did, not := w.Outcomes(id, true); return len(did)+len(not) == 2 })
	did, _ := w.Outcomes(id, true)
	require.Equal(t, []string{"2/a", "4/a"}, did, "the last attempt that they know of is to commit")
	w.Nodes[3].Start() // pre-aborted, in an attempt that no quorum took part in
	w.Nodes[1].Start()
	w.Finish()
	require.Empty(t, w.Broken)

	// The other way round: the quorum {3, 4} knows of the attempt to abort.
	w, id = cascade(t, Enhanced)
	w.Nodes[3].Start()
	until(t, w, func() bool { did, not := w.Outcomes(id, true); return len(did)+len(not) == 2 })
	_, not := w.Outcomes(id, true)
	require.Equal(t, []string{"3/a", "4/a"}, not)
	w.Nodes[2].Start()
	w.Nodes[1].Start()
	w.Finish()
	require.Empty(t, w.Broken)

	// And all three: the last attempt counts, not that somebody has pre-committed.
	require.Empty(t, lastAttempt(t))
}

// lastAttempt returns who has committed when all three participants are there again: one has pre-committed, and a later attempt was to abort.
func lastAttempt(t *testing.T) []string {
	w, id := cascade(t, Enhanced)
	w.Side = map[uint64]int{2: 1, 3: 1, 4: 1}
	w.Nodes[3].Start()
	w.Nodes[2].Start()
	for _, n := range w.Nodes {
		if n.ID != 3 && n.Core != nil {
			n.Core.cfg.PeerTicks = 100 // node 3 stands first, and hears all of them
		}
	}
	until(t, w, func() bool { did, not := w.Outcomes(id, true); return len(did)+len(not) == 3 })
	did, _ := w.Outcomes(id, true)
	return did
}
