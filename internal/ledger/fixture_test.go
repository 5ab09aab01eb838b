package ledger_test

import (
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// The tree of most tests: acme (1) / research (2) / chat (3), and its sibling acme / sales (4).
const (
	acme     account.ID = 1
	research account.ID = 2
	chat     account.ID = 3
	sales    account.ID = 4
)

func amount(t testing.TB, s string) money.Amount {
	t.Helper()
	a, err := money.ParseAmount(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// priceRow costs 1 EUR a million input tokens, a tenth of it from the cache, and 2 EUR a million output tokens.
func priceRow(t testing.TB) *price.Row {
	t.Helper()
	row := &price.Row{ID: "public@0123456789abcdef/small", Multiplier: 1_000_000}
	for m, text := range map[usage.Meter]string{
		usage.InputUncached: "1", usage.InputCacheRead: "0.1", usage.InputCacheWrite: "1", usage.OutputContent: "2", usage.OutputReasoning: "2",
	} {
		rate, err := money.ParseRate(text, 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		row.Rates[m], row.Has[m] = rate, true
	}
	return row
}

func subject(org, project account.ID, path account.Path) *usage.Subject {
	return &usage.Subject{
		Organisation: org, Account: project, AccountPath: path, BillingAccount: "acme", Key: "key_0123456789",
		Labels: []usage.Label{{Name: "cost_centre", Value: "4711"}}, Seller: "cloud", Currency: "EUR",
		Book: "public", BookVersion: "0123456789abcdef", ModelAsked: "small", Model: "small", SizeClass: "small",
	}
}

func ceiling(t testing.TB, b usage.Bounds, row *price.Row) money.Amount {
	t.Helper()
	most, err := rating.Ceiling(b, row)
	if err != nil {
		t.Fatal(err)
	}
	return most
}

func limitOn(node account.ID, path account.Path, m quota.Measure, w period.Window, most money.Amount) quota.Limit {
	return quota.Limit{Org: acme, Account: node, Path: path, Measure: m, Window: w, Zone: "Europe/Berlin", Amount: most}
}

func counts(in, out int64) (c usage.Counts) {
	c.Set(usage.InputUncached, in)
	c.Set(usage.OutputContent, out)
	return c
}

// completed is the result of an answer that was relayed whole.
func completed(in, out int64) *usage.Result {
	return &usage.Result{
		Engine: "gpu-1", EngineKind: "vllm", Counts: counts(in, out), Source: usage.EngineFinal, Delivered: out,
		FirstMicros: 31_000, TotalMicros: 410_000, Finish: "stop", Outcome: usage.Completed,
		Attempts: []usage.Attempt{{Engine: "gpu-1", Status: 200, Micros: 409_000}},
	}
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

var _ = ledger.ErrSettled
