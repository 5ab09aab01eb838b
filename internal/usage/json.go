package usage

import (
	"encoding/json"
	"strconv"
	"time"

	"talea/internal/money"
)

// AppendJSON appends the record as one JSON object: the receipt of a request. The members and their order are the same
// for every record; what is unknown is null. Counts are integers, money and prices are exact decimal strings, times are
// RFC 3339 in UTC, and durations are whole microseconds. `usage` is what was metered, `lines` are what is charged for.
func (r *Record) AppendJSON(dst []byte) []byte {
	o := object{append(dst, '{')}
	r.appendWho(&o)
	r.appendUsage(&o)
	o.text("usage_source", r.Source.String())
	o.list("flags", len(r.Flags.Names()), func(i int) { o.b = appendText(o.b, r.Flags.Names()[i]) })
	o.list("lines", len(r.Lines), func(i int) { r.Lines[i].appendJSON(&o) })
	if r.Status == Held {
		o.null("charge")
	} else {
		o.amount("charge", r.Charge)
	}
	o.text("currency", r.Subject.Currency)
	o.amount("hold", r.Hold)
	o.text("outcome", r.Outcome.String())
	o.text("fault", r.Fault.String())
	o.text("finish_reason", r.Finish)
	o.text("price_book", r.Subject.Book)
	o.text("price_book_version", r.Subject.BookVersion)
	o.text("price_row", r.PriceRow)
	o.text("multiplier", multiplierText(r.Multiplier))
	o.text("on_disconnect", r.OnDisconnect.String())
	o.text("on_platform_fault", r.OnFault.String())
	r.appendHow(&o)
	return append(o.b, '}')
}

// appendWho writes what was stamped at admission.
func (r *Record) appendWho(o *object) {
	s := r.Subject
	o.text("request_id", r.ID.String())
	o.text("status", r.Status.String())
	o.time("at", r.Admission.At)
	o.time("settled_at", r.Result.At)
	o.text("account", string(s.AccountPath))
	o.number("account_id", int64(s.Account))
	o.text("billing_account", s.BillingAccount)
	o.text("key", s.Key)
	o.text("principal", r.Principal)
	o.list("labels", len(s.Labels), func(i int) {
		l := object{append(o.b, '{')}
		l.text("name", s.Labels[i].Name)
		l.text("value", s.Labels[i].Value)
		o.b = append(l.b, '}')
	})
	o.text("seller", s.Seller)
	o.text("contract", s.Contract)
	o.text("endpoint", r.Endpoint)
	o.truth("stream", r.Stream)
	o.text("run_id", r.RunID)
	if r.RetryOf == 0 {
		o.null("retry_of")
	} else {
		o.text("retry_of", r.RetryOf.String())
	}
	o.number("sdk_retry_count", r.SDKRetry)
	o.text("model_asked", s.ModelAsked)
	o.text("model", s.Model)
	o.text("model_revision", s.ModelRevision)
	o.text("size_class", s.SizeClass)
	o.text("quantisation", s.Quantisation)
	o.text("tokenizer", s.Tokenizer)
	o.text("engine", r.Engine)
	o.text("engine_kind", r.EngineKind)
	o.text("engine_version", r.EngineVersion)
	o.text("region", r.Region)
	o.text("gpu_kind", r.GPUKind)
	o.known("gpu_count", r.GPUCount)
	o.text("service_tier_asked", r.TierAsked)
	o.text("service_tier", r.TierServed)
	o.text("effort", r.Effort)
	o.known("thinking_budget", r.ThinkTokens)
	o.member("bounds")
	b := object{append(o.b, '{')}
	b.number("input", r.Bounds.Input)
	b.number("output", r.Bounds.Output)
	b.known("joint", r.Bounds.Joint)
	o.b = append(b.b, '}')
}

