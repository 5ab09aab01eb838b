package ledger_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// narrow is a store on a disk of which somebody else takes room, and which keeps a reserve of some commits.
type narrow struct {
	ledger.Store
	mu      sync.Mutex
	full    bool
	reserve int // commits
}

func (s *narrow) Append(shard, epoch int64, b *ledger.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		if s.reserve == 0 {
			return ledger.ErrFull
		}
		s.reserve--
	}
	return s.Store.Append(shard, epoch, b)
}

func (s *narrow) Reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return ledger.ErrFull
	}
	return s.Store.Reserve()
}

func (s *narrow) set(full bool, reserve int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full, s.reserve = full, reserve
}

// eventually waits for something that another goroutine does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// narrowRig is a ledger with one hold, on a disk that can be full.
func narrowRig(t *testing.T) (*rig, *narrow, *ledger.Hold) {
	r, disk := unopened(t), &narrow{}
	r.wrap = func(s ledger.Store) ledger.Store { disk.Store = s; return disk }
	r.open()
	r.publish(limitOn(acme, quota.Tokens, period.Day, units(1000)))
	return r, disk, r.hold(10, 10)
}

// TestFullDiskSettles: when a commit finds no room, what was decided is written out of the reserve, nothing new is
// granted, what is held is settled, and once there is room again the same ledger grants again (F015, F021).
func TestFullDiskSettles(t *testing.T) {
	r, disk, _ := narrowRig(t)
	var told []error
	var mu sync.Mutex
	r.opt.OnDisk = func(err error) { mu.Lock(); told = append(told, err); mu.Unlock() }
	r.restart()
	h := r.hold(10, 10)
	disk.set(true, 0)
	done := make(chan error)
	go func() {
		_, err := r.l.Settle(h, completed(10, 10))
		done <- err
	}()
	eventually(t, "full", func() bool { return r.l.Ready() != nil })
	for _, err := range []error{held(r), r.l.Ready(), r.l.Publish(context.Background(), ledger.Publication{}), r.l.Extend(context.Background(), h, usage.Bounds{Output: 1}, eur("0"))} {
		if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
			t.Errorf("error %v", err)
		}
	}
	r.l.Checkpoint(h, counts(1, 1), usage.EngineRunning) // takes no room
	r.l.Refuse(1, []byte("takes no room"))
	select {
	case err := <-done:
		t.Fatalf("settled on a full disk: %v", err)
	default:
	}
	disk.set(true, 1) // the very batch that waits
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if r.l.Ready() == nil {
		t.Error("ready on a full disk")
	}
	disk.set(false, 0)
	eventually(t, "ready", func() bool { return r.l.Ready() == nil })
	r.spend(5, 5)
	r.stands(acme, 0, "30", "0")
	r.restart()
	r.stands(acme, 0, "30", "0")
	r.check()
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 2 || !errors.Is(told[0], ledger.ErrFull) || told[1] != nil {
		t.Errorf("told %v", told)
	}
}

func held(r *rig) error {
	_, err := r.l.Hold(context.Background(), r.ask(1, 1))
	return err
}

// TestFullAtTheStart: a ledger on a full disk opens, grants nothing, and grants once there is room (F015).
func TestFullAtTheStart(t *testing.T) {
	r, disk, _ := narrowRig(t)
	r.l.Close()
	disk.set(true, 9)
	r.open()
	if err := held(r); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("held: %v", err)
	}
	disk.set(false, 0)
	eventually(t, "ready", func() bool { return r.l.Ready() == nil })
	r.spend(5, 5)
	r.check()
}

// TestClosedWhileFull: what waits for room does not keep the ledger from closing; the next start resolves it (F015).
func TestClosedWhileFull(t *testing.T) {
	r, disk, h := narrowRig(t)
	disk.set(true, 0)
	done := make(chan error)
	go func() {
		_, err := r.l.Settle(h, completed(10, 10))
		done <- err
	}()
	eventually(t, "full", func() bool { return r.l.Ready() != nil })
	r.l.Close()
	if err := <-done; !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("settled: %v", err)
	}
	disk.set(false, 0)
	r.open()
	r.stands(acme, 0, "0", "0")
	if report := r.check(); report.Voided != 1 || report.Open != 0 {
		t.Errorf("%s", report)
	}
}

// tight has no room for one group, and room for every other.
type tight struct {
	ledger.Store
	seq int64 // the group that begins with this entry
}

func (s *tight) Append(shard, epoch int64, b *ledger.Batch) error {
	if len(b.Entries) > 0 && b.Entries[0].Seq == s.seq {
		return ledger.ErrFull
	}
	return s.Store.Append(shard, epoch, b)
}

