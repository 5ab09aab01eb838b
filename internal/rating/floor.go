package rating

import (
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// Floor returns an amount that no request costs less than which is charged for at least in input tokens and out output
// tokens, whatever their classes, at the position given or any later one, while its counts are inside the bounds. Fees and
// packages may have been started by others before: they are no part of it. It may be less than the cheapest outcome, and is
// never more than what Rate says of such counts.
func Floor(in, out int64, b usage.Bounds, w usage.Work, r *price.Row, before Position) money.Amount {
	sum := cheapest(inputLeaves[:], b, r, before).Times(in)
	sum = sum.Add(cheapest(outputLeaves[:], b, r, before).Times(out))
	sum = sum.Add(cheapest([]usage.Meter{usage.Requests}, b, r, before).Amount())
	if r.Has[usage.WorkMS] && w.Known() {
		var c usage.Counts
		c.Set(usage.InputCacheRead, in) // which costs no work by itself
		c.Set(usage.OutputContent, out)
		sum = sum.Add(cheapest([]usage.Meter{usage.WorkMS}, b, r, before).Times(w.Of(&c)))
	}
	return money.Max(sum, r.Minimum)
}

// cheapest is the lowest price of a unit of the classes that can still be reached, 0 where none has a price.
func cheapest(leaves []usage.Meter, b usage.Bounds, r *price.Row, before Position) (low money.Rate) {
	first := true
	take := func(rate money.Rate) {
		if first || rate.Cmp(low) < 0 {
			low, first = rate, false
		}
	}
	for _, m := range leaves {
		switch i := formOf(r, m); {
		case i >= 0:
			cheapestStep(&r.Forms[i], b, before.of(i), take)
		case r.Has[m]:
			take(r.Rates[m])
		}
	}
	return low
}

// cheapestStep takes the prices of the steps that can still be reached.
func cheapestStep(f *price.Form, b usage.Bounds, at int64, take func(money.Rate)) {
	if f.Kind == price.Package {
		take(money.Rate{})
		return
	}
	over := int64(0)
	for _, s := range f.Steps {
		passed := f.Counter != "" && s.UpTo != 0 && s.UpTo <= at
		if f.Kind == price.LongContext {
			passed = over > 0 && over >= b.Input
		}
		if !passed {
			take(s.Rate)
		}
		over = s.UpTo
	}
}
