package ledger_test

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"

	zsqlite "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// lively is a ledger with every kind of entry in it, two organisations' worth of limits and an open hold, at rest.
func lively(t testing.TB) *rig {
	r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")), limitOn(chat, quota.Tokens, period.Hour, units(100_000)))
	r.onFail = usage.ChargeDelivered
	for i := range int64(6) {
		h := r.hold(100+i, 50)
		r.l.Checkpoint(h, counts(100, 20), usage.EngineRunning)
		if i%2 == 0 {
			if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 50}, eur("0.0001")); err != nil {
				t.Fatal(err)
			}
		}
		if i < 5 {
			r.settle(h, ended([]usage.Outcome{usage.Completed, usage.Cut, usage.Unserved, usage.Broken, usage.ClientGone}[i], 100, 40+i))
		}
		r.clock.advance(20 * time.Minute)
	}
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// copied is a snapshot in memory, to be spoilt.
type copied struct {
	epoch, lastAt int64
	entries       []ledger.EntryRow
	heads         []ledger.HeadRow
	balances      []ledger.BalanceRow
	usage         []ledger.UsageRow
}

func (c *copied) Snapshot(v *ledger.Visitor) error {
	if err := v.Meta(c.epoch, c.lastAt); err != nil {
		return err
	}
	for _, part := range []func() error{
		func() error { return each(c.entries, v.Entry) }, func() error { return each(c.heads, v.Head) },
		func() error { return each(c.balances, v.Balance) }, func() error { return each(c.usage, v.Usage) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func each[T any](rows []T, visit func(T) error) error {
	for _, row := range rows {
		if err := visit(row); err != nil {
			return err
		}
	}
	return nil
}

// reader opens the rig's file for reading.
func (r *rig) reader() *sqlite.Store {
	r.t.Helper()
	store, err := sqlite.OpenReader(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { store.Close() })
	return store
}

func copyOf(t testing.TB, store ledger.Reader) *copied {
	t.Helper()
	c := &copied{}
	err := store.Snapshot(&ledger.Visitor{
		Meta: func(epoch, lastAt int64) error { c.epoch, c.lastAt = epoch, lastAt; return nil },
		Entry: func(e ledger.EntryRow) error {
			e.Body = slices.Clone(e.Body)
			c.entries = append(c.entries, e)
			return nil
		},
		Head:    func(h ledger.HeadRow) error { c.heads = append(c.heads, h); return nil },
		Balance: func(b ledger.BalanceRow) error { c.balances = append(c.balances, b); return nil },
		Usage:   func(u ledger.UsageRow) error { c.usage = append(c.usage, u); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryFlippedBit: a bit that flips in any byte of any entry is found, and the entry is named. I8.
func TestEveryFlippedBit(t *testing.T) {
	c := copyOf(t, lively(t).reader())
	checked(t, c)
	flips := 0
	for i := range c.entries {
		e := &c.entries[i]
		named := regexp.MustCompile(fmt.Sprintf(`^organisation 1( \(acme\))?, entry %d( \(.*\))?: `, e.Seq))
		spoilt := func(what string) {
			t.Helper()
			flips++
			report, err := ledger.Check(c)
			if err != nil || !named.MatchString(report.Difference) {
				t.Errorf("%s of entry %d: %q, %v", what, e.Seq, report, err)
			}
		}
		for at := range e.Body {
			e.Body[at] ^= 1 << (at % 8)
			spoilt("a bit in the body")
			e.Body[at] ^= 1 << (at % 8)
		}
		for at := range e.Hash {
			e.Hash[at] ^= 1 << (at % 8)
			spoilt("a bit in the hash")
			e.Hash[at] ^= 1 << (at % 8)
		}
		e.Kind ^= 1
		spoilt("a bit in the kind")
		e.Kind ^= 1
		e.Request ^= 1
		spoilt("a bit in the request")
		e.Request ^= 1
	}
	if checked(t, c); flips < 2500 {
		t.Errorf("only %d flips", flips)
	}
}

// TestEditedLog: entries taken away, doubled, swapped or moved to another organisation (F123). I8.
func TestEditedLog(t *testing.T) {
	whole := copyOf(t, lively(t).reader())
	for name, x := range map[string]struct {
		edit func(c *copied)
		want string
	}{
		"deleted":      {func(c *copied) { c.entries = slices.Delete(c.entries, 7, 8) }, "entry 8 is missing"},
		"first gone":   {func(c *copied) { c.entries = c.entries[1:] }, "entry 1 is missing"},
		"doubled":      {func(c *copied) { c.entries = slices.Insert(c.entries, 7, c.entries[7]) }, "entry 9 is missing"},
		"swapped":      {func(c *copied) { c.entries[7].Body, c.entries[8].Body = c.entries[8].Body, c.entries[7].Body }, "entry 8: the chain is broken"},
		"cut off":      {func(c *copied) { c.entries = c.entries[:len(c.entries)-1] }, "but its head says"},
		"moved":        {func(c *copied) { c.entries[len(c.entries)-1].Org = 9 }, "organisation 9: entry 1 is missing"},
		"renumbered":   {func(c *copied) { c.entries[7].Seq = 99 }, "entry 8 is missing"},
		"all gone":     {func(c *copied) { c.entries = nil }, "has a head, but no log"},
		"epoch undone": {func(c *copied) { c.epoch = 0 }, "epoch 1 was never begun"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *whole
			c.entries = slices.Clone(whole.entries)
			x.edit(&c)
			if report, err := ledger.Check(&c); err != nil || !strings.Contains(report.Difference, x.want) {
				t.Errorf("%q, %v; want %q", report.Difference, err, x.want)
			}
		})
	}
}

// TestRebuild: tables that were spoilt are made anew from the log, twice the same.
func TestRebuild(t *testing.T) {
	for _, spoil := range []string{
		"DELETE FROM head",
		"DELETE FROM balance WHERE lim = 1",
		"UPDATE balance SET used = zeroblob(16)",
		"UPDATE balance SET held = x'00000000000000000000000000000001'",
		"INSERT INTO balance VALUES (1, 9, 9, zeroblob(16), zeroblob(16))",
		"UPDATE usage SET requests = requests + 1, work_ms = 7",
		"UPDATE head SET open_from = 1",
		"DELETE FROM usage",
		"INSERT INTO head VALUES (9, 1, zeroblob(32), 1)",
	} {
		t.Run(spoil, func(t *testing.T) {
			r := lively(t)
			want := copyOf(t, r.reader())
			r.exec(spoil)
			if report, err := ledger.Check(r.reader()); err != nil || report.OK() {
				t.Fatalf("not found: %v, %v", report, err)
			}
			store, err := sqlite.Open(r.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			for range 2 {
				if err := ledger.Rebuild(store); err != nil {
					t.Fatal(err)
				}
				if got := copyOf(t, store); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("rebuilt as\n%v, was\n%v", got, want)
				}
				checked(t, store)
			}
		})
	}
}

func TestRebuildRefusesBrokenChain(t *testing.T) {
	r := lively(t)
	r.exec("UPDATE entry SET body = cast(body || x'00' AS BLOB) WHERE id & 1023 = 9")
	before := copyOf(t, r.reader())
	store, err := sqlite.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := ledger.Rebuild(store); err == nil || !strings.Contains(err.Error(), "chain of organisation 1 is broken at entry 9") {
		t.Errorf("error %v", err)
	}
	if got := copyOf(t, store); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Error("a refused rebuild has changed something")
	}
}

// TestOpenRefusesDamage: a start that reads nonsense says so in words; it does not panic and does not guess.
func TestOpenRefusesDamage(t *testing.T) {
	for name, spoil := range map[string]string{
		"version":     "UPDATE entry SET body = cast(x'63' || substr(body, 2) AS BLOB) WHERE id & 1023 = 1",
		"row":         "UPDATE entry SET body = substr(body, 1, 30) WHERE kind = 2",
		"limit":       "UPDATE entry SET body = unhex(replace(hex(body), hex('Europe/Berlin'), hex('Europe/Merlin'))) WHERE kind = 3",
		"period":      "UPDATE entry SET body = substr(body, 1, 30) WHERE kind = 4",
		"hold":        "UPDATE entry SET body = substr(body, 1, 40) WHERE kind = 16",
		"no balances": "DELETE FROM balance",
		"no subjects": "DELETE FROM entry WHERE kind = 1",
		"no limits":   "DELETE FROM entry WHERE kind = 3",
	} {
		t.Run(name, func(t *testing.T) {
			r := lively(t)
			r.exec(spoil)
			if err := r.tryOpen(); err == nil || !strings.HasPrefix(err.Error(), "cannot read the ledger: ") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// exec changes the file behind the ledger's back.
func (r *rig) exec(sql string) {
	r.t.Helper()
	conn, err := zsqlite.OpenConn(filepath.Join(r.dir, sqlite.FileName), zsqlite.OpenReadWrite)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteTransient(conn, sql, nil); err != nil {
		r.t.Fatal(err)
	}
	if conn.Changes() == 0 {
		r.t.Fatalf("%s has changed nothing", sql)
	}
}
