package price

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/resource"
	"talea/internal/usage"
)

var (
	nameForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
)

// checkHead tests what a book says beside its prices.
func (b *Book) checkHead() error {
	if !nameForm.MatchString(b.Name) {
		return fmt.Errorf("price book name %q is not of letters, digits, '.', '_' and '-', at most 64", b.Name)
	}
	if !currencyForm.MatchString(b.Currency) {
		return fmt.Errorf("currency %q is not an ISO 4217 code such as EUR", b.Currency)
	}
	if _, err := period.Zone(b.Zone); err != nil {
		return fmt.Errorf("timezone: %w", err)
	}
	for _, t := range []time.Time{b.From, b.To} {
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return fmt.Errorf("effective has the year %d", y)
		}
	}
	if !b.To.IsZero() && !b.To.After(b.From) {
		return fmt.Errorf("effective ends at %s, not after its beginning %s", b.To.Format(time.RFC3339), b.From.Format(time.RFC3339))
	}
	if b.OnFault == usage.ChargeGenerated {
		return errors.New("on_platform_fault is nothing or delivered: a tenant does not pay for what our fault kept from it")
	}
	return nil
}

// check tests a service tier. A multiplier of 0 is refused: what is meant to be free has the price 0, visibly.
func (t tier) check() error {
	switch {
	case t.Name == "":
		return errors.New("a service tier has no name")
	case t.Multiplier < 1 || t.Multiplier > 1000*one:
		return fmt.Errorf("service tier %s: multiplier is not above 0 and at most 1000", t.Name)
	}
	return nil
}

// take checks an entry, under every service tier of the book, and adds it.
func (b *Book) take(e *entry) error {
	if err := e.check(); err != nil {
		return err
	}
	var err error
	steps := []int64{one}
	if b.load != nil {
		steps = b.load.Steps
	}
	for _, t := range append([]tier{{"standard", one}}, b.tiers...) {
		for _, step := range steps {
			if _, err = e.effective([]int64{t.Multiplier, step}); err != nil {
				return fmt.Errorf("service tier %s: %w", t.Name, err)
			}
		}
	}
	index, key := &b.models, e.Model
	if e.SizeClass != "" {
		index, key = &b.classes, e.SizeClass
	}
	if *index == nil {
		*index = map[string]*prices{}
	}
	p := (*index)[key]
	if p == nil {
		p = &prices{}
		(*index)[key] = p
	}
	switch {
	case p.of[e.meter] != nil:
		return fmt.Errorf("%s has two prices for %s", e.selector(), e.Meter)
	case p.minimum != nil && !e.Minimum.IsZero():
		return fmt.Errorf("%s has two minimum charges; it is one for the whole request", e.selector())
	case !e.Minimum.IsZero():
		p.minimum = e
	}
	p.of[e.meter] = e
	b.entries = append(b.entries, e)
	return nil
}

// check tests an entry by itself and works out its rate.
func (e *entry) check() (err error) {
	if (e.Model == "") == (e.SizeClass == "") {
		return errors.New("a price is for a model or for a size_class, one of the two")
	}
	var known bool
	if e.meter, known = usage.MeterByPrice(e.Meter); !known {
		names := make([]string, 0, usage.NumMeters)
		for _, m := range usage.Meters {
			names = append(names, m.Price)
		}
		if near := resource.Nearest(e.Meter, names); near != "" {
			return fmt.Errorf("unknown meter %q; did you mean %q?", e.Meter, near)
		}
		return fmt.Errorf("unknown meter %q; known are %v", e.Meter, names)
	}
	if e.Per > usage.MaxCount {
		return fmt.Errorf("price is per %d units; at most 10^15", e.Per)
	}
	if e.rate, err = money.RateOf(e.Price, e.Per); err != nil {
		return err
	}
	if e.rate.IsZero() && !e.Price.IsZero() {
		return fmt.Errorf("price %s per %d is less than half a femto-unit; what is meant to be free has the price 0", e.Price, e.Per)
	}
	if _, err = money.RateFromAmount(e.Minimum); err != nil {
		return fmt.Errorf("minimum_charge: %w", err)
	}
	return nil
}

// selector says what an entry is for.
func (e *entry) selector() string {
	if e.Model != "" {
		return "model " + e.Model
	}
	return "size class " + e.SizeClass
}

// canonical is the form of a book that is hashed and stored. Members may be added where absence means what it meant
// before; nothing else may change, or stored versions no longer match their hash.
type canonical struct {
	Name         string    `json:"name"`
	Currency     string    `json:"currency"`
	Zone         string    `json:"timezone"`
	From         time.Time `json:"from,omitzero"`
	To           time.Time `json:"to,omitzero"`
	OnDisconnect string    `json:"on_disconnect"`
	OnFault      string    `json:"on_platform_fault"`
	Load         *Load     `json:"load,omitempty"`
	Tiers        []tier    `json:"service_tiers,omitempty"`
	Prices       []*entry  `json:"prices"`
}

// Canonical returns the one form of the book that is hashed and stored, as JSON.
func (b *Book) Canonical() []byte {
	text, err := json.Marshal(canonical{b.Name, b.Currency, b.Zone, b.From.UTC(), b.To.UTC(), b.OnDisconnect.String(),
		b.OnFault.String(), b.load, b.tiers, b.entries})
	if err != nil {
		panic("price: cannot write a checked book: " + err.Error()) // times were parsed from RFC 3339, the rest is text
	}
	return text
}

// seal orders the tiers and prices of a book that is complete, and hashes it.
func (b *Book) seal() {
	slices.SortFunc(b.tiers, func(s, t tier) int { return cmp.Compare(s.Name, t.Name) })
	slices.SortFunc(b.entries, func(d, e *entry) int {
		return cmp.Or(cmp.Compare(d.Model, e.Model), cmp.Compare(d.SizeClass, e.SizeClass), cmp.Compare(d.meter, e.meter))
	})
	sum := sha256.Sum256(b.Canonical())
	b.Version = hex.EncodeToString(sum[:])
}

// ParseCanonical reads back what Canonical wrote, and checks it again. Text that is not exactly the canonical form of a
// book is an error, so that a book with members that this version does not know is never half understood.
func ParseCanonical(text []byte) (*Book, error) {
	var c canonical
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("cannot read stored price book: %w", err)
	}
	b := &Book{Name: c.Name, Currency: c.Currency, Zone: c.Zone, From: c.From, To: c.To, load: c.Load, tiers: c.Tiers}
	b.OnDisconnect, _ = usage.TariffByName(c.OnDisconnect)
	b.OnFault, _ = usage.TariffByName(c.OnFault)
	err := b.checkHead()
	if b.load != nil {
		err = cmp.Or(err, b.load.check())
	}
	for _, t := range b.tiers {
		err = cmp.Or(err, t.check())
	}
	for _, e := range c.Prices {
		if e == nil {
			e = &entry{} // null: refused like any other price of nothing
		}
		err = cmp.Or(err, b.take(e))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read stored price book %q: %w", c.Name, err)
	}
	b.seal()
	if !bytes.Equal(b.Canonical(), text) {
		return nil, fmt.Errorf("cannot read stored price book %q: it is not in the form that this version writes", c.Name)
	}
	return b, nil
}
