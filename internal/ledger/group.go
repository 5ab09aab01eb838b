package ledger

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"time"

	"talea/internal/crash"
	"talea/internal/money"
	"talea/internal/usage"
)

type amount = money.Amount

// group is what has been decided and not yet committed. All its entries share one fate.
type group struct {
	Batch
	arena    []byte // backs Entries[i].Body
	orgs     []*org
	balances []*balance
	usage    map[usageKey]int // index into Batch.Usage
	notices  []Notice
	done     chan struct{}
	err      error // valid once done is closed
}

type usageKey struct {
	org             *org
	subject, bucket int64
}

func newGroup(arena []byte) *group {
	return &group{arena: arena[:0], done: make(chan struct{}), usage: map[usageKey]int{}}
}

func (g *group) empty() bool {
	return len(g.Entries) == 0 && len(g.Objects) == 0 && len(g.Refusals) == 0
}

// begin starts an entry at the end of the organisation's log and returns the buffer to append its body to.
// The caller holds l.mu and must call end with the buffer before anything else.
func (l *Ledger) begin(o *org, kind Kind, at time.Time, request usage.ID) []byte {
	o.seq++
	b := append(l.pending.arena, o.hash[:]...) // hashed with the body, not stored with it
	return appendHeader(b, &header{Kind: kind, Shard: l.opt.Shard, Epoch: l.epoch, Org: o.id, Seq: o.seq, At: at, Request: request})
}

// end finishes the entry that begin started.
func (l *Ledger) end(o *org, kind Kind, request usage.ID, b []byte) {
	g := l.pending
	start := len(g.arena)
	g.arena = b
	o.hash = sha256.Sum256(b[start:])
	g.Entries = append(g.Entries, EntryRow{Org: o.id, Seq: o.seq, Kind: kind, Request: request, Hash: o.hash, Body: b[start+len(o.hash):]})
	if len(g.Entries) == enough {
		select {
		case l.large <- struct{}{}:
		default:
		}
	}
	if !o.dirty {
		o.dirty = true
		g.orgs = append(g.orgs, o)
	}
}

// changed puts a balance into the pending group.
func (l *Ledger) changed(b *balance) {
	if !b.dirty {
		b.dirty = true
		l.pending.balances = append(l.pending.balances, b)
	}
}

// await lets the group be committed and waits until it is durable.
func (l *Ledger) await(g *group) error {
	l.kick()
	<-g.done
	return g.err
}

// kick tells the committing goroutine that there is something to commit.
func (l *Ledger) kick() {
	select {
	case l.wake <- struct{}{}:
	default: // it knows
	}
}

// A commit costs the same 120 µs of processor time, most of it the sync, whether it has one entry or fifty. After a group
// of a crowd the next one waits for a breath, or until it is large: half of the commits for a millisecond of patience. Who
// comes alone never waits.
const (
	crowd  = 8  // entries
	enough = 64 // entries: more make a commit no cheaper for each
	breath = time.Millisecond
)

// run commits groups until Close.
func (l *Ledger) run() {
	defer close(l.ended)
	breathing := time.NewTimer(breath)
	defer breathing.Stop()
	for open := true; open; {
		select {
		case <-l.wake:
		case <-l.room.C:
			l.lookForRoom()
		case <-l.stop:
			open = false // nothing is decided any more: what is pending is the last
		}
		for size := l.commit(); size > 0; size = l.commit() {
			if size >= crowd {
				breathing.Reset(breath)
				select {
				case <-breathing.C:
				case <-l.large:
				case <-l.stop:
				}
			}
			runtime.Gosched() // those who were just woken come back in the same group as those who came meanwhile
		}
	}
}

