package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

const module = "github.com/synod-go/synod"

// file is one Go file of the tree.
type file struct {
	path   string // below the root, with slashes
	dir    string // "." for the root
	test   bool   // a _test.go file
	nested bool   // of a module of its own
	core   bool   // part of a protocol core
	source string
	syntax *ast.File
	fset   *token.FileSet
	info   *types.Info // nil in tests, nested modules, and files for other platforms
}

// parse makes a file of a source.
func parse(fset *token.FileSet, name, source string) (*file, error) {
	f := &file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), source: source, fset: fset}
	for line := range strings.Lines(source) {
		f.core = f.core || strings.TrimSpace(line) == "//synod:core"
	}
	var err error
	f.syntax, err = parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	return f, err
}

// at says where in the tree a position is, and what.
func (f *file) at(p token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", f.path, f.fset.Position(p).Line, fmt.Sprintf(format, args...))
}

// line returns the text of the line that a position is on.
func (f *file) line(p token.Pos) string {
	return strings.Split(f.source, "\n")[f.fset.Position(p).Line-1]
}

// tree is all Go files below a root, those of its module with their types.
type tree struct {
	files []*file
	fset  *token.FileSet
	types types.Importer
}

// load reads the tree at root. It fails where the module does not compile.
func load(root string) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	cores := make(map[string]bool)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != root && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		source, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := parse(t.fset, filepath.ToSlash(rel), string(source))
		if err != nil {
			return err
		}
		for dir := filepath.Dir(p); dir != filepath.Clean(root) && !f.nested; dir = filepath.Dir(dir) {
			_, err := os.Stat(filepath.Join(dir, "go.mod"))
			f.nested = err == nil
		}
		if f.core && path.Base(f.path) == "doc.go" {
			cores[f.dir] = true
		}
		t.files = append(t.files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range t.files {
		f.core = f.core || cores[f.dir] && !f.test
	}
	return t, t.check(root)
}

// check finds the types. Those of imported packages come from what the compiler
// has left in its cache, which takes a moment where reading all sources takes long.
func (t *tree) check(root string) error {
	// The standard packages are here for the sources that test the rules.
	command := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export", "./...",
		"bytes", "context", "crypto/rand", "errors", "hash/maphash", "fmt", "log/slog", "maps", "math/rand", "math/rand/v2", "net", "os/signal",
		"runtime", "slices", "sync", "time")
	command.Dir = root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("go list: %w\n%s", err, &stderr)
	}
	exports := make(map[string]string)
	built := make(map[string][]string) // folder below the root: its files
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir, Export string
			GoFiles                 []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("go list: %w", err)
		}
		exports[p.ImportPath] = p.Export
		if dir, ok := below(p.ImportPath); ok {
			built[dir] = p.GoFiles
		}
	}
	t.types = importer.ForCompiler(t.fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("%s: nothing in the tree imports it", path)
		}
		return os.Open(exports[path])
	})
	files := make(map[string]*file)
	for _, f := range t.files {
		files[f.path] = f
	}
	for dir, names := range built {
		var all []*file
		for _, name := range names {
			f := files[path.Join(dir, name)]
			if f == nil {
				return fmt.Errorf("%s/%s: has appeared while the tree was read", dir, name)
			}
			all = append(all, f)
		}
		if err := t.resolve(all...); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the types in the files of one package.
func (t *tree) resolve(files ...*file) error {
	info := &types.Info{
		Defs:  make(map[*ast.Ident]types.Object),
		Uses:  make(map[*ast.Ident]types.Object),
		Types: make(map[ast.Expr]types.TypeAndValue),
	}
	var syntax []*ast.File
	for _, f := range files {
		f.info = info
		syntax = append(syntax, f.syntax)
	}
	config := types.Config{Importer: t.types}
	_, err := config.Check(files[0].dir, t.fset, syntax, info)
	return err
}

// below returns the folder of a package of ours, "." for the root.
func below(importPath string) (dir string, ours bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}
