package gateway

import (
	"fmt"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/refusal"
)

// A caller may refuse by itself: Talea-Max-Multiplier is the highest multiplier of the prices that it takes, Talea-Max-Cost
// the most that the request may cost. Both are decimals, and have the older spelling with X-.
var (
	maxMultiplier = [...]string{"Talea-Max-Multiplier", "X-Max-Multiplier"}
	maxCost       = [...]string{"Talea-Max-Cost", "X-Max-Cost"}
)

// acceptable compares the multiplier of the locked prices with the caller's own limit.
func (x *exchange) acceptable() *refusal.Refusal {
	for _, name := range maxMultiplier {
		for _, text := range x.r.Header[name] {
			most, err := price.ParseMultiplier(text)
			if err != nil {
				return refusal.At(refusal.Malformed, name, fmt.Sprintf("The header %s must be a factor such as 1.25, with at most 6 decimals.", name))
			}
			if x.row.Multiplier > most {
				return refusal.At(refusal.MaxMultiplier, name, fmt.Sprintf("The prices now have the multiplier %s, above the %s that this request allows. Nothing was charged.",
					price.MultiplierText(x.row.Multiplier), price.MultiplierText(most)))
			}
		}
	}
	return nil
}

// cheapEnough compares the ceiling of the request with the caller's own limit.
func (x *exchange) cheapEnough() *refusal.Refusal {
	for _, name := range maxCost {
		for _, text := range x.r.Header[name] {
			most, err := money.ParseAmount(text)
			if err != nil || most.Sign() < 0 {
				return refusal.At(refusal.Malformed, name, fmt.Sprintf("The header %s must be an amount such as 0.05.", name))
			}
			if x.money.Cmp(most) > 0 {
				return refusal.At(refusal.MaxCost, name, fmt.Sprintf("This request can cost up to %s %s, above the %s that it allows. Ask for fewer tokens, or allow more. Nothing was charged.",
					x.money, x.offer.Subject.Currency, most))
			}
		}
	}
	return nil
}
