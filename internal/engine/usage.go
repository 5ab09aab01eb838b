package engine

import (
	"talea/internal/jsonscan"
	"talea/internal/usage"
)

// Part is one number of an engine's usage.
type Part uint8

// The parts. CacheRead and CacheWrite are in Input, Reasoning is in Output.
const (
	Input Part = iota
	CacheRead
	CacheWrite
	Output
	Reasoning
	Total
	numTokens
)

// What stands beside the parts in a timing member: times, and an input that is told without its cached part.
const (
	queue = numTokens + iota
	prefill
	decode
	uncached
	numParts
)

// Unknown is the number of tokens of a part that nobody reported.
const Unknown = -1

// Tokens are the parts of one usage, each Unknown or in [0, usage.MaxCount].
type Tokens [numTokens]int64

// NoTokens knows nothing.
var NoTokens = Tokens{Unknown, Unknown, Unknown, Unknown, Unknown, Unknown}

// Known reports whether any input or output is known.
func (t *Tokens) Known() bool { return t[Input] >= 0 || t[Output] >= 0 }

// Leaves splits the parts into leaf classes that do not overlap. A cached, written or reasoning part that is larger
// than its whole is clamped and flagged, as is a leaf beyond usage.MaxCount; a part without its whole says nothing.
func (t Tokens) Leaves() (c usage.Counts, flags usage.Flags) {
	clamp := func(part *int64, most int64) int64 {
		if *part > most {
			*part, flags = most, flags|usage.FlagClamped
		}
		return max(0, *part)
	}
	set := func(m usage.Meter, n int64) {
		if n >= 0 {
			c.Set(m, clamp(&n, usage.MaxCount)) // sums over choices can be more than one usage may say
		}
	}
	if rest := t[Input]; rest >= 0 {
		rest -= clamp(&t[CacheRead], rest)
		rest -= clamp(&t[CacheWrite], rest)
		set(usage.InputUncached, rest)
		set(usage.InputCacheRead, t[CacheRead])
		set(usage.InputCacheWrite, t[CacheWrite])
	}
	if rest := t[Output]; rest >= 0 {
		rest -= clamp(&t[Reasoning], rest)
		set(usage.OutputContent, rest)
		set(usage.OutputReasoning, t[Reasoning])
	}
	return c, flags
}

// Timing is how long an engine says that a request took, in microseconds, 0 where unknown.
type Timing struct{ Queue, Prefill, Decode int64 }

// Report is the usage of one answer, or of one chunk of it, as the engine told it.
type Report struct {
	Tokens Tokens
	Timing Timing
	Flags  usage.Flags // FlagUsageRefused
}

// field says where one part stands in an answer: in a member, or in a member of the object that parent names.
type field struct {
	parent, name string
	part         Part
}

// Read reads the usage member and the member TimingMember of an answer or chunk; nil and null say nothing. Counts come
// from usage, and only where it has none from the timing.
func (d *Dialect) Read(usageValue, timingValue []byte) Report {
	r := Report{Tokens: NoTokens}
	in := reading{fields: d.usage}
	if len(usageValue) > 0 && string(usageValue) != "null" {
		if in.read(usageValue) {
			r.Tokens = Tokens(in.n[:numTokens])
		} else {
			r.Flags |= usage.FlagUsageRefused
		}
	}
	if len(timingValue) == 0 || d.TimingMember == "" {
		return r
	}
	in.fields = d.timing
	if !in.read(timingValue) {
		return r
	}
	r.Timing = Timing{max(0, in.n[queue]), max(0, in.n[prefill]), max(0, in.n[decode])}
	if !r.Tokens.Known() && r.Flags == 0 {
		r.Tokens = Tokens(in.n[:numTokens])
	}
	return r
}

// reading is what was read of one object so far.
type reading struct {
	fields []field
	n      [numParts]int64
	sane   bool
}

// read reads the listed fields of an object; what is absent or null stays unknown. It reports false where the bytes are
// no object or a listed number is none.
func (r *reading) read(object []byte) bool {
	r.sane = true
	for i := range r.n {
		r.n[i] = Unknown
	}
	err := jsonscan.Each(object, func(parent []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := object[v.Start:v.End]
		if kind != jsonscan.Object {
			r.take(nil, parent, kind, value)
			return r.sane
		}
		err := jsonscan.Each(value, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
			r.take(parent, name, kind, value[v.Start:v.End])
			return r.sane
		})
		r.sane = r.sane && err == nil
		return r.sane
	})
	if r.n[uncached] >= 0 && r.n[Input] < 0 {
		r.n[Input] = r.n[uncached] + max(0, r.n[CacheRead])
	}
	return err == nil && r.sane
}

// take reads one number, if it is listed. Where two fields tell one part, the larger counts.
func (r *reading) take(parent, name []byte, kind jsonscan.Kind, value []byte) {
	for i := range r.fields {
		f := &r.fields[i]
		if f.name != string(name) || f.parent != string(parent) || kind == jsonscan.Null {
			continue
		}
		if f.part >= queue && f.part <= decode {
			r.n[f.part] = micros(value)
			return
		}
		count, ok := jsonscan.Int(value)
		r.sane = ok && count >= 0 && count < usage.MaxCount
		if r.sane {
			r.n[f.part] = max(r.n[f.part], count)
		}
		return
	}
}

// micros reads a decimal number of milliseconds as whole microseconds, rounded down; 0 for anything that is not plain
// decimal: times inform, nobody is charged by them.
func micros(b []byte) int64 {
	var n int64
	decimals := -1
	for _, c := range b {
		switch {
		case c == '.' && decimals < 0:
			decimals = 0
		case c < '0' || c > '9' || n > 1<<52:
			return 0
		case decimals < 3:
			n = n*10 + int64(c-'0')
			if decimals >= 0 {
				decimals++
			}
		}
	}
	for decimals = max(decimals, 0); decimals < 3; decimals++ {
		n *= 10
	}
	return n
}
