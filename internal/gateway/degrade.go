package gateway

import (
	"errors"
	"slices"

	"talea/internal/ledger"
)

// maxDegrades bounds how often a request is sent to another offering.
const maxDegrades = 4

// afford makes the hold. Where a limit is used up that sends to a cheaper offering, it is made with that one: at its price,
// on every limit that covers it. The answer then says so.
func (x *exchange) afford() error {
	err := x.holdIt()
	if err == nil {
		return nil
	}
	asked := x.offer.Model.Name
	tried := make([]string, 0, maxDegrades)
	for len(tried) < maxDegrades {
		var short *ledger.Short
		if !errors.As(err, &short) || short.Degrade == nil {
			return err
		}
		tried = append(tried, x.offer.Model.Name)
		by := short.Degrade
		if slices.Contains(tried, by.DegradeTo) || !x.degrade(by.DegradeTo) {
			return err
		}
		x.leave() // the slot of the model that it does not use
		if err := x.enter(); err != nil {
			return err
		}
		if err := x.price(); err != nil { // anew: it may have waited for a slot
			return err
		}
		if err = x.holdIt(); err == nil {
			h := x.w.Header()
			h["X-Degraded-From"] = []string{asked}
			h["X-Degraded-By"] = []string{string(by.Path) + " " + by.Measure.String() + "/" + by.Window.String()}
			return nil
		}
	}
	return err
}

// degrade makes the request one for another offering. It reports whether it could: where the key may not use that one, or
// the request does not suit it, everything is as it was.
func (x *exchange) degrade(to string) bool {
	was, before, row, bounds, money := x.degradedTo, x.offer, x.row, x.bounds, x.money
	x.degradedTo = to
	if x.resolve() == nil && x.price() == nil {
		return true
	}
	x.degradedTo, x.offer, x.row, x.bounds, x.money = was, before, row, bounds, money
	x.admit() // it passed before; what it reads of the body depends on the engines
	return false
}
