package paxos

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
			r, _ := run(t, m, "", explore.Options{MaxDepth: deep[m.Name]})
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
			m := model(t, name)
			smaller[name](m)
			r, n := run(t, m, "", explore.Options{})
			m.plain = true
			all, whole := run(t, m, "", explore.Options{})
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

func file(bug string) string {
	return filepath.Join("testdata", strings.NewReplacer(" ", "_", "'", "", ",", "").Replace(bug)+".txt")
}

// slow are the mistakes for which many states are explored: of them only the counterexample is played.
var slow = []string{
	"decided marks slots of other ballots",
	"the lowest ballot's value taken",
	"accepts of another ballot counted",
	"a new leader answers reads at once",
	"a leader answers reads without asking",
	"phase 1 of the old configuration only",
}

// A planted mistake is found, by a counterexample that is as short as any and the same each time.
func TestBugsAreFound(t *testing.T) {
	for _, b := range bugs {
		if slices.Contains(slow, b.Name) && !*rewrite {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			m := model(t, b.Models[0])
			uninstall := plant(b.Name)
			defer uninstall()
			r, n := run(t, m, b.Name, explore.Options{MaxStates: 1_000_000})
			require.Error(t, r.Violation)
			script, err := n.Script(m, r.Path)
			require.NoError(t, err)
			script = slices.Insert(script, 0, "# Planted: "+b.Name, "# Found by the model "+m.Name+": "+m.Bounds())
			played, err := m.Play(script)
			require.NoError(t, err)
			first, _, _ := strings.Cut(r.Violation.Error(), "\n")
			require.True(t, strings.HasSuffix(played, "\nVIOLATION: "+first+"\n"), "%s", played)
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
	require.Len(t, files, len(bugs))
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
			} else if !m.Refused {
				require.ErrorContains(t, err, "no such message")
			}
		})
	}
}

// All mistakes of the core that change what it does have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) {
	files, err := filepath.Glob("../../multipaxos/*.go")
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
	known := []string{"a repair forgets what follows its snapshot"} // see bugs
	for _, b := range bugs {
		known = append(known, b.Name)
		for _, name := range b.Models {
			model(t, name)
		}
	}
	slices.Sort(known)
	require.Equal(t, slices.Compact(names), known)
}
