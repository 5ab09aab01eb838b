package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"talea/internal/sim"
	"talea/internal/store/sqlite"
	"talea/test/oracle"
	"talea/test/rig"
)

const world = `price_books:
- {name: public, currency: EUR, timezone: Europe/Berlin, effective: {from: 2026-01-01T00:00:00+01:00}, prices: [{model: m, meter: input, price: "1.00"}, {model: m, meter: input_cache_read, price: "0.10"}, {model: m, meter: output, price: "4.00"}]}
accounts:
- {path: acme, currency: EUR, timezone: Europe/Berlin, price_book: public, limits: [{measure: money, window: total, amount: "1000000"}]}
- {path: acme/app}
`

var binary string

// TestMain says loudly where there is no FUSE: then nothing here is tested. CI has it.
func TestMain(m *testing.M) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n*** NOT TESTED: faults of disks. There is no file system of our own here: %v\n\n", err)
		if os.Getenv("CI") == "true" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	f.Close()
	dir, err := os.MkdirTemp("", "talea-disk-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "talea")
	build := exec.Command("go", "build", "-o", binary, "./cmd/talea")
	build.Dir = filepath.Join("..", "..")
	status := 1
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the program: %v\n%s", err, out)
	} else {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// place is a server on a faulty disk, with what its clients have seen.
type place struct {
	*rig.Server
	t       *testing.T
	disk    *Disk
	at      string
	env     []string
	factory *rig.Factory
	client  *rig.Client
	calls   []oracle.Call
}

func newPlace(t *testing.T, env ...string) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{t: t, at: filepath.Join(dir, "data"), factory: rig.NewFactory(1, sim.EngineOptions{Seed: 1}), client: rig.NewClient()}
	t.Cleanup(p.factory.Close)
	if err := os.Mkdir(p.at, 0o700); err != nil {
		t.Fatal(err)
	}
	d, server, err := Mount(p.at)
	if err != nil {
		t.Fatalf("cannot mount: %v", err)
	}
	p.disk = d
	t.Cleanup(func() {
		p.disk.SetFault(nil)
		if p.Server != nil {
			p.Kill()
		}
		if err := server.Unmount(); err != nil {
			syscall.Unmount(p.at, syscall.MNT_DETACH)
		}
	})
	keys, keyEnv := rig.Keys([]string{"acme/app"})
	p.env = append(append(keyEnv, "TALEA_DISK_PATIENCE=0"), env...)
	file := filepath.Join(dir, "resources.yaml")
	if err := os.WriteFile(file, []byte(p.factory.Resources()+world+keys), 0o600); err != nil {
		t.Fatal(err)
	}
	if p.Server, err = rig.Start(binary, p.at, file, p.env...); err != nil {
		t.Fatal(err)
	}
	return p
}

func ask(kind rig.Kind, marker string) *rig.Ask {
	return &rig.Ask{Account: "acme/app", Key: rig.Key("acme/app"), Model: "m", Kind: kind, MaxTokens: 500, Text: "[[" + marker + "]] hello"}
}

func (p *place) do(a *rig.Ask) oracle.Call { return p.client.Do(context.Background(), p.Tenants, a) }

// ready is the status of /readyz.
func (p *place) ready() int {
	resp, err := http.Get(p.Tenants + "/readyz")
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (p *place) until(what string, is func() bool) {
	p.t.Helper()
	for end := time.Now().Add(rig.Patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("still not: %s\n%s", what, p.Log())
		}
	}
}

// streams begins streams that go on until their engine is let, and waits until each has said something.
func (p *place) streams(n int) (ended chan oracle.Call) {
	p.t.Helper()
	ended = make(chan oracle.Call, n)
	said := make(chan struct{}, n)
	for range n {
		go func() {
			a := ask(rig.Stream, "c=150 delay=20ms")
			a.Seen = func(visible int64) {
				if visible == 1 {
					said <- struct{}{}
				}
			}
			ended <- p.do(a)
		}()
	}
	for range n {
		select {
		case <-said:
		case <-time.After(rig.Patience):
			p.t.Fatalf("a stream does not begin\n%s", p.Log())
		}
	}
	return ended
}

