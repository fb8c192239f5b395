package configfile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/encap/header"
	"sixfour/internal/config"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/tree"
	"sixfour/internal/selection"
)

// path returns a [[tunnel.path]] with some lines.
func path(keys ...string) string { return "[[tunnel.path]]\n" + strings.Join(keys, "\n") + "\n" }

func peerPath(keys ...string) string {
	return strings.Replace(path(keys...), "tunnel.path", "tunnel.peer.path", 1)
}

// pathTexts returns the outer addresses of the paths of each peer.
func pathTexts(c *config.Tunnel) (all []string) {
	for p, path := range c.AllPaths() {
		local, remote := "auto", path.Remote.Name
		if path.Local.IsValid() {
			local = path.Local.String()
		}
		if path.Remote.Addr.IsValid() {
			remote = path.Remote.Addr.String()
		}
		all = append(all, strings.TrimSpace(p.Name+" "+local+">"+remote+" "+path.Encap))
	}
	return all
}

func TestPaths(t *testing.T) {
	for _, row := range []struct {
		file string
		want []string
	}{
		{single, []string{"192.0.2.1>192.0.2.2 none"}},
		{single + path(), []string{"192.0.2.1>192.0.2.2 none"}},
		{single + path() + path("local = '198.51.100.1'"), []string{"192.0.2.1>192.0.2.2 none", "198.51.100.1>192.0.2.2 none"}},
		{single + path("remote = 'b.example'") + path("encap = 'none'", "local = 'auto'"), []string{"192.0.2.1>b.example none", "auto>192.0.2.2 none"}},
		{tunnel("6in4", "", "") + path("local = '192.0.2.1'", "remote = '192.0.2.2'") + path("local = '198.51.100.1'", "remote = '198.51.100.2'"),
			[]string{"192.0.2.1>192.0.2.2 none", "198.51.100.1>198.51.100.2 none"}},
		{tunnel("4in6", "2001:db8::1", "") + path("remote = '2001:db8::2'") + path("remote = 'b.example'"),
			[]string{"2001:db8::1>2001:db8::2 none", "2001:db8::1>b.example none"}},
		// Local6 and remote6 are those of the inner layer.
		{double + path() + path("remote = '192.0.2.3'"), []string{"192.0.2.1>192.0.2.2 none", "192.0.2.1>192.0.2.3 none"}},
		// The tunnel's paths are those of each peer that has none.
		{hubTunnel + path() + path("local = '198.51.100.1'") + peer("b", "192.0.2.2", "10.0.0.2/32") + peer("c", "192.0.2.3", "10.0.0.3/32") + peerPath() + peerPath("remote = '198.51.100.3'"),
			[]string{"b 192.0.2.1>192.0.2.2 none", "b 198.51.100.1>192.0.2.2 none", "c 192.0.2.1>192.0.2.3 none", "c 192.0.2.1>198.51.100.3 none"}},
		{hubTunnel + without(peer("b", "", "10.0.0.2/32"), "remote") + peerPath("remote = '192.0.2.2'") + peerPath("remote = '192.0.2.3'"),
			[]string{"b 192.0.2.1>192.0.2.2 none", "b 192.0.2.1>192.0.2.3 none"}},
	} {
		got := one(t, row.file)
		if texts := pathTexts(got); !reflect.DeepEqual(texts, row.want) {
			t.Errorf("%s\ngot  %q\nwant %q", row.file, texts, row.want)
		}
	}
	got := one(t, double+path()+path("local = 'auto'"))
	if want := []netip.Addr{addr("fc00::2")}; !reflect.DeepEqual(got.Peers[0].InnerRemotes, want) {
		t.Errorf("%v, want %v", got.Peers[0].InnerRemotes, want)
	}
	if want := []netip.Addr{addr("192.0.2.1"), {}}; !reflect.DeepEqual(got.Locals(), want) {
		t.Errorf("%v, want %v", got.Locals(), want)
	}
}

