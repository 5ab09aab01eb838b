package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"talea/internal/gateway"

	"go.uber.org/goleak"
)

var fastBody = gateway.Limits{Body: 50 * time.Millisecond}

// TestHostileBodies: each gets a 4xx with JSON, and no engine sees any of it. Rows of the fault matrix stand beside.
// F100-F104, F106.
func TestHostileBodies(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	chat := func(more string) string { return say("c=1", more) }
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"empty", "", 400},
		{"not JSON", "model=m", 400},
		{"array", "[]", 400},
		{"two values", chat("") + "{}", 400},
		{"no model", `{"messages":[{"role":"user","content":"a"}]}`, 400},
		{"model is a number", `{"model":1,"messages":[{"role":"user","content":"a"}]}`, 400},
		{"model with CR LF (F106)", `{"model":"m\r\nX-Evil: 1","messages":[{"role":"user","content":"a"}]}`, 400},
		{"model with NUL (F106)", `{"model":"m\u0000","messages":[{"role":"user","content":"a"}]}`, 400},
		{"no messages", `{"model":"m"}`, 400},
		{"messages null", `{"model":"m","messages":null}`, 400},
		{"messages empty", `{"model":"m","messages":[]}`, 400},
		{"duplicate model", `{"model":"x","model":"m","messages":[{"role":"user","content":"a"}]}`, 400},
		{"duplicate by escape", `{"mod\u0065l":"x","model":"m","messages":[{"role":"user","content":"a"}]}`, 400},
		{"duplicate at depth", `{"model":"m","messages":[{"role":"user","role":"system","content":"a"}]}`, 400},
		{"case variant", `{"Model":"m","model":"m","messages":[{"role":"user","content":"a"}]}`, 400},
		{"case variant of a bound", chat(`,"MAX_TOKENS":5`), 400},
		{"bad UTF-8", chat(",\"stop\":\"\xff\""), 400},
		{"lone surrogate", chat(`,"stop":"\ud800"`), 400},
		{"n 10^9 (F100)", chat(`,"n":1000000000`), 400},
		{"n 0 (F100)", chat(`,"n":0`), 400},
		{"n -1 (F100)", chat(`,"n":-1`), 400},
		{`n "3" (F100)`, chat(`,"n":"3"`), 400},
		{"n 1e309 (F100)", chat(`,"n":1e309`), 400},
		{"n 1e0", chat(`,"n":1e0`), 400},
		{"max_tokens 2^31 (F101)", chat(`,"max_tokens":2147483648`), 400},
		{"max_tokens 2^63 (F101)", chat(`,"max_tokens":9223372036854775808`), 400},
		{"max_tokens -1 (F101)", chat(`,"max_tokens":-1`), 400},
		{"max_tokens 1.5 (F101)", chat(`,"max_tokens":1.5`), 400},
		{"n_predict of another engine", chat(`,"n_predict":400`), 400},
		{"best_of 20 (F102)", chat(`,"best_of":20`), 400},
		{"beam (F102)", chat(`,"use_beam_search":true`), 400},
		{"prompt_logprobs (F103)", chat(`,"prompt_logprobs":-1`), 400},
		{"top_logprobs 10^6 (F103)", chat(`,"logprobs":true,"top_logprobs":1000000`), 400},
		{"logit_bias of many (F103)", chat(`,"logit_bias":{` + many(5000, `"%d":1`) + `}`), 400},
		{"depth 100,000 (F104)", chat(`,"stop":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)), 400},
		{"10^6 messages (F104)", `{"model":"m","messages":[` + many(1_000_000, `{}`) + `]}`, 400},
		{"10^5 tools (F104)", chat(`,"tools":[` + many(100_000, `{}`) + `]`), 400},
		{"10^5 members (F104)", chat(`,` + many(100_000, `"m%d":1`)), 400},
		{"17 MiB (F104)", chat(`,"stop":"` + strings.Repeat("a", 17<<20) + `"`), 413},
		{"stream is a string", chat(`,"stream":"true"`), 400},
		{"usage is a number", chat(`,"stream":true,"stream_options":{"include_usage":1}`), 400},
		{"unknown stream option", chat(`,"stream":true,"stream_options":{"x":1}`), 400},
		{"remote image", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]}`, 400},
		{"priority", chat(`,"priority":-100`), 400},
		{"another's cache", chat(`,"cache_salt":"x"`), 400},
		{"service tier", chat(`,"service_tier":"priority"`), 400},
	} {
		p := r.chat("GOOD", c.body)
		if p.status != c.status {
			t.Errorf("%s: status %d, want %d: %.300s", c.name, p.status, c.status, p.body)
			continue
		}
		p.code(t)
	}
	if n := e.Totals().All; n.Input != 0 {
		t.Errorf("the engine saw something: %+v", n)
	}
	if requests, _, _ := r.totals(); requests != 0 {
		t.Errorf("%d requests are booked", requests)
	}
}

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		if strings.Contains(format, "%d") {
			fmt.Fprintf(&b, format, i)
		} else {
			b.WriteString(format)
		}
	}
	return b.String()
}

