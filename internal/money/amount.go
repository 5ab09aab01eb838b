// Package money holds exact amounts and rates: signed 128-bit counts of femto-units (10^-15 of a currency's major
// unit), with the one Round and the one Split. It does not know currencies (the account and the book name them), prices
// (price) or what is charged (rating).
//
// # Invariants
//
//   - Add, Sub, Neg and Times are exact; a result that does not fit panics, since it can only be a bug.
//   - Only RateOf (with ParseRate and Scale), Convert, Percent, Round and Split round, each at one place and once.
//   - The parts of Split add up to the whole, and the order of addition does not matter.
//   - ParseAmount reads back what String wrote, for every amount; both are exact.
//   - A Rate lies in [0, 10^6] major units, so that Times of a count up to 10^15 always fits.
//
// Start reading at Amount, then Rate.
package money

import "math/bits"

// Amount is a signed 128-bit count of femto-units, two's complement. The zero value is 0; amounts compare with ==.
// Token and request counts live in the same type, one femto-unit each: see Units.
type Amount struct {
	hi int64
	lo uint64
}

// FromFemto makes an amount from the two halves of a 128-bit two's complement count of femto-units.
func FromFemto(hi int64, lo uint64) Amount { return Amount{hi, lo} }

// Femto returns the two halves of the 128-bit two's complement count of femto-units.
func (a Amount) Femto() (hi int64, lo uint64) { return a.hi, a.lo }

// Units returns n femto-units: how a count of tokens or requests is kept in a balance.
func Units(n int64) Amount { return Amount{n >> 63, uint64(n)} }

// Int64 returns the count of femto-units, and whether it fits an int64: the inverse of Units.
func (a Amount) Int64() (int64, bool) {
	n := int64(a.lo)
	return n, a.hi == n>>63
}

// Add returns a + b. It panics on overflow.
func (a Amount) Add(b Amount) Amount {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi := a.hi + b.hi + int64(carry)
	if (a.hi^hi)&(b.hi^hi) < 0 {
		overflow()
	}
	return Amount{hi, lo}
}

// Sub returns a − b. It panics on overflow.
func (a Amount) Sub(b Amount) Amount {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi := a.hi - b.hi - int64(borrow)
	if (a.hi^b.hi)&(a.hi^hi) < 0 {
		overflow()
	}
	return Amount{hi, lo}
}

// Neg returns −a. It panics on the one amount whose negative does not fit.
func (a Amount) Neg() Amount { return Amount{}.Sub(a) }

// Cmp returns -1, 0 or 1 as a is less than, equal to or greater than b.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a == b:
		return 0
	case a.hi < b.hi || a.hi == b.hi && a.lo < b.lo:
		return -1
	}
	return 1
}

// Sign returns -1, 0 or 1 as a is negative, zero or positive.
func (a Amount) Sign() int {
	switch {
	case a.hi < 0:
		return -1
	case a.IsZero():
		return 0
	}
	return 1
}

// IsZero reports whether a is 0.
func (a Amount) IsZero() bool { return a == Amount{} }

// Min returns the smaller of two amounts.
func Min(a, b Amount) Amount {
	if a.Cmp(b) <= 0 {
		return a
	}
	return b
}

// Max returns the larger of a and b.
func Max(a, b Amount) Amount {
	if b.Cmp(a) > 0 {
		return b
	}
	return a
}

// overflow is apart so that Add and Sub stay small enough to be inlined.
//
//go:noinline
func overflow() { panic("money: amount out of range") }
