package histories

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"talea/internal/gateway"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/usage"
	"talea/internal/world"
)

// process is one run of the gateway, from its start to its end or its crash.
type process struct {
	h      *history
	ledger *ledger.Ledger
	world  *world.World
	gw     *gateway.Gateway
	server *http.Server
	port   *listener
	broken chan error // the ledger's failure

	mu     sync.Mutex // guards what follows
	wires  []*wire    // every connection, to clients and to engines
	dead   bool
	killed chan struct{} // closed when dead
	crash  atomic.Int64  // appends until the process crashes in the middle of one; 0 is never
	felled chan struct{} // closed when that one is under way
}

var (
	errDied = errors.New("the process has died")
	errSync = &net.OpError{Op: "fsync", Err: syscall.EIO}
)

// start begins a process on the disk, as internal/app does.
func (h *history) start() *process {
	p := &process{h: h, broken: make(chan error, 1), killed: make(chan struct{}), felled: make(chan struct{}), port: listen("gateway:8080")}
	room := time.AfterFunc(h.apart(20*time.Second), func() { // recovery waits for it until an operator makes some
		h.disk.setFull(false, false)
		h.did("no room in recovery")
	})
	defer room.Stop()
	var err error
	p.ledger, err = ledger.Open(&store{disk: h.disk, fate: p.fate}, ledger.Options{
		Clock: h.clock, Wait: 5 * time.Second, Patience: 2 * time.Second, OnFailure: func(err error) { p.broken <- err },
	})
	if errors.Is(err, errSync) { // the process ends, and the next one is started
		h.did("fsync error in recovery")
		return h.start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	hasher := identity.NewHasher([32]byte{1}, h.secrets)
	if p.world, err = world.Open(p.ledger, hasher, h.clock); err != nil {
		h.t.Fatal(err)
	}
	p.gw = gateway.New(gateway.Options{
		World: p.world, Ledger: p.ledger, Hasher: hasher, Clock: h.clock, Node: p.ledger.Recovered().Epoch, Dial: p.dial,
	})
	p.server = &http.Server{
		Handler: p.gw, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	go p.server.Serve(gateway.Listen(p.port))
	return p
}

// fate decides what becomes of a batch that is being written, after the time that a sync takes. A batch that the process
// dies of is on the disk or is not; what it decides after its death never is.
func (p *process) fate() fate {
	h := p.h
	select {
	case <-p.killed:
		return fate{err: errDied}
	default:
	}
	kept := h.chance.IntN(2) == 0
	if n := p.crash.Load(); n > 0 && p.crash.CompareAndSwap(n, n-1) && n == 1 {
		close(p.felled)
		<-p.killed
		return fate{kept, errDied}
	}
	timer := time.NewTimer(h.apart(h.syncTime()))
	defer timer.Stop()
	select {
	case <-p.killed:
		return fate{kept, errDied}
	case <-timer.C:
	}
	if h.syncFails.CompareAndSwap(true, false) {
		h.did("fsync error")
		return fate{kept, errSync}
	}
	return fate{kept: true}
}

// takes registers this process's side of a connection.
func (p *process) takes(w *wire) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		w.Close()
		return syscall.ECONNREFUSED
	}
	p.wires = append(p.wires, w)
	return nil
}

// dial connects the gateway to an engine.
func (p *process) dial(ctx context.Context, _, at string) (net.Conn, error) {
	for _, e := range p.h.engines {
		if string(e.port.at) == at {
			w, err := e.port.dial(ctx)
			if err == nil {
				err = p.takes(w)
			}
			if err != nil {
				return nil, err
			}
			return &asking{wire: w, h: p.h}, nil
		}
	}
	return nil, syscall.ECONNREFUSED
}

// asking is a connection to an engine. When a request goes out on it, its hold is on the disk.
type asking struct {
	*wire
	h     *history
	asked bool
}

func (a *asking) Write(b []byte) (int, error) {
	if _, rest, ok := bytes.Cut(b, []byte("X-Request-Id: ")); ok && !a.asked {
		a.asked = true
		id, _, _ := bytes.Cut(rest, []byte("\r\n"))
		a.h.forwarded(string(id))
	}
	return a.wire.Write(b)
}

// forwarded is told of every request that leaves for an engine.
func (h *history) forwarded(text string) {
	id, err := usage.ParseID(text)
	if err != nil {
		h.t.Errorf("an engine is asked under the id %q", text)
	}
	if !h.disk.has(id, ledger.KindHold) {
		h.t.Errorf("I4: request %s goes to an engine, and its hold is not on the disk", text)
	}
	if h.disk.has(id, ledger.KindSettle, ledger.KindVoid) {
		h.t.Errorf("request %s goes to an engine after its settlement", text)
	}
}

// kill ends a process as SIGKILL does: what it has sent arrives, what it is writing to the disk is there or is not.
func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	close(p.killed)
	for _, w := range p.wires {
		w.Close()
	}
	p.mu.Unlock()
	p.server.Close()
	for p.gw.Running() > 0 { // they find out that they can do nothing any more
		time.Sleep(time.Millisecond)
	}
	p.gw.Close()
	p.ledger.Close()
}

// stop ends a process in order, as internal/app does: new requests are refused, running ones have a grace, what is left
// is aborted and settled.
func (p *process) stop(grace time.Duration) {
	p.gw.Drain()
	p.idle(grace)
	p.gw.Abort()
	p.idle(15 * time.Second)
	p.shut(15 * time.Second)
	for end := time.Now().Add(15 * time.Second); p.ledger.OpenHolds() > 0 && p.ledger.Ready() == nil && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := p.ledger.OpenHolds(); n > 0 && p.ledger.Ready() == nil {
		p.h.t.Errorf("F011: %d holds are left after an orderly end", n)
	}
	if err := p.ledger.Close(); err != nil {
		p.h.t.Errorf("cannot close the ledger: %v", err)
	}
	p.kill()
}

// fail ends a process whose ledger can make nothing durable, as internal/app does.
func (p *process) fail() {
	p.gw.Drain()
	p.gw.Abort()
	p.shut(time.Second)
	p.kill()
}

func (p *process) idle(most time.Duration) {
	for end := time.Now().Add(most); p.gw.Running() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *process) shut(patience time.Duration) {
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	if p.server.Shutdown(ctx) != nil {
		p.server.Close()
	}
}
