package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/gateway"
	"talea/internal/usage"
)

// flood is an engine that makes tokens as fast as it is let, until its connection ends. It counts the bytes that it got rid of,
// which are no more than small buffers of its own ahead of its reader.
func flood(t *testing.T) (url string, sent *atomic.Int64) {
	t.Helper()
	sent = &atomic.Int64{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		copyAll(nil, discardAll{}, r.Body)
		if r.Method == http.MethodGet {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for n := 1; ; n++ {
			chunk := fmt.Sprintf("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%04096d\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":32,\"completion_tokens\":%d}}\n\n", n, n)
			if _, err := w.Write([]byte(chunk)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			sent.Add(int64(len(chunk)))
		}
	}))
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		c.(*net.TCPConn).SetWriteBuffer(16 << 10)
		return ctx
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, sent
}

type discardAll struct{}

func (discardAll) Write(b []byte) (int, error) { return len(b), nil }

// F069: a client that reads a byte now and then slows the engine down, takes little memory, and is given up when it has not
// taken what was sent to it for too long; what was made until then is charged.
func TestSlowReader(t *testing.T) {
	url, sent := flood(t)
	r := newRig(t, setup{engines: []string{url}, limits: gateway.Limits{Write: 500 * time.Millisecond}})
	c := r.dial(say("", `,"max_tokens":4000,"stream":true`))
	c.SetReadBuffer(4 << 10)
	for r.gw.Running() > 0 || len(r.holds()) == 0 {
		c.Read(make([]byte, 1))
		time.Sleep(20 * time.Millisecond)
	}
	r.settled()
	if n := sent.Load(); n > 8<<20 { // half of what there is; the kernel's buffers of the engine and of the client are in it, a few MiB at most
		t.Errorf("%d KiB were taken from the engine for a client that reads nothing", n>>10)
	}
	rec, _, err := r.ledger.Record(r.holds()[0])
	if err != nil || rec.Outcome != usage.ClientGone || rec.Status != usage.Posted || rec.Billed.Output() == 0 || (rec.Billed.Output()-1)*4096 > sent.Load() { // the engine counts behind its write
		t.Errorf("%+v, %v", rec, err)
	}
}

// F077: a client that does not care for the end of a stream and keeps its connection has been settled by then, and asks again
// on it.
func TestEndIsIgnored(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	body := say("p=32 c=20", `,"stream":true`)
	c := r.dial(body)
	in := bufio.NewReader(c)
	for n := 1; n <= 2; n++ {
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(line, "data: [DONE]") {
				break
			}
		}
		if requests, _, output := r.totals(); requests != int64(n) || output != int64(20*n) || r.ledger.OpenHolds() != 0 {
			t.Errorf("when [DONE] is here, %d requests with %d tokens are posted and %d held", requests, output, r.ledger.OpenHolds())
		}
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", secrets["env:GOOD"], len(body), body)
	}
}

// F047: what an engine says after its client has left and its connection was cut is not heard: nothing is settled twice.
func TestLateAnswer(t *testing.T) {
	var late sync.WaitGroup
	first := make(chan struct{})
	url := serving(t, func(w http.ResponseWriter, req *http.Request) {
		late.Add(1)
		defer late.Done()
		w.Header().Set("Content-Type", "text/event-stream")
		chunk := func(n int, finish string) {
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":%s}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":%d}}\n\n", finish, n)
			w.(http.Flusher).Flush()
		}
		chunk(1, "null")
		close(first)
		<-req.Context().Done() // the gateway has cut it: a stubborn engine goes on
		for n := 2; n < 200; n++ {
			chunk(n, "null")
		}
		chunk(200, `"stop"`)
		fmt.Fprint(w, "data: [DONE]\n\n")
	})
	r := newRig(t, setup{engines: []string{url}})
	c := r.dial(say("", `,"stream":true,"max_tokens":300`))
	<-first
	for r.gw.Running() == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	r.settled()
	before, _, err := r.ledger.Record(r.holds()[0])
	if err != nil {
		t.Fatal(err)
	}
	late.Wait()
	after, _, err := r.ledger.Record(r.holds()[0])
	if err != nil || after.Outcome != usage.ClientGone || after.Billed.Output() > 1 || after.Charge != before.Charge || !after.Result.At.Equal(before.Result.At) {
		t.Errorf("%+v, %v", after, err)
	}
	if requests, _, output := r.totals(); requests > 1 || output > 1 {
		t.Errorf("%d requests with %d tokens are posted", requests, output)
	}
}
