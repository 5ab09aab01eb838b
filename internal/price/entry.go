package price

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/resource"
	"talea/internal/usage"
)

// Kind is how a price depends on how much is used. Stored: append only.
type Kind uint8

// Kinds of prices.
const (
	Flat        Kind = iota // one price for every unit
	Graduated               // each unit at the price of the step that it falls in
	Volume                  // every unit of a request at the price of the step that the sum after it falls in
	Package                 // so much for each package that is started
	LongContext             // every unit at the price of the step that the whole input of the request falls in
)

var kindNames = [...]string{Flat: "flat", Graduated: "graduated", Volume: "volume", Package: "package", LongContext: "long_context"}

// String returns the word that price books have for it.
func (k Kind) String() string { return kindNames[k] }

// Form is a price that depends on how much is used. Forms are read only.
type Form struct {
	Kind    Kind
	Meters  uint16 // bit m says that it is the price of meter m: these share a counter
	Counter string // what counts how much was used before; "" where each request begins at 0
	Scope   string // who counts together: "organisation" or "contract"; "" without a counter
	Window  period.Window
	Zone    string // IANA zone of the window
	Package int64  // units of a package
	Steps   []Step // at least one; the last is without end
}

// Of reports whether the form is the price of a meter.
func (f *Form) Of(m usage.Meter) bool { return f.Meters>>m&1 != 0 }

// Step is one step of a Form.
type Step struct {
	UpTo int64        // the last unit of the step, counted from 1; 0 is without end
	Rate money.Rate   // of a single unit, or of a package
	Fee  money.Amount // charged when the step is entered
}

// Step returns the step that the n-th unit falls in.
func (f *Form) Step(n int64) *Step {
	i := 0
	for f.Steps[i].UpTo != 0 && n > f.Steps[i].UpTo {
		i++
	}
	return &f.Steps[i]
}

// target is what a price is of.
type target struct {
	level level
	name  string
}

type level uint8

const (
	byModel level = iota
	byFamily
	bySizeClass
)

// entry is one price of a book: of one leaf class, for a model, a family or a size class, under conditions.
type entry struct {
	Model        string       `json:"model,omitempty"`
	Family       string       `json:"family,omitempty"`
	SizeClass    string       `json:"size_class,omitempty"`
	GPUKind      string       `json:"gpu_kind,omitempty"`
	Region       string       `json:"region,omitempty"`
	ServiceTier  string       `json:"service_tier,omitempty"`
	Organisation string       `json:"organisation,omitempty"`
	Meter        string       `json:"meter"` // as price books name it
	Form         string       `json:"form,omitempty"`
	Price        money.Amount `json:"price"` // of Per units; of a package; of the first step of a long context; else of nothing
	Per          int64        `json:"per"`
	Scope        string       `json:"scope,omitempty"`
	Window       string       `json:"window,omitempty"`
	Package      int64        `json:"package,omitempty"`
	Steps        []step       `json:"steps,omitempty"`
	Long         []longStep   `json:"long_context,omitempty"`
	Minimum      money.Amount `json:"minimum_charge,omitzero"`

	pos   resource.Pos
	meter usage.Meter
	kind  Kind
}

type step struct {
	UpTo  int64        `json:"up_to,omitempty"`
	Price money.Amount `json:"price"`
	Flat  money.Amount `json:"flat,omitzero"`
}

type longStep struct {
	Over  int64        `json:"over"`
	Price money.Amount `json:"price"`
}

func (e *entry) target() target {
	switch {
	case e.Model != "":
		return target{byModel, e.Model}
	case e.Family != "":
		return target{byFamily, e.Family}
	}
	return target{bySizeClass, e.SizeClass}
}

// narrowed are the conditions of an entry, "" where it has none, in a fixed order.
func (e *entry) narrowed() [4]string {
	return [...]string{e.GPUKind, e.Region, e.ServiceTier, e.Organisation}
}

var conditionNames = [...]string{"gpu_kind", "region", "service_tier", "organisation"}

// conditions counts the conditions of an entry.
func (e *entry) conditions() (n int) {
	for _, c := range e.narrowed() {
		if c != "" {
			n++
		}
	}
	return n
}

// matches reports whether the query meets every condition. That it is for the entry's target is known.
func (e *entry) matches(q *Query) bool {
	has := [...]string{q.GPUKind, q.Region, q.Tier, q.Organisation}
	for i, want := range e.narrowed() {
		if want != "" && want != has[i] {
			return false
		}
	}
	return true
}

// selector says what an entry is for.
func (e *entry) selector() string {
	t := e.target()
	text := [...]string{byModel: "model ", byFamily: "family ", bySizeClass: "size class "}[t.level] + t.name
	for i, c := range e.narrowed() {
		if c != "" {
			text += " " + conditionNames[i] + " " + c
		}
	}
	return text
}

