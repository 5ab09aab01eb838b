// Package price is the price book: what a unit of each leaf class costs, for which model, tier, place and time, and by
// which rules. It reads and checks books and picks the row of prices that a request locks. It does not multiply
// quantities (rating), does not know accounts or which book they have (world), and keeps nothing (ledger).
//
// # Invariants
//
//   - A book never changes; its Version is the SHA-256 of its canonical form, which does not depend on how its file was
//     laid out, and ParseCanonical of that form gives the same book.
//   - Nothing is accepted and ignored: a member that is not known is an error at its line.
//   - No two prices match one request equally well, and no two windows contain one instant: both are errors of the book.
//   - A price that somebody wrote above 0 is above 0 under all multipliers of the book; no price is ever assumed.
//   - An effective rate is rounded once, from the list price and all multipliers together.
//   - A class without a price has the price of its fallback, which is never another class's fallback, or none.
//   - A Row is right for every instant from its From to its To, and holds no reference to its book.
//
// To add a form of price: a Kind, its members in priceSpec and entry (omitted from the canonical form where empty, so that
// old hashes stay), its rules in entry.checkForm, its effect in rating.Rate and rating.Ceiling, and its golden vectors.
// To add a condition: a member of selector and of Query.
//
// Start reading at Book.Row, then Parse.
package price

import (
	"cmp"
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
	Instant      string       // of which time the price is: "at_start", "split_by_emission" or "cheapest"
	OnDisconnect usage.Tariff // what an answer costs whose client went away
	OnFault      usage.Tariff // what an answer costs that an engine or the gateway broke
	Base         string       // the book whose prices hold where this one has none; "" for no such book
	Pos          resource.Pos // where its file has it; zero where it was read back from its canonical form

	factor    int64 // on everything inherited from Base, in parts per million
	calendars map[string][]string
	windows   []*window // by name
	load      *Load     // nil: its own prices do not follow the load
	fixed     bool      // nor do those that it inherits
	loadCap   int64     // the highest multiplier of the load for whoever has the book, in parts per million; 0: that of the ladder
	tiers     []tier    // by name
	entries   []*entry  // in their order in the canonical form
	index     map[target][]*entry
	zone      *time.Location
	base      []*Book // versions of Base, one after the other in time; set by Link
}

// tier is a service tier.
type tier struct {
	Name       string `json:"name"`
	Multiplier int64  `json:"multiplier_ppm"`
}

// one is a multiplier that changes nothing, in parts per million.
const one = 1_000_000

// Standard is the service tier of a request that asks for none. Every book has it.
const Standard = "standard"

// Query says what is to be priced.
type Query struct {
	Model, Family, SizeClass string
	GPUKind, Region          string // of the engines that can serve it
	Tier                     string // service tier; "" is Standard
	Organisation             string
}

// Row is what one offering costs: the prices that a request locks at its hold. Rows are copied by value and may be shared.
type Row struct {
	ID         string    // book@version/model, with 16 digits of the version, #step behind it under a step of the price tape; then, after blanks, tier=… and window=…
	From, To   time.Time // UTC, the row is right in [From, To); zero is without end on that side
	Multiplier int64     // parts per million, of time, tier, contract and load together, rounded half-even: to show; prices already have it
	Minimum    money.Amount
	Rates      [usage.NumMeters]money.Rate // of a single unit; 0 for a class in Forms
	Has        [usage.NumMeters]bool       // whether the class has a price, of its own or of its fallback
	Forms      []Form                      // prices that depend on how much, which most rows have none of
}

// Model returns the offering's name, from the ID.
func (r *Row) Model() string {
	_, rest, _ := strings.Cut(r.ID, "/")
	model, _, _ := strings.Cut(rest, " ")
	return model
}

// Listed returns the price of a single unit of a class as a list shows it, the first step's where it has steps. ok is
// false where the class has no price, or none of a single unit.
func (r *Row) Listed(m usage.Meter) (rate money.Rate, ok bool) {
	for i := range r.Forms {
		if f := &r.Forms[i]; f.Of(m) {
			return f.Steps[0].Rate, f.Kind != Package
		}
	}
	return r.Rates[m], r.Has[m]
}

