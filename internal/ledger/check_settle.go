package ledger

import "math/big"

// auditResult is what the rules need of a settlement.
type auditResult struct {
	source, outcome byte
	flags           int64
	gpus            int64
	delivered       int64
	metered, billed auditCounts
	lines           []auditLine
	charge          *big.Int
	byDelivery      bool // what was delivered is what is owed
}

type auditLine struct {
	meter         byte
	kind          byte
	quantity      int64
	price, amount *big.Int
}

func (r *auditReader) result() (x auditResult) {
	r.texts(7)
	x.source, x.outcome = r.below(auditSources, "usage source"), r.below(auditOutcomes, "outcome")
	r.below(auditParties, "party at fault")
	x.flags = r.whole()
	x.gpus = r.whole()
	for range 5 { // queue, prefill, decode, first, total
		r.whole()
	}
	x.delivered = r.whole()
	x.metered, x.billed = r.counts(), r.counts()
	for range r.list() {
		r.texts(2)
		r.whole()
		r.whole()
	}
	for range r.list() {
		x.lines = append(x.lines, auditLine{
			meter: r.below(auditMeters, "meter"), kind: r.below(auditLineKinds, "kind of line"), quantity: r.whole(), price: r.rate(), amount: r.amount(),
		})
	}
	x.charge = r.natural("the charge")
	return x
}

