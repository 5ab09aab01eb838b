// Package realengine runs the gateway in front of a real llama.cpp server, with the official OpenAI clients for Go and
// Node as callers, and compares the ledger's totals with the engine's own counters, token for token.
//
// The engine comes by setup.sh into .engine (or $REALENGINE_DIR). Where its download fails, the tests are skipped and
// the run says so last; any other missing part is a failure.
package realengine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// downloadFailed is setup.sh's exit status when the network, not this project, failed.
const downloadFailed = 75

var (
	engineDir string
	noEngine  string // why there is no engine
)

func TestMain(m *testing.M) {
	engineDir = os.Getenv("REALENGINE_DIR")
	if engineDir == "" {
		engineDir = ".engine"
	}
	engineDir, _ = filepath.Abs(engineDir)
	setup := exec.Command("bash", "setup.sh", engineDir)
	setup.Stdout, setup.Stderr = os.Stderr, os.Stderr
	if err := setup.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != downloadFailed {
			fmt.Fprintln(os.Stderr, "realengine: setup.sh:", err)
			os.Exit(1)
		}
		noEngine = "the engine's download failed"
	}
	code := m.Run()
	if noEngine != "" {
		fmt.Println("NOT RUN: test/realengine:", noEngine)
	}
	os.Exit(code)
}

func needEngine(t *testing.T) {
	if noEngine != "" {
		t.Skip(noEngine)
	}
}

// freePort asks the kernel for a port that nobody has.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a program until the test ends, and shows its output if the test fails.
func start(t *testing.T, name string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-done
		}
		log.Close()
		if b, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(name), b[max(0, len(b)-8000):])
		}
	})
	return cmd
}

// awaitOK waits until a URL answers 200.
func awaitOK(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s did not answer 200 within a minute", url)
}

// engine is one llama.cpp server.
type engine struct{ url string }

func startEngine(t *testing.T, model string, extra ...string) *engine {
	t.Helper()
	port := freePort(t)
	args := append([]string{"-m", filepath.Join(engineDir, model+".gguf"), "--alias", model, "--host", "127.0.0.1", "--port", strconv.Itoa(port),
		"-t", "1", "-np", "4", "--metrics", "--jinja", "--no-webui"}, extra...)
	start(t, filepath.Join(engineDir, "llama-server"), nil, args...)
	e := &engine{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	awaitOK(t, e.url+"/health")
	return e
}

// counters are an engine's own books: tokens since its start.
type counters struct{ uncached, cached, output int64 }

func (c counters) minus(o counters) counters {
	return counters{c.uncached - o.uncached, c.cached - o.cached, c.output - o.output}
}

// books reads the engine's counters once it is idle.
func (e *engine) books(t *testing.T) counters {
	t.Helper()
	for range 200 {
		c, busy := e.scrape(t)
		if !busy {
			return c
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the engine did not become idle")
	return counters{}
}

func (e *engine) scrape(t *testing.T) (c counters, busy bool) {
	t.Helper()
	resp, err := http.Get(e.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseInt(value, 10, 64) // counters are whole; gauges that are not do not matter
		switch name {
		case "llamacpp:prompt_tokens_total":
			c.uncached = n
		case "llamacpp:prompt_tokens_cached_total":
			c.cached = n
		case "llamacpp:tokens_predicted_total":
			c.output = n
		case "llamacpp:requests_processing", "llamacpp:requests_deferred":
			busy = busy || n > 0
		}
	}
	return c, busy
}

const adminToken = "realengine-test-admin-token"

// gateway is the real binary with a real ledger.
type gateway struct {
	t            *testing.T
	binary, dir  string
	url, adminAt string
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "talea")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/talea")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build talea: %v\n%s", err, out)
	}
	return binary
}

const key = "realengine-test-key-0123456789"

func startGateway(t *testing.T, models map[string]*engine) *gateway {
	t.Helper()
	g := &gateway{t: t, binary: build(t), dir: t.TempDir()}
	var engines, offerings, prices bytes.Buffer
	for _, name := range []string{"tiny", "think", "embed"} {
		e := models[name]
		if e == nil {
			continue
		}
		fmt.Fprintf(&engines, "- {name: %s, kind: llamacpp, url: %q}\n", name, e.url)
		fmt.Fprintf(&offerings, "- {name: %s, served_as: %s, engines: [%s], parameters: 600000, context_tokens: 4096, max_output_tokens: 1024, default_max_output_tokens: 64}\n", name, name, name)
		fmt.Fprintf(&prices, "  - {model: %[1]s, meter: input, price: \"0.11\"}\n  - {model: %[1]s, meter: input_cache_read, price: \"0.011\"}\n  - {model: %[1]s, meter: output, price: \"0.21\"}\n", name)
	}
	resources := fmt.Sprintf(`engines:
%smodels:
%sprice_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2026-01-01T00:00:00+01:00}
  prices:
%saccounts:
- {path: lab, currency: EUR, timezone: Europe/Berlin, price_book: public}
- path: lab/bench
  limits:
  - {measure: money, window: month, amount: "1000"}
keys:
- {name: bench, account: lab/bench, secret: "env:REALENGINE_KEY"}
`, engines.String(), offerings.String(), prices.String())
	file := filepath.Join(g.dir, "resources.yaml")
	if err := os.WriteFile(file, []byte(resources), 0o600); err != nil {
		t.Fatal(err)
	}
	listen, admin := freePort(t), freePort(t)
	g.url, g.adminAt = fmt.Sprintf("http://127.0.0.1:%d", listen), fmt.Sprintf("http://127.0.0.1:%d", admin)
	start(t, g.binary, []string{"TALEA_ADMIN_TOKEN=" + adminToken, "REALENGINE_KEY=" + key}, "serve",
		"--listen", fmt.Sprintf("127.0.0.1:%d", listen), "--admin", fmt.Sprintf("127.0.0.1:%d", admin),
		"--data", filepath.Join(g.dir, "data"), "--resources", file)
	awaitOK(t, g.url+"/readyz")
	return g
}

// tool runs a command of the tool against the gateway and returns what it printed.
func (g *gateway) tool(args ...string) []byte {
	g.t.Helper()
	cmd := exec.Command(g.binary, args...)
	cmd.Env = append(os.Environ(), "TALEA_ADMIN="+g.adminAt, "TALEA_ADMIN_TOKEN="+adminToken)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		g.t.Fatalf("talea %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

// usageRow is a row of `talea usage -o json`.
type usageRow struct {
	Model     string `json:"model"`
	Requests  int64  `json:"requests"`
	Input     int64  `json:"input_tokens"`
	CacheRead int64  `json:"cache_read_input_tokens"`
	Output    int64  `json:"output_tokens"`
	Reasoning int64  `json:"reasoning_output_tokens"`
	Charge    string `json:"charge"`
}

// usage reads the ledger's totals of one model.
func (g *gateway) usage(model string) usageRow {
	g.t.Helper()
	var rows []usageRow
	out := g.tool("usage", "--by", "model", "-o", "json")
	if err := json.Unmarshal(out, &rows); err != nil {
		g.t.Fatalf("talea usage printed no JSON rows: %v\n%s", err, out)
	}
	for _, r := range rows {
		if r.Model == model {
			return r
		}
	}
	return usageRow{Model: model}
}

func (u usageRow) counters() counters {
	return counters{uncached: u.Input - u.CacheRead, cached: u.CacheRead, output: u.Output}
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
