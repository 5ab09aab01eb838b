// Package soak runs the real program under steady mixed load without faults and then compares every request with what the
// engine really made for it: no token and no femto-unit may differ, at no node.
//
// The short form runs with `go test`, the long one with `make soak`.
package soak

import (
	"context"
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/test/oracle"
	"talea/test/rig"
)

var (
	long   = flag.Duration("for", 0, "how long to run; 0 is for some hundred requests")
	report = flag.String("report", "", "file to write the counts to")
)

const (
	organisations = 20
	few           = 600 // requests of the short form
)

// soak is one run.
type soak struct {
	t       *testing.T
	dir     string
	factory *rig.Factory
	server  *rig.Server
	client  *rig.Client
	leaves  []string // accounts with keys
	nodes   []string // all of the trees
}

// TestSteadyLoad: F131: 20 organisations with trees of four levels ask for streams, whole answers and embeddings; what is
// posted is what the engines made, for every request, to the femto-unit, and every node has the sum of its leaves. I2, I6,
// I7. Memory, threads and descriptors return to where they were (I13).
func TestSteadyLoad(t *testing.T) {
	s := start(t)
	began := time.Now()
	s.load(s.enough(few/4, *long/8)) // all that is made once is made: caches, connections, the first pages
	base := s.rest()
	s.load(s.enough(few, *long))
	took := time.Since(began)
	end := s.returned(base)

	c := &oracle.Case{Made: s.factory.Book(), Calls: s.client.Log(), Prices: oracle.Prices{Input: "1.00", Cached: "0.10", Output: "4.00"}}
	limits, sums := s.atTheNodes()
	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	c.Ledger = s.read()
	c.Ledger.Limits = limits
	v := oracle.Judge(c)
	if !v.Ok() {
		t.Errorf("the audit finds\n%s", v)
	}
	if n := len(c.Calls); v.Exact != n || v.Posted != n || v.Void != 0 || v.Requests != n || n < few || v.Loss.Sign() != 0 || v.Lost != (sim.Tokens{}) {
		t.Errorf("%d answers came; engines saw %d, %d are posted, %d of them exactly, %d are void; lost %+v, %s femto-units", n, v.Requests, v.Posted, v.Exact, v.Void, v.Lost, v.Loss)
	}
	total := s.sumsOfLeaves(c.Ledger.Records, sums)
	text := s.text(took, v, c, total, base, end)
	t.Log("\n" + text)
	if *report != "" && !t.Failed() {
		if err := os.WriteFile(*report, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func start(t *testing.T) *soak {
	dir := t.TempDir()
	s := &soak{t: t, dir: filepath.Join(dir, "data"), factory: rig.NewFactory(2, sim.EngineOptions{}), client: rig.NewClient()}
	t.Cleanup(s.factory.Close)
	var b strings.Builder
	b.WriteString(s.factory.Resources())
	b.WriteString(`price_books:
- {name: public, currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, prices: [{model: m, meter: input, price: "1.00"}, {model: m, meter: input_cache_read, price: "0.10"}, {model: m, meter: output, price: "4.00"}]}
accounts:
`)
	for n := range organisations {
		org := fmt.Sprintf("org-%d", n)
		fmt.Fprintf(&b, "- {path: %s, currency: EUR, timezone: Europe/Berlin, price_book: public, limits: [{measure: money, window: total, amount: \"1000000\"}]}\n", org)
		fmt.Fprintf(&b, "- {path: %s/dept, limits: [{measure: tokens, window: total, amount: \"1000000000000\"}]}\n", org)
		s.nodes = append(s.nodes, org, org+"/dept")
		for _, team := range []string{"/dept/red", "/dept/blue"} {
			fmt.Fprintf(&b, "- {path: %s%s, limits: [{measure: requests, window: total, amount: \"1000000000\"}]}\n- {path: %[1]s%[2]s/app}\n", org, team)
			s.nodes = append(s.nodes, org+team, org+team+"/app")
			s.leaves = append(s.leaves, org+team+"/app")
		}
	}
	keys, env := rig.Keys(s.leaves)
	b.WriteString(keys)
	file := filepath.Join(dir, "resources.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.server, err = rig.Start(rig.Binary(t, ""), s.dir, file, env...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Kill)
	return s
}

// enough says when a load has run for long enough: by the time that was asked for, or by requests.
func (s *soak) enough(requests int, d time.Duration) func() bool {
	end, want := time.Now().Add(d), len(s.factory.Book())+requests
	return func() bool { return time.Now().After(end) && len(s.factory.Book()) >= want }
}

// load lets two workers of each organisation ask until it is enough.
func (s *soak) load(enough func() bool) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		defer stop()
		for !enough() {
			if time.Sleep(20 * time.Millisecond); *long > 0 {
				time.Sleep(time.Second) // a large book takes a moment to copy
			}
		}
	}()
	s.client.Work(ctx, s.server.Tenants, 2*organisations, s.ask)
	if err := s.factory.Idle(); err != nil {
		s.t.Fatal(err)
	}
}

// ask makes one request after a pause.
func (s *soak) ask(worker, serial int) *rig.Ask {
	rng := rand.New(rand.NewPCG(uint64(worker), uint64(serial)))
	if *long > 0 {
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
	}
	account := s.leaves[worker%len(s.leaves)]
	a := &rig.Ask{Account: account, Key: rig.Key(account), Model: "m", Kind: rig.Kind(serial % 3)}
	a.Text = fmt.Sprintf("[[c=%d delay=%dus]] Of %s: %s", 1+rng.IntN(120), rng.IntN(300), account, strings.Repeat("the same again ", rng.IntN(20)))
	if a.Kind != rig.Embeddings {
		a.MaxTokens = int64(rng.IntN(2)) * 300
	}
	return a
}

// atTheNodes reads the limits of all accounts, and the sum of usage at each node.
func (s *soak) atTheNodes() ([]oracle.Limit, map[string]oracle.Sum) {
	limits, err := s.server.Limits(s.leaves)
	if err != nil {
		s.t.Fatal(err)
	}
	sums := map[string]oracle.Sum{}
	for _, node := range s.nodes {
		var rows []oracle.Sum
		if err := s.server.Get("/v1/usage?account="+node, &rows); err != nil || len(rows) > 1 {
			s.t.Fatalf("usage of %s: %v, %v", node, rows, err)
		}
		for _, row := range rows {
			sums[node] = row
		}
	}
	return limits, sums
}

// read reads every record from the directory of the program, which has ended.
func (s *soak) read() oracle.Ledger {
	store, err := sqlite.Open(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := ledger.Open(store, ledger.Options{Clock: wall{}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	out, err := oracle.ReadLedger(l, store, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	report, err := ledger.Check(store)
	if err != nil || !report.OK() {
		s.t.Errorf("ledger check: %v, %v", report, err)
	}
	return out
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

// sumsOfLeaves compares what the server says of each node with the charges of the records beneath it, and returns the sum
// of all in femto-units.
func (s *soak) sumsOfLeaves(records []oracle.Record, sums map[string]oracle.Sum) *big.Int {
	totals, err := oracle.NodeTotals(records)
	if err != nil {
		s.t.Fatal(err)
	}
	all := new(big.Int)
	for _, node := range s.nodes {
		want, got := totals[node], sums[node].Charge
		if want == nil || oracle.Femto(got) == nil || oracle.Femto(got).Cmp(want) != 0 {
			s.t.Errorf("%s: usage says %q, its records come to %s femto-units", node, got, want)
			continue
		}
		if !strings.Contains(node, "/") {
			all.Add(all, want)
		}
	}
	return all
}

// state is what a process takes.
type state struct{ memory, threads, files int } // memory in KiB

// rest waits until the program is at rest, with no connection less for a while, and returns what it takes then.
func (s *soak) rest() state {
	s.t.Helper()
	var now state
	lowest := 1 << 30
	for still := 0; still < 10; still++ {
		if now = s.look(); now.files < lowest {
			lowest, still = now.files, 0
		}
		time.Sleep(100 * time.Millisecond)
	}
	return now
}

// returned waits until the process is where it was: up to a few spare connections and threads, and the pages that a larger
// log and its caches take.
func (s *soak) returned(base state) state {
	s.t.Helper()
	for until := time.Now().Add(rig.Patience); ; time.Sleep(100 * time.Millisecond) {
		now := s.look()
		if now.files <= base.files+8 && now.threads <= base.threads+16 && now.memory <= base.memory*3/2+32<<10 {
			return now
		}
		if time.Now().After(until) {
			s.t.Errorf("the process takes %+v at rest, and took %+v before", now, base)
			return now
		}
	}
}

func (s *soak) look() (now state) {
	proc := fmt.Sprintf("/proc/%d/", s.server.Pid())
	text, err := os.ReadFile(proc + "status")
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			now.memory = n
		case "Threads":
			now.threads = n
		}
	}
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		s.t.Fatal(err)
	}
	now.files = len(files)
	return now
}

// text is the report.
func (s *soak) text(took time.Duration, v *oracle.Verdict, c *oracle.Case, total *big.Int, base, end state) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-34s "+format+"\n", append([]any{name}, args...)...)
	}
	var tokens sim.Tokens
	cached := 0
	for _, list := range c.Made {
		for _, w := range list {
			tokens.Input, tokens.Cached, tokens.Output = tokens.Input+w.Tokens.Input, tokens.Cached+w.Tokens.Cached, tokens.Output+w.Tokens.Output
			if w.Tokens.Cached > 0 {
				cached++
			}
		}
	}
	kinds := map[string]int{}
	for i := range c.Ledger.Records {
		r := &c.Ledger.Records[i]
		if r.Stream {
			kinds["streams"]++
		} else {
			kinds[r.Endpoint]++
		}
	}
	var names []string
	for name, n := range kinds {
		names = append(names, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(names)
	line("duration", "%s", took.Round(time.Second))
	line("organisations, nodes", "%d, %d", organisations, len(s.nodes))
	line("requests", "%d (%s)", len(c.Calls), strings.Join(names, ", "))
	line("tokens made by the engines", "%d in (%d of them cached), %d out", tokens.Input, tokens.Cached, tokens.Output)
	line("posted, exactly what was made", "%d", v.Exact)
	line("differences, in femto-units", "%s", v.Loss)
	line("nodes that are not their leaves", "0")
	line("charged, in femto-units", "%s", total)
	line("resident memory, before and after", "%d MiB, %d MiB", base.memory>>10, end.memory>>10)
	line("threads, before and after", "%d, %d", base.threads, end.threads)
	line("descriptors, before and after", "%d, %d", base.files, end.files)
	return b.String()
}
