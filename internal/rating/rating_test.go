package rating

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

func rateOf(femto int64) money.Rate {
	r, err := money.RateFromAmount(money.Units(femto))
	if err != nil {
		panic(err)
	}
	return r
}

// row makes a row of prices in femto-units per unit; a negative one is no price.
func row(minimum int64, femto ...int64) *price.Row {
	r := &price.Row{ID: "b@0123456789abcdef/vendor/m", Minimum: money.Units(minimum)}
	for m, f := range femto {
		if f >= 0 {
			r.Rates[m], r.Has[m] = rateOf(f), true
		}
	}
	return r
}

func counts(n ...int64) *usage.Counts {
	c := &usage.Counts{}
	for m, v := range n {
		if v >= 0 {
			c.Set(usage.Meter(m), v)
		}
	}
	return c
}

func TestRate(t *testing.T) {
	const no = -1
	tokens := row(0, 10, 1, 12, 40, 50)
	fee := row(100, 10, 1, 12, 40, 50, no, no, no, 7)
	line := func(m usage.Meter, n, femto int64) usage.Line {
		return usage.Line{Meter: m, Quantity: n, UnitPrice: rateOf(femto), Amount: money.Units(n * femto)}
	}
	minimum := func(femto int64) usage.Line {
		l := line(usage.Requests, 1, femto)
		l.Kind = usage.LineMinimum
		return l
	}
	for name, c := range map[string]struct {
		counts  *usage.Counts
		row     *price.Row
		want    []usage.Line
		charge  int64
		missing string // leaf class without a price
	}{
		"nothing":             {counts(), fee, nil, 0, ""},
		"zeros":               {counts(0, 0, 0, 0, 0), fee, nil, 0, ""},
		"every class":         {counts(1, 2, 3, 4, 5), tokens, []usage.Line{line(0, 1, 10), line(1, 2, 1), line(2, 3, 12), line(3, 4, 40), line(4, 5, 50)}, 458, ""},
		"unknown is no line":  {counts(no, no, no, 4), tokens, []usage.Line{line(3, 4, 40)}, 160, ""},
		"request without fee": {counts(1, 0, 0, 0, 0, no, no, no, 1), tokens, []usage.Line{line(0, 1, 10)}, 10, ""},
		"request with fee":    {counts(10, 0, 0, 0, 0, no, no, no, 1), fee, []usage.Line{line(0, 10, 10), line(8, 1, 7)}, 107, ""},
		"below the minimum":   {counts(3, 0, 0, 0, 0, no, no, no, 1), fee, []usage.Line{line(0, 3, 10), line(8, 1, 7), minimum(63)}, 100, ""},
		"at the minimum":      {counts(10), fee, []usage.Line{line(0, 10, 10)}, 100, ""},
		"free, with minimum":  {counts(3), row(100, 0), []usage.Line{line(0, 3, 0), minimum(100)}, 100, ""},
		"free":                {counts(3), row(0, 0), []usage.Line{line(0, 3, 0)}, 0, ""},
		"no fee, no tokens":   {counts(0, 0, 0, 0, 0, no, no, no, 1), row(100, 10), nil, 0, ""},
		"no output price":     {counts(3, 0, 0, 1), row(0, 10, 10, 10), nil, 0, "output_content"},
		"no image price":      {counts(3, no, no, no, no, 1), tokens, nil, 0, "image"},
		"no work price":       {counts(no, no, no, no, no, no, no, no, no, 1), tokens, nil, 0, "work_ms"},
	} {
		before := []usage.Line{{Quantity: 42}}
		lines, charge, err := Rate(before, c.counts, c.row, nil)
		var unpriced price.ErrNotPriced
		if c.missing != "" {
			if !errors.As(err, &unpriced) || unpriced != (price.ErrNotPriced{Model: "vendor/m", Meter: c.missing}) || len(lines) != 1 || !charge.IsZero() {
				t.Errorf("%s: %v, %s, %v", name, lines, charge, err)
			}
			continue
		}
		ok := err == nil && charge == money.Units(c.charge) && len(lines) == 1+len(c.want) && lines[0] == before[0]
		for i := range c.want {
			ok = ok && lines[1+i] == c.want[i]
		}
		if !ok {
			t.Errorf("%s: %v, %s, %v\nwant %v, %d femto-units", name, lines, charge, err, c.want, c.charge)
		}
	}
}

