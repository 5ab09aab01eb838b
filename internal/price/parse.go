package price

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"talea/internal/money"
	"talea/internal/resource"
	"talea/internal/usage"
)

// bookSpec is a price book as a resource file writes it. Members of type Node are known and not built yet.
type bookSpec struct {
	Pos          resource.Pos
	Name         string              `yaml:"name,required"`
	Currency     string              `yaml:"currency,required"`
	Timezone     string              `yaml:"timezone"`
	Effective    effectiveSpec       `yaml:"effective"`
	PriceInstant string              `yaml:"price_instant"`
	OnDisconnect string              `yaml:"on_disconnect"`
	OnFault      string              `yaml:"on_platform_fault"`
	ServiceTiers map[string]tierSpec `yaml:"service_tiers"`
	Prices       []priceSpec         `yaml:"prices,required"`
	Base         resource.Node       `yaml:"base"`
	Multiplier   resource.Node       `yaml:"multiplier"`
	Calendars    resource.Node       `yaml:"calendars"`
	Windows      resource.Node       `yaml:"windows"`
	Load         *loadSpec           `yaml:"load"`
}

type effectiveSpec struct {
	From time.Time `yaml:"from"`
	To   time.Time `yaml:"to"`
}

type tierSpec struct {
	Pos        resource.Pos
	Multiplier resource.Decimal `yaml:"multiplier"`
}

type priceSpec struct {
	Pos         resource.Pos
	Model       string           `yaml:"model"`
	SizeClass   string           `yaml:"size_class"`
	Meter       string           `yaml:"meter,required"`
	Form        string           `yaml:"form"`
	Price       resource.Decimal `yaml:"price"`
	Per         resource.Decimal `yaml:"per"`
	Minimum     resource.Decimal `yaml:"minimum_charge"`
	Scope       resource.Node    `yaml:"scope"`
	Window      resource.Node    `yaml:"window"`
	Steps       resource.Node    `yaml:"steps"`
	Package     resource.Node    `yaml:"package"`
	LongContext resource.Node    `yaml:"long_context"`
}

// defaultPer is the number of units that a price is for when the book does not say.
const defaultPer = 1_000_000

// Parse reads a price book from an item of a resource file. Its error is a resource.Errors with every fault found.
func Parse(n resource.Node) (*Book, error) {
	var spec bookSpec
	if err := n.Decode(&spec); err != nil {
		return nil, err
	}
	var errs resource.Errors
	errs.Add(unsupported([]member{{"base", spec.Base}, {"multiplier", spec.Multiplier}, {"calendars", spec.Calendars},
		{"windows", spec.Windows}}))
	b := &Book{
		Name: spec.Name, Currency: spec.Currency, Zone: cmp.Or(spec.Timezone, "UTC"),
		From: spec.Effective.From, To: spec.Effective.To, Pos: spec.Pos,
	}
	var known bool
	if b.OnDisconnect, known = usage.TariffByName(cmp.Or(spec.OnDisconnect, "generated")); !known {
		errs.Add(spec.Pos.Errorf("on_disconnect is generated, delivered or nothing, not %q", spec.OnDisconnect))
	}
	if b.OnFault, known = usage.TariffByName(cmp.Or(spec.OnFault, "nothing")); !known {
		errs.Add(spec.Pos.Errorf("on_platform_fault is nothing or delivered, not %q", spec.OnFault))
	}
	switch spec.PriceInstant {
	case "", "at_start":
	case "split_by_emission", "cheapest":
		errs.Add(spec.Pos.Errorf("price_instant %s is not supported yet; only at_start is", spec.PriceInstant))
	default:
		errs.Add(spec.Pos.Errorf("price_instant is at_start, not %q", spec.PriceInstant))
	}
	errs.Add(at(spec.Pos, b.checkHead()))
	if spec.Load != nil {
		l, err := spec.Load.parse()
		if err == nil {
			b.load = l
		}
		errs.Add(err)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.ServiceTiers)) {
		t, err := spec.ServiceTiers[name].parse(name)
		if err == nil {
			b.tiers = append(b.tiers, t)
		}
		errs.Add(err)
	}
	for _, p := range spec.Prices {
		e, err := p.parse()
		if err == nil {
			err = at(p.Pos, b.take(e))
		}
		errs.Add(err)
	}
	if len(errs) > 0 {
		return nil, errs.Err()
	}
	b.seal()
	return b, nil
}

// at gives an error a place; nil stays nil.
func at(pos resource.Pos, err error) error {
	if err == nil {
		return nil
	}
	return pos.Errorf("%v", err)
}

// member is a known key and its value, absent where the file has none.
type member struct {
	key   string
	value resource.Node
}

// unsupported is an error for each member that a file has, at its line: none of them is built yet.
func unsupported(members []member) error {
	var errs resource.Errors
	for _, m := range members {
		if m.value.Present() {
			errs.Add(m.value.Pos().Errorf("%s is not supported yet: only flat prices are", m.key))
		}
	}
	return errs.Err()
}

func (s tierSpec) parse(name string) (tier, error) {
	t := tier{name, one}
	if s.Multiplier.Text == "" {
		return t, nil
	}
	var err error
	if t.Multiplier, err = ParseMultiplier(s.Multiplier.Text); err != nil {
		return t, s.Multiplier.Pos.Errorf("service tier %s: %v", name, err)
	}
	return t, at(s.Pos, t.check())
}

// ParseMultiplier reads a factor such as "1.25" into parts per million, exactly.
func ParseMultiplier(text string) (ppm int64, err error) {
	a, err := money.ParseAmount(text)
	if err != nil {
		return 0, err
	}
	const femtoPerPPM = 1_000_000_000
	femto, fits := a.Int64()
	if !fits || femto%femtoPerPPM != 0 {
		return 0, fmt.Errorf("multiplier %s is not a factor up to 1000 with at most 6 decimals", text)
	}
	return femto / femtoPerPPM, nil
}

func (s *priceSpec) parse() (*entry, error) {
	e := &entry{Model: s.Model, SizeClass: s.SizeClass, Meter: s.Meter, Per: defaultPer}
	switch s.Form {
	case "", "flat":
	case "graduated", "volume", "package":
		return e, s.Pos.Errorf("form %s is not supported yet: only flat prices are", s.Form)
	default:
		return e, s.Pos.Errorf("unknown form %q; known is flat", s.Form)
	}
	if err := unsupported([]member{{"scope", s.Scope}, {"window", s.Window}, {"steps", s.Steps},
		{"package", s.Package}, {"long_context", s.LongContext}}); err != nil {
		return e, err
	}
	if s.Price.Text == "" {
		return e, s.Pos.Errorf(`price lacks the key "price"`)
	}
	var err error
	if e.Price, err = money.ParseAmount(s.Price.Text); err != nil {
		return e, s.Price.Pos.Errorf("price: %v", err)
	}
	if s.Per.Text != "" {
		var whole bool
		if e.Per, whole = s.Per.Int64(); !whole {
			return e, s.Per.Pos.Errorf("per is a whole number, not %s", s.Per.Text)
		}
	}
	if s.Minimum.Text != "" {
		if e.Minimum, err = money.ParseAmount(s.Minimum.Text); err != nil {
			return e, s.Minimum.Pos.Errorf("minimum_charge: %v", err)
		}
	}
	return e, nil
}
