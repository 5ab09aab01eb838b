package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"talea/internal/sim"
)

// demoApp is an application of a demo organisation, and the project and key that it has.
type demoApp struct {
	account string
	big     bool // asks the large model
	sim.App
}

// demoApps call the gateway in the demo. Their number and pace keep two simulated engines busy and one laptop idle.
var demoApps = []demoApp{
	{"ministry/justice/registry", true, sim.App{Kind: sim.Streams, Users: 5, Think: 2 * time.Second, System: 220, Prompt: 60, MaxTokens: 300, Effort: "low"}},
	{"ministry/justice/translation", false, sim.App{Kind: sim.Plain, Users: 5, Think: 2 * time.Second, System: 60, Prompt: 120, MaxTokens: 200}},
	{"ministry/interior/permits", false, sim.App{Kind: sim.Streams, Users: 9, Think: 2 * time.Second, System: 160, Prompt: 40, MaxTokens: 250}},
	{"hospital/radiology/reports", true, sim.App{Kind: sim.Streams, Users: 6, Think: 3 * time.Second, System: 260, Prompt: 90, MaxTokens: 350, HangUps: 60}},
	{"hospital/research/search", false, sim.App{Kind: sim.Embeddings, Users: 2, Think: time.Second, System: 40, Prompt: 120}},
	{"startup/copilot", false, sim.App{Kind: sim.Streams, Users: 10, Think: 1500 * time.Millisecond, System: 120, Prompt: 40, MaxTokens: 160, HangUps: 200}},
	{"startup/labs/agents", true, sim.App{Kind: sim.Streams, Users: 6, Think: 500 * time.Millisecond, System: 120, Prompt: 30, MaxTokens: 200}},
}

// demoAccounts are the organisations with their departments, projects and limits. The agents of the startup's labs use
// their budget up within a minute; the search of the hospital comes to its rate; the rest has room.
const demoAccounts = `accounts:
- path: hospital
  currency: EUR
  timezone: Europe/Berlin
  price_book: public
  limits: [{measure: money, window: year, amount: "20000"}]
- path: hospital/radiology
  limits: [{measure: money, window: day, amount: "0.05"}]
- path: hospital/radiology/reports
- path: hospital/research
  rate: {requests_per_minute: 60, burst: 5}
- path: hospital/research/search
- path: ministry
  currency: EUR
  timezone: Europe/Berlin
  price_book: public
  labels: {cost_centre: "4711"}
  limits: [{measure: money, window: month, amount: "5000"}]
- path: ministry/interior
  limits: [{measure: tokens, window: day, amount: "150000"}]
- path: ministry/interior/permits
- path: ministry/justice
  limits: [{measure: money, window: month, amount: "0.10"}]
- path: ministry/justice/registry
- path: ministry/justice/translation
- path: startup
  currency: EUR
  timezone: Europe/Berlin
  price_book: public
  limits: [{measure: money, window: month, amount: "1"}]
- path: startup/copilot
- path: startup/labs
  limits: [{measure: money, window: day, amount: "0.03"}]
- path: startup/labs/agents
- path: startup/visitor
  limits: [{measure: requests, window: hour, amount: "100"}]
`

// visitor is the project whose key the demo gives away.
const visitor = "startup/visitor"

// demoPrices is the price book, once for each model.
const demoPrices = `  - {model: %[1]s, meter: input, price: "%[2]s"}
  - {model: %[1]s, meter: input_cache_read, price: "%[3]s"}
  - {model: %[1]s, meter: output, price: "%[4]s"}
`

// demoModel is a model of the demo and the engine that serves it.
type demoModel struct {
	name, engine, kind, url  string
	parameters, gpus         string // members of the resources, with a comma in front; "" where unknown
	input, cacheRead, output string // EUR for a million tokens
	context, most, usual     int    // tokens
}

