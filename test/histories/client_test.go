package histories

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"talea/internal/ledger"
	"talea/internal/sim"
	"talea/internal/usage"
)

// request is what a client asks, and what it is told.
type request struct {
	n       int
	path    string // of the account
	route   string
	key     string // the secret
	retries string // its Idempotency-Key, "" for none
	body    string
	stream  bool
	fault   string        // that the engine was asked for
	hangUp  int           // after so many events; 0 is never
	leave   time.Duration // after so long; 0 is never

	// What it is told.
	id       string
	status   int
	code     string // of a refusal
	sent     time.Time
	answered time.Time
	seen     int64  // events with text
	cost     string // that it was told
	told     sim.Tokens
	whole    bool // the answer came to its end
	left     atomic.Bool
	ended    atomic.Bool
}

// ask sends a request and reads the answer as far as the client wants.
func (h *history) ask(p *process, r *request) {
	defer r.ended.Store(true)
	r.sent = h.clock.Now()
	w, err := p.port.dial(context.Background())
	if err != nil || p.takes(w.peer) != nil {
		return
	}
	defer w.Close()
	if r.leave > 0 {
		timer := time.AfterFunc(h.apart(r.leave), func() {
			r.left.Store(true)
			w.Close()
		})
		defer timer.Stop()
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n", r.route, r.key, len(r.body))
	if r.retries != "" {
		head += "Idempotency-Key: " + r.retries + "\r\n"
	}
	if _, err := io.WriteString(w, head+"\r\n"+r.body); err != nil {
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(w), nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	r.id, r.status = resp.Header.Get("X-Request-Id"), resp.StatusCode
	r.answered = h.clock.Now()
	if r.stream && r.status == http.StatusOK {
		r.readStream(h, w, resp.Body)
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	if r.status != http.StatusOK {
		r.code = between(body, `"code":"`, `"`)
		return
	}
	r.cost, r.told = resp.Header.Get("X-Cost"), tokensOf(body)
	r.whole = true
	h.concluded(r)
}

// readStream reads events until the end, or until the client has had enough.
func (r *request) readStream(h *history, w *wire, body io.Reader) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case bytes.Equal(line, []byte("data: [DONE]")):
			r.whole = r.code == ""
			h.concluded(r)
			return
		case bytes.HasPrefix(line, []byte(`data: {"error"`)):
			r.code = "broken"
		case bytes.Contains(line, []byte(`"cost":`)):
			r.cost, r.told = between(line, `"cost":"`, `"`), tokensOf(line)
		case bytes.Contains(line, []byte(`"content":"`)) && !bytes.Contains(line, []byte(`"content":""`)), bytes.Contains(line, []byte(`"reasoning":"`)):
			if r.seen++; r.hangUp > 0 && r.seen >= int64(r.hangUp) {
				r.left.Store(true)
				w.Close()
				return
			}
		}
	}
}

// concluded is told when a client has the end of an answer: its settlement is on the disk.
func (h *history) concluded(r *request) {
	id, err := usage.ParseID(r.id)
	if err != nil {
		h.t.Errorf("an answer has the id %q", r.id)
		return
	}
	if !h.disk.has(id, ledger.KindSettle, ledger.KindVoid) {
		h.t.Errorf("I4: the answer to %s has ended, and its settlement is not on the disk", r.id)
	}
}

// tokensOf reads usage.
func tokensOf(b []byte) (t sim.Tokens) {
	for name, n := range map[string]*int64{"prompt_tokens": &t.Input, "cached_tokens": &t.Cached, "completion_tokens": &t.Output} {
		_, rest, _ := bytes.Cut(b, []byte(`"`+name+`":`))
		digits := rest[:len(rest)-len(bytes.TrimLeft(rest, "0123456789"))]
		*n, _ = strconv.ParseInt(string(digits), 10, 64) // not there: none
	}
	return t
}

// between is what stands between two texts, "" if they are not there.
func between(b []byte, before, after string) string {
	_, rest, ok := strings.Cut(string(b), before)
	found, _, closed := strings.Cut(rest, after)
	if !ok || !closed {
		return ""
	}
	return found
}