// whole wants all streams to have come to their ends, with what they cost.
func (p *place) whole(ended chan oracle.Call) {
	p.t.Helper()
	for range cap(ended) {
		if c := <-ended; !c.Done || c.Cost == "" || c.Visible == 0 {
			p.t.Errorf("a stream that was running ended with %+v\n%s", c, p.Log())
		}
	}
}

// judge starts the program on files of an ordinary disk, and compares what it makes of them with what clients and the
// engine know.
func (p *place) judge(files map[string][]byte) {
	p.t.Helper()
	if err := p.factory.Idle(); err != nil {
		p.t.Error(err)
	}
	dir := filepath.Join(p.t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	for name, b := range files {
		if mapped(name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(p.at + ".witness"); err == nil { // outside of the disk: it has seen what was durable
		if err := os.WriteFile(dir+".witness", b, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	s, err := rig.Start(binary, dir, "", p.env...)
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Kill()
	store, err := sqlite.OpenReader(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	defer store.Close()
	p.calls = append(p.calls, p.client.Log()...)
	c := &oracle.Case{Made: p.factory.Book(), Calls: p.calls, Prices: oracle.Prices{Input: "1.00", Cached: "0.10", Output: "4.00"}}
	if c.Ledger, err = oracle.ReadServer(&s.Admin, store, []string{"acme/app"}, nil); err != nil {
		p.t.Fatal(err)
	}
	if v := oracle.Judge(c); !v.Ok() {
		p.t.Errorf("the ledger is not what it should be:\n%s", v)
	}
	if len(p.calls) == 0 {
		p.t.Error("nobody has called")
	}
}

// ended lets the server end in order, and judges what it leaves.
func (p *place) ended() {
	p.t.Helper()
	if err := p.Stop(); err != nil {
		p.t.Error(err)
	}
	p.Server = nil
	p.judge(p.disk.Files())
}

// ledgerFile says that an operation is on the ledger's file or its log.
func ledgerFile(op Op) bool {
	return op.Name == sqlite.FileName || op.Name == sqlite.FileName+"-wal"
}

// noRoom loads the server until it refuses, with streams running, and lets them end; then there is room again.
func noRoom(t *testing.T, full, roomy func(*Disk)) {
	p := newPlace(t)
	for range 3 {
		if c := p.do(ask(rig.Plain, "c=5")); !c.Done {
			t.Fatalf("%+v", c)
		}
	}
	running := p.streams(8)
	full(p.disk)
	p.until("refused", func() bool { return p.do(ask(rig.Plain, "c=5")).Status == 503 })
	if status := p.ready(); status != 503 {
		t.Errorf("/readyz says %d on a disk without room", status)
	}
	p.whole(running)
	if c := p.do(ask(rig.Plain, "c=5")); c.Status != 503 {
		t.Errorf("%+v", c)
	}
	roomy(p.disk)
	p.until("ready", func() bool { return p.ready() == 200 })
	if c := p.do(ask(rig.Plain, "c=5")); !c.Done {
		t.Errorf("after there is room again: %+v\n%s", c, p.Log())
	}
	p.ended()
}

// F015: a full disk. New requests are refused, those that run are settled out of the reserve, and with room again the same
// process goes on.
func TestFullDisk(t *testing.T) {
	noRoom(t, func(d *Disk) { d.SetCapacity(0) }, func(d *Disk) { d.SetCapacity(1 << 40) })
}

// F021: a disk that has become read-only. As there is no room in a reserve on it, streams end when it can be written again.
func TestReadOnly(t *testing.T) {
	p := newPlace(t)
	running := p.streams(4)
	p.disk.SetFault(func(op Op) syscall.Errno {
		if op.What == "fsync" || mapped(op.Name) {
			return 0
		}
		return syscall.EROFS
	})
	go p.do(ask(rig.Plain, "c=5")) // the request that finds out waits for its hold
	p.until("refused", func() bool { return p.ready() == 503 })
	if c := p.do(ask(rig.Plain, "c=5")); c.Status != 503 {
		t.Errorf("%+v", c)
	}
	p.disk.SetFault(nil)
	p.whole(running)
	p.until("ready", func() bool { return p.ready() == 200 })
	p.ended()
}

// F015: each single write to the ledger in turn finds no room, once.
func TestNoRoomForOneWrite(t *testing.T) {
	p := newPlace(t)
	for n := range 25 {
		var writes atomic.Int64
		p.disk.SetFault(func(op Op) syscall.Errno {
			if ledgerFile(op) && op.What == "write" && writes.Add(1) == int64(n+1) {
				return syscall.ENOSPC
			}
			return 0
		})
		if c := p.do(ask(rig.Plain, "c=5")); !c.Done {
			t.Errorf("write %d: %+v", n, c) // the reserve is there for it
		}
		p.disk.SetFault(nil)
		p.until("ready", func() bool { return p.ready() == 200 })
	}
	p.ended()
}

// F017: one sync fails, what it was to sync is gone, and every later one says that all is well. Nothing is acknowledged
// after it, the process ends, and what was acknowledged is there.
func TestFailedSync(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			p := newPlace(t)
			running := p.streams(1)
			p.disk.LoseWhatFails()
			var syncs atomic.Int64
			p.disk.SetFault(func(op Op) syscall.Errno {
				if op.What == "fsync" && op.Name == sqlite.FileName+"-wal" && syncs.Add(1) == n+1 {
					return syscall.EIO
				}
				return 0
			})
			var acked int
			for range 20 {
				if p.do(ask(rig.Plain, "c=5")).Done {
					acked++
				}
			}
			if err := p.Died(); err != nil {
				t.Fatalf("%v\n%s", err, p.Log())
			}
			if acked > int(n) { // each needs two commits
				t.Errorf("%d requests were answered, and sync %d had failed", acked, n)
			}
			p.Server = nil
			<-running
			p.judge(p.disk.Files())
		})
	}
}

// F018: each sync takes half a second. Requests share them, none fails, and streams are not held up.
func TestSlowSync(t *testing.T) {
	p := newPlace(t)
	running := p.streams(2)
	p.disk.SetFault(func(op Op) syscall.Errno {
		if op.What == "fsync" {
			time.Sleep(500 * time.Millisecond)
		}
		return 0
	})
	before, n := p.disk.Fsyncs(), 64
	done := make(chan oracle.Call, n)
	for range n {
		go func() { done <- p.do(ask(rig.Plain, "c=5")) }()
	}
	for range n {
		if c := <-done; !c.Done {
			t.Errorf("%+v", c)
		}
	}
	p.whole(running)
	p.disk.SetFault(nil)
	if syncs := p.disk.Fsyncs() - before; syncs > n {
		t.Errorf("%d syncs for %d requests", syncs, n)
	}
	p.ended()
}

// F019: a sync hangs. After the patience nobody is admitted, streams run on, and when it returns everything is settled.
func TestHangingSync(t *testing.T) {
	p := newPlace(t, "TALEA_DISK_PATIENCE=200ms")
	let := make(chan struct{})
	running := p.streams(4)
	p.disk.SetFault(func(op Op) syscall.Errno {
		if op.What == "fsync" {
			<-let
		}
		return 0
	})
	if c := p.do(ask(rig.Plain, "c=5")); c.Status != 503 {
		t.Errorf("its hold hangs: %+v", c)
	}
	p.until("not ready", func() bool { return p.ready() == 503 })
	if c := p.do(ask(rig.Plain, "c=5")); c.Status != 503 {
		t.Errorf("while a sync hangs: %+v", c)
	}
	select {
	case c := <-running:
		t.Errorf("a stream has ended before its settlement is on disk: %+v", c)
	default:
	}
	p.disk.SetFault(nil)
	close(let)
	p.whole(running)
	p.until("ready", func() bool { return p.ready() == 200 })
	p.ended()
}

// F022: the ledger's file is deleted under the program. It ends, and the next start makes no empty one.
func TestDeleted(t *testing.T) {
	p := newPlace(t)
	for range 3 {
		p.do(ask(rig.Plain, "c=5"))
	}
	p.until("witnessed", func() bool {
		b, err := os.ReadFile(p.at + ".witness")
		return err == nil && strings.Contains(string(b), `"organisation"`)
	})
	for _, name := range []string{sqlite.FileName, sqlite.FileName + "-wal", sqlite.FileName + "-shm"} {
		if err := os.Remove(filepath.Join(p.at, name)); err != nil {
			t.Fatal(err)
		}
	}
	if c := p.do(ask(rig.Plain, "c=5")); c.Status != 503 {
		t.Errorf("%+v", c)
	}
	if err := p.Died(); err != nil {
		t.Fatal(err)
	}
	p.Server = nil
	_, err := rig.Start(binary, p.at, "", p.env...)
	if err == nil || !strings.Contains(err.Error(), "there is no ledger in") {
		t.Errorf("started again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.at, sqlite.FileName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new ledger is there: %v", err)
	}
}

// F020: the power fails under load. Of what was not synced any part may be there, torn; what was acknowledged is there.
func TestPowerCut(t *testing.T) {
	lostInAll := 0
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := newPlace(t)
			rng := rand.New(rand.NewPCG(seed, 3))
			stop, ended := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				p.client.Work(stop, p.Tenants, 6, func(int, int) *rig.Ask {
					return ask(rig.Kind(rand.IntN(3)), fmt.Sprintf("c=%d delay=300us", 1+rand.IntN(90)))
				})
				close(done)
			}()
			want := 10 + rng.IntN(60)
			if err := p.factory.Until(func(book map[string][]sim.Work) bool { return len(book) >= want }); err != nil {
				t.Error(err)
			}
			// The cut is in the middle of a commit: behind its writes, before its sync has happened.
			cut := make(chan struct{})
			var once atomic.Bool
			p.disk.SetFault(func(op Op) syscall.Errno {
				if op.What == "fsync" && op.Name == sqlite.FileName+"-wal" && once.CompareAndSwap(false, true) {
					close(cut)
					time.Sleep(20 * time.Millisecond)
					return syscall.EIO // nobody is there to see it
				}
				return 0
			})
			select {
			case <-cut:
			case <-time.After(rig.Patience):
				t.Fatal("nothing is ever synced")
			}
			files, lost := p.disk.PowerCut(rng)
			lostInAll += lost
			p.Kill()
			p.Server = nil
			ended()
			<-done
			p.judge(files)
		})
	}
	if lostInAll == 0 {
		t.Error("no power cut has lost anything")
	}
}

// The disk itself: what was synced survives, what was not may not, and a full disk says so.
func TestDisk(t *testing.T) {
	at := t.TempDir()
	d, server, err := Mount(at)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Unmount()
	f, err := os.Create(filepath.Join(at, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	synced, more := []byte(strings.Repeat("a", 2000)), []byte(strings.Repeat("b", 200_000))
	f.Write(synced)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Write(more)
	files, lost := d.PowerCut(rand.New(rand.NewPCG(1, 1)))
	if !slices.Equal(files["f"][:2000], synced) || lost == 0 || slices.Equal(files["f"], d.Files()["f"]) {
		t.Errorf("%d bytes after the power cut, %d lost", len(files["f"]), lost)
	}
	d.SetCapacity(100)
	if _, err := f.Write(more); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("written to a full disk: %v", err)
	}
	d.LoseWhatFails()
	d.SetFault(func(op Op) syscall.Errno {
		if op.What == "fsync" {
			return syscall.EIO
		}
		return 0
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) || !slices.Equal(d.Files()["f"], synced) {
		t.Errorf("%v, %d bytes", err, len(d.Files()["f"]))
	}
}
