package ledger_test

import (
	"context"
	"errors"
	"testing"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

func TestHoldAndSettle(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")), limitOn(chat, quota.Tokens, period.Day, units(5000)))
	h := r.hold(1000, 500)
	r.stands(acme, 0, "0", "0.002")
	r.stands(chat, 0, "0", "1500")
	r.check()
	record := r.settle(h, completed(400, 300))
	if record.Charge != eur("0.001") || record.Hold != eur("0.002") || record.Status != usage.Posted || len(record.Lines) != 2 {
		t.Errorf("charge %s of %s held, status %s, %d lines", record.Charge, record.Hold, record.Status, len(record.Lines))
	}
	r.stands(acme, 0, "0.001", "0")
	r.stands(chat, 0, "700", "0")
	if report := r.check(); report.Posted != 1 || report.Open != 0 {
		t.Errorf("check counts %s", report)
	}

	read, touched, err := r.l.Record(h.ID)
	if err != nil || read == nil {
		t.Fatalf("record %v, error %v", read, err)
	}
	if read.Charge != record.Charge || read.Engine != "gpu-1" || read.Billed != record.Billed || read.Subject.Key != "key_0123456789" || len(read.Attempts) != 1 {
		t.Errorf("read back as %+v", read)
	}
	if len(touched) != 2 || touched[0].Held != eur("0.002") || touched[1].Period.Label != "2026-11-24" {
		t.Errorf("touched %+v", touched)
	}
	if read, _, err := r.l.Record(r.minter.Mint(noon)); read != nil || err != nil {
		t.Errorf("a request that never was: %v, %v", read, err)
	}
}

// TestOutcomes: which rule of the price book applies to which end of an answer, and what it does.
func TestOutcomes(t *testing.T) {
	for _, x := range []struct {
		name      string
		outcome   usage.Outcome
		gone      usage.Tariff // on disconnect
		fault     usage.Tariff // on a platform fault
		delivered int64
		in, out   int64 // billed
		status    usage.Status
	}{
		{"completed", usage.Completed, 0, 0, 300, 400, 300, usage.Posted},
		{"completed and not delivered", usage.Completed, 0, 0, 0, 400, 300, usage.Posted},
		{"cut at the hold", usage.Cut, 0, 0, 300, 400, 300, usage.Posted},
		{"client gone, generated", usage.ClientGone, usage.ChargeGenerated, 0, 10, 400, 300, usage.Posted},
		{"client gone, delivered", usage.ClientGone, usage.ChargeDelivered, 0, 10, 400, 10, usage.Posted},
		{"client gone, nothing", usage.ClientGone, usage.ChargeNothing, 0, 10, 0, 0, usage.Void},
		{"revoked, generated", usage.Revoked, usage.ChargeGenerated, 0, 10, 400, 300, usage.Posted},
		{"broken, nothing", usage.Broken, usage.ChargeGenerated, usage.ChargeNothing, 10, 0, 0, usage.Void},
		{"broken, delivered", usage.Broken, usage.ChargeGenerated, usage.ChargeDelivered, 10, 400, 10, usage.Posted},
		{"broken, generated", usage.Broken, usage.ChargeNothing, usage.ChargeGenerated, 10, 400, 300, usage.Posted},
		{"no engine", usage.Unserved, usage.ChargeGenerated, usage.ChargeGenerated, 0, 0, 0, usage.Void},
		{"refused by the engine", usage.EngineSaid, usage.ChargeGenerated, usage.ChargeGenerated, 0, 0, 0, usage.Void},
		{"never ended", usage.Open, usage.ChargeGenerated, usage.ChargeGenerated, 0, 0, 0, usage.Void},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, limitOn(acme, quota.RequestCount, period.Day, units(9)), limitOn(acme, quota.Tokens, period.Day, units(9000)))
			r.onGone, r.onFail = x.gone, x.fault
			h := r.hold(1000, 500)
			result := ended(x.outcome, 400, 300)
			result.Delivered = x.delivered
			record := r.settle(h, result)
			if record.Billed.Input() != x.in || record.Billed.Output() != x.out || record.Status != x.status {
				t.Errorf("billed %d in, %d out, %s; want %d, %d, %s", record.Billed.Input(), record.Billed.Output(), record.Status, x.in, x.out, x.status)
			}
			if x.status == usage.Void {
				r.stands(acme, 0, "0", "0")
			} else {
				r.stands(acme, 0, "1", "0")
			}
			r.stands(acme, 1, quota.Tokens.Format(units(x.in+x.out)), "0")
			r.check()
		})
	}
}

