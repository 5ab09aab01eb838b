package tidy

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

func goStatements(f *file) (out []ast.Node) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			out = append(out, g)
		}
		return true
	})
	return out
}

// clock: the time is given to whoever needs it; few read the clock.
func clock(t *tree) []finding {
	var out []finding
	reads := map[string]bool{}
	for _, f := range t.code() {
		for _, u := range f.uses() {
			if u.path != "time" || u.name != "Now" && u.name != "Since" && u.name != "Until" {
				continue
			}
			reads[f.pkg] = true
			if !slices.Contains(t.clocks, f.pkg) && t.clockReaders[f.pkg] == "" {
				out = append(out, t.at(f, u.node, "%s reads the clock by time.%s; be given the time, or a clock that a test can set", f.pkg, u.name))
			}
		}
	}
	for pkg := range t.clockReaders {
		if !reads[pkg] {
			out = append(out, stale("%s does not read the clock", pkg))
		}
	}
	return out
}

// environment: environment variables are read where the configuration is put together.
func environment(t *tree) []finding {
	return t.forbid("os", []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, t.environments,
		"reads the environment; take the value from the configuration, which app and cli put together")
}

// httpErrors: who writes an error body is known, so that every "no" has the one shape and comes from the table.
func httpErrors(t *tree) []finding {
	out := t.forbid("net/http", []string{"Error", "NotFound", "NotFoundHandler"}, t.errorWriters,
		"writes an error answer of its own; return a refusal, which gateway/error.go writes (admin has its own)")
	for _, f := range t.code() {
		if f.pkg != "gateway" || slices.Contains(t.errorWriters, f.path) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "WriteHeader" && isErrorStatus(call.Args[0]) {
				out = append(out, t.at(f, call, "gateway answers with an error status; return a refusal, which gateway/error.go writes"))
			}
			return true
		})
	}
	return out
}

// goodStatuses are the constants of net/http below 400 that begin like no other.
var goodStatuses = []string{"StatusOK", "StatusCreated", "StatusAccepted", "StatusNoContent", "StatusPartialContent", "StatusNotModified", "StatusContinue", "StatusEarlyHints"}

// isErrorStatus reports whether the argument is written as a status of 400 or more. A variable is not.
func isErrorStatus(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		n, err := strconv.Atoi(e.Value)
		return err == nil && n >= 400
	case *ast.SelectorExpr:
		return strings.HasPrefix(e.Sel.Name, "Status") && !slices.Contains(goodStatuses, e.Sel.Name)
	}
	return false
}

// forbid finds mentions of names of an import outside the packages and files that may have them.
func (t *tree) forbid(importPath string, names, allowed []string, text string) []finding {
	var out []finding
	for _, f := range t.code() {
		if slices.Contains(allowed, f.pkg) || slices.Contains(allowed, f.path) {
			continue
		}
		for _, u := range f.uses() {
			if u.path == importPath && slices.Contains(names, u.name) {
				out = append(out, t.at(f, u.node, "%s.%s in %s %s", importPath, u.name, f.pkg, text))
			}
		}
	}
	return out
}

// floatNames are identifiers and methods that are, make or return floats.
var floatNames = map[string]bool{
	"float32": true, "float64": true, "complex64": true, "complex128": true,
	"ParseFloat": true, "FormatFloat": true, "AppendFloat": true, "ParseComplex": true,
	"Float": true, "NewFloat": true, "Float32": true, "Float64": true, "Float64bits": true, "Float64frombits": true, "Float32bits": true, "Float32frombits": true,
	"SetFloat": true, "SetFloat64": true, "CanFloat": true, "OverflowFloat": true,
}

// durationFloats are the methods of time.Duration that return a float.
var durationFloats = map[string]bool{"Seconds": true, "Minutes": true, "Hours": true}

// floats: where an amount, a count or a period passes, no float is near.
func floats(t *tree) []finding {
	const instead = "; amounts are money.Amount, counts are int64, numbers of files are resource.Decimal"
	var out []finding
	for _, f := range t.code() {
		if !slices.Contains(t.noFloats, f.pkg) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if floatNames[n.Name] {
					out = append(out, t.at(f, n, "%s in %s%s", n.Name, f.pkg, instead))
				}
			case *ast.BasicLit:
				if n.Kind == token.FLOAT || n.Kind == token.IMAG {
					out = append(out, t.at(f, n, "the float %s in %s%s", n.Value, f.pkg, instead))
				}
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if ok && len(n.Args) == 0 && durationFloats[sel.Sel.Name] {
					out = append(out, t.at(f, n, "%s() in %s is a float; divide the duration by time.%s", sel.Sel.Name, f.pkg, strings.TrimSuffix(sel.Sel.Name, "s")))
				}
			}
			return true
		})
		for _, u := range f.uses() {
			if u.path == "math" && !strings.HasPrefix(u.name, "Max") && !strings.HasPrefix(u.name, "Min") && !floatNames[u.name] {
				out = append(out, t.at(f, u.node, "math.%s in %s works on floats%s", u.name, f.pkg, instead))
			}
		}
	}
	return out
}

// rounding: amounts are rounded in few places, all of them known. An Amount's Round takes two arguments, a Duration's one.
func rounding(t *tree) []finding {
	var out []finding
	for _, f := range t.code() {
		if slices.Contains(t.rounders, f.pkg) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 2 {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Round" {
					out = append(out, t.at(f, call, "%s rounds an amount; only %s do: keep it exact, Quantity × UnitPrice", f.pkg, strings.Join(t.rounders, ", ")))
				}
			}
			return true
		})
	}
	return out
}

// noInit: nothing runs because a package was imported.
func noInit(t *tree) []finding {
	var out []finding
	for _, f := range t.code() {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, t.at(f, fn, "%s has an init function; make it a function that app calls, or a variable's value", f.pkg))
			}
		}
	}
	return out
}

// maxLines is the length of a function that one still reads at once, from func to its brace.
const maxLines = 70

// functionLength: at most 70 lines, but for the exceptions, which may only get shorter.
func functionLength(t *tree) []finding {
	var out []finding
	seen := map[string]bool{}
	for _, f := range t.code() {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := f.pkg + "." + receiver(fn) + fn.Name.Name
			lines := t.fset.Position(fn.End()).Line - t.fset.Position(fn.Pos()).Line + 1
			allowed, listed := t.long[name]
			seen[name] = true
			switch {
			case listed && lines <= maxLines:
				out = append(out, stale("%s has %d lines", name, lines))
			case listed && lines < allowed.lines:
				out = append(out, finding{houseFile, 1, name + " has got shorter: write " + strconv.Itoa(lines) + " into the list of long functions"})
			case lines > max(maxLines, allowed.lines):
				out = append(out, t.at(f, fn, "%s has %d lines; at most %d: give a part of it a name", name, lines, max(maxLines, allowed.lines)))
			}
		}
	}
	for name := range t.long {
		if !seen[name] {
			out = append(out, stale("there is no function %s", name))
		}
	}
	return out
}

// receiver returns "Type." for a method and "" for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	return typeName(fn.Recv.List[0].Type) + "."
}

// typeName returns the name of a type, of what a pointer points to, of a generic type without its arguments.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	}
	return ""
}