// AtStep names in the ID of a row the step of the price tape whose multiplier it has.
func (r *Row) AtStep(number int64) {
	book, model, _ := strings.Cut(r.ID, "/")
	r.ID = fmt.Sprintf("%s#%d/%s", book, number, model)
}

// Holds reports whether the row is right for an instant.
func (r *Row) Holds(at time.Time) bool {
	return !at.Before(r.From) && (r.To.IsZero() || at.Before(r.To))
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

// ErrNoTier says that a book does not sell a service tier.
type ErrNoTier struct {
	Book, Tier string
	Known      []string
}

// Error says which tiers there are.
func (e ErrNoTier) Error() string {
	return fmt.Sprintf("price book %s has no service tier %q, but %s", e.Book, e.Tier, strings.Join(e.Known, ", "))
}

// InForce reports whether the book is in force at the instant.
func (b *Book) InForce(at time.Time) bool {
	return !at.Before(b.From) && (b.To.IsZero() || at.Before(b.To))
}

// source is a book that a row takes prices from, with what multiplies them.
type source struct {
	book   *Book
	window *window
	ppm    []int64 // of time, load and contract: of all but the tier
	tier   int64
	factor int64 // the contract's share of ppm; fees and minimum charges are multiplied by it alone
}

// Row returns the prices of an offering at an instant. Class by class the most specific price of the book counts; where
// it has none, that of the book it is based on; and only a class with neither falls back to another class. The load
// factor, in parts per million, is 1 where none is given; it multiplies what the book's ladder moves, up to its cap. Multipliers of time, tier and load change prices of units and
// packages; a contract's multiplier changes inherited fees and minimum charges as well.
//
// The error is an ErrNotPriced where the book is not in force or has no price for the offering, an ErrNoTier, or says
// what no book that passed its checks can meet.
func (b *Book) Row(q Query, at time.Time, loadFactor ...int64) (Row, error) {
	if !b.InForce(at) {
		return Row{}, ErrNotPriced{Model: q.Model, At: at}
	}
	q.Tier = cmp.Or(q.Tier, Standard)
	row := Row{From: b.From, To: b.To}
	id := b.Name + "@" + b.Version[:16]
	own, inherited := b.under(loadFactor)
	sources := []source{b.source(one, at, &row, own)}
	if b.Base != "" {
		base := inForce(b.base, at)
		if base == nil {
			return Row{}, ErrNotPriced{Model: q.Model, At: at}
		}
		id += "+" + base.Name + "@" + base.Version[:16]
		row.narrow(base.From, base.To)
		sources = append(sources, base.source(b.factor, at, &row, inherited))
	}
	ppm, ok := b.Tier(q.Tier, at)
	if !ok {
		return Row{}, ErrNoTier{b.Name, q.Tier, b.Tiers(at)}
	}
	row.ID = id + "/" + q.Model + suffix(q.Tier, sources)
	for i := range sources {
		sources[i].tier = ppm
	}
	return row, row.fill(&q, sources)
}

// suffix is the part of a row's name that tells it from others of its model.
func suffix(tier string, sources []source) string {
	text := ""
	if tier != Standard {
		text = " tier=" + tier
	}
	var windows []string
	for _, s := range sources {
		if s.window != nil {
			windows = append(windows, s.window.Name)
		}
	}
	if len(windows) > 0 {
		text += " window=" + strings.Join(windows, ",")
	}
	return text
}

// source finds what multiplies the book's prices at an instant, and narrows the row to the time in which that is so.
func (b *Book) source(factor int64, at time.Time, row *Row, loadFactor []int64) source {
	s := source{book: b, factor: factor}
	for _, ppm := range append(slices.Clone(loadFactor), factor) {
		if ppm != one {
			s.ppm = append(s.ppm, ppm)
		}
	}
	if len(b.windows) > 0 {
		var from, to time.Time
		s.window, from, to = b.windowAt(at)
		row.narrow(from, to)
		if s.window != nil && s.window.Multiplier != one {
			s.ppm = append(s.ppm, s.window.Multiplier)
		}
	}
	return s
}

func (r *Row) narrow(from, to time.Time) {
	if from.After(r.From) {
		r.From = from
	}
	if !to.IsZero() && (r.To.IsZero() || to.Before(r.To)) {
		r.To = to
	}
}

func inForce(versions []*Book, at time.Time) *Book {
	for _, v := range versions {
		if v.InForce(at) {
			return v
		}
	}
	return nil
}

// fill finds the price of every class and the minimum charge.
func (r *Row) fill(q *Query, sources []source) error {
	forms := map[*entry]int{}
	r.Multiplier = one
	priced := false
	for m := range usage.NumMeters {
		e, s := find(m, q, sources)
		if e == nil {
			e, s = find(usage.Meters[m].Fallback, q, sources)
		}
		if e == nil {
			continue
		}
		ppm := s.multipliers(e)
		if !priced {
			if err := r.show(ppm); err != nil {
				return fmt.Errorf("cannot multiply the prices of model %s: %w", q.Model, err)
			}
		}
		r.Has[m], priced = true, true
		if e.kind == Flat {
			rate, err := e.effective(e.Price, e.Per, ppm)
			if err != nil {
				return fmt.Errorf("cannot price %s of model %s: %w", m, q.Model, err)
			}
			r.Rates[m] = rate
			continue
		}
		i, known := forms[e]
		if !known {
			f, err := e.form(s.book.Zone, ppm, s.factor)
			if err != nil {
				return fmt.Errorf("cannot price %s of model %s: %w", m, q.Model, err)
			}
			i, forms[e] = len(r.Forms), len(r.Forms)
			r.Forms = append(r.Forms, f)
		}
		r.Forms[i].Meters |= 1 << m
	}
	if !priced {
		return ErrNotPriced{Model: q.Model}
	}
	if r.byWork() {
		for m := range usage.Image {
			r.Has[m] = true // at 0: their price is that of their work
		}
	}
	return r.minimum(q, sources)
}

// byWork reports whether the work of a request is the price of its tokens: a price for work and none for any token.
func (r *Row) byWork() bool {
	return r.Has[usage.WorkMS] && !slices.Contains(r.Has[:usage.Image], true)
}

// show works out the multiplier that answers show: that of the first class that has a price.
func (r *Row) show(ppm []int64) error {
	product, err := money.RateOf(money.Units(one), 1, ppm...)
	r.Multiplier, _ = product.Amount().Int64()
	return err
}

// multipliers are those of one price. A price that is of one service tier has that tier's multiplier in it already.
func (s *source) multipliers(e *entry) []int64 {
	if e.ServiceTier != "" || s.tier == one {
		return s.ppm
	}
	return append(slices.Clone(s.ppm), s.tier)
}

func (r *Row) minimum(q *Query, sources []source) error {
	for i := range sources {
		s := &sources[i]
		e := s.book.best(q, func(e *entry) bool { return !e.Minimum.IsZero() })
		if e == nil {
			continue
		}
		least, err := money.RateOf(e.Minimum, 1, s.factor)
		r.Minimum = least.Amount()
		return err
	}
	return nil
}

// find returns the price of a leaf class: of the book itself, else of its base.
func find(m usage.Meter, q *Query, sources []source) (*entry, *source) {
	for i := range sources {
		if e := sources[i].book.best(q, func(e *entry) bool { return e.meter == m }); e != nil {
			return e, &sources[i]
		}
	}
	return nil, nil
}

// best returns the most specific entry that matches, or nil: one for the model before one for its family before one for
// its size class; among those, the one with the most conditions.
func (b *Book) best(q *Query, want func(*entry) bool) *entry {
	for _, t := range [...]target{{byModel, q.Model}, {byFamily, q.Family}, {bySizeClass, q.SizeClass}} {
		var best *entry
		for _, e := range b.index[t] {
			if want(e) && e.matches(q) && (best == nil || e.conditions() > best.conditions()) {
				best = e
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// Tier returns the multiplier of a service tier in parts per million, of the book itself or of its base, and whether it
// is sold.
func (b *Book) Tier(name string, at time.Time) (ppm int64, ok bool) {
	for _, t := range b.tiers {
		if t.Name == name {
			return t.Multiplier, true
		}
	}
	if base := inForce(b.base, at); base != nil {
		return base.Tier(name, at)
	}
	return one, name == Standard
}

// Tiers lists the service tiers that can be asked for at an instant, by name.
func (b *Book) Tiers(at time.Time) []string {
	names := []string{Standard}
	for v := b; v != nil; v = inForce(v.base, at) {
		for _, t := range v.tiers {
			if !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// ByPlace reports whether some price depends on the region or the GPU kind of the engine that serves.
func (b *Book) ByPlace() bool {
	return slices.ContainsFunc(append([]*Book{b}, b.base...), func(v *Book) bool {
		return slices.ContainsFunc(v.entries, func(e *entry) bool { return e.Region != "" || e.GPUKind != "" })
	})
}

// Names reports whether the book or its base has some price for a model, its family or its size class, whatever the
// conditions.
func (b *Book) Names(q Query) bool {
	return slices.ContainsFunc(append([]*Book{b}, b.base...), func(v *Book) bool {
		return len(v.index[target{byModel, q.Model}])+len(v.index[target{byFamily, q.Family}])+len(v.index[target{bySizeClass, q.SizeClass}]) > 0
	})
}

// Unserved says what of the book the path of requests cannot do yet, "" for nothing: only rating by hand can.
func (b *Book) Unserved() string {
	if b.Instant != atStart {
		return "price_instant " + b.Instant
	}
	return ""
}

// Check tests what only shows among all books of a world: versions of one name follow each other without overlap or
// gap, in one currency. Its error is a resource.Errors.
func Check(books []*Book) error {
	sorted := slices.Clone(books)
	slices.SortStableFunc(sorted, func(a, b *Book) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.From.Compare(b.From))
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

// Link returns the books, in their order, with each that has a base over the versions of it. The books given stay as
// they are. fault is told what is wrong with a book.
func Link(books []*Book, fault func(b *Book, err error)) []*Book {
	linked := slices.Clone(books)
	for i, b := range books {
		if b.Base == "" {
			continue
		}
		over := *b
		for _, other := range books {
			if other.Name == b.Base {
				over.base = append(over.base, other)
			}
		}
		slices.SortStableFunc(over.base, func(a, b *Book) int { return a.From.Compare(b.From) })
		if err := over.checkBase(); err != nil {
			fault(b, err)
			continue
		}
		linked[i] = &over
	}
	return linked
}

// checkBase tests a book against the one that it overlays.
func (b *Book) checkBase() error {
	if len(b.base) == 0 {
		return fmt.Errorf("its base %q is not a price book that there is", b.Base)
	}
	first, last := b.base[0], b.base[len(b.base)-1]
	switch {
	case first.Base != "":
		return fmt.Errorf("its base %s has a base itself, %s; one level is all there is", b.Base, first.Base)
	case first.Currency != b.Currency:
		return fmt.Errorf("it is in %s, but its base %s in %s", b.Currency, b.Base, first.Currency)
	case first.From.After(b.From):
		return fmt.Errorf("there is a gap: its base %s is not in force before %s", b.Base, first.From.Format(time.RFC3339))
	case !last.To.IsZero() && (b.To.IsZero() || b.To.After(last.To)):
		return fmt.Errorf("there is a gap: its base %s is not in force from %s", b.Base, last.To.Format(time.RFC3339))
	}
	if b.loadCap > 0 && b.load == nil && !slices.ContainsFunc(b.base, func(v *Book) bool { return v.load != nil }) {
		return fmt.Errorf("it has a load_cap, but neither it nor its base %s has prices that follow the load", b.Base)
	}
	for _, e := range b.entries {
		for _, v := range b.base {
			if _, ok := b.Tier(e.ServiceTier, v.From); e.ServiceTier != "" && !ok {
				return fmt.Errorf("a price is for the service tier %q, which neither it nor its base %s has", e.ServiceTier, b.Base)
			}
		}
	}
	for _, v := range b.base {
		if err := v.extremes(b.tiers, b.factor, b.ladderOver(v)); err != nil {
			return fmt.Errorf("under its multiplier, of its base %s: %w", b.Base, err)
		}
	}
	return nil
}
