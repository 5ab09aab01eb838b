package engine

import "talea/internal/jsonscan"

// AppendCount appends the body of a request to TokenizePath: for a member of a request, "messages" or "prompt", and its
// value. Where there is a TemplatePath, the value of "messages" is the text that it made.
func (d *Dialect) AppendCount(b []byte, model, member string, value []byte) []byte {
	if d.TemplatePath != "" {
		b = append(append(b, `{"content":`...), value...)
		return append(b, `,"add_special":true,"parse_special":true}`...)
	}
	b = jsonscan.AppendQuote(append(b, `{"model":`...), model)
	b = append(jsonscan.AppendQuote(append(b, ','), member), ':')
	return append(append(b, value...), '}')
}

// AppendTemplate appends the body of a request to TemplatePath.
func (d *Dialect) AppendTemplate(b, messages []byte) []byte {
	return append(append(append(b, `{"messages":`...), messages...), '}')
}

// ReadTemplate returns the text that TemplatePath made, as JSON; nil where there is none.
func ReadTemplate(body []byte) (text []byte) {
	err := jsonscan.Each(body, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if string(name) == "prompt" && kind == jsonscan.String {
			text = body[v.Start:v.End]
		}
		return true
	})
	if err != nil {
		return nil
	}
	return text
}

// ReadCount returns how many tokens TokenizePath found: its count, or the length of its list of tokens.
func ReadCount(body []byte) (n int64, ok bool) {
	err := jsonscan.Each(body, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := body[v.Start:v.End]
		switch string(name) {
		case "count":
			n, ok = jsonscan.Int(value)
			return false
		case "tokens":
			if kind == jsonscan.Array {
				n, ok = 0, true
				ok = jsonscan.Elements(value, func(jsonscan.Kind, jsonscan.Span) bool { n++; return true }) == nil
			}
		}
		return true
	})
	return n, ok && err == nil && n > 0
}
