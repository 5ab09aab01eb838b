package gateway_test

import (
	"fmt"
	"strings"
	"testing"

	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/usage"
)

// The tier that is billed is the tier that is served, and the answer says it; one that is not sold is refused, before
// anything is held.
func TestServiceTiers(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, prices: `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, price: "4.00"}
  - {model: m, meter: output, service_tier: priority, price: "9.00"}
  service_tiers: {flex: {multiplier: "0.5"}, priority: {multiplier: "2"}}
  windows: [{name: always, from: "00:00", to: "24:00", multiplier: "3"}]
`})
	for _, c := range []struct{ asked, served, multiplier, row, output string }{
		{"", "standard", "3", "/m window=always", "0.000012"},
		{"auto", "standard", "3", "/m window=always", "0.000012"},
		{"standard", "standard", "3", "/m window=always", "0.000012"},
		{"flex", "flex", "1.5", "/m tier=flex window=always", "0.000006"},
		{"priority", "priority", "6", "/m tier=priority window=always", "0.000027"}, // of its own, not multiplied by the tier
	} {
		more := ""
		if c.asked != "" {
			more = `,"service_tier":"` + c.asked + `"`
		}
		p := r.chat("GOOD", say("", more))
		rec := r.record(p)
		if told := strings.Contains(p.body, `"service_tier":"`+c.served+`"`); told != (c.asked != "") {
			t.Errorf("tier %q: %s", c.asked, p.body)
		}
		s := r.chat("GOOD", say("", more+`,"stream":true,"stream_options":{"include_usage":true}`))
		if n := strings.Count(s.body, `"service_tier":"`+c.served+`"`); s.status != 200 || n != min(1, len(c.asked)) {
			t.Errorf("tier %q is %d times in a stream: %s", c.asked, n, s.body)
		}
		said := p.header.Get("X-Service-Tier")
		if p.status != 200 || said != c.served && c.asked != "" || p.header.Get("X-Price-Multiplier") != c.multiplier {
			t.Errorf("tier %q: %d, %v", c.asked, p.status, p.header)
		}
		if last := rec.Lines[len(rec.Lines)-1]; rec.TierServed != c.served || rec.TierAsked != c.asked || !strings.HasSuffix(rec.PriceRow, c.row) ||
			last.Meter != usage.OutputContent || last.UnitPrice.String() != c.output {
			t.Errorf("tier %q: served %q by row %q, %+v", c.asked, rec.TierServed, rec.PriceRow, last)
		}
	}
	for _, tier := range []string{"batch", "scale", "Flex"} {
		p := r.chat("GOOD", say("", `,"service_tier":"`+tier+`"`))
		if p.status != 400 || p.code(t) != "unsupported_parameter" || !strings.Contains(p.body, "flex, priority, standard") {
			t.Errorf("tier %q: %d %s", tier, p.status, p.body)
		}
	}
}

// Steps are counted over the requests of an organisation, whichever project asks, and each request is held at the dearest
// step from where the counter stands.
func TestSteps(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, prices: `  - {model: m, meter: input, price: "1.00", long_context: [{over: 100000, price: "2.00"}]}
  - {model: m, meter: output, form: graduated, steps: [{up_to: 30, price: "4.00", flat: "7"}, {price: "1.00"}]}
`})
	var output int64
	var charge money.Amount
	held := map[string]bool{}
	for i := range 6 {
		key := []string{"GOOD", "SMALL"}[i%2]
		p := r.chat(key, say("", `,"max_tokens":20`))
		if p.status != 200 {
			t.Fatalf("%d %s", p.status, p.body)
		}
		rec := r.record(p)
		output += rec.Counts.Output()
		for _, l := range rec.Lines {
			if l.Meter == usage.OutputContent || l.Meter == usage.OutputReasoning {
				charge = charge.Add(l.Amount)
			}
		}
		held[rec.Hold.Round(0, money.HalfEven).String()] = true
	}
	first := min(output, 30)
	want := fmt.Sprintf("7.%09d", first*4000+(output-first)*1000)
	if got, err := money.ParseAmount(want); err != nil || charge != got || output <= 30 {
		t.Errorf("%d output tokens cost %s, want %s", output, charge, want)
	}
	if !held["7"] || !held["0"] {
		t.Errorf("held were about %v: the fee of the first step is to be held until it is entered", held)
	}
	if report, err := ledger.Check(r.store.(ledger.Reader)); err != nil || !report.OK() {
		t.Errorf("check: %v, %v", report, err)
	}
	if p := r.do("GET", "/v1/models/m", "GOOD", ""); !strings.Contains(p.body, `"prompt":"0.000001"`) || !strings.Contains(p.body, `"completion":"0.000004"`) {
		t.Errorf("the model is listed as %s", p.body)
	}
}

// A model whose price is the work of its requests: tokens cost nothing by themselves, and the hold is that of the most work.
func TestPriceByWork(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, prices: "  - {model: m, meter: work_ms, price: \"3.00\", per: 3600000}\n"})
	p := r.chat("GOOD", say("", `,"max_tokens":20`))
	rec := r.record(p)
	last := rec.Lines[len(rec.Lines)-1]
	if p.status != 200 || last.Meter != usage.WorkMS || last.Quantity != rec.Billed.Get(usage.WorkMS) || last.Quantity == 0 || rec.Charge != last.Amount {
		t.Errorf("%d, %s: %+v", p.status, rec.Charge, rec.Lines)
	}
	if report, err := ledger.Check(r.store.(ledger.Reader)); err != nil || !report.OK() {
		t.Errorf("check: %v, %v", report, err)
	}
}
