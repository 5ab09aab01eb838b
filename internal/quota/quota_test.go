package quota

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"talea/internal/money"
	"talea/internal/usage"
)

func TestJudge(t *testing.T) {
	u := money.Units
	for _, c := range []struct {
		limit, used, held, ask int64
		want                   Verdict
	}{
		{100, 0, 0, 100, Fits},
		{100, 0, 0, 101, Exhausted},
		{100, 60, 0, 40, Fits},
		{100, 60, 0, 41, Exhausted},
		{100, 60, 30, 10, Fits},
		{100, 60, 30, 11, Contended}, // it fits what is posted; the running hold is in the way
		{100, 60, 30, 40, Contended},
		{100, 60, 30, 41, Exhausted}, // whatever the running hold ends at
		{100, 120, 0, 0, Exhausted},  // lowered after the fact
		{0, 0, 0, 0, Fits},
		{0, 0, 0, 1, Exhausted},
	} {
		for action, want := range map[Action]Verdict{Block: c.want, Degrade: c.want, AlertOnly: Fits} {
			lim := Limit{Amount: u(c.limit), Action: action}
			if got := lim.Judge(Balance{u(c.used), u(c.held)}, u(c.ask)); got != want {
				t.Errorf("%s of %+v: %d", action, c, got)
			}
		}
	}
}

// TestJudgeNeverOverspends: whatever is granted, used + held stays at or below the limit. I1.
func TestJudgeNeverOverspends(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		limit := r.Int64N(1000)
		var b Balance
		var held []int64
		for range 50 {
			ask := r.Int64N(200)
			if lim := (Limit{Amount: money.Units(limit)}); lim.Judge(b, money.Units(ask)) == Fits {
				b.Held = b.Held.Add(money.Units(ask))
				held = append(held, ask)
			}
			if len(held) > 0 && r.IntN(2) == 0 { // settle one at no more than it held
				h := held[0]
				held = held[1:]
				b.Held = b.Held.Sub(money.Units(h))
				b.Used = b.Used.Add(money.Units(r.Int64N(h + 1)))
			}
			if sum, ok := b.Used.Add(b.Held).Int64(); !ok || sum > limit {
				t.Fatalf("used and held are %d of %d", sum, limit)
			}
		}
	}
}

func TestNeedAndSpent(t *testing.T) {
	ten, err := money.ParseAmount("10")
	if err != nil {
		t.Fatal(err)
	}
	n := Need{Money: ten, Bounds: usage.Bounds{Input: 100, Output: 50, Joint: 120}, Work: usage.Work{Fixed: 5_000_000_000, Input: 1_000_000, Output: 20_000_000}}
	var used usage.Counts
	used.Set(usage.InputUncached, 30)
	used.Set(usage.InputCacheRead, 10)
	used.Set(usage.OutputContent, 5)
	used.Set(usage.OutputReasoning, 2)
	used.Set(usage.WorkMS, 6)
	for m, want := range map[Measure][2]int64{InputTokens: {100, 40}, OutputTokens: {50, 7}, Tokens: {120, 47}, RequestCount: {1, 1}, WorkMS: {7, 6}, GPUSeconds: {0, 24_000_000_000_000}} {
		need, spent := n.Of(m), Spent(m, &used, ten, 4)
		if need != money.Units(want[0]) || spent != money.Units(want[1]) {
			t.Errorf("%s: need %s, spent %s; want %v", m, m.Format(need), m.Format(spent), want)
		}
	}
	if n.Of(Money) != ten || Spent(Money, &used, ten, 0) != ten {
		t.Error("money is not the ceiling and the charge")
	}
	if got := Spent(RequestCount, &usage.Counts{}, money.Amount{}, 0); !got.IsZero() {
		t.Error("a request that is billed nothing uses up a request")
	}
	if got := Spent(GPUSeconds, &used, ten, 0); GPUSeconds.Format(got) != "0.006" {
		t.Errorf("6 ms on an unknown number of GPUs are %s s", GPUSeconds.Format(got))
	}
	used.Set(usage.WorkMS, usage.MaxCount)
	if got := Spent(GPUSeconds, &used, ten, usage.MaxCount); GPUSeconds.Format(got) != "1000000000000" {
		t.Errorf("more than there can be is %s s", GPUSeconds.Format(got))
	}
	if need := (Need{Bounds: usage.Bounds{Input: 1}}).Of(WorkMS); need != money.Units(usage.MaxCount) {
		t.Errorf("unknown work needs %s ms, which may fit", WorkMS.Format(need))
	}
}

