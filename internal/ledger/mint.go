package ledger

import (
	"sync/atomic"
	"time"

	"talea/internal/usage"
)

// idEpoch is where request ids begin to count: 2020-01-01T00:00:00Z, in Unix milliseconds.
const idEpoch = 1_577_836_800_000

// The parts of an ID, from the top: 41 bits of milliseconds since idEpoch (69 years), 10 bits of the minting node,
// 12 bits of counter.
const (
	idNodeBits    = 10
	idCounterBits = 12
)

// Minter mints request ids: ordered by time, never the same twice from one minter, and from two minters only if they
// have the same node number. It may be used concurrently.
type Minter struct {
	node int64
	last atomic.Int64 // milliseconds << idCounterBits | counter
}

// NewMinter makes a minter. Of node, the lowest 10 bits count.
func NewMinter(node int64) *Minter { return &Minter{node: node & (1<<idNodeBits - 1)} }

// Mint returns a new id. Ids go on growing when the clock stands or steps back.
func (m *Minter) Mint(now time.Time) usage.ID {
	tick := max(0, now.UnixMilli()-idEpoch) << idCounterBits
	for {
		last := m.last.Load()
		next := max(tick, last+1)
		if m.last.CompareAndSwap(last, next) {
			ms, counter := next>>idCounterBits, next&(1<<idCounterBits-1)
			return usage.ID(ms<<(idNodeBits+idCounterBits) | m.node<<idCounterBits | counter)
		}
	}
}
