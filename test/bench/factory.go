package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// factory is everything that runs beside the load.
type factory struct {
	dir       string // of this run, removed at the end
	binary    string // talea
	admin     string // URL of talea's admin port
	token     string
	profiler  string   // address
	log       *os.File // of talea
	processes []*exec.Cmd
	books     string // address of the stub's listener behind talea
	taleaPID  int
	server    *exec.Cmd
	empty     int64 // bytes in the data directory before the first request
	targets   []*target
}

// startFactory builds talea and starts the engine, the yardstick and talea.
func startFactory(o *options) (f *factory, err error) {
	f = &factory{binary: o.talea, token: rand.Text()}
	if f.dir, err = os.MkdirTemp("", "talea-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	if f.binary == "" {
		f.binary = filepath.Join(f.dir, "talea")
		from := "talea/cmd/talea"
		if o.profile != "" {
			from = "talea/test/bench/profiled"
		}
		if out, err := exec.Command("go", "build", "-o", f.binary, from).CombinedOutput(); err != nil {
			return f, fmt.Errorf("cannot build talea: %w\n%s", err, out)
		}
	}
	stub, at, err := f.self("stub", "direct", "proxy", "talea")
	if err != nil {
		return f, err
	}
	engines := strings.Fields(at)
	proxy, proxyAt, err := f.self("proxy", engines[1])
	if err != nil {
		return f, err
	}
	f.books = engines[2]
	keys, err := f.writeWorld("http://" + f.books)
	if err != nil {
		return f, err
	}
	gate, err := f.serve()
	if err != nil {
		return f, err
	}
	f.targets = []*target{
		{name: "direct", address: engines[0], pid: stub.Process.Pid, keys: keys},
		{name: "proxy", address: strings.TrimSpace(proxyAt), pid: proxy.Process.Pid, keys: keys, sloppy: true},
		{name: "talea", address: gate, pid: f.taleaPID, keys: keys},
	}
	return f, nil
}

// self starts this program again in another role and returns the line that it prints.
func (f *factory) self(args ...string) (*exec.Cmd, string, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(own, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	f.processes = append(f.processes, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", fmt.Errorf("%s did not start: %w", args[0], err)
	}
	return cmd, line, nil
}

// Projects of the world, each with a key of its own.
const projects = 8

// writeWorld writes the resource file: limits on the organisation, the department and every project, and rates.
func (f *factory) writeWorld(engine string) (keys []string, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, `engines:
- {name: stub, kind: vllm, url: %s, region: eu-de}
models:
- {name: m, engines: [stub], parameters: 8.03e9, context_tokens: 131072, max_output_tokens: 4096, default_max_output_tokens: 1000}
price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  effective: {from: 2020-01-01T00:00:00+01:00}
  prices:
  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: input_cache_read, price: "0.10"}
  - {model: m, meter: output, price: "4.00"}
accounts:
- path: acme
  currency: EUR
  timezone: Europe/Berlin
  price_book: public
  limits: [{measure: money, window: month, amount: "1000000000"}]
- path: acme/research
  rate: {requests_per_minute: 1000000000, burst: 1000000000}
  limits:
  - {measure: money, window: month, amount: "1000000"}
  - {measure: tokens, window: day, amount: "1000000000000"}
`, engine)
	var keyLines strings.Builder
	for i := range projects {
		fmt.Fprintf(&b, "- {path: acme/research/p%d, limits: [{measure: money, window: month, amount: \"1000000\"}]}\n", i)
		fmt.Fprintf(&keyLines, "- {name: k%d, account: acme/research/p%d, secret: \"file:key%d\"}\n", i, i, i)
		keys = append(keys, "bench-"+rand.Text())
		if err := os.WriteFile(filepath.Join(f.dir, "key"+strconv.Itoa(i)), []byte(keys[i]), 0o600); err != nil {
			return nil, err
		}
	}
	return keys, os.WriteFile(filepath.Join(f.dir, "resources.yaml"), []byte(b.String()+"keys:\n"+keyLines.String()), 0o600)
}

