package paxos

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/modeltest"
	"github.com/synod-go/synod/internal/modelcheck/network"
)

var suite = modeltest.Suite[*Model]{
	Models: models, Bugs: bugs,
	Sources: []string{"../../multipaxos/*.go"},
	Unfound: []string{"a repair forgets what follows its snapshot"}, // see bugs
	Slow: []string{
		"decided marks slots of other ballots",
		"the lowest ballot's value taken",
		"accepts of another ballot counted",
		"a new leader answers reads at once",
		"a leader answers reads without asking",
		"phase 1 of the old configuration only",
	},
	Otherwise: func(t *testing.T, m *Model, err error) {
		if !m.Refused {
			require.ErrorContains(t, err, "no such message")
		}
	},
}

// smaller is each model with fewer of what makes it large.
var smaller = map[string]func(*Model){
	"base":        func(m *Model) { m.Ballots, m.Values, m.Candidates, m.Crashing = 2, 0, []uint64{1, 2}, []uint64{2} },
	"refused":     func(m *Model) { m.Ballots, m.Values = 1, 1 },
	"slots":       func(m *Model) { m.Candidates = []uint64{1} },
	"gaps":        func(m *Model) { m.Ballots = 1 },
	"pipeline":    func(m *Model) { m.Ballots = 1 },
	"heartbeats":  func(m *Model) { m.Ballots = 1 },
	"ticks":       func(m *Model) { m.Ticks = 1 },
	"reads":       func(m *Model) { m.Ballots = 1 },
	"looks":       func(m *Model) { m.Ticks = 0 },
	"leases":      func(m *Model) { m.Ballots = 1; m.Ticks = 1 },
	"alone":       func(m *Model) { m.Ballots = 1; m.Ticks = 1 },
	"pieces":      func(m *Model) { m.Ballots = 1 },
	"trim":        func(m *Model) { m.Ballots = 1 },
	"damage":      func(m *Model) { m.Ballots = 1 },
	"durable":     func(m *Model) { m.Ballots = 1 },
	"reconfigure": func(m *Model) { m.Ballots = 1; m.Candidates = []uint64{1} },
	"twice":       func(m *Model) { m.Candidates = []uint64{4} },
	"leave":       func(*Model) {},
	"quorums":     func(m *Model) { m.Ballots = 1 },
}

// deep are those that are large even so: of them what is near the beginning is explored here.
var deep = map[string]int{"ticks": 5, "reads": 9, "looks": 8, "leases": 5, "slots": 9, "reconfigure": 7, "twice": 8}

// Within smaller bounds all models are right, in every state.
func TestModels(t *testing.T) {
	for _, m := range models() {
		t.Run(m.Name, func(t *testing.T) {
			if m.Refused {
				_, err := m.New(false)
				require.ErrorIs(t, err, network.ErrRefused)
				return
			}
			shrink := smaller[m.Name]
			require.NotNil(t, shrink, "this model has no smaller one")
			shrink(m)
			r, _ := modeltest.Explore(t, m, false, explore.Options{MaxDepth: deep[m.Name]})
			require.NoError(t, r.Violation)
			require.Equal(t, deep[m.Name] == 0, r.Complete, r.Stopped)
			require.Greater(t, r.States, uint64(10))
			t.Logf("%d states, depth %d, %v", r.States, r.Depth, r.Time)
		})
	}
}

// What is taken for equal, since it does not matter any more, takes nothing away: as many histories are possible as without.
func TestFewerStatesButNoFewerHistories(t *testing.T) {
	for _, name := range []string{"gaps", "damage", "leave", "durable"} {
		t.Run(name, func(t *testing.T) {
			m := suite.Model(t, name)
			smaller[name](m)
			r, n := modeltest.Explore(t, m, false, explore.Options{})
			m.plain = true
			all, whole := modeltest.Explore(t, m, false, explore.Options{})
			require.NoError(t, r.Violation)
			require.NoError(t, all.Violation)
			require.True(t, r.Complete)
			require.True(t, all.Complete)
			_, _, some := n.Sizes()
			_, _, every := whole.Sizes()
			require.Equal(t, every, some)
			require.LessOrEqual(t, r.States, all.States)
			t.Logf("%d states, and %d with all that differs; %d histories", r.States, all.States, some)
		})
	}
}

func TestBugsAreFound(t *testing.T) { suite.BugsAreFound(t) }

func TestCounterexamples(t *testing.T) { suite.Counterexamples(t) }

// All mistakes of the core that change what it does have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) { suite.AllBugsHaveAModel(t) }
