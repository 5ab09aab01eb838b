package meter

import (
	"bytes"

	"talea/internal/engine"
	"talea/internal/jsonscan"
)

// chunk is what one event says, as places in its data.
type chunk struct {
	members           int
	choices           int // -1: no such member
	deltas            int // of choices, those that could be read or not
	index             int64
	first             int // where the first choice is counted; index is what it says of itself
	what              content
	text              []byte // the string of what of the first choice, nil where there is none
	finished          bool   // some choice has a finish reason
	usage, timing     span
	usageNull, failed bool
}

// spot is a member that may be hidden.
type spot struct {
	kind    hideable
	ordinal int  // how many members come before
	place   span // from the end of the member before, or the bracket, to the member's own end
}

type hideable uint8

const (
	usageMember hideable = iota
	timingMember
	errorMember
)

// content is what a delta brings.
type content uint8

const (
	nothing content = iota
	thought
	answer
)

// read reads the data of one event and decides what of it the client may see: s.hidden and s.cuts.
func (s *Stream) read(data []byte) Event {
	switch trimmed := bytes.TrimSpace(data); {
	case string(trimmed) == "[DONE]":
		s.hidden, s.done = true, true
		return Finished
	case len(trimmed) == 0 || trimmed[0] != '{': // llama.cpp begins some streams with null
		if string(trimmed) != "null" && len(trimmed) > 0 {
			s.malformed++
		}
		return None
	}
	c := chunk{choices: -1}
	err := s.readChunk(data, &c)
	if c.failed {
		if c.usage.to > 0 && !c.usageNull { // what a failure has used is told with it, or not at all
			s.account(data, &c)
		}
		s.hidden = true
		return EngineError
	}
	if err != nil {
		s.malformed++
		return None
	}
	if s.keep != nil {
		s.keep.tags(data)
	}
	s.account(data, &c)
	if !s.hidden {
		s.hide(data, &c)
	}
	if s.overBound() {
		return OverBound
	}
	return None
}

// readChunk finds out what a chunk says. Most are like the one before, but for their text and usage.
func (s *Stream) readChunk(data []byte, c *chunk) (err error) {
	like := false
	if s.spots, like = s.like.match(data, c, s.spots[:0]); like {
		s.delta(c.index, c.what)
		if s.keep != nil {
			s.keep.more(c.text)
		}
		return nil
	}
	malformed := s.malformed
	if err = s.members(data, c); err != nil || s.malformed > malformed || s.keep != nil && !s.keep.brought(c.text) {
		s.like.n = 0
		return err
	}
	s.like.learn(data, c, s.spots)
	return nil
}

// members goes over the members of a chunk once.
func (s *Stream) members(data []byte, c *chunk) error {
	s.spots = s.spots[:0]
	before := bytes.IndexByte(data, '{') + 1
	needHead := len(s.head) == 0
	err := jsonscan.Each(data, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value, place := data[v.Start:v.End], span{before, v.End}
		switch string(name) {
		case "choices":
			if kind == jsonscan.Array {
				c.choices = s.readChoices(value, c)
			}
		case "usage":
			c.usage, c.usageNull = span{v.Start, v.End}, kind == jsonscan.Null
			s.mayHide(usageMember, c.members, place)
		case "error":
			if kind != jsonscan.Null {
				c.failed = true
				s.failure = append(s.failure[:0], value[:min(len(value), maxFailure)]...)
			}
			s.mayHide(errorMember, c.members, place)
		case "id", "object", "created", "model":
			if needHead && len(value) <= maxHeadValue {
				s.addHead(name, value)
			}
		default:
			if s.d.TimingMember != "" && string(name) == s.d.TimingMember {
				c.timing = span{v.Start, v.End}
				s.mayHide(timingMember, c.members, place)
			}
		}
		before = v.End
		c.members++
		return true
	})
	return err
}

// Bounds of what is kept of a chunk, in bytes.
const (
	maxHeadValue = 1024
	maxFailure   = 8192
)

func (s *Stream) mayHide(kind hideable, ordinal int, place span) {
	s.spots = append(s.spots, spot{kind, ordinal, place})
}

func (s *Stream) addHead(name, value []byte) {
	if len(s.head) > 0 {
		s.head = append(s.head, ',')
	}
	s.head = append(append(append(s.head, '"'), name...), '"', ':')
	s.head = append(s.head, value...)
	if string(name) == "object" {
		s.text = string(value) == `"text_completion"`
	}
}

