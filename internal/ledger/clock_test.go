package ledger_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
)

// TestPeriodOfAdmission: a request belongs to the period in which it was admitted, however long it runs (F030). I14.
func TestPeriodOfAdmission(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("0.002")), limitOn(acme, quota.Tokens, period.Total, units(10_000)))
	r.clock.set(time.Date(2026, 11, 30, 22, 59, 58, 900_000_000, time.UTC)) // 23:59:58.9 in Berlin
	h := r.hold(1000, 500)
	r.refused(r.ask(1, 0), quota.Contended, acme)
	r.clock.set(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC))
	second := r.hold(1000, 500) // the whole budget of December
	record := r.settle(h, completed(1000, 500))
	if !record.Result.At.Equal(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)) || record.Admission.At.Month() != time.November {
		t.Errorf("admitted %s, settled %s", record.Admission.At, record.Result.At)
	}
	r.stands(acme, 0, "0", "0.002") // December: nothing of November is in it
	r.stands(acme, 1, "1500", "1500")
	r.restart() // resolves the second, at nothing
	if _, err := r.l.Settle(second, completed(1, 1)); err == nil {
		t.Error("a hold of the ledger before the restart was settled")
	}
	r.stands(acme, 0, "0", "0")
	_, touched, err := r.l.Record(h.ID)
	if err != nil || touched[0].Period.Label != "2026-11" {
		t.Errorf("touched %+v, %v", touched, err)
	}
	r.check()
}

// TestOneAllowanceADay: on days of 23 and 25 hours too, and where midnight does not exist (F029). I14.
func TestOneAllowanceADay(t *testing.T) {
	for _, x := range []struct {
		zone  string
		start string // UTC
		hours int
		days  int64
	}{
		{"Europe/Berlin", "2026-03-28T23:00:00Z", 23 + 24, 2},
		{"Europe/Berlin", "2026-10-24T22:00:00Z", 25 + 24, 2},
		{"Africa/Cairo", "2026-04-23T22:00:00Z", 23 + 24, 2}, // 24 April begins at 01:00
		{"Africa/Cairo", "2026-10-28T21:00:00Z", 25 + 24, 2},
		{"America/Sao_Paulo", "2018-11-04T03:00:00Z", 23, 1}, // began at 01:00
	} {
		t.Run(x.zone+" "+x.start, func(t *testing.T) {
			limit := limitOn(acme, quota.RequestCount, period.Day, units(1))
			limit.Zone = x.zone
			r := unopened(t)
			start, err := time.Parse(time.RFC3339, x.start)
			if err != nil {
				t.Fatal(err)
			}
			r.clock.set(start)
			r.open()
			r.publish(limit)
			granted := int64(0)
			for at := start; at.Before(start.Add(time.Duration(x.hours) * time.Hour)); at = at.Add(30 * time.Minute) {
				r.clock.set(at)
				if h, err := r.l.Hold(context.Background(), r.ask(1, 1)); err == nil {
					granted++
					r.settle(h, completed(1, 1))
				}
			}
			if granted != x.days {
				t.Errorf("%d requests granted in %d hours, want %d", granted, x.hours, x.days)
			}
			r.check()
		})
	}
}

// TestClockStepsBack: a closed period stays closed, and entries never go back in time (F028, F032).
func TestClockStepsBack(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.RequestCount, period.Month, units(1)))
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	r.clock.set(december)
	r.spend(1, 1)
	r.clock.set(december.Add(-2 * time.Hour)) // November again: its allowance is not to be had
	r.refused(r.ask(1, 1), quota.Exhausted, acme)
	r.clock.set(december.Add(-4 * time.Minute)) // less than what a restart refuses
	r.restart()
	r.refused(r.ask(1, 1), quota.Exhausted, acme)
	r.publish()
	for i := range 20 { // 1 s back each time
		r.clock.set(december.Add(time.Duration(i%2) * -time.Second))
		r.spend(1, 1)
	}
	r.check()
}

// TestClockOfAnotherTime: a start refuses a clock that reads much earlier than the newest entry, unless told otherwise (F031).
func TestClockOfAnotherTime(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.RequestCount, period.Month, units(1)))
	r.spend(1, 1)
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.clock.set(noon.Add(-6 * time.Minute))
	var wrong *ledger.ClockError
	if err := r.tryOpen(); !errors.As(err, &wrong) || !wrong.Newest.Equal(noon) {
		t.Fatalf("opened with the clock 6 minutes behind: %v", err)
	}
	r.clock.set(time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC))
	if err := r.tryOpen(); !errors.As(err, &wrong) {
		t.Fatalf("opened in 1970: %v", err)
	}
	r.clock.set(noon.AddDate(0, -1, 0))
	r.opt.TrustClock = true
	r.open()
	r.spend(1, 1) // October
	r.refused(r.ask(1, 1), quota.Exhausted, acme)
	r.clock.set(noon)
	r.refused(r.ask(1, 1), quota.Exhausted, acme) // November is as it was
	if report := r.check(); report.Overrides != 1 {
		t.Errorf("%d overrides in the log: %s", report.Overrides, report)
	}
	r.restart() // with a clock that needs no trust
	if report := r.check(); report.Overrides != 1 {
		t.Errorf("%d overrides in the log: %s", report.Overrides, report)
	}
}

// TestClockThatWasNeverSet: the first start too refuses a clock of 1970 (F031).
func TestClockThatWasNeverSet(t *testing.T) {
	r := unopened(t)
	r.clock.set(time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC))
	var wrong *ledger.ClockError
	if err := r.tryOpen(); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "never set") {
		t.Fatalf("opened in 1970: %v", err)
	}
	r.opt.TrustClock = true
	r.open()
	r.publish(limitOn(acme, quota.RequestCount, period.Month, units(1)))
	r.spend(1, 1)
	r.check()
}

// TestForward: an hour ahead in one step resets a budget once if a boundary was crossed (F027).
func TestForward(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.RequestCount, period.Hour, units(1)))
	for range 3 {
		r.spend(1, 1)
		r.refused(r.ask(1, 1), quota.Exhausted, acme)
		r.clock.advance(time.Hour)
	}
	r.check()
}
