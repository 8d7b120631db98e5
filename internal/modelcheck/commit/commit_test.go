package commit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/modeltest"
	"github.com/synod-go/synod/internal/twophase"
)

var suite = modeltest.Suite[*Model]{
	Models: models, Bugs: bugs,
	Sources: []string{"../../twophase/*.go", "../../../txn/*.go"}, Tag: "2pc: ",
	Unfound: []string{"2pc: what is refused is not given up", "2pc: a no is told that comes after a forgotten read-only vote"}, // see bugs
	Slow: []string{
		"2pc: a floor that stands for a record is not written",
		"2pc: a register that was collected is made again",
		"2pc: an old progress takes the place of a newer one",
	},
}

// Within smaller bounds all models are right, in every state.
func TestModels(t *testing.T) {
	for _, m := range models() {
		t.Run(m.Name, func(t *testing.T) {
			m.Crashes, m.Ticks = min(m.Crashes, 1), min(m.Ticks, 1)
			m.Failures = min(m.Failures, 1)
			switch {
			case m.Losses > 0:
			case m.Shared && m.Nodes > 2:
				m.Crashing = []uint64{1}
			case len(m.Transactions) > 1 && !m.Shared, m.Nodes > 2:
				m.Ticks = 0
			}
			o := explore.Options{}
			if modeltest.Racing {
				o.MaxDepth = 7
			}
			r, n := modeltest.Explore(t, m, false, o)
			require.NoError(t, r.Violation)
			require.Equal(t, !modeltest.Racing, r.Complete, r.Stopped)
			require.Greater(t, r.States, uint64(50))
			require.Positive(t, n.Checked())
			t.Logf("%d states, depth %d, %d healed, %v", r.States, r.Depth, n.Checked(), r.Time)
		})
	}
}

func TestBugsAreFound(t *testing.T) { suite.BugsAreFound(t) }

func TestCounterexamples(t *testing.T) { suite.Counterexamples(t) }

// All mistakes of the core and of the decision log have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) { suite.AllBugsHaveAModel(t) }

// Whether everything ends can be told: with a coordinator that never comes back, all who have prepared wait for ever, unless
// one has not, or the decision log is not the coordinator's.
func TestWithoutTheCoordinator(t *testing.T) {
	both := []string{"commit 1 by=(2/a,3/a)", "deliver from=1 to=2 type=prepare", "call 2 prepare 1.10 a yes", "deliver from=1 to=3 type=prepare", "call 3 prepare 1.10 a yes"}
	for _, c := range []struct {
		nodes string
		lines []string
		stuck string
	}{
		{"nodes 3 coordinators=(1)", both, "is in doubt about transaction 1.10"},
		{"nodes 3 coordinators=(1)", both[:3], ""},
		{"nodes 3 shared coordinators=(1)", both, ""},
	} {
		var p Player
		for _, line := range append([]string{c.nodes}, c.lines...) {
			_, violation, err := p.Exec(line)
			require.NoError(t, err)
			require.NoError(t, violation)
		}
		require.NoError(t, p.model.healing(p.all(), p.observer, nil, nil).run())
		err := p.model.healing(p.all(), p.observer, nil, []uint64{1}).run()
		if c.stuck == "" {
			require.NoError(t, err, c.nodes)
		} else {
			require.ErrorContains(t, err, c.stuck)
		}
	}
	require.Equal(t, []uint64{1}, suite.Model(t, "takeover").away())
	require.Empty(t, suite.Model(t, "remote").away())
}

// The scripts' notation of branches is read as it is written.
func TestBranches(t *testing.T) {
	list := by("1/a+", "2/b*", "3/a")
	require.Equal(t, []twophase.Branch{{Node: 1, Resource: "a", Work: []byte("work")}, {Node: 2, Resource: "b", LastAgent: true}, {Node: 3, Resource: "a"}}, list)
	require.Equal(t, "(1/a+,2/b*,3/a)", listBranches(list))
}

// What a script can't do is said.
func TestWhatAScriptRefuses(t *testing.T) {
	for _, line := range []string{"", "commit 1 by=(1/a)", "deliver", "nodes 9"} {
		_, _, err := new(Player).Exec(line)
		require.Error(t, err, line)
	}
	for _, line := range []string{"commit 9", "commit 1", "persist 1", "call 1 prepare 1.10 a yes", "timeout 1 1.10", "force 1 1.10 a committed", "deliver type=vote", "fly 1"} {
		_, err := models()[0].Play([]string{"nodes 2 coordinators=(1) crashing=(1,2)", line})
		require.Error(t, err, line)
	}
}
