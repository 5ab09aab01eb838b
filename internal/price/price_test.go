package price

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the program embeds it; the tests must not depend on the machine's

	"talea/internal/resource"
	"talea/internal/usage"
)

// parse reads the books of a file whose section price_books is text.
func parse(text string) ([]*Book, error) {
	doc, err := resource.Parse("book.yaml", []byte("price_books:\n"+text))
	if err != nil {
		return nil, err
	}
	var books []*Book
	for _, n := range doc.Section("price_books") {
		b, err := Parse(n)
		if err != nil {
			return nil, err
		}
		books = append(books, b)
	}
	return books, nil
}

func mustParse(t *testing.T, text string) *Book {
	t.Helper()
	books, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return books[0]
}

const public = `
- name: public-2026
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-11-01T00:00:00+01:00, to: 2026-12-01T00:00:00+01:00}
  price_instant: at_start
  on_disconnect: delivered
  on_platform_fault: delivered
  service_tiers:
    batch: {multiplier: "0.5"}
    standard: {}
    priority: {multiplier: "1.75"}
  prices:
  - {model: vendor/m, meter: output, price: "4.00"}
  - {model: vendor/m, meter: input, price: "1.00", form: flat}
  - {model: vendor/m, meter: input_cache_read, price: "0.10", minimum_charge: "0.0001"}
  - {size_class: large, meter: output_reasoning, price: 6}
  - {size_class: large, meter: output, price: "5"}
  - {size_class: large, meter: input, price: "2"}
  - {size_class: large, meter: request, price: "0.01", per: 1, minimum_charge: "0.5"}
  - {model: odd, meter: work_ms, price: "3.00", per: 3.6e6}
`

var november = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func TestParse(t *testing.T) {
	b := mustParse(t, public)
	if b.Name != "public-2026" || b.Currency != "EUR" || b.Zone != "Europe/Berlin" || b.Pos.Line != 3 ||
		!b.From.Equal(time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC)) || !b.To.Equal(time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)) ||
		b.OnDisconnect != usage.ChargeDelivered || b.OnFault != usage.ChargeDelivered {
		t.Errorf("book is %+v", b)
	}
	b = mustParse(t, "- {name: b, currency: AED, prices: []}")
	if b.Zone != "UTC" || !b.From.IsZero() || !b.To.IsZero() || b.OnDisconnect != usage.ChargeGenerated || b.OnFault != usage.ChargeNothing {
		t.Errorf("book without anything is %+v", b)
	}
}

func TestRow(t *testing.T) {
	b := mustParse(t, public)
	for _, c := range []struct {
		model, class string
		ppm          []int64
		want         string // price of a single unit by leaf class, - where it has none; then minimum and multiplier
	}{
		{"vendor/m", "", nil, "0.000001 0.0000001 0.000001 0.000004 0.000004 - - - - - - 0.0001 1000000"},
		{"vendor/m", "large", nil, "0.000001 0.0000001 0.000001 0.000004 0.000006 - - - 0.01 - - 0.0001 1000000"},
		{"other", "large", nil, "0.000002 0.000002 0.000002 0.000005 0.000006 - - - 0.01 - - 0.5 1000000"},
		{"odd", "", nil, "0 0 0 0 0 - - - - 0.000000833333333 - 0 1000000"},
		{"odd", "", []int64{900_000, 1_100_000}, "0 0 0 0 0 - - - - 0.000000825 - 0 990000"}, // 833333333 × 0.99 would be …824999999.67
		{"vendor/m", "", []int64{500_000}, "0.0000005 0.00000005 0.0000005 0.000002 0.000002 - - - - - - 0.0001 500000"},
		{"vendor/m", "", []int64{1_333_333, 1_333_333}, "0.000001777776889 0.000000177777689 0.000001777776889 0.000007111107556 0.000007111107556 - - - - - - 0.0001 1777777"},
	} {
		row, err := b.Row(Query{Model: c.model, SizeClass: c.class}, november, c.ppm...)
		if err != nil {
			t.Errorf("Row(%s, %s): %v", c.model, c.class, err)
			continue
		}
		var got []string
		for m := range usage.NumMeters {
			if row.Has[m] {
				got = append(got, row.Rates[m].String())
			} else {
				got = append(got, "-")
			}
		}
		got = append(got, row.Minimum.String(), fmt.Sprint(row.Multiplier))
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("Row(%s, %s, %v) is\n%s, want\n%s", c.model, c.class, c.ppm, s, c.want)
		}
		if id := "public-2026@" + b.Version[:16] + "/" + c.model; row.ID != id || row.Model() != c.model {
			t.Errorf("ID is %s of model %s, want %s", row.ID, row.Model(), id)
		}
	}
}

