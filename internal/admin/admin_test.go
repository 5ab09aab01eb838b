package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"talea/internal/admin"
	"talea/internal/app"
)

const token = "a-token-for-these-tests"

// world has two organisations whose paths begin alike, in two currencies and zones.
const world = `engines:
- {name: stub, kind: vllm, url: ENGINE}
models:
- {name: m, engines: [stub], context_tokens: 4096, max_output_tokens: 100}
price_books:
- {name: euro, currency: EUR, prices: [{model: m, meter: input, price: "1"}, {model: m, meter: output, price: "4"}]}
- {name: dollar, currency: USD, prices: [{model: m, meter: input, price: "2"}, {model: m, meter: output, price: "8"}]}
accounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: euro, limits: [{measure: money, window: year, amount: "100"}]}
- {path: acme/app, limits: [{measure: requests, window: hour, amount: "1000"}]}
- {path: acme/application}
- {path: acmeus, currency: USD, timezone: America/New_York, price_book: dollar, limits: [{measure: tokens, window: total, amount: "1000000"}]}
- {path: acmeus/app}
keys:
- {name: euro, account: acme/app, secret: "env:EURO"}
- {name: other, account: acme/application, secret: "env:OTHER"}
- {name: dollar, account: acmeus/app, secret: "env:DOLLAR"}
`

// server is a whole server; its clock stands at an evening that is two days and two years in its two zones.
type server struct {
	*testing.T
	tenants, admin string
}

type still struct{}

func (still) Now() time.Time { return time.Date(2027, 1, 1, 1, 30, 0, 0, time.UTC) }

