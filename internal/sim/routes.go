package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxBody is the longest request that an engine reads.
const maxBody = 64 << 20

func (e *Engine) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { e.generate(w, r, chat) })
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) { e.generate(w, r, completions) })
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) { e.generate(w, r, embeddings) })
	mux.HandleFunc("POST /tokenize", e.tokenize)
	mux.HandleFunc("GET /v1/models", e.models)
	mux.HandleFunc("GET /metrics", e.metrics)
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// generate serves one request for generation.
func (e *Engine) generate(w http.ResponseWriter, r *http.Request, kind endpoint) {
	e.requests.Add(1)
	defer e.requests.Done()
	g := &generation{e: e, w: w, control: http.NewResponseController(w), ctx: r.Context(), kind: kind}
	g.seen.Path, g.seen.Header = r.URL.Path, r.Header
	g.work = e.keep(r.Header.Get("X-Request-Id"))
	status, err := http.StatusBadRequest, error(nil)
	if g.seen.Body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err == nil {
		status, err = e.accept(g, r)
	}
	if err != nil {
		g.end(Refused)
		writeError(w, status, "BadRequestError", err.Error())
		return
	}
	switch err = g.run(); {
	case err == nil:
		g.end(Completed)
	case !errors.Is(err, errFault):
		g.end(Aborted)
	default:
		g.end(Faulted)
		if g.fault == "cut" || g.fault == "reset" {
			g.hangUp()
		}
	}
}

// accept reads a request and plans its answer, or says with which status it is refused.
func (e *Engine) accept(g *generation, r *http.Request) (status int, err error) {
	if e.o.APIKey != "" && r.Header.Get("Authorization") != "Bearer "+e.o.APIKey {
		return http.StatusUnauthorized, errors.New("the engine's key is missing or wrong")
	}
	if g.q, err = parse(g.kind, g.seen.Body); err != nil {
		return http.StatusBadRequest, err
	}
	if g.model = e.model(g.q.Model); g.model == nil {
		return http.StatusNotFound, errors.New("the model does not exist")
	}
	if g.fault = e.struck(); g.q.steer.fault != "" {
		g.fault = g.q.steer.fault
	}
	g.id = r.Header.Get("X-Request-Id")
	if g.id == "" {
		g.id = fmt.Sprintf("%016x", e.serial.Add(1))
	}
	g.id = [...]string{chat: "chatcmpl-", completions: "cmpl-", embeddings: "embd-"}[g.kind] + g.id
	return http.StatusBadRequest, g.plan()
}

// tokenize counts the tokens of a prompt and generates nothing.
func (e *Engine) tokenize(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var q *request
	if err == nil {
		q, err = parse(chat, body)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "BadRequestError", err.Error())
		return
	}
	e.mu.Lock()
	e.totals.Tokenize++
	e.mu.Unlock()
	n := q.steer.input
	if n < 0 {
		n = q.inputTokens()
	}
	context := (&Model{}).context()
	if m := e.model(q.Model); m != nil {
		context = m.context()
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"count":%d,"max_model_len":%d,"tokens":[]}`, n, context)
}

func (e *Engine) models(w http.ResponseWriter, _ *http.Request) {
	var list []string
	for _, m := range e.o.Models {
		list = append(list, fmt.Sprintf(`{"id":%q,"object":"model","created":%d,"owned_by":"vllm","root":%q,"parent":null,"max_model_len":%d}`,
			m.Name, created, m.Name, m.context()))
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"object":"list","data":[%s]}`, strings.Join(list, ","))
}

// metrics are vLLM's, as far as a gateway reads them.
func (e *Engine) metrics(w http.ResponseWriter, _ *http.Request) {
	t := e.Totals()
	running, waiting := e.Running()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, m := range [...]struct {
		name, kind string
		value      int64
	}{
		{"num_requests_running", "gauge", running},
		{"num_requests_waiting", "gauge", waiting},
		{"prompt_tokens_total", "counter", t.All.Input},
		{"generation_tokens_total", "counter", t.All.Output},
		{"prefix_cache_queries_total", "counter", t.All.Input},
		{"prefix_cache_hits_total", "counter", t.All.Cached},
	} {
		fmt.Fprintf(w, "# TYPE vllm:%[1]s %[2]s\nvllm:%[1]s{model_name=%[3]q} %[4]d\n", m.name, m.kind, e.o.Models[0].Name, m.value)
	}
}

// writeError answers as vLLM's server does.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	quoted, _ := json.Marshal(message) // a string always has a JSON form
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":{"message":%s,"type":%q,"param":null,"code":%d}}`, quoted, kind, status)
}
