package app

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair writes a self-signed key pair for 127.0.0.1.
func writePair(t *testing.T, certFile, keyFile string, serial int64, until time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "talea test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: until.AddDate(-1, 0, 0), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// touch moves the time of a file on, so that a change shows on file systems with coarse times.
func touch(t *testing.T, at time.Time, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Chtimes(f, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// F096: a changed pair is served from the next handshake on; one that does not fit leaves the old one.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	now := time.Now()
	writePair(t, certFile, keyFile, 1, now.AddDate(1, 0, 0))
	var log bytes.Buffer
	c, err := openCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	served := func() int64 {
		t.Helper()
		pair, err := c.current(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	if n := served(); n != 1 {
		t.Fatalf("certificate %d is served", n)
	}
	old, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, certFile, keyFile, 2, now.AddDate(1, 0, 0))
	fresh, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, old, 0o600); err != nil { // the certificate is new, the key is not yet
		t.Fatal(err)
	}
	touch(t, now.Add(time.Minute), certFile, keyFile)
	if n := served(); n != 1 || !strings.Contains(log.String(), "the old one stays") {
		t.Errorf("between two writes certificate %d is served; log %s", n, log.String())
	}
	if err := os.WriteFile(keyFile, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	touch(t, now.Add(2*time.Minute), keyFile)
	if n := served(); n != 2 {
		t.Errorf("certificate %d is served after the change", n)
	}
}

func TestExpiryIsAnnounced(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	end := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	writePair(t, certFile, keyFile, 1, end)
	for _, c := range []struct {
		before time.Duration
		want   string
	}{
		{31 * 24 * time.Hour, ""},
		{29*24*time.Hour + time.Hour, "days_left=29"},
		{-time.Second, "has expired"},
	} {
		var log bytes.Buffer
		cert, err := openCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		cert.remind(end.Add(-c.before))
		if c.want == "" && log.Len() > 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%v before the end the log says %q, want %q", c.before, log.String(), c.want)
		}
	}
}
