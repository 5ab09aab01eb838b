package ledger

import (
	"fmt"
	"time"

	"talea/internal/usage"
)

// maxClockLag is how far the clock may read before the newest entry: a larger step back is a clock that cannot be
// trusted with budget periods.
const maxClockLag = 5 * time.Minute

// minClock is before anybody used this program: a clock that reads earlier was never set.
var minClock = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)

// ClockError says that the clock reads earlier than the newest entry.
type ClockError struct{ Now, Newest time.Time }

// Error implements error.
func (e *ClockError) Error() string {
	if e.Newest.Equal(minClock) {
		return fmt.Sprintf("the clock reads %s, so it was never set: set it, or start with --trust-clock", e.Now.Format(time.RFC3339))
	}
	return fmt.Sprintf("the clock reads %s, but the newest entry of the ledger is of %s: set the clock, or start with --trust-clock",
		e.Now.Format(time.RFC3339), e.Newest.Format(time.RFC3339))
}

// Open takes the store over with a new epoch, reads back what is true, and resolves every hold of earlier epochs by the
// platform-fault rule of its price book: the engine connections died with the process that made them.
func Open(store Store, opt Options) (*Ledger, error) {
	epoch, lastAt, err := store.Start(opt.Shard)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the ledger: %w", err)
	}
	opt.Retention = max(opt.Retention, minRetention)
	l := &Ledger{
		store: store, opt: opt, epoch: epoch, orgs: map[orgID]*org{}, steps: map[string][]PriceStep{},
		pending: newGroup(nil), wake: make(chan struct{}, 1), large: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	wrongClock, err := l.readClock(lastAt)
	if err != nil {
		return nil, err
	}
	if err := l.read(); err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	var lost []Loss
	if opt.Witness != nil {
		if lost, err = l.witnessed(opt.Witness); err != nil {
			return nil, fmt.Errorf("cannot compare the ledger with its witness: %w", err)
		}
		if len(lost) > 0 && opt.Rollback == nil {
			return nil, &RollbackError{opt.Witness.At, lost}
		}
	}
	l.watchDisk()
	go l.run()
	if err := l.resolve(func() { l.overrides(lost, wrongClock) }); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot resolve the holds of earlier epochs: %w", err)
	}
	return l, nil
}

// readClock compares the clock with the newest entry. Where it cannot be trusted but is to be, it returns the newest
// entry's time.
func (l *Ledger) readClock(lastAt int64) (wrong time.Time, err error) {
	now, newest := l.opt.Clock.Now().UTC(), minClock
	if lastAt > 0 {
		newest = time.UnixMicro(lastAt).UTC()
		if !l.opt.TrustClock {
			l.last = newest
		}
	}
	switch {
	case !now.Before(newest.Add(-maxClockLag)):
		return time.Time{}, nil
	case !l.opt.TrustClock:
		return time.Time{}, &ClockError{now, newest}
	}
	return newest, nil
}

// read folds the definitions, the heads, the balances and the open holds.
func (l *Ledger) read() error {
	if err := l.store.Definitions(l.define); err != nil {
		return err
	}
	heads, err := l.store.Heads()
	if err != nil {
		return err
	}
	for _, head := range heads {
		o := l.organisation(head.Org)
		o.seq, o.hash = head.Seq, head.Hash
		if err := l.store.Entries(o.id, head.OpenFrom, o.fold); err != nil {
			return fmt.Errorf("organisation %d: %w", o.id, err)
		}
		if err := l.readBalances(o); err != nil {
			return err
		}
	}
	return nil
}

// define reads back one defining entry.
func (l *Ledger) define(row EntryRow) error {
	if row.Kind != KindStep {
		return l.organisation(row.Org).define(row)
	}
	h, d, err := open(row.Body)
	if err == nil {
		l.addStep(readStep(h, d))
		err = d.err
	}
	if err != nil {
		return fmt.Errorf("the operator's log, entry %d: %w", row.Seq, err)
	}
	return nil
}

