package app

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// F093: an empty, short or well-known token opens nothing.
func TestTokensThatCanBeGuessed(t *testing.T) {
	for _, c := range []struct{ token, want string }{
		{"", "it is empty"},
		{"changeme", "it has 8 characters"},
		{"fifteen-letters", "it has 15 characters"},
		{"changemechangeme", "an example that everybody knows"},
		{"Change-Me-To-Something", "an example that everybody knows"},
		{"password12345678", "an example that everybody knows"},
		{"aaaaaaaaaaaaaaaaaaaa", "hardly any different characters"},
		{"with a blank in it!!", "do not travel in an HTTP header"},
		{"with-a-line-end-abc\n", "do not travel in an HTTP header"},
		{"sixteen-letters!", ""},
		{"test-admin-token-0123456789", ""},
	} {
		_, _, err := adminToken(t.TempDir(), c.token, true, nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q is refused: %v", c.token, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: error %v, want %q", c.token, err, c.want)
		case err != nil && len(c.token) > 8 && strings.Contains(err.Error(), c.token):
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestAdminTokenIsMadeOnce(t *testing.T) {
	dir, random := t.TempDir(), rand.NewChaCha8([32]byte{})
	hash, made, err := adminToken(dir, "", false, random)
	if err != nil || len(made) < 64 || hash != sha256.Sum256([]byte(made)) {
		t.Fatalf("made %q, hash %x, %v", made, hash, err)
	}
	again, shown, err := adminToken(dir, "", false, random)
	if err != nil || again != hash || shown != "" {
		t.Errorf("at the second start: hash %x, shown %q, %v", again, shown, err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil || bytes.Contains(kept, []byte(made)) {
		t.Errorf("the token lies in the data directory: %s, %v", kept, err)
	}
	given, shown, err := adminToken(dir, "given-for-one-run", true, random)
	if err != nil || given != sha256.Sum256([]byte("given-for-one-run")) || shown != "" {
		t.Errorf("given: hash %x, shown %q, %v", given, shown, err)
	}
	if again, _, _ := adminToken(dir, "", false, random); again != hash {
		t.Error("a token that was given for one run has replaced the one that is kept")
	}
	if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := adminToken(dir, "", false, random); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a broken hash: %v", err)
	}
}

func TestPepper(t *testing.T) {
	dir, random := t.TempDir(), rand.NewChaCha8([32]byte{})
	first, err := pepper(dir, false, random)
	if err != nil || first == [32]byte{} {
		t.Fatal(first, err)
	}
	if second, err := pepper(dir, true, random); err != nil || second != first {
		t.Errorf("at the second start: %x instead of %x, %v", second, first, err)
	}
	path := filepath.Join(dir, pepperFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pepper(dir, true, random); err == nil || !strings.Contains(err.Error(), "5 bytes instead of 32") {
		t.Errorf("a secret that was cut: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := pepper(dir, true, random); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("a secret that is gone: %v", err)
	}
}
