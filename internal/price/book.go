// Package price is the price book: what a unit of each leaf class costs, for a model or a size class, and by which rules.
// It reads and checks books and picks the row of prices of one offering. It does not multiply quantities (rating), does
// not know accounts or which book they have (world), and keeps nothing (ledger).
//
// # Invariants
//
//   - A book never changes; its Version is the SHA-256 of its canonical form, which does not depend on how its file was
//     laid out, and ParseCanonical of that form gives the same book.
//   - Nothing is accepted and ignored: a member that is not built yet is an error at its line.
//   - A price that somebody wrote above 0 is above 0 under every service tier; no price is ever assumed.
//   - An effective rate is rounded once, from the list price and all multipliers together.
//   - A class without a price has the price of its fallback, which is never another class's fallback, or none.
//
// To add a form of price: its members in priceSpec and entry (omitted from the canonical form where empty, so that old
// hashes stay), its rules in entry.check, its effect in Row, and its golden vectors in package rating.
//
// Start reading at Book.Row, then Parse.
package price

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"talea/internal/money"
	"talea/internal/resource"
	"talea/internal/usage"
)

// Book is one version of a price book. Its fields are read only.
type Book struct {
	Name         string
	Currency     string       // ISO 4217
	Zone         string       // IANA zone of its calendar
	Version      string       // SHA-256 of Canonical, 64 hexadecimal digits
	From, To     time.Time    // UTC, in force in [From, To); zero is without end on that side
	OnDisconnect usage.Tariff // what an answer costs whose client went away
	OnFault      usage.Tariff // what an answer costs that an engine or the gateway broke
	Pos          resource.Pos // where its file has it; zero where it was read back from its canonical form

	load    *Load    // nil: prices do not follow the load
	tiers   []tier   // by name
	entries []*entry // by model, size class and meter
	models  map[string]*prices
	classes map[string]*prices
}

// tier is a service tier.
type tier struct {
	Name       string `json:"name"`
	Multiplier int64  `json:"multiplier_ppm"`
}

// entry is one price of a book: of one leaf class, for a model or a size class.
type entry struct {
	Model     string       `json:"model,omitempty"`
	SizeClass string       `json:"size_class,omitempty"`
	Meter     string       `json:"meter"` // as price books name it
	Price     money.Amount `json:"price"` // of Per units
	Per       int64        `json:"per"`
	Minimum   money.Amount `json:"minimum_charge,omitzero"`

	meter usage.Meter
	rate  money.Rate // Price / Per, rounded
}

// prices are the entries of one model or size class, by leaf class.
type prices struct {
	of      [usage.NumMeters]*entry
	minimum *entry // the one entry with a minimum charge
}

// one is a multiplier that changes nothing, in parts per million.
const one = 1_000_000

// Row is what one offering costs: the prices that a request locks at its hold. Rows are copied by value, hold no
// reference to their book, and are the same for every request of one offering while the book is in force.
type Row struct {
	ID         string // book@version/model, with 16 digits of the version; book@version#step/model under a step of the price tape
	Multiplier int64  // parts per million, all multipliers together, rounded half-even: to show; Rates already have it
	Minimum    money.Amount
	Rates      [usage.NumMeters]money.Rate
	Has        [usage.NumMeters]bool // whether the class has a price, of its own or of its fallback
}

// Model returns the offering's name, from the ID.
func (r *Row) Model() string {
	_, model, _ := strings.Cut(r.ID, "/")
	return model
}

// AtStep names in the ID of a row the step of the price tape whose multiplier it has.
func (r *Row) AtStep(number int64) {
	book, model, _ := strings.Cut(r.ID, "/")
	r.ID = fmt.Sprintf("%s#%d/%s", book, number, model)
}

// ErrNotPriced says that a book has no price for something, which must refuse the request: it never costs nothing.
type ErrNotPriced struct {
	Model string
	Meter string    // leaf class; "" where the model has no price at all
	At    time.Time // the instant at which the book is not in force; zero where it is
}

// Error says what has no price.
func (e ErrNotPriced) Error() string {
	switch {
	case !e.At.IsZero():
		return fmt.Sprintf("model %s has no price at %s: the price book is not in force", e.Model, e.At.Format(time.RFC3339))
	case e.Meter == "":
		return fmt.Sprintf("model %s has no price", e.Model)
	}
	return fmt.Sprintf("model %s has no price for %s", e.Model, e.Meter)
}

