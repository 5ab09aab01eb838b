package app

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"talea/internal/admin"
	"talea/internal/sim"
)

// demoOutput is what a demo wrote so far. The greeting is sent on as soon as it is there.
type demoOutput struct {
	mu       sync.Mutex // guards text
	text     bytes.Buffer
	greeting chan string
}

func (o *demoOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len() == 0 {
		o.greeting <- string(b)
	}
	return o.text.Write(b)
}

// testDemo is a demo in which time runs ten times faster for engines and callers, and nobody hangs up.
func testDemo(o demoOptions) (*demo, *demoOutput) {
	out := &demoOutput{greeting: make(chan string, 1)}
	d := &demo{o: o, out: out, sleep: func(ctx context.Context, t time.Duration) error {
		timer := time.NewTimer(t / 10)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	for _, a := range demoApps {
		a.HangUps = 0
		d.apps = append(d.apps, a)
	}
	return d, out
}

var curlLine = regexp.MustCompile(`(?s)curl (\S+) \\\n  -H '([^:]*): ([^']*)' \\\n  -d '([^']*)'\n`)

// callAsPrinted makes the call that the demo prints.
func callAsPrinted(t *testing.T, greeting string) {
	t.Helper()
	m := curlLine.FindStringSubmatch(greeting)
	if m == nil {
		t.Errorf("no curl line in %s", greeting)
		return
	}
	r, _ := http.NewRequest("POST", m[1], strings.NewReader(m[4]))
	r.Header.Set(m[2], m[3])
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl has it
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(b), `"cost"`) {
		t.Errorf("status %d, error %v: %s", resp.StatusCode, err, b)
	}
}

// What the demo shows in the end is what its engines generated, and the ledger's own check agrees.
func TestDemo(t *testing.T) {
	length := 3 * time.Second
	if testing.Short() {
		length = time.Second
	}
	d, out := testDemo(demoOptions{For: length})
	ended := make(chan error, 1)
	go func() { ended <- d.run(t.Context(), osHost("test", io.Discard)) }()
	callAsPrinted(t, <-out.greeting)
	if err := <-ended; err != nil {
		t.Fatal(err, out.text.String())
	}
	var made sim.Totals
	for _, e := range d.engines {
		books := e.Totals()
		made.Aborted += books.Aborted
		made.Completed += books.Completed
		made.Done.Input += books.Done.Input
		made.Done.Cached += books.Done.Cached
		made.Done.Output += books.Done.Output
		made.Done.Reasoning += books.Done.Reasoning
	}
	s := d.final.of("")
	charged := sim.Tokens{Input: s.input, Cached: s.cached, Output: s.output, Reasoning: s.reasoning}
	if made.Aborted > 0 { // a machine too slow for the grace at the end
		t.Logf("%d answers were broken off: only bounds can be checked", made.Aborted)
		if charged.Input < made.Done.Input || charged.Output < made.Done.Output {
			t.Errorf("charged %+v, completed answers have %+v", charged, made.Done)
		}
	} else if charged != made.Done || s.requests != made.Completed {
		t.Errorf("charged %d requests with %+v, the engines completed %d with %+v", s.requests, charged, made.Completed, made.Done)
	}
	if s.requests < 10 || s.cached == 0 || s.charge.IsZero() {
		t.Errorf("hardly any traffic: %+v", s)
	}
	text := out.text.String()
	for _, want := range []string{"0:00  requests 0", "every chain unbroken", "talea serve", "startup/labs"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
	if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", d.dir, err)
	}
}

// A real engine takes the place of the simulated ones; here another simulated one plays it.
func TestDemoWithEngine(t *testing.T) {
	e := sim.NewEngine(sim.EngineOptions{Models: []sim.Model{{Name: "some/model:1b"}}})
	defer e.Close()
	for _, o := range []demoOptions{
		{Engine: e.URL(), Kind: "vllm"},
		{Engine: strings.TrimPrefix(e.URL(), "http://") + "/v1/", Kind: "openai", Model: "some/model:1b"},
	} {
		o.For = 500 * time.Millisecond
		before := e.Totals().Completed
		d, out := testDemo(o)
		ended := make(chan error, 1)
		go func() { ended <- d.run(t.Context(), osHost("test", io.Discard)) }()
		callAsPrinted(t, <-out.greeting)
		if err := <-ended; err != nil {
			t.Fatal(err, out.text.String())
		}
		if got := e.Totals().Completed - before; d.final.of(modelSum("some/model:1b")).requests != got || got == 0 {
			t.Errorf("%+v: %d requests charged, %d completed", o, d.final.of("").requests, got)
		}
	}
}

func TestDemoFails(t *testing.T) {
	silent := sim.NewEngine(sim.EngineOptions{})
	silent.Close()
	for _, c := range []struct {
		o    demoOptions
		want string
	}{
		{demoOptions{Engine: silent.URL(), Kind: "vllm"}, "cannot ask the engine at " + silent.URL()},
		{demoOptions{Listen: "256.0.0.1:1"}, "cannot listen for tenants"},
		{demoOptions{Admin: "0.0.0.0:0"}, "can be reached from elsewhere"},
	} {
		d, _ := testDemo(c.o)
		if err := d.run(t.Context(), osHost("test", io.Discard)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.o, err, c.want)
		}
		if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
			t.Errorf("%+v: %s is still there", c.o, d.dir)
		}
	}
}

