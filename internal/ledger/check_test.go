package ledger

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

// memory is a store's content, to be read by Check and spoilt by a test.
type memory struct {
	epoch, lastAt int64
	entries       []EntryRow
	heads         []HeadRow
	balances      []BalanceRow
	usage         []UsageRow
}

func (m *memory) Snapshot(v *Visitor) error {
	err := v.Meta(m.epoch, m.lastAt)
	err = firstError(err, m.entries, v.Entry)
	err = firstError(err, m.heads, v.Head)
	err = firstError(err, m.balances, v.Balance)
	return firstError(err, m.usage, v.Usage)
}

func firstError[T any](err error, rows []T, visit func(T) error) error {
	for i := 0; i < len(rows) && err == nil; i++ {
		err = visit(rows[i])
	}
	return err
}

func (m *memory) Derive(fold func(func(func(EntryRow) error) error) (*Batch, error)) error {
	b, err := fold(func(visit func(EntryRow) error) error { return firstError(nil, m.entries, visit) })
	if err == nil {
		m.heads, m.balances, m.usage = b.Heads, b.Balances, b.Usage
	}
	return err
}

// script is a short log of one request. A test spoils one thing in it; the chain is made over what comes of that, so that
// only the rule in question can notice.
type script struct {
	org     account.ID
	request usage.ID
	chain   []account.ID
	row     price.Row
	limits  []limit
	spans   []span
	counts  []counter
	hold    Hold
	extends []extension
	marks   []usage.Counts // checkpoints
	kind    Kind           // of the settlement; 0: none
	result  usage.Record
	epochs  [2]int64     // of the hold and the settlement
	at      [2]time.Time // of the hold and the settlement
	holds   int          // how often it is held
	settles int          // and settled
	early   *limit       // a limit that is published while the hold is open
	changed bool         // it is published after the settlement, and a threshold is reached
	notices [][]byte     // after the settlement
	work    usage.Work
	bytes   func(n int, e *EntryRow)
}

type extension struct {
	more usage.Bounds
	cost amount
	held []touch
}

var (
	monday = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	sunday = monday.AddDate(0, 0, -1)
)

// stand is what a hold holds of a limit in a period, by their numbers.
func stand(lim, per, n int64) touch {
	return touch{&balance{limit: &limit{num: lim}, period: &span{num: per}}, money.Units(n)}
}

func honest() *script { return honestOf(7, 99) }

// honestOf is a script in which everything is right: 400 + 300 tokens of 1000 + 500, at 1 and 2 femto-units each.
func honestOf(org account.ID, request usage.ID) *script {
	s := &script{
		org: org, request: request, chain: []account.ID{org, 8}, kind: KindSettle, holds: 1, settles: 1,
		epochs: [2]int64{1, 1}, at: [2]time.Time{monday, monday.Add(time.Second)},
	}
	s.row = price.Row{ID: "public@0123456789abcdef/m", Multiplier: 1_000_000, Minimum: money.Units(1100)}
	for m, n := range map[usage.Meter]int64{usage.InputUncached: 1, usage.InputCacheRead: 1, usage.OutputContent: 2} {
		s.row.Rates[m], s.row.Has[m] = rateOf(n), true
	}
	for i, l := range []quota.Limit{
		{Account: org, Measure: quota.Money, Amount: money.Units(2000)},
		{Account: 8, Measure: quota.Tokens, Amount: money.Units(1400), SizeClass: "small"},
		{Account: 8, Measure: quota.Tokens, Model: "other"},
		{Account: 8, Measure: quota.RequestCount, Amount: money.Units(1), Model: "m"},
	} {
		l.Org, l.Path, l.Window, l.Zone = org, "acme/chat", period.Day, "UTC"
		s.limits = append(s.limits, limit{num: int64(i) + 1, Limit: l})
	}
	for i, at := range []time.Time{sunday, monday} {
		start := at.Truncate(24 * time.Hour)
		s.spans = append(s.spans, span{num: int64(i) + 1, window: period.Day, zone: "UTC", Period: period.Period{Label: "day", Start: start, End: start.AddDate(0, 0, 1)}})
	}
	s.hold = Hold{subject: 1, rowNum: 1, touched: []touch{stand(1, 2, 2000), stand(2, 2, 1400), stand(4, 2, 1)}}
	s.hold.Bounds, s.hold.Record.Hold = usage.Bounds{Input: 1000, Output: 500, Joint: 1400}, money.Units(2000)
	r := &s.result
	r.Source, r.Outcome, r.Delivered = usage.EngineFinal, usage.Completed, 300
	for m, n := range map[usage.Meter]int64{usage.InputUncached: 300, usage.InputCacheRead: 100, usage.OutputContent: 300} {
		r.Counts.Set(m, n)
		r.Billed.Set(m, n)
	}
	r.Billed.Set(usage.Requests, 1)
	r.Lines = []usage.Line{
		{Meter: usage.InputUncached, Quantity: 300, UnitPrice: rateOf(1), Amount: money.Units(300)},
		{Meter: usage.InputCacheRead, Quantity: 100, UnitPrice: rateOf(1), Amount: money.Units(100)},
		{Meter: usage.OutputContent, Quantity: 300, UnitPrice: rateOf(2), Amount: money.Units(600)},
		{Meter: usage.Requests, Quantity: 1, UnitPrice: rateOf(100), Amount: money.Units(100), Kind: usage.LineMinimum},
	}
	r.Charge = money.Units(1100)
	return s
}

