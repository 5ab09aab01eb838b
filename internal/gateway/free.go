package gateway

import (
	"bytes"
	"slices"
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
	b = appendRow(append(b, ','), row)
	b = x.appendOverrides(b, o, row)
	b = append(b, `},"price_multiplier":`...)
	b = jsonscan.AppendQuote(b, price.MultiplierText(row.Multiplier))
	if _, ladder := o.Book.Ladder(x.started); ladder != nil {
		b = x.appendAnnounced(b, o)
	}
	return append(x.appendTiers(b, o), '}')
}

// listed are the parts of a price list, with the names that OpenRouter's list has. A part without a price is left out: it is not
// free.
var listed = [...]struct {
	name  string
	meter usage.Meter
}{
	{"prompt", usage.InputUncached}, {"input_cache_read", usage.InputCacheRead}, {"input_cache_write", usage.InputCacheWrite}, {"completion", usage.OutputContent},
	{"internal_reasoning", usage.OutputReasoning}, {"request", usage.Requests}, {"image", usage.Image},
}

// appendRow writes the prices of a row as members of an object: of a single unit, and of steps those of the first, with all
// steps behind.
func appendRow(b []byte, row *price.Row) []byte {
	for _, p := range listed {
		if rate, ok := row.Listed(p.meter); ok {
			b = append(append(jsonscan.AppendQuote(b, p.name), ':'), '"')
			b = append(append(b, rate.String()...), '"', ',')
		}
	}
	for _, p := range listed {
		for i := range row.Forms {
			if f := &row.Forms[i]; f.Of(p.meter) && f.Kind != price.LongContext {
				b = append(jsonscan.AppendQuote(b, p.name+"_steps"), ':')
				b = append(appendSteps(b, f), ',')
			}
		}
	}
	return bytes.TrimSuffix(b, []byte{','})
}

// appendSteps writes a price that depends on how much was used before.
func appendSteps(b []byte, f *price.Form) []byte {
	b = append(jsonscan.AppendQuote(append(b, `{"form":`...), f.Kind.String()), ',')
	if f.Counter != "" {
		b = jsonscan.AppendQuote(append(b, `"scope":`...), f.Scope)
		b = append(jsonscan.AppendQuote(append(b, `,"window":`...), f.Window.String()), ',')
	}
	if f.Kind == price.Package {
		b = append(strconv.AppendInt(append(b, `"package":`...), f.Package, 10), ',')
	}
	b = append(b, `"steps":[`...)
	for i, s := range f.Steps {
		if i > 0 {
			b = append(b, ',')
		}
		b = jsonscan.AppendQuote(append(b, `{"price":`...), s.Rate.String())
		if s.UpTo > 0 {
			b = strconv.AppendInt(append(b, `,"up_to":`...), s.UpTo, 10)
		}
		if !s.Fee.IsZero() {
			b = jsonscan.AppendQuote(append(b, `,"flat":`...), s.Fee.String())
		}
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

// How far overrides look ahead, and how many there are at most.
const (
	overrideTime = 7 * 24 * time.Hour
	maxOverrides = 64
)

// appendOverrides writes where the prices are others: for long prompts, and in the next days, by windows, versions of the book and
// announced load steps.
func (x *exchange) appendOverrides(b []byte, o *world.Offer, row *price.Row) []byte {
	b = append(b, `,"overrides":[`...)
	for _, over := range longContexts(row) {
		b = strconv.AppendInt(append(b, `{"min_prompt_tokens":`...), over, 10)
		for _, p := range listed {
			for i := range row.Forms {
				if f := &row.Forms[i]; f.Kind == price.LongContext && f.Of(p.meter) {
					b = append(jsonscan.AppendQuote(append(b, ','), p.name), ':')
					b = jsonscan.AppendQuote(b, f.Step(over).Rate.String())
				}
			}
		}
		b = append(b, "},"...)
	}
	end := x.started.Add(overrideTime)
	for at, n := x.started, 0; at.Before(end) && n < maxOverrides; n++ {
		r, until, err := x.g.rowUntil(o, price.Standard, at)
		if err != nil {
			break // nothing is known of what comes then
		}
		if until.IsZero() || until.After(end) {
			until = end
		}
		if r.ID != row.ID {
			b = at.UTC().AppendFormat(append(b, `{"from":"`...), time.RFC3339)
			b = until.UTC().AppendFormat(append(b, `","until":"`...), time.RFC3339)
			b = jsonscan.AppendQuote(append(b, `","price_multiplier":`...), price.MultiplierText(r.Multiplier))
			b = append(appendRow(append(b, ','), r), "},"...)
		}
		at = until
	}
	return append(bytes.TrimSuffix(b, []byte{','}), ']')
}

// longContexts are the lengths of prompts from which on some price is another.
func longContexts(row *price.Row) (from []int64) {
	for i := range row.Forms {
		for _, s := range row.Forms[i].Steps {
			if row.Forms[i].Kind == price.LongContext && s.UpTo > 0 {
				from = append(from, s.UpTo+1)
			}
		}
	}
	slices.Sort(from)
	return slices.Compact(from)
}

// appendTiers writes the service tiers that are sold beside the standard one, with their prices now.
func (x *exchange) appendTiers(b []byte, o *world.Offer) []byte {
	b = append(b, `,"service_tiers":[`...)
	for _, tier := range o.Book.Tiers(x.started) {
		row, err := x.g.row(o, tier, x.started)
		if tier == price.Standard || err != nil {
			continue
		}
		b = jsonscan.AppendQuote(append(b, `{"service_tier":`...), tier)
		b = jsonscan.AppendQuote(append(b, `,"price_multiplier":`...), price.MultiplierText(row.Multiplier))
		b = append(appendRow(append(b, `,"pricing":{`...), row), "}},"...)
	}
	return append(bytes.TrimSuffix(b, []byte{','}), ']')
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
