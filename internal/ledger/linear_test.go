package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"

	"github.com/anishathalye/porcupine"
)

// limitState is one limit, as the sequential rule has it.
type limitState struct{ amount, used, held int64 }

// limitOp is something done to it: n tokens are asked for, or the amount becomes n.
type limitOp struct {
	what       string // "hold", "extend", "settle", "set"
	n          int64
	own, spent int64 // of the request: what it holds, what it has used
}

// step is the rule: what the answer to an operation must be, and what stands after it.
func (s limitState) step(op limitOp, answer string) (bool, limitState) {
	switch op.what {
	case "settle":
		s.held, s.used = s.held-op.own, s.used+op.spent
		return answer == "done", s
	case "set":
		s.amount = op.n
		return answer == "done", s
	}
	right := "contended"
	switch {
	case s.used+op.own+op.n > s.amount && op.n > 0: // what a request holds is not in its own way
		right = "exhausted"
	case s.used+s.held+op.n <= s.amount || op.n == 0:
		right = "done"
		s.held += op.n
	}
	return answer == right, s
}

var limitModel = porcupine.Model{
	Init: func() any { return limitState{} },
	Step: func(state, input, output any) (bool, any) {
		return state.(limitState).step(input.(limitOp), output.(string))
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
}

// chronicle writes a history down.
type chronicle struct {
	now atomic.Int64
	mu  sync.Mutex // guards ops
	ops []porcupine.Operation
}

func (r *chronicle) do(t *testing.T, client int, op limitOp, f func() error) string {
	from := r.now.Add(1)
	err := f()
	to := r.now.Add(1)
	answer := "done"
	var short *ledger.Short
	switch {
	case errors.As(err, &short) && short.Verdict == quota.Contended:
		answer = "contended"
	case errors.As(err, &short):
		answer = "exhausted"
	case err != nil:
		t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: op, Output: answer, Call: from, Return: to})
	return answer
}

// TestLimitIsLinearizable: whatever many clients do at once to one limit, there is an order of it in which each answer is
// the one that the rule gives. Holds, extensions and settlements run against a limit that changes.
func TestLimitIsLinearizable(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	seen := map[string]int{}
	for seed := range uint64(12) {
		r := newRig(t)
		rec := &chronicle{}
		set := func(n int64) {
			rec.do(t, 0, limitOp{what: "set", n: n}, func() error {
				return r.l.Publish(context.Background(), ledger.Publication{Limits: []quota.Limit{limitOn(acme, quota.Tokens, period.Total, units(n))}})
			})
		}
		set(400)
		var crowd sync.WaitGroup
		for client := range 6 {
			rng := rand.New(rand.NewPCG(seed, uint64(client)))
			crowd.Go(func() {
				for range 6 {
					r.oneRequest(t, rec, client+1, rng)
				}
			})
		}
		rng := rand.New(rand.NewPCG(seed, 99))
		crowd.Go(func() {
			for range 5 {
				set(100 + rng.Int64N(900))
			}
		})
		crowd.Wait()
		for _, op := range rec.ops {
			seen[op.Input.(limitOp).what+" "+op.Output.(string)]++
		}
		switch porcupine.CheckOperationsTimeout(limitModel, rec.ops, time.Minute) {
		case porcupine.Illegal:
			t.Fatalf("seed %d: no order of these gives these answers:\n%v", seed, rec.ops)
		case porcupine.Unknown:
			t.Logf("seed %d: no answer within a minute", seed)
		}
		r.check()
	}
	t.Log(seen)
	for _, must := range []string{"hold done", "hold contended", "hold exhausted", "extend done", "settle done", "set done"} {
		if seen[must] == 0 {
			t.Errorf("no history had: %s", must)
		}
	}
}

// oneRequest holds, may extend, and settles.
func (r *rig) oneRequest(t *testing.T, rec *chronicle, client int, rng *rand.Rand) {
	in, out, more := 1+rng.Int64N(40), 1+rng.Int64N(40), 1+rng.Int64N(30)
	ask := r.ask(in, out)
	var h *ledger.Hold
	if rec.do(t, client, limitOp{what: "hold", n: in + out}, func() (err error) { h, err = r.l.Hold(context.Background(), ask); return err }) != "done" {
		return
	}
	own := in + out
	if rng.IntN(2) == 0 {
		answer := rec.do(t, client, limitOp{what: "extend", n: more, own: own}, func() error {
			return r.l.Extend(context.Background(), h, usage.Bounds{Output: more}, units(more*outputPrice))
		})
		if answer == "done" {
			own, out = own+more, out+more
		}
	}
	in, out = rng.Int64N(in+1), rng.Int64N(out)+1
	rec.do(t, client, limitOp{what: "settle", own: own, spent: in + out}, func() error { _, err := r.l.Settle(h, completed(in, out)); return err })
}

// TestModelSeesRaces: histories as planted races make them are not linearizable.
func TestModelSeesRaces(t *testing.T) {
	op := func(from, to int64, op limitOp, answer string) porcupine.Operation {
		return porcupine.Operation{Input: op, Output: answer, Call: from, Return: to}
	}
	set := op(1, 2, limitOp{what: "set", n: 100}, "done")
	hold := limitOp{what: "hold", n: 60}
	for name, race := range map[string]struct {
		ops  []porcupine.Operation
		fine bool
	}{
		"one of two fits":                    {[]porcupine.Operation{set, op(3, 6, hold, "done"), op(4, 5, hold, "contended")}, true},
		"both were checked before a debit":   {[]porcupine.Operation{set, op(3, 6, hold, "done"), op(4, 5, hold, "done")}, false},
		"a settlement was lost":              {[]porcupine.Operation{set, op(3, 4, hold, "done"), op(5, 6, limitOp{what: "settle", own: 60, spent: 60}, "done"), op(7, 8, hold, "done")}, false},
		"a release was lost":                 {[]porcupine.Operation{set, op(3, 4, hold, "done"), op(5, 6, limitOp{what: "settle", own: 60, spent: 1}, "done"), op(7, 8, hold, "contended")}, false},
		"an extension was not judged":        {[]porcupine.Operation{set, op(3, 4, hold, "done"), op(5, 6, limitOp{what: "extend", n: 50, own: 60}, "done")}, false},
		"a change was late":                  {[]porcupine.Operation{set, op(3, 4, limitOp{what: "set", n: 200}, "done"), op(5, 6, limitOp{what: "hold", n: 150}, "exhausted")}, false},
		"a change came while it was decided": {[]porcupine.Operation{set, op(3, 6, limitOp{what: "set", n: 200}, "done"), op(4, 5, limitOp{what: "hold", n: 150}, "exhausted")}, true},
	} {
		if fine := porcupine.CheckOperations(limitModel, race.ops); fine != race.fine {
			t.Errorf("%s: linearizable %t", name, fine)
		}
	}
}
