package period

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Anchor is where in the calendar the periods of a window begin: an hour of the day, a day of the week (1 is Monday), a
// day of the month, or, for quarters and years, a day of a month as month × 100 + day. 0 is where they begin by themselves.
// Stored: never given another meaning.
type Anchor uint16

var weekdays = [...]string{"", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

// daysIn is the longest that each month gets.
var daysIn = [...]int{0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// ParseAnchor reads an anchor of a window: "6" (o'clock) for a day, "friday" for a week, "15" for a month, "15" or "02-29"
// (month and day) for a quarter or a year. "" is none. Where a window begins by itself is no anchor.
func ParseAnchor(w Window, text string) (Anchor, error) {
	n, err := strconv.Atoi(text)
	plain := err == nil && strconv.Itoa(n) == text
	switch {
	case text == "":
		return 0, nil
	case w == Day && plain && n >= 0 && n < 24:
		return Anchor(n), nil
	case w == Month && plain && n >= 1 && n <= 31:
		return canonical(n, 1), nil
	case w == Week:
		for i, name := range weekdays {
			if i > 0 && name == text {
				return canonical(i, 1), nil
			}
		}
	case (w == Quarter || w == Year) && plain && n >= 1 && n <= 31:
		return canonical(100+n, 101), nil
	case w == Quarter || w == Year:
		month, day, _ := strings.Cut(text, "-")
		m, err1 := strconv.Atoi(month)
		d, err2 := strconv.Atoi(day)
		if err1 == nil && err2 == nil && len(month) == 2 && len(day) == 2 && m >= 1 && m <= 12 && d >= 1 && (d <= daysIn[m] || w == Quarter && d <= 31) {
			if w == Quarter { // any of its four months; some of them may have the day
				m = (m-1)%3 + 1
			}
			return canonical(m*100+d, 101), nil
		}
	}
	return 0, fmt.Errorf("anchor %q does not fit the window %s: %s", text, w, anchorHelp[w])
}

var anchorHelp = [...]string{
	0: "it has none", Hour: "it has none", Day: "give an hour from 0 to 23", Week: "give a day such as monday", Month: "give a day from 1 to 31",
	Quarter: "give a day from 1 to 31, or a month and day such as 02-15", Year: "give a day from 1 to 31, or a month and day such as 02-29", Total: "it has none",
}

// canonical is 0 where a window begins by itself.
func canonical(n, byItself int) Anchor {
	if n == byItself {
		return 0
	}
	return Anchor(n)
}

// Text writes an anchor of a window as ParseAnchor reads it, "" for none.
func (a Anchor) Text(w Window) string {
	switch {
	case a == 0 || !a.Fits(w):
		return ""
	case w == Week:
		return weekdays[a]
	case w == Quarter || w == Year:
		return fmt.Sprintf("%02d-%02d", a/100, a%100)
	}
	return strconv.Itoa(int(a))
}

// Fits reports whether periods of w can begin there.
func (a Anchor) Fits(w Window) bool {
	month, day := int(a/100), int(a%100)
	switch {
	case a == 0:
		return true
	case w == Day:
		return a < 24
	case w == Week:
		return a > 1 && a <= 7
	case w == Month:
		return a > 1 && a <= 31
	case w == Quarter:
		return a != 101 && month >= 1 && month <= 3 && day >= 1 && day <= 31
	case w == Year:
		return a != 101 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn[month]
	}
	return false
}

// weekday is the day on which weeks begin, as time.Weekday counts.
func (a Anchor) weekday() int { return max(int(a), 1) % 7 }

// months says how many months there are between two beginnings, and the month (counted from 0) and day of one of them.
func (a Anchor) months(w Window) (every, month, day int) {
	switch {
	case w == Month:
		return 1, 0, max(int(a), 1)
	case w == Quarter:
		every = 3
	default:
		every = 12
	}
	if a == 0 {
		return every, 0, 1
	}
	return every, int(a)/100 - 1, int(a) % 100
}

// monthOf counts the months since the year 0.
func monthOf(date time.Time) int { return date.Year()*12 + int(date.Month()) - 1 }

// dayOf returns the anchor's day in a month that monthOf counted, or the month's last day where it is shorter.
func (a Anchor) dayOf(w Window, month int) time.Time {
	_, _, day := a.months(w)
	last := time.Date(0, time.Month(month+2), 0, 0, 0, 0, 0, time.UTC).Day()
	return time.Date(0, time.Month(month+1), min(day, last), 0, 0, 0, 0, time.UTC)
}
