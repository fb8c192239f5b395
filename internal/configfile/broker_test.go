package configfile

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/internal/config"
)

// A broker alone is a configuration, and has a tunnel for its clients.
func TestBroker(t *testing.T) {
	const text = `
[broker]
store     = ["https://etcd1:2379", "https://etcd2:2379"]
store_ca  = "/etc/ca.pem"
name      = "broker1"
interface = "six1"
pool      = ["2001:db8:100::/40", "2001:db8:8000::/36"]
prefix_length = 60
max_prefix_length = 52
endpoints = "2001:db8:ff::/48"
mtu       = 1400
ndp_proxy = "eth0"
open      = true
[[broker.listen]]
protocol = "json"
address  = "203.0.113.10"
port     = 443
[[broker.listen]]
protocol = "ayiya"
address  = "::"
sha256   = true
`
	c, err := Parse("file", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b := c.Broker
	want := config.Broker{
		Interface: "six1", Name: "broker1", MTU: 1400,
		Store: config.BrokerStore{URLs: []string{"https://etcd1:2379", "https://etcd2:2379"}, CA: "/etc/ca.pem"},
		Pool:  []netip.Prefix{netip.MustParsePrefix("2001:db8:100::/40"), netip.MustParsePrefix("2001:db8:8000::/36")}, PrefixLength: 60, MaxPrefixLength: 52,
		Endpoints: netip.MustParsePrefix("2001:db8:ff::/48"), NDPProxy: "eth0", Open: true,
		Listen: []config.BrokerListener{
			{Protocol: "json", Address: netip.MustParseAddr("203.0.113.10"), Port: 443},
			{Protocol: "ayiya", Address: netip.IPv6Unspecified(), Port: 5072, SHA256: true},
		},
	}
	if !b.Equal(&want) {
		t.Errorf("%+v,\nwant %+v", b, want)
	}
	if len(c.Tunnels) != 1 || c.Tunnels[0].Name != "six1" || c.Tunnels[0].MTU != encap.TunnelMTU(1400) || len(c.Tunnels[0].Routes) != 3 {
		t.Errorf("the tunnels are %+v", c.Tunnels)
	}
	moved, err := Parse("file", []byte("\n\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	if !b.Equal(&moved.Broker) || !b.SameBase(&moved.Broker) {
		t.Error("another position in the file is another configuration")
	}
	if d := c.Tunnels[0].Difference(&moved.Tunnels[0]); !d.None() {
		t.Errorf("the tunnel changes by %v", d.Keys)
	}
	grown, err := Parse("file", []byte(strings.Replace(text, `"2001:db8:8000::/36"]`, `"2001:db8:8000::/36", "2001:db8:9000::/36"]`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Tunnels[0].Difference(&grown.Tunnels[0]); b.Equal(&grown.Broker) || len(d.Keys) != 1 || d.Keys[0] != "pool" {
		t.Errorf("with another prefix the tunnel changes by %v", d.Keys)
	}
}

// What is wrong with a broker is said with what would be right.
func TestBrokerProblems(t *testing.T) {
	const (
		json  = "[[broker.listen]]\nprotocol = \"json\"\naddress = \"192.0.2.1\"\n"
		ayiya = "[[broker.listen]]\nprotocol = \"ayiya\"\naddress = \"192.0.2.1\"\n"
		pool  = "pool = [\"2001:db8:100::/40\"]\n"
		other = "[[tunnel]]\nname = \"t0\"\nmode = \"6in4\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n"
	)
	for _, c := range []struct{ table, after, want string }{
		{"", json, "1:2: pool is missing"},
		{"pool = []\n", json, "2:8: pool is empty"},
		{"pool = [\"192.0.2.0/24\"]\n", json, "2:9: pool has \"192.0.2.0/24\": it must be an IPv6 prefix"},
		{"pool = [\"2001:db8::1/40\"]\n", json, "write 2001:db8::/40"},
		{pool, "", "there is no listener"},
		{"pool = [\"2001:db8:100::/40\", \"2001:db8:110::/48\"]\n", json, "2:30: pool has 2001:db8:110::/48, which overlaps 2001:db8:100::/40"},
		{"pool = [\"2001:db8::/64\"]\nprefix_length = 60\n", json, "in which there is no /60"},
		{pool + "prefix_length = 47\n", json, "prefix_length is 47: it must be an integer from 48 to 64"},
		{pool + "prefix_length = 65\n", json, "prefix_length is 65: it must be an integer from 48 to 64"},
		{pool + "max_prefix_length = 64\nprefix_length = 56\n", json, "max_prefix_length is 64, and prefix_length is 56"},
		{pool, ayiya, "endpoints is missing"},
		{pool + "endpoints = \"2001:db8:100::/48\"\n", ayiya, "overlaps 2001:db8:100::/40 in pool"},
		{pool + "endpoints = \"2001:db8:ff::/65\"\n", ayiya, "each client needs a /64"},
		{pool + "interface = \"t0\"\n", json + other, "interface is \"t0\", which is the tunnel of line"},
		{pool + "interface = \"a/b\"\n", json, "it must be the name of an interface"},
		{pool + "ndp_proxy = \"six0\"\n", json, "ndp_proxy is the broker's own interface"},
		{pool, json + other + "address = [\"2001:db8:101::1/64\"]\n", "pool has 2001:db8:100::/40, which overlaps 2001:db8:101::1/64 of tunnel \"t0\""},
		{pool, json + other + "routes = [\"2001:db8:110::/48\"]\n", "which overlaps 2001:db8:110::/48 of tunnel \"t0\""},
		{pool + "mtu = 1500\n", json, "mtu is 1500: it must be an integer from 1280 to 1428"},
		{pool + "store = \"broker.db\"\n", json, "store is \"broker.db\": it must be the absolute path of a file"},
		{pool + "store = [\"ftp://a\"]\n", json, "the URLs of an etcd cluster"},
		{pool + "store = [\"https://a:2379\"]\n", json, "store_ca is missing"},
		{pool + "store = [\"http://a:2379\"]\n", json, "everybody on the way could read all secrets"},
		{pool + "store = [\"https://a:2379\", \"http://b:2379\"]\nstore_ca = \"/ca\"\n", json, "write all with https"},
		{pool + "store = [\"https://a:2379\"]\nstore_ca = \"/ca\"\nstore_key = \"/key\"\n", json, "store_cert and store_key belong together"},
		{pool + "store_ca = \"/ca\"\n", json, "store_ca is for a store of several servers"},
		{pool, "[[broker.listen]]\nprotocol = \"aiyia\"\naddress = \"192.0.2.1\"\n", "it must be \"json\", \"ayiya\", \"heartbeat\", \"tic\" or \"tsp\""},
		{pool, "[[broker.listen]]\nprotocol = \"json\"\n", "address is missing"},
		{pool, json + json, "json listens at 192.0.2.1:14629, as json of line"},
		{pool, json + "[[broker.listen]]\nprotocol = \"json\"\naddress = \"::\"\n", "json listens at [::]:14629, as json of line"},
		{pool, json + "tls_key = \"/key\"\n", "tls_certificate and tls_key belong together"},
		{pool, json + "required = true\n", "required is true, and there is no certificate"},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", ayiya + "tls_key = \"/key\"\n", "tls_key contradicts protocol \"ayiya\""},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", ayiya + "required = true\n", "required contradicts protocol \"ayiya\""},
		{pool, json + "sha256 = true\n", "sha256 contradicts protocol \"json\""},
		{pool, "[[broker.listen]]\nprotocol = \"tsp\"\naddress = \"192.0.2.1\"\nsha256 = true\n", "sha256 contradicts protocol \"tsp\""},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", ayiya + "sha256 = 1\n", "sha256 is 1"},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", "[[broker.listen]]\nprotocol = \"heartbeat\"\naddress = \"0.0.0.0\"\n", "write this host's"},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", "[[broker.listen]]\nprotocol = \"tsp\"\naddress = \"2001:db8::1\"\n", "write an IPv4 address"},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", tic, "protocol \"tic\" tells passwords, and there is no certificate: set tls_certificate and tls_key, or required = false"},
		{pool + "endpoints = \"2001:db8:ff::/48\"\n", tic + "required = true\n", "required is true, and there is no certificate"},
		{pool + "secret = 1\n", json, "unknown key \"secret\" in [broker]"},
	} {
		_, err := Parse("file", []byte("[broker]\n"+c.table+c.after))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 1 {
			t.Errorf("%s%s: %v, want %q", c.table, c.after, err, c.want)
		}
	}
}

