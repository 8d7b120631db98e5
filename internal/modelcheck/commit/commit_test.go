package commit

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
	"github.com/synod-go/synod/internal/twophase"
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
			if racing {
				o.MaxDepth = 7
			}
			r, n := run(t, m, "", o)
			require.NoError(t, r.Violation)
			require.Equal(t, !racing, r.Complete, r.Stopped)
			require.Greater(t, r.States, uint64(50))
			require.Positive(t, n.Checked())
			t.Logf("%d states, depth %d, %d healed, %v", r.States, r.Depth, n.Checked(), r.Time)
		})
	}
}

func file(bug string) string {
	return filepath.Join("testdata", strings.NewReplacer(" ", "_", "'", "", ",", "", ":", "").Replace(bug)+".txt")
}

// slow are the mistakes for which many states are explored: of them only the counterexample is played.
var slow = []string{
	"2pc: a floor that stands for a record is not written",
	"2pc: a register that was collected is made again",
	"2pc: an old progress takes the place of a newer one",
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
			t.Logf("%d states, %d steps, %v", r.States, len(r.Path), r.Time)
		})
	}
}

// The counterexamples of testdata show what the mistakes lead to, and nothing is violated without them: the script goes
// another way then, and may ask for what is not there.
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
			}
		})
	}
}

// All mistakes of the core and of the decision log have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) {
	var names []string
	for _, pattern := range []string{"../../twophase/*.go", "../../../txn/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, found := range regexp.MustCompile(`probe\.Bug\("(2pc: [^"]+)"\)`).FindAllStringSubmatch(string(text), -1) {
				names = append(names, found[1])
			}
		}
	}
	slices.Sort(names)
	known := []string{"2pc: what is refused is not given up", "2pc: a no is told that comes after a forgotten read-only vote"} // see bugs
	for _, b := range bugs {
		known = append(known, b.Name)
		for _, name := range b.Models {
			model(t, name)
		}
	}
	slices.Sort(known)
	require.Equal(t, slices.Compact(names), known)
}

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
	require.Equal(t, []uint64{1}, model(t, "takeover").away())
	require.Empty(t, model(t, "remote").away())
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
