package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/rating"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// books is a ledger on a file of its own, in this process, with one department of eight projects in one organisation.
type books struct {
	dir      string
	ledger   *ledger.Ledger
	minter   *ledger.Minter
	row      *price.Row
	subjects [projects]*usage.Subject
	bounds   usage.Bounds
	money    money.Amount
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// openBooks makes a ledger. Its limits stand on the organisation, the department and the project, or, where hot is so,
// six of them on the one department that all requests are of.
func openBooks(hot bool) (*books, error) {
	dir, err := os.MkdirTemp("", "talea-bench-")
	if err != nil {
		return nil, err
	}
	b := &books{dir: dir, minter: ledger.NewMinter(1), bounds: usage.Bounds{Input: 900, Output: 512}}
	if err := b.fill(hot); err != nil {
		b.remove()
		return nil, err
	}
	return b, nil
}

func (b *books) fill(hot bool) error {
	var err error
	b.row = &price.Row{ID: "public@0123456789abcdef/m", Multiplier: 1_000_000}
	for _, m := range []usage.Meter{usage.InputUncached, usage.InputCacheRead, usage.InputCacheWrite, usage.OutputContent, usage.OutputReasoning} {
		rate, err := money.ParseRate("2.00", 1_000_000)
		if err != nil {
			return err
		}
		b.row.Rates[m], b.row.Has[m] = rate, true
	}
	if b.money, err = rating.Ceiling(b.bounds, usage.Work{}, b.row, nil); err != nil {
		return err
	}
	if err := b.open(); err != nil {
		return err
	}
	euros, err := money.ParseAmount("1000000000")
	if err != nil {
		return err
	}
	limit := func(node account.ID, m quota.Measure, w period.Window) quota.Limit {
		enough := euros
		if m != quota.Money {
			enough = money.Units(1_000_000_000_000_000)
		}
		return quota.Limit{Org: 1, Account: node, Path: account.Path("acme/" + strconv.Itoa(int(node))), Measure: m, Window: w, Zone: "Europe/Berlin", Amount: enough}
	}
	limits := []quota.Limit{limit(1, quota.Money, period.Month), limit(2, quota.Tokens, period.Day)}
	for i := range b.subjects {
		project := account.ID(3 + i)
		b.subjects[i] = &usage.Subject{
			Organisation: 1, Account: project, AccountPath: account.Path("acme/research/p" + strconv.Itoa(i)), BillingAccount: "acme", Key: "key_" + strconv.Itoa(i),
			Seller: "cloud", Currency: "EUR", Book: "public", BookVersion: "0123456789abcdef", ModelAsked: "m", Model: "m",
		}
		limits = append(limits, limit(project, quota.Money, period.Month))
	}
	if hot {
		limits = limits[:0]
		for _, m := range []quota.Measure{quota.Money, quota.Tokens, quota.RequestCount} {
			limits = append(limits, limit(2, m, period.Month), limit(2, m, period.Day))
		}
	}
	return b.ledger.Publish(context.Background(), ledger.Publication{Limits: limits})
}

func (b *books) open() error {
	store, err := sqlite.Open(b.dir)
	if err != nil {
		return err
	}
	if b.ledger, err = ledger.Open(store, ledger.Options{Clock: wallClock{}}); err != nil {
		store.Close()
	}
	return err
}

func (b *books) remove() {
	if b.ledger != nil {
		b.ledger.Close()
	}
	os.RemoveAll(b.dir)
}

func (b *books) hold(client int) (*ledger.Hold, error) {
	s := b.subjects[client%projects]
	return b.ledger.Hold(context.Background(), &ledger.Ask{
		Admission: usage.Admission{ID: b.minter.Mint(time.Now()), Subject: s, Endpoint: "chat", Bounds: b.bounds},
		Org:       1, Chain: []account.ID{1, 2, s.Account}, Row: b.row, Money: b.money,
	})
}

func (b *books) settle(h *ledger.Hold) error {
	r := &usage.Result{
		Engine: "gpu-1", EngineKind: "vllm", Source: usage.EngineFinal, Delivered: 188, FirstMicros: 31_000, TotalMicros: 410_000, Finish: "stop",
		Outcome: usage.Completed, Attempts: []usage.Attempt{{Engine: "gpu-1", Status: 200, Micros: 409_000}},
	}
	r.Counts.Set(usage.InputUncached, 312)
	r.Counts.Set(usage.OutputContent, 188)
	_, err := b.ledger.Settle(h, r)
	return err
}

// crowd runs clients, each until it returns false or an error.
func crowd(clients int, again func(client int) (bool, error)) error {
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	for client := range clients {
		group.Go(func() {
			for more, err := true, error(nil); more; {
				if more, err = again(client); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// holds measures durable holds that nothing settles meanwhile.
func holds(o *options) error {
	for _, hot := range []bool{false, true} {
		for _, clients := range []int{1, 64, 256} {
			if err := holdsOf(o, hot, clients); err != nil {
				return err
			}
		}
	}
	return nil
}

func holdsOf(o *options, hot bool, clients int) error {
	b, err := openBooks(hot)
	if err != nil {
		return err
	}
	defer b.remove()
	took := make([][]time.Duration, clients)
	start := time.Now()
	err = crowd(clients, func(client int) (bool, error) {
		from := time.Now()
		_, err := b.hold(client)
		took[client] = append(took[client], time.Since(from))
		return time.Since(start) < o.duration, err
	})
	if err != nil {
		return err
	}
	d := driven{took: time.Since(start), latencies: slices.Concat(took...)}
	if open := b.ledger.OpenHolds(); open != len(d.latencies) {
		return fmt.Errorf("%d holds were granted and %d are open", len(d.latencies), open)
	}
	s := d.sample()
	where := "three limits on three levels"
	if hot {
		where = "six limits on one department"
	}
	fmt.Printf("durable holds, %s, %3d clients: %7.0f/s  p50 %6.0f µs  p99 %6.0f µs\n", where, clients, s.perSecond, s.p50, s.p99)
	return nil
}

// openLeft is how many holds a start has to resolve.
const openLeft = 256

// opens measures a start behind many settled requests, with some holds open, as after a crash.
func opens(o *options) error {
	b, err := openBooks(false)
	if err != nil {
		return err
	}
	defer b.remove()
	var done atomic.Int64
	err = crowd(openLeft, func(client int) (bool, error) {
		h, err := b.hold(client)
		if err != nil || done.Add(1) > int64(o.records) { // the last of each client stays open
			return false, err
		}
		return true, b.settle(h)
	})
	if err != nil {
		return err
	}
	if err := b.ledger.Close(); err != nil {
		return err
	}
	stored, err := size(b.dir)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.open(); err != nil {
		return err
	}
	took := time.Since(start)
	if r := b.ledger.Recovered(); r.Posted+r.Voided != openLeft {
		return fmt.Errorf("%d holds were open and %d were resolved", openLeft, r.Posted+r.Voided)
	}
	fmt.Printf("open: %d requests, %d bytes each, %d open holds resolved: %d ms\n", o.records, stored/int64(o.records), openLeft, took.Milliseconds())
	return nil
}
