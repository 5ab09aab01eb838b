package ledger_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

var (
	simSeed      = flag.Uint64("seed", 0, "simulate this one history, and say each step")
	simHistories = flag.Int("histories", 4, "how many histories to simulate")
	simSteps     = flag.Int("steps", 150, "how many steps a history has")
)

// TestSimulation runs random histories of holds, settlements, limits that change, clocks that jump, restarts, crashes,
// failed commits and rebuilt tables. Each decision and each balance is compared with a model of a page, and the whole
// ledger is checked after every step. A failing history is run again with -seed. I1 to I5, I8.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, *simSeed)
		return
	}
	total := map[string]int{}
	for n := range *simHistories {
		seed := uint64(n) + 1
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			for what, n := range simulate(t, seed) {
				total[what] += n
			}
		})
	}
	for _, what := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%6d %s", total[what], what)
	}
	for _, must := range []string{"granted", "contended", "exhausted", "settled", "extended", "short extension", "crash", "failed commit", "limits changed", "threshold noticed"} {
		if total[must] == 0 {
			t.Errorf("no history had: %s", must)
		}
	}
}

// sim is a history: the ledger, and the model of what it should be.
type sim struct {
	*rig
	rng     *rand.Rand
	did     map[string]int
	limits  []quota.Limit    // in force
	used    map[simKey]int64 // posted
	noticed map[simNotice]bool
	open    map[usage.ID]*simHold
	order   []usage.ID // of open holds
	now     time.Time  // of the ledger
	fail    *failing
}

type simKey struct {
	limit string // quota.Limit.Identity
	start time.Time
}

type simNotice struct {
	simKey
	at int64
}

type simHold struct {
	*ledger.Hold
	chain  []account.ID
	bounds usage.Bounds
	money  int64
	on     map[simKey]quota.Limit
	mark   *usage.Counts
	fault  usage.Tariff
	gone   usage.Tariff
}

// Femto-units of a token, as newPrices has them.
const (
	inputPrice  = 1_000_000_000
	outputPrice = 2_000_000_000
)

func simulate(t *testing.T, seed uint64) map[string]int {
	s := &sim{rig: unopened(t), rng: rand.New(rand.NewPCG(seed, 1)), did: map[string]int{}, used: map[simKey]int64{}, noticed: map[simNotice]bool{}, open: map[usage.ID]*simHold{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again: go test ./internal/ledger -run TestSimulation -seed %d -steps %d", seed, *simSteps)
		}
	})
	s.wrap = func(store ledger.Store) ledger.Store {
		s.fail = &failing{Store: store, left: 1 << 30}
		return s.fail
	}
	s.chat.Work, s.sales.Work = simWork, simWork
	s.sales.Key = "key_sales"
	s.tick()
	s.rig.open()
	s.changeLimits()
	for n := 0; n < *simSteps && !t.Failed(); n++ {
		what := s.step()
		s.did[what]++
		if *simSeed != 0 {
			t.Logf("%4d %s %s", n, s.now.Format(time.RFC3339), what)
		}
		s.compare()
		s.check()
	}
	s.did["threshold noticed"] = len(s.noticed)
	return s.did
}

// step does one thing and says what.
func (s *sim) step() string {
	switch n := s.rng.IntN(100); {
	case n < 40:
		return s.ask()
	case n < 65:
		return s.settle()
	case n < 72:
		return s.extend()
	case n < 78:
		return s.checkpoint()
	case n < 86:
		return s.changeLimits()
	case n < 92:
		s.clock.advance(time.Duration(s.rng.Int64N(int64(5 * time.Hour))))
		s.tick()
		return "time passes"
	case n < 94:
		s.clock.set(s.now.Add(-time.Duration(s.rng.Int64N(int64(2 * time.Minute)))))
		return "clock steps back"
	case n < 96:
		return s.failNext()
	}
	return s.end()
}

// tick moves the model's time as a decision of the ledger does.
func (s *sim) tick() {
	if at := s.clock.Now().Truncate(time.Microsecond); at.After(s.now) {
		s.now = at
	}
}

func (s *sim) key(lim quota.Limit) simKey {
	zone, err := period.Zone(lim.Zone)
	if err != nil {
		s.t.Fatal(err)
	}
	return simKey{lim.Identity(), period.Anchored(lim.Window, lim.Anchor, zone, s.now).Start}
}

func (s *sim) held(key simKey) (sum int64) {
	for _, h := range s.open {
		if lim, ok := h.on[key]; ok {
			sum += simNeed(lim.Measure, h.money, h.bounds)
		}
	}
	return sum
}

