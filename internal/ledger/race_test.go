package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// TestTwentyOfMany: many ask at once, and the budget is for exactly 20 (F081). I1.
func TestTwentyOfMany(t *testing.T) {
	for _, clients := range []int{32, 128} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			r := newRig(t, limitOn(acme, quota.Money, period.Month, eur("0.04")), limitOn(chat, quota.RequestCount, period.Day, units(1000)))
			asks := make(chan *ledger.Ask, 8*clients)
			for range cap(asks) {
				asks <- r.ask(1000, 500)
			}
			close(asks)
			var granted, refused atomic.Int64
			var crowd sync.WaitGroup
			for range clients {
				crowd.Go(func() {
					for ask := range asks {
						h, err := r.l.Hold(context.Background(), ask)
						var short *ledger.Short
						if errors.As(err, &short) {
							refused.Add(1)
							continue
						}
						if err == nil {
							_, err = r.l.Settle(h, completed(1000, 500))
						}
						if err != nil {
							t.Error(err)
						}
						granted.Add(1)
					}
				})
			}
			crowd.Wait()
			if granted.Load() != 20 || refused.Load() != int64(8*clients-20) {
				t.Errorf("%d granted and %d refused, want 20 and %d", granted.Load(), refused.Load(), 8*clients-20)
			}
			r.stands(acme, 0, "0.04", "0")
			r.check()
		})
	}
}

// TestEverythingAtOnce: holds, extensions, checkpoints, settlements twice over, limits that change, readers and a check,
// all concurrently. What was acknowledged is what the log says. I1 to I5.
func TestEverythingAtOnce(t *testing.T) {
	limits := func(n int64) []quota.Limit {
		return []quota.Limit{limitOn(acme, quota.Tokens, period.Month, units(n)), limitOn(sales, quota.RequestCount, period.Day, units(n))}
	}
	r := newRig(t, limits(100_000)...)
	var charged atomic.Pointer[money.Amount]
	charged.Store(&money.Amount{})
	var posted atomic.Int64
	var clients, others sync.WaitGroup
	for client := range uint64(16) {
		rng := rand.New(rand.NewPCG(1, client))
		clients.Go(func() {
			for range 20 {
				ask := r.ask(rng.Int64N(100), rng.Int64N(100))
				if client%2 == 0 {
					ask = r.askAs(r.sales, salesChain, 10, 10)
				}
				h, err := r.l.Hold(context.Background(), ask)
				if err != nil {
					t.Error(err)
					return
				}
				r.l.Checkpoint(h, counts(1, 1), usage.EngineRunning)
				if err := r.l.Extend(context.Background(), h, usage.Bounds{Output: 10}, eur("0.00002")); err != nil {
					t.Error(err)
				}
				won := settleTwice(t, r.l, h)
				posted.Add(1)
				for {
					old := charged.Load()
					sum := old.Add(won.Charge)
					if charged.CompareAndSwap(old, &sum) {
						break
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	for _, work := range []func(n int64){
		func(n int64) { r.publish(limits(100_000 + n)...) },
		func(int64) { checked(t, r.store) },
		func(int64) {
			r.l.Standings(acme, []account.ID{acme, sales})
			r.l.Refuse(r.minter.Mint(noon), []byte("no"))
			r.l.OpenHolds()
		},
	} {
		others.Go(func() {
			for n := range int64(25) {
				select {
				case <-stop:
					return
				default:
					work(n)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	others.Wait()
	report := r.check()
	if report.Posted != posted.Load() || report.Open != 0 || posted.Load() != 320 {
		t.Errorf("%d were posted: %s", posted.Load(), report)
	}
	var sum money.Amount
	for _, u := range copyOf(t, r.store).usage {
		sum = sum.Add(u.Charge)
	}
	if sum != *charged.Load() {
		t.Errorf("usage sums charge %s, the receipts %s", sum, *charged.Load())
	}
}

// settleTwice settles a hold from two goroutines at once, and returns the record of the one that did.
func settleTwice(t *testing.T, l *ledger.Ledger, h *ledger.Hold) *usage.Record {
	var won *usage.Record
	var mu sync.Mutex
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			record, err := l.Settle(h, completed(5, 5))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && won == nil:
				won = record
			case err == nil:
				t.Error("settled twice")
			case !errors.Is(err, ledger.ErrSettled):
				t.Error(err)
			}
		})
	}
	both.Wait()
	return won
}

// TestCloseUnderLoad: a ledger that is closed while requests run acknowledges nothing that is not there afterwards.
func TestCloseUnderLoad(t *testing.T) {
	for range 5 {
		r := newRig(t, limitOn(acme, quota.Tokens, period.Month, units(1_000_000)))
		var acked atomic.Int64
		var crowd sync.WaitGroup
		for range 16 {
			crowd.Go(func() {
				for {
					h, err := r.l.Hold(context.Background(), r.ask(1, 1))
					if err == nil {
						_, err = r.l.Settle(h, completed(1, 1))
					}
					if errors.Is(err, ledger.ErrUnavailable) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if acked.Add(1) == 50 {
						go r.l.Close()
					}
				}
			})
		}
		crowd.Wait()
		r.l.Close()
		report := checked(t, r.reader())
		if report.Posted < acked.Load() || report.Posted > acked.Load()+16 {
			t.Errorf("%d acknowledged: %s", acked.Load(), report)
		}
	}
}

// TestMemoryBehindALongRequest: what was settled is not kept because an older hold is still open.
func TestMemoryBehindALongRequest(t *testing.T) {
	r := newRig(t)
	long := r.hold(10, 10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const settled = 3000
	for range settled {
		r.spend(10, 10)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / settled; each > 200 {
		t.Errorf("each settled request behind an open hold keeps %d bytes", each)
	}
	r.settle(long, completed(1, 1))
}
