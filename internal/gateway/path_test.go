package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPlain(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	p := r.chat("GOOD", say("p=32 c=20", `,"max_tokens":100`))
	if p.status != 200 {
		t.Fatalf("status %d: %s", p.status, p.body)
	}
	var a struct {
		Usage struct {
			Prompt, Completion int64
			Cost, Currency     string
		}
	}
	if err := json.Unmarshal([]byte(p.body), &a); err != nil {
		t.Fatal(err)
	}
	rec := r.record(p)
	if rec == nil || rec.Status.String() != "posted" {
		t.Fatalf("record %+v", rec)
	}
	// 32 input at 1.00 and 20 output at 4.00 per million
	const want = "0.000112"
	if rec.Charge.String() != want || a.Usage.Cost != want || p.header.Get("X-Cost") != want || a.Usage.Currency != "EUR" {
		t.Errorf("charge %s, told %s and %s %s; want %s", rec.Charge, a.Usage.Cost, p.header.Get("X-Cost"), a.Usage.Currency, want)
	}
	receipt := r.do("GET", "/v1/usage/"+p.id(), "GOOD", "")
	if receipt.status != 200 || !strings.Contains(receipt.body, `"charge":"0.000112"`) {
		t.Errorf("receipt: %d %s", receipt.status, receipt.body)
	}
	if other := r.do("GET", "/v1/usage/"+p.id(), "SMALL", ""); other.status != 404 {
		t.Errorf("another key sees the receipt: %d %s", other.status, other.body)
	}
	if got := e.Totals(); got.All.Input != 32 || got.All.Output != 20 {
		t.Errorf("the engine counted %+v", got)
	}
}

// TestStream: I15.
func TestStream(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	for name, c := range map[string]struct {
		more  string
		usage bool
	}{
		"asked":     {streaming, true},
		"not asked": {`,"stream":true`, false},
		"refused":   {`,"stream":true,"stream_options":{"include_usage":false}`, false},
	} {
		p := r.chat("GOOD", say("p=32 c=20 chunks=10", c.more))
		if p.status != 200 || p.header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
			t.Fatalf("%s: status %d: %s", name, p.status, p.body)
		}
		if !strings.HasSuffix(p.body, "data: [DONE]\n\n") {
			t.Errorf("%s: no [DONE] at the end: %s", name, p.body)
		}
		if got := strings.Count(p.body, `"usage"`); (got == 1) != c.usage || got > 1 {
			t.Errorf("%s: %d usage members: %s", name, got, p.body)
		}
		if strings.Contains(p.body, `"error"`) {
			t.Errorf("%s: a top-level error member: %s", name, p.body)
		}
		told := p.trailer.Get("X-Cost") == "0.000112"
		if c.usage {
			told = strings.Contains(p.body, `"cost":"0.000112","currency":"EUR"`)
		}
		if !told {
			t.Errorf("%s: the cost is not told: trailer %v, %s", name, p.trailer, p.body)
		}
		if rec := r.record(p); rec.Charge.String() != "0.000112" || rec.Source.String() != "engine_final" {
			t.Errorf("%s: record %+v", name, rec)
		}
	}
}
