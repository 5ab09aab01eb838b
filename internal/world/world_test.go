package world_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/resource"
	"talea/internal/world"
)

// memory is a store in memory. It keeps the promises of world.Store, and fails when it is told to.
type memory struct {
	mu      sync.Mutex // guards all
	objects map[ledger.ObjectRef]ledger.Object
	limits  []quota.Limit
	batches int
	fail    error
}

func (m *memory) Objects() ([]ledger.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []ledger.Object
	for _, o := range m.objects {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b ledger.Object) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return list, m.fail
}

func (m *memory) Publish(ctx context.Context, p ledger.Publication) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(ctx.Err(), m.fail); err != nil {
		return err
	}
	for _, o := range p.Objects {
		m.objects[ledger.ObjectRef{Kind: o.Kind, Name: o.Name}] = o
	}
	m.limits = p.Limits
	m.batches++
	return nil
}

// dump is everything in the store, for comparing and for looking for what must not be there.
func (m *memory) dump() string {
	list, _ := m.Objects()
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s %s %d %s %s\n", o.Kind, o.Name, o.ID, o.ManagedBy, o.Body)
	}
	for _, l := range m.limits {
		fmt.Fprintf(&b, "limit %s %s %s\n", l.Identity(), l.Path, l.Measure.Format(l.Amount))
	}
	return b.String()
}

// clock is a clock that stands.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// setup is a world with its store.
type setup struct {
	*world.World
	t      testing.TB
	store  *memory
	hasher *identity.Hasher
	clock  *clock
}

func open(t testing.TB) *setup {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	s := &setup{t: t, store: &memory{objects: map[ledger.ObjectRef]ledger.Object{}}, clock: &clock{time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}}
	s.hasher = identity.NewHasher([32]byte{7}, random)
	s.reopen()
	return s
}

// reopen reads the world from its store, as after a restart.
func (s *setup) reopen() {
	s.t.Helper()
	w, err := world.Open(s.store, s.hasher, s.clock)
	if err != nil {
		s.t.Fatal(err)
	}
	s.World = w
}

// secrets are what the test files refer to.
var secrets = map[string]string{
	"file:keys/engine": "engine-canary", "file:keys/good": "good-0123456789-canary", "file:keys/budget20": "budget-0123456789-canary",
	"env:EXHAUSTED_KEY": "exhausted-0123456789-canary", "file:keys/limited": "limited-0123456789-canary",
	"file:keys/other": "other-0123456789-canary", "file:keys/twin": "good-0123456789-canary", "file:keys/empty": "", "file:keys/short": "short-canary-15",
	"file:keys/blank": "blank 0123456789 canary", "file:keys/long": strings.Repeat("x", world.MaxSecret+1),
}

func source(text string) world.Source {
	return world.Source{File: "w.yaml", Text: []byte(text), Secrets: secrets}
}

