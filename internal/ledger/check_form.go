package ledger

import (
	"fmt"
	"math/big"
)

// Numbers of docs/ledger-format.md that prices which depend on how much was used have.
const (
	auditGraduated   = 1
	auditVolume      = 2
	auditPackage     = 3
	auditLongContext = 4
	auditForms       = 5

	auditUsageLine   = 0
	auditMinimumLine = 1
	auditPackageLine = 2
	auditFeeLine     = 3
	auditLineKinds   = 4
)

// auditForm is a price that depends on how much was used, or how long the prompt is.
type auditForm struct {
	kind           byte
	meters         int64
	counter, scope string // "" where each request begins at 0
	window         byte
	zone           string
	size           int64 // of a package
	steps          []auditPriceStep
}

type auditPriceStep struct {
	end   int64 // 0: none
	price *big.Int
	fee   *big.Int
}

func (r *auditReader) form() (f auditForm) {
	f.kind, f.meters = r.below(auditForms, "form of price"), r.mask()
	f.counter, f.scope = r.text(), r.text()
	f.window, f.zone, f.size = r.below(auditWindows+1, "window"), r.text(), r.whole()
	for range r.list() {
		f.steps = append(f.steps, auditPriceStep{r.whole(), r.rate(), r.rate()})
	}
	return f
}

// sound checks a form by itself.
func (f *auditForm) sound() error {
	switch {
	case f.kind == 0 || f.meters == 0:
		return differ("it has a form of kind %d for no meter", f.kind)
	case (f.kind == auditPackage) != (f.size > 0):
		return differ("it has a form of kind %d with packages of %d", f.kind, f.size)
	case (f.counter == "") != (f.scope == "") || (f.counter == "") != (f.window == 0) || f.counter != "" && f.kind == auditLongContext:
		return differ("it has a form that counts by %q, scope %q, window %d", f.counter, f.scope, f.window)
	case len(f.steps) == 0 || f.steps[len(f.steps)-1].end != 0 || f.kind == auditPackage && len(f.steps) != 1:
		return differ("it has a form with %d steps, of which the last is not without end", len(f.steps))
	}
	before := int64(0)
	for _, s := range f.steps[:len(f.steps)-1] {
		if s.end <= before {
			return differ("it has a form whose steps do not ascend")
		}
		before = s.end
	}
	return nil
}

// of returns the number of the form that is the price of a meter, -1 for none.
func (row *auditRow) of(m byte) int {
	for i := range row.forms {
		if row.forms[i].meters>>m&1 == 1 {
			return i
		}
	}
	return -1
}

// at is the step that the n-th unit falls in.
func (f *auditForm) at(n int64) int {
	i := 0
	for f.steps[i].end != 0 && n > f.steps[i].end {
		i++
	}
	return i
}

// auditCounter counts for a form.
type auditCounter struct {
	name, scope, contract string
	window                byte
	zone                  string
}

func (o *auditOrg) counter(r *auditReader) error {
	number, c := r.whole(), &auditCounter{}
	c.name, c.scope, c.contract = r.text(), r.text(), r.text()
	c.window, c.zone = r.below(auditWindows+1, "window"), r.text()
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case number != int64(len(o.counters))+1:
		return differ("counter %d comes after counter %d", number, len(o.counters))
	case c.name == "" || c.window == 0 || c.zone == "":
		return differ("it has no name, window or time zone")
	}
	for _, other := range o.counters {
		if *other == *c {
			return differ("it is a second counter of the same")
		}
	}
	o.counters = append(o.counters, c)
	return nil
}

// auditCounted is a counter in a period.
type auditCounted struct{ counter, period int64 }

func (r *auditReader) counted() (list []auditCounted) {
	for range r.list() {
		list = append(list, auditCounted{r.whole(), r.whole()})
	}
	return list
}

// counts checks that a hold names the counter of each form that counts, in the period that contains its time.
func (o *auditOrg) counts(h *auditHold) error {
	list := h.counted
	for i := range h.row.forms {
		f := &h.row.forms[i]
		if f.counter == "" {
			continue
		}
		if len(list) == 0 {
			return differ("it names no counter of %s", f.counter)
		}
		c, err := number(o.counters, list[0].counter, "counter")
		if err != nil {
			return err
		}
		p, err := number(o.periods, list[0].period, "period")
		if err != nil {
			return err
		}
		want := auditCounter{f.counter, f.scope, "", f.window, f.zone}
		if f.scope == "contract" {
			want.contract = h.of.contract
		}
		switch {
		case *c != want:
			return differ("it counts %s by counter %d, which is another one", f.counter, list[0].counter)
		case p.window != f.window || p.zone != f.zone || p.anchor != 0 || !p.contains(h.at):
			return differ("it counts %s in period %d, which is of another window or zone or does not contain its time", f.counter, list[0].period)
		}
		o.tally(list[0])
		list = list[1:]
	}
	if len(list) > 0 {
		return differ("it names %d counters too many", len(list))
	}
	return nil
}

// tally is how much was counted: it stands among the balances under the counter's number below 0.
func (o *auditOrg) tally(c auditCounted) *auditBalance {
	return o.balance(&auditTouch{limit: -c.counter, period: c.period})
}

