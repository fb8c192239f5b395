package configfile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	teredo "sixfour/encap/teredo/node"
	"sixfour/internal/config"
)

// clientOf is a minimal tunnel of a mode with a session.
var clientOf = map[string]string{
	"ayiya":     "server = 'a.example'\nidentity = '2001:db8:ff::2'\npassword_file = '/p'\n",
	"heartbeat": "server = 'a.example'\nidentity = '2001:db8:ff::2'\npassword_file = '/p'\n",
	"tic":       "server = 'a.example'\nuser = 'u'\npassword_file = '/p'\n",
	"tsp":       "server = 'a.example'\n",
	"json":      "server = 'a.example'\nid = '00:11'\n",
}

func asClient(mode, more string) string {
	return "[[tunnel]]\nname = 'a'\nmode = '" + mode + "'\n" + clientOf[mode] + more
}

func TestClients(t *testing.T) {
	secret := config.Secret{File: "/p"}
	name, identity := config.Host{Name: "a.example"}, netip.MustParseAddr("2001:db8:ff::2")
	for _, c := range []struct {
		mode, more string
		want       config.Client
		encap      string
		remote     config.Host
		port       uint16
	}{
		{"ayiya", "", config.Client{Server: name, Port: 5072, Settings: config.AYIYA{Identity: identity, Password: secret, Hash: "sha1"}}, "ayiya", name, 5072},
		{"ayiya", "hash = 'sha256'\n", config.Client{Server: name, Port: 5072, Settings: config.AYIYA{Identity: identity, Password: secret, Hash: "sha256"}}, "ayiya", name, 5072},
		{"heartbeat", "", config.Client{Server: name, Port: 3740, Settings: config.Heartbeat{Identity: identity, Password: secret}}, "none", name, 0},
		{"tic", "tunnel_id = 'T1'\nstarttls = 'off'\n", config.Client{Server: name, Port: 3874, Settings: config.TIC{User: "u", Password: secret, TunnelID: "T1", StartTLS: "off"}}, "none", config.Host{}, 0},
		{"tsp", "prefix_length = 56\n", config.Client{Server: name, Port: 3653, Settings: config.TSP{Auth: "auto", Want: "any", Prefix: 56}}, "tsp", name, 3653},
		{"json", "secret_file = '/p'\ntls = 'on'\nca = '/ca'\n", config.Client{Server: name, Port: 14629, Settings: config.JSON{ID: "00:11", Secret: secret, TLS: true, CA: "/ca"}}, "json", name, 14629},
	} {
		got, err := Parse("file", []byte(asClient(c.mode, c.more)))
		if err != nil {
			t.Errorf("%s: %v", c.mode, err)
			continue
		}
		tunnel := &got.Tunnels[0]
		path := &tunnel.Peers[0].Paths[0]
		if tunnel.Client != c.want || path.Encap != c.encap || path.Remote != c.remote || path.Port != c.port || path.Local.IsValid() {
			t.Errorf("%s:\n%+v, path %+v", c.mode, tunnel.Client, path)
		}
		if waits := path.Waits != ""; waits != (c.mode == "tic") {
			t.Errorf("%s waits: %v", c.mode, waits)
		}
		if has := len(tunnel.Address) > 0; has != c.want.Identity().IsValid() {
			t.Errorf("%s has addresses %v", c.mode, tunnel.Address)
		}
	}
}

// The server's address decides about the IP version; tunnels to one server do not disturb each
// other.
func TestServers(t *testing.T) {
	for server, want := range map[string]struct {
		over int
		port uint16
	}{
		"192.0.2.9": {4, 14629}, "192.0.2.9:99": {4, 99}, "a.example:99": {4, 99}, "2001:db8::9": {6, 14629}, "[2001:db8::9]:99": {6, 99},
	} {
		c, err := Parse("file", []byte(strings.Replace(asClient("json", ""), "a.example", server, 1)))
		if err != nil {
			t.Errorf("%s: %v", server, err)
		} else if got := &c.Tunnels[0]; got.Kind(0).Over() != want.over || got.Client.Port != want.port {
			t.Errorf("%s: over IPv%d, port %d", server, got.Kind(0).Over(), got.Client.Port)
		}
	}
	if _, err := Parse("file", []byte(asClient("json", "")+strings.Replace(asClient("json", ""), "'a'", "'b'", 1))); err != nil {
		t.Error(err)
	}
}

