package gateway

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// Listen makes a listener whose connections tell a client that has gone from one that has said all it will say. net/http takes
// the end of what a client sends for a hang-up and cancels its request; but a client may close its half of a connection
// behind a request and wait for the answer. (Under TLS, which goes on top, an end is an end.) And they bound what the kernel
// keeps for slow readers. Connections that are no TCP connections are left as they are.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept waits for the next connection.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c, nil // closed already: the first read says so
	}
	if err := raw.Control(holdBack); err != nil {
		return c, nil
	}
	return &clientConn{Conn: c, raw: raw}, nil
}

// maxUnsent is how much of an answer the kernel takes before it has sent it, in bytes.
const maxUnsent = 128 << 10

// clientConn is a client's connection. It has no more methods than net/http needs, so that all writes are seen.
type clientConn struct {
	net.Conn
	raw syscall.RawConn

	mu    sync.Mutex // guards what follows
	begun bool       // some of the answer to the newest request has been written
	ahead bool       // its first byte was sent ahead
}

// CloseWrite ends what is sent, as net/http does behind a last answer.
func (c *clientConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// firstByte is what every answer of HTTP/1 begins with.
var firstByte = []byte("H")

// Read reads of the connection. net/http reads one single byte while a request is answered, to see a hang-up, and only then;
// an end that is found so is held back until it is one.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if len(b) > 1 {
		c.mu.Lock()
		c.begun = false // what comes is a request
		c.mu.Unlock()
		return n, err
	}
	if err == io.EOF {
		err = c.gone()
	}
	return n, err
}

// gone waits until the connection is dead in both directions, or net/http wants its reader back. A peer that has closed both
// says nothing more by itself: its kernel resets the connection when something arrives. So, unless the answer has begun,
// its first byte is sent: to a client that waits for it, it is what it waits for.
func (c *clientConn) gone() error {
	c.mu.Lock()
	if !c.begun && !c.ahead {
		c.ahead = true
		if _, err := c.Conn.Write(firstByte); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.mu.Unlock()
	if err := c.raw.Read(isDead); err != nil {
		return err
	}
	return io.EOF
}

// Write writes an answer, less the byte that was sent ahead.
func (c *clientConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true
	if !c.ahead || len(b) == 0 {
		return c.Conn.Write(b)
	}
	c.ahead = false
	n, err := c.Conn.Write(b[1:])
	return n + 1, err
}
