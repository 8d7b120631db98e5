package threephase

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/modeltest"
	"github.com/synod-go/synod/internal/modelcheck/network"
	core "github.com/synod-go/synod/internal/threephase"
)

var suite = modeltest.Suite[*Model]{
	Models: models, Bugs: bugs,
	Prefix: "3pc: ", Others: 1, // see TestSkeenSplitsUnderAPartition
	Sources: []string{"../../threephase/*.go"},
	Unfound: []string{ // see bugs
		"3pc: a no is told to others before it is durable",
		"3pc: a participant in doubt aborts alone", // by time
		"3pc: it is said to be done before that is durable",
		"3pc: what is over for one is forgotten",
	},
	Slow: []string{
		"3pc: what was said in another election counts",
		"3pc: acknowledgements of another attempt count",
		"3pc: an election is not durable before it is held",
		"3pc: any pre-commit is taken for the last attempt",
		"3pc: an attempt is acknowledged before it is durable",
	},
	Otherwise: func(t *testing.T, _ *Model, err error) { require.ErrorContains(t, err, "no such message") },
}

// smaller is each model with fewer of what makes it large.
var smaller = map[string]func(*Model){
	"base":        func(m *Model) { m.Elections = 1 },
	"elections":   func(m *Model) { m.Elections = 1 },
	"duel":        func(m *Model) { m.Elections = 1 },
	"votes":       func(m *Model) { m.Expiries = 0; m.Crashing = []uint64{2} },
	"coordinator": func(m *Model) { m.Elections = 0; m.Expiries = 2 },
	"two":         func(m *Model) { m.Elections = 1 },
	"no":          func(*Model) {},
	"read-only":   func(m *Model) { m.Expiries = 0; m.Crashing = []uint64{1} },
	"weights":     func(m *Model) { m.Expiries = 0; m.Crashing = []uint64{3} },
	"inquiries":   func(m *Model) { m.Elections = 0 },
	"closing":     func(m *Model) { m.Crashes = 0 },
	"forgetting":  func(m *Model) { m.Elections = 0 },
	"alone":       func(m *Model) { m.Crashes = 1 },
	"patient":     func(m *Model) { m.Expiries = 0 },
}

// Within smaller bounds all models of E3PC are right, in every state, and so is that of Skeen's protocol where nobody is
// taken for crashed.
func TestModels(t *testing.T) {
	for _, m := range models() {
		if m.Name == "partition" {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			shrink := smaller[m.Name]
			require.NotNil(t, shrink, "this model has no smaller one")
			shrink(m)
			r, _ := modeltest.Explore(t, m, false, explore.Options{})
			require.NoError(t, r.Violation)
			require.True(t, r.Complete, r.Stopped)
			require.Greater(t, r.States, uint64(10))
			t.Logf("%d states, depth %d, %v", r.States, r.Depth, r.Time)
		})
	}
}

// Plain three-phase commit splits under a partition: this is its shortest counterexample. The same steps do not split E3PC, where
// nobody is taken for crashed.
func TestSkeenSplitsUnderAPartition(t *testing.T) {
	m := suite.Model(t, "partition")
	split := modeltest.Find(t, m, "")
	modeltest.Kept(t, "testdata/partition.txt", split)
	require.Contains(t, split, "VIOLATION: split")

	played, err := m.Play(network.Lines(strings.Replace(split, "protocol=skeen", "protocol=enhanced", 1)))
	require.NoError(t, err)
	require.NotContains(t, played, "VIOLATION")
	require.NotContains(t, played, "has committed")

	m.Protocol = core.Enhanced
	m.Elections, m.Expiries = 1, 1
	r, _ := modeltest.Explore(t, m, false, explore.Options{})
	require.NoError(t, r.Violation)
	require.True(t, r.Complete)
}

func TestBugsAreFound(t *testing.T) { suite.BugsAreFound(t) }

func TestCounterexamples(t *testing.T) { suite.Counterexamples(t) }

// All mistakes of the core have a model that finds them, but for those that are no matter of safety, or of how resources vote.
func TestAllBugsHaveAModel(t *testing.T) { suite.AllBugsHaveAModel(t) }

func TestWhatAScriptCantDo(t *testing.T) {
	for _, line := range []string{"", "stand 1", "commit nodes=9", "commit nodes=2 participants=(3)", "commit nodes=2 participants=(1,x)", "commit nodes=2 participants=(1,2) weights=(1)", "commit nodes=1 participants=(1)\nfly 1", "commit nodes=1 participants=(1)\ndeliver from=1 to=1 type=vote"} {
		_, err := new(Model).Play(strings.Split(line, "\n"))
		require.Error(t, err, line)
	}
}
