package gateway

import (
	"hash/maphash"
	"strconv"
	"sync/atomic"

	"talea/internal/usage"
)

// retries remembers of client libraries which request came with which body, so that the record of a try says which one it
// follows. It is for explanations only: it forgets the oldest, a restart, and what another try of the same slot pushes out.
type retries struct {
	seed  maphash.Seed
	slots [1 << 14]struct{ check, id atomic.Uint64 } // check is hash ^ id, so that halves of two writes do not match
}

// sum names one try: the key, the endpoint, the body, and how often it has been tried before.
func (s *retries) sum(key, endpoint string, body []byte, count int64) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.WriteString(key)
	h.WriteByte(0)
	h.WriteString(endpoint)
	h.WriteByte(0)
	h.Write(body)
	maphash.WriteComparable(&h, count)
	return h.Sum64()
}

// follow notes a try, and returns the request that it follows: 0 for a first try, and where nothing is known.
func (s *retries) follow(id usage.ID, key, endpoint string, body []byte, count int64) (before usage.ID) {
	if count > 0 {
		sum := s.sum(key, endpoint, body, count-1)
		slot := &s.slots[sum%uint64(len(s.slots))]
		if n := slot.id.Load(); n^slot.check.Load() == sum {
			before = usage.ID(n)
		}
	}
	sum := s.sum(key, endpoint, body, count)
	slot := &s.slots[sum%uint64(len(s.slots))]
	slot.id.Store(uint64(id))
	slot.check.Store(uint64(id) ^ sum)
	return before
}

// retried reads how often a client library has tried before, and finds the try that this one follows.
func (x *exchange) retried(count string) {
	n, err := strconv.ParseInt(count, 10, 16)
	if err != nil || n < 0 {
		return // not a retry count
	}
	x.ask.SDKRetry = n
	x.ask.RetryOf = x.g.retries.follow(x.id, x.key.Public, x.ep.name, x.body, n)
}
