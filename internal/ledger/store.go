package ledger

import (
	"errors"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/usage"
)

// ErrFull says that a store can write nothing just now, since its disk is full or read-only, and that it has not.
var ErrFull = errors.New("the disk is full or read-only")

// Hash is a link of an organisation's chain: SHA-256 over the link before it and the entry's canonical bytes.
type Hash [32]byte

// EntryRow is one entry of an organisation's log as it is stored. Org and Seq are its key: Seq counts from 1 without gaps.
type EntryRow struct {
	Org     account.ID
	Seq     int64
	Kind    Kind
	Request usage.ID // 0 where the entry is about no request
	Hash    Hash
	// Idempotency is what a hold has of the same name, for ByIdempotency; "" for none.
	Idempotency string
	Body        []byte // canonical bytes, header included (entry.go)
}

// HeadRow is where an organisation's log stands.
type HeadRow struct {
	Org      account.ID
	Seq      int64 // of the newest entry
	Hash     Hash  // of the newest entry
	OpenFrom int64 // no hold older than this entry is open; Seq+1 when none is
}

// BalanceRow is what stands against one limit in one period.
type BalanceRow struct {
	Org    account.ID
	Limit  int64
	Period int64
	Used   money.Amount
	Held   money.Amount
}

// UsageRow sums settled requests of one subject whose admission lies in one bucket of 15 minutes (fine enough for every
// time zone). In a Batch it is what to add; from a Store it is the sum.
type UsageRow struct {
	Org      account.ID
	Subject  int64
	Bucket   int64 // admission time, Unix seconds / 900
	Requests int64 // posted
	Voided   int64
	Counts   [usage.NumMeters]int64 // billed
	Charge   money.Amount
}

// bucketSeconds is the width of a usage bucket.
const bucketSeconds = 900

// RefusalRow is a "no" said after authentication. It is in no chain: it moved no money. Slot is reused in turn, so that
// refusals take bounded space.
type RefusalRow struct {
	Slot    int64
	Request usage.ID
	Body    []byte // JSON without content
}

// Object is one resource of the world (package world gives it meaning). Deleted objects stay with a nil Body, so that
// their numbers are never given again.
type Object struct {
	Kind, Name string
	ID         int64
	ManagedBy  string // "file" or "api"
	Body       []byte // canonical JSON; nil: deleted
}

// ObjectRef names an object.
type ObjectRef struct{ Kind, Name string }

// Batch is one group of decisions: the entries, and what derives from them, in one transaction.
type Batch struct {
	At       int64 // Unix microseconds, the newest decision
	Entries  []EntryRow
	Heads    []HeadRow
	Balances []BalanceRow
	Usage    []UsageRow
	Refusals []RefusalRow
	Objects  []Object
}

// Store keeps the log and what derives from it. One process writes; its calls of Start and Append are never concurrent.
// Reading methods may be called at any time from any goroutine and see whole batches only.
type Store interface {
	// Start takes the store over: it fences every earlier owner by a new epoch, makes sure that everything read from here
	// on is on disk, and returns the epoch and the time of the newest batch (Unix microseconds, 0 if none).
	Start(shard int64) (epoch, lastAt int64, err error)
	// Append commits b, and keeps nothing of it: the caller uses its memory again. On return without an error it is
	// durable. After ErrFull nothing of b is there or will be, and b may be appended again. After any other error nothing is
	// known about b, and the store must not be appended to again: Start on a fresh Store finds out.
	Append(shard, epoch int64, b *Batch) error
	// Reserve sets room aside, for what must still be written when there is no other: Append gives it free when it finds no
	// room. It returns nil when the room is there and there is some more; ErrFull while there is not. It is never called
	// beside Append.
	Reserve() error

	// Heads returns where every organisation's log stands, by organisation.
	Heads() ([]HeadRow, error)
	// Balances returns an organisation's balances of the given periods, by limit and period.
	Balances(org account.ID, periods []int64) ([]BalanceRow, error)
	// Definitions visits the entries that define things (Kind.defines), by organisation and sequence.
	Definitions(visit func(EntryRow) error) error
	// Entries visits an organisation's entries from seq on, in order.
	Entries(org account.ID, from int64, visit func(EntryRow) error) error
	// ByRequest visits the entries about one request, in order; none is not an error.
	ByRequest(id usage.ID, visit func(EntryRow) error) error
	// ByIdempotency returns the request whose hold is the newest under an idempotency key, 0 for none.
	ByIdempotency(key string) (usage.ID, error)
	// Usage visits the sums of an organisation (0: of all) with from ≤ Bucket < to, by organisation, subject, bucket.
	Usage(org account.ID, from, to int64, visit func(UsageRow) error) error
	// Refusal returns the newest refusal of a request id, nil if there is none.
	Refusal(id usage.ID) ([]byte, error)
	// Objects returns what was last written of every object, deleted ones included, by kind and name.
	Objects() ([]Object, error)
	// Close lets the store go. Nothing may be called after it.
	Close() error
}
