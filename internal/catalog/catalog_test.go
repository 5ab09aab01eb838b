package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"talea/internal/usage"
)

func complete(t testing.TB, m Model) *Model {
	t.Helper()
	full, err := m.Complete()
	if err != nil {
		t.Fatal(err)
	}
	return full
}

var base = Model{Name: "m", Engines: []string{"e"}, ContextTokens: 131072, MaxOutputTokens: 4096, DefaultMaxOutputTokens: 1000}

func with(change func(*Model)) Model {
	m := base
	change(&m)
	return m
}

func TestComplete(t *testing.T) {
	got := complete(t, Model{Name: "m", Engines: []string{"e"}, ContextTokens: 8192, Parameters: 8.03e9})
	want := Model{
		Name: "m", ServedAs: "m", Engines: []string{"e"}, Parameters: 8.03e9, SizeClass: "small", ContextTokens: 8192, MaxOutputTokens: 8192,
		DefaultMaxOutputTokens: 8192, InputFactorPPM: 1e6, MessageTokens: 16, TemplateTokens: 128,
	}
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	said := with(func(m *Model) { m.ServedAs, m.SizeClass, m.MessageTokens, m.TemplateTokens = "x", "own", 1, 2 })
	if got := complete(t, said); got.ServedAs != "x" || got.SizeClass != "own" || got.MessageTokens != 1 || got.TemplateTokens != 2 || got.DefaultMaxOutputTokens != 1000 {
		t.Errorf("what was said was changed: %+v", got)
	}
	if got := complete(t, with(func(m *Model) { m.DefaultMaxOutputTokens = 0 })); got.DefaultMaxOutputTokens != 4096 {
		t.Errorf("the default is %d, want the maximum", got.DefaultMaxOutputTokens)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		change func(*Model)
		want   string
	}{
		{func(m *Model) { m.Engines = nil }, "no engine serves it"},
		{func(m *Model) { m.Engines = []string{"a", "b", "a"} }, `engine "a" is listed twice`},
		{func(m *Model) { m.ContextTokens = 0 }, "context_tokens must be from 1 to 1000000000: without it there is no bound"},
		{func(m *Model) { m.ContextTokens = 1e9 + 1 }, "context_tokens must be from 1 to 1000000000: without it there is no bound"},
		{func(m *Model) { m.Parameters = -1 }, "parameters is out of range"},
		{func(m *Model) { m.Parameters = 1e15 + 1 }, "parameters is out of range"},
		{func(m *Model) { m.ActiveParameters = 5 }, "active_parameters is above parameters"},
		{func(m *Model) { m.InputFactorPPM = 100e6 + 1 }, "tokens_per_byte is out of range"},
		{func(m *Model) { m.MessageTokens = -1 }, "message_tokens is out of range"},
		{func(m *Model) { m.TemplateTokens = 1e9 + 1 }, "template_tokens is out of range"},
		{func(m *Model) { m.ImageTokens = -1 }, "image_tokens is out of range"},
		{func(m *Model) { m.AudioTokens = -1 }, "audio_tokens is out of range"},
		{func(m *Model) { m.MaxOutputTokens = 131073 }, "max_output_tokens is above context_tokens"},
		{func(m *Model) { m.MaxOutputTokens = -1 }, "max_output_tokens is out of range"},
		{func(m *Model) { m.DefaultMaxOutputTokens = 4097 }, "default_max_output_tokens is above max_output_tokens"},
		{func(m *Model) { m.MaxOutputTokens, m.DefaultMaxOutputTokens = 0, 131073 }, "default_max_output_tokens is above max_output_tokens"},
		{func(m *Model) { m.Engines, m.ImageTokens = nil, -1 }, "no engine serves it\nimage_tokens is out of range"},
	} {
		_, err := with(c.change).Complete()
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestSizeClassOf(t *testing.T) {
	for parameters, want := range map[int64]string{
		-1: "", 0: "", 1: "tiny", 4e9 - 1: "tiny", 4e9: "small", 8.03e9: "small", 15e9: "medium", 32e9: "medium", 45e9: "large", 70.6e9: "large",
		130e9 - 1: "large", 130e9: "huge", 405e9: "huge", 671e9: "huge",
	} {
		if got := sizeClassOf(parameters); got != want {
			t.Errorf("sizeClassOf(%d) = %q, want %q", parameters, got, want)
		}
	}
	if got := strings.Join(SizeClasses(), " "); got != "tiny small medium large huge" {
		t.Errorf("size classes are %s", got)
	}
}

// TestBounds has one shape a line, worked out by hand. A message, prompt or tool takes 16, a conversation 128.
func TestBounds(t *testing.T) {
	plain := complete(t, base)
	media := complete(t, with(func(m *Model) { m.ImageTokens, m.AudioTokens = 1000, 3000 }))
	dense := complete(t, with(func(m *Model) { m.InputFactorPPM = 1_500_001 }))
	shift := complete(t, with(func(m *Model) { m.ContextShift = true }))
	for _, c := range []struct {
		what  string
		model *Model
		shape Shape
		want  usage.Bounds
	}{
		{"one message", plain, Shape{BodyBytes: 100, Messages: 1, Prompts: 1, Choices: 1}, usage.Bounds{Input: 100 + 16 + 16 + 128, Output: 1000, Joint: 131072}},
		{"counts left out", plain, Shape{BodyBytes: 100, Messages: 1}, usage.Bounds{Input: 260, Output: 1000, Joint: 131072}},
		{"a small maximum", plain, Shape{BodyBytes: 100, Messages: 1, MaxOutput: 7}, usage.Bounds{Input: 260, Output: 7, Joint: 131072}},
		{"a maximum above the default", plain, Shape{BodyBytes: 100, Messages: 1, MaxOutput: 2000}, usage.Bounds{Input: 260, Output: 2000, Joint: 131072}},
		{"a maximum above the model's", plain, Shape{BodyBytes: 100, Messages: 1, MaxOutput: math.MaxInt64}, usage.Bounds{Input: 260, Output: 4096, Joint: 131072}},
		{"four choices", plain, Shape{BodyBytes: 100, Messages: 1, Choices: 4}, usage.Bounds{Input: 260, Output: 4000, Joint: 4 * 131072}},
		{"two tools", plain, Shape{BodyBytes: 1000, RewrittenBytes: 500, Messages: 1, Tools: 2}, usage.Bounds{Input: 1000 + 3*500 + 4*16 + 128, Output: 1000, Joint: 131072}},
		{"three prompts", plain, Shape{BodyBytes: 100, Prompts: 3}, usage.Bounds{Input: 100 + 3*16, Output: 3000, Joint: 3 * 131072}},
		{"three prompts, two choices", plain, Shape{BodyBytes: 100, Prompts: 3, Choices: 2, MaxOutput: 5}, usage.Bounds{Input: 148, Output: 30, Joint: 6 * 131072}},
		{"an embedding", plain, Shape{BodyBytes: 100, Prompts: 3, Embedding: true, MaxOutput: 9}, usage.Bounds{Input: 148}},
		{"a body above the context", plain, Shape{BodyBytes: 16 << 20, Messages: 1}, usage.Bounds{Input: 131072, Output: 1000, Joint: 131072}},
		{"prompts above the context", plain, Shape{BodyBytes: 16 << 20, Prompts: 2, Embedding: true}, usage.Bounds{Input: 2 * 131072}},
		{"images and audio", media, Shape{BodyBytes: 5100, MediaBytes: 5000, Messages: 1, Images: 2, Audios: 1}, usage.Bounds{Input: 260 + 2000 + 3000, Output: 1000, Joint: 131072}},
		{"media that nobody counts", media, Shape{BodyBytes: 5100, MediaBytes: 5000, Messages: 1}, usage.Bounds{Input: 5260, Output: 1000, Joint: 131072}},
		{"more media than there are bytes", media, Shape{BodyBytes: 5100, MediaBytes: 5101, Messages: 1, Audios: 1}, usage.Bounds{Input: 8260, Output: 1000, Joint: 131072}},
		{"rewritten twice", plain, Shape{BodyBytes: 100, RewrittenBytes: 200, Messages: 1}, usage.Bounds{Input: 860, Output: 1000, Joint: 131072}},
		{"more tokens than bytes, rounded up", dense, Shape{BodyBytes: 100, Prompts: 1}, usage.Bounds{Input: 151 + 16, Output: 1000, Joint: 131072}},
		{"an engine that shifts", shift, Shape{BodyBytes: 100, Messages: 1}, usage.Bounds{Input: 260, Output: 1000}},
	} {
		got, err := c.model.Bounds(c.shape)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
	}
}

// TestManyShortMessages: 201 messages of one byte are 605 tokens to a real tokenizer (Llama 3: each message is three to
// five tokens beside its text), so the bytes of the texts alone are no bound.
func TestManyShortMessages(t *testing.T) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	body := struct {
		Model    string    `json:"model"`
		Messages []message `json:"messages"`
	}{Model: "m"}
	for range 201 {
		body.Messages = append(body.Messages, message{"user", "x"})
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Model{
		complete(t, base),
		complete(t, with(func(m *Model) { m.MessageTokens, m.TemplateTokens, m.InputFactorPPM = 3, 2, 1 })), // the constants by themselves
	} {
		b, err := m.Bounds(Shape{BodyBytes: int64(len(text)), Messages: 201, Prompts: 1, Choices: 1})
		if err != nil || b.Input < 605 {
			t.Errorf("bound of the input is %d, %v; the tokenizer says 605", b.Input, err)
		}
	}
}

// TestRewritten: what a template makes of a list of numbers, by a tokenizer that gives each digit a token.
func TestRewritten(t *testing.T) {
	const n = 1000
	body := "[" + strings.Repeat("1e15,", n-1) + "1e15]"
	written := n*len("1000000000000000.0, ") + len("[]") // one token a byte
	b, err := complete(t, base).Bounds(Shape{BodyBytes: int64(len(body)), RewrittenBytes: int64(len(body)), Messages: 1, Tools: 1})
	if err != nil || b.Input < int64(written) {
		t.Errorf("bound of the input is %d, %v; the template makes %d", b.Input, err, written)
	}
}

func TestNoBound(t *testing.T) {
	vast := complete(t, Model{Name: "v", Engines: []string{"e"}, ContextTokens: 1e9, ImageTokens: 1e9, InputFactorPPM: 100e6})
	for _, c := range []struct {
		model *Model
		shape Shape
		want  string
	}{
		{complete(t, base), Shape{Messages: 1, Images: 1}, "The images of this request to m cannot be bounded: the model takes no images."},
		{complete(t, base), Shape{Messages: 1, Audios: 1}, "The audio of this request to m cannot be bounded: the model takes no audio."},
		{vast, Shape{BodyBytes: math.MaxInt64, Prompts: math.MaxInt64}, "The input of this request to v cannot be bounded: it is too long."},
		{vast, Shape{BodyBytes: math.MaxInt64, RewrittenBytes: math.MaxInt64, Messages: math.MaxInt64, Images: math.MaxInt64, Prompts: 2e6}, "The input of this request to v cannot be bounded: it is too long."},
		{vast, Shape{BodyBytes: 1, Choices: math.MaxInt64}, "The output of this request to v cannot be bounded: it has too many choices."},
		{vast, Shape{BodyBytes: 1, Choices: 1e6 + 1}, "The output of this request to v cannot be bounded: it has too many choices."},
	} {
		_, err := c.model.Bounds(c.shape)
		var no *NoBound
		if !errors.As(err, &no) || err.Error() != c.want {
			t.Errorf("%+v: %v, want %s", c.shape, err, c.want)
		}
	}
	for _, bad := range []Shape{{Messages: -1}, {MediaBytes: -1}, {MaxOutput: math.MinInt64}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v did not panic", bad)
				}
			}()
			complete(t, base).Bounds(bad)
		}()
	}
}

