package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/usage"
)

// gate is an engine that answers nothing before it is let go on, one request at a time, and says what it is working on.
type gate struct {
	came chan string // the request's own word
	goOn chan struct{}
	over chan struct{} // closed at the end of the test
}

func newGate(t *testing.T) (*gate, string) {
	g := &gate{make(chan string, 64), make(chan struct{}), make(chan struct{})}
	return g, serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, word, _ := strings.Cut(string(body), "word-")
		word, _, _ = strings.Cut(word, `"`)
		g.came <- word
		select {
		case <-g.goOn:
		case <-g.over:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":32,"completion_tokens":20,"total_tokens":52}}`)
	})
}

// next is what the engine works on next.
func (g *gate) next(t *testing.T) string {
	t.Helper()
	select {
	case word := <-g.came:
		return word
	case <-time.After(time.Minute):
		t.Fatal("nothing more reaches the engine")
		return ""
	}
}

// queued is a gateway whose model has so many slots, with a tier "batch" at half the price.
type queued struct {
	*rig
	gate    *gate
	replies chan reply
	asked   sync.WaitGroup
}

func newQueued(t *testing.T, slots int, l gateway.Limits) *queued {
	gate, url := newGate(t)
	q := &queued{rig: newRig(t, setup{engines: []string{url}, limits: l}), gate: gate, replies: make(chan reply, 64)}
	q.apply(fmt.Sprintf(`models:
- {name: m, served_as: m, engines: [e0], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000, max_concurrent: %d}
price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-01-01T00:00:00+01:00}
  service_tiers: {batch: {multiplier: "0.5"}}
  prices: [{model: m, meter: input, price: "1.00"}, {model: m, meter: output, price: "4.00"}]
`, slots))
	t.Cleanup(func() {
		close(gate.over)
		q.asked.Wait()
	})
	return q
}

// ask sends a request that carries a word, and returns at once.
func (q *queued) ask(word, tier string) {
	q.asked.Go(func() {
		q.replies <- q.chat("GOOD", fmt.Sprintf(`{"model":"m","service_tier":%q,"messages":[{"role":"user","content":"word-%s"}]}`, tier, word))
	})
}

// waiting waits until so many wait for a slot.
func (q *queued) waiting(n int) {
	q.t.Helper()
	for end := time.Now().Add(time.Minute); q.gw.Waiting("m") != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			q.t.Fatalf("%d wait, want %d", q.gw.Waiting("m"), n)
		}
	}
}

// TestBatchAndInteractive: F082: however much batch work fills the engines and the queue, a request at list price finds a
// slot that is kept for it, and passes all that wait in front of it; batch work waits and is not lost, at its own price. I12.
func TestBatchAndInteractive(t *testing.T) {
	q := newQueued(t, 3, gateway.Limits{})
	for n := range 8 {
		q.ask(fmt.Sprint("batch", n), "batch")
	}
	q.waiting(6)
	for range 2 {
		if word := q.gate.next(t); !strings.HasPrefix(word, "batch") {
			t.Fatalf("%q runs", word)
		}
	}
	q.ask("first", "standard")
	if word := q.gate.next(t); word != "first" {
		t.Fatalf("%q runs in the slot that is kept for list price", word)
	}
	q.ask("second", "default")
	q.waiting(7)
	q.gate.goOn <- struct{}{} // whichever ends: who pays list price is next
	if word := q.gate.next(t); word != "second" {
		t.Fatalf("%q runs before a request at list price that waits", word)
	}
	for range 9 {
		q.gate.goOn <- struct{}{}
	}
	charges := map[string]int{}
	for range 10 {
		p := <-q.replies
		if p.status != http.StatusOK {
			t.Fatalf("status %d: %s", p.status, p.body)
		}
		r := q.record(p)
		charges[r.TierServed+" "+r.Charge.String()]++
		if r.Status != usage.Posted {
			t.Errorf("record %+v", r)
		}
	}
	if charges["batch 0.000056"] != 8 || charges["standard 0.000112"] != 2 {
		t.Errorf("charged %v", charges)
	}
	if q.gw.Waiting("m") != 0 {
		t.Error("somebody is left in the line")
	}
}

// TestNoSlotInTime: who has waited for long enough is told so, and so is who finds too many in front; nothing was held.
// Somebody who leaves the line takes no slot with him.
func TestNoSlotInTime(t *testing.T) {
	q := newQueued(t, 1, gateway.Limits{Queue: time.Millisecond})
	q.ask("runs", "standard")
	q.gate.next(t)
	p := q.chat("GOOD", `{"model":"m","messages":[{"role":"user","content":"word-late"}]}`)
	if p.status != http.StatusServiceUnavailable || p.code(t) != "overloaded" || p.header.Get("Retry-After") == "" || q.ledger.OpenHolds() != 1 {
		t.Errorf("status %d, code %s, %d holds: %s", p.status, p.code(t), q.ledger.OpenHolds(), p.body)
	}
	q.gate.goOn <- struct{}{}
	<-q.replies
	q.ask("again", "standard")
	q.gate.next(t)
	q.gate.goOn <- struct{}{}
	if p := <-q.replies; p.status != http.StatusOK {
		t.Errorf("the slot was not given back: status %d", p.status)
	}
}

