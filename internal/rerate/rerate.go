// Package rerate rates again what the ledger has: the stored inputs of every settled request (billed counts, service tier,
// admission time, model, size class, step of the price tape), under the very prices they were rated with, which must give
// the same bytes, or under others, which says what they would have cost. It reads the log and the archive of price books and
// writes nothing; it does not choose prices (price) or multiply (rating): estimate, hold, bill and re-rating are one code.
//
// # Invariants
//
//   - Under the original prices every line and every charge is what was stored; the first that is not is named.
//   - Positions of counters are derived from the whole log in its order, whatever the range: so the parts of a range add up
//     to the whole.
//   - Differences are exact sums, by account and currency.
//   - A request without a price under the other book is named, never counted as 0.
//
// Start reading at Run.
package rerate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
	"talea/internal/world"
)

// Call says what is to be rated again.
type Call struct {
	From, To time.Time    // admitted in [From, To)
	Account  account.Path // and those below it; "" for all
	Book     string       // NAME, or NAME@VERSION with the first digits of its hash; "" with no Draft: what each was rated with
	Draft    *price.Book  // instead of Book; over no base
	// Replace rates under the draft only what was rated under a book of its name, or one based on it; the rest stays. Where no
	// such book was published, it is all.
	Replace  bool
	Progress func(done, total int64) // entries of the log, now and then; nil for nobody
}

// Sum is what an account's, or an organisation's, requests were charged, and what they are by the other prices.
type Sum struct {
	Account    account.Path `json:"account"` // as it was when the newest of them was admitted
	Currency   string       `json:"currency"`
	Requests   int64        `json:"requests"`
	Charged    money.Amount `json:"charged"`
	Rated      money.Amount `json:"rated"`
	Corrected  money.Amount `json:"corrected"`  // by earlier corrections of the same range
	Difference money.Amount `json:"difference"` // Rated − Charged − Corrected

	org account.ID
	id  account.ID
}

// Report is what came of it.
type Report struct {
	From          time.Time `json:"from"`
	To            time.Time `json:"to"`
	Book          string    `json:"book"` // name@version of each version; "" for the original
	Requests      int64     `json:"requests"`
	Unpriced      int64     `json:"unpriced"`      // left as they were charged, since the draft has no price for them
	Organisations []Sum     `json:"organisations"` // by currency and name
	Accounts      []Sum     `json:"accounts"`      // of the original and of a book by name; of a draft the dearest difference first
	// Difference names the first request whose lines are not what was stored, under the original prices; "" for none.
	Difference string `json:"difference,omitempty"`
	// Corrections is how many were posted of it.
	Corrections int `json:"corrections,omitempty"`
}

// CallError says that a call cannot be meant.
type CallError struct{ text string }

// Error says why.
func (e *CallError) Error() string { return e.text }

func mistaken(format string, args ...any) error { return &CallError{fmt.Sprintf(format, args...)} }

// RequestError says which request cannot be rated, and why.
type RequestError struct {
	text string
	err  error
}

// Error names the request.
func (e *RequestError) Error() string { return e.text + ": " + e.err.Error() }

// Unwrap returns why.
func (e *RequestError) Unwrap() error { return e.err }

// run is one call under way.
type run struct {
	*Call
	past    *ledger.Past
	archive *world.Archive
	report  *Report
	sums    map[sumKey]*Sum
	rater   *rater
}

type sumKey struct {
	account  account.ID
	currency string
}