// define reads back one defining entry of an organisation.
func (o *org) define(row EntryRow) error {
	h, d, err := open(row.Body)
	if err != nil {
		return fmt.Errorf("organisation %d, entry %d: %w", row.Org, row.Seq, err)
	}
	switch h.Kind {
	case KindSubject:
		num := d.uint()
		text := string(d.b)
		o.subjects = append(o.subjects, readSubject(d, o.id))
		o.subjectNum[text] = num
	case KindRow:
		num := d.uint()
		text := string(d.b)
		o.rows = append(o.rows, readRow(d))
		o.rowNum[text] = num
	case KindLimit:
		num, removed, q := readLimit(d, o.id)
		if d.err != nil {
			break
		}
		zone, err := checkLimit(&q, map[string]*time.Location{})
		if err != nil {
			d.fail(err)
			break
		}
		want := &wantedLimit{q, q.Identity(), zone}
		lim := o.limitByID[want.id]
		if lim == nil {
			lim = o.addLimit(num, want)
		}
		lim.change(want)
		lim.removed = removed
	case KindPeriod:
		o.spans = append(o.spans, readPeriod(d))
	case KindNotice:
		o.readNotice(h.At, d)
	case KindCorrection:
		c, _ := readCorrection(h, d)
		o.corrections = append(o.corrections, c)
	case KindCounter:
		num := d.uint()
		c := readCounter(d)
		if d.err == nil {
			if err := o.addCounter(num, c); err != nil {
				d.fail(err)
			}
		}
	}
	if d.err != nil {
		return fmt.Errorf("organisation %d, entry %d: %w", row.Org, row.Seq, d.err)
	}
	return nil
}

// readBalances reads the balances that can still change: those of running periods, and those that open holds stand on,
// which foldHold has named without their values.
func (l *Ledger) readBalances(o *org) error {
	needed := map[int64]bool{}
	for _, p := range o.spans {
		needed[p.num] = p.End.IsZero() || p.End.After(l.last.Add(-maxClockLag))
	}
	missing := map[balanceKey]bool{}
	for _, h := range o.open {
		for _, t := range h.touched {
			needed[t.balance.period.num] = true
			missing[balanceKey{t.balance.limit.num, t.balance.period.num}] = true
		}
		for _, c := range h.counted {
			needed[c.period.num] = true
			missing[balanceKey{c.limit.num, c.period.num}] = true
		}
	}
	var periods []int64
	for _, p := range o.spans {
		if needed[p.num] {
			periods = append(periods, p.num)
		}
	}
	rows, err := l.store.Balances(o.id, periods)
	if err != nil {
		return err
	}
	for key := range o.balances {
		if !missing[key] { // named by a hold that was settled further on: its value is read when it is among rows
			delete(o.balances, key)
		}
	}
	for _, row := range rows {
		b, err := o.named(row.Limit, row.Period)
		if err != nil {
			return err
		}
		b.Used, b.Held = row.Used, row.Held
		delete(missing, balanceKey{row.Limit, row.Period})
	}
	if len(missing) > 0 {
		return fmt.Errorf("organisation %d: open holds stand on %d balances that the tables lack: run `talea ledger rebuild`", o.id, len(missing))
	}
	return nil
}

// named returns the balance of a limit and a period by their numbers.
func (o *org) named(lim, per int64) (*balance, error) {
	key := balanceKey{lim, per}
	if b := o.balances[key]; b != nil {
		return b, nil
	}
	if n := -lim; n > 0 && n <= int64(len(o.counters)) && per > 0 && per <= int64(len(o.spans)) {
		o.balances[key] = &balance{limit: o.counters[n-1], period: o.spans[per-1]}
		return o.balances[key], nil
	}
	if lim < 1 || lim > int64(len(o.limitList)) || per < 1 || per > int64(len(o.spans)) {
		return nil, fmt.Errorf("organisation %d: limit %d and period %d are not defined in its log: run `talea ledger check`", o.id, lim, per)
	}
	b := &balance{limit: o.limitList[lim-1], period: o.spans[per-1]}
	o.balances[key] = b
	return b, nil
}

