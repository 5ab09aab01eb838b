package gateway_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/sim"
	"talea/internal/usage"
)

// owned is an account of its own with one limit, for the key OWN.
func owned(engine string, limit string, more string) setup {
	return setup{engines: []string{engine}, wait: time.Minute,
		accounts: fmt.Sprintf("- path: acme/own\n  limits:\n  - %s\n%s", limit, more),
		keys:     "- {name: own, account: acme/own, secret: \"env:OWN\"}\n"}
}

// TestShortReject: a maximum that does not fit is refused with the largest that would (F086).
func TestShortReject(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, owned(e.URL(), `{measure: output_tokens, window: month, amount: "1000"}`, ""))
	if p := r.chat("OWN", say("c=970", `,"max_tokens":970`)); p.status != 200 {
		t.Fatalf("%d %s", p.status, p.body)
	}
	p := r.chat("OWN", say("c=4000", `,"max_tokens":128000`))
	if p.status != 402 || p.code(t) != "insufficient_quota" || !strings.Contains(p.body, `"max_affordable_tokens":30`) {
		t.Errorf("with 3 %% left: %d %s", p.status, p.body)
	}
	p = r.chat("OWN", say("c=4000", `,"max_tokens":128000,"n":4`))
	if p.status != 402 || !strings.Contains(p.body, `"max_affordable_tokens":7`) {
		t.Errorf("four choices with 3 %% left: %d %s", p.status, p.body)
	}
	if got := e.Totals(); got.Requests != 1 {
		t.Errorf("the engine saw %d requests, want 1", got.Requests)
	}
}

// TestShortClamp: where an account says so, a smaller maximum is forwarded, and a header tells it (F086). The setting of
// an account above counts for those below that say nothing.
func TestShortClamp(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	e := sim.NewEngine(sim.EngineOptions{Sleep: noSleep, Watch: func(a sim.Answer) { mu.Lock(); asked = append(asked, string(a.Body)); mu.Unlock() }})
	defer e.Close()
	s := owned(e.URL(), `{measure: output_tokens, window: month, amount: "1000"}`, "  on_short: clamp\n- {path: acme/own/app}\n- {path: acme/own/strict, on_short: reject}\n")
	s.keys = "- {name: own, account: acme/own/app, secret: \"env:OWN\"}\n- {name: strict, account: acme/own/strict, secret: \"env:STRICT\"}\n"
	r := newRig(t, s)
	if p := r.chat("OWN", say("c=970", `,"max_tokens":970`)); p.status != 200 || p.header.Get("X-Max-Tokens-Clamped") != "" {
		t.Fatalf("%d %v %s", p.status, p.header, p.body)
	}
	if p := r.chat("STRICT", say("c=970", `,"max_tokens":970`)); p.status != 402 {
		t.Errorf("an account that says reject: %d %s", p.status, p.body)
	}
	p := r.chat("OWN", say("c=4000", `,"max_tokens":128000,"n":4`))
	if rec := r.record(p); p.status != 200 || p.header.Get("X-Max-Tokens-Clamped") != "7" || rec.Counts.Output() != 28 || !strings.Contains(p.body, `"finish_reason":"length"`) {
		t.Errorf("four choices with 3 %% left: %d %v %s", p.status, p.header, p.body)
	}
	if p = r.chat("OWN", say("c=4000", streaming+`,"max_tokens":128000`)); p.status != 200 || p.header.Get("X-Max-Tokens-Clamped") != "2" {
		t.Errorf("with two left: %d %v %s", p.status, p.header, p.body)
	}
	if p = r.chat("OWN", say("c=4000", `,"max_tokens":128000`)); p.status != 402 || p.header.Get("X-Max-Tokens-Clamped") != "" {
		t.Errorf("with nothing left: %d %v %s", p.status, p.header, p.body)
	}
	for i, want := range []string{`"max_tokens":970`, `"max_tokens":7,`, `"max_tokens":2,`} {
		if !strings.Contains(asked[i], want) {
			t.Errorf("request %d was forwarded as %s, want %s", i, asked[i], want)
		}
	}
	if _, _, output := r.totals(); output != 1000 {
		t.Errorf("%d tokens of 1000 are billed", output)
	}
}

// TestNoMaximumNearTheLimit: a request that names no maximum gets what fits, if that is as long as the model's answers
// usually are. The default is our word, not the client's.
func TestNoMaximumNearTheLimit(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, owned(e.URL(), `{measure: output_tokens, window: month, amount: "900"}`, ""))
	p := r.chat("OWN", say("c=20", "")) // the default is 1000
	if p.status != 200 || p.header.Get("X-Max-Tokens-Clamped") != "512" {
		t.Fatalf("while nothing is known of the model: %d %v %s", p.status, p.header, p.body)
	}
	if p = r.chat("OWN", say("c=850", `,"max_tokens":851`)); p.status != 200 {
		t.Fatalf("%d %s", p.status, p.body)
	}
	for range 20 {
		r.chat("GOOD", say("c=20", ""))
	}
	if p = r.chat("OWN", say("c=20", "")); p.status != 200 || p.header.Get("X-Max-Tokens-Clamped") != "30" {
		t.Errorf("30 left, and 20 are usual: %d %v %s", p.status, p.header, p.body)
	}
	if p = r.chat("OWN", say("c=20", "")); p.status != 402 || !strings.Contains(p.body, `"max_affordable_tokens":10`) {
		t.Errorf("10 left, and 20 are usual: %d %v %s", p.status, p.header, p.body)
	}
	if rec := r.record(r.chat("OWN", say("c=20", `,"max_tokens":10`))); rec.Status != usage.Posted || rec.Counts.Output() != 10 {
		t.Errorf("the client's own maximum: %+v", rec)
	}
}
