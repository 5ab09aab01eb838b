package realengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// sums is what callers saw.
type sums struct {
	mu            sync.Mutex // guards the rest
	requests      int
	input, output map[string]int64
	cost          big.Int // femto-units
}

func newSums() *sums { return &sums{input: map[string]int64{}, output: map[string]int64{}} }

func (s *sums) add(model string, u openai.CompletionUsage) error {
	var cost string
	if err := json.Unmarshal([]byte(u.JSON.ExtraFields["cost"].Raw()), &cost); err != nil {
		return fmt.Errorf("the usage of an answer has no cost: %s", u.RawJSON())
	}
	return s.book(model, u.PromptTokens, u.CompletionTokens, cost)
}

func (s *sums) book(model string, input, output int64, cost string) error {
	whole, frac, _ := strings.Cut(cost, ".")
	femto, ok := new(big.Int).SetString(whole+(frac + "000000000000000")[:15], 10)
	if !ok {
		return fmt.Errorf("cost %q is not a decimal", cost)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.input[model] += input
	s.output[model] += output
	s.cost.Add(&s.cost, femto)
	return nil
}

func say(i int) []openai.ChatCompletionMessageParamUnion {
	return []openai.ChatCompletionMessageParamUnion{
		openai.SystemMessage("You are a clerk."),
		openai.UserMessage(fmt.Sprintf("Entry %d: how is a tally stick kept? Ünïcödé %s", i, strings.Repeat("and more ", i%7))),
	}
}

// kinds are the calls of the mix, by the official Go client.
var kinds = []func(ctx context.Context, c *openai.Client, i int, s *sums) error{
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // plain
		a, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxTokens: openai.Int(24)})
		if err != nil {
			return err
		}
		return s.add("tiny", a.Usage)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // streaming, usage asked
		return stream(ctx, c, s, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxCompletionTokens: openai.Int(32)}, 1)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // three choices
		a, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxTokens: openai.Int(16), N: openai.Int(3)})
		if err != nil {
			return err
		}
		if len(a.Choices) != 3 {
			return fmt.Errorf("n = 3 brought %d choices", len(a.Choices))
		}
		for _, choice := range a.Choices {
			if choice.FinishReason == "" {
				return errors.New("a choice has no finish reason")
			}
		}
		return s.add("tiny", a.Usage)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // three choices, streaming
		return stream(ctx, c, s, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxTokens: openai.Int(16), N: openai.Int(3)}, 3)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // a thinking model
		a, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "think", Messages: say(i), MaxTokens: openai.Int(48)})
		if err != nil {
			return err
		}
		return s.add("think", a.Usage)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // a thinking model, streaming
		return stream(ctx, c, s, openai.ChatCompletionNewParams{Model: "think", Messages: say(i), MaxTokens: openai.Int(48)}, 1)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // text completion of two prompts
		a, err := c.Completions.New(ctx, openai.CompletionNewParams{Model: "tiny", MaxTokens: openai.Int(12),
			Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"The sum is", fmt.Sprintf("Notch %d", i)}}})
		if err != nil {
			return err
		}
		if len(a.Choices) != 2 {
			return fmt.Errorf("two prompts brought %d choices", len(a.Choices))
		}
		return s.add("tiny", a.Usage)
	},
	func(ctx context.Context, c *openai.Client, i int, s *sums) error { // embeddings
		a, err := c.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "embed",
			Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"half a stick", fmt.Sprintf("the other half %d", i)}}})
		if err != nil {
			return err
		}
		if len(a.Data) != 2 {
			return fmt.Errorf("two inputs brought %d embeddings", len(a.Data))
		}
		var cost string
		if err := json.Unmarshal([]byte(a.Usage.JSON.ExtraFields["cost"].Raw()), &cost); err != nil {
			return fmt.Errorf("embeddings have no cost: %s", a.Usage.RawJSON())
		}
		return s.book("embed", a.Usage.PromptTokens, 0, cost)
	},
}

