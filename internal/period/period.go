// Package period cuts time into the calendar windows of budgets and price books: an hour, a day, a month of a zone, as
// a period in UTC. It does not keep periods or count anything in them (ledger does) and has no clock.
//
// # Invariants
//
//   - Of(w, loc, at) and Anchored(w, a, loc, at) contain at.
//   - The periods of a window, an anchor and a zone tile time: each begins where the one before it ends, and none is empty.
//   - No two periods of a window, an anchor and a zone have one label.
//   - A day begins at the first instant whose local date is that day's or later, also where the zone has no midnight or
//     has it twice. Weeks begin on Monday (ISO 8601).
//   - A day that a month does not have is its last one: an anchor on the 31st begins on 30 April, on 28 or 29 February.
//
// Start reading at Of, then Anchored.
package period

import (
	"fmt"
	"time"
)

// Window is a length of calendar time. Stored: append only. The zero Window is none.
type Window uint8

// The windows.
const (
	Hour Window = iota + 1
	Day
	Week
	Month
	Quarter
	Year
	Total // all of time in one period
)

var windowNames = [...]string{Hour: "hour", Day: "day", Week: "week", Month: "month", Quarter: "quarter", Year: "year", Total: "total"}

// String returns the window's word in resources and answers.
func (w Window) String() string {
	if w == 0 || int(w) >= len(windowNames) {
		return "unknown"
	}
	return windowNames[w]
}

// Parse finds a window by its word.
func Parse(name string) (Window, error) {
	for w, n := range windowNames {
		if n == name && w > 0 {
			return Window(w), nil
		}
	}
	return 0, fmt.Errorf("unknown window %q; known are hour, day, week, month, quarter, year, total", name)
}

// Zone loads an IANA time zone such as "Europe/Berlin". Unlike time.LoadLocation it refuses "Local" and "", which would
// make a bill depend on the machine that writes it. The program embeds the zones (time/tzdata) for machines without.
func Zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("time zone %q is not an IANA zone such as Europe/Berlin or UTC", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is unknown; give an IANA zone such as Europe/Berlin or UTC", name)
	}
	return loc, nil
}

// Period is one piece of time, in UTC, half-open: [Start, End). The period of Total has neither.
type Period struct {
	// Label names the period for people in its zone: "2026-11-24T13+01:00", "2026-11-24", "2026-W48", "2026-11", "2026-Q4",
	// "2026", "total"; with an anchor "2026-11-24 from 06:00", "month from 2026-11-15".
	Label      string
	Start, End time.Time
}

// Of returns the period of w in the zone that contains at. A w that is no window is a bug of the caller and panics.
func Of(w Window, loc *time.Location, at time.Time) Period { return Anchored(w, 0, loc, at) }

// Anchored returns the period of w in the zone that contains at, where periods of w begin at an anchor. An anchor that w
// does not have is a bug of the caller and panics, as does a w that is no window.
func Anchored(w Window, a Anchor, loc *time.Location, at time.Time) Period {
	switch {
	case w == 0 || w > Total || !a.Fits(w):
		panic("period: no such window")
	case w == Total:
		return Period{Label: "total"}
	case w == Hour:
		return hourOf(loc, at)
	}
	hour := 0
	if w == Day {
		hour = int(a)
	}
	first := firstDay(w, a, dateOf(at.In(loc), hour))
	start := dayStart(loc, first, hour)
	// Where a zone turns its clocks back over midnight, the local date goes back as well; the period does not.
	for {
		next := nextFirst(w, a, first)
		end := dayStart(loc, next, hour)
		if at.Before(end) {
			return Period{label(w, a, first), start, end}
		}
		first, start = next, end
	}
}

