package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

// maxWaiting bounds the holds that wait for others, over all organisations: beyond it a contended hold is refused at once.
const maxWaiting = 4096

// Ask is what a request wants held.
type Ask struct {
	usage.Admission              // ID, Subject, Bounds, …; At is set by the ledger
	Org             account.ID   // organisation: the shard's key
	Chain           []account.ID // nodes of the path, organisation first, the subject's account last; the same for one *Subject
	Row             *price.Row   // the price row, locked
	Money           amount       // ceiling of the charge under Row within Bounds
}

func (a *Ask) need() quota.Need { return quota.Need{Money: a.Money, Bounds: a.Bounds} }

// check refuses what an entry cannot say. That is a bug of the caller, which must not become an entry that nobody can read.
func (a *Ask) check() error {
	last := len(a.Chain) - 1
	switch {
	case a.ID <= 0 || a.RetryOf < 0 || a.SDKRetry < 0 || a.ThinkTokens < 0 || a.Money.Sign() < 0:
		return fmt.Errorf("cannot hold for request %d: a number is negative", a.ID)
	case last < 0 || a.Org <= 0 || a.Chain[0] != a.Org || a.Chain[last] != a.Subject.Account:
		return fmt.Errorf("cannot hold for request %d: the path is not from the organisation to the account", a.ID)
	}
	return checkBounds(a.Bounds)
}

func checkBounds(b usage.Bounds) error {
	for _, n := range [...]int64{b.Input, b.Output, b.Joint} {
		if n < 0 || n > usage.MaxCount {
			return fmt.Errorf("cannot hold %d tokens: not from 0 to 10^15", n)
		}
	}
	return nil
}

// Hold is a granted hold. Its record belongs to whoever holds it until Settle or Void; then it is read-only.
type Hold struct {
	usage.Record
	org      *org
	seq      int64
	subject  int64
	rowNum   int64
	row      *price.Row
	touched  []touch
	few      [3]touch      // backs touched on ordinary paths
	fewLines [4]usage.Line // backs Lines on ordinary answers
	mark     usage.Counts  // last checkpoint
}

// Short says which limit a hold does not fit: the first on the path from the organisation down.
type Short struct {
	Verdict quota.Verdict // Contended or Exhausted
	Limit   quota.Limit
	Period  period.Period
	Used    amount
	Held    amount
	Need    amount
	balance *balance
}

// Error implements error.
func (s *Short) Error() string {
	m := s.Limit.Measure
	return fmt.Sprintf("%s, %s %s: %s used + %s held + %s asked > %s %s", s.Limit.Path, s.Limit.Window, s.Period.Label,
		m.Format(s.Used), m.Format(s.Held), m.Format(s.Need), m.Format(s.Limit.Amount), m)
}

// waiter is a hold that would fit but for running requests.
type waiter struct {
	ask   *Ask
	hold  *Hold
	group *group
	short *Short
	queue *balance      // where it waits; nil once it is answered
	ready chan struct{} // closed when answered
}

// Hold holds the most that a request can cost on every limit of its path, or on none. On return without an error the
// hold is durable. It answers *Short when a limit is in the way (Contended only after Options.Wait), ErrUnavailable when
// nothing can be made durable, *Repeat when the request's idempotency key is taken, and ctx's error when the caller has gone
// while it waited. It sets RetryOf where an earlier request under the same key was not charged.
func (l *Ledger) Hold(ctx context.Context, ask *Ask) (*Hold, error) {
	if err := ask.check(); err != nil {
		return nil, err
	}
	if ask.Idempotency != "" {
		if err := l.claim(ask); err != nil {
			return nil, err
		}
	}
	h, err := l.hold(ctx, ask)
	if err != nil && ask.Idempotency != "" {
		l.unclaim(ask.Org, ask.Idempotency)
	}
	return h, err
}

