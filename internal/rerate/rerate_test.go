package rerate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the program embeds it; the tests must not depend on the machine's

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
	"talea/internal/world"
)

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

// bookText is a pair of books, a contract over a public one, of every form of price, window, tier and ladder, with random
// prices.
func bookText(r *rand.Rand, head string) string {
	p := func() string { return fmt.Sprintf("\"%d.%02d\"", 1+r.IntN(9), r.IntN(100)) }
	scope := func() string { return []string{"organisation", "contract"}[r.IntN(2)] }
	window := func() string { return []string{"day", "month", "total"}[r.IntN(3)] }
	return `price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  calendars: {free: [2026-11-02, 2026-11-05]}
  windows:
  - {name: night, days: [mon-sun], from: "22:00", to: "06:00", multiplier: "0.` + fmt.Sprint(1+r.IntN(9)) + `"}
  - {name: peak, days: [mon-fri], from: "09:00", to: "12:00", except: free, multiplier: "1.25"}
  load: {steps: ["0.85", "1", "1.25"], up_above: "0.8", down_below: "0.5", interval: 15m}
  service_tiers: {batch: {multiplier: "0.5"}, priority: {multiplier: "1.75"}}
  prices:
  - {model: flat, meter: input, price: ` + p() + `, minimum_charge: "0.00` + fmt.Sprint(1+r.IntN(9)) + `"}
  - {model: flat, meter: input_cache_read, price: ` + p() + `}
  - {model: flat, meter: output, price: ` + p() + `}
  - {model: flat, meter: output, price: ` + p() + `, service_tier: batch}
  - {model: flat, meter: request, price: ` + p() + `, per: 10000}
  - {model: steps, meter: input, form: graduated, scope: ` + scope() + `, window: ` + window() + `, steps: [{up_to: 900, price: ` + p() + `, flat: "0.02"}, {up_to: 4000, price: ` + p() + `, flat: "0.01"}, {price: ` + p() + `}]}
  - {model: steps, meter: output, form: volume, scope: ` + scope() + `, window: ` + window() + `, steps: [{up_to: 2000, price: ` + p() + `}, {price: ` + p() + `}]}
  - {family: packs, meter: input, form: package, package: 700, price: ` + p() + `, scope: ` + scope() + `, window: ` + window() + `}
  - {family: packs, meter: output, price: ` + p() + `}
  - {size_class: large, meter: input, price: ` + p() + `, long_context: [{over: 300, price: ` + p() + `}]}
  - {size_class: large, meter: output, price: ` + p() + `, gpu_kind: H100}
  - {size_class: large, meter: output, price: ` + p() + `, gpu_kind: A100}
  - {model: work, meter: work_ms, price: ` + p() + `, per: 3600}
- name: contract
  currency: EUR
  timezone: UTC
  base: public
  multiplier: "0.9"
  windows:
  - {name: noon, days: [mon-sun], from: "11:00", to: "15:00", multiplier: "1.1"}
  prices:
  - {model: flat, meter: output, price: ` + p() + `}
` + head
}

func booksOf(t testing.TB, text string) []*price.Book {
	t.Helper()
	var books []*price.Book
	for _, name := range []string{"public", "contract"} {
		b, err := ParseDraft("books.yaml", []byte(text), name)
		if err != nil {
			t.Fatal(err)
		}
		books = append(books, b)
	}
	return price.Link(books, func(_ *price.Book, err error) { t.Fatal(err) })
}

// offers are what the traffic is about.
var offers = []price.Query{
	{Model: "flat", SizeClass: "small"}, {Model: "steps", SizeClass: "small"}, {Model: "packs", Family: "packs", SizeClass: "small"},
	{Model: "big", SizeClass: "large", GPUKind: "H100"}, {Model: "big", SizeClass: "large", GPUKind: "A100"}, {Model: "work", SizeClass: "small"},
}

// place is a ledger that traffic is made on.
type place struct {
	t      testing.TB
	store  *sqlite.Store
	ledger *ledger.Ledger
	clock  *clock
	minter *ledger.Minter
	step   map[string]ledger.PriceStep
}

var begun = time.Date(2026, 10, 30, 20, 0, 0, 0, time.UTC)

func newPlace(t testing.TB, books ...[]*price.Book) *place {
	t.Helper()
	store, err := sqlite.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, store: store, clock: &clock{at: begun}, minter: ledger.NewMinter(1), step: map[string]ledger.PriceStep{}}
	if p.ledger, err = ledger.Open(store, ledger.Options{Clock: p.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.ledger.Close() })
	var pub ledger.Publication
	for _, version := range books {
		for _, b := range version {
			pub.Objects = append(pub.Objects, ledger.Object{Kind: "price_version", Name: b.Version, ID: int64(len(pub.Objects) + 1), ManagedBy: "file", Body: b.Canonical()})
		}
	}
	for i, b := range books[0] {
		pub.Objects = append(pub.Objects, ledger.Object{Kind: "price_book", Name: b.Name, ID: int64(i + 1), ManagedBy: "file", Body: fmt.Appendf(nil, `{"versions":[%q]}`, b.Version)})
	}
	pub.Objects = append(pub.Objects, ledger.Object{Kind: "model", Name: "packs", ID: 1, ManagedBy: "file", Body: []byte(`{"family":"packs","context_tokens":9}`)})
	if err := p.ledger.Publish(context.Background(), pub); err != nil {
		t.Fatal(err)
	}
	return p
}

