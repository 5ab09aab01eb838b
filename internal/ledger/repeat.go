package ledger

import (
	"fmt"
	"time"

	"talea/internal/usage"
)

// minRetention is how long an idempotency key is taken at least.
const minRetention = 24 * time.Hour

// Repeat says that a request came under an idempotency key that another one has: nothing was held.
type Repeat struct {
	Of      usage.ID      // the other one
	Differs bool          // it had another body
	Record  *usage.Record // of the other one, which was charged; nil while it is running
}

// Error implements error.
func (r *Repeat) Error() string {
	switch {
	case r.Differs:
		return fmt.Sprintf("the idempotency key was used for request %s, which was another one", r.Of)
	case r.Record == nil:
		return fmt.Sprintf("request %s is running under the same idempotency key", r.Of)
	}
	return fmt.Sprintf("request %s was charged under the same idempotency key", r.Of)
}

// claim is an idempotency key that is in the path: from before its hold until its settlement is durable.
type claim struct {
	id   usage.ID
	body string
}

// claim takes an idempotency key for a request, or answers *Repeat. Who has claimed a key looks into the log alone: what
// any earlier request did under it is durable. A request that was not charged leaves the key free.
func (l *Ledger) claim(ask *Ask) error {
	other, at, err := l.tryClaim(ask)
	if err == nil && other != nil {
		return &Repeat{Of: other.id, Differs: other.body != ask.BodyHash}
	}
	if err != nil {
		return err
	}
	taken, err := l.taken(ask, at)
	if err == nil && taken != nil {
		err = taken
	}
	if err != nil {
		l.unclaim(ask.Org, ask.Idempotency)
	}
	return err
}

// tryClaim takes the key unless it is in the path already.
func (l *Ledger) tryClaim(ask *Ask) (*claim, time.Time, error) {
	l.mu.Lock()
	defer l.unlock()
	if err := l.refusing(); err != nil {
		return nil, time.Time{}, err
	}
	o := l.organisation(ask.Org)
	if c, ok := o.claims[ask.Idempotency]; ok {
		return &c, time.Time{}, nil
	}
	if o.claims == nil {
		o.claims = map[string]claim{}
	}
	o.claims[ask.Idempotency] = claim{ask.ID, ask.BodyHash}
	return nil, l.now(), nil
}

// taken looks for a request that was charged under a key, and links a request that was not.
func (l *Ledger) taken(ask *Ask, at time.Time) (*Repeat, error) {
	id, err := l.store.ByIdempotency(ask.Idempotency)
	if err != nil || id == 0 {
		return nil, err
	}
	r, _, err := l.Record(id)
	switch {
	case err != nil:
		return nil, err
	case r == nil || r.Subject.Organisation != ask.Org:
		return nil, fmt.Errorf("request %d has an idempotency key but no hold: run `talea ledger check`", id)
	case at.Sub(r.Admission.At) >= l.opt.Retention:
		return nil, nil
	case r.Status == usage.Void:
		if r.BodyHash == ask.BodyHash {
			ask.RetryOf = id
		}
		return nil, nil
	}
	return &Repeat{Of: id, Differs: r.BodyHash != ask.BodyHash, Record: r}, nil
}

// unclaim lets a key go: nothing was held under it, or what became of it is durable.
func (l *Ledger) unclaim(org orgID, key string) {
	l.mu.Lock()
	defer l.unlock()
	delete(l.organisation(org).claims, key)
}
