package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"talea/internal/jsonscan"
	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/refusal"
	"talea/internal/world"
)

// refused writes a refusal: the only place where a 4xx or 5xx of the data path is written.
func (x *exchange) refused(r *refusal.Refusal) {
	row := r.Code.Row()
	h := x.w.Header()
	h["Content-Type"] = contentJSON
	if row.Retry {
		seconds := int64((r.RetryAfter + time.Second - 1) / time.Second)
		h.Set("Retry-After", strconv.FormatInt(min(max(seconds, 1), 60), 10))
	}
	if row.NoRetry {
		h.Set("X-Should-Retry", "false")
	}
	status := row.Status
	if status == 0 {
		status = r.Status
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	body := errorBody(nil, r)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	x.w.Write(body) // an error here is a client that has gone
}

// errorBody is the body of a refusal, in OpenAI's shape.
func errorBody(b []byte, r *refusal.Refusal) []byte {
	row := r.Code.Row()
	b = append(b, `{"error":{"message":`...)
	b = jsonscan.AppendQuote(b, r.Message)
	b = append(b, `,"type":`...)
	b = jsonscan.AppendQuote(b, row.Type)
	b = append(b, `,"param":`...)
	b = appendOrNull(b, r.Param)
	b = append(b, `,"code":`...)
	b = appendOrNull(b, row.Code)
	if r.Budget != nil {
		b = append(b, `,"budget":`...)
		b = appendBudget(b, r.Budget)
	}
	if r.Receipt != nil {
		b = append(b, `,"receipt":`...)
		b = append(b, r.Receipt...)
	}
	return append(b, "}}\n"...)
}

// errorEvent is a failure in mid-stream: an event with "error" first, after which the stream ends without [DONE].
func errorEvent(b []byte, r *refusal.Refusal) []byte {
	b = append(b, "data: "...)
	return append(errorBody(b, r), '\n')
}

func appendOrNull(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return jsonscan.AppendQuote(b, s)
}

func appendBudget(b []byte, x *refusal.Budget) []byte {
	sep := byte('{')
	for _, f := range [...]struct{ name, value string }{
		{"scope", x.Scope}, {"account", x.Account}, {"measure", x.Measure}, {"limit", x.Limit}, {"used", x.Used}, {"held", x.Held},
		{"currency", x.Currency}, {"window", x.Window}, {"resets_at", x.ResetsAt}, {"ceiling", x.Ceiling},
	} {
		if f.value != "" {
			b = append(b, sep)
			b = append(jsonscan.AppendQuote(b, f.name), ':')
			b = jsonscan.AppendQuote(b, f.value)
			sep = ','
		}
	}
	if x.MaxAffordableTokens > 0 {
		b = append(b, sep)
		b = append(b, `"max_affordable_tokens":`...)
		b = strconv.AppendInt(b, x.MaxAffordableTokens, 10)
	}
	return append(b, '}')
}

// refusalOf says a fault of a hop as a refusal.
func (x *exchange) refusalOf(err error) *refusal.Refusal {
	var r *refusal.Refusal
	var short *ledger.Short
	var repeat *ledger.Repeat
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &short):
		return x.shortRefusal(short)
	case errors.As(err, &repeat):
		return repeatRefusal(repeat)
	case errors.Is(err, errUnsettled):
		return &refusal.Refusal{Code: refusal.LedgerUnavailable, RetryAfter: x.jitter(), Message: "The ledger failed while the end of this request was being made durable. Whether it is charged will be known when the gateway is back: GET /v1/usage/" + x.id.String() + "."}
	case errors.Is(err, ledger.ErrUnavailable):
		return &refusal.Refusal{Code: refusal.LedgerUnavailable, RetryAfter: x.jitter(), Message: "The ledger cannot make anything durable just now, so nothing is admitted. Nothing was charged."}
	}
	x.g.log.Error("bug: a hop failed in an unforeseen way", "request", x.id.String(), "error", err)
	return x.internal()
}

func (x *exchange) internal() *refusal.Refusal {
	return refusal.New(refusal.Internal, "Something went wrong on our side. Request id: "+x.id.String())
}

// repeatRefusal says what became of the request that has the idempotency key.
func repeatRefusal(r *ledger.Repeat) *refusal.Refusal {
	const param = "Idempotency-Key"
	switch {
	case r.Differs:
		return refusal.At(refusal.IdempotencyMismatch, param, fmt.Sprintf("This Idempotency-Key was used for %s, which had another body: take a new key for a new request. Nothing was charged.", r.Of))
	case r.Record == nil:
		return refusal.At(refusal.IdempotencyInProgress, param, fmt.Sprintf("%s is running under this Idempotency-Key: wait for it, or come again when it has ended. Nothing was charged for this one.", r.Of))
	}
	no := refusal.At(refusal.IdempotencyCompleted, param, fmt.Sprintf("%s ran under this Idempotency-Key and was charged; its answer is not kept, its receipt is here. Nothing was charged for this one.", r.Of))
	no.Receipt = r.Record.AppendJSON(nil)
	return no
}