// traffic makes requests that are drawn from the seed alone: under other books they are the same ones. Some are settled long
// after their window has ended, some are void, and a restart leaves some to be resolved.
func (p *place) traffic(seed uint64, n int, books []*price.Book) {
	r := rand.New(rand.NewPCG(seed, 1))
	subjects := map[string]*usage.Subject{}
	type open struct {
		h *ledger.Hold
		q price.Query
	}
	var held []open
	for range n {
		p.clock.set(p.clock.Now().Add(time.Duration(r.IntN(90*60)) * time.Second))
		p.publishStep(r)
		q, book, project := offers[r.IntN(len(offers))], books[r.IntN(2)], 1+r.IntN(3)
		q.Tier = []string{"", "auto", "batch", "priority"}[r.IntN(4)]
		bounds := usage.Bounds{Input: 1 + r.Int64N(600), Output: 1 + r.Int64N(600)}
		s := subjectOf(subjects, project, q, book)
		if h := p.hold(s, q, book, bounds); h != nil {
			held = append(held, open{h, q})
		}
		for len(held) > 0 && r.IntN(3) > 0 {
			i := r.IntN(len(held))
			p.settle(r, held[i].h, held[i].q)
			held = append(held[:i], held[i+1:]...)
		}
	}
	for _, o := range held {
		p.settle(r, o.h, o.q)
	}
}

func subjectOf(known map[string]*usage.Subject, project int, q price.Query, book *price.Book) *usage.Subject {
	key := fmt.Sprint(project, q.Model, book.Name)
	if known[key] == nil {
		org := account.ID(10 * (1 + project/3))
		known[key] = &usage.Subject{
			Organisation: org, Account: org + account.ID(project), AccountPath: account.Path(fmt.Sprintf("org%d/p%d", org, project)), Key: "key_0123456789",
			Contract: fmt.Sprint("c", project), Currency: "EUR", Book: book.Name, BookVersion: book.Version, ModelAsked: q.Model, Model: q.Model, SizeClass: q.SizeClass,
			Work: usage.Work{Fixed: 1_000_000_000, Input: 1_000_000, Output: 2_000_000},
		}
	}
	return known[key]
}

// publishStep announces a step of the public book's price now and then.
func (p *place) publishStep(r *rand.Rand) {
	draw, ppm := r.IntN(4), []int64{850_000, 1_000_000, 1_250_000}[r.IntN(3)]
	if now := p.clock.Now(); draw == 0 && now.After(p.step["public"].Until) {
		s := ledger.PriceStep{Book: "public", From: now.Add(time.Minute), Until: now.Add(3 * time.Hour), PPM: ppm}
		if err := p.ledger.PublishStep(&s); err != nil {
			p.t.Fatal(err)
		}
		p.step["public"] = s
	}
}

