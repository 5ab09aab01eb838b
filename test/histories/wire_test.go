package histories

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// wireBuffer is what a connection takes before a writer has to wait for the reader.
const wireBuffer = 64 << 10

// half is one direction of a connection.
type half struct {
	mu      sync.Mutex // guards all below
	changed *sync.Cond
	bytes   []byte
	ended   bool  // the writer has closed: what is here may still be read
	broken  error // the reader has closed, or the connection was reset
	readBy  deadline
	writeBy deadline
}

// deadline wakes who waits when it passes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// set moves a deadline of h.
func (h *half) set(d *deadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if left := time.Until(at); !at.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, h.changed.Broadcast)
	}
	h.changed.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken != nil:
			return 0, h.broken
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(h.bytes) > 0:
			n := copy(p, h.bytes)
			h.bytes = h.bytes[n:]
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		switch room := wireBuffer - len(h.bytes); {
		case h.broken != nil:
			return n, h.broken
		case h.ended:
			return n, net.ErrClosed
		case h.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case room > 0:
			some := min(room, len(p))
			h.bytes = append(h.bytes, p[:some]...)
			p, n = p[some:], n+some
			h.changed.Broadcast()
		default:
			h.changed.Wait()
		}
	}
	return n, nil
}

// end lets nothing more be written, or, with an error, nothing be read either.
func (h *half) end(broken error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.broken == nil {
		h.broken = broken
	}
	h.changed.Broadcast()
}

// wire is one side of a connection in memory.
type wire struct {
	in, out *half
	to      address
	peer    *wire
}

type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// connected makes both sides of a connection.
func connected(to address) (near, far *wire) {
	a, b := newHalf(), newHalf()
	near, far = &wire{in: a, out: b, to: to}, &wire{in: b, out: a, to: "10.0.0.99:50000"}
	near.peer, far.peer = far, near
	return near, far
}

func (w *wire) Read(p []byte) (int, error)  { return w.in.read(p) }
func (w *wire) Write(p []byte) (int, error) { return w.out.write(p) }

// Close ends it as a socket does: the other side reads what was sent, then an end, and cannot write.
func (w *wire) Close() error {
	w.out.end(nil)
	w.in.end(syscall.ECONNRESET)
	return nil
}

func (w *wire) LocalAddr() net.Addr  { return address("10.0.0.1:1") }
func (w *wire) RemoteAddr() net.Addr { return w.to }

func (w *wire) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

func (w *wire) SetReadDeadline(t time.Time) error {
	w.in.set(&w.in.readBy, t)
	return nil
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.out.set(&w.out.writeBy, t)
	return nil
}

// listener takes connections in memory.
type listener struct {
	at    address
	conns chan *wire
	once  sync.Once
	done  chan struct{}
}

func listen(at address) *listener {
	return &listener{at: at, conns: make(chan *wire, 1024), done: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.at }

// dial connects to the listener.
func (l *listener) dial(ctx context.Context) (*wire, error) {
	near, far := connected(l.at)
	select {
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	case l.conns <- far:
		return near, nil
	}
}
