package engine

// openai is the OpenAI API, and any engine that speaks it and has no dialect of its own. It is asked for nothing that
// OpenAI would refuse, but reads what SGLang and others tell beyond it.
var openai = Dialect{
	Name:          "openai",
	Running:       GivenRunning,
	FinalOnFinish: true,
	BoundAsAsked:  true,
	boundMember:   [numEndpoints]string{Chat: "max_completion_tokens", Completions: "max_tokens"},
	usage: []field{
		{"", "prompt_tokens", Input},
		{"", "completion_tokens", Output},
		{"", "total_tokens", Total},
		{"prompt_tokens_details", "cached_tokens", CacheRead},
		{"", "prompt_cache_hit_tokens", CacheRead},
		{"prompt_tokens_details", "cache_write_tokens", CacheWrite},
		{"completion_tokens_details", "reasoning_tokens", Reasoning},
		{"", "reasoning_tokens", Reasoning},
	},
	members: [numEndpoints]table{
		Chat: merge(openaiChat, openaiSafe, operatorOnly, neutral(`
			top_k min_p repetition_penalty stop_token_ids skip_special_tokens chat_template_kwargs
			separate_reasoning stream_reasoning reasoning thinking`)),
		Completions: merge(openaiCompletions, openaiSafe, operatorOnly, neutral(`
			top_k min_p repetition_penalty stop_token_ids skip_special_tokens`)),
		Embeddings: merge(openaiEmbeddings, operatorOnly),
	},
}

// openaiSafe: rejected prediction tokens count as output beyond the bound, and a web search adds input that is not in
// the request.
var openaiSafe = merge(bound(Off, "prediction web_search_options"), bound(OutputMin, "min_tokens"), bound(Extends, "ignore_eos"))
