package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// expiryNotice is how long before its end a certificate is warned about.
const expiryNotice = 30 * 24 * time.Hour

// certificate is the key pair of a port, read again when its files change. A pair that cannot be read leaves the old one
// in place: whoever renews certificates writes two files, and between the two writes they do not fit.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex // guards everything below
	pair *tls.Certificate
	seen [2]stamp // of the files when they were last read, readable or not
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// openCertificate reads a key pair; the first one must be good.
func openCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	pair, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("cannot use the TLS certificate: %w", err)
	}
	c.pair, c.seen = pair, c.stamps()
	return c, nil
}

func (c *certificate) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, err
	}
	pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
	return &pair, err
}

func (c *certificate) stamps() (s [2]stamp) {
	for i, path := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(path); err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

// current is tls.Config.GetCertificate. It looks at the files at each handshake, which costs two stats.
func (c *certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.stamps()
	if now == c.seen {
		return c.pair, nil
	}
	c.seen = now // taken before the read: a write during it shows at the next handshake
	pair, err := c.load()
	if err != nil {
		c.log.Error("the changed TLS certificate cannot be used; the old one stays", "cert", c.certFile, "error", err)
		return c.pair, nil
	}
	c.pair = pair
	c.log.Info("TLS certificate read again", "cert", c.certFile, "expires", pair.Leaf.NotAfter)
	return c.pair, nil
}

// remind warns about a certificate that ends soon or has ended.
func (c *certificate) remind(now time.Time) {
	pair, _ := c.current(nil) // never an error
	left := pair.Leaf.NotAfter.Sub(now)
	switch {
	case left <= 0:
		c.log.Error("the TLS certificate has expired: clients refuse this port", "cert", c.certFile, "expired", pair.Leaf.NotAfter)
	case left < expiryNotice:
		c.log.Warn("the TLS certificate expires soon", "cert", c.certFile, "expires", pair.Leaf.NotAfter, "days_left", int64(left/(24*time.Hour)))
	}
}

// config is for a port that speaks TLS with this certificate.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.current, NextProtos: []string{"h2", "http/1.1"}}
}
