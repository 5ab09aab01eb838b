package ledger

import (
	"encoding/binary"
	"fmt"
	"time"

	"talea/internal/account"
)

// house is the number under which the operator's own log is kept: what is true for all organisations stands there.
const house account.ID = 0

// PriceStep is one row of the price tape: the multiplier of a price book for a time, published before that time begins,
// with what it was decided from.
type PriceStep struct {
	Number      int64     // from 1 in the order of publication
	Book        string    // name, not version: a new version goes on with the steps of the one before
	From, Until time.Time // in force in [From, Until)
	PPM         int64     // multiplier in parts per million
	Decided     time.Time // when; before From
	Known       bool      // whether any engine told its load
	Load        int64     // parts per million, 0 where it is not known
	Inputs      []StepInput
}

// StepInput is what one engine told over the interval that a step was decided from.
type StepInput struct {
	Engine           string
	Load             int64 // mean, parts per million
	Running, Waiting int64 // means
	Samples          int64
}

// PublishStep makes a step of a price durable. It must begin later than now, and not before the book's newest step ends: a
// price that was published never changes, and none applies backwards. It sets Number and Decided.
func (l *Ledger) PublishStep(s *PriceStep) error {
	g, err := l.decideStep(s)
	if err != nil {
		return err
	}
	return l.await(g)
}

func (l *Ledger) decideStep(s *PriceStep) (*group, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return nil, err
	}
	at := l.now()
	steps := l.steps[s.Book]
	switch {
	case s.Book == "" || s.PPM <= 0 || s.Load < 0 || !s.From.Before(s.Until):
		return nil, fmt.Errorf("cannot publish a step of price book %q: it makes no sense", s.Book)
	case !at.Before(s.From):
		return nil, fmt.Errorf("cannot publish a step of price book %s that begins at %s: it is %s already", s.Book, s.From.Format(time.RFC3339), at.Format(time.RFC3339))
	case len(steps) > 0 && s.From.Before(steps[len(steps)-1].Until):
		return nil, fmt.Errorf("cannot publish a step of price book %s from %s on: another one is in force until %s", s.Book,
			s.From.Format(time.RFC3339), steps[len(steps)-1].Until.Format(time.RFC3339))
	}
	s.Number, s.Decided = l.stepCount+1, at
	l.addStep(*s)
	o := l.organisation(house)
	l.end(o, KindStep, 0, appendStep(l.begin(o, KindStep, at, 0), s))
	return l.pending, nil
}

func (l *Ledger) addStep(s PriceStep) {
	l.stepCount = s.Number
	l.steps[s.Book] = append(l.steps[s.Book], s)
}

// Steps returns the steps of a book that are in force in [from, to), in order.
func (l *Ledger) Steps(book string, from, to time.Time) []PriceStep {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []PriceStep
	for _, s := range l.steps[book] {
		if s.From.Before(to) && s.Until.After(from) {
			out = append(out, s)
		}
	}
	return out
}

// NewestStep returns the newest step of a book, and whether it has one.
func (l *Ledger) NewestStep(book string) (PriceStep, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.steps[book]; len(s) > 0 {
		return s[len(s)-1], true
	}
	return PriceStep{}, false
}

func appendStep(b []byte, s *PriceStep) []byte {
	b = appendString(binary.AppendUvarint(b, uint64(s.Number)), s.Book)
	b = binary.AppendVarint(binary.AppendVarint(b, s.From.UnixMicro()), s.Until.UnixMicro())
	b = appendBool(binary.AppendUvarint(b, uint64(s.PPM)), s.Known)
	b = binary.AppendUvarint(b, uint64(s.Load))
	b = binary.AppendUvarint(b, uint64(len(s.Inputs)))
	for _, in := range s.Inputs {
		b = appendString(b, in.Engine)
		for _, n := range []int64{in.Load, in.Running, in.Waiting, in.Samples} {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	return b
}

func readStep(h header, d *decoder) PriceStep {
	s := PriceStep{Number: d.uint(), Book: d.text(), From: d.time(), Until: d.time(), PPM: d.uint(), Known: d.bool(), Load: d.uint(), Decided: h.At}
	for range d.count() {
		s.Inputs = append(s.Inputs, StepInput{Engine: d.text(), Load: d.uint(), Running: d.uint(), Waiting: d.uint(), Samples: d.uint()})
	}
	return s
}
