package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// Ask is what a request wants held.
type Ask struct {
	usage.Admission              // ID, Subject, Bounds, …; At is set by the ledger
	Org             account.ID   // organisation: the shard's key
	Chain           []account.ID // nodes of the path, organisation first, the subject's account last; the same for one *Subject
	Row             *price.Row   // the price row, locked
	Money           amount       // ceiling of the charge under Row within Bounds, from Position on
	Position        rating.Position

	// Where not all of Bounds has room, Less says what would do. The zero value is all or nothing.
	Less Less
	// Expect is how much output is expected in all of a request that is to be extended: so much of every limit is kept free
	// of later requests while it runs. 0 for requests that never are.
	Expect int64
	// Waited is how much of Options.Wait the request has used up already, in an earlier try.
	Waited time.Duration
}

// Less is how small an output bound may be made for want of room. Bounds.Output is of all answers together, the numbers
// here are of one.
type Less struct {
	Answers int64 // how many answers share Bounds.Output: the bound of each is the same
	Least   int64 // the smallest bound that is worth asking for; 0 is all or nothing
	Most    int64 // what it takes at most where it cannot have all
	// Modest requests can be extended while they run. They take the whole only where that is a small part of what is left,
	// and less rather than wait for running ones: what they do not need yet is left to others.
	Modest bool
}

func (a *Ask) need() quota.Need {
	return quota.Need{Money: a.Money, Bounds: a.Bounds, Work: a.Subject.Work}
}

// check refuses what an entry cannot say. That is a bug of the caller, which must not become an entry that nobody can read.
func (a *Ask) check() error {
	last := len(a.Chain) - 1
	switch {
	case a.ID <= 0 || a.RetryOf < 0 || a.SDKRetry < 0 || a.ThinkTokens < 0 || a.Money.Sign() < 0:
		return fmt.Errorf("cannot hold for request %d: a number is negative", a.ID)
	case last < 0 || a.Org <= 0 || a.Chain[0] != a.Org || a.Chain[last] != a.Subject.Account:
		return fmt.Errorf("cannot hold for request %d: the path is not from the organisation to the account", a.ID)
	}
	if less := a.Less; less.Least < 0 || less.Least > 0 && less.Answers <= 0 || a.Expect < 0 || a.Expect > usage.MaxCount {
		return fmt.Errorf("cannot hold for request %d: it cannot be made less", a.ID)
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
	few      [3]touch        // backs touched on ordinary paths
	fewLines [4]usage.Line   // backs Lines on ordinary answers
	mark     usage.Counts    // last checkpoint
	counted  []*balance      // what the row's forms count; none on ordinary paths
	asked    rating.Position // where they stood when the ceiling was worked out
	expected *expected       // of a hold that is to be extended; nil for others
}

// Short says which limit a hold does not fit: the first on the path from the organisation down.
type Short struct {
	Verdict quota.Verdict // Contended or Exhausted
	Limit   quota.Limit
	Period  period.Period
	Used    amount
	Held    amount
	Need    amount
	// Degrade is the first of the exhausted limits that sends to a cheaper offering, nil where none does.
	Degrade *quota.Limit
	balance *balance
}

// Error implements error.
func (s *Short) Error() string {
	m := s.Limit.Measure
	return fmt.Sprintf("%s, %s %s: %s used + %s held + %s asked > %s %s", s.Limit.Path, s.Limit.Window, s.Period.Label,
		m.Format(s.Used), m.Format(s.Held), m.Format(s.Need), m.Format(s.Limit.Amount), m)
}

// Hold holds the most that a request can cost on every limit of its path, or on none. On return without an error the
// hold is durable, and ask says what is held: less than was asked where ask.Less allows it and there is no room for all. It
// answers *Short when a limit is in the way (Contended only after Options.Wait), ErrUnavailable when nothing can be made
// durable, *Repeat when the request's idempotency key is taken, and ctx's error when the caller has gone while it waited. It
// sets RetryOf where an earlier request under the same key was not charged.
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
	if err != nil && ask.Idempotency != "" && !errors.Is(err, errLate) {
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
		a, err := l.wait(ctx, w, l.opt.Wait-ask.Waited)
		if err != nil {
			return nil, err
		}
		h, g = a.hold, a.group
	}
	if err := l.awaitHold(h, g); err != nil {
		return nil, err
	}
	return h, nil
}

