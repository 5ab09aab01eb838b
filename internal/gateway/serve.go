package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/catalog"
	"talea/internal/crash"
	"talea/internal/engine"
	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/meter"
	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/quote"
	"talea/internal/rating"
	"talea/internal/refusal"
	"talea/internal/usage"
	"talea/internal/world"
)

type accountID = account.ID

// exchange is one request on its way through the gateway. Exchanges and their buffers are used again.
type exchange struct {
	g  *Gateway
	w  http.ResponseWriter
	r  *http.Request
	ep *endpoint

	id               usage.ID
	started          time.Time
	asOf             time.Time     // of the offering and its price: later than started where it has waited for a slot
	slot             *line         // that it has taken; nil for none
	given            *quote.Tokens // what an operator's estimate is about, instead of a prompt; nil for all requests
	degradedTo       string        // the model that is used instead of the one that was asked for; "" for none
	ctx              context.Context
	cancel           context.CancelCauseFunc
	snap             *world.Snapshot
	key              *world.Key
	offer            *world.Offer
	req              request
	bounds           usage.Bounds
	row              *price.Row
	position         rating.Position // where the row's counters stand
	money            money.Amount
	sharpened        bool  // an engine was asked for the prompt's tokens, if one could be
	counted          bool  // and what is held of the input is what it said
	inputBound       int64 // of the prompt, before that
	wanted           int64 // output of all answers: what would have been held if all had room
	forwarded        int64 // and what the engine was allowed
	ask              ledger.Ask
	hold             *ledger.Hold
	taken            int64 // tokens taken from rates
	reserved         int64 // bytes of memory for the body
	asking           *backend
	answer           answer
	stream           meter.Stream
	gathered         *meter.Gather
	failure          error // why an answer broke, for the client
	result           usage.Result
	wrote, streaming bool      // an answer has begun; it is a stream
	patientTo        time.Time // where a write deadline stands: that one

	body  []byte // of the request
	head  []byte // of the request to the engine
	out   engine.Request
	send  []byte // what goes to the engine
	buf   []byte // what comes from it
	tries [4]usage.Attempt
}

// begin takes a request over. What an earlier request left is cleared here and in end.
func (x *exchange) begin(w http.ResponseWriter, r *http.Request) {
	x.w, x.r = w, r
	x.started = x.g.Clock.Now()
	x.asOf = x.started
	x.id = x.g.ids.Mint(x.started)
	x.snap = x.g.World.Current()
	w.Header()["X-Request-Id"] = []string{x.id.String()}
	x.unhurried() // the deadline of the connection's last request may still stand
}

// patience gives the client time to take what is about to be sent: some for anything, and 1 s for each 16 KiB. Where a
// deadline can stand, it is set a quarter further than it must be, and stays while it is far enough: a stream moves it now
// and then, not at each event.
func (x *exchange) patience(size int) {
	due := time.Now().Add(x.g.Limits.Write + time.Duration(size>>14)*time.Second)
	if x.canStand() {
		if x.patientTo.After(due) {
			return
		}
		due = due.Add(x.g.Limits.Write / 4)
		x.patientTo = due
	}
	http.NewResponseController(x.w).SetWriteDeadline(due)
}

// calm is for when what was to be sent is on its way, and more will come. It takes the deadline back where that must not
// stand.
func (x *exchange) calm() {
	if !x.canStand() {
		x.unhurried()
	}
}

// canStand says whether a deadline does nothing while nothing is being written. Over HTTP/2 one that passes ends the
// stream; TLS may answer the client's side on its own, and is broken for good when it cannot.
func (x *exchange) canStand() bool { return x.r.ProtoMajor < 2 && x.r.TLS == nil }

// unhurried takes the deadline back.
func (x *exchange) unhurried() {
	http.NewResponseController(x.w).SetWriteDeadline(time.Time{})
}

func (x *exchange) end() {
	if x.answer.Response != nil {
		x.answer.Close()
	}
	x.leave()
	if x.reserved > 0 {
		x.g.bodies.Add(-x.reserved)
	}
	if x.cancel != nil {
		x.g.mu.Lock()
		delete(x.g.active, x)
		x.g.mu.Unlock()
		x.cancel(nil)
	}
	x.req.reset()
	*x = exchange{g: x.g, req: x.req, stream: x.stream, body: keep(x.body), head: x.head[:0], send: keep(x.send), buf: keep(x.buf)}
}

// keep keeps a buffer for the next request unless it has grown large.
func keep(b []byte) []byte {
	if cap(b) > 64<<10 {
		return nil
	}
	return b[:0]
}

