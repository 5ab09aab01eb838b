package ledger_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// The tree of most tests: acme / research / chat, and acme / sales beside it.
const (
	acme     account.ID = 1
	research account.ID = 2
	chat     account.ID = 3
	sales    account.ID = 4
)

var (
	chatChain  = []account.ID{acme, research, chat}
	salesChain = []account.ID{acme, sales}
	paths      = map[account.ID]account.Path{acme: "acme", research: "acme/research", chat: "acme/research/chat", sales: "acme/sales"}
)

// noon is when most tests begin: in the middle of an hour, a day and a month of Berlin.
var noon = time.Date(2026, 11, 24, 11, 30, 0, 0, time.UTC)

// clock is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time)         { c.mu.Lock(); c.at = at; c.mu.Unlock() }
func (c *clock) advance(by time.Duration) { c.set(c.Now().Add(by)) }

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

func eur(s string) money.Amount {
	a, err := money.ParseAmount(s)
	if err != nil {
		panic(err)
	}
	return a
}

func units(n int64) money.Amount { return money.Units(n) }

// newPrices is a price row: 1 EUR a million input tokens, a tenth of it from the cache, 2 EUR a million output tokens.
func newPrices() *price.Row {
	row := &price.Row{ID: "public@0123456789abcdef/small", Multiplier: 1_000_000}
	for m, text := range map[usage.Meter]string{
		usage.InputUncached: "1", usage.InputCacheRead: "0.1", usage.InputCacheWrite: "1", usage.OutputContent: "2", usage.OutputReasoning: "2",
	} {
		rate, err := money.ParseRate(text, 1_000_000)
		if err != nil {
			panic(err)
		}
		row.Rates[m], row.Has[m] = rate, true
	}
	return row
}

func newSubject(chain []account.ID, model, class string) *usage.Subject {
	project := chain[len(chain)-1]
	return &usage.Subject{
		Organisation: chain[0], Account: project, AccountPath: paths[project], BillingAccount: "acme", Key: "key_0123456789",
		Labels: []usage.Label{{Name: "cost_centre", Value: "4711"}}, Seller: "cloud", Currency: "EUR",
		Book: "public", BookVersion: "0123456789abcdef", ModelAsked: model, Model: model, SizeClass: class,
	}
}

func limitOn(node account.ID, m quota.Measure, w period.Window, most money.Amount) quota.Limit {
	return quota.Limit{Org: acme, Account: node, Path: paths[node], Measure: m, Window: w, Zone: "Europe/Berlin", Amount: most}
}

func counts(in, out int64) (c usage.Counts) {
	c.Set(usage.InputUncached, in)
	c.Set(usage.OutputContent, out)
	return c
}

// ended is what is known of an answer, however it ended.
func ended(o usage.Outcome, in, out int64) *usage.Result {
	return &usage.Result{
		Engine: "gpu-1", EngineKind: "vllm", Counts: counts(in, out), Source: usage.EngineFinal, Delivered: out,
		FirstMicros: 31_000, TotalMicros: 410_000, Finish: "stop", Outcome: o,
		Attempts: []usage.Attempt{{Engine: "gpu-1", Status: 200, Micros: 409_000}},
	}
}

func completed(in, out int64) *usage.Result { return ended(usage.Completed, in, out) }

// rig is a ledger on a real file.
type rig struct {
	t      testing.TB
	dir    string
	clock  *clock
	opt    ledger.Options
	wrap   func(ledger.Store) ledger.Store // nil: as it is
	store  *sqlite.Store
	l      *ledger.Ledger
	minter *ledger.Minter
	prices *price.Row
	chat   *usage.Subject // of chatChain
	sales  *usage.Subject // of salesChain
	onFail usage.Tariff   // what the price book says of platform faults
	onGone usage.Tariff   // and of clients that leave
}

func newRig(t testing.TB, limits ...quota.Limit) *rig {
	t.Helper()
	r := unopened(t)
	r.open()
	r.publish(limits...)
	return r
}

// unopened is a rig before its store is opened.
func unopened(t testing.TB) *rig {
	return &rig{
		t: t, dir: t.TempDir(), clock: &clock{at: noon}, minter: ledger.NewMinter(1), prices: newPrices(),
		chat: newSubject(chatChain, "small", "small"), sales: newSubject(salesChain, "small", "small"), onGone: usage.ChargeGenerated,
	}
}

