// Command proof writes docs/proof.md: what must hold and what is done to the program, each with the tests that show it,
// and the counts of the last long runs. A test shows what its name or the comment directly above it names: F012, I3, or
// a range of them ("I1 to I6", "F066-F068").
//
//	go run ./test/proof          writes the page
//	go run ./test/proof -check   fails where it is stale, or where a row that is due has no test
//
// It is run in the root of the repository. Start reading at main, then scan.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	page = "docs/proof.md"
	runs = "docs/proof" // counts of long runs: one text file for each
)

func main() {
	check := flag.Bool("check", false, "change nothing; exit with 1 where the page is stale or a row lacks its test")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	shown, err := scan(".")
	if err != nil {
		return err
	}
	text, missing, err := write(shown)
	if err != nil {
		return err
	}
	if !check {
		return os.WriteFile(page, text, 0o644)
	}
	was, err := os.ReadFile(page)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(was, text):
		return fmt.Errorf("%s is stale: run `go run ./test/proof`", page)
	case len(missing) > 0:
		return fmt.Errorf("no test shows %s: name it in a test's name or the comment above it", strings.Join(missing, ", "))
	}
	return nil
}

// test is one test function.
type test struct{ dir, name string }

// scan finds which tests show what, in all modules under internal and test.
func scan(root string) (map[string][]test, error) {
	shown := map[string][]test{}
	for _, top := range []string{"internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules") {
				if err == nil {
					err = fs.SkipDir
				}
				return err
			}
			if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			return scanFile(shown, filepath.ToSlash(dir), string(text))
		})
		if err != nil {
			return nil, err
		}
	}
	for _, list := range shown {
		slices.SortFunc(list, func(a, b test) int { return strings.Compare(a.dir+"\x00"+a.name, b.dir+"\x00"+b.name) })
	}
	return shown, nil
}

func scanFile(shown map[string][]test, dir, text string) error {
	f, err := parser.ParseFile(token.NewFileSet(), dir, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") && !strings.HasPrefix(fn.Name.Name, "Fuzz") {
			continue
		}
		for _, what := range names(fn.Name.Name + " " + fn.Doc.Text()) {
			t := test{dir, fn.Name.Name}
			if !slices.Contains(shown[what], t) {
				shown[what] = append(shown[what], t)
			}
		}
	}
	return nil
}

var mention = regexp.MustCompile(`(?:\b|[a-z_])([FI])(\d{1,3})\b(?:(?:[-–]| to )[FI](\d{1,3})\b)?|([F])(\d{3})`)

// names are the rows and invariants that a text names.
func names(text string) (list []string) {
	for _, m := range mention.FindAllStringSubmatch(text, -1) {
		letter, from, to := m[1], m[2], m[3]
		if letter == "" {
			letter, from = m[4], m[5]
		}
		first, _ := strconv.Atoi(from)
		last := first
		if to != "" {
			last, _ = strconv.Atoi(to)
		}
		for n := first; n <= last; n++ {
			switch {
			case letter == "F" && len(from) == 3:
				list = append(list, fmt.Sprintf("F%03d", n))
			case letter == "I" && n >= 1 && n < len(invariants):
				list = append(list, fmt.Sprintf("I%d", n))
			}
		}
	}
	return list
}

// write makes the page, and lists the rows that are due and have no test.
func write(shown map[string][]test) (text []byte, missing []string, err error) {
	var b, tables bytes.Buffer
	count, tested := 0, 0
	for _, s := range faults {
		fmt.Fprintf(&tables, "\n### %s\n\n| | what is done | shown by |\n|---|---|---|\n", s.title)
		for _, r := range s.rows {
			count++
			by := links(shown[r.name])
			switch {
			case by != "":
				tested++
			case r.due:
				by = "**missing**"
				missing = append(missing, r.name)
			default:
				by = "later"
			}
			fmt.Fprintf(&tables, "| %s | %s | %s |\n", r.name, r.text, by)
		}
	}
	b.WriteString("# Proof\n\n<!-- Written by `go run ./test/proof` from the tests themselves; change those, or test/proof/rows.go. -->\n\n")
	b.WriteString("What must always hold, what is done to the program, and which tests show that the one survives the other. `go test ./...` runs all of them in their short form.\n")
	fmt.Fprintf(&b, "%d of %d rows of faults have a test.\n", tested, count)
	if len(missing) > 0 {
		fmt.Fprintf(&b, "\n**Missing**: %s.\n", strings.Join(missing, ", "))
	}
	b.WriteString("\n## Invariants\n\n| | | shown by |\n|---|---|---|\n")
	for n, text := range invariants {
		if n == 0 {
			continue
		}
		by := links(shown[fmt.Sprintf("I%d", n)])
		if by == "" {
			by = "later"
		}
		fmt.Fprintf(&b, "| I%d | %s | %s |\n", n, text, by)
	}
	if err := longRuns(&b); err != nil {
		return nil, nil, err
	}
	b.WriteString("\n## Faults\n")
	b.Write(tables.Bytes())
	return b.Bytes(), missing, nil
}

// links lists tests, each once, by the place where they are.
func links(tests []test) string {
	var list []string
	for i, t := range tests {
		name := t.name
		if i == 0 || tests[i-1].dir != t.dir {
			name = fmt.Sprintf("[%s](../%s) %s", strings.TrimPrefix(t.dir, "internal/"), t.dir, t.name)
		}
		list = append(list, name)
	}
	return strings.Join(list, ", ")
}

// longRuns copies the counts of the last long runs.
func longRuns(b *bytes.Buffer) error {
	files, err := filepath.Glob(runs + "/*.txt")
	if err != nil || len(files) == 0 {
		return err
	}
	slices.Sort(files)
	b.WriteString("\n## The last long runs\n")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		fmt.Fprintf(b, "\n`make %s`:\n\n```\n%s\n```\n", name, strings.TrimSpace(string(text)))
	}
	return nil
}
