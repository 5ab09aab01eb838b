package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/refusal"
	"talea/internal/usage"
)

// Status tells how the server is. Counts are since its start.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Epoch    int64     `json:"epoch"`    // grows with each start
	Snapshot int64     `json:"snapshot"` // grows with each change of the world
	// Recovered holds were left by earlier epochs and resolved at the start.
	RecoveredPosted int       `json:"recovered_posted"`
	RecoveredVoid   int       `json:"recovered_void"`
	OpenHolds       int       `json:"open_holds"`
	Running         int       `json:"running"`
	Requests        int64     `json:"requests"`
	Completed       int64     `json:"completed"`
	Broken          int64     `json:"broken"`
	ClientGone      int64     `json:"client_gone"`
	Refused         int64     `json:"refused"`
	Refusals        []Refused `json:"refusals"`   // by reason, none that was never said
	OverBound       int64     `json:"over_bound"` // prompts that an engine counted above their bound
	LeakedInput     int64     `json:"leaked_input_tokens"`
	LeakedOutput    int64     `json:"leaked_output_tokens"` // what engines made above what was held: the operator's loss
}

// Refused counts one reason to say no.
type Refused struct {
	Reason string `json:"reason"`
	Count  int64  `json:"count"`
}

func (s *Server) status(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return s.statusNow(), nil
}

func (s *Server) statusNow() *Status {
	c, leak, found := s.Gateway.Counters(), s.Ledger.Leaked(), s.Ledger.Recovered()
	st := &Status{
		Version: s.Version, Started: s.started.UTC(), Epoch: found.Epoch, Snapshot: s.World.Current().Number,
		RecoveredPosted: found.Posted, RecoveredVoid: found.Voided,
		OpenHolds: s.Ledger.OpenHolds(), Running: s.Gateway.Running(),
		Requests: c.Requests.Load(), Completed: c.Completed.Load(), Broken: c.Broken.Load(),
		ClientGone: c.ClientGone.Load(), Refused: c.Refused.Load(), Refusals: []Refused{},
		OverBound: c.OverBound.Load(), LeakedInput: leak.Input, LeakedOutput: leak.Output,
	}
	for code, row := range refusal.Table {
		if n := c.ByRefusal[code].Load(); n > 0 {
			st.Refusals = append(st.Refusals, Refused{row.Name, n})
		}
	}
	return st
}

// metrics is the status in the text format of Prometheus.
func (s *Server) metrics(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	st := s.statusNow()
	var b strings.Builder
	for _, m := range []struct {
		name, kind, help string
		value            int64
	}{
		{"talea_epoch", "gauge", "Epoch of the ledger: grows with each start.", st.Epoch},
		{"talea_open_holds", "gauge", "Holds that are neither posted nor void.", int64(st.OpenHolds)},
		{"talea_running_requests", "gauge", "Requests in the path.", int64(st.Running)},
		{"talea_requests_total", "counter", "Requests received.", st.Requests},
		{"talea_completed_total", "counter", "Requests whose answer ended as it should.", st.Completed},
		{"talea_broken_total", "counter", "Answers that an engine or the gateway broke.", st.Broken},
		{"talea_client_gone_total", "counter", "Requests whose client went away.", st.ClientGone},
		{"talea_over_bound_total", "counter", "Prompts that an engine counted above their bound: each takes its model out of service.", st.OverBound},
		{"talea_leaked_input_tokens_total", "counter", "Input tokens above what was held.", st.LeakedInput},
		{"talea_notices_total", "counter", "Thresholds of limits that were reached.", s.Ledger.Noticed()},
		{"talea_leaked_output_tokens_total", "counter", "Output tokens above what was held.", st.LeakedOutput},
	} {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
	if s.Export != nil {
		fmt.Fprintf(&b, "# HELP talea_export_lag_entries Entries of the log that the export of charging records has not got to.\n# TYPE talea_export_lag_entries gauge\ntalea_export_lag_entries %d\n", s.Export.Lag())
	}
	b.WriteString("# HELP talea_refusals_total Requests refused, by reason.\n# TYPE talea_refusals_total counter\n")
	for _, no := range st.Refusals {
		fmt.Fprintf(&b, "talea_refusals_total{reason=%q} %d\n", no.Reason, no.Count)
	}
	return plain(b.String()), nil
}

// Object is one object of the world as lists show it.
type Object struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	ID        int64  `json:"id"`
	ManagedBy string `json:"managed_by"`
}

// versionKind is how the world archives price books; they are shown as their book.
const versionKind = "price_version"

