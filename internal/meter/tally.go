package meter

import (
	"talea/internal/engine"
	"talea/internal/usage"
)

// Report is what one answer used.
type Report struct {
	Counts usage.Counts // leaf classes; unknown where nobody said
	Source usage.Source
	Flags  usage.Flags
	Finish string // finish reason of the first choice, "" where it has not finished
	Timing engine.Timing
}

// tally is the count of one answer.
type tally struct {
	choices      []choice
	final        engine.Tokens // of all choices together
	finals       int           // how often it was told
	told         int           // final usages taken, of single choices too
	flags        usage.Flags
	timing       engine.Timing
	lastFinished int
	finishReason string
	done         bool  // the end was seen
	ran          int64 // output by running usage, all choices
	deltas       int64 // non-empty deltas, all choices
}

// choice is the count of one choice.
type choice struct {
	seen, finished   bool
	answers, thought int64         // non-empty deltas
	run              engine.Tokens // running usage, the most of each part
	shared           int64         // how much of run's output is shared out to thoughts and answers
	thoughtRan       int64         // of it, to thoughts
	final            engine.Tokens
	finals           int
}

// maxChoices bounds what an engine can make us keep: later choices are counted with the last.
const maxChoices = 1024

// at returns the choice of that index, and the index it is counted under.
func (t *tally) at(index int64) (*choice, int) {
	i := int(min(max(index, 0), maxChoices-1))
	for len(t.choices) <= i {
		t.choices = append(t.choices, choice{run: engine.NoTokens, final: engine.NoTokens})
	}
	return &t.choices[i], i
}

// delta counts one delta of a choice.
func (t *tally) delta(index int64, what content) int {
	c, i := t.at(index)
	c.seen = true
	switch what {
	case nothing:
		return i
	case thought:
		c.thought++
	case answer:
		c.answers++
	}
	t.deltas++
	return i
}

func (t *tally) finish(index int, quoted []byte) {
	t.choices[index].finished = true
	t.lastFinished = index
	if index == 0 || t.finishReason == "" {
		t.finishReason = reason(quoted)
	}
}

// reason returns a finish reason, without allocating for those that engines use. It goes into records: what is no plain
// word is not taken over.
func reason(quoted []byte) string {
	switch string(quoted) {
	case `"stop"`:
		return "stop"
	case `"length"`:
		return "length"
	case `"tool_calls"`:
		return "tool_calls"
	}
	word := quoted[1 : len(quoted)-1]
	for _, c := range word {
		if (c < 'a' || c > 'z') && c != '_' {
			return "other"
		}
	}
	if len(word) > 32 {
		return "other"
	}
	return string(word)
}

// running takes running usage of a choice, on a chunk that brings what.
func (t *tally) running(index int, r engine.Report, what content) {
	t.flags |= r.Flags
	if !r.Tokens.Known() {
		return
	}
	c, _ := t.at(int64(index))
	before := max(0, c.run[engine.Output])
	for part, n := range r.Tokens {
		if n < c.run[part] && n != engine.Unknown {
			t.flags |= usage.FlagRunningFell
		}
		c.run[part] = max(c.run[part], n)
	}
	now := max(0, c.run[engine.Output])
	t.ran += now - before
	if what != nothing { // what was made since the last visible delta became part of this one
		if what == thought {
			c.thoughtRan += now - c.shared
		}
		c.shared = now
	}
}

// setFinal takes final usage: of a choice, or with -1 of all together.
func (t *tally) setFinal(index int, r engine.Report, bound int64) {
	t.flags |= r.Flags
	if !r.Tokens.Known() {
		return
	}
	t.told++
	final, times := &t.final, &t.finals
	if index >= 0 {
		c, _ := t.at(int64(index))
		final, times = &c.final, &c.finals
	}
	*times++
	if *times == 1 {
		*final = r.Tokens
		return
	}
	if *final == r.Tokens {
		return
	}
	t.flags |= usage.FlagUsageTwice
	if better(&r.Tokens, final, bound) {
		*final = r.Tokens
	}
}

// better prefers the usage whose parts add up within the bound, then the higher one.
func better(a, b *engine.Tokens, bound int64) bool {
	consistent := func(t *engine.Tokens) bool {
		adds := t[engine.Total] < 0 || t[engine.Total] == max(0, t[engine.Input])+max(0, t[engine.Output])
		return adds && (bound == 0 || t[engine.Output] <= bound)
	}
	if consistent(a) != consistent(b) {
		return consistent(a)
	}
	if a[engine.Output] != b[engine.Output] {
		return a[engine.Output] > b[engine.Output]
	}
	return a[engine.Input] > b[engine.Input]
}

