package histories

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"talea/internal/account"
	"talea/internal/period"
	"talea/internal/sim"
	"talea/internal/usage"
	"talea/test/oracle"
)

// Femto-units of a token in the price book below.
const (
	priceInput  = 1_000_000_000
	priceCached = 100_000_000
	priceOutput = 4_000_000_000
)

// account is who asks.
type accountKey struct{ path, secret string }

var accounts = []accountKey{
	{"acme/research/chat", "chat-key-0123456789abcdef"},
	{"acme/research/batch", "batch-key-0123456789abcdef"},
	{"acme/sales", "sales-key-0123456789abcdef"},
	{"beta/app", "beta-key-0123456789abcdef"},
}

var secretsOf = func() map[string]string {
	m := map[string]string{}
	for i, a := range accounts {
		m[fmt.Sprintf("env:K%d", i)] = a.secret
	}
	return m
}()

// limitKey is one limit of the world, and between which amounts it moves. Money is in 1/10,000 EUR.
type limitKey struct {
	name, path, measure, window string
	low, high                   int64
}

var limitKeys = []limitKey{
	{"acme money a month", "acme", "money", "month", 200, 700},
	{"research tokens a day", "acme/research", "tokens", "day", 4_000, 30_000},
	{"chat requests an hour", "acme/research/chat", "requests", "hour", 10, 60},
	{"sales output a day", "acme/sales", "output_tokens", "day", 1_000, 10_000},
	{"beta money a day", "beta", "money", "day", 100, 400},
}

// resources is the world: two organisations with a price book each, one that charges for faults what was delivered.
func (h *history) resources() string {
	var b strings.Builder
	b.WriteString("engines:\n")
	for i, e := range h.engines {
		fmt.Fprintf(&b, "- {name: e%d, kind: vllm, url: \"http://%s\"}\n", i, e.port.at)
	}
	b.WriteString("models:\n- {name: m, served_as: m, engines: [e0, e1], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 512, default_max_output_tokens: 128}\nprice_books:\n")
	for _, book := range []string{"{name: acme, on_disconnect: generated, on_platform_fault: nothing", "{name: beta, on_disconnect: delivered, on_platform_fault: delivered"} {
		b.WriteString("- " + book + ", currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, prices: [" +
			"{model: m, meter: input, price: \"1.00\"}, {model: m, meter: input_cache_read, price: \"0.10\"}, {model: m, meter: output, price: \"4.00\"}]}\n")
	}
	b.WriteString("accounts:\n")
	for _, path := range []string{"acme", "acme/research", "acme/research/batch", "acme/research/chat", "acme/sales", "beta", "beta/app"} {
		fmt.Fprintf(&b, "- path: %s\n", path)
		if !strings.Contains(path, "/") {
			fmt.Fprintf(&b, "  currency: EUR\n  timezone: Europe/Berlin\n  price_book: %s\n", path)
		}
		for _, l := range limitKeys {
			if l.path == path {
				fmt.Fprintf(&b, "  limits: [{measure: %s, window: %s, amount: \"%s\"}]\n", l.measure, l.window, l.text(h.limits[l.name]))
			}
		}
	}
	b.WriteString("keys:\n")
	for i, a := range accounts {
		fmt.Fprintf(&b, "- {name: k%d, account: %s, secret: \"env:K%d\"}\n", i, a.path, i)
	}
	return b.String()
}

func (l *limitKey) text(amount int64) string {
	if l.measure == "money" {
		return fmt.Sprintf("%d.%04d", amount/10_000, amount%10_000)
	}
	return fmt.Sprint(amount)
}

// Faults of an engine that its books show, and those that a request may ask for.
var (
	engineFaults  = []string{"500", "429", "cut", "reset", "error"}
	requestFaults = []string{"cut", "reset", "stall", "hang", "204", "html", "error", "nodone", "overrun", "nousage", "nullusage", "zero", "twice", "falls", "badsse"}
)

