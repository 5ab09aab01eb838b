package catalog

import (
	"fmt"
	"math/bits"

	"talea/internal/usage"
)

// Shape is what the bounds of a request depend on. No count is negative; what is asked for 0 choices or prompts is asked
// for 1.
type Shape struct {
	BodyBytes int64 // of the whole request body, as it came
	// RewrittenBytes are those of the body's bytes that chat templates parse and write anew: tools, and the arguments of
	// tool calls. Counting some twice only makes the bound wider.
	RewrittenBytes int64
	// MediaBytes are those of the body's bytes that are images or audio in data: URLs. They are counted by Images and
	// Audios, not as text. Counting some twice would be text that nobody counts.
	MediaBytes int64
	Messages   int64
	Tools      int64
	Images     int64
	Audios     int64
	Prompts    int64 // of a completion or an embedding; each has choices of its own
	Choices    int64 // for each prompt
	MaxOutput  int64 // of one choice, as the client asked; 0 is not asked
	Embedding  bool  // nothing is generated
}

// rewriteFactor is how many times as long JSON can become when a chat template parses it and writes it anew, in tokens.
// Templates put a blank after each comma and colon, which is a token of its own before a digit in several tokenizers
// (1.5 times for a list of digits), and write numbers out: 1e15 becomes 1000000000000000.0, at most 20 tokens for the
// 5 bytes of a list's element.
const rewriteFactor = 4

// NoBound says that a request has a part for which a model has no bound, so that nothing can be held for it.
type NoBound struct {
	Model string
	Part  string // "images", "audio", "input", "output"
	Why   string
}

// Error says what has no bound and why, in words for the client.
func (e *NoBound) Error() string {
	return fmt.Sprintf("The %s of this request to %s cannot be bounded: %s.", e.Part, e.Model, e.Why)
}

// Bounds returns the most that a request of this shape can use.
//
// Input: every token of text stands for at least one byte of the body, times the model's factor (1 for byte-level BPE);
// the JSON around a text is an allowance on top of it. To that come constants for what the template adds, and the most
// that images and audio can take. No prompt is longer than the context.
//
// Output: what the client asked for or the model's default, at most the model's maximum, for every choice of every
// prompt.
//
// Joint: a prompt and one choice fit the context together. The prompt is counted once whatever the number of choices, so
// together they reach context × choices at most, when the prompt is short. An engine that shifts its context has no such
// bound.
//
// The error is a *NoBound.
func (m *Model) Bounds(s Shape) (usage.Bounds, error) {
	if min(s.BodyBytes, s.RewrittenBytes, s.MediaBytes, s.Messages, s.Tools, s.Images, s.Audios, s.Prompts, s.Choices, s.MaxOutput) < 0 {
		panic(fmt.Sprintf("catalog: not the shape of a request: %+v", s))
	}
	prompts := max(s.Prompts, 1)
	answers := times(prompts, max(s.Choices, 1))
	input, err := m.input(&s, prompts)
	if err != nil {
		return usage.Bounds{}, err
	}
	b := usage.Bounds{Input: min(input, times(m.ContextTokens, prompts))}
	if !s.Embedding {
		asked := s.MaxOutput
		if asked == 0 {
			asked = m.DefaultMaxOutputTokens
		}
		b.Output = times(min(asked, m.MaxOutputTokens), answers)
		if !m.ContextShift {
			b.Joint = times(m.ContextTokens, answers)
		}
	}
	switch {
	case b.Input > usage.MaxCount:
		return usage.Bounds{}, &NoBound{m.Name, "input", "it is too long"}
	case b.Output > usage.MaxCount || b.Joint > usage.MaxCount:
		return usage.Bounds{}, &NoBound{m.Name, "output", "it has too many choices"}
	}
	return b, nil
}

// input is the most input that a request can have, before the context cuts it: at most usage.MaxCount + 1.
func (m *Model) input(s *Shape, prompts int64) (int64, error) {
	switch {
	case s.Images > 0 && m.ImageTokens == 0:
		return 0, &NoBound{m.Name, "images", "the model takes no images"}
	case s.Audios > 0 && m.AudioTokens == 0:
		return 0, &NoBound{m.Name, "audio", "the model takes no audio"}
	}
	text := s.BodyBytes
	if s.Images+s.Audios > 0 && s.MediaBytes <= text { // else it is no media that anything else counts
		text -= s.MediaBytes
	}
	input := scale(plus(text, times(s.RewrittenBytes, rewriteFactor-1)), m.InputFactorPPM)
	for _, count := range []int64{prompts, s.Messages, s.Tools} {
		input = plus(input, times(count, m.MessageTokens))
	}
	if s.Messages > 0 {
		input = plus(input, m.TemplateTokens)
	}
	input = plus(input, times(s.Images, m.ImageTokens))
	return plus(input, times(s.Audios, m.AudioTokens)), nil
}

// tooMany stands for every count above usage.MaxCount: the arithmetic of bounds stays there instead of overflowing.
const tooMany = usage.MaxCount + 1

func plus(a, b int64) int64 { return min(min(a, tooMany)+min(b, tooMany), tooMany) }

func times(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > usage.MaxCount {
		return tooMany
	}
	return int64(lo)
}

// scale returns n × ppm / 10^6, rounded up.
func scale(n, ppm int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(ppm))
	lo, carry := bits.Add64(lo, million-1, 0)
	hi += carry
	if hi >= million {
		return tooMany
	}
	q, _ := bits.Div64(hi, lo, million)
	return int64(min(q, tooMany))
}
