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

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
)

// BenchmarkHoldSettle is one request's whole way through the ledger on a real file: a durable hold and a durable
// settlement on a path of three nodes with three limits. cpu-µs/op counts all threads, system calls included.
func BenchmarkHoldSettle(b *testing.B) {
	for _, clients := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { benchHoldSettle(b, clients) })
	}
}

func benchHoldSettle(b *testing.B, clients int) {
	r := unopened(b)
	r.opt = ledger.Options{Clock: wallClock{}, Wait: time.Second}
	r.open()
	most := units(1_000_000_000_000_000)
	r.publish(limitOn(acme, quota.Money, period.Month, eur("1000000000")), limitOn(research, quota.Tokens, period.Day, most), limitOn(chat, quota.RequestCount, period.Hour, most))
	template := r.ask(900, 512)

	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				ask := *template
				ask.ID = r.minter.Mint(time.Now())
				h, err := r.l.Hold(context.Background(), &ask)
				if err == nil {
					_, err = r.l.Settle(h, completed(312, 188))
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
	if err := r.l.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(r.dir, sqlite.FileName)) // Close has brought the log into the file
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
