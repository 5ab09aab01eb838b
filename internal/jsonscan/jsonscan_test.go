package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const testDepth = 8

func ignore(*Member) error { return nil }

// TestStrictShows has the members that visit is shown, one line each: depth, top, name, kind, elements, value.
func TestStrictShows(t *testing.T) {
	body := ` {"model":"m", "messages" : [{"role":"user","content":"h\"i"},{}] ,"a\u0062":{"x":-1.5e3,"y":[]},"n":null,"t":true,"f":false}` + "\r\n\t"
	want := `
1 model model a string 0 "m"
3 messages role a string 0 "user"
3 messages content a string 0 "h\"i"
1 messages messages an array 2 [{"role":"user","content":"h\"i"},{}]
2 ab x a number 0 -1.5e3
2 ab y an array 0 []
1 ab ab an object 0 {"x":-1.5e3,"y":[]}
1 n n null 0 null
1 t t true or false 0 true
1 f f true or false 0 false
`
	got := "\n"
	err := Strict([]byte(body), testDepth, func(m *Member) error {
		got += fmt.Sprintln(m.Depth, string(m.Top), string(m.Name), m.Kind, m.Elements, body[m.Value.Start:m.Value.End])
		if m.Depth == 1 && m.Kind == Object && body[m.Key.Start:m.Key.End] != `"a\u0062"` {
			t.Errorf("the key is %s", body[m.Key.Start:m.Key.End])
		}
		return nil
	})
	if err != nil || got != want {
		t.Errorf("%v\ngot %s\nwant %s", err, got, want)
	}
}

