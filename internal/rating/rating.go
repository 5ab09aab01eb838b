// Package rating turns counts into charges: Rate says what was used costs, Ceiling the most that a request can cost.
// It does not choose prices (price), does not decide what of an answer is billed (ledger, by the book's tariff rules)
// and does not round: a row's rates are whole femto-units already, so every product and sum is exact.
//
// # Invariants
//
//   - On every line Quantity × UnitPrice = Amount, and the sum of the lines is the charge, exactly.
//   - The usage lines of a class add up to its count. What else is charged has lines of its own kind. No line is negative.
//   - A count without a price is an error; it never costs nothing. Requests alone may have no price: a fee for the
//     request itself is something that a book may or may not have.
//   - Rate of any counts inside the bounds, from the position given or any later one, is at most Ceiling of the bounds and
//     that position; and some such counts and position reach it.
//   - The charge depends on nothing but the counts, the row and the position, so rating a stored record again gives the
//     same bytes; and requests that are rated one after the other cost what they cost in any other division, but for
//     volume prices, minimum charges and fees of requests.
//
// To add a meter that bounds do not cover: a row in usage.Meters, and a case in Ceiling where every request uses it.
// To add a form of price: a case in Rate, and in share.most and share.breaks; the property test tries every outcome.
//
// Start reading at Rate, then Ceiling.
package rating

import (
	"fmt"
	"math"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// Position is how much was used before, within the window, of each of a row's Forms, in their order. It is 0 where the
// slice ends, and for forms without a counter.
type Position []int64

func (p Position) of(i int) int64 {
	if i < len(p) {
		return p[i]
	}
	return 0
}

// Advance adds to a position, which has one element for each of the row's Forms, what a request was billed for.
func (p Position) Advance(c *usage.Counts, r *price.Row) {
	for i := range r.Forms {
		if r.Forms[i].Counter != "" {
			p[i] += min(units(c, &r.Forms[i]), math.MaxInt64/2-p[i]) // beyond that nothing is told apart any more
		}
	}
}

// units is how much of a request a form is the price of.
func units(c *usage.Counts, f *price.Form) (n int64) {
	for m := range usage.NumMeters {
		if f.Of(m) {
			n += c.Get(m)
		}
	}
	return n
}

// Rate appends one line to dst for each leaf class of c that is not 0, in the order of the meters, and returns dst and
// the sum of the lines it appended; a class whose price is graduated has one line for each step it falls in. Packages and
// fees of steps have lines of their kinds, and where packages are charged the usage line is at the price 0. Where that
// sum is below the row's minimum charge, and there is any line at all, a last line of one request lifts it. A line whose
// price is 0 is a line. The error is a price.ErrNotPriced; dst is then returned as it was.
func Rate(dst []usage.Line, c *usage.Counts, r *price.Row, before Position) ([]usage.Line, money.Amount, error) {
	if len(r.Forms) > 0 {
		return rateForms(dst, c, r, before)
	}
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
		return lift(dst, lines, sum, r)
	}
	return lines, sum, nil
}

// lift adds the line that lifts the sum of those behind dst to the minimum charge.
func lift(dst, lines []usage.Line, sum money.Amount, r *price.Row) ([]usage.Line, money.Amount, error) {
	missing, err := money.RateFromAmount(r.Minimum.Sub(sum))
	if err != nil {
		return dst, money.Amount{}, fmt.Errorf("cannot charge the minimum of price row %s: %w", r.ID, err)
	}
	return append(lines, lineOf(usage.Requests, usage.LineMinimum, 1, missing)), r.Minimum, nil
}

// rateForms is Rate for rows with forms: most rows have none, and are rated without looking for them.
func rateForms(dst []usage.Line, c *usage.Counts, r *price.Row, before Position) ([]usage.Line, money.Amount, error) {
	var sum money.Amount
	var done [usage.NumMeters]int64 // of each form: what its classes have used in this request so far
	lines := dst
	for m := range usage.NumMeters {
		n := c.Get(m)
		if n == 0 {
			continue // most classes: before anything is looked for
		}
		if !r.Has[m] {
			if m == usage.Requests {
				continue
			}
			return dst, money.Amount{}, notPriced(r, m)
		}
		i := formOf(r, m)
		if i < 0 {
			amount := r.Rates[m].Times(n)
			sum = sum.Add(amount)
			lines = append(lines, usage.Line{Meter: m, Quantity: n, UnitPrice: r.Rates[m], Amount: amount})
			continue
		}
		from := len(lines)
		lines = rateForm(lines, m, c, &r.Forms[i], before.of(i), done[i])
		done[i] += n
		for j := from; j < len(lines); j++ {
			sum = sum.Add(lines[j].Amount)
		}
	}
	if len(lines) > len(dst) && sum.Cmp(r.Minimum) < 0 {
		return lift(dst, lines, sum, r)
	}
	return lines, sum, nil
}

