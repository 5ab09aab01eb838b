package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// queue is a crowd that asks for holds, in a bubble of fake time.
type queue struct {
	*rig
	mu    sync.Mutex
	said  []string // "name: held", "name: contended", …, in the order in which it was said
	holds map[string]*ledger.Hold
	began time.Time
}

// inQueue runs f in a bubble with a ledger whose holds wait for 5 s.
func inQueue(t *testing.T, limits []quota.Limit, f func(t *testing.T, q *queue)) {
	synctest.Test(t, func(t *testing.T) {
		r := unopened(t)
		r.opt.Wait = 5 * time.Second
		r.open()
		r.publish(limits...)
		f(t, &queue{rig: r, holds: map[string]*ledger.Hold{}, began: time.Now()})
	})
}

// come lets a request come and wait, and returns when it has its answer or stands in a queue.
func (q *queue) come(ctx context.Context, name string, ask *ledger.Ask) {
	go func() {
		h, err := q.l.Hold(ctx, ask)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.holds[name] = h
		var short *ledger.Short
		said := "held"
		switch {
		case errors.As(err, &short) && short.Verdict == quota.Contended:
			said = "contended"
		case errors.As(err, &short):
			said = "exhausted"
		case errors.Is(err, ledger.ErrUnavailable):
			said = "unavailable"
		case err != nil:
			said = err.Error()
		}
		q.said = append(q.said, name+": "+said)
	}()
	synctest.Wait()
}

// hears expects what was said since the last call, and how long after the beginning it was.
func (q *queue) hears(after time.Duration, want ...string) {
	q.t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if got := time.Since(q.began); got != after {
		q.t.Errorf("%s have passed, not %s", got, after)
	}
	slices.Sort(q.said) // those who are let in together say so in any order
	if !slices.Equal(q.said, want) {
		q.t.Errorf("heard %q, want %q", q.said, want)
	}
	q.said = nil
}

func (q *queue) ends(name string, in, out int64) {
	q.t.Helper()
	q.mu.Lock()
	h := q.holds[name]
	q.mu.Unlock()
	if h == nil {
		q.t.Fatalf("%s has no hold", name)
	}
	q.settle(h, completed(in, out))
}

func TestContendedHoldWaits(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(30))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.come(t.Context(), "a", q.ask(10, 10))
		q.come(t.Context(), "b", q.ask(10, 10))
		q.hears(0, "a: held") // b waits
		time.Sleep(time.Second)
		q.ends("a", 5, 5)
		q.hears(time.Second, "b: held") // woken, not at the end of its time
		q.come(t.Context(), "c", q.ask(10, 10))
		q.ends("b", 10, 10) // 30 of 30 used
		q.hears(time.Second, "c: exhausted")
		q.check()
	})
}

func TestContendedAtLast(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(30))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.come(t.Context(), "a", q.ask(10, 10))
		q.come(t.Context(), "b", q.ask(10, 10))
		time.Sleep(5*time.Second - 1)
		q.hears(5*time.Second-1, "a: held")
		time.Sleep(1)
		q.hears(5*time.Second, "b: contended")
		q.ends("a", 10, 10)
		q.stands(acme, 0, "20", "0") // nothing is left of b
		q.check()
	})
}

// TestFairOrder: whoever came first is served first, also before a later one that is small enough to slip in.
func TestFairOrder(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.come(t.Context(), "a", q.ask(30, 30))
		q.come(t.Context(), "b", q.ask(30, 30))
		q.come(t.Context(), "c", q.ask(10, 10)) // would fit, but b came first
		q.come(t.Context(), "d", q.ask(15, 15))
		q.hears(0, "a: held")
		q.ends("a", 0, 0)
		q.hears(0, "b: held", "c: held")
		q.ends("c", 0, 0)
		q.hears(0, "d: held")
		q.ends("b", 0, 0)
		q.come(t.Context(), "e", q.ask(35, 35))
		q.hears(0, "e: held")
		q.check()
	})
}

func TestLeavingTheQueue(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		ctx, leave := context.WithCancel(t.Context())
		q.come(t.Context(), "a", q.ask(30, 30))
		q.come(ctx, "b", q.ask(30, 30))
		q.come(t.Context(), "c", q.ask(10, 10))
		leave()
		q.hears(0, "a: held", "b: context canceled", "c: held") // c had only b before it
		q.ends("a", 0, 0)
		q.ends("c", 0, 0)
		q.stands(acme, 0, "0", "0")
		q.check()
	})
}

