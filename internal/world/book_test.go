package world_test

import (
	"strings"
	"testing"

	"talea/internal/price"
)

// A contract's book lies over the public one, whatever is published later, and offers know what their price depends on.
func TestContractBook(t *testing.T) {
	s := open(t)
	text := file(t,
		"accounts:\n", "- {name: contract, currency: EUR, base: public, multiplier: \"0.5\", effective: {from: 2026-01-01T00:00:00+01:00}, prices: [{model: m, meter: input, price: 7}]}\naccounts:\n",
		"{path: acme/small/app}", "{path: acme/small/app, price_book: contract}")
	s.apply(text, false)
	for _, output := range []string{"0.000002", "0.000003"} {
		o, err := s.key("budget-0123456789-canary").Offer("m")
		if err != nil {
			t.Fatal(err)
		}
		row, err := o.Book.Row(o.Query, s.clock.now)
		if err != nil {
			t.Fatal(err)
		}
		s.is("prices", words(row.Rates[0], row.Rates[3]), "0.000007 "+output)
		s.is("query", o.Query, price.Query{Model: "m", SizeClass: "small", GPUKind: "H100-SXM", Region: "eu-de", Organisation: "acme"})
		s.apply(strings.Replace(text, `price: "4.00"`, `price: "6.00"`, 1), false)
		s.reopen()
	}
}

// Where a price depends on the place, only engines at the place that the price is of serve the offering.
func TestPriceByPlace(t *testing.T) {
	s := open(t)
	text := file(t,
		"models:\n", "- {name: far, kind: vllm, url: http://127.0.0.1:9001, region: us}\nmodels:\n",
		"engines: [stub]", "engines: [stub, far]",
		"accounts:\n", "- {name: places, currency: EUR, prices: [{model: m, meter: input, price: 7}, {model: m, meter: input, region: us, price: 8}]}\naccounts:\n",
		"{path: acme/small/app}", "{path: acme/small/app, price_book: places}")
	s.apply(text, false)
	for name, want := range map[string]string{"budget": "1 stub", "good": "2 stub"} {
		o, err := s.key(name + "-0123456789-canary").Offer("m")
		if err != nil {
			t.Fatal(err)
		}
		s.is(name, words(len(o.Engines), o.Engines[0].Name), want)
	}
}

// What a book leaves out is said when it is applied.
func TestBookNotes(t *testing.T) {
	s := open(t)
	p := s.apply(file(t, "accounts:\n", `- name: odd
  currency: EUR
  prices: [{model: m, meter: output, price: 1}]
accounts:
`), false)
	s.is("notes", strings.Join(p.Notes, "\n"), `price book "odd" has a price for model "m", but none for its input: its requests are refused`)
}
