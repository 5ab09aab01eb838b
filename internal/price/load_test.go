package price

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"talea/internal/usage"
)

const ladder = `
- name: b
  currency: EUR
  load: {steps: ["0.85", "1", "1.25", "1.5"], up_above: "0.85", down_below: "0.65", interval: 15m, announce: 1}
  prices: [{model: m, meter: input, price: "1"}]
`

func TestLoadLadder(t *testing.T) {
	b := mustParse(t, ladder)
	l := b.Load()
	if l == nil || l.Rest() != 1 {
		t.Fatalf("ladder %+v: it rests at its multiplier 1", l)
	}
	for _, c := range []struct {
		step  int
		load  int64
		known bool
		want  int
	}{
		{1, 850_000, true, 1}, {1, 850_001, true, 2}, {2, 650_000, true, 2}, {2, 649_999, true, 1}, // hysteresis, bounds excluded
		{3, 1_000_000, true, 3}, {0, 0, true, 0}, {1, 0, true, 0}, // the ends
		{3, 1_000_000, false, 2}, {2, 0, false, 1}, {1, 1_000_000, false, 1}, {0, 0, false, 1}, // unknown: towards 1
	} {
		if got := l.Next(c.step, c.load, c.known); got != c.want {
			t.Errorf("step %d at load %d (known %t) goes to %d, want %d", c.step, c.load, c.known, got, c.want)
		}
	}
	back, err := ParseCanonical(b.Canonical())
	if err != nil || back.Version != b.Version || fmt.Sprint(*back.Load()) != fmt.Sprint(*l) {
		t.Errorf("read back as %+v, %v", back, err)
	}
	if plain := mustParse(t, strings.Replace(ladder, "load:", "# load:", 1)); plain.Version == b.Version || plain.Load() != nil {
		t.Error("a book with a ladder and one without have one version")
	}
}

// The price moves by one step at most, stays on the ladder, and rests where nothing is known.
func TestLoadLadderLaws(t *testing.T) {
	l := mustParse(t, ladder).Load()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		step, load, known := random.IntN(len(l.Steps)), random.Int64N(2_000_000), random.IntN(4) > 0
		next := l.Next(step, load, known)
		if next < 0 || next >= len(l.Steps) || next-step > 1 || step-next > 1 {
			t.Fatalf("from %d at load %d (known %t) to %d", step, load, known, next)
		}
		for range l.Steps {
			next = l.Next(next, 0, false)
		}
		if next != l.Rest() {
			t.Fatalf("without a load it rests at %d", next)
		}
		at := time.UnixMicro(random.Int64N(5e15) - 1e15)
		from, end := l.Slot(at)
		if at.Before(from) || !at.Before(end) || end.Sub(from) != l.Interval || from.UnixMicro()%l.Interval.Microseconds() != 0 {
			t.Fatalf("%s lies in [%s, %s)", at, from, end)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	good := `steps: ["0.85", "1", "1.25"], up_above: "0.85", down_below: "0.65"`
	for _, c := range []struct{ old, with, want string }{
		{`"0.85", "1", "1.25"`, `"1"`, "load has 1 steps; a ladder has 2 to 16"},
		{`"1", "1.25"`, `"1.25", "1"`, "the steps of load do not ascend"},
		{`"1", "1.25"`, `"1", "1"`, "the steps of load do not ascend"},
		{`"1", "1.25"`, `"1.1", "1.25"`, `load needs the step "1"`},
		{`"1", "1.25"`, `"1", "1000.1"`, "at most 1000"},
		{`down_below: "0.65"`, `down_below: "0.85"`, "load needs 0 <= down_below < up_above <= 1"},
		{`up_above: "0.85"`, `up_above: "1.01"`, "load needs 0 <= down_below < up_above <= 1"},
		{`, down_below: "0.65"`, ``, `lacks the key "down_below"`},
		{`down_below: "0.65"`, `down_below: "0.65", interval: 10s`, "whole seconds, from 1m to 24h"},
		{`down_below: "0.65"`, `down_below: "0.65", announce: 0`, "announced 1 to 96 intervals before it applies"},
		{`down_below: "0.65"`, `down_below: "0.65", announce: 1.5`, "announce is a whole number of intervals"},
		{`down_below: "0.65"`, `down_below: "0.65", anounce: 1`, `unknown key "anounce"`},
	} {
		text := "- name: b\n  currency: EUR\n  load: {" + strings.Replace(good, c.old, c.with, 1) + "}\n  prices: [{model: m, meter: input, price: \"1\"}]\n"
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "book.yaml:4") {
			t.Errorf("%s: %v; want %q with its line", c.with, err, c.want)
		}
	}
	// A price may not become nothing at a step of the ladder.
	if _, err := parse(strings.Replace(ladder, `price: "1"}`, `price: "0.00000000055"}`, 1)); err == nil || !strings.Contains(err.Error(), "less than half a femto-unit") {
		t.Errorf("a price that rounds to nothing at 0.85: %v", err)
	}
}

