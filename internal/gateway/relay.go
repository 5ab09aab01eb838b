package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"talea/internal/ledger"
	"talea/internal/meter"
	"talea/internal/price"
	"talea/internal/refusal"
	"talea/internal/usage"
)

// Checkpoints of a running stream: after so many tokens, or so much time, whichever is first.
const (
	checkpointTokens = 64
	checkpointTime   = 2 * time.Second
)

// relay brings the answer to the client up to, but without, its end, and fills the result. How an answer ends is told by
// finish, once it is settled.
func (x *exchange) relay() {
	defer func() {
		x.answer.backend.running.Add(-1)
		if x.result.Outcome != usage.Completed {
			x.answer.Close() // resets the connection: the engine stops at once
		}
	}() // a whole answer is closed in end: by then its last bytes have come, and the connection can be used again
	r := &x.result
	o := meter.Options{
		Prompts: int(x.req.shape.Prompts), Choices: int(x.req.shape.Choices),
		ShowUsage: x.req.showUsage, Tier: x.servedTier(), ShowRunning: x.req.showRunning, OutputBound: x.bounds.Output,
	}
	var report meter.Report
	switch {
	case x.req.stream:
		report = x.relayStream(o)
	case x.answer.gather:
		report = x.gather(o)
	default:
		report = x.readAnswer(o)
	}
	r.Counts, r.Source, r.Finish = report.Counts, report.Source, report.Finish
	r.Flags |= report.Flags
	r.QueueMicros, r.PrefillMicros, r.DecodeMicros = report.Timing.Queue, report.Timing.Prefill, report.Timing.Decode
}

// readAnswer reads a whole answer. Nothing of it is relayed before it is settled.
func (x *exchange) readAnswer(o meter.Options) meter.Report {
	r := &x.result
	body, err := x.readWhole()
	x.buf = body
	if err != nil {
		x.broken(err)
		return meter.Report{}
	}
	a := meter.ReadAnswer(x.answer.backend.dialect, body, o)
	if a.Failed {
		x.broken(errBadAnswer)
		return a.Report
	}
	r.Outcome = usage.Completed
	r.Delivered = a.Counts.Output()
	return a.Report
}

var (
	errBadAnswer = errors.New("the engine's answer cannot be read")
	errTooLarge  = errors.New("the engine's answer is too large")
)

// watchSilence ends the request when the engine says nothing for too long. It closes over the request's own cancel: the timer
// may fire when the exchange already serves another.
func (x *exchange) watchSilence(most time.Duration) *time.Timer {
	cancel := x.cancel
	return time.AfterFunc(most, func() { cancel(errIdle) })
}

// readWhole reads the engine's body, with a bound on its size and on its silences.
func (x *exchange) readWhole() ([]byte, error) {
	idle := x.watchSilence(x.g.Limits.Idle)
	defer idle.Stop()
	b := x.buf[:0]
	if n := x.answer.ContentLength; n > x.g.Limits.MaxBytes {
		return b, errTooLarge
	} else if n >= int64(cap(b)) {
		b = make([]byte, 0, n+1)
	} else if cap(b) == 0 {
		b = make([]byte, 0, 4<<10)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := x.answer.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if int64(len(b)) > x.g.Limits.MaxBytes {
			return b, errTooLarge
		}
		if n > 0 {
			idle.Reset(x.g.Limits.Idle)
		}
	}
}

// broken notes why an answer ended before its end: whose doing it was, if it was not the engine's.
func (x *exchange) broken(err error) {
	r := &x.result
	if no := x.whyCut(); no != nil {
		x.failure = no
		return
	}
	r.Outcome, r.Fault = usage.Broken, usage.Engine
	x.failure = refusal.New(refusal.EngineUnavailable, "The engine broke off its answer. By the tariff's rule for faults of ours, it is not charged unless your contract says so.")
	if errors.Is(err, errTooLarge) || errors.Is(err, meter.ErrTooLong) || errors.Is(err, meter.ErrTooLarge) {
		x.failure = refusal.New(refusal.EngineUnavailable, "The engine's answer is larger than what is relayed here.")
	}
}

