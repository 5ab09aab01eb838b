// Package sqlite keeps a ledger in one SQLite file. It decides nothing: what is written together is decided in package
// ledger, and this package makes it one durable transaction.
//
// # Invariants
//
//   - Append returns without an error only when the transaction is on disk (WAL, synchronous=FULL).
//   - A failed Append is never repeated: the store refuses every later one. Only one that found no room has not failed.
//   - One process owns a directory: a second one is refused by a lock on it.
//   - Entries are only ever inserted.
//   - A file that was deleted or replaced under the running program is noticed before the next commit.
//
// Start reading at Open, then Append.
package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// schemaVersion is the version of the tables. A program refuses a file of a newer one.
const schemaVersion = 1

// FileName is the ledger's file in the data directory.
const FileName = "talea.db"

const schema = `
CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The log. id = organisation << 40 | seq, so that one organisation's entries lie together and in order.
CREATE TABLE entry(
  id INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  request INTEGER,
  hash BLOB NOT NULL,
  body BLOB NOT NULL,
  idempotency TEXT
) STRICT;
CREATE INDEX entry_request ON entry(request) WHERE request IS NOT NULL;
CREATE INDEX entry_idempotency ON entry(idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX entry_definition ON entry(id) WHERE kind < 16;

-- What derives from the log. Amounts are 16 bytes, two's complement, big-endian, femto-units (or single units).
CREATE TABLE head(org INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash BLOB NOT NULL, open_from INTEGER NOT NULL) STRICT;
CREATE TABLE balance(
  org INTEGER NOT NULL, lim INTEGER NOT NULL, period INTEGER NOT NULL,
  used BLOB NOT NULL, held BLOB NOT NULL,
  PRIMARY KEY(org, lim, period)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage(
  org INTEGER NOT NULL, subject INTEGER NOT NULL, bucket INTEGER NOT NULL,
  requests INTEGER NOT NULL, voided INTEGER NOT NULL,
  input_uncached INTEGER NOT NULL, input_cache_read INTEGER NOT NULL, input_cache_write INTEGER NOT NULL,
  output_content INTEGER NOT NULL, output_reasoning INTEGER NOT NULL,
  image INTEGER NOT NULL, audio_second INTEGER NOT NULL, character INTEGER NOT NULL,
  request INTEGER NOT NULL, work_ms INTEGER NOT NULL, token_hour INTEGER NOT NULL,
  charge BLOB NOT NULL,
  PRIMARY KEY(org, subject, bucket)
) STRICT, WITHOUT ROWID;

-- What is in no chain: refusals (a ring), and the world's objects.
CREATE TABLE refusal(slot INTEGER PRIMARY KEY, request INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX refusal_request ON refusal(request);
CREATE TABLE object(
  kind TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, managed_by TEXT NOT NULL, body BLOB,
  PRIMARY KEY(kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO meta(key, value) VALUES ('epoch', 0), ('last_at', 0);
`

// Store is the ledger's file, opened by the one process that owns it.
type Store struct {
	path   string
	lock   *os.File
	inodes [2]uint64     // of the file and its log
	pool   *sqlitex.Pool // readers
	writer *writer       // nil in a store opened for reading only
	failed error

	closing sync.Once
}

// Open opens or creates the ledger in a directory, and takes the directory for this process. The directory must exist.
func Open(dir string) (*Store, error) {
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Store{path: filepath.Join(dir, FileName), lock: lock}
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot open %s: %w", s.path, err)
	}
	return s, nil
}

// OpenReader opens an existing ledger for reading only, beside the process that owns it or without one.
func OpenReader(dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, FileName)}
	if _, err := os.Stat(s.path); err != nil {
		return nil, fmt.Errorf("cannot read the ledger: %w", err)
	}
	s.failed = errors.New("opened for reading only")
	err := s.openReaders()
	if err == nil {
		err = s.query("PRAGMA user_version", nil, func(stmt *sqlite.Stmt) error { return checkSchema(stmt.ColumnInt64(0)) })
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot read %s: %w", s.path, err)
	}
	return s, nil
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make the lock of the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another talea process", filepath.Dir(path))
	}
	return f, nil
}

func (s *Store) open() (err error) {
	keepMemory()
	conn, err := sqlite.OpenConn(s.path, sqlite.OpenReadWrite|sqlite.OpenCreate|sqlite.OpenWAL)
	if err != nil {
		return err
	}
	defer func() {
		if s.writer == nil {
			conn.Close()
		}
	}()
	conn.SetBusyTimeout(busyTimeout)
	for _, pragma := range []string{"synchronous = FULL", "wal_autocheckpoint = 4000", "cache_size = -16000", "temp_store = MEMORY"} {
		if err := sqlitex.ExecuteTransient(conn, "PRAGMA "+pragma, nil); err != nil {
			return err
		}
	}
	if err := migrate(conn); err != nil {
		return err
	}
	if s.writer, err = newWriter(conn); err != nil {
		return err
	}
	return s.openReaders()
}

// busyTimeout is how long readers may hold back the emptying of the log at a start. Nothing else waits for readers.
const busyTimeout = 10 * time.Second

func migrate(conn *sqlite.Conn) error {
	version, err := sqlitex.ResultInt64(conn.Prep("PRAGMA user_version"))
	if err != nil {
		return err
	}
	if version > 0 {
		return checkSchema(version)
	}
	return sqlitex.ExecuteScript(conn, fmt.Sprintf("%s; PRAGMA user_version = %d;", schema, schemaVersion), nil)
}

func checkSchema(version int64) error {
	if version > schemaVersion {
		return fmt.Errorf("it was written by a newer version of talea (schema %d, this program knows %d)", version, schemaVersion)
	}
	return nil
}

func (s *Store) openReaders() (err error) {
	s.pool, err = sqlitex.NewPool(s.path, sqlitex.PoolOptions{Flags: sqlite.OpenReadOnly, PoolSize: 4})
	return err
}

// Close lets the directory go.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		if s.pool != nil {
			err = s.pool.Close()
		}
		if s.writer != nil {
			err = errors.Join(err, s.writer.Close())
		}
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
	})
	return err
}

// inodesOf identifies the file and its log.
func inodesOf(path string) (inodes [2]uint64, err error) {
	for i, name := range [...]string{path, path + "-wal"} {
		var st syscall.Stat_t
		if err := syscall.Stat(name, &st); err != nil {
			return inodes, fmt.Errorf("cannot find %s: %w", name, err)
		}
		inodes[i] = st.Ino
	}
	return inodes, nil
}
