package paxoscommit

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

// All models are right, as far as there is time: the command explores all of them.
func TestModels(t *testing.T) {
	for _, m := range models() {
		t.Run(m.Name, func(t *testing.T) {
			o := explore.Options{MaxStates: 5_000}
			if racing {
				o.MaxStates = 500
			}
			r, n := run(t, m, "", o)
			require.NoError(t, r.Violation)
			require.True(t, r.Complete || r.States >= o.MaxStates, r.Stopped)
			require.Positive(t, n.Checked())
			t.Logf("%d states, complete: %v, depth %d, %d healed, %v", r.States, r.Complete, r.Depth, n.Checked(), r.Time)
		})
	}
}

func file(bug string) string {
	return filepath.Join("testdata", strings.NewReplacer(" ", "_", "'", "", ",", "", ":", "").Replace(bug)+".txt")
}

// A planted mistake is found, by a counterexample that is as short as any and the same each time.
func TestBugsAreFound(t *testing.T) {
	for _, b := range bugs {
		if racing && !*rewrite {
			continue // they are played
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
			t.Logf("%d states, %d steps, %v: %s", r.States, len(r.Path), r.Time, first)
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

// What the checker has found in the code that ships, and was mended: the same steps lead to nothing that is wrong any more.
func TestWhatWasMended(t *testing.T) {
	files, err := filepath.Glob("testdata/mended/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			saved, err := os.ReadFile(file)
			require.NoError(t, err)
			lines := network.Lines(string(saved))
			played, err := new(Model).Play(lines)
			require.NoError(t, err)
			require.NotContains(t, played, "VIOLATION")
			require.Equal(t, lines, network.Lines(played))
			require.Contains(t, played, "resolve 1.1 aborted")
		})
	}
}

// All mistakes of the cores have a model that finds them.
func TestAllBugsHaveAModel(t *testing.T) {
	files, err := filepath.Glob("../../paxoscommit/*.go")
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
	known := []string{}
	for _, b := range bugs {
		if strings.HasPrefix(b.Name, "paxoscommit: ") {
			known = append(known, b.Name)
		}
		for _, name := range b.Models {
			model(t, name)
		}
	}
	slices.Sort(known)
	require.Equal(t, slices.Compact(names), known)
}

// What a script can't do is said.
func TestWhatAScriptRefuses(t *testing.T) {
	for _, line := range []string{"", "begin by=(1) session=1", "deliver", "groups 9", "groups 0", "groups 3 recoverers=7"} {
		_, _, err := new(Player).Exec(line)
		require.Error(t, err, line)
	}
	for _, line := range []string{"begin", "begin by=(3) session=1", "begin by=(1) session=9", "give-up 1.1", "expire 3 before=1", "deliver type=vote", "fly 1"} {
		_, err := models()[0].Play([]string{"groups 2 recoverers=1", line})
		require.Error(t, err, line)
	}
}
