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
	"strings"
	"time"

	"talea/internal/period"
	"talea/internal/resource"
	"talea/internal/usage"
)

var (
	nameForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
)

// atStart prices a request at the instant at which it is admitted.
const atStart = "at_start"

var instants = []string{atStart, "split_by_emission", "cheapest"}

// checkHead tests what a book says beside its windows and prices.
func (b *Book) checkHead() error {
	if !nameForm.MatchString(b.Name) {
		return fmt.Errorf("price book name %q is not of letters, digits, '.', '_' and '-', at most 64", b.Name)
	}
	if !currencyForm.MatchString(b.Currency) {
		return fmt.Errorf("currency %q is not an ISO 4217 code such as EUR", b.Currency)
	}
	zone, err := period.Zone(b.Zone)
	if err != nil {
		return fmt.Errorf("timezone: %w", err)
	}
	b.zone = zone
	for _, t := range []time.Time{b.From, b.To} {
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return fmt.Errorf("effective has the year %d", y)
		}
	}
	switch {
	case !b.To.IsZero() && !b.To.After(b.From):
		return fmt.Errorf("effective ends at %s, not after its beginning %s", b.To.Format(time.RFC3339), b.From.Format(time.RFC3339))
	case !slices.Contains(instants, b.Instant):
		return fmt.Errorf("price_instant is at_start, split_by_emission or cheapest, not %q", b.Instant)
	case b.OnFault == usage.ChargeGenerated:
		return errors.New("on_platform_fault is nothing or delivered: a tenant does not pay for what our fault kept from it")
	case b.Base == b.Name:
		return errors.New("it is its own base")
	case b.Base == "" && b.factor != one:
		return errors.New("multiplier is for what a book inherits: it needs a base")
	case b.factor < 1 || b.factor > 1000*one:
		return errors.New("multiplier is not above 0 and at most 1000")
	}
	return nil
}

// check tests a service tier. A multiplier of 0 is refused: what is meant to be free has the price 0, visibly.
func (t tier) check() error {
	switch {
	case t.Name == "" || strings.ContainsFunc(t.Name, func(r rune) bool { return r <= ' ' }):
		return fmt.Errorf("service tier %q: a tier has a name, without blanks", t.Name)
	case t.Multiplier < 1 || t.Multiplier > 1000*one:
		return fmt.Errorf("service tier %s: multiplier is not above 0 and at most 1000", t.Name)
	}
	return nil
}

// canonical is the form of a book that is hashed and stored. Members may be added where absence means what it meant
// before; nothing else may change, or stored versions no longer match their hash.
type canonical struct {
	Name         string              `json:"name"`
	Currency     string              `json:"currency"`
	Zone         string              `json:"timezone"`
	From         time.Time           `json:"from,omitzero"`
	To           time.Time           `json:"to,omitzero"`
	Instant      string              `json:"price_instant,omitempty"` // absent: at_start
	OnDisconnect string              `json:"on_disconnect"`
	OnFault      string              `json:"on_platform_fault"`
	Base         string              `json:"base,omitempty"`
	Factor       int64               `json:"multiplier_ppm,omitempty"` // absent: 1
	Calendars    map[string][]string `json:"calendars,omitempty"`
	Windows      []*window           `json:"windows,omitempty"`
	Load         *Load               `json:"load,omitempty"`
	Fixed        bool                `json:"load_fixed,omitempty"`
	LoadCap      int64               `json:"load_cap_ppm,omitempty"`
	Tiers        []tier              `json:"service_tiers,omitempty"`
	Prices       []*entry            `json:"prices"`
}

// Canonical returns the one form of the book that is hashed and stored, as JSON.
func (b *Book) Canonical() []byte {
	c := canonical{
		Name: b.Name, Currency: b.Currency, Zone: b.Zone, From: b.From.UTC(), To: b.To.UTC(),
		OnDisconnect: b.OnDisconnect.String(), OnFault: b.OnFault.String(), Base: b.Base,
		Calendars: b.calendars, Windows: b.windows, Load: b.load, Fixed: b.fixed, LoadCap: b.loadCap, Tiers: b.tiers, Prices: b.entries,
	}
	if b.Instant != atStart {
		c.Instant = b.Instant
	}
	if b.factor != one {
		c.Factor = b.factor
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic("price: cannot write a checked book: " + err.Error()) // times were parsed from RFC 3339, the rest is text
	}
	return text
}

// seal orders a book that is complete, tests it as a whole, and hashes it.
func (b *Book) seal() error {
	for _, dates := range b.calendars {
		slices.Sort(dates)
	}
	slices.SortFunc(b.windows, func(v, w *window) int { return cmp.Compare(v.Name, w.Name) })
	slices.SortFunc(b.tiers, func(s, t tier) int { return cmp.Compare(s.Name, t.Name) })
	slices.SortFunc(b.entries, func(d, e *entry) int {
		return cmp.Or(cmp.Compare(d.Model, e.Model), cmp.Compare(d.Family, e.Family), cmp.Compare(d.SizeClass, e.SizeClass), cmp.Compare(d.meter, e.meter),
			cmp.Compare(d.Organisation, e.Organisation), cmp.Compare(d.ServiceTier, e.ServiceTier), cmp.Compare(d.Region, e.Region), cmp.Compare(d.GPUKind, e.GPUKind))
	})
	clear(b.index)
	for _, w := range b.windows {
		w.pos = resource.Pos{} // a book is the same wherever it was read
	}
	for _, e := range b.entries {
		e.pos = resource.Pos{}
		b.index[e.target()] = append(b.index[e.target()], e)
	}
	sum := sha256.Sum256(b.Canonical())
	b.Version = hex.EncodeToString(sum[:])
	return b.extremes(nil, one, b.load)
}

// ParseCanonical reads back what Canonical wrote, and checks it again. Text that is not exactly the canonical form of a
// book is an error, so that a book with members that this version does not know is never half understood.
func ParseCanonical(text []byte) (*Book, error) {
	var c canonical
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("cannot read stored price book: %w", err)
	}
	b := &Book{
		Name: c.Name, Currency: c.Currency, Zone: c.Zone, From: c.From, To: c.To, Instant: cmp.Or(c.Instant, atStart), Base: c.Base,
		factor: cmp.Or(c.Factor, one), calendars: c.Calendars, windows: c.Windows, load: c.Load, fixed: c.Fixed, loadCap: c.LoadCap, tiers: c.Tiers,
	}
	b.OnDisconnect, _ = usage.TariffByName(c.OnDisconnect)
	b.OnFault, _ = usage.TariffByName(c.OnFault)
	err := b.checkHead()
	for _, t := range b.tiers {
		err = cmp.Or(err, t.check())
	}
	if b.load != nil {
		err = cmp.Or(err, b.load.check())
	}
	err = cmp.Or(err, b.checkLoad())
	if slices.Contains(b.windows, nil) || slices.Contains(c.Prices, nil) {
		err = cmp.Or(err, errors.New("a window or a price is null"))
	}
	if err == nil {
		b.checkWindows(func(_ resource.Pos, fault error) { err = cmp.Or(err, fault) })
		for _, e := range c.Prices {
			err = cmp.Or(err, b.take(e))
		}
		b.ambiguous(func(_ *entry, fault error) { err = cmp.Or(err, fault) })
	}
	if err == nil {
		err = b.seal()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read stored price book %q: %w", c.Name, err)
	}
	if !bytes.Equal(b.Canonical(), text) {
		return nil, fmt.Errorf("cannot read stored price book %q: it is not in the form that this version writes", c.Name)
	}
	return b, nil
}
