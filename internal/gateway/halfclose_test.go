package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"talea/internal/sim"
	"talea/internal/usage"
)

// dial connects to the tenants' port and sends a request by hand.
func (r *rig) dial(body string) *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", secrets["env:GOOD"], len(body), body)
	return c.(*net.TCPConn)
}

// working waits until an engine works on something.
func working(t *testing.T, e *sim.Engine) {
	t.Helper()
	for range 30_000 {
		if g, _ := e.Running(); g > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the engine was not asked")
}

// F074: a client that closes its half of the connection behind the request gets its whole answer, streaming or not, however
// long it takes, and is charged as anybody; the connection ends then.
func TestHalfClose(t *testing.T) {
	for name, more := range map[string]string{"stream": `,"stream":true`, "whole": `,"max_tokens":100`, "long whole": `,"max_tokens":400`} {
		t.Run(name, func(t *testing.T) {
			e := sim.NewEngine(sim.EngineOptions{})
			t.Cleanup(e.Close)
			r := newRig(t, setup{engines: []string{e.URL()}})
			c := r.dial(say("p=32 c=20 ttft=100ms delay=10ms", more))
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			in := bufio.NewReader(c)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "stick") || name == "stream" && !strings.HasSuffix(string(body), "data: [DONE]\n\n") {
				t.Errorf("%d %q, %v", resp.StatusCode, body, err)
			}
			if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
				t.Errorf("behind the answer: %q, %v", rest, err)
			}
			r.settled()
			rec, _, err := r.ledger.Record(r.holds()[0])
			if err != nil || rec.Outcome != usage.Completed || rec.Counts.Output() != 20 {
				t.Errorf("%+v, %v", rec, err)
			}
		})
	}
}

// TestCloseIsNoHalfClose: a client that closes its connection altogether is gone, also while nothing is being written, and
// also one that first closed its half.
func TestCloseIsNoHalfClose(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"closed": func(c *net.TCPConn) { c.Close() },
		"reset":  func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		"half, then closed": func(c *net.TCPConn) {
			c.CloseWrite()
			time.Sleep(10 * time.Millisecond)
			c.SetLinger(0)
			c.Close()
		},
	} {
		for _, more := range []string{`,"stream":true`, `,"max_tokens":100`, `,"max_tokens":400`} {
			t.Run(name+more, func(t *testing.T) {
				ended := make(chan sim.Answer, 1)
				e := sim.NewEngine(sim.EngineOptions{Watch: func(a sim.Answer) { ended <- a }})
				t.Cleanup(e.Close)
				r := newRig(t, setup{engines: []string{e.URL()}})
				c := r.dial(say("p=32 c=20 ttft=1h", more))
				working(t, e)
				leave(c)
				if a := <-ended; a.Outcome != sim.Aborted {
					t.Errorf("%+v", a)
				}
				r.settled()
				rec, _, err := r.ledger.Record(r.holds()[0])
				if err != nil || rec.Outcome != usage.ClientGone {
					t.Errorf("%+v, %v", rec, err)
				}
			})
		}
	}
}

// F075: a client that ends in the middle of a request has not asked for anything, and the next request of a
// connection is not touched by what went before.
func TestHalfOfARequest(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	body := say("c=2", `,"max_tokens":9`)
	for range 2 {
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", secrets["env:GOOD"], len(body), body)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || err != nil {
			t.Errorf("%d %s, %v", resp.StatusCode, answer, err)
		}
	}
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n{", secrets["env:GOOD"], len(body))
	c.(*net.TCPConn).CloseWrite()
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("half of a request is answered with %v, %v", resp, err)
	}
	r.settled()
	if n := len(r.holds()); n != 2 {
		t.Errorf("%d holds for two requests", n)
	}
}
