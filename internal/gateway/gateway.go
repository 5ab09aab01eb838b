// Package gateway is the tenants' data path: it takes a request, checks it, holds what it can cost, forwards it, meters
// the answer while it flows, settles it, and only then ends it. It does not decide prices (rating), limits (quota, ledger)
// or who may do what (identity, world), and it changes nothing of the world (admin does).
//
// # Invariants
//
//   - No byte of a request reaches an engine before its hold is durable; no end of an answer reaches a client before its
//     settlement is durable.
//   - After a hold every way out settles it, exactly once, a panic included.
//   - The routes are the allow-list in routes; everything else is a JSON 404. Each says how it is metered or why it is free.
//   - Only error.go writes a 4xx or 5xx.
//   - No content of a request or an answer is logged, recorded or shown in an error.
//   - The caller's key never reaches an engine.
//
// To add a route: a row in routes. To add a member that bounds or multiplies: a row in readers (members.go).
//
// Start reading at exchange.serve.
package gateway

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/engine"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/refusal"
	"talea/internal/tape"
	"talea/internal/usage"
	"talea/internal/world"
)

// Options of New. All are needed but Log, Dial and Tape.
type Options struct {
	World  *world.World
	Ledger *ledger.Ledger
	Hasher *identity.Hasher
	Clock  ledger.Clock
	Node   int64 // number of this process, in request ids
	Log    *slog.Logger
	Limits Limits
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // to engines; nil is TCP
	Tape   *tape.Tape                                                           // nil: no price follows the load
}

// Limits are the times and sizes that bound one request. Zero values take the defaults.
type Limits struct {
	Connect  time.Duration // to an engine: 2 s
	Header   time.Duration // from a request's last byte to an engine's first, and from there to a stream's first event: 10 min
	Idle     time.Duration // between two later reads of an answer: 60 s
	Write    time.Duration // for a client to take what was sent: 60 s
	Queue    time.Duration // for a slot of a model that has only so many: 1 min, ten times that in a tier below list price
	Body     time.Duration // for a body to arrive, beside 1 s for each 32 KiB: 10 s
	MaxBytes int64         // of an answer that is not streamed: 64 MiB
	// Whole are bounds above which a whole answer is asked for as a stream, of engines that tell running usage: so it is metered
	// from its first token, and a hang-up or a break finds what was used. 4,096 tokens of input, 256 of output; Joint is not read.
	Whole  usage.Bounds
	Bodies int64 // of all request bodies above 64 KiB together, while they are in the path: 1 GiB
}

func (l *Limits) defaults() {
	for _, f := range []struct {
		at    *time.Duration
		value time.Duration
	}{{&l.Connect, 2 * time.Second}, {&l.Header, 10 * time.Minute}, {&l.Idle, time.Minute}, {&l.Write, time.Minute}, {&l.Queue, time.Minute}, {&l.Body, 10 * time.Second}} {
		if *f.at == 0 {
			*f.at = f.value
		}
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = 64 << 20
	}
	if l.Whole == (usage.Bounds{}) {
		l.Whole = usage.Bounds{Input: 4096, Output: 256}
	}
	if l.Bodies == 0 {
		l.Bodies = 1 << 30
	}
}

// Gateway serves the tenants' port.
type Gateway struct {
	Options
	log         *slog.Logger
	ids         *ledger.Minter
	paces       paces
	retries     retries
	fleet       *fleet
	slots       slots
	counting    sync.Map                               // name of a key → chan struct{}: held while an engine counts for it
	proofs      sync.WaitGroup                         // engines' counts that are being compared
	experiences atomic.Pointer[map[string]*experience] // by model
	rows        sync.Map                               // *world.Offer or tiered → *stepRow, for the current snapshot
	metered     []*endpoint                            // of routes
	pool        sync.Pool
	draining    atomic.Bool
	shedding    atomic.Bool // there is no memory for more
	counters    Counters
	bodies      atomic.Int64 // bytes of large request bodies in the path

	mu     sync.Mutex // guards active
	active map[*exchange]struct{}
}

// Counters count what has been answered since the start.
type Counters struct {
	Requests, Completed, Refused, Broken, ClientGone atomic.Int64
	OverBound                                        atomic.Int64     // prompts that an engine counted above their bound
	ByRefusal                                        [64]atomic.Int64 // by refusal.Code
}

// New makes a gateway. It follows the changes of the world from here on.
func New(o Options) *Gateway {
	o.Limits.defaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		Options: o, log: o.Log, ids: ledger.NewMinter(o.Node),
		paces: paces{state: map[accountID]*pace{}}, active: map[*exchange]struct{}{},
		retries: retries{seed: maphash.MakeSeed()},
	}
	for i := range routes {
		if routes[i].metered != "" {
			g.metered = append(g.metered, &routes[i])
		}
	}
	g.slots.lines = map[string]*line{}
	g.fleet = newFleet(&g.Options)
	g.pool.New = func() any { return &exchange{g: g} }
	o.World.OnSwap(g.swapped)
	g.fleet.follow(o.World.Current())
	g.followModels(o.World.Current())
	return g
}

// Drain refuses what is new; what runs goes on.
func (g *Gateway) Drain() { g.draining.Store(true) }

// Shed refuses new requests while it is on, since there is no memory for more.
func (g *Gateway) Shed(on bool) { g.shedding.Store(on) }

// Counters shows the counts.
func (g *Gateway) Counters() *Counters { return &g.counters }

// Running counts the requests that are in the path.
func (g *Gateway) Running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.active)
}

// Close lets idle connections to engines go. Call it after the last request.
func (g *Gateway) Close() {
	g.proofs.Wait()
	g.fleet.close()
}

