package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"talea/internal/account"
)

// Hasher does what needs the installation's secret, the pepper: it hashes keys, so that a stolen store lets nobody guess
// them; it seals what must be read again; it makes pseudonyms. Each purpose has a key of its own, derived from the pepper.
// A Hasher may be used concurrently if its source of random bytes may.
type Hasher struct {
	keys, names, nonces mac
	seal                cipher.AEAD
	random              io.Reader
}

// NewHasher makes a hasher. With another pepper every key is unknown and nothing sealed can be opened.
func NewHasher(pepper [32]byte, random io.Reader) *Hasher {
	derive := func(purpose string) []byte {
		key, err := hkdf.Expand(sha256.New, pepper[:], "talea "+purpose, 32)
		if err != nil {
			panic("identity: " + err.Error()) // only for more than 255 hashes of output
		}
		return key
	}
	block, err := aes.NewCipher(derive("seal"))
	if err != nil {
		panic("identity: " + err.Error()) // only for a key of another length
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		panic("identity: " + err.Error()) // only for a block of another length
	}
	return &Hasher{newMAC(derive("key hash")), newMAC(derive("pseudonym")), newMAC(derive("nonce")), seal, random}
}

// Mint makes a new key: the secret, which is shown once and never stored, and the public id under which records, tables
// and messages speak of it.
func (h *Hasher) Mint() (secret, public string, err error) { return mint(h.random) }

// Hash returns the keyed hash of a key's whole text, by which it is stored and looked up. It does not allocate.
func (h *Hasher) Hash(secret []byte) [32]byte { return sum(&h.keys, secret) }

// Pseudonym stands for a text where it must not be recorded: the same for the same purpose, account and text, and
// telling nothing without the pepper. 32 hexadecimal digits.
func (h *Hasher) Pseudonym(purpose string, scope account.ID, text string) string {
	b := make([]byte, 0, 128)
	b = append(b, purpose...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(scope), 10)
	b = append(b, 0)
	b = append(b, text...)
	full := sum(&h.names, b)
	return hex.EncodeToString(full[:16])
}

var sealedText = base64.RawURLEncoding

// Seal encrypts a text that is stored and must be read again, bound to a context: what it is and whose. The same text in
// the same context gives the same result, so that a world that has not changed compares as equal; nothing else can be
// told from it but the length.
func (h *Hasher) Seal(context, text string) string {
	full := sum(&h.nonces, context+"\x00"+text)
	nonce := full[:h.seal.NonceSize()] // repeats only with the text it belongs to
	return sealedText.EncodeToString(h.seal.Seal(nonce, nonce, []byte(text), []byte(context)))
}

// Open reads what Seal wrote in the same context under the same pepper.
func (h *Hasher) Open(context, sealed string) (string, error) {
	b, err := sealedText.DecodeString(sealed)
	if err != nil || len(b) < h.seal.NonceSize() {
		return "", fmt.Errorf("cannot open the %s: it is not in the form in which secrets are kept", context)
	}
	n := h.seal.NonceSize()
	text, err := h.seal.Open(nil, b[:n], b[n:], []byte(context))
	if err != nil {
		return "", fmt.Errorf("cannot open the %s: %w", context, errPepper)
	}
	return string(text), nil
}

var errPepper = errors.New("it was sealed under another pepper, or somebody changed it")

// mac is a key of HMAC-SHA-256 (RFC 2104), made ready: crypto/hmac allocates for every sum.
type mac struct{ inner, outer [sha256.BlockSize]byte }

func newMAC(key []byte) mac {
	var m mac
	copy(m.inner[:], key) // 32 bytes, shorter than a block
	copy(m.outer[:], key)
	for i := range m.inner {
		m.inner[i] ^= 0x36
		m.outer[i] ^= 0x5c
	}
	return m
}

// shortText is the length up to which a text is hashed without allocation: every key, and most of the rest.
const shortText = maxKey

func sum[T string | []byte](m *mac, text T) [32]byte {
	var outer [sha256.BlockSize + sha256.Size]byte
	copy(outer[:], m.outer[:])
	if len(text) <= shortText {
		var inner [sha256.BlockSize + shortText]byte
		copy(inner[:], m.inner[:])
		n := copy(inner[sha256.BlockSize:], text)
		digest := sha256.Sum256(inner[:sha256.BlockSize+n])
		copy(outer[sha256.BlockSize:], digest[:])
	} else {
		h := sha256.New()
		h.Write(m.inner[:])
		h.Write([]byte(text))
		h.Sum(outer[:sha256.BlockSize])
	}
	return sha256.Sum256(outer[:])
}
