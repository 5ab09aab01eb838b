package sim

import (
	"compress/gzip"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"time"
)

// generation is one request on its way through an engine.
type generation struct {
	e       *Engine
	w       http.ResponseWriter
	control *http.ResponseController
	sink    io.Writer
	ctx     context.Context
	kind    endpoint
	q       *request
	model   *Model
	id      string

	input   Tokens  // of the prompt
	lengths []int64 // output tokens of each choice
	thought int64   // so many of them come first and are reasoning
	bounded bool    // the request's bound cut the answer short
	token   time.Duration

	fault  string
	at     int64 // the fault strikes after so many output tokens
	struck bool
	made   Tokens
	work   *Work // its page in the engine's book
	seen   Answer
	ended  bool // the books of this request are closed
}

// run generates the answer. It returns nil when all of it was written, errFault when a fault ended it, and any other
// error when the client did.
func (g *generation) run() error {
	if g.before() {
		return errFault
	}
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	if err := g.prefill(); err != nil {
		return err
	}
	switch {
	case g.kind == embeddings:
		return g.whole(g.embeddings())
	case g.q.Stream:
		return g.stream()
	}
	if err := g.decode(func(int, int64, int64) error { return nil }); err != nil {
		return err
	}
	return g.whole(g.answer())
}

// plan decides what will be generated. The marker decides first, then the seed and the prompt.
func (g *generation) plan() error {
	q, s := g.q, &g.q.steer
	text := q.text()
	g.input.Input = max(s.input, 0)
	if s.input < 0 {
		g.input.Input = q.inputTokens()
	}
	if g.input.Input >= g.model.context() {
		return errors.New("the prompt is longer than the model's context")
	}
	g.e.mu.Lock()
	g.input.Cached = min(g.e.prefix.take(q.Salt, text), max(0, g.input.Input-1))
	g.e.mu.Unlock()
	if s.cached >= 0 {
		g.input.Cached = s.cached
	}
	g.token = time.Duration(g.model.Parameters / 1200 / g.e.o.GPUs)
	if g.kind == embeddings {
		return nil
	}
	for i := range q.N * int64(max(1, q.Prompt.n)) {
		g.lengths = append(g.lengths, g.length(text, i))
	}
	if g.thought = max(0, s.reasoning); s.reasoning < 0 && q.Effort != "" && q.Effort != "none" {
		g.thought = g.lengths[0] / 2
	}
	if g.at = s.at; g.at < 0 {
		g.at = (sum(g.lengths) + 1) / 2
	}
	return nil
}

// length is how many tokens a choice takes.
func (g *generation) length(text string, choice int64) int64 {
	bound := g.model.context() - g.input.Input
	if g.q.MaxTokens > 0 {
		bound = min(bound, g.q.MaxTokens)
	}
	want := g.q.steer.output
	if want < 0 {
		h := fnv.New64a()
		io.WriteString(h, decimal(int64(g.e.o.Seed))+"/"+decimal(choice)+"/"+text)
		x := h.Sum64()
		want = 16 + int64(x>>8%256*(x>>32%256)/160) // mostly short, at most 422
	}
	if g.fault == "overrun" {
		return max(want, 4*g.q.MaxTokens)
	}
	g.bounded = g.bounded || want >= bound
	return min(want, bound)
}

// enter waits for a slot.
func (g *generation) enter() error {
	if g.e.slots != nil {
		g.e.waiting.Add(1)
		defer g.e.waiting.Add(-1)
		select {
		case g.e.slots <- struct{}{}:
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		}
	}
	g.e.running.Add(1)
	return nil
}

func (g *generation) leave() {
	g.e.running.Add(-1)
	if g.e.slots != nil {
		<-g.e.slots
	}
}

