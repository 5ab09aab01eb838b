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
// is judged by the new limits. A limit whose identity is known keeps its number and what was used of it.
// On an error nothing has changed. It may be called concurrently with everything else.
func (l *Ledger) Publish(ctx context.Context, p Publication) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	wanted, err := checkLimits(p.Limits)
	if err != nil {
		return err
	}
	g, err := l.change(wanted, p.Objects)
	if err != nil || g == nil {
		return err
	}
	return l.await(g)
}

// change decides a publication. It returns the group that makes it durable, nil where there never was one.
func (l *Ledger) change(wanted []wantedLimit, objects []Object) (*group, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return nil, err
	}
	at := l.now()
	var waited []*balance
	kept := make(map[string]bool, len(wanted))
	for i := range wanted {
		kept[wanted[i].id] = true
		waited = append(waited, l.setLimit(l.organisation(wanted[i].Org), at, &wanted[i]))
	}
	for _, o := range l.sortedOrgs() {
		for _, lim := range o.limitList {
			if !lim.removed && !kept[lim.id] {
				waited = append(waited, l.removeLimit(o, at, lim))
			}
		}
	}
	for _, b := range waited { // only now: nobody is judged by half of a publication
		if b != nil {
			l.serve(b)
		}
	}
	l.pending.Objects = append(l.pending.Objects, objects...)
	if l.pending.empty() {
		return l.newest, nil // nothing differs from what was decided before, which may not be on disk yet
	}
	return l.pending, nil
}

// wantedLimit is a limit of a publication with what is slow to find out.
type wantedLimit struct {
	quota.Limit
	id   string
	zone *time.Location
}

// checkLimits checks the limits of a publication, and sorts them by path.
func checkLimits(limits []quota.Limit) ([]wantedLimit, error) {
	wanted := make([]wantedLimit, 0, len(limits))
	seen := make(map[string]bool, len(limits))
	zones := map[string]*time.Location{}
	for i := range limits {
		lim := &limits[i]
		id := lim.Identity()
		if seen[id] {
			return nil, fmt.Errorf("two limits of %s have the same measure, window and narrowing: %s per %s", lim.Path, lim.Measure, lim.Window)
		}
		seen[id] = true
		zone, err := checkLimit(lim, zones)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, wantedLimit{*lim, id, zone})
	}
	slices.SortFunc(wanted, func(a, b wantedLimit) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.id, b.id)) })
	return wanted, nil
}

// checkLimit checks a limit and returns its time zone, which it looks up in zones first.
func checkLimit(lim *quota.Limit, zones map[string]*time.Location) (zone *time.Location, err error) {
	if zone = zones[lim.Zone]; zone == nil {
		if zone, err = period.Zone(lim.Zone); err != nil {
			return nil, fmt.Errorf("limit of %s: %w", lim.Path, err)
		}
		zones[lim.Zone] = zone
	}
	if _, ok := quota.ParseMeasure(lim.Measure.String()); !ok {
		return nil, fmt.Errorf("limit of %s: measure %d is not known", lim.Path, lim.Measure)
	}
	if _, err := period.Parse(lim.Window.String()); err != nil {
		return nil, fmt.Errorf("limit of %s: window %d is not known", lim.Path, lim.Window)
	}
	if !lim.Anchor.Fits(lim.Window) {
		return nil, fmt.Errorf("limit of %s: anchor %d does not fit the window %s", lim.Path, lim.Anchor, lim.Window)
	}
	if _, ok := quota.ParseAction(lim.Action.String()); !ok || (lim.Action == quota.Degrade) != (lim.DegradeTo != "") {
		return nil, fmt.Errorf("limit of %s: action %d to %q is not one", lim.Path, lim.Action, lim.DegradeTo)
	}
	if lim.Measure == quota.GPUSeconds && lim.Action != quota.AlertOnly {
		return nil, fmt.Errorf("limit of %s: gpu_seconds can only alert", lim.Path)
	}
	if lim.Amount.Sign() < 0 {
		return nil, fmt.Errorf("limit of %s: amount is negative", lim.Path)
	}
	if lim.Org <= 0 || lim.Account <= 0 {
		return nil, fmt.Errorf("limit of %s: account without a number", lim.Path)
	}
	return zone, nil
}

// setLimit defines a limit or changes its amount or label. It returns the balance whose waiters are to be judged anew,
// nil for none. The caller holds l.mu.
func (l *Ledger) setLimit(o *org, at time.Time, want *wantedLimit) (waited *balance) {
	lim := o.limitByID[want.id]
	if lim == nil {
		lim = o.addLimit(int64(len(o.limitList))+1, want)
	} else if !lim.removed && lim.Same(&want.Limit) {
		return nil
	} else {
		waited = lim.current
		lim.change(want)
	}
	l.writeLimit(o, at, lim)
	if b := o.peek(lim, at); b != nil {
		l.reached(o, b, at, 0)
	}
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
