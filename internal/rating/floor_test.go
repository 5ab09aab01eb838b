package rating

import (
	"math/rand/v2"
	"testing"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// No outcome that has at least so many tokens costs less than the floor, at the position given or any later one: every outcome
// is tried, for all forms of prices.
func TestFloorIsBelowEveryOutcome(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	var lines []usage.Line
	reached := 0
	for i := range 1500 {
		prices := randomForms(r, price.Graduated, price.Volume, price.LongContext, price.Package)
		b := usage.Bounds{Input: 1 + r.Int64N(5), Output: r.Int64N(5), Joint: r.Int64N(9)}
		in, out := r.Int64N(2), r.Int64N(min(b.Output, 1)+1)
		from := make(Position, len(prices.Forms))
		for i := range from {
			from[i] = r.Int64N(9) * int64(len(prices.Forms[i].Counter))
		}
		floor := Floor(in, out, b, usage.Work{}, prices, from)
		var low money.Amount
		first := true
		outcomes(b, func(c *usage.Counts) {
			if c.Input() < in || c.Output() < out || c.Input()+c.Output() == 0 {
				return
			}
			for later := range int64(10) {
				at := append(Position{}, from...)
				for i := range at {
					at[i] += later * int64(len(prices.Forms[i].Counter))
				}
				var charge money.Amount
				var err error
				if lines, charge, err = Rate(lines[:0], c, prices, at); err != nil {
					t.Fatal(err)
				}
				if first {
					low, first = charge, false
				}
				low = money.Min(low, charge)
			}
		})
		if !first && low.Cmp(floor) < 0 {
			t.Fatalf("case %d: %+v from %v of %s: the floor of %d and %d tokens is %s, and one outcome costs %s", i, b, from, show(prices), in, out, floor, low)
		}
		if low == floor {
			reached++
		}
	}
	if reached < 300 {
		t.Errorf("the floor was reached in %d of 1500 cases: it is of no use", reached)
	}
}

// The floor of work is that of the fewest tokens, all of them from a cache.
func TestFloorOfWork(t *testing.T) {
	w := usage.Work{Fixed: 2_000_000_000, Input: 1_000_000_000, Output: 3_000_000_000}
	r := row(0, 0, 0, 0, 0, 0, -1, -1, -1, -1, 7)
	if !r.Has[usage.WorkMS] {
		t.Fatal("the last meter of the row is not the work")
	}
	if got, want := Floor(5, 2, usage.Bounds{Input: 9, Output: 9}, w, r, nil), money.Units(7*(2+6)); got != want {
		t.Errorf("Floor = %s, want %s", got, want)
	}
}
