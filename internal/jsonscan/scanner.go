// Package jsonscan reads JSON in one pass, without floats, reflection or copies: request bodies strictly, engines'
// answers tolerantly. It does not know which members a request may have (engine and gateway do) and builds no values.
//
// # Invariants
//
//   - What Strict accepts is one RFC 8259 object in valid UTF-8 in which no object has two members of one name, and every
//     other reader of JSON reads the same members in it.
//   - Time and space grow as the length of the text, whatever the text.
//   - Nothing panics on any bytes, and no walk fails to end.
//   - An error shows member names at most, never a value.
//
// Start reading at Scanner.Strict, then Each.
package jsonscan

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/bits"
)

// Kind is the form of a JSON value.
type Kind byte

// The forms of a JSON value.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

var kindNames = [...]string{"null", "true or false", "a number", "a string", "an array", "an object"}

// String says the kind in words for messages: "a number".
func (k Kind) String() string { return kindNames[k] }

// Span is a part of the scanned bytes: b[Start:End].
type Span struct{ Start, End int }

// Member is one member of an object, as Strict shows it. Its slices are good until visit returns.
type Member struct {
	// Depth counts the objects and arrays around the member: 1 in the body's own object, 3 in an object in an array in it.
	Depth int
	// Top is the name of the member of the body's own object that this one lies under, or is.
	Top []byte
	// Name is unescaped.
	Name []byte
	// Key has its quotes.
	Key, Value Span
	Kind       Kind
	// Elements is the number of elements where the value is an array.
	Elements int
}

// Error is a fault of the scanned bytes.
type Error struct {
	Offset int // in bytes from the beginning
	Msg    string
	Name   string // the member at fault, "" where no member is
}

// Error returns the fault with its place: `duplicate member "model" at byte 17`.
func (e *Error) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("%s at byte %d", e.Msg, e.Offset)
	}
	return fmt.Sprintf("%s %q at byte %d", e.Msg, e.Name, e.Offset)
}

func fault(at int, msg string) error { return &Error{Offset: at, Msg: msg} }

// The reader's commonest complaints.
const (
	truncated  = "unexpected end"
	unexpected = "unexpected character"
)

// Scanner does Strict again and again without allocating. The zero Scanner is ready; it is for one goroutine at a time.
type Scanner struct {
	b        []byte
	maxDepth int
	top      []byte
	names    []name // of the open objects, innermost last
	text     []byte // the names that had escapes, unescaped
	member   Member // what visit is shown: a field, so that it is not allocated each time
}

// name is one member name of an open object: b[start:end], or the same of b followed by Scanner.text. It is small
// because a body of 10 MiB may have a million.
type name struct {
	start, end uint32
	key        uint32 // where its opening quote stands
}

// maxBody is the longest body, in bytes: places in it, and in as much unescaped text, fit a name.
const maxBody = 1 << 30

// Strict is Scanner.Strict with a new Scanner.
func Strict(b []byte, maxDepth int, visit func(*Member) error) error {
	var s Scanner
	return s.Strict(b, maxDepth, visit)
}

// Strict checks that b is exactly one JSON object with nothing but white space around it: RFC 8259, valid UTF-8 without
// lone surrogates, no duplicate name (after unescaping) in any object, nesting of at most maxDepth, the object itself
// counting 1. It shows every member of every object to visit, each after its value, and stops at an error of visit.
// Errors of its own are *Error.
func (s *Scanner) Strict(b []byte, maxDepth int, visit func(*Member) error) error {
	s.b, s.maxDepth = b, maxDepth
	defer s.forget()
	if len(b) > maxBody {
		return fault(maxBody, "the text is too long")
	}
	i := skipSpace(b, 0)
	if i == len(b) {
		return fault(i, truncated)
	}
	if b[i] != '{' {
		return fault(i, "the text is not a JSON object: "+unexpected)
	}
	i, err := s.object(i, 1, visit)
	if err != nil {
		return err
	}
	if i = skipSpace(b, i); i < len(b) {
		return fault(i, "text after the object")
	}
	return nil
}

// maxKept bounds what a Scanner keeps for the next body.
const maxKept = 1024

// forget lets go of the body and of the space that only a monstrous one needs.
func (s *Scanner) forget() {
	s.b, s.top, s.member = nil, nil, Member{}
	s.names, s.text = s.names[:0], s.text[:0]
	if cap(s.names) > maxKept {
		s.names = nil
	}
	if cap(s.text) > maxKept {
		s.text = nil
	}
}

// object reads the object that begins at i and returns where it ends. depth is its own.
func (s *Scanner) object(i, depth int, visit func(*Member) error) (int, error) {
	if depth > s.maxDepth {
		return i, s.tooDeep(i)
	}
	b, firstName, firstText := s.b, len(s.names), len(s.text)
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		end, err := s.oneMember(i, depth, firstName, visit)
		if err != nil {
			return end, err
		}
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == '}':
			err := s.uniqueNames(firstName)
			s.names, s.text = s.names[:firstName], s.text[:firstText]
			return i + 1, err
		default:
			return i, wrong(b, i)
		}
	}
}

