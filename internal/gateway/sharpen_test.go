package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"talea/internal/sim"
)

// TestTwentyOfTwoHundred: a budget for exactly twenty requests serves twenty of two hundred that come at once, plain and
// streaming, with and without a maximum, and not a token more.
func TestTwentyOfTwoHundred(t *testing.T) {
	for _, stream := range []string{"", `,"stream":true`} {
		for _, most := range []string{`,"max_tokens":20`, ""} {
			t.Run("stream "+stream+" maximum "+most, func(t *testing.T) {
				t.Parallel()
				e := newEngine(t)
				// 32 of input at 1.00 and 20 of output at 4.00 per million, twenty times
				r := newRig(t, owned(e.URL(), `{measure: money, window: month, amount: "0.00224"}`, ""))
				var mu sync.Mutex
				statuses := map[int]int{}
				var crowd sync.WaitGroup
				for range 200 {
					crowd.Go(func() {
						p := r.chat("OWN", say("p=32 c=20", stream+most))
						if p.status == 200 && strings.Contains(p.body, "x_stopped") {
							t.Error("an answer was cut")
						}
						mu.Lock()
						defer mu.Unlock()
						statuses[p.status]++
					})
				}
				crowd.Wait()
				if statuses[200] != 20 || statuses[402] != 180 {
					t.Errorf("statuses %v, want 20 served and 180 refused", statuses)
				}
				if used := spent(r); used != "0.00224" {
					t.Errorf("%s of 0.00224 is used", used)
				}
				if got := e.Totals(); got.All.Input != 20*32 || got.All.Output != 20*20 {
					t.Errorf("the engine made %+v", got)
				}
				check(t, r)
			})
		}
	}
}

// spent is what is used of the limit of acme/own.
func spent(r *rig) string {
	a := r.world.Current().Account("acme/own")
	return a.Limits[0].Measure.Format(r.ledger.Standings(a.Chain[0].ID, a.IDs[1:])[0].Used)
}

// TestSharpenWithProof: only an engine whose count was right before is asked, only for what was proved, and once for a
// request.
func TestSharpenWithProof(t *testing.T) {
	const exact = `{measure: input_tokens, window: month, amount: "32"}`
	plain := say("p=32 c=1", `,"max_tokens":1`)
	for name, x := range map[string]struct {
		first, then string
		status      int
		counts      int64
	}{
		"proved":            {plain, plain, 200, 2},
		"nothing is proved": {"", plain, 402, 0},
		"tools":             {plain, say("p=32 c=1", `,"max_tokens":1,"tools":[{"type":"function","function":{"name":"f"}}]`), 402, 1},
		"a template's word": {plain, say("p=32 c=1", `,"max_tokens":1,"reasoning_effort":"low"`), 402, 1},
		"it does not fit":   {plain, say("p=33 c=1", `,"max_tokens":1`), 402, 2},
		"a completion":      {plain, "", 402, 1}, // its proof is its own
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			r := newRig(t, owned(e.URL(), exact, ""))
			if x.first != "" {
				r.chat("GOOD", x.first)
				counted(t, e, 1)
			}
			var p reply
			if x.then == "" {
				p = r.do("POST", "/v1/completions", "OWN", `{"model":"m","prompt":"[[p=32 c=1]] hello","max_tokens":1}`)
			} else {
				p = r.chat("OWN", x.then)
			}
			if got := e.Totals().Tokenize; p.status != x.status || got != x.counts {
				t.Errorf("status %d after %d counts, want %d after %d: %s", p.status, got, x.status, x.counts, p.body)
			}
			check(t, r)
		})
	}
}

// counted waits until an engine was asked so many counts.
func counted(t *testing.T, e *sim.Engine, n int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); e.Totals().Tokenize < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d counts, want %d", e.Totals().Tokenize, n)
		}
	}
}

// counting is an engine that counts and uses prompts as it is told.
type counting struct {
	mu          sync.Mutex
	count, used int
	paths       []string
}

func (c *counting) set(count, used int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count, c.used = count, used
}

func (c *counting) asked() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.paths, " ")
}

func (c *counting) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paths = append(c.paths, r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apply-template":
		if !strings.HasPrefix(string(body), `{"messages":[`) {
			w.WriteHeader(400)
		}
		fmt.Fprint(w, `{"prompt":"<user> \"hello\""}`)
	case "/tokenize":
		if strings.HasPrefix(string(body), `{"content":"<user> \"hello\"","add_special":true`) {
			fmt.Fprintf(w, `{"tokens":[%s1]}`, strings.Repeat("7,", c.count-1))
		} else {
			fmt.Fprintf(w, `{"count":%d,"max_model_len":4096,"tokens":[]}`, c.count)
		}
	default:
		fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":1,"total_tokens":%d}}`, c.used, c.used+1)
	}
}

// TestSharpenLlamaCpp: llama.cpp counts the text that its template makes.
func TestSharpenLlamaCpp(t *testing.T) {
	c := &counting{count: 32, used: 32}
	s := owned(servingAll(t, c.serve), `{measure: input_tokens, window: month, amount: "32"}`, "")
	s.kind = "llamacpp"
	r := newRig(t, s)
	r.chat("GOOD", say("", `,"max_tokens":1`))
	if p := r.chat("OWN", say("", `,"max_tokens":1`)); p.status != 200 {
		t.Errorf("%d %s", p.status, p.body)
	}
	if p := r.chat("OWN", say("", `,"max_tokens":1`)); p.status != 402 || spent(r) != "32" {
		t.Errorf("%d, %s is used: %s", p.status, spent(r), c.asked())
	}
}

// TestSharpenedAndWrong: an engine that uses more than it counted is billed for what it counted, and not believed again.
func TestSharpenedAndWrong(t *testing.T) {
	c := &counting{count: 32, used: 32}
	r := newRig(t, owned(servingAll(t, c.serve), `{measure: input_tokens, window: month, amount: "100"}`, ""))
	r.chat("GOOD", say("", `,"max_tokens":1`))
	c.set(32, 40)
	p := r.chat("OWN", say("", `,"max_tokens":1`))
	if rec := r.record(p); p.status != 200 || rec.Billed.Input() != 32 || rec.Counts.Input() != 40 {
		t.Errorf("%d: billed %d of %d", p.status, rec.Billed.Input(), rec.Counts.Input())
	}
	if leak := r.ledger.Leaked(); leak.Input != 8 || !strings.Contains(r.log.String(), "alarm") {
		t.Errorf("leaked %+v, log %s", leak, r.log)
	}
	if p := r.chat("OWN", say("", `,"max_tokens":1`)); p.status != 402 {
		t.Errorf("believed again: %d", p.status)
	}
	check(t, r)
}

// TestWrongCountIsNoProof: an engine whose first count is not what it used is not believed: the next may be too low again.
func TestWrongCountIsNoProof(t *testing.T) {
	for _, used := range []int{31, 33} {
		c := &counting{count: 32, used: used}
		r := newRig(t, owned(servingAll(t, c.serve), `{measure: input_tokens, window: month, amount: "100"}`, ""))
		r.chat("GOOD", say("", `,"max_tokens":1`))
		if p := r.chat("OWN", say("", `,"max_tokens":1`)); p.status != 402 {
			t.Errorf("counted 32, used %d, and believed: %d %s", used, p.status, c.asked())
		}
		check(t, r)
	}
}
