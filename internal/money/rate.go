package money

import (
	"errors"
	"fmt"
	"math/bits"
)

// million is the scale of a multiplier: parts per million.
const million = 1_000_000

// maxRate is 10^6 major units, 10^21 femto-units.
var maxRate = Amount{54, 1_000_000_000_000_000_000_000 - 54<<64}

// Rate is a price of a single billing unit (token, request, millisecond, …) in femto-units, from 0 to 10^6 major units.
// The zero value is the rate 0; rates compare with ==.
type Rate struct{ a Amount }

// ParseRate reads a price per `per` units, such as "1.00" per 1_000_000, and rounds it half-even to whole femto-units
// per single unit. It refuses what ParseAmount refuses, and what RateOf refuses.
func ParseRate(price string, per int64) (Rate, error) {
	a, err := ParseAmount(price)
	if err != nil {
		return Rate{}, err
	}
	return RateOf(a, per)
}

// RateOf returns price / per × Π ppm / 10^6, rounded half-even once to whole femto-units: the effective rate of a list
// price under multipliers. It refuses a negative price, per < 1, a multiplier below 0 or above 10^9 (a factor of 1,000),
// more than four multipliers and a result above 10^6 major units.
func RateOf(price Amount, per int64, ppm ...int64) (Rate, error) {
	switch {
	case price.Sign() < 0:
		return Rate{}, fmt.Errorf("price %s is negative", price)
	case per < 1:
		return Rate{}, fmt.Errorf("price is per %d units; at least 1", per)
	case len(ppm) > 4:
		return Rate{}, fmt.Errorf("price has %d multipliers; at most 4", len(ppm))
	}
	w := magnitude(price)
	divisors := [5]uint64{uint64(per), million, million, million, million}
	for _, m := range ppm {
		if m < 0 || m > 1000*million {
			return Rate{}, fmt.Errorf("multiplier of %d parts per million is not from 0 to 1000 times", m)
		}
		w.times(uint64(m)) // 127 bits and at most four times 30: fits
	}
	w.divHalfEven(divisors[:1+len(ppm)]...)
	if !w.fits() {
		return Rate{}, errors.New("price is above 1000000 per single unit")
	}
	return RateFromAmount(w.amount(false))
}

// RateFromAmount makes a rate of the amount that a single unit costs: from 0 to 10^6 major units.
func RateFromAmount(a Amount) (Rate, error) {
	if a.Sign() < 0 {
		return Rate{}, fmt.Errorf("price %s is negative", a)
	}
	if a.Cmp(maxRate) > 0 {
		return Rate{}, errors.New("price is above 1000000 per single unit")
	}
	return Rate{a}, nil
}

// Amount returns what a single unit costs.
func (r Rate) Amount() Amount { return r.a }

// Times returns n × r, exactly. It panics when n is negative or the product does not fit, which no n up to 10^15 does.
func (r Rate) Times(n int64) Amount {
	h1, lo := bits.Mul64(r.a.lo, uint64(n))
	over, h2 := bits.Mul64(uint64(r.a.hi), uint64(n))
	hi, carry := bits.Add64(h1, h2, 0)
	if over|carry|hi>>63|uint64(n)>>63 != 0 {
		overflow()
	}
	return Amount{int64(hi), lo}
}

// Scale returns r × Π ppm / 10^6, rounded half-even once. It panics where RateOf refuses: multipliers are checked when
// a book is parsed. A list price that is no whole number of femto-units per unit is scaled by RateOf, not here, lest it
// be rounded twice.
func (r Rate) Scale(ppm ...int64) Rate {
	scaled, err := RateOf(r.a, 1, ppm...)
	if err != nil {
		panic("money: cannot scale rate: " + err.Error())
	}
	return scaled
}

// Cmp returns -1, 0 or 1 as r is less than, equal to or greater than s.
func (r Rate) Cmp(s Rate) int { return r.a.Cmp(s.a) }

// IsZero reports whether r is 0.
func (r Rate) IsZero() bool { return r.a.IsZero() }

// String returns the price of a single unit as the shortest exact decimal.
func (r Rate) String() string { return r.a.String() }

// MarshalJSON writes the price of a single unit as a decimal string.
func (r Rate) MarshalJSON() ([]byte, error) { return r.a.MarshalJSON() }

// UnmarshalJSON reads what MarshalJSON wrote and refuses what RateFromAmount refuses.
func (r *Rate) UnmarshalJSON(b []byte) error {
	var a Amount
	if err := a.UnmarshalJSON(b); err != nil {
		return err
	}
	parsed, err := RateFromAmount(a)
	if err == nil {
		*r = parsed
	}
	return err
}
