package ledger_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// TestLess: where not all of a request has room, what is granted is the most that fits every limit of the path, a whole
// number of tokens for each answer, and never less than it is worth (F086).
func TestLess(t *testing.T) {
	tokens := func(n int64) quota.Limit { return limitOn(acme, quota.Tokens, period.Day, units(n)) }
	money := limitOn(chat, quota.Money, period.Day, eur("0.0001")) // 10 of input, and 45 of output
	for _, x := range []struct {
		name    string
		limits  []quota.Limit
		less    ledger.Less
		granted int64 // of output; 0: refused
	}{
		{"all fits", []quota.Limit{tokens(110)}, ledger.Less{Answers: 1, Least: 5, Most: 1000}, 100},
		{"a token short", []quota.Limit{tokens(109)}, ledger.Less{Answers: 1, Least: 5, Most: 1000}, 99},
		{"no more than it would take", []quota.Limit{tokens(109)}, ledger.Less{Answers: 1, Least: 5, Most: 40}, 40},
		{"just the least", []quota.Limit{tokens(15)}, ledger.Less{Answers: 1, Least: 5, Most: 1000}, 5},
		{"not the least", []quota.Limit{tokens(14)}, ledger.Less{Answers: 1, Least: 5, Most: 1000}, 0},
		{"all or nothing", []quota.Limit{tokens(109)}, ledger.Less{}, 0},
		{"the same for each answer", []quota.Limit{tokens(109)}, ledger.Less{Answers: 4, Least: 5, Most: 1000}, 96},
		{"several limits", []quota.Limit{tokens(109), money}, ledger.Less{Answers: 1, Least: 5, Most: 1000}, 45},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, x.limits...)
			ask := r.ask(10, 100)
			ask.Less = x.less
			h, err := r.l.Hold(t.Context(), ask)
			if (err == nil) != (x.granted > 0) || err == nil && (h.Bounds.Output != x.granted || ask.Bounds.Output != x.granted || ask.Money.Cmp(h.Record.Hold) != 0) {
				t.Fatalf("held %v of %v, error %v; want %d of output", h, ask.Bounds, err, x.granted)
			}
			if err == nil {
				r.settle(h, completed(10, x.granted))
			}
			r.check()
		})
	}
}

// TestLessWhileOthersRun: a request that can be made less waits for running ones like others, and takes less only at the
// end of its patience, or at once if it is modest.
func TestLessWhileOthersRun(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		can := func(atOnce bool) *ledger.Ask {
			ask := q.ask(10, 50)
			ask.Less = ledger.Less{Answers: 1, Least: 5, Most: 10, Modest: atOnce}
			return ask
		}
		q.come(t.Context(), "a", q.ask(30, 20))
		b := can(false)
		q.come(t.Context(), "b", b)
		q.hears(0, "a: held")
		time.Sleep(5 * time.Second)
		q.hears(5*time.Second, "b: held")
		c := can(true)
		q.come(t.Context(), "c", c)
		q.hears(5*time.Second, "c: held")
		if b.Bounds.Output != 10 || c.Bounds.Output != 10 {
			t.Errorf("held %d and %d of output, want 10 and 10", b.Bounds.Output, c.Bounds.Output)
		}
		q.come(t.Context(), "d", can(true)) // 90 of 100 are held
		q.ends("a", 30, 20)
		q.hears(5 * time.Second) // 50 used and 40 held: what is left is less than the least
		q.ends("b", 10, 5)
		q.hears(5*time.Second, "d: held")
		q.check()
	})
}

// TestBackInPlace: who is refused and comes again, asking for less, stands where it stood before.
func TestBackInPlace(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		q.come(t.Context(), "a", q.ask(30, 30))
		early, late := q.ask(30, 30), q.ask(30, 30)
		q.come(t.Context(), "late", late)
		early.Waited = time.Second
		q.come(t.Context(), "early", early)
		q.hears(0, "a: held")
		q.ends("a", 20, 20)
		q.hears(0, "early: held")
		time.Sleep(4 * time.Second)
		q.hears(4 * time.Second)
		q.ends("early", 0, 0)
		q.hears(4*time.Second, "late: held")
		early = q.ask(30, 30)
		early.Waited = 4 * time.Second // of 5
		q.come(t.Context(), "again", early)
		time.Sleep(time.Second)
		q.hears(5*time.Second, "again: contended")
		q.check()
	})
}