func TestNotPriced(t *testing.T) {
	b := mustParse(t, public)
	for _, c := range []struct {
		model, class string
		at           time.Time
		want         string // "" is priced
	}{
		{"vendor/m", "", b.From, ""},
		{"vendor/m", "", b.To.Add(-1), ""},
		{"vendor/m", "", b.From.Add(-1), "model vendor/m has no price at 2026-10-31T22:59:59Z: the price book is not in force"},
		{"vendor/m", "", b.To, "model vendor/m has no price at 2026-11-30T23:00:00Z: the price book is not in force"},
		{"nobody", "", november, "model nobody has no price"},
		{"nobody", "tiny", november, "model nobody has no price"},
		{"", "", november, "model  has no price"},
	} {
		_, err := b.Row(Query{Model: c.model, SizeClass: c.class}, c.at)
		var unpriced ErrNotPriced
		if (err != nil) != (c.want != "") || err != nil && (err.Error() != c.want || !errors.As(err, &unpriced)) {
			t.Errorf("Row(%q, %q, %s): %v, want %q", c.model, c.class, c.at, err, c.want)
		}
	}
	for _, ppm := range [][]int64{{0}, {-1}, {1, 1, 1, 1}, {1e9, 1e9, 1e9, 1e9}, {2, 2, 2, 2, 2}} {
		if _, err := b.Row(Query{Model: "vendor/m"}, november, ppm...); err == nil {
			t.Errorf("multipliers %v gave a row", ppm)
		}
	}
}

func TestTier(t *testing.T) {
	b := mustParse(t, public)
	for _, c := range []struct {
		name string
		ppm  int64
		ok   bool
	}{{"batch", 500_000, true}, {"standard", one, true}, {"priority", 1_750_000, true}, {"flex", 0, false}, {"", 0, false}} {
		if ppm, ok := b.Tier(c.name, november); ok != c.ok || ok && ppm != c.ppm {
			t.Errorf("Tier(%q) = %d, %v", c.name, ppm, ok)
		}
	}
	if ppm, ok := mustParse(t, "- {name: b, currency: EUR, prices: []}").Tier("standard", november); ppm != one || !ok {
		t.Errorf("a book without tiers has no standard tier")
	}
}

