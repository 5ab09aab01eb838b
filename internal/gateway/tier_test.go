package gateway_test

import (
	"strings"
	"testing"

	"talea/internal/usage"
)

// The tier that is billed is the tier that is served, and the answer says it; one that is not sold is refused, before
// anything is held.
func TestServiceTiers(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, prices: `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, price: "4.00"}
  - {model: m, meter: output, service_tier: priority, price: "9.00"}
  service_tiers: {flex: {multiplier: "0.5"}, priority: {multiplier: "2"}}
  windows: [{name: always, from: "00:00", to: "24:00", multiplier: "3"}]
`})
	for _, c := range []struct{ asked, served, multiplier, row, output string }{
		{"", "standard", "3", "/m window=always", "0.000012"},
		{"auto", "standard", "3", "/m window=always", "0.000012"},
		{"standard", "standard", "3", "/m window=always", "0.000012"},
		{"flex", "flex", "1.5", "/m tier=flex window=always", "0.000006"},
		{"priority", "priority", "6", "/m tier=priority window=always", "0.000027"}, // of its own, not multiplied by the tier
	} {
		more := ""
		if c.asked != "" {
			more = `,"service_tier":"` + c.asked + `"`
		}
		p := r.chat("GOOD", say("", more))
		rec := r.record(p)
		said := p.header.Get("X-Service-Tier")
		if p.status != 200 || said != c.served && c.asked != "" || p.header.Get("X-Price-Multiplier") != c.multiplier {
			t.Errorf("tier %q: %d, %v", c.asked, p.status, p.header)
		}
		if last := rec.Lines[len(rec.Lines)-1]; rec.TierServed != c.served || rec.TierAsked != c.asked || !strings.HasSuffix(rec.PriceRow, c.row) ||
			last.Meter != usage.OutputContent || last.UnitPrice.String() != c.output {
			t.Errorf("tier %q: served %q by row %q, %+v", c.asked, rec.TierServed, rec.PriceRow, last)
		}
	}
	for _, tier := range []string{"batch", "scale", "Flex"} {
		p := r.chat("GOOD", say("", `,"service_tier":"`+tier+`"`))
		if p.status != 400 || p.code(t) != "unsupported_parameter" || !strings.Contains(p.body, "flex, priority, standard") {
			t.Errorf("tier %q: %d %s", tier, p.status, p.body)
		}
	}
}
