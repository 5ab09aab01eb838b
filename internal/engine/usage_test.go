package engine

import (
	"strconv"
	"strings"
	"testing"

	"talea/internal/usage"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestRead(t *testing.T) {
	const refused, clamped = "usage_refused", "clamped"
	for _, c := range []struct{ dialect, usage, timing, want, flags string }{
		{"vllm", `{"prompt_tokens":32,"total_tokens":52,"completion_tokens":20}`, ``, "32 - - 20 -", ""},
		{"vllm", `{"prompt_tokens":32,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":8}}`, ``, "16 16 - 12 8", ""},
		{"vllm", `{"prompt_tokens":32,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":16,"created_cache_tokens":10,"multimodal_tokens":{"image":4}}}`, ``, "6 16 10 20 -", ""},
		{"vllm", `{"prompt_tokens":32,"completion_tokens":0,"prompt_tokens_details":null,"completion_tokens_details":null}`, ``, "32 - - 0 -", ""},
		{"vllm", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`, ``, "0 - - 0 -", ""},
		{"vllm", ` { "completion_tokens" : 7 } `, ``, "- - - 7 -", ""},
		{"vllm", `{"prompt_tokens":null,"completion_tokens":null}`, ``, "- - - - -", ""},
		{"vllm", `{}`, ``, "- - - - -", ""},
		{"vllm", `null`, ``, "- - - - -", ""},
		{"vllm", ``, ``, "- - - - -", ""},
		// A part larger than its whole.
		{"vllm", `{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":6}}`, ``, "0 5 - 2 -", clamped},
		{"vllm", `{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3,"created_cache_tokens":3}}`, ``, "0 3 2 2 -", clamped},
		{"vllm", `{"prompt_tokens":5,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":3}}`, ``, "5 - - 0 2", clamped},
		{"vllm", `{"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}`, ``, "- - - 2 -", ""},
		// No counts at all.
		{"vllm", `{"prompt_tokens":1e18,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":3,"completion_tokens":-5}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":"12","completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":12.5,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":NaN,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":9223372036854775808,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":1000000000000000,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":999999999999999,"completion_tokens":2}`, ``, "999999999999999 - - 2 -", ""},
		{"vllm", `{"prompt_tokens":true,"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":[3],"completion_tokens":2}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":3,"completion_tokens":2,"total_tokens":-1}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":"all"}}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens"}}`, ``, "- - - - -", refused},
		{"vllm", `{"prompt_tokens":3,`, ``, "- - - - -", refused},
		{"vllm", `[3,4]`, ``, "- - - - -", refused},
		{"vllm", `"none"`, ``, "- - - - -", refused},
		{"vllm", `17`, ``, "- - - - -", refused},
		// What is not listed does not matter.
		{"vllm", `{"prompt_tokens":3,"completion_tokens":2,"cost":0.00012,"audio":{"tokens":"x"}}`, ``, "3 - - 2 -", ""},
		{"ollama", `{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}`, ``, "3 - - 2 -", ""},
		// Names of their own.
		{"openai", `{"prompt_tokens":20,"completion_tokens":8,"reasoning_tokens":4}`, ``, "20 - - 4 4", ""},
		{"openai", `{"prompt_tokens":20,"completion_tokens":8,"prompt_cache_hit_tokens":12,"prompt_tokens_details":{"cached_tokens":12,"cache_write_tokens":1}}`, ``, "7 12 1 8 -", ""},
		// Timings stand in where there is no usage, and only there.
		{"llamacpp", ``, `{"cache_n":19,"prompt_n":1,"prompt_ms":0.5,"predicted_n":12,"predicted_ms":2.644}`, "1 19 - 12 -", ""},
		{"llamacpp", `{"prompt_tokens":20,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":0}}`, `{"cache_n":19,"prompt_n":1,"predicted_n":12}`, "20 0 - 12 -", ""},
		{"llamacpp", `{"prompt_tokens":-1}`, `{"cache_n":19,"prompt_n":1,"predicted_n":12}`, "- - - - -", refused},
		{"llamacpp", ``, `{"prompt_n":7,"predicted_n":-1}`, "- - - - -", ""},
		{"ollama", ``, `{"cache_n":19,"prompt_n":1,"predicted_n":12}`, "- - - - -", ""},
	} {
		d, _ := ByName(c.dialect)
		r := d.Read([]byte(c.usage), []byte(c.timing))
		counts, flags := r.Tokens.Leaves()
		got := leaves(counts) + "|" + strings.Join((flags|r.Flags).Names(), " ")
		if got != c.want+"|"+c.flags {
			t.Errorf("%s %s %s\n got %s\nwant %s|%s", c.dialect, c.usage, c.timing, got, c.want, c.flags)
		}
	}
}

func TestReadTiming(t *testing.T) {
	for _, c := range []struct {
		dialect, timing string
		want            Timing
	}{
		{"vllm", `{"time_to_first_token_ms":41.25,"generation_time_ms":212.5,"queue_time_ms":0.75,"mean_itl_ms":35.4}`, Timing{750, 41250, 212500}},
		{"vllm", `{"time_to_first_token_ms":null,"queue_time_ms":12}`, Timing{Queue: 12000}},
		{"llamacpp", `{"prompt_ms":1.303,"predicted_ms":2.1549999,"prompt_n":1,"cache_n":0,"predicted_n":1}`, Timing{0, 1303, 2154}},
		{"vllm", `{"queue_time_ms":1e-05,"generation_time_ms":-3,"time_to_first_token_ms":"x"}`, Timing{}},
		{"vllm", `{"queue_time_ms":99999999999999999999999}`, Timing{}},
		{"openai", `{"queue_time_ms":1}`, Timing{}},
	} {
		d, _ := ByName(c.dialect)
		if got := d.Read(nil, []byte(c.timing)).Timing; got != c.want {
			t.Errorf("%s %s = %+v, want %+v", c.dialect, c.timing, got, c.want)
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	u := []byte(`{"prompt_tokens":32,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":16}}`)
	if n := testing.AllocsPerRun(100, func() {
		if r := vllm.Read(u, nil); r.Tokens[CacheRead] != 16 {
			t.Fatal("wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Leaves add up to their wholes, whatever an engine says.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":6}}`), []byte(`{"prompt_n":1e999}`))
	f.Add([]byte(`{"prompt_tokens":-5}`), []byte(`{"cache_n":3,"prompt_n":9,"predicted_n":4,"prompt_ms":0.1}`))
	f.Fuzz(func(t *testing.T, usageValue, timingValue []byte) {
		for _, d := range Dialects {
			r := d.Read(usageValue, timingValue)
			for _, n := range r.Tokens {
				if n < Unknown || n > usage.MaxCount {
					t.Fatalf("%s: a part of %d", d.Name, n)
				}
			}
			c, _ := r.Tokens.Leaves()
			if c.Input() != max(0, r.Tokens[Input]) || c.Output() != max(0, r.Tokens[Output]) {
				t.Fatalf("%s: %v gives input %d, output %d", d.Name, r.Tokens, c.Input(), c.Output())
			}
			if r.Timing.Queue < 0 || r.Timing.Prefill < 0 || r.Timing.Decode < 0 {
				t.Fatalf("%s: %+v", d.Name, r.Timing)
			}
		}
	})
}
