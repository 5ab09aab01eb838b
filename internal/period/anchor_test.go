package period

import (
	"math/rand"
	"testing"
	"time"
)

// TestAnchored has one instant a line and the period of it, in UTC: anniversaries on the 31st and on 29 February, and days
// that begin in an hour that is skipped or there twice (F029).
func TestAnchored(t *testing.T) {
	for _, c := range []struct {
		window           Window
		anchor, zone, at string
		label, start, to string
	}{
		{Month, "15", "Europe/Berlin", "2026-11-24T12:00:00Z", "month from 2026-11-15", "2026-11-14T23:00:00Z", "2026-12-14T23:00:00Z"},
		{Month, "15", "Europe/Berlin", "2026-11-14T22:59:59Z", "month from 2026-10-15", "2026-10-14T22:00:00Z", "2026-11-14T23:00:00Z"},
		{Month, "31", "UTC", "2026-02-15T00:00:00Z", "month from 2026-01-31", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"},
		{Month, "31", "UTC", "2026-02-28T00:00:00Z", "month from 2026-02-28", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"},
		{Month, "31", "UTC", "2024-02-29T00:00:00Z", "month from 2024-02-29", "2024-02-29T00:00:00Z", "2024-03-31T00:00:00Z"},
		{Month, "31", "UTC", "2026-04-30T00:00:00Z", "month from 2026-04-30", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"},
		{Month, "31", "UTC", "2026-05-30T23:59:59Z", "month from 2026-04-30", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"},
		{Month, "30", "UTC", "2027-03-01T00:00:00Z", "month from 2027-02-28", "2027-02-28T00:00:00Z", "2027-03-30T00:00:00Z"},
		{Month, "31", "Europe/Berlin", "2026-03-30T22:00:00Z", "month from 2026-03-31", "2026-03-30T22:00:00Z", "2026-04-29T22:00:00Z"},
		{Quarter, "15", "UTC", "2026-11-24T00:00:00Z", "quarter from 2026-10-15", "2026-10-15T00:00:00Z", "2027-01-15T00:00:00Z"},
		{Quarter, "15", "UTC", "2026-10-14T00:00:00Z", "quarter from 2026-07-15", "2026-07-15T00:00:00Z", "2026-10-15T00:00:00Z"},
		{Quarter, "02-29", "UTC", "2027-01-01T00:00:00Z", "quarter from 2026-11-29", "2026-11-29T00:00:00Z", "2027-02-28T00:00:00Z"},
		{Quarter, "11-30", "UTC", "2028-02-29T00:00:00Z", "quarter from 2028-02-29", "2028-02-29T00:00:00Z", "2028-05-30T00:00:00Z"},
		{Year, "02-29", "UTC", "2026-02-27T23:59:59Z", "year from 2025-02-28", "2025-02-28T00:00:00Z", "2026-02-28T00:00:00Z"},
		{Year, "02-29", "UTC", "2027-12-01T00:00:00Z", "year from 2027-02-28", "2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"},
		{Year, "02-29", "UTC", "2028-02-29T00:00:00Z", "year from 2028-02-29", "2028-02-29T00:00:00Z", "2029-02-28T00:00:00Z"},
		{Year, "04-01", "Europe/Berlin", "2027-03-31T21:59:59Z", "year from 2026-04-01", "2026-03-31T22:00:00Z", "2027-03-31T22:00:00Z"},
		{Week, "sunday", "Europe/Berlin", "2026-03-29T12:00:00Z", "week from 2026-03-29", "2026-03-28T23:00:00Z", "2026-04-04T22:00:00Z"},
		{Week, "tuesday", "UTC", "2026-11-23T23:59:59Z", "week from 2026-11-17", "2026-11-17T00:00:00Z", "2026-11-24T00:00:00Z"},
		{Day, "6", "Europe/Berlin", "2026-11-24T04:59:59Z", "2026-11-23 from 06:00", "2026-11-23T05:00:00Z", "2026-11-24T05:00:00Z"},
		{Day, "6", "Europe/Berlin", "2026-10-25T04:59:59Z", "2026-10-24 from 06:00", "2026-10-24T04:00:00Z", "2026-10-25T05:00:00Z"}, // 25 h
		{Day, "6", "Europe/Berlin", "2026-03-29T03:59:59Z", "2026-03-28 from 06:00", "2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"}, // 23 h
		{Day, "2", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29 from 02:00", "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}, // there is no 02:00
		{Day, "2", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25 from 02:00", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"}, // 02:00 is there twice: the first
		{Day, "1", "Africa/Cairo", "2026-04-23T22:00:00Z", "2026-04-24 from 01:00", "2026-04-23T22:00:00Z", "2026-04-24T22:00:00Z"},  // midnight is skipped to 01:00
		{Day, "23", "Africa/Cairo", "2026-10-29T21:30:00Z", "2026-10-29 from 23:00", "2026-10-29T20:00:00Z", "2026-10-30T21:00:00Z"}, // 23:00 is there twice
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ParseAnchor(c.window, c.anchor)
		if err != nil {
			t.Fatal(err)
		}
		p := Anchored(c.window, a, zone(t, c.zone), at)
		if got, to := p.Start.Format(time.RFC3339), p.End.Format(time.RFC3339); p.Label != c.label || got != c.start || to != c.to {
			t.Errorf("%s at %s %s %s is %s %s %s, want %s %s %s", c.window, c.anchor, c.zone, c.at, p.Label, got, to, c.label, c.start, c.to)
		}
	}
}

// TestAnchoredTiles: every anchor of every window tiles time as the windows by themselves do.
func TestAnchoredTiles(t *testing.T) {
	random := rand.New(rand.NewSource(2))
	for _, name := range []string{"UTC", "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe", "America/St_Johns", "America/Sao_Paulo", "Pacific/Apia"} {
		loc := zone(t, name)
		for w := Hour; w < Total; w++ {
			for a := Anchor(0); a < 1300; a++ {
				if !a.Fits(w) || random.Intn(8) > 0 && w > Week {
					continue
				}
				at := time.Unix(random.Int63n(4_000_000_000)-500_000_000, random.Int63n(1_000_000_000))
				p := Anchored(w, a, loc, at)
				if at.Before(p.Start) || !at.Before(p.End) {
					t.Fatalf("%s %s %d: %v is not in %v", name, w, a, at, p)
				}
				tiles(t, w, a, loc, p, 30)
			}
		}
	}
	for hour := range Anchor(24) { // straight through every change of the clocks
		tiles(t, Day, hour, zone(t, "Africa/Cairo"), Anchored(Day, hour, zone(t, "Africa/Cairo"), time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)), 365*2)
		tiles(t, Day, hour, zone(t, "America/St_Johns"), Anchored(Day, hour, zone(t, "America/St_Johns"), time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)), 365*2)
	}
}

func TestAnchorTexts(t *testing.T) {
	for _, c := range []struct {
		window     Window
		text, want string // want "-" is an error
	}{
		{Day, "0", ""}, {Day, "23", "23"}, {Day, "24", "-"}, {Day, "-1", "-"}, {Day, "06", "-"}, {Day, "monday", "-"},
		{Week, "monday", ""}, {Week, "friday", "friday"}, {Week, "5", "-"}, {Week, "Friday", "-"},
		{Month, "1", ""}, {Month, "31", "31"}, {Month, "32", "-"}, {Month, "0", "-"}, {Month, "02-29", "-"},
		{Quarter, "1", ""}, {Quarter, "15", "01-15"}, {Quarter, "08-31", "02-31"}, {Quarter, "02-32", "-"}, {Quarter, "10-01", ""},
		{Year, "01-01", ""}, {Year, "02-29", "02-29"}, {Year, "02-30", "-"}, {Year, "13-01", "-"}, {Year, "2-29", "-"}, {Year, "31", "01-31"},
		{Hour, "5", "-"}, {Total, "1", "-"}, {Hour, "", ""}, {Total, "", ""},
	} {
		a, err := ParseAnchor(c.window, c.text)
		switch {
		case (err != nil) != (c.want == "-"):
			t.Errorf("%s %q: %v", c.window, c.text, err)
		case err == nil && (a.Text(c.window) != c.want || !a.Fits(c.window)):
			t.Errorf("%s %q is %d, %q", c.window, c.text, a, a.Text(c.window))
		}
		if again, err := ParseAnchor(c.window, a.Text(c.window)); c.want != "-" && (err != nil || again != a) {
			t.Errorf("%s %q is read back as %d: %v", c.window, a.Text(c.window), again, err)
		}
	}
}