func rateOf(n int64) money.Rate {
	r, err := money.RateFromAmount(money.Units(n))
	if err != nil {
		panic(err)
	}
	return r
}

// resolved makes it the script of a request that a start settled at its checkpoint.
func (s *script) resolved() {
	s.epochs[1] = 2
	s.marks = []usage.Counts{{}, s.result.Counts}
	s.hold.OnFault = usage.ChargeDelivered
	s.result.Source, s.result.Outcome, s.result.Flags = usage.Checkpoint, usage.Broken, usage.FlagResolvedStart
}

// void makes it the script of a request at which nothing is owed.
func (s *script) void() {
	s.kind, s.result.Outcome = KindVoid, usage.Unserved
	s.result.Billed, s.result.Lines, s.result.Charge = usage.Counts{}, nil, amount{}
}

// noticed makes it the script of a request that comes to two thresholds of one limit and one of another.
func (s *script) noticed() {
	s.limits[0].Alerts = []quota.Alert{{Percent: 50, At: money.Units(1000)}, {At: money.Units(1100)}, {Percent: 60, At: money.Units(1200)}}
	s.limits[1].Alerts = []quota.Alert{{At: money.Units(700)}}
	for _, n := range []struct{ lim, percent, at, used int64 }{{1, 50, 1000, 1100}, {1, 0, 1100, 1100}, {2, 0, 700, 700}} {
		notice := Notice{Alert: quota.Alert{Percent: n.percent, At: money.Units(n.at)}, Used: money.Units(n.used), Request: s.request}
		s.notices = append(s.notices, appendNotice(nil, n.lim, 2, &notice))
	}
}

// worked makes it the script of a request to a model of known work: 401 of 701 ms and more.
func (s *script) worked() {
	s.work = usage.Work{Fixed: 1_000_000_000, Input: 1_000_000, Output: 1_000_000_000}
	s.limits[1].Measure, s.hold.touched[1] = quota.WorkMS, stand(2, 2, 502) // 1 + 0.9 + 500
	s.result.Billed.Set(usage.WorkMS, 302)                                  // 1 + 0.3 + 300
}

// extended makes it the script of a request that was extended by 100 output tokens.
func (s *script) extended() {
	s.limits[0].Amount, s.limits[1].Amount = money.Units(2200), money.Units(1500)
	s.extends = []extension{{usage.Bounds{Output: 100, Joint: 100}, money.Units(200), []touch{stand(1, 2, 200), stand(2, 2, 100), stand(4, 2, 0)}}}
}

// stepped makes it the script of a request whose input has steps: 350 tokens of a day at 1, the rest at 2.
func (s *script) stepped() {
	s.counts = []counter{{name: "model m input", scope: "organisation", window: period.Day, zone: "UTC"}}
	s.row.Forms = []price.Form{{Kind: price.Graduated, Meters: 0b11, Counter: "model m input", Scope: "organisation", Window: period.Day, Zone: "UTC",
		Steps: []price.Step{{UpTo: 350, Rate: rateOf(1)}, {Rate: rateOf(2)}}}}
	s.row.Rates[0], s.row.Rates[1] = rateOf(0), rateOf(0)
	s.hold.counted = []*balance{{limit: &limit{num: -1}, period: &span{num: 2}}}
	line := func(m usage.Meter, n, price int64) usage.Line {
		return usage.Line{Meter: m, Quantity: n, UnitPrice: rateOf(price), Amount: money.Units(n * price)}
	}
	s.result.Lines = []usage.Line{line(0, 300, 1), line(1, 50, 1), line(1, 50, 2), line(3, 300, 2), line(usage.Requests, 1, 50)}
	s.result.Lines[4].Kind = usage.LineMinimum
}

