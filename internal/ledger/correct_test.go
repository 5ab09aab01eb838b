package ledger_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
)

// correction brings what the project chat was charged in the hour up to now to a total.
func (r *rig) correction(charged, total string, requests int64) ledger.Correction {
	return ledger.Correction{
		Chain: chatChain, Path: "acme/research/chat", Currency: "EUR", Book: "public@0123456789abcdef", From: noon.Add(-time.Hour), To: noon.Add(time.Hour),
		Requests: requests, Charged: eur(charged), Total: eur(total), Reason: "a wrong price", Who: "anna",
	}
}

func (r *rig) correct(list ...ledger.Correction) []ledger.Correction {
	r.t.Helper()
	posted, err := r.l.Correct(list)
	if err != nil {
		r.t.Fatal(err)
	}
	return posted
}

func money2(node account.ID, w period.Window, most string) quota.Limit {
	return limitOn(node, quota.Money, w, eur(most))
}

// A correction is added to what is used of every budget of its path that is narrowed to nothing, in the period that runs
// now; the same once more posts nothing; what is used never falls below 0; a restart and a rebuild know it.
func TestCorrection(t *testing.T) {
	narrowed := money2(chat, period.Month, "9")
	narrowed.Model = "small"
	r := newRig(t, money2(acme, period.Month, "5"), money2(chat, period.Day, "5"), narrowed, money2(sales, period.Month, "5"), limitOn(acme, quota.Tokens, period.Month, units(99_000_000)))
	r.spend(1_000_000, 500_000) // 2 EUR
	r.clock.advance(26 * time.Hour)
	posted := r.correct(r.correction("2", "3.5", 1))
	if len(posted) != 1 || posted[0].Amount != eur("1.5") || posted[0].Seq == 0 {
		t.Fatalf("posted %+v", posted)
	}
	r.stands(acme, 0, "3.5", "0")
	r.stands(acme, 1, "1500000", "0")
	r.stands(chat, 0, "1.5", "0") // the day after
	r.stands(chat, 1, "2", "0")
	r.stands(sales, 0, "0", "0")
	if again := r.correct(r.correction("2", "3.5", 1)); len(again) != 0 {
		t.Errorf("the same once more posts %+v", again)
	}
	r.check()
	r.restart()
	if again := r.correct(r.correction("2", "3.5", 1)); len(again) != 0 {
		t.Errorf("the same after a restart posts %+v", again)
	}
	if got := r.l.Corrections(acme); len(got) != 1 || got[0].Who != "anna" || got[0].Total != eur("3.5") {
		t.Errorf("corrections %+v", got)
	}
	if down := r.correct(r.correction("2", "0.25", 1)); len(down) != 1 || down[0].Amount != eur("-3.25") {
		t.Errorf("posted %+v", down)
	}
	r.stands(acme, 0, "0.25", "0")
	r.stands(chat, 0, "0", "0") // not below 0
	r.check()
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.stands(acme, 0, "0.25", "0")
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	r.rebuilt()
}

