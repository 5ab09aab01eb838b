package ledger

import "math/big"

// sized reports whether the work of the subject's model is known.
func (s *auditSubject) sized() bool { return s.work != [4]int64{} }

// workOf is the work of counts in milliseconds.
func (s *auditSubject) workOf(c *auditCounts) int64 {
	return s.ms(c.input(), c.input()-c.n[1], c.output())
}

// mostWork is the most work within bounds.
func (s *auditSubject) mostWork(b auditBounds) *big.Int {
	if !s.sized() {
		return big.NewInt(auditMaxN)
	}
	in, out := b.input, b.output
	if b.joint > 0 {
		out = min(out, b.joint)
		in = min(in, b.joint-out)
	}
	return big.NewInt(s.ms(in, in, out))
}

func (s *auditSubject) ms(in, computed, out int64) int64 {
	if in+out == 0 || !s.sized() {
		return 0
	}
	n := big.NewInt
	pairs := new(big.Int).Mul(n(out), n(2*in+out))
	pairs.Rsh(pairs.Add(pairs, n(1)), 1)
	ps := n(s.work[0])
	ps.Add(ps, new(big.Int).Mul(n(s.work[1]), n(computed)))
	ps.Add(ps, new(big.Int).Mul(n(s.work[2]), n(out)))
	ps.Add(ps, new(big.Int).Mul(n(s.work[3]), pairs))
	if ps.BitLen() > 64 {
		return auditMaxN
	}
	ps.Add(ps, n(999_999_999)).Quo(ps, n(1_000_000_000))
	return ps.Int64()
}