const tic = "[[broker.listen]]\nprotocol = \"tic\"\naddress = \"192.0.2.1\"\n"

// Three protocols have clients with SHA-256.
func TestBrokerSHA256(t *testing.T) {
	for _, p := range config.BrokerProtocols {
		if !p.SHA256 {
			continue
		}
		c, err := Parse("file", []byte("[broker]\npool = [\"2001:db8:100::/40\"]\nendpoints = \"2001:db8:ff::/48\"\n[[broker.listen]]\nprotocol = \""+p.Name+"\"\naddress = \"192.0.2.1\"\nsha256 = true\n"+
			map[string]string{"tic": "required = false\n"}[p.Name]))
		if err != nil || !c.Broker.Listen[0].SHA256 {
			t.Errorf("%s: %+v, %v", p.Name, c, err)
		}
	}
}

// A server of TIC, which tells passwords, serves clients without TLS only where the
// configuration says so.
func TestBrokerTells(t *testing.T) {
	const files = "tls_certificate = \"/cert\"\ntls_key = \"/key\"\n"
	for lines, want := range map[string]bool{tic + files: true, tic + files + "required = true\n": true, tic + files + "required = false\n": false, tic + "required = false\n": false,
		strings.Replace(tic, "tic", "json", 1) + files: false} {
		c, err := Parse("file", []byte("[broker]\npool = [\"2001:db8:100::/40\"]\nendpoints = \"2001:db8:ff::/48\"\n"+lines))
		if err != nil || c.Broker.Listen[0].Required != want {
			t.Errorf("%s: %+v, %v", lines, c, err)
		}
	}
}

// Files for TLS that are missing or wrong are found when the file is read.
func TestBrokerFiles(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for cert, want := range map[string]string{
		filepath.Join(dir, "none.pem"): "no such file",
		key:                            "tls: failed to find any PEM data",
	} {
		file := filepath.Join(dir, "sixfour.toml")
		text := "[broker]\npool = [\"2001:db8::/40\"]\n[[broker.listen]]\nprotocol = \"json\"\naddress = \"192.0.2.1\"\ntls_certificate = \"" + cert + "\"\ntls_key = \"" + key + "\"\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":6:19: tls_certificate") {
			t.Errorf("%s: %v, want %q", cert, err, want)
		}
		if _, doubts, err := LoadLenient(file); err != nil || len(doubts) != 1 {
			t.Errorf("%s: %v, %v", cert, doubts, err)
		}
	}
}
