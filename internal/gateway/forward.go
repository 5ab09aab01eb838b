package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"talea/internal/crash"
	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/refusal"
	"talea/internal/usage"
)

// maxAttempts bounds the tries of one request.
const maxAttempts = 4

// answer is what an engine has begun to say.
type answer struct {
	*engine.Response
	backend *backend
	gather  bool // the engine streams what the client wants whole
}

// admit checks the request against the dialects of the offering's engines. One that cannot take it is not asked; if none
// can, the first one's reason is the answer.
func (x *exchange) admit() error {
	var first *refusal.Refusal
	for _, e := range x.offer.Engines {
		d, ok := engine.ByName(e.Kind)
		if !ok {
			continue
		}
		no := x.req.admit(d)
		if no == nil {
			return nil
		}
		if first == nil {
			first = no
		}
	}
	if first == nil {
		return refusal.New(refusal.EngineUnavailable, "No engine is set up for this model.")
	}
	return first
}

// forward asks the engines in turn until one answers. Only before its first byte can another one take over.
func (x *exchange) forward() error {
	var few [maxAttempts]*backend
	order := x.g.fleet.order(few[:0], x.offer.Engines, x.g.Clock.Now().UnixNano())
	x.result.Attempts = x.tries[:0]
	busy := false
	var speaks *engine.Dialect
	for i := 0; i < len(order) && len(x.result.Attempts) < maxAttempts; i++ {
		b := order[i]
		if x.counted && !x.experience().counts(x.ep.kind, b) {
			continue // its count of this prompt may be another
		}
		if allowed := x.allowed(b); b.dialect != speaks || allowed != x.forwarded {
			if x.req.admit(b.dialect) != nil {
				continue
			}
			x.forwarded = allowed
			x.send, x.answer.gather = x.compose(x.send[:0], b)
			speaks = b.dialect
		}
		began := x.g.Clock.Now()
		b.running.Add(1)
		resp, err := x.askEngine(b)
		try := usage.Attempt{Engine: b.Name, Micros: x.g.Clock.Now().Sub(began).Microseconds()}
		if err == nil {
			try.Status = resp.Status
		}
		if try.Status == http.StatusOK {
			x.result.Attempts = append(x.result.Attempts, try)
			return x.served(b, resp) // it is running until the answer is read
		}
		b.running.Add(-1)
		if err != nil {
			if gone := x.whyCut(); gone != nil {
				return gone
			}
			try.Fault = faultOf(err)
		} else if try.Fault = "status"; !failsOver(resp.Status) {
			x.result.Attempts = append(x.result.Attempts, try)
			return x.engineRefused(resp)
		} else {
			busy = busy || resp.Status == http.StatusTooManyRequests
			resp.Close()
		}
		if err != errModelChanged {
			b.rest.Store(x.g.Clock.Now().Add(restTime).UnixNano())
		}
		x.result.Attempts = append(x.result.Attempts, try)
		crash.At(crash.AttemptFailed)
	}
	if last := len(x.result.Attempts) - 1; last >= 0 && x.result.Attempts[last].Fault == "timeout" {
		return refusal.New(refusal.EngineTimeout, "No engine for this model answered in time. Nothing was charged.")
	}
	if last := len(x.result.Attempts) - 1; last >= 0 && x.result.Attempts[last].Fault == errModelChanged.Fault() {
		return refusal.At(refusal.ModelChanged, "model", "The engines for this model serve another one under its name: an operator has to look. Nothing was charged.")
	}
	if busy {
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "Every engine for this model is busy. Nothing was charged."}
	}
	return refusal.New(refusal.EngineUnavailable, "No engine for this model could be reached. Nothing was charged.")
}

// failsOver says for which statuses another engine is asked: those that are about the engine, not about the request.
func failsOver(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return false
	}
	return true
}

