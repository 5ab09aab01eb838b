package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// TestRestartResolves: what was open when the process died is posted or void, by the rule of its price book, before Open
// returns; and nothing is resolved twice (F003, F005).
func TestRestartResolves(t *testing.T) {
	for _, x := range []struct {
		rule       usage.Tariff
		used       string
		posted     int
		tokensUsed string
	}{
		{usage.ChargeNothing, "0.001", 0, "700"},
		{usage.ChargeDelivered, "0.001792", 1, "1396"},
		{usage.ChargeGenerated, "0.001792", 1, "1396"},
	} {
		t.Run(x.rule.String(), func(t *testing.T) {
			r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("1")), limitOn(acme, quota.Tokens, period.Day, units(10_000)))
			r.onFail = x.rule
			r.spend(400, 300)
			mid := r.hold(1000, 500)
			quiet := r.hold(1000, 500) // without a checkpoint: nothing is known of it
			r.l.Checkpoint(mid, counts(600, 64), usage.EngineRunning)
			if err := r.l.Extend(context.Background(), mid, usage.Bounds{Output: 500}, eur("0.001")); err != nil {
				t.Fatal(err)
			}
			r.l.Checkpoint(mid, counts(600, 96), usage.EngineRunning)
			r.settle(r.hold(1, 1), ended(usage.Unserved, 0, 0)) // carries the checkpoint to the disk
			r.crash()
			if got := r.l.Recovered(); got.Posted != x.posted || got.Voided != 2-x.posted || got.Epoch != 2 {
				t.Errorf("recovered %+v", got)
			}
			if n := r.l.OpenHolds(); n != 0 {
				t.Errorf("%d holds are open", n)
			}
			r.stands(acme, 0, x.used, "0")
			r.stands(acme, 1, x.tokensUsed, "0")
			record, _, err := r.l.Record(mid.ID)
			if err != nil || record.Flags != usage.FlagResolvedStart || record.Source != usage.Checkpoint || record.Fault != usage.Gateway {
				t.Errorf("record %+v, %v", record, err)
			}
			if record, _, _ := r.l.Record(quiet.ID); record.Status != usage.Void {
				t.Errorf("of which nothing is known is %s", record.Status)
			}
			r.check()
			r.crash()
			if got := r.l.Recovered(); got.Posted != 0 || got.Voided != 0 {
				t.Errorf("recovered once more: %+v", got)
			}
			r.stands(acme, 0, x.used, "0")
			r.check()
		})
	}
}

// TestRestartKeepsEverything: balances of every window, definitions and numbers are as they were.
func TestRestartKeepsEverything(t *testing.T) {
	windows := []period.Window{period.Hour, period.Day, period.Week, period.Month, period.Quarter, period.Year, period.Total}
	var limits []quota.Limit
	for _, w := range windows {
		limits = append(limits, limitOn(chat, quota.Tokens, w, units(100)))
	}
	r := newRig(t, limits...)
	r.spend(20, 20)
	before := r.check()
	for range 3 {
		r.restart()
		for n := range windows {
			r.stands(chat, n, "40", "0")
		}
		after := r.check()
		if after.Entries != before.Entries {
			t.Errorf("a restart made of %d entries %d", before.Entries, after.Entries)
		}
	}
	r.refused(r.ask(31, 30), quota.Exhausted, chat)
	r.spend(30, 30)
	if after := r.check(); after.Entries != before.Entries+2 {
		t.Errorf("a hold and a settlement are %d entries: something was defined a second time", after.Entries-before.Entries)
	}
}

// TestRestartAfterLongRest: a start long after the last request finds what endless windows have used, and the open hold
// of a period that is over.
func TestRestartAfterLongRest(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Hour, units(100)), limitOn(acme, quota.Tokens, period.Total, units(100)))
	r.onFail = usage.ChargeDelivered
	r.spend(20, 20)
	h := r.hold(10, 10)
	r.l.Checkpoint(h, counts(10, 5), usage.EngineRunning)
	r.clock.advance(40 * time.Minute)
	r.settle(r.hold(1, 1), ended(usage.Unserved, 0, 0))
	r.clock.advance(1000 * time.Hour)
	r.crash()
	r.stands(acme, 0, "0", "0")
	r.stands(acme, 1, "55", "0")
	r.check()
}

// record is a store that notes what was appended, and how long the log was then.
type recorder struct {
	ledger.Store
	t    *testing.T
	path string
	mu   sync.Mutex
	at   []commitPoint
}

// commitPoint is what must be there once the log is so long.
type commitPoint struct {
	size    int64
	entries int64
}

