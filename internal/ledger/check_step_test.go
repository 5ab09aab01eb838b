package ledger

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"talea/internal/account"
)

// A price tape that breaks a rule is found, though its chain is right.
func TestBrokenTape(t *testing.T) {
	type row struct {
		org  account.ID
		at   time.Time
		step PriceStep
	}
	honest := func() []row {
		a := PriceStep{Number: 1, Book: "public", From: monday.Add(time.Hour), Until: monday.Add(2 * time.Hour), PPM: 1_250_000}
		b := a
		b.Number, b.From, b.Until = 2, a.Until, a.Until.Add(time.Hour)
		return []row{{0, monday, a}, {0, monday, b}}
	}
	for _, c := range []struct {
		want  string
		spoil func(rows []row)
	}{
		{"", func([]row) {}},
		{"in the log of an organisation", func(r []row) { r[0].org, r[1].org = 7, 7 }},
		{"step 3 comes after step 1", func(r []row) { r[1].step.Number = 3 }},
		{"without a book or a multiplier", func(r []row) { r[1].step.PPM = 0 }},
		{"it ends before it begins", func(r []row) { r[1].step.Until = r[1].step.From }},
		{"published when it had begun already", func(r []row) { r[1].at = r[1].step.From }},
		{"begins before the step of price book public in front of it ends", func(r []row) { r[1].step.From = r[1].step.From.Add(-time.Microsecond) }},
	} {
		rows := honest()
		c.spoil(rows)
		m := &memory{epoch: 1, lastAt: rows[1].at.UnixMicro()}
		var hash Hash
		for i, r := range rows {
			body := appendStep(appendHeader(nil, &header{Kind: KindStep, Epoch: 1, Org: r.org, Seq: int64(i) + 1, At: r.at}), &r.step)
			hash = sha256.Sum256(append(hash[:], body...))
			m.entries = append(m.entries, EntryRow{Org: r.org, Seq: int64(i) + 1, Kind: KindStep, Hash: hash, Body: body})
		}
		m.heads = []HeadRow{{Org: rows[0].org, Seq: 2, Hash: hash, OpenFrom: 3}}
		report, err := Check(m)
		if err != nil || !strings.Contains(report.Difference, c.want) || c.want == "" && !report.OK() {
			t.Errorf("want %q, have %+v, %v", c.want, report, err)
		}
	}
}
