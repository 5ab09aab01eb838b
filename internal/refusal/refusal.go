// Package refusal lists every reason to say no: its code, HTTP status, type and whether a client may come again.
// It does not write answers (gateway/error.go is the only writer of a 4xx or 5xx on the data path) and does not decide.
//
// # Invariants
//
//   - A refusal of the data path is a row of Table; the table is closed.
//   - 402 is said only of what is posted, and never has a Retry-After: every client library stops on it after one request.
//   - No text of a refusal holds a prompt, a secret or a path above the caller's own nodes.
//
// To add one: a constant at the end, a row in Table, a case in the gateway's table test.
//
// Start reading at Table.
package refusal

import "time"

// Code names one reason. Stored: append only.
type Code uint8

// The reasons, in the order of the hops that say them.
const (
	None Code = iota
	NotFound
	MethodNotAllowed
	UnsupportedEncoding
	TooLarge
	Malformed
	UnknownParameter
	UnsupportedParameter
	InvalidKey
	ModelNotFound
	ModelForbidden
	Residency
	ModelNotPriced
	NoBound
	RateRequests
	RateTokens
	BudgetReached
	BudgetContended
	LedgerUnavailable
	Overloaded
	EngineUnavailable
	EngineRefused
	EngineTimeout
	ModelChanged
	Internal
	RequestTimeout
	KeyRevoked
	ClockUntrusted
	IdempotencyInProgress
	IdempotencyCompleted
	IdempotencyMismatch
	MaxMultiplier
	MaxCost
	ModelQuarantined
	numCodes
)

// Row is one reason to say no.
type Row struct {
	Name    string // for logs, metrics and records
	Status  int    // HTTP status; 0: the engine's own
	Code    string // `error.code` of the body, "" is null
	Type    string // `error.type` of the body
	Retry   bool   // carries Retry-After
	NoRetry bool   // carries x-should-retry: false
}

