package sim

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// created is the time on every answer: what an engine says follows from the request alone.
const created = 1_764_000_000

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// finishReason is that of a choice which has come to its end.
func (g *generation) finishReason() string {
	if g.bounded {
		return "length"
	}
	return "stop"
}

// stream writes an answer as vLLM streams it: a chunk with the role and one with the end for each choice, text between
// them, usage and [DONE] at the end.
func (g *generation) stream() error {
	g.begin("text/event-stream; charset=utf-8")
	for i := range g.lengths {
		if g.kind == chat {
			if err := g.chunk(g.delta(i, `{"role":"assistant","content":""}`, "null"), g.running(0)); err != nil {
				return err
			}
		}
	}
	err := g.decode(func(choice int, tokens, before int64) error {
		after := before + tokens
		delta := `{"content":"` + words(before, after) + `"}`
		if after <= g.thought {
			delta = `{"reasoning":"` + words(before, after) + `"}`
		}
		if g.kind == completions {
			delta = words(before, after)
		}
		return g.chunk(g.delta(choice, delta, "null"), g.running(after))
	})
	if err != nil {
		return err
	}
	for i, length := range g.lengths {
		last := `{"content":""}`
		if g.kind == completions {
			last = ""
		}
		if err := g.chunk(g.delta(i, last, `"`+g.finishReason()+`"`), g.running(length)); err != nil {
			return err
		}
	}
	return g.ending()
}

// ending writes final usage, where it was asked for, and the end of the stream.
func (g *generation) ending() error {
	if u := g.finalUsage(); g.q.StreamOptions.Usage && u != "" && g.fault != "falls" {
		if g.fault == "twice" {
			if err := g.chunk("", `,"usage":`+g.usage(g.made.Output/2, g.made.Reasoning/2, true)); err != nil {
				return err
			}
		}
		if err := g.chunk("", `,"usage":`+u); err != nil {
			return err
		}
	}
	if g.fault == "nodone" {
		return g.last(nil)
	}
	return g.last([]byte("data: [DONE]\n\n"))
}

// delta is one choice of a chunk.
func (g *generation) delta(choice int, content, finish string) string {
	if g.kind == completions {
		return fmt.Sprintf(`{"index":%d,"text":"%s","logprobs":null,"finish_reason":%s,"stop_reason":null}`, choice, content, finish)
	}
	return fmt.Sprintf(`{"index":%d,"delta":%s,"logprobs":null,"finish_reason":%s}`, choice, content, finish)
}

// chunk writes one event of the stream. more follows the choices.
func (g *generation) chunk(choice, more string) error {
	object := "chat.completion.chunk"
	if g.kind == completions {
		object = "text_completion"
	}
	return g.write(fmt.Appendf(nil, "data: {\"id\":%q,\"object\":%q,\"created\":%d,\"model\":%q,\"choices\":[%s]%s}\n\n",
		g.id, object, created, g.model.Name, choice, more))
}

// running is the usage member of a chunk: that of its choice alone, without details of the prompt.
func (g *generation) running(output int64) string {
	switch {
	case !g.q.StreamOptions.Running, g.fault == "nousage", g.fault == "nullusage":
		return ""
	case g.fault == "falls" && g.struck:
		output /= 2
	}
	return `,"usage":` + g.usage(output, min(output, g.thought), false)
}

// finalUsage is the usage of the whole answer, "" where none is told.
func (g *generation) finalUsage() string {
	switch g.fault {
	case "nousage":
		return ""
	case "nullusage":
		return "null"
	}
	return g.usage(g.made.Output, g.made.Reasoning, true)
}

// usage is a usage object.
func (g *generation) usage(output, reasoning int64, final bool) string {
	in, cached := g.input.Input, g.input.Cached
	if g.fault == "overcached" {
		cached, reasoning = in+5, output+5
	}
	say := func(n int64) string {
		if wrong, ok := nonsense[g.fault]; ok {
			return wrong
		}
		return decimal(n)
	}
	var b strings.Builder
	b.WriteString(`{"prompt_tokens":` + say(in) + `,"total_tokens":` + say(in+output) + `,"completion_tokens":` + say(output))
	switch {
	case final && cached > 0:
		b.WriteString(`,"prompt_tokens_details":{"cached_tokens":` + say(cached) + `}`)
	case final:
		b.WriteString(`,"prompt_tokens_details":null`)
	}
	if g.thought > 0 || reasoning > 0 {
		b.WriteString(`,"completion_tokens_details":{"reasoning_tokens":` + say(reasoning) + `}`)
	}
	b.WriteByte('}')
	return b.String()
}

// answer is a whole answer.
func (g *generation) answer() []byte {
	var choices []string
	for i, length := range g.lengths {
		thought := min(length, g.thought)
		reasoning := "null"
		if thought > 0 {
			reasoning = `"` + words(0, thought) + `"`
		}
		said := fmt.Sprintf(`"message":{"role":"assistant","content":"%s","refusal":null,"tool_calls":[],"reasoning":%s}`, words(thought, length), reasoning)
		if g.kind == completions {
			said = `"text":"` + words(0, length) + `"`
		}
		choices = append(choices, fmt.Sprintf(`{"index":%d,%s,"logprobs":null,"finish_reason":"%s","stop_reason":null}`, i, said, g.finishReason()))
	}
	object := "chat.completion"
	if g.kind == completions {
		object = "text_completion"
	}
	return g.object(object, `"choices":[`+strings.Join(choices, ",")+`]`)
}

// embeddings is the answer to a request for embeddings: the same vector for every input.
func (g *generation) embeddings() []byte {
	size := g.q.Dimensions
	if size <= 0 || size > 1<<16 {
		size = 8
	}
	vector := "[0.25" + strings.Repeat(",0.25", size-1) + "]"
	if g.q.Format == "base64" {
		vector = `"` + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0, 0, 0x80, 0x3e}, size)) + `"` // 0.25 as float32
	}
	var data []string
	for i := range max(1, g.q.Input.n) {
		data = append(data, fmt.Sprintf(`{"index":%d,"object":"embedding","embedding":%s}`, i, vector))
	}
	return g.object("list", `"data":[`+strings.Join(data, ",")+`]`)
}

func (g *generation) object(object, content string) []byte {
	b := fmt.Appendf(nil, `{"id":%q,"object":%q,"created":%d,"model":%q,%s`, g.id, object, created, g.model.Name, content)
	if u := g.finalUsage(); u != "" {
		b = append(append(b, `,"usage":`...), u...)
	}
	return append(b, '}')
}
