package resource

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

type limit struct {
	Pos     Pos
	Measure string  `yaml:"measure,required"`
	Amount  Decimal `yaml:"amount,required"`
}

type rate struct {
	PerMinute int64 `yaml:"requests_per_minute"`
	Burst     int64 `yaml:"burst"`
}

type thing struct {
	Pos    Pos
	Name   string            `yaml:"name,required"`
	On     bool              `yaml:"on"`
	Size   Decimal           `yaml:"size"`
	Key    Secret            `yaml:"api_key"`
	From   time.Time         `yaml:"from"`
	Wait   time.Duration     `yaml:"wait"`
	Labels map[string]string `yaml:"labels"`
	Tags   []string          `yaml:"tags"`
	Rate   *rate             `yaml:"rate"`
	Limits []limit           `yaml:"limits"`
	Rest   Node              `yaml:"rest"`
}

func decodeFirst(text string) (thing, error) {
	var t thing
	doc, err := Parse("f.yaml", []byte(text))
	if err != nil {
		return t, err
	}
	for _, s := range doc.sections {
		for _, n := range doc.Section(s.name) {
			return t, n.Decode(&t)
		}
	}
	return t, nil
}

func TestDecode(t *testing.T) {
	got, err := decodeFirst(`# a comment
things:
- name: "8"
  on: true
  size: 8.03e9
  api_key: "file:keys/engine"
  from: 2026-01-01T00:00:00+01:00
  wait: 1h30m
  labels: {cost_centre: "4711", team: radiology}
  tags: [a, b]
  rate: {requests_per_minute: 60, burst: 3}
  limits:
  - {measure: money, amount: "0.10"}
  - {measure: tokens, amount: 20640}
  rest: {later: [1, 2]}
`)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	check("pos", got.Pos, "f.yaml:3:3")
	check("name", got.Name, "8")
	check("on", got.On, true)
	check("size", got.Size, Decimal{"8.03e9", Pos{"f.yaml", 5, 9}})
	check("key", got.Key, Secret{"file:keys/engine", Pos{"f.yaml", 6, 12}})
	check("from", got.From, "2025-12-31 23:00:00 +0000 UTC")
	check("wait", got.Wait, "1h30m0s")
	check("labels", got.Labels, map[string]string{"cost_centre": "4711", "team": "radiology"})
	check("tags", got.Tags, "[a b]")
	check("rate", *got.Rate, rate{60, 3})
	check("limits", got.Limits, []limit{
		{Pos{"f.yaml", 13, 5}, "money", Decimal{"0.10", Pos{"f.yaml", 13, 30}}},
		{Pos{"f.yaml", 14, 5}, "tokens", Decimal{"20640", Pos{"f.yaml", 14, 31}}},
	})
	check("rest", got.Rest.Pos().Line > 0, true)
	check("rest", got.Rest.Pos(), "f.yaml:15:9")
	var rest struct {
		Later []int64 `yaml:"later"`
	}
	check("rest", got.Rest.Decode(&rest), nil)
	check("later", rest.Later, "[1 2]")
}

func TestWorld(t *testing.T) {
	text, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Parse("world.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Only("engines", "models", "price_books", "accounts", "keys"); err != nil {
		t.Error(err)
	}
	type tier struct {
		Multiplier Decimal `yaml:"multiplier"`
	}
	var book struct {
		Name      string `yaml:"name,required"`
		Currency  string `yaml:"currency,required"`
		Timezone  string `yaml:"timezone,required"`
		Effective struct {
			From time.Time  `yaml:"from,required"`
			To   *time.Time `yaml:"to"`
		} `yaml:"effective,required"`
		Tiers  map[string]tier `yaml:"service_tiers"`
		Prices []struct {
			Pos   Pos
			Model string  `yaml:"model"`
			Meter string  `yaml:"meter,required"`
			Price Decimal `yaml:"price,required"`
		} `yaml:"prices,required"`
	}
	if err := doc.Section("price_books")[0].Decode(&book); err != nil {
		t.Fatal(err)
	}
	if got := book.Prices[1]; got.Price.Text != "4.00" || got.Pos.Line != 26 || book.Tiers["batch"].Multiplier.Text != "0.5" || book.Effective.To != nil {
		t.Errorf("the book is %+v", book)
	}
	var key struct {
		Name    string `yaml:"name"`
		Account string `yaml:"account"`
		Secret  Secret `yaml:"secret,required"`
	}
	if err := doc.Section("keys")[1].Decode(&key); err != nil || key.Secret.Ref != "env:OTHER_KEY" {
		t.Error(key, err)
	}
}

