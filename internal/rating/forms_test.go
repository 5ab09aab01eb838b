package rating

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/usage"
)

// randomForm is a price of small steps for the meters, that now and then begins anew with each request.
func randomForm(r *rand.Rand, kind price.Kind, meters uint16) price.Form {
	f := price.Form{Kind: kind, Meters: meters, Counter: "c", Scope: "organisation", Window: period.Month, Zone: "UTC"}
	if r.IntN(4) == 0 || kind == price.LongContext {
		f.Counter, f.Scope, f.Window, f.Zone = "", "", 0, ""
	}
	if kind == price.Package {
		f.Package, f.Steps = 1+r.Int64N(3), []price.Step{{Rate: rateOf(r.Int64N(6))}}
		return f
	}
	end := int64(0)
	for range r.IntN(3) {
		end += 1 + r.Int64N(3)
		f.Steps = append(f.Steps, price.Step{UpTo: end, Rate: rateOf(r.Int64N(6))})
	}
	f.Steps = append(f.Steps, price.Step{Rate: rateOf(r.Int64N(6))})
	if kind == price.Graduated {
		for i := range f.Steps {
			f.Steps[i].Fee = money.Units(max(0, r.Int64N(12)-6))
		}
	}
	return f
}

// randomForms gives a row of flat prices some that depend on how much: for a whole side, or for each class by itself.
func randomForms(r *rand.Rand, kinds ...price.Kind) *price.Row {
	row := randomRow(r)
	masks := [][]uint16{{0b111}, {0b1, 0b110}, {0b10}, {0b1, 0b10, 0b100}, {}}[r.IntN(5)]
	masks = append(masks, [][]uint16{{0b11000}, {0b1000}, {0b1000, 0b10000}, {}}[r.IntN(4)]...)
	if row.Has[usage.Requests] && r.IntN(4) == 0 {
		masks = append(masks, 1<<usage.Requests)
	}
	for _, mask := range masks {
		row.Forms = append(row.Forms, randomForm(r, kinds[r.IntN(len(kinds))], mask))
		for m := range usage.NumMeters {
			if mask>>m&1 == 1 {
				row.Rates[m], row.Has[m] = money.Rate{}, true
			}
		}
	}
	return row
}

// dearestOutcome tries every division of every number of tokens at every position from the given one on. Positions of
// several forms are tried one form at a time, as their charges do not depend on each other: the sum of the best is kept.
func dearestOutcome(t *testing.T, b usage.Bounds, row *price.Row, from Position) money.Amount {
	var lines []usage.Line
	var top money.Amount
	outcomes(b, func(c *usage.Counts) {
		best := money.Amount{}
		base := append(Position{}, from...)
		charge := func(at Position) money.Amount {
			var sum money.Amount
			var err error
			free := *row
			free.Minimum = money.Amount{}
			if lines, sum, err = Rate(lines[:0], c, &free, at); err != nil {
				t.Fatal(err)
			}
			return sum
		}
		best = charge(base)
		for i := range row.Forms {
			if row.Forms[i].Counter == "" {
				continue
			}
			at := append(Position{}, from...)
			gain := money.Amount{}
			for range 12 {
				gain = money.Max(gain, charge(at).Sub(charge(from)))
				at[i]++
			}
			best = best.Add(gain)
		}
		top = money.Max(top, best)
	})
	return money.Max(top, row.Minimum)
}

// P2: the ceiling is the dearest outcome of the box at any position from the current one on: every outcome is tried. Steps
// are not monotone, neither in price nor in what a longer prompt costs.
func TestCeilingOfForms(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for i := range 2000 {
		prices := randomForms(r, price.Graduated, price.Volume, price.LongContext)
		b := usage.Bounds{Input: r.Int64N(6), Output: r.Int64N(5), Joint: r.Int64N(9)}
		from := make(Position, len(prices.Forms))
		for i := range from {
			if prices.Forms[i].Counter != "" {
				from[i] = r.Int64N(9)
			}
		}
		want := dearestOutcome(t, b, prices, from)
		if got, err := Ceiling(b, usage.Work{}, prices, from); err != nil || got != want {
			t.Fatalf("case %d: Ceiling(%+v) from %v of %s = %s, %v, want %s", i, b, from, show(prices), got, err, want)
		}
	}
}

