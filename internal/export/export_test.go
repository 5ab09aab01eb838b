package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

type clock struct{ at time.Time }

func (c *clock) Now() time.Time { return c.at }

// rig is a real ledger with an export.
type rig struct {
	t      *testing.T
	dir    string
	clock  clock
	ledger *ledger.Ledger
	ids    *ledger.Minter
	files  *Files
}

func newRig(t *testing.T, most int64) *rig {
	r := &rig{t: t, dir: t.TempDir(), ids: ledger.NewMinter(1)}
	r.clock.at = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	store, err := sqlite.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if r.ledger, err = ledger.Open(store, ledger.Options{Clock: &r.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ledger.Close() })
	r.again(most)
	return r
}

// again is a fresh export, as after a restart.
func (r *rig) again(most int64) {
	r.files = New(Options{Dir: r.dir, Ledger: r.ledger, Clock: &r.clock, Log: slog.New(slog.DiscardHandler), Records: most})
}

var row = func() *price.Row {
	rate, err := money.ParseRate("1", 1_000_000)
	if err != nil {
		panic(err)
	}
	r := &price.Row{ID: "public@0123456789abcdef/m", Multiplier: 1_000_000}
	for _, m := range []usage.Meter{usage.InputUncached, usage.OutputContent} {
		r.Rates[m], r.Has[m] = rate, true
	}
	return r
}()

func (r *rig) hold(org account.ID) *ledger.Hold {
	r.t.Helper()
	chain := []account.ID{org, org + 100}
	h, err := r.ledger.Hold(context.Background(), &ledger.Ask{
		Org: org, Chain: chain, Row: row, Money: money.Units(1 << 40),
		Admission: usage.Admission{ID: r.ids.Mint(r.clock.at), Endpoint: "chat", Bounds: usage.Bounds{Input: 1000, Output: 1000},
			Subject: &usage.Subject{Organisation: org, Account: chain[1], AccountPath: account.Path(fmt.Sprintf("org%d/chat", org)), Key: "key_1", Currency: "EUR", Book: "public", Model: "m"}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) settle(h *ledger.Hold, output int64) {
	r.t.Helper()
	result := &usage.Result{Engine: "e", Source: usage.EngineFinal, Outcome: usage.Completed, Delivered: output}
	result.Counts.Set(usage.InputUncached, 10)
	result.Counts.Set(usage.OutputContent, output)
	if _, err := r.ledger.Settle(h, result); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) requests(org account.ID, n int) {
	for i := range n {
		r.settle(r.hold(org), int64(i))
	}
}

func (r *rig) round() {
	r.t.Helper()
	if err := r.files.Round(); err != nil {
		r.t.Fatal(err)
	}
	if lag := r.files.Lag(); lag != 0 {
		r.t.Errorf("%d entries behind after a round", lag)
	}
}

// read reads an organisation's files as an auditor would: every number, every link. It returns the requests in order and the files.
func (r *rig) read(org account.ID) (ids []string, files []string) {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, fmt.Sprintf("organisation-%d", org), "*.ndjson"))
	if err != nil {
		r.t.Fatal(err)
	}
	sort.Strings(files)
	previous, number, entry := strings.Repeat("0", 64), int64(0), int64(0)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		for i, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
			var l struct {
				Previous string `json:"previous_line"`
				Record   int64
				Entry    int64
				First    int64 `json:"first_record"`
				Records  int64
				Lost     int64  `json:"lost_records"`
				Reason   string `json:"reason"`
				Data     *struct {
					RequestID string `json:"request_id"`
					Status    string
				}
			}
			if err := json.Unmarshal(line, &l); err != nil || l.Previous != previous {
				r.t.Fatalf("%s line %d: %v, previous %s, want %s\n%s", file, i+1, err, l.Previous, previous, line)
			}
			sum := sha256.Sum256(line)
			previous = hex.EncodeToString(sum[:])
			switch {
			case i == 0:
				if l.First != number+1 {
					r.t.Errorf("%s begins with record %d after %d", file, l.First, number)
				}
			case l.Data != nil:
				if l.Record != number+1 || l.Entry <= entry || l.Data.Status == "held" {
					r.t.Errorf("%s line %d: record %d of entry %d, %s, after %d of entry %d", file, i+1, l.Record, l.Entry, l.Data.Status, number, entry)
				}
				number, entry = l.Record, l.Entry
				ids = append(ids, l.Data.RequestID)
			case l.Reason == "" || l.Records == 0 || l.Lost != 0:
				r.t.Errorf("%s line %d: %s", file, i+1, line)
			}
		}
	}
	return ids, files
}

func TestExport(t *testing.T) {
	r := newRig(t, 4)
	long := r.hold(1)
	r.requests(1, 6)
	r.requests(2, 3)
	r.round()
	ids, files := r.read(1)
	if len(ids) != 6 || len(files) != 2 {
		t.Fatalf("%d records in %d files, want 6 in 2", len(ids), len(files))
	}
	r.settle(long, 5) // its hold is from before everything that was exported
	r.again(4)
	r.requests(1, 2)
	r.round()
	r.clock.at = r.clock.at.Add(24 * time.Hour)
	r.requests(1, 1)
	r.round()
	r.round() // nothing is new
	ids, files = r.read(1)
	if len(ids) != 10 || len(files) != 4 || ids[6] != long.ID.String() {
		t.Errorf("%d records in %d files, the seventh of %s, want 10 in 4, of %s: %v", len(ids), len(files), ids[6], long.ID, files)
	}
	if ids, _ := r.read(2); len(ids) != 3 {
		t.Errorf("%d records of the other organisation", len(ids))
	}
}

// TestTornExport cuts the files at every byte, as a power cut may: what is written afterwards has every record once.
func TestTornExport(t *testing.T) {
	r := newRig(t, 3)
	r.requests(1, 5)
	r.round()
	want, files := r.read(1)
	newest := files[len(files)-1]
	text, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(text); n += 1 + n%41 {
		if err := os.WriteFile(newest, text[:n], 0o640); err != nil {
			t.Fatal(err)
		}
		r.again(3)
		r.round()
		if got, _ := r.read(1); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("cut after %d bytes: %v, want %v", n, got, want)
		}
	}
}

// A file that is none of ours is not written to.
func TestForeignFile(t *testing.T) {
	r := newRig(t, 3)
	r.requests(1, 1)
	dir := filepath.Join(r.dir, "organisation-1")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "000000000001.ndjson")
	if err := os.WriteFile(file, []byte("{\"format\":\"other\"}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := r.files.Round(); err == nil || !strings.Contains(err.Error(), "is no file of this export") {
		t.Errorf("a foreign file: %v", err)
	}
}
