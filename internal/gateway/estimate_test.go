package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/quote"
)

// estimated asks what a body would cost; query may be "".
func (r *rig) estimated(key, body, query string) (quote.Answer, reply) {
	r.t.Helper()
	p := r.do("POST", "/v1/estimate"+query, key, body)
	var a quote.Answer
	if p.status == 200 {
		if err := json.Unmarshal([]byte(p.body), &a); err != nil || len(a.Offerings) == 0 {
			r.t.Fatalf("%v: %s", err, p.body)
		}
	}
	return a, p
}

// wayward prices have every form, tiers and windows.
const wayward = `  - {model: m, meter: input, price: "1.00", long_context: [{over: 30, price: "0.70"}, {over: 80, price: "2.00"}]}
  - {model: m, meter: input_cache_read, price: "0.10"}
  - {model: m, meter: output, form: graduated, steps: [{up_to: 60, price: "4.00", flat: "0.5"}, {up_to: 200, price: "9.00"}, {price: "1.00"}]}
  - {model: m, meter: request, price: "0.001", minimum_charge: "0.003"}
  service_tiers: {flex: {multiplier: "0.5"}, priority: {multiplier: "2"}}
  windows: [{name: early, from: "00:00", to: "12:00", multiplier: "3"}, {name: late, from: "12:00", to: "24:00", multiplier: "3"}]
`

// What a request is charged lies between the floor and the ceiling of its estimate, and the ceiling, or what is said to be held
// at first, is what its hold holds: for bodies of many shapes, tiers, and whatever was used before.
func TestEstimateIsKept(t *testing.T) {
	for name, prices := range map[string]string{"flat": "", "forms": wayward} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}, prices: prices})
			tiers, counted := []string{"", "standard"}, false
			if prices != "" {
				tiers = append(tiers, "flex", "priority")
			}
			for i, shape := range []string{
				`,"max_tokens":20`, "", `,"n":3,"max_tokens":11`, streaming, streaming + `,"max_tokens":7`, `,"stop":["x"],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]`, `,"n":2`,
			} {
				for _, tier := range tiers {
					more := shape
					if tier != "" {
						more += `,"service_tier":"` + tier + `"`
					}
					body := say(fmt.Sprintf("p=%d c=%d", 1+i*20, 3+i*9), more)
					before, _, _ := r.totals()
					a, e := r.estimated("GOOD", body, "")
					if after, _, _ := r.totals(); e.status != 200 || after != before {
						t.Fatalf("%s: %d %s", more, e.status, e.body)
					}
					o := a.Offerings[0]
					p := r.chat("GOOD", body)
					rec := r.record(p)
					held := o.Ceiling
					if o.Held != nil {
						held = *o.Held
					}
					if p.status != 200 || rec.Hold != held || rec.PriceRow != o.PriceRow {
						t.Errorf("%s %s: %d; held %s by %s, estimated %s by %s", more, tier, p.status, rec.Hold, rec.PriceRow, held, o.PriceRow)
					}
					if o.Floor.Sign() <= 0 || rec.Charge.Cmp(o.Floor) < 0 || rec.Charge.Cmp(o.Ceiling) > 0 || o.Expected.Cmp(o.Floor) < 0 || o.Expected.Cmp(o.Ceiling) > 0 {
						t.Errorf("%s %s: charged %s, estimated %s <= %s <= %s", more, tier, rec.Charge, o.Floor, o.Expected, o.Ceiling)
					}
					counted = counted || o.Expect.InputSource == quote.Counted
					if i > 0 && (o.Expect.InputSource == quote.Bound || o.Expect.OutputSource != quote.Learnt) {
						t.Errorf("%s: expected by %+v after an answer", more, o.Expect)
					}
				}
			}
			a, _ := r.estimated("GOOD", say("p=7 c=3", ""), "")
			if o := a.Offerings[0]; !counted || o.Expect.InputSource != quote.Counted || o.Expect.Input != 7 {
				t.Errorf("the engine's counts are proved, and %+v is expected", o.Expect)
			}
			if report, err := ledger.Check(r.store.(ledger.Reader)); err != nil || !report.OK() {
				t.Errorf("check: %v, %v", report, err)
			}
		})
	}
}