// InForce reports whether the book is in force at the instant.
func (b *Book) InForce(at time.Time) bool {
	return !at.Before(b.From) && (b.To.IsZero() || at.Before(b.To))
}

// Row returns the prices of an offering under the given multipliers (parts per million; none is list price). A price
// for the model goes before one for its size class, class by class; only a leaf class with neither falls back to
// another. A minimum charge is not multiplied. The error is an ErrNotPriced where the book is not in force or has no
// price for the model; any other is a multiplier that money.RateOf refuses, or that turns a price into nothing.
func (b *Book) Row(model, sizeClass string, at time.Time, ppm ...int64) (Row, error) {
	if !b.InForce(at) {
		return Row{}, ErrNotPriced{Model: model, At: at}
	}
	row := Row{ID: b.Name + "@" + b.Version[:16] + "/" + model, Multiplier: one}
	if len(ppm) > 0 {
		product, err := money.RateOf(money.Units(one), 1, ppm...)
		if err != nil {
			return Row{}, fmt.Errorf("cannot multiply the prices of model %s: %w", model, err)
		}
		row.Multiplier, _ = product.Amount().Int64()
	}
	priced := false
	for m := range usage.NumMeters {
		e := b.find(m, model, sizeClass)
		if e == nil {
			e = b.find(usage.Meters[m].Fallback, model, sizeClass)
		}
		if e == nil {
			continue
		}
		rate, err := e.effective(ppm)
		if err != nil {
			return Row{}, fmt.Errorf("cannot price %s of model %s: %w", m, model, err)
		}
		row.Rates[m], row.Has[m] = rate, true
		priced = true
	}
	if !priced {
		return Row{}, ErrNotPriced{Model: model}
	}
	for _, p := range []*prices{b.models[model], b.classes[sizeClass]} {
		if p != nil && p.minimum != nil {
			row.Minimum = p.minimum.Minimum
			break
		}
	}
	return row, nil
}

// find returns the most specific entry for a leaf class, or nil.
func (b *Book) find(m usage.Meter, model, sizeClass string) *entry {
	if p := b.models[model]; p != nil && p.of[m] != nil {
		return p.of[m]
	}
	if p := b.classes[sizeClass]; p != nil {
		return p.of[m]
	}
	return nil
}

// effective returns the rate under multipliers, rounded once.
func (e *entry) effective(ppm []int64) (money.Rate, error) {
	if len(ppm) == 0 {
		return e.rate, nil
	}
	rate, err := money.RateOf(e.Price, e.Per, ppm...)
	if err == nil && rate.IsZero() && !e.Price.IsZero() {
		err = fmt.Errorf("price %s per %d is less than half a femto-unit under multipliers %d", e.Price, e.Per, ppm)
	}
	return rate, err
}

// Tier returns the multiplier of a service tier in parts per million, and whether the book has the tier. Every book has
// the tier "standard", at list price unless it says otherwise.
func (b *Book) Tier(name string) (ppm int64, ok bool) {
	for _, t := range b.tiers {
		if t.Name == name {
			return t.Multiplier, true
		}
	}
	return one, name == "standard"
}

// Check tests what only shows among all books of a world: versions of one name follow each other without overlap or
// gap, in one currency. Its error is a resource.Errors.
func Check(books []*Book) error {
	sorted := slices.Clone(books)
	slices.SortStableFunc(sorted, func(a, b *Book) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.From.Compare(b.From)
	})
	var errs resource.Errors
	for i := 1; i < len(sorted); i++ {
		before, b := sorted[i-1], sorted[i]
		if before.Name != b.Name {
			continue
		}
		if b.Currency != before.Currency {
			errs.Add(b.Pos.Errorf("price book %s is in %s and its version before in %s; another currency needs another name",
				b.Name, b.Currency, before.Currency))
		}
		from := b.From.Format(time.RFC3339)
		switch {
		case before.To.IsZero() || before.To.After(b.From):
			errs.Add(b.Pos.Errorf("price book %s overlaps its version before, which must end with `to: %s`", b.Name, from))
		case before.To.Before(b.From):
			errs.Add(b.Pos.Errorf("price book %s leaves a gap: its version before ends at %s and this one begins at %s",
				b.Name, before.To.Format(time.RFC3339), from))
		}
	}
	return errs.Err()
}
