package ledger

import "talea/internal/usage"

// Memory is what a ledger has in memory at one instant, for a check of it against the log.
type Memory struct {
	Heads    []HeadRow // OpenFrom is not used
	Open     []OpenHold
	Balances []BalanceRow // of the periods that are in memory
}

// OpenHold is a hold that is neither posted nor void.
type OpenHold struct {
	Org     orgID
	Request usage.ID
}

// Memory returns what is in memory, once all of it is durable.
func (l *Ledger) Memory() (*Memory, error) {
	m, g := l.memorise()
	if g != nil {
		if err := l.await(g); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// memorise copies what is in memory. It returns the group that makes it durable, nil where all of it is.
func (l *Ledger) memorise() (*Memory, *group) {
	l.mu.Lock()
	defer l.unlock()
	m := &Memory{}
	for _, o := range l.sortedOrgs() {
		if o.seq == 0 {
			continue // nothing was ever decided of it
		}
		m.Heads = append(m.Heads, HeadRow{Org: o.id, Seq: o.seq, Hash: o.hash})
		for id := range o.open {
			m.Open = append(m.Open, OpenHold{o.id, id})
		}
		m.Balances = append(m.Balances, o.balanceRows()...)
	}
	if l.pending.empty() {
		return m, l.newest
	}
	return m, l.pending
}
