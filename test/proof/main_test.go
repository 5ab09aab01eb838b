package main

import (
	"slices"
	"strings"
	"testing"
)

// TestNames: what a test's name and comment are taken to name.
func TestNames(t *testing.T) {
	for text, want := range map[string]string{
		"TestF012Memory":                 "F012",
		"TestPanic_F013 ":                "F013",
		"TestX F001, F004: both. I3":     "F001 F004 I3",
		"F066-F068 and I1 to I3":         "F066 F067 F068 I1 I2 I3",
		"F66, I16, A1, UTF8":             "",
		"killed (F005); I1, I6.":         "F005 I1 I6",
		"TestBudgetOf20 HTTP1 SHA256 I0": "",
	} {
		if got := strings.Join(names(text), " "); got != want {
			t.Errorf("%q names %q, want %q", text, got, want)
		}
	}
}

// TestScanAndWrite: a row is shown by the test that names it in its name or in the comment directly above it; a due row
// without one is missing.
func TestScanAndWrite(t *testing.T) {
	shown := map[string][]test{}
	err := scanFile(shown, "internal/x", `package x

// F002 stands too far above.

// TestCrash: F001: nothing is lost. I3.
func TestCrash(t *testing.T) { /* F003 is inside */ }

func TestF131(t *testing.T) {}

// F004 is of no test.
func helper() {}
`)
	if err != nil {
		t.Fatal(err)
	}
	text, missing, err := write(shown)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| F001 | killed after parsing, before anything is held | [x](../internal/x) TestCrash |",
		"| I3 | One posting for each request at most; attempts are part of it. | [x](../internal/x) TestCrash |",
		"[x](../internal/x) TestF131 |", "| F009 | killed while a period is closed or invoiced | later |",
		"**Missing**: F002, F003, F004,",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the page lacks %q", line)
		}
	}
	if slices.Contains(missing, "F001") || slices.Contains(missing, "F009") || !slices.Contains(missing, "F004") {
		t.Errorf("missing are %v", missing)
	}
}

// TestRows: each row is there once, in order.
func TestRows(t *testing.T) {
	last := ""
	for _, s := range faults {
		for _, r := range s.rows {
			if r.name <= last || r.text == "" {
				t.Errorf("row %q %q after %q", r.name, r.text, last)
			}
			last = r.name
		}
	}
	if last != "F131" {
		t.Errorf("the last row is %s", last)
	}
}
