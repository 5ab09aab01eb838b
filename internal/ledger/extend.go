package ledger

import (
	"context"
	"fmt"

	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// longer is an extension that is asked for.
type longer struct {
	hold *Hold
	more usage.Bounds
	cost amount
}

// Extend adds to what a hold holds: more bounds, and the money that they can cost. On return without an error it is
// durable. *Short says which limit has no room, and ctx's error that it was given up. Extensions go before holds that wait,
// the oldest request's first; one that only running requests are in the way of waits as holds do.
func (l *Ledger) Extend(ctx context.Context, h *Hold, more usage.Bounds, cost amount) error {
	if err := checkBounds(more); err != nil {
		return err
	}
	w := &waiter{more: &longer{h, more, cost}}
	a, err := l.extend(w)
	if err == nil && w.ready != nil {
		a, err = l.wait(ctx, w, l.opt.Wait)
	}
	if err != nil {
		return err
	}
	return l.await(a.group)
}

// extend decides an extension that has just come: made in a group, a place in a queue, or refused.
func (l *Ledger) extend(w *waiter) (answer, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return answer{}, err
	}
	a := l.decide(w, noTurn)
	switch {
	case a.err != nil || a.short == nil:
		return a, a.err
	case l.waits(w, a.short, l.opt.Wait):
		return answer{}, nil
	}
	return answer{}, a.short
}

// lengthen decides one extension and, if it fits everywhere, makes it in the pending group. The caller holds l.mu.
func (l *Ledger) lengthen(x *longer, t turn) (*Short, error) {
	h := x.hold
	if h.Status != usage.Held {
		return nil, fmt.Errorf("hold %d is %s: it cannot be extended", h.ID, h.Status)
	}
	was := quota.Need{Money: h.Record.Hold, Bounds: h.Bounds, Work: h.Subject.Work}
	will := quota.Need{Money: h.Record.Hold.Add(x.cost), Bounds: extended(h.Bounds, x.more), Work: h.Subject.Work}
	added := make([]touch, len(h.touched))
	var short *Short
	for i := range h.touched {
		b := h.touched[i].balance
		m := b.limit.Measure
		added[i] = touch{b, will.Of(m).Sub(was.Of(m))} // the need of the sum can be more than the sum of the needs
		if b.limit.removed || added[i].held.IsZero() {
			continue
		}
		// What the request holds itself is not in its own way: for what it asks more, it is as good as used.
		own := h.touched[i].held
		taken := quota.Balance{Used: b.Used.Add(own), Held: b.Held.Sub(own)}
		v := b.limit.Judge(taken, added[i].held)
		if v == quota.Fits && t == noTurn && len(b.waiters) > 0 && b.waiters[0].before(false, h.ID) {
			v = quota.Contended
		}
		if v > quota.Fits && (short == nil || v > short.Verdict) {
			short = b.short(v, added[i].held)
			short.Used, short.Held = taken.Used, taken.Held
		}
	}
	if short != nil {
		return short, nil
	}
	expected := h.unexpect()
	for i := range added {
		added[i].balance.Held = added[i].balance.Held.Add(added[i].held)
		h.touched[i].held = h.touched[i].held.Add(added[i].held)
		l.changed(added[i].balance)
	}
	h.extend(x.more, x.cost)
	h.expect(expected)
	b := l.begin(h.org, KindExtend, l.now(), h.ID)
	l.end(h.org, KindExtend, h.ID, appendExtend(b, x.more, x.cost, added))
	return nil, nil
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

// expected is what a running request is expected to ask for yet. It is kept free of later holds, so that those who began
// are not all cut for those who come; it is no hold, and is not in the log.
type expected struct {
	output int64    // in all
	rest   []amount // of each limit, beyond what is held
}

// expect keeps free what h is expected to ask for until it has so much output. The caller holds l.mu.
func (h *Hold) expect(output int64) {
	if output <= h.Bounds.Output {
		return
	}
	bounds := h.Bounds
	bounds.Output = output
	most, err := rating.Ceiling(bounds, h.Subject.Work, h.row, h.asked)
	if err != nil {
		return // what cannot be priced cannot be asked for
	}
	was := quota.Need{Money: h.Record.Hold, Bounds: h.Bounds, Work: h.Subject.Work}
	will := quota.Need{Money: most, Bounds: bounds, Work: h.Subject.Work}
	h.expected = &expected{output, make([]amount, len(h.touched))}
	for i := range h.touched {
		b := h.touched[i].balance
		h.expected.rest[i] = will.Of(b.limit.Measure).Sub(was.Of(b.limit.Measure))
		b.expected = b.expected.Add(h.expected.rest[i])
	}
}

// unexpect lets go of it, and returns how much output was expected in all. The caller holds l.mu.
func (h *Hold) unexpect() (output int64) {
	e := h.expected
	if e == nil {
		return 0
	}
	for i := range h.touched {
		b := h.touched[i].balance
		b.expected = b.expected.Sub(e.rest[i])
	}
	h.expected = nil
	return e.output
}
