package configfile

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/encap"
	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// sample is the sample in the manual, without later additions.
const sample = `[log]
level  = "info"                 # debug | info | warn | error
format = "auto"                 # auto | console | json | journal

[control]
socket = "/run/sixfour/control.sock"

[[tunnel]]                      # one TUN interface; any number of them
name    = "six0"                # interface name
mode    = "4in6in4"             # see below
local   = "203.0.113.10"
remote  = "203.0.113.20"
local6  = "fc00::1"
remote6 = "fc00::2"
address = ["10.0.0.1/30", "fc00::1/64"]
routes  = ["192.168.2.0/24"]
mtu     = 0
ttl     = 64
hop_limit   = 64
dscp        = "inherit"
ecn         = "normal"
pmtu        = "dynamic"
encap_limit = "none"
flow_label  = "hash"
martians    = "rfc"
fwmark      = 0
netns       = ""
`

func mode(name string) encap.Mode {
	m, ok := encap.ModeByName(name)
	if !ok {
		panic(name)
	}
	return m
}

// local returns a local end; the zero Addr for "auto".
func local(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a
}

// layers returns the layers of a tunnel, innermost first, without options: those inside
// the outermost one with their local ends, and the outermost one.
func layers(locals ...string) []config.Layer {
	var list []config.Layer
	for _, s := range locals {
		list = append(list, config.Layer{Local: local(s)})
	}
	return append(list, config.Layer{})
}

// onePeer returns the peer of the short form with one path, and a remote end for each
// layer, innermost first.
func onePeer(from string, remotes ...string) []config.Peer {
	return []config.Peer{aPeer(from, remotes...)}
}

func aPeer(from string, remotes ...string) config.Peer {
	all := hosts(remotes...)
	last := len(all) - 1
	p := config.Peer{Paths: []config.Path{{Encap: "none", Local: local(from), Remote: all[last]}}}
	for _, h := range all[:last] {
		p.InnerRemotes = append(p.InnerRemotes, h.Addr)
	}
	return p
}

