package gateway

import (
	"strings"

	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/price"
	"talea/internal/refusal"
)

// readers read the members that steer a request whichever engine serves it. A null is no value. What bounds or multiplies
// the output is read by the rules of the engines' member tables instead (admit).
var readers = map[string]func(*request, *jsonscan.Member) error{
	"model":                readModel,
	"stream":               readStream,
	"messages":             readMessages,
	"prompt":               readPrompt,
	"input":                readPrompt,
	"tools":                readTools,
	"functions":            readRewritten,
	"documents":            readRewritten,
	"response_format":      readRewritten,
	"json_schema":          readRewritten,
	"chat_template_kwargs": readTemplateArguments,
	"user":                 readUser,
	"safety_identifier":    readUser,
	"service_tier":         readTier,
	"reasoning_effort":     readEffort,
}

func (q *request) text(m *jsonscan.Member, most int) (string, error) {
	if m.Kind != jsonscan.String {
		return "", q.refuse(refusal.Malformed, string(m.Name), "%s must be a string, not %s.", m.Name, m.Kind)
	}
	b, ok := jsonscan.Unquote(nil, q.at(m.Value))
	if !ok || len(b) > most {
		return "", q.refuse(refusal.Malformed, string(m.Name), "%s must be a string of at most %d bytes.", m.Name, most)
	}
	for _, c := range b {
		if c < 0x20 || c == 0x7f {
			return "", q.refuse(refusal.Malformed, string(m.Name), "%s must have no control characters.", m.Name)
		}
	}
	return string(b), nil
}

func readModel(q *request, m *jsonscan.Member) (err error) {
	q.model, err = q.text(m, maxName)
	return err
}

func readStream(q *request, m *jsonscan.Member) error {
	if m.Kind != jsonscan.Bool {
		return q.refuse(refusal.Malformed, "stream", "stream must be true or false, not %s.", m.Kind)
	}
	q.stream = q.body[m.Value.Start] == 't'
	if q.stream && q.endpoint.embedding {
		return q.refuse(refusal.UnsupportedParameter, "stream", "Embeddings cannot be streamed.")
	}
	return nil
}

func readMessages(q *request, m *jsonscan.Member) error {
	if m.Kind != jsonscan.Array || m.Elements == 0 || m.Elements > maxMessages {
		return q.refuse(refusal.Malformed, "messages", "messages must be an array of 1 to %d messages.", maxMessages)
	}
	q.shape.Messages = int64(m.Elements)
	return nil
}

func readTools(q *request, m *jsonscan.Member) error {
	if m.Kind != jsonscan.Array || m.Elements > maxTools {
		return q.refuse(refusal.Malformed, "tools", "tools must be an array of at most %d tools.", maxTools)
	}
	q.shape.Tools = int64(m.Elements)
	return readRewritten(q, m)
}

func readUser(q *request, m *jsonscan.Member) error {
	text, err := q.text(m, 1024)
	if string(m.Name) == "safety_identifier" || q.user == "" {
		q.user = text
	}
	return err
}

func readTier(q *request, m *jsonscan.Member) (err error) {
	q.tier, err = q.text(m, 32)
	return err
}

// served is the service tier that the request is served and charged at. Whether it is sold, the price book knows.
func (q *request) served() string {
	switch q.tier {
	case "", "auto", "default":
		return price.Standard
	}
	return q.tier
}

func readEffort(q *request, m *jsonscan.Member) (err error) {
	q.effort, err = q.text(m, 32)
	return err
}

// admit checks every member of the body against a dialect's table, and reads those that bound or multiply the output.
func (q *request) admit(d *engine.Dialect) *refusal.Refusal {
	q.choices, q.bestOf, q.maxOutput = 1, 1, 0
	for i := range q.members {
		m := &q.members[i]
		row := d.Member(q.endpoint.kind, m.name)
		switch row.Class {
		case engine.Unlisted:
			return q.unlisted(d, m)
		case engine.Forbidden:
			return refusal.At(refusal.UnsupportedParameter, clip(m.name), "The parameter "+clip(m.name)+" is not for callers: it steers the engine itself.")
		case engine.Bound:
			if m.kind == jsonscan.Null {
				continue
			}
			if q.rule(m, row) != nil {
				return q.refused
			}
		}
	}
	if q.bestOf > 1 && (q.bestOf < q.choices || q.stream) {
		return refusal.At(refusal.Malformed, "best_of", "best_of must not be smaller than n, and cannot be streamed.")
	}
	q.shape.Choices, q.shape.MaxOutput = max(q.choices, q.bestOf), q.maxOutput
	return nil
}

