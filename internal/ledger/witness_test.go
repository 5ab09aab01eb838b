package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
)

// TestRollback: a ledger that lacks what was witnessed is refused, and accepted by two; a bit that flips in the entry that
// says so is found, and so is one that only one person has accepted (F023, F123).
func TestRollback(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1000)))
	r.spend(5, 5)
	heads, err := r.store.Heads()
	if err != nil {
		t.Fatal(err)
	}
	ahead := heads[0]
	ahead.Seq += 3
	var refused *ledger.RollbackError
	r.l.Close()
	for _, w := range []ledger.HeadRow{ahead, {Org: 77, Seq: 1}, {Org: ahead.Org, Seq: 1}} {
		r.opt.Witness = &ledger.Witness{At: noon, Heads: []ledger.HeadRow{w}}
		if err := r.tryOpen(); !errors.As(err, &refused) || len(refused.Lost) != 1 {
			t.Errorf("opened although %+v was witnessed: %v", w, err)
		}
	}
	r.opt.Witness = &ledger.Witness{At: noon, Heads: heads}
	r.open()
	r.l.Close()
	r.opt.Witness = &ledger.Witness{At: noon, Heads: []ledger.HeadRow{ahead}}
	r.opt.Rollback = &ledger.Rollback{First: "anna", Second: "ben"}
	r.open()
	if report := r.check(); report.Overrides != 1 {
		t.Errorf("%s", report)
	}
	c := copyOf(t, r.store)
	e := &c.entries[len(c.entries)-1]
	if e.Kind != ledger.KindOverride || !strings.Contains(string(e.Body), "anna") {
		t.Fatalf("the newest entry is of kind %d", e.Kind)
	}
	for at := range e.Body {
		e.Body[at] ^= 1 << (at % 8)
		report, err := ledger.Check(c)
		if err != nil || !strings.Contains(report.Difference, fmt.Sprintf("entry %d", e.Seq)) {
			t.Errorf("byte %d: %v, %v", at, report, err)
		}
		e.Body[at] ^= 1 << (at % 8)
	}
	r.l.Close()
	r.opt.Witness, r.opt.Rollback = nil, &ledger.Rollback{First: "anna", Second: "anna"}
	r.opt.Witness = &ledger.Witness{At: noon, Heads: []ledger.HeadRow{{Org: ahead.Org, Seq: 999}}}
	r.open()
	if report, err := ledger.Check(r.store); err != nil || !strings.Contains(report.Difference, "lets 2 pass by 2 names") {
		t.Errorf("%s, %v", report, err)
	}
}
