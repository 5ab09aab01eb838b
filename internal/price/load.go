package price

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"talea/internal/resource"
)

// Load is how a book's prices follow the load of its engines: a ladder of multipliers, of which one applies at a time.
// The step for an interval is decided from the load of an earlier one, one step up or down at most, and published before
// the interval begins. All multipliers and loads are parts per million; a load of a million is a full fleet.
type Load struct {
	Steps     []int64       `json:"steps_ppm"`      // ascending; one of them is a million
	UpAbove   int64         `json:"up_above_ppm"`   // a load above it goes one step up
	DownBelow int64         `json:"down_below_ppm"` // one below it goes one step down; between the two nothing moves
	Interval  time.Duration `json:"interval_ns"`    // how long a step applies; intervals begin at multiples of it since 1970, UTC
	Announce  int64         `json:"announce"`       // whole intervals between the decision and its beginning
}

// What a ladder may be.
const (
	maxSteps    = 16
	maxInterval = 24 * time.Hour
	maxAnnounce = 96
)

// Load returns the book's own ladder, nil for none.
func (b *Book) Load() *Load { return b.load }

// Ladder returns the ladder that moves prices of the book at an instant, and the name of the book whose ladder it is: its
// own, or else that of its base. l is nil where its prices do not follow the load.
func (b *Book) Ladder(at time.Time) (of string, l *Load) {
	switch base := inForce(b.base, at); {
	case b.load != nil:
		return b.Name, b.load
	case base != nil && !b.fixed:
		return base.Name, base.load
	}
	return "", nil
}

// Capped returns what a step of the ladder is for whoever has this book, in parts per million.
func (b *Book) Capped(ppm int64) int64 {
	if b.loadCap > 0 {
		return min(ppm, b.loadCap)
	}
	return ppm
}

// under says what a load factor is for the book's own prices and for those that it inherits. A ladder of its own moves
// all of them; one of its base moves what comes from there, as the base's windows do: what a contract has itself stands.
func (b *Book) under(factor []int64) (own, inherited []int64) {
	if len(factor) == 0 || b.fixed {
		return nil, nil
	}
	capped := slices.Clone(factor)
	for i := range capped {
		capped[i] = b.Capped(capped[i])
	}
	if b.load == nil && b.Base != "" {
		return nil, capped
	}
	return capped, capped
}

// ladderOver is the ladder that moves the prices which the book inherits from a version of its base.
func (b *Book) ladderOver(base *Book) *Load {
	if b.fixed {
		return nil
	}
	return cmp.Or(b.load, base.load)
}

// checkLoad tests what a book says about the load beside its ladder.
func (b *Book) checkLoad() error {
	switch {
	case b.fixed && b.Base == "":
		return errors.New("load: fixed is for what a book inherits: it needs a base")
	case b.fixed && b.load != nil:
		return errors.New("it has a ladder and fixed prices")
	case b.loadCap == 0:
		return nil
	case b.loadCap < one || b.loadCap > 1000*one:
		return errors.New("load_cap is not from 1 to 1000")
	case b.fixed || b.load == nil && b.Base == "":
		return errors.New("load_cap is for prices that follow the load: the book has none")
	}
	return nil
}

// parseLoad reads `load:`, which is a ladder or the word fixed.
func (b *Book) parseLoad(n resource.Node) error {
	if !n.Present() {
		return nil
	}
	if !n.Mapping() {
		w, err := n.Word()
		if err == nil && w.Text != "fixed" {
			err = n.Pos().Errorf("load is a ladder of steps, or fixed, not %q", w.Text)
		}
		b.fixed = err == nil
		return err
	}
	var spec loadSpec
	err := n.Decode(&spec)
	if err == nil {
		b.load, err = spec.parse()
	}
	return err
}

// Rest is the step at which the multiplier is 1: where a ladder begins, and where it goes when no load is known.
func (l *Load) Rest() int { return slices.Index(l.Steps, one) }

