package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Witness is what somebody outside the data directory has seen of the ledger: where each organisation's log stood. Logs
// only grow, so a ledger in which an entry that was seen is missing, or is another one, is not the one that it was.
type Witness struct {
	At    time.Time // when it was seen
	Heads []HeadRow // OpenFrom is not used
}

// Rollback accepts that the ledger is not the one that was witnessed. It needs two people, and is an entry of every log in
// which something is missing.
type Rollback struct{ First, Second string }

// RollbackError says that a ledger is older than its witness, or another one.
type RollbackError struct {
	At   time.Time
	Lost []Loss
}

// Loss is one organisation's log that is not what was witnessed.
type Loss struct {
	Witnessed HeadRow
	Seq       int64 // of its newest entry now; 0: no log
}

// Error implements error.
func (e *RollbackError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the ledger is not the one that its witness saw on %s:", e.At.UTC().Format(time.RFC3339))
	for i, x := range e.Lost {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more;", len(e.Lost)-i)
			break
		}
		switch {
		case x.Seq == 0:
			fmt.Fprintf(&b, " organisation %d had %d entries and has none;", x.Witnessed.Org, x.Witnessed.Seq)
		case x.Seq < x.Witnessed.Seq:
			fmt.Fprintf(&b, " organisation %d had %d entries and has %d;", x.Witnessed.Org, x.Witnessed.Seq, x.Seq)
		default:
			fmt.Fprintf(&b, " organisation %d has another entry %d;", x.Witnessed.Org, x.Witnessed.Seq)
		}
	}
	b.WriteString(" put the newest ledger back. To go on without what is missing, two people accept it with --accept-rollback NAME,NAME")
	return b.String()
}

// witnessed compares the logs with what was seen of them.
func (l *Ledger) witnessed(w *Witness) (lost []Loss, err error) {
	for _, head := range w.Heads {
		loss := Loss{Witnessed: head}
		if o := l.orgs[head.Org]; o != nil {
			loss.Seq = o.seq
		}
		var found EntryRow
		if loss.Seq >= head.Seq {
			err := l.store.Entries(head.Org, head.Seq, func(row EntryRow) error {
				found = row
				return errFound
			})
			if err != nil && err != errFound {
				return nil, fmt.Errorf("organisation %d: %w", head.Org, err)
			}
		}
		if found.Seq != head.Seq || found.Hash != head.Hash {
			lost = append(lost, loss)
		}
	}
	return lost, nil
}

var errFound = fmt.Errorf("found") // ends a visit

// What an override let pass. Stored: append only.
const (
	overClock    = 1 // the clock reads earlier than the newest entry
	overRollback = 2 // the ledger is not the one that was witnessed
)

// override is what a start let pass, since it was told to.
type override struct {
	what  byte
	names []string  // who accepted it
	at    time.Time // of the newest entry; of the witness
	seq   int64     // of the entry that was witnessed
	hash  string    // and its hash, hexadecimal
}

func appendOverride(b []byte, x *override) []byte {
	b = appendUint(append(b, x.what), int64(len(x.names)))
	for _, name := range x.names {
		b = appendString(b, name)
	}
	b = binary.AppendVarint(b, x.at.UnixMicro())
	return appendString(appendUint(b, x.seq), x.hash)
}

// override writes what a start lets pass into an organisation's log. The caller holds l.mu.
func (l *Ledger) override(o *org, x *override) {
	b := l.begin(o, KindOverride, l.now(), 0)
	l.end(o, KindOverride, 0, appendOverride(b, x))
}

// overrides writes all that this start lets pass. The caller holds l.mu, and has resolved what was open.
func (l *Ledger) overrides(lost []Loss, newest time.Time) {
	if !newest.IsZero() {
		l.override(l.organisation(house), &override{what: overClock, at: newest})
	}
	for _, x := range lost {
		w := x.Witnessed
		l.override(l.organisation(w.Org), &override{
			what: overRollback, names: []string{l.opt.Rollback.First, l.opt.Rollback.Second},
			at: l.opt.Witness.At, seq: w.Seq, hash: hex.EncodeToString(w.Hash[:]),
		})
	}
}
