// Package tidy reads the source of the whole tree and refuses what the house style forbids: it is the style, as a test.
// It does not judge what go vet judges and resolves no types: it looks at syntax, so a rule is a few lines and the whole
// tree takes a moment.
//
// # Invariants
//
//   - Each rule is a function of the parsed tree and fires on a fault planted for it, at its line; rules without a planted
//     fault fail the test.
//   - Every list of exceptions only shrinks: an exception that is no longer needed is a finding.
//   - A finding says what to do instead.
//
// To add a rule: a function of *tree, a line in rules, a fault and its innocent twin in tidy_test.go.
//
// Start reading at rules, then house.
package tidy

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// rules are all rules, by name.
var rules = map[string]func(*tree) []finding{
	"import order":       importOrder,
	"third parties":      thirdParties,
	"purity":             purity,
	"clock":              clock,
	"environment":        environment,
	"floats":             floats,
	"rounding":           rounding,
	"http errors":        httpErrors,
	"no init":            noInit,
	"function length":    functionLength,
	"package comments":   packageComments,
	"empty names":        emptyNames,
	"documented exports": documentedExports,
	"used exports":       usedExports,
	"architecture page":  architecturePage,
	"tests assert":       testsAssert,
}

// finding is one thing to mend.
type finding struct {
	path string
	line int
	text string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.text) }

// module is the module's path: the beginning of every import of our own.
const module = "talea"

// file is one Go file of the module.
type file struct {
	path    string // from the root: "internal/money/amount.go"
	pkg     string // "money", "store/sqlite"; outside internal the directory, "cmd/talea"
	test    bool   // a _test.go file, or a tool of the tests, under test
	ast     *ast.File
	imports map[string]string // import path by the name that the file uses for it
}

// tree is what the rules look at.
type tree struct {
	house
	fset  *token.FileSet
	files []*file // sorted by path
	page  string  // the text of the architecture page
}

func newTree(h house) *tree { return &tree{house: h, fset: token.NewFileSet()} }

// load reads every Go file under the root of fsys, but not nested modules, test data and hidden folders, and the
// architecture page.
func (t *tree) load(fsys fs.FS) error {
	return fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := path.Base(name)
			_, nested := fs.Stat(fsys, path.Join(name, "go.mod"))
			if name != "." && (nested == nil || base == "testdata" || base == "node_modules" || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") && name != architectureFile {
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return t.add(name, string(text))
	})
}

// add parses one file.
func (t *tree) add(name, text string) error {
	if name == architectureFile {
		t.page = text
		return nil
	}
	parsed, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("cannot parse %s: %w", name, err)
	}
	f := &file{
		path:    name,
		pkg:     strings.TrimPrefix(path.Dir(name), "internal/"),
		test:    strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "test/"),
		ast:     parsed,
		imports: map[string]string{},
	}
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("cannot read an import of %s: %w", name, err)
		}
		local := strings.TrimPrefix(path.Base(p), "go-")
		if v := path.Base(p); len(v) > 1 && v[0] == 'v' && v[1] >= '0' && v[1] <= '9' {
			local = path.Base(path.Dir(p)) // math/rand/v2
		}
		if spec.Name != nil {
			local = spec.Name.Name
		}
		f.imports[local] = p
	}
	t.files = append(t.files, f)
	return nil
}

// check runs every rule and returns its findings in the order of the tree.
func (t *tree) check() []finding {
	var all []finding
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		all = append(all, rules[name](t)...)
	}
	slices.SortStableFunc(all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.text, b.text))
	})
	return all
}

// at makes a finding at a node of f.
func (t *tree) at(f *file, n ast.Node, format string, args ...any) finding {
	return finding{f.path, t.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)}
}

// houseFile is where the lists of exceptions stand: findings about them point there.
const houseFile = "internal/tidy/house.go"

// stale is the finding about an exception that is no longer needed.
func stale(format string, args ...any) finding {
	return finding{houseFile, 1, fmt.Sprintf(format, args...) + "; take it off the list"}
}

// code returns the files that are not tests.
func (t *tree) code() []*file {
	return slices.DeleteFunc(slices.Clone(t.files), func(f *file) bool { return f.test })
}

// use is one mention of an identifier of an imported package.
type use struct {
	path, name string // "time", "Now"
	node       ast.Node
}

// uses lists what f mentions of its imports. A variable that hides an import is taken for it: rename the variable.
func (f *file) uses() []use {
	var out []use
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && f.imports[x.Name] != "" {
				out = append(out, use{f.imports[x.Name], sel.Sel.Name, sel})
			}
		}
		return true
	})
	return out
}

// internal returns the name of one of our own packages by its import path: "store/sqlite".
func internal(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/internal/")
}
