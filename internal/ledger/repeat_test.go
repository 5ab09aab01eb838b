package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// keyed is a request of the project chat under an idempotency key.
func (r *rig) keyed(key, body string) *ledger.Ask {
	ask := r.ask(10, 10)
	ask.Idempotency, ask.BodyHash = key, body
	return ask
}

// repeats expects a request to be refused for its key.
func (r *rig) repeats(ask *ledger.Ask) *ledger.Repeat {
	r.t.Helper()
	h, err := r.l.Hold(context.Background(), ask)
	var repeat *ledger.Repeat
	if !errors.As(err, &repeat) {
		r.t.Fatalf("hold %v, error %v; want a refusal for the key", h, err)
	}
	return repeat
}

func (r *rig) grant(ask *ledger.Ask) *ledger.Hold {
	r.t.Helper()
	h, err := r.l.Hold(context.Background(), ask)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// F071, F072: a key is taken while its request runs and for the retention after it was charged, over restarts and
// crashes; another body is told apart all that time.
func TestIdempotencyKeyIsTaken(t *testing.T) {
	for _, again := range []string{"same process", "restart", "crash", "rebuilt"} {
		t.Run(again, func(t *testing.T) {
			r := newRig(t)
			h := r.grant(r.keyed("k", "body"))
			if repeat := r.repeats(r.keyed("k", "body")); repeat.Record != nil || repeat.Of != h.ID || repeat.Differs {
				t.Errorf("while it runs: %+v", repeat)
			}
			if repeat := r.repeats(r.keyed("k", "other")); !repeat.Differs {
				t.Errorf("while it runs, with another body: %+v", repeat)
			}
			r.settle(h, completed(10, 5))
			r.clock.advance(24*time.Hour - time.Microsecond)
			r.spend(1, 1) // the newest time is in the log
			switch again {
			case "restart":
				r.restart()
			case "crash":
				r.crash()
			case "rebuilt":
				if err := r.l.Close(); err != nil {
					t.Fatal(err)
				}
				r.rebuild()
				r.open()
			}
			repeat := r.repeats(r.keyed("k", "body"))
			if repeat.Differs || repeat.Of != h.ID || repeat.Record == nil || repeat.Record.Charge != h.Charge || repeat.Record.Counts.Output() != 5 {
				t.Errorf("after it was charged: %+v", repeat)
			}
			if repeat := r.repeats(r.keyed("k", "other")); !repeat.Differs {
				t.Errorf("after it was charged, with another body: %+v", repeat)
			}
			r.clock.advance(time.Microsecond)
			next := r.grant(r.keyed("k", "other"))
			if next.RetryOf != 0 {
				t.Errorf("after the retention it is a request of its own, not one that follows %s", next.RetryOf)
			}
			r.settle(next, completed(1, 1))
			r.check()
		})
	}
}

// rebuild makes the derived tables of a closed ledger anew.
func (r *rig) rebuild() {
	r.t.Helper()
	store, err := sqlite.Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := ledger.Rebuild(store); err != nil {
		r.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// F001, F002, F003: what was not charged leaves its key free, and the next attempt says which one it follows: at once,
// and where only the next start found that nothing was owed.
func TestUnchargedAttemptLeavesItsKey(t *testing.T) {
	r := newRig(t)
	first := r.grant(r.keyed("k", "body"))
	r.settle(first, ended(usage.Unserved, 0, 0))
	second := r.grant(r.keyed("k", "body"))
	if second.RetryOf != first.ID {
		t.Errorf("the second attempt follows %d, not %d", second.RetryOf, first.ID)
	}
	r.crash()
	third := r.grant(r.keyed("k", "corrected"))
	if third.RetryOf != 0 {
		t.Errorf("another body is no further attempt, but follows %d", third.RetryOf)
	}
	r.settle(third, completed(10, 1))
	if repeat := r.repeats(r.keyed("k", "corrected")); repeat.Of != third.ID {
		t.Errorf("%+v", repeat)
	}
	r.check()
}

// TestRefusedHoldLeavesItsKey: a hold that fits nowhere, and one whose caller leaves while it waits, claim nothing.
func TestRefusedHoldLeavesItsKey(t *testing.T) {
	r := unopened(t)
	r.opt.Wait = time.Hour
	r.open()
	r.publish(limitOn(chat, quota.Tokens, period.Month, units(20)))
	big := r.ask(100, 100)
	big.Idempotency = "k"
	if _, err := r.l.Hold(context.Background(), big); !errors.As(err, new(*ledger.Short)) {
		t.Fatal(err)
	}
	h := r.grant(r.keyed("k", "body"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.l.Hold(ctx, r.keyed("waits", "body")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r.settle(h, completed(5, 5))
	r.settle(r.grant(r.shrunk(r.keyed("waits", "body"))), completed(1, 1))
	r.check()
}

func (r *rig) shrunk(ask *ledger.Ask) *ledger.Ask {
	ask.Bounds = usage.Bounds{Input: 4, Output: 4}
	return ask
}

// F070: of requests that come together under one key one runs; the others are told so, however the first one ends and
// whenever they look.
func TestOneRunsOfManyUnderOneKey(t *testing.T) {
	r := newRig(t)
	const clients, keys = 8, 20
	var running, charged [keys]atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for k := range keys {
				ask := r.keyed(fmt.Sprint("key ", k), "body")
				h, err := r.l.Hold(context.Background(), ask)
				if errors.As(err, new(*ledger.Repeat)) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := running[k].Add(1); n != 1 {
					t.Errorf("%d requests run under key %d", n, k)
				}
				result := completed(10, 5)
				if k%2 == 0 {
					result = ended(usage.Unserved, 0, 0)
				} else if n := charged[k].Add(1); n != 1 {
					t.Errorf("%d requests were charged under key %d", n, k)
				}
				running[k].Add(-1)
				if _, err := r.l.Settle(h, result); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	report := r.check()
	if report.Posted != keys/2 {
		t.Errorf("%d requests were charged under %d keys", report.Posted, keys/2)
	}
}

// TestKeysAreBounded: what is kept in memory for keys ends with the requests.
func TestKeysAreBounded(t *testing.T) {
	r := newRig(t)
	for i := range 100 {
		r.settle(r.grant(r.keyed(fmt.Sprint(i), "body")), completed(1, 1))
		r.repeats(r.keyed(fmt.Sprint(i), "body"))
	}
	if n := r.l.Claims(); n != 0 {
		t.Errorf("%d keys are kept in memory", n)
	}
}
