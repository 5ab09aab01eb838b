package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/usage"
)

// bodies keeps what an engine was asked.
type bodies struct {
	mu  sync.Mutex
	all []string
}

func (b *bodies) watch(a sim.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, string(a.Body))
}

func (b *bodies) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all[len(b.all)-1]
}

// tail is the end of a long body.
func tail(body string) string { return body[max(0, len(body)-800):] }

const unbounded = `,"stream":true`

// TestRolling: a stream that names no maximum is held for the model's default (1000) and extended up to its maximum (4096);
// but only once the engine's running usage was seen to be true.
func TestRolling(t *testing.T) {
	asked := &bodies{}
	e := sim.NewEngine(sim.EngineOptions{Sleep: noSleep, Watch: asked.watch})
	defer e.Close()
	r := newRig(t, setup{engines: []string{e.URL()}})
	p := r.chat("GOOD", say("c=3000", unbounded))
	if rec := r.record(p); rec.Counts.Output() != 1000 || rec.Bounds.Output != 1000 || !strings.Contains(asked.last(), `"max_tokens":1000,`) {
		t.Errorf("before the engine is proved: %d of %d tokens, %s", rec.Counts.Output(), rec.Bounds.Output, asked.last())
	}
	p = r.chat("GOOD", say("c=3000", unbounded))
	if rec := r.record(p); rec.Counts.Output() != 3000 || rec.Bounds.Output < 3000 || rec.Outcome != usage.Completed || !strings.Contains(asked.last(), `"max_tokens":4096,`) {
		t.Errorf("once it is proved: %d of %d tokens, %s, %s", rec.Counts.Output(), rec.Bounds.Output, rec.Outcome, asked.last())
	}
	p = r.chat("GOOD", say("c=9000 chunks=4", unbounded)) // faster than extensions come
	if rec := r.record(p); rec.Counts.Output() != 4096 || rec.Bounds.Output != 4096 || !strings.HasSuffix(p.body, "[DONE]\n\n") {
		t.Errorf("up to the model's maximum: %d of %d tokens", rec.Counts.Output(), rec.Bounds.Output)
	}
	p = r.chat("GOOD", say("c=3000", ""))
	if rec := r.record(p); rec.Counts.Output() != 1000 {
		t.Errorf("a whole answer: %d tokens", rec.Counts.Output())
	}
	p = r.chat("GOOD", say("c=3000", `,"stream":true,"n":2`))
	if rec := r.record(p); rec.Counts.Output() != 6000 || rec.Bounds.Output < 6000 || rec.Bounds.Output > 8192 {
		t.Errorf("two choices: %d of %d tokens", rec.Counts.Output(), rec.Bounds.Output)
	}
	check(t, r)
}

// TestRollingNeedsProof: an engine whose running usage does not come to its final usage is allowed no more than is held.
func TestRollingNeedsProof(t *testing.T) {
	for _, fault := range []string{"falls", "nousage"} {
		asked := &bodies{}
		e := sim.NewEngine(sim.EngineOptions{Sleep: noSleep, Watch: asked.watch})
		defer e.Close()
		r := newRig(t, setup{engines: []string{e.URL()}})
		for range 3 {
			r.chat("GOOD", say("c=50 fault="+fault, unbounded))
		}
		if !strings.Contains(asked.last(), `"max_tokens":1000,`) {
			t.Errorf("%s: asked %s", fault, asked.last())
		}
	}
}

// TestRollingCut: where the budget ends, so does the stream, cleanly: its last token is the budget's last, and the engine
// stops (F041).
func TestRollingCut(t *testing.T) {
	ended := make(chan sim.Answer, 16)
	e := sim.NewEngine(sim.EngineOptions{Sleep: noSleep, Watch: func(a sim.Answer) { ended <- a }})
	defer e.Close()
	r := newRig(t, owned(e.URL(), `{measure: output_tokens, window: month, amount: "3000"}`, ""))
	r.chat("GOOD", say("c=5", unbounded))
	<-ended
	p := r.chat("OWN", say("c=4000", streaming))
	if !strings.Contains(p.body, `"finish_reason":"length"`) || !strings.Contains(p.body, `"x_stopped":"budget"`) || !strings.HasSuffix(p.body, "data: [DONE]\n\n") || strings.Contains(p.body, `"error"`) {
		t.Errorf("the stream ends with %s", tail(p.body))
	}
	rec := r.record(p)
	if rec.Billed.Output() != 3000 || rec.Bounds.Output != 3000 || rec.Outcome != usage.Cut {
		t.Errorf("billed %d of %d, %s", rec.Billed.Output(), rec.Bounds.Output, rec.Outcome)
	}
	if p := r.chat("OWN", say("c=1", unbounded)); p.status != 402 {
		t.Errorf("with nothing left: %d", p.status)
	}
	check(t, r)
}

