package twophase_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	. "github.com/synod-go/synod/internal/twophase"
)

// noAfterReadOnly has a participant vote read-only, and forget that in a crash. The request comes again, and now its resource says no. The
// transaction was committed in between, and of those that know only the coordinator comes back, late.
func noAfterReadOnly() *world {
	w := newWorld(4, false, false)
	w.Open()
	id := w.Begin(1, branchesOf(2, 3, 4)...)
	w.Nodes[3].Resources["a"].Votes[id] = VoteReadOnly
	w.Commit(id)
	var again []Message
	for len(w.Queue) > 0 || len(w.Net) > 0 {
		if len(w.Queue) > 0 {
			w.Act(0)
			continue
		}
		m := w.Net[0]
		if m.Kind == KindPrepare && m.To == 3 {
			again = append(again, m)
		}
		if m.Kind == KindOutcome && m.To == 4 {
			w.Net = slices.Delete(w.Net, 0, 1) // lost
		} else {
			w.Deliver(0)
		}
	}
	w.DownFor = 100
	for _, n := range []uint64{1, 2, 3} {
		w.Nodes[n].Crash()
	}
	w.Nodes[3].Start()
	w.Nodes[3].Resources["a"].Votes[id] = VoteNo
	w.Net = append(w.Net, again...)
	w.Settle()
	w.Nodes[3].Resources["a"].Votes[id] = VoteReadOnly // it has nothing to commit
	w.Finish()
	if w.Results[id].Outcome != OutcomeCommitted {
		w.Violation("it was not committed")
	}
	return w
}

// A no that comes after a read-only vote that was forgotten decides nothing: it is not told to a participant that is in doubt.
func TestANoAfterAForgottenReadOnlyVoteIsNotTold(t *testing.T) {
	require.Empty(t, noAfterReadOnly().Broken)
}
