package jsonscan

import "bytes"

// Each shows the members of the object b, in order, until visit returns false. It is for the answers of engines: quick,
// shallow and tolerant. Nested values are skipped by their brackets, duplicate names are shown twice, text behind the
// object is not looked at. name is unescaped and good until visit returns. The error, an *Error, says that b is not an
// object or ends too soon; the members before that have been shown.
func Each(b []byte, visit func(name []byte, kind Kind, value Span) bool) error {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '{' {
		return wrong(b, i)
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return nil
	}
	for {
		if i == len(b) || b[i] != '"' {
			return wrong(b, i)
		}
		end := skipString(b, i)
		if end < 0 {
			return wrong(b, len(b))
		}
		name, ok := b[i+1:end-1], true
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, ok = Unquote(nil, b[i:end]); !ok {
				return fault(i, "invalid member name")
			}
		}
		if i = skipSpace(b, end); i == len(b) || b[i] != ':' {
			return wrong(b, i)
		}
		value := skipSpace(b, i+1)
		kind, end, err := skipValue(b, value)
		if err != nil {
			return err
		}
		if !visit(name, kind, Span{value, end}) {
			return nil
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == '}':
			return nil
		default:
			return wrong(b, i)
		}
	}
}

// Elements shows the elements of the array b in the manner of Each.
func Elements(b []byte, visit func(kind Kind, value Span) bool) error {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '[' {
		return wrong(b, i)
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return nil
	}
	for {
		kind, end, err := skipValue(b, i)
		if err != nil {
			return err
		}
		if !visit(kind, Span{i, end}) {
			return nil
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == ']':
			return nil
		default:
			return wrong(b, i)
		}
	}
}

// Value returns the kind and end of the value that begins at i, in the manner of Each: an error says that there is none.
func Value(b []byte, i int) (kind Kind, end int, err error) { return skipValue(b, i) }

// skipValue returns the kind and end of the value that begins at i, without looking into it.
func skipValue(b []byte, i int) (kind Kind, end int, err error) {
	if i == len(b) {
		return Null, i, wrong(b, i)
	}
	switch b[i] {
	case '"':
		kind, end = String, skipString(b, i)
	case '{':
		kind, end = Object, skipNested(b, i)
	case '[':
		kind, end = Array, skipNested(b, i)
	default:
		if end, kind = literal(b, i); end > i {
			return kind, end, nil
		}
		end, ok := number(b, i)
		if !ok {
			return Number, end, wrong(b, end)
		}
		return Number, end, nil
	}
	if end < 0 {
		return kind, len(b), wrong(b, len(b))
	}
	return kind, end, nil
}

// skipString returns the end of the string that begins at i, -1 where b ends in it.
func skipString(b []byte, i int) int {
	for i++; i < len(b); {
		i, _ = plain(b, i)
		switch {
		case i == len(b):
			return -1
		case b[i] == '"':
			return i + 1
		case b[i] == '\\':
			i += 2
		default:
			i++ // a raw control character: some engines send them
		}
	}
	return -1
}

// skipNested returns the end of the object or array that begins at i, -1 where b ends in it.
func skipNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}
