package lint

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// What a task does past the executor, by kind.
const (
	clock      = "clock"
	goroutines = "goroutines"
	randomness = "randomness"
	waiting    = "waiting" // other than through the executor
	outside    = "files, network, processes"
)

// allowances are the places that may do so, and why: folders with what is below
// them, or files. Each is a place that no simulation can look into, so that the
// list should get no longer than it must.
var allowances = []struct {
	place string
	kinds []string
	why   string
}{
	{"internal/executor", []string{clock, goroutines, randomness}, "it is what all others use in their place"},
	{"transport/tcp", []string{clock, goroutines, randomness, waiting, outside}, "real input and output"},
	{"storage/pebble", []string{clock, goroutines, waiting}, "real input and output, through Pebble"},
	{"txn/files", []string{outside}, "real files"},
	{"transport/transporttest", []string{clock, goroutines, waiting}, "tests real transports from outside"},
	{"storage/storagetest", []string{waiting}, "tests real stores from outside"},
	{"internal/replica/grouptest", []string{clock, goroutines, waiting}, "tests real clusters from outside"},
	{"sim/context.go", []string{clock, goroutines, randomness}, "does outside of a simulation what the standard library does"},
	{"sim/run.go", []string{randomness, outside}, "replaces the random source of go.etcd.io/raft, and reads which seed to replay"},
	{"examples", []string{clock, goroutines, randomness, waiting, outside}, "programs"},
	{"internal/simulate", []string{clock, goroutines, waiting, outside}, "a command"},
	{"internal/experiment", []string{outside}, "a command"},
	{"internal/modelcheck", []string{clock, goroutines, waiting, outside}, "a command"},
	{"internal/lint", []string{outside}, "reads the tree"},
	{"storage/memory", []string{waiting}, "Close and Crash wait for calls that are running, not for tasks that wait"},
	{"storage/prefix.go", []string{waiting}, "Close waits for the commits of the store below"},
	{"transport/mux.go", []string{waiting}, "Close waits for handlers that are running, and handlers do not wait"},
}

func mayDo(f *file, kind string) bool {
	for _, a := range allowances {
		if (f.path == a.place || inside(f.dir, a.place)) && slices.Contains(a.kinds, kind) {
			return true
		}
	}
	return false
}

// aboveSeams are where code only ever waits through the executor: a channel there
// would hang a simulation.
var aboveSeams = []string{"internal/replica", "raft", "paxos", "txn", "shard", "transport/inproc"}

// globalLoggers are the functions of log and log/slog that use the one logger of the
// process.
var globalLoggers = []string{"Default", "SetDefault", "With", "Log", "LogAttrs", "Debug", "DebugContext", "Info", "InfoContext", "Warn", "WarnContext",
	"Error", "ErrorContext", "Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln", "Output"}

// beyond returns what kind of thing past the executor an object is, if any.
func beyond(obj types.Object) (kind string) {
	if obj == nil || obj.Pkg() == nil {
		return ""
	}
	fn, _ := obj.(*types.Func)
	method := fn != nil && fn.Signature().Recv() != nil
	name := obj.Name()
	switch p := obj.Pkg().Path(); p {
	case "time":
		if fn != nil && !method && slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}, name) {
			return clock
		}
	case "context":
		if strings.HasPrefix(name, "WithTimeout") || strings.HasPrefix(name, "WithDeadline") {
			return clock // the context carries the executor, but its timers do not use it
		}
		if name == "AfterFunc" {
			return goroutines
		}
	case "math/rand", "math/rand/v2":
		if fn != nil && !method && !strings.HasPrefix(name, "New") {
			return randomness // the global source; one made from an executor is fine
		}
	case "fmt":
		if name == "Print" || name == "Printf" || name == "Println" {
			return outside
		}
	case "log", "log/slog":
		if fn != nil && !method && slices.Contains(globalLoggers, name) {
			return outside // a logger is handed in
		}
	case "crypto/rand", "hash/maphash":
		return randomness
	case "runtime":
		if slices.Contains([]string{"Gosched", "AddCleanup", "SetFinalizer"}, name) {
			return goroutines
		}
	case "sync":
		if name == "Cond" || name == "NewCond" || name == "WaitGroup" {
			return waiting
		}
		if method && slices.Contains([]string{"Cond", "WaitGroup"}, receiver(fn)) {
			return waiting
		}
	default:
		_, variable := obj.(*types.Var)
		variable = variable && !obj.(*types.Var).IsField() && !strings.HasPrefix(name, "Err")
		for _, out := range []string{"os", "net", "syscall", "database/sql"} {
			if inside(p, out) && (fn != nil && !method || variable) && p != "net/url" && p != "net/netip" {
				return outside
			}
		}
	}
	return ""
}

