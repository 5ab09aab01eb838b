package meter

import (
	"errors"
	"strconv"

	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/usage"
)

// ErrTooLarge is the error for an answer that is more than Gather may hold.
var ErrTooLarge = errors.New("the engine's answer is too large")

// Gather makes a whole answer of a stream, when the client asked for no stream: for engines that tell the usage of several
// choices only so (engine.Dialect.PerChoice), and for long answers, of which a whole one tells nothing until its end. What
// it makes is what the engine would have answered whole, less members that are null. Text is joined as it came, escapes
// and all.
type Gather struct {
	s       Stream
	most    int // bytes of text it may hold
	size    int
	choices []gathered
	members []byte // the members of the first chunk that a whole answer has too, each with a comma before it
	usage   []byte // the final usage, as the engine told it last
	timing  []byte // and the times
	err     error

	// Where the last chunk's text went, if text was all that it brought: what is like it goes there too.
	plain bool
	at    int    // choice
	to    part   // of it
	text  []byte // the string, with its quotes
}

// part is one of the texts of a choice.
type part uint8

const (
	contentPart part = iota
	thoughtPart
	refusalPart
	textPart
)

// gathered is one choice. Strings are the insides of JSON strings.
type gathered struct {
	content, thought, refusal, text []byte
	thoughtName                     string // what the engine calls its thoughts
	tools                           []tool
	logprobs                        []list
	more                            []member
	finish                          []byte // with quotes
}

// list is an array that comes in pieces: the elements so far.
type list struct {
	name     string
	elements []byte
}

// member is a member of a choice that has no rule here: its last value that was not null.
type member struct {
	name  string
	value []byte
}

// tool is one tool call.
type tool struct {
	index           int64
	id, kind        []byte // JSON values
	name, arguments []byte // insides of JSON strings
}

// NewGather returns a Gather for one answer that holds at most most bytes of text.
func NewGather(d *engine.Dialect, o Options, most int) *Gather {
	g := &Gather{most: most}
	g.s.Reset(d, o)
	g.s.keep = g
	return g
}

// Feed takes the next bytes of the engine's stream. Events are those of Stream.Feed.
func (g *Gather) Feed(in []byte) (Event, error) {
	_, ev, err := g.s.Feed(in)
	if err == nil {
		err = g.err
	}
	return ev, err
}

// End is for the end of the engine's connection, as Stream.End.
func (g *Gather) End() Event {
	_, ev := g.s.End()
	return ev
}

// Report is what was used as far as the stream has been read.
func (g *Gather) Report() Report { return g.s.Report() }

// Body appends the whole answer to dst, with a usage object of the billed counts and the cost in it. It is for after
// Finished, or after OverBound: then what has come is the answer, and choices that have not finished end by "length".
func (g *Gather) Body(dst []byte, billed *usage.Counts, cost Cost) []byte {
	dst = append(dst, `{"choices":[`...)
	for i := range g.choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		if g.s.text {
			dst = g.choices[i].appendText(dst, i)
		} else {
			dst = g.choices[i].appendMessage(dst, i)
		}
	}
	dst = append(append(dst, ']'), g.members...)
	if g.s.text {
		dst = append(dst, `,"object":"text_completion"`...)
	} else {
		dst = append(dst, `,"object":"chat.completion"`...)
	}
	dst = append(dst, `,"usage":`...)
	if g.usage != nil && g.s.saysAll(billed) {
		dst = appendWithCost(dst, g.usage, cost)
	} else {
		dst = appendUsage(dst, billed, cost)
	}
	if g.timing != nil {
		dst = append(jsonscan.AppendQuote(append(dst, ','), g.s.d.TimingMember), ':')
		dst = append(dst, g.timing...)
	}
	return append(dst, '}')
}

// tags keeps the members of the first chunk that name the answer.
func (g *Gather) tags(data []byte) {
	if g.members != nil {
		return
	}
	_ = jsonscan.Each(data, func(name []byte, _ jsonscan.Kind, v jsonscan.Span) bool {
		switch string(name) {
		case "id", "created", "model", "system_fingerprint", "service_tier":
			g.members = append(append(append(g.members, ',', '"'), name...), '"', ':')
			g.members = append(g.members, data[v.Start:v.End]...)
		}
		return true
	})
}

