package identity_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"talea/internal/identity"
	"talea/internal/ledger"
	"talea/internal/refusal"
	"talea/internal/world"
)

// nothing is a store that keeps nothing.
type nothing struct{}

func (nothing) Objects() ([]ledger.Object, error)                 { return nil, nil }
func (nothing) Publish(context.Context, ledger.Publication) error { return nil }

type clock struct{}

func (clock) Now() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }

func hasher(pepper byte) *identity.Hasher {
	return identity.NewHasher([32]byte{pepper}, rand.NewChaCha8([32]byte{pepper}))
}

const imported = "xq-brought-along-0123456789"

// setup is a world with one key that was brought along, a revoked one, one of a suspended account, and one of our own.
func setup(t testing.TB) (s *world.Snapshot, h *identity.Hasher, own string) {
	t.Helper()
	h = hasher(1)
	w, err := world.Open(nothing{}, h, clock{})
	if err != nil {
		t.Fatal(err)
	}
	src := world.Source{File: "w.yaml", Text: []byte(`
price_books: [{name: b, currency: EUR, prices: [{model: m, meter: input, price: 1}]}]
accounts:
- {path: acme, currency: EUR, price_book: b}
- {path: gone, currency: EUR, price_book: b, suspended: true}
- {path: gone/app}
keys:
- {name: good, account: acme, secret: env:GOOD}
- {name: revoked, account: acme, secret: env:REVOKED, revoked: true}
- {name: suspended, account: gone/app, secret: env:SUSPENDED}
- {name: longest, account: acme, secret: env:LONGEST}
`), Secrets: map[string]string{
		"env:GOOD": imported, "env:REVOKED": imported + "-revoked", "env:SUSPENDED": imported + "-suspended", "env:LONGEST": strings.Repeat("k", world.MaxSecret),
	}}
	if _, err := w.Apply(t.Context(), src, false); err != nil {
		t.Fatal(err)
	}
	own, _, err = w.CreateKey(t.Context(), "acme", "own")
	if err != nil {
		t.Fatal(err)
	}
	return w.Current(), h, own
}

func TestAuthenticate(t *testing.T) {
	s, h, own := setup(t)
	const none = "This request has no API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`."
	const unknown = "Incorrect API key: it is not known here."
	const mistyped = "Incorrect API key: the key is cut or mistyped: copy it again, whole."
	for _, c := range []struct {
		authorization, xAPIKey string
		want                   string // the key's name, or the code and the message
	}{
		{"Bearer " + imported, "", "good"},
		{"bearer  " + imported + " ", "", "good"},
		{"BEARER " + imported, imported, "good"},
		{"", imported, "good"},
		{"", " " + imported + " ", "good"},
		{"Basic dXNlcjpwYXNz", imported, "good"},
		{"Bearer " + own, "", "own"},
		{"", own, "own"},
		{"Bearer " + strings.Repeat("k", world.MaxSecret), "", "longest"},
		{"", "", "unknown_key: " + none},
		{"Bearer", "", "unknown_key: " + none},
		{"Bearer ", "  ", "unknown_key: " + none},
		{imported, "", "unknown_key: " + none},
		{"Basic " + imported, "", "unknown_key: " + none},
		{"Bearer " + imported[1:], "", "unknown_key: " + unknown},
		{"Bearer " + imported + "x", "", "unknown_key: " + unknown},
		{"Bearer " + strings.ToUpper(imported), "", "unknown_key: " + unknown},
		{"Bearer " + imported + " " + imported, "", "unknown_key: " + unknown},
		{"Bearer " + own[:len(own)-1], "", "unknown_key: " + mistyped},
		{"Bearer " + own + "0", "", "unknown_key: " + mistyped},
		{"Bearer talea-", "", "unknown_key: " + mistyped},
		{"Bearer " + strings.Repeat("k", world.MaxSecret+1), "", "unknown_key: Incorrect API key: it is longer than any that is known here."},
		{"Bearer " + imported, own, "unknown_key: The headers Authorization and x-api-key carry two different API keys: send one."},
		{"Bearer " + imported + "-revoked", "", "key_revoked: This API key has been revoked."},
		{"Bearer " + imported + "-suspended", "", "key_revoked: The account of this API key is suspended."},
	} {
		got := ""
		k, no := identity.Authenticate(s, h, c.authorization, c.xAPIKey)
		switch {
		case no != nil && k != nil, no == nil && k == nil:
			t.Fatalf("%q %q: key %v and refusal %v", c.authorization, c.xAPIKey, k, no)
		case no != nil:
			got = no.Error()
			if row := no.Code.Row(); row.Status != 401 || row.Code != "invalid_api_key" {
				t.Errorf("%q: %d %s", c.authorization, row.Status, row.Code)
			}
		default:
			got = k.Name
		}
		if got != c.want {
			t.Errorf("%q %q: %s, want %s", c.authorization, c.xAPIKey, got, c.want)
		}
	}
	if _, no := identity.Authenticate(s, hasher(2), "Bearer "+imported, ""); no == nil || no.Code != refusal.InvalidKey {
		t.Error("a key is known under another pepper")
	}
}

