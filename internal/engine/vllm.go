package engine

// vllm is vLLM's OpenAI server. Cached tokens need its --enable-prompt-tokens-details, reasoning tokens its
// --reasoning-parser, times its --enable-per-request-metrics. Running usage has no cached tokens.
var vllm = Dialect{
	Name:         "vllm",
	Running:      OptionRunning,
	TokenizePath: "/tokenize",
	SaltMember:   "cache_salt",
	TimingMember: "metrics",
	boundMember:  [numEndpoints]string{Chat: "max_tokens", Completions: "max_tokens"},
	usage: []field{
		{"", "prompt_tokens", Input},
		{"", "completion_tokens", Output},
		{"", "total_tokens", Total},
		{"prompt_tokens_details", "cached_tokens", CacheRead},
		{"prompt_tokens_details", "created_cache_tokens", CacheWrite},
		{"completion_tokens_details", "reasoning_tokens", Reasoning},
	},
	timing: []field{
		{"", "queue_time_ms", queue},
		{"", "time_to_first_token_ms", prefill},
		{"", "generation_time_ms", decode},
	},
	load: loadNames{
		running: []string{"vllm:num_requests_running"},
		waiting: []string{"vllm:num_requests_waiting"},
		memory:  []string{"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"}, // the older name until 0.10
	},
	members: [numEndpoints]table{
		Chat: merge(openaiChat, vllmSampling, operatorOnly, neutral(`
			add_generation_prompt continue_final_message chat_template_kwargs documents include_reasoning
			return_prompt_text`),
			bound(Echoes, "echo"), vllmForbidden),
		Completions: merge(openaiCompletions, vllmSampling, operatorOnly,
			limited(BestOf, 1, "best_of"), vllmForbidden),
		Embeddings: merge(openaiEmbeddings, operatorOnly, neutral(`
			messages truncate_prompt_tokens truncation_side add_special_tokens add_generation_prompt
			continue_final_message chat_template_kwargs embed_dtype endianness use_activation normalize`),
			vllmForbidden),
	},
}

var vllmSampling = merge(
	neutral(`top_k min_p repetition_penalty length_penalty stop_token_ids include_stop_str_in_output
		skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side allowed_token_ids
		bad_words add_special_tokens return_tokens_as_token_ids repetition_detection thinking_token_budget
		watermarking response_format structured_outputs guided_json guided_regex guided_choice guided_grammar
		guided_decoding_backend guided_whitespace_pattern structural_tag reasoning_effort`),
	bound(OutputMin, "min_tokens"),
	bound(Extends, "ignore_eos"),
	bound(Off, "use_beam_search prompt_logprobs"),
	limited(Entries, maxBias, "logprob_token_ids"),
)

// vllmForbidden: templates and processor arguments make a prompt longer than its bytes bound, prompt_embeds is code for
// the engine to load, stream_interval would let a client hang up before the meter sees what was made.
var vllmForbidden = forbidden(`chat_template mm_processor_kwargs media_io_kwargs prompt_embeds stream_interval padding
	return_token_ids return_token_offsets return_mm_kwargs routed_experts_prompt_start`)