// account books what the chunk says of usage, and hides a chunk that says nothing else.
func (s *Stream) account(data []byte, c *chunk) {
	usageValue, timingValue := data[c.usage.from:c.usage.to], data[c.timing.from:c.timing.to]
	told := len(usageValue) > 0 && !c.usageNull
	alone := told && c.choices <= 0
	final := alone || c.finished && s.d.FinalOnFinish && (told || len(timingValue) > 0)
	switch {
	case final:
		r := s.d.Read(usageValue, timingValue)
		s.timing = longer(s.timing, r.Timing)
		if s.keep != nil {
			s.keep.final(usageValue, timingValue)
		}
		index := -1
		if s.d.PerChoice {
			index = s.lastFinished
		}
		s.setFinal(index, r, s.o.OutputBound)
	case c.choices <= 0:
	case s.d.Running == engine.TimingsRunning:
		s.running(c.first, s.d.Read(nil, timingValue), c.what)
	case told && s.d.Running != engine.NoRunning:
		s.running(c.first, s.d.Read(usageValue, nil), c.what)
	}
	if alone {
		s.hidden = true
		s.last, s.lastUsage = append(s.last[:0], data...), c.usage
	}
}

// hide decides which members the client does not see, and cuts each out with the comma that joins it to the others.
func (s *Stream) hide(data []byte, c *chunk) {
	for _, spot := range s.spots {
		switch spot.kind {
		case errorMember: // null here: clients take the mere name for a failure
		case usageMember:
			if c.usageNull && s.o.ShowUsage || !c.usageNull && s.o.ShowRunning {
				continue
			}
		case timingMember:
			if s.d.Running != engine.TimingsRunning || s.o.ShowRunning || c.finished {
				continue
			}
		}
		cut := spot.place
		if spot.ordinal == len(s.cuts) { // nothing is left before it: the comma behind it goes
			if len(s.cuts) > 0 {
				cut.from = s.cuts[len(s.cuts)-1].to
			}
			rest := bytes.TrimLeft(data[cut.to:], " \t\r\n")
			if bytes.HasPrefix(rest, []byte(",")) {
				cut.to = len(data) - len(rest) + 1
			}
		}
		s.cuts = append(s.cuts, cut)
	}
}

// readChoices reads the choices of a chunk and returns how many there are.
func (s *Stream) readChoices(array []byte, c *chunk) int {
	n := 0
	err := jsonscan.Elements(array, func(kind jsonscan.Kind, v jsonscan.Span) bool {
		if kind == jsonscan.Object {
			s.readChoice(array[v.Start:v.End], n, c)
		}
		n++
		return true
	})
	if err != nil {
		s.malformed++
	}
	return n
}

// readChoice counts the delta of one choice, the nth of its chunk.
func (s *Stream) readChoice(object []byte, nth int, c *chunk) {
	c.deltas++
	said, err := choiceIn(object, nth)
	if err != nil {
		s.malformed++
		return
	}
	at := s.delta(said.index, said.what)
	if said.finish != nil {
		s.finish(at, said.finish)
		c.finished = true
	}
	if nth == 0 {
		c.first, c.what, c.index = at, said.what, said.index
		c.text = said.text
	}
	if s.keep != nil {
		s.keep.take(at, object)
	}
}

// said is what one choice of a chunk or of a whole answer brings.
type said struct {
	index  int64
	what   content
	text   []byte // the last string that makes what, with its quotes, nil where there is none
	finish []byte // the finish reason with its quotes, nil where there is none
}

// choiceIn reads one choice, the nth of its array.
func choiceIn(object []byte, nth int) (said, error) {
	r := said{index: int64(nth)}
	err := jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := object[v.Start:v.End]
		switch string(name) {
		case "index":
			if i, ok := jsonscan.Int(value); ok {
				r.index = i
			}
		case "delta", "message":
			if kind == jsonscan.Object {
				r.what, r.text = contentOf(value)
			}
		case "text":
			if kind == jsonscan.String && len(value) > 2 {
				r.what, r.text = answer, value
			}
		case "finish_reason":
			if kind == jsonscan.String {
				r.finish = value
			}
		}
		return true
	})
	return r, err
}

// contentOf says what a delta, or a message, brings, and shows the last string of it. A role alone is nothing.
func contentOf(object []byte) (what content, text []byte) {
	_ = jsonscan.Each(object, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if kind < jsonscan.String || v.End-v.Start <= 2 { // null, "", [] and {}
			return true
		}
		switch string(name) {
		case "content", "tool_calls", "refusal", "function_call", "audio":
			what = answer
		case "reasoning_content", "reasoning":
			what = max(what, thought)
		default:
			return true
		}
		if kind == jsonscan.String {
			text = object[v.Start:v.End]
		}
		return true
	})
	return what, text
}

func longer(a, b engine.Timing) engine.Timing {
	return engine.Timing{Queue: max(a.Queue, b.Queue), Prefill: max(a.Prefill, b.Prefill), Decode: max(a.Decode, b.Decode)}
}

// engineMessage is the error member of the engine's error event, as JSON of at most 8 KiB, cut off beyond that.
func (s *Stream) engineMessage() []byte { return s.failure }

// Malformed is the number of events that could not be read and were relayed as they were.
func (s *Stream) Malformed() int64 { return s.malformed }