func TestMint(t *testing.T) {
	random := rand.NewChaCha8([32]byte{3})
	seen := map[string]bool{}
	for range 1000 {
		secret, public, err := identity.Mint(random)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(secret, "-")
		if len(parts) != 4 || parts[0] != "talea" || len(parts[1]) != 10 || len(parts[2]) != 32 || len(parts[3]) != 6 || public != "key_"+parts[1] {
			t.Fatalf("minted %s, %s", secret, public)
		}
		if strings.Trim(parts[1]+parts[2]+parts[3], "0123456789abcdefghjkmnpqrstvwxyz") != "" {
			t.Fatalf("minted %s", secret)
		}
		if seen[public] || seen[parts[2]] {
			t.Fatalf("minted %s twice", secret)
		}
		seen[public], seen[parts[2]] = true, true
	}
	if _, _, err := identity.Mint(bytes.NewReader(make([]byte, 41))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("with too few random bytes: %v", err)
	}
}

// TestCheckText: every single slip of a key of ours is noticed, and nothing is said about other keys.
func TestCheckText(t *testing.T) {
	secret, _, err := identity.Mint(rand.NewChaCha8([32]byte{3}))
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.CheckText(secret); err != nil {
		t.Errorf("a good key: %v", err)
	}
	for i := len("talea-"); i < len(secret); i++ {
		slips := []string{secret[:i], secret[:i] + secret[i+1:], secret[:i] + another(secret[i]) + secret[i+1:]}
		if i+1 < len(secret) && secret[i] != secret[i+1] {
			slips = append(slips, secret[:i]+secret[i+1:i+2]+secret[i:i+1]+secret[i+2:])
		}
		for _, slip := range slips {
			if err := identity.CheckText(slip); err == nil {
				t.Errorf("%s passes for %s", slip, secret)
			} else if strings.Contains(err.Error(), slip) {
				t.Errorf("the error shows the key: %v", err)
			}
		}
	}
	for _, other := range []string{"", "sk-1234", imported, "talea"} {
		if err := identity.CheckText(other); err != nil {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// another returns another digit.
func another(digit byte) string {
	if digit == 'x' {
		return "0"
	}
	return "x"
}

// TestHash compares with the standard library's HMAC, of all lengths around the blocks of the hash.
func TestHash(t *testing.T) {
	h := hasher(1)
	text := bytes.Repeat([]byte("0123456789abcdef"), 80)
	seen := map[[32]byte]int{}
	for n := range text {
		got := h.Hash(text[:n])
		if other, ok := seen[got]; ok {
			t.Fatalf("lengths %d and %d have one hash", other, n)
		}
		seen[got] = n
		if got != hasher(1).Hash(text[:n]) || got == hasher(2).Hash(text[:n]) || got == sha256.Sum256(text[:n]) {
			t.Fatalf("length %d: the hash does not depend on the pepper as it must", n)
		}
	}
	key := identity.DerivedKey([32]byte{1}, "key hash")
	for n := range text {
		mac := hmac.New(sha256.New, key)
		mac.Write(text[:n])
		if got := h.Hash(text[:n]); !bytes.Equal(got[:], mac.Sum(nil)) {
			t.Fatalf("length %d: not HMAC-SHA-256", n)
		}
	}
}

func TestSeal(t *testing.T) {
	h := hasher(1)
	long := strings.Repeat("long ", 1000)
	for _, text := range []string{"", "canary", long} {
		sealed := h.Seal("a", text)
		got, err := h.Open("a", sealed)
		if err != nil || got != text {
			t.Fatalf("opened %q, %v", got, err)
		}
		if sealed != h.Seal("a", text) || sealed == h.Seal("b", text) || text != "" && strings.Contains(sealed, text) {
			t.Errorf("sealed as %s", sealed)
		}
		const changed = "cannot open the a: it was sealed under another pepper, or somebody changed it"
		half := len(sealed) / 2
		swapped := sealed[:half] + another(sealed[half]) + sealed[half+1:]
		for _, c := range []struct {
			h                     *identity.Hasher
			context, sealed, want string
		}{
			{h, "b", sealed, strings.Replace(changed, "the a", "the b", 1)},
			{hasher(2), "a", sealed, changed},
			{h, "a", swapped, changed},
			{h, "a", sealed[:len(sealed)-4], changed},
			{h, "a", "", "cannot open the a: it is not in the form in which secrets are kept"},
			{h, "a", "*" + sealed, "cannot open the a: it is not in the form in which secrets are kept"},
		} {
			if got, err := c.h.Open(c.context, c.sealed); err == nil || err.Error() != c.want || got != "" {
				t.Errorf("opened %q, %v; want %s", got, err, c.want)
			}
		}
	}
}

func TestPseudonym(t *testing.T) {
	h := hasher(1)
	p := h.Pseudonym("user", 7, "canary")
	if len(p) != 32 || strings.Contains(p, "canary") || p != h.Pseudonym("user", 7, "canary") {
		t.Errorf("pseudonym %s", p)
	}
	for _, other := range []string{
		h.Pseudonym("idempotency", 7, "canary"), h.Pseudonym("user", 8, "canary"), h.Pseudonym("user", 7, "canarz"), hasher(2).Pseudonym("user", 7, "canary"),
		h.Pseudonym("user", 77, "canary"), h.Pseudonym("user", 7, strings.Repeat("canary", 200)),
	} {
		if other == p {
			t.Error("two texts have one pseudonym")
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	s, h, own := setup(b)
	header := "Bearer " + own
	b.ReportAllocs()
	for b.Loop() {
		if _, no := identity.Authenticate(s, h, header, ""); no != nil {
			b.Fatal(no)
		}
	}
}