// serve is the way of one metered request, in nine hops. Before the hold nothing is held; after it every way out settles.
func (x *exchange) serve() error {
	if err := x.authenticate(); err != nil { // who; before the body, so that a stranger cannot make us read it
		return err
	}
	if err := x.parse(); err != nil { // what
		return err
	}
	if err := x.resolve(); err != nil { // which offering, and may it be used with these members
		return err
	}
	if err := x.enter(); err != nil { // a slot, where the model has only so many
		return err
	}
	if err := x.bound(); err != nil { // the most it can use, and the most that can cost
		return err
	}
	crash.At(crash.Parsed)
	if err := x.afford(); err != nil { // durable on every limit of the path, or on none
		return err
	}
	crash.At(crash.Held)
	if err := x.forward(); err != nil { // the first engine that answers
		return x.settleNothing(err)
	}
	x.relay()                   // bytes to the client, usage to the record
	return x.finish(x.settle()) // posted and durable; then the end of the answer
}

// authenticate finds the key, and registers the request as running under it.
func (x *exchange) authenticate() error {
	if x.g.draining.Load() {
		x.w.Header().Set("Connection", "close")
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "This gateway is shutting down: try again, another one will answer."}
	}
	if x.g.shedding.Load() {
		x.w.Header().Set("Connection", "close")
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "This gateway has no memory for more requests: try again shortly. Nothing was charged."}
	}
	h := x.r.Header
	key, no := identity.Authenticate(x.snap, x.g.Hasher, h.Get("Authorization"), h.Get("X-Api-Key"))
	if no != nil {
		return no
	}
	if no := agrees(h, key); no != nil {
		return no
	}
	x.key = key
	x.ctx, x.cancel = context.WithCancelCause(x.r.Context())
	x.g.mu.Lock()
	x.g.active[x] = struct{}{}
	x.g.mu.Unlock()
	// From here on a change of the world finds this request. One that came between the look-up and now has not.
	if now := x.g.World.Current(); now != x.snap && ended(now, key) {
		return refusal.New(refusal.KeyRevoked, "This API key has been revoked.")
	}
	return nil
}

// agrees checks OpenAI's headers that name an organisation and a project: they must not contradict the key.
func agrees(h http.Header, key *world.Key) *refusal.Refusal {
	if org := h.Get("Openai-Organization"); org != "" && org != string(key.Account.Path.Organisation()) {
		return refusal.At(refusal.Malformed, "OpenAI-Organization", "The header OpenAI-Organization names another organisation than the key's.")
	}
	if project := h.Get("Openai-Project"); project != "" && project != string(key.Account.Path) {
		return refusal.At(refusal.Malformed, "OpenAI-Project", "The header OpenAI-Project names another project than the key's.")
	}
	return nil
}

// parse reads the body whole and scans it.
func (x *exchange) parse() error {
	if err := x.receive(); err != nil {
		return err
	}
	if no := x.req.parse(x.ep, x.body); no != nil {
		return no
	}
	return nil
}

// receive reads the body whole.
func (x *exchange) receive() error {
	h := x.r.Header
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return refusal.New(refusal.UnsupportedEncoding, "Send the request body without Content-Encoding: compressed bodies are not accepted.")
	}
	if key := h.Get("Idempotency-Key"); len(key) > maxName || !printable(key) {
		return refusal.At(refusal.Malformed, "Idempotency-Key", fmt.Sprintf("The header Idempotency-Key must be at most %d printable ASCII characters.", maxName))
	}
	return x.readBody()
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// readBody reads the body whole: a server that forwards what is still arriving truncates answers when a client stops.
func (x *exchange) readBody() error {
	size := x.r.ContentLength
	if size > maxBody {
		return refusal.New(refusal.TooLarge, fmt.Sprintf("The request body is larger than %d bytes.", maxBody))
	}
	control := http.NewResponseController(x.w)
	since, due := time.Now(), int64(0)
	b, err := readAll(x.body[:0], x.r.Body, size, maxBody+1, func(n int64) error {
		if n < due {
			return nil
		}
		// The deadline moves with what has come: 1 s for each 32 KiB.
		control.SetReadDeadline(since.Add(x.g.Limits.Body + time.Duration(n>>15)*time.Second))
		due = n + bodyStep
		return x.reserve(n)
	})
	x.body = b
	var no *refusal.Refusal
	if errors.As(err, &no) {
		return no
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		x.w.Header().Set("Connection", "close")
		return refusal.New(refusal.Malformed, "The request body ended before all of it had come.")
	}
	if err != nil {
		if x.r.Context().Err() != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return errClientGone
		}
		x.w.Header().Set("Connection", "close")
		return refusal.New(refusal.RequestTimeout, "The request body did not arrive whole and in time.")
	}
	if len(b) > maxBody {
		return refusal.New(refusal.TooLarge, fmt.Sprintf("The request body is larger than %d bytes.", maxBody))
	}
	control.SetReadDeadline(time.Time{})
	return nil
}

