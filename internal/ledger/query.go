package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

type orgID = account.ID

// Standing is what stands against one limit in its running period.
type Standing struct {
	Limit  quota.Limit
	Period period.Period
	quota.Balance
	Alerts []AlertState // of Limit.Alerts

	corrected amount // by corrections of the period
}

// AlertState is a threshold, and since when what is used has come to it in this period; zero: it has not.
type AlertState struct {
	quota.Alert
	Since time.Time
}

// OverLimit returns by how much a limit is exceeded, and why that can be: it was "lowered" (or made to block) after the
// fact, a "correction" has added to what was used, or it is "alert_only". It returns 0 and "" where it is not.
func (s *Standing) OverLimit() (by amount, cause string) {
	over := s.Used.Add(s.Held).Sub(s.Limit.Amount)
	switch {
	case over.Sign() <= 0:
		return amount{}, ""
	case s.Limit.Action == quota.AlertOnly:
		return over, "alert_only"
	case s.corrected.Sign() > 0:
		return over, "correction"
	}
	return over, "lowered"
}

// Standings returns the limits of the given accounts of one organisation, in the order given, and those of keys of the
// last of them, with what stands against them now. What is shown is decided, and durable within a group's time.
func (l *Ledger) Standings(org account.ID, accounts []account.ID) []Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[org]
	if o == nil {
		return nil
	}
	at := l.now()
	var out []Standing
	for i, id := range accounts {
		for _, lim := range o.limitsOf[id] {
			out = o.standing(out, lim, at)
		}
		if i < len(accounts)-1 {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(o.keyLimits)) {
			for _, lim := range o.keyLimits[key] {
				if lim.Account == id {
					out = o.standing(out, lim, at)
				}
			}
		}
	}
	return out
}

// standing appends what stands against a limit that is in force.
func (o *org) standing(out []Standing, lim *limit, at time.Time) []Standing {
	if lim.removed {
		return out
	}
	s := Standing{Limit: lim.Limit, Period: lim.periodOf(at)}
	b := o.peek(lim, at)
	if b != nil {
		s.Period, s.Balance = b.period.Period, b.Balance
	}
	for i := range o.corrections {
		if c := &o.corrections[i]; lim.corrects() && slices.Contains(c.Chain, lim.Account) && !c.At.Before(s.Period.Start) && (s.Period.End.IsZero() || c.At.Before(s.Period.End)) {
			s.corrected = s.corrected.Add(c.Amount)
		}
	}
	for _, alert := range lim.Alerts {
		state := AlertState{Alert: alert}
		if b != nil {
			state.Since = o.noticed[noticeKey{lim.num, b.period.num, alert.At}]
		}
		s.Alerts = append(s.Alerts, state)
	}
	return append(out, s)
}

// peek finds the balance of a limit at an instant without opening a period.
func (o *org) peek(lim *limit, at time.Time) *balance {
	for _, p := range o.spans {
		if p.of(lim) && p.contains(at) {
			if b := o.balances[balanceKey{lim.num, p.num}]; b != nil {
				return b
			}
		}
	}
	return nil
}

// TouchedLimit is one limit that a request stood on, resolved for reading.
type TouchedLimit struct {
	Limit  quota.Limit
	Period period.Period
	Held   amount
}

func (l *Ledger) readRecord(head header, d *decoder) (*usage.Record, error) {
	h, touched := readHold(d)
	if d.err != nil {
		return nil, d.err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[head.Org]
	if o == nil || h.subject < 1 || h.subject > int64(len(o.subjects)) || h.rowNum < 1 || h.rowNum > int64(len(o.rows)) {
		return nil, fmt.Errorf("entry %d names what the log does not define", head.Seq)
	}
	r := &h.Record
	r.ID, r.Admission.At, r.Status = head.Request, head.At, usage.Held
	r.Subject = o.subjects[h.subject-1]
	r.PriceRow, r.Multiplier = o.rows[h.rowNum-1].ID, o.rows[h.rowNum-1].Multiplier
	r.Touched = touched
	return r, nil
}

func (l *Ledger) touchedLimits(r *usage.Record) []TouchedLimit {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[r.Subject.Organisation]
	var out []TouchedLimit
	for _, t := range r.Touched {
		if t.Limit >= 1 && t.Limit <= int64(len(o.limitList)) && t.Period >= 1 && t.Period <= int64(len(o.spans)) {
			out = append(out, TouchedLimit{o.limitList[t.Limit-1].Limit, o.spans[t.Period-1].Period, t.Held})
		}
	}
	return out
}

// Refusal returns the kept "no" of a request id, nil where none is kept.
func (l *Ledger) Refusal(id usage.ID) ([]byte, error) { return l.store.Refusal(id) }

// Sum is the usage of one subject in one bucket.
type Sum struct {
	Subject *usage.Subject
	Start   time.Time // of the bucket, UTC
	UsageRow
}

// Usage visits the sums of an organisation (0: of all) whose admission lies in [from, to), by organisation, subject and
// time. It reads what is durable.
func (l *Ledger) Usage(org account.ID, from, to time.Time, visit func(Sum) error) error {
	return l.store.Usage(org, floorBucket(from), ceilBucket(to), func(row UsageRow) error {
		l.mu.Lock()
		o := l.orgs[row.Org]
		var s *usage.Subject
		if o != nil && row.Subject >= 1 && row.Subject <= int64(len(o.subjects)) {
			s = o.subjects[row.Subject-1]
		}
		l.mu.Unlock()
		if s == nil {
			return fmt.Errorf("usage of subject %d of organisation %d, which the log does not define: run `talea ledger check`", row.Subject, row.Org)
		}
		return visit(Sum{s, time.Unix(row.Bucket*bucketSeconds, 0).UTC(), row})
	})
}

func floorBucket(t time.Time) int64 { return t.Unix() / bucketSeconds }
func ceilBucket(t time.Time) int64  { return (t.Unix() + bucketSeconds - 1) / bucketSeconds }
