package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// atOnce paces nothing.
func atOnce(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// start starts an engine that is closed with the test, and a client for it.
func start(t *testing.T, o EngineOptions) (*Engine, *http.Client) {
	t.Helper()
	if o.Sleep == nil {
		o.Sleep = atOnce
	}
	e := NewEngine(o)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		e.Close()
	})
	return e, client
}

// post sends a chat with the marker as its text and further members, and returns the whole answer.
func post(t *testing.T, c *http.Client, e *Engine, marker, members string) (status int, body string, err error) {
	t.Helper()
	resp, err := c.Post(e.URL()+"/v1/chat/completions", "application/json", strings.NewReader(chatBody(marker, members)))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func chatBody(marker, members string) string {
	return fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"Hello [[%s]]"}]%s}`, marker, members)
}

const (
	streamed = `,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`
	unasked  = `,"stream":true`
)

func TestBooks(t *testing.T) {
	for _, c := range []struct {
		name, marker, members string
		want                  Tokens
		finish, inAnswer      string
	}{
		{"plain", "p=32 c=20", "", Tokens{32, 0, 20, 0}, "stop", `"completion_tokens":20`},
		{"cached and reasoning", "p=32 c=20 cached=16 r=8", "", Tokens{32, 16, 20, 8}, "stop", `"reasoning_tokens":8`},
		{"bound", "p=32 c=20", `,"max_tokens":7`, Tokens{32, 0, 7, 0}, "length", `"completion_tokens":7`},
		{"other bound", "p=32 c=20", `,"max_completion_tokens":7`, Tokens{32, 0, 7, 0}, "length", `"completion_tokens":7`},
		{"three choices", "p=32 c=20 r=5", `,"n":3`, Tokens{32, 0, 60, 15}, "stop", `"completion_tokens":60`},
		{"stream", "p=32 c=20 cached=16", streamed, Tokens{32, 16, 20, 0}, "stop", `"cached_tokens":16`},
		{"stream of three", "p=32 c=5", streamed + `,"n":3`, Tokens{32, 0, 15, 0}, "stop", `"completion_tokens":15`},
		{"stream in chunks", "p=32 c=20 chunks=3 r=7", streamed, Tokens{32, 0, 20, 7}, "stop", `"reasoning_tokens":7`},
		{"nobody asks for usage", "p=32 c=20", unasked, Tokens{32, 0, 20, 0}, "stop", "[DONE]"},
		{"overrun", "p=32 c=50 fault=overrun", `,"max_tokens":7`, Tokens{32, 0, 50, 0}, "stop", `"completion_tokens":50`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, client := start(t, EngineOptions{})
			_, body, err := post(t, client, e, c.marker, c.members)
			if err != nil || !strings.Contains(body, c.inAnswer) || !strings.Contains(body, `"finish_reason":"`+c.finish+`"`) {
				t.Errorf("answer %s, error %v", body, err)
			}
			if got := e.Totals(); got.All != c.want || got.Done != c.want || got.Completed != 1 {
				t.Errorf("books %+v, want %+v", got, c.want)
			}
		})
	}
}

// A token is in the books before it is on the wire, and none comes after the client has gone.
func TestHangUpIsBookedExactly(t *testing.T) {
	for _, members := range []string{streamed, ""} {
		pace, ended := make(chan struct{}), make(chan Answer, 1)
		e, _ := start(t, EngineOptions{
			Watch: func(a Answer) { ended <- a },
			Sleep: func(ctx context.Context, _ time.Duration) error {
				select {
				case <-pace:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		ctx, cancel := context.WithCancel(context.Background())
		r, _ := http.NewRequestWithContext(ctx, "POST", e.URL()+"/v1/chat/completions", strings.NewReader(chatBody("p=32 c=100", members)))
		client := &http.Client{Transport: &http.Transport{}}
		answered := make(chan error, 1)
		go func() {
			resp, err := client.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			answered <- err
		}()
		for range 1 + 37 { // prefill and tokens
			pace <- struct{}{}
		}
		cancel()
		if err := <-answered; err == nil {
			t.Error("the answer came to its end")
		}
		a := <-ended
		if want := (Tokens{Input: 32, Output: 37}); a.Tokens != want || e.Totals().All != want || a.Outcome != Aborted {
			t.Errorf("%s with %+v, books %+v; want %+v", a.Outcome, a.Tokens, e.Totals().All, want)
		}
	}
}

// Whatever hangs up when, the books are the sum of the requests, and hold at least what arrived.
func TestBooksUnderManyHangUps(t *testing.T) {
	var mu sync.Mutex
	var sum, done Tokens
	e, client := start(t, EngineOptions{Slots: 8, Sleep: realSleep, Watch: func(a Answer) {
		mu.Lock()
		defer mu.Unlock()
		sum.add(a.Tokens)
		if a.Outcome == Completed {
			done.add(a.Tokens)
		}
	}})
	var users sync.WaitGroup
	arrived := make([]int64, 24)
	for i := range arrived {
		users.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			body := chatBody(fmt.Sprintf("p=10 c=%d delay=200us ttft=0s", 20+i), streamed)
			r, _ := http.NewRequestWithContext(ctx, "POST", e.URL()+"/v1/chat/completions", strings.NewReader(body))
			resp, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			for lines := bufio.NewScanner(resp.Body); lines.Scan() && (i%3 > 0 || arrived[i] < int64(i)); {
				if strings.Contains(lines.Text(), `"content":"`) && !strings.Contains(lines.Text(), `"content":""`) {
					arrived[i]++
				}
			}
		})
	}
	users.Wait()
	e.Close()
	got := e.Totals()
	if got.All != sum || got.Done != done {
		t.Errorf("books %+v; the requests add up to %+v, the completed ones to %+v", got, sum, done)
	}
	if got.Requests != 24 || got.Completed+got.Aborted != 24 || got.Aborted == 0 || got.Completed < 16 {
		t.Errorf("outcomes %+v", got)
	}
	var all int64
	for _, n := range arrived {
		all += n
	}
	if all > got.All.Output {
		t.Errorf("%d tokens arrived, %d are in the books", all, got.All.Output)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		fault, members string
		status         int
		has, hasNot    string
		broken         bool // the connection breaks
		made           int64
	}{
		{"500", streamed, 500, "EngineCore", "data:", false, 0},
		{"429", "", 429, "busy", "", false, 0},
		{"204", "", 204, "", "x", false, 0},
		{"html", "", 200, "completion_tokens", "", false, 20},
		{"cut", streamed, 200, "data:", "[DONE]", true, 7},
		{"cut", "", 200, `{"id"`, "usage", true, 20},
		{"reset", streamed, 200, "", "[DONE]", true, 7},
		{"error", streamed, 200, `data: {"error"`, `"choices":[]`, false, 7},
		{"error", "", 500, `{"error"`, "", false, 7},
		{"badsse", streamed, 200, "no field", "", false, 20},
		{"giant", streamed, 200, strings.Repeat("x", 3<<20), "", false, 20},
		{"slow", streamed, 200, "[DONE]", "", false, 20},
		{"nodone", streamed, 200, `"choices":[]`, "[DONE]", false, 20},
		{"nousage", streamed, 200, "[DONE]", "usage", false, 20},
		{"nullusage", streamed, 200, `"choices":[],"usage":null`, `"usage":{`, false, 20},
		{"nullusage", "", 200, `"usage":null`, "", false, 20},
		{"zero", streamed, 200, `"completion_tokens":0`, `"completion_tokens":2`, false, 20},
		{"twice", streamed, 200, `"completion_tokens":10`, "", false, 20},
		{"falls", streamed, 200, `"completion_tokens":3}`, `"choices":[]`, false, 20},
		{"overcached", streamed, 200, `"cached_tokens":37`, "", false, 20},
		{"huge", "", 200, `"completion_tokens":1e18`, "", false, 20},
		{"negative", streamed, 200, `"completion_tokens":-5`, "", false, 20},
		{"string", "", 200, `"completion_tokens":"12"`, "", false, 20},
		{"fraction", "", 200, `"completion_tokens":12.5`, "", false, 20},
		{"over63", "", 200, `"completion_tokens":9223372036854775808`, "", false, 20},
		{"nan", "", 200, `"completion_tokens":NaN`, "", false, 20},
	} {
		t.Run(c.fault+" "+c.members, func(t *testing.T) {
			e, client := start(t, EngineOptions{})
			status, body, err := post(t, client, e, "p=32 c=20 at=7 fault="+c.fault, c.members)
			if status != c.status || (err != nil) != c.broken {
				t.Fatalf("status %d, error %v", status, err)
			}
			if !strings.Contains(body, c.has) || c.hasNot != "" && strings.Contains(body, c.hasNot) {
				t.Errorf("answer %.2000s", body)
			}
			if got := e.Totals(); got.All.Output != c.made {
				t.Errorf("books %+v, want %d output tokens", got, c.made)
			}
		})
	}
}

