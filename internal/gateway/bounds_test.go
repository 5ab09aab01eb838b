package gateway_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/identity"
	"talea/internal/sim"
	"talea/internal/usage"
	"talea/internal/world"
)

// TestQuarantine: an engine's count above the bound of a prompt is recorded, paid by the operator, told as an alarm, and
// takes the model out of service, over a restart too, until an operator releases it.
func TestQuarantine(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	r.chat("GOOD", say("p=32 c=1", ""))
	p := r.chat("GOOD", say("p=100000 c=1", ""))
	rec := r.record(p)
	if p.status != 200 || rec.Flags&usage.FlagOverBound == 0 || rec.Counts.Input() != 100_000 || rec.Billed.Input() != rec.Bounds.Input {
		t.Errorf("%d: flags %v, billed %d of %d", p.status, rec.Flags, rec.Billed.Input(), rec.Counts.Input())
	}
	if leak := r.ledger.Leaked(); leak.Input != 100_000-rec.Bounds.Input || r.gw.Counters().OverBound.Load() != 1 || !strings.Contains(r.log.String(), "alarm") {
		t.Errorf("leaked %+v", leak)
	}
	refused := func() {
		t.Helper()
		for _, more := range []string{"", `,"stream":true`} {
			if p := r.chat("GOOD", say("p=32 c=1", more)); p.status != 503 || p.code(t) != "model_quarantined" || p.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%d %s", p.status, p.body)
			}
		}
	}
	refused()
	r.apply((&setup{engines: []string{e.URL()}}).resources()) // what a file says does not lift it
	refused()
	again, err := world.Open(r.ledger, identity.NewHasher([32]byte{1}, rand.Reader), wall{}) // as the next start reads it
	if err != nil {
		t.Fatal(err)
	}
	var key *world.Key
	for _, k := range again.Current().Keys() {
		if k.Name == "good" {
			key = k
		}
	}
	if offer, err := key.Offer("m"); err != nil || !offer.Quarantined {
		t.Errorf("after a restart: %+v, %v", offer, err)
	}
	if err := r.world.Release(t.Context(), "x"); err == nil {
		t.Error("a model that is in service was released")
	}
	if err := r.world.Release(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if p := r.chat("GOOD", say("p=32 c=1", "")); p.status != 200 {
		t.Errorf("released: %d %s", p.status, p.body)
	}
	check(t, r)
}

// TestBoundHolds: what the engine counts of a prompt is never above its bound: many short messages, tools, other scripts.
func TestBoundHolds(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	short := strings.TrimSuffix(strings.Repeat(`{"role":"user","content":"a"},`, 201), ",")
	for name, body := range map[string]string{
		"201 messages of a byte": `{"model":"m","messages":[` + short + `]}`,
		"the least request":      `{"model":"m","messages":[{"role":"user","content":"a"}]}`,
		"tools":                  say("c=1", `,"tools":[`+strings.TrimSuffix(strings.Repeat(`{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"enum":[1,2,3]}}}}},`, 40), ",")+`]`),
		"other scripts":          `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("漢字かな한글🜁𒀀ꙮ", 50) + `"}]}`,
		"escapes":                `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat(`\u6f22\ud83d\ude00`, 50) + `"}]}`,
	} {
		p := r.chat("GOOD", body)
		if rec := r.record(p); p.status != 200 || rec.Flags&usage.FlagOverBound != 0 || rec.Counts.Input() > rec.Bounds.Input || rec.Counts.Input() == 0 {
			t.Errorf("%s: %d, %d tokens, bound %d", name, p.status, rec.Counts.Input(), rec.Bounds.Input)
		}
	}
	for _, path := range []string{"/v1/completions", "/v1/embeddings"} {
		member := map[string]string{"/v1/completions": "prompt", "/v1/embeddings": "input"}[path]
		p := r.do("POST", path, "GOOD", fmt.Sprintf(`{"model":"m",%q:[[1,2,3],[4],[5]]}`, member))
		if rec := r.record(p); p.status != 200 || rec.Flags&usage.FlagOverBound != 0 || rec.Counts.Input() > rec.Bounds.Input {
			t.Errorf("%s: %d, %d tokens, bound %d", path, p.status, rec.Counts.Input(), rec.Bounds.Input)
		}
	}
}

