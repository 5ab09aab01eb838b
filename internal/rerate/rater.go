package rerate

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/usage"
	"talea/internal/world"
)

// rater rates the requests of one organisation after the other, each in the order of its log.
type rater struct {
	past    *ledger.Past
	archive *world.Archive
	under   *under
	rows    map[rowKey]*priced
	tallies map[tallyKey]*int64
	lines   []usage.Line
	at      rating.Position
}

// rowKey is what the prices of a request depend on, but for its time.
type rowKey struct {
	subject         *usage.Subject
	locked          *price.Row
	tier            string
	gpuKind, region string
}

// priced is a row, and where its counters stand in the periods of a time.
type priced struct {
	book     *price.Book // nil: the original
	row      *price.Row
	from, to time.Time // in which the tallies are right
	tallies  []*int64  // nil for a form that does not count
	original bool      // it is to give what was stored
	wrong    string    // why it cannot
}

// tallyKey is a counter in a period, within one organisation.
type tallyKey struct {
	name, scope, contract string
	window                period.Window
	zone                  string
	start                 int64
}

func newRater(past *ledger.Past, archive *world.Archive, u *under) *rater {
	return &rater{past: past, archive: archive, under: u}
}

// begin forgets the organisation before.
func (x *rater) begin() {
	x.rows, x.tallies = map[rowKey]*priced{}, map[tallyKey]*int64{}
}

// rate returns what a request costs. difference says what of it is not what was stored, where that is to be.
func (x *rater) rate(p *ledger.Posted) (charge money.Amount, difference string, err error) {
	r := p.Record
	row, err := x.priced(p)
	if err != nil {
		return charge, "", err
	}
	if err := x.counters(row, r); err != nil {
		return charge, "", err
	}
	x.at = x.at[:0]
	for _, tally := range row.tallies {
		if tally == nil {
			x.at = append(x.at, 0)
		} else {
			x.at = append(x.at, *tally)
		}
	}
	rated := r.Billed
	if !row.row.Has[usage.WorkMS] {
		rated.Set(usage.WorkMS, 0)
	} else if !rated.Known(usage.WorkMS) {
		return charge, "", price.ErrNotPriced{Model: r.Subject.Model, Meter: "its work, which is not known"}
	}
	x.lines, charge, err = rating.Rate(x.lines[:0], &rated, row.row, x.at)
	if err != nil {
		return charge, "", err
	}
	x.at.Advance(&r.Billed, row.row)
	for i, tally := range row.tallies {
		if tally != nil {
			*tally = x.at[i]
		}
	}
	if row.original {
		difference = x.compare(r, row, charge)
	}
	return charge, difference, nil
}

// compare compares what was rated with what was stored.
func (x *rater) compare(r *usage.Record, row *priced, charge money.Amount) string {
	switch {
	case row.wrong != "":
		return row.wrong
	case charge != r.Charge:
		return fmt.Sprintf("it was charged %s; rated again it is %s", r.Charge, charge)
	case !slices.Equal(x.lines, r.Lines):
		return fmt.Sprintf("its lines are other ones than those that were stored, of the same sum %s", charge)
	}
	return ""
}

// priced finds the row that a request is rated by.
func (x *rater) priced(p *ledger.Posted) (*priced, error) {
	r := p.Record
	key := rowKey{r.Subject, p.Row, r.TierAsked, r.GPUKind, r.Region}
	book, err := x.under.of(r.Subject, r.Admission.At)
	if err != nil {
		return nil, err
	}
	if known := x.rows[key]; known != nil && known.book == book && known.row.Holds(r.Admission.At) {
		return known, nil
	}
	var made *priced
	if book == nil {
		made = x.original(p)
	} else if made, err = x.other(p, book); err != nil {
		return nil, err
	}
	made.book = book
	x.rows[key] = made
	return made, nil
}

// query asks for the prices of a request. The place is that of the engine that served it: where prices depend on it,
// only engines of one place are asked.
func (x *rater) query(r *usage.Record, tier string) price.Query {
	return price.Query{
		Model: r.Subject.Model, Family: x.archive.Family(r.Subject.Model), SizeClass: r.Subject.SizeClass, GPUKind: r.GPUKind, Region: r.Region,
		Tier: tier, Organisation: string(r.Subject.AccountPath.Organisation()),
	}
}

