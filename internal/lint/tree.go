package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const module = "github.com/synod-go/synod"

// file is one Go file of the root module.
type file struct {
	path   string // below the root, with slashes
	dir    string // "." for the root
	test   bool
	source string
	syntax *ast.File
	fset   *token.FileSet
}

// parse makes a file of a source.
func parse(name, source string) (*file, error) {
	f := &file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), source: source, fset: token.NewFileSet()}
	var err error
	f.syntax, err = parser.ParseFile(f.fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	return f, err
}

// line returns the text of the line that a position is on, and its number.
func (f *file) line(p token.Pos) (string, int) {
	n := f.fset.Position(p).Line
	return strings.Split(f.source, "\n")[n-1], n
}

// core reports whether the file says that it belongs to a protocol core.
func (f *file) core() bool {
	for line := range strings.Lines(f.source) {
		if strings.TrimSpace(line) == "//synod:core" {
			return true
		}
	}
	return false
}

// load reads all Go files of the module at root; nested modules are left out.
func load(root string) ([]*file, error) {
	var files []*file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != root && (strings.HasPrefix(name, ".") || name == "testdata") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
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
		f, err := parse(filepath.ToSlash(rel), string(source))
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}
