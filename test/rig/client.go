package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"talea/internal/sim"
	"talea/test/oracle"
)

// Kind is what a request asks for.
type Kind int

// Kinds of requests.
const (
	Plain Kind = iota
	Stream
	Embeddings
)

// Ask is one request.
type Ask struct {
	Account, Key, Model string
	Kind                Kind
	Text                string // of the request; a marker such as [[c=20]] steers the engine
	MaxTokens           int64  // 0 is not given
	HangUp              int64  // gives up after so many tokens of a stream; 0 does not
	Patience            time.Duration
	Header              [][2]string
	Seen                func(visible int64) // is told of each token of a stream that came; nil for nobody
}

// Client sends requests and keeps a log of what it sees.
type Client struct {
	http.Client
	mu  sync.Mutex // guards log
	log []oracle.Call
}

// NewClient makes a client with connections of its own.
func NewClient() *Client {
	return &Client{Client: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

// Log returns what was seen so far, and forgets it.
func (c *Client) Log() []oracle.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.log
	c.log = nil
	return log
}

// Do sends one request, reads its answer as far as it comes, and logs it.
func (c *Client) Do(ctx context.Context, url string, a *Ask) oracle.Call {
	seen := oracle.Call{Account: a.Account}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.Patience > 0 {
		defer time.AfterFunc(a.Patience, cancel).Stop()
	}
	c.exchange(ctx, url, a, &seen)
	seen.HungUp = !seen.Done && ctx.Err() != nil || seen.HungUp
	if seen.Status != 0 {
		c.mu.Lock()
		c.log = append(c.log, seen)
		c.mu.Unlock()
	}
	return seen
}

func (c *Client) exchange(ctx context.Context, url string, a *Ask, seen *oracle.Call) {
	path, body := a.compose()
	r, err := http.NewRequestWithContext(ctx, "POST", url+path, strings.NewReader(body))
	if err != nil {
		panic("rig: " + err.Error())
	}
	r.Header.Set("Authorization", "Bearer "+a.Key)
	r.Header.Set("Content-Type", "application/json")
	for _, h := range a.Header {
		r.Header.Set(h[0], h[1])
	}
	resp, err := c.Client.Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	seen.ID, seen.Status = resp.Header.Get("X-Request-Id"), resp.StatusCode
	switch {
	case resp.StatusCode != http.StatusOK:
		io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	case a.Kind == Stream:
		c.stream(resp.Body, a, seen)
	default:
		b, err := io.ReadAll(resp.Body)
		var w answer
		if err == nil && json.Unmarshal(b, &w) == nil {
			seen.Done = true
			w.tell(seen)
		}
	}
}

// compose writes the request.
func (a *Ask) compose() (path, body string) {
	more := ""
	if a.MaxTokens > 0 {
		more = fmt.Sprintf(`,"max_tokens":%d`, a.MaxTokens)
	}
	switch a.Kind {
	case Embeddings:
		return "/v1/embeddings", fmt.Sprintf(`{"model":%q,"input":[%q,"and one more"]}`, a.Model, a.Text)
	case Stream:
		more += `,"stream":true,"stream_options":{"include_usage":true}`
	}
	return "/v1/chat/completions", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]%s}`, a.Model, a.Text, more)
}

// answer is what a client reads of an answer, or of one event.
type answer struct {
	Choices []struct {
		Delta struct{ Content, Reasoning string }
	}
	Usage *struct {
		Input  int64 `json:"prompt_tokens"`
		Output int64 `json:"completion_tokens"`
		In     struct {
			Cached int64 `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
		Cost string
	}
}

func (w *answer) tell(seen *oracle.Call) {
	if u := w.Usage; u != nil {
		seen.Told, seen.Cost = sim.Tokens{Input: u.Input, Cached: u.In.Cached, Output: u.Output}, u.Cost
	}
}

// stream reads events until [DONE], the end, or the client's patience.
func (c *Client) stream(body io.Reader, a *Ask, seen *oracle.Call) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			seen.Done = true
			io.Copy(io.Discard, body)
			return
		}
		var w answer
		if json.Unmarshal(data, &w) != nil {
			return
		}
		w.tell(seen)
		for _, ch := range w.Choices {
			if ch.Delta.Content+ch.Delta.Reasoning != "" {
				seen.Visible++
				if a.Seen != nil {
					a.Seen(seen.Visible)
				}
			}
		}
		if a.HangUp > 0 && seen.Visible >= a.HangUp {
			seen.HungUp = true
			return
		}
	}
}