// A date is midnight UTC of a calendar day, whatever the zone it is meant in. Of a time before that hour it is the day
// before.
func dateOf(local time.Time, hour int) time.Time {
	y, m, d := local.Date()
	if local.Hour() < hour {
		d--
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// firstDay returns the first date of the window that the date lies in.
func firstDay(w Window, a Anchor, date time.Time) time.Time {
	switch w {
	case Day:
		return date
	case Week:
		return date.AddDate(0, 0, -(int(date.Weekday())+7-a.weekday())%7)
	}
	every, month, _ := a.months(w)
	n := monthOf(date)
	n -= ((n-month)%every + every) % every
	first := a.dayOf(w, n)
	if date.Before(first) { // the window before, whose last day this month has
		first = a.dayOf(w, n-every)
	}
	return first
}

// nextFirst returns the first date of the next window.
func nextFirst(w Window, a Anchor, first time.Time) time.Time {
	switch w {
	case Day:
		return first.AddDate(0, 0, 1)
	case Week:
		return first.AddDate(0, 0, 7)
	}
	every, _, _ := a.months(w)
	return a.dayOf(w, monthOf(first)+every)
}

func label(w Window, a Anchor, first time.Time) string {
	switch {
	case w == Day && a != 0:
		return fmt.Sprintf("%s from %02d:00", first.Format("2006-01-02"), a)
	case w == Day:
		return first.Format("2006-01-02")
	case a != 0:
		return w.String() + " from " + first.Format("2006-01-02")
	}
	switch w {
	case Week:
		y, week := first.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", y, week)
	case Month:
		return first.Format("2006-01")
	case Quarter:
		return fmt.Sprintf("%04d-Q%d", first.Year(), (first.Month()+2)/3)
	}
	return first.Format("2006")
}

// farthest is more than any zone has ever been off UTC, in seconds.
const farthest = 16 * 3600

// dayStart returns the first instant whose local time is the given hour of the given date or later.
func dayStart(loc *time.Location, date time.Time, hour int) time.Time {
	return Instant(loc, date.Add(time.Duration(hour)*time.Hour))
}

// Instant returns the first instant at which the zone's clock shows wall, which is given in UTC, or later. time.Date does
// not: of a time of day that the zone skips or has twice it returns one of two instants, and does not say which.
func Instant(loc *time.Location, wall time.Time) time.Time {
	utc := wall.Unix()
	from, to := utc-farthest, utc+farthest
	before, after := offset(loc, from), offset(loc, to)
	first := utc - before
	if before != after {
		if change := changeOf(loc, from, to); first >= change {
			first = max(change, utc-after) // change: the clock went over it
		}
	}
	return time.Unix(first, 0).UTC()
}

// hourOf returns the hour of the zone's clock that contains at. An hour is cut where the clocks change in it, so that
// each has one offset from UTC, which its label tells.
func hourOf(loc *time.Location, at time.Time) Period {
	now := at.Unix()
	this := offset(loc, now)
	into := (now + this) % 3600
	if into < 0 {
		into += 3600
	}
	start := now - into
	end := start + 3600
	if offset(loc, start) != this {
		start = changeOf(loc, start, now)
	}
	if offset(loc, end-1) != this {
		end = changeOf(loc, now, end-1)
	}
	return Period{at.In(loc).Format("2006-01-02T15-07:00"), time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC()}
}

// offset is what the zone's clock is ahead of UTC at a Unix time, in seconds.
func offset(loc *time.Location, unix int64) int64 {
	_, seconds := time.Unix(unix, 0).In(loc).Zone()
	return int64(seconds)
}

// changeOf returns the first second after from with another offset than from's, given that to, later, has another. No
// zone changes its clocks twice in so short a time. It searches, because Time.ZoneBounds is wrong at the end of leap
// years beyond a zone's table: Berlin on 2040-12-31 "ends" at its own midnight.
func changeOf(loc *time.Location, from, to int64) int64 {
	first := offset(loc, from)
	for to-from > 1 {
		if middle := from + (to-from)/2; offset(loc, middle) == first {
			from = middle
		} else {
			to = middle
		}
	}
	return to
}
