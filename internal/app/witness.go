package app

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/cli"
	"talea/internal/ledger"
	"talea/internal/store/sqlite"
)

// witnessPause is how often the witness is brought up to date.
const witnessPause = 5 * time.Second

// witnessFile is the form of the witness: who restores an old data directory, or makes a new one, does not restore it too.
type witnessFile struct {
	At    time.Time     `json:"at"`
	Heads []witnessHead `json:"heads"`
}

type witnessHead struct {
	Organisation int64  `json:"organisation"`
	Entry        int64  `json:"entry"`
	Hash         string `json:"hash"` // of the entry, hexadecimal
}

// witnessPath is where the witness is: beside the data directory where nothing else is said.
func (c *Config) witnessPath() (string, error) {
	if c.Witness != "" {
		return c.Witness, nil
	}
	dir, err := filepath.Abs(c.Data)
	if err != nil {
		return "", fmt.Errorf("cannot find the data directory: %w", err)
	}
	return dir + ".witness", nil
}

// rollback reads the names of those who accept one.
func (c *Config) rollback() (*ledger.Rollback, error) {
	if c.AcceptRollback == "" {
		return nil, nil
	}
	first, second, _ := strings.Cut(c.AcceptRollback, ",")
	first, second = strings.TrimSpace(first), strings.TrimSpace(second)
	if first == "" || second == "" || strings.Contains(second, ",") || strings.EqualFold(first, second) {
		return nil, cli.UsageError("--accept-rollback takes the names of two people, such as --accept-rollback anna,ben: both are written into the log")
	}
	return &ledger.Rollback{First: first, Second: second}, nil
}

// readWitness reads what was seen of the ledger; nil where there is no witness yet.
func readWitness(path string) (*ledger.Witness, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the witness: %w", err)
	}
	var f witnessFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&f)
	if err == nil && d.Decode(new(any)) != io.EOF {
		err = errors.New("there is more than one value")
	}
	w := &ledger.Witness{At: f.At}
	for _, h := range f.Heads {
		row := ledger.HeadRow{Org: account.ID(h.Organisation), Seq: h.Entry}
		n, hexErr := hex.Decode(row.Hash[:], []byte(h.Hash[:min(len(h.Hash), 2*len(row.Hash))]))
		if hexErr != nil || n != len(row.Hash) || len(h.Hash) != 2*n || row.Org < 0 || row.Seq <= 0 {
			err = errors.Join(err, fmt.Errorf("the head of organisation %d cannot be read", h.Organisation))
		}
		w.Heads = append(w.Heads, row)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the witness %s: %w; put it back from a copy, or remove it if you know that the ledger is the newest", path, err)
	}
	return w, nil
}

// witness reads the witness before the ledger is opened: a ledger that is missing is not made anew where one was seen.
func (s *server) readWitness() (*ledger.Witness, *ledger.Rollback, error) {
	path, err := s.witnessPath()
	if err != nil {
		return nil, nil, err
	}
	accepted, err := s.rollback()
	if err != nil {
		return nil, nil, err
	}
	w, err := readWitness(path)
	if err != nil || w == nil {
		return nil, nil, err
	}
	s.witnessed = *w
	_, err = os.Stat(filepath.Join(s.Data, sqlite.FileName))
	if errors.Is(err, fs.ErrNotExist) && len(w.Heads) > 0 && accepted == nil {
		lost := &ledger.RollbackError{At: w.At}
		for _, h := range w.Heads {
			lost.Lost = append(lost.Lost, ledger.Loss{Witnessed: h})
		}
		return nil, nil, fmt.Errorf("there is no ledger in %s, and none is made: %w", s.Data, lost)
	}
	return w, accepted, nil
}

// bearWitness writes down where the logs stand, if that has changed.
func (s *server) bearWitness() error {
	heads, err := s.store.Heads()
	if err != nil {
		return fmt.Errorf("cannot read where the logs stand: %w", err)
	}
	for i := range heads {
		heads[i].OpenFrom = 0
	}
	path, err := s.witnessPath()
	if err != nil {
		return err
	}
	_, missing := os.Stat(path)
	if missing == nil && reflect.DeepEqual(heads, s.witnessed.Heads) {
		return nil
	}
	f := witnessFile{At: s.Clock.Now().UTC().Truncate(time.Second), Heads: []witnessHead{}}
	for _, h := range heads {
		f.Heads = append(f.Heads, witnessHead{int64(h.Org), h.Seq, hex.EncodeToString(h.Hash[:])})
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("cannot write the witness: %w", err)
	}
	if err := writeNew(path, append(b, '\n')); err != nil {
		return err
	}
	s.witnessed.Heads = heads
	return nil
}

// firstWitness brings the witness up to date at the start. Where somebody said where it is to be, it must be there.
func (s *server) firstWitness() error {
	err := s.bearWitness()
	if err != nil && s.Witness != "" {
		return fmt.Errorf("cannot keep the witness that --witness names: %w", err)
	}
	if err != nil {
		s.Log.Warn("an old or new ledger in the place of this one will not be noticed: say with --witness where to keep what was seen of it", "error", err)
		s.unwitnessed = true
	}
	return nil
}

// goOnWitnessing brings the witness up to date while the server runs, and at its end.
func (s *server) goOnWitnessing() {
	if s.unwitnessed || !s.witnessing.TryLock() {
		return // the look before this one hangs on its disk
	}
	defer s.witnessing.Unlock()
	if err := s.bearWitness(); err != nil {
		s.Log.Warn("cannot bring the witness up to date", "error", err)
	}
}
