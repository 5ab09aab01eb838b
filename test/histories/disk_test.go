package histories

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/store/storetest"
	"talea/internal/usage"
)

// disk is what survives a process: everything that store/sqlite keeps, in memory.
type disk struct {
	mu       sync.Mutex // guards all below
	epoch    int64
	lastAt   int64
	full     bool
	spare    int                              // bytes of entries that still fit when it is full
	entries  map[account.ID][]ledger.EntryRow // by seq - 1
	about    map[usage.ID][]ledger.EntryRow
	heads    map[account.ID]ledger.HeadRow
	balances map[[3]int64]ledger.BalanceRow
	usage    map[[3]int64]ledger.UsageRow
	refusals map[int64]ledger.RefusalRow
	objects  map[ledger.ObjectRef]ledger.Object
}

func newDisk() *disk {
	return &disk{
		entries: map[account.ID][]ledger.EntryRow{}, about: map[usage.ID][]ledger.EntryRow{}, heads: map[account.ID]ledger.HeadRow{},
		balances: map[[3]int64]ledger.BalanceRow{}, usage: map[[3]int64]ledger.UsageRow{},
		refusals: map[int64]ledger.RefusalRow{}, objects: map[ledger.ObjectRef]ledger.Object{},
	}
}

// has reports whether an entry of one of these kinds about a request is on the disk.
func (d *disk) has(id usage.ID, kinds ...ledger.Kind) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.about[id], func(e ledger.EntryRow) bool { return slices.Contains(kinds, e.Kind) })
}

// store is one process's way to the disk.
type store struct {
	*disk
	failed error
	// fate is asked at every Append what becomes of it; nil is nothing unusual.
	fate func() fate
}

// fate of a batch: whether it reaches the disk, and whether its writer is told that it did.
type fate struct {
	kept bool
	err  error
}

func (s *store) Start(int64) (epoch, lastAt int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	return s.epoch, s.lastAt, nil
}

func (s *store) Append(_, epoch int64, b *ledger.Batch) error {
	if s.failed != nil {
		return s.failed
	}
	f := fate{kept: true}
	if s.fate != nil {
		f = s.fate()
	}
	if f.kept {
		if err := s.commit(epoch, b); errors.Is(err, ledger.ErrFull) && f.err == nil {
			return err
		} else if err != nil {
			s.failed = err
		}
	}
	if f.err != nil {
		s.failed = f.err
	}
	return s.failed
}

// commit writes all of a batch or nothing.
func (s *store) commit(epoch int64, b *ledger.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		return fmt.Errorf("epoch %d is over: another owner has begun a newer one", epoch)
	}
	next := map[account.ID]int64{}
	for _, e := range b.Entries {
		rows := s.entries[e.Org]
		if next[e.Org]++; e.Seq <= int64(len(rows)) {
			return fmt.Errorf("entry %d of organisation %d is there already", e.Seq, e.Org)
		}
	}
	if size := sizeOf(b); s.full && size > s.spare {
		return ledger.ErrFull
	} else if s.full {
		s.spare -= size
	}
	s.lastAt = b.At
	for _, e := range b.Entries {
		e.Body = slices.Clone(e.Body)
		s.entries[e.Org] = append(s.entries[e.Org], e)
		if e.Request != 0 {
			s.about[e.Request] = append(s.about[e.Request], e)
		}
	}
	s.derived(b)
	for _, r := range b.Refusals {
		r.Body = slices.Clone(r.Body)
		s.refusals[r.Slot] = r
	}
	for _, o := range b.Objects {
		if o.Body != nil {
			o.Body = append([]byte{}, o.Body...)
		}
		s.objects[ledger.ObjectRef{Kind: o.Kind, Name: o.Name}] = o
	}
	return nil
}

func sizeOf(b *ledger.Batch) (n int) {
	for _, e := range b.Entries {
		n += len(e.Body)
	}
	for _, o := range b.Objects {
		n += len(o.Body)
	}
	return n
}

// reserve is what is kept free for a full disk.
const reserve = 1 << 20

func (s *store) Reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return ledger.ErrFull
	}
	s.spare = reserve
	return nil
}

// setFull fills the disk, all but the reserve or even that, or makes room.
func (d *disk) setFull(full, reserveToo bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
	if reserveToo {
		d.spare = 0
	}
}

// derived writes what follows from entries. The caller holds mu.
func (s *store) derived(b *ledger.Batch) {
	for _, h := range b.Heads {
		s.heads[h.Org] = h
	}
	for _, r := range b.Balances {
		s.balances[[3]int64{int64(r.Org), r.Limit, r.Period}] = r
	}
	for _, r := range b.Usage {
		key := [3]int64{int64(r.Org), r.Subject, r.Bucket}
		if old, ok := s.usage[key]; ok {
			r.Requests += old.Requests
			r.Voided += old.Voided
			for m := range r.Counts {
				r.Counts[m] += old.Counts[m]
			}
			r.Charge = r.Charge.Add(old.Charge)
		}
		s.usage[key] = r
	}
}