// TestRefusals has one text a line that must be refused, with the whole message.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// What Parse refuses.
		{"", "1:1: the file has no resources"},
		{"# only a comment\n", "1:1: the file has no resources"},
		{"- a\n", "1:1: the file must be a mapping of sections such as engines and models, not a list"},
		{"things: 5\n", `1:9: section "things" must be a list, not a number`},
		{"things:\n- {name: a, name: b}\n", `2:13: duplicate key "name"; the first is on line 2`},
		{"things: []\nthings: []\n", `2:1: duplicate key "things"; the first is on line 1`},
		{"things:\n- &x {name: a}\n- *x\n", "2:3: " + noAlias + "\nf.yaml:3:3: " + noAlias},
		{"things:\n- name: *hush\n", "1:1: not valid YAML: " + noAlias},
		{"things:\n- {<<: {name: a}}\n", "2:4: merge keys (<<) are not supported"},
		{"things:\n- {name: !!str a}\n", "2:10: tags (!) are not supported; quote a value that begins with one"},
		{"things:\n- {name: !x a}\n", "2:10: tags (!) are not supported; quote a value that begins with one"},
		{"things:\n- {? [a] : b}\n", "2:6: a key must be a word, not a list"},
		{"things:\n- {\"\": b}\n", "2:4: a key is empty"},
		{"things:\n- {~: b}\n", "2:4: a key is empty"},
		{"things: []\n---\nthings: []\n", "2:1: a second document begins here; a file holds one"},
		{"things:\n- name: a: b\n", "2:1: not valid YAML: mapping values are not allowed in this context"},
		{"things:\n- name: a\n\n  on: true\n size: 5\n", "5:1: not valid YAML: did not find expected key"},
		{"things:\n- name: a\n  rate: {burst: 3\n", "3:1: not valid YAML: did not find expected ',' or '}'"},
		{"things:\n- {name: \"a\xff\"}\n", "2:12: the file is not UTF-8 text"},
		{"things:\n- {name: a\x00}\n", "2:11: control character U+0000 is not allowed"},
		{"things: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "1:40: values nest deeper than 32 levels"},
		// What Decode refuses.
		{"things:\n- nmae: a\n", `2:3: unknown key "nmae" in thing; did you mean "name"?` + "\nf.yaml:2:3: thing lacks the key \"name\""},
		{"things:\n- {name: a, colour: b}\n", `2:13: unknown key "colour" in thing; known are name, on, size, api_key, from, wait, labels, tags, rate, limits, rest`},
		{"things:\n- {name: a, rate: {brust: 3}}\n", `2:20: unknown key "brust" in rate; did you mean "burst"?`},
		{"things:\n- {name: a, limits: [{measure: b}]}\n", `2:22: limit lacks the key "amount"`},
		{"things:\n- {name: a, on: maybe}\n", `2:17: "on" must be true or false, not text`},
		{"things:\n- {name: 8}\n", `2:10: "name" must be text, not a number; put it in quotes`},
		{"things:\n- {name: true}\n", `2:10: "name" must be text, not true or false; put it in quotes`},
		{"things:\n- {name: [a]}\n", `2:10: "name" must be text, not a list`},
		{"things:\n- name:\n", `2:8: "name" has no value`},
		{"things:\n- {name: a, on: }\n", `2:17: "on" has no value`},
		{"things:\n- {name: a, size: big}\n", `2:19: "size" must be a decimal number such as 0.10, not "big"`},
		{"things:\n- {name: a, size: \"0,10\"}\n", `2:19: "size" must be a decimal number such as 0.10, not "0,10"`},
		{"things:\n- {name: a, size: 0x10}\n", `2:19: "size" must be a decimal number such as 0.10, not "0x10"`},
		{"things:\n- {name: a, size: 1_000}\n", `2:19: "size" must be a decimal number such as 0.10, not "1_000"`},
		{"things:\n- {name: a, size: .inf}\n", `2:19: "size" must be a decimal number such as 0.10, not ".inf"`},
		{"things:\n- {name: a, size: 010}\n", `2:19: "size" must be a decimal number such as 0.10, not "010"`},
		{"things:\n- {name: a, size: [1]}\n", `2:19: "size" must be a decimal number such as 0.10, not a list`},
		{"things:\n- {name: a, api_key: hush}\n", `2:22: "api_key" must be "file:PATH" or "env:NAME"; a secret itself does not belong in a resource file`},
		{"things:\n- {name: a, api_key: \"env:\"}\n", `2:22: "api_key" must be "file:PATH" or "env:NAME"; a secret itself does not belong in a resource file`},
		{"things:\n- {name: a, api_key: {hush: 1}}\n", `2:22: "api_key" must be "file:PATH" or "env:NAME", not a mapping`},
		{"things:\n- {name: a, from: 2026-01-01}\n", `2:19: "from" must be a time with its zone such as 2026-01-01T00:00:00+01:00, not "2026-01-01"`},
		{"things:\n- {name: a, wait: 1d}\n", `2:19: "wait" must be a duration such as 30s, 15m or 1h30m, not "1d"`},
		{"things:\n- {name: a, wait: 1.5h}\n", `2:19: "wait" must be a duration such as 30s, 15m or 1h30m, not "1.5h"`},
		{"things:\n- {name: a, rate: {burst: \"3\"}}\n", `2:27: "burst" must be a whole number in plain digits, not text`},
		{"things:\n- {name: a, rate: {burst: 007}}\n", `2:27: "burst" must be a whole number in plain digits, not "007"`},
		{"things:\n- {name: a, rate: {burst: 3.0}}\n", `2:27: "burst" must be a whole number in plain digits, not "3.0"`},
		{"things:\n- {name: a, rate: {burst: 9223372036854775808}}\n", `2:27: "burst" must be a whole number in plain digits, not "9223372036854775808"`},
		{"things:\n- {name: a, rate: 5}\n", `2:19: "rate" must be a mapping, not a number`},
		{"things:\n- {name: a, tags: b}\n", `2:19: "tags" must be a list, not text`},
		{"things:\n- {name: a, tags: [b, ]}\n- 5", ""},
		{"things:\n- {name: a, tags: [b, ~]}\n", `2:23: "tag" must be text, not nothing`},
		{"things:\n- {name: a, labels: {year: 2026}}\n", `2:28: "year" must be text, not a number; put it in quotes`},
		{"things:\n- name: a\n  limits:\n  rate:\n", ""},
		{"things:\n- 5\n", `2:3: "thing" must be a mapping, not a number`},
	} {
		_, err := decodeFirst(c.text)
		want := c.want
		if want != "" {
			want = "f.yaml:" + want
		}
		if got := fmt.Sprint(err); got != want && !(err == nil && want == "") {
			t.Errorf("%q\n got %s\nwant %s", c.text, got, want)
		}
	}
}