func (s *recorder) Append(shard, epoch int64, b *ledger.Batch) error {
	err := s.Store.Append(shard, epoch, b)
	info, statErr := os.Stat(s.path + "-wal")
	if statErr != nil {
		s.t.Error(statErr)
		return statErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, commitPoint{info.Size(), int64(len(b.Entries))})
	return err
}

// recorded runs a few requests, and returns what was committed when.
func recorded(t *testing.T) (*rig, *recorder) {
	r := unopened(t)
	var log *recorder
	r.wrap = func(s ledger.Store) ledger.Store {
		log = &recorder{Store: s, t: t, path: filepath.Join(r.dir, sqlite.FileName)}
		return log
	}
	r.open()
	r.publish(limitOn(acme, quota.Money, period.Month, eur("1")), limitOn(chat, quota.Tokens, period.Day, units(100_000)))
	var open []*ledger.Hold
	for i := range int64(8) {
		h := r.hold(100+i, 50)
		switch i % 4 {
		case 0:
			open = append(open, h)
		case 1:
			r.l.Checkpoint(h, counts(100, 20), usage.EngineRunning)
			r.settle(h, completed(100, 30))
		case 2:
			if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 50}, eur("0.0001")); err != nil {
				t.Fatal(err)
			}
			r.settle(h, ended(usage.Cut, 100, 90))
		case 3:
			r.settle(h, ended(usage.Broken, 100, 10))
		}
	}
	r.settle(open[0], completed(1, 1))
	return r, log
}

// TestTornLog: the log is cut at many offsets, or a bit in it is flipped, as a power cut leaves it: every batch in front
// of the tear is there whole, everything behind it is gone whole, and the ledger opens and is right (F020, and the crash
// points of one commit).
func TestTornLog(t *testing.T) {
	r, log := recorded(t)
	wal, err := os.ReadFile(log.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	db, err := os.ReadFile(log.path)
	if err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	for i, p := range log.at {
		offsets = append(offsets, p.size-1, p.size, p.size+1)
		if i > 0 { // within the frames of one commit
			last := log.at[i-1].size
			offsets = append(offsets, last+(p.size-last)/3, last+(p.size-last)*2/3)
		}
	}
	for _, flip := range []bool{false, true} {
		for i, at := range offsets {
			if flip && i%3 != 0 {
				continue
			}
			if at < 32 || at > int64(len(wal)) || flip && at == int64(len(wal)) {
				continue
			}
			torn := slices.Clone(wal[:at])
			if flip {
				torn = slices.Clone(wal)
				torn[at] ^= 1 << (at % 8)
			}
			want := int64(0)
			for _, p := range log.at {
				if p.size <= at {
					want += p.entries
				}
			}
			after := *r
			after.dir, after.wrap = t.TempDir(), nil
			os.WriteFile(filepath.Join(after.dir, sqlite.FileName), db, 0o600)
			os.WriteFile(filepath.Join(after.dir, sqlite.FileName+"-wal"), torn, 0o600)
			store, err := sqlite.Open(after.dir)
			if err != nil {
				t.Fatalf("torn at %d (flipped: %v): %v", at, flip, err)
			}
			if got := checked(t, store).Entries; got != want {
				t.Errorf("torn at %d (flipped: %v): %d entries are left, want %d", at, flip, got, want)
			}
			store.Close()
		}
	}
}

// TestCrashAtEachCommit: the process dies straight after a commit; the next one finds what was acknowledged, resolves the
// rest and goes on.
func TestCrashAtEachCommit(t *testing.T) {
	r, log := recorded(t)
	wal, err := os.ReadFile(log.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	db, err := os.ReadFile(log.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range log.at {
		after := *r
		after.dir, after.wrap = t.TempDir(), nil
		os.WriteFile(filepath.Join(after.dir, sqlite.FileName), db, 0o600)
		os.WriteFile(filepath.Join(after.dir, sqlite.FileName+"-wal"), wal[:p.size], 0o600)
		after.open()
		after.check()
		after.publish(limitOn(acme, quota.Money, period.Month, eur("1")))
		after.spend(10, 10)
		if report := after.check(); report.Open != 0 {
			t.Errorf("log of %d bytes: %s", p.size, report)
		}
		after.l.Close()
	}
}

// TestSecondEpochFences: a store that another process has taken over takes nothing more from the first.
func TestSecondEpochFences(t *testing.T) {
	r := newRig(t)
	h := r.hold(1, 1)
	if _, _, err := r.store.Start(0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.l.Settle(h, completed(1, 1)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("settled by an owner whose epoch is over: %v", err)
	}
	if _, err := r.l.Hold(context.Background(), r.ask(1, 1)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("held by an owner whose epoch is over: %v", err)
	}
	if report := r.check(); report.Posted != 0 || report.Open != 1 {
		t.Errorf("%s", report)
	}
}

// failing is a store whose n-th append fails: before it has done anything, or after it has done everything, so that
// nobody knows.
type failing struct {
	ledger.Store
	mu    sync.Mutex
	left  int
	after bool
	saw   []usage.ID // what the failed append was about
}

// armed reports whether the failure is still to come, or was met by something in passing.
func (s *failing) armed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left <= 0
}

var errDisk = errors.New("no space left on device")

func (s *failing) Append(shard, epoch int64, b *ledger.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left >= 0 {
		return s.Store.Append(shard, epoch, b)
	}
	if s.left == -1 {
		for i := range b.Entries {
			s.saw = append(s.saw, b.Entries[i].Request)
		}
		if s.after {
			s.Store.Append(shard, epoch, b)
		}
	}
	return errDisk
}

// TestFailedCommit: the n-th commit fails. Nothing is acknowledged from there on, everything acknowledged before is found
// by the next start, and what is not known is resolved (F002, F017).
func TestFailedCommit(t *testing.T) {
	for n := range 8 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("commit %d, done %v", n, after), func(t *testing.T) { failAt(t, n, after) })
		}
	}
}