func (s *script) write() *memory {
	m := &memory{epoch: 2, lastAt: monday.Add(time.Hour).UnixMicro()}
	var hash Hash
	add := func(kind Kind, epoch int64, at time.Time, request usage.ID, body []byte) {
		head := header{Kind: kind, Epoch: epoch, Org: s.org, Seq: int64(len(m.entries)) + 1, At: at, Request: request}
		e := EntryRow{Org: s.org, Seq: head.Seq, Kind: kind, Request: request, Body: append(appendHeader(nil, &head), body...)}
		if s.bytes != nil {
			s.bytes(len(m.entries), &e)
		}
		hash = sha256.Sum256(append(hash[:], e.Body...))
		e.Hash = hash
		m.entries = append(m.entries, e)
	}
	subject := &usage.Subject{AccountPath: "acme/chat", Model: "m", SizeClass: "small", Labels: []usage.Label{{Name: "a", Value: "b"}}, Key: "key_a", Work: s.work}
	add(KindSubject, 1, sunday, 0, appendSubject(appendUint(nil, 1), subject, s.chain))
	add(KindRow, 1, sunday, 0, appendRow(appendUint(nil, 1), &s.row))
	for i := range s.limits {
		add(KindLimit, 1, sunday, 0, appendLimit(nil, &s.limits[i]))
	}
	for i := range s.spans {
		add(KindPeriod, 1, sunday.AddDate(0, 0, min(i, 1)), 0, appendPeriod(nil, &s.spans[i]))
	}
	for i := range s.counts {
		add(KindCounter, 1, monday, 0, appendCounter(appendUint(nil, int64(i)+1), &s.counts[i]))
	}
	for range s.holds {
		add(KindHold, s.epochs[0], s.at[0], s.request, appendHold(nil, &s.hold))
	}
	for _, x := range s.extends {
		add(KindExtend, s.epochs[0], s.at[0], s.request, appendExtend(nil, x.more, x.cost, x.held))
	}
	for i := range s.marks {
		add(KindCheckpoint, s.epochs[0], s.at[0], s.request, appendCheckpoint(nil, &s.marks[i], usage.EngineRunning))
	}
	if s.early != nil && !s.changed {
		add(KindLimit, s.epochs[1], s.at[1], 0, appendLimit(nil, s.early))
	}
	for range s.settles {
		add(s.kind, s.epochs[1], s.at[1], s.request, appendResult(nil, &s.result))
		for _, body := range s.notices {
			add(KindNotice, s.epochs[1], s.at[1], 0, body)
		}
	}
	if s.changed {
		add(KindLimit, s.epochs[1], s.at[1], 0, appendLimit(nil, s.early))
		n := Notice{Alert: s.early.Alerts[0], Used: money.Units(1100)}
		add(KindNotice, s.epochs[1], s.at[1], 0, appendNotice(nil, s.early.num, 2, &n))
	}
	return m
}

