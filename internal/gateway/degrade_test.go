package gateway_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"talea/internal/usage"
)

// degradeRig has a model big, at 10 times the price of cheap, and the limits of the project.
func degradeRig(t *testing.T, limits string) *rig {
	return degradeRigOn(t, newEngine(t).URL(), limits)
}

func degradeRigOn(t *testing.T, engine, limits string) *rig {
	r := newRig(t, setup{engines: []string{engine}, prices: `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, price: "4.00"}
  - {model: big, meter: input, price: "10.00"}
  - {model: big, meter: output, price: "40.00"}
  - {model: cheap, meter: input, price: "1.00"}
  - {model: cheap, meter: output, price: "4.00"}
`})
	r.apply(`models:
- {name: big, served_as: m, engines: [e0], parameters: 70e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000, max_concurrent: 1}
- {name: cheap, served_as: m, engines: [e0], parameters: 8e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000}
- {name: odd, served_as: m, engines: [e0], parameters: 8e9, context_tokens: 131072}
`)
	r.apply("accounts:\n- path: acme/degrade\n  limits:\n" + limits + "- {path: acme/degrade/app, show_amounts: true}\nkeys:\n- {name: own, account: acme/degrade/app, secret: \"env:OWN\"}\n")
	return r
}

func askBig(more string) string { return strings.Replace(say("p=32 c=20", more), `"m"`, `"big"`, 1) }

// TestDegrade: what does not fit a limit with the asked offering is answered by the cheaper one, held and charged at its
// price, and the answer says so; the record has both names.
func TestDegrade(t *testing.T) {
	// 100 tokens of big cost 0.004 at most and what comes before them; of cheap a tenth.
	r := degradeRig(t, "  - {measure: money, window: month, amount: \"0.008\", model: big, action: {degrade: cheap}}\n")
	first := r.chat("OWN", askBig(`,"max_tokens":100`))
	if first.status != 200 || first.header.Get("X-Model-Served") != "big" || first.header.Get("X-Degraded-From") != "" {
		t.Fatalf("the first: %d %s %s", first.status, first.header, first.body)
	}
	var p reply
	for n := 0; ; n++ {
		if p = r.chat("OWN", askBig(`,"max_tokens":100`)); p.status != 200 || n > 20 {
			t.Fatalf("request %d: %d %s", n, p.status, p.body)
		}
		if p.header.Get("X-Degraded-From") != "" {
			break
		}
	}
	for name, want := range map[string]string{"X-Model-Served": "cheap", "X-Degraded-From": "big", "X-Degraded-By": "acme/degrade money/month"} {
		if p.header.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, p.header.Get(name), want)
		}
	}
	rec := r.record(p)
	if rec.Subject.ModelAsked != "big" || rec.Subject.Model != "cheap" || rec.Status != usage.Posted || rec.Charge.String() != "0.000112" {
		t.Errorf("asked %s, served %s, charged %s", rec.Subject.ModelAsked, rec.Subject.Model, rec.Charge)
	}
	if stream := r.chat("OWN", askBig(`,"max_tokens":100`+streaming)); stream.status != 200 || stream.header.Get("X-Degraded-From") != "big" || !strings.Contains(stream.body, "[DONE]") {
		t.Errorf("a stream: %d %s", stream.status, stream.header)
	}
	if own := r.chat("OWN", strings.Replace(say("p=32 c=20", ""), `"m"`, `"cheap"`, 1)); own.status != 200 || own.header.Get("X-Degraded-From") != "" {
		t.Errorf("asked for the cheap one: %d %s", own.status, own.header)
	}
}

// TestDegradeIsHard: a limit that degrades is a hard limit for the cheaper offering too, where it covers it.
func TestDegradeIsHard(t *testing.T) {
	r := degradeRig(t, "  - {measure: money, window: month, amount: \"0.012\", action: {degrade: cheap}}\n")
	served := map[string]int{}
	for n := 0; ; n++ {
		p := r.chat("OWN", askBig(`,"max_tokens":100`))
		if p.status == 402 {
			break
		}
		if p.status != 200 || n > 200 {
			t.Fatalf("request %d: %d %s", n, p.status, p.body)
		}
		served[p.header.Get("X-Model-Served")]++
	}
	if served["big"] == 0 || served["cheap"] == 0 {
		t.Errorf("served %v: both were to be", served)
	}
	for _, s := range r.ledger.Standings(1, r.world.Current().Account("acme/degrade").IDs) {
		if s.Used.Add(s.Held).Cmp(s.Limit.Amount) > 0 {
			t.Errorf("%s of %s used", s.Used, s.Limit.Amount)
		}
	}
}

