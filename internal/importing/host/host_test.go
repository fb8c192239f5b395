package host

import (
	"strings"
	"testing"
)

// Secrets of the input are not in comments.
func TestSecrets(t *testing.T) {
	for _, line := range []string{
		"PASSWORD=hunter22 ifup x", "login --password hunter22", "option password 'hunter22'", "uci set network.a.updatekey=hunter22", "PrivateKey = hunter22",
		"curl -s -u joe:hunter22 https://example.com/", "wget https://joe:hunter22@example.com/nic/update", "wg set wg0 private-key hunter22", `pass: "hunter22"`,
		"PresharedKey=hunter22", "curl --user joe:hunter22 example.com", "secret hunter22",
	} {
		if got := withoutSecrets(line); strings.Contains(got, "hunter22") || len(got) < 5 {
			t.Errorf("%s: %s", line, got)
		}
	}
	for _, line := range []string{"ip tunnel add a mode gre key 5", "option peeraddr '192.0.2.1'", "passive yes"} {
		if got := withoutSecrets(line); got != line {
			t.Errorf("%s: %s", line, got)
		}
	}
}
