package price

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"talea/internal/money"
	"talea/internal/resource"
	"talea/internal/usage"
)

// bookSpec is a price book as a resource file writes it.
type bookSpec struct {
	Pos          resource.Pos
	Name         string              `yaml:"name,required"`
	Currency     string              `yaml:"currency,required"`
	Timezone     string              `yaml:"timezone"`
	Effective    effectiveSpec       `yaml:"effective"`
	PriceInstant string              `yaml:"price_instant"`
	OnDisconnect string              `yaml:"on_disconnect"`
	OnFault      string              `yaml:"on_platform_fault"`
	Base         string              `yaml:"base"`
	Multiplier   resource.Decimal    `yaml:"multiplier"`
	Calendars    map[string][]string `yaml:"calendars"`
	Windows      []windowSpec        `yaml:"windows"`
	Load         resource.Node       `yaml:"load"`
	LoadCap      resource.Decimal    `yaml:"load_cap"`
	ServiceTiers map[string]tierSpec `yaml:"service_tiers"`
	Prices       []priceSpec         `yaml:"prices,required"`
}

type effectiveSpec struct {
	From time.Time `yaml:"from"`
	To   time.Time `yaml:"to"`
}

type tierSpec struct {
	Pos        resource.Pos
	Multiplier resource.Decimal `yaml:"multiplier"`
}

type windowSpec struct {
	Pos        resource.Pos
	Name       string           `yaml:"name,required"`
	Days       resource.Node    `yaml:"days"`
	From       string           `yaml:"from,required"`
	To         string           `yaml:"to,required"`
	Except     resource.Node    `yaml:"except"`
	Multiplier resource.Decimal `yaml:"multiplier,required"`
}

type priceSpec struct {
	Pos          resource.Pos
	Model        string           `yaml:"model"`
	Family       string           `yaml:"family"`
	SizeClass    string           `yaml:"size_class"`
	GPUKind      string           `yaml:"gpu_kind"`
	Region       string           `yaml:"region"`
	ServiceTier  string           `yaml:"service_tier"`
	Organisation string           `yaml:"organisation"`
	Meter        string           `yaml:"meter,required"`
	Form         string           `yaml:"form"`
	Price        resource.Decimal `yaml:"price"`
	Per          resource.Decimal `yaml:"per"`
	Scope        string           `yaml:"scope"`
	Window       string           `yaml:"window"`
	Package      resource.Decimal `yaml:"package"`
	Steps        []stepSpec       `yaml:"steps"`
	LongContext  []longSpec       `yaml:"long_context"`
	Minimum      resource.Decimal `yaml:"minimum_charge"`
}

type stepSpec struct {
	UpTo  resource.Decimal `yaml:"up_to"`
	Price resource.Decimal `yaml:"price,required"`
	Flat  resource.Decimal `yaml:"flat"`
}

type longSpec struct {
	Over  resource.Decimal `yaml:"over,required"`
	Price resource.Decimal `yaml:"price,required"`
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
	b := &Book{
		Name: spec.Name, Currency: spec.Currency, Zone: cmp.Or(spec.Timezone, "UTC"), Base: spec.Base, factor: one,
		From: spec.Effective.From, To: spec.Effective.To, Instant: cmp.Or(spec.PriceInstant, atStart), calendars: spec.Calendars, Pos: spec.Pos,
	}
	var known bool
	if b.OnDisconnect, known = usage.TariffByName(cmp.Or(spec.OnDisconnect, "generated")); !known {
		errs.Add(spec.Pos.Errorf("on_disconnect is generated, delivered or nothing, not %q", spec.OnDisconnect))
	}
	if b.OnFault, known = usage.TariffByName(cmp.Or(spec.OnFault, "nothing")); !known {
		errs.Add(spec.Pos.Errorf("on_platform_fault is nothing or delivered, not %q", spec.OnFault))
	}
	multiplier(&errs, spec.Multiplier, "multiplier", &b.factor)
	for _, name := range slices.Sorted(maps.Keys(spec.ServiceTiers)) {
		t, err := spec.ServiceTiers[name].parse(name)
		if err == nil {
			b.tiers = append(b.tiers, t)
		}
		errs.Add(err)
	}
	for i := range spec.Windows {
		w, err := spec.Windows[i].parse()
		if err == nil {
			b.windows = append(b.windows, w)
		}
		errs.Add(err)
	}
	errs.Add(b.parseLoad(spec.Load))
	multiplier(&errs, spec.LoadCap, "load_cap", &b.loadCap)
	errs.Add(at(cmp.Or(spec.LoadCap.Pos, spec.Load.Pos()), b.checkLoad()))
	errs.Add(at(spec.Pos, b.checkHead()))
	b.checkWindows(func(pos resource.Pos, err error) { errs.Add(at(pos, err)) })
	for i := range spec.Prices {
		p := &spec.Prices[i]
		e, err := p.parse()
		if err == nil {
			err = at(p.Pos, b.take(e))
		}
		errs.Add(err)
	}
	b.ambiguous(func(e *entry, err error) { errs.Add(at(e.pos, err)) })
	if len(errs) == 0 {
		errs.Add(at(spec.Pos, b.seal()))
	}
	if len(errs) > 0 {
		return nil, errs.Err()
	}
	return b, nil
}

