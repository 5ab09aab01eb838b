package ledger

// step checks a row of the price tape: it stands in the operator's log, was published before it began, and no two of a
// book overlap.
func (o *auditOrg) step(h *auditHeader, r *auditReader) error {
	number, book := r.whole(), r.text()
	from, until := r.signed(), r.signed()
	multiplier := r.whole()
	r.flag()
	r.whole() // load
	for range r.list() {
		r.text()
		for range 4 {
			r.whole()
		}
	}
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case o.id != 0:
		return differ("a step of a price stands in the log of an organisation")
	case number != o.steps+1:
		return differ("step %d comes after step %d", number, o.steps)
	case book == "" || multiplier == 0:
		return differ("a step without a book or a multiplier")
	case from >= until:
		return differ("it ends before it begins")
	case h.at >= from:
		return differ("it was published when it had begun already")
	case from < o.stepsUntil[book]:
		return differ("it begins before the step of price book %s in front of it ends", book)
	}
	o.steps = number
	if o.stepsUntil == nil {
		o.stepsUntil = map[string]int64{}
	}
	o.stepsUntil[book] = until
	return nil
}
