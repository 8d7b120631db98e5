package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// floors says on which floor a package stands. Imports run downwards only; those
// within one floor are listed in siblings. A folder's floor is that of the longest
// prefix here.
var floors = []struct {
	dir   string
	floor int
}{
	{".", 0},
	{"hashring", 1},
	{"internal/executor", 1},
	{"transport", 2}, {"storage", 2},
	{"sim", 3},
	{"internal/replica", 3},
	{"raft", 4}, {"paxos", 4},
	{"txn", 5},
	{"shard", 6},
	{"examples", 7},
	{"internal/simulate", 7}, {"internal/modelcheck", 7},
	{"internal/lint", 0},
}

// A package below one of these may import it and its neighbours below it.
func home(dir string) (string, int, bool) {
	best, floor := "", -1
	for _, f := range floors {
		if (dir == f.dir || strings.HasPrefix(dir, f.dir+"/")) && len(f.dir) > len(best) {
			best, floor = f.dir, f.floor
		}
	}
	return best, floor, floor >= 0
}

// forbidden imports that the floors do not show: who may not see whom.
var forbidden = []struct{ from, to, why string }{
	{"raft", "paxos", "engines do not know each other"},
	{"paxos", "raft", "engines do not know each other"},
	{"txn", "raft", "it sees a synod.Log"},
	{"txn", "paxos", "it sees a synod.Log"},
	{"shard", "raft", "it sees a synod.Log"},
	{"shard", "paxos", "it sees a synod.Log"},
	{"transport", "storage", "the seams do not know each other"},
	{"storage", "transport", "the seams do not know each other"},
	{"hashring", ".", "it imports nothing of ours"},
	{"sim", "internal/replica", "it knows the interfaces and nothing above them"},
}

func inside(dir, home string) bool {
	return dir == home || home != "." && strings.HasPrefix(dir, home+"/")
}

func imports(f *file) []string {
	var paths []string
	for _, s := range f.syntax.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// checkImports holds the imports of one file against the house.
func checkImports(f *file) (problems []string) {
	from, floor, known := home(f.dir)
	if !known {
		return []string{fmt.Sprintf("%s: the folder %s stands on no floor: give it one in internal/lint", f.path, f.dir)}
	}
	for _, p := range imports(f) {
		if strings.HasPrefix(p, "github.com/cockroachdb/pebble") && f.dir != "storage/pebble" {
			problems = append(problems, fmt.Sprintf("%s: only storage/pebble imports Pebble", f.path))
		}
		if f.dir == "." && !f.test && strings.Contains(p, ".") {
			problems = append(problems, fmt.Sprintf("%s: the vocabulary imports the standard library only, not %s", f.path, p))
		}
		if p != module && !strings.HasPrefix(p, module+"/") {
			continue
		}
		dir := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
		if dir == "" {
			dir = "."
		}
		to, toFloor, known := home(dir)
		if !known {
			problems = append(problems, fmt.Sprintf("%s: imports %s, which stands on no floor", f.path, dir))
			continue
		}
		if toFloor >= floor && to != from {
			problems = append(problems, fmt.Sprintf("%s: imports %s, which is not below %s", f.path, dir, from))
		}
		if f.test {
			continue // tests may look sideways
		}
		for _, rule := range forbidden {
			if inside(f.dir, rule.from) && inside(dir, rule.to) {
				problems = append(problems, fmt.Sprintf("%s: imports %s: %s", f.path, dir, rule.why))
			}
		}
	}
	return problems
}

// real is where the clock, goroutines and randomness may be used directly, and why.
var real = map[string]string{
	"internal/executor":          "it is what everything else uses in their place",
	"transport/tcp":              "real input and output",
	"transport/transporttest":    "it tests transports from outside",
	"storage/pebble":             "real input and output",
	"storage/storagetest":        "it tests stores from outside",
	"internal/replica/grouptest": "it tests engines from outside",
	"sim":                        "it is an executor",
	"internal/lint":              "it is a test",
	"internal/simulate":          "a command",
	"internal/modelcheck":        "a command",
	"examples":                   "programs",
}

func isReal(dir string) bool {
	for d := range real {
		if inside(dir, d) {
			return true
		}
	}
	return false
}

// calls that reach the clock, a random source or a goroutine past the executor.
var calls = map[string][]string{
	"time":         {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"},
	"context":      {"WithTimeout", "WithTimeoutCause", "WithDeadline", "WithDeadlineCause", "AfterFunc"},
	"math/rand":    nil,
	"math/rand/v2": nil,
	"crypto/rand":  nil,
	"os/signal":    nil,
}

// names maps the name under which a file knows a package to its path.
func names(f *file) map[string]string {
	m := make(map[string]string)
	for _, s := range f.syntax.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		name := p[strings.LastIndex(p, "/")+1:]
		if name == "v2" || name == "v3" {
			name = strings.Split(p, "/")[len(strings.Split(p, "/"))-2]
		}
		if s.Name != nil {
			name = s.Name.Name
		}
		m[name] = p
	}
	return m
}

// checkExecutor finds what goes past the executor.
func checkExecutor(f *file) (problems []string) {
	if f.test || isReal(f.dir) {
		return nil
	}
	say := func(p token.Pos, what string) {
		_, n := f.line(p)
		problems = append(problems, fmt.Sprintf("%s:%d: %s: use the executor", f.path, n, what))
	}
	known := names(f)
	for name, p := range known {
		if list, ok := calls[p]; ok && list == nil {
			say(f.syntax.Pos(), "import of "+p+" as "+name)
		}
	}
	above := aboveSeams(f.dir)
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n.Pos(), "go statement")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			if slices.Contains(calls[known[x.Name]], n.Sel.Name) {
				say(n.Pos(), x.Name+"."+n.Sel.Name)
			}
			if known[x.Name] == "sync" && (n.Sel.Name == "Cond" || n.Sel.Name == "NewCond" || n.Sel.Name == "WaitGroup") && above {
				say(n.Pos(), "sync."+n.Sel.Name)
			}
		case *ast.SelectStmt:
			if above {
				say(n.Pos(), "select")
			}
		case *ast.SendStmt:
			if above {
				say(n.Pos(), "send on a channel")
			}
		case *ast.UnaryExpr:
			if above && n.Op == token.ARROW {
				say(n.Pos(), "receive from a channel")
			}
		case *ast.ChanType:
			if above {
				say(n.Pos(), "channel")
			}
		}
		return true
	})
	return problems
}

