package engine

// ollama is Ollama's OpenAI-compatible API. It obeys max_tokens only, makes one choice whatever n says, and reports
// neither cached nor reasoning tokens. Chunks of its /v1/completions carry a usage of zeros before the real one.
// After its sources of August 2026.
var ollama = Dialect{
	Name:        "ollama",
	Running:     NoRunning,
	boundMember: [numEndpoints]string{Chat: "max_tokens", Completions: "max_tokens"},
	usage: []field{
		{"", "prompt_tokens", Input},
		{"", "completion_tokens", Output},
		{"", "total_tokens", Total},
	},
	members: [numEndpoints]table{
		Chat:        merge(openaiChat, ollamaOne, operatorOnly, neutral("reasoning think")),
		Completions: merge(openaiCompletions, ollamaOne, operatorOnly, limited(BestOf, 1, "best_of")),
		Embeddings:  merge(openaiEmbeddings, operatorOnly),
	},
}

var ollamaOne = merge(limited(Choices, 1, "n"), forbidden("_debug_render_only options keep_alive"))
