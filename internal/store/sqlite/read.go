package sqlite

import (
	"context"
	"fmt"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/usage"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// query runs one statement on a reader's connection, in one snapshot, and visits its rows.
func (s *Store) query(sql string, args []any, visit func(*sqlite.Stmt) error) error {
	conn, err := s.pool.Take(context.Background())
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", s.path, err)
	}
	defer s.pool.Put(conn)
	return sqlitex.Execute(conn, sql, &sqlitex.ExecOptions{Args: args, ResultFunc: visit})
}

func columnBytes(stmt *sqlite.Stmt, col int) []byte {
	b := make([]byte, stmt.ColumnLen(col))
	stmt.ColumnBytes(col, b)
	return b
}

func columnHash(stmt *sqlite.Stmt, col int) (h ledger.Hash, err error) {
	if stmt.ColumnLen(col) != len(h) {
		return h, fmt.Errorf("a hash of %d bytes", stmt.ColumnLen(col))
	}
	stmt.ColumnBytes(col, h[:])
	return h, nil
}

const entryColumns = "id, kind, ifnull(request, 0), hash, body, ifnull(idempotency, '')"

func visitEntry(visit func(ledger.EntryRow) error) func(*sqlite.Stmt) error {
	return func(stmt *sqlite.Stmt) error {
		id := stmt.ColumnInt64(0)
		hash, err := columnHash(stmt, 3)
		if err != nil {
			return fmt.Errorf("entry %d of organisation %d: %w", id&(1<<seqBits-1), id>>seqBits, err)
		}
		return visit(ledger.EntryRow{
			Org: account.ID(id >> seqBits), Seq: id & (1<<seqBits - 1),
			Kind: ledger.Kind(stmt.ColumnInt64(1)), Request: usage.ID(stmt.ColumnInt64(2)),
			Hash: hash, Body: columnBytes(stmt, 4), Idempotency: stmt.ColumnText(5),
		})
	}
}

// The columns that the visitors below read.
const (
	headColumns    = "org, seq, hash, open_from"
	balanceColumns = "org, lim, period, used, held"
	usageColumns   = "org, subject, bucket, requests, voided, input_uncached, input_cache_read, input_cache_write, output_content, output_reasoning, image, audio_second, character, request, work_ms, token_hour, charge"
	objectColumns  = "kind, name, id, managed_by, body"
)

func visitHead(visit func(ledger.HeadRow) error) func(*sqlite.Stmt) error {
	return func(stmt *sqlite.Stmt) error {
		org := account.ID(stmt.ColumnInt64(0))
		hash, err := columnHash(stmt, 2)
		if err != nil {
			return fmt.Errorf("head of organisation %d: %w", org, err)
		}
		return visit(ledger.HeadRow{Org: org, Seq: stmt.ColumnInt64(1), Hash: hash, OpenFrom: stmt.ColumnInt64(3)})
	}
}

func visitBalance(visit func(ledger.BalanceRow) error) func(*sqlite.Stmt) error {
	return func(stmt *sqlite.Stmt) (err error) {
		r := ledger.BalanceRow{Org: account.ID(stmt.ColumnInt64(0)), Limit: stmt.ColumnInt64(1), Period: stmt.ColumnInt64(2)}
		if r.Used, err = columnAmount(stmt, 3); err != nil {
			return err
		}
		if r.Held, err = columnAmount(stmt, 4); err != nil {
			return err
		}
		return visit(r)
	}
}

func visitUsage(visit func(ledger.UsageRow) error) func(*sqlite.Stmt) error {
	return func(stmt *sqlite.Stmt) error {
		r, err := scanUsage(stmt)
		if err != nil {
			return err
		}
		return visit(r)
	}
}

