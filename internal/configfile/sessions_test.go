package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/config"
)

// written returns the path of a file with a text and a mode.
func written(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const meetingTunnel = "[[tunnel]]\nname = 'six0'\nmode = '6in4'\nlocal = '192.0.2.1'\n"

// TestListen: a path that listens has neither remote nor port, and needs a secret and our
// address.
func TestListen(t *testing.T) {
	c, err := Parse("f", []byte(meetingTunnel+"[[tunnel.path]]\nencap = 'fou'\nlisten = true\nsecret_file = '/s'\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Tunnels[0].Peers[0].Paths[0]
	if !p.Listen || p.Remote != (config.Host{}) || p.Port != 0 || p.LocalPort != 5555 || p.Secret.File != "/s" || p.Secret.Value() != "" {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct{ tunnel, path, want string }{
		{path: "listen = true\n", want: "f:7:1: listen needs secret_file: without a secret, anyone could take the place of the peer"},
		{path: "listen = true\nsecret_file = '/s'\nremote = '192.0.2.2'\n", want: "f:9:10: remote contradicts listen"},
		{path: "listen = true\nsecret_file = '/s'\nport = 5555\n", want: "f:9:1: port contradicts listen"},
		{path: "listen = true\nsecret_file = 's'\n", want: "f:8:15: secret_file is \"s\": it must be the absolute path of a file"},
		{path: "secret_file = '/s'\nsource_port = 'flow'\nremote = '192.0.2.2'\n", want: "f:8:1: source_port = \"flow\" contradicts secret_file"},
		{path: "local_port = 0\nremote = '192.0.2.2'\n", want: "f:7:1: local_port = 0 needs secret_file"},
		{path: "local_port = 0\nlisten = true\nsecret_file = '/s'\n", want: "f:7:1: local_port = 0 contradicts listen"},
		{path: "listen = 'yes'\nsecret_file = '/s'\n", want: "f:7:10: listen is \"yes\": it must be true or false"},
		{tunnel: strings.Replace(meetingTunnel, "192.0.2.1", "auto", 1), path: "listen = true\nsecret_file = '/s'\n", want: "listen needs the address at which the peer arrives"},
		{tunnel: meetingTunnel + "[[tunnel.peer]]\nname = 'b'\nremote = '192.0.2.2'\nallowed = ['2001:db8::/32']\n", path: "listen = true\nsecret_file = '/s'\n", want: "which could not be told apart: write it in a [[tunnel.peer.path]] of each"},
		{path: "listen = true\nsecret_file = '/s'\n[[tunnel.path]]\nencap = 'fou'\nlisten = true\nsecret_file = '/s'\n", want: "f:9:10: the path is the same as that of line 5"},
		{path: "listen = true\nsecret_file = '/s'\n[[tunnel.path]]\nencap = 'gue'\nlocal_port = 5555\nlisten = true\nsecret_file = '/s'\n", want: "f:9:10: secret_file is that of the path of line 5, which is at the same local_port"},
		{path: "listen = true\nsecret_file = '/s'\n[[tunnel.path]]\nencap = 'wireguard'\nlocal_port = 5555\nlisten = true\nprivate_key_file = '/p'\npublic_key = '" + publicKey + "'\n", want: "local_port is 5555, at which the path of line 5 has another encap"},
	} {
		if c.tunnel == "" {
			c.tunnel = meetingTunnel
		}
		_, err := Parse("f", []byte(c.tunnel+"[[tunnel.path]]\nencap = 'fou'\n"+c.path))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", c.path, err, c.want)
		}
	}
}

// TestSecrets: Load reads secrets, and refuses files that others can open, that are too short,
// or that have no key of WireGuard in them.
func TestSecrets(t *testing.T) {
	good := written(t, "good", "0123456789abcdef\n", 0o600)
	const fou = "[[tunnel.path]]\nencap = 'fou'\nlisten = true\nsecret_file = "
	key := written(t, "key", publicKey+"\n", 0o600) // any 32 bytes are one
	wireguard := func(private string) string {
		return "[[tunnel.path]]\nremote = '192.0.2.2'\nencap = 'wireguard'\npublic_key = '" + publicKey + "'\nprivate_key_file = '" + private + "'\n"
	}
	load := func(path string) (*config.Config, error) {
		return Load(written(t, "six.toml", meetingTunnel+path, 0o644))
	}
	c, err := load(fou + "'" + good + "'\n")
	if err != nil || c.Tunnels[0].Peers[0].Paths[0].Secret.Value() != "0123456789abcdef" {
		t.Errorf("%v", err)
	}
	if c, err = load(wireguard(key)); err != nil || c.Tunnels[0].Peers[0].Paths[0].Session.(config.WireGuard).Private.Value() != publicKey {
		t.Errorf("%v", err)
	}
	for _, c := range []struct{ path, want string }{
		{fou + "'" + written(t, "open", "0123456789abcdef\n", 0o644) + "'\n", "its mode is 0644, so that other users can open it: chmod 600"},
		{fou + "'" + written(t, "short", "0123456789abcde\n", 0o600) + "'\n", "with a secret of 15 bytes: it must have at least 16"},
		{fou + "'/nowhere/secret'\n", "there is no such file: write it, with mode 0600"},
		{"[[tunnel.path]]\nremote = '192.0.2.2'\nencap = 'https'\nsecret_file = '" + written(t, "spaces", "a secret of 0123456789abcdef\n", 0o600) + "'\n", "8:1: secret_file has a secret with spaces"},
		{wireguard(good), "its content is no key of WireGuard: write one with wg genkey"},
	} {
		if _, err := load(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", c.path, err, c.want)
		} else if strings.Contains(err.Error(), "0123456789abcde") {
			t.Errorf("the error contains the secret: %v", err)
		}
	}
	// An unreadable secret must not end the other tunnels at the start.
	file := written(t, "six.toml", meetingTunnel+fou+"'/nowhere/secret'\n", 0o644)
	if _, doubts, err := LoadLenient(file); err != nil || len(doubts) != 1 {
		t.Errorf("doubts %v, error %v", doubts, err)
	}
}

// TestWireGuardKeys: what the keys of a path in WireGuard must be.
func TestWireGuardKeys(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"public_key = '" + publicKey + "'\n", "private_key_file is missing in [[tunnel.path]]"},
		{"private_key_file = '/k'\n", "public_key is missing in [[tunnel.path]]"},
		{"private_key_file = '/k'\npublic_key = 'abc'\n", "it must be the peer's public key, 44 characters of base64"},
		{"private_key_file = '/k'\npublic_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n", "it must be the peer's public key"},
		{"private_key_file = '/k'\npublic_key = '" + publicKey + "'\nsecret_file = '/s'\n", "secret_file contradicts encap \"wireguard\""},
	} {
		_, err := Parse("f", []byte(meetingTunnel+"remote = '192.0.2.2'\n[[tunnel.path]]\nencap = 'wireguard'\n"+c.path))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", c.path, err, c.want)
		}
	}
}

