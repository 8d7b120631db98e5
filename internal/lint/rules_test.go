package lint

import (
	"go/ast"
	"go/parser"
	"go/types"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// source is a file that tests a rule: the path where it would stand, what it
// imports, one a line, and what follows.
func source(t *testing.T, where, imports, code string) *file {
	tree := theTree(t)
	text := "package p\n"
	for _, p := range strings.Fields(imports) {
		name, path, renamed := strings.Cut(p, "=")
		if !renamed {
			name, path = "", p
		}
		text += "import " + name + " \"" + strings.Replace(path, "synod/", module+"/", 1) + "\"\n"
	}
	f, err := parse(tree.fset, where, text+code)
	require.NoError(t, err)
	if !f.test {
		// Some sources import what is not there yet: their rule looks at imports only.
		if err := tree.resolve(f); err != nil && !strings.Contains(err.Error(), "imports it") {
			require.NoError(t, err)
		}
	}
	return f
}

// Each rule is held against what it must refuse.
func TestRulesRefuse(t *testing.T) {
	const core = "//synod:core\n"
	for name, c := range map[string]struct {
		rule                 func(*file) []string
		where, imports, code string
		want                 string
	}{
		"upwards":               {checkImports, "transport/a.go", "_=synod/raft", "", "not below"},
		"upwards in a test":     {checkImports, "transport/a_test.go", "_=synod/raft", "", "not below"},
		"sideways":              {checkImports, "raft/a.go", "_=synod/paxos", "", "engines do not know each other"},
		"sideways back":         {checkImports, "paxos/a.go", "_=synod/raft", "", "engines do not know each other"},
		"past the log":          {checkImports, "txn/a.go", "_=synod/raft", "", "synod.Log"},
		"past the log, deeper":  {checkImports, "shard/kv/a.go", "_=synod/paxos", "", "synod.Log"},
		"runtime under the log": {checkImports, "txn/a.go", "_=synod/internal/replica", "", "synod.Log"},
		"seams":                 {checkImports, "storage/memory/a.go", "_=synod/transport", "", "not below"},
		"sim too high":          {checkImports, "sim/a.go", "_=synod/raft", "", "not below"},
		"sim beside":            {checkImports, "sim/a.go", "_=synod/storage/memory", "", "knows the interfaces"},
		"hashring":              {checkImports, "hashring/a.go", "_=" + module, "", "nothing of ours"},
		"pebble":                {checkImports, "raft/a.go", "_=github.com/cockroachdb/pebble/v2", "", "only storage/pebble"},
		"pebble, part of it":    {checkImports, "storage/a.go", "_=github.com/cockroachdb/pebble/v2/vfs", "", "only storage/pebble"},
		"machine on Pebble":     {checkImports, "shard/a.go", "_=synod/storage/pebble/statemachine", "", "applications do"},
		"vocabulary":            {checkImports, "a.go", "_=go.etcd.io/raft/v3", "", "standard library only"},
		"vocabulary upwards":    {checkImports, "a.go", "_=synod/storage", "", "standard library only"},
		"no floor":              {checkImports, "attic/a.go", "", "", "give it one in internal/lint"},
		"no floor, internal":    {checkImports, "internal/attic/a.go", "", "", "give it one in internal/lint"},
		"import of no floor":    {checkImports, "raft/a.go", "_=synod/attic", "", "give it one in internal/lint"},
		"testing":               {checkImports, "raft/a.go", "_=testing", "", "only tests"},
		"test helper":           {checkImports, "raft/a.go", "_=synod/storage/storagetest", "", "only tests"},

		"clock":             {checkExecutor, "raft/a.go", "time", `var now = time.Now()`, "time.Now"},
		"renamed clock":     {checkExecutor, "raft/a.go", "clock=time", `func f() { clock.Sleep(1) }`, "time.Sleep"},
		"dotted clock":      {checkExecutor, "raft/a.go", ".=time", `var now = Now`, "time.Now"},
		"timer":             {checkExecutor, "storage/a.go", "time", `var t = time.NewTimer(1)`, "time.NewTimer"},
		"clock in sim":      {checkExecutor, "sim/a.go", "time", `var now = time.Now()`, "time.Now"},
		"deadline":          {checkExecutor, "raft/a.go", "context", `func f() { context.WithTimeout(nil, 1) }`, "context.WithTimeout"},
		"context.AfterFunc": {checkExecutor, "raft/a.go", "context", `func f() { context.AfterFunc(nil, f) }`, "context.AfterFunc"},
		"goroutine":         {checkExecutor, "transport/a.go", "", `func f() { go f() }`, "go statement"},
		"global rand":       {checkExecutor, "storage/a.go", "math/rand/v2", `var x = rand.IntN(3)`, "math/rand/v2.IntN"},
		"old global rand":   {checkExecutor, "storage/a.go", "math/rand", `var x = rand.Int()`, "math/rand.Int"},
		"crypto rand":       {checkExecutor, "storage/a.go", "crypto/rand", `var x = rand.Text()`, "crypto/rand.Text"},
		"crypto reader":     {checkExecutor, "raft/a.go", "crypto/rand", `var x = rand.Reader`, "crypto/rand.Reader"},
		"hash seed":         {checkExecutor, "hashring/a.go", "hash/maphash", `var x = maphash.MakeSeed()`, "maphash"},
		"wait group":        {checkExecutor, "transport/a.go", "sync", `var w sync.WaitGroup`, "sync.WaitGroup"},
		"wait group, Go":    {checkExecutor, "storage/a.go", "sync", `func f(w interface{ Wait() }) { new(sync.WaitGroup).Go(nil) }`, "sync.Go"},
		"condition":         {checkExecutor, "internal/replica/a.go", "sync", `type t struct { c sync.Cond }`, "sync.Cond"},
		"finalizer":         {checkExecutor, "raft/a.go", "runtime", `func f() { runtime.SetFinalizer(nil, nil) }`, "runtime.SetFinalizer"},
		"file":              {checkExecutor, "raft/a.go", "os", `var x, _ = os.Open("a")`, "os.Open"},
		"network":           {checkExecutor, "transport/a.go", "net", `var x, _ = net.Listen("", "")`, "net.Listen"},
		"arguments":         {checkExecutor, "raft/a.go", "os", `var x = os.Args`, "os.Args"},
		"printing":          {checkExecutor, "raft/a.go", "fmt", `func f() { fmt.Println() }`, "fmt.Println"},
		"global logger":     {checkExecutor, "raft/a.go", "log/slog", `func f() { slog.Info("") }`, "slog.Info"},
		"signal":            {checkExecutor, "raft/a.go", "os/signal", `func f() { signal.Notify(nil) }`, "os/signal.Notify"},
		"send":              {checkExecutor, "internal/replica/a.go", "", `type c chan int; func f(x c) { x <- 1 }`, "send on a channel"},
		"receive":           {checkExecutor, "raft/a.go", "context", `func f(ctx context.Context) { <-ctx.Done() }`, "receive from a channel"},
		"select":            {checkExecutor, "txn/kv/a.go", "", `func f() { select {} }`, "select"},
		"range over one":    {checkExecutor, "raft/a.go", "context", `func f(ctx context.Context) { for range ctx.Done() {} }`, "range over a channel"},
		"channel":           {checkExecutor, "shard/a.go", "", `type c chan int`, "channel"},

		"init":            {checkGlobals, "raft/a.go", "", `func init() {}`, "func init"},
		"global":          {checkGlobals, "raft/a.go", "", `var x struct { m map[int]int }; func f() { x.m[1] = 2 }`, "changes x"},
		"global counter":  {checkGlobals, "raft/a.go", "", `var x int; func f() { x++ }`, "changes x"},
		"global pointer":  {checkGlobals, "raft/a.go", "", `var x *int; func f() { *x = 1 }`, "changes x"},
		"global delete":   {checkGlobals, "raft/a.go", "", `var x map[int]int; func f() { delete(x, 1) }`, "changes x"},
		"global lock":     {checkGlobals, "raft/a.go", "sync", `var mu sync.Mutex`, "mu is a variable"},
		"global atomic":   {checkGlobals, "raft/a.go", "sync/atomic", `var n atomic.Int64`, "n is a variable"},
		"somebody else's": {checkGlobals, "raft/a.go", "crypto/rand", `func f() { rand.Reader = nil }`, "changes Reader"},

		"core lock":         {checkCore, "raft/a.go", "sync", core + "var m sync.Mutex", "does not import sync"},
		"core log":          {checkCore, "raft/a.go", "log/slog", core + "var l *slog.Logger", "does not import log/slog"},
		"core context":      {checkCore, "raft/a.go", "context", core + "var c context.Context", "does not import context"},
		"core executor":     {checkCore, "raft/a.go", "synod/internal/executor", core + "var e executor.Executor", "does not import"},
		"core transport":    {checkCore, "raft/a.go", "synod/transport", core + "var e transport.Transport", "does not import"},
		"core clock":        {checkCore, "raft/a.go", "time", core + "var now = time.Now()", "no time.Now"},
		"core date":         {checkCore, "raft/a.go", "time", core + "type r struct { at time.Time }", "no time.Time"},
		"core goroutine":    {checkCore, "raft/a.go", "", core + "func f() { go f() }", "go statement"},
		"core channel":      {checkCore, "raft/a.go", "", core + "var c chan int", "channel"},
		"core map order":    {checkCore, "raft/a.go", "", core + "func f(m map[int]int) { for k := range m { println(k) } }", "order of a map"},
		"core named map":    {checkCore, "raft/a.go", "", core + "type set map[int]bool; type s struct { x set }; func (s *s) f() { for k := range s.x { println(k) } }", "order of a map"},
		"core generic map":  {checkCore, "raft/a.go", "", core + "func f[M ~map[int]int](m M) { for k := range m { println(k) } }", "order of a map"},
		"core map returned": {checkCore, "raft/a.go", "", core + "func m() map[int]int { return nil }; func f() { for k := range m() { println(k) } }", "order of a map"},
		"core map keys":     {checkCore, "raft/a.go", "maps", core + "func f(m map[int]int) { for k := range maps.Keys(m) { println(k) } }", "order of a map"},
		"core map collect":  {checkCore, "raft/a.go", "maps slices", core + "func f(m map[int]int) []int { return slices.Collect(maps.Values(m)) }", "order of a map"},
		"core no reason":    {checkCore, "raft/a.go", "", core + "func f(m map[int]int) { for k := range m { println(k) } } //synod:ordered", "without a reason"},

		"function":      {checkDocs, "raft/a.go", "", "func Exported() {}", "Exported has no comment"},
		"method":        {checkDocs, "raft/a.go", "", "// T is one.\ntype T[K any] struct{}\nfunc (*T[K]) Close() {}", "Close has no comment"},
		"type":          {checkDocs, "raft/a.go", "", "type T int", "T has no comment"},
		"constant":      {checkDocs, "raft/a.go", "", "const (\nA = 1\n)", "A has no comment"},
		"field":         {checkDocs, "raft/a.go", "", "// Config is one.\ntype Config struct {\n// A is one.\nA int\n\nB int\n}", "Config.B has no comment"},
		"to do":         {checkText, "raft/a.go", "", "// TO" + "DO later", "raft/a.go:2"},
		"to fix":        {checkText, "raft/a_test.go", "", "// FIX" + "ME", "do it, or open an issue"},
		"machine":       {checkText, "raft/a.go", "", `var dir = "/` + `tmp/x"`, "path of one machine"},
		"machine, told": {checkText, "raft/a.go", "", "// as in /" + "work/notes", "path of one machine"},
		"long file":     {checkText, "raft/a.go", "", strings.Repeat("\n", maxLines+1), "lines"},
	} {
		t.Run(name, func(t *testing.T) {
			problems := c.rule(source(t, c.where, c.imports, c.code))
			require.Contains(t, strings.Join(problems, "\n"), c.want)
			for _, p := range problems {
				require.Contains(t, p, c.where, "a problem says where it is")
			}
		})
	}
}

// A rule that is in the way of what is right is worked around, and soon forgotten.
func TestRulesAccept(t *testing.T) {
	const core = "//synod:core\n"
	for name, c := range map[string]struct {
		rule                 func(*file) []string
		where, imports, code string
	}{
		"downwards":           {checkImports, "txn/a.go", "_=synod/storage _=" + module, ""},
		"within one entry":    {checkImports, "storage/memory/a.go", "_=synod/storage", ""},
		"tests see an engine": {checkImports, "txn/a_test.go", "_=synod/raft _=testing _=synod/storage/storagetest", ""},
		"helpers test":        {checkImports, "storage/storagetest/a.go", "_=testing", ""},
		"examples":            {checkImports, "examples/kv/a.go", "_=synod/raft _=synod/storage/pebble", ""},
		"durations":           {checkExecutor, "raft/a.go", "time", `const d = 3 * time.Second; func f(t time.Time) time.Time { return t.Add(d) }`},
		"own random source":   {checkExecutor, "raft/a.go", "math/rand/v2", `func f(s rand.Source) int { return rand.New(s).IntN(3) }`},
		"a method Now":        {checkExecutor, "raft/a.go", "synod/internal/executor time", `func f(ex executor.Executor) time.Time { return ex.Now() }`},
		"cancellation":        {checkExecutor, "raft/a.go", "context", `func f(ctx context.Context) { context.WithCancel(ctx) }`},
		"locks":               {checkExecutor, "raft/a.go", "sync", `type t struct { mu sync.Mutex; once sync.Once }`},
		"channels below":      {checkExecutor, "transport/a.go", "", `type c chan int`},
		"real input":          {checkExecutor, "transport/tcp/a.go", "net time", `func f() { go net.Listen("", ""); time.Sleep(1) }`},
		"file errors":         {checkExecutor, "raft/a.go", "os errors", `func f(err error) bool { return errors.Is(err, os.ErrNotExist) }`},
		"a logger":            {checkExecutor, "raft/a.go", "log/slog", `func f(l *slog.Logger) { l.Info("", slog.Int("a", 1)); slog.New(slog.DiscardHandler) }`},
		"a table":             {checkGlobals, "raft/a.go", "", `var names = []string{"a"}; func f() { names := names[:0]; names = append(names, "b") }`},
		"a pool":              {checkGlobals, "raft/a.go", "sync", `var buffers sync.Pool`},
		"not a core":          {checkCore, "raft/a.go", "sync", "var m sync.Mutex"},
		"core durations":      {checkCore, "raft/a.go", "time", core + `func f(d time.Duration) string { return (d * time.Second).String() }`},
		"core sorted keys":    {checkCore, "raft/a.go", "maps slices", core + "func f(m map[int]int) { for _, k := range slices.Sorted(maps.Keys(m)) { println(k) } }"},
		"core with a reason":  {checkCore, "raft/a.go", "", core + "func f(m map[int]int) { for range m { } } //synod:ordered it counts"},
		"core slice":          {checkCore, "raft/a.go", "", core + "func f(m []int) { for k := range m { println(k) } }"},
		"comment of a group":  {checkDocs, "raft/a.go", "", "// These are all.\nconst (\nA = 1\nB = 2\n)"},
		"fields side by side": {checkDocs, "raft/a.go", "", "// Config is one.\ntype Config struct {\n// A and B are.\nA int\nB int\nC int // is one\n}"},
		"not exported":        {checkDocs, "raft/a.go", "", "type t int\nfunc (t) Close() {}"},
		"a URL":               {checkText, "raft/a.go", "", `var u = "https://example.com/work/a"`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, c.rule(source(t, c.where, c.imports, c.code)))
		})
	}
}

