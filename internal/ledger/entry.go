package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

// Kind says what an entry is. Stored: append only; kinds below 16 define something that later entries name by number.
type Kind uint8

// Kinds of entries. docs/ledger-format.md describes their bytes.
const (
	KindSubject    Kind = 1 // what many requests have in common
	KindRow        Kind = 2 // a price row: the rates that were locked
	KindLimit      Kind = 3 // a limit as it is from here on, or its end
	KindPeriod     Kind = 4 // a budget period, compiled to UTC
	KindStep       Kind = 5 // a step of a price that follows the load; in the operator's log
	KindOverride   Kind = 6 // what a start let pass, since it was told to
	KindNotice     Kind = 7 // a threshold of a limit that was reached
	KindCounter    Kind = 8 // what counts for prices that depend on how much was used before
	KindCorrection Kind = 9 // what an account owes is changed, by a re-rating
	KindHold       Kind = 16
	KindExtend     Kind = 17
	KindCheckpoint Kind = 18
	KindSettle     Kind = 19
	KindVoid       Kind = 20 // a settlement at which nothing is owed
)

// defines reports whether entries of this kind are needed to read later ones.
func (k Kind) defines() bool { return k < 16 }

// entryVersion is the version of the canonical bytes. A reader refuses a version that it does not know.
const entryVersion = 1

// header is the beginning of every entry: it binds the entry to its place, so that one cannot be moved or replayed.
type header struct {
	Kind    Kind
	Shard   int64
	Epoch   int64
	Org     account.ID
	Seq     int64
	At      time.Time
	Request usage.ID
}

func appendHeader(b []byte, h *header) []byte {
	b = append(b, entryVersion, byte(h.Kind))
	b = binary.AppendUvarint(b, uint64(h.Shard))
	b = binary.AppendUvarint(b, uint64(h.Epoch))
	b = binary.AppendUvarint(b, uint64(h.Org))
	b = binary.AppendUvarint(b, uint64(h.Seq))
	b = binary.AppendVarint(b, h.At.UnixMicro())
	return binary.AppendUvarint(b, uint64(h.Request))
}

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixMicro()) }

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendAmount writes an amount as two varints: most amounts have an empty high half.
func appendAmount(b []byte, a money.Amount) []byte {
	hi, lo := a.Femto()
	b = binary.AppendVarint(b, hi)
	return binary.AppendUvarint(b, lo)
}

func appendCounts(b []byte, c *usage.Counts) []byte {
	known := uint64(0)
	for m := range usage.NumMeters {
		if c.Known(m) {
			known |= 1 << m
		}
	}
	b = binary.AppendUvarint(b, known)
	for m := range usage.NumMeters {
		if c.Known(m) {
			b = binary.AppendUvarint(b, uint64(c.Get(m)))
		}
	}
	return b
}

func appendBounds(b []byte, x usage.Bounds) []byte {
	b = binary.AppendUvarint(b, uint64(x.Input))
	b = binary.AppendUvarint(b, uint64(x.Output))
	return binary.AppendUvarint(b, uint64(x.Joint))
}

func appendTouched(b []byte, touched []touch) []byte {
	b = binary.AppendUvarint(b, uint64(len(touched)))
	for i := range touched {
		b = binary.AppendUvarint(b, uint64(touched[i].balance.limit.num))
		b = binary.AppendUvarint(b, uint64(touched[i].balance.period.num))
		b = appendAmount(b, touched[i].held)
	}
	return b
}

// appendSubject writes a subject under the nodes of its path, organisation first, its own account last: which limits a
// hold must stand on is to be seen in the log alone, whatever becomes of the tree.
func appendSubject(b []byte, s *usage.Subject, chain []account.ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(chain)))
	for _, node := range chain {
		b = binary.AppendUvarint(b, uint64(node))
	}
	for _, text := range []string{string(s.AccountPath), s.BillingAccount, s.Key, s.Seller, s.Contract, s.Currency, s.Book, s.BookVersion,
		s.ModelAsked, s.Model, s.ModelRevision, s.Quantisation, s.Tokenizer, s.SizeClass} {
		b = appendString(b, text)
	}
	for _, n := range [...]int64{s.Work.Fixed, s.Work.Input, s.Work.Output, s.Work.Context} {
		b = appendUint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Labels)))
	for _, label := range s.Labels {
		b = appendString(appendString(b, label.Name), label.Value)
	}
	return b
}

