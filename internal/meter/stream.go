// Package meter reads usage off the wire while an answer flows: Stream relays the event stream of an engine byte for
// byte but for what the client did not ask for, Gather makes one whole answer of a stream, ReadAnswer reads a whole
// answer. It opens no connection, starts no goroutine, decides no limit and prices nothing (gateway, ledger, rating).
//
// # Invariants
//
//   - What is relayed is what the engine sent, less whole events and members that are hidden, however it was cut up.
//   - No usage that the client did not ask for, no [DONE] and no error of the engine reaches the client through Feed.
//   - Counts are the engine's final usage, else its running usage, else the number of non-empty deltas; never less than
//     running usage has been, never a ratio of bytes.
//   - A Stream keeps at most one event, its first chunk's name tags, and what is around the last chunk's text; no text.
//   - Nothing an engine sends makes it panic or hold more than Options.MaxEvent.
//
// Start reading at Stream.Feed, then read.
package meter

import (
	"bytes"
	"errors"

	"talea/internal/engine"
)

// Event says what Feed came upon.
type Event uint8

// Events. After each but None, the caller acts before it feeds on.
const (
	None        Event = iota
	Finished          // the answer is complete; its end and final usage are held back: settle, then write Tail
	EngineError       // the engine reported a failure, which is held back: engineMessage
	OverBound         // more output than Options.OutputBound was seen: Cut, or SetBound and Feed(nil)
)

// ErrTooLong is the error for an event, or a line, longer than Options.MaxEvent.
var ErrTooLong = errors.New("an event of the engine's stream is too long")

// defaultMaxEvent is the longest event that passes, in bytes: lines of 2 MiB and what frames them.
const defaultMaxEvent = 2<<20 + 4096

// Options say what was asked. The zero value is one prompt, one choice, no usage for the client, no bound.
type Options struct {
	Prompts     int    // prompts in the request, 0 is 1
	Choices     int    // choices for each prompt, 0 is 1
	ShowUsage   bool   // the client asked for usage at the end
	Tier        string // the service tier that is served, for the chunk with that usage; "" leaves it out
	ShowRunning bool   // the client itself asked for the dialect's running usage
	MaxEvent    int    // in bytes, 0 is defaultMaxEvent
	OutputBound int64  // most output tokens of all choices together, 0 is none
}

// Stream relays and meters one event stream. It is used by one goroutine at a time and can be Reset and used again.
type Stream struct {
	d *engine.Dialect
	o Options

	pend, spare []byte    // the event that has not ended; the buffer of the one before
	line, scan  int       // in pend: where its last line begins, and how far line ends were looked for
	data        []segment // the data lines of the event that has not ended
	begun       bool      // the first line is over: no byte order mark can follow
	cr          bool      // the last byte ended a line by CR: an LF right behind it belongs to it
	hidden      bool      // the last event was not relayed
	ended       bool      // nothing more is read

	out      []byte // what is relayed, where it is not one piece of the input
	from, to int    // the last piece of the input that is relayed

	joined []byte // the data of an event of several lines
	spots  []spot // members of the event that may be hidden, in order
	cuts   []span // what is hidden of its data
	like   pattern

	head      []byte // `"id":…,"object":…,"created":…,"model":…` of the first chunk
	text      bool   // the stream is one of text completions
	last      []byte // the last chunk of usage alone, and its usage member
	lastUsage span
	failure   []byte // the engine's error member
	tail      []byte // what Tail and Cut return

	malformed int64
	keep      *Gather // takes the text, where a whole answer is made
	tally
}

// segment is the value of one data line: n bytes, from bytes behind the beginning of the event.
type segment struct{ from, n int }

type span struct{ from, to int }

// newStream returns a Stream for one answer of an engine that speaks d.
func newStream(d *engine.Dialect, o Options) *Stream {
	s := &Stream{}
	s.Reset(d, o)
	return s
}

// maxKept bounds what a Stream keeps for its next use, in bytes for each buffer.
const maxKept = 64 << 10

// Reset makes s ready for another answer. Small buffers are used again.
func (s *Stream) Reset(d *engine.Dialect, o Options) {
	if o.MaxEvent == 0 {
		o.MaxEvent = defaultMaxEvent
	}
	o.Prompts, o.Choices = max(1, o.Prompts), max(1, o.Choices)
	again := func(b []byte) []byte {
		if cap(b) > maxKept {
			return nil
		}
		return b[:0]
	}
	if cap(s.choices) > maxKept/128 || cap(s.data)+cap(s.spots)+cap(s.cuts)+cap(s.like.spots) > maxKept/16 {
		s.choices, s.data, s.spots, s.cuts, s.like = nil, nil, nil, nil, pattern{}
	}
	*s = Stream{
		d: d, o: o, data: s.data[:0], spots: s.spots[:0], cuts: s.cuts[:0],
		pend: again(s.pend), spare: again(s.spare), out: again(s.out), joined: again(s.joined),
		head: again(s.head), last: again(s.last), failure: again(s.failure), tail: again(s.tail),
		like:  pattern{rest: s.like.rest[:0], spots: s.like.spots[:0]},
		tally: tally{choices: s.choices[:0], final: engine.NoTokens},
	}
}

