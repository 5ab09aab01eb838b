package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/app"
	"talea/internal/cli"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

var update = flag.Bool("update", false, "write what the commands print into testdata again")

// noon is when every script begins.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// clock is a clock that stands until a script moves it.
type clock struct{ at atomic.Int64 }

func (c *clock) Now() time.Time { return time.Unix(0, c.at.Load()).UTC() }

// keys are the secrets of testdata/resources.yaml.
var keys = []string{"good", "stream", "budget20", "exhausted", "limited"}

// stage is a server with a clock of its own and an engine that always uses 32 input and 20 output tokens.
type stage struct {
	t       *testing.T
	clock   *clock
	env     map[string]string
	tenants string
	dir     string
	last    string // id of the last request
	stop    func() // ends the server; the second call does nothing
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, clock: &clock{}, dir: t.TempDir()}
	s.clock.at.Store(noon.UnixNano())
	s.env = map[string]string{"TALEA_ADMIN_TOKEN": "a-token-for-these-tests"}
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],`+
			`"usage":{"prompt_tokens":32,"completion_tokens":20,"total_tokens":52,"prompt_tokens_details":{"cached_tokens":12}}}`)
	}))
	t.Cleanup(engine.Close)
	text, err := os.ReadFile("testdata/resources.yaml")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range more {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s.write(filepath.Base(file), string(b))
	}
	s.write("resources.yaml", strings.Replace(string(text), "http://127.0.0.1:9000", engine.URL, 1))
	s.write("keys/engine", "sk-upstream")
	for _, name := range keys {
		s.write("keys/"+name, secretOf(name)+"\n")
	}
	t.Chdir(s.dir)
	s.serve()
	return s
}

func secretOf(name string) string { return "xq-acceptance-" + name + "-0123456789abcdef" }

func (s *stage) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) lookup(name string) (string, bool) {
	v, ok := s.env[name]
	return v, ok
}

// serve runs the server until the test ends.
func (s *stage) serve() {
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan app.Ready, 1), make(chan error, 1)
	host := app.Host{
		Lookup: s.lookup, Clock: s.clock, Random: rand.NewChaCha8([32]byte{}), Version: "test",
		Log: slog.New(slog.DiscardHandler), Ready: func(r app.Ready) { ready <- r },
	}
	config := app.Config{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Data: "data", Resources: []string{"resources.yaml"}}
	go func() { ended <- app.Serve(ctx, config, host) }()
	select {
	case r := <-ready:
		s.tenants, s.env["TALEA_ADMIN"] = r.Tenants, r.Admin
	case err := <-ended:
		s.t.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error("the server ended with", err)
		}
	})
	s.t.Cleanup(s.stop)
}

// tamper changes the ledger's file behind the server's back.
func (s *stage) tamper(sql string) {
	s.t.Helper()
	conn, err := sqlite.OpenConn("data/talea.db", sqlite.OpenReadWrite|sqlite.OpenWAL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := sqlitex.ExecuteTransient(conn, sql, nil); err != nil {
		s.t.Fatal(err)
	}
}

// run does one line of a script and returns what it shows.
func (s *stage) run(line string) string {
	words := strings.Fields(line)
	switch {
	case words[0] == "$" && words[1] == "talea":
		return s.talea(words[2:])
	case words[0] == ">" && words[1] == "ask":
		return s.ask(words[2], strings.Join(words[3:], " "))
	case words[0] == ">" && words[1] == "wait":
		d, err := time.ParseDuration(words[2])
		if err != nil {
			s.t.Fatal(err)
		}
		s.clock.at.Add(int64(d))
		return ""
	case words[0] == ">" && words[1] == "tamper":
		s.tamper(strings.Join(words[2:], " "))
		return ""
	case words[0] == ">" && words[1] == "stop":
		s.stop()
		return ""
	case words[0] == ">" && words[1] == "write": // FILE text
		s.write(words[2], strings.Join(words[3:], " "))
		return ""
	case words[0] == ">" && words[1] == "replace" && len(words) == 5: // in FILE this that
		b, err := os.ReadFile(words[2])
		if err != nil || !strings.Contains(string(b), words[3]) {
			s.t.Fatalf("%s: no %s in %s (%v)", line, words[3], words[2], err)
		}
		s.write(words[2], strings.Replace(string(b), words[3], words[4], 1))
		return ""
	}
	s.t.Fatalf("cannot read the line %q", line)
	return ""
}

// ask sends a chat request with one of the keys and shows the status.
func (s *stage) ask(key, body string) string {
	req, err := http.NewRequest("POST", s.tenants+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secretOf(key))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	s.last = resp.Header.Get("X-Request-Id")
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Cost"))) + "\n"
}

var minted = regexp.MustCompile(`talea-[0-9a-z]{10}-[0-9a-z]{32}-[0-9a-z]{6}`)

func (s *stage) talea(args []string) string {
	for i, a := range args {
		args[i] = strings.Replace(a, "LAST", s.last, 1)
	}
	var stdout, stderr bytes.Buffer
	p := cli.Program{
		Args: args, Stdout: &stdout, Stderr: &stderr, Lookup: s.lookup, Now: s.clock.Now, Random: rand.NewChaCha8([32]byte{}), Version: "test",
	}
	status := p.Run(context.Background())
	out := stdout.String() + stderr.String()
	out = strings.ReplaceAll(out, s.env["TALEA_ADMIN"], "http://ADMIN")
	for _, secret := range append(keys, "engine") {
		if secret = secretOf(secret); strings.Contains(out, secret) {
			s.t.Errorf("talea %s prints a secret: %s", strings.Join(args, " "), out)
		}
	}
	out = minted.ReplaceAllString(out, "talea-NEW-KEY")
	if out != "" && !strings.HasSuffix(out, "\n") {
		s.t.Errorf("talea %s prints no end of line: %q", strings.Join(args, " "), out)
	}
	if status != 0 {
		out += fmt.Sprintf("[exit status %d]\n", status)
	}
	return out
}

// TestScripts runs each script of testdata against a server of its own. A line that begins with "$ talea" or ">" is done;
// what follows it is what it shows.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := newStage(t)
			var got strings.Builder
			for line := range strings.Lines(string(text)) {
				switch {
				case strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "> "):
					if got.Len() > 0 && !strings.HasSuffix(got.String(), "\n\n") && !strings.HasPrefix(lastLine(got.String()), "#") {
						got.WriteByte('\n')
					}
					got.WriteString(line + s.run(strings.TrimSpace(line)))
				case strings.HasPrefix(line, "#"):
					if got.Len() > 0 && !strings.HasPrefix(lastLine(got.String()), "#") {
						got.WriteByte('\n')
					}
					got.WriteString(line)
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got.String() != string(text) {
				t.Errorf("%s differs; -update writes it again:\n%s", file, firstDifference(string(text), got.String()))
			}
		})
	}
}

func lastLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d is\n%s\nand was\n%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines instead of %d", len(g), len(w))
}
