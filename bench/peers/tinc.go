package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

func tincPrepare(ctx context.Context, _ string) (string, error) {
	return installed(ctx, "tinc", "tincd", "--version", `tinc version (\S+)`)
}

// tincUp runs tinc without cipher and digest. The keys are for its control connection,
// which always needs some.
func tincUp(ctx context.Context, l *lab) error {
	const bits = 2048
	for i, name := range ends {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return err
		}
		private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
		files := map[string]string{
			name + "/tinc.conf":    fmt.Sprintf("Name = %s\nInterface = %s\nDeviceType = tun\nConnectTo = %s\n", name, tunnel, ends[1-i]),
			name + "/rsa_key.priv": string(private),
		}
		for _, reader := range ends {
			files[reader+"/hosts/"+name] = fmt.Sprintf("Address = %v\nSubnet = %v/32\nCipher = none\nDigest = none\nMACLength = 0\nPMTU = %d\nClampMSS = no\n%s",
				outer[i], inner[i], tunnelMTU, public)
		}
		for file, content := range files {
			if _, err := l.write(file, content); err != nil {
				return err
			}
		}
	}
	for i, name := range ends {
		if err := l.start(i, "tincd", "-c", l.path(name), "-D", "--pidfile="+l.path(name+".pid")); err != nil {
			return err
		}
	}
	return l.configure(ctx, [2]string{tunnel, tunnel})
}
