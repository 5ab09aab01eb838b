package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Client speaks HTTP/1.1 to engines. It does everything on the caller's goroutine: it starts none for a request or a
// connection. It knows no proxies, redirects, cookies or compression, and every rule of framing that could let two sides
// disagree about where an answer ends is an error. Any number of goroutines may use a Client.
//
// A connection carries a second request only if the first one's answer was read to its end, neither side said close, and
// nothing has arrived on it since. Every other connection is given up.
//
// The life of a request: Do takes an idle connection or dials one, writes head and body at once, reads the head of the
// answer; Response.Read reads the body; at its end, or at Close, the connection goes back or is reset.
type Client struct {
	o       ClientOptions
	every   time.Duration // between two ticks
	buffers sync.Pool     // *[bufferSize]byte: of connections in use, idle ones have none

	mu     sync.Mutex          // guards what follows
	idle   map[address][]*conn // the one used last is at the end
	ticks  int64               // while there were idle connections: their age is told in ticks, so that no clock is read
	ticker *time.Timer         // runs tick; nil while there are no idle connections
}

// ClientOptions say how patient a Client is and what it keeps.
type ClientOptions struct {
	Connect time.Duration // for dialling and the TLS handshake together; 0: no limit
	Header  time.Duration // from a request's last byte to the end of the answer's head, 1xx answers included; 0: no limit
	MaxIdle int           // idle connections kept for each address; 0: none
	IdleFor time.Duration // how long they are kept, up to a second longer; 0: no limit
	TLS     *tls.Config   // for https; ServerName, MinVersion and NextProtos are set by the Client; nil: the system's roots
	// Dial makes a connection, nil is TCP. One that is no *net.TCPConn carries one request only.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewClient returns a Client without connections.
func NewClient(o ClientOptions) *Client {
	if o.TLS == nil {
		o.TLS = &tls.Config{}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	return &Client{
		o: o, every: time.Second,
		buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }}, idle: map[address][]*conn{},
	}
}

// address is where connections lead; those to one address are interchangeable.
type address struct {
	hostPort string
	tls      bool
}

// Target is an engine's URL, taken apart once. Nobody changes it.
type Target struct {
	address address
	name    string // of the host, as its certificate has it
	base    string // path before every request's path, "" or "/base"
	line    string // of the request: what follows the path, up to and with the Host line
}

// ParseTarget takes an engine's URL apart: http or https, a host name or address, a port if it is not the scheme's own,
// a base path. Anything else in it (a user, a query, a fragment) is an error.
func ParseTarget(rawURL string) (*Target, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return nil, errors.New("cannot read an engine's URL: it is malformed") // the text may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("cannot use an engine's URL: it must begin with http:// or https://")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(rawURL, "#"):
		return nil, errors.New("cannot use an engine's URL: it may have a scheme, a host, a port and a path, nothing else")
	case !plain(u.Host) || u.Hostname() == "" || u.Host[0] != '[' && strings.ContainsAny(u.Hostname(), ":%"):
		return nil, errors.New("cannot use an engine's URL: it has no usable host")
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, errors.New("cannot use an engine's URL: its port is no number from 1 to 65535")
		}
		port = p
	} else if strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("cannot use an engine's URL: its port is missing")
	}
	host := u.Host
	if before, after, ok := strings.Cut(host, "%"); ok { // an IPv6 zone means something on this machine only
		host = before + after[strings.IndexByte(after, ']'):]
	}
	return &Target{
		address: address{hostPort: net.JoinHostPort(u.Hostname(), port), tls: u.Scheme == "https"},
		name:    u.Hostname(), base: strings.TrimRight(u.EscapedPath(), "/"), line: " HTTP/1.1\r\nHost: " + host + "\r\n",
	}, nil
}

// plain reports whether s is printable ASCII without spaces: it cannot end a line or a word of a request's head.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Request is what an engine is asked. Do only reads it.
type Request struct {
	Method string // GET, HEAD or POST
	Path   string // behind the target's base path; begins with "/", escaped
	// Header has whole lines, "Name: value\r\n" each. Host and Content-Length are the Client's own, Transfer-Encoding,
	// Expect and Upgrade are not spoken: these are errors. "Connection: close" is obeyed on both sides.
	Header []byte
	Body   []byte
	// Before, if it is not nil, is asked first on every new connection, and Greeter is told the answer: an engine that was
	// started anew has none of its old connections. If Greeter answers with an error, the request is not sent.
	Before  *Request
	Greeter Greeter
	Fresh   bool // over a new connection, whatever is kept
}