// hold is Hold for a request whose idempotency key is its own.
func (l *Ledger) hold(ctx context.Context, ask *Ask) (*Hold, error) {
	h, w, g, err := l.admit(ask)
	if err != nil {
		return nil, err
	}
	if w != nil {
		if h, g, err = l.wait(ctx, w); err != nil {
			return nil, err
		}
	}
	if err := l.await(g); err != nil {
		return nil, err
	}
	return h, nil
}

// admit decides a hold that has just come: granted in a group, a place in a queue, or refused.
func (l *Ledger) admit(ask *Ask) (*Hold, *waiter, *group, error) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed != nil {
		return nil, nil, nil, l.unavailable()
	}
	o := l.organisation(ask.Org)
	if o.open[ask.ID] != nil {
		return nil, nil, nil, fmt.Errorf("request id %d has a hold already", ask.ID)
	}
	h, short := l.try(o, ask, false)
	if short == nil {
		return h, nil, l.pending, nil
	}
	if short.Verdict == quota.Exhausted || l.opt.Wait <= 0 || l.waiting >= maxWaiting {
		return nil, nil, nil, short
	}
	w := &waiter{ask: ask, queue: short.balance, ready: make(chan struct{})}
	short.balance.waiters = append(short.balance.waiters, w)
	l.waiting++
	return nil, w, nil, nil
}

// wait waits in the queue of a contended balance.
func (l *Ledger) wait(ctx context.Context, w *waiter) (*Hold, *group, error) {
	timer := time.NewTimer(l.opt.Wait)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.unlock()
	if b := w.queue; b != nil { // nobody has answered: leave the queue, and let those behind have a look
		b.waiters = slices.DeleteFunc(b.waiters, func(x *waiter) bool { return x == w })
		w.queue = nil
		l.waiting--
		l.serve(b)
		switch {
		case l.failed != nil:
			return nil, nil, l.unavailable()
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		}
		w.hold, w.short = l.try(l.organisation(w.ask.Org), w.ask, true)
		w.group = l.pending
	}
	if w.short != nil {
		return nil, nil, w.short
	}
	return w.hold, w.group, nil
}

// serve answers those who wait for a balance, in order, until the first who must go on waiting. The caller holds l.mu.
func (l *Ledger) serve(b *balance) {
	for len(b.waiters) > 0 && l.failed == nil {
		w := b.waiters[0]
		h, short := l.try(l.organisation(w.ask.Org), w.ask, true)
		if short != nil && short.Verdict == quota.Contended {
			if short.balance == b {
				return
			}
			b.waiters = b.waiters[1:]
			w.queue = short.balance
			short.balance.waiters = append(short.balance.waiters, w)
			continue
		}
		b.waiters = b.waiters[1:]
		l.waiting--
		w.hold, w.short, w.group, w.queue = h, short, l.pending, nil
		close(w.ready)
	}
}

// try decides one hold and, if it fits everywhere, grants it in the pending group. Unless it is its turn, a hold also
// stands behind those who wait for the same balance. The caller holds l.mu.
func (l *Ledger) try(o *org, ask *Ask, turn bool) (*Hold, *Short) {
	at := l.now()
	h := &Hold{org: o}
	h.touched = h.few[:0]
	need := ask.need()
	var contended *Short
	for _, node := range ask.Chain {
		for _, lim := range o.limitsOf[node] {
			if lim.removed || !lim.Covers(ask.Subject.Model, ask.Subject.SizeClass) {
				continue
			}
			b := l.balance(o, lim, at)
			asked := need.Of(lim.Measure)
			verdict := quota.Judge(lim.Amount, b.Balance, asked)
			if verdict == quota.Fits && !turn && len(b.waiters) > 0 {
				verdict = quota.Contended
			}
			if verdict == quota.Exhausted {
				return nil, b.short(verdict, asked)
			}
			if verdict == quota.Contended && contended == nil {
				contended = b.short(verdict, asked)
			}
			h.touched = append(h.touched, touch{b, asked})
		}
	}
	if contended != nil {
		return nil, contended
	}
	l.grant(h, ask, at)
	return h, nil
}

