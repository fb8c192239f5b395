package privilege

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sixfour/internal/config"
	"sixfour/internal/configfile"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	const head = "[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n"
	cfg, err := configfile.Parse("six.toml", []byte(strings.Replace(text, "TUNNEL\n", head, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// reported returns a tunnel whose address is reported to a server.
func reported(url, key string) string {
	return "[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"auto\"\nremote = \"192.0.2.2\"\nupdate_url = \"" + url + "\"\nupdate_user = \"anna\"\nupdate_key_file = \"" + key + "\"\nupdate_host = \"1\"\n"
}

// TestAllows: a configuration that needs a right that was dropped is refused, with the
// line that needs it.
func TestAllows(t *testing.T) {
	setModules(t)
	for _, c := range []struct {
		what, before, after string
		want                string // "": allowed
	}{
		{"nothing new", "TUNNEL\n", "TUNNEL\nmtu = 1400\n", ""},
		{"less", "TUNNEL\nnetns = \"a\"\nio = \"xdp\"\n", "TUNNEL\n", ""},
		{"another name in the same place", "TUNNEL\nnetns = \"a\"\n", "TUNNEL\nnetns = \"b\"\n", ""},
		{"the first namespace", "TUNNEL\n", "TUNNEL\nnetns = \"a\"\n",
			"six.toml:6:9: netns: the daemon has given up the right to enter another namespace: restart it"},
		{"a namespace elsewhere", "TUNNEL\nnetns = \"a\"\n", "TUNNEL\nnetns = \"/srv/ns/b\"\n",
			"six.toml:6:9: netns: the daemon has given up the right to open files in /srv/ns: restart it"},
		{"a namespace elsewhere, without a sandbox", "[security]\nsandbox = \"off\"\nTUNNEL\nnetns = \"a\"\n",
			"[security]\nsandbox = \"off\"\nTUNNEL\nnetns = \"/srv/ns/b\"\n", ""},
		{"a process's namespace", "TUNNEL\nnetns = \"/proc/1/ns/net\"\n", "TUNNEL\nnetns = \"/proc/1/ns/net\"\n", ""},
		{"another process's namespace", "TUNNEL\nnetns = \"/proc/1/ns/net\"\n", "TUNNEL\nnetns = \"/proc/2/ns/net\"\n",
			"six.toml:6:9: netns: the daemon has given up the right to look at other processes: restart it"},
		{"AF_XDP", "TUNNEL\n", "TUNNEL\nio = \"xdp\"\n",
			"six.toml:6:6: io: the daemon has given up the right to load a filter program: restart it"},
		{"the first port below 1024", "TUNNEL\n", "TUNNEL\n[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 1023\n",
			"six.toml:7:10: local_port: the daemon has given up the right to use ports below 1024: restart it"},
		{"another port below 1024", "TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 53\n", "TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 1023\n", ""},
		{"a port below 1024, where metrics have one", "[metrics]\nlisten = \"127.0.0.1:80\"\nTUNNEL\n", "TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 1023\n", ""},
		{"a port that needs no right", "TUNNEL\n", "TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nport = 53\nlocal_port = 1024\n", ""},
		{"the first gateway", "TUNNEL\n", "[gateway]\nmasquerade = \"eth0\"\nTUNNEL\naddress = [\"fc00::1/64\"]\n",
			`[gateway]: the daemon has given up the right to use the packet filter: restart it; packet_filter = "on" in [security] keeps that right`},
		{"the first gateway, with the packet filter", "[security]\npacket_filter = \"on\"\nTUNNEL\n", "[gateway]\nmasquerade = \"eth0\"\nTUNNEL\naddress = [\"fc00::1/64\"]\n", ""},
		{"the first gateway, without a sandbox", "[security]\nsandbox = \"off\"\nTUNNEL\n", "[gateway]\nmasquerade = \"eth0\"\nTUNNEL\naddress = [\"fc00::1/64\"]\n", ""},
		{"another gateway", "[gateway]\nmasquerade = \"eth1\"\nTUNNEL\naddress = [\"fc00::1/64\"]\n", "[gateway]\nmasquerade = \"eth0\"\nTUNNEL\naddress = [\"fc00::1/64\"]\n", ""},
		{"the first report of the address", "TUNNEL\n", reported("https://broker.example/update", "/etc/key"),
			"six.toml:6:14: update_url: the daemon has given up the right to connect to TCP port 443: restart it"},
		{"a report to another port", reported("https://broker.example/update", "/etc/key"), reported("https://broker.example:8443/update", "/etc/key"),
			"six.toml:6:14: update_url: the daemon has given up the right to connect to TCP port 8443: restart it"},
		{"a report to another server", reported("https://broker.example/update", "/etc/key"), reported("https://other.example/", "/etc/key2"), ""},
		{"a key elsewhere", reported("https://broker.example/update", "/etc/key"), reported("https://broker.example/update", "/srv/keys/key"),
			"six.toml:6:14: update_url: the daemon has given up the right to open files in /srv/keys: restart it"},
		{"a key where it was", reported("https://broker.example/update", "/srv/keys/key"), reported("https://broker.example/update", "/srv/keys/key2"), ""},
		{"the kernel", "TUNNEL\n", "TUNNEL\nio = \"kernel\"\n",
			"six.toml:6:6: io: the daemon has given up the right to load BPF programs: restart it"},
		{"AF_XDP, where it can be", "TUNNEL\n", "TUNNEL\nio = \"auto\"\n", ""},
		{"what is for the next start", "TUNNEL\n", "[control]\nsocket = \"/srv/s\"\n[security]\nsandbox = \"off\"\nTUNNEL\n", ""},
	} {
		s := Sandbox{needs: needsOf(parse(t, c.before), "six.toml")}
		got := ""
		if err := s.Allows(parse(t, c.after)); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// A path with a local UDP port below 1024 needs the capability for it, in any tunnel.
func TestCapabilityForLowPorts(t *testing.T) {
	setModules(t)
	for _, c := range []struct {
		text string
		want bool
	}{
		{"TUNNEL\n", false},
		{"[metrics]\nlisten = \"127.0.0.1:80\"\nTUNNEL\n", true},
		{"TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nport = 53\n", true}, // local_port is the same
		{"TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nport = 53\nlocal_port = 5555\n", false},
		{"TUNNEL\n[[tunnel.path]]\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 1023\n", true},
		{"TUNNEL\n[[tunnel.path]]\nencap = \"fou\"\nlocal_port = 1024\n", false},
		{"[[tunnel]]\nname = \"hub0\"\nmode = \"6in4\"\nlocal = \"192.0.2.1\"\nroutes = []\n[[tunnel.peer]]\nname = \"a\"\nremote = \"192.0.2.3\"\nallowed = [\"fc00::3/128\"]\n" +
			"[[tunnel.peer.path]]\nencap = \"fou\"\nlocal_port = 443\n", true},
	} {
		if got := slices.Contains(capabilitiesFor(needsOf(parse(t, c.text), "six.toml")), cap.NET_BIND_SERVICE); got != c.want {
			t.Errorf("%s: %v, want %v", c.text, got, c.want)
		}
	}
}

// Without the package's user, the process stays root. That is a defect only if there are users.
func TestBecomeWithoutUser(t *testing.T) {
	defer func(name, file string) { account, passwd = name, file }(account, passwd)
	account = "no-such-user"
	cfg := parse(t, "TUNNEL\n")
	if u, err := Become(cfg, "six.toml"); err != nil || u.Name != "root" || !strings.HasPrefix(u.Root, "there is no user no-such-user") {
		t.Errorf("%+v, %v", u, err)
	}
	passwd = t.TempDir() + "/passwd"
	if u, err := Become(cfg, "six.toml"); err != nil || u != (User{Name: "root"}) {
		t.Errorf("without a list of users: %+v, %v", u, err)
	}
}

// setModules replaces the loaded kernel modules for a test.
func setModules(t *testing.T, names ...string) {
	t.Helper()
	old := modules
	t.Cleanup(func() { modules = old })
	loaded := fstest.MapFS{}
	for _, name := range names {
		loaded[name+"/refcnt"] = &fstest.MapFile{}
	}
	modules = loaded
}

// A reload may add a tunnel of any protocol. So the daemon keeps the packet filter if the
// module of any protocol is loaded when it starts.
func TestFilterForModulesOfOtherProtocols(t *testing.T) {
	for _, c := range []struct {
		module string
		want   bool
	}{{"", false}, {"gre", false}, {"ipip", true}, {"sit", true}, {"tunnel4", true}, {"ip_gre", true}, {"ip6_tunnel", true}, {"tunnel6", true}, {"ip6_gre", true}} {
		setModules(t, c.module)
		if got := needsOf(parse(t, "TUNNEL\n"), "six.toml").filter; got != c.want {
			t.Errorf("module %q: %v, want %v", c.module, got, c.want)
		}
	}
}
