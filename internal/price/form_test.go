package price

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"talea/internal/resource"
	"talea/internal/usage"
)

// sample has every member that a price book can have.
const sample = `
- name: public-2026
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-11-01T00:00:00+01:00}
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
  - {model: llama-8b, meter: input,  price: "0.11"}
  - {model: llama-8b, meter: input_cache_read, price: "0.011"}
  - {model: llama-8b, meter: output, price: "0.21"}
  - {size_class: large, meter: output, form: graduated, scope: organisation, window: month,
     steps: [{up_to: 10000000, price: "0.50"}, {up_to: 100000000, price: "0.40"}, {price: "0.30"}]}
  - {model: qwen-32b, meter: input, form: volume, scope: organisation, window: month, steps: [{up_to: 100000000, price: "0.40"}, {price: "0.30"}]}
  - {model: embed, meter: input, form: package, package: 1000000, price: "2.00"}
  - {model: llama-405b, meter: input, price: "1.25", long_context: [{over: 200000, price: "2.50"}]}
  - {model: tiny, meter: request, price: "0", minimum_charge: "0.0001"}
  - {model: dedicated-70b, meter: work_ms, price: "3.00", per: 3600000}
`

func TestForms(t *testing.T) {
	b := mustParse(t, sample)
	at := time.Date(2026, 11, 24, 19, 0, 0, 0, time.UTC) // 20:00 in Berlin: no window
	for _, c := range []struct {
		q    Query
		load []int64
		want string
	}{
		{Query{Model: "x", SizeClass: "large"}, nil, "graduated 11000 size class large output organisation month Europe/Berlin 0 10000000:0.0000005+0 100000000:0.0000004+0 0:0.0000003+0"},
		{Query{Model: "x", SizeClass: "large", Tier: "batch"}, []int64{1_250_000}, "graduated 11000 size class large output organisation month Europe/Berlin 0 10000000:0.0000003125+0 100000000:0.00000025+0 0:0.0000001875+0"},
		{Query{Model: "qwen-32b"}, nil, "volume 111 model qwen-32b input organisation month Europe/Berlin 0 100000000:0.0000004+0 0:0.0000003+0"},
		{Query{Model: "embed", Tier: "priority"}, nil, "package 111 model embed input organisation month Europe/Berlin 1000000 0:3.5+0"},
		{Query{Model: "llama-405b"}, nil, "long_context 111   unknown  0 200000:0.00000125+0 0:0.0000025+0"},
		{Query{Model: "llama-8b"}, nil, ""},
	} {
		row, err := b.Row(c.q, at, c.load...)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		var got []string
		for _, f := range row.Forms {
			text := fmt.Sprintf("%s %b %s %s %s %s %d", kindNames[f.Kind], f.Meters, f.Counter, f.Scope, f.Window, f.Zone, f.Package)
			for _, s := range f.Steps {
				text += fmt.Sprintf(" %d:%s+%s", s.UpTo, s.Rate, s.Fee)
			}
			got = append(got, text)
		}
		if s := strings.Join(got, "\n"); s != c.want {
			t.Errorf("%+v:\n%s, want\n%s", c.q, s, c.want)
		}
	}
	if back, err := ParseCanonical(b.Canonical()); err != nil || back.Version != b.Version {
		t.Errorf("read back: %v", err)
	}
}

