package ledger

import (
	"fmt"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// maxNotices bounds the notices of one organisation that are kept in memory; the log has all of them.
const maxNotices = 1000

// Notice says that what was used of a limit has come to one of its thresholds. There is one for each amount in each period,
// however often the program starts.
type Notice struct {
	At      time.Time   // UTC
	Limit   quota.Limit // as it was when this was noticed, or read back
	Period  period.Period
	Alert   quota.Alert
	Used    amount
	Request usage.ID // whose settlement it was, 0 where the limit was changed
}

// String says it in one line.
func (n *Notice) String() string {
	m := n.Limit.Measure
	return fmt.Sprintf("%s, %s %s: %s of %s %s used, alert at %s", n.Limit.Path, n.Limit.Window, n.Period.Label,
		m.Format(n.Used), m.Format(n.Limit.Amount), m, n.Alert.Text(m))
}

// noticeKey tells thresholds apart by their amount: one that is moved is another.
type noticeKey struct {
	limit, period int64
	at            amount
}

// reached notices the thresholds that what is used has come to. It must be called with nothing between it and the entry
// that changed the balance or the limit. The caller holds l.mu.
func (l *Ledger) reached(o *org, b *balance, at time.Time, request usage.ID) {
	lim := b.limit
	if lim.removed {
		return
	}
	for _, alert := range lim.Alerts {
		key := noticeKey{lim.num, b.period.num, alert.At}
		if _, done := o.noticed[key]; done || b.Used.Cmp(alert.At) < 0 {
			continue
		}
		n := Notice{At: at, Limit: lim.Limit, Period: b.period.Period, Alert: alert, Used: b.Used, Request: request}
		entry := l.begin(o, KindNotice, at, 0)
		l.end(o, KindNotice, 0, appendNotice(entry, lim.num, b.period.num, &n))
		o.remember(key, n)
		l.noticed++
		l.pending.notices = append(l.pending.notices, n)
	}
}

func (o *org) remember(key noticeKey, n Notice) {
	o.noticed[key] = n.At
	if len(o.notices) >= 2*maxNotices {
		o.notices = slices.Clone(o.notices[maxNotices:])
	}
	o.notices = append(o.notices, n)
}

// readNotice reads a notice back.
func (o *org) readNotice(at time.Time, d *decoder) {
	lim, per := d.uint(), d.uint()
	n := Notice{At: at, Alert: quota.Alert{Percent: d.uint(), At: d.amount()}, Used: d.amount(), Request: usage.ID(d.uint())}
	if lim < 1 || lim > int64(len(o.limitList)) || per < 1 || per > int64(len(o.spans)) {
		d.fail(fmt.Errorf("notice of limit %d and period %d, which are not defined", lim, per))
		return
	}
	n.Limit, n.Period = o.limitList[lim-1].Limit, o.spans[per-1].Period
	o.remember(noticeKey{lim, per, n.Alert.At}, n)
}

// Notices returns the newest notices of an organisation, oldest first.
func (l *Ledger) Notices(org account.ID) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[org]
	if o == nil {
		return nil
	}
	return slices.Clone(o.notices[max(0, len(o.notices)-maxNotices):])
}

// Noticed counts the notices since Open.
func (l *Ledger) Noticed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.noticed
}
