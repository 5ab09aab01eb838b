package usage

import (
	"time"

	"talea/internal/account"
	"talea/internal/money"
)

// ID is a request id: the time-ordered number that the store's keys use. It is minted by the server.
type ID int64

// Label is one free label of an account (cost centre, purchase order, …).
type Label struct{ Name, Value string }

// Subject is all of a record that is known before the body is read and is the same for every request of one key to one
// offering under one price book. The ledger writes it once per organisation and refers to it by number.
type Subject struct {
	Organisation   account.ID
	Account        account.ID
	AccountPath    account.Path // as it was at admission
	BillingAccount string
	Key            string // public id of the key
	Labels         []Label
	Seller         string
	Contract       string
	Currency       string // ISO 4217
	Book           string // price book name
	BookVersion    string // content hash of the book
	ModelAsked     string // the name the client used
	Model          string // the offering that served it
	ModelRevision  string
	Quantisation   string
	Tokenizer      string // hash of tokenizer and template
	SizeClass      string
	Work           Work // of the model's requests
}

// Bounds are the most that one request can use. Units are tokens.
type Bounds struct {
	Input  int64 // all input classes together
	Output int64 // all output classes and choices together
	Joint  int64 // input and output together; 0 is no joint bound
}

// Line is one charge line: Quantity × UnitPrice = Amount, exactly.
type Line struct {
	Meter     Meter
	Quantity  int64
	UnitPrice money.Rate
	Amount    money.Amount
	Kind      LineKind
}

// LineKind says what a charge line is for. Stored: append only.
type LineKind uint8

// Kinds of charge lines.
const (
	LineUsage    LineKind = iota // so many units
	LineMinimum                  // lifts the sum to the book's minimum charge
	LinePackage                  // so many packages that were started
	LineFee                      // the flat charge of a step that was entered
	NumLineKinds                 // not a kind
)

var lineKindNames = [NumLineKinds]string{"usage", "minimum", "package", "fee"}

// String returns the name in records.
func (k LineKind) String() string { return nameOf(lineKindNames[:], int(k)) }

// Attempt is one try at an engine.
type Attempt struct {
	Engine string
	Status int    // HTTP status of the engine, 0 if none came
	Fault  string // why it was left: "connect", "status", "timeout", …; "" for the one that served
	Micros int64  // duration in microseconds
}

// Admission is what is stamped on a request when its hold is made.
type Admission struct {
	ID           ID
	Subject      *Subject
	At           time.Time // UTC
	Endpoint     string    // "chat", "completions", "embeddings"
	Stream       bool
	Principal    string // pseudonym: keyed hash of `user` / `safety_identifier`
	Idempotency  string // keyed hash of the idempotency key in its scope
	BodyHash     string // keyed hash of the body, where there is an idempotency key
	RunID        string
	RetryOf      ID
	SDKRetry     int64 // X-Stainless-Retry-Count
	TierAsked    string
	Effort       string
	ThinkTokens  int64 // asked thinking budget, 0 where none
	Bounds       Bounds
	PriceRow     string // the price row that was locked
	Multiplier   int64  // parts per million, all multipliers together
	OnDisconnect Tariff
	OnFault      Tariff
}

// Tariff is what a broken or abandoned answer costs the tenant. Stored: append only.
type Tariff uint8

// Tariff rules of a price book.
const (
	ChargeNothing Tariff = iota
	ChargeGenerated
	ChargeDelivered
	numTariffs
)

var tariffNames = [numTariffs]string{"nothing", "generated", "delivered"}

// String returns the word used in price books.
func (t Tariff) String() string { return nameOf(tariffNames[:], int(t)) }

// TariffByName finds a tariff rule by its word in price books.
func TariffByName(name string) (Tariff, bool) {
	for i, n := range tariffNames {
		if n == name {
			return Tariff(i), true
		}
	}
	return 0, false
}

// Result is what is known when a request has ended. Durations are in microseconds, 0 where unknown.
type Result struct {
	At            time.Time // UTC, when the settlement was decided
	Engine        string    // name of the engine that served
	EngineKind    string
	EngineVersion string
	Region        string
	GPUKind       string
	GPUCount      int64
	TierServed    string
	Counts        Counts // as metered, before the tariff rule
	Source        Source
	Flags         Flags
	QueueMicros   int64
	PrefillMicros int64
	DecodeMicros  int64
	FirstMicros   int64 // from admission to the first byte of the answer
	TotalMicros   int64
	Delivered     int64 // output tokens that reached the client, as the gateway counted them
	Finish        string
	Outcome       Outcome
	Fault         Party
	Attempts      []Attempt
}

// Touched is one limit that a hold stands on.
type Touched struct {
	Limit  int64 // the ledger's number of the limit
	Period int64 // the ledger's number of the period
	Held   money.Amount
}

// Status is the state of a hold. Stored: append only.
type Status uint8

// States of a hold.
const (
	Held Status = iota + 1
	Posted
	Void
)

var statusNames = [...]string{"unknown", "held", "posted", "void"}

// String returns the name in receipts.
func (s Status) String() string { return nameOf(statusNames[:], int(s)) }

// Record is the charging record of one request: what was stamped at admission, what is known at the end, and what it
// costs. No content.
type Record struct {
	Admission
	Result
	Status  Status
	Billed  Counts // what the lines charge for, after the tariff rule
	Lines   []Line
	Charge  money.Amount
	Hold    money.Amount // the money ceiling that was held
	Touched []Touched
}