// Every form but the flat one, and every condition, is checked, with its line (F091: a gap or an overlap of steps is no
// price that somebody meant).
func TestFormsRefused(t *testing.T) {
	const head = "- name: b\n  currency: EUR\n"
	price := func(members string) string { return head + "  prices:\n  - {model: m, meter: input, " + members + "}" }
	steps := func(text string) string { return price("form: graduated, steps: [" + text + "]") }
	window := func(text string) string {
		return head + "  calendars: {c: [2026-12-25]}\n  windows:\n  - {name: a, from: \"09:00\", to: \"12:00\", days: mon-fri, multiplier: 2}\n  - {" + text + "}\n  prices: []"
	}
	for _, c := range []struct{ text, want string }{
		{steps(`{up_to: 10, price: 1}`), `book.yaml:5:5: the steps leave a gap: nothing is said above 10`},
		{steps(`{price: 1}, {price: 2}`), `book.yaml:5:5: only the last step has no up_to`},
		{steps(`{up_to: 10, price: 1}, {up_to: 10, price: 2}, {price: 3}`), `book.yaml:5:5: the steps overlap: up_to 10 comes after 10`},
		{steps(`{up_to: -1, price: 1}, {price: 3}`), `the steps overlap: up_to -1 comes after 0`},
		{steps(``), `a graduated price needs steps`},
		{steps(`{price: 1, flat: -1}`), `flat: price -1 is negative`},
		{steps(`{price: -1}`), `price -1 is negative`},
		{steps(`{price: "0.0000000001"}`), `less than half a femto-unit`},
		{steps(`{up_to: 0.5, price: 1}, {price: 1}`), `book.yaml:5:63: up_to is a whole number, not 0.5`},
		{price(`form: graduated, price: 1, steps: [{price: 1}]`), `book.yaml:5:54: a graduated price has its prices in its steps`},
		{price(`form: volume, steps: [{price: 1, flat: 5}]`), `a step of a volume price has no flat charge`},
		{price(`form: volume, steps: [{price: 1}], long_context: [{over: 1, price: 1}]`), `a volume price has no long_context`},
		{price(`form: volume, steps: [{price: 1}], package: 5`), `a volume price has no package`},
		{price(`form: volume, scope: galaxy, steps: [{price: 1}]`), `scope is organisation, contract or request, not "galaxy"`},
		{price(`form: volume, scope: request, window: month, steps: [{price: 1}]`), `a price of scope request has no window`},
		{price(`form: volume, window: fortnight, steps: [{price: 1}]`), `unknown window "fortnight"`},
		{price(`form: package, price: 2`), `package is of 0 units`},
		{price(`form: package, price: 2, package: 10, per: 5`), `it has no per`},
		{price(`form: package, price: 2, package: 10, steps: [{price: 1}]`), `a package has one price, no steps`},
		{price(`price: 1, steps: [{price: 1}]`), `steps, scope, window and package need a form`},
		{price(`price: 1, package: 3`), `need a form`},
		{price(`price: 1, long_context: [{over: 5, price: 1}, {over: 5, price: 2}]`), `long_context overlaps: over 5 comes after 5`},
		{price(`price: 1, service_tier: gold`), `model m service_tier gold: the book has no service tier "gold"`},
		{price(`price: 1, region: "a b"`), `which has a blank in it`},
		{price(`price: 1, region: eu`) + "\n  - {model: m, meter: input, gpu_kind: H100, price: 1}", `book.yaml:6:5: two prices for input match equally well, one for model m region eu and one for model m gpu_kind H100, the first on line 5: add one for both conditions`},
		{price(`price: 1, region: eu`) + "\n  - {model: m, meter: input, region: eu, price: 1}", `book.yaml:6:5: model m region eu has two prices for input, the first on line 5`},
		{price(`price: 1, region: eu, minimum_charge: 1`) + "\n  - {model: m, meter: output, gpu_kind: H100, price: 1, minimum_charge: 2}", `book.yaml:6:5: model m gpu_kind H100 has two minimum charges`},
		{head + "  base: b\n  prices: []", `it is its own base`},
		{head + "  multiplier: \"0.9\"\n  prices: []", `multiplier is for what a book inherits: it needs a base`},
		{head + "  base: a\n  multiplier: \"0\"\n  prices: []", `multiplier is not above 0`},
		{head + "  base: a\n  multiplier: \"0.1234567\"\n  prices: []", `book.yaml:5:15: multiplier: multiplier 0.1234567 is not a factor`},
		{head + "  calendars: {c: []}\n  prices: []", `calendar c: it has no days`},
		{head + "  calendars: {c: [2026-02-30]}\n  prices: []", `book.yaml:2:3: calendar c: "2026-02-30" is not a day that there is`},
		{head + "  calendars: {c: [2026-12-25, 2026-12-25]}\n  prices: []", `2026-12-25 is given twice`},
		{head + "  calendars: {c: [0001-01-01]}\n  prices: []", `is not a day that there is`},
		{window(`name: b, from: "11:59", to: "13:00", multiplier: 2`), `book.yaml:7:5: windows a and b overlap on Mondays`},
		{window(`name: b, from: "23:00", to: "09:01", days: sun, multiplier: 2`), `windows a and b overlap on Mondays`},
		{window(`name: b, from: "09:00", to: "10:00", days: "sat,sun-mon", multiplier: 2`), `windows a and b overlap on Mondays`},
		{window(`name: b, from: "09:00", to: "10:00", days: [fri], except: c, multiplier: 2`), `windows a and b overlap on Fridays`},
		{window(`name: a, from: "13:00", to: "14:00", multiplier: 2`), `there are two windows a`},
		{window(`name: b, from: "9:00", to: "14:00", multiplier: 2`), `from: "9:00" is not a time of day`},
		{window(`name: b, from: "24:00", to: "14:00", multiplier: 2`), `window b: it does not end after its beginning`},
		{window(`name: b, from: "13:00", to: "25:00", multiplier: 2`), `to: "25:00" is not a time of day`},
		{window(`name: b, from: "13:00", to: "14:00", days: [fridays], multiplier: 2`), `days are like mon-fri`},
		{window(`name: b, from: "13:00", to: "14:00", except: d, multiplier: 2`), `there is no calendar "d"`},
		{window(`name: b, from: "13:00", to: "14:00", multiplier: 0`), `multiplier is not above 0`},
		{window(`name: b, from: "13:00", to: "14:00"`), `lacks the key "multiplier"`},
		{head + "  service_tiers: {low: {multiplier: \"0.001\"}}\n  windows: [{name: w, from: \"00:00\", to: \"01:00\", multiplier: \"0.001\"}]\n  prices:\n  - {model: m, meter: input, price: \"0.000001\"}",
			`book.yaml:2:3: model m, input, under all multipliers together: price 0.000001 per 1000000 is less than half a femto-unit under multipliers`},
	} {
		_, err := parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s\ngave %v, want one error with %s", c.text, err, c.want)
		}
	}
	for _, text := range []string{
		window(`name: b, from: "12:00", to: "09:00", multiplier: 2`),                           // touches on both sides
		window(`name: b, from: "09:00", to: "12:00", days: sat-sun, multiplier: 2`),            // other days
		window(`name: b, from: "22:00", to: "09:00", days: [sun-thu], multiplier: 2`),          // ends as the other begins
		price(`price: 1, region: eu`) + "\n  - {model: m, meter: input, region: us, price: 1}", // exclude each other
		price(`price: 1, region: eu`) + "\n  - {model: m, meter: input, gpu_kind: A, price: 1}\n  - {model: m, meter: input, gpu_kind: A, region: eu, price: 1}",
	} {
		if _, err := parse(text); err != nil {
			t.Errorf("%s\ngave %v", text, err)
		}
	}
}