// TestNeverAboveTheHold: an engine that counts above the bounds is the operator's loss, whatever it counts.
func TestNeverAboveTheHold(t *testing.T) {
	for _, x := range []struct {
		name    string
		joint   int64
		counted usage.Counts
		in, out int64 // billed
		leak    ledger.Leak
	}{
		{"within", 0, counts(100, 50), 100, 50, ledger.Leak{}},
		{"input above", 0, counts(130, 50), 100, 50, ledger.Leak{Input: 30}},
		{"output above", 0, counts(100, 57), 100, 50, ledger.Leak{Output: 7}},
		{"both at the cap", 0, counts(usage.MaxCount, usage.MaxCount), 100, 50, ledger.Leak{Input: usage.MaxCount - 100, Output: usage.MaxCount - 50}},
		{"joint above", 120, counts(90, 50), 90, 30, ledger.Leak{Output: 20}},
		{"input alone above joint", 60, counts(100, 50), 60, 0, ledger.Leak{Input: 40, Output: 50}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, limitOn(chat, quota.Tokens, period.Day, units(150)), limitOn(acme, quota.Money, period.Month, eur("1")))
			ask := r.ask(100, 50)
			ask.Bounds.Joint = x.joint
			h, err := r.l.Hold(context.Background(), ask)
			if err != nil {
				t.Fatal(err)
			}
			result := completed(0, 0)
			result.Counts = x.counted
			record := r.settle(h, result)
			if record.Billed.Input() != x.in || record.Billed.Output() != x.out || r.l.Leaked() != x.leak {
				t.Errorf("billed %d in, %d out, leaked %+v; want %d, %d, %+v", record.Billed.Input(), record.Billed.Output(), r.l.Leaked(), x.in, x.out, x.leak)
			}
			if over := record.Flags&usage.FlagOverBound != 0; over != (x.leak != ledger.Leak{}) {
				t.Errorf("flags %v", record.Flags.Names())
			}
			if record.Counts != x.counted {
				t.Error("what was metered was changed")
			}
			r.check()
		})
	}
}

// TestEveryNode: a limit binds at whichever node of the path it sits, and only there.
func TestEveryNode(t *testing.T) {
	for _, x := range []struct {
		node   account.ID
		binds  []account.ID // leaves for which it does
		passes []account.ID
	}{
		{acme, []account.ID{chat, sales}, nil},
		{research, []account.ID{chat}, []account.ID{sales}},
		{chat, []account.ID{chat}, []account.ID{sales}},
		{sales, []account.ID{sales}, []account.ID{chat}},
	} {
		t.Run(string(paths[x.node]), func(t *testing.T) {
			r := newRig(t, limitOn(x.node, quota.RequestCount, period.Day, units(0)))
			asks := map[account.ID]func() *ledger.Ask{
				chat:  func() *ledger.Ask { return r.ask(10, 10) },
				sales: func() *ledger.Ask { return r.askAs(r.sales, salesChain, 10, 10) },
			}
			for _, leaf := range x.binds {
				r.refused(asks[leaf](), quota.Exhausted, x.node)
			}
			for _, leaf := range x.passes {
				if _, err := r.l.Hold(context.Background(), asks[leaf]()); err != nil {
					t.Error(err)
				}
			}
			r.check()
		})
	}
}

// TestOnAllOrNone: where one limit of several has no room, nothing is held on any.
func TestOnAllOrNone(t *testing.T) {
	r := newRig(t,
		limitOn(acme, quota.Money, period.Month, eur("1")), limitOn(research, quota.RequestCount, period.Day, units(1)), limitOn(chat, quota.Tokens, period.Day, units(20)))
	short := r.refused(r.ask(11, 10), quota.Exhausted, chat)
	if short.Error() != "acme/research/chat, day 2026-11-24: 0 used + 0 held + 21 asked > 20 tokens" {
		t.Errorf("says %q", short)
	}
	r.stands(acme, 0, "0", "0")
	r.stands(research, 0, "0", "0")
	r.spend(10, 10)
	r.refused(r.ask(1, 1), quota.Exhausted, research)
	r.stands(acme, 0, "0.00003", "0")
	r.check()
}

