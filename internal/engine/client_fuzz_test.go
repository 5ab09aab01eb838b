package engine

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzResponse: whatever an engine sends, in whatever pieces, nothing panics or loops, and what is read is what net/http
// reads of it. More than that, nothing is accepted that net/http refuses, and a connection is kept only if net/http, too,
// sees the answer's end where the bytes end.
func FuzzResponse(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, s := range []string{
		ok + "Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello",
		ok + "Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1 \r\nx\r\n0\r\nA: b\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n00a\r\n0123456789\r\n0\r\n\r\nrest",
		ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		ok + "Content-Length: 20000\r\n\r\n" + strings.Repeat("x", 20001),
		ok + "A: b\r\n c\r\nContent-Length: 9223372036854775807\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 500 \xff\tno\r\nConnection: close, x\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\n\n", "HTTP/2.0 200 OK\r\n\r\n", "",
	} {
		for _, piece := range []uint8{0, 1, 5} {
			f.Add([]byte(s), piece, piece%3)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, piece, part uint8) {
		x := newFixture(t, "http://engine", ClientOptions{MaxIdle: 1})
		size := int(piece)
		if size == 0 {
			size = 1 << 20
		}
		parts := []int{1, 100, 2 * bufferSize}
		a, body, err, p := hear(t, x, text, size, parts[int(part)%len(parts)])
		kept := x.kept() == 1
		if x.CloseIdle(); !p.closed {
			t.Fatal("the connection was neither kept nor closed")
		}
		if err != nil {
			if fault := faultOf(err); kept || fault != "protocol" && fault != "reset" {
				t.Fatalf("%v, kept %t", err, kept)
			}
			return
		}
		in := bytes.NewReader(text)
		buffered := bufio.NewReader(in)
		want, wantBody := readReference(t, buffered)
		if a.Status != want.StatusCode || !bytes.Equal(body, wantBody) {
			t.Fatalf("%d %q, want %d %q", a.Status, body, want.StatusCode, wantBody)
		}
		if types := want.Header["Content-Type"]; len(types) == 1 && types[0] != a.ContentType {
			t.Fatalf("type %q, want %q", a.ContentType, types[0])
		}
		if a.ContentLength != want.ContentLength {
			t.Fatalf("length %d, want %d", a.ContentLength, want.ContentLength)
		}
		if end := len(text) - in.Len() - buffered.Buffered(); kept && (want.Close || p.given != end) {
			t.Fatalf("kept, but close is %t, and of %d bytes %d are the answer", want.Close, p.given, end)
		}
	})
}

// readReference reads as net/http does; it must not fail.
func readReference(t *testing.T, in *bufio.Reader) (*http.Response, []byte) {
	for {
		r, err := http.ReadResponse(in, &http.Request{Method: "POST"})
		if err != nil {
			t.Fatalf("net/http refuses the head: %v", err)
		}
		if r.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatalf("net/http refuses the body: %v", err)
		}
		return r, body
	}
}

// FuzzRequest: what an engine hears is one request with the path, the fields and the body that were meant, or nothing.
func FuzzRequest(f *testing.F) {
	f.Add("http://engine:8000/base", "/v1/x", "A: b\r\nC: d\r\n", "body")
	f.Add("https://[fe80::1%25eth0]/", "/?q", "Connection: close\r\n", "")
	f.Add("http://a%25b", "/ HTTP/1.1\r\nA: b", "Content-Length: 0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n")
	f.Fuzz(func(t *testing.T, url, path, header, body string) {
		target, err := ParseTarget(url)
		if err != nil {
			return
		}
		r := &Request{Method: "POST", Path: path, Header: []byte(header), Body: []byte(body)}
		if _, err := r.check(); err != nil {
			return
		}
		var out bytes.Buffer
		c := newConn(NewClient(ClientOptions{}), target.address, recorder{&pieces{}, &out})
		c.buf = new([bufferSize]byte)
		if err := c.write(target, r); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(&out)
		got, err := http.ReadRequest(in)
		if err != nil {
			if strings.Contains(err.Error(), "parse ") || strings.Contains(err.Error(), "invalid URI") {
				return // a path in which an escape is malformed: the engine's to refuse
			}
			t.Fatalf("net/http does not read it: %v", err)
		}
		heard, err := io.ReadAll(got.Body)
		if err != nil || string(heard) != body || got.RequestURI != target.base+path || in.Buffered()+out.Len() != 0 {
			t.Fatalf("%q %q, %d bytes left, %v", got.RequestURI, heard, in.Buffered()+out.Len(), err)
		}
		fields := 0
		for _, values := range got.Header {
			fields += len(values)
		}
		if want := strings.Count(header, "\n") + 1; fields+strings.Count(strings.ToLower("\n"+header), "\nconnection:") < want {
			t.Fatalf("%d fields, want %d", fields, want)
		}
	})
}

// recorder notes what is written.
type recorder struct {
	*pieces
	out *bytes.Buffer
}

func (r recorder) Write(b []byte) (int, error) { return r.out.Write(b) }