// TestCheckAndRebuildAgree: what one code derives from the log, the other finds right.
func TestCheckAndRebuildAgree(t *testing.T) {
	for name, edit := range map[string]func(*script){
		"posted":   func(*script) {},
		"void":     (*script).void,
		"resolved": (*script).resolved,
		"extended": (*script).extended,
		"open":     func(s *script) { s.settles = 0 },
		"not rated": func(s *script) {
			s.void()
			s.result.Outcome, s.result.Flags = usage.Completed, usage.FlagNotRated
		},
		"nothing metered": func(s *script) {
			s.void()
			s.result.Outcome, s.result.Counts = usage.Completed, usage.Counts{}
		},
		"noticed": (*script).noticed,
		"noticed of a change": func(s *script) {
			s.early = &limit{}
			*s.early = s.limits[0]
			s.early.Amount, s.early.Alerts = money.Units(2200), []quota.Alert{{Percent: 1, At: money.Units(22)}}
			s.changed = true
		},
		"only alerts": func(s *script) { s.limits[0].Amount, s.limits[0].Action = money.Units(1), quota.AlertOnly },
		"key and tier": func(s *script) {
			s.limits[0].Limit.Key, s.limits[1].Tier, s.limits[2].Limit.Key, s.limits[2].Model = "key_a", "batch", "key_b", ""
			s.hold.TierAsked = "batch"
		},
		"anchored": func(s *script) {
			s.limits[0].Anchor, s.spans[1].anchor = 6, 6
			s.spans = append(s.spans, s.spans[1])
			s.spans[2].num, s.spans[2].anchor = 3, 0
			s.hold.touched[1], s.hold.touched[2] = stand(2, 3, 1400), stand(4, 3, 1)
		},
		"work": (*script).worked,
		"GPU time": func(s *script) {
			s.worked()
			s.limits[1].Measure, s.limits[1].Action, s.hold.touched[1] = quota.GPUSeconds, quota.AlertOnly, stand(2, 2, 0)
			s.result.GPUCount = 8
		},
		"extended below a limit that has gone": func(s *script) {
			s.extended()
			s.limits = append(s.limits, s.limits[1])
			s.limits[1].Amount, s.limits[4].Amount = money.Units(1400), money.Units(1400)
			s.limits[4].removed = true
			s.hold.touched = slices.Delete(s.hold.touched, 1, 2)
			s.extends[0].held = slices.Delete(s.extends[0].held, 1, 2)
		},
	} {
		s := honest()
		edit(s)
		m := s.write()
		if err := Rebuild(m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		report, err := Check(m)
		if err != nil || !report.OK() {
			t.Errorf("%s: %s, %v", name, report, err)
		}
	}
}

// TestCheckFinds: each rule of docs/ledger-format.md is broken once, in a log whose chain is right.
func TestCheckFinds(t *testing.T) {
	held := func(s *script) *Hold { return &s.hold }
	for _, x := range []struct {
		want string
		edit func(*script)
	}{
		// headers
		{"version 2 of the format is not known", func(s *script) { s.bytes = on(0, func(e *EntryRow) { e.Body[0] = 2 }) }},
		{"kind 15 is not known", func(s *script) { s.bytes = on(0, func(e *EntryRow) { e.Body[1], e.Kind = 15, 15 }) }},
		{"column says 18", func(s *script) { s.bytes = on(8, func(e *EntryRow) { e.Kind = KindCheckpoint }) }},
		{"column says 98", func(s *script) { s.bytes = on(8, func(e *EntryRow) { e.Request = 98 }) }},
		{"written as entry 9 of organisation 7", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Body[5] = 9 }) }},
		{"written as entry 10 of organisation 6", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Body[4] = 6 }) }},
		{"entry 10 is missing: after entry 9 stands entry 11", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Seq = 11 }) }},
		{"but has an idempotency key", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Idempotency = "k" }) }},
		{"idempotency key is not that of its column", func(s *script) { s.bytes = on(8, func(e *EntryRow) { e.Idempotency = "k" }) }},
		{"idempotency key is not that of its column", func(s *script) { s.hold.Idempotency = "k" }},
		{"epoch 1 comes after epoch 2", func(s *script) { s.epochs = [2]int64{2, 1} }},
		{"epoch 3 was never begun", func(s *script) { s.epochs = [2]int64{1, 3} }},
		{"epoch 0 ", func(s *script) { s.bytes = on(0, func(e *EntryRow) { e.Body[3] = 0 }) }},
		{"shard 1, but the log is of shard 0", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Body[2] = 1 }) }},
		{"time runs backwards", func(s *script) { s.at[1] = monday.Add(-time.Microsecond) }},
		{"1 bytes too many", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Body = append(e.Body, 0) }) }},
		{"ends too early", func(s *script) { s.bytes = on(9, func(e *EntryRow) { e.Body = e.Body[:len(e.Body)-1] }) }},
		// definitions
		{"does not begin with the organisation", func(s *script) { s.chain = []account.ID{8} }},
		{"limit 9 comes after limit 4", func(s *script) {
			s.limits = append(s.limits, limit{num: 9, Limit: quota.Limit{Account: 7, Window: 2, Zone: "UTC"}})
		}},
		{"a second limit of the same account", func(s *script) { again := s.limits[0]; again.num = 5; s.limits = append(s.limits, again) }},
		{"limit 1 was another one before", func(s *script) { again := s.limits[1]; again.num = 1; s.limits = append(s.limits, again) }},
		{"an amount is negative", func(s *script) { s.limits[0].Amount = money.Units(-1) }},
		{"measure 9 is not known", func(s *script) { s.limits[0].Measure = 9 }},
		{"period 7 comes after period 1", func(s *script) { s.spans[1].num = 7 }},
		{"does not contain the time at which it was needed", func(s *script) { s.spans[1].End = monday }},
		{"overlaps period 1", func(s *script) { s.spans[1].Start = s.spans[1].Start.Add(-time.Second) }},
		{"action 2 to \"\"", func(s *script) { s.limits[0].Action = quota.Degrade }},
		{"action 0 to \"x\"", func(s *script) { s.limits[0].DegradeTo = "x" }},
		{"action 3 is not known", func(s *script) { s.limits[0].Action = 3 }},
		{"a limit on GPU time does more than alert", func(s *script) { s.limits[0].Measure = quota.GPUSeconds }},
		{"thresholds are not in order", func(s *script) { s.noticed(); s.limits[0].Alerts[1].At = money.Units(1000) }},
		{"thresholds are not in order", func(s *script) { s.limits[0].Alerts = []quota.Alert{{Percent: 1}} }},
		{"threshold of 50 % is 999; right is 1000", func(s *script) { s.limits[0].Alerts = []quota.Alert{{Percent: 50, At: money.Units(999)}} }},
		// notices
		{"limit 2 has come to 700 in period 2, and no notice says so", func(s *script) { s.noticed(); s.notices = s.notices[:2]; s.settles = 2 }},
		{"the log ends before it is noticed that limit 1 has come to 1100 in period 2", func(s *script) { s.noticed(); s.notices = s.notices[:1] }},
		{"limit 1 was not just found to have come to 1100", func(s *script) { s.noticed(); s.notices = append(s.notices, s.notices[1]) }},
		{"limit 2 was not just found to have come to 700", func(s *script) { s.noticed(); s.notices = s.notices[2:] }},
		{"limit 1 was not just found to have come to 1000", func(s *script) { s.noticed(); s.limits[0].Alerts = nil }},
		{"says that 1099 was used; by the log it is 1100", func(s *script) { s.noticed(); s.renotice(1000, 50, 1099, 99) }},
		{"it says 51 %; the threshold is of 50 %", func(s *script) { s.noticed(); s.renotice(1000, 51, 1100, 99) }},
		{"request 98 was the cause; it was 99", func(s *script) { s.noticed(); s.renotice(1000, 50, 1100, 98) }},
		// holds
		{"the request had a hold before", func(s *script) { s.holds = 2 }},
		{"subject 2 is not defined", func(s *script) { s.hold.subject = 2 }},
		{"price row 0 is not defined", func(s *script) { s.hold.rowNum = 0 }},
		{"limit 6 is not defined", func(s *script) { s.hold.touched[0] = stand(6, 2, 1) }},
		{"period 3 is not defined", func(s *script) { s.hold.touched[0] = stand(1, 3, 1) }},
		{"2000 asked > 1999", func(s *script) { s.limits[0].Amount = money.Units(1999) }},
		{"1400 asked > 1399", func(s *script) { s.limits[1].Amount = money.Units(1399) }},
		{"1 asked > 0", func(s *script) { s.limits[3].Amount = amount{} }},
		{"does not stand on the limit of acme/chat on money", func(s *script) { s.hold.touched = s.hold.touched[1:] }},
		{"does not stand on the limit of acme/chat on requests", func(s *script) { s.hold.touched = s.hold.touched[:2] }},
		{"stands on 3 limits, but its path has 2", func(s *script) { s.chain = s.chain[:1]; s.chain = append(s.chain, 9); s.limits[3].Account = 7 }},
		{"stands twice", func(s *script) { s.hold.touched = append(s.hold.touched, s.hold.touched[0]) }},
		{"which was not in force", func(s *script) { s.limits[1].removed = true }},
		{"does not stand on the limit of acme/chat on money", func(s *script) { s.limits[0].Limit.Key = "key_a"; s.hold.touched = s.hold.touched[1:] }},
		{"which does not cover the model", func(s *script) { s.limits[0].Limit.Key = "key_b" }},
		{"which does not cover the model", func(s *script) { s.limits[0].Tier = "batch" }},
		{"does not stand on the limit of acme/chat on money", func(s *script) { s.limits[0].Tier = "standard"; s.hold.touched = s.hold.touched[1:] }},
		{"period of another window, anchor or zone", func(s *script) { s.spans[1].anchor = 6 }},
		{"it holds 501 of the limit of acme/chat on work per day, but needs 502", func(s *script) { s.worked(); s.hold.touched[1] = stand(2, 2, 501) }},
		{"which does not cover the model", func(s *script) { s.hold.touched = append(s.hold.touched, stand(3, 2, 1400)) }},
		{"period that does not contain its time", func(s *script) { s.hold.touched[0] = stand(1, 1, 2000) }},
		{"period of another window, anchor or zone", func(s *script) { s.spans[1].zone = "Europe/Berlin" }},
		{"it holds 1500 of", func(s *script) { s.hold.touched[1] = stand(2, 2, 1500) }},
		{"it holds 1999 of", func(s *script) { s.hold.touched[0] = stand(1, 2, 1999) }},
		{"the money held is negative", func(s *script) { s.hold.Record.Hold = money.Units(-1) }},
		{"tariff rule 3 is not known", func(s *script) { s.hold.OnFault = 3 }},
		// extensions and checkpoints
		{"no open hold", func(s *script) { s.extended(); s.holds = 0 }},
		{"100 asked > 1499", func(s *script) { s.extended(); s.limits[1].Amount = money.Units(1499) }},
		{"holds 99 more", func(s *script) { s.extended(); s.extends[0].held[1] = stand(2, 2, 99) }},
		{"not those of the hold", func(s *script) { s.extended(); s.extends[0].held[1] = stand(2, 1, 100) }},
		{"stands on 2 limits, but the hold on 3", func(s *script) { s.extended(); s.extends[0].held = s.extends[0].held[1:] }},
		{"no open hold", func(s *script) { s.marks = []usage.Counts{{}}; s.holds = 0 }},
		// settlements
		{"no open hold", func(s *script) { s.settles = 2 }},
		{"no open hold", func(s *script) { s.holds = 0 }},
		{"something is owed: false", func(s *script) { s.result.Outcome = usage.Unserved }},
		{"something is owed: false", func(s *script) { s.result.Outcome = usage.Broken }},
		{"something is owed: false", func(s *script) { s.result.Outcome = usage.ClientGone }},
		{"something is owed: true", func(s *script) { s.void(); s.result.Outcome = usage.Completed }},
		{"void is true", func(s *script) { s.kind = KindVoid }},
		{"void is false", func(s *script) { s.void(); s.kind = KindSettle }},
		{"its work is said to be 301 ms; right is 302", func(s *script) { s.worked(); s.result.Billed.Set(usage.WorkMS, 301) }},
		{"its work is said to be 302 ms; right is 0", func(s *script) { s.result.Billed.Set(usage.WorkMS, 302) }},
		{"300 output tokens are billed, but 299 were delivered", func(s *script) {
			s.hold.OnDisconnect, s.result.Outcome, s.result.Delivered = usage.ChargeDelivered, usage.ClientGone, 299
		}},
		{"are billed, but 299 were metered", func(s *script) { s.result.Counts.Set(usage.OutputContent, 299) }},
		{"not those that were metered", func(s *script) { s.result.Counts.Set(usage.OutputReasoning, 0) }},
		{"not those that were metered, and one request", func(s *script) { s.result.Billed.Set(usage.Requests, 2) }},
		{"400 input and 300 output tokens are billed; held were 399", func(s *script) {
			held(s).Bounds = usage.Bounds{Input: 399, Output: 1001}
		}},
		{"held were 1101 and 299", func(s *script) { held(s).Bounds = usage.Bounds{Input: 1101, Output: 299} }},
		{"jointly 699", func(s *script) { held(s).Bounds.Joint, held(s).touched[1] = 699, stand(2, 2, 699) }},
		{"of the 300 output tokens that are owed, 1 of meter 3 are billed; right is 300", func(s *script) { s.result.Billed.Set(usage.OutputContent, 1) }},
		{"of the 400 input tokens that are owed, 1 of meter 0 are billed; right is 300", func(s *script) { s.result.Billed.Set(usage.InputUncached, 1) }},
		{"of the 300 input tokens that are owed, 300 of meter 0 are billed; right is 200", func(s *script) {
			held(s).Bounds.Input, held(s).touched[1] = 300, stand(2, 2, 800) // the cut comes off the uncached ones first
			s.result.Billed.Set(usage.InputCacheRead, 0)
		}},
		{"of meter 5, 2 were metered and 1 are billed", func(s *script) {
			s.result.Counts.Set(usage.Image, 2)
			s.result.Billed.Set(usage.Image, 1)
		}},
		{"meter 4 are billed, which has no price", func(s *script) {
			s.result.Counts.Set(usage.OutputReasoning, 1)
			s.result.Billed.Set(usage.OutputReasoning, 1)
		}},
		{"the line is missing or says otherwise", func(s *script) { s.result.Lines = s.result.Lines[1:] }},
		{"the line is missing or says otherwise", func(s *script) { s.result.Lines[0].Quantity = 299 }},
		{"has the unit price 2; locked was 1", func(s *script) { s.result.Lines[0].UnitPrice = rateOf(2) }},
		{"300 × 1 = 301; right is 300", func(s *script) { s.result.Lines[0].Amount = money.Units(301) }},
		{"minimum of 1100 is missing", func(s *script) { s.result.Lines = s.result.Lines[:3]; s.result.Charge = money.Units(1000) }},
		{"minimum of 1100 is missing or wrong", func(s *script) { s.result.Lines[3].Amount = money.Units(99) }},
		{"has 1 lines for which nothing is billed", func(s *script) { s.row.Minimum = money.Units(1000) }},
		{"add up to 1100, its charge is 1101", func(s *script) { s.result.Charge = money.Units(1101) }},
		{"the charge 1100 is above the 1099", func(s *script) { s.hold.Record.Hold = money.Units(1099); s.hold.touched[0] = stand(1, 2, 1099) }},
		{"outcome 8 is not known", func(s *script) { s.result.Outcome = 8 }},
		{"usage source 5 is not known", func(s *script) { s.result.Source = 5 }},
		// starts
		{"is of epoch 1 and still open in epoch 2", func(s *script) { s.resolved(); s.early = &s.limits[0] }},
		{"flag resolved_at_start is false", func(s *script) { s.epochs[1] = 2 }},
		{"flag resolved_at_start is true", func(s *script) { s.result.Flags = usage.FlagResolvedStart }},
		{"other counts than those of its last checkpoint", func(s *script) { s.resolved(); s.marks = s.marks[:1] }},
		{"usage source 1 and outcome 5", func(s *script) { s.resolved(); s.result.Source = usage.EngineFinal }},
	} {
		s := honest()
		x.edit(s)
		report, err := Check(s.write())
		if err != nil || !strings.Contains(report.Difference, x.want) || !strings.Contains(report.Difference, "organisation 7") {
			t.Errorf("want %q, have %q, error %v", x.want, report.Difference, err)
		}
	}
}