// served notes which engine answers, and looks at the answer's form before any of it is relayed.
func (x *exchange) served(b *backend, resp *engine.Response) error {
	b.rest.Store(0)
	x.answer.Response, x.answer.backend = resp, b
	r := &x.result
	r.Engine, r.EngineKind, r.EngineVersion, r.Region = b.Name, b.Kind, b.Version, b.Region
	r.GPUKind, r.GPUCount, r.TierServed = b.GPUKind, b.GPUCount, x.req.served()
	r.FirstMicros = x.g.Clock.Now().Sub(x.started).Microseconds()
	const whole = "application/json"
	if x.answer.gather && !x.mustGather(b.dialect) && strings.HasPrefix(resp.ContentType, whole) {
		x.answer.gather = false // it does not stream, which only we wanted
	}
	want := whole
	if x.req.stream || x.answer.gather {
		want = "text/event-stream"
	}
	if resp.ContentEncoding != "" || !strings.HasPrefix(resp.ContentType, want) {
		resp.Close()
		b.running.Add(-1)
		r.Outcome, r.Fault = usage.Broken, usage.Engine
		return refusal.New(refusal.EngineUnavailable, "The engine answered in a form that cannot be metered. Nothing was charged.")
	}
	return nil
}

// askEngine sends the composed body to one engine.
func (x *exchange) askEngine(b *backend) (*engine.Response, error) {
	if b.target == nil {
		return nil, errNoTarget
	}
	h := append(append(x.head[:0], b.header...), "X-Request-Id: "...)
	h = append(append(h, x.w.Header()["X-Request-Id"][0]...), "\r\n"...)
	if t := x.r.Header["Traceparent"]; len(t) == 1 && len(t[0]) == 55 && printable(t[0]) {
		h = append(append(append(h, "Traceparent: "...), t[0]...), "\r\n"...)
	}
	if b.dialect.ClosesStreams && (x.req.stream || x.answer.gather) {
		h = append(h, "Connection: close\r\n"...)
	}
	x.head = h
	x.asking = b
	x.out = engine.Request{Method: http.MethodPost, Path: x.ep.kind.Path(), Header: h, Body: x.send, Before: &b.greets, Greeter: x, Fresh: b.served.changed(x.offer.Model)}
	return x.g.fleet.client.Do(x.ctx, b.target, &x.out)
}

var errNoTarget = errors.New("the engine's URL cannot be used")

// faultOf is the word for a failed attempt on the record.
func faultOf(err error) string {
	var known interface{ Fault() string }
	if errors.As(err, &known) {
		return known.Fault()
	}
	return "connect"
}

// whyCut says why the request's context has ended: nil while it has not. The outcome is noted.
func (x *exchange) whyCut() error {
	if x.ctx.Err() == nil {
		return nil
	}
	r := &x.result
	switch cause := context.Cause(x.ctx); {
	case errors.Is(cause, errRevoked):
		r.Outcome, r.Fault = usage.Revoked, usage.Client
		return refusal.New(refusal.KeyRevoked, "This API key has been revoked.")
	case errors.Is(cause, errDraining):
		r.Outcome, r.Fault = usage.Broken, usage.Gateway
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "This gateway is shutting down: try again, another one will answer."}
	case errors.Is(cause, errIdle):
		r.Outcome, r.Fault = usage.Broken, usage.Engine
		return refusal.New(refusal.EngineTimeout, "The engine fell silent. By the tariff's rule for faults of ours, this answer is not charged unless your contract says so.")
	}
	r.Outcome, r.Fault = usage.ClientGone, usage.Client
	return errClientGone
}

// engineRefused passes on that an engine refused the request. Its text may quote the request, so only its name for the
// reason is told.
func (x *exchange) engineRefused(resp *engine.Response) error {
	defer resp.Close()
	defer x.watchSilence(x.g.Limits.Idle).Stop()
	b, _ := readAll(x.buf[:0], resp, -1, 64<<10, func(int64) error { return nil }) // what cannot be read is not told
	x.buf = b
	x.result.Outcome, x.result.Fault = usage.EngineSaid, usage.Client
	reason := ""
	jsonscan.Each(b, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if string(name) == "error" && kind == jsonscan.Object {
			reason = errorName(b[v.Start:v.End])
		}
		return true
	})
	msg := "The engine refused this request with status " + strconv.Itoa(resp.Status)
	if reason != "" {
		msg += " (" + reason + ")"
	}
	return &refusal.Refusal{Code: refusal.EngineRefused, Status: resp.Status, Message: msg + ". Nothing was charged."}
}

