// Package export writes what is settled to where other systems take it from: files of charging records, one line of JSON
// for each request. It reads the ledger and changes nothing in it: an export that fails, fills its disk or is slow delays
// itself and nothing else, and takes up again where its own files end.
//
// # Invariants
//
//   - Records are numbered from 1 in each organisation's files, without a gap, in the order in which they were settled.
//   - Each line has the SHA-256 of the line before it, across files: what is changed, removed or reordered shows.
//   - A record is in the files once, whatever was killed or failed when: where the files end is read from the files.
//   - A file is never changed once it has its closing line.
//
// Start reading at Files.Round.
package export

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
)

// Options of New; all but Records are needed.
type Options struct {
	Dir     string
	Ledger  *ledger.Ledger
	Clock   ledger.Clock
	Log     *slog.Logger
	Records int64 // of one file, 0 is 50,000
}

// Files is the export to files of charging records. Round is called by one goroutine; Lag by anybody.
type Files struct {
	Options
	series map[account.ID]*series
	lag    atomic.Int64
	ailing bool
}

// New returns an export that has not looked at its directory yet.
func New(o Options) *Files {
	o.Records = cmp.Or(o.Records, 50_000)
	return &Files{Options: o, series: map[account.ID]*series{}}
}

// pause is how long Run waits between two rounds.
const pause = time.Second