// The rules for the tree as a whole.
func TestRulesForTheTreeRefuse(t *testing.T) {
	files := func(paths ...string) (files []*file) {
		for i := 0; i < len(paths); i += 2 {
			f, err := parse(theTree(t).fset, paths[i], paths[i+1])
			require.NoError(t, err)
			files = append(files, f)
		}
		return files
	}
	long := "// Package raft" + strings.Repeat(" says something", 20) + ".\n//\n"
	usage, limits := "// # Usage\n//\n", "// # Limits\n"
	for name, c := range map[string]struct {
		files []*file
		want  string
	}{
		"none":     {files("raft/a.go", "package raft"), "says too little"},
		"short":    {files("raft/doc.go", "// Package raft is one.\npackage raft"), "says too little"},
		"place":    {files("raft/a.go", long+usage+limits+"package raft"), "belongs into doc.go"},
		"usage":    {files("raft/doc.go", long+limits+"package raft"), "has no # Usage"},
		"limits":   {files("raft/doc.go", long+usage+"package raft"), "has no # Limits"},
		"in tests": {files("raft/a.go", "package raft", "raft/a_test.go", long+"package raft"), "says too little"},
	} {
		require.Contains(t, strings.Join(checkPackages(c.files), "\n"), c.want, name)
	}
	require.Empty(t, checkPackages(files("raft/doc.go", long+usage+limits+"package raft", "raft/a.go", "package raft")))

	require.NotEmpty(t, checkProtocols(files("paxos/a.go", "package paxos", "paxos/a_test.go", "package paxos\n//synod:core\n")))
	require.NotEmpty(t, checkProtocols(files("paxos/a.go", "package paxos\n\n//synod:core\n")))
	require.Empty(t, checkProtocols(files("paxos/a.go", "package paxos", "internal/multipaxos/a.go", "package multipaxos\n\n//synod:core\n")))
	require.Empty(t, checkProtocols(files("raft/a.go", "package raft\n\n//synod:core\n")))
	require.Empty(t, checkProtocols(files("storage/a.go", "package storage")))

	tree := files("a.go", "package synod\n\nfunc f() { g() }\n")
	require.Empty(t, checkReadme("```go\nfunc f() { g() }\n```\n", tree))
	require.NotEmpty(t, checkReadme("```go\nfunc f() { h() }\n```\n", tree))
	require.NotEmpty(t, checkReadme("```go\nfunc f() { g() }\n", tree))

	for _, mod := range []string{
		"require example.com/heavy v1.0.0",
		"require (\n\texample.com/heavy v1.0.0\n)",
		"replace a => ../a",
		"replace (\n\ta => ../a\n)",
		"toolchain go1.30.0",
	} {
		require.NotEmpty(t, checkModule("module m\n"+mod+"\n"), mod)
	}
	require.Empty(t, checkModule("module m\ngo 1.26\nrequire go.etcd.io/raft/v3 v3.7.0\nrequire (\n\texample.com/far v1.0.0 // indirect\n)\n"))
}

