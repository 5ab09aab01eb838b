package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"talea/internal/catalog"
	"talea/internal/engine"
	"talea/internal/world"
)

// fleet is how the engines are reached, and which of them failed of late.
type fleet struct {
	transport *http.Transport
	backends  atomic.Pointer[map[string]*backend]
}

// backend is one engine.
type backend struct {
	*catalog.Engine
	dialect *engine.Dialect
	urls    [3]*url.URL // by engine.Endpoint
	header  http.Header // what every request carries; read-only
	// rest is until when the engine is asked last, in Unix nanoseconds: it failed. It is never refused for that.
	rest    atomic.Int64
	running atomic.Int64 // requests that it is working on, or was asked to
}

// restTime is how long an engine that failed is asked last.
const restTime = 5 * time.Second

func newFleet(l *Limits) *fleet {
	dialer := &net.Dialer{Timeout: l.Connect, KeepAlive: 30 * time.Second}
	return &fleet{transport: &http.Transport{
		// No Proxy: nothing leaves but to the engines that the operator named.
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if tcp, ok := c.(*net.TCPConn); ok {
				// A connection that is given up is reset: after a polite close an engine goes on generating until it writes.
				tcp.SetLinger(0)
			}
			return c, err
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    l.Connect * 2,
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  l.Header,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}}
}

func (f *fleet) close() { f.transport.CloseIdleConnections() }

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
	b := &backend{Engine: e, header: http.Header{
		"Content-Type": contentJSON,
		"User-Agent":   {"talea"},
	}}
	if e.APIKey != "" {
		b.header["Authorization"] = []string{"Bearer " + e.APIKey}
	}
	b.dialect, _ = engine.ByName(e.Kind) // world has checked the kind and the URL
	for _, kind := range []engine.Endpoint{engine.Chat, engine.Completions, engine.Embeddings} {
		b.urls[kind], _ = url.Parse(e.URL + kind.Path())
	}
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
