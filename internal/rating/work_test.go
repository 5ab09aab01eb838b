package rating

import (
	"errors"
	"math/rand/v2"
	"testing"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// Work that is charged is held at the most that the bounds allow: no outcome costs more, and where tokens cost nothing some
// outcome costs as much.
func TestCeilingOfWork(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	for range 300 {
		w := usage.Work{Fixed: r.Int64N(3e9), Input: 1 + r.Int64N(1e9), Output: 1e9 + r.Int64N(1e9), Context: r.Int64N(1e8)}
		b := usage.Bounds{Input: r.Int64N(5), Output: 1 + r.Int64N(4), Joint: r.Int64N(8)}
		prices := row(0, 0, 0, 0, 0, 0)
		free := r.IntN(2) == 0
		if !free {
			prices = randomRow(r)
		}
		prices.Rates[usage.WorkMS], prices.Has[usage.WorkMS] = rateOf(r.Int64N(9)), true
		var top money.Amount
		outcomes(b, func(c *usage.Counts) {
			c.Set(usage.WorkMS, w.Of(c))
			_, charge, err := Rate(nil, c, prices, nil)
			if err != nil {
				t.Fatal(err)
			}
			top = money.Max(top, charge)
		})
		most, err := Ceiling(b, w, prices, nil)
		if err != nil || most.Cmp(top) < 0 || free && most != top {
			t.Fatalf("Ceiling(%+v, %+v) = %s, %v; the dearest outcome costs %s", b, w, most, err, top)
		}
	}
	prices := row(0, 0, 0, 0, 0, 0)
	prices.Has[usage.WorkMS] = true
	var unpriced price.ErrNotPriced
	if _, err := Ceiling(usage.Bounds{Input: 1}, usage.Work{}, prices, nil); !errors.As(err, &unpriced) || unpriced.Meter != "work_ms" {
		t.Errorf("work that nobody knows: %v", err)
	}
}
