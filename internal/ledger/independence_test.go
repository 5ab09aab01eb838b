package ledger

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCheckIsIndependent: the files of Check use nothing of what posts but types, and no rule of another package.
func TestCheckIsIndependent(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	posting, methods, own := map[string]string{}, map[string]string{}, map[string]bool{}
	var checks []*ast.File
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "check") {
			checks = append(checks, f)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				switch {
				case strings.HasPrefix(name, "check"):
					own[d.Name.Name] = true
				case d.Recv != nil:
					methods[d.Name.Name] = name
				default:
					posting[d.Name.Name] = name
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && !strings.HasPrefix(name, "check") {
						for _, id := range v.Names {
							posting[id.Name] = name
						}
					}
				}
			}
		}
	}
	if len(checks) < 5 || len(posting) < 20 || len(methods) < 20 {
		t.Fatalf("%d files of Check, %d functions and %d methods besides: the test does not see the package", len(checks), len(posting), len(methods))
	}
	allowed := []string{"cmp", "crypto/sha256", "encoding/binary", "errors", "fmt", "math/big", "slices", "strings", "talea/internal/account", "talea/internal/money", "talea/internal/usage"}
	for _, f := range checks {
		for _, imp := range f.Imports {
			if path, _ := strconv.Unquote(imp.Path.Value); !slices.Contains(allowed, path) {
				t.Errorf("%s: imports %s", fset.Position(imp.Pos()), path)
			}
		}
		for _, id := range f.Unresolved {
			if from := posting[id.Name]; from != "" {
				t.Errorf("%s: uses %s of %s", fset.Position(id.Pos()), id.Name, from)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && methods[sel.Sel.Name] != "" && !own[sel.Sel.Name] {
					if pkg, ok := sel.X.(*ast.Ident); !ok || pkg.Obj != nil {
						t.Errorf("%s: calls %s of %s", fset.Position(sel.Pos()), sel.Sel.Name, methods[sel.Sel.Name])
					}
				}
			}
			return true
		})
	}
}
