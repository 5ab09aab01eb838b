package gateway_test

import (
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/tape"
	"talea/internal/usage"
)

const ladder = `  load: {steps: ["0.85", "1", "1.25", "1.5"], up_above: "0.85", down_below: "0.65", interval: 15m}
`

// stepped is a tape with one step that is in force soon and one that is announced.
func stepped(r *rig) *tape.Tape {
	from := time.Now().Add(300 * time.Millisecond).UTC().Truncate(time.Microsecond)
	for i, ppm := range []int64{1_250_000, 1_500_000} {
		at := from.Add(time.Duration(i) * 10 * time.Minute)
		if err := r.ledger.PublishStep(&ledger.PriceStep{Book: "public", From: at, Until: at.Add(10 * time.Minute), PPM: ppm}); err != nil {
			r.t.Fatal(err)
		}
	}
	return tape.New(tape.Options{World: r.world, Ledger: r.ledger, Clock: wall{}})
}

// A request locks the step of its price at the hold: the bill, the answer and the list of models say the same.
func TestPriceUnderLoad(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, book: ladder, tape: stepped})
	p := r.chat("GOOD", say("p=100 c=7", ""))
	for range 3000 {
		if p.header.Get("X-Price-Multiplier") != "1" { // before the step begins
			break
		}
		time.Sleep(10 * time.Millisecond)
		p = r.chat("GOOD", say("p=100 c=7", ""))
	}
	if p.status != 200 || p.header.Get("X-Price-Multiplier") != "1.25" || p.header.Get("X-Cost") != "0.00016" {
		t.Errorf("100 tokens at 1.25 and 7 at 5 a million: %d, multiplier %q, cost %q", p.status, p.header.Get("X-Price-Multiplier"), p.header.Get("X-Cost"))
	}
	rec := r.record(p)
	if rec.Multiplier != 1_250_000 || !strings.Contains(rec.PriceRow, "#1/m") || rec.Status != usage.Posted {
		t.Errorf("record %+v", rec)
	}
	models := r.do("GET", "/v1/models/m", "GOOD", "").body
	for _, want := range []string{`"prompt":"0.00000125"`, `"price_multiplier":"1.25"`, `"announced_load_multipliers":[{"from":"`, `"multiplier":"1.5"}]`} {
		if !strings.Contains(models, want) {
			t.Errorf("models lack %s: %s", want, models)
		}
	}
}

// Callers refuse by themselves what is too dear: nothing is held, nothing reaches an engine.
func TestCallersOwnLimits(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, book: ladder, tape: stepped})
	for _, c := range []struct {
		header, value string
		status        int
		code          string
	}{
		{"Talea-Max-Multiplier", "1.25", 200, ""}, {"Talea-Max-Multiplier", "1.249999", 400, "max_multiplier_exceeded"}, {"X-Max-Multiplier", "1", 400, "max_multiplier_exceeded"},
		{"X-Max-Multiplier", "cheap", 400, "invalid_request_error"}, {"X-Max-Multiplier", "", 400, "invalid_request_error"},
		{"Talea-Max-Cost", "1", 200, ""}, {"Talea-Max-Cost", "0.00005", 400, "max_cost_exceeded"}, {"X-Max-Cost", "0", 400, "max_cost_exceeded"},
		{"X-Max-Cost", "-1", 400, "invalid_request_error"}, {"X-Max-Cost", "1,50", 400, "invalid_request_error"},
	} {
		for n := 0; n < 3000 && strings.Contains(r.do("GET", "/v1/models/m", "GOOD", "").body, `"price_multiplier":"1","announced`); n++ {
			time.Sleep(10 * time.Millisecond)
		}
		before := e.Totals().Requests
		p := r.chat("GOOD", say("p=100 c=7", `,"max_tokens":10`), c.header, c.value)
		if p.status != c.status || c.status != 200 && (p.code(t) != c.code || !strings.Contains(p.body, `"param":"`+c.header)) {
			t.Errorf("%s: %s gave %d %s", c.header, c.value, p.status, p.body)
		}
		if asked := e.Totals().Requests - before; (asked == 1) != (c.status == 200) {
			t.Errorf("%s: %s reached the engine %d times", c.header, c.value, asked)
		}
	}
}
