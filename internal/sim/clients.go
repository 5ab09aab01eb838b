package sim

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// App is one tenant's application: some users that call a model again and again with the same key.
type App struct {
	Name      string // for Tally
	Key       string // API key
	Model     string
	Kind      AppKind
	Users     int           // at a time, each waits for its answer
	Think     time.Duration // from an answer to the next request, on average
	System    int           // words of the prompt that all requests share
	Prompt    int           // words of a request of its own, at most
	MaxTokens int64         // 0 is not given
	Effort    string        // reasoning_effort, "" is not given
	HangUps   int           // of 1,000 requests, how many are given up in mid-answer
}

// AppKind is what an application asks for.
type AppKind uint8

// Kinds of applications.
const (
	Streams    AppKind = iota // chat, streamed
	Plain                     // chat in one piece
	Embeddings                // embeddings of several texts
)

// ClientsOptions of StartClients.
type ClientsOptions struct {
	URL   string // of the tenants' port, without a path
	Apps  []App
	Seed  uint64
	Sleep func(ctx context.Context, d time.Duration) error // as in EngineOptions
}

// Tally is what an application has seen.
type Tally struct {
	Sent, OK, Refused, Failed, HungUp int64
	Told                              Tokens // in the usage of answers that were OK
}

// Clients are running applications.
type Clients struct {
	o        ClientsOptions
	client   *http.Client
	asking   context.Context // no request begins after its end
	stop     context.CancelFunc
	answered context.Context // no request outlives it
	hangUp   context.CancelFunc
	running  sync.WaitGroup

	mu    sync.Mutex // guards the tallies
	tally map[string]*Tally
}

// StartClients starts the users of every application. Stop must end them.
func StartClients(o ClientsOptions) *Clients {
	if o.Sleep == nil {
		o.Sleep = realSleep
	}
	c := &Clients{o: o, tally: map[string]*Tally{}, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 256,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}}
	c.answered, c.hangUp = context.WithCancel(context.Background())
	c.asking, c.stop = context.WithCancel(c.answered)
	for i := range o.Apps {
		c.tally[o.Apps[i].Name] = &Tally{}
	}
	for i := range o.Apps {
		a := &o.Apps[i]
		for n := range a.Users {
			u := &user{c: c, app: a, rand: rand.New(rand.NewPCG(o.Seed, uint64(i)<<32|uint64(n)))}
			c.running.Go(u.live)
		}
	}
	return c
}

// Stop lets no more requests begin, hangs up on those that still run after the grace, and waits for every user to end.
func (c *Clients) Stop(grace time.Duration) {
	c.stop()
	hangUp := time.AfterFunc(grace, c.hangUp)
	c.running.Wait()
	hangUp.Stop()
	c.hangUp()
	c.client.CloseIdleConnections()
}

// Tally returns what each application has seen so far, by name.
func (c *Clients) Tally() map[string]Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := map[string]Tally{}
	for name, t := range c.tally {
		m[name] = *t
	}
	return m
}

// user is one caller.
type user struct {
	c    *Clients
	app  *App
	rand *rand.Rand
	turn int
}

// errHungUp ends a request that its user gave up.
var errHungUp = errors.New("hung up")

// refusedError is an answer that says no.
type refusedError struct {
	status int
	wait   time.Duration
}

func (e *refusedError) Error() string { return fmt.Sprintf("refused with %d", e.status) }

// live thinks and asks until it is stopped.
func (u *user) live() {
	wait := time.Duration(u.rand.Int64N(int64(u.app.Think) + 1)) // not all at once
	for u.c.o.Sleep(u.c.asking, wait) == nil {
		told, err := u.ask(u.c.answered)
		if u.c.answered.Err() != nil {
			return
		}
		var no *refusedError
		u.c.mu.Lock()
		t := u.c.tally[u.app.Name]
		t.Sent++
		switch {
		case err == nil:
			t.OK++
			t.Told.add(told)
		case errors.Is(err, errHungUp):
			t.HungUp++
		case errors.As(err, &no):
			t.Refused++
		default:
			t.Failed++
		}
		u.c.mu.Unlock()
		wait = u.app.Think/2 + time.Duration(u.rand.Int64N(int64(u.app.Think)+1))
		if no != nil {
			wait = max(wait, no.wait)
		}
	}
}

