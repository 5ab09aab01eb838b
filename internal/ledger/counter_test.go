package ledger_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// stepped is a row whose output has steps that are not monotone, the first two with a fee, and whose input comes in packages.
func stepped(scope string) *price.Row {
	row := newPrices()
	rate := func(text string) money.Rate {
		r, err := money.ParseRate(text, 1)
		if err != nil {
			panic(err)
		}
		return r
	}
	for m := range usage.Image {
		row.Rates[m] = money.Rate{}
	}
	row.Forms = []price.Form{
		{Kind: price.Package, Meters: 0b111, Counter: "model small input", Scope: scope, Window: period.Month, Zone: "Europe/Berlin", Package: 100, Steps: []price.Step{{Rate: rate("0.5")}}},
		{Kind: price.Graduated, Meters: 0b11000, Counter: "model small output", Scope: scope, Window: period.Month, Zone: "Europe/Berlin", Steps: []price.Step{
			{UpTo: 1000, Rate: rate("0.002"), Fee: eur("5")}, {UpTo: 5000, Rate: rate("0.003"), Fee: eur("1")}, {Rate: rate("0.001")},
		}},
	}
	return row
}

// askNow bounds a request at the position of this moment, as the gateway does.
func (r *rig) askNow(s *usage.Subject, chain []account.ID, in, out int64) *ledger.Ask {
	r.t.Helper()
	ask := r.askAs(s, chain, in, out)
	ask.Position = r.l.Position(s, r.prices)
	var err error
	if ask.Money, err = rating.Ceiling(ask.Bounds, s.Work, r.prices, ask.Position); err != nil {
		r.t.Fatal(err)
	}
	return ask
}

func (r *rig) spendSteps(s *usage.Subject, chain []account.ID, in, out int64) *usage.Record {
	r.t.Helper()
	h, err := r.l.Hold(context.Background(), r.askNow(s, chain, in, out))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.settle(h, completed(in, out))
}

// The bill of requests that run at once is that of the same requests one after the other, whatever their order: counters
// belong to the writer. None is charged above its hold, at steps that rise and fall and have fees. P2, I7.
func TestCountersUnderACrowd(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("100000")))
	r.prices = stepped("organisation")
	rng := rand.New(rand.NewPCG(1, 2))
	type request struct{ in, out, used int64 }
	var asked []request
	var in, out int64
	for range 120 {
		q := request{in: 1 + rng.Int64N(300), out: 1 + rng.Int64N(300)}
		q.used = rng.Int64N(q.out + 1)
		asked, in, out = append(asked, q), in+q.in, out+q.used
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards sum
	var sum money.Amount
	for i, q := range asked {
		wg.Go(func() {
			s, chain := r.chat, chatChain
			if i%3 == 0 {
				s, chain = r.sales, salesChain
			}
			h, err := r.l.Hold(context.Background(), r.askNow(s, chain, q.in, q.out))
			if err != nil {
				t.Error(err)
				return
			}
			rec, err := r.l.Settle(h, completed(q.in, q.used))
			if err != nil || rec.Flags != 0 || rec.Charge.Cmp(rec.Hold) > 0 {
				t.Errorf("settled %s of %s held, flags %v: %v", rec.Charge, rec.Hold, rec.Flags.Names(), err)
				return
			}
			mu.Lock()
			sum = sum.Add(rec.Charge)
			mu.Unlock()
		})
	}
	wg.Wait()
	if want := rating.Schedule(&r.prices.Forms[0], in).Add(rating.Schedule(&r.prices.Forms[1], out)); sum != want {
		t.Errorf("%d in and %d out cost %s; one after the other %s", in, out, sum, want)
	}
	if p := r.l.Position(r.chat, r.prices); p[0] != in || p[1] != out {
		t.Errorf("counters stand at %v, want %d and %d", p, in, out)
	}
	r.check()
}