// TestBoundsStay: whatever the shape, bounds are counts, and a larger shape has no smaller bound.
func TestBoundsStay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	number := func() int64 { return r.Int64() >> r.IntN(63) }
	for range 20_000 {
		m := Model{
			Name: "m", Engines: []string{"e"}, ContextTokens: 1 + number()%1e9, InputFactorPPM: number() % 100e6,
			MessageTokens: number() % 1e9, ImageTokens: 1 + number()%1e9, AudioTokens: 1 + number()%1e9,
		}
		s := Shape{
			BodyBytes: number(), Messages: number(), Tools: number(), Images: number(), Audios: number(),
			Prompts: number() % 5000, Choices: number() % 5000, MaxOutput: number(), Embedding: r.IntN(2) == 0,
		}
		s.RewrittenBytes = min(number(), s.BodyBytes)
		full := complete(t, m)
		small, err := full.Bounds(s)
		for name, grow := range map[string]*int64{
			"body": &s.BodyBytes, "messages": &s.Messages, "tools": &s.Tools, "images": &s.Images, "prompts": &s.Prompts, "choices": &s.Choices,
		} {
			was := *grow
			*grow = max(*grow, *grow+number()) // MaxInt64 at most: an overflow keeps it
			large, largeErr := full.Bounds(s)
			*grow = was
			if largeErr == nil && (err != nil || large.Input < small.Input || large.Output < small.Output) {
				t.Fatalf("%s grew from %d: %+v became %+v (%v)", name, was, small, large, err)
			}
		}
		if err == nil && (min(small.Input, small.Output, small.Joint) < 0 || max(small.Input, small.Output, small.Joint) > usage.MaxCount) {
			t.Fatalf("%+v is out of range", small)
		}
	}
}