// ask makes one request and reads its answer.
func (u *user) ask(ctx context.Context) (Tokens, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hangUp := u.rand.IntN(1000) < u.app.HangUps
	path, body := u.compose()
	r, err := http.NewRequestWithContext(ctx, "POST", u.c.o.URL+path, bytes.NewReader(body))
	if err != nil {
		return Tokens{}, err
	}
	r.Header.Set("Authorization", "Bearer "+u.app.Key)
	r.Header.Set("Content-Type", "application/json")
	if hangUp && u.app.Kind != Streams {
		patience := u.app.Think / 8
		go func() {
			u.c.o.Sleep(ctx, patience)
			cancel()
		}()
	}
	resp, err := u.c.client.Do(r)
	if err != nil {
		if hangUp && ctx.Err() != nil {
			return Tokens{}, errHungUp
		}
		return Tokens{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		io.Copy(io.Discard, resp.Body) // so that the connection can be used again
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return Tokens{}, &refusedError{resp.StatusCode, time.Duration(seconds) * time.Second}
	}
	if u.app.Kind == Streams {
		return u.readStream(resp.Body, hangUp)
	}
	var a answer
	err = json.NewDecoder(resp.Body).Decode(&a)
	return a.Usage.tokens(), err
}

// answer is what a client reads of an answer, or of one chunk of it.
type answer struct {
	Usage told            `json:"usage"`
	Error json.RawMessage `json:"error"`
}

type told struct {
	Input  int64 `json:"prompt_tokens"`
	Output int64 `json:"completion_tokens"`
	In     struct {
		Cached int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	Out struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

func (t *told) tokens() Tokens { return Tokens{t.Input, t.In.Cached, t.Output, t.Out.Reasoning} }

// readStream reads a stream to [DONE], or gives up in the middle of it.
func (u *user) readStream(body io.Reader, hangUp bool) (Tokens, error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	patience := 4 + u.rand.IntN(40) // events
	var last []byte
	for events := 0; lines.Scan(); {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			var a answer
			err := json.Unmarshal(last, &a)
			return a.Usage.tokens(), err
		}
		if bytes.HasPrefix(data, []byte(`{"error"`)) {
			return Tokens{}, errors.New("the answer broke off")
		}
		last = append(last[:0], data...)
		if events++; hangUp && events > patience {
			return Tokens{}, errHungUp
		}
	}
	return Tokens{}, cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}

// compose writes a request. Those of one application begin alike, so that an engine has something to remember.
func (u *user) compose() (path string, body []byte) {
	u.turn++
	shared := "You work for " + u.app.Name + ". " + prose(u.app.System, 0)
	own := 1 + u.rand.IntN(max(1, u.app.Prompt))
	question := fmt.Sprintf("%d: %s?", u.turn, prose(own, u.rand.IntN(len(lesson))))
	m := map[string]any{"model": u.app.Model}
	if u.app.Kind == Embeddings {
		m["input"] = []string{shared, question, prose(own, 7)}
		path = "/v1/embeddings"
	} else {
		m["messages"] = []any{map[string]any{"role": "system", "content": shared}, map[string]any{"role": "user", "content": question}}
		path = "/v1/chat/completions"
	}
	if u.app.Kind == Streams {
		m["stream"], m["stream_options"] = true, map[string]any{"include_usage": true}
	}
	if u.app.MaxTokens > 0 {
		m["max_tokens"] = u.app.MaxTokens
	}
	if u.app.Effort != "" {
		m["reasoning_effort"] = u.app.Effort
	}
	body, _ = json.Marshal(m) // strings, numbers and lists of them always have a JSON form
	return path, body
}

// prose is so many words, from one on.
func prose(n, from int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(lesson[(from+i)%len(lesson)] + " ")
	}
	return b.String()
}