// take checks an entry and adds it.
func (b *Book) take(e *entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if e.ServiceTier != "" && b.Base == "" {
		if _, ok := b.Tier(e.ServiceTier, b.From); !ok {
			return fmt.Errorf("%s: the book has no service tier %q", e.selector(), e.ServiceTier)
		}
	}
	if err := e.underTiers(b.tiers); err != nil {
		return err
	}
	if b.index == nil {
		b.index = map[target][]*entry{}
	}
	b.index[e.target()] = append(b.index[e.target()], e)
	b.entries = append(b.entries, e)
	return nil
}

// ambiguous finds prices that match one request equally well, once all are there.
func (b *Book) ambiguous(fault func(e *entry, err error)) {
	for _, e := range b.entries {
		same := b.index[e.target()]
		for _, d := range same[:slices.Index(same, e)] {
			if err := clash(d, e, same); err != nil {
				fault(e, err)
				break
			}
		}
	}
}

// clash says what is wrong with two entries of one target that have as many conditions: they must exclude each other, or
// an entry with the conditions of both must say what holds where both match.
func clash(d, e *entry, all []*entry) error {
	if d.conditions() != e.conditions() {
		return nil
	}
	meet, dc, ec := [4]string{}, d.narrowed(), e.narrowed()
	for i := range meet {
		if dc[i] != "" && ec[i] != "" && dc[i] != ec[i] {
			return nil
		}
		meet[i] = cmp.Or(dc[i], ec[i])
	}
	settled := func(of func(*entry) bool) bool {
		return dc != ec && slices.ContainsFunc(all, func(o *entry) bool { return of(o) && o.narrowed() == meet })
	}
	line := ""
	if d.pos.Line > 0 {
		line = fmt.Sprintf(", the first on line %d", d.pos.Line)
	}
	switch {
	case d.meter == e.meter && !settled(func(o *entry) bool { return o.meter == e.meter }):
		if dc == ec {
			return fmt.Errorf("%s has two prices for %s%s", e.selector(), e.Meter, line)
		}
		return fmt.Errorf("two prices for %s match equally well, one for %s and one for %s%s: add one for both conditions", e.Meter, d.selector(), e.selector(), line)
	case !d.Minimum.IsZero() && !e.Minimum.IsZero() && !settled(func(o *entry) bool { return !o.Minimum.IsZero() }):
		return fmt.Errorf("%s has two minimum charges%s; it is one for the whole request", e.selector(), line)
	}
	return nil
}

// check tests an entry by itself.
func (e *entry) check() error {
	targets := 0
	for _, t := range [...]string{e.Model, e.Family, e.SizeClass} {
		if t != "" {
			targets++
		}
	}
	if targets != 1 {
		return errors.New("a price is for a model, a family or a size_class, one of the three")
	}
	for _, name := range append(e.narrowedList(), e.target().name) {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' }) {
			return fmt.Errorf("a price is for %q, which has a blank in it", name)
		}
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
	if err := e.checkForm(); err != nil {
		return err
	}
	if _, err := money.RateFromAmount(e.Minimum); err != nil {
		return fmt.Errorf("minimum_charge: %w", err)
	}
	return e.eachPrice(nil)
}

func (e *entry) narrowedList() []string {
	c := e.narrowed()
	return c[:]
}

// checkForm tests what a form has and has not, and works out the kind.
func (e *entry) checkForm() error {
	switch e.Form {
	case "":
		if len(e.Steps) > 0 || e.Scope != "" || e.Window != "" || e.Package != 0 {
			return errors.New("steps, scope, window and package need a form: graduated, volume or package")
		}
		if e.kind = Flat; len(e.Long) > 0 {
			e.kind = LongContext
		}
		return e.checkLong()
	case kindNames[Graduated], kindNames[Volume], kindNames[Package]:
		e.kind = Kind(slices.Index(kindNames[:], e.Form))
	default:
		return fmt.Errorf("unknown form %q; known are flat, graduated, volume, package", e.Form)
	}
	if len(e.Long) > 0 {
		return fmt.Errorf("a %s price has no long_context", e.Form)
	}
	switch e.Scope {
	case "request":
		if e.Window != "" {
			return errors.New("a price of scope request has no window: each request begins at 0")
		}
	case "organisation", "contract":
		if _, err := period.Parse(e.Window); err != nil {
			return err
		}
	default:
		return fmt.Errorf("scope is organisation, contract or request, not %q", e.Scope)
	}
	if e.kind == Package {
		switch {
		case len(e.Steps) > 0:
			return errors.New("a package has one price, no steps")
		case e.Package < 1 || e.Package > usage.MaxCount:
			return fmt.Errorf("package is of %d units; from 1 to 10^15", e.Package)
		case e.Per != 1:
			return errors.New("the price of a package is that of a whole package: it has no per")
		}
		return nil
	}
	if e.Package != 0 {
		return fmt.Errorf("a %s price has no package", e.Form)
	}
	return e.checkSteps()
}

