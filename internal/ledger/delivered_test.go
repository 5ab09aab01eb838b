package ledger_test

import (
	"testing"

	"talea/internal/ledger"
	"talea/internal/usage"
)

// Under the rule "delivered" an answer of which nothing came costs nothing, its input neither: after a failure, a hang-up,
// and after a crash in the middle of a whole answer, of which nothing is sent before it is settled.
func TestNothingDelivered(t *testing.T) {
	r := newRig(t)
	r.onFail, r.onGone = usage.ChargeDelivered, usage.ChargeDelivered
	for _, o := range []usage.Outcome{usage.Broken, usage.ClientGone} {
		for delivered, want := range map[int64]usage.Status{0: usage.Void, 1: usage.Posted} {
			result := ended(o, 100, 40)
			result.Delivered = delivered
			if rec := r.settle(r.hold(100, 50), result); rec.Status != want {
				t.Errorf("%s after %d tokens: %s, want %s", o, delivered, rec.Status, want)
			}
		}
	}
	stream, whole := r.ask(100, 50), r.ask(100, 50)
	whole.Stream = false
	for _, ask := range []*ledger.Ask{stream, whole} {
		h, err := r.l.Hold(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		r.l.Checkpoint(h, counts(100, 20), usage.EngineRunning)
	}
	r.restart()
	for id, want := range map[usage.ID]usage.Status{stream.ID: usage.Posted, whole.ID: usage.Void} {
		if rec, _, err := r.l.Record(id); err != nil || rec.Status != want {
			t.Errorf("after a restart: %v, %v, want %s", rec.Status, err, want)
		}
	}
	if err := r.l.Close(); err != nil {
		t.Fatal(err)
	}
	checked(t, r.reader())
}
