package ledger

import (
	"errors"
	"fmt"
	"slices"

	"talea/internal/account"
	"talea/internal/usage"
)

// Record reads the record of one request from the log. It returns nil and no error where the log has none.
func (l *Ledger) Record(id usage.ID) (*usage.Record, []TouchedLimit, error) {
	r, err := l.record(id)
	if err != nil || r == nil {
		return nil, nil, err
	}
	return r, l.touchedLimits(r), nil
}

func (l *Ledger) record(id usage.ID) (r *usage.Record, err error) {
	err = l.store.ByRequest(id, func(row EntryRow) error {
		r, err = l.unfold(r, row)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the record of request %s: %w", id, err)
	}
	return r, nil
}

// unfold lets one entry act on the record of its request, nil before its hold.
func (l *Ledger) unfold(r *usage.Record, row EntryRow) (*usage.Record, error) {
	h, d, err := open(row.Body)
	if err != nil {
		return r, err
	}
	switch h.Kind {
	case KindHold:
		if r, err = l.readRecord(h, d); err != nil {
			return r, err
		}
	case KindExtend:
		if r != nil {
			more, cost := d.bounds(), d.amount()
			x := Hold{Record: *r}
			x.extend(more, cost)
			*r = x.Record
			for i, t := range d.touched() {
				r.Touched[i].Held = r.Touched[i].Held.Add(t.Held)
			}
		}
	case KindSettle, KindVoid:
		if r != nil {
			readResult(d, r)
			r.Result.At = h.At
			r.Status = usage.Posted
			if h.Kind == KindVoid {
				r.Status = usage.Void
			}
		}
	}
	return r, d.err
}

// Organisations returns the numbers of all organisations that have a log, in order; not the operator's own.
func (l *Ledger) Organisations() []account.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []account.ID
	for _, o := range l.sortedOrgs() {
		if o.id != house {
			list = append(list, o.id)
		}
	}
	return list
}

// Settled is a request that has ended, and the entry that ended it.
type Settled struct {
	Seq    int64
	Hash   Hash
	Record *usage.Record
}

// chunk is how many entries are read at a time: so long the store's reader stands still.
const chunk = 2048

var errEnough = errors.New("enough")

// SettledAfter visits the requests of an organisation that ended in entries after seq, in the order in which they ended.
// It reads what is durable, in chunks, so that visits may take their time; it returns the seq up to which it has read.
func (l *Ledger) SettledAfter(org account.ID, seq int64, visit func(Settled) error) (int64, error) {
	open := map[usage.ID]*usage.Record{} // begun in what was read
	for {
		rows := make([]EntryRow, 0, chunk)
		err := l.store.Entries(org, seq+1, func(row EntryRow) error {
			row.Body = slices.Clone(row.Body)
			rows = append(rows, row)
			if len(rows) == chunk {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return seq, fmt.Errorf("cannot read the log of organisation %d: %w", org, err)
		}
		for _, row := range rows {
			if err := l.visitSettled(open, row, visit); err != nil {
				return seq, err
			}
			seq = row.Seq
		}
		if len(rows) < chunk {
			return seq, nil
		}
	}
}

func (l *Ledger) visitSettled(open map[usage.ID]*usage.Record, row EntryRow, visit func(Settled) error) error {
	if row.Kind.defines() || row.Request == 0 {
		return nil
	}
	ends := row.Kind == KindSettle || row.Kind == KindVoid
	r, known := open[row.Request]
	if !known && row.Kind != KindHold {
		if !ends {
			return nil // its hold came before: it is read whole when it ends
		}
		r, err := l.record(row.Request)
		if err != nil {
			return err
		}
		return visit(Settled{row.Seq, row.Hash, r})
	}
	r, err := l.unfold(r, row)
	if err != nil {
		return fmt.Errorf("cannot read entry %d: %w", row.Seq, err)
	}
	open[row.Request] = r
	if !ends {
		return nil
	}
	delete(open, row.Request)
	return visit(Settled{row.Seq, row.Hash, r})
}

// Newest is the number of the newest entry in an organisation's log, 0 for none; it may not be durable yet.
func (l *Ledger) Newest(org account.ID) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.orgs[org]; o != nil {
		return o.seq
	}
	return 0
}
