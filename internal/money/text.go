package money

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	decimals = 15
	unit     = 1_000_000_000_000_000 // femto-units of a major unit
)

// maxText bounds the text of an amount: a sign, 24 digits, a point and 15 decimals.
const maxText = 1 + 24 + 1 + decimals

// ParseAmount reads a decimal string exactly: an optional '-', digits without leading zeros, and at most 15 decimals
// after a '.'. Exponents, '+', blanks, commas and digits that do not fit are errors; nothing is ever rounded.
func ParseAmount(s string) (Amount, error) {
	text, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(text, ".")
	switch {
	case len(s) > maxText:
		return Amount{}, fmt.Errorf("amount of %d characters is too long; at most 24 digits and 15 decimals", len(s))
	case !digits(whole) || point && !digits(fraction) || len(whole) > 1 && whole[0] == '0':
		return Amount{}, fmt.Errorf("%q is not a decimal amount such as \"12\", \"0.0042\" or \"-0.5\"", s)
	case len(fraction) > decimals:
		return Amount{}, fmt.Errorf("amount %q has %d decimals; at most 15", s, len(fraction))
	}
	var w wide
	for i := range len(whole) + decimals {
		w.times(10)
		switch j := i - len(whole); {
		case j < 0:
			w.plus(uint64(whole[i] - '0'))
		case j < len(fraction):
			w.plus(uint64(fraction[j] - '0'))
		}
	}
	if lowest := (wide{0, 1 << 63}); !w.fits() && !(negative && w == lowest) {
		return Amount{}, fmt.Errorf("amount %q is too large", s)
	}
	return w.amount(negative), nil
}

// digits reports whether s is one or more of 0-9.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// String returns the shortest exact decimal: "0.0042", "12", "-0.5", "0".
func (a Amount) String() string {
	var buf [maxText]byte
	return string(a.Append(buf[:0]))
}

// Append appends what String returns to dst.
func (a Amount) Append(dst []byte) []byte {
	if a.hi < 0 {
		dst = append(dst, '-')
	}
	w := magnitude(a)
	fraction := w.div(unit)
	if low := w.div(unit); w[0] != 0 { // at most 24 digits: two pieces, the lower with its leading zeros
		dst = strconv.AppendUint(dst, w[0], 10)
		dst = appendPadded(dst, low)
	} else {
		dst = strconv.AppendUint(dst, low, 10)
	}
	if fraction == 0 {
		return dst
	}
	dst = appendPadded(append(dst, '.'), fraction)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// appendPadded appends n < 10^15 as 15 digits.
func appendPadded(dst []byte, n uint64) []byte {
	var buf [decimals]byte
	for i := decimals - 1; i >= 0; i-- {
		buf[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, buf[:]...)
}

// AppendBinary appends the 16 bytes of the count of femto-units, big-endian two's complement.
func (a Amount) AppendBinary(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.hi))
	return binary.BigEndian.AppendUint64(dst, a.lo)
}

// AmountFromBinary reads what AppendBinary wrote. b must be 16 bytes.
func AmountFromBinary(b []byte) (Amount, error) {
	if len(b) != 16 {
		return Amount{}, fmt.Errorf("amount has %d bytes, not 16", len(b))
	}
	return Amount{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])}, nil
}

// MarshalJSON writes the amount as a decimal string: a JSON number would be read as a float somewhere.
func (a Amount) MarshalJSON() ([]byte, error) {
	buf := make([]byte, 1, maxText+2)
	buf[0] = '"'
	return append(a.Append(buf), '"'), nil
}

// UnmarshalJSON reads a decimal string. A JSON number is refused.
func (a *Amount) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errors.New("amount is not a JSON string with a decimal")
	}
	parsed, err := ParseAmount(string(b[1 : len(b)-1]))
	if err == nil {
		*a = parsed
	}
	return err
}
