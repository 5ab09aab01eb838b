package tidy

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// export is one exported identifier of a package.
type export struct {
	name string // "Amount", "Amount.Add"
	file *file
	node ast.Node
	with []string // a constant's group, which is used if one of it is; else the name alone
}

// usedExports: exported means used by another package, by its tests at least. A name also counts as used that stands in
// the exported signatures and fields of its own package, and a method whose name any other package mentions, or any
// interface asks for: types are not resolved.
func usedExports(t *tree) []finding {
	var out []finding
	mentioned := map[string]map[string]bool{} // by package: its names that others mention
	methods := map[string]map[string]bool{}   // by name: the packages that mention it behind a dot
	for _, f := range t.files {
		for _, u := range f.uses() {
			if pkg, ours := internal(u.path); ours && pkg != f.pkg {
				mark(mentioned, pkg, u.name)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				mark(methods, n.Sel.Name, f.pkg)
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					for _, name := range m.Names {
						mark(methods, name.Name, "an interface")
					}
				}
			}
			return true
		})
	}
	seen := map[string]bool{}
	for pkg, exports := range t.exports() {
		shown := t.shown(pkg)
		for _, e := range exports {
			used := slices.ContainsFunc(e.with, func(name string) bool { return mentioned[pkg][name] || shown[name] })
			if _, method, ok := strings.Cut(e.name, "."); ok {
				others := maps.Clone(methods[method])
				delete(others, pkg)
				used = len(others) > 0 || slices.Contains(standardMethods, method)
			}
			name := pkg + "." + e.name
			seen[name] = true
			switch {
			case used && t.unused[name] != "":
				out = append(out, stale("%s is used", name))
			case used || t.unused[pkg+"."+e.with[0]] != "":
			case len(e.with) == 1:
				out = append(out, t.at(e.file, e.node, "no other package uses %s; write it small, or delete it", name))
			case e.with[0] == e.name:
				out = append(out, t.at(e.file, e.node, "no other package uses %s or any of its group; write them small, or delete them", name))
			}
		}
	}
	for name := range t.unused {
		if !seen[name] {
			out = append(out, stale("there is no %s", name))
		}
	}
	return out
}

// standardMethods are asked for by interfaces of the standard library.
var standardMethods = []string{
	"String", "GoString", "Format", "Error", "Unwrap", "Is", "As", "LogValue", "Timeout", "Temporary",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "MarshalBinary", "UnmarshalBinary", "AppendText", "AppendBinary",
	"Read", "Write", "Close", "ReadFrom", "WriteTo", "ReadByte", "WriteByte", "WriteString", "Flush", "Seek", "ReadAt", "WriteAt",
	"ServeHTTP", "RoundTrip", "Header", "WriteHeader", "Hijack", "Push", "Len", "Less", "Swap", "Set", "Type",
	"Accept", "Addr", "LocalAddr", "RemoteAddr", "SetDeadline", "SetReadDeadline", "SetWriteDeadline", "Lock", "Unlock",
}

func mark(m map[string]map[string]bool, key, value string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	m[key][value] = true
}

// exports lists the exported identifiers of the packages under internal.
func (t *tree) exports() map[string][]export {
	all := map[string][]export{}
	for _, f := range t.code() {
		if !strings.HasPrefix(f.path, "internal/") {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				on := receiver(d)
				if d.Name.IsExported() && (on == "" || ast.IsExported(on)) {
					all[f.pkg] = append(all[f.pkg], export{on + d.Name.Name, f, d, []string{on + d.Name.Name}})
				}
			case *ast.GenDecl:
				all[f.pkg] = append(all[f.pkg], declared(f, d)...)
			}
		}
	}
	return all
}

// declared lists what one declaration exports. The constants of a group stand for each other: a table of codes is whole.
func declared(f *file, d *ast.GenDecl) (out []export) {
	var group []string
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				out = append(out, export{s.Name.Name, f, s, []string{s.Name.Name}})
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if !name.IsExported() {
					continue
				}
				with := []string{name.Name}
				if d.Tok == token.CONST {
					group = append(group, name.Name)
					with = nil
				}
				out = append(out, export{name.Name, f, name, with})
			}
		}
	}
	for i := range out {
		if out[i].with == nil {
			out[i].with = group
		}
	}
	return out
}

// shown collects the names in the exported signatures, fields and interfaces of a package.
func (t *tree) shown(pkg string) map[string]bool {
	names := map[string]bool{}
	see := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				names[id.Name] = true
			}
			return true
		})
	}
	for _, f := range t.code() {
		if f.pkg != pkg {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() {
					see(d.Type)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							seeFields(s.Type, see)
						}
					case *ast.ValueSpec:
						if ast.IsExported(s.Names[0].Name) {
							seeValue(s, see)
						}
					}
				}
			}
		}
	}
	return names
}

// seeValue shows the type of a variable or constant, where it is written.
func seeValue(s *ast.ValueSpec, see func(ast.Node)) {
	if s.Type != nil {
		see(s.Type)
	}
	for _, v := range s.Values {
		if lit, ok := v.(*ast.CompositeLit); ok && lit.Type != nil {
			see(lit.Type)
		}
	}
}

// seeFields shows the types of a type's exported fields and methods.
func seeFields(e ast.Expr, see func(ast.Node)) {
	s, ok := e.(*ast.StructType)
	if !ok {
		see(e)
		return
	}
	for _, field := range s.Fields.List {
		if len(field.Names) == 0 || slices.ContainsFunc(field.Names, func(n *ast.Ident) bool { return n.IsExported() }) {
			see(field.Type)
		}
	}
}
