package world

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"talea/internal/catalog"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/resource"
	"talea/internal/usage"
)

// draft is a change in the making: the items as they would be, and the snapshot that follows from them. Nothing of it is
// seen by anybody before it is committed.
type draft struct {
	items     items
	lastID    map[string]int64
	secrets   Secrets
	now       time.Time
	file      string // "" for a change that comes from no file
	managedBy string

	at       map[ledger.ObjectRef]resource.Pos // where the file has an item
	changed  map[ledger.ObjectRef]bool
	plan     Plan
	errs     resource.Errors
	snapshot *Snapshot
}

// put makes an item what it is to be: new, changed, or as it was.
func (d *draft) put(it *item, pos resource.Pos) {
	ref := it.ref()
	if pos != (resource.Pos{}) {
		d.at[ref] = pos
	}
	old := d.items[ref]
	live := old != nil && old.Body != nil
	if key, ok := it.value.(*keyBody); ok {
		var before *keyBody
		if live {
			before = old.value.(*keyBody)
		}
		key.stamp(before, d.now)
		it.write()
	}
	change := Change{Action: unchanged, Kind: ref.Kind, Name: ref.Name}
	switch {
	case !live:
		change.Action = created
		d.lastID[ref.Kind]++
		it.ID, it.ManagedBy = d.lastID[ref.Kind], d.managedBy
	case bytes.Equal(old.Body, it.Body):
		it = old
	case old.ManagedBy != d.managedBy:
		d.fault(ref, "it is managed by %s and cannot be changed by %s", old.ManagedBy, d.managedBy)
		return
	default:
		change.Action, change.Detail = updated, difference(ref.Kind, old.Body, it.Body)
		it.ID, it.ManagedBy = old.ID, old.ManagedBy
	}
	d.items[ref] = it
	d.record(change)
}

// record takes a change into the plan. Versions of price books are archived, and shown as a change of their book.
func (d *draft) record(c Change) {
	if c.Action != unchanged {
		d.changed[ledger.ObjectRef{Kind: c.Kind, Name: c.Name}] = true
	}
	if c.Kind != kindVersion {
		d.plan.Changes = append(d.plan.Changes, c)
	}
}

// prune deletes what the file's owner has and the file has not.
func (d *draft) prune() {
	for _, kind := range kinds {
		for _, old := range d.items.sorted(kind) {
			ref := old.ref()
			if _, kept := d.at[ref]; kept || kind == kindVersion || old.ManagedBy != d.managedBy {
				continue
			}
			d.remove(old)
		}
	}
}

// remove deletes an item.
func (d *draft) remove(old *item) {
	d.items[old.ref()] = &item{Object: ledger.Object{Kind: old.Kind, Name: old.Name, ID: old.ID, ManagedBy: old.ManagedBy}}
	d.record(Change{Action: deleted, Kind: old.Kind, Name: old.Name})
}

// objects are what has changed, in the order of kinds and names.
func (d *draft) objects() []ledger.Object {
	var list []ledger.Object
	for ref := range d.changed {
		list = append(list, d.items[ref].Object)
	}
	slices.SortFunc(list, func(a, b ledger.Object) int {
		return cmp.Or(slices.Index(kinds, a.Kind)-slices.Index(kinds, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// fault says what is wrong with an item, where the file has it.
func (d *draft) fault(ref ledger.ObjectRef, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	pos, here := d.at[ref]
	where := ""
	if !here && d.file != "" {
		pos, where = resource.Pos{File: d.file, Line: 1, Column: 1}, " (not in this file)"
	}
	d.errs.Add(pos.Errorf("%s %q%s: %s", ref.Kind, ref.Name, where, text))
}

// err is every fault, with positions where there is a file.
func (d *draft) err() error {
	if d.file != "" {
		return d.errs.Err()
	}
	var list []error
	for _, e := range d.errs {
		list = append(list, errors.New(e.Msg))
	}
	return errors.Join(list...)
}

// unknown says that an item refers to one that is not there.
func (d *draft) unknown(kind, name string) string {
	ref := ledger.ObjectRef{Kind: kind, Name: name}
	if d.changed[ref] && !d.items.live(ref) {
		return fmt.Sprintf("it refers to %s %q, which this change deletes", kind, name)
	}
	return fmt.Sprintf("unknown %s %q%s", kind, name, suggest(name, d.items.names(kind)))
}

// note adds to the plan what is allowed and probably not meant.
func (d *draft) note(file []wanted) {
	for _, it := range file {
		switch v := it.value.(type) {
		case *catalog.Model:
			q := queryOf(d.snapshot.models[it.Name], &catalog.Engine{})
			if !slices.ContainsFunc(d.snapshot.books, func(b *price.Book) bool { return b.Names(q) }) {
				d.plan.Notes = append(d.plan.Notes, fmt.Sprintf("model %q has a price in no price book, so nobody can use it", it.Name))
			}
		case *bookBody:
			if !slices.ContainsFunc(d.snapshot.versions(v), func(b *price.Book) bool { return b.InForce(d.now) }) {
				d.plan.Notes = append(d.plan.Notes, fmt.Sprintf("price book %q is not in force now: until it is, its models are refused", it.Name))
			}
			d.noteBook(it.Name)
		case *keyBody:
			d.limitNotes(fmt.Sprintf("key %q", it.Name), v.Limits)
		case *accountBody:
			d.limitNotes(fmt.Sprintf("account %q", it.Name), v.Limits)
			for _, region := range v.Regions {
				if !slices.ContainsFunc(d.snapshot.engineList, func(e *catalog.Engine) bool { return e.Region == region }) {
					d.plan.Notes = append(d.plan.Notes, fmt.Sprintf("account %q allows region %q, where no engine stands", it.Name, region))
				}
			}
		}
	}
}

// noteBook notes what a price book leaves out.
func (d *draft) noteBook(name string) {
	for _, b := range d.snapshot.books {
		if b.Name != name {
			continue
		}
		for _, model := range d.snapshot.modelNames {
			m := d.snapshot.models[model]
			row, err := b.Row(queryOf(m, d.snapshot.engines[m.Engines[0]]), b.From)
			if err == nil && !row.Has[usage.InputUncached] {
				d.plan.Notes = append(d.plan.Notes, fmt.Sprintf("price book %q has a price for model %q, but none for its input: its requests are refused", name, model))
			}
		}
	}
}