func TestGzipFault(t *testing.T) {
	e, client := start(t, EngineOptions{})
	e.Fault("gzip", 2)
	_, first, _ := post(t, client, e, "p=32 c=3", "")
	_, second, _ := post(t, client, e, "p=32 c=3", "")
	if !strings.HasPrefix(first, "{") || !strings.HasPrefix(second, "\x1f\x8b") {
		t.Errorf("answers %q and %q: the second should be compressed", first, second)
	}
}

// A silent engine stays silent until its client goes.
func TestSilenceEndsWithTheClient(t *testing.T) {
	for fault, made := range map[string]int64{"hang": 0, "stall": 7} {
		ended := make(chan Answer, 1)
		e, client := start(t, EngineOptions{Watch: func(a Answer) { ended <- a }})
		ctx, cancel := context.WithCancel(context.Background())
		r, _ := http.NewRequestWithContext(ctx, "POST", e.URL()+"/v1/chat/completions", strings.NewReader(chatBody("p=32 c=20 at=7 fault="+fault, streamed)))
		go func() {
			for e.Totals().All.Output < made || !e.hasBeenAsked() {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if resp, err := client.Do(r); err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil {
				t.Errorf("%s: the answer came to an end", fault)
			}
		}
		if a := <-ended; a.Tokens.Output != made || a.Outcome != Faulted {
			t.Errorf("%s: %s with %+v", fault, a.Outcome, a.Tokens)
		}
	}
}

func (e *Engine) hasBeenAsked() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked > 0
}