func simNeed(m quota.Measure, money int64, b usage.Bounds) int64 {
	switch m {
	case quota.Money:
		return money
	case quota.InputTokens:
		return b.Input
	case quota.OutputTokens:
		return b.Output
	case quota.Tokens:
		if b.Joint > 0 {
			return min(b.Joint, b.Input+b.Output)
		}
		return b.Input + b.Output
	case quota.WorkMS:
		in, out := b.Input, b.Output
		if b.Joint > 0 {
			out = min(out, b.Joint)
			in = min(in, b.Joint-out)
		}
		return simMS(in, out)
	case quota.GPUSeconds:
		return 0
	}
	return 1
}

// simWork is what the work of all requests is made of.
var simWork = usage.Work{Fixed: 6_100_000_000, Input: 33_000_000, Output: 6_200_000_000, Context: 49_000}

func simMS(in, out int64) int64 {
	if in+out == 0 {
		return 0
	}
	ps := simWork.Fixed + simWork.Input*in + simWork.Output*out + simWork.Context*((2*in*out+out*out+1)/2)
	return (ps + 999_999_999) / 1_000_000_000
}

func (s *sim) amountOf(lim quota.Limit) int64 {
	hi, lo := lim.Amount.Femto()
	if hi != 0 || int64(lo) < 0 {
		s.t.Fatal("amounts of the model are small")
	}
	return int64(lo)
}

func (s *sim) ask() string {
	chain, subject := chatChain, s.chat
	if s.rng.IntN(3) == 0 {
		chain, subject = salesChain, s.sales
	}
	s.onFail, s.onGone = usage.Tariff(s.rng.IntN(3)), usage.Tariff(s.rng.IntN(3))
	ask := s.askAs(subject, chain, s.rng.Int64N(1000), s.rng.Int64N(1000))
	ask.TierAsked = []string{"", "auto", "standard", "batch"}[s.rng.IntN(4)]
	money := ask.Bounds.Input*inputPrice + ask.Bounds.Output*outputPrice
	if s.rng.IntN(3) == 0 {
		ask.Bounds.Joint = 1 + s.rng.Int64N(2000)
	}
	s.tick()
	h := &simHold{chain: chain, bounds: ask.Bounds, money: money, on: map[simKey]quota.Limit{}, fault: s.onFail, gone: s.onGone}
	want := "granted"
	for _, lim := range s.limits {
		if !slices.Contains(chain, lim.Account) || !lim.Covers(subject, ask.TierAsked) {
			continue
		}
		key := s.key(lim)
		h.on[key] = lim
		need := simNeed(lim.Measure, money, ask.Bounds)
		switch {
		case lim.Action == quota.AlertOnly:
		case s.used[key]+need > s.amountOf(lim):
			want = "exhausted"
		case s.used[key]+s.held(key)+need > s.amountOf(lim) && want == "granted":
			want = "contended"
		}
	}
	failing := s.fail.armed()
	hold, err := s.l.Hold(context.Background(), ask)
	var short *ledger.Short
	got := "granted"
	if errors.As(err, &short) {
		got = map[quota.Verdict]string{quota.Contended: "contended", quota.Exhausted: "exhausted"}[short.Verdict]
	} else if failing && err != nil {
		return s.failed(err, ask.ID, func() { s.remember(ask.ID, h) })
	} else if err != nil {
		s.t.Fatal(err)
	}
	if got != want {
		s.t.Fatalf("%s, but %s is right: %v", got, want, err)
	}
	if got == "granted" {
		h.Hold = hold
		s.remember(ask.ID, h)
		s.tick()
	}
	return got
}

func (s *sim) remember(id usage.ID, h *simHold) {
	s.open[id] = h
	s.order = append(s.order, id)
}

// pick chooses an open hold, nil if there is none.
func (s *sim) pick() (usage.ID, *simHold) {
	s.order = slices.DeleteFunc(s.order, func(id usage.ID) bool { return s.open[id] == nil })
	if len(s.order) == 0 {
		return 0, nil
	}
	id := s.order[s.rng.IntN(len(s.order))]
	return id, s.open[id]
}