// relayStream relays an event stream, whole events at a time, and holds its end back.
func (x *exchange) relayStream(o meter.Options) meter.Report {
	s := &x.stream
	s.Reset(x.answer.backend.dialect, o)
	x.beginStream()
	control := http.NewResponseController(x.w)
	var feed feeder = s
	if x.forwarded > x.bounds.Output {
		r := x.newRolling(s)
		defer r.stop()
		feed = r
	}
	x.pump(feed, func(out []byte, last bool) error {
		x.patience(len(out))
		if _, err := x.w.Write(out); err != nil || last { // what came with the end goes out with it
			return err
		}
		defer x.calm()
		return control.Flush()
	})
	report := s.Report()
	x.result.Delivered = report.Counts.Output()
	if x.result.Outcome == usage.Completed {
		x.answer.backend.proved(s)
	}
	return report
}

// gather makes one whole answer of an event stream.
func (x *exchange) gather(o meter.Options) meter.Report {
	x.gathered = meter.NewGather(x.answer.backend.dialect, o, int(x.g.Limits.MaxBytes))
	x.pump(gatherer{x.gathered, x.started}, func([]byte, bool) error { return nil })
	report := x.gathered.Report()
	if x.result.Outcome == usage.Completed {
		x.result.Delivered = report.Counts.Output()
	}
	return report
}

// feeder is what a stream from an engine is fed into.
type feeder interface {
	Feed(in []byte) (out []byte, ev meter.Event, err error)
	End() (out []byte, ev meter.Event)
	Seen() int64
	Report() meter.Report
}

// gatherer is a feeder that relays nothing.
type gatherer struct {
	*meter.Gather
	since time.Time
}

// Feed takes a breath after what does not end the answer: nobody waits for a part of it, and a read of several tokens costs
// what one of a single token costs. The breath is a sixty-fourth of the time that the answer has taken so far, which is what
// it can be late by, and shorter than a hang-up may go unnoticed.
func (g gatherer) Feed(in []byte) ([]byte, meter.Event, error) {
	ev, err := g.Gather.Feed(in)
	if ev == meter.None && err == nil && len(in) > 0 {
		time.Sleep(min(max(time.Since(g.since)/64, shortBreath), longBreath))
	}
	return nil, ev, err
}

const (
	shortBreath = 500 * time.Microsecond
	longBreath  = 50 * time.Millisecond
)

func (g gatherer) End() ([]byte, meter.Event) { return nil, g.Gather.End() }

func (g gatherer) Seen() int64 {
	r := g.Gather.Report()
	return r.Counts.Output()
}

// pump moves an event stream from the engine to write, until it ends one way or another, and notes the outcome. write is
// told when the end of the stream came with what it gets.
func (x *exchange) pump(s feeder, write func(out []byte, last bool) error) {
	r := &x.result
	if cap(x.buf) < 8<<10 {
		x.buf = make([]byte, 0, 16<<10)
	}
	buf := x.buf[:cap(x.buf)]
	idle := x.watchSilence(x.g.Limits.Header) // the head of a stream comes at once, its first event when a prompt has been read
	defer idle.Stop()
	marked, markedAt := int64(0), x.started
	for {
		n, readErr := x.answer.Read(buf)
		out, ev, err := s.Feed(buf[:n])
		if len(out) > 0 && write(out, ev == meter.Finished) != nil {
			r.Outcome, r.Fault = usage.ClientGone, usage.Client
			return
		}
		if ev == meter.None && err == nil && readErr == io.EOF {
			if out, ev = s.End(); len(out) > 0 && write(out, true) != nil {
				r.Outcome, r.Fault = usage.ClientGone, usage.Client
				return
			}
		}
		if x.ended(ev, err, readErr) {
			return
		}
		idle.Reset(x.g.Limits.Idle)
		if seen := s.Seen(); seen >= marked+checkpointTokens || seen > marked && x.g.Clock.Now().Sub(markedAt) >= checkpointTime {
			marked, markedAt = seen, x.g.Clock.Now()
			report := s.Report()
			x.g.Ledger.Checkpoint(x.hold, report.Counts, report.Source)
		}
	}
}

// ended notes how a stream ended, if it has.
func (x *exchange) ended(ev meter.Event, err, readErr error) bool {
	r := &x.result
	switch {
	case err != nil:
		x.broken(err)
	case ev == meter.Finished:
		r.Outcome = usage.Completed
	case ev == meter.OverBound:
		r.Outcome, r.Flags = usage.Cut, r.Flags|usage.FlagOverBound
	case ev == meter.EngineError:
		r.Outcome, r.Fault = usage.Broken, usage.Engine
		x.failure = refusal.New(refusal.EngineUnavailable, "The engine reported a failure in mid-answer. By the tariff's rule for faults of ours, it is not charged unless your contract says so.")
	case readErr != nil:
		x.broken(readErr)
	default:
		return false
	}
	return true
}

