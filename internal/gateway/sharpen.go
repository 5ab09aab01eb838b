package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/usage"
	"talea/internal/world"
)

// The bound of a prompt is several times what it needs. Where that makes a limit short, the engine's own count is asked
// for, once, so that a budget for twenty requests serves twenty. It is believed only of an engine whose count of an earlier
// prompt was what it then used, and only of prompts of that kind: text, without what templates write anew.

// countPatience is how long an engine's count may take, with the wait for other counts of the same key.
const countPatience = 5 * time.Second

// maxCount bounds the answer to a count: a list of tokens, in bytes.
const maxCount = 64 << 20

// plainMembers are the members of requests that have no part in the prompt, and those that are all of it.
var plainMembers = map[string]bool{
	"model": true, "messages": true, "prompt": true, "stream": true, "stream_options": true, "n": true, "best_of": true,
	"max_tokens": true, "max_completion_tokens": true, "n_predict": true, "min_tokens": true, "ignore_eos": true,
	"temperature": true, "top_p": true, "top_k": true, "min_p": true, "seed": true, "stop": true,
	"frequency_penalty": true, "presence_penalty": true, "repetition_penalty": true, "logprobs": true, "top_logprobs": true, "logit_bias": true,
	"user": true, "safety_identifier": true, "metadata": true, "store": true, "service_tier": true,
}

// countable returns the member that is the whole prompt, nil where there is more to it.
func (q *request) countable() *member {
	if s := &q.shape; q.endpoint.embedding || s.Images+s.Audios+s.RewrittenBytes > 0 || s.Prompts != 1 {
		return nil
	}
	for i := range q.members {
		if m := &q.members[i]; !plainMembers[string(m.name)] && m.kind != jsonscan.Null {
			return nil
		}
	}
	m := q.find(q.endpoint.content)
	if m == nil || string(m.name) == "prompt" && m.kind != jsonscan.String {
		return nil
	}
	return m
}

// proof says whether an engine's counts can be relied on.
type proof struct {
	done  chan struct{} // closed when it is known
	right bool          // valid once done is closed
}

// counts reports whether an engine's counts were seen to be right. It does not wait.
func (e *experience) counts(kind engine.Endpoint, b *backend) bool {
	if v, ok := e.proofs[kind].Load(b); ok {
		p := v.(*proof)
		select {
		case <-p.done:
			return p.right
		default:
		}
	}
	return false
}

// prove compares, once for each engine, model and endpoint, what the engine counts of a prompt with what it used. It does so beside
// the request, whose answer does not wait for it.
func (x *exchange) prove(used int64) {
	b, proofs := x.answer.backend, &x.experience().proofs[x.req.endpoint.kind]
	if _, known := proofs.Load(b); known || b == nil || b.dialect.TokenizePath == "" {
		return
	}
	m := x.req.countable()
	if m == nil {
		return
	}
	p := &proof{done: make(chan struct{})}
	if _, known := proofs.LoadOrStore(b, p); known {
		return
	}
	c := x.question(b, m)
	c.value = append([]byte(nil), c.value...) // the body is used again
	g := x.g
	g.proofs.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), countPatience)
		defer cancel()
		n, err := c.ask(ctx, g)
		if err != nil && !errors.Is(err, errNoCount) {
			proofs.Delete(b) // it could not be asked: the next answer may tell
		}
		p.right = err == nil && n == used
		close(p.done)
		g.log.Debug("an engine's count of a prompt was compared", "engine", b.Name, "counted", n, "used", used, "error", err)
	})
}

// compare looks at what an engine says that the prompt had, beside its bound.
func (x *exchange) compare(rec *usage.Record) {
	if rec.Counts.Input() > x.inputBound {
		x.quarantine(rec)
	}
	if n := rec.Counts.Input(); n > x.bounds.Input && x.counted {
		x.experience().disprove(x.req.endpoint.kind, x.answer.backend)
		x.g.log.Error("alarm: an engine used more of a prompt than it had counted; its counts are not believed any more",
			"request", x.id.String(), "engine", rec.Engine, "model", rec.Subject.Model, "counted", x.bounds.Input, "used", n)
	}
}

// quarantine takes a model out of service of which an engine has counted more than its bound: what is held for it is no
// longer the most that it can cost. What was above is the operator's loss.
func (x *exchange) quarantine(rec *usage.Record) {
	model, n := rec.Subject.Model, rec.Counts.Input()
	x.g.counters.OverBound.Add(1)
	x.g.log.Error("alarm: an engine counted more of a prompt than its bound; the model is out of service until it is released",
		"request", x.id.String(), "engine", rec.Engine, "model", model, "bound", x.inputBound, "counted", n)
	why := world.Quarantine{Engine: rec.Engine, Request: x.id.String(), Counted: n, Bound: x.inputBound, At: rec.Result.At}
	if err := x.g.World.Quarantine(context.WithoutCancel(x.ctx), model, why); err != nil {
		x.g.log.Error("cannot take the model out of service", "model", model, "error", err)
	}
}

