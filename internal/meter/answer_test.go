package meter

import (
	"strings"
	"testing"

	"talea/internal/usage"
)

func TestReadAnswer(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"usage null", `{"choices":[{"index":0,"message":{"content":"a b c"},"finish_reason":"stop"}],"usage":null}`, "- - 1 - gateway_count stop usage_missing"},
		{"no usage, two choices", `{"choices":[{"index":0,"message":{"content":"a"}},{"index":1,"message":{"content":"b"}}]}`, "- - 2 - gateway_count - usage_missing"},
		{"zeros with text", `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0}}`, "- - 1 - gateway_count stop zero_with_text"},
		{"zeros without text", `{"choices":[{"message":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0}}`, "0 - 0 - engine_final stop"},
		{"nonsense", `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":12.5}}`, "- - 1 - gateway_count stop usage_refused"},
		{"thoughts and tools are text", `{"choices":[{"message":{"content":null,"reasoning":"x"}},{"index":1,"message":{"content":null,"tool_calls":[{}]}}],"usage":null}`, "- - 2 - gateway_count - usage_missing"},
		{"over the bound", `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":101}}`, "3 - 101 - engine_final stop over_bound"},
		{"cut off", `{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_to`, "failed"},
		{"error", `{"error":{"message":"x"}}`, "failed"},
		{"null error", `{"error":null,"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}`, "3 - 0 - engine_final -"},
		{"no object", `[1]`, "failed"},
		{"nothing", ``, "failed"},
	} {
		a := ReadAnswer(vllmDialect, []byte(c.body), Options{OutputBound: 100})
		got := summary(a.Report)
		if a.Failed {
			got = "failed"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSpliceCost(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"at the end", `{"id":"x","usage":{"prompt_tokens":3}}`, `{"id":"x","usage":{"prompt_tokens":3,"cost":"0.1","currency":"EUR"}}`},
		{"in the middle", "{ \"usage\" : { \"a\" : 1 }\n, \"id\":12345678901234567890 }\n", "{ \"usage\" : {\"a\" : 1,\"cost\":\"0.1\",\"currency\":\"EUR\"}\n, \"id\":12345678901234567890 }\n"},
		{"empty", `{"usage":{}}`, `{"usage":{"cost":"0.1","currency":"EUR"}}`},
		{"a cost of the engine's", `{"usage":{"cost":0.5,"a":{"cost":2},"currency":"USD"}}`, `{"usage":{"a":{"cost":2},"cost":"0.1","currency":"EUR"}}`},
		{"null", `{"usage":null}`, `{"usage":null}`},
		{"none", `{"choices":[{"usage":{}}]}`, `{"choices":[{"usage":{}}]}`},
		{"no JSON", `oops`, `oops`},
	} {
		if got := string(SpliceCost([]byte(">"), []byte(c.body), nil, Cost{"0.1", "EUR"})); got != ">"+c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	const body = `{"usage":{ "a":1 }}`
	if got := string(SpliceCost(nil, []byte(body), nil, Cost{})); got != body {
		t.Errorf("no cost: %s", got)
	}
}

func TestGather(t *testing.T) {
	const head = `{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,`
	in := event(head+`"delta":{"role":"assistant","content":null}}]}`) +
		event(head+`"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"weigh","arguments":""}}]}}]}`) +
		event(head+`"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"what\":"}}]}}]}`) +
		event(head+`"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"bread \u00e9\"}"}}]}}]}`) +
		event(head+`"delta":{"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"count","arguments":"{}"}}]}}]}`) +
		event(head+`"delta":{},"finish_reason":"tool_calls"}]}`) + done
	g := NewGather(dialect(t, "llamacpp"), Options{}, 1<<20)
	if ev, err := g.Feed([]byte(in)); ev != Finished || err != nil {
		t.Fatal(ev, err)
	}
	var counts usage.Counts
	counts.Set(usage.InputUncached, 3)
	const want = `{"choices":[{"finish_reason":"tool_calls","index":0,"logprobs":null,"message":{"role":"assistant","content":null,"tool_calls":[` +
		`{"type":"function","function":{"name":"weigh","arguments":"{\"what\":\"bread \u00e9\"}"},"id":"t1"},` +
		`{"type":"function","function":{"name":"count","arguments":"{}"},"id":"t2"}]}}],"id":"c","created":1,"model":"m","object":"chat.completion",` +
		`"usage":{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}}`
	if got := string(g.Body(nil, &counts, Cost{})); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	small := NewGather(dialect(t, "llamacpp"), Options{}, 100)
	if _, err := small.Feed([]byte(in)); err != ErrTooLarge {
		t.Errorf("%v, want %v", err, ErrTooLarge)
	}
	broken := NewGather(dialect(t, "llamacpp"), Options{}, 1<<20)
	if ev, _ := broken.Feed([]byte(event(`{"error":{"code":500}}`))); ev != EngineError || !strings.Contains(string(broken.s.engineMessage()), "500") {
		t.Errorf("event %d, %s", ev, broken.s.engineMessage())
	}
	if ev := NewGather(vllmDialect, Options{}, 1).End(); ev != None {
		t.Errorf("event %d of no stream", ev)
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, file := range []string{"vllm/chat.json", "llamacpp/n3.json", "openai/embeddings.json"} {
		f.Add(transcript(f, file))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range []string{"vllm", "llamacpp", "ollama", "openai"} {
			a := ReadAnswer(dialect(t, name), body, Options{})
			if out := a.Counts.Output(); out < 0 || out > usage.MaxCount {
				t.Fatalf("%s: %d", name, out)
			}
		}
		if got := SpliceCost(nil, body, nil, Cost{}); string(got) != string(body) {
			t.Fatalf("a body without cost was changed: %q", got)
		}
	})
}

func BenchmarkReadAnswer(b *testing.B) {
	body := []byte(`{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1760000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat(" the", 20) + `","refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":32,"total_tokens":52,"completion_tokens":20,"prompt_tokens_details":null},"prompt_logprobs":null}`)
	b.ReportAllocs()
	for b.Loop() {
		if a := ReadAnswer(vllmDialect, body, Options{}); a.Counts.Output() != 20 {
			b.Fatal("wrong count")
		}
	}
}

// The tier that was served stands in the answer once, whatever the engine says, and nothing else changes.
func TestSpliceTier(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"id":"c","usage":{"a":1}}`, `{"service_tier":"flex","id":"c","usage":{"a":1}}`},
		{`{"id":"c", "service_tier" : null ,"x":[{"service_tier":"y"}]} `, `{"id":"c", "service_tier" : "flex" ,"x":[{"service_tier":"y"}]} `},
		{`{"service_tier":"default","service_tier":{"a":[1]}}`, `{"service_tier":"flex","service_tier":"flex"}`},
		{` { } `, ` {"service_tier":"flex" } `},
		{`oops`, `oops`},
	} {
		if got := string(SpliceTier([]byte(">"), []byte(c.body), "flex")); got != ">"+c.want {
			t.Errorf("%s becomes %s, want >%s", c.body, got, c.want)
		}
	}
}