const laddered = `
- name: public
  currency: EUR
  load: {steps: ["0.85", "1", "1.25", "1.5"], up_above: "0.85", down_below: "0.65"}
  prices: [{model: m, meter: input, price: 1}, {model: m, meter: output, price: 4}]
- name: acme
  currency: EUR
  base: public
  multiplier: "0.5"
  prices: [{model: m, meter: input, price: 10}]
`

// A contract's book goes with the ladder of its base, as far as it inherits prices; it may have a ladder or a cap of its
// own, or fixed prices.
func TestInheritedLadder(t *testing.T) {
	for _, c := range []struct{ more, of, want string }{
		{"", "public", "0.00001 0.000003"},
		{"  load_cap: \"1.25\"\n", "public", "0.00001 0.0000025"},
		{"  load: fixed\n", "", "0.00001 0.000002"},
		{"  load: {steps: [1, \"1.5\"], up_above: \"0.9\", down_below: \"0.1\"}\n", "acme", "0.000015 0.000003"},
		{"  load: {steps: [1, \"1.5\"], up_above: \"0.9\", down_below: \"0.1\"}\n  load_cap: 1\n", "acme", "0.00001 0.000002"},
	} {
		books, err := parse(laddered + c.more)
		if err != nil {
			t.Fatal(err)
		}
		b := Link(books, func(b *Book, err error) { t.Error(b.Name, err) })[1]
		row, err := b.Row(Query{Model: "m"}, november, 1_500_000)
		if err != nil {
			t.Fatal(err)
		}
		got := row.Rates[usage.InputUncached].String() + " " + row.Rates[usage.OutputContent].String()
		if of, l := b.Ladder(november); got != c.want || of != c.of || (l == nil) != (of == "") {
			t.Errorf("%q: prices %s by the ladder of %q, want %s by %q", c.more, got, of, c.want, c.of)
		}
		back, err := ParseCanonical(b.Canonical())
		if err != nil || back.Version != b.Version || back.fixed != b.fixed || back.loadCap != b.loadCap {
			t.Errorf("%q: read back as %+v, %v", c.more, back, err)
		}
	}
}

func TestLoadOfContractErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{laddered + "  load: fxed\n", `book.yaml:12:9: load is a ladder of steps, or fixed, not "fxed"`},
		{laddered + "  load: fixed\n  load_cap: 2\n", "book.yaml:13:13: load_cap is for prices that follow the load: the book has none"},
		{laddered + "  load_cap: \"0.99\"\n", "book.yaml:12:13: load_cap is not from 1 to 1000"},
		{laddered + "  load_cap: \"1.0000001\"\n", "book.yaml:12:13: load_cap: multiplier 1.0000001 is not a factor"},
		{strings.Replace(ladder, "load:", "load: fixed #", 1), "book.yaml:5:9: load: fixed is for what a book inherits: it needs a base"},
		{strings.Replace(ladder, "load:", "load_cap: 2 #", 1), "book.yaml:5:13: load_cap is for prices that follow the load"},
		{strings.Replace(laddered, "load:", "#", 1) + "  load_cap: 2\n", "it has a load_cap, but neither it nor its base public has prices that follow the load"},
		{strings.Replace(laddered, "price: 4", `price: "0.0000000011"`, 1), "of its base public"},
	} {
		books, err := parse(c.text)
		if err == nil {
			Link(books, func(_ *Book, fault error) { err = fault })
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}
