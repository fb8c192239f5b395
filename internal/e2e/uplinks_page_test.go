package e2e

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// blocks returns the blocks of a page of the manual that are in a language.
func blocks(t *testing.T, page, language string) (list []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	for _, m := range regexp.MustCompile("(?s)\n```"+language+"\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1]+"\n")
	}
	return list
}

// The commands and configurations of docs/uplinks.md make a tunnel over two providers to one
// address, which survives the failure of each:
//
//	203.0.113.10 dsl0 ──── d ┐
//	                         provider n ──── vb 192.0.2.20
//	198.51.100.10 lte0 ─── l ┘
func TestUplinksOfTheManual(t *testing.T) {
	t.Parallel()
	h := hosts{newNamespace(t, "a"), newNamespace(t, "b")}
	net := newNamespace(t, "n")
	all := netip.MustParsePrefix("0.0.0.0/0")
	for _, link := range []struct {
		host           *rig.Namespace
		dev, provider  string
		addr, provides string
	}{
		{h.a, "dsl0", "d", "203.0.113.10/24", "203.0.113.1/24"},
		{h.a, "lte0", "l", "198.51.100.10/24", "198.51.100.1/24"},
		{h.b, "vb", "b", "192.0.2.20/24", "192.0.2.1/24"},
	} {
		must(t, rig.Veth(link.host, link.dev, net, link.provider, 1500))
		must(t, link.host.AddAddr(link.dev, netip.MustParsePrefix(link.addr)))
		must(t, net.AddAddr(link.provider, netip.MustParsePrefix(link.provides)))
	}
	must(t, net.Forward())
	// Providers drop packets with the source addresses of others.
	command(t, net, "nft", `table ip filter { chain forward { type filter hook forward priority 0;
		iifname "d" ip saddr != 203.0.113.0/24 drop; iifname "l" ip saddr != 198.51.100.0/24 drop; }; }`)
	must(t, h.b.AddRoute(all, netip.MustParseAddr("192.0.2.1"), "vb"))
	for _, line := range strings.Split(strings.TrimSpace(blocks(t, "uplinks.md", "sh")[0]), "\n") {
		command(t, h.a, "sh", "-ec", line)
	}

	files := blocks(t, "uplinks.md", "toml")
	a, b := start(t, h.a, files[0]), start(t, h.b, files[1])
	a.bothAnswer(t)
	b.bothAnswer(t)
	reachable(t, h.a, inB)
	must(t, h.a.LinkDown("dsl0"))
	a.usesPath(t, 1, api.Waiting, api.Up)
	reachable(t, h.a, inB)
	b.usesPath(t, 1, notUp, api.Up)
	must(t, h.a.LinkUp("dsl0"))
	command(t, h.a, "sh", "-ec", strings.SplitN(blocks(t, "uplinks.md", "sh")[0], "\n", 2)[0])
	a.usesPath(t, 0, api.Up, api.Up)
	b.usesPath(t, 0, api.Up, api.Up)
	reachable(t, h.a, inB)
	must(t, h.a.LinkDown("lte0"))
	a.usesPath(t, 0, api.Up, api.Waiting)
	reachable(t, h.a, inB)
	// Each path was probed with large packets while the other end answered by the other one.
	for _, d := range []*daemon{a, b} {
		_, s := d.status(t)
		for i, p := range s.Paths {
			if p.State.PathMTU != 1500 && p.State.Phase != api.Waiting {
				t.Errorf("path %d has an MTU of %d", i+1, p.State.PathMTU)
			}
		}
	}
}

// The configurations of docs/filtered.md carry packets in UDP while protocol 41 is filtered,
// with the rule of the page for a packet filter.
func TestFilteredOfTheManual(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	files := blocks(t, "filtered.md", "toml")
	a, b := start(t, h.a, files[0]), start(t, h.b, files[1])
	a.bothAnswer(t)
	b.bothAnswer(t)
	for _, ns := range []*rig.Namespace{h.a, h.b} {
		drops(t, ns, "iifname six0 accept; udp dport 5555 ip saddr { 203.0.113.10, 203.0.113.20 } accept; drop;")
	}
	a.usesPath(t, 1, notUp, api.Up)
	b.usesPath(t, 1, notUp, api.Up)
	pings(t, h.a, inB, rig.PingOptions{Count: 5})
	if _, s := a.status(t); s.State.TunnelMTU != 1432 {
		t.Errorf("the interface has an MTU of %d", s.State.TunnelMTU)
	}
}
