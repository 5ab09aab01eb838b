// Package quote says what a request will cost before it is made: the least, what is to be expected and the most, at one row of
// prices, and in which of the next hours it is cheapest. It does not find rows (price), does not know what answers usually
// need (gateway) and holds nothing (ledger).
//
// # Invariants
//
//   - Floor <= Expected <= Ceiling, whatever is expected.
//   - Ceiling is rating.Ceiling: what a hold would hold.
//   - The charge of a request that is charged, whose counts are inside the bounds, is from Floor to Ceiling.
//   - An hour costs what its dearest moment costs.
//
// Start reading at Of, then Cheapest.
package quote

import (
	"time"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/rating"
	"talea/internal/usage"
)

// Tokens is how many tokens a request is expected to have, of all its answers together.
type Tokens struct {
	Input  int64 `json:"input"`
	Output int64 `json:"output"`
}

// Prices are the three amounts.
type Prices struct {
	Floor    money.Amount `json:"floor"`    // of an answer at all: with at least one token of input, all of the cheapest class
	Expected money.Amount `json:"expected"` // with no input from a cache
	Ceiling  money.Amount `json:"ceiling"`
}

// Of prices a request inside bounds. What is expected outside them is taken as their edge.
func Of(b usage.Bounds, expect Tokens, w usage.Work, r *price.Row, before rating.Position) (Prices, error) {
	var p Prices
	var err error
	if p.Ceiling, err = rating.Ceiling(b, w, r, before); err != nil {
		return p, err
	}
	least := min(b.Input, 1)
	p.Floor = rating.Floor(least, 0, b, w, r, before)
	expect = inside(b, expect)
	var c usage.Counts
	c.Set(usage.InputUncached, expect.Input)
	c.Set(usage.OutputContent, expect.Output)
	c.Set(usage.Requests, 1)
	if r.Has[usage.WorkMS] {
		c.Set(usage.WorkMS, w.Of(&c))
	}
	_, p.Expected, err = rating.Rate(nil, &c, r, before)
	p.Expected = money.Max(p.Expected, p.Floor) // a request without tokens and fees has no line that a minimum could lift
	return p, err
}

// inside takes what is expected into the bounds.
func inside(b usage.Bounds, t Tokens) Tokens {
	joint := b.Joint
	if joint == 0 {
		joint = b.Input + b.Output
	}
	t.Input = max(min(t.Input, b.Input, joint), min(b.Input, 1))
	t.Output = max(min(t.Output, b.Output, joint-t.Input), 0)
	return t
}

// Hour is a stretch of time up to the end of an hour, and the prices that hold in all of it.
type Hour struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	Prices
	Multiplier string `json:"multiplier"`
}

// hours is how far Cheapest looks.
const hours = 24

// segment is a stretch of time with one row.
type segment struct {
	until  time.Time
	prices Prices
	ppm    int64
	known  bool
}

// Cheapest returns the hour of the next 24 in which a request is expected to cost the least; of equals the first. Hours end
// on the full hour, UTC, and the first begins at once. row says which row is in force at an instant and until when at
// least, zero for without end, and of what it costs then; an hour in which something has no price is none. ok is false where there is no hour.
func Cheapest(at time.Time, row func(time.Time) (*price.Row, time.Time, error), of func(*price.Row, time.Time) (Prices, error)) (best Hour, ok bool) {
	at = at.UTC()
	end := at.Truncate(time.Hour).Add(hours * time.Hour)
	var seg segment
	for from := at; from.Before(end); {
		until := from.Truncate(time.Hour).Add(time.Hour)
		h, known, ppm := Hour{From: from, Until: until}, true, int64(0)
		for t := from; t.Before(until); t = seg.until {
			if !t.Before(seg.until) {
				seg = segmentAt(t, end, row, of)
			}
			if known = known && seg.known; !known {
				break
			}
			if t.Equal(from) {
				h.Prices, ppm = seg.prices, seg.ppm
			}
			if seg.prices.Expected.Cmp(h.Expected) > 0 {
				ppm = seg.ppm
			}
			h.Floor = money.Min(h.Floor, seg.prices.Floor)
			h.Expected, h.Ceiling = money.Max(h.Expected, seg.prices.Expected), money.Max(h.Ceiling, seg.prices.Ceiling)
		}
		if known && (!ok || h.Expected.Cmp(best.Expected) < 0) {
			h.Multiplier = price.MultiplierText(ppm)
			best, ok = h, true
		}
		from = until
	}
	return best, ok
}

