// Package admin is the operators' API: the only way to change anything while the server runs, and how the tool reads
// usage, limits and records. It does not hold state of its own (world and ledger do), does not print for people (cli),
// and has nothing to do with the data path: no tenant's key opens it.
//
// # Invariants
//
//   - Every route but /healthz needs the admin token, which is compared in constant time with the hash that is kept.
//   - A request that a browser page made (it has an Origin) is refused before anything else is looked at.
//   - A body is one JSON object of known members and bounded size; anything else changes nothing.
//   - No answer holds a secret, but the one that makes a key holds that key, once.
//   - What is asked of one account holds nothing of its siblings.
//
// To add a route: a row in routes, a function that returns what is to be written as JSON or an error.
//
// Start reading at routes, then Server.ServeHTTP.
package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/export"
	"talea/internal/gateway"
	"talea/internal/ledger"
	"talea/internal/resource"
	"talea/internal/world"
)

// Options of New. All are needed but Log.
type Options struct {
	World   *world.World
	Ledger  *ledger.Ledger
	Store   Books // what `ledger check` and `rerate` read
	Secrets world.Secrets
	Gateway *gateway.Gateway
	Export  *export.Files // nil: there is none
	Token   [32]byte      // SHA-256 of the admin token
	Clock   ledger.Clock
	Version string // of the program
	Log     *slog.Logger
}

// Server serves the admin port. It may be used concurrently.
type Server struct {
	Options
	started  time.Time
	checking sync.Mutex // held by the one check of the ledger that may run
	rerating sync.Mutex // held by the one re-rating that may run

	rerateDone, rerateTotal atomic.Int64 // entries, while one runs
}

// New makes a server.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{Options: o, started: o.Clock.Now()}
}

// route is one row of the API. A path that ends in "/" takes one more segment.
type route struct {
	method, path string
	serve        func(*Server, *http.Request) (any, error)
}

// routes are the whole API.
var routes = []route{
	{"GET", "/v1/status", (*Server).status},
	{"GET", "/v1/objects", (*Server).objects},
	{"POST", "/v1/apply", (*Server).apply},
	{"GET", "/v1/keys", (*Server).keys},
	{"POST", "/v1/keys", (*Server).createKey},
	{"POST", "/v1/keys/revoke", (*Server).revokeKey},
	{"POST", "/v1/models/release", (*Server).releaseModel},
	{"GET", "/v1/usage", (*Server).usage},
	{"POST", "/v1/estimate", (*Server).estimate},
	{"GET", "/v1/limits", (*Server).limits},
	{"GET", "/v1/notices", (*Server).notices},
	{"GET", "/v1/requests/", (*Server).request},
	{"POST", "/v1/ledger/check", (*Server).check},
	{"POST", "/v1/rerate", (*Server).rerate},
	{"GET", "/v1/rerate", (*Server).rerateProgress},
	{"GET", "/metrics", (*Server).metrics},
}

// denial is a "no" of the admin API. Its message says what to do next.
type denial struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *denial) Error() string { return e.Message }

func refuse(status int, code, format string, args ...any) *denial {
	return &denial{status, code, fmt.Sprintf(format, args...)}
}

// plain is an answer that is no JSON.
type plain []byte

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("bug: panic in the admin API", "path", r.URL.Path, "type", fmt.Sprintf("%T", p))
			write(w, http.StatusInternalServerError, failure(refuse(http.StatusInternalServerError, "internal_error", "something went wrong on our side; the server's log says where")))
		}
	}()
	answer, err := s.answer(r)
	if err != nil {
		no := s.refusal(r, err)
		if no.Status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", "Bearer")
		}
		write(w, no.Status, failure(no))
		return
	}
	write(w, http.StatusOK, answer)
}

func (s *Server) answer(r *http.Request) (any, error) {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return nil, refuse(http.StatusForbidden, "browser_refused", "the admin port does not answer web pages; use the talea tool or curl")
	}
	if r.URL.Path == "/healthz" && r.Method == http.MethodGet {
		return map[string]string{"status": "ok"}, nil
	}
	if !s.authorised(r) {
		return nil, refuse(http.StatusUnauthorized, "unauthorised", "the admin token is missing or wrong: set TALEA_ADMIN_TOKEN to the one that `talea serve` printed at its first start")
	}
	known := false
	for _, rt := range routes {
		rest, ok := strings.CutPrefix(r.URL.Path, rt.path)
		if !ok || (rest != "") != strings.HasSuffix(rt.path, "/") || strings.Contains(rest, "/") {
			continue
		}
		if known = true; r.Method == rt.method {
			return rt.serve(s, r)
		}
	}
	if known {
		return nil, refuse(http.StatusMethodNotAllowed, "method_not_allowed", "%s does not take %s", r.URL.Path, r.Method)
	}
	return nil, refuse(http.StatusNotFound, "not_found", "there is no such route on the admin port")
}

// authorised compares hashes, so that neither the length nor the beginning of the token shows in the time it takes.
func (s *Server) authorised(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], s.Token[:]) == 1 && ok
}

// refusal says an error of a route as a "no".
func (s *Server) refusal(r *http.Request, err error) *denial {
	var no *denial
	var faults resource.Errors
	switch {
	case errors.As(err, &no):
		return no
	case errors.As(err, &faults):
		return refuse(http.StatusUnprocessableEntity, "invalid_resource", "%v", err)
	case errors.Is(err, ledger.ErrUnavailable):
		return refuse(http.StatusServiceUnavailable, "ledger_unavailable", "%v", err)
	case r.Context().Err() != nil:
		return refuse(http.StatusServiceUnavailable, "interrupted", "the request was given up before it was done")
	}
	s.Log.Error("the admin API cannot do what was asked", "path", r.URL.Path, "error", err)
	return refuse(http.StatusInternalServerError, "failed", "%v", err)
}

func failure(e *denial) any {
	return struct {
		Error *denial `json:"error"`
	}{e}
}

// write sends an answer. An error here is a caller that has gone.
func write(w http.ResponseWriter, status int, answer any) {
	body, ok := answer.(plain)
	if ok {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	} else {
		b, err := json.Marshal(answer)
		if err != nil {
			status, b = http.StatusInternalServerError, []byte(`{"error":{"code":"internal_error","message":"the answer cannot be written as JSON"}}`)
		}
		w.Header().Set("Content-Type", "application/json")
		body = append(b, '\n')
	}
	w.WriteHeader(status)
	w.Write(body)
}
