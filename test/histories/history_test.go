package histories

import (
	"cmp"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/world"
)

var (
	seed      = flag.Uint64("seed", 0, "replay this one history, and say each step")
	histories = flag.Int("histories", 12, "how many histories to run")
	first     = flag.Uint64("first", 1, "the seed of the first of them")
	twice     = flag.Int("twice", 4, "run every so many-th history twice, and count those that are alike to the byte; 0 is none")
	report    = flag.String("report", "", "write the counts to this file")
)

// leastRequests and leastCrashes are in every history.
const (
	leastRequests = 100
	leastCrashes  = 2
)

// history is one run of everything, in simulated time.
type history struct {
	t       *testing.T
	rng     *rand.Rand // of the driver
	chance  *rand.Rand // of the disk, whose writes come one after the other
	clock   *clock
	disk    *disk
	engines []*engine
	process *process
	secrets io.Reader
	books   *books

	syncFails atomic.Bool  // the next sync fails
	syncSlow  atomic.Int64 // nanoseconds that each sync takes beside its own

	mu       sync.Mutex // guards what follows
	counts   map[string]int
	instants map[time.Time]bool // at which somebody wakes

	limits   map[string]int64 // what stands in the resources, by limitKey.name
	behind   time.Duration    // the clock
	requests []*request
	clients  sync.WaitGroup
	script   strings.Builder // each step in words
}

// engine is a simulated engine that outlives the gateway's processes.
type engine struct {
	*sim.Engine
	port *listener
}

// clock is the wall clock, which may step. Time itself, which timers follow, does not.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())).UTC() }

func (c *clock) step(d time.Duration) { c.offset.Add(int64(d)) }

func (c *clock) set(t time.Time) { c.offset.Store(int64(t.Sub(time.Now()))) }

// TestHistories: the whole gateway in simulated time, through crashes, failing disks and engines, clients that leave,
// limits that change and clocks that step (F002, F003, F004, F005, F006, F007, F017, F018, F020, F027, F028, F035, F042,
// F066, F067, F099).
func TestHistories(t *testing.T) {
	if *seed != 0 {
		run(t, *seed)
		return
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // what happens at one instant has an order then, nearly always the same one
	total := newTally()
	began, cpu := time.Now(), processorTime()
	for n := range uint64(*histories) {
		seed := *first + n
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			counts, script := run(t, seed)
			if *twice > 0 && n%uint64(*twice) == 0 {
				counts["replay"]++
				if _, again := run(t, seed); again == script {
					counts["replay alike to the byte"]++
				}
			}
			total.add(counts)
		})
		if !ok {
			t.Logf("run it again: go test ./test/histories -run TestHistories -seed %d -v", seed)
		}
	}
	total.took, total.cpu = time.Since(began), processorTime()-cpu
	t.Logf("\n%s", total)
	total.require(t)
	if *report != "" {
		if err := os.WriteFile(*report, []byte(total.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func processorTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// run runs one history. It returns what happened in it, and all of it in words with the hashes of the log.
func run(t *testing.T, seed uint64) (counts map[string]int, script string) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{
			t: t, rng: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)), secrets: rand.NewChaCha8(sha256.Sum256([]byte("secrets"))),
			clock: &clock{}, disk: newDisk(), counts: map[string]int{}, instants: map[time.Time]bool{}, limits: map[string]int64{},
		}
		h.books = newBooks(h)
		h.begin(seed)
		for n := 0; n < 40 || len(h.requests) < leastRequests || h.counts["crash"] < leastCrashes; n++ {
			what := h.step(n)
			synctest.Wait()
			h.note("%4d %s %s", n, h.clock.Now().Format("01-02T15:04:05.000000"), what)
			h.whole("after a step")
			if t.Failed() {
				break
			}
		}
		h.finish()
		for _, head := range sorted(h.disk.heads, cmp.Compare) {
			h.note("organisation %d: %d entries, %x", head.Org, head.Seq, head.Hash)
		}
		counts, script = h.counts, h.script.String()
		if t.Failed() {
			t.Logf("history of seed %d:\n%s", seed, h.script.String())
		}
	})
	return counts, script
}

