package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
)

// TestHoldBeforeEngine: when an engine sees a request, its hold is on disk: another reader of the file finds it. I4.
func TestHoldBeforeEngine(t *testing.T) {
	var dir string
	var found atomic.Int64
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		id, err := usage.ParseID(r.Header.Get("X-Request-Id"))
		if err != nil {
			t.Error(err)
		}
		file, err := sqlite.OpenReader(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		file.ByRequest(id, func(e ledger.EntryRow) error {
			if e.Kind == ledger.KindHold {
				found.Add(1)
			}
			return nil
		})
		fmt.Fprint(w, `{}`)
	})
	r := newRig(t, setup{engines: []string{url}})
	dir = r.dir
	r.chat("GOOD", say("", ""))
	r.chat("GOOD", say("", `,"stream":true`))
	if found.Load() != 2 {
		t.Errorf("%d of 2 holds were on disk when the engine was asked", found.Load())
	}
}

// gatedStore lets a test stop commits.
type gatedStore struct {
	ledger.Store
	mu sync.Mutex // held by a test: no commit
}

func (g *gatedStore) Append(shard, epoch int64, b *ledger.Batch) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Store.Append(shard, epoch, b)
}

// TestSettlementBeforeEnd: the end of an answer does not reach the client before its settlement is durable. I4.
func TestSettlementBeforeEnd(t *testing.T) {
	for name, more := range map[string]string{"stream": `,"stream":true`, "whole": ""} {
		t.Run(name, func(t *testing.T) {
			gate := &gatedStore{}
			asked := make(chan struct{})
			e := sim.NewEngine(sim.EngineOptions{Watch: func(sim.Answer) { close(asked) }, Sleep: func(context.Context, time.Duration) error { return nil }})
			defer e.Close()
			var closed bool
			var r *rig
			front := serving(t, func(w http.ResponseWriter, req *http.Request) { // stops commits once the hold is durable
				gate.mu.Lock()
				closed = true
				body, _ := io.ReadAll(req.Body)
				out, err := http.Post(e.URL()+req.RequestURI, "application/json", strings.NewReader(string(body)))
				if err != nil {
					t.Error(err)
					return
				}
				defer out.Body.Close()
				w.Header().Set("Content-Type", out.Header.Get("Content-Type"))
				io.Copy(w, out.Body)
			})
			r = newRig(t, setup{engines: []string{front}, wrapStore: func(s ledger.Store) ledger.Store { gate.Store = s; return gate }})
			answered := make(chan reply, 1)
			go func() { answered <- r.chat("GOOD", say("c=3", more)) }()
			<-asked
			select {
			case p := <-answered:
				t.Errorf("the answer ended while its settlement could not be written: %s", p.body)
				answered <- p
			case <-time.After(100 * time.Millisecond): // long enough for an end that does not wait
			}
			if !closed {
				t.Fatal("the gate was never closed")
			}
			gate.mu.Unlock()
			if p := <-answered; p.status != 200 {
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
}

// TestFailedSettlement: where the settlement cannot be written, the client sees an error and no end of the answer, and is
// not told that nothing was charged: nobody knows (F017). I4, I10.
func TestFailedSettlement(t *testing.T) {
	for name, more := range map[string]string{"stream": `,"stream":true`, "whole": ""} {
		t.Run(name, func(t *testing.T) {
			store := &brokenStore{}
			e := sim.NewEngine(sim.EngineOptions{Sleep: func(context.Context, time.Duration) error { store.broken.Store(true); return nil }})
			defer e.Close()
			r := newRig(t, setup{engines: []string{e.URL()}, wrapStore: func(s ledger.Store) ledger.Store { store.Store = s; return store }})
			p := r.chat("GOOD", say("c=5 delay=1ms", more))
			if strings.Contains(p.body, "[DONE]") || !strings.Contains(p.body, `"ledger_unavailable"`) || strings.Contains(p.body, "Nothing was charged") || !strings.Contains(p.body, "/v1/usage/"+p.id()) || more == "" && p.status != 503 {
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
}

// TestRevocationCutsStreams: a revoked key ends its running streams, and they are settled.
func TestRevocationCutsStreams(t *testing.T) {
	e := sim.NewEngine(sim.EngineOptions{}) // real time: the stream would run for a minute
	t.Cleanup(e.Close)
	r := newRig(t, setup{engines: []string{e.URL()}})
	started := make(chan struct{})
	done := make(chan string, 1)
	var id string
	go func() {
		req, _ := http.NewRequest("POST", r.url+"/v1/chat/completions", strings.NewReader(say("c=2000 delay=20ms", `,"stream":true,"max_tokens":3000`)))
		req.Header.Set("Authorization", "Bearer "+secrets["env:GOOD"])
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			close(started)
			return
		}
		defer resp.Body.Close()
		id = resp.Header.Get("X-Request-Id")
		lines := bufio.NewReader(resp.Body)
		lines.ReadString('\n')
		close(started)
		rest, _ := io.ReadAll(lines)
		done <- string(rest)
	}()
	<-started
	if err := r.world.RevokeKey(context.Background(), "good"); err != nil {
		t.Fatal(err)
	}
	select {
	case rest := <-done:
		if !strings.Contains(rest, `"invalid_api_key"`) || strings.Contains(rest, "[DONE]") {
			t.Errorf("the stream ends with %s", rest)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream goes on")
	}
	r.settled()
	parsed, _ := usage.ParseID(id)
	if rec, _, err := r.ledger.Record(parsed); err != nil || rec.Outcome != usage.Revoked || rec.Status != usage.Posted {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// TestHangUp: a client that leaves cancels the engine at once, streaming or not, and is charged for what was made (F066–F068).
// I6.
func TestHangUp(t *testing.T) {
	for name, more := range map[string]string{"stream": `,"stream":true,"max_tokens":3000`, "whole": `,"max_tokens":3000`} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan sim.Answer, 1)
			e := sim.NewEngine(sim.EngineOptions{Watch: func(a sim.Answer) { ended <- a }})
			t.Cleanup(e.Close)
			r := newRig(t, setup{engines: []string{e.URL()}})
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(say("p=32 c=2000 delay=10ms", more)))
			req.Header.Set("Authorization", "Bearer "+secrets["env:GOOD"])
			go func() {
				for g, _ := e.Running(); g == 0; g, _ = e.Running() {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond)
				cancel()
			}()
			if resp, err := http.DefaultClient.Do(req); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			var a sim.Answer
			select {
			case a = <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the engine goes on")
			}
			r.settled()
			_, input, output := r.totals()
			if a.Tokens.Output >= 2000 || output > a.Tokens.Output || input > 32 {
				t.Errorf("the engine made %+v; %d input, %d output are booked", a.Tokens, input, output)
			}
			if name == "stream" && (input != 32 || output == 0) {
				t.Errorf("the engine made %+v; %d input, %d output are booked", a.Tokens, input, output)
			}
		})
	}
}

// TestApplyUnderLoad: the world changes twenty times while requests run; nothing is lost or charged twice.
func TestApplyUnderLoad(t *testing.T) {
	e := newEngine(t)
	s := setup{engines: []string{e.URL()}}
	r := newRig(t, s)
	var workers sync.WaitGroup
	var failed atomic.Int64
	stop := make(chan struct{})
	asked := atomic.Int64{}
	for w := range 4 {
		workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				more := ""
				if (i+w)%2 == 0 {
					more = streaming
				}
				asked.Add(1)
				if p := r.chat("GOOD", say("p=32 c=20", more)); p.status != 200 {
					failed.Add(1)
					t.Errorf("%d %s", p.status, p.body)
					return
				}
			}
		})
	}
	for i := range 20 {
		s.accounts = fmt.Sprintf("- {path: acme/new%d}\n", i)
		s.prices = fmt.Sprintf("  - {model: m, meter: input, price: \"1.%02d\"}\n  - {model: m, meter: output, price: \"4.00\"}\n", i)
		r.apply(s.resources())
		time.Sleep(2 * time.Millisecond)
	}
	close(stop)
	workers.Wait()
	r.settled()
	requests, input, output := r.totals()
	made := e.Totals().All
	if requests != asked.Load() || input != made.Input || output != made.Output {
		t.Errorf("%d requests were asked, %d are booked; the engine counted %+v, booked are %d and %d", asked.Load(), requests, made, input, output)
	}
}

// TestCanary: a text that is in every request is in no log, file or error of ours, whatever goes wrong. F122; I11.
func TestCanary(t *testing.T) {
	const canary = "kanarienvogel-7Q2x"
	body := func(marker, more string) string {
		return fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"[[%s]] %s"}],"user":"%s"%s}`, marker, canary, canary, more)
	}
	e := newEngine(t)
	echo := answering(t, 400, fmt.Sprintf(`{"error":{"message":"cannot parse %s","type":"%s"}}`, canary, canary))
	for _, url := range []string{e.URL(), echo, "http://" + closedPort(t)} {
		r := newRig(t, setup{engines: []string{url}})
		var replies []reply
		for _, fault := range []string{"", "500", "429", "204", "html", "cut", "error", "giant", "nousage", "huge"} {
			for _, more := range []string{"", streaming, `,"` + canary + `":1`, `,"max_tokens":"` + canary + `"`, `,"stop":["` + canary, `,"n":3,"temperature":"` + canary + `"`} {
				marker := "p=32 c=20"
				if fault != "" {
					marker += " fault=" + fault
				}
				p := r.chat("GOOD", body(marker, more), "Idempotency-Key", canary)
				if p.status != 200 { // an answer of the engine may hold what it likes
					replies = append(replies, p)
				}
			}
		}
		replies = append(replies, r.chat("EMPTY", body("c=1", "")), r.do("POST", "/v1/"+canary, "GOOD", ""))
		r.settled()
		for _, p := range replies {
			shown := strings.ReplaceAll(p.body, `"param":"`+canary+`"`, "") // an unknown parameter is named, as clients expect
			shown = strings.ReplaceAll(shown, "Unknown parameter: "+canary, "")
			if strings.Contains(shown, canary) {
				t.Errorf("an error shows the canary: %d %s", p.status, p.body)
			}
		}
		if strings.Contains(r.log.String(), canary) {
			t.Errorf("the log has the canary:\n%s", r.log)
		}
		if strings.Contains(string(r.files()), canary) {
			t.Error("the ledger's files have the canary")
		}
	}
}