// Run rates again what the past has.
func Run(ctx context.Context, past *ledger.Past, archive *world.Archive, c *Call) (*Report, error) {
	if !c.From.Before(c.To) {
		return nil, mistaken("the range ends at %s, before it begins at %s", c.To.Format(time.RFC3339), c.From.Format(time.RFC3339))
	}
	under, err := choose(archive, c)
	if err != nil {
		return nil, err
	}
	x := &run{Call: c, past: past, archive: archive, sums: map[sumKey]*Sum{}, report: &Report{From: c.From.UTC(), To: c.To.UTC(), Book: under.label}}
	x.rater = newRater(past, archive, under)
	var done, total int64
	for _, head := range past.Heads() {
		if past.Has(head.Org, c.Account) {
			total += head.Seq
		}
	}
	for _, head := range past.Heads() {
		if !past.Has(head.Org, c.Account) {
			continue
		}
		x.rater.begin()
		err := past.Posted(head, x.visit, func(n int64) error {
			if done += n; c.Progress != nil {
				c.Progress(done, total)
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	x.finish()
	return x.report, nil
}

// visit rates one request. Those out of the range and of other accounts of the organisation count as well, since prices
// depend on how much was used before.
func (x *run) visit(p *ledger.Posted) error {
	r := p.Record
	at := r.Admission.At
	within := !at.Before(x.From) && at.Before(x.To) && (x.Account == "" || r.Subject.AccountPath.Within(x.Account))
	charge, difference, err := x.rater.rate(p)
	var none price.ErrNotPriced
	var noTier price.ErrNoTier
	switch unpriced := errors.As(err, &none) || errors.As(err, &noTier); {
	case unpriced && !within:
		return nil
	case unpriced && x.Replace:
		x.report.Unpriced++
		charge = r.Charge
	case err != nil && within:
		return &RequestError{"cannot rate " + name(r), err}
	case err != nil:
		return nil
	}
	if !within {
		return nil
	}
	if difference != "" && x.report.Difference == "" {
		x.report.Difference = name(r) + ": " + difference
	}
	x.add(r, charge)
	return nil
}

func name(r *usage.Record) string {
	return fmt.Sprintf("request %s of %s, admitted at %s", r.ID, r.Subject.AccountPath, r.Admission.At.Format(time.RFC3339))
}

func (x *run) add(r *usage.Record, charge money.Amount) {
	key := sumKey{r.Subject.Account, r.Subject.Currency}
	s := x.sums[key]
	if s == nil {
		s = &Sum{Currency: key.currency, org: r.Subject.Organisation, id: key.account}
		x.sums[key] = s
	}
	s.Account = r.Subject.AccountPath
	s.Requests++
	s.Charged = s.Charged.Add(r.Charge)
	s.Rated = s.Rated.Add(charge)
}

// ID is the account's number.
func (s *Sum) ID() account.ID { return s.id }

// corrected is what corrections of this very range have changed.
func (x *run) corrected(s *Sum) (sum money.Amount) {
	for _, c := range x.past.Corrections(s.org) {
		if c.Chain[len(c.Chain)-1] == s.id && c.Currency == s.Currency && c.From.Equal(x.From) && c.To.Equal(x.To) {
			sum = sum.Add(c.Amount)
		}
	}
	return sum
}

// finish sums up.
func (x *run) finish() {
	organisations := map[sumKey]*Sum{}
	x.report.Accounts, x.report.Organisations = []Sum{}, []Sum{}
	for _, s := range x.sums {
		if x.rater.under.books != nil && !x.Replace {
			s.Corrected = x.corrected(s)
		}
		s.Difference = s.Rated.Sub(s.Charged).Sub(s.Corrected)
		x.report.Requests += s.Requests
		x.report.Accounts = append(x.report.Accounts, *s)
		key := sumKey{s.org, s.Currency}
		o := organisations[key]
		if o == nil {
			o = &Sum{Account: account.Path(s.Account.Organisation()), Currency: s.Currency}
			organisations[key] = o
		}
		o.Requests += s.Requests
		o.Charged, o.Corrected, o.Rated, o.Difference = o.Charged.Add(s.Charged), o.Corrected.Add(s.Corrected), o.Rated.Add(s.Rated), o.Difference.Add(s.Difference)
	}
	for _, o := range organisations {
		x.report.Organisations = append(x.report.Organisations, *o)
	}
	byName := func(a, b Sum) int {
		return cmp.Or(strings.Compare(a.Currency, b.Currency), strings.Compare(string(a.Account), string(b.Account)))
	}
	slices.SortFunc(x.report.Organisations, byName)
	slices.SortFunc(x.report.Accounts, func(a, b Sum) int {
		if x.Draft != nil {
			return cmp.Or(strings.Compare(a.Currency, b.Currency), b.Difference.Cmp(a.Difference), byName(a, b))
		}
		return byName(a, b)
	})
}