// commit takes the pending group and makes it durable. It returns the number of its entries and other rows, 0 for none.
func (l *Ledger) commit() int {
	l.mu.Lock()
	g := l.pending
	if g.empty() {
		l.mu.Unlock()
		return 0
	}
	l.pending, l.newest = newGroup(l.spare), g
	select {
	case <-l.large: // that was this group
	default:
	}
	l.spare = nil
	l.derive(g)
	failed := l.failed
	if failed == errClosed {
		failed = l.lost // what was decided before Close is still written, but not behind a gap
	}
	l.writing = true
	l.mu.Unlock()

	if failed == nil {
		g.crash(crash.HoldDecided, crash.SettlementDecided)
		failed = l.write(&g.Batch)
		g.crash(crash.HoldDurable, crash.SettlementDurable)
		if failed != nil {
			l.lost = failed
			l.fail(failed)
		}
	}
	if failed != nil {
		// The log may or may not hold this group: nobody is told that it does.
		g.err = errorsJoin(ErrUnavailable, failed)
	}
	l.mu.Lock()
	l.spare = g.arena
	l.inTime()
	l.mu.Unlock()
	close(g.done)
	if failed == nil && len(g.notices) > 0 && l.opt.OnNotice != nil {
		go func() {
			for _, n := range g.notices {
				l.opt.OnNotice(n)
			}
		}()
	}
	return len(g.Entries) + len(g.Objects) + len(g.Refusals)
}

// crash is a point of a group with a hold, and one of a group with a settlement.
func (g *group) crash(hold, settlement crash.Point) {
	if !crash.On {
		return
	}
	for i := range g.Entries {
		switch g.Entries[i].Kind {
		case KindHold:
			crash.At(hold)
		case KindSettle, KindVoid:
			crash.At(settlement)
		}
	}
}

// derive adds to the group what follows from its entries. The caller holds l.mu, so it is exactly their sum.
func (l *Ledger) derive(g *group) {
	g.At = l.last.UnixMicro()
	for _, o := range g.orgs {
		o.dirty = false
		g.Heads = append(g.Heads, o.head())
	}
	for _, b := range g.balances {
		b.dirty = false
		g.Balances = append(g.Balances, BalanceRow{Org: b.limit.Org, Limit: b.limit.num, Period: b.period.num, Used: b.Used, Held: b.Held})
	}
}

func (o *org) head() HeadRow {
	return HeadRow{Org: o.id, Seq: o.seq, Hash: o.hash, OpenFrom: o.openFrom()}
}

// openFrom is the sequence number of the oldest open hold, or the next one. It drops closed ones in front.
func (o *org) openFrom() int64 {
	for len(o.queue) > 0 && o.open[o.queue[0].id] == nil {
		o.queue = o.queue[1:]
	}
	if len(o.queue) > 0 {
		return o.queue[0].seq
	}
	return o.seq + 1
}

// fail ends the ledger: from here on only a fresh Open knows what is true.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failLocked(err)
}

func (l *Ledger) failLocked(err error) {
	if l.failed != nil {
		return
	}
	l.failed = err
	if l.opt.OnFailure != nil {
		go l.opt.OnFailure(err)
	}
}

// unlock ends a decision. A panic in it is a bug that may have left half of one in memory: the ledger fails shut, and
// does not hang.
func (l *Ledger) unlock() {
	bug := recover()
	if bug != nil {
		l.failLocked(fmt.Errorf("bug in a decision: %v", bug))
	}
	l.mu.Unlock()
	if bug != nil {
		panic(bug)
	}
}

// count adds a settled request to the usage sums of the pending group.
func (g *group) count(o *org, h *Hold) {
	key := usageKey{o, h.subject, h.Admission.At.Unix() / bucketSeconds}
	i, ok := g.usage[key]
	if !ok {
		i = len(g.Usage)
		g.usage[key] = i
		g.Usage = append(g.Usage, UsageRow{Org: o.id, Subject: h.subject, Bucket: key.bucket})
	}
	row := &g.Usage[i]
	if h.Status == usage.Void {
		row.Voided++
		return
	}
	row.Requests++
	for m := range usage.NumMeters {
		row.Counts[m] += h.Billed.Get(m)
	}
	row.Charge = row.Charge.Add(h.Charge)
}
