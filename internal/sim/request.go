package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// endpoint is what kind of answer is asked for.
type endpoint uint8

const (
	chat endpoint = iota
	completions
	embeddings
)

// request is what an engine reads of a request. Everything else is accepted and ignored, as vLLM does.
type request struct {
	Model         string    `json:"model"`
	Messages      []message `json:"messages"`
	Tools         raw       `json:"tools"`
	Prompt        texts     `json:"prompt"`
	Input         texts     `json:"input"`
	Stream        bool      `json:"stream"`
	StreamOptions struct {
		Usage   bool `json:"include_usage"`
		Running bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`
	MaxTokens  int64  `json:"max_tokens"`
	MaxTokens2 int64  `json:"max_completion_tokens"`
	N          int64  `json:"n"`
	Effort     string `json:"reasoning_effort"`
	Salt       string `json:"cache_salt"`
	Format     string `json:"encoding_format"`
	Dimensions int    `json:"dimensions"`

	steer steering
}

type raw = json.RawMessage

type message struct {
	Role    string `json:"role"`
	Content raw    `json:"content"`
}

// texts is a prompt in any of its four forms.
type texts struct {
	list []string
	ids  int64 // token ids, where the prompts are given as such
	n    int   // prompts
}

func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	var ids []int64
	var lists [][]int64
	switch {
	case json.Unmarshal(b, &one) == nil:
		t.list, t.n = []string{one}, 1
	case json.Unmarshal(b, &t.list) == nil:
		t.n = len(t.list)
	case json.Unmarshal(b, &ids) == nil:
		t.ids, t.n = int64(len(ids)), 1
	case json.Unmarshal(b, &lists) == nil:
		for _, l := range lists {
			t.ids += int64(len(l))
		}
		t.n = len(lists)
	default:
		return errors.New("a prompt is a string, an array of strings, of token ids, or of arrays of those")
	}
	return nil
}

// parse reads a request body.
func parse(kind endpoint, body []byte) (*request, error) {
	q := &request{}
	if err := json.Unmarshal(body, q); err != nil {
		return nil, err
	}
	if q.MaxTokens == 0 {
		q.MaxTokens = q.MaxTokens2
	}
	if q.MaxTokens < 0 || q.N < 0 || q.N > 64 {
		return nil, errors.New("max_tokens and n must be positive, n at most 64")
	}
	q.N = max(1, q.N)
	var err error
	q.steer, err = steer(body)
	if q.text() == "" && q.Prompt.ids+q.Input.ids == 0 && kind != embeddings {
		return nil, errors.New("the prompt is empty")
	}
	return q, err
}

// text is all of the prompt, in order.
func (q *request) text() string {
	var b strings.Builder
	for _, m := range q.Messages {
		var s string
		if json.Unmarshal(m.Content, &s) != nil {
			s = string(m.Content) // parts, or null
		}
		b.WriteString(m.Role + "\n" + s + "\n")
	}
	b.Write(q.Tools)
	for _, s := range append(q.Prompt.list, q.Input.list...) {
		b.WriteString(s)
	}
	return b.String()
}

// Tokens here are four bytes each, and a few stand for the frame of each message: less than a gateway's bound by bytes.
const (
	bytesPerToken   = 4
	tokensPerPrompt = 3
)

// inputTokens counts the prompt.
func (q *request) inputTokens() int64 {
	n := int64(len(q.text())+bytesPerToken-1)/bytesPerToken + q.Prompt.ids + q.Input.ids
	return n + tokensPerPrompt*int64(max(1, q.Prompt.n+q.Input.n))
}

// steering is what a marker in a request asks of the engine: -1 and "" are left to the engine.
type steering struct {
	input, output, cached, reasoning, chunks, at, size int64
	delay, first                                       time.Duration
	fault                                              string
}

// steer reads a marker such as [[p=32 c=20 cached=16 r=8 delay=1ms fault=cut]] anywhere in a body:
//
//	p, c        input tokens, and output tokens of each choice
//	cached, r   of which cached, reasoning
//	chunks      events with text in a stream, for each choice
//	delay       pause before each of them; ttft: before the first
//	fault       a name in faults; at: after so many tokens of the request; size: of a giant line, in bytes
//
// Brackets with anything else in them are text.
func steer(body []byte) (steering, error) {
	s := steering{input: -1, output: -1, cached: -1, reasoning: -1, chunks: -1, at: -1, size: -1, delay: -1, first: -1}
	_, rest, ok := bytes.Cut(body, []byte("[["))
	marker, _, closed := bytes.Cut(rest, []byte("]]"))
	if !ok || !closed {
		return s, nil
	}
	numbers := map[string]*int64{
		"p": &s.input, "c": &s.output, "cached": &s.cached, "r": &s.reasoning, "chunks": &s.chunks, "at": &s.at, "size": &s.size,
	}
	times := map[string]*time.Duration{"delay": &s.delay, "ttft": &s.first}
	for field := range strings.FieldsSeq(string(marker)) {
		name, value, _ := strings.Cut(field, "=")
		var err error
		switch {
		case numbers[name] != nil:
			*numbers[name], err = strconv.ParseInt(value, 10, 64)
		case times[name] != nil:
			*times[name], err = time.ParseDuration(value)
		case name == "fault":
			s.fault = value
			if _, ok := faults[value]; !ok {
				err = errors.New("no such fault")
			}
		default:
			return s, nil
		}
		if err != nil {
			return s, fmt.Errorf("the marker's %s: %w", field, err)
		}
	}
	return s, nil
}
