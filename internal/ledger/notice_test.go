package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// alerting is a limit of tokens a day of the department research, with thresholds.
func alerting(most int64, alerts ...string) quota.Limit {
	lim := limitOn(research, quota.Tokens, period.Day, units(most))
	for _, text := range alerts {
		a, err := quota.ParseAlert(lim.Measure, lim.Amount, text)
		if err != nil {
			panic(err)
		}
		lim.Alerts = append(lim.Alerts, a)
	}
	lim.Alerts = quota.SortAlerts(lim.Alerts)
	return lim
}

// noticed expects the notices of the organisation, each in short.
func (r *rig) noticed(want ...string) {
	r.t.Helper()
	var got []string
	for _, n := range r.l.Notices(acme) {
		m := n.Limit.Measure
		got = append(got, fmt.Sprintf("%s %s %s of %s", n.Period.Label, n.Alert.Text(m), m.Format(n.Used), m.Format(n.Limit.Amount)))
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		r.t.Errorf("noticed %q, want %q", got, want)
	}
}

// TestNoticedOnce: each threshold once in each period, however often the program starts or crashes; the check reads all.
func TestNoticedOnce(t *testing.T) {
	var mu sync.Mutex
	var told []string
	r := unopened(t)
	r.opt.OnNotice = func(n ledger.Notice) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, n.String())
	}
	r.open()
	r.publish(alerting(100, "50%", "80%", "100%"))
	r.spend(20, 29)
	r.noticed()
	r.spend(1, 0)
	want := []string{"2026-11-24 50% 50 of 100"}
	r.noticed(want...)
	for _, again := range []func(){r.restart, r.crash} {
		again()
		r.noticed(want...)
		r.spend(1, 0)
		r.noticed(want...)
		r.check()
	}
	r.spend(24, 24) // two at once
	want = append(want, "2026-11-24 80% 100 of 100", "2026-11-24 100% 100 of 100")
	r.noticed(want...)
	if n := r.l.Noticed(); n != 2 {
		t.Errorf("%d notices counted since the start, want 2", n)
	}
	s := r.l.Standings(acme, chatChain)[0]
	if len(s.Alerts) != 3 || !s.Alerts[0].Since.Equal(noon) || !s.Alerts[2].Since.Equal(noon) {
		t.Errorf("standing %+v", s.Alerts)
	}
	r.clock.advance(24 * time.Hour) // the next day has its own
	if s := r.l.Standings(acme, chatChain)[0]; !s.Alerts[0].Since.IsZero() {
		t.Errorf("the next day: %+v", s.Alerts)
	}
	r.spend(30, 30)
	r.noticed(append(want, "2026-11-25 50% 60 of 100")...)
	r.check()
	deadline := time.Now().Add(time.Minute)
	for {
		mu.Lock()
		n := len(told)
		mu.Unlock()
		if n == 4 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("told %q", told)
		}
		time.Sleep(time.Millisecond)
	}
	if want := "acme/research, day 2026-11-24: 50 of 100 tokens used, alert at 50%"; told[0] != want {
		t.Errorf("told %q, want %q", told[0], want)
	}
}

// TestNoticedOfChanges: a limit that is lowered below what is used says so at once, a threshold that moves is another one,
// and one that comes back is not noticed twice.
func TestNoticedOfChanges(t *testing.T) {
	r := newRig(t, alerting(1000, "50%"))
	r.spend(50, 50)
	r.noticed()
	r.publish(alerting(150, "50%")) // 75
	r.noticed("2026-11-24 50% 100 of 150")
	if n := r.l.Notices(acme)[0]; n.Request != 0 {
		t.Errorf("request %d is said to have lowered it", n.Request)
	}
	r.publish(alerting(1000, "50%"))
	r.publish(alerting(150, "50%"))
	r.noticed("2026-11-24 50% 100 of 150")
	r.restart()
	r.publish(alerting(150, "50%", "90"))
	r.noticed("2026-11-24 50% 100 of 150", "2026-11-24 90 100 of 150")
	r.publish(alerting(400, "50%"))
	r.spend(50, 50) // 200
	r.noticed("2026-11-24 50% 100 of 150", "2026-11-24 90 100 of 150", "2026-11-24 50% 200 of 400")
	r.publish() // not in force: nothing is noticed
	r.publish(alerting(1, "100%"))
	r.check()
}