func TestPathProblems(t *testing.T) {
	nine := ""
	for i := range 9 {
		nine += path(fmt.Sprintf("remote = '198.51.100.%d'", i+1))
	}
	two := tunnel("6in4", "", "") + path("local = '192.0.2.1'", "remote = '192.0.2.2'") + path("local = '192.0.2.1'", "remote = '192.0.2.3'")
	checkProblems(t, []problemRow{
		{"[[tunnel.path]]\nencap = 'none'\n" + single, `1:3: [[tunnel.path]] stands before the [[tunnel]] that it belongs to: put it below that`},
		{"[[path]]\nencap = 'none'\n" + single, `1:3: unknown key "path": paths are [[tunnel.path]], below the [[tunnel]] that they belong to`},
		{single + "encap = 'none'\n", `6:1: unknown key "encap" in [[tunnel]]: it belongs to [[tunnel.path]]`},
		{hubTunnel + peer("b", "192.0.2.2", "10.0.0.2/32") + "encap = 'none'\n", `9:1: unknown key "encap" in [[tunnel.peer]]: it belongs to [[tunnel.peer.path]]`},
		{single + path("name = 'x'"), `7:1: unknown key "name" in [[tunnel.path]]: it belongs to [[tunnel]]`},
		{single + path("endpoint = '192.0.2.3'"), `7:1: unknown key "endpoint" in [[tunnel.path]]: did you mean "remote"?`},
		{single + "path = []\n", `6:8: there is no path: add one, which begins with [[tunnel.path]], or leave path out`},
		{single + "path = 'x'\n", `6:8: path is a string: it must be an array of tables, each of which begins with [[tunnel.path]]`},
		{single + "path = [1]\n", `6:9: path has an integer in it: it must be an array of tables, each of which begins with [[tunnel.path]]`},
		{single + nine, `22:10: there are 9 paths: at most 8 are possible: leave some out`},
	})
	checkProblems(t, []problemRow{
		{tunnel("6to4", "auto", "") + path("local = '198.51.100.1'"), `5:10: path contradicts mode "6to4", which finds the other ends' outer addresses itself: leave the paths out, or choose a configured mode, such as "6in4"`},
		{single + path("encap = 'fou'", "port = 65536"), `8:8: port is 65536: it must be an integer from 1 to 65535`},
		{single + path("remote = '2001:db8::2'"), `7:10: remote is "2001:db8::2": it must be an IPv4 address or a DNS name`},
		{single + path("local = '2001:db8::2'"), `7:9: local is "2001:db8::2": it must be an IPv4 address or "auto"`},
		{single + path("remote = 'any'"), `7:10: remote is "any", but sixfourd exchanges packets with configured addresses only, because nothing but its outer address identifies a peer: ` +
			`set it to the other end's address or DNS name; for several other ends, write a [[tunnel.peer]] for each`},
		{single + path() + path("local = '192.0.2.1'"), `8:10: the path is the same as that of line 6: leave one of them out, or give one another local or remote`},
		{single + path("remote = '192.0.2.3'") + path("remote = '192.0.2.3'") + path("remote = '192.0.2.4'") + path("remote = '192.0.2.4'"), lines(
			`8:10: the path is the same as that of line 6: leave one of them out, or give one another local or remote`,
			`12:10: the path is the same as that of line 10: leave one of them out, or give one another local or remote`)},
		{single + path("remote = '192.0.2.1'"), `7:10: remote is the same as local: it must be the other end's outer address`},
		{single + path("local = '192.0.2.3'", "remote = '192.0.2.3'"), `8:10: remote is the same as local: it must be the other end's outer address`},
		{tunnel("6in4", "192.0.2.1", "") + path("remote = '192.0.2.3'") + path(), `1:3: remote is missing: set it to the other end's outer address or its DNS name`},
		{tunnel("6in4", "", "192.0.2.1") + path("local = '192.0.2.3'") + path(), `1:3: local is missing: set it to this end's outer address, or to "auto" for the one that the kernel's routing would choose`},
		{hubTunnel + path("remote = '192.0.2.3'") + peer("b", "192.0.2.2", "10.0.0.2/32"),
			`6:1: remote contradicts [[tunnel.peer]], where each peer has its own: leave it out, or leave the peers out`},
		{hubTunnel + without(peer("b", "", "10.0.0.2/32"), "remote") + peerPath("remote = '192.0.2.2'") + peerPath(),
			`5:10: remote is missing in [[tunnel.peer]]: set it to the peer's outer address or its DNS name`},
		{hubTunnel + peer("b", "192.0.2.2", "10.0.0.2/32") + peer("c", "192.0.2.3", "10.0.0.3/32") + peerPath() + peerPath("remote = '192.0.2.2'"),
			`16:10: remote is that of the peer of line 5, so that their packets could not be told apart: give each peer its own`},
		{two + second(single), `14:10: local and remote are those of the tunnel of line 1, so that their packets could not be told apart: give one of them another address`},
		{single + "address = ['fc00::1/64']\n" + path("remote = '127.0.0.1'") + path(), `8:10: remote is 127.0.0.1 and local is 192.0.2.1, and the loopback network reaches only this host: correct one of them`},
		{hubTunnel + "address = ['10.0.0.1/24']\n" + peer("b", "192.0.2.2", "10.0.0.2/32") + peerPath("remote = '10.0.0.3'"),
			`5:12: address has 10.0.0.1/24, which holds remote 10.0.0.3 of peer "b", so that outer packets would go into the tunnel again: ` +
				`choose a prefix without it, set netns to move the interface into a namespace of its own, or set fwmark and add a rule that routes marked packets elsewhere`},
	})
}

