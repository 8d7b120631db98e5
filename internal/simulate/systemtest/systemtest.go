package systemtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/synod-go/synod/internal/simulate/system"
)

// Sweep runs a system through so many seeds, each twice: go run ./internal/simulate makes longer ones.
func Sweep(t *testing.T, name string, seeds uint64) {
	s, sum := system.All()[name], system.NewSummary(name, 1)
	for seed := uint64(1); seed <= seeds; seed++ {
		o := s.Do(system.Job{Seed: seed, Twice: true})
		require.Empty(t, o.Report)
		sum.Add(o)
	}
	sum.End(s.Sites)
	require.Empty(t, sum.Violations)
	require.Zero(t, sum.Mismatches)
	require.EqualValues(t, seeds, sum.Histories)
}

// PlantedBugs sees that the checks find at least so many of the mistakes within so many seeds each:
// go run ./internal/simulate -bugs finds all.
func PlantedBugs(t *testing.T, name string, seeds uint64, want int) {
	s := system.All()[name]
	found := 0
	for _, b := range s.Bugs {
		if o := s.Do(system.Job{Bug: b.Name, Seed: 1, Until: seeds}); o.Failure != "" {
			if found++; found == want {
				return
			}
		}
	}
	require.GreaterOrEqual(t, found, want, "of %d", len(s.Bugs))
}

// Probes sees that a system's lists of bugs and of sites are those of the code below some folders.
func Probes(t *testing.T, name string, dirs ...string) {
	used := map[string]map[string]bool{"Bug": {}, "Sometimes": {}, "Buggify": {}}
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			return look(path, used)
		}))
	}
	s := system.All()[name]
	var bugs []string
	for _, b := range slices.Concat(s.Bugs, s.BareBugs) {
		bugs = append(bugs, b.Name)
	}
	for kind, listed := range map[string][]string{"Bug": bugs, "Sometimes": slices.Concat(s.Sites, s.BareSites)} {
		var have []string
		for name := range used[kind] {
			have = append(have, name)
		}
		require.ElementsMatch(t, have, listed, kind)
	}
	require.True(t, slices.IsSorted(s.Sites))
	require.GreaterOrEqual(t, len(used["Buggify"]), 5)
}

// look notes the names of all probes in a file, by the function that is called.
func look(path string, used map[string]map[string]bool) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		fn, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || used[fn.Sel.Name] == nil {
			return true
		}
		pkg, ok := fn.X.(*ast.Ident)
		name, literal := call.Args[0].(*ast.BasicLit)
		if !ok || pkg.Name != "probe" || !literal {
			return true
		}
		unquoted, unquoteErr := strconv.Unquote(name.Value)
		if unquoteErr != nil {
			err = unquoteErr
		}
		used[fn.Sel.Name][unquoted] = true
		return true
	})
	return err
}
