package oracle

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"talea/internal/sim"
)

// everyGeneration: no request reaches an engine before its hold is durable (I4), so each one in the engines' books has a
// record, whatever has crashed since.
func everyGeneration(j *judge) {
	for id := range j.Made {
		j.Requests++
		if j.record[id] == nil {
			j.find("%s: an engine was asked (I4), but the ledger has no record", id)
		}
	}
}

// everyCall: what a client was told to be the end of its answer is in the ledger and says the same (P1).
func everyCall(j *judge) {
	for i := range j.Calls {
		c := &j.Calls[i]
		r := j.record[c.ID]
		switch {
		case c.ID == "":
		case c.Status == 200 && c.Done:
			j.acked(c, r)
		case c.Status == 200:
		case r != nil && r.Status == "posted":
			j.find("%s: refused with %d, but charged %s", c.ID, c.Status, r.Charge)
		}
	}
}

// acked judges an answer that its client saw whole.
func (j *judge) acked(c *Call, r *Record) {
	switch {
	case r == nil:
		j.find("%s: its client saw the end of the answer (P1), but the ledger has no record", c.ID)
		return
	case r.Status != "posted":
		j.find("%s: its client saw the end of the answer (P1), but the record is %s, outcome %s", c.ID, r.Status, r.Outcome)
		return
	case c.Account != "" && c.Account != r.Account:
		j.find("%s: asked by %s, but recorded for %s", c.ID, c.Account, r.Account)
	}
	if got := r.billed(); got.Input != c.Told.Input || got.Cached != c.Told.Cached || got.Output != c.Told.Output {
		j.find("%s: its client was told %+v, but the record bills %+v", c.ID, c.Told, got)
	}
	if c.Cost != "" && j.femto(c.ID, c.Cost).Cmp(j.femto(c.ID, r.Charge)) != 0 {
		j.find("%s: its client was told that it costs %s, but the record charges %s", c.ID, c.Cost, r.Charge)
	}
}

// everyRecord judges each record by what the engines generated and the client saw.
func everyRecord(j *judge) {
	for i := range j.Ledger.Records {
		r := &j.Ledger.Records[i]
		made, whole := j.made(r.ID)
		switch {
		case r.Holds != 1:
			j.find("%s: held %d times (I3)", r.ID, r.Holds)
		case r.Settlements > 1:
			j.find("%s: settled %d times (I3)", r.ID, r.Settlements)
		case r.Settlements == 0 && !j.Busy:
			j.find("%s: its hold is still open (I5)", r.ID)
		}
		switch r.Status {
		case "posted":
			j.Posted++
			j.posted(r, made, whole)
		case "void":
			j.Void++
			if len(r.Lines) > 0 || j.femto(r.ID, r.Charge).Sign() != 0 {
				j.find("%s: void, but charged %s", r.ID, r.Charge)
			}
			if r.Outcome == "completed" && made.Input+made.Output > 0 {
				j.find("%s: completed, and nothing is charged; the engine made %+v", r.ID, made)
			}
		}
		if r.Status != "held" {
			j.lose(r, made)
		}
	}
}

// posted judges the counts (I6) and the amount (I7) of a charged request.
func (j *judge) posted(r *Record, made sim.Tokens, whole bool) {
	got := r.billed()
	if want := j.price(got); j.femto(r.ID, r.Charge).Cmp(want) != 0 {
		j.find("%s: charged %s, but %+v cost %s femto-units (I7)", r.ID, r.Charge, got, want)
	}
	if got.Input > made.Input || got.Output > made.Output {
		j.find("%s: billed %+v, but the engine made only %+v (I6)", r.ID, got, made)
	}
	if got.Input > r.Bounds.Input || got.Output > r.Bounds.Output {
		j.find("%s: billed %+v above its hold of %+v (I6)", r.ID, got, r.Bounds)
	}
	switch r.Outcome {
	case "completed":
		want := sim.Tokens{Input: min(made.Input, r.Bounds.Input), Output: min(made.Output, r.Bounds.Output)}
		if !whole || got.Input != want.Input || got.Output != want.Output || made.Input <= r.Bounds.Input && got.Cached != made.Cached {
			j.find("%s: completed and billed %+v, but the engine made %+v, whole %t (I6)", r.ID, got, made, whole)
		} else {
			j.Exact++
		}
	case "cut":
		if got.Output != r.Bounds.Output {
			j.find("%s: cut at its hold of %d, but billed %d", r.ID, r.Bounds.Output, got.Output)
		}
	case "client_gone", "revoked":
		if c := j.call[r.ID]; c != nil && r.OnDisconnect != "nothing" && got.Output < c.Visible {
			j.find("%s: its client saw %d tokens and left, but only %d are billed (I6)", r.ID, c.Visible, got.Output)
		}
		if r.OnDisconnect == "nothing" {
			j.find("%s: the client left and is charged, against the rule", r.ID)
		}
	case "broken":
		if r.OnFault != "delivered" {
			j.find("%s: broken by us and charged, against the rule %q", r.ID, r.OnFault)
		}
	default:
		j.find("%s: outcome %s is charged", r.ID, r.Outcome)
	}
}

