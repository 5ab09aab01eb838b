package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of what a head may be. A line has to fit into the buffer.
const (
	bufferSize = 16 << 10
	maxHead    = 64 << 10
	maxInterim = 8 // 1xx answers before the answer
)

// conn is one connection. One goroutine uses it at a time; only reset may come from another one.
type conn struct {
	client *Client
	to     address
	since  int64 // client.ticks when it became idle

	socket net.Conn        // what is closed: package tls would first say goodbye, and wait for it
	raw    syscall.RawConn // of the socket
	tls    *tls.Conn       // nil for http
	rw     net.Conn        // tls or socket

	buf   *[bufferSize]byte // first for the request's head and a small body, then for what the engine sends
	r, w  int               // buf[r:w] has been read from the engine and not been used
	began bool              // the engine has sent something since the request

	held bool // not to be kept by the Client when its answer ends; false again when it could have been

	timer *time.Timer // of the head; nil before the first one
	late  atomic.Bool // the timer ended the connection

	// What would else be allocated for each request.
	cut         func()
	poll        func(fd uintptr) bool
	polled      []byte // in: where to; out: what was there
	pollErr     error
	one         [1]byte
	parts       [2][]byte
	vector      net.Buffers // of parts
	contentType string      // of the last answer
}

func newConn(cl *Client, to address, socket net.Conn) *conn {
	c := &conn{client: cl, to: to, socket: socket, rw: socket}
	if tcp, ok := socket.(*net.TCPConn); ok {
		// However this connection ends, unless politely, and be it with this process, the engine sees a reset: after an
		// ordinary end it would go on generating until it writes.
		tcp.SetLinger(0)
		c.raw, _ = tcp.SyscallConn()
	}
	c.cut = c.reset
	c.poll = func(fd uintptr) bool {
		var n int
		n, c.pollErr = syscall.Read(int(fd), c.polled)
		c.polled = c.polled[:max(n, 0)]
		return true
	}
	return c
}

// reset ends the connection at once; whatever is reading or writing on it fails. Any goroutine may call it, at any time.
func (c *conn) reset() { c.socket.Close() }

// close ends a connection on which nothing is awaited.
func (c *conn) close() {
	if tcp, ok := c.socket.(*net.TCPConn); ok {
		tcp.SetLinger(-1)
	}
	c.reset()
}

func (c *conn) expire() {
	c.late.Store(true)
	c.reset()
}

// arrived reads into b, beneath TLS, what has arrived, without waiting. An end is no bytes and no error; if there is just
// nothing, the error is EAGAIN.
func (c *conn) arrived(b []byte) (int, error) {
	if c.raw == nil {
		return 0, syscall.EBADF
	}
	c.polled = b
	if err := c.raw.Read(c.poll); err != nil {
		return 0, err
	}
	n := len(c.polled)
	c.polled = nil
	return n, c.pollErr
}

// quiet reports whether an idle connection is open and nothing has come.
func (c *conn) quiet() bool {
	_, err := c.arrived(c.one[:])
	return err == syscall.EAGAIN
}

// unread reports whether package tls holds bytes that nobody has read: they would be taken for the next answer.
func (c *conn) unread() bool {
	if c.tls == nil {
		return false
	}
	c.tls.SetReadDeadline(time.Unix(1, 0)) // it then returns what it has, but does not touch the socket
	n, err := c.tls.Read(c.one[:])
	c.tls.SetReadDeadline(time.Time{})
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}

// exchange sends a request and reads the head of its answer.
func (c *conn) exchange(ctx context.Context, t *Target, r *Request, closing bool) (*Response, error) {
	a := &Response{c: c, ctx: ctx}
	c.buf, c.began = c.client.buffers.Get().(*[bufferSize]byte), false
	if ctx.Done() != nil {
		a.stop = context.AfterFunc(ctx, c.cut)
	}
	c.watch() // also over the writing: an engine that does not read is as silent as one that does not answer
	unsent := c.write(t, r)
	if len(r.Body) > bufferSize {
		c.watch()
	}
	h, err := c.readHead() // also if not all was sent: an engine may refuse a large body half-way, and hang up
	if err == nil && c.timer != nil && !c.timer.Stop() {
		err = lateError{}
	}
	if err != nil {
		a.fail(err)
		return nil, a.err
	}
	a.begin(&h, r.Method, unsent == nil && !closing)
	return a, nil
}

