package kill

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"

	"talea/internal/crash"
	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/test/oracle"
	"talea/test/rig"
)

// crashed is what one crash came to.
type crashed struct {
	t      *testing.T
	w      *world
	before *rig.Server
	after  *rig.Server
	seen   oracle.Call
	made   []sim.Work // by the engines, for the one request
	record *oracle.Record
	came   atomic.Int64 // tokens at the client so far
}

// none: the request is in no book, and its retry after the start runs once.
func none(c *crashed) {
	if c.seen.Status != 0 || len(c.made) != 0 || c.record != nil {
		c.t.Errorf("client %+v, engines %+v, record %+v", c.seen, c.made, c.record)
	}
	again := c.ask(c.after, "[[c=20]] hi")
	if !again.Done || len(c.w.factory.Book()) != 1 {
		c.t.Errorf("the retry: %+v; engines %+v", again, c.w.factory.Book())
	}
}

// void: the request was held once, is settled at nothing, and no engine knows of it.
func void(c *crashed) {
	if c.seen.Status != 0 || len(c.made) != 0 {
		c.t.Errorf("client %+v, engines %+v", c.seen, c.made)
	}
	c.resolved("void", 0, 0)
}

// resolved wants the one record to be resolved at the start, with output in [from, to] on it, and billed by the rule for
// faults of ours: nothing where that is the rule, what is on the record where it is `delivered`.
func (c *crashed) resolved(status string, from, to int64) {
	c.t.Helper()
	r := c.record
	if r == nil {
		c.t.Fatal("there is no record")
	}
	if r.Outcome != "broken" || r.Fault != "gateway" || r.Status != status || r.Usage.Output < from || r.Usage.Output > to {
		c.t.Errorf("record %+v; want it %s, with %d to %d tokens of output", r, status, from, to)
	}
	var billed int64
	for _, l := range r.Lines {
		if l.Meter == "output_content" {
			billed += l.Quantity
		}
	}
	if status == "posted" && billed != r.Usage.Output || status == "void" && billed != 0 {
		c.t.Errorf("%s with %d tokens billed: %+v", status, billed, r)
	}
}

// byRule is the status of a broken answer of which something was delivered.
func (c *crashed) byRule() string {
	if c.seen.Account == "beta/dept/x/app" {
		return "posted"
	}
	return "void"
}

// finished is a request whose answer is long enough for checkpoints.
const finished = "[[p=32 c=200 delay=0s]]"

// points is the table of crash points. A point without a name is not in the program: stop says when to kill it.
var points = []struct {
	row   string // of the faults, and what happens
	point crash.Point
	text  string
	fail  bool // the first engine fails before its first byte
	stop  func(*crashed) error
	then  func(*crashed)
}{
	{row: "F001 parsed, nothing held", point: crash.Parsed, then: none},
	{row: "F002 held in memory, not on disk", point: crash.HoldDecided, then: none},
	{row: "F002 held on disk, nobody told", point: crash.HoldDurable, then: void},
	{row: "F003 held, not forwarded", point: crash.Held, then: void},
	{row: "F004 forwarded, no byte back", text: "[[p=32 c=20 ttft=1h]]", stop: working, then: func(c *crashed) {
		if c.seen.Status != 0 || len(c.made) != 1 {
			c.t.Errorf("client %+v, engines %+v", c.seen, c.made)
		}
		c.resolved("void", 0, 0)
	}},
	{row: "F005 in mid-stream", text: "[[p=32 c=400 fault=stall at=200 delay=1ms]]", stop: checkpoints, then: func(c *crashed) {
		if c.seen.Done || c.seen.Visible < 200 {
			c.t.Errorf("client %+v", c.seen)
		}
		// Checkpoints each 64 tokens: 192, unless this machine reads many tokens at a time, or takes seconds for a few.
		c.resolved(c.byRule(), 137, 200)
	}},
	{row: "F006 all relayed, settlement not on disk", point: crash.SettlementDecided, text: "[[p=32 c=200 delay=1ms]]", then: func(c *crashed) {
		if c.seen.Done || c.seen.Visible == 0 {
			c.t.Errorf("client %+v", c.seen)
		}
		if r := c.record; r != nil && r.Usage.Output == 0 { // all of it was read at once
			c.resolved("void", 0, 0)
			return
		}
		c.resolved(c.byRule(), 64, 200)
	}},
	{row: "F007 settlement on disk, nobody told", point: crash.SettlementDurable, text: finished, then: settled},
	{row: "F007 settled, no end of the answer", point: crash.Settled, text: finished, then: settled},
	{row: "F014 one engine failed, the next not asked", point: crash.AttemptFailed, fail: true, then: func(c *crashed) {
		if c.seen.Status != 0 || len(c.made) != 1 || c.made[0].Outcome != sim.Faulted {
			c.t.Errorf("client %+v, engines %+v", c.seen, c.made)
		}
		c.resolved("void", 0, 0)
	}},
}

// settled: the client has no end, and all that was made is posted. Whoever sends it again under its key is told so, and no
// engine is asked.
func settled(c *crashed) {
	if c.seen.Done {
		c.t.Errorf("its client saw the end: %+v", c.seen)
	}
	if r := c.record; r == nil || r.Status != "posted" || r.Outcome != "completed" || r.Usage.Output != 200 || r.Charge != "0.000832" {
		c.t.Errorf("record %+v; want 32 in and 200 out for 0.000832", r)
	}
	if again := c.ask(c.after, finished); again.Status != http.StatusConflict || len(c.w.factory.Book()) != 1 {
		c.t.Errorf("sent again: %+v; engines %+v", again, c.w.factory.Book())
	}
}

