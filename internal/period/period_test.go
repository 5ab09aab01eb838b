package period

import (
	"math/rand"
	"testing"
	"time"
	_ "time/tzdata" // as the program does, for machines without zones
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := Zone(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// TestOf has one instant a line and the period of it, in UTC.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		window           Window
		zone, at         string
		label, start, to string
	}{
		// Ordinary days.
		{Hour, "Europe/Berlin", "2026-11-24T12:30:00Z", "2026-11-24T13+01:00", "2026-11-24T12:00:00Z", "2026-11-24T13:00:00Z"},
		{Day, "Europe/Berlin", "2026-11-24T23:00:00Z", "2026-11-25", "2026-11-24T23:00:00Z", "2026-11-25T23:00:00Z"},
		{Day, "Europe/Berlin", "2026-11-24T22:59:59Z", "2026-11-24", "2026-11-23T23:00:00Z", "2026-11-24T23:00:00Z"},
		{Week, "Europe/Berlin", "2026-11-24T12:00:00Z", "2026-W48", "2026-11-22T23:00:00Z", "2026-11-29T23:00:00Z"},
		{Month, "Europe/Berlin", "2026-11-24T12:00:00Z", "2026-11", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"},
		{Quarter, "Europe/Berlin", "2026-11-24T12:00:00Z", "2026-Q4", "2026-09-30T22:00:00Z", "2026-12-31T23:00:00Z"},
		{Year, "Europe/Berlin", "2026-11-24T12:00:00Z", "2026", "2025-12-31T23:00:00Z", "2026-12-31T23:00:00Z"},
		{Month, "UTC", "2024-02-29T12:00:00Z", "2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"},
		// The ISO year of a week is not the calendar's.
		{Week, "UTC", "2027-01-01T00:00:00Z", "2026-W53", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"},
		{Week, "UTC", "2024-12-31T00:00:00Z", "2025-W01", "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"},
		// Berlin: 23 and 25 hours; the hour that is there twice, and the one that is not there.
		{Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{Hour, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T02+02:00", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"},
		{Hour, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02+01:00", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"},
		{Hour, "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T03+02:00", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		// Cairo: summer time begins at midnight, which is skipped, and ends at the end of a Thursday.
		{Day, "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{Day, "Africa/Cairo", "2026-04-23T21:59:59Z", "2026-04-23", "2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z"},
		{Day, "Africa/Cairo", "2026-10-29T21:30:00Z", "2026-10-29", "2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z"},
		{Month, "Africa/Cairo", "2026-10-31T22:00:00Z", "2026-11", "2026-10-31T22:00:00Z", "2026-11-30T22:00:00Z"},
		// Sao Paulo, while it had summer time: it began by skipping midnight of a Sunday, and ended over midnight.
		{Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"},
		{Day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"},
		{Day, "America/Sao_Paulo", "2026-11-24T12:00:00Z", "2026-11-24", "2026-11-24T03:00:00Z", "2026-11-25T03:00:00Z"},
		// Kathmandu: a quarter of an hour.
		{Day, "Asia/Kathmandu", "2026-11-24T18:15:00Z", "2026-11-25", "2026-11-24T18:15:00Z", "2026-11-25T18:15:00Z"},
		{Hour, "Asia/Kathmandu", "2026-11-24T18:14:59Z", "2026-11-24T23+05:45", "2026-11-24T17:15:00Z", "2026-11-24T18:15:00Z"},
		// Lord Howe: the clocks change by half an hour, so an hour of the clock is cut in two.
		{Day, "Australia/Lord_Howe", "2026-04-05T00:00:00Z", "2026-04-05", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z"},
		{Hour, "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T01+11:00", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"},
		{Hour, "Australia/Lord_Howe", "2026-04-04T15:00:00Z", "2026-04-05T01+10:30", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"},
		{Hour, "Australia/Lord_Howe", "2026-10-03T15:45:00Z", "2026-10-04T02+11:00", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"},
		// St. John's in 2010: back from one minute past midnight; the date goes back, the period does not.
		{Day, "America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		{Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"},
		// The end of a leap year that no table of the zone reaches.
		{Day, "Europe/Berlin", "2040-12-31T12:00:00Z", "2040-12-31", "2040-12-30T23:00:00Z", "2040-12-31T23:00:00Z"},
		{Day, "Australia/Lord_Howe", "2040-12-31T12:00:00Z", "2040-12-31", "2040-12-30T13:00:00Z", "2040-12-31T13:00:00Z"},
		// Apia had no 30 December 2011.
		{Day, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"},
		{Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		p := Of(c.window, zone(t, c.zone), at)
		if got, to := p.Start.Format(time.RFC3339), p.End.Format(time.RFC3339); p.Label != c.label || got != c.start || to != c.to {
			t.Errorf("%s %s %s is %s %s %s, want %s %s %s", c.window, c.zone, c.at, p.Label, got, to, c.label, c.start, c.to)
		}
	}
	if p := Of(Total, time.UTC, time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)); p.Label != "total" || !p.Start.IsZero() || !p.End.IsZero() {
		t.Errorf("total is %+v", p)
	}
}

// TestTiles: from any instant, the periods of a window contain it, have neither gap nor overlap and no label twice. I14.
func TestTiles(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for _, name := range []string{
		"UTC", "Europe/Berlin", "Africa/Cairo", "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Asia/Tehran", "Europe/London", "Africa/Casablanca",
	} {
		loc := zone(t, name)
		for w := Hour; w < Total; w++ {
			for range 20 {
				at := time.Unix(random.Int63n(4_000_000_000)-500_000_000, random.Int63n(1_000_000_000)) // 1954 to 2080
				p := Of(w, loc, at)
				if at.Before(p.Start) || !at.Before(p.End) {
					t.Fatalf("%s %s: %v is not in %v", name, w, at, p)
				}
				tiles(t, w, 0, loc, p, 40)
			}
		}
	}
	for _, name := range []string{"Europe/Berlin", "Australia/Lord_Howe"} {
		tiles(t, Hour, 0, zone(t, name), Of(Hour, zone(t, name), time.Date(2040, 12, 25, 0, 0, 0, 0, time.UTC)), 24*14)
	}
	// Straight through every change of the clocks of three hard zones.
	tiles(t, Hour, 0, zone(t, "Australia/Lord_Howe"), Of(Hour, zone(t, "Australia/Lord_Howe"), time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)), 24*200)
	tiles(t, Day, 0, zone(t, "America/St_Johns"), Of(Day, zone(t, "America/St_Johns"), time.Date(1985, 1, 1, 0, 0, 0, 0, time.UTC)), 365*30)
	tiles(t, Hour, 0, zone(t, "America/St_Johns"), Of(Hour, zone(t, "America/St_Johns"), time.Date(2010, 11, 1, 0, 0, 0, 0, time.UTC)), 24*14)
	tiles(t, Day, 0, zone(t, "Africa/Cairo"), Of(Day, zone(t, "Africa/Cairo"), time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC)), 365*25)
}

func tiles(t *testing.T, w Window, a Anchor, loc *time.Location, p Period, n int) {
	t.Helper()
	seen := map[string]bool{}
	for range n {
		if seen[p.Label] || p.Start.Location() != time.UTC || p.End.Location() != time.UTC || !p.Start.Before(p.End) {
			t.Fatalf("%s %s %d: bad period %v", loc, w, a, p)
		}
		seen[p.Label] = true
		if last := Anchored(w, a, loc, p.End.Add(-1)); last != p {
			t.Fatalf("%s %s %d: the last instant of %v is in %v", loc, w, a, p, last)
		}
		if first := Anchored(w, a, loc, p.Start); first != p {
			t.Fatalf("%s %s %d: the first instant of %v is in %v", loc, w, a, p, first)
		}
		next := Anchored(w, a, loc, p.End)
		if next.Start != p.End {
			t.Fatalf("%s %s %d: %v is followed by %v", loc, w, a, p, next)
		}
		p = next
	}
}

func TestWindowNames(t *testing.T) {
	for w := Hour; w <= Total; w++ {
		if got, err := Parse(w.String()); err != nil || got != w {
			t.Errorf("%d is %s is %d: %v", w, w, got, err)
		}
	}
	for _, name := range []string{"", "unknown", "Month", "minute"} {
		if w, err := Parse(name); err == nil {
			t.Errorf("%q is %s", name, w)
		}
	}
	if Window(0).String() != "unknown" || Window(99).String() != "unknown" {
		t.Error("a number that is no window has a name")
	}
	// Stored numbers.
	if Hour != 1 || Day != 2 || Week != 3 || Month != 4 || Quarter != 5 || Year != 6 || Total != 7 {
		t.Error("a window was renumbered")
	}
}

func TestZoneRefuses(t *testing.T) {
	for _, name := range []string{"", "Local", "Europe/Berln", "../etc/passwd", "CEST"} {
		if loc, err := Zone(name); err == nil {
			t.Errorf("%q is %s", name, loc)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	loc := zone(b, "Europe/Berlin")
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for w := Hour; w <= Total; w++ {
		b.Run(w.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Of(w, loc, at)
			}
		})
	}
}
