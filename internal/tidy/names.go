package tidy

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// packageComments: a package says what it is, what it does not do, what always holds in it and where to begin.
func packageComments(t *tree) []finding {
	var out []finding
	comments, first := map[string][]*file{}, map[string]*file{}
	for _, f := range t.code() {
		if first[f.pkg] == nil {
			first[f.pkg] = f
		}
		if f.ast.Doc != nil {
			comments[f.pkg] = append(comments[f.pkg], f)
		}
	}
	for _, f := range t.code() {
		if first[f.pkg] != f {
			continue
		}
		with := comments[f.pkg]
		if len(with) != 1 {
			out = append(out, t.at(f, f.ast, "package %s has %d package comments; write one", f.pkg, len(with)))
			continue
		}
		if !strings.HasPrefix(f.path, "internal/") {
			continue
		}
		for _, missing := range missingParts(with[0].ast.Name.Name, with[0].ast.Doc.Text()) {
			out = append(out, t.at(with[0], with[0].ast.Doc, "the comment of package %s %s", f.pkg, missing))
		}
	}
	return out
}

var (
	denial     = regexp.MustCompile(`(?i)\b(not|no|never|nothing|neither|without)\b`)
	invariants = regexp.MustCompile(`(?m)^# Invariants\n\n +- `)
	startHere  = regexp.MustCompile(`(?m)\bStart reading at [A-Za-z]`)
)

// missingParts says what a package comment lacks.
func missingParts(name, text string) (missing []string) {
	first, _, _ := strings.Cut(text, "\n\n")
	if !strings.HasPrefix(first, "Package "+name+" ") || !strings.Contains(first, ".") {
		missing = append(missing, `does not begin with a sentence "Package `+name+` …" that says what it is`)
	}
	if !denial.MatchString(first) {
		missing = append(missing, "does not say in its first paragraph what the package does not do, and who does")
	}
	if !invariants.MatchString(text) {
		missing = append(missing, `has no "# Invariants" with a list of what can be checked`)
	}
	if !startHere.MatchString(text) {
		missing = append(missing, `does not end with "Start reading at …"`)
	}
	return missing
}

// emptyWords are names that say nothing about what is in the thing.
var emptyWords = []string{"util", "utils", "common", "helper", "helpers", "model", "models", "type", "types", "service", "services", "manager", "managers", "misc", "base"}

// emptySuffixes end names of types that say nothing more than the rest of the name.
var emptySuffixes = []string{"Util", "Utils", "Helper", "Helpers", "Manager", "Service", "Misc"}

// emptyNames: no package, file or type is named after nothing.
func emptyNames(t *tree) []finding {
	var out []finding
	packages := map[string]bool{}
	for _, f := range t.files {
		pkg := path.Base(f.pkg)
		if !packages[f.pkg] && slices.Contains(emptyWords, pkg) {
			out = append(out, t.at(f, f.ast, "package %s has a name that says nothing; name it after what it knows", f.pkg))
		}
		packages[f.pkg] = true
		base := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.path), ".go"), "_test")
		if slices.Contains(emptyWords, base) {
			out = append(out, t.at(f, f.ast, "file %s.go has a name that says nothing; name it after what is in it", base))
		}
		for _, d := range f.ast.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range decl.Specs {
				if ts, ok := spec.(*ast.TypeSpec); ok && slices.ContainsFunc(emptySuffixes, func(s string) bool { return strings.HasSuffix(ts.Name.Name, s) }) {
					out = append(out, t.at(f, ts, "type %s has a name that says nothing; name it after what it does", ts.Name.Name))
				}
			}
		}
	}
	return out
}

// documentedExports: whoever uses a thing from outside finds what it is beside its name.
func documentedExports(t *tree) []finding {
	var out []finding
	for _, f := range t.code() {
		if !strings.HasPrefix(f.path, "internal/") {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				on := strings.TrimSuffix(receiver(d), ".")
				if d.Name.IsExported() && (on == "" || ast.IsExported(on)) && !says(d.Doc, d.Name.Name) {
					out = append(out, t.at(f, d, "%s has no comment that begins with its name; say what it returns, in which units, and its errors", receiver(d)+d.Name.Name))
				}
			case *ast.GenDecl:
				out = append(out, t.undocumentedSpecs(f, d)...)
			}
		}
	}
	return out
}

func (t *tree) undocumentedSpecs(f *file, d *ast.GenDecl) (out []finding) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if !s.Name.IsExported() {
				continue
			}
			if !says(s.Doc, s.Name.Name) && (len(d.Specs) > 1 || !says(d.Doc, s.Name.Name)) {
				out = append(out, t.at(f, s, "type %s has no comment that begins with its name; say what one value of it is", s.Name.Name))
			}
			if in, ok := s.Type.(*ast.InterfaceType); ok {
				for _, m := range in.Methods.List {
					if len(m.Names) > 0 && m.Doc == nil && m.Comment == nil {
						out = append(out, t.at(f, m, "%s.%s has no comment; say what it returns for absent things, whether it is durable on return, who may call it at once", s.Name.Name, m.Names[0].Name))
					}
				}
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					out = append(out, t.at(f, name, "%s has no comment; say what it is and its unit, there or for its group", name.Name))
				}
			}
		}
	}
	return out
}

// says reports whether a comment begins with the name, or an article and the name, and goes on.
func says(doc *ast.CommentGroup, name string) bool {
	if doc == nil {
		return false
	}
	words := strings.Fields(doc.Text())
	if len(words) > 0 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	return len(words) > 2 && strings.TrimRightFunc(words[0], unicode.IsPunct) == name
}
