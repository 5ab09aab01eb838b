package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"talea/internal/ledger"
	"talea/internal/store/storetest"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, place string) storetest.Backend { return opened(t, place) })
}

func opened(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// started opens a store in a directory and takes it over.
func started(t testing.TB, dir string) (*Store, int64) {
	t.Helper()
	s := opened(t, dir)
	epoch, _, err := s.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	return s, epoch
}

// TestOneOwner: a second process is turned away and writes nothing; a reader beside the owner is welcome (F025).
func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	s, epoch := started(t, dir)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "in use by another talea process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Append(0, epoch, &ledger.Batch{At: 1, Heads: []ledger.HeadRow{{Org: 1, Seq: 1}}}); err != nil {
		t.Fatal(err)
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if heads, err := r.Heads(); err != nil || len(heads) != 1 {
		t.Errorf("a reader sees %v, %v", heads, err)
	}
	if err := r.Append(0, epoch, &ledger.Batch{At: 2}); err == nil {
		t.Error("a reader has written")
	}
	if _, _, err := r.Start(0); err == nil {
		t.Error("a reader has taken over")
	}
	if err := ledger.Rebuild(r); err == nil {
		t.Error("a reader has rebuilt")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, epoch := started(t, dir); epoch != 2 {
		t.Errorf("epoch %d", epoch)
	}
}

func TestNothingToRead(t *testing.T) {
	if _, err := OpenReader(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("opened in a directory that does not exist")
	}
}

// TestVanishedFile: a file that is deleted or replaced under the program is noticed before anything is acknowledged (F022).
func TestVanishedFile(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"file deleted":  os.Remove,
		"log deleted":   func(path string) error { return os.Remove(path + "-wal") },
		"file replaced": func(path string) error { return replace(path) },
		"log replaced":  func(path string) error { return replace(path + "-wal") },
	} {
		t.Run(name, func(t *testing.T) {
			s, epoch := started(t, t.TempDir())
			if err := s.Append(0, epoch, &ledger.Batch{At: 1}); err != nil {
				t.Fatal(err)
			}
			if err := spoil(s.path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.Append(0, epoch, &ledger.Batch{At: 2}); err == nil {
					t.Error("acknowledged what nobody will find")
				}
			}
		})
	}
}

// replace puts a copy in the place of a file.
func replace(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// TestFullDisk: a batch for which there is no room is not there, the reserve is given free, and with room again the same
// batch is taken, by the same store (F015). What SQLite itself says is tested here; test/disk has real full disks.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	s, epoch := started(t, dir)
	if err := sqlitex.ExecuteTransient(s.writer.Conn, "PRAGMA max_page_count = 20", nil); err != nil {
		t.Fatal(err)
	}
	big := ledger.EntryRow{Org: 1, Seq: 1, Kind: ledger.KindHold, Request: 1, Body: make([]byte, 200_000)}
	if err := s.Reserve(); err != nil || size(t, s.reservePath()) != reserveSize {
		t.Fatalf("no reserve: %v", err)
	}
	for range 2 {
		if err := s.Append(0, epoch, &ledger.Batch{At: 1, Entries: []ledger.EntryRow{big}}); !errors.Is(err, ledger.ErrFull) {
			t.Errorf("error %v", err)
		}
		s.Entries(1, 1, func(ledger.EntryRow) error { t.Error("half a batch is there"); return nil })
	}
	if size(t, s.reservePath()) != 0 {
		t.Error("the reserve was kept")
	}
	if err := sqlitex.ExecuteTransient(s.writer.Conn, "PRAGMA max_page_count = 2000000000", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(0, epoch, &ledger.Batch{At: 1, Entries: []ledger.EntryRow{big}}); err != nil {
		t.Errorf("not taken with room again: %v", err)
	}
	s.Close()
	s, _ = started(t, dir)
	found := 0
	s.Entries(1, 1, func(ledger.EntryRow) error { found++; return nil })
	if found != 1 {
		t.Errorf("%d entries", found)
	}
}

// TestStartEmptiesTheLog: pages that only the kernel's cache may have are written anew at a start (F017).
func TestStartEmptiesTheLog(t *testing.T) {
	dir := t.TempDir()
	s, epoch := started(t, dir)
	for seq := range int64(20) {
		e := ledger.EntryRow{Org: 1, Seq: seq + 1, Kind: ledger.KindHold, Request: 1, Body: make([]byte, 10_000)}
		if err := s.Append(0, epoch, &ledger.Batch{At: 1, Entries: []ledger.EntryRow{e}}); err != nil {
			t.Fatal(err)
		}
	}
	before := size(t, s.path+"-wal")
	if _, _, err := s.Start(0); err != nil {
		t.Fatal(err)
	}
	if after := size(t, s.path+"-wal"); before < 200_000 || after > 20_000 {
		t.Errorf("the log had %d bytes, and has %d", before, after)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestDurable: the settings on which every promise stands. I4.
func TestDurable(t *testing.T) {
	s, _ := started(t, t.TempDir())
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "user_version": "1"} {
		got, err := sqlitex.ResultText(s.writer.Prep("PRAGMA " + pragma))
		if err != nil || got != want {
			t.Errorf("%s is %s, not %s (%v)", pragma, got, want, err)
		}
	}
}

func TestOtherSchemas(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir)
	if err := sqlitex.ExecuteTransient(s.writer.Conn, "PRAGMA user_version = 2", nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	_, err := Open(dir)
	_, readErr := OpenReader(dir)
	for _, err := range []error{err, readErr} {
		if err == nil || !strings.Contains(err.Error(), "written by a newer version of talea (schema 2, this program knows 1)") {
			t.Errorf("error %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte("this is no ledger, and long enough to see"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("opened what is no ledger")
	}
}

// TestDamage: a flipped bit in the file's own structure is found, where no entry shows it.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	s, epoch := started(t, dir)
	for seq := range int64(50) {
		e := ledger.EntryRow{Org: 1, Seq: seq + 1, Kind: ledger.KindHold, Request: 1 << 40, Body: []byte("body")}
		if err := s.Append(0, epoch, &ledger.Batch{At: 1, Entries: []ledger.EntryRow{e}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	var root, pages int64
	conn, err := sqlite.OpenConn(filepath.Join(dir, FileName), sqlite.OpenReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	root, _ = sqlitex.ResultInt64(conn.Prep("SELECT rootpage FROM sqlite_schema WHERE name = 'entry_request'"))
	pages, _ = sqlitex.ResultInt64(conn.Prep("PRAGMA page_size"))
	conn.Close()
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	at := root*pages - 3 // near the end of the index's page, where its first row is
	f.ReadAt(b[:], at)
	b[0] ^= 1
	f.WriteAt(b[:], at)
	f.Close()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	none := func() *ledger.Visitor {
		return &ledger.Visitor{
			Meta: func(int64, int64) error { return nil }, Entry: func(ledger.EntryRow) error { return nil }, Head: func(ledger.HeadRow) error { return nil },
			Balance: func(ledger.BalanceRow) error { return nil }, Usage: func(ledger.UsageRow) error { return nil },
		}
	}
	if err := r.Snapshot(none()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v", err)
	}
}
