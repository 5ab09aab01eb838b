package ledger

import (
	"context"
	"slices"
	"time"

	"talea/internal/quota"
	"talea/internal/usage"
)

// maxWaiting bounds those who wait for others, over all organisations: beyond it what is contended is refused at once.
const maxWaiting = 4096

// waiter is a hold, or an extension of one, that would fit but for running requests.
type waiter struct {
	ask   *Ask    // of a hold
	more  *longer // of an extension
	queue *balance
	ready chan struct{} // closed when answered; queue is nil then
	answer
}

// answer is what was decided of a waiter.
type answer struct {
	hold  *Hold
	group *group
	short *Short
	err   error // an extension whose hold has ended meanwhile
}

// turn says how a decision stands to those who wait.
type turn uint8

const (
	noTurn   turn = iota // it has just come, and stands behind those who came before it
	ownTurn              // it stands first
	lastTurn             // it will not wait any longer
)

// before says whether w is served before another: extensions before holds, and of each the oldest first.
func (w *waiter) before(hold bool, id usage.ID) bool {
	if (w.ask != nil) != hold {
		return hold
	}
	return w.id() < id
}

func (w *waiter) id() usage.ID {
	if w.ask != nil {
		return w.ask.ID
	}
	return w.more.hold.ID
}

// decide decides what a waiter waits for. The caller holds l.mu.
func (l *Ledger) decide(w *waiter, t turn) (a answer) {
	if w.ask != nil {
		a.hold, a.short = l.try(w.ask, t)
	} else {
		a.short, a.err = l.lengthen(w.more, t)
	}
	a.group = l.pending
	return a
}

// enqueue lets a waiter wait for a balance. A request that comes again after it was refused has its old place: ids are in
// the order in which requests came. The caller holds l.mu.
func (l *Ledger) enqueue(w *waiter, b *balance) {
	at := len(b.waiters)
	for at > 0 && !b.waiters[at-1].before(w.ask != nil, w.id()) {
		at--
	}
	b.waiters = slices.Insert(b.waiters, at, w)
	w.queue = b
}

// waits gives a waiter its place, if its decision may change within the patience that is left. The caller holds l.mu.
func (l *Ledger) waits(w *waiter, short *Short, patience time.Duration) bool {
	if short.Verdict == quota.Exhausted || patience <= 0 || l.waiting >= maxWaiting {
		return false
	}
	w.ready = make(chan struct{})
	l.enqueue(w, short.balance)
	l.waiting++
	return true
}

// wait waits in the queue of a contended balance.
func (l *Ledger) wait(ctx context.Context, w *waiter, patience time.Duration) (answer, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.unlock()
	if b := w.queue; b != nil { // nobody has answered: leave the queue, and let those behind have a look
		b.waiters = slices.DeleteFunc(b.waiters, func(x *waiter) bool { return x == w })
		w.queue = nil
		l.waiting--
		switch {
		case l.refusing() != nil:
			return answer{}, l.refusing()
		case ctx.Err() != nil:
			l.serve(b)
			return answer{}, ctx.Err()
		}
		w.answer = l.decide(w, lastTurn)
		l.serve(b)
	}
	if w.short != nil {
		return answer{}, w.short
	}
	return w.answer, w.err
}

// serve answers those who wait for a balance, in order, until the first who must go on waiting. The caller holds l.mu.
func (l *Ledger) serve(b *balance) {
	for len(b.waiters) > 0 && l.refusing() == nil {
		w := b.waiters[0]
		a := l.decide(w, ownTurn)
		if a.short != nil && a.short.Verdict == quota.Contended {
			if a.short.balance == b {
				return
			}
			b.waiters = b.waiters[1:]
			l.enqueue(w, a.short.balance)
			continue
		}
		b.waiters = b.waiters[1:]
		l.waiting--
		w.answer, w.queue = a, nil
		close(w.ready)
	}
}
