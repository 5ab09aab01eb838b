package world

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"talea/internal/catalog"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/resource"
)

type limitSpec struct {
	Pos         resource.Pos
	Measure     string           `yaml:"measure,required"`
	Window      string           `yaml:"window,required"`
	Amount      resource.Decimal `yaml:"amount,required"`
	Anchor      resource.Word    `yaml:"anchor"`
	Model       string           `yaml:"model"`
	SizeClass   string           `yaml:"size_class"`
	ServiceTier string           `yaml:"service_tier"`
	Action      resource.Node    `yaml:"action"`
	Alerts      []resource.Word  `yaml:"alerts"`
}

// degradeSpec is the action of a limit that sends to a cheaper offering.
type degradeSpec struct {
	Degrade string `yaml:"degrade,required"`
}

// limits reads the limits of an account or a key, which messages call owner.
func (r *reader) limits(owner string, specs []limitSpec) (list []limitBody) {
	for i := range specs {
		b := r.limit(owner, &specs[i])
		if twin := slices.IndexFunc(list, func(x limitBody) bool { return x.identity() == b.identity() }); twin >= 0 {
			r.fail(specs[i].Pos, "%s: %s is here twice; the first is on line %d", owner, b.say(), specs[twin].Pos.Line)
		}
		list = append(list, b)
	}
	return list
}

func (r *reader) limit(owner string, s *limitSpec) limitBody {
	fail := func(pos resource.Pos, format string, args ...any) {
		r.fail(pos, "%s: limit: %s", owner, fmt.Sprintf(format, args...))
	}
	b := limitBody{Measure: s.Measure, Window: s.Window, Model: s.Model, SizeClass: s.SizeClass}
	m, ok := quota.ParseMeasure(s.Measure)
	if !ok {
		fail(s.Pos, "unknown measure %q%s", s.Measure, suggest(s.Measure, quota.Measures()))
	}
	w, err := period.Parse(s.Window)
	switch {
	case s.Window == "minute":
		fail(s.Pos, "a minute is no window: limits per minute are a rate (requests_per_minute, tokens_per_minute)")
	case err != nil:
		fail(s.Pos, "%v", err)
	default:
		anchor, err := period.ParseAnchor(w, s.Anchor.Text)
		if err != nil {
			fail(s.Anchor.Pos, "%v", err)
		}
		b.Anchor = anchor.Text(w)
	}
	if s.Model != "" && s.SizeClass != "" {
		fail(s.Pos, "a limit is narrowed to a model or to a size_class, not to both")
	}
	if s.ServiceTier != "" {
		if b.Tier = quota.Tier(s.ServiceTier); !nameForm.MatchString(b.Tier) {
			fail(s.Pos, "service_tier %q is no name", s.ServiceTier)
		}
	}
	r.action(&b, s, fail)
	if m == quota.GPUSeconds && b.Action != quota.AlertOnly.String() {
		fail(s.Pos, "gpu_seconds can only alert (action: alert): measured GPU time is known after the request and may be restated; to block, use work_ms")
	}
	if !ok {
		return b
	}
	text := s.Amount.Text
	if n, whole := s.Amount.Int64(); whole {
		text = strconv.FormatInt(n, 10) // however it was written: 1e6
	}
	amount, err := m.ParseAmount(text)
	if err != nil {
		fail(s.Amount.Pos, "%v", err)
		return b
	}
	b.Amount = m.Format(amount)
	for _, word := range s.Alerts {
		alert, err := quota.ParseAlert(m, amount, word.Text)
		if err != nil {
			fail(word.Pos, "%v", err)
		} else if text := alert.Text(m); !slices.Contains(b.Alerts, text) {
			b.Alerts = append(b.Alerts, text)
		}
	}
	return b
}

// action reads what a limit does: block, alert, or {degrade: OFFERING}.
func (r *reader) action(b *limitBody, s *limitSpec, fail func(resource.Pos, string, ...any)) {
	switch {
	case !s.Action.Present():
	case s.Action.Mapping():
		var to degradeSpec
		r.errs.Add(s.Action.Decode(&to))
		b.Action, b.DegradeTo = quota.Degrade.String(), to.Degrade
	default:
		word, err := s.Action.Word()
		r.errs.Add(err)
		switch a, _ := quota.ParseAction(word.Text); {
		case err != nil, word.Text == quota.Block.String():
		case a == quota.AlertOnly:
			b.Action = word.Text
		default:
			fail(word.Pos, "unknown action %q; known are block, alert and {degrade: OFFERING}", word.Text)
		}
	}
}

// buildLimits makes the limits of an account, or of a key of it.
func (d *draft) buildLimits(it *item, a *Account, key string, bodies []limitBody) (list []quota.Limit) {
	for i := range bodies {
		l, err := bodies[i].limit()
		if err != nil {
			d.fault(it.ref(), "%s of %q is not one that this version knows: %v", bodies[i].say(), bodies[i].Amount, err)
			continue
		}
		l.Org, l.Account, l.Path, l.Zone, l.Key = a.Chain[0].ID, a.ID, a.Path, a.Zone, key
		d.checkLimit(it, a, &bodies[i], l)
		list = append(list, *l)
	}
	return list
}