// resources writes the demo's resource file. Each key's secret is in the environment variable that keyVariable names.
func (d *demo) resources() string {
	var engines, models, prices, keys strings.Builder
	for i, m := range d.models {
		if i == 0 || d.models[i-1].engine != m.engine {
			fmt.Fprintf(&engines, "- {name: %s, kind: %s, url: %q, region: eu-de%s}\n", m.engine, m.kind, m.url, m.gpus)
		}
		fmt.Fprintf(&models, "- {name: %q, engines: [%s]%s, context_tokens: %d, max_output_tokens: %d, default_max_output_tokens: %d}\n",
			m.name, m.engine, m.parameters, m.context, m.most, m.usual)
		fmt.Fprintf(&prices, demoPrices, jsonText(m.name), m.input, m.cacheRead, m.output)
	}
	for _, account := range d.projects() {
		fmt.Fprintf(&keys, "- {name: %s, account: %s, secret: \"env:%s\"}\n", strings.ReplaceAll(account, "/", "-"), account, keyVariable(account))
	}
	return "engines:\n" + engines.String() + "models:\n" + models.String() + `price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2020-01-01T00:00:00+01:00}
  prices:
` + prices.String() + demoAccounts + "keys:\n" + keys.String()
}

// projects are the accounts that have a key.
func (d *demo) projects() []string {
	list := []string{visitor}
	for _, a := range d.apps {
		list = append(list, a.account)
	}
	return list
}

func keyVariable(account string) string {
	return "DEMO_KEY_" + strings.ToUpper(strings.ReplaceAll(account, "/", "_"))
}

func jsonText(s string) string {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return string(b)
}

// startEngines starts the simulated engines, or looks at the real one that takes their place.
func (d *demo) startEngines(ctx context.Context) error {
	if d.o.Engine != "" {
		return d.useEngine(ctx)
	}
	small := sim.NewEngine(sim.EngineOptions{Seed: 8, Slots: 64, Sleep: d.sleep, Models: []sim.Model{{Name: "llama-8b", Parameters: 8_030_000_000}}})
	large := sim.NewEngine(sim.EngineOptions{Seed: 70, GPUs: 4, Slots: 32, Sleep: d.sleep, Models: []sim.Model{{Name: "llama-70b", Parameters: 70_600_000_000}}})
	d.engines = []*sim.Engine{small, large}
	d.models = []demoModel{
		{name: "llama-8b", engine: "small", kind: "vllm", url: small.URL(), parameters: ", parameters: 8.03e9", context: 131_072, most: 4096, usual: 500,
			input: "0.11", cacheRead: "0.011", output: "0.21", gpus: `, gpus: {kind: L40S, count: 1, cost_per_hour: "0.90", currency: EUR}`},
		{name: "llama-70b", engine: "large", kind: "vllm", url: large.URL(), parameters: ", parameters: 70.6e9", context: 131_072, most: 4096, usual: 500,
			input: "0.60", cacheRead: "0.06", output: "1.80", gpus: `, gpus: {kind: H100-SXM, count: 4, cost_per_hour: "2.50", currency: EUR}`},
	}
	return nil
}

// useEngine puts a real engine in the place of the simulated ones.
func (d *demo) useEngine(ctx context.Context) error {
	url := strings.TrimSuffix(strings.TrimRight(d.o.Engine, "/"), "/v1")
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	names, err := engineModels(ctx, url)
	if err != nil {
		return fmt.Errorf("cannot ask the engine at %s for its models: %w", url, err)
	}
	name := d.o.Model
	if name == "" && len(names) > 0 {
		name = names[0]
	}
	if name == "" {
		return fmt.Errorf("the engine at %s names no model: say which with --model", url)
	}
	d.models = []demoModel{{
		name: name, engine: "real", kind: d.o.Kind, url: url, context: 4096, most: 512, usual: 128,
		input: "0.11", cacheRead: "0.011", output: "0.21",
	}}
	return nil
}

// engineModels lists what an engine serves.
func engineModels(ctx context.Context, url string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/models", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("it does not answer as an OpenAI server does: %w", err)
	}
	var names []string
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, nil
}

// applications are the callers of the demo. A real engine is spared: one user for each application, short answers.
func (d *demo) applications() []sim.App {
	var list []sim.App
	for _, a := range d.apps {
		app := a.App
		app.Name, app.Key, app.Model = a.account, d.keys[keyVariable(a.account)], d.models[0].name
		if a.big && len(d.models) > 1 {
			app.Model = d.models[1].name
		}
		if d.o.Engine != "" {
			if app.Kind == sim.Embeddings {
				continue // chat models have none
			}
			app.Users, app.Think, app.MaxTokens, app.System, app.Effort = 1, 2*app.Think, 48, app.System/4, ""
		}
		list = append(list, app)
	}
	return list
}