func TestFacesAreCompared(t *testing.T) {
	pkg := func(name, source string) *types.Package {
		syntax, err := parser.ParseFile(theTree(t).fset, name+".go", "package "+name+"\n"+source, 0)
		require.NoError(t, err)
		p, err := new(types.Config).Check(name, theTree(t).fset, []*ast.File{syntax}, nil)
		require.NoError(t, err)
		return p
	}
	const face = "type T struct { A, B int; c int }\nfunc (t *T) Do(n int) error { return nil }\nfunc New(t *T) T { return *t }\nconst C = 1\nvar V error\n"
	a := pkg("a", face)
	compare := func(source string, extras map[string]string) string {
		return strings.Join(compareFaces(a, pkg("b", source), extras), "\n")
	}
	require.Empty(t, compare(face, nil))
	require.Empty(t, compare(strings.Replace(face, "c int", "d string", 1)+"func f() {}\ntype t int\n", nil))
	for name, c := range map[string]struct{ source, want string }{
		"field":     {strings.Replace(face, "A, B int", "A int", 1), "a.T.B: b has none"},
		"type":      {strings.Replace(face, "A, B int", "A, B uint", 1), "T.A: in a it is field int"},
		"method":    {strings.Replace(face, "Do(n int)", "Do(n ...int)", 1), "T.Do: in a"},
		"no method": {strings.Replace(face, "Do(", "do(", 1), "a.T.Do: b has none"},
		"function":  {strings.Replace(face, "New(t *T) T", "New(t *T) *T", 1) + "\n", "New: in a"},
		"constant":  {strings.Replace(face, "C = 1", "C = 2", 1), "C: in a it is const untyped int = 1"},
		"variable":  {strings.Replace(face, "V error", "V any", 1), "V: in a"},
		"more":      {face + "type More struct{ X int }\n", "b.More: a has none"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "function" {
				c.source = strings.Replace(c.source, "return *t", "return t", 1)
			}
			require.Contains(t, compare(c.source, nil), c.want)
		})
	}
	require.Empty(t, compare(face+"type More struct{ X int }\n", map[string]string{"b.More": "why"}))
	require.Contains(t, compare(face, map[string]string{"b.More": "why"}), "b.More: is not there")
	require.Contains(t, compare(face, map[string]string{"a.C": "why"}), "a.C: is not there, or not beyond")
}