// TestTwoShortLimits: a waiter whose first limit has room again goes on to wait at the second.
func TestTwoShortLimits(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.RequestCount, period.Day, units(2)), limitOn(chat, quota.RequestCount, period.Day, units(1))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.onGone = usage.ChargeNothing
		q.come(t.Context(), "sales", q.askAs(q.sales, salesChain, 1, 1))
		q.come(t.Context(), "a", q.ask(1, 1))
		q.come(t.Context(), "b", q.ask(1, 1))
		q.hears(0, "a: held", "sales: held")
		q.settle(q.holds["sales"], ended(usage.ClientGone, 1, 1))
		q.hears(0)
		q.settle(q.holds["a"], ended(usage.ClientGone, 1, 1))
		q.hears(0, "b: held")
		q.check()
	})
}

// TestLimitsChangeForThoseWhoWait: a limit that is raised, removed or lowered answers those who wait for it at once.
func TestLimitsChangeForThoseWhoWait(t *testing.T) {
	tokens := func(n int64) quota.Limit { return limitOn(acme, quota.Tokens, period.Day, units(n)) }
	elsewhere := tokens(50)
	elsewhere.Zone = "Asia/Tokyo"
	for name, x := range map[string]struct {
		then []quota.Limit
		want []string
	}{
		"raised":       {[]quota.Limit{tokens(70)}, []string{"b: held", "c: held"}},
		"raised a bit": {[]quota.Limit{tokens(60)}, []string{"b: held"}},
		"removed":      {nil, []string{"b: held", "c: held"}},
		"lowered":      {[]quota.Limit{tokens(9)}, []string{"b: exhausted", "c: exhausted"}},
		"other zone":   {[]quota.Limit{elsewhere}, []string{"b: held", "c: held"}},
		"the same":     {[]quota.Limit{tokens(50)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inQueue(t, []quota.Limit{tokens(50)}, func(t *testing.T, q *queue) {
				q.come(t.Context(), "a", q.ask(20, 20))
				q.come(t.Context(), "b", q.ask(10, 10))
				q.come(t.Context(), "c", q.ask(10, 0))
				q.hears(0, "a: held")
				q.publish(x.then...)
				q.hears(0, x.want...)
				q.check()
			})
		})
	}
}

// TestNextPeriodForThoseWhoWait: a new period is a new allowance, for those who wait too.
func TestNextPeriodForThoseWhoWait(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Hour, units(20))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.come(t.Context(), "a", q.ask(10, 10))
		q.come(t.Context(), "b", q.ask(10, 10))
		q.clock.advance(time.Hour)
		q.come(t.Context(), "c", q.ask(10, 10))
		q.hears(0, "a: held", "c: held")
		q.ends("c", 0, 0) // b waits for a's hour, in which there is nothing to be had any more
		time.Sleep(5 * time.Second)
		q.hears(5*time.Second, "b: held")
		q.check()
	})
}

// TestEndForThoseWhoWait: a ledger that closes or fails leaves nobody hanging.
func TestEndForThoseWhoWait(t *testing.T) {
	for name, end := range map[string]func(*queue){
		"closed": func(q *queue) { q.l.Close() },
		"failed": func(q *queue) {
			q.store.Close()
			q.l.Checkpoint(q.holds["a"], counts(1, 1), usage.EngineRunning)
		},
	} {
		t.Run(name, func(t *testing.T) {
			limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(20))}
			inQueue(t, limits, func(t *testing.T, q *queue) {
				q.come(t.Context(), "a", q.ask(10, 10))
				q.come(t.Context(), "b", q.ask(10, 10))
				q.hears(0, "a: held")
				end(q)
				time.Sleep(5 * time.Second)
				q.hears(5*time.Second, "b: unavailable")
			})
		})
	}
}

// TestBurst: 200 at once for a budget of 20, plainly and when each uses half of what it holds.
func TestBurst(t *testing.T) {
	for _, x := range []struct{ in, served int64 }{{100, 20}, {50, 39}} {
		t.Run(fmt.Sprintf("uses %d of 100", x.in), func(t *testing.T) {
			limits := []quota.Limit{limitOn(acme, quota.InputTokens, period.Day, units(2000))}
			inQueue(t, limits, func(t *testing.T, q *queue) {
				var served, refused int64
				var crowd sync.WaitGroup
				for range 200 {
					ask := q.ask(100, 1)
					crowd.Go(func() {
						h, err := q.l.Hold(t.Context(), ask)
						var short *ledger.Short
						if err == nil {
							time.Sleep(100 * time.Millisecond) // the engine works
							_, err = q.l.Settle(h, completed(x.in, 1))
						}
						q.mu.Lock()
						defer q.mu.Unlock()
						switch {
						case err == nil:
							served++
						case errors.As(err, &short) && short.Verdict == quota.Exhausted:
							refused++
						default:
							t.Error(err)
						}
					})
				}
				crowd.Wait()
				if served != x.served || refused != 200-x.served {
					t.Errorf("%d served, %d refused; want %d served", served, refused, x.served)
				}
				q.stands(acme, 0, fmt.Sprint(x.served*x.in), "0")
				q.check()
			})
		})
	}
}
