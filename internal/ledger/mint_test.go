package ledger

import (
	"testing"
	"time"

	"talea/internal/usage"
)

// TestMinter: ids grow whatever the clock does, and two nodes never mint the same.
func TestMinter(t *testing.T) {
	one, other := NewMinter(7), NewMinter(8)
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	last := usage.ID(0)
	seen := map[usage.ID]bool{}
	for i := range 10_000 {
		at := now.Add(time.Duration(i%3-1) * time.Millisecond) // a clock that steps back and forth
		id := one.Mint(at)
		if id <= last {
			t.Fatalf("id %d after %d: not growing", id, last)
		}
		last = id
		for _, id := range []usage.ID{id, other.Mint(at)} {
			if seen[id] {
				t.Fatalf("id %s was minted twice", id)
			}
			seen[id] = true
		}
	}
}
