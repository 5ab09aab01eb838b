package ledger

import (
	"strings"
	"testing"

	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/usage"
)

// The checker rates steps by itself, and knows which counter a hold must name. I7.
func TestCheckFindsWrongSteps(t *testing.T) {
	for _, x := range []struct {
		want string
		edit func(*script)
	}{
		{"", func(*script) {}},
		{"", func(s *script) { // packages of 100
			f := &s.row.Forms[0]
			f.Kind, f.Package, f.Steps = price.Package, 100, []price.Step{{Rate: rateOf(7)}}
			free := func(l usage.Line) usage.Line { l.UnitPrice, l.Amount = rateOf(0), money.Amount{}; return l }
			started := func(m usage.Meter, n int64) usage.Line {
				return usage.Line{Meter: m, Kind: usage.LinePackage, Quantity: n, UnitPrice: rateOf(7), Amount: money.Units(7 * n)}
			}
			l := s.result.Lines
			l[1].Quantity = 100
			l[4].UnitPrice, l[4].Amount = rateOf(472), money.Units(472)
			s.result.Lines = []usage.Line{free(l[0]), started(0, 3), free(l[1]), started(1, 1), l[3], l[4]}
		}},
		{"", func(s *script) { // the whole request at the step that its input falls in
			f := &s.row.Forms[0]
			f.Kind, f.Counter, f.Scope, f.Window, f.Zone = price.LongContext, "", "", 0, ""
			s.counts, s.hold.counted = nil, nil
			l := s.result.Lines
			l[0].UnitPrice, l[0].Amount, l[2].Quantity, l[2].Amount = rateOf(2), money.Units(600), 100, money.Units(200)
			s.result.Lines, s.result.Charge = []usage.Line{l[0], l[2], l[3]}, money.Units(1400)
		}},
		{"are billed, but the line is missing or says otherwise", func(s *script) { s.result.Lines[1].Quantity = 51 }},
		{"has the unit price 1; locked was 2", func(s *script) { s.result.Lines[2].UnitPrice = rateOf(1) }},
		{"50 × 2 = 101; right is 100", func(s *script) { s.result.Lines[2].Amount = money.Units(101) }},
		{"names no counter of model m input", func(s *script) { s.hold.counted = nil }},
		{"names 1 counters too many", func(s *script) { s.hold.counted = append(s.hold.counted, s.hold.counted[0]) }},
		{"counter 2 is not defined", func(s *script) { s.hold.counted[0].limit.num = -2 }},
		{"period 3 is not defined", func(s *script) { s.hold.counted[0].period.num = 3 }},
		{"does not contain its time", func(s *script) { s.hold.counted[0].period.num = 1 }},
		{"which is another one", func(s *script) { s.counts[0].name = "model n input" }},
		{"which is another one", func(s *script) { s.counts[0].contract = "C-1" }},
		{"which is another one", func(s *script) { s.counts[0].window = period.Month }},
		{"second counter of the same", func(s *script) { s.counts = append(s.counts, s.counts[0]) }},
		{"steps do not ascend", func(s *script) {
			s.row.Forms[0].Steps = []price.Step{{UpTo: 350, Rate: rateOf(1)}, {UpTo: 350, Rate: rateOf(1)}, {Rate: rateOf(2)}}
		}},
		{"the last is not without end", func(s *script) { s.row.Forms[0].Steps = s.row.Forms[0].Steps[:1] }},
		{"with packages of 5", func(s *script) { s.row.Forms[0].Package = 5 }},
		{"form that counts by", func(s *script) { s.row.Forms[0].Scope = "" }},
		{"form of price 5 is not known", func(s *script) { s.row.Forms[0].Kind = 5 }},
	} {
		s := honest()
		s.stepped()
		x.edit(s)
		m := s.write()
		var err error
		if x.want == "" {
			err = Rebuild(m)
		}
		report, cerr := Check(m)
		if err != nil || cerr != nil || (x.want == "") != report.OK() || !strings.Contains(report.Difference, x.want) {
			t.Errorf("want %q, have %q, errors %v, %v", x.want, report.Difference, err, cerr)
		}
	}
	s := honest()
	s.stepped()
	m := s.write()
	if err := Rebuild(m); err != nil {
		t.Fatal(err)
	}
	if m.balances[0].Limit != -1 || m.balances[0].Used != money.Units(400) {
		t.Fatalf("the counter's row is %+v", m.balances[0])
	}
	m.balances[0].Used = money.Units(401)
	if report, _ := Check(m); !strings.Contains(report.Difference, "the counter of model m input, period 2: the balance says 401 used; by the log it is 400") {
		t.Errorf("a counter that is wrong is reported as %q", report.Difference)
	}
	m.balances = m.balances[1:]
	if report, _ := Check(m); !strings.Contains(report.Difference, "the counter of model m input: the balance of period 2 is missing") {
		t.Errorf("a counter that is missing is reported as %q", report.Difference)
	}
}
