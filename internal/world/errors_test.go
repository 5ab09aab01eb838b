package world_test

import (
	"errors"
	"strings"
	"testing"

	"talea/internal/resource"
)

// TestErrors has a change of testdata/world.yaml in each row, and everything that is said about it.
// F092: among them price books whose times overlap or have gaps.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		old, now string
		want     string // lines without the file's name
	}{
		// engines
		{"kind: vllm", "kind: vlm", `3:3: engine "stub": unknown kind "vlm"; did you mean "vllm"? (any other that speaks OpenAI's API is openai)`},
		{"kind: vllm", "kidn: vllm", "3:3: engine lacks the key \"kind\"\n4:3: unknown key \"kidn\" in engine; did you mean \"kind\"?"},
		{"name: stub", "name: a b", "3:3: name \"a b\" is not of letters, digits and . _ : / @ + -, beginning with a letter or digit, at most 128"},
		{"url: http://127.0.0.1:9000/", "url: 127.0.0.1:9000", `3:3: engine "stub": url must be like http://host:port`},
		{"url: http://127.0.0.1:9000/", "url: ftp://host", `3:3: engine "stub": url must be like http://host:port`},
		{"url: http://127.0.0.1:9000/", "url: http://:9000", `3:3: engine "stub": url must be like http://host:port`},
		{"url: http://127.0.0.1:9000/", "url: http://u:canary@host", `3:3: engine "stub": url must have no user or password: use api_key`},
		{"url: http://127.0.0.1:9000/", "url: http://host/?key=canary", `3:3: engine "stub": url must have no query and no fragment`},
		{"url: http://127.0.0.1:9000/", "url: http://host/v1/", `3:3: engine "stub": url is written without /v1`},
		{"count: 1", "count: -1", `3:3: engine "stub": gpus.count must be from 0 to 1000000`},
		{"region: eu-de", "weight: 1000001", `3:3: engine "stub": weight must be from 0 to 1000000`},
		{"region: eu-de", "max_concurrent: -1", `3:3: engine "stub": max_concurrent must be from 0 to 1000000`},
		{`cost_per_hour: "2.50"`, `cost_per_hour: "-2.50"`, `8:51: engine "stub": cost_per_hour is negative`},
		{`, currency: EUR}` + "\nmodels", "}\nmodels", `8:51: engine "stub": currency "" of cost_per_hour is not an ISO 4217 code such as EUR`},
		{`api_key: "file:keys/engine"`, `api_key: engine-canary`, `6:12: "api_key" must be "file:PATH" or "env:NAME"; a secret itself does not belong in a resource file`},
		{"file:keys/engine", "file:keys/nowhere", "6:12: the secret file:keys/nowhere could not be read"},
		{"file:keys/engine", "file:keys/empty", "6:12: the secret file:keys/empty is empty"},
		{"file:keys/engine", "file:keys/blank", "6:12: the secret file:keys/blank has blanks, line ends or other characters that no HTTP header can carry"},
		{"models:\n", "- {name: stub, kind: vllm, url: 'http://h'}\nmodels:\n", `9:3: engine "stub" is here twice; the first is on line 3`},
		// models
		{"engines: [stub]", "engines: [stbu]", `10:3: model "m": unknown engine "stbu"; did you mean "stub"?`},
		{"engines: [stub]", "engines: []", `10:3: model "m": no engine serves it`},
		{"engines: [stub]", "engines: [stub, stub]", `10:3: model "m": engine "stub" is listed twice`},
		{"engines: [stub]", "context_shift: true", "10:3: model lacks the key \"engines\""},
		{"parameters: 8.03e9", "parameters: 8.5", `13:15: model "m": parameters must be a whole number such as 8.03e9`},
		{"parameters: 8.03e9", "audio_tokens: -1\n  image_tokens: -1", "10:3: model \"m\": image_tokens is out of range\n10:3: model \"m\": audio_tokens is out of range"},
		{"parameters: 8.03e9", "tokens_per_byte: 0", `13:20: model "m": tokens_per_byte must be above 0, with at most 6 decimals`},
		{"parameters: 8.03e9", "tokens_per_byte: 1.0000001", `13:20: model "m": tokens_per_byte must be above 0, with at most 6 decimals`},
		{"parameters: 8.03e9", "tokens_per_byte: -1", `13:20: model "m": tokens_per_byte must be above 0, with at most 6 decimals`},
		{"context_tokens: 131072", "context_tokens: 4095", `10:3: model "m": max_output_tokens is above context_tokens`},
		{"parameters: 8.03e9", "max_concurrent: 9\n  flex_below: 0", `14:15: model "m": flex_below must be above 0, with at most 6 decimals`},
		{"parameters: 8.03e9", "max_concurrent: 9\n  flex_below: 1.1", `10:3: model "m": flex_below is out of range`},
		{"parameters: 8.03e9", "flex_below: 0.5", `10:3: model "m": flex_below is a share of max_concurrent, which it lacks`},
		{"name: m\n", "modle: m\n", "10:3: unknown key \"modle\" in model; known are name, served_as, engines, parameters, active_parameters, kv_bytes_per_token, size_class, context_tokens, max_output_tokens, default_max_output_tokens, tokens_per_byte, message_tokens, template_tokens, image_tokens, audio_tokens, context_shift, max_concurrent, flex_below, family, revision, quantisation, tokenizer\n10:3: model lacks the key \"name\""},
		// price books: package price checks what is inside
		{`price: "1.00"`, `price: "-1.00"`, `23:5: price -1 is negative`},
		{"  prices:\n", "  price_instant: cheapest\n  prices:\n", `18:3: price_book "public": price_instant cheapest: only "talea rate" knows it yet, requests cannot be charged so`},
		{"accounts:\n", "- {name: c, currency: EUR, base: pubic, prices: []}\naccounts:\n", `26:3: price_book "c": its base "pubic" is not a price book that there is`},
		{"accounts:\n", "- {name: c, currency: USD, base: public, effective: {from: 2026-01-01T00:00:00Z}, prices: []}\naccounts:\n", `26:3: price_book "c": it is in USD, but its base public in EUR`},
		{"accounts:\n", "- {name: public, currency: EUR, prices: []}\naccounts:\n", "18:3: price book public overlaps its version before, which must end with `to: 2025-12-31T23:00:00Z`"},
		// accounts
		{"path: acme, currency: EUR", "path: acme", `27:3: account "acme": an organisation needs a currency`},
		{"path: acme, currency: EUR", "path: acme, currency: eur", `27:3: account "acme": currency "eur" is not an ISO 4217 code such as EUR`},
		{"path: acme, currency: EUR", "path: acme, currency: USD", `27:3: account "acme": price book "public" is in EUR, the account in USD`},
		{"timezone: Europe/Berlin, price_book", "timezone: Europe/Berln, price_book", `27:3: account "acme": time zone "Europe/Berln" is unknown; give an IANA zone such as Europe/Berlin or UTC`},
		{"price_book: public}", "price_book: pubic}", `27:3: account "acme": unknown price_book "pubic"; did you mean "public"?`},
		{"price_book: public}", "price_book: public, models: [n]}", `27:3: account "acme": models: unknown model "n"; known are m`},
		{"price_book: public}", "}", keyless("44:3", "good", "acme/research/chat") + keyless("45:3", "budget20", "acme/small/app") +
			keyless("46:3", "exhausted", "acme/empty/app") + strings.TrimSuffix(keyless("47:3", "limited", "acme/slow/app"), "\n")},
		{"{path: acme/research/chat}", "{path: Acme/Research}", `31:3: account path "Acme/Research": segment "Acme" is not of a-z, 0-9, '.', '_', '-' beginning with a letter or digit`},
		{"{path: acme/small/app}", "{path: acme/smal/app}", "35:3: account \"acme/smal/app\": unknown account \"acme/smal\"; did you mean \"acme/small\"?\n45:3: key \"budget20\": unknown account \"acme/small/app\"; did you mean \"acme/smal/app\"?"},
		{"{path: acme/small/app}", "{path: acme/small/app, currency: USD}", `35:3: account "acme/small/app": currency is USD, but that of its organisation is EUR: an organisation has one`},
		{"{path: acme/small/app}", "{path: acme/small/app, timezone: UTC}", `35:3: account "acme/small/app": timezone is UTC, but that of its organisation is Europe/Berlin: an organisation has one calendar`},
		{"- path: acme/small\n", "- path: acme/small\n  regions: [eu]\n- path: acme/small/x\n  regions: [us, uk]\n", `34:3: account "acme/small/x": none of its regions is allowed by the accounts above it, which allow eu`},
		{"{path: acme/small/app}", "{path: acme/small}", `35:3: account "acme/small" is here twice; the first is on line 32`},
		// limits
		{"measure: tokens", "measure: token", `34:5: account "acme/small": limit: unknown measure "token"; did you mean "tokens"?`},
		{"measure: tokens", "measure: gpu_seconds", `34:5: account "acme/small": limit: gpu_seconds can only alert (action: alert): measured GPU time is known after the request and may be restated; to block, use work_ms`},
		{"measure: tokens, window: month", "measure: tokens, window: minute", `34:5: account "acme/small": limit: a minute is no window: limits per minute are a rate (requests_per_minute, tokens_per_minute)`},
		{"measure: tokens, window: month", "measure: tokens, window: months", `34:5: account "acme/small": limit: unknown window "months"; known are hour, day, week, month, quarter, year, total`},
		{"measure: tokens, window: month", "measure: gpu_seconds, window: month, action: {degrade: m}", "34:5: account \"acme/small\": limit: gpu_seconds can only alert (action: alert): measured GPU time is known after the request and may be restated; to block, use work_ms"},
		{"measure: tokens, window: month", "measure: tokens, window: month, action: stop", `34:46: account "acme/small": limit: unknown action "stop"; known are block, alert and {degrade: OFFERING}`},
		{"measure: tokens, window: month", "measure: tokens, window: month, action: degrade", `34:46: account "acme/small": limit: unknown action "degrade"; known are block, alert and {degrade: OFFERING}`},
		{"measure: tokens, window: month", "measure: tokens, window: month, action: [alert]", `34:46: "action" must be a single value, not a list`},
		{"measure: tokens, window: month", "measure: tokens, window: month, action: {degrade: n}", `32:3: account "acme/small": limit tokens per month degrades to "n": unknown model "n"; known are m`},
		{"measure: tokens, window: month", "measure: tokens, window: month, model: m, action: {degrade: m}", `32:3: account "acme/small": limit tokens per month of m degrades to "m": that is the one it limits`},
		{"measure: tokens, window: month", "measure: tokens, window: month, anchor: 32", `34:46: account "acme/small": limit: anchor "32" does not fit the window month: give a day from 1 to 31`},
		{"measure: tokens, window: month", "measure: tokens, window: hour, anchor: 5", `34:45: account "acme/small": limit: anchor "5" does not fit the window hour: it has none`},
		{"measure: tokens, window: month", "measure: tokens, window: month, service_tier: 'a b'", `34:5: account "acme/small": limit: service_tier "a b" is no name`},
		{"measure: tokens, window: month", "measure: tokens, window: month, alerts: [80%, 0%]", `34:52: account "acme/small": limit: alert "0%" is not a whole percentage from 1% to 1000%`},
		{"measure: tokens, window: month", "measure: tokens, window: month, alerts: [1.5]", `34:47: account "acme/small": limit: amount "1.5" of measure tokens is not a whole number from 0 to 10^15`},
		{"measure: tokens, window: month", "measure: tokens, window: month, model: n", `32:3: account "acme/small": limit tokens per month of n: unknown model "n"; known are m`},
		{"measure: tokens, window: month", "measure: tokens, window: month, size_class: smal", `32:3: account "acme/small": limit tokens per month of smal: unknown size class "smal"; did you mean "small"?`},
		{"measure: tokens, window: month", "measure: tokens, window: month, size_class: small, model: m", `34:5: account "acme/small": limit: a limit is narrowed to a model or to a size_class, not to both`},
		{`amount: "20640"`, `amount: "20640.5"`, `34:46: account "acme/small": limit: amount "20640.5" of measure tokens is not a whole number from 0 to 10^15`},
		{`amount: "20640"`, `amount: -1`, `34:46: account "acme/small": limit: amount "-1" of measure tokens is not a whole number from 0 to 10^15`},
		{`amount: "1000000"`, `amount: -0.5`, `30:45: account "acme/research": limit: amount -0.5 is negative`},
		{`amount: "20640"}`, "amount: \"20640\"}\n  - {measure: tokens, window: month, amount: 1}", `35:5: account "acme/small": limit tokens per month is here twice; the first is on line 34`},
		// rates
		{"requests_per_minute: 60, burst: 3", "requests_per_minute: -1", "41:9: account \"acme/slow\": requests_per_minute must be from 1 to 1000000000"},
		{"requests_per_minute: 60, burst: 3", "burst: 3", "41:9: account \"acme/slow\": a burst without requests_per_minute limits nothing\n41:9: account \"acme/slow\": rate needs requests_per_minute or tokens_per_minute"},
		{"requests_per_minute: 60, burst: 3", "", `41:9: account "acme/slow": rate needs requests_per_minute or tokens_per_minute`},
		{"burst: 3", "burst: -3", `41:9: account "acme/slow": the burst of requests_per_minute must be from 1 to 1000000000`},
		{"requests_per_minute: 60, burst: 3", "tokens_per_minute: 1000000001", `41:9: account "acme/slow": tokens_per_minute must be from 1 to 1000000000`},
		// keys
		{"account: acme/small/app", "account: acme/smal/app", `45:3: key "budget20": unknown account "acme/smal/app"; did you mean "acme/small/app"?`},
		{"account: acme/small/app", "account: ''", `45:3: key "budget20": account path "": segment "" is not of a-z, 0-9, '.', '_', '-' beginning with a letter or digit`},
		{"name: budget20", "name: key_x", `45:3: name "key_x" begins with key_, as public ids do`},
		{"name: budget20", "name: good", `45:3: key "good" is here twice; the first is on line 44`},
		{"file:keys/budget20", "file:keys/twin", `44:3: key "good": it has the same secret as key "budget20"`},
		{"file:keys/budget20", "file:keys/empty", "45:58: the secret file:keys/empty is empty"},
		{"file:keys/budget20", "file:keys/short", "45:58: the secret file:keys/short is 15 bytes long; at least 16, or it can be guessed"},
		{"file:keys/budget20", "file:keys/long", "45:58: the secret file:keys/long is 513 bytes long; at most 512"},
		{"file:keys/budget20", "file:keys/blank", "45:58: the secret file:keys/blank has blanks, line ends or other characters that no HTTP header can carry"},
		{`"file:keys/budget20"`, `"canary-0123456789"`, `45:58: "secret" must be "file:PATH" or "env:NAME"; a secret itself does not belong in a resource file`},
		{`secret: "file:keys/budget20"`, `secrte: "file:keys/budget20"`, "45:3: key lacks the key \"secret\"\n45:50: unknown key \"secrte\" in key; did you mean \"secret\"?"},
		{`secret: "file:keys/budget20"`, `secret: "file:keys/budget20", limits: [{measure: token, window: day, amount: 1}]`, `45:89: key "budget20": limit: unknown measure "token"; did you mean "tokens"?`},
		{`secret: "file:keys/budget20"`, `secret: "file:keys/budget20", limits: [{measure: tokens, window: day, amount: 1, model: n}]`, `45:3: key "budget20": limit tokens per day of n: unknown model "n"; known are m`},
		// the file
		{"\nkeys:", "\nkeyz:", `43:1: unknown section "keyz"; did you mean "keys"?`},
	} {
		s := open(t)
		s.apply("accounts:\n- {path: other, currency: EUR}\n", false)
		before, old := s.store.dump(), s.Current()
		_, err := s.Apply(t.Context(), source(file(t, c.old, c.now)), true)
		if !errors.As(err, new(resource.Errors)) {
			t.Errorf("%s: %v, want\n%s", c.now, err, c.want)
			continue
		}
		got := strings.ReplaceAll(err.Error(), "w.yaml:", "")
		if got != c.want || strings.Contains(got, "canary-") {
			t.Errorf("%s:\ngot  %s\nwant %s", c.now, got, c.want)
		}
		if s.Current() != old || s.store.dump() != before {
			t.Errorf("%s: the world changed", c.now)
		}
	}
}