func TestQueue(t *testing.T) {
	pace := make(chan struct{})
	e, client := start(t, EngineOptions{Slots: 2, Sleep: func(ctx context.Context, _ time.Duration) error {
		<-pace
		return ctx.Err()
	}})
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() { post(t, client, e, "p=1 c=1", "") })
	}
	for running, waiting := e.Running(); running != 2 || waiting != 1; running, waiting = e.Running() {
		time.Sleep(time.Millisecond)
	}
	resp, err := client.Get(e.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	for _, want := range []string{`vllm:num_requests_running{model_name="m"} 2`, `vllm:num_requests_waiting{model_name="m"} 1`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("metrics %s lack %s", b, want)
		}
	}
	close(pace)
	users.Wait()
	if got := e.Totals(); got.Completed != 3 || got.All.Output != 3 {
		t.Errorf("books %+v", got)
	}
}

func TestPrefixCache(t *testing.T) {
	var c prefixCache
	long := strings.Repeat("0123456789abcdef", 20) // 5 blocks
	for _, step := range []struct {
		salt, prompt string
		want         int64
	}{
		{"", long, 0},
		{"", long, 4 * 16}, // the last block is computed again
		{"", long[:128] + "x" + long, 2 * 16},
		{"other", long, 0},
		{"", "x" + long, 0},
	} {
		if got := c.take(step.salt, step.prompt); got != step.want {
			t.Errorf("%q %q: %d cached, want %d", step.salt, step.prompt, got, step.want)
		}
	}
	for i := range 2 * maxBlocks {
		c.take(fmt.Sprint(i), long[:65])
	}
	if len(c.known) != maxBlocks || c.take("", long) != 0 {
		t.Errorf("%d blocks are kept, want %d", len(c.known), maxBlocks)
	}
}