func (s *sim) settle() string {
	id, h := s.pick()
	if h == nil {
		return "nothing to settle"
	}
	outcomes := []usage.Outcome{usage.Completed, usage.Completed, usage.Cut, usage.ClientGone, usage.Revoked, usage.Broken, usage.Unserved, usage.EngineSaid}
	result := ended(outcomes[s.rng.IntN(len(outcomes))], s.rng.Int64N(1100), s.rng.Int64N(1100))
	result.Delivered = s.rng.Int64N(1000)
	if s.rng.IntN(8) == 0 {
		result.Counts = usage.Counts{}
	}
	failing := s.fail.armed()
	_, err := s.l.Settle(h.Hold, result)
	if failing {
		return s.failed(err, id, func() { s.post(id, result) })
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.post(id, result)
	s.tick()
	if s.rng.IntN(4) == 0 {
		if _, err := s.l.Settle(h.Hold, result); !errors.Is(err, ledger.ErrSettled) {
			s.t.Fatalf("settled twice: %v", err)
		}
	}
	return "settled"
}

// post is what a settlement means.
func (s *sim) post(id usage.ID, r *usage.Result) {
	h := s.open[id]
	delete(s.open, id)
	rule := usage.ChargeNothing
	switch r.Outcome {
	case usage.Completed, usage.Cut:
		rule = usage.ChargeGenerated
	case usage.ClientGone, usage.Revoked:
		rule = h.gone
	case usage.Broken:
		rule = h.fault
	}
	if rule == usage.ChargeNothing || r.Counts.Empty() {
		return
	}
	in, out := min(r.Counts.Input(), h.bounds.Input), min(r.Counts.Output(), h.bounds.Output)
	if rule == usage.ChargeDelivered {
		out = min(out, r.Delivered)
	}
	if h.bounds.Joint > 0 {
		in = min(in, h.bounds.Joint)
		out = min(out, h.bounds.Joint-in)
	}
	for key, lim := range h.on {
		s.used[key] += simNeed(lim.Measure, in*inputPrice+out*outputPrice, usage.Bounds{Input: in, Output: out})
		if lim.Measure == quota.GPUSeconds {
			s.used[key] += simMS(in, out) * 1_000_000_000_000
		}
		s.reach(key)
	}
}

// reach notices the thresholds of a limit that is in force.
func (s *sim) reach(key simKey) {
	for _, lim := range s.limits {
		for _, alert := range lim.Alerts {
			if at, _ := alert.At.Int64(); lim.Identity() == key.limit && s.used[key] >= at {
				s.noticed[simNotice{key, at}] = true
			}
		}
	}
}

func (s *sim) extend() string {
	_, h := s.pick()
	if h == nil || s.fail.armed() {
		return "nothing to extend"
	}
	more := usage.Bounds{Output: s.rng.Int64N(1200), Joint: s.rng.Int64N(1200)}
	cost := more.Output * outputPrice
	bounds := h.bounds
	bounds.Output += more.Output
	if bounds.Joint > 0 {
		bounds.Joint += more.Joint
	}
	fits := true
	for key, lim := range h.on {
		add := simNeed(lim.Measure, h.money+cost, bounds) - simNeed(lim.Measure, h.money, h.bounds)
		at := slices.IndexFunc(s.limits, func(l quota.Limit) bool { return l.Identity() == lim.Identity() })
		fits = fits && (at < 0 || add == 0 || s.limits[at].Action == quota.AlertOnly || s.used[key]+s.held(key)+add <= s.amountOf(s.limits[at]))
	}
	err := s.l.Extend(context.Background(), h.Hold, more, units(cost))
	var short *ledger.Short
	if err != nil && !errors.As(err, &short) {
		s.t.Fatal(err)
	}
	if fits != (err == nil) {
		s.t.Fatalf("extension fits: %v; error %v", fits, err)
	}
	if !fits {
		return "short extension"
	}
	h.bounds, h.money = bounds, h.money+cost
	s.tick()
	return "extended"
}

func (s *sim) checkpoint() string {
	_, h := s.pick()
	if h == nil || s.fail.armed() {
		return "nothing to note"
	}
	mark := counts(s.rng.Int64N(1100), s.rng.Int64N(1100))
	h.mark = &mark
	s.l.Checkpoint(h.Hold, mark, usage.EngineRunning)
	s.flush()
	return "checkpoint"
}

// flush waits until everything decided so far is on disk.
func (s *sim) flush() {
	s.t.Helper()
	err := s.l.Publish(context.Background(), ledger.Publication{Limits: s.limits, Objects: []ledger.Object{{Kind: "sim", Name: "flush", ID: 1}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.tick()
}

func (s *sim) changeLimits() string {
	if s.fail.armed() {
		return "no time for limits"
	}
	s.limits = nil
	for _, node := range []account.ID{acme, research, chat, sales} {
		for range s.rng.IntN(3) {
			lim := s.anyLimit(node)
			if !slices.ContainsFunc(s.limits, func(l quota.Limit) bool { return l.Identity() == lim.Identity() }) {
				s.limits = append(s.limits, lim)
			}
		}
	}
	s.flush()
	for _, lim := range s.limits {
		s.reach(s.key(lim))
	}
	return "limits changed"
}

// anyLimit makes up a limit of a node.
func (s *sim) anyLimit(node account.ID) quota.Limit {
	m := quota.Measure(s.rng.IntN(7))
	most := []int64{3_000 * inputPrice, 4000, 3000, 6000, 6, 12_000, 12_000_000_000_000_000}[m]
	lim := limitOn(node, m, period.Hour+period.Window(s.rng.IntN(7)), units(s.rng.Int64N(most)+s.rng.Int64N(most)))
	if s.rng.IntN(4) == 0 {
		lim.Model = []string{"small", "large"}[s.rng.IntN(2)]
	}
	if s.rng.IntN(4) == 0 {
		lim.Tier = []string{"standard", "batch"}[s.rng.IntN(2)]
	}
	if s.rng.IntN(4) == 0 && (node == chat || node == sales) {
		lim.Key = []string{"key_0123456789", "key_sales"}[s.rng.IntN(2)] // not always one of the project
	}
	if a := period.Anchor(s.rng.IntN(32)); s.rng.IntN(3) == 0 && a.Fits(lim.Window) {
		lim.Anchor = a
	}
	if m == quota.GPUSeconds || s.rng.IntN(4) == 0 {
		lim.Action = quota.AlertOnly
	}
	for range s.rng.IntN(4) {
		a, err := quota.ParseAlert(m, lim.Amount, fmt.Sprintf("%d%%", 1+s.rng.IntN(150)))
		if err != nil {
			s.t.Fatal(err)
		}
		lim.Alerts = append(lim.Alerts, a)
	}
	lim.Alerts = quota.SortAlerts(lim.Alerts)
	return lim
}

// failNext lets the next commit fail, before or after it has done its work.
func (s *sim) failNext() string {
	s.fail.mu.Lock()
	defer s.fail.mu.Unlock()
	s.fail.left, s.fail.after = 0, s.rng.IntN(2) == 0
	return "disk about to fail"
}

// failed expects that nothing was acknowledged, and that a fresh start knows what is true: that it happened after all,
// if its group is the one that was written before it failed. (That can also be an earlier one, of a period that was
// needed to refuse something.)
func (s *sim) failed(err error, id usage.ID, happened func()) string {
	if !errors.Is(err, ledger.ErrUnavailable) {
		s.t.Fatalf("the commit failed; error %v", err)
	}
	if s.fail.after && slices.Contains(s.fail.saw, id) {
		happened()
		s.tick()
	}
	s.l.Close()
	s.reopen(func() { s.rig.open() })
	return "failed commit"
}

// end lets the process end in one of several ways, and the next one begin.
func (s *sim) end() string {
	if s.fail.armed() { // what is noted in passing may fail first: let it
		s.fail.mu.Lock()
		s.fail.left = 1 << 30
		s.fail.mu.Unlock()
	}
	switch s.rng.IntN(3) {
	case 0:
		s.reopen(s.restart)
		return "restart"
	case 1:
		s.reopen(s.crash)
		return "crash"
	}
	if err := s.l.Close(); err != nil {
		s.t.Fatal(err)
	}
	store, err := sqlite.Open(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := ledger.Rebuild(store); err != nil {
		s.t.Fatal(err)
	}
	store.Close()
	s.reopen(func() { s.rig.open() })
	return "rebuilt"
}

// reopen expects what was open to be resolved by the platform-fault rule.
func (s *sim) reopen(open func()) {
	open()
	s.now = time.UnixMicro(copyOf(s.t, s.store).lastAt).UTC()
	s.tick()
	for id, h := range s.open {
		r := &usage.Result{Outcome: usage.Broken}
		if h.mark != nil {
			r.Counts, r.Delivered = *h.mark, h.mark.Output()
		}
		s.post(id, r)
	}
}

// compare compares what stands against every limit with the model.
func (s *sim) compare() {
	s.t.Helper()
	s.tick()
	standings := s.l.Standings(acme, []account.ID{acme, research, chat})
	standings = append(standings, s.l.Standings(acme, []account.ID{sales})...)
	if len(standings) != len(s.limits) {
		s.t.Fatalf("%d limits are in force, not %d", len(standings), len(s.limits))
	}
	for _, x := range standings {
		key := s.key(x.Limit)
		if x.Used != units(s.used[key]) || x.Held != units(s.held(key)) {
			s.t.Fatalf("limit %s, %s: %s used and %s held; right is %s and %s", key.limit, x.Period.Label, x.Used, x.Held, units(s.used[key]), units(s.held(key)))
		}
	}
	if n := len(s.l.Notices(acme)); n != min(len(s.noticed), 1000) {
		s.t.Fatalf("%d notices, not %d", n, len(s.noticed))
	}
	if n := s.l.OpenHolds(); n != len(s.open) {
		s.t.Fatalf("%d holds are open, not %d", n, len(s.open))
	}
}
