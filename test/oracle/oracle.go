// Package oracle judges a ledger from outside. What is true it takes from two witnesses that know nothing of the ledger:
// the book of the simulated engines (what was really generated for each request) and the log of the clients (what each of
// them saw). It prices that by itself, with math/big, and then looks whether the records, the limits and the sums of the
// ledger say the same. It believes no balance, no sum and no amount of the ledger that it has not counted itself.
//
// # Invariants
//
//   - Nothing that the ledger says is used to decide what is true; it is only judged.
//   - A finding names the request or the limit, what was expected and what is there.
//
// To add a rule: a function in rules.
//
// Start reading at Case, then rules.
package oracle

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"talea/internal/sim"
)

// Case is all that there is to judge: the two witnesses, the price, and the defendant.
type Case struct {
	Made   map[string][]sim.Work // the engines' books, merged: by request id, in the order of the attempts
	Calls  []Call                // the clients' log
	Prices Prices                // of the one model that was asked for
	Ledger Ledger
	// Most is the highest amount that a limit ever had, by Limit.Name: where it is not here, it is what it is now.
	Most map[string]string
	// Busy says that requests still run: open holds are no finding then.
	Busy bool
}

// Call is what a client saw of one request.
type Call struct {
	ID      string     // the answer's X-Request-Id, "" where no answer began
	Account string     // whose key it used
	Status  int        // 0 where no answer began
	Done    bool       // the answer was whole: [DONE] came, or all of the body
	HungUp  bool       // the client gave up by itself
	Visible int64      // output tokens that it has read
	Told    sim.Tokens // usage, where the answer told it; not used unless Done
	Cost    string     // what the answer said it costs, "" where it did not
}

// Prices are decimal amounts of the currency for 1,000,000 tokens.
type Prices struct{ Input, Cached, Output string }

// Ledger is what the ledger says, as it was read from it.
type Ledger struct {
	Records   []Record
	Limits    []Limit
	Sums      []Sum // by account, of all time
	OpenHolds int
}

// Record is the record of one request; its JSON is that of a receipt.
type Record struct {
	ID       string `json:"request_id"`
	Status   string `json:"status"` // held, posted, void
	Account  string `json:"account"`
	Endpoint string
	Stream   bool
	Outcome  string `json:"outcome"`
	Fault    string `json:"fault"`
	Source   string `json:"usage_source"`
	Flags    []string
	Bounds   struct{ Input, Output, Joint int64 }
	Usage    struct {
		Input  int64 `json:"input_tokens"`
		Cached int64 `json:"cache_read_input_tokens"`
		Output int64 `json:"output_tokens"`
	}
	Lines        []Line
	Charge       string
	OnDisconnect string  `json:"on_disconnect"`
	OnFault      string  `json:"on_platform_fault"`
	Stood        []Stood `json:"limits"`
	Holds        int     `json:"-"` // how many entries of the log begin this request
	Settlements  int     `json:"-"` // and how many end it
}

// Line is one charge line.
type Line struct {
	Meter    string
	Quantity int64
	Price    string `json:"unit_price"`
	Amount   string
	Minimum  bool
	Package  bool
	Fee      bool
}

// Stood is one limit that a request stood on, with the period.
type Stood struct {
	Account, Measure, Window, Model, Period string
	SizeClass                               string `json:"size_class"`
}

// Name is a limit's identity and its period.
func (s *Stood) Name() string {
	return strings.Join([]string{s.Account, s.Measure, s.Window, s.Model, s.SizeClass, s.Period}, " ")
}

// Limit is a limit and what stands against it in its running period.
type Limit struct {
	Stood
	Limit, Used, Held string
}

// Sum is the usage of one account, without what is beneath it.
type Sum struct {
	Account  string
	Requests int64
	Input    int64 `json:"input_tokens"`
	Output   int64 `json:"output_tokens"`
	Charge   string
}

// Verdict is what the oracle found.
type Verdict struct {
	Findings []string
	Requests int // that an engine has seen
	Posted   int
	Void     int
	Exact    int // posted, and exactly what the engine generated
	// Lost is the operator's loss: what engines generated for requests that are not charged for all of it.
	Lost sim.Tokens
	Loss *big.Int // the same in femto-units
	// The part of it that crashes have made: of requests that a start has resolved.
	Resolved  int
	CrashLost sim.Tokens
	CrashLoss *big.Int
}

