package doctor_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/doctor"
	"sixfour/internal/doctor/finding"
)

// ladderOf are the lines of a path with each encapsulation that needs no keys.
const ladderOf = "select = \"preferred\"\nkeepalive = \"1s\"\ndead_after = 2\n[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nport = 5555\n[[tunnel.path]]\nencap = \"gue\"\n[[tunnel.path]]\nencap = \"gre_udp\"\n"

// Every encapsulation of the peer is tried, also those that this end does not have, and what
// a filter on the path drops is found.
func TestEncapsulations(t *testing.T) {
	const all = " passes on path %d, "
	for _, test := range []struct {
		name, a, b string // configurations, behind the addresses
		rules      string // of the router
		fail       []string
		want       map[string]string // by check: its verdict and text
	}{
		{"all pass", ladderOf, ladderOf, "", nil, map[string]string{
			"encap_none":      "PASS protocol 41" + fmt.Sprintf(all, 1),
			"encap_fou":       "PASS UDP port 5555" + fmt.Sprintf(all, 2),
			"encap_gue":       "PASS UDP port 6080" + fmt.Sprintf(all, 3),
			"encap_gre_udp":   "PASS UDP port 4754" + fmt.Sprintf(all, 4),
			"encap_wireguard": "SKIP not configured here, and it cannot be tried",
			"encap_https":     "SKIP not configured here; TCP port 443 passes: the peer's host answers that no program accepts connections",
		}},
		{"UDP is dropped", ladderOf, ladderOf, "meta l4proto udp drop", []string{"encap_fou", "encap_gue", "encap_gre_udp"}, map[string]string{
			"encap_none": "PASS protocol 41 passes",
			"encap_fou":  "FAIL UDP port 5555 does not pass on path 2: no answer comes back > accept UDP port 5555 from 198.51.100.10 to 203.0.113.20",
		}},
		{"one port is rejected", ladderOf, ladderOf, "udp dport 6080 reject with icmp type admin-prohibited", []string{"encap_gue"}, map[string]string{
			"encap_fou": "PASS UDP port 5555 passes",
			"encap_gue": "FAIL UDP port 6080 does not pass on path 3: 198.51.100.1 reports that a firewall forbids it",
		}},
		{"large packets, fragments and marks", ladderOf, ladderOf, "udp dport 5555 meta length gt 1400 drop; udp dport 6080 ip dscp set 0; ip frag-off & 0x3fff != 0 drop; udp dport 6080 ip ecn set not-ect", []string{"fragments"}, map[string]string{
			"encap_fou": "PASS UDP port 5555 passes on path 2, in  packets of 1500 bytes do not pass; fragments do not pass; ECN marks pass",
			"encap_gue": "PASS UDP port 6080 passes on path 3, in  packets of 1500 bytes pass; fragments do not pass; ECN marks do not pass",
		}},
		{"only the peer has fou", "", "[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nport = 5555\n", "", nil, map[string]string{
			"encap_fou": "PASS UDP port 5555 passes, and the peer has such a path; this end has not; packets of 1500 bytes pass > to use it, add to [[tunnel]] six0, at both ends, then sixfourctl reload:\n[[tunnel.path]]   # the present path, unless the file has this line already\n[[tunnel.path]]\nencap = \"fou\"\nport = 5555",
			"encap_gue": "SKIP not configured at the peer: UDP port 6080 reaches its host, which answers that the port is closed > [[tunnel.path]]\nencap = \"gue\"\nport = 6080",
		}},
		{"nobody has fou, and it is dropped", "", "", "udp dport 5555 drop; tcp dport 443 drop", nil, map[string]string{
			"encap_none":    "PASS protocol 41 passes on path 1",
			"encap_fou":     "SKIP not configured here, and nothing answers at UDP port 5555: it is not configured at the peer either, or a filter drops it",
			"encap_gre_udp": "SKIP not configured at the peer: UDP port 4754 reaches its host",
			"encap_https":   "SKIP TCP port 443 does not pass: nothing answers within 3s",
		}},
		{"protocol 41 is dropped", "[[tunnel.path]]\nencap = \"fou\"\n[[tunnel.path]]\n", "[[tunnel.path]]\nencap = \"fou\"\n[[tunnel.path]]\n", "meta l4proto 41 drop", []string{"encap_none"}, map[string]string{
			"encap_none": "FAIL protocol 41 does not pass on path 2",
			"encap_fou":  "PASS UDP port 5555 passes on path 1",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t)
			start(t, h.b, plain(outerB, outerA, 2)+test.b, nil).ready(t)
			a := start(t, h.a, plain(outerA, outerB, 1)+test.a, nil).ready(t)
			if test.rules != "" {
				nft(t, h.r, "table ip f { chain c { type filter hook forward priority 0; "+test.rules+"; }; }")
			}
			r := a.consult(t, nil)
			fails(t, r, test.fail...)
			for id, want := range test.want {
				parts(t, r, id, want)
			}
		})
	}
}

// wireGuardEnd is the key of one end of a path with WireGuard.
type wireGuardEnd struct{ file, public string }

func newWireGuardEnd(t *testing.T) wireGuardEnd {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	e := wireGuardEnd{filepath.Join(t.TempDir(), "key"), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())}
	must(t, os.WriteFile(e.file, []byte(base64.StdEncoding.EncodeToString(key.Bytes())+"\n"), 0o600))
	return e
}

func (e wireGuardEnd) path(other wireGuardEnd) string {
	return fmt.Sprintf("[[tunnel.path]]\nencap = \"wireguard\"\nprivate_key_file = %q\npublic_key = %q\n", e.file, other.public)
}

// Only the daemon can ask by way of WireGuard. What it reports counts, also for another path
// whose answers come that way.
func TestWireGuardPath(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	keyA, keyB := newWireGuardEnd(t), newWireGuardEnd(t)
	const life, fou = "keepalive = \"1s\"\ndead_after = 2\n", "[[tunnel.path]]\nencap = \"fou\"\n"
	start(t, h.b, plain(outerB, outerA, 2)+life+keyB.path(keyA)+fou, nil).ready(t)
	a := start(t, h.a, plain(outerA, outerB, 1)+life+keyA.path(keyB)+fou, nil).ready(t)
	a.says(t, "path 1 is up")
	r := a.consult(t, nil)
	fails(t, r)
	for id, want := range map[string]string{
		"answer":          "PASS the peer answers the daemon's probes through the tunnel",
		"full_size":       "SKIP only the daemon can make packets of the encapsulation wireguard > sixfourctl mtu six0",
		"encap_wireguard": "PASS the daemon reports that path 1 is up",
		"encap_fou":       "PASS the daemon reports that path 2 is up",
		"encap_none":      "SKIP not configured here, so that the peer would drop it: whether protocol 41 passes cannot be tried > [[tunnel.path]]\nencap = \"none\"",
	} {
		parts(t, r, id, want)
	}
}

// parts checks that the result of a check has a verdict, and then the parts of a text, which
// are separated by two spaces or " > ".
func parts(t *testing.T, r doctor.Report, id, want string) {
	t.Helper()
	v, text, _ := strings.Cut(want, " ")
	for part := range strings.SplitSeq(strings.ReplaceAll(text, " > ", "  "), "  ") {
		verdict(t, r, id, finding.Verdict(v), part)
	}
}
