package bugs

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	plant  = flag.Bool("plant", false, "plant the bugs, and run the tests that find them")
	only   = flag.String("only", "", "only those with this in their name")
	report = flag.String("report", "", "write the counts to this file")
)

const root = "../.."

// TestTextsAreThere: each bug can still be planted. Where it cannot, the source has changed: move the bug along.
func TestTextsAreThere(t *testing.T) {
	names := map[string]bool{}
	for _, b := range planted {
		if names[b.name] {
			t.Errorf("two bugs are called %q", b.name)
		}
		names[b.name] = true
		for _, e := range b.edits {
			if _, err := e.apply(nil); err != nil {
				t.Errorf("%s: %v", b.name, err)
			}
		}
	}
	if len(planted) < 26 {
		t.Errorf("only %d bugs are planted", len(planted))
	}
}

// apply returns the file with the change. b is the file as earlier edits left it, nil for none.
func (e *edit) apply(b []byte) ([]byte, error) {
	if b == nil {
		var err error
		if b, err = os.ReadFile(filepath.Join(root, e.file)); err != nil {
			return nil, err
		}
	}
	if n := strings.Count(string(b), e.old); n != 1 {
		return nil, fmt.Errorf("%s has this text %d times, not once:\n%s", e.file, n, e.old)
	}
	return []byte(strings.Replace(string(b), e.old, e.new, 1)), nil
}

// overlay writes what `go test -overlay` takes: the changed files beside the tree, which stays as it is.
func (b *bug) overlay(t *testing.T) string {
	dir := t.TempDir()
	texts, replace := map[string][]byte{}, map[string]string{}
	for i, e := range b.edits {
		text, err := e.apply(texts[e.file])
		if err != nil {
			t.Fatal(err)
		}
		texts[e.file] = text
		path, err := filepath.Abs(filepath.Join(root, e.file))
		if err != nil {
			t.Fatal(err)
		}
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(replace[path], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// suite runs tests and returns what they say, and whether they pass. What does not build, or has no such tests, proves
// nothing.
func suite(t *testing.T, b *bug, more ...string) (says string, passes bool) {
	args := append([]string{"test", "-failfast", "-timeout", "2m", "-v", "-run", "^(" + b.tests + ")$"}, more...)
	cmd := exec.Command("go", append(args, "./"+b.pkg)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	says = string(out)
	if strings.Contains(says, "[build failed]") || strings.Contains(says, "[setup failed]") || !strings.Contains(says, "=== RUN") {
		t.Fatalf("%s: the tests did not run:\n%s", b.name, says)
	}
	return says, err == nil
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// TestBugsAreFound plants each bug and demands that its tests fail, and that the same tests pass without it.
func TestBugsAreFound(t *testing.T) {
	if !*plant {
		t.Skip("run it with -plant, or `make bugs`")
	}
	began := time.Now()
	sound := map[string]bool{}
	var lines []string
	for i := range planted {
		b := &planted[i]
		if !strings.Contains(b.name, *only) {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			if key := b.pkg + " " + b.tests; !sound[key] {
				if says, passes := suite(t, b); !passes {
					t.Fatalf("the tests fail without the bug:\n%s", says)
				}
				sound[key] = true
			}
			says, passes := suite(t, b, "-overlay", b.overlay(t))
			if passes {
				t.Fatalf("no test of %s finds it", b.tests)
			}
			by := "a panic or a hang"
			if m := failed.FindAllStringSubmatch(says, -1); len(m) > 0 {
				by = m[0][1]
			}
			lines = append(lines, fmt.Sprintf("%-72s %s: %s", b.name, b.pkg, by))
			t.Logf("found by %s", by)
		})
	}
	if *report == "" || t.Failed() {
		return
	}
	text := fmt.Sprintf("%d bugs planted one at a time, %d found, in %s\n%s\n", len(lines), len(lines), time.Since(began).Round(time.Second), strings.Join(lines, "\n"))
	if err := os.WriteFile(*report, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
