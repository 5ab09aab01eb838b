// Package ledger is the one writer: it grants holds, settles them, keeps the balances of every limit, and appends all of
// it to one ordered, hash-chained log per organisation before anybody is told. It does not authenticate, does not choose
// engines, and does not know how entries reach a disk (store/…).
//
// # Invariants
//
//   - No grant brings used + held above a limit at any node of the path, at any instant, straight after recovery too.
//   - A Hold, Extend or Settle that returned without an error is durable.
//   - A request is posted at most once, never above its hold, at the rates that were locked with the hold.
//   - Every change of a balance derives from an entry of the same batch; entries are never changed or removed.
//   - Expiry never releases a hold. After a restart every hold of an earlier epoch is resolved before Open returns.
//   - After a failed commit nothing is granted or settled any more: only a fresh Open knows what is true.
//   - While the disk is full or does not answer nothing is granted; what is held can still be settled.
//
// # How one decision travels
//
// A caller takes the lock, decides against the balances in memory, appends the entry to the pending group, lets the lock
// go and waits for the group. One goroutine takes the pending group whole, commits it in one transaction, and wakes all
// that wait for it; meanwhile the next group fills.
//
// To add a measure: package quota. To add a kind of entry: entry.go and docs/ledger-format.md.
//
// Start reading at Hold, then Settle.
package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/account"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

var errClosed = errors.New("closed")

// ErrUnavailable says that the ledger cannot make durable what was asked. After a failed commit that is for good, and the
// process must open it anew; while the disk is full or does not answer it passes.
var ErrUnavailable = errors.New("ledger unavailable")

// Clock tells the time; the wall clock in the program, a fake one in tests.
type Clock interface {
	// Now returns the time of this instant; it may step back. It may be called at any time by anybody.
	Now() time.Time
}

// Options of Open.
type Options struct {
	Shard int64
	Clock Clock
	// Wait is how long a hold waits for running requests that are in its way, 0 for not at all.
	Wait time.Duration
	// Retention is how long an idempotency key is taken by a request that was charged: 24 hours at least, and by default.
	Retention time.Duration
	// TrustClock admits although the clock reads earlier than the newest entry.
	TrustClock bool
	// Witness, where there is one, has seen the ledger before: Open refuses one that is older or another.
	Witness *Witness
	// Rollback, where there is one, accepts it all the same.
	Rollback *Rollback
	// Patience is how long a commit may take before holds are refused instead of waiting for it, 0 for any time.
	Patience time.Duration
	// OnDisk, where there is one, is called with the reason when the disk's state ends the granting of holds, and with nil
	// when it goes on. It must return at once and not call the ledger.
	OnDisk func(error)
	// OnNotice is called, from a goroutine of the ledger, with each notice that has become durable.
	OnNotice func(Notice)
	// OnFailure is called once, from a goroutine of the ledger, when a commit has failed.
	OnFailure func(error)
}

// Ledger is the ledger of one shard. All methods may be called concurrently.
type Ledger struct {
	store Store
	opt   Options
	epoch int64
	wake  chan struct{}
	large chan struct{} // the pending group has enough entries
	stop  chan struct{}
	ended chan struct{}
	watch *time.Timer                   // runs out when a commit takes longer than Options.Patience
	room  *time.Ticker                  // runs while there is no room
	late  atomic.Pointer[chan struct{}] // closed when a commit takes too long; another one once it has ended

	mu        sync.Mutex // guards everything below
	orgs      map[account.ID]*org
	last      time.Time // newest decision: time never runs backwards here
	pending   *group
	newest    *group // that was taken to be committed; nil before the first
	spare     []byte // arena of a group that is done
	failed    error
	lost      error // why a group was not written: no later one may be; run's own
	full      error // why nothing can be written just now
	slow      error // why holds are not to wait for the commit that is under way
	writing   bool  // a commit is under way
	closed    bool
	refusals  int64                  // next slot
	waiting   int                    // holds and extensions in queues
	steps     map[string][]PriceStep // by book, in order
	stepCount int64
	noticed   int64 // notices since Open
	leaked    Leak
	recovered Recovery
}

// Leak counts, in tokens, what engines produced above what was held: the operator's loss.
type Leak struct{ Input, Output int64 }

// Recovery tells what Open found.
type Recovery struct {
	Epoch  int64
	Posted int // holds of earlier epochs that were posted by the tariff's rule for platform faults
	Voided int // and those at which nothing was owed
}