// admit decides a hold that has just come: granted in a group, a place in a queue, or refused.
func (l *Ledger) admit(ask *Ask) (*Hold, *waiter, *group, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return nil, nil, nil, err
	}
	if l.organisation(ask.Org).open[ask.ID] != nil {
		return nil, nil, nil, fmt.Errorf("request id %d has a hold already", ask.ID)
	}
	h, short := l.try(ask, noTurn)
	if short == nil {
		return h, nil, l.pending, nil
	}
	if w := (&waiter{ask: ask}); l.waits(w, short, l.opt.Wait-ask.Waited) {
		return nil, w, nil, nil
	}
	return nil, nil, nil, short
}

// try decides one hold and, if it fits everywhere, grants it in the pending group. Unless it is its turn, a hold also
// stands behind those who wait for the same balance and came before it. The caller holds l.mu.
func (l *Ledger) try(ask *Ask, turn turn) (*Hold, *Short) {
	at := l.now()
	h := &Hold{org: l.organisation(ask.Org)}
	if len(ask.Row.Forms) > 0 {
		l.turned(ask, at)
	}
	if short := l.fit(h, ask, at, turn, false); short != nil {
		return nil, short
	}
	l.grant(h, ask, at)
	return h, nil
}

// Fits says what Hold would say of an ask at once: nil where it would grant it, and then ask says how much. Nothing is held or
// written.
func (l *Ledger) Fits(ask *Ask) *Short {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[ask.Org]
	if o == nil {
		return nil
	}
	return l.fit(&Hold{org: o}, ask, l.now(), noTurn, true)
}

// fit decides one hold on every limit of its path, and collects those. To look only opens no period. The caller holds l.mu.
func (l *Ledger) fit(h *Hold, ask *Ask, at time.Time, turn turn, look bool) *Short {
	o := h.org
	h.touched = h.few[:0]
	need := ask.need()
	var short *Short
	var degrade *limit
	pins := false
	for i := range len(ask.Chain) + 1 {
		for _, lim := range o.limitsAt(ask, i) {
			if lim.removed || !lim.Covers(ask.Subject, ask.TierAsked) || lim.Key != "" && !slices.Contains(ask.Chain, lim.Account) {
				continue
			}
			b := l.against(o, lim, at, look)
			asked := need.Of(lim.Measure)
			h.touched = append(h.touched, touch{b, asked})
			pins = pins || ask.Less.Modest && b.pins(asked)
			verdict := b.judge(ask, asked, turn)
			if verdict > quota.Fits && (short == nil || verdict > short.Verdict) {
				short = b.short(verdict, asked)
			}
			if verdict == quota.Exhausted && degrade == nil && lim.Action == quota.Degrade && lim.DegradeTo != ask.Subject.Model {
				degrade = lim
			}
		}
	}
	if degrade != nil { // rather whole with another offering than less with this one
		by := degrade.Limit
		short.Degrade = &by
		return short
	}
	if less := &ask.Less; less.Least > 0 && (pins || short != nil && (short.Verdict == quota.Exhausted || less.Modest || turn == lastTurn)) {
		short = l.less(h, ask, turn)
	}
	return short
}

// against is the balance of a limit, an empty one where its period has not been opened and is only looked at.
func (l *Ledger) against(o *org, lim *limit, at time.Time, look bool) *balance {
	if !look {
		return l.balance(o, lim, at)
	}
	if b := o.peek(lim, at); b != nil {
		return b
	}
	return &balance{limit: lim, period: &span{Period: lim.periodOf(at)}}
}

