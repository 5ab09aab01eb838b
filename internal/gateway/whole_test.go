package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/sim"
	"talea/internal/usage"
)

// lean is an answer without what says nothing: members that are null or empty lists, and the request's own id.
func lean(t *testing.T, body string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	delete(v.(map[string]any), "id")
	return leanValue(v)
}

func leanValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			list, isList := member.([]any)
			if member == nil || isList && len(list) == 0 {
				delete(v, name)
			} else {
				v[name] = leanValue(member)
			}
		}
	case []any:
		for i := range v {
			v[i] = leanValue(v[i])
		}
	}
	return v
}

// TestLongWholeAnswers: an answer that may be long is asked for as a stream and put together, and says what the engine says
// when it is asked for it whole.
func TestLongWholeAnswers(t *testing.T) {
	never := gateway.Limits{Whole: usage.Bounds{Input: 1 << 40, Output: 1 << 40}}
	for _, c := range []struct{ path, body string }{
		{"chat/completions", say("p=32 c=20", "")},
		{"chat/completions", say("p=32 c=20 cached=16", `,"n":3,"max_tokens":300`)},
		{"chat/completions", say("p=32 c=20 r=8", "")},
		{"chat/completions", say("p=32 c=20 r=8 chunks=5", `,"n":2`)},
		{"chat/completions", say("p=32 c=900", `,"max_tokens":300`)},
		{"completions", `{"model":"m","prompt":["[[p=7 c=20]] a","b"],"n":2}`},
		{"completions", `{"model":"m","prompt":"[[p=7 c=0]] a"}`},
	} {
		var said [2]any
		for i, limits := range []gateway.Limits{never, {}} {
			e := newEngine(t)
			var streamed bool
			front := serving(t, func(w http.ResponseWriter, req *http.Request) {
				streamed = forwardTo(t, e, w, req)
			})
			r := newRig(t, setup{engines: []string{front}, limits: limits})
			p := r.do("POST", "/v1/"+c.path, "GOOD", c.body)
			if p.status != 200 || p.header.Get("Content-Type") != "application/json" || p.header.Get("X-Cost") == "" {
				t.Fatalf("%d %v %s", p.status, p.header, p.body)
			}
			if streamed != (i == 1) {
				t.Errorf("%s: the engine was asked for a stream: %v", c.body, streamed)
			}
			said[i] = lean(t, p.body)
			rec := r.record(p)
			if made := e.Totals().All; rec.Counts.Input() != made.Input || rec.Counts.Output() != made.Output || rec.Source != usage.EngineFinal {
				t.Errorf("%s: metered %d and %d by %s; the engine made %+v", c.body, rec.Counts.Input(), rec.Counts.Output(), rec.Source, made)
			}
		}
		if !reflect.DeepEqual(said[0], said[1]) {
			t.Errorf("%s\nwhole    %v\ngathered %v", c.body, said[0], said[1])
		}
	}
}