func (p *place) hold(s *usage.Subject, q price.Query, book *price.Book, bounds usage.Bounds) *ledger.Hold {
	p.t.Helper()
	now, tier := p.clock.Now(), q.Tier
	q.Tier, q.Organisation = quota.Tier(tier), string(s.AccountPath.Organisation())
	step, load := p.step[book.Name], []int64(nil)
	if under := now.Before(step.Until) && !now.Before(step.From); under {
		load = []int64{step.PPM}
	} else {
		step.Number = 0
	}
	row, err := book.Row(q, now, load...)
	if err != nil {
		p.t.Fatal(err)
	}
	if step.Number > 0 {
		row.AtStep(step.Number)
	}
	position := p.ledger.Position(s, &row)
	most, err := rating.Ceiling(bounds, s.Work, &row, position)
	if err != nil {
		p.t.Fatal(err)
	}
	h, err := p.ledger.Hold(context.Background(), &ledger.Ask{
		Admission: usage.Admission{ID: p.minter.Mint(now), Subject: s, Endpoint: "chat", Bounds: bounds, TierAsked: tier, OnDisconnect: usage.ChargeGenerated},
		Org:       s.Organisation, Chain: []account.ID{s.Organisation, s.Account}, Row: &row, Money: most, Position: position,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

func (p *place) settle(r *rand.Rand, h *ledger.Hold, q price.Query) {
	p.t.Helper()
	var c usage.Counts
	cached := r.Int64N(h.Bounds.Input)
	c.Set(usage.InputUncached, h.Bounds.Input-cached)
	c.Set(usage.InputCacheRead, cached)
	c.Set(usage.OutputContent, r.Int64N(h.Bounds.Output+1))
	outcome := []usage.Outcome{usage.Completed, usage.Completed, usage.ClientGone, usage.Broken}[r.IntN(4)]
	_, err := p.ledger.Settle(h, &usage.Result{Engine: "e", GPUKind: q.GPUKind, Counts: c, Delivered: c.Output(), Source: usage.EngineFinal, Outcome: outcome})
	if err != nil {
		p.t.Fatal(err)
	}
}

// rated rates the place's requests again.
func (p *place) rated(c Call) *Report {
	p.t.Helper()
	report, err := p.tried(c)
	if err != nil {
		p.t.Fatal(err)
	}
	return report
}

func (p *place) tried(c Call) (*Report, error) {
	p.t.Helper()
	objects, err := p.store.Objects()
	if err != nil {
		p.t.Fatal(err)
	}
	archive, err := world.ReadArchive(objects)
	if err != nil {
		p.t.Fatal(err)
	}
	past, err := ledger.ReadPast(p.store)
	if err != nil {
		p.t.Fatal(err)
	}
	if c.To.IsZero() {
		c.To = p.clock.Now().Add(time.Second)
	}
	return Run(context.Background(), past, archive, &c)
}

// Under the very prices that requests were rated with, every line is what was stored: with every form of price, window,
// service tier, step and contract, over periods that have ended.
func TestTheSameBookChangesNothing(t *testing.T) {
	for seed := range uint64(4) {
		books := booksOf(t, bookText(rand.New(rand.NewPCG(seed, 2)), ""))
		p := newPlace(t, books)
		p.traffic(seed, 250, books)
		got := p.rated(Call{})
		if got.Difference != "" || got.Requests < 100 {
			t.Fatalf("seed %d: %d requests: %s", seed, got.Requests, got.Difference)
		}
		for _, s := range got.Accounts {
			if !s.Difference.IsZero() || s.Charged.IsZero() {
				t.Errorf("seed %d: %+v", seed, s)
			}
		}
	}
}

// Under other prices, requests cost what they would have been charged: the same traffic is made once more, under them. The
// parts of a range add up to the whole.
func TestAnotherBookChargesWhatItWouldHave(t *testing.T) {
	for seed := range uint64(3) {
		books := booksOf(t, bookText(rand.New(rand.NewPCG(seed, 3)), ""))
		others := booksOf(t, bookText(rand.New(rand.NewPCG(seed, 4)), ""))
		oneBook(t, seed, books, others)
		p := newPlace(t, books, others)
		p.traffic(seed, 150, books)
		got := p.rated(Call{Draft: others[0], Replace: true}) // and the contract over it
		whole := map[account.Path]money.Amount{}
		for _, s := range got.Accounts {
			whole[s.Account] = s.Rated
		}
		sums := map[account.Path]money.Amount{}
		middle := begun.Add(time.Duration(40+10*seed) * time.Hour)
		for _, part := range []Call{{To: middle}, {From: middle}} {
			part.Draft, part.Replace = others[0], true
			for _, s := range p.rated(part).Accounts {
				sums[s.Account] = sums[s.Account].Add(s.Rated)
			}
		}
		if len(whole) < 3 || fmt.Sprint(sums) != fmt.Sprint(whole) {
			t.Errorf("seed %d: in parts %v, as a whole %v", seed, sums, whole)
		}
	}
}

// oneBook makes traffic under one book only, so that all of it can be rated under the other one.
func oneBook(t *testing.T, seed uint64, books, others []*price.Book) {
	for i := range books {
		published := []*price.Book{others[0], books[1]} // a version that is named lies over the base that is published
		p, q := newPlace(t, published, others, books), newPlace(t, others)
		p.traffic(seed, 150, []*price.Book{books[i], books[i]})
		q.traffic(seed, 150, []*price.Book{others[i], others[i]})
		draft := others[i]
		got, want := p.rated(Call{Book: draft.Name + "@" + draft.Version}), q.rated(Call{})
		if want.Difference != "" || len(want.Accounts) != len(got.Accounts) {
			t.Fatalf("seed %d: %q, %d accounts and %d", seed, want.Difference, len(want.Accounts), len(got.Accounts))
		}
		differs := false
		for j, s := range want.Accounts {
			g := got.Accounts[j]
			if g.Rated != s.Charged || g.Account != s.Account || g.Requests != s.Requests {
				t.Errorf("seed %d, %s: rated again %+v, charged %+v", seed, draft.Name, g, s)
			}
			differs = differs || g.Rated != g.Charged
		}
		if !differs {
			t.Errorf("seed %d: the other book changes nothing", seed)
		}
	}
}

// A price that is missing is never 0.
func TestNoPriceIsAnError(t *testing.T) {
	books := booksOf(t, bookText(rand.New(rand.NewPCG(1, 5)), ""))
	p := newPlace(t, books)
	p.traffic(1, 30, books)
	less, err := ParseDraft("less.yaml", []byte("price_books:\n- {name: less, currency: EUR, service_tiers: {batch: {}, priority: {}}, prices: [{model: flat, meter: input, price: 1}, {model: flat, meter: output, price: 1}]}\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	if report, err := p.tried(Call{Draft: less}); err == nil {
		t.Errorf("rated %d requests under a book that has one model", report.Requests)
	}
	report := p.rated(Call{Draft: less, Replace: true})
	if report.Unpriced == 0 || report.Unpriced == report.Requests {
		t.Errorf("%d of %d requests have no price", report.Unpriced, report.Requests)
	}
}
