package ledger

import (
	"errors"
	"fmt"
	"slices"

	"talea/internal/account"
	"talea/internal/price"
	"talea/internal/usage"
)

// PastStore is what a past is read from: a Store, or one that was opened for reading only.
type PastStore interface {
	// Heads is Store.Heads.
	Heads() ([]HeadRow, error)
	// Definitions is Store.Definitions.
	Definitions(visit func(EntryRow) error) error
	// Entries is Store.Entries.
	Entries(org account.ID, from int64, visit func(EntryRow) error) error
}

// Past reads what was settled from the log alone, beside the process that writes it or without one. It sees what was
// durable when it was made.
type Past struct {
	store PastStore
	l     *Ledger // its definitions; nothing runs
	heads []HeadRow
	steps map[int64]PriceStep
}

// ReadPast reads the definitions of all logs.
func ReadPast(store PastStore) (*Past, error) {
	p := &Past{store: store, l: &Ledger{orgs: map[orgID]*org{}, steps: map[string][]PriceStep{}}, steps: map[int64]PriceStep{}}
	heads, err := store.Heads() // first: what they end at has its definitions
	if err == nil {
		err = store.Definitions(p.l.define)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	for _, list := range p.l.steps {
		for _, s := range list {
			p.steps[s.Number] = s
		}
	}
	for _, h := range heads {
		if h.Org != house {
			p.heads = append(p.heads, h)
		}
	}
	return p, nil
}

// Heads returns where the organisations' logs end for this past.
func (p *Past) Heads() []HeadRow { return p.heads }

// Step returns a step of the price tape by its number.
func (p *Past) Step(number int64) (PriceStep, bool) {
	s, ok := p.steps[number]
	return s, ok
}

// Corrections returns the corrections of an organisation, oldest first.
func (p *Past) Corrections(org account.ID) []Correction {
	if o := p.l.orgs[org]; o != nil {
		return o.corrections
	}
	return nil
}

// Posted is a request that was charged, as it was stored, with the price row that was locked. It is valid until the visit
// returns.
type Posted struct {
	Seq    int64 // of the entry that settled it
	Record *usage.Record
	Row    *price.Row
}

// Posted visits the requests of an organisation that were charged, in the order in which they were rated. progress is told
// of each chunk how many entries it had, and ends the reading with its error.
func (p *Past) Posted(head HeadRow, visit func(*Posted) error, progress func(entries int64) error) error {
	o := p.l.orgs[head.Org]
	if o == nil {
		return fmt.Errorf("the log of organisation %d defines nothing: run `talea ledger check`", head.Org)
	}
	open := map[usage.ID]*Hold{}
	for seq := int64(0); seq < head.Seq; {
		from := seq
		var wrong error
		err := p.store.Entries(head.Org, seq+1, func(row EntryRow) error {
			if row.Seq > head.Seq || row.Seq-from > chunk {
				return errEnough
			}
			seq = row.Seq
			wrong = o.posted(open, row, visit)
			return wrong
		})
		switch {
		case wrong != nil:
			return wrong
		case err != nil && !errors.Is(err, errEnough):
			return fmt.Errorf("cannot read the log of organisation %d behind entry %d: %w", head.Org, seq, err)
		case seq == from:
			return fmt.Errorf("the log of organisation %d ends at entry %d, its head says %d: run `talea ledger check`", head.Org, seq, head.Seq)
		}
		if err := progress(seq - from); err != nil {
			return err
		}
	}
	return nil
}

// posted lets one entry act on the holds that are open, and visits the request that it ends with a charge.
func (o *org) posted(held map[usage.ID]*Hold, row EntryRow, visit func(*Posted) error) error {
	switch row.Kind {
	case KindVoid:
		delete(held, row.Request)
		return nil
	case KindHold, KindSettle:
	default:
		return nil
	}
	head, d, err := open(row.Body)
	if err != nil {
		return err
	}
	if row.Kind == KindHold {
		h, _ := readHold(d)
		if d.err == nil && (h.subject < 1 || h.subject > int64(len(o.subjects)) || h.rowNum < 1 || h.rowNum > int64(len(o.rows))) {
			return fmt.Errorf("entry %d names what the log does not define", row.Seq)
		}
		if d.err != nil {
			return d.err
		}
		h.ID, h.Admission.At, h.Subject, h.row = head.Request, head.At, o.subjects[h.subject-1], o.rows[h.rowNum-1]
		held[h.ID] = h
		return nil
	}
	h := held[row.Request]
	if h == nil {
		return fmt.Errorf("entry %d settles request %s, which has no open hold", row.Seq, row.Request)
	}
	delete(held, row.Request)
	if readResult(d, &h.Record); d.err != nil {
		return d.err
	}
	return visit(&Posted{row.Seq, &h.Record, h.row})
}

// Has reports whether an organisation's log knows an account or one below it; "" is any.
func (p *Past) Has(org account.ID, path account.Path) bool {
	o := p.l.orgs[org]
	return o != nil && slices.ContainsFunc(o.subjects, func(s *usage.Subject) bool { return path == "" || s.AccountPath.Within(path) })
}