func TestSeedDecides(t *testing.T) {
	answers := map[string]bool{}
	for _, seed := range []uint64{1, 1, 2} {
		e, client := start(t, EngineOptions{Seed: seed})
		_, body, err := post(t, client, e, "", "")
		if err != nil {
			t.Fatal(err)
		}
		answers[body] = true
	}
	if len(answers) != 2 {
		t.Errorf("%d answers of seeds 1, 1 and 2", len(answers))
	}
}

func TestRefuses(t *testing.T) {
	e, client := start(t, EngineOptions{APIKey: "k"})
	for _, c := range []struct {
		key, body string
		status    int
	}{
		{"", chatBody("p=1", ""), 401},
		{"k", chatBody("p=1", `,"n":65`), 400},
		{"k", chatBody("p=1 fault=none", ""), 400},
		{"k", chatBody("p=131072", ""), 400},
		{"k", `{"model":"other","messages":[{"role":"user","content":"x"}]}`, 404},
		{"k", `{`, 400},
		{"k", chatBody("p=1 c=1", ""), 200},
		{"k", chatBody("no marker", ""), 200},
	} {
		r, _ := http.NewRequest("POST", e.URL()+"/v1/chat/completions", strings.NewReader(c.body))
		r.Header.Set("Authorization", "Bearer "+c.key)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.body, resp.StatusCode, c.status)
		}
	}
	if got := e.Totals(); got.Requests != 8 || got.Refused != 6 || got.Completed != 2 {
		t.Errorf("books %+v", got)
	}
}

func TestOtherRoutes(t *testing.T) {
	e, client := start(t, EngineOptions{})
	for _, c := range []struct{ path, body, want string }{
		{"/tokenize", `{"model":"m","prompt":"four fou[[p=12]]"}`, `"count":12`},
		{"/tokenize", `{"model":"m","prompt":"12345678"}`, `"count":5`},
		{"/v1/completions", `{"model":"m","prompt":["a","b"],"max_tokens":4}`, `"completion_tokens":8`},
		{"/v1/completions", `{"model":"m","prompt":[1,2,3],"max_tokens":1,"stream":true}`, `"object":"text_completion"`},
		{"/v1/embeddings", `{"model":"m","input":["a","b"],"dimensions":2}`, `"data":[{"index":0,"object":"embedding","embedding":[0.25,0.25]},{"index":1`},
		{"/v1/embeddings", `{"model":"m","input":[[1,2],[3]],"dimensions":1,"encoding_format":"base64"}`, `"embedding":"AACAPg=="`},
		{"/v1/models", "", `"id":"m"`},
	} {
		method := "POST"
		if c.body == "" {
			method = "GET"
		}
		r, _ := http.NewRequest(method, e.URL()+c.path, strings.NewReader(c.body))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(b), c.want) || resp.Header.Get("Content-Type") == "application/json" && !json.Valid(b) {
			t.Errorf("%s %s: %s", c.path, c.body, b)
		}
	}
}

// Every event of a stream and every whole answer is JSON.
func TestAnswersAreJSON(t *testing.T) {
	e, client := start(t, EngineOptions{})
	_, body, _ := post(t, client, e, "p=9 c=150 r=9 cached=4", streamed+`,"n":2`)
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if ok && data != "[DONE]" && !json.Valid([]byte(data)) {
			t.Errorf("event %s", data)
		}
	}
	if _, body, _ = post(t, client, e, "p=9 c=150 r=9 cached=4", ""); !json.Valid([]byte(body)) {
		t.Errorf("answer %s", body)
	}
}