// final keeps what the engine says of the whole answer.
func (g *Gather) final(usageValue, timingValue []byte) {
	if len(usageValue) > 0 {
		g.usage = append(g.usage[:0], usageValue...)
	}
	if len(timingValue) > 0 && timingValue[0] == '{' {
		g.timing = append(g.timing[:0], timingValue...)
	}
}

// take joins what one choice of a chunk brings.
func (g *Gather) take(index int, object []byte) {
	if g.size += len(object); g.size > g.most {
		g.err = ErrTooLarge
		return
	}
	for len(g.choices) <= index {
		g.choices = append(g.choices, gathered{})
	}
	c := &g.choices[index]
	brought := 0
	_ = jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := object[v.Start:v.End]
		switch {
		case string(name) == "delta" && kind == jsonscan.Object:
			brought += g.delta(c, value)
		case string(name) == "text" && kind == jsonscan.String:
			brought += g.join(c, textPart, value)
		case string(name) == "finish_reason" && kind == jsonscan.String:
			c.finish = append(c.finish[:0], value...)
		case string(name) == "logprobs" && kind == jsonscan.Object:
			c.addLogprobs(value)
			brought += 2
		case kind != jsonscan.Null && !isRuled(name):
			c.keep(name, value)
			brought += 2
		}
		return true
	})
	g.plain, g.at = brought == 1, index
}

// join adds a string to one of the texts of a choice. It returns 1, 0 if there was nothing in it.
func (g *Gather) join(c *gathered, to part, quoted []byte) int {
	if len(quoted) <= 2 {
		return 0
	}
	b := [...]*[]byte{&c.content, &c.thought, &c.refusal, &c.text}[to]
	*b = append(*b, inside(quoted)...)
	g.to, g.text = to, quoted
	return 1
}

// brought reports whether a string was all that the last chunk brought.
func (g *Gather) brought(text []byte) bool {
	return g.plain && len(text) > 0 && len(g.text) == len(text) && &g.text[0] == &text[0]
}

// more takes the text of a chunk that is like the last one.
func (g *Gather) more(quoted []byte) {
	if g.size += len(quoted); g.size > g.most {
		g.err = ErrTooLarge
		return
	}
	g.join(&g.choices[g.at], g.to, quoted)
}

// isRuled reports whether a member of a choice has a rule of its own, whatever its value.
func isRuled(name []byte) bool {
	switch string(name) {
	case "index", "delta", "text", "finish_reason", "logprobs":
		return true
	}
	return false
}

// maxMore bounds the members of a choice that are kept without a rule, and the arrays of its log probabilities.
const maxMore = 16

func (c *gathered) keep(name, value []byte) {
	for i := range c.more {
		if c.more[i].name == string(name) {
			c.more[i].value = append(c.more[i].value[:0], value...)
			return
		}
	}
	if len(c.more) < maxMore {
		c.more = append(c.more, member{string(name), append([]byte(nil), value...)})
	}
}

func inside(quoted []byte) []byte { return quoted[1 : len(quoted)-1] }

func (g *Gather) delta(c *gathered, object []byte) (brought int) {
	_ = jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := object[v.Start:v.End]
		if kind == jsonscan.Array && string(name) == "tool_calls" {
			_ = jsonscan.Elements(value, func(_ jsonscan.Kind, v jsonscan.Span) bool {
				c.toolCall(value[v.Start:v.End])
				return true
			})
			brought += 2
		}
		if kind != jsonscan.String {
			return true
		}
		switch string(name) {
		case "content":
			brought += g.join(c, contentPart, value)
		case "reasoning_content", "reasoning":
			brought += g.join(c, thoughtPart, value)
			if c.thoughtName != string(name) {
				c.thoughtName = string(name)
			}
		case "refusal":
			brought += g.join(c, refusalPart, value)
		}
		return true
	})
	return brought
}

