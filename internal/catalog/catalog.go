// Package catalog says what is on offer: engines, models and their sizes, the most that a request to a model can use, and
// the order in which engines are asked. It does not know who may use a model or what it costs (world, price), what an
// engine speaks (engine) or how it fares (gateway).
//
// # Invariants
//
//   - Bounds never returns less than a request can use: where a part has no bound, it returns NoBound.
//   - No bound is above usage.MaxCount, whatever the shape of the request.
//   - Order drops no engine: the last one is asked, however it fares.
//
// To add something that takes up input: a field of Shape, a term in Model.input, a row in the test of Bounds.
//
// Start reading at Model, then Model.Bounds.
package catalog

import (
	"errors"
	"fmt"
	"slices"

	"talea/internal/usage"
)

// Engine is one server that answers requests. Engines are shared: nobody changes one.
type Engine struct {
	Name           string `json:"-"`
	Kind           string `json:"kind"` // dialect: "vllm", "llamacpp", …
	URL            string `json:"url"`  // scheme, host and path before /v1; no slash at the end
	Region         string `json:"region,omitempty"`
	Version        string `json:"version,omitempty"`
	APIKey         string `json:"-"` // what we send to the engine, "" for nothing
	GPUKind        string `json:"gpu_kind,omitempty"`
	GPUCount       int64  `json:"gpu_count,omitempty"`
	GPUCostPerHour string `json:"gpu_cost_per_hour,omitempty"` // of one GPU, exact decimal
	GPUCurrency    string `json:"gpu_currency,omitempty"`      // ISO 4217
	MaxConcurrent  int64  `json:"max_concurrent,omitempty"`    // requests at once before others are asked first; 0 is no such number
	Weight         int64  `json:"weight"`                      // share of the load; 0 is asked only after those with a share
}

// Model is one model as clients ask for it. Models are shared: nobody changes one.
type Model struct {
	Name                   string   `json:"-"`
	ServedAs               string   `json:"served_as,omitempty"` // what the engines call it; Name unless said
	Engines                []string `json:"engines"`             // names, in order of preference
	Parameters             int64    `json:"parameters,omitempty"`
	ActiveParameters       int64    `json:"active_parameters,omitempty"`  // of a mixture of experts
	KVBytesPerToken        int64    `json:"kv_bytes_per_token,omitempty"` // of the attention's memory; 0 leaves it out of the work
	SizeClass              string   `json:"size_class,omitempty"`         // by Parameters unless said
	ContextTokens          int64    `json:"context_tokens"`
	MaxOutputTokens        int64    `json:"max_output_tokens,omitempty"`         // of one choice; ContextTokens unless said
	DefaultMaxOutputTokens int64    `json:"default_max_output_tokens,omitempty"` // where a request says nothing; MaxOutputTokens unless said
	InputFactorPPM         int64    `json:"input_factor_ppm,omitempty"`          // most tokens for a million bytes of text; a million unless said
	MessageTokens          int64    `json:"message_tokens,omitempty"`            // most that the template adds to a message, prompt or tool
	TemplateTokens         int64    `json:"template_tokens,omitempty"`           // most that the template adds to a conversation
	ImageTokens            int64    `json:"image_tokens,omitempty"`              // most for one image; 0 refuses images
	AudioTokens            int64    `json:"audio_tokens,omitempty"`              // most for one audio; 0 refuses audio
	ContextShift           bool     `json:"context_shift,omitempty"`             // the engine drops the oldest tokens and goes on when the context is full
	MaxConcurrent          int64    `json:"max_concurrent,omitempty"`            // requests that its engines work on at a time, the others wait; 0 is no bound
	FlexBelowPPM           int64    `json:"flex_below_ppm,omitempty"`            // share of those below which tiers cheaper than list price are served; DefaultFlexBelow unless said
	Family                 string   `json:"family,omitempty"`
	Revision               string   `json:"revision,omitempty"`
	Quantisation           string   `json:"quantisation,omitempty"`
	Tokenizer              string   `json:"tokenizer,omitempty"` // hash of tokenizer and template
}

// million is the scale of an input factor.
const million = 1_000_000

