package rating

import (
	"fmt"
	"slices"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/usage"
)

// inputLeaves and outputLeaves are the classes that each bound is for.
var (
	inputLeaves  = [...]usage.Meter{usage.InputUncached, usage.InputCacheRead, usage.InputCacheWrite}
	outputLeaves = [...]usage.Meter{usage.OutputContent, usage.OutputReasoning}
)

// Ceiling returns the most that one request can cost whose counts are inside the bounds and that is rated at the position
// given or any later one: at most b.Input input tokens of any classes, b.Output output tokens of any classes, b.Joint of
// both together, one request, and, where work has a price, the most work of that by w. Classes that the bounds do not name
// are taken to be 0. The error is a price.ErrNotPriced where a class that could be used has no price or work that is
// charged is unknown, or says which bound is out of [0, usage.MaxCount].
//
// In two cases it is more than the dearest outcome: where a package has to share the bound with another price, both are
// taken to have all of it; and where both work and tokens cost something, each is taken at its most.
func Ceiling(b usage.Bounds, w usage.Work, r *price.Row, before Position) (money.Amount, error) {
	for _, n := range [...]int64{b.Input, b.Output, b.Joint} {
		if n < 0 || n > usage.MaxCount {
			return money.Amount{}, fmt.Errorf("cannot bound the charge: %d tokens are not from 0 to 10^15", n)
		}
	}
	work := int64(0)
	if r.Has[usage.WorkMS] {
		if !w.Known() {
			return money.Amount{}, notPriced(r, usage.WorkMS)
		}
		work = w.Most(b)
	}
	in, out := b.Input, b.Output
	if b.Joint > 0 {
		in, out = min(in, b.Joint), min(out, b.Joint)
	}
	inRate, err := dearest(inputLeaves[:], in, r)
	if err != nil {
		return money.Amount{}, err
	}
	outRate, err := dearest(outputLeaves[:], out, r)
	if err != nil {
		return money.Amount{}, err
	}
	if len(r.Forms) > 0 {
		return money.Max(formed(r, in, out, b.Joint, work, before), r.Minimum), nil
	}
	if b.Joint > 0 { // the charge grows evenly in both, so the dearer side is used up first
		if inRate.Cmp(outRate) >= 0 {
			out = min(out, b.Joint-in)
		} else {
			in = min(in, b.Joint-out)
		}
	}
	sum := inRate.Times(in).Add(outRate.Times(out))
	if r.Has[usage.Requests] {
		sum = sum.Add(r.Rates[usage.Requests].Amount())
	}
	if work > 0 {
		sum = sum.Add(r.Rates[usage.WorkMS].Times(work))
	}
	return money.Max(sum, r.Minimum), nil
}

// dearest returns the highest flat rate of the classes, any of which n tokens can be: each must have a price.
func dearest(leaves []usage.Meter, n int64, r *price.Row) (money.Rate, error) {
	var top money.Rate
	if n == 0 {
		return top, nil
	}
	for _, m := range leaves {
		if !r.Has[m] {
			return top, notPriced(r, m)
		}
		if r.Rates[m].Cmp(top) > 0 {
			top = r.Rates[m]
		}
	}
	return top, nil
}

// formed is the ceiling of a row with forms. Steps are not monotone: a longer prompt, or a later position, may cost less.
// So each stretch of prompts that has one price of long contexts is tried by itself.
func formed(r *price.Row, in, out, joint, work int64, before Position) (top money.Amount) {
	if joint == 0 {
		joint = in + out
	}
	ends := []int64{in}
	for i := range r.Forms {
		if r.Forms[i].Kind != price.LongContext {
			continue
		}
		for _, s := range r.Forms[i].Steps {
			if s.UpTo != 0 && s.UpTo < in {
				ends = append(ends, s.UpTo)
			}
		}
	}
	slices.Sort(ends)
	least := int64(0)
	for _, end := range slices.Compact(ends) {
		// A prompt of this stretch takes at least its least tokens off what both sides have.
		p := problem{shares: sharesOf(r, end, before), in: end, out: min(out, joint-least), joint: joint}
		top = money.Max(top, p.solve().Add(single(r, usage.Requests, 1, end, before)).Add(single(r, usage.WorkMS, work, end, before)))
		least = end + 1
	}
	return top
}

// single is the most that n units of a meter by itself can cost with a prompt of so many tokens.
func single(r *price.Row, m usage.Meter, n, prompt int64, before Position) money.Amount {
	i := formOf(r, m)
	switch {
	case i < 0:
		return r.Rates[m].Times(n) // 0 where it has no price
	case r.Forms[i].Kind == price.LongContext:
		return r.Forms[i].Step(prompt).Rate.Times(n)
	}
	s := share{form: &r.Forms[i], at: before.of(i)}
	return s.most(n)
}

// share is one price of a row and the side of the request that it is for.
type share struct {
	form   *price.Form // nil: flat
	rate   money.Rate  // where it is flat
	at     int64       // position
	output bool
}

