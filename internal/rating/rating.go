// Package rating turns counts into charges: Rate says what was used costs, Ceiling the most that a request can cost.
// It does not choose prices (price), does not decide what of an answer is billed (ledger, by the book's tariff rules)
// and does not round: a row's rates are whole femto-units already, so every product and sum is exact.
//
// # Invariants
//
//   - On every line Quantity × UnitPrice = Amount, and the sum of the lines is the charge, exactly.
//   - A count without a price is an error; it never costs nothing. Requests alone may have no price: a fee for the
//     request itself is something that a book may or may not have.
//   - Rate of any counts inside the bounds is at most Ceiling of the bounds, and some counts inside them reach it.
//   - The charge depends on nothing but the counts and the row, so rating a stored record again gives the same bytes.
//
// To add a meter that bounds do not cover: a row in usage.Meters, and a case in Ceiling where every request uses it.
//
// Start reading at Rate, then Ceiling.
package rating

import (
	"fmt"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// Rate appends one line to dst for each leaf class of c that is not 0, in the order of the meters, and returns dst and
// the sum of the lines it appended. Where that sum is below the row's minimum charge, and there is any line at all, a
// last line of one request with Minimum set lifts it. A line whose price is 0 is a line. The error is a
// price.ErrNotPriced; dst is then returned as it was.
func Rate(dst []usage.Line, c *usage.Counts, r *price.Row) ([]usage.Line, money.Amount, error) {
	var sum money.Amount
	lines := dst
	for m := range usage.NumMeters {
		n := c.Get(m)
		if n == 0 {
			continue
		}
		if !r.Has[m] {
			if m == usage.Requests {
				continue
			}
			return dst, money.Amount{}, notPriced(r, m)
		}
		amount := r.Rates[m].Times(n)
		sum = sum.Add(amount)
		lines = append(lines, usage.Line{Meter: m, Quantity: n, UnitPrice: r.Rates[m], Amount: amount})
	}
	if len(lines) > len(dst) && sum.Cmp(r.Minimum) < 0 {
		missing, err := money.RateFromAmount(r.Minimum.Sub(sum))
		if err != nil {
			return dst, money.Amount{}, fmt.Errorf("cannot charge the minimum of price row %s: %w", r.ID, err)
		}
		sum = r.Minimum
		lines = append(lines, usage.Line{Meter: usage.Requests, Quantity: 1, UnitPrice: missing, Amount: missing.Amount(), Minimum: true})
	}
	return lines, sum, nil
}

// inputLeaves and outputLeaves are the classes that each bound is for.
var (
	inputLeaves  = [...]usage.Meter{usage.InputUncached, usage.InputCacheRead, usage.InputCacheWrite}
	outputLeaves = [...]usage.Meter{usage.OutputContent, usage.OutputReasoning}
)

// Ceiling returns the most that one request can cost whose counts are inside the bounds: at most b.Input input tokens
// of any classes, b.Output output tokens of any classes, b.Joint of both together, and one request. Classes that the
// bounds do not name are taken to be 0. The error is a price.ErrNotPriced where a class that could be used has no
// price, or says which bound is out of [0, usage.MaxCount] or which price has no bound.
func Ceiling(b usage.Bounds, r *price.Row) (money.Amount, error) {
	for _, n := range [...]int64{b.Input, b.Output, b.Joint} {
		if n < 0 || n > usage.MaxCount {
			return money.Amount{}, fmt.Errorf("cannot bound the charge: %d tokens are not from 0 to 10^15", n)
		}
	}
	if r.Has[usage.WorkMS] {
		return money.Amount{}, fmt.Errorf("cannot bound the charge: price row %s has a price for %s, which has no bound yet", r.ID, usage.WorkMS)
	}
	in, out := b.Input, b.Output
	if b.Joint > 0 {
		in, out = min(in, b.Joint), min(out, b.Joint)
	}
	inRate, err := dearest(inputLeaves[:], in, r)
	if err != nil {
		return money.Amount{}, err
	}
	outRate, err := dearest(outputLeaves[:], out, r)
	if err != nil {
		return money.Amount{}, err
	}
	if b.Joint > 0 { // the charge grows evenly in both, so the dearer side is used up first
		if inRate.Cmp(outRate) >= 0 {
			out = min(out, b.Joint-in)
		} else {
			in = min(in, b.Joint-out)
		}
	}
	sum := inRate.Times(in).Add(outRate.Times(out))
	if r.Has[usage.Requests] {
		sum = sum.Add(r.Rates[usage.Requests].Amount())
	}
	return money.Max(sum, r.Minimum), nil
}

// dearest returns the highest rate of the classes, any of which n tokens can be.
func dearest(leaves []usage.Meter, n int64, r *price.Row) (money.Rate, error) {
	var top money.Rate
	if n == 0 {
		return top, nil
	}
	for _, m := range leaves {
		if !r.Has[m] {
			return top, notPriced(r, m)
		}
		if r.Rates[m].Cmp(top) > 0 {
			top = r.Rates[m]
		}
	}
	return top, nil
}

func notPriced(r *price.Row, m usage.Meter) error {
	return price.ErrNotPriced{Model: r.Model(), Meter: m.String()}
}
