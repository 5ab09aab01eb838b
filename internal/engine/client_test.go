package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// benchServer in the environment makes this binary the engine of the benchmarks: what it costs is then not counted.
const benchServer = "ENGINE_BENCH_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(benchServer) != "" {
		serveBenchmarks()
		return
	}
	goleak.VerifyTestMain(m)
}

// listen runs serve for each connection, numbered from 0, until the test ends.
func listen(t testing.TB, serve func(n int, c net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards open
	var open []net.Conn
	all.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				serve(n, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "http://" + l.Addr().String()
}

// answers serves each request of a connection with the next of the texts, and then reads until the client ends it.
func answers(t testing.TB, texts ...string) func(int, net.Conn) {
	return func(_ int, c net.Conn) {
		in := bufio.NewReader(c)
		for _, text := range texts {
			if !heard(in) {
				return
			}
			io.WriteString(c, text)
		}
		io.Copy(io.Discard, in)
	}
}

// heard reads one request.
func heard(in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

// fixture is a client, one of its targets, and what it asks.
type fixture struct {
	*Client
	t      testing.TB
	target *Target
	post   *Request
}

func newFixture(t testing.TB, url string, o ClientOptions) *fixture {
	t.Helper()
	target, err := ParseTarget(url)
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxIdle == 0 {
		o.MaxIdle = 16
	}
	f := &fixture{Client: NewClient(o), t: t, target: target, post: &Request{
		Method: "POST", Path: "/v1/chat/completions", Header: []byte("Content-Type: application/json\r\nX-Request-Id: r1\r\n"), Body: []byte(`{"a":1}`),
	}}
	t.Cleanup(f.CloseIdle)
	return f
}

func (f *fixture) do() *Response {
	f.t.Helper()
	a, err := f.Do(f.t.Context(), f.target, f.post)
	if err != nil {
		f.t.Fatalf("Do: %v", err)
	}
	return a
}

// body reads the whole answer.
func (f *fixture) body(a *Response) string {
	f.t.Helper()
	b, err := io.ReadAll(a)
	if err != nil {
		f.t.Fatalf("Read: %v", err)
	}
	return string(b)
}

// kept says how many connections are idle.
func (f *fixture) kept() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, list := range f.idle {
		n += len(list)
	}
	return n
}

func faultOf(err error) string {
	var known interface{ Fault() string }
	if errors.As(err, &known) {
		return known.Fault()
	}
	return fmt.Sprint(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// parrot answers with what it is sent, in the form that the path names.
func parrot(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	switch r.URL.Path {
	case "/base/none":
		w.WriteHeader(204)
	case "/base/parts":
		w.Write(b)
		w.(http.Flusher).Flush()
		w.Write(b)
	case "/base/trailer":
		w.Header().Set("Trailer", "X-Cost")
		w.Write(b)
		w.(http.Flusher).Flush()
		w.Header().Set("X-Cost", "1")
	case "/base/early":
		w.WriteHeader(103)
		w.WriteHeader(102)
		w.Write(b)
	case "/base/bad":
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(400)
		fmt.Fprintf(w, "%s %s %s %s %d", r.Method, r.Host, r.Header.Get("X-A"), r.Proto, r.ContentLength)
	default:
		w.Write(b)
	}
}

func TestClientWithServer(t *testing.T) {
	var mu sync.Mutex
	from := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		parrot(w, r)
	}))
	defer s.Close()
	f := newFixture(t, s.URL+"/base/", ClientOptions{Connect: time.Minute, Header: time.Minute})
	large := strings.Repeat("0123456789abcdef", 128<<10)
	host := strings.TrimPrefix(s.URL, "http://")
	for _, c := range []struct {
		method, path, body string
		status             int
		length             int64
		want               string
	}{
		{"POST", "/whole", "hello", 200, 5, "hello"},
		{"POST", "/whole", "", 200, 0, ""},
		{"GET", "/whole", "", 200, 0, ""},
		{"HEAD", "/whole", "", 200, 0, ""},
		{"POST", "/none", "hello", 204, 0, ""},
		{"POST", "/parts", "hello", 200, -1, "hellohello"},
		{"POST", "/parts", large, 200, -1, large + large},
		{"POST", "/whole", large, 200, -1, large},
		{"POST", "/trailer", "hello", 200, -1, "hello"},
		{"POST", "/early", "hello", 200, 5, "hello"},
		{"POST", "/bad", "hello", 400, -2, "POST " + host + " b HTTP/1.1 5"},
		{"GET", "/bad", "", 400, -2, "GET " + host + " b HTTP/1.1 0"},
	} {
		a, err := f.Do(t.Context(), f.target, &Request{Method: c.method, Path: c.path, Header: []byte("X-A: b\r\n"), Body: []byte(c.body)})
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		got := f.body(a)
		if a.Status != c.status || a.ContentLength != c.length && c.length != -2 || got != c.want {
			t.Errorf("%s %s %d bytes: %d, length %d, %d bytes %.60q; want %d, length %d, %d bytes %.60q", c.method, c.path, len(c.body), a.Status, a.ContentLength, len(got), got, c.status, c.length, len(c.want), c.want)
		}
		if encoding := map[string]string{"/bad": "gzip"}[c.path]; a.ContentEncoding != encoding || c.status != 204 && a.ContentType != "text/plain" {
			t.Errorf("%s %s: type %q, encoding %q", c.method, c.path, a.ContentType, a.ContentEncoding)
		}
		if a.Close(); f.kept() != 1 {
			t.Errorf("%s %s: the connection was not kept", c.method, c.path)
		}
	}
	if len(from) != 1 {
		t.Errorf("%d connections, want 1", len(from))
	}
}

// pieces is a connection that gives a text in pieces of one size, and then its end.
type pieces struct {
	net.Conn
	rest   []byte
	size   int
	given  int
	end    error
	closed bool
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.closed {
		return 0, net.ErrClosed
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	p.given += n
	if n == 0 {
		return 0, p.end
	}
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) { return len(b), nil }
func (p *pieces) Close() error                { p.closed = true; return nil }

// hear makes a client hear a text, in pieces, and reads the body in parts of a size.
func hear(t testing.TB, f *fixture, text []byte, piece, part int) (a *Response, body []byte, err error, p *pieces) {
	t.Helper()
	p = &pieces{rest: text, size: piece, end: io.EOF}
	a, err = newConn(f.Client, f.target.address, p).exchange(t.Context(), f.target, f.post, false)
	if err != nil {
		return nil, nil, err, p
	}
	b := make([]byte, part)
	for range len(text) + 2 {
		n, err := a.Read(b)
		body = append(body, b[:n]...)
		if err == io.EOF {
			return a, body, nil, p
		}
		if err != nil {
			return a, body, err, p
		}
	}
	t.Fatalf("Read gave nothing %d times: %q", len(text)+2, text)
	return nil, nil, nil, nil
}

func TestFraming(t *testing.T) {
	f := newFixture(t, "http://engine", ClientOptions{MaxIdle: 1})
	for _, c := range []struct {
		text, body string
		kept       bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true},
		{"HTTP/1.1 200\r\ncontent-length:5\t \r\n\r\nhello", "hello", true},
		{"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: foo, Close\r\n\r\nhello", "hello", false},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", "hello", true},
		{"HTTP/1.0 200 OK\r\n\r\nhello", "hello", false},
		{"HTTP/1.1 200 OK\r\nA:\r\n\r\nhello", "hello", false},
		{"HTTP/1.1 200 OK\r\n\r\n", "", false},
		{"HTTP/1.1 204 None\r\n\r\n", "", true},
		{"HTTP/1.1 304 Not\r\n\r\n", "", true},
		{"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", "", false},
		{"HTTP/1.1 304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", "", false},
		{"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n00A  \r\n0123456789\r\n2;x=\"y;z\";q\r\nbc\r\n000\r\nX-Cost: 1\r\nY:\r\n\r\n", "a0123456789bc", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", false},
		{"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello more", "hello", false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nmore", "hello", false},
		{"HTTP/1.1 204 None\r\n\r\nmore", "", false},
	} {
		for piece := 1; piece <= len(c.text); piece++ {
			for _, part := range []int{1, 3, 2 * bufferSize} {
				a, body, err, p := hear(t, f, []byte(c.text), piece, part)
				if err != nil || string(body) != c.body {
					t.Fatalf("%q in pieces of %d, read in parts of %d: %q, %v; want %q", c.text, piece, part, body, err, c.body)
				}
				kept := f.kept() == 1
				if f.CloseIdle(); !p.closed || a.Close() != nil {
					t.Fatalf("%q: not closed", c.text)
				}
				if excess := strings.HasSuffix(c.text, "more") && p.given < len(c.text); kept != c.kept && !excess {
					t.Fatalf("%q in pieces of %d, read in parts of %d: kept %t", c.text, piece, part, kept)
				}
			}
		}
	}
}

func TestMalformedAnswers(t *testing.T) {
	const ok, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	f := newFixture(t, "http://engine", ClientOptions{})
	lines := func(n, size int) string {
		return strings.Repeat("A: "+strings.Repeat("b", size-5)+"\r\n", n)
	}
	for _, c := range []struct{ text, fault string }{
		{"", "reset"},
		{"H", "reset"},
		{"HTTP/1.1 200 OK\r\nContent-Le", "reset"},
		{ok + "Content-Length: 5\r\n\r\nhell", "reset"},
		{chunked + "5\r\nhello\r\n0\r\n", "reset"},
		{chunked + "5\r\nhel", "reset"},
		{"HTTP/1.1 100 Go on\r\n\r\n", "reset"},
		{ok + lines(3, 16<<10) + "Content-Length: 0\r\n\r\n", "<nil>"},
		{ok + lines(1, 16<<10+1) + "\r\n", "protocol"},
		{ok + lines(4, 16<<10) + "\r\n", "protocol"},
		{ok + lines(1000, 70) + "\r\n", "protocol"},

		{"garbage", "protocol"}, {"\r\nHTTP/1.1 200 OK\r\n\r\n", "protocol"}, {"HTTP/2 200\r\n\r\n", "protocol"},
		{"HTTP/1.2 200 OK\r\n\r\n", "protocol"}, {"HTTP/1.1 20 OK\r\n\r\n", "protocol"}, {"HTTP/1.1 2000 OK\r\n\r\n", "protocol"},
		{"HTTP/1.1 020 OK\r\n\r\n", "protocol"}, {"HTTP/1.1 +20 OK\r\n\r\n", "protocol"}, {"HTTP/1.1  200 OK\r\n\r\n", "protocol"},
		{"HTTP/1.1 200 O\x00K\r\n\r\n", "protocol"}, {"HTTP/1.1 200 OK\n\n", "protocol"}, {"HTTP/1.1\r\n\r\n", "protocol"},
		{"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n", "protocol"}, {"HTTP/1.1 100 Go on\r\nContent-Length: 0\r\n\r\n" + ok + "\r\n", "protocol"},
		{strings.Repeat("HTTP/1.1 100 Go on\r\n\r\n", maxInterim+1) + ok + "Content-Length: 0\r\n\r\n", "protocol"},
		{strings.Repeat("HTTP/1.1 100 Go on\r\n\r\n", maxInterim) + ok + "Content-Length: 0\r\n\r\n", "<nil>"},

		{ok + "A: b\n\r\n", "protocol"}, {ok + "A: b\r\n folded\r\n\r\n", "protocol"}, {ok + " A: b\r\n\r\n", "protocol"}, {ok + "A: b\rc\r\n\r\n", "protocol"},
		{ok + "A: b\x00\r\n\r\n", "protocol"}, {ok + "A : b\r\n\r\n", "protocol"}, {ok + ": b\r\n\r\n", "protocol"}, {ok + "A\r\n\r\n", "protocol"}, {ok + "A\x80: b\r\n\r\n", "protocol"},

		{ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"},
		{ok + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "protocol"},
		{ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "protocol"}, {ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "protocol"},
		{ok + "Content-Length: -1\r\n\r\n", "protocol"}, {ok + "Content-Length: +5\r\n\r\nhello", "protocol"}, {ok + "Content-Length: 5, 5\r\n\r\nhello", "protocol"},
		{ok + "Content-Length: \r\n\r\n", "protocol"}, {ok + "Content-Length: 0x5\r\n\r\nhello", "protocol"}, {ok + "Content-Length: 5 5\r\n\r\nhello", "protocol"},
		{ok + "Content-Length: 9223372036854775808\r\n\r\n", "protocol"}, {ok + "Content-Length: 18446744073709551621\r\n\r\nhello", "protocol"},
		{ok + "Transfer-Encoding: gzip\r\n\r\n", "protocol"}, {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "protocol"}, {ok + "Transfer-Encoding: identity\r\n\r\n", "protocol"},
		{ok + "Transfer-Encoding: \r\n\r\n0\r\n\r\n", "protocol"}, {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"},
		{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"},

		{chunked + "\r\n", "protocol"}, {chunked + "x\r\n", "protocol"}, {chunked + "-1\r\n", "protocol"}, {chunked + "0x5\r\nhello", "protocol"}, {chunked + " 5\r\nhello", "protocol"},
		{chunked + "8000000000000000\r\nhello", "protocol"}, {chunked + "10000000000000005\r\nhello", "protocol"}, {chunked + "00000000000000005\r\nhello\r\n0\r\n\r\n", "protocol"},
		{chunked + "5\nhello\r\n0\r\n\r\n", "protocol"}, {chunked + "5\r\nhello0\r\n\r\n", "protocol"}, {chunked + "5\r\nhello\n0\r\n\r\n", "protocol"}, {chunked + "5\rxhello\r\n0\r\n\r\n", "protocol"},
		{chunked + "5\r\nhello\r\n0\r\n\n", "protocol"}, {chunked + "5\r\nhello\r\n0\r\nA b\r\n\r\n", "protocol"}, {chunked + "0\r\n A: b\r\n\r\n", "protocol"}, {chunked + "0\r\nA: b\n\r\n", "protocol"},
		{chunked + "5 ;x\r\nhello\r\n0\r\n\r\n", "protocol"}, {chunked + "5;a\nhello\r\n0\r\n\r\n", "protocol"}, {chunked + "5;\x00\r\nhello\r\n0\r\n\r\n", "protocol"},
		{chunked + "1;" + strings.Repeat("x", maxExtra) + "\r\nx\r\n0\r\n\r\n", "protocol"}, {chunked + "0\r\nA: " + strings.Repeat("x", maxExtra) + "\r\n\r\n", "protocol"},
		{chunked + strings.Repeat("1;"+strings.Repeat("x", 99)+"\r\nx\r\n", 100) + "0\r\n\r\n", "protocol"},
		{chunked + strings.Repeat("1\r\nx\r\n", 10_000) + "0\r\n\r\n", "<nil>"},
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			_, body, err, p := hear(t, f, []byte(c.text), piece, 4096)
			if faultOf(err) != c.fault {
				t.Errorf("%.100q in pieces of %d: %s (%v) after %q, want %s", c.text, piece, faultOf(err), err, body, c.fault)
			}
			if err == nil {
				f.CloseIdle()
			} else if isTimeout(err) || f.kept() > 0 {
				t.Errorf("%.100q: kept, or a timeout", c.text)
			}
			if !p.closed {
				t.Errorf("%.100q: not closed", c.text)
			}
		}
	}
}

// What is not HTTP is known as such at once, also if it has no line and no end.
func TestGarbageIsNotWaitedFor(t *testing.T) {
	f := newFixture(t, listen(t, answers(t, "SSH-2.0-x")), ClientOptions{Header: time.Hour})
	if a, err := f.Do(t.Context(), f.target, f.post); faultOf(err) != "protocol" {
		t.Errorf("%v, %v", a, err)
	}
}

func TestNoContentInErrors(t *testing.T) {
	f := newFixture(t, "http://engine", ClientOptions{})
	for _, text := range []string{
		"SECRET", "HTTP/1.1 SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nSECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nSECRET",
	} {
		if _, _, err, _ := hear(t, f, []byte(text), 3, 10); err == nil || strings.Contains(fmt.Sprintf("%+v", err), "SEC") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, r := range []Request{
		{Method: "SECRET", Path: "/"}, {Method: "GET", Path: "SECRET"}, {Method: "GET", Path: "/", Header: []byte("SECRET")},
	} {
		if _, err := f.Do(t.Context(), f.target, &r); err == nil || strings.Contains(err.Error(), "SEC") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := ParseTarget("http://user:SECRET@[x"); err == nil || strings.Contains(err.Error(), "SEC") {
		t.Error(err)
	}
}

// Each part of a stream is given when it comes, whatever of its framing is still missing: the engine sends the next part
// only once the client has the one before.
func TestReadDoesNotWait(t *testing.T) {
	next := make(chan bool)
	f := newFixture(t, listen(t, func(_ int, c net.Conn) {
		if !heard(bufio.NewReader(c)) {
			return
		}
		for _, part := range []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na", "b", "cde", "\r\n1\r\nf\r\n2\r\ngh\r\n3\r\ni", "jk\r", "\n1\r\nl\r\n0\r\n", "\r\n"} {
			io.WriteString(c, part)
			<-next
		}
	}), ClientOptions{})
	defer close(next)
	a := f.do()
	b := make([]byte, 1024)
	for _, want := range []string{"a", "b", "cde", "fghi", "jk", "l"} {
		n, err := a.Read(b)
		if string(b[:n]) != want || err != nil {
			t.Fatalf("%q, %v, want %q", b[:n], err, want)
		}
		next <- true
	}
	if n, err := a.Read(b); n != 0 || err != io.EOF {
		t.Fatalf("%d, %v, want the end", n, err)
	}
}

func TestEndComesWithLastBytes(t *testing.T) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	} {
		f := newFixture(t, listen(t, answers(t, text)), ClientOptions{})
		a := f.do()
		b := make([]byte, 5)
		if n, err := a.Read(b); n != 5 || err != io.EOF {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

// broken waits for the end of a connection, and tells whether it was a reset.
func broken(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		return errors.New("an ordinary end")
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

var errGone = errors.New("the client has gone")

// When its context ends, a request is reset, whatever it is in the middle of.
func TestCancel(t *testing.T) {
	secret := strings.Repeat("x", 32<<20)
	for name, c := range map[string]struct {
		scheme, body string
		serve        func(c net.Conn) // until the request is where it is to be cancelled
		early        bool             // Do returns without an error
	}{
		"handshake": {"https", "x", func(c net.Conn) { c.Read(make([]byte, 1)) }, false},
		"write":     {"http", secret, func(c net.Conn) { c.Read(make([]byte, 1)) }, false},
		"head":      {"http", "x", func(c net.Conn) { heard(bufio.NewReader(c)) }, false},
		"half a head": {"http", "x", func(c net.Conn) {
			heard(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nContent")
		}, false},
		"body": {"http", "x", func(c net.Conn) {
			heard(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nh")
		}, true},
		"body until the end": {"http", "x", func(c net.Conn) {
			heard(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nh")
		}, true},
		"chunked body": {"http", "x", func(c net.Conn) {
			heard(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nh")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			seen := make(chan error, 2)
			read := make(chan bool)
			url := listen(t, func(_ int, s net.Conn) {
				c.serve(s)
				if c.early {
					<-read
				}
				cancel(errGone)
				seen <- broken(s)
			})
			f := newFixture(t, c.scheme+strings.TrimPrefix(url, "http"), ClientOptions{Connect: time.Hour, Header: time.Hour})
			f.post.Body = []byte(c.body)
			a, err := f.Do(ctx, f.target, f.post)
			if c.early {
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 10)
				if n, err := a.Read(b); string(b[:n]) != "h" || err != nil {
					t.Errorf("before: %q, %v", b[:n], err)
				}
				close(read)
				a.Read(b)
				_, err = a.Read(b) // it keeps saying so
				a.Close()
			}
			if err != errGone {
				t.Errorf("%v", err)
			}
			if err := <-seen; err != nil {
				t.Errorf("the engine saw %v", err)
			}
			if f.kept() != 0 {
				t.Error("kept")
			}
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	f := newFixture(t, listen(t, answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), ClientOptions{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errGone)
	if _, err := f.dial(ctx, f.target); err != errGone {
		t.Errorf("while dialling: %v", err)
	}
	f.body(f.do())
	if _, err := f.Do(ctx, f.target, f.post); err != errGone || f.kept() != 1 {
		t.Errorf("%v, kept %d", err, f.kept())
	}
}

// What has arrived is given though the context has ended; the connection is not kept.
func TestCancelledBehindTheLastByte(t *testing.T) {
	f := newFixture(t, listen(t, answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), ClientOptions{})
	ctx, cancel := context.WithCancelCause(t.Context())
	a, err := f.Do(ctx, f.target, f.post)
	if err != nil {
		t.Fatal(err)
	}
	for a.c.w-a.c.r < 2 { // what came behind the head belongs into the buffer
		if err := a.c.fill(); err != nil {
			t.Fatal(err)
		}
	}
	cancel(errGone)
	if got := f.body(a); got != "ok" || f.kept() != 0 {
		t.Errorf("%q, kept %d", got, f.kept())
	}
}

// A context that ends behind the end of an answer touches nothing: the connection serves the next request.
func TestCancelAfterwards(t *testing.T) {
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	var dialled sync.Map
	serve := answers(t, text, text, text)
	f := newFixture(t, listen(t, func(n int, c net.Conn) { dialled.Store(n, true); serve(n, c) }), ClientOptions{})
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		a, err := f.Do(ctx, f.target, f.post)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.body(a); got != "ok" {
			t.Error(got)
		}
		cancel()
	}
	if _, more := dialled.Load(1); more {
		t.Error("more than one connection")
	}
}

func TestTimeouts(t *testing.T) {
	for name, c := range map[string]struct {
		scheme, fault string
		body          int
		serve         func(c net.Conn)
		o             ClientOptions
	}{
		"handshake":     {"https", "connect", 1, func(net.Conn) {}, ClientOptions{Connect: 20 * time.Millisecond, Header: time.Hour}},
		"head":          {"http", "timeout", 1, func(c net.Conn) { heard(bufio.NewReader(c)) }, ClientOptions{Connect: time.Hour, Header: 20 * time.Millisecond}},
		"large request": {"http", "timeout", 1 << 20, func(c net.Conn) { heard(bufio.NewReader(c)) }, ClientOptions{Header: 20 * time.Millisecond}},
		"half a head": {"http", "timeout", 1, func(c net.Conn) {
			heard(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 ")
		}, ClientOptions{Header: 20 * time.Millisecond}},
		"unread": {"http", "timeout", 32 << 20, nil, ClientOptions{Header: 20 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			seen, failed := make(chan error, 1), make(chan bool)
			url := listen(t, func(_ int, s net.Conn) {
				if c.serve == nil {
					<-failed // it does not even read
				} else {
					c.serve(s)
				}
				seen <- broken(s)
			})
			f := newFixture(t, c.scheme+strings.TrimPrefix(url, "http"), c.o)
			f.post.Body = make([]byte, c.body)
			a, err := f.Do(t.Context(), f.target, f.post)
			close(failed)
			if !isTimeout(err) || faultOf(err) != c.fault || a != nil {
				t.Errorf("%v, a timeout: %t, fault %s", err, isTimeout(err), faultOf(err))
			}
			if err := <-seen; err != nil {
				t.Errorf("the engine saw %v", err)
			}
		})
	}
}

// The time for the head does not run on over the body.
func TestBodyHasNoDeadline(t *testing.T) {
	f := newFixture(t, listen(t, answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")), ClientOptions{Header: time.Hour})
	a := f.do()
	defer a.Close()
	if a.c.timer.Stop() {
		t.Error("the timer still ran")
	}
}

func TestDialError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	f := newFixture(t, "http://"+l.Addr().String(), ClientOptions{Connect: time.Hour})
	_, err = f.Do(t.Context(), f.target, f.post)
	var dial *dialError
	if !errors.As(err, &dial) || dial.Timeout() || dial.Fault() != "connect" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

// An engine that closes a kept connection is not a failure, whether that is seen before or only behind the request. Nor
// is one that sends what nobody asked for: that is not taken for the next answer.
func TestKeptConnectionsAreReplaced(t *testing.T) {
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
	for name, c := range map[string]struct {
		before, upon func(c net.Conn, in *bufio.Reader) // the next request
		size         int
	}{
		"closed before":     {before: func(c net.Conn, _ *bufio.Reader) { c.Close() }},
		"reset before":      {before: func(c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0); c.Close() }},
		"unasked answer":    {before: func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, text+"no") }},
		"closed upon it":    {upon: func(_ net.Conn, in *bufio.Reader) { heard(in) }},
		"reset upon it":     {upon: func(c net.Conn, in *bufio.Reader) { heard(in); c.(*net.TCPConn).SetLinger(0) }},
		"in the request":    {upon: func(_ net.Conn, in *bufio.Reader) { in.ReadByte() }},
		"in a long request": {upon: func(_ net.Conn, in *bufio.Reader) { in.Discard(1 << 20) }, size: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			read, done := make(chan bool), make(chan bool)
			f := newFixture(t, listen(t, func(n int, s net.Conn) {
				in := bufio.NewReader(s)
				heard(in)
				io.WriteString(s, text+"ok")
				if n > 0 {
					return
				}
				<-read
				if c.before != nil {
					c.before(s, in)
				}
				close(done)
				if c.upon != nil {
					c.upon(s, in)
				}
			}), ClientOptions{})
			f.post.Body = make([]byte, c.size)
			if got := f.body(f.do()); got != "ok" || f.kept() != 1 {
				t.Fatalf("%q, kept %d", got, f.kept())
			}
			close(read)
			<-done
			if got := f.body(f.do()); got != "ok" {
				t.Error(got)
			}
		})
	}
}

// On a fresh connection, or once an answer has begun, there is no second try.
func TestNoSecondTry(t *testing.T) {
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, c := range map[string]struct {
		kept  bool
		reply string
	}{
		"fresh": {false, ""}, "begun": {true, "H"}, "begun fresh": {false, "HTTP/1.1 200 OK\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan bool, 9)
			f := newFixture(t, listen(t, func(_ int, s net.Conn) {
				in := bufio.NewReader(s)
				if c.kept {
					heard(in)
					io.WriteString(s, text)
				}
				if heard(in) {
					asked <- true
				}
				io.WriteString(s, c.reply)
			}), ClientOptions{})
			if c.kept {
				f.body(f.do())
			}
			if _, err := f.Do(t.Context(), f.target, f.post); faultOf(err) != "reset" {
				t.Errorf("%v", err)
			}
			if len(asked) != 1 {
				t.Errorf("asked %d times", len(asked))
			}
		})
	}
}

// An engine may refuse a body that it does not read.
func TestEarlyRefusal(t *testing.T) {
	f := newFixture(t, listen(t, func(_ int, c net.Conn) {
		bufio.NewReader(c).ReadString('}')
		io.WriteString(c, "HTTP/1.1 413 Too large\r\nContent-Length: 2\r\n\r\nno")
		c.Close()
	}), ClientOptions{})
	f.post.Body = append([]byte("{}"), make([]byte, 32<<20)...)
	a, err := f.Do(t.Context(), f.target, f.post)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.body(a); a.Status != 413 || got != "no" || f.kept() != 0 {
		t.Errorf("%d, %q, kept %d", a.Status, got, f.kept())
	}
}

func TestCloseResets(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		read int
	}{
		"sized":               {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 5},
		"all here":            {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 4},
		"until the end":       {"HTTP/1.1 200 OK\r\n\r\nhello", 5},
		"in a chunk":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello", 5},
		"chunk unread":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 4},
		"more to come":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 5},
		"another chunk":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n", 5},
		"like a last chunk":   {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 0},
		"nothing of the body": {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan error, 1)
			f := newFixture(t, listen(t, func(_ int, s net.Conn) {
				heard(bufio.NewReader(s))
				io.WriteString(s, c.text)
				seen <- broken(s)
			}), ClientOptions{})
			a := f.do()
			if _, err := io.ReadFull(a, make([]byte, c.read)); err != nil {
				t.Error(err)
			}
			a.Close()
			if err := <-seen; err != nil {
				t.Errorf("the engine saw %v", err)
			}
			if n, err := a.Read(make([]byte, 1)); n != 0 || err != errClosed || a.Close() != nil || f.kept() != 0 {
				t.Errorf("afterwards: %d, %v", n, err)
			}
		})
	}
}

// Who closes a stream behind its last event keeps the connection, if the last chunk has come.
func TestCloseBehindTheLastEvent(t *testing.T) {
	for _, tail := range []string{"\r\n0\r\n\r\n", "0\r\n\r\n", "\r\n", "\n"} {
		text := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
		seen, sent := make(chan bool), make(chan bool)
		f := newFixture(t, listen(t, func(_ int, c net.Conn) {
			in := bufio.NewReader(c)
			heard(in)
			io.WriteString(c, strings.TrimSuffix(text, tail))
			<-seen
			io.WriteString(c, tail)
			close(sent)
			heard(in)
		}), ClientOptions{})
		a := f.do()
		if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		close(seen)
		<-sent
		a.Close()
		if _, err := a.Read(make([]byte, 1)); f.kept() != 1 || err != errClosed {
			t.Errorf("%q: kept %d, then %v", tail, f.kept(), err)
		}
		f.CloseIdle()
	}
}

// The connection that was used last is taken first; MaxIdle, IdleFor and CloseIdle bound the rest, which end politely.
func TestIdleConnections(t *testing.T) {
	ends := make(chan string, 9)
	f := newFixture(t, listen(t, func(n int, c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, err := in.Peek(1); err == io.EOF {
				ends <- strconv.Itoa(n)
				return
			} else if err != nil || !heard(in) {
				ends <- fmt.Sprint(n, err)
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
		}
	}), ClientOptions{MaxIdle: 2, IdleFor: 3 * time.Hour})
	f.every = time.Hour // it ticks only when told
	three := []*Response{f.do(), f.do(), f.do()}
	for i, a := range three {
		if got := f.body(a); got != strconv.Itoa(i) {
			t.Errorf("request %d on connection %s", i, got)
		}
	}
	if end := <-ends; end != "2" || f.kept() != 2 {
		t.Errorf("ended %s, kept %d; want 2 ended and 2 kept", end, f.kept())
	}
	f.tick()
	for range 3 {
		if got := f.body(f.do()); got != "1" {
			t.Errorf("on connection %s, want 1, the last one used", got)
		}
		f.tick()
	}
	if end := <-ends; end != "0" || f.kept() != 1 { // 4 ticks
		t.Errorf("ended %s, kept %d; want 0 ended and 1 kept", end, f.kept())
	}
	f.CloseIdle()
	f.tick() // as if it had been on its way
	if end := <-ends; end != "1" || f.kept() != 0 || f.ticker != nil {
		t.Errorf("ended %s, kept %d", end, f.kept())
	}
	f.body(f.do())
	for range 4 {
		f.tick()
	}
	if end := <-ends; end != "3" || f.ticker != nil || len(f.idle) != 0 {
		t.Errorf("ended %s, kept %d, the ticker runs: %t", end, f.kept(), f.ticker != nil)
	}
}

func TestConnectionCloseIsObeyed(t *testing.T) {
	f := newFixture(t, listen(t, answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), ClientOptions{})
	f.post.Header = append(f.post.Header, "connection: x, Close\r\n"...)
	if got := f.body(f.do()); got != "ok" || f.kept() != 0 {
		t.Errorf("%q, kept %d", got, f.kept())
	}
}

func TestTLS(t *testing.T) {
	finished := make(chan error, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			w.Write(make([]byte, 1))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			finished <- nil
			return
		}
		fmt.Fprintf(w, "%s %s %s %t", r.Proto, r.RemoteAddr, r.TLS.NegotiatedProtocol, r.TLS.Version >= tls.VersionTLS12)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS11}
	s.StartTLS()
	defer s.Close()
	config := s.Client().Transport.(*http.Transport).TLSClientConfig
	f := newFixture(t, s.URL, ClientOptions{Connect: time.Minute, Header: time.Minute, TLS: config})
	first := f.body(f.do())
	if words := strings.Fields(first); words[0] != "HTTP/1.1" || words[2] != "http/1.1" || words[3] != "true" {
		t.Error(first)
	}
	for range 3 {
		if got := f.body(f.do()); got != first {
			t.Errorf("%s, then %s: not one connection", first, got)
		}
	}
	f.post.Path = "/hang"
	a := f.do()
	if n, err := a.Read(make([]byte, 9)); n != 1 || err != nil {
		t.Error(n, err)
	}
	a.Close()
	if err := <-finished; err != nil {
		t.Error(err)
	}
	f = newFixture(t, s.URL, ClientOptions{})
	var dial *dialError
	if _, err := f.Do(t.Context(), f.target, f.post); !errors.As(err, &dial) {
		t.Errorf("an unknown authority: %v", err)
	}
	config = config.Clone()
	config.MinVersion, config.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 // which this server would speak
	f = newFixture(t, s.URL, ClientOptions{TLS: config})
	if _, err := f.Do(t.Context(), f.target, f.post); !errors.As(err, &dial) {
		t.Errorf("TLS 1.1: %v", err)
	}
}

// together is a connection that sends what was written only when it is told.
type together struct {
	net.Conn
	held []byte
	hold bool
}

func (c *together) Write(b []byte) (int, error) {
	if c.hold {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// What package tls has read, and nobody has asked it for, counts as something unasked, too.
func TestTLSExcess(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	s.Close()
	for _, c := range []struct {
		records []string
		kept    int
	}{
		{[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hello"}, 1},
		{[]string{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hello", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, 0},
	} {
		url := listen(t, func(_ int, raw net.Conn) {
			under := &together{Conn: raw}
			c1 := tls.Server(under, s.TLS)
			heard(bufio.NewReader(c1))
			under.hold = true
			for _, record := range c.records {
				io.WriteString(c1, record)
			}
			raw.Write(under.held)
			io.Copy(io.Discard, raw)
		})
		f := newFixture(t, "https"+strings.TrimPrefix(url, "http"), ClientOptions{TLS: s.Client().Transport.(*http.Transport).TLSClientConfig})
		if got := f.body(f.do()); got != "hello" || f.kept() != c.kept {
			t.Errorf("%q: %q, kept %d, want %d", c.records, got, f.kept(), c.kept)
		}
	}
}

// Of a repeated field, the first value counts.
func TestRepeatedFields(t *testing.T) {
	f := newFixture(t, "http://engine", ClientOptions{})
	const text = "HTTP/1.1 200 OK\r\ncontent-type: a/b; c=d\t\r\nContent-Encoding:gzip\r\nContent-Encoding: br\r\nContent-Type: e/f\r\nContent-Length: 0\r\n\r\n"
	a, _, err, _ := hear(t, f, []byte(text), 100, 100)
	if err != nil || a.ContentType != "a/b; c=d" || a.ContentEncoding != "gzip" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct{ url, address, name, host, base string }{
		{"http://engine", "engine:80", "engine", "engine", ""},
		{"https://engine/", "engine:443", "engine", "engine", ""},
		{"HTTP://Engine.local:8000/a/b%20c//", "Engine.local:8000", "Engine.local", "Engine.local:8000", "/a/b%20c"},
		{"http://[::1]:8000/v", "[::1]:8000", "::1", "[::1]:8000", "/v"},
		{"https://[fe80::1%25eth0]", "[fe80::1%eth0]:443", "fe80::1%eth0", "[fe80::1]", ""},
		{"http://127.0.0.1:65535", "127.0.0.1:65535", "127.0.0.1", "127.0.0.1:65535", ""},
	} {
		got, err := ParseTarget(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		want := Target{address{c.address, strings.HasPrefix(c.url, "https")}, c.name, c.base, " HTTP/1.1\r\nHost: " + c.host + "\r\n"}
		if *got != want {
			t.Errorf("%s: %+v, want %+v", c.url, *got, want)
		}
	}
	for _, url := range []string{
		"", "engine", "//engine", "ftp://engine", "http://", "http:///x", "http://:80", "http://engine:", "http://engine:0", "http://engine:65536", "http://engine:x",
		"http://user@engine", "http://user:password@engine", "http://engine?x", "http://engine?", "http://engine#x", "http://engine#", "http://a b", "http://é", "http://a%25b", "http://::1",
		"http://engine\r\nX: y", "http://engine/\r\n", "unix:/engine", "http:engine", "http://[::1", "http://a%0d%0ab",
	} {
		if got, err := ParseTarget(url); err == nil {
			t.Errorf("%q: %+v", url, *got)
		}
	}
}

// What an engine hears is the one request that was meant.
func TestRequestHeads(t *testing.T) {
	for _, c := range []struct {
		method, path, header string
		ok, closing          bool
	}{
		{"GET", "/", "", true, false}, {"POST", "/v1/x?y=%20", "A: b\r\nC-1:\td\xff\r\n", true, false}, {"HEAD", "/", "A:\r\n", true, false},
		{"POST", "/", "A: b\r\nConnection: keep-alive , CLOSE\r\nB: c\r\n", true, true}, {"POST", "/", "Connection: closed\r\n", true, false},
		{"get", "/", "", false, false}, {"CONNECT", "/", "", false, false}, {"", "/", "", false, false}, {"GET /x HTTP/1.1\r\nA: b\r\n", "/", "", false, false},
		{"GET", "", "", false, false}, {"GET", "x", "", false, false}, {"GET", "/ HTTP/1.1\r\nA: b", "", false, false}, {"GET", "/\x00", "", false, false}, {"GET", "/é", "", false, false},
		{"GET", "/", "A: b", false, false}, {"GET", "/", "A: b\n", false, false}, {"GET", "/", "A: b\r\n\r\n", false, false}, {"GET", "/", "\r\n", false, false}, {"GET", "/", "A: b\rc\r\n", false, false},
		{"GET", "/", "A: b\x00\r\n", false, false}, {"GET", "/", "A: b\r\n c\r\n", false, false}, {"GET", "/", "A : b\r\n", false, false}, {"GET", "/", ": b\r\n", false, false}, {"GET", "/", "A\r\n", false, false},
		{"GET", "/", "HOST: x\r\n", false, false}, {"GET", "/", "content-length: 1\r\n", false, false}, {"GET", "/", "Transfer-Encoding: chunked\r\n", false, false},
		{"GET", "/", "Expect: 100-continue\r\n", false, false}, {"GET", "/", "Upgrade: h2c\r\n", false, false},
	} {
		closing, err := (&Request{Method: c.method, Path: c.path, Header: []byte(c.header)}).check()
		if err == nil != c.ok || closing != c.closing {
			t.Errorf("%q %q %q: %t, %v", c.method, c.path, c.header, closing, err)
		}
	}
}

// The path of a request in bytes: one write, in this order.
func TestRequestBytes(t *testing.T) {
	for _, size := range []int{2, bufferSize} {
		var sent []byte
		body := strings.Repeat("x", size)
		f := newFixture(t, listen(t, func(_ int, c net.Conn) {
			var b bytes.Buffer
			heard(bufio.NewReader(io.TeeReader(c, &b)))
			sent = b.Bytes()
			io.WriteString(c, "HTTP/1.1 204 No\r\n\r\n")
		}), ClientOptions{})
		f.post.Body = []byte(body)
		f.body(f.do())
		want := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Request-Id: r1\r\nContent-Length: %d\r\n\r\n%s", f.target.address.hostPort, size, body)
		if string(sent) != want {
			t.Errorf("%.300q, want %.300q", sent, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	request := make(chan int)
	f := newFixture(t, listen(t, func(_ int, c net.Conn) {
		b, size, text := make([]byte, 1024), <-request, []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello")
		for n := 0; ; {
			m, err := c.Read(b)
			if err != nil {
				return
			}
			if n += m; n == size {
				n = 0
				c.Write(text)
			}
		}
	}), ClientOptions{Header: time.Hour, Connect: time.Hour})
	size := len("POST ") + len(f.post.Path) + len(f.target.line) + len(f.post.Header) + len("Content-Length: 7\r\n\r\n") + len(f.post.Body)
	go func() { request <- size }()
	b := make([]byte, 64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	allocations := testing.AllocsPerRun(200, func() {
		a, err := f.Do(ctx, f.target, f.post)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := a.Read(b); n != 5 || err != io.EOF {
			t.Fatal(n, err)
		}
	})
	if allocations > 3 {
		t.Errorf("%v allocations a request, want at most 3", allocations)
	}
}

// Many at once, some of which give up: each gets its own answer.
func TestConcurrently(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		w.Write(b[len(b)/2:])
	}))
	defer s.Close()
	f := newFixture(t, s.URL, ClientOptions{Header: time.Hour, MaxIdle: 3})
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 40 {
				body := fmt.Sprintf("worker %d, request %d", worker, i)
				ctx, cancel := context.WithCancelCause(t.Context())
				switch i % 8 {
				case 5:
					go cancel(errGone)
				case 6:
					f.tick()
				case 7:
					f.CloseIdle()
				}
				a, err := f.Do(ctx, f.target, &Request{Method: "POST", Path: "/", Body: []byte(body)})
				if err == nil {
					var got []byte
					if got, err = io.ReadAll(a); err == nil && string(got) != body {
						t.Errorf("%q, want %q", got, body)
					}
					a.Close()
				}
				if err != nil && (err != errGone || i%8 != 5) {
					t.Errorf("%s: %v", body, err)
				}
				cancel(nil)
			}
		})
	}
	all.Wait()
}

// The benchmarks: the engine is another process, so that CPU time is the client's alone.

const benchStream = 64 // events

// serveBenchmarks answers requests with a body of benchBody bytes until its standard input ends.
func serveBenchmarks() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveBenchmark(c)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

func serveBenchmark(c net.Conn) {
	body := strings.Repeat("x", 900)
	whole := []byte("HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 04:00:00 GMT\r\nserver: uvicorn\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n" + body)
	head := []byte("HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 04:00:00 GMT\r\nserver: uvicorn\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	event := []byte("c8\r\ndata: " + body[:192] + "\n\n\r\n")
	b := make([]byte, 64<<10)
	for n := 0; ; {
		m, err := c.Read(b[n:])
		if err != nil {
			return
		}
		if n += m; !bytes.HasSuffix(b[:n], []byte("]}")) { // the end of what the benchmarks send
			continue
		}
		stream := bytes.HasPrefix(b, []byte("POST /s"))
		n = 0
		if !stream {
			c.Write(whole)
			continue
		}
		c.Write(head)
		for range benchStream {
			c.Write(event)
		}
		c.Write([]byte("0\r\n\r\n"))
	}
}

// startEngine starts the engine of the benchmarks.
func startEngine(b *testing.B) (url string) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), benchServer+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return "http://" + strings.TrimSpace(line)
}

// asker asks the engine of the benchmarks one way or the other.
type asker struct {
	name   string
	ask    func(ctx context.Context, path string) (io.ReadCloser, error)
	cpu    time.Duration
	allocs uint64
}

// run asks many times, each time with a context of its own, as the gateway does, and notes what it cost this process.
func (by *asker) run(b *testing.B, n int, path string, want int) {
	used := func() (time.Duration, uint64) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
	}
	buf := make([]byte, 16<<10)
	cpu, allocs := used()
	for range n {
		ctx, cancel := context.WithCancel(b.Context())
		a, err := by.ask(ctx, path)
		if err != nil {
			b.Fatal(err)
		}
		total := 0
		for err == nil {
			var n int
			n, err = a.Read(buf)
			total += n
		}
		if total != want || err != io.EOF {
			b.Fatal(total, err)
		}
		a.Close()
		cancel()
	}
	cpuAfter, allocsAfter := used()
	by.cpu += cpuAfter - cpu
	by.allocs += allocsAfter - allocs
}

// BenchmarkDo compares Client.Do with http.Transport.RoundTrip. The two take turns in one run against one engine, so that
// what else the machine does hits both; an op is a turn of each.
func BenchmarkDo(b *testing.B) {
	const turn = 200
	url := startEngine(b)
	body := []byte(`{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 100) + `"}]}`)
	f := newFixture(b, url, ClientOptions{Connect: time.Minute, Header: time.Minute, IdleFor: time.Minute})
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: time.Minute}).DialContext, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute,
		ResponseHeaderTimeout: time.Minute, DisableCompression: true, WriteBufferSize: 16 << 10, ReadBufferSize: 16 << 10,
	}
	defer transport.CloseIdleConnections()
	for _, kind := range []struct {
		path string
		want int
	}{{"/whole", 900}, {"/stream", benchStream * 200}} {
		b.Run(kind.path[1:], func(b *testing.B) {
			both := []*asker{{name: "client", ask: func(ctx context.Context, path string) (io.ReadCloser, error) {
				return f.Do(ctx, f.target, &Request{Method: "POST", Path: path, Header: f.post.Header, Body: body})
			}}, {name: "transport", ask: func(ctx context.Context, path string) (io.ReadCloser, error) {
				r, err := http.NewRequestWithContext(ctx, "POST", url+path, bytes.NewReader(body))
				if err != nil {
					return nil, err
				}
				r.Header["Content-Type"] = []string{"application/json"}
				r.Header["X-Request-Id"] = []string{"r1"}
				a, err := transport.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				return a.Body, nil
			}}}
			for b.Loop() {
				for _, by := range both {
					by.run(b, turn, kind.path, kind.want)
				}
			}
			for _, by := range both {
				b.ReportMetric(float64(by.cpu)/float64(turn*b.N), by.name+"-cpu-ns")
				b.ReportMetric(float64(by.allocs)/float64(turn*b.N), by.name+"-allocs")
			}
			b.ReportMetric(100*float64(both[0].cpu)/float64(both[1].cpu), "%cpu")
		})
	}
}
