package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// ErrSettled says that a hold was settled before: nothing was posted a second time.
var ErrSettled = errors.New("hold is already settled")

func appendUint(b []byte, n int64) []byte { return binary.AppendUvarint(b, uint64(n)) }

func errorsJoin(sentinel, cause error) error { return fmt.Errorf("%w: %w", sentinel, cause) }

// Settle posts what a request used, by the tariff rule of its outcome and at the rates locked with its hold, never more
// than was held, and releases the rest. On return without an error it is durable; only then may the end of the answer be
// sent. The record is complete and read-only from then on. It must be called exactly once for every hold, whatever
// happened; a second call posts nothing and answers ErrSettled.
func (l *Ledger) Settle(h *Hold, r *usage.Result) (*usage.Record, error) {
	g, err := l.finish(h, r)
	if err == nil {
		err = l.await(g)
	}
	if err != nil {
		return nil, err
	}
	if h.Idempotency != "" {
		l.unclaim(h.org.id, h.Idempotency)
	}
	return &h.Record, nil
}

func (l *Ledger) finish(h *Hold, r *usage.Result) (*group, error) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed != nil {
		return nil, l.unavailable()
	}
	if h.Status != usage.Held {
		return nil, ErrSettled
	}
	l.post(h, r)
	return l.pending, nil
}

// Void releases a hold at which nothing is owed: no engine was asked, or none answered.
func (l *Ledger) Void(h *Hold, r *usage.Result) (*usage.Record, error) {
	if r.Outcome != usage.Unserved && r.Outcome != usage.EngineSaid {
		return nil, fmt.Errorf("outcome %s cannot be voided: it may owe something", r.Outcome)
	}
	return l.Settle(h, r)
}

// post rates and posts a hold in the pending group. The caller holds l.mu.
func (l *Ledger) post(h *Hold, r *usage.Result) {
	o := h.org
	h.Result = *r
	h.Result.At = l.now()
	notNegative(&h.Result)
	h.Billed = l.billed(h)
	rated := h.Billed
	if !h.row.Has[usage.WorkMS] {
		rated.Set(usage.WorkMS, 0) // its tokens are what is charged for
	}
	lines, charge, err := rating.Rate(h.fewLines[:0], &rated, h.row, positionOf(h.row, h.counted))
	if err != nil || charge.Cmp(h.Record.Hold) > 0 {
		// Neither can happen while Bounds, Ceiling and Rate agree. Fail shut: bill nothing and say so on the record.
		h.Billed, lines, charge = usage.Counts{}, nil, amount{}
		h.Flags |= usage.FlagNotRated
	}
	h.Lines, h.Charge = lines, charge
	kind := KindSettle
	h.Status = usage.Posted
	if h.Billed.Empty() {
		kind, h.Status = KindVoid, usage.Void
	}
	if len(h.counted) > 0 {
		h.advance()
		for _, c := range h.counted {
			l.changed(c)
		}
	}
	h.unexpect()
	for i := range h.touched {
		t := &h.touched[i]
		t.balance.Held = t.balance.Held.Sub(t.held)
		t.balance.Used = t.balance.Used.Add(quota.Spent(t.balance.limit.Measure, &h.Billed, charge, h.GPUCount))
		l.changed(t.balance)
	}
	b := l.begin(o, kind, h.Result.At, h.ID)
	l.end(o, kind, h.ID, appendResult(b, &h.Record))
	for i := range h.touched {
		l.reached(o, h.touched[i].balance, h.Result.At, h.ID)
	}
	l.pending.count(o, h)
	delete(o.open, h.ID)
	for i := range h.touched {
		l.serve(h.touched[i].balance)
	}
}

// notNegative makes 0 of what a clock that stepped back has measured: an entry has no negative numbers.
func notNegative(r *usage.Result) {
	for _, n := range resultNumbers(r) {
		*n = max(0, *n)
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		a.Status, a.Micros = max(0, a.Status), max(0, a.Micros)
	}
}

// billed applies the tariff rule and the hold to what was metered.
func (l *Ledger) billed(h *Hold) usage.Counts {
	c := h.Counts
	rule := usage.ChargeGenerated
	switch h.Outcome {
	case usage.Completed, usage.Cut:
	case usage.ClientGone, usage.Revoked:
		rule = h.OnDisconnect
	case usage.Broken:
		rule = h.OnFault
	default: // Unserved, EngineSaid, Open: nothing was made for the client
		rule = usage.ChargeNothing
	}
	switch rule {
	case usage.ChargeNothing:
		return usage.Counts{}
	case usage.ChargeDelivered:
		if h.Delivered == 0 { // nothing came of it: its input is not owed either
			return usage.Counts{}
		}
		clamp(&c, outputLeaves, h.Delivered)
	}
	if c.Empty() {
		return c
	}
	in, joint := h.Bounds.Input, h.Bounds.Joint
	if joint > 0 {
		in = min(in, joint)
	}
	over := clamp(&c, inputLeaves, in)
	l.leaked.Input += over
	overOut := clamp(&c, outputLeaves, h.Bounds.Output)
	if joint > 0 {
		overOut += clamp(&c, outputLeaves, joint-c.Input())
	}
	l.leaked.Output += overOut
	if over+overOut > 0 {
		h.Flags |= usage.FlagOverBound
	}
	c.Set(usage.Requests, 1)
	if work := h.Subject.Work; work.Known() {
		c.Set(usage.WorkMS, work.Of(&c))
	}
	return c
}

// The leaves of each side, in the order in which an excess is taken off them.
var (
	inputLeaves  = []usage.Meter{usage.InputUncached, usage.InputCacheWrite, usage.InputCacheRead}
	outputLeaves = []usage.Meter{usage.OutputContent, usage.OutputReasoning}
)

// clamp takes from the leaves what is above most, and returns how much that was.
func clamp(c *usage.Counts, leaves []usage.Meter, most int64) (over int64) {
	sum := int64(0)
	for _, m := range leaves {
		sum += c.Get(m)
	}
	over = max(0, sum-most)
	rest := over
	for _, m := range leaves {
		if take := min(rest, c.Get(m)); take > 0 {
			c.Set(m, c.Get(m)-take)
			rest -= take
		}
	}
	return over
}

// Refuse keeps a "no" that was said after authentication, for `why`. It waits for nothing; memory and disk are bounded:
// the newest refusalSlots are kept, and a flood beyond a group's share is only counted by the caller's metrics.
func (l *Ledger) Refuse(id usage.ID, body []byte) {
	l.mu.Lock()
	defer l.unlock()
	if l.failed == nil && l.full == nil && len(l.pending.Refusals) < refusalsPerGroup {
		l.pending.Refusals = append(l.pending.Refusals, RefusalRow{Slot: l.refusals % refusalSlots, Request: id, Body: slices.Clone(body)})
		l.refusals++
		l.kick()
	}
}

const (
	refusalSlots     = 1 << 16
	refusalsPerGroup = 64
)
