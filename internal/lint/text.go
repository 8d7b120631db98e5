package lint

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkDocs finds exported names without a comment, and fields of a Config that do
// not say what they are.
func checkDocs(f *file) (problems []string) {
	if f.test || f.syntax.Name.Name == "main" {
		return nil
	}
	say := func(id *ast.Ident, doc ...*ast.CommentGroup) {
		if id.IsExported() && !said(doc...) {
			problems = append(problems, f.at(id.Pos(), "%s has no comment: say what it is, with units, defaults, ownership and errors", id.Name))
		}
	}
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(typeName(d.Recv.List[0].Type)) {
				say(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					say(s.Name, s.Doc, d.Doc)
					if t, ok := s.Type.(*ast.StructType); ok && s.Name.IsExported() && strings.HasSuffix(s.Name.Name, "Config") && !inside(f.dir, "internal") {
						problems = append(problems, checkFields(f, s.Name.Name, t)...)
					}
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

// checkFields holds each field of a Config to a comment, its own or that of the
// fields just above it.
func checkFields(f *file, name string, t *ast.StructType) (problems []string) {
	above, good := 0, false
	for _, field := range t.Fields.List {
		line := f.fset.Position(field.Pos()).Line
		good = said(field.Doc, field.Comment) || good && line == above+1
		above = f.fset.Position(field.End()).Line
		for _, id := range field.Names {
			if id.IsExported() && !good {
				problems = append(problems, f.at(id.Pos(), "%s.%s has no comment: say its unit, default and rule of thumb", name, id.Name))
			}
		}
	}
	return problems
}

func said(doc ...*ast.CommentGroup) bool {
	return slices.ContainsFunc(doc, func(d *ast.CommentGroup) bool { return d != nil && strings.TrimSpace(d.Text()) != "" })
}

// typeName returns the name of the type of a receiver.
func typeName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return typeName(x.X)
	case *ast.IndexExpr:
		return typeName(x.X)
	case *ast.IndexListExpr:
		return typeName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// minDoc is how long a package comment is at least, in bytes: shorter ones do not say
// what the package is, how it is used, what it guarantees, and its limits.
const minDoc = 200

// checkPackages holds the comment of each package against what it must say.
func checkPackages(files []*file) (problems []string) {
	docs := make(map[string]string)
	for _, f := range files {
		if f.test || f.nested {
			continue
		}
		docs[f.dir] += "" // the package is there
		if f.syntax.Doc == nil {
			continue
		}
		docs[f.dir] += f.syntax.Doc.Text()
		command := f.syntax.Name.Name == "main"
		if path.Base(f.path) != "doc.go" && !command && f.dir != "internal/executor" {
			problems = append(problems, f.path+": the package comment belongs into doc.go")
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		doc := docs[dir]
		switch {
		case len(doc) < minDoc:
			problems = append(problems, fmt.Sprintf("package %s: its comment, %d bytes, says too little: what it is, usage, guarantees, limits", dir, len(doc)))
		case !inside(dir, "internal") && !inside(dir, "examples"):
			for _, heading := range []string{"# Usage", "# Limits"} {
				if !strings.Contains(doc, heading) {
					problems = append(problems, fmt.Sprintf("package %s: its comment has no %s", dir, heading))
				}
			}
		}
	}
	return problems
}

// maxLines is how long a file may get: beyond it, it is hardly one room.
const maxLines = 900

// machinePath finds what is one machine's own, in code or in words.
var machinePath = regexp.MustCompile(`(^|[\s"'` + "`" + `(=:])/(work|tmp|home|root|Users)/`)

// checkText finds what does not belong into a source.
func checkText(f *file) (problems []string) {
	if n := strings.Count(f.source, "\n"); n > maxLines {
		problems = append(problems, fmt.Sprintf("%s: %d lines: more than %d are hardly one thing", f.path, n, maxLines))
	}
	number := 0
	for line := range strings.Lines(f.source) {
		number++
		for _, word := range []string{"TO" + "DO", "FIX" + "ME"} {
			if strings.Contains(line, word) {
				problems = append(problems, fmt.Sprintf("%s:%d: %s: do it, or open an issue", f.path, number, word))
			}
		}
		if !f.test && machinePath.MatchString(line) {
			problems = append(problems, fmt.Sprintf("%s:%d: a path of one machine: hand it in, or use os.MkdirTemp", f.path, number))
		}
	}
	return problems
}

// checkReadme finds code in README that stands nowhere in the tree, and so may not
// compile.
func checkReadme(readme string, files []*file) (problems []string) {
	for _, block := range strings.Split(readme, "```go\n")[1:] {
		code, _, closed := strings.Cut(block, "\n```")
		if !closed || !slices.ContainsFunc(files, func(f *file) bool { return strings.Contains(f.source, code) }) {
			problems = append(problems, "README.md: shows code that stands nowhere in the tree:\n"+code)
		}
	}
	return problems
}
