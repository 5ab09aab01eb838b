package catalog

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"talea/internal/usage"
)

// TestWork: the milliseconds of a few requests, worked out by hand from the formula.
func TestWork(t *testing.T) {
	llama := Model{Parameters: 8_030_000_000, KVBytesPerToken: 131_072}
	for _, c := range []struct {
		model              Model
		input, cached, out int64
		want               int64
	}{
		{llama, 0, 0, 0, 0},
		{llama, 1, 0, 0, 7},                                   // 5.993 ms for the weights + 0.032
		{llama, 1000, 0, 0, 39},                               // 5.993 + 32.477
		{llama, 1000, 1000, 0, 6},                             // a cached prompt is not computed again
		{llama, 1000, 0, 100, 647},                            // 38.470 + 100 × 6.025 + 48.9 ns × 105,000 pairs = 38.470 + 602.503 + 5.135
		{llama, 1000, 1000, 100, 614},                         // without 32.477
		{Model{Parameters: 8_030_000_000}, 1000, 0, 100, 641}, // nobody told of its memory
		{Model{Parameters: 30_500_000_000, ActiveParameters: 3_300_000_000}, 1000, 0, 100, 264}, // 2.463 + 13.347 + 100 × 2.476
		{Model{}, 1000, 0, 100, 0},
	} {
		var n usage.Counts
		n.Set(usage.InputUncached, c.input-c.cached)
		n.Set(usage.InputCacheRead, c.cached)
		n.Set(usage.OutputContent, c.out)
		w := c.model.Work()
		if got := w.Of(&n); got != c.want {
			t.Errorf("%d parameters, %d (%d) in, %d out: %d ms, want %d", c.model.Parameters, c.input, c.cached, c.out, got, c.want)
		}
		if w.Known() != (c.model.Parameters > 0) {
			t.Errorf("%d parameters: known %v", c.model.Parameters, w.Known())
		}
	}
	if got := (usage.Work{}).Most(usage.Bounds{Input: 1}); got != usage.MaxCount {
		t.Errorf("unknown work is bounded by %d", got)
	}
}

// TestWorkIsBounded: no counts inside the bounds have more work than Most, some have it, and nothing overflows.
func TestWorkIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	size := func() int64 { return r.Int64N(1 + int64(1)<<r.IntN(50)) }
	for range 20_000 {
		m := Model{Parameters: 1 + size(), KVBytesPerToken: size() % maxTokens}
		w := m.Work()
		b := usage.Bounds{Input: size() % usage.MaxCount, Output: size() % usage.MaxCount}
		if r.IntN(2) == 0 {
			b.Joint = 1 + size()%usage.MaxCount
		}
		most := w.Most(b)
		for range 20 {
			out := r.Int64N(b.Output + 1)
			in := r.Int64N(b.Input + 1)
			if b.Joint > 0 {
				out = min(out, b.Joint)
				in = min(in, b.Joint-out)
			}
			cached := r.Int64N(in + 1)
			var n usage.Counts
			n.Set(usage.InputUncached, in-cached)
			n.Set(usage.InputCacheRead, cached)
			n.Set(usage.OutputReasoning, out)
			got := w.Of(&n)
			if got > most || got < 0 {
				t.Fatalf("%+v within %+v: %d ms, but most is %d", n, b, got, most)
			}
			if want := exactWork(w, in, in-cached, out); want.Cmp(big.NewInt(got)) != 0 && got != usage.MaxCount {
				t.Fatalf("%+v of %+v: %d ms, want %s", n, w, got, want)
			}
		}
		out := b.Output
		in := b.Input
		if b.Joint > 0 {
			out = min(out, b.Joint)
			in = min(in, b.Joint-out)
		}
		if want := exactWork(w, in, in, out); most != usage.MaxCount && want.Cmp(big.NewInt(most)) != 0 {
			t.Fatalf("most of %+v is %d, and %s is reached", b, most, want)
		}
	}
}

func exactWork(w usage.Work, in, computed, out int64) *big.Int {
	if in+out == 0 {
		return new(big.Int)
	}
	n := big.NewInt
	pairs := new(big.Int).Mul(n(out), n(2*in+out))
	pairs.Add(pairs, n(1)).Rsh(pairs, 1)
	sum := new(big.Int).Add(n(w.Fixed), new(big.Int).Mul(n(w.Context), pairs))
	sum.Add(sum, new(big.Int).Mul(n(w.Input), n(computed)))
	sum.Add(sum, new(big.Int).Mul(n(w.Output), n(out)))
	return sum.Add(sum, n(999_999_999)).Div(sum, n(1_000_000_000))
}