// errorName is the `type` or string `code` of an engine's error, if it looks like a name.
func errorName(b []byte) (name string) {
	jsonscan.Each(b, func(key []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if kind == jsonscan.String && (string(key) == "type" || string(key) == "code" && name == "") {
			if text := b[v.Start+1 : v.End-1]; isName(text) {
				name = string(text)
			}
		}
		return true
	})
	return name
}

func isName(b []byte) bool {
	for _, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && (c < '0' || c > '9') {
			return false
		}
	}
	return len(b) > 0 && len(b) <= 64
}

// compose writes the body for one engine: the members as the client sent them, byte for byte, but for those that are ours.
// gather says that the engine is asked to stream what the client wants whole.
func (x *exchange) compose(b []byte, to *backend) (out []byte, gather bool) {
	q, d := &x.req, to.dialect
	gather = x.gathers(d)
	b = append(b, `{"model":`...)
	b = jsonscan.AppendQuote(b, x.offer.Model.ServedAs)
	bound := d.BoundMember(q.endpoint.kind)
	for i := range q.members {
		m := &q.members[i]
		row := d.Member(q.endpoint.kind, m.name)
		if d.BoundAsAsked && row.Rule == engine.OutputMax && m.kind != jsonscan.Null {
			bound = string(m.name)
		}
		if row.Class == engine.Ours || row.Rule == engine.OutputMax || isOurs(m.name) {
			continue
		}
		b = append(b, ',')
		b = append(jsonscan.AppendQuote(b, string(m.name)), ':')
		b = append(b, q.at(m.value)...)
	}
	if bound != "" {
		b = append(jsonscan.AppendQuote(append(b, ','), bound), ':')
		b = strconv.AppendInt(b, x.forwarded/x.answers(), 10)
	}
	if q.stream || gather {
		b = append(b, `,"stream":true,"stream_options":{"include_usage":true`...)
		if d.Running == engine.OptionRunning {
			b = append(b, `,"continuous_usage_stats":true`...)
		}
		b = append(b, '}')
		if d.Running == engine.TimingsRunning {
			b = append(b, `,"timings_per_token":true`...)
		}
	}
	if d.SaltMember != "" {
		b = append(jsonscan.AppendQuote(append(b, ','), d.SaltMember), ':')
		b = jsonscan.AppendQuote(b, x.offer.Account.Salt)
	}
	return append(b, '}'), gather
}

// gathers decides whether an answer that the client wants whole is asked for as a stream and put together here: where the
// engine tells whole answers' usage wrong, and where the answer may be long and the engine tells what it has used so far.
func (x *exchange) gathers(d *engine.Dialect) bool {
	q := &x.req
	if q.stream || q.endpoint.embedding {
		return false
	}
	if x.mustGather(d) {
		return true
	}
	long := x.bounds.Output > x.g.Limits.Whole.Output || x.bounds.Input > x.g.Limits.Whole.Input
	if !long || d.Running != engine.OptionRunning && d.Running != engine.TimingsRunning {
		return false
	}
	for i := range q.members {
		if m := &q.members[i]; m.kind != jsonscan.Null && onlyWhole(m.name) {
			return false
		}
	}
	return true
}

// mustGather says that a whole answer would tell the usage of its first choice only.
func (x *exchange) mustGather(d *engine.Dialect) bool {
	return d.PerChoice && x.req.shape.Choices*x.req.shape.Prompts > 1
}

// onlyWhole names members that bring something into a whole answer which its stream does not have, or not in the same way.
func onlyWhole(name []byte) bool {
	switch string(name) {
	case "echo", "audio", "return_prompt_text", "functions", "function_call", "return_tokens":
		return true
	}
	return false
}

// isOurs names the members that are always written by us, whatever a dialect's table says.
func isOurs(name []byte) bool {
	switch string(name) {
	case "model", "stream", "stream_options":
		return true
	}
	return false
}
