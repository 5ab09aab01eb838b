package sqlite

import (
	"context"
	"errors"
	"fmt"

	"talea/internal/ledger"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Snapshot implements ledger.Reader: everything in one read transaction, and at the end the file's own structure.
func (s *Store) Snapshot(v *ledger.Visitor) (err error) {
	conn, err := s.pool.Take(context.Background())
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.path, err)
	}
	defer s.pool.Put(conn)
	defer sqlitex.Transaction(conn)(&err)
	if err := snapshot(conn, v); err != nil {
		return err
	}
	return sqlitex.Execute(conn, "PRAGMA integrity_check(1)", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		if said := stmt.ColumnText(0); said != "ok" {
			return fmt.Errorf("the file %s is damaged: %s", s.path, said)
		}
		return nil
	}})
}

func snapshot(conn *sqlite.Conn, v *ledger.Visitor) error {
	meta := map[string]int64{}
	for _, part := range []struct {
		sql   string
		visit func(*sqlite.Stmt) error
	}{
		{"SELECT key, value FROM meta", func(stmt *sqlite.Stmt) error {
			meta[stmt.ColumnText(0)] = stmt.ColumnInt64(1)
			return nil
		}},
		{"SELECT 1", func(*sqlite.Stmt) error { return v.Meta(meta["epoch"], meta["last_at"]) }},
		{"SELECT " + entryColumns + " FROM entry ORDER BY id", visitEntry(v.Entry)},
		{"SELECT " + headColumns + " FROM head ORDER BY org", visitHead(v.Head)},
		{"SELECT " + balanceColumns + " FROM balance ORDER BY org, lim, period", visitBalance(v.Balance)},
		{"SELECT " + usageColumns + " FROM usage ORDER BY org, subject, bucket", visitUsage(v.Usage)},
	} {
		if err := sqlitex.Execute(conn, part.sql, &sqlitex.ExecOptions{ResultFunc: part.visit}); err != nil {
			return err
		}
	}
	return nil
}

// Derive implements ledger.Rebuilder.
func (s *Store) Derive(fold func(entries func(visit func(ledger.EntryRow) error) error) (*ledger.Batch, error)) error {
	if s.writer == nil {
		return errors.New("cannot rebuild: opened for reading only")
	}
	if s.failed != nil {
		return s.failed
	}
	err := s.writer.transact(func() error {
		b, err := fold(func(visit func(ledger.EntryRow) error) error {
			return sqlitex.Execute(s.writer.Conn, "SELECT "+entryColumns+" FROM entry ORDER BY id", &sqlitex.ExecOptions{ResultFunc: visitEntry(visit)})
		})
		if err != nil {
			return err
		}
		if err := sqlitex.ExecuteScript(s.writer.Conn, "DELETE FROM head; DELETE FROM balance; DELETE FROM usage;", nil); err != nil {
			return err
		}
		for _, step := range []func(*ledger.Batch) error{s.writer.putHeads, s.writer.putBalances, s.writer.addUsage} {
			if err := step(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot rebuild %s: %w", s.path, err)
	}
	return nil
}