// TestHTTPSKeys: what the keys of a path in HTTPS must be.
func TestHTTPSKeys(t *testing.T) {
	const files = "certificate = '/c'\nkey = '/k'\n"
	for _, c := range []struct{ path, want string }{
		{"", "secret_file is missing in [[tunnel.path]]"},
		{"secret_file = '/s'\nlisten = true\n", "certificate is missing in [[tunnel.path]]"},
		{"secret_file = '/s'\nlisten = true\ncertificate = '/c'\n", "key is missing in [[tunnel.path]]"},
		{"secret_file = '/s'\nlisten = true\nca = '/ca'\n" + files, "ca has no effect at the end that listens"},
		{"secret_file = '/s'\nlisten = true\nproxy = 'http://192.0.2.9'\n" + files, "proxy contradicts listen"},
		{"secret_file = '/s'\ncertificate = '/c'\n", "certificate has no effect at the end that connects"},
		{"secret_file = '/s'\nkey = '/c'\n", "key has no effect at the end that connects"},
		{"secret_file = '/s'\nlocal_port = 444\n", "local_port has no effect at the end that connects"},
		{"secret_file = '/s'\nover = 'quic'\n", `it must be "auto", "udp" or "tcp"`},
		{"secret_file = '/s'\nover = 'udp'\nproxy = 'http://192.0.2.9'\n", `proxy contradicts over = "udp"`},
		{"secret_file = '/s'\nproxy = 'https://user:word@192.0.2.9'\n", "proxy must be the URL of an HTTP proxy"},
		{"secret_file = '/s'\nurl = 'http://gw.example/'\n", "it must be a URL such as"},
		{"secret_file = '/s'\nurl = 'https://user@gw.example/'\n", "it must be a URL such as"},
		{"secret_file = '/s'\nurl = 'https://'\n", "it must be a URL such as"},
		{"secret_file = '/s'\nurl = ''\n", "it must be a URL such as"},
		{"secret_file = '/s'\nchecksum = true\n", "checksum contradicts encap \"https\""},
	} {
		remote := "remote = '192.0.2.2'\n"
		if strings.Contains(c.path, "listen = true") {
			remote = ""
		}
		_, err := Parse("f", []byte(meetingTunnel+remote+"[[tunnel.path]]\nencap = 'https'\n"+c.path))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "word") {
			t.Errorf("%s\n\tgot  %v\n\twant %s", c.path, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"":                                    config.HTTPSURL,
		"url = '/tunnel'\n":                   "/tunnel",
		"url = 'https://gw.example'\n":        "https://gw.example" + config.HTTPSURL,
		"url = 'https://gw.example:8443/a'\n": "https://gw.example:8443/a",
	} {
		c, err := Parse("f", []byte(meetingTunnel+"remote = '192.0.2.2'\n[[tunnel.path]]\nencap = 'https'\nsecret_file = '/s'\n"+text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Tunnels[0].Peers[0].Paths[0]; got.Session.(config.HTTPS).URL != want || got.Port != 443 {
			t.Errorf("%s: %+v", text, got)
		}
	}
}