// fold reads back one entry about a request, so that after the last one o.open holds what was never settled.
func (o *org) fold(row EntryRow) error {
	h, d, err := open(row.Body)
	if err != nil {
		return fmt.Errorf("entry %d: %w", row.Seq, err)
	}
	open := o.open[h.Request]
	switch h.Kind {
	case KindHold:
		err = o.foldHold(h, d, row.Seq)
	case KindSettle, KindVoid:
		if open != nil {
			open.Status = usage.Posted
			delete(o.open, h.Request)
		}
	case KindExtend:
		if open != nil {
			more, cost := d.bounds(), d.amount()
			open.extend(more, cost)
			touched := d.touched()
			if len(touched) != len(open.touched) {
				return fmt.Errorf("entry %d: it is of %d limits, its hold of %d", row.Seq, len(touched), len(open.touched))
			}
			for i, t := range touched {
				open.touched[i].held = open.touched[i].held.Add(t.Held)
			}
		}
	case KindCheckpoint:
		if open != nil {
			open.mark = d.counts()
			d.byte() // its source: a settlement at a checkpoint says "checkpoint"
		}
	}
	if err == nil {
		err = d.err
	}
	if err != nil {
		return fmt.Errorf("entry %d: %w", row.Seq, err)
	}
	return nil
}

func (o *org) foldHold(head header, d *decoder, seq int64) error {
	h, touched := readHold(d)
	counted := d.counted()
	if d.err != nil {
		return d.err
	}
	if h.subject < 1 || h.subject > int64(len(o.subjects)) || h.rowNum < 1 || h.rowNum > int64(len(o.rows)) {
		return fmt.Errorf("hold names subject %d and price row %d, which the log does not define", h.subject, h.rowNum)
	}
	h.org, h.seq, h.Status = o, seq, usage.Held
	h.ID, h.Admission.At = head.Request, head.At
	h.Subject, h.row = o.subjects[h.subject-1], o.rows[h.rowNum-1]
	h.PriceRow, h.Multiplier = h.row.ID, h.row.Multiplier
	for _, t := range touched {
		b, err := o.named(t.Limit, t.Period)
		if err != nil {
			return err
		}
		h.touched = append(h.touched, touch{b, t.Held})
	}
	counts := 0
	for i := range h.row.Forms {
		if h.row.Forms[i].Counter != "" {
			counts++
		}
	}
	if counts != len(counted) {
		return fmt.Errorf("hold names %d counters, its price row has %d", len(counted), counts)
	}
	for _, c := range counted {
		b, err := o.named(-c[0], c[1])
		if err != nil {
			return err
		}
		h.counted = append(h.counted, b)
	}
	o.open[h.ID] = h
	o.queue = append(o.queue, pin{seq, h.ID})
	return nil
}

// resolve settles what earlier epochs left open, by the ordinary path, and then does what else is to be in the first group.
func (l *Ledger) resolve(then func()) error {
	l.mu.Lock()
	l.recovered.Epoch = l.epoch
	for _, o := range l.sortedOrgs() {
		for _, p := range o.queue {
			h := o.open[p.id]
			if h == nil {
				continue
			}
			delivered := h.mark.Output()
			if !h.Stream {
				delivered = 0 // of a whole answer nothing is sent before it is settled
			}
			l.post(h, &usage.Result{
				Counts: h.mark, Source: usage.Checkpoint, Delivered: delivered,
				Outcome: usage.Broken, Fault: usage.Gateway, Flags: usage.FlagResolvedStart,
			})
			if h.Status == usage.Posted {
				l.recovered.Posted++
			} else {
				l.recovered.Voided++
			}
		}
	}
	then()
	g := l.pending
	idle := g.empty()
	l.mu.Unlock()
	if idle {
		return nil
	}
	return l.await(g)
}