// TestNoticedOfEarlierEpoch: what a start posts of the epoch before is noticed too.
func TestNoticedOfEarlierEpoch(t *testing.T) {
	r := newRig(t, alerting(100, "50%"))
	r.onFail = usage.ChargeGenerated
	h, other := r.hold(30, 30), r.hold(10, 10)
	r.l.Checkpoint(h, counts(30, 30), usage.EngineRunning)
	r.l.Checkpoint(other, counts(1, 1), usage.EngineRunning)
	r.spend(0, 1)
	r.crash()
	r.noticed("2026-11-24 50% 61 of 100")
	r.stands(research, 0, "63", "0")
	r.check()
}

// TestAlertOnly: a limit that only alerts is passed by everything and counts it; made to block, it does at once.
func TestAlertOnly(t *testing.T) {
	lim := alerting(100, "100%")
	lim.Action = quota.AlertOnly
	r := newRig(t, lim)
	r.spend(60, 60)
	h := r.hold(500, 500)
	r.stands(research, 0, "120", "1000")
	r.noticed("2026-11-24 100% 120 of 100")
	if by, cause := r.l.Standings(acme, chatChain)[0].OverLimit(); by != units(1020) || cause != "alert_only" {
		t.Errorf("over by %s, %s", quota.Tokens.Format(by), cause)
	}
	r.check()
	lim.Action = quota.Block
	r.publish(lim)
	r.refused(r.ask(1, 0), quota.Exhausted, research)
	if by, cause := r.l.Standings(acme, chatChain)[0].OverLimit(); by != units(1020) || cause != "lowered" {
		t.Errorf("over by %s, %s", quota.Tokens.Format(by), cause)
	}
	r.settle(h, completed(500, 500))
	r.restart()
	r.refused(r.ask(1, 0), quota.Exhausted, research)
	r.check()
}

// TestWork: work is bounded at the hold and counted at the settlement, by the billed tokens; a model of unknown size has no
// room under a limit of work, and GPU time is work times GPUs.
func TestWork(t *testing.T) {
	gpu := limitOn(acme, quota.GPUSeconds, period.Day, money.Units(1_000_000_000_000_000))
	gpu.Action = quota.AlertOnly
	r := newRig(t, limitOn(acme, quota.WorkMS, period.Day, units(1000)), gpu)
	r.chat.Work = usage.Work{Fixed: 5_000_000_000, Input: 10_000_000, Output: 6_000_000_000} // 5 ms, 10 µs, 6 ms
	h := r.hold(500, 100)                                                                    // 5 + 5 + 600
	r.stands(acme, 1, "0", "610")
	r.refused(r.ask(0, 100), quota.Contended, acme)
	result := completed(400, 50)
	result.GPUCount = 8
	record := r.settle(h, result) // 5 + 4 + 300
	if got := record.Billed.Get(usage.WorkMS); got != 309 || record.Counts.Known(usage.WorkMS) {
		t.Errorf("work %d, metered %v", got, record.Counts.Known(usage.WorkMS))
	}
	r.stands(acme, 1, "309", "0")
	r.stands(acme, 0, "2.472", "0")
	r.refused(r.ask(100, 115), quota.Exhausted, acme)

	h = r.hold(500, 100)
	gone := ended(usage.ClientGone, 500, 100)
	gone.Delivered = 10
	r.onGone = usage.ChargeDelivered
	r.settle(h, gone)
	r.stands(acme, 1, "919", "0") // the rule of the hold: all that was made

	unknown := newSubject(chatChain, "nobody-knows", "")
	r.refused(r.askAs(unknown, chatChain, 1, 1), quota.Exhausted, acme)
	r.restart()
	r.stands(acme, 1, "919", "0")
	r.check()
}