// Table holds every refusal, by code. Source of statuses and codes: the error table of docs/wire.md.
var Table = [numCodes]Row{
	None:                 {Name: "none"},
	NotFound:             {Name: "not_found", Status: 404, Code: "not_found", Type: "invalid_request_error"},
	MethodNotAllowed:     {Name: "method_not_allowed", Status: 405, Code: "method_not_allowed", Type: "invalid_request_error"},
	UnsupportedEncoding:  {Name: "unsupported_encoding", Status: 415, Code: "unsupported_encoding", Type: "invalid_request_error"},
	TooLarge:             {Name: "request_too_large", Status: 413, Code: "request_too_large", Type: "invalid_request_error"},
	Malformed:            {Name: "malformed", Status: 400, Code: "invalid_request_error", Type: "invalid_request_error"},
	UnknownParameter:     {Name: "unknown_parameter", Status: 400, Code: "unknown_parameter", Type: "invalid_request_error"},
	UnsupportedParameter: {Name: "unsupported_parameter", Status: 400, Code: "unsupported_parameter", Type: "invalid_request_error"},
	InvalidKey:           {Name: "unknown_key", Status: 401, Code: "invalid_api_key", Type: "invalid_request_error"},
	ModelNotFound:        {Name: "model_not_found", Status: 404, Code: "model_not_found", Type: "invalid_request_error"},
	ModelForbidden:       {Name: "model_forbidden", Status: 404, Code: "model_not_found", Type: "invalid_request_error"},
	Residency:            {Name: "residency", Status: 403, Code: "data_residency_mismatch", Type: "invalid_request_error"},
	ModelNotPriced:       {Name: "no_price", Status: 400, Code: "model_not_priced", Type: "invalid_request_error"},
	NoBound:              {Name: "no_bound", Status: 400, Code: "invalid_request_error", Type: "invalid_request_error"},
	RateRequests:         {Name: "rate_requests", Status: 429, Code: "rate_limit_exceeded", Type: "requests", Retry: true},
	RateTokens:           {Name: "rate_tokens", Status: 429, Code: "rate_limit_exceeded", Type: "tokens", Retry: true},
	BudgetReached:        {Name: "budget_reached", Status: 402, Code: "insufficient_quota", Type: "insufficient_quota", NoRetry: true},
	BudgetContended:      {Name: "budget_contended", Status: 429, Code: "budget_contended", Type: "budget_contended", Retry: true},
	LedgerUnavailable:    {Name: "ledger_unavailable", Status: 503, Code: "ledger_unavailable", Type: "server_error", Retry: true},
	Overloaded:           {Name: "overloaded", Status: 503, Code: "overloaded", Type: "server_error", Retry: true},
	EngineUnavailable:    {Name: "engine_unavailable", Status: 502, Code: "engine_unavailable", Type: "server_error"},
	EngineRefused:        {Name: "engine_refused", Code: "engine_error", Type: "invalid_request_error"},
	EngineTimeout:        {Name: "engine_timeout", Status: 504, Code: "engine_timeout", Type: "server_error"},
	ModelChanged:         {Name: "model_changed", Status: 503, Code: "model_changed", Type: "server_error"},
	Internal:             {Name: "internal_error", Status: 500, Code: "internal_error", Type: "server_error"},
	RequestTimeout:       {Name: "request_timeout", Status: 408, Code: "request_timeout", Type: "invalid_request_error"},
	KeyRevoked:           {Name: "key_revoked", Status: 401, Code: "invalid_api_key", Type: "invalid_request_error"},
	MaxMultiplier:        {Name: "max_multiplier", Status: 400, Code: "max_multiplier_exceeded", Type: "invalid_request_error"},
	MaxCost:              {Name: "max_cost", Status: 400, Code: "max_cost_exceeded", Type: "invalid_request_error"},
	ClockUntrusted:       {Name: "clock_untrusted", Status: 503, Code: "ledger_unavailable", Type: "server_error", Retry: true},

	ModelQuarantined:      {Name: "model_quarantined", Status: 503, Code: "model_quarantined", Type: "server_error", NoRetry: true},
	IdempotencyInProgress: {Name: "idempotency_in_progress", Status: 409, Code: "idempotency_in_progress", Type: "invalid_request_error"},
	IdempotencyCompleted:  {Name: "idempotency_completed", Status: 409, Code: "idempotency_completed", Type: "invalid_request_error", NoRetry: true},
	IdempotencyMismatch:   {Name: "idempotency_mismatch", Status: 422, Code: "idempotency_mismatch", Type: "invalid_request_error", NoRetry: true},
}

// Row returns the table's row of c.
func (c Code) Row() Row { return Table[c] }

// Budget tells which limit was short. Amounts are exact decimal strings and empty where the caller may not see them.
type Budget struct {
	Scope               string `json:"scope"`   // "organisation", "department", "project"
	Account             string `json:"account"` // path
	Measure             string `json:"measure"`
	Limit               string `json:"limit,omitempty"`
	Used                string `json:"used,omitempty"`
	Held                string `json:"held,omitempty"`
	Currency            string `json:"currency,omitempty"`
	Window              string `json:"window"`
	ResetsAt            string `json:"resets_at,omitempty"`
	Ceiling             string `json:"ceiling,omitempty"`
	MaxAffordableTokens int64  `json:"max_affordable_tokens,omitempty"`
}

// Refusal is a "no" on its way to the client. It is an error value; it is never logged with content.
type Refusal struct {
	Code       Code
	Message    string        // public: what, why, what to do
	Param      string        // the member at fault, "" for none
	RetryAfter time.Duration // with Retry rows
	Budget     *Budget       // with BudgetReached and BudgetContended
	Status     int           // with EngineRefused: the engine's status
	Receipt    []byte        // with IdempotencyCompleted: JSON of the record that is there
}

// Error implements error.
func (r *Refusal) Error() string { return Table[r.Code].Name + ": " + r.Message }

// New makes a refusal with a public message.
func New(c Code, message string) *Refusal { return &Refusal{Code: c, Message: message} }

// At makes a refusal that names the member at fault.
func At(c Code, param, message string) *Refusal {
	return &Refusal{Code: c, Param: param, Message: message}
}
