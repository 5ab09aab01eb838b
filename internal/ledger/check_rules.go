package ledger

import (
	"math/big"

	"talea/internal/usage"
)

// More numbers of docs/ledger-format.md.
const (
	auditNothing   = 0
	auditGenerated = 1
	auditDelivered = 2
	auditTariffs   = 3

	auditFromCheckpoint = 4
	auditSources        = 5

	auditCompleted  = 1
	auditClientGone = 2
	auditCut        = 3
	auditRevoked    = 4
	auditBroken     = 5
	auditOutcomes   = 8
	auditParties    = 4

	auditFlagResolved = 1 << 7
	auditFlagNotRated = 1 << 8
	auditBucket       = 900 * 1_000_000 // microseconds
	auditDay          = 96 * auditBucket
)

// auditHold is an open hold.
type auditHold struct {
	request, seq, epoch, at int64
	subject                 int64
	of                      *auditSubject
	row                     *auditRow
	tier                    string
	onDisconnect, onFault   byte
	bounds                  auditBounds
	money                   *big.Int
	touched                 []auditTouch
	counted                 []auditCounted
	mark                    auditCounts // last checkpoint
	key                     string      // idempotency
}

// auditRepeat is the newest hold under an idempotency key, from when it was made.
type auditRepeat struct {
	request, at int64
	charged     bool
}

// keyed checks that a hold's idempotency key is free.
func (o *auditOrg) keyed(head *auditHeader, h *auditHold) error {
	if h.key != head.idempotency {
		return differ("its idempotency key is not that of its column")
	}
	if h.key == "" {
		return nil
	}
	if old, found := o.keys[h.key]; found {
		if o.open[old.request] != nil {
			return differ("the request %s, under the same idempotency key, was still open", usage.ID(old.request))
		}
		if old.charged && h.at-old.at < auditDay {
			return differ("the request %s was charged under the same idempotency key less than 24 hours before", usage.ID(old.request))
		}
	}
	o.keys[h.key] = auditRepeat{request: h.request, at: h.at}
	return nil
}

// need is the most that the hold can use by a measure.
func (h *auditHold) need(measure byte) *big.Int {
	switch measure {
	case auditByMoney:
		return h.money
	case auditByInput:
		return big.NewInt(h.bounds.input)
	case auditByOutput:
		return big.NewInt(h.bounds.output)
	case auditByTokens:
		sum := h.bounds.input + h.bounds.output
		if h.bounds.joint > 0 {
			sum = min(sum, h.bounds.joint)
		}
		return big.NewInt(sum)
	case auditByWork:
		return h.of.mostWork(h.bounds)
	case auditByGPU:
		return new(big.Int)
	}
	return big.NewInt(1)
}

// number finds the n-th of what the log has defined.
func number[T any](list []*T, n int64, what string) (*T, error) {
	if n < 1 || n > int64(len(list)) {
		return nil, differ("%s %d is not defined before it", what, n)
	}
	return list[n-1], nil
}

func (o *auditOrg) balance(t *auditTouch) *auditBalance {
	key := auditKey{t.limit, t.period}
	b := o.balances[key]
	if b == nil {
		b = &auditBalance{}
		o.balances[key] = b
	}
	return b
}

func (a *auditor) hold(o *auditOrg, head *auditHeader, r *auditReader) error {
	subject := r.whole()
	rowNumber := r.whole()
	h := &auditHold{request: head.request, seq: head.seq, epoch: head.epoch, at: head.at, subject: subject}
	r.text() // endpoint
	r.flag() // stream
	r.text() // principal
	h.key = r.text()
	r.texts(2) // body hash, run id
	h.tier = r.text()
	r.text()  // effort
	r.whole() // retry of
	r.whole() // SDK retry
	r.whole() // thinking tokens
	h.onDisconnect, h.onFault = r.below(auditTariffs, "tariff rule"), r.below(auditTariffs, "tariff rule")
	h.bounds, h.money, h.touched = r.bounds(), r.natural("the money held"), r.touched()
	h.counted = r.counted()
	if err := r.failed(); err != nil {
		return err
	}
	if _, twice := a.requests[usage.ID(h.request)]; twice {
		return differ("the request had a hold before")
	}
	a.requests[usage.ID(h.request)] = struct{}{}
	if err := o.keyed(head, h); err != nil {
		return err
	}
	s, err := number(o.subjects, subject, "subject")
	if err != nil {
		return err
	}
	h.of = s
	if h.row, err = number(o.rows, rowNumber, "price row"); err != nil {
		return err
	}
	for i := range h.touched {
		if err := o.stand(h, s, &h.touched[i]); err != nil {
			return err
		}
	}
	if err := o.standsOnAll(h, s); err != nil {
		return err
	}
	if err := o.counts(h); err != nil {
		return err
	}
	o.open[h.request] = h
	return nil
}