// before is where the counter of a row's form stands, 0 without one.
func (o *auditOrg) before(h *auditHold, form int) *big.Int {
	next := 0
	for i := range form {
		if h.row.forms[i].counter != "" {
			next++
		}
	}
	if h.row.forms[form].counter == "" {
		return new(big.Int)
	}
	return &o.tally(h.counted[next]).used
}

// advance counts what was billed.
func (o *auditOrg) advance(h *auditHold, x *auditResult) {
	for i := range h.row.forms {
		if h.row.forms[i].counter != "" {
			used := o.before(h, i)
			used.Add(used, big.NewInt(h.row.forms[i].units(&x.billed)))
		}
	}
}

// units is how much of the counts a form is the price of.
func (f *auditForm) units(c *auditCounts) (n int64) {
	for m := range c.n {
		if f.meters>>m&1 == 1 {
			n += c.n[m]
		}
	}
	return n
}

// lines are those of n units of a meter, of which others of the form were done before in this request.
func (f *auditForm) lines(m byte, c *auditCounts, before *big.Int, done int64) []auditLine {
	n := c.n[m]
	at := new(big.Int).Add(before, big.NewInt(done)).Int64()
	line := func(kind byte, n int64, price *big.Int) auditLine {
		return auditLine{meter: m, kind: kind, quantity: n, price: price, amount: new(big.Int).Mul(price, big.NewInt(n))}
	}
	switch f.kind {
	case auditLongContext:
		return []auditLine{line(auditUsageLine, n, f.steps[f.at(c.input())].price)}
	case auditVolume:
		return []auditLine{line(auditUsageLine, n, f.steps[f.at(before.Int64()+f.units(c))].price)}
	case auditPackage:
		list := []auditLine{line(auditUsageLine, n, new(big.Int))}
		if started := (at+n+f.size-1)/f.size - (at+f.size-1)/f.size; started > 0 {
			list = append(list, line(auditPackageLine, started, f.steps[0].price))
		}
		return list
	}
	var list []auditLine
	for n > 0 { // the next unit, and all that follow in its step
		i := f.at(at + 1)
		s, take := f.steps[i], n
		if s.end != 0 {
			take = min(n, s.end-at)
		}
		if first := i == 0 && at == 0 || i > 0 && at == f.steps[i-1].end; first && s.fee.Sign() > 0 {
			list = append(list, line(auditFeeLine, 1, s.fee))
		}
		list = append(list, line(auditUsageLine, take, s.price))
		at, n = at+take, n-take
	}
	return list
}

// rated rates the billed counts again and compares the lines.
func (o *auditOrg) rated(h *auditHold, x *auditResult) error {
	sum, lines := new(big.Int), x.lines
	done := map[int]int64{}
	for m := range byte(auditMeters) {
		n, price, i := x.billed.n[m], h.row.price[m], h.row.of(m)
		if n == 0 || price == nil && (m == auditRequest || m == auditWork) {
			continue
		}
		if price == nil {
			return differ("%d of meter %d are billed, which has no price", n, m)
		}
		want := []auditLine{{meter: m, quantity: n, price: price, amount: new(big.Int).Mul(price, big.NewInt(n))}}
		if i >= 0 {
			want = h.row.forms[i].lines(m, &x.billed, o.before(h, i), done[i])
			done[i] += n
		}
		for _, w := range want {
			if len(lines) == 0 {
				return differ("%d of meter %d are billed, but the line is missing or says otherwise", n, m)
			}
			if err := w.is(lines[0], n); err != nil {
				return err
			}
			lines = lines[1:]
			sum.Add(sum, w.amount)
		}
	}
	if missing := new(big.Int).Sub(h.row.minimum, sum); len(x.lines) > 0 && missing.Sign() > 0 {
		if len(lines) == 0 || lines[0].kind != auditMinimumLine || lines[0].meter != auditRequest || lines[0].quantity != 1 ||
			lines[0].price.Cmp(missing) != 0 || lines[0].amount.Cmp(missing) != 0 {
			return differ("the line that lifts the charge to the minimum of %v is missing or wrong", h.row.minimum)
		}
		lines = lines[1:]
		sum.Add(sum, missing)
	}
	switch {
	case len(lines) > 0:
		return differ("it has %d lines for which nothing is billed", len(lines))
	case sum.Cmp(x.charge) != 0:
		return differ("its lines add up to %v, its charge is %v", sum, x.charge)
	case x.charge.Cmp(h.money) > 0:
		return differ("the charge %v is above the %v that were held", x.charge, h.money)
	}
	return nil
}

// is compares a line with what it must be.
func (w *auditLine) is(line auditLine, n int64) error {
	switch {
	case line.meter != w.meter || line.kind != w.kind || line.quantity != w.quantity:
		return differ("%d of meter %d are billed, but the line is missing or says otherwise", n, w.meter)
	case line.price.Cmp(w.price) != 0:
		return differ("the line of meter %d has the unit price %v; locked was %v", w.meter, line.price, w.price)
	case line.amount.Cmp(w.amount) != 0:
		return differ("the line of meter %d says %d × %v = %v; right is %v", w.meter, w.quantity, w.price, line.amount, w.amount)
	}
	return nil
}

// sayBalance names what a row of the balances is of.
func (o *auditOrg) sayBalance(limit int64) string {
	if limit < 0 {
		return fmt.Sprintf("the counter of %s", o.counters[-limit-1].name)
	}
	return o.limits[limit-1].say()
}