// extend asks for more output of a held request, and says what became of it as come does.
func (q *queue) extend(ctx context.Context, name string, output int64) {
	h := q.holds[name]
	cost := q.prices.Rates[usage.OutputContent].Times(output)
	go func() {
		err := q.l.Extend(ctx, h, usage.Bounds{Output: output}, cost)
		q.mu.Lock()
		defer q.mu.Unlock()
		said := "more"
		if err != nil {
			said = fmt.Sprintf("no more (%T)", err)
		}
		q.said = append(q.said, name+": "+said)
	}()
	synctest.Wait()
}

// TestExtensionsFirst: extensions go before holds that wait, the oldest request's first, and wait for what runs.
func TestExtensionsFirst(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		for _, name := range []string{"a", "b", "c"} {
			q.come(t.Context(), name, q.ask(10, 20))
		}
		q.come(t.Context(), "d", q.ask(5, 10)) // 90 of 100 are held
		q.hears(0, "a: held", "b: held", "c: held")
		q.extend(t.Context(), "b", 10)
		q.hears(0, "b: more") // before d, which waits
		q.extend(t.Context(), "c", 10)
		q.extend(t.Context(), "b", 10) // later, but the older request
		q.hears(0)
		q.ends("a", 10, 10) // 10 are free
		q.hears(0, "b: more")
		time.Sleep(5 * time.Second)
		q.hears(5*time.Second, "c: no more (*ledger.Short)", "d: contended")
		q.extend(t.Context(), "c", 51) // with what it holds itself more than is left of what is posted
		q.hears(5*time.Second, "c: no more (*ledger.Short)")
		ctx, leave := context.WithCancel(t.Context())
		q.extend(ctx, "c", 10)
		q.extend(t.Context(), "b", 1)
		q.hears(5 * time.Second)
		leave()
		q.hears(5*time.Second, "c: no more (*errors.errorString)")
		q.ends("c", 10, 20)
		q.hears(5*time.Second, "b: no more (*ledger.Short)") // 50 used, and b holds the rest
		q.ends("b", 10, 40)
		q.extend(t.Context(), "b", 1)
		q.hears(5*time.Second, "b: no more (*errors.errorString)") // its hold has ended
		q.stands(acme, 0, "100", "0")
		q.check()
	})
}

// TestExpected: what open requests are expected to ask for yet is kept free of later ones, so that they are not all cut.
func TestExpected(t *testing.T) {
	limits := []quota.Limit{limitOn(acme, quota.Tokens, period.Day, units(100)), limitOn(chat, quota.Money, period.Day, eur("1"))}
	inQueue(t, limits, func(t *testing.T, q *queue) {
		long := q.ask(10, 20)
		long.Expect = 70
		q.come(t.Context(), "long", long)
		q.come(t.Context(), "a", q.ask(5, 15)) // 30 + 50 + 20
		q.come(t.Context(), "b", q.ask(0, 1))
		q.hears(0, "a: held", "long: held")
		q.extend(t.Context(), "long", 40)
		q.hears(0, "long: more") // 90 held, 10 expected
		q.ends("a", 0, 0)        // 70 held, 10 expected
		q.hears(0, "b: held")
		q.extend(t.Context(), "long", 20)
		q.hears(0, "long: more") // beyond what was expected: nothing is kept free any more
		q.come(t.Context(), "c", q.ask(5, 4))
		q.come(t.Context(), "d", q.ask(1, 0))
		q.hears(0, "c: held")
		q.ends("long", 10, 79)
		q.hears(0, "d: held")
		q.check()
	})
}
