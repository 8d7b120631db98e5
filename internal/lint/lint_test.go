package lint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

func tree(t *testing.T) []*file {
	files, err := load(root)
	require.NoError(t, err)
	require.Greater(t, len(files), 20)
	return files
}

func check(t *testing.T, rule func(*file) []string) {
	for _, f := range tree(t) {
		for _, problem := range rule(f) {
			t.Error(problem)
		}
	}
}

func TestImportsRunDownwards(t *testing.T)       { check(t, checkImports) }
func TestEverythingUsesTheExecutor(t *testing.T) { check(t, checkExecutor) }
func TestCoresAreePure(t *testing.T)             { check(t, checkCore) }
func TestExportedNamesHaveComments(t *testing.T) { check(t, checkDocs) }
func TestNothingIsLeftForLater(t *testing.T)     { check(t, checkText) }

func TestThereIsACore(t *testing.T) {
	require.True(t, slices.ContainsFunc(tree(t), (*file).core), "no file is marked //synod:core: the rule for cores checks nothing")
}

// Every package says in doc.go what it is and how it is used; commands say it in
// main.go.
func TestPackagesAreDocumented(t *testing.T) {
	docs := make(map[string]string)
	dirs := make(map[string]bool)
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		dirs[f.dir] = true
		if f.syntax.Doc != nil {
			docs[f.dir] = f.syntax.Doc.Text()
			if f.syntax.Name.Name != "main" && f.dir != "internal/executor" {
				require.Equal(t, "doc.go", filepath.Base(f.path), "%s: the package comment belongs into doc.go", f.path)
			}
		}
	}
	for dir := range dirs {
		require.Greater(t, len(docs[dir]), 200, "package %s: its comment says too little", dir)
		if strings.HasPrefix(dir, "internal") || strings.HasPrefix(dir, "examples") || dir == "." {
			continue
		}
		require.Contains(t, docs[dir], "# Usage", "package %s", dir)
	}
}

// Whoever imports the module compiles little else.
func TestModuleIsLight(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	problems := checkModule(string(b))
	require.Empty(t, problems)
}

// What README shows compiles and runs: each block of Go in it stands in the tree.
func TestReadmeShowsCodeThatRuns(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	files := tree(t)
	blocks := strings.Split(string(b), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, closed := strings.Cut(block, "\n```")
		require.True(t, closed)
		require.True(t, slices.ContainsFunc(files, func(f *file) bool { return strings.Contains(f.source, code) }),
			"README shows code that stands nowhere in the tree:\n%s", code)
	}
}

// Each rule is held against what it must refuse.
func TestRulesRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		rule         func(*file) []string
		path, source string
		want         string
	}{
		"upwards":        {checkImports, "transport/a.go", `package transport; import _ "github.com/synod-go/synod/raft"`, "not below"},
		"sideways":       {checkImports, "raft/a.go", `package raft; import _ "github.com/synod-go/synod/paxos"`, "engines do not know each other"},
		"past the log":   {checkImports, "txn/a.go", `package txn; import _ "github.com/synod-go/synod/raft"`, "synod.Log"},
		"sim too high":   {checkImports, "sim/a.go", `package sim; import _ "github.com/synod-go/synod/raft"`, "not below"},
		"hashring":       {checkImports, "hashring/a.go", `package hashring; import _ "github.com/synod-go/synod"`, "nothing of ours"},
		"pebble":         {checkImports, "raft/a.go", `package raft; import _ "github.com/cockroachdb/pebble/v2"`, "only storage/pebble"},
		"vocabulary":     {checkImports, "a.go", `package synod; import _ "go.etcd.io/raft/v3"`, "standard library only"},
		"no floor":       {checkImports, "attic/a.go", `package attic`, "stands on no floor"},
		"clock":          {checkExecutor, "raft/a.go", `package raft; import "time"; var now = time.Now()`, "time.Now"},
		"renamed clock":  {checkExecutor, "raft/a.go", `package raft; import clock "time"; func f() { clock.Sleep(1) }`, "clock.Sleep"},
		"deadline":       {checkExecutor, "raft/a.go", `package raft; import "context"; func f() { context.WithTimeout(nil, 1) }`, "context.WithTimeout"},
		"goroutine":      {checkExecutor, "transport/a.go", `package transport; func f() { go f() }`, "go statement"},
		"global rand":    {checkExecutor, "storage/a.go", `package storage; import "math/rand/v2"; var x = rand.Int()`, "math/rand/v2"},
		"crypto rand":    {checkExecutor, "storage/a.go", `package storage; import "crypto/rand"; var x = rand.Text()`, "crypto/rand"},
		"channel":        {checkExecutor, "internal/replica/a.go", `package replica; func f(c chan int) { c <- 1 }`, "send on a channel"},
		"wait group":     {checkExecutor, "internal/replica/a.go", `package replica; import "sync"; var w sync.WaitGroup`, "sync.WaitGroup"},
		"core lock":      {checkCore, "raft/a.go", "package raft\n//synod:core\nimport \"sync\"\nvar m sync.Mutex", "does not import sync"},
		"core log":       {checkCore, "raft/a.go", "package raft\n//synod:core\nimport \"log/slog\"\nvar l *slog.Logger", "does not import log/slog"},
		"core map order": {checkCore, "raft/a.go", "package raft\n//synod:core\nfunc f(m map[int]int) { for range m {} }", "range over a map"},
		"core channel":   {checkCore, "raft/a.go", "package raft\n//synod:core\nvar c chan int", "channel"},
		"no comment":     {checkDocs, "raft/a.go", "package raft\nfunc Exported() {}", "Exported has no comment"},
		"to do":          {checkText, "raft/a.go", "package raft // TO" + "DO later", "contains"},
		"long file":      {checkText, "raft/a.go", "package raft" + strings.Repeat("\n", maxLines+1), "lines"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parse(c.path, c.source)
			require.NoError(t, err)
			require.Contains(t, strings.Join(c.rule(f), "\n"), c.want)
		})
	}
	require.NotEmpty(t, checkModule("module m\nrequire example.com/heavy v1.0.0\n"))
	require.NotEmpty(t, checkModule("module m\nreplace a => ../a\n"))
	require.NotEmpty(t, checkModule("module m\nrequire (\n\texample.com/heavy v1.0.0\n)\n"))
}