// Counters are what the log says: after a restart, one with an open hold, and after their table was made anew.
func TestCountersStay(t *testing.T) {
	r := newRig(t)
	r.prices, r.onFail = stepped("organisation"), usage.ChargeDelivered
	r.spendSteps(r.chat, chatChain, 150, 990)
	h, err := r.l.Hold(context.Background(), r.askNow(r.chat, chatChain, 70, 100))
	if err != nil {
		t.Fatal(err)
	}
	r.l.Checkpoint(h, counts(70, 30), usage.EngineRunning)
	r.spendSteps(r.sales, salesChain, 0, 1)
	r.l.Close()
	r.open()
	if p := r.l.Position(r.chat, r.prices); p[0] != 220 || p[1] != 1021 {
		t.Errorf("after a start counters stand at %v", p)
	}
	r.check()
	r.l.Close()
	r.rebuild()
	r.open()
	rec := r.spendSteps(r.chat, chatChain, 80, 10)
	if p := r.l.Position(r.chat, r.prices); p[0] != 300 || p[1] != 1031 || rec.Charge != eur("0.03") { // in the third package, in the second step
		t.Errorf("rebuilt counters stand at %v, the next request cost %s", p, rec.Charge)
	}
	r.check()
}

// A new period begins at 0, and use counts in the period of its admission.
func TestCountersByPeriod(t *testing.T) {
	r := newRig(t)
	r.prices = stepped("organisation")
	r.spendSteps(r.chat, chatChain, 100, 2000)
	r.clock.set(time.Date(2026, 11, 30, 22, 59, 30, 0, time.UTC)) // half a minute before December in Berlin
	old := r.askNow(r.chat, chatChain, 10, 100)
	if old.Position[1] != 0 {
		t.Errorf("just before the turn a ceiling stands at %v, so it would not cover what comes after it", old.Position)
	}
	late, err := r.l.Hold(context.Background(), old)
	if err != nil {
		t.Fatal(err)
	}
	stale := r.askNow(r.chat, chatChain, 10, 100) // bounded as if it were far from the turn
	stale.Position = rating.Position{100, 2000}
	if stale.Money, err = rating.Ceiling(stale.Bounds, r.chat.Work, r.prices, stale.Position); err != nil {
		t.Fatal(err)
	}
	r.clock.set(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC))
	h, err := r.l.Hold(context.Background(), stale)
	if err != nil {
		t.Fatal(err)
	}
	if rec := r.settle(h, completed(10, 100)); rec.Charge != eur("5.7") || rec.Flags != 0 { // package, fee and first step of December
		t.Errorf("the first request of a month cost %s, flags %v", rec.Charge, rec.Flags.Names())
	}
	if rec := r.settle(late, completed(10, 100)); rec.Charge != eur("0.8") { // a package, and November's second step
		t.Errorf("the last request of a month, settled in the next, cost %s", rec.Charge)
	}
	if p := r.l.Position(r.chat, r.prices); p[0] != 10 || p[1] != 100 {
		t.Errorf("December's counters stand at %v", p)
	}
	r.check()
}

// Who shares a contract counts together, and apart from others of the organisation.
func TestCountersByContract(t *testing.T) {
	r := newRig(t)
	r.prices = stepped("contract")
	one, two := *r.chat, *r.sales
	one.Contract, two.Contract = "C-1", "C-2"
	same := *r.sales
	same.Contract = "C-1"
	r.spendSteps(&one, chatChain, 100, 10)
	r.spendSteps(&two, salesChain, 30, 20)
	r.spendSteps(&same, salesChain, 7, 40)
	for _, c := range []struct {
		s       *usage.Subject
		in, out int64
	}{{&one, 107, 50}, {&two, 30, 20}, {&same, 107, 50}, {r.chat, 0, 0}} {
		if p := r.l.Position(c.s, r.prices); p[0] != c.in || p[1] != c.out {
			t.Errorf("counters of contract %q stand at %v, want %d and %d", c.s.Contract, p, c.in, c.out)
		}
	}
	r.check()
}

// Nothing is counted where nothing is charged.
func TestVoidsDoNotCount(t *testing.T) {
	r := newRig(t)
	r.prices = stepped("organisation")
	h, err := r.l.Hold(context.Background(), r.askNow(r.chat, chatChain, 10, 100))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.l.Void(h, ended(usage.Unserved, 10, 100)); err != nil {
		t.Fatal(err)
	}
	if p := r.l.Position(r.chat, r.prices); p[0] != 0 || p[1] != 0 {
		t.Errorf("counters stand at %v", p)
	}
	r.check()
}
