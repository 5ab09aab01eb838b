package ledger

import (
	"errors"
	"fmt"
	"time"

	"talea/internal/usage"
)

// What a disk may do short of failing, and what follows (decision 0018):
//
//   - It is full or read-only: the batch is kept and tried again, out of the store's reserve at once, else each roomPause.
//     Nothing is granted until the reserve is back.
//   - A commit takes longer than Options.Patience: who asks for a hold is refused instead of waiting; the holds that wait
//     are refused too, and given back when the commit has ended. Settlements wait.
const (
	roomPause  = 500 * time.Millisecond
	maxPending = 1 << 14 // entries: beyond it holds are refused instead of queued
)

var (
	errSlow   = errors.New("the disk does not answer")
	errLate   = errors.New("the disk did not answer in time") // the hold is under way, and will be given back
	errBehind = errors.New("too many decisions wait for the disk")
)

// watchDisk begins to watch the disk, before the first commit.
func (l *Ledger) watchDisk() {
	l.watch = time.AfterFunc(time.Hour, l.tooSlow)
	l.watch.Stop()
	l.room = time.NewTicker(roomPause)
	l.room.Stop()
	late := make(chan struct{})
	l.late.Store(&late)
	if err := l.store.Reserve(); err != nil {
		l.noRoom(err)
	}
}

// refusing says why nothing is granted, nil while it is. The caller holds l.mu.
func (l *Ledger) refusing() error {
	switch {
	case l.failed != nil:
		return l.unavailable()
	case l.full != nil:
		return errorsJoin(ErrUnavailable, l.full)
	case l.slow != nil:
		return errorsJoin(ErrUnavailable, l.slow)
	case len(l.pending.Entries) >= maxPending:
		return errorsJoin(ErrUnavailable, errBehind)
	}
	return nil
}

// write makes a batch durable. While there is no room it keeps the batch and tries again, until Close.
func (l *Ledger) write(b *Batch) error {
	if l.opt.Patience > 0 {
		l.watch.Reset(l.opt.Patience)
		defer l.watch.Stop()
	}
	for {
		err := l.store.Append(l.opt.Shard, l.epoch, b)
		if !errors.Is(err, ErrFull) {
			return err
		}
		if l.noRoom(err) {
			continue // the store has given its reserve free
		}
		select {
		case <-l.stop:
			return err
		case <-time.After(roomPause):
		}
	}
}

// noRoom notes that there is no room, and reports whether that is news.
func (l *Ledger) noRoom(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.full == nil
	l.full = err
	if news {
		l.room.Reset(roomPause)
		l.tell(err)
	}
	return news
}

// lookForRoom goes back to granting when the reserve can be had again.
func (l *Ledger) lookForRoom() {
	err := l.store.Reserve()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full = err; err == nil {
		l.room.Stop()
		l.tell(nil)
	}
}

func (l *Ledger) tell(err error) {
	if l.opt.OnDisk != nil {
		l.opt.OnDisk(err)
	}
}

// tooSlow is called when a commit has taken longer than it may.
func (l *Ledger) tooSlow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing && l.slow == nil {
		l.slow = fmt.Errorf("%w: a commit has taken more than %s", errSlow, l.opt.Patience)
		close(*l.late.Load())
		l.tell(l.slow)
	}
}

// inTime notes the end of a commit. The caller holds l.mu.
func (l *Ledger) inTime() {
	l.writing = false
	if l.slow != nil {
		l.slow = nil
		l.tell(l.full)
		late := make(chan struct{})
		l.late.Store(&late)
	}
}

// awaitHold waits until a hold is durable, but not beyond the disk's time: then the hold is refused, and what is written
// of it all the same is void.
func (l *Ledger) awaitHold(h *Hold, g *group) error {
	late := *l.late.Load()
	l.kick()
	select {
	case <-g.done:
		return g.err
	case <-late:
	}
	go func() {
		if <-g.done; g.err == nil {
			l.Void(h, &usage.Result{Outcome: usage.Unserved, Fault: usage.Gateway}) // an error is the end of the ledger: the next start resolves it
		}
	}()
	return errorsJoin(ErrUnavailable, errLate)
}
