package quota

import (
	"math/bits"
	"time"
)

// Rate is a pace that a node of the tree may not exceed: Burst at once, and PerMinute on average.
type Rate struct {
	PerMinute int64
	Burst     int64 // at least 1
}

// Pace is the state of a Rate, as the generic cell rate algorithm keeps it (ITU-T I.371): the theoretical time at which
// the next cell is due, in nanoseconds of the caller's monotonic clock.
type Pace struct{ due int64 }

// longest bounds what one request can be worth: a day. It also keeps the arithmetic within 64 bits.
const longest = int64(24 * time.Hour)

// step is the time that n cells are worth, rounded up, at most a day.
func (r Rate) step(n int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(time.Minute))
	if hi >= uint64(r.PerMinute) {
		return longest
	}
	t, rest := bits.Div64(hi, lo, uint64(r.PerMinute))
	if rest > 0 {
		t++
	}
	return int64(min(t, uint64(longest)))
}

// Take admits n cells at the instant now, or says how long to wait before they would fit. An n above the burst is
// judged as the burst: a single large request passes when the pace is at rest, and pays its whole length afterwards.
func (r Rate) Take(p Pace, now, n int64) (next Pace, ok bool, wait time.Duration) {
	due := max(p.due, now)
	full := now + r.step(r.Burst)
	if need := due + r.step(min(n, r.Burst)); need > full {
		return p, false, time.Duration(need - full)
	}
	return Pace{due + r.step(n)}, true, 0
}

// Give returns n cells that were taken and not used.
func (r Rate) Give(p Pace, n int64) Pace { return Pace{p.due - r.step(n)} }

// Left is how many cells would pass at once, and how long until the burst is whole again.
func (r Rate) Left(p Pace, now int64) (cells int64, reset time.Duration) {
	behind := max(0, p.due-now)
	one := max(1, r.step(1))
	return max(0, r.Burst-(behind+one-1)/one), time.Duration(behind)
}
