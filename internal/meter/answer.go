package meter

import (
	"bytes"

	"talea/internal/engine"
	"talea/internal/jsonscan"
	"talea/internal/usage"
)

// Answer is what a whole answer says.
type Answer struct {
	Report
	Choices int  // choices, or embeddings, in it
	Text    bool // some choice has content
	Failed  bool // it has an error member that is not null, or is no JSON object
}

// ReadAnswer reads the body of a whole answer. Where the engine's usage is missing or refused and there is text, each
// choice with text counts as one delta, which is what a choice of a whole answer is: the least it can have used.
func ReadAnswer(d *engine.Dialect, body []byte, o Options) Answer {
	var usageValue, timingValue []byte
	a := Answer{}
	o.Prompts, o.Choices = max(1, o.Prompts), max(1, o.Choices)
	t := tally{final: engine.NoTokens, done: true}
	err := jsonscan.Each(body, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		value := body[v.Start:v.End]
		switch string(name) {
		case "choices":
			if kind == jsonscan.Array {
				a.Choices += readWholeChoices(value, &t)
			}
		case "data":
			if kind == jsonscan.Array {
				_ = jsonscan.Elements(value, func(jsonscan.Kind, jsonscan.Span) bool { a.Choices++; return true })
			}
		case "usage":
			usageValue = value
		case "error":
			a.Failed = kind != jsonscan.Null
		default:
			if d.TimingMember != "" && string(name) == d.TimingMember {
				timingValue = value
			}
		}
		return true
	})
	a.Failed = a.Failed || err != nil
	r := d.Read(usageValue, timingValue)
	t.timing = r.Timing
	if d.PerChoice && len(t.choices) > 1 { // the usage of the first choice only
		t.setFinal(0, r, o.OutputBound)
	} else {
		t.setFinal(-1, r, o.OutputBound)
	}
	a.Text = t.deltas > 0
	a.Report = t.report(d, &o)
	return a
}

// readWholeChoices books the choices of a whole answer and returns how many there are. A thought in it is no delta that
// could be shared out: it counts as an answer.
func readWholeChoices(array []byte, t *tally) int {
	n := 0
	_ = jsonscan.Elements(array, func(kind jsonscan.Kind, v jsonscan.Span) bool {
		if kind == jsonscan.Object {
			said, _ := choiceIn(array[v.Start:v.End], n)
			if said.what == thought {
				said.what = answer
			}
			if i := t.delta(said.index, said.what); said.finish != nil {
				t.finish(i, said.finish)
			}
		}
		n++
		return true
	})
	return n
}

// SpliceCost appends body to dst with the cost in its usage object; where it has none, body as it is. Where billed is not
// nil the engine's numbers are not what is charged: its usage is written anew from billed.
func SpliceCost(dst, body []byte, billed *usage.Counts, cost Cost) []byte {
	var place span
	_ = jsonscan.Each(body, func(name []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if string(name) == "usage" && kind == jsonscan.Object {
			place = span{v.Start, v.End}
		}
		return true
	})
	if place.to == 0 {
		return append(dst, body...)
	}
	dst = append(dst, body[:place.from]...)
	if billed != nil {
		dst = appendUsage(dst, billed, cost)
	} else {
		dst = appendWithCost(dst, body[place.from:place.to], cost)
	}
	return append(dst, body[place.to:]...)
}

// SpliceTier appends an answer or a chunk to dst, with the service tier that was served as its service_tier, in place of
// what the engine may say, which was not told it. What is no object stays as it is.
func SpliceTier(dst, object []byte, tier string) []byte {
	const name = "service_tier"
	from, first := 0, true
	start := bytes.IndexByte(object, '{') + 1
	if start == 0 {
		return append(dst, object...)
	}
	told := false
	_ = jsonscan.Each(object, func(member []byte, _ jsonscan.Kind, v jsonscan.Span) bool {
		first = false
		if string(member) == name {
			dst = jsonscan.AppendQuote(append(dst, object[from:v.Start]...), tier)
			from, told = v.End, true
		}
		return true
	})
	if !told {
		dst = append(append(append(append(dst, object[:start]...), '"'), name...), `":`...)
		if dst, from = jsonscan.AppendQuote(dst, tier), start; !first {
			dst = append(dst, ',')
		}
	}
	return append(dst, object[from:]...)
}