// sorted returns the values of a map by their keys.
func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []V {
	keys := slices.SortedFunc(maps.Keys(m), compare)
	out := make([]V, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}

func compareKeys(a, b [3]int64) int { return slices.Compare(a[:], b[:]) }

func (s *store) Heads() ([]ledger.HeadRow, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.heads, cmp.Compare), nil
}

func (s *store) Balances(org account.ID, periods []int64) (out []ledger.BalanceRow, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range sorted(s.balances, compareKeys) {
		if r.Org == org && slices.Contains(periods, r.Period) {
			out = append(out, r)
		}
	}
	return out, nil
}

// all returns every entry, by organisation and seq.
func (s *store) all() (out []ledger.EntryRow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rows := range sorted(s.entries, cmp.Compare) {
		out = append(out, rows...)
	}
	return out
}

func visit(rows []ledger.EntryRow, visit func(ledger.EntryRow) error) error {
	for _, e := range rows {
		e.Body = slices.Clone(e.Body)
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) Definitions(f func(ledger.EntryRow) error) error {
	return visit(slices.DeleteFunc(s.all(), func(e ledger.EntryRow) bool { return e.Kind >= 16 }), f)
}

func (s *store) Entries(org account.ID, from int64, f func(ledger.EntryRow) error) error {
	s.mu.Lock()
	rows := s.entries[org]
	s.mu.Unlock()
	return visit(rows[min(int64(len(rows)), max(0, from-1)):], f)
}

func (s *store) ByRequest(id usage.ID, f func(ledger.EntryRow) error) error {
	s.mu.Lock()
	rows := s.about[id]
	s.mu.Unlock()
	return visit(rows, f)
}

func (s *store) ByIdempotency(key string) (id usage.ID, err error) {
	for _, e := range s.all() {
		if e.Idempotency == key && key != "" {
			id = e.Request
		}
	}
	return id, nil
}

func (s *store) Usage(org account.ID, from, to int64, f func(ledger.UsageRow) error) error {
	s.mu.Lock()
	rows := sorted(s.usage, compareKeys)
	s.mu.Unlock()
	for _, r := range rows {
		if (org == 0 || r.Org == org) && from <= r.Bucket && r.Bucket < to {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *store) Refusal(id usage.ID) (body []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range sorted(s.refusals, cmp.Compare) {
		if r.Request == id {
			body = r.Body
		}
	}
	return body, nil
}

func (s *store) Objects() ([]ledger.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sorted(s.objects, func(a, b ledger.ObjectRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	}), nil
}

func (s *store) Close() error { return nil }

func (s *store) Snapshot(v *ledger.Visitor) error {
	s.mu.Lock()
	epoch, lastAt := s.epoch, s.lastAt
	heads, balances, sums := sorted(s.heads, cmp.Compare), sorted(s.balances, compareKeys), sorted(s.usage, compareKeys)
	var entries [][]ledger.EntryRow
	for _, rows := range sorted(s.entries, cmp.Compare) {
		entries = append(entries, rows)
	}
	s.mu.Unlock()
	err := v.Meta(epoch, lastAt)
	for _, rows := range entries {
		err = each(rows, v.Entry, err)
	}
	err = each(heads, v.Head, err)
	err = each(balances, v.Balance, err)
	return each(sums, v.Usage, err)
}

// each visits rows unless there was an error before.
func each[T any](rows []T, visit func(T) error, err error) error {
	for i := 0; i < len(rows) && err == nil; i++ {
		err = visit(rows[i])
	}
	return err
}

func (s *store) Derive(fold func(entries func(visit func(ledger.EntryRow) error) error) (*ledger.Batch, error)) error {
	b, err := fold(func(f func(ledger.EntryRow) error) error { return visit(s.all(), f) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.heads)
	clear(s.balances)
	clear(s.usage)
	s.derived(b)
	return nil
}

// The simulated disk is a store like any other.
func TestDisk(t *testing.T) {
	disks := map[string]*disk{}
	storetest.Run(t, func(_ testing.TB, place string) storetest.Backend {
		if disks[place] == nil {
			disks[place] = newDisk()
		}
		return &store{disk: disks[place]}
	})
}

// What a batch that fails leaves behind is all of it or nothing, and nothing comes after it.
func TestFates(t *testing.T) {
	for _, f := range []fate{{true, nil}, {false, errors.New("lost")}, {true, errors.New("kept")}} {
		s := &store{disk: newDisk(), fate: func() fate { return f }}
		epoch, _, _ := s.Start(0)
		row := ledger.EntryRow{Org: 1, Seq: 1, Kind: ledger.KindHold, Request: 7, Body: []byte("hold")}
		if err := s.Append(0, epoch, &ledger.Batch{At: 1, Entries: []ledger.EntryRow{row}}); !errors.Is(err, f.err) {
			t.Errorf("%+v: %v", f, err)
		}
		if s.has(7, ledger.KindHold) != f.kept || f.kept && !bytes.Equal(s.all()[0].Body, row.Body) {
			t.Errorf("%+v: the disk has %v", f, s.all())
		}
		if f.err != nil && s.Append(0, epoch, &ledger.Batch{At: 2}) == nil {
			t.Errorf("%+v: written to after a failed append", f)
		}
	}
}