func readSubject(d *decoder, org account.ID) *usage.Subject {
	s := &usage.Subject{Organisation: org}
	for range d.count() {
		s.Account = account.ID(d.uint())
	}
	s.AccountPath = account.Path(d.text())
	for _, text := range []*string{&s.BillingAccount, &s.Key, &s.Seller, &s.Contract, &s.Currency, &s.Book, &s.BookVersion,
		&s.ModelAsked, &s.Model, &s.ModelRevision, &s.Quantisation, &s.Tokenizer, &s.SizeClass} {
		*text = d.text()
	}
	s.Work = usage.Work{Fixed: d.uint(), Input: d.uint(), Output: d.uint(), Context: d.uint()}
	for range d.count() {
		s.Labels = append(s.Labels, usage.Label{Name: d.text(), Value: d.text()})
	}
	return s
}

func appendRow(b []byte, r *price.Row) []byte {
	b = appendString(b, r.ID)
	b = binary.AppendUvarint(b, uint64(r.Multiplier))
	b = appendAmount(b, r.Minimum)
	priced := uint64(0) // a mask, so that rows stay readable when a meter is added
	for m := range usage.NumMeters {
		if r.Has[m] {
			priced |= 1 << m
		}
	}
	b = binary.AppendUvarint(b, priced)
	for m := range usage.NumMeters {
		if r.Has[m] {
			b = appendAmount(b, r.Rates[m].Amount())
		}
	}
	b = appendUint(b, int64(len(r.Forms)))
	for i := range r.Forms {
		b = appendForm(b, &r.Forms[i])
	}
	return b
}

func appendForm(b []byte, f *price.Form) []byte {
	b = appendUint(append(b, byte(f.Kind)), int64(f.Meters))
	b = appendString(appendString(b, f.Counter), f.Scope)
	b = appendString(append(b, byte(f.Window)), f.Zone)
	b = appendUint(appendUint(b, f.Package), int64(len(f.Steps)))
	for i := range f.Steps {
		s := &f.Steps[i]
		b = appendAmount(appendAmount(appendUint(b, s.UpTo), s.Rate.Amount()), s.Fee)
	}
	return b
}

func readForm(d *decoder) price.Form {
	f := price.Form{Kind: price.Kind(d.byte()), Meters: uint16(d.meters()), Counter: d.text(), Scope: d.text()}
	f.Window, f.Zone, f.Package = period.Window(d.byte()), d.text(), d.uint()
	for range d.count() {
		s := price.Step{UpTo: d.uint()}
		rate, err := money.RateFromAmount(d.amount())
		if err != nil {
			d.fail(err)
		}
		s.Rate, s.Fee = rate, d.amount()
		if _, err := money.RateFromAmount(s.Fee); err != nil {
			d.fail(err)
		}
		f.Steps = append(f.Steps, s)
	}
	if last := len(f.Steps) - 1; d.err == nil && (last < 0 || f.Steps[last].UpTo != 0 || f.Kind > price.LongContext || f.Kind == price.Package && f.Package == 0) {
		d.fail(errors.New("entry has a form of price that this program does not know"))
	}
	return f
}

func readRow(d *decoder) *price.Row {
	r := &price.Row{ID: d.text(), Multiplier: d.uint(), Minimum: d.amount()}
	priced := d.meters()
	for m := range usage.NumMeters {
		if r.Has[m] = priced>>m&1 != 0; r.Has[m] {
			rate, err := money.RateFromAmount(d.amount())
			if err != nil {
				d.fail(err)
			}
			r.Rates[m] = rate
		}
	}
	for range d.count() {
		r.Forms = append(r.Forms, readForm(d))
	}
	return r
}

func appendLimit(b []byte, lim *limit) []byte {
	b = binary.AppendUvarint(b, uint64(lim.num))
	b = appendBool(b, lim.removed)
	b = binary.AppendUvarint(b, uint64(lim.Account))
	b = append(b, byte(lim.Measure), byte(lim.Window), byte(lim.Action))
	b = appendUint(b, int64(lim.Anchor))
	for _, text := range []string{string(lim.Path), lim.Zone, lim.Key, lim.Model, lim.SizeClass, lim.Tier, lim.DegradeTo} {
		b = appendString(b, text)
	}
	b = appendUint(appendAmount(b, lim.Amount), int64(len(lim.Alerts)))
	for _, alert := range lim.Alerts {
		b = appendAmount(appendUint(b, alert.Percent), alert.At)
	}
	return b
}

