package ledger

import (
	"cmp"
	"math/big"
	"slices"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/usage"
)

// whole is an amount of a table as a number.
func whole(a money.Amount) *big.Int {
	upper, lower := a.Femto()
	v := new(big.Int).Lsh(big.NewInt(upper), 64)
	return v.Add(v, new(big.Int).SetUint64(lower))
}

// of finds the organisation of a row of a table.
func (a *auditor) of(id account.ID, what string) (*auditOrg, error) {
	if o := a.orgs[id]; o != nil {
		return o, nil
	}
	return nil, differ("organisation %d has a %s, but no log", id, what)
}

func (a *auditor) head(row HeadRow) error {
	o, err := a.of(row.Org, "head")
	if err != nil {
		return err
	}
	from := o.seq + 1
	for _, h := range o.open {
		from = min(from, h.seq)
	}
	switch {
	case row.Seq != o.seq:
		return differ("%s: the log ends with entry %d, but its head says %d", o.say(), o.seq, row.Seq)
	case row.Hash != o.hash:
		return differ("%s: the head's hash is not that of entry %d", o.say(), o.seq)
	case row.OpenFrom != from:
		return differ("%s: the oldest open hold is entry %d, but the head says %d", o.say(), from, row.OpenFrom)
	}
	o.headed = true
	return nil
}

func (a *auditor) balance(row BalanceRow) error {
	o, err := a.of(row.Org, "balance")
	if err != nil {
		return err
	}
	b := o.balances[auditKey{row.Limit, row.Period}]
	if b == nil {
		return differ("%s: there is a balance of limit %d in period %d, on which no hold ever stood", o.say(), row.Limit, row.Period)
	}
	for _, x := range []struct {
		what  string
		said  *big.Int
		right *big.Int
	}{{"used", whole(row.Used), &b.used}, {"held", whole(row.Held), &b.held}} {
		if x.said.Cmp(x.right) != 0 {
			return differ("%s, %s, period %d: the balance says %v %s; by the log it is %v",
				o.say(), o.sayBalance(row.Limit), row.Period, x.said, x.what, x.right)
		}
	}
	b.compared = true
	a.report.Balances++
	return nil
}

func (a *auditor) usage(row UsageRow) error {
	o, err := a.of(row.Org, "usage row")
	if err != nil {
		return err
	}
	u := o.usage[auditKey{row.Subject, row.Bucket}]
	if u == nil {
		return differ("%s: there is usage of subject %d in quarter-hour %d, in which nothing was settled", o.say(), row.Subject, row.Bucket)
	}
	wrong := func(what string, said, right any) error {
		return differ("%s, subject %d, quarter-hour %d: usage says %v %s; by the log it is %v", o.say(), row.Subject, row.Bucket, said, what, right)
	}
	if row.Requests != u.requests {
		return wrong("requests", row.Requests, u.requests)
	}
	if row.Voided != u.voided {
		return wrong("voided requests", row.Voided, u.voided)
	}
	for m, n := range u.counts {
		if row.Counts[m] != n {
			return wrong("of meter "+usage.Meter(m).String(), row.Counts[m], n)
		}
	}
	if said := whole(row.Charge); said.Cmp(&u.charge) != 0 {
		return wrong("charged", said, &u.charge)
	}
	u.compared = true
	a.report.UsageRows++
	return nil
}

// finish checks what only shows at the end: rows that are missing, and holds that a start has forgotten.
func (a *auditor) finish() error {
	if a.lastAt < a.newestAt && a.newest == a.epoch {
		return differ("the newest transaction is said to be of %d, but an entry of its epoch is of %d (Unix microseconds)", a.lastAt, a.newestAt)
	}
	for _, o := range a.order {
		if len(o.due) > 0 {
			return differ("%s: the log ends before it is noticed that limit %d has come to %s in period %d", o.say(), o.due[0].limit, o.due[0].at, o.due[0].period)
		}
		if !o.headed {
			return differ("%s has a log, but no head", o.say())
		}
		a.report.Open += int64(len(o.open))
		if err := o.resolved(a.newest); err != nil {
			return differ("%s: %v", o.say(), err)
		}
		for _, key := range sortedKeys(o.balances) {
			if !o.balances[key].compared {
				return differ("%s, %s: the balance of period %d is missing", o.say(), o.sayBalance(key.a), key.b)
			}
		}
		for _, key := range sortedKeys(o.usage) {
			if !o.usage[key].compared {
				return differ("%s: the usage of subject %d in quarter-hour %d is missing", o.say(), key.a, key.b)
			}
		}
	}
	return nil
}

func sortedKeys[T any](rows map[auditKey]T) []auditKey {
	keys := make([]auditKey, 0, len(rows))
	for key := range rows {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y auditKey) int { return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b)) })
	return keys
}
