package decode_test

import (
	"bytes"
	"strings"
	"testing"

	"sixfour/internal/decode"
	"sixfour/internal/pcapng"
	"sixfour/internal/vectors"
)

// The headers of tunnels in UDP, and of SEAL.
func TestTunnels(t *testing.T) {
	v := vectors.Read(t)
	for _, c := range []struct {
		vector string
		want   []string // lines after those of the IPv4 and the UDP header
	}{
		{"TEREDO-2", []string{
			"Teredo 13 B authentication, nonce 0102030405060708",
			"Teredo 8 B origin 192.0.2.45:40000",
			"IPv6 ", "ICMPv6 ",
		}},
		{"TEREDO-6", []string{"IPv6 ", "ICMPv6 "}},
		{"6BED4-1", []string{"IPv6 ", "ICMPv6 8 B router solicitation"}},
		{"6BED4-4", []string{"IPv6 ", "ICMPv6 8 B echo request"}},
		{"6BED4-5", []string{"6bed4 0 B keepalive or probe"}},
		{"6A44-2", []string{"6a44 20 B bubble, prefix 2001:db8:44:c633:6402:9cbb::/96, ID 1122334455667788"}},
		{"6A44-3", []string{"IPv6 ", "ICMPv6 8 B echo request"}},
		{"LISP-2", []string{"LISP 8 B nonce abcdef, instance 7, locator status 0x1", "IPv6 ", "ICMPv6 8 B echo"}},
		{"LISP-3", []string{"LISP 72 B Map-Register, records 1, nonce 0000000000000001"}},
		{"LISP-5", []string{"LISP 4 B encapsulated message", "IPv6 ", "UDP ", "LISP 56 B Map-Request, records 1, nonce a1a2a3a4a5a6a7a8"}},
		{"SEAL-1", []string{"SEAL 8 B next header 41 (IPv6 inside), ID 0x01020304", "IPv6 ", "ICMPv6 8 B echo"}},
		{"SEAL-2b", []string{"SEAL 8 B next header 41 (IPv6 inside), segment at 1248, ID 0x01020305", "payload 100 B"}},
	} {
		var b bytes.Buffer
		decode.Print(&b, decode.Layers(v[c.vector], pcapng.LinkRaw))
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		lines = lines[1:]
		if !strings.HasPrefix(c.vector, "SEAL") {
			lines = lines[1:]
		}
		ok := len(lines) >= len(c.want)
		for i, want := range c.want {
			ok = ok && strings.HasPrefix(strings.Join(strings.Fields(lines[i]), " "), want)
		}
		if !ok {
			t.Errorf("%s:\n%s", c.vector, b.String())
		}
	}
	for name, b := range v { // cut off anywhere
		for n := range b {
			if len(decode.Layers(b[:n], pcapng.LinkRaw)) == 0 && n > 0 {
				t.Errorf("%s, %d bytes: nothing", name, n)
			}
		}
	}
}