func (q *request) unlisted(d *engine.Dialect, m *member) *refusal.Refusal {
	if lower := strings.ToLower(string(m.name)); lower != string(m.name) && d.Member(q.endpoint.kind, []byte(lower)).Class != engine.Unlisted {
		return refusal.At(refusal.Malformed, clip(m.name), "The parameter "+clip(m.name)+" is spelt like "+lower+" in another case.")
	}
	return refusal.At(refusal.UnknownParameter, clip(m.name), "Unknown parameter: "+clip(m.name)+".")
}

// rule reads a member that bears on what a request can use. A fault is left in q.refused.
func (q *request) rule(m *member, row engine.Member) error {
	off := m.kind == jsonscan.Bool && q.body[m.value.Start] == 'f'
	switch row.Rule {
	case engine.OutputMax: // of several the smallest counts; 0 makes one token on some engines, and is held as such
		n, err := q.whole(m, 0, 1<<31-1)
		if n = max(n, engine.LeastOutput); q.maxOutput == 0 || n < q.maxOutput {
			q.maxOutput = n
		}
		return err
	case engine.OutputMin: // the output bound that is forwarded stands above it
		_, err := q.whole(m, 0, 1<<31-1)
		return err
	case engine.Choices:
		n, err := q.whole(m, 1, limitOr(row, maxChoices))
		q.choices = max(q.choices, n)
		return err
	case engine.BestOf:
		n, err := q.whole(m, 1, limitOr(row, maxChoices))
		q.bestOf = max(q.bestOf, n)
		return err
	case engine.Extends: // an answer that runs to its bound is held to its bound
		if m.kind != jsonscan.Bool {
			return q.refuse(refusal.Malformed, clip(m.name), "%s must be true or false.", m.name)
		}
	case engine.Off, engine.Echoes:
		if n, ok := jsonscan.Int(q.at(m.value)); !off && !(ok && n == 0) {
			return q.refuse(refusal.UnsupportedParameter, clip(m.name), "%s is not offered here: it multiplies the work and has no price.", m.name)
		}
	case engine.AtMost:
		if m.kind == jsonscan.Bool {
			return nil
		}
		_, err := q.whole(m, 0, row.Limit)
		return err
	case engine.Entries:
		return q.entries(m, row.Limit)
	}
	return nil
}

func limitOr(row engine.Member, most int64) int64 {
	if row.Limit > 0 {
		return row.Limit
	}
	return most
}

// whole reads a whole number in [least, most].
func (q *request) whole(m *member, least, most int64) (int64, error) {
	n, ok := jsonscan.Int(q.at(m.value))
	if m.kind != jsonscan.Number || !ok || n < least || n > most {
		return 0, q.refuse(refusal.Malformed, clip(m.name), "%s must be a whole number from %d to %d.", m.name, least, most)
	}
	return n, nil
}

// entries checks the size of an array or object.
func (q *request) entries(m *member, most int64) error {
	n := int64(m.items)
	switch m.kind {
	case jsonscan.Array:
	case jsonscan.Object:
		n = 0
		if err := jsonscan.Each(q.at(m.value), func([]byte, jsonscan.Kind, jsonscan.Span) bool { n++; return n <= most }); err != nil {
			return q.refuse(refusal.Malformed, clip(m.name), "%s cannot be read.", m.name)
		}
	default:
		return q.refuse(refusal.Malformed, clip(m.name), "%s must be an object or an array.", m.name)
	}
	if n > most {
		return q.refuse(refusal.Malformed, clip(m.name), "%s must have at most %d entries.", m.name, most)
	}
	return nil
}