// Greeter looks at what an engine says of itself before anything else is asked of it.
type Greeter interface {
	// Greeted gets the answer to Request.Before, whatever its status, with at most a megabyte of its body.
	Greeted(status int, body []byte) error
}

// errRequest is a bug of the caller's, found before a byte went out.
var errRequest = errors.New("cannot send a request to an engine: its head is malformed")

// check finds what would make another request of this one, and whether it asks for the connection's end.
func (r *Request) check() (closing bool, err error) {
	switch r.Method {
	case "GET", "HEAD", "POST":
	default:
		return false, errRequest
	}
	if r.Path == "" || r.Path[0] != '/' || !plain(r.Path) {
		return false, errRequest
	}
	for rest := r.Header; len(rest) > 0; {
		line, next, ok := cutLine(rest)
		if !ok {
			return false, errRequest
		}
		rest = next
		name, value, ok := cutField(line)
		if !ok {
			return false, errRequest
		}
		switch nameOf(name) {
		case fieldHost, fieldContentLength, fieldTransferEncoding, fieldExpect, fieldUpgrade:
			return false, errRequest
		case fieldConnection:
			closing = closing || hasToken(value, "close")
		}
	}
	return closing, nil
}

// Do sends a request and returns the answer once its head is read; its body is read from the Response, which must be
// read to io.EOF or closed. A status is never an error.
//
// When ctx ends, the connection is reset at once, whatever it is in the middle of, and Do, or the Response's Read, returns
// context.Cause(ctx). Other errors of the way to the engine are a *dialError or have, like it, a method Fault() string:
// "connect", "timeout" (its Timeout() is true), "reset" or "protocol". None quotes a request or an answer.
//
// A kept connection that turns out closed before the first byte of an answer is no failure: engines close idle
// connections when they like, also while a request is on its way. The request is then sent once more, on a fresh
// connection. So an engine that dies of a request may get it twice; it never gets it three times.
func (cl *Client) Do(ctx context.Context, t *Target, r *Request) (*Response, error) {
	closing, err := r.check()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if c := cl.takeFor(r, t); c != nil {
		a, err := c.exchange(ctx, t, r, closing)
		if lost, ok := err.(*resetError); !ok || !lost.unheard {
			return a, err
		}
	}
	c, err := cl.dial(ctx, t)
	if err == nil && r.Before != nil {
		c, err = cl.greet(ctx, t, r, c)
	}
	if err != nil {
		return nil, err
	}
	return c.exchange(ctx, t, r, closing)
}

func (cl *Client) takeFor(r *Request, t *Target) *conn {
	if r.Fresh {
		return nil
	}
	return cl.take(t.address)
}

// maxGreeting bounds what is read of the answer to Request.Before, in bytes.
const maxGreeting = 1 << 20

// greet asks on a new connection what comes before a request, and returns the connection for the request itself: the same
// one, so that the same process hears both, unless the engine ends its connections behind each answer.
func (cl *Client) greet(ctx context.Context, t *Target, r *Request, c *conn) (*conn, error) {
	c.held = true
	a, err := c.exchange(ctx, t, r.Before, false)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(a, maxGreeting))
	if err == nil {
		err = r.Greeter.Greeted(a.Status, body)
	}
	a.Close()
	switch {
	case err != nil && !c.held:
		c.close()
		return nil, err
	case err != nil:
		return nil, err
	case c.held:
		return cl.dial(ctx, t)
	}
	return c, nil
}

// dial makes a connection.
func (cl *Client) dial(ctx context.Context, t *Target) (*conn, error) {
	limited := ctx
	if cl.o.Connect > 0 {
		var done context.CancelFunc
		limited, done = context.WithTimeout(ctx, cl.o.Connect)
		defer done()
	}
	c, err := cl.connect(limited, t)
	if err == nil {
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, &dialError{err}
}

func (cl *Client) connect(ctx context.Context, t *Target) (*conn, error) {
	socket, err := cl.o.Dial(ctx, "tcp", t.address.hostPort)
	if err != nil {
		return nil, err
	}
	c := newConn(cl, t.address, socket)
	if !t.address.tls {
		return c, nil
	}
	config := cl.o.TLS.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"http/1.1"}
	config.ServerName = t.name
	c.tls = tls.Client(socket, config)
	c.rw = c.tls
	if err := c.tls.HandshakeContext(ctx); err != nil {
		c.reset()
		return nil, err
	}
	return c, nil
}

