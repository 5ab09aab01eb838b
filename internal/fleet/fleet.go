// Package fleet knows how engines fare: it asks each for its load, and tells the load of several over a time. It does not
// choose engines (gateway), does not price by load (tape), and nothing that is charged depends on an engine's answer to
// it but through the published steps of a price.
//
// # Invariants
//
//   - An engine that does not tell, or tells nonsense, has no load: it is left out, and never counts as idle or as full.
//   - Memory is bounded, whatever engines answer and however long they are watched.
//   - Loads are integers, in parts per million; a million is an engine that is full.
//
// To add a number that engines tell: engine.Load, then Watch.take.
//
// Start reading at Watch.Round.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"talea/internal/catalog"
	"talea/internal/engine"
)

// full is the load of an engine that cannot take more, in parts per million.
const full = 1_000_000

const (
	patience = 5 * time.Second // for one engine's answer
	maxPage  = 4 << 20         // bytes of it
	kept     = 25 * 60         // minutes: the longest interval of a price, and one more hour
)

// Clock tells the time.
type Clock interface {
	// Now returns the time of this instant. It may be called at any time by anybody.
	Now() time.Time
}

// Watch keeps an eye on engines. Its methods may be called concurrently, but for Round.
type Watch struct {
	client *engine.Client
	clock  Clock
	log    *slog.Logger

	mu      sync.Mutex // guards engines and what they hold
	engines map[string]*watched
}

type watched struct {
	*catalog.Engine
	dialect *engine.Dialect
	target  *engine.Target
	header  []byte
	silent  bool     // it did not tell when asked last
	minutes []minute // in order
}

// minute adds up what was seen in one minute.
type minute struct {
	at               int64 // minutes since 1970
	load             int64 // sum over samples
	running, waiting int64 // sums over samples
	samples          int64
}

// New returns a Watch over no engines.
func New(clock Clock, log *slog.Logger) *Watch {
	return &Watch{
		client: engine.NewClient(engine.ClientOptions{Connect: patience, Header: patience, MaxIdle: 1, IdleFor: 3 * time.Second}),
		clock:  clock, log: log, engines: map[string]*watched{},
	}
}

// Close lets connections go.
func (w *Watch) Close() { w.client.CloseIdle() }

// Follow watches these engines from here on. What is known of one that stays as it was is kept.
func (w *Watch) Follow(engines []*catalog.Engine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := map[string]*watched{}
	for _, e := range engines {
		if old := w.engines[e.Name]; old != nil && *old.Engine == *e {
			next[e.Name] = old
			continue
		}
		d, known := engine.ByName(e.Kind)
		target, err := engine.ParseTarget(e.URL)
		if !known || err != nil || !d.TellsLoad() {
			continue // it cannot tell
		}
		n := &watched{Engine: e, dialect: d, target: target}
		if e.APIKey != "" {
			n.header = fmt.Appendf(nil, "Authorization: Bearer %s\r\n", e.APIKey)
		}
		next[e.Name] = n
	}
	w.engines = next
}

// Round asks every engine once, all at the same time, and returns when each has answered or was given up.
func (w *Watch) Round(ctx context.Context) {
	w.mu.Lock()
	all := make([]*watched, 0, len(w.engines))
	for _, e := range w.engines {
		all = append(all, e)
	}
	w.mu.Unlock()
	var asked sync.WaitGroup
	for _, e := range all {
		asked.Go(func() {
			l, err := w.ask(ctx, e)
			w.take(e, l, err)
		})
	}
	asked.Wait()
}

var errStatus = errors.New("it answered with another status than 200")

func (w *Watch) ask(ctx context.Context, e *watched) (engine.Load, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := w.client.Do(ctx, e.target, &engine.Request{Method: "GET", Path: engine.LoadPath, Header: e.header})
	if err != nil {
		return engine.Load{}, err
	}
	defer resp.Close()
	if resp.Status != 200 {
		return engine.Load{}, fmt.Errorf("%w: %d", errStatus, resp.Status)
	}
	page, err := io.ReadAll(io.LimitReader(resp, maxPage))
	if err != nil {
		return engine.Load{}, err
	}
	return e.dialect.ReadLoad(page), nil
}

// take notes an answer.
func (w *Watch) take(e *watched, l engine.Load, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	load := int64(engine.Unknown)
	if err == nil {
		load = loadOf(l, e.MaxConcurrent)
	}
	if silent := load == engine.Unknown; silent != e.silent {
		e.silent = silent
		if silent {
			w.log.Warn("an engine does not tell its load: prices that follow the load leave it out", "engine", e.Name, "path", engine.LoadPath, "error", err)
		} else {
			w.log.Info("an engine tells its load again", "engine", e.Name)
		}
	}
	if load == engine.Unknown {
		return
	}
	at := w.clock.Now().Unix() / 60
	if n := len(e.minutes); n == 0 || e.minutes[n-1].at < at { // a clock that steps back adds to the newest minute
		e.minutes = append(e.minutes, minute{at: at})
		if len(e.minutes) > kept {
			e.minutes = slices.Delete(e.minutes, 0, len(e.minutes)-kept)
		}
	}
	m := &e.minutes[len(e.minutes)-1]
	m.load += load
	m.running += max(0, l.Running)
	m.waiting += max(0, l.Waiting)
	m.samples++
}

// loadOf is the load of an engine with so many slots, 0 for not known. An engine at which requests wait is full; else it
// is as full as its slots or its memory, whichever is fuller. One that says only how many run tells nothing, unless none does.
func loadOf(l engine.Load, slots int64) int64 {
	load := int64(engine.Unknown)
	if l.Running >= 0 && slots > 0 {
		load = min(l.Running*full/slots, full)
	} else if l.Running == 0 {
		load = 0
	}
	if l.Waiting > 0 {
		load = full
	}
	return max(load, l.Memory)
}

// Mean is the load of several engines over a time: what a price's step is decided from.
type Mean struct {
	Load    int64 // mean over the engines that told, each by its own mean, rounded down
	Engines []Seen
}

// Known reports whether any engine told its load.
func (m *Mean) Known() bool { return len(m.Engines) > 0 }

// Seen is one engine over a time, by its samples.
type Seen struct {
	Name             string `json:"engine"`
	Samples          int64  `json:"samples"`
	Load             int64  `json:"load_ppm"`
	Running, Waiting int64  `json:"-"` // means, rounded down
}

// Mean returns the load of the named engines over [from, to), both on whole minutes, by name.
func (w *Watch) Mean(names []string, from, to time.Time) Mean {
	w.mu.Lock()
	defer w.mu.Unlock()
	var mean Mean
	sum := int64(0)
	for _, name := range names {
		e := w.engines[name]
		if e == nil {
			continue
		}
		var all minute
		for _, m := range e.minutes {
			if from.Unix()/60 <= m.at && m.at < to.Unix()/60 {
				all.load, all.running, all.waiting, all.samples = all.load+m.load, all.running+m.running, all.waiting+m.waiting, all.samples+m.samples
			}
		}
		if all.samples > 0 {
			n := all.samples
			mean.Engines = append(mean.Engines, Seen{name, n, all.load / n, all.running / n, all.waiting / n})
			sum += all.load / n
		}
	}
	slices.SortFunc(mean.Engines, func(a, b Seen) int { return strings.Compare(a.Name, b.Name) })
	if mean.Known() {
		mean.Load = sum / int64(len(mean.Engines))
	}
	return mean
}
