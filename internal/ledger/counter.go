package ledger

import (
	"fmt"
	"time"

	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// counter counts how much was used of what a form of price counts together, in each period of a window.
type counter struct {
	name     string // as price.Form has it
	scope    string
	contract string // of scope contract; "" for the whole organisation
	window   period.Window
	zone     string
}

func (c *counter) String() string { return fmt.Sprintf("%s per %s", c.name, c.window) }

func appendCounter(b []byte, c *counter) []byte {
	b = appendString(appendString(appendString(b, c.name), c.scope), c.contract)
	return appendString(append(b, byte(c.window)), c.zone)
}

func readCounter(d *decoder) *counter {
	return &counter{name: d.text(), scope: d.text(), contract: d.text(), window: period.Window(d.byte()), zone: d.text()}
}

func counterOf(f *price.Form, s *usage.Subject) *counter {
	c := &counter{name: f.Counter, scope: f.Scope, window: f.Window, zone: f.Zone}
	if f.Scope == "contract" {
		c.contract = s.Contract
	}
	return c
}

// addCounter takes a counter over. It is kept as a limit that stands on no account and limits nothing: what its balances
// say is used are units, and its number is below 0.
func (o *org) addCounter(num int64, c *counter) error {
	zone, err := period.Zone(c.zone)
	switch {
	case err != nil:
		return err
	case num != int64(len(o.counters))+1 || c.window < period.Hour || c.window > period.Total:
		return fmt.Errorf("counter %d of %s cannot be", num, c)
	}
	lim := &limit{num: -num, Limit: quota.Limit{Org: o.id, Window: c.window, Zone: c.zone}, zone: zone}
	o.counters = append(o.counters, lim)
	o.counterNum[string(appendCounter(nil, c))] = num
	return nil
}

// count returns what the forms of a row have counted in the periods that contain at, in the order of the forms that count.
// It defines counters and periods at first sight. The caller holds l.mu.
func (l *Ledger) count(o *org, s *usage.Subject, r *price.Row, at time.Time) (counted []*balance) {
	for i := range r.Forms {
		f := &r.Forms[i]
		if f.Counter == "" {
			continue
		}
		c := counterOf(f, s)
		n := o.counterNum[string(appendCounter(nil, c))]
		if n == 0 {
			n = int64(len(o.counters)) + 1
			if err := o.addCounter(n, c); err != nil {
				panic("ledger: a counter that no checked book has: " + err.Error())
			}
			b := l.begin(o, KindCounter, at, 0)
			l.end(o, KindCounter, 0, appendCounter(appendUint(b, n), c))
		}
		counted = append(counted, l.balance(o, o.counters[n-1], at))
	}
	return counted
}

// positionOf is where counted balances stand, for each form of the row.
func positionOf(r *price.Row, counted []*balance) rating.Position {
	if len(counted) == 0 {
		return nil
	}
	p, next := make(rating.Position, len(r.Forms)), 0
	for i := range r.Forms {
		if r.Forms[i].Counter != "" && next < len(counted) {
			p[i], _ = counted[next].Used.Int64()
			next++
		}
	}
	return p
}

// advance counts what a hold was billed for.
func (h *Hold) advance() {
	p := positionOf(h.row, h.counted)
	p.Advance(&h.Billed, h.row)
	next := 0
	for i := range p {
		if h.row.Forms[i].Counter != "" {
			h.counted[next].Used = money.Units(p[i])
			next++
		}
	}
}

// turning is how long before the end of a period positions are told as if it had ended: a request that is bounded before
// it may be admitted after it, where counters begin at 0.
const turning = time.Minute

// Position returns where the counters of a row stand, for rating.Ceiling and Ask. They may have moved on when the hold is
// made, which the ceiling covers; they never fall within a period.
func (l *Ledger) Position(s *usage.Subject, r *price.Row) rating.Position {
	if len(r.Forms) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.position(s, r, l.now(), l.opt.Wait+turning)
}

// PositionAt is Position at another time than now: 0 in a period that has not begun, and where counters stand now in the
// running one.
func (l *Ledger) PositionAt(s *usage.Subject, r *price.Row, at time.Time) rating.Position {
	if len(r.Forms) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.position(s, r, at, l.opt.Wait+turning)
}

// position reads where counters stand in the periods that contain at, 0 in those that end so soon.
func (l *Ledger) position(s *usage.Subject, r *price.Row, at time.Time, soon time.Duration) rating.Position {
	o, p := l.organisation(s.Organisation), make(rating.Position, len(r.Forms))
	for i := range r.Forms {
		f := &r.Forms[i]
		n := o.counterNum[string(appendCounter(nil, counterOf(f, s)))]
		if f.Counter == "" || n == 0 {
			continue
		}
		for _, span := range o.spans {
			if span.of(o.counters[n-1]) && span.contains(at) && (span.End.IsZero() || at.Add(soon).Before(span.End)) {
				if b := o.balances[balanceKey{-n, span.num}]; b != nil {
					p[i], _ = b.Used.Int64()
				}
			}
		}
	}
	return p
}

// turned works out the ceiling anew where a counter stands lower than it was when the request was bounded: a new period
// has begun. The caller holds l.mu.
func (l *Ledger) turned(ask *Ask, at time.Time) {
	now, fell := l.position(ask.Subject, ask.Row, at, 0), false
	for i := range min(len(now), len(ask.Position)) {
		fell = fell || now[i] < ask.Position[i]
	}
	if !fell {
		return
	}
	ask.Position = now
	if most, err := rating.Ceiling(ask.Bounds, ask.Subject.Work, ask.Row, now); err == nil {
		ask.Money = most
	}
}