// TestKeyRevokedInLine: who waits is looked at anew when the slot comes.
func TestKeyRevokedInLine(t *testing.T) {
	q := newQueued(t, 1, gateway.Limits{})
	q.ask("runs", "standard")
	q.gate.next(t)
	q.ask("waits", "standard")
	q.waiting(1)
	q.apply("keys:\n- {name: good, account: acme/research/chat, secret: \"env:GOOD\", revoked: true}\n")
	for range 2 {
		if p := <-q.replies; p.status != http.StatusUnauthorized {
			t.Errorf("status %d: %s", p.status, p.body)
		}
	}
	q.settled()
	if n, _, _ := q.totals(); n != 0 || q.gw.Waiting("m") != 0 {
		t.Errorf("%d requests are charged, %d wait", n, q.gw.Waiting("m"))
	}
}

// TestUnknownTier: a tier that the prices do not have is refused.
func TestUnknownTier(t *testing.T) {
	q := newQueued(t, 1, gateway.Limits{})
	for _, tier := range []string{"priority", "Batch", "flex"} {
		p := q.chat("GOOD", fmt.Sprintf(`{"model":"m","service_tier":%q,"messages":[{"role":"user","content":"a"}]}`, tier))
		if p.status != http.StatusBadRequest || !strings.Contains(p.body, `"param":"service_tier"`) {
			t.Errorf("tier %q: status %d: %s", tier, p.status, p.body)
		}
	}
}

// TestFlexWaitsForLoad: a request at a lower price waits while the load is not below the model's threshold, with nothing
// held; a request at list price does not; batch work is behind what costs as little. What is served is in the answer, and billed.
func TestFlexWaitsForLoad(t *testing.T) {
	q := newQueued(t, 4, gateway.Limits{})
	q.apply(`models:
- {name: m, served_as: m, engines: [e0], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000, max_concurrent: 4, flex_below: "0.5"}
price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-01-01T00:00:00+01:00}
  service_tiers: {batch: {multiplier: "0.5"}, flex: {multiplier: "0.5"}}
  prices: [{model: m, meter: input, price: "1.00"}, {model: m, meter: output, price: "4.00"}]
`)
	for _, word := range []string{"one", "two"} {
		q.ask(word, "standard")
		q.gate.next(t)
	}
	q.ask("batch", "batch")
	q.waiting(1)
	q.ask("flex", "flex")
	q.waiting(2)
	if n := q.ledger.OpenHolds(); n != 2 {
		t.Fatalf("%d holds are open: who waits for load holds nothing", n)
	}
	q.ask("three", "standard")
	if word := q.gate.next(t); word != "three" {
		t.Fatalf("%q runs at a load of one half", word)
	}
	end := func() {
		t.Helper()
		q.gate.goOn <- struct{}{}
		if p := <-q.replies; p.status != http.StatusOK { // its slot was given back before its answer ended
			t.Fatalf("status %d: %s", p.status, p.body)
		}
	}
	end()
	if n := q.gw.Waiting("m"); n != 2 {
		t.Fatalf("%d wait at a load of one half, want 2", n)
	}
	for _, want := range []string{"flex", "batch"} {
		end()
		if word := q.gate.next(t); word != want {
			t.Fatalf("%q runs, want %s", word, want)
		}
	}
	for range 2 {
		q.gate.goOn <- struct{}{}
	}
	tiers := map[string]bool{}
	for range 2 {
		p := <-q.replies
		r := q.record(p)
		tiers[r.TierServed] = r.Charge.String() == "0.000056" && p.header.Get("X-Service-Tier") == r.TierServed
	}
	if !tiers["flex"] || !tiers["batch"] {
		t.Errorf("served and charged: %v", tiers)
	}
}

// TestFlexInTime: a request that waits for load is told so in the end; nothing was held.
func TestFlexInTime(t *testing.T) {
	q := newQueued(t, 2, gateway.Limits{Queue: time.Millisecond})
	q.ask("runs", "standard")
	q.gate.next(t)
	p := q.chat("GOOD", `{"model":"m","service_tier":"batch","messages":[{"role":"user","content":"word-late"}]}`)
	if p.status != http.StatusServiceUnavailable || p.code(t) != "overloaded" || p.header.Get("Retry-After") == "" || q.ledger.OpenHolds() != 1 {
		t.Errorf("status %d, code %s, %d holds: %s", p.status, p.code(t), q.ledger.OpenHolds(), p.body)
	}
	q.gate.goOn <- struct{}{}
	<-q.replies
}