func (r *rig) open() {
	r.t.Helper()
	if err := r.tryOpen(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryOpen() error {
	r.t.Helper()
	store, err := sqlite.Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { store.Close() })
	r.store = store
	if r.opt.Clock == nil {
		r.opt.Clock = r.clock
	}
	var face ledger.Store = store
	if r.wrap != nil {
		face = r.wrap(store)
	}
	l, err := ledger.Open(face, r.opt)
	if err != nil {
		store.Close()
		return err
	}
	r.t.Cleanup(func() { l.Close() })
	r.l = l
	return nil
}

func (r *rig) publish(limits ...quota.Limit) {
	r.t.Helper()
	if err := r.l.Publish(context.Background(), ledger.Publication{Limits: limits}); err != nil {
		r.t.Fatal(err)
	}
}

// ask is a request of the project chat.
func (r *rig) ask(in, out int64) *ledger.Ask {
	return r.askAs(r.chat, chatChain, in, out)
}

func (r *rig) askAs(s *usage.Subject, chain []account.ID, in, out int64) *ledger.Ask {
	r.t.Helper()
	bounds := usage.Bounds{Input: in, Output: out}
	most, err := rating.Ceiling(bounds, s.Work, r.prices, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &ledger.Ask{
		Admission: usage.Admission{ID: r.minter.Mint(r.clock.Now()), Subject: s, Endpoint: "chat", Stream: true, Bounds: bounds, OnFault: r.onFail, OnDisconnect: r.onGone},
		Org:       chain[0], Chain: chain, Row: r.prices, Money: most,
	}
}

func (r *rig) hold(in, out int64) *ledger.Hold {
	r.t.Helper()
	h, err := r.l.Hold(context.Background(), r.ask(in, out))
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// refused expects a hold to be refused, and returns why.
func (r *rig) refused(ask *ledger.Ask, verdict quota.Verdict, node account.ID) *ledger.Short {
	r.t.Helper()
	h, err := r.l.Hold(context.Background(), ask)
	var short *ledger.Short
	if !errors.As(err, &short) {
		r.t.Fatalf("hold %v, error %v; want a refusal", h, err)
	}
	if short.Verdict != verdict || short.Limit.Account != node {
		r.t.Fatalf("refused with verdict %d at account %d (%v); want verdict %d at account %d", short.Verdict, short.Limit.Account, short, verdict, node)
	}
	return short
}

func (r *rig) settle(h *ledger.Hold, result *usage.Result) *usage.Record {
	r.t.Helper()
	record, err := r.l.Settle(h, result)
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// spend holds and settles a request that uses all it may.
func (r *rig) spend(in, out int64) {
	r.t.Helper()
	r.settle(r.hold(in, out), completed(in, out))
}

// stands expects used and held of the n-th limit of an account, in the words of its measure.
func (r *rig) stands(node account.ID, n int, used, held string) {
	r.t.Helper()
	s := r.l.Standings(acme, []account.ID{node})[n]
	m := s.Limit.Measure
	if gotUsed, gotHeld := m.Format(s.Used), m.Format(s.Held); gotUsed != used || gotHeld != held {
		r.t.Errorf("limit %d of %s: %s used and %s held; want %s and %s", n, s.Limit.Path, gotUsed, gotHeld, used, held)
	}
}

func (r *rig) check() *ledger.CheckReport {
	r.t.Helper()
	return checked(r.t, r.store)
}

func checked(t testing.TB, store ledger.Reader) *ledger.CheckReport {
	t.Helper()
	report, err := ledger.Check(store)
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Fatalf("check: %s", report)
	}
	return report
}

// restart closes the ledger and opens it again.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.l.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// crash abandons the ledger where it stands and goes on with a copy of its files, as the next process would find them.
func (r *rig) crash() {
	r.t.Helper()
	old := r.l
	r.t.Cleanup(func() { old.Close() })
	r.dir = copyFiles(r.t, r.dir)
	r.open()
}

// copyFiles copies the ledger's file and its log into a directory of their own.
func copyFiles(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{sqlite.FileName, sqlite.FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}