func TestRateRefusesAMinimumThatNoLineCanCarry(t *testing.T) {
	r := row(0, 1)
	r.Minimum = rateOf(1_000_000_000_000_000).Times(1_000_001)
	if lines, charge, err := Rate(nil, counts(1), r, nil); err == nil || lines != nil || !charge.IsZero() {
		t.Errorf("Rate = %v, %s, %v", lines, charge, err)
	}
}

func TestCeiling(t *testing.T) {
	const no = -1
	tokens := row(0, 10, 1, 12, 40, 50)
	most := int64(usage.MaxCount)
	for name, c := range map[string]struct {
		bounds usage.Bounds
		row    *price.Row
		want   string // femto-units; "" is an error
	}{
		"dearest classes":          {usage.Bounds{Input: 5, Output: 3}, tokens, "210"},
		"no room for all":          {usage.Bounds{Input: 5, Output: 3, Joint: 6}, tokens, "186"},
		"joint beyond both":        {usage.Bounds{Input: 5, Output: 3, Joint: 9}, tokens, "210"},
		"joint below each":         {usage.Bounds{Input: 5, Output: 3, Joint: 2}, tokens, "100"},
		"input dearer":             {usage.Bounds{Input: 5, Output: 3, Joint: 6}, row(0, 50, 1, 1, 4, 4), "254"},
		"cached dearer":            {usage.Bounds{Input: 5}, row(0, 1, 9, 2), "45"},
		"fee":                      {usage.Bounds{Input: 5, Output: 3}, row(0, 10, 1, 12, 40, 50, no, no, no, 7), "217"},
		"minimum":                  {usage.Bounds{Input: 5, Output: 3}, row(1000, 10, 1, 12, 40, 50), "1000"},
		"nothing":                  {usage.Bounds{}, row(0), "0"},
		"embedding":                {usage.Bounds{Input: 5}, row(0, 10, 10, 10), "50"},
		"image price is no matter": {usage.Bounds{Input: 5}, row(0, 10, 10, 10, 1, 1, 99), "50"},
		"the largest":              {usage.Bounds{Input: most, Output: most, Joint: most}, tokens, "50000000000000000"},
		"no output price":          {usage.Bounds{Input: 5, Output: 1}, row(0, 10, 10, 10), ""},
		"no cached price":          {usage.Bounds{Input: 5}, row(0, 10, no, 10), ""},
		"no reasoning price":       {usage.Bounds{Output: 5}, row(0, 10, 10, 10, 10), ""},
		"work has no bound":        {usage.Bounds{Input: 5}, row(0, 10, 10, 10, 1, 1, no, no, no, no, 1), ""},
		"negative":                 {usage.Bounds{Input: -1}, tokens, ""},
		"negative joint":           {usage.Bounds{Input: 1, Joint: -1}, tokens, ""},
		"beyond any count":         {usage.Bounds{Output: most + 1}, tokens, ""},
	} {
		got, err := Ceiling(c.bounds, usage.Work{}, c.row, nil)
		femto, _ := got.Int64()
		if (err != nil) != (c.want == "") || err == nil && money.Units(femto) != got || err == nil && strconv.FormatInt(femto, 10) != c.want {
			t.Errorf("%s: Ceiling(%+v) = %d femto-units, %v, want %s", name, c.bounds, femto, err, c.want)
		}
	}
}

// randomRow has rates from 0 to 5, now and then one that is large, a fee and a minimum.
func randomRow(r *rand.Rand) *price.Row {
	femto := make([]int64, usage.Requests+1)
	for m := range femto {
		femto[m] = r.Int64N(6)
		if r.IntN(8) == 0 {
			femto[m] = r.Int64()
		}
	}
	femto[usage.Requests] -= int64(r.IntN(2)) * (femto[usage.Requests] + 1)
	return row(r.Int64N(40), femto...)
}

// Ceiling is the dearest outcome in the box, neither more nor less: every outcome is tried.
func TestCeilingIsTheDearestOutcome(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var lines []usage.Line
	for range 300 {
		prices := randomRow(r)
		b := usage.Bounds{Input: r.Int64N(5), Output: r.Int64N(5), Joint: r.Int64N(9)}
		var top money.Amount
		outcomes(b, func(c *usage.Counts) {
			var charge money.Amount
			var err error
			if lines, charge, err = Rate(lines[:0], c, prices, nil); err != nil {
				t.Fatal(err)
			}
			top = money.Max(top, charge)
		})
		top = money.Max(top, prices.Minimum) // held even where the box has no outcome that is billed
		if got, err := Ceiling(b, usage.Work{}, prices, nil); err != nil || got != top {
			t.Fatalf("Ceiling(%+v) of %+v = %s, %v, want %s", b, prices, got, err, top)
		}
	}
}