// segmentAt prices the row at an instant.
func segmentAt(at, end time.Time, row func(time.Time) (*price.Row, time.Time, error), of func(*price.Row, time.Time) (Prices, error)) segment {
	r, until, err := row(at)
	if err != nil { // until the next hour, nothing is known
		return segment{until: at.Truncate(time.Hour).Add(time.Hour)}
	}
	if until.IsZero() || until.After(end) {
		until = end
	}
	s := segment{until: until, ppm: r.Multiplier}
	s.prices, err = of(r, at)
	s.known = err == nil
	return s
}

// Answer is an estimate: of the offering that was asked for first, and of every other one that could take the request.
type Answer struct {
	Object    string     `json:"object"` // "estimate"
	At        time.Time  `json:"at"`
	Endpoint  string     `json:"endpoint"`
	Currency  string     `json:"currency"`
	Offerings []Offering `json:"offerings"`
	Note      string     `json:"note"` // what the figures take for granted
}

// Offering is what one offering would cost.
type Offering struct {
	Model       string `json:"model"`
	ServiceTier string `json:"service_tier"`
	Prices
	Held         *money.Amount `json:"held,omitempty"` // at first, where a stream is held by and by; else the ceiling is held
	PriceVersion string        `json:"price_version"`
	PriceRow     string        `json:"price_row"`
	Multiplier   string        `json:"multiplier"`
	Bounds       Bounds        `json:"bounds"`
	Expect       Expectation   `json:"expect"`
	Allowed      *bool         `json:"allowed,omitempty"` // whether it would fit every limit now; not said without limits to look at
	Short        *Short        `json:"short,omitempty"`   // the first limit that it does not fit
	CheapestHour *Hour         `json:"cheapest_hour,omitempty"`
}

// Bounds are the most tokens that the request can have.
type Bounds struct {
	Tokens
	Joint int64 `json:"joint,omitempty"` // both together; 0 is no bound of its own
}

// Expectation is what was expected, and who says so: "counted" by the engine, "learnt" of recent requests to the model, "given" by who asks, or
// "bound", where nothing is known.
type Expectation struct {
	Tokens
	InputSource  string `json:"input_source"`
	OutputSource string `json:"output_source"`
}

// Sources of what is expected.
const (
	Counted = "counted"
	Learnt  = "learnt"
	Given   = "given"
	Bound   = "bound"
)

// Note is what every estimate takes for granted.
const Note = "Prices are those of the time asked for; load steps that are not announced are taken as 1. Expected takes all input as not cached; a request that is not answered costs what the price book says of that."

// Short is a limit that is short.
type Short struct {
	Code      string `json:"code"` // as a refusal would have it
	Message   string `json:"message"`
	Account   string `json:"account"`
	Measure   string `json:"measure"`
	Window    string `json:"window"`
	ResetsAt  string `json:"resets_at,omitempty"`
	DegradeTo string `json:"degrade_to,omitempty"` // the offering that would take the request instead
}

// Fill prices an offering: at a row, and in the next hours. The expectation is taken into the bounds.
func (o *Offering) Fill(b usage.Bounds, w usage.Work, r *price.Row, before rating.Position) (err error) {
	o.Expect.Tokens = inside(b, o.Expect.Tokens)
	if o.Prices, err = Of(b, o.Expect.Tokens, w, r, before); err != nil {
		return err
	}
	o.PriceRow, o.Multiplier = r.ID, price.MultiplierText(r.Multiplier)
	o.Bounds = Bounds{Tokens{b.Input, b.Output}, b.Joint}
	return nil
}
