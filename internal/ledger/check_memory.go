package ledger

import (
	"talea/internal/account"
	"talea/internal/usage"
)

// auditMemory is what a running ledger has in memory of one organisation.
type auditMemory struct {
	head     HeadRow
	open     map[usage.ID]bool
	balances []BalanceRow
	compared bool
}

// CheckMemory is Check, and compares with the log also what a running ledger has in memory: as of the entry that was its
// newest when m was taken.
func CheckMemory(r Reader, m *Memory) (*CheckReport, error) {
	a := newAuditor()
	a.memory = map[account.ID]*auditMemory{}
	for _, head := range m.Heads {
		a.memory[head.Org] = &auditMemory{head: head, open: map[usage.ID]bool{}}
	}
	for _, h := range m.Open {
		a.memory[h.Org].open[h.Request] = true
	}
	for _, b := range m.Balances {
		mem := a.memory[b.Org]
		mem.balances = append(mem.balances, b)
	}
	return a.run(r)
}

// remember compares memory with the log as it is after the entry that was the newest one in memory.
func (a *auditor) remember(o *auditOrg) error {
	mem := a.memory[o.id]
	if mem == nil || mem.head.Seq != o.seq {
		return nil
	}
	mem.compared = true
	if mem.head.Hash != o.hash {
		return differ("%s: in memory, entry %d has another hash", o.say(), o.seq)
	}
	for id := range mem.open {
		if o.open[int64(id)] == nil {
			return differ("%s: the hold of request %s is open in memory, but not in the log as of entry %d", o.say(), id, o.seq)
		}
	}
	for id := range o.open {
		if !mem.open[usage.ID(id)] {
			return differ("%s: the hold of request %s is open in the log as of entry %d, but not in memory", o.say(), usage.ID(id), o.seq)
		}
	}
	for i := range mem.balances {
		row := &mem.balances[i]
		right := o.balances[auditKey{row.Limit, row.Period}]
		if right == nil {
			right = &auditBalance{}
		}
		if whole(row.Used).Cmp(&right.used) != 0 || whole(row.Held).Cmp(&right.held) != 0 {
			return differ("%s, limit %d, period %d: memory says %v used and %v held; by the log it is %v and %v as of entry %d",
				o.say(), row.Limit, row.Period, whole(row.Used), whole(row.Held), &right.used, &right.held, o.seq)
		}
	}
	return nil
}

// remembered checks at the end that all of memory was found in the log.
func (a *auditor) remembered() error {
	for id, mem := range a.memory {
		if !mem.compared {
			return differ("organisation %d has %d entries in memory, and not so many in the log", id, mem.head.Seq)
		}
	}
	a.report.Memory = a.memory != nil
	return nil
}
