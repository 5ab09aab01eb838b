package gateway

import (
	"sync/atomic"
	"time"

	"talea/internal/catalog"
	"talea/internal/engine"
	"talea/internal/world"
)

// fleet is how the engines are reached, and which of them failed of late.
type fleet struct {
	client   *engine.Client
	backends atomic.Pointer[map[string]*backend]
}

// backend is one engine.
type backend struct {
	*catalog.Engine
	dialect *engine.Dialect
	target  *engine.Target
	header  []byte // what every request carries, whole lines
	greets  engine.Request
	served  served
	// rest is until when the engine is asked last, in Unix nanoseconds: it failed. It is never refused for that.
	rest    atomic.Int64
	tells   atomic.Bool  // its running usage was seen to be true
	running atomic.Int64 // requests that it is working on, or was asked to
}

// restTime is how long an engine that failed is asked last.
const restTime = 5 * time.Second

func newFleet(o *Options) *fleet {
	return &fleet{client: engine.NewClient(engine.ClientOptions{
		Connect: o.Limits.Connect, Header: o.Limits.Header, MaxIdle: 1024, Dial: o.Dial,
		IdleFor: 3 * time.Second, // engines in Python close idle connections after 5
	})}
}

func (f *fleet) close() { f.client.CloseIdle() }

// follow takes over the engines of a snapshot. An engine that has not changed keeps its state.
func (f *fleet) follow(s *world.Snapshot) {
	next := map[string]*backend{}
	old := f.backends.Load()
	for _, e := range s.Engines() {
		if old != nil {
			if b := (*old)[e.Name]; b != nil && *b.Engine == *e {
				next[e.Name] = b
				continue
			}
		}
		next[e.Name] = newBackend(e)
	}
	f.backends.Store(&next)
}

func newBackend(e *catalog.Engine) *backend {
	b := &backend{Engine: e, header: []byte("Content-Type: application/json\r\nUser-Agent: talea\r\n")}
	if e.APIKey != "" {
		b.header = append(append(append(b.header, "Authorization: Bearer "...), e.APIKey...), "\r\n"...)
	}
	b.greets = engine.Request{Method: "GET", Path: "/v1/models", Header: b.header}
	b.dialect, _ = engine.ByName(e.Kind) // world has checked the kind
	b.target, _ = engine.ParseTarget(e.URL)
	return b
}

// order returns the engines of an offering in the order in which they are asked.
func (f *fleet) order(dst []*backend, engines []*catalog.Engine, now int64) []*backend {
	all := *f.backends.Load()
	if len(engines) == 1 { // nothing to choose
		if b := all[engines[0].Name]; b != nil {
			dst = append(dst, b)
		}
		return dst
	}
	var few [8]catalog.Candidate
	candidates := few[:0]
	for _, e := range engines {
		if b := all[e.Name]; b != nil {
			candidates = append(candidates, catalog.Candidate{Engine: b.Engine, Running: b.running.Load(), Down: b.rest.Load() > now})
		}
	}
	catalog.Order(candidates)
	for _, c := range candidates {
		dst = append(dst, all[c.Engine.Name])
	}
	return dst
}

var contentJSON = []string{"application/json"}
