package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// webServer writes the files of an end that listens for encap = "https" at gw.example.com, and
// returns the directory.
func webServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gw.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	for name, b := range map[string][]byte{
		"gw.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"gw.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"secret": []byte("0123456789abcdef0123456789abcdef\n"),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return dir
}

// A provider filters protocol 41, then UDP as well, under traffic: packets use UDP, and then
// HTTPS over TCP. When it filters nothing any more, they return to protocol 41, and none is
// lost.
func TestLadderToHTTPS(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	dir := webServer(t)
	const lines = "[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nport = 5555\n[[tunnel.path]]\nencap = \"https\"\n"
	a := start(t, h.a, configA(lines+fmt.Sprintf("url = \"https://gw.example.com\"\nca = \"%s/gw.pem\"\nsecret_file = \"%s/secret\"\n", dir, dir)))
	b := start(t, h.b, configB(lines+fmt.Sprintf("listen = true\nlocal_port = 443\ncertificate = \"%s/gw.pem\"\nkey = \"%s/gw.key\"\nsecret_file = \"%s/secret\"\n", dir, dir, dir)))
	a.usesPath(t, 0, api.Up, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up, api.Up)
	for used, rules := range []string{"", "ip protocol ipv6 drop;", "iifname { va, vb } ip protocol ipv6 drop; iifname { va, vb } ip protocol udp drop;"} {
		end := h.load(t, inB, 1000, 6*time.Second)
		drops(t, h.a, rules)
		drops(t, h.b, rules)
		want := []api.Phase{api.Up, api.Up, api.Up}
		for i := range used {
			want[i] = notUp
		}
		a.usesPath(t, used, want...)
		r := end()
		t.Logf("path %d: outage %v, %d of %d lost, %d reordered", used+1, r.Gap.Round(time.Millisecond), r.Lost(), r.Sent, r.Reordered)
		reachable(t, h.a, inB)
		pings(t, h.a, inB, rig.PingOptions{Count: 5})
		transfer(t, h.a, h.b, inB, 1<<20)
	}
	counted := readLosses(t, h, a, b)
	end := h.load(t, inB, 500, 25*time.Second)
	drops(t, h.a, "")
	drops(t, h.b, "")
	a.usesPath(t, 0, api.Up, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up, api.Up)
	checkPlanned(t, end(), counted, readLosses(t, h, a, b))
}