// lose books what the operator made without being paid for it.
func (j *judge) lose(r *Record, made sim.Tokens) {
	got := r.billed()
	lost := sim.Tokens{Input: made.Input - got.Input, Cached: made.Cached - got.Cached, Output: made.Output - got.Output}
	j.Lost.Input += lost.Input
	j.Lost.Output += lost.Output
	loss := j.price(lost)
	j.Loss.Add(j.Loss, loss)
	if slices.Contains(r.Flags, "resolved_at_start") {
		j.Resolved++
		j.CrashLost.Input += lost.Input
		j.CrashLost.Output += lost.Output
		j.CrashLoss.Add(j.CrashLoss, loss)
	}
	// The operator's loss is on the record: what was metered, never more than what was made.
	if r.Usage.Input > made.Input || r.Usage.Output > made.Output {
		j.find("%s: metered %d in and %d out, but the engine made %+v", r.ID, r.Usage.Input, r.Usage.Output, made)
	}
}

// everyLimit: used is the sum of what was posted (I2), nothing is held when nothing runs (I5), and used + held was never
// above what was allowed (I1).
func everyLimit(j *judge) {
	spent := map[Stood]*big.Int{}
	for i := range j.Ledger.Limits {
		spent[j.Ledger.Limits[i].Stood] = new(big.Int)
	}
	for i := range j.Ledger.Records {
		r := &j.Ledger.Records[i]
		for _, s := range r.Stood {
			if sum := spent[s]; sum != nil && r.Status == "posted" {
				sum.Add(sum, j.spent(s.Measure, r))
			}
		}
	}
	for i := range j.Ledger.Limits {
		l := &j.Ledger.Limits[i]
		name, want := l.Name(), spent[l.Stood]
		used, held := j.amount(l.Measure, l.Used), j.amount(l.Measure, l.Held)
		if used.Cmp(want) != 0 {
			j.find("limit %s: used is %s, but its postings are %s (I2)", name, l.Used, want)
		}
		if held.Sign() != 0 && !j.Busy {
			j.find("limit %s: %s is held, and nothing runs (I5)", name, l.Held)
		}
		most := l.Limit
		if m, ok := j.Most[name]; ok {
			most = m
		}
		if used.Add(used, held).Cmp(j.amount(l.Measure, most)) > 0 {
			j.find("limit %s: %s used and %s held of at most %s (I1)", name, l.Used, l.Held, most)
		}
	}
	if j.Ledger.OpenHolds > 0 && !j.Busy {
		j.find("%d holds are open, and nothing runs (I5)", j.Ledger.OpenHolds)
	}
}

func (j *judge) amount(measure, text string) *big.Int {
	if measure == "money" {
		return j.femto("a limit", text)
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		j.find("a limit: %q is no count of %s", text, measure)
		return new(big.Int)
	}
	return n
}

// spent is what a posting takes off a limit.
func (j *judge) spent(measure string, r *Record) *big.Int {
	t := r.billed()
	switch measure {
	case "money":
		return j.femto(r.ID, r.Charge)
	case "input_tokens":
		return big.NewInt(t.Input)
	case "output_tokens":
		return big.NewInt(t.Output)
	case "tokens":
		return big.NewInt(t.Input + t.Output)
	}
	return big.NewInt(1) // requests
}

// everySum: the sums of each account are those of its records, to the femto-unit (I2). What is beneath an account is added
// up by whoever asks; NodeTotals does it from the records.
func everySum(j *judge) {
	type total struct {
		requests, input, output int64
		charge                  big.Int
	}
	want := map[string]*total{}
	at := func(account string) *total {
		if want[account] == nil {
			want[account] = &total{}
		}
		return want[account]
	}
	for i := range j.Ledger.Records {
		if r := &j.Ledger.Records[i]; r.Status == "posted" {
			t, b := at(r.Account), r.billed()
			t.requests++
			t.input += b.Input
			t.output += b.Output
			t.charge.Add(&t.charge, j.femto(r.ID, r.Charge))
		}
	}
	for _, s := range j.Ledger.Sums {
		t := at(s.Account)
		if s.Requests != t.requests || s.Input != t.input || s.Output != t.output || j.femto(s.Account, s.Charge).Cmp(&t.charge) != 0 {
			j.find("account %s: the sums are %d requests, %d in, %d out, %s; its records are %d, %d, %d, %s femto-units (I2)",
				s.Account, s.Requests, s.Input, s.Output, s.Charge, t.requests, t.input, t.output, &t.charge)
		}
		delete(want, s.Account)
	}
	for account, t := range want {
		if t.requests > 0 {
			j.find("account %s: %d requests are posted, and no sum has them (I2)", account, t.requests)
		}
	}
}

// NodeTotals adds up what the records charge at each node of the tree, from the leaves to the organisations, in
// femto-units.
func NodeTotals(records []Record) (map[string]*big.Int, error) {
	totals := map[string]*big.Int{}
	for i := range records {
		r := &records[i]
		if r.Status != "posted" {
			continue
		}
		charge, ok := parseFemto(r.Charge)
		if !ok {
			return nil, fmt.Errorf("%s: %q is no amount", r.ID, r.Charge)
		}
		for path := r.Account; path != ""; {
			if totals[path] == nil {
				totals[path] = new(big.Int)
			}
			totals[path].Add(totals[path], charge)
			path = path[:max(0, strings.LastIndexByte(path, '/'))]
		}
	}
	return totals, nil
}