// judge decides one hold that has just come, or whose turn it is, against one limit.
func (b *balance) judge(ask *Ask, asked amount, turn turn) quota.Verdict {
	taken := b.Balance
	taken.Held = taken.Held.Add(b.expected)
	verdict := b.limit.Judge(taken, asked)
	if verdict == quota.Fits && turn == noTurn && len(b.waiters) > 0 && b.waiters[0].before(true, ask.ID) {
		return quota.Contended
	}
	return verdict
}

// limitsAt returns the limits of the i-th node of the path, and behind its end those of the key.
func (o *org) limitsAt(ask *Ask, i int) []*limit {
	switch {
	case i < len(ask.Chain):
		return o.limitsOf[ask.Chain[i]]
	case len(o.keyLimits) == 0:
		return nil
	}
	return o.keyLimits[ask.Subject.Key]
}

// smallPart is how many times what a modest request takes must be left.
const smallPart = 8

// pins reports whether a hold is more than a small part of what is left.
func (b *balance) pins(asked amount) bool {
	switch m := b.limit.Measure; {
	case b.limit.Action == quota.AlertOnly, m != quota.Money && m != quota.OutputTokens && m != quota.Tokens:
		return false // it would not need less of it with a smaller bound, or needs no room
	}
	left := b.limit.Amount.Sub(b.Used).Sub(b.Held)
	for range smallPart {
		left = left.Sub(asked)
	}
	return left.Sign() < 0
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
	if len(h.row.Forms) > 0 {
		h.counted, h.asked = l.count(o, ask.Subject, h.row, at), ask.Position
		for _, c := range h.counted {
			l.changed(c)
		}
	}
	b := l.begin(o, KindHold, at, h.ID)
	l.end(o, KindHold, h.ID, appendHold(b, h))
	if h.Idempotency != "" {
		l.pending.Entries[len(l.pending.Entries)-1].Idempotency = h.Idempotency
	}
	h.seq = o.seq
	if ask.Expect > h.Bounds.Output {
		h.expect(ask.Expect)
	}
	o.open[h.ID] = h
	o.queue = append(o.queue, pin{h.seq, h.ID})
}

// Checkpoint notes what a running request has used so far. It does not wait: it is durable with the next group.
func (l *Ledger) Checkpoint(h *Hold, c usage.Counts, s usage.Source) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed == nil && l.full == nil && h.Status == usage.Held {
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
	anchor period.Anchor
	zone   string
	period.Period
}

// of reports whether it is a period of a limit's calendar.
func (p *span) of(lim *limit) bool {
	return p.window == lim.Window && p.anchor == lim.Anchor && p.zone == lim.Zone
}

func (p *span) contains(at time.Time) bool {
	return !at.Before(p.Start) && (p.End.IsZero() || at.Before(p.End))
}

// span finds the compiled period that contains at, or compiles and writes it. The caller holds l.mu.
func (l *Ledger) span(o *org, lim *limit, at time.Time) *span {
	for i := len(o.spans) - 1; i >= 0; i-- {
		if p := o.spans[i]; p.of(lim) && p.contains(at) {
			return p
		}
	}
	p := &span{num: int64(len(o.spans)) + 1, window: lim.Window, anchor: lim.Anchor, zone: lim.Zone, Period: lim.periodOf(at)}
	o.clip(p, at)
	o.spans = append(o.spans, p)
	b := l.begin(o, KindPeriod, at, 0)
	l.end(o, KindPeriod, 0, appendPeriod(b, p))
	return p
}

// periodOf compiles the period that contains at.
func (lim *limit) periodOf(at time.Time) period.Period {
	return period.Anchored(lim.Window, lim.Anchor, lim.zone, at)
}

// clip keeps a new period off those that an older table of time zones compiled, so that no instant is in two and nothing
// is allowed twice.
func (o *org) clip(p *span, at time.Time) {
	for _, q := range o.spans {
		if q.window != p.window || q.anchor != p.anchor || q.zone != p.zone {
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