// note writes a step down.
func (h *history) note(format string, args ...any) {
	fmt.Fprintf(&h.script, format+"\n", args...)
	if *seed != 0 {
		h.t.Logf(format, args...)
	}
}

// did counts something that happened.
func (h *history) did(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what]++
}

// apart returns a time of about d at whose end nobody else wakes: what happens at one instant has no order that could be
// replayed.
func (h *history) apart(d time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if len(h.instants) > 1<<14 {
		maps.DeleteFunc(h.instants, func(at time.Time, _ bool) bool { return at.Before(now) })
	}
	at := now.Add(d)
	for h.instants[at] {
		at = at.Add(time.Nanosecond)
	}
	h.instants[at] = true
	return time.Until(at)
}

func (h *history) sleep(d time.Duration) { time.Sleep(h.apart(d)) }

// syncTime is how long a sync takes.
func (h *history) syncTime() time.Duration {
	return time.Duration(h.syncSlow.Load()) + time.Duration(100_000+h.chance.Int64N(3_000_000))
}

// starts are near the borders of periods: a year, a month, a day of 23 hours, one of 25.
var starts = []string{"2026-12-31T22:10:00Z", "2026-02-28T22:30:00Z", "2026-03-28T22:40:00Z", "2026-10-24T21:30:00Z", "2026-06-17T10:20:00Z"}

func (h *history) begin(seed uint64) {
	at, err := time.Parse(time.RFC3339, starts[seed%uint64(len(starts))])
	if err != nil {
		h.t.Fatal(err)
	}
	h.clock.set(at)
	for i := range 2 {
		e := &engine{port: listen(address(fmt.Sprintf("10.0.0.%d:8000", i+1)))}
		e.Engine = sim.NewEngine(sim.EngineOptions{Listener: e.port, Seed: seed, Keep: true, Watch: h.books.engine, Sleep: h.pace})
		h.engines = append(h.engines, e)
	}
	for _, l := range limitKeys {
		h.limits[l.name] = l.low + h.rng.Int64N(l.high-l.low)
	}
	h.process = h.start()
	h.apply()
}

