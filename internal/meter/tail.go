package meter

import (
	"bytes"
	"strconv"

	"talea/internal/jsonscan"
	"talea/internal/usage"
)

// Cost is what the client is told of the price of its request: a decimal string and an ISO 4217 code. The zero value
// tells nothing.
type Cost struct{ Amount, Currency string }

// End is for the end of the engine's connection. An event that lacks only its last line end is completed and read; a
// torn one is dropped. Finished says that the answer is whole although no [DONE] came: every choice has its finish
// reason. None, where Feed has not reported an end before, says that the engine broke off.
func (s *Stream) End() (out []byte, ev Event) {
	if s.ended {
		return nil, None
	}
	if s.wholeAtEnd() {
		if out, ev, _ = s.Feed([]byte("\n\n")); ev != None {
			return out, ev
		}
	}
	s.ended = true
	if s.allFinished() {
		s.done = true
		return out, Finished
	}
	return out, None
}

// wholeAtEnd reports whether the pending bytes are one event but for line ends.
func (s *Stream) wholeAtEnd() bool {
	line := bytes.TrimRight(s.pend, "\r\n")
	data, ok := dataOf(line)
	if !ok || bytes.ContainsAny(line, "\r\n") {
		return false
	}
	return string(bytes.TrimSpace(data)) == "[DONE]" || jsonscan.Strict(data, 64, func(*jsonscan.Member) error { return nil }) == nil
}

func (s *Stream) allFinished() bool {
	for i := range s.choices {
		if !s.choices[i].finished {
			return false
		}
	}
	return len(s.choices) >= s.o.Prompts*s.o.Choices
}

// Tail is the end of the stream, for when the request is settled: the usage that was held back, if the client asked for
// it, with the cost in it, and [DONE]. billed are the counts of the record. It is good until the next call.
func (s *Stream) Tail(billed *usage.Counts, cost Cost) []byte {
	b := s.tail[:0]
	if s.o.ShowUsage {
		b = append(b, "data: "...)
		at := len(b)
		b = s.appendUsageChunk(b, billed, cost)
		if s.o.Tier != "" {
			b = append(b[:at], SpliceTier(nil, b[at:], s.o.Tier)...)
		}
		b = append(b, "\n\n"...)
	}
	s.tail = append(b, "data: [DONE]\n\n"...)
	return s.tail
}

// appendUsageChunk writes the engine's own usage chunk where it told usage once and soundly, else one like it.
func (s *Stream) appendUsageChunk(b []byte, billed *usage.Counts, cost Cost) []byte {
	if len(s.last) == 0 {
		b = s.appendHead(b)
		b = append(b, `,"choices":[],"usage":`...)
		b = appendUsage(b, billed, cost)
		return append(b, '}')
	}
	// Multi-line data would need its line breaks framed again; to JSON they are white space.
	last := s.last
	for i, c := range last {
		if c == '\n' || c == '\r' {
			last[i] = ' '
		}
	}
	b = append(b, last[:s.lastUsage.from]...)
	if s.saysAll(billed) {
		b = appendWithCost(b, last[s.lastUsage.from:s.lastUsage.to], cost)
	} else {
		b = appendUsage(b, billed, cost)
	}
	return append(b, last[s.lastUsage.to:]...)
}

// saysAll reports whether the engine's own usage, as it stands in the stream, is what is billed.
func (s *Stream) saysAll(billed *usage.Counts) bool {
	if s.told != 1 || s.flags != 0 {
		return false
	}
	own := s.Report().Counts
	return own.Input() == billed.Input() && own.Output() == billed.Output()
}

// Cut is a chunk that ends the unfinished choices of a stream whose hold is used up: finish reason "length" and a
// member x_stopped. Tail comes after it. It is good until the next call.
func (s *Stream) Cut() []byte {
	s.ended = true
	b := append(s.tail[:0], "data: "...)
	b = append(s.appendHead(b), `,"choices":[`...)
	empty := `,"delta":{},"logprobs":null,"finish_reason":"length"}`
	if s.text {
		empty = `,"text":"","logprobs":null,"finish_reason":"length"}`
	}
	s.at(0)
	comma := false
	for i := range s.choices {
		if s.choices[i].finished {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = append(b, empty...)
		if i == 0 || s.finishReason == "" {
			s.finishReason = "length"
		}
	}
	s.tail = append(b, `],"x_stopped":"budget"}`+"\n\n"...)
	return s.tail
}

// appendHead opens a chunk with the name tags of the stream.
func (s *Stream) appendHead(b []byte) []byte {
	if len(s.head) == 0 {
		return append(b, `{"object":"chat.completion.chunk"`...)
	}
	return append(append(b, '{'), s.head...)
}

// appendUsage writes a usage object of our own. Parts that are unknown are left out, but for the three that clients
// take for granted.
func appendUsage(b []byte, c *usage.Counts, cost Cost) []byte {
	number := func(name string, n int64) {
		b = append(b, name...)
		b = strconv.AppendInt(b, n, 10)
	}
	number(`{"prompt_tokens":`, c.Input())
	number(`,"completion_tokens":`, c.Output())
	number(`,"total_tokens":`, c.Input()+c.Output())
	if c.Known(usage.InputCacheRead) {
		number(`,"prompt_tokens_details":{"cached_tokens":`, c.Get(usage.InputCacheRead))
		b = append(b, '}')
	}
	if c.Known(usage.OutputReasoning) {
		number(`,"completion_tokens_details":{"reasoning_tokens":`, c.Get(usage.OutputReasoning))
		b = append(b, '}')
	}
	return append(appendCost(b, cost, true), '}')
}

func appendCost(b []byte, cost Cost, comma bool) []byte {
	if cost == (Cost{}) {
		return b
	}
	if comma {
		b = append(b, ',')
	}
	b = jsonscan.AppendQuote(append(b, `"cost":`...), cost.Amount)
	return jsonscan.AppendQuote(append(b, `,"currency":`...), cost.Currency)
}

// appendWithCost writes a usage object with the cost at its end, in place of what the engine may call so.
func appendWithCost(b, object []byte, cost Cost) []byte {
	if cost == (Cost{}) {
		return append(b, object...)
	}
	b = append(b, '{')
	before, members := bytes.IndexByte(object, '{')+1, 0
	_ = jsonscan.Each(object, func(name []byte, _ jsonscan.Kind, v jsonscan.Span) bool {
		member := object[before:v.End]
		before = v.End
		if string(name) == "cost" || string(name) == "currency" {
			return true
		}
		member = bytes.TrimLeft(member, " \t\r\n")
		if member = bytes.TrimPrefix(member, []byte(",")); members > 0 {
			b = append(b, ',')
		}
		b = append(b, member...)
		members++
		return true
	})
	return append(appendCost(b, cost, members > 0), '}')
}