// serve starts talea and returns the address of its tenants' port once it is ready.
func (f *factory) serve() (address string, err error) {
	if address, err = freeAddress(); err != nil {
		return "", err
	}
	admin, err := freeAddress()
	if err != nil {
		return "", err
	}
	f.admin = "http://" + admin
	if f.profiler, err = freeAddress(); err != nil {
		return "", err
	}
	if f.log, err = os.Create(filepath.Join(f.dir, "talea.log")); err != nil {
		return "", err
	}
	f.server = exec.Command(f.binary, "serve", "--listen", address, "--admin", admin, "--data", f.data(), "--resources", filepath.Join(f.dir, "resources.yaml"))
	f.server.Env = append(os.Environ(), "TALEA_ADMIN_TOKEN="+f.token, "TALEA_BENCH_PPROF="+f.profiler)
	f.server.Stdout, f.server.Stderr = f.log, f.log
	if err := f.server.Start(); err != nil {
		return "", err
	}
	f.processes = append(f.processes, f.server)
	f.taleaPID = f.server.Process.Pid
	for range 200 {
		resp, err := http.Get("http://" + address + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				f.empty, err = size(f.data())
				return address, err
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	said, _ := os.ReadFile(f.log.Name())
	return "", fmt.Errorf("talea is not ready after 10 s; it said:\n%s", said)
}

func (f *factory) data() string { return filepath.Join(f.dir, "data") }

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// tool runs a command of talea against the running server, or on its data.
func (f *factory) tool(args ...string) ([]byte, error) {
	cmd := exec.Command(f.binary, args...)
	cmd.Env = append(os.Environ(), "TALEA_ADMIN="+f.admin, "TALEA_ADMIN_TOKEN="+f.token)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("talea %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// storage is what talea keeps.
type storage struct {
	requests, bytes int64
}

// settleUp compares the ledger with the engine's books, ends talea, lets it check its ledger, and weighs what it stored.
func (f *factory) settleUp() (storage, error) {
	served, err := f.served()
	if err != nil {
		return storage{}, err
	}
	out, err := f.tool("usage", "-o", "json")
	if err != nil {
		return storage{}, err
	}
	var rows []struct {
		Requests int64 `json:"requests"`
		Input    int64 `json:"input_tokens"`
		Output   int64 `json:"output_tokens"`
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		return storage{}, fmt.Errorf("talea usage: %w in %s", err, out)
	}
	var requests, input, output int64
	for _, r := range rows {
		requests, input, output = requests+r.Requests, input+r.Input, output+r.Output
	}
	if requests != served || input != served*inputTokens || output != served*outputTokens {
		return storage{}, fmt.Errorf("THE BOOKS DIFFER: the engine served %d requests, %d input and %d output tokens; the ledger has %d, %d and %d",
			served, served*inputTokens, served*outputTokens, requests, input, output)
	}
	if err := f.end(f.server, syscall.SIGTERM); err != nil {
		return storage{}, err
	}
	if _, err := f.tool("ledger", "check", "--data", f.data()); err != nil {
		return storage{}, err
	}
	grown, err := size(f.data()) // the journal is folded in when the server ends
	return storage{requests, grown - f.empty}, err
}

// served asks the stub how many requests of talea it has answered.
func (f *factory) served() (int64, error) {
	resp, err := http.Get("http://" + f.books + "/books")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(b), 10, 64)
}

// takeProfiles drives talea once more for each workload while it takes a processor profile of itself.
func (f *factory) takeProfiles(o *options) error {
	if o.profile == "" {
		return nil
	}
	for _, w := range workloads {
		if !o.wants(ofWorkload(w, o.connections)) {
			continue
		}
		name := o.profile
		if w.stream {
			name += ".stream"
		}
		profiled := make(chan error, 1)
		go func() { profiled <- f.takeProfile(name, max(o.duration, 5*time.Second)) }()
		if _, err := drive(f.targets[2], w, o.connections, max(o.duration, 5*time.Second)+time.Second); err != nil {
			return err
		}
		if err := <-profiled; err != nil {
			return err
		}
	}
	return nil
}

func (f *factory) takeProfile(name string, d time.Duration) error {
	resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", f.profiler, int(d.Seconds())))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot take a profile: status %d, %.200s, error %v", resp.StatusCode, b, err)
	}
	return os.WriteFile(name, b, 0o644)
}

// stop ends whatever runs and removes the run's files.
func (f *factory) stop() {
	for _, cmd := range f.processes {
		f.end(cmd, os.Kill)
	}
	if f.log != nil {
		f.log.Close()
	}
	os.RemoveAll(f.dir)
}

// end ends a process once.
func (f *factory) end(cmd *exec.Cmd, how os.Signal) error {
	if cmd.ProcessState != nil {
		return nil
	}
	if err := cmd.Process.Signal(how); err != nil {
		return err
	}
	err := cmd.Wait()
	if how == os.Kill {
		return nil
	}
	return err
}

// size is the sum of the files of a directory, in bytes.
func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