func (s *Server) objects(r *http.Request) (any, error) {
	q, err := query(r, "kind")
	if err != nil {
		return nil, err
	}
	all, err := s.Ledger.Objects()
	if err != nil {
		return nil, err
	}
	list := []Object{}
	for _, o := range all {
		if o.Body != nil && o.Kind != versionKind && (q.Get("kind") == "" || q.Get("kind") == o.Kind) {
			list = append(list, Object{o.Kind, o.Name, o.ID, o.ManagedBy})
		}
	}
	return list, nil
}

// TouchedLimit is one limit that a request stood on.
type TouchedLimit struct {
	Account   string `json:"account"`
	Measure   string `json:"measure"`
	Window    string `json:"window"`
	Model     string `json:"model,omitempty"`
	SizeClass string `json:"size_class,omitempty"`
	Tier      string `json:"service_tier,omitempty"`
	Key       string `json:"key,omitempty"`
	Period    string `json:"period"`
	Held      string `json:"held"`  // by this request
	Limit     string `json:"limit"` // as it is now
	Currency  string `json:"currency,omitempty"`
}

// request tells why: the record of a request with the limits that it stood on, and why it was refused if it was.
func (s *Server) request(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	id, err := usage.ParseID(strings.TrimPrefix(r.URL.Path, "/v1/requests/"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_request", "%v", err)
	}
	rec, touched, no, err := s.find(r.Context(), id)
	if err != nil {
		return nil, err
	}
	switch {
	case rec == nil && no == nil:
		return nil, refuse(http.StatusNotFound, "unknown_request", "there is no record of request %s: it never had a hold, or it was refused before its key was known or long ago", id)
	case rec == nil:
		return json.RawMessage(no), nil
	}
	limits := []TouchedLimit{}
	for _, t := range touched {
		m := t.Limit.Measure
		out := TouchedLimit{
			Account: string(t.Limit.Path), Measure: m.String(), Window: t.Limit.Window.String(), Model: t.Limit.Model, SizeClass: t.Limit.SizeClass,
			Tier: t.Limit.Tier, Key: t.Limit.Key, Period: t.Period.Label, Held: m.Format(t.Held), Limit: m.Format(t.Limit.Amount),
		}
		if m == quota.Money {
			out.Currency = rec.Subject.Currency
		}
		limits = append(limits, out)
	}
	return splice(rec, limits, s.corrections(rec), no)
}

// findPatience is how long a request is looked for: its refusal was said before it was written.
const findPatience = 300 * time.Millisecond

// find looks for the record and the refusal of a request; most have one of them.
func (s *Server) find(ctx context.Context, id usage.ID) (rec *usage.Record, touched []ledger.TouchedLimit, no []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, findPatience)
	defer cancel()
	for {
		if rec, touched, err = s.Ledger.Record(id); err != nil {
			return nil, nil, nil, err
		}
		if no, err = s.Ledger.Refusal(id); err != nil || rec != nil || no != nil {
			return rec, touched, no, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, nil, nil
		case <-time.After(findPatience / 20):
		}
	}
}

// splice puts the limits, corrections and the refusal behind the last member of a record.
func splice(rec *usage.Record, limits []TouchedLimit, corrections []Correction, no []byte) (any, error) {
	list, err := json.Marshal(limits)
	if err != nil {
		return nil, fmt.Errorf("cannot write limits: %w", err)
	}
	b := rec.AppendJSON(nil)
	b = append(b[:len(b)-1], `,"limits":`...)
	b = append(b, list...)
	if len(corrections) > 0 {
		if list, err = json.Marshal(corrections); err != nil {
			return nil, fmt.Errorf("cannot write corrections: %w", err)
		}
		b = append(append(b, `,"corrections":`...), list...)
	}
	if no != nil {
		b = append(append(b, `,"refusal":`...), no...)
	}
	return json.RawMessage(append(b, '}')), nil
}

// CheckResult is what a check of the ledger found.
type CheckResult struct {
	OK     bool   `json:"ok"`
	Report string `json:"report"` // one line: what was read, or the first difference
}

// check proves the books while the server goes on. One check runs at a time: it reads the whole log.
func (s *Server) check(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	if !s.checking.TryLock() {
		return nil, refuse(http.StatusConflict, "busy", "a check of the ledger is running already: wait for it")
	}
	defer s.checking.Unlock()
	memory, err := s.Ledger.Memory()
	if err != nil {
		return nil, err
	}
	report, err := ledger.CheckMemory(s.Store, memory)
	if err != nil {
		return nil, err
	}
	if !report.OK() {
		s.Log.Error("the books differ", "difference", report.Difference)
	}
	return CheckResult{report.OK(), report.String()}, nil
}