func stream(ctx context.Context, c *openai.Client, s *sums, p openai.ChatCompletionNewParams, choices int) error {
	p.StreamOptions.IncludeUsage = openai.Bool(true)
	events := c.Chat.Completions.NewStreaming(ctx, p)
	defer events.Close()
	finished := map[int64]bool{}
	var last openai.CompletionUsage
	for events.Next() {
		chunk := events.Current()
		for _, choice := range chunk.Choices {
			if choice.FinishReason != "" {
				finished[choice.Index] = true
			}
		}
		if chunk.Usage.TotalTokens > 0 {
			last = chunk.Usage
		}
	}
	if err := events.Err(); err != nil {
		return err
	}
	if len(finished) != choices {
		return fmt.Errorf("%d of %d choices finished", len(finished), choices)
	}
	return s.add(p.Model, last)
}

// TestTotalsEqualTheEngines sends 200 mixed requests, 160 by the official client for Go and 40 by that for Node, and
// compares what the callers saw, what the ledger has and what the engines counted.
func TestTotalsEqualTheEngines(t *testing.T) {
	needEngine(t)
	engines := map[string]*engine{"tiny": startEngine(t, "tiny"), "think": startEngine(t, "think"), "embed": nil}
	engines["embed"] = startEngineAs(t, "embed")
	g := startGateway(t, engines)
	before := map[string]counters{}
	for name, e := range engines {
		before[name] = e.books(t)
	}

	seen := newSums()
	client := openai.NewClient(option.WithBaseURL(g.url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
	work := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range work {
				if err := kinds[i%len(kinds)](t.Context(), &client, i, seen); err != nil {
					t.Errorf("request %d (kind %d): %v", i, i%len(kinds), err)
				}
			}
		})
	}
	for i := range 160 {
		work <- i
	}
	close(work)
	workers.Wait()
	node := nodeCalls(t, g, 40)

	var total counters
	requests := int64(0)
	ledgerCost := new(big.Int)
	for name, e := range engines {
		made := e.books(t).minus(before[name])
		booked := g.usage(name)
		if made != booked.counters() {
			t.Errorf("%s: the engine counted %+v, the ledger has %+v", name, made, booked.counters())
		}
		total.uncached, total.cached, total.output = total.uncached+made.uncached, total.cached+made.cached, total.output+made.output
		requests += booked.Requests
		femto, err := femtoOf(booked.Charge)
		if err != nil {
			t.Fatal(err)
		}
		ledgerCost.Add(ledgerCost, femto)
	}
	callersIn, callersOut := node.Input, node.Output
	for _, name := range []string{"tiny", "think", "embed"} {
		callersIn, callersOut = callersIn+seen.input[name], callersOut+seen.output[name]
	}
	if callersIn != total.uncached+total.cached || callersOut != total.output {
		t.Errorf("callers saw %d input and %d output tokens, the engines counted %+v", callersIn, callersOut, total)
	}
	if cost := new(big.Int).Add(&seen.cost, node.femto); cost.Cmp(ledgerCost) != 0 {
		t.Errorf("callers were told %s femto-units in all, the ledger has %s", cost, ledgerCost)
	}
	if requests != 200 {
		t.Errorf("the ledger has %d requests, want 200", requests)
	}
	if think := g.usage("think"); think.Reasoning == 0 || think.Reasoning >= think.Output {
		t.Errorf("the thinking model: %d reasoning tokens of %d output tokens", think.Reasoning, think.Output)
	}
	t.Logf("200 requests: engines counted %+v; ledger and callers agree", total)
	t.Logf("%s", g.tool("ledger", "check"))
}

// startEngineAs starts the tiny model for embeddings under a name of its own.
func startEngineAs(t *testing.T, name string) *engine {
	return startEngine(t, "tiny", "--embeddings", "--pooling", "mean", "--alias", name)
}

func femtoOf(decimal string) (*big.Int, error) {
	whole, frac, _ := strings.Cut(decimal, ".")
	femto, ok := new(big.Int).SetString(whole+(frac + "000000000000000")[:15], 10)
	if !ok {
		return nil, fmt.Errorf("%q is not a decimal", decimal)
	}
	return femto, nil
}

