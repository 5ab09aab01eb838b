package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/usage"
)

// TestEngineFaults lets an engine fail in every way that it knows, and looks at what the client sees and what is booked.
// Rows of the fault matrix stand beside the cases. F033, F035-F042, F044-F046, F049; I5, I6.
func TestEngineFaults(t *testing.T) {
	type want struct {
		status  int
		end     string // how the body ends or what is in it
		outcome usage.Outcome
		output  int64 // billed
		source  usage.Source
		flags   usage.Flags
	}
	const done, gone = "data: [DONE]\n\n", `data: {"error":{`
	const short = `,"max_tokens":200` // a whole answer that is asked for whole; without it the engine streams
	for _, c := range []struct {
		name   string // fault row
		marker string
		more   string
		want   want
	}{
		{"F033 500", "c=5 fault=500", "", want{502, `"engine_unavailable"`, usage.Unserved, 0, usage.SourceNone, 0}},
		{"F033 429", "c=5 fault=429", "", want{503, `"overloaded"`, usage.Unserved, 0, usage.SourceNone, 0}},
		{"F035 cut, stream", "c=50 fault=cut", streaming, want{200, gone, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F035 cut, whole", "c=50 fault=cut", short, want{502, `"engine_unavailable"`, usage.Broken, 0, usage.SourceNone, 0}},
		{"F035 cut, long", "c=50 fault=cut", "", want{502, `"engine_unavailable"`, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F036 error, long", "c=50 fault=error", "", want{502, `"engine_unavailable"`, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F035 reset, stream", "c=50 fault=reset", streaming, want{200, gone, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F036 error, stream", "c=50 fault=error", streaming, want{200, gone, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F037 no usage, whole", "c=5 fault=nousage", short, want{200, `"content"`, usage.Completed, 1, usage.GatewayCount, usage.FlagUsageMissing}},
		{"F037 no usage, long", "c=5 chunks=5 fault=nousage", "", want{200, `"content"`, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageMissing}},
		{"F037 no usage, stream", "c=5 chunks=5 fault=nousage", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageMissing}},
		{"F037 null, whole", "c=5 fault=nullusage", short, want{200, `"content"`, usage.Completed, 1, usage.GatewayCount, usage.FlagUsageMissing}},
		{"F037 null, long", "c=5 chunks=5 fault=nullusage", "", want{200, `"content"`, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageMissing}},
		{"F037 zero, whole", "c=5 fault=zero", short, want{200, `"content"`, usage.Completed, 1, usage.GatewayCount, usage.FlagZeroWithText}},
		{"F037 zero, long", "c=5 chunks=5 fault=zero", "", want{200, `"content"`, usage.Completed, 5, usage.GatewayCount, usage.FlagZeroWithText}},
		{"F037 zero, stream", "c=5 chunks=5 fault=zero", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagZeroWithText}},
		{"F038 twice", "c=20 fault=twice", streaming, want{200, done, usage.Completed, 20, usage.EngineFinal, usage.FlagUsageTwice}},
		{"F039 1e18", "c=5 chunks=5 fault=huge", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F039 -5", "c=5 chunks=5 fault=negative", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F039 string", "c=5 chunks=5 fault=string", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F039 12.5", "c=5 fault=fraction", short, want{200, `"content"`, usage.Completed, 1, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F039 12.5, long", "c=5 chunks=5 fault=fraction", "", want{200, `"content"`, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F039 2^63", "c=5 chunks=5 fault=over63", streaming, want{200, done, usage.Completed, 5, usage.GatewayCount, usage.FlagUsageRefused}},
		{"F040 falls", "c=20 chunks=10 fault=falls", streaming, want{200, done, usage.Completed, 10, usage.EngineRunning, usage.FlagRunningFell}},
		{"F041 overrun", "c=400 chunks=400 fault=overrun", `,"max_tokens":40` + streaming, want{200, `"x_stopped":"budget"`, usage.Cut, 40, usage.EngineRunning, usage.FlagOverBound}},
		{"F041 overrun, long", "c=400 chunks=400 fault=overrun", `,"max_tokens":300`, want{200, `"finish_reason":"length"`, usage.Cut, 300, usage.EngineRunning, usage.FlagOverBound}},
		{"F042 stall, long", "c=20 fault=stall", "", want{504, `"engine_timeout"`, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F042 stall", "c=20 fault=stall", streaming, want{200, gone, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F044 giant line", "c=20 fault=giant", streaming, want{200, gone, usage.Broken, 0, usage.EngineRunning, 0}},
		{"F045 bad SSE", "c=20 fault=badsse", streaming, want{200, done, usage.Completed, 20, usage.EngineFinal, 0}},
		{"F046 gzip", "c=5 fault=gzip", "", want{502, `"engine_unavailable"`, usage.Broken, 0, usage.SourceNone, 0}},
		{"F046 html", "c=5 fault=html", "", want{502, `"engine_unavailable"`, usage.Broken, 0, usage.SourceNone, 0}},
		{"F046 204", "c=5 fault=204", "", want{502, `"engine_unavailable"`, usage.Unserved, 0, usage.SourceNone, 0}},
		{"F049 parts above wholes", "c=5 fault=overcached", "", want{200, `"content"`, usage.Completed, 5, usage.EngineFinal, usage.FlagClamped}},
		{"no [DONE]", "c=5 fault=nodone", streaming, want{200, done, usage.Completed, 5, usage.EngineFinal, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t)
			r := newRig(t, setup{engines: []string{e.URL()}, limits: gateway.Limits{Idle: time.Second, Header: 2 * time.Second}})
			p := r.chat("GOOD", say("p=32 "+c.marker, c.more))
			if p.status != c.want.status || !strings.Contains(p.body, c.want.end) {
				t.Errorf("status %d, want %d, with %q: %.600s", p.status, c.want.status, c.want.end, p.body)
			}
			if c.want.end == gone && strings.Contains(p.body, "[DONE]") {
				t.Errorf("a broken stream ends with [DONE]")
			}
			r.settled()
			rec := r.record(p)
			if rec == nil {
				t.Fatal("no record")
			}
			if rec.Outcome != c.want.outcome || rec.Billed.Output() != c.want.output || rec.Source != c.want.source {
				t.Errorf("outcome %s, billed output %d by %s; want %s, %d by %s", rec.Outcome, rec.Billed.Output(), rec.Source, c.want.outcome, c.want.output, c.want.source)
			}
			if rec.Flags&c.want.flags != c.want.flags {
				t.Errorf("flags %v lack %v", rec.Flags.Names(), c.want.flags.Names())
			}
			if told := regexp.MustCompile(`"completion_tokens":([0-9]+)`).FindAllStringSubmatch(p.body, -1); c.want.flags == usage.FlagOverBound && (len(told) == 0 || told[len(told)-1][1] != fmt.Sprint(rec.Billed.Output())) {
				t.Errorf("%d output tokens are charged, and the answer tells %q", rec.Billed.Output(), told) // what is above the hold is not charged, and not told as used
			}
			if broke := rec.Outcome == usage.Broken || rec.Outcome == usage.Unserved; broke && (!rec.Charge.IsZero() || rec.Status != usage.Void) {
				t.Errorf("what an engine broke is charged %s", rec.Charge)
			}
		})
	}
}

// TestFailover: another engine takes over before the first byte, and both attempts are on the record (F033).
func TestFailover(t *testing.T) {
	good := newEngine(t)
	for name, first := range map[string]string{
		"connect": "http://" + closedPort(t),
		"status":  answering(t, 503, `{"error":{}}`),
		"timeout": serving(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{engines: []string{first, good.URL()}, limits: gateway.Limits{Header: time.Second}})
			p := r.chat("GOOD", say("p=32 c=20", ""))
			if p.status != 200 {
				t.Fatalf("%d %s", p.status, p.body)
			}
			rec := r.record(p)
			if len(rec.Attempts) != 2 || rec.Attempts[0].Engine != "e0" || rec.Attempts[0].Fault != name || rec.Attempts[1].Engine != "e1" || rec.Engine != "e1" {
				t.Errorf("attempts %+v, served by %s", rec.Attempts, rec.Engine)
			}
			if requests, input, output := r.totals(); requests != 1 || input != 32 || output != 20 {
				t.Errorf("booked %d requests, %d input, %d output", requests, input, output)
			}
			// The engine that failed is asked last for a while.
			if rec := r.record(r.chat("GOOD", say("c=1", ""))); len(rec.Attempts) != 1 || rec.Engine != "e1" {
				t.Errorf("the next request tried %+v", rec.Attempts)
			}
		})
	}
}

// TestSplitAnywhere: an engine whose stream arrives in single bytes, with every way to end a line, is relayed byte for
// byte and metered the same (F045). I15.
func TestSplitAnywhere(t *testing.T) {
	events := "\xEF\xBB\xBF: hello\n\ndata:{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ünï \U0001F680\"}}]}\r\n\r\n" +
		"data: {\"id\":\"c\",\rdata: \"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\r\r"
	usageEvent := "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n"
	url := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, b := range []byte(events + usageEvent + "data: [DONE]\n\n") {
			w.Write([]byte{b})
			w.(http.Flusher).Flush()
		}
	})
	r := newRig(t, setup{engines: []string{url}})
	p := r.chat("GOOD", say("", `,"stream":true`))
	if want := events + "data: [DONE]\n\n"; p.body != want {
		t.Errorf("relayed\n%q\nwant\n%q", p.body, want)
	}
	if rec := r.record(p); rec.Billed.Input() != 7 || rec.Billed.Output() != 2 {
		t.Errorf("billed %d input, %d output", rec.Billed.Input(), rec.Billed.Output())
	}
}

