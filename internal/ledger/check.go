package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"talea/internal/account"
	"talea/internal/usage"
)

// Reader is a store that can be checked.
type Reader interface {
	// Snapshot visits every row as all of them were at one instant, and returns the first error of a visit, or says what
	// of the store cannot be read or is damaged. It may be called at any time, also beside the process that writes.
	Snapshot(v *Visitor) error
}

// Visitor takes the rows of a snapshot, in the order of its fields. A row's bytes are valid until the visit returns.
type Visitor struct {
	Meta    func(epoch, lastAt int64) error // newest epoch, and time of the newest batch (Unix microseconds)
	Entry   func(EntryRow) error            // by organisation and sequence
	Head    func(HeadRow) error
	Balance func(BalanceRow) error
	Usage   func(UsageRow) error
}

// CheckReport is what Check read, and the first difference that it found.
type CheckReport struct {
	Organisations int64
	Entries       int64
	Posted        int64 // requests that were charged
	Voided        int64 // requests at which nothing was owed
	Open          int64 // holds that are neither
	Balances      int64
	UsageRows     int64
	Memory        bool  // what a running ledger has in memory was compared too
	Overrides     int64 // that starts let pass what they would have refused
	// Difference is what is wrong, in one line; "" where everything is as it should be. Check stops there.
	Difference string
}

// OK reports whether no difference was found.
func (r *CheckReport) OK() bool { return r.Difference == "" }

// String is the report in one line.
func (r *CheckReport) String() string {
	if !r.OK() {
		return r.Difference
	}
	said := fmt.Sprintf("%d entries of %d organisations: every chain unbroken; %d requests posted, %d void, %d open; %d balances and %d usage rows are what the log says",
		r.Entries, r.Organisations, r.Posted, r.Voided, r.Open, r.Balances, r.UsageRows)
	if r.Memory {
		said += "; memory agrees"
	}
	if r.Overrides > 0 {
		said += fmt.Sprintf("; %d times a start was told to trust a clock or to accept a rollback", r.Overrides)
	}
	return said
}

// Check reads the whole log by itself and compares with it everything that is said to follow from it. It was written from
// docs/ledger-format.md and shares no code with what posts: own bytes, own sums (math/big), own rules. What it cannot see
// is listed there. The error is a store that cannot be read; a ledger that is wrong is no error but a report with a
// Difference.
func Check(r Reader) (*CheckReport, error) {
	return newAuditor().run(r)
}

func newAuditor() *auditor {
	return &auditor{orgs: map[account.ID]*auditOrg{}, requests: map[usage.ID]struct{}{}}
}

func (a *auditor) run(r Reader) (*CheckReport, error) {
	err := r.Snapshot(&Visitor{
		Meta: func(epoch, lastAt int64) error {
			a.epoch, a.lastAt = epoch, lastAt
			return nil
		},
		Entry:   a.entry,
		Head:    a.head,
		Balance: a.balance,
		Usage:   a.usage,
	})
	if err == nil {
		err = a.finish()
	}
	if err == nil {
		err = a.remembered()
	}
	var diff difference
	if errors.As(err, &diff) {
		a.report.Difference = string(diff)
		return &a.report, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot check the ledger: %w", err)
	}
	return &a.report, nil
}

// difference is a finding on its way to the report.
type difference string

func (d difference) Error() string { return string(d) }

func differ(format string, args ...any) error { return difference(fmt.Sprintf(format, args...)) }

// auditor is the state of one check.
type auditor struct {
	report        CheckReport
	epoch, lastAt int64 // of the store
	newest        int64 // newest epoch of any entry
	newestAt      int64 // newest time in that epoch
	orgs          map[account.ID]*auditOrg
	order         []*auditOrg
	memory        map[account.ID]*auditMemory // nil: not compared
	requests      map[usage.ID]struct{}       // that had a hold, of all organisations
}

// auditOrg is what one organisation's log says so far.
type auditOrg struct {
	id          account.ID
	name        string // first segment of a path; "" until one was read
	shard       int64
	seq         int64
	hash        Hash
	epoch       int64
	clean       int64 // epoch at whose beginning no older hold was open
	at          int64
	subjects    []*auditSubject
	rows        []*auditRow
	limits      []*auditLimit
	limitsOf    map[int64][]*auditLimit // by account
	periods     []*auditPeriod
	counters    []*auditCounter
	corrections []*auditCorrection
	balances    map[auditKey]*auditBalance
	usage       map[auditKey]*auditUsage
	open        map[int64]*auditHold // by request
	keys        map[string]auditRepeat
	noticed     map[auditNotice]bool
	due         []auditNotice // what must be noticed before anything else is written
	cause       int64         // the request that made it due, 0 for a limit that was changed
	headed      bool          // its head was compared

	steps      int64            // of prices: in the operator's log only
	stepsUntil map[string]int64 // by book, when its newest step ends
}

// auditKey is a limit and a period, or a subject and a bucket.
type auditKey struct{ a, b int64 }

type auditBalance struct {
	used, held big.Int
	compared   bool
}

type auditUsage struct {
	requests, voided int64
	counts           [auditMeters]int64
	charge           big.Int
	compared         bool
}

func newAuditOrg(id account.ID) *auditOrg {
	return &auditOrg{
		id: id, limitsOf: map[int64][]*auditLimit{}, balances: map[auditKey]*auditBalance{},
		usage: map[auditKey]*auditUsage{}, open: map[int64]*auditHold{}, keys: map[string]auditRepeat{}, noticed: map[auditNotice]bool{},
	}
}

