package meter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"talea/internal/engine"
	"talea/internal/usage"
)

func decode(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return m
}

// choicesOf returns the choices of an answer, less members that are null or empty lists.
func choicesOf(m map[string]any) []any {
	for _, c := range m["choices"].([]any) {
		prune(c.(map[string]any))
	}
	return m["choices"].([]any)
}

func prune(m map[string]any) {
	for name, v := range m {
		if list, ok := v.([]any); v == nil || ok && len(list) == 0 {
			delete(m, name)
		}
		if object, ok := v.(map[string]any); ok {
			prune(object)
		}
	}
}

const (
	role   = `{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`
	hi     = `{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,"delta":{"content":"hé {\"usage\":1}"},"finish_reason":null}]}`
	hiUsed = `{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,"delta":{"content":"hé {\"usage\":1}"},"finish_reason":null}],"usage":{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}}`
	stop   = `{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	used   = `{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}`
)

func event(data string) string { return "data: " + data + "\n\n" }

const done = "data: [DONE]\n\n"

// What the client gets, to the byte, in every form that a stream may lawfully have. D stands for the end. I15.
func TestRelay(t *testing.T) {
	for _, c := range []struct {
		name, dialect string
		o             Options
		in, want      string
	}{
		{"nothing to hide", "vllm", Options{}, event(role) + event(hi) + event(stop) + done, event(role) + event(hi) + event(stop) + "D"},
		{"usage not asked for", "vllm", Options{}, event(role) + event(hiUsed) + event(stop) + event(used) + done, event(role) + event(hi) + event(stop) + "D"},
		{"running usage asked for", "vllm", Options{ShowRunning: true}, event(hiUsed) + event(stop) + event(used) + done, event(hiUsed) + event(stop) + "D"},
		{"usage asked for", "vllm", Options{ShowUsage: true}, event(hiUsed) + event(stop) + event(used) + done, event(hi) + event(stop) + event(used) + "D"},
		{"CRLF", "vllm", Options{}, "data: " + hiUsed + "\r\n\r\ndata: " + used + "\r\n\r\ndata: [DONE]\r\n\r\n", "data: " + hi + "\r\n\r\nD"},
		{"CR", "vllm", Options{}, "data: " + hiUsed + "\r\rdata: " + used + "\r\rdata: [DONE]\r\r", "data: " + hi + "\r\rD"},
		{"mixed line ends", "vllm", Options{}, "data: " + hiUsed + "\r\n\ndata: " + used + "\r\r\ndata: " + hi + "\n\r\ndata: [DONE]\n\r", "data: " + hi + "\r\n\ndata: " + hi + "\n\r\nD"},
		{"no space", "vllm", Options{}, "data:" + hiUsed + "\n\ndata:" + used + "\n\ndata:[DONE]\n\n", "data:" + hi + "\n\nD"},
		{"byte order mark", "vllm", Options{}, "\xEF\xBB\xBFdata: " + hiUsed + "\n\n" + done, "\xEF\xBB\xBFdata: " + hi + "\n\nD"},
		{"comments", "vllm", Options{}, ": ping\n\n:\n" + event(hiUsed) + ":\n: x\n" + event(used) + ":\n" + done, ": ping\n\n:\n" + event(hi) + ":\n: x\n:\nD"},
		{"comment within an event", "vllm", Options{}, "data: " + hiUsed + "\n: in\n\ndata: " + used + "\n: gone\n\n" + done, "data: " + hi + "\n: in\n\nD"},
		{"other fields", "vllm", Options{}, "event: x\nid: 7\ndata: " + hiUsed + "\nretry: 3\n\nevent: y\ndata: " + used + "\n\nid\n\n" + done, "event: x\nid: 7\ndata: " + hi + "\nretry: 3\n\nid\n\nD"},
		{"empty lines", "vllm", Options{}, "\n\n\r\n" + event(hi) + "\n" + done, "\n\n\r\n" + event(hi) + "\nD"},
		{"multi-line data", "vllm", Options{}, "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"x\"}}],\ndata:  \"usage\":\ndata: {\"prompt_tokens\":3,\ndata: \"completion_tokens\":1}\ndata: }\n\n" + done,
			"data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"x\"}}]\ndata: \ndata: \ndata: \ndata: }\n\nD"},
		{"usage first", "vllm", Options{}, event(`{"usage":{"prompt_tokens":1,"completion_tokens":1} , "choices":[{"delta":{"content":"x"}}]}`) + done, event(`{ "choices":[{"delta":{"content":"x"}}]}`) + "D"},
		{"usage in the middle", "vllm", Options{}, event(`{"a":1, "usage" : {"prompt_tokens":1,"completion_tokens":1}, "choices":[{"delta":{"content":"x"}}]}`) + done, event(`{"a":1, "choices":[{"delta":{"content":"x"}}]}`) + "D"},
		{"usage with an escape in its name", "vllm", Options{}, event(`{"a":1,"us\u0061ge":{"prompt_tokens":1},"choices":[{"delta":{"content":"x"}}]}`) + done, event(`{"a":1,"choices":[{"delta":{"content":"x"}}]}`) + "D"},
		{"null error", "vllm", Options{ShowUsage: true}, event(`{"error":null,"usage":null,"choices":[{"delta":{"content":"x"}}]}`) + done, event(`{"usage":null,"choices":[{"delta":{"content":"x"}}]}`) + event(`{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}}`) + "D"},
		{"null error and usage first", "vllm", Options{}, event(`{"error":null,"usage":null,"choices":[{"delta":{"content":"x"}}]}`) + done, event(`{"choices":[{"delta":{"content":"x"}}]}`) + "D"},
		{"null usage not asked for", "openai", Options{}, event(`{"choices":[{"delta":{"content":"x"}}],"usage":null}`) + done, event(`{"choices":[{"delta":{"content":"x"}}]}`) + "D"},
		{"empty choices without usage", "openai", Options{}, event(`{"choices":[],"prompt_filter_results":[1]}`) + done, event(`{"choices":[],"prompt_filter_results":[1]}`) + "D"},
		{"timings of ours", "llamacpp", Options{}, event(`{"choices":[{"finish_reason":null,"delta":{"content":"x"}}],"timings":{"predicted_n":1,"prompt_n":2}}`) + done, event(`{"choices":[{"finish_reason":null,"delta":{"content":"x"}}]}`) + "D"},
		{"timings of theirs", "llamacpp", Options{ShowRunning: true}, event(`{"choices":[{"finish_reason":null,"delta":{"content":"x"}}],"timings":{"predicted_n":1,"prompt_n":2}}`) + done, event(`{"choices":[{"finish_reason":null,"delta":{"content":"x"}}],"timings":{"predicted_n":1,"prompt_n":2}}`) + "D"},
		{"timings at the finish", "llamacpp", Options{}, event(`{"choices":[{"finish_reason":"stop","delta":{}}],"timings":{"predicted_n":1,"prompt_n":2}}`) + done, event(`{"choices":[{"finish_reason":"stop","delta":{}}],"timings":{"predicted_n":1,"prompt_n":2}}`) + "D"},
		{"null data", "llamacpp", Options{}, "data: null\n\n" + event(hi) + done, "data: null\n\n" + event(hi) + "D"},
		{"torn JSON", "vllm", Options{}, event(`{"id":"chatcmpl-broken","choices":[{"delta":`) + "not-a-field\ndata:\n\n" + event(hi) + done, event(`{"id":"chatcmpl-broken","choices":[{"delta":`) + "not-a-field\ndata:\n\n" + event(hi) + "D"},
		{"text after the end", "vllm", Options{}, event(hi) + done + event(hi) + ": late\n", event(hi) + "D"},
		{"no end but finished", "vllm", Options{}, event(hi) + event(stop), event(hi) + event(stop) + "D"},
		{"no line end at the end", "vllm", Options{}, event(hi) + "data: [DONE]", event(hi) + "D"},
		{"big numbers", "vllm", Options{}, event(`{"choices":[{"delta":{"content":"x"}}],"n":12345678901234567890123,"f":1.50}`) + done, event(`{"choices":[{"delta":{"content":"x"}}],"n":12345678901234567890123,"f":1.50}`) + "D"},
	} {
		want := strings.Replace(c.want, "D", done, 1)
		if out, ev, _ := play(t, dialect(t, c.dialect), c.o, []byte(c.in)); out != want || ev != Finished {
			t.Errorf("%s: event %d\n got %q\nwant %q", c.name, ev, out, want)
		}
		relayed, _ := split(dialect(t, c.dialect), c.o, []byte(c.in), []byte{0})
		if !strings.HasPrefix(want, string(relayed)) {
			t.Errorf("%s, byte by byte:\n got %q\nwant %q", c.name, relayed, want)
		}
	}
}

// A stream that the engine breaks off is no answer: nothing that is torn is relayed.
func TestBrokenOff(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"in an event", event(role) + event(hi) + "data: " + hi[:40], event(role) + event(hi)},
		{"between events", event(role) + event(hi), event(role) + event(hi)},
		{"before the blank line", event(role) + "data: " + hi + "\n", event(role) + event(hi) + "\n"},
		{"at once", "", ""},
	} {
		out, ev, r := play(t, vllmDialect, Options{}, []byte(c.in))
		if strings.TrimRight(out, "\n") != strings.TrimRight(c.want, "\n") || ev != None || r.Finish != "" {
			t.Errorf("%s: event %d, finish %q\n got %q\nwant %q", c.name, ev, r.Finish, out, c.want)
		}
	}
	// One of two choices has finished.
	if _, ev, _ := play(t, vllmDialect, Options{Choices: 2}, []byte(event(hi)+event(stop))); ev != None {
		t.Error("a stream without its second choice counts as finished")
	}
}

var vllmDialect, _ = engine.ByName("vllm")

// What counts as a delta.
func TestDeltas(t *testing.T) {
	for _, c := range []struct{ delta, want string }{
		{`"delta":{"content":"a"}`, "- - 1 -"},
		{`"delta":{"content":""}`, "- - - -"},
		{`"delta":{"content":null,"role":"assistant"}`, "- - - -"},
		{`"delta":{}`, "- - - -"},
		{`"delta":null`, "- - - -"},
		{`"delta":{"reasoning":"a"}`, "- - 0 1"},
		{`"delta":{"reasoning_content":"a","content":""}`, "- - 0 1"},
		{`"delta":{"content":"a","reasoning":"b"}`, "- - 1 -"},
		{`"delta":{"reasoning":"b","content":"a"}`, "- - 1 -"},
		{`"delta":{"tool_calls":[{"index":0}]}`, "- - 1 -"},
		{`"delta":{"tool_calls":[]}`, "- - - -"},
		{`"delta":{"refusal":"no"}`, "- - 1 -"},
		{`"delta":{"function_call":{"name":"f"}}`, "- - 1 -"},
		{`"text":"a"`, "- - 1 -"},
		{`"text":""`, "- - - -"},
	} {
		_, _, r := play(t, vllmDialect, Options{}, []byte(event(`{"choices":[{"index":0,`+c.delta+`}]}`)))
		if got := summary(r); !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%s: %s, want %s", c.delta, got, c.want)
		}
	}
}

// Zeros that Ollama puts into every chunk of a text completion are not usage, even where nothing else comes.
func TestZerosInChunksAreNoUsage(t *testing.T) {
	in, _, _ := bytes.Cut(transcript(t, "ollama/text.sse"), []byte(`data: {"id":"cmpl-311","object":"text_completion","created":1764000000,"choices":[{"text":""`))
	_, ev, r := play(t, dialect(t, "ollama"), Options{}, in)
	if got, want := summary(r), "- - 2 - gateway_count -"; got != want || ev != None {
		t.Errorf("event %d, %s, want %s", ev, got, want)
	}
}

func TestEngineErrorIsHeldBack(t *testing.T) {
	s := newStream(vllmDialect, Options{})
	const failure = `{"message":"EngineCore \"died\"","code":500}`
	out, ev, err := s.Feed([]byte(event(hi) + event(`{"error":`+failure+`}`) + done))
	if string(out) != event(hi) || ev != EngineError || err != nil || string(s.engineMessage()) != failure {
		t.Errorf("out %q, event %d, %v, message %s", out, ev, err, s.engineMessage())
	}
	if out, ev, err := s.Feed([]byte(event(hi))); len(out) != 0 || ev != None || err != nil {
		t.Errorf("after it: %q, %d, %v", out, ev, err)
	}
	if out, ev := s.End(); len(out) != 0 || ev != None {
		t.Errorf("at its end: %q, %d", out, ev)
	}
}

func TestTooLong(t *testing.T) {
	line := "data: " + strings.Repeat("x", 1000) + "\n"
	for _, c := range []struct {
		name, in string
		max      int
		fails    bool
	}{
		{"a line that fits", line + "\n", 1008, false},
		{"a line that does not", line + "\n", 1006, true},
		{"a line without end", strings.Repeat("x", 5000), 4096, true},
		{"an event without end", strings.Repeat("data: x\n", 1000), 4096, true},
		{"fields without end", strings.Repeat("id: x\n", 1000), 4096, true},
		{"a million comments", strings.Repeat(":\n", 1_000_000), 4096, false},
		{"a million empty lines", strings.Repeat("\r", 1_000_000), 4096, false},
	} {
		for _, step := range []int{len(c.in), 700} {
			s := newStream(vllmDialect, Options{MaxEvent: c.max})
			var err error
			relayed := 0
			for part := range slices.Chunk([]byte(c.in), step) {
				var out []byte
				if out, _, err = s.Feed(part); err != nil {
					break
				}
				relayed += len(out)
			}
			if errors.Is(err, ErrTooLong) != c.fails || !c.fails && relayed != len(c.in) {
				t.Errorf("%s, %d bytes a time: %v, %d of %d relayed", c.name, step, err, relayed, len(c.in))
			}
			if got := cap(s.pend) + cap(s.spare) + 16*cap(s.data); got > 40*c.max {
				t.Errorf("%s, %d bytes a time: keeps %d bytes", c.name, step, got)
			}
		}
	}
}

func TestOverBound(t *testing.T) {
	running := string(transcript(t, "vllm/running.sse"))
	s := newStream(vllmDialect, Options{OutputBound: 4})
	out, ev, err := s.Feed([]byte(running))
	if ev != OverBound || err != nil || s.Seen() != 5 || strings.Count(string(out), "\n\n") != 6 {
		t.Fatalf("event %d, %v, %d seen, relayed %q", ev, err, s.Seen(), out)
	}
	if got, want := summary(s.Report()), "32 - 5 - engine_running - over_bound"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// The hold is extended: the rest comes.
	s.SetBound(100)
	if out, ev, err = s.Feed(nil); ev != Finished || err != nil || strings.Count(string(out), "\n\n") != 2 {
		t.Fatalf("after the extension: event %d, %v, relayed %q", ev, err, out)
	}
	if got, want := summary(s.Report()), "16 16 7 - engine_final stop"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// An engine that says 0 all the time is cut by its deltas, one that says nothing too.
	for _, in := range []string{
		strings.Repeat(event(`{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":0}}`), 50),
		strings.Repeat(event(`{"choices":[{"index":0,"delta":{"content":"x"}}]}`), 50),
	} {
		s := newStream(vllmDialect, Options{OutputBound: 20})
		if _, ev, _ := s.Feed([]byte(in)); ev != OverBound || s.deltas > 23 {
			t.Errorf("event %d after %d deltas", ev, s.deltas)
		}
	}
	// The bound itself is allowed.
	s = newStream(vllmDialect, Options{OutputBound: 7})
	if _, ev, _ := s.Feed([]byte(running)); ev != Finished {
		t.Errorf("event %d at the bound", ev)
	}
}

func TestCut(t *testing.T) {
	s := newStream(vllmDialect, Options{Choices: 2, ShowUsage: true, OutputBound: 1})
	two := strings.Replace(hiUsed, `"index":0`, `"index":1`, 1)
	_, ev, _ := s.Feed([]byte(event(strings.Replace(stop, `"index":0`, `"index":0`, 1)) + event(hiUsed) + event(two)))
	if ev != OverBound {
		t.Fatalf("event %d", ev)
	}
	want := event(`{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}],"x_stopped":"budget"}`)
	if got := string(s.Cut()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	r := s.Report()
	want = event(`{"id":"c1","object":"chat.completion.chunk","created":17,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"cost":"0.01","currency":"EUR"}}`) + done
	if got := string(s.Tail(&r.Counts, Cost{"0.01", "EUR"})); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	text := newStream(vllmDialect, Options{})
	if _, _, err := text.Feed([]byte(event(`{"id":"t","object":"text_completion","choices":[{"index":0,"text":"x"}]}`))); err != nil {
		t.Fatal(err)
	}
	if got := string(text.Cut()); !strings.Contains(got, `"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]`) || text.Report().Finish != "length" {
		t.Errorf("%s", got)
	}
	if got := string(newStream(vllmDialect, Options{}).Cut()); !json.Valid([]byte(strings.TrimPrefix(got, "data: "))) {
		t.Errorf("before any chunk: %s", got)
	}
}

func TestTail(t *testing.T) {
	cost := Cost{"0.0042", "EUR"}
	for _, c := range []struct {
		name, dialect, file string
		o                   Options
		want                string // of the usage member, "" for none
	}{
		{"not asked for", "vllm", "chat.sse", Options{}, ""},
		{"the engine's own", "vllm", "chat.sse", Options{ShowUsage: true}, `{"prompt_tokens":32,"total_tokens":39,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":16},"cost":"0.0042","currency":"EUR"}`},
		{"one for three", "llamacpp", "n3.sse", Options{ShowUsage: true, Choices: 3}, `{"prompt_tokens":20,"completion_tokens":24,"total_tokens":44,"prompt_tokens_details":{"cached_tokens":19},"cost":"0.0042","currency":"EUR"}`},
		{"where there was none", "vllm", "nousage.sse", Options{ShowUsage: true}, `{"prompt_tokens":0,"completion_tokens":6,"total_tokens":6,"cost":"0.0042","currency":"EUR"}`},
		{"from the finish chunk", "openai", "onfinish.sse", Options{ShowUsage: true}, `{"prompt_tokens":20,"completion_tokens":8,"total_tokens":28,"prompt_tokens_details":{"cached_tokens":12},"completion_tokens_details":{"reasoning_tokens":4},"cost":"0.0042","currency":"EUR"}`},
	} {
		s := newStream(dialect(t, c.dialect), c.o)
		if _, ev, err := s.Feed(transcript(t, c.dialect+"/"+c.file)); ev != Finished || err != nil {
			t.Fatalf("%s: %d, %v", c.name, ev, err)
		}
		r := s.Report()
		got := string(s.Tail(&r.Counts, cost))
		chunk, found := strings.CutSuffix(got, done)
		if !found {
			t.Errorf("%s: no end in %s", c.name, got)
		}
		if c.want == "" {
			if chunk != "" {
				t.Errorf("%s: %s", c.name, chunk)
			}
			continue
		}
		var m struct {
			ID, Object string
			Choices    []any
			Usage      json.RawMessage
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(chunk, "data: ")), &m); err != nil {
			t.Fatalf("%s: %v in %s", c.name, err, chunk)
		}
		if string(m.Usage) != c.want || m.ID == "" || m.Object != "chat.completion.chunk" || m.Choices == nil || len(m.Choices) != 0 {
			t.Errorf("%s:\n got %s\nwant %s", c.name, chunk, c.want)
		}
	}
}

func TestMalformedIsCounted(t *testing.T) {
	s := newStream(vllmDialect, Options{})
	if _, _, err := s.Feed([]byte(event(`{"choices":[{"delta":`) + event("what") + event("null") + event(hi) + event(`{"choices":[{"delta":{"content":"x"`))); err != nil {
		t.Fatal(err)
	}
	if s.Malformed() != 3 {
		t.Errorf("%d malformed events, want 3", s.Malformed())
	}
}

// Indexes are the engine's to choose; what is kept for them is not.
func TestWildIndexes(t *testing.T) {
	var b strings.Builder
	for _, i := range []string{"-7", "1000000000", "9223372036854775807", "9223372036854775808", "1.5", `"x"`, "null", "1023"} {
		fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":%s,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":999999999999999,\"completion_tokens\":999999999999999}}\n\n", i)
	}
	for _, d := range engine.Dialects {
		_, _, r := play(t, d, Options{Choices: 1}, []byte(b.String()))
		if r.Counts.Output() > usage.MaxCount {
			t.Errorf("%s: %d", d.Name, r.Counts.Output())
		}
	}
}

// An engine that answers what nobody asked: the input counts for the prompts there are.
func TestMoreChoicesThanAsked(t *testing.T) {
	var b strings.Builder
	for i := range 3 {
		fmt.Fprintf(&b, "data: {\"choices\":[{\"index\":%d,\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n", i)
	}
	_, _, r := play(t, vllmDialect, Options{}, []byte(b.String()))
	if got, want := summary(r), "9 - 3 - engine_running -"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A finish reason goes into records, so it must be a word.
func TestFinishReasons(t *testing.T) {
	for in, want := range map[string]string{"stop": "stop", "content_filter": "content_filter", "eos_token": "eos_token", "the prompt was x": "other", `a\nb`: "other", strings.Repeat("a", 33): "other", "": "-"} {
		_, _, r := play(t, vllmDialect, Options{}, []byte(event(`{"choices":[{"index":0,"delta":{},"finish_reason":"`+in+`"}]}`)))
		if got := strings.Fields(summary(r))[5]; got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestResetForgets(t *testing.T) {
	s := newStream(vllmDialect, Options{})
	for range 3 {
		if _, ev, err := s.Feed(transcript(t, "vllm/running.sse")); ev != Finished || err != nil {
			t.Fatal(ev, err)
		}
		s.Reset(vllmDialect, Options{})
		if r := s.Report(); !r.Counts.Empty() || r.Flags != 0 || r.Finish != "" || s.Seen() != 0 {
			t.Fatalf("after Reset: %s", summary(r))
		}
		if _, _, err := s.Feed([]byte("data: torn")); err != nil {
			t.Fatal(err)
		}
		s.Reset(vllmDialect, Options{})
	}
}

func TestFeedDoesNotAllocate(t *testing.T) {
	in := transcript(t, "vllm/running.sse")
	s := newStream(vllmDialect, Options{})
	if n := testing.AllocsPerRun(50, func() {
		s.Reset(vllmDialect, Options{})
		for part := range slices.Chunk(in, 500) {
			if _, _, err := s.Feed(part); err != nil {
				t.Fatal(err)
			}
		}
		if s.Report().Source != usage.EngineFinal {
			t.Fatal("no usage")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// split feeds in in pieces whose lengths come from cuts, and returns what is relayed and reported.
func split(d *engine.Dialect, o Options, in, cuts []byte) (out []byte, state string) {
	s := newStream(d, o)
	var ev Event
	var err error
	for i := 0; len(in) > 0 && ev == None && err == nil; i++ {
		n := len(in)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		var part []byte
		own := bytes.Clone(in[:n]) // the caller's buffer is used again
		part, ev, err = s.Feed(own)
		out = append(out, part...)
		clear(own)
		in = in[n:]
	}
	if ev == None && err == nil {
		var part []byte
		part, ev = s.End()
		out = append(out, part...)
	}
	r := s.Report()
	state = fmt.Sprint(ev, err, summary(r), r.Timing, s.Malformed(), string(s.engineMessage()))
	if ev == Finished {
		state += string(s.Tail(&r.Counts, Cost{"1", "EUR"}))
	}
	return out, state
}

// subsequence reports whether a is b less some bytes.
func subsequence(a, b []byte) bool {
	for _, c := range a {
		i := bytes.IndexByte(b, c)
		if i < 0 {
			return false
		}
		b = b[i+1:]
	}
	return true
}

// FuzzFeed holds the laws of relaying: however the input is cut up, the same comes out and is counted; what comes out is
// the input less something, and less nothing where there is nothing to hide. I15.
func FuzzFeed(f *testing.F) {
	for _, file := range []string{"vllm/running.sse", "vllm/error.sse", "llamacpp/n3.sse", "llamacpp/batch.sse", "ollama/text.sse", "openai/onfinish.sse"} {
		f.Add(transcript(f, file), []byte{3, 200, 0}, uint8(5))
	}
	f.Add([]byte("\xEF\xBB\xBFdata: {\"usage\":{},\r\ndata:\"choices\":[{}]\r}\r\r\n:\r\ndata"), []byte{0}, uint8(0))
	f.Add([]byte("data: {\"error\":null,\"usage\":null,\"timings\":{\"predicted_n\":3}}\r\n\r\n"), []byte{1, 0}, uint8(2))
	f.Add([]byte(`data: {"choices":[1,{"a" 2}],"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"predicted_n":1}}`+"\n\n"), []byte{7}, uint8(0))
	f.Fuzz(func(t *testing.T, in, cuts []byte, options uint8) {
		if len(cuts) == 0 {
			cuts = []byte{0}
		}
		o := Options{ShowUsage: options&1 != 0, ShowRunning: options&2 != 0, Choices: int(options >> 2 & 3), OutputBound: int64(options >> 4), MaxEvent: 4096}
		for _, d := range engine.Dialects {
			whole, state := split(d, o, in, nil)
			parts, partsState := split(d, o, in, cuts)
			if !bytes.Equal(whole, parts) || state != partsState {
				t.Fatalf("%s: cut up by %v\n  whole %q %s\n  parts %q %s", d.Name, cuts, whole, state, parts, partsState)
			}
			g := NewGather(d, o, 1<<16)
			if ev, err := g.Feed(in); ev == Finished && err == nil {
				r := g.Report()
				if body := g.Body(nil, &r.Counts, Cost{"1", "EUR"}); ReadAnswer(d, body, Options{}).Failed {
					t.Fatalf("%s: gathered %q", d.Name, body)
				}
			}
			if !subsequence(bytes.TrimRight(whole, "\n"), in) {
				t.Fatalf("%s: relayed %q of %q", d.Name, whole, in)
			}
			for _, hidden := range []string{"usage", "error", "[DONE]", "timings", `\u`, "max"} {
				if bytes.Contains(in, []byte(hidden)) {
					return
				}
			}
			if o.OutputBound == 0 && len(in) < o.MaxEvent && !bytes.HasPrefix(in, bytes.TrimRight(whole, "\n")) {
				t.Fatalf("%s: relayed %q of %q, which has nothing to hide", d.Name, whole, in)
			}
		}
	})
}

func BenchmarkFeed(b *testing.B) {
	in := fakeStream()
	for _, c := range []struct {
		name string
		o    Options
	}{{"hidden", Options{}}, {"shown", Options{ShowUsage: true, ShowRunning: true}}} {
		b.Run(c.name, func(b *testing.B) {
			events := bytes.SplitAfter(in, []byte("\n\n"))
			s := newStream(vllmDialect, c.o)
			b.ReportAllocs()
			for b.Loop() {
				s.Reset(vllmDialect, c.o)
				for _, e := range events {
					if _, _, err := s.Feed(e); err != nil {
						b.Fatal(err)
					}
				}
				if r := s.Report(); r.Counts.Output() != 20 {
					b.Fatal("wrong count")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
		})
	}
}

// fakeStream is a stream of ten content events as vLLM sends it with running usage.
func fakeStream() []byte {
	const head = `data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"m","choices":`
	var b bytes.Buffer
	chunk := func(choices string, tokens int) {
		fmt.Fprintf(&b, `%s%s,"usage":{"prompt_tokens":32,"total_tokens":%d,"completion_tokens":%d}}`+"\n\n", head, choices, 32+tokens, tokens)
	}
	chunk(`[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`, 0)
	for i := range 10 {
		chunk(`[{"index":0,"delta":{"content":" the the"},"logprobs":null,"finish_reason":null}]`, 2*i+2)
	}
	chunk(`[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}]`, 20)
	fmt.Fprintf(&b, `%s[],"usage":{"prompt_tokens":32,"total_tokens":52,"completion_tokens":20,"prompt_tokens_details":null}}`+"\n\n", head)
	b.WriteString("data: [DONE]\n\n")
	return b.Bytes()
}
