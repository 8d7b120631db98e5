package lint

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// loaded reads the tree once for all tests.
var loaded = sync.OnceValues(func() (*tree, error) { return load(root) })

func theTree(t *testing.T) *tree {
	tree, err := loaded()
	require.NoError(t, err)
	require.Greater(t, len(tree.files), 50)
	return tree
}

// check holds every file of the module against a rule.
func check(t *testing.T, rule func(*file) []string) {
	for _, f := range theTree(t).files {
		if f.nested {
			continue
		}
		for _, problem := range rule(f) {
			t.Error(problem)
		}
	}
}

func TestImportsRunDownwards(t *testing.T)           { check(t, checkImports) }
func TestEverythingUsesTheExecutor(t *testing.T)     { check(t, checkExecutor) }
func TestPackagesHaveNoStateOfTheirOwn(t *testing.T) { check(t, checkGlobals) }
func TestCoresArePure(t *testing.T)                  { check(t, checkCore) }
func TestExportedNamesHaveComments(t *testing.T)     { check(t, checkDocs) }

func TestProtocolsHaveCores(t *testing.T) {
	for _, problem := range checkProtocols(theTree(t).files) {
		t.Error(problem)
	}
}

// An application changes from one engine to the other by changing one import.
func TestEnginesHaveOneFace(t *testing.T) {
	raft, err := theTree(t).types.Import(module + "/raft")
	require.NoError(t, err)
	paxos, err := theTree(t).types.Import(module + "/paxos")
	require.NoError(t, err)
	require.Greater(t, len(face(raft)), 70)
	require.Empty(t, compareFaces(raft, paxos, extras))
}

func TestPackagesAreDocumented(t *testing.T) {
	for _, problem := range checkPackages(theTree(t).files) {
		t.Error(problem)
	}
}

// Nested modules are held to this one, too.
func TestNothingIsLeftForLater(t *testing.T) {
	for _, f := range theTree(t).files {
		for _, problem := range checkText(f) {
			t.Error(problem)
		}
	}
}

// An allowance that nothing needs is one too many.
func TestAllowancesAreNeeded(t *testing.T) {
	for _, a := range allowances {
		require.NotEmpty(t, a.why)
		seen, needed := false, make(map[string]bool)
		for _, f := range theTree(t).files {
			if f.path == a.place || inside(f.dir, a.place) {
				seen = true
				for _, u := range uses(f) {
					needed[u.kind] = true
				}
			}
		}
		if !seen || a.why == "a command" || a.why == "programs" {
			continue // still to come, or free to do more
		}
		for _, kind := range a.kinds {
			require.True(t, needed[kind], "%s is allowed %s and does not need it", a.place, kind)
		}
	}
}

// Whoever imports the module compiles little else.
func TestModuleIsLight(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	require.Empty(t, checkModule(string(b)))
}

// What README shows compiles and runs.
func TestReadmeShowsCodeThatRuns(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	require.Contains(t, string(b), "```go\n")
	require.Empty(t, checkReadme(string(b), theTree(t).files))
}