// disprove ends the trust in an engine's counts.
func (e *experience) disprove(kind engine.Endpoint, b *backend) {
	p := &proof{done: make(chan struct{})}
	close(p.done)
	e.proofs[kind].Store(b, p)
}

// sharpen makes the bound of the prompt what an engine counts. It reports whether that makes the request smaller.
func (x *exchange) sharpen(short *ledger.Short) bool {
	m := x.req.countable()
	if x.sharpened || m == nil || !x.floorFits(short) {
		return false
	}
	x.sharpened = true
	n, ok := x.engineCount(m)
	if !ok || n >= x.bounds.Input {
		return false
	}
	bounds := x.bounds
	bounds.Input = n
	most, err := x.ceiling(bounds)
	if err != nil {
		return false
	}
	x.bounds, x.money, x.counted = bounds, most, true
	x.ask.Bounds, x.ask.Money = bounds, most
	if x.ask.Less.Least > 0 {
		x.unbounded()
	}
	return true
}

// engineCount asks an engine whose counts can be relied on how many tokens a prompt has.
func (x *exchange) engineCount(m *member) (n int64, ok bool) {
	ctx, cancel := context.WithTimeout(x.ctx, countPatience)
	defer cancel()
	b := x.counter(ctx)
	if b == nil {
		return 0, false
	}
	gate, _ := x.g.counting.LoadOrStore(x.key.Public, make(chan struct{}, 1))
	select {
	case gate.(chan struct{}) <- struct{}{}:
	case <-ctx.Done():
		return 0, false
	}
	n, err := x.question(b, m).ask(ctx, x.g)
	<-gate.(chan struct{})
	return n, err == nil
}

// floorFits reports whether the request could fit the limit if its prompt were as short as can be.
func (x *exchange) floorFits(s *ledger.Short) bool {
	bounds := x.bounds
	bounds.Input = min(bounds.Input, 1)
	switch least := x.ask.Less.Least; {
	case x.key.Account.Clamp:
		bounds.Output = min(bounds.Output, engine.LeastOutput*x.answers())
	case least > 0:
		bounds.Output = min(bounds.Output, min(least, max(1, x.experience().usual()))*x.answers())
	}
	cost, err := x.ceiling(bounds)
	need := quota.Need{Money: cost, Bounds: bounds, Work: x.offer.Subject.Work}
	return err == nil && s.Used.Add(need.Of(s.Limit.Measure)).Cmp(s.Limit.Amount) <= 0
}

// counter returns an engine of the offering whose counts can be relied on, nil where there is none. It waits for a proof
// that is under way.
func (x *exchange) counter(ctx context.Context) *backend {
	all, e := *x.g.fleet.backends.Load(), x.experience()
	for _, o := range x.offer.Engines {
		b := all[o.Name]
		if b == nil {
			continue
		}
		if v, ok := e.proofs[x.req.endpoint.kind].Load(b); ok {
			select {
			case <-v.(*proof).done:
			case <-ctx.Done():
			}
		}
		if e.counts(x.req.endpoint.kind, b) {
			return b
		}
	}
	return nil
}

// count is one question to an engine: how many tokens has this prompt?
type count struct {
	*backend
	model, member string
	value         []byte
}

func (x *exchange) question(b *backend, m *member) count {
	return count{b, x.offer.Model.ServedAs, string(m.name), x.req.at(m.value)}
}

var errNoCount = errors.New("the engine does not say how many tokens the prompt has")

func (c count) ask(ctx context.Context, g *Gateway) (int64, error) {
	value := c.value
	if c.dialect.TemplatePath != "" && c.member == "messages" {
		body, err := c.post(ctx, g, c.dialect.TemplatePath, c.dialect.AppendTemplate(nil, value))
		if err != nil {
			return 0, err
		}
		if value = engine.ReadTemplate(body); value == nil {
			return 0, errNoCount
		}
	}
	body, err := c.post(ctx, g, c.dialect.TokenizePath, c.dialect.AppendCount(nil, c.model, c.member, value))
	if err != nil {
		return 0, err
	}
	n, ok := engine.ReadCount(body)
	if !ok {
		return 0, errNoCount
	}
	return n, nil
}

// post asks one route of the engine.
func (c count) post(ctx context.Context, g *Gateway, path string, body []byte) ([]byte, error) {
	if c.target == nil {
		return nil, errNoTarget
	}
	resp, err := g.fleet.client.Do(ctx, c.target, &engine.Request{Method: http.MethodPost, Path: path, Header: c.header, Body: body})
	if err != nil {
		return nil, err
	}
	defer resp.Close()
	if resp.Status != http.StatusOK || resp.ContentEncoding != "" {
		return nil, errNoCount
	}
	return readAll(nil, resp, resp.ContentLength, maxCount, func(int64) error { return ctx.Err() })
}