// The most specific price counts: model before family before size class, then the one with the most conditions.
func TestSelection(t *testing.T) {
	b := mustParse(t, `
- name: b
  currency: EUR
  service_tiers: {priority: {multiplier: 2}}
  prices:
  - {size_class: large, meter: input, price: 1}
  - {size_class: large, meter: input, organisation: acme, price: 2}
  - {family: llama, meter: input, price: 3}
  - {family: llama, meter: input, region: eu, price: 4}
  - {model: m, meter: input, price: 5}
  - {model: m, meter: input, service_tier: priority, price: 6}
  - {model: m, meter: input, service_tier: priority, organisation: acme, price: 7}
  - {model: m, meter: input, gpu_kind: H100, region: eu, organisation: globex, price: 8}
`)
	for want, q := range map[string]Query{
		"0.000001": {Model: "x", SizeClass: "large"},
		"0.000002": {Model: "x", SizeClass: "large", Tier: "priority", Organisation: "globex"}, // 1 × 2
		"0.000003": {Model: "x", Family: "llama", SizeClass: "large", Organisation: "acme"},
		"0.000004": {Model: "x", Family: "llama", SizeClass: "large", Region: "eu"},
		"0.000005": {Model: "m", Family: "llama", SizeClass: "large", Region: "eu"},
		"0.000006": {Model: "m", Tier: "priority"},
		"0.000007": {Model: "m", Tier: "priority", Organisation: "acme"},
		"0.000008": {Model: "m", GPUKind: "H100", Region: "eu", Organisation: "globex"},
		"0.000016": {Model: "m", GPUKind: "H100", Region: "eu", Organisation: "globex", Tier: "priority"}, // 8 × 2: three conditions before one
	} {
		row, err := b.Row(q, november)
		if err != nil || row.Rates[usage.InputUncached].String() != want {
			t.Errorf("%+v costs %s, %v, want %s", q, row.Rates[usage.InputUncached], err, want)
		}
	}
	if !b.ByPlace() || mustParse(t, public).ByPlace() {
		t.Error("which book has prices by place?")
	}
}

