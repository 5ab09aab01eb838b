// Package storetest is the one suite that every store of the ledger must pass. It says by example what the comments on
// ledger.Store, ledger.Reader and ledger.Rebuilder say in words. It does not test what is special to a store (that does
// the store's own test) or what the ledger decides (that does package ledger).
//
// # Invariants
//
//   - It knows nothing of any store but the three interfaces.
//   - A store that loses, doubles, reorders or half-writes a batch fails it.
//
// To add a store: call Run from its test.
//
// Start reading at Run.
package storetest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/usage"
)

// Backend is all that a store does.
type Backend interface {
	ledger.Store
	ledger.Reader
	ledger.Rebuilder
}

// Opener opens the store of a place, which is a directory of its own for each test: new, or as it was left there. It
// closes the store at the end of the test at the latest.
type Opener func(t testing.TB, place string) Backend

// Run runs the suite.
func Run(t *testing.T, open Opener) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"new", isEmpty},
		{"reads back what was appended", readsBack},
		{"finds idempotency keys", findsKeys},
		{"keeps it when closed", keeps},
		{"keeps extremes", keepsExtremes},
		{"keeps nothing of a batch's memory", copies},
		{"adds usage up", addsUsage},
		{"objects and refusals", objectsAndRefusals},
		{"fences earlier epochs", fences},
		{"takes a batch whole or not at all", atomic},
		{"readers see whole batches", snapshots},
		{"stops at a visitor's error", visitorErrors},
		{"derives anew", derives},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{t: t, place: t.TempDir(), open: open}
			s.reopen()
			test.run(t, s)
		})
	}
}

// suite is one test's store.
type suite struct {
	t     *testing.T
	place string
	open  Opener
	Backend
	epoch  int64
	lastAt int64
}

