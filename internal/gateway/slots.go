package gateway

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"talea/internal/catalog"
	"talea/internal/refusal"
)

// slots keep each model to the number of requests at a time that its max_concurrent says. Who finds none waits in line:
// first whose service tier is dearest, and of equals who came first. Nothing is held for who waits.
type slots struct {
	mu    sync.Mutex       // guards all below, and all lines
	lines map[string]*line // by model
}

// line is the requests of one model.
type line struct {
	most    int64
	below   int64 // parts per million of most: while less of it runs, tiers below list price are served
	running int64
	waiting []*place // in the order in which they are served
}

// place is one request in a line.
type place struct {
	rank  int64         // the multiplier of its tier, in parts per million
	ready chan struct{} // closed when it has its slot
}

const (
	atListPrice = 1_000_000
	maxWaiting  = 1024 // requests before one in its line: one more is refused
)

// free reports whether there is a slot for a rank. Tiers below list price wait until the load, which is the share of slots
// that are taken, is below a threshold. A tenth of the slots, and at least one where there are two, is never for them:
// however many of those run, a request at list price waits for its equals only.
func (l *line) free(rank int64) bool {
	if rank >= atListPrice {
		return l.running < l.most
	}
	if l.most > 1 && l.running >= l.most-max(1, l.most/10) {
		return false
	}
	return l.running*1_000_000 < l.most*l.below
}

// rankOf is the place of a service tier in a line: its multiplier, and batch behind all that pay as little.
func rankOf(tier string, ppm int64) int64 {
	if tier == "batch" {
		return min(ppm, atListPrice) - 1
	}
	return ppm
}

// take takes a slot of a model for a tier, and says whether it had to wait. A nil line is that there was none in time.
func (s *slots) take(ctx context.Context, m *catalog.Model, rank int64, patience time.Duration) (l *line, waited bool) {
	s.mu.Lock()
	if l = s.lines[m.Name]; l == nil {
		l = &line{}
		s.lines[m.Name] = l
	}
	l.most, l.below = m.MaxConcurrent, cmp.Or(m.FlexBelowPPM, catalog.DefaultFlexBelow)
	at := 0
	for at < len(l.waiting) && l.waiting[at].rank >= rank {
		at++
	}
	if at == 0 && l.free(rank) {
		l.running++
		s.mu.Unlock()
		return l, false
	}
	if at >= maxWaiting {
		s.mu.Unlock()
		return nil, false
	}
	p := &place{rank, make(chan struct{})}
	l.waiting = slices.Insert(l.waiting, at, p)
	s.mu.Unlock()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.ready:
		return l, true
	case <-ctx.Done():
	case <-late.C:
	}
	if !s.leave(l, p) { // it came at the last moment
		s.give(l)
	}
	return nil, true
}

// leave takes a place out of its line, and reports whether it was still in it.
func (s *slots) leave(l *line, p *place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(l.waiting, p)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	return i >= 0
}

// give gives a slot back, to whom it is next for.
func (s *slots) give(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.running--
	for len(l.waiting) > 0 && l.free(l.waiting[0].rank) {
		l.running++
		close(l.waiting[0].ready)
		l.waiting = slices.Delete(l.waiting, 0, 1)
	}
}

// enter waits for a slot of the model, if it has only so many. Who has waited is looked at anew: its key, the offering and
// the price are those of now.
func (x *exchange) enter() error {
	if x.offer.Model.MaxConcurrent == 0 {
		return nil
	}
	ppm, sold := x.offer.Book.Tier(x.req.served(), x.asOf)
	if !sold {
		return nil // the next hop refuses it
	}
	rank := rankOf(x.req.served(), ppm)
	patience := x.g.Limits.Queue
	if rank < atListPrice {
		patience *= 10
	}
	l, waited := x.g.slots.take(x.ctx, x.offer.Model, rank, patience)
	if l == nil {
		if gone := x.whyCut(); gone != nil {
			return gone
		}
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "Every slot of this model is taken, and this request has waited for one as long as it may. Nothing was charged."}
	}
	x.slot = l
	if !waited {
		return nil
	}
	now := x.g.World.Current()
	if ended(now, x.key) {
		return refusal.New(refusal.KeyRevoked, "This API key has been revoked.")
	}
	x.g.mu.Lock() // cut reads it
	x.key = now.ByHash(x.key.Hash)
	x.g.mu.Unlock()
	x.asOf, x.snap = x.g.Clock.Now(), now
	return x.resolve()
}

// leave gives the slot back: the engine has done with the request.
func (x *exchange) leave() {
	if x.slot != nil {
		x.g.slots.give(x.slot)
		x.slot = nil
	}
}
