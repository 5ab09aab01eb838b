package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/usage"
)

const otherOrg = "- {path: other, currency: EUR, timezone: Europe/Berlin, price_book: public}\n- {path: other/app}\n- {path: acme/research/chat2}\n"
const otherKeys = "- {name: other, account: other/app, secret: \"env:OWN\"}\n- {name: sibling, account: acme/research/chat2, secret: \"env:OTHER\"}\n"

func init() { secrets["env:OTHER"] = "other-key-0123456789abcdef" }

// F007, F071, F072: a key whose request was charged answers with its receipt, whoever of the project asks; another body or
// model is told apart; another project and another organisation are independent.
func TestIdempotencyKey(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, accounts: otherOrg, keys: otherKeys, prices: `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, price: "4.00"}
  - {model: unpriced, meter: input, price: "1.00"}
  - {model: unpriced, meter: output, price: "4.00"}
`})
	for name, more := range map[string]string{"whole": "", "stream": streaming} {
		first := r.chat("GOOD", say("p=32 c=20", more), "Idempotency-Key", name)
		if first.status != 200 {
			t.Fatalf("%d %s", first.status, first.body)
		}
		again := r.chat("GOOD", say("p=32 c=20", more), "Idempotency-Key", name)
		var body struct {
			Error struct {
				Receipt struct {
					RequestID string `json:"request_id"`
					Charge    string
					Usage     map[string]any
				}
			}
		}
		if err := json.Unmarshal([]byte(again.body), &body); err != nil {
			t.Fatal(err)
		}
		if again.status != 409 || again.code(t) != "idempotency_completed" || again.header.Get("X-Should-Retry") != "false" ||
			body.Error.Receipt.RequestID != first.id() || body.Error.Receipt.Charge != r.record(first).Charge.String() {
			t.Errorf("%s again: %d %s", name, again.status, again.body)
		}
		for what, other := range map[string]string{
			"body":  say("p=32 c=21", more),
			"model": strings.Replace(say("p=32 c=20", more), `"model":"m"`, `"model":"unpriced"`, 1),
		} {
			p := r.chat("GOOD", other, "Idempotency-Key", name)
			if p.status != 422 || p.code(t) != "idempotency_mismatch" || p.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%s with another %s: %d %s", name, what, p.status, p.body)
			}
		}
		for _, key := range []string{"OWN", "OTHER"} {
			if p := r.chat(key, say("p=32 c=20", more), "Idempotency-Key", name); p.status != 200 {
				t.Errorf("%s by another account: %d %s", name, p.status, p.body)
			}
		}
	}
	if made := e.Totals().Requests; made != 6 {
		t.Errorf("the engine was asked %d times, not 6", made)
	}
}

// F070: of requests that come together under one key one runs; the others get 409 and may come again.
func TestConcurrentIdempotencyKey(t *testing.T) {
	let := make(chan struct{})
	var asked atomic.Int64
	e := sim.NewEngine(sim.EngineOptions{Sleep: func(ctx context.Context, _ time.Duration) error {
		asked.Add(1)
		select {
		case <-let:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	t.Cleanup(e.Close)
	r := newRig(t, setup{engines: []string{e.URL()}})
	var ok, inProgress atomic.Int64
	var all sync.WaitGroup
	const clients = 8
	for range clients {
		all.Go(func() {
			p := r.chat("GOOD", say("p=32 c=2 delay=1ms", ""), "Idempotency-Key", "k")
			switch {
			case p.status == 200:
				ok.Add(1)
			case p.status == 409 && p.code(t) == "idempotency_in_progress" && p.header.Get("X-Should-Retry") == "":
				if inProgress.Add(1) == clients-1 {
					close(let)
				}
			default:
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
	all.Wait()
	if ok.Load() != 1 || e.Totals().Requests != 1 {
		t.Errorf("%d answers of %d requests at the engine", ok.Load(), e.Totals().Requests)
	}
}

// TestIdempotencyKeyOfNothing: an attempt that was not charged runs again, and says which one it follows.
func TestIdempotencyKeyOfNothing(t *testing.T) {
	var asked atomic.Int64
	url := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`))
	})
	r := newRig(t, setup{engines: []string{url}})
	first := r.chat("GOOD", say("", ""), "Idempotency-Key", "k")
	second := r.chat("GOOD", say("", ""), "Idempotency-Key", "k")
	third := r.chat("GOOD", say("", ""), "Idempotency-Key", "k")
	if first.status != 502 || second.status != 200 || third.status != 409 {
		t.Fatalf("%d, %d, %d %s", first.status, second.status, third.status, third.body)
	}
	if rec := r.record(second); rec.RetryOf != r.recordID(first) {
		t.Errorf("the second attempt follows %s, not %s", rec.RetryOf, first.id())
	}
}

// F073: a client library that gives up and tries again makes attempts of their own, each linked to the one before, counted,
// and charged by the disconnect rule; together within the limit.
func TestClientLibraryTriesAgain(t *testing.T) {
	for name, more := range map[string]string{"stream": `,"max_tokens":400,"stream":true`, "whole": `,"max_tokens":400`} {
		t.Run(name, func(t *testing.T) {
			e := sim.NewEngine(sim.EngineOptions{})
			t.Cleanup(e.Close)
			r := newRig(t, setup{engines: []string{e.URL()}})
			for _, count := range []string{"0", "1", "2"} {
				ctx, cancel := context.WithCancel(t.Context())
				req, _ := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(say("p=32 c=400 delay=10ms", more)))
				req.Header.Set("Authorization", "Bearer "+secrets["env:SMALL"])
				req.Header.Set("X-Stainless-Retry-Count", count)
				go func() { // gives up once the engine works
					for g, _ := e.Running(); g == 0 && ctx.Err() == nil; g, _ = e.Running() {
						time.Sleep(time.Millisecond)
					}
					time.Sleep(50 * time.Millisecond)
					cancel()
				}()
				if resp, err := http.DefaultClient.Do(req); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				r.settled()
				cancel()
			}
			ids, total := r.holds(), int64(0)
			if len(ids) != 3 {
				t.Fatalf("%d attempts, not 3", len(ids))
			}
			for n, id := range ids {
				rec, _, err := r.ledger.Record(id)
				if err != nil {
					t.Fatal(err)
				}
				if rec.SDKRetry != int64(n) || n > 0 && rec.RetryOf != ids[n-1] || n == 0 && rec.RetryOf != 0 {
					t.Errorf("attempt %d: count %d, follows %s", n, rec.SDKRetry, rec.RetryOf)
				}
				if rec.Outcome != usage.ClientGone || rec.OnDisconnect != usage.ChargeGenerated {
					t.Errorf("attempt %d: %s, %s", n, rec.Outcome, rec.OnDisconnect)
				}
				total += rec.Counts.Input() + rec.Counts.Output()
			}
			if total > 5000 {
				t.Errorf("%d tokens of a limit of 5000", total)
			}
		})
	}
}

// holds lists the requests that had a hold, in the order of the log.
func (r *rig) holds() (ids []usage.ID) {
	r.t.Helper()
	err := r.store.Entries(r.org(), 1, func(e ledger.EntryRow) error {
		if e.Kind == ledger.KindHold {
			ids = append(ids, e.Request)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// org is the organisation acme.
func (r *rig) org() account.ID {
	return r.world.Current().ByHash(r.hasher.Hash([]byte(secrets["env:GOOD"]))).Account.IDs[0]
}