// stand grants what a hold holds of one limit, if it was granted by right.
func (o *auditOrg) stand(h *auditHold, s *auditSubject, t *auditTouch) error {
	lim, err := number(o.limits, t.limit, "limit")
	if err != nil {
		return err
	}
	p, err := number(o.periods, t.period, "period")
	if err != nil {
		return err
	}
	switch {
	case lim.seen == h.seq:
		return differ("it stands twice on %s", lim.say())
	case lim.removed:
		return differ("it stands on %s, which was not in force", lim.say())
	case !lim.covers(s, h.tier):
		return differ("it stands on %s, which does not cover the model", lim.say())
	case !p.of(lim):
		return differ("it stands on %s in a period of another window, anchor or zone", lim.say())
	case !p.contains(h.at):
		return differ("it stands on %s in a period that does not contain its time", lim.say())
	case t.held.Cmp(h.need(lim.measure)) != 0:
		return differ("it holds %v of %s, but needs %v", t.held, lim.say(), h.need(lim.measure))
	}
	lim.seen = h.seq
	return o.balance(t).grant(lim, t.held)
}

// grant holds more of a limit, if there was room.
func (b *auditBalance) grant(lim *auditLimit, asked *big.Int) error {
	sum := new(big.Int).Add(&b.used, &b.held)
	if sum.Add(sum, asked).Cmp(lim.amount) > 0 && lim.action != auditAlertOnly {
		return differ("granted beyond %s: %v used + %v held + %v asked > %v", lim.say(), &b.used, &b.held, asked, lim.amount)
	}
	b.held.Add(&b.held, asked)
	return nil
}

func (l *auditLimit) covers(s *auditSubject, tier string) bool {
	if tier == "" || tier == "auto" || tier == "default" {
		tier = "standard"
	}
	return (l.key == "" || l.key == s.key) && (l.model == "" || l.model == s.model) &&
		(l.sizeClass == "" || l.sizeClass == s.sizeClass) && (l.tier == "" || l.tier == tier)
}

// standsOnAll checks that a hold stands on every limit in force on its path, and on no other.
func (o *auditOrg) standsOnAll(h *auditHold, s *auditSubject) error {
	limits := 0
	for _, node := range s.path {
		for _, lim := range o.limitsOf[node] {
			if lim.removed || !lim.covers(s, h.tier) {
				continue
			}
			if lim.seen != h.seq {
				return differ("it does not stand on %s, which was in force on its path", lim.say())
			}
			limits++
		}
	}
	if limits != len(h.touched) {
		return differ("it stands on %d limits, but its path has %d", len(h.touched), limits)
	}
	return nil
}

// opened finds the open hold that an entry is about.
func (o *auditOrg) opened(head *auditHeader) (*auditHold, error) {
	h := o.open[head.request]
	if h == nil {
		return nil, differ("the request has no open hold")
	}
	return h, nil
}

func (o *auditOrg) extend(head *auditHeader, r *auditReader) error {
	more, money, touched := r.bounds(), r.natural("the money held"), r.touched()
	if err := r.failed(); err != nil {
		return err
	}
	h, err := o.opened(head)
	if err != nil {
		return err
	}
	if len(touched) != len(h.touched) {
		return differ("it stands on %d limits, but the hold on %d", len(touched), len(h.touched))
	}
	was := *h
	h.money = new(big.Int).Add(h.money, money)
	h.bounds.input += more.input
	h.bounds.output += more.output
	if h.bounds.joint > 0 {
		h.bounds.joint += more.joint
	}
	for i := range touched {
		t, add := &h.touched[i], &touched[i]
		lim := o.limits[t.limit-1]
		if add.limit != t.limit || add.period != t.period {
			return differ("its limits are not those of the hold")
		}
		asked := new(big.Int).Sub(h.need(lim.measure), was.need(lim.measure))
		if add.held.Cmp(asked) != 0 {
			return differ("it holds %v more of %s, but needs %v", add.held, lim.say(), asked)
		}
		t.held = new(big.Int).Add(t.held, asked)
		b := o.balance(t)
		if lim.removed || asked.Sign() == 0 {
			b.held.Add(&b.held, asked)
		} else if err := b.grant(lim, asked); err != nil {
			return err
		}
	}
	return nil
}

func (o *auditOrg) checkpoint(head *auditHeader, r *auditReader) error {
	mark := r.counts()
	r.below(auditSources, "usage source")
	if err := r.failed(); err != nil {
		return err
	}
	h, err := o.opened(head)
	if err != nil {
		return err
	}
	h.mark = mark
	return nil
}
