package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// Mint and CheckText are for the tests.
var (
	Mint      = mint
	CheckText = checkText
)

// DerivedKey is the key of one purpose, worked out a second time.
func DerivedKey(pepper [32]byte, purpose string) []byte {
	key, err := hkdf.Expand(sha256.New, pepper[:], "talea "+purpose, 32)
	if err != nil {
		panic(err)
	}
	return key
}
