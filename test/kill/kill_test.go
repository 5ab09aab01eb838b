// Package kill kills the real program with `kill -9`, again and again under mixed load and once at each point of a
// request's way, and lets package oracle judge what the next start makes of it.
//
// The short form runs with `go test`, the long one with `make kill`.
package kill

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/test/oracle"
	"talea/test/rig"
)

var (
	kills  = flag.Int("kills", 4, "how often the program is killed")
	report = flag.String("report", "", "file to write the counts to")
	seed   = flag.Uint64("seed", 1, "of the load")
)

// life is how many kills a data directory lives through: what has been judged is judged again after each of them.
const life = 25

// tenants are who asks: two organisations, with price books of the same prices and other rules, and one hot department
// whose limits are always nearly used up.
const tenants = `price_books:
- {name: public, currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, prices: [PRICES]}
- {name: strict, currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, on_disconnect: delivered, on_platform_fault: delivered, prices: [PRICES]}
accounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: public, limits: [{measure: money, window: total, amount: "1000000"}]}
- path: acme/cool
  limits: [{measure: requests, window: total, amount: "100000000"}, {measure: output_tokens, window: total, amount: "1000000000"}]
- {path: acme/cool/a, limits: [{measure: tokens, window: total, amount: "1000000000"}]}
- {path: acme/cool/b}
- {path: beta, currency: EUR, timezone: Europe/Berlin, price_book: strict, limits: [{measure: money, window: total, amount: "1000000"}]}
- {path: beta/dept}
- {path: beta/dept/x, limits: [{measure: input_tokens, window: total, amount: "1000000000"}]}
- {path: beta/dept/x/app}
`

const inline = `{model: m, meter: input, price: "1.00"}, {model: m, meter: input_cache_read, price: "0.10"}, {model: m, meter: output, price: "4.00"}`

var accounts = []string{"acme/cool/a", "acme/cool/b", "acme/hot/app", "beta/dept/x/app"}

// hot is the hot department with so much for it.
func hot(tokens, requests int) string {
	return fmt.Sprintf("- {path: acme/hot, limits: [{measure: tokens, window: total, amount: %q}, {measure: requests, window: total, amount: %q}]}\n- {path: acme/hot/app}\n",
		fmt.Sprint(tokens), fmt.Sprint(requests))
}

// world is one data directory with what has been seen of it so far.
type world struct {
	t         *testing.T
	binary    string
	dir, file string // data directory, resource file
	env       []string
	factory   *rig.Factory
	rng       *rand.Rand
	calls     []oracle.Call
	known     map[string]oracle.Record
	tokens    [2]int // of the hot department: now, and the most that it ever had
	requests  [2]int
	before    *oracle.Verdict
	cut       int // bytes that were torn at the end of the log
}

// tally is what a whole run comes to.
type tally struct {
	kills, torn, acked, refused, hungUp, broken int
	requests, posted, void, exact, resolved     int
	lost                                        sim.Tokens
	loss                                        big.Int
	losses                                      []*big.Int // of each kill
	lostTokens                                  []int64
	recovery                                    []time.Duration
}