// factor is the multiplier of the step of the price tape that a request has locked.
func (x *rater) factor(name price.RowName) ([]int64, error) {
	if name.Step == 0 {
		return nil, nil
	}
	s, ok := x.past.Step(name.Step)
	if !ok {
		return nil, fmt.Errorf("step %d of the price tape, which it has locked, is not in the log: run `talea ledger check`", name.Step)
	}
	return []int64{s.PPM}, nil
}

// other makes the row of another book. A book whose prices follow the load has the multiplier that was locked, one of
// another book too: the load was what it was.
func (x *rater) other(p *ledger.Posted, book *price.Book) (*priced, error) {
	r := p.Record
	name, _ := price.ParseRowID(p.Row.ID)
	var load []int64
	if _, ladder := book.Ladder(r.Admission.At); ladder != nil {
		var err error
		if load, err = x.factor(name); err != nil {
			return nil, err
		}
	}
	if r.Subject.Currency != book.Currency {
		return nil, fmt.Errorf("it was charged in %s, price book %s is in %s", r.Subject.Currency, book.Name, book.Currency)
	}
	row, err := book.Row(x.query(r, quota.Tier(r.TierAsked)), r.Admission.At, load...)
	if err != nil {
		return nil, err
	}
	return &priced{row: &row}, nil
}

// maxWait bounds how long before its hold a request's price may have been found: holds wait for room.
const maxWait = time.Hour

// original makes the row that was locked from its book again; both must be the same.
func (x *rater) original(p *ledger.Posted) *priced {
	r := p.Record
	made := &priced{row: p.Row, original: true}
	if r.Engine == "" {
		return made // no engine is on record, so neither is its place: what was locked has to do
	}
	name, ok := price.ParseRowID(p.Row.ID)
	book := x.under.original(p, name)
	load, err := x.factor(name)
	switch {
	case !ok || book == nil:
		made.wrong = fmt.Sprintf("its price row %q is of a price book that is not archived", p.Row.ID)
		return made
	case err != nil:
		made.wrong = err.Error()
		return made
	}
	for at := r.Admission.At; r.Admission.At.Sub(at) < maxWait; {
		row, err := book.Row(x.query(r, name.Tier), at, load...)
		if err != nil {
			made.wrong = err.Error()
			return made
		}
		if name.Step > 0 {
			row.AtStep(name.Step)
		}
		if same(&row, p.Row) {
			return made
		}
		if row.From.IsZero() {
			break
		}
		at = row.From.Add(-time.Microsecond) // the price was found before the hold was made
	}
	made.wrong = fmt.Sprintf("its price row %q is not what its price book says", p.Row.ID)
	return made
}

// same compares a row with one that was locked, whose time is not stored.
func same(a, locked *price.Row) bool {
	b := *locked
	b.From, b.To = a.From, a.To
	return reflect.DeepEqual(*a, b)
}

// counters finds where a row's counters stand in the periods that contain a request's admission, however late it was
// settled.
func (x *rater) counters(p *priced, r *usage.Record) error {
	at := r.Admission.At
	if len(p.row.Forms) == 0 || p.tallies != nil && !at.Before(p.from) && (p.to.IsZero() || at.Before(p.to)) {
		return nil
	}
	p.tallies, p.from, p.to = make([]*int64, len(p.row.Forms)), time.Time{}, time.Time{}
	for i := range p.row.Forms {
		f := &p.row.Forms[i]
		if f.Counter == "" {
			continue
		}
		key := tallyKey{name: f.Counter, scope: f.Scope, window: f.Window, zone: f.Zone}
		if f.Scope == "contract" {
			key.contract = r.Subject.Contract
		}
		zone, err := period.Zone(f.Zone)
		if err != nil {
			return err
		}
		span := period.Of(f.Window, zone, at)
		if !span.End.IsZero() { // not the window total
			key.start = span.Start.Unix()
			if span.Start.After(p.from) {
				p.from = span.Start
			}
			if p.to.IsZero() || span.End.Before(p.to) {
				p.to = span.End
			}
		}
		if x.tallies[key] == nil {
			x.tallies[key] = new(int64)
		}
		p.tallies[i] = x.tallies[key]
	}
	return nil
}