// TestHostileContent: what engines would fetch, run, or take as an image, however it is spelt, reaches none of them.
// F108.
func TestHostileContent(t *testing.T) {
	part := func(p string) string { return `{"model":"m","messages":[{"role":"user","content":[` + p + `]}]}` }
	for _, c := range []struct{ kind, name, path, body string }{
		{"vllm", "image_url as a string, remote", "chat/completions", part(`{"image_url":"http://169.254.169.254/latest"}`)},
		{"ollama", "image_url as a string, data", "chat/completions", part(`{"type":"image_url","image_url":"data:image/png;base64,iVBORw0KGgo="}`)},
		{"vllm", "video without a type", "chat/completions", part(`{"video_url":"http://10.0.0.1/x.mp4"}`)},
		{"vllm", "video by escape", "chat/completions", part(`{"type":"video\u005furl","video_url":"http://10.0.0.1/x.mp4"}`)},
		{"vllm", "file by escape", "chat/completions", part(`{"type":"fil\u0065","file":{"file_id":"a"}}`)},
		{"vllm", "image_embeds", "chat/completions", part(`{"type":"image_embeds","image_embeds":"AAAA"}`)},
		{"vllm", "an image in a text part", "chat/completions", part(`{"type":"text","text":"a","image_url":{"url":"data:,"}}`)},
		{"vllm", "a media id", "chat/completions", part(`{"type":"image_url","image_url":{"url":"data:,"},"uuid":"a"}`)},
		{"vllm", "audio by URL", "chat/completions", part(`{"type":"input_audio","input_audio":{"data":"http://10.0.0.1/a.wav","format":"wav"}}`)},
		{"vllm", "content as an object", "chat/completions", `{"model":"m","messages":[{"role":"user","content":{"type":"text","text":"a"}}]}`},
		{"vllm", "a template in the arguments", "chat/completions", say("", `,"chat_template_kwargs":{"chat_template":"{% for i in range(100000) %}aa {% endfor %}"}`)},
		{"llamacpp", "tools in the arguments", "chat/completions", say("", `,"chat_template_kwargs":{"tools":[]}`)},
		{"llamacpp", "a prompt object", "completions", `{"model":"m","prompt":[{"prompt_string":"<__media__>","multimodal_data":["iVBORw0KGgo="]}]}`},
		{"llamacpp", "a prompt of nulls", "completions", `{"model":"m","prompt":[null,true,{}]}`},
		{"llamacpp", "a mixed prompt", "completions", `{"model":"m","prompt":["a",1]}`},
		{"vllm", "negative tokens", "completions", `{"model":"m","prompt":[1,-2]}`},
		{"openai", "an image to embed", "embeddings", `{"model":"m","input":[{"text":"a","image":"http://169.254.169.254/"}]}`},
	} {
		asked := false
		url := serving(t, func(http.ResponseWriter, *http.Request) { asked = true })
		r := newRig(t, setup{engines: []string{url}, kind: c.kind})
		if p := r.do("POST", "/v1/"+c.path, "GOOD", c.body); p.status != 400 || asked {
			t.Errorf("%s, %s: status %d, engine asked: %v: %s", c.kind, c.name, p.status, asked, p.body)
		}
	}
}

