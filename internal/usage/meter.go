// Package usage says what one request used: the table of meters, the counts of one answer, the charge lines and the
// record of the request. It does not read usage off an engine (engine, meter) and does not price it (rating).
//
// # Invariants
//
//   - The numbers of meters, sources, outcomes and flags are stored: append, never renumber.
//   - A count that nobody reported is unknown, which is not 0.
//   - Leaf classes do not overlap: the input of a request is the sum of its input leaves, the output of its output leaves.
//   - A record has no prompt, completion or tool text.
//
// To add a meter: a constant at the end, a row in Meters, a line in GLOSSARY.md.
//
// Start reading at Meters, then Record.
package usage

// Meter is a leaf class of what is counted. Stored: append only.
type Meter uint8

// The leaf classes.
const (
	InputUncached Meter = iota
	InputCacheRead
	InputCacheWrite
	OutputContent
	OutputReasoning
	Image
	AudioSecond
	Character
	Requests
	WorkMS
	TokenHour // a token kept in a cache for an hour
	NumMeters // not a meter
)

// MeterInfo is one row of the table of meters.
type MeterInfo struct {
	Name     string // leaf class in records, `talea rate --usage` and charge lines
	Price    string // name in price books
	Fallback Meter  // the class whose price applies when a book has none for this one; itself where there is none
	Unit     string // singular, for people
}

// Meters is the table of meters, by number.
var Meters = [NumMeters]MeterInfo{
	InputUncached:   {"input_uncached", "input", InputUncached, "token"},
	InputCacheRead:  {"input_cache_read", "input_cache_read", InputUncached, "token"},
	InputCacheWrite: {"input_cache_write", "input_cache_write", InputUncached, "token"},
	OutputContent:   {"output_content", "output", OutputContent, "token"},
	OutputReasoning: {"output_reasoning", "output_reasoning", OutputContent, "token"},
	Image:           {"image", "image", Image, "image"},
	AudioSecond:     {"audio_second", "audio_second", AudioSecond, "second"},
	Character:       {"character", "character", Character, "character"},
	Requests:        {"request", "request", Requests, "request"},
	WorkMS:          {"work_ms", "work_ms", WorkMS, "millisecond"},
	TokenHour:       {"token_hour", "token_hour", TokenHour, "token-hour"},
}

// String returns the leaf name.
func (m Meter) String() string {
	if m >= NumMeters {
		return "unknown"
	}
	return Meters[m].Name
}

// MeterByName finds a leaf class by its name in records.
func MeterByName(name string) (Meter, bool) {
	for m, info := range Meters {
		if info.Name == name {
			return Meter(m), true
		}
	}
	return 0, false
}

// MeterByPrice finds a leaf class by its name in price books.
func MeterByPrice(name string) (Meter, bool) {
	for m, info := range Meters {
		if info.Price == name {
			return Meter(m), true
		}
	}
	return 0, false
}

// MaxCount bounds every count: 10^15. A larger one is nonsense and is refused where it is read.
const MaxCount = 1_000_000_000_000_000

// Counts are the quantities of one answer by leaf class. The zero value knows nothing.
type Counts struct {
	n     [NumMeters]int64
	known uint16
}

// Set makes the count of m known. n is in [0, MaxCount]; anything else is a bug of the caller and panics.
func (c *Counts) Set(m Meter, n int64) {
	if n < 0 || n > MaxCount {
		panic("usage: count out of range")
	}
	c.n[m] = n
	c.known |= 1 << m
}

// Get returns the count of m, 0 where unknown.
func (c *Counts) Get(m Meter) int64 { return c.n[m] }

// Known reports whether m was reported.
func (c *Counts) Known(m Meter) bool { return c.known>>m&1 != 0 }

// Empty reports whether nothing is known.
func (c *Counts) Empty() bool { return c.known == 0 }

// Input is the sum of the input leaves, in tokens.
func (c *Counts) Input() int64 {
	return c.n[InputUncached] + c.n[InputCacheRead] + c.n[InputCacheWrite]
}

// Output is the sum of the output leaves, in tokens.
func (c *Counts) Output() int64 { return c.n[OutputContent] + c.n[OutputReasoning] }

// Source says where the counts of a record come from. Stored: append only.
type Source uint8

// Usage sources, as charging.md names them.
const (
	SourceNone    Source = iota // nothing was used or nothing is known
	EngineFinal                 // the engine's usage at the end of its answer
	EngineRunning               // the engine's last running usage
	GatewayCount                // the gateway counted non-empty deltas
	Checkpoint                  // the last durable checkpoint of an attempt that broke
	numSources
)

var sourceNames = [numSources]string{"none", "engine_final", "engine_running", "gateway_count", "checkpoint"}

// String returns the name in records.
func (s Source) String() string { return nameOf(sourceNames[:], int(s)) }

// Outcome says how a request ended. Stored: append only.
type Outcome uint8

// Outcomes.
const (
	Open       Outcome = iota // still running
	Completed                 // the whole answer, relayed
	ClientGone                // the client went away first
	Cut                       // ended by us at the hold
	Revoked                   // ended by us: key revoked, account suspended
	Broken                    // an engine or we broke the answer
	Unserved                  // no engine answered
	EngineSaid                // an engine refused the request with a status of its own
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"open", "completed", "client_gone", "cut", "revoked", "broken", "unserved", "engine_refused"}

// String returns the name in records.
func (o Outcome) String() string { return nameOf(outcomeNames[:], int(o)) }

// Party says whose fault an outcome is. Stored: append only.
type Party uint8

// Parties.
const (
	NoParty Party = iota
	Client
	Engine
	Gateway
	numParties
)

var partyNames = [numParties]string{"", "client", "engine", "gateway"}

// String returns the name in records, "" for none.
func (p Party) String() string { return nameOf(partyNames[:], int(p)) }

// Flags mark what was odd about the usage of a request. Stored: append only.
type Flags uint32

// Flags, one bit each.
const (
	FlagUsageRefused  Flags = 1 << iota // an engine's usage was nonsense and not taken
	FlagUsageTwice                      // two different final usages: the highest consistent one was taken
	FlagZeroWithText                    // the engine said 0 but sent text
	FlagClamped                         // a part was larger than its whole and was clamped
	FlagOverBound                       // the engine counted more than the bound: the excess is the operator's
	FlagUsageMissing                    // the engine sent no usage
	FlagRunningFell                     // running usage went down
	FlagResolvedStart                   // resolved at a restart, not by the request's own end
	FlagNotRated                        // a bug: it could not be rated within its hold, and nothing was billed
	numFlags          = iota
)

var flagNames = [numFlags]string{"usage_refused", "usage_twice", "zero_with_text", "clamped", "over_bound", "usage_missing", "running_fell", "resolved_at_start", "not_rated"}

// Names returns the names of the set flags, in bit order.
func (f Flags) Names() []string {
	var out []string
	for i, name := range flagNames {
		if f>>i&1 != 0 {
			out = append(out, name)
		}
	}
	return out
}

func nameOf(names []string, i int) string {
	if i >= len(names) {
		return "unknown"
	}
	return names[i]
}
