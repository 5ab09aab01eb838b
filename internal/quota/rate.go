package quota

import "time"

// Rate is a pace that a node of the tree may not exceed: Burst at once, and PerMinute on average.
type Rate struct {
	PerMinute int64
	Burst     int64 // at least 1
}

// Pace is the state of a Rate, as the generic cell rate algorithm keeps it (ITU-T I.371): the theoretical time at which
// the next cell is due, in nanoseconds of the caller's monotonic clock.
type Pace struct{ due int64 }

// step is the time that n cells are worth.
func (r Rate) step(n int64) int64 {
	return int64(time.Minute) / r.PerMinute * n
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
	return max(0, r.Burst-(behind+r.step(1)-1)/r.step(1)), time.Duration(behind)
}