func (c *gathered) toolCall(object []byte) {
	call := tool{index: int64(len(c.tools))}
	_ = jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := object[v.Start:v.End]
		switch {
		case string(name) == "index":
			if i, ok := jsonscan.Int(value); ok {
				call.index = i
			}
		case string(name) == "id" && kind == jsonscan.String:
			call.id = value
		case string(name) == "type" && kind == jsonscan.String:
			call.kind = value
		case string(name) == "function" && kind == jsonscan.Object:
			_ = jsonscan.Each(value, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
				switch {
				case kind != jsonscan.String:
				case string(name) == "name":
					call.name = inside(value[v.Start:v.End])
				case string(name) == "arguments":
					call.arguments = inside(value[v.Start:v.End])
				}
				return true
			})
		}
		return true
	})
	for i := range c.tools {
		if t := &c.tools[i]; t.index == call.index {
			t.name, t.arguments = append(t.name, call.name...), append(t.arguments, call.arguments...)
			return
		}
	}
	own := func(b []byte) []byte { return append([]byte(nil), b...) }
	c.tools = append(c.tools, tool{call.index, own(call.id), own(call.kind), own(call.name), own(call.arguments)})
}

func (c *gathered) addLogprobs(object []byte) {
	_ = jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if kind != jsonscan.Array {
			return true
		}
		if l := c.list(string(name)); l != nil {
			more := inside(object[v.Start:v.End])
			if len(l.elements) > 0 && len(more) > 0 {
				l.elements = append(l.elements, ',')
			}
			l.elements = append(l.elements, more...)
		}
		return true
	})
}

// list finds an array of log probabilities: one of chats, four of text completions.
func (c *gathered) list(name string) *list {
	for i := range c.logprobs {
		if c.logprobs[i].name == name {
			return &c.logprobs[i]
		}
	}
	if len(c.logprobs) == maxMore {
		return nil
	}
	c.logprobs = append(c.logprobs, list{name: name})
	return &c.logprobs[len(c.logprobs)-1]
}

func (c *gathered) appendEnds(b []byte, index int) []byte {
	finish := c.finish
	if finish == nil { // we stopped it
		finish = []byte(`"length"`)
	}
	b = append(append(b, `"finish_reason":`...), finish...)
	b = strconv.AppendInt(append(b, `,"index":`...), int64(index), 10)
	for _, m := range c.more {
		b = append(jsonscan.AppendQuote(append(b, ','), m.name), ':')
		b = append(b, m.value...)
	}
	if len(c.logprobs) == 0 {
		return append(b, `,"logprobs":null`...)
	}
	sep := `,"logprobs":{`
	for _, l := range c.logprobs {
		b = append(jsonscan.AppendQuote(append(b, sep...), l.name), `:[`...)
		b = append(append(b, l.elements...), ']')
		sep = ","
	}
	return append(b, '}')
}

func (c *gathered) appendText(b []byte, index int) []byte {
	b = append(append(append(b, `{"text":"`...), c.text...), `",`...)
	return append(c.appendEnds(b, index), '}')
}

func (c *gathered) appendMessage(b []byte, index int) []byte {
	b = c.appendEnds(append(b, '{'), index)
	b = append(b, `,"message":{"role":"assistant","content":`...)
	if len(c.content) > 0 || len(c.tools) == 0 && len(c.refusal) == 0 {
		b = append(append(append(b, '"'), c.content...), '"')
	} else {
		b = append(b, "null"...)
	}
	if c.thoughtName != "" {
		b = append(append(append(b, `,"`...), c.thoughtName...), `":"`...)
		b = append(append(b, c.thought...), '"')
	}
	if len(c.refusal) > 0 {
		b = append(append(append(b, `,"refusal":"`...), c.refusal...), '"')
	}
	for i, t := range c.tools {
		if i == 0 {
			b = append(b, `,"tool_calls":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"type":`...), orNull(t.kind)...), `,"function":{"name":"`...)
		b = append(append(append(b, t.name...), `","arguments":"`...), t.arguments...)
		b = append(append(append(b, `"},"id":`...), orNull(t.id)...), '}')
		if i == len(c.tools)-1 {
			b = append(b, ']')
		}
	}
	return append(b, "}}"...)
}

func orNull(value []byte) []byte {
	if len(value) == 0 {
		return []byte("null")
	}
	return value
}
