// Package quota decides whether a hold fits a limit, and whether a request fits a rate. It does not keep balances
// (ledger does), does not know the time, and does not say no to anybody (refusal, gateway).
//
// # Invariants
//
//   - Judge grants only what keeps used + held at or below the limit.
//   - Exhausted is said only where used + asked is above the limit: of what is posted, never of what is only held.
//   - A limit's identity is account + measure + window + narrowing: its amount can change without losing what was used.
//   - The numbers of measures and verdicts are stored: append, never renumber.
//
// To add a measure: a constant at the end, a row in measures, a case in Need.Of and in Spent.
//
// Start reading at Judge.
package quota

import (
	"fmt"
	"strconv"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/usage"
)

// Measure is what a limit counts. Stored: append only.
type Measure uint8

// Measures. Money is in femto-units of the account's currency, the others count single units.
const (
	Money Measure = iota
	InputTokens
	OutputTokens
	Tokens
	RequestCount
	numMeasures
)

var measures = [numMeasures]string{"money", "input_tokens", "output_tokens", "tokens", "requests"}

// String returns the word used in resource files.
func (m Measure) String() string {
	if m >= numMeasures {
		return "unknown"
	}
	return measures[m]
}

// Measures lists the words of all measures, in order.
func Measures() []string { return measures[:] }

// ParseMeasure finds a measure by its word in resource files.
func ParseMeasure(s string) (Measure, bool) {
	for i, name := range measures {
		if name == s {
			return Measure(i), true
		}
	}
	return 0, false
}

// ParseAmount reads a limit's amount: a decimal of the currency for money, a whole number for the others. It is ≥ 0.
func (m Measure) ParseAmount(s string) (money.Amount, error) {
	if m == Money {
		a, err := money.ParseAmount(s)
		if err == nil && a.Sign() < 0 {
			err = fmt.Errorf("amount %s is negative", s)
		}
		return a, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > usage.MaxCount {
		return money.Amount{}, fmt.Errorf("amount %q of measure %s is not a whole number from 0 to 10^15", s, m)
	}
	return money.Units(n), nil
}

// Format writes an amount of this measure as a decimal string.
func (m Measure) Format(a money.Amount) string {
	if m == Money {
		return a.String()
	}
	n, ok := a.Int64()
	if !ok {
		return "out of range"
	}
	return fmt.Sprint(n)
}

// Limit is one hard limit on one node of the tree.
type Limit struct {
	Org       account.ID // organisation of the node
	Account   account.ID
	Path      account.Path // label of the node, for messages
	Measure   Measure
	Window    period.Window
	Zone      string // IANA zone of the organisation's calendar
	Model     string // narrowed to this offering; "" is all
	SizeClass string // narrowed to this size class; "" is all
	Amount    money.Amount
}

// Key is the identity of a limit: two limits with the same key are the same limit with another amount.
func (l *Limit) Key() string {
	return fmt.Sprintf("%d/%s/%s/%s/%s", l.Account, l.Measure, l.Window, l.Model, l.SizeClass)
}

// Covers reports whether the limit counts requests to this offering.
func (l *Limit) Covers(model, sizeClass string) bool {
	return (l.Model == "" || l.Model == model) && (l.SizeClass == "" || l.SizeClass == sizeClass)
}

// Need is the most that one request can use, by measure.
type Need struct {
	Money  money.Amount
	Bounds usage.Bounds
}

// Of returns what the request needs in measure m.
func (n Need) Of(m Measure) money.Amount {
	switch m {
	case Money:
		return n.Money
	case InputTokens:
		return money.Units(n.Bounds.Input)
	case OutputTokens:
		return money.Units(n.Bounds.Output)
	case Tokens:
		sum := n.Bounds.Input + n.Bounds.Output
		if n.Bounds.Joint > 0 {
			sum = min(sum, n.Bounds.Joint)
		}
		return money.Units(sum)
	case RequestCount:
		return money.Units(1)
	}
	panic("quota: unknown measure")
}

// Spent returns what a settled request used in measure m: billed counts, so that what the tenant does not pay for does
// not use up a limit either. A request that is billed nothing at all counts as no request.
func Spent(m Measure, billed *usage.Counts, charge money.Amount) money.Amount {
	switch m {
	case Money:
		return charge
	case InputTokens:
		return money.Units(billed.Input())
	case OutputTokens:
		return money.Units(billed.Output())
	case Tokens:
		return money.Units(billed.Input() + billed.Output())
	case RequestCount:
		if billed.Empty() {
			return money.Amount{}
		}
		return money.Units(1)
	}
	panic("quota: unknown measure")
}

// Balance is what stands against a limit in one period.
type Balance struct {
	Used money.Amount // posted
	Held money.Amount // of running requests
}

// Verdict says whether a hold fits.
type Verdict uint8

// Verdicts, mildest first: the strictest of several limits wins.
const (
	Fits      Verdict = iota
	Contended         // fits what is posted; running holds are in the way
	Exhausted         // does not fit what is posted
)

// Judge decides one hold against one limit.
func Judge(limit money.Amount, b Balance, ask money.Amount) Verdict {
	posted := b.Used.Add(ask)
	if posted.Cmp(limit) > 0 {
		return Exhausted
	}
	if posted.Add(b.Held).Cmp(limit) > 0 {
		return Contended
	}
	return Fits
}
