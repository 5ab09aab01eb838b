package admin

import (
	"errors"
	"net/http"

	"talea/internal/gateway"
	"talea/internal/refusal"
)

// estimate says what a request of an account would cost, as the tenants' port does.
func (s *Server) estimate(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	var q gateway.Question
	if err := decode(r, maxApply, &q); err != nil {
		return nil, err
	}
	answer, err := s.Gateway.Estimate(r.Context(), q)
	var no *refusal.Refusal
	if errors.As(err, &no) {
		row := no.Code.Row()
		return nil, refuse(row.Status, row.Name, "%s", no.Message)
	}
	return answer, err
}
