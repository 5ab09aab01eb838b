package gateway

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"sync/atomic"

	"talea/internal/catalog"
	"talea/internal/jsonscan"
)

// served is what an engine says it serves. What it said of a model first is what it is held to: prices are those of that
// model, whatever another one under its name may cost. A change of the engine, or of the model's revision, in the resources
// begins anew.
type served struct {
	differs atomic.Bool // some model has changed

	mu     sync.Mutex                // guards models
	models map[modelKey]*servedModel // that were asked for
}

type modelKey struct{ name, revision string }

type servedModel struct {
	was     [32]byte
	changed bool
}

// changed reports whether an engine served another model under the name than at first when it was last asked what it serves.
// Then each request asks anew.
func (s *served) changed(m *catalog.Model) bool {
	if !s.differs.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.models[modelKey{m.ServedAs, m.Revision}]
	return known != nil && known.changed
}

// see compares what an engine says of its models now with what it said first.
func (s *served) see(m *catalog.Model, list []byte) (changed, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.differs.Load()
	key := modelKey{m.ServedAs, m.Revision}
	if s.models[key] == nil {
		if now, ok := fingerprint(list, m.ServedAs); ok {
			if s.models == nil {
				s.models = map[modelKey]*servedModel{}
			}
			s.models[key] = &servedModel{was: now}
		}
	}
	differs := false
	for k, known := range s.models {
		if now, ok := fingerprint(list, k.name); ok { // a model that is not listed is not served: the engine will say so
			known.changed = now != known.was
		}
		differs = differs || known.changed
	}
	s.differs.Store(differs)
	return s.models[key] != nil && s.models[key].changed, differs != before
}

// fingerprint is a hash of what tells a model from others in an engine's list of models. What changes by itself, such as the
// time of its start or whether it is loaded, is no part of it.
func fingerprint(list []byte, name string) (sum [32]byte, ok bool) {
	_ = jsonscan.Each(list, func(member []byte, kind jsonscan.Kind, v jsonscan.Span) bool {
		if string(member) != "data" || kind != jsonscan.Array {
			return true
		}
		array := list[v.Start:v.End]
		_ = jsonscan.Elements(array, func(kind jsonscan.Kind, v jsonscan.Span) bool {
			if kind == jsonscan.Object && !ok {
				sum, ok = fingerprintOf(array[v.Start:v.End], name)
			}
			return !ok
		})
		return false
	})
	return sum, ok
}

func fingerprintOf(model []byte, name string) (sum [32]byte, named bool) {
	h := sha256.New()
	quoted := string(jsonscan.AppendQuote(nil, name))
	_ = jsonscan.Each(model, func(member []byte, _ jsonscan.Kind, v jsonscan.Span) bool {
		value := model[v.Start:v.End]
		switch string(member) {
		case "id":
			named = string(value) == quoted
		case "root", "parent", "owned_by", "max_model_len", "meta", "revision", "fingerprint", "system_fingerprint", "digest", "hash", "sha":
			h.Write(member)
			h.Write([]byte{0})
			h.Write(value)
			h.Write([]byte{0})
		}
		return true
	})
	h.Sum(sum[:0])
	return sum, named
}

// changedError: the engine serves another model than it is held to.
type changedError struct{}

func (changedError) Error() string { return "the engine serves another model under the name" }
func (changedError) Fault() string { return "model_changed" }

var errModelChanged = changedError{}

// Greeted implements engine.Greeter. An engine that does not list its models cannot be held to anything.
func (x *exchange) Greeted(status int, body []byte) error {
	if status != http.StatusOK {
		return nil
	}
	changed, news := x.asking.served.see(x.offer.Model, body)
	if news {
		x.g.log.Warn("an engine's models are not, or are again, those that it served first; one that has changed is not asked for",
			"engine", x.asking.Name, "model", x.offer.Model.Name, "changed", changed)
	}
	if changed {
		return errModelChanged
	}
	return nil
}
