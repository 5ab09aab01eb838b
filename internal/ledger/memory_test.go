package ledger_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
)

// remembered checks the log, the tables and what is in memory.
func (r *rig) remembered() *ledger.CheckReport {
	r.t.Helper()
	m, err := r.l.Memory()
	if err != nil {
		r.t.Fatal(err)
	}
	report, err := ledger.CheckMemory(r.store, m)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// TestMemoryIsTheLog: what is in memory is what the log says, while it is being written; where it is not, that is found.
// I2, I8.
func TestMemoryIsTheLog(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1_000_000)), limitOn(chat, quota.Money, period.Month, eur("100")))
	ctx, stop := context.WithCancel(context.Background())
	var crowd sync.WaitGroup
	for range 4 {
		crowd.Go(func() {
			for ctx.Err() == nil {
				h, err := r.l.Hold(context.Background(), r.ask(10, 10))
				if err == nil {
					_, err = r.l.Settle(h, completed(10, 7))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		if report := r.remembered(); !report.OK() || !strings.Contains(report.String(), "memory agrees") {
			t.Errorf("%s", report)
		}
	}
	stop()
	crowd.Wait()
	r.hold(5, 5)
	r.restart() // what was read back is right too
	r.hold(5, 5)
	if report := r.remembered(); !report.OK() {
		t.Errorf("%s", report)
	}
	r.l.Spoil(acme, false)
	if report := r.remembered(); !strings.Contains(report.Difference, "memory says") {
		t.Errorf("a spoilt balance: %q", report)
	}
	r.l.Spoil(acme, true)
	if report := r.remembered(); !strings.Contains(report.Difference, "but not in memory") {
		t.Errorf("a forgotten hold: %q", report)
	}
}