// renotice writes the first notice anew.
func (s *script) renotice(at, percent, used int64, request usage.ID) {
	n := Notice{Alert: quota.Alert{Percent: percent, At: money.Units(at)}, Used: money.Units(used), Request: request}
	s.notices[0] = appendNotice(nil, 1, 2, &n)
}

// on spoils the n-th entry, counting from 0: 8 is the hold, 9 what follows it.
func on(n int, spoil func(*EntryRow)) func(int, *EntryRow) {
	return func(i int, e *EntryRow) {
		if i == n {
			spoil(e)
		}
	}
}

// TestCheckComparesTables: whatever of the tables is changed, missing or too much.
func TestCheckComparesTables(t *testing.T) {
	for _, x := range []struct {
		want  string
		spoil func(*memory)
	}{
		{"head says 9", func(m *memory) { m.heads[0].Seq-- }},
		{"head's hash", func(m *memory) { m.heads[0].Hash[0]++ }},
		{"the head says 10", func(m *memory) { m.heads[0].OpenFrom-- }},
		{"has a log, but no head", func(m *memory) { m.heads = nil }},
		{"organisation 8 has a head, but no log", func(m *memory) { m.heads = append(m.heads, HeadRow{Org: 8}) }},
		{"the balance says 1101 used; by the log it is 1100", func(m *memory) { m.balances[0].Used = money.Units(1101) }},
		{"the balance says 1 held", func(m *memory) { m.balances[1].Held = money.Units(1) }},
		{"period 2 is missing", func(m *memory) { m.balances = m.balances[1:] }},
		{"no hold ever stood", func(m *memory) { m.balances = append(m.balances, BalanceRow{Org: 7, Limit: 3, Period: 2}) }},
		{"organisation 8 has a balance", func(m *memory) { m.balances = append(m.balances, BalanceRow{Org: 8}) }},
		{"2 requests", func(m *memory) { m.usage[0].Requests++ }},
		{"1 voided", func(m *memory) { m.usage[0].Voided++ }},
		{"299 of meter output_content", func(m *memory) { m.usage[0].Counts[usage.OutputContent]-- }},
		{"1101 charged", func(m *memory) { m.usage[0].Charge = money.Units(1101) }},
		{"the usage of subject 1", func(m *memory) { m.usage = nil }},
		{"nothing was settled", func(m *memory) { m.usage[0].Bucket++ }},
		{"organisation 8 has a usage row", func(m *memory) { m.usage[0].Org = 8 }},
		{"the newest transaction is said to be of", func(m *memory) { m.lastAt, m.epoch = 1, 1 }},
	} {
		m := honest().write()
		if err := Rebuild(m); err != nil {
			t.Fatal(err)
		}
		x.spoil(m)
		report, err := Check(m)
		if err != nil || !strings.Contains(report.Difference, x.want) {
			t.Errorf("want %q, have %q, error %v", x.want, report.Difference, err)
		}
	}
}

