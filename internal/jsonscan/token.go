package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// literal returns the end and kind of the null, true or false at i; the end is i where there is none.
func literal(b []byte, i int) (int, Kind) {
	rest := b[i:]
	switch {
	case len(rest) >= 4 && string(rest[:4]) == "null":
		return i + 4, Null
	case len(rest) >= 4 && string(rest[:4]) == "true":
		return i + 4, Bool
	case len(rest) >= 5 && string(rest[:5]) == "false":
		return i + 5, Bool
	}
	return i, Null
}

// number returns the end of the number at i, or where it goes wrong.
func number(b []byte, i int) (end int, ok bool) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i, ok = digits(b, i); !ok {
		return i, false
	}
	if i < len(b) && b[i] == '.' {
		if i, ok = digits(b, i+1); !ok {
			return i, false
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i, ok = digits(b, i); !ok {
			return i, false
		}
	}
	return i, true
}

// digits returns the end of the digits at i and whether there is one.
func digits(b []byte, i int) (int, bool) {
	start := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i, i > start
}

// Int reads a number written as an integer: no fraction, no exponent, within int64.
func Int(b []byte) (int64, bool) {
	end, ok := number(b, 0)
	if !ok || end != len(b) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
}

// Eight bytes at a time.
const (
	ones        = 0x0101010101010101
	highs       = 0x80 * ones
	quotes      = '"' * ones
	backslashes = '\\' * ones
)

// plain returns the first place from i on that ends a run of plain characters of a string: a quote, a backslash, a
// control character or the end of b; and whether the run may have bytes outside ASCII. This is the loop that a long
// prompt is read by.
func plain(b []byte, i int) (end int, wide bool) {
	var seen uint64
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		seen |= x
		// A byte's high bit is set in stop where the byte is a quote, a backslash or below 0x20. Above the lowest such
		// byte a borrow may set more; only the lowest is looked at.
		stop := ((x - 0x20*ones) | ((x ^ quotes) - ones) | ((x ^ backslashes) - ones)) & ^x & highs
		if stop != 0 {
			return i + bits.TrailingZeros64(stop)/8, seen&highs != 0
		}
	}
	for ; i < len(b) && b[i] >= 0x20 && b[i] != '"' && b[i] != '\\'; i++ {
		seen |= uint64(b[i])
	}
	return i, seen&highs != 0
}

// strictString returns the end of the string that begins at i, and whether it has escapes.
func strictString(b []byte, i int) (end int, escaped bool, err error) {
	start, wide := i, false
	for i++; ; {
		at, w := plain(b, i)
		i, wide = at, wide || w
		switch {
		case i == len(b):
			return i, escaped, fault(i, truncated)
		case b[i] == '"':
			if wide && !utf8.Valid(b[start:i]) {
				return i, escaped, fault(invalidUTF8(b, start), "invalid UTF-8")
			}
			return i + 1, escaped, nil
		case b[i] == '\\':
			_, next, ok := escape(b, i)
			if !ok {
				return i, escaped, fault(i, "invalid escape")
			}
			i, escaped = next, true
		default:
			return i, escaped, fault(i, "control character in a string")
		}
	}
}

// invalidUTF8 returns the place of the first byte from i on that is not UTF-8.
func invalidUTF8(b []byte, i int) int {
	for i < len(b) {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	return i
}

// escape reads the escape at i, two halves of a surrogate pair as one. A lone surrogate is the replacement character
// and not ok; next is then behind it. A malformed escape has next = i.
func escape(b []byte, i int) (r rune, next int, ok bool) {
	if i+1 >= len(b) {
		return 0, i, false
	}
	switch c := b[i+1]; c {
	case '"', '\\', '/':
		return rune(c), i + 2, true
	case 'b':
		return '\b', i + 2, true
	case 'f':
		return '\f', i + 2, true
	case 'n':
		return '\n', i + 2, true
	case 'r':
		return '\r', i + 2, true
	case 't':
		return '\t', i + 2, true
	case 'u':
		r, ok = hex4(b, i+2)
		if !ok {
			return 0, i, false
		}
		if !utf16.IsSurrogate(r) {
			return r, i + 6, true
		}
		if i+7 < len(b) && b[i+6] == '\\' && b[i+7] == 'u' {
			if low, ok := hex4(b, i+8); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, i + 12, true
				}
			}
		}
		return utf8.RuneError, i + 6, false
	}
	return 0, i, false
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// Unquote appends the text of the JSON string b, which has its quotes, to dst. A lone surrogate becomes the replacement
// character; bytes that are not UTF-8 stay as they are (Strict lets neither pass, engines send both). It returns dst as
// it was and false where b is not a string.
func Unquote(dst, b []byte) ([]byte, bool) {
	if len(b) < 2 || b[0] != '"' {
		return dst, false
	}
	out := dst
	for i := 1; ; {
		end, _ := plain(b, i)
		out = append(out, b[i:end]...)
		switch {
		case end == len(b):
			return dst, false
		case b[end] == '"':
			if end+1 != len(b) {
				return dst, false
			}
			return out, true
		case b[end] != '\\':
			return dst, false
		}
		r, next, _ := escape(b, end)
		if next == end {
			return dst, false
		}
		out = utf8.AppendRune(out, r)
		i = next
	}
}

// AppendQuote appends s as a JSON string. What is not UTF-8 in s becomes the replacement character.
func AppendQuote(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