func scanUsage(stmt *sqlite.Stmt) (r ledger.UsageRow, err error) {
	r.Org, r.Subject, r.Bucket = account.ID(stmt.ColumnInt64(0)), stmt.ColumnInt64(1), stmt.ColumnInt64(2)
	r.Requests, r.Voided = stmt.ColumnInt64(3), stmt.ColumnInt64(4)
	for m := range usage.NumMeters {
		r.Counts[m] = stmt.ColumnInt64(5 + int(m))
	}
	r.Charge, err = columnAmount(stmt, 5+int(usage.NumMeters))
	return r, err
}

// Heads implements ledger.Store.
func (s *Store) Heads() (out []ledger.HeadRow, err error) {
	err = s.query("SELECT "+headColumns+" FROM head ORDER BY org", nil, visitHead(func(r ledger.HeadRow) error {
		out = append(out, r)
		return nil
	}))
	return out, err
}

// Balances implements ledger.Store.
func (s *Store) Balances(org account.ID, periods []int64) (out []ledger.BalanceRow, err error) {
	wanted := make(map[int64]bool, len(periods))
	for _, p := range periods {
		wanted[p] = true
	}
	err = s.query("SELECT "+balanceColumns+" FROM balance WHERE org = ? ORDER BY lim, period", []any{int64(org)}, visitBalance(func(r ledger.BalanceRow) error {
		if wanted[r.Period] {
			out = append(out, r)
		}
		return nil
	}))
	return out, err
}

// Definitions implements ledger.Store.
func (s *Store) Definitions(visit func(ledger.EntryRow) error) error {
	return s.query("SELECT "+entryColumns+" FROM entry WHERE kind < 16 ORDER BY id", nil, visitEntry(visit))
}

// Entries implements ledger.Store.
func (s *Store) Entries(org account.ID, from int64, visit func(ledger.EntryRow) error) error {
	first := int64(org)<<seqBits | from
	last := (int64(org)+1)<<seqBits - 1
	return s.query("SELECT "+entryColumns+" FROM entry WHERE id BETWEEN ? AND ? ORDER BY id", []any{first, last}, visitEntry(visit))
}

// ByRequest implements ledger.Store.
func (s *Store) ByRequest(id usage.ID, visit func(ledger.EntryRow) error) error {
	return s.query("SELECT "+entryColumns+" FROM entry WHERE request = ? ORDER BY id", []any{int64(id)}, visitEntry(visit))
}

// ByIdempotency implements ledger.Store.
func (s *Store) ByIdempotency(key string) (id usage.ID, err error) {
	const sql = "SELECT request FROM entry WHERE idempotency = ? ORDER BY id DESC LIMIT 1"
	err = s.query(sql, []any{key}, func(stmt *sqlite.Stmt) error {
		id = usage.ID(stmt.ColumnInt64(0))
		return nil
	})
	return id, err
}

// Usage implements ledger.Store.
func (s *Store) Usage(org account.ID, from, to int64, visit func(ledger.UsageRow) error) error {
	const sql = "SELECT " + usageColumns + " FROM usage WHERE (?1 = 0 OR org = ?1) AND bucket >= ?2 AND bucket < ?3 ORDER BY org, subject, bucket"
	return s.query(sql, []any{int64(org), from, to}, visitUsage(visit))
}

// Refusal implements ledger.Store.
func (s *Store) Refusal(id usage.ID) (body []byte, err error) {
	err = s.query("SELECT body FROM refusal WHERE request = ? ORDER BY slot", []any{int64(id)}, func(stmt *sqlite.Stmt) error {
		body = columnBytes(stmt, 0)
		return nil
	})
	return body, err
}

// Objects implements ledger.Store.
func (s *Store) Objects() (out []ledger.Object, err error) {
	err = s.query("SELECT "+objectColumns+" FROM object ORDER BY kind, name", nil, func(stmt *sqlite.Stmt) error {
		o := ledger.Object{Kind: stmt.ColumnText(0), Name: stmt.ColumnText(1), ID: stmt.ColumnInt64(2), ManagedBy: stmt.ColumnText(3)}
		if !stmt.ColumnIsNull(4) {
			o.Body = columnBytes(stmt, 4)
		}
		out = append(out, o)
		return nil
	})
	return out, err
}