// receiver returns the name of the type that a method belongs to.
func receiver(fn *types.Func) string {
	t := fn.Signature().Recv().Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}

// channelUse says what a node does with a channel, if it does something.
func channelUse(info *types.Info, n ast.Node) string {
	isChannel := func(e ast.Expr) bool {
		t := info.TypeOf(e)
		if t == nil {
			return false
		}
		_, ok := t.Underlying().(*types.Chan)
		return ok
	}
	switch n := n.(type) {
	case *ast.SelectStmt:
		return "select"
	case *ast.SendStmt:
		return "send on a channel"
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			return "receive from a channel"
		}
	case *ast.ChanType:
		return "channel"
	case *ast.RangeStmt:
		if isChannel(n.X) {
			return "range over a channel"
		}
	}
	return ""
}

// use is one place where code goes past the executor.
type use struct {
	at         token.Pos
	kind, what string
}

// uses finds what goes past the executor, allowed or not.
func uses(f *file) (list []use) {
	if f.info == nil {
		return nil
	}
	above := slices.ContainsFunc(aboveSeams, func(home string) bool { return inside(f.dir, home) })
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			list = append(list, use{n.Pos(), goroutines, "go statement"})
		case *ast.Ident:
			obj := f.info.Uses[n]
			if kind := beyond(obj); kind != "" {
				list = append(list, use{n.Pos(), kind, obj.Pkg().Path() + "." + obj.Name()})
			}
		}
		if what := channelUse(f.info, n); what != "" && above {
			list = append(list, use{n.Pos(), waiting, what})
		}
		return true
	})
	return list
}

// checkExecutor finds what goes past the executor and may not.
func checkExecutor(f *file) (problems []string) {
	for _, u := range uses(f) {
		if !mayDo(f, u.kind) {
			problems = append(problems, f.at(u.at, "%s (%s): use what is handed in, an executor.Executor above all; what really does input and output "+
				"has an entry in internal/lint, executor.go", u.what, u.kind))
		}
	}
	return problems
}

// changing are the packages that may have variables that change.
var changing = map[string]string{
	"internal/probe": "it knows whether a simulation runs, and there is one a process at most",
	"sim":            "one simulation runs at a time, and replaces the random source of go.etcd.io/raft while it does",
}

// checkGlobals finds what a package does by being imported, and variables of
// packages that change: two nodes of one process would share them.
func checkGlobals(f *file) (problems []string) {
	if f.info == nil || changing[f.dir] != "" {
		return nil
	}
	for _, d := range f.syntax.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			problems = append(problems, f.at(fn.Pos(), "func init: importing a package has no effect"))
		}
	}
	global := func(e ast.Expr) *types.Var {
		for {
			switch x := ast.Unparen(e).(type) {
			case *ast.SelectorExpr:
				if v, ok := f.info.Uses[x.Sel].(*types.Var); ok && !v.IsField() {
					e = x.Sel
					continue
				}
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.Ident:
				if v, ok := f.info.Uses[x].(*types.Var); ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
					return v
				}
				return nil
			default:
				return nil
			}
		}
	}
	say := func(n ast.Node, e ast.Expr) {
		if v := global(e); v != nil {
			problems = append(problems, f.at(n.Pos(), "changes %s, a variable of a package: hand it in, or keep it in a type", v.Name()))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				say(n, e)
			}
		case *ast.IncDecStmt:
			say(n, n.X)
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") && len(n.Args) > 0 {
				say(n, n.Args[0])
			}
		case *ast.Ident:
			// A lock or an atomic is there for something that changes. A pool is not seen.
			v, ok := f.info.Defs[n].(*types.Var)
			if !ok || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
				break
			}
			if t, ok := v.Type().(*types.Named); ok && t.Obj().Pkg() != nil && t.Obj().Name() != "Pool" &&
				inside(t.Obj().Pkg().Path(), "sync") {
				problems = append(problems, f.at(n.Pos(), "%s is a variable of a package that changes: keep it in a type", v.Name()))
			}
		}
		return true
	})
	return problems
}