func (e *entry) checkSteps() error {
	last := len(e.Steps) - 1
	if last < 0 {
		return fmt.Errorf("a %s price needs steps", e.Form)
	}
	before := int64(0)
	for i, s := range e.Steps {
		switch {
		case i == last && s.UpTo != 0:
			return fmt.Errorf("the steps leave a gap: nothing is said above %d; the last step has no up_to", s.UpTo)
		case i < last && s.UpTo == 0:
			return errors.New("only the last step has no up_to: the steps after it would never be reached")
		case i < last && (s.UpTo <= before || s.UpTo > usage.MaxCount):
			return fmt.Errorf("the steps overlap: up_to %d comes after %d; each is larger than the one before, and at most 10^15", s.UpTo, before)
		case !s.Flat.IsZero() && e.kind != Graduated:
			return fmt.Errorf("a step of a %s price has no flat charge", e.Form)
		}
		before = s.UpTo
		if _, err := money.RateFromAmount(s.Flat); err != nil {
			return fmt.Errorf("flat: %w", err)
		}
	}
	return nil
}

func (e *entry) checkLong() error {
	before := int64(0)
	for _, s := range e.Long {
		if s.Over <= before || s.Over > usage.MaxCount {
			return fmt.Errorf("long_context overlaps: over %d comes after %d; each is larger than the one before, and at most 10^15", s.Over, before)
		}
		before = s.Over
	}
	return nil
}

// eachPrice works out every rate of the entry under multipliers, and says which cannot be.
func (e *entry) eachPrice(ppm []int64) error {
	prices := []money.Amount{}
	if e.kind != Graduated && e.kind != Volume {
		prices = append(prices, e.Price)
	}
	for _, s := range e.Steps {
		prices = append(prices, s.Price)
	}
	for _, s := range e.Long {
		prices = append(prices, s.Price)
	}
	for _, p := range prices {
		if _, err := e.effective(p, e.Per, ppm); err != nil {
			return err
		}
	}
	return nil
}

// underTiers tests an entry under each service tier.
func (e *entry) underTiers(tiers []tier) error {
	if e.ServiceTier != "" {
		return nil
	}
	for _, t := range tiers {
		if err := e.eachPrice([]int64{t.Multiplier}); err != nil {
			return fmt.Errorf("service tier %s: %w", t.Name, err)
		}
	}
	return nil
}

// extremes tests every entry under the smallest and the largest product of multipliers that can come together,
// with those of a book over this one.
func (b *Book) extremes(tiers []tier, factor int64, load *Load) error {
	least, most := []int64{factor}, []int64{factor}
	add := func(list []int64) {
		least, most = append(least, slices.Min(list)), append(most, slices.Max(list))
	}
	list := []int64{one}
	for _, t := range append(slices.Clone(b.tiers), tiers...) {
		list = append(list, t.Multiplier)
	}
	add(list)
	list = []int64{one}
	for _, w := range b.windows {
		list = append(list, w.Multiplier)
	}
	add(list)
	if load != nil {
		add(append(slices.Clone(load.Steps), one))
	}
	for _, e := range b.entries {
		for _, ppm := range [][]int64{least, most} {
			if err := e.eachPrice(ppm); err != nil {
				return fmt.Errorf("%s, %s, under all multipliers together: %w", e.selector(), e.Meter, err)
			}
		}
	}
	return nil
}

// effective returns a rate under multipliers, rounded once.
func (e *entry) effective(price money.Amount, per int64, ppm []int64) (money.Rate, error) {
	rate, err := money.RateOf(price, per, ppm...)
	if err == nil && rate.IsZero() && !price.IsZero() {
		if len(ppm) == 0 {
			return rate, fmt.Errorf("price %s per %d is less than half a femto-unit; what is meant to be free has the price 0", price, per)
		}
		err = fmt.Errorf("price %s per %d is less than half a femto-unit under multipliers %d", price, per, ppm)
	}
	return rate, err
}

// form makes the entry's Form under multipliers.
func (e *entry) form(zone string, ppm []int64, factor int64) (Form, error) {
	f := Form{Kind: e.kind, Package: e.Package}
	if e.Scope == "organisation" || e.Scope == "contract" {
		f.Counter, f.Scope, f.Zone = e.selector()+" "+e.Meter, e.Scope, zone
		f.Window, _ = period.Parse(e.Window)
	}
	add := func(upTo int64, price, fee money.Amount) error {
		rate, err := e.effective(price, e.Per, ppm)
		if err != nil {
			return err
		}
		charge, err := money.RateOf(fee, 1, factor)
		f.Steps = append(f.Steps, Step{upTo, rate, charge.Amount()})
		return err
	}
	var err error
	switch e.kind {
	case Package:
		err = add(0, e.Price, money.Amount{})
	case LongContext:
		price := e.Price
		for _, s := range e.Long {
			err = cmp.Or(err, add(s.Over, price, money.Amount{}))
			price = s.Price
		}
		err = cmp.Or(err, add(0, price, money.Amount{}))
	default:
		for _, s := range e.Steps {
			err = cmp.Or(err, add(s.UpTo, s.Price, s.Flat))
		}
	}
	return f, err
}