// oneMember reads the member whose name begins at key, of the object whose names begin at firstName.
func (s *Scanner) oneMember(key, depth, firstName int, visit func(*Member) error) (int, error) {
	b := s.b
	keyEnd, err := s.name(key, firstName)
	if err != nil {
		return keyEnd, err
	}
	this := len(s.names) - 1
	if depth == 1 {
		s.top = s.nameText(s.names[this])
	}
	i := skipSpace(b, keyEnd)
	if i == len(b) || b[i] != ':' {
		return i, wrong(b, i)
	}
	value := skipSpace(b, i+1)
	end, kind, elements, err := s.value(value, depth, visit)
	if err != nil {
		return end, err
	}
	s.member = Member{depth, s.top, s.nameText(s.names[this]), Span{key, keyEnd}, Span{value, end}, kind, elements}
	return end, visit(&s.member)
}

// array reads the array that begins at i and returns where it ends and how many elements it has. depth is its own.
func (s *Scanner) array(i, depth int, visit func(*Member) error) (end, elements int, err error) {
	if depth > s.maxDepth {
		return i, 0, s.tooDeep(i)
	}
	b := s.b
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, 0, nil
	}
	for {
		end, _, _, err := s.value(i, depth, visit)
		if err != nil {
			return end, 0, err
		}
		elements++
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == ']':
			return i + 1, elements, nil
		default:
			return i, 0, wrong(b, i)
		}
	}
}

// value reads the value that begins at i in a container of the given depth.
func (s *Scanner) value(i, depth int, visit func(*Member) error) (end int, kind Kind, elements int, err error) {
	b := s.b
	if i == len(b) {
		return i, Null, 0, wrong(b, i)
	}
	switch b[i] {
	case '"':
		end, _, err = strictString(b, i)
		return end, String, 0, err
	case '{':
		end, err = s.object(i, depth+1, visit)
		return end, Object, 0, err
	case '[':
		end, elements, err = s.array(i, depth+1, visit)
		return end, Array, elements, err
	}
	if end, kind = literal(b, i); end > i {
		return end, kind, 0, nil
	}
	end, ok := number(b, i)
	if !ok {
		return end, Number, 0, wrong(b, end)
	}
	return end, Number, 0, nil
}

// fewMembers is the number of members up to which each name of an object is compared with all before it.
const fewMembers = 32

// name reads the name that begins at i, of the object whose names begin at first, and returns where it ends.
func (s *Scanner) name(i, first int) (int, error) {
	b := s.b
	if i == len(b) || b[i] != '"' {
		return i, wrong(b, i)
	}
	end, escaped, err := strictString(b, i)
	if err != nil {
		return end, err
	}
	n := name{start: uint32(i + 1), end: uint32(end - 1), key: uint32(i)}
	if escaped {
		n.start = uint32(len(b) + len(s.text))
		s.text, _ = Unquote(s.text, b[i:end])
		n.end = uint32(len(b) + len(s.text))
	}
	if others := s.names[first:]; len(others) < fewMembers {
		text := s.nameText(n)
		for _, o := range others {
			if n.end-n.start == o.end-o.start && bytes.Equal(text, s.nameText(o)) {
				return i, s.duplicate(n)
			}
		}
	}
	s.names = append(s.names, n)
	return end, nil
}

func (s *Scanner) nameText(n name) []byte {
	start, end := int(n.start), int(n.end)
	if start < len(s.b) {
		return s.b[start:end]
	}
	return s.text[start-len(s.b) : end-len(s.b)]
}

// uniqueNames finds the first duplicate among the names from first on, where they are too many for name to have compared
// them. The table's seed is random so that no sender can choose names that meet in it; it has no effect on the outcome.
func (s *Scanner) uniqueNames(first int) error {
	names := s.names[first:]
	if len(names) <= fewMembers {
		return nil
	}
	table := make([]uint32, 1<<bits.Len(uint(2*len(names)))) // by hash: 1 + the number of a name; 0 is free
	mask, seed := uint64(len(table)-1), maphash.MakeSeed()
	for i, n := range names {
		text := s.nameText(n)
		at := maphash.Bytes(seed, text) & mask
		for ; table[at] != 0; at = (at + 1) & mask {
			if bytes.Equal(text, s.nameText(names[table[at]-1])) {
				return s.duplicate(n)
			}
		}
		table[at] = uint32(i + 1)
	}
	return nil
}

// maxShown bounds the name in an error, in bytes.
const maxShown = 64

func (s *Scanner) duplicate(n name) error {
	text := s.nameText(n)
	return &Error{int(n.key), "duplicate member", string(text[:min(len(text), maxShown)])}
}

func (s *Scanner) tooDeep(i int) error {
	return fault(i, fmt.Sprintf("more than %d levels of nesting", s.maxDepth))
}

// wrong is the fault of a text that does not go on as it must at i.
func wrong(b []byte, i int) error {
	if i >= len(b) {
		return fault(i, truncated)
	}
	return fault(i, unexpected)
}
