package sqlite

import (
	"fmt"

	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/usage"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// seqBits is the width of a sequence number in an entry's id.
const seqBits = 40

// writer is the connection that writes, with its statements kept ready. One goroutine uses it at a time.
type writer struct {
	*sqlite.Conn
	begin, commit, rollback             *sqlite.Stmt
	fence, entry, keyed, head, balance  *sqlite.Stmt
	oldUsage, usage, refusal, putObject *sqlite.Stmt
}

func newWriter(conn *sqlite.Conn) (*writer, error) {
	w := &writer{Conn: conn}
	for _, s := range []struct {
		stmt **sqlite.Stmt
		sql  string
	}{
		{&w.begin, "BEGIN IMMEDIATE"},
		{&w.commit, "COMMIT"},
		{&w.rollback, "ROLLBACK"},
		{&w.fence, "UPDATE meta SET value = ?1 WHERE key = 'last_at' AND ?2 = (SELECT value FROM meta WHERE key = 'epoch')"},
		{&w.entry, "INSERT INTO entry(id, kind, request, hash, body) VALUES (?, ?, nullif(?, 0), ?, ?)"},
		{&w.keyed, "INSERT INTO entry(id, kind, request, hash, body, idempotency) VALUES (?, ?, nullif(?, 0), ?, ?, ?)"},
		{&w.head, "INSERT OR REPLACE INTO head(" + headColumns + ") VALUES (?, ?, ?, ?)"},
		{&w.balance, "INSERT OR REPLACE INTO balance(" + balanceColumns + ") VALUES (?, ?, ?, ?, ?)"},
		{&w.oldUsage, "SELECT " + usageColumns + " FROM usage WHERE org = ? AND subject = ? AND bucket = ?"},
		{&w.usage, "INSERT OR REPLACE INTO usage(" + usageColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
		{&w.refusal, "INSERT OR REPLACE INTO refusal(slot, request, body) VALUES (?, ?, ?)"},
		{&w.putObject, "INSERT OR REPLACE INTO object(" + objectColumns + ") VALUES (?, ?, ?, ?, ?)"},
	} {
		stmt, err := conn.Prepare(s.sql)
		if err != nil {
			return nil, err
		}
		*s.stmt = stmt
	}
	return w, nil
}

// transact runs f in one transaction. After an error nothing is known about it.
func (w *writer) transact(f func() error) error {
	if err := done(w.begin); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = done(w.commit)
	}
	if err != nil && !w.AutocommitEnabled() {
		done(w.rollback) // should it fail too, the file's next owner rolls back
	}
	return err
}

// done runs a statement that returns no rows.
func done(stmt *sqlite.Stmt) error {
	_, err := stmt.Step()
	if resetErr := stmt.Reset(); err == nil {
		err = resetErr
	}
	return err
}

// Start implements ledger.Store.
func (s *Store) Start(shard int64) (epoch, lastAt int64, err error) {
	if shard != 0 {
		return 0, 0, fmt.Errorf("the embedded store is home of shard 0 only, not of %d", shard)
	}
	if s.failed != nil {
		return 0, 0, s.failed
	}
	if epoch, lastAt, err = s.begin(); s.withoutRoom(err) { // the reserve of the run before is there for this
		s.release()
		epoch, lastAt, err = s.begin()
	}
	if err == nil {
		s.inodes, err = inodesOf(s.path)
	}
	return epoch, lastAt, err
}

// begin empties the log and begins the next epoch.
func (s *Store) begin() (epoch, lastAt int64, err error) {
	if err := s.settleLog(); err != nil {
		return 0, 0, err
	}
	err = s.writer.transact(func() error {
		if err := sqlitex.Execute(s.writer.Conn, "UPDATE meta SET value = value + 1 WHERE key = 'epoch'", nil); err != nil {
			return err
		}
		for key, value := range map[string]*int64{"epoch": &epoch, "last_at": &lastAt} {
			stmt := s.writer.Prep("SELECT value FROM meta WHERE key = ?")
			stmt.BindText(1, key)
			if *value, err = sqlitex.ResultInt64(stmt); err != nil {
				return err
			}
		}
		return nil
	})
	return epoch, lastAt, err
}

// settleLog brings the whole write-ahead log into the file and empties it. Pages that are in the kernel's cache after a
// failed fsync are not on disk, and no later fsync says so: only writing them anew does.
func (s *Store) settleLog() error {
	busy := true
	err := sqlitex.ExecuteTransient(s.writer.Conn, "PRAGMA wal_checkpoint(TRUNCATE)", &sqlitex.ExecOptions{ResultFunc: func(stmt *sqlite.Stmt) error {
		busy = stmt.ColumnInt64(0) != 0
		return nil
	}})
	if err == nil && busy {
		err = fmt.Errorf("another program has been reading it for %s: end that first", busyTimeout)
	}
	return err
}

// Append implements ledger.Store.
func (s *Store) Append(shard, epoch int64, b *ledger.Batch) error {
	if s.failed != nil {
		return s.failed
	}
	err := s.present()
	if err == nil {
		err = s.writer.transact(func() error { return s.append(epoch, b) })
	}
	if s.withoutRoom(err) {
		s.release()
		return fmt.Errorf("cannot commit to %s: %w: %v", s.path, ledger.ErrFull, err)
	}
	if err != nil {
		// Whether the transaction reached the disk is not known, and a second fsync would say yes to anything.
		s.failed = fmt.Errorf("cannot commit to %s: %w", s.path, err)
	}
	return s.failed
}

// present says whether the file and its log are still those that were opened: writing to deleted files does not fail.
func (s *Store) present() error {
	inodes, err := inodesOf(s.path)
	if err == nil && inodes != s.inodes {
		err = fmt.Errorf("the file or its -wal was replaced while the program ran")
	}
	return err
}

func (s *Store) append(epoch int64, b *ledger.Batch) error {
	w := s.writer
	w.fence.BindInt64(1, b.At)
	w.fence.BindInt64(2, epoch)
	if err := done(w.fence); err != nil {
		return err
	}
	if w.Changes() != 1 {
		return fmt.Errorf("epoch %d is over: another owner has begun a newer one", epoch)
	}
	for i := range b.Entries {
		if err := w.insertEntry(&b.Entries[i]); err != nil {
			return err
		}
	}
	for _, step := range [...]func(*ledger.Batch) error{w.putHeads, w.putBalances, w.addUsage, w.putRefusals, w.putObjects} {
		if err := step(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) insertEntry(e *ledger.EntryRow) error {
	if e.Seq >= 1<<seqBits || int64(e.Org) >= 1<<(63-seqBits) {
		return fmt.Errorf("entry %d of organisation %d is beyond what an id can name", e.Seq, e.Org)
	}
	stmt := w.entry
	if e.Idempotency != "" {
		stmt = w.keyed
		stmt.BindText(6, e.Idempotency)
	}
	stmt.BindInt64(1, int64(e.Org)<<seqBits|e.Seq)
	stmt.BindInt64(2, int64(e.Kind))
	stmt.BindInt64(3, int64(e.Request))
	stmt.BindBytes(4, e.Hash[:])
	stmt.BindBytes(5, e.Body)
	return done(stmt)
}

func (w *writer) putHeads(b *ledger.Batch) error {
	for i := range b.Heads {
		h := &b.Heads[i]
		w.head.BindInt64(1, int64(h.Org))
		w.head.BindInt64(2, h.Seq)
		w.head.BindBytes(3, h.Hash[:])
		w.head.BindInt64(4, h.OpenFrom)
		if err := done(w.head); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putBalances(b *ledger.Batch) error {
	var used, held [16]byte
	for i := range b.Balances {
		r := &b.Balances[i]
		w.balance.BindInt64(1, int64(r.Org))
		w.balance.BindInt64(2, r.Limit)
		w.balance.BindInt64(3, r.Period)
		w.balance.BindBytes(4, r.Used.AppendBinary(used[:0]))
		w.balance.BindBytes(5, r.Held.AppendBinary(held[:0]))
		if err := done(w.balance); err != nil {
			return err
		}
	}
	return nil
}

// addUsage adds the batch's sums to the rows that are there.
func (w *writer) addUsage(b *ledger.Batch) error {
	var charge [16]byte
	for i := range b.Usage {
		r := b.Usage[i]
		if err := w.sumUsage(&r); err != nil {
			return err
		}
		w.usage.BindInt64(1, int64(r.Org))
		w.usage.BindInt64(2, r.Subject)
		w.usage.BindInt64(3, r.Bucket)
		w.usage.BindInt64(4, r.Requests)
		w.usage.BindInt64(5, r.Voided)
		for m := range usage.NumMeters {
			w.usage.BindInt64(6+int(m), r.Counts[m])
		}
		w.usage.BindBytes(6+int(usage.NumMeters), r.Charge.AppendBinary(charge[:0]))
		if err := done(w.usage); err != nil {
			return err
		}
	}
	return nil
}

// sumUsage adds the stored row of the same key, if there is one, to r.
func (w *writer) sumUsage(r *ledger.UsageRow) error {
	w.oldUsage.BindInt64(1, int64(r.Org))
	w.oldUsage.BindInt64(2, r.Subject)
	w.oldUsage.BindInt64(3, r.Bucket)
	found, err := w.oldUsage.Step()
	if err == nil && found {
		var old ledger.UsageRow
		if old, err = scanUsage(w.oldUsage); err == nil {
			addUsage(r, &old)
		}
	}
	if resetErr := w.oldUsage.Reset(); err == nil {
		err = resetErr
	}
	return err
}

func addUsage(r, old *ledger.UsageRow) {
	r.Requests += old.Requests
	r.Voided += old.Voided
	for m := range r.Counts {
		r.Counts[m] += old.Counts[m]
	}
	r.Charge = r.Charge.Add(old.Charge)
}

func (w *writer) putRefusals(b *ledger.Batch) error {
	for i := range b.Refusals {
		r := &b.Refusals[i]
		w.refusal.BindInt64(1, r.Slot)
		w.refusal.BindInt64(2, int64(r.Request))
		w.refusal.BindBytes(3, r.Body)
		if err := done(w.refusal); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) putObjects(b *ledger.Batch) error {
	for i := range b.Objects {
		o := &b.Objects[i]
		w.putObject.BindText(1, o.Kind)
		w.putObject.BindText(2, o.Name)
		w.putObject.BindInt64(3, o.ID)
		w.putObject.BindText(4, o.ManagedBy)
		if o.Body != nil {
			w.putObject.BindBytes(5, o.Body)
		} else {
			w.putObject.BindNull(5)
		}
		if err := done(w.putObject); err != nil {
			return err
		}
	}
	return nil
}

func columnAmount(stmt *sqlite.Stmt, col int) (money.Amount, error) {
	var b [16]byte
	if stmt.ColumnLen(col) != len(b) {
		return money.Amount{}, fmt.Errorf("column %s is %d bytes long, not 16", stmt.ColumnName(col), stmt.ColumnLen(col))
	}
	stmt.ColumnBytes(col, b[:])
	return money.AmountFromBinary(b[:])
}
