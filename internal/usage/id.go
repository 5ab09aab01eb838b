package usage

import (
	"fmt"
	"strings"
)

// idDigits is Crockford's base 32 in lower case: no i, l, o, u, so that an id can be read out.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

const idPrefix = "req_"

// String returns the id as clients see it: "req_" and 13 digits, ordered as the numbers are.
func (id ID) String() string {
	var b [len(idPrefix) + 13]byte
	copy(b[:], idPrefix)
	for i, v := len(b)-1, uint64(id); i >= len(idPrefix); i, v = i-1, v>>5 {
		b[i] = idDigits[v&31]
	}
	return string(b[:])
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	digits, ok := strings.CutPrefix(s, idPrefix)
	if !ok || len(digits) != 13 {
		return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
	}
	var v uint64
	for i := range len(digits) {
		d := strings.IndexByte(idDigits, digits[i])
		if d < 0 || v>>59 != 0 {
			return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
		}
		v = v<<5 | uint64(d)
	}
	if int64(v) <= 0 {
		return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
	}
	return ID(v), nil
}
