package admin

import (
	"errors"
	"net/http"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/rerate"
	"talea/internal/world"
)

// Books is the store that is checked and rated again.
type Books interface {
	ledger.Reader
	ledger.PastStore
}

// RerateRequest asks to rate the requests of a range again. Nothing is written.
type RerateRequest struct {
	From    string `json:"from"`
	To      string `json:"to,omitempty"` // exclusive; now where it is not said
	Account string `json:"account,omitempty"`
	Book    string `json:"book,omitempty"` // NAME or NAME@VERSION; neither that nor a draft: what each was rated with
	Draft   *File  `json:"draft,omitempty"`
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
	return report, mistake(err)
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