// limit reads a stored limit.
func (b *limitBody) limit() (*quota.Limit, error) {
	l := &quota.Limit{Model: b.Model, SizeClass: b.SizeClass, Tier: b.Tier, DegradeTo: b.DegradeTo}
	var known bool
	var err error
	if l.Measure, known = quota.ParseMeasure(b.Measure); !known {
		return nil, fmt.Errorf("unknown measure %q", b.Measure)
	}
	if l.Action, known = quota.ParseAction(cmp.Or(b.Action, quota.Block.String())); !known {
		return nil, fmt.Errorf("unknown action %q", b.Action)
	}
	if l.Window, err = period.Parse(b.Window); err != nil {
		return nil, err
	}
	if l.Anchor, err = period.ParseAnchor(l.Window, b.Anchor); err != nil {
		return nil, err
	}
	if l.Amount, err = l.Measure.ParseAmount(b.Amount); err != nil {
		return nil, err
	}
	for _, text := range b.Alerts {
		alert, err := quota.ParseAlert(l.Measure, l.Amount, text)
		if err != nil {
			return nil, err
		}
		l.Alerts = append(l.Alerts, alert)
	}
	l.Alerts = quota.SortAlerts(l.Alerts)
	return l, nil
}

// checkLimit checks what a limit says of other objects.
func (d *draft) checkLimit(it *item, a *Account, b *limitBody, l *quota.Limit) {
	if b.Model != "" && d.snapshot.models[b.Model] == nil {
		d.fault(it.ref(), "%s: %s", b.say(), d.unknown(kindModel, b.Model))
	}
	if b.SizeClass != "" {
		if classes := d.sizeClasses(); !slices.Contains(classes, b.SizeClass) {
			d.fault(it.ref(), "%s: unknown size class %q%s", b.say(), b.SizeClass, suggest(b.SizeClass, classes))
		}
	}
	if l.Measure == quota.WorkMS || l.Measure == quota.GPUSeconds {
		for _, name := range d.snapshot.modelNames {
			if m := d.snapshot.models[name]; covers(l, m) && a.may(name) && !m.Work().Known() {
				d.fault(it.ref(), "%s: model %q has no parameters, so nobody knows its work", b.say(), name)
			}
		}
	}
	if l.Action == quota.Degrade {
		if why := d.undegradable(a, l); why != "" {
			d.fault(it.ref(), "%s degrades to %q: %s", b.say(), l.DegradeTo, why)
		}
	}
}

// covers reports whether a limit counts requests to a model, of some key and tier.
func covers(l *quota.Limit, m *catalog.Model) bool {
	return (l.Model == "" || l.Model == m.Name) && (l.SizeClass == "" || l.SizeClass == m.SizeClass)
}

// undegradable says why a limit cannot send to its offering, "" where it can.
func (d *draft) undegradable(a *Account, l *quota.Limit) string {
	to := d.snapshot.models[l.DegradeTo]
	switch {
	case to == nil:
		return d.unknown(kindModel, l.DegradeTo)
	case l.Model == l.DegradeTo:
		return "that is the one it limits"
	case !a.may(l.DegradeTo):
		return "the account may not use it"
	case len(a.Books) > 0 && !slices.ContainsFunc(a.Books, func(b *price.Book) bool { return d.snapshot.priced(b, to, string(a.Path.Organisation())) }):
		return "it has no price in the account's price book"
	}
	return ""
}

// circle finds limits that send a request round: each to an offering from which another sends back. own are the limits of
// the item, all those that a request of it stands on.
func (d *draft) circle(it *item, own, all []quota.Limit) {
	for i := range own {
		if own[i].Action != quota.Degrade {
			continue
		}
		if way := d.follow([]string{own[i].DegradeTo}, all); way != nil {
			d.fault(it.ref(), "limits degrade in a circle: %s; narrow them to the models that they are for", strings.Join(way, " → "))
			return
		}
	}
}

// follow goes on from the last offering of a way, and returns one that comes back to where it was.
func (d *draft) follow(way []string, all []quota.Limit) []string {
	m := d.snapshot.models[way[len(way)-1]]
	for i := range all {
		to := all[i].DegradeTo
		if m == nil || to == "" || to == m.Name || !covers(&all[i], m) {
			continue
		}
		next := append(slices.Clone(way), to)
		if slices.Contains(way, to) {
			return next
		}
		if found := d.follow(next, all); found != nil {
			return found
		}
	}
	return nil
}

// limitNotes are what is allowed of limits and probably not meant.
func (d *draft) limitNotes(owner string, bodies []limitBody) {
	for i := range bodies {
		l, err := bodies[i].limit()
		if err != nil || l.Action != quota.Degrade || l.Measure == quota.Money || l.Measure == quota.WorkMS {
			continue
		}
		if m := d.snapshot.models[l.DegradeTo]; m != nil && covers(l, m) {
			d.plan.Notes = append(d.plan.Notes, fmt.Sprintf("%s: %s counts what it degrades to (%s) as well, so nothing passes once it is used up; narrow it to other models",
				owner, bodies[i].say(), l.DegradeTo))
		}
	}
}

// limitsOf are all limits that a request of an account stands on, but those of its key.
func limitsOf(a *Account) (list []quota.Limit) {
	for _, node := range a.Chain {
		list = append(list, node.Limits...)
	}
	return list
}
