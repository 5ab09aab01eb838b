package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The form of a key that we mint: talea-PUBLIC-SECRET-CHECK, in lower case. The public part names the key in records, the
// secret has 160 bits, the check tells a key that was cut or mistyped from one that is unknown, and nothing else.
const (
	keyPrefix  = "talea-"
	publicLen  = 10
	secretLen  = 32
	checkLen   = 6
	mintedLen  = len(keyPrefix) + publicLen + 1 + secretLen + 1 + checkLen
	checkedLen = mintedLen - checkLen - 1
)

// keyDigits is Crockford's base 32 in lower case: no i, l, o, u.
const keyDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// mint makes a new key from 42 random bytes: the secret, which is shown once and never stored, and the public id
// under which records, tables and messages speak of it.
func mint(random io.Reader) (secret, public string, err error) {
	var b [publicLen + secretLen]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", "", fmt.Errorf("cannot mint a key: %w", err)
	}
	for i := range b {
		b[i] = keyDigits[b[i]%byte(len(keyDigits))] // 256 is a multiple of 32: no digit is likelier
	}
	public = string(b[:publicLen])
	text := keyPrefix + public + "-" + string(b[publicLen:])
	return text + "-" + check(text), "key_" + public, nil
}

func check(text string) string {
	sum := sha256.Sum256([]byte(text))
	var b [checkLen]byte
	for i := range b {
		b[i] = keyDigits[sum[i]%byte(len(keyDigits))]
	}
	return string(b[:])
}

var errMistyped = errors.New("the key is cut or mistyped: copy it again, whole")

// checkText tells whether a key that looks like one of ours has been cut or mistyped. It only makes for a better message:
// a key is known by its hash, whatever it looks like. The error does not show the key.
func checkText(secret string) error {
	if !strings.HasPrefix(secret, keyPrefix) {
		return nil
	}
	if len(secret) != mintedLen || secret != secret[:checkedLen]+"-"+check(secret[:checkedLen]) {
		return errMistyped
	}
	return nil
}