// formOf returns the index of the form that is the price of a class, or -1.
func formOf(r *price.Row, m usage.Meter) int {
	for i := range r.Forms {
		if r.Forms[i].Of(m) {
			return i
		}
	}
	return -1
}

func lineOf(m usage.Meter, kind usage.LineKind, n int64, unit money.Rate) usage.Line {
	return usage.Line{Meter: m, Kind: kind, Quantity: n, UnitPrice: unit, Amount: unit.Times(n)}
}

// rateForm appends the lines of one class under a form. done is what its other classes have used in this request.
func rateForm(lines []usage.Line, m usage.Meter, c *usage.Counts, f *price.Form, before, done int64) []usage.Line {
	n, at := c.Get(m), before+done
	switch f.Kind {
	case price.LongContext:
		return append(lines, lineOf(m, usage.LineUsage, n, f.Step(c.Input()).Rate))
	case price.Volume: // by where the whole request ends, so that the order of its classes does not matter
		return append(lines, lineOf(m, usage.LineUsage, n, f.Step(before+units(c, f)).Rate))
	case price.Package:
		lines = append(lines, lineOf(m, usage.LineUsage, n, money.Rate{}))
		if started := packages(at+n, f) - packages(at, f); started > 0 {
			lines = append(lines, lineOf(m, usage.LinePackage, started, f.Steps[0].Rate))
		}
		return lines
	}
	floor := int64(0)
	for i := range f.Steps {
		s := &f.Steps[i]
		if s.UpTo != 0 && at >= s.UpTo {
			floor = s.UpTo
			continue
		}
		take := n
		if s.UpTo != 0 {
			take = min(n, s.UpTo-at)
		}
		if at == floor && !s.Fee.IsZero() {
			fee, err := money.RateFromAmount(s.Fee)
			if err != nil {
				panic("rating: a fee that its book cannot have: " + err.Error())
			}
			lines = append(lines, lineOf(m, usage.LineFee, 1, fee))
		}
		lines = append(lines, lineOf(m, usage.LineUsage, take, s.Rate))
		if at, n, floor = at+take, n-take, s.UpTo; n == 0 {
			break
		}
	}
	return lines
}

// packages is how many packages have been started when n units have been used.
func packages(n int64, f *price.Form) int64 {
	started := n / f.Package
	if n%f.Package > 0 {
		started++
	}
	return started
}

// Schedule returns what the use of a whole window costs by the form's schedule: the fee of the first step is due for a
// window without any use too. For all forms but volume prices that is the sum of what its requests were charged, and
// the fee of a first step that was never entered. For volume prices, whose requests are charged at the price of the step
// they end in, the difference is the true-up at the close of the window.
func Schedule(f *price.Form, total int64) money.Amount {
	switch f.Kind {
	case price.Volume:
		return f.Step(total).Rate.Times(total)
	case price.Package:
		return f.Steps[0].Rate.Times(packages(total, f))
	case price.LongContext:
		panic("rating: the price of a long context has no schedule: it is of each request by itself")
	}
	sum := f.Steps[0].Fee
	return sum.Add(graduated(f, total)).Sub(graduatedFee(f, total))
}

// graduated is what the first n units of a window cost, with the fees of the steps that they enter.
func graduated(f *price.Form, n int64) (sum money.Amount) {
	floor := int64(0)
	for i := range f.Steps {
		s := &f.Steps[i]
		if n <= floor {
			break
		}
		take := n - floor
		if s.UpTo != 0 {
			take = min(take, s.UpTo-floor)
		}
		sum = sum.Add(s.Fee).Add(s.Rate.Times(take))
		floor = s.UpTo
		if floor == 0 {
			break
		}
	}
	return sum
}

// graduatedFee is the first step's share of what graduated says.
func graduatedFee(f *price.Form, n int64) money.Amount {
	if n == 0 {
		return money.Amount{}
	}
	return f.Steps[0].Fee
}

func notPriced(r *price.Row, m usage.Meter) error {
	return price.ErrNotPriced{Model: r.Model(), Meter: m.String()}
}
