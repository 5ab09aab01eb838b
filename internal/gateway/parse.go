package gateway

import (
	"errors"
	"fmt"
	"strings"

	"talea/internal/catalog"
	"talea/internal/jsonscan"
	"talea/internal/refusal"
)

// Bounds of a request body (docs/wire.md, "Bounds").
const (
	maxBody     = 16 << 20
	maxDepth    = 64
	maxMessages = 10_000
	maxTools    = 1_024
	maxPrompts  = 2_048
	maxChoices  = 16
	maxMembers  = 128
	maxName     = 255
)

// member is one top-level member of a request body.
type member struct {
	name  []byte // unescaped
	value jsonscan.Span
	kind  jsonscan.Kind
	items int
}

// request is a parsed request body: what was found, and where. No value is copied but the few that steer the request.
type request struct {
	endpoint *endpoint
	body     []byte
	members  []member
	scanner  jsonscan.Scanner
	refused  *refusal.Refusal

	model        string
	stream       bool
	showUsage    bool  // stream_options.include_usage: true
	showRunning  bool  // stream_options.continuous_usage_stats: true
	maxOutput    int64 // the smallest bound that the client gave, 0 for none
	choices      int64
	bestOf       int64
	shape        catalog.Shape
	user         string // `safety_identifier`, else `user`; only ever hashed
	tier, effort string
	thinkTokens  int64
}

func (q *request) reset() {
	clear(q.members)
	*q = request{members: q.members[:0], scanner: q.scanner}
}

// parse reads a body strictly in one pass: one JSON object, no duplicate members at any depth, no case variants of known
// members, numbers as integers. It looks at nothing that depends on the engine: admit does.
func (q *request) parse(ep *endpoint, body []byte) *refusal.Refusal {
	q.endpoint, q.body = ep, body
	q.choices, q.bestOf = 1, 1
	q.shape = catalog.Shape{BodyBytes: int64(len(body)), Prompts: 1, Embedding: ep.embedding}
	err := q.scanner.Strict(body, maxDepth, q.visit)
	if q.refused != nil {
		return q.refused
	}
	if err != nil {
		var at *jsonscan.Error
		if errors.As(err, &at) {
			return refusal.At(refusal.Malformed, at.Name, "The request body is not acceptable JSON: "+at.Error()+".")
		}
		return refusal.New(refusal.Malformed, "The request body is not acceptable JSON.")
	}
	return q.check()
}

var errRefused = errors.New("refused")

// refuse ends the scan.
func (q *request) refuse(code refusal.Code, param, format string, args ...any) error {
	q.refused = refusal.At(code, param, fmt.Sprintf(format, args...))
	return errRefused
}

// visit sees every member of the body, at any depth, once its value is known.
func (q *request) visit(m *jsonscan.Member) error {
	switch {
	case m.Depth == 1:
		return q.top(m)
	case m.Depth == 3 && string(m.Top) == "messages":
		return q.message(m)
	case m.Depth == 2 && string(m.Top) == "stream_options":
		return q.streamOption(m)
	case m.Depth == 2 && string(m.Top) == "thinking" && string(m.Name) == "budget_tokens":
		n, ok := jsonscan.Int(q.at(m.Value))
		if !ok || n < 0 || n > maxBody {
			return q.refuse(refusal.Malformed, "thinking.budget_tokens", "thinking.budget_tokens must be a whole number from 0.")
		}
		q.thinkTokens = n
	}
	return nil
}

func (q *request) at(s jsonscan.Span) []byte { return q.body[s.Start:s.End] }

func (q *request) streamOption(m *jsonscan.Member) error {
	switch string(m.Name) {
	case "include_usage", "continuous_usage_stats":
		if m.Kind != jsonscan.Bool && m.Kind != jsonscan.Null {
			return q.refuse(refusal.Malformed, "stream_options."+string(m.Name), "stream_options.%s must be true or false.", m.Name)
		}
		yes := m.Kind == jsonscan.Bool && q.body[m.Value.Start] == 't'
		if string(m.Name) == "include_usage" {
			q.showUsage = yes
		} else {
			q.showRunning = yes
		}
	case "include_obfuscation":
		// OpenAI's padding of events; no engine here has it, and asking for none changes nothing.
	default:
		return q.refuse(refusal.UnknownParameter, "stream_options."+clip(m.Name), "Unknown parameter: stream_options.%s.", clip(m.Name))
	}
	return nil
}

// clip shortens a name for a message.
func clip(name []byte) string {
	if len(name) > 64 {
		return string(name[:64]) + "…"
	}
	return strings.ToValidUTF8(string(name), "?")
}

// top takes in one member of the body's own object.
func (q *request) top(m *jsonscan.Member) error {
	if len(q.members) >= maxMembers {
		return q.refuse(refusal.Malformed, "", "The request has more than %d members.", maxMembers)
	}
	name := q.body[m.Key.Start+1 : m.Key.End-1]
	if len(name) != len(m.Name) { // it has escapes
		name = []byte(string(m.Name))
	}
	q.members = append(q.members, member{name: name, value: m.Value, kind: m.Kind, items: m.Elements})
	if m.Kind == jsonscan.Null {
		return nil
	}
	if read := readers[string(name)]; read != nil {
		return read(q, m)
	}
	return nil
}

// check looks at the request as a whole.
func (q *request) check() *refusal.Refusal {
	if q.model == "" {
		return refusal.At(refusal.Malformed, "model", "You must provide a model parameter.")
	}
	if q.find(q.endpoint.content) == nil {
		return refusal.At(refusal.Malformed, q.endpoint.content, "Missing required parameter: "+q.endpoint.content+".")
	}
	if q.find("stream_options") != nil && !q.stream {
		return refusal.At(refusal.Malformed, "stream_options", "stream_options is only allowed when stream is true.")
	}
	return nil
}

// find returns a top-level member that is there and not null.
func (q *request) find(name string) *member {
	for i := range q.members {
		if string(q.members[i].name) == name && q.members[i].kind != jsonscan.Null {
			return &q.members[i]
		}
	}
	return nil
}