// take returns the idle connection that was used last, nil if there is none. Those on which something has arrived
// meanwhile, an end or bytes that nobody asked for, are closed. Each is looked at, however short it was idle: what an
// engine sent too much behind one tenant's answer must not become the next one's, and a look costs a fifth of a µs.
func (cl *Client) take(to address) *conn {
	for {
		cl.mu.Lock()
		list := cl.idle[to]
		if len(list) == 0 {
			cl.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		list[len(list)-1] = nil
		cl.idle[to] = list[:len(list)-1]
		cl.mu.Unlock()
		if c.quiet() {
			return c
		}
		c.close()
	}
}

// put keeps a connection whose answer was read to its end.
func (cl *Client) put(c *conn) {
	cl.mu.Lock()
	list := cl.idle[c.to]
	full := len(list) >= cl.o.MaxIdle
	if !full {
		c.since = cl.ticks
		cl.idle[c.to] = append(list, c)
		if cl.ticker == nil {
			cl.ticker = time.AfterFunc(cl.every, cl.tick)
		}
	}
	cl.mu.Unlock()
	if full {
		c.close()
	}
}

// tick closes what has been idle for too long. It runs by itself while anything is idle.
func (cl *Client) tick() {
	var old []*conn
	cl.mu.Lock()
	if cl.ticker == nil { // CloseIdle came between
		cl.mu.Unlock()
		return
	}
	cl.ticks++
	some := false
	for to, list := range cl.idle {
		n := 0
		for cl.o.IdleFor > 0 && n < len(list) && time.Duration(cl.ticks-list[n].since)*cl.every > cl.o.IdleFor {
			n++
		}
		old = append(old, list[:n]...)
		if n == len(list) {
			delete(cl.idle, to)
			continue
		}
		kept := copy(list, list[n:])
		clear(list[kept:])
		cl.idle[to], some = list[:kept], true
	}
	if some {
		cl.ticker.Reset(cl.every)
	} else {
		cl.ticker = nil
	}
	cl.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// CloseIdle closes the idle connections. Those in use are not touched, and are kept when their answers end.
func (cl *Client) CloseIdle() {
	cl.mu.Lock()
	idle := cl.idle
	cl.idle = map[address][]*conn{}
	if cl.ticker != nil {
		cl.ticker.Stop()
		cl.ticker = nil
	}
	cl.mu.Unlock()
	for _, list := range idle {
		for _, c := range list {
			c.close()
		}
	}
}

// dialError says that no connection to an engine could be made: not a byte of the request has left.
type dialError struct{ err error }

// Error says what failed, with the engine's address.
func (e *dialError) Error() string { return "cannot connect to an engine: " + e.err.Error() }

// Unwrap returns the error of package net or crypto/tls.
func (e *dialError) Unwrap() error { return e.err }

// Fault returns "connect".
func (e *dialError) Fault() string { return "connect" }

// Timeout reports whether it failed because ClientOptions.Connect, or the system's patience, was over.
func (e *dialError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.err, &t) && t.Timeout()
}

// lateError: ClientOptions.Header was over.
type lateError struct{}

func (lateError) Error() string { return "the engine did not begin its answer in time" }
func (lateError) Fault() string { return "timeout" }
func (lateError) Timeout() bool { return true }

// resetError: the connection broke, or was closed before the end of an answer.
type resetError struct {
	err     error
	unheard bool // as if the engine had closed a kept connection before it heard the request
}

func newResetError(err error, began bool) *resetError {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	gone := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	return &resetError{err: err, unheard: !began && gone}
}

func (e *resetError) Error() string {
	return fmt.Sprintf("the connection to an engine broke: %v", e.err)
}
func (e *resetError) Unwrap() error { return e.err }
func (e *resetError) Fault() string { return "reset" }

// protocolError: the engine does not speak HTTP/1.1, or not as strictly as is asked here.
type protocolError string

func (e protocolError) Error() string { return "the engine's answer is not HTTP/1.1: " + string(e) }
func (e protocolError) Fault() string { return "protocol" }