// TestNoGapAtTheEnd: a group that found no room until the ledger closed is not written, and none behind it either, though
// it would have room: that log would have a gap (F015, I8).
func TestNoGapAtTheEnd(t *testing.T) {
	r, disk := unopened(t), &tight{}
	r.wrap = func(s ledger.Store) ledger.Store { disk.Store = s; return disk }
	r.open()
	first, second := r.hold(10, 10), r.hold(10, 10)
	disk.seq = r.l.Newest(acme) + 1
	done := make(chan error)
	settle := func(h *ledger.Hold) {
		_, err := r.l.Settle(h, completed(10, 10))
		done <- err
	}
	go settle(first)
	eventually(t, "full", func() bool { return r.l.Ready() != nil })
	go settle(second)
	eventually(t, "decided", func() bool { return r.l.Newest(acme) == disk.seq+1 })
	r.l.Close()
	for range 2 {
		if err := <-done; !errors.Is(err, ledger.ErrUnavailable) {
			t.Errorf("settled: %v", err)
		}
	}
	disk.seq = 0
	r.open()
	if report := r.check(); report.Voided != 2 || report.Open != 0 {
		t.Errorf("%s", report)
	}
}

// TestHangingCommit: while a commit hangs, holds are refused, those that wait for it too; settlements wait. When it has
// ended, the settlements have been posted, and of the holds that were refused nothing is held (F019).
func TestHangingCommit(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1000)))
	r.l.Close()
	gate := make(chan struct{})
	r.wrap = func(s ledger.Store) ledger.Store { return &gated{s, gate} }
	r.opt.Patience = 20 * time.Millisecond
	r.open()
	opened := make(chan struct{})
	go func() {
		for {
			select {
			case gate <- struct{}{}:
			case <-opened:
				return
			}
		}
	}()
	running := mustHold(t, r)
	opened <- struct{}{}
	settled := make(chan error)
	go func() { // hangs in its commit
		_, err := r.l.Settle(running, completed(10, 10))
		settled <- err
	}()
	eventually(t, "late", func() bool { return r.l.Ready() != nil })
	if err := held(r); !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("held while a commit hangs: %v", err)
	}
	select {
	case err := <-settled:
		t.Fatalf("settled while the commit hangs: %v", err)
	default:
	}
	gate <- struct{}{}
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() bool { return r.l.Ready() == nil })

	// A hold that is in the commit that hangs.
	if err := held(r); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("held in a commit that hangs: %v", err)
	}
	close(gate)
	eventually(t, "given back", func() bool { return r.l.OpenHolds() == 0 })
	r.stands(acme, 0, "20", "0")
	if _, err := r.l.Settle(mustHold(t, r), completed(1, 1)); err != nil {
		t.Fatal(err)
	}
	if report := r.check(); report.Open != 0 || report.Voided < 1 || report.Posted != 2 {
		t.Errorf("%s", report)
	}
}

// mustHold holds where a commit may take as long as it likes.
func mustHold(t *testing.T, r *rig) (h *ledger.Hold) {
	t.Helper()
	eventually(t, "held", func() bool {
		var err error
		h, err = r.l.Hold(context.Background(), r.ask(10, 10))
		return err == nil
	})
	return h
}

// TestSlowCommits: commits that take long are not late, and a crowd shares them: many holds, few commits (F018).
func TestSlowCommits(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(10_000)))
	r.l.Close()
	slow := &slowly{}
	r.wrap = func(s ledger.Store) ledger.Store { slow.Store = s; return slow }
	r.opt.Patience = time.Minute
	r.open()
	var crowd sync.WaitGroup
	for range 64 {
		ask := r.ask(10, 10)
		crowd.Go(func() {
			h, err := r.l.Hold(context.Background(), ask)
			if err == nil {
				_, err = r.l.Settle(h, completed(10, 10))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	crowd.Wait()
	slow.mu.Lock()
	defer slow.mu.Unlock()
	if slow.commits > 64 { // 128 decisions; usually some five commits
		t.Errorf("%d commits for 64 holds and 64 settlements", slow.commits)
	}
	r.stands(acme, 0, "1280", "0")
}

// slowly is a store with slow commits.
type slowly struct {
	ledger.Store
	mu      sync.Mutex
	commits int
}

func (s *slowly) Append(shard, epoch int64, b *ledger.Batch) error {
	s.mu.Lock()
	s.commits++
	s.mu.Unlock()
	time.Sleep(50 * time.Millisecond)
	return s.Store.Append(shard, epoch, b)
}
