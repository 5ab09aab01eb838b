package meter

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"talea/internal/engine"
)

// FuzzPattern holds that a chunk that is not read again, since it is like the one before, is relayed and counted as if it
// had been: the second of two chunks is the first with some bytes replaced, and the third is the first again.
func FuzzPattern(f *testing.F) {
	const timed = `{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}}],"id":"c","timings":{"predicted_n":1,"prompt_n":4},"object":"chat.completion.chunk"}`
	const text, used = `"hé {\"usage\":1}"`, `{"prompt_tokens":3,"total_tokens":4,"completion_tokens":1}`
	for _, c := range [...][3]string{ // a chunk, and what is replaced in it by what
		{hiUsed, text, `"a longer \u00e4 text"`}, {hiUsed, text, `""`}, {hiUsed, text, "null"}, {hiUsed, text, "1234"}, {hiUsed, text, `{"a":1}`}, {hiUsed, text, `"never ends`},
		{hiUsed, used, `{"completion_tokens":7}`}, {hiUsed, used, "null"}, {hiUsed, used, `"none"`}, {hiUsed, used, `{}],"usage":{"completion_tokens":9},"x":[{}`}, {hiUsed, "}}", "}"},
		{hi, "{", " {"}, {hi, text, `"\\"`}, {hi, "17", "18"}, {hi, "}]}", `}],"usage":` + used + "}"}, {hi, "}]}", `}],"error":1}`}, {role, `""`, `"x"`}, {stop, "{}", `{"content":"x"}`},
		{timed, `"a"`, `"bcd"`}, {timed, `"predicted_n":1`, `"predicted_n":23`}, {timed, `{"predicted_n":1,"prompt_n":4}`, "4"},
		{`{"choices":[{"text":"a","index":1}],"usage":{"completion_tokens":1}}`, `"a"`, `"bb"`},
		{`{"usage":{"completion_tokens":1},"choices":[{"delta":{"reasoning":"a","content":"b"},"index":2}]}`, ":1}", ":12}"},
		{`{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}`, `"a"`, `"cc"`},
		{`{"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"b"}}],"usage":{"completion_tokens":1}}`, `"b"`, `"cc"`},
		{`{"error":null,"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}`, `"a"`, `"cc"`},
	} {
		at := strings.Index(c[0], c[1])
		f.Add([]byte(c[0]), uint16(at), uint16(at+len(c[1])), []byte(c[2]), uint8(0))
	}
	f.Fuzz(func(t *testing.T, first []byte, from, to uint16, instead []byte, options uint8) {
		a := min(int(from), len(first))
		b := max(a, min(int(to), len(first)))
		second := append(append(bytes.Clone(first[:a]), instead...), first[b:]...)
		o := Options{ShowUsage: options&1 != 0, ShowRunning: options&2 != 0, Choices: int(options >> 2 & 3), OutputBound: int64(options >> 4)}
		for _, d := range engine.Dialects {
			kept, fresh := newStream(d, o), newStream(d, o)
			whole, anew := NewGather(d, o, 1<<20), NewGather(d, o, 1<<20)
			for i, data := range [][]byte{first, second, first, second, second} {
				in := append(append([]byte("data: "), data...), "\n\n"...)
				fresh.like.n, anew.s.like.n = 0, 0
				out, ev, err := kept.Feed(in)
				want, wantEv, wantErr := fresh.Feed(in)
				state := func(s *Stream) string {
					return fmt.Sprintf("%+v %d %q %q", s.tally, s.malformed, s.head, s.failure)
				}
				if !bytes.Equal(out, want) || ev != wantEv || err != wantErr || state(kept) != state(fresh) {
					t.Fatalf("%s, %d of %q and %q: relayed %q, %v, %v, %s\nas if read in full: %q, %v, %v, %s",
						d.Name, i, first, second, out, ev, err, state(kept), want, wantEv, wantErr, state(fresh))
				}
				ev, err = whole.Feed(in)
				wantEv, wantErr = anew.Feed(in)
				r := anew.Report()
				body, right := whole.Body(nil, &r.Counts, Cost{}), anew.Body(nil, &r.Counts, Cost{})
				if !bytes.Equal(body, right) || ev != wantEv || err != wantErr || state(&whole.s) != state(&anew.s) {
					t.Fatalf("%s, %d of %q and %q: gathered %s\nas if read in full: %s", d.Name, i, first, second, body, right)
				}
			}
		}
	})
}

// A stream's chunks are read in full only where they are new: else the pattern saves nothing, and nobody would notice.
func TestPatternIsUsed(t *testing.T) {
	s := newStream(vllmDialect, Options{})
	if _, _, err := s.Feed([]byte(event(hiUsed))); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		data string
		like bool
	}{
		{hiUsed, true},
		{string(bytes.Replace([]byte(hiUsed), []byte("hé"), []byte(`other "words"`[:6]), 1)), true},
		{string(bytes.Replace([]byte(hiUsed), []byte("_tokens\":4"), []byte("_tokens\":12345"), 1)), true},
		{string(bytes.Replace([]byte(hiUsed), []byte("17"), []byte("18"), 1)), false},
		{string(bytes.Replace([]byte(hiUsed), []byte(`"content":"hé {\"usage\":1}"`), []byte(`"content":""`), 1)), false},
		{hi, false}, {stop, false},
	} {
		var got chunk
		if _, like := s.like.match([]byte(c.data), &got, nil); like != c.like {
			t.Errorf("chunk %d: like the one before: %v", i, like)
		}
	}
	if bytes.Contains(s.like.rest, []byte("hé")) {
		t.Error("text is kept")
	}
}

// The same for what is gathered: the text of chunks that are alike is joined without reading them again.
func TestPatternIsUsedToGather(t *testing.T) {
	g := NewGather(vllmDialect, Options{}, 1<<20)
	for _, c := range []struct {
		data string
		like bool // the next one may be like it
	}{
		{role, false}, {hiUsed, true}, {hiUsed, true},
		{`{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]}}]}`, false},
		{`{"choices":[{"index":0,"delta":{"content":"a","tool_calls":[{"index":0}]}}]}`, false},
		{`{"choices":[{"index":0,"delta":{"reasoning":"a","content":"b"}}]}`, false},
		{`{"choices":[{"index":0,"delta":{"reasoning":"a","content":""}}]}`, true},
		{`{"choices":[{"index":0,"delta":{"content":"a","audio":"b"}}]}`, false},
	} {
		if _, err := g.Feed([]byte(event(c.data))); err != nil {
			t.Fatal(err)
		}
		if like := g.s.like.n > 0; like != c.like {
			t.Errorf("%s: the next one may be like it: %v", c.data, like)
		}
	}
}