// TestMeasures: each measure counts what it says, at the hold and at the settlement.
func TestMeasures(t *testing.T) {
	for _, x := range []struct {
		measure    quota.Measure
		held, used string // of 1000 in and 500 out, of which 400 and 300 are used
	}{
		{quota.Money, "0.002", "0.001"},
		{quota.InputTokens, "1000", "400"},
		{quota.OutputTokens, "500", "300"},
		{quota.Tokens, "1500", "700"},
		{quota.RequestCount, "1", "1"},
	} {
		t.Run(x.measure.String(), func(t *testing.T) {
			most, err := x.measure.ParseAmount(x.held)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, limitOn(research, x.measure, period.Week, most)) // fits exactly one
			h := r.hold(1000, 500)
			r.stands(research, 0, "0", x.held)
			r.refused(r.ask(1000, 500), quota.Contended, research)
			r.settle(h, completed(400, 300))
			r.stands(research, 0, x.used, "0")
			r.refused(r.ask(1000, 500), quota.Exhausted, research)
			r.check()
		})
	}
}

// TestNarrowed: a limit that is narrowed to a model or a size class counts only requests to it.
func TestNarrowed(t *testing.T) {
	byModel := limitOn(acme, quota.RequestCount, period.Day, units(0))
	byModel.Model = "large"
	byClass := limitOn(acme, quota.RequestCount, period.Day, units(0))
	byClass.SizeClass = "huge"
	r := newRig(t, byModel, byClass)
	for _, x := range []struct {
		model, class string
		free         bool
	}{{"small", "small", true}, {"large", "small", false}, {"small", "huge", false}, {"large", "huge", false}} {
		ask := r.ask(10, 10)
		ask.Subject = newSubject(chatChain, x.model, x.class)
		_, err := r.l.Hold(context.Background(), ask)
		if (err == nil) != x.free {
			t.Errorf("model %s of class %s: %v", x.model, x.class, err)
		}
	}
	r.check()
}

// TestSettledOnce: a second settlement posts nothing, and neither does a void after it.
func TestSettledOnce(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")))
	h := r.hold(1000, 500)
	r.settle(h, completed(400, 300))
	for range 3 {
		if _, err := r.l.Settle(h, completed(1000, 500)); !errors.Is(err, ledger.ErrSettled) {
			t.Errorf("settled again: %v", err)
		}
		if _, err := r.l.Void(h, ended(usage.Unserved, 0, 0)); !errors.Is(err, ledger.ErrSettled) {
			t.Errorf("voided after all: %v", err)
		}
	}
	r.stands(acme, 0, "0.001", "0")
	if report := r.check(); report.Posted != 1 || report.Voided != 0 {
		t.Errorf("check counts %s", report)
	}
}

func TestVoid(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")))
	h := r.hold(1000, 500)
	if _, err := r.l.Void(h, completed(400, 300)); err == nil {
		t.Error("what may owe something was voided")
	}
	r.stands(acme, 0, "0", "0.002")
	record, err := r.l.Void(h, &usage.Result{Outcome: usage.Unserved, Attempts: []usage.Attempt{{Engine: "gpu-1", Fault: "connect"}}})
	if err != nil || record.Status != usage.Void || !record.Charge.IsZero() {
		t.Errorf("void: %v, %v", record, err)
	}
	r.stands(acme, 0, "0", "0")
	if report := r.check(); report.Voided != 1 {
		t.Errorf("check counts %s", report)
	}
}

func TestExtend(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("0.002")), limitOn(chat, quota.RequestCount, period.Day, units(1)), limitOn(chat, quota.OutputTokens, period.Day, units(700)))
	h := r.hold(1000, 200)
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 300}, eur("0.0006")); err != nil {
		t.Fatal(err)
	}
	r.stands(acme, 0, "0", "0.002")
	r.stands(chat, 0, "0", "500")
	r.stands(chat, 1, "0", "1")
	var short *ledger.Short
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 1}, eur("0.000002")); !errors.As(err, &short) || short.Limit.Account != acme {
		t.Errorf("extended beyond the budget: %v", err)
	}
	if h.Bounds.Output != 500 || h.Record.Hold != eur("0.002") {
		t.Errorf("a refused extension left bounds %+v and %s held", h.Bounds, h.Record.Hold)
	}
	r.check()
	record := r.settle(h, ended(usage.Cut, 1000, 501))
	if record.Billed.Output() != 500 || record.Charge != eur("0.002") {
		t.Errorf("billed %d output tokens at %s", record.Billed.Output(), record.Charge)
	}
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 1}, money.Amount{}); err == nil {
		t.Error("a settled hold was extended")
	}
	read, _, err := r.l.Record(h.ID)
	if err != nil || read.Bounds != h.Bounds || read.Hold != h.Record.Hold || read.Touched[0].Held != eur("0.002") {
		t.Errorf("read back: %+v, %v", read, err)
	}
	r.check()
}

