package usage

import "math/bits"

// Work is what the deterministic work of a request (work_ms) is made of: what one token costs a reference GPU by itself, in
// picoseconds. The zero Work is of a model whose size nobody told: its work is unknown, which is not 0.
type Work struct {
	Fixed   int64 // for a request that has any token
	Input   int64 // for each input token that no cache had
	Output  int64 // for each output token; not below Input
	Context int64 // for each pair of an output token and a token before it
}

// psPerMS is how many picoseconds a millisecond has.
const psPerMS = 1_000_000_000

// Known reports whether the work is known.
func (w Work) Known() bool { return w != Work{} }

// Of returns the work of the counts in milliseconds, rounded up once. It grows with every count.
func (w Work) Of(c *Counts) int64 {
	return w.ms(c.Input(), c.Input()-c.Get(InputCacheRead), c.Output())
}

// Most returns the most work that counts inside the bounds can have: MaxCount where it is unknown, so that nothing fits.
func (w Work) Most(b Bounds) int64 {
	if !w.Known() {
		return MaxCount
	}
	in, out := b.Input, b.Output
	if b.Joint > 0 { // output is the dearer of the two
		out = min(out, b.Joint)
		in = min(in, b.Joint-out)
	}
	return w.ms(in, in, out)
}

// ms is the work of so many tokens, at most MaxCount.
func (w Work) ms(in, computed, out int64) int64 {
	if in+out == 0 {
		return 0
	}
	// An output token looks at the prompt and at the half of the output that is there on average: in·out + out²/2.
	high, low := bits.Mul64(uint64(out), uint64(2*in+out))
	pairs, rest := bits.Div64(high&1, low, 2)
	if pairs += rest; w.Context == 0 {
		pairs = 0
	} else if high > 1 {
		return MaxCount
	}
	sum := uint64(w.Fixed)
	for _, part := range [...][2]uint64{{uint64(w.Input), uint64(computed)}, {uint64(w.Output), uint64(out)}, {uint64(w.Context), pairs}} {
		over, ps := bits.Mul64(part[0], part[1])
		var carry uint64
		if sum, carry = bits.Add64(sum, ps, 0); over+carry > 0 {
			return MaxCount // more than half a year
		}
	}
	ms := sum / psPerMS
	if sum%psPerMS > 0 {
		ms++
	}
	return int64(ms)
}