// sampleFigures are some of everything, with large numbers.
func sampleFigures() *demoFigures {
	f := &demoFigures{elapsed: 75 * time.Second, sums: map[string]*demoSum{}}
	f.status = admin.Status{Running: 31, ClientGone: 4321, Refused: 1_234_567, Refusals: []admin.Refused{{Reason: "rate_requests", Count: 3}, {Reason: "budget_reached", Count: 1_234_564}}}
	for _, row := range []admin.UsageRow{
		{Account: "hospital/radiology/reports", Model: "llama-70b", Requests: 12_345, Input: 123_456_789, CacheRead: 23_456_789, Output: 9_876_543, Reasoning: 1},
		{Account: "ministry/a-department-with-a-long-name/registry", Model: "a-model-whose-name-is-longer-than-its-column", Requests: 1, Input: 1, Output: 1},
	} {
		f.add(&row)
	}
	f.limits = []demoLimit{
		{admin.Limit{Account: "hospital/radiology", Measure: "money", Window: "day", Limit: "0.1", Used: "0.075", Held: "0.01", Currency: "EUR"}},
		{admin.Limit{Account: "hospital", Measure: "tokens", Window: "hour", Limit: "150000", Used: "149999", Held: "0"}},
		{admin.Limit{Account: "ministry", Measure: "money", Window: "total", Limit: "0", Used: "0", Held: "0", Currency: "EUR"}},
	}
	return f
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// No line is wider than the screen, no screen higher, whatever its size.
func TestViewFits(t *testing.T) {
	v := &demoView{at: Ready{Tenants: "http://127.0.0.1:65535"}, key: "demo-abcdefghijklmnopqrstuvwxyz", model: "llama-8b"}
	f := sampleFigures()
	for _, size := range [][2]int{{1, 1}, {20, 5}, {40, 10}, {60, 24}, {79, 24}, {80, 24}, {98, 30}, {100, 27}, {120, 40}, {300, 100}} {
		lines := v.lines(f, size[0], size[1])
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(sgr.ReplaceAllString(l, "")); n > size[0]-1 && size[0] > 1 {
				t.Errorf("%v: %d columns: %s", size, n, l)
			}
		}
	}
}

func TestView(t *testing.T) {
	v := &demoView{at: Ready{Tenants: "http://127.0.0.1:80"}, key: "demo-k", model: "m", plain: true, ascii: true}
	text := strings.Join(v.lines(sampleFigures(), 120, 40), "\n")
	for _, want := range []string{
		"1:15  q ends",
		"requests     12,346   running 31   hung up 4,321   charged 0.0000 EUR",
		"tokens    123,456,790 in, 18% cached   9,876,544 out, 0% reasoning",
		"hospital                 12,345     123.4M 23,456,789 9,876,543   0.0000  ###############-  99% of 150,000 tokens/hour",
		"  radiology              12,345     123.4M 23,456,789 9,876,543   0.0000  ############+---  75% of 0.10 EUR/day",
		"ministry                      1          1          0         1   0.0000  ################ 100% of 0 EUR",
		"refused   1,234,567   budget_reached 1,234,564  rate_requests 3",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.ContainsAny(text, "\x1b━") {
		t.Errorf("colours or signs beyond ASCII in %q", text)
	}
}