// A contract's book lies over its base: what it has itself counts as it stands, the rest is multiplied by its factor.
func TestContract(t *testing.T) {
	const text = `
- name: public
  currency: EUR
  effective: {from: 2026-01-01T00:00:00Z, to: 2026-12-01T00:00:00Z}
  service_tiers: {batch: {multiplier: "0.5"}}
  windows: [{name: morning, from: "06:00", to: "12:00", multiplier: 2}]
  prices:
  - {model: m, meter: input, price: 1, minimum_charge: 10}
  - {model: m, meter: input_cache_read, price: "0.10"}
  - {model: m, meter: output, form: graduated, steps: [{up_to: 10, price: 4, flat: 5}, {price: 3}]}
- name: public
  currency: EUR
  effective: {from: 2026-12-01T00:00:00Z}
  prices:
  - {model: m, meter: input, price: 2}
- name: acme
  currency: EUR
  effective: {from: 2026-02-01T00:00:00Z}
  base: public
  multiplier: "0.9"
  service_tiers: {batch: {multiplier: "0.4"}}
  prices:
  - {model: m, meter: input, price: "0.70"}
`
	books, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	linked := Link(books, func(b *Book, err error) { t.Error(b.Name, err) })
	b := linked[2]
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		tier string
		at   time.Time
		want string
	}{
		{"", at, "0.0000007 0.00000018 7.2 4.5 9 window=morning"},
		{"batch", at, "0.00000028 0.000000072 2.88 4.5 9 tier=batch window=morning"},
		{"", at.Add(4 * time.Hour), "0.0000007 0.00000009 3.6 4.5 9"},
		{"", at.AddDate(0, 1, 0), "0.0000007 0.0000007 - 0"},
	} {
		row, err := b.Row(Query{Model: "m", Tier: c.tier}, c.at)
		if err != nil {
			t.Errorf("%s at %s: %v", c.tier, c.at, err)
			continue
		}
		got := row.Rates[usage.InputUncached].String() + " " + row.Rates[usage.InputCacheRead].String()
		if len(row.Forms) > 0 {
			got += " " + row.Forms[0].Steps[0].Rate.Times(1_000_000).String() + " " + row.Forms[0].Steps[0].Fee.String()
		} else {
			got += " -"
		}
		_, suffix, _ := strings.Cut(row.ID, "/m")
		if got += " " + row.Minimum.String() + suffix; got != c.want || !strings.HasPrefix(row.ID, "acme@"+b.Version[:16]+"+public@") {
			t.Errorf("%s at %s: %s by %s, want %s", c.tier, c.at, got, row.ID, c.want)
		}
		if !row.Holds(c.at) || row.Holds(row.From.Add(-1)) || !row.To.IsZero() && row.Holds(row.To) {
			t.Errorf("row is right from %s to %s, which is not about %s", row.From, row.To, c.at)
		}
	}
	for old, c := range map[string]struct{ new, want string }{
		"base: public":   {"base: pubic", `its base "pubic" is not a price book that there is`},
		"base: public\n": {"base: acme2\n", `its base "acme2"`},
		"effective: {from: 2026-02-01T00:00:00Z}\n  base": {"effective: {from: 2025-02-01T00:00:00Z}\n  base", `there is a gap: its base public is not in force before 2026-01-01T00:00:00Z`},
		"effective: {from: 2026-12-01T00:00:00Z}":         {"effective: {from: 2026-12-01T00:00:00Z, to: 2027-01-01T00:00:00Z}", `there is a gap: its base public is not in force from 2027-01-01T00:00:00Z`},
		"- name: acme\n  currency: EUR":                   {"- name: acme\n  currency: USD", `it is in USD, but its base public in EUR`},
		"{model: m, meter: input, price: \"0.70\"}":       {"{model: m, meter: input, service_tier: gold, price: 1}", `service tier "gold", which neither it nor its base public has`},
		`multiplier: "0.9"`:                               {`multiplier: "0.000001"`, ``},
	} {
		changed := strings.Replace(text, old, c.new, 1)
		if changed == text {
			t.Fatalf("no %s", old)
		}
		books, err := parse(changed)
		if err != nil {
			t.Fatal(err)
		}
		var faults []string
		Link(books, func(_ *Book, err error) { faults = append(faults, err.Error()) })
		if c.want == "" && len(faults) > 0 || c.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], c.want)) {
			t.Errorf("%s for %s: %q, want %s", c.new, old, faults, c.want)
		}
	}
}

