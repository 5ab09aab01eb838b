package meter

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"talea/internal/engine"
	"talea/internal/usage"
)

func transcript(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "engine", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dialect(t testing.TB, name string) *engine.Dialect {
	t.Helper()
	d, ok := engine.ByName(name)
	if !ok {
		t.Fatalf("no dialect %s", name)
	}
	return d
}

// summary writes a report as "uncached cached content reasoning source finish flags", - where unknown.
func summary(r Report) string {
	var out []string
	for _, m := range []usage.Meter{usage.InputUncached, usage.InputCacheRead, usage.OutputContent, usage.OutputReasoning} {
		if r.Counts.Known(m) {
			out = append(out, strconv.FormatInt(r.Counts.Get(m), 10))
		} else {
			out = append(out, "-")
		}
	}
	finish := r.Finish
	if finish == "" {
		finish = "-"
	}
	out = append(out, r.Source.String(), finish)
	return strings.Join(append(out, r.Flags.Names()...), " ")
}

// play feeds a whole stream and its end, and returns what was relayed, the tail included.
func play(t testing.TB, d *engine.Dialect, o Options, in []byte) (out string, ev Event, r Report) {
	t.Helper()
	s := newStream(d, o)
	relayed, ev, err := s.Feed(in)
	if err != nil {
		t.Fatal(err)
	}
	out = string(relayed)
	if ev == None {
		relayed, ev = s.End()
		out += string(relayed)
	}
	r = s.Report()
	if ev == Finished {
		out += string(s.Tail(&r.Counts, Cost{}))
	}
	return out, ev, r
}

// The usage in every transcript, as the meter reads it. Those of llamacpp are checked against the engine's own counters
// in TestEngineCounters too.
func TestTranscripts(t *testing.T) {
	one, three, batch := Options{}, Options{Choices: 3}, Options{Prompts: 2, Choices: 2}
	for _, c := range []struct {
		file string
		o    Options
		ev   Event
		want string
	}{
		{"vllm/chat.sse", one, Finished, "16 16 7 - engine_final stop"},
		{"vllm/running.sse", one, Finished, "16 16 7 - engine_final stop"},
		{"vllm/nousage.sse", one, Finished, "- - 6 - gateway_count stop usage_missing"},
		{"vllm/n3.sse", three, Finished, "16 16 9 - engine_final stop"},
		{"vllm/think.sse", one, Finished, "20 - 4 4 engine_final stop"},
		{"vllm/tools.sse", one, Finished, "40 0 13 - engine_final tool_calls"},
		{"vllm/text.sse", one, Finished, "3 0 2 - engine_final length"},
		{"vllm/batch.sse", batch, Finished, "9 0 8 - engine_final length"},
		{"vllm/error.sse", one, EngineError, "32 - 3 - engine_running -"},
		{"llamacpp/chat.sse", one, Finished, "1 19 12 - engine_final length"},
		{"llamacpp/running.sse", one, Finished, "1 19 12 - engine_final length"},
		{"llamacpp/nousage.sse", one, Finished, "1 19 12 - engine_final length"},
		{"llamacpp/n3.sse", three, Finished, "1 19 24 - engine_final stop"},
		{"llamacpp/think.sse", one, Finished, "1 19 10 10 engine_final stop"},
		{"llamacpp/think_n2.sse", Options{Choices: 2}, Finished, "1 19 18 23 engine_final stop"},
		{"llamacpp/logprobs.sse", Options{Choices: 2}, Finished, "1 19 6 - engine_final length"},
		{"llamacpp/text.sse", one, Finished, "1 2 4 - engine_final stop"},
		{"llamacpp/batch.sse", batch, Finished, "2 6 14 - engine_final stop"},
		{"llamacpp/error.sse", one, EngineError, "20 0 13 - engine_running -"},
		{"llamacpp/hangup.sse", one, None, "1 19 12 - engine_running -"},
		{"ollama/chat.sse", one, Finished, "31 - 7 - engine_final stop"},
		{"ollama/nousage.sse", one, Finished, "- - 6 - gateway_count stop usage_missing"},
		{"ollama/think.sse", one, Finished, "20 - 6 2 engine_final stop"},
		{"ollama/text.sse", one, Finished, "3 - 2 - engine_final length"},
		{"openai/chat.sse", one, Finished, "16 16 6 0 engine_final stop"},
		{"openai/nousage.sse", one, Finished, "- - 6 - gateway_count stop usage_missing"},
		{"openai/n3.sse", three, Finished, "16 16 6 0 engine_final stop"},
		{"openai/think.sse", one, Finished, "20 0 6 64 engine_final stop"},
		{"openai/onfinish.sse", one, Finished, "8 12 4 4 engine_final stop"},
		{"openai/text.sse", one, Finished, "3 - 2 - engine_final length"},
		{"openai/error.sse", one, EngineError, "- - 2 - gateway_count -"},
	} {
		name, _, _ := strings.Cut(c.file, "/")
		_, ev, r := play(t, dialect(t, name), c.o, transcript(t, c.file))
		if got := summary(r); got != c.want || ev != c.ev {
			t.Errorf("%s: event %d, %s\nwant event %d, %s", c.file, ev, got, c.ev, c.want)
		}
	}
}

func TestWholeTranscripts(t *testing.T) {
	for _, c := range []struct {
		file    string
		choices int
		want    string
	}{
		{"vllm/chat.json", 1, "16 16 7 - engine_final stop"},
		{"vllm/n3.json", 3, "16 16 9 - engine_final stop"},
		{"vllm/think.json", 1, "20 - 4 4 engine_final stop"},
		{"vllm/text.json", 1, "3 0 1 - engine_final length"},
		{"vllm/embeddings.json", 2, "9 - 0 - engine_final -"},
		{"vllm/refused.json", 0, "failed"},
		{"llamacpp/chat.json", 1, "20 0 12 - engine_final length"},
		{"llamacpp/think.json", 1, "20 0 20 - engine_final stop"},
		{"llamacpp/text.json", 1, "2 1 4 - engine_final stop"},
		{"llamacpp/embeddings.json", 2, "9 - - - engine_final -"},
		{"llamacpp/overflow.json", 0, "failed"},
		{"llamacpp/n3.json", 3, "1 19 6 - engine_running stop"}, // the first choice only: why Gather is there
		{"ollama/chat.json", 1, "31 - 7 - engine_final stop"},
		{"ollama/think.json", 1, "20 - 8 - engine_final stop"},
		{"ollama/text.json", 1, "3 - 2 - engine_final length"},
		{"ollama/embeddings.json", 2, "9 - - - engine_final -"},
		{"openai/chat.json", 1, "16 16 6 0 engine_final stop"},
		{"openai/n3.json", 3, "16 16 6 0 engine_final stop"},
		{"openai/text.json", 1, "3 - 2 - engine_final length"},
		{"openai/embeddings.json", 2, "9 - - - engine_final -"},
		{"openai/refused.json", 0, "failed"},
	} {
		name, _, _ := strings.Cut(c.file, "/")
		a := ReadAnswer(dialect(t, name), transcript(t, c.file), Options{Choices: c.choices})
		got := summary(a.Report)
		if a.Failed {
			got = "failed"
		}
		if got != c.want || a.Choices != c.choices {
			t.Errorf("%s: %d choices, %s\nwant %d, %s", c.file, a.Choices, got, c.choices, c.want)
		}
	}
}

// The recorded engine counted for itself what each request used; the meter must come to the same numbers. Whole answers
// of several choices are left out: they do not say it (the stream of the same request does).
func TestEngineCounters(t *testing.T) {
	prompts := map[string]Options{
		"n3.sse": {Choices: 3}, "think_n2.sse": {Choices: 2}, "logprobs.sse": {Choices: 2}, "batch.sse": {Prompts: 2, Choices: 2},
	}
	silent := map[string]bool{"n3.json": true, "think_n2.json": true, "logprobs.json": true, "batch.json": true, "overflow.json": true, "refused.json": true}
	d, checked := dialect(t, "llamacpp"), 0
	for line := range strings.Lines(string(transcript(t, "llamacpp/counters.txt"))) {
		var file string
		var uncached, cached, output int64
		if _, err := fmt.Sscan(line, &file, &uncached, &cached, &output); err != nil {
			t.Fatal(err)
		}
		if silent[file] {
			continue
		}
		body := transcript(t, "llamacpp/"+file)
		var c usage.Counts
		if strings.HasSuffix(file, ".sse") {
			_, _, r := play(t, d, prompts[file], body)
			c = r.Counts
		} else {
			c = ReadAnswer(d, body, Options{}).Counts
		}
		if file == "hangup.sse" { // the engine went on for a moment: at most three tokens on this machine's recording
			if missing := output - c.Output(); missing < 0 || missing > 3 {
				t.Errorf("%s: the engine counted %d, the meter %d", file, output, c.Output())
			}
			output = c.Output()
		}
		if c.Get(usage.InputUncached) != uncached || c.Get(usage.InputCacheRead) != cached || c.Output() != output {
			t.Errorf("%s: the engine counted %d, %d, %d; the meter %s", file, uncached, cached, output, summary(Report{Counts: c}))
		}
		checked++
	}
	if checked < 12 {
		t.Errorf("only %d transcripts checked", checked)
	}
}

// streams are one good stream of each dialect, for faults to be put into.
var streams = []struct{ file, final string }{
	{"vllm/running.sse", `"usage":{"prompt_tokens":32,"total_tokens":39,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":16}}`},
	{"llamacpp/chat.sse", `"usage":{"completion_tokens":12,"prompt_tokens":20,"total_tokens":32,"prompt_tokens_details":{"cached_tokens":19}}`},
	{"ollama/chat.sse", `"usage":{"prompt_tokens":31,"completion_tokens":7,"total_tokens":38}`},
	{"openai/chat.sse", `"usage":{"prompt_tokens":32,"completion_tokens":6,"total_tokens":38,"prompt_tokens_details":{"cached_tokens":16,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`},
}

// What an engine may say in place of its final usage, over all dialects. vLLM's running usage, which was honest, then
// stands; the others' deltas are counted.
func TestFaultsInFinalUsage(t *testing.T) {
	const fallback = "32 - 7 - engine_running stop|- - 12 - gateway_count length|- - 6 - gateway_count stop|- - 6 - gateway_count stop"
	with := func(flag string) string { return strings.ReplaceAll(fallback, "|", flag+"|") + flag }
	for _, c := range []struct{ name, usage, want string }{
		{"null", `"usage":null`, with(" usage_missing")},
		{"absent", `"x":1`, with(" usage_missing")},
		{"1e18", `"usage":{"prompt_tokens":1e18,"completion_tokens":9}`, with(" usage_refused")},
		{"-5", `"usage":{"prompt_tokens":5,"completion_tokens":-5}`, with(" usage_refused")},
		{"string", `"usage":{"prompt_tokens":5,"completion_tokens":"12"}`, with(" usage_refused")},
		{"12.5", `"usage":{"prompt_tokens":5,"completion_tokens":12.5}`, with(" usage_refused")},
		{"2^63", `"usage":{"prompt_tokens":9223372036854775808,"completion_tokens":9223372036854775808}`, with(" usage_refused")},
		{"10^18", `"usage":{"prompt_tokens":5,"completion_tokens":1000000000000000000}`, with(" usage_refused")},
		{"list", `"usage":[1,2]`, with(" usage_refused")},
		{"zeros", `"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`,
			"32 - 7 - engine_running stop zero_with_text running_fell|" +
				"- - 12 - gateway_count length zero_with_text|- - 6 - gateway_count stop zero_with_text|- - 6 - gateway_count stop zero_with_text"},
		{"zero output", `"usage":{"prompt_tokens":9,"completion_tokens":0,"total_tokens":9}`,
			"9 - 7 - engine_running stop zero_with_text running_fell|" +
				"9 - 12 - gateway_count length zero_with_text|9 - 6 - gateway_count stop zero_with_text|9 - 6 - gateway_count stop zero_with_text"},
	} {
		wants := strings.Split(c.want, "|")
		for i, st := range streams {
			in := bytes.Replace(transcript(t, st.file), []byte(st.final), []byte(c.usage), 1)
			name, _, _ := strings.Cut(st.file, "/")
			_, ev, r := play(t, dialect(t, name), Options{}, in)
			if got := summary(r); got != wants[i] || ev != Finished {
				t.Errorf("%s %s: event %d, %s\nwant %s", st.file, c.name, ev, got, wants[i])
			}
		}
	}
}

// NaN is no JSON: the event cannot be read, passes as it is, and nothing is taken from it.
func TestNaNUsage(t *testing.T) {
	for _, st := range streams {
		in := bytes.Replace(transcript(t, st.file), []byte(st.final), []byte(`"usage":{"prompt_tokens":NaN,"completion_tokens":NaN}`), 1)
		name, _, _ := strings.Cut(st.file, "/")
		_, ev, r := play(t, dialect(t, name), Options{}, in)
		if r.Source == usage.EngineFinal || ev != Finished || r.Flags&(usage.FlagUsageMissing|usage.FlagUsageRefused) == 0 {
			t.Errorf("%s: event %d, %s", st.file, ev, summary(r))
		}
	}
}

func TestUsageTwice(t *testing.T) {
	const chunk = "data: {\"choices\":[],\"usage\":{%s}}\n\n"
	for _, c := range []struct {
		name, second string
		bound        int64
		want         string // of vLLM's stream, whose own usage is 32 in, 16 cached, 7 out
	}{
		{"same", `"prompt_tokens":32,"total_tokens":39,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":16}`, 0, "16 16 7 - engine_final stop"},
		{"higher", `"prompt_tokens":32,"completion_tokens":9,"total_tokens":41`, 0, "32 - 9 - engine_final stop usage_twice"},
		{"lower", `"prompt_tokens":32,"completion_tokens":5,"total_tokens":37`, 0, "16 16 7 - engine_final stop usage_twice"},
		{"higher, does not add up", `"prompt_tokens":32,"completion_tokens":900,"total_tokens":41`, 0, "16 16 7 - engine_final stop usage_twice"},
		{"higher than the bound", `"prompt_tokens":32,"completion_tokens":900,"total_tokens":932`, 100, "16 16 7 - engine_final stop usage_twice"},
	} {
		in := transcript(t, "vllm/running.sse")
		in = bytes.Replace(in, []byte("data: [DONE]"), []byte(fmt.Sprintf(chunk, c.second)+"data: [DONE]"), 1)
		_, _, r := play(t, dialect(t, "vllm"), Options{OutputBound: c.bound}, in)
		if got := summary(r); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRunningFalls(t *testing.T) {
	in := bytes.Replace(transcript(t, "vllm/running.sse"), []byte(`"total_tokens":37,"completion_tokens":5`), []byte(`"total_tokens":34,"completion_tokens":2`), 1)
	for _, c := range []struct{ until, want string }{
		{`"content":"."`, "32 - 4 - engine_running - running_fell"},
		{`"finish_reason":"stop"`, "32 - 6 - engine_running - running_fell"},
	} {
		_, ev, r := play(t, dialect(t, "vllm"), Options{}, in[:bytes.Index(in, []byte(c.until))])
		if got := summary(r); got != c.want || ev != None {
			t.Errorf("until %s: event %d, %s, want %s", c.until, ev, got, c.want)
		}
	}
}

// A stream that is cut at any byte never reports more than the whole one, and never less than before.
func TestTruncatedAnywhere(t *testing.T) {
	for _, file := range []string{"vllm/running.sse", "vllm/n3.sse", "llamacpp/n3.sse", "llamacpp/think.sse", "llamacpp/batch.sse", "ollama/text.sse", "openai/chat.sse"} {
		name, _, _ := strings.Cut(file, "/")
		in, d := transcript(t, file), dialect(t, name)
		o := Options{Choices: 3}
		if strings.Contains(file, "batch") {
			o = Options{Prompts: 2, Choices: 2}
		}
		_, _, whole := play(t, d, o, in)
		last := int64(0)
		s := newStream(d, o)
		for i := range in {
			if _, _, err := s.Feed(in[i : i+1]); err != nil {
				t.Fatal(err)
			}
			r := s.Report()
			if out := r.Counts.Output(); out < last || out > whole.Counts.Output() {
				t.Fatalf("%s at byte %d: %d output tokens after %d, of %d", file, i, out, last, whole.Counts.Output())
			}
			last = r.Counts.Output()
		}
	}
}

// The same request with the same seed, whole and streamed: what Gather makes of the stream has the choices that the
// engine itself puts into the whole answer, byte for byte but for the order of members.
func TestGatherMakesTheWholeAnswer(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"llamacpp/chat", Options{}}, {"llamacpp/n3", Options{Choices: 3}}, {"llamacpp/think", Options{}}, {"llamacpp/think_n2", Options{Choices: 2}},
		{"llamacpp/logprobs", Options{Choices: 2}}, {"llamacpp/text", Options{}}, {"llamacpp/batch", Options{Prompts: 2, Choices: 2}},
		{"vllm/chat", Options{}}, {"vllm/n3", Options{Choices: 3}}, {"vllm/think", Options{}},
	} {
		kind, _, _ := strings.Cut(c.name, "/")
		g := NewGather(dialect(t, kind), c.o, 1<<20)
		ev, err := g.Feed(transcript(t, c.name+".sse"))
		if err != nil || ev != Finished {
			t.Fatalf("%s: event %d, %v", c.name, ev, err)
		}
		r := g.Report()
		got, want := decode(t, g.Body(nil, &r.Counts, Cost{"0.0042", "EUR"})), decode(t, transcript(t, c.name+".json"))
		if g, w := fmt.Sprint(choicesOf(got)), fmt.Sprint(choicesOf(want)); g != w {
			t.Errorf("%s:\n got %s\nwant %s", c.name, g, w)
		}
		for _, name := range []string{"object", "model", "system_fingerprint"} {
			if got[name] != want[name] {
				t.Errorf("%s: %s is %v, want %v", c.name, name, got[name], want[name])
			}
		}
		u := got["usage"].(map[string]any)
		if u["completion_tokens"] != float64(r.Counts.Output()) || u["cost"] != "0.0042" || u["currency"] != "EUR" {
			t.Errorf("%s: usage %v", c.name, u)
		}
	}
}

// What a stream cuts into pieces, and how a whole answer has it: tool calls, log probabilities of chats and of text, what an
// engine adds to a choice, its own usage with all details, and its times.
func TestGatherJoins(t *testing.T) {
	tools := NewGather(dialect(t, "vllm"), Options{}, 1<<20)
	if ev, err := tools.Feed(transcript(t, "vllm/tools.sse")); err != nil || ev != Finished {
		t.Fatal(ev, err)
	}
	text := NewGather(dialect(t, "vllm"), Options{}, 1<<20)
	for _, chunk := range []string{
		`{"id":"c","object":"text_completion","created":1,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"text":"a","logprobs":{"text_offset":[0],"token_logprobs":[null],"tokens":["a"],"top_logprobs":[null]},"finish_reason":null,"stop_reason":null}]}`,
		`{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"","logprobs":{"text_offset":[],"token_logprobs":[],"tokens":[],"top_logprobs":[]},"finish_reason":null,"stop_reason":null}]}`,
		`{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"\u00e9b","logprobs":{"text_offset":[1,2],"token_logprobs":[-1,-2],"tokens":["é","b"],"top_logprobs":[{"é":-1},{"b":-2}]},"finish_reason":"stop","stop_reason":128009}]}`,
		`{"id":"c","object":"text_completion","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"total_tokens":6,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2,"own":7}},"metrics":{"queue_time_ms":1}}`,
		`[DONE]`,
	} {
		if _, err := text.Feed([]byte(event(chunk))); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		g    *Gather
		want string
	}{
		{tools, `{"id":"chatcmpl-5f3c9a","object":"chat.completion","created":1764000000,"model":"llama-70b","choices":[{"index":0,"finish_reason":"tool_calls","logprobs":null,
			"message":{"role":"assistant","content":null,"tool_calls":[{"id":"chatcmpl-tool-1","type":"function","function":{"name":"weigh","arguments":"{\"what\": \"bread\"}"}}]}}],
			"usage":{"prompt_tokens":40,"total_tokens":53,"completion_tokens":13,"prompt_tokens_details":{"cached_tokens":0},"cost":"1","currency":"EUR"}}`},
		{text, `{"id":"c","object":"text_completion","created":1,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"text":"aéb","finish_reason":"stop","stop_reason":128009,
			"logprobs":{"text_offset":[0,1,2],"token_logprobs":[null,-1,-2],"tokens":["a","é","b"],"top_logprobs":[null,{"é":-1},{"b":-2}]}}],
			"usage":{"prompt_tokens":3,"total_tokens":6,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2,"own":7},"cost":"1","currency":"EUR"},"metrics":{"queue_time_ms":1}}`},
	} {
		r := c.g.Report()
		got, want := decode(t, c.g.Body(nil, &r.Counts, Cost{"1", "EUR"})), decode(t, []byte(c.want))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("joined:\n got %v\nwant %v", got, want)
		}
	}
}

// F036: usage counts on whatever event ends an answer, a failure too.
func TestUsageOfAFailure(t *testing.T) {
	for _, c := range []struct{ last, want string }{
		{`{"error":{"message":"m"},"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":41}}`, "32 - 9 - engine_final -"},
		{`{"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":41},"choices":[],"error":{"message":"m"}}`, "32 - 9 - engine_final -"},
		{`{"error":{"message":"m"},"usage":null}`, "32 - 2 - engine_running -"},
		{`{"error":{"message":"m"}}`, "32 - 2 - engine_running -"},
	} {
		in := transcript(t, "vllm/running.sse")
		in = append(in[:bytes.Index(in, []byte(`"content":" is"`))], "X"...)
		in = append(in[:bytes.LastIndex(in, []byte("data: "))], event(c.last)...)
		out, ev, r := play(t, dialect(t, "vllm"), Options{}, in)
		if got := summary(r); got != c.want || ev != EngineError || strings.Contains(out, "error") {
			t.Errorf("%s: event %d, %s, want %s; relayed %s", c.last, ev, got, c.want, out)
		}
	}
}
