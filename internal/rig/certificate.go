package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// Certificate is what a web server needs, in PEM: a certificate for its names with the private
// key, and the certificate of the authority that has signed it.
type Certificate struct {
	Cert, Key, CA []byte
}

// NewCertificate makes a certificate for names or addresses that is valid for an hour, and an
// authority for it alone.
func NewCertificate(hosts ...string) (c Certificate, err error) {
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{SerialNumber: ca.SerialNumber, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
	for _, host := range hosts {
		if a := net.ParseIP(host); a != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, a)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, host)
		}
	}
	for _, part := range []struct {
		pem  *[]byte
		kind string
		der  func() ([]byte, error)
	}{
		{&c.CA, "CERTIFICATE", func() ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, ca, ca, &authority.PublicKey, authority)
		}},
		{&c.Cert, "CERTIFICATE", func() ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, authority)
		}},
		{&c.Key, "PRIVATE KEY", func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }},
	} {
		der, err := part.der()
		if err != nil {
			return c, err
		}
		*part.pem = pem.EncodeToMemory(&pem.Block{Type: part.kind, Bytes: der})
	}
	return c, nil
}
