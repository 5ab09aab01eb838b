package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/cli"
	"talea/internal/ledger"

	"github.com/spf13/cobra"
)

// fakeEngine speaks as vLLM does; every answer has 32 input and 20 output tokens. A stream waits for go before its end.
type fakeEngine struct {
	*httptest.Server
	goOn chan struct{}
}

func newFakeEngine(t *testing.T) *fakeEngine {
	e := &fakeEngine{goOn: make(chan struct{})}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(func() {
		e.CloseClientConnections()
		e.Close()
	})
	return e
}

const (
	spent  = `"usage":{"prompt_tokens":32,"completion_tokens":20,"total_tokens":52}`
	plainA = `{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],` + spent + `}`
	event  = `data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":%s}],"usage":{"prompt_tokens":32,"completion_tokens":%d,"total_tokens":%d}}` + "\n\n"
	last   = `data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[],` + spent + "}\n\ndata: [DONE]\n\n"
)

func (e *fakeEngine) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if !bytes.Contains(body, []byte(`"stream":true`)) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, plainA)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, event, "null", 1, 33)
	w.(http.Flusher).Flush()
	select {
	case <-e.goOn:
	case <-r.Context().Done():
		return
	}
	fmt.Fprintf(w, event, `"stop"`, 20, 52)
	io.WriteString(w, last)
}

