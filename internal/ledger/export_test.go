package ledger

import (
	"talea/internal/account"
	"talea/internal/money"
)

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

// Spoil changes what is in memory of the first balance of an organisation, or forgets its open holds.
func (l *Ledger) Spoil(org account.ID, forget bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.orgs[org]
	if forget {
		clear(o.open)
		return
	}
	for _, b := range o.balances {
		b.Used = b.Used.Add(money.Units(1))
		return
	}
}
