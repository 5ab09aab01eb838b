package catalog

import "math/bits"

// Candidate is one engine of a model and how it fares.
type Candidate struct {
	Engine  *Engine
	Running int64 // requests that it is answering
	Down    bool  // it failed of late
}

// Order sorts the engines of a model, which come in order of preference, into the order in which they are asked: those
// that failed of late come last, before them those without a share of the load, before them those that are full; among
// the rest the one that is least loaded for its weight comes first, and of equals the preferred one. It does not allocate.
func Order(list []Candidate) {
	for i := 1; i < len(list); i++ { // insertion: the lists are short, and equals stay in order
		for j := i; j > 0 && list[j].before(&list[j-1]); j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

func (c *Candidate) before(d *Candidate) bool {
	if a, b := c.rank(), d.rank(); a != b {
		return a < b
	}
	// (running + 1) / weight, compared exactly
	aHi, aLo := bits.Mul64(uint64(c.Running+1), uint64(max(d.Engine.Weight, 1)))
	bHi, bLo := bits.Mul64(uint64(d.Running+1), uint64(max(c.Engine.Weight, 1)))
	return aHi < bHi || aHi == bHi && aLo < bLo
}

func (c *Candidate) rank() int {
	e := c.Engine
	switch {
	case c.Down:
		return 3
	case e.Weight == 0:
		return 2
	case e.MaxConcurrent > 0 && c.Running >= e.MaxConcurrent:
		return 1
	}
	return 0
}
