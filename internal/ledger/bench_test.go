package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// BenchmarkHoldSettle is one request's whole way through the ledger on a real file: a durable hold and a durable
// settlement on a path of three nodes with three limits. cpu-µs/op counts all threads, system calls included.
func BenchmarkHoldSettle(b *testing.B) {
	for _, clients := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { benchHoldSettle(b, clients) })
	}
}

func benchHoldSettle(b *testing.B, clients int) {
	dir := b.TempDir()
	store, err := sqlite.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	l, err := ledger.Open(store, ledger.Options{Clock: wallClock{}, Wait: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	most := money.Units(1_000_000_000_000_000)
	if err := l.Publish(context.Background(), ledger.Publication{Limits: []quota.Limit{
		limitOn(acme, "acme", quota.Money, period.Month, amount(b, "1000000000")),
		limitOn(research, "acme/research", quota.Tokens, period.Day, most),
		limitOn(chat, "acme/research/chat", quota.RequestCount, period.Hour, most),
	}}); err != nil {
		b.Fatal(err)
	}
	minter, row, subj := usage.NewMinter(1), priceRow(b), subject(acme, chat, "acme/research/chat")
	chain := []account.ID{acme, research, chat}
	bounds := usage.Bounds{Input: 900, Output: 512}
	most = ceiling(b, bounds, row)

	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				ask := &ledger.Ask{Admission: usage.Admission{ID: minter.Mint(time.Now()), Subject: subj, Endpoint: "chat", Stream: true, Bounds: bounds},
					Org: acme, Chain: chain, Row: row, Money: most}
				h, err := l.Hold(context.Background(), ask)
				if err == nil {
					_, err = l.Settle(h, completed(312, 188))
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, sqlite.FileName)) // Close has brought the log into the file
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/float64(b.N), "file-B/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