// TestSlowBody: a body that stops half-way is given up, and nothing was held (F075).
func TestSlowBody(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, limits: fastBody})
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{\"model\":", secrets["env:GOOD"])
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 408 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if requests, _, _ := r.totals(); requests != 0 {
		t.Errorf("%d requests are booked", requests)
	}
}

// TestPatienceIsForWritesOnly: an answer that takes longer than a client has to take what is sent is no slow client, over
// HTTP/1.1 and HTTP/2.
func TestPatienceIsForWritesOnly(t *testing.T) {
	url := serving(t, func(w http.ResponseWriter, req *http.Request) {
		if body, _ := io.ReadAll(req.Body); strings.Contains(string(body), `"stream":true`) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, finish := range []string{"null", `"stop"`} {
				fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":%s}]}\n\n", finish)
				w.(http.Flusher).Flush()
				time.Sleep(750 * time.Millisecond)
			}
			fmt.Fprint(w, "data: [DONE]\n\n")
			return
		}
		time.Sleep(750 * time.Millisecond)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`)
	})
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Write: 500 * time.Millisecond}})
	for _, over := range []string{"plain", "TLS", "HTTP/2"} {
		s, h2 := httptest.NewUnstartedServer(r.gw), over == "HTTP/2"
		if s.EnableHTTP2 = h2; over == "plain" {
			s.Start()
		} else {
			s.StartTLS()
		}
		for _, more := range []string{"", `,"stream":true`, ""} { // each finds the deadline of the one before on its connection
			req, _ := http.NewRequest("POST", s.URL+"/v1/chat/completions", strings.NewReader(say("", more)))
			req.Header.Set("Authorization", "Bearer "+secrets["env:GOOD"])
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatalf("%s: %v", over, err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
				t.Errorf("%s: %s %d %s, %v", over, resp.Proto, resp.StatusCode, b, err)
			}
		}
		s.Client().CloseIdleConnections()
		s.Close()
	}
}

// F069: TestDeafClient: a client that stops reading is given up when it has taken nothing for so long, also where its
// deadline stood from earlier events, and its engine is stopped.
func TestDeafClient(t *testing.T) {
	stopped := make(chan struct{})
	url := serving(t, func(w http.ResponseWriter, req *http.Request) {
		defer close(stopped)
		w.Header().Set("Content-Type", "text/event-stream")
		for req.Context().Err() == nil {
			fmt.Fprintf(w, ": %4096d\n\n", 0)
			w.(http.Flusher).Flush()
		}
	})
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Write: time.Second}})
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := say("", streaming)
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", secrets["env:GOOD"], len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	<-stopped
	r.settled()
	if rec := r.record(reply{header: resp.Header}); rec.Outcome != usage.ClientGone {
		t.Errorf("outcome %v", rec.Outcome)
	}
}

// TestEndlessRefusal: an engine that refuses and never ends its refusal holds nothing for long.
func TestEndlessRefusal(t *testing.T) {
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprint(w, "{")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Idle: 50 * time.Millisecond}})
	if p := r.chat("GOOD", say("", "")); p.status != 400 {
		t.Errorf("%d %s", p.status, p.body)
	}
	r.settled()
}

// TestBodiesInThePath: memory for bodies comes with their bytes, and all large ones together have a bound.
func TestBodiesInThePath(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}, limits: gateway.Limits{Bodies: 4 << 20}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const conns = 30
	for range conns { // each promises 16 MiB and sends a byte
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 16777216\r\n\r\n{", secrets["env:GOOD"])
	}
	for r.gw.Running() < conns {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // the last one is on its way from the registry to its first read
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > conns*(256<<10) {
		t.Errorf("%d promises of 16 MiB took %d KiB", conns, grown>>10)
	}
	large := say(strings.Repeat("word ", 1<<20), "")
	if p := r.chat("GOOD", large); p.status != 503 || p.code(t) != "overloaded" {
		t.Errorf("a body of 5 MiB where 4 MiB are for all: %d %s", p.status, p.body)
	}
	if p := r.chat("GOOD", say(strings.Repeat("word ", 1<<16), "")); p.status != 200 {
		t.Errorf("a body of 320 KiB after that: %d %s", p.status, p.body)
	}
}

// TestGivenUpPace: requests that are given up before their usage comes count against the pace of tokens all the same.
func TestGivenUpPace(t *testing.T) {
	asked := make(chan struct{}, 20)
	url := serving(t, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	r := newRig(t, setup{engines: []string{url}})
	for range 2 { // 2,000 tokens a minute: one fits
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/chat/completions", strings.NewReader(say("", `,"max_tokens":1800`)))
		req.Header.Set("Authorization", "Bearer "+secrets["env:PACED"])
		go func() {
			select {
			case <-asked:
			case <-ctx.Done():
			}
			cancel()
		}()
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == 429 {
				cancel()
				return
			}
		}
		r.settled()
		cancel()
	}
	t.Error("the pace was given back to requests that made an engine work")
}

// panicsOnce is a bug of ours in the middle of an answer.
type panicsOnce struct {
	http.ResponseWriter
	done bool
}

func (p *panicsOnce) WriteHeader(status int) {
	if !p.done {
		p.done = true
		panic("a bug with " + panicCanary)
	}
	p.ResponseWriter.WriteHeader(status)
}

const panicCanary = "kanarienvogel-panic"

// TestPanic: a panic ends one request, which is settled at nothing; the log has its type and place, not its text (F013).
func TestPanic(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.gw.ServeHTTP(&panicsOnce{ResponseWriter: w}, req)
	}))
	defer s.Close()
	req, _ := http.NewRequest("POST", s.URL+"/v1/chat/completions", strings.NewReader(say("p=32 c=20", `,"stream":true`)))
	req.Header.Set("Authorization", "Bearer "+secrets["env:GOOD"])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	served := reply{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
	if served.status != 500 || served.code(t) != "internal_error" || !strings.Contains(served.body, served.id()) {
		t.Errorf("%d %s", served.status, served.body)
	}
	if rec := r.record(served); rec.Outcome != usage.Broken || rec.Fault != usage.Gateway || rec.Status != usage.Void {
		t.Errorf("record: %s by %s, %s", rec.Outcome, rec.Fault, rec.Status)
	}
	if log := r.log.String(); !strings.Contains(log, "panic in a request") || !strings.Contains(log, "WriteHeader") || strings.Contains(log, panicCanary) {
		t.Errorf("log: %s", log)
	}
	if p := r.chat("GOOD", say("c=1", "")); p.status != 200 {
		t.Errorf("the next request: %d %s", p.status, p.body)
	}
}