// What a model is taken to need where its operator does not say.
//
// A message costs the template some five tokens (ChatML, Llama 3, Harmony: role, marks, line ends) and up to ten with an
// empty block of thought; 16 leaves room. A conversation costs what the template says by itself: the start marks, the
// prompt for the answer, and the system text that it puts in where there is none, which is 20 to 150 tokens in the
// templates of Qwen, Llama, gpt-oss and Mistral Small 3.0. Later Mistral templates have up to 500: those need
// template_tokens. Both stand on top of the body's bytes, whose JSON around a message is longer than its template.
const (
	defaultMessageTokens  = 16
	defaultTemplateTokens = 128
)

// maxTokens bounds every number of tokens that a model declares: 10^9.
const maxTokens = 1_000_000_000

// sizeClasses are the size classes, by total parameters: what decides the memory, and so the GPUs.
var sizeClasses = []struct {
	below int64
	name  string
}{{4e9, "tiny"}, {15e9, "small"}, {45e9, "medium"}, {130e9, "large"}, {usage.MaxCount + 1, "huge"}}

// sizeClassOf returns the size class of a model with so many parameters in total: tiny below 4·10⁹, small below 15·10⁹,
// medium below 45·10⁹, large below 130·10⁹, huge from there; "" where the number is not known.
func sizeClassOf(parameters int64) string {
	for _, c := range sizeClasses {
		if 0 < parameters && parameters < c.below {
			return c.name
		}
	}
	return ""
}

// SizeClasses lists the usual size classes, small to large.
func SizeClasses() []string {
	names := make([]string, len(sizeClasses))
	for i, c := range sizeClasses {
		names[i] = c.name
	}
	return names
}

// DefaultFlexBelow is the share of a model's slots, in parts per million, below which tiers cheaper than list price are
// served where the model does not say.
const DefaultFlexBelow = 650_000

// Complete returns the model with everything filled in that its operator left out, or every fault that it has.
func (m Model) Complete() (*Model, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	fill(&m.ServedAs, m.Name)
	fill(&m.SizeClass, sizeClassOf(m.Parameters))
	fill(&m.MaxOutputTokens, m.ContextTokens)
	fill(&m.DefaultMaxOutputTokens, m.MaxOutputTokens)
	fill(&m.InputFactorPPM, million)
	fill(&m.MessageTokens, defaultMessageTokens)
	fill(&m.TemplateTokens, defaultTemplateTokens)
	return &m, nil
}

// fill sets what is not set.
func fill[T comparable](at *T, value T) {
	var zero T
	if *at == zero {
		*at = value
	}
}

func (m *Model) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(m.Engines) == 0 {
		fault("no engine serves it")
	}
	for i, name := range m.Engines {
		if slices.Contains(m.Engines[:i], name) {
			fault("engine %q is listed twice", name)
		}
	}
	if m.ContextTokens < 1 || m.ContextTokens > maxTokens {
		fault("context_tokens must be from 1 to %d: without it there is no bound", maxTokens)
	}
	for _, f := range []struct {
		name         string
		value, limit int64
	}{
		{"parameters", m.Parameters, usage.MaxCount}, {"active_parameters", m.ActiveParameters, usage.MaxCount}, {"kv_bytes_per_token", m.KVBytesPerToken, maxTokens},
		{"tokens_per_byte", m.InputFactorPPM, 100 * million}, {"message_tokens", m.MessageTokens, maxTokens},
		{"template_tokens", m.TemplateTokens, maxTokens}, {"image_tokens", m.ImageTokens, maxTokens},
		{"audio_tokens", m.AudioTokens, maxTokens}, {"max_output_tokens", m.MaxOutputTokens, maxTokens},
		{"default_max_output_tokens", m.DefaultMaxOutputTokens, maxTokens},
		{"max_concurrent", m.MaxConcurrent, million}, {"flex_below", m.FlexBelowPPM, million},
	} {
		if f.value < 0 || f.value > f.limit {
			fault("%s is out of range", f.name)
		}
	}
	if m.FlexBelowPPM > 0 && m.MaxConcurrent == 0 {
		fault("flex_below is a share of max_concurrent, which it lacks")
	}
	if m.ActiveParameters > m.Parameters {
		fault("active_parameters is above parameters")
	}
	if m.MaxOutputTokens > m.ContextTokens {
		fault("max_output_tokens is above context_tokens")
	}
	most := m.MaxOutputTokens
	fill(&most, m.ContextTokens)
	if m.DefaultMaxOutputTokens > most {
		fault("default_max_output_tokens is above max_output_tokens")
	}
	return errors.Join(faults...)
}