type nodeSums struct {
	Requests, Input, Output int64
	Cost                    string
	femto                   *big.Int
}

func nodeCalls(t *testing.T, g *gateway, n int) nodeSums {
	t.Helper()
	if out, err := run("node", "npm", "ci", "--no-audit", "--no-fund"); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	out, err := run("node", "node", "calls.mjs", g.url+"/v1", key, fmt.Sprint(n))
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	var s nodeSums
	if err := json.Unmarshal([]byte(strings.TrimSpace(out)), &s); err != nil {
		t.Fatalf("node printed no sums: %v\n%s", err, out)
	}
	var ok bool
	if s.femto, ok = new(big.Int).SetString(s.Cost, 10); !ok || s.Requests != int64(n) {
		t.Fatalf("node: %+v", s)
	}
	return s
}

func run(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestHangUps hangs up in the middle of answers: what is billed lies between what the callers saw and what the engine
// made, and nothing stays held.
func TestHangUps(t *testing.T) {
	needEngine(t)
	e := startEngine(t, "tiny")
	g := startGateway(t, map[string]*engine{"tiny": e})
	before := e.books(t)
	client := openai.NewClient(option.WithBaseURL(g.url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
	saw := int64(0)
	for i := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		events := client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxTokens: openai.Int(400)},
			option.WithJSONSet("ignore_eos", true))
		for n := 0; n < 3+i && events.Next(); {
			if c := events.Current().Choices; len(c) > 0 && c[0].Delta.Content != "" {
				saw++
				n++
			}
		}
		cancel()
		events.Close()
	}
	for i := range 10 { // not streaming: the answer is under way when the caller leaves
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := client.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "tiny", Messages: say(i), MaxTokens: openai.Int(1000)}, option.WithJSONSet("ignore_eos", true))
			done <- err
		}()
		for busy := false; !busy; {
			_, busy = e.scrape(t)
		}
		cancel()
		<-done
	}
	made := e.books(t).minus(before)
	awaitNothingHeld(t, g)
	booked := g.usage("tiny").counters()
	if booked.output < saw || booked.output > made.output {
		t.Errorf("callers saw %d output tokens, the ledger has %d, the engine made %d: want them in this order", saw, booked.output, made.output)
	}
	if in, most := booked.uncached+booked.cached, made.uncached+made.cached; in > most {
		t.Errorf("the ledger has %d input tokens, the engine counted %d", in, most)
	}
	t.Logf("callers saw %d, the ledger has %+v, the engine made %+v", saw, booked, made)
	t.Logf("%s", g.tool("ledger", "check"))
}

// awaitNothingHeld waits until every limit shows nothing held.
func awaitNothingHeld(t *testing.T, g *gateway) {
	t.Helper()
	for range 200 {
		var limits []struct{ Held string }
		if err := json.Unmarshal(g.tool("limits", "lab/bench", "-o", "json"), &limits); err != nil {
			t.Fatal(err)
		}
		if len(limits) == 1 && limits[0].Held == "0" {
			return
		}
	}
	t.Fatal("something stays held")
}

// TestEngineErrors passes on an engine's own refusals as statuses with its name for the reason.
func TestEngineErrors(t *testing.T) {
	needEngine(t)
	g := startGateway(t, map[string]*engine{"tiny": startEngine(t, "tiny", "-c", "1024")})
	body := fmt.Sprintf(`{"model":"tiny","max_tokens":5,"messages":[{"role":"user","content":%q}]}`, strings.Repeat("notch ", 600))
	req, _ := http.NewRequestWithContext(t.Context(), "POST", g.url+"/v1/chat/completions", strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text := string(readAll(t, resp.Body))
	if resp.StatusCode != 400 || !strings.Contains(text, "exceed_context_size_error") || strings.Contains(text, "notch") {
		t.Errorf("a prompt beyond the context: %d %s", resp.StatusCode, text)
	}
	awaitNothingHeld(t, g)
}
