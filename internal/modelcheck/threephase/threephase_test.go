package threephase

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/modelcheck/explore"
	"github.com/synod-go/synod/internal/modelcheck/network"
	"github.com/synod-go/synod/internal/probe"
	core "github.com/synod-go/synod/internal/threephase"
)

var rewrite = flag.Bool("rewrite", false, "find the counterexamples of testdata again, and write them")

// planted is a probe that switches on one mistake.
type planted struct{ bug string }

func (planted) Sometimes(string, bool)    {}
func (planted) Buggify(string) bool       { return false }
func (p planted) Bug(name string) bool    { return name == p.bug }
func (planted) Observe(any)               {}
func plant(bug string) (uninstall func()) { return probe.Install(planted{bug}) }

// model returns one of the models, which a test may change.
func model(t *testing.T, name string) *Model {
	for _, m := range models() {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no model %q", name)
	return nil
}

func run(t *testing.T, m *Model, bug string, o explore.Options) (explore.Result, *network.Network) {
	t.Helper()
	n, err := m.New(bug != "")
	require.NoError(t, err)
	r, err := explore.Run(n, o)
	require.NoError(t, err)
	return r, n
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
			r, _ := run(t, m, "", explore.Options{})
			require.NoError(t, r.Violation)
			require.True(t, r.Complete, r.Stopped)
			require.Greater(t, r.States, uint64(10))
			t.Logf("%d states, depth %d, %v", r.States, r.Depth, r.Time)
		})
	}
}

func file(bug string) string {
	name := strings.TrimPrefix(bug, "3pc: ")
	return filepath.Join("testdata", strings.NewReplacer(" ", "_", "'", "", ",", "").Replace(name)+".txt")
}

// find explores a model until something is violated, and returns the counterexample as it is played.
func find(t *testing.T, m *Model, bug string) (played string) {
	r, n := run(t, m, bug, explore.Options{MaxStates: 1_000_000})
	require.Error(t, r.Violation)
	script, err := n.Script(m, r.Path)
	require.NoError(t, err)
	script = slices.Insert(script, 0, "# Found by the model "+m.Name+": "+m.Bounds())
	if bug != "" {
		script = slices.Insert(script, 0, "# Planted: "+bug)
	}
	played, err = m.Play(script)
	require.NoError(t, err)
	first, _, _ := strings.Cut(r.Violation.Error(), "\n")
	require.True(t, strings.HasSuffix(played, "\nVIOLATION: "+first+"\n"), "%s", played)
	return played
}

// Plain three-phase commit splits under a partition: this is its shortest counterexample. The same steps do not split E3PC, where
// nobody is taken for crashed.
func TestSkeenSplitsUnderAPartition(t *testing.T) {
	m := model(t, "partition")
	played := find(t, m, "")
	const name = "testdata/partition.txt"
	if *rewrite {
		require.NoError(t, os.WriteFile(name, []byte(played), 0o666))
	}
	saved, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(saved), played)
	require.Contains(t, played, "VIOLATION: split")

	played, err = m.Play(network.Lines(strings.Replace(string(saved), "protocol=skeen", "protocol=enhanced", 1)))
	require.NoError(t, err)
	require.NotContains(t, played, "VIOLATION")
	require.NotContains(t, played, "has committed")

	m.Protocol = core.Enhanced
	m.Elections, m.Expiries = 1, 1
	r, _ := run(t, m, "", explore.Options{})
	require.NoError(t, r.Violation)
	require.True(t, r.Complete)
}

// slow are the mistakes for which many states are explored: of them only the counterexample is played.
var slow = []string{
	"3pc: what was said in another election counts",
	"3pc: acknowledgements of another attempt count",
	"3pc: an election is not durable before it is held",
	"3pc: any pre-commit is taken for the last attempt",
	"3pc: an attempt is acknowledged before it is durable",
}

// A planted mistake is found, by a counterexample that is as short as any and the same each time.
func TestBugsAreFound(t *testing.T) {
	for _, b := range bugs {
		if slices.Contains(slow, b.Name) && !*rewrite {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			defer plant(b.Name)()
			played := find(t, model(t, b.Models[0]), b.Name)
			if *rewrite {
				require.NoError(t, os.WriteFile(file(b.Name), []byte(played), 0o666))
			}
			saved, err := os.ReadFile(file(b.Name))
			require.NoError(t, err)
			require.Equal(t, string(saved), played)
		})
	}
}

// The counterexamples of testdata show what the mistakes lead to, and nothing is violated without them: the script goes
// another way then, and may ask for a message that is not there.
func TestCounterexamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(bugs)+1)
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			saved, err := os.ReadFile(file(b.Name))
			require.NoError(t, err)
			require.Contains(t, string(saved), "# Planted: "+b.Name+"\n")
			lines := network.Lines(string(saved))
			m := model(t, b.Models[0])

			uninstall := plant(b.Name)
			played, err := m.Play(lines)
			uninstall()
			require.NoError(t, err)
			require.Equal(t, string(saved), played)
			require.Equal(t, 1, strings.Count(played, "\nVIOLATION: "))

			played, err = m.Play(lines)
			require.NotContains(t, played, "VIOLATION")
			if err == nil {
				require.NotEqual(t, string(saved), played)
			} else {
				require.ErrorContains(t, err, "no such message")
			}
		})
	}
}

// All mistakes of the core have a model that finds them, but for those that are no matter of safety, or of how resources vote.
func TestAllBugsHaveAModel(t *testing.T) {
	files, err := filepath.Glob("../../threephase/*.go")
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`).FindAllStringSubmatch(string(text), -1) {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	known := []string{ // see bugs
		"3pc: a no is told to others before it is durable",
		"3pc: a participant in doubt aborts alone", // by time
		"3pc: it is said to be done before that is durable",
		"3pc: what is over for one is forgotten",
	}
	for _, b := range bugs {
		known = append(known, b.Name)
		for _, name := range b.Models {
			model(t, name)
		}
	}
	slices.Sort(known)
	require.Equal(t, known, slices.Compact(names))
}

func TestWhatAScriptCantDo(t *testing.T) {
	for _, line := range []string{"", "stand 1", "commit nodes=9", "commit nodes=2 participants=(3)", "commit nodes=2 participants=(1,x)", "commit nodes=2 participants=(1,2) weights=(1)", "commit nodes=1 participants=(1)\nfly 1", "commit nodes=1 participants=(1)\ndeliver from=1 to=1 type=vote"} {
		_, err := new(Model).Play(strings.Split(line, "\n"))
		require.Error(t, err, line)
	}
}
