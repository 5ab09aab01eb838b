package usage

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// idEpoch is where request ids begin to count: 2020-01-01T00:00:00Z, in Unix milliseconds.
const idEpoch = 1_577_836_800_000

// The parts of an ID, from the top: 41 bits of milliseconds since idEpoch (69 years), 10 bits of the minting node,
// 12 bits of counter.
const (
	idNodeBits    = 10
	idCounterBits = 12
)

// idDigits is Crockford's base 32 in lower case: no i, l, o, u, so that an id can be read out.
const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

const idPrefix = "req_"

// String returns the id as clients see it: "req_" and 13 digits, ordered as the numbers are.
func (id ID) String() string {
	var b [len(idPrefix) + 13]byte
	copy(b[:], idPrefix)
	for i, v := len(b)-1, uint64(id); i >= len(idPrefix); i, v = i-1, v>>5 {
		b[i] = idDigits[v&31]
	}
	return string(b[:])
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	digits, ok := strings.CutPrefix(s, idPrefix)
	if !ok || len(digits) != 13 {
		return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
	}
	var v uint64
	for i := range len(digits) {
		d := strings.IndexByte(idDigits, digits[i])
		if d < 0 || v>>59 != 0 {
			return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
		}
		v = v<<5 | uint64(d)
	}
	if int64(v) <= 0 {
		return 0, fmt.Errorf("%q is not a request id: those look like %s", s, ID(0))
	}
	return ID(v), nil
}

// Minter mints request ids: ordered by time, never the same twice from one minter, and from two minters only if they
// have the same node number. It may be used concurrently.
type Minter struct {
	node int64
	last atomic.Int64 // milliseconds << idCounterBits | counter
}

// NewMinter makes a minter. Of node, the lowest 10 bits count.
func NewMinter(node int64) *Minter { return &Minter{node: node & (1<<idNodeBits - 1)} }

// Mint returns a new id. Ids go on growing when the clock stands or steps back.
func (m *Minter) Mint(now time.Time) ID {
	tick := max(0, now.UnixMilli()-idEpoch) << idCounterBits
	for {
		last := m.last.Load()
		next := max(tick, last+1)
		if m.last.CompareAndSwap(last, next) {
			ms, counter := next>>idCounterBits, next&(1<<idCounterBits-1)
			return ID(ms<<(idNodeBits+idCounterBits) | m.node<<idCounterBits | counter)
		}
	}
}
