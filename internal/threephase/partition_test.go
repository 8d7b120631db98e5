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
	w.open()
	w.finish()
	id = w.begin(1, on(2, 3, 4)...)
	w.side = map[uint64]int{3: 1, 4: 1}
	cut := func() {
		for len(w.queue) > 0 || len(w.net) > 0 {
			if len(w.queue) > 0 {
				w.act(0)
				continue
			}
			if k := w.net[0].Kind; k == KindPrepare || k == KindVote {
				side := w.side
				w.side = map[uint64]int{}
				w.deliver(0)
				w.side = side
				continue
			}
			w.deliver(0) // lost, if it is to the other side
		}
	}
	w.commit(id)
	cut()
	for range 60 {
		w.settle()
		w.tick()
	}
	w.settle()
	return w, id
}

// Skeen's protocol takes those who are silent for crashed. In a partition they are not: each side terminates by itself, and
// the transaction is split. When the partition heals that is reported as damage: it can't be mended.
func TestSkeenSplitsUnderAPartition(t *testing.T) {
	w, id := partitioned(Skeen)
	did, not := w.outcomes(id, true)
	require.Equal(t, []string{"2/a"}, did)
	require.Equal(t, []string{"3/a", "4/a"}, not)
	require.Equal(t, committed, w.results[id].Outcome)

	clear(w.side)
	for range 100 {
		w.settle()
		w.tick()
	}
	damages := 0
	for _, n := range w.nodes {
		damages += len(n.core.Damages())
	}
	require.Positive(t, damages)
}

// The same schedule does not split E3PC: the side that has a quorum decides, the other one waits, and does the same when it hears of
// it.
func TestEnhancedDoesNotSplitUnderTheSamePartition(t *testing.T) {
	w, id := partitioned(Enhanced)
	did, not := w.outcomes(id, true)
	require.Empty(t, did)
	require.Equal(t, []string{"3/a", "4/a"}, not, "a connected quorum never blocks")
	require.Equal(t, unknown, w.results[id].Outcome, "the coordinator's side has no quorum")
	doubts := w.nodes[2].core.InDoubt()
	require.Len(t, doubts, 1)
	require.Equal(t, StatePreCommitted, doubts[0].State)
	require.Equal(t, twophase.Undecided, doubts[0].Answer)
	require.Len(t, w.nodes[1].core.Transactions()[0].Missing, 2)

	clear(w.side)
	w.finish()
	require.Empty(t, w.broken)
	require.Equal(t, aborted, w.results[id].Outcome)
}

// cascade has whoever leads crash while it does, one after the other, and those who have crashed come back alone: a quorum is
// connected again and again, and lost again. Each time something else was attempted. The last quorum decides.
func cascade(t *testing.T, p Protocol) (w *world, id ID) {
	w = newWorld(4, p)
	w.open()
	w.finish()
	id = w.begin(1, on(2, 3, 4)...)
	w.downFor = 1 << 30
	w.commit(id)
	for len(w.queue) > 0 || len(w.net) > 0 {
		switch {
		case len(w.queue) > 0:
			w.act(0)
		case w.net[0].Kind == KindPreCommit && w.net[0].To != 2:
			w.net = w.net[1:]
		default:
			w.deliver(0)
		}
	}
	// Node 2 has pre-committed. The coordinator and node 2 crash.
	w.nodes[1].crash()
	w.nodes[2].crash()
	// Node 3 is elected by 3 and 4, and attempts to abort; it crashes when it has pre-aborted alone.
	until(t, w, func() bool {
		c := w.nodes[3].core
		return c.entries[0].state == StatePreAborted && c.entries[0].token <= c.durable
	})
	w.queue = slices.DeleteFunc(w.queue, func(a action) bool { return true })
	w.nodes[3].crash()
	w.net = nil
	return w, id
}

// until lets time pass until something is so, and no action is done after that.
func until(t *testing.T, w *world, so func() bool) {
	t.Helper()
	for range 300 {
		for len(w.queue) > 0 || len(w.net) > 0 {
			if so() {
				return
			}
			if len(w.queue) > 0 {
				w.act(0)
			} else {
				w.deliver(0)
			}
		}
		if so() {
			return
		}
		w.tick()
	}
	t.Fatal("it does not happen")
}

// Cascading failures of those who terminate. With the quorum-based protocol from which E3PC comes the quorum {2, 4} would block here: one has
// pre-committed, and another, which is away, has pre-aborted.
func TestCascadingFailuresOfThoseWhoTerminate(t *testing.T) {
	w, id := cascade(t, Enhanced)
	w.nodes[2].start() // pre-committed, in the coordinator's attempt
	until(t, w, func() bool { did, not := w.outcomes(id, true); return len(did)+len(not) == 2 })
	did, _ := w.outcomes(id, true)
	require.Equal(t, []string{"2/a", "4/a"}, did, "the last attempt that they know of is to commit")
	w.nodes[3].start() // pre-aborted, in an attempt that no quorum took part in
	w.nodes[1].start()
	w.finish()
	require.Empty(t, w.broken)

	// The other way round: the quorum {3, 4} knows of the attempt to abort.
	w, id = cascade(t, Enhanced)
	w.nodes[3].start()
	until(t, w, func() bool { did, not := w.outcomes(id, true); return len(did)+len(not) == 2 })
	_, not := w.outcomes(id, true)
	require.Equal(t, []string{"3/a", "4/a"}, not)
	w.nodes[2].start()
	w.nodes[1].start()
	w.finish()
	require.Empty(t, w.broken)

	// And all three: the last attempt counts, not that somebody has pre-committed.
	require.Empty(t, lastAttempt(t))
}

// lastAttempt returns who has committed when all three participants are there again: one has pre-committed, and a later attempt was to abort.
func lastAttempt(t *testing.T) []string {
	w, id := cascade(t, Enhanced)
	w.side = map[uint64]int{2: 1, 3: 1, 4: 1}
	w.nodes[3].start()
	w.nodes[2].start()
	for _, n := range w.nodes {
		if n.id != 3 && n.core != nil {
			n.core.cfg.PeerTicks = 100 // node 3 stands first, and hears all of them
		}
	}
	until(t, w, func() bool { did, not := w.outcomes(id, true); return len(did)+len(not) == 3 })
	did, _ := w.outcomes(id, true)
	return did
}