func (s *setup) apply(text string, prune bool) *world.Plan {
	s.t.Helper()
	p, err := s.Apply(s.t.Context(), source(text), prune)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// file is testdata/world.yaml, with some of its text replaced.
func file(t testing.TB, oldnew ...string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(oldnew); i += 2 {
		if strings.Count(text, oldnew[i]) != 1 {
			t.Fatalf("%q is %d times in the file", oldnew[i], strings.Count(text, oldnew[i]))
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

func (s *setup) key(secret string) *world.Key {
	return s.Current().ByHash(s.hasher.Hash([]byte(secret)))
}

func (s *setup) is(what string, got, want any) {
	s.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s is\n%v, want\n%v", what, got, want)
	}
}

// words joins values by blanks.
func words(values ...any) string { return strings.TrimSuffix(fmt.Sprintln(values...), "\n") }

func TestApply(t *testing.T) {
	s := open(t)
	s.is("an empty world", s.Current().Number, 1)
	plan := s.apply(file(t), false)
	s.is("plan", plan, `create  engine      stub
create  model       m
create  price_book  public
create  account     acme
create  account     acme/empty
create  account     acme/empty/app
create  account     acme/research
create  account     acme/research/chat
create  account     acme/slow
create  account     acme/slow/app
create  account     acme/small
create  account     acme/small/app
create  key         budget20
create  key         exhausted
create  key         good
create  key         limited
16 to create, 0 to update, 0 to delete, 0 unchanged
`)
	for range 2 { // as applied, then as read back
		s.checkWorld()
		s.reopen()
	}
	before := s.store.dump()
	s.clock.now = s.clock.now.Add(time.Hour)
	again := s.apply(file(t), true)
	s.is("applying it again", again, "0 to create, 0 to update, 0 to delete, 16 unchanged\n")
	s.is("empty", again.Empty(), true)
	s.is("number", s.Current().Number, 1)
	s.is("store", s.store.dump(), before)
	s.is("batches", s.store.batches, 1)
	if strings.Contains(before+plan.String(), "canary") {
		t.Errorf("a secret is in the store:\n%s", before)
	}
}

func (s *setup) checkWorld() {
	s.t.Helper()
	now := s.Current()
	e := now.Engine("stub")
	s.is("engine", fmt.Sprintf("%+v", *e), "{Name:stub Kind:vllm URL:http://127.0.0.1:9000 Region:eu-de Version: APIKey:engine-canary GPUKind:H100-SXM GPUCount:1 GPUCostPerHour:2.50 GPUCurrency:EUR MaxConcurrent:0 Weight:1}")
	s.is("engines", len(now.Engines()), 1)
	s.is("unknown engine", now.Engine("x") == nil, true)
	s.is("models", words(now.Models()[0].Name, now.Models()[0].SizeClass, len(now.Models())), "m small 1")
	s.is("books", now.Account("acme").Books[0].Name, "public")

	k := s.key("good-0123456789-canary")
	s.is("key", words(k.Name, k.Public, k.Revoked, k.Created), "good key_good false 2026-11-24 12:00:00 +0000 UTC")
	s.is("unknown key", s.key("x") == nil, true)
	a := k.Account
	s.is("account", a == now.Account("acme/research/chat") && a == now.AccountByID(a.ID), true)
	s.is("chain", words(a.Chain[0].Path, a.Chain[1].Path, a.Chain[2] == a, a.Parent == a.Chain[1], len(a.IDs), a.IDs[2] == a.ID), "acme acme/research true true 3 true")
	s.is("inherited", words(a.Currency, a.Zone, a.Books[0].Name, a.BillingAccount, a.Project, a.Parent.Project), "EUR Europe/Berlin public acme true false")
	l := now.Account("acme/small").Limits[0]
	s.is("limit", words(l.Org == a.IDs[0], l.Path, l.Measure, l.Window, l.Zone, l.Measure.Format(l.Amount)), "true acme/small tokens month Europe/Berlin 20640")
	s.is("limits published", len(s.store.limits), 3)
	slow := s.key("limited-0123456789-canary").Account
	s.is("rate", words(slow.Rated, slow.Requests, slow.Parent.Requests, slow.Parent.Parent.Rated), "true {0 0} {60 3} false")
	s.is("salt", a.Salt == now.Account("acme").Salt && len(a.Salt) == 32, true)
	var keys, paths []string
	for _, k := range now.Keys() {
		keys = append(keys, k.Name)
	}
	for _, a := range now.Accounts() {
		paths = append(paths, string(a.Path))
	}
	s.is("keys", keys, "[budget20 exhausted good limited]")
	s.is("accounts", slices.IsSorted(paths) && len(paths) == 9, true)

	o, err := k.Offer("m")
	if err != nil {
		s.t.Fatal(err)
	}
	want := fmt.Sprintf("{Organisation:%d Account:%d AccountPath:acme/research/chat BillingAccount:acme Key:key_good Labels:[] Seller: Contract: Currency:EUR Book:public BookVersion:%s ModelAsked:m Model:m ModelRevision: Quantisation: Tokenizer: SizeClass:small Work:{Fixed:5992537314 Input:32477250 Output:6025014564 Context:0}}",
		a.IDs[0], a.ID, now.Account("acme").Books[0].Version)
	s.is("subject", fmt.Sprintf("%+v", *o.Subject), want)
	s.is("offer", words(o.Model.ServedAs, o.Engines[0] == e, o.Book == now.Account("acme").Books[0], o.Account == a), "served/m true true true")
}

// TestInheritance: what is said nearest counts; lists of what is allowed only narrow.
func TestInheritance(t *testing.T) {
	s := open(t)
	s.apply(file(t,
		"price_book: public}", "price_book: public, seller: Cloud One, contract: C-1, labels: {cost_centre: '1', owner: a}, regions: [eu-de, eu-fr, us]}",
		"- path: acme/research\n", "- path: acme/research\n  labels: {owner: b, project: x}\n  billing_account: B-9\n  regions: [eu-fr, eu-de]\n  isolation: true\n  suspended: true\n  show_amounts: true\n",
		"{path: acme/research/chat}", "{path: acme/research/chat, contract: C-2, regions: [us, eu-de]}",
	), false)
	a := s.Current().Account("acme/research/chat")
	s.is("labels", a.Labels, "[{cost_centre 1} {owner b} {project x}]")
	s.is("texts", words(a.BillingAccount, a.Seller, a.Contract), "B-9 Cloud One C-2")
	s.is("regions", a.Regions, "[eu-de]")
	s.is("suspended, amounts", words(a.Suspended, a.ShowAmounts, a.Parent.ShowAmounts, a.Parent.Parent.Suspended), "true false true false")
	s.is("salts", words(a.Salt == a.Parent.Salt, a.Salt == a.Chain[0].Salt, s.Current().Account("acme/slow").Salt == a.Chain[0].Salt), "true false true")
}

// TestChains: siblings at every depth have chains of their own.
func TestChains(t *testing.T) {
	s := open(t)
	var text strings.Builder
	text.WriteString("accounts:\n")
	path := "a"
	for range 10 {
		for _, name := range []string{"x", "y", "z"} {
			fmt.Fprintf(&text, "- {path: %s/%s}\n", path, name)
		}
		path += "/y"
	}
	s.apply(text.String()+"- {path: a, currency: EUR}\n", false)
	for _, a := range s.Current().Accounts() {
		want := a
		for i := len(a.Chain) - 1; i >= 0; i-- {
			if a.Chain[i] != want || a.IDs[i] != want.ID {
				t.Fatalf("link %d of %s is %s, want %s", i, a.Path, a.Chain[i].Path, want.Path)
			}
			want = want.Parent
		}
		if want != nil || len(a.IDs) != len(a.Chain) {
			t.Fatalf("the chain of %s does not begin with its organisation", a.Path)
		}
	}
	s.is("accounts", len(s.Current().Accounts()), 31)
}

func TestRates(t *testing.T) {
	for _, c := range []struct{ rate, want string }{
		{"requests_per_minute: 60", "{60 6} {0 0}"},
		{"requests_per_minute: 5", "{5 1} {0 0}"},
		{"requests_per_minute: 60, burst: 60", "{60 60} {0 0}"},
		{"tokens_per_minute: 9000", "{0 0} {9000 9000}"},
		{"tokens_per_minute: 9000, token_burst: 10, requests_per_minute: 1", "{1 1} {9000 10}"},
	} {
		s := open(t)
		s.apply(file(t, "requests_per_minute: 60, burst: 3", c.rate), false)
		a := s.Current().Account("acme/slow")
		s.is(c.rate, words(a.Requests, a.TokenRate), c.want)
	}
}

func TestPlanChangesNothing(t *testing.T) {
	s := open(t)
	p, err := s.Plan(source(file(t)), true)
	if err != nil || len(p.Changes) != 16 || p.Empty() {
		t.Fatal(p, err)
	}
	s.is("store", s.store.dump(), "")
	s.is("keys", len(s.Current().Keys()), 0)
	s.is("number", s.Current().Number, 1)
	s.apply(file(t), false)
	s.is("number of the first account: a plan uses up none", s.Current().Account("acme").ID, 1)
}

func TestUpdateAndPrune(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	var swaps []string
	s.OnSwap(func(old, now *world.Snapshot) {
		swaps = append(swaps, words(old.Number, now.Number, now == s.Current()))
	})
	changed := file(t,
		"url: http://127.0.0.1:9000/", "url: http://127.0.0.2:9000",
		`price: "4.00"`, `price: "5.00"`,
		`amount: "20640"`, `amount: 1e6`,
		`- {path: acme/empty/app}`, ``,
		`- {name: exhausted, account: acme/empty/app,     secret: "env:EXHAUSTED_KEY"}`, ``,
		`secret: "file:keys/limited"`, `secret: "file:keys/other"`)
	p, err := s.Plan(source(changed), false)
	if err != nil {
		t.Fatal(err)
	}
	s.is("plan", p, `update  engine      stub  (url: "http://127.0.0.1:9000" → "http://127.0.0.2:9000")
update  price_book  public  (another version)
update  account     acme/small  (limits)
update  key         limited  (another secret)
0 to create, 4 to update, 0 to delete, 10 unchanged
`)
	p = s.apply(changed, true)
	s.is("pruned", strings.Contains(p.String(), "delete  account     acme/empty/app\n") && strings.Contains(p.String(), "delete  key         exhausted\n"), true)
	s.is("deleted", s.Current().Account("acme/empty/app") == nil && s.key("exhausted-0123456789-canary") == nil, true)
	s.is("rotated", s.key("limited-0123456789-canary") == nil && s.key("other-0123456789-canary") != nil, true)
	s.is("swaps", swaps, "[2 3 true]")
	s.reopen()
	s.is("deleted for good", s.Current().Account("acme/empty/app") == nil && len(s.Current().Keys()) == 3, true)
	s.is("amount", s.Current().Account("acme/small").Limits[0].Measure.Format(s.Current().Account("acme/small").Limits[0].Amount), "1000000")
}

// TestLimitIdentity: another amount is the same limit, so that what was used of it stays used.
func TestLimitIdentity(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	before := s.Current().Account("acme/small").Limits[0]
	s.apply(file(t, `amount: "20640"`, `amount: "7"`), false)
	after := s.Current().Account("acme/small").Limits[0]
	s.is("identity", after.Identity(), before.Identity())
	s.is("changed", after.Amount == before.Amount, false)
}

// TestFixed: what an organisation's balances are counted in does not change under them.
func TestFixed(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	for _, c := range []struct {
		want string
		edit []string
	}{
		{"the time zone of an organisation cannot change from Europe/Berlin to Europe/Paris",
			[]string{"{path: acme, currency: EUR, timezone: Europe/Berlin", "{path: acme, currency: EUR, timezone: Europe/Paris"}},
		{"the currency of an organisation cannot change from EUR to USD", []string{"currency: EUR\n  timezone", "currency: USD\n  timezone", "{path: acme, currency: EUR", "{path: acme, currency: USD"}},
	} {
		before := s.Current()
		_, err := s.Apply(t.Context(), source(file(t, c.edit...)), false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
		if s.Current() != before {
			t.Error("something has changed")
		}
	}
}

// TestNumbers: a number is never given again, whatever was deleted in between.
func TestNumbers(t *testing.T) {
	s := open(t)
	without := file(t, `- {path: acme/small/app}`, ``, `- {name: budget20,  account: acme/small/app,     secret: "file:keys/budget20"}`, ``)
	given := map[account.ID]string{}
	for round := range 4 {
		s.apply(file(t), true)
		id := s.Current().Account("acme/small/app").ID
		if was, ok := given[id]; ok {
			t.Fatalf("round %d: number %d was given before, %s", round, id, was)
		}
		for _, a := range s.Current().Accounts() {
			given[a.ID] = fmt.Sprintf("to %s in round %d", a.Path, round)
		}
		s.apply(without, true)
		if round%2 == 1 {
			s.reopen()
		}
	}
	s.is("numbers given", len(given), 9+3)
}

func TestOwners(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	byAPI := source("accounts:\n- {path: acme/api}\n- {path: acme/api/app}\n")
	byAPI.ManagedBy = "api"
	if _, err := s.Apply(t.Context(), byAPI, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CreateKey(t.Context(), "acme/api/app", "ci"); err != nil {
		t.Fatal(err)
	}
	s.is("a file's pruning", s.apply(file(t), true), "0 to create, 0 to update, 0 to delete, 16 unchanged\n")
	for _, c := range []struct{ owner, text, want string }{
		{"file", "accounts:\n- {path: acme/api, suspended: true}\n", `w.yaml:2:3: account "acme/api": it is managed by api and cannot be changed by file`},
		{"api", "accounts:\n- {path: acme/small, suspended: true}\n", `w.yaml:2:3: account "acme/small": it is managed by file and cannot be changed by api`},
		{"file", "keys:\n- {name: ci, account: acme/api/app, secret: 'file:keys/other'}\n", `w.yaml:2:3: key "ci": it is managed by api and cannot be changed by file`},
	} {
		src := source(c.text)
		src.ManagedBy = c.owner
		_, err := s.Apply(t.Context(), src, false)
		s.is(c.text, err, c.want)
	}
	s.is("what is as it was has no quarrel", s.apply("accounts:\n- {path: acme/api}\n", false).Empty(), true)
	_, err := s.Apply(t.Context(), world.Source{File: "api", Text: []byte("accounts: []\n"), ManagedBy: "api"}, true)
	s.is("the API's pruning", words(err, len(s.Current().Accounts()), len(s.Current().Keys())), "<nil> 9 4")
}

// TestPruneKeepsWhole: what others still refer to is not deleted.
func TestPruneKeepsWhole(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	if _, _, err := s.CreateKey(t.Context(), "acme/small/app", "ci"); err != nil {
		t.Fatal(err)
	}
	before := s.store.dump()
	_, err := s.Apply(t.Context(), source("accounts:\n- {path: acme, currency: EUR}\n"), true)
	s.is("error", err, `w.yaml:1:1: key "ci" (not in this file): it refers to account "acme/small/app", which this change deletes`)
	s.is("store", s.store.dump(), before)
}

func TestFailedPublish(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	before, old := s.store.dump(), s.Current()
	s.OnSwap(func(_, _ *world.Snapshot) { t.Error("a change that failed was shown") })
	s.store.fail = errors.New("disk full")
	_, err := s.Apply(t.Context(), source(file(t, `amount: "20640"`, `amount: "1"`)), true)
	s.is("error", err, "cannot publish the change, so nothing has changed: disk full")
	_, _, err = s.CreateKey(t.Context(), "acme/small/app", "ci")
	s.is("error", err, "cannot publish the change, so nothing has changed: disk full")
	s.is("error", s.RevokeKey(t.Context(), "good"), "cannot publish the change, so nothing has changed: disk full")
	s.is("snapshot", s.Current() == old, true)
	s.is("store", s.store.dump(), before)
	s.store.fail = nil
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Apply(gone, source(file(t, `amount: "20640"`, `amount: "1"`)), true)
	s.is("error", errors.Is(err, context.Canceled), true)
	s.is("snapshot", s.Current() == old, true)
	p, err := s.Plan(source(file(t, `amount: "20640"`, `amount: "1"`)), true)
	s.is("it can be tried again", words(len(p.Changes), p.Empty(), err), "16 false <nil>")
}

func TestOpenFails(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	spoil := func(change func(*memory)) error {
		copied := &memory{objects: map[ledger.ObjectRef]ledger.Object{}}
		for ref, o := range s.store.objects {
			copied.objects[ref] = o
		}
		change(copied)
		_, err := world.Open(copied, s.hasher, s.clock)
		return err
	}
	set := func(kind, name, body string) func(*memory) {
		return func(m *memory) {
			m.objects[ledger.ObjectRef{Kind: kind, Name: name}] = ledger.Object{Kind: kind, Name: name, ID: 99, ManagedBy: "file", Body: []byte(body)}
		}
	}
	for _, c := range []struct {
		change func(*memory)
		want   string
	}{
		{func(*memory) {}, "<nil>"},
		{func(m *memory) { m.fail = errors.New("no disk") }, "cannot open the world: no disk"},
		{set("account", "acme", `{"currency":"EUR","colour":"red"}`), `cannot open the world: cannot read stored account "acme": json: unknown field "colour"`},
		{set("robot", "r", `{}`), `cannot open the world: robot "r" is of a kind that this version does not know`},
		{set("key", "k", `{"account":"acme","public":"key_k","hash":"00"}`), `cannot open the world: cannot read stored key "k": not a hash of 32 bytes`},
		{set("price_book", "public", `{"versions":["ff"]}`), `cannot open the world: price_book "public": its version ff is not stored`},
		{set("account", "lost/one", `{}`), `cannot open the world: account "lost/one": unknown account "lost"; known are acme, acme/empty, `},
	} {
		if err := fmt.Sprint(spoil(c.change)); !strings.HasPrefix(err, c.want) {
			t.Errorf("got  %s\nwant %s", err, c.want)
		}
	}
	_, err := world.Open(s.store, identity.NewHasher([32]byte{8}, rand.NewChaCha8([32]byte{})), s.clock)
	s.is("another pepper", err, `cannot open the world: engine "stub": cannot open the API key of engine "stub": it was sealed under another pepper, or somebody changed it`)
}

func TestReferences(t *testing.T) {
	refs, err := world.References(source(file(t, "kind: vllm", "kidn: vllm")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range refs {
		got = append(got, words(r.Ref, r.Pos))
	}
	want := "file:keys/engine w.yaml:6:12,file:keys/good w.yaml:44:58,file:keys/budget20 w.yaml:45:58,env:EXHAUSTED_KEY w.yaml:46:58,file:keys/limited w.yaml:47:58"
	if strings.Join(got, ",") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ","), want)
	}
	if _, err := world.References(source("engines: [\n")); !errors.As(err, new(resource.Errors)) {
		t.Error(err)
	}
}