// rebuilt makes the sums anew, and checks them.
func (r *rig) rebuilt() {
	r.t.Helper()
	r.open()
	if err := r.l.Close(); err != nil {
		r.t.Fatal(err)
	}
	store, err := sqlite.Open(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer store.Close()
	if err := ledger.Rebuild(store); err != nil {
		r.t.Fatal(err)
	}
	checked(r.t, store)
}

// A correction that lifts a budget above its amount says so, reaches its thresholds, and ends admission.
func TestCorrectionAboveALimit(t *testing.T) {
	lim := money2(acme, period.Month, "3")
	lim.Alerts = []quota.Alert{{Percent: 100, At: eur("3")}}
	r := newRig(t, lim)
	r.spend(1_000_000, 500_000)
	r.clock.advance(2 * time.Hour)
	r.correct(r.correction("2", "4", 1))
	s := r.l.Standings(acme, []account.ID{acme})[0]
	if by, cause := s.OverLimit(); by != eur("1") || cause != "correction" {
		t.Errorf("over by %s: %s", by, cause)
	}
	if got := r.l.Notices(acme); len(got) != 1 || got[0].Used != eur("4") || got[0].Request != 0 {
		t.Errorf("notices %+v", got)
	}
	r.refused(r.ask(10, 10), quota.Exhausted, acme)
	r.check()
}

func TestCorrectionsThatAreRefused(t *testing.T) {
	r := newRig(t, money2(acme, period.Month, "50"))
	r.spend(1_000_000, 500_000)
	early := r.correction("2", "3", 1) // its range has not ended
	if _, err := r.l.Correct([]ledger.Correction{early}); !errors.Is(err, ledger.ErrCorrection) {
		t.Errorf("error %v", err)
	}
	r.clock.advance(3 * time.Hour)
	first := r.correction("2", "3", 1)
	r.correct(first)
	over := first
	over.To = over.To.Add(time.Hour)
	beside := first
	beside.To, beside.From, beside.Charged, beside.Total, beside.Requests = over.To, first.To, eur("0"), eur("0"), 0
	none := first
	none.Reason = ""
	for _, c := range []ledger.Correction{over, none} {
		other := r.correction("2", "4", 1)
		if posted, err := r.l.Correct([]ledger.Correction{other, c}); !errors.Is(err, ledger.ErrCorrection) || posted != nil {
			t.Errorf("%+v: error %v", c, err)
		}
	}
	if posted := r.correct(beside); len(posted) != 0 {
		t.Errorf("posted %+v", posted)
	}
	r.stands(acme, 0, "3", "0") // of the refused lists nothing is posted
	r.check()
}

// Random corrections, in any order with requests, restarts and changes of limits, leave books that agree, and bring each
// account to what the newest one says.
func TestRandomCorrections(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		lim := money2(acme, period.Month, "90")
		lim.Alerts = []quota.Alert{{At: eur("2")}, {At: eur("6")}}
		limits := []quota.Limit{lim, money2(chat, period.Day, "90"), money2(research, period.Total, "90")}
		r := newRig(t, limits...)
		r.spend(100_000, 50_000)
		spent := int64(1)
		owed := map[time.Time]money.Amount{}
		for range 40 {
			switch rng.IntN(5) {
			case 0:
				r.restart()
			case 1:
				limits[1].Amount = eur([]string{"90", "91"}[rng.IntN(2)])
				r.publish(limits...)
			case 2, 3:
				if r.clock.Now().Before(noon.Add(time.Hour)) {
					r.spend(100_000, 50_000) // 0.2 EUR
					spent++
				}
			case 4:
				if r.clock.Now().Before(noon.Add(time.Hour)) {
					break
				}
				c := r.correction("0", "0", spent)
				c.Charged, c.Total = money.Units(200_000_000_000_000*spent), money.Units(rng.Int64N(4_000_000_000_000_000))
				r.correct(c)
				owed[c.From] = c.Total
				sum := c.Charged
				for _, k := range r.l.Corrections(acme) {
					sum = sum.Add(k.Amount)
				}
				if sum != c.Total {
					t.Fatalf("seed %d: brought to %s, not %s", seed, sum, c.Total)
				}
			}
			r.clock.advance(time.Duration(rng.IntN(20)) * time.Minute)
		}
		r.check()
		if len(owed) == 0 {
			t.Errorf("seed %d: no corrections", seed)
		}
		if err := r.l.Close(); err != nil {
			t.Fatal(err)
		}
		r.rebuilt()
	}
}

// The checker finds corrections that are not right in themselves: what another program than this one might write.
func TestCheckFindsWrongCorrections(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*ledger.Correction)
		want   string
	}{
		{"more than was charged", func(c *ledger.Correction) { c.Charged = eur("2.5"); c.Total = eur("3") }, "by the log there were 1"},
		{"more requests", func(c *ledger.Correction) { c.Requests = 2 }, "by the log there were 1"},
		{"another account", func(c *ledger.Correction) { c.Chain = salesChain }, "by the log there were 0"},
	} {
		r := newRig(t, money2(acme, period.Month, "50"))
		r.spend(1_000_000, 500_000)
		r.clock.advance(2 * time.Hour)
		wrong := r.correction("2", "3", 1)
		c.change(&wrong)
		r.correct(wrong)
		report, err := ledger.Check(r.store)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(report.Difference, c.want) {
			t.Errorf("%s: %s", c.what, report)
		}
	}
}