// sum adds up the choices by one of their usages. The input of a prompt counts once, however many choices it has: they
// stand side by side. Input for prompts that were not asked is not counted.
func (t *tally) sum(o *Options, of func(*choice) *engine.Tokens) engine.Tokens {
	total := engine.NoTokens
	add := func(part engine.Part, n int64) {
		if n >= 0 {
			total[part] = max(0, total[part]) + n
		}
	}
	for first := 0; first < len(t.choices); first += o.Choices {
		var prompt *engine.Tokens
		for i := first; i < min(first+o.Choices, len(t.choices)); i++ {
			u := of(&t.choices[i])
			add(engine.Output, u[engine.Output])
			add(engine.Reasoning, u[engine.Reasoning])
			if prompt == nil || u[engine.Input] > prompt[engine.Input] {
				prompt = u
			}
		}
		if first/o.Choices < o.Prompts {
			add(engine.Input, prompt[engine.Input])
			add(engine.CacheRead, prompt[engine.CacheRead])
			add(engine.CacheWrite, prompt[engine.CacheWrite])
		}
	}
	return total
}

func ran(c *choice) *engine.Tokens { return &c.run }

// best is the final usage of a choice, or its running usage.
func best(c *choice) *engine.Tokens {
	if c.finals > 0 {
		return &c.final
	}
	return &c.run
}

// report sums up.
func (t *tally) report(d *engine.Dialect, o *Options) Report {
	r := Report{Flags: t.flags, Finish: t.finishReason, Timing: t.timing}
	running := t.sum(o, ran)
	total := t.final
	switch {
	case t.finals > 0:
		r.Source = usage.EngineFinal
	case d.PerChoice && t.told > 0:
		total, r.Source = t.sum(o, best), usage.EngineFinal
		for i := range t.choices {
			if t.choices[i].seen && t.choices[i].finals == 0 {
				r.Source = usage.EngineRunning
			}
		}
	case running.Known():
		total, r.Source = running, usage.EngineRunning
	}
	if t.told == 0 && t.done && t.flags&usage.FlagUsageRefused == 0 {
		r.Flags |= usage.FlagUsageMissing
	}
	if total[engine.Output] == 0 && t.deltas > 0 {
		r.Flags |= usage.FlagZeroWithText
		if total[engine.Input] == 0 {
			total[engine.Input] = engine.Unknown
		}
	}
	if total[engine.Input] < 0 {
		total[engine.Input] = running[engine.Input]
	}
	if ran := running[engine.Output]; total[engine.Output] < ran { // what was told once stays told
		if t.told > 0 {
			r.Flags |= usage.FlagRunningFell
		}
		total[engine.Output], r.Source = ran, usage.EngineRunning
	}
	if total[engine.Output] <= 0 && t.deltas > 0 {
		total[engine.Output], r.Source = t.deltas, usage.GatewayCount
	}
	if total[engine.Reasoning] < 0 && total[engine.Output] > 0 {
		total[engine.Reasoning] = t.thoughts(total[engine.Output])
	}
	if o.OutputBound > 0 && total[engine.Output] > o.OutputBound {
		r.Flags |= usage.FlagOverBound
	}
	counts, flags := total.Leaves()
	r.Counts, r.Flags = counts, r.Flags|flags
	return r
}

// thoughts is our own split where the engine sent thoughts and does not say how many tokens they were: by running usage
// where there is some, else by deltas. Unknown where no thought was sent.
func (t *tally) thoughts(output int64) int64 {
	n, any := int64(0), false
	for i := range t.choices {
		c := &t.choices[i]
		any = any || c.thought > 0
		if c.run[engine.Output] > 0 {
			n += c.thoughtRan
		} else {
			n += c.thought
		}
	}
	if !any {
		return engine.Unknown
	}
	return min(n, output)
}

// Report is what was used as far as the stream has been read.
func (s *Stream) Report() Report { return s.report(s.d, &s.o) }

// Seen is the number of output tokens seen so far: by running usage, or by deltas where there is none.
func (s *Stream) Seen() int64 {
	if s.ran > 0 {
		return s.ran
	}
	return s.deltas
}

// RunningTrue reports whether running usage came to what final usage told in the end: from such an engine it can be relied
// on while a stream runs.
func (s *Stream) RunningTrue() bool {
	r := s.Report()
	return s.ran > 0 && s.told > 0 && r.Source == usage.EngineFinal && r.Counts.Output() == s.ran
}

// SetBound changes the output bound of a running stream: a hold was extended.
func (s *Stream) SetBound(n int64) { s.o.OutputBound = n }

// overBound reports whether the engine has made more than it may. Deltas alone are given room: an engine may send one
// token as two deltas, where a thought ends and where a tool call begins.
func (s *Stream) overBound() bool {
	bound := s.o.OutputBound
	if bound == 0 || s.ran > bound {
		return bound > 0
	}
	room := int64(1 + s.o.Prompts*s.o.Choices)
	if s.ran > 0 {
		room = bound/8 + 16
	}
	return s.deltas > bound+room
}
