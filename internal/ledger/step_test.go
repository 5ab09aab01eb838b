package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
)

func step(book string, from time.Time, ppm int64) *ledger.PriceStep {
	return &ledger.PriceStep{
		Book: book, From: from, Until: from.Add(15 * time.Minute), PPM: ppm, Known: true, Load: 900_000,
		Inputs: []ledger.StepInput{{Engine: "gpu-1", Load: 900_000, Running: 14, Waiting: 2, Samples: 60}},
	}
}

// The price tape: published ahead, never changed, read back, in a chain of its own that a check reads.
func TestPriceSteps(t *testing.T) {
	r := newRig(t)
	quarter := noon.Add(15 * time.Minute)
	for i, ppm := range []int64{1_000_000, 1_250_000, 1_500_000} {
		if err := r.l.PublishStep(step("public", quarter.Add(time.Duration(i)*15*time.Minute), ppm)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.l.PublishStep(step("other", quarter, 850_000)); err != nil {
		t.Fatal(err)
	}
	for want, bad := range map[string]*ledger.PriceStep{
		"it is 2026-11-24T11:30:00Z already":           step("other", noon, 1_000_000),
		"another one is in force until":                step("public", quarter.Add(29*time.Minute), 1_000_000),
		"makes no sense":                               step("other", quarter.Add(time.Hour), 0),
		"cannot publish a step of price book \"\": it": step("", quarter.Add(time.Hour), 1_000_000),
	} {
		if err := r.l.PublishStep(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", bad, err, want)
		}
	}
	seen := func() string {
		newest, ok := r.l.NewestStep("public")
		return fmt.Sprint(r.l.Steps("public", quarter.Add(15*time.Minute), quarter.Add(31*time.Minute)), newest.Number, ok)
	}
	before := seen()
	if strings.Count(before, "gpu-1") != 2 {
		t.Errorf("steps of a time: %s", before)
	}
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if after := seen(); after != before {
		t.Errorf("read back as\n%s, want\n%s", after, before)
	}
	if err := r.l.PublishStep(step("other", quarter.Add(time.Hour), 1_000_000)); err != nil {
		t.Fatal(err)
	}
	if newest, _ := r.l.NewestStep("other"); newest.Number != 5 {
		t.Errorf("numbers go on after a restart: %d", newest.Number)
	}
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	c := copyOf(t, r.reader())
	if report := checked(t, c); report.Entries != 5 {
		t.Errorf("checked %+v", report)
	}
	c.entries[1], c.entries[2] = c.entries[2], c.entries[1]
	if report, err := ledger.Check(c); err != nil || !strings.HasPrefix(report.Difference, "the operator's log") {
		t.Errorf("steps in another order: %+v, %v", report, err)
	}
}
