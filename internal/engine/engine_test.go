package engine

import (
	"strings"
	"testing"

	"talea/internal/usage"
)

// The requests of the OpenAI API, as its description lists them; written out again, since the tables are under test.
var openaiSchema = [numEndpoints]string{
	Chat: `messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
		max_tokens metadata modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key
		prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream
		stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options`,
	Completions: `model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop
		stream stream_options suffix temperature top_p user`,
	Embeddings: `input model dimensions encoding_format user`,
}

func TestOpenAISchemaPassesEverywhere(t *testing.T) {
	for _, d := range Dialects {
		for e := range numEndpoints {
			for name := range strings.FieldsSeq(openaiSchema[e]) {
				switch m := d.Member(e, []byte(name)); {
				case strings.Contains(" model stream stream_options ", " "+name+" "):
					if m.Class != Ours {
						t.Errorf("%s %s %s: class %d, want ours", d.Name, e, name, m.Class)
					}
				case m.Class != Neutral && m.Class != Bound:
					t.Errorf("%s %s %s: class %d, want neutral or bound", d.Name, e, name, m.Class)
				}
			}
		}
	}
}

func TestMembers(t *testing.T) {
	for _, c := range []struct {
		dialect string
		e       Endpoint
		names   string
		want    Member
	}{
		{"vllm", Chat, "top_k guided_json chat_template_kwargs structured_outputs include_reasoning", Member{Class: Neutral}},
		{"vllm", Chat, "max_tokens max_completion_tokens", Member{Class: Bound, Rule: OutputMax}},
		{"vllm", Chat, "min_tokens", Member{Class: Bound, Rule: OutputMin}},
		{"vllm", Chat, "ignore_eos", Member{Class: Bound, Rule: Extends}},
		{"vllm", Chat, "prompt_logprobs use_beam_search", Member{Class: Bound, Rule: Off}},
		{"vllm", Chat, "n", Member{Class: Bound, Rule: Choices}},
		{"vllm", Chat, "logit_bias logprob_token_ids", Member{Class: Bound, Rule: Entries, Limit: 1024}},
		{"vllm", Chat, "top_logprobs logprobs", Member{Class: Bound, Rule: AtMost, Limit: 20}},
		{"vllm", Completions, "best_of", Member{Class: Bound, Rule: BestOf, Limit: 1}},
		{"vllm", Completions, "echo", Member{Class: Bound, Rule: Echoes}},
		{"vllm", Chat, "chat_template stream_interval prompt_embeds mm_processor_kwargs return_token_ids", Member{Class: Forbidden}},
		{"vllm", Embeddings, "truncate_prompt_tokens embed_dtype messages", Member{Class: Neutral}},
		{"vllm", Embeddings, "max_tokens n n_predict", Member{}},
		{"llamacpp", Chat, "n_predict", Member{Class: Bound, Rule: OutputMax}},
		{"llamacpp", Chat, "n_cmpl", Member{Class: Bound, Rule: Choices}},
		{"llamacpp", Chat, "grammar json_schema reasoning_format cache_prompt min_p samplers", Member{Class: Neutral}},
		{"llamacpp", Chat, "timings_per_token stream", Member{Class: Ours}},
		{"llamacpp", Chat, "id_slot lora verbose response_fields chat_parser generation_prompt", Member{Class: Forbidden}},
		{"ollama", Chat, "n", Member{Class: Bound, Rule: Choices, Limit: 1}},
		{"ollama", Chat, "reasoning_effort reasoning think", Member{Class: Neutral}},
		{"openai", Chat, "prediction web_search_options", Member{Class: Bound, Rule: Off}},
		{"openai", Chat, "n_predict n_cmpl guided_json", Member{}},
		{"openai", Completions, "best_of", Member{Class: Bound, Rule: BestOf}},
	} {
		d, ok := ByName(c.dialect)
		if !ok {
			t.Fatalf("no dialect %s", c.dialect)
		}
		for name := range strings.FieldsSeq(c.names) {
			if got := d.Member(c.e, []byte(name)); got != c.want {
				t.Errorf("%s %s %s = %+v, want %+v", c.dialect, c.e, name, got, c.want)
			}
		}
	}
}

// Priority, caches, routing and request names are never the tenant's, whatever the engine.
func TestOperatorOnlyMembersAreForbiddenEverywhere(t *testing.T) {
	const names = `priority cache_salt request_id rid kv_transfer_params vllm_xargs nvext custom_labels extra_key session_id`
	for _, d := range Dialects {
		for e := range numEndpoints {
			for name := range strings.FieldsSeq(names) {
				if m := d.Member(e, []byte(name)); m.Class != Forbidden {
					t.Errorf("%s %s %s: class %d, want forbidden", d.Name, e, name, m.Class)
				}
			}
			for _, name := range []string{"", "Model", "MAX_TOKENS", "mox_tokens", "max_tokens ", "messages\x00"} {
				if m := d.Member(e, []byte(name)); m != (Member{}) {
					t.Errorf("%s %s %q: %+v, want unlisted", d.Name, e, name, m)
				}
			}
		}
	}
}

// The bound is written by one member, which is itself listed as an output bound.
func TestBoundMember(t *testing.T) {
	for _, d := range Dialects {
		for e := range numEndpoints {
			name := d.BoundMember(e)
			if (name == "") != (e == Embeddings) {
				t.Errorf("%s %s: bound member %q", d.Name, e, name)
			}
			if m := d.Member(e, []byte(name)); name != "" && m.Rule != OutputMax {
				t.Errorf("%s %s: %s has rule %d", d.Name, e, name, m.Rule)
			}
		}
	}
}

func TestMemberDoesNotAllocate(t *testing.T) {
	name := []byte("max_completion_tokens")
	if n := testing.AllocsPerRun(100, func() {
		if vllm.Member(Chat, name).Class != Bound {
			t.Fatal("not bound")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEndpoints(t *testing.T) {
	if Chat.Path() != "/v1/chat/completions" || Completions.String() != "completions" || Embeddings.Path() != "/v1/embeddings" {
		t.Error("an endpoint has another name")
	}
	if _, ok := ByName("sglang"); ok {
		t.Error("a dialect that is not there was found")
	}
}

// leaves writes counts as "uncached cached written content reasoning", - where unknown.
func leaves(c usage.Counts) string {
	var out []string
	for _, m := range []usage.Meter{usage.InputUncached, usage.InputCacheRead, usage.InputCacheWrite, usage.OutputContent, usage.OutputReasoning} {
		if c.Known(m) {
			out = append(out, itoa(c.Get(m)))
		} else {
			out = append(out, "-")
		}
	}
	return strings.Join(out, " ")
}