func (b *balance) short(v quota.Verdict, need amount) *Short {
	return &Short{Verdict: v, Limit: b.limit.Limit, Period: b.period.Period, Used: b.Used, Held: b.Held, Need: need, balance: b}
}

// grant writes the hold. The caller holds l.mu and has judged every balance.
func (l *Ledger) grant(h *Hold, ask *Ask, at time.Time) {
	o := h.org
	h.Admission = ask.Admission
	h.Admission.At = at
	h.Admission.PriceRow, h.Admission.Multiplier = ask.Row.ID, ask.Row.Multiplier
	h.Status, h.row, h.Record.Hold = usage.Held, ask.Row, ask.Money
	h.subject, h.rowNum = l.subject(o, at, ask.Subject, ask.Chain), l.rowNumber(o, at, ask.Row)
	for i := range h.touched {
		t := &h.touched[i]
		t.balance.Held = t.balance.Held.Add(t.held)
		l.changed(t.balance)
	}
	b := l.begin(o, KindHold, at, h.ID)
	l.end(o, KindHold, h.ID, appendHold(b, h))
	if h.Idempotency != "" {
		l.pending.Entries[len(l.pending.Entries)-1].Idempotency = h.Idempotency
	}
	h.seq = o.seq
	o.open[h.ID] = h
	o.queue = append(o.queue, pin{h.seq, h.ID})
}

// Extend adds to what a hold holds: more bounds, and the money that they can cost. On return without an error it is
// durable; *Short says which limit has no room (extensions do not wait and go before admissions).
func (l *Ledger) Extend(h *Hold, more usage.Bounds, cost amount) error {
	if err := checkBounds(more); err != nil {
		return err
	}
	g, err := l.lengthen(h, more, cost)
	if err != nil {
		return err
	}
	return l.await(g)
}

func (l *Ledger) lengthen(h *Hold, more usage.Bounds, cost amount) (*group, error) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed != nil {
		return nil, l.unavailable()
	}
	if h.Status != usage.Held {
		return nil, fmt.Errorf("hold %d is %s: it cannot be extended", h.ID, h.Status)
	}
	at := l.now()
	was := quota.Need{Money: h.Record.Hold, Bounds: h.Bounds}
	will := quota.Need{Money: h.Record.Hold.Add(cost), Bounds: extended(h.Bounds, more)}
	added := make([]touch, len(h.touched))
	for i := range h.touched {
		b := h.touched[i].balance
		m := b.limit.Measure
		added[i] = touch{b, will.Of(m).Sub(was.Of(m))} // the need of the sum can be more than the sum of the needs
		if b.limit.removed || added[i].held.IsZero() {
			continue
		}
		if v := quota.Judge(b.limit.Amount, b.Balance, added[i].held); v != quota.Fits {
			return nil, b.short(v, added[i].held)
		}
	}
	for i := range added {
		added[i].balance.Held = added[i].balance.Held.Add(added[i].held)
		h.touched[i].held = h.touched[i].held.Add(added[i].held)
		l.changed(added[i].balance)
	}
	h.extend(more, cost)
	b := l.begin(h.org, KindExtend, at, h.ID)
	l.end(h.org, KindExtend, h.ID, appendExtend(b, more, cost, added))
	return l.pending, nil
}

func (h *Hold) extend(more usage.Bounds, cost amount) {
	h.Bounds = extended(h.Bounds, more)
	h.Record.Hold = h.Record.Hold.Add(cost)
}

// extended adds bounds. Where there is no joint bound none arises.
func extended(b, more usage.Bounds) usage.Bounds {
	b.Input += more.Input
	b.Output += more.Output
	if b.Joint > 0 {
		b.Joint += more.Joint
	}
	return b
}

