// Package quota decides whether a hold fits a limit, and whether a request fits a rate. It does not keep balances
// (ledger does), does not know the time, and does not say no to anybody (refusal, gateway).
//
// # Invariants
//
//   - Judge grants only what keeps used + held at or below the limit.
//   - Exhausted is said only where used + asked is above the limit: of what is posted, never of what is only held.
//   - A limit that only alerts lets everything pass, and counts all of it.
//   - A limit's identity is account, key, measure, window with its anchor, and narrowing: its amount and what it does can
//     change without losing what was used.
//   - No use is above its need, but for gpu_seconds, which no hold can know and no limit can block.
//   - The numbers of measures and actions are stored: append, never renumber.
//
// To add a measure: a constant at the end, a row in measures, a case in Need.Of and in Spent.
//
// Start reading at Limit, then Limit.Judge.
package quota

import (
	"fmt"
	"strconv"

	"talea/internal/money"
	"talea/internal/usage"
)

// Measure is what a limit counts. Stored: append only.
type Measure uint8

// Measures. Money is in femto-units of the account's currency, GPU time in femto-seconds, the others count single units.
const (
	Money Measure = iota
	InputTokens
	OutputTokens
	Tokens
	RequestCount
	WorkMS     // deterministic work, in milliseconds of a reference GPU
	GPUSeconds // until GPU time is measured: the work times the GPUs of the engine
	numMeasures
)

var measures = [numMeasures]string{"money", "input_tokens", "output_tokens", "tokens", "requests", "work_ms", "gpu_seconds"}

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

// decimal reports whether amounts of the measure have decimals.
func (m Measure) decimal() bool { return m == Money || m == GPUSeconds }

// ParseAmount reads a limit's amount: a decimal for money and seconds, a whole number for the others. It is ≥ 0.
func (m Measure) ParseAmount(s string) (money.Amount, error) {
	if m.decimal() {
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
	if m.decimal() {
		return a.String()
	}
	n, ok := a.Int64()
	if !ok {
		return "out of range"
	}
	return fmt.Sprint(n)
}

// Need is the most that one request can use, by measure.
type Need struct {
	Money  money.Amount
	Bounds usage.Bounds
	Work   usage.Work // of the model
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
	case WorkMS:
		return money.Units(n.Work.Most(n.Bounds))
	case GPUSeconds:
		return money.Amount{}
	}
	panic("quota: unknown measure")
}

// Spent returns what a settled request used in measure m: billed counts, so that what the tenant does not pay for does
// not use up a limit either. A request that is billed nothing at all counts as no request. gpus is how many the engine
// has, 0 where nobody told.
func Spent(m Measure, billed *usage.Counts, charge money.Amount, gpus int64) money.Amount {
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
	case WorkMS:
		return money.Units(billed.Get(usage.WorkMS))
	case GPUSeconds:
		ms := billed.Get(usage.WorkMS)
		if gpus = max(gpus, 1); ms > usage.MaxCount/gpus {
			return perMS.Times(usage.MaxCount)
		}
		return perMS.Times(ms * gpus)
	}
	panic("quota: unknown measure")
}

// perMS is a millisecond in femto-seconds.
var perMS = func() money.Rate {
	r, err := money.RateFromAmount(money.Units(1_000_000_000_000))
	if err != nil {
		panic("quota: " + err.Error())
	}
	return r
}()

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

// judge decides one hold against an amount.
func judge(limit money.Amount, b Balance, ask money.Amount) Verdict {
	posted := b.Used.Add(ask)
	if posted.Cmp(limit) > 0 {
		return Exhausted
	}
	if posted.Add(b.Held).Cmp(limit) > 0 {
		return Contended
	}
	return Fits
}