// F091: each fault is named at its line, and every decimal is exact or refused.
func TestRefused(t *testing.T) {
	const head = "- name: b\n  currency: EUR\n"
	price := func(members string) string { return head + "  prices:\n  - {model: m, meter: input, " + members + "}" }
	for _, c := range []struct{ text, want string }{
		{price(`price: "-1"`), `book.yaml:5:5: price -1 is negative`},
		{price(`price: "1e12"`), `book.yaml:5:37: price: "1e12" is not a decimal amount`},
		{price(`price: "1000000000001"`), `book.yaml:5:5: price is above 1000000 per single unit`},
		{price(`price: "0,10"`), `book.yaml:5:37: "price" must be a decimal number such as 0.10`},
		{price(`price: "0.123456789012345678901234567890"`), `book.yaml:5:37: price: amount "0.123456789012345678901234567890" has 30 decimals`},
		{price(`price: 123456789012345678901234567890`), `book.yaml:5:37: price: amount "123456789012345678901234567890" is too large`},
		{price(`price: "0.0000000004"`), `book.yaml:5:5: price 0.0000000004 per 1000000 is less than half a femto-unit`},
		{price(`price: "1", per: 0`), `book.yaml:5:5: price is per 0 units`},
		{price(`price: "1", per: -5`), `book.yaml:5:5: price is per -5 units`},
		{price(`price: "1", per: 0.5`), `book.yaml:5:47: per is a whole number`},
		{price(`price: "1", per: 1e16`), `book.yaml:5:5: price is per 10000000000000000 units; at most 10^15`},
		{price(`price: "1", minimum_charge: "-1"`), `book.yaml:5:5: minimum_charge: price -1 is negative`},
		{price(`price: "1", minimum_charge: "1e3"`), `book.yaml:5:58: minimum_charge: "1e3"`},
		{price(`price: "1", minimum_charge: "1000001"`), `minimum_charge: price is above 1000000`},
		{price(`per: 1`), `book.yaml:5:5: price lacks the key "price"`},
		{price(`price: "1", size_class: large`), `book.yaml:5:5: a price is for a model, a family or a size_class, one of the three`},
		{head + "  prices:\n  - {meter: input, price: 1}", `book.yaml:5:5: a price is for a model, a family or a size_class, one of the three`},
		{head + "  prices:\n  - {model: m, meter: inptu, price: 1}", `book.yaml:5:5: unknown meter "inptu"; did you mean "input"?`},
		{head + "  prices:\n  - {model: m, meter: tokens, price: 1}", `unknown meter "tokens"; known are [input input_cache_read`},
		{head + "  prices:\n  - {model: m, meter: output_content, price: 1}", `unknown meter "output_content"`},
		{price(`price: "1"`) + "\n  - {model: m, meter: input, price: 1}", `book.yaml:6:5: model m has two prices for input`},
		{price(`price: 1, minimum_charge: 1`) + "\n  - {model: m, meter: output, price: 1, minimum_charge: 2}", `book.yaml:6:5: model m has two minimum charges`},
		{price(`price: "1", pirce: "2"`), `unknown key "pirce" in price; did you mean "price"?`},
		{head + "  price_instant: later\n  prices: []", `price_instant is at_start, split_by_emission or cheapest, not "later"`},
		{head + "  on_disconnect: free\n  prices: []", `on_disconnect is generated, delivered or nothing, not "free"`},
		{head + "  on_platform_fault: free\n  prices: []", `on_platform_fault is nothing or delivered, not "free"`},
		{head + "  on_platform_fault: generated\n  prices: []", `on_platform_fault is nothing or delivered`},
		{head + "  timezone: Europe/Belrin\n  prices: []", `book.yaml:2:3: timezone: time zone "Europe/Belrin"`},
		{head + "  timezone: Local\n  prices: []", `timezone: time zone "Local"`},
		{head + "  effective: {from: 2026-02-01T00:00:00Z, to: 2026-02-01T00:00:00Z}\n  prices: []", `not after its beginning`},
		{head + "  effective: {to: 9999-12-31T23:00:00-05:00}\n  prices: []", `effective has the year 10000`},
		{head + "  service_tiers: {batch: {multiplier: \"0\"}}\n  prices: []", `book.yaml:4:26: service tier batch: multiplier is not above 0`},
		{head + "  service_tiers: {batch: {multiplier: \"-0.5\"}}\n  prices: []", `multiplier is not above 0`},
		{head + "  service_tiers: {batch: {multiplier: \"1001\"}}\n  prices: []", `at most 1000`},
		{head + "  service_tiers: {batch: {multiplier: \"99999\"}}\n  prices: []", `book.yaml:4:39: service tier batch: multiplier 99999 is not a factor up to 1000`},
		{head + "  service_tiers: {batch: {multiplier: \"0.1234567\"}}\n  prices: []", `at most 6 decimals`},
		{head + "  service_tiers: {batch: {multiplier: \"0.000001\"}}\n  prices:\n  - {model: m, meter: input, price: \"0.000001\"}", `book.yaml:6:5: service tier batch: price 0.000001 per 1000000 is less than half a femto-unit`},
		{head + "  service_tiers: {fast: {multiplier: 2}}\n  prices:\n  - {model: m, meter: request, price: 600000, per: 1}", `service tier fast: price is above 1000000`},
		{"- {name: a/b, currency: EUR, prices: []}", `book.yaml:2:3: price book name "a/b"`},
		{"- {name: \"\", currency: EUR, prices: []}", `price book name ""`},
		{"- {name: b, currency: eur, prices: []}", `currency "eur" is not an ISO 4217 code`},
		{"- {name: b, currency: EUR}", `lacks the key "prices"`},
		{"- {name: b, prices: []}", `lacks the key "currency"`},
	} {
		_, err := parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s\ngave %v, want one error with %s", c.text, err, c.want)
		}
	}
}