// Abort ends what still runs: each stream gets an error event and is settled.
func (g *Gateway) Abort() { g.cut(errDraining, func(*exchange) bool { return true }) }

var (
	errRevoked  = errors.New("key revoked")
	errDraining = errors.New("draining")
	errIdle     = errors.New("engine was silent for too long")
)

// cut ends running requests for a reason.
func (g *Gateway) cut(why error, which func(*exchange) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := range g.active {
		if which(x) {
			x.cancel(why)
		}
	}
}

// swapped looks at what runs after each change of the world: a revoked key or a suspended account is cut at once.
func (g *Gateway) swapped(_, now *world.Snapshot) {
	g.rows.Clear()
	g.fleet.follow(now)
	g.followModels(now)
	g.cut(errRevoked, func(x *exchange) bool { return ended(now, x.key) })
}

// ended reports whether a key may no longer be used.
func ended(now *world.Snapshot, key *world.Key) bool {
	k := now.ByHash(key.Hash)
	return k == nil || k.Revoked || k.Account.Suspended
}

// endpoint is one row of the allow-list.
type endpoint struct {
	path      string
	method    string
	name      string // on records; "" for free routes
	kind      engine.Endpoint
	content   string // the member that must be there
	embedding bool
	metered   string // how; or
	free      string // why
	serve     func(*exchange) error
}

// routes is the allow-list of the data port. Paths are compared byte for byte with the request line: no cleaning, no
// decoding, no redirects. A path that ends in "/" takes what follows as one name.
var routes = []endpoint{
	{path: "/v1/chat/completions", method: "POST", name: "chat", kind: engine.Chat, content: "messages", metered: "tokens by class", serve: (*exchange).serve},
	{path: "/v1/completions", method: "POST", name: "completions", kind: engine.Completions, content: "prompt", metered: "tokens by class", serve: (*exchange).serve},
	{path: "/v1/embeddings", method: "POST", name: "embeddings", kind: engine.Embeddings, content: "input", embedding: true, metered: "input tokens", serve: (*exchange).serve},
	{path: "/v1/models", method: "GET", free: "lists what the key may use; works when a budget is used up", serve: (*exchange).listModels},
	{path: "/v1/models/", method: "GET", free: "one model of that list", serve: (*exchange).oneModel},
	{path: "/v1/estimate", method: "POST", free: "what a request would cost, which is not sent; needs a key, is within its rate of requests, and works when a budget is used up", serve: (*exchange).estimate},
	{path: "/v1/usage/", method: "GET", free: "the receipt of one's own request", serve: (*exchange).receipt},
	{path: "/healthz", method: "GET", free: "for load balancers; no key, no detail", serve: (*exchange).healthz},
	{path: "/readyz", method: "GET", free: "for load balancers; no key, no detail", serve: (*exchange).readyz},
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := g.pool.Get().(*exchange)
	x.begin(w, r)
	defer func() {
		if p := recover(); p != nil {
			x.panicked(p)
		}
		x.end()
		g.pool.Put(x)
	}()
	g.counters.Requests.Add(1)
	ep, no := find(r)
	if no == nil {
		x.ep = ep
		no = x.refusalOrNil(ep.serve(x))
	}
	if no != nil {
		x.refuse(no)
	}
}

// find matches the request line against the allow-list.
func find(r *http.Request) (*endpoint, *refusal.Refusal) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	for i := range routes {
		ep := &routes[i]
		if name, under := strings.CutPrefix(path, ep.path); path != ep.path && !(under && strings.HasSuffix(ep.path, "/")) || under && name == "" && strings.HasSuffix(ep.path, "/") {
			continue
		}
		if r.Method != ep.method {
			return nil, refusal.New(refusal.MethodNotAllowed, "Use "+ep.method+" on "+ep.path+".")
		}
		return ep, nil
	}
	return nil, refusal.New(refusal.NotFound, "There is no such route here. The routes are: "+routeList+".")
}

var routeList = func() string {
	var list []string
	for _, ep := range routes {
		list = append(list, ep.method+" "+ep.path)
	}
	return strings.Join(list, ", ")
}()

// stepRow is the price row of an offering at a step of the price tape, 0 for none.
type stepRow struct {
	price.Row
	step int64
}

// tiered is an offering at another service tier than the standard one.
type tiered struct {
	offer *world.Offer
	tier  string
}

// row returns the price row of an offering at a service tier and an instant.
func (g *Gateway) row(o *world.Offer, tier string, at time.Time) (*price.Row, error) {
	var key any = o
	if tier != price.Standard {
		key = tiered{o, tier}
	}
	_, step := g.Tape.At(o.Book, at)
	if v, ok := g.rows.Load(key); ok {
		if r := v.(*stepRow); r.step == step && r.Holds(at) {
			return &r.Row, nil
		}
	}
	r, err := g.rowAt(o, tier, at)
	if err != nil {
		return nil, err
	}
	g.rows.Store(key, r)
	return &r.Row, nil
}

// rowAt finds the price row of an offering at a service tier and any instant. It is not kept.
func (g *Gateway) rowAt(o *world.Offer, tier string, at time.Time) (*stepRow, error) {
	ppm, step := g.Tape.At(o.Book, at)
	var under []int64
	if step > 0 {
		under = []int64{ppm}
	}
	q := o.Query
	q.Tier = tier
	row, err := o.Book.Row(q, at, under...)
	if err != nil {
		return nil, err
	}
	if step > 0 {
		row.AtStep(step)
	}
	return &stepRow{row, step}, nil
}

// errClientGone is what a request's context says when its client has gone.
var errClientGone = context.Canceled
