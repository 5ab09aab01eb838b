package ledger

import (
	"fmt"
	"math/big"
)

// auditLimit is a limit as the log has it so far.
type auditLimit struct {
	auditLimitKey
	removed bool
	number  int64
	zone    string
	action  byte
	amount  *big.Int
	alerts  []auditAlert
	label   string
	seen    int64 // the newest hold that stands on it, by sequence
}

// auditAlert is a threshold of a limit: percent is 0 for an amount by itself.
type auditAlert struct {
	percent int64
	at      *big.Int
}

// auditLimitKey is what makes a limit the same limit.
type auditLimitKey struct {
	account                     int64
	measure, window             byte
	anchor                      int64
	key, model, sizeClass, tier string
}

var auditMeasureNames = [...]string{"money", "input tokens", "output tokens", "tokens", "requests", "work", "GPU time"}
var auditWindowNames = [...]string{"", "hour", "day", "week", "month", "quarter", "year", "in total"}

func (l *auditLimit) say() string {
	return fmt.Sprintf("the limit of %s on %s per %s", l.label, auditMeasureNames[l.measure], auditWindowNames[l.window])
}

func (o *auditOrg) limit(h *auditHeader, r *auditReader) error {
	number, l := r.whole(), &auditLimit{}
	l.removed, l.account = r.flag(), r.whole()
	l.measure = r.below(byte(len(auditMeasureNames)), "measure")
	l.window = r.below(auditWindows+1, "window")
	l.action, l.anchor = r.below(auditActions, "action"), r.whole()
	l.label, l.zone, l.key, l.model, l.sizeClass, l.tier = r.text(), r.text(), r.text(), r.text(), r.text(), r.text()
	degradeTo := r.text()
	l.number, l.amount = number, r.natural("an amount")
	for range r.list() {
		l.alerts = append(l.alerts, auditAlert{r.whole(), r.natural("a threshold")})
	}
	if err := r.failed(); err != nil {
		return err
	}
	if err := l.sound(degradeTo); err != nil {
		return err
	}
	o.learnName(l.label)
	switch {
	case l.account == 0 || l.window == 0 || l.zone == "":
		return differ("it has no account, window or time zone")
	case number > 0 && number <= int64(len(o.limits)):
		old := o.limits[number-1]
		if old.auditLimitKey != l.auditLimitKey {
			return differ("limit %d was another one before: %s", number, old.say())
		}
		old.removed, old.zone, old.action, old.amount, old.alerts, old.label = l.removed, l.zone, l.action, l.amount, l.alerts, l.label
		return o.changedLimit(old, h.at)
	case number != int64(len(o.limits))+1:
		return differ("limit %d comes after limit %d", number, len(o.limits))
	}
	for _, other := range o.limitsOf[l.account] {
		if other.auditLimitKey == l.auditLimitKey {
			return differ("it is a second limit of the same account, measure, window and narrowing")
		}
	}
	o.limits = append(o.limits, l)
	o.limitsOf[l.account] = append(o.limitsOf[l.account], l)
	return nil
}

// sound checks a limit by itself.
func (l *auditLimit) sound(degradeTo string) error {
	switch {
	case (l.action == auditDegrade) != (degradeTo != ""):
		return differ("action %d to %q", l.action, degradeTo)
	case l.measure == auditByGPU && l.action != auditAlertOnly:
		return differ("a limit on GPU time does more than alert")
	}
	before := new(big.Int)
	for _, alert := range l.alerts {
		if alert.at.Cmp(before) <= 0 {
			return differ("its thresholds are not in order, each above the one before and above 0")
		}
		before = alert.at
		if alert.percent == 0 {
			continue
		}
		want := new(big.Int).Mul(l.amount, big.NewInt(alert.percent))
		want.Add(want, big.NewInt(99)).Quo(want, big.NewInt(100))
		if alert.at.Cmp(want) != 0 {
			return differ("its threshold of %d %% is %v; right is %v", alert.percent, alert.at, want)
		}
	}
	return nil
}

// changedLimit finds which thresholds of a limit that was changed are reached already.
func (o *auditOrg) changedLimit(l *auditLimit, at int64) error {
	for i, p := range o.periods {
		if p.of(l) && p.contains(at) {
			o.reached(l, int64(i)+1)
		}
	}
	return nil
}

// auditNotice is a threshold that was reached and is to be noticed, or was.
type auditNotice struct {
	limit, period int64
	at            string // amount
}

// reached finds which thresholds of a limit what is used has come to: their notices are due.
func (o *auditOrg) reached(l *auditLimit, period int64) {
	b := o.balances[auditKey{l.number, period}]
	if b == nil || l.removed {
		return
	}
	for _, alert := range l.alerts {
		n := auditNotice{l.number, period, alert.at.String()}
		if b.used.Cmp(alert.at) >= 0 && !o.noticed[n] {
			o.noticed[n] = true
			o.due = append(o.due, n)
		}
	}
}

// notice takes a notice that is due.
func (o *auditOrg) notice(r *auditReader) error {
	n := auditNotice{limit: r.whole(), period: r.whole()}
	percent := r.whole()
	n.at = r.natural("a threshold").String()
	used := r.natural("what was used")
	request := r.whole()
	if err := r.failed(); err != nil {
		return err
	}
	if len(o.due) == 0 || o.due[0] != n {
		return differ("limit %d was not just found to have come to %s in period %d, or that was noticed before", n.limit, n.at, n.period)
	}
	o.due = o.due[1:]
	lim := o.limits[n.limit-1]
	if b := o.balances[auditKey{n.limit, n.period}]; used.Cmp(&b.used) != 0 {
		return differ("it says that %v was used; by the log it is %v", used, &b.used)
	}
	for _, alert := range lim.alerts {
		if alert.at.String() == n.at && alert.percent != percent {
			return differ("it says %d %%; the threshold is of %d %%", percent, alert.percent)
		}
	}
	if request != o.cause {
		return differ("it says that request %d was the cause; it was %d", request, o.cause)
	}
	return nil
}

// auditPeriod is a period; without an end for the window total.
type auditPeriod struct {
	window     byte
	anchor     int64
	zone       string
	start, end int64 // Unix microseconds
}

// of reports whether it is a period of a limit's calendar.
func (p *auditPeriod) of(l *auditLimit) bool {
	return p.window == l.window && p.anchor == l.anchor && p.zone == l.zone
}

func (p *auditPeriod) contains(at int64) bool {
	return p.window == auditTotal || p.start <= at && at < p.end
}

func (o *auditOrg) period(h *auditHeader, r *auditReader) error {
	number, p := r.whole(), &auditPeriod{}
	p.window, p.anchor, p.zone = r.below(auditWindows+1, "window"), r.whole(), r.text()
	r.text()
	p.start, p.end = r.signed(), r.signed()
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case number != int64(len(o.periods))+1:
		return differ("period %d comes after period %d", number, len(o.periods))
	case p.window == 0 || (p.window == auditTotal) != (p.end == 0):
		return differ("a period of window %d that ends at %d", p.window, p.end)
	case !p.contains(h.at):
		return differ("it does not contain the time at which it was needed")
	}
	for i, other := range o.periods {
		if other.window == p.window && other.anchor == p.anchor && other.zone == p.zone && (p.window == auditTotal || other.start < p.end && p.start < other.end) {
			return differ("it overlaps period %d of the same window, anchor and zone", i+1)
		}
	}
	o.periods = append(o.periods, p)
	return nil
}
