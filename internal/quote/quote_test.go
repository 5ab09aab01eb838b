package quote

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/rating"
	"talea/internal/usage"
)

func rate(t *testing.T, femto int64) money.Rate {
	r, err := money.RateFromAmount(money.Units(femto))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// someRow has a price for every class, of any form.
func someRow(t *testing.T, r *rand.Rand) (*price.Row, rating.Position) {
	row := &price.Row{ID: "b@0123456789abcdef/m", Multiplier: 1_000_000, Minimum: money.Units(r.Int64N(3) * r.Int64N(2000))}
	for m := range usage.Image {
		row.Has[m], row.Rates[m] = true, rate(t, r.Int64N(50))
	}
	row.Has[usage.Requests] = r.IntN(2) == 0
	row.Rates[usage.Requests] = rate(t, r.Int64N(20)*int64(r.IntN(2)))
	if !row.Has[usage.Requests] {
		row.Rates[usage.Requests] = money.Rate{}
	}
	var before rating.Position
	for _, meters := range []uint16{0b111, 0b10000} {
		if r.IntN(2) == 0 {
			continue
		}
		f := price.Form{Kind: []price.Kind{price.Graduated, price.Volume, price.Package, price.LongContext}[r.IntN(4)], Meters: meters}
		if f.Kind != price.LongContext && r.IntN(2) == 0 {
			f.Counter = "c"
		}
		f.Package = 1 + r.Int64N(30)
		if f.Kind != price.Package {
			f.Steps = append(f.Steps, price.Step{UpTo: 1 + r.Int64N(40), Rate: rate(t, r.Int64N(50))})
		}
		f.Steps = append(f.Steps, price.Step{Rate: rate(t, r.Int64N(50))})
		row.Forms = append(row.Forms, f)
		before = append(before, r.Int64N(60)*int64(len(f.Counter)))
		for m := range usage.NumMeters {
			if f.Of(m) {
				row.Rates[m] = money.Rate{}
			}
		}
	}
	return row, before
}

// floor <= expected <= ceiling, whatever is expected, and every charge of counts inside the bounds lies between.
func TestFloorExpectedCeiling(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		row, before := someRow(t, r)
		b := usage.Bounds{Input: r.Int64N(80), Output: r.Int64N(80), Joint: r.Int64N(2) * r.Int64N(120)}
		p, err := Of(b, Tokens{r.Int64N(200) - 50, r.Int64N(200) - 50}, usage.Work{}, row, before)
		if err != nil || p.Floor.Cmp(p.Expected) > 0 || p.Expected.Cmp(p.Ceiling) > 0 {
			t.Fatalf("case %d: %s <= %s <= %s is not so, %v: %+v %+v", i, p.Floor, p.Expected, p.Ceiling, err, b, row)
		}
		joint := b.Joint
		if joint == 0 {
			joint = b.Input + b.Output
		}
		if b.Input == 0 {
			continue
		}
		var c usage.Counts
		in := 1 + r.Int64N(min(b.Input, joint))
		cached := r.Int64N(in + 1)
		c.Set(usage.InputUncached, in-cached)
		c.Set(usage.InputCacheRead, cached)
		c.Set(usage.OutputContent, r.Int64N(min(b.Output, joint-in)+1))
		c.Set(usage.Requests, 1)
		_, charge, err := rating.Rate(nil, &c, row, before)
		if err != nil || charge.Cmp(p.Floor) < 0 || charge.Cmp(p.Ceiling) > 0 {
			t.Fatalf("case %d: %v cost %s, outside %s and %s (%v): %+v", i, &c, charge, p.Floor, p.Ceiling, err, row)
		}
	}
}

// An hour costs what its dearest moment costs, one without a price is none, and of equals the first is told.
func TestCheapest(t *testing.T) {
	at := time.Date(2026, 11, 25, 10, 20, 0, 0, time.FixedZone("", 3600)) // 09:20 UTC
	begin := at.UTC().Truncate(time.Hour)
	for name, c := range map[string]struct {
		cheap [2]time.Duration // from the full hour on: when the price is 1 instead of 2
		gap   time.Duration    // from then on there is no price
		from  time.Duration    // where the cheapest hour is expected
		price int64
	}{
		"never":                  {[2]time.Duration{90 * time.Hour, 91 * time.Hour}, 99 * time.Hour, 20 * time.Minute, 2},
		"at once":                {[2]time.Duration{0, time.Hour}, 99 * time.Hour, 20 * time.Minute, 1},
		"half an hour":           {[2]time.Duration{150 * time.Minute, 190 * time.Minute}, 99 * time.Hour, 20 * time.Minute, 2},
		"from half an hour on":   {[2]time.Duration{150 * time.Minute, 250 * time.Minute}, 99 * time.Hour, 3 * time.Hour, 1},
		"the last":               {[2]time.Duration{23 * time.Hour, 24 * time.Hour}, 99 * time.Hour, 23 * time.Hour, 1},
		"too late":               {[2]time.Duration{24 * time.Hour, 30 * time.Hour}, 99 * time.Hour, 20 * time.Minute, 2},
		"when there is no price": {[2]time.Duration{5 * time.Hour, 9 * time.Hour}, 5*time.Hour + time.Minute, 20 * time.Minute, 2},
	} {
		calls := 0
		row := func(t time.Time) (*price.Row, time.Time, error) {
			calls++
			r := &price.Row{Multiplier: 2_000_000}
			edges := []time.Duration{c.cheap[0], c.cheap[1], c.gap}
			var until time.Time
			for _, e := range edges {
				if edge := begin.Add(e); edge.After(t) && (until.IsZero() || edge.Before(until)) {
					until = edge
				}
			}
			if since := t.Sub(begin); since >= c.cheap[0] && since < c.cheap[1] {
				r.Multiplier = 1_000_000
			}
			if t.Sub(begin) >= c.gap {
				return nil, until, errors.New("no price")
			}
			return r, until, nil
		}
		h, ok := Cheapest(at, row, func(r *price.Row, _ time.Time) (Prices, error) {
			a := money.Units(r.Multiplier / 1_000_000)
			return Prices{a, a, a}, nil
		})
		if !ok || h.From != begin.Add(c.from) || h.Until != h.From.Truncate(time.Hour).Add(time.Hour) || h.Expected != money.Units(c.price) || h.Multiplier != price.MultiplierText(c.price*1_000_000) {
			t.Errorf("%s: %+v, %v", name, h, ok)
		}
		if calls > 30 {
			t.Errorf("%s: %d rows were made", name, calls)
		}
	}
}
