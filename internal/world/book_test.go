package world_test

import (
	"strings"
	"testing"
	"time"

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

// A book with every member that a book can have is accepted by the path, not by the tool alone.
func TestWholeBook(t *testing.T) {
	s := open(t)
	s.apply(file(t, "accounts:\n", `- name: whole
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-01-01T00:00:00+01:00}
  price_instant: at_start
  on_disconnect: generated
  on_platform_fault: nothing
  calendars:
    holidays-de: [2026-12-25, 2026-12-26]
  windows:
  - {name: night, days: [mon-sun], from: "22:00", to: "06:00", multiplier: "0.6"}
  - {name: peak,  days: [mon-fri], from: "09:00", to: "12:00", except: holidays-de, multiplier: "1.25"}
  load:
    steps: ["0.85", "1", "1.25", "1.5"]
    up_above: "0.85"
    down_below: "0.65"
    interval: 15m
    announce: 1
  service_tiers:
    batch: {multiplier: "0.5"}
    flex: {multiplier: "0.5"}
    standard: {}
    priority: {multiplier: "1.75"}
  prices:
  - {model: m, meter: input, price: "0.11"}
  - {model: m, meter: input_cache_read, price: "0.011"}
  - {model: m, meter: output, form: graduated, scope: organisation, window: month,
     steps: [{up_to: 10000000, price: "0.50"}, {up_to: 100000000, price: "0.40"}, {price: "0.30"}]}
  - {size_class: large, meter: input, form: volume, steps: [{up_to: 100000000, price: "0.40"}, {price: "0.30"}]}
  - {model: embed, meter: input, form: package, package: 1000000, price: "2.00"}
  - {model: llama-405b, meter: input, price: "1.25", long_context: [{over: 200000, price: "2.50"}]}
  - {model: tiny, meter: request, price: "0", minimum_charge: "0.0001"}
  - {model: dedicated-70b, meter: work_ms, price: "3.00", per: 3600000}
accounts:
`, "{path: acme/small/app}", "{path: acme/small/app, price_book: whole}"), false)
	s.reopen()
	o, err := s.key("budget-0123456789-canary").Offer("m")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"2026-11-24T10:00:00+01:00": "0.0000001375 0.000000625 2026-11-24T08:00:00Z 2026-11-24T11:00:00Z",
		"2026-11-24T02:00:00+01:00": "0.000000066 0.0000003 2026-11-23T21:00:00Z 2026-11-24T05:00:00Z",
	} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		row, err := o.Book.Row(o.Query, instant)
		if err != nil {
			t.Fatal(err)
		}
		s.is(at, words(row.Rates[0], row.Forms[0].Steps[0].Rate, row.From.Format(time.RFC3339), row.To.Format(time.RFC3339)), want)
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
