package gateway

import (
	"slices"
	"sync"
	"sync/atomic"

	"talea/internal/usage"
	"talea/internal/world"
)

// experience is what answers have taught about a model. It is in memory: a restart begins anew.
type experience struct {
	answers atomic.Int64 // how many were counted
	lengths [64]atomic.Int64
	prompts atomic.Int64
	shares  [64]atomic.Int64 // of prompts: how much of the bound of their input they were, in parts per million
	proofs  [3]sync.Map      // by endpoint: *backend → *proof: is what it counts of a prompt what it says that it used
}

// noteInput counts a prompt and the bound that its input had.
func (e *experience) noteInput(input, bound int64) {
	if bound > 0 && 0 < input && input <= bound && bound <= 1<<40 {
		n := e.prompts.Add(1)
		e.shares[(n-1)%int64(len(e.shares))].Store(input * 1_000_000 / bound)
	}
}

// mean is the mean of the newest of n numbers, rounded up. There is at least one.
func mean(n int64, of *[64]atomic.Int64) (sum int64) {
	n = min(n, int64(len(of)))
	for i := range n {
		sum += of[i].Load()
	}
	return (sum + n - 1) / n
}

// note counts the length of an answer, in tokens.
func (e *experience) note(output int64) {
	n := e.answers.Add(1)
	e.lengths[(n-1)%int64(len(e.lengths))].Store(output)
}

// usual is a length that nine of ten recent answers did not exceed, 0 where there was none.
func (e *experience) usual() int64 {
	var recent [len(e.lengths)]int64
	n := min(e.answers.Load(), int64(len(recent)))
	if n == 0 {
		return 0
	}
	for i := range n {
		recent[i] = e.lengths[i].Load()
	}
	slices.Sort(recent[:n])
	return recent[(9*n+9)/10-1]
}

// experience returns what is known of a model that is on offer.
func (g *Gateway) experience(model string) *experience {
	if e := (*g.experiences.Load())[model]; e != nil {
		return e
	}
	return new(experience) // the model has been deleted meanwhile
}

func (x *exchange) experience() *experience { return x.g.experience(x.offer.Model.Name) }

// followModels keeps what is known of the models that are still there.
func (g *Gateway) followModels(s *world.Snapshot) {
	next := map[string]*experience{}
	old := g.experiences.Load()
	for _, m := range s.Models() {
		if old != nil && (*old)[m.Name] != nil {
			next[m.Name] = (*old)[m.Name]
			continue
		}
		next[m.Name] = &experience{}
	}
	g.experiences.Store(&next)
}

// learn takes what a settled request teaches. An answer that the client's own maximum cut short says nothing of how long
// answers are.
func (x *exchange) learn(rec *usage.Record) {
	x.compare(rec)
	if rec.Outcome == usage.Completed {
		x.experience().noteInput(rec.Counts.Input(), x.inputBound)
	}
	if rec.Outcome == usage.Completed && x.bounds.Output > 0 && (x.req.maxOutput == 0 || rec.Finish != "length") {
		x.experience().note(rec.Counts.Output() / x.answers())
	}
	if rec.Outcome == usage.Completed && rec.Source == usage.EngineFinal {
		x.prove(rec.Counts.Input())
	}
}