// A package that shares its bound with other prices may be held too high, never too low; alone it is held exactly.
func TestCeilingOfPackages(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for i := range 1000 {
		prices := randomForms(r, price.Graduated, price.Package, price.LongContext)
		b := usage.Bounds{Input: r.Int64N(6), Output: r.Int64N(5), Joint: r.Int64N(9)}
		from := make(Position, len(prices.Forms))
		for i := range from {
			if prices.Forms[i].Counter != "" {
				from[i] = r.Int64N(9)
			}
		}
		want := dearestOutcome(t, b, prices, from)
		if got, err := Ceiling(b, usage.Work{}, prices, from); err != nil || got.Cmp(want) < 0 {
			t.Fatalf("case %d: Ceiling(%+v) from %v of %s = %s, %v, below %s", i, b, from, show(prices), got, err, want)
		}
		alone := row(0, 0, 0, 0)
		alone.Forms = []price.Form{randomForm(r, price.Package, 0b111)}
		b, from = usage.Bounds{Input: r.Int64N(9)}, Position{r.Int64N(9)}
		if alone.Forms[0].Counter == "" {
			from[0] = 0
		}
		if got, err := Ceiling(b, usage.Work{}, alone, from); err != nil || got != dearestOutcome(t, b, alone, from) {
			t.Fatalf("case %d: Ceiling(%+v) from %v of %s = %s, %v, want %s", i, b, from, show(alone), got, err, dearestOutcome(t, b, alone, from))
		}
	}
}

func show(r *price.Row) string {
	text := fmt.Sprintf("rates %v fee %v minimum %s", r.Rates[:5], r.Rates[usage.Requests], r.Minimum)
	for _, f := range r.Forms {
		text += fmt.Sprintf("\n  %+v", f)
	}
	return text
}

// A dear step in the middle takes just what fits into it; the rest is dearer elsewhere.
func TestCeilingDividesAtAStep(t *testing.T) {
	r := row(0, 0, 3, 0)
	r.Forms = []price.Form{{Kind: price.Graduated, Meters: 1, Counter: "c", Steps: []price.Step{{UpTo: 3, Rate: rateOf(1)}, {UpTo: 9, Rate: rateOf(5)}, {Rate: rateOf(1)}}}}
	if got, err := Ceiling(usage.Bounds{Input: 8}, usage.Work{}, r, nil); err != nil || got != money.Units(6*5+2*3) {
		t.Errorf("Ceiling = %s, %v", got, err)
	}
}

// The usage lines of each class add up to its count, every line multiplies, none is negative, and what is rated in parts,
// one after the other, costs what it costs as a whole, but for volume prices.
func TestLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	some := func() *usage.Counts { return counts(r.Int64N(4), r.Int64N(4), r.Int64N(4), r.Int64N(4), r.Int64N(4)) }
	for range 5000 {
		prices := randomForms(r, price.Graduated, price.Package)
		prices.Minimum, prices.Has[usage.Requests] = money.Amount{}, false
		for i := range prices.Forms { // a form of each request by itself begins anew with the second part
			prices.Forms[i].Counter = "c"
		}
		at := make(Position, len(prices.Forms))
		for i := range at {
			at[i] = r.Int64N(9)
		}
		first, second, whole := some(), some(), &usage.Counts{}
		for m := range usage.Image {
			whole.Set(m, first.Get(m)+second.Get(m))
		}
		lines, all, err := Rate(nil, whole, prices, at)
		if err != nil {
			t.Fatal(err)
		}
		var sums [usage.NumMeters]int64
		for _, l := range lines {
			if l.Kind == usage.LineUsage {
				sums[l.Meter] += l.Quantity
			}
			if l.UnitPrice.Times(l.Quantity) != l.Amount || l.Amount.Sign() < 0 || l.Quantity < 1 {
				t.Fatalf("line %+v", l)
			}
		}
		for m := range usage.Image {
			if sums[m] != whole.Get(m) {
				t.Fatalf("%d of %s are on lines, %d were used: %+v", sums[m], m, whole.Get(m), lines)
			}
		}
		_, one, _ := Rate(nil, first, prices, at)
		at.Advance(first, prices)
		_, two, _ := Rate(nil, second, prices, at)
		if one.Add(two) != all {
			t.Fatalf("%s and then %s, but %s at once, under %s", one, two, all, show(prices))
		}
	}
}

