package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"talea/internal/sim"
	"talea/internal/usage"
)

// restarting is an engine that can be started anew with other weights under the same name.
type restarting struct {
	*httptest.Server
	root  atomic.Pointer[string]
	asked atomic.Int64 // for answers
}

func newRestarting(t *testing.T, e *sim.Engine, root string) *restarting {
	t.Helper()
	s := &restarting{}
	s.root.Store(&root)
	starts := atomic.Int64{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"object":"list","data":[{"id":"other","root":"o"},{"id":"m","object":"model","created":%d,"root":%q,"max_model_len":131072}]}`, starts.Add(1), *s.root.Load())
			return
		}
		if req.URL.Path == "/tokenize" { // it does not count prompts
			http.NotFound(w, req)
			return
		}
		s.asked.Add(1)
		forwardTo(t, e, w, req)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *restarting) restart(root string) {
	s.root.Store(&root)
	s.CloseClientConnections()
}

// F052: an engine that is started anew with another model under the same name is not asked for it, nothing is rated with the
// prices of the old one, and another engine takes over; until it serves the old one again, or an operator gives the model
// another revision.
func TestModelChanged(t *testing.T) {
	e := newEngine(t)
	one := newRestarting(t, e, "/models/8b")
	s := setup{engines: []string{one.URL}}
	r := newRig(t, s)
	ask := func(want int) reply {
		t.Helper()
		p := r.chat("GOOD", say("p=32 c=2", `,"max_tokens":9`))
		if p.status != want {
			t.Fatalf("%d %s", p.status, p.body)
		}
		return p
	}
	ask(200)
	one.restart("/models/8b")
	ask(200)
	one.restart("/models/70b")
	for range 2 {
		p := ask(503)
		if rec := r.record(p); p.code(t) != "model_changed" || rec.Status != usage.Void || rec.Outcome != usage.Unserved || rec.Attempts[0].Fault != "model_changed" {
			t.Errorf("%s: %s, %s, %+v", p.body, rec.Status, rec.Outcome, rec.Attempts)
		}
	}
	if n := one.asked.Load(); n != 2 {
		t.Errorf("the engine was asked for %d answers, not 2", n)
	}
	one.restart("/models/8b")
	ask(200)
	one.restart("/models/70b")
	ask(503)
	r.apply(strings.Replace(s.resources(), "served_as: m,", `served_as: m, revision: "70b",`, 1))
	ask(200)
	if log := r.log.String(); !strings.Contains(log, "models are not") {
		t.Errorf("log: %s", log)
	}

	two := newRestarting(t, e, "/models/8b")
	r = newRig(t, setup{engines: []string{one.URL, two.URL}})
	for range 8 { // both have been asked
		ask(200)
	}
	one.restart("/models/1b")
	two.restart("/models/8b")
	for range 8 {
		if rec := r.record(ask(200)); rec.Engine != "e1" {
			t.Errorf("%s answered: %+v", rec.Engine, rec.Attempts)
		}
	}
}
