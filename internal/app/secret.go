package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"talea/internal/cli"
)

// Files of the data directory beside the ledger's.
const (
	pepperFile = cli.SecretFile
	tokenFile  = cli.TokenFile
)

// pepper reads the installation's secret, or makes it at the first start. It is not made for a world that has objects:
// with another one every key of every tenant would be unknown.
func pepper(dir string, inUse bool, random io.Reader) (p [32]byte, err error) {
	path := filepath.Join(dir, pepperFile)
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(b) == len(p):
		return [32]byte(b), nil
	case err == nil:
		return p, fmt.Errorf("cannot use %s: it has %d bytes instead of %d; restore it from a backup", path, len(b), len(p))
	case !errors.Is(err, fs.ErrNotExist):
		return p, fmt.Errorf("cannot read the installation's secret: %w", err)
	}
	if inUse {
		return p, fmt.Errorf("%s is missing beside a ledger in use: restore it from a backup, since without it no key is known", path)
	}
	if _, err := io.ReadFull(random, p[:]); err != nil {
		return p, fmt.Errorf("cannot make the installation's secret: %w", err)
	}
	return p, writeNew(path, p[:])
}

// newMark is in the names of files that are not whole yet.
const newMark = ".new-"

// sweep removes what a crash has left of files that were being written.
func (s *server) sweep() {
	witness, err := s.witnessPath()
	for _, pattern := range []string{filepath.Join(s.Data, "*"), witness} {
		left, bad := filepath.Glob(pattern + newMark + "*")
		if err != nil || bad != nil {
			continue
		}
		for _, file := range left {
			os.Remove(file)
		}
	}
}

// writeNew writes a file that only its owner may read, whole and durable, or leaves none.
func writeNew(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newMark+"*") // mode 0600
	if err != nil {
		return fmt.Errorf("cannot make %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make %s durable: %w", dir, err)
	}
	return nil
}

// adminToken returns the hash of the token that opens the admin port, and the token itself where it was made just now:
// it is shown once and cannot be had again. A given token is used for this run and not kept.
func adminToken(dir, given string, isGiven bool, random io.Reader) (hash [32]byte, made string, err error) {
	if isGiven {
		if err := checkToken(given); err != nil {
			return hash, "", fmt.Errorf("cannot use TALEA_ADMIN_TOKEN: %w", err)
		}
		return sha256.Sum256([]byte(given)), "", nil
	}
	path := filepath.Join(dir, tokenFile)
	b, err := os.ReadFile(path)
	if err == nil {
		n, err := hex.Decode(hash[:], b[:min(len(b), 2*len(hash))])
		if err != nil || n != len(hash) {
			return hash, "", fmt.Errorf("cannot use %s: it is not a hash; delete it to have a new admin token made at the next start", path)
		}
		return hash, "", nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return hash, "", fmt.Errorf("cannot read the hash of the admin token: %w", err)
	}
	var raw [32]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return hash, "", fmt.Errorf("cannot make an admin token: %w", err)
	}
	made = "talea-admin-" + hex.EncodeToString(raw[:])
	hash = sha256.Sum256([]byte(made))
	return hash, made, writeNew(path, []byte(hex.EncodeToString(hash[:])+"\n"))
}

const minToken = 16

// knownTokens are words that only stand in tokens that everybody knows from some example.
var knownTokens = []string{"changeme", "change-me", "change_me", "password", "your-token", "your_token", "mysecret"}

// checkToken refuses tokens that can be guessed. The errors do not show the token.
func checkToken(token string) error {
	distinct := map[rune]bool{}
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return errors.New("it has characters that do not travel in an HTTP header: use printable ASCII without blanks")
		}
		distinct[c] = true
	}
	const hint = "; make one with `openssl rand -hex 32`, or unset the variable to have one made"
	switch {
	case token == "":
		return errors.New("it is empty" + hint)
	case len(token) < minToken:
		return fmt.Errorf("it has %d characters; at least %d are needed%s", len(token), minToken, hint)
	case len(distinct) < 6:
		return errors.New("it has hardly any different characters" + hint)
	}
	for _, known := range knownTokens {
		if strings.HasPrefix(strings.ToLower(token), known) {
			return errors.New("it is an example that everybody knows" + hint)
		}
	}
	return nil
}
