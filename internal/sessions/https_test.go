package sessions

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sixfour/internal/config"
)

// files are a certificate and its key.
type files struct{ chain, key []byte }

// issue returns a certificate with a number, valid until a time, and its key.
func issue(t *testing.T, number int64, until time.Time) files {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotBefore: until.Add(-time.Hour), NotAfter: until, DNSNames: []string{"gw.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return files{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

// A certificate is read again when its files have changed. While they are not valid, the
// former one is used.
func TestCertificateRenewed(t *testing.T) {
	dir := t.TempDir()
	of := config.HTTPSPort{Listen: true, Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	changed := time.Now().Add(-time.Hour)
	write := func(f files) {
		t.Helper()
		changed = changed.Add(time.Second)
		for path, b := range map[string][]byte{of.Certificate: f.chain, of.Key: f.key} {
			if err := errors.Join(os.WriteFile(path, b, 0o600), os.Chtimes(path, changed, changed)); err != nil {
				t.Fatal(err)
			}
		}
	}
	core, log := observer.New(zapcore.DebugLevel)
	c := &certificate{chain: of.Certificate, key: of.Key, log: zap.New(core)}
	number := func(want int64) {
		t.Helper()
		c.looked = time.Time{} // long ago
		pair, err := c.get(nil)
		if err != nil || pair.Leaf.SerialNumber.Int64() != want {
			t.Fatalf("the certificate is %v, %v, want number %d", pair, err, want)
		}
	}
	if _, err := c.get(nil); err == nil || !strings.Contains(err.Error(), of.Certificate) {
		t.Errorf("no files: %v", err)
	}
	first, second := issue(t, 1, time.Now().Add(time.Hour)), issue(t, 2, time.Now().Add(time.Hour))
	c.looked = time.Time{}
	write(files{first.chain, second.key})
	if _, err := c.get(nil); err == nil || !strings.Contains(err.Error(), of.Key) {
		t.Errorf("another key: %v", err)
	}
	write(first)
	number(1)
	write(files{second.chain, first.key}) // only one of the two has been renewed
	number(1)
	if log.FilterMessage("the new certificate is not used").Len() != 1 {
		t.Errorf("the log is %v", log.All())
	}
	write(second)
	number(2)
	if err := os.Remove(of.Key); err != nil {
		t.Fatal(err)
	}
	number(2)
	if log.FilterMessage("the certificate has expired: peers refuse it: renew it").Len() != 0 {
		t.Errorf("the log is %v", log.All())
	}
	write(issue(t, 3, time.Now().Add(-time.Minute)))
	number(3)
	if log.FilterMessage("the certificate has expired: peers refuse it: renew it").Len() != 1 {
		t.Errorf("the log is %v", log.All())
	}
}

// Errors about certificates name the key of the configuration that helps.
func TestAdvise(t *testing.T) {
	plain := errors.New("no answer")
	if got := advise(plain); got != plain {
		t.Error(got)
	}
	for _, c := range []struct {
		why  error
		want string
	}{
		{x509.UnknownAuthorityError{}, "ca"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a.example"}, "url"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "renew"},
	} {
		err := fmt.Errorf("over TCP: %w", c.why)
		if got := advise(err); !errors.Is(got, err) || !strings.Contains(strings.TrimPrefix(got.Error(), err.Error()), c.want) {
			t.Errorf("%v has the advice %v", err, got)
		}
	}
	if advise(nil) != nil {
		t.Error("an error without a reason")
	}
}
