package tape_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/fleet"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/store/sqlite"
	"talea/internal/tape"
	"talea/internal/world"
)

type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) Now() time.Time     { return *c.at.Load() }
func (c *clock) set(at time.Time)   { c.at.Store(&at) }
func (c *clock) to(minutes float64) { c.set(noon.Add(time.Duration(minutes * float64(time.Minute)))) }

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const resources = `engines:
- {name: e, kind: vllm, url: %q, max_concurrent: 10}
- {name: other, kind: vllm, url: "http://127.0.0.1:1", max_concurrent: 10}
models:
- {name: m, engines: [e], context_tokens: 4096}
- {name: unpriced, engines: [other], context_tokens: 4096}
price_books:
- name: public
  currency: EUR
  load: {steps: ["0.85", "1", "1.25", "1.5"], up_above: "0.85", down_below: "0.65", interval: 15m, announce: 1}
  prices:
  - {model: m, meter: input, price: "1.00"}
- name: fixed
  currency: EUR
  prices:
  - {model: m, meter: input, price: "1.00"}
- {name: contract, currency: EUR, base: public, load_cap: "1.1", prices: []}
- {name: firm, currency: EUR, base: public, load: fixed, prices: []}
accounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: public}
`

// rig is a tape over a real ledger, with an engine whose load the test sets.
type rig struct {
	t       *testing.T
	dir     string
	clock   clock
	running atomic.Int64 // -1: the engine does not tell
	asked   atomic.Int64
	url     string
	ledger  *ledger.Ledger
	world   *world.World
	tape    *tape.Tape
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir()}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r.asked.Add(1)
		if n := r.running.Load(); n >= 0 {
			fmt.Fprintf(w, "vllm:num_requests_running %d\nvllm:num_requests_waiting 0\n", n)
		}
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	r.clock.to(0)
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	store, err := sqlite.Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.ledger, err = ledger.Open(store, ledger.Options{Clock: &r.clock}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.ledger.Close() })
	if r.world, err = world.Open(r.ledger, identity.NewHasher([32]byte{1}, rand.Reader), &r.clock); err != nil {
		r.t.Fatal(err)
	}
	src := world.Source{File: "world.yaml", Text: fmt.Appendf(nil, resources, r.url)}
	if _, err := r.world.Apply(context.Background(), src, false); err != nil {
		r.t.Fatal(err)
	}
	w := fleet.New(&r.clock, slog.New(slog.DiscardHandler))
	r.t.Cleanup(w.Close)
	r.tape = tape.New(tape.Options{World: r.world, Ledger: r.ledger, Watch: w, Clock: &r.clock, Log: slog.New(slog.DiscardHandler)})
}

// live goes on to a minute, with a tick each minute and so many requests running.
func (r *rig) live(from, to int, running int64) {
	r.t.Helper()
	r.running.Store(running)
	for m := from; m < to; m++ {
		r.clock.to(float64(m) + 0.2)
		if err := r.tape.Tick(context.Background()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// book finds a price book by its name.
func (r *rig) book(name string) *price.Book {
	r.t.Helper()
	for _, b := range r.world.Current().Books() {
		if b.Name == name {
			return b
		}
	}
	r.t.Fatalf("there is no price book %s", name)
	return nil
}

// at is the multiplier in force at a minute, and the number of its step.
func (r *rig) at(book string, minute float64) string {
	ppm, step := r.tape.At(r.book(book), noon.Add(time.Duration(minute*float64(time.Minute))))
	return fmt.Sprint(ppm, "/", step)
}

// A quarter of an hour's load moves the price one rung, in the quarter after the next, and everybody can see it coming.
func TestTape(t *testing.T) {
	r := newRig(t)
	r.live(0, 15, 9) // load 0.9 in the first quarter
	if got := r.at("public", 14); got != "1000000/0" {
		t.Errorf("nothing was published for the first quarter: %s", got)
	}
	if got := r.at("public", 15); got != "1000000/1" { // decided in the first, of which nobody knew the load before
		t.Errorf("second quarter %s", got)
	}
	r.live(15, 16, 9)
	if got := r.at("public", 30); got != "1250000/2" {
		t.Errorf("third quarter, announced in the second: %s", got)
	}
	if got := r.at("public", 29.999); got != "1000000/1" {
		t.Errorf("before it begins: %s", got)
	}
	if next := r.tape.Announced(r.book("public"), noon.Add(16*time.Minute)); len(next) != 1 || next[0].PPM != 1_250_000 || next[0].Load != 900_000 ||
		len(next[0].Inputs) != 1 || next[0].Inputs[0].Engine != "e" || next[0].Inputs[0].Samples != 15 {
		t.Errorf("announced %+v", next)
	}
	if next := r.tape.Announced(r.book("contract"), noon.Add(16*time.Minute)); len(next) != 1 || next[0].PPM != 1_100_000 {
		t.Errorf("announced to a contract with a cap: %+v", next)
	}
	if got := r.at("contract", 30) + " " + r.at("firm", 30); got != "1100000/2 1000000/0" {
		t.Errorf("contracts over the book, with a cap and with fixed prices: %s", got)
	}
	if got := r.at("fixed", 31); got != "1000000/0" {
		t.Errorf("a book without a ladder: %s", got)
	}
	r.live(16, 30, 7) // 0.7: between the bounds, nothing moves
	r.live(30, 31, 7)
	r.live(31, 45, -1) // the engine tells nothing more than one sample
	r.live(45, 60, -1)
	r.live(60, 61, -1)
	r.live(61, 76, 2)
	for minute, want := range map[float64]string{45: "1250000/3", 60: "1250000/4", 75: "1000000/5", 90: "850000/6", 105: "1000000/0"} {
		if got := r.at("public", minute); got != want {
			t.Errorf("minute %v: %s, want %s", minute, got, want)
		}
	}
}

// What was published stands after a restart; an interval for which nothing was published has the multiplier 1, and the
// ladder begins anew.
func TestTapeAfterRestart(t *testing.T) {
	r := newRig(t)
	r.live(0, 31, 10)
	if got := r.at("public", 45); got != "1500000/3" {
		t.Fatalf("before the restart: %s", got)
	}
	if err := r.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	r.clock.to(46)
	r.open()
	if got := r.at("public", 46) + " " + r.at("public", 60); got != "1500000/3 1000000/0" {
		t.Errorf("after it: %s", got)
	}
	r.live(61, 62, 10)
	if got := r.at("public", 61) + " " + r.at("public", 75); got != "1000000/0 1000000/4" {
		t.Errorf("a gap, and no load known before it: %s", got)
	}
}
