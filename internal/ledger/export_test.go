package ledger

// Claims counts the idempotency keys that are kept in memory.
func (l *Ledger) Claims() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, o := range l.orgs {
		n += len(o.claims)
	}
	return n
}