// Steps are charged in the order of use: a window's requests add up to its schedule, and the fee of a first step that
// nobody entered is what is missing. For volume prices the difference is the true-up at the close.
func TestSchedule(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	for range 2000 {
		kind := []price.Kind{price.Graduated, price.Package, price.Volume}[r.IntN(3)]
		prices := row(0, 0, 0, 0)
		prices.Forms = []price.Form{randomForm(r, kind, 0b111)}
		prices.Forms[0].Counter = "c"
		f, at := &prices.Forms[0], Position{0}
		var sum, last money.Amount
		for range r.IntN(6) {
			c := counts(r.Int64N(4))
			lines, charge, _ := Rate(nil, c, prices, at)
			at.Advance(c, prices)
			sum = sum.Add(charge)
			if len(lines) > 0 {
				last = lines[0].UnitPrice.Amount()
			}
		}
		want := Schedule(f, at[0])
		switch {
		case kind == price.Volume && at[0] > 0:
			if want != f.Step(at[0]).Rate.Times(at[0]) || last != f.Step(at[0]).Rate.Amount() {
				t.Fatalf("schedule of %d is %s, the last price %s, under %s", at[0], want, last, show(prices))
			}
		case at[0] == 0:
			if kind == price.Graduated && want != f.Steps[0].Fee || !sum.IsZero() {
				t.Fatalf("an unused window owes %s and was charged %s, under %s", want, sum, show(prices))
			}
		case sum != want:
			t.Fatalf("%d units cost %s, by schedule %s, under %s", at[0], sum, want, show(prices))
		}
	}
}

func TestFormsAllocateNothing(t *testing.T) {
	r, dst := stepped(), make([]usage.Line, 0, 16)
	c, at := counts(234, 1000, -1, 987), Position{9_999_000, 999_999}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Rate(dst, c, r, at); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// stepped is a row with steps for all input, and for all output.
func stepped() *price.Row {
	r := row(1, 0, 0, 0, 0, 0)
	steps := func() []price.Step {
		return []price.Step{{UpTo: 10_000_000, Rate: rateOf(500_000_000)}, {UpTo: 100_000_000, Rate: rateOf(400_000_000)}, {Rate: rateOf(300_000_000)}}
	}
	r.Forms = []price.Form{{Kind: price.Graduated, Meters: 0b111, Counter: "in", Steps: steps()}, {Kind: price.Graduated, Meters: 0b11000, Counter: "out", Steps: steps()}}
	return r
}

// Three lines under steps, with a multiplier of time and of tier in the row, as most requests of such a book have:
//
//	go test ./internal/rating -run '^$' -bench 'Rate' -cpu 1 -count 6
func BenchmarkRateThreeLines(b *testing.B) {
	b.ReportAllocs()
	c, prices, dst, at := counts(234, 1000, -1, 987), stepped(), make([]usage.Line, 0, 8), Position{20_000_000, 20_000_000}
	for b.Loop() {
		if lines, _, err := Rate(dst, c, prices, at); err != nil || len(lines) != 3 {
			b.Fatal(err)
		}
	}
}

// Five lines: the request crosses a step on both sides.
func BenchmarkRateSteps(b *testing.B) {
	b.ReportAllocs()
	c, prices, dst, at := counts(234, 1000, -1, 987), stepped(), make([]usage.Line, 0, 8), Position{9_999_000, 99_999_500}
	for b.Loop() {
		if _, _, err := Rate(dst, c, prices, at); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCeilingSteps(b *testing.B) {
	b.ReportAllocs()
	prices, at := stepped(), Position{9_999_000, 99_999_500}
	for b.Loop() {
		if _, err := Ceiling(usage.Bounds{Input: 1500, Output: 4096, Joint: 5000}, usage.Work{}, prices, at); err != nil {
			b.Fatal(err)
		}
	}
}
