package lint

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
)

// protocols are the packages that have a core, and where it is.
var protocols = []struct{ dir, core string }{
	{"raft", "raft"},
	{"paxos", "internal/multipaxos"}, // which internal/modelcheck explores, too
	{"txn", "internal/twophase"},
	{"txn", "internal/threephase"},
	{"shard", "shard"},
}

// coreImports is all that a core may import beside packages of ours: what computes,
// and nothing that waits, reads or writes, knows the time, or draws at random.
var coreImports = []string{
	"bytes", "cmp", "container/heap", "encoding/binary", "errors", "fmt", "hash", "hash/crc32", "hash/crc64", "hash/fnv", "iter", "maps", "math",
	"math/bits", "slices", "sort", "strconv", "strings", "unicode/utf8",
	"time", // for time.Duration
	"go.etcd.io/raft/v3", "go.etcd.io/raft/v3/confchange", "go.etcd.io/raft/v3/quorum", "go.etcd.io/raft/v3/raftpb", "go.etcd.io/raft/v3/tracker",
	"google.golang.org/protobuf/proto",
	"github.com/tidwall/btree", // a tree in memory, with copies on write
}

// coreStrangers are packages of ours that a core may not import: those of the
// executor, of the network and of the disk.
var coreStrangers = []string{"internal/executor", "transport", "storage/memory", "storage/pebble", "sim"}

// sorters take the keys of a map and give them an order, or do not need one.
var sorters = []string{"slices.Sorted", "slices.SortedFunc", "slices.SortedStableFunc", "maps.Collect", "maps.Insert"}

// checkCore holds a file of a protocol core against what makes it one.
func checkCore(f *file) (problems []string) {
	if !f.core || f.test {
		return nil
	}
	for i, p := range imports(f) {
		dir, ours := below(p)
		if ours && slices.ContainsFunc(coreStrangers, func(s string) bool { return inside(dir, s) }) || !ours && !slices.Contains(coreImports, p) {
			problems = append(problems, f.at(f.syntax.Imports[i].Pos(), "a core does not import %s: see coreImports in internal/lint, core.go", p))
		}
	}
	if f.info == nil {
		return problems
	}
	say := func(n ast.Node, what string) {
		problems = append(problems, f.at(n.Pos(), "a core has no %s", what))
	}
	unordered := func(n ast.Node) {
		_, reason, marked := strings.Cut(f.line(n.Pos()), "//synod:ordered")
		switch {
		case !marked:
			say(n, "output that depends on the order of a map: sort the keys, or say why it reaches no output with //synod:ordered REASON")
		case strings.TrimSpace(reason) == "":
			say(n, "//synod:ordered without a reason")
		}
	}
	sorted := make(map[*ast.CallExpr]bool) // calls whose result gets an order
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if what := channelUse(f.info, n); what != "" {
			say(n, what)
			return true
		}
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "go statement")
		case *ast.RangeStmt:
			if isMap(f.info.TypeOf(n.X)) {
				unordered(n)
			}
		case *ast.CallExpr:
			name := callee(f.info, n)
			if slices.Contains(sorters, name) {
				for _, arg := range n.Args {
					if c, ok := ast.Unparen(arg).(*ast.CallExpr); ok {
						sorted[c] = true
					}
				}
			}
			if slices.Contains([]string{"maps.Keys", "maps.Values", "maps.All"}, name) && !sorted[n] {
				unordered(n)
			}
		case *ast.SelectorExpr:
			obj := f.info.Uses[n.Sel]
			if obj == nil || obj.Pkg() == nil || obj.Pkg().Path() != "time" {
				break
			}
			_, constant := obj.(*types.Const)
			fn, _ := obj.(*types.Func)
			if !constant && obj.Name() != "Duration" && (fn == nil || fn.Signature().Recv() == nil || receiver(fn) != "Duration") {
				say(n, "time."+obj.Name()+": time comes in as ticks")
			}
		}
		return true
	})
	return problems
}

// isMap reports whether a value is a map, or may be one.
func isMap(t types.Type) bool {
	if t == nil {
		return false
	}
	if p, ok := t.(*types.TypeParam); ok {
		if u, ok := p.Constraint().Underlying().(*types.Interface); ok {
			for e := range u.EmbeddedTypes() {
				if union, ok := e.(*types.Union); ok {
					for term := range union.Terms() {
						if isMap(term.Type()) {
							return true
						}
					}
				} else if isMap(e) {
					return true
				}
			}
		}
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// callee returns package and name of the function that is called, if it is one of a
// package's.
func callee(info *types.Info, call *ast.CallExpr) string {
	fun := ast.Unparen(call.Fun)
	if x, ok := fun.(*ast.IndexExpr); ok {
		fun = x.X
	}
	var id *ast.Ident
	switch x := fun.(type) {
	case *ast.Ident:
		id = x
	case *ast.SelectorExpr:
		id = x.Sel
	default:
		return ""
	}
	fn, ok := info.Uses[id].(*types.Func)
	if !ok || fn.Pkg() == nil || fn.Signature().Recv() != nil {
		return ""
	}
	return fn.Pkg().Path() + "." + fn.Name()
}

// checkProtocols finds packages that should have a core and mark none.
func checkProtocols(files []*file) (problems []string) {
	for _, p := range protocols {
		here := slices.ContainsFunc(files, func(f *file) bool { return f.dir == p.dir && !f.test })
		if here && !slices.ContainsFunc(files, func(f *file) bool { return inside(f.dir, p.core) && f.core && !f.test }) {
			problems = append(problems, p.dir+": no file is marked //synod:core: a protocol is a pure step function, with a thin shell around it")
		}
	}
	return problems
}