// A stream without a maximum is held by and by: its ceiling is what the extensions can come to.
func TestEstimateOfAGrowingHold(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	body := say("p=9 c=3000", streaming)
	for i := range 2 { // the second time its engine is known to tell
		o, _ := r.estimated("GOOD", body, "")
		p := r.chat("GOOD", body)
		rec := r.record(p)
		first := o.Offerings[0]
		if p.status != 200 || first.Held == nil || rec.Charge.Cmp(first.Floor) < 0 || rec.Charge.Cmp(first.Ceiling) > 0 {
			t.Errorf("%d: charged %s, estimated %s", p.status, rec.Charge, o.Offerings[0].Ceiling)
		}
		if i == 1 && rec.Charge.Cmp(*first.Held) <= 0 {
			t.Errorf("charged %s, no more than the %s that were held first", rec.Charge, first.Held)
		}
	}
}

// Completions and embeddings are told apart from chat by their content, and are priced as they would be.
func TestEstimateOfOtherRoutes(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	for _, c := range []struct{ path, body, endpoint string }{
		{"/v1/completions", `{"model":"m","prompt":["[[p=9 c=4]] a","b"],"max_tokens":8}`, "completions"},
		{"/v1/embeddings", `{"model":"m","input":["[[p=9]] a","b"]}`, "embeddings"},
	} {
		a, e := r.estimated("GOOD", c.body, "")
		if b, _ := r.estimated("GOOD", c.body, "?endpoint="+c.endpoint); e.status != 200 || a.Endpoint != c.endpoint || b.Offerings[0].Ceiling != a.Offerings[0].Ceiling {
			t.Fatalf("%d %s", e.status, e.body)
		}
		rec := r.record(r.do("POST", c.path, "GOOD", c.body))
		if o := a.Offerings[0]; rec.Hold != o.Ceiling || rec.Charge.Cmp(o.Floor) < 0 || rec.Charge.Cmp(o.Ceiling) > 0 {
			t.Errorf("%s: held %s, charged %s, estimated %+v", c.path, rec.Hold, rec.Charge, o.Prices)
		}
	}
}

// An estimate is refused as the request would be, needs a key, and is within the rate of requests; the budget is no matter, and
// no engine hears of it.
func TestEstimateRefusals(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	for _, c := range []struct {
		key, body, query string
		status           int
		code             string
	}{
		{"", say("", ""), "", 401, "invalid_api_key"},
		{"GOOD", `{"model":"no","messages":[{"role":"user","content":"x"}]}`, "", 404, "model_not_found"},
		{"GOOD", say("", `,"priority":1`), "", 400, "unsupported_parameter"},
		{"GOOD", say("", `,"service_tier":"batch"`), "", 400, "unsupported_parameter"},
		{"GOOD", say("", `,"prompt":"x"`), "", 400, "invalid_request_error"}, // which is it?
		{"GOOD", `{"model":"m"`, "", 400, "invalid_request_error"},
		{"GOOD", `{"model":"m"}`, "", 400, "invalid_request_error"},
		{"GOOD", say("", ""), "?endpoint=images", 400, "invalid_request_error"},
		{"GOOD", say("", ""), "?at=tomorrow", 400, "invalid_request_error"},
		{"GOOD", say("", ""), "?when=now", 400, "unknown_parameter"},
		{"GOOD", say("", ""), "?at=2020-01-01T00:00:00Z", 400, "model_not_priced"},
		{"FAR", say("", ""), "", 403, "data_residency_mismatch"},
	} {
		if _, p := r.estimated(c.key, c.body, c.query); p.status != c.status || p.code(t) != c.code && c.code != "invalid_request_error" {
			t.Errorf("%s %s: %d %s", c.body, c.query, p.status, p.body)
		}
	}
	a, p := r.estimated("EMPTY", say("", ""), "")
	if o := a.Offerings[0]; p.status != 200 || *o.Allowed || o.Short == nil || o.Short.Code != "insufficient_quota" || !strings.HasPrefix(o.Short.Account, "acme/empty") {
		t.Errorf("without a budget: %d %s", p.status, p.body)
	}
	if a, p = r.estimated("GOOD", say("", ""), ""); !*a.Offerings[0].Allowed || a.Offerings[0].Short != nil {
		t.Errorf("with a budget: %s", p.body)
	}
	last := 0
	for range 5 {
		_, p := r.estimated("SLOW", say("", ""), "")
		last = p.status
	}
	if last != 429 {
		t.Errorf("the fifth of 3 at once: %d", last)
	}
	if r.estimated("PACED", say("", `,"max_tokens":1500`), ""); r.do("GET", "/v1/models", "PACED", "").status != 200 {
		t.Error("a list of models takes tokens")
	}
	if p := r.chat("PACED", say("p=5 c=2500", `,"max_tokens":3000`)); p.status != 200 { // more than all that there are at once
		t.Errorf("an estimate has taken tokens: %d %s", p.status, p.body)
	}
	if p := r.chat("PACED", say("p=5 c=3", "")); p.status != 429 {
		t.Errorf("there are tokens left: %d", p.status)
	}
	if _, p := r.estimated("PACED", say("", ""), ""); p.status != 200 {
		t.Errorf("an estimate needs tokens: %d %s", p.status, p.body)
	}
	if n := e.Totals(); n.Requests != 1 {
		t.Errorf("the engine heard of %d requests, want that of the chat", n.Requests)
	}
}