// TestExtendJointly: the tokens of the whole can need more than those of the parts, where the parts are bound jointly.
func TestExtendJointly(t *testing.T) {
	r := newRig(t, limitOn(chat, quota.Tokens, period.Day, units(30)))
	ask := r.ask(5, 5)
	ask.Bounds.Joint = 100
	h, err := r.l.Hold(context.Background(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Input: 5, Output: 5, Joint: 5}, eur("0.000015")); err != nil {
		t.Fatal(err)
	}
	r.stands(chat, 0, "0", "20")
	r.settle(h, completed(10, 10))
	r.stands(chat, 0, "20", "0")
	r.check()
}

// TestExtendUnderOtherLimits: a hold that runs is not bound by limits that came or went after it.
func TestExtendUnderOtherLimits(t *testing.T) {
	requests, tokens := limitOn(chat, quota.RequestCount, period.Day, units(1)), limitOn(chat, quota.Tokens, period.Day, units(100))
	r := newRig(t, requests, tokens)
	h := r.hold(50, 50)
	requests.Amount = units(0)
	r.publish(requests) // lowered below what runs; the other is removed
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 50}, eur("0.0001")); err != nil {
		t.Errorf("extended by tokens, of which no limit is in force any more: %v", err)
	}
	r.publish(requests, tokens)
	r.stands(chat, 1, "0", "150")
	var short *ledger.Short
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 1}, eur("0.000002")); !errors.As(err, &short) || short.Limit.Measure != quota.Tokens {
		t.Errorf("the limit is in force again, and exceeded: %v", err)
	}
	r.check()
}

// TestWhatAnEntryCannotSay: a caller's nonsense is refused, not written for the next start to stumble on.
func TestWhatAnEntryCannotSay(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")))
	for name, spoil := range map[string]func(*ledger.Ask){
		"no id":          func(a *ledger.Ask) { a.ID = 0 },
		"retries":        func(a *ledger.Ask) { a.SDKRetry = -1 },
		"thinking":       func(a *ledger.Ask) { a.ThinkTokens = -1 },
		"retry of":       func(a *ledger.Ask) { a.RetryOf = -1 },
		"money":          func(a *ledger.Ask) { a.Money = eur("-1") },
		"input":          func(a *ledger.Ask) { a.Bounds.Input = -1 },
		"output":         func(a *ledger.Ask) { a.Bounds.Output = usage.MaxCount + 1 },
		"joint":          func(a *ledger.Ask) { a.Bounds.Joint = -1 },
		"no path":        func(a *ledger.Ask) { a.Chain = nil },
		"foreign path":   func(a *ledger.Ask) { a.Chain = []account.ID{9, chat} },
		"path to others": func(a *ledger.Ask) { a.Chain = salesChain },
	} {
		ask := r.ask(10, 10)
		spoil(ask)
		if h, err := r.l.Hold(context.Background(), ask); err == nil {
			t.Errorf("%s: held %+v", name, h)
		}
	}
	h := r.hold(10, 10)
	if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: -1}, money.Amount{}); err == nil {
		t.Error("extended by less than nothing")
	}
	result := completed(5, 5) // a clock that stepped back
	result.QueueMicros, result.TotalMicros, result.Attempts[0].Micros = -1, -7, -7
	if record := r.settle(h, result); record.TotalMicros != 0 || record.QueueMicros != 0 || record.Attempts[0].Micros != 0 {
		t.Errorf("negative durations: %+v", record.Result)
	}
	r.check()
	r.restart()
	if read, _, err := r.l.Record(h.ID); err != nil || read.Finish != "stop" {
		t.Errorf("read back: %+v, %v", read, err)
	}
}
