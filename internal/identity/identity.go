// Package identity knows who calls: it mints keys, hashes them, and finds the key that a request carries. It does not
// keep keys or say what they may do (world), and writes no answer (gateway).
//
// # Invariants
//
//   - A key is found by the keyed hash of its whole text alone: keys of other gateways work as our own do.
//   - No error, refusal or record shows a secret or a part of it.
//   - A key that is wrong, revoked or suspended takes the same work as one that is right.
//   - What is sealed can be read again only under the same pepper and in the same context.
//
// Start reading at Authenticate.
package identity

import (
	"strings"

	"talea/internal/refusal"
	"talea/internal/world"
)

// maxKey bounds the text of a key, in bytes. A longer one is refused without being hashed.
const maxKey = world.MaxSecret

// Authenticate finds the key of a request in a snapshot of the world. authorization and xAPIKey are the values of the
// headers Authorization (of which only Bearer is read) and x-api-key, "" where there is none. It takes about half a
// microsecond and does not allocate for a key that is known.
func Authenticate(s *world.Snapshot, h *Hasher, authorization, xAPIKey string) (*world.Key, *refusal.Refusal) {
	secret := bearer(authorization)
	other := strings.TrimSpace(xAPIKey)
	switch {
	case secret == "":
		secret = other
	case other != "" && other != secret:
		return nil, refusal.New(refusal.InvalidKey, "The headers Authorization and x-api-key carry two different API keys: send one.")
	}
	if secret == "" {
		return nil, refusal.New(refusal.InvalidKey, "This request has no API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`.")
	}
	if len(secret) > maxKey {
		return nil, refusal.New(refusal.InvalidKey, "Incorrect API key: it is longer than any that is known here.")
	}
	key := s.ByHash(sum(&h.keys, secret))
	switch {
	case key == nil && checkText(secret) != nil:
		return nil, refusal.New(refusal.InvalidKey, "Incorrect API key: "+errMistyped.Error()+".")
	case key == nil:
		return nil, refusal.New(refusal.InvalidKey, "Incorrect API key: it is not known here.")
	case key.Revoked:
		return nil, refusal.New(refusal.KeyRevoked, "This API key has been revoked.")
	case key.Account.Suspended:
		return nil, refusal.New(refusal.KeyRevoked, "The account of this API key is suspended.")
	}
	return key, nil
}

// bearer returns the credentials of an Authorization header in the scheme Bearer (RFC 6750), "" for any other.
func bearer(header string) string {
	const scheme = "bearer "
	header = strings.TrimSpace(header)
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return ""
	}
	return strings.TrimSpace(header[len(scheme):])
}
