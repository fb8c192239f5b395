package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// oldHub is the hub of a sample that an older version has accepted: no packet goes to
// 2001:db8:2::/48.
const oldHub = "[[tunnel]]\nname = 'hub0'\nmode = '6in4'\nlocal = '203.0.113.10'\naddress = ['2001:db8:1::1/48']\nroutes = ['2001:db8:3::/48']\n" +
	"[[tunnel.peer]]\nname = 'b'\nremote = '203.0.113.50'\nallowed = ['2001:db8:1:b::/64']\n" +
	"[[tunnel.peer]]\nname = 'c'\nremote = 'c.example.com'\nallowed = ['2001:db8:1:c::/64', '2001:db8:2::/48']\n"

// After an upgrade, the daemon must start with a file that an older version has accepted,
// although -check and a reload refuse it.
func TestLoadLenient(t *testing.T) {
	for _, file := range []string{
		oldHub,
		over4("a", "6in4", "2") + "address = ['2001:db8:6::/64']\n",
		over4("a", "4in4", "2") + "address = ['10.0.0.3/30']\n",
		over4("a", "4in6in4", "2") + "local6 = 'fc00::1'\nremote6 = 'fc00::2'\naddress = ['10.0.0.1/30', 'fc00::1/64']\n" +
			over4("b", "4in6in4", "3") + "local6 = 'fc00::1'\nremote6 = 'fc00::3'\naddress = ['10.0.1.1/30', 'fc00::1/64']\n",
		over4("a", "4in4", "2") + "routes = ['10.9.0.0/16']\n" + over4("b", "4in4", "3") + "routes = ['10.9.0.0/16']\n",
		over4("a", "4in4", "2") + "routes = ['127.0.0.0/8']\n",
		over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n" + over4("b", "4in4", "3") + "address = ['10.0.0.2/30']\n",
		tunnel("4in4", "192.0.2.1", "127.0.0.1"),
		tunnel("4in6", "2001:db8::1", "fe80::2"),
		"[metrics]\nlisten = '224.0.0.1:9640'\n" + single,
		"[gateway]\nmasquerade = 'lo'\n" + over4("a", "4in4", "2") + "address = ['10.0.0.1/30']\n",
	} {
		if _, err := Parse("f", []byte(file)); err == nil {
			t.Errorf("%s\nis accepted", file)
		}
		c, doubts, err := lenient(t, file)
		if err != nil || c == nil || len(doubts) == 0 || len(c.Tunnels) != strings.Count(file, "[[tunnel]]") {
			t.Errorf("%s\n%v, doubts %v", file, err, doubts)
		}
	}
	if c, doubts, err := lenient(t, over4("a", "4in4", "1")+"address = ['10.0.0.3/30']\n"); err == nil || c != nil || strings.Contains(err.Error(), "broadcast") {
		t.Errorf("a tunnel to itself: %v, doubts %v", err, doubts)
	}
}

func lenient(t *testing.T, file string) (*config.Config, problem.List, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadLenient(path)
}