// at gives an error a place; nil stays nil.
func at(pos resource.Pos, err error) error {
	if err == nil {
		return nil
	}
	return pos.Errorf("%v", err)
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

func (s *windowSpec) parse() (*window, error) {
	w := &window{Name: s.Name, Days: "1111111", pos: s.Pos}
	var errs resource.Errors
	days, err := s.Days.Texts()
	errs.Add(err)
	if len(days) > 0 {
		marks := []byte("0000000")
		for _, text := range days {
			some, err := parseDays(text)
			errs.Add(at(s.Days.Pos(), err))
			for i := range some {
				marks[i] = max(marks[i], some[i])
			}
		}
		w.Days = string(marks)
	}
	w.Except, err = s.Except.Texts()
	errs.Add(err)
	slices.Sort(w.Except)
	if w.From, err = parseClock(s.From); err != nil {
		errs.Add(s.Pos.Errorf("from: %v", err))
	}
	if w.To, err = parseClock(s.To); err != nil {
		errs.Add(s.Pos.Errorf("to: %v", err))
	}
	if w.To <= w.From {
		w.To += midnight
	}
	multiplier(&errs, s.Multiplier, "multiplier", &w.Multiplier)
	return w, errs.Err()
}

// multiplier reads a factor where the file has one.
func multiplier(errs *resource.Errors, d resource.Decimal, key string, into *int64) {
	if d.Text == "" {
		return
	}
	ppm, err := ParseMultiplier(d.Text)
	if err != nil {
		errs.Add(d.Pos.Errorf("%s: %v", key, err))
		return
	}
	*into = ppm
}

// MultiplierText writes parts per million as a factor such as "1.25".
func MultiplierText(ppm int64) string {
	if ppm == 1_000_000 {
		return "1"
	}
	b := strconv.AppendInt(nil, ppm/1_000_000, 10)
	if frac := ppm % 1_000_000; frac > 0 {
		digits := strconv.FormatInt(1_000_000+frac, 10)[1:]
		for digits[len(digits)-1] == '0' {
			digits = digits[:len(digits)-1]
		}
		b = append(append(b, '.'), digits...)
	}
	return string(b)
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

// numbers reads the numbers of one price, and remembers every one that it could not read.
type numbers struct{ errs resource.Errors }

func (n *numbers) amount(d resource.Decimal, key string) (a money.Amount) {
	if d.Text == "" {
		return a
	}
	a, err := money.ParseAmount(d.Text)
	if err != nil {
		n.errs.Add(d.Pos.Errorf("%s: %v", key, err))
	}
	return a
}

func (n *numbers) whole(d resource.Decimal, key string, unless int64) int64 {
	if d.Text == "" {
		return unless
	}
	v, ok := d.Int64()
	if !ok {
		n.errs.Add(d.Pos.Errorf("%s is a whole number, not %s", key, d.Text))
	}
	return v
}

func (s *priceSpec) parse() (*entry, error) {
	var n numbers
	e := &entry{
		Model: s.Model, Family: s.Family, SizeClass: s.SizeClass, GPUKind: s.GPUKind, Region: s.Region, ServiceTier: s.ServiceTier,
		Organisation: s.Organisation, Meter: s.Meter, Form: s.Form, pos: s.Pos,
		Scope: s.Scope, Window: s.Window, Package: n.whole(s.Package, "package", 0),
		Price: n.amount(s.Price, "price"), Minimum: n.amount(s.Minimum, "minimum_charge"),
	}
	if e.Form == kindNames[Flat] {
		e.Form = "" // which is the same
	}
	per := int64(defaultPer)
	if e.Form != "" {
		e.Scope = cmp.Or(e.Scope, "organisation")
		if e.Scope != "request" {
			e.Window = cmp.Or(e.Window, "month")
		}
		if e.Form == kindNames[Package] {
			per = 1
		}
	}
	e.Per = n.whole(s.Per, "per", per)
	stepped := e.Form == kindNames[Graduated] || e.Form == kindNames[Volume]
	switch {
	case s.Price.Text == "" && !stepped:
		n.errs.Add(s.Pos.Errorf(`price lacks the key "price"`))
	case s.Price.Text != "" && stepped:
		n.errs.Add(s.Price.Pos.Errorf("a %s price has its prices in its steps, none beside them", e.Form))
	}
	for _, t := range s.Steps {
		e.Steps = append(e.Steps, step{n.whole(t.UpTo, "up_to", 0), n.amount(t.Price, "price"), n.amount(t.Flat, "flat")})
	}
	for _, t := range s.LongContext {
		e.Long = append(e.Long, longStep{n.whole(t.Over, "over", 0), n.amount(t.Price, "price")})
	}
	return e, n.errs.Err()
}