func TestOrder(t *testing.T) {
	a, b, c := &Engine{Name: "a", Weight: 1}, &Engine{Name: "b", Weight: 1}, &Engine{Name: "c", Weight: 1}
	heavy, standby, narrow := &Engine{Name: "heavy", Weight: 3}, &Engine{Name: "standby"}, &Engine{Name: "narrow", Weight: 1, MaxConcurrent: 2}
	for _, row := range []struct {
		list []Candidate
		want string
	}{
		{nil, ""},
		{[]Candidate{{a, 0, true}}, "a"},
		{[]Candidate{{a, 0, false}, {b, 0, false}, {c, 0, false}}, "a b c"},
		{[]Candidate{{a, 2, false}, {b, 1, false}, {c, 0, false}}, "c b a"},
		{[]Candidate{{a, 0, true}, {b, 9, false}, {c, 0, true}}, "b a c"},
		{[]Candidate{{a, 0, false}, {heavy, 1, false}}, "heavy a"},
		{[]Candidate{{a, 0, false}, {heavy, 2, false}}, "a heavy"},
		{[]Candidate{{a, 0, false}, {heavy, 3, false}}, "a heavy"},
		{[]Candidate{{standby, 0, false}, {a, 50, false}}, "a standby"},
		{[]Candidate{{standby, 0, false}, {a, 0, true}}, "standby a"},
		{[]Candidate{{narrow, 2, false}, {a, 50, false}, {standby, 0, false}}, "a narrow standby"},
		{[]Candidate{{narrow, 1, false}, {a, 50, false}}, "narrow a"},
	} {
		var got []string
		Order(row.list)
		for _, c := range row.list {
			got = append(got, c.Engine.Name)
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("order is %v, want %s", got, row.want)
		}
	}
}

func BenchmarkBounds(b *testing.B) {
	m := complete(b, base)
	s := Shape{BodyBytes: 500, Messages: 3, Prompts: 1, Choices: 1}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Bounds(s); err != nil {
			b.Fatal(err)
		}
	}
}