func newServer(t *testing.T) *server {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],`+
			`"usage":{"prompt_tokens":32,"completion_tokens":20,"total_tokens":52}}`)
	}))
	t.Cleanup(engine.Close)
	dir := t.TempDir()
	file := filepath.Join(dir, "world.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(world, "ENGINE", engine.URL, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"TALEA_ADMIN_TOKEN": token, "EURO": "secret-of-the-euro-key", "OTHER": "secret-of-the-other-key", "DOLLAR": "secret-of-the-dollar-key"}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan app.Ready, 1), make(chan error, 1)
	go func() {
		ended <- app.Serve(ctx, app.Config{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Data: filepath.Join(dir, "data"), Resources: []string{file}}, app.Host{
			Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
			Clock:  still{}, Random: rand.NewChaCha8([32]byte{}), Version: "test", Log: slog.New(slog.DiscardHandler), Ready: func(r app.Ready) { ready <- r },
		})
	}()
	s := &server{T: t}
	select {
	case r := <-ready:
		s.tenants, s.admin = r.Tenants, r.Admin
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// call sends one request; header is "Name: value", with the token where it has no Authorization.
func (s *server) call(method, path, body string, header ...string) (int, string) {
	s.Helper()
	req, err := http.NewRequest(method, s.admin+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Del(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		s.Errorf("%s %s may be cached", method, path)
	}
	return resp.StatusCode, string(b)
}

func (s *server) ask(secret string) string {
	s.Helper()
	req, err := http.NewRequest("POST", s.tenants+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("X-Api-Key", secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		s.Fatalf("status %d: %s", resp.StatusCode, b)
	}
	return resp.Header.Get("X-Request-Id")
}

func TestWhoMayCome(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct {
		name, method, path string
		header             string
		want               int
	}{
		{"token", "GET", "/v1/status", "", 200},
		{"no token", "GET", "/v1/status", "Authorization: ", 401},
		{"empty token", "GET", "/v1/status", "Authorization: Bearer ", 401},
		{"beginning of the token", "GET", "/v1/status", "Authorization: Bearer " + token[:len(token)-1], 401},
		{"token and more", "GET", "/v1/status", "Authorization: Bearer " + token + "x", 401},
		{"other scheme", "GET", "/v1/status", "Authorization: Basic " + token, 401},
		{"bare token", "GET", "/v1/status", "Authorization: " + token, 401},
		{"a tenant's key", "GET", "/v1/status", "Authorization: Bearer secret-of-the-euro-key", 401}, // F124
		{"token and origin", "GET", "/v1/status", "Origin: http://127.0.0.1:8081", 403},              // F124
		{"token and null origin", "GET", "/v1/status", "Origin: null", 403},
		{"token and a page's fetch", "GET", "/v1/status", "Sec-Fetch-Site: same-origin", 403},
		{"metrics without token", "GET", "/metrics", "Authorization: ", 401},
		{"unknown route without token", "GET", "/nothing", "Authorization: ", 401},
		{"unknown route", "GET", "/nothing", "", 404},
		{"root", "GET", "/", "", 404},
		{"pprof", "GET", "/debug/pprof/", "", 404},
		{"tenant route", "GET", "/v1/models", "", 404},
		{"route and more", "GET", "/v1/status/x", "", 404},
		{"route with a slash", "GET", "/v1/status/", "", 404},
		{"two segments", "GET", "/v1/requests/a/b", "", 404},
		{"no segment", "GET", "/v1/requests/", "", 404},
		{"wrong method", "POST", "/v1/status", "", 405},
		{"wrong method on a change", "GET", "/v1/apply", "", 405},
		{"health without token", "GET", "/healthz", "Authorization: ", 200},
		{"unknown parameter", "GET", "/v1/status?colour=red", "", 400},
		{"parameter twice", "GET", "/v1/usage?account=acme&account=acmeus", "", 400},
		{"no parameters", "GET", "/v1/usage?account=%zz", "", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.header != "" {
				header = []string{c.header}
			}
			status, body := s.call(c.method, c.path, "", header...)
			if status != c.want {
				t.Errorf("status %d, want %d: %s", status, c.want, body)
			}
			var no struct {
				Error struct{ Code, Message string }
			}
			if status != 200 && (json.Unmarshal([]byte(body), &no) != nil || no.Error.Code == "" || no.Error.Message == "") {
				t.Errorf("the error is no JSON: %s", body)
			}
			if strings.Contains(body, token) {
				t.Errorf("the token is shown: %s", body)
			}
		})
	}
}

func TestBodiesAreStrict(t *testing.T) {
	s := newServer(t)
	_, before := s.call("GET", "/v1/objects", "")
	for _, c := range []struct {
		name, path, body, header string
		want                     int
		text                     string
	}{
		{"no body", "/v1/keys", "", "", 415, "Content-Type"},
		{"a form", "/v1/keys", "account=acme/app", "Content-Type: application/x-www-form-urlencoded", 415, "Content-Type"},
		{"plain text", "/v1/keys", `{"account":"acme/app","name":"n"}`, "Content-Type: text/plain", 415, "Content-Type"},
		{"cut", "/v1/keys", `{"account":"acme/app","name":`, "", 400, "cannot read the body"},
		{"two objects", "/v1/keys", `{"account":"acme/app","name":"n"} {}`, "", 400, "cannot read the body"},
		{"a list", "/v1/keys", `[]`, "", 400, "cannot read the body"},
		{"unknown member", "/v1/keys", `{"account":"acme/app","name":"n","colour":"red"}`, "", 400, `unknown field "colour"`},
		{"case variant", "/v1/keys", `{"Account":"acme/app","name":"n"}`, "", 400, "lower case"},
		{"duplicate", "/v1/keys", `{"account":"acme/app","name":"n","account":"acmeus/app"}`, "", 400, "duplicate"},
		{"wrong type", "/v1/keys", `{"account":7,"name":"n"}`, "", 400, "cannot read the body"},
		{"large", "/v1/keys", `{"account":"` + strings.Repeat("a", 70_000) + `","name":"n"}`, "", 413, "larger than 65536 bytes"},
		{"no name", "/v1/keys", `{"account":"acme/app","name":""}`, "", 422, "cannot create a key"},
		{"no such account", "/v1/keys", `{"account":"acme/apq","name":"n"}`, "", 404, "did you mean acme/app?"},
		{"revoke unknown", "/v1/keys/revoke", `{"key":"erou"}`, "", 404, `did you mean "euro"?`},
		{"no file", "/v1/apply", `{"files":[]}`, "", 400, "no file to apply"},
		{"file without a name", "/v1/apply", `{"files":[{"text":"accounts: []"}]}`, "", 400, "no name"},
		{"unknown member of a file", "/v1/apply", `{"files":[{"name":"f","text":"accounts: []","mode":1}]}`, "", 400, "unknown field"},
		{"unknown owner", "/v1/apply", `{"managed_by":"me","files":[{"name":"f","text":"accounts: []"}]}`, "", 400, "managed_by"},
		{"faulty file", "/v1/apply", `{"files":[{"name":"f.yaml","text":"accounts:\n- {path: new, colour: red}\n"}]}`, "", 422, "f.yaml:2:15: unknown key"},
		{"fault in the second file", "/v1/apply", `{"files":[{"name":"a","text":"accounts:\n- {path: new, currency: EUR}\n"},{"name":"b","text":"accounts:\n- {path: nowhere/x}\n"}]}`, "", 422, "b:2:"},
		{"prune of two files", "/v1/apply", `{"prune":true,"files":[{"name":"a","text":"accounts: []"},{"name":"b","text":"accounts: []"}]}`, "", 400, "prune takes one file"},
		{"owned by a file", "/v1/apply", `{"managed_by":"api","files":[{"name":"f","text":"accounts:\n- {path: acme, currency: EUR, timezone: UTC}\n"}]}`, "", 422, "managed by file"},
		{"key without its secret", "/v1/apply", `{"files":[{"name":"f","text":"keys:\n- {name: k, account: acme/app, secret: \"env:GONE\"}\n"}]}`, "", 422, "f:2:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.header != "" {
				header = []string{c.header}
			}
			status, body := s.call("POST", c.path, c.body, header...)
			var no struct {
				Error struct{ Code, Message string }
			}
			if json.Unmarshal([]byte(body), &no) != nil || status != c.want || !strings.Contains(no.Error.Message, c.text) {
				t.Errorf("status %d: %s\nwant %d and %q", status, body, c.want, c.text)
			}
		})
	}
	if _, after := s.call("GET", "/v1/objects", ""); after != before {
		t.Errorf("something has changed: %s", after)
	}
}

// TestUsageStaysApart: I9.
func TestUsageStaysApart(t *testing.T) {
	s := newServer(t)
	for _, secret := range []string{"secret-of-the-euro-key", "secret-of-the-other-key", "secret-of-the-dollar-key"} {
		s.ask(secret)
	}
	row := `"requests":%d,"input_tokens":%d,"cache_read_input_tokens":0,"output_tokens":%d,"reasoning_output_tokens":0,"gpu_seconds":null,"charge":"%s","currency":"%s"}`
	for _, c := range []struct{ query, want string }{
		{"", "[{" + fmt.Sprintf(row, 2, 64, 40, "0.000224", "EUR") + ",{" + fmt.Sprintf(row, 1, 32, 20, "0.000224", "USD") + "]"}, // currencies are never added up
		{"?account=acme", "[{" + fmt.Sprintf(row, 2, 64, 40, "0.000224", "EUR") + "]"},                                            // acmeus is no part of acme
		{"?account=acme/app", "[{" + fmt.Sprintf(row, 1, 32, 20, "0.000112", "EUR") + "]"},                                        // nor acme/application of acme/app
		{"?by=day,account&account=acmeus", `[{"account":"acmeus/app","day":"2026-12-31",` + fmt.Sprintf(row, 1, 32, 20, "0.000224", "USD") + "]"},
		{"?by=month&account=acme/app", `[{"month":"2027-01",` + fmt.Sprintf(row, 1, 32, 20, "0.000112", "EUR") + "]"},
		{"?by=hour,key,model&account=acme/app", `[{"key":"key_euro","model":"m","hour":"2027-01-01T02+01:00",` + fmt.Sprintf(row, 1, 32, 20, "0.000112", "EUR") + "]"},
		{"?account=acme/app&from=2027-01-01&to=2027-01-02", "[{" + fmt.Sprintf(row, 1, 32, 20, "0.000112", "EUR") + "]"},
		{"?account=acme/app&to=2027-01", "[]"},
		{"?account=acmeus/app&to=2027-01", "[{" + fmt.Sprintf(row, 1, 32, 20, "0.000224", "USD") + "]"}, // there it is still December
		{"?from=2027-01-01T01:45:00Z", "[]"},
		{"?from=2027-01-01T01:30:00Z&to=2027-01-01T01:31:00Z&account=acme/app", "[{" + fmt.Sprintf(row, 1, 32, 20, "0.000112", "EUR") + "]"},
	} {
		if status, body := s.call("GET", "/v1/usage"+c.query, ""); status != 200 || strings.TrimSpace(body) != c.want {
			t.Errorf("usage%s: %d\n%swant\n%s", c.query, status, body, c.want)
		}
	}
}

func TestLimitsAreOfThePath(t *testing.T) {
	s := newServer(t)
	s.ask("secret-of-the-euro-key")
	for _, c := range []struct{ account, want string }{
		{"acme/app", `[{"account":"acme","measure":"money","window":"year","limit":"100","used":"0.000112","held":"0","in_doubt":"0","resets_at":"2028-01-01T00:00:00+01:00","period":"2027","currency":"EUR"},` +
			`{"account":"acme/app","measure":"requests","window":"hour","limit":"1000","used":"1","held":"0","in_doubt":"0","resets_at":"2027-01-01T03:00:00+01:00","period":"2027-01-01T02+01:00"}]`},
		{"acmeus/app", `[{"account":"acmeus","measure":"tokens","window":"total","limit":"1000000","used":"0","held":"0","in_doubt":"0","resets_at":null,"period":"total"}]`},
	} {
		if status, body := s.call("GET", "/v1/limits?account="+c.account, ""); status != 200 || strings.TrimSpace(body) != c.want {
			t.Errorf("limits of %s: %d\n%swant\n%s", c.account, status, body, c.want)
		}
	}
	if status, body := s.call("GET", "/v1/limits?account=nobody", ""); status != 404 {
		t.Errorf("limits of nobody: %d, %s", status, body)
	}
}

// TestNotices: thresholds that were reached, by account and once; a lowered limit says by how much it is exceeded, and why.
func TestNotices(t *testing.T) {
	s := newServer(t)
	apply := func(text string) {
		t.Helper()
		body, err := json.Marshal(admin.ApplyRequest{Files: []admin.File{{Name: "f.yaml", Text: text, Secrets: map[string]string{"env:OTHER": "secret-of-the-other-key"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := s.call("POST", "/v1/apply", string(body)); status != 200 {
			t.Fatalf("%d: %s", status, answer)
		}
	}
	application := func(amount string) {
		t.Helper()
		apply(fmt.Sprintf(`accounts:
- {path: acme/application, limits: [{measure: tokens, window: total, amount: %s, action: alert, alerts: [50%%]}]}
keys:
- {name: other, account: acme/application, secret: "env:OTHER", limits: [{measure: requests, window: week, anchor: friday, amount: 1, service_tier: standard, alerts: [1]}]}
`, amount))
	}
	application("100")
	s.ask("secret-of-the-other-key")
	requests := `{"at":"2027-01-01T02:30:00+01:00","account":"acme/application","key":"key_other","measure":"requests","window":"week","period":"week from 2027-01-01","alert":"1","amount":"1","used":"1","limit":"1","request_id":"`
	tokens := `{"at":"2027-01-01T02:30:00+01:00","account":"acme/application","measure":"tokens","window":"total","period":"total","alert":"50%","amount":"50","used":"52","limit":"100","request_id":"`
	status, body := s.call("GET", "/v1/notices", "")
	if status != 200 || strings.Count(body, `"at":`) != 2 || !strings.Contains(body, requests) || !strings.Contains(body, tokens) {
		t.Errorf("%d: %s", status, body)
	}
	for account, want := range map[string]int{"acme": 2, "acme/application": 2, "acme/app": 0, "acmeus": 0} {
		if status, body := s.call("GET", "/v1/notices?account="+account, ""); status != 200 || strings.Count(body, `"at":`) != want {
			t.Errorf("notices of %s: %d: %s", account, status, body)
		}
	}
	if status, body := s.call("GET", "/v1/notices?account=nobody", ""); status != 404 {
		t.Errorf("notices of nobody: %d: %s", status, body)
	}
	if _, body := s.call("GET", "/metrics", ""); !strings.Contains(body, "\ntalea_notices_total 2\n") {
		t.Errorf("metrics: %s", body)
	}
	application("12")
	_, body = s.call("GET", "/v1/limits?account=acme/application", "")
	for _, want := range []string{
		`"action":"alert","limit":"12","used":"52","held":"0","in_doubt":"0","resets_at":null,"period":"total","alerts":[{"at":"50%","amount":"6","since":"2027-01-01T02:30:00+01:00"}],"over_limit_by":{"amount":"40","cause":"alert_only"}}`,
		`"service_tier":"standard","key":"key_other","anchor":"friday","limit":"1","used":"1","held":"0","in_doubt":"0","resets_at":"2027-01-08T00:00:00+01:00","period":"week from 2027-01-01","alerts":[{"at":"1","amount":"1","since":"2027-01-01T02:30:00+01:00"}]}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("limits: %s\nlack %s", body, want)
		}
	}
	apply("accounts:\n- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: euro, limits: [{measure: money, window: year, amount: 0.0001}]}\n")
	if _, body := s.call("GET", "/v1/limits?account=acme", ""); !strings.Contains(body, `"over_limit_by":{"amount":"0.000012","cause":"lowered"}`) {
		t.Errorf("a lowered limit: %s", body)
	}
}

func TestKeyFromMakingToRevoking(t *testing.T) {
	s := newServer(t)
	status, body := s.call("POST", "/v1/keys", `{"account":"acme/app","name":"fresh"}`)
	var made struct{ Name, Key, Account, Secret string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != 200 || made.Secret == "" {
		t.Fatalf("%d: %s", status, body)
	}
	s.ask(made.Secret)
	for _, path := range []string{"/v1/keys", "/v1/objects", "/v1/status", "/metrics"} {
		if _, list := s.call("GET", path, ""); strings.Contains(list, made.Secret) {
			t.Errorf("%s shows the secret", path)
		}
	}
	if status, body := s.call("POST", "/v1/keys/revoke", `{"key":"`+made.Key+`"}`); status != 200 || !strings.Contains(body, `"revoked":true`) {
		t.Errorf("%d: %s", status, body)
	}
	req, err := http.NewRequest("GET", s.tenants+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+made.Secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("a revoked key is answered with %d", resp.StatusCode)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	s := newServer(t)
	s.ask("secret-of-the-euro-key")
	req, err := http.NewRequest("POST", s.tenants+"/v1/chat/completions", bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_, body := s.call("GET", "/v1/status", "")
	for _, want := range []string{`"version":"test"`, `"started":"2027-01-01T01:30:00Z"`, `"epoch":1,`, `"open_holds":0,`, `"running":0,`, `"requests":2,`, `"completed":1,`, `"refusals":[{"reason":"unknown_key","count":1}]`} {
		if !strings.Contains(body, want) {
			t.Errorf("status lacks %s: %s", want, body)
		}
	}
	_, body = s.call("GET", "/metrics", "")
	for _, want := range []string{"# TYPE talea_requests_total counter\ntalea_requests_total 2\n", "talea_refusals_total{reason=\"unknown_key\"} 1\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %q: %s", want, body)
		}
	}
}

func TestWhy(t *testing.T) {
	s := newServer(t)
	id := s.ask("secret-of-the-euro-key")
	status, body := s.call("GET", "/v1/requests/"+id, "")
	if status != 200 || !json.Valid([]byte(body)) {
		t.Fatalf("%d: %s", status, body)
	}
	for _, want := range []string{`{"request_id":"` + id + `","status":"posted",`, `"charge":"0.000112","currency":"EUR"`,
		`"limits":[{"account":"acme","measure":"money","window":"year","period":"2027","held":`, `"limit":"100","currency":"EUR"},{"account":"acme/app","measure":"requests"`} {
		if !strings.Contains(body, want) {
			t.Errorf("why lacks %s: %s", want, body)
		}
	}
	for path, want := range map[string]int{"/v1/requests/req_0000000000001": 404, "/v1/requests/nonsense": 400} {
		if status, body := s.call("GET", path, ""); status != want {
			t.Errorf("%s: %d, %s", path, status, body)
		}
	}
}

func TestSeveralFilesTogether(t *testing.T) {
	s := newServer(t)
	const two = `{"dry_run":%v,"files":[{"name":"a","text":"accounts:\n- {path: new, currency: EUR, timezone: UTC}\n"},{"name":"b","text":"accounts:\n- {path: new/x}\n"}]}`
	const want = `{"changes":[{"action":"create","kind":"account","name":"new"},{"action":"create","kind":"account","name":"new/x"}]}`
	for _, dry := range []bool{true, true, false} { // the first try changes nothing
		if status, body := s.call("POST", "/v1/apply", fmt.Sprintf(two, dry)); status != 200 || strings.TrimSpace(body) != want {
			t.Errorf("dry run %v: %d, %s", dry, status, body)
		}
	}
	if status, body := s.call("GET", "/v1/limits?account=new/x", ""); status != 200 {
		t.Errorf("after it: %d, %s", status, body)
	}
}