func TestMeasureAmounts(t *testing.T) {
	for _, c := range []struct {
		m        Measure
		in, want string // want "" is an error
	}{
		{Money, "0.0042", "0.0042"}, {Money, "-1", ""}, {Money, "1e3", ""}, {Money, "", ""},
		{Tokens, "20640", "20640"}, {Tokens, "20640.5", ""}, {Tokens, "-1", ""}, {Tokens, "1000000000000001", ""}, {RequestCount, "0", "0"}, {WorkMS, "1.5", ""}, {WorkMS, "3600000", "3600000"}, {GPUSeconds, "0.25", "0.25"}, {GPUSeconds, "-1", ""},
	} {
		a, err := c.m.ParseAmount(c.in)
		if (err == nil) != (c.want != "") || err == nil && c.m.Format(a) != c.want {
			t.Errorf("%s %q: %s, %v", c.m, c.in, c.m.Format(a), err)
		}
	}
	for _, name := range Measures() {
		if m, ok := ParseMeasure(name); !ok || m.String() != name {
			t.Errorf("%s is read as %s", name, m)
		}
	}
	for a := range numActions {
		if got, ok := ParseAction(a.String()); !ok || got != a {
			t.Errorf("%s is read as %s", a, got)
		}
	}
}

func TestLimitIdentity(t *testing.T) {
	a := Limit{Account: 3, Measure: Money, Window: 4, Amount: money.Units(1)}
	for _, change := range []func(*Limit){
		func(l *Limit) { l.Amount = money.Units(2) }, func(l *Limit) { l.Path = "renamed" }, func(l *Limit) { l.Zone = "UTC" },
		func(l *Limit) { l.Action = AlertOnly }, func(l *Limit) { l.DegradeTo = "small" }, func(l *Limit) { l.Alerts = []Alert{{At: money.Units(1)}} },
	} {
		b := a
		change(&b)
		if a.Identity() != b.Identity() || a.Same(&b) {
			t.Errorf("%+v and %+v are two limits, or nothing differs", a, b)
		}
	}
	for _, change := range []func(*Limit){
		func(l *Limit) { l.Account++ }, func(l *Limit) { l.Measure++ }, func(l *Limit) { l.Window++ }, func(l *Limit) { l.Anchor++ },
		func(l *Limit) { l.Key = "key_a" }, func(l *Limit) { l.Model = "m" }, func(l *Limit) { l.SizeClass = "m" }, func(l *Limit) { l.Tier = "m" },
	} {
		b := a
		change(&b)
		if a.Identity() == b.Identity() || a.Same(&b) {
			t.Errorf("%+v and %+v are one limit", a, b)
		}
	}
	b := a
	if !a.Same(&b) {
		t.Error("a limit differs from itself")
	}
}

// TestCovers has a limit and a request in each row.
func TestCovers(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		key   string
		model string
		class string
		tier  string
		want  bool
	}{
		{Limit{}, "key_a", "m", "small", "", true},
		{Limit{Model: "m"}, "key_a", "m", "small", "", true}, {Limit{Model: "m"}, "key_a", "x", "small", "", false},
		{Limit{SizeClass: "small"}, "key_a", "m", "small", "", true}, {Limit{SizeClass: "small"}, "key_a", "m", "large", "", false},
		{Limit{Key: "key_a"}, "key_a", "m", "small", "", true}, {Limit{Key: "key_a"}, "key_b", "m", "small", "", false},
		{Limit{Tier: "standard"}, "key_a", "m", "small", "", true}, {Limit{Tier: "standard"}, "key_a", "m", "small", "auto", true},
		{Limit{Tier: "standard"}, "key_a", "m", "small", "default", true}, {Limit{Tier: "standard"}, "key_a", "m", "small", "batch", false},
		{Limit{Tier: "batch"}, "key_a", "m", "small", "batch", true}, {Limit{Tier: "batch"}, "key_a", "m", "small", "", false},
		{Limit{Model: "m", Tier: "batch"}, "key_a", "m", "small", "", false}, {Limit{Key: "key_a", Model: "m"}, "key_b", "m", "small", "", false},
	} {
		s := usage.Subject{Key: c.key, Model: c.model, SizeClass: c.class}
		if c.limit.Covers(&s, c.tier) != c.want {
			t.Errorf("%+v: %v", c, !c.want)
		}
	}
}