// pace is the engines' time.
func (h *history) pace(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(h.apart(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply applies the resources with the limits as they are now.
func (h *history) apply() {
	h.books.limits(h.limits)
	_, err := h.process.world.Apply(context.Background(), world.Source{File: "world.yaml", Text: []byte(h.resources()), Secrets: secretsOf}, false)
	if err != nil && h.process.ledger.Ready() == nil {
		h.t.Fatal(err)
	}
}

// step does one thing and says what.
func (h *history) step(n int) string {
	h.await()
	switch k := h.rng.IntN(100); {
	case n%30 == 29 && h.counts["crash"] < leastCrashes, k < 2:
		return h.crashNow()
	case k < 4:
		return h.crashInWrite()
	case k < 6:
		return h.restart()
	case k < 7:
		h.syncFails.Store(true)
		return "the next sync will fail"
	case k < 10:
		h.syncSlow.Store([]int64{0, 0, 20_000_000, 500_000_000, 3_000_000_000}[h.rng.IntN(5)])
		h.did("disk speed changed")
		return fmt.Sprintf("syncs take %s more", time.Duration(h.syncSlow.Load()))
	case k < 13:
		full, all := h.rng.IntN(3) == 0, h.rng.IntN(8) == 0
		h.disk.setFull(full, all)
		if full {
			h.did("disk full")
		}
		return fmt.Sprintf("the disk is full %t, its reserve too %t", full, all)
	case k < 19:
		return h.changeLimits()
	case k < 23:
		return h.stepClock()
	case k < 26:
		return h.breakEngine()
	case k < 45:
		d := time.Duration(h.rng.Int64N(int64(2 * time.Second)))
		h.sleep(d)
		return fmt.Sprintf("%s pass", d)
	}
	return h.askSome()
}

// await restarts a process whose ledger has failed.
func (h *history) await() {
	select {
	case err := <-h.process.broken:
		h.note("     the process ends: %v", err)
		h.process.fail()
		h.whole("after a failed commit")
		h.process = h.start()
		h.did("restart after a failed commit")
	default:
	}
}

func (h *history) crashNow() string {
	h.askSome()
	h.sleep(time.Duration(h.rng.Int64N(int64(400 * time.Millisecond))))
	return h.reborn("crash")
}

// crashInWrite crashes in the middle of the nth commit from here.
func (h *history) crashInWrite() string {
	n := 1 + h.rng.Int64N(6)
	h.process.crash.Store(n)
	for range n {
		h.askSome()
	}
	patience := time.NewTimer(h.apart(20 * time.Second))
	defer patience.Stop()
	select {
	case <-h.process.felled:
		h.did("crash in a commit")
		return h.reborn("crash")
	case <-h.process.broken: // it was a sync that failed
		h.process.broken <- errDied
		return "no crash in a commit: it failed"
	case <-patience.C:
		h.process.crash.Store(0)
		return "no commit to crash in"
	}
}

// reborn kills the process and starts the next one.
func (h *history) reborn(what string) string {
	open := h.process.ledger.OpenHolds()
	h.process.kill()
	h.did(what)
	h.process = h.start()
	r := h.process.ledger.Recovered()
	if n := h.process.ledger.OpenHolds(); n != 0 {
		h.t.Errorf("I5: %d holds are open after recovery", n)
	}
	h.whole("after a crash")
	if r.Posted+r.Voided > 0 {
		h.did("crash with open holds")
	}
	return fmt.Sprintf("%s: %d holds were open, %d are posted and %d void", what, open, r.Posted, r.Voided)
}

func (h *history) restart() string {
	h.process.stop(time.Duration(h.rng.Int64N(int64(3 * time.Second))))
	h.whole("after a restart")
	h.process = h.start()
	h.did("restart")
	return "restart"
}

func (h *history) changeLimits() string {
	h.disk.setFull(false, false) // a change of the world waits for room, for as long as it takes: somebody makes some
	var said []string
	for range 1 + h.rng.IntN(2) {
		l := limitKeys[h.rng.IntN(len(limitKeys))]
		h.limits[l.name] = h.rng.Int64N(l.high)
		said = append(said, fmt.Sprintf("%s is %d", l.name, h.limits[l.name]))
	}
	h.apply()
	h.did("limit change")
	return strings.Join(said, ", ")
}

func (h *history) stepClock() string {
	d := time.Duration(h.rng.Int64N(int64(90 * time.Minute)))
	if back := time.Duration(h.rng.Int64N(int64(3 * time.Minute))); h.rng.IntN(2) == 0 && h.behind+back < 4*time.Minute { // more, and no process would start
		d = -back
		h.behind += back
		h.did("clock step back")
	} else {
		h.behind = max(0, h.behind-d)
		h.did("clock step forward")
	}
	h.clock.step(d)
	return fmt.Sprintf("the clock steps by %s", d)
}

func (h *history) breakEngine() string {
	e := h.engines[h.rng.IntN(len(h.engines))]
	fault, every := engineFaults[h.rng.IntN(len(engineFaults))], uint64(2+h.rng.IntN(4))
	if h.rng.IntN(3) == 0 {
		every = 0
	}
	e.Fault(fault, every)
	h.did("engine fault")
	return fmt.Sprintf("engine %s: %s at every %d", e.port.at, fault, every)
}

// askSome begins a few requests, each at a moment of its own.
func (h *history) askSome() string {
	n := 1 + h.rng.IntN(6)
	p := h.process
	for range n {
		r := h.invent()
		if h.rng.IntN(8) == 0 {
			if keyed := slices.DeleteFunc(slices.Clone(h.requests), func(r *request) bool { return r.retries == "" }); len(keyed) > 0 {
				r = keyed[h.rng.IntN(len(keyed))].again(r.n)
				h.did("retry under a key")
			}
		}
		h.requests = append(h.requests, r)
		h.clients.Go(func() { h.ask(p, r) })
		h.sleep(time.Duration(h.rng.Int64N(int64(30 * time.Millisecond))))
	}
	return fmt.Sprintf("%d requests, the last %s", n, h.requests[len(h.requests)-1])
}

// finish lets everything end and closes the books.
func (h *history) finish() {
	h.syncSlow.Store(0)
	h.syncFails.Store(false)
	h.disk.setFull(false, false)
	h.await()
	h.clients.Wait()
	h.await()
	h.process.stop(time.Minute)
	h.whole("at the end")
	if !h.t.Failed() {
		h.books.close()
	}
	for _, e := range h.engines {
		e.Close()
	}
	for _, r := range h.requests {
		h.did("request")
		if r.stream {
			h.did("stream")
		}
		if r.left.Load() {
			h.did("hang-up")
		}
		h.did(r.outcome())
	}
	h.did("history")
}

// whole checks the whole ledger.
func (h *history) whole(when string) {
	report, err := ledger.Check(&store{disk: h.disk})
	if err != nil || !report.OK() {
		h.t.Errorf("%s: %v %v", when, report, err)
	}
	h.did("check")
}

// tally adds histories up.
type tally struct {
	took, cpu time.Duration
	sum       map[string]int
	least     map[string]int
	most      map[string]int
	with      map[string]int // histories that had one
}

func newTally() *tally {
	return &tally{sum: map[string]int{}, least: map[string]int{}, most: map[string]int{}, with: map[string]int{}}
}

func (t *tally) add(counts map[string]int) {
	for what, n := range counts {
		t.sum[what] += n
		t.most[what] = max(t.most[what], n)
		if t.with[what]++; t.with[what] == 1 || n < t.least[what] {
			t.least[what] = n
		}
	}
}

// String is the distribution.
func (t *tally) String() string {
	var b strings.Builder
	n := max(1, t.sum["history"])
	fmt.Fprintf(&b, "%d histories in %s, %s of processor time: %d an hour here, %d an hour for each processor\n", t.sum["history"], t.took.Round(time.Second),
		t.cpu.Round(time.Second), int64(n)*int64(time.Hour)/max(1, int64(t.took)), int64(n)*int64(time.Hour)/max(1, int64(t.cpu)))
	fmt.Fprintf(&b, "%10s %10s %6s %6s  %s\n", "all", "histories", "least", "most", "of")
	for _, what := range slices.Sorted(maps.Keys(t.sum)) {
		least := t.least[what]
		if t.with[what] < n {
			least = 0
		}
		fmt.Fprintf(&b, "%10d %10d %6d %6d  %s\n", t.sum[what], t.with[what], least, t.most[what], what)
	}
	return b.String()
}

// require is that the histories had what they are about.
func (t *tally) require(test *testing.T) {
	n := t.sum["history"]
	for what, each := range map[string]int{"request": leastRequests, "crash": leastCrashes} {
		if n > 0 && (t.with[what] < n || t.least[what] < each) {
			test.Errorf("a history had only %d of %s", t.least[what], what)
		}
	}
	for _, what := range []string{"stream", "hang-up", "limit change", "engine fault", "clock step back", "clock step forward", "crash in a commit", "crash with open holds", "restart", "told: the whole answer", "told: insufficient_quota"} {
		if n >= 10 && t.sum[what] == 0 {
			test.Errorf("no history had: %s", what)
		}
	}
}