// invent makes up a request.
func (h *history) invent() *request {
	rng := h.rng
	who := accounts[rng.IntN(len(accounts))]
	r := &request{n: len(h.requests) + 1, path: who.path, key: who.secret, route: "/v1/chat/completions"}
	text := strings.Repeat("say it ", 4+rng.IntN(40))
	input := 1 + rng.IntN(len(text))
	marker := fmt.Sprintf("p=%d c=%d cached=%d delay=%s", input, rng.IntN(140), rng.IntN(input), time.Duration(rng.Int64N(int64(30*time.Millisecond))))
	if rng.IntN(8) == 0 {
		r.fault = requestFaults[rng.IntN(len(requestFaults))]
		marker += " fault=" + r.fault
	}
	if rng.IntN(12) == 0 {
		r.route = "/v1/embeddings"
		r.body = fmt.Sprintf(`{"model":"m","input":"[[%s]] %s"}`, marker, text)
		return r
	}
	if rng.IntN(3) == 0 {
		r.retries = fmt.Sprintf("key-%d", r.n)
	}
	more := ""
	if rng.IntN(4) > 0 {
		r.stream = true
		more += `,"stream":true,"stream_options":{"include_usage":true}`
	}
	if rng.IntN(2) == 0 {
		more += fmt.Sprintf(`,"max_tokens":%d`, 1+rng.IntN(160))
	}
	if rng.IntN(6) == 0 {
		more += fmt.Sprintf(`,"n":%d`, 2+rng.IntN(3))
	}
	switch rng.IntN(8) {
	case 0:
		r.hangUp = 1 + rng.IntN(60)
	case 1:
		r.leave = time.Duration(rng.Int64N(int64(2 * time.Second)))
	}
	r.body = fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"[[%s]] %s"}]%s}`, marker, text, more)
	return r
}

// again is the same request once more, under the same idempotency key.
func (r *request) again(n int) *request {
	return &request{n: n, path: r.path, key: r.key, route: r.route, retries: r.retries, body: r.body, stream: r.stream, fault: r.fault}
}

// String says what was asked, in a script.
func (r *request) String() string {
	return fmt.Sprintf("#%d of %s %s", r.n, r.path, r.body[:min(len(r.body), 110)])
}

// outcome is what the client was told, for the distribution.
func (r *request) outcome() string {
	switch {
	case r.whole:
		return "told: the whole answer"
	case r.left.Load():
		return "told: it left"
	case r.status == 0:
		return "told: nothing"
	case r.code == "":
		return "told: half an answer"
	}
	return "told: " + r.code
}

// books are what engines and clients know, and what the limits were. Nothing in them comes from the ledger.
type books struct {
	h    *history
	most map[string]int64 // the largest amount of each limit

	mu    sync.Mutex // guards lying
	lying map[string]bool
}

func newBooks(h *history) *books {
	return &books{h: h, most: map[string]int64{}, lying: map[string]bool{}}
}

// engine is told of every request that an engine has had. It notes those that were asked to fail or lie.
func (b *books) engine(a sim.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bytes.Contains(a.Body, []byte("fault=")) {
		b.lying[a.Header.Get("X-Request-Id")] = true
	}
}

func (b *books) limits(now map[string]int64) {
	for name, amount := range now {
		b.most[name] = max(b.most[name], amount)
	}
}

// made merges the engines' books. An attempt that failed before its client was told anything is none where another one
// took over, though the engine may have generated: nobody pays for that.
func (b *books) made() map[string][]sim.Work {
	made := map[string][]sim.Work{}
	for _, e := range b.h.engines {
		for id, works := range e.Book() {
			made[id] = append(made[id], works...)
		}
	}
	for id, works := range made {
		if done := slices.DeleteFunc(slices.Clone(works), func(w sim.Work) bool { return w.Outcome == sim.Faulted }); len(done) > 0 {
			made[id] = done
		}
	}
	return made
}

// call is what a client saw, for the judge. Who was told 503 because the ledger failed has been told that it is not known
// whether the request is charged. What was told of an answer whose engine lies is not compared.
func (r *request) call() oracle.Call {
	c := oracle.Call{ID: r.id, Account: r.path, Status: r.status, Done: r.whole, HungUp: r.left.Load(), Visible: r.seen, Told: r.told, Cost: r.cost}
	if r.code == "ledger_unavailable" {
		c.ID = ""
	}
	if r.fault != "" {
		c.Done = false
	}
	return c
}

// judge compares what the ledger says with the books.
func (b *books) judge(p *process, busy bool) *oracle.Verdict {
	h := b.h
	snap := p.world.Current()
	var chains [][]account.ID
	for _, a := range accounts {
		chains = append(chains, snap.Account(account.Path(a.path)).IDs)
	}
	said, err := oracle.ReadLedger(p.ledger, &store{disk: h.disk}, chains)
	if err != nil {
		h.t.Fatal(err)
	}
	c := &oracle.Case{Made: b.made(), Prices: oracle.Prices{Input: "1.00", Cached: "0.10", Output: "4.00"}, Ledger: said, Most: map[string]string{}, Busy: busy}
	for _, r := range h.requests {
		if r.ended.Load() {
			c.Calls = append(c.Calls, r.call())
		}
	}
	for _, l := range said.Limits {
		for _, k := range limitKeys {
			if k.path == l.Account && k.measure == l.Measure && k.window == l.Window {
				c.Most[l.Name()] = k.text(b.most[k.name])
			}
		}
	}
	return oracle.Judge(c)
}

// close lets the judge see everything, and looks at what it knows nothing of: keys under which a client tries again.
func (b *books) close() {
	h := b.h
	p := h.start()
	defer p.stop(0)
	v := b.judge(p, false)
	for _, f := range v.Findings {
		id, _, _ := strings.Cut(f, ":")
		if lie := b.lying[id] && (strings.Contains(f, "completed") || strings.Contains(f, "tokens and left")); !lie {
			h.t.Error(f)
			for _, r := range h.requests {
				if r.id == id {
					h.t.Errorf("%s: its client: status %d, code %q, whole %t, saw %d events, told %+v; it asked %s", id, r.status, r.code, r.whole, r.seen, r.told, r)
				}
			}
		}
	}
	h.counts["compared to the token"] = v.Exact
	b.keys(p)
	b.budgets()
}

// keys: under one idempotency key one request is charged, and one answer that was charged is whole.
func (b *books) keys(p *process) {
	h := b.h
	posted, whole, charged := map[string]usage.ID{}, map[string]bool{}, map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(h.disk.about)) {
		rec, _, err := p.ledger.Record(id)
		if err != nil {
			h.t.Fatal(err)
		}
		h.did("settled: " + rec.Outcome.String() + ", " + rec.Status.String())
		if rec.Idempotency == "" || rec.Status != usage.Posted {
			continue
		}
		if other := posted[rec.Idempotency]; other != 0 {
			h.t.Errorf("I3: %s and %s are charged under one idempotency key", other, id)
		}
		posted[rec.Idempotency] = id
		charged[id.String()] = true
	}
	for _, r := range h.requests {
		if r.whole && r.retries != "" && charged[r.id] { // an answer that told no usage may have cost nothing, and its key is free
			if whole[r.retries] {
				h.t.Errorf("I3: two whole answers came under the idempotency key %s", r.retries)
			}
			whole[r.retries] = true
		}
	}
}

// budgets compares what clients were told with the limits: together they were not told more than a limit ever allowed.
// Requests that may lie in either of two periods do not count.
func (b *books) budgets() {
	zone, err := period.Zone("Europe/Berlin")
	if err != nil {
		b.h.t.Fatal(err)
	}
	for _, l := range limitKeys {
		window, err := period.Parse(l.window)
		if err != nil {
			b.h.t.Fatal(err)
		}
		sums := map[string]int64{}
		newest := time.Time{}
		for _, r := range b.h.requests {
			if r.sent.After(newest) {
				newest = r.sent
			}
			if !r.whole || r.fault != "" || r.path != l.path && !strings.HasPrefix(r.path, l.path+"/") {
				continue
			}
			p := period.Of(window, zone, r.sent)
			if p == period.Of(window, zone, r.answered) && p == period.Of(window, zone, newest) {
				sums[p.Label] += l.spent(r.told)
			}
		}
		most := b.most[l.name]
		if l.measure == "money" {
			most *= 100_000_000_000
		}
		for label, sum := range sums {
			if sum > most {
				b.h.t.Errorf("I1: %s: clients were told of %d in %s, and the limit was never above %d", l.name, sum, label, most)
			}
		}
	}
}

// spent is what a client knows that its request has used of a limit.
func (l *limitKey) spent(t sim.Tokens) int64 {
	switch l.measure {
	case "money":
		return (t.Input-t.Cached)*priceInput + t.Cached*priceCached + t.Output*priceOutput
	case "tokens":
		return t.Input + t.Output
	case "output_tokens":
		return t.Output
	}
	return 1
}
