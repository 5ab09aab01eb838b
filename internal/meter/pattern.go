package meter

import (
	"bytes"

	"talea/internal/jsonscan"
)

// pattern is the last chunk that was read in full, less what the next one may differ in: the text of its one delta, its
// usage, its timing. A chunk that is the same around the holes, with a value of the same kind in each, would be read
// to the same members at the same places: readers go from left to right, and behind an equal value of any length they
// are where they were. It is not read again. Whatever differs elsewhere is read in full.
type pattern struct {
	rest  []byte // the chunk without what is in the holes
	holes [maxHoles]hole
	n     int // holes; none: there is no pattern
	chunk chunk
	spots []spot
}

const (
	maxHoles   = 3       // the text, the usage, the timing
	maxPattern = 4 << 10 // bytes: longer chunks hold more than a little text, and are read in full
)

// hole is a place of the pattern that was filled by a string or an object.
type hole struct {
	span
	kind  jsonscan.Kind
	at    int // in the rest
	shift int // by how much further its end is in the chunk that was compared last
}

// learn makes a pattern of a chunk that was read in full. One that ends a choice, has several, or brings no text, is
// none: such are rare, and reading them does more than counting.
func (p *pattern) learn(data []byte, c *chunk, spots []spot) {
	p.n = 0
	if c.deltas != 1 || c.choices != 1 || c.finished || c.text == nil || len(data) > maxPattern {
		return
	}
	text := cap(data) - cap(c.text) // it is a slice of data, and slices of one array end where that ends
	p.holes[0], p.n = hole{span: span{text, text + len(c.text)}, kind: jsonscan.String}, 1
	for _, object := range [...]span{c.usage, c.timing} {
		if object.from == object.to || data[object.from] != '{' {
			continue
		}
		at := p.n
		for ; at > 0 && p.holes[at-1].from > object.from; at-- {
			p.holes[at] = p.holes[at-1]
		}
		p.holes[at] = hole{span: object, kind: jsonscan.Object}
		p.n++
	}
	rest, from := p.rest[:0], 0
	for i := range p.n {
		h := &p.holes[i]
		rest = append(rest, data[from:h.from]...)
		h.at, from = len(rest), h.to
	}
	p.rest = append(rest, data[from:]...)
	p.chunk, p.spots = *c, append(p.spots[:0], spots...)
	p.chunk.text = nil
}

// match reports whether a chunk is like the pattern, and fills in what a full reading would.
func (p *pattern) match(data []byte, c *chunk, spots []spot) ([]spot, bool) {
	at, was := 0, 0
	var text []byte
	for i := range p.n {
		h := &p.holes[i]
		same := p.rest[was:h.at]
		if !bytes.HasPrefix(data[at:], same) {
			return spots, false
		}
		from := at + len(same)
		kind, end, err := jsonscan.Value(data, from)
		if err != nil || kind != h.kind || kind == jsonscan.String && end-from <= 2 { // without text it counts differently
			return spots, false
		}
		if kind == jsonscan.String {
			text = data[from:end]
		}
		at, was, h.shift = end, h.at, end-h.to
	}
	if p.n == 0 || !bytes.Equal(data[at:], p.rest[was:]) {
		return spots, false
	}
	*c = p.chunk
	c.text = text
	c.usage, c.timing = p.moved(c.usage), p.moved(c.timing)
	for _, spot := range p.spots {
		spot.place = p.moved(spot.place)
		spots = append(spots, spot)
	}
	return spots, true
}

// moved is where a place of the pattern is in the chunk that was compared last.
func (p *pattern) moved(s span) span {
	return span{p.movedTo(s.from), p.movedTo(s.to)}
}

func (p *pattern) movedTo(place int) int {
	shift := 0
	for i := range p.n {
		if h := &p.holes[i]; place >= h.to {
			shift = h.shift
		}
	}
	return place + shift
}
