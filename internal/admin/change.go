package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/world"
)

// ApplyRequest asks for the world to become what resource files say.
type ApplyRequest struct {
	Files     []File `json:"files"`
	ManagedBy string `json:"managed_by,omitempty"` // "file" (default) or "api"
	Prune     bool   `json:"prune,omitempty"`      // delete what has the same owner and is not in the file
	DryRun    bool   `json:"dry_run,omitempty"`    // say what would change, and change nothing
}

// File is one resource file, with the secrets that it refers to: whoever sends it has read them.
type File struct {
	Name    string            `json:"name"`
	Text    string            `json:"text"`
	Secrets map[string]string `json:"secrets,omitempty"` // by reference: "file:keys/good", "env:GOOD"
}

// apply changes the world by resource files. Several files are tried out together first, so that a fault in the last
// leaves the world as it was.
func (s *Server) apply(r *http.Request) (any, error) {
	var req ApplyRequest
	if err := decode(r, maxApply, &req); err != nil {
		return nil, err
	}
	switch {
	case len(req.Files) == 0:
		return nil, refuse(http.StatusBadRequest, "invalid_request", "no file to apply: give at least one in `files`")
	case len(req.Files) > 1 && req.Prune:
		return nil, refuse(http.StatusBadRequest, "invalid_request", "prune takes one file that holds everything: with several, each would delete what is in the others")
	case req.ManagedBy != "" && req.ManagedBy != "file" && req.ManagedBy != "api":
		return nil, refuse(http.StatusBadRequest, "invalid_request", "managed_by is file or api")
	}
	sources := make([]world.Source, len(req.Files))
	for i, f := range req.Files {
		if f.Name == "" {
			return nil, refuse(http.StatusBadRequest, "invalid_request", "a file has no name, which messages need")
		}
		sources[i] = world.Source{File: f.Name, Text: []byte(f.Text), Secrets: f.Secrets, ManagedBy: req.ManagedBy}
	}
	if len(sources) == 1 && req.DryRun {
		return s.World.Plan(sources[0], req.Prune)
	}
	if len(sources) > 1 {
		objects, err := s.Ledger.Objects()
		if err != nil {
			return nil, err
		}
		if plan, err := Rehearse(r.Context(), objects, s.Secrets, s.Clock, sources); err != nil || req.DryRun {
			return plan, err
		}
	}
	var whole world.Plan
	for _, src := range sources {
		plan, err := s.World.Apply(r.Context(), src, req.Prune)
		if err != nil {
			return nil, err
		}
		join(&whole, plan)
	}
	s.Log.Info("resources applied", "files", len(sources), "changes", len(whole.Changes), "prune", req.Prune)
	return &whole, nil
}

func join(whole, part *world.Plan) {
	whole.Changes = append(whole.Changes, part.Changes...)
	whole.Notes = append(whole.Notes, part.Notes...)
}

// Rehearse applies sources in turn to a world of the given objects that nobody sees, and says what would change.
func Rehearse(ctx context.Context, objects []ledger.Object, secrets world.Secrets, clock ledger.Clock, sources []world.Source) (*world.Plan, error) {
	w, err := world.Open(stage(objects), secrets, clock)
	if err != nil {
		return nil, err
	}
	var whole world.Plan
	for _, src := range sources {
		plan, err := w.Apply(ctx, src, false)
		if err != nil {
			return nil, err
		}
		join(&whole, plan)
	}
	return &whole, nil
}

// stage is a store that begins with some objects and keeps nothing: a world has what it published in itself.
type stage []ledger.Object

// Objects implements world.Store.
func (s stage) Objects() ([]ledger.Object, error) { return s, nil }

// Publish implements world.Store.
func (s stage) Publish(context.Context, ledger.Publication) error { return nil }

// Key is a key as lists show it.
type Key struct {
	Name    string    `json:"name"`
	Public  string    `json:"key"` // what records call it
	Account string    `json:"account"`
	Created time.Time `json:"created"`
	Revoked bool      `json:"revoked"`
	Secret  string    `json:"secret,omitempty"` // only in the answer that made it
}

func keyOf(k *world.Key) Key {
	return Key{Name: k.Name, Public: k.Public, Account: string(k.Account.Path), Created: k.Created, Revoked: k.Revoked}
}

func (s *Server) keys(r *http.Request) (any, error) {
	if _, err := query(r); err != nil {
		return nil, err
	}
	list := []Key{}
	for _, k := range s.World.Current().Keys() {
		list = append(list, keyOf(k))
	}
	return list, nil
}

// KeyRequest asks for a new key.
type KeyRequest struct {
	Account string `json:"account"`
	Name    string `json:"name"`
}

func (s *Server) createKey(r *http.Request) (any, error) {
	var req KeyRequest
	if err := decode(r, maxBody, &req); err != nil {
		return nil, err
	}
	snap, path := s.World.Current(), account.Path(req.Account)
	if snap.Account(path) == nil {
		return nil, unknownAccount(snap, path)
	}
	secret, k, err := s.World.CreateKey(r.Context(), path, req.Name)
	if err != nil {
		return nil, asked(err, http.StatusUnprocessableEntity, "invalid_key")
	}
	s.Log.Info("key created", "key", k.Public, "account", req.Account)
	made := keyOf(k)
	made.Secret = secret
	return made, nil
}

// RevokeRequest asks for a key's end.
type RevokeRequest struct {
	Key string `json:"key"` // its name or public id
}

// revokeKey ends a key. Its running streams are cut before this returns an answer.
func (s *Server) revokeKey(r *http.Request) (any, error) {
	var req RevokeRequest
	if err := decode(r, maxBody, &req); err != nil {
		return nil, err
	}
	if err := s.World.RevokeKey(r.Context(), req.Key); err != nil {
		return nil, asked(err, http.StatusNotFound, "unknown_key")
	}
	for _, k := range s.World.Current().Keys() {
		if k.Public == req.Key || k.Name == req.Key {
			s.Log.Info("key revoked", "key", k.Public)
			return keyOf(k), nil
		}
	}
	return nil, errors.New("the key is gone") // deleted since: revoked all the same
}

// ReleaseRequest asks for a model to be served again that is in quarantine.
type ReleaseRequest struct {
	Model string `json:"model"`
}

func (s *Server) releaseModel(r *http.Request) (any, error) {
	var req ReleaseRequest
	if err := decode(r, maxBody, &req); err != nil {
		return nil, err
	}
	if err := s.World.Release(r.Context(), req.Model); err != nil {
		return nil, asked(err, http.StatusNotFound, "unknown_model")
	}
	s.Log.Info("model released from quarantine", "model", req.Model)
	return req, nil
}

// asked says an error of the world as a "no" to what was asked for, unless the store or the caller is at fault.
func asked(err error, status int, code string) error {
	if errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return refuse(status, code, "%v", err)
}