// Feed takes the next bytes of the engine's stream and returns what goes to the client now: whole events, and comments
// at once. out is good until the next call and may be part of in. After an error or an event other than OverBound
// nothing more is read.
func (s *Stream) Feed(in []byte) (out []byte, ev Event, err error) {
	s.out, s.from, s.to = s.out[:0], 0, 0
	if s.ended {
		return nil, None, nil
	}
	buf := in
	if len(s.pend) > 0 {
		s.pend = append(s.pend, in...)
		buf = s.pend
	}
	start, line, at := 0, s.line, s.scan
	if s.cr && at < len(buf) {
		start, line, at = s.lineFeed(buf, line, at)
	}
	for newline := -1; ev == None && err == nil; {
		var end, next int
		if end, next, newline = lineEnd(buf, at, newline); end < 0 {
			at = len(buf)
			if at-start > s.o.MaxEvent {
				err = ErrTooLong
			}
			break
		}
		if next-start > s.o.MaxEvent {
			err = ErrTooLong
			break
		}
		s.cr = next == len(buf) && buf[next-1] == '\r'
		start, ev = s.takeLine(buf, start, line, end, next)
		line, at = next, next
	}
	s.ended = err != nil || ev == Finished || ev == EngineError
	out = s.relayed(buf)
	s.keepRest(buf, start, len(s.pend) == 0)
	s.line, s.scan = line-start, at-start
	return out, ev, err
}

// keepRest keeps the event that has not ended. Where it still begins the pending bytes it stays where it is, so that
// an event which comes byte by byte is not copied each time.
func (s *Stream) keepRest(buf []byte, start int, fresh bool) {
	if s.ended {
		s.pend = s.pend[:0]
		return
	}
	if start == 0 && !fresh {
		return
	}
	s.spare = append(s.spare[:0], buf[start:]...)
	s.pend, s.spare = s.spare, s.pend
}

// lineFeed takes the LF of a CRLF whose CR came with the bytes before.
func (s *Stream) lineFeed(buf []byte, line, at int) (start, newLine, newAt int) {
	s.cr = false
	if buf[at] != '\n' {
		return 0, line, at
	}
	if at > 0 {
		return 0, at + 1, at + 1
	}
	if !s.hidden { // the event is gone already: its LF goes after it
		s.emit(buf, 0, 1)
	}
	return 1, 1, 1
}

// lineEnd finds the end of the line that reaches at or goes on there, and where the next begins; -1 where there is none
// yet. newline is the next LF, if it is known from the call before.
func lineEnd(buf []byte, at, newline int) (end, next, newNewline int) {
	if newline < at {
		if newline = bytes.IndexByte(buf[at:], '\n'); newline < 0 {
			newline = len(buf)
		} else {
			newline += at
		}
	}
	if i := bytes.IndexByte(buf[at:newline], '\r'); i >= 0 {
		end, next = at+i, at+i+1
		if next < len(buf) && buf[next] == '\n' {
			next++
		}
		return end, next, newline
	}
	if newline == len(buf) {
		return -1, 0, newline
	}
	return newline, newline + 1, newline
}

// takeLine takes the line buf[line:end] of the event that begins at start; next is behind its end. It returns where
// the event that is now open begins.
func (s *Stream) takeLine(buf []byte, start, line, end, next int) (int, Event) {
	text := buf[line:end]
	if !s.begun {
		s.begun = true
		text = bytes.TrimPrefix(text, []byte("\xEF\xBB\xBF"))
	}
	switch {
	case len(text) == 0:
		return next, s.endEvent(buf, start, next)
	case text[0] == ':' && line == start: // a comment between events need not wait for one
		s.hidden = false
		s.emit(buf, start, next)
		return next, None
	}
	if value, ok := dataOf(text); ok {
		s.data = append(s.data, segment{end - len(value) - start, len(value)})
	}
	return start, None
}

// dataOf returns the value of a data line.
func dataOf(line []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("data"))
	if !ok || len(rest) > 0 && rest[0] != ':' {
		return nil, false
	}
	if len(rest) > 0 {
		rest = rest[1:]
	}
	if len(rest) > 0 && rest[0] == ' ' {
		rest = rest[1:]
	}
	return rest, true
}

// endEvent reads the event buf[start:end] and relays what of it is not hidden.
func (s *Stream) endEvent(buf []byte, start, end int) Event {
	s.hidden = false
	if len(s.data) == 0 {
		s.emit(buf, start, end)
		return None
	}
	data := buf[start+s.data[0].from:][:s.data[0].n]
	if len(s.data) > 1 {
		s.joined = s.joined[:0]
		for i, seg := range s.data {
			if i > 0 {
				s.joined = append(s.joined, '\n')
			}
			s.joined = append(s.joined, buf[start+seg.from:][:seg.n]...)
		}
		data = s.joined
	}
	s.cuts = s.cuts[:0]
	ev := s.read(data)
	if !s.hidden {
		s.emitCut(buf, start, end)
	}
	s.data = s.data[:0]
	return ev
}

// emitCut relays buf[start:end] without the cuts, which are places in the data, in order.
func (s *Stream) emitCut(buf []byte, start, end int) {
	kept := start // what comes before is relayed or cut
	for _, cut := range s.cuts {
		at := 0 // where the segment begins in the data
		for _, seg := range s.data {
			if from, to := max(cut.from-at, 0), min(cut.to-at, seg.n); from < to {
				s.emit(buf, kept, start+seg.from+from)
				kept = start + seg.from + to
			}
			at += seg.n + 1
		}
	}
	s.emit(buf, kept, end)
}

// emit relays buf[from:to].
func (s *Stream) emit(buf []byte, from, to int) {
	switch {
	case s.from == s.to:
		s.from = from
	case s.to != from:
		s.out = append(s.out, buf[s.from:s.to]...)
		s.from = from
	}
	s.to = to
}

// relayed returns everything that was emitted.
func (s *Stream) relayed(buf []byte) []byte {
	if len(s.out) == 0 {
		return buf[s.from:s.to]
	}
	s.out = append(s.out, buf[s.from:s.to]...)
	return s.out
}
