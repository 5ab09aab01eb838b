package ledger

import (
	"talea/internal/quota"
	"talea/internal/rating"
)

// less grants a smaller hold where the whole one has no room: the largest output bound that fits every limit, from
// ask.Less.Least to ask.Less.Most. It changes ask to what is to be granted, or says why not even the least is. The caller
// holds l.mu, and h.touched has every balance of the path.
func (l *Ledger) less(h *Hold, ask *Ask, turn turn) *Short {
	less := &ask.Less
	whole := ask.need()
	least := whole
	ask.makeLess(&least, less.Least)
	var short *Short
	for i := range h.touched {
		b := h.touched[i].balance
		asked := least.Of(b.limit.Measure)
		if verdict := b.judge(ask, asked, turn); verdict > quota.Fits && (short == nil || verdict > short.Verdict) {
			short = b.short(verdict, asked)
		}
	}
	if short != nil {
		return short
	}
	fits := least
	low, high := less.Least, min(less.Most, ask.Bounds.Output/less.Answers) // low fits
	for low < high {
		mid := low + (high-low+1)/2
		more := whole
		if ask.makeLess(&more, mid); h.fits(&more) {
			low, fits = mid, more
		} else {
			high = mid - 1
		}
	}
	ask.Bounds, ask.Money = fits.Bounds, fits.Money
	for i := range h.touched {
		t := &h.touched[i]
		t.held = fits.Of(t.balance.limit.Measure)
	}
	return nil
}

// makeLess sets the need to that of an output bound of so much for each answer. Where the whole could be priced, less can.
func (a *Ask) makeLess(need *quota.Need, output int64) {
	bounds := need.Bounds
	bounds.Output = min(bounds.Output, output*a.Less.Answers)
	if most, err := rating.Ceiling(bounds, a.Subject.Work, a.Row, a.Position); err == nil {
		need.Bounds, need.Money = bounds, most
	}
}

// fits reports whether a need fits every limit of the path beside what is used, held and expected.
func (h *Hold) fits(need *quota.Need) bool {
	for i := range h.touched {
		b := h.touched[i].balance
		taken := b.Balance
		taken.Held = taken.Held.Add(b.expected)
		if b.limit.Judge(taken, need.Of(b.limit.Measure)) != quota.Fits {
			return false
		}
	}
	return true
}