// TestExtendedAhead: the extension is there before what is held is used up, so that the stream does not wait for it.
func TestExtendedAhead(t *testing.T) {
	var r *rig
	said := func(w io.Writer, n int, more string) {
		fmt.Fprintf(w, `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":%s}],"usage":{"prompt_tokens":5,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", more, n, n+5)
	}
	url := serving(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		said(w, 1, "null")
		end := 5
		if body, _ := io.ReadAll(req.Body); strings.Contains(string(body), "long") {
			said(w, 600, "null") // of 1000
			http.NewResponseController(w).Flush()
			id, _ := usage.ParseID(req.Header.Get("X-Request-Id"))
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				rec, _, err := r.ledger.Record(id)
				if err == nil && rec.Bounds.Output > 1000 {
					break
				}
				if time.Now().After(deadline) {
					t.Error("600 of 1000 tokens are used, and no more are held")
					break
				}
			}
			end = 1500
		}
		said(w, end, `"stop"`)
		fmt.Fprintf(w, `data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d,"total_tokens":%d}}`+"\n\ndata: [DONE]\n\n", end, end+5)
	})
	r = newRig(t, setup{engines: []string{url}})
	r.chat("GOOD", say("c=1", unbounded))
	p := r.chat("GOOD", strings.Replace(say("c=1", unbounded), "hello", "long", 1))
	if rec := r.record(p); rec.Billed.Output() != 1500 || rec.Outcome != usage.Completed {
		t.Errorf("%d tokens, %s", rec.Billed.Output(), rec.Outcome)
	}
}

// TestNoMaximumPinsNoBudget: streams that name no maximum, and whose model's default is the whole budget of a department,
// leave room for others while they run.
func TestNoMaximumPinsNoBudget(t *testing.T) {
	blocked, release := make(chan struct{}, 64), make(chan struct{})
	e := sim.NewEngine(sim.EngineOptions{Sleep: func(ctx context.Context, d time.Duration) error {
		if d != time.Hour {
			return ctx.Err()
		}
		blocked <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	defer e.Close()
	s := owned(e.URL(), `{measure: output_tokens, window: month, amount: "1000"}`, "")
	r := newRig(t, s)
	for range 10 {
		r.chat("GOOD", say("c=40", unbounded))
	}
	var streams sync.WaitGroup
	for range 8 {
		streams.Go(func() {
			if p := r.chat("OWN", say("c=100 ttft=1h", unbounded)); !strings.HasSuffix(p.body, "[DONE]\n\n") || strings.Contains(p.body, "x_stopped") {
				t.Errorf("a stream: %d %s", p.status, tail(p.body))
			}
		})
	}
	for range 8 {
		<-blocked
	}
	if p := r.chat("OWN", say("c=100", `,"max_tokens":100`)); p.status != 200 {
		t.Errorf("beside eight streams: %d %s", p.status, p.body)
	}
	close(release)
	streams.Wait()
	check(t, r)
}

// TestNotAllCut: of a hundred streams at once for a budget of ten, ten come to their end, and none is cut for another.
func TestNotAllCut(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, owned(e.URL(), `{measure: output_tokens, window: month, amount: "30000"}`, ""))
	for range 30 {
		r.chat("GOOD", say("c=3000 chunks=30", unbounded))
	}
	var mu sync.Mutex
	ends := map[string]int{}
	var streams sync.WaitGroup
	for range 100 {
		streams.Go(func() {
			p := r.chat("OWN", say("c=3000 chunks=30", unbounded))
			what := fmt.Sprint(p.status)
			if p.status == 200 {
				what = r.record(p).Outcome.String()
			}
			mu.Lock()
			defer mu.Unlock()
			ends[what]++
		})
	}
	streams.Wait()
	if ends["completed"] != 10 || ends["402"] != 90 {
		t.Errorf("ends %v, want 10 completed and 90 refused", ends)
	}
	check(t, r)
}

// TestRevokedWhileExtending: a key that is revoked while its stream waits for an extension leaves nothing behind.
func TestRevokedWhileExtending(t *testing.T) {
	e := newEngine(t)
	s := owned(e.URL(), `{measure: output_tokens, window: month, amount: "3000"}`, "")
	s.wait = time.Hour
	r := newRig(t, s)
	r.chat("GOOD", say("c=5", unbounded))
	slow := sim.NewEngine(sim.EngineOptions{}) // real time: holds 1000 for as long as the test wants
	defer slow.Close()
	r.apply(fmt.Sprintf("engines:\n- {name: slow, kind: vllm, url: %q}\nmodels:\n- {name: slow, served_as: m, engines: [slow], context_tokens: 8192}\n", slow.URL()) +
		"price_books:\n- name: other\n  currency: EUR\n  timezone: Europe/Berlin\n  effective: {from: 2026-01-01T00:00:00+01:00}\n  prices:\n  - {model: slow, meter: input, price: \"1\"}\n  - {model: slow, meter: output, price: \"1\"}\n" +
		"accounts:\n- {path: acme/own/slow, price_book: other}\nkeys:\n- {name: strict, account: acme/own/slow, secret: \"env:STRICT\"}\n")
	start := func(key, body string) *bufio.Reader {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", r.url+"/v1/chat/completions", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+secrets["env:"+key])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return bufio.NewReader(resp.Body)
	}
	start("STRICT", `{"model":"slow","messages":[{"role":"user","content":"[[c=1000 delay=1h ttft=0s]]"}],"max_tokens":1000,"stream":true}`).ReadString('\n')
	lines := start("OWN", say("c=4000", unbounded))
	go io.Copy(io.Discard, lines)
	for deadline := time.Now().Add(time.Minute); held(r) != "2280"; time.Sleep(time.Millisecond) { // 10, doubled seven times; then there is no room
		if time.Now().After(deadline) {
			t.Fatalf("%s are held", held(r))
		}
	}
	for _, key := range []string{"own", "strict"} {
		if err := r.world.RevokeKey(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	check(t, r)
}

// held is what is held of the limit of acme/own.
func held(r *rig) string {
	a := r.world.Current().Account("acme/own")
	return a.Limits[0].Measure.Format(r.ledger.Standings(a.Chain[0].ID, a.IDs[1:])[0].Held)
}

// check checks the whole ledger.
func check(t *testing.T, r *rig) {
	t.Helper()
	r.settled()
	report, err := ledger.Check(r.store.(ledger.Reader))
	if err != nil || !report.OK() {
		t.Errorf("check: %v, %v", report, err)
	}
}
