package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// listing is a model as the list shows it.
type listing struct {
	Pricing struct {
		Currency, Prompt, Completion, Request, Image string
		CacheRead                                    string `json:"input_cache_read"`
		PromptSteps                                  any    `json:"prompt_steps"`
		CompletionSteps                              struct {
			Form, Scope, Window string
			Steps               []struct {
				Price, Flat string
				UpTo        int64 `json:"up_to"`
			}
		} `json:"completion_steps"`
		Overrides []struct {
			MinPrompt          int64 `json:"min_prompt_tokens"`
			From, Until        time.Time
			Prompt, Completion string
			Multiplier         string `json:"price_multiplier"`
		}
	}
	Multiplier string `json:"price_multiplier"`
	Tiers      []struct {
		Tier       string `json:"service_tier"`
		Multiplier string `json:"price_multiplier"`
		Pricing    struct{ Prompt, Completion string }
	} `json:"service_tiers"`
}

// The list of models has every price as a decimal string of one unit: of now, of long prompts, of the windows of the next 7 days,
// of steps and of service tiers. What has no price is not in it, and what it says a request then costs.
func TestModelsShowPrices(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, prices: `  - {model: m, meter: input, price: "1.00", long_context: [{over: 1000, price: "2.00"}]}
  - {model: m, meter: input_cache_read, price: "0.10"}
  - {model: m, meter: output, form: graduated, steps: [{up_to: 100, price: "4.00", flat: "5"}, {price: "3.00"}]}
  service_tiers: {flex: {multiplier: "0.5"}}
  windows: [{name: first, from: "00:00", to: "12:00", multiplier: "3"}, {name: second, from: "12:00", to: "24:00", multiplier: "2"}]
`})
	p := r.do("GET", "/v1/models/m", "EMPTY", "") // without a budget
	var m listing
	if err := json.Unmarshal([]byte(p.body), &m); p.status != 200 || err != nil {
		t.Fatalf("%d %v %s", p.status, err, p.body)
	}
	now := map[string]string{"3": "0.000003", "2": "0.000002"}[m.Multiplier]
	if now == "" || m.Pricing.Prompt != now || m.Pricing.Currency != "EUR" || m.Pricing.PromptSteps != nil {
		t.Errorf("prices of now: %s", p.body)
	}
	for _, absent := range []string{`"request"`, `"image"`, `":"0"`} {
		if strings.Contains(p.body, absent) {
			t.Errorf("%s is in the list: %s", absent, p.body)
		}
	}
	steps := m.Pricing.CompletionSteps
	if steps.Form != "graduated" || steps.Scope != "organisation" || steps.Window != "month" || len(steps.Steps) != 2 || steps.Steps[0].UpTo != 100 || steps.Steps[0].Flat != "5" ||
		steps.Steps[0].Price != m.Pricing.Completion || steps.Steps[1].UpTo != 0 {
		t.Errorf("steps %+v", steps)
	}
	times, last := 0, time.Time{}
	for i, o := range m.Pricing.Overrides {
		if i == 0 {
			if o.MinPrompt != 1001 || o.Prompt != map[string]string{"3": "0.000006", "2": "0.000004"}[m.Multiplier] || o.Completion != "" {
				t.Errorf("for long prompts %+v", o)
			}
			continue
		}
		times++
		other := map[string]string{"0.000003": "0.000002", "0.000002": "0.000003"}[now]
		if o.Prompt != other || o.Multiplier == m.Multiplier || !o.From.Before(o.Until) || !o.From.After(last) {
			t.Errorf("override %+v after %s", o, last)
		}
		last = o.Until
		a, _ := r.estimated("GOOD", say("", ""), "?at="+o.From.Format(time.RFC3339))
		if a.Offerings[0].Multiplier != o.Multiplier {
			t.Errorf("an estimate of %s has the multiplier %s, the list %s", o.From, a.Offerings[0].Multiplier, o.Multiplier)
		}
	}
	if times < 7 || times > 8 {
		t.Errorf("%d overrides of time in 7 days: %s", times, p.body)
	}
	if len(m.Tiers) != 1 || m.Tiers[0].Tier != "flex" || m.Tiers[0].Pricing.Prompt != map[string]string{"3": "0.0000015", "2": "0.000001"}[m.Multiplier] {
		t.Errorf("tiers %+v", m.Tiers)
	}
	var all struct{ Data []json.RawMessage }
	if p := r.do("GET", "/v1/models", "GOOD", ""); json.Unmarshal([]byte(p.body), &all) != nil || len(all.Data) != 1 {
		t.Errorf("the list: %s", p.body)
	}
}
