package twophase

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// noAfterReadOnly has a participant vote read-only, and forget that in a crash. The request comes again, and now its resource says no. The
// transaction was committed in between, and of those that know only the coordinator comes back, late.
func noAfterReadOnly() *world {
	w := newWorld(4, false, false)
	w.open()
	id := w.begin(1, branchesOf(2, 3, 4)...)
	w.nodes[3].resources["a"].votes[id] = VoteReadOnly
	w.commit(id)
	var again []Message
	for len(w.queue) > 0 || len(w.net) > 0 {
		if len(w.queue) > 0 {
			w.act(0)
			continue
		}
		m := w.net[0]
		if m.Kind == KindPrepare && m.To == 3 {
			again = append(again, m)
		}
		if m.Kind == KindOutcome && m.To == 4 {
			w.net = slices.Delete(w.net, 0, 1) // lost
		} else {
			w.deliver(0)
		}
	}
	w.downFor = 100
	for _, n := range []uint64{1, 2, 3} {
		w.nodes[n].crash()
	}
	w.nodes[3].start()
	w.nodes[3].resources["a"].votes[id] = VoteNo
	w.net = append(w.net, again...)
	w.settle()
	w.nodes[3].resources["a"].votes[id] = VoteReadOnly // it has nothing to commit
	w.finish()
	if w.results[id].Outcome != OutcomeCommitted {
		w.violation("it was not committed")
	}
	return w
}

// A no that comes after a read-only vote that was forgotten decides nothing: it is not told to a participant that is in doubt.
func TestANoAfterAForgottenReadOnlyVoteIsNotTold(t *testing.T) {
	require.Empty(t, noAfterReadOnly().broken)
}
