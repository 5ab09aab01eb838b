package gateway

import (
	"errors"

	"talea/internal/ledger"
	"talea/internal/quota"
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
	var by *quota.Limit
	tried := make([]string, 0, maxDegrades+1)
	for len(tried) < maxDegrades {
		var short *ledger.Short
		if !errors.As(err, &short) || short.Degrade == nil {
			return err
		}
		tried = append(tried, x.offer.Model.Name)
		if by = short.Degrade; !x.degrade(by.DegradeTo, asked, tried) {
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
func (x *exchange) degrade(to, asked string, tried []string) bool {
	for _, model := range tried {
		if model == to {
			return false
		}
	}
	offer, err := x.key.Degraded(asked, to)
	if err != nil {
		return false
	}
	before, row, bounds, money := x.offer, x.row, x.bounds, x.money
	x.offer = offer.At(x.asOf)
	if x.admit() == nil && x.price() == nil {
		return true
	}
	x.offer, x.row, x.bounds, x.money = before, row, bounds, money
	x.admit() // it passed before; what it reads of the body depends on the engines
	return false
}