// say names the organisation for people.
func (o *auditOrg) say() string {
	switch {
	case o.id == 0:
		return "the operator's log"
	case o.name == "":
		return fmt.Sprintf("organisation %d", o.id)
	}
	return fmt.Sprintf("organisation %d (%s)", o.id, o.name)
}

func (o *auditOrg) learnName(path string) {
	if o.name == "" {
		o.name, _, _ = strings.Cut(path, "/")
	}
}

// entry checks one entry: first that it stands where it was written and is what was written, then what it says.
func (a *auditor) entry(row EntryRow) error {
	o := a.orgs[row.Org]
	if o == nil {
		o = newAuditOrg(row.Org)
		a.orgs[row.Org] = o
		a.order = append(a.order, o)
		a.report.Organisations++
	}
	if row.Seq != o.seq+1 {
		return differ("%s: entry %d is missing: after entry %d stands entry %d", o.say(), o.seq+1, o.seq, row.Seq)
	}
	sum := sha256.New()
	sum.Write(o.hash[:])
	sum.Write(row.Body)
	o.seq = row.Seq
	sum.Sum(o.hash[:0])
	if o.hash != row.Hash {
		return differ("%s, entry %d: the chain is broken: its hash is not that of its bytes and the hash before it", o.say(), row.Seq)
	}
	r := &auditReader{b: row.Body}
	h := r.header()
	h.idempotency = row.Idempotency
	err := r.failed()
	if err == nil {
		err = a.place(o, &h, &row)
	}
	if err == nil {
		err = a.fold(o, &h, r)
	}
	if err == nil {
		err = r.failed()
	}
	if err == nil && len(r.b) > 0 {
		err = differ("%d bytes too many", len(r.b))
	}
	if err != nil {
		return differ("%s, entry %d%s: %v", o.say(), row.Seq, h.say(), err)
	}
	a.report.Entries++
	return a.remember(o)
}

// place checks the header of an entry against the row it was stored in and the entry before it.
func (a *auditor) place(o *auditOrg, h *auditHeader, row *EntryRow) error {
	switch {
	case h.org != int64(row.Org) || h.seq != row.Seq:
		return differ("it was written as entry %d of organisation %d", h.seq, h.org)
	case h.kind != auditHoldKind && row.Idempotency != "":
		return differ("it is of kind %d, but has an idempotency key", h.kind)
	case h.kind != byte(row.Kind):
		return differ("it is of kind %d, but its column says %d", h.kind, row.Kind)
	case h.request != int64(row.Request):
		return differ("it is about request %d, but its column says %d", h.request, row.Request)
	case (h.kind < auditHoldKind) != (h.request == 0):
		return differ("an entry of kind %d is about request %d", h.kind, h.request)
	case h.epoch < o.epoch:
		return differ("epoch %d comes after epoch %d", h.epoch, o.epoch)
	case h.epoch < 1 || h.epoch > a.epoch:
		return differ("epoch %d was never begun: the newest is %d", h.epoch, a.epoch)
	case h.epoch == o.epoch && h.at < o.at:
		return differ("time runs backwards: decided %d microseconds before the entry in front of it", o.at-h.at)
	case o.seq > 1 && h.shard != o.shard:
		return differ("shard %d, but the log is of shard %d", h.shard, o.shard)
	}
	o.shard, o.epoch, o.at = h.shard, h.epoch, h.at
	if h.epoch > a.newest {
		a.newest, a.newestAt = h.epoch, h.at
	} else if h.epoch == a.newest {
		a.newestAt = max(a.newestAt, h.at)
	}
	switch h.kind {
	case auditNoticeKind:
		return nil
	case auditSettleKind, auditVoidKind:
	default:
		if err := o.resolved(h.epoch); err != nil {
			return err
		}
	}
	if len(o.due) > 0 {
		return differ("limit %d has come to %s in period %d, and no notice says so", o.due[0].limit, o.due[0].at, o.due[0].period)
	}
	o.cause = h.request
	return nil
}

// resolved checks that no hold of an epoch before this one is open.
func (o *auditOrg) resolved(epoch int64) error {
	if o.clean == epoch {
		return nil
	}
	var oldest *auditHold
	for _, hold := range o.open {
		if hold.epoch < epoch && (oldest == nil || hold.seq < oldest.seq) {
			oldest = hold
		}
	}
	if oldest == nil {
		o.clean = epoch
		return nil
	}
	return differ("the hold of request %s, entry %d, is of epoch %d and still open in epoch %d", usage.ID(oldest.request), oldest.seq, oldest.epoch, epoch)
}

// fold reads the body of an entry and lets it act.
func (a *auditor) fold(o *auditOrg, h *auditHeader, r *auditReader) error {
	switch h.kind {
	case auditSubjectKind:
		return o.subject(r)
	case auditRowKind:
		return o.row(r)
	case auditLimitKind:
		return o.limit(h, r)
	case auditPeriodKind:
		return o.period(h, r)
	case auditStepKind:
		return o.step(h, r)
	case auditOverrideKind:
		a.report.Overrides++
		return r.override()
	case auditNoticeKind:
		return o.notice(r)
	case auditCounterKind:
		return o.counter(r)
	case auditCorrectionKind:
		return o.correction(h, r)
	case auditHoldKind:
		return a.hold(o, h, r)
	case auditExtendKind:
		return o.extend(h, r)
	case auditCheckpointKind:
		return o.checkpoint(h, r)
	case auditSettleKind, auditVoidKind:
		return a.settle(o, h, r)
	}
	return differ("kind %d is not known", h.kind)
}