// What applications were told is what the engine has in its books.
func TestClients(t *testing.T) {
	enough := make(chan struct{})
	var mu sync.Mutex
	left := 120
	e, _ := start(t, EngineOptions{Watch: func(Answer) { // of 120 requests
		mu.Lock()
		defer mu.Unlock()
		if left--; left == 0 {
			close(enough)
		}
	}})
	e.Fault("500", 10)
	c := StartClients(ClientsOptions{URL: e.URL(), Seed: 1, Sleep: atOnce, Apps: []App{
		{Name: "desk", Model: "m", Kind: Streams, Users: 2, System: 80, Prompt: 20, MaxTokens: 9},
		{Name: "mail", Model: "m", Kind: Plain, Users: 1, System: 40, Prompt: 5, Effort: "low"},
		{Name: "search", Model: "m", Kind: Embeddings, Users: 1, System: 9, Prompt: 9},
	}})
	<-enough
	c.Stop(time.Minute)
	e.Close()
	var sum Tokens
	sent := int64(0)
	for name, tally := range c.Tally() {
		if tally.OK == 0 || tally.Failed > 0 {
			t.Errorf("%s: %+v", name, tally)
		}
		sum.add(tally.Told)
		sent += tally.Sent
	}
	books := e.Totals()
	if sum != books.Done || sum.Cached == 0 || sum.Reasoning == 0 {
		t.Errorf("applications were told %+v, the books have %+v", sum, books.Done)
	}
	if sent != books.Requests || books.Faulted == 0 || books.Completed+books.Faulted != sent {
		t.Errorf("%d requests, books %+v", sent, books)
	}
}

func TestClientsHangUp(t *testing.T) {
	aborted := make(chan struct{}, 100)
	e, _ := start(t, EngineOptions{Sleep: realSleep, Watch: func(a Answer) {
		if a.Outcome == Aborted {
			aborted <- struct{}{}
		}
	}})
	c := StartClients(ClientsOptions{URL: e.URL(), Sleep: atOnce, Apps: []App{
		{Name: "desk", Model: "m", Kind: Streams, Users: 4, Prompt: 200, HangUps: 1000},
	}})
	for range 4 {
		<-aborted
	}
	c.Stop(0)
	if got := c.Tally()["desk"]; got.HungUp == 0 || got.Failed > 0 {
		t.Errorf("%+v", got)
	}
	if !bytes.Contains([]byte(prose(3, 0)), []byte("tally")) {
		t.Error("prose is not the lesson")
	}
}

// TestBook: the engine's book has what was made for each request by its caller's id, also of one that is still running.
func TestBook(t *testing.T) {
	e, client := start(t, EngineOptions{Keep: true, Sleep: realSleep})
	ask := func(id, marker, members string) *http.Response {
		r, err := http.NewRequest("POST", e.URL()+"/v1/chat/completions", strings.NewReader(chatBody(marker, members)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Request-Id", id)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	if _, err := io.Copy(io.Discard, ask("whole", "p=32 c=20 delay=0s", "").Body); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(ask("hangs", "p=8 c=20 delay=0s fault=stall at=5", `,"stream":true`).Body)
	for events := 0; events < 6 && lines.Scan(); { // the role, and five tokens
		if strings.HasPrefix(lines.Text(), "data: ") {
			events++
		}
	}
	book := e.Book()
	if w := book["whole"]; len(w) != 1 || w[0] != (Work{Completed, Tokens{Input: 32, Output: 20}}) {
		t.Errorf("a whole answer is booked as %+v", w)
	}
	if w := book["hangs"]; len(w) != 1 || w[0] != (Work{Working, Tokens{Input: 8, Output: 5}}) {
		t.Errorf("an answer that hangs is booked as %+v", w)
	}
}