// prefill reads the prompt: a fiftieth of an output token's time for each token that is not cached.
func (g *generation) prefill() error {
	d := g.q.steer.first
	if d < 0 {
		d = g.token/2 + time.Duration(g.input.Input-g.input.Cached)*g.token/50
	}
	if err := g.e.o.Sleep(g.ctx, d); err != nil {
		return err
	}
	g.book(g.input)
	return nil
}

// end closes the books of the request, once: before the last byte of an answer is written, so that whoever has read it
// finds it in the books.
func (g *generation) end(o Outcome) {
	if g.ended {
		return
	}
	g.ended = true
	g.seen.Outcome, g.seen.Tokens = o, g.made
	g.e.end(g.work, g.seen)
}

func (g *generation) book(t Tokens) {
	g.made.add(t)
	g.e.book(g.work, t)
}

// decode generates the choices side by side. emit is told of each event: its choice, how many tokens it has and how many
// came before it.
func (g *generation) decode(emit func(choice int, tokens, before int64) error) error {
	for step := int64(0); ; step++ {
		more, paused := false, false
		for i, length := range g.lengths {
			events := g.events(length)
			if step >= events {
				continue
			}
			before, after := length*step/events, length*(step+1)/events
			if !paused {
				if err := g.pause(step, after-before); err != nil {
					return err
				}
				more, paused = true, true
			}
			thought := max(0, min(after, g.thought)-min(before, g.thought))
			g.book(Tokens{Output: after - before, Reasoning: thought})
			if err := emit(i, after-before, before); err != nil {
				return err
			}
			if err := g.strike(); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// events is how many events a choice takes: one for each token unless the marker says otherwise.
func (g *generation) events(length int64) int64 {
	if n := g.q.steer.chunks; n > 0 {
		return min(n, length)
	}
	return length
}

func (g *generation) pause(step, tokens int64) error {
	d := g.q.steer.delay
	switch {
	case d < 0:
		d = g.token * time.Duration(tokens)
	case step == 0 || g.fault == "slow":
		d = 0
	}
	return g.e.o.Sleep(g.ctx, d)
}

// begin writes the head of an answer.
func (g *generation) begin(form string) {
	g.sink = g.w
	switch g.fault {
	case "html":
		form = "text/html"
	case "gzip":
		g.w.Header().Set("Content-Encoding", "gzip")
		g.sink = gzip.NewWriter(g.w)
	}
	g.w.Header().Set("Content-Type", form)
}

// write sends a piece of the answer at once.
func (g *generation) write(b []byte) error {
	if g.fault == "slow" {
		return g.slowly(b)
	}
	if _, err := g.sink.Write(b); err != nil {
		return err
	}
	if z, ok := g.sink.(*gzip.Writer); ok {
		z.Flush()
	}
	return g.control.Flush()
}

// whole writes an answer in one piece.
func (g *generation) whole(body []byte) error {
	g.begin("application/json")
	body, over := g.spoil(body)
	if over {
		return errFault
	}
	if g.fault != "gzip" {
		g.w.Header().Set("Content-Length", decimal(int64(len(body))))
	}
	return g.last(body)
}

// last writes the last piece of an answer.
func (g *generation) last(b []byte) error {
	g.end(Completed)
	err := g.write(b)
	if z, ok := g.sink.(*gzip.Writer); ok {
		z.Close()
	}
	return err
}

func sum(list []int64) (n int64) {
	for _, x := range list {
		n += x
	}
	return n
}

// lesson is what every model here has to say, over and over.
var lesson = strings.Fields(`A tally was a stick of hazel. Both parties met, cut a notch for every unit owed, and split the
	stick along its length. Each kept one half. Neither could add a notch alone, because the halves would no longer match.
	When the debt was paid they laid the two together, looked, and broke them. The clerk of the exchequer trusted wood more
	than words, since wood does not forget and cannot be persuaded. A meter should be no less: it counts what was used,
	it shows the count to whoever pays, and it lets both sides check the sum.`)

// words are tokens from..to of an answer.
func words(from, to int64) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(lesson[i%int64(len(lesson))])
	}
	return b.String()
}