func readLimit(d *decoder, org account.ID) (num int64, removed bool, q quota.Limit) {
	num, removed = d.uint(), d.bool()
	q = quota.Limit{Org: org, Account: account.ID(d.uint()), Measure: quota.Measure(d.byte()), Window: period.Window(d.byte()), Action: quota.Action(d.byte())}
	q.Anchor = period.Anchor(d.uint())
	q.Path, q.Zone, q.Key, q.Model, q.SizeClass, q.Tier, q.DegradeTo = account.Path(d.text()), d.text(), d.text(), d.text(), d.text(), d.text(), d.text()
	q.Amount = d.amount()
	for range d.count() {
		q.Alerts = append(q.Alerts, quota.Alert{Percent: d.uint(), At: d.amount()})
	}
	return num, removed, q
}

func appendPeriod(b []byte, p *span) []byte {
	b = binary.AppendUvarint(b, uint64(p.num))
	b = appendUint(append(b, byte(p.window)), int64(p.anchor))
	b = appendString(appendString(b, p.zone), p.Label)
	b = binary.AppendVarint(b, p.Start.UnixMicro())
	if p.End.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, p.End.UnixMicro())
}

func readPeriod(d *decoder) *span {
	p := &span{num: d.uint(), window: period.Window(d.byte()), anchor: period.Anchor(d.uint()), zone: d.text()}
	p.Label, p.Start = d.text(), d.time()
	if end := d.int(); end != 0 {
		p.End = time.UnixMicro(end).UTC()
	}
	return p
}

func appendNotice(b []byte, lim, per int64, n *Notice) []byte {
	b = appendUint(appendUint(appendUint(b, lim), per), n.Alert.Percent)
	b = appendAmount(appendAmount(b, n.Alert.At), n.Used)
	return appendUint(b, int64(n.Request))
}

func appendHold(b []byte, h *Hold) []byte {
	a := &h.Admission
	b = binary.AppendUvarint(b, uint64(h.subject))
	b = binary.AppendUvarint(b, uint64(h.rowNum))
	b = appendString(b, a.Endpoint)
	b = appendBool(b, a.Stream)
	for _, text := range []string{a.Principal, a.Idempotency, a.BodyHash, a.RunID, a.TierAsked, a.Effort} {
		b = appendString(b, text)
	}
	b = binary.AppendUvarint(b, uint64(a.RetryOf))
	b = binary.AppendUvarint(b, uint64(a.SDKRetry))
	b = binary.AppendUvarint(b, uint64(a.ThinkTokens))
	b = append(b, byte(a.OnDisconnect), byte(a.OnFault))
	b = appendBounds(b, a.Bounds)
	b = appendAmount(b, h.Record.Hold)
	b = appendUint(appendTouched(b, h.touched), int64(len(h.counted)))
	for _, c := range h.counted {
		b = appendUint(appendUint(b, -c.limit.num), c.period.num)
	}
	return b
}

// readHold reads a hold; touched comes as numbers, which the caller resolves.
func readHold(d *decoder) (h *Hold, touched []usage.Touched) {
	h = &Hold{subject: d.uint(), rowNum: d.uint()}
	a := &h.Admission
	a.Endpoint, a.Stream = d.text(), d.bool()
	for _, text := range []*string{&a.Principal, &a.Idempotency, &a.BodyHash, &a.RunID, &a.TierAsked, &a.Effort} {
		*text = d.text()
	}
	a.RetryOf, a.SDKRetry, a.ThinkTokens = usage.ID(d.uint()), d.uint(), d.uint()
	a.OnDisconnect, a.OnFault = usage.Tariff(d.byte()), usage.Tariff(d.byte())
	a.Bounds = d.bounds()
	h.Record.Hold = d.amount()
	return h, d.touched()
}

func appendExtend(b []byte, more usage.Bounds, money money.Amount, touched []touch) []byte {
	return appendTouched(appendAmount(appendBounds(b, more), money), touched)
}

func appendCheckpoint(b []byte, c *usage.Counts, s usage.Source) []byte {
	return append(appendCounts(b, c), byte(s))
}

func appendResult(b []byte, r *usage.Record) []byte {
	for _, text := range []string{r.Engine, r.EngineKind, r.EngineVersion, r.Region, r.GPUKind, r.TierServed, r.Finish} {
		b = appendString(b, text)
	}
	b = append(b, byte(r.Source), byte(r.Outcome), byte(r.Fault))
	b = binary.AppendUvarint(b, uint64(r.Flags))
	for _, n := range resultNumbers(&r.Result) {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	b = appendCounts(appendCounts(b, &r.Counts), &r.Billed)
	b = binary.AppendUvarint(b, uint64(len(r.Attempts)))
	for i := range r.Attempts {
		a := &r.Attempts[i]
		b = appendString(appendString(b, a.Engine), a.Fault)
		b = binary.AppendUvarint(b, uint64(a.Status))
		b = binary.AppendUvarint(b, uint64(a.Micros))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Lines)))
	for i := range r.Lines {
		line := &r.Lines[i]
		b = append(b, byte(line.Meter), byte(line.Kind))
		b = binary.AppendUvarint(b, uint64(line.Quantity))
		b = appendAmount(appendAmount(b, line.UnitPrice.Amount()), line.Amount)
	}
	return appendAmount(b, r.Charge)
}

