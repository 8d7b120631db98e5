package modeltest

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

// Suite is what a protocol has: models, and mistakes that they find.
type Suite[M network.Model] struct {
	Models func() []M // all of them, new ones each time: a test may change what it gets
	Bugs   []network.Bug

	// Slow are the names of those Bugs for which many states are explored: of them only the counterexample is played,
	// but with -rewrite.
	Slow []string

	// Sources are the patterns of the files in which mistakes can be planted, and Tag is how the names of those begin that are this
	// protocol's; "": all are.
	Sources []string
	Tag     string

	// Unfound are the names of mistakes in Sources that no model finds, and Elsewhere of those among Bugs that are not in Sources.
	Unfound, Elsewhere []string

	// Prefix is left out of the names of files.
	Prefix string

	// Others are how many files of testdata are no counterexamples of Bugs.
	Others int

	// Otherwise looks at the error of a counterexample that can't be played to its end without the mistake: the script goes another
	// way then, and may ask for what is not there. nil: any error will do.
	Otherwise func(t *testing.T, m M, err error)
}

// Model returns one of the models, which a test may change.
func (s *Suite[M]) Model(t *testing.T, name string) (m M) {
	t.Helper()
	for _, m := range s.Models() {
		if m.Label() == name {
			return m
		}
	}
	t.Fatalf("no model %q", name)
	return m
}

// Explore explores a model. planted says that there is a mistake in the code.
func Explore(t *testing.T, m network.Model, planted bool, o explore.Options) (explore.Result, *network.Network) {
	t.Helper()
	n, err := m.New(planted)
	require.NoError(t, err)
	r, err := explore.Run(n, o)
	require.NoError(t, err)
	return r, n
}

// Find explores a model until something is violated, and returns the counterexample as it is played. bug is the mistake in the code,
// if there is one.
func Find(t *testing.T, m network.Model, bug string) (played string) {
	t.Helper()
	r, n := Explore(t, m, bug != "", explore.Options{MaxStates: 1_000_000})
	require.Error(t, r.Violation)
	script, err := n.Script(m, r.Path)
	require.NoError(t, err)
	script = slices.Insert(script, 0, "# Found by the model "+m.Label()+": "+m.Bounds())
	if bug != "" {
		script = slices.Insert(script, 0, "# Planted: "+bug)
	}
	played, err = m.Play(script)
	require.NoError(t, err)
	first, _, _ := strings.Cut(r.Violation.Error(), "\n")
	require.True(t, strings.HasSuffix(played, "\nVIOLATION: "+first+"\n"), "%s", played)
	t.Logf("%d states, %d steps, %v: %s", r.States, len(r.Path), r.Time, first)
	return played
}

// Kept holds what was played against the file in which it is kept, or writes it there with -rewrite.
func Kept(t *testing.T, file, played string) {
	t.Helper()
	if *rewrite {
		require.NoError(t, os.WriteFile(file, []byte(played), 0o666))
	}
	saved, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(saved), played)
}

// file returns where the counterexample of a mistake is kept.
func (s *Suite[M]) file(bug string) string {
	name := strings.NewReplacer(" ", "_", "'", "", ",", "", ":", "").Replace(strings.TrimPrefix(bug, s.Prefix))
	return filepath.Join("testdata", name+".txt")
}

// BugsAreFound says that each planted mistake is found, by a counterexample that is as short as any and the same each time.
func (s *Suite[M]) BugsAreFound(t *testing.T) {
	for _, b := range s.Bugs {
		if slices.Contains(s.Slow, b.Name) && !*rewrite {
			continue // it is played
		}
		t.Run(b.Name, func(t *testing.T) {
			defer probe.Plant(b.Name)()
			Kept(t, s.file(b.Name), Find(t, s.Model(t, b.Models[0]), b.Name))
		})
	}
}

// Counterexamples says that those of testdata show what the mistakes lead to, and that nothing is violated without them.
func (s *Suite[M]) Counterexamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(s.Bugs)+s.Others)
	for _, b := range s.Bugs {
		t.Run(b.Name, func(t *testing.T) {
			saved, err := os.ReadFile(s.file(b.Name))
			require.NoError(t, err)
			require.Contains(t, string(saved), "# Planted: "+b.Name+"\n")
			lines := network.Lines(string(saved))
			m := s.Model(t, b.Models[0])

			uninstall := probe.Plant(b.Name)
			played, err := m.Play(lines)
			uninstall()
			require.NoError(t, err)
			require.Equal(t, string(saved), played)
			require.Equal(t, 1, strings.Count(played, "\nVIOLATION: "))

			played, err = m.Play(lines)
			require.NotContains(t, played, "VIOLATION")
			if err == nil {
				require.NotEqual(t, string(saved), played)
			} else if s.Otherwise != nil {
				s.Otherwise(t, m, err)
			}
		})
	}
}

var asked = regexp.MustCompile(`probe\.Bug\("([^"]+)"\)`)

// AllBugsHaveAModel says that each mistake that can be planted in the sources is among Bugs, with models that there are, or is known to be
// found by none.
func (s *Suite[M]) AllBugsHaveAModel(t *testing.T) {
	var names []string
	for _, pattern := range s.Sources {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, found := range asked.FindAllStringSubmatch(string(text), -1) {
				if strings.HasPrefix(found[1], s.Tag) {
					names = append(names, found[1])
				}
			}
		}
	}
	names = append(names, s.Elsewhere...)
	slices.Sort(names)
	known := slices.Clone(s.Unfound)
	for _, b := range s.Bugs {
		known = append(known, b.Name)
		require.NotEmpty(t, b.Models, b.Name)
		for _, name := range b.Models {
			s.Model(t, name)
		}
	}
	slices.Sort(known)
	require.Equal(t, known, slices.Compact(names))
}