// TestKeyLimits: the limit of a key counts that key alone, beside those of the path; through restarts, and by its identity.
func TestKeyLimits(t *testing.T) {
	key := limitOn(chat, quota.Tokens, period.Day, units(100))
	key.Key = "key_0123456789"
	batch := limitOn(acme, quota.RequestCount, period.Day, units(1))
	batch.Tier = "batch"
	r := newRig(t, key, limitOn(chat, quota.Tokens, period.Day, units(1000)), batch)
	other := newSubject(chatChain, "small", "small")
	other.Key = "key_other"
	r.spend(40, 40)
	if short := r.refused(r.ask(20, 20), quota.Exhausted, chat); short.Limit.Key != key.Key {
		t.Errorf("refused by %+v", short.Limit)
	}
	h, err := r.l.Hold(t.Context(), r.askAs(other, chatChain, 200, 200))
	if err != nil {
		t.Fatal(err)
	}
	r.settle(h, completed(200, 200))
	r.restart()
	if s := r.l.Standings(acme, chatChain); len(s) != 3 || s[1].Used != units(480) || s[2].Used != units(80) || s[2].Limit.Key != key.Key {
		t.Errorf("standings %+v", s)
	}
	if s := r.l.Standings(acme, chatChain[:2]); len(s) != 1 {
		t.Errorf("standings of the department: %+v", s)
	}
	key.Amount = units(200) // raised: what was used stays
	r.publish(key, limitOn(chat, quota.Tokens, period.Day, units(1000)), batch)
	r.spend(60, 60)
	r.refused(r.ask(1, 0), quota.Exhausted, chat)

	r.publish(batch) // tiers: the first of batch passes, the second not; others are not counted
	for tier, fits := range map[string]bool{"": true, "auto": true, "default": true, "standard": true} {
		ask := r.ask(1, 1)
		ask.TierAsked = tier
		if h, err := r.l.Hold(t.Context(), ask); (err == nil) != fits {
			t.Errorf("tier %q: %v", tier, err)
		} else if err == nil {
			r.settle(h, completed(1, 1))
		}
	}
	ask := r.ask(1, 1)
	ask.TierAsked = "batch"
	if h, err = r.l.Hold(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	ask = r.ask(1, 1)
	ask.TierAsked = "batch"
	r.refused(ask, quota.Contended, acme)
	r.settle(h, completed(1, 1))
	r.check()
}

// TestMovedKey: a request that was prepared before its key moved to another project stands on no limit of the new one.
func TestMovedKey(t *testing.T) {
	key := limitOn(sales, quota.Tokens, period.Day, units(1))
	key.Key = "key_0123456789"
	r := newRig(t, key)
	r.spend(40, 40)
	r.refused(r.askAs(r.sales, salesChain, 1, 1), quota.Exhausted, sales)
	r.check()
}

// TestAnniversaries: limits that begin on the 31st, on 29 February and at 6 in the morning renew once, clamped to the last
// day, over restarts; beside a limit of the same window without an anchor (F029).
func TestAnniversaries(t *testing.T) {
	anchored := func(w period.Window, text string) quota.Limit {
		lim := limitOn(acme, quota.RequestCount, w, units(1))
		var err error
		if lim.Anchor, err = period.ParseAnchor(w, text); err != nil {
			t.Fatal(err)
		}
		return lim
	}
	for _, c := range []struct {
		limit  quota.Limit
		start  string // in Berlin
		resets []string
	}{
		{anchored(period.Month, "31"), "2027-01-31T00:00", []string{"2027-02-28T00:00", "2027-03-31T00:00", "2027-04-30T00:00", "2027-05-31T00:00"}},
		{anchored(period.Year, "02-29"), "2027-02-28T00:00", []string{"2028-02-29T00:00", "2029-02-28T00:00", "2030-02-28T00:00"}},
		{anchored(period.Day, "6"), "2026-10-24T06:00", []string{"2026-10-25T06:00", "2026-10-26T06:00"}},
		{anchored(period.Day, "6"), "2026-03-28T06:00", []string{"2026-03-29T06:00", "2026-03-30T06:00"}},
		{anchored(period.Quarter, "01-31"), "2027-01-31T00:00", []string{"2027-04-30T00:00", "2027-07-31T00:00"}},
		{anchored(period.Week, "friday"), "2026-03-27T00:00", []string{"2026-04-03T00:00", "2026-04-10T00:00"}},
	} {
		t.Run(c.limit.Window.String()+" "+c.start, func(t *testing.T) {
			zone, err := period.Zone("Europe/Berlin")
			if err != nil {
				t.Fatal(err)
			}
			local := func(text string) time.Time {
				at, err := time.ParseInLocation("2006-01-02T15:04", text, zone)
				if err != nil {
					t.Fatal(err)
				}
				return at.UTC()
			}
			r := unopened(t)
			r.clock.set(local(c.start))
			r.open()
			plain := limitOn(acme, quota.Tokens, c.limit.Window, units(1_000_000))
			r.publish(c.limit, plain)
			r.spend(1, 1)
			for _, reset := range c.resets {
				if s := r.l.Standings(acme, chatChain)[0]; !s.Period.End.Equal(local(reset)) {
					t.Fatalf("%s ends %s, want %s", s.Period.Label, s.Period.End.In(zone), reset)
				}
				r.clock.set(local(reset).Add(-time.Microsecond))
				r.refused(r.ask(1, 1), quota.Exhausted, acme)
				r.restart()
				r.refused(r.ask(1, 1), quota.Exhausted, acme)
				r.clock.set(local(reset))
				r.spend(1, 1)
				r.refused(r.ask(1, 1), quota.Exhausted, acme)
			}
			r.check()
		})
	}
}

// TestDegradeIsSaid: who is refused by an exhausted limit that degrades is told where to; by one that running requests hold,
// nobody is.
func TestDegradeIsSaid(t *testing.T) {
	lim := limitOn(research, quota.Tokens, period.Day, units(100))
	lim.Action, lim.DegradeTo = quota.Degrade, "tiny"
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(150)), lim)
	h := r.hold(50, 50)
	if short := r.refused(r.ask(1, 0), quota.Contended, research); short.Degrade != nil {
		t.Errorf("contended, and sent to %s", short.Degrade.DegradeTo)
	}
	r.settle(h, completed(50, 50))
	if short := r.refused(r.ask(1, 0), quota.Exhausted, research); short.Degrade == nil || short.Degrade.DegradeTo != "tiny" {
		t.Errorf("sent to %+v", short.Degrade)
	}
	// The first limit that is short is another one; the request is sent on all the same.
	if short := r.refused(r.ask(51, 0), quota.Exhausted, acme); short.Degrade == nil || short.Degrade.Account != research {
		t.Errorf("sent to %+v", short.Degrade)
	}
	tiny := newSubject(chatChain, "tiny", "small")
	if short := r.refused(r.askAs(tiny, chatChain, 1, 0), quota.Exhausted, research); short.Degrade != nil {
		t.Errorf("sent from tiny to %+v", short.Degrade)
	}
	ask := r.ask(1, 10)
	ask.Less = ledger.Less{Answers: 1, Least: 1, Most: 1}
	r.publish(limitOn(acme, quota.Tokens, period.Day, units(150)), func() quota.Limit { l := lim; l.Amount = units(105); return l }())
	if short := r.refused(ask, quota.Exhausted, research); short.Degrade == nil {
		t.Error("a part of the dear answer rather than a whole cheap one")
	}
	r.restart()
	r.refused(r.ask(51, 0), quota.Exhausted, acme)
	r.check()
}