func TestSecretValueIsInNoError(t *testing.T) {
	for _, value := range []string{"hush", "*hush", "&hush x", "!hush x", "{hush: 1}", "[hush]", "\"hush", "hush: hush", "@hush", "`hush", "%hush", "|hush"} {
		got, err := decodeFirst("things:\n- name: a\n  api_key: " + value + "\n")
		if err == nil || strings.Contains(err.Error(), "hush") || got.Key.Ref != "" {
			t.Errorf("api_key: %s: %v, and it is %q", value, err, got.Key.Ref)
		}
	}
}

func TestTooLarge(t *testing.T) {
	_, err := Parse("f.yaml", make([]byte, maxText+1))
	if err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}

func TestErrorsAreSortedAndBounded(t *testing.T) {
	var l Errors
	for line := 70; line > 0; line-- {
		l.Add(Errors{Pos{"f", line, 1}.Errorf("no")})
	}
	l.Add(nil)
	lines := strings.Split(l.Err().Error(), "\n")
	if len(lines) != maxShown+1 || lines[0] != "f:1:1: no" || lines[maxShown] != "… and 20 more" {
		t.Error(lines)
	}
	if (Errors{}).Err() != nil {
		t.Error("an empty list is an error")
	}
}

func TestOnly(t *testing.T) {
	doc, err := Parse("f.yaml", []byte("models: []\nengine: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Only("engines", "models"); fmt.Sprint(err) != `f.yaml:2:1: unknown section "engine"; did you mean "engines"?` {
		t.Error(err)
	}
	if err := doc.Only("engine", "models"); err != nil {
		t.Error(err)
	}
}

func TestDecimalInt64(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		ok   bool
	}{
		{"8.03e9", 8030000000, true}, {"131072", 131072, true}, {"0", 0, true}, {"-0", 0, true}, {"0.0", 0, true}, {"0e99", 0, true},
		{"1.50e1", 15, true}, {"-0.5e1", -5, true}, {"1200e-2", 12, true}, {"9223372036854775807", 1<<63 - 1, true},
		{"100", 100, true}, {"10.0", 10, true}, {"1E3", 1000, true}, {"1e+3", 1000, true},
		{"9223372036854775808", 0, false}, {"1e19", 0, false}, {"1e99", 0, false}, {"0.5", 0, false}, {"1e-1", 0, false}, {"8.031e2", 0, false}, {"", 0, false},
	} {
		if got, ok := (Decimal{Text: c.text}).Int64(); got != c.want || ok != c.ok {
			t.Errorf("%q is %d %v, want %d %v", c.text, got, ok, c.want, c.ok)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"model", "meter", "price", "per", "on"}
	for name, want := range map[string]string{
		"modle": "model", "Model": "model", "MODEL": "model", "mode": "model", "prize": "price", "pre": "per", "x": "", "xy": "", "minimum": "", "pr": "per", "": "",
		strings.Repeat("m", 1<<20): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}

func TestBugsPanic(t *testing.T) {
	doc, err := Parse("f.yaml", []byte("things:\n- {name: a}\n"))
	if err != nil {
		t.Fatal(err)
	}
	n := doc.Section("things")[0]
	for name, f := range map[string]func(){
		"not a pointer": func() { _ = n.Decode(thing{}) },
		"no tag":        func() { _ = n.Decode(&struct{ Name string }{}) },
		"a float": func() {
			_ = n.Decode(&struct {
				Name float64 `yaml:"name"`
			}{})
		},
		"absent": func() { _ = Node{}.Decode(&thing{}) },
		"a bare error": func() {
			var l Errors
			l.Add(errors.New("no position"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it is accepted")
				}
			}()
			f()
		})
	}
}

// FuzzParse: whatever the bytes, there is no panic, and an error is a list of errors with positions.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"things:\n- name: a\n  labels: {a: b}\n", "a: [*x, &x y]\n---\nb", "things:\n- {name: \"a\", size: 1e9, wait: 5m}\n", "a: |\n  b\n c: >-\n", "? a\n: - b\n", "%YAML 1.2\n---\na: []\n", "\ufeffa: []",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := Parse("f.yaml", text)
		positioned(t, err)
		if err != nil {
			return
		}
		for _, s := range doc.sections {
			for _, n := range doc.Section(s.name) {
				var into thing
				positioned(t, n.Decode(&into))
			}
		}
		positioned(t, doc.Only("things"))
	})
}

func positioned(t *testing.T, err error) {
	t.Helper()
	var l Errors
	if err == nil {
		return
	}
	if !errors.As(err, &l) || len(l) == 0 {
		t.Fatalf("%v is not a list of errors", err)
	}
	for _, e := range l {
		if e.Pos.File != "f.yaml" || e.Pos.Line < 1 || e.Pos.Column < 1 || e.Msg == "" {
			t.Errorf("no position: %+v", e)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("world.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}
