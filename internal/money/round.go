package money

import (
	"cmp"
	"slices"
)

// Mode says what Round does with a half.
type Mode uint8

// Rounding modes.
const (
	HalfEven         Mode = iota // to the even neighbour: rates, conversion
	HalfAwayFromZero             // as invoices round
)

// Round rounds a to `minor` decimals (2 for euros and cents). It panics when minor is not from 0 to 15 or the result
// does not fit.
func (a Amount) Round(minor int, mode Mode) Amount {
	g := granule(minor)
	w := magnitude(a)
	switch mode {
	case HalfEven:
		w.divHalfEven(g)
	case HalfAwayFromZero:
		if rem := w.div(g); rem >= g-rem {
			w.plus(1)
		}
	default:
		panic("money: unknown rounding mode")
	}
	w.times(g)
	return w.amount(a.hi < 0)
}

// Convert returns a × r, rounded half-even to the femto-unit: a currency conversion, or a percentage ("0.19") of a.
func (a Amount) Convert(r Rate) Amount {
	w := magnitude(a)
	w.timesAmount(r.a)
	w.divHalfEven(unit)
	return w.amount(a.hi < 0)
}

// Percent returns n hundredths of a, which is not negative, rounded up to the femto-unit: the least amount that is so much of
// a. It panics when n is negative or the result does not fit.
func (a Amount) Percent(n int64) Amount {
	if a.Sign() < 0 || n < 0 {
		overflow()
	}
	w := magnitude(a)
	w.times(uint64(n))
	w.plus(99)
	w.div(100)
	return w.amount(false)
}

// Split shares a out by weight in whole units of `minor` decimals: each gets the floor of its share, and what is left
// goes one unit each to the largest remainders, ties in order. The parts add up to a, and a negative amount is split as
// its opposite. It panics when a has more than `minor` decimals (Round it first), a weight is negative or all are 0.
func (a Amount) Split(minor int, weights []int64) []Amount {
	g := granule(minor)
	whole := magnitude(a)
	if whole.div(g) != 0 {
		panic("money: cannot split an amount with more decimals than its parts")
	}
	var total uint64
	for _, weight := range weights {
		if weight < 0 || total+uint64(weight) < total {
			panic("money: cannot split by a negative weight or weights beyond 64 bits")
		}
		total += uint64(weight)
	}
	if total == 0 {
		panic("money: cannot split over no weight")
	}
	parts := make([]wide, len(weights))
	rems := make([]uint64, len(weights))
	order := make([]int, len(weights))
	var left uint64 // Σ remainders = left × total, with left < len(weights)
	var sum uint64
	for i, weight := range weights {
		parts[i] = whole
		parts[i].times(uint64(weight))
		rems[i] = parts[i].div(total)
		order[i] = i
		if rems[i] >= total-sum {
			left++
			sum -= total
		}
		sum += rems[i]
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rems[j], rems[i]) })
	for _, i := range order[:left] {
		parts[i].plus(1)
	}
	out := make([]Amount, len(weights))
	for i, part := range parts {
		part.times(g)
		out[i] = part.amount(a.hi < 0)
	}
	return out
}

// granule returns the femto-units in one unit of `minor` decimals.
func granule(minor int) uint64 {
	if minor < 0 || minor > decimals {
		panic("money: decimals not from 0 to 15")
	}
	g := uint64(unit)
	for range minor {
		g /= 10
	}
	return g
}
