package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"talea/internal/catalog"
	"talea/internal/engine"
	"talea/internal/sim"
)

// clock is set by the test.
type clock struct{ at time.Time }

func (c *clock) Now() time.Time { return c.at }

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func TestLoadOf(t *testing.T) {
	const u = engine.Unknown
	for _, c := range []struct {
		l     engine.Load
		slots int64
		want  int64
	}{
		{engine.Load{Running: 3, Waiting: 0, Memory: 100_000}, 8, 375_000},
		{engine.Load{Running: 3, Waiting: 0, Memory: 500_000}, 8, 500_000}, // memory is fuller
		{engine.Load{Running: 9, Waiting: u, Memory: u}, 8, full},
		{engine.Load{Running: 1, Waiting: 1, Memory: 0}, 8, full}, // somebody waits
		{engine.Load{Running: 3, Waiting: 0, Memory: u}, 0, u},    // of how many?
		{engine.Load{Running: 0, Waiting: 0, Memory: u}, 0, 0},
		{engine.Load{Running: u, Waiting: u, Memory: 250_000}, 8, 250_000},
		{engine.Load{Running: u, Waiting: u, Memory: u}, 8, u},
	} {
		if got := loadOf(c.l, c.slots); got != c.want {
			t.Errorf("%+v with %d slots: %d, want %d", c.l, c.slots, got, c.want)
		}
	}
}

// F053: an engine whose metrics are dead, lie or end has no load, and the others' stands.
func TestDeadAndLyingMetrics(t *testing.T) {
	page := func(text string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }))
		t.Cleanup(s.Close)
		return s
	}
	dead := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(dead.Close)
	half := page("vllm:num_requests_running 4\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.1\n")
	full := page("vllm:num_requests_running 8\nvllm:num_requests_waiting 2\n")
	lies := page("vllm:num_requests_running NaN\nvllm:kv_cache_usage_perc 42\n")
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	c := &clock{noon}
	w := New(c, slog.New(slog.DiscardHandler))
	defer w.Close()
	var engines []*catalog.Engine
	var names []string
	for name, s := range map[string]*httptest.Server{"dead": dead, "half": half, "full": full, "lies": lies, "none": none} {
		engines = append(engines, &catalog.Engine{Name: name, Kind: "vllm", URL: s.URL, MaxConcurrent: 8})
		names = append(names, name)
	}
	w.Follow(engines)
	for range 3 {
		w.Round(context.Background())
		c.at = c.at.Add(20 * time.Second)
	}
	m := w.Mean(names, noon, noon.Add(time.Minute))
	if want := "[{full 3 1000000 8 2} {half 3 500000 4 0}]"; fmt.Sprint(m.Engines) != want || m.Load != 750_000 {
		t.Errorf("mean %d of %v, want 750000 of %s", m.Load, m.Engines, want)
	}
	if later := w.Mean(names, noon.Add(time.Minute), noon.Add(2*time.Minute)); later.Known() {
		t.Errorf("a minute in which nobody was asked: %+v", later)
	}
	// An engine that changes is another engine.
	changed := *engines[0]
	changed.MaxConcurrent = 9
	w.Follow([]*catalog.Engine{&changed})
	if m := w.Mean(names, noon, noon.Add(time.Minute)); m.Known() {
		t.Errorf("after the change: %+v", m)
	}
}

// The simulated factory tells its load as vLLM does.
func TestLoadOfSimulatedEngine(t *testing.T) {
	wait := make(chan struct{})
	var waiting atomic.Int64
	e := sim.NewEngine(sim.EngineOptions{Sleep: func(ctx context.Context, _ time.Duration) error {
		waiting.Add(1)
		select {
		case <-wait:
		case <-ctx.Done():
		}
		return ctx.Err()
	}})
	defer e.Close()
	defer close(wait)
	c := &clock{noon}
	w := New(c, slog.New(slog.DiscardHandler))
	defer w.Close()
	w.Follow([]*catalog.Engine{{Name: "e", Kind: "vllm", URL: e.URL(), MaxConcurrent: 4}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "POST", e.URL()+"/v1/chat/completions", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"x"}]}`))
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
		}
	}()
	for waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	w.Round(ctx)
	if m := w.Mean([]string{"e"}, noon, noon.Add(time.Minute)); m.Load != 250_000 {
		t.Errorf("one of four slots is taken: %+v", m)
	}
}