func TestEveryFaultIsReported(t *testing.T) {
	_, err := parse("- name: b\n  currency: x\n  load: {steps: [\"1\", 2], up_above: 1, down_below: 2, interval: 15m}\n  service_tiers: {batch: {multiplier: 5000000}}\n  prices:\n" +
		"  - {model: m, meter: input, price: -1}\n  - {model: m, meter: output, price: 1, form: volume}")
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("want five faults, one a line, have:\n%v", err)
	}
}

// The hash is of what the book says, not of how its file is laid out.
func TestVersion(t *testing.T) {
	b := mustParse(t, public)
	same := []string{
		strings.Replace(public, `price: "1.00"`, `price: 1.000000`, 1),
		strings.Replace(public, `  - {size_class: large, meter: input, price: "2"}`+"\n", "", 1) + `  - {price: "2", meter: input, size_class: large}`,
		strings.Replace(public, "2026-11-01T00:00:00+01:00", "2026-10-31T23:00:00Z", 1),
		strings.Replace(public, "  price_instant: at_start\n", "  # a comment\n", 1),
	}
	for _, text := range same {
		if got := mustParse(t, text); got.Version != b.Version {
			t.Errorf("version differs for the same book, laid out as %s\n%s\n%s", text, got.Canonical(), b.Canonical())
		}
	}
	for old, new := range map[string]string{
		`price: "1.00"`: `price: "1.01"`, "name: public-2026": "name: public", "currency: EUR": "currency: USD", "Europe/Berlin": "Europe/Paris",
		"2026-12-01T00:00:00+01:00": "2026-12-01T00:00:00Z", "on_disconnect: delivered": "on_disconnect: nothing",
		"on_platform_fault: delivered": "on_platform_fault: nothing", `"0.5"`: `"0.51"`, "per: 1,": "per: 2,", `minimum_charge: "0.0001"`: `minimum_charge: "0.0002"`,
		"vendor/m, meter: output": "vendor/n, meter: output", "size_class: large, meter: output,": "size_class: huge, meter: output,", "batch": "flex",
	} {
		if !strings.Contains(public, old) {
			t.Fatalf("no %s", old)
		}
		if got := mustParse(t, strings.Replace(public, old, new, 1)); got.Version == b.Version {
			t.Errorf("%s for %s has the same version", new, old)
		}
	}
	// Written down, so that a change of the canonical form, which would orphan every stored book, does not go unseen.
	const want = `{"name":"b","currency":"EUR","timezone":"UTC","from":"2026-01-01T00:00:00Z","on_disconnect":"generated","on_platform_fault":"nothing","service_tiers":[{"name":"batch","multiplier_ppm":500000}],` +
		`"prices":[{"size_class":"large","meter":"request","price":"0.5","per":1,"minimum_charge":"0.25"},{"model":"m","meter":"input","price":"1","per":1000000}]}`
	b = mustParse(t, `- {name: b, currency: EUR, effective: {from: 2026-01-01T00:00:00Z}, service_tiers: {batch: {multiplier: 0.5}}, prices: [`+
		`{model: m, meter: input, price: 1}, {size_class: large, meter: request, price: 0.50, per: 1, minimum_charge: 0.25}]}`)
	if got := string(b.Canonical()); got != want {
		t.Errorf("canonical form is\n%s, want\n%s", got, want)
	}
	if b.Version != "fac4e01acc47ddfa1a3564703116c225aa20e1fc1b35931cb0ceac00868c8d14" {
		t.Errorf("version is %s", b.Version)
	}
}