func (a *auditor) settle(o *auditOrg, head *auditHeader, r *auditReader) error {
	x := r.result()
	if err := r.failed(); err != nil {
		return err
	}
	h, err := o.opened(head)
	if err != nil {
		return err
	}
	void := head.kind == auditVoidKind
	for _, check := range []func() error{
		func() error { return h.resolvedRightly(head, &x) },
		func() error { return h.tariff(&x, void) },
		func() error { return h.allOfIt(&x) },
		func() error { return o.rated(h, &x) },
		func() error { return o.post(h, &x) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	o.advance(h, &x)
	delete(o.open, h.request)
	if h.key != "" && !void {
		o.keys[h.key] = auditRepeat{h.request, h.at, true}
	}
	o.addUsage(h, &x, void)
	if void {
		a.report.Voided++
	} else {
		a.report.Posted++
	}
	return nil
}

// resolvedRightly checks what a start settled of earlier epochs, and that nothing else says it was settled so.
func (h *auditHold) resolvedRightly(head *auditHeader, x *auditResult) error {
	late, flagged := head.epoch > h.epoch, x.flags&auditFlagResolved != 0
	switch {
	case late != flagged:
		return differ("hold of epoch %d, settled in epoch %d: flag resolved_at_start is %v", h.epoch, head.epoch, flagged)
	case !late:
		return nil
	case x.source != auditFromCheckpoint || x.outcome != auditBroken:
		return differ("a start settled it with usage source %d and outcome %d", x.source, x.outcome)
	case x.metered != h.mark:
		return differ("a start settled it at other counts than those of its last checkpoint")
	}
	return nil
}

// tariff checks that what is billed is what the price book's rule allows.
func (h *auditHold) tariff(x *auditResult, void bool) error {
	rule := byte(auditNothing)
	switch x.outcome {
	case auditCompleted, auditCut:
		rule = auditGenerated
	case auditClientGone, auditRevoked:
		rule = h.onDisconnect
	case auditBroken:
		rule = h.onFault
	}
	if rule == auditDelivered && x.delivered == 0 {
		rule = auditNothing
	}
	owed := rule != auditNothing && x.metered.mask != 0 && x.flags&auditFlagNotRated == 0
	switch {
	case void != (x.billed.mask == 0):
		return differ("void is %v, but billed counts are known: %v", void, !void)
	case owed == void:
		return differ("by tariff rule %d something is owed: %v; it was settled as owing: %v", rule, owed, !void)
	case void:
		return nil
	case x.billed.n[auditRequest] != 1 || x.billed.mask|1<<auditWork != x.metered.mask|1<<auditRequest|1<<auditWork:
		return differ("its billed meters are not those that were metered, and one request")
	case x.billed.n[auditWork] != h.of.workOf(&x.billed) || h.of.sized() != (x.billed.mask>>auditWork&1 == 1):
		return differ("its work is said to be %d ms; right is %d", x.billed.n[auditWork], h.of.workOf(&x.billed))
	case rule == auditDelivered && x.billed.output() > x.delivered:
		return differ("%d output tokens are billed, but %d were delivered", x.billed.output(), x.delivered)
	}
	x.byDelivery = rule == auditDelivered
	for m := range x.billed.n {
		if m != auditRequest && m != auditWork && x.billed.n[m] > x.metered.n[m] {
			return differ("of meter %d, %d are billed, but %d were metered", m, x.billed.n[m], x.metered.n[m])
		}
	}
	return nil
}

// allOfIt checks that what is billed is exactly what was metered, cut to what was delivered where the rule says so and to
// what was held; nothing of it is left out. What is cut is cut from the classes in the order of their rows here.
func (h *auditHold) allOfIt(x *auditResult) error {
	if err := h.withinBounds(&x.billed); err != nil || x.billed.mask == 0 {
		return err
	}
	in, out := x.metered.input(), x.metered.output()
	if x.byDelivery {
		out = min(out, x.delivered)
	}
	in, out = min(in, h.bounds.input), min(out, h.bounds.output)
	if h.bounds.joint > 0 {
		in = min(in, h.bounds.joint)
		out = min(out, h.bounds.joint-in)
	}
	for _, side := range []struct {
		what    string
		owed    int64
		classes []byte
	}{{"input", in, []byte{0, 2, 1}}, {"output", out, []byte{3, 4}}} {
		cut := -side.owed
		for _, m := range side.classes {
			cut += x.metered.n[m]
		}
		for _, m := range side.classes {
			take := min(cut, x.metered.n[m])
			if x.billed.n[m] != x.metered.n[m]-take {
				return differ("of the %d %s tokens that are owed, %d of meter %d are billed; right is %d", side.owed, side.what, x.billed.n[m], m, x.metered.n[m]-take)
			}
			cut -= take
		}
	}
	for m := byte(5); m < auditMeters; m++ {
		if m != auditRequest && m != auditWork && x.billed.n[m] != x.metered.n[m] {
			return differ("of meter %d, %d were metered and %d are billed", m, x.metered.n[m], x.billed.n[m])
		}
	}
	return nil
}

func (h *auditHold) withinBounds(c *auditCounts) error {
	in, out := c.input(), c.output()
	if in > h.bounds.input || out > h.bounds.output || h.bounds.joint > 0 && in+out > h.bounds.joint {
		return differ("%d input and %d output tokens are billed; held were %d and %d, jointly %d (0 is unbounded)",
			in, out, h.bounds.input, h.bounds.output, h.bounds.joint)
	}
	return nil
}

// post releases what was held and adds what was used.
func (o *auditOrg) post(h *auditHold, x *auditResult) error {
	for i := range h.touched {
		t := &h.touched[i]
		lim, b := o.limits[t.limit-1], o.balance(t)
		spent := x.spent(lim.measure)
		if spent.Cmp(t.held) > 0 && lim.measure != auditByGPU {
			return differ("it uses %v of %s, but held %v", spent, lim.say(), t.held)
		}
		b.held.Sub(&b.held, t.held)
		b.used.Add(&b.used, spent)
		o.reached(lim, t.period)
	}
	return nil
}

func (x *auditResult) spent(measure byte) *big.Int {
	switch measure {
	case auditByMoney:
		return x.charge
	case auditByInput:
		return big.NewInt(x.billed.input())
	case auditByOutput:
		return big.NewInt(x.billed.output())
	case auditByTokens:
		return big.NewInt(x.billed.input() + x.billed.output())
	case auditByWork:
		return big.NewInt(x.billed.n[auditWork])
	case auditByGPU: // femto-seconds
		ms := new(big.Int).Mul(big.NewInt(x.billed.n[auditWork]), big.NewInt(max(x.gpus, 1)))
		if ms.Cmp(big.NewInt(auditMaxN)) > 0 {
			ms.SetInt64(auditMaxN)
		}
		return ms.Mul(ms, big.NewInt(1_000_000_000_000))
	}
	if x.billed.mask == 0 {
		return new(big.Int)
	}
	return big.NewInt(1)
}

func (o *auditOrg) addUsage(h *auditHold, x *auditResult, void bool) {
	key := auditKey{h.subject, h.at / auditBucket}
	u := o.usage[key]
	if u == nil {
		u = &auditUsage{}
		o.usage[key] = u
	}
	if void {
		u.voided++
		return
	}
	u.requests++
	for m := range u.counts {
		u.counts[m] += x.billed.n[m]
	}
	u.charge.Add(&u.charge, x.charge)
}
