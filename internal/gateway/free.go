package gateway

import (
	"strconv"
	"strings"
	"time"

	"talea/internal/jsonscan"
	"talea/internal/price"
	"talea/internal/refusal"
	"talea/internal/usage"
	"talea/internal/world"
)

// writeJSON answers 200 with a body that was made here.
func (x *exchange) writeJSON(body []byte) error {
	h := x.w.Header()
	h["Content-Type"] = contentJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.wrote = true
	x.patience(len(body))
	if _, err := x.w.Write(body); err != nil {
		return errClientGone
	}
	return nil
}

func (x *exchange) healthz() error { return x.writeJSON([]byte(`{"status":"ok"}` + "\n")) }

// readyz says whether a request would be admitted.
func (x *exchange) readyz() error {
	if x.g.draining.Load() {
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "This gateway is shutting down."}
	}
	if err := x.g.Ledger.Ready(); err != nil {
		return err
	}
	return x.writeJSON([]byte(`{"status":"ready"}` + "\n"))
}

// listModels lists the offerings of the key, with their prices. It works when every budget is used up.
func (x *exchange) listModels() error {
	if err := x.authenticate(); err != nil {
		return err
	}
	b := []byte(`{"object":"list","data":[`)
	for i, o := range x.key.Offers() {
		if i > 0 {
			b = append(b, ',')
		}
		b = x.appendModel(b, o.At(x.started))
	}
	return x.writeJSON(append(b, "]}\n"...))
}

func (x *exchange) oneModel() error {
	if err := x.authenticate(); err != nil {
		return err
	}
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	name := path[len("/v1/models/"):]
	o, err := x.key.Offer(name)
	if err != nil {
		return offerRefusal(name, err)
	}
	return x.writeJSON(append(x.appendModel(nil, o.At(x.started)), '\n'))
}

// appendModel writes one model in OpenAI's shape, with what OpenRouter's list adds: the context and prices per single
// unit, as decimal strings.
func (x *exchange) appendModel(b []byte, o *world.Offer) []byte {
	m := o.Model
	b = append(b, `{"id":`...)
	b = jsonscan.AppendQuote(b, m.Name)
	b = append(b, `,"object":"model","created":0,"owned_by":`...)
	b = jsonscan.AppendQuote(b, o.Subject.Seller)
	b = append(b, `,"context_length":`...)
	b = strconv.AppendInt(b, m.ContextTokens, 10)
	b = append(b, `,"max_output_tokens":`...)
	b = strconv.AppendInt(b, m.MaxOutputTokens, 10)
	row, err := x.g.row(o, price.Standard, x.started)
	if err != nil {
		return append(b, `,"pricing":null}`...) // it is listed, and it will be refused until it has a price
	}
	b = append(b, `,"pricing":{"currency":`...)
	b = jsonscan.AppendQuote(b, o.Subject.Currency)
	for _, p := range [...]struct {
		name  string
		meter usage.Meter
	}{{"prompt", usage.InputUncached}, {"input_cache_read", usage.InputCacheRead}, {"input_cache_write", usage.InputCacheWrite}, {"completion", usage.OutputContent}, {"internal_reasoning", usage.OutputReasoning}, {"request", usage.Requests}} {
		rate, ok := row.Listed(p.meter)
		if !ok && (p.meter != usage.Requests || row.Has[p.meter]) {
			continue
		}
		b = append(jsonscan.AppendQuote(append(b, ','), p.name), ':')
		b = jsonscan.AppendQuote(b, rate.String())
	}
	b = append(b, `},"price_multiplier":`...)
	b = jsonscan.AppendQuote(b, price.MultiplierText(row.Multiplier))
	if _, ladder := o.Book.Ladder(x.started); ladder != nil {
		b = x.appendAnnounced(b, o)
	}
	return append(b, '}')
}

// appendAnnounced writes the load multipliers that are published and not yet in force.
func (x *exchange) appendAnnounced(b []byte, o *world.Offer) []byte {
	b = append(b, `,"announced_load_multipliers":[`...)
	for i, s := range x.g.Tape.Announced(o.Book, x.started) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"from":"`...)
		b = s.From.AppendFormat(b, time.RFC3339)
		b = s.Until.AppendFormat(append(b, `","until":"`...), time.RFC3339)
		b = append(append(append(b, `","multiplier":"`...), price.MultiplierText(s.PPM)...), `"}`...)
	}
	return append(b, ']')
}

// receipt shows the caller the record of one of its own requests. A request of another key is as unknown as none.
func (x *exchange) receipt() error {
	if err := x.authenticate(); err != nil {
		return err
	}
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	unknown := refusal.New(refusal.NotFound, "There is no request of this key with that id.")
	id, err := usage.ParseID(path[len("/v1/usage/"):])
	if err != nil {
		return unknown
	}
	rec, _, err := x.g.Ledger.Record(id)
	if err != nil {
		return err
	}
	if rec == nil || rec.Subject.Key != x.key.Public || rec.Subject.Account != x.key.Account.ID {
		return unknown
	}
	return x.writeJSON(append(rec.AppendJSON(nil), '\n'))
}