// TestNotDegraded: another offering is no way round another hard limit, nor for keys that may not use it or requests that it
// cannot serve; and two limits may send on.
func TestNotDegraded(t *testing.T) {
	const none = `  - {measure: money, window: month, amount: "0", model: big, action: {degrade: cheap}}
`
	for _, c := range []struct {
		name, limits, more string
		status             int
		served, by         string
	}{
		{"it fits", strings.Replace(none, `"0"`, `"100"`, 1), "", 200, "big", ""},
		{"alone", none, "", 200, "cheap", "acme/degrade money/month"},
		{"the hard limit blocks both", none + `  - {measure: tokens, window: month, amount: "10"}
`, "", 402, "", ""},
		{"the hard limit blocks the dear one only", none + `  - {measure: money, window: day, amount: "0.006"}
`, `,"max_tokens":1000`, 200, "cheap", "acme/degrade money/month"},
		{"sent on", none + `  - {measure: money, window: day, amount: "0", model: cheap, action: {degrade: m}}
`, "", 200, "m", "acme/degrade money/day"},
		{"the caller's own limit", none, "", 402, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := degradeRig(t, c.limits)
			var header []string
			if c.name == "the caller's own limit" {
				header = []string{"Talea-Max-Cost", "0.0000001"}
				c.status = r.chat("OWN", strings.Replace(say("p=32 c=20", ""), `"m"`, `"cheap"`, 1), header...).status
			}
			p := r.chat("OWN", askBig(c.more), header...)
			if p.status != c.status || p.header.Get("X-Degraded-By") != c.by || c.served != "" && p.header.Get("X-Model-Served") != c.served {
				t.Errorf("%d, served %q, by %q: %s", p.status, p.header.Get("X-Model-Served"), p.header.Get("X-Degraded-By"), p.body)
			}
		})
	}
	t.Run("a key that may not", func(t *testing.T) {
		r := degradeRig(t, none)
		r.apply("accounts:\n- {path: acme/degrade/app, models: [big]}\n")
		if p := r.chat("OWN", askBig("")); p.status != 402 || p.code(t) != "insufficient_quota" {
			t.Errorf("%d %s", p.status, p.body)
		}
	})
}

// TestDegradedWithAKey: the limit of a key sends that key alone.
func TestDegradedWithAKey(t *testing.T) {
	r := degradeRig(t, "  - {measure: money, window: month, amount: \"100\"}\n")
	r.apply(fmt.Sprintf("keys:\n- {name: own, account: acme/degrade/app, secret: \"env:OWN\", limits: [{measure: requests, window: day, amount: 1, model: big, action: {degrade: cheap}}]}\n"+
		"- {name: far, account: acme/degrade/app, secret: %q}\n", "env:FAR"))
	for i, want := range []string{"big", "cheap", "cheap"} {
		if p := r.chat("OWN", askBig("")); p.status != 200 || p.header.Get("X-Model-Served") != want {
			t.Errorf("request %d: %d, served %s", i, p.status, p.header.Get("X-Model-Served"))
		}
	}
	if p := r.chat("FAR", askBig("")); p.header.Get("X-Model-Served") != "big" {
		t.Errorf("the other key: %d, served %s", p.status, p.header.Get("X-Model-Served"))
	}
}

// TestDegradedLeavesItsSlot: who is served by the cheaper offering takes none of the dear one's few slots.
func TestDegradedLeavesItsSlot(t *testing.T) {
	var there atomic.Int64
	one, both := make(chan struct{}), make(chan struct{})
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		if there.Add(1) == 1 {
			close(one)
		} else {
			close(both)
		}
		select {
		case <-both: // both are being served at once
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	})
	r := degradeRigOn(t, url, `  - {measure: money, window: month, amount: "0", model: big, action: {degrade: cheap}}
`)
	served := make(chan string, 2)
	for _, key := range []string{"OWN", "GOOD"} { // the degraded one first: it waits for a slot of what it asked for like others
		go func() {
			p := r.chat(key, askBig(`,"max_tokens":10`))
			served <- fmt.Sprint(key, " ", p.status, " ", p.header.Get("X-Model-Served"))
		}()
		<-one
	}
	got := []string{<-served, <-served}
	slices.Sort(got)
	if want := []string{"GOOD 200 big", "OWN 200 cheap"}; !slices.Equal(got, want) {
		t.Errorf("served %q, want %q", got, want)
	}
}