// forwardTo lets an engine answer, and reports whether it was asked for a stream.
func forwardTo(t *testing.T, e *sim.Engine, w http.ResponseWriter, req *http.Request) (streamed bool) {
	var body strings.Builder
	copyAll(t, &body, req.Body)
	out, err := http.NewRequestWithContext(req.Context(), "POST", e.URL()+req.RequestURI, strings.NewReader(body.String()))
	if err != nil {
		t.Error(err)
		return false
	}
	resp, err := http.DefaultClient.Do(out)
	if err != nil {
		t.Error(err)
		return false
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	copyAll(t, w, resp.Body)
	return strings.Contains(body.String(), `"stream":true`)
}

// TestOnlyWhole: what a stream would tell differently is asked for whole, as is everything of an engine that tells no
// running usage; and an engine that answers whole although it was asked for a stream is understood.
func TestOnlyWhole(t *testing.T) {
	asked := make(chan string, 1)
	url := serving(t, func(w http.ResponseWriter, req *http.Request) {
		var body strings.Builder
		copyAll(t, &body, req.Body)
		asked <- body.String()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, `{"choices":[{"index":0,"message":{"content":"a b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`)
	})
	for _, c := range []struct {
		kind, more string
		streams    bool
	}{
		{"vllm", "", true},
		{"vllm", `,"functions":[{"name":"f"}]`, false},
		{"vllm", `,"functions":null`, true},
		{"vllm", `,"max_tokens":256`, false},
		{"vllm", `,"max_tokens":257`, true},
		{"vllm", `,"max_tokens":1,"metadata":{"a":"` + strings.Repeat("x", 5000) + `"}`, true},
		{"llamacpp", "", true},
		{"ollama", "", false},
		{"openai", "", false},
	} {
		r := newRig(t, setup{engines: []string{url}, kind: c.kind})
		p := r.chat("GOOD", say("", c.more))
		if p.status != 200 {
			t.Errorf("%s%s: %d %s", c.kind, c.more, p.status, p.body)
			continue
		}
		if body := <-asked; strings.Contains(body, `"stream":true`) != c.streams {
			t.Errorf("%s%s was asked as %s", c.kind, c.more, body)
		}
		if rec := r.record(p); p.status != 200 || !strings.Contains(p.body, `"a b"`) || rec.Counts.Output() != 2 || rec.Source != usage.EngineFinal {
			t.Errorf("%s%s: %d %s", c.kind, c.more, p.status, p.body)
		}
	}
}

// F066, F067, F068: whoever leaves a stream or a long whole answer after some tokens pays for the input and what was made
// until then, by running usage; who leaves while the prompt is read, for the input alone or nothing; and who leaves before
// an engine has begun, for nothing.
func TestHangUpsArePaidByWhatWasMade(t *testing.T) {
	for _, c := range []struct {
		name, marker, more string
		made               int64 // tokens before the hang-up
	}{
		{"F067 stream", "p=32 c=400 delay=10ms", `,"max_tokens":400,"stream":true`, 40},
		{"F068 whole", "p=32 c=400 delay=10ms", `,"max_tokens":400`, 40},
		{"F068 whole, choices", "p=32 c=400 delay=10ms", `,"max_tokens":200,"n":2`, 40},
		{"F066 prefill, stream", "p=32 c=400 ttft=1h", `,"max_tokens":400,"stream":true`, 0},
		{"F066 prefill, whole", "p=32 c=400 ttft=1h", `,"max_tokens":400`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ended := make(chan sim.Answer, 1)
			e := sim.NewEngine(sim.EngineOptions{Watch: func(a sim.Answer) { ended <- a }})
			t.Cleanup(e.Close)
			r := newRig(t, setup{engines: []string{e.URL()}})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(say(c.marker, c.more)))
			req.Header.Set("Authorization", "Bearer "+secrets["env:GOOD"])
			go func() {
				defer cancel()
				for ctx.Err() == nil {
					if g, _ := e.Running(); g > 0 && e.Totals().All.Output >= c.made {
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			if resp, err := http.DefaultClient.Do(req); err == nil {
				copyAll(nil, io.Discard, resp.Body)
				resp.Body.Close()
			}
			a := <-ended
			r.settled()
			rec, _, err := r.ledger.Record(r.holds()[0])
			if err != nil {
				t.Fatal(err)
			}
			if rec.Outcome != usage.ClientGone || rec.OnDisconnect != usage.ChargeGenerated || a.Tokens.Output >= 400 {
				t.Errorf("%s by rule %s; the engine made %+v", rec.Outcome, rec.OnDisconnect, a.Tokens)
			}
			if c.made == 0 {
				if rec.Billed.Output() != 0 || rec.Billed.Input() > 32 {
					t.Errorf("billed %d and %d while the prompt was read", rec.Billed.Input(), rec.Billed.Output())
				}
				return
			}
			if rec.Source != usage.EngineRunning || rec.Billed.Input() != 32 || rec.Billed.Output() == 0 || rec.Billed.Output() > a.Tokens.Output {
				t.Errorf("billed %d and %d by %s; the engine made %+v", rec.Billed.Input(), rec.Billed.Output(), rec.Source, a.Tokens)
			}
		})
	}
}