// TestContentBounds: what a template writes anew is bounded higher than its bytes, in whatever form it comes; only real
// images and audio are taken out of the text.
func TestContentBounds(t *testing.T) {
	url := answering(t, 200, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	r := newRig(t, setup{engines: []string{url}})
	r.apply("models:\n- {name: m, served_as: m, engines: [e0], parameters: 8.03e9, context_tokens: 1000000, max_output_tokens: 4096, image_tokens: 300}\n")
	list := strings.Repeat("1e15,", 2000) + "1"
	call := func(arguments string) string {
		return `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f","arguments":` + arguments + `}}]}]}`
	}
	words := strings.Repeat("word ", 20_000)
	for _, c := range []struct {
		name, body  string
		least, most int64
	}{
		{"arguments as text", call(`"{\"a\":[` + list + `]}"`), 40_000, 45_000},
		{"arguments as an object", call(`{"a":[` + list + `]}`), 40_000, 45_000},
		{"text called a URL", call(`{"url":"data: ` + words + `"}`), 100_000, 500_000},
		{"text called data", call(`{"x":{"data":"` + words + `"}}`), 100_000, 500_000},
		{"an image", `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:` + words + `","detail":"low"}},{"type":"text","text":"a"}]}]}`, 400, 1000},
		{"bare texts", `{"model":"m","messages":[{"role":"user","content":["a","b"]}]}`, 50, 400},
	} {
		p := r.chat("GOOD", c.body)
		if p.status != 200 {
			t.Errorf("%s: %d %.300s", c.name, p.status, p.body)
			continue
		}
		if got := r.record(p).Bounds.Input; got < c.least || got > c.most {
			t.Errorf("%s: bounded by %d tokens, want %d to %d", c.name, got, c.least, c.most)
		}
	}
}

// TestHostileHeaders: compressed bodies (F105), idempotency keys out of bounds (F121), headers that contradict the key.
func TestHostileHeaders(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	for _, c := range []struct {
		status int
		header []string
	}{
		{415, []string{"Content-Encoding", "gzip"}},
		{415, []string{"Content-Encoding", "br"}},
		{415, []string{"Content-Encoding", "zstd"}},
		{400, []string{"Idempotency-Key", strings.Repeat("k", 10<<10)}},
		{400, []string{"Idempotency-Key", "k\x80\xff"}},
		{400, []string{"OpenAI-Organization", "other"}},
		{400, []string{"OpenAI-Project", "acme/other"}},
		{401, []string{"X-Api-Key", "another-key-0123456789"}},
		{200, []string{"Idempotency-Key", strings.Repeat("k", 255)}},
		{200, []string{"OpenAI-Organization", "acme", "X-Org-Id", "other", "X-Forwarded-For", "1.2.3.4"}},
	} {
		if p := r.chat("GOOD", say("c=1", ""), c.header...); p.status != c.status {
			t.Errorf("%.60v: status %d, want %d: %s", c.header, p.status, c.status, p.body)
		}
	}
}

// TestSmuggling: two lengths, a length beside a transfer coding that is not obeyed, folded lines: refused, and the engine
// sees nothing (F106).
func TestSmuggling(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}, limits: fastBody})
	body := say("c=1", "")
	for _, head := range []string{
		"Content-Length: %d\r\nContent-Length: 5\r\n",
		"Content-Length: %d\r\nTransfer-Encoding: chunked\r\nX: y\r\n folded\r\n",
		"Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n",
		"Content-Length: -%d\r\n",
		"Content-Length: %d\r\nX-Y: a\x00b\r\n",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+head+"\r\n%s", secrets["env:GOOD"], len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && resp.StatusCode < 400 {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("%q: status %d: %s", head, resp.StatusCode, b)
		}
		c.Close()
	}
	if n := e.Totals().All; n.Input != 0 {
		t.Errorf("the engine saw something: %+v", n)
	}
}

// TestRoutes: only the allow-list, byte for byte; each route says how it is metered or why it is free (F107). I10.
func TestRoutes(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	for _, line := range gateway.Routes() {
		route, how, _ := strings.Cut(line, "\t")
		if how == "" {
			t.Errorf("%s does not say how it is metered or why it is free", route)
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/chat/completions/", "//v1/chat/completions", "/V1/chat/completions", "/v1/chat/%63ompletions", "/v1/./models",
		"/v1/chat/../models", "/metrics", "/tokenize", "/debug/pprof/", "/v1/responses", "/v1/responses/x", "/v1/messages/count_tokens", "/invocations", "/admin", "/v1/models/"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, secrets["env:GOOD"])
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 404 || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		c.Close()
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if p := r.do("GET", path, "", ""); p.status != 200 {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	if p := r.do("GET", "/v1/models", "EMPTY", ""); p.status != 200 || !strings.Contains(p.body, `"id":"m"`) || !strings.Contains(p.body, `"completion":"0.000004"`) || strings.Contains(p.body, "unpriced") {
		t.Errorf("models with an empty budget: %d %s", p.status, p.body)
	}
	if p := r.do("GET", "/v1/models/m", "GOOD", ""); p.status != 200 {
		t.Errorf("one model: %d %s", p.status, p.body)
	}
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), // the tests' own http.DefaultClient
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}