func hosts(texts ...string) []config.Host {
	var list []config.Host
	for _, s := range texts {
		if a, err := netip.ParseAddr(s); err == nil {
			list = append(list, config.Host{Addr: a})
		} else {
			list = append(list, config.Host{Name: s})
		}
	}
	return list
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func TestSample(t *testing.T) {
	got, err := Parse("sample", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	forget(got)
	want := &config.Config{
		Log:     config.Log{Level: "info", Format: "auto"},
		Control: config.Control{Socket: "/run/sixfour/control.sock", Explicit: true},
		Tunnels: []config.Tunnel{{
			Name:      "six0",
			Mode:      mode("4in6in4"),
			Layers:    layers("fc00::1"),
			Peers:     onePeer("203.0.113.10", "fc00::2", "203.0.113.20"),
			Interface: config.Interface{Address: prefixes("10.0.0.1/30", "fc00::1/64"), Routes: prefixes("192.168.2.0/24")},
			Options:   encap.DefaultOptions,
			IO:        config.IOSocket,
			Liveness:  defaultLiveness,
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// defaultLiveness is that of a tunnel that does not set it.
var defaultLiveness = config.Liveness{Keepalive: 25 * time.Second, DeadAfter: 5}

// forget removes the positions, which tests of values do not compare.
func forget(c *config.Config) {
	c.Broker.Source = config.Source{}
	for i := range c.Broker.Listen {
		c.Broker.Listen[i].At = problem.Pos{}
	}
	c.LISP.Source = config.Source{}
	for i := range c.LISP.Sites {
		c.LISP.Sites[i].At = problem.Pos{}
	}
	for i := range c.Tunnels {
		t := &c.Tunnels[i]
		t.Source = config.Source{}
		for _, p := range t.AllPaths() {
			p.At = problem.Pos{}
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := Parse("f", []byte(`tunnel = [{name = "a", mode = "6in4", local = "auto", remote = "tunnel.example."}]`))
	if err != nil {
		t.Fatal(err)
	}
	forget(got)
	want := &config.Config{
		Log:     config.Log{Level: "info", Format: "auto"},
		Control: config.Control{Socket: "/run/sixfour/control.sock"},
		Tunnels: []config.Tunnel{{Name: "a", Mode: mode("6in4"), Layers: layers(), Peers: onePeer("auto", "tunnel.example."), Options: encap.DefaultOptions, IO: config.IOSocket, Liveness: defaultLiveness}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestValues sets every key to something that is not its default.
func TestValues(t *testing.T) {
	got, err := Parse("f", []byte(`
log = {level = "debug", format = "json"}
control.socket = "/tmp/s"
[[tunnel]]
name = "a"
mode = "4in6in4"
local = "auto"
remote = "192.0.2.1"
local6 = "2001:db8::1"
remote6 = "2001:db8::2"
address = ["192.0.2.2/24"]
routes = ["0.0.0.0/0", "::/0"]
mtu = 1_280
ttl = "inherit"
hop_limit = 0xff
dscp = 46
ecn = "compat"
pmtu = "static"
encap_limit = 4
flow_label = 1048575
mss_clamp = false
martians = "strict"
fwmark = 4294967295
queues = 64
offload = "off"
io = "auto"
netns = "/run/netns/inner"
[[tunnel]]
name = "b"
mode = "4in6in4"
local = "127.0.0.1"
remote = "127.0.0.2"
local6 = "2001:db8::1"
remote6 = "2001:db8::2"
hop_limit = "inherit"
dscp = 0
encap_limit = 0
flow_label = "inner"
mtu = 65467
`))
	if err != nil {
		t.Fatal(err)
	}
	forget(got)
	want := &config.Config{
		Log:     config.Log{Level: "debug", Format: "json"},
		Control: config.Control{Socket: "/tmp/s", Explicit: true},
		Tunnels: []config.Tunnel{
			{
				Name: "a", Mode: mode("4in6in4"), Layers: layers("2001:db8::1"), Peers: onePeer("auto", "2001:db8::2", "192.0.2.1"),
				Interface: config.Interface{Address: prefixes("192.0.2.2/24"), Routes: prefixes("0.0.0.0/0", "::/0"), MTU: 1280, Queues: 64, NoOffload: true, Netns: "/run/netns/inner"},
				Options: encap.Options{
					TTL: encap.InheritTTL, HopLimit: 255, DSCP: 46, ECNCompat: true, StaticMTU: true, EncapLimit: 4,
					FlowLabel: encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: 1048575},
				},
				NoMSSClamp: true, Strict: true, FwMark: 4294967295, IO: config.IOAuto,
				Liveness: defaultLiveness,
			},
			{
				Name: "b", Mode: mode("4in6in4"), Layers: layers("2001:db8::1"), Peers: onePeer("127.0.0.1", "2001:db8::2", "127.0.0.2"),
				Interface: config.Interface{MTU: 65467}, IO: config.IOSocket, Liveness: defaultLiveness,
				Options: encap.Options{
					TTL: 64, HopLimit: encap.InheritTTL, FlowLabel: encap.FlowLabel{Source: encap.FlowLabelInner},
				},
			},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTunnelProblem(t *testing.T) {
	c, err := Parse("f.toml", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	tunnel := c.Tunnels[0] // a copy keeps its position
	for _, row := range []struct{ key, want string }{
		{"name", "f.toml:9:11: six0 is taken"},
		{"routes", "f.toml:16:11: six0 is taken"},
		{"io", "f.toml:8:3: six0 is taken"},
	} {
		if got := tunnel.Problem(row.key, "%s is taken", "six0").String(); got != row.want {
			t.Errorf("%s: got %s, want %s", row.key, got, row.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := Load(write("good", sample, 0o600)); err != nil {
		t.Error(err)
	}
	if _, err := Load(write("full", sample+strings.Repeat("#", maxSize-len(sample)), 0o600)); err != nil {
		t.Error("a file of just 64 MiB:", err)
	}
	pipe := filepath.Join(dir, "pipe") // opening it must not block
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct{ path, want string }{
		{pipe, ":1:1: no process writes to the pipe: name a file with -config"},
		{filepath.Join(dir, "none"), ":1:1: cannot read the file: no such file or directory: write it, or name another with -config"},
		{dir, ":1:1: cannot read the file: is a directory: name a file in it with -config"},
		{write("large", strings.Repeat("#", maxSize+1), 0o600), ":1:1: the file is larger than 64 MiB, too large for a configuration: name the right one with -config"},
		{write("bad", "x = 1\n"+sample, 0o600), `:1:1: unknown key "x"`},
	}
	if os.Getuid() != 0 {
		rows = append(rows, struct{ path, want string }{write("secret", sample, 0),
			":1:1: cannot read the file: permission denied: run as a user who may read it, or change its permissions"})
	}
	for _, row := range rows {
		c, err := Load(row.path)
		var problems problem.List
		if !errors.As(err, &problems) || c != nil {
			t.Errorf("%s: got %v, %v", row.path, c, err)
			continue
		}
		if got := err.Error(); got != row.path+row.want {
			t.Errorf("got  %s\nwant %s", got, row.path+row.want)
		}
	}
}