// bodyStep is how much of a body comes between two looks at its deadline and at the memory for all bodies.
const bodyStep = 64 << 10

// reserve takes memory for a body of which n bytes have come, and for what comes until the next look. Small bodies take
// none: there are no more of them than connections.
func (x *exchange) reserve(n int64) error {
	if n < bodyStep {
		return nil
	}
	more := 2*(n+bodyStep) - x.reserved // a buffer doubles when it grows
	x.reserved += more
	if x.g.bodies.Add(more) > x.g.Limits.Bodies {
		x.w.Header().Set("Connection", "close")
		return &refusal.Refusal{Code: refusal.Overloaded, RetryAfter: x.jitter(), Message: "Too many large requests are in the path: try again shortly."}
	}
	return nil
}

// readAll appends what r has to b, up to most bytes. size is what is expected, -1 for unknown; it is a promise, and memory
// comes with the bytes. before is called before each read with what has come so far, and may end the reading.
func readAll(b []byte, r io.Reader, size, most int64, before func(int64) error) ([]byte, error) {
	if want := int(min(size, bodyStep)) + 1; size >= 0 && cap(b) < want {
		b = make([]byte, 0, want)
	}
	for int64(len(b)) < most {
		if err := before(int64(len(b))); err != nil {
			return b, err
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(int64(cap(b)), most)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// resolve finds the offering, and checks every member of the body against the tables of its engines.
func (x *exchange) resolve() error {
	offer, err := x.key.Offer(x.req.model)
	if x.degradedTo != "" {
		offer, err = x.key.Degraded(x.req.model, x.degradedTo)
	}
	if err != nil {
		return offerRefusal(x.req.model, err)
	}
	x.offer = offer.At(x.asOf)
	if x.offer.Quarantined {
		return refusal.At(refusal.ModelQuarantined, "model", "This model is out of service until its operator has looked at it: an engine counted more tokens than it can have. Nothing was charged.")
	}
	return x.admit()
}

// bound finds the most that the request can use and cost, and takes that from the paces of the path.
func (x *exchange) bound() error {
	if err := x.price(); err != nil {
		return err
	}
	x.taken = quotaTokens(x.bounds)
	if no := x.g.paces.take(x.key.Account, x.started.UnixNano(), x.taken); no != nil {
		x.taken = 0
		return no
	}
	x.g.paces.headers(x.w.Header(), x.key.Account, x.started.UnixNano())
	return nil
}

// price finds the most that the request can use and what that can cost at the price row of this instant, which is locked.
func (x *exchange) price() error {
	row, err := x.g.row(x.offer, x.req.served(), x.asOf)
	if err != nil {
		return notPriced(x.req.model, err)
	}
	x.row, x.position = row, x.g.Ledger.Position(x.offer.Subject, row)
	if no := x.acceptable(); no != nil {
		return no
	}
	if x.bounds, err = x.offer.Model.Bounds(x.req.shape); err != nil {
		return boundRefusal(err)
	}
	if x.money, err = x.ceiling(x.bounds); err != nil {
		return notPriced(x.req.model, err)
	}
	if no := x.cheapEnough(); no != nil {
		return no
	}
	return nil
}

func quotaTokens(b usage.Bounds) int64 {
	if b.Joint > 0 {
		return min(b.Input+b.Output, b.Joint)
	}
	return b.Input + b.Output
}

func (x *exchange) ceiling(b usage.Bounds) (money.Amount, error) {
	return rating.Ceiling(b, x.offer.Subject.Work, x.row, x.position)
}

func notPriced(model string, err error) error {
	var noTier price.ErrNoTier
	if errors.As(err, &noTier) {
		return refusal.At(refusal.UnsupportedParameter, "service_tier", fmt.Sprintf("Service tier %q is not offered here. The tiers are %s; \"auto\" and \"default\" are standard.",
			noTier.Tier, strings.Join(noTier.Known, ", ")))
	}
	var missing price.ErrNotPriced
	if errors.As(err, &missing) {
		return refusal.At(refusal.ModelNotPriced, "model", fmt.Sprintf("The model %q has no price for %s: it cannot be used until it has one.", clip([]byte(model)), missing.Meter))
	}
	return fmt.Errorf("cannot price a request: %w", err)
}

func boundRefusal(err error) error {
	var no *catalog.NoBound
	if errors.As(err, &no) {
		return refusal.New(refusal.NoBound, no.Error())
	}
	return fmt.Errorf("cannot bound a request: %w", err)
}

// settle posts what was used. It is called once for every hold.
func (x *exchange) settle() (*usage.Record, error) {
	h := x.hold
	x.hold = nil
	x.leave()
	x.result.TotalMicros = x.g.Clock.Now().Sub(x.started).Microseconds()
	rec, err := x.g.Ledger.Settle(h, &x.result)
	crash.At(crash.Settled)
	// What a request did not use of its pace goes back. Nobody knows how much that is where an answer was given up before
	// its usage came: then it counts for what was held.
	if err == nil && (rec.Source == usage.EngineFinal || rec.Outcome == usage.Unserved || rec.Outcome == usage.EngineSaid) {
		x.g.paces.give(x.key.Account, max(0, x.taken-rec.Counts.Input()-rec.Counts.Output()))
	}
	x.count()
	if err == nil {
		x.learn(rec)
	}
	if errors.Is(err, ledger.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", errUnsettled, err)
	}
	return rec, err
}

// errUnsettled says that nobody knows whether a settlement is on the disk.
var errUnsettled = errors.New("cannot settle")

func (x *exchange) count() {
	c := &x.g.counters
	switch x.result.Outcome {
	case usage.Completed, usage.Cut:
		c.Completed.Add(1)
	case usage.ClientGone:
		c.ClientGone.Add(1)
	case usage.Broken:
		c.Broken.Add(1)
	}
}

// settleNothing ends a request that no engine served: the hold is released, and the refusal goes out after that.
func (x *exchange) settleNothing(cause error) error {
	if x.result.Outcome == usage.Open {
		x.result.Outcome, x.result.Fault = usage.Unserved, usage.Engine
	}
	if _, err := x.settle(); err != nil {
		return err
	}
	return cause
}

// refusalOrNil turns the error of a hop into the refusal that the client gets, nil if there is nobody or nothing to answer.
func (x *exchange) refusalOrNil(err error) *refusal.Refusal {
	if errors.Is(err, errClientGone) && x.ctx != nil {
		err = x.whyCut() // we may have been the ones who ended it
	}
	if err == nil || errors.Is(err, errClientGone) {
		return nil
	}
	return x.refusalOf(err)
}

// refuse answers with a refusal and, where the caller is known, keeps it for `why`.
func (x *exchange) refuse(no *refusal.Refusal) {
	x.g.counters.Refused.Add(1)
	x.g.counters.ByRefusal[no.Code].Add(1)
	if x.key != nil && x.ep != nil && x.ep.metered != "" {
		x.keepRefusal(no)
	}
	x.patience(0)
	if x.wrote {
		if x.streaming {
			x.w.Write(errorEvent(nil, no))
		}
		return
	}
	x.refused(no)
}

// refusalRecord is what is kept of a refusal. It has no content.
type refusalRecord struct {
	RequestID string          `json:"request_id"`
	Status    string          `json:"status"` // "refused"
	At        time.Time       `json:"at"`
	Account   string          `json:"account"`
	Key       string          `json:"key"`
	Endpoint  string          `json:"endpoint"`
	Model     string          `json:"model,omitempty"`
	Code      string          `json:"code"`
	Message   string          `json:"message,omitempty"` // not kept where it may quote the request
	Budget    *refusal.Budget `json:"budget,omitempty"`
}

func (x *exchange) keepRefusal(no *refusal.Refusal) {
	rec := refusalRecord{
		RequestID: x.id.String(), Status: "refused", At: x.started.UTC(), Account: string(x.key.Account.Path), Key: x.key.Public,
		Endpoint: x.ep.name, Code: no.Code.Row().Name, Message: no.Message, Budget: no.Budget,
	}
	if x.offer != nil {
		rec.Model = x.offer.Model.Name // a name that nobody knows is the caller's text, and is not kept
	}
	if s := no.Code.Row().Status; s == http.StatusBadRequest || s == http.StatusNotFound {
		rec.Message = "" // it may quote the request
	}
	body, err := json.Marshal(&rec)
	if err != nil {
		x.g.log.Error("bug: a refusal cannot be written", "request", rec.RequestID, "error", err)
		return
	}
	x.g.Ledger.Refuse(x.id, body)
}

// panicked is the end of a request that met a bug of ours: it is settled by the platform-fault rule.
func (x *exchange) panicked(p any) {
	x.g.log.Error("bug: panic in a request", "request", x.id.String(), "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	if x.hold != nil {
		x.result.Outcome, x.result.Fault = usage.Broken, usage.Gateway
		if _, err := x.settle(); err != nil {
			x.g.log.Error("cannot settle after a panic; the next start will", "request", x.id.String(), "error", err)
		}
	}
	x.refuse(x.internal())
}
