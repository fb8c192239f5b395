package configfile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sixfour/internal/config"
)

const (
	plainTunnel = "[[tunnel]]\nname = 'six0'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"
	hubTable    = "[[tunnel]]\nname = 'hub'\nmode = 'gre'\nlocal = '192.0.2.1'\naddress = ['10.0.0.1/24']\n"
	peerB       = "[[tunnel.peer]]\nname = 'b'\nremote = '192.0.2.2'\nallowed = ['10.0.0.2/32']\n"
	peerC       = "[[tunnel.peer]]\nname = 'c'\nremote = '192.0.2.3'\nallowed = ['10.0.0.3/32']\n"
)

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		name, old, next string
		want            config.Difference
	}{
		{"nothing", plainTunnel, plainTunnel, config.Difference{}},
		{"moved in the file", plainTunnel, "# a comment\n\n[log]\nlevel = 'debug'\n" + plainTunnel, config.Difference{}},
		{"other order of keys", plainTunnel, "[[tunnel]]\nremote = '192.0.2.2'\nname = 'six0'\nlocal = '192.0.2.1'\nmode = '6in4'\n", config.Difference{}},
		{"a default that is written", plainTunnel, plainTunnel + "ttl = 64\nmss_clamp = true\n", config.Difference{}},
		{"otherwise written", plainTunnel + "routes = ['2001:db8::/32']\n", plainTunnel + "routes = [\n  '2001:DB8:0::/32',\n]\n", config.Difference{}},
		{"a key more", plainTunnel, plainTunnel + "ttl = 63\n", config.Difference{Keys: []string{"ttl"}}},
		{"a key less", plainTunnel + "fwmark = 7\n", plainTunnel, config.Difference{Keys: []string{"fwmark"}}},
		{"a mark because of the gateway", plainTunnel + "address = ['fd00::1/64']\n", "[gateway]\ndefault_route = true\n" + plainTunnel + "address = ['fd00::1/64']\n", config.Difference{Keys: []string{"fwmark"}}},
		{"values", plainTunnel + "mtu = 1300\n", strings.Replace(plainTunnel, "192.0.2.2", "192.0.2.9", 1) + "mtu = 1400\n", config.Difference{Keys: []string{"mtu", "remote"}}},
		{"of a mechanism", "[[tunnel]]\nname = 's'\nmode = '6to4'\nlocal = '192.0.2.1'\n", "[[tunnel]]\nname = 's'\nmode = '6to4'\nlocal = '192.0.2.1'\nrelay = 'none'\n", config.Difference{Keys: []string{"relay"}}},
		{"a mode", plainTunnel, strings.Replace(plainTunnel, "6in4", "gre", 1), config.Difference{Keys: []string{"mode"}}},
		{"a stack", plainTunnel, strings.Replace(plainTunnel, "mode = '6in4'", "stack = ['6in4']", 1), config.Difference{Keys: []string{"mode", "stack"}}},
		{"the same peers", hubTable + peerB + peerC, hubTable + peerC + "\n" + peerB, config.Difference{}},
		{"a peer more", hubTable + peerB, hubTable + peerB + peerC, config.Difference{Keys: []string{"peer"}, PeersAdded: 1}},
		{"one for another", hubTable + peerB, hubTable + peerC, config.Difference{Keys: []string{"peer"}, PeersAdded: 1, PeersRemoved: 1}},
		{"a peer's prefixes", hubTable + peerB, hubTable + strings.Replace(peerB, "10.0.0.2/32", "10.0.0.7/32", 1), config.Difference{Keys: []string{"peer"}, PeersChanged: 1}},
		{"peers and more", hubTable + peerB, hubTable + "ttl = 9\n" + strings.Replace(peerB, "192.0.2.2", "192.0.2.7", 1) + peerC, config.Difference{Keys: []string{"peer", "ttl"}, PeersAdded: 1, PeersChanged: 1}},
		{"short form no more", "[[tunnel]]\nname = 'hub'\nmode = 'gre'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\naddress = ['10.0.0.1/24']\n", hubTable + peerB, config.Difference{Keys: []string{"peer", "remote"}}},
	} {
		old, next := parsed(t, c.old), parsed(t, c.next)
		if got := old.Tunnels[0].Difference(&next.Tunnels[0]); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		// After Assume there is no difference.
		both := old.Tunnels[0]
		both.Assume(&next.Tunnels[0])
		if d := both.Difference(&next.Tunnels[0]); !both.SameBesidesPeers(&next.Tunnels[0]) || !d.None() {
			t.Errorf("%s: after all %+v", c.name, d)
		}
	}
}

// Another content of a file that a path names is a difference, too.
func TestDifferenceOfSecret(t *testing.T) {
	for file, key := range map[string]string{plainTunnel: "path", hubTable + peerB: "peer"} {
		old, next := parsed(t, file), parsed(t, file)
		s := &next.Tunnels[0].Peers[0].Paths[0].Secret
		*s = s.With("another secret")
		if d := old.Tunnels[0].Difference(&next.Tunnels[0]); !slices.Equal(d.Keys, []string{key}) {
			t.Errorf("%+v in\n%s", d, file)
		}
	}
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

func TestSections(t *testing.T) {
	const before = "[log]\nlevel = 'warn'\n[control]\nsocket = '/run/a'\n"
	for _, c := range []struct {
		next string
		want []string
	}{
		{before, nil},
		{strings.Replace(before, "warn", "debug", 1), []string{"log"}},
		{"", []string{"log", "control"}},
	} {
		if got := parsed(t, before+plainTunnel).Sections(parsed(t, c.next+"\n"+plainTunnel)); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.next, got, c.want)
		}
	}
}

func BenchmarkDifference(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, err := Parse("f", []byte(manyPeers(n)))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if d := c.Tunnels[0].Difference(&c.Tunnels[0]); !d.None() {
					b.Fatal(d)
				}
			}
		})
	}
}