// Run makes a round now and then until ctx ends.
func (f *Files) Run(ctx context.Context) {
	every := time.NewTicker(pause)
	defer every.Stop()
	for {
		err := f.Round()
		if (err != nil) != f.ailing {
			f.ailing = err != nil
			if f.ailing {
				f.Log.Error("charging records are not exported, and will be when this is mended; nothing else is affected", "dir", f.Dir, "behind_entries", f.Lag(), "error", err)
			} else {
				f.Log.Info("charging records are exported again", "dir", f.Dir)
			}
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// Lag is how many entries of the log the newest round has not got to.
func (f *Files) Lag() int64 { return f.lag.Load() }

// Round writes what was settled since the last round. After an error nothing is lost: the next round begins where the
// files end. Its files are on disk when it returns.
func (f *Files) Round() error {
	var errs []error
	lag := int64(0)
	for _, org := range f.Ledger.Organisations() {
		seq := int64(0)
		if err := f.follow(org); err != nil {
			errs = append(errs, err)
		}
		if s := f.series[org]; s != nil {
			seq = s.seq
		}
		lag += f.Ledger.Newest(org) - seq
	}
	f.lag.Store(lag)
	return errors.Join(errs...)
}

// follow brings the files of one organisation up to date.
func (f *Files) follow(org account.ID) error {
	s := f.series[org]
	if s == nil {
		s = &series{dir: filepath.Join(f.Dir, fmt.Sprintf("organisation-%d", org)), most: f.Records, org: org}
		if err := s.resume(); err != nil {
			return fmt.Errorf("cannot go on with the export of organisation %d: %w", org, err)
		}
		f.series[org] = s
	}
	now := f.Clock.Now().UTC()
	seq, err := f.Ledger.SettledAfter(org, s.seq, func(x ledger.Settled) error { return s.add(&x, now) })
	if err == nil {
		err = s.flush(seq)
	}
	if err != nil {
		delete(f.series, org) // what of it is on disk is read back
		return fmt.Errorf("cannot export the records of organisation %d: %w", org, err)
	}
	return nil
}

// series is one organisation's files. What it says of itself is on disk, but for what is pending.
type series struct {
	dir    string
	org    account.ID
	most   int64
	seq    int64    // up to which entry the log was looked at
	number int64    // of the newest record
	last   [32]byte // SHA-256 of the newest line
	file   string   // the open file's path, "" for none
	size   int64    // of it
	first  int64    // number of its first record
	count  int64    // records in it
	opened time.Time

	pending []byte
}

// The lines of a file.
type opening struct {
	Format       string    `json:"format"`
	Organisation int64     `json:"organisation"`
	Opened       time.Time `json:"opened"`
	First        int64     `json:"first_record"`
	Previous     string    `json:"previous_line"` // SHA-256 of the line before, in hexadecimal; of the file before for the first line
}

type recordLine struct {
	Number   int64           `json:"record"`
	Seq      int64           `json:"entry"`      // of the log, that settled it
	Hash     string          `json:"entry_hash"` // in the log's chain
	Data     json.RawMessage `json:"data"`
	Previous string          `json:"previous_line"`
}

type closing struct {
	Closed   time.Time `json:"closed"`
	Reason   string    `json:"reason"` // "size", "day"
	Count    int64     `json:"records"`
	Last     int64     `json:"last_record"`
	Lost     int64     `json:"lost_records"` // always 0: what cannot be written is not passed over
	Previous string    `json:"previous_line"`
}

const format = "talea charging records 1"

// maxPending is how much is written at a time.
const maxPending = 1 << 20

// add puts a record behind the others.
func (s *series) add(x *ledger.Settled, now time.Time) error {
	switch {
	case s.file == "":
	case s.count >= s.most:
		if err := s.close("size", now); err != nil {
			return err
		}
	case !now.Truncate(24 * time.Hour).Equal(s.opened.Truncate(24 * time.Hour)):
		if err := s.close("day", now); err != nil {
			return err
		}
	}
	if s.file == "" {
		if err := s.open(now); err != nil {
			return err
		}
	}
	s.number++
	s.count++
	s.line(recordLine{s.number, x.Seq, hex.EncodeToString(x.Hash[:]), x.Record.AppendJSON(nil), s.previous()})
	if len(s.pending) < maxPending {
		return nil
	}
	return s.flush(x.Seq)
}

func (s *series) previous() string { return hex.EncodeToString(s.last[:]) }

// line appends a line to what is pending.
func (s *series) line(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("export: cannot write a line: " + err.Error()) // records are JSON already, the rest is text and numbers
	}
	s.last = sha256.Sum256(b)
	s.pending = append(append(s.pending, b...), '\n')
}

// open begins a file. It exists from the first flush on.
func (s *series) open(now time.Time) error {
	if err := os.MkdirAll(s.dir, 0o750); err != nil {
		return err
	}
	s.first, s.count, s.size, s.opened = s.number+1, 0, 0, now
	s.file = filepath.Join(s.dir, fmt.Sprintf("%012d%s", s.first, extension))
	s.line(opening{format, int64(s.org), now, s.first, s.previous()})
	return nil
}

const extension = ".ndjson"

// close ends the open file.
func (s *series) close(reason string, now time.Time) error {
	s.line(closing{now, reason, s.count, s.number, 0, s.previous()})
	if err := s.flush(s.seq); err != nil {
		return err
	}
	s.file = ""
	return nil
}

// flush brings what is pending to disk, and notes up to where the log was read.
func (s *series) flush(seq int64) (err error) {
	if len(s.pending) > 0 {
		if err := s.write(); err != nil {
			return err
		}
		s.pending = s.pending[:0]
	}
	s.seq = seq
	return nil
}

func (s *series) write() (err error) {
	file, err := os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	n, err := file.WriteAt(s.pending, s.size)
	if err == nil {
		err = file.Sync()
	}
	if err == nil && s.size == 0 {
		err = syncDir(s.dir)
	}
	if err != nil {
		os.Truncate(s.file, s.size) // should it fail too: lines are cut off where they end when the file is read
		return err
	}
	s.size += int64(n)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// resume reads where the files end. A line that was being written when the process or the disk gave up has no end: it is
// cut off.
func (s *series) resume() error {
	names, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var files []string
	for _, n := range names {
		if strings.HasSuffix(n.Name(), extension) {
			files = append(files, filepath.Join(s.dir, n.Name()))
		}
	}
	slices.Sort(files)
	for i, file := range slices.Backward(files) {
		whole, err := s.read(file)
		if err != nil {
			return err
		}
		if whole || i == 0 {
			return nil
		}
		if err := os.Remove(file); err != nil { // it has no line: it was just being begun
			return err
		}
	}
	return nil
}

// read takes over the state that a file ends with. It reports whether the file has a line.
func (s *series) read(file string) (bool, error) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return false, cmp.Or(err, fmt.Errorf("%s is no regular file", file))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	if end < len(text) {
		if err := os.Truncate(file, int64(end)); err != nil {
			return false, err
		}
	}
	if end == 0 {
		s.file, s.size = "", 0
		return false, nil
	}
	lines := bytes.Split(text[:end-1], []byte("\n"))
	var first opening
	if err := json.Unmarshal(lines[0], &first); err != nil || first.Format != format || first.Organisation != int64(s.org) {
		return false, fmt.Errorf("%s is no file of this export", file)
	}
	s.file, s.size, s.opened = file, int64(end), first.Opened
	s.first, s.number, s.count = first.First, first.First-1, 0
	for _, line := range lines[1:] {
		var both struct {
			recordLine
			Closed *time.Time `json:"closed"`
		}
		if err := json.Unmarshal(line, &both); err != nil {
			return false, fmt.Errorf("%s has a line that is no JSON: %w", file, err)
		}
		if both.Closed != nil {
			s.file = ""
			break
		}
		s.number, s.seq = both.Number, both.Seq
		s.count++
	}
	s.last = sha256.Sum256(lines[len(lines)-1])
	if s.count == 0 && s.file != "" {
		return true, s.before(file)
	}
	return true, nil
}

// before finds the newest entry in the file before one that has no record yet.
func (s *series) before(file string) error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+extension))
	if err != nil {
		return err
	}
	slices.Sort(names)
	i := slices.Index(names, file)
	if i < 1 {
		return nil
	}
	older := series{dir: s.dir, org: s.org}
	if _, err := older.read(names[i-1]); err != nil {
		return err
	}
	s.seq = older.seq
	return nil
}
