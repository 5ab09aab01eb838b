package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// copyPages is how many pages are copied between two words to progress.
const copyPages = 256

// Copy makes a copy of the file as it is at one instant, while it is written to. It is on disk when Copy returns; the file
// must not exist. progress is told after each step; it may be nil.
func (s *Store) Copy(to string, progress func(done, all int)) (err error) {
	conn, err := s.pool.Take(context.Background())
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.path, err)
	}
	defer s.pool.Put(conn)
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make the copy: %w", err)
	}
	defer f.Close()
	into, err := sqlite.OpenConn(to, sqlite.OpenReadWrite)
	if err != nil {
		return fmt.Errorf("cannot make the copy: %w", err)
	}
	if err := copyInto(into, conn, progress); err != nil {
		into.Close()
		return fmt.Errorf("cannot copy %s: %w", s.path, err)
	}
	if err := errors.Join(into.Close(), f.Sync()); err != nil {
		return fmt.Errorf("cannot make the copy durable: %w", err)
	}
	return nil
}

func copyInto(into, conn *sqlite.Conn, progress func(done, all int)) (err error) {
	defer sqlitex.Transaction(conn)(&err) // one snapshot for all steps: else each commit begins the copy anew
	if _, err := sqlitex.ResultInt64(conn.Prep("SELECT count(*) FROM meta")); err != nil {
		return err
	}
	b, err := sqlite.NewBackup(into, "main", conn, "main")
	if err != nil {
		return err
	}
	defer b.Close()
	for more := true; more; {
		if more, err = b.Step(copyPages); err != nil {
			return err
		}
		if progress != nil {
			progress(b.PageCount()-b.Remaining(), b.PageCount())
		}
	}
	return nil
}
