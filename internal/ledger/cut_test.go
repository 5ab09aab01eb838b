package ledger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// TestCutLog is the table of crash points: SQLite's log is cut in each part of its last commits, and a bit is flipped
// there, as a torn write leaves it. The ledger opens, is right in itself, and has all that had been acknowledged when the
// log was as long (F002, F020).
func TestCutLog(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(1_000_000)), limitOn(chat, quota.Money, period.Month, eur("100")))
	type acked struct {
		id   usage.ID
		size int // of the log, once it was acknowledged
	}
	wal := filepath.Join(r.dir, sqlite.FileName+"-wal")
	size := func() int {
		info, err := os.Stat(wal)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Size())
	}
	var posted, held []acked
	for n := range int64(10) {
		h := r.hold(10+n, 10)
		held = append(held, acked{h.ID, size()})
		if n%3 == 1 {
			r.l.Checkpoint(h, counts(10, 3), usage.EngineRunning)
		}
		r.settle(h, completed(10+n, 7))
		posted = append(posted, acked{h.ID, size()})
	}
	db, err := os.ReadFile(filepath.Join(r.dir, sqlite.FileName))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(wal)
	if err != nil {
		t.Fatal(err)
	}
	cuts := map[int]bool{len(whole): true, 0: true, 7: true, 32: true}
	const frame = 24 + 4096
	from := posted[len(posted)-4].size
	step := 1031
	if testing.Short() {
		step = 1 << 20
	}
	for at := from; at < len(whole); at += step {
		cuts[at] = true
	}
	frames := 1
	if testing.Short() {
		frames = 5
	}
	for at := from; at < len(whole); at += frames * frame { // the log's header has 32 bytes, and from stands at a frame's end
		cuts[at-1], cuts[at], cuts[at+1], cuts[at+23], cuts[at+25] = true, true, true, true, true
	}
	for at := range cuts {
		for _, flip := range []bool{false, true} {
			torn := whole[:min(at, len(whole))]
			if flip {
				if at >= len(whole) {
					continue
				}
				torn = slices.Clone(whole)
				torn[at] ^= 1 << (at % 8)
			}
			t.Run(fmt.Sprintf("at %d, flipped %v", at, flip), func(t *testing.T) {
				cut := unopened(t)
				cut.clock = r.clock
				for name, b := range map[string][]byte{sqlite.FileName: db, sqlite.FileName + "-wal": torn} {
					if err := os.WriteFile(filepath.Join(cut.dir, name), b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				cut.open()
				cut.check()
				for _, p := range posted {
					rec, _, err := cut.l.Record(p.id)
					if p.size <= at && (err != nil || rec == nil || rec.Status != usage.Posted) {
						t.Errorf("request %s was acknowledged at %d and is %v, %v", p.id, p.size, rec, err)
					}
				}
				for _, h := range held {
					rec, _, err := cut.l.Record(h.id)
					if h.size <= at && (err != nil || rec == nil || rec.Status == usage.Held) {
						t.Errorf("hold of %s was durable at %d and is %v, %v", h.id, h.size, rec, err)
					}
				}
				if n := cut.l.OpenHolds(); n != 0 {
					t.Errorf("%d holds are open", n)
				}
				cut.l.Close()
				cut.store.Close()
			})
		}
	}
}
