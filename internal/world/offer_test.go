package world_test

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/world"
)

func TestKeys(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	secret, k, err := s.CreateKey(t.Context(), "acme/small/app", "ci")
	if err != nil {
		t.Fatal(err)
	}
	s.is("found", k == s.key(secret) && k.Name == "ci" && !k.Revoked && k.Account.Path == "acme/small/app", true)
	s.is("public id", strings.HasPrefix(k.Public, "key_") && strings.Contains(secret, k.Public[4:]), true)
	if dump := s.store.dump(); strings.Contains(dump, secret) || strings.Contains(dump, secret[20:40]) {
		t.Error("the secret of a new key is in the store")
	}
	for _, c := range []struct{ path, name, want string }{
		{"acme/small/app", "ci", `cannot create key "ci": there is one of that name`},
		{"acme/small/app", "good", `cannot create key "good": there is one of that name`},
		{"acme/small/app", "", `cannot create a key: name "" is not of letters, digits and . _ : / @ + -, beginning with a letter or digit, at most 128`},
		{"acme/small/app", "key_ci", `cannot create a key: name "key_ci" begins with key_, as public ids do`},
		{"acme/small/ap", "x", `cannot create a key: key "x": unknown account "acme/small/ap"; did you mean "acme/small/app"?`},
	} {
		_, _, err := s.CreateKey(t.Context(), account.Path(c.path), c.name)
		s.is(c.name, err, c.want)
	}
	s.is("revoking nothing", s.RevokeKey(t.Context(), "godo"), `cannot revoke a key: unknown key "godo"; did you mean "good"?`)
	for _, name := range []string{k.Public, "good", "good"} {
		if err := s.RevokeKey(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	s.is("revoked twice is one change", s.store.batches, 4)
	for range 2 {
		s.is("revoked", words(s.key(secret).Revoked, s.key("good-0123456789-canary").Revoked, s.key("budget-0123456789-canary").Revoked), "true true false")
		s.reopen()
	}
}

// TestRevokedStays: the file that a key came from does not bring it back, a new secret does.
func TestRevokedStays(t *testing.T) {
	s := open(t)
	s.apply(file(t), false)
	if err := s.RevokeKey(t.Context(), "good"); err != nil {
		t.Fatal(err)
	}
	s.is("the same file", s.apply(file(t), true), "0 to create, 0 to update, 0 to delete, 16 unchanged\n")
	s.is("revoked", s.key("good-0123456789-canary").Revoked, true)
	moved := file(t, "account: acme/research/chat", "account: acme/research")
	s.is("moved", s.apply(moved, true).Changes[14].Detail, `account: "acme/research/chat" → "acme/research"`)
	s.is("revoked", s.key("good-0123456789-canary").Revoked, true)
	s.clock.now = s.clock.now.Add(time.Hour)
	s.is("another secret", s.apply(file(t, "file:keys/good", "file:keys/other"), true).Changes[14].Detail, `account: "acme/research" → "acme/research/chat", another secret, revoked: true → none`)
	k := s.key("other-0123456789-canary")
	s.is("new", words(k.Revoked, k.Public, k.Created), "false key_good 2026-11-24 13:00:00 +0000 UTC")
	s.apply(file(t, `secret: "file:keys/good"`, `secret: "file:keys/other", revoked: true`), true)
	s.is("revoked by the file", s.key("other-0123456789-canary").Revoked, true)
}

// TestOffers: which models a key may use, and on which engines.
func TestOffers(t *testing.T) {
	s := open(t)
	s.apply(file(t,
		"\nmodels:", "\n- {name: us, kind: openai, url: 'https://us.example', region: us}\n- {name: nowhere, kind: ollama, url: 'http://o'}\nmodels:",
		"\nprice_books:", `
- {name: both, engines: [us, stub], context_tokens: 100, size_class: own}
- {name: abroad, engines: [us, nowhere], context_tokens: 100, size_class: own}
- {name: unpriced, engines: [stub], context_tokens: 100}
price_books:`,
		"\naccounts:", "\n  - {size_class: own, meter: input, price: 1}\n  - {size_class: own, meter: output, price: 1}\naccounts:",
		"{path: acme/research/chat}", "{path: acme/research/chat, regions: [eu-de, eu-fr]}",
		"{path: acme/small/app}", "{path: acme/small/app, models: [both, unpriced]}",
		"- path: acme/empty\n", "- path: acme/empty\n  models: [m, both]\n",
		"{path: acme/empty/app}", "{path: acme/empty/app, models: [both, abroad]}",
	), false)
	for _, c := range []struct{ secret, model, want string }{
		{"limited", "m", "stub"},
		{"limited", "both", "us stub"},
		{"limited", "abroad", "us nowhere"},
		{"limited", "unpriced", "model not found"},
		{"limited", "none", "model not found"},
		{"limited", "", "model not found"},
		{"limited", "M", "model not found"},
		{"good", "m", "stub"},
		{"good", "both", "stub"},
		{"good", "abroad", "no engine in an allowed region"},
		{"budget", "both", "us stub"},
		{"budget", "m", "model not found"},
		{"budget", "unpriced", "model not found"},
		{"exhausted", "both", "us stub"},
		{"exhausted", "m", "model not found"},
		{"exhausted", "abroad", "model not found"},
	} {
		got := ""
		o, err := s.key(c.secret + "-0123456789-canary").Offer(c.model)
		if err != nil {
			got = err.Error()
		} else {
			for _, e := range o.Engines {
				got += " " + e.Name
			}
		}
		s.is(c.secret+" "+c.model, strings.TrimSpace(got), c.want)
	}
	names := func(secret string) (list []string) {
		for _, o := range s.key(secret + "-0123456789-canary").Offers() {
			list = append(list, o.Model.Name)
		}
		return list
	}
	s.is("offers", fmt.Sprint(names("limited"), names("good"), names("budget"), names("exhausted")), "[abroad both m] [both m] [both] [both]")
	models := s.Current().Models()
	s.is("context shift of Ollama's models", words(models[0].Name, models[0].ContextShift, models[1].Name, models[1].ContextShift), "abroad true both false")
	o, _ := s.key("good-0123456789-canary").Offer("m")
	again, _ := s.key("good-0123456789-canary").Offer("m")
	other, _ := s.key("limited-0123456789-canary").Offer("m")
	s.is("the same offer", words(o == again, o == other, o.Subject == other.Subject), "true false false")
}

// TestVersions: versions of a price book follow each other, and every request is wholly under one. F010; I7.
func TestVersions(t *testing.T) {
	s := open(t)
	two := file(t, "effective: {from: 2026-01-01T00:00:00+01:00}", "effective: {from: 2026-01-01T00:00:00+01:00, to: 2026-12-01T00:00:00+01:00}",
		"\naccounts:", `
- name: public
  currency: EUR
  effective: {from: 2026-12-01T00:00:00+01:00}
  prices: [{model: m, meter: input, price: 9}, {model: m, meter: output, price: 9}]
accounts:`)
	s.apply(file(t), false)
	s.is("plan", s.apply(two, true), "update  price_book  public  (another version)\n0 to create, 1 to update, 0 to delete, 15 unchanged\n")
	for range 2 {
		books := s.Current().Account("acme").Books
		if len(books) != 2 {
			t.Fatalf("%d versions", len(books))
		}
		first, err := s.key("good-0123456789-canary").Offer("m")
		if err != nil {
			t.Fatal(err)
		}
		change := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
		second := first.At(change)
		s.is("before", first.At(change.Add(-1)) == first && first.Book == books[0] && first.Subject.BookVersion == books[0].Version, true)
		s.is("after", second != first && second.Book == books[1] && second.Subject.BookVersion == books[1].Version, true)
		s.is("long after", first.At(change.AddDate(9, 0, 0)) == second && second.At(change) == second, true)
		s.reopen()
	}
	p := s.apply(file(t), true)
	s.is("back again", p, "update  price_book  public  (another version)\n0 to create, 1 to update, 0 to delete, 15 unchanged\n")
	s.is("versions that stay in the store", strings.Count(s.store.dump(), "price_version "), 3)
}

func TestNotes(t *testing.T) {
	s := open(t)
	s.is("notes", s.apply(file(t,
		"\nprice_books:", "\n- {name: n, engines: [stub], context_tokens: 100}\nprice_books:",
		"from: 2026-01-01", "from: 2027-01-01",
		"{path: acme/small/app}", "{path: acme/small/app, regions: [eu-de, eu-ed]}"), false).Notes, `[model "n" has a price in no price book, so nobody can use it `+
		`price book "public" is not in force now: until it is, its models are refused account "acme/small/app" allows region "eu-ed", where no engine stands]`)
	s.is("no notes", len(open(t).apply(file(t), false).Notes), 0)
}

// TestSwapUnderReaders: readers see one world or the other, never a part of each. Run with -race.
func TestSwapUnderReaders(t *testing.T) {
	s := open(t)
	world1 := file(t)
	// In the other world everything that a request looks at is different, and says so.
	world2 := file(t, "served_as: served/m", "served_as: other/m", "region: eu-de", "region: other", "price_book: public}", "price_book: public, seller: other}",
		"- path: acme/small\n", "- path: acme/small\n  contract: other\n")
	s.apply(world1, false)
	hash := s.hasher.Hash([]byte("budget-0123456789-canary"))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for last := int64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				now := s.Current()
				k := now.ByHash(hash)
				o, err := k.Offer("m")
				if err != nil {
					t.Error(err)
					return
				}
				other := o.Model.ServedAs == "other/m"
				if (o.Engines[0].Region == "other") != other || (o.Subject.Seller == "other") != other || (k.Account.Contract == "other") != other ||
					now.Account("acme/small/app") != k.Account || o.Account != k.Account || now.Number < last {
					t.Errorf("a mixed world: %+v %+v", *o.Subject, *o.Model)
					return
				}
				last = now.Number
				if len(k.Offers()) != 1 {
					t.Error("offers are lost")
				}
			}
		})
	}
	for i := range 60 {
		switch i % 3 {
		case 0:
			s.apply(world2, true)
		case 1:
			s.apply(world1, true)
		case 2:
			if _, _, err := s.CreateKey(t.Context(), "acme/small/app", fmt.Sprint("k", i)); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
	s.is("number", s.Current().Number, 62)
}

// TestOffersTogether: many ask for the same new offers at once, and all get the same.
func TestOffersTogether(t *testing.T) {
	s := open(t)
	var models, prices strings.Builder
	const n = 50
	for i := range n {
		fmt.Fprintf(&models, "- {name: m%d, engines: [stub], context_tokens: 100, size_class: own}\n", i)
	}
	prices.WriteString("\n  - {size_class: own, meter: input, price: 1}\naccounts:")
	s.apply(file(t, "price_books:", models.String()+"price_books:", "\naccounts:", prices.String()), false)
	k := s.key("good-0123456789-canary")
	var got [8][n]*world.Offer
	var askers sync.WaitGroup
	for i := range got {
		askers.Go(func() {
			for j := range n {
				o, err := k.Offer(fmt.Sprint("m", (j*7+i)%n))
				if err != nil {
					t.Error(err)
				}
				got[i][(j*7+i)%n] = o
			}
		})
	}
	askers.Wait()
	for i := range got {
		if got[i] != got[0] {
			t.Fatal("two askers got different offers of one key and model")
		}
	}
}

func BenchmarkOffer(b *testing.B) {
	s := open(b)
	s.apply(file(b), false)
	k := s.key("good-0123456789-canary")
	b.ReportAllocs()
	for b.Loop() {
		o, err := k.Offer("m")
		if err != nil || o.At(s.clock.now) != o {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateKey is the cost of one change in a world of 10,000 organisations and 100,000 keys.
func BenchmarkCreateKey(b *testing.B) {
	s := open(b)
	var accounts, keys strings.Builder
	src := world.Source{Secrets: maps.Clone(secrets)}
	accounts.WriteString("accounts:\n")
	for i := range 10_000 {
		fmt.Fprintf(&accounts, "- {path: o%d, currency: EUR, price_book: public}\n", i)
	}
	for i := range 100_000 {
		ref := fmt.Sprint("env:K", i)
		src.Secrets[ref] = fmt.Sprint("0123456789-secret-", i)
		fmt.Fprintf(&keys, "- {name: k%d, account: o%d, secret: '%s'}\n", i, i/10, ref)
	}
	src.Text = []byte(file(b, "accounts:\n", accounts.String()) + keys.String())
	if _, err := s.Apply(b.Context(), src, false); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		if _, _, err := s.CreateKey(b.Context(), "o1", fmt.Sprint("new", n)); err != nil {
			b.Fatal(err)
		}
	}
}