// DeepSeek's calendar: dear on weekdays but public holidays, 09:00 to 12:00 and 14:00 to 18:00 in Beijing.
func TestDeepSeek(t *testing.T) {
	b := mustParse(t, `
- name: deepseek
  currency: USD
  timezone: Asia/Shanghai
  calendars: {holidays-cn: [2026-10-01, 2026-10-02, 2026-10-05, 2026-10-06, 2026-10-07]}
  windows:
  - {name: forenoon, days: mon-fri, from: "09:00", to: "12:00", except: holidays-cn, multiplier: 2}
  - {name: afternoon, days: mon-fri, from: "14:00", to: "18:00", except: [holidays-cn], multiplier: 2}
  prices: [{model: m, meter: input, price: 1}]
`)
	dear := map[string]bool{}
	for at := time.Date(2026, 9, 29, 16, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 10, 9, 16, 0, 0, 0, time.UTC)); at = at.Add(30 * time.Minute) {
		row, err := b.Row(Query{Model: "m"}, at)
		if err != nil || !row.Holds(at) {
			t.Fatal(row, err)
		}
		dear[at.In(b.zone).Format("Mon 01-02 15:04")] = row.Multiplier == 2*one
	}
	for at, want := range map[string]bool{
		"Wed 09-30 08:30": false, "Wed 09-30 09:00": true, "Wed 09-30 11:30": true, "Wed 09-30 12:00": false, "Wed 09-30 13:30": false,
		"Wed 09-30 14:00": true, "Wed 09-30 17:30": true, "Wed 09-30 18:00": false, "Thu 10-01 10:00": false, "Fri 10-02 15:00": false,
		"Sat 10-03 10:00": false, "Sun 10-04 10:00": false, "Wed 10-07 10:00": false, "Thu 10-08 10:00": true, "Fri 10-09 14:00": true,
	} {
		if got, ok := dear[at]; !ok || got != want {
			t.Errorf("%s is dear: %v (%v), want %v", at, got, ok, want)
		}
	}
}

// A row is right for its whole stretch of time and no longer, over midnight, over holidays and over the change of clocks:
// each quarter of an hour of two years is looked up by itself, and by the clock on the wall.
func TestWindowsByTheQuarterHour(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo", "UTC"} {
		b := mustParse(t, `
- name: b
  currency: EUR
  timezone: `+zone+`
  calendars: {h: [2026-03-29, 2026-10-25, 2026-12-25]}
  windows:
  - {name: night, days: sun-thu, from: "22:00", to: "06:00", except: h, multiplier: 2}
  - {name: noon, from: "11:45", to: "13:15", multiplier: 3}
  - {name: late, days: "fri,sat", from: "23:30", to: "02:30", multiplier: 4}
  prices: [{model: m, meter: input, price: 1}]
`)
		var row Row
		var err error
		for at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2028; at = at.Add(15 * time.Minute) {
			if !row.Holds(at) || row.ID == "" {
				if row, err = b.Row(Query{Model: "m"}, at); err != nil || !row.Holds(at) {
					t.Fatal(zone, at, row, err)
				}
			}
			if want := onTheWall(b, at); row.Multiplier != want {
				// The wall shows some times twice, and a window that begins or ends in them does so at the first.
				if _, before := at.Add(-3 * time.Hour).In(b.zone).Zone(); before == offsetOf(b, at) {
					t.Fatalf("%s: at %s the multiplier is %d, on the wall %d", zone, at.In(b.zone), row.Multiplier, want)
				}
			}
		}
	}
}

func offsetOf(b *Book, at time.Time) int {
	_, offset := at.In(b.zone).Zone()
	return offset
}

// onTheWall is the multiplier by what a clock on the wall shows.
func onTheWall(b *Book, at time.Time) int64 {
	local := at.In(b.zone)
	minute := int64(local.Hour()*60 + local.Minute())
	today := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
	for _, w := range b.windows {
		if w.on(today, b.calendars) && w.From <= minute && minute < w.To || w.on(today.AddDate(0, 0, -1), b.calendars) && minute+midnight < w.To {
			return w.Multiplier
		}
	}
	return one
}

func TestTiers(t *testing.T) {
	b := mustParse(t, sample)
	if got := fmt.Sprint(b.Tiers(november), b.Load().Steps) + b.Unserved(); got != "[batch flex priority standard] [850000 1000000 1250000 1500000]" {
		t.Errorf("got %s", got)
	}
	_, err := b.Row(Query{Model: "llama-8b", Tier: "gold"}, november)
	if want := `price book public-2026 has no service tier "gold", but batch, flex, priority, standard`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if b.Pos == (resource.Pos{}) {
		t.Error("the book has no place in its file")
	}
}