// appendUsage writes the counts, the totals in OpenAI's words first.
func (r *Record) appendUsage(o *object) {
	c := &r.Counts
	o.member("usage")
	u := object{append(o.b, '{')}
	u.count("input_tokens", c.Input(), c.Known(InputUncached) || c.Known(InputCacheRead) || c.Known(InputCacheWrite))
	u.count("cache_read_input_tokens", c.Get(InputCacheRead), c.Known(InputCacheRead))
	u.count("output_tokens", c.Output(), c.Known(OutputContent) || c.Known(OutputReasoning))
	u.count("reasoning_output_tokens", c.Get(OutputReasoning), c.Known(OutputReasoning))
	for m := range NumMeters {
		from := c
		if m == WorkMS { // it is computed from what is billed
			from = &r.Billed
		}
		u.count(m.String(), from.Get(m), from.Known(m))
	}
	o.b = append(u.b, '}')
}

// appendHow writes the times and the attempts.
func (r *Record) appendHow(o *object) {
	o.member("times")
	t := object{append(o.b, '{')}
	t.known("queue_us", r.QueueMicros)
	t.known("prefill_us", r.PrefillMicros)
	t.known("decode_us", r.DecodeMicros)
	t.known("first_byte_us", r.FirstMicros)
	t.known("total_us", r.TotalMicros)
	o.b = append(t.b, '}')
	o.list("attempts", len(r.Attempts), func(i int) {
		try := &r.Attempts[i]
		a := object{append(o.b, '{')}
		a.text("engine", try.Engine)
		a.known("status", int64(try.Status))
		a.text("fault", try.Fault)
		a.known("us", try.Micros)
		o.b = append(a.b, '}')
	})
}

// appendJSON writes one charge line: Quantity × UnitPrice = Amount.
func (l *Line) appendJSON(o *object) {
	b := object{append(o.b, '{')}
	b.text("meter", l.Meter.String())
	b.number("quantity", l.Quantity)
	b.amount("unit_price", l.UnitPrice.Amount())
	b.amount("amount", l.Amount)
	if l.Kind != LineUsage {
		b.truth(l.Kind.String(), true) // "minimum": true
	}
	o.b = append(b.b, '}')
}

// multiplierText writes parts per million as a factor: "1", "1.25"; "" for none.
func multiplierText(ppm int64) string {
	part, err := money.RateFromAmount(money.Units(1_000_000_000))
	if err != nil || ppm <= 0 || ppm > MaxCount {
		return ""
	}
	return part.Times(ppm).String()
}

// object is a JSON object that is being written, open at its end.
type object struct{ b []byte }

// member begins a member.
func (o *object) member(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(appendText(o.b, name), ':')
}

func (o *object) null(name string) {
	o.member(name)
	o.b = append(o.b, "null"...)
}

// text writes a string, null where it is empty.
func (o *object) text(name, s string) {
	if s == "" {
		o.null(name)
		return
	}
	o.member(name)
	o.b = appendText(o.b, s)
}

func (o *object) number(name string, n int64) {
	o.member(name)
	o.b = strconv.AppendInt(o.b, n, 10)
}

// known writes a number of which 0 means unknown.
func (o *object) known(name string, n int64) { o.count(name, n, n != 0) }

func (o *object) count(name string, n int64, known bool) {
	if !known {
		o.null(name)
		return
	}
	o.number(name, n)
}

func (o *object) truth(name string, v bool) {
	o.member(name)
	o.b = strconv.AppendBool(o.b, v)
}

func (o *object) amount(name string, a money.Amount) {
	o.member(name)
	o.b = append(a.Append(append(o.b, '"')), '"')
}

// time writes an instant, null where it is none.
func (o *object) time(name string, t time.Time) {
	if t.IsZero() {
		o.null(name)
		return
	}
	o.text(name, t.UTC().Format(time.RFC3339Nano))
}

// list writes n elements; each appends itself to o.
func (o *object) list(name string, n int, element func(i int)) {
	o.member(name)
	o.b = append(o.b, '[')
	for i := range n {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		element(i)
	}
	o.b = append(o.b, ']')
}

// appendText writes a JSON string; what is not UTF-8 becomes the replacement character.
func appendText(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic("usage: a string has no JSON form") // json.Marshal refuses no string
	}
	return append(b, text...)
}