func keyless(pos, key, account string) string {
	return pos + `: key "` + key + `": account "` + account + `" has no price_book, nor has one above it: nothing can be used with the key` + "\n"
}

// TestPublished: the world is also checked against what is not in the file.
func TestPublished(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"models:\n- {name: n, engines: [stub], context_tokens: 100}\n", "<nil>"},
		{"models:\n- {name: n, engines: [stubb], context_tokens: 100}\n", `w.yaml:2:3: model "n": unknown engine "stubb"; did you mean "stub"?`},
		{"accounts:\n- {path: acme/new, price_book: public}\n", "<nil>"},
		{"accounts:\n- {path: acme, currency: USD, price_book: public}\n", `w.yaml:2:3: account "acme": price book "public" is in EUR, the account in USD`},
		{"keys:\n- {name: again, account: acme/small/app, secret: 'file:keys/twin'}\n", `w.yaml:2:3: key "again": it has the same secret as key "good"`},
		{"keys:\n- {name: zz, account: acme/small/app, secret: 'file:keys/twin'}\n", `w.yaml:2:3: key "zz": it has the same secret as key "good"`},
		{"keys:\n- {name: new, account: acme/none, secret: 'file:keys/other'}\n", `w.yaml:2:3: key "new": unknown account "acme/none"; known are acme, acme/empty, acme/empty/app, acme/research, acme/research/chat, acme/slow, acme/slow/app, acme/small, acme/small/app`},
		{"price_books:\n- {name: public, currency: USD, prices: [{model: m, meter: input, price: 1}]}\n", `w.yaml:1:1: account "acme" (not in this file): price book "public" is in USD, the account in EUR`},
	} {
		s := open(t)
		s.apply(file(t), false)
		_, err := s.Plan(source(c.text), false)
		s.is(c.text, err, c.want)
	}
}