// watch starts the time for the head of the answer.
func (c *conn) watch() {
	switch d := c.client.o.Header; {
	case d <= 0:
	case c.timer == nil:
		c.timer = time.AfterFunc(d, c.expire)
	default:
		c.timer.Reset(d)
	}
}

// write sends a request, in one go.
func (c *conn) write(t *Target, r *Request) (err error) {
	b := append(c.buf[:0], r.Method...)
	b = append(b, ' ')
	b = append(b, t.base...)
	b = append(b, r.Path...)
	b = append(b, t.line...)
	b = append(b, r.Header...)
	if len(r.Body) > 0 || r.Method == "POST" {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	if len(b)+len(r.Body) <= bufferSize {
		_, err = c.rw.Write(append(b, r.Body...))
	} else {
		c.parts = [2][]byte{b, r.Body}
		c.vector = c.parts[:]
		_, err = c.vector.WriteTo(c.rw)
		c.parts = [2][]byte{}
	}
	c.r, c.w = 0, 0
	return err
}

// fill reads once, behind what is in the buffer.
func (c *conn) fill() error {
	if c.r > 0 {
		c.r, c.w = 0, copy(c.buf[:], c.buf[c.r:c.w])
	}
	if c.w == bufferSize {
		return protocolError("a line of the head is too long")
	}
	n, err := c.rw.Read(c.buf[c.w:])
	if n > 0 {
		c.w += n
		c.began = true
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// head is what is read from the head of an answer.
type head struct {
	status          int
	old             bool  // HTTP/1.0
	length          int64 // -1: not told
	chunked         bool
	close, keep     bool // as the Connection fields have it
	contentType     string
	contentEncoding string
	left            int // bytes that the head may still have
}

// readHead reads the head of the answer, behind those of 1xx answers.
func (c *conn) readHead() (head, error) {
	for range maxInterim + 1 {
		h := head{length: -1, left: maxHead}
		if err := c.readOneHead(&h); err != nil || h.status >= 200 {
			return h, err
		}
		if h.status == 101 || h.length >= 0 || h.chunked {
			return h, protocolError("an interim answer that ends HTTP or has a body")
		}
	}
	return head{}, protocolError("too many interim answers")
}

const version = "HTTP/1."

func (c *conn) readOneHead(h *head) error {
	for c.w-c.r < len(version) && strings.HasPrefix(version, string(c.buf[c.r:c.w])) {
		if err := c.fill(); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(c.buf[c.r:c.w], []byte(version)) { // what is not HTTP need not have lines: do not wait for one
		return protocolError("it does not begin with a version")
	}
	line, err := c.readLine(h)
	if err != nil {
		return err
	}
	if !h.statusLine(line) {
		return protocolError("a malformed status line")
	}
	for {
		line, err := c.readLine(h)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			if h.chunked && (h.old || h.length >= 0) {
				return protocolError("contradicting lengths")
			}
			return nil
		}
		if err := c.field(h, line); err != nil {
			return err
		}
	}
}

// readLine returns the next line, without its CR LF. It is good until the next read.
func (c *conn) readLine(h *head) ([]byte, error) {
	seen := 0
	for {
		if n := bytes.IndexByte(c.buf[c.r+seen:c.w], '\n'); n >= 0 {
			line, _, ok := cutLine(c.buf[c.r:c.w])
			if !ok {
				return nil, protocolError("a line that does not end in CR LF")
			}
			c.r += len(line) + 2
			if h.left -= len(line) + 2; h.left < 0 {
				return nil, protocolError("its head is too large")
			}
			return line, nil
		}
		seen = c.w - c.r
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// cutLine cuts b behind its first line end, which must be CR LF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	n := bytes.IndexByte(b, '\n')
	if n < 1 || b[n-1] != '\r' {
		return nil, nil, false
	}
	return b[:n-1], b[n+1:], true
}

// statusLine reads "HTTP/1.1 200" or "HTTP/1.1 200 any words".
func (h *head) statusLine(b []byte) bool {
	if len(b) < 12 || b[7] != '0' && b[7] != '1' || b[8] != ' ' || len(b) > 12 && b[12] != ' ' {
		return false
	}
	h.old = b[7] == '0'
	for _, d := range b[9:12] {
		if d < '0' || d > '9' {
			return false
		}
		h.status = h.status*10 + int(d-'0')
	}
	return h.status >= 100 && isText(b[12:])
}

// field takes over a field that says something about the body.
func (c *conn) field(h *head, line []byte) error {
	name, value, ok := cutField(line)
	if !ok {
		return protocolError("a malformed field")
	}
	switch nameOf(name) {
	case fieldContentLength:
		if n, ok := decimal(value); ok && h.length < 0 {
			h.length = n
			return nil
		}
		return protocolError("a malformed or repeated length")
	case fieldTransferEncoding:
		if h.chunked || !equalFold(value, "chunked") {
			return protocolError("an unknown or repeated transfer encoding")
		}
		h.chunked = true
	case fieldConnection:
		h.close = h.close || hasToken(value, "close")
		h.keep = h.keep || hasToken(value, "keep-alive")
	case fieldContentType:
		if h.contentType == "" {
			if string(value) != c.contentType {
				c.contentType = string(value)
			}
			h.contentType = c.contentType
		}
	case fieldContentEncoding:
		if h.contentEncoding == "" {
			h.contentEncoding = string(value)
		}
	}
	return nil
}

// decimal reads digits, of a number that fits.
func decimal(b []byte) (n int64, ok bool) {
	for _, d := range b {
		if d < '0' || d > '9' || n > (math.MaxInt64-9)/10 {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, len(b) > 0
}

// fieldName is a field that means something here.
type fieldName byte

const (
	fieldOther fieldName = iota
	fieldHost
	fieldExpect
	fieldUpgrade
	fieldConnection
	fieldContentType
	fieldContentLength
	fieldContentEncoding
	fieldTransferEncoding
)

func nameOf(b []byte) fieldName {
	var name string
	var is fieldName
	switch len(b) { // no two of them are of one length
	case 4:
		name, is = "host", fieldHost
	case 6:
		name, is = "expect", fieldExpect
	case 7:
		name, is = "upgrade", fieldUpgrade
	case 10:
		name, is = "connection", fieldConnection
	case 12:
		name, is = "content-type", fieldContentType
	case 14:
		name, is = "content-length", fieldContentLength
	case 16:
		name, is = "content-encoding", fieldContentEncoding
	case 17:
		name, is = "transfer-encoding", fieldTransferEncoding
	}
	if is == fieldOther || !equalFold(b, name) {
		return fieldOther
	}
	return is
}

// cutField takes a line "Name: value" apart. A name is a token with the colon right behind it, a value has no control
// characters (RFC 9110, 5.1 and 5.5); a line that begins with a space, which once continued the line before, has no name.
func cutField(line []byte) (name, value []byte, ok bool) {
	n := 0
	for n < len(line) && classes[line[n]]&isToken != 0 {
		n++
	}
	if n == 0 || n == len(line) || line[n] != ':' || !isText(line[n+1:]) {
		return nil, nil, false
	}
	return line[:n], bytes.Trim(line[n+1:], " \t"), true
}

// isText reports whether b has no control characters but tabs.
func isText(b []byte) bool {
	for _, c := range b {
		if classes[c]&isValue == 0 {
			return false
		}
	}
	return true
}

const isToken, isValue = 1, 2

// classes says what a byte may be part of.
var classes = func() (t [256]byte) {
	for i := range t {
		if i >= ' ' && i != 0x7f || i == '\t' {
			t[i] = isValue
		}
		if i > ' ' && i < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(i)) {
			t[i] |= isToken
		}
	}
	return t
}()

// equalFold compares b with a text in lower case; bytes beyond ASCII are equal only to themselves.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// hasToken reports whether a list, "a, b", has a word.
func hasToken(list []byte, lower string) bool {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, []byte{','})
		if equalFold(bytes.Trim(one, " \t"), lower) {
			return true
		}
	}
	return false
}
