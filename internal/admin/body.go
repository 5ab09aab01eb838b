package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"talea/internal/jsonscan"
)

// Bounds of bodies, in bytes. A resource file is at most 8 MiB, and JSON may double it.
const (
	maxBody  = 64 << 10
	maxApply = 32 << 20
)

// maxNesting bounds a body's JSON: the deepest is apply's, with secrets in files in the body.
const maxNesting = 6

// decode reads the body of a request: one JSON object, no member that into does not have, none twice.
func decode(r *http.Request, most int64, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "send the body as Content-Type: application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, most))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, "request_too_large", "the body is larger than %d bytes", most)
	case err != nil:
		return refuse(http.StatusBadRequest, "invalid_request", "the body did not arrive whole")
	}
	err = jsonscan.Strict(b, maxNesting, func(m *jsonscan.Member) error {
		// encoding/json would take "Account" for "account".
		if m.Depth == 1 && string(m.Name) != strings.ToLower(string(m.Name)) {
			return refuse(http.StatusBadRequest, "invalid_request", "the names of members are in lower case")
		}
		return nil
	})
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		err = dec.Decode(into)
	}
	var no *denial
	if err == nil || errors.As(err, &no) {
		return err
	}
	return refuse(http.StatusBadRequest, "invalid_request", "cannot read the body: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// query reads the parameters of a request: only known ones, each at most once.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid_request", "the query cannot be read")
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, refuse(http.StatusBadRequest, "invalid_request", "unknown parameter %q; known are %s", name, strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return nil, refuse(http.StatusBadRequest, "invalid_request", "parameter %q is given twice", name)
		}
	}
	return q, nil
}
