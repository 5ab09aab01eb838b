package engine

import "strings"

// Class says what the gateway does with a member of a request.
type Class uint8

// Classes of members. The zero class is that of names a table does not have.
const (
	Unlisted  Class = iota // refused as unknown
	Neutral                // forwarded byte for byte
	Bound                  // read and checked by its Rule
	Ours                   // read, and written by us
	Forbidden              // refused by name: it is for operators, not for tenants
)

// Rule says how a Bound member bears on what a request can use.
type Rule uint8

// Rules of Bound members.
const (
	NoRule    Rule = iota
	OutputMax      // most output tokens of a choice; never forwarded as it is: BoundMember is written in its place
	OutputMin      // least output tokens of a choice: at most the output bound
	Choices        // answers per prompt
	BestOf         // answers generated per prompt, of which only some are returned
	Extends        // makes an answer run to its output bound: allowed, since a bound is always written
	Echoes         // repeats the prompt in the answer: not together with log probabilities
	Off            // must be absent, null, false or 0
	AtMost         // a number of at most Limit, or true or false
	Entries        // an array or object of at most Limit elements
)

// Member is one row of a table of request members.
type Member struct {
	Class Class
	Rule  Rule
	Limit int64 // of AtMost and Entries; of Choices and BestOf where the engine allows less than the gateway, else 0
}

// table lists request members by name.
type table map[string]Member

// Limits of what a request may ask for beside tokens.
const (
	maxLogprobs = 20   // alternatives for each token, as OpenAI has it
	maxBias     = 1024 // entries of logit_bias and of lists of token ids
)

func each(names string, m Member) table {
	t := table{}
	for name := range strings.FieldsSeq(names) {
		t[name] = m
	}
	return t
}

func neutral(names string) table   { return each(names, Member{Class: Neutral}) }
func ours(names string) table      { return each(names, Member{Class: Ours}) }
func forbidden(names string) table { return each(names, Member{Class: Forbidden}) }

func bound(r Rule, names string) table { return each(names, Member{Class: Bound, Rule: r}) }

func limited(r Rule, limit int64, names string) table {
	return each(names, Member{Class: Bound, Rule: r, Limit: limit})
}

// merge puts tables on top of each other: the last one that lists a name decides.
func merge(tables ...table) table {
	all := table{}
	for _, t := range tables {
		for name, m := range t {
			all[name] = m
		}
	}
	return all
}

// The requests of the OpenAI API, which every dialect accepts.
var (
	openaiSampling = merge(
		ours("model stream stream_options"),
		neutral("frequency_penalty presence_penalty seed stop temperature top_p user"),
		bound(OutputMax, "max_tokens max_completion_tokens"),
		bound(Choices, "n"),
		limited(AtMost, maxLogprobs, "logprobs"),
		limited(Entries, maxBias, "logit_bias"),
	)
	openaiChat = merge(
		openaiSampling,
		neutral(`messages audio function_call functions metadata modalities parallel_tool_calls prediction
			prompt_cache_key prompt_cache_retention reasoning_effort response_format safety_identifier service_tier
			store tool_choice tools verbosity web_search_options`),
		limited(AtMost, maxLogprobs, "top_logprobs"),
	)
	openaiCompletions = merge(
		openaiSampling,
		neutral("prompt suffix"),
		bound(BestOf, "best_of"),
		bound(Echoes, "echo"),
	)
	openaiEmbeddings = merge(
		ours("model"),
		neutral("input dimensions encoding_format user"),
	)
)

// operatorOnly are members by which some engine lets a request choose its priority, its place, its caches or its name
// in the engine's books. They are named in every dialect, so that a tenant is told no rather than that they are unknown.
var operatorOnly = forbidden(`
	priority cache_salt request_id session_id kv_transfer_params ec_transfer_params vllm_xargs data_parallel_rank
	rid extra_key custom_labels routed_dp_rank bootstrap_host bootstrap_port bootstrap_room return_hidden_states
	nvext id_slot lora lora_path logits_processors custom_logit_processor custom_params`)
