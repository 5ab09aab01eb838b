package world_test

import (
	"os"
	"testing"
)

// TestExample: the example of the documents can be applied as it stands, and nothing of it is noted as probably not meant.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/example/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	plan, err := s.Plan(source(string(text)), false)
	if err != nil || plan.Empty() || len(plan.Notes) > 0 {
		t.Errorf("%v, %+v", err, plan)
	}
}

// TestLimitsOfAll: limits on keys, tiers and calendars are published with what they say, and what is said of their offerings
// is checked against the world.
func TestLimitsOfAll(t *testing.T) {
	models := "models:\n- {name: big, engines: [stub], parameters: 70e9, context_tokens: 100}\n- {name: tiny, engines: [stub], parameters: 1e9, context_tokens: 100}\n"
	prices := "price_books:\n- {name: more, currency: EUR, prices: [{model: m, meter: input, price: 1}, {model: big, meter: input, price: 1}, {model: tiny, meter: input, price: 1}]}\n"
	limit := func(rest string) string {
		return "accounts:\n- path: acme/small\n  price_book: more\n  limits: [" + rest + "]\n"
	}
	for _, c := range []struct{ text, want string }{
		{limit("{measure: money, window: year, anchor: 02-29, amount: 5, model: big, action: {degrade: tiny}, alerts: [50%, 2]}"), "<nil>"},
		{limit("{measure: money, window: day, amount: 5, action: {degrade: none}}"), `w.yaml:7:3: account "acme/small": limit money per day degrades to "none": unknown model "none"; known are big, m, tiny`},
		{limit("{measure: money, window: day, amount: 5, model: big, action: {degrade: tiny}}, {measure: money, window: day, amount: 5, model: tiny, action: {degrade: big}}"),
			`w.yaml:7:3: account "acme/small": limits degrade in a circle: tiny → big → tiny; narrow them to the models that they are for`},
		{limit("{measure: money, window: day, amount: 5, action: {degrade: tiny}}, {measure: money, window: day, amount: 5, model: tiny, action: {degrade: m}}"),
			`w.yaml:7:3: account "acme/small": limits degrade in a circle: tiny → m → tiny; narrow them to the models that they are for`},
		{limit("{measure: money, window: day, amount: 5, size_class: small, action: {degrade: tiny}}, {measure: money, window: day, amount: 5, model: big, action: {degrade: m}}"), "<nil>"},
		{"models:\n- {name: m, engines: [stub], context_tokens: 100, size_class: small}\n" + limit("{measure: work_ms, window: day, amount: 5}"),
			`w.yaml:8:3: account "acme/small": limit work_ms per day: model "m" has no parameters, so nobody knows its work`},
		{"accounts:\n- {path: acme/small, models: [m], limits: [{measure: money, window: day, amount: 5, action: {degrade: big}}]}\n",
			`w.yaml:7:3: account "acme/small": limit money per day degrades to "big": the account may not use it`},
		{"accounts:\n- {path: acme/small, limits: [{measure: money, window: day, amount: 5, action: {degrade: big}}]}\n",
			`w.yaml:7:3: account "acme/small": limit money per day degrades to "big": it has no price in the account's price book`},
	} {
		s := open(t)
		s.apply(file(t), false)
		text := prices
		if c.text[0] == 'm' {
			text += models + c.text[len("models:\n"):]
		} else {
			text += models + c.text
		}
		_, err := s.Plan(source(text), false)
		s.is(c.text, err, c.want)
	}

	s := open(t)
	s.apply(file(t), false)
	s.apply(models+`keys:
- {name: extra, account: acme/small/app, secret: "file:keys/other", limits: [{measure: tokens, window: week, anchor: friday, amount: 1e3, service_tier: auto, action: alert, alerts: [100%, 10%, 100]}]}
`, false)
	k := s.key("other-0123456789-canary")
	if len(k.Limits) != 1 {
		t.Fatalf("limits of the key: %+v", k.Limits)
	}
	l := k.Limits[0]
	s.is("limit of a key", words(l.Key, l.Path, l.Account == k.Account.ID, l.Window, l.Anchor.Text(l.Window), l.Tier, l.Action, len(l.Alerts), l.Alerts[0].Text(l.Measure), l.Alerts[1].Text(l.Measure)),
		"key_extra acme/small/app true week friday standard alert 2 10% 100%")
	s.is("it is published", s.store.limits[len(s.store.limits)-1].Identity(), l.Identity())
	plan, err := s.Plan(source("accounts:\n- {path: acme/small, limits: [{measure: tokens, window: day, amount: 5, action: {degrade: m}}]}\n"), false)
	s.is("a limit that counts what it degrades to", words(err, plan.Notes),
		`<nil> [account "acme/small": limit tokens per day counts what it degrades to (m) as well, so nothing passes once it is used up; narrow it to other models]`)
}