// jitter is a wait of 1 to 5 seconds, so that those who are turned away do not come back together.
func (x *exchange) jitter() time.Duration {
	return time.Duration(1+uint64(x.id)*0x9e3779b97f4a7c15>>32%5) * time.Second
}

// shortRefusal says which level of the tree blocks, in words, and shows amounts only of nodes that the caller may see.
func (x *exchange) shortRefusal(s *ledger.Short) *refusal.Refusal {
	lim, m := &s.Limit, s.Limit.Measure
	node, project := x.snap.AccountByID(lim.Account), x.key.Account
	r := &refusal.Refusal{Code: refusal.BudgetReached}
	if s.Verdict == quota.Contended {
		r.Code, r.RetryAfter = refusal.BudgetContended, x.jitter()
	}
	level := lim.Path.Level()
	if lim.Account == project.ID {
		level = "project"
	}
	whose := level + " " + string(lim.Path)
	if lim.Key != "" {
		level, whose = "key", "key "+lim.Key
	}
	b := &refusal.Budget{Scope: level, Account: string(lim.Path), Measure: m.String(), Window: lim.Window.String()}
	resets := ""
	if !s.Period.End.IsZero() {
		b.ResetsAt = localTime(s.Period.End, lim.Zone)
		resets = "; resets " + b.ResetsAt
	}
	if m == quota.Money {
		b.Currency = project.Currency
	}
	r.Budget = b
	unit := unitOf(m, project.Currency)
	if lim.Account != project.ID && (node == nil || !node.ShowAmounts) {
		r.Message = fmt.Sprintf("The %s budget of %s for %s has no room left for this request%s.", unit, whose, s.Period.Label, resets)
		if s.Verdict == quota.Contended {
			r.Message = fmt.Sprintf("The %s budget of %s for %s is held by running requests: try again shortly.", unit, whose, s.Period.Label)
		}
		return r
	}
	b.Limit, b.Used, b.Held, b.Ceiling = m.Format(lim.Amount), m.Format(s.Used), m.Format(s.Held), m.Format(s.Need)
	b.MaxAffordableTokens = x.affordable(s)
	r.Message = fmt.Sprintf("%s has used %s of %s %s for %s, and this request may need %s%s.", whose, b.Used, b.Limit, unit, s.Period.Label, b.Ceiling, resets)
	if s.Verdict == quota.Contended {
		r.Message = fmt.Sprintf("%s has used %s and holds %s for running requests, of %s %s for %s; this request may need %s: try again shortly.",
			whose, b.Used, b.Held, b.Limit, unit, s.Period.Label, b.Ceiling)
	}
	return r
}

func unitOf(m quota.Measure, currency string) string {
	switch m {
	case quota.Money:
		return currency
	case quota.InputTokens:
		return "input tokens"
	case quota.OutputTokens:
		return "output tokens"
	case quota.RequestCount:
		return "requests"
	case quota.WorkMS:
		return "ms of work"
	}
	return "tokens"
}

func localTime(t time.Time, zone string) string {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		loc = time.UTC
	}
	return t.In(loc).Format(time.RFC3339)
}

// affordable is the largest output bound at which the request would fit what is posted: 0 where not even one token fits.
func (x *exchange) affordable(s *ledger.Short) int64 {
	left := s.Limit.Amount.Sub(s.Used)
	fits := func(out int64) bool {
		bounds := x.bounds
		bounds.Output = out
		cost, err := x.ceiling(bounds)
		if err != nil {
			return false
		}
		return quota.Need{Money: cost, Bounds: bounds, Work: x.offer.Subject.Work}.Of(s.Limit.Measure).Cmp(left) <= 0
	}
	return largest(x.bounds.Output, fits) / x.answers()
}

// offerRefusal says why a key has no such offering.
func offerRefusal(model string, err error) *refusal.Refusal {
	if errors.Is(err, world.ErrResidency) {
		return refusal.At(refusal.Residency, "model", fmt.Sprintf("No engine for the model %q lies in a region that this account's data may go to.", clip([]byte(model))))
	}
	return refusal.At(refusal.ModelNotFound, "model", fmt.Sprintf("The model %q does not exist or you do not have access to it.", clip([]byte(model))))
}
