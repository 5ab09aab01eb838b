package oracle

import (
	"strings"
	"testing"

	"talea/internal/sim"
)

// truth is a ledger that is right: one whole answer, one that its client left, one that was broken by a crash.
func truth() *Case {
	line := func(meter string, n int64) Line { return Line{Meter: meter, Quantity: n} }
	stood := []Stood{{Account: "acme", Measure: "money", Window: "month", Period: "2026-11"}, {Account: "acme/app", Measure: "tokens", Window: "day", Period: "2026-11-24"}}
	whole := Record{ID: "a", Status: "posted", Account: "acme/app", Outcome: "completed", Charge: "0.000112",
		Lines: []Line{line("input_uncached", 32), line("output_content", 20)}, Stood: stood, Holds: 1, Settlements: 1}
	left := Record{ID: "b", Status: "posted", Account: "acme/app", Outcome: "client_gone", OnDisconnect: "generated", Charge: "0.0000312",
		Lines: []Line{line("input_uncached", 6), line("input_cache_read", 12), line("output_content", 6)}, Stood: stood, Holds: 1, Settlements: 1}
	broken := Record{ID: "c", Status: "void", Account: "acme/app", Outcome: "broken", OnFault: "nothing", Charge: "0", Stood: stood, Holds: 1, Settlements: 1}
	for _, r := range []*Record{&whole, &left, &broken} {
		r.Bounds.Input, r.Bounds.Output = 100, 1000
	}
	broken.Usage.Input, broken.Usage.Output = 32, 64
	return &Case{
		Made: map[string][]sim.Work{
			"a": {{Outcome: sim.Completed, Tokens: sim.Tokens{Input: 32, Output: 20}}},
			"b": {{Outcome: sim.Aborted, Tokens: sim.Tokens{Input: 18, Cached: 12, Output: 8}}},
			"c": {{Outcome: sim.Aborted, Tokens: sim.Tokens{Input: 32, Output: 70}}},
		},
		Calls: []Call{
			{ID: "a", Account: "acme/app", Status: 200, Done: true, Told: sim.Tokens{Input: 32, Output: 20}, Cost: "0.000112"},
			{ID: "b", Account: "acme/app", Status: 200, HungUp: true, Visible: 5},
			{ID: "c", Account: "acme/app", Status: 200, Visible: 66},
			{ID: "d", Account: "acme/app", Status: 402},
			{},
		},
		Prices: Prices{"1.00", "0.10", "4.00"},
		Ledger: Ledger{
			Records: []Record{whole, left, broken},
			Limits:  []Limit{{stood[0], "1", "0.0001432", "0"}, {stood[1], "76", "76", "0"}},
			Sums:    []Sum{{"acme/app", 2, 50, 26, "0.0001432"}},
		},
	}
}

// TestOracleBelievesTheTruth: and it counts the operator's loss.
func TestOracleBelievesTheTruth(t *testing.T) {
	v := Judge(truth())
	if !v.Ok() {
		t.Errorf("it finds\n%s", v)
	}
	if v.Exact != 1 || v.Posted != 2 || v.Void != 1 || v.Lost != (sim.Tokens{Input: 32, Output: 72}) || v.Loss.Int64() != 320e9 {
		t.Errorf("verdict %+v, loss %s", v, v.Loss)
	}
}

// TestOracleSeesEachLie: one lie of the ledger at a time, each with the words of the finding that must name it.
func TestOracleSeesEachLie(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(*Case)
		says string
	}{
		"an acked record is gone (P1)":            {func(c *Case) { c.Ledger.Records = c.Ledger.Records[1:] }, "P1"},
		"an engine was asked without a hold (I4)": {func(c *Case) { c.Ledger.Records = c.Ledger.Records[:2] }, "I4"},
		"an acked record is void":                 {func(c *Case) { c.Ledger.Records[0].Status = "void" }, "P1"},
		"another charge than the client was told": {func(c *Case) { c.Calls[0].Cost = "0.000113" }, "told that it costs"},
		"another usage than the client was told":  {func(c *Case) { c.Calls[0].Told.Output-- }, "was told"},
		"a femto-unit too much (I7)":              {func(c *Case) { c.Ledger.Records[0].Charge = "0.000112000000001" }, "I7"},
		"one token too few for a whole answer":    {func(c *Case) { c.Ledger.Records[0].Lines[1].Quantity = 19 }, "I6"},
		"more than the engine made (I6)":          {func(c *Case) { c.Ledger.Records[1].Lines[2].Quantity = 9 }, "made only"},
		"more than was held (I6)":                 {func(c *Case) { c.Ledger.Records[1].Bounds.Output = 5 }, "above its hold"},
		"less than the client saw (I6)":           {func(c *Case) { c.Calls[1].Visible = 7 }, "7 tokens and left"},
		"a broken answer is charged":              {func(c *Case) { c.Ledger.Records[1].Outcome = "broken" }, "broken by us"},
		"a void that costs":                       {func(c *Case) { c.Ledger.Records[2].Charge = "1" }, "void, but charged"},
		"a loss larger than what was made":        {func(c *Case) { c.Ledger.Records[2].Usage.Output = 71 }, "metered"},
		"two settlements (I3)":                    {func(c *Case) { c.Ledger.Records[1].Settlements = 2 }, "settled 2 times"},
		"two holds (I3)":                          {func(c *Case) { c.Ledger.Records[1].Holds = 2 }, "held 2 times"},
		"an open hold (I5)":                       {func(c *Case) { c.Ledger.Records[2].Settlements, c.Ledger.Records[2].Status = 0, "held" }, "still open"},
		"a hold on a limit is left (I5)":          {func(c *Case) { c.Ledger.Limits[0].Held = "0.1" }, "I5"},
		"a posting is missing in a limit (I2)":    {func(c *Case) { c.Ledger.Limits[1].Used = "75" }, "I2"},
		"a limit is exceeded (I1)":                {func(c *Case) { c.Ledger.Limits[1].Limit = "75" }, "I1"},
		"a sum is another (I2)":                   {func(c *Case) { c.Ledger.Sums[0].Charge = "0.0001431" }, "the sums are"},
		"a sum is missing (I2)":                   {func(c *Case) { c.Ledger.Sums = nil }, "no sum has them"},
		"a refused request is charged":            {func(c *Case) { c.Calls[0].Status = 402 }, "refused with 402"},
		"recorded for another account":            {func(c *Case) { c.Calls[0].Account = "acme/other" }, "recorded for"},
		"one id for two answers":                  {func(c *Case) { c.Calls[1].ID = "a" }, "two answers"},
	} {
		t.Run(name, func(t *testing.T) {
			k := truth()
			c.lie(k)
			if v := Judge(k); !strings.Contains(v.String(), c.says) {
				t.Errorf("it finds\n%s", v)
			}
		})
	}
}

// TestNodeTotals: a node has what its leaves have.
func TestNodeTotals(t *testing.T) {
	totals, err := NodeTotals(truth().Ledger.Records)
	if err != nil {
		t.Fatal(err)
	}
	if totals["acme"].Int64() != 143_200_000_000 || totals["acme"].Cmp(totals["acme/app"]) != 0 || len(totals) != 2 {
		t.Errorf("totals %v", totals)
	}
}