// working kills once an engine has the request.
func working(c *crashed) error {
	err := c.w.factory.Until(func(book map[string][]sim.Work) bool { return len(book) == 1 })
	c.before.Kill()
	return err
}

// checkpoints kills once one is on disk that is less than 64 tokens before the 200 that the engine makes.
func checkpoints(c *crashed) error {
	store, err := sqlite.OpenReader(c.w.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	var failed error
	err = c.w.factory.Until(func(map[string][]sim.Work) bool {
		marked := int64(0)
		failed = entries(store, func(row ledger.EntryRow) {
			if row.Kind == ledger.KindCheckpoint {
				marked = outputOf(row.Body)
			}
		})
		return failed != nil || marked > 200-64 && c.came.Load() == 200
	})
	c.before.Kill()
	return errors.Join(err, failed)
}

func entries(store ledger.Reader, visit func(ledger.EntryRow)) error {
	return store.Snapshot(&ledger.Visitor{
		Meta:    func(int64, int64) error { return nil },
		Entry:   func(row ledger.EntryRow) error { visit(row); return nil },
		Head:    func(ledger.HeadRow) error { return nil },
		Balance: func(ledger.BalanceRow) error { return nil },
		Usage:   func(ledger.UsageRow) error { return nil },
	})
}

// outputOf reads the output tokens of a checkpoint, by docs/ledger-format.md: two bytes and six numbers of header, a mask
// of meters, and a count for each of them. The meters of output are 3 and 4.
func outputOf(body []byte) (output int64) {
	b := body[2:]
	next := func() uint64 {
		n, size := binary.Uvarint(b)
		b = b[size:]
		return n
	}
	for range 6 {
		next()
	}
	mask := next()
	for m := range 16 {
		if mask>>m&1 == 0 {
			continue
		}
		if n := next(); m == 3 || m == 4 {
			output += int64(n)
		}
	}
	return output
}

// TestCrashPoints kills the program at each point of a request's way, under both rules for faults of ours, and judges
// what the client saw and what the next start makes of it. F001, F002, F003, F004, F005, F006, F007, F014; I3, I4, I5.
func TestCrashPoints(t *testing.T) {
	binary := rig.Binary(t, "crashpoints")
	for _, account := range []string{"acme/cool/a", "beta/dept/x/app"} {
		for _, p := range points {
			t.Run(p.row+" "+account[:4], func(t *testing.T) {
				c := &crashed{t: t, w: newWorld(t, binary, 1), seen: oracle.Call{Account: account}}
				if p.fail {
					c.w.factory.Engines[0].Fault("500", 1)
					c.w.factory.Engines[1].Fault("500", 1)
				}
				if p.text == "" {
					p.text = "[[c=20]] hi"
				}
				c.crash(p.point, p.text, p.stop)
				c.judge()
				p.then(c)
				if err := c.after.Stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// crash sends one request to a program that dies of it, and starts the next.
func (c *crashed) crash(point crash.Point, text string, stop func(*crashed) error) {
	c.t.Helper()
	var err error
	if c.before, err = rig.Start(c.w.binary, c.w.dir, c.w.file, append(c.w.env, "TALEA_CRASH="+string(point))...); err != nil {
		c.t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() {
		if stop == nil {
			stopped <- c.before.Died()
		} else {
			stopped <- stop(c)
		}
	}()
	c.seen = c.ask(c.before, text)
	if err := <-stopped; err != nil {
		c.t.Fatal(err)
	}
	if err := c.w.factory.Idle(); err != nil {
		c.t.Fatal(err)
	}
	if c.after, err = rig.Start(c.w.binary, c.w.dir, "", c.w.env...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashed) ask(s *rig.Server, text string) oracle.Call {
	client := rig.NewClient()
	defer client.CloseIdleConnections()
	seen := client.Do(context.Background(), s.Tenants, &rig.Ask{
		Account: c.seen.Account, Key: rig.Key(c.seen.Account), Model: "m", Kind: rig.Stream, Text: text, Header: [][2]string{{"Idempotency-Key", "one"}}, Seen: c.came.Store,
	})
	return seen
}

// judge lets the oracle look at the ledger after the crash, and finds the one request in it.
func (c *crashed) judge() {
	c.t.Helper()
	c.w.rng = rand.New(rand.NewPCG(1, 1))
	c.w.t = c.t
	if c.seen.Status != 0 {
		c.w.calls = []oracle.Call{c.seen}
	}
	c.w.judge(c.after, &tally{})
	for id, list := range c.w.factory.Book() {
		c.made = append(c.made, list...)
		if c.seen.ID != "" && id != c.seen.ID {
			c.t.Errorf("an engine knows of %s, the client of %s", id, c.seen.ID)
		}
	}
	if len(c.w.known) > 1 {
		c.t.Errorf("one request, %d records", len(c.w.known))
	}
	for _, r := range c.w.known {
		c.record = &r
	}
	if report, err := checkDir(c.w.dir); err != nil {
		c.t.Errorf("ledger check: %v: %s", err, report)
	}
}

func checkDir(dir string) (string, error) {
	store, err := sqlite.OpenReader(dir)
	if err != nil {
		return "", err
	}
	defer store.Close()
	report, err := ledger.Check(store)
	if err == nil && !report.OK() {
		err = fmt.Errorf("the books differ")
	}
	if err != nil {
		return "", err
	}
	return report.String(), nil
}