// Checkpoint notes what a running request has used so far. It does not wait: it is durable with the next group.
func (l *Ledger) Checkpoint(h *Hold, c usage.Counts, s usage.Source) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed == nil && h.Status == usage.Held {
		h.mark = c
		b := l.begin(h.org, KindCheckpoint, l.now(), h.ID)
		l.end(h.org, KindCheckpoint, h.ID, appendCheckpoint(b, &c, s))
		l.kick()
	}
}

// balance returns what stands against a limit in the period that contains at. The caller holds l.mu.
func (l *Ledger) balance(o *org, lim *limit, at time.Time) *balance {
	if b := lim.current; b != nil && b.period.contains(at) {
		return b
	}
	p := l.span(o, lim, at)
	key := balanceKey{lim.num, p.num}
	b := o.balances[key]
	if b == nil {
		b = &balance{limit: lim, period: p}
		o.balances[key] = b
	}
	lim.current = b
	return b
}

// span is a budget period as it was compiled when it was first used: a later table of time zones does not move it.
type span struct {
	num    int64
	window period.Window
	zone   string
	period.Period
}

func (p *span) contains(at time.Time) bool {
	return !at.Before(p.Start) && (p.End.IsZero() || at.Before(p.End))
}

// span finds the compiled period that contains at, or compiles and writes it. The caller holds l.mu.
func (l *Ledger) span(o *org, lim *limit, at time.Time) *span {
	for i := len(o.spans) - 1; i >= 0; i-- {
		if p := o.spans[i]; p.window == lim.Window && p.zone == lim.Zone && p.contains(at) {
			return p
		}
	}
	p := &span{num: int64(len(o.spans)) + 1, window: lim.Window, zone: lim.Zone, Period: period.Of(lim.Window, lim.zone, at)}
	o.clip(p, at)
	o.spans = append(o.spans, p)
	b := l.begin(o, KindPeriod, at, 0)
	l.end(o, KindPeriod, 0, appendPeriod(b, p))
	return p
}

// clip keeps a new period off those that an older table of time zones compiled, so that no instant is in two and nothing
// is allowed twice.
func (o *org) clip(p *span, at time.Time) {
	for _, q := range o.spans {
		if q.window != p.window || q.zone != p.zone {
			continue
		}
		if !q.End.After(at) && q.End.After(p.Start) {
			p.Start = q.End
		}
		if q.Start.After(at) && q.Start.Before(p.End) {
			p.End = q.Start
		}
	}
}

// subject returns the number of a subject, defining it at first sight. The caller holds l.mu.
func (l *Ledger) subject(o *org, at time.Time, s *usage.Subject, chain []account.ID) int64 {
	if n := o.subjectCache[s]; n != 0 {
		return n
	}
	text := string(appendSubject(nil, s, chain))
	n := o.subjectNum[text]
	if n == 0 {
		o.subjects = append(o.subjects, s)
		n = int64(len(o.subjects))
		o.subjectNum[text] = n
		b := l.begin(o, KindSubject, at, 0)
		l.end(o, KindSubject, 0, appendSubject(appendUint(b, n), s, chain))
	}
	remember(o.subjectCache, s, n)
	return n
}

// rowNumber does for price rows what subject does for subjects.
func (l *Ledger) rowNumber(o *org, at time.Time, r *price.Row) int64 {
	if n := o.rowCache[r]; n != 0 {
		return n
	}
	text := string(appendRow(nil, r))
	n := o.rowNum[text]
	if n == 0 {
		o.rows = append(o.rows, r)
		n = int64(len(o.rows))
		o.rowNum[text] = n
		b := l.begin(o, KindRow, at, 0)
		l.end(o, KindRow, 0, appendRow(appendUint(b, n), r))
	}
	remember(o.rowCache, r, n)
	return n
}

// remember keeps a cache by address from growing: a new snapshot of the world brings new addresses.
func remember[T any](cache map[*T]int64, p *T, n int64) {
	if len(cache) >= 1<<16 {
		clear(cache)
	}
	cache[p] = n
}
