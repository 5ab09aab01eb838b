package gateway_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/internal/tape"
	"talea/internal/usage"
	"talea/internal/world"
)

// wall is the clock of the machine: tests of the path run in real time, and none of them measures it.
type wall struct{}

func (wall) Now() time.Time { return time.Now() }

// lockedBuffer is a log that goroutines share.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a whole gateway: real store, real ledger, real world, sockets on both sides.
type rig struct {
	t      *testing.T
	dir    string
	ledger *ledger.Ledger
	world  *world.World
	gw     *gateway.Gateway
	url    string
	log    *lockedBuffer
	store  ledger.Store
	hasher *identity.Hasher
}

// setup says what differs from the ordinary rig.
type setup struct {
	engines   []string                // URLs; the model "m" is served by all, in this order
	kind      string                  // "vllm"
	extra     string                  // more resources: whole sections go to the end
	accounts  string                  // more accounts
	keys      string                  // more keys
	prices    string                  // instead of the ordinary ones
	book      string                  // more members of the price book
	tape      func(r *rig) *tape.Tape // of prices that follow the load
	limits    gateway.Limits
	wait      time.Duration
	wrapStore func(ledger.Store) ledger.Store
}

var secrets = map[string]string{
	"env:STRICT": "strict-key-0123456789abcdef",
	"env:GOOD":   "good-key-0123456789abcdef", "env:SMALL": "small-key-0123456789abcdef", "env:EMPTY": "empty-key-0123456789abcdef",
	"env:OWN": "own-key-0123456789abcdef", "env:SLOW": "slow-key-0123456789abcdef", "env:FAR": "far-key-0123456789abcdef", "env:PACED": "paced-key-0123456789abcdef",
}

func (s *setup) resources() string {
	var engines, names strings.Builder
	kind := s.kind
	if kind == "" {
		kind = "vllm"
	}
	for i, url := range s.engines {
		fmt.Fprintf(&engines, "- {name: e%d, kind: %s, url: %q, region: eu-de}\n", i, kind, url)
		fmt.Fprintf(&names, "e%d,", i)
	}
	prices := s.prices
	if prices == "" {
		prices = `  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: input_cache_read, price: "0.10"}
  - {model: m, meter: output, price: "4.00"}
`
	}
	return fmt.Sprintf(`engines:
%smodels:
- {name: m, served_as: m, engines: [%s], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000}
- {name: unpriced, served_as: m, engines: [%[2]s], parameters: 8.03e9, context_tokens: 131072}
price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-01-01T00:00:00+01:00}
%[7]s  prices:
%[3]saccounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: public}
- path: acme/research
  limits:
  - {measure: money, window: month, amount: "1000000"}
- {path: acme/research/chat}
- path: acme/small
  limits:
  - {measure: tokens, window: month, amount: "5000"}
- {path: acme/small/app}
- path: acme/empty
  limits:
  - {measure: money, window: month, amount: "0"}
- {path: acme/empty/app}
- path: acme/slow
  rate: {requests_per_minute: 60, burst: 3}
- {path: acme/slow/app}
- path: acme/paced
  rate: {tokens_per_minute: 2000, token_burst: 2000}
- {path: acme/paced/app}
- {path: acme/far, regions: [us-east]}
- {path: acme/far/app}
%[4]skeys:
- {name: good,  account: acme/research/chat, secret: "env:GOOD"}
- {name: small, account: acme/small/app,     secret: "env:SMALL"}
- {name: empty, account: acme/empty/app,     secret: "env:EMPTY"}
- {name: slow,  account: acme/slow/app,      secret: "env:SLOW"}
- {name: paced, account: acme/paced/app,     secret: "env:PACED"}
- {name: far,   account: acme/far/app,       secret: "env:FAR"}
%[5]s%[6]s`, engines.String(), strings.TrimSuffix(names.String(), ","), prices, s.accounts, s.keys, s.extra, s.book)
}

