// Package sim is a simulated factory: engines that play vLLM over real connections, and the applications of tenants that
// call a gateway. Tests, the demo and benchmarks use it. It infers nothing, is no part of a running gateway, and knows
// nothing of keys, prices or limits (identity, price, quota).
//
// # Invariants
//
//   - An engine books a token before it writes it: Totals is what was generated, whatever became of the connection.
//   - What an engine generates follows from its seed and the request, not from the order or the time of requests; only
//     what is cached depends on what came before.
//   - Generation ends when the client's connection does.
//   - Clients use net/http and the tenants' port, and nothing else.
//
// To add a fault: a row in faults, and its place in generation.
//
// Start reading at Engine, then generation.run.
package sim

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Model is one model that an engine serves.
type Model struct {
	Name          string
	Parameters    int64 // sets the speed: 8e9 on one GPU makes 150 tokens a second and choice
	ContextTokens int64 // prompt and answer together, 0 is 131,072
}

// EngineOptions of NewEngine. The zero value is an engine with one model "m", without slots to run out of, at the speed
// of 8e9 parameters.
type EngineOptions struct {
	Models []Model
	GPUs   int64  // multiplies the speed, 0 is 1
	Slots  int    // requests that generate at a time, 0 is no limit; the others wait their turn
	Seed   uint64 // of answers and their lengths
	APIKey string // asked as a bearer token, "" for none
	// Sleep paces the engine: it returns after d, or with ctx's error as soon as ctx ends. nil is real time.
	Sleep func(ctx context.Context, d time.Duration) error
	// Watch is called after each request for generation, from its goroutine. nil for none.
	Watch func(Answer)
	// Listener takes connections, nil is a free port of the loopback interface.
	Listener net.Listener
	// Keep keeps a book of every request, for Engine.Book. It grows for as long as the engine runs.
	Keep bool
}

// Tokens are counts of tokens. Cached is part of Input, Reasoning is part of Output.
type Tokens struct{ Input, Cached, Output, Reasoning int64 }

func (t *Tokens) add(d Tokens) {
	t.Input += d.Input
	t.Cached += d.Cached
	t.Output += d.Output
	t.Reasoning += d.Reasoning
}

// Outcome says how a request ended for the engine.
type Outcome string

// Outcomes.
const (
	Working   Outcome = ""          // it has not ended
	Completed Outcome = "completed" // the whole answer was generated
	Aborted   Outcome = "aborted"   // the client's connection ended first
	Faulted   Outcome = "faulted"   // by a fault that was asked for
	Refused   Outcome = "refused"   // the request was not acceptable
)

// Answer is one request for generation, as the engine saw it.
type Answer struct {
	Path    string
	Header  http.Header
	Body    []byte
	Outcome Outcome
	Tokens  Tokens // generated, whether or not they arrived
}

// Work is what an engine has in its book about one request for generation.
type Work struct {
	Outcome Outcome
	Tokens  Tokens // generated so far, whether or not they arrived
}

// Totals are an engine's own books.
type Totals struct {
	Requests, Completed, Aborted, Faulted, Refused int64
	Done                                           Tokens // of completed answers
	All                                            Tokens // generated in all
	Tokenize                                       int64  // calls that only count, in no other figure
}

// Engine is a simulated engine.
type Engine struct {
	o        EngineOptions
	listener net.Listener
	server   http.Server
	cancel   context.CancelFunc
	slots    chan struct{}
	waiting  atomic.Int64
	running  atomic.Int64
	serial   atomic.Uint64
	requests sync.WaitGroup

	mu     sync.Mutex // guards all below
	totals Totals
	prefix prefixCache
	fault  string // struck at every nth request
	every  uint64
	asked  uint64 // requests since the fault was set
	kept   map[string][]*Work
}

// NewEngine starts an engine. It panics where the loopback interface has no free port.
func NewEngine(o EngineOptions) *Engine {
	if len(o.Models) == 0 {
		o.Models = []Model{{Name: "m", Parameters: 8_000_000_000}}
	}
	if o.Sleep == nil {
		o.Sleep = realSleep
	}
	o.GPUs = max(1, o.GPUs)
	if o.Listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic("sim: cannot listen on the loopback interface: " + err.Error())
		}
		o.Listener = l
	}
	e := &Engine{o: o, listener: o.Listener}
	if o.Slots > 0 {
		e.slots = make(chan struct{}, o.Slots)
	}
	base, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.server = http.Server{Handler: e.routes(), BaseContext: func(net.Listener) context.Context { return base }}
	go e.server.Serve(o.Listener)
	return e
}

// URL is the engine's address without a path: http://127.0.0.1:port.
func (e *Engine) URL() string { return "http://" + e.listener.Addr().String() }

// Totals returns the books as they stand. They are final once Close has returned.
func (e *Engine) Totals() Totals {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.totals
}

// Book returns what was generated for each request so far, by the caller's X-Request-Id, in the order in which they came:
// what an outside judge compares with the ledger. It needs EngineOptions.Keep.
func (e *Engine) Book() map[string][]Work {
	e.mu.Lock()
	defer e.mu.Unlock()
	book := make(map[string][]Work, len(e.kept))
	for id, list := range e.kept {
		for _, w := range list {
			book[id] = append(book[id], *w)
		}
	}
	return book
}

// keep opens a page in the book for a request that has just come. It is there before anything is generated.
func (e *Engine) keep(id string) *Work {
	w := &Work{}
	if e.o.Keep {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.kept == nil {
			e.kept = map[string][]*Work{}
		}
		e.kept[id] = append(e.kept[id], w)
	}
	return w
}

// Running returns how many requests generate, and how many wait for a slot.
func (e *Engine) Running() (generating, waiting int64) { return e.running.Load(), e.waiting.Load() }

// Fault makes every nth request from here on fail in the named way; n = 0 ends that. It panics for an unknown name.
func (e *Engine) Fault(name string, n uint64) {
	if _, ok := faults[name]; !ok {
		panic("sim: no fault is called " + name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault, e.every, e.asked = name, n, 0
}

// Close breaks off what runs and waits for it to end.
func (e *Engine) Close() {
	e.cancel()
	e.server.Close()
	e.requests.Wait()
}

// struck returns the fault of the next request, "" for none.
func (e *Engine) struck() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.every == 0 || e.asked%e.every != 0 {
		return ""
	}
	return e.fault
}

// book adds what was just generated.
func (e *Engine) book(w *Work, t Tokens) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.totals.All.add(t)
	w.Tokens.add(t)
}

// end closes the books of one request.
func (e *Engine) end(w *Work, a Answer) {
	e.mu.Lock()
	w.Outcome = a.Outcome
	t := &e.totals
	t.Requests++
	switch a.Outcome {
	case Completed:
		t.Completed++
		t.Done.add(a.Tokens)
	case Aborted:
		t.Aborted++
	case Faulted:
		t.Faulted++
	case Refused:
		t.Refused++
	}
	e.mu.Unlock()
	if e.o.Watch != nil {
		e.o.Watch(a)
	}
}

// model finds a model by name.
func (e *Engine) model(name string) *Model {
	for i := range e.o.Models {
		if e.o.Models[i].Name == name {
			return &e.o.Models[i]
		}
	}
	return nil
}

func (m *Model) context() int64 {
	if m.ContextTokens > 0 {
		return m.ContextTokens
	}
	return 131_072
}

func realSleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
