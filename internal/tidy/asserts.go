package tidy

import (
	"go/ast"
	"slices"
	"strings"
)

// failing are the methods of a test that make it fail.
var failing = []string{"Error", "Errorf", "Fatal", "Fatalf", "Fail", "FailNow"}

// runners are the packages whose functions take the test only to run a function on it.
var runners = []string{"testing/synctest", "pgregory.net/rapid"}

// testsAssert: a test can fail. Its body fails the test somewhere, or hands the test to a function that may.
func testsAssert(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if !strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" && !f.asserts(fn) {
				out = append(out, t.at(f, fn, "%s cannot fail; compare what happens with what should", fn.Name.Name))
			}
		}
	}
	return out
}

// asserts reports whether a test's body, with the functions in it, has something that can fail the test.
func (f *file) asserts(fn *ast.FuncDecl) bool {
	tests := map[string]bool{} // the names that tests go by in here: t, tb, rt
	ast.Inspect(fn, func(n ast.Node) bool {
		if ft, ok := n.(*ast.FuncType); ok {
			for _, p := range ft.Params.List {
				if isTest(p.Type) {
					for _, name := range p.Names {
						tests[name.Name] = true
					}
				}
			}
		}
		return true
	})
	isT := func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && tests[id.Name]
	}
	found := false
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, _ := call.Fun.(*ast.SelectorExpr)
		switch {
		case sel != nil && isT(sel.X):
			found = found || slices.Contains(failing, sel.Sel.Name) || sel.Sel.Name == "Run" && !isLiteral(call.Args[len(call.Args)-1])
		case slices.ContainsFunc(call.Args, isT):
			found = found || !f.isRunner(sel) || !isLiteral(call.Args[len(call.Args)-1])
		}
		return true
	})
	return found
}

func isTest(e ast.Expr) bool {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	sel, ok := e.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"T", "TB", "B", "F"}, sel.Sel.Name)
}

// isRunner reports whether the called function only runs a function on the test.
func (f *file) isRunner(called *ast.SelectorExpr) bool {
	if called == nil {
		return false
	}
	x, ok := called.X.(*ast.Ident)
	return ok && slices.Contains(runners, f.imports[x.Name])
}

func isLiteral(e ast.Expr) bool {
	_, ok := e.(*ast.FuncLit)
	return ok
}