// outcomes visits every division of every number of tokens inside the bounds over the leaf classes.
func outcomes(b usage.Bounds, visit func(*usage.Counts)) {
	for i0 := range b.Input + 1 {
		for i1 := range b.Input - i0 + 1 {
			for i2 := range b.Input - i0 - i1 + 1 {
				for o0 := range b.Output + 1 {
					for o1 := range b.Output - o0 + 1 {
						if b.Joint == 0 || i0+i1+i2+o0+o1 <= b.Joint {
							visit(counts(i0, i1, i2, o0, o1, 0, 0, 0, 1))
						}
					}
				}
			}
		}
	}
}

// checkLaw tests that no counts inside the bounds cost more than their ceiling. Shares divide the bounds over classes.
func checkLaw(t *testing.T, b usage.Bounds, share [5]uint64, prices *price.Row) {
	left := [2]uint64{uint64(b.Input), uint64(b.Output)}
	joint := uint64(b.Joint)
	if b.Joint == 0 {
		joint = left[0] + left[1]
	}
	c := counts(0, 0, 0, 0, 0, 0, 0, 0, 1)
	for m, s := range share {
		side := &left[m/3]
		n := s % (min(*side, joint) + 1)
		*side, joint = *side-n, joint-n
		c.Set(usage.Meter(m), int64(n))
	}
	_, charge, err := Rate(nil, c, prices, nil)
	most, cerr := Ceiling(b, usage.Work{}, prices, nil)
	if err != nil || cerr != nil || charge.Cmp(most) > 0 {
		t.Fatalf("%v cost %s, above the ceiling %s of %+v (%v, %v)", c, charge, most, b, err, cerr)
	}
}

// TestRateIsWithinCeiling: I1, I6.
func TestRateIsWithinCeiling(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	bound := func() int64 { return r.Int64N(usage.MaxCount+1) >> r.IntN(50) }
	for range 20_000 {
		b := usage.Bounds{Input: bound(), Output: bound(), Joint: bound() * int64(r.IntN(2))}
		checkLaw(t, b, [5]uint64{r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64(), r.Uint64()}, randomRow(r))
	}
}

func FuzzRateIsWithinCeiling(f *testing.F) {
	f.Add(int64(5), int64(3), int64(6), uint64(1), uint64(2), uint64(3), int64(10), int64(1), int64(50), int64(7), int64(100))
	f.Fuzz(func(t *testing.T, in, out, joint int64, s0, s1, s2 uint64, p0, p1, p2, fee, minimum int64) {
		if min(in, out, joint, p0, p1, p2, fee, minimum) < 0 || max(in, out, joint) > usage.MaxCount {
			return
		}
		checkLaw(t, usage.Bounds{Input: in, Output: out, Joint: joint}, [5]uint64{s0, s1, s2, s2, s0},
			row(minimum, p0, p1, p0, p2, p1, -1, -1, -1, fee))
	})
}

func TestNoAllocations(t *testing.T) {
	c, prices, dst := counts(234, 1000, -1, 987), row(1, 10, 1, 12, 40, 50), make([]usage.Line, 0, 8)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Rate(dst, c, prices, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := Ceiling(usage.Bounds{Input: 9, Output: 9, Joint: 9}, usage.Work{}, prices, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// Three lines, as most requests have.
func BenchmarkRate(b *testing.B) {
	b.ReportAllocs()
	c, prices, dst := counts(234, 1000, -1, 987), row(1, 150_000_000, 75_000_000, 150_000_000, 600_000_000, 600_000_000), make([]usage.Line, 0, 8)
	for b.Loop() {
		if _, _, err := Rate(dst, c, prices, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCeiling(b *testing.B) {
	b.ReportAllocs()
	prices := row(1, 150_000_000, 75_000_000, 150_000_000, 600_000_000, 600_000_000)
	for b.Loop() {
		if _, err := Ceiling(usage.Bounds{Input: 1500, Output: 4096, Joint: 5000}, usage.Work{}, prices, nil); err != nil {
			b.Fatal(err)
		}
	}
}