// TestForgottenHold: a start that resolves one organisation and forgets another.
func TestForgottenHold(t *testing.T) {
	forgotten, done := honestOf(7, 99), honestOf(9, 98)
	forgotten.settles = 0
	done.resolved()
	m := forgotten.write()
	m.entries = append(m.entries, done.write().entries...)
	if err := Rebuild(m); err != nil {
		t.Fatal(err)
	}
	report, err := Check(m)
	if err != nil || !strings.Contains(report.Difference, "organisation 7 (acme): the hold of request req_0000000000033, entry 9, is of epoch 1 and still open in epoch 2") {
		t.Errorf("have %q, error %v", report.Difference, err)
	}
}

// FuzzCheck: no bytes make Check or Rebuild panic.
func FuzzCheck(f *testing.F) {
	for _, e := range honest().write().entries {
		f.Add(e.Body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := honest()
		s.resolved()
		for n := range 10 {
			s.bytes = on(n, func(e *EntryRow) { e.Body = slices.Concat(e.Body[:min(8, len(e.Body))], body) })
			m := s.write()
			Check(m)
			Rebuild(m)
		}
	})
}

// TestClip: a period that a newer table of time zones compiles leaves alone what an older one did.
func TestClip(t *testing.T) {
	at := func(hour int) time.Time { return monday.Add(time.Duration(hour) * time.Hour) }
	o := newOrg(1)
	o.spans = []*span{
		{num: 1, window: period.Day, zone: "X", Period: period.Period{Start: at(0), End: at(23)}},
		{num: 2, window: period.Day, zone: "Y", Period: period.Period{Start: at(-5), End: at(50)}},
		{num: 3, window: period.Day, zone: "X", Period: period.Period{Start: at(47), End: at(71)}},
	}
	p := &span{window: period.Day, zone: "X", Period: period.Period{Start: at(22), End: at(48)}}
	o.clip(p, at(30))
	if !p.Start.Equal(at(23)) || !p.End.Equal(at(47)) {
		t.Errorf("from %s to %s", p.Start, p.End)
	}
}

// TestCheckOfKeys: an idempotency key is taken while its request is open, and for 24 hours after it was charged.
func TestCheckOfKeys(t *testing.T) {
	for _, x := range []struct {
		want          string
		open, charged bool
		after         int64
	}{
		{"", false, false, 0}, // nothing was charged
		{"still open", true, false, auditDay},
		{"less than 24 hours", false, true, auditDay - 1},
		{"less than 24 hours", false, true, -1}, // the clock has stepped back
		{"", false, true, auditDay},
	} {
		o := newAuditOrg(1)
		o.keys["k"] = auditRepeat{request: 7, at: 1000, charged: x.charged}
		if x.open {
			o.open[7] = &auditHold{}
		}
		err := o.keyed(&auditHeader{idempotency: "k"}, &auditHold{request: 8, at: 1000 + x.after, key: "k"})
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%+v: %v", x, err)
		}
	}
}