func TestAlerts(t *testing.T) {
	for _, c := range []struct {
		m          Measure
		of         int64
		text, want string // want "" is an error, else the text and the amount
	}{
		{Tokens, 1000, "80%", "80% 800"}, {Tokens, 3, "50%", "50% 2"}, {Tokens, 1, "1%", "1% 1"}, {Tokens, 1000, "250", "250 250"}, {Tokens, 0, "50%", "50% 0"},
		{RequestCount, 7, "100%", "100% 7"}, {Tokens, 7, "1000%", "1000% 70"},
		{Tokens, 7, "0%", ""}, {Tokens, 7, "1001%", ""}, {Tokens, 7, "-5%", ""}, {Tokens, 7, "5.5%", ""}, {Tokens, 7, "05%", ""}, {Tokens, 7, "%", ""},
		{Tokens, 7, "0", ""}, {Tokens, 7, "1.5", ""}, {Tokens, 7, "x", ""},
	} {
		a, err := ParseAlert(c.m, money.Units(c.of), c.text)
		if (err == nil) != (c.want != "") || err == nil && a.Text(c.m)+" "+c.m.Format(a.At) != c.want {
			t.Errorf("%s of %d: %s %s, %v", c.text, c.of, a.Text(c.m), c.m.Format(a.At), err)
		}
	}
	var list []Alert
	for _, text := range []string{"100%", "40", "50%", "80%", "50", "1%"} {
		a, err := ParseAlert(Tokens, money.Units(100), text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	got := ""
	for _, a := range SortAlerts(append(list, Alert{Percent: 1})) {
		got += a.Text(Tokens) + " "
	}
	if got != "1% 40 50% 80% 100% " {
		t.Errorf("in order: %s", got)
	}
}

// TestRate: a burst passes at once, then one each step; what is given back passes again; huge requests pass at rest.
func TestRate(t *testing.T) {
	r := Rate{PerMinute: 60, Burst: 3}
	var p Pace
	now := int64(time.Hour)
	take := func(n int64) bool {
		next, ok, wait := r.Take(p, now, n)
		if ok != (wait == 0) {
			t.Fatalf("ok %v, wait %v", ok, wait)
		}
		p = next
		return ok
	}
	for i, want := range []bool{true, true, true, false} {
		if take(1) != want {
			t.Fatalf("request %d: %v", i, !want)
		}
	}
	now += int64(time.Second)
	if !take(1) || take(1) {
		t.Fatal("one passes each second")
	}
	p = r.Give(p, 1)
	if !take(1) {
		t.Fatal("what is given back passes again")
	}
	if cells, reset := r.Left(p, now); cells != 0 || reset <= 0 {
		t.Errorf("left %d, reset %v", cells, reset)
	}
	now += int64(time.Hour)
	if cells, reset := r.Left(p, now); cells != 3 || reset != 0 {
		t.Errorf("at rest: left %d, reset %v", cells, reset)
	}
	if !take(1000) || take(1) {
		t.Error("a request above the burst passes at rest, and pays its whole length")
	}
}

// TestRateArithmetic: steps are exact, rounded up, and never overflow.
func TestRateArithmetic(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		rate := Rate{PerMinute: 1 + r.Int64N(1_000_000_000), Burst: 1}
		n := r.Int64N(usage.MaxCount)
		want := new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(time.Minute)))
		want.Add(want, big.NewInt(rate.PerMinute-1)).Div(want, big.NewInt(rate.PerMinute))
		if most := big.NewInt(longest); want.Cmp(most) > 0 {
			want = most
		}
		if got := rate.step(n); got != want.Int64() {
			t.Fatalf("%d cells at %d a minute: %d, want %s", n, rate.PerMinute, got, want)
		}
	}
}
