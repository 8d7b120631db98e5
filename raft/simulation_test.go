package raft_test

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

// A bounded sweep through simulated clusters; go run ./internal/simulate makes longer ones.
func TestSimulation(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() || racing {
		seeds = 3
	}
	s, sum := system.All()["raft"], system.NewSummary("raft", 1)
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

// The checks find mistakes: those that take a few seeds, here; go run ./internal/simulate
// -bugs finds all.
func TestPlantedBugs(t *testing.T) {
	s := system.All()["raft"]
	until, want, found := uint64(5), 5, 0
	if racing {
		until, want = 1, 1
	}
	for _, b := range s.Bugs {
		if o := s.Do(system.Job{Bug: b.Name, Seed: 1, Until: until}); o.Failure != "" {
			found++
		}
	}
	require.GreaterOrEqual(t, found, want, "of %d", len(s.Bugs))
}

// The lists of bugs and sites are those of the code.
func TestProbes(t *testing.T) {
	used := map[string]map[string]bool{"Bug": {}, "Sometimes": {}, "Buggify": {}}
	for _, dir := range []string{".", "../internal/replica", "../storage", "../transport"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
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
				if pkg, ok := fn.X.(*ast.Ident); ok && pkg.Name == "probe" {
					name, err := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
					require.NoError(t, err)
					used[fn.Sel.Name][name] = true
				}
				return true
			})
			return nil
		}))
	}
	s := system.All()["raft"]
	var bugs []string
	for _, b := range s.Bugs {
		bugs = append(bugs, b.Name)
	}
	for kind, listed := range map[string][]string{"Bug": bugs, "Sometimes": s.Sites} {
		var have []string
		for name := range used[kind] {
			have = append(have, name)
		}
		require.ElementsMatch(t, have, listed, kind)
	}
	require.True(t, slices.IsSorted(s.Sites))
	require.GreaterOrEqual(t, len(used["Buggify"]), 5)
}