func TestCanonical(t *testing.T) {
	b := mustParse(t, public)
	back, err := ParseCanonical(b.Canonical())
	if err != nil {
		t.Fatal(err)
	}
	b.Pos = resource.Pos{}
	if !reflect.DeepEqual(back, b) {
		t.Errorf("read back as %+v, want %+v", back, b)
	}
	text := string(b.Canonical())
	for old, new := range map[string]string{
		`"1"`:                     `"1.0"`,                    // another form of the same number
		`"per":1,`:                `"per":1,"form":"volume",`, // of a later version
		`"name":"public-2026"`:    `"name":"public-2026","base":"x"`,
		`"delivered"`:             `"later"`,
		`"multiplier_ppm":500000`: `"multiplier_ppm":0`,
		`"name":"batch"`:          `"name":""`,
		`"meter":"input"`:         `"meter":"inputs"`,
		`"EUR"`:                   `"eur"`,
		`"price":"5"`:             `"price":"-5"`,
		`"price":"6"`:             `"price":6`,
		`{"model":"odd"`:          `null,{"model":"odd"`,
		`}]}`:                     `}]} `,
		"23:00:00Z":               "24:00:00Z",
	} {
		if !strings.Contains(text, old) {
			t.Fatalf("no %s in %s", old, text)
		}
		if _, err := ParseCanonical([]byte(strings.Replace(text, old, new, 1))); err == nil {
			t.Errorf("read with %s for %s", new, old)
		}
	}
}

func FuzzParseCanonical(f *testing.F) {
	f.Add([]byte(`{"name":"b","currency":"EUR","timezone":"UTC","on_disconnect":"generated","on_platform_fault":"nothing","prices":[{"model":"m","meter":"input","price":"1","per":1000000}]}`))
	f.Add([]byte(`{"prices":[null]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseCanonical(text)
		if err == nil && !bytes.Equal(b.Canonical(), text) {
			t.Fatalf("%s is written back as %s", text, b.Canonical())
		}
	})
}

// F092: versions of a book neither overlap nor leave a gap. I7.
func TestCheck(t *testing.T) {
	book := func(name, currency, from, to string) string {
		s := "- {name: " + name + ", currency: " + currency + ", prices: [], effective: {from: 2026-" + from + "T00:00:00Z"
		if to != "" {
			s += ", to: 2026-" + to + "T00:00:00Z"
		}
		return s + "}}\n"
	}
	for _, c := range []struct{ text, want string }{
		{book("a", "EUR", "01-01", "02-01") + book("b", "USD", "01-15", "") + book("a", "EUR", "02-01", ""), ""},
		{book("a", "EUR", "02-01", "") + book("a", "EUR", "01-01", "02-01"), ""},
		{book("a", "EUR", "01-01", "02-02") + book("a", "EUR", "02-01", ""), "book.yaml:3:3: price book a overlaps its version before, which must end with `to: 2026-02-01T00:00:00Z`"},
		{book("a", "EUR", "01-01", "") + book("a", "EUR", "02-01", ""), "book.yaml:3:3: price book a overlaps"},
		{book("a", "EUR", "01-01", "01-31") + book("a", "EUR", "02-01", ""), "book.yaml:3:3: price book a leaves a gap: its version before ends at 2026-01-31T00:00:00Z and this one begins at 2026-02-01T00:00:00Z"},
		{book("a", "EUR", "01-01", "") + book("a", "EUR", "01-01", ""), "book.yaml:3:3: price book a overlaps"},
		{book("a", "EUR", "01-01", "02-01") + book("a", "USD", "02-01", ""), "book.yaml:3:3: price book a is in USD and its version before in EUR"},
	} {
		books, err := parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		err = Check(books)
		if (err != nil) != (c.want != "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("Check of\n%s= %v, want %s", c.text, err, c.want)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	books, err := parse(public)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := books[0].Row(Query{Model: "vendor/m", SizeClass: "large"}, november); err != nil {
			b.Fatal(err)
		}
	}
}
