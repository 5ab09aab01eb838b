package engine

import (
	"bytes"
	"math/big"
	"strings"
)

// LoadPath is where engines tell their load, in the text format of Prometheus.
const LoadPath = "/metrics"

// loadNames are what a dialect calls the numbers of its load: names that mean the same in different releases, the newest
// first. Several series of one name (models, ranks) are added up; of the shares of memory the largest counts.
type loadNames struct {
	running, waiting []string // requests
	memory           []string // share of the memory for keys and values in use, 0 to 1
}

// Load is what an engine says of its load. A number that it does not tell, or that makes no sense, is Unknown.
type Load struct {
	Running, Waiting int64 // requests
	Memory           int64 // share of the memory for keys and values in use, in parts per million
}

// TellsLoad reports whether engines of this dialect have a page with their load.
func (d *Dialect) TellsLoad() bool { return len(d.load.running) > 0 }

// ReadLoad reads an engine's page of metrics. Lines that are no sample are passed over: a page may hold anything.
func (d *Dialect) ReadLoad(page []byte) Load {
	l := Load{Unknown, Unknown, Unknown}
	for _, f := range []struct {
		names []string
		into  *int64
		scale int64
		join  func(a, b int64) int64
	}{
		{d.load.running, &l.Running, 1, func(a, b int64) int64 { return min(a+b, maxLoad) }},
		{d.load.waiting, &l.Waiting, 1, func(a, b int64) int64 { return min(a+b, maxLoad) }},
		{d.load.memory, &l.Memory, million, func(a, b int64) int64 { return max(a, b) }},
	} {
		for _, name := range f.names {
			if *f.into = series(page, name, f.scale, f.join); *f.into != Unknown {
				break
			}
		}
	}
	if l.Memory > million {
		l.Memory = Unknown // a share of more than everything
	}
	return l
}

const (
	million = 1_000_000
	maxLoad = 1_000_000_000_000 // nothing that an engine counts here is above it
)

// series joins the samples of one name, times scale, rounded down. One that makes no sense makes all of them Unknown.
func series(page []byte, name string, scale int64, join func(a, b int64) int64) int64 {
	found := int64(Unknown)
	for line := range bytes.Lines(page) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok || len(rest) == 0 || rest[0] != '{' && rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		if rest[0] == '{' {
			rest = rest[afterLabels(rest):]
		}
		fields := bytes.Fields(rest) // the value, and perhaps its time
		if len(fields) == 0 {
			return Unknown
		}
		value, ok := scaled(string(fields[0]), scale)
		switch {
		case !ok:
			return Unknown
		case found == Unknown:
			found = value
		default:
			found = join(found, value)
		}
	}
	return found
}

// afterLabels returns where the labels end: a label's value may hold any character, the closing brace too.
func afterLabels(b []byte) int {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case !quoted && b[i] == '}':
			return i + 1
		}
	}
	return len(b)
}

// scaled reads a sample such as "3", "0.4375" or "1e+06" exactly, times scale, rounded down. NaN, infinities, what is
// negative or beyond maxLoad are no load.
func scaled(text string, scale int64) (int64, bool) {
	if _, exponent, _ := strings.Cut(strings.ToLower(text), "e"); len(exponent) > 3 || len(text) > 40 {
		return 0, false
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok || strings.Contains(text, "/") || r.Sign() < 0 {
		return 0, false
	}
	r.Mul(r, new(big.Rat).SetInt64(scale))
	n := new(big.Int).Quo(r.Num(), r.Denom())
	return n.Int64(), n.IsInt64() && n.Int64() <= maxLoad
}