// TestArraysMultiply: prompts and choices multiply the hold, and what is posted is the sum: prompt arrays and embeddings
// arrays (F050), n with answers that end at different lengths (F051), best_of only where it is one answer (F102). Nonsense is
// refused before anything is held: n (F100), maxima (F101), multipart bodies (F120).
func TestArraysMultiply(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	many := `"` + strings.Repeat(`a","`, 999) + `a"`
	inputs := `"` + strings.Repeat(`word word","`, 2047) + `word"`
	for name, x := range map[string]struct {
		path, body string
		held       int64 // of output
		made       int64
	}{
		"a thousand prompts": {"/v1/completions", `{"model":"m","prompt":[` + many + `],"max_tokens":3,"user":"[[c=3]]"}`, 3000, 3000},
		"2,048 inputs":       {"/v1/embeddings", `{"model":"m","input":[` + inputs + `]}`, 0, 0},
		"four choices":       {"/v1/chat/completions", say("", `,"n":4,"max_tokens":50`), 200, -1},
		"streamed choices":   {"/v1/chat/completions", say("", `,"n":4,"max_tokens":50,"stream":true`), 200, -1},
		"both maxima":        {"/v1/chat/completions", say("c=90", `,"max_tokens":20,"max_completion_tokens":50`), 20, 20},
		"a huge maximum":     {"/v1/chat/completions", say("c=9000", `,"max_tokens":2147483647`), 4096, 4096},
	} {
		before := e.Totals().All
		p := r.do("POST", x.path, "GOOD", x.body)
		after := e.Totals().All
		if p.status != 200 {
			t.Errorf("%s: %d %.300s", name, p.status, p.body)
			continue
		}
		rec := r.record(p)
		if rec.Bounds.Output != x.held || x.made >= 0 && rec.Billed.Output() != x.made || rec.Billed.Output() != after.Output-before.Output || rec.Billed.Input() != after.Input-before.Input {
			t.Errorf("%s: held %d, billed %+v, the engine made %+v", name, rec.Bounds.Output, rec.Billed, after)
		}
	}
	engine := e.Totals().Requests
	for _, more := range []string{
		`,"n":1000000000`, `,"n":0`, `,"n":-1`, `,"n":"3"`, `,"n":1e309`,
		`,"max_tokens":2147483648`, `,"max_tokens":9223372036854775808`, `,"max_tokens":-1`, `,"max_tokens":1.5`,
	} {
		if p := r.chat("GOOD", say("c=1", more)); p.status != 400 {
			t.Errorf("%s: %d", more, p.status)
		}
	}
	for _, more := range []string{`,"best_of":20`, `,"use_beam_search":true`, `,"echo":true,"logprobs":1,"max_tokens":0`} {
		if p := r.do("POST", "/v1/completions", "GOOD", `{"model":"m","prompt":"a"`+more+`}`); p.status != 400 {
			t.Errorf("%s: %d", more, p.status)
		}
	}
	parts := strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n", 100_000)
	for _, path := range []string{"/v1/chat/completions", "/v1/audio/transcriptions"} {
		if p := r.do("POST", path, "GOOD", parts, "Content-Type", "multipart/form-data; boundary=x"); p.status != 400 && p.status != 404 && p.status != 415 {
			t.Errorf("multipart to %s: %d", path, p.status)
		}
	}
	if now := e.Totals().Requests; now != engine {
		t.Errorf("the engine was asked %d times", now-engine)
	}
	check(t, r)
}

// TestOverrun: an engine that ignores its output bound is cut at the hold, told to stop, and paid no more than was held
// (F041).
func TestOverrun(t *testing.T) {
	ended := make(chan sim.Answer, 4)
	e := sim.NewEngine(sim.EngineOptions{Watch: func(a sim.Answer) { ended <- a }})
	defer e.Close()
	r := newRig(t, setup{engines: []string{e.URL()}})
	p := r.chat("GOOD", say("c=100000 delay=1ms fault=overrun", streaming+`,"max_tokens":30`))
	if rec := r.record(p); rec.Billed.Output() != 30 || rec.Outcome != usage.Cut || !strings.Contains(p.body, `"finish_reason":"length"`) || !strings.Contains(p.body, `"x_stopped":"budget"`) || !strings.HasSuffix(p.body, "[DONE]\n\n") {
		t.Errorf("billed %d, %s: %s", rec.Billed.Output(), rec.Outcome, tail(p.body))
	}
	select {
	case a := <-ended:
		if a.Outcome != sim.Aborted {
			t.Errorf("the engine's request ended %s", a.Outcome)
		}
	case <-time.After(time.Minute):
		t.Error("the engine goes on")
	}
	if p := r.chat("GOOD", say("c=1 delay=0s", `,"max_tokens":1`)); p.status != 200 {
		t.Errorf("the model is out of service for too much output: %d", p.status)
	}
}

// TestThousandForAHundred: of a thousand at once where exactly a hundred fit, each of which uses what it holds, a hundred are
// served, nine hundred are refused for good, and the limit is met exactly (F081).
func TestThousandForAHundred(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, owned(e.URL(), `{measure: output_tokens, window: month, amount: "2000"}`, ""))
	var mu sync.Mutex
	statuses := map[int]int{}
	var crowd sync.WaitGroup
	for range 1000 {
		crowd.Go(func() {
			p := r.chat("OWN", say("c=20", `,"max_tokens":20`))
			mu.Lock()
			defer mu.Unlock()
			statuses[p.status]++
		})
	}
	crowd.Wait()
	if statuses[200] != 100 || statuses[402] != 900 || spent(r) != "2000" {
		t.Errorf("statuses %v, %s of 2000 used", statuses, spent(r))
	}
	check(t, r)
}