// Values of headers that are the same on every answer. net/http only reads them.
var (
	contentSSE = []string{"text/event-stream; charset=utf-8"}
	noCache    = []string{"no-cache"}
	unbuffered = []string{"no"}
	timesOne   = []string{"1"}
)

func (x *exchange) beginStream() {
	h := x.w.Header()
	h["Content-Type"] = contentSSE
	h["Cache-Control"] = noCache
	h["X-Accel-Buffering"] = unbuffered
	x.stamp(h)
	x.w.WriteHeader(http.StatusOK)
	x.wrote, x.streaming = true, true
}

// servedTier is the service tier that an answer tells: none where the request names none.
func (x *exchange) servedTier() string {
	if x.req.tier == "" {
		return ""
	}
	return x.req.served()
}

// stamp says on the answer what served it and under which price.
func (x *exchange) stamp(h http.Header) {
	s, micros := x.offer.Subject, x.result.FirstMicros
	if !x.req.stream { // it was made before it began
		micros = x.result.TotalMicros
	}
	values := [3]string{s.Book + "@" + s.BookVersion, s.Model, strconv.FormatInt(micros/1000, 10)}
	h["X-Price-Version"], h["X-Model-Served"], h["Openai-Processing-Ms"] = values[0:1:1], values[1:2:2], values[2:3:3]
	if x.req.tier != "" {
		h["X-Service-Tier"] = []string{x.result.TierServed}
	}
	h["X-Price-Multiplier"] = timesOne
	if x.forwarded < x.wanted {
		h["X-Max-Tokens-Clamped"] = []string{strconv.FormatInt(x.forwarded/x.answers(), 10)}
	}
	if x.row.Multiplier != 1_000_000 {
		h["X-Price-Multiplier"] = []string{price.MultiplierText(x.row.Multiplier)}
	}
}

// finish sends the end of the answer: only now that its settlement is durable.
func (x *exchange) finish(rec *usage.Record, err error) error {
	if err != nil {
		if errors.Is(err, ledger.ErrUnavailable) || !x.wrote {
			return err
		}
		return x.internal()
	}
	if x.failure != nil {
		return x.failure
	}
	cost := meter.Cost{Amount: rec.Charge.String(), Currency: rec.Subject.Currency}
	told, other := &rec.Counts, (*usage.Counts)(nil)
	if rec.Flags&usage.FlagOverBound != 0 && !rec.Billed.Empty() { // what is above the hold is not charged, and not told as used
		told, other = &rec.Billed, &rec.Billed
	}
	switch {
	case rec.Outcome == usage.ClientGone:
		return errClientGone
	case x.req.stream:
		return x.finishStream(rec, told, cost)
	case x.answer.gather:
		x.send = x.gathered.Body(x.send[:0], told, cost)
	default:
		x.send = meter.SpliceCost(x.send[:0], x.buf, other, cost)
	}
	if x.req.tier != "" {
		x.send = meter.SpliceTier(nil, x.send, x.result.TierServed)
	}
	h := x.w.Header()
	h["Content-Type"] = contentJSON
	h["X-Cost"] = []string{cost.Amount}
	h["X-Cost-Currency"] = []string{cost.Currency}
	h["Content-Length"] = []string{strconv.Itoa(len(x.send))}
	x.stamp(h)
	x.wrote = true
	x.patience(len(x.send))
	_, err = x.w.Write(x.send)
	if err != nil {
		return errClientGone // it is settled, and the receipt tells
	}
	return nil
}

func (x *exchange) finishStream(rec *usage.Record, told *usage.Counts, cost meter.Cost) error {
	x.patience(0)
	if rec.Outcome == usage.Cut {
		if _, err := x.w.Write(x.stream.Cut()); err != nil {
			return errClientGone
		}
	}
	if !x.req.showUsage { // else the usage of the last chunk tells it
		h := x.w.Header()
		h[http.TrailerPrefix+"X-Cost"] = []string{cost.Amount}
		h[http.TrailerPrefix+"X-Cost-Currency"] = []string{cost.Currency}
	}
	if _, err := x.w.Write(x.stream.Tail(told, cost)); err != nil {
		return errClientGone
	}
	return nil
}