// rig is a server that was started as a person would, by its command.
type rig struct {
	t       *testing.T
	dir     string
	env     map[string]string
	args    []string
	engine  *fakeEngine
	clock   ledger.Clock
	log     lockedBuffer
	stop    context.CancelFunc
	ended   chan int // exit status
	stderr  lockedBuffer
	tenants string
	admin   string
	token   string
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func secretOf(name string) string { return "xq-acceptance-" + name + "-0123456789abcdef" }

func newRig(t *testing.T, args ...string) *rig {
	r := &rig{t: t, dir: t.TempDir(), env: map[string]string{}, engine: newFakeEngine(t), clock: wallClock{}}
	text, err := os.ReadFile("../cli/testdata/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r.write("resources.yaml", strings.Replace(string(text), "http://127.0.0.1:9000", r.engine.URL, 1))
	r.write("keys/engine", "sk-upstream\n")
	for _, name := range []string{"good", "stream", "budget20", "exhausted", "limited"} {
		r.write("keys/"+name, secretOf(name)+"\n")
	}
	r.args = append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", filepath.Join(r.dir, "data"), "--resources", filepath.Join(r.dir, "resources.yaml")}, args...)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) host() Host {
	return Host{
		Lookup: func(name string) (string, bool) { v, ok := r.env[name]; return v, ok },
		Clock:  r.clock, Random: rand.Reader, Version: "test", Log: slog.New(slog.NewTextHandler(&r.log, nil)),
	}
}

// program is one call of the tool.
func (r *rig) program(stdout io.Writer, args ...string) *cli.Program {
	h := r.host()
	return &cli.Program{
		Args: args, Stdout: stdout, Stderr: &r.stderr, Lookup: h.Lookup, Now: time.Now, Random: rand.Reader, Version: "test",
		Commands: []*cobra.Command{serveCommand(h, stdout)},
	}
}

// start runs the server until the ready lines are there; it returns false where it ended instead.
func (r *rig) start() bool {
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	r.stop, r.ended = stop, make(chan int, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		status := r.program(in, r.args...).Run(ctx)
		r.ended <- status
		in.Close()
	}()
	r.t.Cleanup(func() {
		stop()
		<-gone // it writes until then
	})
	lines := bufio.NewScanner(out)
	r.tenants, r.admin, r.token = "", "", ""
	for (r.tenants == "" || r.admin == "") && lines.Scan() {
		what, where, _ := strings.Cut(lines.Text(), " on ")
		switch what {
		case "talea: tenants":
			r.tenants = where
		case "talea: operators":
			r.admin = where
		}
	}
	if r.admin == "" {
		return false
	}
	r.env["TALEA_ADMIN"] = r.admin
	rest := make(chan string, 1)
	go func() {
		if lines.Scan() {
			rest <- lines.Text()
		}
		close(rest)
		io.Copy(io.Discard, out)
	}()
	if _, err := os.Stat(filepath.Join(r.dir, "shown")); err != nil && r.env["TALEA_ADMIN_TOKEN"] == "" {
		_, r.token, _ = strings.Cut(<-rest, "shown this once: ")
		r.write("shown", "") // a second start prints none
	}
	return true
}

func (r *rig) mustStart() *rig {
	r.t.Helper()
	if !r.start() {
		r.t.Fatalf("the server ended with status %d: %s", <-r.ended, r.stderr.String())
	}
	return r
}

func (r *rig) ask(key, body string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequest("POST", r.tenants+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secretOf(key))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (r *rig) status(path string) int {
	r.t.Helper()
	resp, err := http.Get(r.tenants + path)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// talea runs the tool against the server.
func (r *rig) talea(args ...string) (string, int) {
	var out bytes.Buffer
	status := r.program(&out, args...).Run(context.Background())
	return out.String(), status
}

const (
	hello     = `{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`
	helloLive = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
)

// TestAcceptance walks the rows of the acceptance surface that need a running server.
func TestAcceptance(t *testing.T) {
	r := newRig(t).mustStart()
	if r.status("/readyz") != 200 {
		t.Error("not ready after the ready lines")
	}
	if len(r.token) < 64 {
		t.Fatalf("admin token %q", r.token)
	}
	if _, status := r.talea("usage"); status != cli.ExitUnauthorised {
		t.Errorf("without a token the tool ends with %d", status)
	}
	r.env["TALEA_ADMIN_TOKEN"] = r.token
	resp := r.ask("good", hello)
	if resp.StatusCode != 200 || resp.Header.Get("X-Cost") != "0.000112" {
		t.Fatalf("status %d, cost %q", resp.StatusCode, resp.Header.Get("X-Cost"))
	}
	id := resp.Header.Get("X-Request-Id")
	r.receipt(id)
	if resp := r.ask("exhausted", hello); resp.StatusCode != 402 {
		t.Errorf("an exhausted budget is answered with %d", resp.StatusCode)
	}
	for _, c := range []struct {
		call   string
		want   string
		status int
	}{
		{"usage --account acme/research --by account,model -o json", `[{"account":"acme/research/chat","model":"m","requests":1,"input_tokens":32,"cache_read_input_tokens":0,"output_tokens":20,"reasoning_output_tokens":0,"gpu_seconds":null,"charge":"0.000112","currency":"EUR"}]`, 0},
		{"ledger check --data " + filepath.Join(r.dir, "data"), "", 0},
		{"ledger check", "", 0},
		{"why " + id + " -o json", "", 0},
		{"apply --dry-run -f " + filepath.Join(r.dir, "resources.yaml"), "", 0},
		{"usage --colour red", "", 2},
	} {
		out, status := r.talea(strings.Fields(c.call)...)
		if status != c.status {
			t.Errorf("talea %s ends with %d: %s%s", c.call, status, out, r.stderr.String())
		}
		var compact bytes.Buffer
		if c.want != "" && (json.Compact(&compact, []byte(out)) != nil || strings.TrimSpace(compact.String()) != c.want) {
			t.Errorf("talea %s says\n%s\nwant\n%s", c.call, compact.String(), c.want)
		}
	}
	r.stop()
	if status := <-r.ended; status != 0 {
		t.Errorf("the server ended with %d: %s", status, r.stderr.String())
	}
	r.mustStart() // the same key and token are good after a restart, and the token is not shown again
	if out, status := r.talea("usage", "-o", "json"); status != 0 || !strings.Contains(out, `"requests": 1,`) {
		t.Errorf("after a restart usage ends with %d: %s", status, out)
	}
	if resp := r.ask("good", hello); resp.StatusCode != 200 {
		t.Errorf("after a restart the key is answered with %d", resp.StatusCode)
	}
}

// receipt checks what a tenant sees of its request, and that another key sees nothing.
func (r *rig) receipt(id string) {
	r.t.Helper()
	for key, want := range map[string]string{"good": `"status":"posted"`, "stream": `"code":"not_found"`} {
		req, err := http.NewRequest("GET", r.tenants+"/v1/usage/"+id, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secretOf(key))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Contains(body, []byte(want)) {
			r.t.Errorf("the receipt for %s is %s (%v), want %s", key, body, err, want)
		}
	}
}

// F125: what belongs to the inside is not on the tenants' port.
func TestTenantsPortHasNothingElse(t *testing.T) {
	r := newRig(t).mustStart()
	for _, path := range []string{"/", "/metrics", "/debug/pprof/", "/debug/vars", "/swagger", "/v1/status", "/v1/keys", "/V1/models", "/v1//models"} {
		if got := r.status(path); got != 404 {
			t.Errorf("%s is answered with %d", path, got)
		}
	}
}

// untilDraining waits until the server refuses what is new.
func (r *rig) untilDraining() {
	for r.status("/readyz") == 200 {
	}
}

func TestDrainLetsStreamsEnd(t *testing.T) {
	r := newRig(t).mustStart()
	live := r.ask("stream", helloLive)
	r.stop()
	r.untilDraining()
	if resp := r.ask("good", hello); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new request is answered with %d", resp.StatusCode)
	}
	close(r.engine.goOn)
	body, err := io.ReadAll(live.Body)
	if err != nil || !bytes.HasSuffix(body, []byte("data: [DONE]\n\n")) {
		t.Errorf("the running stream ended with %v: %s", err, body)
	}
	if status := <-r.ended; status != 0 {
		t.Errorf("ended with %d: %s", status, r.stderr.String())
	}
	if out, status := r.talea("ledger", "check", "--data", filepath.Join(r.dir, "data")); status != 0 || !strings.Contains(out, "1 requests posted, 0 void, 0 open") {
		t.Errorf("the books: %d, %s", status, out)
	}
}

func TestGraceEnds(t *testing.T) {
	r := newRig(t, "--grace", "1ms").mustStart()
	live := r.ask("stream", helloLive)
	r.stop()
	body, err := io.ReadAll(live.Body)
	if err != nil || !bytes.Contains(body, []byte(`data: {"error":`)) || bytes.Contains(body, []byte("[DONE]")) {
		t.Errorf("the stream ended with %v: %s", err, body)
	}
	if status := <-r.ended; status != 0 {
		t.Errorf("ended with %d: %s", status, r.stderr.String())
	}
	if out, status := r.talea("ledger", "check", "--data", filepath.Join(r.dir, "data")); status != 0 || !strings.Contains(out, " 0 open;") {
		t.Errorf("the books: %d, %s", status, out)
	}
}

func TestLedgerFailureEndsTheProcess(t *testing.T) {
	r := newRig(t).mustStart()
	if err := os.Rename(filepath.Join(r.dir, "data", "talea.db"), filepath.Join(r.dir, "gone.db")); err != nil {
		t.Fatal(err)
	}
	if resp := r.ask("good", hello); resp.StatusCode != 503 {
		t.Errorf("without a ledger a request is answered with %d", resp.StatusCode)
	}
	if status := <-r.ended; status != 1 || !strings.Contains(r.stderr.String(), "talea: cannot make anything durable, so nothing is admitted any more") {
		t.Errorf("ended with %d: %s", status, r.stderr.String())
	}
}

// TestWillNotStart has a row for each start that fails: F087, F090, F093, F096 and the rest.
func TestWillNotStart(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		spoil  func(*rig)
		status int
		want   string
	}{
		{"unknown key", nil, func(r *rig) { r.write("resources.yaml", "accounts:\n- {path: a, curency: EUR}\n") }, 1, `resources.yaml:2:13: unknown key "curency" in account; did you mean "currency"?`},
		{"wrong type", nil, func(r *rig) { r.write("resources.yaml", "models:\n- {name: m, engines: stub}\n") }, 1, "resources.yaml:2:"},
		{"duplicate key", nil, func(r *rig) { r.write("resources.yaml", "accounts:\n- {path: a, path: b}\n") }, 1, `resources.yaml:2:13: duplicate key "path"`},
		{"empty secret", nil, func(r *rig) { r.write("keys/good", " \n") }, 1, "file:keys/good: the secret is empty"},
		{"no secret", nil, func(r *rig) { os.Remove(filepath.Join(r.dir, "keys/good")) }, 1, "resources.yaml:46:59: file:keys/good: "},
		{"huge secret", nil, func(r *rig) { r.write("keys/good", strings.Repeat("x", maxSecretTest)) }, 1, "that is no secret"},
		{"no resources", nil, func(r *rig) { os.Remove(filepath.Join(r.dir, "resources.yaml")) }, 1, "cannot read the resources"},
		{"known token", nil, func(r *rig) { r.env["TALEA_ADMIN_TOKEN"] = "changeme" }, 1, "cannot use TALEA_ADMIN_TOKEN"},
		{"empty token", nil, func(r *rig) { r.env["TALEA_ADMIN_TOKEN"] = "" }, 1, "it is empty"},
		{"remote admin", []string{"--admin", ":0"}, nil, 2, "--admin-allow-remote"},
		{"remote admin address", []string{"--admin", "0.0.0.0:0"}, nil, 2, "can be reached from elsewhere"},
		{"no address", []string{"--admin", "nonsense"}, nil, 2, "is no address"},
		{"no listen address", []string{"--listen", "127.0.0.1:99999"}, nil, 1, "cannot listen for tenants"},
		{"no certificate", []string{"--tls-cert", "none.pem", "--tls-key", "none.pem"}, nil, 1, "cannot use the TLS certificate"},
		{"ledger is no ledger", nil, func(r *rig) { r.write("data/talea.db", strings.Repeat("no database ", 100)) }, 1, "cannot open the ledger, and nothing is admitted without it"},
		{"data is a file", nil, func(r *rig) { r.write("data", "") }, 1, "cannot make the data directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.args...)
			if c.spoil != nil {
				c.spoil(r)
			}
			if r.start() {
				t.Fatal("it has started")
			}
			if status := <-r.ended; status != c.status || !strings.Contains(r.stderr.String(), c.want) {
				t.Errorf("ended with %d, want %d: %s\nwant %s", status, c.status, r.stderr.String(), c.want)
			}
			for _, name := range []string{"stream", "good"} {
				if strings.Contains(r.stderr.String()+r.log.String(), secretOf(name)) {
					t.Errorf("a secret is shown: %s", r.stderr.String())
				}
			}
		})
	}
}

const maxSecretTest = 70_000 // bytes, more than the file of a secret may have

// fastClock is an hour ahead.
type fastClock struct{}

func (fastClock) Now() time.Time { return time.Now().Add(time.Hour) }

// F089: there is no mode without a ledger: who does not say where it is gets no server, and nobody is answered.
func TestNoLedgerNoServer(t *testing.T) {
	for _, args := range [][]string{nil, {"--data", ""}} {
		r := newRig(t)
		i := slices.Index(r.args, "--data")
		r.args = append(slices.Delete(r.args, i, i+2), args...)
		if r.start() {
			t.Fatalf("it has started with %q", r.args)
		}
		if status := <-r.ended; status != cli.ExitUsage || !strings.Contains(r.stderr.String(), "--data") {
			t.Errorf("with %q it ends with %d: %s", r.args, status, r.stderr.String())
		}
	}
}

func TestClockThatWentBack(t *testing.T) {
	r := newRig(t)
	r.clock = fastClock{}
	r.mustStart()
	r.stop()
	<-r.ended
	r.clock = wallClock{}
	if r.start() {
		t.Fatal("it has started with a clock that went back")
	}
	if status := <-r.ended; status != 1 || !strings.Contains(r.stderr.String(), "--trust-clock") {
		t.Errorf("ended with %d: %s", status, r.stderr.String())
	}
	r.args = append(r.args, "--trust-clock")
	r.mustStart()
}

func TestOneProcessOwnsADirectory(t *testing.T) {
	first := newRig(t).mustStart()
	second := newRig(t)
	second.args = append(second.args, "--data", filepath.Join(first.dir, "data"))
	if second.start() {
		t.Fatal("two servers run on one directory")
	}
	if status := <-second.ended; status != 1 || !strings.Contains(second.stderr.String(), "in use by another talea process") {
		t.Errorf("ended with %d: %s", status, second.stderr.String())
	}
}

// F096, as a client sees it: the port speaks TLS, and a renewed certificate is served without a restart.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	now := time.Now()
	first := writePair(t, certFile, keyFile, 1, now.AddDate(1, 0, 0))
	r := newRig(t, "--tls-cert", certFile, "--tls-key", keyFile).mustStart()
	get := func(trusted *x509.Certificate) error {
		pool := x509.NewCertPool()
		pool.AddCert(trusted)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(r.tenants + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Errorf("status %d over HTTP/%d", resp.StatusCode, resp.ProtoMajor)
		}
		return nil
	}
	if err := get(first); err != nil {
		t.Fatal(err)
	}
	second := writePair(t, certFile, keyFile, 2, now.AddDate(1, 0, 0))
	touch(t, now.Add(time.Minute), certFile, keyFile)
	if err := get(second); err != nil {
		t.Error("after the change:", err)
	}
	if err := get(first); err == nil {
		t.Error("the old certificate is still served")
	}
	if !strings.HasPrefix(r.admin, "http://127.0.0.1:") {
		t.Errorf("admin port at %s", r.admin)
	}
}

// F075: headers that do not come to an end in ten seconds end the connection.
func TestSlowHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	r := newRig(t).mustStart()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.tenants, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if b, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection goes on: %q, %v", b, err)
	}
}