// TestKill kills the program under mixed load: plain answers, streams, embeddings, clients that hang up, a hot department
// at its limits, limits that change. F004, F005: what was running is resolved before anybody is answered. I1 to I6.
func TestKill(t *testing.T) {
	binary := rig.Binary(t, "")
	sum := &tally{}
	for n := 0; n < *kills && !t.Failed(); n += life {
		w := newWorld(t, binary, *seed+uint64(n))
		w.live(sum, min(life, *kills-n))
	}
	text := sum.String()
	t.Log("\n" + text)
	if sum.acked == 0 || *kills > life && (sum.refused == 0 || sum.hungUp == 0 || sum.resolved == 0) { // a few short lives may lack something
		t.Error("the load has not had everything")
	}
	if *report != "" && !t.Failed() {
		if err := os.WriteFile(*report, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func newWorld(t *testing.T, binary string, seed uint64) *world {
	dir := t.TempDir()
	w := &world{
		t: t, binary: binary, dir: filepath.Join(dir, "data"), file: filepath.Join(dir, "resources.yaml"), known: map[string]oracle.Record{},
		rng: rand.New(rand.NewPCG(seed, 2)), factory: rig.NewFactory(2, sim.EngineOptions{Seed: seed}), tokens: [2]int{3000, 3000}, requests: [2]int{8, 8},
	}
	t.Cleanup(w.factory.Close)
	keys, env := rig.Keys(accounts)
	w.env = env
	text := w.factory.Resources() + strings.ReplaceAll(tenants, "PRICES", inline) + hot(w.tokens[0], w.requests[0]) + keys
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// live starts, kills and judges so many times.
func (w *world) live(sum *tally, kills int) {
	resources := w.file
	for n := 0; n <= kills && !w.t.Failed(); n++ {
		s, err := rig.Start(w.binary, w.dir, resources, w.env...)
		if err != nil {
			w.t.Fatal(err)
		}
		resources = "" // from now on the world is what the directory has
		if n > 0 {
			sum.kills++
			sum.recovery = append(sum.recovery, s.Took)
			w.judge(s, sum)
		}
		if n == kills {
			if err := s.Stop(); err != nil {
				w.t.Error(err)
			}
			break
		}
		w.run(s)
	}
	v := w.before
	sum.requests, sum.posted, sum.void, sum.exact, sum.resolved = sum.requests+v.Requests, sum.posted+v.Posted, sum.void+v.Void, sum.exact+v.Exact, sum.resolved+v.Resolved
	for _, c := range w.calls {
		switch {
		case c.Status != 200:
			sum.refused++
		case c.Done:
			sum.acked++
		case c.HungUp:
			sum.hungUp++
		default:
			sum.broken++
		}
	}
	sum.torn += w.cut
}

// run loads the server until some answers are there, and kills it in the middle of others.
func (w *world) run(s *rig.Server) {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	client := rig.NewClient()
	want := len(w.factory.Book()) + 20 + w.rng.IntN(60)
	seeds := w.rng.Uint64()
	ended := make(chan struct{})
	go func() {
		client.Work(ctx, s.Tenants, 12, asker(seeds))
		close(ended)
	}()
	changing := make(chan struct{})
	go func() {
		defer close(changing)
		w.change(ctx, s)
	}()
	if err := w.factory.Until(func(book map[string][]sim.Work) bool { return len(book) >= want }); err != nil {
		w.t.Error(err)
	}
	s.Kill()
	stop()
	<-ended
	<-changing
	if err := w.factory.Idle(); err != nil {
		w.t.Error(err)
	}
	w.calls = append(w.calls, client.Log()...)
	w.tear()
	if out, err := exec.Command(w.binary, "ledger", "check", "--data", w.dir).CombinedOutput(); err != nil {
		w.t.Errorf("ledger check after a kill: %v\n%s", err, out)
	}
}

// asker makes the requests of workers: each has its account and its own mix.
func asker(seeds uint64) func(worker, serial int) *rig.Ask {
	return func(worker, serial int) *rig.Ask {
		rng := rand.New(rand.NewPCG(seeds, uint64(worker)<<32|uint64(serial)))
		a := &rig.Ask{Account: accounts[worker%len(accounts)], Model: "m"}
		a.Key = rig.Key(a.Account)
		tokens := 1 + rng.IntN(150)
		a.Text = fmt.Sprintf("[[c=%d delay=%dus]] Worker %d asks %s", tokens, rng.IntN(400), worker%3, strings.Repeat("again and again ", rng.IntN(12)))
		switch n := rng.IntN(100); {
		case n < 35:
			a.Kind, a.MaxTokens = rig.Plain, int64(rng.IntN(2))*200
		case n < 75:
			a.Kind, a.MaxTokens = rig.Stream, int64(rng.IntN(2))*200
		case n < 85:
			a.Kind, a.HangUp = rig.Stream, 1+rng.Int64N(int64(tokens))
		case n < 90:
			a.Kind, a.Patience = rig.Plain, time.Duration(1+rng.IntN(20))*time.Millisecond
		default:
			a.Kind = rig.Embeddings
		}
		return a
	}
}

// change changes the hot department's limits while it is being used: mostly up, sometimes down.
func (w *world) change(ctx context.Context, s *rig.Server) {
	for ctx.Err() == nil {
		w.tokens[0] = max(1000, w.tokens[0]+700-w.rng.IntN(1000))
		w.requests[0] = max(1, w.requests[0]+3-w.rng.IntN(6))
		// It may be in force although the answer never comes.
		w.tokens[1], w.requests[1] = max(w.tokens[0], w.tokens[1]), max(w.requests[0], w.requests[1])
		if s.Apply("accounts:\n"+hot(w.tokens[0], w.requests[0])) != nil {
			return // killed
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// judge reads the ledger of a server that was started after a kill, and compares it with what was seen.
func (w *world) judge(s *rig.Server, sum *tally) {
	w.t.Helper()
	store, err := sqlite.OpenReader(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer store.Close()
	c := &oracle.Case{Made: w.factory.Book(), Calls: w.calls, Prices: oracle.Prices{Input: "1.00", Cached: "0.10", Output: "4.00"}, Most: map[string]string{}}
	if c.Ledger, err = oracle.ReadServer(&s.Admin, store, accounts, w.known); err != nil {
		w.t.Fatal(err)
	}
	for _, l := range c.Ledger.Limits {
		if l.Account == "acme/hot" && l.Measure == "tokens" {
			c.Most[l.Name()] = fmt.Sprint(w.tokens[1])
		} else if l.Account == "acme/hot" {
			c.Most[l.Name()] = fmt.Sprint(w.requests[1])
		}
	}
	v := oracle.Judge(c)
	if !v.Ok() {
		w.t.Errorf("after kill %d, with seed %d:\n%s", sum.kills, *seed, v)
	}
	was := w.before
	if was == nil {
		was = &oracle.Verdict{CrashLoss: new(big.Int)}
	}
	loss := new(big.Int).Sub(v.CrashLoss, was.CrashLoss)
	tokens := v.CrashLost.Input + v.CrashLost.Output - was.CrashLost.Input - was.CrashLost.Output
	sum.losses, sum.lostTokens = append(sum.losses, loss), append(sum.lostTokens, tokens)
	sum.loss.Add(&sum.loss, loss)
	sum.lost.Input += v.CrashLost.Input - was.CrashLost.Input
	sum.lost.Output += v.CrashLost.Output - was.CrashLost.Output
	w.before = v
}

// tear does to the write-ahead log what a power cut may: behind the newest commit stands a frame that was not finished.
func (w *world) tear() {
	path := filepath.Join(w.dir, sqlite.FileName+"-wal")
	wal, err := os.ReadFile(path)
	if err != nil || w.rng.IntN(2) == 0 {
		return
	}
	end := committed(wal)
	torn := make([]byte, 1+w.rng.IntN(9000))
	for i := range torn {
		torn[i] = byte(w.rng.Uint32())
	}
	if len(wal) >= end+24 && w.rng.IntN(2) == 0 {
		copy(torn, wal[end:end+24]) // it begins as a frame does
	} else if end >= 32 && len(torn) >= 24 {
		copy(torn[8:16], wal[16:24]) // with the log's salt
	}
	if err := os.WriteFile(path, append(wal[:end:end], torn...), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.cut++
}

// committed is where the newest commit in a write-ahead log ends: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
func committed(wal []byte) (end int) {
	if len(wal) < 32 {
		return len(wal)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if wal[3]&1 == 1 {
		order = binary.BigEndian
	}
	var a, b uint32
	sum := func(p []byte) {
		for ; len(p) >= 8; p = p[8:] {
			a += order.Uint32(p) + b
			b += order.Uint32(p[4:]) + a
		}
	}
	sum(wal[:24])
	page := int(binary.BigEndian.Uint32(wal[8:]))
	end = 32
	for at := 32; at+24+page <= len(wal); at += 24 + page {
		frame := wal[at : at+24+page]
		sum(frame[:8])
		sum(frame[24:])
		if string(frame[8:16]) != string(wal[16:24]) || binary.BigEndian.Uint32(frame[16:]) != a || binary.BigEndian.Uint32(frame[20:]) != b {
			break
		}
		if binary.BigEndian.Uint32(frame[4:]) != 0 {
			end = at + 24 + page
		}
	}
	return end
}

// String is the report.
func (s *tally) String() string {
	slices.Sort(s.recovery)
	slices.Sort(s.lostTokens)
	slices.SortFunc(s.losses, (*big.Int).Cmp)
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-34s "+format+"\n", append([]any{name}, args...)...)
	}
	line("kills", "%d", s.kills)
	line("of them with a torn log", "%d", s.torn)
	line("requests that reached an engine", "%d", s.requests)
	line("answers seen whole by clients", "%d", s.acked)
	line("answers cut by a kill", "%d", s.broken)
	line("clients that hung up", "%d", s.hungUp)
	line("refused", "%d", s.refused)
	line("posted", "%d", s.posted)
	line("of them exactly what was made", "%d", s.exact)
	line("void", "%d", s.void)
	line("resolved at a start", "%d", s.resolved)
	line("findings of the oracle", "0")
	if n := len(s.losses); n > 0 {
		mean := new(big.Int).Quo(&s.loss, big.NewInt(int64(n)))
		line("operator's loss of a kill, tokens", "mean %d, median %d, most %d", (s.lost.Input+s.lost.Output)/int64(n), s.lostTokens[n/2], s.lostTokens[n-1])
		line("operator's loss of a kill, EUR", "mean %s, most %s", euro(mean), euro(s.losses[n-1]))
		line("start after a kill, ready", "median %d ms, most %d ms", s.recovery[n/2].Milliseconds(), s.recovery[n-1].Milliseconds())
	}
	return b.String()
}

// euro writes femto-units to the millionth.
func euro(n *big.Int) string {
	text := fmt.Sprintf("%016s", n)
	return text[:len(text)-15] + "." + text[len(text)-15:len(text)-9]
}