// Every other offering of the key is priced too, at the time that is asked for, and the cheapest hour of the next 24 is told.
func TestEstimateOffersAndHours(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, prices: `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, price: "4.00"}
  - {model: unpriced, meter: input, price: "2.00"}
  - {model: unpriced, meter: output, price: "2.00"}
  windows: [{name: night, from: "22:30", to: "04:00", multiplier: "0.5"}, {name: peak, from: "09:00", to: "12:00", multiplier: "2"}]
`})
	at := "2026-12-01T10:20:00+01:00"
	a, p := r.estimated("GOOD", say("", `,"max_tokens":100`), "?at="+url.QueryEscape(at))
	if p.status != 200 || len(a.Offerings) != 2 || a.Offerings[0].Model != "m" || a.Offerings[1].Model != "unpriced" {
		t.Fatalf("%d %s", p.status, p.body)
	}
	o := a.Offerings[0]
	want := money.Units(0)
	for range 2 * (o.Bounds.Input + 4*o.Bounds.Output) {
		want = want.Add(micro(t))
	}
	if o.Multiplier != "2" || o.Ceiling != want || !strings.HasSuffix(o.PriceRow, "window=peak") {
		t.Errorf("at the peak: %+v, want the ceiling %s", o, want)
	}
	h := o.CheapestHour
	if h == nil || h.From.Format(time.RFC3339) != "2026-12-01T22:00:00Z" || h.Multiplier != "0.5" { // 23:00 by the book's clock: from 22:00 is dear for half an hour
		t.Fatalf("cheapest hour %+v", h)
	}
	if again, _ := r.estimated("GOOD", say("", `,"max_tokens":100`), "?at="+h.From.Format(time.RFC3339)); again.Offerings[0].Expected != h.Expected {
		t.Errorf("then it is expected to cost %s, and was promised %s", again.Offerings[0].Expected, h.Expected)
	}
}

func micro(t *testing.T) money.Amount {
	a, err := money.ParseAmount("0.000001")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A load step is in the estimate once it is announced: the hours before it are cheaper.
func TestEstimateKnowsAnnouncedSteps(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, book: ladder, tape: stepped})
	a, p := r.estimated("GOOD", say("", ""), "?at="+time.Now().Add(15*time.Minute).UTC().Format(time.RFC3339))
	if o := a.Offerings[0]; p.status != 200 || o.Multiplier != "1.5" || !strings.Contains(o.PriceRow, "#2/m") || o.CheapestHour == nil || o.CheapestHour.Multiplier != "1" {
		t.Errorf("%d %s", p.status, p.body)
	}
}
