package engine

// llamacpp is llama.cpp's llama-server. Usage is told once for each choice: in a stream after each choice's finish
// chunk (on /v1/completions on that chunk), in a whole answer for the first choice only. Counters of the engine count a
// prompt once, however many choices it has. The timings of a chunk are exact running usage of its choice. Of n_predict,
// max_completion_tokens and max_tokens the first that is there wins. Observed on release 0.7.0.
var llamacpp = Dialect{
	Name:          "llamacpp",
	Running:       TimingsRunning,
	PerChoice:     true,
	FinalOnFinish: true,
	ClosesStreams: true,
	TokenizePath:  "/tokenize",
	TemplatePath:  "/apply-template",
	TimingMember:  "timings",
	boundMember:   [numEndpoints]string{Chat: "max_tokens", Completions: "max_tokens"},
	usage: []field{
		{"", "prompt_tokens", Input},
		{"", "completion_tokens", Output},
		{"", "total_tokens", Total},
		{"prompt_tokens_details", "cached_tokens", CacheRead},
	},
	timing: []field{
		{"", "prompt_n", uncached},
		{"", "cache_n", CacheRead},
		{"", "predicted_n", Output},
		{"", "prompt_ms", prefill},
		{"", "predicted_ms", decode},
	},
	load: loadNames{ // with --metrics
		running: []string{"llamacpp:requests_processing"},
		waiting: []string{"llamacpp:requests_deferred"},
		memory:  []string{"llamacpp:kv_cache_usage_ratio"}, // releases of 2024 and before
	},
	members: [numEndpoints]table{
		Chat: merge(openaiChat, llamacppSampling, operatorOnly, neutral(`
			chat_template_kwargs add_generation_prompt continue_final_message parse_tool_calls reasoning_format
			reasoning_budget_tokens reasoning_budget_message thinking_budget_tokens enable_thinking`)),
		Completions: merge(openaiCompletions, llamacppSampling, operatorOnly, limited(BestOf, 1, "best_of")),
		Embeddings:  merge(openaiEmbeddings, operatorOnly, neutral("embd_normalize")),
	},
}

var llamacppSampling = merge(
	ours("timings_per_token"),
	neutral(`top_k min_p top_n_sigma typical_p xtc_probability xtc_threshold dynatemp_range dynatemp_exponent
		repeat_last_n repeat_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n
		dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay samplers min_keep
		grammar grammar_lazy grammar_triggers preserved_tokens json_schema response_format n_keep n_indent
		t_max_predict_ms cache_prompt return_tokens return_progress post_sampling_probs reasoning_effort`),
	bound(OutputMax, "n_predict"),
	bound(Choices, "n_cmpl"),
	bound(Extends, "ignore_eos"),
	limited(AtMost, maxLogprobs, "n_probs"),
	forbidden(`verbose response_fields n_discard n_cache_reuse sse_ping_interval backend_sampling chat_template
		chat_format chat_parser generation_prompt reasoning_control reasoning_budget_start_tag
		reasoning_budget_end_tag reasoning_budget_end_tags prompt_string`),
)