func TestClientProblems(t *testing.T) {
	const server = `the server's name or address, such as "broker.example", "broker.example:5072" or "[2001:db8::1]:5072"`
	checkProblems(t, []problemRow{
		{"[[tunnel]]\nname = 'a'\nmode = 'json'\n", lines(
			"1:3: server is missing: set it to the server's name or address",
			"1:3: id is missing: set it to the name by which the server knows this client, such as its MAC address")},
		{"[[tunnel]]\nname = 'a'\nmode = 'ayiya'\nserver = 'a'\n", lines(
			"1:3: identity is missing: set it to the IPv6 address of this end of the tunnel, by which the server knows it",
			"1:3: password_file is missing: set it to a file with the password of the tunnel")},
		{strings.Replace(asClient("json", ""), "a.example", "a.example:0", 1), `4:10: server is "a.example:0": it must be ` + server},
		{strings.Replace(asClient("json", ""), "a.example", "a b", 1), `4:10: server is "a b": it must be an IP address or a DNS name`},
		{strings.Replace(asClient("ayiya", ""), "2001:db8:ff::2", "fe80::2", 1), `5:12: identity is "fe80::2": it must be the IPv6 address of this end of the tunnel, without a prefix length, such as "2001:db8:ff:1::2"`},
		{asClient("ayiya", "hash = 'sha512'\n"), `7:8: hash is "sha512": it must be "sha1", "sha256" or "md5"`},
		{asClient("tsp", "user = 'a'\n"), "5:8: user needs password_file: set it to a file with the password of the user, or leave user out to be anonymous"},
		{asClient("tsp", "password_file = '/p'\n"), "5:17: password_file needs user: set it to the user of the account at the server, or leave password_file out to be anonymous"},
		{asClient("tsp", "auth = 'plain'\n"), `5:8: auth is "plain", which needs a user: set user to the user of the account at the server, or auth to "anonymous"`},
		{asClient("tsp", "auth = 'anonymous'\nuser = 'a'\n"), `6:8: user contradicts auth = "anonymous": leave one of them out`},
		{asClient("tsp", "prefix_length = 32\n"), "5:17: prefix_length is 32: it must be an integer from 48 to 64"},
		{asClient("json", "ca = '/ca'\n"), `6:6: ca has no effect without TLS: set tls to "on", or leave ca out`},
		{asClient("tic", "ca = '/ca'\nstarttls = 'off'\n"), `7:6: ca has no effect with starttls = "off", which excludes certificates: leave one of them out`},
		{asClient("json", "remote = '192.0.2.2'\n"), `6:10: remote contradicts mode "json", whose only path leads to server: leave it out`},
		{asClient("json", "keepalive = '1s'\n"), `6:13: keepalive needs probe in mode "json", whose server does not say which address it has inside the tunnel: set probe to that, or leave keepalive out`},
		{asClient("json", "keepalive = '0s'\n"), ""},
		{asClient("json", "keepalive = '1s'\naddress = ['2001:db8::1/64']\nprobe = '2001:db8::2'\n"), ""},
		{asClient("json", "user = 'a'\n"), `6:1: user contradicts mode "json", which has no such key: leave it out, or choose mode "teredo", "tic" or "tsp"`},
		{single + "server = 'a'\n", `6:1: server contradicts mode "6in4", which has no such key: leave it out, or choose mode "teredo", "ayiya", "heartbeat", "tic", "tsp" or "json"`},
		{asClient("json", "[[tunnel.path]]\nremote = '192.0.2.2'\n"), `6:10: path contradicts mode "json", whose only path leads to server: leave it out`},
		{asClient("json", "[[tunnel.peer]]\nname = 'b'\nremote = '192.0.2.2'\nallowed = ['::/0']\n"), `6:10: peer contradicts mode "json", whose only path leads to server: leave it out`},
		{strings.Replace(asClient("json", "local = '192.0.2.1'\n"), "a.example", "192.0.2.1", 1), "4:10: server is the same as local: it must be the other end's outer address"},
		{"[[tunnel]]\nname = 'a'\nstack = ['gre', 'json']\nlocal = 'auto'\nremote = '192.0.2.2'\n", `3:17: stack has "json": it must have ` + itemModes},
	})
}

// Another content of a file with a password is a difference.
func TestOtherPassword(t *testing.T) {
	for _, mode := range []string{"ayiya", "heartbeat", "tic"} {
		c, err := Parse("file", []byte(asClient(mode, "")))
		if err != nil {
			t.Fatal(err)
		}
		old, next := c.Tunnels[0], c.Tunnels[0]
		switch s := next.Client.Settings.(type) {
		case config.AYIYA:
			s.Password = s.Password.With("new")
			next.Client.Settings = s
		case config.Heartbeat:
			s.Password = s.Password.With("new")
			next.Client.Settings = s
		case config.TIC:
			s.Password = s.Password.With("new")
			next.Client.Settings = s
		}
		if d := old.Difference(&next); len(d.Keys) != 1 || d.Keys[0] != "password_file" {
			t.Errorf("%s: %+v", mode, d)
		}
	}
}

// Another content of the file of an automatic mode is a difference, too, and what no key explains
// is not taken for one.
func TestOtherKey(t *testing.T) {
	c, err := Parse("file", []byte(tunnel("teredo", "auto", "")+"role = 'client'\nserver = '192.0.2.2'\nuser = 'u'\npassword_file = '/p'\n"))
	if err != nil {
		t.Fatal(err)
	}
	old, next := c.Tunnels[0], c.Tunnels[0]
	next.Strict = !old.Strict
	if d := old.Difference(&next); len(d.Keys) != 0 {
		t.Errorf("another value: %+v", d)
	}
	next.Strict, next.Layers = old.Strict, slices.Clone(old.Layers)
	m := next.Layers[0].Mechanism.(teredo.Client)
	m.Key = teredo.NewKey("u", "/p", "new")
	next.Layers[0].Mechanism = m
	if d := old.Difference(&next); !slices.Equal(d.Keys, []string{"password_file"}) {
		t.Errorf("another password: %+v", d)
	}
}
