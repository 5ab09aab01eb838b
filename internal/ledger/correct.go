package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/quota"
)

// ErrCorrection says that a correction cannot be made as it is asked for.
var ErrCorrection = errors.New("cannot correct")

// Correction changes what an account owes for the requests that were admitted in a range, by what a re-rating found: no
// settlement is changed. It says what it brings the account to, so that the same one twice posts nothing more.
type Correction struct {
	At       time.Time    // UTC, set by Correct
	Seq      int64        // its entry, set by Correct
	Chain    []account.ID // the organisation first, the account itself last
	Path     account.Path
	Currency string
	Book     string // name@version of what it was rated under
	From, To time.Time
	Requests int64
	Charged  money.Amount // what they were charged when they were settled
	Total    money.Amount // what they are charged with all corrections of the range, this one included
	Amount   money.Amount // what this one adds; set by Correct
	Reason   string
	Who      string
}

// account is the account that a correction is of.
func (c *Correction) account() account.ID { return c.Chain[len(c.Chain)-1] }

// Correct posts corrections, all or none of them, and returns those that were needed: an account that
// is where it is to be has none. Each adds its amount to what is used of the money limits of the account's path that are
// narrowed to nothing, in the periods that run now; what is used never falls below 0. On return without an error they are
// durable.
func (l *Ledger) Correct(list []Correction) ([]Correction, error) {
	g, posted, err := l.correct(list)
	if err != nil || len(posted) == 0 {
		return nil, err
	}
	return posted, l.await(g)
}

func (l *Ledger) correct(list []Correction) (*group, []Correction, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return nil, nil, err
	}
	at := l.now()
	var needed []Correction
	for i := range list {
		c := list[i]
		c.From, c.To = c.From.UTC().Truncate(time.Microsecond), c.To.UTC().Truncate(time.Microsecond)
		if len(c.Chain) == 0 || c.Who == "" || c.Reason == "" || c.Book == "" || !c.From.Before(c.To) || c.To.After(at) || c.Total.Sign() < 0 || c.Charged.Sign() < 0 {
			return nil, nil, fmt.Errorf("%w %s: the correction makes no sense, or its range has not ended", ErrCorrection, c.Path)
		}
		o := l.orgs[c.Chain[0]]
		if o == nil {
			return nil, nil, fmt.Errorf("%w %s: its organisation has no log", ErrCorrection, c.Path)
		}
		before, err := o.corrected(&c)
		if err != nil {
			return nil, nil, err
		}
		if c.Amount = c.Total.Sub(c.Charged.Add(before)); !c.Amount.IsZero() {
			needed = append(needed, c)
		}
	}
	for i := range needed {
		l.postCorrection(l.orgs[needed[i].Chain[0]], &needed[i], at)
	}
	return l.pending, needed, nil
}

// corrected is the sum of the earlier corrections of the same account and range. Ranges that overlap without being the same
// are refused: what a request owes would be anybody's guess.
func (o *org) corrected(c *Correction) (sum money.Amount, err error) {
	for i := range o.corrections {
		k := &o.corrections[i]
		if k.account() != c.account() || k.Currency != c.Currency || !k.From.Before(c.To) || !c.From.Before(k.To) {
			continue
		}
		if !k.From.Equal(c.From) || !k.To.Equal(c.To) {
			return sum, fmt.Errorf("%w %s from %s to %s: entry %d corrects it from %s to %s; take that range, or one beside it", ErrCorrection, c.Path,
				c.From.Format(time.RFC3339), c.To.Format(time.RFC3339), k.Seq, k.From.Format(time.RFC3339), k.To.Format(time.RFC3339))
		}
		sum = sum.Add(k.Amount)
	}
	return sum, nil
}

// postCorrection writes one correction. The caller holds l.mu.
func (l *Ledger) postCorrection(o *org, c *Correction, at time.Time) {
	var touched []*balance
	for _, node := range c.Chain {
		for _, lim := range o.limitsOf[node] {
			if lim.corrects() {
				touched = append(touched, l.balance(o, lim, at))
			}
		}
	}
	c.At = at
	b := l.begin(o, KindCorrection, at, 0)
	c.Seq = o.seq
	b = appendUint(appendCorrection(b, c), int64(len(touched)))
	for _, t := range touched {
		b = appendUint(appendUint(b, t.limit.num), t.period.num)
	}
	l.end(o, KindCorrection, 0, b)
	o.corrections = append(o.corrections, *c)
	for _, t := range touched {
		t.correct(c.Amount)
		l.changed(t)
	}
	for _, t := range touched {
		l.reached(o, t, at, 0)
	}
	for _, t := range touched {
		l.serve(t)
	}
}

// corrects reports whether corrections count against a limit: one of money that is narrowed to nothing.
func (lim *limit) corrects() bool {
	return !lim.removed && lim.Measure == quota.Money && lim.Key == "" && lim.Model == "" && lim.SizeClass == "" && lim.Tier == ""
}

// correct adds a correction to what is used, which does not fall below 0.
func (b *balance) correct(amount money.Amount) {
	if b.Used = b.Used.Add(amount); b.Used.Sign() < 0 {
		b.Used = money.Amount{}
	}
}

func appendCorrection(b []byte, c *Correction) []byte {
	b = appendUint(b, int64(len(c.Chain)))
	for _, node := range c.Chain {
		b = appendUint(b, int64(node))
	}
	b = appendString(appendString(appendString(b, string(c.Path)), c.Currency), c.Book)
	b = appendTime(appendTime(b, c.From), c.To)
	b = appendUint(b, c.Requests)
	b = appendAmount(appendAmount(appendAmount(b, c.Charged), c.Total), c.Amount)
	return appendString(appendString(b, c.Reason), c.Who)
}

// readCorrection reads a correction, and the limits and periods that it was added to.
func readCorrection(h header, d *decoder) (c Correction, touched [][2]int64) {
	c.At, c.Seq = h.At, h.Seq
	for range d.count() {
		c.Chain = append(c.Chain, account.ID(d.uint()))
	}
	c.Path, c.Currency, c.Book = account.Path(d.text()), d.text(), d.text()
	c.From, c.To, c.Requests = d.time(), d.time(), d.uint()
	c.Charged, c.Total, c.Amount = d.amount(), d.amount(), d.amount()
	c.Reason, c.Who = d.text(), d.text()
	touched = d.counted()
	if d.err == nil && len(c.Chain) == 0 {
		d.fail(fmt.Errorf("correction of no account"))
	}
	return c, touched
}

// refoldCorrection lets a correction act on the balances, when they are made anew.
func (o *org) refoldCorrection(row EntryRow) error {
	h, d, err := open(row.Body)
	if err != nil {
		return err
	}
	c, touched := readCorrection(h, d)
	if d.err != nil {
		return d.err
	}
	for _, t := range touched {
		b, err := o.named(t[0], t[1])
		if err != nil {
			return err
		}
		b.correct(c.Amount)
	}
	return nil
}

// Corrections returns the corrections of an organisation, oldest first.
func (l *Ledger) Corrections(org account.ID) []Correction {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.orgs[org]; o != nil {
		return slices.Clone(o.corrections)
	}
	return nil
}