// Next returns the step after an interval with the given load: at most one away. Without a load (known is false) it goes
// towards Rest, so that nobody pays more because an engine does not tell.
func (l *Load) Next(step int, load int64, known bool) int {
	switch rest := l.Rest(); {
	case known && load > l.UpAbove:
		return min(step+1, len(l.Steps)-1)
	case known && load < l.DownBelow:
		return max(step-1, 0)
	case !known && step > rest:
		return step - 1
	case !known && step < rest:
		return step + 1
	}
	return step
}

// Slot returns the interval that an instant lies in: from (in) to end (out), UTC.
func (l *Load) Slot(at time.Time) (from, end time.Time) {
	width := l.Interval.Microseconds()
	n := at.UnixMicro()
	n -= (n%width + width) % width
	return time.UnixMicro(n).UTC(), time.UnixMicro(n + width).UTC()
}

// loadSpec is `load:` as a resource file writes it.
type loadSpec struct {
	Pos       resource.Pos
	Steps     []resource.Decimal `yaml:"steps,required"`
	UpAbove   resource.Decimal   `yaml:"up_above,required"`
	DownBelow resource.Decimal   `yaml:"down_below,required"`
	Interval  time.Duration      `yaml:"interval"`
	Announce  resource.Decimal   `yaml:"announce"`
}

func (s *loadSpec) parse() (*Load, error) {
	l := &Load{Interval: s.Interval, Announce: 1}
	var errs resource.Errors
	for _, text := range s.Steps {
		ppm, err := ParseMultiplier(text.Text)
		errs.Add(at(text.Pos, err))
		l.Steps = append(l.Steps, ppm)
	}
	for _, f := range []struct {
		text resource.Decimal
		into *int64
	}{{s.UpAbove, &l.UpAbove}, {s.DownBelow, &l.DownBelow}} {
		var err error
		*f.into, err = ParseMultiplier(f.text.Text)
		errs.Add(at(f.text.Pos, err))
	}
	if l.Interval == 0 {
		l.Interval = 15 * time.Minute
	}
	if s.Announce.Text != "" {
		var whole bool
		if l.Announce, whole = s.Announce.Int64(); !whole {
			errs.Add(s.Announce.Pos.Errorf("announce is a whole number of intervals, not %s", s.Announce.Text))
		}
	}
	if len(errs) == 0 {
		errs.Add(at(s.Pos, l.check()))
	}
	return l, errs.Err()
}

// check tests a ladder by itself.
func (l *Load) check() error {
	switch {
	case len(l.Steps) < 2 || len(l.Steps) > maxSteps:
		return fmt.Errorf("load has %d steps; a ladder has 2 to %d", len(l.Steps), maxSteps)
	case !slices.IsSorted(l.Steps) || len(slices.Compact(slices.Clone(l.Steps))) != len(l.Steps):
		return fmt.Errorf("the steps of load do not ascend")
	case l.Steps[0] < 1 || l.Steps[len(l.Steps)-1] > 1000*one:
		return fmt.Errorf("a step of load is not above 0 and at most 1000")
	case l.Rest() < 0:
		return fmt.Errorf(`load needs the step "1": it begins there, and goes there when no load is known`)
	case l.DownBelow < 0 || l.DownBelow >= l.UpAbove || l.UpAbove > one:
		return fmt.Errorf("load needs 0 <= down_below < up_above <= 1: between the two the price stays")
	case l.Interval < time.Minute || l.Interval > maxInterval || l.Interval%time.Second != 0:
		return fmt.Errorf("the interval of load is whole seconds, from 1m to 24h, not %s", l.Interval)
	case l.Announce < 1 || l.Announce > maxAnnounce:
		return fmt.Errorf("load must be announced 1 to %d intervals before it applies, not %d", maxAnnounce, l.Announce)
	}
	return nil
}
