package lint

import (
	"fmt"
	"go/types"
	"maps"
	"slices"
	"strings"
)

// extras are what one engine has beyond the other, and why. What they are is in its
// documentation; code that uses none of it runs on both.
var extras = map[string]string{
	"paxos.Config.Quorums":  "Raft's quorums are majorities",
	"paxos.Config.Priority": "orders ballots, which Raft does not have",
	"paxos.Quorums":         "the type of Config.Quorums",
	"paxos.ErrQuorums":      "says that nodes have other ones",
}

// face returns what a package exports: names, each with what it is. Types of the package itself
// stand there without its name.
func face(p *types.Package) map[string]string {
	shown := make(map[string]string)
	qualify := func(o *types.Package) string {
		if o == p {
			return ""
		}
		return o.Path()
	}
	show := func(t types.Type) string { return types.TypeString(t, qualify) }
	for _, name := range p.Scope().Names() {
		o := p.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Const:
			shown[name] = fmt.Sprintf("const %s = %v", show(o.Type()), o.Val())
		case *types.Var:
			shown[name] = "var " + show(o.Type())
		case *types.Func:
			shown[name] = show(o.Type())
		case *types.TypeName:
			if o.IsAlias() {
				shown[name] = "= " + show(types.Unalias(o.Type()))
				continue
			}
			shown[name] = "type"
			s, ok := o.Type().Underlying().(*types.Struct)
			if !ok {
				shown[name] = "type " + show(o.Type().Underlying())
			}
			for i := 0; ok && i < s.NumFields(); i++ {
				if f := s.Field(i); f.Exported() {
					shown[name+"."+f.Name()] = "field " + show(f.Type())
				}
			}
			methods := types.NewMethodSet(types.NewPointer(o.Type()))
			for i := range methods.Len() {
				if m := methods.At(i).Obj(); m.Exported() {
					shown[name+"."+m.Name()] = show(m.Type())
				}
			}
		}
	}
	return shown
}

// compareFaces finds where two engines differ for those who use them. An application
// changes from one to the other by changing one import.
func compareFaces(a, b *types.Package, extras map[string]string) (problems []string) {
	fa, fb := face(a), face(b)
	used := make(map[string]bool)
	extra := func(p *types.Package, name string) bool {
		own := p.Name() + "." + name
		for {
			if extras[own] != "" {
				used[own] = true
				return true
			}
			// What a type has belongs to it.
			at := strings.LastIndexByte(own, '.')
			if at <= len(p.Name()) {
				return false
			}
			own = own[:at]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fa)) {
		switch other, both := fb[name]; {
		case !both && !extra(a, name):
			problems = append(problems, fmt.Sprintf("%s.%s: %s has none: engines have one face, or say in internal/lint, face.go, why not", a.Name(), name, b.Name()))
		case both && other != fa[name]:
			problems = append(problems, fmt.Sprintf("%s: in %s it is %s, in %s %s: engines have one face", name, a.Name(), fa[name], b.Name(), other))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fb)) {
		if _, both := fa[name]; !both && !extra(b, name) {
			problems = append(problems, fmt.Sprintf("%s.%s: %s has none: engines have one face, or say in internal/lint, face.go, why not", b.Name(), name, a.Name()))
		}
	}
	for _, own := range slices.Sorted(maps.Keys(extras)) {
		if !used[own] {
			problems = append(problems, own+": is not there, or not beyond the other engine: drop it from internal/lint, face.go")
		}
	}
	return problems
}