// Ok reports whether nothing was found.
func (v *Verdict) Ok() bool { return len(v.Findings) == 0 }

// String has the first findings, a line each.
func (v *Verdict) String() string {
	list := v.Findings
	if len(list) > 12 {
		list = append(slices.Clone(list[:12]), fmt.Sprintf("and %d more", len(list)-12))
	}
	return strings.Join(list, "\n")
}

// rules are all rules.
var rules = []func(*judge){everyGeneration, everyCall, everyRecord, everyLimit, everySum}

// Judge applies every rule.
func Judge(c *Case) *Verdict {
	j := &judge{Case: c, Verdict: Verdict{Loss: new(big.Int), CrashLoss: new(big.Int)}, record: map[string]*Record{}, call: map[string]*Call{}}
	for i := range c.Ledger.Records {
		r := &c.Ledger.Records[i]
		if j.record[r.ID] != nil {
			j.find("%s: two records", r.ID)
		}
		j.record[r.ID] = r
	}
	for i := range c.Calls {
		if id := c.Calls[i].ID; id != "" {
			if j.call[id] != nil {
				j.find("%s: two answers have this id", id)
			}
			j.call[id] = &c.Calls[i]
		}
	}
	for _, rule := range rules {
		rule(j)
	}
	slices.Sort(j.Findings)
	return &j.Verdict
}

// judge is one judgement on its way.
type judge struct {
	*Case
	Verdict
	record map[string]*Record
	call   map[string]*Call
}

func (j *judge) find(format string, args ...any) {
	j.Findings = append(j.Findings, fmt.Sprintf(format, args...))
}

// made is what the engines generated for a request, all attempts together, and whether it was one whole answer.
func (j *judge) made(id string) (t sim.Tokens, whole bool) {
	for _, w := range j.Made[id] {
		t.Input += w.Tokens.Input
		t.Cached += w.Tokens.Cached
		t.Output += w.Tokens.Output
		t.Reasoning += w.Tokens.Reasoning
		whole = len(j.Made[id]) == 1 && w.Outcome == sim.Completed
	}
	return t, whole
}

// femto reads a decimal amount as femto-units, and fails the judgement where it is none.
func (j *judge) femto(what, text string) *big.Int {
	n, ok := parseFemto(text)
	if !ok {
		j.find("%s: %q is no amount", what, text)
		return new(big.Int)
	}
	return n
}

// Femto reads a decimal amount as femto-units; nil is no amount.
func Femto(text string) *big.Int {
	n, _ := parseFemto(text)
	return n
}

func parseFemto(text string) (*big.Int, bool) {
	whole, part, _ := strings.Cut(text, ".")
	if len(part) > 15 {
		return nil, false
	}
	return new(big.Int).SetString(whole+part+strings.Repeat("0", 15-len(part)), 10)
}

// price is what tokens cost, in femto-units.
func (j *judge) price(t sim.Tokens) *big.Int {
	sum := new(big.Int)
	for _, p := range []struct {
		n     int64
		price string
	}{{t.Input - t.Cached, j.Prices.Input}, {t.Cached, j.Prices.Cached}, {t.Output, j.Prices.Output}} {
		each := j.femto("a price", p.price)
		sum.Add(sum, each.Mul(each, big.NewInt(p.n)))
	}
	return sum.Quo(sum, big.NewInt(1_000_000))
}

// billed are the counts that a record's lines charge for.
func (r *Record) billed() (t sim.Tokens) {
	for _, l := range r.Lines {
		switch {
		case l.Minimum || l.Package || l.Fee: // not so many units
		case l.Meter == "input_cache_read":
			t.Cached += l.Quantity
			t.Input += l.Quantity
		case strings.HasPrefix(l.Meter, "input"):
			t.Input += l.Quantity
		case l.Meter == "output_reasoning":
			t.Reasoning += l.Quantity
			t.Output += l.Quantity
		case strings.HasPrefix(l.Meter, "output"):
			t.Output += l.Quantity
		}
	}
	return t
}

// formatFemto writes femto-units as a decimal amount.
func formatFemto(n *big.Int) string {
	text := fmt.Sprintf("%016s", n.String())
	return text[:len(text)-15] + "." + text[len(text)-15:]
}
