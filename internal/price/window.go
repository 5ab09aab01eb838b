package price

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"talea/internal/period"
	"talea/internal/resource"
)

// window is a time of day on some days in which prices are multiplied. It is half-open, on the clock of the book's zone,
// and belongs to the day on which it begins, also where it goes over midnight.
type window struct {
	Name       string   `json:"name"`
	Days       string   `json:"days"` // seven signs from Monday on, 1 or 0
	From       int64    `json:"from"` // minutes after midnight
	To         int64    `json:"to"`   // minutes after the same midnight, above From: beyond 1440 where it goes over midnight
	Multiplier int64    `json:"multiplier_ppm"`
	Except     []string `json:"except,omitempty"` // calendars: no window begins on their days

	pos resource.Pos
}

const (
	dayForm  = "2006-01-02"
	midnight = 24 * 60
)

var dayNames = [...]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// parseDays reads "mon-fri", "sun-thu", "sat" or several of them with commas.
func parseDays(text string) (string, error) {
	days := []byte("0000000")
	for _, part := range strings.Split(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, to := slices.Index(dayNames[:], first), slices.Index(dayNames[:], last)
		if from < 0 || to < 0 {
			return "", fmt.Errorf("days are like mon-fri, sun-thu or sat,sun, not %q", text)
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = '1'
			if d == to {
				break
			}
		}
	}
	return string(days), nil
}

// parseClock reads "22:00" into minutes after midnight; "24:00" is the end of the day.
func parseClock(text string) (int64, error) {
	at, err := time.Parse("15:04", text)
	switch {
	case text == "24:00":
		return midnight, nil
	case err != nil || len(text) != 5:
		return 0, fmt.Errorf("%q is not a time of day such as 22:00", text)
	}
	return int64(at.Hour()*60 + at.Minute()), nil
}

// on reports whether the window begins on a date, which is midnight UTC.
func (w *window) on(date time.Time, calendars map[string][]string) bool {
	if w.Days[(int(date.Weekday())+6)%7] != '1' {
		return false
	}
	text := date.Format(dayForm)
	for _, name := range w.Except {
		if slices.Contains(calendars[name], text) {
			return false
		}
	}
	return true
}

// span is the time of the window that begins on a date.
func (w *window) span(zone *time.Location, date time.Time) (from, to time.Time) {
	return period.Instant(zone, date.Add(time.Duration(w.From)*time.Minute)), period.Instant(zone, date.Add(time.Duration(w.To)*time.Minute))
}

// windowAt returns the window that contains an instant, nil for none, and a stretch of time around it, in UTC and
// half-open, in which that does not change. It is compiled from the calendar each time: a row is right for its stretch,
// and the row that was locked is in the log.
func (b *Book) windowAt(at time.Time) (in *window, from, to time.Time) {
	y, m, d := at.In(b.zone).Date()
	today := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	// A day's clock can be turned back over its midnight: then at is not within the day that its date begins.
	from, to = period.Instant(b.zone, today.AddDate(0, 0, -1)), period.Instant(b.zone, today.AddDate(0, 0, 2))
	for day := -3; day <= 2; day++ {
		date := today.AddDate(0, 0, day)
		for _, w := range b.windows {
			if !w.on(date, b.calendars) {
				continue
			}
			start, end := w.span(b.zone, date)
			switch {
			case !start.Before(end): // the clock goes over all of it
			case !at.Before(start) && at.Before(end):
				return w, start, end
			case !end.After(at) && end.After(from):
				from = end
			case start.After(at) && start.Before(to):
				to = start
			}
		}
	}
	return nil, from, to
}

// checkWindows tests the calendars and the windows.
func (b *Book) checkWindows(fault func(pos resource.Pos, err error)) {
	for _, name := range slices.Sorted(maps.Keys(b.calendars)) {
		if err := checkCalendar(b.calendars[name]); err != nil {
			fault(b.Pos, fmt.Errorf("calendar %s: %w", name, err))
		}
	}
	for i, w := range b.windows {
		if err := w.check(b.calendars); err != nil {
			fault(w.pos, fmt.Errorf("window %s: %w", w.Name, err))
			continue
		}
		for _, v := range b.windows[:i] {
			if v.Name == w.Name {
				fault(w.pos, fmt.Errorf("there are two windows %s", w.Name))
			} else if date, both := b.overlap(v, w); both {
				fault(w.pos, fmt.Errorf("windows %s and %s overlap on %s: a price has one multiplier of time", v.Name, w.Name, date))
			}
		}
	}
}

func checkCalendar(dates []string) error {
	if len(dates) == 0 {
		return errors.New("it has no days")
	}
	for i, text := range dates {
		if date, err := time.Parse(dayForm, text); err != nil || date.Year() < 1970 {
			return fmt.Errorf("%q is not a day that there is, such as 2026-12-25", text)
		}
		if slices.Contains(dates[:i], text) {
			return fmt.Errorf("%s is given twice", text)
		}
	}
	return nil
}

func (w *window) check(calendars map[string][]string) error {
	switch {
	case !nameForm.MatchString(w.Name):
		return errors.New("its name is not of letters, digits, '.', '_' and '-', at most 64")
	case len(w.Days) != 7 || strings.Trim(w.Days, "01") != "" || !strings.Contains(w.Days, "1"):
		return errors.New("it has no days")
	case w.From < 0 || w.From >= midnight || w.To <= w.From || w.To > w.From+midnight:
		return errors.New("it does not end after its beginning and within a day")
	case w.Multiplier < 1 || w.Multiplier > 1000*one:
		return errors.New("multiplier is not above 0 and at most 1000")
	}
	for _, name := range w.Except {
		if calendars[name] == nil {
			return fmt.Errorf("there is no calendar %q%s", name, didYouMean(name, slices.Sorted(maps.Keys(calendars))))
		}
	}
	return nil
}

func didYouMean(name string, known []string) string {
	if near := resource.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// overlap finds a date on which two windows have a minute in common, by the clock on the wall, which is the same as in
// UTC since later on the wall is never earlier. Calendars are finite: a week without any, and the days about each of
// theirs, are all the cases there are.
func (b *Book) overlap(v, w *window) (string, bool) {
	days := []time.Time{}
	for d := range 7 {
		days = append(days, time.Date(1, 1, 1+d, 0, 0, 0, 0, time.UTC)) // no calendar has these: see checkHead
	}
	for _, name := range append(slices.Clone(v.Except), w.Except...) {
		for _, text := range b.calendars[name] {
			if date, err := time.Parse(dayForm, text); err == nil {
				days = append(days, date.AddDate(0, 0, -1), date, date.AddDate(0, 0, 1))
			}
		}
	}
	for _, date := range days {
		if !v.on(date, b.calendars) {
			continue
		}
		for _, next := range []int64{-1, 0, 1} {
			shift := next * midnight
			if w.From+shift < v.To && v.From < w.To+shift && w.on(date.AddDate(0, 0, int(next)), b.calendars) {
				if date.Year() == 1 {
					return date.Format("Monday") + "s", true
				}
				return date.Format(dayForm), true
			}
		}
	}
	return "", false
}