// aboveSeams reports whether a package may wait through the executor only.
func aboveSeams(dir string) bool {
	for _, d := range []string{"internal/replica", "raft", "paxos", "txn", "shard", "transport/inproc"} {
		if inside(dir, d) {
			return true
		}
	}
	return false
}

// coreImports are what a protocol core must not import.
var coreImports = []string{"sync", "sync/atomic", "time", "context", "log", "log/slog", "os", "net", "io", "math/rand", "math/rand/v2",
	"crypto/rand", module + "/internal/executor", module + "/transport"}

// checkCore holds a file of a protocol core against what makes it one.
func checkCore(f *file) (problems []string) {
	if !f.core() {
		return nil
	}
	for _, p := range imports(f) {
		if slices.Contains(coreImports, p) {
			problems = append(problems, fmt.Sprintf("%s: a core does not import %s", f.path, p))
		}
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "go statement"
		case *ast.SelectStmt:
			what = "select"
		case *ast.ChanType:
			what = "channel"
		case *ast.RangeStmt:
			if line, _ := f.line(n.Pos()); rangesOverMap(f, n) && !strings.Contains(line, "//synod:ordered") {
				what = "range over a map (mark it //synod:ordered if the order reaches no output)"
			}
		}
		if what != "" {
			_, line := f.line(n.Pos())
			problems = append(problems, fmt.Sprintf("%s:%d: a core has no %s", f.path, line, what))
		}
		return true
	})
	return problems
}

// rangesOverMap guesses, without types, whether a statement ranges over a map: one
// that the file declares as a field or a variable, or a call of maps.Keys and the like.
func rangesOverMap(f *file, r *ast.RangeStmt) bool {
	name := ""
	switch x := r.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	case *ast.CallExpr:
		if s, ok := x.Fun.(*ast.SelectorExpr); ok {
			if p, ok := s.X.(*ast.Ident); ok && p.Name == "maps" {
				return true
			}
			name = s.Sel.Name
		}
	}
	found := false
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		isMap := func(e ast.Expr) bool {
			switch e := e.(type) {
			case *ast.MapType:
				return true
			case *ast.CompositeLit:
				_, ok := e.Type.(*ast.MapType)
				return ok
			case *ast.CallExpr:
				if fn, ok := e.Fun.(*ast.Ident); ok && fn.Name == "make" {
					_, ok := e.Args[0].(*ast.MapType)
					return ok
				}
			}
			return false
		}
		switch n := n.(type) {
		case *ast.Field:
			for _, id := range n.Names {
				found = found || id.Name == name && isMap(n.Type)
			}
		case *ast.ValueSpec:
			for i, id := range n.Names {
				found = found || id.Name == name && (n.Type != nil && isMap(n.Type) || i < len(n.Values) && isMap(n.Values[i]))
			}
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if id, ok := l.(*ast.Ident); ok && id.Name == name && i < len(n.Rhs) && isMap(n.Rhs[i]) {
					found = true
				}
			}
		}
		return !found
	})
	return found
}

// checkDocs finds exported identifiers without a comment.
func checkDocs(f *file) (problems []string) {
	if f.test || f.syntax.Name.Name == "main" {
		return nil
	}
	say := func(id *ast.Ident, doc ...*ast.CommentGroup) {
		for _, d := range doc {
			if d != nil && strings.TrimSpace(d.Text()) != "" {
				return
			}
		}
		if id.IsExported() {
			_, n := f.line(id.Pos())
			problems = append(problems, fmt.Sprintf("%s:%d: %s has no comment", f.path, n, id.Name))
		}
	}
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d.Recv)) {
				// A method that implements a documented interface may leave it at that.
				if d.Recv != nil && slices.Contains([]string{"Error", "Is", "Unwrap", "String", "Next", "Close", "Read", "Write", "Get", "Scan", "Commit"}, d.Name.Name) {
					continue
				}
				say(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					say(s.Name, s.Doc, d.Doc)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						say(id, s.Doc, s.Comment, d.Doc)
					}
				}
			}
		}
	}
	return problems
}

func receiver(list *ast.FieldList) string {
	t := list.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	switch x := t.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.IndexExpr:
		if id, ok := x.X.(*ast.Ident); ok {
			return id.Name
		}
	}
	return ""
}

// maxLines is how long a file may get: beyond it, it is hardly one room.
const maxLines = 900

// checkText finds what does not belong into a source.
func checkText(f *file) (problems []string) {
	if n := strings.Count(f.source, "\n"); n > maxLines {
		problems = append(problems, fmt.Sprintf("%s: %d lines: more than %d are hardly one thing", f.path, n, maxLines))
	}
	if f.dir == "internal/lint" {
		return problems
	}
	for _, word := range []string{"TO" + "DO", "FIX" + "ME", "X" + "XX"} {
		if strings.Contains(f.source, word) {
			problems = append(problems, fmt.Sprintf("%s: contains %s: do it, or open an issue", f.path, word))
		}
	}
	return problems
}