func TestSelect(t *testing.T) {
	policies, known := selection.Policies, tunnelKeys
	defer func() { selection.Policies, tunnelKeys = policies, known }()
	selection.Policies = []selection.Row{{Name: "test"}, {Name: "other"}}
	tunnelKeys = append(slices.DeleteFunc(slices.Clone(known), func(k tree.Key[*draft]) bool { return k.Name == "select" }), selectKeys()...)
	two := path() + path("remote = '192.0.2.3'")
	for text, want := range map[string]string{"": "", "select = 'other'\n": "other"} {
		if got := one(t, single+text+two).Select; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	checkProblems(t, []problemRow{
		{single + "select = 'test'\n", `6:10: select has nothing to choose from, because there is only one path: add another one, which begins with [[tunnel.path]], or leave select out`},
		{single + "select = 'best'\n" + two, `6:10: select is "best": it must be "test" or "other": did you mean "test"?`},
		{hubTunnel + "select = 'other'\n" + peer("b", "192.0.2.2", "10.0.0.2/32") + peerPath() + peerPath("local = 'auto'"), ``},
	})
}

// The weight of a path is for policies that use it.
func TestWeight(t *testing.T) {
	two := path("weight = 3") + path("remote = '192.0.2.3'")
	got := one(t, single+"select = 'balance'\n"+two).Peers[0].Paths
	if got[0].Weight != 3 || got[1].Weight != 0 {
		t.Errorf("%+v", got)
	}
	checkProblems(t, []problemRow{
		{single + two, `7:1: weight contradicts select "preferred", which divides no flows among the paths: leave it out, or set select to "balance"`},
		{single + "select = 'fastest'\n" + two, `8:1: weight contradicts select "fastest", which divides no flows among the paths: leave it out, or set select to "balance"`},
		{single + "select = 'balance'\n" + path("weight = 0") + path("weight = 1001", "local = 'auto'"), lines(
			`8:10: weight is 0: it must be an integer from 1 to 1000`,
			`10:10: weight is 1001: it must be an integer from 1 to 1000`)},
		{single + "select = 'balance'\n" + path("weight = 2") + path("local = 'auto'") + path(), `11:10: the path is the same as that of line 7: leave one of them out, or give one another local or remote`},
	})
}

// Differences of paths are found, and a reload applies them.
func TestPathDifferences(t *testing.T) {
	hub := hubTable + peerB
	for _, c := range []struct {
		name, old, next string
		want            config.Difference
	}{
		{"a path that is implied", plainTunnel, plainTunnel + path(), config.Difference{}},
		{"a second path", plainTunnel, plainTunnel + path() + path("remote = '192.0.2.3'"), config.Difference{Keys: []string{"path"}}},
		{"another order", plainTunnel + path() + path("remote = '192.0.2.3'"), plainTunnel + path("remote = '192.0.2.3'") + path(), config.Difference{Keys: []string{"path"}}},
		{"a weight that is implied", plainTunnel + "select = 'balance'\n" + path() + path("remote = '192.0.2.3'"), plainTunnel + "select = 'balance'\n" + path("weight = 1") + path("remote = '192.0.2.3'"), config.Difference{}},
		{"another weight", plainTunnel + "select = 'balance'\n" + path() + path("remote = '192.0.2.3'"), plainTunnel + "select = 'balance'\n" + path() + path("remote = '192.0.2.3'", "weight = 2"), config.Difference{Keys: []string{"path"}}},
		{"of all peers", hub, hubTable + path() + path("local = 'auto'") + peerB, config.Difference{Keys: []string{"path", "peer"}, PeersChanged: 1}},
		{"of a peer", hub, hub + peerPath("local = 'auto'"), config.Difference{Keys: []string{"peer"}, PeersChanged: 1}},
	} {
		old, next := parsed(t, c.old), parsed(t, c.next)
		if got := old.Tunnels[0].Difference(&next.Tunnels[0]); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		both := old.Tunnels[0]
		both.Assume(&next.Tunnels[0])
		if d := both.Difference(&next.Tunnels[0]); !d.None() {
			t.Errorf("%s: after all %+v", c.name, d)
		}
	}
}

// withPorts is another framing, with ports.
type withPorts struct {
	framing.Framing
	ports framing.Ports
}

func (f withPorts) Properties() framing.Properties {
	p := f.Framing.Properties()
	p.Ports, p.Identity = f.ports, uint64(f.ports.Local)
	return p
}

// The encapsulations in UDP have ports of their own, carry all modes with configured
// addresses, and have a header of GRE if the mode has one or the encapsulation always has.
func TestEncapsulationsInUDP(t *testing.T) {
	gre := framing.GRE{Keyed: true, Key: 7}
	for _, row := range []struct {
		file string
		want framing.Framing
		raw  bool // it needs raw sockets
	}{
		{single + path("encap = 'fou'"), framing.FOU{Local: 5555, Remote: 5555, Version: 6}, false},
		{single + path("encap = 'fou'", "port = 7", "source_port = 'flow'"), framing.FOU{Local: 7, Remote: 7, Version: 6, Flow: true}, true},
		{tunnel("4in6", "2001:db8::1", "2001:db8::2") + path("encap = 'fou'", "checksum = false"), framing.FOU{Local: 5555, Remote: 5555, Version: 4, NoChecksum: true}, false},
		{greTunnel + "key = 7\n" + path("encap = 'fou'"), framing.FOU{Local: 5555, Remote: 5555, Inside: gre}, false},
		{double + path("encap = 'gue'"), framing.GUE{Local: 6080, Remote: 6080, Version: 6}, false},
		{greTunnel + "key = 7\n" + path("encap = 'gue'", "local_port = 6081"), framing.GUE{Local: 6081, Remote: 6080, Inside: gre}, false},
		{single + path("encap = 'gre_udp'"), framing.FOU{Local: 4754, Remote: 4754, Version: 6, Inside: framing.GRE{}, Flow: true}, true},
		{greTunnel + "key = 7\n" + path("encap = 'gre_udp'", "source_port = 'local'"), framing.FOU{Local: 4754, Remote: 4754, Inside: gre}, false},
		{single + "pmtu = 'static'\n" + path("encap = 'fou'"), framing.FOU{Local: 5555, Remote: 5555, Version: 6}, true},
		{tunnel("4in6", "2001:db8::1", "2001:db8::2") + "encap_limit = 4\n" + path("encap = 'fou'"), framing.FOU{Local: 5555, Remote: 5555, Version: 4}, true},
		{single, framing.Bare(6), true},
	} {
		c := one(t, row.file)
		if got := c.Outermost(&c.Peers[0].Paths[0]).Framing(); got != row.want {
			t.Errorf("%s\ngot %+v\nwant %+v", row.file, got, row.want)
		}
		if got := c.NeedsRaw(&c.Peers[0].Paths[0]); got != row.raw {
			t.Errorf("%s\nit needs raw sockets: %v", row.file, got)
		}
	}
	checkProblems(t, []problemRow{
		{single + path("encap = 'fou'", "source_port = 'any'"), `8:15: source_port is "any": it must be "local" or "flow"`},
		{single + path("source_port = 'flow'"), `7:1: source_port contradicts encap "none", which has no such key: leave it out, or set encap to "fou", "gue" or "gre_udp"`},
	})
}

// An encapsulation with ports is one row: the keys, their checks and the reference follow
// from it.
func TestNewEncapsulation(t *testing.T) {
	all, known := config.Encapsulations, pathKeys
	defer func() { config.Encapsulations, pathKeys = all, known }()
	config.Encapsulations = append(all[:1:1], config.Encapsulation{Name: "test", Ports: true, Checksum: true, Carries: func(k encap.Kind) bool { return k.Protocol() != header.GRE }, Frame: func(k encap.Kind, p *config.Path) encap.Kind {
		return k.With(withPorts{k.Framing(), framing.Ports{Local: p.LocalPort, Remote: p.Port}})
	}})
	pathKeys = newPathKeys()

	got := one(t, single+path("encap = 'test'", "port = 5555", "checksum = false")+path("encap = 'test'", "port = 5556", "local_port = 5557")+path())
	want := []config.Path{
		{Encap: "test", Port: 5555, LocalPort: 5555},
		{Encap: "test", Port: 5556, LocalPort: 5557, Checksum: true},
		{Encap: "none"},
	}
	for i := range want {
		want[i].Local, want[i].Remote = addr("192.0.2.1"), config.Host{Addr: addr("192.0.2.2")}
	}
	if !reflect.DeepEqual(got.Peers[0].Paths, want) {
		t.Errorf("got  %+v\nwant %+v", got.Peers[0].Paths, want)
	}
	checkProblems(t, []problemRow{
		{single + path("port = 5555"), `7:1: port contradicts encap "none", which has no such key: leave it out, or set encap to "test"`},
		{single + path("encap = 'test'"), `6:10: port is missing in [[tunnel.path]]: set it to the other end's UDP port`},
		{greTunnel + path("encap = 'test'", "port = 1"), `7:9: encap "test" cannot carry the outermost layer of mode "gre": leave it out, or choose another mode`},
		{single + path("encap = 'test'", "port = 0"), `8:8: port is 0: it must be an integer from 1 to 65535`},
		{single + path("encap = 'tset'"), `7:9: encap is "tset": it must be "none" or "test": did you mean "test"?`},
		{single + path("encap = 'vxlan'"), `7:9: encap is "vxlan": it must be "none" or "test"`},
	})
	names := ""
	for _, k := range keys.PathReference(keys.TablePath, "") {
		names += k.Name + " "
	}
	if names != "encap local remote port local_port checksum weight " {
		t.Errorf("the reference has %s", names)
	}
}
