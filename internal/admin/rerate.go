package admin

import (
	"errors"
	"net/http"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/rerate"
	"talea/internal/usage"
	"talea/internal/world"
)

// Books is the store that is checked and rated again.
type Books interface {
	ledger.Reader
	ledger.PastStore
}

// RerateRequest asks to rate the requests of a range again, and to post the differences if that is said.
type RerateRequest struct {
	From    string `json:"from"`
	To      string `json:"to,omitempty"` // exclusive; now where it is not said
	Account string `json:"account,omitempty"`
	Book    string `json:"book,omitempty"` // NAME or NAME@VERSION; neither that nor a draft: what each was rated with
	Draft   *File  `json:"draft,omitempty"`
	Post    bool   `json:"post,omitempty"` // one correction for each account that differs; needs a book, to, reason and who
	Reason  string `json:"reason,omitempty"`
	Who     string `json:"who,omitempty"`
	Replace bool   `json:"replace,omitempty"` // only what was rated under a book of the draft's name, or one based on it
}

// RerateProgress tells how far the re-rating that runs has come.
type RerateProgress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"` // entries of the log; 0 while none runs
}

// rerate rates again. One runs at a time: it reads the whole log.
func (s *Server) rerate(r *http.Request) (any, error) {
	var req RerateRequest
	if err := decode(r, maxApply, &req); err != nil {
		return nil, err
	}
	call, err := s.rerateCall(&req)
	if err != nil {
		return nil, err
	}
	if !s.rerating.TryLock() {
		return nil, refuse(http.StatusConflict, "busy", "a re-rating is running already: wait for it")
	}
	defer s.rerating.Unlock()
	defer func() { s.rerateTotal.Store(0) }()
	call.Progress = func(done, total int64) {
		s.rerateDone.Store(done)
		s.rerateTotal.Store(total)
	}
	objects, err := s.Ledger.Objects()
	if err != nil {
		return nil, err
	}
	archive, err := world.ReadArchive(objects)
	if err != nil {
		return nil, err
	}
	past, err := ledger.ReadPast(s.Store)
	if err != nil {
		return nil, err
	}
	report, err := rerate.Run(r.Context(), past, archive, call)
	if err == nil && req.Post {
		err = s.correct(report, &req)
	}
	return report, mistake(err)
}

// correct posts what differs.
func (s *Server) correct(report *rerate.Report, req *RerateRequest) error {
	snap := s.World.Current()
	var list []ledger.Correction
	for i := range report.Accounts {
		sum := &report.Accounts[i]
		if sum.Difference.IsZero() {
			continue
		}
		a := snap.AccountByID(sum.ID())
		if a == nil {
			return refuse(http.StatusConflict, "unknown_account", "account %s is no longer there, so nothing is posted: re-rate the other accounts by themselves", sum.Account)
		}
		list = append(list, ledger.Correction{
			Chain: a.IDs, Path: a.Path, Currency: sum.Currency, Book: report.Book, From: report.From, To: report.To, Requests: sum.Requests,
			Charged: sum.Charged, Total: sum.Rated, Reason: req.Reason, Who: req.Who,
		})
	}
	posted, err := s.Ledger.Correct(list)
	report.Corrections = len(posted)
	if errors.Is(err, ledger.ErrCorrection) {
		return refuse(http.StatusConflict, "not_corrected", "%v", err)
	}
	return err
}

// mistake says an error of a call that cannot be meant as a "no".
func mistake(err error) error {
	var wrong *rerate.CallError
	var unpriced *rerate.RequestError
	switch {
	case errors.As(err, &wrong):
		return refuse(http.StatusBadRequest, "invalid_request", "%v", err)
	case errors.As(err, &unpriced):
		return refuse(http.StatusUnprocessableEntity, "not_rated", "%v", err)
	}
	return err
}

func (s *Server) rerateCall(req *RerateRequest) (*rerate.Call, error) {
	call := &rerate.Call{Account: account.Path(req.Account), Book: req.Book, Replace: req.Replace}
	zone := time.UTC
	if a := s.World.Current().Account(call.Account); a != nil {
		zone = zoneOf(s.World.Current(), a.ID)
	} else if req.Account != "" {
		return nil, unknownAccount(s.World.Current(), call.Account)
	}
	if req.Post && (req.Draft != nil || req.Book == "" || req.To == "" || req.Reason == "" || req.Who == "") {
		return nil, refuse(http.StatusBadRequest, "invalid_request", "to post corrections say `to`, `reason` and `who`, and the book by its name: what is owed is by a published book")
	}
	var err error
	if call.From, err = Instant("from", req.From, zone, time.Unix(0, 0)); err != nil {
		return nil, err
	}
	if call.To, err = Instant("to", req.To, zone, s.Clock.Now()); err != nil {
		return nil, err
	}
	if req.Draft != nil {
		if call.Draft, err = rerate.ParseDraft(req.Draft.Name, []byte(req.Draft.Text), req.Book); err != nil {
			return nil, mistake(err)
		}
	}
	return call, nil
}

func (s *Server) rerateProgress(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	return RerateProgress{s.rerateDone.Load(), s.rerateTotal.Load()}, nil
}

// Correction is one that a request was corrected with, among all of its account's requests of a range.
type Correction struct {
	At       time.Time    `json:"at"`
	Account  string       `json:"account"`
	From     time.Time    `json:"from"`
	To       time.Time    `json:"to"`
	Requests int64        `json:"requests"`
	Amount   money.Amount `json:"amount"` // of all of them
	Currency string       `json:"currency"`
	Book     string       `json:"book"`
	Reason   string       `json:"reason"`
	Who      string       `json:"who"`
}

// corrections are those that a record is among.
func (s *Server) corrections(rec *usage.Record) (list []Correction) {
	for _, c := range s.Ledger.Corrections(rec.Subject.Organisation) {
		at := rec.Admission.At
		if c.Chain[len(c.Chain)-1] == rec.Subject.Account && rec.Status == usage.Posted && !at.Before(c.From) && at.Before(c.To) && rec.Result.At.Before(c.At) {
			list = append(list, Correction{c.At, string(c.Path), c.From, c.To, c.Requests, c.Amount, c.Currency, c.Book, c.Reason, c.Who})
		}
	}
	return list
}
