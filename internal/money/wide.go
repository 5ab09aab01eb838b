package money

import "math/bits"

// wide is an unsigned 256-bit integer, least significant limb first: room for a product before it is divided.
type wide [4]uint64

// magnitude returns |a|.
func magnitude(a Amount) wide {
	if a.hi < 0 {
		lo, borrow := bits.Sub64(0, a.lo, 0)
		hi, _ := bits.Sub64(0, uint64(a.hi), borrow)
		return wide{lo, hi}
	}
	return wide{a.lo, uint64(a.hi)}
}

// amount returns w with a sign. It panics when w does not fit.
func (w wide) amount(negative bool) Amount {
	if !w.fits() {
		if negative && w == (wide{0, 1 << 63}) {
			return Amount{-1 << 63, 0}
		}
		overflow()
	}
	a := Amount{int64(w[1]), w[0]}
	if negative {
		return a.Neg()
	}
	return a
}

// fits reports whether w is a non-negative amount.
func (w wide) fits() bool { return w[3]|w[2]|w[1]>>63 == 0 }

// times multiplies w by m. It panics on overflow.
func (w *wide) times(m uint64) {
	var carry uint64
	for i, limb := range w {
		hi, lo := bits.Mul64(limb, m)
		var c uint64
		w[i], c = bits.Add64(lo, carry, 0)
		carry = hi + c
	}
	if carry != 0 {
		overflow()
	}
}

// timesAmount multiplies w, of at most 128 bits, by a, which is not negative: the product always fits.
func (w *wide) timesAmount(a Amount) {
	low, high := *w, *w
	low.times(a.lo)
	high.times(uint64(a.hi))
	var carry uint64
	w[0] = low[0]
	for i := 1; i < len(w); i++ {
		w[i], carry = bits.Add64(low[i], high[i-1], carry)
	}
}

// plus adds n to w. It panics on overflow.
func (w *wide) plus(n uint64) {
	for i := range w {
		w[i], n = bits.Add64(w[i], n, 0)
	}
	if n != 0 {
		overflow()
	}
}

// div divides w by d and returns the remainder.
func (w *wide) div(d uint64) (rem uint64) {
	for i := len(w) - 1; i >= 0; i-- {
		w[i], rem = bits.Div64(rem, w[i], d)
	}
	return rem
}

// divHalfEven divides w by every divisor in turn and rounds the whole once, half to even. Each divisor after the first
// is even, so that the remainders before the last can only break a tie.
func (w *wide) divHalfEven(divisors ...uint64) {
	var rem, d uint64
	sticky := false
	for _, d = range divisors {
		sticky = sticky || rem != 0
		rem = w.div(d)
	}
	switch half := d - rem; {
	case rem > half, rem == half && (sticky || w[0]&1 == 1):
		w.plus(1)
	}
}
