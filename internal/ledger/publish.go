package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"talea/internal/period"
	"talea/internal/quota"
)

// Publication is a change of the world: the objects to write or delete, and the whole set of limits that holds from now on.
type Publication struct {
	Objects []Object // Body nil deletes
	Limits  []quota.Limit
}

// Objects returns everything that was published, deleted objects included, by kind and name.
func (l *Ledger) Objects() ([]Object, error) {
	objects, err := l.store.Objects()
	if err != nil {
		return nil, fmt.Errorf("cannot read the world: %w", err)
	}
	return objects, nil
}

// Publish makes a change of the world durable: on return without an error it is on disk, and every hold decided later
// is judged by the new limits. A limit that is known by its key keeps its number and what was used of it.
// On an error nothing has changed. It may be called concurrently with everything else.
func (l *Ledger) Publish(ctx context.Context, p Publication) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkLimits(p.Limits); err != nil {
		return err
	}
	g, err := l.change(&p)
	if err != nil || g == nil {
		return err
	}
	return l.await(g)
}

// change decides a publication. It returns no group where nothing differs and nothing is pending.
func (l *Ledger) change(p *Publication) (*group, error) {
	limits := slices.SortedFunc(slices.Values(p.Limits), func(a, b quota.Limit) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Key(), b.Key()))
	})
	l.mu.Lock()
	defer l.unlock()
	if l.failed != nil {
		return nil, l.unavailable()
	}
	at := l.now()
	var waited []*balance
	wanted := make(map[string]bool, len(limits))
	for i := range limits {
		wanted[limits[i].Key()] = true
		o := l.organisation(limits[i].Org)
		waited = append(waited, l.setLimit(o, at, &limits[i]))
	}
	for _, o := range l.sortedOrgs() {
		for _, lim := range o.limitList {
			if !lim.removed && !wanted[lim.Key()] {
				waited = append(waited, l.removeLimit(o, at, lim))
			}
		}
	}
	for _, b := range waited { // only now: nobody is judged by half of a publication
		if b != nil {
			l.serve(b)
		}
	}
	l.pending.Objects = append(l.pending.Objects, p.Objects...)
	if l.pending.empty() {
		return nil, nil
	}
	return l.pending, nil
}

func checkLimits(limits []quota.Limit) error {
	seen := make(map[string]bool, len(limits))
	for i := range limits {
		lim := &limits[i]
		if seen[lim.Key()] {
			return fmt.Errorf("two limits of %s have the same measure, window and narrowing: %s per %s", lim.Path, lim.Measure, lim.Window)
		}
		seen[lim.Key()] = true
		if err := checkLimit(lim); err != nil {
			return err
		}
	}
	return nil
}

func checkLimit(lim *quota.Limit) error {
	if _, err := period.Zone(lim.Zone); err != nil {
		return fmt.Errorf("limit of %s: %w", lim.Path, err)
	}
	if _, ok := quota.ParseMeasure(lim.Measure.String()); !ok {
		return fmt.Errorf("limit of %s: measure %d is not known", lim.Path, lim.Measure)
	}
	if _, err := period.Parse(lim.Window.String()); err != nil {
		return fmt.Errorf("limit of %s: window %d is not known", lim.Path, lim.Window)
	}
	if lim.Amount.Sign() < 0 {
		return fmt.Errorf("limit of %s: amount is negative", lim.Path)
	}
	if lim.Org <= 0 || lim.Account <= 0 {
		return fmt.Errorf("limit of %s: account without a number", lim.Path)
	}
	return nil
}

// setLimit defines a limit or changes its amount or label. It returns the balance whose waiters are to be judged anew,
// nil for none. The caller holds l.mu.
func (l *Ledger) setLimit(o *org, at time.Time, want *quota.Limit) (waited *balance) {
	lim := o.limitByKey[want.Key()]
	if lim == nil {
		lim = o.addLimit(int64(len(o.limitList))+1, *want)
	} else if !lim.removed && lim.Amount == want.Amount && lim.Path == want.Path && lim.Zone == want.Zone {
		return nil
	} else {
		waited = lim.current
		lim.change(*want)
	}
	l.writeLimit(o, at, lim)
	return waited
}

// removeLimit takes a limit out of force; what was used of it is kept. It returns what setLimit returns. The caller holds l.mu.
func (l *Ledger) removeLimit(o *org, at time.Time, lim *limit) *balance {
	lim.removed = true
	l.writeLimit(o, at, lim)
	return lim.current
}

func (l *Ledger) writeLimit(o *org, at time.Time, lim *limit) {
	b := l.begin(o, KindLimit, at, 0)
	l.end(o, KindLimit, 0, appendLimit(b, lim))
}