// TestSlowLine: a line that comes byte by byte keeps the stream alive as long as it comes, and is cut when it stops (F043).
func TestSlowLine(t *testing.T) {
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 20 {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(2 * time.Millisecond)
		}
		<-r.Context().Done()
	})
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Idle: 50 * time.Millisecond}})
	p := r.chat("GOOD", say("", `,"stream":true`))
	if p.status != 200 || !strings.Contains(p.body, `"engine_timeout"`) {
		t.Errorf("%d %s", p.status, p.body)
	}
}

// TestBoundAsAsked: of a generic engine nobody knows which bound it obeys: it gets the one that the client used.
func TestBoundAsAsked(t *testing.T) {
	var got atomic.Pointer[string]
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s := string(body)
		got.Store(&s)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	})
	r := newRig(t, setup{engines: []string{url}, kind: "openai"})
	for more, want := range map[string]string{
		"":                           `"max_completion_tokens":1000`,
		`,"max_tokens":7`:            `"max_tokens":7`,
		`,"max_completion_tokens":8`: `"max_completion_tokens":8`,
		`,"max_tokens":null`:         `"max_completion_tokens":1000`,
	} {
		if p := r.chat("GOOD", say("", more)); p.status != 200 {
			t.Fatalf("%q: %d %s", more, p.status, p.body)
		}
		if sent := *got.Load(); !strings.Contains(sent, want) || strings.Count(sent, `"max_`) != 1 {
			t.Errorf("%q: the engine got %s, want one bound, %s", more, sent, want)
		}
	}
}

