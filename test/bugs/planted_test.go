package bugs

// bug is a change that the named tests must find.
type bug struct {
	name  string
	pkg   string // whose tests find it
	tests string // the pattern of -run
	edits []edit
}

// edit changes one text of a file, which stands there once.
type edit struct{ file, old, new string }

const (
	hold     = "internal/ledger/hold.go"
	settle   = "internal/ledger/settle.go"
	group    = "internal/ledger/group.go"
	recovery = "internal/ledger/recover.go"
	appends  = "internal/store/sqlite/append.go"
	serve    = "internal/gateway/serve.go"
)

// planted are the bugs. The first ten are those that every gateway of this kind has had.
var planted = []bug{
	{"expiry releases a hold", "internal/ledger", "TestSimulation", []edit{{hold, `	need := ask.need()
	var short *Short
`, `	for _, old := range o.open {
		for i := range old.touched {
			if t := &old.touched[i]; at.Sub(old.Admission.At) > time.Minute {
				t.balance.Held, t.held = t.balance.Held.Sub(t.held), amount{}
			}
		}
	}
	need := ask.need()
	var short *Short
`}}},
	{"check and debit are two steps", "internal/ledger", "TestLimitIsLinearizable", []edit{{hold, `	l.grant(h, ask, at)
	return h, nil`, `	l.mu.Unlock()
	time.Sleep(time.Microsecond)
	l.mu.Lock()
	l.grant(h, ask, at)
	return h, nil`}}},
	{"a retry settles twice", "internal/ledger", "TestSettledOnce|TestEverythingAtOnce", []edit{{settle, `	if h.Status != usage.Held {
		return nil, ErrSettled
	}
	l.post`, `	l.post`}}},
	{"only the leaf is held", "internal/ledger", "TestEveryNode|TestSimulation", []edit{{hold, `			b := l.against(o, lim, at, look)
			asked := need.Of(lim.Measure)`, `			if i < len(ask.Chain)-1 {
				continue
			}
			b := l.against(o, lim, at, look)
			asked := need.Of(lim.Measure)`}}},
	{"the answer ends before its settlement is durable", "test/histories", "TestHistories", []edit{{settle, `		err = l.await(g)
	}
	if err != nil {
		return nil, err
	}
	if h.Idem`, `		l.kick()
		_ = g
	}
	if err != nil {
		return nil, err
	}
	if h.Idem`}}},
	{"an update of a counter is lost", "internal/store/sqlite", "TestStore", []edit{{appends, `	r.Charge = r.Charge.Add(old.Charge)
`, ``}}},
	{"cached tokens are added on top", "internal/engine", "TestRead", []edit{{"internal/engine/usage.go", `		rest -= clamp(&t[CacheRead], rest)
`, `		clamp(&t[CacheRead], rest)
`}}},
	{"the month is that of the settlement", "internal/ledger", "TestPeriodOfAdmission|TestSimulation", []edit{{settle, `		t.balance.Used = t.balance.Used.Add(quota.Spent(t.balance.limit.Measure, &h.Billed, charge, h.GPUCount))
`, `		now := l.balance(o, t.balance.limit, h.Result.At)
		now.Used = now.Used.Add(quota.Spent(t.balance.limit.Measure, &h.Billed, charge, h.GPUCount))
		l.changed(now)
`}}},
	{"who leaves pays nothing", "internal/ledger", "TestOutcomes|TestSimulation", []edit{{settle, `		rule = h.OnDisconnect
`, `		rule = usage.ChargeNothing
`}}},
	{"the ceiling is that of the last step only", "internal/rating", "TestCeilingOfForms|TestLaws", []edit{{"internal/rating/ceiling.go", `		top = money.Max(top, p.solve().Add(single(r, usage.Requests, 1, end, before)).Add(single(r, usage.WorkMS, work, end, before)))
`, `		top = p.solve().Add(single(r, usage.Requests, 1, end, before)).Add(single(r, usage.WorkMS, work, end, before))
`}}},
	{"the sync is deleted", "internal/store/sqlite", "TestDurable", []edit{{"internal/store/sqlite/sqlite.go", `"synchronous = FULL"`, `"synchronous = OFF"`}}},
	{"a hold is not durable when its engine is asked", "test/histories", "TestHistories", []edit{{"internal/ledger/disk.go", `	case <-g.done:
		return g.err
	case <-late:`, `	default:
		return nil
	case <-late:`}}},
	{"output above the hold is charged", "internal/ledger", "TestNeverAboveTheHold|TestSimulation", []edit{{settle, `	overOut := clamp(&c, outputLeaves, h.Bounds.Output)
`, `	overOut := int64(0)
`}}},
	{"input above the hold is charged", "internal/ledger", "TestNeverAboveTheHold|TestSimulation", []edit{{settle, `	over := clamp(&c, inputLeaves, in)
`, `	over := int64(0) * in
`}}},
	{"the bound of a stream is not watched", "internal/meter", "TestOverBound", []edit{{"internal/meter/tally.go", `	if bound == 0 || s.ran > bound {
		return bound > 0
	}`, `	if bound >= 0 {
		return false
	}`}}},
	{"an idempotency key is not looked up", "internal/ledger", "TestIdempotencyKeyIsTaken", []edit{{"internal/ledger/repeat.go", `	if err == nil && taken != nil {
		err = taken
	}`, `	_ = taken`}}},
	{"two run at once under one idempotency key", "internal/ledger", "TestOneRunsOfManyUnderOneKey|TestIdempotencyKeyIsTaken", []edit{{"internal/ledger/repeat.go", `	if c, ok := o.claims[ask.Idempotency]; ok {`, `	if c, ok := o.claims[ask.Idempotency]; ok && false {`}}},
	{"a raised limit forgets what was used", "internal/ledger", "TestLimitKeepsWhatWasUsed|TestSimulation", []edit{{"internal/ledger/publish.go", `		waited = lim.current
		lim.change(want)
`, `		waited = lim.current
		lim.change(want)
		if lim.current != nil {
			lim.current.Used = amount{}
		}
`}}},
	{"recovery skips one hold", "internal/ledger", "TestRestartResolves|TestSimulation", []edit{{recovery, `		for _, p := range o.queue {
`, `		for _, p := range o.queue[min(1, len(o.queue)):] {
`}}},
	{"recovery forgets what is held", "internal/ledger", "TestRestartResolves|TestSimulation", []edit{{recovery, `		b.Used, b.Held = row.Used, row.Held
`, `		b.Used = row.Used
`}}},
	{"recovery forgets extensions", "internal/ledger", "TestRestartResolves", []edit{{recovery, `				open.touched[i].held = open.touched[i].held.Add(t.Held)
`, `				_, _ = i, t
`}}},
	{"recovery forgets checkpoints", "internal/ledger", "TestRestartResolves|TestSimulation", []edit{{recovery, `			open.mark = d.counts()
`, `			d.counts()
`}}},
	{"a fault of ours is charged", "internal/ledger", "TestOutcomes|TestSimulation", []edit{{settle, `		rule = h.OnFault
`, `		rule = usage.ChargeGenerated
`}}},
	{"delivered is charged as generated", "internal/ledger", "TestOutcomes|TestSimulation", []edit{{settle, `		clamp(&c, outputLeaves, h.Delivered)
`, ``}}},
	{"an extension is not judged", "internal/ledger", "TestExtend|TestLimitIsLinearizable", []edit{{"internal/ledger/extend.go", `		if v > quota.Fits && (short == nil ||`, `		if false && (short == nil ||`}}},
	{"a limit that was removed still refuses", "internal/ledger", "TestLimitKeepsWhatWasUsed|TestSimulation", []edit{{hold, `			if lim.removed || !lim.Covers`, `			if !lim.Covers`}}},
	{"time runs backwards", "internal/ledger", "TestClockStepsBack|TestOneAllowanceADay|TestSimulation", []edit{{"internal/ledger/ledger.go", `t.After(l.last) {`, `!t.IsZero() {`}}},
	{"a failed commit is gone over", "internal/ledger", "TestFailedCommit|TestSimulation", []edit{{group, `		if failed != nil {
			l.lost = failed
			l.fail(failed)
		}
	}
	if failed != nil {
		// The log`, `	}
	if failed != nil {
		// The log`}}},
	{"a failed commit is acknowledged", "internal/ledger", "TestFailedCommit|TestSimulation", []edit{{group, `		g.err = errorsJoin(ErrUnavailable, failed)
`, ``}}},
	{"an owner whose epoch is over goes on", "internal/store/sqlite", "TestStore", []edit{{appends, `	if w.Changes() != 1 {`, `	if w.Changes() > 1 {`}}},
	{"a release is lost between two decisions", "internal/ledger", "TestLimitIsLinearizable|TestEverythingAtOnce|TestBurst", []edit{{settle, `		t.balance.Held = t.balance.Held.Sub(t.held)
`, `		held := t.balance.Held
		l.mu.Unlock()
		time.Sleep(time.Microsecond)
		l.mu.Lock()
		t.balance.Held = held.Sub(t.held)
`}, {settle, `	"slices"
`, `	"slices"
	"time"
`}}},
	{"a change of a limit takes effect late", "internal/ledger", "TestLimitIsLinearizable", []edit{{"internal/ledger/publish.go", `		waited = lim.current
		lim.change(want)
`, `		waited = lim.current
		go func() {
			time.Sleep(time.Millisecond)
			l.mu.Lock()
			lim.change(want)
			l.mu.Unlock()
		}()
`}}},
	{"a settlement wakes nobody", "internal/ledger", "TestContendedHoldWaits|TestBurst", []edit{{settle, `	for i := range h.touched {
		l.serve(h.touched[i].balance)
	}
`, ``}}},
	{"a hold at which no engine answered is left", "test/histories", "TestHistories", []edit{{serve, `		return x.settleNothing(err)
`, `		return err
`}}},
	{"a panic leaves its hold", "internal/gateway", "TestPanic", []edit{{serve, `	if x.hold != nil {
		x.result.Outcome, x.result.Fault = usage.Broken, usage.Gateway`, `	if false {
		x.result.Outcome, x.result.Fault = usage.Broken, usage.Gateway`}}},
	{"a stretch of a step has one token more", "internal/rating", "TestGolden|TestRate", []edit{{"internal/rating/rating.go", `		lines = append(lines, lineOf(m, usage.LineUsage, take, s.Rate))
`, `		lines = append(lines, lineOf(m, usage.LineUsage, take+1, s.Rate))
`}}},
	{"a failed settlement is said to cost nothing", "internal/gateway", "TestFailedSettlement", []edit{{"internal/gateway/error.go", `	case errors.Is(err, errUnsettled):`, `	case false:`}}},
	{"the witness is ignored", "internal/app", "TestWitness", []edit{{"internal/app/witness.go", `	if err != nil || w == nil {
		return nil, nil, err
	}
	s.witnessed`, `	if err != nil || w == nil || true {
		return nil, nil, err
	}
	s.witnessed`}}},
}
