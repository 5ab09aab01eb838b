// Package tape lets prices follow the load: for every price book with a ladder it decides the step of each interval from
// the load of an earlier one, publishes it in the ledger before the interval begins, and tells which step is in force. It
// does not measure load (fleet), does not say what a ladder is (price) and keeps nothing itself (ledger).
//
// # Invariants
//
//   - A multiplier applies only by a step that was durable before its time began; where there is none, it is 1.
//   - One step per interval and book, at most one rung from the one before: whoever knows the tape knows every price.
//   - All accounts of a book have the same step, and of the books over it too, unless those have a ladder or prices of their own.
//   - Without a load known, steps go towards 1.
//
// Start reading at Tape.Tick.
package tape

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"talea/internal/fleet"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/world"
)

// one is a multiplier that changes nothing, in parts per million.
const one = 1_000_000

// Clock tells the time.
type Clock interface {
	// Now returns the time of this instant. It may be called at any time by anybody.
	Now() time.Time
}

// Options of New; all are needed.
type Options struct {
	World  *world.World
	Ledger *ledger.Ledger
	Watch  *fleet.Watch
	Clock  Clock
	Log    *slog.Logger
}

// Tape is the price tape at work. At may be called at any time by anybody; Tick by one.
type Tape struct {
	Options
	steps atomic.Pointer[map[string][]ledger.PriceStep] // by book: those that are in force or announced
}

// New returns a tape with what the ledger has of it.
func New(o Options) *Tape {
	t := &Tape{Options: o}
	t.refresh(t.Clock.Now())
	return t
}

// Every is how often Tick is to be called: a step is decided this long after its interval began, at most.
const Every = 10 * time.Second

// Tick asks the engines, and publishes every step that is due. An error is a ledger that cannot make it durable: the
// price then is 1 for that interval.
func (t *Tape) Tick(ctx context.Context) error {
	books := t.ladders()
	if len(books) == 0 {
		return nil
	}
	snap := t.World.Current()
	t.Watch.Follow(snap.Engines())
	t.Watch.Round(ctx)
	now := t.Clock.Now()
	for _, b := range books {
		if err := t.decide(b, snap, now); err != nil {
			return fmt.Errorf("cannot publish the next step of price book %s: %w", b.Name, err)
		}
	}
	t.refresh(now)
	return nil
}

// ladders are the books in force that have one.
func (t *Tape) ladders() []*price.Book {
	now := t.Clock.Now()
	var books []*price.Book
	for _, b := range t.World.Current().Books() {
		if b.Load() != nil && b.InForce(now) {
			books = append(books, b)
		}
	}
	return books
}

// decide publishes the step of a book that is to be announced in this interval, unless it has been.
func (t *Tape) decide(b *price.Book, snap *world.Snapshot, now time.Time) error {
	l := b.Load()
	from, _ := l.Slot(now)
	begins := from.Add(time.Duration(l.Announce) * l.Interval)
	before, any := t.Ledger.NewestStep(b.Name)
	if any && begins.Before(before.Until) {
		return nil
	}
	step := l.Rest()
	if any && before.Until.Equal(begins) { // else nothing was in force in between, and the price was 1
		if i := slices.Index(l.Steps, before.PPM); i >= 0 {
			step = i
		}
	}
	mean := t.Watch.Mean(engines(snap, b), from.Add(-l.Interval), from)
	next := l.Next(step, mean.Load, mean.Known())
	s := &ledger.PriceStep{Book: b.Name, From: begins, Until: begins.Add(l.Interval), PPM: l.Steps[next], Known: mean.Known(), Load: mean.Load}
	for _, e := range mean.Engines {
		s.Inputs = append(s.Inputs, ledger.StepInput{Engine: e.Name, Load: e.Load, Running: e.Running, Waiting: e.Waiting, Samples: e.Samples})
	}
	if err := t.Ledger.PublishStep(s); err != nil {
		return err
	}
	if next != step {
		t.Log.Info("a price step is announced", "book", b.Name, "multiplier_ppm", s.PPM, "from", s.From, "until", s.Until, "load_ppm", s.Load, "load_known", s.Known)
	}
	return nil
}

// engines are those that serve a model with a price in the book, by name.
func engines(snap *world.Snapshot, b *price.Book) []string {
	var names []string
	for _, m := range snap.Models() {
		if b.Names(price.Query{Model: m.Name, Family: m.Family, SizeClass: m.SizeClass}) {
			names = append(names, m.Engines...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// refresh takes over from the ledger what is in force or announced. What ended a while ago is kept for requests that are
// just being decided.
func (t *Tape) refresh(now time.Time) {
	all := map[string][]ledger.PriceStep{}
	for _, b := range t.World.Current().Books() {
		if l := b.Load(); l != nil {
			all[b.Name] = t.Ledger.Steps(b.Name, now.Add(-time.Hour), now.Add(time.Duration(l.Announce+2)*l.Interval))
		}
	}
	t.steps.Store(&all)
}

// stepsOf are the steps that move a book at an instant: its own, or those of its base. A nil tape has none.
func (t *Tape) stepsOf(b *price.Book, at time.Time) []ledger.PriceStep {
	if t == nil {
		return nil
	}
	of, l := b.Ladder(at)
	if l == nil {
		return nil
	}
	return (*t.steps.Load())[of]
}

// At returns the multiplier of a book at an instant, in parts per million and under its cap, and the number of its step;
// 1 and 0 where no ladder moves the book or nothing was published for that time.
func (t *Tape) At(b *price.Book, at time.Time) (ppm, step int64) {
	for _, s := range t.stepsOf(b, at) {
		if !at.Before(s.From) && at.Before(s.Until) {
			return b.Capped(s.PPM), s.Number
		}
	}
	return one, 0
}

// Announced returns the steps of a book that begin after an instant, in order and under its cap.
func (t *Tape) Announced(b *price.Book, after time.Time) []ledger.PriceStep {
	var next []ledger.PriceStep
	for _, s := range t.stepsOf(b, after) {
		if s.From.After(after) {
			s.PPM = b.Capped(s.PPM)
			next = append(next, s)
		}
	}
	return next
}

// Until is when the multiplier of an instant may end, as far as is published: zero where nothing is known to end.
func (t *Tape) Until(b *price.Book, at time.Time) (until time.Time) {
	for _, s := range t.stepsOf(b, at) {
		for _, edge := range [...]time.Time{s.From, s.Until} {
			if edge.After(at) && (until.IsZero() || edge.Before(until)) {
				until = edge
			}
		}
	}
	return until
}