// salt is what is random in a request, and may hold any short text by chance.
var salt = regexp.MustCompile(`"cache_salt":"[^"]*"|(?m)^(X-Request-Id|Traceparent):.*$`)

// TestEngineSeesOurBound: what is forwarded is what the client sent, with the model, the bound and the stream's options as
// we have them, our key for the engine, and nothing of the caller's key. I11.
func TestEngineSeesOurBound(t *testing.T) {
	var got atomic.Pointer[string]
	url := serving(t, func(w http.ResponseWriter, r *http.Request) {
		b := new(strings.Builder)
		r.Header.Write(b)
		body := make([]byte, r.ContentLength)
		r.Body.Read(body)
		s := b.String() + "\n" + string(body)
		got.Store(&s)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	})
	r := newRig(t, setup{engines: []string{url}})
	for _, c := range []struct {
		name, more string
		has, lacks []string
	}{
		{"no bound", ``, []string{`"max_tokens":1000`, `"stream":true`, `"continuous_usage_stats":true`}, nil},
		{"smaller of two", `,"max_tokens":50,"max_completion_tokens":70`, []string{`"max_tokens":50`}, []string{":70", "max_completion", `"stream"`}},
		{"above the model's", `,"max_tokens":100000`, []string{`"max_tokens":4096`}, []string{"100000"}},
		{"null", `,"max_tokens":null`, []string{`"max_tokens":1000`}, []string{"null"}},
		{"zero is one", `,"max_tokens":0`, []string{`"max_tokens":1`}, nil},
		{"big integers survive", `,"seed":12345678901234567890123`, []string{`"seed":12345678901234567890123`}, nil},
		{"as written", `,"temperature" : 1.00 ,"stop":["\u00e9","\/"]`, []string{`"temperature":1.00`, `["\u00e9","\/"]`}, nil},
	} {
		p := r.chat("GOOD", say("x", c.more))
		if p.status != 200 {
			t.Errorf("%s: %d %s", c.name, p.status, p.body)
			continue
		}
		sent := *got.Load()
		for _, want := range append(c.has, `[[x]] hello`, `"model":"m"`, `"cache_salt":"`) {
			if !strings.Contains(sent, want) {
				t.Errorf("%s: the engine did not get %s: %s", c.name, want, sent)
			}
		}
		for _, not := range append(c.lacks, secrets["env:GOOD"]) {
			if strings.Contains(salt.ReplaceAllString(sent, ""), not) {
				t.Errorf("%s: the engine got %s: %s", c.name, not, sent)
			}
		}
	}
}
