package gateway

import (
	"crypto/sha256"
	"errors"
	"time"

	"talea/internal/engine"
	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/usage"
)

// maxTries bounds how often a hold is tried: each time it asks for less than the time before.
const maxTries = 4

// holdIt makes the hold: durable on every limit of the path, or on none. Where a limit is short it is tried again for less,
// if less will do.
func (x *exchange) holdIt() error {
	x.asks()
	a := &x.ask
	x.wanted, x.inputBound = x.bounds.Output, x.bounds.Input
	err := x.tryHolds((*exchange).tryHold)
	var repeat *ledger.Repeat
	if errors.As(err, &repeat) {
		x.g.paces.give(x.key.Account, x.taken)
	}
	if err == nil {
		x.bounds, x.money, x.position = a.Bounds, a.Money, a.Position
	}
	return err
}

func (x *exchange) tryHold() (err error) {
	x.hold, err = x.g.Ledger.Hold(x.ctx, &x.ask)
	return err
}

// tryHolds tries what was asked for, and for less as long as a limit is short and less will do.
func (x *exchange) tryHolds(hold func(*exchange) error) error {
	a := &x.ask
	x.sharpened, x.counted = false, false
	if x.bounds.Output > 0 && x.req.maxOutput == 0 {
		x.unbounded()
	}
	for try := 1; ; try++ {
		began := time.Now()
		err := hold(x)
		var short *ledger.Short
		if err == nil || !errors.As(err, &short) || try == maxTries || short.Degrade != nil || !x.less(short) {
			return err
		}
		a.Waited += time.Since(began)
	}
}

// answers is how many answers share the output bound.
func (x *exchange) answers() int64 { return max(1, x.req.shape.Choices*x.req.shape.Prompts) }

// unbounded says how little would do for a request that named no maximum: the model's default is our word, not the client's.
func (x *exchange) unbounded() {
	a, n := &x.ask, x.answers()
	usual := x.g.experience(x.offer.Model.Name).usual()
	least := usual
	if least == 0 {
		least = unknownLength
	}
	least = min(least, x.bounds.Output/n)
	a.Less = ledger.Less{Answers: n, Least: least, Most: 2 * least}
	if x.rolls() {
		a.Less.Modest, a.Expect = true, usual*n
	}
}

// unknownLength is what the answers of a model are taken to need, in tokens, while there were none.
const unknownLength = 256

// less asks for less after a limit was short. It reports whether anything has changed.
func (x *exchange) less(short *ledger.Short) bool {
	a := &x.ask
	if short.Verdict == quota.Exhausted && x.sharpen(short) {
		return true
	}
	was := a.Less
	switch {
	case x.bounds.Output == 0:
	case x.key.Account.Clamp:
		n := x.answers()
		a.Less = ledger.Less{Answers: n, Least: engine.LeastOutput, Most: x.bounds.Output / n}
	case x.req.maxOutput == 0:
		x.unbounded() // shorter answers may have come meanwhile
	}
	return a.Less != was
}

// asks fills in what the ledger is asked for.
func (x *exchange) asks() {
	a := &x.ask
	h := x.r.Header
	*a = ledger.Ask{Org: x.offer.Subject.Organisation, Chain: x.key.Account.IDs, Row: x.row, Money: x.money, Position: x.position}
	a.Admission = usage.Admission{
		ID: x.id, Subject: x.offer.Subject, Endpoint: x.ep.name, Stream: x.req.stream,
		TierAsked: x.req.tier, Effort: x.req.effort, ThinkTokens: x.req.thinkTokens, Bounds: x.bounds,
		OnDisconnect: x.offer.Book.OnDisconnect, OnFault: x.offer.Book.OnFault,
	}
	if x.req.user != "" {
		a.Principal = x.g.Hasher.Pseudonym("user", x.offer.Subject.Organisation, x.req.user)
	}
	if key := h.Get("Idempotency-Key"); key != "" {
		a.Idempotency = x.g.Hasher.Pseudonym("idempotency", x.key.Account.ID, key)
		body := sha256.Sum256(x.body)
		a.BodyHash = x.g.Hasher.Pseudonym("body of "+x.ep.name, x.key.Account.ID, string(body[:]))
	}
	if n := h.Get("X-Stainless-Retry-Count"); n != "" {
		x.retried(n)
	}
}
