package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"talea/internal/account"
	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/quote"
	"talea/internal/refusal"
	"talea/internal/usage"
	"talea/internal/world"
)

// estimate says what a request would cost: its body is what would be sent to one of the metered routes. Nothing is held, sent
// to an engine or kept. It works when every budget is used up.
func (x *exchange) estimate() error {
	if err := x.authenticate(); err != nil {
		return err
	}
	if no := x.g.paces.take(x.key.Account, x.started.UnixNano(), 0); no != nil {
		return no
	}
	x.g.paces.headers(x.w.Header(), x.key.Account, x.started.UnixNano())
	at, name, err := estimateQuery(x.r.URL.RawQuery, x.started)
	if err != nil {
		return err
	}
	if err := x.receive(); err != nil {
		return err
	}
	ep, err := endpointOf(x.g.metered, x.body, name)
	if err != nil {
		return err
	}
	if no := x.req.parse(ep, x.body); no != nil {
		return no
	}
	answer, err := x.quotes(at)
	if err != nil {
		return err
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return x.writeJSON(append(body, '\n'))
}

// Question is what an operator wants estimated: a body as a tenant would send it, or numbers of tokens.
type Question struct {
	Account   string    `json:"account"`
	At        time.Time `json:"at,omitzero"`        // now unless said
	Endpoint  string    `json:"endpoint,omitempty"` // told by the body unless said
	Body      string    `json:"body,omitempty"`     // JSON; instead of what follows
	Model     string    `json:"model,omitempty"`
	Tier      string    `json:"service_tier,omitempty"`
	Input     int64     `json:"input,omitempty"`      // tokens of the prompt
	Output    int64     `json:"output,omitempty"`     // tokens of the answer that are expected; what is learnt unless said
	MaxOutput int64     `json:"max_output,omitempty"` // the most that may be answered; the model's default unless said
}

// Estimate answers an operator's question as a request of a key of the account would be answered that has no limits of its own.
// The error is a *refusal.Refusal.
func (g *Gateway) Estimate(ctx context.Context, q Question) (*quote.Answer, error) {
	now := g.Clock.Now()
	x := &exchange{g: g, r: &http.Request{Header: http.Header{}}, ctx: ctx, started: now, id: g.ids.Mint(now), snap: g.World.Current()}
	a := x.snap.Account(account.Path(q.Account))
	if a == nil {
		return nil, refusal.At(refusal.NotFound, "account", fmt.Sprintf("There is no account %q.", q.Account))
	}
	x.key = x.snap.Visitor(a)
	body := []byte(q.Body)
	if q.Body == "" {
		if q.Model == "" || min(q.Input, q.Output, q.MaxOutput) < 0 || max(q.Input, q.Output, q.MaxOutput) > 1<<31-1 {
			return nil, refusal.At(refusal.Malformed, "model", "An estimate needs a body, or a model and numbers of tokens from 0 on.")
		}
		x.given = &quote.Tokens{Input: q.Input, Output: q.Output}
		body = chatOf(&q)
	}
	ep, err := endpointOf(g.metered, body, q.Endpoint)
	if err == nil {
		if no := x.req.parse(ep, body); no != nil {
			err = no
		}
	}
	if q.At.IsZero() {
		q.At = now
	}
	var answer *quote.Answer
	if err == nil {
		answer, err = x.quotes(q.At)
	}
	if err != nil {
		return nil, x.refusalOf(err)
	}
	return answer, nil
}

// chatOf is the body of a chat that asks what a question asks, but for its prompt.
func chatOf(q *Question) []byte {
	b := jsonscan.AppendQuote([]byte(`{"messages":[{"role":"user","content":""}],"model":`), q.Model)
	if q.MaxOutput > 0 {
		b = strconv.AppendInt(append(b, `,"max_tokens":`...), q.MaxOutput, 10)
	}
	if q.Tier != "" {
		b = jsonscan.AppendQuote(append(b, `,"service_tier":`...), q.Tier)
	}
	return append(b, '}')
}

// estimateQuery reads `at` and `endpoint`.
func estimateQuery(text string, now time.Time) (at time.Time, endpoint string, err error) {
	q, err := url.ParseQuery(text)
	if err != nil {
		return at, "", refusal.New(refusal.Malformed, "The query of this request cannot be read.")
	}
	at = now
	for name, values := range q {
		switch {
		case len(values) != 1:
			return at, "", refusal.At(refusal.Malformed, clip([]byte(name)), "A parameter of the query is given twice.")
		case name == "endpoint":
			endpoint = values[0]
		case name == "at":
			if at, err = time.Parse(time.RFC3339, values[0]); err != nil {
				return at, "", refusal.At(refusal.Malformed, "at", "at must be a time such as 2026-11-24T13:00:00+01:00 (in a URL, + is %2B).")
			}
		default:
			return at, "", refusal.At(refusal.UnknownParameter, clip([]byte(name)), "The parameters here are at and endpoint.")
		}
	}
	return at, endpoint, nil
}

// endpointOf finds the metered route that a body is for: by its name, or by the member that only bodies for it have.
func endpointOf(metered []*endpoint, body []byte, name string) (*endpoint, error) {
	var found *endpoint
	n := 0
	for _, ep := range metered {
		if name != "" && name != ep.name {
			continue
		}
		has := name != ""
		if !has { // what is wrong with a body that is no JSON, its parser says better
			_ = jsonscan.Each(body, func(member []byte, kind jsonscan.Kind, _ jsonscan.Span) bool {
				has = has || string(member) == ep.content && kind != jsonscan.Null
				return true
			})
		}
		if has {
			found, n = ep, n+1
		}
	}
	switch {
	case n == 1:
		return found, nil
	case name != "":
		return nil, refusal.At(refusal.Malformed, "endpoint", "endpoint must be chat, completions or embeddings.")
	case n == 0:
		return metered[0], nil // whose parser says what is missing
	}
	return nil, refusal.At(refusal.Malformed, "endpoint", "This body could be for several routes: say ?endpoint=chat, completions or embeddings.")
}

// quotes prices the parsed request at a time, with the model that it asks for and with every other that could take it.
func (x *exchange) quotes(at time.Time) (*quote.Answer, error) {
	x.asOf = at
	if err := x.resolve(); err != nil {
		return nil, err
	}
	first, err := x.quote()
	if err != nil {
		return nil, err
	}
	answer := &quote.Answer{Object: "estimate", At: at.UTC(), Endpoint: x.req.endpoint.name, Currency: x.offer.Subject.Currency, Offerings: []quote.Offering{*first}, Note: quote.Note}
	for _, o := range x.key.Offers() {
		if x.offer = o.At(at); o.Model.Name == first.Model || x.offer.Quarantined || x.admit() != nil {
			continue
		}
		if other, err := x.quote(); err == nil {
			answer.Offerings = append(answer.Offerings, *other)
		}
	}
	return answer, nil
}

// quote prices the request with the offering that it has: bounds, row, position and ceiling are found as for a hold.
func (x *exchange) quote() (*quote.Offering, error) {
	tier := x.req.served()
	row, err := x.g.rowAt(x.offer, tier, x.asOf)
	if err != nil {
		return nil, notPriced(x.req.model, err)
	}
	if x.bounds, err = x.offer.Model.Bounds(x.req.shape); err != nil {
		return nil, boundRefusal(err)
	}
	if x.given != nil {
		x.bounds.Input = min(x.given.Input, x.offer.Model.ContextTokens)
	}
	x.row, x.position = &row.Row, x.positionAt(&row.Row, x.asOf)
	o := &quote.Offering{Model: x.offer.Model.Name, ServiceTier: tier, PriceVersion: x.offer.Book.Version, Expect: x.expect()}
	x.inputBound = x.bounds.Input
	most := x.mostBounds()
	if err := o.Fill(most, x.offer.Subject.Work, x.row, x.position); err != nil {
		return nil, notPriced(x.req.model, err)
	}
	if x.money, err = x.ceiling(x.bounds); err != nil {
		return nil, notPriced(x.req.model, err)
	}
	if most != x.bounds {
		held := x.money
		o.Held = &held
	}
	o.CheapestHour = x.cheapestHour(o, tier, most)
	return o, x.allowedNow(o)
}

func (x *exchange) positionAt(row *price.Row, at time.Time) []int64 {
	return x.g.Ledger.PositionAt(x.offer.Subject, row, at)
}

// mostBounds are the bounds with what the extensions of a stream that is held by and by can come to.
func (x *exchange) mostBounds() usage.Bounds {
	most := x.bounds
	if !x.mayRoll() {
		return most
	}
	for _, e := range x.offer.Engines { // one that has not been seen to tell may be, before the request comes
		if d, ok := engine.ByName(e.Kind); ok && (d.Running == engine.OptionRunning || d.Running == engine.TimingsRunning) {
			most.Output = max(most.Output, x.offer.Model.MaxOutputTokens*x.answers())
		}
	}
	return most
}

// expect is what the engine counts of the prompt, where its counts are proved, else what recent requests to the model have needed, and the bounds where nothing is known.
func (x *exchange) expect() quote.Expectation {
	known := x.g.experience(x.offer.Model.Name)
	e := quote.Expectation{Tokens: quote.Tokens{Input: x.bounds.Input, Output: x.bounds.Output}, InputSource: quote.Bound, OutputSource: quote.Bound}
	if n := known.prompts.Load(); x.given == nil && n > 0 && x.bounds.Input <= 1<<40 {
		e.Input, e.InputSource = max(1, x.bounds.Input*mean(n, &known.shares)/1_000_000), quote.Learnt
	}
	if x.given != nil {
		e.InputSource = quote.Given
	} else if m := x.req.countable(); m != nil && x.offer.Model.Name == x.req.model { // of the others, asking each would be too much
		if n, ok := x.engineCount(m); ok {
			e.Input, e.InputSource = n, quote.Counted
		}
	}
	if n := known.answers.Load(); n > 0 && x.bounds.Output > 0 {
		e.Output, e.OutputSource = min(x.bounds.Output, mean(n, &known.lengths)*x.answers()), quote.Learnt
	}
	if x.given != nil && x.given.Output > 0 {
		e.Output, e.OutputSource = x.given.Output, quote.Given
	}
	return e
}

// cheapestHour looks at the rows of the next hours: windows, versions of the book, and announced load steps.
func (x *exchange) cheapestHour(o *quote.Offering, tier string, most usage.Bounds) *quote.Hour {
	offer := x.offer
	hour, ok := quote.Cheapest(x.asOf, func(at time.Time) (*price.Row, time.Time, error) {
		return x.g.rowUntil(offer, tier, at)
	}, func(row *price.Row, at time.Time) (quote.Prices, error) {
		return quote.Of(most, o.Expect.Tokens, offer.Subject.Work, row, x.positionAt(row, at))
	})
	if !ok {
		return nil
	}
	return &hour
}

// rowUntil finds the row of an offering at any instant, under the version of its book then, and until when it holds at least.
func (g *Gateway) rowUntil(o *world.Offer, tier string, at time.Time) (*price.Row, time.Time, error) {
	now := o.At(at)
	row, err := g.rowAt(now, tier, at)
	if err != nil {
		return nil, time.Time{}, err
	}
	until := row.To
	if step := g.Tape.Until(now.Book, at); !step.IsZero() && (until.IsZero() || step.Before(until)) {
		until = step
	}
	return &row.Row, until, nil
}

// allowedNow says whether a hold would be granted now, and which limit is short if not.
func (x *exchange) allowedNow(o *quote.Offering) error {
	x.ask = ledger.Ask{
		Org: x.offer.Subject.Organisation, Chain: x.key.Account.IDs, Row: x.row, Money: x.money, Position: x.position,
		Admission: usage.Admission{ID: x.id, Subject: x.offer.Subject, TierAsked: x.req.tier, Bounds: x.bounds},
	}
	err := x.tryHolds((*exchange).lookHold)
	allowed := err == nil
	o.Allowed = &allowed
	var short *ledger.Short
	if !errors.As(err, &short) {
		return err
	}
	no := x.shortRefusal(short)
	o.Short = &quote.Short{Code: no.Code.Row().Code, Message: no.Message, Account: no.Budget.Account, Measure: no.Budget.Measure, Window: no.Budget.Window, ResetsAt: no.Budget.ResetsAt}
	if short.Degrade != nil {
		o.Short.DegradeTo = short.Degrade.DegradeTo
	}
	return nil
}

// lookHold says what a hold would come to.
func (x *exchange) lookHold() error {
	if short := x.g.Ledger.Fits(&x.ask); short != nil {
		return short
	}
	return nil
}