func failAt(t *testing.T, n int, after bool) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1000)))
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	r.opt.OnFailure = func(err error) { told <- err }
	r.wrap = func(s ledger.Store) ledger.Store { return &failing{Store: s, left: n, after: after} }
	r.open()
	acked, failed := int64(0), false
	for i := 0; i < 6; i++ {
		h, err := r.l.Hold(context.Background(), r.ask(10, 10))
		if err == nil {
			_, err = r.l.Settle(h, completed(10, 10))
		}
		if err == nil && failed {
			t.Error("acknowledged after a failed commit")
		}
		if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if failed = failed || err != nil; !failed {
			acked += 20
		}
	}
	if !failed || !errors.Is(r.l.Ready(), ledger.ErrUnavailable) {
		t.Fatalf("failed: %v, ready: %v", failed, r.l.Ready())
	}
	if err := <-told; !errors.Is(err, errDisk) {
		t.Errorf("told of %v", err)
	}
	if err := r.l.Publish(context.Background(), ledger.Publication{}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("published: %v", err)
	}
	r.l.Close()
	r.wrap = nil
	r.open()
	used := r.l.Standings(acme, chatChain)[0].Used
	if u, _ := used.Int64(); u != acked && !(after && u == acked+20) {
		t.Errorf("%d tokens are posted, %d were acknowledged", u, acked)
	}
	if report := r.check(); report.Open != 0 {
		t.Errorf("%s", report)
	}
}

// TestBugFailsShut: a panic in the middle of a decision does not leave the ledger locked, nor half a decision on disk.
func TestBugFailsShut(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1000)))
	h := r.hold(10, 10)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		r.l.Settle(h, nil)
	}()
	if _, err := r.l.Hold(context.Background(), r.ask(1, 1)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("held: %v", err)
	}
	if _, err := r.l.Settle(h, completed(1, 1)); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("settled: %v", err)
	}
	r.restart()
	if report := r.check(); report.Voided != 1 || report.Open != 0 {
		t.Errorf("%s", report)
	}
}

// gated is a store whose appends wait until they are let.
type gated struct {
	ledger.Store
	let chan struct{}
}

func (s *gated) Append(shard, epoch int64, b *ledger.Batch) error {
	<-s.let
	return s.Store.Append(shard, epoch, b)
}

// TestCloseCommitsWhatIsPending: what was decided before Close is on disk after it, also what nobody waits for.
func TestCloseCommitsWhatIsPending(t *testing.T) {
	r := newRig(t)
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{}, 1)
	r.wrap = func(s ledger.Store) ledger.Store { return &gated{s, gate} }
	r.onFail = usage.ChargeDelivered
	r.open()
	gate <- struct{}{}
	h := r.hold(10, 10)
	r.l.Refuse(1, []byte("a group of its own, which the gate holds back"))
	r.l.Checkpoint(h, counts(7, 7), usage.EngineRunning)
	closed := make(chan error)
	go func() { closed <- r.l.Close() }()
	for r.l.Ready() == nil {
		runtime.Gosched()
	}
	close(gate)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	r.wrap = nil
	r.open()
	if record, _, err := r.l.Record(h.ID); err != nil || record.Billed.Output() != 7 {
		t.Errorf("record %+v, %v", record, err)
	}
	r.check()
}
