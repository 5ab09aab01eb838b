package world

import (
	"context"
	"fmt"
	"time"

	"talea/internal/ledger"
	"talea/internal/resource"
)

// Quarantine says why a model is not served: an engine counted more input than the model's bound allows, so that nothing
// that is held for it can be relied on.
type Quarantine struct {
	Engine  string    `json:"engine"`
	Request string    `json:"request_id"`
	Counted int64     `json:"counted"`
	Bound   int64     `json:"bound"`
	At      time.Time `json:"at"`
}

// quarantineOwner is who manages quarantines: no file does, so that none is lifted by accident.
const quarantineOwner = "system"

// Quarantine takes a model out of service, durably, until Release. One that is out already stays so, for its first reason.
func (w *World) Quarantine(ctx context.Context, model string, why Quarantine) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Current().quarantined[model] != nil {
		return nil
	}
	d := w.draft(Source{ManagedBy: quarantineOwner})
	d.put(newItem(ledger.ObjectRef{Kind: kindQuarantine, Name: model}, &why), resource.Pos{})
	if err := d.build(w.Current().Number + 1); err != nil {
		return fmt.Errorf("cannot quarantine model %q: %w", model, err)
	}
	return w.commit(ctx, d)
}

// Release puts a quarantined model back into service.
func (w *World) Release(ctx context.Context, model string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Current().quarantined[model] == nil {
		return fmt.Errorf("cannot release model %q: it is not in quarantine%s", model, suggest(model, w.items.names(kindQuarantine)))
	}
	d := w.draft(Source{ManagedBy: quarantineOwner})
	d.remove(d.items[ledger.ObjectRef{Kind: kindQuarantine, Name: model}])
	if err := d.build(w.Current().Number + 1); err != nil {
		return fmt.Errorf("cannot release model %q: %w", model, err)
	}
	return w.commit(ctx, d)
}