func newRig(t *testing.T, s setup) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	file, err := sqlite.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.store = file
	if s.wrapStore != nil {
		r.store = s.wrapStore(file)
	}
	if r.ledger, err = ledger.Open(r.store, ledger.Options{Clock: wall{}, Wait: s.wait}); err != nil {
		t.Fatal(err)
	}
	hasher := identity.NewHasher([32]byte{1}, rand.Reader)
	if r.world, err = world.Open(r.ledger, hasher, wall{}); err != nil {
		t.Fatal(err)
	}
	r.hasher = hasher
	r.apply(s.resources())
	var prices *tape.Tape
	if s.tape != nil {
		prices = s.tape(r)
	}
	r.gw = gateway.New(gateway.Options{Tape: prices, World: r.world, Ledger: r.ledger, Hasher: hasher, Clock: wall{}, Node: 1, Limits: s.limits,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	server := httptest.NewUnstartedServer(r.gw)
	server.Listener = gateway.Listen(server.Listener)
	server.Start()
	r.url = server.URL
	t.Cleanup(func() {
		r.gw.Abort()
		server.Close()
		r.gw.Close()
		if n := r.ledger.OpenHolds(); n != 0 && r.ledger.Ready() == nil {
			t.Errorf("%d holds are left", n)
		}
		r.ledger.Close()
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

func (r *rig) apply(text string) {
	r.t.Helper()
	if _, err := r.world.Apply(context.Background(), world.Source{File: "test.yaml", Text: []byte(text), Secrets: secrets}, false); err != nil {
		r.t.Fatal(err)
	}
}

// reply is what came back.
type reply struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // of reading the body
}

func (r *rig) do(method, path, key, body string, header ...string) reply {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+secrets["env:"+key])
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, resp.Trailer, string(b), err}
}

func (r *rig) chat(key, body string, header ...string) reply {
	r.t.Helper()
	return r.do("POST", "/v1/chat/completions", key, body, header...)
}

// say is a request body whose message carries a marker for the simulated engine.
func say(marker, more string) string {
	return fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"[[%s]] hello"}]%s}`, marker, more)
}

const streaming = `,"stream":true,"stream_options":{"include_usage":true}`

// code is the code of an error body.
func (p reply) code(t *testing.T) string {
	t.Helper()
	var e struct {
		Error struct {
			Message, Type string
			Param, Code   *string
		}
	}
	if err := json.Unmarshal([]byte(p.body), &e); err != nil {
		t.Fatalf("status %d with a body that is not JSON: %v\n%s", p.status, err, p.body)
	}
	if e.Error.Message == "" || e.Error.Type == "" {
		t.Errorf("status %d: error without message or type: %s", p.status, p.body)
	}
	if e.Error.Code == nil {
		return ""
	}
	return *e.Error.Code
}

func (p reply) id() string { return p.header.Get("X-Request-Id") }

// record reads a request's record from the ledger.
func (r *rig) record(p reply) *usage.Record {
	r.t.Helper()
	id, err := usage.ParseID(p.id())
	if err != nil {
		r.t.Fatal(err)
	}
	rec, _, err := r.ledger.Record(id)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// settled waits until nothing is held any more: a client that hung up does not see its settlement.
func (r *rig) settled() {
	r.t.Helper()
	for range 2000 {
		if r.ledger.OpenHolds() == 0 && r.gw.Running() == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("%d holds and %d requests are left", r.ledger.OpenHolds(), r.gw.Running())
}

// totals sums the whole ledger.
func (r *rig) totals() (requests, input, output int64) {
	r.t.Helper()
	err := r.ledger.Usage(0, time.Unix(0, 0), time.Now().Add(time.Hour), func(s ledger.Sum) error {
		requests += s.Requests
		input += s.Counts[usage.InputUncached] + s.Counts[usage.InputCacheRead] + s.Counts[usage.InputCacheWrite]
		output += s.Counts[usage.OutputContent] + s.Counts[usage.OutputReasoning]
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return requests, input, output
}

// files reads everything in the data directory.
func (r *rig) files() []byte {
	r.t.Helper()
	var all []byte
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// newEngine starts a simulated engine that takes no time to think.
func newEngine(t *testing.T) *sim.Engine {
	t.Helper()
	e := sim.NewEngine(sim.EngineOptions{Sleep: noSleep})
	t.Cleanup(e.Close)
	return e
}

func noSleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// serving starts an engine of one handler, which does not count prompts.
func serving(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	return servingAll(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" || r.URL.Path == "/apply-template" {
			http.NotFound(w, r)
			return
		}
		h(w, r)
	})
}

// servingAll starts an engine of one handler.
func servingAll(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // what it serves: it does not say
			http.NotFound(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body) // net/http notices a client that leaves only once the body is read
		r.Body = io.NopCloser(bytes.NewReader(body))
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (r *rig) recordID(p reply) usage.ID {
	r.t.Helper()
	id, err := usage.ParseID(p.id())
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// copyAll copies all that comes; a nil t says that it may break off.
func copyAll(t *testing.T, to io.Writer, from io.Reader) {
	if _, err := io.Copy(to, from); err != nil && t != nil {
		t.Error(err)
	}
}
