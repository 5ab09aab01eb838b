package gateway

import (
	"bytes"
	"slices"

	"talea/internal/jsonscan"
	"talea/internal/refusal"
)

// partForms are the content parts that have a bound, by type, with the members that each may have. Everything else is
// refused: engines take images, audio and video from members of many names, with and without a type, and fetch URLs.
var partForms = map[string]struct {
	members []string
	holder  string // the member that holds media
	data    string // in it, the string that is the media
	audio   bool
}{
	"text":        {members: []string{"text", "cache_control"}},
	"refusal":     {members: []string{"refusal"}},
	"image_url":   {members: []string{"image_url", "cache_control"}, holder: "image_url", data: "url"},
	"input_audio": {members: []string{"input_audio"}, holder: "input_audio", data: "data", audio: true},
}

// message looks at a member of one message, messages[i].m.
func (q *request) message(m *jsonscan.Member) error {
	if string(m.Name) == "content" {
		switch m.Kind {
		case jsonscan.String, jsonscan.Null:
			return nil
		case jsonscan.Array:
			return q.parts(q.at(m.Value))
		}
		return q.refuse(refusal.Malformed, "messages", "The content of a message must be a string or an array of parts, not %s.", m.Kind)
	}
	if m.Kind == jsonscan.Array || m.Kind == jsonscan.Object {
		// Tool calls, and whatever else a chat template may parse and write anew.
		q.shape.RewrittenBytes += int64(m.Value.End - m.Value.Start)
	}
	return nil
}

// parts looks at an array of content parts.
func (q *request) parts(array []byte) error {
	var no error
	err := jsonscan.Elements(array, func(kind jsonscan.Kind, v jsonscan.Span) bool {
		switch kind {
		case jsonscan.String: // some clients send bare texts
		case jsonscan.Object:
			no = q.part(array[v.Start:v.End])
		default:
			no = q.refuse(refusal.Malformed, "messages", "A part of a message's content must be an object, not %s.", kind)
		}
		return no == nil
	})
	if no == nil {
		no = err
	}
	return no
}

// part looks at one content part: its type must be known, and it may have that type's members only.
func (q *request) part(object []byte) error {
	var kind string
	if err := jsonscan.Each(object, func(name []byte, k jsonscan.Kind, v jsonscan.Span) bool {
		if string(name) == "type" && k == jsonscan.String {
			text, _ := jsonscan.Unquote(nil, object[v.Start:v.End])
			kind = string(text)
		}
		return true
	}); err != nil {
		return err
	}
	form, ok := partForms[kind]
	if !ok {
		return q.refuse(refusal.NoBound, "messages", "Each part of a message's content must have a type with a bound: text, refusal, image_url or input_audio.")
	}
	var no error
	err := jsonscan.Each(object, func(name []byte, k jsonscan.Kind, v jsonscan.Span) bool {
		switch {
		case string(name) == "type":
		case form.holder != "" && string(name) == form.holder:
			no = q.media(object[v.Start:v.End], k, form.data, form.audio)
		case !slices.Contains(form.members, string(name)):
			no = q.refuse(refusal.UnknownParameter, "messages", "A part of type %s has no member %s.", kind, clip(name))
		}
		return no == nil
	})
	if no == nil {
		no = err
	}
	return no
}

// media takes an image or audio out of the text, and counts it as one: it must be in the request, as a data: URL or as
// base64.
func (q *request) media(holder []byte, kind jsonscan.Kind, member string, audio bool) error {
	if kind != jsonscan.Object {
		return q.refuse(refusal.Malformed, "messages", "An image or audio part must hold an object with its %s.", member)
	}
	var data []byte
	if err := jsonscan.Each(holder, func(name []byte, k jsonscan.Kind, v jsonscan.Span) bool {
		if string(name) == member && k == jsonscan.String {
			data = holder[v.Start:v.End]
		}
		return true
	}); err != nil {
		return err
	}
	switch {
	case data == nil:
		return q.refuse(refusal.Malformed, "messages", "An image or audio part must have a string %s.", member)
	case audio && bytes.IndexByte(data, ':') >= 0, !audio && !bytes.HasPrefix(data, []byte(`"data:`)):
		return q.refuse(refusal.Malformed, "messages", "Remote content is not fetched here: send images as data: URLs, and audio as base64.")
	}
	q.shape.MediaBytes += int64(len(data))
	if audio {
		q.shape.Audios++
	} else {
		q.shape.Images++
	}
	return nil
}

// readPrompt reads `prompt` and `input`: a string, an array of strings, an array of token ids, or an array of such arrays.
// Engines read other forms as images or files.
func readPrompt(q *request, m *jsonscan.Member) error {
	name := string(m.Name)
	if m.Kind == jsonscan.String {
		return nil
	}
	if m.Kind != jsonscan.Array || m.Elements == 0 {
		return q.refuse(refusal.Malformed, name, "%s must be a string or an array that is not empty.", name)
	}
	value := q.at(m.Value)
	first, same := jsonscan.Null, true
	err := jsonscan.Elements(value, func(kind jsonscan.Kind, v jsonscan.Span) bool {
		if first == jsonscan.Null {
			first = kind
		}
		same = kind == first && (kind == jsonscan.String || kind == jsonscan.Number && isToken(value[v.Start:v.End]) || kind == jsonscan.Array && areTokens(value[v.Start:v.End]))
		return same
	})
	switch {
	case err != nil:
		return err
	case !same:
		return q.refuse(refusal.Malformed, name, "%s must be a string, or an array of strings, of token ids, or of arrays of token ids.", name)
	case first == jsonscan.Number:
		return nil // one prompt of token ids; each takes at least one byte of the body
	case m.Elements > maxPrompts:
		return q.refuse(refusal.Malformed, name, "%s must have at most %d elements.", name, maxPrompts)
	}
	q.shape.Prompts = int64(m.Elements)
	return nil
}

func isToken(number []byte) bool {
	n, ok := jsonscan.Int(number)
	return ok && n >= 0
}

func areTokens(array []byte) bool {
	all := true
	err := jsonscan.Elements(array, func(kind jsonscan.Kind, v jsonscan.Span) bool {
		all = kind == jsonscan.Number && isToken(array[v.Start:v.End])
		return all
	})
	return err == nil && all
}

// readRewritten reads members that chat templates write anew into the prompt.
func readRewritten(q *request, m *jsonscan.Member) error {
	if m.Kind == jsonscan.Array || m.Kind == jsonscan.Object {
		q.shape.RewrittenBytes += int64(m.Value.End - m.Value.Start)
	}
	return nil
}

// readTemplateArguments reads chat_template_kwargs. A template in it would be run by the engine (CVE-2025-61620), and what
// it stands for in the prompt has members of its own.
func readTemplateArguments(q *request, m *jsonscan.Member) error {
	if m.Kind != jsonscan.Object {
		return q.refuse(refusal.Malformed, string(m.Name), "%s must be an object.", m.Name)
	}
	var no error
	err := jsonscan.Each(q.at(m.Value), func(name []byte, _ jsonscan.Kind, _ jsonscan.Span) bool {
		switch string(name) {
		case "chat_template", "messages", "tools", "documents", "conversation", "tokenize":
			no = q.refuse(refusal.UnsupportedParameter, string(m.Name)+"."+string(name), "%s may not have the member %s.", m.Name, name)
		}
		return no == nil
	})
	if no == nil {
		no = err
	}
	if no != nil {
		return no
	}
	return readRewritten(q, m)
}
