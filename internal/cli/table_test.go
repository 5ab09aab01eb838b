package cli

import (
	"bytes"
	"testing"
	"time"

	"talea/internal/admin"
)

func TestTable(t *testing.T) {
	x := &table{columns: []column{{"name", "name", text}, {"n", "requests", count}, {"amount", "charge", sum}, {"raw", "", hidden}, {"", "left", right}, {"note", "", text}}}
	x.add("=cmd|' /C calc'!A0", "1234567", "-0.5", "raw", "9 €", "@b")
	x.add("b\x1b[31m\u009b", "", "1234.0042", "-7", "10 €", "")
	x.totals = [][]string{{"total", "1234567", "", "", "", ""}}
	var people, programs bytes.Buffer
	if err := x.print(&people); err != nil {
		t.Fatal(err)
	}
	if err := x.csv(&programs); err != nil {
		t.Fatal(err)
	}
	const wantPeople = `name                 requests      charge  left
=cmd|' /C calc'!A0  1,234,567     -0.5000   9 €  @b
b?[31m?                     -  1,234.0042  10 €
──────────────────  ─────────  ──────────  ────  ──
total               1,234,567
`
	const wantPrograms = `name,n,amount,raw,note
'=cmd|' /C calc'!A0,1234567,-0.5,raw,'@b
` + "b\x1b[31m\u009b,,1234.0042,'-7,\n"
	if people.String() != wantPeople {
		t.Errorf("people see\n%swant\n%s", people.String(), wantPeople)
	}
	if programs.String() != wantPrograms {
		t.Errorf("programs see\n%swant\n%s", programs.String(), wantPrograms)
	}
}

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{"": "", "a=b": "a=b", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@a": "'@a", "\tx": "'\tx", "\rx": "'\rx", "ä": "ä"} {
		if got := harmless(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestGauge(t *testing.T) {
	for _, c := range []struct{ limit, used, held, gauge, left string }{
		{"100", "0", "0", "░░░░░░░░░░   0 %", "100.00 EUR"},
		{"100", "49.9999", "0", "████░░░░░░  49 %", "50.0001 EUR"},
		{"100", "50", "25.5", "███████░░░  75 %", "24.50 EUR"},
		{"100", "99.999999999999999", "0", "█████████░  99 %", "0.000000000000001 EUR"}, // not full while anything is left
		{"100", "100", "0", "██████████ 100 %", "nothing"},
		{"100", "130", "0", "██████████ 130 %", "nothing"}, // lowered after the fact
		{"0", "0", "0", "██████████ 100 %", "nothing"},
	} {
		l := &admin.Limit{Measure: "money", Currency: "EUR", Limit: c.limit, Used: c.used, Held: c.held}
		if gauge(l) != c.gauge || left(l) != c.left {
			t.Errorf("%s used and %s held of %s: %q, %q left", c.used, c.held, c.limit, gauge(l), left(l))
		}
	}
}

func TestUntil(t *testing.T) {
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.FixedZone("", 3600))
	for before, want := range map[time.Duration]string{
		49 * time.Hour: "in 2 days", 47 * time.Hour: "in 47 hours", 100 * time.Minute: "in 100 minutes", time.Second: "within 2 minutes", 0: "now", -time.Hour: "now",
	} {
		if got := until(at, at.Add(-before)); got != want+", Tue 1 Dec 2026 00:00 +01:00" {
			t.Errorf("%v before: %s", before, got)
		}
	}
}