// sharesOf lists the prices of a row for prompts of so many tokens; the flat ones of one side are one, the dearest.
func sharesOf(r *price.Row, prompt int64, before Position) (list []share) {
	for _, side := range [...][]usage.Meter{inputLeaves[:], outputLeaves[:]} {
		output := side[0] == usage.OutputContent
		var top money.Rate
		seen := uint16(0)
		for _, m := range side {
			i := formOf(r, m)
			switch {
			case i < 0 && r.Rates[m].Cmp(top) > 0:
				top = r.Rates[m]
			case i < 0 || seen>>i&1 == 1:
			case r.Forms[i].Kind == price.LongContext:
				if rate := r.Forms[i].Step(prompt).Rate; rate.Cmp(top) > 0 {
					top = rate
				}
			default:
				seen |= 1 << i
				list = append(list, share{form: &r.Forms[i], at: before.of(i), output: output})
			}
		}
		if !top.IsZero() {
			list = append(list, share{rate: top, output: output})
		}
	}
	return list
}

// most is the most that n tokens or fewer can cost, at the share's position or any later one.
func (s *share) most(n int64) (top money.Amount) {
	switch {
	case s.form == nil:
		return s.rate.Times(n)
	case s.form.Kind == price.Package:
		return s.form.Steps[0].Rate.Times(packages(n, s.form))
	case s.form.Kind == price.Volume:
		floor := int64(0)
		for _, step := range s.form.Steps {
			switch {
			case s.form.Counter == "" && n <= floor: // each request begins at 0: so few do not come so far
			case step.UpTo == 0:
				top = money.Max(top, step.Rate.Times(n))
			case step.UpTo > s.at:
				top = money.Max(top, step.Rate.Times(min(n, step.UpTo-s.at)))
			}
			floor = step.UpTo
		}
		return top
	}
	try := func(at int64) {
		if at >= s.at && (at == s.at || s.form.Counter != "") {
			top = money.Max(top, graduated(s.form, at+n).Sub(graduated(s.form, at)))
		}
	}
	try(s.at)
	for _, step := range s.form.Steps {
		if step.UpTo != 0 { // the dearest position begins or ends where a step begins or ends, or just after its fee
			try(step.UpTo)
			try(step.UpTo + 1)
			try(step.UpTo - n)
			try(step.UpTo + 1 - n)
		}
	}
	return top
}

// breaks are the counts up to n between which most is convex: there it bends down or jumps.
func (s *share) breaks(n int64) []int64 {
	list := []int64{0}
	add := func(at int64) {
		for _, v := range [...]int64{at - 1, at, at + 1} {
			if 0 < v && v <= n {
				list = append(list, v)
			}
		}
	}
	if s.form != nil {
		add(1) // which may enter a step
		for i := range s.form.Steps {
			end := s.form.Steps[i].UpTo
			if end == 0 {
				break
			}
			add(end - s.at)
			for j := range i {
				add(end - s.form.Steps[j].UpTo)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// problem is how to divide the tokens of a request so that it costs the most.
type problem struct {
	shares         []share
	in, out, joint int64
	free           [2]int // of each side, the share that takes what the others leave; -1 is none
	top            money.Amount
}

// solve finds the most that the shares can cost together. Between their breaks the costs are convex, so in a dearest
// division all shares are at breaks, but for at most one of each side, which has what the bounds leave.
func (p *problem) solve() money.Amount {
	var packed money.Amount
	p.shares = slices.DeleteFunc(p.shares, func(s share) bool {
		if s.form == nil || s.form.Kind != price.Package {
			return false
		}
		packed = packed.Add(s.most(p.room(&s)))
		return true
	})
	for p.free[0] = -1; p.free[0] < len(p.shares); p.free[0]++ {
		for p.free[1] = -1; p.free[1] < len(p.shares); p.free[1]++ {
			nobody := p.free[0]+p.free[1] == -2 && len(p.shares) > 0 // costs no less where somebody takes what is left
			if !nobody && p.is(p.free[0], false) && p.is(p.free[1], true) {
				p.divide(0, p.in, p.out, p.joint, money.Amount{})
			}
		}
	}
	return packed.Add(p.top)
}

func (p *problem) room(s *share) int64 {
	if s.output {
		return p.out
	}
	return p.in
}

// is reports whether a share may be the free one of a side.
func (p *problem) is(i int, output bool) bool { return i < 0 || p.shares[i].output == output }

// divide tries every break of every share from the i-th on, but for the free ones.
func (p *problem) divide(i int, in, out, joint int64, sum money.Amount) {
	switch {
	case i == len(p.shares):
		x := min(in, joint)
		p.try(x, min(out, joint-x), sum)
		y := min(out, joint)
		p.try(min(in, joint-y), y, sum)
		return
	case i == p.free[0] || i == p.free[1]:
		p.divide(i+1, in, out, joint, sum)
		return
	}
	s := &p.shares[i]
	side := in
	if s.output {
		side = out
	}
	for _, n := range s.breaks(min(side, joint)) {
		if s.output {
			p.divide(i+1, in, out-n, joint-n, sum.Add(s.most(n)))
		} else {
			p.divide(i+1, in-n, out, joint-n, sum.Add(s.most(n)))
		}
	}
}

// try takes a division that gives the free shares x and y.
func (p *problem) try(x, y int64, sum money.Amount) {
	for side, n := range [...]int64{x, y} {
		if i := p.free[side]; i >= 0 {
			sum = sum.Add(p.shares[i].most(n))
		}
	}
	p.top = money.Max(p.top, sum)
}
