package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/ledger"
	"talea/internal/refusal"
	"talea/internal/sim"
)

// brokenStore fails every commit once it is told to: a disk that is gone.
type brokenStore struct {
	ledger.Store
	broken atomic.Bool
}

func (b *brokenStore) Append(shard, epoch int64, batch *ledger.Batch) error {
	if b.broken.Load() {
		return errors.New("input/output error")
	}
	return b.Store.Append(shard, epoch, batch)
}

// notReached are refusals of the table that no request of this package's routes can meet yet.
var notReached = map[refusal.Code]string{
	refusal.None:           "not a refusal",
	refusal.ModelForbidden: "the same answer as model_not_found, on purpose",
	refusal.ModelChanged:   "TestModelChanged",
	refusal.ClockUntrusted: "a start is refused, not a request",
	refusal.Internal:       "TestPanic",
	refusal.RequestTimeout: "TestSlowBody",

	refusal.ModelQuarantined:      "TestQuarantine",
	refusal.IdempotencyInProgress: "TestConcurrentIdempotencyKey",
	refusal.IdempotencyCompleted:  "TestIdempotencyKey",
	refusal.IdempotencyMismatch:   "TestIdempotencyKey",
}

// TestEveryRefusal reaches every row of refusal.Table by a request, and looks at what the client sees.
// F088: a model without a price is refused. I10.
func TestEveryRefusal(t *testing.T) {
	reached := map[refusal.Code]bool{}
	for _, c := range []struct {
		code refusal.Code
		ask  func(t *testing.T) reply
	}{
		{refusal.NotFound, plain("GET", "/v1/chat/completions/", "GOOD", "")},
		{refusal.MethodNotAllowed, plain("GET", "/v1/chat/completions", "GOOD", "")},
		{refusal.UnsupportedEncoding, plain("POST", "/v1/chat/completions", "GOOD", say("c=1", ""), "Content-Encoding", "gzip")},
		{refusal.TooLarge, plain("POST", "/v1/chat/completions", "GOOD", say(strings.Repeat("x", 16<<20), ""))},
		{refusal.Malformed, plain("POST", "/v1/chat/completions", "GOOD", "{")},
		{refusal.UnknownParameter, plain("POST", "/v1/chat/completions", "GOOD", say("c=1", `,"temprature":1`))},
		{refusal.UnsupportedParameter, plain("POST", "/v1/chat/completions", "GOOD", say("c=1", `,"priority":1`))},
		{refusal.InvalidKey, plain("POST", "/v1/chat/completions", "NONE", say("c=1", ""))},
		{refusal.ModelNotFound, plain("POST", "/v1/chat/completions", "GOOD", `{"model":"x","messages":[{"role":"user","content":"a"}]}`)},
		{refusal.Residency, plain("POST", "/v1/chat/completions", "FAR", say("c=1", ""))},
		{refusal.NoBound, plain("POST", "/v1/chat/completions", "GOOD", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]}]}`)},
		{refusal.MaxCost, plain("POST", "/v1/chat/completions", "GOOD", say("c=1", ""), "Talea-Max-Cost", "0.000001")},
		{refusal.MaxMultiplier, plain("POST", "/v1/chat/completions", "GOOD", say("c=1", ""), "Talea-Max-Multiplier", "0.9")},
		{refusal.BudgetReached, plain("POST", "/v1/chat/completions", "EMPTY", say("c=1", ""))},
		{refusal.ModelNotPriced, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}, prices: "  - {model: m, meter: input, price: \"1.00\"}\n"})
			return r.chat("GOOD", say("c=1", ""))
		}},
		{refusal.RateRequests, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
			var p reply
			for range 4 {
				p = r.chat("SLOW", say("c=1", ""))
			}
			return p
		}},
		{refusal.RateTokens, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
			r.chat("PACED", say("c=1900", `,"max_tokens":1900`))
			return r.chat("PACED", say("c=1900", `,"max_tokens":1900`))
		}},
		{refusal.BudgetContended, func(t *testing.T) reply { return contended(t) }},
		{refusal.LedgerUnavailable, func(t *testing.T) reply {
			store := &brokenStore{}
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}, wrapStore: func(s ledger.Store) ledger.Store { store.Store = s; return store }})
			store.broken.Store(true)
			p := r.chat("GOOD", say("c=1", ""))
			if ready := r.do("GET", "/readyz", "", ""); ready.status != 503 {
				t.Errorf("readyz says %d after a failed commit", ready.status)
			}
			return p
		}},
		{refusal.Overloaded, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
			r.gw.Drain()
			return r.chat("GOOD", say("c=1", ""))
		}},
		{refusal.EngineUnavailable, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{"http://" + closedPort(t)}})
			return r.chat("GOOD", say("c=1", ""))
		}},
		{refusal.EngineRefused, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{answering(t, 400, `{"error":{"message":"you said: canary","type":"context_length_exceeded","code":400}}`)}})
			p := r.chat("GOOD", say("c=1", ""))
			if !strings.Contains(p.body, "context_length_exceeded") || strings.Contains(p.body, "canary") {
				t.Errorf("an engine's error is passed on as %s", p.body)
			}
			return p
		}},
		{refusal.EngineTimeout, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}, limits: gateway.Limits{Header: 50 * time.Millisecond}})
			return r.chat("GOOD", say("c=20 fault=hang", ""))
		}},
		{refusal.KeyRevoked, func(t *testing.T) reply {
			r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
			if err := r.world.RevokeKey(context.Background(), "good"); err != nil {
				t.Fatal(err)
			}
			return r.chat("GOOD", say("c=1", ""))
		}},
	} {
		row := c.code.Row()
		t.Run(row.Name, func(t *testing.T) {
			p := c.ask(t)
			want := row.Status
			if c.code == refusal.EngineRefused {
				want = 400
			}
			if p.status != want || p.code(t) != row.Code {
				t.Fatalf("status %d code %q, want %d %q: %s", p.status, p.code(t), want, row.Code, p.body)
			}
			if !strings.HasPrefix(p.header.Get("X-Request-Id"), "req_") {
				t.Errorf("no request id: %v", p.header)
			}
			after := p.header.Get("Retry-After")
			if seconds, err := strconv.Atoi(after); row.Retry != (after != "") || row.Retry && (err != nil || seconds < 1 || seconds > 60) {
				t.Errorf("Retry-After %q", after)
			}
			if got := p.header.Get("X-Should-Retry"); (got == "false") != row.NoRetry {
				t.Errorf("X-Should-Retry %q", got)
			}
			reached[c.code] = true
		})
	}
	for code := range refusal.Table {
		if c := refusal.Code(code); !reached[c] && notReached[c] == "" && !t.Failed() {
			t.Errorf("no request reaches %s", c.Row().Name)
		}
	}
}

// plain asks once of an ordinary gateway.
func plain(method, path, key, body string, header ...string) func(*testing.T) reply {
	return func(t *testing.T) reply {
		r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
		return r.do(method, path, key, body, header...)
	}
}

// contended holds a budget with a running request and asks for more than what is left beside it.
func contended(t *testing.T) reply {
	release := make(chan struct{})
	e := sim.NewEngine(sim.EngineOptions{Sleep: func(ctx context.Context, _ time.Duration) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	t.Cleanup(e.Close)
	r := newRig(t, setup{engines: []string{e.URL()}, wait: 20 * time.Millisecond})
	done := make(chan reply)
	go func() { done <- r.chat("SMALL", say("c=5", `,"max_tokens":4000`)) }()
	for r.ledger.OpenHolds() == 0 {
		time.Sleep(time.Millisecond)
	}
	p := r.chat("SMALL", say("c=5", `,"max_tokens":4000`))
	close(release)
	if first := <-done; first.status != 200 {
		t.Errorf("the request that held the budget: %d %s", first.status, first.body)
	}
	if again := r.chat("SMALL", say("c=5", `,"max_tokens":4000`)); again.status != 200 {
		t.Errorf("after the settlement: %d %s", again.status, again.body)
	}
	return p
}

// closedPort is an address on which nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// answering is an engine that says one thing.
func answering(t *testing.T, status int, body string) string {
	return serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	})
}

// TestBudgetBody is what a client sees when its own project's budget, and when one above it, is used up.
func TestBudgetBody(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()},
		accounts: "- path: acme/own\n  limits:\n  - {measure: money, window: month, amount: \"0.001\"}\n",
		keys:     "- {name: own, account: acme/own, secret: \"env:OWN\"}\n"})
	p := r.chat("OWN", say("c=5", `,"max_tokens":1000`))
	if p.status != 402 {
		t.Fatalf("%d %s", p.status, p.body)
	}
	for _, want := range []string{`"scope":"project"`, `"account":"acme/own"`, `"limit":"0.001"`, `"used":"0"`, `"currency":"EUR"`, `"window":"month"`, `"resets_at":"20`, `"max_affordable_tokens":`, "project acme/own has used 0 of 0.001 EUR"} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the body lacks %s: %s", want, p.body)
		}
	}
	// What it says to be affordable is: that many fit, one more does not.
	most := p.body[strings.Index(p.body, `"max_affordable_tokens":`)+len(`"max_affordable_tokens":`):]
	n, err := strconv.Atoi(most[:strings.IndexAny(most, ",}")])
	if err != nil {
		t.Fatal(err)
	}
	if p := r.chat("OWN", say("c=0", fmt.Sprintf(`,"max_tokens":%4d`, n+1))); p.status != 402 {
		t.Errorf("%d tokens are said to be the most that fit, and one more gets %d", n, p.status)
	}
	if p := r.chat("OWN", say("c=0", fmt.Sprintf(`,"max_tokens":%4d`, n))); p.status != 200 {
		t.Errorf("%d tokens are said to fit, and get %d %s", n, p.status, p.body)
	}
	above := r.chat("EMPTY", say("c=5", ""))
	if strings.Contains(above.body, `"limit"`) || strings.Contains(above.body, `"used"`) || !strings.Contains(above.body, `"scope":"department"`) {
		t.Errorf("amounts of a node above the project are shown: %s", above.body)
	}
}

// TestRefusalIsKept: what was refused after authentication can be looked up; it holds nothing of the request.
func TestRefusalIsKept(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	p := r.chat("EMPTY", say("c=5", ""))
	id := r.recordID(p)
	var body []byte
	for range 200 { // it is written with a commit that nobody waits for
		var err error
		if body, err = r.ledger.Refusal(id); err != nil {
			t.Fatal(err)
		}
		if body != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if !strings.Contains(string(body), `"budget_reached"`) || !strings.Contains(string(body), `"acme/empty/app"`) || strings.Contains(string(body), "hello") {
		t.Errorf("kept: %s", body)
	}
}
