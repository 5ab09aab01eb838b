package ledger

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"talea/internal/quota"
	"talea/internal/usage"
)

// Rebuilder is a store whose derived tables can be made anew.
type Rebuilder interface {
	// Derive puts in the place of all heads, balances and usage sums those that fold makes of the entries, which it is to
	// read by organisation and sequence; in one transaction, durable on return. On an error nothing has changed. It must
	// not be called beside an open Ledger.
	Derive(fold func(entries func(visit func(EntryRow) error) error) (*Batch, error)) error
}

// Rebuild makes heads, balances and usage sums anew from the log. It refuses a log whose chain is broken. Doing it twice
// changes nothing.
func Rebuild(r Rebuilder) error {
	return r.Derive(func(entries func(func(EntryRow) error) error) (*Batch, error) {
		l := &Ledger{orgs: map[orgID]*org{}}
		sums := newGroup(nil)
		if err := entries(func(row EntryRow) error { return sums.refold(l.organisation(row.Org), row) }); err != nil {
			return nil, err
		}
		for _, o := range l.sortedOrgs() {
			sums.Heads = append(sums.Heads, o.head())
			sums.Balances = append(sums.Balances, o.balanceRows()...)
		}
		return &sums.Batch, nil
	})
}

// refold lets one entry act on the state of its organisation and on the usage sums.
func (g *group) refold(o *org, row EntryRow) error {
	o.seq++
	o.hash = sha256.Sum256(append(o.hash[:], row.Body...))
	if row.Seq != o.seq || row.Hash != o.hash {
		return fmt.Errorf("the chain of organisation %d is broken at entry %d: run `talea ledger check`", o.id, o.seq)
	}
	if row.Kind == KindCorrection {
		if err := o.refoldCorrection(row); err != nil {
			return fmt.Errorf("organisation %d, entry %d: %w", o.id, row.Seq, err)
		}
	}
	if row.Kind.defines() {
		return o.define(row)
	}
	h, d, err := open(row.Body)
	if err != nil {
		return fmt.Errorf("organisation %d, entry %d: %w", o.id, row.Seq, err)
	}
	ended := h.Kind == KindSettle || h.Kind == KindVoid
	hold := o.open[h.Request]
	if err := o.fold(row); err != nil {
		return fmt.Errorf("organisation %d: %w", o.id, err)
	}
	switch {
	case h.Kind == KindHold:
		hold = o.open[h.Request]
		for _, t := range hold.touched {
			t.balance.Held = t.balance.Held.Add(t.held)
		}
	case hold == nil:
		return fmt.Errorf("organisation %d, entry %d is about no open hold: run `talea ledger check`", o.id, row.Seq)
	case h.Kind == KindExtend:
		d.bounds()
		d.amount()
		for i, t := range d.touched() {
			hold.touched[i].balance.Held = hold.touched[i].balance.Held.Add(t.Held)
		}
	case ended:
		readResult(d, &hold.Record)
		hold.Status = usage.Posted
		if h.Kind == KindVoid {
			hold.Status = usage.Void
		}
		for _, t := range hold.touched {
			t.balance.Held = t.balance.Held.Sub(t.held)
			t.balance.Used = t.balance.Used.Add(quota.Spent(t.balance.limit.Measure, &hold.Billed, hold.Charge, hold.GPUCount))
		}
		hold.advance()
		g.count(o, hold)
	}
	o.openFrom() // lets go of what is settled
	return d.err
}

func (o *org) balanceRows() []BalanceRow {
	rows := make([]BalanceRow, 0, len(o.balances))
	for key, b := range o.balances {
		rows = append(rows, BalanceRow{Org: o.id, Limit: key.limit, Period: key.period, Used: b.Used, Held: b.Held})
	}
	slices.SortFunc(rows, func(a, b BalanceRow) int {
		return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Period, b.Period))
	})
	return rows
}