// TestStrictRefuses has one text a line with the whole error.
func TestStrictRefuses(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{``, `unexpected end at byte 0`},
		{`  `, `unexpected end at byte 2`},
		{`[]`, `the text is not a JSON object: unexpected character at byte 0`},
		{"\ufeff{}", `the text is not a JSON object: unexpected character at byte 0`},
		{`{`, `unexpected end at byte 1`},
		{`{}x`, `text after the object at byte 2`},
		{`{}{}`, `text after the object at byte 2`},
		{`{"a":1,}`, `unexpected character at byte 7`},
		{`{,}`, `unexpected character at byte 1`},
		{`{"a"}`, `unexpected character at byte 4`},
		{`{"a":}`, `unexpected character at byte 5`},
		{`{"a":`, `unexpected end at byte 5`},
		{`{"a":1`, `unexpected end at byte 6`},
		{`{"a":1 "b":2}`, `unexpected character at byte 7`},
		{`{a:1}`, `unexpected character at byte 1`},
		{`{'a':1}`, `unexpected character at byte 1`},
		{`{"a":01}`, `unexpected character at byte 6`},
		{`{"a":+1}`, `unexpected character at byte 5`},
		{`{"a":.5}`, `unexpected character at byte 5`},
		{`{"a":5.}`, `unexpected character at byte 7`},
		{`{"a":1e}`, `unexpected character at byte 7`},
		{`{"a":-}`, `unexpected character at byte 6`},
		{`{"a":NaN}`, `unexpected character at byte 5`},
		{`{"a":nul}`, `unexpected character at byte 5`},
		{`{"a":True}`, `unexpected character at byte 5`},
		{`{"a":[1,]}`, `unexpected character at byte 8`},
		{`{"a":[1}`, `unexpected character at byte 7`},
		{`{"a":"b`, `unexpected end at byte 7`},
		{`{"a":"b\`, `invalid escape at byte 7`},
		{`{"a":"\x"}`, `invalid escape at byte 6`},
		{`{"a":"\u12g4"}`, `invalid escape at byte 6`},
		{`{"a":"\ud800"}`, `invalid escape at byte 6`},
		{`{"a":"\udc00"}`, `invalid escape at byte 6`},
		{`{"a":"\ud800\u0041"}`, `invalid escape at byte 6`},
		{"{\"a\":\"b\nc\"}", `control character in a string at byte 7`},
		{"{\"a\":\"0123456789\x1f0123456789\"}", `control character in a string at byte 16`},
		{"{\"a\":\"01234567\x8089\"}", `invalid UTF-8 at byte 14`},
		{"{\"a\":\"\xed\xa0\x80\"}", `invalid UTF-8 at byte 6`},
		{"{\"a\":\"\xc0\xaf\"}", `invalid UTF-8 at byte 6`},
		{`{"model":"a","x":1,"model":"b"}`, `duplicate member "model" at byte 19`},
		{`{"model":"a","mod\u0065l":"b"}`, `duplicate member "model" at byte 13`},
		{`{"a":{"b":[{"c":1,"c":2}]}}`, `duplicate member "c" at byte 18`},
		{`{"` + strings.Repeat("x", 70) + `":1,"` + strings.Repeat("x", 70) + `":2}`, `duplicate member "` + strings.Repeat("x", 64) + `" at byte 76`},
		{`{"a":[[[[[[[[1]]]]]]]]}`, `more than 8 levels of nesting at byte 12`},
		{strings.Repeat(`{"a":`, 9), `more than 8 levels of nesting at byte 40`},
	} {
		err := Strict([]byte(c.body), testDepth, ignore)
		var e *Error
		if fmt.Sprint(err) != c.want || !errors.As(err, &e) {
			t.Errorf("%s\n got %v\nwant %s", c.body, err, c.want)
		}
	}
	for _, body := range []string{`{}`, `{"a":{"a":1},"b":{"a":1},"":0}`, `{"a":[[[[[[[1]]]]]]]}`, `{"a":"\ud83d\ude00 \u0000 ü 日本"}`, `{"a":-0.0e-0}`} {
		if err := Strict([]byte(body), testDepth, ignore); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestVisitStops(t *testing.T) {
	stop := errors.New("stop")
	shown := 0
	err := Strict([]byte(`{"a":1,"b":2,"c":3}`), testDepth, func(m *Member) error {
		if shown++; string(m.Name) == "b" {
			return stop
		}
		return nil
	})
	if err != stop || shown != 2 {
		t.Error(err, shown)
	}
}

// manyMembers is an object of n members, of which those at dup, if any, have the first one's name.
func manyMembers(n int, dup ...int) []byte {
	b := []byte{'{'}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		k := i
		if slices.Contains(dup, i) {
			k = 0
		}
		b = fmt.Appendf(b, `"k%d":%d`, k, i)
	}
	return append(b, '}')
}

func TestManyMembers(t *testing.T) {
	for _, n := range []int{2, 31, 32, 33, 34, 1000} {
		if err := Strict(manyMembers(n), testDepth, ignore); err != nil {
			t.Errorf("%d members: %v", n, err)
		}
		for _, dup := range []int{1, n / 2, n - 1} {
			body := manyMembers(n, dup, n-1)
			want := len(manyMembers(dup)) // the comma takes the place of the brace
			var e *Error
			if err := Strict(body, testDepth, ignore); !errors.As(err, &e) || e.Name != "k0" || e.Offset != want {
				t.Errorf("%d members, duplicate %d: %v, want byte %d", n, dup, err, want)
			}
		}
	}
	// A small object inside a large one, names with escapes in both.
	inner := `{"a\u0062":{"x":1,"\u0078y":2},` + string(manyMembers(40)[1:])
	if err := Strict([]byte(`{"o":`+inner+`,"p":`+inner+`}`), testDepth, ignore); err != nil {
		t.Error(err)
	}
	if err := Strict([]byte(strings.Replace(inner, `"k39"`, `"\u0061b"`, 1)), testDepth, ignore); err == nil {
		t.Error("a duplicate with escapes among many is accepted")
	}
}

// TestMonsters are the bodies that are cheap to send: each must be refused or read in time that grows as its length.
// The test has no clock: a quadratic scanner runs into the test's own limit.
func TestMonsters(t *testing.T) {
	deep := []byte(`{"a":` + strings.Repeat("[", 100_000))
	if err := Strict(deep, 64, ignore); err == nil {
		t.Error("deep nesting is accepted")
	}
	if err := Each(deep, func([]byte, Kind, Span) bool { return true }); err == nil {
		t.Error("a truncated object is accepted")
	}
	messages := `{"messages":[` + strings.Repeat(`{"role":"user"},`, 1_000_000) + `{}]}`
	elements := 0
	err := Strict([]byte(messages), 64, func(m *Member) error { elements = max(elements, m.Elements); return nil })
	if err != nil || elements != 1_000_001 {
		t.Error(err, elements)
	}
	if err := Strict(manyMembers(300_000), 64, ignore); err != nil {
		t.Error(err)
	}
	if err := Strict(manyMembers(300_000, 299_999), 64, ignore); err == nil {
		t.Error("a duplicate among 300,000 is accepted")
	}
}

func TestScannerKeepsNothing(t *testing.T) {
	var s Scanner
	for _, body := range []string{`{"a":1,"a":2}`, `{"a":1}`, `{"b":[{"\u0061":1}`, `{"a":1,"\u0062":2}`, string(manyMembers(5000))} {
		fresh, again := Strict([]byte(body), testDepth, ignore), s.Strict([]byte(body), testDepth, ignore)
		if fmt.Sprint(fresh) != fmt.Sprint(again) {
			t.Errorf("%.40s: new %v, used %v", body, fresh, again)
		}
	}
	_ = s.Strict([]byte(`{"a":`), testDepth, ignore)
	if s.b != nil || s.top != nil || s.member.Name != nil || len(s.names) > 0 || cap(s.names) > maxKept {
		t.Error("a body is kept")
	}
}

func TestNoAllocations(t *testing.T) {
	var s Scanner
	body := []byte(chatBody)
	n := 0
	strict := func() {
		_ = s.Strict(body, 64, func(m *Member) error { n += m.Depth; return nil })
	}
	strict()
	if got := testing.AllocsPerRun(100, strict); got != 0 {
		t.Errorf("Strict allocates %v times", got)
	}
	if got := testing.AllocsPerRun(100, func() {
		_ = Each(body, func(_ []byte, _ Kind, v Span) bool { n += v.End; return true })
	}); got != 0 {
		t.Errorf("Each allocates %v times", got)
	}
	if got := testing.AllocsPerRun(100, func() { v, _ := Int([]byte("1234567")); n += int(v) }); got != 0 {
		t.Errorf("Int allocates %v times", got)
	}
}

func each(b string) string {
	var out []string
	err := Each([]byte(b), func(name []byte, kind Kind, v Span) bool {
		out = append(out, fmt.Sprintf("%s=%s", name, b[v.Start:v.End]))
		return string(name) != "stop"
	})
	if err != nil {
		out = append(out, err.Error())
	}
	return strings.Join(out, "; ")
}

func TestEach(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{` { } trailing`, ``},
		{`{"a":1,"b":[1,{"c":"]}"}] , "a" : null}`, `a=1; b=[1,{"c":"]}"}]; a=null`},
		{`{"a":"x\"y\\","\u0062":{"c":{}}}`, `a="x\"y\\"; b={"c":{}}`},
		{`{"a":1,"stop":2,"b":`, `a=1; stop=2`},
		{"{\"a\":\"\xff\n\"}", "a=\"\xff\n\""},
		{`{"\ud800":1}`, "\ufffd=1"},
		{`{"\x":1}`, `invalid member name at byte 1`},
		{``, `unexpected end at byte 0`},
		{`[]`, `unexpected character at byte 0`},
		{`{"a":1`, `a=1; unexpected end at byte 6`},
		{`{"a":1,`, `a=1; unexpected end at byte 7`},
		{`{"a":[1`, `unexpected end at byte 7`},
		{`{"a":"b\`, `unexpected end at byte 8`},
		{`{"a":"b\"`, `unexpected end at byte 9`},
		{`{"a":nan}`, `unexpected character at byte 5`},
		{`{"a":1 2}`, `a=1; unexpected character at byte 7`},
		{`{"a`, `unexpected end at byte 3`},
		{`{"a"`, `unexpected end at byte 4`},
	} {
		if got := each(c.text); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestElements(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`[]`, ``}, {` [ 1, "a]" ,{"b":[]}, null]x`, `1; "a]"; {"b":[]}; null`}, {`[1,2,3`, `1; 2; 3; unexpected end at byte 6`},
		{`[1,]`, `1; unexpected character at byte 3`}, {`{}`, `unexpected character at byte 0`}, {`[`, `unexpected end at byte 1`}, {`[0,"stop",1`, `0; "stop"`},
	} {
		var out []string
		err := Elements([]byte(c.text), func(_ Kind, v Span) bool {
			out = append(out, c.text[v.Start:v.End])
			return c.text[v.Start:v.End] != `"stop"`
		})
		if err != nil {
			out = append(out, err.Error())
		}
		if got := strings.Join(out, "; "); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestInt(t *testing.T) {
	for _, n := range []int64{0, 1, -1, 42, math.MaxInt64, math.MinInt64} {
		if got, ok := Int(strconv.AppendInt(nil, n, 10)); !ok || got != n {
			t.Errorf("%d is read as %d %v", n, got, ok)
		}
	}
	for _, s := range []string{"", "-", "01", "+1", "1.0", "1e3", " 1", "1 ", "9223372036854775808", "-9223372036854775809", "null", `"1"`, "1_0"} {
		if got, ok := Int([]byte(s)); ok {
			t.Errorf("%q is read as %d", s, got)
		}
	}
}

func TestUnquoteRefuses(t *testing.T) {
	for _, s := range []string{``, `"`, `a`, `"a`, `a"`, `"a"b"`, `"a\"`, `"\x"`, `"\u12"`, "\"\n\""} {
		if got, ok := Unquote([]byte("kept"), []byte(s)); ok || string(got) != "kept" {
			t.Errorf("%q is %q %v", s, got, ok)
		}
	}
}

// FuzzStrict: Strict accepts exactly the objects that jsontext accepts within the depth, shows the members that
// encoding/json reads, and Each shows the same members of the outermost object.
func FuzzStrict(f *testing.F) {
	for _, seed := range []string{
		chatBody, `{"a":{"a":1,"a":2}}`, `{"a":[1,2.5e-3,{"b":"\ud83d\ude00\ud800"}]}`, "{\"\xff\":1}", `{"a\u0062":1,"ab":2}`, `{} {}`, string(manyMembers(40, 39)), `{"a":[[[[[[[[[]]]]]]]]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []string
		before := bytes.Clone(b)
		err := Strict(b, testDepth, func(m *Member) error {
			got = append(got, fmt.Sprintf("%d %q %q %s", m.Depth, m.Top, m.Name, b[m.Value.Start:m.Value.End]))
			if name, ok := Unquote(nil, b[m.Key.Start:m.Key.End]); !ok || !bytes.Equal(name, m.Name) {
				t.Errorf("key %s, name %q", b[m.Key.Start:m.Key.End], m.Name)
			}
			return nil
		})
		if !bytes.Equal(b, before) {
			t.Fatal("the body was changed")
		}
		trimmed := bytes.TrimLeft(b, " \t\r\n")
		want := jsontext.Value(b).IsValid() && trimmed[0] == '{' && nesting(b) <= testDepth
		if (err == nil) != want {
			t.Fatalf("%q: %v, jsontext accepts: %v", b, err, want)
		}
		if err != nil {
			return
		}
		if want := membersOf(t, b, 1, ""); !slices.Equal(got, want) {
			t.Errorf("%q\n got %q\nwant %q", b, got, want)
		}
		var shallow []string
		err = Each(b, func(name []byte, _ Kind, v Span) bool {
			shallow = append(shallow, fmt.Sprintf("1 %q %q %s", name, name, b[v.Start:v.End]))
			return true
		})
		if want := slices.DeleteFunc(got, func(s string) bool { return s[0] != '1' }); err != nil || !slices.Equal(shallow, want) {
			t.Errorf("%q: each %v\n got %q\nwant %q", b, err, shallow, want)
		}
	})
}

// nesting is the depth of valid JSON.
func nesting(b []byte) (deepest int) {
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := dec.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, dec.StackDepth())
	}
}

// membersOf lists the members of valid JSON as encoding/json reads them, in the order and form of the fuzz test.
func membersOf(t *testing.T, b []byte, depth int, top string) (out []string) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	open, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	if _, container := open.(json.Delim); !container {
		return nil
	}
	for dec.More() {
		name := ""
		if open == json.Delim('{') {
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			name = key.(string)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		if depth == 1 {
			top = name
		}
		out = append(out, membersOf(t, value, depth+1, top)...)
		if open == json.Delim('{') {
			out = append(out, fmt.Sprintf("%d %q %q %s", depth, top, name, value))
		}
	}
	return out
}

// FuzzEach: on any bytes the walkers end, do not panic and show places within the bytes.
func FuzzEach(f *testing.F) {
	for _, seed := range []string{`{"choices":[{"delta":{"content":"a"}}],"usage":null}`, `[1,{"a":[}]`, `{"a":"\`, `{"\u`, `{"a":{"b":"`, `[[[[`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		place := func(v Span) bool {
			if v.Start < last || v.End <= v.Start || v.End > len(b) {
				t.Fatalf("%q: place %v after %d", b, v, last)
			}
			last = v.End
			if c := b[v.Start]; c == '{' || c == '[' {
				inner := b[v.Start:v.End]
				_ = Each(inner, func([]byte, Kind, Span) bool { return true })
				_ = Elements(inner, func(Kind, Span) bool { return true })
			}
			return true
		}
		err := Each(b, func(_ []byte, _ Kind, v Span) bool { return place(v) })
		if json.Valid(b) && len(bytes.TrimLeft(b, " \t\r\n")) > 0 && bytes.TrimLeft(b, " \t\r\n")[0] == '{' && err != nil {
			t.Errorf("%q: %v", b, err)
		}
		last = 0
		if err := Elements(b, func(_ Kind, v Span) bool { return place(v) }); err == nil && bytes.TrimLeft(b, " \t\r\n")[0] != '[' {
			t.Errorf("%q has elements", b)
		}
	})
}

// FuzzQuote: what AppendQuote writes, encoding/json and Unquote read back; what Strict passes, Unquote reads as
// encoding/json does.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{`a"b\c`, "\x00\n\x1f\x7f", "ü日😀\u2028", "\xff", `\u00e4\ud83d\ude00\ud800`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted := AppendQuote(nil, s)
		var want string
		if err := json.Unmarshal(quoted, &want); err != nil || want != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q is quoted as %s: %v", s, quoted, err)
		}
		if got, ok := Unquote(nil, quoted); !ok || string(got) != want {
			t.Errorf("%s is unquoted as %q, want %q", quoted, got, want)
		}
		raw := `"` + s + `"`
		if utf8.ValidString(s) && json.Valid([]byte(raw)) {
			if err := json.Unmarshal([]byte(raw), &want); err != nil {
				t.Fatal(err)
			}
			if got, ok := Unquote(nil, []byte(raw)); !ok || string(got) != want {
				t.Errorf("%s is unquoted as %q, want %q", raw, got, want)
			}
		}
	})
}

const chatBody = `{"model":"llama-3.1-8b","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"What is the capital of France, and why?"}],"max_tokens":256,"temperature":0.7,"stream":true}`

func BenchmarkStrict(b *testing.B) {
	long := func(unit string) []byte {
		return []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat(unit, 10<<20/len(unit)) + `"}]}`)
	}
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"chat", []byte(chatBody)},
		{"ascii-10MiB", long("The quick brown fox jumps over the lazy dog. ")},
		{"arabic-10MiB", long("نص عربي طويل ")},
		{"german-10MiB", long("Das Bundesverfassungsgericht prüft die Verhältnismäßigkeit. ")},
		{"newlines-10MiB", long(`A line of an ordinary prompt of sixty characters, or so.\n`)},
		{"messages-1e6", []byte(`{"messages":[` + strings.Repeat(`{"role":"user"},`, 1_000_000) + `{}]}`)},
		{"members-1e6", manyMembers(1_000_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			var s Scanner
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Strict(c.body, 64, ignore); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("chat-new-scanner", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = Strict([]byte(chatBody), 64, ignore)
		}
	})
}

func BenchmarkEach(b *testing.B) {
	chunk := []byte(`{"id":"chatcmpl-8c1a","object":"chat.completion.chunk","created":1764000000,"model":"llama-3.1-8b","choices":[{"index":0,"delta":{"content":" Paris"},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":32,"total_tokens":52,"completion_tokens":20}}`)
	n := 0
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Each(chunk, func(_ []byte, _ Kind, v Span) bool { n += v.End; return true }); err != nil {
			b.Fatal(err)
		}
	}
}