// org is all that is known of one organisation.
type org struct {
	id   account.ID
	seq  int64
	hash Hash

	subjects     []*usage.Subject // by number - 1
	subjectNum   map[string]int64 // by canonical bytes
	subjectCache map[*usage.Subject]int64
	rows         []*price.Row
	rowNum       map[string]int64
	rowCache     map[*price.Row]int64

	limitList  []*limit          // by number - 1
	limitByID  map[string]*limit // by identity
	limitsOf   map[account.ID][]*limit
	keyLimits  map[string][]*limit // by key, those that are narrowed to one; the others are in limitsOf
	spans      []*span             // by number - 1
	balances   map[balanceKey]*balance
	counters   []*limit         // by number - 1: see addCounter
	counterNum map[string]int64 // by canonical bytes

	corrections []Correction // in the order of the log

	noticed map[noticeKey]time.Time
	notices []Notice // the newest

	open   map[usage.ID]*Hold
	claims map[string]claim // idempotency keys in the path
	queue  []pin            // holds by seq; closed ones in front are dropped
	dirty  bool             // its head is in the pending group
}

// pin remembers where a hold stands in the log. It does not keep the hold: behind one long request there may be a million.
type pin struct {
	seq int64
	id  usage.ID
}

type balanceKey struct{ limit, period int64 }

type limit struct {
	num     int64
	id      string // quota.Limit.Identity
	removed bool
	quota.Limit
	zone    *time.Location
	current *balance
}

func (lim *limit) change(want *wantedLimit) {
	if lim.Zone != want.Zone {
		lim.current = nil // the next period is compiled in the new zone
	}
	lim.Limit, lim.zone, lim.removed = want.Limit, want.zone, false
}

// balance is what stands against one limit in one period.
type balance struct {
	limit  *limit
	period *span
	quota.Balance
	dirty    bool      // it is in the pending group
	expected amount    // what running requests are expected to ask for yet
	waiters  []*waiter // in the order in which they are served
}

// touch is one balance that a hold stands on.
type touch struct {
	balance *balance
	held    amount
}

func newOrg(id account.ID) *org {
	return &org{
		id:         id,
		subjectNum: map[string]int64{}, subjectCache: map[*usage.Subject]int64{},
		rowNum: map[string]int64{}, rowCache: map[*price.Row]int64{},
		limitByID: map[string]*limit{}, limitsOf: map[account.ID][]*limit{}, keyLimits: map[string][]*limit{},
		counterNum: map[string]int64{},
		balances:   map[balanceKey]*balance{}, noticed: map[noticeKey]time.Time{}, open: map[usage.ID]*Hold{},
	}
}

// organisation returns the state of an organisation, new if it has none. The caller holds l.mu.
func (l *Ledger) organisation(id account.ID) *org {
	o := l.orgs[id]
	if o == nil {
		o = newOrg(id)
		l.orgs[id] = o
	}
	return o
}

func (l *Ledger) sortedOrgs() []*org {
	list := make([]*org, 0, len(l.orgs))
	for _, o := range l.orgs {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *org) int { return cmp.Compare(a.id, b.id) })
	return list
}

func (o *org) addLimit(num int64, want *wantedLimit) *limit {
	lim := &limit{num: num, id: want.id, Limit: want.Limit, zone: want.zone}
	o.limitList = append(o.limitList, lim)
	o.limitByID[lim.id] = lim
	if lim.Key != "" {
		o.keyLimits[lim.Key] = append(o.keyLimits[lim.Key], lim)
	} else {
		o.limitsOf[lim.Account] = append(o.limitsOf[lim.Account], lim)
	}
	return lim
}

// now reads the clock. Time never runs backwards in a ledger: a closed period stays closed. The caller holds l.mu.
func (l *Ledger) now() time.Time {
	if t := l.opt.Clock.Now().UTC().Truncate(time.Microsecond); t.After(l.last) {
		l.last = t
	}
	return l.last
}

func (l *Ledger) unavailable() error { return fmt.Errorf("%w: %v", ErrUnavailable, l.failed) }

// Ready returns nil while holds are granted.
func (l *Ledger) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusing()
}

// Leaked returns what was produced above holds since Open.
func (l *Ledger) Leaked() Leak {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaked
}

// Recovered tells what Open found and did.
func (l *Ledger) Recovered() Recovery { return l.recovered }

// OpenHolds counts the holds that are neither posted nor void.
func (l *Ledger) OpenHolds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, o := range l.orgs {
		n += len(o.open)
	}
	return n
}

// Close commits what is pending and closes the store. Holds that are still open stay so in the log: the next Open
// resolves them.
func (l *Ledger) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	if l.failed == nil {
		l.failed = errClosed
	}
	l.mu.Unlock()
	close(l.stop)
	<-l.ended
	return l.store.Close()
}
