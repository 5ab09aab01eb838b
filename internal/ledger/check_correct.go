package ledger

import "math/big"

// auditCorrection is what the rules need of a correction.
type auditCorrection struct {
	account  int64
	currency string
	from, to int64
	amount   *big.Int
}

// correction checks a correction, and adds it to the limits that it is to be added to.
func (o *auditOrg) correction(head *auditHeader, r *auditReader) error {
	var path []int64
	for range r.list() {
		path = append(path, r.whole())
	}
	label := r.text()
	c := &auditCorrection{currency: r.text()}
	book := r.text()
	c.from, c.to = r.signed(), r.signed()
	requests, charged, total := r.whole(), r.natural("what was charged"), r.natural("what is owed")
	c.amount = r.amount()
	reason, who := r.text(), r.text()
	touched := r.counted() // of limits, here
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case len(path) == 0 || path[0] != int64(o.id):
		return differ("its path does not begin with the organisation")
	case book == "" || reason == "" || who == "":
		return differ("it has no price book, reason or name")
	case c.from >= c.to || c.to > head.at:
		return differ("its range does not end after its beginning and before it was decided")
	case c.amount.Sign() == 0:
		return differ("it changes nothing")
	}
	c.account = path[len(path)-1]
	sum := new(big.Int).Add(charged, c.amount)
	for _, before := range o.corrections {
		if before.account != c.account || before.currency != c.currency || before.from >= c.to || c.from >= before.to {
			continue
		}
		if before.from != c.from || before.to != c.to {
			return differ("its range overlaps that of an earlier correction of the same account, and is not the same")
		}
		sum.Add(sum, before.amount)
	}
	if sum.Cmp(total) != 0 {
		return differ("it says that it brings the account to %v; by what was charged and corrected it is %v", total, sum)
	}
	if err := o.wasCharged(c, requests, charged); err != nil {
		return err
	}
	o.learnName(label)
	o.corrections = append(o.corrections, c)
	return o.addCorrection(head, c, path, touched)
}

// wasCharged checks that no more is corrected than the sums of usage of its account have had in the quarter-hours of its range.
func (o *auditOrg) wasCharged(c *auditCorrection, requests int64, charged *big.Int) error {
	had, sum := int64(0), new(big.Int)
	for key, u := range o.usage {
		path := o.subjects[key.a-1].path
		if path[len(path)-1] == c.account && key.b >= c.from/auditBucket && key.b*auditBucket < c.to {
			had += u.requests
			sum.Add(sum, &u.charge)
		}
	}
	if requests > had || charged.Cmp(sum) > 0 {
		return differ("it corrects %d requests that were charged %v; by the log there were %d, charged %v", requests, charged, had, sum)
	}
	return nil
}

// addCorrection checks that it names every limit of money on its path that is narrowed to nothing, in the period that runs,
// and no other, and adds it to what was used of them.
func (o *auditOrg) addCorrection(head *auditHeader, c *auditCorrection, path []int64, touched []auditCounted) error {
	var due []*auditLimit
	for _, node := range path {
		for _, lim := range o.limitsOf[node] {
			if !lim.removed && lim.measure == auditByMoney && lim.key == "" && lim.model == "" && lim.sizeClass == "" && lim.tier == "" {
				due = append(due, lim)
			}
		}
	}
	if len(due) != len(touched) {
		return differ("it is added to %d limits, but its path has %d", len(touched), len(due))
	}
	for i, t := range touched {
		p, err := number(o.periods, t.period, "period")
		switch {
		case err != nil:
			return err
		case t.counter != due[i].number:
			return differ("it is added to limit %d in the place of %s", t.counter, due[i].say())
		case !p.of(due[i]) || !p.contains(head.at):
			return differ("it is added to %s in a period of another window, anchor or zone, or that does not run", due[i].say())
		}
		b := o.balance(&auditTouch{limit: t.counter, period: t.period})
		if b.used.Add(&b.used, c.amount).Sign() < 0 {
			b.used.SetInt64(0)
		}
	}
	for i, t := range touched {
		o.reached(due[i], t.period)
	}
	return nil
}
