package gateway

import (
	"context"
	"errors"

	"talea/internal/engine"
	"talea/internal/ledger"
	"talea/internal/meter"
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
)

// A stream that names no maximum is held by and by: at first for the model's default, and for more before that is used up.
// Its engine is allowed the model's maximum; what cuts the stream is its hold. That is sound only where the engine tells
// with each chunk how much it has made, and has been seen to tell the truth: any other is allowed no more than is held.

// proved notes after a stream whether its engine's running usage can be relied on.
func (b *backend) proved(s *meter.Stream) {
	if b.dialect.Running == engine.OptionRunning || b.dialect.Running == engine.TimingsRunning {
		b.tells.Store(s.RunningTrue())
	}
}

// mayRoll reports whether a request is held by and by, if the engine that answers it can be relied on.
func (x *exchange) mayRoll() bool {
	return x.req.stream && x.req.maxOutput == 0 && x.bounds.Output > 0
}

// rolls reports whether some engine of the offering can be relied on.
func (x *exchange) rolls() bool {
	all := *x.g.fleet.backends.Load()
	for _, e := range x.offer.Engines {
		if b := all[e.Name]; b != nil && b.tells.Load() {
			return x.mayRoll()
		}
	}
	return false
}

// allowed is the output bound that an engine is given, for all answers together.
func (x *exchange) allowed(b *backend) int64 {
	if x.mayRoll() && b.tells.Load() {
		return max(x.bounds.Output, x.offer.Model.MaxOutputTokens*x.answers())
	}
	return x.bounds.Output
}

// rolling relays a stream whose hold is extended while it runs.
type rolling struct {
	*meter.Stream
	x      *exchange
	most   int64 // output that the engine is allowed
	window int64 // of an extension, at most
	ctx    context.Context
	cancel context.CancelFunc
	asked  chan int64 // how much more is held, 0 for nothing; nil while nothing is asked
	over   bool       // an extension was refused: there will be no other
	out    []byte
}

// newRolling makes a feeder of a stream that may be extended. stop must be called at its end.
func (x *exchange) newRolling(s *meter.Stream) *rolling {
	r := &rolling{Stream: s, x: x, most: x.forwarded, window: x.offer.Model.DefaultMaxOutputTokens * x.answers()}
	r.ctx, r.cancel = context.WithCancel(x.ctx)
	return r
}

// Feed implements feeder. An extension is asked for when half of what was held last is used up, so that it is there before
// it is needed; where the stream is faster, it waits here.
func (r *rolling) Feed(in []byte) ([]byte, meter.Event, error) {
	out, ev, err := r.Stream.Feed(in)
	if ev == meter.OverBound {
		r.out = append(r.out[:0], out...)
		for ev == meter.OverBound && r.extended() {
			out, ev, err = r.Stream.Feed(nil)
			r.out = append(r.out, out...)
		}
		out = r.out
	}
	select {
	case more := <-r.asked:
		r.take(more)
	default:
	}
	if held := r.x.bounds.Output; ev == meter.None && r.Seen() >= held-r.next()/2 {
		r.ask()
	}
	return out, ev, err
}

// next is how much the next extension asks for: a hold is never more than twice what the stream has needed of it.
func (r *rolling) next() int64 {
	held := r.x.bounds.Output
	return min(r.window, held, r.most-held)
}

// ask asks for an extension, unless one has been asked for or none will be had.
func (r *rolling) ask() {
	more := r.next()
	if r.asked != nil || r.over || more <= 0 {
		return
	}
	if r.Report().Source != usage.EngineRunning { // it tells less than it did: deltas alone are no bound
		r.over = true
		return
	}
	x := r.x
	asked := make(chan int64, 1)
	r.asked = asked
	e := extension{ledger: x.g.Ledger, hold: x.hold, work: x.offer.Subject.Work, row: x.row, position: x.position, bounds: x.bounds, money: x.money}
	few := max(unknownLength, x.g.experience(x.offer.Model.Name).usual()) * x.answers()
	ctx := r.ctx
	go func() { asked <- e.run(ctx, more, few) }()
}

// extended waits for an extension, and reports whether there is more now.
func (r *rolling) extended() bool {
	r.ask()
	if r.asked != nil {
		r.take(<-r.asked)
	}
	return r.Seen() <= r.x.bounds.Output
}

// take takes what an extension came to.
func (r *rolling) take(more int64) {
	r.asked = nil
	r.over = more == 0
	x := r.x
	x.bounds.Output += more
	if most, err := x.ceiling(x.bounds); err == nil {
		x.money = most
	}
	r.SetBound(x.bounds.Output)
}

// stop ends what is still asked for.
func (r *rolling) stop() {
	r.cancel()
	if r.asked != nil {
		r.take(<-r.asked)
	}
}

// extension is one extension of a hold. It has all that it needs of its request, which goes on meanwhile.
type extension struct {
	ledger   *ledger.Ledger
	hold     *ledger.Hold
	work     usage.Work
	row      *price.Row
	position rating.Position
	bounds   usage.Bounds
	money    money.Amount
}

// run extends a hold by so much output, or by a few tokens, or by what fits; it returns by how much.
func (e *extension) run(ctx context.Context, more, few int64) int64 {
	for more > 0 {
		cost, err := e.cost(more)
		if err != nil {
			return 0
		}
		err = e.ledger.Extend(ctx, e.hold, usage.Bounds{Output: more}, cost)
		if err == nil {
			return more
		}
		var short *ledger.Short
		if !errors.As(err, &short) {
			return 0
		}
		more = min(e.fits(short, more-1), few)
	}
	return 0
}

func (e *extension) cost(more int64) (money.Amount, error) {
	bounds := e.bounds
	bounds.Output += more
	most, err := rating.Ceiling(bounds, e.work, e.row, e.position)
	return most.Sub(e.money), err
}

// fits is how much more output fits the limit that was short, beside what others hold.
func (e *extension) fits(s *ledger.Short, most int64) int64 {
	left := s.Limit.Amount.Sub(s.Used).Sub(s.Held)
	was := quota.Need{Money: e.money, Bounds: e.bounds, Work: e.work}.Of(s.Limit.Measure)
	return largest(most, func(more int64) bool {
		cost, err := e.cost(more)
		bounds := e.bounds
		bounds.Output += more
		will := quota.Need{Money: e.money.Add(cost), Bounds: bounds, Work: e.work}
		return err == nil && will.Of(s.Limit.Measure).Sub(was).Cmp(left) <= 0
	})
}

// largest is the largest n up to most that fits, 0 where none does. What is smaller than one that fits, fits.
func largest(most int64, fits func(int64) bool) int64 {
	low, high := int64(0), most
	for low < high {
		mid := low + (high-low+1)/2
		if fits(mid) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}