// resultNumbers are the whole numbers of a result in the order of their bytes.
func resultNumbers(r *usage.Result) [7]*int64 {
	return [...]*int64{&r.GPUCount, &r.QueueMicros, &r.PrefillMicros, &r.DecodeMicros, &r.FirstMicros, &r.TotalMicros, &r.Delivered}
}

func readResult(d *decoder, r *usage.Record) {
	for _, text := range []*string{&r.Engine, &r.EngineKind, &r.EngineVersion, &r.Region, &r.GPUKind, &r.TierServed, &r.Finish} {
		*text = d.text()
	}
	r.Source, r.Outcome, r.Fault = usage.Source(d.byte()), usage.Outcome(d.byte()), usage.Party(d.byte())
	r.Flags = usage.Flags(d.uint())
	for _, n := range resultNumbers(&r.Result) {
		*n = d.uint()
	}
	r.Counts, r.Billed = d.counts(), d.counts()
	for range d.count() {
		r.Attempts = append(r.Attempts, usage.Attempt{Engine: d.text(), Fault: d.text(), Status: int(d.uint()), Micros: d.uint()})
	}
	for range d.count() {
		line := usage.Line{Meter: usage.Meter(d.byte()), Kind: usage.LineKind(d.byte()), Quantity: d.uint()}
		rate, err := money.RateFromAmount(d.amount())
		if err != nil {
			d.fail(err)
		}
		line.UnitPrice, line.Amount = rate, d.amount()
		r.Lines = append(r.Lines, line)
	}
	r.Charge = d.amount()
}

var errShort = errors.New("entry ends too early")

// decoder reads canonical bytes. After a failure it returns zeros, and err says what was wrong first.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) uint() int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || int64(v) < 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func (d *decoder) time() time.Time { return time.UnixMicro(d.int()).UTC() }

// count reads the length of a list; every element takes at least one byte, so a larger count is a lie.
func (d *decoder) count() int64 {
	n := d.uint()
	if n > int64(len(d.b)) {
		d.fail(errShort)
		return 0
	}
	return n
}

func (d *decoder) text() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) amount() money.Amount {
	hi := d.int()
	lo, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return money.Amount{}
	}
	d.b = d.b[n:]
	return money.FromFemto(hi, lo)
}

func (d *decoder) bounds() usage.Bounds {
	return usage.Bounds{Input: d.uint(), Output: d.uint(), Joint: d.uint()}
}

// meters reads a mask of meters.
func (d *decoder) meters() int64 {
	mask := d.uint()
	if mask>>usage.NumMeters != 0 {
		d.fail(errors.New("entry has a meter that is not known to this program"))
		return 0
	}
	return mask
}

func (d *decoder) counts() (c usage.Counts) {
	known := d.meters()
	for m := range usage.NumMeters {
		if known>>m&1 == 0 {
			continue
		}
		n := d.uint()
		if n > usage.MaxCount {
			d.fail(fmt.Errorf("count %d of %s is out of range", n, m))
			return c
		}
		c.Set(m, n)
	}
	return c
}

func (d *decoder) touched() (out []usage.Touched) {
	for range d.count() {
		out = append(out, usage.Touched{Limit: d.uint(), Period: d.uint(), Held: d.amount()})
	}
	return out
}

// open reads the header of an entry.
func open(body []byte) (header, *decoder, error) {
	d := &decoder{b: body}
	if v := d.byte(); v != entryVersion && d.err == nil {
		return header{}, d, fmt.Errorf("entry version %d is not known to this program", v)
	}
	h := header{Kind: Kind(d.byte()), Shard: d.uint(), Epoch: d.uint(), Org: account.ID(d.uint()), Seq: d.uint()}
	h.At, h.Request = d.time(), usage.ID(d.uint())
	return h, d, d.err
}

// counted reads the counters and periods that a hold names.
func (d *decoder) counted() (out [][2]int64) {
	for range d.count() {
		out = append(out, [2]int64{d.uint(), d.uint()})
	}
	return out
}