// reopen opens the store, again if it was open, and takes it over.
func (s *suite) reopen() {
	s.t.Helper()
	if s.Backend != nil {
		if err := s.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.Backend = s.open(s.t, s.place)
	var err error
	if s.epoch, s.lastAt, err = s.Start(0); err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) append(b *ledger.Batch) {
	s.t.Helper()
	if err := s.Append(0, s.epoch, b); err != nil {
		s.t.Fatal(err)
	}
}

// content is everything a store holds.
type content struct {
	Epoch, LastAt int64
	Entries       []ledger.EntryRow
	Heads         []ledger.HeadRow
	Balances      []ledger.BalanceRow
	Usage         []ledger.UsageRow
}

// all reads the snapshot.
func (s *suite) all() (c content) {
	s.t.Helper()
	err := s.Snapshot(&ledger.Visitor{
		Meta:    func(epoch, lastAt int64) error { c.Epoch, c.LastAt = epoch, lastAt; return nil },
		Entry:   func(e ledger.EntryRow) error { e.Body = slices.Clone(e.Body); return collect(&c.Entries)(e) },
		Head:    collect(&c.Heads),
		Balance: collect(&c.Balances),
		Usage:   collect(&c.Usage),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func collect[T any](into *[]T) func(T) error {
	return func(row T) error {
		*into = append(*into, row)
		return nil
	}
}

// visited collects what a reading method visits.
func visited[T any](t *testing.T, read func(func(T) error) error) (rows []T) {
	t.Helper()
	if err := read(collect(&rows)); err != nil {
		t.Fatal(err)
	}
	return rows
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func entry(org account.ID, seq int64, kind ledger.Kind, request usage.ID, body string) ledger.EntryRow {
	e := ledger.EntryRow{Org: org, Seq: seq, Kind: kind, Request: request, Body: []byte(body)}
	e.Hash[0], e.Hash[31] = byte(seq), byte(org)
	return e
}

func balance(org account.ID, lim, period, used, held int64) ledger.BalanceRow {
	return ledger.BalanceRow{Org: org, Limit: lim, Period: period, Used: money.Units(used), Held: money.Units(held)}
}

func summed(org account.ID, subject, bucket, requests int64) ledger.UsageRow {
	r := ledger.UsageRow{Org: org, Subject: subject, Bucket: bucket, Requests: requests, Voided: 2 * requests, Charge: money.Units(3 * requests)}
	for m := range r.Counts {
		r.Counts[m] = requests * int64(m+1)
	}
	return r
}

// sample is a batch with something of everything, in the order in which it is to be read back.
func sample() *ledger.Batch {
	keyed := entry(2, 2, ledger.KindHold, 78, "\x00\xff")
	keyed.Idempotency = "key"
	return &ledger.Batch{
		At: 5,
		Entries: []ledger.EntryRow{
			entry(1, 1, ledger.KindSubject, 0, "subject"), entry(1, 2, ledger.KindHold, 77, "hold"), entry(1, 3, ledger.KindSettle, 77, "settle"),
			entry(2, 1, ledger.KindLimit, 0, "limit"), keyed,
		},
		Heads:    []ledger.HeadRow{{Org: 1, Seq: 3, Hash: ledger.Hash{3}, OpenFrom: 4}, {Org: 2, Seq: 2, Hash: ledger.Hash{2}, OpenFrom: 2}},
		Balances: []ledger.BalanceRow{balance(1, 1, 1, 10, 0), balance(1, 1, 2, 20, 5), balance(1, 2, 2, 0, 0), balance(2, 1, 1, 7, 7)},
		Usage:    []ledger.UsageRow{summed(1, 1, 100, 1), summed(1, 1, 101, 2), summed(1, 2, 100, 3), summed(2, 1, 100, 4)},
	}
}

func isEmpty(t *testing.T, s *suite) {
	same(t, "epoch", s.epoch, 1)
	same(t, "content", s.all(), content{Epoch: 1})
	heads, err := s.Heads()
	if err != nil || len(heads) != 0 {
		t.Errorf("heads %v, %v", heads, err)
	}
	same(t, "entries", visited(t, func(v func(ledger.EntryRow) error) error { return s.Entries(1, 1, v) }), nil)
	same(t, "a request that never was", visited(t, func(v func(ledger.EntryRow) error) error { return s.ByRequest(77, v) }), nil)
	if body, err := s.Refusal(77); body != nil || err != nil {
		t.Errorf("refusal %q, %v", body, err)
	}
	if objects, err := s.Objects(); len(objects) != 0 || err != nil {
		t.Errorf("objects %v, %v", objects, err)
	}
}

func findsKeys(t *testing.T, s *suite) {
	s.append(sample())
	for key, want := range map[string]usage.ID{"key": 78, "none": 0, "": 0} {
		if id, err := s.ByIdempotency(key); id != want || err != nil {
			t.Errorf("request under idempotency key %q: %d, %v", key, id, err)
		}
	}
	again := entry(2, 3, ledger.KindHold, 79, "hold")
	again.Idempotency = "key"
	s.append(&ledger.Batch{At: 6, Entries: []ledger.EntryRow{again}})
	if id, err := s.ByIdempotency("key"); id != 79 || err != nil {
		t.Errorf("the newest request under a key: %d, %v", id, err)
	}
}

func readsBack(t *testing.T, s *suite) {
	b := sample()
	s.append(b)
	same(t, "content", s.all(), content{1, 5, b.Entries, b.Heads, b.Balances, b.Usage})
	heads, err := s.Heads()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "heads", heads, b.Heads)
	for _, x := range []struct {
		what string
		read func(func(ledger.EntryRow) error) error
		want []ledger.EntryRow
	}{
		{"entries of 1", func(v func(ledger.EntryRow) error) error { return s.Entries(1, 1, v) }, b.Entries[:3]},
		{"entries of 1 from 3", func(v func(ledger.EntryRow) error) error { return s.Entries(1, 3, v) }, b.Entries[2:3]},
		{"entries of 1 from 4", func(v func(ledger.EntryRow) error) error { return s.Entries(1, 4, v) }, nil},
		{"entries of 2", func(v func(ledger.EntryRow) error) error { return s.Entries(2, 1, v) }, b.Entries[3:]},
		{"request 77", func(v func(ledger.EntryRow) error) error { return s.ByRequest(77, v) }, b.Entries[1:3]},
		{"request 0", func(v func(ledger.EntryRow) error) error { return s.ByRequest(0, v) }, nil},
		{"definitions", s.Definitions, []ledger.EntryRow{b.Entries[0], b.Entries[3]}},
	} {
		same(t, x.what, visited(t, x.read), x.want)
	}
	for _, x := range []struct {
		org     account.ID
		periods []int64
		want    []ledger.BalanceRow
	}{
		{1, []int64{2}, b.Balances[1:3]},
		{1, []int64{1, 2, 3}, b.Balances[:3]},
		{1, nil, nil},
		{2, []int64{1}, b.Balances[3:]},
		{3, []int64{1}, nil},
	} {
		got, err := s.Balances(x.org, x.periods)
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("balances of %d in %v", x.org, x.periods), got, x.want)
	}
	for _, x := range []struct {
		org      account.ID
		from, to int64
		want     []ledger.UsageRow
	}{{0, 0, 999, b.Usage}, {1, 0, 999, b.Usage[:3]}, {1, 101, 102, b.Usage[1:2]}, {1, 99, 100, nil}, {2, 100, 101, b.Usage[3:]}} {
		got := visited(t, func(v func(ledger.UsageRow) error) error { return s.Usage(x.org, x.from, x.to, v) })
		same(t, fmt.Sprintf("usage of %d from %d to %d", x.org, x.from, x.to), got, x.want)
	}
}

func keeps(t *testing.T, s *suite) {
	b := sample()
	s.append(b)
	s.append(&ledger.Batch{At: 9, Balances: []ledger.BalanceRow{balance(1, 1, 1, 11, 1)}, Heads: []ledger.HeadRow{{Org: 1, Seq: 3, Hash: ledger.Hash{9}, OpenFrom: 1}}})
	b.Balances[0], b.Heads[0] = balance(1, 1, 1, 11, 1), ledger.HeadRow{Org: 1, Seq: 3, Hash: ledger.Hash{9}, OpenFrom: 1}
	s.reopen()
	same(t, "epoch and time", [2]int64{s.epoch, s.lastAt}, [2]int64{2, 9})
	same(t, "content", s.all(), content{2, 9, b.Entries, b.Heads, b.Balances, b.Usage})
}

func keepsExtremes(t *testing.T, s *suite) {
	most, least := money.FromFemto(math.MaxInt64, math.MaxUint64), money.FromFemto(math.MinInt64, 0)
	e := entry(1<<22, 1<<39, ledger.KindVoid, math.MaxInt64, "")
	e.Body = make([]byte, 1<<20)
	b := &ledger.Batch{
		At:       math.MaxInt64,
		Entries:  []ledger.EntryRow{e},
		Heads:    []ledger.HeadRow{{Org: 1 << 22, Seq: 1 << 39, OpenFrom: 1<<39 + 1}},
		Balances: []ledger.BalanceRow{{Org: 1 << 22, Limit: math.MaxInt64, Period: math.MaxInt64, Used: most, Held: least}},
		Usage:    []ledger.UsageRow{{Org: 1 << 22, Subject: math.MaxInt64, Bucket: math.MaxInt64 - 1, Requests: math.MaxInt64, Voided: math.MaxInt64, Charge: most}},
	}
	for m := range b.Usage[0].Counts {
		b.Usage[0].Counts[m] = math.MaxInt64 - int64(m)
	}
	s.append(b)
	same(t, "content", s.all(), content{1, math.MaxInt64, b.Entries, b.Heads, b.Balances, b.Usage})
}

func copies(t *testing.T, s *suite) {
	b, want := sample(), sample()
	s.append(b)
	for i := range b.Entries {
		clear(b.Entries[i].Body)
	}
	clear(b.Balances)
	same(t, "entries", s.all().Entries, want.Entries)
	same(t, "balances", s.all().Balances, want.Balances)
}

func addsUsage(t *testing.T, s *suite) {
	for n := int64(1); n <= 4; n++ {
		s.append(&ledger.Batch{Usage: []ledger.UsageRow{summed(1, 1, 100, n), summed(1, 2, 100, 1)}})
	}
	same(t, "usage", s.all().Usage, []ledger.UsageRow{summed(1, 1, 100, 10), summed(1, 2, 100, 4)})
}

func objectsAndRefusals(t *testing.T, s *suite) {
	first := []ledger.Object{
		{Kind: "a", Name: "x", ID: 1, ManagedBy: "file", Body: []byte("{}")}, {Kind: "a", Name: "y", ID: 2, ManagedBy: "api", Body: []byte("1")},
		{Kind: "b", Name: "a", ID: 1, ManagedBy: "file", Body: []byte{}},
	}
	s.append(&ledger.Batch{Objects: []ledger.Object{first[2], first[1], first[0]}, Refusals: []ledger.RefusalRow{{Slot: 0, Request: 5, Body: []byte("no")}, {Slot: 1, Request: 6, Body: []byte("nor")}}})
	first[1].Body, first[0].Body = nil, []byte("{2}")
	s.append(&ledger.Batch{Objects: first[:2], Refusals: []ledger.RefusalRow{{Slot: 0, Request: 7, Body: []byte("never")}}})
	s.reopen()
	got, err := s.Objects()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "objects", got, first)
	for id, want := range map[usage.ID]string{5: "", 6: "nor", 7: "never"} {
		body, err := s.Refusal(id)
		if err != nil || string(body) != want {
			t.Errorf("refusal of %d: %q, %v", id, body, err)
		}
	}
}

func fences(t *testing.T, s *suite) {
	s.append(sample())
	old := s.epoch
	epoch, lastAt, err := s.Start(0)
	if err != nil || epoch != old+1 || lastAt != 5 {
		t.Fatalf("taken over in epoch %d at %d: %v", epoch, lastAt, err)
	}
	if err := s.Append(0, old, &ledger.Batch{At: 6, Entries: []ledger.EntryRow{entry(1, 4, ledger.KindHold, 79, "late")}}); err == nil {
		t.Error("an owner whose epoch is over has written")
	}
	if err := s.Append(0, epoch, &ledger.Batch{At: 6}); err == nil {
		t.Error("written to after a failed append")
	}
	s.reopen()
	same(t, "content after it", len(s.all().Entries), 5)
	same(t, "time", s.lastAt, 5)
}

func atomic(t *testing.T, s *suite) {
	s.append(sample())
	want := s.all()
	b := &ledger.Batch{
		At:       6,
		Entries:  []ledger.EntryRow{entry(1, 4, ledger.KindHold, 79, "new"), entry(1, 2, ledger.KindHold, 80, "again")},
		Balances: []ledger.BalanceRow{balance(1, 1, 1, 99, 99)}, Usage: []ledger.UsageRow{summed(1, 1, 100, 1)},
	}
	if err := s.Append(0, s.epoch, b); err == nil {
		t.Fatal("an entry was written over")
	}
	if err := s.Append(0, s.epoch, &ledger.Batch{At: 7}); err == nil {
		t.Error("written to after a failed append")
	}
	same(t, "content", s.all(), want)
	s.reopen()
	want.Epoch++
	same(t, "content when opened again", s.all(), want)
}

func snapshots(t *testing.T, s *suite) {
	const last = 60
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := int64(1); n <= last; n++ {
			err := s.Append(0, s.epoch, &ledger.Batch{
				At: n, Entries: []ledger.EntryRow{entry(1, 2*n-1, ledger.KindHold, usage.ID(n), "a"), entry(1, 2*n, ledger.KindSettle, usage.ID(n), "b")},
				Heads: []ledger.HeadRow{{Org: 1, Seq: 2 * n}}, Balances: []ledger.BalanceRow{balance(1, 1, 1, n, 0)}, Usage: []ledger.UsageRow{summed(1, 1, 1, 1)},
			})
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for seen := int64(0); seen < last && !t.Failed(); {
		c := s.all()
		seen = int64(len(c.Entries)) / 2
		if seen == 0 {
			continue
		}
		want := content{s.epoch, seen, c.Entries, []ledger.HeadRow{{Org: 1, Seq: 2 * seen}}, []ledger.BalanceRow{balance(1, 1, 1, seen, 0)}, []ledger.UsageRow{summed(1, 1, 1, seen)}}
		same(t, "snapshot", c, want)
	}
	writer.Wait()
}

func visitorErrors(t *testing.T, s *suite) {
	s.append(sample())
	stop := errors.New("stop")
	visits := 0
	stopEntry := func(ledger.EntryRow) error { visits++; return stop }
	for what, err := range map[string]error{
		"entries":     s.Entries(1, 1, stopEntry),
		"definitions": s.Definitions(stopEntry),
		"by request":  s.ByRequest(77, stopEntry),
		"usage":       s.Usage(0, 0, 999, func(ledger.UsageRow) error { visits++; return stop }),
		"snapshot":    s.Snapshot(&ledger.Visitor{Meta: func(int64, int64) error { return nil }, Entry: stopEntry}),
	} {
		if !errors.Is(err, stop) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	same(t, "visits", visits, 5)
}

func derives(t *testing.T, s *suite) {
	b := sample()
	s.append(b)
	want := s.all()
	stop := errors.New("stop")
	err := s.Derive(func(func(func(ledger.EntryRow) error) error) (*ledger.Batch, error) { return nil, stop })
	if !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	same(t, "content after a failure", s.all(), want)
	for range 2 {
		err = s.Derive(func(entries func(func(ledger.EntryRow) error) error) (*ledger.Batch, error) {
			same(t, "entries", visited(t, entries), b.Entries)
			return &ledger.Batch{Heads: b.Heads[:1], Balances: b.Balances[1:2], Usage: b.Usage[3:]}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "content", s.all(), content{1, 5, b.Entries, b.Heads[:1], b.Balances[1:2], b.Usage[3:]})
	}
}
